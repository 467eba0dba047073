//! What the gateway measures about itself while it works: ages, rates and spreads, for whoever asks.
//!
//! Owns the atomics. Each is written by one thread with a plain store or add and read by anyone. Relies on nothing. Never
//! allocates, never waits, and nothing on the command path ever reads it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::can::errorframe::ControllerState;
use crate::limits::{BUSES, OUT_MESSAGES};
use crate::time::{Duration, Instant, millis_f64};

/// Classes for each doubling of a time: a value is known to an eighth of itself.
const STEPS: u32 = 8;

/// Doublings: from 1 microsecond to 16 seconds, longer than any time constant of the program.
const DOUBLINGS: u32 = 24;

/// Classes of a spread.
const CLASSES: usize = (STEPS * DOUBLINGS) as usize;

/// How often times of each length were seen.
#[derive(Debug)]
pub struct Spread {
    classes: [AtomicU32; CLASSES],
}

impl Default for Spread {
    fn default() -> Self {
        Self { classes: std::array::from_fn(|_| AtomicU32::new(0)) }
    }
}

/// The class of a time.
fn class(us: u64) -> usize {
    // Below 8 every microsecond has a class of its own.
    let us = us.max(1);
    let power = us.ilog2();
    let within = if power >= 3 { (us >> (power - 3)) & 7 } else { (us << (3 - power)) & 7 };
    usize::try_from(u64::from(power * STEPS) + within).map_or(CLASSES - 1, |class| class.min(CLASSES - 1))
}

/// The largest time of a class, in microseconds.
fn upper_us(class: usize) -> f64 {
    let class = u32::try_from(class).unwrap_or(u32::MAX);
    let lower = f64::from(1_u32 << (class / STEPS).min(31));
    lower * (1.0 + f64::from(class % STEPS + 1) / f64::from(STEPS))
}

impl Spread {
    /// Counts one time.
    pub fn note(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        if let Some(cell) = self.classes.get(class(us)) {
            cell.fetch_add(1, Relaxed);
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counted(&self) -> Counted {
        Counted(self.classes.iter().map(|cell| cell.load(Relaxed)).collect())
    }
}

/// A spread at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted(Vec<u32>);

/// What a person reads of a spread. Each time is the upper end of its class: at most an eighth too long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentiles {
    /// Half of all times were not longer, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 were not longer.
    pub p99_ms: f64,
    /// None was longer.
    pub max_ms: f64,
    /// Times that were counted.
    pub count: u64,
}

impl Counted {
    /// What came since an earlier moment.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |class: usize| earlier.0.get(class).copied().unwrap_or(0);
        Self(self.0.iter().enumerate().map(|(class, now)| now.wrapping_sub(before(class))).collect())
    }

    /// The percentiles; none where nothing was counted.
    #[must_use]
    pub fn percentiles(&self) -> Option<Percentiles> {
        let count: u64 = self.0.iter().map(|count| u64::from(*count)).sum();
        if count == 0 {
            return None;
        }
        let rank = |rank: u64| {
            let mut seen = 0;
            let class = self.0.iter().position(|count| {
                seen += u64::from(*count);
                seen >= rank
            });
            class.map_or(0.0, |class| upper_us(class) / 1_000.0)
        };
        Some(Percentiles {
            p50_ms: rank(count.div_ceil(2)),
            p99_ms: rank((count * 99).div_ceil(100)),
            max_ms: rank(count),
            count,
        })
    }
}

/// What is measured about one bus. Frames are the can thread's, errors the watchdog's.
#[derive(Debug, Default)]
pub struct BusGauge {
    /// Frames seen, ours among them.
    pub frames: AtomicU64,
    /// Bits of them at the nominal bit rate, without stuff bits.
    pub nominal_bits: AtomicU64,
    /// Bits of them at the data bit rate of CAN FD.
    pub data_bits: AtomicU64,
    /// Frames lost in the kernel before they were read.
    pub lost: AtomicU64,
    /// The interface is there and up.
    pub up: AtomicBool,
    /// Error messages of the driver.
    pub errors: AtomicU64,
    /// What the controller last said of itself: 0 nothing, else [`ControllerState`] and 1.
    controller: AtomicU8,
    /// Its error counters, if the driver gives them: transmit, receive, and that they are known.
    counters: AtomicU32,
}

