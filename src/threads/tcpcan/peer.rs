//! One peer of a tunnel: its connection and its own socket on the bus.
//!
//! Owns both sockets and the order of reading and writing them. Relies on `nodes::tunnel` for every decision. Each peer
//! has a bus socket of its own, as every CAN program has: the kernel filters for it, hands it the frames of the other
//! peers, and what it does not read is lost for it alone. Never waits.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};

use nix::poll::PollFlags;

use super::backlog::Backlog;
use super::bus::{BusSocket, REOPEN, Unheard};
use super::{Bus, Counts, Ended, News, SILENCE, What};
use crate::can::Frame;
use crate::io::canbus::{Batch, OpenCause, RecvError, SendError};
use crate::io::clock;
use crate::io::tcp::{LinkError, Read, TcpLink};
use crate::nodes::tunnel::{Count, Lane, TURN, Way};
use crate::time::{Duration, Instant};

/// Segment of a connection that does not say its size: every IPv6 path carries this much (1,280 - 40 - 20 - 12).
const SMALL_SEGMENT: usize = 1_208;

/// Largest write: a segment of the loopback interface, which is the largest there is, is about this long.
const SEGMENT: usize = 32_768;

/// The path may change its segment size; it is asked again after this.
const SEGMENT_CHECK: Duration = Duration::from_millis(100);

/// How often at least it is asked how much is acknowledged, however large the age limit is: the counters a person sees.
const UNACKED_CHECK: Duration = Duration::from_millis(100);

/// Rest after a bus that seemed writable and was not: some drivers answer so for as long as their queue is full.
const FULL_REST: Duration = Duration::from_millis(1);

/// Frames that a bus socket can hold, and more: 384 bytes each in the kernel's count.
const BUS_BACKLOG: usize = 4_096;

/// Batches that one turn reads or writes before the other peers have theirs.
const TURNS: usize = 8;

/// What all peers of a thread share: room to work in.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) read: Batch,
    pub(super) write: Batch,
    pub(super) frames: heapless::Vec<Frame, TURN>,
    pub(super) segment: Vec<u8>,
}

impl Room {
    pub(super) fn new() -> Self {
        Self {
            read: Batch::new(),
            write: Batch::new(),
            frames: heapless::Vec::new(),
            segment: vec![0; SEGMENT],
        }
    }
}

/// What a peer shares with the others while it is served.
pub(super) struct Common<'a> {
    pub(super) room: &'a mut Room,
    /// Its bus while nobody listens.
    pub(super) unheard: &'a mut Unheard,
    pub(super) counts: &'a mut Counts,
}

/// One peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// Index of its bus.
    pub(super) bus: usize,
    /// When it connected.
    pub(super) since: Instant,
    link: TcpLink,
    socket: Option<BusSocket>,
    reopen_at: Instant,
    /// The last reason why the bus could not be opened, told once.
    told: Option<OpenCause>,
    /// What waited on the bus, and in the connection, when this program had not run for a while.
    bus_backlog: Backlog,
    link_backlog: Backlog,
    /// It was told that the interface is down; the next frame tells that it is back.
    told_down: bool,
    pub(super) lane: Lane,
    segment_bytes: usize,
    segment_checked_at: Option<Instant>,
    unacked_checked_at: Instant,
    /// The connection has something to say.
    link_ready: bool,
    /// The bus has something to say.
    bus_ready: bool,
    /// The connection took less than was offered, or had its share of this turn.
    link_full: bool,
    /// The poll says that it takes more.
    link_writable: bool,
    /// The bus took less than was offered, or had its share of this turn: it is not tried again until the poll says so.
    bus_full: bool,
    /// The poll says so.
    bus_writable: bool,
    /// The bus seemed writable and was not.
    bus_rests_until: Option<Instant>,
    /// The peer has closed in order: until when what it sent before may still go to the bus.
    leaves_until: Option<Instant>,
    /// The connection was read to its end.
    was_read_out: bool,
}

impl Peer {
    /// A peer on a new connection.
    pub(super) fn new(
        link: TcpLink,
        address: SocketAddr,
        bus: usize,
        lane: Lane,
        now: Instant,
    ) -> Result<Self, LinkError> {
        link.set_up_tunnel(SILENCE)?;
        Ok(Self {
            address,
            bus,
            since: now,
            link,
            socket: None,
            reopen_at: now,
            told: None,
            told_down: false,
            bus_backlog: Backlog::default(),
            link_backlog: Backlog::default(),
            lane,
            segment_bytes: SMALL_SEGMENT,
            segment_checked_at: None,
            unacked_checked_at: now,
            link_ready: true,
            bus_ready: true,
            link_full: false,
            link_writable: false,
            bus_full: false,
            bus_writable: false,
            bus_rests_until: None,
            leaves_until: None,
            was_read_out: false,
        })
    }

