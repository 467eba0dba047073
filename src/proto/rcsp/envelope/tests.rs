//! Envelopes: the order of the checks, what is echoed, and the bytes of both directions.

use serde_json::json;

use super::super::header::HEADER;
use super::super::reply::{decode_event, decode_reply};
use super::*;

fn is_known(command: &str) -> bool {
    ["ListDevices", "GetDeviceInfo"].contains(&command)
}

fn decode(body: &str) -> Result<Command, Refusal> {
    decode_command(body.as_bytes(), is_known)
}

/// The code and the text of the `TrackId` of a refusal.
fn refused(body: impl AsRef<[u8]>) -> (ErrorCode, String) {
    let refusal = decode_command(body.as_ref(), is_known).unwrap_err();
    assert!(!refusal.message.is_empty());
    (refusal.code, refusal.track_id.json().to_owned())
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(members) = value else { panic!("{value}") };
    members
}

/// A whole message: the eight bytes, then the body.
fn message(head: [u8; HEADER], body: &str) -> Vec<u8> {
    [&head[..], body.as_bytes()].concat()
}

#[test]
fn the_published_vectors_are_written() {
    let list = r#"{"Command":"ListDevices","TrackId":"1","Version":1}"#;
    assert_eq!(command("ListDevices", "1", None), message([0xDC, 1, 8, 1, 0x33, 0, 0, 0], list));
    let info = r#"{"Command":"GetDeviceInfo","TrackId":"2","Version":1,"Arguments":{"DeviceId":"can0"}}"#;
    let arguments = object(json!({"DeviceId": "can0"}));
    assert_eq!(command("GetDeviceInfo", "2", Some(arguments)), message([0xDC, 1, 8, 1, 0x55, 0, 0, 0], info));
    let devices = r#"{"TrackId":"1","Response":{"Devices":[{"DeviceId":"can0"}]}}"#;
    let response = object(json!({"Devices": [{"DeviceId": "can0"}]}));
    let id = |text: &str| TrackId(format!("\"{text}\""));
    assert_eq!(ok(&id("1"), Some(response)), message([0xDC, 1, 8, 2, 0x3C, 0, 0, 0], devices));
    assert_eq!(ok(&id("3"), None), message([0xDC, 1, 8, 2, 0x0F, 0, 0, 0], r#"{"TrackId":"3"}"#));
    let no = r#"{"TrackId":"2","Error":{"Code":2,"Message":"unknown command"}}"#;
    assert_eq!(
        error(&id("2"), ErrorCode::UnknownCommand, "unknown command"),
        message([0xDC, 1, 8, 3, 0x3E, 0, 0, 0], no)
    );
}

#[test]
fn the_published_vectors_are_read() {
    for body in [
        r#"{"Command":"ListDevices","TrackId":"1","Version":1}"#,
        r#"{"Command": "ListDevices", "TrackId": "1", "Version": 1}"#,
    ] {
        let read = decode(body).unwrap();
        assert_eq!((read.command.as_str(), read.track_id.json()), ("ListDevices", "\"1\""));
        assert!(read.arguments.is_empty());
    }
    let info = r#"{"Command":"GetDeviceInfo","TrackId":"2","Version":1,"Arguments":{"DeviceId":"can0"}}"#;
    let read = decode(info).unwrap();
    assert_eq!(read.arguments, object(json!({"DeviceId": "can0"})));
    let reply = decode_reply(2, br#"{"TrackId":"1","Response":{"Devices":[{"DeviceId":"can0"}]}}"#).unwrap();
    assert_eq!(reply.track_id, json!("1"));
    assert_eq!(reply.result, Ok(Some(object(json!({"Devices": [{"DeviceId": "can0"}]})))));
    let reply = decode_reply(2, br#"{"TrackId":"3"}"#).unwrap();
    assert_eq!(reply.result, Ok(None));
    let reply =
        decode_reply(3, br#"{"TrackId":"2","Error":{"Code":2,"Message":"unknown command"}}"#).unwrap();
    let no = reply.result.unwrap_err();
    assert_eq!((no.code, no.message.as_str()), (Some(json!(2)), "unknown command"));
}

#[test]
fn events_say_who_what_where_and_the_rest() {
    let with = event("DeviceEvents", "BusStateChanged", Some("can0"), &json!({"State": "BusOff"}));
    let body = r#"{"Publisher":"DeviceEvents","Topic":"BusStateChanged","DeviceId":"can0","Data":{"State":"BusOff"}}"#;
    assert_eq!(with, message([0xDC, 1, 8, 4, 98, 0, 0, 0], body));
    let read = decode_event(body.as_bytes()).unwrap();
    assert_eq!((read.publisher(), read.topic()), (Some("DeviceEvents"), Some("BusStateChanged")));
    assert_eq!((read.device(), read.data()), (Some(&json!("can0")), Some(&json!({"State": "BusOff"}))));
    let without = event("Gateway", "StateChanged", None, &json!({}));
    assert_eq!(&without[HEADER..], br#"{"Publisher":"Gateway","Topic":"StateChanged","Data":{}}"#);
}

#[test]
fn the_first_check_that_fails_decides() {
    use ErrorCode::{InvalidArgument, Malformed, UnknownCommand, Version};
    // Each line mends the first fault of the line above it and leaves the others.
    for (body, code, id) in [
        ("", Malformed, "\"\""),
        ("[", Malformed, "\"\""),
        ("[]", Malformed, "\"\""),
        (r#"{"Version":"1","Arguments":[]}"#, Malformed, "\"\""),
        (r#"{"Command":7,"Version":"1","Arguments":[]}"#, Malformed, "\"\""),
        (r#"{"Command":"x","Version":"1","Arguments":[]}"#, Malformed, "\"\""),
        (r#"{"Command":"x","TrackId":true,"Version":"1","Arguments":[]}"#, Malformed, "\"\""),
        (r#"{"Command":"x","TrackId":"t","Version":"1","Arguments":[]}"#, Version, "\"t\""),
        (r#"{"Command":"x","TrackId":"t","Version":1,"Arguments":[]}"#, UnknownCommand, "\"t\""),
        (r#"{"Command":"ListDevices","TrackId":"t","Version":1,"Arguments":[]}"#, InvalidArgument, "\"t\""),
        (r#"{"Command":"ListDevices","TrackId":"t","Version":1,"Arguments":"a"}"#, InvalidArgument, "\"t\""),
    ] {
        assert_eq!(refused(body), (code, id.to_owned()), "{body}");
    }
    for body in [
        r#"{"Command":"ListDevices","TrackId":"t","Version":1,"Arguments":{}}"#,
        r#"{"Command":"ListDevices","TrackId":"t","Version":1,"Arguments":null}"#,
        r#"{"Command":"ListDevices","TrackId":"t","Version":1,"Else":[[]],"version":9}"#,
    ] {
        assert!(decode(body).unwrap().arguments.is_empty(), "{body}");
    }
}

#[test]
fn only_version_one_in_any_spelling_of_the_number() {
    for version in ["1", "1.0", "1e0", "10e-1", "1.000"] {
        let body = format!(r#"{{"Command":"ListDevices","TrackId":"t","Version":{version}}}"#);
        assert!(decode(&body).is_ok(), "{version}");
    }
    for version in ["0", "2", "-1", "\"1\"", "null", "true", "[1]", "1.0000001", "18446744073709551616"] {
        let body = format!(r#"{{"Command":"ListDevices","TrackId":"t","Version":{version}}}"#);
        assert_eq!(refused(&body), (ErrorCode::Version, "\"t\"".to_owned()), "{version}");
    }
    let absent = r#"{"Command":"ListDevices","TrackId":"t"}"#;
    assert_eq!(refused(absent), (ErrorCode::Version, "\"t\"".to_owned()));
}

#[test]
fn names_and_keys_are_told_apart_by_case() {
    let command = |name: &str| refused(format!(r#"{{"Command":"{name}","TrackId":"t","Version":1}}"#)).0;
    assert_eq!(command("listdevices"), ErrorCode::UnknownCommand);
    assert_eq!(command("ListDevices "), ErrorCode::UnknownCommand);
    assert_eq!(command(""), ErrorCode::UnknownCommand);
    let keys = |body: &str| refused(body).0;
    assert_eq!(keys(r#"{"command":"ListDevices","TrackId":"t","Version":1}"#), ErrorCode::Malformed);
    assert_eq!(keys(r#"{"Command":"ListDevices","trackId":"t","Version":1}"#), ErrorCode::Malformed);
    assert_eq!(keys(r#"{"Command":"ListDevices","TrackId":"t","version":1}"#), ErrorCode::Version);
}

#[test]
fn a_track_id_is_echoed_as_the_same_json_value() {
    for id in ["\"1\"", "\"\"", "7", "-0", "1.50", "1e3", "18446744073709551617", r#""\u00e9\n""#, "\"é\""] {
        let body = format!(r#"{{"TrackId" :  {id} , "Command":"ListDevices","Version":1}}"#);
        let read = decode(&body).unwrap();
        assert_eq!(read.track_id.json(), id);
        let answer = ok(&read.track_id, None);
        assert_eq!(answer[HEADER..], *format!(r#"{{"TrackId":{id}}}"#).as_bytes());
    }
    for id in ["null", "true", "[]", "{}"] {
        let body = format!(r#"{{"Command":"ListDevices","TrackId":{id},"Version":1}}"#);
        assert_eq!(refused(body), (ErrorCode::Malformed, "\"\"".to_owned()), "{id}");
    }
}

#[test]
fn a_track_id_is_told_where_it_could_be_read() {
    let malformed = |id: &str| (ErrorCode::Malformed, id.to_owned());
    // It stands in front of what is broken.
    assert_eq!(refused(r#"{"TrackId":"t","Command":"ListDev"#), malformed("\"t\""));
    assert_eq!(refused(r#"{"TrackId":"t"} x"#), malformed("\"t\""));
    assert_eq!(refused(r#"{"Command":}{"TrackId":"t"}"#), malformed("\"\""));
    // A key twice is no fault of the grammar: it is found behind that, too.
    assert_eq!(refused(r#"{"a":1,"a":1,"TrackId":"t"}"#), malformed("\"t\""));
    assert_eq!(refused(r#"{"a":{"b":1,"c":[{"d":1,"d":2}]},"TrackId":3}"#), malformed("3"));
    assert_eq!(refused(r#"{"TrackId":"t","\u0061":1,"a":1}"#), malformed("\"t\""));
    // Of two nobody knows which.
    assert_eq!(refused(r#"{"TrackId":"t","TrackId":"u","Command":"x"}"#), malformed("\"\""));
    assert_eq!(refused(r#"{"TrackId":"t","TrackId":"u","TrackId":"v"}"#), malformed("\"\""));
    assert_eq!(refused(b"{\"TrackId\":\"t\",\"x\":\"\xff\"}"), malformed("\"\""));
}

#[test]
fn names_have_an_end() {
    let body = |command: usize, id: usize| {
        format!(r#"{{"Command":"{}","TrackId":"{}","Version":1}}"#, "c".repeat(command), "t".repeat(id))
    };
    assert_eq!(refused(body(COMMAND, TRACK_ID)).0, ErrorCode::UnknownCommand);
    assert_eq!(refused(body(COMMAND + 1, TRACK_ID)).0, ErrorCode::Limit);
    assert_eq!(refused(body(COMMAND, TRACK_ID + 1)), (ErrorCode::Limit, "\"\"".to_owned()));
    let number = |digits: usize| {
        decode(&format!(r#"{{"Command":"ListDevices","TrackId":{},"Version":1}}"#, "7".repeat(digits)))
    };
    number(TRACK_ID).unwrap();
    assert_eq!(number(TRACK_ID + 1).unwrap_err().code, ErrorCode::Limit);
    // What a text may quote has an end too, and no character is cut in two.
    let long = error(&TrackId::empty(), ErrorCode::Internal, &"é".repeat(1_000));
    let reply = decode_reply(3, &long[HEADER..]).unwrap();
    assert_eq!(reply.result.unwrap_err().message, "é".repeat(MESSAGE / 2));
}

#[test]
fn nesting_has_an_end() {
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"Command":"ListDevices","TrackId":"t","Version":1,"Arguments":{{"a":{open}{close}}}}}"#)
    };
    // The body and its arguments are two of the levels.
    decode(&nested(crate::limits::JSON_DEPTH - 2)).unwrap();
    for depth in [crate::limits::JSON_DEPTH - 1, 30_000] {
        assert_eq!(refused(nested(depth)), (ErrorCode::Malformed, "\"t\"".to_owned()));
    }
}
