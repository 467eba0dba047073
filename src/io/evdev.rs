//! Input devices of the Linux kernel: `/dev/input/eventN`.
//!
//! Owns opening one, what it can report, what it reports at this moment, and its events as numbers. Relies on the
//! kernel's `linux/input.h`, whose layout this file knows, and on `sys` for the call. Never grabs a device (others may
//! read it too), never waits, and never knows what a code means.

use std::fmt;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::read;

use super::sys;

/// Bytes of the kernel's `input_event`: two words of time, which nobody here needs, type, code and value.
const EVENT: usize = 2 * size_of::<usize>() + 8;

/// Events that one read takes at most: the kernel's own buffer for a gamepad has 64.
pub const MANY: usize = 64;

/// Bytes of a set of keys: `KEY_CNT` is 0x300.
const KEY_BYTES: usize = 0x300 / 8;

/// Bytes of a set of axes: `ABS_CNT` is 0x40.
const AXIS_BYTES: usize = 0x40 / 8;

/// Types of events (`input-event-codes.h`): keys and absolute axes.
const EV_KEY: u8 = 0x01;
const EV_ABS: u8 = 0x03;

/// The questions (`EVIOCG...` of `linux/input.h`).
const GET_ID: u8 = 0x02;
const GET_NAME: u8 = 0x06;
const GET_KEYS: u8 = 0x18;
const GET_BITS: u8 = 0x20;
const GET_AXIS: u8 = 0x40;

/// One event: three numbers of `input-event-codes.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Type: `EV_SYN`, `EV_KEY`, `EV_ABS`, ...
    pub kind: u16,
    /// Which key or axis.
    pub code: u16,
    /// 0 or 1 for a key, the position for an axis.
    pub value: i32,
}

/// Where an axis is and between what it moves, in the device's own steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    /// Now.
    pub value: i32,
    /// Least value.
    pub min: i32,
    /// Greatest value.
    pub max: i32,
}

/// A set of keys, by code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys([u8; KEY_BYTES]);

impl Keys {
    /// Whether the key is in the set.
    #[must_use]
    pub fn has(&self, code: u16) -> bool {
        has_bit(&self.0, code)
    }
}

/// The kernel's sets are words of the machine, so on a big-endian one the bytes of a word come the other way round.
fn has_bit(set: &[u8], code: u16) -> bool {
    let at = usize::from(code / 8);
    let at = if cfg!(target_endian = "big") { at ^ (size_of::<usize>() - 1) } else { at };
    set.get(at).is_some_and(|byte| byte >> (code % 8) & 1 == 1)
}

/// Why a device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceError {
    /// It cannot be opened.
    Open(Errno),
    /// It is no input device.
    NotInput,
    /// It was unplugged, or taken from us.
    Gone,
    /// Reading failed otherwise.
    Read(Errno),
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(Errno::EACCES) => f.write_str(
                "permission denied: reading it needs root or the group of the device, mostly \"input\"",
            ),
            Self::Open(errno) | Self::Read(errno) => f.write_str(errno.desc()),
            Self::NotInput => f.write_str("no input device"),
            Self::Gone => f.write_str("unplugged"),
        }
    }
}

impl core::error::Error for DeviceError {}

/// An open input device. Closed when dropped.
#[derive(Debug)]
pub struct Device {
    fd: OwnedFd,
    name: String,
    vendor: u16,
}

impl Device {
    /// Opens a device for reading, without waiting.
    ///
    /// # Errors
    /// [`DeviceError::Open`] and [`DeviceError::NotInput`].
    pub fn open(path: &Path) -> Result<Self, DeviceError> {
        // O_NONBLOCK also keeps a FIFO of that name from holding us.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        let fd = open(path, flags, Mode::empty()).map_err(DeviceError::Open)?;
        let mut id = [0; 8]; // bus type, vendor, product, version: two bytes each
        sys::ask_input(fd.as_fd(), GET_ID, &mut id).map_err(|_| DeviceError::NotInput)?;
        let mut name = [0; 256];
        // A device without a name answers ENOENT and works all the same.
        let len = sys::ask_input(fd.as_fd(), GET_NAME, &mut name).unwrap_or(0);
        let name = name[..len].split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(Self {
            fd,
            name: String::from_utf8_lossy(name).into_owned(),
            vendor: u16::from_ne_bytes([id[2], id[3]]),
        })
    }

    /// The name that the device or its driver gives.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The maker's number, of USB or Bluetooth; 0 where there is none.
    #[must_use]
    pub const fn vendor(&self) -> u16 {
        self.vendor
    }

    /// The keys and buttons that the device has.
    ///
    /// # Errors
    /// [`DeviceError::Gone`] and [`DeviceError::Read`].
    pub fn keys(&self) -> Result<Keys, DeviceError> {
        self.ask(GET_BITS + EV_KEY).map(Keys)
    }

    /// Those that are pressed now.
    ///
    /// # Errors
    /// [`DeviceError::Gone`] and [`DeviceError::Read`].
    pub fn pressed(&self) -> Result<Keys, DeviceError> {
        self.ask(GET_KEYS).map(Keys)
    }

