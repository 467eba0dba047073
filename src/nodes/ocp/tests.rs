//! The OCP side, byte by byte.

use serde_json::json;

use super::*;
use crate::proto::ocp::server::{ControlOut, Gamepad, LinkState, Part, decode_response, frame};
use crate::sim::world::plan::{self, PlanOptions};

fn at(ms: u64) -> Instant {
    Instant::from_millis(1_000 + ms)
}

fn node() -> OcpNode {
    let mut node =
        OcpNode::new(&plan::plan(PlanOptions::default()), Settings::default(), UserForm::default()).unwrap();
    node.handle_connected();
    node
}

fn healthy(ack: u64) -> ControlOut {
    ControlOut {
        ack_time: Part::Is(ack),
        ack_time_mac: Part::Is(7),
        client_user_data: Part::Is(json!({ "lights": true, "mode": 1, "counter": ack % 256 })),
        ..ControlOut::default()
    }
}

fn with_link(ack: u64, change: impl FnOnce(&mut LinkState)) -> ControlOut {
    let mut message = healthy(ack);
    if let Part::Is(link) = &mut message.telemetry {
        change(link);
    }
    message
}

fn put(node: &mut OcpNode, bytes: &[u8]) {
    let spare = node.spare();
    spare[..bytes.len()].copy_from_slice(bytes);
    node.commit(bytes.len());
}

/// Everything that the bytes cause.
fn events(node: &mut OcpNode, now: Instant, bytes: &[u8]) -> Vec<OcpEvent> {
    put(node, bytes);
    let mut all = Vec::new();
    while let Some(event) = node.poll_event(now) {
        all.push(event);
        if matches!(event, OcpEvent::Close { .. }) {
            break;
        }
    }
    all
}

fn faults(event: &OcpEvent) -> Faults {
    match event {
        OcpEvent::Message { faults, .. } | OcpEvent::Trip { faults, .. } | OcpEvent::Close { faults } => {
            *faults
        }
    }
}

/// The answer that would be written now.
fn answer(node: &mut OcpNode, now: Instant) -> Option<Vec<u8>> {
    let bytes = node.poll_transmit(now, true, None)?.to_vec();
    node.handle_written(now, bytes.len());
    Some(bytes)
}

#[test]
fn row_18_every_split_of_two_messages_gives_the_same_two_commands() {
    let bytes = [healthy(10).frame(), healthy(20).frame()].concat();
    for split in 0..=bytes.len() {
        let mut node = node();
        let mut all = events(&mut node, at(0), &bytes[..split]);
        all.extend(events(&mut node, at(1), &bytes[split..]));
        assert_eq!(all.len(), 2, "{split}");
        for event in &all {
            let OcpEvent::Message { command, faults } = event else { panic!("{split}: {event:?}") };
            assert!(faults.is_empty());
            assert_eq!(command.readings.user[0], UserValue::Bool(true));
        }
    }
}

#[test]
fn row_13_16_34_to_41_a_message_that_is_none_trips_and_the_third_within_a_second_closes() {
    let raw = |text: &str| frame(text.as_bytes());
    let gamepad = |axis: &str| {
        let mut pad = Gamepad::from(Controller::NEUTRAL);
        pad.raw.push(("left_x".to_owned(), axis.to_owned()));
        ControlOut { controller: Part::Is(pad), ..healthy(1) }.frame()
    };
    let bad = [
        ("no body", frame(b"")),
        ("no JSON", raw("nonsense")),
        ("half an object", raw("{\"ack_time\":1")),
        ("an empty object", raw("{}")),
        ("NaN", gamepad("NaN")),
        ("Infinity", gamepad("Infinity")),
        ("beyond f32", gamepad("1e39")),
        ("1.5", gamepad("1.5")),
        ("-7", gamepad("-7")),
        ("text", gamepad("\"0.5\"")),
        ("null", gamepad("null")),
        ("invalid UTF-8", frame(&[b'{', b'"', 0xFF, b'"', b':', b'1', b'}'])),
        ("deep", raw(&"[".repeat(16_000))),
        ("duplicate keys", raw("{\"ack_time\":1,\"ack_time\":2}")),
        ("negative latency", with_link(1, |link| link.latency = Part::Is(-1.0)).frame()),
        ("no latency", with_link(1, |link| link.latency = Part::Absent).frame()),
        ("no telemetry", ControlOut { telemetry: Part::Absent, ..healthy(1) }.frame()),
    ];
    for (name, bytes) in bad {
        let mut node = node();
        for strike in 0..3 {
            let all = events(&mut node, at(strike * 300), &bytes);
            assert_eq!(all.len(), 1, "{name}");
            assert!(faults(&all[0]).contains(Fault::InvalidMessage), "{name}: {:?}", all[0]);
            assert_eq!(matches!(all[0], OcpEvent::Close { .. }), strike == 2, "{name}, strike {strike}");
            assert_eq!(answer(&mut node, at(strike * 300)), None, "{name}: nothing to answer");
        }
        // Slower than three a second they trip each time and never close.
        let mut slow = self::node();
        for strike in 0..6 {
            let all = events(&mut slow, at(strike * 501), &bytes);
            assert!(matches!(all[0], OcpEvent::Trip { .. }), "{name}");
        }
    }
}

