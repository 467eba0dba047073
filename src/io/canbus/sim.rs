//! A port on the built-in bus: a connection to the hub of that name.
//!
//! Owns the connection and its view of the link state. Relies on `wire` and, where nobody hosts the bus yet, on `hub`:
//! the first port of a bus starts the hub in its own process. Behaves towards the caller as a kernel port does.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use super::hub::Hub;
use super::wire::{self, DELIVER, DELIVERY, SEND, WAKE, WELCOME, Wishes};
use super::{
    Batch, BusName, Facts, OpenCause, PortOptions, Received, RecvError, SendError, send_error, wait_readable,
};
use crate::can::Frame;
use crate::can::frame::FD_BYTES;
use crate::io::clock;
use crate::io::sys::{self, SharedWords};
use crate::time::{Duration, Instant};

/// Messages that are no frames which one call reads before it gives the caller a turn.
const SKIP: usize = 16;

/// Pause between two attempts to find or become the hub: the gap between `bind` and `listen` of another process.
const RETRY: Duration = Duration::from_millis(2);

/// A connection to a hub.
#[derive(Debug)]
pub struct SimPort {
    socket: OwnedFd,
    state: SharedWords,
    /// How many link-downs this port has told its caller.
    downs_told: AtomicU64,
    fd: bool,
    is_gone: AtomicBool,
    dropped: AtomicU32,
    malformed: AtomicU32,
}

impl SimPort {
    /// Connects to the hub, and becomes it where there is none.
    pub(super) fn open(name: &BusName, options: &PortOptions) -> Result<Self, OpenCause> {
        let attach = Wishes::encode(options).ok_or(OpenCause::TooManyFilters)?;
        let deadline = clock::now() + wire::ANSWER;
        loop {
            match wire::dial(name) {
                Ok(socket) => match Self::attach(socket, &attach, options, deadline) {
                    // The hub went away in between: the next round finds or becomes another.
                    Err(OpenCause::Io(errno)) if errno == Errno::ECONNRESET as i32 => {}
                    result => return result,
                },
                Err(Errno::ECONNREFUSED) => match Hub::start(name) {
                    Ok(hub) => {
                        hub.leave_running();
                        continue;
                    }
                    Err(OpenCause::Io(errno)) if errno == Errno::EADDRINUSE as i32 => {}
                    Err(cause) => return Err(cause),
                },
                Err(Errno::EAGAIN) => {}
                Err(errno) => return Err(OpenCause::Io(errno as i32)),
            }
            if clock::now() >= deadline {
                return Err(OpenCause::HubSilent);
            }
            std::thread::sleep(RETRY);
        }
    }

    /// Tells the hub the options and waits for its welcome.
    fn attach(
        socket: OwnedFd,
        attach: &[u8],
        options: &PortOptions,
        deadline: Instant,
    ) -> Result<Self, OpenCause> {
        let reset = OpenCause::Io(Errno::ECONNRESET as i32);
        wire::post(socket.as_fd(), attach).map_err(|errno| match errno {
            Errno::EPIPE | Errno::ECONNRESET => reset,
            other => OpenCause::Io(other as i32),
        })?;
        if let Some(bytes) = options.sndbuf {
            setsockopt(&socket, sockopt::SndBuf, &bytes).map_err(|errno| OpenCause::Io(errno as i32))?;
        }
        if !wait_readable(socket.as_fd(), deadline.since(clock::now())) {
            return Err(OpenCause::HubSilent);
        }
        let mut answer = [0; 8];
        let message = sys::receive(socket.as_fd(), &mut answer).map_err(|_| reset)?;
        if message.flags & libc::MSG_CTRUNC != 0 {
            // The page came along and could not be installed.
            return Err(OpenCause::Io(Errno::EMFILE as i32));
        }
        let Some(page) = message.attached.filter(|_| message.len == 2 && answer[..2] == [WELCOME, 0]) else {
            // A refusal says that the bus plays an unplugged adapter; silence, that the hub ended.
            return Err(if message.len == 0 { reset } else { OpenCause::NoInterface });
        };
        let state = SharedWords::map(page.as_fd(), wire::STATE_WORDS, false)
            .map_err(|errno| OpenCause::Io(errno as i32))?;
        let word = state.load(wire::STATE_WORD);
        if word & 1 == 0 {
            return Err(OpenCause::Down);
        }
        Ok(Self {
            socket,
            state,
            downs_told: AtomicU64::new(word >> 1),
            fd: options.fd,
            is_gone: AtomicBool::new(false),
            dropped: AtomicU32::new(0),
            malformed: AtomicU32::new(0),
        })
    }

