//! Every documented fault of both sides, raised and cleared by its documented condition.
//!
//! Times are of the virtual clock. What is allowed above a threshold is made of the periods on the way: tick 10 ms, frame
//! of the Player 17 ms, picture with its feedback 33 ms, radio 20 ms each way.

use super::super::super::Options;
use super::super::super::options::{LatencyUpdate, Profile, Unset};
use super::rig::{Rig, Station};
use crate::proto::ocp::{Axis, Controller};
use crate::time::Duration;

fn names(faults: &[&str]) -> Vec<String> {
    faults.iter().map(|name| (*name).to_owned()).collect()
}

fn sender(rig: &Rig, name: &str) -> bool {
    rig.seen("loader").sender_fault == names(&[name])
}

fn receiver(rig: &Rig, name: &str) -> bool {
    rig.seen("loader").receiver_fault.iter().any(|fault| fault == name)
}

/// A rig after two quiet seconds without any fault.
fn quiet(options: Options) -> Rig {
    let mut rig = Rig::watched(options);
    rig.run(2_000);
    assert!(!rig.got(0).fault, "{}", rig.got(0).reason);
    let seen = rig.seen("loader");
    assert_eq!((seen.sender_fault.len(), seen.receiver_fault.len()), (0, 0), "{seen:?}");
    rig
}

#[test]
fn input_lost_while_the_gamepad_is_unplugged() {
    let mut rig = quiet(Options::default());
    rig.say("press a");
    rig.run(100);
    assert!(rig.got(0).controller.is_some() && rig.feedback.last().unwrap().1.last_input.is_some());
    rig.say("gamepad unplug");
    let took = rig.until(20, "Input Lost", |rig| sender(rig, "Input Lost"));
    assert!(took <= 17, "with the next frame: {took} ms");
    rig.run(100);
    assert_eq!(rig.feedback.last().unwrap().1.last_input, None);
    assert_eq!(rig.got(0).controller, None);
    assert!(!rig.got(0).fault, "not a fault of the vehicle's side");
    assert_eq!(rig.seen("loader").last_remote_input, None);
    rig.say("gamepad plug");
    rig.until(20, "no fault", |rig| rig.seen("loader").sender_fault.is_empty());
    rig.run(60);
    assert!(rig.got(0).controller.is_some());
}

#[test]
fn the_controller_without_a_gamepad_has_every_form() {
    let zeroed = Controller { axes: [0.0; Axis::COUNT], buttons: 0 };
    for (form, want) in [
        ("absent", None),
        ("null", None),
        ("neutral", Some(Controller::NEUTRAL)),
        ("zeroed", Some(zeroed)),
        ("last", Some(Controller { axes: [0.5, 0.0, 0.0, 0.0, -1.0, -1.0], buttons: 0 })),
    ] {
        let mut options = Options::default();
        options.set("controller_input_lost", form).unwrap();
        let mut rig = quiet(options);
        rig.say("axis left_x 0.5");
        rig.say("gamepad unplug");
        rig.run(100);
        assert_eq!(rig.got(0).controller, want, "{form}");
    }
}

#[test]
fn no_feedback_message_after_more_than_a_second_without_one() {
    let mut rig = quiet(Options::default());
    rig.say("feedback stop");
    let took = rig.until(1_060, "No Feedback Message", |rig| sender(rig, "No Feedback Message"));
    // The last one was up to 33 ms old and up to 20 ms on its way.
    assert!(took > 1_000 - 33, "after {took} ms");
    assert!(!rig.got(0).fault, "control and acks go on");
    rig.say("feedback run");
    let took = rig.until(75, "no fault", |rig| rig.seen("loader").sender_fault.is_empty());
    assert!(took >= 20, "with the next one: {took} ms");
}

#[test]
fn vehicle_control_inactive_on_each_vehicle_but_the_chosen_one() {
    let mut rig = Rig::new(Options::default(), &["loader", "dumper"]);
    rig.connect();
    rig.say("active loader");
    rig.say("axis left_y -1");
    rig.run(200);
    assert!(rig.seen("loader").sender_fault.is_empty());
    assert_eq!(rig.seen("dumper").sender_fault, names(&["Vehicle Control Inactive"]));
    assert!(rig.got(0).controller.is_some() && rig.got(1).controller.is_none());
    rig.say("active dumper");
    rig.run(200);
    assert_eq!(rig.seen("loader").sender_fault, names(&["Vehicle Control Inactive"]));
    assert!(rig.seen("dumper").sender_fault.is_empty());
    assert!(rig.got(0).controller.is_none());
    assert_eq!(rig.got(1).controller.unwrap().axis(Axis::LeftY), -1.0, "without a new connection");
    assert!(!rig.got(0).fault && !rig.got(1).fault);
}

