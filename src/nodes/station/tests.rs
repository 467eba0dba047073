//! The station in virtual time: panel frames and feedback in, messages and dashboard frames out.

use serde_json::{Value, json};

use super::*;
use crate::can::Id;
use crate::proto::ocp::server::frame;
use crate::signals::bits::{ByteOrder, Codec, Raw};
use crate::signals::plan::{Kind, ReceivePlan, ReceiveSignal, SendPlan, StopProfile};
use crate::signals::plan::{SendMode, SignalPlan};
use crate::signals::source::Source;
use crate::signals::station::UserSink;
use crate::signals::transform::Transform;

const PANEL: u16 = 0x180;
const DASH: u16 = 0x280;
const TIMES: StationTimes =
    StationTimes { feedback_stale: Duration::from_millis(500), data_stale: Duration::from_millis(1_000) };

fn at(ms: u64) -> Instant {
    Instant::from_millis(10_000 + ms)
}

/// One byte of a frame, in whole steps.
fn byte(start: u16) -> Codec {
    Codec { start, bits: 8, order: ByteOrder::Little, raw: Raw::Unsigned, factor: 1.0, offset: 0.0 }
}

fn id(id: u16) -> Id {
    Id::standard(id.into()).unwrap()
}

fn read(name: &str, start: u16) -> ReceiveSignal {
    ReceiveSignal {
        name: name.to_owned(),
        codec: byte(start),
        min: 0.0,
        max: 255.0,
        names: Vec::new(),
        mux: None,
    }
}

fn show(name: &str, start: u16, slot: u8) -> SignalPlan {
    SignalPlan {
        name: name.to_owned(),
        codec: byte(start),
        named: false,
        kind: Kind::Other,
        source: Source::User(slot),
        toggle: false,
        select: Vec::new(),
        transform: Transform::direct(),
        min: 0.0,
        max: 255.0,
        slew_up: None,
        slew_down: None,
        safe: 99.0,
        stop: StopProfile::Safe,
        at_standstill: false,
        confirm: None,
    }
}

fn path(dotted: &str) -> Vec<String> {
    dotted.split('.').map(str::to_owned).collect()
}

fn panel(signal: usize) -> SignalRef {
    SignalRef { receive: 0, signal }
}

/// A lever (byte 0: 0 to 200), a vehicle selector (byte 1), a mode with names (byte 2).
fn plan(active: ActiveVehicle) -> StationPlan {
    let lever = SinkValue::Panel {
        signal: panel(0),
        transform: Transform::one_sided(0.0, 200.0),
        form: Form::Number,
        rest: json!(0.0),
    };
    let names = vec![(1.0, "CRAB".to_owned())];
    let mode = SinkValue::Panel {
        signal: panel(2),
        transform: Transform::direct(),
        form: Form::Name(names),
        rest: json!("OFF"),
    };
    let sinks = [
        ("counter", SinkValue::Counter { modulo: Some(64) }),
        ("panel_ok", SinkValue::PanelOk),
        ("arm.lever", lever),
        ("arm.mode", mode),
        ("site", SinkValue::Constant(json!("north"))),
    ];
    let feedback = |dotted, names| Slot::Feedback { path: path(dotted), vehicle: None, names };
    let send = SendPlan {
        name: "DASH".to_owned(),
        bus: 0,
        id: id(DASH),
        len: 8,
        fd: false,
        period: Duration::from_millis(100),
        mode: SendMode::OnCommand { min_gap: Duration::from_millis(20) },
        enable: None,
        counter: None,
        checksum: None,
        signals: (0..8).map(|n| show(&format!("S{n}"), u16::from(n) * 8, n)).collect(),
    };
    StationPlan {
        receive: vec![ReceivePlan {
            name: "PANEL".to_owned(),
            bus: 0,
            id: id(PANEL),
            len: 3,
            fd: false,
            stale_after: Duration::from_millis(100),
            required: false,
            counter: None,
            checksum: None,
            signals: vec![read("Lever", 0), read("Vehicle", 8), read("Mode", 16)],
        }],
        send: vec![send],
        slots: vec![
            feedback("vehicle_data.user_data.speed", Vec::new()),
            feedback("receiver_fault", Vec::new()),
            feedback("vehicle_data.user_data.state", vec![("ARMED".to_owned(), 5.0)]),
            feedback("message_latency_roundtrip", Vec::new()),
            Slot::Own(Own::Connected),
            Slot::Own(Own::PanelOk),
            Slot::Own(Own::Fault),
            Slot::Panel(panel(0)),
        ],
        user_data: sinks.into_iter().map(|(name, value)| UserSink { path: path(name), value }).collect(),
        active,
        disable_gamepad: Some(true),
        buses: Vec::new(),
    }
}

