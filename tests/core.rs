//! The safety core, row by row of the fault catalogue, and the re-arm procedure step by step.
//!
//! Every test drives the public interface of the core through a world that is broken in one place.

mod common;

use common::oracle::Oracle;
use common::rig::{Content, Drive, Rig, quick};
use ocpcan::safety::buswatch::BusEvent;
use ocpcan::safety::core::CoreOptions;
use ocpcan::safety::faults::{Class, Fault, Faults};
use ocpcan::safety::input::{CanEvent, Command, Input, StateName, Stop};
use ocpcan::safety::settings::Settings;
use ocpcan::safety::transmit::Written;
use ocpcan::signals::source::{Pad, UserValue};
use ocpcan::sim::world::plan::{self, PlanOptions};
use ocpcan::time::{Duration, Instant};

const PLAIN: PlanOptions = PlanOptions {
    dead_man: false,
    operator_counter: false,
    permit: false,
    confirm: false,
    speed: true,
    tool: false,
};

const FULL: PlanOptions = PlanOptions {
    dead_man: true,
    operator_counter: true,
    permit: true,
    confirm: true,
    speed: true,
    tool: true,
};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Brings a fresh rig into this state.
fn rig_in(state: StateName) -> Rig {
    let mut rig = Rig::healthy(FULL, quick());
    rig.hold_dead_man(true);
    match state {
        StateName::Init => rig.step(1),
        StateName::Safe => rig.run(200),
        StateName::Standby => {
            rig.drive(0.5, 0.0, 0.0);
            rig.run(1_500);
        }
        StateName::Ready => rig.run(1_500),
        StateName::Armed => rig.arm(),
        StateName::Stopping => {
            rig.arm();
            drive_off(&mut rig);
            rig.trips.insert(Fault::OcpFault);
            rig.step(5);
        }
        StateName::Lockout => {
            rig.run(200);
            rig.events.push((0, CanEvent::Foreign));
            rig.step(5);
        }
        StateName::Diag => {
            rig.run(200);
            rig.requests.enter_diag = true;
            rig.step(5);
        }
    }
    assert_eq!(rig.state(), state, "{:?}", rig.core.status());
    rig
}

/// Throttle, some steering, and a vehicle that moves.
fn drive_off(rig: &mut Rig) {
    rig.drive(0.2, 0.5, 0.0);
    rig.run(600);
    rig.speed = 5.0;
    rig.run(100);
    assert_eq!(rig.state(), StateName::Armed, "{:?}", rig.core.status());
}

fn armed_and_driving(options: PlanOptions, settings: Settings) -> Rig {
    let mut rig = Rig::armed(options, settings);
    drive_off(&mut rig);
    rig
}

/// Steps of 1 ms until ARMED is left: the fault that is told, and how long it took.
fn until_trip(rig: &mut Rig, at_most_ms: u64) -> (Fault, Duration) {
    let start = rig.now;
    while rig.now.since(start) < ms(at_most_ms) {
        rig.step(1);
        if rig.state() != StateName::Armed {
            let trip = rig.facts.output.trip.expect("a trip");
            return (trip.fault, rig.now.since(start));
        }
    }
    panic!("no trip within {at_most_ms} ms: {:?}", rig.core.status());
}

/// No frame that moves anything leaves, and ARMED is not reached, however the operator tries.
fn never_arms(name: &str, rig: &mut Rig, seconds: u64, mut each: impl FnMut(&mut Rig, u64)) {
    let mut released_for = 0;
    for step in 0..seconds * 100 {
        let ready = rig.state() == StateName::Ready;
        released_for = if ready { released_for + 1 } else { 0 };
        rig.press_arm(released_for > 5);
        each(rig, step);
        rig.step(10);
        assert_ne!(rig.state(), StateName::Armed, "{name}");
        if let Some(frame) = rig.sent(plan::DRIVE_ID) {
            let drive = Drive::of(frame);
            assert!(!drive.enabled && drive.throttle == 0.0, "{name}: {drive:?}");
        }
    }
}

#[test]
fn every_fault_in_every_state_leads_where_the_table_says() {
    let mut cells = 0;
    for state in StateName::ALL {
        for fault in Fault::ALL {
            let mut rig = rig_in(state);
            rig.trips.insert(*fault);
            rig.step(5);
            let class_b = fault.class() == Class::B;
            let expected = match (state, class_b) {
                (StateName::Armed, true) if *fault == Fault::Panic => StateName::Lockout,
                // A panic does not wait for a stop profile.
                (StateName::Stopping, true) if *fault == Fault::Panic => StateName::Lockout,
                (StateName::Armed | StateName::Stopping, _) => StateName::Stopping,
                (_, true) | (StateName::Lockout, _) => StateName::Lockout,
                (StateName::Init, false) => StateName::Init,
                (StateName::Diag, false) => StateName::Diag,
                (StateName::Safe | StateName::Standby | StateName::Ready, false) => StateName::Safe,
            };
            assert_eq!(rig.state(), expected, "{fault:?} in {state:?}");
            for (sent, _) in &rig.facts.sent {
                assert!(sent.safe, "{fault:?} in {state:?}");
            }
            if state == StateName::Armed {
                let drive = Drive::of(rig.sent(plan::DRIVE_ID).expect("a frame in the very step"));
                assert!(!drive.enabled && drive.throttle == 0.0, "{fault:?}: {drive:?}");
                let trip = rig.core.status().cause.unwrap();
                assert_eq!((trip.fault, trip.from), (*fault, StateName::Armed));
            }
            // Where it ends, with nobody at the box.
            rig.run(3_000);
            let end = rig.state();
            if class_b || state == StateName::Lockout {
                assert_eq!(end, StateName::Lockout, "{fault:?} in {state:?}");
            } else {
                assert_ne!(end, StateName::Armed);
                assert_ne!(end, StateName::Lockout, "{fault:?} in {state:?}");
            }
            cells += 1;
        }
    }
    println!("{cells} cells of states and faults");
}

#[test]
fn i3_leaving_out_any_single_step_never_arms() {
    // The whole procedure does, with these very settings.
    let fresh = || {
        let mut rig = Rig::healthy(FULL, quick());
        rig.hold_dead_man(true);
        rig
    };
    let mut whole = fresh();
    whole.arm();

    never_arms("a fault every 400 ms", &mut fresh(), 8, |rig, step| {
        if step % 40 == 0 {
            rig.specials.push_back(Content::Fault);
        }
    });
    never_arms("messages at 16 Hz", &mut fresh(), 8, |rig, _| rig.message_every = ms(60));
    never_arms("an invalid message every 450 ms", &mut fresh(), 8, |rig, step| {
        if step % 45 == 0 {
            rig.specials.push_back(Content::Invalid);
        }
    });
    never_arms("the same ack over and over", &mut fresh(), 8, |rig, step| rig.ack_runs = step % 20 == 0);
    never_arms("no operator counter", &mut fresh(), 8, |rig, _| rig.counter_present = false);
    never_arms("a stuck operator counter", &mut fresh(), 8, |rig, _| rig.counter_runs = false);
    never_arms("no link", &mut fresh(), 8, |rig, _| {
        (rig.connected, rig.link) = (false, None);
    });
    never_arms("no echo", &mut fresh(), 8, |rig, _| rig.buses[0].moving = false);
    never_arms("no echo on the second bus", &mut fresh(), 8, |rig, _| rig.buses[1].moving = false);
    never_arms("echoes of frames that were given up", &mut fresh(), 8, |rig, _| {
        rig.buses[0].echo_after = ms(60);
    });
    never_arms("a queue that is full now and then", &mut fresh(), 8, |rig, step| {
        rig.buses[0].accepts = if step % 15 < 3 { Written::Full } else { Written::Accepted };
    });
    never_arms("no feedback", &mut fresh(), 8, |rig, _| rig.feedback = false);
    never_arms("moving", &mut fresh(), 8, |rig, _| rig.speed = 0.6);
    never_arms("a permit that is off", &mut fresh(), 8, |rig, _| rig.user[3] = UserValue::Bool(false));
    never_arms("no dead-man switch", &mut fresh(), 8, |rig, _| rig.hold_dead_man(false));
    never_arms("no gamepad", &mut fresh(), 8, |rig, _| rig.pad = None);
    never_arms("a stick off centre", &mut fresh(), 8, |rig, _| rig.drive(0.051, 0.0, 0.0));
    never_arms("throttle touched", &mut fresh(), 8, |rig, _| rig.drive(0.0, 0.021, 0.0));
    never_arms("brake touched", &mut fresh(), 8, |rig, _| rig.drive(0.0, 0.0, 0.021));
    never_arms("an actuator's switch pressed", &mut fresh(), 8, |rig, _| {
        rig.pad.as_mut().unwrap().buttons |= 1 << plan::TOOL_BIT;
    });
    never_arms("the stick moves every 200 ms", &mut fresh(), 8, |rig, step| {
        rig.drive(if step % 20 == 0 { 0.2 } else { 0.0 }, 0.0, 0.0);
    });
    never_arms("the stick moves while the switch is held", &mut fresh(), 8, |rig, _| {
        let pressed = rig.pad.unwrap().buttons >> plan::ARM_BIT & 1 == 1;
        rig.drive(if pressed { 0.1 } else { 0.0 }, 0.0, 0.0);
    });
    never_arms("never pressed", &mut fresh(), 8, |rig, _| rig.press_arm(false));
    never_arms("never released", &mut fresh(), 8, |rig, _| rig.press_arm(true));
    never_arms("held for 400 ms at a time", &mut fresh(), 8, |rig, step| rig.press_arm(step % 50 < 40));
    never_arms("a switch that appears already pressed", &mut fresh(), 8, |rig, step| {
        // Absent and pressed by turns: never seen released.
        let pad = Pad { buttons: 1 << plan::ARM_BIT | 1 << plan::DEAD_MAN_BIT, ..Pad::NEUTRAL };
        rig.pad = (step % 100 > 20).then_some(pad);
    });
}

