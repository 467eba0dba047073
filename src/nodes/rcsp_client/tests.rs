//! The client's decisions, message by message.

use super::*;
use crate::proto::rcsp::header::encode;

const TIMEOUT: Duration = Duration::from_secs(5);

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn ok(body: &str) -> Vec<u8> {
    encode(PayloadType::ResponseOk, body.as_bytes())
}

fn refused(body: &str) -> Vec<u8> {
    encode(PayloadType::ResponseError, body.as_bytes())
}

fn event(body: &str) -> Vec<u8> {
    encode(PayloadType::Event, body.as_bytes())
}

/// A node on which so many commands wait.
fn asked(count: usize) -> ClientNode {
    let mut node = ClientNode::new(TIMEOUT);
    for _ in 0..count {
        node.command(at(0), "ListDevices", None).unwrap();
    }
    node
}

/// What one command brings when this is what the server says.
fn said(bytes: &[u8]) -> (Option<Result<Option<String>, RemoteError>>, Option<Unusable>) {
    let mut node = asked(1);
    node.handle_bytes(bytes);
    let answer =
        node.poll_answer().map(|answer| answer.result.map(|raw| raw.map(|raw| raw.get().to_owned())));
    (answer, node.unusable().cloned())
}

fn protocol(error: ProtocolError) -> (Option<Result<Option<String>, RemoteError>>, Option<Unusable>) {
    (None, Some(Unusable::Protocol(error)))
}

#[test]
fn a_command_is_written_as_the_protocol_page_has_it() {
    let mut node = asked(1);
    let body = br#"{"Command":"ListDevices","TrackId":"1","Version":1}"#;
    let mut expected = vec![0xDC, 1, 8, 1, 0x33, 0, 0, 0];
    expected.extend(body);
    assert_eq!(node.poll_transmit(), Some(expected.as_slice()));
    // The kernel takes it in two pieces.
    node.handle_written(10);
    assert_eq!(node.poll_transmit(), expected.get(10..));
    node.handle_written(49);
    assert_eq!(node.poll_transmit(), None);
    let arguments = RawValue::from_string("{\"DeviceId\":1.50e2}".to_owned()).unwrap();
    node.command(at(0), "GetDeviceInfo", Some(&arguments)).unwrap();
    let body = br#"{"Command":"GetDeviceInfo","TrackId":"2","Version":1,"Arguments":{"DeviceId":1.50e2}}"#;
    assert_eq!(node.poll_transmit().unwrap().get(8..), Some(body.as_slice()));
}

