//! Answers and events of servers that we did not write.

use serde_json::json;

use super::*;

fn remote(body: &str) -> RemoteError {
    decode_reply(3, body.as_bytes()).unwrap().result.unwrap_err()
}

#[test]
fn a_response_that_is_absent_or_null_is_ok_without_data() {
    for body in [r#"{"TrackId":"1"}"#, r#"{"TrackId":"1","Response":null}"#] {
        let reply = decode_reply(2, body.as_bytes()).unwrap();
        assert_eq!((reply.track_id, reply.result), (json!("1"), Ok(None)), "{body}");
    }
    let devices = decode_reply(2, br#"{"TrackId":"1","Response":{"Devices":null},"More":1}"#).unwrap();
    assert_eq!(devices.result.unwrap().unwrap().get("Devices"), Some(&Value::Null));
}

#[test]
fn every_shape_of_an_error_is_an_error() {
    for body in ["{}", r#"{"Error":null}"#, r#"{"Error":{}}"#, r#"{"Error":{"Code":null,"Message":null}}"#] {
        let error = remote(body);
        assert_eq!(error, RemoteError::default(), "{body}");
        assert_eq!(error.to_string(), "refused without a reason");
    }
    let error = remote(r#"{"Error":{"Code":"E_BUSY","Message":"busy"}}"#);
    assert_eq!(error.to_string(), "busy (code E_BUSY)");
    let error = remote(r#"{"Error":{"Code":7,"Message":"no such device"}}"#);
    assert_eq!(error.to_string(), "no such device (code 7)");
    assert_eq!(remote(r#"{"Error":{"Message":["a",1]}}"#).message, r#"["a",1]"#);
    assert_eq!(remote(r#"{"Error":"gone"}"#).to_string(), "gone");
    assert_eq!(remote(r#"{"Error":[1]}"#).message, "[1]");
}

#[test]
fn what_is_no_answer_is_told_and_nothing_panics() {
    for kind in [0, 1, 4, 5, 255] {
        assert_eq!(decode_reply(kind, b"{}"), Err(ReplyError::Kind));
    }
    for body in ["", "{", "nul", "{\"a\":1}x", "\u{feff}{}"] {
        assert_eq!(decode_reply(2, body.as_bytes()), Err(ReplyError::NotJson), "{body}");
        assert_eq!(decode_event(body.as_bytes()), Err(ReplyError::NotJson), "{body}");
    }
    assert_eq!(decode_reply(2, b"\xff"), Err(ReplyError::NotJson));
    assert_eq!(decode_reply(3, "[".repeat(100_000).as_bytes()), Err(ReplyError::NotJson));
    for body in ["[]", "null", "7", "\"x\""] {
        assert_eq!(decode_reply(3, body.as_bytes()), Err(ReplyError::NotAnObject), "{body}");
    }
    for body in [r#"{"Response":[]}"#, r#"{"Response":"x"}"#, r#"{"Response":0}"#] {
        assert_eq!(decode_reply(2, body.as_bytes()), Err(ReplyError::Response), "{body}");
    }
}

#[test]
fn ids_come_back_as_they_came() {
    for (text, value) in [("\"1\"", json!("1")), ("843143769", json!(843_143_769)), ("null", Value::Null)] {
        let body = format!(r#"{{"TrackId":{text}}}"#);
        assert_eq!(decode_reply(2, body.as_bytes()).unwrap().track_id, value);
        assert_eq!(decode_reply(3, body.as_bytes()).unwrap().track_id, value);
    }
    assert_eq!(decode_reply(2, b"{}").unwrap().track_id, Value::Null);
}

#[test]
fn an_event_of_any_shape_is_kept() {
    let event = decode_event(br#"{"Publisher":1,"Topic":["x"],"DeviceId":843143769,"Data":null}"#).unwrap();
    assert_eq!((event.publisher(), event.topic(), event.data()), (None, None, None));
    assert_eq!(event.device(), Some(&json!(843_143_769)));
    for (body, raw) in [("[]", json!([])), ("null", Value::Null), ("\"SinglePress\"", json!("SinglePress"))] {
        let event = decode_event(body.as_bytes()).unwrap();
        assert_eq!(event.raw, raw);
        assert_eq!((event.publisher(), event.topic(), event.device()), (None, None, None));
    }
}
