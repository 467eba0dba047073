//! What the management plane answers, refuses and asks the core for.

use super::facts::{BusFacts, PeerFacts, SendFacts};
use super::*;
use crate::safety::core::{Core, CoreOptions};
use crate::safety::faults::{Fault, Faults};
use crate::safety::input::Input;
use crate::safety::settings::Settings;
use crate::sim::world::plan::{self, PlanOptions};

fn at(ms: u64) -> Instant {
    Instant::from_millis(1_000 + ms)
}

fn identity(remote_stop: bool) -> Identity {
    Identity {
        version: "0.1.0 (test)",
        digest: "0123456789abcdef".to_owned(),
        plan: plan::plan(PlanOptions::default()),
        ocp: "127.0.0.1:4000".parse().unwrap(),
        tunnels: vec![(0, "127.0.0.1:20010".parse().unwrap())],
        car: None,
        config: object([("vehicle", json!("test"))]),
        listen_only: false,
        remote_stop,
        started_at: at(0),
    }
}

fn status(state: StateName) -> Status {
    let options = CoreOptions {
        settings: Settings::default(),
        arms_per_minute: 10,
        counters: Vec::new(),
        locked_out: None,
    };
    let mut core = Core::new(plan::plan(PlanOptions::default()), options);
    core.step(at(0), &Input::IDLE);
    Status { state, faults: Faults::NONE, ..core.status() }
}

fn facts(state: StateName) -> Facts {
    let peer = PeerFacts {
        address: "192.168.1.7:5000".parse().unwrap(),
        bus: 0,
        agreed: true,
        since: at(0),
        to_bus: 1,
        to_peer: 2,
        waiting: 3,
        dropped: 4,
    };
    Facts {
        status: Some(status(state)),
        connected: true,
        message_age_ms: Some(1.5),
        buses: vec![BusFacts { up: true, errors: Some((1, 2)), ..BusFacts::default() }],
        sends: vec![SendFacts { confirmed: 7, confirmed_age_ms: Some(3.0), ..SendFacts::default() }],
        peers: vec![peer],
        counters: vec![(FOREIGN, 0), ("CAN frames lost before they were read", 0)],
        ..Facts::default()
    }
}

fn gateway(state: StateName) -> Management {
    let mut management = Management::new(identity(false));
    management.set_facts(at(1), facts(state));
    management
}

fn ask(management: &mut Management, now: Instant, command: &str, arguments: Value, local: bool) -> Answer {
    let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
    let device = arguments.get("DeviceId").and_then(Value::as_str);
    management.answer(now, &Asked { command, arguments: &arguments, device, local })
}

fn ok(answer: Answer) -> Map<String, Value> {
    match answer {
        Answer::Ok(Some(response)) => response,
        other => panic!("{other:?}"),
    }
}