    /// The connection, and what to wait for on it. None where nothing is: a broken one would end every wait at once.
    pub(super) fn link_interest(&self, now: Instant) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let mut flags = PollFlags::empty();
        if self.lane.wants_peer(now) && !self.was_read_out {
            flags |= PollFlags::POLLIN;
        }
        if self.link_full && self.leaves_until.is_none() {
            flags |= PollFlags::POLLOUT;
        }
        (!flags.is_empty()).then(|| (self.link.as_fd(), flags))
    }

    /// The bus socket, and what to wait for on it.
    pub(super) fn bus_interest(&self, now: Instant) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let socket = self.socket.as_ref()?;
        let mut flags = PollFlags::empty();
        if self.lane.wants_bus(now) {
            flags |= PollFlags::POLLIN;
        }
        if self.bus_full && self.bus_rests_until.is_none() && self.lane.has_for_bus() {
            flags |= PollFlags::POLLOUT;
        }
        Some((socket.as_fd(), flags))
    }

    /// Takes what the poll at `now` saw, in the order of the two interests.
    pub(super) fn note_ready(&mut self, now: Instant, seen: &mut impl Iterator<Item = PollFlags>) {
        let reads = |events: PollFlags| events.intersects(!PollFlags::POLLOUT);
        let link = self.link_interest(now).and_then(|_| seen.next()).unwrap_or(PollFlags::empty());
        self.link_ready = reads(link) || self.lane.must_read_again();
        self.link_writable = link.contains(PollFlags::POLLOUT);
        if self.socket.is_some() {
            let bus = seen.next().unwrap_or(PollFlags::empty());
            self.bus_ready = reads(bus);
            self.bus_writable = bus.contains(PollFlags::POLLOUT);
        }
    }

    /// When this peer must be served even if no socket says anything.
    pub(super) fn due(&self, now: Instant) -> Option<Duration> {
        if self.lane.must_read_again() && self.lane.wants_peer(now) {
            return Some(Duration::ZERO);
        }
        let mut due = self.lane.poll_timeout(now);
        let mut sooner = |at: Instant| {
            let left = at.since(now);
            due = Some(due.map_or(left, |other| other.min(left)));
        };
        if let Some(until) = self.bus_rests_until {
            sooner(until);
        }
        if self.socket.is_none() && self.lane.is_agreed() {
            sooner(self.reopen_at);
        }
        if let Some(until) = self.leaves_until {
            sooner(until);
        }
        due
    }

    /// Serves both sockets. What is read now may have come as early as `came_at`.
    pub(super) fn serve(
        &mut self,
        (came_at, now): (Instant, Instant),
        bus: &Bus,
        mut way: Option<Way<'_>>,
        common: &mut Common<'_>,
        news: &mut dyn FnMut(News),
    ) -> Result<(), Ended> {
        if came_at < now {
            // How much that is: the connection can be asked, a bus socket cannot.
            self.link_backlog.begin(came_at, self.link.unread().unwrap_or(usize::MAX));
            self.bus_backlog.begin(came_at, BUS_BACKLOG);
            // Looked at now, whatever the poll saw before the pause: then an empty socket is known to be empty.
            (self.link_ready, self.bus_ready) = (true, true);
        }
        if self.bus_rests_until.is_some_and(|until| until <= now) {
            self.bus_rests_until = None;
            self.bus_full = false;
        }
        if self.link_ready && !self.was_read_out {
            let read = self.read_link(now, way.as_mut(), news);
            self.was_read_out = read.is_err();
            self.note_closed(now, bus.max_age, read)?;
        }
        self.lane.handle_timeout(now).map_err(Ended::Lane)?;
        let version = self.lane.transmit();
        if !version.is_empty() && self.leaves_until.is_none() {
            let taken = self.link.try_write_whole(version).map_err(Ended::Link)?;
            self.lane.handle_transmitted(taken);
            self.link_full = !self.lane.transmit().is_empty();
        }
        if self.lane.is_agreed() {
            self.open_bus(now, bus, common, news);
            if let Some(socket) = &mut self.socket {
                socket.look_again();
            }
            if self.bus_ready {
                self.read_bus(now, common.room, news);
            }
            // Once more: a pause in the middle of this makes what was just read old.
            let now = clock::now();
            self.write_bus(now, way.as_ref(), common.room);
            if self.leaves_until.is_none() {
                let written = self.write_link(now, common.room);
                self.note_closed(now, bus.max_age, written)?;
            }
            if let Some(until) = self.leaves_until {
                return self.leave(now, until, way.as_ref(), common.room);
            }
            self.check_age(now, bus.max_age)?;
        }
        Ok(())
    }

    /// A peer that closes in order means what it sent before: that goes on to the bus, for as long as it may. A cut
    /// connection is cut on purpose, and nothing of it goes on.
    fn note_closed(
        &mut self,
        now: Instant,
        max_age: Duration,
        result: Result<(), Ended>,
    ) -> Result<(), Ended> {
        match result {
            Err(Ended::Link(LinkError::Closed)) if self.lane.is_agreed() => {
                self.leaves_until.get_or_insert(now + max_age);
                Ok(())
            }
            other => other,
        }
    }

    /// Ends the connection when all that the peer sent before its end is on the bus, too old or without a bus.
    fn leave(
        &mut self,
        now: Instant,
        until: Instant,
        way: Option<&Way<'_>>,
        room: &mut Room,
    ) -> Result<(), Ended> {
        let is_late = now >= until;
        if is_late {
            // What is too old by now is counted as that.
            self.lane.for_bus(now, way, &mut room.frames);
        }
        if is_late || (self.was_read_out && !self.lane.has_for_bus()) {
            return Err(Ended::Link(LinkError::Closed));
        }
        Ok(())
    }

    /// The connection ends: what waits is counted, and a connection whose bytes must not arrive any more is cut. The bus
    /// socket comes back.
    pub(super) fn end(&mut self, ended: Ended) -> Option<BusSocket> {
        let unacked = self.link.unacknowledged().unwrap_or(usize::MAX);
        self.lane.handle_end(unacked);
        match ended {
            // An orderly end lets the kernel deliver what is under way.
            Ended::Stopped => {}
            // What is still in the kernel must not arrive after the age limit.
            _ => self.link.reset_on_close(),
        }
        self.socket.take()
    }

    fn read_link(
        &mut self,
        now: Instant,
        mut way: Option<&mut Way<'_>>,
        news: &mut dyn FnMut(News),
    ) -> Result<(), Ended> {
        for _ in 0..TURNS {
            if !self.lane.wants_peer(now) {
                return Ok(());
            }
            let read = self.link.try_read(self.lane.spare()).map_err(Ended::Link)?;
            let count = match read {
                Read::Bytes(count) => count,
                Read::Nothing => 0,
            };
            self.lane.commit(count);
            let came_at = self.link_backlog.came_at(now);
            self.link_backlog.take(count, !self.lane.must_read_again());
            let was_agreed = self.lane.is_agreed();
            let result = self.lane.take(now, came_at, way.as_deref_mut(), &mut |refusal, id| {
                news(News { peer: Some(self.address), bus: self.bus, what: What::Refused(refusal, id) });
            });
            if !was_agreed && self.lane.is_agreed() {
                news(News { peer: Some(self.address), bus: self.bus, what: What::Agreed });
            }
            result.map_err(Ended::Lane)?;
            if !self.lane.must_read_again() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn open_bus(&mut self, now: Instant, bus: &Bus, common: &mut Common<'_>, news: &mut dyn FnMut(News)) {
        if self.socket.is_some() || self.reopen_at > now {
            return;
        }
        let handed = common.unheard.hand_over(&mut common.room.read, common.counts);
        match handed.map_or_else(|| BusSocket::open(bus), Ok) {
            Ok(socket) => {
                self.socket = Some(socket);
                self.bus_ready = true;
                // A socket that was opened, or emptied, just now.
                self.bus_backlog = Backlog::default();
                (self.bus_full, self.bus_rests_until) = (false, None);
                if self.told.take().is_some() {
                    news(News { peer: Some(self.address), bus: self.bus, what: What::BusBack });
                }
            }
            Err(error) => {
                self.reopen_at = now + REOPEN;
                if self.told.replace(error.cause) != Some(error.cause) {
                    news(News { peer: Some(self.address), bus: self.bus, what: What::BusAway(error.cause) });
                }
            }
        }
    }

    fn lose_bus(&mut self, now: Instant) {
        self.socket = None;
        self.reopen_at = now + REOPEN;
    }

    fn read_bus(&mut self, now: Instant, room: &mut Room, news: &mut dyn FnMut(News)) {
        for _ in 0..TURNS {
            if !self.lane.wants_bus(now) {
                return;
            }
            let Some(socket) = &mut self.socket else { return };
            match socket.read(&mut room.read) {
                Ok(lost) => self.lane.note(Count::BusOverflow, lost.into()),
                // Told once per socket; the same socket goes on when the interface is up again.
                Err(RecvError::Down) => {
                    self.told_down = true;
                    news(News { peer: Some(self.address), bus: self.bus, what: What::BusDown });
                    continue;
                }
                Err(RecvError::Gone | RecvError::Io(_)) => {
                    self.told_down = false;
                    self.lose_bus(now);
                    return;
                }
            }
            if self.told_down && !room.read.frames().is_empty() {
                self.told_down = false;
                news(News { peer: Some(self.address), bus: self.bus, what: What::BusBack });
            }
            let came_at = self.bus_backlog.came_at(now);
            self.bus_backlog.take(room.read.frames().len(), !room.read.is_full());
            for frame in room.read.frames() {
                if let Some(class) = self.lane.handle_frame(now, came_at, frame) {
                    news(News { peer: Some(self.address), bus: self.bus, what: What::BusError(class) });
                }
            }
            if !room.read.is_full() {
                return;
            }
        }
    }

    fn write_bus(&mut self, now: Instant, way: Option<&Way<'_>>, room: &mut Room) {
        if self.bus_rests_until.is_some() || (self.bus_full && !self.bus_writable) {
            return;
        }
        let was_writable = self.bus_full;
        for turn in 0..TURNS {
            self.lane.for_bus(now, way, &mut room.frames);
            if room.frames.is_empty() {
                self.bus_full = false;
                return;
            }
            let Some(socket) = &self.socket else {
                self.lane.handle_dropped(room.frames.len(), Count::NoBus);
                continue;
            };
            let (taken, refused) = socket.write(&room.frames, &mut room.write);
            self.lane.handle_written(taken);
            match refused {
                None => {}
                Some(SendError::Full) => {
                    if taken == 0 && turn == 0 && was_writable {
                        self.bus_rests_until = Some(now + FULL_REST);
                    }
                    self.bus_full = true;
                    return;
                }
                Some(SendError::Down) => self.lane.handle_dropped(1, Count::NoBus),
                Some(SendError::Gone) => {
                    self.lane.handle_dropped(1, Count::NoBus);
                    self.lose_bus(now);
                }
                Some(SendError::Refused(_)) => self.lane.handle_dropped(1, Count::BusRefused),
            }
            self.bus_full = false;
        }
        self.bus_full = true;
    }

    fn write_link(&mut self, now: Instant, room: &mut Room) -> Result<(), Ended> {
        if self.segment_checked_at.is_none_or(|at| now.since(at) >= SEGMENT_CHECK) {
            self.segment_checked_at = Some(now);
            self.segment_bytes = self.link.segment_bytes().unwrap_or(SMALL_SEGMENT);
        }
        if self.link_full && !self.link_writable {
            return Ok(());
        }
        // Until it has less than its share to send.
        self.link_full = true;
        for _ in 0..TURNS {
            let segment = self.lane.segment(now, self.segment_bytes, &mut room.segment);
            let offered = segment.bytes().len();
            if offered == 0 {
                self.link_full = false;
                break;
            }
            let taken = self.link.try_write_whole(segment.bytes()).map_err(Ended::Link)?;
            segment.handle_sent(now, taken);
            if taken < offered {
                break;
            }
        }
        self.lane.note_sent(now);
        Ok(())
    }

    /// Frames in flight that have become too old must not arrive: the connection is cut.
    fn check_age(&mut self, now: Instant, max_age: Duration) -> Result<(), Ended> {
        if now.since(self.unacked_checked_at) < (max_age / 8).min(UNACKED_CHECK) {
            return Ok(());
        }
        self.unacked_checked_at = now;
        let unacked = self.link.unacknowledged().map_err(Ended::Link)?;
        self.lane.handle_unacked(now, unacked).map_err(Ended::Lane)
    }
}
