//! Configurations of an operator's desk: what must be refused, each with the key, the reason and the name that was meant;
//! and the examples, which must be accepted and fit each other.
//!
//! Owns the rules of `role = "operator"`. The rules that desks share with vehicles are in `tests/config.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(
    clippy::disallowed_methods,
    reason = "a random test takes its seed from the wall clock and prints it"
)]

use ocpcan::config::{self, Loaded, Problem, StationConfig};
use ocpcan::limits::{OCP_BODY, USER_FIELDS};
use ocpcan::signals::plan::{Kind, SignalRef, StopProfile};
use ocpcan::signals::source::Source;
use ocpcan::signals::station::{ActiveVehicle, Form, Own, SinkValue, Slot};
use ocpcan::signals::transform::{Shape, Transform};
use proptest::test_runner::{Config as RunnerConfig, TestRunner};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const EXAMPLE: &str = include_str!("../deploy/operator.example.toml");
const PANEL_DBC: &str = include_str!("../deploy/panel.dbc");
const VEHICLE: &str = include_str!("../deploy/vehicle-with-panel.example.toml");
const VEHICLE_DBC: &str = include_str!("../deploy/example.dbc");

/// Signals that the example's panel has not.
const ODD_DBC: &str = r#"VERSION ""
NS_ :
BS_:
BU_: Desk Panel

BO_ 256 KEYS: 8 Panel
 SG_ LEVER : 0|16@1- (0.1,0) [-100|100] "" Desk
 SG_ AWAY : 16|8@1+ (1,50) [50|200] "" Desk
 SG_ NAMED_BIT : 24|1@1+ (1,0) [0|1] "" Desk
 SG_ STEP : 25|1@1+ (5,0) [0|5] "" Desk
 SG_ GEAR : 32|4@1+ (2,10) [10|40] "" Desk
 SG_ PLAIN : 40|8@1+ (1,0) [0|255] "" Desk
 SG_ TENTHS : 48|4@1+ (0.1,0) [0|1.5] "" Desk

BO_ 257 LAMPS: 8 Desk
 SG_ VALUE : 0|16@1- (0.1,0) [-100|100] "" Panel
 SG_ AWAY_LAMP : 16|8@1+ (1,50) [50|200] "" Panel

BO_ 258 OTHER: 8 Panel
 SG_ BIT : 0|1@1+ (1,0) [0|1] "" Desk

VAL_ 256 NAMED_BIT 0 "up" 1 "down" ;
VAL_ 256 GEAR 0 "low" 1 "mid" 15 "high" ;
"#;

/// A desk on the odd description that is right, until a case changes it.
const BASE: &str = r#"role = "operator"
station = "odd"
[player]
address = "127.0.0.1:4001"
active_vehicle = { source = "can.KEYS.GEAR", vehicles = { low = "loader-7", "12" = "dumper-2" } }
[bus.desk]
interface = "sim:odd"
dbc = "odd.dbc"
[receive.KEYS]
[user_data]
counter = { counter = 256 }
lever = { source = "can.KEYS.LEVER" }
named = { source = "can.KEYS.GEAR", form = "name", rest = "low" }
bit = { source = "can.KEYS.NAMED_BIT" }
[send.LAMPS]
[send.LAMPS.signals.VALUE]
source = "feedback.ping_latency_ms"
[send.LAMPS.signals.AWAY_LAMP]
source = "can.KEYS.AWAY"
rest = 60
"#;

fn read(text: &str) -> Result<Loaded, Vec<Problem>> {
    config::parse_either(
        text,
        &[("panel.dbc", PANEL_DBC), ("odd.dbc", ODD_DBC), ("example.dbc", VEHICLE_DBC)],
    )
}

fn desk(text: &str) -> Result<StationConfig, Vec<Problem>> {
    match read(text)? {
        Loaded::Operator(config) => Ok(config),
        Loaded::Vehicle(_) => panic!("read as a vehicle's file:\n{text}"),
    }
}

fn good(text: &str) -> StationConfig {
    desk(text).unwrap_or_else(|problems| panic!("refused: {problems:#?}\n{text}"))
}

/// The base after one change.
fn changed(from: &str, to: &str) -> String {
    assert!(BASE.contains(from), "the case changes nothing: {from}");
    BASE.replacen(from, to, 1)
}

/// One change to a good file, and the one problem that it must raise.
struct Bad {
    from: &'static str,
    to: &'static str,
    key: &'static str,
    reason: &'static str,
    like: &'static str,
}

const fn bad(
    from: &'static str,
    to: &'static str,
    key: &'static str,
    reason: &'static str,
    like: &'static str,
) -> Bad {
    Bad { from, to, key, reason, like }
}

fn refused(base: &str, case: &Bad) -> Result<(), String> {
    let ensure = |holds: bool, why: String| {
        if holds { Ok(()) } else { Err(format!("{} -> {}: {why}", case.from, case.to)) }
    };
    ensure(base.contains(case.from), "the case changes nothing".into())?;
    let problems = read(&base.replacen(case.from, case.to, 1)).err().unwrap_or_default();
    let [problem] = problems.as_slice() else {
        return ensure(false, format!("one mistake is one problem: {problems:#?}"));
    };
    let fits = problem.key == case.key && problem.reason.contains(case.reason);
    ensure(fits, format!("wanted {:?} at {:?}, got {problem}", case.reason, case.key))?;
    ensure(
        problem.line.is_some() || problem.reason.starts_with("is missing"),
        format!("no line: {problem}"),
    )?;
    let like = (!case.like.is_empty()).then(|| case.like.to_owned());
    ensure(problem.nearest == like, format!("wanted {like:?}, got {problem}"))
}

