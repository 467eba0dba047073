//! What the vehicle reports, with its age.
//!
//! Owns the newest valid value of every received signal, when it came, and how trustworthy its frame has been
//! (SAFETY rows 59 to 63). Relies on `bits`, `e2e` and `plan`. Never decides what old or missing feedback means,
//! allocates only in [`FeedbackTable::new`].

use super::e2e::Step;
use super::plan::{ReceivePlan, ReceiveSignal, SignalRef};
use crate::can::{Frame, FrameKind};
use crate::time::{Duration, Instant};

/// Strikes at which a feedback frame counts as failed (row 59). Each bad frame adds one, each good one takes one.
pub const STRIKES_FAILED: u8 = 5;

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedbackVerdict {
    /// No feedback frame has this identifier on this bus.
    NotOurs,
    /// The values of the receive plan with this index are fresh now.
    Accepted(usize),
    /// A feedback frame that is not believed: its values stay as they were and go on ageing.
    Ignored {
        /// Index of the receive plan.
        receive: usize,
        /// What is wrong with it.
        reason: Ignored,
    },
}

/// Why a feedback frame is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// Shorter or longer than the DBC says. A strike.
    WrongLength,
    /// A remote request, or CAN FD where classic is expected, or the reverse. No strike: another node's doing.
    WrongKind,
    /// The checksum does not fit the payload. A strike.
    Checksum,
    /// The counter did not advance by exactly one. A strike, except where it repeats: then the sender is frozen,
    /// and the age limit decides (row 60).
    Counter,
    /// A value beyond what the DBC allows, or not a number (row 61). No strike: sent on purpose and unharmed. How long it
    /// goes on is told by [`FeedbackTable::impossible`].
    OutOfRange,
}

/// A received value and its age.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FeedbackValue {
    /// Never received.
    Never,
    /// Older than allowed: reported as stale, never as the last value.
    Stale {
        /// Time since it was received.
        age: Duration,
    },
    /// Received within the allowed time.
    Fresh {
        /// In the unit of the signal.
        value: f64,
        /// Time since it was received.
        age: Duration,
    },
}

impl FeedbackValue {
    /// The value, if it is fresh.
    #[must_use]
    pub const fn fresh(self) -> Option<f64> {
        match self {
            Self::Fresh { value, .. } => Some(value),
            Self::Never | Self::Stale { .. } => None,
        }
    }
}

/// The newest value of one signal.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    value: f64,
    /// The raw integer, for value names.
    raw: Option<i64>,
}

#[derive(Debug, Clone)]
struct Receiver {
    plan: ReceivePlan,
    /// When the newest valid frame came.
    at: Option<Instant>,
    /// Counter of the newest frame with a correct checksum.
    counter: Option<u32>,
    strikes: u8,
    /// First and newest of the frames with impossible values, without a believed one between them or since.
    impossible: Option<(Instant, Instant)>,
    /// One for each signal of the plan.
    samples: Box<[Option<Sample>]>,
}

/// The newest feedback of the vehicle.
#[derive(Debug, Clone)]
pub struct FeedbackTable {
    receivers: Box<[Receiver]>,
}

impl FeedbackTable {
    /// An empty table for these frames. The only place that allocates.
    #[must_use]
    pub fn new(plans: &[ReceivePlan]) -> Self {
        let receivers = plans
            .iter()
            .map(|plan| Receiver {
                plan: plan.clone(),
                at: None,
                counter: None,
                strikes: 0,
                impossible: None,
                samples: vec![None; plan.signals.len()].into_boxed_slice(),
            })
            .collect();
        Self { receivers }
    }

    /// Takes a frame that was received on a bus. Error messages of the driver are never feedback.
    pub fn handle_frame(&mut self, at: Instant, bus: usize, frame: &Frame) -> FeedbackVerdict {
        if frame.kind() == FrameKind::Error {
            return FeedbackVerdict::NotOurs;
        }
        let found =
            self.receivers.iter_mut().enumerate().find(|(_, r)| r.plan.id == frame.id() && r.plan.bus == bus);
        let Some((receive, receiver)) = found else { return FeedbackVerdict::NotOurs };
        match receiver.take(at, frame) {
            Ok(()) => FeedbackVerdict::Accepted(receive),
            Err(reason) => FeedbackVerdict::Ignored { receive, reason },
        }
    }

