//! A CAN bus to send on and receive from: a kernel interface, or the built-in one between processes.
//!
//! Owns the address of a bus, the port on it, and what can go wrong. Relies on `kernel` (SocketCAN) and `sim` (the
//! built-in bus), which behave alike towards a caller: echo, local origin, filters, error messages, overflow count,
//! interface down and gone. Never waits in a send, and never takes a write for a proof that something was sent.

mod accept;
mod batch;
pub mod controller;
pub mod error;
pub mod hub;
mod kernel;
mod netlink;
pub mod queue;
mod sim;
mod switch;
mod wire;

use core::time::Duration;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::can::Frame;
pub use crate::can::{AddressError, BusAddress, BusName};
use crate::time::Instant;

pub use accept::{Accept, FILTERS, FilterError, IdMask};
pub use batch::Batch;
pub use error::{OpenCause, OpenError, RecvError, SendError};
pub use hub::{Fault, FaultLine, Hub};

/// How a port is opened.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PortOptions {
    /// Which frames it receives.
    pub accept: Accept,
    /// Receives the error messages of the driver.
    pub errors: bool,
    /// Receives its own frames back once they were sent: the echo.
    pub own_messages: bool,
    /// Sends and receives CAN FD frames too. Without it FD frames are not seen, and refused on sending.
    pub fd: bool,
    /// Receive buffer in bytes as the kernel counts them (about 800 a frame); the kernel's default if none.
    pub rcvbuf: Option<usize>,
    /// Send buffer in bytes as the kernel counts them; the kernel's default if none. 0 is the kernel's minimum (4,608
    /// bytes, about seven frames and so less than a transmit queue of ten): a full bus then is [`SendError::Full`] on a
    /// port that becomes writable when there is room, instead of `ENOBUFS` on one that seems writable all the time.
    pub sndbuf: Option<usize>,
    /// Priority 6: the first band of the transmit queue, the highest that needs no capability.
    pub priority6: bool,
}

/// A frame that came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// The frame.
    pub frame: Frame,
    /// The echo of a frame that this very port sent: it has left for the bus.
    pub own: bool,
    /// Sent by some program of this machine, this port included. What the bus or the driver sent is not local.
    pub local: bool,
    /// Frames that this port lost to a full receive buffer since it was opened, as of this frame.
    pub dropped_total: u32,
    /// When it was read, on the monotonic clock.
    pub at: Instant,
}

/// What is known of a bus, for the report and for the decision whether its echo proves anything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Name of the driver (`mcp251xfd`, `vcan`, `sim`); empty where it does not say.
    pub driver: heapless::String<32>,
    /// No wire behind it: `vcan`, `vxcan` or the built-in bus. The echo is the transmission there.
    pub is_virtual: bool,
    /// The driver echoes a frame when it was sent (`IFF_ECHO`). Without it the kernel echoes before it is.
    pub has_driver_echo: bool,
    /// Transmit queue in frames.
    pub queue_len: u32,
    /// Index of the interface; it changes when an adapter is unplugged and comes back. 0 for the built-in bus.
    pub ifindex: u32,
    /// Set up by the administrator.
    pub is_up: bool,
    /// Has a carrier: false in bus-off.
    pub is_running: bool,
}

/// A port on a bus.
#[derive(Debug)]
pub enum Port {
    /// A raw socket of the kernel.
    Kernel(kernel::KernelPort),
    /// A connection to the built-in bus.
    Sim(sim::SimPort),
}

impl Port {
    /// Opens a port. Allocates; can wait for the kernel's network lock, or up to a second for the built-in bus, so a
    /// thread with a deadline opens before it starts, or reopens while it has nothing to lose.
    ///
    /// # Errors
    /// [`OpenError`], whose text names the interface and the remedy.
    pub fn open(address: &BusAddress, options: &PortOptions) -> Result<Self, OpenError> {
        match address {
            BusAddress::Kernel(name) => kernel::KernelPort::open(name, options).map(Self::Kernel),
            BusAddress::Sim(name) => sim::SimPort::open(name, options).map(Self::Sim),
        }
        .map_err(|cause| OpenError { bus: address.clone(), cause })
    }

    /// Takes CAN FD frames from now on too, if the interface has them by now: one that was down may have been set up anew.
    ///
    /// # Errors
    /// [`OpenCause::NoFd`]: it has none.
    pub fn take_fd(&self) -> Result<(), OpenCause> {
        match self {
            Self::Kernel(port) => port.take_fd(),
            // The built-in bus is never set up anew.
            Self::Sim(_) => Ok(()),
        }
    }

