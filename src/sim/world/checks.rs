//! What must hold in every world, judged from the bytes and frames alone.
//!
//! Owns the facts that an outsider can know: what reached the gateway's socket and when, what it wrote, what was on the
//! wire. Relies on nothing of the gateway but its state's name and the trips it reports. Stops at the first violation.

use std::collections::{BTreeMap, VecDeque};

use super::bus::OnWire;
use crate::can::Frame;
use crate::safety::core::Core;
use crate::safety::faults::{Fault, REACTION_MS};
use crate::safety::input::{Output, StateName};
use crate::safety::settings::Settings;
use crate::safety::transmit::Written;
use crate::time::{Duration, Instant};

/// Identifier of the driving frame in the example.
const DRIVE: u32 = 0x101;

/// From the cause at the door to the safe frame.
const REACTION: Duration = Duration::from_millis(REACTION_MS);

/// What was seen in one world.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Times ARMED was reached.
    pub arms: u32,
    /// Trips from ARMED, by fault; and the one that comes of too many of them.
    pub trips: BTreeMap<&'static str, u32>,
    /// Times LOCKOUT was reached.
    pub lockouts: u32,
    /// Frames on the wire.
    pub frames: u64,
    /// Answers that were begun.
    pub answers: u64,
    /// Messages that reached the gateway.
    pub messages: u64,
    /// Trips whose reaction was measured on a bus that worked.
    pub reactions: u32,
    /// Sum of everything on the wire and of every state.
    pub hash: u64,
}

/// The checkers.
#[derive(Debug)]
pub struct Checks {
    settings: Settings,
    /// The first violation.
    pub violation: Option<String>,
    /// What was seen.
    pub seen: Seen,
    /// Whether the operator does what arming needs.
    pub arming_wanted: bool,
    // The stream at the gateway's door.
    buffer: Vec<u8>,
    lost_framing: bool,
    acks: VecDeque<Option<Vec<u8>>>,
    newest_ack: Option<Vec<u8>>,
    answer_pending: bool,
    message_at: Option<Instant>,
    ack: Option<u64>,
    ack_rose: Option<Instant>,
    counter: Option<u64>,
    counter_rose: Option<Instant>,
    feedback_at: Option<Instant>,
    /// No non-safe frame may be written between these two times.
    forbidden: VecDeque<(Instant, Instant, &'static str)>,
    ocp_stall: Option<(Instant, Instant)>,
    // The bus.
    last_count: Option<u8>,
    last_on_wire: Option<Instant>,
    bus_trouble_until: Instant,
    watchdog_stall_until: Instant,
    stale_unsafe: u32,
    armed: bool,
}

/// The driving frame: enabled, throttle in tenths of a percent, brake in tenths, counter.
fn drive(frame: &Frame) -> Option<(bool, u16, u16, u8)> {
    let [_, _, t0, t1, b0, b1, flags, _] = frame.payload() else { return None };
    Some((flags & 1 == 1, u16::from_le_bytes([*t0, *t1]), u16::from_le_bytes([*b0, *b1]), flags >> 4))
}

fn find(body: &[u8], needle: &[u8]) -> Option<usize> {
    body.windows(needle.len()).position(|window| window == needle)
}

/// The digits after a key.
fn digits<'b>(body: &'b [u8], key: &[u8]) -> Option<&'b [u8]> {
    let rest = &body[find(body, key)? + key.len()..];
    let len = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    (len > 0).then(|| &rest[..len])
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

