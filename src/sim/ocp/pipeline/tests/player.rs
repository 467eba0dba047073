//! The Player's server: feedback, client data, the lock on its source, several vehicles, bad clients and bad frames.

use serde_json::json;

use super::super::super::options::{ClientData, DefaultValues, Reaction, SecondClient};
use super::super::super::{Admission, Endpoint, Event, Options, Source, SourceLock, Transmit};
use super::rig::{Rig, Station};
use crate::limits::OCP_BODY;
use crate::proto::ocp::frame::FrameError;
use crate::proto::ocp::server::frame;
use crate::proto::ocp::{Axis, Button};
use crate::time::Duration;

fn send(rig: &mut Rig, body: &str) {
    rig.pipeline.handle_bytes(rig.now, Endpoint::Player, &frame(body.as_bytes()));
}

fn lock(rig: &Rig) -> SourceLock {
    rig.pipeline.overview(rig.now).player.lock
}

#[test]
fn feedback_comes_with_each_frame_of_the_player() {
    for (hz, want) in [(None, 120), (Some("10"), 20), (Some("100"), 200)] {
        let mut options = Options::default();
        if let Some(hz) = hz {
            options.set("feedback_hz", hz).unwrap();
        }
        let mut rig = Rig::watched(options);
        rig.run(1_999);
        assert_eq!(rig.feedback.len(), want);
    }
}

#[test]
fn the_figures_of_the_feedback_are_those_of_the_model() {
    let mut rig = Rig::watched(Options::default());
    rig.gateways[0].report = json!({ "speed": 1.5 });
    rig.say("uplink delay 70");
    rig.say("downlink delay 30");
    rig.run(1_000);
    let seen = rig.seen("loader").clone();
    // The network alone; the message waits up to 33 ms for the next feedback besides.
    assert_eq!(seen.ping_latency_ms, 100);
    let roundtrip = seen.message_latency_roundtrip.unwrap();
    assert!((100..=133).contains(&roundtrip), "{roundtrip}");
    // Data arrives with each feedback message: never older than one period and the radio.
    assert!(rig.feedback.iter().skip(20).all(|(_, f)| f.vehicles["loader"].ms_since_last_vehicle_data <= 50));
    assert_eq!(seen.vehicle_data.unwrap().user_data, json!({ "speed": 1.5 }));
    // The loop: picture within 33 ms, down 30, coding 40, control within 20, up 70, tick within 10.
    let latency = rig.got(0).latency_ms;
    assert!((140.0..=205.0).contains(&latency), "{latency}");
    // Without new data the last is repeated, and its age says so.
    rig.gateways[0].report = serde_json::Value::Null;
    rig.run(1_000);
    let seen = rig.seen("loader");
    let age = seen.ms_since_last_vehicle_data;
    assert!(age > 900 && seen.vehicle_data.is_some(), "{age} ms");
    assert!(seen.sender_fault.is_empty() && seen.receiver_fault.is_empty());
}

#[test]
fn what_a_client_says_reaches_the_vehicle_and_its_acks_close_the_loop() {
    let mut rig = Rig::watched(Options::default());
    rig.station = Some(Station { user_data: json!({ "horn": true }), ..Station::default() });
    rig.run(2_000);
    let data = rig.got(0).user_data.clone().unwrap();
    assert_eq!(data["horn"], json!(true));
    assert!(data["counter"].is_null(), "nothing of the simulated operator is in it");
    assert!(rig.station_counter(0) > 100);
    assert!(!rig.got(0).fault && rig.got(0).latency_ms > 80.0, "{}", rig.got(0).latency_ms);
    assert_eq!(lock(&rig), SourceLock::Held(Source::Tcp));
    assert!(rig.events.contains(&(Endpoint::Player, Event::SourceLocked(Source::Tcp))));
    assert_eq!(rig.pipeline.snapshot().bad_macs, 0, "nor is the zero before the first picture a wrong one");
}

