//! The hub of a built-in bus as its owner sees it: start it, and make it fail.
//!
//! Owns the hub's thread and the faults that a demo or a test asks for. Relies on `switch`, which does the work, and on
//! `wire`. Never decides when a fault happens.

use core::mem;
use core::time::Duration;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sys::socket::{Backlog, bind, listen};

use super::switch::Switch;
use super::wire::{self, DONE, FAULT};
use super::{BusName, OpenCause, SendError, send_error, wait_readable};
use crate::can::Frame;
use crate::can::frame::FD_BYTES;
use crate::io::sys;

/// Real-time priority of the bus, where permitted: above the gateway's readers (40), below its watchdog (45).
const PRIORITY: i32 = 42;

/// What a built-in bus can be made to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Ends every fault; the link is up.
    Clear,
    /// The link goes down: senders and readers are told, what is stored is lost.
    Down,
    /// Writes succeed and nothing leaves: no echo. What a cut cable looks like to a sender, without stored frames.
    Swallow(bool),
    /// The bus takes nothing: the senders' buffers fill, then [`SendError::Full`]. What was stored leaves when it ends.
    Stall(bool),
    /// Every frame, echo included, arrives that much later; zero ends it. At most 60 s.
    Delay(Duration),
    /// The driver reports bus-off; writes succeed and nothing leaves until [`Fault::Restart`].
    BusOff,
    /// The driver reports a restart after bus-off.
    Restart,
    /// This frame appears as if a foreign node or the driver had sent it: not local.
    Inject(Frame),
    /// The adapter is unplugged: every port is closed, new ones are refused until [`Fault::Clear`].
    Gone,
    /// The hub ends, as if its process had died. The next port to open becomes the hub.
    End,
}

impl Fault {
    /// The fault as a message.
    fn encode(self) -> ([u8; 6 + FD_BYTES], usize) {
        let mut message = [0; 6 + FD_BYTES];
        let (code, argument): (u8, u32) = match self {
            Self::Clear => (0, 0),
            Self::Down => (1, 0),
            Self::Swallow(on) => (2, on.into()),
            Self::Stall(on) => (3, on.into()),
            Self::Delay(by) => (4, u32::try_from(by.as_micros()).unwrap_or(u32::MAX)),
            Self::BusOff => (5, 0),
            Self::Restart => (6, 0),
            Self::Inject(_) => (7, 0),
            Self::Gone => (8, 0),
            Self::End => (9, 0),
        };
        message[0] = FAULT;
        message[1] = code;
        message[2..6].copy_from_slice(&argument.to_ne_bytes());
        let mut size = 6;
        if let Self::Inject(frame) = self {
            let mut bytes = [0; FD_BYTES];
            size += frame.to_bytes(&mut bytes);
            message[6..].copy_from_slice(&bytes);
        }
        (message, size)
    }

    /// Reads a fault behind its kind byte.
    pub(super) fn decode(body: &[u8]) -> Option<Self> {
        let (&[code, a0, a1, a2, a3], frame) = body.split_first_chunk::<5>()?;
        let argument = u32::from_ne_bytes([a0, a1, a2, a3]);
        Some(match code {
            0 => Self::Clear,
            1 => Self::Down,
            2 => Self::Swallow(argument != 0),
            3 => Self::Stall(argument != 0),
            4 => Self::Delay(Duration::from_micros(argument.min(60_000_000).into())),
            5 => Self::BusOff,
            6 => Self::Restart,
            7 => Self::Inject(Frame::from_bytes(frame).ok()?),
            8 => Self::Gone,
            9 => Self::End,
            _ => return None,
        })
    }
}

/// A line to the hub of a built-in bus, from any process, for making it fail.
#[derive(Debug)]
pub struct FaultLine {
    socket: OwnedFd,
}

impl FaultLine {
    /// Connects to the hub of the bus `name`.
    ///
    /// # Errors
    /// [`OpenCause::NoInterface`] where nobody hosts that bus.
    pub fn connect(name: &BusName) -> Result<Self, OpenCause> {
        match wire::dial(name) {
            Ok(socket) => Ok(Self { socket }),
            Err(Errno::ECONNREFUSED) => Err(OpenCause::NoInterface),
            Err(Errno::EAGAIN) => Err(OpenCause::HubSilent),
            Err(errno) => Err(OpenCause::Io(errno as i32)),
        }
    }

    /// Applies a fault. It is in force when this returns.
    ///
    /// # Errors
    /// [`SendError::Gone`] where the hub has ended, [`SendError::Full`] where it does not answer in a second.
    pub fn set(&self, fault: Fault) -> Result<(), SendError> {
        let (message, size) = fault.encode();
        wire::post(self.socket.as_fd(), message.get(..size).unwrap_or(&message)).map_err(send_error)?;
        if !wait_readable(self.socket.as_fd(), wire::ANSWER) {
            return Err(SendError::Full);
        }
        let mut answer = [0; 8];
        match sys::receive(self.socket.as_fd(), &mut answer) {
            Ok(message) if message.len == 1 && answer[0] == DONE => Ok(()),
            Ok(_) => Err(SendError::Gone),
            Err(errno) => Err(send_error(errno)),
        }
    }
}

/// A running hub. Dropping it ends the bus for everybody.
#[derive(Debug)]
pub struct Hub {
    line: FaultLine,
    thread: Option<JoinHandle<()>>,
}

impl Hub {
    /// Hosts the built-in bus `name` in a thread of this process.
    ///
    /// # Errors
    /// [`OpenCause::Io`] with `EADDRINUSE` where it is hosted already.
    pub fn start(name: &BusName) -> Result<Self, OpenCause> {
        let cause = |errno: Errno| OpenCause::Io(errno as i32);
        let listener = wire::new_socket().map_err(cause)?;
        bind(listener.as_raw_fd(), &wire::address(name).map_err(cause)?).map_err(cause)?;
        listen(&listener, Backlog::new(64).map_err(cause)?).map_err(cause)?;
        let mut switch = Switch::new(listener).map_err(cause)?;
        let thread = std::thread::Builder::new()
            .name(format!("bus-{name}"))
            .spawn(move || {
                // A wire does not wait for the CPU. Where the right is missing, a busy machine shows as a slow bus.
                let _ = sys::set_fifo_priority(PRIORITY);
                switch.run();
            })
            .map_err(|e| OpenCause::Io(e.raw_os_error().unwrap_or(0)))?;
        Ok(Self { line: FaultLine::connect(name)?, thread: Some(thread) })
    }

    /// Applies a fault; see [`FaultLine::set`].
    ///
    /// # Errors
    /// As [`FaultLine::set`].
    pub fn set(&self, fault: Fault) -> Result<(), SendError> {
        self.line.set(fault)
    }

    /// Lets the hub live as long as the process, without an owner.
    pub(super) fn leave_running(self) {
        mem::forget(self); // its descriptor and thread end with the process
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.line.set(Fault::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
