//! The invariants I1 to I6, I9 and I10 over random traces of the pure core (SAFETY.md section 6).
//!
//! Each trace is a guided way to ARMED, disturbed or not, and then chaos; an oracle that shares no code with the core
//! judges every step. `OCPCAN_SEED=n` replays trace n alone and prints it; `OCPCAN_TRACES=n` changes the number.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::oracle::{Oracle, Seen};
use common::rig::{Content, Rig, quick};
use ocpcan::can::{Frame, Id};
use ocpcan::safety::buswatch::BusEvent;
use ocpcan::safety::core::CoreOptions;
use ocpcan::safety::faults::Faults;
use ocpcan::safety::gate::{Gate, Verdict};
use ocpcan::safety::input::{CanEvent, StateName, Stop};
use ocpcan::safety::transmit::Written;
use ocpcan::signals::source::{Pad, UserValue};
use ocpcan::sim::world::plan::{self, PlanOptions};
use ocpcan::sim::world::rng::Rng;
use ocpcan::time::{Duration, Instant};

/// Traces in a plain test run.
const TRACES: u64 = 100_000;

/// Steps of one trace.
const STEPS: u32 = 200;

/// What the operator is up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    /// Follows the procedure, drives once armed.
    Honest,
    /// Holds the arm switch the whole time.
    StuckSwitch,
    /// Never lets the sticks go.
    StuckStick,
    /// Everything at random.
    Child,
}

struct Trace {
    rig: Rig,
    oracle: Oracle,
    rng: Rng,
    gate: Gate,
    operator: Operator,
    /// Steps until the world is healed again.
    heal_in: u32,
    released_for: u32,
    verbose: bool,
}

fn options(rng: &mut Rng) -> PlanOptions {
    PlanOptions {
        dead_man: rng.per_mille(250),
        operator_counter: rng.per_mille(600),
        permit: rng.per_mille(250),
        confirm: rng.per_mille(600),
        speed: rng.per_mille(900),
        tool: rng.per_mille(500),
    }
}

impl Trace {
    fn new(seed: u64, verbose: bool) -> Self {
        let mut rng = Rng::new(seed);
        let options = options(&mut rng);
        let mut settings = quick();
        settings.set_ms("own_gap_ms", 100).unwrap();
        // The watchdog's steps are up to 30 ms apart here, so an echo may be seen that late.
        settings.set_ms("echo_ms", *rng.pick(&[50, 50, 75, 100])).unwrap();
        settings.set_ms("stale_ms", *rng.pick(&[50, 100, 250])).unwrap();
        settings.set_ms("stopping_ms", *rng.pick(&[500, 500, 1_000])).unwrap();
        // One in ten starts where a narrower clock would wrap.
        let start = *rng.pick(&[1, 1_000_000, 1_000_000, 1_000_000, u64::from(u32::MAX) - 1_500]);
        let start = Instant::from_millis(start);
        let core = CoreOptions {
            settings,
            arms_per_minute: 3,
            counters: vec![u32::try_from(rng.range(0, 300)).unwrap(); 3],
            locked_out: rng.per_mille(10).then_some(ocpcan::safety::faults::Fault::TooManyArms),
        };
        let mut rig = Rig::with(options, start, core);
        rig.message_every = Duration::from_millis(rng.range(10, 20));
        let operator = *rng.pick(&[
            Operator::Honest,
            Operator::Honest,
            Operator::Honest,
            Operator::Honest,
            Operator::Honest,
            Operator::StuckSwitch,
            Operator::StuckStick,
            Operator::Child,
        ]);
        let ids: Vec<Id> = [plan::DRIVE_ID, plan::BODY_ID, plan::TOOL_ID]
            .iter()
            .filter_map(|id| Id::standard(*id))
            .collect();
        let listed: Vec<Id> = (0x100..0x120).filter_map(Id::standard).collect();
        Self {
            oracle: Oracle::new(options, settings),
            rig,
            rng,
            gate: Gate::new(&ids, &listed, &listed, &listed),
            operator,
            heal_in: 0,
            released_for: 0,
            verbose,
        }
    }