struct Desk {
    node: StationNode,
    player: PlayerNode,
}

impl Desk {
    fn new(active: ActiveVehicle) -> Self {
        let mut player = PlayerNode::new();
        player.handle_connected(at(0));
        Self { node: StationNode::new(plan(active), TIMES), player }
    }

    /// The same, with a panel that was there long enough, its controls at rest.
    fn settled(active: ActiveVehicle) -> Self {
        let mut desk = Self::new(active);
        for ms in (0..=1_000).step_by(50) {
            desk.panel(Instant::from_millis(9_000 + ms), [0, 0, 0]);
        }
        desk
    }

    fn panel(&mut self, now: Instant, bytes: [u8; 3]) {
        self.node.handle_frame(now, 0, &Frame::data(id(PANEL), &bytes).unwrap());
    }

    fn feedback(&mut self, now: Instant, vehicles: &[(&str, Value)]) {
        let mut map = Map::new();
        for (name, extra) in vehicles {
            let mut entry = json!({
                "ping_latency_ms": 1, "ms_since_last_vehicle_data": 2, "sender_fault": [], "receiver_fault": [],
                "ack_time": 41, "ack_time_mac": 42, "message_latency_roundtrip": 77,
                "vehicle_data": { "user_data": { "speed": 12.4, "state": "ARMED" } },
            });
            for (key, value) in extra.as_object().unwrap() {
                entry[key] = value.clone();
            }
            map.insert((*name).to_owned(), entry);
        }
        let bytes = frame(json!({ "vehicle_feedback": map, "last_input": null }).to_string().as_bytes());
        self.player.spare()[..bytes.len()].copy_from_slice(&bytes);
        self.player.commit(bytes.len());
        while self.player.poll_event(now).is_some() {}
    }

    fn message(&mut self, now: Instant) -> Value {
        self.node.message(now, &self.player).to_json()
    }

    fn dash(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.node.poll_dashboard(now, 0, &self.player).map(|(_, _, frame)| frame.payload().to_vec())
    }
}

#[test]
fn the_panel_goes_to_the_chosen_vehicle_alone_and_acks_to_all() {
    let mut desk = Desk::settled(ActiveVehicle::Named("a".to_owned()));
    desk.message(at(0));
    for ms in (1..=351).step_by(50) {
        desk.panel(at(ms), [100, 0, 1]);
    }
    desk.feedback(at(352), &[("a", json!({})), ("b", json!({ "ack_time": u64::MAX }))]);
    let data = json!({
        "counter": 1, "panel_ok": true, "arm": { "lever": 0.5, "mode": "CRAB" }, "site": "north",
    });
    let expected = json!({ "active_vehicle": "a", "client_user_data": {
        "a": { "user_data": data, "ocp_disable_gamepad": true, "ack_time_returned": 41, "ack_time_mac_returned": 42 },
        "b": { "user_data": null, "ocp_disable_gamepad": true, "ack_time_returned": u64::MAX, "ack_time_mac_returned": 42 },
    } });
    assert_eq!(desk.message(at(353)), expected);
    for n in 2..130 {
        let message = desk.message(at(353));
        assert_eq!(message["client_user_data"]["a"]["user_data"]["counter"], n % 64);
    }
}

