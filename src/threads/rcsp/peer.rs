//! One client's socket.
//!
//! Owns the bytes between the kernel and the session. Relies on `nodes::rcsp` for what they mean. Never reads what the session
//! has no room for: it stays in the kernel, and then with the client.

use std::net::SocketAddr;

use nix::poll::PollFlags;

use crate::io::tcp::{LinkError, Read, TcpLink};
use crate::nodes::rcsp::{Ended, Service, Session};
use crate::time::{Duration, Instant};

/// How long a connection that was told why it ends may take to read it.
const LEAVE: Duration = Duration::from_secs(1);

/// Reads of one turn for a connection that is leaving.
const LEAVE_READS: usize = 4;

/// A connected client.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) link: TcpLink,
    pub(super) address: SocketAddr,
    pub(super) session: Session,
    /// What the poll saw.
    pub(super) ready: PollFlags,
    /// Read, and not taken by the session yet.
    rest: Vec<u8>,
    /// When it last said something.
    pub(super) active_at: Instant,
}

impl Peer {
    pub(super) const fn new(link: TcpLink, address: SocketAddr, session: Session, now: Instant) -> Self {
        Self { link, address, session, ready: PollFlags::empty(), rest: Vec::new(), active_at: now }
    }

    /// What to wait for. Its end is seen whatever is asked for.
    pub(super) fn interest(&self) -> PollFlags {
        let mut interest = PollFlags::empty();
        interest.set(PollFlags::POLLIN, self.session.wants_bytes() && self.rest.is_empty());
        interest.set(PollFlags::POLLOUT, !self.session.transmit().is_empty());
        interest
    }

    /// When it must be served, whatever the poll sees.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let is_ready = !self.rest.is_empty() && self.session.wants_bytes();
        if is_ready { Some(now) } else { self.session.due(now) }
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.session.held_bytes() + self.rest.capacity()
    }

    /// Reads, answers and writes what is ready.
    pub(super) fn serve(
        &mut self,
        now: Instant,
        service: &mut dyn Service,
        buffer: &mut [u8],
    ) -> Result<(), Ended> {
        let is_cut = self.ready.intersects(PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL);
        let is_readable = is_cut || self.ready.contains(PollFlags::POLLIN);
        self.ready = PollFlags::empty();
        if !is_cut {
            self.write(now)?;
        }
        if !self.rest.is_empty() {
            let used = self.session.handle_bytes(now, &self.rest, service);
            self.rest.drain(..used);
        }
        if is_readable && self.rest.is_empty() && self.session.wants_bytes() {
            // A client that has gone may have left a command here; its stop counts.
            match self.link.try_read(buffer) {
                Ok(Read::Bytes(n)) => {
                    self.active_at = now;
                    let bytes = buffer.get(..n).unwrap_or_default();
                    let used = self.session.handle_bytes(now, bytes, service);
                    self.rest = bytes.get(used..).unwrap_or_default().to_vec();
                }
                Ok(Read::Nothing) if is_cut => return Err(Ended::Lost),
                Ok(Read::Nothing) => {}
                Err(LinkError::Closed) if !is_cut => self.session.handle_end(),
                Err(_) => return Err(Ended::Lost),
            }
        } else if is_cut {
            return Err(Ended::Lost);
        }
        self.session.poll(now, service)?;
        if is_cut {
            return Ok(());
        }
        self.write(now)?;
        // The last byte of an ending may just have left.
        self.session.poll(now, service)
    }

    fn write(&mut self, now: Instant) -> Result<(), Ended> {
        while !self.session.transmit().is_empty() {
            match self.link.try_write(self.session.transmit()) {
                Ok(0) => break,
                Ok(n) => self.session.handle_sent(now, n),
                Err(LinkError::Closed) => return Err(Ended::Left),
                Err(_) => return Err(Ended::Lost),
            }
        }
        Ok(())
    }
}

/// A connection that was told why it ends. What it still sends is thrown away until it has closed its side, for a moment.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) link: TcpLink,
    pub(super) until: Instant,
}

impl Leaving {
    /// None where the other side has gone already.
    pub(super) fn new(link: TcpLink, now: Instant) -> Option<Self> {
        link.finish_writing().ok()?;
        Some(Self { link, until: now + LEAVE })
    }

    /// Whether it is still to be waited for.
    pub(super) fn stays(&mut self, now: Instant, buffer: &mut [u8]) -> bool {
        if now >= self.until {
            return false;
        }
        for _ in 0..LEAVE_READS {
            match self.link.try_read(buffer) {
                Ok(Read::Bytes(_)) => {}
                Ok(Read::Nothing) => break,
                Err(_) => return false,
            }
        }
        true
    }
}
