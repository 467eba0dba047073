//! The real gamepad of the simulated operator.
//!
//! Owns the choice of the device, the first look at it and the reading. Relies on `io::evdev` for the device and on
//! [`crate::sim::gamepad`] for what its events mean. Never waits: whoever holds it waits on [`Pad::fd`], and opens it
//! again once it was lost.

use std::fmt;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use crate::io::evdev::{self, Device, DeviceError, Event, MANY};
use crate::proto::ocp::Controller;
use crate::sim::gamepad::{Decoder, Step};

/// Where Linux keeps its event devices.
const FOLDER: &str = "/dev/input";

/// Reads in one turn at most: a device that floods must not hold the simulator. 1,000 reports a second, as the fastest
/// pads make, are far below.
const READS: usize = 16;

/// Why there is no gamepad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PadError {
    /// The device cannot be opened or read.
    Device(PathBuf, DeviceError),
    /// An input device of that name, but no gamepad.
    NotGamepad(PathBuf, String),
    /// `auto`, and no gamepad: what there is instead, one device each.
    NoneFound(Vec<String>),
    /// `auto`, and more than one gamepad: path and name of each.
    Several(Vec<String>),
    /// It was there and is unplugged. What it held last is no longer held.
    Lost(String),
}

impl fmt::Display for PadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(path, why) => write!(f, "{}: {why}", path.display()),
            Self::NotGamepad(path, name) => write!(f, "{}: {name:?} is no gamepad", path.display()),
            Self::NoneFound(others) if others.is_empty() => {
                write!(f, "no gamepad: there is no input device in {FOLDER}")
            }
            Self::NoneFound(others) => write!(f, "no gamepad among {}", others.join(", ")),
            Self::Several(pads) => write!(f, "several gamepads, name one: {}", pads.join(", ")),
            Self::Lost(name) => write!(f, "the gamepad {name:?} was unplugged"),
        }
    }
}

impl core::error::Error for PadError {}

/// An open gamepad.
#[derive(Debug)]
pub struct Pad {
    device: Device,
    path: PathBuf,
    decoder: Decoder,
}

impl Pad {
    /// Opens a gamepad: a path such as `/dev/input/event5` or one of the lasting names below `/dev/input/by-id`, or
    /// `auto` for the only one there is. After [`PadError::Lost`] it is opened again by the same call; a gamepad that
    /// is plugged in again may have another number, so `auto` and lasting names find it and `eventN` may not.
    ///
    /// # Errors
    /// Every [`PadError`].
    pub fn open(which: &Path) -> Result<Self, PadError> {
        if which == Path::new("auto") { Self::find(Path::new(FOLDER)) } else { Self::at(which) }
    }

    fn at(path: &Path) -> Result<Self, PadError> {
        let failed = |why| PadError::Device(path.to_owned(), why);
        let device = Device::open(path).map_err(failed)?;
        let keys = device.keys().map_err(failed)?;
        // A device that goes meanwhile has no axes; it is no gamepad any more.
        let range = |code| device.axis(code).ok().flatten().map(|axis| (axis.min, axis.max));
        let Some(decoder) = Decoder::new(device.vendor(), |code| keys.has(code), range) else {
            return Err(PadError::NotGamepad(path.to_owned(), device.name().to_owned()));
        };
        let mut pad = Self { device, path: path.to_owned(), decoder };
        pad.look().map_err(failed)?;
        Ok(pad)
    }

    /// The only gamepad in the folder.
    fn find(folder: &Path) -> Result<Self, PadError> {
        let mut pads = Vec::new();
        let mut others = Vec::new();
        for path in evdev::list(folder) {
            match Self::at(&path) {
                Ok(pad) => pads.push(pad),
                Err(PadError::NotGamepad(path, name)) => others.push(format!("{} ({name})", path.display())),
                Err(error) => others.push(error.to_string()),
            }
        }
        if pads.len() > 1 {
            let named = |pad: &Self| format!("{} ({})", pad.path.display(), pad.name());
            return Err(PadError::Several(pads.iter().map(named).collect()));
        }
        pads.pop().ok_or(PadError::NoneFound(others))
    }

    /// The device, with its number.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name that the device gives.
    #[must_use]
    pub fn name(&self) -> &str {
        self.device.name()
    }

    /// To wait on: readable when the gamepad has something to say, and when it is gone.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    /// The gamepad as it is held, as of the last [`Pad::read`], or of the opening.
    #[must_use]
    pub fn controller(&self) -> Controller {
        self.decoder.controller()
    }

