//! What a tunnel decides for one peer: which frames pass, which are too old, when the connection must end.
//!
//! Owns both directions of one peer. Relies on `proto::tcpcan` for bytes and queues and, on a bus that a gateway drives,
//! on `safety::injection` for what may pass. Never touches a socket. Three rules carry it:
//!
//! - Age. A frame is handed on within the age limit or dropped and counted: in the queue, and by cutting the connection
//!   when what is in flight has become too old, because a kernel would deliver it whenever the network comes back.
//! - Back-pressure is short. A full queue stops the reading on its other side for a moment, so that nothing is lost while
//!   both ends live; after that the oldest frames go, because on a bus that nobody slows down the newest are worth more.
//! - What is counted adds up: see [`counts`].

pub mod counts;

use core::fmt;

pub use self::counts::{Count, Counts};
use crate::can::errorframe::ErrorClass;
use crate::can::{Frame, Id};
use crate::limits::TUNNEL_QUEUE;
pub use crate::proto::tcpcan::Role;
use crate::proto::tcpcan::{
    CLASSIC_MESSAGE, FrameQueue, Outbox, Segment, Session, SessionError, SessionEvent, SessionSettings,
};
use crate::safety::injection::{Injection, Record, Refusal};
use crate::safety::input::StateName;
use crate::time::{Duration, Instant};

/// Frames that one call hands to the bus.
pub const TURN: usize = 64;

/// Room that one read of a connection may need: 64 KiB of the smallest messages.
const READ_ROOM: usize = 65_536 / CLASSIC_MESSAGE;

/// How one peer is treated.
#[derive(Debug, Clone, Copy)]
pub struct LaneSettings {
    /// No frame older than this is handed on; more than zero.
    pub max_age: Duration,
    /// How long a frame may wait for others to share its segment; zero sends at once.
    pub coalesce: Duration,
    /// A connection without an agreed version ends after this.
    pub handshake: Duration,
}

/// Why a connection must end. Consequence of each: the connection is closed, and its frames are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneEnd {
    /// The peer does not speak tcpcan, or its stream is torn.
    Session(SessionError),
    /// The peer has had its last try with an actuator id.
    Struck,
    /// What is in flight has become too old to arrive.
    TooOld,
    /// A message began and its end does not come.
    Half,
}

impl fmt::Display for LaneEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(error) => error.fmt(f),
            Self::Struck => f.write_str("three frames with an id that only the gateway may send"),
            Self::Half => f.write_str("half a message, and the rest does not come"),
            Self::TooOld => f.write_str(
                "frames on their way grew older than the age limit (a slow or broken network; a larger limit allows it)",
            ),
        }
    }
}

impl core::error::Error for LaneEnd {}

/// The way onto a bus that a gateway drives.
#[derive(Debug)]
pub struct Way<'a> {
    /// The gate of the bus, and what all peers may send.
    pub injection: &'a mut Injection,
    /// What is remembered of this peer.
    pub record: &'a mut Record,
    /// The gateway's state.
    pub state: StateName,
}

/// Both directions of one peer.
#[derive(Debug)]
pub struct Lane {
    session: Session,
    settings: LaneSettings,
    /// Frames may wait so long in a queue; the rest of the age limit is for what happens before and behind it.
    queue_age: Duration,
    to_peer: Outbox,
    to_bus: FrameQueue,
    /// Since when the bus is not read because the queue to the peer is full.
    bus_held: Hold,
    /// Since when the peer is not read because the queue to the bus is full.
    peer_held: Hold,
    /// Since when the front of a message is here and its end is not.
    half_since: Option<Instant>,
    counts: Counts,
}

/// A pause in reading, of bounded length.
#[derive(Debug, Clone, Copy, Default)]
struct Hold {
    since: Option<Instant>,
}

impl Hold {
    /// Whether to go on reading. A queue that is full holds the reading for `most`, then not again until it had room.
    fn reads(self, now: Instant, most: Duration) -> bool {
        self.since.is_none_or(|since| now.since(since) >= most)
    }

    fn note(&mut self, now: Instant, is_full: bool) {
        match (is_full, self.since) {
            (true, None) => self.since = Some(now),
            (false, Some(_)) => self.since = None,
            _ => {}
        }
    }
}