impl BusGauge {
    /// The controller told its state.
    pub fn set_controller(&self, state: Option<ControllerState>) {
        self.controller.store(state.map_or(0, |state| state as u8 + 1), Relaxed);
    }

    /// The state the controller last told.
    #[must_use]
    pub fn controller(&self) -> Option<ControllerState> {
        let number = self.controller.load(Relaxed).checked_sub(1)?;
        ControllerState::ALL.into_iter().find(|state| *state as u8 == number)
    }

    /// The driver told the error counters.
    pub fn set_counters(&self, transmit: u8, receive: u8) {
        self.counters.store(1 << 16 | u32::from(transmit) << 8 | u32::from(receive), Relaxed);
    }

    /// The error counters as last told: transmit, receive.
    #[must_use]
    pub fn counters(&self) -> Option<(u8, u8)> {
        let [receive, transmit, known, _] = self.counters.load(Relaxed).to_le_bytes();
        (known != 0).then_some((transmit, receive))
    }
}

/// What is measured about one frame that the gateway sends. All of it is the watchdog's.
#[derive(Debug, Default)]
pub struct SendGauge {
    /// Frames that the interface took.
    pub written: AtomicU64,
    /// Frames that it did not take.
    pub refused: AtomicU64,
    /// Frames proven sent.
    pub confirmed: AtomicU64,
    confirmed_at_ns: AtomicU64,
    /// From one proof to the next.
    pub period: Spread,
}

impl SendGauge {
    /// A frame is proven sent.
    pub fn note_confirmed(&self, at: Instant) {
        self.confirmed.fetch_add(1, Relaxed);
        let before = self.confirmed_at_ns.swap(at.as_nanos().max(1), Relaxed);
        if before != 0 {
            self.period.note(at.since(Instant::from_nanos(before)));
        }
    }

    /// When a frame was last proven sent.
    #[must_use]
    pub fn confirmed_at(&self) -> Option<Instant> {
        match self.confirmed_at_ns.load(Relaxed) {
            0 => None,
            ns => Some(Instant::from_nanos(ns)),
        }
    }
}

/// A moment that one thread tells and others read.
#[derive(Debug, Default)]
pub struct Moment(AtomicU64);

impl Moment {
    /// It was now.
    pub fn set(&self, at: Option<Instant>) {
        self.0.store(at.map_or(0, |at| at.as_nanos().max(1)), Relaxed);
    }

    /// When it last was.
    #[must_use]
    pub fn get(&self) -> Option<Instant> {
        match self.0.load(Relaxed) {
            0 => None,
            ns => Some(Instant::from_nanos(ns)),
        }
    }
}

/// Everything that is measured.
#[derive(Debug)]
pub struct Gauges {
    /// One for each bus of the plan.
    pub buses: [BusGauge; BUSES],
    /// One for each frame of the plan.
    pub sends: [SendGauge; OUT_MESSAGES],
    /// The last valid message of OCP.
    pub message_at: Moment,
    /// When `ack_time` last advanced.
    pub ack_at: Moment,
    /// When the operator's counter last advanced.
    pub counter_at: Moment,
    /// `telemetry.latency`: from the operator's side to OCP's server in the vehicle.
    pub ocp_latency: Spread,
    /// From a message at our door to the proof that the next actuator frame has left.
    pub door_to_bus: Spread,
}

impl Default for Gauges {
    fn default() -> Self {
        Self {
            buses: Default::default(),
            sends: std::array::from_fn(|_| SendGauge::default()),
            message_at: Moment::default(),
            ack_at: Moment::default(),
            counter_at: Moment::default(),
            ocp_latency: Spread::default(),
            door_to_bus: Spread::default(),
        }
    }
}

