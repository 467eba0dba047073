//! What any thread may set and the watchdog or main reads: atomics, no locks, no queues.
//!
//! Owns the trip word, the link, the beats, the requests and the counters. Relies on `safety::faults` for the bits.
//! Never blocks and never loses a trip.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use super::car::CarCell;
use super::gauges::Gauges;
use super::tunnel::TunnelCounts;
use crate::limits::BUSES;
use crate::safety::faults::{Fault, Faults};
use crate::safety::input::{Requests, StateName, Stop};
use crate::time::Instant;

/// What any thread may set and the watchdog reads: no locks, no queues.
#[derive(Debug, Default)]
pub struct Shared {
    trips: AtomicU64,
    trips_at_ns: AtomicU64,
    /// Faults that keep from arming for as long as they are set.
    obstacles: AtomicU64,
    /// 0: no connection; else the session number plus 1.
    link: AtomicU64,
    ocp_beat_ns: AtomicU64,
    can_beats_ns: [AtomicU64; BUSES],
    watchdog_beat_ns: AtomicU64,
    stop: AtomicU8,
    requests: AtomicU32,
    ended: AtomicBool,
    can_alive: AtomicBool,
    proofs: [AtomicBool; BUSES],
    panicked: AtomicBool,
    counters: Counters,
    state: AtomicU8,
    /// What the tunnel counts.
    pub tunnel: TunnelCounts,
    /// What is measured.
    pub gauges: Gauges,
    /// The simulated car.
    pub car: CarCell,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident, $text:literal;)*) => {
        /// What is counted for a person to read (SIGUSR1, and at the end).
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Counter {
            $($(#[$doc])* $name,)*
        }

        impl Counter {
            /// Every counter, in the order in which they are printed.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What it counts, in a person's words.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

counters! {
    /// Valid messages.
    OcpMessages, "OCP messages";
    /// Messages that reported a fault.
    OcpFaults, "OCP messages with a fault";
    /// Messages that did not decode.
    OcpInvalid, "OCP messages invalid";
    /// Connections that this side closed.
    OcpClosed, "OCP connections closed for nonsense";
    /// Complete answers.
    OcpAnswers, "OCP answers";
    /// Answers that a newer one replaced.
    OcpReplaced, "OCP answers replaced by a newer one";
    /// Answers held back.
    OcpWithheld, "OCP answers withheld";
    /// Commands of an old session.
    OldCommands, "commands of an old session dropped";
    /// Commands that a newer one evicted.
    CommandsEvicted, "commands evicted by a newer one";
    /// Feedback frames that did not reach the watchdog.
    FeedbackEvicted, "feedback frames evicted";
    /// Frames read by the can threads.
    CanFrames, "CAN frames read";
    /// Frames that the kernel dropped before they were read.
    CanOverflow, "CAN frames lost before they were read";
    /// Frames sent with an echo.
    Echoes, "own frames confirmed";
    /// Foreign frames with an actuator id.
    Foreign, "frames of others with our ids";
    /// Error messages of the driver.
    BusErrors, "CAN error messages";
    /// Forged error messages.
    Forged, "CAN error messages forged by a program here";
    /// Events that did not fit between two steps.
    EventOverflow, "CAN events lost between two steps";
    /// Log events that did not fit.
    EventsDropped, "log events dropped";
    /// News of the tunnel that did not fit.
    TunnelNewsDropped, "news of the tunnel dropped";
}

/// The counters' values. Each is written by one thread and read by main.
#[derive(Debug, Default)]
struct Counters([AtomicU64; 32]);

const _: () = assert!(Counter::ALL.len() <= 32, "room for every counter");

const REQUEST_ACKNOWLEDGE: u32 = 1;
const REQUEST_ENTER_DIAG: u32 = 2;
const REQUEST_LEAVE_DIAG: u32 = 4;

fn stamp(cell: &AtomicU64, now: Instant) {
    cell.store(now.as_nanos().max(1), Ordering::Release);
}

fn read_stamp(cell: &AtomicU64) -> Option<Instant> {
    match cell.load(Ordering::Acquire) {
        0 => None,
        ns => Some(Instant::from_nanos(ns)),
    }
}

impl Shared {
    /// Raises faults; `at` is when their evidence was at our door. The bits are set before anything else is done.
    pub fn trip(&self, faults: Faults, at: Instant) {
        if faults.is_empty() {
            return;
        }
        // The first one keeps its time: the watchdog clears it with the bits.
        let _ =
            self.trips_at_ns.compare_exchange(0, at.as_nanos().max(1), Ordering::AcqRel, Ordering::Acquire);
        self.trips.fetch_or(faults.bits(), Ordering::AcqRel);
    }

    /// Takes all faults that were raised (the watchdog's alone).
    #[must_use]
    pub fn take_trips(&self) -> (Faults, Option<Instant>) {
        let bits = self.trips.swap(0, Ordering::AcqRel);
        if bits == 0 {
            return (Faults::NONE, None);
        }
        let at = match self.trips_at_ns.swap(0, Ordering::AcqRel) {
            0 => None,
            ns => Some(Instant::from_nanos(ns)),
        };
        (Faults::from_bits(bits), at)
    }

    /// Something keeps from arming from now on, or does so no more. Main's alone.
    pub fn set_obstacle(&self, fault: Fault, is_there: bool) {
        let bits = Faults::from(fault).bits();
        if is_there {
            self.obstacles.fetch_or(bits, Ordering::AcqRel);
        } else {
            self.obstacles.fetch_and(!bits, Ordering::AcqRel);
        }
    }

    /// What keeps from arming.
    #[must_use]
    pub fn obstacles(&self) -> Faults {
        Faults::from_bits(self.obstacles.load(Ordering::Acquire))
    }

    /// Tells which OCP session is connected.
    pub fn set_link(&self, session: Option<u32>) {
        self.link.store(session.map_or(0, |number| u64::from(number) + 1), Ordering::Release);
    }

    /// The connected session.
    #[must_use]
    pub fn link(&self) -> Option<u32> {
        u32::try_from(self.link.load(Ordering::Acquire).checked_sub(1)?).ok()
    }

    /// The ocp thread came round.
    pub fn beat_ocp(&self, now: Instant) {
        stamp(&self.ocp_beat_ns, now);
    }

    /// A can thread came round.
    pub fn beat_can(&self, bus: usize, now: Instant) {
        if let Some(cell) = self.can_beats_ns.get(bus) {
            stamp(cell, now);
        }
    }

    /// The watchdog came round.
    pub fn beat_watchdog(&self, now: Instant) {
        stamp(&self.watchdog_beat_ns, now);
    }

    /// When the ocp thread last came round.
    #[must_use]
    pub fn ocp_beat(&self) -> Option<Instant> {
        read_stamp(&self.ocp_beat_ns)
    }

    /// When each can thread last came round.
    #[must_use]
    pub fn can_beats(&self) -> [Option<Instant>; BUSES] {
        std::array::from_fn(|bus| self.can_beats_ns.get(bus).and_then(read_stamp))
    }

    /// When the watchdog last came round.
    #[must_use]
    pub fn watchdog_beat(&self) -> Option<Instant> {
        read_stamp(&self.watchdog_beat_ns)
    }

    /// Asks for the end; a second call asks for it now.
    pub fn request_stop(&self) {
        let _ = self.stop.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| Some(n.saturating_add(1)));
    }

    /// What people asked for; acknowledgements are taken once.
    #[must_use]
    pub fn take_requests(&self) -> Requests {
        let bits = self.requests.swap(0, Ordering::AcqRel);
        Requests {
            stop: match self.stop.load(Ordering::Acquire) {
                0 => Stop::No,
                1 => Stop::Profile,
                _ => Stop::Now,
            },
            acknowledge: bits & REQUEST_ACKNOWLEDGE != 0,
            enter_diag: bits & REQUEST_ENTER_DIAG != 0,
            leave_diag: bits & REQUEST_LEAVE_DIAG != 0,
        }
    }

    /// A person at the box acknowledges LOCKOUT.
    pub fn request_acknowledge(&self) {
        self.requests.fetch_or(REQUEST_ACKNOWLEDGE, Ordering::AcqRel);
    }

    /// A person at the box wants to diagnose the vehicle.
    pub fn request_enter_diag(&self) {
        self.requests.fetch_or(REQUEST_ENTER_DIAG, Ordering::AcqRel);
    }

    /// A person at the box has done diagnosing.
    pub fn request_leave_diag(&self) {
        self.requests.fetch_or(REQUEST_LEAVE_DIAG, Ordering::AcqRel);
    }

    /// Publishes a counter's value.
    pub fn set_counter(&self, counter: Counter, value: u64) {
        if let Some(cell) = self.counters.0.get(counter as usize) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// Adds to a counter that several threads share.
    pub fn add_counter(&self, counter: Counter, value: u64) {
        if let Some(cell) = self.counters.0.get(counter as usize) {
            cell.fetch_add(value, Ordering::Relaxed);
        }
    }

    /// Every counter with its value.
    pub fn counters(&self) -> impl Iterator<Item = (Counter, u64)> {
        Counter::ALL.iter().map(|counter| {
            let value = self.counters.0.get(*counter as usize).map_or(0, |cell| cell.load(Ordering::Relaxed));
            (*counter, value)
        })
    }

    /// A thread panicked: safe frames now, then the end.
    pub fn note_panic(&self, now: Instant) {
        self.panicked.store(true, Ordering::Release);
        self.trip(Fault::Panic.into(), now);
        self.stop.store(2, Ordering::Release);
    }

    /// Whether a thread panicked.
    #[must_use]
    pub fn panicked(&self) -> bool {
        self.panicked.load(Ordering::Acquire)
    }

    /// The watchdog is done: every thread ends.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Whether every thread must end.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// A can thread tells that the interface of its bus has come to give the proof that it did not give when it was
    /// opened.
    pub fn note_proof(&self, bus: usize) {
        if let Some(proof) = self.proofs.get(bus) {
            proof.store(true, Ordering::Release);
        }
    }

    /// Takes the news of [`Shared::note_proof`].
    pub fn take_proof(&self, bus: usize) -> bool {
        self.proofs.get(bus).is_some_and(|proof| proof.swap(false, Ordering::AcqRel))
    }

    /// The watchdog tells its state.
    pub fn set_state(&self, state: StateName) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// The watchdog's state as last told. INIT, which lets nothing pass, before that.
    #[must_use]
    pub fn state(&self) -> StateName {
        let number = usize::from(self.state.load(Ordering::Acquire));
        StateName::ALL.get(number).copied().unwrap_or(StateName::Init)
    }

    /// The watchdog tells whether the CAN path is proven alive.
    pub fn set_can_alive(&self, alive: bool) {
        self.can_alive.store(alive, Ordering::Release);
    }

    /// Whether the CAN path is proven alive.
    #[must_use]
    pub fn can_alive(&self) -> bool {
        self.can_alive.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trips_are_set_by_anyone_and_taken_once_with_the_first_time() {
        let shared = Shared::default();
        shared.trip(Fault::OcpFault.into(), Instant::from_millis(5));
        shared.trip(Fault::InvalidMessage.into(), Instant::from_millis(7));
        let (faults, at) = shared.take_trips();
        assert!(faults.contains(Fault::OcpFault) && faults.contains(Fault::InvalidMessage));
        assert_eq!(at, Some(Instant::from_millis(5)));
        assert_eq!(shared.take_trips(), (Faults::NONE, None));
    }

    #[test]
    fn an_obstacle_stays_until_it_is_taken_away() {
        let shared = Shared::default();
        shared.set_obstacle(Fault::Supply, true);
        assert_eq!((shared.obstacles(), shared.obstacles()), (Fault::Supply.into(), Fault::Supply.into()));
        assert_eq!(shared.take_trips().0, Faults::NONE);
        shared.set_obstacle(Fault::Supply, false);
        assert_eq!(shared.obstacles(), Faults::NONE);
    }

    #[test]
    fn a_link_carries_its_session_number() {
        let shared = Shared::default();
        assert_eq!(shared.link(), None);
        shared.set_link(Some(0));
        assert_eq!(shared.link(), Some(0));
        shared.set_link(Some(u32::MAX));
        assert_eq!(shared.link(), Some(u32::MAX));
    }
}