impl Lane {
    /// A lane on a new connection.
    #[must_use]
    pub fn new(role: Role, settings: LaneSettings, now: Instant) -> Self {
        Self {
            session: Session::with_settings(
                SessionSettings { handshake: settings.handshake, ..SessionSettings::new(role) },
                now,
            ),
            settings,
            // A quarter is the longest idle wait of the thread, in which a frame may have come unseen, and the hold takes
            // an eighth. A thread that was away for longer says so: see `came_at` below.
            queue_age: settings.max_age / 8 * 5,
            to_peer: Outbox::new(TUNNEL_QUEUE),
            to_bus: FrameQueue::new(TUNNEL_QUEUE),
            bus_held: Hold::default(),
            peer_held: Hold::default(),
            half_since: None,
            counts: Counts::default(),
        }
    }

    /// Whether the version is agreed: frames pass.
    #[must_use]
    pub const fn is_agreed(&self) -> bool {
        self.session.version().is_some()
    }

    /// What was counted, the queues' own numbers included.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = self.counts;
        let out = self.to_peer.counters();
        counts.add(Count::ToPeer, out.confirmed);
        counts.add(Count::ToPeerAged, out.aged);
        counts.add(Count::ToPeerEvicted, out.evicted);
        counts.add(Count::ToPeerUnconfirmed, out.unconfirmed);
        counts.add(Count::ToPeerLeft, out.discarded);
        counts.add(Count::ToPeerWaiting, out.waiting + out.in_flight);
        let queue = self.to_bus.counters();
        counts.add(Count::ToBusAged, queue.aged);
        counts.add(Count::ToBusEvicted, queue.evicted);
        counts.add(Count::ToBusLeft, queue.discarded);
        counts.add(Count::ToBusWaiting, queue.waiting);
        counts
    }

    /// Adds to a number that only the thread can know.
    pub fn note(&mut self, count: Count, more: u64) {
        self.counts.add(count, more);
    }

    // From the peer.

    /// Whether to read the connection now.
    #[must_use]
    pub fn wants_peer(&self, now: Instant) -> bool {
        self.peer_held.reads(now, self.settings.max_age / 8)
    }

    /// Where the connection's bytes go.
    pub fn spare(&mut self) -> &mut [u8] {
        self.session.spare()
    }

    /// So many bytes were put there; 0 says that there are no more for now.
    pub fn commit(&mut self, count: usize) {
        self.session.commit(count);
    }

    /// Takes the frames out of what came in. `came_at` is the earliest moment at which they may have come: earlier than
    /// `now` where this program did not run for a while.
    ///
    /// # Errors
    /// [`LaneEnd`]: close the connection.
    pub fn take(
        &mut self,
        now: Instant,
        came_at: Instant,
        mut way: Option<&mut Way<'_>>,
        refused: &mut dyn FnMut(Refusal, Id),
    ) -> Result<(), LaneEnd> {
        // A frame is as old as its first byte.
        let mut began_at = self.half_since.take();
        loop {
            let agreed = self.is_agreed();
            let frame = match self.session.poll_event() {
                Ok(None) => break,
                Ok(Some(SessionEvent::Agreed { .. })) => {
                    self.counts.add(Count::Connections, 1);
                    continue;
                }
                Ok(Some(SessionEvent::Refused(_))) => {
                    self.counts.add(Count::FromPeer, 1);
                    self.counts.add(Count::RefusedKind, 1);
                    continue;
                }
                Ok(Some(SessionEvent::Frame(frame))) => frame,
                Err(error) => {
                    self.counts.add(if agreed { Count::Torn } else { Count::Handshakes }, 1);
                    return Err(LaneEnd::Session(error));
                }
            };
            let began_at = began_at.take().unwrap_or(came_at);
            self.counts.add(Count::FromPeer, 1);
            if let Some(way) = way.as_deref_mut()
                && let Err(refusal) = way.injection.admit(now, way.state, way.record, &frame)
            {
                self.counts.add(reason(refusal), 1);
                refused(refusal, frame.id());
                if way.record.is_out() {
                    self.counts.add(Count::Struck, 1);
                    return Err(LaneEnd::Struck);
                }
                continue;
            }
            self.to_bus.push(&frame, began_at);
        }
        if self.session.is_partial() {
            self.half_since = Some(began_at.unwrap_or(came_at));
        }
        self.peer_held.note(now, self.to_bus.room() < READ_ROOM);
        Ok(())
    }

    /// Whether frames wait for the bus.
    #[must_use]
    pub fn has_for_bus(&self) -> bool {
        !self.to_bus.is_empty()
    }

    /// The next frames for the bus, in `out`; they stay in the queue until [`Lane::handle_written`] or
    /// [`Lane::handle_dropped`].
    pub fn for_bus(&mut self, now: Instant, way: Option<&Way<'_>>, out: &mut heapless::Vec<Frame, TURN>) {
        out.clear();
        // One that waited too long would hide all that came after it.
        self.to_bus.expire(now, self.queue_age);
        loop {
            let mut refused = None;
            for frame in self.to_bus.fresh(now, self.queue_age) {
                let verdict = way.map_or(Ok(()), |way| way.injection.judge(way.state, frame));
                if let Err(refusal) = verdict {
                    refused = Some(refusal);
                    break;
                }
                if out.push(*frame).is_err() {
                    break;
                }
            }
            // It waited while the state changed. What stands before it goes first.
            let Some(refusal) = refused.filter(|_| out.is_empty()) else { break };
            self.to_bus.take(1);
            self.counts.add(reason(refusal), 1);
        }
        self.peer_held.note(now, self.to_bus.room() < READ_ROOM);
    }

    /// The bus has taken the first `count` of them.
    pub fn handle_written(&mut self, count: usize) {
        self.to_bus.take(count);
        self.counts.add(Count::ToBus, count as u64);
    }

    /// The first `count` of them are dropped for this reason.
    pub fn handle_dropped(&mut self, count: usize, reason: Count) {
        self.to_bus.take(count);
        self.counts.add(reason, count as u64);
    }

    // From the bus.

    /// Whether to read the bus now.
    #[must_use]
    pub fn wants_bus(&self, now: Instant) -> bool {
        self.bus_held.reads(now, self.settings.max_age / 8)
    }

    /// Takes a frame of the bus that came at `came_at` or later; what the driver reports comes back.
    pub fn handle_frame(&mut self, now: Instant, came_at: Instant, frame: &Frame) -> Option<ErrorClass> {
        if let Some(class) = frame.error_class() {
            self.counts.add(Count::BusErrors, 1);
            return Some(class);
        }
        self.counts.add(Count::FromBus, 1);
        self.to_peer.push(frame, came_at);
        self.bus_held.note(now, self.to_peer.room() < TURN);
        None
    }

    /// The next bytes for the connection, whole messages of one segment, written to `out`; empty where nothing is to be
    /// sent now.
    pub fn segment<'a>(&'a mut self, now: Instant, segment_bytes: usize, out: &'a mut [u8]) -> Segment<'a> {
        let waits = self.coalesces_until(now).is_some() && !self.to_peer.has_full_segment(segment_bytes);
        let most = if waits { 0 } else { out.len() };
        let room = out.get_mut(..most).unwrap_or_default();
        self.to_peer.segment(now, self.queue_age, segment_bytes, room)
    }

    /// Looks whether the queue to the peer has room again; after sending.
    pub fn note_sent(&mut self, now: Instant) {
        self.bus_held.note(now, self.to_peer.room() < TURN);
    }

    /// Until when the oldest waiting frame may wait for others.
    fn coalesces_until(&self, now: Instant) -> Option<Instant> {
        let until = self.to_peer.oldest_at()? + self.settings.coalesce;
        (until > now).then_some(until)
    }

    /// So many bytes are not acknowledged yet.
    ///
    /// # Errors
    /// [`LaneEnd::TooOld`]: what is in flight must not arrive any more.
    pub fn handle_unacked(&mut self, now: Instant, bytes: usize) -> Result<(), LaneEnd> {
        self.to_peer.handle_unacked(bytes);
        if self.to_peer.oldest_unacked_age(now).is_some_and(|age| age > self.settings.max_age) {
            self.counts.add(Count::Cut, 1);
            return Err(LaneEnd::TooOld);
        }
        Ok(())
    }

    // Version, time, end.

    /// What the negotiation has to say; it goes before any frame.
    #[must_use]
    pub fn transmit(&self) -> &[u8] {
        self.session.transmit()
    }

    /// The connection has taken so many bytes of it.
    pub fn handle_transmitted(&mut self, count: usize) {
        self.session.handle_sent(count);
    }

    /// Whether to read the connection again before waiting for anything.
    #[must_use]
    pub const fn must_read_again(&self) -> bool {
        self.session.must_read_again()
    }

    /// Looks at the clock.
    ///
    /// # Errors
    /// [`LaneEnd::Session`]: no version was agreed in time. [`LaneEnd::Half`]: a message began and does not end.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), LaneEnd> {
        if self.is_agreed() && self.half_until().is_some_and(|until| until <= now) {
            self.counts.add(Count::Torn, 1);
            return Err(LaneEnd::Half);
        }
        self.session.handle_timeout(now).map_err(|error| {
            self.counts.add(Count::Handshakes, 1);
            LaneEnd::Session(error)
        })
    }

    /// Until when the rest of a message may come: its frame would be too old by far.
    fn half_until(&self) -> Option<Instant> {
        Some(self.half_since? + self.settings.max_age.max(self.settings.handshake))
    }

    /// How long nothing is due here, if nothing arrives.
    #[must_use]
    pub fn poll_timeout(&self, now: Instant) -> Option<Duration> {
        let soonest = |a: Option<Duration>, b: Option<Duration>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let handshake = self.session.poll_timeout().map(|at| at.since(now));
        let hold = |hold: Hold| {
            let since = hold.since?;
            Some((since + self.settings.max_age / 8).since(now)).filter(|left| !left.is_zero())
        };
        let coalesce = self.coalesces_until(now).map(|until| until.since(now));
        let half = self.half_until().map(|at| at.since(now));
        let handshake = soonest(handshake, half);
        let flight = self.to_peer.has_unacked().then(|| self.settings.max_age / 8);
        soonest(
            soonest(handshake, flight),
            soonest(coalesce, soonest(hold(self.bus_held), hold(self.peer_held))),
        )
    }

    /// The connection has ended with so many bytes not acknowledged: what is left is counted.
    pub fn handle_end(&mut self, unacked_bytes: usize) {
        self.to_peer.handle_unacked(unacked_bytes);
        self.to_peer.discard();
        self.to_bus.discard();
    }
}