#[test]
fn row_46_a_switch_that_appears_pressed_was_not_seen_released() {
    // Nothing but the arm switch is on the gamepad, so that its absence is no fault.
    let mut plan = plan::plan(PLAIN);
    plan.send.remove(0);
    plan.send[0].signals[0].kind = ocpcan::signals::plan::Kind::Enable;
    let mut rig = Rig::healthy(PLAIN, quick());
    let options =
        CoreOptions { settings: quick(), arms_per_minute: 10, counters: Vec::new(), locked_out: None };
    rig.core = ocpcan::safety::core::Core::new(plan, options);
    rig.pad = None;
    rig.run(3_000);
    assert_eq!(rig.state(), StateName::Ready, "{:?}", rig.core.status());
    rig.pad = Some(Pad { buttons: 1 << plan::ARM_BIT, ..Pad::NEUTRAL });
    rig.run(3_000);
    assert_eq!(rig.state(), StateName::Ready);
    rig.press_arm(false);
    rig.run(100);
    rig.press_arm(true);
    rig.run(700);
    assert_eq!(rig.state(), StateName::Armed);
}

#[test]
fn after_a_trip_nothing_arms_with_stick_and_switch_still_held() {
    for fault in Fault::ALL.iter().filter(|fault| fault.class() == Class::A) {
        let mut rig = armed_and_driving(FULL, quick());
        rig.press_arm(true);
        rig.trips.insert(*fault);
        rig.step(5);
        rig.speed = 0.0;
        for _ in 0..1_000 {
            rig.step(10);
            assert_ne!(rig.state(), StateName::Armed, "{fault:?}");
        }
        rig.drive(0.0, 0.0, 0.0);
        rig.run(5_000);
        assert_eq!(rig.state(), StateName::Ready, "{fault:?}: the switch was never released");
    }
}

#[test]
fn row_44_brake_beats_throttle_over_the_whole_grid() {
    let mut rig = Rig::armed(PLAIN, quick());
    let (mut judged, mut most) = (0, 0.0_f64);
    for throttle in 0..=20 {
        for brake in 0..=20 {
            let (throttle, brake) = (f64::from(throttle) / 20.0, f64::from(brake) / 20.0);
            // Without the brake until the throttle is open, then with it.
            rig.drive(0.0, throttle, 0.0);
            for step in 0..110 {
                if step == 80 {
                    rig.drive(0.0, throttle, brake);
                }
                rig.step(20);
                let Some(frame) = rig.sent(plan::DRIVE_ID) else { continue };
                let drive = Drive::of(frame);
                assert!(drive.brake <= 2.0 || drive.throttle == 0.0, "{throttle} {brake}: {drive:?}");
                judged += 1;
                most = most.max(drive.throttle);
            }
            let drive = Drive::of(rig.sent(plan::DRIVE_ID).unwrap());
            assert!((drive.brake - brake * 100.0).abs() <= 0.5, "{drive:?}");
            if brake > 0.02 {
                assert_eq!(drive.throttle, 0.0, "{throttle} {brake}");
            }
        }
    }
    assert_eq!(rig.state(), StateName::Armed);
    assert!(most > 50.0, "the throttle was never open: {most} %");
    println!("{judged} frames");
}

#[test]
fn row_44_a_brake_that_is_still_on_keeps_the_throttle_shut() {
    let mut rig = Rig::armed(PLAIN, quick());
    rig.run(3_000);
    rig.drive(0.0, 0.0, 1.0);
    rig.run(1_000);
    // Released at once by the operator, at 200 % per second by the limits.
    rig.drive(0.0, 1.0, 0.0);
    let mut both = 0;
    for _ in 0..50 {
        rig.step(20);
        let Some(frame) = rig.sent(plan::DRIVE_ID) else { continue };
        let drive = Drive::of(frame);
        both += u32::from(drive.brake > 2.0);
        assert!(drive.brake <= 2.0 || drive.throttle == 0.0, "{drive:?}");
    }
    assert!(both > 10, "the brake was released too fast to see anything: {both}");
}

#[test]
fn row_45_a_stick_from_end_to_end_moves_no_faster_than_its_limits() {
    let mut rig = Rig::armed(PLAIN, quick());
    rig.drive(-1.0, 0.0, 0.0);
    rig.run(2_000);
    let mut last = Drive::of(&last_drive(&mut rig));
    assert!((last.steer + plan::STEER_MAX).abs() < 0.2);
    rig.drive(1.0, 1.0, 0.0);
    let mut at = rig.now;
    let mut longest = 0;
    for _ in 0..600 {
        rig.step(5);
        let Some(frame) = rig.sent(plan::DRIVE_ID) else { continue };
        let drive = Drive::of(frame);
        let seconds = rig.now.since(at).as_secs_f64();
        assert!((drive.steer - last.steer).abs() <= plan::STEER_SLEW * seconds + 0.11, "{last:?} {drive:?}");
        assert!(drive.throttle - last.throttle <= plan::THROTTLE_UP * seconds + 0.51, "{last:?} {drive:?}");
        longest += u32::from(drive.steer < plan::STEER_MAX - 1.0);
        (last, at) = (drive, rig.now);
    }
    // 900 degrees at 600 degrees per second, a frame each 20 ms.
    assert!((73..=78).contains(&longest), "{longest} frames on the way");
    // Up slow, down fast: 100 % falls within a quarter of a second.
    rig.drive(1.0, 0.0, 0.0);
    rig.run(250);
    assert!(Drive::of(&last_drive(&mut rig)).throttle <= 1.0);
}

/// Steps until the next driving frame.
fn last_drive(rig: &mut Rig) -> ocpcan::can::Frame {
    for _ in 0..20 {
        rig.step(5);
        if let Some(frame) = rig.sent(plan::DRIVE_ID) {
            return *frame;
        }
    }
    panic!("no driving frame for 100 ms");
}

#[test]
fn row_46_and_47_the_operator_is_told_why_it_does_not_arm() {
    let mut rig = Rig::healthy(PLAIN, quick());
    rig.press_arm(true);
    rig.run(5_000);
    assert_eq!(rig.state(), StateName::Ready);
    assert_eq!(rig.core.status().checklist.next(), Some("release the arm switch"));
    rig.press_arm(false);
    rig.drive(0.3, 0.0, 0.0);
    rig.run(2_000);
    assert_eq!(rig.state(), StateName::Standby);
    assert_eq!(rig.core.status().checklist.next(), Some("release sticks, pedals and triggers"));
}

