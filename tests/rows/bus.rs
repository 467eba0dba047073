//! Rows of the CAN bus, on the built-in one. The same is driven on real interfaces by `tests/vm`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ocpcan::can::{Frame, Id};
use ocpcan::io::canbus::{Fault as BusFault, Port, PortOptions};
use ocpcan::safety::faults::Fault;
use ocpcan::safety::input::StateName;
use ocpcan::sim::ocp::Options;

use super::rig::{Drive, Rig, crc8_j1850, drive_id, wait_for};

fn set(rig: &Rig, fault: BusFault) {
    rig.road.hub.set(fault).unwrap();
}

/// Trips on a bus that carries nothing, ends the harm, and expects at most `stale` frames of the old command and then
/// safe ones.
fn expect_trip_then_safe(rig: &mut Rig, fault: Fault, harm: BusFault, heal: BusFault, stale: usize) {
    rig.trip(fault, |rig| set(rig, harm), |rig| set(rig, heal));
    rig.wait_until("the operator is told", |rig| rig.told()["state"] != "ARMED");
    let from = rig.road.count();
    set(rig, heal);
    rig.road.wait_count(from + 25);
    let sent = rig.road.sent();
    let old = sent.iter().skip(from).take_while(|drive| !drive.is_safe()).count();
    assert!(old <= stale, "{old} old frames: {:?}", &sent[from..]);
    assert!(sent.iter().skip(from + old).all(Drive::is_safe), "{:?}", &sent[from..]);
    rig.expect_still_safe();
}

#[test]
fn row_49_a_missing_interface_is_waited_for() {
    let mut rig = Rig::with(Options::default(), |text| {
        let line = text.lines().find(|line| line.starts_with("interface = ")).unwrap().to_owned();
        text.replace(&line, "interface = \"nonesuch0\"")
    });
    rig.wait_until("it is told", |rig| rig.others.iter().any(|line| line.starts_with("BusUnavailable")));
    rig.wait_until("SAFE", |rig| {
        rig.state() == StateName::Safe && rig.status().faults.contains(Fault::BusDown)
    });
    assert!(!rig.gateway.ended());
}

#[test]
fn row_50_link_down_trips_and_the_first_frame_after_it_is_safe() {
    let mut rig = Rig::new();
    expect_trip_then_safe(&mut rig, Fault::BusDown, BusFault::Down, BusFault::Clear, 0);
    rig.drive();
}

#[test]
fn row_51_an_unplugged_adapter_trips_and_is_opened_anew() {
    let mut rig = Rig::new();
    expect_trip_then_safe(&mut rig, Fault::BusDown, BusFault::Gone, BusFault::Clear, 0);
    rig.drive();
}

#[test]
fn row_52_a_cut_cable_trips_by_the_missing_echo() {
    let mut rig = Rig::with_times("echo_ms = 50");
    let (cut, mended) = (BusFault::Swallow(true), BusFault::Swallow(false));
    expect_trip_then_safe(&mut rig, Fault::EchoLost, cut, mended, 0);
    rig.drive();
}

#[test]
fn row_52_a_bus_that_stored_frames_gives_back_one_old_frame_at_most() {
    let mut rig = Rig::with_times("echo_ms = 50");
    let (stalled, running) = (BusFault::Stall(true), BusFault::Stall(false));
    expect_trip_then_safe(&mut rig, Fault::EchoLost, stalled, running, 1);
}

#[test]
fn row_53_bus_off_trips_asks_for_a_restart_and_the_fourth_locks_out() {
    let mut rig = Rig::new();
    let request = rig.runtime.path().join(format!("restart-{}", rig.road.address.name()));
    for round in 1..=4 {
        if round == 1 {
            rig.trip(Fault::BusOff, |rig| set(rig, BusFault::BusOff), |rig| set(rig, BusFault::Restart));
        } else {
            set(&rig, BusFault::BusOff);
        }
        wait_for(|| std::fs::remove_file(&request).is_ok(), "a request for a restart");
        let from = rig.road.count();
        set(&rig, BusFault::Restart);
        rig.road.wait_count(from + 25);
        assert!(rig.road.sent().iter().skip(from).all(Drive::is_safe), "{round}");
    }
    rig.wait_until("LOCKOUT", |rig| rig.state() == StateName::Lockout);
    assert!(rig.status().trips >= 2, "{:?}", rig.trips);
    rig.expect_still_safe();
}