const fn reason(refusal: Refusal) -> Count {
    match refusal {
        Refusal::Actuator => Count::RefusedActuator,
        Refusal::NotListed => Count::RefusedNotListed,
        Refusal::Service => Count::RefusedService,
        Refusal::ErrorFrame => Count::RefusedKind,
        Refusal::PeerRate => Count::RefusedPeerRate,
        Refusal::TotalRate => Count::RefusedTotalRate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::tcpcan::{encode_frame, encode_version};
    use crate::safety::gate::Gate;

    const SETTINGS: LaneSettings = LaneSettings {
        max_age: Duration::from_millis(250),
        coalesce: Duration::ZERO,
        handshake: Duration::from_secs(5),
    };

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn frame(raw: u32) -> Frame {
        Frame::data(Id::standard(raw).unwrap(), &[1, 2]).unwrap()
    }

    fn receive(
        lane: &mut Lane,
        now: Instant,
        way: Option<&mut Way<'_>>,
        bytes: &[u8],
    ) -> Result<(), LaneEnd> {
        lane.spare()[..bytes.len()].copy_from_slice(bytes);
        lane.commit(bytes.len());
        lane.take(now, now, way, &mut |_, _| {})
    }

    fn message(frame: &Frame) -> Vec<u8> {
        let mut bytes = [0; 74];
        let size = encode_frame(frame, &mut bytes).unwrap();
        bytes[..size].to_vec()
    }

    fn agreed(settings: LaneSettings) -> Lane {
        let mut lane = Lane::new(Role::Server, settings, at(0));
        receive(&mut lane, at(0), None, &encode_version(1)).unwrap();
        assert!(lane.is_agreed());
        let answer = lane.transmit().len();
        assert_eq!(answer, 6);
        lane.handle_transmitted(answer);
        lane
    }

    /// Sends a segment of which `taken` bytes are taken; answers how many were offered.
    fn send(lane: &mut Lane, now: Instant, taken: usize) -> usize {
        let mut out = [0; 4_096];
        let segment = lane.segment(now, 1_448, &mut out);
        let offered = segment.bytes().len();
        segment.handle_sent(now, taken.min(offered));
        offered
    }

    #[test]
    fn a_frame_that_waited_too_long_for_the_bus_is_dropped_and_those_behind_it_go() {
        let mut lane = agreed(SETTINGS);
        let mut out = heapless::Vec::new();
        receive(&mut lane, at(0), None, &message(&frame(0x111))).unwrap();
        receive(&mut lane, at(100), None, &message(&frame(0x222))).unwrap();
        // The bus was full until now: five eighths of the age limit is what a queue may take.
        lane.for_bus(at(160), None, &mut out);
        assert_eq!(out.as_slice(), [frame(0x222)]);
        lane.handle_written(1);
        assert_eq!((lane.counts().get(Count::ToBusAged), lane.counts().get(Count::ToBus)), (1, 1));
        assert_adds_up(&lane);
    }

    /// Every frame read from either side is in exactly one of the reasons.
    fn assert_adds_up(lane: &Lane) {
        let counts = lane.counts();
        assert_eq!(counts.get(Count::FromBus), counts.sum("to peers: "), "{counts:?}");
        assert_eq!(counts.get(Count::FromPeer), counts.sum("from peers: "), "{counts:?}");
    }

    #[test]
    fn frames_in_flight_that_grow_too_old_cut_the_connection_and_are_counted() {
        let mut lane = agreed(SETTINGS);
        for n in 0..10 {
            lane.handle_frame(at(n), at(n), &frame(0x100));
        }
        assert_eq!(send(&mut lane, at(10), usize::MAX), 180);
        // Half of them were acknowledged; the rest stays on its way.
        assert_eq!(lane.handle_unacked(at(20), 90), Ok(()));
        assert_eq!(lane.handle_unacked(at(250), 90), Ok(()));
        assert_eq!(lane.handle_unacked(at(261), 90), Err(LaneEnd::TooOld));
        lane.handle_end(90);
        assert_eq!(lane.counts().get(Count::Cut), 1);
        assert!(lane.counts().get(Count::ToPeerUnconfirmed) >= 5);
        assert_adds_up(&lane);
    }

    #[test]
    fn what_waits_for_a_dead_network_ages_and_nothing_old_is_offered() {
        let mut lane = agreed(SETTINGS);
        for n in 0..1_000 {
            lane.handle_frame(at(n), at(n), &frame(0x100));
            assert!(send(&mut lane, at(n), 0) > 0, "the newest is always offered");
        }
        // All but the last 156 ms: the rest of the limit is for the thread, the network and the other end.
        assert!(lane.counts().get(Count::ToPeerAged) >= 840, "{:?}", lane.counts());
        assert_eq!(send(&mut lane, at(2_000), usize::MAX), 0);
        assert_adds_up(&lane);
    }

    #[test]
    fn a_full_queue_holds_the_reading_for_a_moment_and_then_the_oldest_go() {
        let mut lane = agreed(SETTINGS);
        let mut read = 0;
        while lane.wants_bus(at(1)) {
            lane.handle_frame(at(1), at(1), &frame(0x100));
            read += 1;
            assert!(read <= TUNNEL_QUEUE, "never held");
        }
        assert!(lane.poll_timeout(at(1)).is_some_and(|left| left <= Duration::from_millis(32)));
        assert_eq!(lane.counts().get(Count::ToPeerEvicted), 0, "nothing is lost while both ends live");
        assert!(!lane.wants_bus(at(20)) && lane.wants_bus(at(33)));
        for _ in 0..200 {
            lane.handle_frame(at(33), at(33), &frame(0x100));
        }
        assert!(lane.counts().get(Count::ToPeerEvicted) > 0, "after that the newest are worth more");
        assert_adds_up(&lane);
        while send(&mut lane, at(34), usize::MAX) > 0 {}
        lane.note_sent(at(34));
        assert!(lane.wants_bus(at(34)));
    }

    #[test]
    fn a_frame_that_waited_is_judged_again_by_the_state_it_meets() {
        let gate = Gate::new(&[Id::standard(0x101).unwrap()], &[], &[Id::standard(0x7E0).unwrap()], &[]);
        let mut injection = Injection::new(gate, 100, 100);
        let mut record = injection.record();
        let mut lane = agreed(SETTINGS);
        let mut way = Way { injection: &mut injection, record: &mut record, state: StateName::Ready };
        receive(&mut lane, at(10), Some(&mut way), &message(&frame(0x7E0))).unwrap();
        assert!(lane.has_for_bus());
        way.state = StateName::Armed;
        let mut out = heapless::Vec::new();
        lane.for_bus(at(11), Some(&way), &mut out);
        assert!(out.is_empty() && !lane.has_for_bus());
        assert_eq!(lane.counts().get(Count::RefusedNotListed), 1);
        assert_adds_up(&lane);
    }

    #[test]
    fn after_an_absence_what_may_be_too_old_is_dropped_in_both_directions_and_the_rest_goes() {
        let mut out = heapless::Vec::new();
        // Read after a pause of 150 ms, and of 160 ms: five eighths of the limit, 156 ms, is what frames may wait.
        for (pause, passes) in [(150, true), (160, false)] {
            let mut lane = agreed(SETTINGS);
            let now = at(1_000 + pause);
            lane.handle_frame(now, at(1_000), &frame(0x100));
            let bytes = message(&frame(0x200));
            lane.spare()[..bytes.len()].copy_from_slice(&bytes);
            lane.commit(bytes.len());
            lane.take(now, at(1_000), None, &mut |_, _| {}).unwrap();
            lane.for_bus(now, None, &mut out);
            assert_eq!((send(&mut lane, now, usize::MAX) > 0, !out.is_empty()), (passes, passes), "{pause}");
            let aged = (lane.counts().get(Count::ToPeerAged), lane.counts().get(Count::ToBusAged));
            assert_eq!(aged, if passes { (0, 0) } else { (1, 1) });
            assert_adds_up(&lane);
        }
    }

    #[test]
    fn a_frame_is_as_old_as_its_first_byte_and_half_a_message_ends_the_connection() {
        let mut out = heapless::Vec::new();
        for size in [1, 2, 9, 17] {
            let mut lane = agreed(SETTINGS);
            let bytes = message(&frame(0x200));
            receive(&mut lane, at(0), None, &bytes[..size]).unwrap();
            // The rest in two pieces, and a whole frame behind it.
            receive(&mut lane, at(100), None, &bytes[size..17.max(size)]).unwrap();
            receive(&mut lane, at(200), None, &[&bytes[17.max(size)..], &message(&frame(0x201))].concat())
                .unwrap();
            lane.for_bus(at(200), None, &mut out);
            assert_eq!(out.as_slice(), [frame(0x201)], "{size}");
            assert_eq!(lane.counts().get(Count::ToBusAged), 1);
            assert_adds_up(&lane);

            let mut lane = agreed(SETTINGS);
            receive(&mut lane, at(1_000), None, &bytes[..size]).unwrap();
            assert_eq!(lane.poll_timeout(at(1_000)), Some(SETTINGS.handshake));
            lane.handle_timeout(at(5_999)).unwrap();
            assert_eq!(lane.handle_timeout(at(6_000)), Err(LaneEnd::Half));
        }
    }

    #[test]
    fn coalescing_waits_for_its_time_or_a_full_segment() {
        let mut lane = agreed(LaneSettings { coalesce: Duration::from_millis(2), ..SETTINGS });
        lane.handle_frame(at(10), at(10), &frame(0x100));
        assert_eq!(send(&mut lane, at(11), usize::MAX), 0);
        assert_eq!(lane.poll_timeout(at(11)), Some(Duration::from_millis(1)));
        assert_eq!(send(&mut lane, at(12), usize::MAX), 18);
        for _ in 0..80 {
            lane.handle_frame(at(20), at(20), &frame(0x100));
        }
        assert_eq!(send(&mut lane, at(20), usize::MAX), 80 * 18);
    }

    /// Random use of a lane: whatever happens, the numbers add up and nothing older than the limit is offered.
    #[test]
    fn the_numbers_add_up_whatever_happens() {
        let seed = 0x5EED_0031;
        println!("seed {seed:#x}");
        let mut x: u64 = seed;
        let mut next = |most: u64| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x % most
        };
        for _ in 0..200 {
            let mut lane = agreed(SETTINGS);
            let (mut now, mut unacked) = (1, 0);
            let mut out = heapless::Vec::new();
            for _ in 0..300 {
                let came_at = now;
                now += next(30);
                match next(6) {
                    0 | 1 => {
                        for _ in 0..next(300) {
                            lane.handle_frame(at(now), at(came_at), &frame(0x100));
                        }
                    }
                    2 => {
                        let taken = usize::try_from(next(2_000)).unwrap();
                        unacked += send(&mut lane, at(now), taken).min(taken);
                    }
                    3 => {
                        unacked -= usize::try_from(next(unacked as u64 + 1)).unwrap();
                        let _ = lane.handle_unacked(at(now), unacked);
                    }
                    4 => {
                        for _ in 0..next(100) {
                            receive(&mut lane, at(now), None, &message(&frame(0x200))).unwrap();
                        }
                    }
                    _ => {
                        lane.for_bus(at(now), None, &mut out);
                        let written = usize::try_from(next(out.len() as u64 + 1)).unwrap();
                        lane.handle_written(written);
                    }
                }
                assert_adds_up(&lane);
            }
            lane.handle_end(unacked);
            assert_adds_up(&lane);
            assert_eq!(lane.counts().get(Count::ToPeerWaiting) + lane.counts().get(Count::ToBusWaiting), 0);
        }
    }
}