/// Percentiles of about the last minute: a spread is looked at every [`Recent::STEP`], and the oldest look is subtracted.
#[derive(Debug, Default)]
pub struct Recent {
    looks: heapless::Deque<(Instant, Counted), 7>,
}

impl Recent {
    /// Time between two looks; six of them are the minute.
    pub const STEP: Duration = Duration::from_secs(10);

    /// Looks at the spread if it is time.
    pub fn look(&mut self, now: Instant, spread: &Spread) {
        if self.looks.back().is_some_and(|(at, _)| now.since(*at) < Self::STEP) {
            return;
        }
        if self.looks.is_full() {
            self.looks.pop_front();
        }
        // There was just made room.
        let _ = self.looks.push_back((now, spread.counted()));
    }

    /// The percentiles of what came since the oldest look.
    #[must_use]
    pub fn percentiles(&self, spread: &Spread) -> Option<Percentiles> {
        let counted = spread.counted();
        match self.looks.front() {
            Some((_, oldest)) => counted.since(oldest).percentiles(),
            None => counted.percentiles(),
        }
    }
}

/// Milliseconds since a moment.
#[must_use]
pub fn age_ms(now: Instant, at: Instant) -> f64 {
    millis_f64(now.since(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_known_to_an_eighth_of_itself() {
        let mut before = 0;
        for us in (1..4_096).chain((12..24).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1])) {
            let class = class(us);
            assert!(class >= before, "{us}");
            before = class;
            let upper = upper_us(class);
            let exact = f64::from(u32::try_from(us).unwrap());
            assert!(upper > exact && upper <= exact * 1.126 + 1.0, "{us}: {upper}");
        }
        assert_eq!(class(0), class(1));
        assert_eq!(class(u64::MAX), CLASSES - 1);
    }

    #[test]
    fn percentiles_are_those_of_what_was_counted() {
        let spread = Spread::default();
        assert_eq!(spread.counted().percentiles(), None);
        for ms in 1..=100 {
            spread.note(Duration::from_millis(ms));
        }
        let seen = spread.counted().percentiles().unwrap();
        assert_eq!(seen.count, 100);
        for (value, want) in [(seen.p50_ms, 50.0), (seen.p99_ms, 99.0), (seen.max_ms, 100.0)] {
            assert!(value >= want && value <= want * 1.126, "{value} for {want}");
        }
    }

    #[test]
    fn what_is_older_than_a_minute_does_not_count() {
        let (spread, mut recent) = (Spread::default(), Recent::default());
        spread.note(Duration::from_secs(1));
        for step in 0..7 {
            recent.look(Instant::from_millis(10_000 * step), &spread);
            recent.look(Instant::from_millis(10_000 * step + 1), &spread);
        }
        assert_eq!(recent.percentiles(&spread), None, "the slow one was there before the first look");
        spread.note(Duration::from_millis(1));
        assert_eq!(recent.percentiles(&spread).map(|seen| seen.count), Some(1));
        for step in 7..14 {
            recent.look(Instant::from_millis(10_000 * step), &spread);
        }
        assert_eq!(recent.percentiles(&spread), None);
    }

    #[test]
    fn proofs_of_one_frame_give_its_period() {
        let gauge = SendGauge::default();
        assert_eq!(gauge.confirmed_at(), None);
        for ms in [100, 120, 140] {
            gauge.note_confirmed(Instant::from_millis(ms));
        }
        assert_eq!(gauge.confirmed_at(), Some(Instant::from_millis(140)));
        assert_eq!(gauge.period.counted().percentiles().map(|seen| seen.count), Some(2));
    }

    #[test]
    fn what_a_controller_tells_is_read_back() {
        let gauge = BusGauge::default();
        assert_eq!((gauge.controller(), gauge.counters()), (None, None));
        for state in ControllerState::ALL {
            gauge.set_controller(Some(state));
            assert_eq!(gauge.controller(), Some(state));
        }
        gauge.set_counters(0, 0);
        assert_eq!(gauge.counters(), Some((0, 0)));
        gauge.set_counters(255, 7);
        assert_eq!(gauge.counters(), Some((255, 7)));
    }
}