#[test]
fn with_several_vehicles_and_none_chosen_no_vehicle_gets_the_gamepad() {
    for (unset_active, want) in
        [(Unset::Inactive, "Vehicle Control Inactive"), (Unset::InputLost, "Input Lost")]
    {
        let mut rig = Rig::new(Options { unset_active, ..Options::default() }, &["loader", "dumper"]);
        rig.connect();
        rig.run(200);
        for (place, name) in ["loader", "dumper"].into_iter().enumerate() {
            assert_eq!(rig.seen(name).sender_fault, names(&[want]));
            assert_eq!(rig.got(place).controller, None);
        }
        // With one left, it needs no choice.
        rig.say("vehicle dumper session off");
        rig.run(100);
        assert!(rig.seen("loader").sender_fault.is_empty() && rig.got(0).controller.is_some());
        assert!(!rig.feedback.last().unwrap().1.vehicles.contains_key("dumper"));
    }
}

#[test]
fn camera_lost_after_200_ms_without_a_picture() {
    let mut rig = quiet(Options::default());
    rig.say("camera stop Front left");
    let from = rig.ms();
    rig.until(300, "fault", |rig| rig.got(0).fault);
    let took = rig.got(0).at_ms - from;
    assert!((201..=220).contains(&took), "after {took} ms");
    assert_eq!(rig.got(0).reason, "Camera Lost");
    rig.run(100);
    assert!(receiver(&rig, "Camera Lost"));
    assert_eq!(rig.seen("loader").missing_cameras, Some(names(&["Front left"])));
    rig.say("camera run Front left");
    rig.until(30, "no fault", |rig| !rig.got(0).fault);
    rig.run(100);
    assert_eq!(rig.seen("loader").missing_cameras, Some(Vec::new()));
    // A camera that stops for 200 ms is none that is lost, nor one whose drop detector is off.
    rig.say("camera stop Front left");
    rig.run(200);
    rig.say("camera run Front left");
    let mut off = Options::default();
    off.set("unwatched_cameras", "Rear").unwrap();
    let mut unwatched = quiet(off);
    unwatched.say("camera stop Rear");
    rig.run(500);
    unwatched.run(500);
    assert!(!rig.got(0).fault && !unwatched.got(0).fault);
    assert_eq!(rig.gateways[0].got.windows(2).filter(|w| !w[0].fault && w[1].fault).count(), 1);
}

#[test]
fn vehicle_no_response_while_no_client_is_connected_and_not_while_one_is_mute() {
    let mut rig = quiet(Options::default());
    let vehicle = super::super::super::Endpoint::Vehicle(0);
    rig.pipeline.handle_disconnect(vehicle);
    rig.until(100, "fault", |rig| receiver(rig, "Vehicle No Response"));
    assert_eq!(rig.pipeline.snapshot().faults, names(&["Vehicle No Response"]));
    rig.run(100);
    assert_eq!(rig.seen("loader").message_latency_roundtrip, None, "not told without a client");
    rig.pipeline.handle_connect(rig.now, vehicle);
    rig.until(100, "no fault", |rig| rig.seen("loader").receiver_fault.is_empty());
    rig.gateways[0].answers = false;
    rig.run(3_000);
    assert!(!receiver(&rig, "Vehicle No Response") && receiver(&rig, "High Latency"));
}

#[test]
fn no_control_message_after_more_than_a_second_without_one() {
    let mut rig = quiet(Options { loop_not_closed: None, ..Options::default() });
    rig.say("cut uplink");
    let from = rig.ms();
    rig.until(1_100, "fault", |rig| rig.got(0).fault);
    // The last one left up to 20 ms before the cut and took 20 ms.
    let took = rig.got(0).at_ms - from;
    assert!((1_001..=1_040).contains(&took), "after {took} ms");
    assert_eq!(rig.got(0).reason, "No Control Message");
    assert_eq!(rig.got(0).controller, Some(Controller::NEUTRAL), "default values");
    rig.run(100);
    assert!(receiver(&rig, "No Control Message") && rig.seen("loader").sender_fault.is_empty());
    rig.say("restore uplink");
    let took = rig.until(80, "no fault", |rig| !rig.got(0).fault);
    assert!(took >= 20, "with the next message: {took} ms");
}