#[test]
fn row_36_1_01_clamps_and_beyond_is_invalid() {
    let with_axis = |value: f64| {
        let mut controller = Controller::NEUTRAL;
        controller.axes[0] = value;
        ControlOut { controller: Part::Is(controller.into()), ..healthy(1) }.frame()
    };
    for (value, read) in [(1.0, 1.0), (1.01, 1.0), (-1.01, -1.0), (-0.0, 0.0), (5e-324, 0.0)] {
        let all = events(&mut node(), at(0), &with_axis(value));
        let OcpEvent::Message { command, .. } = &all[0] else { panic!("{value}: {all:?}") };
        assert!((command.readings.pad.unwrap().axes[0] - read).abs() < 1e-12, "{value}");
    }
    for value in [1.011, -1.02] {
        let all = events(&mut node(), at(0), &with_axis(value));
        assert!(faults(&all[0]).contains(Fault::InvalidMessage), "{value}");
    }
}

#[test]
fn row_14_15_a_length_that_cannot_be_closes_at_once() {
    for length in [16_385_u32, 0x0100_0000, u32::MAX] {
        let mut node = node();
        let all = events(&mut node, at(0), &length.to_le_bytes());
        let OcpEvent::Close { faults } = &all[0] else { panic!("{length}: {all:?}") };
        assert!(faults.contains(Fault::FramingLost));
        node.handle_connected();
        let all = events(&mut node, at(1), &healthy(5).frame());
        assert!(matches!(all[0], OcpEvent::Message { .. }), "the next connection starts anew");
    }
}

#[test]
fn row_06_a_message_in_drips_is_a_fault_of_time_and_its_rest_does_not_hide_it() {
    let mut node = node();
    let bytes = healthy(1).frame();
    for (i, byte) in bytes.iter().enumerate().take(3) {
        assert!(events(&mut node, at(40 * i as u64), &[*byte]).is_empty());
    }
    assert!(node.handle_timeout(at(49)).is_empty());
    assert!(node.handle_timeout(at(50)).contains(Fault::FrameAssembly));
    events(&mut node, at(60), &bytes[3..]);
    assert!(node.handle_timeout(at(200)).is_empty());
}

#[test]
fn row_25_26_28_fault_and_reason_are_faults_and_are_answered() {
    let cases = [
        with_link(9, |link| link.fault = Part::Is(true)),
        with_link(9, |link| link.fault_reason = Part::Is("NoControlMessage".to_owned())),
    ];
    for message in cases {
        let mut node = node();
        let burst = [healthy(1).frame(), message.frame(), healthy(10).frame()].concat();
        let all = events(&mut node, at(0), &burst);
        assert!(faults(&all[1]).contains(Fault::OcpFault), "{all:?}");
        let OcpEvent::Message { command, .. } = &all[2] else { panic!("{all:?}") };
        assert_eq!(command.liveness.run, 1, "the run of valid messages starts again");
        let response = answer(&mut node, at(0)).unwrap();
        assert_eq!(decode_response(&response[4..]).unwrap().ack_time, 10);
    }
    // A readable `fault: true` counts whatever else is wrong with the message.
    let mut node = node();
    let message = with_link(9, |link| {
        link.fault = Part::Is(true);
        link.latency = Part::Is(-5.0);
    });
    let all = events(&mut node, at(0), &message.frame());
    assert!(faults(&all[0]).contains(Fault::OcpFault) && faults(&all[0]).contains(Fault::InvalidMessage));
}

#[test]
fn row_42_a_long_reason_is_cut_and_cleaned() {
    let mut node = node();
    let reason = format!("bad\u{7}\n\u{1b}[31m{}", "x".repeat(15_000));
    let message = with_link(1, |link| link.fault_reason = Part::Is(reason));
    events(&mut node, at(0), &message.frame());
    let shown = node.fault_reason();
    assert!(shown.len() <= crate::limits::FAULT_REASON && shown.starts_with("bad"));
    assert!(shown.chars().all(|c| !c.is_control()), "{shown:?}");
}