#[test]
fn transition_moves_at_half_the_rate_and_releases_at_full() {
    let mut settings = quick();
    settings.set_ms("transition_ms", 2_000).unwrap();
    let mut rig = Rig::armed(PLAIN, settings);
    let armed = rig.core.status().since;
    rig.drive(1.0, 1.0, 0.0);
    let mut before = None;
    while rig.now.since(armed) < ms(4_000) {
        rig.step(5);
        let Some(frame) = rig.sent(plan::DRIVE_ID) else { continue };
        let drive = Drive::of(frame);
        let age = rig.now.since(armed);
        if let Some((at, last)) = before.replace((rig.now, drive)) {
            let seconds = rig.now.since(at).as_secs_f64();
            let rate = (drive.throttle - last.throttle) / seconds;
            let limit = if age < ms(2_000) { plan::THROTTLE_UP / 2.0 } else { plan::THROTTLE_UP };
            assert!(rate <= limit + 0.5 / seconds, "{rate} at {age:?}");
        }
    }
    // 25 %/s for 2 s less the time in which the brake was released, then 50 %/s.
    let drive = before.unwrap().1;
    assert!((85.0..=100.0).contains(&drive.throttle), "{drive:?}");
}

#[test]
fn a_signal_that_waits_for_standstill_waits_and_no_actuator_does() {
    let mut rig = armed_and_driving(PLAIN, quick());
    rig.user[1] = UserValue::Number(2.0);
    rig.run(1_000);
    let mode = |rig: &mut Rig| {
        rig.run(60);
        for _ in 0..30 {
            rig.step(5);
            if let Some(frame) = rig.sent(plan::BODY_ID) {
                return frame.payload()[1] & 3;
            }
        }
        panic!("no body frame");
    };
    assert_eq!(mode(&mut rig), 0, "moving");
    rig.speed = 0.5;
    rig.run(60);
    assert_eq!(mode(&mut rig), 2, "standing");
    rig.speed = 5.0;
    rig.run(60);
    rig.user[1] = UserValue::Number(1.0);
    rig.run(100);
    assert_eq!(mode(&mut rig), 2);
    // A trip while moving: the mode stays, because changing it would be the danger.
    rig.trips.insert(Fault::OcpFault);
    rig.run(200);
    assert_eq!(mode(&mut rig), 2);

    // The same key on a throttle must not keep it open.
    let mut plan = plan::plan(PLAIN);
    plan.send[0].signals[1].at_standstill = true;
    let mut rig = Rig::healthy(PLAIN, quick());
    let options =
        CoreOptions { settings: quick(), arms_per_minute: 10, counters: Vec::new(), locked_out: None };
    rig.core = ocpcan::safety::core::Core::new(plan, options);
    rig.arm();
    drive_off(&mut rig);
    assert!(Drive::of(&last_drive(&mut rig)).throttle > 5.0);
    rig.trips.insert(Fault::OcpFault);
    rig.step(5);
    assert_eq!(Drive::of(&last_drive(&mut rig)).throttle, 0.0);
}

#[test]
fn stop_profiles_hold_ramp_and_end_at_the_safe_values() {
    let mut settings = quick();
    settings.set_ms("stopping_ms", 2_000).unwrap();
    let mut rig = armed_and_driving(PLAIN, settings);
    let before = Drive::of(&last_drive(&mut rig));
    assert!(before.enabled && before.throttle > 5.0 && before.steer > 50.0);
    rig.trips.insert(Fault::OcpFault);
    rig.step(1);
    let tripped = rig.now;
    let first = Drive::of(&last_drive(&mut rig));
    assert!(!first.enabled);
    assert_eq!((first.throttle, first.steer), (0.0, before.steer), "throttle safe at once, steering held");
    assert_eq!(rig.state(), StateName::Stopping);
    while rig.state() == StateName::Stopping {
        rig.step(5);
        assert!(rig.now.since(tripped) < ms(3_000), "STOPPING does not end");
        let Some(frame) = rig.sent(plan::DRIVE_ID) else { continue };
        let drive = Drive::of(frame);
        if rig.state() == StateName::Stopping {
            let ramp = (plan::BRAKE_RAMP * rig.now.since(tripped).as_secs_f64()).min(plan::BRAKE_SAFE);
            assert!((drive.brake - ramp).abs() <= 1.0, "{drive:?} where {ramp} is due");
            assert_eq!(drive.steer, before.steer);
        }
    }
    assert_eq!(rig.now.since(tripped).as_millis(), 2_000, "a moving vehicle uses the whole time");
    let end = Drive::of(&last_drive(&mut rig));
    assert_eq!((end.steer, end.throttle, end.brake), (0.0, 0.0, plan::BRAKE_SAFE));

    // At standstill it ends at once; a brake that is pressed harder than its safe value stays until then.
    let mut rig = armed_and_driving(PLAIN, settings);
    rig.drive(0.0, 0.0, 0.8);
    rig.run(500);
    rig.trips.insert(Fault::OcpFault);
    rig.run(500);
    assert_eq!(Drive::of(&last_drive(&mut rig)).brake, 80.0);
    rig.speed = 0.0;
    rig.run(50);
    assert_ne!(rig.state(), StateName::Stopping);
    assert_eq!(Drive::of(&last_drive(&mut rig)).brake, plan::BRAKE_SAFE);
}

#[test]
fn row_09_more_than_ten_arms_a_minute_lock_out_until_a_person_acknowledges() {
    let mut rig = Rig::healthy(PLAIN, quick());
    for arm in 0..10 {
        rig.arm();
        rig.trips.insert(Fault::OcpFault);
        rig.step(5);
        rig.run(50);
        assert_eq!(rig.state(), StateName::Safe, "{arm}");
    }
    assert!(rig.now.since(Instant::from_millis(1_000_000)) < Duration::from_secs(60));
    let mut released_for = 0;
    for _ in 0..1_000 {
        released_for = if rig.state() == StateName::Ready { released_for + 1 } else { 0 };
        rig.press_arm(released_for > 5);
        rig.step(10);
        assert_ne!(rig.state(), StateName::Armed);
    }
    assert_eq!(rig.state(), StateName::Lockout);
    let cause = rig.core.status().cause.unwrap();
    assert_eq!((cause.fault, cause.from), (Fault::TooManyArms, StateName::Ready));
    assert!(rig.core.status().lasting_lockout().is_some());
    rig.press_arm(false);
    rig.requests.acknowledge = true;
    rig.step(10);
    assert_eq!(rig.state(), StateName::Safe);
    rig.arm();

    // A restart of the process does not clear it.
    let options = CoreOptions {
        settings: quick(),
        arms_per_minute: 10,
        counters: Vec::new(),
        locked_out: Some(Fault::TooManyArms),
    };
    let mut rig = Rig::with(PLAIN, Instant::from_millis(1_000_000), options);
    rig.bus_up(0);
    rig.connect();
    rig.run(5_000);
    assert_eq!(rig.state(), StateName::Lockout);
    assert!(rig.core.status().lasting_lockout().is_some());
}

#[test]
fn a_lockout_outlives_the_process_with_its_cause_unless_it_was_a_panic() {
    for (fault, lasts) in [(Fault::ForeignWriter, true), (Fault::CanDead, true), (Fault::Panic, false)] {
        // A first cause of class A, which is what the operator is told, does not hide why it is locked.
        let mut rig = rig_in(StateName::Safe);
        rig.trips = fault.into();
        rig.step(5);
        assert_eq!(rig.state(), StateName::Lockout, "{fault:?}");
        assert_eq!(rig.core.status().lasting_lockout(), lasts.then_some(fault));

        let options = CoreOptions {
            settings: quick(),
            arms_per_minute: 10,
            counters: Vec::new(),
            locked_out: Some(fault),
        };
        let mut rig = Rig::with(PLAIN, Instant::from_millis(1_000_000), options);
        rig.bus_up(0);
        rig.run(5_000);
        assert_eq!((rig.state(), rig.core.status().lockout), (StateName::Lockout, Some(fault)));
    }
}

#[test]
fn lockout_is_left_by_acknowledgement_alone_and_not_while_its_cause_is_there() {
    let mut rig = rig_in(StateName::Lockout);
    rig.arm_attempt(5_000);
    assert_eq!(rig.state(), StateName::Lockout);
    rig.requests.acknowledge = true;
    rig.events.push((0, CanEvent::Foreign));
    rig.step(5);
    assert_eq!(rig.state(), StateName::Lockout, "the foreign writer is still there");
    rig.requests.acknowledge = true;
    rig.step(5);
    assert_eq!(rig.state(), StateName::Safe);
    rig.arm();
}