    /// Hands a frame to the bus, without waiting. Success says that it was queued, nothing more.
    ///
    /// # Errors
    /// [`SendError`]; in all cases the frame was not taken.
    pub fn try_send(&self, frame: &Frame) -> Result<(), SendError> {
        match self {
            Self::Kernel(port) => port.try_send(frame),
            Self::Sim(port) => port.try_send(frame),
        }
    }

    /// Takes the next frame; waits up to `wait` for one (not at all if none). A signal ends the wait early.
    ///
    /// # Errors
    /// [`RecvError`]. [`RecvError::Down`] is told once, and the port goes on when the interface is up again;
    /// after [`RecvError::Gone`] the port is of no more use.
    pub fn recv(&self, wait: Option<Duration>) -> Result<Option<Received>, RecvError> {
        if let Some(received) = self.try_recv()? {
            return Ok(Some(received));
        }
        match wait {
            Some(wait) if !wait.is_zero() => {
                if wait_readable(self.as_fd(), wait) {
                    self.try_recv()
                } else {
                    Ok(None)
                }
            }
            Some(_) | None => Ok(None),
        }
    }

    /// Takes the frames that are there, up to one batch, without waiting; none where nothing is there. Unreadable ones
    /// are counted ([`Port::malformed_total`]) and left out.
    ///
    /// # Errors
    /// As [`Port::recv`]; the batch is empty then.
    pub fn recv_many(&self, batch: &mut Batch) -> Result<(), RecvError> {
        batch.frames.clear();
        match self {
            Self::Kernel(port) => port.recv_many(batch),
            Self::Sim(port) => port.recv_many(batch),
        }
    }

    /// Hands frames to the bus in their order, without waiting, up to one batch. Returns how many were taken and, where
    /// the next one was refused, why.
    pub fn send_many(&self, frames: &[Frame], batch: &mut Batch) -> (usize, Option<SendError>) {
        match self {
            Self::Kernel(port) => port.send_many(frames, batch),
            Self::Sim(port) => port.send_many(frames),
        }
    }

    /// Takes the next frame that is there.
    fn try_recv(&self) -> Result<Option<Received>, RecvError> {
        match self {
            Self::Kernel(port) => port.try_recv(),
            Self::Sim(port) => port.try_recv(),
        }
    }

    /// Whether the interface is there and set up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        match self {
            Self::Kernel(port) => port.is_up(),
            Self::Sim(port) => port.is_up(),
        }
    }

    /// What is known of the bus behind this port.
    ///
    /// # Errors
    /// [`OpenCause::NoInterface`] where it is gone.
    pub fn facts(&self) -> Result<Facts, OpenCause> {
        match self {
            Self::Kernel(port) => port.facts(),
            Self::Sim(port) => port.facts(),
        }
    }

    /// Frames that arrived and could not be read as classic or FD frames; dropped.
    #[must_use]
    pub fn malformed_total(&self) -> u32 {
        match self {
            Self::Kernel(port) => port.malformed_total(),
            Self::Sim(port) => port.malformed_total(),
        }
    }
}

impl AsFd for Port {
    /// Readable when [`Port::recv`] has something to say.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Kernel(port) => port.as_fd(),
            Self::Sim(port) => port.as_fd(),
        }
    }
}

impl AsRawFd for Port {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// Whether the bus is a CAN bus; `None` where there is no interface of that name, or the kernel does not say what it is.
#[must_use]
pub fn is_can(address: &BusAddress) -> Option<bool> {
    match address {
        BusAddress::Kernel(name) => kernel::is_can(name),
        BusAddress::Sim(_) => Some(true),
    }
}

/// Whether the descriptor becomes readable (or broken) within `wait`.
fn wait_readable(fd: BorrowedFd<'_>, wait: Duration) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    matches!(ppoll(&mut fds, Some(TimeSpec::from_duration(wait)), None), Ok(n) if n > 0)
}

/// What the errno of a send means.
const fn send_error(errno: Errno) -> SendError {
    match errno {
        Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR => SendError::Full,
        Errno::ENETDOWN => SendError::Down,
        Errno::ENXIO | Errno::ENODEV | Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN => SendError::Gone,
        other => SendError::Refused(other as i32), // an errno is a small int by definition
    }
}

#[cfg(test)]
mod tests;
