//! Both messages, both ways, and everything that is no message.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::proto::ocp::fuzz::Rng;

/// A vehicle's entry as the 2026-05 documentation has it.
fn newer() -> Value {
    json!({
        "ping_latency_ms": 31, "message_latency_roundtrip": 74, "ms_since_last_vehicle_data": 12,
        "missing_cameras": ["Rear"], "sender_fault": [], "receiver_fault": ["High Latency"],
        "vehicle_data": { "pos": { "lat": 57.7, "lon": 11.9 }, "user_data": { "speed_mps": 1.5 } },
        "last_remote_input": null, "ack_time": 9_007_199_254_740_993_u64, "ack_time_mac": 4_294_967_295_u32,
        "is_monitor": false,
    })
}

fn read(vehicles: &Value) -> Result<Feedback, FeedbackError> {
    decode_feedback(json!({ "vehicle_feedback": vehicles, "last_input": null }).to_string().as_bytes())
}

#[test]
fn both_dialects_of_feedback_are_read_and_acks_keep_every_digit() {
    let feedback = read(&json!({ "loader": newer() })).unwrap();
    let vehicle = &feedback.vehicles["loader"];
    // 2^53 + 1 is no double.
    assert_eq!((vehicle.ack_time, vehicle.ack_time_mac), (9_007_199_254_740_993, u32::MAX));
    assert_eq!(
        (vehicle.missing_cameras.as_deref(), vehicle.is_monitor),
        (Some(&["Rear".to_owned()][..]), Some(false))
    );
    let mut older = newer();
    for name in
        ["is_monitor", "missing_cameras", "message_latency_roundtrip", "vehicle_data", "last_remote_input"]
    {
        older.as_object_mut().unwrap().remove(name);
    }
    let older = read(&json!({ "loader": older })).unwrap();
    let vehicle = &older.vehicles["loader"];
    assert_eq!((vehicle.is_monitor, &vehicle.missing_cameras, &vehicle.vehicle_data), (None, &None, &None));
    let mut nulls = newer();
    for name in
        ["is_monitor", "missing_cameras", "message_latency_roundtrip", "vehicle_data", "last_remote_input"]
    {
        nulls[name] = Value::Null;
    }
    nulls["something_new"] = json!({ "deep": [1, 2] });
    assert_eq!(read(&json!({ "loader": nulls })).unwrap().vehicles["loader"], *vehicle);
}

#[test]
fn one_vehicle_that_cannot_be_used_does_not_harm_the_others() {
    for (member, value) in [
        ("ack_time", json!(1.5)),
        ("ack_time", json!(-1)),
        ("ack_time", json!("12")),
        ("ack_time_mac", json!(4_294_967_296_u64)),
        ("sender_fault", Value::Null),
        ("receiver_fault", json!([1])),
        ("vehicle_data", json!(7)),
        ("vehicle_data", json!({ "pos": { "lat": 1.0 }, "user_data": {} })),
        ("last_remote_input", json!({ "buttons": {}, "axes": {} })),
        ("missing_cameras", json!("Rear")),
        ("is_monitor", json!(1)),
        ("ping_latency_ms", json!(null)),
    ] {
        let mut bad = newer();
        bad[member] = value.clone();
        let feedback = read(&json!({ "bad": bad, "good": newer(), "odd": null })).unwrap();
        assert_eq!(feedback.vehicles.keys().collect::<Vec<_>>(), ["good"], "{member} = {value}");
        let expected =
            [("bad".to_owned(), FeedbackError::Member(member)), ("odd".to_owned(), FeedbackError::NoObject)];
        assert_eq!(feedback.unusable, expected, "{member} = {value}");
    }
    for (body, error) in [
        ("", FeedbackError::Malformed),
        ("[]", FeedbackError::Malformed),
        ("{\"vehicle_feedback\":{}} {}", FeedbackError::Malformed),
        ("\u{feff}{}", FeedbackError::Malformed),
        ("{}", FeedbackError::NoVehicles),
        ("{\"vehicle_feedback\":null}", FeedbackError::NoVehicles),
        ("{\"vehicle_feedback\":[]}", FeedbackError::NoVehicles),
    ] {
        assert_eq!(decode_feedback(body.as_bytes()), Err(error), "{body}");
    }
    assert_eq!(decode_feedback(&vec![b'['; limits::OCP_BODY]), Err(FeedbackError::Malformed), "deep nesting");
    assert!(read(&json!({})).unwrap().vehicles.is_empty(), "no vehicle is connected");
}

#[test]
fn a_client_message_has_exactly_the_documented_members() {
    let mut message = ClientMessage { active_vehicle: Some("loader".to_owned()), ..ClientMessage::default() };
    let vehicle = ClientVehicle {
        user_data: json!({ "lift": 0.5 }),
        ocp_disable_gamepad: Some(true),
        returned: Some((u64::MAX, u32::MAX)),
    };
    message.vehicles.insert("loader".to_owned(), vehicle);
    message
        .vehicles
        .insert("dumper".to_owned(), ClientVehicle { user_data: Value::Null, ..ClientVehicle::default() });
    let expected = concat!(
        "{\"active_vehicle\":\"loader\",\"client_user_data\":{\"dumper\":{\"user_data\":null},",
        "\"loader\":{\"ack_time_mac_returned\":4294967295,\"ack_time_returned\":18446744073709551615,",
        "\"ocp_disable_gamepad\":true,\"user_data\":{\"lift\":0.5}}}}"
    );
    let frame = message.frame().unwrap();
    assert_eq!(frame[..4], u32::try_from(expected.len()).unwrap().to_le_bytes());
    assert_eq!(std::str::from_utf8(&frame[4..]).unwrap(), expected);
    assert_eq!(decode_client(&frame[4..]), Ok(message));
}

