//! What must hold for every input of the player side, as functions that panic where it does not.
//!
//! Owns the properties that the fuzz target under `fuzz/` and the seeded test share. Relies on both directions of the codec.
//! Never part of the gateway: nothing outside tests calls it.

#![allow(clippy::expect_used, reason = "a property that does not hold must end the program")]

use super::{Dialect, decode_client, decode_feedback};

/// Bytes as feedback, then as a client's message: what was read is written, and reads the same again.
pub fn both(data: &[u8]) {
    if let Ok(mut feedback) = decode_feedback(data) {
        feedback.unusable.clear();
        // What an older Player does not say is written as `false`.
        for vehicle in feedback.vehicles.values_mut() {
            vehicle.is_monitor.get_or_insert(false);
        }
        let again = decode_feedback(feedback.to_json(Dialect::Newer).to_string().as_bytes());
        assert_eq!(again.as_ref(), Ok(&feedback), "feedback");
    }
    if let Ok(message) = decode_client(data) {
        match message.frame() {
            Ok(frame) => {
                let body = frame.get(4..).expect("a frame has a header");
                assert_eq!(decode_client(body).as_ref(), Ok(&message), "client's message");
            }
            // Escaped texts can be longer than they came.
            Err(error) => assert!(error.bytes > crate::limits::OCP_BODY),
        }
    }
}