    /// The whole trace.
    fn run(&mut self) -> Result<Seen, String> {
        let disturbed = self.rng.per_mille(200);
        self.rig.bus_up(0);
        self.rig.bus_up(1);
        self.rig.connect();
        let mut calm = true;
        for step in 0..STEPS {
            // The way to ARMED is left alone until something moved, in most traces.
            calm &= self.oracle.seen.arms == 0 && step < 100;
            let driving = self.rig.state() == StateName::Armed;
            let share = match (calm, driving) {
                (true, _) if !disturbed => 0,
                (true, _) => 20,
                (false, true) => 20,
                (false, false) => 25,
            };
            if self.rng.per_mille(share) {
                self.disturb();
            }
            self.operate();
            let dt = self.dt(calm);
            self.rig.step_after(dt);
            let judged = self.oracle.judge(&self.rig.facts);
            if self.verbose {
                let facts = &self.rig.facts;
                println!(
                    "{step:3} +{dt:?} {:?} bad {:?} trip {:?} trips {:?} can {:?} sent {:?}",
                    facts.output.state,
                    self.oracle.bad,
                    facts.output.trip,
                    facts.trips,
                    facts.can,
                    facts.sent
                );
            }
            judged.map_err(|violation| format!("step {step}: {violation}"))?;
            self.spray()?;
            self.heal();
        }
        self.oracle.judge_end()?;
        Ok(self.oracle.seen)
    }

    fn dt(&mut self, calm: bool) -> Duration {
        if calm {
            return Duration::from_millis(self.rng.range(18, 30));
        }
        if self.rng.per_mille(4) {
            return Duration::from_millis(self.rng.range(31, 400));
        }
        Duration::from_micros(self.rng.range(1_000, 30_000))
    }

    /// I5: no list opens the gate for an actuator id, in any encoding, in the state that is now.
    fn spray(&mut self) -> Result<(), String> {
        let raw = *self.rng.pick(&[plan::DRIVE_ID, plan::BODY_ID, plan::TOOL_ID]);
        let wide = self.rng.per_mille(500);
        let id = if wide { Id::extended(raw) } else { Id::standard(raw) }.unwrap();
        let frame = match self.rng.range(0, 2) {
            0 => Frame::data(id, &[0; 8]).unwrap(),
            1 => Frame::remote(id, 8).unwrap(),
            _ => Frame::fd(id, &[0; 12], true, false).unwrap(),
        };
        match self.gate.judge(self.rig.state(), &frame) {
            Verdict::Actuator => Ok(()),
            other => Err(format!("I5: {frame:?} is {other:?}")),
        }
    }

    /// What the operator's hands do.
    fn operate(&mut self) {
        let state = self.rig.state();
        let rng = &mut self.rng;
        let rig = &mut self.rig;
        if rig.pad.is_none() {
            return;
        }
        match (self.operator, state) {
            (Operator::Child, _) => {
                if rng.per_mille(100) {
                    let down = rng.per_mille(500);
                    rig.press_arm(down);
                }
                if rng.per_mille(100) {
                    let down = rng.per_mille(500);
                    rig.hold_dead_man(down);
                }
                if rng.per_mille(300) {
                    let (steer, throttle, brake) = (rng.between(-1.0, 1.0), rng.unit(), rng.unit());
                    rig.drive(steer, throttle, brake);
                }
            }
            (_, StateName::Armed) => {
                rig.hold_dead_man(true);
                rig.press_arm(self.operator == Operator::StuckSwitch);
                if rng.per_mille(150) {
                    let throttle = if rng.per_mille(800) { rng.unit() } else { 0.0 };
                    let brake = if rng.per_mille(150) { rng.unit() } else { 0.0 };
                    let steer = rng.between(-0.5, 0.5);
                    rig.drive(steer, throttle, brake);
                    if let Some(pad) = &mut rig.pad {
                        pad.buttons ^= u16::from(rng.per_mille(300)) << plan::TOOL_BIT;
                    }
                }
                // The vehicle moves where it is told to.
                if rng.per_mille(100) {
                    rig.speed = rng.between(0.0, 12.0);
                }
                if rng.per_mille(50) {
                    rig.user[1] = UserValue::Number(f64::from(u8::try_from(rng.range(0, 2)).unwrap()));
                    rig.user[0] = UserValue::Bool(rng.per_mille(500));
                }
            }
            (operator, _) => {
                rig.hold_dead_man(true);
                if let Some(pad) = &mut rig.pad {
                    pad.axes = Pad::NEUTRAL.axes;
                    pad.buttons &= !(1 << plan::TOOL_BIT);
                    if operator == Operator::StuckStick {
                        pad.axes[0] = 0.06;
                    }
                }
                rig.speed = 0.0;
                self.released_for = if state == StateName::Ready { self.released_for + 1 } else { 0 };
                rig.press_arm(operator == Operator::StuckSwitch || self.released_for > 1);
            }
        }
    }