#[test]
fn a_stale_panel_is_sent_at_rest_with_panel_ok_false_and_never_as_it_was() {
    let mut desk = Desk::new(ActiveVehicle::Only);
    desk.feedback(at(0), &[("a", json!({}))]);
    let data = |desk: &mut Desk, ms| desk.message(at(ms))["client_user_data"]["a"]["user_data"].clone();
    let before = data(&mut desk, 0);
    assert_eq!((&before["panel_ok"], &before["arm"]["lever"]), (&json!(false), &json!(0.0)), "it never came");
    // It comes with its lever pulled: the vehicle must see `false` for a while, whatever comes then.
    for ms in (10..=310).step_by(50) {
        desk.panel(at(ms), [200, 0, 1]);
    }
    let early = data(&mut desk, 309);
    assert_eq!((&early["panel_ok"], &early["arm"]["lever"]), (&json!(false), &json!(0.0)), "it settles");
    let fresh = data(&mut desk, 410);
    assert_eq!((&fresh["panel_ok"], &fresh["arm"]["lever"]), (&json!(true), &json!(1.0)));
    let stale = data(&mut desk, 411);
    assert_eq!((&stale["panel_ok"], &stale["arm"]), (&json!(false), &json!({ "lever": 0.0, "mode": "OFF" })));
    assert_eq!(desk.node.missing_panel(at(411)), Some("PANEL"));
    // It comes back, and its first frames are not believed at once either, although no message fell into the gap.
    for ms in (420..=1_000).step_by(50) {
        desk.panel(at(ms), [200, 0, 1]);
    }
    assert_eq!(data(&mut desk, 1_001)["panel_ok"], true);
    for ms in (1_200..=1_400).step_by(50) {
        desk.panel(at(ms), [200, 0, 1]);
    }
    assert_eq!(data(&mut desk, 1_401)["arm"]["lever"], 0.0);
    // A value without a name is no value.
    for ms in (1_450..=1_800).step_by(50) {
        desk.panel(at(ms), [200, 0, 7]);
    }
    let data = data(&mut desk, 1_801);
    assert_eq!((&data["arm"]["lever"], &data["arm"]["mode"]), (&json!(1.0), &json!("OFF")));
}

#[test]
fn who_is_chosen() {
    let choice = |active, vehicles: &[(&str, Value)]| {
        let mut desk = Desk::new(active);
        desk.feedback(at(1), vehicles);
        let message = desk.message(at(2));
        (desk.node.choice().clone(), message["active_vehicle"].clone())
    };
    let (watched, driven) = (json!({ "is_monitor": true }), json!({ "is_monitor": false }));
    assert_eq!(choice(ActiveVehicle::Only, &[]), (Choice::Nobody, Value::Null));
    assert_eq!(choice(ActiveVehicle::Only, &[("a", driven.clone())]).1, "a");
    assert_eq!(choice(ActiveVehicle::Only, &[("a", watched.clone()), ("b", json!({}))]).1, "b");
    assert_eq!(choice(ActiveVehicle::Only, &[("a", watched)]), (Choice::Nobody, Value::Null));
    assert_eq!(
        choice(ActiveVehicle::Only, &[("a", driven), ("b", json!({}))]),
        (Choice::Several, Value::Null)
    );
    assert_eq!(choice(ActiveVehicle::Named("z".to_owned()), &[("a", json!({}))]).1, "z");
    let broken = json!({ "ack_time": "none" });
    assert_eq!(
        choice(ActiveVehicle::Only, &[("a", json!({})), ("b", broken)]),
        (Choice::Several, Value::Null)
    );
    let mut desk = Desk::new(ActiveVehicle::Named("z".to_owned()));
    desk.node.choose(Some("a".to_owned()));
    desk.feedback(at(1), &[("a", json!({}))]);
    assert_eq!(desk.message(at(2))["active_vehicle"], "a", "the command line wins");
}