    pub(super) fn try_send(&self, frame: &Frame) -> Result<(), SendError> {
        if self.is_gone.load(Ordering::Relaxed) {
            return Err(SendError::Gone);
        }
        if self.state.load(wire::STATE_WORD) & 1 == 0 {
            return Err(SendError::Down);
        }
        if frame.is_fd() && !self.fd {
            return Err(SendError::Refused(Errno::EINVAL as i32)); // what the kernel answers
        }
        let mut message = [SEND; 1 + FD_BYTES];
        let mut bytes = [0; FD_BYTES];
        let size = frame.to_bytes(&mut bytes);
        message[1..].copy_from_slice(&bytes);
        wire::post(self.socket.as_fd(), &message[..=size]).map_err(send_error)
    }

    pub(super) fn try_recv(&self) -> Result<Option<Received>, RecvError> {
        if self.is_gone.load(Ordering::Relaxed) {
            return Err(RecvError::Gone);
        }
        let mut message = [0; DELIVERY];
        for _ in 0..SKIP {
            // Down is told before what is still in the buffer, as the kernel does.
            let downs = self.state.load(wire::STATE_WORD) >> 1;
            if self.downs_told.swap(downs, Ordering::Relaxed) != downs {
                return Err(RecvError::Down);
            }
            let len = match sys::receive(self.socket.as_fd(), &mut message) {
                Ok(got) if got.len > 0 => got.len,
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
                Ok(_) | Err(Errno::ECONNRESET | Errno::EPIPE | Errno::ENOTCONN) => {
                    self.is_gone.store(true, Ordering::Relaxed);
                    return Err(RecvError::Gone);
                }
                Err(other) => return Err(RecvError::Io(other as i32)),
            };
            let at = clock::now();
            let body = message.get(1..len).unwrap_or_default();
            match (message[0], wire::read_delivery(body)) {
                (DELIVER, Some((flags, dropped_total, frame))) => {
                    self.dropped.store(dropped_total, Ordering::Relaxed);
                    let (own, local) = (flags & wire::OWN != 0, flags & wire::LOCAL != 0);
                    return Ok(Some(Received { frame, own, local, dropped_total, at }));
                }
                (WAKE, _) => {}
                _ => {
                    self.malformed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(None)
    }

    pub(super) fn recv_many(&self, batch: &mut Batch) -> Result<(), RecvError> {
        while !batch.is_full() {
            match self.try_recv() {
                Ok(Some(received)) => batch.frames.push(received.frame),
                Ok(None) => break,
                // Told by the next call, where there are frames to hand over first.
                Err(RecvError::Gone) if !batch.frames.is_empty() => break,
                Err(error) => {
                    batch.frames.clear();
                    return Err(error);
                }
            }
        }
        batch.dropped_total = self.dropped.load(Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn send_many(&self, frames: &[Frame]) -> (usize, Option<SendError>) {
        let mut taken = 0;
        for frame in frames.iter().take(sys::MANY) {
            match self.try_send(frame) {
                Ok(()) => taken += 1,
                Err(error) => return (taken, Some(error)),
            }
        }
        (taken, None)
    }

    pub(super) fn is_up(&self) -> bool {
        !self.is_gone.load(Ordering::Relaxed) && self.state.load(wire::STATE_WORD) & 1 != 0
    }

    pub(super) fn facts(&self) -> Result<Facts, OpenCause> {
        if self.is_gone.load(Ordering::Relaxed) {
            return Err(OpenCause::NoInterface);
        }
        let is_up = self.is_up();
        Ok(Facts {
            driver: heapless::String::try_from("sim").unwrap_or_default(),
            is_virtual: true,
            has_driver_echo: true,
            queue_len: 0,
            ifindex: 0,
            is_up,
            is_running: is_up,
        })
    }

    pub(super) fn malformed_total(&self) -> u32 {
        self.malformed.load(Ordering::Relaxed)
    }
}

impl AsFd for SimPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