#[test]
fn no_control_message_may_be_there_before_the_first_one() {
    for (value, want) in [("true", "No Control Message"), ("false", "")] {
        let mut options = Options::default();
        options.set("no_control_at_start", value).unwrap();
        let mut rig = Rig::watched(options);
        rig.say("operator off");
        rig.run(500);
        assert_eq!(rig.got(0).reason, want);
    }
}

#[test]
fn streamer_slow_after_a_frame_of_more_than_500_ms_until_the_next_fast_one() {
    // Wide limits for what else a slow frame does.
    let options =
        Options { latency_limit: Duration::from_secs(5), loop_not_closed: None, ..Options::default() };
    let mut rig = quiet(options.clone());
    rig.say("frame 501");
    let from = rig.ms();
    rig.until(600, "fault", |rig| rig.got(0).fault);
    let took = rig.got(0).at_ms - from;
    assert!((501..=520).contains(&took), "after {took} ms");
    assert_eq!(rig.got(0).reason, "Streamer Slow");
    let lasted = rig.until(100, "no fault", |rig| !rig.got(0).fault);
    assert!((10..=50).contains(&lasted), "until the next frame: {lasted} ms");
    rig.run(100);
    assert!(
        rig.feedback
            .iter()
            .any(|(_, feedback)| { feedback.vehicles["loader"].receiver_fault == names(&["Streamer Slow"]) })
    );
    let mut rig = quiet(options);
    rig.say("frame 500 x3");
    rig.run(2_000);
    assert!(rig.gateways[0].got.iter().all(|got| !got.fault));
    assert!(rig.pipeline.snapshot().frame_ms < 1.0);
    // A program that hangs for longer has made one frame in that time.
    rig.say("stall 700");
    rig.run(720);
    assert_eq!(rig.got(0).reason, "Streamer Slow");
}

#[test]
fn high_latency_above_the_limit_whatever_makes_it() {
    for limit in [300, 500, 800] {
        let options = Options { latency_limit: Duration::from_millis(limit), ..Options::default() };
        let mut rig = quiet(options.clone());
        rig.gateways[0].answers = false;
        rig.until(limit + 60, "fault", |rig| rig.got(0).fault);
        assert!(rig.got(0).latency_ms > limit as f64, "{}", rig.got(0).latency_ms);
        assert_eq!(rig.got(0).reason, "High Latency");
        let before = rig.gateways[0].got.iter().rev().find(|got| !got.fault).unwrap();
        assert!(before.latency_ms <= limit as f64, "{}", before.latency_ms);
        rig.gateways[0].answers = true;
        rig.until(200, "no fault", |rig| !rig.got(0).fault);
        assert!(rig.got(0).latency_ms <= limit as f64);
        // The radio itself, one way and the other.
        for line in ["uplink delay", "downlink delay"] {
            let mut rig = quiet(options.clone());
            rig.say(&format!("{line} {limit}"));
            rig.until(2 * limit + 200, "fault", |rig| rig.got(0).reason == "High Latency");
            rig.say(&format!("{line} 20"));
            rig.until(2 * limit + 400, "no fault", |rig| !rig.got(0).fault);
        }
    }
}

#[test]
fn high_latency_of_a_picture_that_stands_still_and_of_acks_that_are_not_returned() {
    for (stop, go) in [("video stop", "video run"), ("cut downlink", "restore downlink")] {
        let mut rig = quiet(Options::default());
        rig.say(stop);
        rig.until(560, "fault", |rig| rig.got(0).reason == "High Latency");
        rig.say(go);
        rig.until(200, "no fault", |rig| !rig.got(0).fault);
    }
    let mut rig = quiet(Options::default());
    rig.station = Some(Station { returns_acks: false, ..Station::default() });
    rig.until(560, "fault", |rig| rig.got(0).reason == "High Latency");
    rig.station = Some(Station::default());
    rig.until(200, "no fault", |rig| !rig.got(0).fault);
}

