//! Rows of the network, of the protocol and of its content.

use std::time::Duration;

use ocpcan::safety::faults::Fault;
use ocpcan::safety::input::StateName;
use ocpcan::sim::ocp::Options;

use super::relay::Way;
use super::rig::{Rig, wait_for};

#[test]
fn row_01_without_a_server_safe_frames_run_and_it_is_found_later() {
    let mut rig = Rig::new();
    rig.say("listen off");
    rig.say("close");
    rig.wait_until("no connection", |rig| rig.state() == StateName::Safe && !rig.status().checklist.link);
    rig.expect_still_safe();
    rig.say("listen on");
    rig.drive();
    rig.road.expect_running_counter();
}

#[test]
fn row_02_and_03_the_end_of_the_connection_trips() {
    let mut rig = Rig::new();
    rig.expect_trip(Fault::OcpDown, |rig| rig.say("close"));
    rig.expect_trip(Fault::OcpDown, |rig| rig.say("rst"));
    let cause = |rig: &Rig| rig.told()["cause"] == "ocp_down" && rig.told()["state"] != "ARMED";
    rig.wait_until("the operator is told why", |rig| cause(rig));
    rig.road.expect_running_counter();
}

#[test]
fn row_04_and_12_a_peer_that_vanishes_trips_by_silence_and_is_found_again() {
    let (mut rig, relay) = Rig::through_relay(Options::default(), "");
    let from = rig.trip(Fault::OcpSilence, |_| relay.set(Way::Dead), |_| relay.set(Way::Open));
    rig.road.expect_safe_after(from);
    rig.expect_still_safe();
    relay.set(Way::Open);
    rig.drive();
}

/// A server that never complains about answers that stay away.
fn patient() -> Options {
    let hour = Duration::from_secs(3_600);
    Options { latency_limit: hour, loop_not_closed: None, ..Options::default() }
}

#[test]
fn row_05_a_peer_that_does_not_read_trips_and_holds_nobody() {
    let (mut rig, relay) = Rig::through_relay(patient(), "reply_ms = 50");
    let deaf = |rig: &Rig| {
        // The kernel takes some megabytes before an answer has to wait.
        rig.say("latency 20");
        rig.say("rate 4000");
        relay.stop_reading(true);
    };
    let heal = |rig: &Rig| {
        relay.stop_reading(false);
        rig.say("rate auto");
    };
    let from = rig.trip(Fault::ReplyBlocked, deaf, heal);
    rig.road.expect_safe_after(from);
    heal(&rig);
    rig.drive();
}

#[test]
fn row_06_a_message_in_drips_trips() {
    let (mut rig, relay) = Rig::through_relay(Options::default(), "frame_assembly_ms = 50");
    let from = rig.trip(Fault::FrameAssembly, |_| relay.set(Way::Drip), |_| relay.set(Way::Open));
    rig.road.expect_safe_after(from);
    rig.expect_still_safe();
}

#[test]
fn row_07_old_messages_after_a_stall_are_not_obeyed() {
    let (mut rig, relay) = Rig::through_relay(Options::default(), "");
    let from = rig.trip(Fault::OcpSilence, |_| relay.set(Way::Held), |_| relay.set(Way::Open));
    rig.road.expect_safe_after(from);
    // Two seconds of held messages, the stick in each of them, then all at once.
    rig.road.wait_count(from + 100);
    let answered = rig.ocp.snapshot().responses;
    relay.set(Way::Open);
    wait_for(|| rig.ocp.snapshot().responses > answered, "an answer to what was held");
    rig.expect_still_safe();
}

#[test]
fn row_08_loss_and_jitter_trip_at_most_and_never_arm() {
    let (mut rig, relay) = Rig::through_relay(Options::default(), "stale_ms = 100\nocp_silence_ms = 100");
    let from = rig.drive();
    relay.set(Way::Lossy);
    rig.wait_until("a trip", |rig| rig.state() != StateName::Armed);
    rig.road.expect_safe_after(from);
    // The stick stays where it is; then it rests and the switch is held: gaps come more often than the clear time.
    rig.expect_still_safe();
    rig.say("neutral");
    rig.say("press start");
    for _ in 0..3 {
        rig.expect_still_safe();
    }
    let class_b =
        rig.trips.iter().find(|trip| trip.faults.any_class_b() && !trip.faults.contains(Fault::OwnGap));
    assert_eq!(class_b, None);
    rig.road.expect_running_counter();
}

