//! The RCSP server: one poll over the listeners and the clients.
//!
//! Owns the listeners, the clients' sockets and the loop. Relies on `nodes::rcsp` for every rule of the protocol and on a
//! [`Service`] for what commands mean. Never waits but in its one poll, and never has anything to do with driving: it runs at
//! normal priority, and what it asks the gateway for it asks through its desk.

mod peer;

use std::net::SocketAddr;
use std::os::fd::AsFd as _;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use self::peer::{Leaving, Peer};
use crate::io::clock;
use crate::io::tcp::{Listener, TcpLink};
pub use crate::nodes::rcsp::{Answer, Asked, Counts, Desk, Door, Ended, ErrorCode, Event, Service};
use crate::nodes::rcsp::{CLIENTS, Session};
use crate::proto::rcsp::TrackId;
use crate::proto::rcsp::envelope;
use crate::safety::allow::AllowList;
use crate::time::{Duration, Instant};

/// Longest wait of one turn: how old news may be, and how late the end of the program is noticed.
const TURN: Duration = Duration::from_millis(100);

/// Rest of the listeners where this process can take no connection: the one that waits keeps them readable.
const NO_ACCEPT: Duration = Duration::from_millis(100);

/// Most connections that one turn accepts: a flood of them must not keep the clients waiting.
const ACCEPTS: usize = 16;

/// Addresses that one server listens at: both loopback ones, or one, are what there is.
const LISTENERS: usize = 4;

/// Connections that were told why they end, until the other side has read it.
const LEAVING: usize = 8;

/// Descriptors of one poll.
const POLLED: usize = LISTENERS + CLIENTS + LEAVING;

/// A client that has gone without a word is found after this: longer than a client may go without reading, so that its own
/// reason is told.
const SILENCE: Duration = Duration::from_secs(20);

/// A client that waits for nothing and has said nothing for so long gives its place to the next, where there is none.
const IDLE: Duration = Duration::from_secs(10);

/// Most bytes of one read. Every client has its turn after so many.
const READ: usize = 16 << 10;

/// A server at work.
#[derive(Debug)]
pub struct Server {
    allow: AllowList,
    listeners: heapless::Vec<Listener, LISTENERS>,
    peers: Vec<Peer>,
    leaving: Vec<Leaving>,
    buffer: Vec<u8>,
    /// Of clients that have gone.
    past: Counts,
    /// The listeners are left alone until then, for a reason that was told.
    no_accept_until: Option<Instant>,
    /// Somebody waits at a listener.
    knocked: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            allow: AllowList::new(Vec::new()),
            listeners: heapless::Vec::new(),
            peers: Vec::with_capacity(CLIENTS),
            leaving: Vec::with_capacity(LEAVING),
            buffer: vec![0; READ],
            past: Counts::default(),
            no_accept_until: None,
            knocked: false,
        }
    }
}

impl Server {
    /// A server that nobody can reach yet, for this machine alone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, and who may connect beside this machine.
    #[must_use]
    pub fn allowing(allow: AllowList) -> Self {
        Self { allow, ..Self::default() }
    }

    /// Lets clients in here too.
    ///
    /// # Errors
    /// The listener comes back where there are four already.
    pub fn listen(&mut self, listener: Listener) -> Result<(), Listener> {
        self.listeners.push(listener)
    }