    /// The value of a signal, if it was received within `stale_after`.
    #[must_use]
    pub fn value(&self, now: Instant, signal: SignalRef, stale_after: Duration) -> FeedbackValue {
        let Some(sample) = self.sample(signal) else { return FeedbackValue::Never };
        let age = now.since(sample.at);
        if age > stale_after {
            FeedbackValue::Stale { age }
        } else {
            FeedbackValue::Fresh { value: sample.value, age }
        }
    }

    /// The DBC's name for the newest value of a signal, however old it is: ask [`FeedbackTable::value`] first.
    #[must_use]
    pub fn value_name(&self, signal: SignalRef) -> Option<&str> {
        let raw = self.sample(signal)?.raw?;
        let plan = self.receivers.get(signal.receive)?.plan.signals.get(signal.signal)?;
        plan.names.iter().find(|(value, _)| *value == raw).map(|(_, name)| name.as_str())
    }

    /// How often this frame was wrong lately, 0 to [`STRIKES_FAILED`]; 0 for an index that does not exist.
    #[must_use]
    pub fn strikes(&self, receive: usize) -> u8 {
        self.receivers.get(receive).map_or(0, |r| r.strikes)
    }

    /// Whether this frame has been wrong too often to be believed (row 59).
    #[must_use]
    pub fn failed(&self, receive: usize) -> bool {
        self.strikes(receive) >= STRIKES_FAILED
    }

    /// When the first and the newest of the frames came whose values cannot be (row 61), if no frame was believed since.
    #[must_use]
    pub fn impossible(&self, receive: usize) -> Option<(Instant, Instant)> {
        self.receivers.get(receive)?.impossible
    }

    /// Time since the last believed frame; `None` before the first.
    #[must_use]
    pub fn age(&self, now: Instant, receive: usize) -> Option<Duration> {
        self.receivers.get(receive)?.at.map(|at| now.since(at))
    }

    fn sample(&self, signal: SignalRef) -> Option<&Sample> {
        self.receivers.get(signal.receive)?.samples.get(signal.signal)?.as_ref()
    }
}

impl Receiver {
    fn take(&mut self, at: Instant, frame: &Frame) -> Result<(), Ignored> {
        if frame.kind() == FrameKind::Remote || frame.is_fd() != self.plan.fd {
            return Err(Ignored::WrongKind);
        }
        let data = frame.payload();
        if let Err(reason) = self.check(data) {
            if reason.1 {
                self.strikes = (self.strikes + 1).min(STRIKES_FAILED); // at most 5 before
            }
            return Err(reason.0);
        }
        self.strikes = self.strikes.saturating_sub(1);
        if !self.plan.signals.iter().filter(|s| s.is_present(data)).all(|s| s.is_plausible(data)) {
            let since = self.impossible.map_or(at, |(since, _)| since);
            self.impossible = Some((since, at));
            return Err(Ignored::OutOfRange);
        }
        self.impossible = None;
        self.at = Some(at);
        for (signal, sample) in self.plan.signals.iter().zip(&mut self.samples) {
            if let (true, Some(value)) = (signal.is_present(data), signal.codec.decode(data)) {
                *sample = Some(Sample { at, value, raw: signal.codec.decode_integer(data) });
            }
        }
        Ok(())
    }

    /// Length, checksum, counter: the reason against the frame, and whether it is a strike. A counter becomes the
    /// reference for the next frame even where it jumped, so that one lost frame costs one frame, not all.
    fn check(&mut self, data: &[u8]) -> Result<(), (Ignored, bool)> {
        if data.len() != usize::from(self.plan.len) {
            return Err((Ignored::WrongLength, true));
        }
        if self.plan.checksum.is_some_and(|checksum| !checksum.verify(data)) {
            return Err((Ignored::Checksum, true));
        }
        let Some(counter) = &self.plan.counter else { return Ok(()) };
        let Some(count) = counter.read(data) else { return Err((Ignored::Counter, true)) };
        if count >= counter.modulo {
            return Err((Ignored::Counter, true));
        }
        match self.counter.replace(count).map_or(Step::Next, |previous| counter.step(previous, count)) {
            Step::Next => Ok(()),
            Step::Repeated => Err((Ignored::Counter, false)),
            Step::Jumped(_) | Step::Invalid => Err((Ignored::Counter, true)),
        }
    }
}

