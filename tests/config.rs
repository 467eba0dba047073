//! Configurations that must be refused, each with the key, the reason and the name that was meant; and the example,
//! which must be accepted.
//!
//! Owns the rows 99 to 102 and 105 of the fault catalogue, as far as the configuration answers them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(
    clippy::disallowed_methods,
    reason = "a random test takes its seed from the wall clock and prints it"
)]

use ocpcan::config::{self, Config, Problem, RealTime};
use ocpcan::safety::settings::{ARMS_PER_MINUTE, BOUNDS, PERIOD_MS};
use ocpcan::signals::plan::{Kind, SendMode, StopProfile};
use ocpcan::signals::source::Source;
use ocpcan::signals::transform::Shape;
use proptest::test_runner::{Config as RunnerConfig, TestRunner};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const EXAMPLE: &str = include_str!("../deploy/ocpcan.example.toml");
const EXAMPLE_DBC: &str = include_str!("../deploy/example.dbc");

/// A description with everything that cannot be sent, and a few things that can.
const ODD_DBC: &str = r#"VERSION ""
NS_ :
BS_:
BU_: Gateway Vehicle

BO_ 256 GOOD: 8 Gateway
 SG_ VALUE : 0|16@1- (0.1,0) [-100|100] "" Vehicle
 SG_ BIT : 16|1@1+ (1,0) [0|1] "" Vehicle
 SG_ NUMBER : 24|8@1+ (1,0) [0|200] "" Vehicle

BO_ 257 OVERLAP: 8 Gateway
 SG_ FIRST : 0|8@1+ (1,0) [0|255] "" Vehicle
 SG_ SECOND : 7|8@1+ (1,0) [0|255] "" Vehicle

BO_ 258 OUTSIDE: 2 Gateway
 SG_ FAR : 12|8@1+ (1,0) [0|255] "" Vehicle

BO_ 259 MUXED: 8 Gateway
 SG_ PAGE M : 0|8@1+ (1,0) [0|255] "" Vehicle
 SG_ ON_PAGE m0 : 8|8@1+ (1,0) [0|255] "" Vehicle

BO_ 260 NARROW: 8 Gateway
 SG_ LARGE : 0|8@1+ (1,0) [0|300] "" Vehicle

BO_ 261 PULSE: 8 Gateway
 SG_ MICROS : 0|16@1+ (1,0) [900|2100] "us" Vehicle

BO_ 262 LONG: 12 Gateway
 SG_ WIDE : 0|8@1+ (1,0) [0|255] "" Vehicle

BO_ 264 PROTECTED: 8 Gateway
 SG_ CRC_HIGH : 12|8@1+ (1,0) [0|255] "" Vehicle
 SG_ CRC_WIDE : 24|16@1+ (1,0) [0|65535] "" Vehicle
 SG_ COUNT_SIGNED : 40|4@1- (1,0) [0|0] "" Vehicle
 SG_ COUNT_SCALED : 48|4@1+ (2,0) [0|30] "" Vehicle

BO_ 265 FREE: 8 Gateway
 SG_ RATIO : 0|32@1- (1,0) [0|0] "" Vehicle

BO_ 512 STATE: 8 Vehicle
 SG_ SPEED : 0|16@1+ (0.01,0) [0|300] "km/h" Gateway

SIG_VALTYPE_ 265 RATIO : 1;
"#;

/// A configuration on the odd description that is right, until a case changes it.
const BASE: &str = r#"role = "vehicle"
vehicle = "odd"
[ocp]
address = "127.0.0.1:4000"
[arm]
switch = "buttons.start"
[bus.main]
interface = "sim:odd"
dbc = "odd.dbc"
[send.GOOD]
[send.GOOD.signals.VALUE]
kind = "steering"
source = "axes.left_x"
[send.GOOD.signals.BIT]
kind = "other"
source = "buttons.a"
[send.GOOD.signals.NUMBER]
kind = "throttle"
source = "axes.right_trigger"
[receive.STATE]
"#;

/// A directory of its own with both descriptions.
fn directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("config-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("example.dbc"), EXAMPLE_DBC).unwrap();
    fs::write(directory.join("odd.dbc"), ODD_DBC).unwrap();
    directory
}

fn load_in(directory: &Path, text: impl AsRef<[u8]>) -> Result<Config, Vec<Problem>> {
    let path = directory.join("ocpcan.toml");
    fs::write(&path, text).unwrap();
    config::load(&path)
}

fn load(text: impl AsRef<[u8]>) -> Result<Config, Vec<Problem>> {
    let directory = directory();
    let result = load_in(&directory, text);
    fs::remove_dir_all(directory).unwrap();
    result
}

/// The example on its description after these changes of the description.
fn load_on(changes: &[(&str, &str)], text: &str) -> Result<Config, Vec<Problem>> {
    let mut dbc = EXAMPLE_DBC.to_owned();
    for (from, to) in changes {
        assert!(dbc.contains(from), "the case changes nothing: {from}");
        dbc = dbc.replacen(from, to, 1);
    }
    let directory = directory();
    fs::write(directory.join("example.dbc"), dbc).unwrap();
    let result = load_in(&directory, text);
    fs::remove_dir_all(directory).unwrap();
    result
}

/// Exactly one problem, at this key, which says all of these and stands in the configuration file.
fn one_problem(result: Result<Config, Vec<Problem>>, key: &str, says: &[&str]) {
    let problems = result.err().unwrap_or_else(|| panic!("accepted: {key} {says:?}"));
    let [problem] = problems.as_slice() else { panic!("{key} {says:?}: {problems:#?}") };
    assert_eq!(problem.key, key, "{problem}");
    assert!(problem.file.ends_with("ocpcan.toml") && problem.line.is_some(), "{problem}");
    for word in says {
        assert!(problem.reason.contains(word), "{word:?} is not in: {problem}");
    }
}

fn good(text: &str) -> Config {
    load(text).unwrap_or_else(|problems| panic!("refused: {problems:#?}\n{text}"))
}

/// One change to a good file, and the problem it must raise.
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

/// Checks one case: exactly the named problem, and where a name was meant, that name.
fn refused(base: &str, case: &Bad) -> Result<(), String> {
    let ensure = |holds: bool, why: String| {
        if holds { Ok(()) } else { Err(format!("{} -> {}: {why}", case.from, case.to)) }
    };
    ensure(base.contains(case.from), "the case changes nothing".into())?;
    let text = base.replacen(case.from, case.to, 1);
    let problems = load(&text).err().unwrap_or_default();
    ensure(!problems.is_empty(), "accepted".into())?;
    let found = problems.iter().find(|p| p.key == case.key && p.reason.contains(case.reason));
    let Some(found) = found else {
        return ensure(false, format!("wanted {:?} at {:?}, got {problems:#?}", case.reason, case.key));
    };
    let like = (!case.like.is_empty()).then(|| case.like.to_owned());
    ensure(found.nearest == like, format!("wanted {like:?}, got {found}"))?;
    if !found.key.is_empty() && !found.reason.contains("missing") {
        // The key itself, or the list it belongs to, stands in the line that is named.
        let last =
            found.key.trim_end_matches(|c: char| "[]0123456789".contains(c)).rsplit('.').next().unwrap();
        let line = text.lines().nth(found.line.unwrap() - 1).unwrap();
        ensure(line.contains(last.trim_matches('"')), format!("{found} does not stand in line {line:?}"))?;
    }
    ensure(problems.len() == 1, format!("one mistake is one problem: {problems:#?}"))
}

