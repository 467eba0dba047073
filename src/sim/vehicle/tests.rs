//! The simulated vehicle against a commander in virtual time.

use super::*;
use crate::can::Id;
use crate::signals::dbc::Database;
use proptest::prelude::*;

const EXAMPLE: &str = include_str!("../../../deploy/example.dbc");

/// Vehicle and commander; the commander knows the DBC and nothing of the vehicle's inside.
struct Bench {
    vehicle: Vehicle,
    db: Database,
    now: Instant,
    count: u32,
    out: Vec<(Instant, Frame)>,
}

/// Steering degrees, throttle and brake in percent, enable.
type Drive = (f64, f64, f64, bool);

const OFF: Drive = (0.0, 0.0, 0.0, false);
const FULL: Drive = (0.0, 100.0, 0.0, true);

impl Bench {
    fn new() -> Self {
        let now = Instant::from_millis(5_000);
        Self {
            vehicle: Vehicle::new(Layout::example().unwrap(), now),
            db: Database::parse(EXAMPLE).unwrap(),
            now,
            count: 0,
            out: Vec::new(),
        }
    }

    /// A vehicle that obeys.
    fn obeying() -> Self {
        let mut bench = Self::new();
        bench.drive(OFF, 3);
        bench.drive((0.0, 0.0, 0.0, true), 1);
        assert_eq!(bench.vehicle.snapshot().control, Control::Obeying);
        bench
    }

    fn encode(&self, message: &str, values: &[(&str, f64)]) -> Frame {
        let message = self.db.message(message).unwrap();
        let mut data = vec![0; usize::from(message.len)];
        for (name, value) in values {
            message.signal(name).unwrap().codec.unwrap().encode(&mut data, *value).unwrap();
        }
        Frame::data(message.id, &data).unwrap()
    }

    /// A correct frame with this counter.
    fn frame(&self, (steer, throttle, brake, enable): Drive, count: u32) -> Frame {
        let mut frame = self.encode(
            "DRIVE_CMD",
            &[
                ("STEER_ANGLE_CMD", steer),
                ("THROTTLE_CMD", throttle),
                ("BRAKE_CMD", brake),
                ("DRIVE_ENABLE", f64::from(u8::from(enable))),
                ("DRIVE_CMD_COUNTER", f64::from(count)),
            ],
        );
        seal(&mut frame);
        frame
    }

    /// Time passes; the vehicle is called when it wants to be.
    fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        loop {
            let due = self.vehicle.poll_timeout();
            assert!(due > self.now || due == self.now && self.out.is_empty(), "no progress at {due:?}");
            if due > end {
                break;
            }
            self.now = due;
            self.vehicle.handle_timeout(self.now);
            while let Some(frame) = self.vehicle.poll_transmit() {
                self.out.push((self.now, frame));
            }
        }
        self.now = end;
    }

    fn send(&mut self, frame: &Frame) {
        self.vehicle.handle_frame(self.now, frame);
    }

    /// Correct commands every 20 ms.
    fn drive(&mut self, drive: Drive, frames: u32) {
        for _ in 0..frames {
            let frame = self.frame(drive, self.count);
            self.count = (self.count + 1) % 16;
            self.send(&frame);
            self.pass(20);
        }
    }

    fn speed(&self) -> f64 {
        self.vehicle.snapshot().motion.speed
    }
}

/// Writes the CRC by its definition, not by the code under test.
fn seal(frame: &mut Frame) {
    let data = frame.payload_mut();
    let mut crc = 0xFF_u8;
    for byte in &data[..7] {
        crc ^= byte;
        for _ in 0..8 {
            crc = if crc & 0x80 != 0 { (crc << 1) ^ 0x1D } else { crc << 1 };
        }
    }
    data[7] = crc ^ 0xFF;
}

#[test]
fn obeys_only_with_enable() {
    let mut bench = Bench::obeying();
    bench.drive((90.0, 100.0, 0.0, true), 50);
    let driving = bench.vehicle.snapshot();
    assert!(driving.motion.speed > 2.0);
    assert_eq!((driving.motion.steer_deg, driving.gear), (90.0, 3));
    bench.drive((90.0, 100.0, 0.0, false), 1);
    let braking = bench.vehicle.snapshot();
    assert_eq!(braking.control, Control::Disabled);
    assert_eq!((braking.pedals.throttle, braking.pedals.brake), (0.0, OWN_BRAKE));
    bench.drive((-300.0, 100.0, 0.0, false), 50);
    let stopped = bench.vehicle.snapshot();
    assert_eq!(stopped.motion.speed, 0.0);
    assert_eq!(stopped.motion.steer_deg, 90.0, "the wheel stays where it is");
    assert_eq!(stopped.gear, 0);
    bench.drive(FULL, 50);
    assert!(bench.speed() > 2.0, "enable again: it obeys again");
}