#[test]
fn a_client_may_switch_the_gamepad_off() {
    for (value, form) in [("absent", DefaultValues::Absent), ("last", DefaultValues::Last)] {
        let mut options = Options::default();
        options.set("controller_disabled", value).unwrap();
        let mut rig = Rig::watched(options);
        rig.say("press a");
        rig.station = Some(Station { disables_gamepad: Some(false), ..Station::default() });
        rig.run(200);
        assert!(rig.got(0).controller.unwrap().pressed(Button::A));
        rig.station = Some(Station { disables_gamepad: Some(true), ..Station::default() });
        rig.run(200);
        assert_eq!(rig.got(0).controller.is_some(), form == DefaultValues::Last);
        assert!(!rig.got(0).fault);
    }
    // An unplugged gamepad that nobody uses is a fault, or none.
    for (input_lost_when_disabled, want) in [(true, 1), (false, 0)] {
        let mut rig = Rig::watched(Options { input_lost_when_disabled, ..Options::default() });
        rig.station = Some(Station { disables_gamepad: Some(true), ..Station::default() });
        rig.say("gamepad unplug");
        rig.run(200);
        assert_eq!(rig.seen("loader").sender_fault.len(), want);
    }
}

#[test]
fn a_client_chooses_among_vehicles_and_each_gets_its_own_data() {
    let mut rig = Rig::new(Options::default(), &["loader", "dumper"]);
    rig.connect();
    rig.say("axis left_x 1");
    rig.station = Some(Station { active: Some("dumper".into()), ..Station::default() });
    rig.run(1_000);
    assert!(rig.got(0).controller.is_none());
    assert_eq!(rig.got(1).controller.unwrap().axis(Axis::LeftX), 1.0);
    assert!(rig.station_counter(0) > 40 && rig.station_counter(1) > 40, "data goes to both");
    assert!(!rig.got(0).fault && !rig.got(1).fault, "and both loops are closed");
    send(
        &mut rig,
        r#"{"active_vehicle":"loader","client_user_data":{"loader":{"user_data":1},"dumper":{"user_data":[2]}}}"#,
    );
    rig.station = None;
    rig.run(100);
    assert_eq!(rig.got(0).user_data, Some(json!(1)));
    assert_eq!(rig.got(1).user_data, Some(json!([2])));
    assert!(rig.got(0).controller.is_some() && rig.got(1).controller.is_none());
    // A name that is not there chooses nobody, and is said once.
    for _ in 0..3 {
        send(&mut rig, r#"{"active_vehicle":"crane","client_user_data":{"crane":{"user_data":1}}}"#);
    }
    rig.run(100);
    assert!(rig.got(0).controller.is_none() && rig.got(1).controller.is_none());
    let said = rig.events.iter().filter(|(_, event)| *event == Event::UnknownVehicle("crane".into())).count();
    assert_eq!(said, 1);
}

#[test]
fn the_second_source_stops_all_client_data_until_the_player_restarts() {
    for (data_in_conflict, is_repeated) in [(ClientData::Repeat, true), (ClientData::Absent, false)] {
        let mut rig = Rig::watched(Options { data_in_conflict, ..Options::default() });
        rig.station = Some(Station::default());
        rig.run(1_000);
        rig.say("source webview");
        assert_eq!(lock(&rig), SourceLock::Conflict(Source::Tcp, Source::Webview));
        rig.run(100);
        let stopped = rig.station_counter(0);
        rig.until(560, "High Latency: acks are client data too", |rig| rig.got(0).reason == "High Latency");
        rig.run(3_000);
        assert_eq!(rig.got(0).user_data.is_some(), is_repeated);
        assert_eq!(rig.station_counter(0), stopped);
        assert!(rig.pipeline.overview(rig.now).player.ignored > 100);
        assert!(rig.events.iter().any(|(_, e)| *e == Event::SourceConflict(Source::Tcp, Source::Webview)));
        // Neither a new connection nor silence of the other source helps.
        rig.say("player close");
        rig.run(10);
        rig.connect();
        rig.run(1_000);
        assert!(matches!(lock(&rig), SourceLock::Conflict(..)));
        assert!(rig.got(0).reason.starts_with("High Latency"), "{}", rig.got(0).reason);
        rig.say("restart player 100");
        rig.run(10);
        assert_eq!(rig.pipeline.handle_connect(rig.now, Endpoint::Player), Admission::Reject, "still down");
        assert_eq!(lock(&rig), SourceLock::Free);
        rig.run(200);
        assert_eq!(rig.got(0).user_data, None, "the operator's own counter does not stand in");
        rig.connect();
        rig.run(500);
        assert!(!rig.got(0).fault && rig.station_counter(0) > stopped);
        assert_eq!(lock(&rig), SourceLock::Held(Source::Tcp));
    }
}

#[test]
fn a_web_page_or_a_plugin_that_was_first_keeps_the_tcp_client_out() {
    let mut rig = Rig::watched(Options::default());
    rig.say("source webview");
    rig.run(1_000);
    assert_eq!(lock(&rig), SourceLock::Held(Source::Webview));
    assert!(!rig.got(0).fault, "the page's library returns the acks");
    rig.station = Some(Station::default());
    rig.run(50);
    assert_eq!(lock(&rig), SourceLock::Conflict(Source::Webview, Source::Tcp));
    let mut rig = Rig::watched(Options::default());
    rig.say(r#"source plugin {"client_user_data":{"loader":{"user_data":{"boom":3}}}}"#);
    rig.run(200);
    assert_eq!(rig.got(0).user_data, Some(json!({ "boom": 3 })));
    rig.until(400, "a plugin returns its acks itself", |rig| rig.got(0).reason == "High Latency");
}

#[test]
fn a_client_that_closes_or_stalls_leaves_its_data_behind() {
    for (data_after_close, is_repeated) in [(ClientData::Repeat, true), (ClientData::Absent, false)] {
        let mut rig = Rig::watched(Options { data_after_close, ..Options::default() });
        rig.station = Some(Station::default());
        rig.run(1_000);
        rig.pipeline.handle_disconnect(Endpoint::Player);
        rig.run(200);
        let last = rig.station_counter(0);
        rig.run(1_000);
        assert_eq!(rig.got(0).user_data.is_some(), is_repeated);
        assert_eq!(rig.station_counter(0), last, "nothing new is made up");
        assert!(rig.got(0).reason.starts_with("High Latency"), "{}", rig.got(0).reason);
        rig.connect();
        rig.run(500);
        assert!(!rig.got(0).fault && lock(&rig) == SourceLock::Held(Source::Tcp));
    }
    // One that stays and says nothing.
    let mut rig = Rig::watched(Options::default());
    rig.station = Some(Station::default());
    rig.run(1_000);
    rig.station = None;
    rig.run(1_000);
    assert!(rig.got(0).user_data.is_some() && rig.got(0).reason == "High Latency");
    // One that does not read.
    for (back_pressure, ends) in [(Reaction::Drop, 0), (Reaction::Close, 1)] {
        let mut rig = Rig::watched(Options { back_pressure, ..Options::default() });
        rig.run(100);
        rig.pipeline.handle_back_pressure(Endpoint::Player);
        rig.run(100);
        assert_eq!(rig.ended.len(), ends);
        assert!(rig.events.contains(&(Endpoint::Player, Event::BackPressure)));
    }
}

#[test]
fn a_silent_client_may_be_closed_on_either_side() {
    let idle_timeout = Some(Duration::from_millis(300));
    let mut rig = Rig::watched(Options { idle_timeout, ..Options::default() });
    rig.station = Some(Station::default());
    rig.run(1_000);
    assert_eq!(rig.ended, []);
    rig.station = None;
    rig.gateways[0].answers = false;
    rig.run(400);
    rig.ended.sort_by_key(|(endpoint, _)| *endpoint);
    assert_eq!(rig.ended, [(Endpoint::Vehicle(0), Transmit::Close), (Endpoint::Player, Transmit::Close)]);
}

#[test]
fn a_second_client_of_the_player_is_met_in_three_ways() {
    for (second_player_client, want) in [
        (SecondClient::Reject, Admission::Reject),
        (SecondClient::Replace, Admission::Replace),
        (SecondClient::Ignore, Admission::Ignore),
    ] {
        let mut rig = Rig::watched(Options { second_player_client, ..Options::default() });
        rig.run(100);
        assert_eq!(rig.pipeline.handle_connect(rig.now, Endpoint::Player), want);
        let n = rig.feedback.len();
        rig.run(100);
        assert!(rig.feedback.len() > n, "whoever is the client is served");
    }
}

#[test]
fn bad_client_messages_are_dropped_in_step_or_end_the_connection() {
    let bodies = [
        " ".repeat(OCP_BODY + 1),
        "{".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        r#"{"client_user_data":{"loader":null}}"#.to_owned(),
        r#"{"client_user_data":{"loader":{}}}"#.to_owned(),
        r#"{"active_vehicle":7,"client_user_data":{}}"#.to_owned(),
        r#"{"client_user_data":{"loader":{"user_data":1,"ack_time_returned":1.5}}}"#.to_owned(),
        String::new(),
    ];
    for body in &bodies {
        for (bad_client_message, ends) in [(Reaction::Drop, 0), (Reaction::Close, 1)] {
            let mut rig = Rig::watched(Options { bad_client_message, ..Options::default() });
            rig.run(100);
            for part in frame(body.as_bytes()).chunks(1_000) {
                rig.pipeline.handle_bytes(rig.now, Endpoint::Player, part);
            }
            rig.run(20);
            let state = rig.pipeline.overview(rig.now).player;
            assert_eq!((state.bad_messages, rig.ended.len()), (1, ends), "{body:.40}");
            assert_eq!(lock(&rig), SourceLock::Free, "no source by a message that is none");
            if ends == 0 {
                send(&mut rig, r#"{"client_user_data":{"loader":{"user_data":{"next":1}}}}"#);
                rig.run(100);
                assert_eq!(rig.got(0).user_data, Some(json!({ "next": 1 })), "the next one is read");
            }
        }
    }
    // The largest is read.
    let mut rig = Rig::watched(Options::default());
    let body = r#"{"client_user_data":{"loader":{"user_data":1}}}"#;
    send(&mut rig, &format!("{body:OCP_BODY$}"));
    assert_eq!(rig.pipeline.overview(rig.now).player.messages, 1);
}

#[test]
fn feedback_beyond_the_limit_is_dropped_and_said_once() {
    let mut rig = Rig::new(Options::default(), &["loader", "dumper"]);
    rig.connect();
    let report = json!({ "text": "x".repeat(8_000) });
    rig.gateways[0].report = report.clone();
    rig.run(500);
    let n = rig.feedback.len();
    assert!(n > 20 && rig.pipeline.overview(rig.now).player.too_long == 0);
    // One more vehicle with as much, and nobody's feedback gets through.
    rig.gateways[1].report = report;
    rig.run(100);
    let n = rig.feedback.len();
    rig.run(1_000);
    assert_eq!(rig.feedback.len(), n);
    assert!(rig.pipeline.overview(rig.now).player.too_long > 50);
    let said =
        rig.events.iter().filter(|(_, event)| matches!(event, Event::TooLong(bytes) if *bytes > OCP_BODY));
    assert_eq!(said.count(), 1);
    rig.gateways[1].report = json!({});
    rig.run(100);
    assert!(rig.feedback.len() > n);
}

#[test]
fn control_beyond_the_limit_is_dropped_and_said_once() {
    let mut rig = Rig::watched(Options::default());
    rig.run(100);
    let text = "x".repeat(16_200);
    send(&mut rig, &json!({ "client_user_data": { "loader": { "user_data": text } } }).to_string());
    rig.run(100);
    let n = rig.gateways[0].got.len();
    rig.run(200);
    assert_eq!(rig.gateways[0].got.len(), n);
    assert!(rig.pipeline.snapshot().too_long > 5);
    assert_eq!(rig.events.iter().filter(|(_, event)| matches!(event, Event::TooLong(_))).count(), 1);
    send(&mut rig, r#"{"client_user_data":{"loader":{"user_data":1}}}"#);
    rig.run(100);
    assert_eq!(rig.got(0).user_data, Some(json!(1)));
}

#[test]
fn bad_feedback_is_put_into_the_stream() {
    for (what, want) in [
        ("oversize", FrameError::Oversize(16_385)),
        ("huge", FrameError::Oversize(u32::MAX)),
        ("http", FrameError::Oversize(u32::from_le_bytes(*b"HTTP"))),
        ("zero", FrameError::Empty),
    ] {
        let mut rig = Rig::watched(Options::default());
        rig.run(100);
        rig.say(&format!("player inject {what}"));
        rig.run(25);
        assert_eq!(rig.framing, [want], "{what}");
    }
    for what in ["utf8", "shape", "deep", "body {\"vehicle_feedback\":null}", "body 5"] {
        let mut rig = Rig::watched(Options::default());
        rig.run(100);
        rig.say(&format!("player inject {what} x2"));
        rig.run(200);
        assert_eq!((rig.bad.len(), rig.framing.len()), (2, 0), "{what}");
        assert!(rig.feedback.last().unwrap().0 > 280);
    }
    // One byte a second, and what comes later is whole again.
    let mut rig = Rig::watched(Options::default());
    rig.run(100);
    rig.pieces.clear();
    rig.say("player inject partial 1000");
    rig.run(5_000);
    let ones: Vec<_> = rig.pieces.iter().map(|(at, _)| *at).collect();
    assert!(ones.len() == 5 || ones.len() == 6, "{ones:?}");
    assert!(ones.windows(2).all(|w| w[1] - w[0] == 1_000));
    for what in ["split 2 7", "coalesce 4", "burst 3", "replay", "largest"] {
        let mut rig = Rig::watched(Options::default());
        rig.run(100);
        rig.say(&format!("player inject {what}"));
        rig.run(500);
        assert_eq!((rig.bad.len(), rig.framing.len()), (0, 0), "{what}");
        assert!(rig.feedback.len() > 30);
    }
}

#[test]
fn the_players_server_closes_stalls_falls_silent_and_restarts() {
    for (line, want) in [
        ("player close", Transmit::Close),
        ("player rst", Transmit::Reset),
        ("restart player", Transmit::Close),
    ] {
        let mut rig = Rig::watched(Options::default());
        rig.run(100);
        rig.say(line);
        rig.run(1);
        assert_eq!(rig.ended, [(Endpoint::Player, want)], "{line}");
        rig.connect();
        let n = rig.feedback.len();
        rig.run(100);
        assert!(rig.feedback.len() > n);
    }
    let mut rig = Rig::watched(Options::default());
    rig.run(1_000);
    rig.say("player stall 1500");
    let n = rig.feedback.len();
    rig.run(1_490);
    assert_eq!(rig.feedback.len(), n);
    assert!(!rig.pipeline.wants_bytes(rig.now, Endpoint::Player));
    assert!(rig.got(0).reason.contains("No Control Message"), "the whole program hangs");
    rig.run(200);
    let come = rig.feedback.len() - n;
    assert!((11..=15).contains(&come), "without a burst: {come}");
    assert!(!rig.got(0).fault);
    rig.say("player silence on");
    let n = rig.feedback.len();
    rig.run(500);
    assert_eq!(rig.feedback.len(), n);
    assert!(!rig.got(0).fault && rig.ended.is_empty());
}

#[test]
fn each_direction_of_the_radio_is_cut_for_itself_and_comes_back_by_itself() {
    let mut rig = Rig::watched(Options::default());
    rig.run(1_000);
    rig.say("cut uplink 300");
    rig.say("axis left_x 1");
    rig.run(290);
    assert_eq!(rig.got(0).controller.unwrap().axis(Axis::LeftX), 0.0, "no control");
    assert_eq!(rig.pipeline.overview(rig.now).to_json()["uplink"], json!("cut"));
    assert!(rig.pipeline.overview(rig.now).to_json()["downlink"] == json!("up"));
    rig.gateways[0].report = json!({ "new": 1 });
    rig.run(60);
    assert_eq!(rig.got(0).controller.unwrap().axis(Axis::LeftX), 1.0);
    rig.run(100);
    assert_eq!(rig.seen("loader").vehicle_data.as_ref().unwrap().user_data, json!({ "new": 1 }));
    rig.say("cut downlink 300");
    rig.say("axis left_x -1");
    rig.gateways[0].report = json!({ "new": 2 });
    rig.run(290);
    assert_eq!(rig.got(0).controller.unwrap().axis(Axis::LeftX), -1.0, "control goes on");
    assert_eq!(rig.seen("loader").vehicle_data.as_ref().unwrap().user_data, json!({ "new": 1 }));
    rig.run(100);
    assert_eq!(rig.seen("loader").vehicle_data.as_ref().unwrap().user_data, json!({ "new": 2 }));
    // Held is late, not lost.
    rig.say("hold both 200");
    let before = rig.pipeline.player().counter();
    rig.run(150);
    let held = rig.got(0).user_data.as_ref().unwrap()["counter"].as_u64().unwrap();
    assert!(held <= before);
    rig.run(120);
    assert!(rig.got(0).user_data.as_ref().unwrap()["counter"].as_u64().unwrap() >= held + 10);
}

#[test]
fn a_command_to_one_vehicle_leaves_the_other_alone() {
    let mut rig = Rig::new(Options::default(), &["loader", "dumper"]);
    rig.connect();
    rig.run(500);
    rig.say("vehicle dumper cut both");
    rig.say("vehicle loader fault StreamerSlow on");
    rig.run(1_100);
    assert_eq!(rig.got(0).reason, "Streamer Slow");
    assert!(rig.got(1).reason.starts_with("No Control Message"));
    let state = rig.pipeline.overview(rig.now).to_json();
    assert_eq!(state["vehicle"], json!("loader"));
    assert_eq!(state["faults"], state["vehicles"]["loader"]["faults"]);
    assert_eq!(state["vehicles"]["dumper"]["uplink"], json!("cut"));
    assert!(state["player"]["vehicle_feedback"]["dumper"]["sender_fault"].as_array().unwrap().len() == 2);
    // Without an address it goes to all of them.
    rig.say("restore both");
    rig.say("fault clear");
    rig.run(300);
    assert!(!rig.got(0).fault && !rig.got(1).fault);
    rig.say("vehicle dumper restart");
    rig.run(5);
    assert_eq!(rig.ended, [(Endpoint::Vehicle(1), Transmit::Close)]);
}

#[test]
fn a_session_that_only_watches_sends_no_control() {
    for (monitor_sends_null, reason) in [(false, "No Control Message, Latency Loop Not Closed"), (true, "")] {
        let mut rig = Rig::new(Options { monitor_sends_null, ..Options::default() }, &["loader", "dumper"]);
        rig.connect();
        rig.say("vehicle dumper monitor on");
        rig.run(1_200);
        assert_eq!(rig.seen("dumper").is_monitor, Some(true));
        assert_eq!(rig.got(1).reason, reason);
        assert!(rig.got(0).controller.is_some(), "the only one to drive needs no choice");
        rig.say("active dumper");
        rig.run(100);
        assert_eq!((rig.got(0).controller, rig.got(0).fault), (None, false));
    }
}

#[test]
fn without_a_vehicle_the_feedback_is_empty() {
    let mut rig = Rig::watched(Options::default());
    rig.say("session off");
    rig.run(100);
    assert!(rig.feedback.last().unwrap().1.vehicles.is_empty());
    rig.run(1_100);
    assert!(rig.got(0).reason.starts_with("No Control Message"));
    rig.say("session on");
    rig.run(300);
    assert!(!rig.got(0).fault && rig.seen("loader").sender_fault.is_empty());
}

#[test]
fn a_real_gamepad_takes_the_simulated_ones_place() {
    let mut rig = Rig::watched(Options::default());
    let held = crate::proto::ocp::Controller { axes: [0.25, 0.0, 0.0, 0.0, -1.0, 0.5], buttons: 3 };
    rig.pipeline.command(rig.now, super::super::Command::Pad(Some(held)));
    rig.run(100);
    assert_eq!((rig.got(0).controller, rig.feedback.last().unwrap().1.last_input), (Some(held), Some(held)));
    rig.pipeline.command(rig.now, super::super::Command::Pad(None));
    rig.run(100);
    assert!(rig.got(0).controller.is_none() && rig.seen("loader").sender_fault == ["Input Lost"]);
    rig.say("gamepad plug");
    rig.run(100);
    assert_eq!(
        rig.got(0).controller,
        Some(crate::proto::ocp::Controller::NEUTRAL),
        "at rest when it is back"
    );
}

#[test]
fn a_dead_zone_is_of_sticks_alone() {
    let mut rig = Rig::watched(Options { dead_zone: 0.1, ..Options::default() });
    rig.say("axis left_x 0.05");
    rig.say("axis left_y -0.5");
    rig.say("axis right_trigger 0.05");
    rig.run(100);
    assert_eq!(rig.got(0).controller.unwrap().axes, [0.0, -0.5, 0.0, 0.0, -1.0, 0.05]);
}

#[test]
fn the_players_own_part_can_be_switched_off() {
    let mut rig = Rig::watched(Options { own_user_data: false, own_ack_echo: false, ..Options::default() });
    rig.run(1_200);
    assert_eq!(rig.got(0).user_data, None);
    assert_eq!(rig.got(0).reason, "High Latency, Latency Loop Not Closed");
}

#[test]
fn moving_the_gamepad_while_it_arms_is_said() {
    let mut rig = Rig::watched(Options::default());
    rig.say("arm 300 200");
    rig.run(400);
    assert!(rig.got(0).controller.unwrap().pressed(Button::Start));
    rig.say("axis left_x 0.5");
    rig.say("axis left_x 0.6");
    rig.run(300);
    let said = |rig: &Rig| rig.events.iter().filter(|(_, event)| *event == Event::ArmingDisturbed).count();
    assert_eq!(said(&rig), 1);
    rig.say("neutral");
    rig.say("arm 100 100");
    rig.run(500);
    rig.say("axis left_x 0.5");
    rig.run(10);
    assert_eq!(said(&rig), 1, "after it nothing is disturbed");
}