    /// Where an axis is now; `None` where the device has no such axis.
    ///
    /// # Errors
    /// [`DeviceError::Gone`] and [`DeviceError::Read`].
    pub fn axis(&self, code: u16) -> Result<Option<Axis>, DeviceError> {
        let known: [u8; AXIS_BYTES] = self.ask(GET_BITS + EV_ABS)?;
        let Some(question) = u8::try_from(code).ok().filter(|_| has_bit(&known, code)) else {
            return Ok(None);
        };
        // `input_absinfo`: value, minimum, maximum, fuzz, flat, resolution; four bytes each.
        let answer: [u8; 24] = self.ask(GET_AXIS + question)?;
        let number =
            |at: usize| i32::from_ne_bytes([answer[at], answer[at + 1], answer[at + 2], answer[at + 3]]);
        Ok(Some(Axis { value: number(0), min: number(4), max: number(8) }))
    }

    fn ask<const BYTES: usize>(&self, question: u8) -> Result<[u8; BYTES], DeviceError> {
        let mut answer = [0; BYTES];
        sys::ask_input(self.fd.as_fd(), question, &mut answer).map_err(failed)?;
        Ok(answer)
    }

    /// Takes the events that wait, as many as there is room for; how many comes back, 0 where none waits.
    ///
    /// # Errors
    /// [`DeviceError::Gone`] and [`DeviceError::Read`].
    pub fn read(&self, events: &mut [Event; MANY]) -> Result<usize, DeviceError> {
        let mut bytes = [0; EVENT * MANY];
        let len = match read(&self.fd, &mut bytes) {
            Ok(len) => len,
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            Err(errno) => return Err(failed(errno)),
        };
        let mut count = 0;
        for (event, bytes) in events.iter_mut().zip(bytes[..len].chunks_exact(EVENT)) {
            *event = parse(bytes);
            count += 1;
        }
        Ok(count)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn failed(errno: Errno) -> DeviceError {
    if errno == Errno::ENODEV { DeviceError::Gone } else { DeviceError::Read(errno) }
}

/// The last eight bytes of an `input_event`; `bytes` has [`EVENT`].
fn parse(bytes: &[u8]) -> Event {
    let tail = &bytes[EVENT - 8..];
    Event {
        kind: u16::from_ne_bytes([tail[0], tail[1]]),
        code: u16::from_ne_bytes([tail[2], tail[3]]),
        value: i32::from_ne_bytes([tail[4], tail[5], tail[6], tail[7]]),
    }
}

/// The event devices in a folder, `/dev/input` as a rule, by their number; none where there is no such folder.
#[must_use]
pub fn list(folder: &Path) -> Vec<PathBuf> {
    let number = |path: &Path| path.file_name()?.to_str()?.strip_prefix("event")?.parse::<u32>().ok();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> =
        entries.filter_map(|entry| Some((number(&entry.path())?, entry.path()))).collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_input_device_is_told_and_holds_nobody() {
        let folder = std::env::temp_dir().join(format!("ocpcan-evdev-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let fifo = folder.join("event10");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        fs::write(folder.join("event2"), [0; EVENT]).unwrap();
        fs::write(folder.join("mouse0"), "").unwrap();
        fs::write(folder.join("eventful"), "").unwrap();
        let listed = list(&folder);
        assert_eq!(listed, [folder.join("event2"), fifo], "by number, and nothing else");
        for path in &listed {
            assert_eq!(Device::open(path).unwrap_err(), DeviceError::NotInput, "{}", path.display());
        }
        assert_eq!(Device::open(&folder).unwrap_err(), DeviceError::NotInput);
        assert_eq!(Device::open(Path::new("/dev/null")).unwrap_err(), DeviceError::NotInput);
        let missing = folder.join("event3");
        assert_eq!(Device::open(&missing).unwrap_err(), DeviceError::Open(Errno::ENOENT));
        fs::remove_dir_all(&folder).unwrap();
        assert!(list(&folder).is_empty());
    }

    #[test]
    fn an_event_is_read_from_the_end_of_its_bytes() {
        let mut bytes = [0xFF_u8; EVENT];
        bytes[EVENT - 8..EVENT - 6].copy_from_slice(&3_u16.to_ne_bytes());
        bytes[EVENT - 6..EVENT - 4].copy_from_slice(&17_u16.to_ne_bytes());
        bytes[EVENT - 4..].copy_from_slice(&(-32_768_i32).to_ne_bytes());
        assert_eq!(parse(&bytes), Event { kind: 3, code: 17, value: -32_768 });
        // What the kernel writes: its own header gives 24 bytes on 64-bit machines, 16 on 32-bit ones.
        assert_eq!(EVENT, if size_of::<usize>() == 8 { 24 } else { 16 });
    }

    #[test]
    fn a_set_of_keys_is_one_bit_each() {
        let mut set = [0; KEY_BYTES];
        for word in set.chunks_exact_mut(size_of::<usize>()).skip(4).take(1) {
            word.copy_from_slice(&(1_usize << 3).to_ne_bytes());
        }
        let code = (4 * usize::BITS + 3) as u16;
        assert!(has_bit(&set, code));
        assert_eq!((0..0x300).filter(|code| has_bit(&set, *code)).count(), 1);
        assert!(!has_bit(&set, u16::MAX), "beyond the set there is nothing");
    }
}