impl ReceiveSignal {
    /// Whether this payload holds the signal: always, unless it is multiplexed and another one is selected.
    #[must_use]
    pub fn is_present(&self, data: &[u8]) -> bool {
        self.mux.is_none_or(|(switch, value)| switch.decode_raw(data) == Some(value))
    }

    /// Whether the value is a number within the limits, give or take half a raw step: the DBC writes its limits in
    /// decimal, the scaling is binary.
    fn is_plausible(&self, data: &[u8]) -> bool {
        let slack = self.codec.factor.abs() * 0.5;
        self.codec
            .decode(data)
            .is_some_and(|v| v.is_finite() && v >= self.min - slack && v <= self.max + slack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::can::Id;
    use crate::signals::bits::{ByteOrder, Codec, Raw};
    use crate::signals::e2e::{Algorithm, ChecksumPlan, CounterPlan};

    const LIMIT: Duration = Duration::from_millis(100);
    const SPEED: SignalRef = SignalRef { receive: 0, signal: 0 };
    const GEAR: SignalRef = SignalRef { receive: 0, signal: 1 };

    fn ms(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn codec(start: u16, bits: u8) -> Codec {
        Codec { start, bits, order: ByteOrder::Little, raw: Raw::Unsigned, factor: 1.0, offset: 0.0 }
    }

    fn signal(name: &str, codec: Codec, max: f64, mux: Option<(Codec, u64)>) -> ReceiveSignal {
        let names = if name == "GEAR" { vec![(0, "park".into()), (1, "drive".into())] } else { Vec::new() };
        ReceiveSignal { name: name.into(), codec, min: 0.0, max, names, mux }
    }

    /// Speed in byte 0 (0.1 km/h, up to 20), gear in byte 1, counter in byte 6, CRC in byte 7.
    fn plan(signals: Vec<ReceiveSignal>) -> ReceivePlan {
        ReceivePlan {
            name: "STATE".into(),
            bus: 1,
            id: Id::standard(0x201).unwrap(),
            len: 8,
            fd: false,
            stale_after: LIMIT,
            required: true,
            counter: Some(CounterPlan { codec: codec(48, 4), modulo: 16 }),
            checksum: Some(ChecksumPlan {
                codec: codec(56, 8),
                algorithm: Algorithm::Crc8SaeJ1850,
                data_id: Some(0x201),
            }),
            signals,
        }
    }

    fn state_plan() -> ReceivePlan {
        let speed = Codec { factor: 0.1, ..codec(0, 8) };
        plan(vec![signal("SPEED", speed, 20.0, None), signal("GEAR", codec(8, 4), 15.0, None)])
    }

    fn bytes(plan: &ReceivePlan, count: u32, first: u8, second: u8) -> [u8; 8] {
        let mut data = [first, second, 0, 0, 0, 0, 0, 0];
        plan.counter.unwrap().apply(&mut data, count).unwrap();
        plan.checksum.unwrap().apply(&mut data).unwrap();
        data
    }

    fn frame(count: u32, speed: u8, gear: u8) -> Frame {
        Frame::data(Id::standard(0x201).unwrap(), &bytes(&state_plan(), count, speed, gear)).unwrap()
    }

    fn ignored(reason: Ignored) -> FeedbackVerdict {
        FeedbackVerdict::Ignored { receive: 0, reason }
    }

    #[test]
    fn a_value_is_fresh_then_stale_and_never_the_last_one() {
        let mut table = FeedbackTable::new(&[state_plan()]);
        assert_eq!(table.value(ms(0), SPEED, LIMIT), FeedbackValue::Never);
        assert_eq!(table.age(ms(0), 0), None);
        assert_eq!(table.handle_frame(ms(10), 1, &frame(3, 125, 1)), FeedbackVerdict::Accepted(0));
        assert_eq!(
            table.value(ms(110), SPEED, LIMIT),
            FeedbackValue::Fresh { value: 12.5, age: Duration::from_millis(100) }
        );
        assert_eq!(table.value_name(GEAR), Some("drive"));
        assert_eq!(
            table.value(ms(111), SPEED, LIMIT),
            FeedbackValue::Stale { age: Duration::from_millis(101) }
        );
        assert_eq!(table.value(ms(111), SPEED, LIMIT).fresh(), None);
        assert_eq!(table.value(ms(111), SignalRef { receive: 7, signal: 7 }, LIMIT), FeedbackValue::Never);
    }

    #[test]
    fn another_id_bus_or_encoding_is_not_ours() {
        let mut table = FeedbackTable::new(&[state_plan()]);
        let data = bytes(&state_plan(), 1, 10, 0);
        assert_eq!(table.handle_frame(ms(0), 0, &frame(1, 10, 0)), FeedbackVerdict::NotOurs);
        for id in (0..=0x7FF).filter(|id| *id != 0x201) {
            let other = Frame::data(Id::standard(id).unwrap(), &data).unwrap();
            assert_eq!(table.handle_frame(ms(0), 1, &other), FeedbackVerdict::NotOurs);
        }
        let extended = Frame::data(Id::extended(0x201).unwrap(), &data).unwrap();
        assert_eq!(table.handle_frame(ms(0), 1, &extended), FeedbackVerdict::NotOurs);
        let mut plan = state_plan();
        plan.id = Id::extended(0x201).unwrap();
        let mut table = FeedbackTable::new(&[plan]);
        assert_eq!(table.handle_frame(ms(0), 1, &Frame::error(0x201, [0; 8])), FeedbackVerdict::NotOurs);
    }

    #[test]
    fn wrong_kind_is_dropped_without_a_strike() {
        let id = Id::standard(0x201).unwrap();
        let data = bytes(&state_plan(), 1, 10, 0);
        let mut table = FeedbackTable::new(&[state_plan()]);
        for wrong in [Frame::remote(id, 8).unwrap(), Frame::fd(id, &data, true, false).unwrap()] {
            assert_eq!(table.handle_frame(ms(0), 1, &wrong), ignored(Ignored::WrongKind));
        }
        let mut table_fd = FeedbackTable::new(&[ReceivePlan { fd: true, ..state_plan() }]);
        assert_eq!(table_fd.handle_frame(ms(0), 1, &frame(1, 10, 0)), ignored(Ignored::WrongKind));
        let fd = Frame::fd(id, &data, false, false).unwrap();
        assert_eq!(table_fd.handle_frame(ms(0), 1, &fd), FeedbackVerdict::Accepted(0));
        assert_eq!((table.strikes(0), table_fd.strikes(0)), (0, 0));
    }

    #[test]
    fn five_strikes_fail_and_good_frames_take_them_back() {
        let id = Id::standard(0x201).unwrap();
        let mut table = FeedbackTable::new(&[state_plan()]);
        assert_eq!(table.handle_frame(ms(0), 1, &frame(0, 10, 0)), FeedbackVerdict::Accepted(0));
        let mut bad = bytes(&state_plan(), 1, 10, 0);
        bad[0] ^= 1;
        for n in 1..=7_u8 {
            let verdict = table.handle_frame(ms(u64::from(n)), 1, &Frame::data(id, &bad).unwrap());
            assert_eq!(verdict, ignored(Ignored::Checksum));
            assert_eq!(table.strikes(0), n.min(5));
            assert_eq!(table.failed(0), n >= 5);
        }
        for n in 1..=6 {
            table.handle_frame(ms(20), 1, &frame(n, 10, 0));
        }
        assert_eq!(table.strikes(0), 0);
        let short = Frame::data(id, &bytes(&state_plan(), 7, 10, 0)[..7]).unwrap();
        assert_eq!(table.handle_frame(ms(30), 1, &short), ignored(Ignored::WrongLength));
        assert_eq!(table.strikes(0), 1);
    }

    #[test]
    fn a_jump_costs_one_frame_and_a_repeat_ages() {
        let mut table = FeedbackTable::new(&[state_plan()]);
        table.handle_frame(ms(0), 1, &frame(15, 10, 0));
        assert_eq!(table.handle_frame(ms(20), 1, &frame(0, 20, 0)), FeedbackVerdict::Accepted(0));
        assert_eq!(table.handle_frame(ms(40), 1, &frame(3, 30, 0)), ignored(Ignored::Counter));
        assert_eq!(table.strikes(0), 1);
        assert_eq!(table.value(ms(40), SPEED, LIMIT).fresh(), Some(2.0));
        assert_eq!(table.handle_frame(ms(60), 1, &frame(4, 40, 0)), FeedbackVerdict::Accepted(0));
        // Frozen: no strike, however long, and the age goes on.
        for n in 0..50 {
            assert_eq!(table.handle_frame(ms(80 + n), 1, &frame(4, 99, 0)), ignored(Ignored::Counter));
        }
        assert_eq!(table.strikes(0), 0);
        assert_eq!(table.age(ms(160), 0), Some(Duration::from_millis(100)));
        assert!(matches!(table.value(ms(161), SPEED, LIMIT), FeedbackValue::Stale { .. }));
    }

    #[test]
    fn a_value_out_of_range_or_not_a_number_is_ignored() {
        let mut table = FeedbackTable::new(&[state_plan()]);
        table.handle_frame(ms(0), 1, &frame(0, 200, 0));
        assert_eq!(table.value(ms(0), SPEED, LIMIT).fresh(), Some(20.0));
        assert_eq!(table.handle_frame(ms(20), 1, &frame(1, 201, 1)), ignored(Ignored::OutOfRange));
        assert_eq!((table.strikes(0), table.age(ms(20), 0)), (0, Some(Duration::from_millis(20))));
        assert_eq!(table.value_name(GEAR), Some("park"));
        // The counter went on all the same.
        assert_eq!(table.handle_frame(ms(40), 1, &frame(2, 200, 1)), FeedbackVerdict::Accepted(0));

        let float = Codec { raw: Raw::Float, ..codec(0, 32) };
        let unlimited =
            ReceiveSignal { min: f64::NEG_INFINITY, max: f64::INFINITY, ..signal("X", float, 0.0, None) };
        let plan = ReceivePlan { counter: None, checksum: None, ..plan(vec![unlimited]) };
        let mut table = FeedbackTable::new(std::slice::from_ref(&plan));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut data = [0; 8];
            data[..4].copy_from_slice(&bad.to_le_bytes());
            let verdict = table.handle_frame(ms(0), 1, &Frame::data(plan.id, &data).unwrap());
            assert_eq!(verdict, ignored(Ignored::OutOfRange));
        }
    }

    #[test]
    fn multiplexed_signals_have_an_age_of_their_own() {
        let switch = codec(0, 4);
        let a = signal("A", codec(8, 8), 100.0, Some((switch, 1)));
        let b = signal("B", codec(8, 8), 300.0, Some((switch, 2)));
        let plan = ReceivePlan { counter: None, checksum: None, ..plan(vec![a, b]) };
        let mut table = FeedbackTable::new(std::slice::from_ref(&plan));
        let mut send = |at, select, value| {
            let frame = Frame::data(plan.id, &[select, value, 0, 0, 0, 0, 0, 0]).unwrap();
            table.handle_frame(at, 1, &frame)
        };
        assert_eq!(send(ms(0), 1, 50), FeedbackVerdict::Accepted(0));
        // 200 is beyond A's limit, but it is B's value.
        assert_eq!(send(ms(150), 2, 200), FeedbackVerdict::Accepted(0));
        assert_eq!(send(ms(150), 1, 200), ignored(Ignored::OutOfRange));
        let of = |signal| table.value(ms(150), SignalRef { receive: 0, signal }, LIMIT);
        assert_eq!(of(0), FeedbackValue::Stale { age: Duration::from_millis(150) });
        assert_eq!(of(1).fresh(), Some(200.0));
    }
}