#[test]
fn latency_may_be_judged_between_control_messages() {
    let mut rig = quiet(Options { latency_update: LatencyUpdate::Continuous, ..Options::default() });
    rig.say("cut uplink");
    let took = rig.until(560, "fault", |rig| rig.got(0).reason == "High Latency");
    assert!(took > 300, "after {took} ms");
    rig.until(700, "the second", |rig| rig.got(0).reason.starts_with("No Control Message, High Latency"));
}

#[test]
fn the_loop_that_no_valid_pair_closes() {
    // Pairs under a wrong hash do not close it.
    let mut rig = Rig::watched(Options::default());
    let wrong = |rig: &mut Rig| {
        let data = serde_json::json!({ "client_user_data": { "loader": {
            "user_data": null, "ack_time_returned": 5, "ack_time_mac_returned": 5 } } });
        let frame = crate::proto::ocp::server::frame(data.to_string().as_bytes());
        rig.pipeline.handle_bytes(rig.now, super::super::super::Endpoint::Player, &frame);
    };
    while rig.ms() < 1_100 {
        wrong(&mut rig);
        rig.run(10);
        let is_open = rig.got(0).reason.contains("Latency Loop Not Closed");
        assert!(!is_open || rig.ms() > 1_000, "at {} ms", rig.ms());
    }
    assert_eq!(rig.got(0).reason, "High Latency, Latency Loop Not Closed");
    assert!(rig.pipeline.snapshot().bad_macs > 40);
    rig.run(60);
    assert!(receiver(&rig, "Latency Loop Not Closed"));
    rig.station = Some(Station::default());
    rig.until(150, "no fault", |rig| !rig.got(0).fault);
    // The older version does not know it.
    let mut old = Rig::watched(Profile::Doc248.options());
    old.say("video stop");
    old.run(3_000);
    assert_eq!(old.got(0).reason, "HighLatency");
}

#[test]
fn each_fault_is_raised_and_cleared_by_hand_on_its_own_side() {
    for (name, is_of_sender) in super::super::super::faults::SENDER
        .map(|name| (name, true))
        .into_iter()
        .chain(super::super::super::faults::RECEIVER.map(|name| (name, false)))
    {
        let mut rig = quiet(Options::default());
        rig.say(&format!("fault raise {name}"));
        rig.run(100);
        let spaced = super::super::super::faults::spelled(name, true);
        assert_eq!(sender(&rig, &spaced), is_of_sender, "{name}");
        assert_eq!(receiver(&rig, &spaced), !is_of_sender, "{name}");
        assert_eq!(rig.got(0).fault, !is_of_sender, "{name}");
        rig.say(if is_of_sender { "fault clear" } else { "fault clear high latency" });
        rig.run(100);
        let is_cleared = rig.seen("loader").sender_fault.is_empty() && !rig.got(0).fault;
        assert_eq!(is_cleared, is_of_sender || name == "HighLatency", "{name}");
        rig.say("fault clear");
        rig.run(100);
        assert!(!rig.got(0).fault && rig.seen("loader").receiver_fault.is_empty());
    }
}

#[test]
fn faults_of_the_operators_side_may_count_on_the_vehicles() {
    let mut rig = quiet(Options { sender_faults_in_telemetry: true, ..Options::default() });
    rig.say("gamepad unplug");
    rig.run(100);
    assert_eq!((rig.got(0).fault, rig.got(0).reason.as_str()), (true, "Input Lost"));
    rig.say("gamepad plug");
    rig.run(100);
    assert!(!rig.got(0).fault);
}

#[test]
fn the_older_version_spells_and_shapes_as_it_did() {
    let mut old = Rig::watched(Profile::Doc248.options());
    old.say("fault raise input lost");
    old.say("fault raise camera lost");
    old.run(100);
    assert_eq!(old.seen("loader").sender_fault, names(&["InputLost"]));
    assert_eq!(old.seen("loader").receiver_fault, names(&["CameraLost"]));
    assert_eq!((old.seen("loader").is_monitor, &old.seen("loader").missing_cameras), (None, &None));
    assert!(!old.got(0).cameras);
    assert!(old.bodies.last().unwrap()["vehicle_feedback"]["loader"]["missing_cameras"].is_null());
    let mut new = Rig::watched(Profile::Y2026.options());
    new.run(100);
    assert_eq!(new.seen("loader").is_monitor, Some(false));
    assert_eq!(new.seen("loader").missing_cameras, Some(Vec::new()));
    assert!(new.got(0).cameras);
}