    /// Breaks one thing, for some steps or for good.
    fn disturb(&mut self) {
        self.heal_in = u32::try_from(self.rng.range(1, 12)).unwrap();
        match self.rng.range(0, 5) {
            0 | 1 => self.disturb_stream(),
            2 | 3 => self.disturb_can(),
            4 => self.disturb_machine(),
            _ => self.disturb_operator(),
        }
    }

    fn disturb_stream(&mut self) {
        let rng = &mut self.rng;
        let rig = &mut self.rig;
        match rng.range(0, 13) {
            0 => rig.streaming = false,
            1 => rig.specials.push_back(Content::Invalid),
            2 => rig.specials.push_back(Content::Fault),
            3 => rig.ack_runs = false,
            4 => rig.counter_runs = false,
            5 => rig.counter = f64::from(u8::try_from(rng.range(0, 255)).unwrap()),
            6 => rig.counter_present = false,
            7 => {
                // The Streamer restarts: its clock, or at least its last acks, go back.
                let back = i64::try_from(rng.range(1, 5_000)).unwrap();
                rig.streamer_offset_ms -= back;
            }
            8 => rig.disconnect(),
            9 => {
                // Gone and back between two steps, with or without the ocp thread's bit.
                rig.connect();
                if rng.per_mille(500) {
                    rig.trips = Faults::NONE;
                }
            }
            10 => rig.pad = None,
            11 => rig.latency_ms = *rng.pick(&[0.0, 250.0, 499.0, 501.0, 10_000.0]),
            12 => rig.delay = Duration::from_millis(rng.range(10, 600)),
            _ => {
                let value = [
                    UserValue::Invalid,
                    UserValue::Missing,
                    UserValue::Bool(false),
                    UserValue::Bool(true),
                    UserValue::Number(1.0),
                    UserValue::Number(0.5),
                    UserValue::Number(2.0),
                    UserValue::Number(2.01),
                    UserValue::Number(3.0),
                    UserValue::Number(-1.0),
                    UserValue::Number(1e300),
                ];
                let field = usize::try_from(rng.range(0, 3)).unwrap();
                // The counter has its own knobs.
                if field != 2 {
                    rig.user[field] = *rng.pick(&value);
                }
            }
        }
    }

    fn disturb_can(&mut self) {
        let rng = &mut self.rng;
        let rig = &mut self.rig;
        let bus = usize::from(rig.options.tool && rng.per_mille(500));
        match rng.range(0, 12) {
            0 => rig.bus_down(bus, BusEvent::Down),
            1 => rig.bus_down(bus, BusEvent::Gone),
            2 => {
                rig.bus_down(bus, BusEvent::Down);
                rig.bus_up(bus);
            }
            3 => rig.bus_off(bus),
            4 => {
                rig.bus_off(bus);
                rig.bus_restarted(bus);
            }
            5 | 6 => rig.buses[bus].moving = false,
            7 => rig.buses[bus].echo_after = Duration::from_millis(rng.range(5, 130)),
            8 => rig.buses[bus].accepts = *rng.pick(&[Written::Full, Written::Failed]),
            9 => {
                if rng.per_mille(300) {
                    rig.events.push((bus, CanEvent::Foreign));
                }
            }
            10 => rig.feedback = false,
            11 => rig.feedback_damaged = true,
            _ => match rng.range(0, 3) {
                0 => rig.feedback_counter_runs = false,
                1 => rig.speed = *rng.pick(&[0.6, 5.0, 250.0]),
                2 => rig.steer_actual = Some(rng.between(-500.0, 500.0)),
                _ => rig.feedback_counter = u8::try_from(rng.range(0, 15)).unwrap(),
            },
        }
    }

    fn disturb_machine(&mut self) {
        let rng = &mut self.rng;
        let rig = &mut self.rig;
        match rng.range(0, 6) {
            0 => rig.ocp_runs = false,
            1 => rig.can_runs[0] = false,
            2 => {
                let class_b = rng.per_mille(100);
                let mut faults = ocpcan::safety::faults::Fault::ALL
                    .iter()
                    .copied()
                    .filter(|fault| (fault.class() == ocpcan::safety::faults::Class::B) == class_b);
                let index = usize::try_from(rng.range(0, 6)).unwrap();
                if let Some(fault) = faults.nth(index) {
                    rig.trips.insert(fault);
                }
            }
            3 => rig.request_stop(*rng.pick(&[Stop::Profile, Stop::Now])),
            4 => rig.requests.acknowledge = true,
            5 => rig.requests.enter_diag = true,
            _ => rig.requests.leave_diag = true,
        }
    }

