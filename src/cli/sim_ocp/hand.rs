//! A real gamepad in the simulated operator's hands.
//!
//! Owns the waiting for it, and what happens when it is unplugged. Relies on [`crate::sim::live::gamepad`]. Never holds what an
//! unplugged gamepad held.

use core::time::Duration;
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::io::clock;
use crate::sim::live::gamepad::{Pad, PadError};
use crate::sim::live::ocp::OcpSimHandle;
use crate::time::Instant;

/// Longest wait for the gamepad: a tenth of what the eye calls a delay.
const TURN: Duration = Duration::from_millis(10);

/// An unplugged gamepad is looked for this often.
const LOOK: Duration = Duration::from_millis(500);

/// A gamepad, or its place.
#[derive(Debug)]
pub(super) struct Hand {
    which: PathBuf,
    pad: Option<Pad>,
    /// Nothing was told to the simulator yet, or since it was plugged in.
    is_new: bool,
    looked_at: Instant,
}

impl Hand {
    /// Takes the gamepad; it must be there at the start.
    pub(super) fn take(which: &Path) -> Result<Self, PadError> {
        let pad = Pad::open(which)?;
        Ok(Self { which: which.to_owned(), pad: Some(pad), is_new: true, looked_at: Instant::ZERO })
    }

    /// Waits for the gamepad and hands on how it is held. Returns what is worth a line.
    pub(super) fn turn(&mut self, sim: &OcpSimHandle) -> Option<String> {
        let Some(pad) = &mut self.pad else { return self.look() };
        if self.is_new {
            self.is_new = false;
            sim.set_controller(Some(pad.controller()));
            return Some(format!("gamepad {:?} at {}", pad.name(), pad.path().display()));
        }
        let mut fds = [PollFd::new(pad.fd(), PollFlags::POLLIN)];
        // An interrupt, or an error that the read meets as well.
        let _ = ppoll(&mut fds, Some(TimeSpec::from_duration(TURN)), None);
        match pad.read() {
            Ok(None) => None,
            Ok(Some(controller)) => {
                sim.set_controller(Some(controller));
                None
            }
            Err(error) => {
                self.pad = None;
                sim.set_controller(None);
                Some(error.to_string())
            }
        }
    }

    /// Looks for the gamepad that was unplugged.
    fn look(&mut self) -> Option<String> {
        let now = clock::now();
        if now.since(self.looked_at) >= LOOK {
            self.looked_at = now;
            self.pad = Pad::open(&self.which).ok();
            self.is_new = true;
        } else {
            std::thread::sleep(TURN);
        }
        None
    }
}