#[test]
fn diag_is_entered_at_standstill_only_and_left_by_motion() {
    let mut rig = Rig::healthy(PLAIN, quick());
    rig.speed = 3.0;
    rig.run(200);
    rig.requests.enter_diag = true;
    rig.step(5);
    assert_eq!(rig.state(), StateName::Safe);
    rig.speed = 0.0;
    rig.run(50);
    rig.requests.enter_diag = true;
    rig.step(5);
    assert_eq!(rig.state(), StateName::Diag);
    rig.arm_attempt(5_000);
    assert_eq!(rig.state(), StateName::Diag);
    rig.speed = 3.0;
    rig.run(50);
    assert_eq!(rig.state(), StateName::Safe);
    // A vehicle whose speed is not known cannot be proven to stand.
    let mut rig = Rig::healthy(PlanOptions { speed: false, ..PLAIN }, quick());
    rig.run(200);
    rig.requests.enter_diag = true;
    rig.step(5);
    assert_ne!(rig.state(), StateName::Diag);
    for state in
        [StateName::Standby, StateName::Ready, StateName::Armed, StateName::Stopping, StateName::Lockout]
    {
        let mut rig = rig_in(state);
        rig.requests.enter_diag = true;
        rig.step(5);
        assert_ne!(rig.state(), StateName::Diag, "{state:?}");
    }
}

#[test]
fn row_86_a_stop_request_runs_the_profile_then_three_proven_safe_frames() {
    let mut rig = armed_and_driving(PLAIN, quick());
    rig.request_stop(Stop::Profile);
    rig.step(5);
    assert_eq!(rig.state(), StateName::Stopping);
    let asked = rig.now;
    let mut after = 0;
    while !rig.facts.output.finished {
        rig.step(5);
        if rig.state() == StateName::Safe {
            after += rig.facts.sent.iter().filter(|(sent, _)| sent.message == 0).count();
        }
        assert!(rig.now.since(asked) < ms(900), "{:?}", rig.core.status());
    }
    assert!(after >= 3, "{after} safe frames");
    assert!(rig.now.since(asked) >= ms(500), "the profile was cut short");

    // The second request ends the profile.
    let mut rig = armed_and_driving(PLAIN, quick());
    rig.request_stop(Stop::Profile);
    rig.step(5);
    rig.request_stop(Stop::Now);
    let asked = rig.now;
    while !rig.facts.output.finished {
        rig.step(5);
        assert!(rig.now.since(asked) < ms(200));
    }

    // A dead bus cannot hold the process for longer than 200 ms.
    let mut rig = Rig::healthy(PLAIN, quick());
    rig.run(300);
    rig.buses[0].moving = false;
    rig.run(10);
    rig.request_stop(Stop::Profile);
    let asked = rig.now;
    while !rig.facts.output.finished {
        rig.step(5);
        assert!(rig.now.since(asked) < ms(1_000));
    }
    assert!((ms(195)..=ms(210)).contains(&rig.now.since(asked)), "{:?}", rig.now.since(asked));
}

#[test]
fn row_81_a_panic_elsewhere_is_answered_by_safe_values_at_once() {
    let mut rig = armed_and_driving(PLAIN, quick());
    rig.trips.insert(Fault::Panic);
    rig.step(1);
    assert_eq!(rig.state(), StateName::Lockout);
    let drive = Drive::of(&last_drive(&mut rig));
    assert_eq!((drive.steer, drive.throttle, drive.brake), (0.0, 0.0, plan::BRAKE_SAFE));
}

#[test]
fn on_command_frames_keep_their_gap_and_their_period() {
    let mut rig = Rig::healthy(PLAIN, quick());
    rig.run(1_500);
    rig.message_every = ms(2);
    let mut last: Option<Instant> = None;
    let mut frames = 0;
    for _ in 0..1_000 {
        rig.step(1);
        if rig.sent(plan::BODY_ID).is_some() {
            if let Some(last) = last.replace(rig.now) {
                assert!(rig.now.since(last) >= plan::COMMAND_GAP);
            }
            frames += 1;
        }
    }
    assert!((90..=100).contains(&frames), "{frames} in a second of commands");
    rig.streaming = false;
    rig.run(200);
    let mut last = None;
    let mut frames = 0;
    for _ in 0..1_000 {
        rig.step(1);
        if rig.sent(plan::BODY_ID).is_some() {
            if let Some(last) = last.replace(rig.now) {
                assert_eq!(rig.now.since(last), plan::BODY_PERIOD);
            }
            frames += 1;
        }
    }
    assert_eq!(frames, 20);
}

#[test]
fn a_trip_does_not_wait_for_the_gap_of_a_frame_on_command() {
    let mut plan = plan::plan(FULL);
    plan.send[2].mode = ocpcan::signals::plan::SendMode::OnCommand { min_gap: ms(35) };
    let mut rig = Rig::healthy(FULL, quick());
    let options =
        CoreOptions { settings: quick(), arms_per_minute: 10, counters: Vec::new(), locked_out: None };
    rig.core = ocpcan::safety::core::Core::new(plan, options);
    rig.arm();
    rig.pad.as_mut().unwrap().buttons |= 1 << plan::TOOL_BIT;
    for after in 0..35 {
        for _ in 0..100 {
            rig.step(1);
            if rig.sent(plan::TOOL_ID).is_some() {
                break;
            }
        }
        // The echo comes after 1 ms.
        rig.step(2);
        for _ in 0..after {
            rig.step(1);
            assert_eq!(rig.state(), StateName::Armed);
            if rig.sent(plan::TOOL_ID).is_some() {
                break;
            }
        }
        rig.step(2);
        rig.trips.insert(Fault::OcpFault);
        rig.step(1);
        let frame = rig.sent(plan::TOOL_ID).expect("the safe frame goes out in the step of the trip");
        assert_eq!(frame.payload()[1], 0);
        rig.arm();
        rig.pad.as_mut().unwrap().buttons |= 1 << plan::TOOL_BIT;
        // Ten arms a minute.
        rig.step_away(7_000);
    }
}

#[test]
fn nothing_due_is_asked_for_in_the_past_while_it_cannot_be_sent() {
    let mut rig = Rig::healthy(FULL, quick());
    rig.run(500);
    rig.message_every = ms(2);
    for _ in 0..500 {
        rig.step(1);
        // An on_command frame inside its gap is due after the gap, not now.
        let due = rig.core.poll_timeout(rig.now).unwrap();
        assert!(due > rig.now, "{due:?} at {:?}", rig.now);
    }
    // A bus that is down asks for nothing: the watchdog must not turn round for it at real-time priority.
    rig.bus_down(0, BusEvent::Down);
    rig.bus_down(1, BusEvent::Down);
    rig.run(1_000);
    assert_eq!(rig.core.poll_timeout(rig.now), None);
}

#[test]
fn i9_counters_run_on_across_trips_and_restarts() {
    let options =
        CoreOptions { settings: quick(), arms_per_minute: 15, counters: vec![200, 7, 999], locked_out: None };
    let mut rig = Rig::with(FULL, Instant::from_millis(1_000_000), options);
    rig.bus_up(0);
    rig.bus_up(1);
    rig.connect();
    let mut oracle = Oracle::new(FULL, quick());
    let mut frames = 0;
    let mut first = None;
    rig.hold_dead_man(true);
    for step in 0..2_000 {
        if step % 400 == 399 {
            rig.trips.insert(Fault::OcpFault);
        }
        let ready = rig.state() == StateName::Ready && rig.core.status().checklist.released;
        rig.press_arm(ready);
        rig.step(5);
        oracle.judge(&rig.facts).unwrap();
        if let Some(frame) = rig.sent(plan::DRIVE_ID) {
            first.get_or_insert_with(|| Drive::of(frame).counter);
            frames += 1;
        }
    }
    assert!(oracle.seen.arms >= 2 && frames > 400, "{:?}", oracle.seen);
    assert_eq!(first, Some(200 % 16), "a counter of another configuration still fits");
}

#[test]
fn i6_every_frame_keeps_its_period_in_every_state() {
    for state in StateName::ALL.into_iter().filter(|state| *state != StateName::Init) {
        let mut rig = rig_in(state);
        let mut last = rig.now;
        for _ in 0..60 {
            rig.step(5);
            if rig.state() != state {
                break;
            }
            if rig.sent(plan::DRIVE_ID).is_some() {
                last = rig.now;
            }
            assert!(rig.now.since(last) < plan::DRIVE_PERIOD * 2, "{state:?}");
        }
    }
}