#[test]
fn row_54_no_echo_after_a_restart_locks_out_and_the_watchdog_goes_on() {
    let mut rig = Rig::new();
    rig.trip(Fault::BusOff, |rig| set(rig, BusFault::BusOff), |rig| set(rig, BusFault::Restart));
    set(&rig, BusFault::Swallow(true));
    set(&rig, BusFault::Restart);
    rig.wait_until("LOCKOUT", |rig| rig.state() == StateName::Lockout);
    assert!(rig.status().faults.contains(Fault::CanDead), "{:?}", rig.status());
    let beat = rig.gateway.shared.watchdog_beat();
    wait_for(|| rig.gateway.shared.watchdog_beat() > beat, "the watchdog's beat");
}

#[test]
fn row_55_a_late_echo_is_driven_on_and_one_too_late_trips() {
    let mut rig = Rig::new();
    for _ in 0..5 {
        rig.drive();
        set(&rig, BusFault::Delay(Duration::from_millis(40)));
        let from = rig.road.count();
        rig.road.wait_count(from + 20);
        let armed = rig.state() == StateName::Armed;
        set(&rig, BusFault::Delay(Duration::ZERO));
        if armed {
            break;
        }
        eprintln!("the host's own trip: {:?}", rig.status().cause);
    }
    assert_eq!(rig.state(), StateName::Armed);
    let slow = BusFault::Delay(Duration::from_millis(300));
    let from =
        rig.trip(Fault::EchoLost, |rig| set(rig, slow), |rig| set(rig, BusFault::Delay(Duration::ZERO)));
    rig.road.expect_safe_after(from);
}

#[test]
fn row_57_another_node_with_our_id_locks_out_until_a_person_looks() {
    let mut rig = Rig::new();
    let frame = Frame::data(drive_id(), &[0; 8]).unwrap();
    rig.expect_trip(Fault::ForeignWriter, |rig| set(rig, BusFault::Inject(frame)));
    rig.wait_until("LOCKOUT", |rig| rig.state() == StateName::Lockout);
    rig.say("neutral");
    rig.expect_still_safe();
    assert_eq!(rig.state(), StateName::Lockout);
    rig.gateway.shared.request_acknowledge();
    rig.drive();
}

#[test]
fn row_58_a_local_program_with_our_id_locks_out() {
    let mut rig = Rig::new();
    let port = Port::open(&rig.road.address, &PortOptions::default()).unwrap();
    let frame = Frame::data(drive_id(), &[0; 8]).unwrap();
    rig.expect_trip(Fault::ForeignWriter, |_| port.try_send(&frame).unwrap());
    rig.wait_until("LOCKOUT", |rig| rig.state() == StateName::Lockout);
    assert!(rig.road.damaged.load(Ordering::Acquire) > 0, "the foreign frame was on the bus");
}

#[test]
fn row_59_damaged_feedback_trips_after_five_strikes() {
    let mut rig = Rig::new();
    let damaged = Frame::data(Id::standard(0x201).unwrap(), &[0; 8]).unwrap();
    rig.expect_trip(Fault::FeedbackBad, |rig| (0..12).for_each(|_| set(rig, BusFault::Inject(damaged))));
}

#[test]
fn row_60_feedback_that_stays_away_trips() {
    let mut rig = Rig::new();
    let runs = |rig: &Rig, runs| rig.road.vehicle_runs.store(runs, Ordering::Release);
    let from = rig.trip(Fault::FeedbackLost, |rig| runs(rig, false), |rig| runs(rig, true));
    rig.road.expect_safe_after(from);
    runs(&rig, true);
    rig.drive();
}

#[test]
fn row_61_feedback_that_contradicts_the_command_locks_out() {
    // The wheel is turned, and somebody tells that it stands straight.
    expect_lockout_by_feedback("axis left_x 1", [0, 0]);
}