impl Checks {
    /// Nothing has been seen yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            violation: None,
            seen: Seen { hash: 0xCBF2_9CE4_8422_2325, ..Seen::default() },
            arming_wanted: false,
            buffer: Vec::new(),
            lost_framing: false,
            acks: VecDeque::new(),
            newest_ack: None,
            answer_pending: false,
            message_at: None,
            ack: None,
            ack_rose: None,
            counter: None,
            counter_rose: None,
            feedback_at: None,
            forbidden: VecDeque::new(),
            ocp_stall: None,
            last_count: None,
            last_on_wire: None,
            bus_trouble_until: Instant::ZERO,
            watchdog_stall_until: Instant::ZERO,
            stale_unsafe: 0,
            armed: false,
        }
    }

    fn fail(&mut self, now: Instant, what: String) {
        if self.violation.is_none() {
            self.violation = Some(format!("{now:?}: {what}"));
        }
    }

    fn mix(&mut self, value: u64) {
        for byte in value.to_le_bytes() {
            self.seen.hash = (self.seen.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }

    /// Something happened after which nothing may move until the whole procedure was gone through again.
    pub fn cause(&mut self, now: Instant, why: &'static str) {
        // A reader that hangs is a fault of its own, with its own time.
        let late = match self.ocp_stall {
            Some((_, until)) if now <= until => self.settings.thread_stall,
            _ => Duration::ZERO,
        };
        let until = now + self.settings.clear + self.settings.neutral + self.settings.hold;
        self.forbidden.push_back((now + REACTION + late, until, why));
    }

    /// A new connection: nothing of the last one counts.
    pub fn connected(&mut self) {
        self.buffer.clear();
        self.lost_framing = false;
        self.acks.clear();
        self.newest_ack = None;
        self.answer_pending = false;
        (self.message_at, self.ack, self.ack_rose) = (None, None, None);
        (self.counter, self.counter_rose) = (None, None);
    }

    /// Bytes reached the gateway's socket.
    pub fn arrived(&mut self, now: Instant, bytes: &[u8]) {
        if self.lost_framing {
            return;
        }
        self.buffer.extend_from_slice(bytes);
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut from = 0;
        while let Some(header) = buffer.get(from..).and_then(|rest| rest.first_chunk::<4>()) {
            let len = u32::from_le_bytes(*header) as usize;
            if len > 16_384 {
                self.lost_framing = true;
                self.cause(now, "a length that cannot be");
                break;
            }
            let Some(body) = buffer.get(from + 4..from + 4 + len) else { break };
            from += 4 + len;
            self.message(now, body);
        }
        buffer.drain(..from);
        self.buffer = buffer;
    }

    fn message(&mut self, now: Instant, body: &[u8]) {
        self.seen.messages += 1;
        let ack = digits(body, b"\"ack_time\":").map(<[u8]>::to_vec);
        let Some(text) = ack.clone() else {
            self.acks.push_back(None);
            self.cause(now, "a message without an ack");
            return;
        };
        self.acks.push_back(ack);
        self.message_at = Some(now);
        let telemetry = find(body, b"\"telemetry\":{").and_then(|at| body.get(at..)).unwrap_or_default();
        let end = telemetry.iter().position(|byte| *byte == b'}').unwrap_or(telemetry.len());
        let telemetry = telemetry.get(..end).unwrap_or_default();
        let reason = find(telemetry, b"\"fault_reason\":\"").and_then(|at| telemetry.get(at + 16));
        if find(telemetry, b"\"fault\":true").is_some() || reason.is_some_and(|byte| *byte != b'"') {
            self.cause(now, "a fault");
        }
        if find(body, b"\"controller\":{").is_none() {
            self.cause(now, "no controller");
        }
        let value = number(&text);
        match (self.ack, value) {
            (Some(last), Some(next)) if next < last => self.cause(now, "ack backwards"),
            (Some(last), Some(next)) if next == last => {}
            _ => self.ack_rose = Some(now),
        }
        self.ack = value;
        let counter = digits(body, b"\"counter\":").and_then(number);
        match (self.counter, counter) {
            (Some(last), Some(next)) if next == last => {}
            (Some(last), Some(next)) if next > last && next - last <= 25 => self.counter_rose = Some(now),
            (Some(_), _) => self.cause(now, "the operator's counter"),
            (None, _) => {}
        }
        self.counter = counter;
    }

    /// The gateway's node decoded the next message.
    pub fn decoded(&mut self) {
        if let Some(Some(ack)) = self.acks.pop_front() {
            self.newest_ack = Some(ack);
        }
    }

    /// The gateway's node could not decode the next message.
    pub fn undecoded(&mut self) {
        self.acks.pop_front();
    }

    /// I7: an answer carries the ack of the newest decoded message.
    pub fn answering(&mut self, now: Instant, bytes: &[u8], written: usize) {
        let fresh = !self.answer_pending;
        self.answer_pending = written < bytes.len();
        if !fresh {
            return;
        }
        self.seen.answers += 1;
        let ack = digits(bytes.get(4..).unwrap_or_default(), b"\"ack_time\":").map(<[u8]>::to_vec);
        if ack.is_none() || ack != self.newest_ack {
            let text = String::from_utf8_lossy(bytes.get(4..).unwrap_or_default()).into_owned();
            let newest = self.newest_ack.as_ref().map(|ack| String::from_utf8_lossy(ack).into_owned());
            self.fail(now, format!("I7: {text} answers {newest:?}"));
        }
    }

    /// The vehicle's state reached the gateway.
    pub const fn feedback(&mut self, now: Instant) {
        self.feedback_at = Some(now);
    }

    /// The bus does not work until this time.
    pub fn bus_trouble(&mut self, until: Instant) {
        self.bus_trouble_until = self.bus_trouble_until.max(until);
    }

    /// Frames may be stored from now on: at most one that is not safe may come out later.
    pub const fn bus_stuck(&mut self) {
        self.stale_unsafe = 0;
    }

    /// A thread hangs from now until then; 0 is ocp, 2 the watchdog.
    pub fn stalled(&mut self, now: Instant, which: u64, until: Instant) {
        match which {
            0 => self.ocp_stall = Some((now, until)),
            2 => self.watchdog_stall_until = until,
            _ => {}
        }
    }

    /// The gateway writes a frame.
    pub fn written(&mut self, now: Instant, state: StateName, frame: &Frame, written: Written) {
        if frame.id().raw() != DRIVE {
            return;
        }
        let Some((enabled, throttle, brake, count)) = drive(frame) else {
            return self.fail(now, format!("not a driving frame: {frame:?}"));
        };
        if let Some(last) = self.last_count
            && count != (last + 1) % 16
        {
            self.fail(now, format!("I9: {count} after {last}"));
        }
        if written == Written::Accepted {
            self.last_count = Some(count);
        }
        if throttle > 0 && brake > 20 {
            self.fail(now, format!("I4: throttle {throttle} against brake {brake}"));
        }
        if throttle > 0 && !enabled {
            self.fail(now, format!("I1: throttle {throttle} without enable"));
        }
        if enabled {
            self.moving(now, state);
        }
    }

    /// A frame that moves the vehicle: every reason not to must be absent.
    fn moving(&mut self, now: Instant, state: StateName) {
        if state != StateName::Armed {
            self.fail(now, format!("I1: enabled in {state:?}"));
        }
        while self.forbidden.front().is_some_and(|(_, until, _)| *until <= now) {
            self.forbidden.pop_front();
        }
        if let Some((from, _, why)) =
            self.forbidden.iter().find(|(from, until, _)| now > *from && now < *until)
        {
            let late = now.since(*from);
            self.fail(now, format!("I2: enabled {late:?} after the time to answer: {why}"));
        }
        let stall = self.ocp_stall;
        let settings = self.settings;
        // What a hanging reader has not read is late by the time that it may hang.
        let late = match stall {
            Some((_, until)) if now <= until + settings.ocp_silence + REACTION => settings.thread_stall,
            _ => Duration::ZERO,
        };
        if let Some((from, until)) = stall
            && now < until
            && now.since(from) > settings.thread_stall + REACTION
        {
            self.fail(now, format!("I2: enabled {:?} into a stall of the reader", now.since(from)));
        }
        for (what, at, limit) in [
            ("message", self.message_at, settings.ocp_silence),
            ("ack", self.ack_rose, settings.ack_freeze),
            ("counter", self.counter_rose, settings.operator_freeze),
            ("feedback", self.feedback_at, Duration::from_millis(100)),
        ] {
            let age = at.map(|at| now.since(at));
            if age.is_none_or(|age| age > limit + REACTION + late) {
                self.fail(now, format!("I2: enabled although the newest {what} is {age:?} old"));
            }
        }
    }

    /// A frame was on the wire.
    pub fn wire(&mut self, now: Instant, on: &OnWire, came_up: Instant) {
        self.seen.frames += 1;
        self.mix(now.as_nanos());
        self.mix(u64::from(on.frame.id().raw()));
        for byte in on.frame.payload() {
            self.mix(u64::from(*byte));
        }
        let Some(written) = on.written else { return };
        if written < came_up {
            self.fail(now, format!("{:?} was stored while the bus was down", on.frame));
        }
        if on.frame.id().raw() != DRIVE {
            return;
        }
        let enabled = drive(&on.frame).is_some_and(|(enabled, ..)| enabled);
        if enabled && now.since(written) > self.settings.echo + REACTION {
            self.stale_unsafe += 1;
            if self.stale_unsafe > 1 {
                self.fail(now, format!("more than one old command came out: {:?}", on.frame));
            }
        }
        // I6, where nothing hinders: two periods, or the echo's time and what a late timer costs.
        let quiet = self.bus_trouble_until.max(self.watchdog_stall_until) + Duration::from_millis(100);
        if let Some(last) = self.last_on_wire
            && last > quiet
            && now.since(last) > self.settings.echo + Duration::from_millis(15)
        {
            self.fail(now, format!("I6: {:?} between two driving frames", now.since(last)));
        }
        self.last_on_wire = Some(now);
    }

    /// The core was stepped.
    pub fn stepped(&mut self, now: Instant, core: &Core, output: &Output) {
        if let Some(trip) = output.trip
            && (trip.from == StateName::Armed || trip.fault == Fault::TooManyArms)
        {
            *self.seen.trips.entry(trip.fault.name()).or_default() += 1;
        }
        if let Some(reaction) = output.reaction {
            let bound = reaction.trip.fault.bound(&self.settings);
            let hindered = self.bus_trouble_until.max(self.watchdog_stall_until) + bound;
            if reaction.trip.from == StateName::Armed && hindered < reaction.trip.evidence_at {
                self.seen.reactions += 1;
                // Half a quantum of this world on either side.
                if reaction.time > bound + Duration::from_millis(1) {
                    self.fail(
                        now,
                        format!("answered after {:?}, bound {bound:?}: {:?}", reaction.time, reaction.trip),
                    );
                }
            }
        }
        let Some(before) = output.left else { return };
        self.mix(now.as_nanos());
        self.mix(output.state as u64);
        match output.state {
            StateName::Armed => {
                self.seen.arms += 1;
                self.armed = true;
                if !self.arming_wanted {
                    self.fail(now, "I3: armed although the operator did not ask for it".to_owned());
                }
                if before != StateName::Ready {
                    self.fail(now, format!("I3: {before:?} to ARMED"));
                }
            }
            StateName::Lockout => self.seen.lockouts += 1,
            _ => {}
        }
        if before == StateName::Armed && core.status().cause.is_none() {
            self.fail(now, "I10: left ARMED without a cause".to_owned());
        }
    }
}