#[test]
fn row_10_a_command_of_an_old_session_is_dropped() {
    let mut rig = Rig::armed(PLAIN, quick());
    let old = Command {
        liveness: ocpcan::safety::liveness::Liveness {
            session: rig.session.id().wrapping_sub(1),
            run: 100,
            received_at: rig.now,
            staleness: Duration::ZERO,
            ack_changed_at: rig.now,
            counter_alive_at: None,
        },
        latency_ms: 0.0,
        readings: ocpcan::signals::source::Readings { pad: Some(Pad::NEUTRAL), ..Default::default() },
    };
    let now = rig.now + ms(5);
    let input = Input {
        link: rig.link,
        command: Some(&old),
        ocp_beat: Some(now),
        can_beats: [Some(now); ocpcan::limits::BUSES],
        ..Input::IDLE
    };
    rig.core.step(now, &input);
    assert_eq!(rig.core.status().dropped_commands, 1);
}

#[test]
fn row_10_a_session_that_is_followed_by_another_at_once_trips() {
    // No bit of the ocp thread helps here: the core sees it by the session's number.
    let mut rig = armed_and_driving(PLAIN, quick());
    rig.connect();
    rig.step(10);
    assert_eq!(rig.state(), StateName::Stopping);
    assert_eq!(rig.core.status().cause.unwrap().fault, Fault::OcpDown);
}

#[test]
fn row_19_20_21_frozen_backward_and_replayed_acks() {
    let mut rig = armed_and_driving(PLAIN, quick());
    rig.ack_runs = false;
    let (fault, after) = until_trip(&mut rig, 400);
    assert_eq!(fault, Fault::AckFrozen);
    assert!(after <= ms(275), "{after:?}");

    let mut rig = armed_and_driving(PLAIN, quick());
    rig.streamer_offset_ms -= 10_000;
    let (fault, after) = until_trip(&mut rig, 50);
    assert_eq!(fault, Fault::AckBackwards);
    assert!(after <= ms(25));

    // Messages that come at their pace and are older each time: no gap shows it, only their age does.
    let mut rig = armed_and_driving(PLAIN, quick());
    rig.delay = ms(100);
    rig.run(1_000);
    assert_eq!(rig.state(), StateName::Armed, "98 ms more than the fastest are not stale");
    rig.delay = ms(150);
    let (fault, after) = until_trip(&mut rig, 50);
    assert_eq!((fault, after <= ms(25)), (Fault::Stale, true), "{after:?}");
    never_arms("old messages", &mut rig, 5, |rig, _| rig.drive(0.0, 0.0, 0.0));
}

#[test]
fn row_24_five_messages_a_second_trip_and_do_not_arm() {
    let mut rig = armed_and_driving(PLAIN, quick());
    rig.message_every = ms(200);
    let (fault, _) = until_trip(&mut rig, 400);
    assert_eq!(fault, Fault::OcpSilence);
    rig.speed = 0.0;
    never_arms("5 Hz", &mut rig, 8, |rig, _| rig.drive(0.0, 0.0, 0.0));
}

#[test]
fn row_25_26_28_one_fault_in_a_burst_trips_within_the_step() {
    let mut rig = armed_and_driving(PLAIN, quick());
    rig.message_every = Duration::from_micros(100);
    for _ in 0..20 {
        let at = rig.now;
        let message = rig.valid(at);
        rig.specials.push_back(message);
    }
    rig.specials.push_back(Content::Fault);
    let (fault, after) = until_trip(&mut rig, 50);
    assert_eq!(fault, Fault::OcpFault);
    assert!(after <= ms(25), "{after:?}");
}

#[test]
fn row_27_a_fault_that_flips_at_ten_hertz_stays_safe() {
    let mut rig = Rig::healthy(PLAIN, quick());
    never_arms("10 Hz", &mut rig, 20, |rig, step| {
        if step % 10 == 0 {
            rig.specials.push_back(Content::Fault);
        }
        assert!(step < 10 || rig.state() == StateName::Safe, "{:?}", rig.state());
    });
}

#[test]
fn row_29_to_32_controller_operator_and_latency() {
    let mut rig = armed_and_driving(PLAIN, quick());
    rig.pad = None;
    let (fault, after) = until_trip(&mut rig, 50);
    assert_eq!((fault, after <= ms(25)), (Fault::ControllerMissing, true));

    let counted = PlanOptions { operator_counter: true, ..PLAIN };
    let mut rig = armed_and_driving(counted, quick());
    rig.counter_runs = false;
    let (fault, after) = until_trip(&mut rig, 400);
    assert_eq!((fault, after <= ms(275)), (Fault::OperatorFrozen, true), "{after:?}");

    for jump in [-1.0, 26.0, 100.0] {
        let mut rig = armed_and_driving(counted, quick());
        rig.counter = (rig.counter + jump).rem_euclid(256.0);
        rig.counter_runs = false;
        let (fault, after) = until_trip(&mut rig, 50);
        assert_eq!((fault, after <= ms(25)), (Fault::OperatorCounter, true), "{jump}");
    }
    let mut rig = armed_and_driving(counted, quick());
    rig.counter_present = false;
    assert_eq!(until_trip(&mut rig, 50).0, Fault::OperatorCounter);

    // Latency: full up to 200 ms, then less, then a trip.
    for (latency, share) in [(0.0, 1.0), (200.0, 1.0), (250.0, 0.8), (400.0, 0.5), (500.0, 0.4)] {
        let mut rig = Rig::armed(PLAIN, quick());
        rig.latency_ms = latency;
        rig.drive(0.0, 1.0, 0.0);
        rig.run(4_000);
        let drive = Drive::of(&last_drive(&mut rig));
        assert!((drive.throttle - 100.0 * share).abs() <= 0.5, "{latency}: {drive:?}");
    }
    for latency in [500.1, f64::INFINITY, f64::NAN] {
        let mut rig = armed_and_driving(PLAIN, quick());
        rig.latency_ms = latency;
        assert_eq!(until_trip(&mut rig, 50).0, Fault::LatencyHigh, "{latency}");
    }
}

#[test]
fn row_30_without_a_counter_there_is_no_throttle_above_the_cap() {
    let mut rig = Rig::armed(PLAIN, quick());
    rig.drive(0.0, 1.0, 0.0);
    rig.run(2_000);
    rig.speed = plan::SPEED_CAP;
    rig.run(100);
    assert!(Drive::of(&last_drive(&mut rig)).throttle > 50.0);
    rig.speed = plan::SPEED_CAP + 0.1;
    rig.run(400);
    assert_eq!(Drive::of(&last_drive(&mut rig)).throttle, 0.0);
    assert_eq!(rig.state(), StateName::Armed);
}

#[test]
fn row_50_51_53_a_bus_that_goes_and_comes_back_within_one_step_trips() {
    type Loss = fn(&mut Rig);
    let losses: [(&str, Loss, Fault); 5] = [
        ("down", |rig| rig.bus_down(0, BusEvent::Down), Fault::BusDown),
        ("gone", |rig| rig.bus_down(0, BusEvent::Gone), Fault::BusDown),
        (
            "down and up",
            |rig| {
                rig.bus_down(0, BusEvent::Down);
                rig.bus_up(0);
            },
            Fault::BusDown,
        ),
        ("bus-off", |rig| rig.bus_off(0), Fault::BusOff),
        (
            "bus-off and restarted",
            |rig| {
                rig.bus_off(0);
                rig.bus_restarted(0);
            },
            Fault::BusOff,
        ),
    ];
    for (name, loss, expected) in losses {
        let mut rig = armed_and_driving(PLAIN, quick());
        loss(&mut rig);
        let (fault, after) = until_trip(&mut rig, 50);
        assert_eq!((fault, after <= ms(25)), (expected, true), "{name}");
        // The first frame after it is back is safe and comes at once.
        rig.run(50);
        if !rig.buses[0].up {
            rig.bus_up(0);
        }
        if rig.buses[0].off {
            rig.bus_restarted(0);
        }
        rig.step(5);
        let frame = rig.sent(plan::DRIVE_ID).copied();
        let drive = Drive::of(&frame.unwrap_or_else(|| last_drive(&mut rig)));
        assert!(!drive.enabled && drive.throttle == 0.0, "{name}");
    }
}

