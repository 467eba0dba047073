//! Four clients that behave as the vendor's examples do, two for the vehicle and two for the operator, against
//! `ocpcan sim ocp`: every pair of them closes the latency loop, and it is the one that the simulator reports.
//!
//! Relies on a Python of this machine (`OCPCAN_PYTHON`) for the clients in `ocp_clients/`, which share nothing with the
//! program. Their own clocks say what the loop takes. Never judges how fast a busy machine is: the loop is made of delays
//! that are long against its hiccups, and medians are compared.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test: it starts processes, waits with deadlines and fails by panicking"
)]

#[path = "common/programs.rs"]
mod programs;

use std::collections::BTreeMap;
use std::sync::Mutex;

use nix::sys::signal::Signal;
use programs::{Folder, Ocp, Program};
use serde_json::{Value, json};

/// The delays of the loop, each different and more than [`NEAR_MS`]: one that is left out, or counted twice, shows.
const UPLINK_MS: f64 = 40.0;
const DOWNLINK_MS: f64 = 60.0;
const VIDEO_MS: f64 = 150.0;

/// The simulated Player sends control this often: in step with none of the loop's other rhythms of 10, 17 and 33 ms, or
/// the loop would take one of few values, by where in each other's period they happen to be.
const CONTROL_MS: f64 = 13.0;

/// How near two medians of the same loop are: it is looked at every 10 to 33 ms.
const NEAR_MS: f64 = 25.0;

/// Messages to the vehicle over which is compared: three seconds.
const WINDOW: u64 = 150;

/// Beyond what a 64-bit float can hold, so that a client that reads the pair as one would be found out.
const ACK_OFFSET: &str = "ack_offset_ms=9007199254740993";

/// One pair at a time: on two cores more of them would measure each other.
static TURN: Mutex<()> = Mutex::new(());

/// A client and the lines it prints.
struct Client {
    program: Program,
    script: String,
    arguments: Vec<String>,
}

impl Client {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let script = format!("ocp_clients/{name}.py");
        let program = Program::python(&script, arguments);
        Self { program, script, arguments: arguments.iter().map(|&word| word.to_owned()).collect() }
    }

    /// What it has seen so far.
    fn look(&self) -> Value {
        let mark = self.program.mark();
        self.program.signal(Signal::SIGUSR1);
        self.program.wait(mark, "what it has seen", |line| serde_json::from_str(line).ok())
    }

    fn kill_and_restart(&mut self, between: impl FnOnce()) {
        self.program.kill();
        between();
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        self.program = Program::python(&self.script, &arguments);
    }
}

fn ms(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("not a number: {value}"))
}

