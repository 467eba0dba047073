//! The connection to the Player in virtual time.

use serde_json::{Value, json};

use super::*;
use crate::proto::ocp::player::{ClientVehicle, decode_client};
use crate::proto::ocp::server::frame;

fn at(ms: u64) -> Instant {
    Instant::from_millis(10_000 + ms)
}

fn entry(ack: u64, mac: u32, faults: &[&str]) -> Value {
    json!({
        "ping_latency_ms": 1, "ms_since_last_vehicle_data": 2, "sender_fault": [], "receiver_fault": faults,
        "ack_time": ack, "ack_time_mac": mac,
    })
}

fn message(vehicles: &Value) -> Vec<u8> {
    frame(json!({ "vehicle_feedback": vehicles, "last_input": null }).to_string().as_bytes())
}

/// Hands bytes over and takes every event.
fn take(node: &mut PlayerNode, now: Instant, bytes: &[u8]) -> Vec<PlayerEvent> {
    let mut events = Vec::new();
    let mut rest = bytes;
    loop {
        let spare = node.spare();
        let n = spare.len().min(rest.len());
        spare[..n].copy_from_slice(&rest[..n]);
        node.commit(n);
        rest = &rest[n..];
        while let Some(event) = node.poll_event(now) {
            let ends = matches!(event, PlayerEvent::GiveUp(_));
            events.push(event);
            if ends {
                return events;
            }
        }
        if rest.is_empty() {
            return events;
        }
    }
}

fn connected() -> PlayerNode {
    let mut node = PlayerNode::new();
    node.handle_connected(at(0));
    node
}

fn client(node: &PlayerNode) -> ClientMessage {
    let mut message = ClientMessage::default();
    for name in node.connected() {
        let vehicle = ClientVehicle { returned: node.ack(name), ..ClientVehicle::default() };
        message.vehicles.insert(name.clone(), vehicle);
    }
    message
}

#[test]
fn the_acks_of_every_vehicle_are_those_of_the_newest_feedback_of_this_connection() {
    let mut node = connected();
    assert_eq!(node.due(), None, "nobody is known");
    let both = message(&json!({ "a": entry(u64::MAX, u32::MAX, &[]), "b": entry(7, 8, &[]) }));
    assert_eq!(take(&mut node, at(1), &both), [PlayerEvent::Feedback]);
    assert_eq!((node.ack("a"), node.ack("b")), (Some((u64::MAX, u32::MAX)), Some((7, 8))));
    take(&mut node, at(2), &message(&json!({ "b": entry(9, 8, &[]) })));
    assert_eq!((node.ack("a"), node.ack("b")), (None, Some((9, 8))), "a is not connected any more");
    assert_eq!(node.vehicles()["a"].at, at(1), "and is still known, with its age");
    node.handle_disconnected();
    node.handle_connected(at(3));
    assert_eq!((node.ack("b"), node.due()), (None, None), "no ack of an earlier connection");
}

#[test]
fn a_message_goes_out_every_10_ms_at_most_and_every_50_ms_at_least() {
    let mut node = connected();
    take(&mut node, at(1), &message(&json!({ "a": entry(1, 2, &[]) })));
    assert!(node.due().unwrap() <= at(1));
    assert_eq!(node.send(at(1), &client(&node)), Ok(true));
    let bytes = node.poll_transmit().unwrap().to_vec();
    assert_eq!(decode_client(&bytes[4..]).unwrap().vehicles["a"].returned, Some((1, 2)));
    assert_eq!(node.due(), Some(at(51)));
    node.want();
    assert_eq!(node.due(), Some(at(11)));
    // The kernel takes it in two pieces: nothing else goes between them.
    node.handle_written(10);
    assert_eq!(node.poll_transmit().unwrap(), &bytes[10..]);
    assert_eq!(node.send(at(11), &client(&node)), Ok(false), "the one before is not gone");
    assert_eq!(node.poll_transmit().unwrap(), &bytes[10..]);
    node.handle_written(bytes.len() - 10);
    assert_eq!((node.poll_transmit(), node.counters().sent, node.counters().skipped), (None, 1, 1));
}

#[test]
fn a_message_too_long_is_counted_and_nothing_of_it_is_sent() {
    let mut node = connected();
    take(&mut node, at(1), &message(&json!({ "a": entry(1, 2, &[]) })));
    let mut long = client(&node);
    long.vehicles.get_mut("a").unwrap().user_data = "x".repeat(16_384).into();
    assert!(node.send(at(1), &long).unwrap_err().bytes > 16_384);
    assert_eq!((node.poll_transmit(), node.counters().oversize), (None, 1));
    assert_eq!(node.due(), Some(at(51)), "and not tried in a loop");
}