#[test]
fn row_52_and_55_a_missing_or_late_echo_trips_within_75_ms() {
    let mut rig = armed_and_driving(PLAIN, quick());
    rig.buses[0].moving = false;
    let (fault, after) = until_trip(&mut rig, 100);
    assert_eq!((fault, after <= ms(75)), (Fault::EchoLost, true), "{after:?}");
    // While nothing leaves, one frame per id and echo time is all that is stored.
    let mut offered = 0;
    for _ in 0..100 {
        rig.step(5);
        offered += rig.facts.sent.iter().filter(|(sent, _)| sent.message == 0).count();
    }
    assert!(offered <= 11, "{offered} frames in 500 ms");
    rig.buses[0].moving = true;
    rig.step(5);
    assert!(!Drive::of(&last_drive(&mut rig)).enabled);

    let mut rig = armed_and_driving(PLAIN, quick());
    rig.buses[0].echo_after = ms(45);
    rig.run(1_000);
    assert_eq!(rig.state(), StateName::Armed, "45 ms are late and not lost");
    rig.buses[0].echo_after = ms(55);
    assert_eq!(until_trip(&mut rig, 150).0, Fault::EchoLost);
}

#[test]
fn row_53_bus_off_asks_for_a_restart_and_locks_out_at_the_fourth() {
    let mut rig = Rig::healthy(PLAIN, quick());
    rig.run(500);
    let mut asked = 0;
    for round in 0..4 {
        rig.bus_off(0);
        for _ in 0..60 {
            rig.step(5);
            asked += u32::from(rig.facts.output.restart == Some(0));
            assert!(rig.core.status().faults.contains(Fault::BusOff), "it is told as long as it lasts");
        }
        rig.bus_restarted(0);
        rig.run(200);
        assert_eq!(rig.state() == StateName::Lockout, round == 3, "{round}");
    }
    assert_eq!(asked, 4);
    // A minute later, a person has looked: a bus-off is answered again.
    rig.run(61_000);
    rig.requests.acknowledge = true;
    rig.step(5);
    assert_eq!(rig.state(), StateName::Safe);
    rig.bus_off(0);
    let mut asked = 0;
    for _ in 0..60 {
        rig.step(5);
        asked += u32::from(rig.facts.output.restart == Some(0));
    }
    assert_eq!(asked, 1);
}

#[test]
fn row_53_a_link_that_comes_up_long_after_a_bus_off_is_not_dead() {
    let mut rig = Rig::healthy(PLAIN, quick());
    rig.run(500);
    rig.bus_off(0);
    rig.run(150);
    rig.bus_down(0, BusEvent::Down);
    rig.run(3_000);
    rig.bus_up(0);
    rig.run(500);
    assert_eq!(rig.state(), StateName::Safe, "{:?}", rig.core.status());
    rig.arm();
}

#[test]
fn row_54_a_driver_that_accepts_and_sends_nothing_ends_in_lockout() {
    // After a restart: one second.
    let mut rig = Rig::healthy(PLAIN, quick());
    rig.run(500);
    rig.bus_off(0);
    rig.run(150);
    rig.buses[0].moving = false;
    rig.bus_restarted(0);
    rig.run(990);
    assert_eq!(rig.state(), StateName::Safe);
    rig.run(100);
    assert_eq!((rig.state(), rig.core.status().cause.unwrap().fault), (StateName::Lockout, Fault::CanDead));
    // Without one: ten seconds.
    let mut rig = armed_and_driving(PLAIN, quick());
    rig.buses[0].moving = false;
    rig.run(9_900);
    assert_ne!(rig.state(), StateName::Lockout);
    rig.run(300);
    assert_eq!(rig.state(), StateName::Lockout);
    assert_eq!(rig.core.status().cause.unwrap().fault, Fault::EchoLost, "the first cause is kept");
}

#[test]
fn row_57_a_foreign_writer_locks_out() {
    let mut rig = armed_and_driving(PLAIN, quick());
    rig.events.push((0, CanEvent::Foreign));
    let (fault, after) = until_trip(&mut rig, 50);
    assert_eq!((fault, after <= ms(25)), (Fault::ForeignWriter, true));
    rig.run(1_000);
    assert_eq!(rig.state(), StateName::Lockout);
}

#[test]
fn row_59_60_61_feedback_damaged_frozen_missing_and_contradicting() {
    let mut rig = armed_and_driving(PLAIN, quick());
    rig.feedback_every = ms(10);
    rig.feedback_damaged = true;
    let (fault, after) = until_trip(&mut rig, 200);
    assert_eq!((fault, after <= ms(70)), (Fault::FeedbackBad, true), "{after:?}");
    for stop in [|rig: &mut Rig| rig.feedback = false, |rig: &mut Rig| rig.feedback_counter_runs = false] {
        let mut rig = armed_and_driving(PLAIN, quick());
        stop(&mut rig);
        let (fault, after) = until_trip(&mut rig, 200);
        assert_eq!((fault, after <= ms(125)), (Fault::FeedbackLost, true), "{after:?}");
    }
    let confirmed = PlanOptions { confirm: true, ..PLAIN };
    let mut rig = armed_and_driving(confirmed, quick());
    rig.steer_actual = Some(-400.0);
    let (fault, after) = until_trip(&mut rig, 500);
    assert_eq!((fault, after <= ms(350)), (Fault::Contradiction, true), "{after:?}");
    assert!(after >= ms(300));
    rig.run(1_000);
    assert_eq!(rig.state(), StateName::Lockout);
    // An impossible value is not believed, so it grows old; one that stays is a broken vehicle.
    let mut rig = armed_and_driving(PLAIN, quick());
    rig.speed = 300.0;
    assert_eq!(until_trip(&mut rig, 200).0, Fault::FeedbackLost);
    rig.run(150);
    assert!(!rig.core.status().faults.contains(Fault::Contradiction), "not before 300 ms");
    rig.run(200);
    assert!(rig.core.status().faults.contains(Fault::Contradiction));
    // The stop profile goes first.
    rig.run(5_000);
    assert_eq!(rig.state(), StateName::Lockout);
    assert_eq!(rig.core.status().lockout, Some(Fault::Contradiction));
}

#[test]
fn row_61_one_believed_frame_or_a_beginning_while_parked_is_no_broken_vehicle() {
    // Impossible for 250 ms, then fine: the trip stays, LOCKOUT does not come.
    let mut rig = armed_and_driving(PLAIN, quick());
    rig.speed = 300.0;
    rig.run(250);
    rig.speed = 0.0;
    rig.run(50);
    rig.speed = 300.0;
    rig.run(2_000);
    assert_ne!(rig.state(), StateName::Lockout, "began anew outside ARMED");
    // Before it was ever armed: it does not arm, and recovers without a person.
    let mut rig = Rig::healthy(PLAIN, quick());
    rig.run(100);
    rig.speed = 300.0;
    rig.run(5_000);
    assert_eq!(rig.state(), StateName::Safe);
    rig.speed = 0.0;
    rig.arm();
    assert_eq!(rig.state(), StateName::Armed);
    // A sender that fell silent after one impossible frame proves no more than silence.
    let mut rig = armed_and_driving(PLAIN, quick());
    rig.speed = 300.0;
    rig.run(40);
    rig.feedback = false;
    rig.run(2_000);
    assert_ne!(rig.state(), StateName::Lockout);
}

#[test]
fn row_65_an_interface_without_proof_never_arms() {
    let mut rig = Rig::healthy(PLAIN, quick());
    rig.run(100);
    never_arms("no proof", &mut rig, 8, |rig, step| {
        if step == 0 {
            rig.events.push((0, CanEvent::Bus(BusEvent::Up { proof: false })));
        }
    });
    assert!(rig.core.status().faults.contains(Fault::NoProof));
}

#[test]
fn row_69_and_75_an_own_gap_trips_and_the_second_locks_out() {
    let mut rig = armed_and_driving(PLAIN, quick());
    rig.step(50);
    assert_eq!(rig.state(), StateName::Armed, "50 ms are allowed");
    rig.step(51);
    assert_eq!(rig.state(), StateName::Stopping);
    assert!(!Drive::of(rig.sent(plan::DRIVE_ID).unwrap()).enabled, "the first frame on resume is safe");
    rig.speed = 0.0;
    rig.run(1_000);
    rig.arm();
    rig.step(200);
    rig.run(600);
    assert_eq!(rig.state(), StateName::Lockout);
    assert_eq!(rig.core.status().cause.unwrap().fault, Fault::DeadlineMissed);

    // A minute apart they are two accidents, not a habit.
    let mut rig = armed_and_driving(PLAIN, quick());
    rig.step(100);
    rig.speed = 0.0;
    rig.run(61_000);
    rig.arm();
    rig.step(100);
    rig.run(600);
    assert_ne!(rig.state(), StateName::Lockout);
}