fn median(mut values: Vec<f64>) -> f64 {
    assert!(!values.is_empty(), "nothing was measured");
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// No fault on either side, and the loop is closed.
fn is_well(status: &Value) -> bool {
    let entry = &status["player"]["vehicle_feedback"]["example"];
    let is_empty = |faults: &Value| faults.as_array().is_some_and(Vec::is_empty);
    // Less is impossible once a pair has come back: it has been through all three delays.
    let is_closed = ms(&status["latency_ms"]) >= UPLINK_MS + DOWNLINK_MS + VIDEO_MS;
    let is_connected = status["connected"] == true && status["player"]["connected"] == true;
    is_connected
        && is_closed
        && [&status["faults"], &entry["sender_fault"], &entry["receiver_fault"]].into_iter().all(is_empty)
}

/// Whether this fault is raised, in whatever spelling.
fn has_fault(status: &Value, name: &str) -> bool {
    let faults = status["faults"].as_array().unwrap();
    faults.iter().any(|fault| fault.as_str().unwrap().replace(' ', "") == name)
}

/// Pairs of `ack_time` and the client's clock in milliseconds.
fn acks(seen: &Value) -> Vec<(u64, f64)> {
    let pair = |entry: &Value| (entry[0].as_u64().unwrap(), ms(&entry[1]) / 1e6);
    seen["acks"].as_array().unwrap().iter().map(pair).collect()
}

/// What the loop takes by the two clients' clocks: whenever the Player sends control, the newest pair that the operator's
/// client has returned is as old as the time since the vehicle's client received it; then it takes the uplink.
fn loop_by_clients(vehicle: &Value, player: &Value) -> Vec<f64> {
    let mut received = BTreeMap::new();
    for (ack, at) in acks(vehicle) {
        received.entry(ack).or_insert(at);
    }
    let returned = acks(player);
    let mut found = Vec::new();
    let (mut at, end) = (returned[0].1, returned[returned.len() - 1].1);
    while at < end {
        let newest = returned.partition_point(|(_, when)| *when <= at).checked_sub(1);
        if let Some(received_at) = newest.and_then(|newest| received.get(&returned[newest].0)) {
            found.push(at - received_at + UPLINK_MS);
        }
        at += CONTROL_MS;
    }
    found
}

/// One vehicle's client and one operator's client, through everything.
fn pair(profile: &str, vehicle_name: &str, player_name: &str) {
    let case = format!("{profile}, {vehicle_name}, {player_name}");
    let folder = Folder::new(&format!("clients-{profile}-{vehicle_name}-{player_name}"));
    let delays = [("uplink", UPLINK_MS), ("downlink", DOWNLINK_MS), ("video", VIDEO_MS)]
        .map(|(what, ms)| format!("{what}_delay_ms={ms}"));
    let control = format!("operator_period_ms={CONTROL_MS}");
    let mut options = vec!["--profile", profile, "--set", ACK_OFFSET, "--set", &control];
    for delay in &delays {
        options.extend(["--set", delay.as_str()]);
    }
    let mut ocp = Ocp::start(&options, &folder.0);

    // Before the first message: who waits for one says nothing, who writes every 10 ms sends a pair of zeros, which is
    // taken as none.
    for line in ["silence on", "player silence on"] {
        ocp.say(line);
    }
    let (vehicle_at, player_at) = (ocp.vehicle.clone(), ocp.player.clone());
    let mut vehicle = Client::start(vehicle_name, &[&vehicle_at]);
    let player_arguments: &[&str] =
        if player_name == "player_plain" { &[&player_at, "example"] } else { &[&player_at] };
    let mut player = Client::start(player_name, player_arguments);
    let (writes, orders) = (vehicle_name == "vehicle_paced", player_name == "player_paced");
    let status = ocp.until("both clients", |status| {
        let is_heard = |of: &Value, count: &str| of[count].as_u64() >= Some(3);
        status["connected"] == true
            && status["player"]["connected"] == true
            && (!writes || is_heard(status, "responses"))
            && (!orders || is_heard(&status["player"], "messages"))
    });
    assert_eq!(status["responses"].as_u64() > Some(0), writes, "{case}: {status}");
    assert_eq!(status["player"]["messages"].as_u64() > Some(0), orders, "{case}: {status}");
    for line in ["silence off", "player silence off"] {
        ocp.say(line);
    }

    ocp.until(&format!("{case}: the loop closes without a fault"), is_well);
    compare(&case, profile, &mut ocp, &vehicle, &player);

    // Each client crashes and comes back.
    vehicle.kill_and_restart(|| {
        ocp.until("VehicleNoResponse", |status| has_fault(status, "VehicleNoResponse"));
    });
    ocp.until(&format!("{case}: a new client of the vehicle"), is_well);
    player.kill_and_restart(|| {
        // Nobody returns new pairs any more: the last one grows old.
        ocp.until("HighLatency", |status| has_fault(status, "HighLatency"));
    });
    ocp.until(&format!("{case}: a new client of the operator"), is_well);

    // Each server drops its client, then starts anew and turns clients away meanwhile: a new key, and time from 0.
    for lines in [["close", "player close"], ["restart 200", "restart player 200"]] {
        let before = ocp.status();
        for line in lines {
            ocp.say(line);
        }
        ocp.until(&format!("{case}: after {}", lines[0]), |status| {
            let is_new = |of: fn(&Value) -> &Value| {
                of(status)["connections"].as_u64() > of(&before)["connections"].as_u64()
            };
            is_new(|status| status) && is_new(|status| &status["player"]) && is_well(status)
        });
    }
    for client in [&mut vehicle, &mut player] {
        assert!(client.program.terminate().success(), "{case}: {}", client.program.output());
    }
}

/// The running loop: what arrives, and how long it takes by every clock.
fn compare(case: &str, profile: &str, ocp: &mut Ocp, vehicle: &Client, player: &Client) {
    let (vehicle_before, player_before) = (vehicle.look(), player.look());
    let before = ocp.status();
    let mut reported = Vec::new();
    let mut last_sent = before["sent"].clone();
    let end = before["sent"].as_u64().unwrap() + WINDOW;
    let status = ocp.until("three seconds of messages", |status| {
        // Once for each message, as the vehicle sees it.
        if status["sent"] != last_sent {
            last_sent = status["sent"].clone();
            reported.push(ms(&status["latency_ms"]));
        }
        status["sent"].as_u64() >= Some(end)
    });
    let (vehicle_seen, player_seen) = (vehicle.look(), player.look());

    let told: Vec<f64> = vehicle_seen["latencies"].as_array().unwrap().iter().map(ms).collect();
    let told = told[told.len().saturating_sub(WINDOW as usize)..].to_vec();
    let [reported, told] = [reported, told].map(median);
    let closed = median(loop_by_clients(&vehicle_seen, &player_seen));
    println!(
        "{case}: the loop takes {closed:.0} ms by the clients' clocks, the vehicle is told {told:.0} ms, the status says \
         {reported:.0} ms"
    );
    for (what, value) in [("the vehicle is told", told), ("the status says", reported)] {
        assert!((value - closed).abs() <= NEAR_MS, "{case}: {what} {value}, the clients measure {closed}");
    }

    // Nothing is refused, and nothing is invented.
    for counter in ["bad_responses", "too_long"] {
        assert_eq!(status[counter], 0, "{case}: {counter}");
    }
    for counter in ["bad_messages", "too_long", "ignored"] {
        assert_eq!(status["player"][counter], 0, "{case}: player, {counter}");
    }
    assert_eq!(
        status["bad_macs"], before["bad_macs"],
        "{case}: a returned pair was not the one that was sent"
    );
    assert_eq!(status["player"]["source"], "TCP", "{case}");
    assert_eq!(status["player"]["active_vehicle"], "example", "{case}");

    // At the vehicle: the operator's data, and the gamepad unless the operator has switched it off.
    let newer = profile != "doc-2.48";
    let name = &vehicle.script;
    assert_eq!(
        (&vehicle_seen["fault"], &vehicle_seen["fault_reason"]),
        (&json!(false), &json!("")),
        "{case}"
    );
    assert_eq!(vehicle_seen["has_missing_cameras"], newer, "{case}");
    let is_paced = player.script.ends_with("paced.py");
    let data = |seen: &Value| seen["client_user_data"].clone();
    assert_eq!(data(&vehicle_seen)["lever"], if is_paced { 0.75 } else { 0.25 }, "{case}: {vehicle_seen}");
    let counter = |seen: &Value| data(seen)["counter"].as_u64();
    assert!(counter(&vehicle_seen) > counter(&vehicle_before), "{case}: the operator's counter stands");
    assert_eq!(vehicle_seen["controller"].is_null(), is_paced, "{case}: {}", vehicle_seen["controller"]);

    // At the operator: the vehicle's data, or that there are none.
    let entry = &player_seen["entry"];
    assert_eq!(player_seen["vehicles"], json!(["example"]), "{case}");
    for member in ["sender_fault", "receiver_fault"] {
        assert_eq!(entry[member], json!([]), "{case}: {member}");
    }
    assert_eq!(entry.get("is_monitor"), newer.then_some(&json!(false)), "{case}");
    assert_eq!(entry["missing_cameras"], if newer { json!([]) } else { Value::Null }, "{case}");
    let answers = |seen: &Value| seen["entry"]["vehicle_data"]["user_data"]["answers"].as_u64();
    if name.ends_with("plain.py") {
        let data = &entry["vehicle_data"];
        assert_eq!(data["pos"], json!({"lat": 57.7, "lon": 11.9}), "{case}");
        assert_eq!(data["user_data"]["drive_mode"], "manual", "{case}");
        assert!(answers(&player_seen) > answers(&player_before), "{case}: the vehicle's data stand");
    } else {
        assert_eq!(entry["vehicle_data"], Value::Null, "{case}");
    }
}

/// Every vehicle's client with every operator's client.
fn pairs(profile: &str) {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for vehicle in ["vehicle_plain", "vehicle_paced"] {
        for player in ["player_plain", "player_paced"] {
            pair(profile, vehicle, player);
        }
    }
}

#[test]
fn clients_as_the_vendors_examples_close_the_loop_in_the_documented_version() {
    pairs("doc-2.48");
}

#[test]
fn clients_as_the_vendors_examples_close_the_loop_in_the_version_of_2026() {
    pairs("2026-05");
}