fn refused(answer: Answer) -> (ErrorCode, String) {
    match answer {
        Answer::Refused(code, text) => (code, text),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_listed_device_can_be_asked_for_and_no_key_is_null() {
    fn no_null(value: &Value, at: &str) {
        match value {
            // The age of a source that never came: it is named, and has no age.
            Value::Null => assert!(at.ends_with("AgeMs"), "{at} is null"),
            Value::Object(entries) => {
                entries.iter().for_each(|(key, value)| no_null(value, &format!("{at}.{key}")))
            }
            Value::Array(items) => items.iter().for_each(|item| no_null(item, at)),
            _ => {}
        }
    }
    let mut management = gateway(StateName::Safe);
    let listed = ok(ask(&mut management, at(2), "ListDevices", json!({}), true));
    let ids: Vec<String> = listed["Devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["DeviceId"].as_str().unwrap().to_owned())
        .collect();
    let name = plan::plan(PlanOptions::default()).buses[0].name.clone();
    for want in [
        format!("bus:{name}"),
        "ocp".to_owned(),
        format!("tunnel:{name}"),
        "peer:192.168.1.7:5000".to_owned(),
    ] {
        assert!(ids.contains(&want), "{want} in {ids:?}");
    }
    assert!(ids.iter().any(|id| id.starts_with("send:")));
    for id in &ids {
        assert!(management.has_device(id));
        let info = ok(ask(&mut management, at(2), "GetDeviceInfo", json!({ "DeviceId": id }), true));
        assert_eq!(info["DeviceId"], id.as_str());
        no_null(&Value::Object(info), id);
    }
    assert_eq!(
        refused(ask(&mut management, at(2), "GetDeviceInfo", json!({ "DeviceId": "bus:nowhere" }), true)).0,
        ErrorCode::DeviceNotFound
    );
    for command in ["GwGetStatus", "GwGetCounters", "GwGetEvents", "GwGetConfig"] {
        no_null(&Value::Object(ok(ask(&mut management, at(2), command, json!({}), false))), command);
    }
}

#[test]
fn a_stop_is_asked_for_at_once_and_answered_when_the_core_has_stopped() {
    let mut management = gateway(StateName::Armed);
    let Answer::Pending(ticket) = ask(&mut management, at(2), "GwSafeStop", json!({}), true) else {
        panic!()
    };
    assert_eq!(management.take_requests(), [Request::SafeStop]);
    assert!(management.take_requests().is_empty(), "once");
    assert_eq!(management.settle(at(3), ticket), None, "still armed");
    let stopping = Status { trips: 1, ..status(StateName::Stopping) };
    management.set_facts(at(4), Facts { status: Some(stopping), ..facts(StateName::Stopping) });
    let answer = management.settle(at(4), ticket).unwrap();
    assert_eq!(ok(answer)["State"], "STOPPING");
    let told: Vec<_> =
        management.take_fresh(at(5)).into_iter().map(|event| (event.publisher, event.topic)).collect();
    assert!(told.contains(&(GATEWAY.to_owned(), "Requested".to_owned())), "{told:?}");
    assert!(told.contains(&(ALL.to_owned(), "Requested".to_owned())), "{told:?}");
}

#[test]
fn a_core_that_does_not_do_it_is_an_error_and_an_event() {
    let mut management = gateway(StateName::Lockout);
    let mut still = status(StateName::Lockout);
    still.faults.insert(Fault::BusDown);
    management.set_facts(at(1), Facts { status: Some(still), ..facts(StateName::Lockout) });
    let Answer::Pending(ticket) = ask(&mut management, at(2), "GwAcknowledgeLockout", json!({}), true) else {
        panic!()
    };
    assert_eq!(management.settle(at(900), ticket), None);
    let (code, text) = refused(management.settle(at(1_003), ticket).unwrap());
    assert_eq!(code, ErrorCode::NotReady);
    assert!(text.contains(Fault::BusDown.text()), "{text}");
    assert_eq!(management.settle(at(1_004), ticket), None, "answered once");
}

#[test]
fn what_changes_anything_is_for_this_machine_alone_and_for_its_state() {
    let commands = [
        ("GwSafeStop", StateName::Armed),
        ("GwAcknowledgeLockout", StateName::Lockout),
        ("GwEnterDiag", StateName::Safe),
        ("GwLeaveDiag", StateName::Diag),
    ];
    for (command, state) in commands {
        let mut management = gateway(state);
        assert_eq!(
            refused(ask(&mut management, at(2), command, json!({}), false)).0,
            ErrorCode::NotPermitted
        );
        assert!(management.take_requests().is_empty(), "{command}");
        assert!(matches!(ask(&mut management, at(2), command, json!({}), true), Answer::Pending(_)));
        assert_eq!(management.take_requests().len(), 1);
        for other in StateName::ALL.into_iter().filter(|other| *other != state && command != "GwSafeStop") {
            let mut management = gateway(other);
            let (code, text) = refused(ask(&mut management, at(2), command, json!({}), true));
            assert_eq!(code, ErrorCode::NotReady, "{command} in {}", other.name());
            assert!(text.contains(other.name()) && management.take_requests().is_empty());
        }
    }
    // A stop from elsewhere where the configuration lets it; nothing else.
    let mut management = Management::new(identity(true));
    management.set_facts(at(1), facts(StateName::Armed));
    assert!(matches!(ask(&mut management, at(2), "GwSafeStop", json!({}), false), Answer::Pending(_)));
    assert_eq!(
        refused(ask(&mut management, at(2), "GwEnterDiag", json!({}), false)).0,
        ErrorCode::NotPermitted
    );
}

#[test]
fn a_request_of_a_client_that_has_gone_is_carried_out_and_told() {
    let mut management = gateway(StateName::Armed);
    let Answer::Pending(ticket) = ask(&mut management, at(2), "GwSafeStop", json!({}), true) else {
        panic!()
    };
    management.forget(at(3), ticket);
    assert!(management.waiting.is_empty());
    let told = management.take_fresh(at(4));
    assert!(told.iter().any(|event| event.topic == "Requested"), "{told:?}");
    assert_eq!(management.take_requests(), [Request::SafeStop], "the stop itself is not");
}

#[test]
fn events_are_given_by_number_or_by_count() {
    let mut management = gateway(StateName::Safe);
    for number in 0..10 {
        management.take(at(number), &Happening::Warning(format!("w{number}")));
    }
    let count = ok(ask(&mut management, at(20), "GwGetEvents", json!({}), false))["Count"].as_u64().unwrap();
    let texts = |management: &mut Management, arguments| {
        let response = ok(ask(management, at(20), "GwGetEvents", arguments, false));
        let events = response["Events"].as_array().unwrap().clone();
        events.iter().map(|event| event["Text"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(texts(&mut management, json!({ "Last": 2 })), ["w8", "w9"]);
    assert_eq!(texts(&mut management, json!({ "Last": 0 })), Vec::<String>::new());
    assert_eq!(texts(&mut management, json!({ "After": count - 1 })), ["w9"]);
    assert_eq!(texts(&mut management, json!({ "After": count })), Vec::<String>::new());
    assert_eq!(texts(&mut management, json!({ "Last": u64::MAX })).len() as u64, count);
    for bad in [json!({ "Last": -1 }), json!({ "After": "3" }), json!({ "Last": 1.5 })] {
        assert_eq!(
            refused(ask(&mut management, at(20), "GwGetEvents", bad, false)).0,
            ErrorCode::InvalidArgument
        );
    }
}

#[test]
fn topics_are_those_of_their_publisher() {
    let management = gateway(StateName::Safe);
    let bus = format!("bus:{}", management.identity().plan.buses[0].name);
    for (device, publisher, topic, known) in [
        (None, "Gateway", "Trip", true),
        (None, "Gateway", "*", true),
        (None, "Gateway", "trip", false),
        (None, "GwAll", "*", true),
        (None, "GwAll", "PeerRefused", true),
        (None, "GwAll", "Nonsense", false),
        (None, "DeviceEvents", "BusStateChanged", false),
        (Some(bus.as_str()), "DeviceEvents", "BusStateChanged", true),
        (Some(bus.as_str()), "DeviceEvents", "*", true),
        (Some(bus.as_str()), "DeviceEvents", "LinkStateChanged", false),
        (Some(bus.as_str()), "Gateway", "Trip", false),
        (Some("ocp"), "DeviceEvents", "LinkStateChanged", true),
    ] {
        assert_eq!(management.has_topic(device, publisher, topic), known, "{device:?} {publisher} {topic}");
    }
}

#[test]
fn every_command_is_known_and_no_other() {
    for command in COMMANDS {
        assert!(knows_command(command));
        let mut management = gateway(StateName::Safe);
        let answer = ask(&mut management, at(2), command, json!({}), true);
        assert!(!matches!(&answer, Answer::Refused(ErrorCode::UnknownCommand, _)), "{command}: {answer:?}");
    }
    for other in ["listdevices", "GwArm", "", "Subscribe"] {
        assert!(!knows_command(other));
    }
}

#[test]
fn a_bus_on_which_nothing_is_proven_to_leave_says_so() {
    let mut management = gateway(StateName::Safe);
    let bus = format!("bus:{}", management.identity().plan.buses[0].name);
    let state = |management: &mut Management| {
        let info = ok(ask(management, at(2), "GetDeviceInfo", json!({ "DeviceId": bus.as_str() }), true));
        info["State"].as_str().unwrap().to_owned()
    };
    assert_eq!(state(&mut management), "Up");
    management.take_fresh(at(2));
    let silent = SendFacts { confirmed: 7, confirmed_age_ms: Some(500.0), ..SendFacts::default() };
    let cut = Facts { sends: vec![silent], ..facts(StateName::Safe) };
    management.set_facts(at(3), cut.clone());
    assert_eq!(state(&mut management), "NoEcho");
    let told = management.take_fresh(at(3));
    assert!(told.iter().any(|event| event.device.as_deref() == Some(&bus)), "{told:?}");
    // Before the first frame, and where nothing is sent at all, silence says nothing.
    management.set_facts(at(4), Facts { status: Some(status(StateName::Init)), ..cut });
    assert_eq!(state(&mut management), "Up");
}

#[test]
fn devices_without_topics_cannot_be_subscribed_to() {
    let management = gateway(StateName::Safe);
    let send = format!("send:{}", management.identity().plan.send[0].name);
    for topic in ["*", "BusStateChanged"] {
        assert!(!management.has_topic(Some(&send), DEVICE, topic));
        assert!(!management.has_topic(Some("peer:192.168.1.7:5000"), DEVICE, topic));
    }
}

#[test]
fn what_changed_nothing_is_written_down_once_a_second() {
    let mut management = gateway(StateName::Safe);
    for ms in 0..2_000 {
        ask(&mut management, at(ms), "GwLeaveDiag", json!({}), true);
    }
    assert_eq!(management.take_said().len(), 2);
    assert!(management.take_said().is_empty());
}

#[test]
fn a_stop_that_a_core_which_stands_still_has_not_heard_of_is_not_done() {
    let mut management = gateway(StateName::Ready);
    let Answer::Pending(ticket) = ask(&mut management, at(2), "GwSafeStop", json!({}), true) else {
        panic!()
    };
    management.set_facts(at(150), Facts { watchdog_age_ms: Some(148.0), ..facts(StateName::Ready) });
    assert_eq!(management.settle(at(150), ticket), None);
    management.set_facts(at(160), Facts { watchdog_age_ms: Some(4.0), ..facts(StateName::Safe) });
    assert_eq!(ok(management.settle(at(160), ticket).unwrap())["State"], "SAFE");
}