#[test]
fn row_09_arming_again_and_again_locks_out() {
    let mut rig = Rig::with_times("arms_per_minute = 3");
    let mut arms = 0;
    rig.say("neutral");
    rig.wait_until("LOCKOUT by the fourth arming", |rig| {
        match rig.state() {
            StateName::Ready if rig.status().checklist.released => rig.say("press start"),
            StateName::Armed => {
                arms = rig.status().arms;
                rig.say("rst");
                rig.say("release start");
            }
            StateName::Lockout => {
                let trip = rig.status().cause.unwrap();
                if trip.faults.contains(Fault::TooManyArms) {
                    return true;
                }
                rig.gateway.shared.request_acknowledge();
            }
            _ => rig.say("release start"),
        }
        false
    });
    assert_eq!(arms, 3);
    rig.expect_still_safe();
    assert_eq!(rig.state(), StateName::Lockout);
}

#[test]
fn row_11_14_16_and_17_lost_framing_trips_closes_and_is_followed_by_a_new_connection() {
    let mut rig = Rig::new();
    for what in ["http", "garbage", "huge", "oversize", "bigendian"] {
        let before = rig.ocp.snapshot().connections;
        rig.expect_trip(Fault::FramingLost, |rig| rig.say(&format!("inject {what}")));
        wait_for(|| rig.ocp.snapshot().connections > before, "a new connection");
    }
    rig.road.expect_running_counter();
}

#[test]
fn row_13_a_length_of_zero_trips_and_three_end_the_connection() {
    let mut rig = Rig::new();
    rig.expect_trip(Fault::InvalidMessage, |rig| rig.say("inject zero"));
    let before = rig.ocp.snapshot().connections;
    rig.say("inject zero x3");
    wait_for(|| rig.ocp.snapshot().connections > before, "a new connection");
    rig.expect_still_safe();
}

#[test]
fn row_15_half_a_message_and_the_end_trips() {
    let mut rig = Rig::new();
    rig.expect_trip(Fault::OcpDown, |rig| rig.say("inject truncate"));
}

#[test]
fn row_18_joined_and_split_messages_drive_on() {
    let mut rig = Rig::new();
    for what in ["coalesce 5", "split 3 2", "partial 0", "unknown", "minimal", "largest", "integers"] {
        rig.drive();
        rig.say(&format!("inject {what}"));
        let sent = rig.ocp.snapshot().sent;
        wait_for(|| rig.ocp.snapshot().sent > sent + 8, "messages after it");
        let told: Vec<_> = rig.trips.iter().map(|trip| trip.fault).collect();
        assert!(
            !told.contains(&Fault::InvalidMessage) && !told.contains(&Fault::FramingLost),
            "{what}: {told:?}"
        );
    }
}

#[test]
fn row_19_20_and_21_a_clock_that_stands_or_goes_back_trips() {
    let mut rig = Rig::new();
    rig.expect_trip_until(Fault::AckFrozen, "ack freeze", "ack run");
    rig.expect_trip(Fault::AckBackwards, |rig| rig.say("ack back 5000"));
    rig.expect_trip(Fault::AckBackwards, |rig| rig.say("inject replay"));
}

#[test]
fn row_23_ten_thousand_messages_a_second_are_followed_by_the_newest_value() {
    let mut rig = Rig::new();
    for _ in 0..5 {
        rig.drive();
        rig.say("rate 10000");
        rig.say("axis left_x -0.8");
        let from = rig.road.count();
        let turned =
            |rig: &Rig| rig.road.sent().iter().skip(from).any(|drive| drive.enabled && drive.steer < -1_000);
        rig.wait_until("the newest value", |rig| turned(rig) || rig.state() != StateName::Armed);
        rig.say("rate auto");
        if turned(&rig) {
            rig.road.expect_running_counter();
            return;
        }
        eprintln!("the host's own trip: {:?}", rig.status().cause);
    }
    panic!("the host was too slow five times");
}

#[test]
fn row_24_five_messages_a_second_neither_drive_nor_arm() {
    let mut rig = Rig::with_times("ocp_silence_ms = 150");
    rig.expect_trip(Fault::OcpSilence, |rig| rig.say("rate 5"));
    rig.say("neutral");
    rig.expect_still_safe();
    assert!(rig.status().session_run < 50, "{:?}", rig.status());
    assert_eq!(rig.state(), StateName::Safe);
}

#[test]
fn row_25_and_28_a_fault_and_a_reason_without_one_trip() {
    let mut rig = Rig::new();
    rig.expect_trip_until(Fault::OcpFault, "fault CameraLost on", "fault CameraLost off");
    rig.expect_trip(Fault::OcpFault, |rig| rig.say("inject reason"));
}

#[test]
fn row_26_a_fault_in_one_message_of_a_burst_trips() {
    let mut rig = Rig::new();
    rig.expect_trip(Fault::OcpFault, |rig| {
        rig.say("inject coalesce 5");
        rig.say("inject fault");
    });
}

