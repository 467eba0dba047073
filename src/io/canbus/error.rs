//! What can go wrong with a bus, and what a person can do about it.
//!
//! Owns the errors of opening, sending and receiving, with their texts. Relies on the address. Never retries.

use core::fmt;

use super::BusAddress;

/// A port could not be opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenError {
    /// The bus that was asked for.
    pub bus: BusAddress,
    /// Why.
    pub cause: OpenCause,
}

/// Why a port could not be opened. Consequence of each: no port; the caller stays safe and may try again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenCause {
    /// No interface of that name, or the built-in bus plays an unplugged adapter.
    NoInterface,
    /// There is one, but it is not set up.
    Down,
    /// There is one, but it is no CAN interface.
    NotCan,
    /// This kernel has no CAN sockets.
    NoCanSupport,
    /// The process may not open CAN sockets.
    Permission,
    /// More identifiers than the kernel can filter (512).
    TooManyFilters,
    /// CAN FD is asked for and the interface has none.
    NoFd,
    /// It is a physical bus, and the caller wants none.
    Physical,
    /// The program that hosts the built-in bus did not answer in a second.
    HubSilent,
    /// Any other errno.
    Io(i32),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bus = &self.bus;
        match self.cause {
            OpenCause::NoInterface if bus.is_sim() => {
                write!(
                    f,
                    "{bus}: the built-in bus plays an unplugged adapter; plug it in again where it was unplugged"
                )
            }
            OpenCause::NoInterface => write!(
                f,
                "{bus}: no such interface; `ip -br link` lists them, `sim:{}` needs none",
                bus.name()
            ),
            OpenCause::Physical => write!(
                f,
                "{bus}: is a physical bus, and with a simulated car a gateway opens vcan and sim:NAME only \
                 (take [assetto] out; assetto.on_real_bus = true if the car must be heard there)"
            ),
            OpenCause::Down => write!(
                f,
                "{bus}: the interface is down; bring it up, for example `ip link set {bus} up type can bitrate RATE restart-ms 0`"
            ),
            OpenCause::NotCan => {
                write!(f, "{bus}: not a CAN interface; `ip -br link show type can` lists those")
            }
            OpenCause::NoCanSupport => write!(
                f,
                "{bus}: this kernel has no CAN sockets; `modprobe can_raw` may load them, `sim:{}` needs none",
                bus.name()
            ),
            OpenCause::Permission => write!(
                f,
                "{bus}: not permitted to open a CAN socket; a service needs AF_CAN in RestrictAddressFamilies="
            ),
            OpenCause::TooManyFilters => write!(f, "{bus}: more than 512 identifiers to filter"),
            OpenCause::NoFd => write!(
                f,
                "{bus}: the interface has no CAN FD; set it up with `fd on` and a `dbitrate`, or leave FD out"
            ),
            OpenCause::HubSilent => {
                write!(
                    f,
                    "{bus}: the program that hosts this built-in bus does not answer; end it and try again"
                )
            }
            OpenCause::Io(errno) => {
                write!(f, "{bus}: cannot open: {}", nix::errno::Errno::from_raw(errno).desc())
            }
        }
    }
}

impl core::error::Error for OpenError {}

/// A frame was not taken. It is the caller's to decide whether it is still worth sending later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendError {
    /// The transmit queue is full: the bus does not take what it was given.
    Full,
    /// The interface is down; the port works again when it is up.
    Down,
    /// The interface is gone; a new port is needed.
    Gone,
    /// The kernel refuses this frame (FD on a classic port or interface); the errno.
    Refused(i32),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("transmit queue full"),
            Self::Down => f.write_str("interface down"),
            Self::Gone => f.write_str("interface gone"),
            Self::Refused(errno) => write!(f, "refused: {}", nix::errno::Errno::from_raw(*errno).desc()),
        }
    }
}

impl core::error::Error for SendError {}

/// Receiving is interrupted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecvError {
    /// The interface went down since the last call. Told once; the port receives again when it is up.
    Down,
    /// The interface is gone; a new port is needed.
    Gone,
    /// Any other errno; the port may or may not recover, reopening it is the safe answer.
    Io(i32),
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down => f.write_str("interface down"),
            Self::Gone => f.write_str("interface gone"),
            Self::Io(errno) => write!(f, "receive: {}", nix::errno::Errno::from_raw(*errno).desc()),
        }
    }
}

impl core::error::Error for RecvError {}
