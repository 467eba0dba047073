//! Driving the simulated operator with single keys.
//!
//! Owns what each key means and the raw mode of the terminal. Relies on the control language: a key becomes the same
//! line that a script would hold. Never leaves a terminal in raw mode, not even after a panic.

use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

/// One press of an arrow key, of the whole way.
const STEP: f64 = 0.1;

/// What the keys are, for the screen.
pub(super) const HELP: &str = "keys: w/s or up/down throttle and brake, a/d or left/right steering, space everything at \
                               rest, Enter start button down or up,\n      f fault, l radio link, c operator counter, \
                               k controller, r restart of OCP, q quit";

/// What the operator's hands do.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Hands {
    /// -1 full brake to +1 full throttle.
    pedal: f64,
    /// -1 left to +1 right.
    wheel: f64,
    start: bool,
    fault: bool,
    cut: bool,
    frozen: bool,
    gone: bool,
}

impl Hands {
    /// The lines that these bytes of the terminal stand for.
    pub(super) fn handle_bytes(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut rest = bytes;
        while let Some((key, tail)) = next_key(rest) {
            rest = tail;
            self.key(key, &mut lines);
        }
        lines
    }

    fn key(&mut self, key: char, lines: &mut Vec<String>) {
        let mut toggle = |state: &mut bool, on: &str, off: &str| {
            *state = !*state;
            lines.push(if *state { on } else { off }.to_owned());
        };
        match key {
            'f' => toggle(&mut self.fault, "fault CameraLost on", "fault CameraLost off"),
            'l' => toggle(&mut self.cut, "link cut", "link restore"),
            'c' => toggle(&mut self.frozen, "counter freeze", "counter run"),
            'k' => toggle(&mut self.gone, "controller none", "controller on"),
            '\r' | '\n' => toggle(&mut self.start, "press start", "release start"),
            'r' => lines.push("restart".to_owned()),
            'q' => lines.push("quit".to_owned()),
            ' ' => {
                (self.pedal, self.wheel, self.start) = (0.0, 0.0, false);
                lines.push("neutral".to_owned());
            }
            'w' | 's' => {
                self.pedal = stepped(self.pedal, if key == 'w' { STEP } else { -STEP });
                lines.push(format!("axis right_trigger {:.2}", self.pedal.max(0.0).mul_add(2.0, -1.0)));
                lines.push(format!("axis left_trigger {:.2}", (-self.pedal).max(0.0).mul_add(2.0, -1.0)));
            }
            'a' | 'd' => {
                self.wheel = stepped(self.wheel, if key == 'd' { STEP } else { -STEP });
                lines.push(format!("axis left_x {:.2}", self.wheel));
            }
            _ => {}
        }
    }
}

/// One step further, on a tenth, within the way.
fn stepped(from: f64, by: f64) -> f64 {
    ((from + by) * 10.0).round().clamp(-10.0, 10.0) / 10.0
}

/// The next key; an arrow key reads as the letter it stands for.
fn next_key(bytes: &[u8]) -> Option<(char, &[u8])> {
    match bytes {
        [0x1b, b'[', arrow, tail @ ..] => {
            let key = match arrow {
                b'A' => 'w',
                b'B' => 's',
                b'C' => 'd',
                b'D' => 'a',
                _ => '\0',
            };
            Some((key, tail))
        }
        [key, tail @ ..] => Some((char::from(key.to_ascii_lowercase()), tail)),
        [] => None,
    }
}

/// A terminal without echo and line editing, until it is dropped.
pub(super) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Takes the terminal of stdin.
    pub(super) fn take() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        // Interrupt keys keep working.
        raw.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw)?;
        Ok(Self { before })
    }

    /// Bytes that were typed, after waiting for them at most this long.
    pub(super) fn read(&self, wait: Duration) -> Vec<u8> {
        let stdin = io::stdin();
        let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
        if poll(&mut fds, wait).is_ok_and(|ready| ready > 0) {
            let mut bytes = [0; 64];
            let read = stdin.lock().read(&mut bytes).unwrap_or(0);
            return bytes.get(..read).unwrap_or_default().to_vec();
        }
        Vec::new()
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // The terminal may be gone; then nobody misses its mode.
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::ocp::command;

    #[test]
    fn every_key_becomes_a_line_that_the_simulator_knows() {
        let mut hands = Hands::default();
        for key in 0..=u8::MAX {
            for line in hands.handle_bytes(&[key]) {
                assert!(command::parse(&line).is_ok_and(|parsed| parsed.is_some()), "{line}");
            }
        }
    }

    #[test]
    fn pedals_share_one_way_and_a_released_trigger_is_minus_one() {
        let mut hands = Hands::default();
        assert_eq!(hands.handle_bytes(b"w"), ["axis right_trigger -0.80", "axis left_trigger -1.00"]);
        assert_eq!(
            hands.handle_bytes(b"\x1b[B\x1b[B")[2..],
            ["axis right_trigger -1.00", "axis left_trigger -0.80"]
        );
        assert_eq!(hands.handle_bytes(b"ddd").last().map(String::as_str), Some("axis left_x 0.30"));
        assert_eq!(hands.handle_bytes(b" "), ["neutral"]);
        for _ in 0..30 {
            hands.handle_bytes(b"\x1b[D");
        }
        assert_eq!(hands.handle_bytes(b"a"), ["axis left_x -1.00"]);
    }

    #[test]
    fn switches_flip() {
        let mut hands = Hands::default();
        assert_eq!(
            hands.handle_bytes(b"\n\nfflc"),
            [
                "press start",
                "release start",
                "fault CameraLost on",
                "fault CameraLost off",
                "link cut",
                "counter freeze"
            ]
        );
    }
}