#[test]
fn row_74_the_core_arms_drives_and_trips_at_every_edge_of_time() {
    let edges = [
        0,
        u64::from(u32::MAX) * 1_000_000 - 2_000_000_000,
        u64::from(u32::MAX) - 2_000_000_000,
        i64::MAX.cast_unsigned() - 2_000_000_000,
        u64::MAX - 60_000_000_000,
    ];
    for start in edges {
        let options = CoreOptions {
            settings: quick(),
            arms_per_minute: 10,
            counters: vec![15, 0, 255],
            locked_out: None,
        };
        let mut rig = Rig::with(FULL, Instant::from_nanos(start), options);
        // The Streamer's own clock is small here: its acks must not become negative.
        rig.bus_up(0);
        rig.bus_up(1);
        rig.connect();
        rig.arm();
        drive_off(&mut rig);
        rig.streaming = false;
        let (fault, after) = until_trip(&mut rig, 200);
        assert_eq!((fault, after <= ms(125)), (Fault::OcpSilence, true), "{start}: {after:?}");
    }
    // At the very end of time the clock stands still: whatever happens, nothing panics and nothing moves.
    let options =
        CoreOptions { settings: quick(), arms_per_minute: 10, counters: Vec::new(), locked_out: None };
    let mut rig = Rig::with(FULL, Instant::from_nanos(u64::MAX - 1_000_000_000), options);
    rig.bus_up(0);
    rig.bus_up(1);
    rig.streaming = false;
    rig.feedback = false;
    for _ in 0..1_000 {
        let now = rig.now + ms(5);
        rig.core.step(now, &Input::IDLE);
        rig.now = now;
        if let Some(sent) = rig.core.poll_transmit(now, 0) {
            rig.core.handle_written(now, &sent, Written::Accepted);
            assert!(sent.safe);
        }
    }
}

#[test]
fn row_83_a_reader_that_hangs_trips_by_its_stamp() {
    let mut rig = armed_and_driving(PLAIN, quick());
    rig.ocp_runs = false;
    let (fault, after) = until_trip(&mut rig, 100);
    assert_eq!((fault, after <= ms(75)), (Fault::OcpStalled, true), "{after:?}");
    let mut rig = armed_and_driving(PLAIN, quick());
    rig.can_runs[0] = false;
    let (fault, after) = until_trip(&mut rig, 100);
    assert_eq!((fault, after <= ms(75)), (Fault::CanStalled, true), "{after:?}");
    // One that never ran has not passed the check.
    let mut rig = Rig::healthy(PLAIN, quick());
    rig.can_runs[0] = false;
    never_arms("a can thread that never ran", &mut rig, 5, |_, _| {});
    assert!(rig.core.status().faults.contains(Fault::CanStalled));
}

#[test]
fn row_88_every_start_is_safe_and_says_what_is_missing() {
    let mut rig = Rig::new(FULL, quick(), Instant::from_millis(1_000_000));
    rig.step(5);
    assert_eq!(rig.state(), StateName::Init);
    assert!(rig.facts.sent.is_empty(), "nothing is sent in INIT");
    rig.run(200);
    assert_eq!(rig.state(), StateName::Safe);
    assert!(rig.facts.sent.is_empty(), "no bus is up");
    for fault in [Fault::OcpDown, Fault::BusDown, Fault::FeedbackLost] {
        assert!(rig.core.status().faults.contains(fault), "{fault:?}");
    }
    assert_eq!(rig.core.status().checklist.next(), Some("wait for the connection to OCP"));
    rig.bus_up(0);
    rig.run(60);
    assert!(!Drive::of(&last_drive(&mut rig)).enabled);
}

#[test]
fn dead_man_arms_only_while_held_and_trips_when_let_go() {
    let options = PlanOptions { dead_man: true, ..PLAIN };
    let mut rig = Rig::healthy(options, quick());
    let mut oracle = Oracle::new(options, quick());
    for step in 0..800 {
        rig.hold_dead_man(step > 600);
        let ready = rig.state() == StateName::Ready && rig.core.status().checklist.released;
        rig.press_arm(ready);
        rig.step(5);
        oracle.judge(&rig.facts).unwrap();
        assert!(step > 600 || rig.state() != StateName::Armed);
    }
    assert_eq!(rig.state(), StateName::Armed, "held at last");
    rig.hold_dead_man(false);
    let (fault, after) = until_trip(&mut rig, 50);
    assert_eq!((fault, after <= ms(25)), (Fault::DeadMan, true));
}

#[test]
fn a_trip_is_proven_by_the_echo_of_every_actuator_frame() {
    let mut rig = armed_and_driving(FULL, quick());
    rig.buses[1].echo_after = ms(9);
    rig.run(100);
    rig.trips.insert(Fault::OcpFault);
    rig.step(1);
    assert!(rig.core.is_proving(rig.now));
    let mut proven = None;
    for _ in 0..60 {
        rig.step(1);
        if let Some(reaction) = rig.facts.output.reaction {
            proven = Some(reaction);
            break;
        }
    }
    let proven = proven.unwrap();
    assert_eq!(proven.trip.fault, Fault::OcpFault);
    assert!(proven.time >= ms(9) && proven.time <= ms(25), "{:?}", proven.time);
}

#[test]
fn i10_the_first_cause_is_told_until_the_procedure_is_complete() {
    let mut rig = armed_and_driving(PLAIN, quick());
    rig.streaming = false;
    rig.run(300);
    rig.feedback = false;
    rig.run(600);
    let first = rig.core.status().cause.unwrap();
    assert_eq!(first.fault, Fault::OcpSilence);
    rig.bus_down(0, BusEvent::Down);
    rig.run(100);
    assert_eq!(rig.core.status().cause, Some(first));
    rig.bus_up(0);
    (rig.streaming, rig.feedback, rig.speed) = (true, true, 0.0);
    rig.drive(0.0, 0.0, 0.0);
    rig.run(800);
    assert_eq!(rig.core.status().cause, Some(first), "told until it arms");
    rig.arm();
    assert_eq!(rig.core.status().cause, None);
}

#[test]
fn an_unpackable_value_is_never_sent_and_locks_out() {
    let mut plan = plan::plan(PLAIN);
    // The envelope allows what the bits cannot hold: the configuration refuses this, the core does not rely on it.
    plan.send[0].signals[1].max = 1_000.0;
    plan.send[0].signals[1].slew_up = None;
    plan.send[0].signals[1].transform =
        ocpcan::signals::transform::Transform::one_sided(-1.0, 1.0).output(0.0, 1_000.0);
    let mut rig = Rig::healthy(PLAIN, quick());
    let options =
        CoreOptions { settings: quick(), arms_per_minute: 10, counters: Vec::new(), locked_out: None };
    rig.core = ocpcan::safety::core::Core::new(plan, options);
    rig.arm();
    rig.run(1_000);
    rig.speed = 5.0;
    rig.run(50);
    rig.drive(0.0, 0.5, 0.0);
    rig.run(50);
    assert_eq!(rig.state(), StateName::Stopping);
    assert_eq!(rig.core.status().cause.unwrap().fault, Fault::EncodingCheck);
    assert_eq!(Drive::of(&last_drive(&mut rig)).throttle, 0.0);
    rig.speed = 0.0;
    rig.run(600);
    assert_eq!(rig.state(), StateName::Lockout);
}

#[test]
fn limits_that_make_no_sense_do_not_panic() {
    for (low, high, rate) in
        [(1.0, -1.0, -5.0), (f64::NAN, f64::NAN, f64::NAN), (0.0, f64::INFINITY, f64::INFINITY)]
    {
        let mut plan = plan::plan(PLAIN);
        for signal in &mut plan.send[0].signals {
            (signal.min, signal.max) = (low, high);
            (signal.slew_up, signal.slew_down) = (Some(rate), Some(rate));
            signal.stop = ocpcan::signals::plan::StopProfile::Ramp { per_s: rate };
        }
        let mut rig = Rig::healthy(PLAIN, quick());
        let options =
            CoreOptions { settings: quick(), arms_per_minute: 10, counters: Vec::new(), locked_out: None };
        rig.core = ocpcan::safety::core::Core::new(plan, options);
        for step in 0..600 {
            rig.press_arm(rig.state() == StateName::Ready && step % 100 > 10);
            if rig.state() == StateName::Armed {
                rig.drive(1.0, 1.0, 1.0);
                if step % 50 == 0 {
                    rig.trips = Faults::from(Fault::OcpFault);
                }
            }
            rig.step(10);
        }
    }
}

