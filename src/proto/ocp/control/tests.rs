//! The control message: golden bytes, every rule of the schema, every truncation, and random mutations.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panicking")]

use super::*;
use crate::proto::ocp::fuzz::{self, Rng};
use crate::proto::ocp::server::{ControlOut, Gamepad, LinkState, Part};

const NEUTRAL: &[u8] = include_bytes!("../../../../tests/data/ocp/control_neutral.bin");
const DRIVING: &[u8] = include_bytes!("../../../../tests/data/ocp/control_driving.bin");
const FAULT: &[u8] = include_bytes!("../../../../tests/data/ocp/control_fault.bin");

/// The message with one part of its text replaced, which must be there.
fn replaced(from: &str, to: &str) -> Vec<u8> {
    let text = core::str::from_utf8(&DRIVING[4..]).unwrap();
    assert!(text.contains(from), "{from} is not in the golden message");
    text.replacen(from, to, 1).into_bytes()
}

fn error(body: &[u8]) -> ControlError {
    decode(body).unwrap_err().error
}

fn axis(text: &str) -> Result<f64, ControlError> {
    let body = replaced(r#""left_x":-0.5"#, &format!(r#""left_x":{text}"#));
    decode(&body).map(|m| m.controller.unwrap().axis(Axis::LeftX)).map_err(|i| i.error)
}

fn link(change: impl FnOnce(&mut LinkState)) -> Vec<u8> {
    let mut message = ControlOut::default();
    if let Part::Is(link) = &mut message.telemetry {
        change(link);
    }
    message.body()
}

#[test]
fn the_golden_neutral_message_decodes_and_encodes() {
    assert_eq!(NEUTRAL[..4], [0xd3, 0x01, 0, 0], "467 bytes of body");
    let message = decode(&NEUTRAL[4..]).unwrap();
    assert_eq!(message.controller, Some(Controller::NEUTRAL));
    assert_eq!(message.telemetry.latency_ms, 42.0);
    assert!(!message.telemetry.fault && message.telemetry.fault_reason.is_empty());
    assert_eq!(message.telemetry.missing_cameras, 0);
    assert_eq!((message.ack_time, message.ack_time_mac), (&b"123456"[..], &b"3735928559"[..]));
    assert_eq!(message.ack_time_ms, 123_456.0);
    assert_eq!(message.client_user_data, None);
    let mut out = ControlOut {
        ack_time: Part::Is(123_456),
        ack_time_mac: Part::Is(0xdead_beef),
        ..ControlOut::default()
    };
    if let Part::Is(link) = &mut out.telemetry {
        link.latency = Part::Is(42.0);
    }
    assert_eq!(out.frame(), NEUTRAL);
}

#[test]
fn the_golden_driving_message_decodes() {
    let message = decode(&DRIVING[4..]).unwrap();
    let controller = message.controller.unwrap();
    assert_eq!(controller.axes, [-0.5, 0.0, 0.25, -1.0, -1.0, 0.75]);
    let pressed: Vec<_> = Button::ALL.into_iter().filter(|b| controller.pressed(*b)).collect();
    assert_eq!(pressed, [Button::LeftBumper, Button::Start, Button::DpadLeft]);
    assert_eq!(message.telemetry.missing_cameras, 2);
    assert_eq!(message.ack_time, b"9007199254740993");
    assert_eq!(message.client_user_data, Some(&br#"{"user_data":{"counter":17,"mode":"crab"}}"#[..]));
}

#[test]
fn the_golden_fault_message_decodes() {
    let message = decode(&FAULT[4..]).unwrap();
    assert_eq!(message.controller, None);
    assert!(message.telemetry.fault);
    assert!(message.telemetry.fault_reason.is("High Latency, Latency Loop Not Closed"));
    assert_eq!(message.ack_time, b"1.7e12");
    assert_eq!(message.ack_time_ms, 1.7e12);
}

#[test]
fn row_15_every_truncation_of_the_golden_messages_is_an_error() {
    for golden in [NEUTRAL, DRIVING, FAULT] {
        for cut in 0..golden.len() - 4 {
            let invalid = decode(&golden[4..4 + cut]).unwrap_err();
            assert_eq!(invalid.error, ControlError::Json(JsonError::UnexpectedEnd), "cut at {cut}");
        }
    }
}

#[test]
fn a_fault_is_seen_in_a_message_cut_anywhere_after_it() {
    let text = core::str::from_utf8(&FAULT[4..]).unwrap();
    let end = text.find(r#""fault":true"#).unwrap() + r#""fault":true"#.len();
    for cut in 0..FAULT.len() - 4 {
        assert_eq!(decode(&FAULT[4..4 + cut]).unwrap_err().fault_seen, cut >= end, "cut at {cut}");
    }
}

#[test]
fn row_22_ack_numbers_come_back_as_they_were_written() {
    for text in [
        "0",
        "9007199254740993",
        "18446744073709551615",
        "1.7e12",
        "1.7E+12",
        "123456.000",
        "99999999999999999999.125",
    ] {
        let body = replaced("9007199254740993", text);
        let message = decode(&body).unwrap();
        assert_eq!(message.ack_time, text.as_bytes());
        assert_eq!(message.ack_time_ms, text.parse::<f64>().unwrap());
    }
    let long = replaced("9007199254740993", "1.00000000000000000000000");
    assert_eq!(error(&long), ControlError::AckTooLong(Field::AckTime));
    assert_eq!(error(&replaced("9007199254740993", "-1")), ControlError::NegativeAckTime);
    for text in ["null", "\"5\"", "true", "{}"] {
        assert_eq!(error(&replaced("9007199254740993", text)), ControlError::WrongType(Field::AckTime));
        let body = replaced("\"ack_time_mac\":4294967295", &format!("\"ack_time_mac\":{text}"));
        assert_eq!(error(&body), ControlError::WrongType(Field::AckTimeMac));
    }
}

#[test]
fn row_34_nan_and_infinity_make_the_message_invalid() {
    for text in ["NaN", "Infinity", "-Infinity", "inf"] {
        assert!(matches!(axis(text), Err(ControlError::Json(_))), "{text}");
    }
    assert_eq!(axis("1e999"), Err(ControlError::Json(JsonError::NumberRange)));
}

#[test]
fn row_35_an_axis_of_1e39_is_refused_not_clamped() {
    assert_eq!(axis("1e39"), Err(ControlError::AxisRange(Axis::LeftX)));
    assert_eq!(axis("-1e39"), Err(ControlError::AxisRange(Axis::LeftX)));
}

#[test]
fn row_36_axes_beyond_rounding_noise_are_refused() {
    for text in ["1.5", "-7", "2", "-2", "1.0101", "-1.0101"] {
        assert_eq!(axis(text), Err(ControlError::AxisRange(Axis::LeftX)), "{text}");
    }
    for (text, want) in
        [("1.0001", 1.0), ("-1.0001", -1.0), ("1.01", 1.0), ("-1.01", -1.0), ("1", 1.0), ("1e0", 1.0)]
    {
        assert_eq!(axis(text), Ok(want), "{text}");
    }
}

#[test]
fn row_37_negative_zero_and_subnormals_are_zero() {
    for text in ["-0.0", "-0", "5e-324", "-1e-310", "1e-40", "-1e-40"] {
        let value = axis(text).unwrap();
        assert!(value == 0.0 && value.is_sign_positive(), "{text} became {value}");
    }
}

#[test]
fn row_38_known_keys_twice_are_refused_wherever_they_stand() {
    for (from, to, field) in [
        (r#""ack_time":"#, r#""ack_time":1,"ack_time":"#, Field::AckTime),
        (r#""ack_time_mac":"#, r#""ack_time_mac":1,"ack_time_mac":"#, Field::AckTimeMac),
        (r#"{"controller""#, r#"{"controller":null,"controller""#, Field::Controller),
        (
            r#""telemetry":{"#,
            r#""telemetry":{"latency":1,"fault":false,"fault_reason":""},"telemetry":{"#,
            Field::Telemetry,
        ),
        (r#""client_user_data":"#, r#""client_user_data":1,"client_user_data":"#, Field::ClientUserData),
        (r#""buttons":"#, r#""buttons":{},"buttons":"#, Field::Buttons),
        (
            r#""axes":"#,
            r#""axes":{"left_x":0,"left_y":0,"right_x":0,"right_y":0,"left_trigger":0,"right_trigger":0},"axes":"#,
            Field::Axes,
        ),
        (r#""start":true"#, r#""start":true,"start":false"#, Field::Button(Button::Start)),
        (r#""left_x":"#, r#""left_x":0,"left_x":"#, Field::Axis(Axis::LeftX)),
        (r#""left_x":"#, r#""\u006ceft_x":0,"left_x":"#, Field::Axis(Axis::LeftX)),
        (r#""latency":"#, r#""latency":1,"latency":"#, Field::Latency),
        (r#""fault":false"#, r#""fault":false,"fault":false"#, Field::Fault),
        (r#""fault_reason":"#, r#""fault_reason":"","fault_reason":"#, Field::FaultReason),
        (r#""missing_cameras":"#, r#""missing_cameras":null,"missing_cameras":"#, Field::MissingCameras),
    ] {
        let found = error(&replaced(from, to));
        let first_of_empty = ControlError::Missing(Field::Button(Button::A));
        assert!(
            found == ControlError::Duplicate(field) || (field == Field::Buttons && found == first_of_empty),
            "{to}: {found}"
        );
    }
}

#[test]
fn row_38_a_fault_in_either_of_two_keys_is_seen() {
    for to in [r#""fault":true,"fault":false"#, r#""fault":false,"fault":true"#] {
        let invalid = decode(&replaced(r#""fault":false"#, to)).unwrap_err();
        assert_eq!(invalid, Invalid { error: ControlError::Duplicate(Field::Fault), fault_seen: true });
    }
}

#[test]
fn row_39_wrong_types_are_refused() {
    for text in ["null", "\"0.5\"", "true", "[0]", "{}"] {
        assert_eq!(axis(text), Err(ControlError::WrongType(Field::Axis(Axis::LeftX))), "{text}");
    }
    for text in ["null", "1", "0", "\"true\"", "[]"] {
        let body = replaced(r#""start":true"#, &format!(r#""start":{text}"#));
        assert_eq!(error(&body), ControlError::WrongType(Field::Button(Button::Start)), "{text}");
        let body = replaced(r#""fault":false"#, &format!(r#""fault":{text}"#));
        assert_eq!(error(&body), ControlError::WrongType(Field::Fault), "{text}");
    }
    for text in ["null", "\"1\"", "true", "[1]"] {
        let body = link(|l| l.latency = Part::Raw(text.into()));
        assert_eq!(error(&body), ControlError::WrongType(Field::Latency), "{text}");
    }
    for text in ["null", "5", "[\"x\"]"] {
        let body = link(|l| l.fault_reason = Part::Raw(text.into()));
        assert_eq!(error(&body), ControlError::WrongType(Field::FaultReason), "{text}");
    }
    for text in ["5", "{}", "\"cam\"", "[5]", "[null]"] {
        let body = link(|l| l.missing_cameras = Part::Raw(text.into()));
        assert_eq!(error(&body), ControlError::WrongType(Field::MissingCameras), "{text}");
    }
    for text in ["5", "[]", "\"\"", "true"] {
        let message = ControlOut { controller: Part::Raw(text.into()), ..ControlOut::default() };
        assert_eq!(error(&message.body()), ControlError::WrongType(Field::Controller), "{text}");
    }
    for text in ["5", "null", "[]"] {
        let message = ControlOut { telemetry: Part::Raw(text.into()), ..ControlOut::default() };
        assert_eq!(error(&message.body()), ControlError::WrongType(Field::Telemetry), "{text}");
    }
    for (from, to, field) in [
        (r#""buttons":{"#, r#""buttons":null,"x":{"#, Field::Buttons),
        (r#""axes":{"#, r#""axes":[0,0,0,0,-1,-1],"x":{"#, Field::Axes),
    ] {
        assert_eq!(error(&replaced(from, to)), ControlError::WrongType(field));
    }
    for text in ["[]", "5", "null", "\"x\""] {
        assert_eq!(error(text.as_bytes()), ControlError::NotAnObject, "{text}");
    }
}

#[test]
fn row_39_missing_required_fields_are_refused() {
    let without = |name: &str| Gamepad { without: vec![name.into()], ..Controller::NEUTRAL.into() };
    for button in Button::ALL {
        let message = ControlOut { controller: Part::Is(without(button.name())), ..ControlOut::default() };
        assert_eq!(error(&message.body()), ControlError::Missing(Field::Button(button)));
    }
    for axis in Axis::ALL {
        let message = ControlOut { controller: Part::Is(without(axis.name())), ..ControlOut::default() };
        assert_eq!(error(&message.body()), ControlError::Missing(Field::Axis(axis)));
    }
    let base = ControlOut::default;
    assert_eq!(
        error(&ControlOut { telemetry: Part::Absent, ..base() }.body()),
        ControlError::Missing(Field::Telemetry)
    );
    assert_eq!(
        error(&ControlOut { ack_time: Part::Absent, ..base() }.body()),
        ControlError::Missing(Field::AckTime)
    );
    assert_eq!(
        error(&ControlOut { ack_time_mac: Part::Absent, ..base() }.body()),
        ControlError::Missing(Field::AckTimeMac)
    );
    assert_eq!(error(&link(|l| l.latency = Part::Absent)), ControlError::Missing(Field::Latency));
    assert_eq!(error(&link(|l| l.fault = Part::Absent)), ControlError::Missing(Field::Fault));
    assert_eq!(error(&link(|l| l.fault_reason = Part::Absent)), ControlError::Missing(Field::FaultReason));
    let empty = ControlOut { controller: Part::Raw("{}".into()), ..base() };
    assert_eq!(error(&empty.body()), ControlError::Missing(Field::Buttons));
}

#[test]
fn row_32_a_negative_latency_is_refused_and_any_number_form_accepted() {
    assert_eq!(error(&link(|l| l.latency = Part::Is(-1.0))), ControlError::NegativeLatency);
    for (text, want) in
        [("0", 0.0), ("-0", 0.0), ("12.5", 12.5), ("1e3", 1_000.0), ("4294967295", 4_294_967_295.0)]
    {
        let body = link(|l| l.latency = Part::Raw(text.into()));
        assert_eq!(decode(&body).unwrap().telemetry.latency_ms, want);
    }
}

#[test]
fn an_absent_controller_and_null_are_the_same() {
    for controller in [Part::Absent, Part::null()] {
        let body = ControlOut { controller, ..ControlOut::default() }.body();
        assert_eq!(decode(&body).unwrap().controller, None);
    }
}

#[test]
fn optional_members_may_be_absent_null_or_full() {
    for (text, want) in [("null", 0), ("[]", 0), (r#"["a","b"]"#, 2)] {
        let body = link(|l| l.missing_cameras = Part::Raw(text.into()));
        assert_eq!(decode(&body).unwrap().telemetry.missing_cameras, want);
    }
    for (text, want) in [("null", None), ("5", Some("5")), ("{ }", Some("{ }")), ("[1, 2]", Some("[1, 2]"))] {
        let body = ControlOut { client_user_data: Part::Raw(text.into()), ..ControlOut::default() }.body();
        assert_eq!(decode(&body).unwrap().client_user_data, want.map(str::as_bytes));
    }
}

#[test]
fn row_28_a_reason_without_a_fault_is_reported_as_it_is() {
    let body = link(|l| l.fault_reason = Part::Is("CameraLost".into()));
    let message = decode(&body).unwrap();
    assert!(!message.telemetry.fault && message.telemetry.fault_reason.is("CameraLost"));
}

#[test]
fn row_40_deep_nesting_is_refused_in_bounded_time() {
    for text in ["[".repeat(16_000), "[".repeat(10_000) + &"]".repeat(10_000), "{\"a\":".repeat(3_000)] {
        let body = ControlOut { client_user_data: Part::Raw(text.clone()), ..ControlOut::default() }.body();
        assert_eq!(error(&body), ControlError::Json(JsonError::TooDeep));
        decode(text.as_bytes()).unwrap_err();
    }
    decode(&[b'['; 16_384]).unwrap_err();
}

#[test]
fn row_41_bad_text_makes_the_message_invalid() {
    let mut body = DRIVING[4..].to_vec();
    let at = body.iter().position(|b| *b == b'c').unwrap();
    body[at] = 0xff;
    assert_eq!(error(&body), ControlError::Json(JsonError::NotUtf8));
    let body = link(|l| l.fault_reason = Part::Raw(r#""\ud800""#.into()));
    assert_eq!(error(&body), ControlError::Json(JsonError::LoneSurrogate));
    let body =
        ControlOut { extra: vec![("new".into(), r#""\udc00""#.into())], ..ControlOut::default() }.body();
    assert_eq!(error(&body), ControlError::Json(JsonError::LoneSurrogate), "also where nobody looks");
}

#[test]
fn row_42_a_long_reason_is_cut_for_display_and_the_message_stays_valid() {
    let reason: String = "Hi\u{1b}[2J\n\u{7f}\u{85}\u{202e}ä😀".chars().cycle().take(15_000 / 2).collect();
    let body = link(|l| {
        l.fault = Part::Is(true);
        l.fault_reason = Part::Is(reason.clone());
    });
    let message = decode(&body).unwrap();
    assert!(message.telemetry.fault);
    let mut out = [0xa5; limits::FAULT_REASON];
    let shown = display_reason(message.telemetry.fault_reason, &mut out);
    assert!(shown.starts_with("Hi [2J    ä😀Hi"), "{shown}");
    assert!(shown.len() > limits::FAULT_REASON - 4 && !shown.chars().any(char::is_control));
    let short = decode(&FAULT[4..]).unwrap();
    assert_eq!(
        display_reason(short.telemetry.fault_reason, &mut out),
        "High Latency, Latency Loop Not Closed"
    );
}

#[test]
fn row_43_unknown_members_are_ignored_everywhere() {
    let mut message = ControlOut {
        extra: vec![("is_monitor".into(), r#"[{"fault":true}]"#.into())],
        ..ControlOut::default()
    };
    if let Part::Is(link) = &mut message.telemetry {
        link.latency = Part::Raw(r#"7,"new":{"latency":"x"}"#.into());
    }
    message.controller = Part::Is(Gamepad {
        raw: vec![
            ("a".into(), r#"true,"paddle_1":null"#.into()),
            ("left_x".into(), r#"0.5,"gyro":[1,2]"#.into()),
        ],
        ..Controller::NEUTRAL.into()
    });
    let body = message.body();
    let decoded = decode(&body).unwrap();
    assert_eq!(decoded.telemetry.latency_ms, 7.0);
    assert!(!decoded.telemetry.fault);
    let controller = decoded.controller.unwrap();
    assert!(controller.pressed(Button::A) && controller.axis(Axis::LeftX) == 0.5);
}

#[test]
fn row_25_a_readable_fault_is_seen_whatever_else_is_wrong() {
    let fault = |change: fn(&mut ControlOut)| {
        let mut message = ControlOut::default();
        if let Part::Is(link) = &mut message.telemetry {
            link.fault = Part::Is(true);
        }
        change(&mut message);
        decode(&message.body()).unwrap_err().fault_seen
    };
    assert!(fault(|m| m.ack_time = Part::Absent));
    assert!(fault(|m| m.controller = Part::Raw("[1,{}]".into())));
    assert!(fault(|m| m.controller = Part::Raw("NaN".into())), "before the fault, and no JSON");
    assert!(fault(|m| m.extra.push(("x".into(), "\"\\q".into()))), "after it, and never closed");
    assert!(fault(|m| m.controller =
        Part::Is(Gamepad { raw: vec![("left_x".into(), "1e39".into())], ..Controller::NEUTRAL.into() })));
    let mut message = ControlOut { ack_time: Part::Absent, ..ControlOut::default() };
    message.client_user_data = Part::Raw(r#"{"fault":true}"#.into());
    assert!(!decode(&message.body()).unwrap_err().fault_seen, "another field of that name is not the fault");
}

#[test]
fn names_and_values_belong_together() {
    for (at, button) in Button::ALL.into_iter().enumerate() {
        assert_eq!((button as usize, Button::from_name(button.name())), (at, Some(button)));
    }
    for (at, axis) in Axis::ALL.into_iter().enumerate() {
        assert_eq!((axis as usize, Axis::from_name(axis.name())), (at, Some(axis)));
        assert_eq!(axis.rest(), Controller::NEUTRAL.axis(axis));
    }
    assert_eq!((Axis::from_name("LEFT_X"), Button::from_name("")), (None, None));
}

#[test]
fn random_messages_survive_encoding_and_decoding() {
    let mut rng = Rng::from_environment("control round trip");
    for _ in 0..5_000 {
        let controller = fuzz::controller_from(rng.bits());
        let message = ControlOut {
            controller: Part::Is(controller.into()),
            ack_time: Part::Is(rng.bits()),
            client_user_data: Part::Raw(rng.document(3)),
            ..ControlOut::default()
        };
        let body = message.body();
        assert_eq!(decode(&body).unwrap().controller, Some(controller));
        fuzz::control(&body);
    }
}

#[test]
fn mutated_messages_never_panic_and_agree_with_a_second_reading() {
    let mut rng = Rng::from_environment("control mutations");
    let (mut valid, total) = (0, 200_000);
    for round in 0..total {
        let golden = [NEUTRAL, DRIVING, FAULT][round % 3];
        let mut body = golden[4..].to_vec();
        rng.mutate(&mut body);
        valid += usize::from(decode(&body).is_ok());
        fuzz::control(&body);
    }
    println!("{valid} of {total} mutated messages were still valid");
    assert!(valid > total / 50, "mutations hit nothing but syntax: {valid} of {total} valid");
}

#[test]
fn mutated_user_data_streams_and_reports_hold_their_properties() {
    let mut rng = Rng::from_environment("ocp properties");
    for _ in 0..30_000 {
        let mut data = rng.document(4).into_bytes();
        fuzz::user_data(&data);
        rng.mutate(&mut data);
        fuzz::user_data(&data);
        fuzz::response(&data);
        let mut stream = vec![u8::try_from(rng.below(256)).unwrap()];
        for _ in 0..rng.below(5) {
            stream.extend(crate::proto::ocp::server::frame(&data));
        }
        if rng.below(2) == 0 {
            rng.mutate(&mut stream);
        }
        fuzz::deframe(&stream);
    }
}