#[test]
fn every_way_not_to_be_a_player_ends_the_connection_with_its_reason() {
    let mut node = connected();
    let http = b"HTTP/1.1 400 Bad Request\r\n\r\n";
    assert_eq!(take(&mut node, at(1), http), [PlayerEvent::GiveUp(GiveUp::Nonsense)]);

    node.handle_connected(at(0));
    let oversize = 16_385_u32.to_le_bytes();
    assert_eq!(take(&mut node, at(1), &oversize), [PlayerEvent::GiveUp(GiveUp::Nonsense)]);

    node.handle_connected(at(0));
    let largest = [&16_384_u32.to_le_bytes()[..], &[b' '; 16_384]].concat();
    let invalid = PlayerEvent::Invalid(FeedbackError::Malformed);
    assert_eq!(take(&mut node, at(1), &largest), std::slice::from_ref(&invalid));
    assert_eq!(take(&mut node, at(2), &[0; 4]), [PlayerEvent::Empty]);
    let last = take(&mut node, at(3), &frame(b"[]"));
    assert_eq!(last, [invalid, PlayerEvent::GiveUp(GiveUp::Nonsense)], "the third within a second");

    node.handle_connected(at(0));
    for second in 0..5 {
        assert_eq!(
            take(&mut node, at(second * 1_000), &frame(b"{}")).len(),
            1,
            "one a second is only dropped"
        );
    }

    // One byte a second.
    node.handle_connected(at(0));
    assert_eq!(take(&mut node, at(100), &[9]), []);
    assert_eq!(
        (node.handle_timeout(at(1_099)), node.handle_timeout(at(1_100))),
        (None, Some(GiveUp::Stalled))
    );

    node.handle_connected(at(0));
    assert_eq!(
        (node.handle_timeout(at(1_999)), node.handle_timeout(at(2_000))),
        (None, Some(GiveUp::Silent))
    );
    node.handle_disconnected();
    assert_eq!(node.handle_timeout(at(9_000)), None);

    node.handle_connected(at(0));
    take(&mut node, at(1), &message(&json!({ "a": entry(1, 2, &[]) })));
    node.send(at(1), &client(&node)).unwrap();
    take(&mut node, at(1_900), &message(&json!({ "a": entry(2, 2, &[]) })));
    assert_eq!(node.handle_timeout(at(2_001)), Some(GiveUp::Blocked), "our bytes were never taken");
}

#[test]
fn one_bad_vehicle_is_told_and_the_others_go_on() {
    let mut node = connected();
    let events =
        take(&mut node, at(1), &message(&json!({ "bad": { "ack_time": 1 }, "good": entry(1, 2, &[]) })));
    assert!(matches!(&events[..], [PlayerEvent::Feedback, PlayerEvent::Unusable(name, _)] if name == "bad"));
    assert_eq!(node.connected(), ["good"]);
}

#[test]
fn a_loop_that_stays_open_while_acks_go_back_is_the_sign_of_a_locked_source() {
    let open = message(&json!({ "a": entry(1, 2, &["High Latency"]) }));
    let mut node = connected();
    take(&mut node, at(0), &open);
    node.send(at(0), &client(&node)).unwrap();
    for ms in (100..=3_000).step_by(100) {
        take(&mut node, at(ms), &open);
        assert!(!node.is_locked_out(at(ms)), "at {ms} ms");
    }
    assert!(node.is_locked_out(at(3_100)));
    take(&mut node, at(3_100), &message(&json!({ "a": entry(1, 2, &["Camera Lost"]) })));
    assert!(!node.is_locked_out(at(9_000)));
}

#[test]
fn names_without_end_do_not_fill_the_memory() {
    let mut node = connected();
    for n in 0..1_000 {
        take(&mut node, at(n), &message(&json!({ format!("v{n}"): entry(1, 2, &[]) })));
    }
    assert_eq!(node.vehicles().len(), VEHICLES);
    // The newest is known, whoever came before.
    assert_eq!((node.connected(), node.ack("v999")), (&["v999".to_owned()][..], Some((1, 2))));
    // More at once than anybody drives: the rest is known to be there.
    let many: serde_json::Map<String, Value> =
        (0..70).map(|n| (format!("w{n:02}"), entry(1, 2, &[]))).collect();
    take(&mut node, at(2_000), &message(&Value::Object(many)));
    assert_eq!((node.connected().len(), node.unread(), node.vehicles().len()), (VEHICLES, 6, VEHICLES));
}