    fn disturb_operator(&mut self) {
        let rng = &mut self.rng;
        let rig = &mut self.rig;
        match rng.range(0, 4) {
            0 => rig.hold_dead_man(false),
            1 => rig.press_arm(true),
            2 => rig.press_arm(false),
            3 => {
                let (steer, throttle) = (rng.between(-1.0, 1.0), rng.unit());
                rig.drive(steer, throttle, 0.0);
            }
            _ => self.operator = *rng.pick(&[Operator::Child, Operator::Honest]),
        }
    }

    /// Most things get well again, so that traces arm more than once.
    fn heal(&mut self) {
        if self.heal_in == 0 {
            return;
        }
        self.heal_in -= 1;
        if self.heal_in > 0 {
            return;
        }
        let rig = &mut self.rig;
        rig.streaming = true;
        rig.ack_runs = true;
        rig.counter_runs = true;
        rig.counter_present = true;
        rig.latency_ms = 20.0;
        rig.delay = Duration::from_millis(2);
        rig.pad = rig.pad.or(Some(Pad::NEUTRAL));
        rig.user = [UserValue::Bool(true), UserValue::Number(1.0), UserValue::Missing, UserValue::Bool(true)];
        rig.ocp_runs = true;
        rig.can_runs = [true; 2];
        rig.feedback = true;
        rig.feedback_damaged = false;
        rig.feedback_counter_runs = true;
        rig.steer_actual = None;
        rig.request_stop(Stop::No);
        if !rig.connected {
            rig.connect();
        }
        for bus in 0..rig.core.plan().buses.len() {
            rig.buses[bus].moving = true;
            rig.buses[bus].echo_after = Duration::from_millis(1);
            rig.buses[bus].accepts = Written::Accepted;
            if !rig.buses[bus].up {
                rig.bus_up(bus);
            }
            if rig.buses[bus].off {
                rig.bus_restarted(bus);
            }
        }
        if self.rng.per_mille(300) {
            rig.requests.acknowledge = true;
        }
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text}, which is no number")))
}

fn run_one(seed: u64, verbose: bool) -> Result<Seen, String> {
    let result = std::panic::catch_unwind(|| Trace::new(seed, verbose).run());
    let result = result.unwrap_or_else(|_| Err("panic".to_owned()));
    result
        .map_err(|violation| format!("{violation} (replay: OCPCAN_SEED={seed} cargo test --test invariants)"))
}

#[test]
fn i1_to_i6_i9_and_i10_hold_over_random_traces() {
    if let Some(seed) = number("OCPCAN_SEED") {
        let seen = run_one(seed, true).unwrap_or_else(|violation| panic!("{violation}"));
        println!("seed {seed}: {seen:?}");
        return;
    }
    let traces = number("OCPCAN_TRACES").unwrap_or(TRACES);
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).min(8);
    let next = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    let all: Vec<_> = std::thread::scope(|scope| {
        let work = || {
            let mut seen = Vec::new();
            while !failed.load(Ordering::Relaxed) {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= traces {
                    break;
                }
                let result = run_one(seed, false);
                if result.is_err() {
                    failed.store(true, Ordering::Relaxed);
                }
                seen.push(result);
            }
            seen
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let violations: Vec<_> = all.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(violations.is_empty(), "{violations:#?}");
    let seen: Vec<Seen> = all.into_iter().flatten().collect();
    let total = u64::try_from(seen.len()).unwrap();
    assert_eq!(total, traces);
    let share = |count: usize| count * 100 / seen.len();
    let armed = share(seen.iter().filter(|one| one.arms > 0).count());
    let tripped = share(seen.iter().filter(|one| one.armed_trips > 0).count());
    let rearmed = share(seen.iter().filter(|one| one.arms > 1).count());
    let driven = share(seen.iter().filter(|one| one.driven).count());
    let locked = share(seen.iter().filter(|one| one.lockouts > 0).count());
    let steps: u64 = seen.iter().map(|one| one.steps).sum();
    let frames: u64 = seen.iter().map(|one| one.frames).sum();
    println!(
        "invariants: {total} traces (seeds 0 to {}), {steps} steps, {frames} frames; {armed} % reached ARMED, \
         {tripped} % tripped from there, {driven} % drove above 10 % throttle, {rearmed} % armed again, \
         {locked} % were locked out",
        total - 1
    );
    assert!(armed >= 30, "only {armed} % of the traces reached ARMED");
    assert!(tripped >= 10, "only {tripped} % of the traces tripped from ARMED");
    assert!(driven >= 10, "only {driven} % of the traces moved");
    assert!(rearmed >= 1, "only {rearmed} % of the traces armed again");
}
