//! What must hold for every body of a server, as a function that panics where it does not.
//!
//! Owns the property that the fuzz target under `fuzz/` and the seeded test share. Relies on both directions of the codec.
//! Never part of the gateway: nothing outside tests calls it.

#![allow(clippy::panic, clippy::expect_used, reason = "a property that does not hold is reported by a panic")]

use serde_json::Value;

use super::envelope::{self, decode_command};
use super::header::HEADER;
use super::reply::{ReplyError, decode_event, decode_reply};

/// The body as an answer, an error, an event, and as a command.
pub fn reply(body: &[u8]) {
    let tree = serde_json::from_slice::<Value>(body).ok();
    for kind in 0..=5 {
        match (decode_reply(kind, body), &tree) {
            (Ok(reply), Some(tree)) => {
                assert_eq!(reply.result.is_ok(), kind == 2, "an error is an error, whatever is in it");
                assert_eq!(&reply.track_id, tree.get("TrackId").unwrap_or(&Value::Null));
                if let Err(error) = reply.result {
                    assert!(!error.to_string().is_empty());
                }
            }
            (Ok(_), None) => panic!("an answer that is not JSON"),
            (Err(ReplyError::Kind), _) => assert!(kind != 2 && kind != 3),
            (Err(ReplyError::NotJson), tree) => assert!(tree.is_none()),
            (Err(ReplyError::NotAnObject), tree) => {
                assert!(tree.as_ref().is_some_and(|tree| !tree.is_object()))
            }
            (Err(ReplyError::Response), _) => assert_eq!(kind, 2),
        }
    }
    if let Ok(event) = decode_event(body) {
        let device = event.device().and_then(Value::as_str);
        let data = event.data().cloned().unwrap_or_default();
        if let (Some(publisher), Some(topic)) = (event.publisher(), event.topic()) {
            let again = envelope::event(publisher, topic, device, &data);
            let again = decode_event(again.get(HEADER..).unwrap_or_default()).expect("our own event");
            assert_eq!((again.publisher(), again.topic()), (Some(publisher), Some(topic)));
            assert_eq!(again.device().and_then(Value::as_str), device);
            assert_eq!(again.data(), event.data());
        }
    }
    match decode_command(body, |_| true) {
        Ok(command) => {
            let answer = envelope::ok(&command.track_id, Some(command.arguments.clone()));
            let answer = decode_reply(2, answer.get(HEADER..).unwrap_or_default()).expect("our own answer");
            let sent = tree.as_ref().and_then(|tree| tree.get("TrackId"));
            assert_eq!(Some(&answer.track_id), sent, "the same JSON value");
            assert_eq!(answer.result, Ok(Some(command.arguments)));
        }
        Err(refusal) => {
            let answer = envelope::error(&refusal.track_id, refusal.code, &refusal.message);
            let answer = decode_reply(3, answer.get(HEADER..).unwrap_or_default()).expect("our own answer");
            assert!(answer.result.is_err() && !answer.track_id.is_null());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::ocp::fuzz::Rng;

    /// Pieces of which a body may be made.
    const PIECES: [&str; 24] = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "null",
        "\"TrackId\"",
        "\"Response\"",
        "\"Error\"",
        "\"Code\"",
        "\"Message\"",
        "\"Command\"",
        "\"Version\"",
        "\"Arguments\"",
        "\"Publisher\"",
        "\"Topic\"",
        "\"DeviceId\"",
        "\"Data\"",
        "1",
        "1.0",
        "\"x\"",
        "\"\\ud83d\\ude00\"",
        "1e400",
    ];

    #[test]
    fn bodies_made_of_pieces_are_read_or_refused() {
        let mut rng = Rng::from_environment("bodies_made_of_pieces");
        let keys = &PIECES[7..19];
        for _ in 0..20_000 {
            let mut body = String::from("{");
            for _ in 0..rng.below(6) {
                body.push_str(rng.pick(keys));
                body.push(':');
                for _ in 0..=rng.below(2) {
                    body.push_str(rng.pick(&PIECES));
                }
                body.push(',');
            }
            body.pop();
            body.push('}');
            super::reply(body.as_bytes());
        }
    }
}
