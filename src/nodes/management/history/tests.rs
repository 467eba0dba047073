//! Which events are told, with which words, and what is kept.

use super::*;
use crate::safety::core::{Core, CoreOptions};
use crate::safety::input::{Input, Reaction, Trip};
use crate::safety::settings::Settings;
use crate::sim::world::plan::{self, PlanOptions};
use crate::time::Duration;

fn at(ms: u64) -> Instant {
    Instant::from_millis(1_000 + ms)
}

fn plan() -> Plan {
    plan::plan(PlanOptions::default())
}

fn status() -> Status {
    let options = CoreOptions {
        settings: Settings::default(),
        arms_per_minute: 10,
        counters: Vec::new(),
        locked_out: None,
    };
    let mut core = Core::new(plan(), options);
    core.step(at(0), &Input::IDLE);
    core.status()
}

fn topics(history: &mut History) -> Vec<&'static str> {
    history.take_fresh().iter().map(|event| event.topic).collect()
}

#[test]
fn a_trip_is_told_with_its_cause_its_change_of_state_and_later_its_reaction_once_each() {
    let (plan, mut history) = (plan(), History::default());
    let armed = Status { state: StateName::Armed, arms: 1, ..status() };
    history.take(at(0), &plan, &Happening::Status(armed));
    assert_eq!(topics(&mut history), ["StateChanged", "Armed"]);
    let trip = Trip {
        fault: Fault::OcpDown,
        faults: Fault::OcpDown.into(),
        at: at(10),
        evidence_at: at(8),
        from: StateName::Armed,
    };
    let stopping = Status { state: StateName::Stopping, cause: Some(trip), trips: 1, ..armed };
    history.take(at(10), &plan, &Happening::Status(stopping));
    let events = history.take_fresh();
    assert_eq!(events.len(), 2);
    assert_eq!(events[0].topic, "Trip");
    assert_eq!(events[0].data["Fault"], "ocp_down");
    assert_eq!(events[0].data["EvidenceAgeMs"], 2.0);
    assert_eq!(events[1].data["From"], "ARMED");
    assert_eq!(events[1].data["To"], "STOPPING");
    assert_eq!(events[1].text, "ARMED -> STOPPING because of ocp_down (no connection to OCP)");
    let reaction = Some(Reaction { trip, time: Duration::from_millis(12) });
    let answered = Status { reaction, ..stopping };
    history.take(at(20), &plan, &Happening::Status(answered));
    history.take(at(30), &plan, &Happening::Status(answered));
    let events = history.take_fresh();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((events[0].topic, &events[0].data["Ms"]), ("Reaction", &json!(12.0)));
}

#[test]
fn a_bus_is_told_when_its_state_is_another_one() {
    let (plan, mut history) = (plan(), History::default());
    let facts = BusFacts::default();
    history.look_at_bus(at(0), &plan, 0, &facts);
    assert!(topics(&mut history).is_empty(), "at the start a bus is down");
    history.take(at(1), &plan, &Happening::Bus { bus: 0, up: true, text: "open".to_owned() });
    let up = BusFacts { up: true, ..facts.clone() };
    history.look_at_bus(at(2), &plan, 0, &up);
    assert_eq!(topics(&mut history), ["BusStateChanged"]);
    for state in crate::can::errorframe::ControllerState::ALL {
        history.look_at_bus(at(3), &plan, 0, &BusFacts { controller: Some(state), ..up.clone() });
    }
    let told = history.take_fresh();
    let states: Vec<_> = told.iter().map(|event| event.data["State"].as_str().unwrap()).collect();
    assert_eq!(states, ["ErrorActive", "ErrorWarning", "ErrorPassive", "BusOff"]);
    let device = format!("bus:{}", plan.buses[0].name);
    assert!(told.iter().all(|event| event.device.as_deref() == Some(&device) && event.publisher == DEVICE));
}