#[test]
fn row_22_i7_acks_come_back_byte_for_byte_and_the_newest_one_only() {
    for text in ["0", "9007199254740993", "18446744073709551615", "1.7e12", "1700000000000.0"] {
        let mut node = node();
        let message = ControlOut { ack_time: Part::Raw(text.to_owned()), ..healthy(1) };
        let all = events(&mut node, at(0), &message.frame());
        assert!(matches!(all[0], OcpEvent::Message { .. }), "{text}: {all:?}");
        let response = String::from_utf8(answer(&mut node, at(0)).unwrap()[4..].to_vec()).unwrap();
        assert!(response.contains(&format!("\"ack_time\":{text},")), "{response}");
    }
    let mut node = node();
    let burst: Vec<u8> = (1..=10).flat_map(|ack| healthy(ack).frame()).collect();
    events(&mut node, at(0), &burst);
    let response = answer(&mut node, at(0)).unwrap();
    assert_eq!(decode_response(&response[4..]).unwrap().ack_time, 10);
    assert_eq!(answer(&mut node, at(1)), None, "one answer, not ten old ones");
}

#[test]
fn row_05_an_answer_that_is_not_taken_is_a_fault_and_the_next_is_the_newest() {
    let mut node = node();
    events(&mut node, at(0), &healthy(1).frame());
    let len = node.poll_transmit(at(0), true, None).unwrap().len();
    node.handle_written(at(0), 0);
    for ack in 2..6 {
        events(&mut node, at(ack), &healthy(ack).frame());
        assert_eq!(node.poll_transmit(at(ack), true, None).unwrap().len(), len, "the old rest first");
        node.handle_written(at(ack), 1);
        let rest = node.poll_transmit(at(ack), true, None).unwrap().len();
        assert!(rest < len);
        // The byte that was taken stays taken.
        node.handle_written(at(ack), 0);
        if ack == 2 {
            assert!(node.handle_timeout(at(49)).is_empty());
            assert!(node.handle_timeout(at(50)).contains(Fault::ReplyBlocked));
        }
        node.handle_written(at(ack), rest);
        let response = answer(&mut node, at(ack)).unwrap();
        assert_eq!(decode_response(&response[4..]).unwrap().ack_time, ack);
        if ack < 5 {
            events(&mut node, at(ack), &healthy(ack).frame());
            node.poll_transmit(at(ack), true, None).unwrap();
            node.handle_written(at(ack), 0);
        }
    }
}

#[test]
fn row_33_no_ack_is_given_for_a_watchdog_that_does_not_run() {
    let mut node = node();
    events(&mut node, at(0), &healthy(1).frame());
    assert!(node.poll_transmit(at(0), false, None).is_none());
    assert!(node.poll_transmit(at(1), true, None).is_none(), "an old ack is not given later");
    assert_eq!(node.counters().withheld, 1);
    events(&mut node, at(10), &healthy(2).frame());
    assert!(answer(&mut node, at(10)).is_some());
}

#[test]
fn row_20_a_restarted_streamer_is_a_new_session_on_the_same_connection() {
    let mut node = node();
    events(&mut node, at(0), &healthy(5_000).frame());
    let session = node.session();
    let all = events(&mut node, at(10), &healthy(3).frame());
    assert!(faults(&all[0]).contains(Fault::AckBackwards));
    assert_ne!(node.session(), session);
}

#[test]
fn row_29_31_missing_controller_and_counter_are_read_as_missing() {
    let mut node = node();
    let message = ControlOut { controller: Part::null(), ..healthy(1) };
    let all = events(&mut node, at(0), &message.frame());
    let OcpEvent::Message { command, .. } = &all[0] else { panic!("{all:?}") };
    assert_eq!(command.readings.pad, None);
    let message = ControlOut { client_user_data: Part::Absent, ..healthy(2) };
    let all = events(&mut node, at(10), &message.frame());
    assert!(faults(&all[0]).contains(Fault::OperatorCounter), "{all:?}");
    let OcpEvent::Message { command, .. } = &all[0] else { panic!("{all:?}") };
    assert_eq!(command.readings.user[0], UserValue::Missing, "nothing is kept of the message before");
}

#[test]
fn row_43_unknown_fields_are_ignored() {
    let mut message = healthy(1);
    message.extra.push(("new_in_2027".to_owned(), "{\"a\":[1,2,{}]}".to_owned()));
    let all = events(&mut node(), at(0), &message.frame());
    assert!(matches!(&all[0], OcpEvent::Message { faults, .. } if faults.is_empty()));
}