/// Checks a table of cases and names every one that fails.
fn all_refused(base: &str, cases: &[Bad]) {
    let failed: Vec<String> = cases.iter().filter_map(|case| refused(base, case).err()).collect();
    assert!(failed.is_empty(), "{} of {} cases failed:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn row_99_mistakes_in_the_example_are_named_with_key_reason_and_what_was_meant() {
    #[rustfmt::skip]
    let cases = [
        // The file as a whole.
        bad("role = \"vehicle\"", "role = \"operator\"", "role", "this is an operator's file", ""),
        bad("role = \"vehicle\"", "role = \"vehicle\"\nstation = \"desk\"", "station", "names a desk", ""),
        bad("[ocp]", "[player]\naddress = \"127.0.0.1:4001\"\n[ocp]", "player", "the operator's side of OCP", ""),
        bad("[ocp]", "[user_data]\n[ocp]", "user_data", "is what a desk sends", ""),
        bad("role = \"vehicle\"", "role = \"vehicel\"", "role", "must be one of: vehicle, operator", "vehicle"),
        bad("role = \"vehicle\"", "role = 5", "role", "must be a text, not an integer", ""),
        bad("role = \"vehicle\"", "rolle = \"vehicle\"\nrole = \"vehicle\"", "rolle", "unknown key", ""),
        bad("vehicle = \"example\"", "vehicle = \"\"", "vehicle", "1 to 256 bytes", ""),
        bad("vehicle = \"example\"", "vehicle = \"a\\nb\"", "vehicle", "without control characters", ""),
        bad("vehicle = \"example\"", "", "vehicle", "is missing", ""),
        bad("[safety]", "[saftey]", "saftey", "unknown key", "safety"),
        bad("[safety]", "[safety]\nhold_ms = 1000\nhold_ms = 1000", "", "duplicate key", ""),
        bad("fd = false ", "fd = ", "", "not valid TOML", ""),
        // [ocp]
        bad("address = \"127.0.0.1:4000\"", "address = \"localhost:4000\"", "ocp.address", "host names are not looked up", "127.0.0.1:4000"),
        bad("address = \"127.0.0.1:4000\"", "address = \"streamer.example:4000\"", "ocp.address", "host names are not looked up", ""),
        bad("address = \"127.0.0.1:4000\"", "address = \"127.0.0.1\"", "ocp.address", "must have a port", ""),
        bad("address = \"127.0.0.1:4000\"", "address = \"127.0.0.1:0\"", "ocp.address", "port 0", ""),
        bad("address = \"127.0.0.1:4000\"", "address = \"0.0.0.0:4000\"", "ocp.address", "no address of a server", ""),
        bad("address = \"127.0.0.1:4000\"", "adress = \"127.0.0.1:4000\"\naddress = \"127.0.0.1:4000\"", "ocp.adress", "unknown key", ""),
        bad("address = \"127.0.0.1:4000\"", "", "ocp.address", "is missing", ""),
        bad("user_data = \"auto\"", "user_data = \"warpped\"", "ocp.user_data", "must be one of: auto, bare, wrapped", "wrapped"),
        bad("withhold_acks_when_can_dead = false", "withhold_acks_when_can_dead = 0", "ocp.withhold_acks_when_can_dead", "must be true or false, not an integer", ""),
        bad("withhold_acks_when_can_dead = false", "withold_acks_when_can_dead = false", "ocp.withold_acks_when_can_dead", "unknown key", "withhold_acks_when_can_dead"),
        // [arm], [operator]
        bad("switch = \"buttons.start\"", "switch = \"buttons.strat\"", "arm.switch", "there is no buttons.strat", "buttons.start"),
        bad("switch = \"buttons.start\"", "switch = \"start\"", "arm.switch", "no such source", "buttons.start"),
        bad("switch = \"buttons.start\"", "switch = \"axes.left_trigger\"", "arm.switch", "an axis is no switch", ""),
        bad("switch = \"buttons.start\"", "", "arm.switch", "is missing", ""),
        bad("# dead_man = \"buttons.left_bumper\"", "dead_man = \"button.left_bumper\"", "arm.dead_man", "no such source", "buttons.left_bumper"),
        bad("# require = [\"user.seat_ok\"]", "require = [\"user.seat_ok\", \"user.\"]", "arm.require[1]", "needs 1 to 8 keys", ""),
        bad("# require = [\"user.seat_ok\"]", "require = true", "arm.require", "must be a list", ""),
        bad("# require = [\"user.seat_ok\"]", "require = \"usr.panel_ok\"", "arm.require", "no such source", "user.panel_ok"),
        bad("counter = \"user.counter\"", "counter = \"buttons.a\"", "operator.counter", "must be a field of the user data", ""),
        bad("# counter_modulo = 256", "counter_modulo = 10", "operator.counter_modulo", "must be 64 to", ""),
        // [bus.*]
        bad("interface = \"can0\"", "interface = \"a_name_that_is_too_long\"", "bus.vehicle.interface", "is no interface", ""),
        bad("interface = \"can0\"", "interface = \"sim:\"", "bus.vehicle.interface", "is no interface", ""),
        bad("interface = \"can0\"", "interface = \"sim:../x\"", "bus.vehicle.interface", "is no interface", ""),
        bad("interface = \"can0\"", "interfaces = \"can0\"\ninterface = \"can0\"", "bus.vehicle.interfaces", "unknown key", ""),
        bad("dbc = \"example.dbc\"", "dbc = \"none.dbc\"", "bus.vehicle.dbc", "No such file", ""),
        bad("echo = \"required\"", "echo = \"off\"", "bus.vehicle.echo", "must be one of: required, unproven", ""),
        // [send.*]
        bad("[send.BODY_CMD]\nperiod_ms = 50", "[send.BODY_CMD]\nperiod_ms = 0", "send.BODY_CMD.period_ms", "must be 5 to 50 ms, not 0", ""),
        bad("[send.BODY_CMD]\nperiod_ms = 50", "[send.BODY_CMD]\nperiod_ms = 51", "send.BODY_CMD.period_ms", "must be 5 to 50 ms, not 51", ""),
        bad("[send.BODY_CMD]\nperiod_ms = 50", "[send.BODY_CMD]\nperiod_ms = 20.0", "send.BODY_CMD.period_ms", "must be an integer, 5 to 50 ms, not a number", ""),
        bad("[send.BODY_CMD]\nperiod_ms = 50", "[send.BODY_CMD]\nperiod = 50", "send.BODY_CMD.period", "unknown key", ""),
        bad("mode = \"cyclic\"", "mode = \"on_comand\"", "send.DRIVE_CMD.mode", "must be one of: cyclic, on_command", "on_command"),
        bad("mode = \"cyclic\"", "min_gap_ms = 5", "send.DRIVE_CMD.min_gap_ms", "no effect without mode", ""),
        bad("mode = \"cyclic\"", "mode = \"on_command\"\nmin_gap_ms = 21", "send.DRIVE_CMD.min_gap_ms", "must be 1 to 20 ms", ""),
        bad("mode = \"cyclic\"", "fd = true", "send.DRIVE_CMD.fd", "its bus has no `fd = true`", ""),
        bad("mode = \"cyclic\"", "bus = \"vehicel\"", "send.DRIVE_CMD.bus", "no bus", "vehicle"),
        bad("enable = { signal = \"DRIVE_ENABLE\", stop = 0 }", "enable = { signal = \"DRIVE_ENABLED\", stop = 0 }", "send.DRIVE_CMD.enable.signal", "has no signal", "DRIVE_ENABLE"),
        bad("enable = { signal = \"DRIVE_ENABLE\", stop = 0 }", "enable = { signal = \"DRIVE_ENABLE\", stop = 2 }", "send.DRIVE_CMD.enable.stop", "must be 0 or 1", ""),
        bad("enable = { signal = \"DRIVE_ENABLE\", stop = 0 }", "", "send.DRIVE_CMD.signals.DRIVE_ENABLE", "`value = 0`", ""),
        bad("counter = { signal = \"DRIVE_CMD_COUNTER\" }", "counter = { signal = \"DRIVE_CMD_COUNTER\", modulo = 17 }", "send.DRIVE_CMD.counter.modulo", "4 bits count to 16", ""),
        bad("counter = { signal = \"DRIVE_CMD_COUNTER\" }", "counter = { signal = \"DRIVE_CMD_COUNTER\", modulo = 0 }", "send.DRIVE_CMD.counter.modulo", "must be 2 to", ""),
        bad("counter = { signal = \"DRIVE_CMD_COUNTER\" }", "counter = { modulo = 16 }", "send.DRIVE_CMD.counter.signal", "is missing", ""),
        bad("signal = \"DRIVE_CMD_CRC\", algorithm = \"crc8-sae-j1850\"", "signal = \"DRIVE_CMD_CRC\", algorithm = \"crc8-sae-1850\"", "send.DRIVE_CMD.checksum.algorithm", "must be one of: xor, sum", "crc8-sae-j1850"),
        bad("signal = \"DRIVE_CMD_CRC\", algorithm = \"crc8-sae-j1850\"", "signal = \"DRIVE_CMD_CRC\", algorithm = \"sum\", data_id = 65536", "send.DRIVE_CMD.checksum.data_id", "must be 0 to 65535", ""),
        bad("signal = \"DRIVE_CMD_CRC\", algorithm", "signal = \"DRIVE_CMD_COUNTER\", algorithm", "send.DRIVE_CMD.checksum.signal", "8 are needed here", ""),
        // [send.*.signals.*]
        bad("signals.STEER_ANGLE_CMD]\nkind = \"steering\"", "signals.STEER_ANGLE_CMD]\nkind = \"steer\"", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.kind", "must be one of: throttle, brake", ""),
        bad("signals.STEER_ANGLE_CMD]\nkind = \"steering\"", "signals.STEER_ANGLE_CMD]", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.kind", "is missing", ""),
        bad("source = \"axes.left_x\"", "source = \"axes.left_z\"", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.source", "there is no axes.left_z", "axes.left_x"),
        bad("source = \"axes.left_x\"", "source = \"buttons.left_x\"", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.source", "there is no buttons.left_x", "axes.left_x"),
        bad("source = \"axes.left_x\"", "source = \"can.VEHICLE_STATE.STEER_ANGLE\"", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.source", "can never move anything", ""),
        bad("source = \"axes.left_x\"", "source = \"feedback.user_data.x\"", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.source", "can never move anything", ""),
        bad("source = \"axes.left_x\"", "source = 5", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.source", "write `value = ...`", ""),
        bad("source = \"axes.left_x\"", "source = \"axes.left_x\"\nvalue = 3", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD", "only one of `source`, `value` and `select`", ""),
        bad("dead_zone = 0.05", "dead_zone = 1", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.dead_zone", "must be 0 to 0.9, not 1", ""),
        bad("dead_zone = 0.05", "dead_zone = nan", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.dead_zone", "finite", ""),
        bad("expo = 0.3", "expo = -0.1", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.expo", "must be 0 to 1", ""),
        bad("output = [-450, 450]", "output = [450, -450]", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.output", "must be below the second", ""),
        bad("output = [-450, 450]", "output = [-450]", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.output", "not of 1", ""),
        bad("output = [-450, 450]", "output = [-450, 500]", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.output[1]", "500 is outside", ""),
        bad("output = [-450, 450]", "output = [-450, 450]\noutput_centre = 451", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.output_centre", "must lie within the output", ""),
        bad("output = [-450, 450]", "range = [1, -1]", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.range", "must be below the second", ""),
        bad("output = [-450, 450]", "range = [-1, 1]\ncentre = 1", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.centre", "must lie between", ""),
        bad("output = [-450, 450]", "range = [-1, 1]\ncentre = 0.2", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.range", "would never be neutral", ""),
        bad("slew_up_per_s = 600", "slew_up_per_s = 0", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.slew_up_per_s", "must be above 0", ""),
        bad("slew_up_per_s = 600", "slew_up_per_s = inf", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.slew_up_per_s", "finite", ""),
        bad("slew_up_per_s = 600", "slew_up_per_s = 1e999", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.slew_up_per_s", "finite", ""),
        bad("slew_up_per_s = 600", "slewup_per_s = 600", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.slewup_per_s", "unknown key", "slew_up_per_s"),
        bad("stop = \"hold\"", "stop = \"keep\"", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.stop", "must be one of: safe, hold", ""),
        bad("stop = \"hold\"", "stop = 5", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.stop", "must be \"safe\", \"hold\" or", ""),
        bad("stop = \"hold\"", "stop = { ramp_per_s = 10 }", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.stop", "cut off by safety.stopping_ms", ""),
        bad("stop = \"hold\"", "change = \"standstill\"", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.change", "must follow the operator", ""),
        bad("# feedback = \"VEHICLE_STATE.STEER_ANGLE\"", "feedback = \"VEHICLE_STATE.STEER_ANGLE\"", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.feedback_tolerance", "is missing", ""),
        bad("# feedback_tolerance = 60", "feedback_tolerance = 60", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.feedback_tolerance", "needs `feedback`", ""),
        bad("safe = 0 ", "safe = 451 ", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.safe", "451 is outside", ""),
        bad("kind = \"throttle\"", "kind = \"throttle\"\nsafe = 5", "send.DRIVE_CMD.signals.THROTTLE_CMD.safe", "safe value of a throttle must be 0", ""),
        bad("kind = \"throttle\"", "kind = \"throttle\"\nstop = \"hold\"", "send.DRIVE_CMD.signals.THROTTLE_CMD.stop", "must stop with \"safe\"", ""),
        bad("kind = \"throttle\"", "kind = \"throttle\"\nshape = \"centred\"", "send.DRIVE_CMD.signals.THROTTLE_CMD.shape", "can only be one_sided", ""),
        bad("kind = \"throttle\"", "kind = \"throttle\"\ninvert = true", "send.DRIVE_CMD.signals.THROTTLE_CMD", "would never be neutral", ""),
        bad("kind = \"throttle\"", "kind = \"throttle\"\nrange = [-2, 1]", "send.DRIVE_CMD.signals.THROTTLE_CMD.range", "would never be neutral", ""),
        bad("kind = \"throttle\"", "kind = \"throttle\"\ntoggle = true", "send.DRIVE_CMD.signals.THROTTLE_CMD.toggle", "only a switch can toggle", ""),
        bad("output = [0, 100]", "output = [5, 60]", "send.DRIVE_CMD.signals.THROTTLE_CMD", "must be 0 while its control rests", ""),
        bad("stop = { ramp_per_s = 60 }", "stop = { ramp_per_s = 0 }", "send.DRIVE_CMD.signals.BRAKE_CMD.stop.ramp_per_s", "must be above 0", ""),
        bad("stop = { ramp_per_s = 60 }", "stop = { ramp_pers = 60 }", "send.DRIVE_CMD.signals.BRAKE_CMD.stop.ramp_pers", "unknown key", "ramp_per_s"),
        bad("signals.HORN]", "signals.HORNN]", "send.BODY_CMD.signals.HORNN", "has no signal", "HORN"),
        bad("safe = \"manual\"", "safe = \"manuel\"", "send.BODY_CMD.signals.STEERING_MODE.safe", "is no value of STEERING_MODE", "manual"),
        bad("source = \"user.steering_mode\"", "select = [{ switch = \"buttons.a\", value = \"crabb\" }]", "send.BODY_CMD.signals.STEERING_MODE.select[0].value", "is no value of", "crab"),
        bad("source = \"user.steering_mode\"", "select = []", "send.BODY_CMD.signals.STEERING_MODE.select", "at least one", ""),
        bad("source = \"user.steering_mode\"", "select = [{ switch = \"buttons.a\", value = 1 }, { switch = \"buttons.a\", value = 2 }]", "send.BODY_CMD.signals.STEERING_MODE.select[1]", "already chooses", ""),
        bad("source = \"user.horn\"", "source = \"usr.horn\"", "send.BODY_CMD.signals.HORN.source", "no such source", "user.horn"),
        bad("source = \"user.horn\"", "source = \"user.horn\"\nexpo = 0.5", "send.BODY_CMD.signals.HORN.expo", "has no effect on a switch", ""),
        // [receive.*], [standstill], [report.*]
        bad("stale_after_ms = 1000", "stale_after_ms = 0", "receive.VEHICLE_POS.stale_after_ms", "must be 20 to 5000 ms", ""),
        bad("[receive.VEHICLE_POS]", "[receive.VEHICLE_PS]", "receive.VEHICLE_PS", "no message \"VEHICLE_PS\"", "VEHICLE_POS"),
        bad("signal = \"VEHICLE_STATE.SPEED_KPH\"", "signal = \"VEHICLE_STATE.SPEED_KMH\"", "standstill.signal", "has no signal", "VEHICLE_STATE.SPEED_KPH"),
        bad("signal = \"VEHICLE_STATE.SPEED_KPH\"", "signal = \"VEHICLE_STAT.SPEED_KPH\"", "standstill.signal", "no [receive.VEHICLE_STAT]", "VEHICLE_STATE.SPEED_KPH"),
        bad("signal = \"VEHICLE_STATE.SPEED_KPH\"", "signal = \"SPEED_KPH\"", "standstill.signal", "must be MESSAGE.SIGNAL", ""),
        bad("at_most = 0.5", "at_most = -1", "standstill.at_most", "must be 0 or more", ""),
        bad("# speed_cap_without_counter = 10", "speed_cap_without_counter = 0", "standstill.speed_cap_without_counter", "must be above 0", ""),
        bad("speed_kph = \"VEHICLE_STATE.SPEED_KPH\"", "gateway = \"VEHICLE_STATE.SPEED_KPH\"", "report.user_data.gateway", "the gateway's own report", ""),
        bad("gear = { signal = \"VEHICLE_STATE.GEAR\", stale_after_ms = 500 }", "gear = { signal = \"VEHICLE_STATE.GEAR\", stale_ms = 500 }", "report.user_data.gear.stale_ms", "unknown key", ""),
        bad("lon = \"VEHICLE_POS.LONGITUDE\"", "", "report.pos.lon", "is missing", ""),
        // [safety]
        bad("# latency_warn_ms = 200", "latency_warn_ms = 400\nlatency_stop_ms = 400", "safety.latency_warn_ms", "must be below latency_stop_ms", ""),
        bad("# hold_ms = 1000", "hold_ms = \"1000\"", "safety.hold_ms", "must be an integer, 500 to 3000 ms, not a text", ""),
        bad("# hold_ms = 1000", "hold_s = 1", "safety.hold_s", "unknown key", "hold_ms"),
        bad("# real_time = \"warn\"", "real_time = \"require\"", "safety.real_time", "must be one of: warn, required", "required"),
    ];
    all_refused(EXAMPLE, &cases);
    assert!(cases.len() >= 50);
}

#[test]
fn row_101_descriptions_that_cannot_be_sent_are_named() {
    let frame = "[send.GOOD]\n";
    #[rustfmt::skip]
    let cases = [
        bad(frame, "[send.OVERLAP]\nsignals = { FIRST = { value = 1 }, SECOND = { value = 1 } }\n[send.GOOD]\n", "send.OVERLAP", "SECOND and FIRST overlap", ""),
        bad(frame, "[send.OUTSIDE]\nsignals = { FAR = { value = 1 } }\n[send.GOOD]\n", "send.OUTSIDE.signals.FAR", "bits do not lie within the message", ""),
        bad(frame, "[send.MUXED]\nsignals = { PAGE = { value = 1 }, ON_PAGE = { value = 1 } }\n[send.GOOD]\n", "send.MUXED", "is multiplexed", ""),
        bad(frame, "[send.NARROW]\nsignals = { LARGE = { value = 1 } }\n[send.GOOD]\n", "send.NARROW.signals.LARGE", "does not fit its 8 bits", ""),
        bad(frame, "[send.PULSE]\nsignals = { MICROS = { value = 1500 } }\n[send.GOOD]\n", "send.PULSE.signals.MICROS.safe", "0, the default, is outside 900 .. 2100", ""),
        bad(frame, "[send.LONG]\nsignals = { WIDE = { value = 1 } }\n[send.GOOD]\n", "send.LONG", "is a CAN FD frame", ""),
        bad(frame, "[send.FREE]\nsignals = { RATIO = { kind = \"other\", source = \"user.ratio\" } }\n[send.GOOD]\n", "send.FREE.signals.RATIO.output", "a float without limits", ""),
        bad(frame, "[send.GOD]\n", "send.GOD", "no message \"GOD\"", "GOOD"),
        bad(frame, "[send.OTHER]\nmessage = \"GOOD\"\nsignals = { VALUE = { value = 0 }, BIT = { value = 0 }, NUMBER = { value = 0 } }\n[send.GOOD]\n", "send.GOOD", "already sent as OTHER", ""),
        bad("[receive.STATE]", "[receive.GOOD]", "receive.GOOD", "is sent as send.GOOD", ""),
        bad("[receive.STATE]", "[receive.STATE]\n[receive.AGAIN]\nmessage = \"STATE\"", "receive.AGAIN", "already received as STATE", ""),
        bad(frame, "[send.GOOD]\nsignals.VALUE.expo = 0.5\n", "", "duplicate key", ""),
        bad("source = \"axes.right_trigger\"", "source = \"axes.left_y\"\nrange = [-1, 0]", "send.GOOD.signals.NUMBER.range", "would never be neutral", ""),
        bad("source = \"axes.right_trigger\"", "source = \"axes.left_y\"\noutput_centre = 100", "send.GOOD.signals.NUMBER", "must be 0 while its control rests", ""),
        bad("source = \"axes.right_trigger\"", "source = \"buttons.b\"", "send.GOOD.signals.NUMBER.output", "while off and while on", ""),
        bad("source = \"axes.right_trigger\"", "source = \"buttons.b\"\noutput = [0, 20]\ntoggle = true", "send.GOOD.signals.NUMBER.toggle", "a throttle cannot stay on", ""),
        bad("source = \"axes.right_trigger\"", "value = 20", "send.GOOD.signals.NUMBER.value", "drives without a hand on it", ""),
        bad("source = \"axes.right_trigger\"", "select = [{ switch = \"buttons.b\", value = 20 }]", "send.GOOD.signals.NUMBER.select", "a throttle cannot keep a value", ""),
        bad("source = \"axes.right_trigger\"", "source = \"user.pedal\"\nshape = \"one_sided\"", "send.GOOD.signals.NUMBER.range", "is missing", ""),
        bad("source = \"axes.right_trigger\"", "source = \"user.pedal\"\ndead_zone = 0.1", "send.GOOD.signals.NUMBER.dead_zone", "makes it a lever or stick", ""),
        bad("kind = \"other\"", "kind = \"other\"\nchange = \"standstill\"", "send.GOOD.signals.BIT.change", "needs a [standstill] table", ""),
        bad("kind = \"other\"", "kind = \"other\"\nshape = \"direct\"", "send.GOOD.signals.BIT.shape", "a button is a switch", ""),
        bad("kind = \"other\"\nsource = \"buttons.a\"", "value = 1\ninvert = true", "send.GOOD.signals.BIT.invert", "has no effect on a constant", ""),
        bad("[send.GOOD.signals.BIT]\nkind = \"other\"\nsource = \"buttons.a\"\n", "", "send.GOOD.signals.BIT", "`value = 0`", ""),
        bad("[arm]\nswitch = \"buttons.start\"\n", "", "arm", "the switch that arms", ""),
        bad("[ocp]\naddress = \"127.0.0.1:4000\"\n", "", "ocp", "the [ocp] table", ""),
    ];
    good(BASE);
    all_refused(BASE, &cases);
    // Two writers on one bus are refused under whatever names; and two buses must be told apart.
    let two =
        BASE.replacen("[bus.main]", "[bus.two]\ninterface = \"sim:odd\"\ndbc = \"odd.dbc\"\n[bus.main]", 1);
    let problems = load(&two).unwrap_err();
    let keys: Vec<&str> = problems.iter().map(|p| p.key.as_str()).collect();
    assert_eq!(keys, ["bus.main.interface", "send.GOOD.bus", "receive.STATE.bus"], "{problems:#?}");
}

#[test]
fn row_101_protecting_signals_must_be_bytes_and_counts() {
    let base = BASE.replacen(
        "[send.GOOD]\n",
        "[send.PROTECTED]\n#PROTECT\nsignals = { #SIGNALS }\n[send.GOOD]\n",
        1,
    );
    #[rustfmt::skip]
    let cases = [
        ("counter = { signal = \"COUNT_SIGNED\" }", "COUNT_SIGNED", "counter.signal", "unsigned with factor 1"),
        ("counter = { signal = \"COUNT_SCALED\" }", "COUNT_SCALED", "counter.signal", "unsigned with factor 1"),
        ("checksum = { signal = \"CRC_HIGH\", algorithm = \"xor\" }", "CRC_HIGH", "checksum.signal", "exactly one byte"),
        ("checksum = { signal = \"CRC_WIDE\", algorithm = \"xor\" }", "CRC_WIDE", "checksum.signal", "8 are needed here"),
        ("enable = { signal = \"CRC_WIDE\" }", "CRC_WIDE", "enable.signal", "1 to 8 are needed here"),
    ];
    let all = ["CRC_HIGH", "CRC_WIDE", "COUNT_SIGNED", "COUNT_SCALED"];
    for (protect, taken, key, reason) in cases {
        let rest: Vec<String> =
            all.iter().filter(|s| **s != taken).map(|s| format!("{s} = {{ value = 0 }}")).collect();
        let text = base.replace("#PROTECT", protect).replace("#SIGNALS", &rest.join(", "));
        let problems = load(&text).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert_eq!(problems[0].key, format!("send.PROTECTED.{key}"));
        assert!(problems[0].reason.contains(reason), "{}", problems[0]);
    }
    // One signal cannot do two jobs.
    let text = base
        .replace("#PROTECT", "counter = { signal = \"COUNT_SIGNED\" }")
        .replace("#SIGNALS", "CRC_HIGH = { value = 0 }");
    load(&text).unwrap_err();
    let twice = EXAMPLE.replacen(
        "[send.BODY_CMD]",
        "[send.DRIVE_CMD.signals.DRIVE_ENABLE]\nvalue = 1\n\n[send.BODY_CMD]",
        1,
    );
    let problems = load(&twice).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!(problems[0].key, "send.DRIVE_CMD.signals.DRIVE_ENABLE");
    assert!(problems[0].reason.contains("already used"), "{}", problems[0]);
}

#[test]
fn row_102_a_throttle_is_safe_at_zero_only_and_every_signal_has_a_value() {
    let throttle = "send.DRIVE_CMD.signals.THROTTLE_CMD";
    for wrong in ["1", "60", "0.1"] {
        let text =
            EXAMPLE.replacen("kind = \"throttle\"", &format!("kind = \"throttle\"\nsafe = {wrong}"), 1);
        let problems = load(&text).unwrap_err();
        assert_eq!(problems[0].key, format!("{throttle}.safe"), "{problems:#?}");
    }
    // Each signal of each sent frame in turn is left without a value.
    let config = good(EXAMPLE);
    for frame in &config.plan.send {
        for signal in &frame.signals {
            let header = format!("[send.{}.signals.{}]", frame.name, signal.name);
            let start = EXAMPLE.find(&header).unwrap();
            let end = EXAMPLE[start + 1..].find("\n[").map_or(EXAMPLE.len(), |e| start + 1 + e);
            let text = format!("{}{}", &EXAMPLE[..start], &EXAMPLE[end..]);
            let problems = load(&text).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:#?}");
            assert_eq!(problems[0].key, format!("send.{}.signals.{}", frame.name, signal.name));
            assert!(problems[0].reason.contains("`value = 0`"), "{}", problems[0]);
        }
    }
}

const THROTTLE_BITS: &str = "THROTTLE_CMD : 16|16@1+ (0.1,0) [0|100]";
const BRAKE_BITS: &str = "BRAKE_CMD : 32|16@1+ (0.1,0) [0|100]";
const STEER_BITS: &str = "STEER_ANGLE_CMD : 0|16@1- (0.1,0) [-450|450]";

#[test]
fn row_102_a_value_that_the_description_would_round_is_refused() {
    let throttle = "send.DRIVE_CMD.signals.THROTTLE_CMD.safe";
    let brake = "send.DRIVE_CMD.signals.BRAKE_CMD.safe";
    #[rustfmt::skip]
    let cases = [
        // Raw 1 would go out: throttle 3 as the safe frame.
        (THROTTLE_BITS, "THROTTLE_CMD : 16|16@1+ (7,-4) [0|100]", throttle, ["the default 0 cannot be sent", "factor 7 and offset -4", "-4 or 3"]),
        // Raw 0 would go out: no brake.
        (BRAKE_BITS, "BRAKE_CMD : 32|16@1+ (70,0) [0|100]", brake, ["30 cannot be sent", "factor 70 and offset 0", "0 or 70"]),
        (BRAKE_BITS, "BRAKE_CMD : 32|16@1+ (1e308,0) [0|1e308]", brake, ["30 cannot be sent", "factor 1e308", "0 or 1e308"]),
        (BRAKE_BITS, "BRAKE_CMD : 32|1@1+ (100,0) [0|100]", brake, ["30 cannot be sent", "factor 100", "0 or 100"]),
        (BRAKE_BITS, "BRAKE_CMD : 32|16@1- (-70,5) [0|100]", brake, ["30 cannot be sent", "factor -70 and offset 5", "5 or 75"]),
        (BRAKE_BITS, "BRAKE_CMD : 32|16@1+ (0.1,0.05) [0|100]", brake, ["30 cannot be sent", "factor 0.1", "29.95 or 30.05"]),
    ];
    for (from, to, key, says) in cases {
        one_problem(load_on(&[(from, to)], EXAMPLE), key, &says);
    }
    // Constants, choices and both ends of a switch are values too, and are sent as they are written.
    let steering = "send.GOOD.signals.VALUE";
    let number = "send.GOOD.signals.NUMBER";
    #[rustfmt::skip]
    let cases = [
        ("kind = \"steering\"\nsource = \"axes.left_x\"", "value = 0.17", format!("{steering}.value"), "0.1 or 0.2"),
        ("kind = \"steering\"\nsource = \"axes.left_x\"", "kind = \"other\"\nselect = [{ switch = \"buttons.x\", value = 0.25 }]", format!("{steering}.select[0].value"), "0.2 or 0.3"),
        ("source = \"axes.right_trigger\"", "source = \"buttons.b\"\noutput = [0, 20.5]", format!("{number}.output[1]"), "20 or 21"),
    ];
    for (from, to, key, says) in cases {
        one_problem(load(BASE.replacen(from, to, 1)), &key, &["cannot be sent", says]);
    }
    // Every step is a value, also where the product of raw value and factor has no exact f64.
    for raw in -1000..=1000 {
        let value = format!("value = {}", f64::from(raw) / 10.0);
        good(&BASE.replacen("kind = \"steering\"\nsource = \"axes.left_x\"", &value, 1));
    }
}

/// Packs what the plan allows at its ends and in between, and reads it back.
fn stays_within(config: &Config, signal: usize, low: f64, high: f64) {
    let plan = &config.plan.send[0].signals[signal];
    assert!(low <= plan.min && plan.max <= high, "{plan:?}");
    for i in 0..=1000 {
        let value = plan.min + (plan.max - plan.min) * f64::from(i) / 1000.0;
        let mut data = [0; 8];
        plan.codec.encode(&mut data, value).unwrap();
        let read = plan.codec.decode(&data).unwrap();
        let noise = 1e-9 * high.abs().max(low.abs());
        assert!(
            low - noise <= read && read <= high + noise,
            "{value} is sent as {read}, beyond {low} .. {high}"
        );
    }
}

#[test]
fn row_102_rounding_never_leaves_the_output_and_an_output_without_a_step_is_refused() {
    let output = |range: &str| EXAMPLE.replacen("output = [0, 100]", &format!("output = {range}"), 1);
    let throttle = "send.DRIVE_CMD.signals.THROTTLE_CMD";
    one_problem(
        load(output("[0, 0.01]")),
        &format!("{throttle}.output"),
        &["cannot move", "factor 0.1 and offset 0", "between 0 and 0.01"],
    );
    let coarse = [(THROTTLE_BITS, "THROTTLE_CMD : 16|16@1+ (40,0) [0|130]")];
    one_problem(load_on(&coarse, &output("[0, 39]")), &format!("{throttle}.output"), &["cannot move"]);
    // Without the key the description's own range is the output.
    let narrow = [(THROTTLE_BITS, "THROTTLE_CMD : 16|16@1+ (40,0) [0|39]")];
    one_problem(load_on(&narrow, &EXAMPLE.replacen("output = [0, 100]", "", 1)), throttle, &["cannot move"]);

    // 100 is two and a half steps, 110 is nearer to three than to two: neither may become 120.
    for (range, low, high, top) in [("[0, 100]", 0.0, 100.0, 80.0), ("[0, 110]", 0.0, 110.0, 80.0)] {
        let config = load_on(&coarse, &output(range)).unwrap_or_else(|p| panic!("{p:#?}"));
        stays_within(&config, 1, low, high);
        assert_eq!(config.plan.send[0].signals[1].max, top);
    }
    let config = load_on(&coarse, &EXAMPLE.replacen("output = [0, 100]", "", 1)).unwrap();
    stays_within(&config, 1, 0.0, 130.0);
    for range in ["[-449.96, 449.99]", "[-0.17, 0.13]", "[-450, 450]", "[-33.3, 0.1]"] {
        let text = EXAMPLE.replacen("output = [-450, 450]", &format!("output = {range}"), 1);
        let config = good(&text);
        let (low, high) = range.trim_matches(['[', ']']).split_once(", ").unwrap();
        stays_within(&config, 0, low.parse().unwrap(), high.parse().unwrap());
    }
    for factor in ["7", "-7", "0.3", "12.5"] {
        let bits = format!("STEER_ANGLE_CMD : 0|16@1- ({factor},0) [-450|450]");
        stays_within(&load_on(&[(STEER_BITS, &bits)], EXAMPLE).unwrap(), 0, -450.0, 450.0);
    }
}

#[test]
fn row_102_a_wheel_that_rests_at_one_end_is_refused() {
    let steer = "send.DRIVE_CMD.signals.STEER_ANGLE_CMD";
    let with = |lines: &str| EXAMPLE.replacen("source = \"axes.left_x\"", lines, 1);
    let plain = |lines: &str| with(lines).replacen("output = [-450, 450]", "", 1);
    let says = ["-450", "safe value is 0", "stick"];
    one_problem(load(with("source = \"axes.left_trigger\"")), steer, &says);
    one_problem(load(plain("source = \"axes.left_trigger\"")), steer, &says);
    // A wheel in the user data that is read as a lever.
    one_problem(load(with("source = \"user.wheel\"\nrange = [0, 1023]")), steer, &["-450", "\"centred\""]);
    // One way only, from the safe value outwards; or centred.
    good(&plain("source = \"axes.left_trigger\"\noutput = [0, 450]"));
    good(&with("source = \"user.wheel\"\nrange = [0, 1023]\nshape = \"centred\""));
    good(&with("source = \"axes.left_x\"\ninvert = true"));
}

#[test]
fn a_standstill_at_every_speed_is_refused() {
    let key = "standstill.at_most";
    let at_most = |speed: &str| EXAMPLE.replacen("at_most = 0.5", &format!("at_most = {speed}"), 1);
    let open = [("SPEED_KPH : 0|16@1+ (0.01,0) [0|250]", "SPEED_KPH : 0|16@1+ (0.01,0) [0|0]")];
    for (changes, speed, says) in [
        (&[][..], "250", ["250 is no standstill", "up to 250"]),
        (&[], "25.1", ["25.1 is no standstill", "a tenth"]),
        (&[], "1e300", ["1e300 is no standstill", "SPEED_KPH"]),
        // Without a range the bits say how far it goes.
        (&open, "65.6", ["65.6 is no standstill", "up to 655.35"]),
    ] {
        one_problem(load_on(changes, &at_most(speed)), key, &says);
    }
    good(&at_most("25"));
    load_on(&open, &at_most("65")).unwrap();
}

#[test]
fn row_101_what_the_description_has_twice_is_refused_where_it_is_used() {
    let drive = "BO_ 257 DRIVE_CMD: 8 GATEWAY";
    let line = |text: &str| 1 + EXAMPLE_DBC.lines().position(|l| l.contains(text)).unwrap();
    let (first, second) = (line("BO_ 257 "), line("BO_ 258 "));
    let lines = format!("(lines {first} and {second})");
    let (send, receive) = ("send.DRIVE_CMD", "receive.VEHICLE_STATE");
    // A second message in front of BODY_CMD, which moves that one down.
    let before_body =
        |header: &str| format!("{header}\n SG_ X : 0|8@1+ (1,0) [0|255] \"\" VEHICLE\n\nBO_ 258 BODY");
    for (header, key, says) in [
        ("BO_ 257 TWIN: 8 GATEWAY", send, ["DRIVE_CMD and TWIN have the same identifier 0x101", &lines]),
        ("BO_ 1281 DRIVE_CMD: 8 GATEWAY", send, ["two messages of this name, 0x101 and 0x501", &lines]),
        (
            "BO_ 513 TWIN: 8 GATEWAY",
            receive,
            ["TWIN and VEHICLE_STATE have the same identifier 0x201", "delete"],
        ),
    ] {
        let result = load_on(&[("BO_ 258 BODY", &before_body(header))], EXAMPLE);
        let problems = result.unwrap_err();
        let found = problems.iter().find(|p| p.key == key).unwrap_or_else(|| panic!("{problems:#?}"));
        assert!(says.iter().all(|word| found.reason.contains(word)), "{found}");
        assert_eq!(problems.len(), 1, "{problems:#?}");
    }
    // Two signals of one name, whether or not the configuration names them.
    let twice = format!("{drive}\n SG_ DRIVE_ENABLE : 49|1@1+ (1,0) [0|1] \"\" VEHICLE");
    one_problem(load_on(&[(drive, &twice)], EXAMPLE), send, &["two signals named DRIVE_ENABLE (lines"]);
    let gear = " SG_ GEAR : 32|4@1+ (1,0) [0|3] \"\" GATEWAY\n";
    let twice = [(
        gear,
        " SG_ SPARE : 36|1@1+ (1,0) [0|1] \"\" GATEWAY\n SG_ SPARE : 37|1@1+ (1,0) [0|1] \"\" GATEWAY\n SG_ GEAR : 32|4@1+ (1,0) [0|3] \"\" GATEWAY\n",
    )];
    one_problem(load_on(&twice, EXAMPLE), receive, &["two signals named SPARE"]);
    // What is not used may be as it is: real files are full of it.
    let unused = before_body("BO_ 1281 SPARE: 8 GATEWAY\n\nBO_ 1281 SPARE: 8 GATEWAY");
    load_on(&[("BO_ 258 BODY", &unused)], EXAMPLE).unwrap();
}

#[test]
fn row_101_a_range_the_wrong_way_round_is_refused_where_it_is_used() {
    let throttle = [(THROTTLE_BITS, "THROTTLE_CMD : 16|16@1+ (0.1,0) [100|0]")];
    let key = "send.DRIVE_CMD.signals.THROTTLE_CMD";
    one_problem(load_on(&throttle, EXAMPLE), key, &["range of THROTTLE_CMD is [100|0]", "correct it there"]);
    let speed = [("SPEED_KPH : 0|16@1+ (0.01,0) [0|250]", "SPEED_KPH : 0|16@1+ (0.01,0) [250|0]")];
    let problems = load_on(&speed, EXAMPLE).unwrap_err();
    let keys: Vec<&str> = problems.iter().map(|p| p.key.as_str()).collect();
    assert_eq!(keys, ["standstill.signal", "report.user_data.speed_kph"], "{problems:#?}");
    let unused = [("LATITUDE : 0|32@1- (1E-007,0) [-90|90]", "LATITUDE : 0|32@1- (1E-007,0) [90|-90]")];
    let without = EXAMPLE.split("[report.pos]").next().unwrap();
    load_on(&unused, without).unwrap();
}

#[test]
fn huge_numbers_are_told_in_a_few_digits() {
    let whole = "99999999999999999999";
    let long = EXAMPLE.replacen(
        "[send.BODY_CMD]\nperiod_ms = 50",
        &format!("[send.BODY_CMD]\nperiod_ms = {whole}"),
        1,
    );
    one_problem(load(&long), "send.BODY_CMD.period_ms", &["must be 5 to 50 ms", "too large"]);
    let safe = |number: &str| load(EXAMPLE.replacen("safe = 30 ", &format!("safe = {number} "), 1));
    one_problem(safe(whole), "send.DRIVE_CMD.signals.BRAKE_CMD.safe", &["at most 2^53"]);
    for (from, to) in [
        ("safe = 30 ", "safe = 1e300 "),
        ("output = [0, 100]", "output = [0, 1e300]"),
        ("output = [-450, 450]", "output = [1e300, 1e299]"),
        ("dead_zone = 0.05", "dead_zone = 1e300"),
        ("slew_up_per_s = 600", "slew_up_per_s = -1e300"),
        ("at_most = 0.5", "at_most = -1e300"),
        ("dead_zone = 0.05", "range = [-1e300, 1e300]\ncentre = 2e300"),
        ("stop = { ramp_per_s = 60 }", "stop = { ramp_per_s = 1e-300 }"),
    ] {
        assert!(EXAMPLE.contains(from));
        for problem in load(EXAMPLE.replacen(from, to, 1)).unwrap_err() {
            let reason = &problem.reason;
            let longest = reason.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap();
            assert!(longest <= 15, "{problem}");
        }
    }
}

#[test]
fn a_bus_has_the_same_names_in_the_file_and_on_the_command_line() {
    use ocpcan::can::BusAddress;
    let names = [
        "can0",
        "slcan-left.1",
        "sim:demo",
        "sim:a.b-c_1",
        "sim:a123456789012345",
        "sim:",
        "sim:a/b",
        "can@0",
        "c\u{e4}n0",
        "..",
        "sim:..",
    ];
    let mut taken = 0;
    for name in names {
        let result = load(EXAMPLE.replacen("interface = \"can0\"", &format!("interface = \"{name}\""), 1));
        match name.parse::<BusAddress>() {
            Ok(_) => {
                taken += 1;
                result.unwrap_or_else(|p| panic!("{name}: {p:#?}"));
            }
            Err(why) => one_problem(result, "bus.vehicle.interface", &["is no interface", &why.to_string()]),
        }
    }
    assert_eq!(taken, 4);
}

#[test]
fn names_that_the_user_chooses_are_fit_to_be_printed_and_sent() {
    for name in ["\"\"", "\"a\\nb\"", &format!("\"{}\"", "n".repeat(65))] {
        for (from, table) in [
            ("speed_kph = ", "report.user_data"),
            ("[bus.vehicle]", "bus"),
            ("[send.BODY_CMD]", "send"),
            ("[receive.VEHICLE_POS]", "receive"),
        ] {
            let to = if from.starts_with('[') {
                let kind = if table == "bus" {
                    "vehicle"
                } else {
                    from.trim_end_matches(']').rsplit('.').next().unwrap()
                };
                // The table keeps its content under the new name.
                let message = if table == "bus" { String::new() } else { format!("\nmessage = \"{kind}\"") };
                format!("[{table}.{name}]{message}")
            } else {
                format!("{name} = ")
            };
            let problems = load(EXAMPLE.replacen(from, &to, 1)).unwrap_err();
            let found = problems.iter().find(|p| p.reason.contains("no control characters")).unwrap();
            assert!(found.key.starts_with(table), "{found}");
            assert_eq!(found.to_string().lines().count(), 1);
        }
    }
}

#[test]
fn controls_are_understood_by_what_they_rest_at() {
    let shape = |lines: &str| {
        let text = BASE.replacen("source = \"axes.right_trigger\"", lines, 1);
        good(&text).plan.send[0].signals[2].transform
    };
    // A stick as a throttle: forward only, and nothing at rest.
    let stick = shape("source = \"axes.left_y\"");
    assert_eq!(stick.shape, Shape::Centred { low: -1.0, centre: 0.0, high: 1.0 });
    assert_eq!((stick.out_low, stick.out_centre, stick.out_high), (0.0, 0.0, 200.0));
    assert_eq!(
        shape("source = \"axes.left_y\"\nrange = [0, 1]").shape,
        Shape::OneSided { low: 0.0, high: 1.0 }
    );
    // Pulled towards the driver: rest is the high end.
    let pulled = shape("source = \"axes.left_y\"\nrange = [-1, 0]\ninvert = true");
    assert_eq!((pulled.shape, pulled.invert), (Shape::OneSided { low: -1.0, high: 0.0 }, true));
    // A pedal in the user data, as a value, as a lever and as a lever that reads both ways.
    assert_eq!(shape("source = \"user.pedal\"").shape, Shape::Direct);
    assert_eq!(
        shape("source = \"user.pedal\"\nrange = [0, 255]").shape,
        Shape::OneSided { low: 0.0, high: 255.0 }
    );
    let both = shape("source = \"user.pedal\"\nrange = [-1, 1]");
    assert_eq!((both.shape, both.out_centre), (Shape::Centred { low: -1.0, centre: 0.0, high: 1.0 }, 0.0));
    let lever = shape("source = \"user.pedal\"\nrange = [-1, 1]\nshape = \"one_sided\"");
    assert_eq!(lever.shape, Shape::OneSided { low: -1.0, high: 1.0 });
    let switch = shape("source = \"buttons.b\"\noutput = [0, 20]");
    assert_eq!(switch.shape, Shape::Switch { off: 0.0, on: 20.0 });

    let signal = |lines: &str| {
        let text = BASE.replacen("kind = \"steering\"\nsource = \"axes.left_x\"", lines, 1);
        good(&text).plan.send[0].signals[0].clone()
    };
    // The output is a limit of what is ever sent, and the safe value belongs to it.
    let wide = signal("kind = \"steering\"\nsource = \"axes.left_x\"\noutput = [-50, 20]\nsafe = 30");
    assert_eq!((wide.min, wide.max), (-50.0, 30.0));
    let constant = signal("value = -7");
    assert_eq!((constant.source, constant.kind), (Source::Constant(-7.0), Kind::Other));
    assert_eq!((constant.min, constant.max, constant.safe), (-7.0, 0.0, 0.0));
    let chosen = signal("kind = \"other\"\nselect = [{ switch = \"buttons.x\", value = 12.5 }]\nsafe = 1");
    assert_eq!((chosen.source, chosen.min, chosen.max), (Source::Constant(1.0), 1.0, 12.5));
}

#[test]
fn the_example_names_every_time() {
    for bound in BOUNDS {
        let line = format!("# {} = {}", bound.key, bound.default_ms);
        assert!(EXAMPLE.lines().any(|l| l == line), "{line}");
    }
}

#[test]
fn all_problems_come_in_one_go_in_the_order_of_the_file() {
    let text = EXAMPLE
        .replacen("user_data = \"auto\"", "user_data = \"x\"", 1)
        .replacen("switch = \"buttons.start\"", "switch = \"buttons.strat\"", 1)
        .replacen("source = \"axes.left_x\"", "source = \"axes.lft_x\"", 1)
        .replacen("# hold_ms = 1000", "hold_ms = 0", 1)
        .replacen("at_most = 0.5", "at_mots = 0.5", 1);
    let problems = load(&text).unwrap_err();
    let keys: Vec<&str> = problems.iter().map(|p| p.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "ocp.user_data",
            "arm.switch",
            "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.source",
            "standstill.at_mots",
            "safety.hold_ms",
        ]
    );
    assert!(problems.is_sorted_by_key(|p| p.line));
    assert_eq!(
        problems[1]
            .to_string()
            .split_once("ocpcan.toml:")
            .unwrap()
            .1
            .split_once(": ")
            .unwrap()
            .1
            .split(';')
            .next()
            .unwrap(),
        "arm.switch: there is no buttons.strat"
    );
}

#[test]
fn row_100_every_time_is_refused_outside_its_bounds_and_taken_at_them() {
    let with = |line: &str| load(EXAMPLE.replacen("[safety]", &format!("[safety]\n{line}"), 1));
    for bound in BOUNDS {
        let other =
            if bound.key == "latency_warn_ms" { "latency_stop_ms = 500" } else { "latency_warn_ms = 50" };
        let set = |ms: i64| {
            let extra = if bound.key.starts_with("latency") { other } else { "" };
            with(&format!("{} = {ms}\n{extra}", bound.key))
        };
        for wrong in [0, -1, i64::from(bound.min_ms) - 1, i64::from(bound.max_ms) + 1, i64::MAX, i64::MIN] {
            let problems = set(wrong).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:#?}");
            assert_eq!(problems[0].key, format!("safety.{}", bound.key));
            let wanted = format!("must be {} to {} ms, not {wrong}", bound.min_ms, bound.max_ms);
            assert_eq!(problems[0].reason, wanted);
        }
        for right in [bound.min_ms, bound.max_ms] {
            let config = set(i64::from(right)).unwrap_or_else(|p| panic!("{p:#?}"));
            assert_eq!(config.settings.of(bound.key), Some(Duration::from_millis(u64::from(right))));
        }
        for wrong in ["nan", "inf", "\"100\"", "100.0", "true", "[100]", "1979-05-27", "{}"] {
            let problems = with(&format!("{} = {wrong}", bound.key)).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:#?}");
            assert_eq!(problems[0].key, format!("safety.{}", bound.key));
        }
    }
    let (_, min, max) = ARMS_PER_MINUTE;
    for (arms, right) in [(0, false), (min - 1, false), (min, true), (max, true), (max + 1, false)] {
        assert_eq!(with(&format!("arms_per_minute = {arms}")).is_ok(), right, "{arms}");
    }
    for (ms, right) in [
        (0, false),
        (PERIOD_MS.0 - 1, false),
        (PERIOD_MS.0, true),
        (PERIOD_MS.1, true),
        (PERIOD_MS.1 + 1, false),
    ] {
        let text = EXAMPLE.replacen("period_ms = 20 ", &format!("period_ms = {ms} "), 1);
        assert_eq!(load(text).is_ok(), right, "{ms}");
    }
}

#[test]
fn the_example_loads_and_means_what_it_says() {
    let config = good(EXAMPLE);
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!(config.ocp.address.to_string(), "127.0.0.1:4000");
    assert_eq!(config.real_time, RealTime::Warn);
    assert_eq!(config.settings, ocpcan::safety::settings::Settings::default());
    assert_eq!(config.digest.len(), 16);
    let plan = &config.plan;
    assert_eq!(plan.arm, Some(Source::Button(7)));
    let fields: Vec<String> = plan.user_fields.iter().map(|f| f.dotted()).collect();
    assert_eq!(fields, ["counter", "headlights", "horn", "steering_mode"]);
    assert!(plan.user_fields[3].names.contains(&("crab".into(), 1.0)), "{:?}", plan.user_fields[3]);

    let drive = &plan.send[0];
    assert_eq!((drive.name.as_str(), drive.id.raw(), drive.len, drive.fd), ("DRIVE_CMD", 0x101, 8, false));
    assert_eq!((drive.period, drive.mode), (Duration::from_millis(20), SendMode::Cyclic));
    assert!(!drive.enable.unwrap().stop);
    assert_eq!(drive.counter.unwrap().modulo, 16);
    assert!(drive.checksum.is_some());
    let [steer, throttle, brake] = drive.signals.as_slice() else { panic!("{:?}", drive.signals) };
    assert_eq!((steer.min, steer.max, steer.safe, steer.stop), (-450.0, 450.0, 0.0, StopProfile::Hold));
    assert_eq!(steer.transform.shape, Shape::Centred { low: -1.0, centre: 0.0, high: 1.0 });
    assert_eq!((throttle.kind, throttle.min, throttle.max, throttle.safe), (Kind::Throttle, 0.0, 100.0, 0.0));
    // A trigger at rest reads -1, which is nothing pressed, not half throttle.
    assert_eq!(throttle.transform.shape, Shape::OneSided { low: -1.0, high: 1.0 });
    assert_eq!(throttle.transform.out_low, 0.0);
    assert_eq!((brake.safe, brake.stop), (30.0, StopProfile::Ramp { per_s: 60.0 }));

    let body = &plan.send[1];
    assert_eq!((body.id.raw(), body.period), (0x102, Duration::from_millis(50)));
    assert_eq!(body.signals[0].transform.shape, Shape::Switch { off: 0.0, on: 1.0 });
    assert_eq!(body.signals[2].transform.shape, Shape::Direct);
    assert!(body.signals[2].at_standstill);

    let state = &plan.receive[0];
    assert!(state.required);
    assert_eq!((state.id.raw(), state.stale_after), (0x201, Duration::from_millis(100)));
    assert!(!plan.receive[1].required);
    assert_eq!(plan.receive[1].stale_after, Duration::from_millis(1_000));
    assert_eq!(plan.report.len(), 3);
    assert_eq!(plan.report[2].stale_after, Duration::from_millis(500));
    assert!(plan.position.is_some());
    assert_eq!(plan.speed.unwrap().standstill, 0.5);
}

#[test]
fn the_options_that_the_example_shows_commented_out_are_accepted() {
    let mut text = String::new();
    for line in EXAMPLE.lines() {
        // "# key = value" and "# [table]" lines are options; prose does not look like that.
        let option = line.strip_prefix("# ").filter(|l| {
            l.starts_with('[')
                || l.split_once(" = ")
                    .is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        });
        // `select` stands in place of `source`, and an inverted stick is a matter of taste.
        let option = option.filter(|l| !l.starts_with("select"));
        text.push_str(option.unwrap_or(line));
        text.push('\n');
    }
    let config = good(&text);
    assert_eq!(config.tunnels.len(), 1);
    assert_eq!(config.plan.require[0].name, "user.seat_ok");
    let single = EXAMPLE.replacen("# require = [\"user.seat_ok\"]", "require = \"user.panel_ok\"", 1);
    let required = good(&single).plan.require;
    assert_eq!(required.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["user.panel_ok"]);
    assert!(config.plan.dead_man.is_some());
    assert_eq!(config.plan.operator_counter.unwrap().modulo, Some(256));
    let steer = &config.plan.send[0].signals[0];
    assert_eq!(steer.confirm.unwrap().tolerance, 60.0);
    let select = EXAMPLE.replacen(
        "source = \"user.steering_mode\"",
        "select = [{ switch = \"buttons.a\", value = \"crab\" }]",
        1,
    );
    let config = good(&select);
    assert_eq!(config.plan.send[1].signals[2].select, [(Source::Button(0), 1.0)]);
}

#[test]
fn what_a_person_should_know_is_said() {
    let says = |text: &str, wanted: &str| {
        let config = good(text);
        assert!(config.warnings.iter().any(|w| w.contains(wanted)), "{wanted}: {:#?}", config.warnings);
    };
    let says_after = |from: &str, to: &str, wanted: &str| {
        assert!(EXAMPLE.contains(from), "{from}");
        says(&EXAMPLE.replacen(from, to, 1), wanted);
    };
    // The vehicle's loss budget of SAFETY.md, with and without the counter.
    says_after("counter = \"user.counter\"", "", "after up to 1045 ms instead of 275 ms");
    says_after("safe = 30 ", "safe = 0 ", "rolls on");
    says_after("slew_up_per_s = 40", "", "full throttle within one frame");
    says_after("127.0.0.1:4000", "192.0.2.7:4000", "another machine");
    says_after("echo = \"required\"", "echo = \"unproven\"", "missing feedback only");
    says_after("source = \"user.horn\"", "source = \"buttons.start\"", "is also the arm switch");
    says_after("required = true", "required = false", "drives on without it");
    says(BASE, "arming does not wait for standstill");
    says(BASE, "without an alive counter");
    says(BASE, "without a checksum");
    says(BASE, "nothing reads this frame");
    let other = "[bus.idle]\ninterface = \"sim:idle\"\ndbc = \"odd.dbc\"\n[bus.main]";
    let idle = BASE
        .replacen("[bus.main]", other, 1)
        .replacen("[send.GOOD]", "[send.GOOD]\nbus = \"main\"", 1)
        .replacen("[receive.STATE]", "[receive.STATE]\nbus = \"main\"", 1);
    says(&idle, "nothing is sent or received here");
}

#[test]
fn capacities_are_kept() {
    let mut text = BASE.to_owned();
    for i in 0..ocpcan::limits::BUSES {
        text.push_str(&format!("[bus.extra{i}]\ninterface = \"sim:x{i}\"\ndbc = \"odd.dbc\"\n"));
    }
    let problems = load(&text).unwrap_err();
    assert!(problems.iter().any(|p| p.reason.contains("at most 4 are served")), "{problems:#?}");

    let fields: Vec<String> = (0..=ocpcan::limits::USER_FIELDS).map(|i| format!("\"user.f{i}\"")).collect();
    let require = |fields: &[String]| {
        let chosen: Vec<String> = fields.iter().map(|f| format!("{{ switch = {f}, value = 1 }}")).collect();
        BASE.replacen(
            "kind = \"other\"\nsource = \"buttons.a\"",
            &format!("kind = \"other\"\nselect = [{}]", chosen.join(", ")),
            1,
        )
    };
    good(&require(&fields[..ocpcan::limits::USER_FIELDS]));
    let problems = load(require(&fields)).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(problems[0].reason.contains("more than 64 different fields"), "{}", problems[0]);

    let mut text = EXAMPLE.to_owned();
    let many: String =
        (0..ocpcan::limits::REPORT_FIELDS).map(|i| format!("f{i} = \"VEHICLE_STATE.SPEED_KPH\"\n")).collect();
    text = text.replacen("[report.user_data]", &format!("[report.user_data]\n{many}"), 1);
    let problems = load(&text).unwrap_err();
    assert!(problems[0].reason.contains("more than 64 reported fields"), "{problems:#?}");
}

#[test]
fn row_105_a_file_cut_anywhere_is_refused_or_complete_and_never_a_panic() {
    let directory = directory();
    // Comments are as good cut as whole: they only make the test longer.
    let text: String = plain_example().join("\n") + "\n";
    let mut accepted = 0;
    for end in 0..text.len() {
        match load_in(&directory, &text.as_bytes()[..end]) {
            Ok(config) => {
                accepted += 1;
                rules_hold(&config);
            }
            Err(problems) => assert!(!problems.is_empty()),
        }
    }
    fs::remove_dir_all(directory).unwrap();
    // What may be cut without harm is the optional end: feedback that nothing needs, reports, times.
    let optional = text.find("[report.user_data]").unwrap();
    assert!(accepted > 0 && accepted <= text.len() - optional, "{accepted} prefixes accepted");
}

/// The example without comments and empty lines.
fn plain_example() -> Vec<&'static str> {
    let lines = EXAMPLE.lines().map(|l| l.split(" # ").next().unwrap().trim_end());
    lines.filter(|l| !l.is_empty() && !l.starts_with('#')).collect()
}

#[test]
fn bytes_that_are_no_text_and_files_that_are_not_there_are_refused() {
    let problems = load(b"role = \"vehicle\"\nvehicle = \"\xff\"\n").unwrap_err();
    assert_eq!((problems[0].reason.as_str(), problems[0].line), ("not valid UTF-8", Some(2)));
    let problems = config::load(Path::new("/nowhere/ocpcan.toml")).unwrap_err();
    assert!(problems[0].to_string().starts_with("/nowhere/ocpcan.toml: "), "{}", problems[0]);
    let problems = config::load(Path::new("/dev/zero")).unwrap_err();
    assert!(problems[0].reason.contains("no regular file"), "{}", problems[0]);
    let problems = load(vec![b' '; 2 << 20]).unwrap_err();
    assert!(problems[0].reason.contains("larger than"), "{}", problems[0]);
    config::load(Path::new("/")).unwrap_err();
    load("").unwrap_err();
    let deep = format!("x = {}", "[".repeat(10_000));
    load(deep).unwrap_err();
    let dotted = format!("{} = 1", vec!["a"; 5_000].join("."));
    load(dotted).unwrap_err();
}

#[test]
fn a_damaged_description_names_its_own_file() {
    let directory = directory();
    fs::write(directory.join("example.dbc"), &EXAMPLE_DBC[..EXAMPLE_DBC.len() / 2]).unwrap();
    let problems = load_in(&directory, EXAMPLE).unwrap_err();
    assert!(!problems.is_empty());
    fs::write(directory.join("example.dbc"), "this is no DBC").unwrap();
    let problems = load_in(&directory, EXAMPLE).unwrap_err();
    assert!(problems[0].file.ends_with("example.dbc"), "{problems:#?}");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn the_digest_follows_both_files() {
    let directory = directory();
    let digest = |text: &str| load_in(&directory, text).unwrap().digest;
    let first = digest(EXAMPLE);
    assert_eq!(digest(EXAMPLE), first);
    let changed = digest(&format!("{EXAMPLE}\n"));
    assert_ne!(changed, first);
    fs::write(directory.join("example.dbc"), format!("{EXAMPLE_DBC}\n")).unwrap();
    assert_ne!(digest(EXAMPLE), first);
    fs::remove_dir_all(directory).unwrap();
}

/// Damages the example in many ways: whatever comes out is accepted or refused with a reason, and what is accepted
/// holds the rules that everything later relies on.
#[test]
fn a_damaged_example_never_panics_and_never_passes_with_a_broken_rule() {
    use proptest::prelude::*;
    const CASES: u32 = 3_000;
    let seed = std::env::var("OCPCAN_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_secs()
    });
    println!("OCPCAN_SEED={seed}");
    let mut bytes = [0u8; 32];
    bytes[..8].copy_from_slice(&u64::to_le_bytes(seed));
    let rng = proptest::test_runner::TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &bytes);
    let config = RunnerConfig { cases: CASES, failure_persistence: None, ..RunnerConfig::default() };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let directory = directory();
    let lines = plain_example();
    let words = [
        "0",
        "-1",
        "1e999",
        "nan",
        "inf",
        "\"\"",
        "[]",
        "{}",
        "true",
        "\"safe\"",
        "\"user.x\"",
        "\u{0}",
        "]",
        "\"",
    ];
    let edit = (0..lines.len(), 0..lines.len(), 0..words.len(), 0..5u8);
    let accepted = std::cell::Cell::new(0u32);
    runner
        .run(&proptest::collection::vec(edit, 1..4), |edits| {
            let mut text: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
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
            match load_in(&directory, text.join("\n")) {
                Ok(config) => {
                    accepted.set(accepted.get() + 1);
                    rules_hold(&config);
                }
                Err(problems) => prop_assert!(!problems.is_empty()),
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("OCPCAN_SEED={seed}: {error}"));
    fs::remove_dir_all(directory).unwrap();
    println!("{} of {CASES} damaged files were still valid", accepted.get());
    assert!(accepted.get() > 0, "no damage was harmless: the test proves nothing about accepted files");
}

/// What every accepted plan must hold.
fn rules_hold(config: &Config) {
    let plan = &config.plan;
    assert!(plan.arm.is_some() && !plan.send.is_empty() && !plan.buses.is_empty());
    assert_ne!(config.ocp.address.port(), 0);
    for bound in BOUNDS {
        let ms = config.settings.of(bound.key).unwrap().as_millis();
        assert!((u128::from(bound.min_ms)..=u128::from(bound.max_ms)).contains(&ms), "{}", bound.key);
    }
    for frame in &plan.send {
        assert!(plan.receive.iter().all(|r| (r.bus, r.id) != (frame.bus, frame.id)));
        assert!((5..=50).contains(&frame.period.as_millis()));
        for signal in &frame.signals {
            assert!(signal.min.is_finite() && signal.max.is_finite() && signal.safe.is_finite());
            assert!((signal.min..=signal.max).contains(&signal.safe), "{}", signal.name);
            assert!(signal.kind != Kind::Throttle || signal.safe == 0.0);
            let (low, high) = signal.codec.physical_range();
            assert!(low <= signal.min && signal.max <= high, "{}", signal.name);
            assert!(signal.slew_up.is_none_or(|s| s > 0.0) && signal.slew_down.is_none_or(|s| s > 0.0));
        }
    }
}

/// The example with its tunnel switched on.
fn example_with_tunnel() -> String {
    let (head, rest) = EXAMPLE.split_once("# [tcpcan.vehicle] ").unwrap();
    let (block, tail) = rest.split_once("\n\n").unwrap();
    let block = format!("# [tcpcan.vehicle] {block}");
    let on: String = block.lines().map(|line| format!("{}\n", line.strip_prefix("# ").unwrap())).collect();
    format!("{head}{on}\n{tail}")
}

#[test]
fn the_examples_tunnel_is_read_as_it_is_written() {
    let config = load_in(&directory(), example_with_tunnel()).unwrap_or_else(|p| panic!("{p:?}"));
    let [tunnel] = &config.tunnels[..] else { panic!("{:?}", config.tunnels) };
    assert_eq!((tunnel.bus, tunnel.listen.to_string().as_str()), (0, "127.0.0.1:20010"));
    assert!(tunnel.allow.permits("192.168.1.7".parse().unwrap()));
    assert!(!tunnel.allow.permits("192.168.1.8".parse().unwrap()));
    let raw = |ids: &[ocpcan::can::Id]| ids.iter().map(|id| id.raw()).collect::<Vec<_>>();
    assert_eq!(raw(&tunnel.always), [0x7DF]);
    assert_eq!(raw(&tunnel.unless_armed), [0x7E0]);
    assert_eq!(raw(&tunnel.diagnostic), [0x7E1]);
    assert_eq!((tunnel.peer_per_s, tunnel.total_per_s), (100, 200));
    assert_eq!(tunnel.max_age, Duration::from_millis(250));
    assert!(load_in(&directory(), EXAMPLE).unwrap().tunnels.is_empty(), "none by default");
}

#[test]
fn row_101_a_tunnel_that_lets_the_wrong_frames_or_people_in_is_refused() {
    for (tunnel, reason) in [
        ("[tcpcan.vehicel]\nlisten = \"127.0.0.1:20010\"", "a tunnel is named like its bus"),
        ("[tcpcan.vehicle]", "where peers connect"),
        ("[tcpcan.vehicle]\nlisten = \"127.0.0.1\"", "must have a port"),
        ("[tcpcan.vehicle]\nlisten = \"localhost:20010\"", "must be an IP address and a port"),
        ("[tcpcan.vehicle]\nlisten = \"127.0.0.1:0\"", "port 0 is no port"),
        ("[tcpcan.vehicle]\nlisten = \"0.0.0.0:20010\"", "say who may connect"),
        ("[tcpcan.vehicle]\nlisten = \"[::]:20010\"", "say who may connect"),
        (
            "[tcpcan.vehicle]\nlisten = \"0.0.0.0:1\"\nallow = [\"10.0.0.1/8\"]",
            "bits are set behind the prefix",
        ),
        ("[tcpcan.vehicle]\nlisten = \"127.0.0.1:1\"\nmax_age_ms = 0", "10 to 60000 ms"),
        ("[tcpcan.vehicle]\nlisten = \"127.0.0.1:1\"\nframes_per_s = 0", "1 to 1000"),
        ("[tcpcan.vehicle]\nlisten = \"127.0.0.1:1\"\nport = 3", "unknown key"),
        ("[tcpcan.vehicle]\nlisten = \"127.0.0.1:1\"\ninject = { alway = [1] }", "unknown key"),
        // The drive's own id, the same number with 29 bits, a lamp's, and what the gateway believes of the vehicle.
        (
            "[tcpcan.vehicle]\nlisten = \"127.0.0.1:1\"\ninject = { always = [0x101] }",
            "only the gateway may send",
        ),
        (
            "[tcpcan.vehicle]\nlisten = \"127.0.0.1:1\"\ninject = { diagnostic = [\"00000101\"] }",
            "only the gateway may send",
        ),
        (
            "[tcpcan.vehicle]\nlisten = \"127.0.0.1:1\"\ninject = { unless_armed = [0x102] }",
            "only the gateway may send",
        ),
        ("[tcpcan.vehicle]\nlisten = \"127.0.0.1:1\"\ninject = { always = [0x201] }", "relies on"),
        ("[tcpcan.vehicle]\nlisten = \"127.0.0.1:1\"\ninject = { always = [-1] }", "must be a CAN id"),
        (
            "[tcpcan.vehicle]\nlisten = \"127.0.0.1:1\"\ninject = { always = [0x20000000] }",
            "must be a CAN id",
        ),
        ("[tcpcan.vehicle]\nlisten = \"127.0.0.1:1\"\ninject = { always = [\"7DG\"] }", "must be a CAN id"),
    ] {
        let problems = load_in(&directory(), format!("{EXAMPLE}\n{tunnel}\n")).expect_err(tunnel);
        assert_eq!(problems.len(), 1, "{tunnel}: {problems:?}");
        assert!(problems[0].to_string().contains(reason), "{tunnel}: {}", problems[0]);
        assert!(problems[0].line.is_some() && problems[0].key.starts_with("tcpcan."), "{:?}", problems[0]);
    }
}

#[test]
fn a_tunnel_that_cannot_be_meant_is_refused() {
    // The example's OCP server is at 127.0.0.1:4000.
    for (tunnel, key, reason) in [
        ("listen = \"127.0.0.1:4000\"", "listen", "ocp.address"),
        ("listen = \"0.0.0.0:4000\"\nallow = [\"10.0.0.7\"]", "listen", "ocp.address"),
        ("listen = \"[::]:4000\"\nallow = [\"10.0.0.7\"]", "listen", "ocp.address"),
        ("listen = \"127.0.0.1:1\"\nframes_per_s = 201", "frames_per_s", "200 for all peers together"),
        (
            "listen = \"127.0.0.1:1\"\nframes_per_s = 60\ntotal_frames_per_s = 59",
            "frames_per_s",
            "59 for all peers together",
        ),
        ("listen = \"127.0.0.1:1\"\ninject = { always = [0x7DF, \"7DF\"] }", "inject.always[1]", "twice"),
        (
            "listen = \"127.0.0.1:1\"\ninject = { always = [0x7DF], diagnostic = [0x7E0, 0x7DF] }",
            "inject.diagnostic[1]",
            "already in `always`",
        ),
    ] {
        let problems =
            load_in(&directory(), format!("{EXAMPLE}\n[tcpcan.vehicle]\n{tunnel}\n")).expect_err(tunnel);
        assert_eq!(problems.len(), 1, "{tunnel}: {problems:?}");
        assert!(problems[0].reason.contains(reason), "{tunnel}: {}", problems[0]);
        assert_eq!(problems[0].key, format!("tcpcan.vehicle.{key}"));
    }
    // Without `frames_per_s`, one peer may send what all may.
    let config =
        good(&format!("{EXAMPLE}\n[tcpcan.vehicle]\nlisten = \"127.0.0.1:1\"\ntotal_frames_per_s = 59\n"));
    assert_eq!((config.tunnels[0].peer_per_s, config.tunnels[0].total_per_s), (59, 59));
    // The same number with 29 bits is another id, and another machine's port is free here.
    good(&format!(
        "{}\n[tcpcan.vehicle]\nlisten = \"127.0.0.1:4000\"\nframes_per_s = 200\n\
         inject = {{ always = [0x7DF, \"000007DF\"] }}\n",
        EXAMPLE.replacen("127.0.0.1:4000", "10.0.0.7:4000", 1)
    ));
}

#[test]
fn a_tunnel_that_lets_everybody_in_says_so() {
    for (allow, everybody) in
        [("\"0.0.0.0/0\"", true), ("\"10.0.0.7\", \"::/0\"", true), ("\"10.0.0.0/8\", \"0.0.0.0\"", false)]
    {
        let tunnel = format!("[tcpcan.vehicle]\nlisten = \"0.0.0.0:20010\"\nallow = [{allow}]");
        let config = good(&format!("{EXAMPLE}\n{tunnel}\n"));
        let said =
            |text: &str| config.warnings.iter().any(|w| w.starts_with("tcpcan.vehicle.") && w.contains(text));
        assert_eq!(said("everybody"), everybody, "{allow}: {:?}", config.warnings);
        assert!(said("neither encrypts nor authenticates"), "{allow}: {:?}", config.warnings);
    }
}

#[test]
fn the_management_plane_is_on_for_this_machine_unless_the_file_says_otherwise() {
    let table = |lines: &str| EXAMPLE.replacen("\n[rcsp]\n", &format!("\n[rcsp]\n{lines}\n"), 1);
    for text in [EXAMPLE.to_owned(), EXAMPLE.replacen("\n[rcsp]\n", "\n", 1)] {
        let rcsp = good(&text).rcsp.unwrap();
        assert_eq!(rcsp.listen.to_string(), "127.0.0.1:45451");
        assert!(rcsp.allow.is_empty() && !rcsp.remote_stop);
    }
    assert!(good(&table("enabled = false")).rcsp.is_none());
    let open = good(&table("listen = \"0.0.0.0:45451\"\nallow = [\"10.0.0.7\"]\nremote_stop = true"));
    assert!(open.warnings.iter().any(|warning| warning.contains("encrypts")), "{:?}", open.warnings);
    let rcsp = open.rcsp.unwrap();
    assert!(rcsp.remote_stop && rcsp.allow.permits("10.0.0.7".parse().unwrap()));
    for (lines, reason) in [
        ("listen = \"127.0.0.1\"", "must have a port"),
        ("listen = \"localhost:45451\"", "must be an IP address and a port"),
        ("listen = \"127.0.0.1:0\"", "port 0 is no port"),
        ("listen = \"0.0.0.0:45451\"", "say who may connect"),
        ("listen = \"127.0.0.1:4000\"", "ocp.address"),
        ("listen = \"[::]:4000\"\nallow = [\"10.0.0.7\"]", "ocp.address"),
        ("remote_stop = true", "no effect"),
        ("port = 1", "unknown key"),
        ("enabled = 1", "true or false"),
    ] {
        let problems = load_in(&directory(), table(lines)).expect_err(lines);
        assert_eq!(problems.len(), 1, "{lines}: {problems:?}");
        assert!(problems[0].to_string().contains(reason), "{lines}: {}", problems[0]);
    }
    let tunnel = "\n[tcpcan.vehicle]\nlisten = \"127.0.0.1:45451\"\n";
    let both = format!("{}{tunnel}", table("listen = \"127.0.0.1:45451\""));
    let problems = load_in(&directory(), both).expect_err("two listeners at one address");
    assert!(problems[0].reason.contains("where a tunnel listens"), "{problems:?}");
}