#[test]
fn row_61_feedback_that_goes_on_reporting_what_cannot_be_locks_out() {
    // 0xFFFF is 655.35 km/h, and the DBC says 250 at most: "not available" in many a controller.
    expect_lockout_by_feedback("axis left_x 0.5", [0xFF, 0xFF]);
}

/// Drives, lets the vehicle fall silent, and tells this speed and a straight wheel in its place, correctly protected.
fn expect_lockout_by_feedback(say: &str, speed: [u8; 2]) {
    let mut rig = Rig::with(Options::default(), |text| {
        text.replace("# feedback = \"VEHICLE_STATE.STEER_ANGLE\"", "feedback = \"VEHICLE_STATE.STEER_ANGLE\"")
            .replace("# feedback_tolerance = 60", "feedback_tolerance = 120")
    });
    for _ in 0..5 {
        rig.drive();
        rig.say(say);
        rig.road.vehicle_runs.store(false, Ordering::Release);
        let from = rig.road.count();
        let port = Port::open(&rig.road.address, &PortOptions::default()).unwrap();
        let mut counter = None;
        // As long as it drives, and through the trip of the age to the lockout: the impossible goes on.
        let mut driving = true;
        for _ in 0..100 {
            // Continues the vehicle's counter where the last frame left it.
            while let Ok(Some(received)) = port.recv(None) {
                if received.frame.id() == Id::standard(0x201).unwrap() {
                    counter = received.frame.payload().get(6).map(|byte| byte >> 4);
                }
            }
            let next = counter.map_or(0, |count| (count + 1) % 16);
            counter = Some(next);
            let mut data = [speed[0], speed[1], 0, 0, 3, 0, next << 4, 0];
            data[7] = crc8_j1850(&data[..7]);
            port.try_send(&Frame::data(Id::standard(0x201).unwrap(), &data).unwrap()).unwrap();
            let seen = rig.road.count();
            rig.road.wait_count(seen + 1);
            driving = rig.state() == StateName::Armed;
            if rig.state() == StateName::Lockout {
                break;
            }
        }
        rig.road.vehicle_runs.store(true, Ordering::Release);
        assert!(!driving, "a hundred such frames were driven on");
        let cause = rig.status().cause.unwrap();
        if rig.state() == StateName::Lockout {
            assert_eq!(cause.fault, Fault::Contradiction, "{cause:?}");
            rig.road.expect_safe_after(from);
            rig.expect_still_safe();
            assert_eq!(rig.state(), StateName::Lockout);
            return;
        }
        eprintln!("the host's own trip: {cause:?}");
    }
    panic!("the host was too slow five times");
}

#[test]
fn row_64_errors_and_no_echo_from_the_start_never_let_it_arm() {
    let mut rig = Rig::new();
    set(&rig, BusFault::Swallow(true));
    // A protocol violation, as the driver reports a wrong bit rate.
    set(&rig, BusFault::Inject(Frame::error(0x08, [0; 8])));
    rig.wait_until("the missing echo is told", |rig| {
        rig.state() == StateName::Safe && rig.status().faults.contains(Fault::EchoLost)
    });
    let beat = rig.gateway.shared.watchdog_beat().unwrap();
    rig.wait_until("two seconds more", |rig| {
        assert!(matches!(rig.state(), StateName::Safe | StateName::Lockout));
        rig.gateway.shared.watchdog_beat().is_some_and(|now| now.since(beat) > Duration::from_secs(2))
    });
    assert!(!rig.status().checklist.can);
    assert_eq!(rig.status().arms, 0);
}

#[test]
fn row_66_a_bus_off_forged_by_a_local_program_is_not_believed() {
    let mut rig = Rig::new();
    let port = Port::open(&rig.road.address, &PortOptions::default()).unwrap();
    for _ in 0..5 {
        rig.drive();
        port.try_send(&Frame::error(0x40, [0; 8])).unwrap();
        let from = rig.road.count();
        rig.road.wait_count(from + 20);
        if rig.state() == StateName::Armed {
            return;
        }
        assert_ne!(rig.status().cause.map(|trip| trip.fault), Some(Fault::BusOff));
    }
    panic!("the host was too slow five times");
}
