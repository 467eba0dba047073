//! The arming checklist on a terminal.
//!
//! Owns the picture below the log lines. Relies on the status. Never waits for the terminal: one that does not take bytes is left
//! as it is.

use std::io::Write as _;

use crate::safety::input::{StateName, Status};
use crate::time::Instant;

/// The arming checklist on a terminal; nothing where stdout is none. It is drawn below the log lines, and taken away
/// while one is written.
pub(super) struct Screen {
    pub(super) is_terminal: bool,
    lines: usize,
    pub(super) status: Option<Status>,
    last_reaction: Option<Instant>,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { is_terminal: crate::cli::has_screen(), lines: 0, status: None, last_reaction: None }
    }

    /// Whether this reaction has not been told yet.
    pub(super) fn note_reaction(&mut self, at: Instant) -> bool {
        self.last_reaction.replace(at) != Some(at)
    }

    /// Takes the checklist away.
    pub(super) fn erase(&mut self) {
        if self.lines > 0 && write_ready(&format!("\x1b[{}A\x1b[J", self.lines)) {
            self.lines = 0;
        }
    }

    /// Draws the state and the checklist.
    pub(super) fn draw(&mut self) {
        let Some(status) = self.status.filter(|_| self.is_terminal && self.lines == 0) else { return };
        let text = checklist(&status);
        if write_ready(&text) {
            self.lines = text.lines().count();
        }
    }
}

fn checklist(status: &Status) -> String {
    use std::fmt::Write as _;
    let mut text = format!("state {}\n", status.state.name());
    if let Some(trip) = &status.cause {
        let _ = writeln!(text, "last trip: {} ({})", trip.fault.text(), trip.fault.name());
    }
    for fault in status.faults.iter() {
        let _ = writeln!(text, "  fault: {}", fault.text());
    }
    if status.state == StateName::Armed {
        text.push_str("  the operator drives\n");
        return text;
    }
    for (name, met, todo) in status.checklist.points() {
        let mark = if met { "x" } else { " " };
        let hint = if met { "" } else { todo };
        let _ = writeln!(text, "  [{mark}] {:<10} {hint}", name.replace('_', " "));
    }
    text
}

/// Writes to the terminal if it takes it without waiting: one that was stopped with Ctrl-S, or has gone, is no reason
/// to stop.
fn write_ready(text: &str) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd as _;
    let mut out = std::io::stdout().lock();
    let is_ready = {
        let mut fds = [PollFd::new(out.as_fd(), PollFlags::POLLOUT)];
        matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1))
            && fds.iter().all(|fd| fd.revents().is_some_and(|seen| seen.contains(PollFlags::POLLOUT)))
    };
    is_ready && out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}