#[test]
fn the_selector_of_the_panel_moves_the_command_and_leaves_nothing_behind() {
    let vehicles = vec![(1.0, "a".to_owned()), (2.0, "b".to_owned())];
    let mut desk = Desk::settled(ActiveVehicle::Panel { signal: panel(1), vehicles });
    let mut now = 0;
    // The selector stands like this for a while, the lever pulled; the first and the last message of that time.
    let mut select = |desk: &mut Desk, vehicle: u8| {
        let mut messages = Vec::new();
        for _ in 0..14 {
            now += 25;
            desk.feedback(at(now), &[("a", json!({})), ("b", json!({}))]);
            desk.panel(at(now), [200, vehicle, 0]);
            messages.push(desk.message(at(now)));
        }
        (messages.swap_remove(0), messages.pop().unwrap())
    };
    let data = |message: &Value, vehicle: &str| {
        let data = &message["client_user_data"][vehicle]["user_data"];
        (data["panel_ok"].clone(), data["arm"]["lever"].clone())
    };
    let (rest, pulled, nothing) =
        ((json!(false), json!(0.0)), (json!(true), json!(1.0)), (Value::Null, Value::Null));
    let (first, last) = select(&mut desk, 1);
    assert_eq!((&first["active_vehicle"], data(&first, "a")), (&json!("a"), rest.clone()), "a sees it come");
    assert_eq!(
        (&last["active_vehicle"], data(&last, "a"), data(&last, "b")),
        (&json!("a"), pulled.clone(), nothing.clone())
    );
    let (first, last) = select(&mut desk, 2);
    assert_eq!(
        (data(&first, "a"), data(&first, "b")),
        (nothing.clone(), rest.clone()),
        "a gets nothing any more"
    );
    assert_eq!((&last["active_vehicle"], data(&last, "b")), (&json!("b"), pulled));
    // No vehicle has this number: the last one hears that nothing is commanded.
    let (first, last) = select(&mut desk, 9);
    for message in [first, last] {
        assert_eq!((&message["active_vehicle"], data(&message, "b")), (&Value::Null, rest.clone()));
        // OCP gives its gamepad to the only vehicle there is, chosen or not.
        for vehicle in ["a", "b"] {
            assert_eq!(message["client_user_data"][vehicle]["ocp_disable_gamepad"], true);
        }
    }
    // The same for a panel that has gone.
    let (_, last) = select(&mut desk, 2);
    assert_eq!(last["active_vehicle"], "b");
    let message = desk.message(at(now + 101));
    assert_eq!((desk.node.choice(), &message["active_vehicle"]), (&Choice::NotSelected, &Value::Null));
    assert_eq!(data(&message, "b"), rest);
}

#[test]
fn the_dashboard_shows_the_chosen_vehicle_and_rest_values_for_what_is_stale() {
    let mut desk = Desk::settled(ActiveVehicle::Only);
    desk.panel(at(0), [7, 0, 0]);
    assert_eq!(desk.dash(at(0)).unwrap(), [99, 99, 99, 99, 0, 1, 99, 7], "nothing is known but the panel");
    assert_eq!(desk.dash(at(99)), None);
    desk.feedback(at(50), &[("a", json!({ "receiver_fault": ["High Latency", "Camera Lost"] }))]);
    desk.message(at(51));
    // The vehicle was chosen just now: the panel settles for it.
    assert_eq!(desk.dash(at(60)).unwrap(), [12, 2, 5, 77, 1, 0, 1, 7], "new feedback goes out at once");
    assert_eq!(desk.dash(at(61)), None, "once");
    desk.feedback(at(62), &[("a", json!({}))]);
    assert_eq!(desk.dash(at(79)), None, "not before its gap");
    assert_eq!(desk.dash(at(80)).unwrap()[..2], [12, 0]);
    // The vehicle's data are stale, the feedback is not.
    desk.feedback(at(90), &[("a", json!({ "ms_since_last_vehicle_data": 1_001 }))]);
    assert_eq!(desk.dash(at(100)).unwrap()[..4], [99, 0, 99, 77]);
    // The feedback is stale, and the panel too.
    desk.panel(at(560), [7, 0, 0]);
    assert_eq!(desk.dash(at(591)).unwrap(), [99, 99, 99, 99, 0, 0, 99, 7]);
    desk.player.handle_disconnected();
    assert_eq!(desk.dash(at(691)).unwrap(), [99, 99, 99, 99, 0, 0, 99, 99]);
}

#[test]
fn what_the_display_cannot_show_is_its_end_or_its_rest() {
    let mut desk = Desk::new(ActiveVehicle::Only);
    let speeds = [
        (json!(400.0), 255),
        (json!(-3), 0),
        (json!("fast"), 99),
        (json!(null), 99),
        (json!({}), 99),
        (json!(true), 1),
    ];
    for (n, (speed, shown)) in (1..).zip(speeds) {
        desk.feedback(at(n * 100), &[("a", json!({ "vehicle_data": { "user_data": { "speed": speed } } }))]);
        desk.message(at(n * 100));
        assert_eq!(desk.dash(at(n * 100 + 50)).unwrap()[0], shown, "{speed}");
    }
}