#[test]
fn a_message_longer_than_ocp_takes_is_not_written() {
    let of = |len: usize| {
        let mut message = ClientMessage::default();
        let vehicle = ClientVehicle { user_data: "x".repeat(len).into(), ..ClientVehicle::default() };
        message.vehicles.insert("v".to_owned(), vehicle);
        message
    };
    let around = of(0).to_json().to_string().len();
    assert_eq!(of(limits::OCP_BODY - around).frame().unwrap().len(), 4 + limits::OCP_BODY);
    assert_eq!(of(limits::OCP_BODY - around + 1).frame(), Err(Oversize { bytes: 16_385 }));
}

#[test]
fn a_client_message_with_a_wrong_member_is_refused_whole() {
    for (body, error) in [
        (json!([]), ClientError::Malformed),
        (json!({}), ClientError::NoVehicles),
        (json!({ "client_user_data": { "v": 1 } }), ClientError::NoVehicles),
        (json!({ "active_vehicle": 1, "client_user_data": {} }), ClientError::Member("active_vehicle")),
        (json!({ "client_user_data": { "v": {} } }), ClientError::Member("user_data")),
        (
            json!({ "client_user_data": { "v": { "user_data": 1, "ack_time_returned": -1 } } }),
            ClientError::Member("ack_time_returned"),
        ),
        (
            json!({ "client_user_data": { "v": { "user_data": 1, "ocp_disable_gamepad": 1 } } }),
            ClientError::Member("ocp_disable_gamepad"),
        ),
        (
            json!({ "client_user_data": { "v": { "user_data": 1, "ack_time_mac_returned": 4_294_967_296_u64 } } }),
            ClientError::Member("ack_time_mac_returned"),
        ),
    ] {
        assert_eq!(decode_client(body.to_string().as_bytes()), Err(error), "{body}");
    }
    let half = json!({ "client_user_data": { "v": { "user_data": 1, "ack_time_returned": 5 } } });
    assert_eq!(decode_client(half.to_string().as_bytes()).unwrap().vehicles["v"].returned, None);
}

#[test]
fn every_truncation_is_an_error() {
    let feedback = json!({ "vehicle_feedback": { "loader": newer() }, "last_input": null }).to_string();
    for len in 0..feedback.len() {
        assert_eq!(decode_feedback(&feedback.as_bytes()[..len]), Err(FeedbackError::Malformed), "{len}");
    }
    let mut message = ClientMessage::default();
    message
        .vehicles
        .insert("v".to_owned(), ClientVehicle { returned: Some((1, 2)), ..ClientVehicle::default() });
    let body = message.to_json().to_string();
    for len in 0..body.len() {
        assert_eq!(decode_client(&body.as_bytes()[..len]), Err(ClientError::Malformed), "{len}");
    }
}

#[test]
fn documents_that_were_spoiled_at_random_read_the_same_again_or_not_at_all() {
    let mut rng = Rng::from_environment("player");
    let feedback =
        json!({ "vehicle_feedback": { "a": newer(), "b": newer() }, "last_input": null }).to_string();
    let client = json!({ "active_vehicle": "a", "client_user_data": { "a": {
        "user_data": { "x": 1 }, "ocp_disable_gamepad": true, "ack_time_returned": 7, "ack_time_mac_returned": 8,
    } } });
    for _ in 0..2_000 {
        for document in [&feedback, &client.to_string()] {
            let mut data = document.clone().into_bytes();
            for _ in 0..=rng.below(3) {
                rng.mutate(&mut data);
            }
            fuzz::both(&data);
        }
    }
}

prop_compose! {
    fn any_vehicle()(
        numbers in any::<(u64, Option<u64>, u64, u64, u32)>(),
        cameras in proptest::option::of(proptest::collection::vec(".{0,8}", 0..3)),
        faults in proptest::collection::vec(".{0,12}", 0..3),
        pos in proptest::option::of((-90.0..90.0_f64, -180.0..180.0_f64)),
        text in ".{0,20}",
        axes in any::<[i8; 6]>(),
        buttons in 0..0x8000_u16,
        is_monitor in any::<bool>(),
        has in any::<(bool, bool)>(),
    ) -> VehicleFeedback {
        VehicleFeedback {
            ping_latency_ms: numbers.0,
            message_latency_roundtrip: numbers.1,
            ms_since_last_vehicle_data: numbers.2,
            missing_cameras: cameras,
            sender_fault: faults.clone(),
            receiver_fault: faults,
            vehicle_data: has.0.then(|| VehicleData { pos, user_data: json!({ "text": text }) }),
            last_remote_input: has.1.then(|| Controller { axes: axes.map(|axis| f64::from(axis) / 128.0), buttons }),
            ack_time: numbers.3,
            ack_time_mac: numbers.4,
            is_monitor: Some(is_monitor),
        }
    }
}

proptest! {
    #[test]
    fn what_the_player_writes_is_what_a_client_reads(
        vehicles in proptest::collection::btree_map(".{1,10}", any_vehicle(), 0..3),
    ) {
        let feedback = Feedback { vehicles, ..Feedback::default() };
        let body = feedback.to_json(Dialect::Newer).to_string();
        prop_assert_eq!(decode_feedback(body.as_bytes()), Ok(feedback));
    }
}