#[test]
fn counters_are_told_at_each_power_of_ten() {
    let mut history = History::default();
    for value in 0..=1_234 {
        history.look(at(value), 0, [("frames lost", value)].into_iter());
    }
    let seen: Vec<_> = history.take_fresh().iter().map(|event| event.data["Value"].clone()).collect();
    assert_eq!(seen, [1, 10, 100, 1_000]);
    history.look(at(2_000), 5, [("frames lost", 900_000)].into_iter());
    assert_eq!(topics(&mut history), ["ForeignWriter", "DropsCrossed"], "one event for a leap");
    history.look(at(2_001), 6, [("frames lost", 900_001)].into_iter());
    assert!(topics(&mut history).is_empty());
    assert_eq!(threshold(u64::MAX), 10_u64.pow(19));
}

#[test]
fn the_oldest_are_forgotten_and_the_numbers_go_on() {
    let (plan, mut history) = (plan(), History::default());
    let total = KEPT_OWN as u64 + 10;
    for number in 0..total {
        history.take(at(number), &plan, &Happening::Warning(format!("w{number}")));
    }
    assert_eq!(history.count(), total);
    let kept: Vec<u64> = history.last(usize::MAX).iter().map(|event| event.number).collect();
    assert_eq!(kept, (11..=total).collect::<Vec<_>>());
    let last: Vec<_> = history.last(2).iter().map(|event| event.text.clone()).collect();
    assert_eq!(last, [format!("w{}", total - 2), format!("w{}", total - 1)]);
    assert_eq!(history.after(total - 1).len(), 1);
    assert_eq!(history.take_fresh().len(), KEPT_OWN, "what nobody took in time is only in the numbers");
    assert!(history.take_fresh().is_empty());
}

#[test]
fn what_others_can_cause_pushes_out_nothing_of_the_gateways_own() {
    let (plan, mut history) = (plan(), History::default());
    history.take(at(0), &plan, &Happening::Link { connected: true, text: "connected to x".to_owned() });
    history.take(at(1), &plan, &Happening::Warning("own".to_owned()));
    for number in 0..10_000 {
        let refused = Happening::Requested {
            command: "GwEnterDiag",
            by: "a client",
            outcome: "not ready",
            changed: false,
        };
        history.take(at(2 + number), &plan, &refused);
        let text = "refused".to_owned();
        history.take(at(2), &plan, &Happening::Tunnel { bus: 0, peer: None, topic: "PeerRefused", text });
    }
    let kept = history.last(usize::MAX);
    assert_eq!(kept.len(), 2 + KEPT_OTHERS);
    assert_eq!(kept[1].text, "own");
    assert!(kept.windows(2).all(|pair| pair[0].number < pair[1].number), "in their order");
    assert!(kept[2].by_others && !kept[1].by_others);
    assert_eq!(history.link(), Some((at(0), "connected to x")));
}

#[test]
fn links_peers_and_requests_have_their_topics_and_devices() {
    let (plan, mut history) = (plan(), History::default());
    history.take(at(0), &plan, &Happening::Link { connected: true, text: "connected to x".to_owned() });
    let peer = "192.168.1.7:5000".parse().ok();
    history.take(
        at(1),
        &plan,
        &Happening::Tunnel { bus: 0, peer, topic: "PeerRefused", text: "refused".to_owned() },
    );
    let by = "a client on this machine";
    history.take(
        at(2),
        &plan,
        &Happening::Requested { command: "GwSafeStop", by, outcome: "done", changed: true },
    );
    let events = history.take_fresh();
    assert_eq!(events[0].device.as_deref(), Some("ocp"));
    assert_eq!(events[1].data["Peer"], "192.168.1.7:5000");
    assert_eq!((events[2].publisher, events[2].topic), (GATEWAY, "Requested"));
    for event in &events {
        let record = event.record(at(1_002));
        assert_eq!(record["Number"], event.number);
        assert!(record["AgeMs"].as_f64().unwrap() >= 1_000.0);
        assert!(event.body().contains_key("Text"));
    }
    assert_eq!(history.link(), Some((at(0), "connected to x")));
}