    /// Takes what has come and returns how the gamepad is held now; `None` where no whole report came. Does not wait.
    /// A button that was pressed and released since the last call is not seen, as between two frames of the vendor's
    /// player.
    ///
    /// # Errors
    /// [`PadError::Lost`] once it is unplugged, and then for ever; [`PadError::Device`] where reading fails otherwise.
    pub fn read(&mut self) -> Result<Option<Controller>, PadError> {
        let mut newest = None;
        let mut events = [Event::default(); MANY];
        for _ in 0..READS {
            let count = self.device.read(&mut events).map_err(|why| self.failed(why))?;
            if count == 0 {
                break;
            }
            for event in events.iter().take(count) {
                match self.decoder.event(event.kind, event.code, event.value) {
                    Step::More => {}
                    Step::Report(controller) => newest = Some(controller),
                    Step::Reread => {
                        self.look().map_err(|why| self.failed(why))?;
                        newest = Some(self.decoder.controller());
                    }
                }
            }
        }
        Ok(newest)
    }

    fn failed(&self, why: DeviceError) -> PadError {
        match why {
            DeviceError::Gone => PadError::Lost(self.name().to_owned()),
            other => PadError::Device(self.path.clone(), other),
        }
    }

    /// Reads every axis and button as the kernel has them.
    fn look(&mut self) -> Result<(), DeviceError> {
        let codes: Vec<u16> = self.decoder.axes().collect();
        for code in codes {
            if let Some(axis) = self.device.axis(code)? {
                self.decoder.stored_axis(code, axis.value);
            }
        }
        // Last: with this question the kernel throws away the key events that still wait.
        let pressed = self.device.pressed()?;
        for code in Decoder::keys() {
            self.decoder.key(code, pressed.has(code));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::clock;
    use crate::proto::ocp::{Axis, Button};
    use crate::time::{Duration, Instant};
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::fs;

    #[test]
    fn what_is_there_instead_of_a_gamepad_is_named() {
        let folder = std::env::temp_dir().join(format!("ocpcan-pad-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        assert_eq!(Pad::find(&folder).unwrap_err(), PadError::NoneFound(Vec::new()));
        let file = folder.join("event0");
        fs::write(&file, "").unwrap();
        let said = Pad::find(&folder).unwrap_err().to_string();
        assert_eq!(said, format!("no gamepad among {}: no input device", file.display()));
        assert_eq!(Pad::open(&file).unwrap_err(), PadError::Device(file, DeviceError::NotInput));
        let missing = Pad::open(&folder.join("event7")).unwrap_err().to_string();
        assert!(missing.ends_with("event7: No such file or directory"), "{missing}");
        fs::remove_dir_all(&folder).unwrap();
    }

    /// Waits at most this long for the other side, which is slow in an emulated machine.
    const DEADLINE: Duration = Duration::from_secs(60);

    fn say(pad: &Pad, held: &Controller) {
        let axes = Axis::ALL.map(|axis| format!("{}={:.3} ", axis.name(), held.axis(axis))).concat();
        let pressed = Button::ALL.iter().filter(|button| held.pressed(**button));
        let names: Vec<&str> = pressed.map(|button| button.name()).collect();
        println!("held by {:?}: {axes}[{}]", pad.name(), names.join(" "));
    }

    fn opened(which: &Path, deadline: Instant) -> Pad {
        let mut last = String::new();
        loop {
            match Pad::open(which) {
                Ok(pad) => break pad,
                Err(error) => {
                    assert!(clock::now() < deadline, "{error}");
                    let said = format!("none: {error}");
                    if said != last {
                        println!("{said}");
                        last = said;
                    }
                }
            }
            // Nothing tells of a new device but the folder.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The far half of `tests/vm/gamepad.py`, which plays the hand: says what the gamepad does, through unplugging,
    /// until it says `guide`.
    #[test]
    #[ignore = "needs /dev/uinput and the hand of tests/vm/gamepad.py: runs in the VM"]
    fn a_gamepad_of_the_kernel_is_read_through_unplugging() {
        let which = PathBuf::from(std::env::var("OCPCAN_TEST_GAMEPAD").unwrap());
        let mut deadline = clock::now() + DEADLINE;
        let mut pad = opened(&which, deadline);
        say(&pad, &pad.controller());
        loop {
            let mut fds = [PollFd::new(pad.fd(), PollFlags::POLLIN)];
            let ready = poll(&mut fds, PollTimeout::from(1_000_u16)).unwrap();
            assert!(clock::now() < deadline, "no word for {DEADLINE:?}");
            if ready == 0 {
                continue;
            }
            match pad.read() {
                Ok(None) => continue,
                Ok(Some(held)) => {
                    say(&pad, &held);
                    assert_eq!(held, pad.controller());
                    if held.pressed(Button::Guide) {
                        return;
                    }
                }
                Err(error) => {
                    assert_eq!(error, PadError::Lost(pad.name().to_owned()));
                    assert_eq!(pad.read(), Err(error.clone()), "and stays so");
                    println!("lost: {error}");
                    pad = opened(&which, clock::now() + DEADLINE);
                    say(&pad, &pad.controller());
                }
            }
            deadline = clock::now() + DEADLINE;
        }
    }
}