#[test]
fn row_27_a_flapping_fault_never_arms() {
    let mut rig = Rig::new();
    rig.expect_trip(Fault::OcpFault, |rig| rig.say("inject fault"));
    rig.say("neutral");
    let from = rig.road.count();
    for _ in 0..20 {
        // Five frames, 100 ms of the bus's time, between two faults: less than the clear time.
        rig.say("inject fault");
        let next = rig.road.count() + 5;
        rig.road.wait_count(next);
        assert_eq!(rig.state(), StateName::Safe);
    }
    assert!(rig.road.sent().iter().skip(from).all(super::rig::Drive::is_safe));
}

#[test]
fn row_29_a_missing_controller_trips() {
    let mut rig = Rig::new();
    rig.expect_trip_until(Fault::ControllerMissing, "controller none", "controller on");
    rig.expect_trip_until(Fault::ControllerMissing, "controller null", "controller on");
}

#[test]
fn row_30_and_31_a_lost_operator_trips_by_his_counter() {
    let mut rig = Rig::new();
    rig.expect_trip_until(Fault::OperatorFrozen, "link cut", "link restore");
    rig.expect_trip_until(Fault::OperatorFrozen, "counter freeze", "counter run");
    rig.expect_trip_until(Fault::OperatorCounter, "counter absent", "counter run");
    rig.expect_trip(Fault::OperatorCounter, |rig| rig.say("counter 1000000"));
}

#[test]
fn row_30_without_a_counter_ocps_own_fault_trips_and_the_speed_is_capped() {
    let mut rig = Rig::with(Options::default(), |text| {
        text.replace("counter = \"user.counter\"", "")
            .replace("# speed_cap_without_counter = 10", "speed_cap_without_counter = 1")
    });
    rig.drive();
    rig.wait_until("the cap", |rig| rig.told()["throttle_scale"] == 0.0 || rig.state() != StateName::Armed);
    rig.expect_trip_until(Fault::OcpFault, "link cut", "link restore");
}

#[test]
fn row_32_latency_reduces_the_throttle_then_trips() {
    let (mut rig, _relay) = Rig::through_relay(patient(), "");
    rig.drive();
    rig.say("latency 400");
    rig.wait_until("half throttle", |rig| {
        rig.told()["throttle_scale"] == 0.5 || rig.state() != StateName::Armed
    });
    rig.say("latency auto");
    rig.expect_trip_until(Fault::LatencyHigh, "latency 501", "latency auto");
    rig.expect_trip(Fault::InvalidMessage, |rig| rig.say("inject latency -1"));
}

#[test]
fn row_35_36_and_39_values_that_are_none_trip() {
    let mut rig = Rig::new();
    for what in ["axis left_x 1e39", "axis right_trigger 1.5", "nan", "missing-axis", "duplicate"] {
        rig.expect_trip(Fault::InvalidMessage, |rig| rig.say(&format!("inject {what}")));
    }
    rig.road.expect_running_counter();
}

#[test]
fn row_44_the_brake_beats_the_throttle_on_the_bus() {
    let mut rig = Rig::new();
    rig.drive();
    rig.say("trigger left 0.5");
    let from = rig.road.count();
    let braking =
        |rig: &Rig| rig.road.sent().iter().skip(from).position(|drive| drive.enabled && drive.brake > 20);
    rig.wait_until("the brake", |rig| braking(rig).is_some() || rig.state() != StateName::Armed);
    rig.road.wait_count(from + 50);
    let sent = rig.road.sent();
    let both = sent.iter().find(|drive| drive.throttle > 0 && drive.brake > 20);
    assert_eq!(both, None);
}

#[test]
fn row_46_an_arm_switch_that_is_down_from_the_start_never_arms() {
    let mut rig = Rig::new();
    rig.say("press start");
    rig.wait_until("READY", |rig| rig.state() == StateName::Ready);
    rig.expect_still_safe();
    assert_eq!(rig.status().arms, 0);
    assert!(!rig.status().checklist.released);
    rig.wait_until("the operator is told", |rig| rig.told()["next"] == "release the arm switch");
}

#[test]
fn row_47_controls_away_from_rest_do_not_arm_and_the_operator_is_told() {
    let mut rig = Rig::new();
    rig.say("trigger right 0.3");
    rig.wait_until("STANDBY", |rig| rig.state() == StateName::Standby);
    rig.say("press start");
    rig.expect_still_safe();
    assert_eq!(rig.status().arms, 0);
    rig.wait_until("the operator is told", |rig| {
        rig.told()["next"] == "release sticks, pedals and triggers" || rig.state() != StateName::Standby
    });
}