#[test]
fn enable_at_power_up_is_not_obeyed_before_it_was_off() {
    let mut bench = Bench::new();
    bench.drive(FULL, 100);
    assert_eq!(bench.vehicle.snapshot().control, Control::Waiting);
    assert_eq!(bench.speed(), 0.0);
    bench.drive(OFF, 1);
    bench.drive(FULL, 20);
    assert!(bench.speed() > 0.3);
}

#[test]
fn times_out_at_200_ms_and_brakes_by_itself() {
    let mut bench = Bench::obeying();
    bench.drive(FULL, 100);
    // The newest command came 20 ms ago.
    bench.pass(179);
    assert_eq!(bench.vehicle.snapshot().control, Control::Obeying);
    let fast = bench.speed();
    bench.pass(1);
    assert_eq!(bench.vehicle.snapshot().control, Control::TimedOut);
    bench.pass(100);
    assert!(bench.speed() < fast);
    bench.pass(5_000);
    assert_eq!(bench.speed(), 0.0);
    // The commander comes back with the pedal pressed: not obeyed before enable was 0.
    bench.drive(FULL, 50);
    assert_eq!((bench.vehicle.snapshot().control, bench.speed()), (Control::TimedOut, 0.0));
    bench.drive(OFF, 1);
    bench.drive(FULL, 50);
    assert!(bench.speed() > 1.0);
    let counters = bench.vehicle.snapshot().counters;
    assert_eq!((counters.timeouts, counters.counter, counters.crc), (1, 0, 0));
}

#[test]
fn a_timeout_that_nobody_looked_at_took_effect_in_time() {
    let mut bench = Bench::obeying();
    bench.drive(FULL, 200);
    let mut seen = Bench::obeying();
    seen.drive(FULL, 200);
    seen.pass(4_000);
    bench.vehicle.handle_timeout(bench.now + Duration::from_millis(4_000));
    assert!((bench.speed() - seen.speed()).abs() < 0.05);
    assert_eq!(bench.vehicle.snapshot().control, Control::TimedOut);
}

#[test]
fn every_single_bit_error_is_ignored_and_counted() {
    let mut bench = Bench::obeying();
    for bit in 0..64 {
        let mut bad = bench.frame(FULL, bench.count);
        bad.payload_mut()[bit / 8] ^= 1 << (bit % 8);
        bench.send(&bad);
        bench.drive((0.0, 0.0, 0.0, true), 1);
    }
    let seen = bench.vehicle.snapshot();
    assert_eq!((seen.counters.crc, seen.counters.counter, seen.counters.timeouts), (64, 0, 0));
    assert_eq!((seen.control, seen.motion.speed), (Control::Obeying, 0.0));
}

#[test]
fn a_wrong_counter_costs_one_frame_and_a_frozen_one_ends_it() {
    let mut bench = Bench::obeying();
    bench.count = (bench.count + 2) % 16;
    bench.drive(FULL, 3);
    let seen = bench.vehicle.snapshot();
    assert_eq!((seen.counters.counter, seen.control), (1, Control::Obeying));
    let frozen = bench.frame(FULL, (bench.count + 15) % 16);
    for n in 1..=20 {
        bench.send(&frozen);
        bench.pass(20);
        let control = bench.vehicle.snapshot().control;
        // The eighth in a row, 20 + 7 * 20 ms after the last valid one, comes before the 200 ms are over.
        let expected = if n < BAD_IN_A_ROW { Control::Obeying } else { Control::TimedOut };
        assert_eq!(control, expected, "{n}");
    }
    assert_eq!(bench.vehicle.snapshot().counters.timeouts, 1);
}

#[test]
fn a_second_sender_is_noticed() {
    // A foreign 0x101 between two of ours, correct in itself: the counter tells.
    let mut bench = Bench::obeying();
    for _ in 0..10 {
        let foreign = bench.frame((0.0, 100.0, 0.0, true), (bench.count + 7) % 16);
        bench.send(&foreign);
        bench.drive((0.0, 0.0, 0.0, true), 1);
    }
    assert_eq!(bench.vehicle.snapshot().control, Control::TimedOut);
    assert_eq!(bench.speed(), 0.0);
}

#[test]
fn other_kinds_lengths_and_values_are_ignored() {
    let mut bench = Bench::obeying();
    let good = bench.frame(FULL, bench.count);
    let id = good.id();
    for bad in [
        Frame::data(id, &good.payload()[..7]).unwrap(),
        Frame::fd(id, good.payload(), false, false).unwrap(),
        Frame::remote(id, 8).unwrap(),
    ] {
        bench.send(&bad);
    }
    assert_eq!(bench.vehicle.snapshot().counters.malformed, 3);
    bench.send(&Frame::data(Id::extended(0x101).unwrap(), good.payload()).unwrap());
    bench.send(&Frame::error(0x101, [0; 8]));
    assert_eq!(bench.vehicle.snapshot().counters.malformed, 3);
    let mut wild = bench.frame((0.0, 100.1, 0.0, true), bench.count);
    bench.send(&wild);
    wild.payload_mut()[2..4].fill(0xFF);
    wild.payload_mut()[6] = (u8::try_from(bench.count).unwrap() + 1) << 4 | 1;
    seal(&mut wild);
    bench.send(&wild);
    let seen = bench.vehicle.snapshot();
    assert_eq!((seen.counters.range, seen.counters.crc, seen.motion.speed), (2, 0, 0.0));
}