    /// What was counted so far, of all clients there are and were.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = self.past;
        for peer in &self.peers {
            counts.absorb(&peer.session.counts());
        }
        counts
    }

    /// Clients connected now.
    #[must_use]
    pub const fn clients(&self) -> usize {
        self.peers.len()
    }

    /// What all clients' messages cost in bytes, beside the kernel's own buffers.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.peers.iter().map(Peer::held_bytes).sum()
    }

    /// One turn: waits until something happens, `wait` at most, hands out the news and serves who is ready.
    pub fn turn(&mut self, wait: Duration, service: &mut dyn Service) {
        self.wait(wait);
        let now = clock::now();
        for event in service.turn(now) {
            let message = event.encode();
            for peer in &mut self.peers {
                peer.session.publish(&event, &message);
            }
        }
        let mut index = 0;
        while let Some(peer) = self.peers.get_mut(index) {
            match peer.serve(now, service, &mut self.buffer) {
                Ok(()) => index += 1,
                Err(ended) => self.end(index, ended, now, service),
            }
        }
        let buffer = &mut self.buffer;
        self.leaving.retain_mut(|leaving| leaving.stays(now, buffer));
        if self.knocked {
            self.accept(now, service);
        }
    }

    /// Ends every connection.
    pub fn stop(&mut self, service: &mut dyn Service) {
        self.leaving.clear();
        while !self.peers.is_empty() {
            self.end(0, Ended::Stopped, clock::now(), service);
        }
    }

    /// Waits for a socket or a time, and notes who is ready.
    fn wait(&mut self, wait: Duration) {
        let now = clock::now();
        let due = self.peers.iter().filter_map(|peer| peer.due(now));
        let due = due.chain(self.leaving.iter().map(|leaving| leaving.until)).min();
        let wait = due.map_or(TURN, |due| due.since(now)).min(wait).min(TURN);
        let mut fds = heapless::Vec::<PollFd<'_>, POLLED>::new();
        // Room for all of them by the three limits; one that had none would be served a turn later.
        let is_open = self.no_accept_until.is_none_or(|until| until <= now);
        let doors = if is_open { self.listeners.as_slice() } else { &[] };
        for listener in doors {
            let _ = fds.push(PollFd::new(listener.as_fd(), PollFlags::POLLIN));
        }
        for peer in &self.peers {
            let _ = fds.push(PollFd::new(peer.link.as_fd(), peer.interest()));
        }
        for leaving in &self.leaving {
            let _ = fds.push(PollFd::new(leaving.link.as_fd(), PollFlags::POLLIN));
        }
        // An error here (a signal) is the end of the wait, and nobody is ready.
        let any = ppoll(&mut fds, Some(TimeSpec::from_duration(wait)), None).is_ok_and(|count| count > 0);
        let events = |fd: &PollFd<'_>| fd.revents().filter(|_| any).unwrap_or(PollFlags::empty());
        let seen: heapless::Vec<PollFlags, POLLED> = fds.iter().map(events).collect();
        drop(fds);
        let mut seen = seen.into_iter();
        self.knocked = seen.by_ref().take(doors.len()).fold(false, |any, events| any | !events.is_empty());
        for (peer, events) in self.peers.iter_mut().zip(seen) {
            peer.ready = events;
        }
    }

    fn end(&mut self, index: usize, ended: Ended, now: Instant, service: &mut dyn Service) {
        let mut peer = self.peers.swap_remove(index);
        peer.session.close(now, service);
        self.past.absorb(&peer.session.counts());
        self.past.note_closed(ended);
        service.told(now, Door::Ended(peer.address, ended));
        match ended {
            // Nothing of ours is on its way to somebody who may still read it.
            Ended::Left | Ended::Lost | Ended::Incomplete | Ended::Stopped => {}
            // What the kernel holds for it goes with it.
            Ended::NotReading => peer.link.reset_on_close(),
            Ended::Displaced
            | Ended::Marker
            | Ended::HeaderVersion
            | Ended::HeaderSize
            | Ended::TooLong
            | Ended::Kind => {
                self.leave(peer.link, now);
            }
        }
    }

    /// Closes a connection so that what was written to it is read: a close with unread bytes would be a reset.
    fn leave(&mut self, link: TcpLink, now: Instant) {
        if self.leaving.len() < LEAVING {
            self.leaving.extend(Leaving::new(link, now));
        } else {
            link.reset_on_close();
        }
    }

    fn accept(&mut self, now: Instant, service: &mut dyn Service) {
        for index in 0..self.listeners.len() {
            for _ in 0..ACCEPTS {
                let Some(listener) = self.listeners.get(index) else { break };
                let (link, address) = match listener.try_accept() {
                    Ok(Some(taken)) => taken,
                    Ok(None) => break,
                    Err(errno) => {
                        if self.no_accept_until.replace(now + NO_ACCEPT).is_none() {
                            service.told(now, Door::NoAccept(errno as i32)); // an errno is a small int by definition
                        }
                        return;
                    }
                };
                self.no_accept_until = None;
                self.join(link, address, now, service);
            }
        }
    }

    /// Who gives way where every place is taken: of those on other machines the one that was silent longest, if the caller is
    /// at the box, whose stop must not wait for strangers; else the one that was silent longest, waits for nothing, and has
    /// been so for [`IDLE`].
    fn displaced_by(&self, caller: SocketAddr, now: Instant) -> Option<usize> {
        let silent_longest = |wanted: &dyn Fn(&Peer) -> bool| {
            let peers = self.peers.iter().enumerate().filter(|(_, peer)| wanted(peer));
            peers.min_by_key(|(_, peer)| peer.active_at).map(|(index, _)| index)
        };
        let is_local = caller.ip().to_canonical().is_loopback();
        let stranger = is_local.then(|| silent_longest(&|peer| !peer.session.is_local())).flatten();
        stranger.or_else(|| {
            silent_longest(&|peer| !peer.session.is_awaiting() && now.since(peer.active_at) >= IDLE)
        })
    }

    fn join(&mut self, link: TcpLink, address: SocketAddr, now: Instant, service: &mut dyn Service) {
        if !self.allow.permits(address.ip()) {
            self.past.not_allowed += 1;
            link.reset_on_close();
            service.told(now, Door::NotAllowed(address));
            return;
        }
        if self.peers.len() >= CLIENTS
            && let Some(index) = self.displaced_by(address, now)
        {
            self.end(index, Ended::Displaced, now, service);
        }
        if self.peers.len() >= CLIENTS {
            let message = envelope::error(&TrackId::empty(), ErrorCode::Limit, "too many clients");
            // The first bytes of a connection always fit.
            let _ = link.try_write(&message);
            self.past.refused += 1;
            service.told(now, Door::Refused(address));
            self.leave(link, now);
            return;
        }
        // As a tunnel's: what cannot leave stays here, where it can be counted, and who has gone is found.
        if link.set_up_tunnel(SILENCE).is_ok() {
            self.past.connections += 1;
            service.told(now, Door::Connected(address));
            let session = Session::new(address.ip().to_canonical().is_loopback());
            self.peers.push(Peer::new(link, address, session, now));
        }
    }
}