#[test]
fn answers_complete_the_oldest_command_and_events_pass_between() {
    let mut stream = event("{\"n\":1}");
    stream.extend(ok(r#"{"TrackId":"1","Response":{"a": 1.50}}"#));
    stream.extend(event("[2]"));
    stream.extend(refused(r#"{"TrackId":"2","Error":{"Code":2,"Message":"no"}}"#));
    stream.extend(ok(r#"{"TrackId":"3"}"#));
    for piece in [1, 7, stream.len()] {
        let mut node = asked(3);
        for bytes in stream.chunks(piece) {
            node.handle_bytes(bytes);
        }
        assert_eq!(node.unusable(), None);
        let first = node.poll_answer().unwrap();
        assert_eq!((first.ticket, first.result.unwrap().unwrap().get()), (Ticket(1), "{\"a\": 1.50}"));
        let second = node.poll_answer().unwrap();
        assert_eq!((second.ticket, second.result.unwrap_err().message.as_str()), (Ticket(2), "no"));
        let third = node.poll_answer().unwrap();
        assert!(third.ticket == Ticket(3) && third.result.unwrap().is_none());
        assert!(node.poll_answer().is_none() && node.due().is_none());
        assert_eq!(node.poll_event().unwrap().json.get(), "{\"n\":1}");
        assert_eq!(node.poll_event().unwrap().json.get(), "[2]");
        assert!(node.poll_event().is_none());
    }
}

#[test]
fn what_is_optional_may_be_absent_or_null_and_every_form_of_error_is_one() {
    for none in [r#"{"TrackId":"1"}"#, r#"{"TrackId":"1","Response":null}"#] {
        assert_eq!(said(&ok(none)), (Some(Ok(None)), None), "{none}");
    }
    let error = |code: serde_json::Value, message: &str| {
        let code = (!code.is_null()).then_some(code);
        (Some(Err(RemoteError { code, message: message.to_owned() })), None)
    };
    for (body, expected) in [
        (r#"{"TrackId":"1","Error":{"Code":7,"Message":"m"}}"#, error(7.into(), "m")),
        (r#"{"TrackId":"1","Error":{"Code":"E7","Message":"m"}}"#, error("E7".into(), "m")),
        (r#"{"TrackId":"1","Error":{"Message":"m"}}"#, error(serde_json::Value::Null, "m")),
        (r#"{"TrackId":"1","Error":null}"#, error(serde_json::Value::Null, "")),
        (r#"{"TrackId":"1"}"#, error(serde_json::Value::Null, "")),
    ] {
        assert_eq!(said(&refused(body)), expected, "{body}");
    }
}

#[test]
fn what_no_server_may_send_ends_the_connection() {
    for wrong in ["\"2\"", "1", "null", "[]", "\"\""] {
        let body = format!("{{\"TrackId\":{wrong}}}");
        assert_eq!(said(&ok(&body)), protocol(ProtocolError::TrackId), "{wrong}");
    }
    assert_eq!(said(&ok("{}")), protocol(ProtocolError::TrackId));
    for kind in [0, 1, 5, 255] {
        let message = [0xDC, 1, 8, kind, 2, 0, 0, 0, b'{', b'}'];
        assert_eq!(said(&message), protocol(ProtocolError::Kind(kind)), "{kind}");
    }
    for empty in [2, 3, 4] {
        let message = [0xDC, 1, 8, empty, 0, 0, 0, 0];
        assert_eq!(said(&message), protocol(ProtocolError::Body(ReplyError::NotJson)), "{empty}");
    }
    let broken = |error| protocol(ProtocolError::Header(error));
    assert_eq!(said(b"HTTP/1.1"), broken(HeaderError::Marker(b'H')));
    assert_eq!(said(&[0xDC, 2, 8, 2, 2, 0, 0, 0]), broken(HeaderError::Version(2)));
    assert_eq!(said(&[0xDC, 1, 7, 2, 2, 0, 0, 0]), broken(HeaderError::Size(7)));
    let size = 17_u32 << 20;
    let [a, b, c, d] = size.to_le_bytes();
    assert_eq!(said(&[0xDC, 1, 8, 2, a, b, c, d]), broken(HeaderError::TooLong(size)));
    let mut node = ClientNode::new(TIMEOUT);
    node.handle_bytes(&ok(r#"{"TrackId":"1"}"#));
    assert_eq!(node.unusable(), Some(&Unusable::Protocol(ProtocolError::Unasked)));
}

#[test]
fn a_longer_header_is_passed_over() {
    let body = br#"{"TrackId":"1"}"#;
    let mut message = vec![0xDC, 1, 11, 2, 15, 0, 0, 0, 9, 9, 9];
    message.extend(body);
    assert_eq!(said(&message), (Some(Ok(None)), None));
}

#[test]
fn a_refusal_of_nothing_in_particular_ends_the_connection_with_its_reason() {
    let message = refused(r#"{"TrackId":"","Error":{"Code":11,"Message":"too many clients"}}"#);
    for count in [0, 1] {
        let mut node = asked(count);
        node.handle_bytes(&message);
        let error = RemoteError { code: Some(11.into()), message: "too many clients".to_owned() };
        assert_eq!(node.unusable(), Some(&Unusable::TurnedAway(error.clone())));
        assert!(node.poll_answer().is_none());
        assert_eq!(node.command(at(1), "ListDevices", None), Err(Unusable::TurnedAway(error)));
    }
}

#[test]
fn what_was_complete_before_an_error_is_still_given_out() {
    let mut stream = event("1");
    stream.extend(ok(r#"{"TrackId":"1"}"#));
    stream.extend(ok(r#"{"TrackId":"9"}"#));
    stream.extend(ok(r#"{"TrackId":"3"}"#));
    let mut node = asked(3);
    node.handle_bytes(&stream);
    assert!(node.poll_answer().is_some() && node.poll_answer().is_none());
    assert!(node.poll_event().is_some());
    assert_eq!(node.unusable(), Some(&Unusable::Protocol(ProtocolError::TrackId)));
}

#[test]
fn an_overdue_answer_is_never_taken_for_the_next() {
    let mut node = asked(1);
    assert_eq!(node.due(), Some(at(5_000)));
    node.handle_timeout(at(4_999));
    node.command(at(4_999), "ListDevices", None).unwrap();
    assert_eq!(node.unusable(), None);
    node.handle_timeout(at(5_000));
    assert_eq!(node.unusable(), Some(&Unusable::TimedOut));
    node.handle_bytes(&ok(r#"{"TrackId":"1"}"#));
    assert!(node.poll_answer().is_none());
    assert_eq!(node.command(at(5_001), "ListDevices", None), Err(Unusable::TimedOut));
}

#[test]
fn so_many_commands_wait_and_no_more() {
    let mut node = asked(OUTSTANDING);
    let written = node.poll_transmit().map(<[u8]>::len);
    assert_eq!(node.command(at(0), "ListDevices", None), Err(Unusable::Full));
    assert_eq!(node.poll_transmit().map(<[u8]>::len), written);
    node.handle_bytes(&ok(r#"{"TrackId":"1"}"#));
    node.command(at(0), "ListDevices", None).unwrap();
}

#[test]
fn events_that_nobody_takes_are_dropped_from_the_oldest_on() {
    let mut node = ClientNode::new(TIMEOUT);
    for n in 0..EVENTS + 3 {
        node.handle_bytes(&event(&n.to_string()));
    }
    assert_eq!(node.events_dropped(), 3);
    assert_eq!(node.poll_event().unwrap().json.get(), "3");
    // By their length: two that are too long together, the newest stays.
    let long = format!("\"{}\"", "x".repeat(EVENT_BYTES / 2));
    node.handle_bytes(&event(&long));
    node.handle_bytes(&event(&long));
    assert_eq!(node.events_dropped(), (EVENTS + 3) as u64);
    assert_eq!(node.poll_event().unwrap().json.get().len(), long.len());
    assert!(node.poll_event().is_none());
    node.handle_bytes(&event("1"));
    assert_eq!(node.poll_event().unwrap().json.get(), "1");
}