#[test]
fn a_throttle_is_safe_in_the_first_frame_whatever_its_stop_profile_says() {
    use ocpcan::signals::plan::StopProfile;
    for profile in [StopProfile::Hold, StopProfile::Ramp { per_s: 1.0 }] {
        let mut plan = plan::plan(PLAIN);
        plan.send[0].signals[1].stop = profile;
        let mut rig = Rig::healthy(PLAIN, quick());
        let options =
            CoreOptions { settings: quick(), arms_per_minute: 10, counters: Vec::new(), locked_out: None };
        rig.core = ocpcan::safety::core::Core::new(plan, options);
        rig.arm();
        drive_off(&mut rig);
        assert!(Drive::of(&last_drive(&mut rig)).throttle > 5.0);
        rig.trips.insert(Fault::OcpFault);
        rig.step(1);
        assert_eq!(Drive::of(rig.sent(plan::DRIVE_ID).unwrap()).throttle, 0.0, "{profile:?}");
    }
}

#[test]
fn a_turn_that_comes_late_does_not_make_up_for_the_time() {
    let mut settings = quick();
    settings.set_ms("own_gap_ms", 100).unwrap();
    let mut rig = Rig::armed(PLAIN, settings);
    rig.run(1_000);
    rig.drive(1.0, 0.0, 0.0);
    rig.step(10);
    let before = Drive::of(&last_drive(&mut rig)).steer;
    rig.message_every = ms(5);
    rig.step(95);
    assert_eq!(rig.state(), StateName::Armed);
    let moved = Drive::of(rig.sent(plan::DRIVE_ID).unwrap()).steer - before;
    // Half of the 95 ms, at 600 degrees per second.
    assert!(moved > 0.0 && moved <= plan::STEER_SLEW * 0.05 + 0.2, "{moved}");
}

#[test]
fn what_the_operator_asks_for_beyond_the_limits_is_not_sent() {
    let mut plan = plan::plan(PLAIN);
    // The lever reaches 0 to 100, the signal may carry 0 to 50.
    plan.send[0].signals[1].max = 50.0;
    let mut rig = Rig::healthy(PLAIN, quick());
    let options =
        CoreOptions { settings: quick(), arms_per_minute: 10, counters: Vec::new(), locked_out: None };
    rig.core = ocpcan::safety::core::Core::new(plan, options);
    // A hundredth of the range beyond its end is arithmetic of the sender.
    rig.user[1] = UserValue::Number(2.015);
    rig.arm();
    rig.drive(0.0, 1.0, 0.0);
    let mut modes = 0;
    for _ in 0..800 {
        rig.step(5);
        if let Some(frame) = rig.sent(plan::DRIVE_ID) {
            assert!(Drive::of(frame).throttle <= 50.0);
        }
        if let Some(frame) = rig.sent(plan::BODY_ID) {
            assert_eq!(frame.payload()[1] & 3, 2);
            modes += 1;
        }
    }
    assert!(modes > 0 && Drive::of(&last_drive(&mut rig)).throttle == 50.0);
}

#[test]
fn a_number_of_the_user_data_that_its_signal_cannot_say_trips_and_is_not_made_one_that_it_can() {
    for number in [3.0, 2.03, -0.03, -1.0, 1e300, -1e300] {
        let mut rig = armed_and_driving(PLAIN, quick());
        rig.user[1] = UserValue::Number(number);
        rig.run(30);
        let cause = rig.core.status().cause.unwrap();
        assert_eq!((cause.fault, cause.from), (Fault::SourceMissing, StateName::Armed), "{number}");
    }
    // Between two named values there is none.
    for (number, trips) in [(1.5, true), (1.0, false), (1.000_000_1, false), (1.01, true)] {
        let mut plan = plan::plan(PLAIN);
        plan.send[1].signals[1].named = true;
        assert_eq!(plan.send[1].signals[1].name, "MODE");
        let envelope = ocpcan::safety::envelope::Envelope::new(&plan);
        let mut readings =
            ocpcan::signals::source::Readings { pad: Some(Pad::NEUTRAL), ..Default::default() };
        readings.user[1] = UserValue::Number(number);
        assert_eq!(envelope.source_missing(&readings), trips, "{number}");
    }
}

#[test]
fn a_number_is_judged_as_the_signal_gets_it() {
    let missing = |change: &dyn Fn(&mut ocpcan::signals::plan::SignalPlan), number: f64| {
        let mut plan = plan::plan(PLAIN);
        change(&mut plan.send[1].signals[1]);
        let envelope = ocpcan::safety::envelope::Envelope::new(&plan);
        let mut readings =
            ocpcan::signals::source::Readings { pad: Some(Pad::NEUTRAL), ..Default::default() };
        readings.user[1] = UserValue::Number(number);
        envelope.source_missing(&readings)
    };
    // Named values 0 and 100, chosen by 0 and 1: the 1 is not in the signal's unit.
    let switch = |signal: &mut ocpcan::signals::plan::SignalPlan| {
        signal.named = true;
        signal.codec.factor = 50.0;
        signal.transform = ocpcan::signals::transform::Transform::switch(0.0, 100.0);
        signal.max = 100.0;
    };
    assert!(!missing(&switch, 1.0) && !missing(&switch, 0.0) && missing(&switch, 100.0));
    // Mirrored: 0 to -2 becomes 0 to 2.
    let mirrored = |signal: &mut ocpcan::signals::plan::SignalPlan| {
        signal.transform = signal.transform.inverted();
    };
    assert!(!missing(&mirrored, -2.0) && missing(&mirrored, 2.0) && missing(&mirrored, -3.0));
}

#[test]
fn a_frame_that_does_not_decode_to_what_was_meant_is_never_sent() {
    let mut plan = plan::plan(PLAIN);
    // Brake and throttle share bits: the configuration refuses it, the core does not rely on that.
    plan.send[0].signals[2].codec.start = 20;
    let mut rig = Rig::healthy(PLAIN, quick());
    let options =
        CoreOptions { settings: quick(), arms_per_minute: 10, counters: Vec::new(), locked_out: None };
    rig.core = ocpcan::safety::core::Core::new(plan, options);
    for _ in 0..200 {
        rig.step(5);
        assert!(rig.sent(plan::DRIVE_ID).is_none());
    }
    assert_eq!(rig.state(), StateName::Lockout);
    assert_eq!(rig.core.status().cause.unwrap().fault, Fault::EncodingCheck);
}

#[test]
fn the_row_of_proven_frames_starts_anew_after_a_loss() {
    let losses: [fn(&mut Rig); 3] = [
        |rig| {
            rig.bus_down(0, BusEvent::Down);
            rig.bus_up(0);
        },
        |rig| {
            rig.buses[0].moving = false;
            rig.run(120);
            rig.buses[0].moving = true;
        },
        |rig| {
            rig.buses[0].accepts = Written::Full;
            rig.run(30);
            rig.buses[0].accepts = Written::Accepted;
        },
    ];
    for (number, lose) in losses.into_iter().enumerate() {
        let mut rig = Rig::healthy(PLAIN, quick());
        // Something else keeps it in SAFE, where a loss is no trip.
        rig.feedback = false;
        rig.run(1_000);
        assert!(rig.core.status().checklist.can, "{number}");
        lose(&mut rig);
        rig.run(100);
        assert!(!rig.core.status().checklist.can, "{number}: five frames cannot be ten");
        rig.run(200);
        assert!(rig.core.status().checklist.can, "{number}");
    }
}

#[test]
fn the_proof_for_the_next_arming_is_newer_than_the_trip() {
    for state in [StateName::Standby, StateName::Ready] {
        let mut rig = rig_in(state);
        assert!(rig.core.status().checklist.can);
        rig.trips.insert(Fault::OcpFault);
        rig.step(5);
        rig.run(100);
        assert!(!rig.core.status().checklist.can, "{state:?}: five frames cannot be ten");
        rig.run(300);
        assert!(rig.core.status().checklist.can);
    }
}
