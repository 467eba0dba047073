//! The sockets of a tunnel on its buses.
//!
//! Owns one open socket with its count of lost frames ([`BusSocket`]), and what is read from a bus while no peer wants it
//! ([`Unheard`]). Relies on `io::canbus`. Never judges a frame. Never waits.
//!
//! Why a bus is read for nobody: a frame that no peer got must be in a number, or "the counters add up" holds only while
//! the network is well. The socket goes from hand to hand, from the last peer to here and from here to the next one, so
//! that no frame between them is missed or counted twice.

use std::os::fd::{AsFd, BorrowedFd};

use super::{Bus, Count, Counts};
use crate::can::Frame;
use crate::io::canbus::{Batch, OpenCause, OpenError, Port, PortOptions, RecvError, SendError};
use crate::time::{Duration, Instant};

/// Time between two attempts to open a bus that is not there.
pub(super) const REOPEN: Duration = Duration::from_millis(100);

/// Receive buffer on the bus, as the kernel counts it: 2,731 frames, 300 ms of a full 1 Mbit/s bus. So much only where
/// `net.core.rmem_max` allows it, or for `ocpcan tcpcan` as root; the kernel's default maximum is 554 frames, 60 ms.
const RCVBUF: usize = 1 << 20;

/// How often a bus without a peer is read: the smallest receive buffer there is (the built-in bus, about 277 frames)
/// takes 30 ms of a full 1 Mbit/s bus.
const READ_UNHEARD: Duration = Duration::from_millis(20);

/// Batches of 64 that one turn reads for nobody: ten times what [`READ_UNHEARD`] brings.
const BATCHES: usize = 25;

/// An open socket on a bus.
#[derive(Debug)]
pub(super) struct BusSocket {
    port: Port,
    /// The kernel's overflow count as last read.
    overflows: u32,
    /// CAN FD is wanted where the interface has it.
    fd: bool,
    /// The interface went down, and was not seen up again yet.
    was_down: bool,
}

impl BusSocket {
    /// Opens the bus with all a tunnel needs; without FD where the interface has none.
    pub(super) fn open(bus: &Bus) -> Result<Self, OpenError> {
        let options = PortOptions {
            accept: bus.accept.clone(),
            errors: true,
            fd: bus.fd,
            rcvbuf: Some(RCVBUF),
            sndbuf: Some(0),
            ..PortOptions::default()
        };
        let port = Port::open(&bus.address, &options).or_else(|error| match error.cause {
            OpenCause::NoFd => Port::open(&bus.address, &PortOptions { fd: false, ..options }),
            _ => Err(error),
        })?;
        Ok(Self { port, overflows: 0, fd: bus.fd, was_down: false })
    }

    /// An interface that comes up again may have been set up anew: CAN FD frames are taken if it has them now.
    pub(super) fn look_again(&mut self) {
        if self.was_down && self.port.is_up() {
            self.was_down = false;
            if self.fd {
                // Without: a classic bus, as when a socket is opened there.
                let _ = self.port.take_fd();
            }
        }
    }

    /// Reads one batch; returns how many frames the kernel has lost since the last one.
    pub(super) fn read(&mut self, batch: &mut Batch) -> Result<u32, RecvError> {
        let result = self.port.recv_many(batch);
        self.was_down |= result == Err(RecvError::Down);
        result?;
        let lost = batch.dropped_total().wrapping_sub(self.overflows);
        self.overflows = batch.dropped_total();
        Ok(lost)
    }

    /// Hands frames to the bus: how many were taken and, where the next one was refused, why.
    pub(super) fn write(&self, frames: &[Frame], batch: &mut Batch) -> (usize, Option<SendError>) {
        self.port.send_many(frames, batch)
    }
}

impl AsFd for BusSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.port.as_fd()
    }
}

/// A bus while no peer wants it. Invariant: from the first open on, as long as the bus is there, either this or at least one
/// peer holds a socket on it.
#[derive(Debug)]
pub(super) struct Unheard {
    socket: Option<BusSocket>,
    /// A peer has a socket of its own: nothing to do here.
    is_heard: bool,
    next_at: Instant,
    /// The last reason why the bus could not be opened, told once.
    told: Option<OpenCause>,
}

/// What became of an attempt to open a bus, where there is something new to tell.
#[derive(Debug, Clone, Copy)]
pub(super) enum Opened {
    Back,
    Away(OpenCause),
}

impl Unheard {
    pub(super) const fn new() -> Self {
        Self { socket: None, is_heard: false, next_at: Instant::ZERO, told: None }
    }

    /// How long nothing is due here.
    pub(super) fn due(&self, now: Instant) -> Option<Duration> {
        (!self.is_heard).then(|| self.next_at.since(now))
    }

    /// Reads and counts what nobody wants, and opens the bus where it is not open.
    pub(super) fn serve(
        &mut self,
        now: Instant,
        bus: &Bus,
        batch: &mut Batch,
        counts: &mut Counts,
    ) -> Option<Opened> {
        if self.is_heard || self.next_at > now {
            return None;
        }
        self.next_at = now + READ_UNHEARD;
        if self.socket.is_some() {
            self.drain(batch, counts);
            return None;
        }
        match BusSocket::open(bus) {
            Ok(socket) => {
                self.socket = Some(socket);
                self.told.take().map(|_| Opened::Back)
            }
            Err(error) => {
                self.next_at = now + REOPEN;
                let is_new = self.told.replace(error.cause) != Some(error.cause);
                is_new.then_some(Opened::Away(error.cause))
            }
        }
    }

    /// Gives the socket to a peer, with nothing in it that came before. `None`: the peer opens its own.
    pub(super) fn hand_over(&mut self, batch: &mut Batch, counts: &mut Counts) -> Option<BusSocket> {
        self.drain(batch, counts);
        self.is_heard = true;
        self.socket.take()
    }

    /// The last peer of this bus has gone; its socket comes back, if it had one.
    pub(super) fn take_back(&mut self, now: Instant, socket: Option<BusSocket>) {
        self.is_heard = false;
        self.next_at = now;
        self.socket = socket;
    }

    fn drain(&mut self, batch: &mut Batch, counts: &mut Counts) {
        if let Some(socket) = &mut self.socket {
            socket.look_again();
        }
        for _ in 0..BATCHES {
            let Some(socket) = &mut self.socket else { return };
            match socket.read(batch) {
                Ok(lost) => {
                    counts.add(Count::BusOverflow, lost.into());
                    let is_error = |frame: &&Frame| frame.error_class().is_some();
                    let errors = batch.frames().iter().filter(is_error).count();
                    counts.add(Count::BusErrors, errors as u64);
                    counts.add(Count::Unheard, (batch.frames().len() - errors) as u64);
                }
                // Told once per socket; the same socket goes on when the interface is up again.
                Err(RecvError::Down) => continue,
                Err(RecvError::Gone | RecvError::Io(_)) => self.socket = None,
            }
            if !batch.is_full() {
                return;
            }
        }
    }
}