fn all_refused(base: &str, cases: &[Bad]) {
    let failed: Vec<String> = cases.iter().filter_map(|case| refused(base, case).err()).collect();
    assert!(failed.is_empty(), "{} of {} cases failed:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

#[test]
fn mistakes_in_a_desks_file_are_named_with_key_reason_and_what_was_meant() {
    const ADDRESS: &str = "address = \"127.0.0.1:4001\"";
    #[rustfmt::skip]
    let cases = [
        bad("role = \"operator\"", "role = \"opertor\"", "role", "must be one of: vehicle, operator", "operator"),
        bad("role = \"operator\"", "", "role", "is missing", ""),
        bad("station = \"odd\"", "", "station", "is missing", ""),
        bad("station = \"odd\"", "station = 5", "station", "must be a text", ""),
        bad("station = \"odd\"", "staton = \"odd\"", "staton", "unknown key", "station"),
        // What belongs to a vehicle.
        bad("[player]", "vehicle = \"loader-7\"\n[player]", "vehicle", "a desk's own name is `station`", ""),
        bad("[player]", "[ocp]\naddress = \"127.0.0.1:4000\"\n[player]", "ocp", "a desk's is [player]", ""),
        bad("[player]", "[arm]\nswitch = \"buttons.start\"\n[player]", "arm", "desks do not", ""),
        bad("[player]", "[safety]\nhold_ms = 5\n[player]", "safety", "guards nothing", ""),
        bad("[player]", "[operator]\ncounter = \"user.counter\"\n[player]", "operator", "a desk sends it", ""),
        bad("[player]", "[report.user_data]\n[player]", "report", "a desk sends [user_data]", ""),
        bad("[player]", "[tcpcan.desk]\n[player]", "tcpcan", "not served by a desk", ""),
        bad("[player]", "[standstill]\n[player]", "standstill", "is a vehicle's", ""),
        // [player]
        bad(ADDRESS, "", "player.address", "is missing", ""),
        bad(ADDRESS, "address = \"localhost:4001\"", "player.address", "such as \"127.0.0.1:4001\"", "127.0.0.1:4001"),
        bad(ADDRESS, "address = \"127.0.0.1:0\"", "player.address", "usually listens on 4001", ""),
        bad(ADDRESS, "address = \"127.0.0.1\"", "player.address", "must have a port, such as \"127.0.0.1:4001\"", ""),
        bad(ADDRESS, "feedback_stale_ms = 99\naddress = \"127.0.0.1:4001\"", "player.feedback_stale_ms", "must be 100 to 5000 ms", ""),
        bad(ADDRESS, "data_stale_ms = 5001\naddress = \"127.0.0.1:4001\"", "player.data_stale_ms", "must be 100 to 5000 ms", ""),
        bad(ADDRESS, "data_stale = 500\naddress = \"127.0.0.1:4001\"", "player.data_stale", "unknown key", "data_stale_ms"),
        bad(ADDRESS, "disable_gamepad = 1\naddress = \"127.0.0.1:4001\"", "player.disable_gamepad", "must be true or false", ""),
        // active_vehicle
        bad("active_vehicle = {", "active_vehicle = [5] # {", "player.active_vehicle", "the name of a vehicle, or", ""),
        bad("source = \"can.KEYS.GEAR\", vehicles", "vehicles", "player.active_vehicle.source", "is missing", ""),
        bad("{ source = \"can.KEYS.GEAR\", vehicles = { low = \"loader-7\", \"12\" = \"dumper-2\" } }", "{ source = \"can.KEYS.GEAR\" }", "player.active_vehicle.vehicles", "is missing", ""),
        bad("{ low = \"loader-7\", \"12\" = \"dumper-2\" }", "{}", "player.active_vehicle.vehicles", "at least one", ""),
        bad("{ low = ", "{ lo = ", "player.active_vehicle.vehicles.lo", "no value of GEAR, which goes from 10 to 40 and has the names: low, mid, high", "low"),
        bad("\"12\" = ", "\"11\" = ", "player.active_vehicle.vehicles.11", "no value of GEAR", ""),
        bad("\"12\" = ", "\"42\" = ", "player.active_vehicle.vehicles.42", "no value of GEAR", ""),
        bad("\"12\" = ", "\"10\" = ", "player.active_vehicle.vehicles.10", "already chooses", ""),
        bad("\"dumper-2\"", "7", "player.active_vehicle.vehicles.12", "must be a text", ""),
        bad("source = \"can.KEYS.GEAR\", vehicles", "source = \"station.fault\", vehicles", "player.active_vehicle.source", "only the panel", ""),
        bad("source = \"can.KEYS.GEAR\", vehicles", "source = \"can.KEYS.GER\", vehicles", "player.active_vehicle.source", "no signal \"GER\"", "can.KEYS.GEAR"),
        // [bus.*] and [receive.*], as far as they differ.
        bad("[receive.KEYS]", "[receive.KEYS]\nrequired = true", "receive.KEYS.required", "nothing trips at a desk", ""),
        bad("[receive.KEYS]", "[receive.KEYS]\nstale_after_ms = 10", "receive.KEYS.stale_after_ms", "must be 20 to 5000", ""),
        bad("[receive.KEYS]", "[receive.KEYS]\ncounter = { signal = \"PLAN\" }", "receive.KEYS.counter.signal", "has no signal", "PLAIN"),
    ];
    all_refused(BASE, &cases);
}

#[test]
fn mistakes_in_user_data_are_named_with_key_reason_and_what_was_meant() {
    const COUNTER: &str = "counter = { counter = 256 }";
    const LEVER: &str = "{ source = \"can.KEYS.LEVER\" }";
    const NAMED: &str = "{ source = \"can.KEYS.GEAR\", form = \"name\", rest = \"low\" }";
    const BIT: &str = "{ source = \"can.KEYS.NAMED_BIT\" }";
    #[rustfmt::skip]
    let cases = [
        // Sources of the wrong role, and their reasons.
        bad(LEVER, "{ source = \"axes.left_x\" }", "user_data.lever.source", "the gamepad, which OCP takes to the vehicle by itself", ""),
        bad(LEVER, "{ source = \"buttons.a\" }", "user_data.lever.source", "the gamepad, which OCP takes", ""),
        bad(LEVER, "{ source = \"user.lever\" }", "user_data.lever.source", "a desk sends it", ""),
        bad(LEVER, "{ source = \"feedback.sender_fault\" }", "user_data.lever.source", "it would command by itself", ""),
        bad(LEVER, "{ source = \"station.connected\" }", "user_data.lever.source", "about this desk", ""),
        bad(LEVER, "{ source = \"station.conected\" }", "user_data.lever.source", "there is no station.conected", "station.connected"),
        bad(LEVER, "{ source = \"cam.KEYS.LEVER\" }", "user_data.lever.source", "no such source", "can.KEYS.LEVER"),
        bad(LEVER, "{ source = \"KEYS.LEVER\" }", "user_data.lever.source", "no such source", "can.KEYS.LEVER"),
        bad(LEVER, "{ source = \"can.KEY.LEVER\" }", "user_data.lever.source", "no [receive.KEY]", "can.KEYS.LEVER"),
        bad(LEVER, "{ source = \"can.KEYS.LEVEL\" }", "user_data.lever.source", "no signal", "can.KEYS.LEVER"),
        bad(LEVER, "{ source = \"can.LEVER\" }", "user_data.lever.source", "must be can.MESSAGE.SIGNAL", ""),
        bad(LEVER, "{ source = 5 }", "user_data.lever.source", "a number is no source", ""),
        bad(LEVER, "\"can.KEYS.LEVER\"", "user_data.lever", "must be a table", ""),
        bad(LEVER, "{}", "user_data.lever.source", "is missing", ""),
        bad(LEVER, "{ source = \"can.KEYS.LEVER\", value = 1 }", "user_data.lever", "only one of", ""),
        bad(LEVER, "{ source = \"can.KEYS.LEVER\", kind = \"throttle\" }", "user_data.lever.kind", "unknown key", ""),
        bad(LEVER, "{ source = \"can.KEYS.LEVER\", slew_up_per_s = 5 }", "user_data.lever.slew_up_per_s", "unknown key", ""),
        bad(LEVER, "{ source = \"can.KEYS.LEVER\", toggle = true }", "user_data.lever.toggle", "remembers no presses", ""),
        // Shape and rest.
        bad(LEVER, "{ source = \"can.KEYS.LEVER\", dead_zone = 0.1 }", "user_data.lever.dead_zone", "`range` makes it a lever", ""),
        bad(LEVER, "{ source = \"can.KEYS.LEVER\", range = [1, 0] }", "user_data.lever.range", "below the second", ""),
        bad(LEVER, "{ source = \"can.KEYS.LEVER\", shape = \"centred\" }", "user_data.lever.range", "is missing", ""),
        bad(LEVER, "{ source = \"can.KEYS.LEVER\", rest = 100.5 }", "user_data.lever.rest", "outside -100 .. 100", ""),
        bad(LEVER, "{ source = \"can.KEYS.LEVER\", rest = nan }", "user_data.lever.rest", "must be a finite number", ""),
        bad(LEVER, "{ source = \"can.KEYS.LEVER\", rest = true }", "user_data.lever.rest", "must be a number", ""),
        bad(LEVER, "{ source = \"can.KEYS.LEVER\", range = [0, 100], rest = 2 }", "user_data.lever.rest", "outside 0 .. 1", ""),
        bad(LEVER, "{ source = \"can.KEYS.LEVER\", range = [0, 100], output = [5, 6] }", "user_data.lever.rest", "0, the default, is outside 5 .. 6", ""),
        bad(LEVER, "{ source = \"can.KEYS.AWAY\" }", "user_data.lever.rest", "0, the default, is outside 50 .. 200", ""),
        bad(LEVER, "{ source = \"can.KEYS.LEVER\", form = \"name\" }", "user_data.lever.form", "names no values of LEVER", ""),
        bad(LEVER, "{ source = \"can.KEYS.LEVER\", form = \"text\" }", "user_data.lever.form", "must be one of: number, switch, name", ""),
        bad(NAMED, "{ source = \"can.KEYS.GEAR\", form = \"name\", rest = \"lw\" }", "user_data.named.rest", "no value of GEAR; its names are: low, mid, high", "low"),
        bad(NAMED, "{ source = \"can.KEYS.GEAR\", form = \"name\" }", "user_data.named.rest", "is missing", ""),
        bad(NAMED, "{ source = \"can.KEYS.GEAR\", form = \"name\", rest = 0 }", "user_data.named.rest", "must be a text", ""),
        bad(NAMED, "{ source = \"can.KEYS.GEAR\", form = \"name\", rest = \"low\", expo = 0.5 }", "user_data.named.expo", "has no effect on a name", ""),
        bad(BIT, "{ source = \"can.KEYS.NAMED_BIT\", form = \"switch\", rest = 2 }", "user_data.bit.rest", "must be true or false", ""),
        bad(BIT, "{ source = \"can.KEYS.NAMED_BIT\", form = \"switch\", output = [0, 5] }", "user_data.bit.output", "form = \"number\" sends a number", ""),
        // Counters and constants.
        bad(COUNTER, "counter = { counter = 63 }", "user_data.counter.counter", "must be 64 to", ""),
        bad(COUNTER, "counter = { counter = false }", "user_data.counter.counter", "must be true", ""),
        bad(COUNTER, "counter = { counter = \"on\" }", "user_data.counter.counter", "must be an integer", ""),
        bad(COUNTER, "counter = { counter = 256, rest = 5 }", "user_data.counter.rest", "no effect on a counter", ""),
        bad(COUNTER, "counter = { counter = 256, value = 5 }", "user_data.counter", "only one of", ""),
        bad(COUNTER, "counter = { counter = 256 }\nsite = { value = [1] }", "user_data.site.value", "must be a text, a number, true or false", ""),
        bad(COUNTER, "counter = { counter = 256 }\nsite = { value = 1e999 }", "user_data.site.value", "finite", ""),
        bad(COUNTER, "counter = { counter = 256 }\nsite = { value = 1, invert = true }", "user_data.site.invert", "no effect on a constant", ""),
        // Names and paths.
        bad(COUNTER, "counter = { counter = 256 }\narm.lift = { value = 1 }", "user_data.arm", "needs quotes: \"arm.lift\"", ""),
        bad(COUNTER, "counter = { counter = 256 }\n\"arm..lift\" = { value = 1 }", "user_data.\"arm..lift\"", "1 to 8 keys", ""),
        bad(COUNTER, "counter = { counter = 256 }\n\"a.b.c.d.e.f.g.h.i\" = { value = 1 }", "user_data.\"a.b.c.d.e.f.g.h.i\"", "1 to 8 keys", ""),
        bad(COUNTER, "counter = { counter = 256 }\n\"lift\" = { value = 1 }\n\"lift.up\" = { value = 1 }", "user_data.\"lift.up\"", "cannot be a value and hold others", ""),
        bad(COUNTER, "counter = { counter = 256 }\n\"lift.up\" = { value = 1 }\n\"lift\" = { value = 1 }", "user_data.lift", "cannot be a value and hold others", ""),
        bad(COUNTER, "counter = { counter = 256 }\n\"a\\nb\" = { value = 1 }", "user_data.\"a\\nb\"", "no control characters", ""),
        bad(COUNTER, "counter = { counter = 256 }\n\"user_data.x\" = { value = 1 }", "user_data.\"user_data.x\"", "the wrapper", ""),
        // The name that is kept for the panel's health.
        bad(COUNTER, "counter = { counter = 256 }\npanel_ok = { value = true }", "user_data.panel_ok", "whether the panel can be believed", ""),
        bad(COUNTER, "counter = { counter = 256 }\npanel_ok = { source = \"can.KEYS.LEVER\" }", "user_data.panel_ok", "whether the panel can be believed", ""),
        bad(COUNTER, "counter = { counter = 256 }\nok = { source = \"station.panel_ok\", rest = true }", "user_data.ok.rest", "no effect on station.panel_ok", ""),
    ];
    all_refused(BASE, &cases);
}

#[test]
fn mistakes_in_a_dashboard_are_named_with_key_reason_and_what_was_meant() {
    const VALUE: &str = "source = \"feedback.ping_latency_ms\"";
    #[rustfmt::skip]
    let cases = [
        bad(VALUE, "source = \"axes.left_x\"", "send.LAMPS.signals.VALUE.source", "OCP takes to the vehicle by itself", ""),
        bad(VALUE, "source = \"user.counter\"", "send.LAMPS.signals.VALUE.source", "a desk sends it", ""),
        bad(VALUE, "source = \"station.age\"", "send.LAMPS.signals.VALUE.source", "connected, panel_ok, feedback_age_ms, fault", ""),
        bad(VALUE, "source = \"feedbck.sender_fault\"", "send.LAMPS.signals.VALUE.source", "no such source", "feedback.sender_fault"),
        bad(VALUE, "source = \"feedback.reciever_fault\"", "send.LAMPS.signals.VALUE.source", "the feedback has no reciever_fault", "feedback.receiver_fault"),
        bad(VALUE, "source = \"feedback.speed\"", "send.LAMPS.signals.VALUE.source", "the feedback has no speed", ""),
        bad(VALUE, "source = \"feedback.vehicle_dat.user_data.x\"", "send.LAMPS.signals.VALUE.source", "the feedback has no vehicle_dat", "feedback.vehicle_data.user_data.x"),
        bad(VALUE, "source = \"feedback.vehicle_data.userdata.x.y\"", "send.LAMPS.signals.VALUE.source", "no vehicle_data.userdata", "feedback.vehicle_data.user_data.x.y"),
        bad(VALUE, "source = \"feedback.vehicle_data.pos.latt\"", "send.LAMPS.signals.VALUE.source", "no vehicle_data.pos.latt", "feedback.vehicle_data.pos.lat"),
        bad(VALUE, "source = \"feedback.vehicle_data.pos\"", "send.LAMPS.signals.VALUE.source", "a position has two values", ""),
        bad(VALUE, "source = \"feedback.vehicle_data\"", "send.LAMPS.signals.VALUE.source", "is an object", ""),
        bad(VALUE, "source = \"feedback.last_remote_input\"", "send.LAMPS.signals.VALUE.source", "is an object", ""),
        bad(VALUE, "source = \"feedback.last_remote_input.axes.left_xx\"", "send.LAMPS.signals.VALUE.source", "no last_remote_input.axes.left_xx", "feedback.last_remote_input.axes.left_x"),
        bad(VALUE, "source = \"feedback.last_remote_input.buttons.x.y\"", "send.LAMPS.signals.VALUE.source", "nothing inside them", ""),
        bad(VALUE, "source = \"feedback.ack_time.low\"", "send.LAMPS.signals.VALUE.source", "nothing lies inside", ""),
        bad(VALUE, "source = \"feedback.\"", "send.LAMPS.signals.VALUE.source", "needs 1 to 10 keys", ""),
        bad(VALUE, "source = \"feedback\"", "send.LAMPS.signals.VALUE.source", "needs 1 to 10 keys", ""),
        bad(VALUE, "source = \"can.OTHER.BIT\"", "send.LAMPS.signals.VALUE.source", "no [receive.OTHER]", ""),
        bad(VALUE, "source = \"station.connected\"\nvehicle = \"dumper-2\"", "send.LAMPS.signals.VALUE.vehicle", "only feedback.* belongs to a vehicle", ""),
        bad(VALUE, "value = 1\nvehicle = \"dumper-2\"", "send.LAMPS.signals.VALUE.vehicle", "no effect on a constant", ""),
        bad(VALUE, "source = \"feedback.ack_time\"\nvehicle = 7", "send.LAMPS.signals.VALUE.vehicle", "must be a text", ""),
        bad(VALUE, "value = 0.05", "send.LAMPS.signals.VALUE.value", "cannot be sent", ""),
        bad(VALUE, "value = 1\nsource = \"feedback.ack_time\"", "send.LAMPS.signals.VALUE", "only one of `source` and `value`", ""),
        bad(VALUE, "", "send.LAMPS.signals.VALUE.source", "is missing", ""),
        bad(VALUE, "source = \"feedback.ack_time\"\nrest = 101", "send.LAMPS.signals.VALUE.rest", "outside -100 .. 100", ""),
        bad(VALUE, "source = \"feedback.ack_time\"\nrest = \"off\"", "send.LAMPS.signals.VALUE.rest", "must be a number", ""),
        bad("rest = 60", "", "send.LAMPS.signals.AWAY_LAMP.rest", "0, the default, is outside 50 .. 200", ""),
        // What moves vehicles.
        bad(VALUE, "source = \"feedback.ack_time\"\nsafe = 0", "send.LAMPS.signals.VALUE.safe", "is `rest`", ""),
        bad(VALUE, "source = \"feedback.ack_time\"\nkind = \"other\"", "send.LAMPS.signals.VALUE.kind", "move a vehicle", ""),
        bad(VALUE, "source = \"feedback.ack_time\"\nslew_up_per_s = 5", "send.LAMPS.signals.VALUE.slew_up_per_s", "move a vehicle", ""),
        bad(VALUE, "source = \"feedback.ack_time\"\nstop = \"hold\"", "send.LAMPS.signals.VALUE.stop", "move a vehicle", ""),
        bad(VALUE, "source = \"feedback.ack_time\"\ntoggle = true", "send.LAMPS.signals.VALUE.toggle", "remembers no presses", ""),
        bad("[send.LAMPS]\n", "[send.LAMPS]\nenable = { signal = \"VALUE\" }\n", "send.LAMPS.enable", "a dashboard obeys nobody", ""),
        // As for vehicles.
        bad("[send.LAMPS]\n", "[send.LAMPS]\nperiod_ms = 4\n", "send.LAMPS.period_ms", "must be 5 to 50", ""),
        bad("[send.LAMPS.signals.VALUE]\nsource = \"feedback.ping_latency_ms\"\n", "", "send.LAMPS.signals.VALUE", "is missing", ""),
        bad("[send.LAMPS]\n", "[receive.LAMPS]\n[send.LAMPS]\n", "receive.LAMPS", "cannot be feedback too", ""),
    ];
    all_refused(BASE, &cases);
}

#[test]
fn a_desk_without_frames_needs_no_bus_and_has_no_panel() {
    let plain = "role = \"operator\"\nstation = \"plain\"\n[player]\naddress = \"127.0.0.1:4001\"\n";
    let config = good(plain);
    assert!(config.plan.buses.is_empty() && config.plan.user_data.is_empty(), "{:?}", config.plan);
    assert_eq!(config.plan.active, ActiveVehicle::Only);
    assert_eq!(config.plan.disable_gamepad, None);
    let times = (config.player.feedback_stale, config.player.data_stale);
    assert_eq!(times, (Duration::from_millis(500), Duration::from_millis(1_000)));
    #[rustfmt::skip]
    let cases = [
        bad("[player]", "[receive.PANEL]\n[player]", "bus", "is missing", ""),
        bad("[player]", "[send.DASH]\n[player]", "bus", "is missing", ""),
        bad("[player]", "[user_data]\nok = { source = \"station.panel_ok\" }\n[player]", "user_data.ok.source", "there is no panel", ""),
    ];
    all_refused(plain, &cases);
}

#[test]
fn what_a_file_says_is_what_the_plan_holds() {
    let signal = |of: &StationConfig, name: &str| {
        let at = of.plan.receive[0].signals.iter().position(|s| s.name == name).unwrap();
        SignalRef { receive: 0, signal: at }
    };
    let text = changed(
        "bit = ",
        "away = { source = \"can.KEYS.LEVER\", range = [-100, 100], output = [-5, 5], invert = true, dead_zone = 0.1, rest = -0.5 }\n\
         step = { source = \"can.KEYS.STEP\", rest = 5 }\n\
         switch = { source = \"can.KEYS.NAMED_BIT\", form = \"switch\", invert = true, rest = 1 }\n\
         other = { source = \"can.OTHER.BIT\" }\n\
         \"deep.er.site\" = { value = \"north\" }\n\
         \"deep.er.number\" = { value = 3 }\n\
         never = { counter = true }\n\
         bit = ",
    )
    .replacen("[user_data]", "[receive.OTHER]\nstale_after_ms = 250\n[user_data]", 1)
    .replacen("[player]\n", "[player]\ndisable_gamepad = true\nfeedback_stale_ms = 100\ndata_stale_ms = 5000\n", 1)
    .replacen("\"feedback.ping_latency_ms\"", "\"feedback.vehicle_data.user_data.a.b\"\nvehicle = \"dumper-2\"", 1);
    let config = good(&text);
    let plan = &config.plan;
    assert_eq!(config.name, "odd");
    assert_eq!(config.player.address.port(), 4_001);
    let times = (config.player.feedback_stale, config.player.data_stale);
    assert_eq!(times, (Duration::from_millis(100), Duration::from_secs(5)));
    assert_eq!(plan.disable_gamepad, Some(true));
    let gear = signal(&config, "GEAR");
    let vehicles = vec![(10.0, "loader-7".to_owned()), (12.0, "dumper-2".to_owned())];
    assert_eq!(plan.active, ActiveVehicle::Panel { signal: gear, vehicles });

    let of = |path: &str| {
        let found = plan.user_data.iter().find(|sink| sink.path.join(".") == path);
        found.unwrap_or_else(|| panic!("no {path}")).value.clone()
    };
    let panel = |name: &str, transform: Transform, form: Form, rest: Value| SinkValue::Panel {
        signal: signal(&config, name),
        transform,
        form,
        rest,
    };
    assert_eq!(of("counter"), SinkValue::Counter { modulo: Some(256) });
    assert_eq!(of("never"), SinkValue::Counter { modulo: None });
    assert_eq!(of("deep.er.site"), SinkValue::Constant(json!("north")));
    assert_eq!(of("deep.er.number"), SinkValue::Constant(json!(3)));
    assert_eq!(plan.user_data.iter().find(|s| s.path.len() > 1).unwrap().path, ["deep", "er", "site"]);
    // A bit with names is a number, a bit without is a switch, one that is not 0 and 1 is a number.
    let direct = |low: f64, high: f64| Transform {
        out_low: low,
        out_centre: low,
        out_high: high,
        ..Transform::direct()
    };
    assert_eq!(of("bit"), panel("NAMED_BIT", direct(0.0, 1.0), Form::Number, json!(0)));
    assert_eq!(of("step"), panel("STEP", direct(0.0, 5.0), Form::Number, json!(5)));
    assert_eq!(of("lever"), panel("LEVER", direct(-100.0, 100.0), Form::Number, json!(0)));
    let switch = Transform::switch(0.0, 1.0);
    assert_eq!(of("switch"), panel("NAMED_BIT", switch.inverted(), Form::Switch, json!(true)));
    let SinkValue::Panel { signal: other, transform, form: Form::Switch, rest } = of("other") else {
        panic!("{:?}", of("other"))
    };
    assert_eq!((other, transform, rest), (SignalRef { receive: 1, signal: 0 }, switch, json!(false)));
    let names = vec![(10.0, "low".to_owned()), (12.0, "mid".to_owned()), (40.0, "high".to_owned())];
    assert_eq!(of("named"), panel("GEAR", Transform::direct(), Form::Name(names), json!("low")));
    let SinkValue::Panel { transform, rest, .. } = of("away") else { panic!("{:?}", of("away")) };
    assert_eq!(transform.shape, Shape::Centred { low: -100.0, centre: 0.0, high: 100.0 });
    assert_eq!((transform.out_low, transform.out_centre, transform.out_high), (-5.0, 0.0, 5.0));
    assert!(transform.invert && transform.dead_zone == 0.1 && rest == json!(-0.5));
    assert_eq!(plan.user_data.last().unwrap().path, ["panel_ok"], "added by itself");
    assert_eq!(of("panel_ok"), SinkValue::PanelOk);

    let [value, away] = plan.send[0].signals.as_slice() else { panic!("{:?}", plan.send) };
    assert_eq!((value.source, away.source), (Source::User(0), Source::User(1)));
    let path = ["vehicle_data", "user_data", "a", "b"].map(str::to_owned).to_vec();
    let feedback = Slot::Feedback { path, vehicle: Some("dumper-2".to_owned()), names: vec![] };
    assert_eq!(plan.slots, [feedback, Slot::Panel(signal(&config, "AWAY"))]);
    assert_eq!((away.safe, away.min, away.max), (60.0, 50.0, 200.0));
    assert_eq!((value.safe, value.kind, value.stop), (0.0, Kind::Other, StopProfile::Safe));
    assert_eq!(plan.receive[1].stale_after, Duration::from_millis(250));
}

#[test]
fn a_selector_is_compared_with_the_very_number_that_it_reads() {
    let from = "{ source = \"can.KEYS.GEAR\", vehicles = { low = \"loader-7\", \"12\" = \"dumper-2\" } }";
    let text = changed(from, "{ source = \"can.KEYS.TENTHS\", vehicles = { \"0.3\" = \"loader-7\" } }");
    let plan = good(&text).plan;
    let ActiveVehicle::Panel { signal, vehicles } = &plan.active else { panic!("{:?}", plan.active) };
    let codec = plan.receive[signal.receive].signals[signal.signal].codec;
    let mut data = [0; 8];
    codec.encode(&mut data, 0.3).unwrap();
    assert_eq!(codec.decode(&data).unwrap(), vehicles[0].0);
    assert_ne!(vehicles[0].0, 0.3, "the case shows nothing");
}

#[test]
fn panel_ok_is_added_where_the_panel_commands_and_only_there() {
    let has = |text: &str| good(text).plan.user_data.iter().any(|s| s.path == ["panel_ok"]);
    assert!(has(BASE));
    let without = |lines: &[&str]| {
        BASE.lines()
            .filter(|line| !lines.iter().any(|start| line.starts_with(start)))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert!(has(&without(&["lever", "named", "bit"])), "the selector of the vehicle is the panel's too");
    let shown_only = without(&["lever", "named", "bit", "active_vehicle"]);
    assert!(!has(&shown_only), "a dashboard that shows the panel commands nothing");
    let listed =
        shown_only.replacen("[user_data]", "[user_data]\npanel_ok = { source = \"station.panel_ok\" }", 1);
    assert!(has(&listed));
    let elsewhere = changed("lever =", "\"health.panel\" = { source = \"station.panel_ok\" }\nlever =");
    assert!(has(&elsewhere), "a second name takes nothing away");
    let sinks =
        good(&changed("lever =", "panel_ok = { source = \"station.panel_ok\" }\nlever =")).plan.user_data;
    assert_eq!(sinks.iter().filter(|s| s.value == SinkValue::PanelOk).count(), 1);
}

#[test]
fn one_path_on_two_signals_is_one_slot_unless_their_names_differ() {
    let text = changed("source = \"can.KEYS.AWAY\"", "source = \"feedback.ping_latency_ms\"");
    let plan = good(&text).plan;
    assert_eq!(plan.slots.len(), 1, "{:?}", plan.slots);
    let plan = good(EXAMPLE).plan;
    let state = plan.slots.iter().find_map(|slot| match slot {
        Slot::Feedback { path, names, .. } if path.last().unwrap() == "state" => Some(names),
        _ => None,
    });
    assert!(state.unwrap().contains(&("ARMED".to_owned(), 5.0)), "{state:?}");
    let own = plan.slots.iter().filter(|slot| matches!(slot, Slot::Own(_))).count();
    assert_eq!(own, 3);
    assert!(plan.slots.contains(&Slot::Own(Own::PanelOk)));
}

#[test]
fn an_object_that_can_outgrow_a_message_is_refused() {
    // Each quote and backslash takes two bytes in JSON.
    let long = "\\\"".repeat(120);
    let with = |members: usize| {
        let mut lines = String::new();
        for i in 0..members {
            writeln!(lines, "member_{i} = {{ value = \"{long}\" }}").unwrap();
        }
        changed("counter = {", &format!("{lines}counter = {{"))
    };
    good(&with(40));
    let problems = desk(&with(USER_FIELDS - 4)).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!(problems[0].key, "user_data");
    assert!(problems[0].reason.contains(&OCP_BODY.to_string()), "{}", problems[0]);
    // Exactly the names and the value of one member stand between the two.
    let most = (1..USER_FIELDS - 4).rfind(|members| desk(&with(*members)).is_ok()).unwrap();
    assert!(
        most * (long.len() + 10) < OCP_BODY && (most + 6) * (long.len() + 20) > OCP_BODY - 1_024,
        "{most}"
    );

    let many: String = (0..=USER_FIELDS).map(|i| format!("m{i} = {{ value = 1 }}\n")).collect();
    let problems = desk(&changed("counter = {", &format!("{many}counter = {{"))).unwrap_err();
    assert!(problems[0].reason.contains("more than 64 members"), "{problems:#?}");
}

#[test]
fn more_sources_than_slots_are_one_problem() {
    let slots = USER_FIELDS + 2;
    let mut dbc = "VERSION \"\"\nNS_ :\nBS_:\nBU_: D P\n\nBO_ 256 MANY: 64 D\n".to_owned();
    let mut text = "role = \"operator\"\nstation = \"many\"\n[player]\naddress = \"127.0.0.1:4001\"\n[bus.desk]\n\
                    interface = \"sim:many\"\nfd = true\ndbc = \"many.dbc\"\n[send.MANY]\nfd = true\n[send.MANY.signals]\n"
        .to_owned();
    for i in 0..slots {
        writeln!(dbc, " SG_ S{i} : {}|4@1+ (1,0) [0|15] \"\" P", i * 4).unwrap();
        writeln!(text, "S{i} = {{ source = \"feedback.vehicle_data.user_data.s{i}\" }}").unwrap();
    }
    let problems = config::parse_either(&text, &[("many.dbc", &dbc)]).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(problems[0].reason.contains("more than 64 different sources"), "{}", problems[0]);
}

#[test]
fn all_problems_of_a_desk_come_in_one_go_in_the_order_of_the_file() {
    let text = BASE
        .replacen("station = \"odd\"", "station = 5", 1)
        .replacen("127.0.0.1:4001", "127.0.0.1:0", 1)
        .replacen("counter = 256", "counter = 5", 1)
        .replacen("can.KEYS.LEVER", "axes.left_x", 1)
        .replacen("rest = 60", "rest = 6", 1);
    let problems = desk(&text).unwrap_err();
    let keys: Vec<&str> = problems.iter().map(|p| p.key.as_str()).collect();
    let expected = [
        "station",
        "player.address",
        "user_data.counter.counter",
        "user_data.lever.source",
        "send.LAMPS.signals.AWAY_LAMP.rest",
    ];
    assert_eq!(keys, expected, "{problems:#?}");
}

#[test]
fn what_an_operator_should_know_is_said() {
    let says = |text: &str, wanted: &str| {
        let warnings = good(text).warnings;
        assert!(warnings.iter().any(|w| w.contains(wanted)), "{wanted}: {warnings:#?}");
    };
    says(&changed("counter = { counter = 256 }\n", ""), "after up to 1045 ms instead of 275 ms");
    says(&changed("127.0.0.1:4001", "192.0.2.7:4001"), "tells the desk what it shows");
    says(BASE, "a frozen panel looks like a held lever");
    says(
        &changed("[user_data]", "[receive.OTHER]\n[user_data]"),
        "panel_ok is false without it all the same",
    );
    assert_eq!(good(EXAMPLE).warnings, [""; 0], "the example leaves nothing to warn of");
}

#[test]
fn commands_for_vehicles_refuse_a_desks_file_with_one_clear_problem() {
    let files = [("odd.dbc", ODD_DBC)];
    // Whatever else is wrong with it does not matter here.
    for text in [BASE.to_owned(), changed("station = \"odd\"", "station = 5")] {
        let problems = config::parse(&text, &files).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert_eq!((problems[0].key.as_str(), problems[0].line), ("role", Some(1)));
        assert!(problems[0].reason.contains("`ocpcan run` and `ocpcan check`"), "{}", problems[0]);
    }
    assert!(matches!(read(VEHICLE).unwrap(), Loaded::Vehicle(_)));
    let path = deploy("operator.example.toml");
    let problems = config::load(&path).unwrap_err();
    assert!(problems.len() == 1 && problems[0].file == path, "{problems:#?}");
    assert!(matches!(config::load_either(&path).unwrap(), Loaded::Operator(_)));
}

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

/// Every field that the vehicle reads is sent by the desk, in a form that it takes, and every counter counts alike.
#[test]
fn the_two_examples_work_with_each_other() {
    let desk = good(EXAMPLE);
    let Loaded::Vehicle(vehicle) = read(VEHICLE).unwrap() else { panic!("no vehicle") };
    assert_eq!(vehicle.warnings, [""; 0]);
    let sink = |path: &[String]| desk.plan.user_data.iter().find(|sink| sink.path == path);
    for field in &vehicle.plan.user_fields {
        let sink = sink(&field.path).unwrap_or_else(|| panic!("the desk does not send {}", field.dotted()));
        if let SinkValue::Panel { form: Form::Name(names), rest, .. } = &sink.value {
            for (_, name) in names {
                assert!(
                    field.names.iter().any(|(known, _)| known == name),
                    "{name} is no value of the vehicle"
                );
            }
            assert!(field.names.iter().any(|(known, _)| rest == known));
        }
    }
    let counter = vehicle.plan.operator_counter.unwrap();
    let path = &vehicle.plan.user_fields[usize::from(counter.field)].path;
    assert_eq!(sink(path).unwrap().value, SinkValue::Counter { modulo: counter.modulo });
    let required: Vec<&str> = vehicle.plan.require.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(required, ["user.panel_ok"]);
    assert_eq!(sink(&["panel_ok".to_owned()]).unwrap().value, SinkValue::PanelOk);
    // The lever drives: its rest, and the end it rests at, are no throttle.
    let throttle = vehicle.plan.send[0].signals.iter().find(|s| s.kind == Kind::Throttle).unwrap();
    let SinkValue::Panel { transform, rest, .. } = &sink(&["lever".to_owned()]).unwrap().value else {
        panic!("no lever")
    };
    let driven = |transform: &Transform, reading: f64| {
        let reading = ocpcan::signals::source::Reading::Number(reading);
        transform.apply(reading).unwrap()
    };
    assert_eq!(driven(&throttle.transform, rest.as_f64().unwrap()), 0.0);
    assert_eq!(driven(&throttle.transform, driven(transform, 0.0)), 0.0);
    assert_eq!(driven(&throttle.transform, driven(transform, 100.0)), 100.0);
    // What the dashboard reads of the vehicle's own data is reported there.
    for slot in &desk.plan.slots {
        if let Slot::Feedback { path, .. } = slot
            && let [data, user, key, ..] = path.as_slice()
            && data == "vehicle_data"
        {
            assert_eq!(user, "user_data");
            let reported = vehicle.plan.report.iter().any(|field| field.key == *key);
            assert!(reported || key == config::GATEWAY_KEY, "{key} is not reported");
        }
    }
}

#[test]
fn the_options_that_the_example_shows_commented_out_are_accepted() {
    let mut used = 0;
    for line in EXAMPLE.lines().filter(|line| line.starts_with("# ") && line.contains(" = ")) {
        let key = line.trim_start_matches("# ").split(" = ").next().unwrap();
        if key.contains(' ') || key == "key" {
            continue;
        }
        let text = EXAMPLE.replacen(line, line.trim_start_matches("# "), 1);
        if let Err(problems) = desk(&text) {
            panic!("{line}: {problems:#?}");
        }
        used += 1;
    }
    assert!(used >= 11, "only {used} options found");
    // What the comments say is the default is the default.
    let config = good(EXAMPLE);
    let spelled = EXAMPLE
        .replacen("# feedback_stale_ms", "feedback_stale_ms", 1)
        .replacen("# data_stale_ms", "data_stale_ms", 1)
        .replacen("# stale_after_ms", "stale_after_ms", 1)
        .replacen("# period_ms", "period_ms", 1);
    let said = good(&spelled);
    assert_eq!(config.player, said.player);
    assert_eq!(config.plan.receive[0].stale_after, said.plan.receive[0].stale_after);
}

#[test]
fn check_prints_what_an_operators_file_resolves_to() {
    let check = |name: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_ocpcan"))
            .args(["check", "--config"])
            .arg(deploy(name))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let text = check("operator.example.toml");
    for wanted in [
        "station    desk-1",
        "Player     127.0.0.1:4001, feedback stale after 500 ms, vehicle data after 1000 ms",
        "active     the only vehicle that is connected",
        "bus        desk: can0, classic, echo required",
        "receive PANEL 0x500 on desk, 8 bytes, stale after 100 ms",
        "counter: one more with every message, modulo 256",
        "can.PANEL.LEVER 0 .. 100 -> 0 .. 1; at rest 0",
        "can.PANEL.SEAT: true where it is 1; at rest false",
        "its name, manual, crab, circle; at rest \"manual\"",
        "panel_ok             true while every panel frame is fresh",
        "send DASH 0x501 on desk, 8 bytes, every 50 ms",
        "bits     0.0 to 1.7 (16 unsigned, little endian, x 0.01 + 0)",
        "source   feedback.vehicle_data.user_data.speed_kph",
        "source   station.connected: off 0, on 1",
        "rest     655.35",
        "[arm] require = \"user.panel_ok\"",
        "within 275 ms, and within 1045 ms without it",
        "Warnings   none",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is not in:\n{text}");
    }
    let text = check("vehicle-with-panel.example.toml");
    for wanted in ["require    user.panel_ok", "counter user.counter, modulo 256", "275", "Warnings   none"] {
        assert!(text.contains(wanted), "{wanted:?} is not in:\n{text}");
    }
}

/// Damages both examples in many ways: whatever comes out is accepted or refused with a reason, and what is accepted holds
/// the rules that the station relies on.
#[test]
fn a_damaged_desk_never_panics_and_never_passes_with_a_broken_rule() {
    use proptest::prelude::*;
    const CASES: u32 = 2_000;
    let seed = std::env::var("OCPCAN_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_secs()
    });
    println!("OCPCAN_SEED={seed}");
    let mut bytes = [0u8; 32];
    bytes[..8].copy_from_slice(&u64::to_le_bytes(seed));
    let rng = proptest::test_runner::TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &bytes);
    let runner = RunnerConfig { cases: CASES, failure_persistence: None, ..RunnerConfig::default() };
    let mut runner = TestRunner::new_with_rng(runner, rng);
    let lines: Vec<&str> = EXAMPLE
        .lines()
        .map(|line| line.split(" # ").next().unwrap().trim_end())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .chain(BASE.lines().filter(|line| line.contains(" = {")))
        .collect();
    let words = [
        "0",
        "-1",
        "1e999",
        "nan",
        "\"\"",
        "[]",
        "{}",
        "true",
        "\"can.PANEL.LEVER\"",
        "\"can.PANEL.\"",
        "\"feedback.vehicle_data.user_data\"",
        "\"station.panel_ok\"",
        "{ source = \"can.PANEL.SEAT\", rest = true }",
        "{ source = \"can.PANEL.STEERING_MODE\", form = \"name\" }",
        "{ counter = true }",
        "{ value = \"\\u0000\" }",
        "\u{0}",
        "]",
        "\"",
    ];
    let edit = (0..lines.len(), 0..lines.len(), 0..words.len(), 0..5u8);
    let accepted = std::cell::Cell::new(0u32);
    runner
        .run(&proptest::collection::vec(edit, 0..4), |edits| {
            let mut text: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
            // The lines that follow the example are food for the edits only.
            let example = lines.len() - BASE.lines().filter(|line| line.contains(" = {")).count();
            for (a, b, word, how) in edits {
                let value = words[word];
                match how {
                    0 => text[a].clear(),
                    1 => text.swap(a, b),
                    2 => {
                        let key = text[a].split('=').next().unwrap().trim().to_owned();
                        text[a] = format!("{key} = {value}");
                    }
                    3 => text[a] = text[b].clone(),
                    _ => text[a].push_str(value),
                }
            }
            match read(&text[..example].join("\n")) {
                Ok(Loaded::Operator(config)) => {
                    accepted.set(accepted.get() + 1);
                    rules_hold(&config);
                }
                Ok(Loaded::Vehicle(_)) => prop_assert!(false, "a desk's file became a vehicle's"),
                Err(problems) => prop_assert!(!problems.is_empty()),
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("OCPCAN_SEED={seed}: {error}"));
    println!("{} of {CASES} damaged files were still valid", accepted.get());
    assert!(accepted.get() > 0, "no damage was harmless: the test proves nothing about accepted files");
}

#[test]
fn a_desks_file_cut_anywhere_is_refused_or_complete_and_never_a_panic() {
    for end in (0..EXAMPLE.len()).filter(|end| EXAMPLE.is_char_boundary(*end)) {
        match read(&EXAMPLE[..end]) {
            Ok(Loaded::Operator(config)) => rules_hold(&config),
            Ok(Loaded::Vehicle(_)) => panic!("a desk's file became a vehicle's at byte {end}"),
            Err(problems) => assert!(!problems.is_empty()),
        }
    }
}

/// What every accepted plan must hold.
fn rules_hold(config: &StationConfig) {
    let plan = &config.plan;
    assert_ne!(config.player.address.port(), 0);
    let exists = |of: SignalRef| plan.receive.get(of.receive).is_some_and(|r| of.signal < r.signals.len());
    let mut panel = false;
    for sink in &plan.user_data {
        assert!(
            (1..=8).contains(&sink.path.len()) && sink.path.iter().all(|key| !key.is_empty()),
            "{sink:?}"
        );
        match &sink.value {
            SinkValue::Counter { modulo } => assert!(modulo.is_none_or(|modulo| modulo >= 64)),
            SinkValue::PanelOk => assert!(!plan.receive.is_empty()),
            SinkValue::Constant(value) => {
                assert!(value.is_string() || value.is_number() || value.is_boolean())
            }
            SinkValue::Panel { signal, form, rest, .. } => {
                panel = true;
                assert!(exists(*signal));
                match form {
                    Form::Number => assert!(rest.is_number()),
                    Form::Switch => assert!(rest.is_boolean()),
                    Form::Name(names) => assert!(names.iter().any(|(_, name)| rest == name)),
                }
            }
        }
    }
    let ok: Vec<_> = plan.user_data.iter().filter(|sink| sink.path == ["panel_ok"]).collect();
    assert!(ok.iter().all(|sink| sink.value == SinkValue::PanelOk) && (!panel || ok.len() == 1));
    if let ActiveVehicle::Panel { signal, vehicles } = &plan.active {
        assert!(exists(*signal) && !vehicles.is_empty());
    }
    assert!(plan.receive.iter().all(|frame| !frame.required));
    for frame in &plan.send {
        assert!(frame.enable.is_none());
        assert!(plan.receive.iter().all(|r| (r.bus, r.id) != (frame.bus, frame.id)));
        for signal in &frame.signals {
            match signal.source {
                Source::User(slot) => assert!(usize::from(slot) < plan.slots.len()),
                Source::Constant(_) => {}
                Source::Axis(_) | Source::Button(_) | Source::Car(_) => panic!("{signal:?}"),
            }
            assert!((signal.min..=signal.max).contains(&signal.safe), "{}", signal.name);
            let (low, high) = signal.codec.physical_range();
            assert!(low <= signal.min && signal.max <= high, "{}", signal.name);
            assert_eq!((signal.kind, signal.stop), (Kind::Other, StopProfile::Safe));
        }
    }
    for slot in &plan.slots {
        match slot {
            Slot::Panel(signal) => assert!(exists(*signal)),
            Slot::Feedback { path, .. } => assert!(!path.is_empty()),
            Slot::Own(_) => {}
        }
    }
}