#[test]
fn brake_wins_over_throttle() {
    let mut bench = Bench::obeying();
    bench.drive((0.0, 100.0, 5.0, true), 50);
    assert_eq!(bench.speed(), 0.0);
}

#[test]
fn body_commands_and_the_mode_at_standstill_only() {
    let mut bench = Bench::obeying();
    let body = |bench: &Bench, mode| {
        bench.encode("BODY_CMD", &[("HEADLIGHTS", 1.0), ("HORN", 1.0), ("STEERING_MODE", mode)])
    };
    let frame = body(&bench, 1.0);
    bench.send(&frame);
    let seen = bench.vehicle.snapshot();
    assert_eq!((seen.headlights, seen.horn, seen.mode), (true, true, SteeringMode::Crab));
    bench.drive(FULL, 30);
    let seen = bench.vehicle.snapshot();
    assert_eq!((seen.headlights, seen.horn), (true, false), "the horn falls silent, the lights stay");
    let frame = body(&bench, 2.0);
    bench.send(&frame);
    let seen = bench.vehicle.snapshot();
    assert_eq!((seen.mode, seen.counters.mode_refused), (SteeringMode::Crab, 1));
    bench.drive(OFF, 100);
    bench.send(&frame);
    assert_eq!(bench.vehicle.snapshot().mode, SteeringMode::Circle);
    let unknown = Frame::data(frame.id(), &[0, 3]).unwrap();
    bench.send(&unknown);
    let seen = bench.vehicle.snapshot();
    assert_eq!((seen.mode, seen.headlights, seen.counters.range), (SteeringMode::Circle, true, 1));
}

#[test]
fn reports_its_state_and_position_on_time() {
    let mut bench = Bench::obeying();
    bench.out.clear();
    bench.drive((120.0, 60.0, 0.0, true), 100);
    let of = |id: u32| bench.out.iter().filter(move |(_, f)| f.id().raw() == id).collect::<Vec<_>>();
    let (states, positions) = (of(0x201), of(0x202));
    assert_eq!((states.len(), positions.len()), (100, 20));
    assert_eq!(states.len() + positions.len(), bench.out.len());
    for pair in states.windows(2) {
        assert_eq!(pair[1].0.since(pair[0].0), Duration::from_millis(20));
        let count = |f: &Frame| f.payload()[6] >> 4;
        assert_eq!(count(&pair[1].1), (count(&pair[0].1) + 1) % 16);
    }
    for (_, frame) in &states {
        let mut again = *frame;
        seal(&mut again);
        assert_eq!(again, *frame, "the CRC is right");
    }
    let last = bench.db.decode(&states[99].1).unwrap();
    let value = |name: &str| last.values.iter().find(|v| v.signal.name == name).unwrap();
    assert!((value("SPEED_KPH").value - bench.vehicle.snapshot().speed_kph()).abs() < 0.2);
    assert_eq!(value("STEER_ANGLE").value, 120.0);
    assert_eq!(value("GEAR").name, Some("drive"));
    let place = |f: &Frame| bench.db.decode(f).unwrap().values.iter().map(|v| v.value).collect::<Vec<_>>();
    let (first, last) = (place(&positions[0].1), place(&positions[19].1));
    assert!(last[0] > first[0] && last[1] > first[1], "north and to the right: {first:?} {last:?}");
}

#[test]
fn a_vehicle_that_was_not_run_does_not_send_a_burst() {
    let mut bench = Bench::new();
    bench.pass(100);
    bench.vehicle.handle_timeout(bench.now + Duration::from_secs(60));
    let mut frames = 0;
    while bench.vehicle.poll_transmit().is_some() {
        frames += 1;
    }
    assert_eq!(frames, 2);
    assert!(bench.vehicle.poll_timeout() > bench.now + Duration::from_secs(60));
}

proptest! {
    #[test]
    fn no_frame_moves_a_vehicle_that_never_saw_a_valid_enable(
        frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..=8), 0..30_u64), 0..60)
    ) {
        let mut bench = Bench::new();
        for (id, data, ms) in frames {
            let id = Id::standard(if id < 200 { 0x101 } else { 0x102 }).unwrap();
            bench.send(&Frame::data(id, &data).unwrap());
            bench.pass(ms);
        }
        // Random bytes pass the CRC once in 256 frames; even then the first of them is not obeyed.
        let seen = bench.vehicle.snapshot();
        prop_assert!(seen.counters.accepted > 1 || seen.motion.speed == 0.0);
    }
}
