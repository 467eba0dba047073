//! Configurations that are odd but legal, end to end: operator, gateway threads and built-in bus in one process.
//!
//! Owns one test per variant. Relies on the example's simulators and on the built-in bus, and computes checksums by
//! itself. Never waits a fixed time for something to happen: it watches the bus until it does, with a deadline.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "tests"
)]

use std::fmt::Write as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use ocpcan::can::{Frame, Id};
use ocpcan::config;
use ocpcan::io::canbus::{BusAddress, Fault, Hub, Port, PortOptions};
use ocpcan::io::clock;
use ocpcan::sim::live::ocp::{LiveOptions, OcpSimHandle};
use ocpcan::sim::live::vehicle::VehicleSim;
use ocpcan::sim::ocp::Options;
use ocpcan::threads::{Gateway, GatewayOptions};
use ocpcan::time::{Duration, Instant};
use serde_json::Value;

const EXAMPLE: &str = include_str!("../deploy/ocpcan.example.toml");
const EXAMPLE_DBC: &str = include_str!("../deploy/example.dbc");

/// Long for a loaded machine; every wait ends earlier where the event comes.
const DEADLINE: Duration = Duration::from_secs(60);

/// Legal times: short where a test waits for them, long where a busy machine would trip.
const TIMES: &str = "clear_ms = 500\nneutral_ms = 250\nhold_ms = 500\nstopping_ms = 500\nown_gap_ms = 100\n\
                     echo_ms = 100\nocp_silence_ms = 250\nstale_ms = 250\noperator_freeze_ms = 500\n\
                     ack_freeze_ms = 500\nthread_stall_ms = 100\nreply_ms = 200\nframe_assembly_ms = 200\n\
                     transition_ms = 500\narms_per_minute = 15\n";

static RUNS: AtomicU32 = AtomicU32::new(0);

/// What a variant is made of.
struct Variant {
    /// The configuration; `{ocp}` and `{bus}` stand for the address and the first bus, `{bus1}` for the second.
    text: String,
    dbc: &'static str,
    buses: usize,
    fd: bool,
    ocp: Options,
    vehicle: bool,
}

impl Variant {
    /// Frames without feedback; the body is what follows `[safety]` and the buses.
    fn of(dbc: &'static str, body: &str) -> Self {
        let text = format!(
            "role = \"vehicle\"\nvehicle = \"variant\"\n[ocp]\naddress = \"{{ocp}}\"\n[arm]\nswitch = \
             \"buttons.start\"\n[operator]\ncounter = \"user.counter\"\n[safety]\n{TIMES}\
             [bus.main]\ninterface = \"{{bus}}\"\ndbc = \"v.dbc\"\n{body}"
        );
        Self { text, dbc, buses: 1, fd: false, ocp: Options::default(), vehicle: false }
    }

    /// The shipped example with its vehicle.
    fn example() -> Self {
        let text = EXAMPLE
            .replace("\"can0\"", "\"{bus}\"")
            .replace("127.0.0.1:4000", "{ocp}")
            .replace("example.dbc\"", "v.dbc\"")
            .replace("period_ms = 20\n# stale_after_ms = 100", "period_ms = 20\nstale_after_ms = 400")
            .replace("[safety]", &format!("[safety]\n{TIMES}"));
        Self { text, dbc: EXAMPLE_DBC, buses: 1, fd: false, ocp: Options::default(), vehicle: true }
    }

    fn with(mut self, from: &str, to: &str) -> Self {
        assert!(self.text.contains(from), "{from} is not in the file");
        self.text = self.text.replace(from, to);
        self
    }

    fn start(self) -> Bench {
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let names: Vec<String> =
            (0..self.buses).map(|bus| format!("v{}x{run}b{bus}", std::process::id())).collect();
        let addresses: Vec<BusAddress> =
            names.iter().map(|name| format!("sim:{name}").parse().unwrap()).collect();
        let hubs = addresses
            .iter()
            .map(|address| match address {
                BusAddress::Sim(name) => Hub::start(name).unwrap(),
                BusAddress::Kernel(_) => panic!("not a built-in bus"),
            })
            .collect();
        let options = PortOptions { fd: self.fd, ..PortOptions::default() };
        let ports = addresses.iter().map(|address| Port::open(address, &options).unwrap()).collect();
        let ocp = OcpSimHandle::start(&LiveOptions::default(), self.ocp).unwrap();
        let second = addresses.get(1).map_or_else(String::new, ToString::to_string);
        let text = self
            .text
            .replace("{ocp}", &ocp.address().to_string())
            .replace("{bus1}", &second)
            .replace("{bus}", &addresses[0].to_string());
        let config = config::parse(&text, &[("v.dbc", self.dbc)]).unwrap_or_else(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            panic!("refused:\n{}", lines.join("\n"))
        });
        let vehicle = self.vehicle.then(|| VehicleSim::start(&addresses[0]).unwrap());
        let gateway = Gateway::start(&config, GatewayOptions::default()).unwrap();
        Bench { hubs, ports, ocp, gateway: Some(gateway), vehicle, seen: Vec::new() }
    }
}

/// A frame as it was seen.
#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Instant,
    bus: usize,
    frame: Frame,
}

struct Bench {
    hubs: Vec<Hub>,
    ports: Vec<Port>,
    ocp: OcpSimHandle,
    gateway: Option<Gateway>,
    vehicle: Option<VehicleSim>,
    seen: Vec<Seen>,
}

impl Bench {
    fn say(&self, line: &str) {
        self.ocp.say(line).unwrap();
    }

    /// The newest `vehicle_user_data.user_data`.
    fn told(&self) -> Value {
        self.ocp.snapshot().last_response.and_then(|response| response.user_data).unwrap_or_default()
    }

    fn gateway_says(&self, key: &str) -> String {
        self.told()["gateway"][key].as_str().unwrap_or_default().to_owned()
    }

    fn state(&self) -> String {
        self.gateway_says("state")
    }

    /// Takes frames for a moment.
    fn watch(&mut self) {
        for (bus, port) in self.ports.iter().enumerate() {
            let mut wait = Duration::from_millis(2);
            while let Ok(Some(received)) = port.recv(Some(wait)) {
                self.seen.push(Seen { at: received.at, bus, frame: received.frame });
                wait = Duration::ZERO;
            }
        }
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let end = clock::now() + DEADLINE;
        while !done(self) {
            self.watch();
            assert!(clock::now() < end, "{what} did not happen; told {}", self.told());
        }
    }

    /// The operator's procedure. A busy machine may throw it back; then the operator starts again.
    fn arm(&mut self) {
        let end = clock::now() + DEADLINE;
        while self.state() != "ARMED" {
            assert!(clock::now() < end, "not armed; told {}", self.told());
            self.say("release start");
            self.until("READY", |bench| bench.state() == "READY" || bench.state() == "ARMED");
            let seen = self.ocp.snapshot().sent + 10;
            self.until("a released switch", |bench| bench.ocp.snapshot().sent >= seen);
            self.say("press start");
            let patience = clock::now() + Duration::from_secs(3);
            self.until("ARMED", |bench| bench.state() == "ARMED" || clock::now() > patience);
        }
        self.say("release start");
    }

    /// What the operator says, said again until the bus shows the answer: a trip of a busy machine is armed away.
    fn armed_until(&mut self, what: &str, say: &[&str], done: impl Fn(&Self) -> bool) {
        let end = clock::now() + DEADLINE;
        loop {
            self.arm();
            for line in say {
                self.say(line);
            }
            let patience = clock::now() + Duration::from_secs(5);
            self.until(what, |bench| done(bench) || bench.state() != "ARMED" || clock::now() > patience);
            if done(self) {
                return;
            }
            assert!(clock::now() < end, "{what} did not happen; told {}", self.told());
            self.say("neutral");
        }
    }

    fn of(&self, id: Id) -> impl DoubleEndedIterator<Item = &Seen> {
        self.seen.iter().filter(move |seen| seen.frame.id() == id)
    }

    fn last(&self, id: Id) -> Option<&[u8]> {
        self.of(id).next_back().map(|seen| seen.frame.payload())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            gateway.shared.request_stop();
            let end = clock::now() + Duration::from_secs(5);
            while !gateway.all_ended() && clock::now() < end {
                self.watch();
            }
        }
        self.vehicle = None;
        self.ports.clear();
        self.hubs.clear();
    }
}

fn standard(raw: u32) -> Id {
    Id::standard(raw).unwrap()
}

/// A CRC-8 bit by bit, start and final value 0xFF.
fn crc8(poly: u8, bytes: impl IntoIterator<Item = u8>) -> u8 {
    !bytes.into_iter().fold(0xFF, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc, _| if crc & 0x80 == 0 { crc << 1 } else { (crc << 1) ^ poly })
    })
}

fn little(bytes: &[u8], at: usize) -> i16 {
    i16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn big(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes([bytes[at], bytes[at + 1]])
}

const LONG_DBC: &str = r#"VERSION ""
BS_:
BU_: G V
BO_ 2566847778 LONG_CMD: 64 G
 SG_ TORQUE : 7|16@0- (0.1,0) [-100|100] "Nm" V
 SG_ FAR : 487|12@0- (1,0) [-2000|2000] "" V
 SG_ CNT : 496|4@1+ (1,0) [0|15] "" V
 SG_ CRC : 504|8@1+ (1,0) [0|255] "" V
"#;

/// 0x18FF0122 with the bit that marks an extended identifier in a DBC file.
const LONG_ID: u32 = 2_566_847_778 & 0x1FFF_FFFF;

#[test]
fn a_64_byte_big_endian_extended_fd_frame_with_h2f_data_id_and_modulo_15() {
    let mut variant = Variant::of(
        LONG_DBC,
        "fd = true\n[send.LONG_CMD]\nfd = true\nperiod_ms = 20\ncounter = { signal = \"CNT\", modulo = 15 }\n\
         checksum = { signal = \"CRC\", algorithm = \"crc8-autosar-h2f\", data_id = 0x1234 }\n\
         [send.LONG_CMD.signals.TORQUE]\nkind = \"steering\"\nsource = \"axes.left_x\"\ninvert = true\n\
         [send.LONG_CMD.signals.FAR]\nkind = \"other\"\nsource = \"axes.right_y\"\noutput = [-2000, 2000]\n",
    );
    variant.fd = true;
    let mut bench = variant.start();
    let id = Id::extended(LONG_ID).unwrap();
    bench.armed_until("values at both ends", &["axis left_x 1", "axis right_y -1"], |bench| {
        let far = |p: &[u8]| i16::from_be_bytes([p[60], p[61]]) >> 4;
        bench.last(id).is_some_and(|p| big(p, 0) == -1000 && far(p) == -2000)
    });
    bench.until("three counter cycles", |bench| bench.of(id).count() > 50);
    let mut last: Option<u8> = None;
    for seen in bench.of(id) {
        let payload = seen.frame.payload();
        assert!(seen.frame.is_fd() && payload.len() == 64);
        let crc = crc8(0x2F, [0x34, 0x12].into_iter().chain(payload[..63].iter().copied()));
        assert_eq!(payload[63], crc);
        assert!(payload[2..60].iter().all(|byte| *byte == 0));
        let count = payload[62] & 0xF;
        if let Some(before) = last {
            assert_eq!(count, (before + 1) % 15);
        }
        last = Some(count);
    }
}

const SUMS_DBC: &str = r#"VERSION ""
BS_:
BU_: G V
BO_ 16 BY_XOR: 4 G
 SG_ A : 0|16@1- (0.1,0) [-100|100] "" V
 SG_ A_SUM : 24|8@1+ (1,0) [0|255] "" V
BO_ 17 BY_SUM: 4 G
 SG_ B : 7|16@0- (0.1,0) [-100|100] "" V
 SG_ B_SUM : 23|8@0+ (1,0) [0|255] "" V
"#;

#[test]
fn xor_and_sum_with_data_id_and_on_command_with_a_gap() {
    let mut bench = Variant::of(
        SUMS_DBC,
        "[send.BY_XOR]\nperiod_ms = 50\nmode = \"on_command\"\nmin_gap_ms = 8\n\
         checksum = { signal = \"A_SUM\", algorithm = \"xor\", data_id = 0xA55A }\n\
         signals.A = { kind = \"steering\", source = \"axes.left_x\" }\n\
         [send.BY_SUM]\nperiod_ms = 50\n\
         checksum = { signal = \"B_SUM\", algorithm = \"sum\", data_id = 7 }\n\
         signals.B = { kind = \"steering\", source = \"axes.left_x\" }\n",
    )
    .start();
    let (xor, sum) = (standard(16), standard(17));
    bench.armed_until("the stick on both", &["axis left_x -0.77"], |bench| {
        bench.last(xor).is_some_and(|p| little(p, 0) == -770)
            && bench.last(sum).is_some_and(|p| big(p, 0) == -770)
    });
    for seen in bench.of(xor) {
        let p = seen.frame.payload();
        assert_eq!(p[3], 0x5A ^ 0xA5 ^ p[0] ^ p[1] ^ p[2]);
    }
    for seen in bench.of(sum) {
        let p = seen.frame.payload();
        assert_eq!(p[2], 7u8.wrapping_add(p[0]).wrapping_add(p[1]).wrapping_add(p[3]));
    }
    // Commands come every 10 to 20 ms: more often than the period, not more often than the gap.
    bench.seen.clear();
    bench.until("two hundred cyclic frames", |bench| bench.of(sum).count() >= 60);
    let (fast, slow) = (bench.of(xor).count(), bench.of(sum).count());
    let took = bench.of(sum).next_back().unwrap().at.since(bench.of(sum).next().unwrap().at);
    assert!(fast > slow + slow / 2, "{fast} on command, {slow} cyclic");
    assert!(fast as u128 <= took.as_millis() / 8 + 10, "{fast} frames in {took:?}");
}

const TWO_DBC: &str = r#"VERSION ""
BS_:
BU_: G V
BO_ 32 FRONT: 3 G
 SG_ F_THROTTLE : 0|16@1+ (0.1,0) [0|100] "" V
 SG_ F_COUNT : 16|4@1+ (1,0) [0|15] "" V
BO_ 33 REAR: 3 G
 SG_ R_THROTTLE : 0|16@1+ (0.1,0) [0|100] "" V
 SG_ R_COUNT : 16|4@1+ (1,0) [0|15] "" V
"#;

/// Actuator frames on two buses.
const TWO: &str = "[bus.second]\ninterface = \"{bus1}\"\ndbc = \"v.dbc\"\n\
     [send.FRONT]\nbus = \"main\"\nperiod_ms = 20\ncounter = { signal = \"F_COUNT\" }\n\
     signals.F_THROTTLE = { kind = \"throttle\", source = \"axes.right_trigger\" }\n\
     [send.REAR]\nbus = \"second\"\nperiod_ms = 20\ncounter = { signal = \"R_COUNT\" }\n\
     signals.R_THROTTLE = { kind = \"throttle\", source = \"axes.right_trigger\" }\n";

#[test]
fn two_buses_one_down_makes_both_safe_and_nothing_re_arms() {
    let mut variant = Variant::of(TWO_DBC, TWO);
    variant.buses = 2;
    let mut bench = variant.start();
    let (front, rear) = (standard(32), standard(33));
    let drives = |bench: &Bench, id| bench.last(id).is_some_and(|p| little(p, 0) > 500);
    bench.armed_until("throttle on both buses", &["axis right_trigger 1"], |bench| {
        drives(bench, front) && drives(bench, rear)
    });
    assert!(bench.of(front).all(|seen| seen.bus == 0) && bench.of(rear).all(|seen| seen.bus == 1));
    bench.hubs[1].set(Fault::Down).unwrap();
    bench.until("a safe frame on the bus that is up", |bench| {
        bench.last(front).is_some_and(|p| little(p, 0) == 0)
    });
    let from = bench.seen.len();
    bench.until("the operator is told", |bench| !bench.gateway_says("cause").is_empty());
    bench.until("a second of safe frames", |bench| bench.seen.len() > from + 50);
    assert_ne!(bench.state(), "ARMED");
    assert_ne!(bench.state(), "READY", "a missing bus lets nothing arm");
    bench.hubs[1].set(Fault::Clear).unwrap();
    bench.until("frames on the second bus again", |bench| {
        bench.seen[from..].iter().filter(|seen| seen.bus == 1).count() > 20
    });
    // The trigger is still held: nothing has moved since, on either bus.
    assert!(bench.seen[from..].iter().all(|seen| little(seen.frame.payload(), 0) == 0));
}

#[test]
fn two_buses_one_missing_keeps_the_other_safe_and_says_which() {
    let text = TWO.replace("{bus1}", "nocan9");
    let mut bench = Variant::of(TWO_DBC, &text).start();
    let front = standard(32);
    bench.until("safe frames on the bus that exists", |bench| bench.of(front).count() > 60);
    assert!(bench.of(front).all(|seen| little(seen.frame.payload(), 0) == 0));
    assert_eq!(bench.state(), "SAFE", "{}", bench.told());
    assert!(!bench.gateway_says("fault").is_empty() && !bench.gateway_says("next").is_empty());
}

#[test]
fn safe_stop_serves_the_buses_that_are_there() {
    let name = format!("v{}stop", std::process::id());
    let BusAddress::Sim(bus) = format!("sim:{name}").parse().unwrap() else { panic!("{name}") };
    let _hub = Hub::start(&bus).unwrap();
    let port = Port::open(&BusAddress::Sim(bus), &PortOptions::default()).unwrap();
    let folder = std::env::temp_dir().join(&name);
    std::fs::create_dir_all(folder.join("run")).unwrap();
    std::fs::set_permissions(folder.join("run"), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .unwrap();
    // The missing bus comes first in the file.
    let text = Variant::of(TWO_DBC, TWO)
        .text
        .replace("{bus}", "nocan9")
        .replace("{bus1}", &format!("sim:{name}"))
        .replace("{ocp}", "127.0.0.1:4000");
    std::fs::write(folder.join("c.toml"), text).unwrap();
    std::fs::write(folder.join("v.dbc"), TWO_DBC).unwrap();
    let stop = || {
        let output = Command::new(env!("CARGO_BIN_EXE_ocpcan"))
            .args(["safe-stop", "--config"])
            .arg(folder.join("c.toml"))
            .env("RUNTIME_DIRECTORY", folder.join("run"))
            .output()
            .unwrap();
        let mut counters = Vec::new();
        while let Ok(Some(received)) = port.recv(Some(Duration::from_millis(50))) {
            assert_eq!(received.frame.id(), standard(33));
            assert_eq!(little(received.frame.payload(), 0), 0);
            counters.push(received.frame.payload()[2] & 0xF);
        }
        (output, counters)
    };
    let (output, counters) = stop();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(counters, (0..16).collect::<Vec<u8>>(), "{told}");
    assert_eq!(output.status.code(), Some(69), "one bus was not reached");
    assert!(told.contains("nocan9"), "{told}");
    // The next one goes on from there.
    let (_, again) = stop();
    assert_eq!(again, (0..16).collect::<Vec<u8>>());
    std::fs::remove_dir_all(folder).unwrap();
}

const BODY_DBC: &str = r#"VERSION ""
BS_:
BU_: G V
BO_ 48 MOVE: 4 G
 SG_ STEER : 0|16@1- (0.1,0) [-100|100] "" V
 SG_ THROTTLE : 16|16@1+ (0.1,0) [0|100] "" V
BO_ 49 BODY: 2 G
 SG_ LIGHT : 0|1@1+ (1,0) [0|1] "" V
 SG_ MODE : 1|2@1+ (1,0) [0|2] "" V
 SG_ GEAR : 8|4@1+ (1,0) [0|9] "" V
VAL_ 49 MODE 0 "manual" 1 "crab" 2 "circle" ;
VAL_ 49 GEAR 1 "low" 7 "high" ;
"#;

const BODY: &str = "[send.MOVE]\nperiod_ms = 10\n\
     signals.STEER = { kind = \"steering\", source = \"axes.left_x\", invert = true, dead_zone = 0.2, expo = 1.0 }\n\
     signals.THROTTLE = { kind = \"throttle\", source = \"axes.right_trigger\", slew_up_per_s = 100, slew_down_per_s = 400 }\n\
     [send.BODY]\nperiod_ms = 20\n\
     signals.LIGHT = { kind = \"other\", source = \"buttons.y\", toggle = true }\n\
     signals.MODE = { kind = \"other\", select = [{ switch = \"buttons.a\", value = \"crab\" }, { switch = \"buttons.b\", value = \"circle\" }] }\n\
     signals.GEAR = { kind = \"other\", source = \"user.body.gear\" }\n";

#[test]
fn toggle_select_names_invert_dead_zone_expo_and_slew_on_the_bus() {
    let mut bench = Variant::of(BODY_DBC, BODY).start();
    let (movement, body) = (standard(48), standard(49));
    bench.say(r#"user {"body": {"gear": "high"}}"#);
    bench.armed_until("the name as its number", &[], |bench| bench.last(body).is_some_and(|p| p[1] == 7));
    bench.armed_until("another name", &[r#"user {"body": {"gear": "low"}}"#], |bench| {
        bench.last(body).is_some_and(|p| p[1] == 1)
    });
    bench.armed_until("a plain number", &[r#"user {"body": {"gear": 4}}"#], |bench| {
        bench.last(body).is_some_and(|p| p[1] == 4)
    });
    // Inverted, rescaled behind the dead zone and cubed: (0.6 - 0.2) / 0.8 = 0.5, 0.5^3 = 0.125.
    bench.armed_until("a curved stick", &["axis left_x 0.6"], |bench| {
        bench.last(movement).is_some_and(|p| little(p, 0) == -125)
    });
    bench.armed_until("rest inside the dead zone", &["axis left_x 0.19"], |bench| {
        bench.last(movement).is_some_and(|p| little(p, 0) == 0)
    });
    // A toggle flips with each press, a selection stays after the release.
    bench.armed_until("light on", &["press y"], |bench| bench.last(body).is_some_and(|p| p[0] & 1 == 1));
    bench.say("release y");
    bench.armed_until("crab", &["press a"], |bench| bench.last(body).is_some_and(|p| p[0] >> 1 & 3 == 1));
    bench.say("release a");
    bench.armed_until("circle", &["press b"], |bench| bench.last(body).is_some_and(|p| p[0] >> 1 & 3 == 2));
    bench.say("release b");
    bench.armed_until("full throttle", &["axis right_trigger 1"], |bench| {
        bench.last(movement).is_some_and(|p| little(p, 2) == 1000)
    });
    // No two frames differ by more than the slew allows for the time between them, plus one late frame.
    let frames: Vec<&Seen> = bench.of(movement).collect();
    for pair in frames.windows(4) {
        let rise = f64::from(little(pair[3].frame.payload(), 2) - little(pair[0].frame.payload(), 2)) * 0.1;
        let took = pair[3].at.since(pair[0].at).as_secs_f64();
        assert!(rise <= 100.0 * (took + 0.06), "{rise} % in {took} s");
    }
}

#[test]
fn dead_man_and_required_switches_hold_and_trip() {
    let mut bench = Variant::of(BODY_DBC, BODY)
        .with(
            "switch = \"buttons.start\"",
            "switch = \"buttons.start\"\ndead_man = \"buttons.left_bumper\"\nrequire = [\"user.seat_ok\"]",
        )
        .start();
    let movement = standard(48);
    bench.say(r#"user {"body": {"gear": 1}, "seat_ok": false}"#);
    bench.say("press left_bumper");
    bench.until("the reason", |bench| {
        bench.of(movement).count() > 300 && bench.state() == "SAFE" && !bench.gateway_says("fault").is_empty()
    });
    assert!(bench.gateway_says("next").contains("switch"), "{}", bench.told());
    bench.say(r#"user {"seat_ok": true}"#);
    for (lose, restore) in [
        ("release left_bumper", "press left_bumper"),
        (r#"user {"seat_ok": false}"#, r#"user {"seat_ok": true}"#),
        (r#"user {"seat_ok": null}"#, r#"user {"seat_ok": true}"#),
    ] {
        bench.armed_until("driving", &["axis right_trigger 1"], |bench| {
            bench.last(movement).is_some_and(|p| little(p, 2) > 100)
        });
        bench.say(lose);
        bench.until("a safe frame", |bench| bench.last(movement).is_some_and(|p| little(p, 2) == 0));
        bench.until("the cause", |bench| !bench.gateway_says("cause").is_empty());
        bench.say("neutral");
        bench.say("press left_bumper");
        bench.say(restore);
    }
}

#[test]
fn user_data_bare_or_wrapped_as_the_file_says() {
    for (said, sent, arms) in [
        ("wrapped", "wrapped", true),
        ("bare", "bare", true),
        ("auto", "wrapped", true),
        ("bare", "wrapped", false),
    ] {
        let mut variant = Variant::of(SUMS_DBC, "").with("[arm]", &format!("user_data = \"{said}\"\n[arm]"));
        variant.text.push_str(
            "[send.BY_XOR]\nchecksum = { signal = \"A_SUM\", algorithm = \"xor\" }\n\
             signals.A = { kind = \"steering\", source = \"axes.left_x\" }\n",
        );
        variant.ocp.set("user_data_form", sent).unwrap();
        let mut bench = variant.start();
        if arms {
            bench.arm();
        } else {
            let id = standard(16);
            bench.until("three seconds of frames", |bench| bench.of(id).count() > 150);
            assert_eq!(bench.state(), "SAFE", "{said} {sent}: {}", bench.told());
            assert!(bench.told()["gateway"].to_string().contains("operator"), "{}", bench.told());
        }
    }
}

#[test]
fn acks_are_withheld_while_the_can_path_is_dead() {
    let mut bench = Variant::of(SUMS_DBC, "")
        .with("[arm]", "withhold_acks_when_can_dead = true\n[arm]")
        .with(
            "[bus.main]",
            "[send.BY_XOR]\nchecksum = { signal = \"A_SUM\", algorithm = \"xor\" }\n\
             signals.A = { kind = \"steering\", source = \"axes.left_x\" }\n[bus.main]",
        )
        .start();
    bench.arm();
    bench.hubs[0].set(Fault::Swallow(true)).unwrap();
    let quiet = |bench: &Bench| {
        let before = bench.ocp.snapshot();
        let end = clock::now() + Duration::from_secs(10);
        while bench.ocp.snapshot().sent < before.sent + 20 && clock::now() < end {
            std::thread::yield_now();
        }
        bench.ocp.snapshot().responses <= before.responses + 1
    };
    bench.until("no answers", quiet);
    bench.hubs[0].set(Fault::Swallow(false)).unwrap();
    let answers = bench.ocp.snapshot().responses;
    bench.until("answers again", |bench| bench.ocp.snapshot().responses > answers + 20);
    assert_ne!(bench.state(), "ARMED");
}

#[test]
fn feedback_and_position_are_told_and_stale_is_null_with_its_age() {
    let mut bench = Variant::example().start();
    bench.until("values and a position", |bench| {
        let position = bench.ocp.snapshot().last_response.and_then(|response| response.pos);
        bench.told()["speed_kph"].is_number()
            && bench.told()["gear"] == "park"
            && position.is_some_and(|(lat, lon)| (lat - 58.5909).abs() < 1e-6 && (lon - 16.1826).abs() < 1e-6)
    });
    assert!(bench.told()["stale"].is_null());
    bench.vehicle = None;
    bench.until("stale values", |bench| {
        let told = bench.told();
        ["speed_kph", "steer_angle", "gear"]
            .iter()
            .all(|key| told[key].is_null() && told["stale"][key].is_number())
    });
    bench.until("no position", |bench| {
        bench.ocp.snapshot().last_response.is_some_and(|response| response.pos.is_none())
    });
    assert_eq!(bench.gateway_says("fault"), "feedback_lost", "{}", bench.told());
}

#[test]
fn the_steering_mode_changes_at_standstill_only() {
    let mut bench = Variant::example().start();
    let (drive, body) = (standard(0x101), standard(0x102));
    let mode = |bench: &Bench| bench.last(body).map(|p| p[1] & 3);
    let speed = |bench: &Bench| bench.told()["speed_kph"].as_f64().unwrap_or(0.0);
    bench.say(r#"user {"headlights": true, "horn": false, "steering_mode": "manual"}"#);
    bench.armed_until("the vehicle rolls", &["axis right_trigger 1"], |bench| speed(bench) > 3.0);
    bench.say(r#"user {"steering_mode": "crab"}"#);
    let from = bench.ocp.snapshot().sent + 30;
    bench.until("the wish has arrived", |bench| bench.ocp.snapshot().sent > from && bench.seen.len() > 200);
    if bench.state() == "ARMED" && speed(&bench) > 1.0 {
        assert_eq!(mode(&bench), Some(0), "a change at speed waits");
        assert_eq!(bench.last(body).map(|p| p[0] & 1), Some(1), "the light does not wait");
    }
    bench.say("axis right_trigger -1");
    bench.say("axis left_trigger 1");
    bench.armed_until("the mode at standstill", &["axis left_trigger 1"], |bench| mode(bench) == Some(1));
    assert!(speed(&bench) <= 1.0, "{}", speed(&bench));
    assert!(bench.last(drive).is_some());
}

#[test]
fn an_unproven_echo_drives_and_is_shown() {
    let mut bench = Variant::of(BODY_DBC, BODY).with("[bus.main]", "[bus.main]\necho = \"unproven\"").start();
    bench.say(r#"user {"body": {"gear": 1}}"#);
    bench.arm();
    let name = format!("v{}unproven", std::process::id());
    let folder = std::env::temp_dir().join(&name);
    std::fs::create_dir_all(&folder).unwrap();
    let text = Variant::of(BODY_DBC, BODY)
        .with("[bus.main]", "[bus.main]\necho = \"unproven\"")
        .text
        .replace("{bus}", "can0")
        .replace("{ocp}", "127.0.0.1:4000");
    std::fs::write(folder.join("c.toml"), text).unwrap();
    std::fs::write(folder.join("v.dbc"), BODY_DBC).unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_ocpcan")).args(["check", "-c"]).arg(folder.join("c.toml")).output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("unproven"), "{text}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn an_operator_counter_that_wraps_is_alive_where_the_file_says_so() {
    let mut bench = Variant::of(BODY_DBC, BODY)
        .with("counter = \"user.counter\"", "counter = \"user.mine.beat\"\ncounter_modulo = 64")
        .start();
    let mut beat = 0;
    let mut due = clock::now();
    let end = clock::now() + DEADLINE;
    let mut pressed_at = None;
    // Two whole seconds ARMED: four wraps of the counter.
    let mut armed_since: Option<Instant> = None;
    while armed_since.is_none_or(|since| clock::now().since(since) < Duration::from_secs(2)) {
        let now = clock::now();
        assert!(now < end, "told {}", bench.told());
        if now >= due {
            beat = (beat + 3) % 64;
            bench.say(&format!(r#"user {{"body": {{"gear": 1}}, "mine": {{"beat": {beat}}}}}"#));
            due = now + Duration::from_millis(20);
        }
        bench.watch();
        match (bench.state().as_str(), pressed_at) {
            ("READY", None) => {
                bench.say("press start");
                pressed_at = Some(now);
            }
            ("ARMED", _) => armed_since = Some(armed_since.unwrap_or(now)),
            (_, Some(at)) if now.since(at) > Duration::from_secs(2) => {
                bench.say("release start");
                pressed_at = None;
                armed_since = None;
            }
            _ => {}
        }
    }
}

#[test]
fn sixty_four_fields_of_user_data_reach_sixty_three_signals() {
    let mut dbc = String::from("VERSION \"\"\nBS_:\nBU_: G V\nBO_ 64 MANY: 8 G\n");
    let mut body = String::from("[send.MANY]\nperiod_ms = 20\n");
    let mut user = String::from("user {");
    for bit in 0..63 {
        let _ = writeln!(dbc, " SG_ S{bit} : {bit}|1@1+ (1,0) [0|1] \"\" V");
        let _ = writeln!(body, "signals.S{bit} = {{ kind = \"other\", source = \"user.deep.f{bit}\" }}");
        let _ = write!(user, "{}\"f{bit}\": {}", if bit == 0 { "\"deep\": {" } else { ", " }, bit % 3 != 0);
    }
    user.push_str("}}");
    let mut bench = Variant::of(dbc.leak(), &body).start();
    bench.say(&user);
    let want: u64 = (0..63).filter(|bit| bit % 3 != 0).fold(0, |word, bit| word | 1 << bit);
    bench.armed_until("every bit", &[], |bench| {
        bench.last(standard(64)).is_some_and(|p| u64::from_le_bytes(p.try_into().unwrap()) == want)
    });
}

/// A user without rights, as on the first day: 8 MiB may be locked, which holds the program and none of its threads.
#[test]
fn without_rights_it_runs_and_says_what_is_missing() {
    let name = format!("v{}poor", std::process::id());
    let BusAddress::Sim(bus) = format!("sim:{name}").parse().unwrap() else { panic!("{name}") };
    let _hub = Hub::start(&bus).unwrap();
    let port = Port::open(&BusAddress::Sim(bus), &PortOptions::default()).unwrap();
    let folder = std::env::temp_dir().join(&name);
    std::fs::create_dir_all(&folder).unwrap();
    let open_to_all = |path: &std::path::Path| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    open_to_all(&folder);
    // Where that user can run it.
    let program = folder.join("ocpcan");
    std::fs::copy(env!("CARGO_BIN_EXE_ocpcan"), &program).unwrap();
    open_to_all(&program);
    let text = Variant::of(
        SUMS_DBC,
        "[send.BY_XOR]\nchecksum = { signal = \"A_SUM\", algorithm = \"xor\" }\n\
         signals.A = { kind = \"steering\", source = \"axes.left_x\" }\n",
    )
    .text
    .replace("{bus}", &format!("sim:{name}"))
    .replace("{ocp}", "127.0.0.1:1");
    std::fs::write(folder.join("c.toml"), text).unwrap();
    std::fs::write(folder.join("v.dbc"), SUMS_DBC).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -l 8192 && exec \"$0\" \"$@\""]).arg(&program).args(["run", "-c"]);
    command.arg(folder.join("c.toml")).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    command.env_remove("RUNTIME_DIRECTORY").stderr(std::process::Stdio::piped());
    if nix::unistd::geteuid().is_root() {
        std::os::unix::process::CommandExt::uid(&mut command, 65_534);
    }
    let mut gateway = command.spawn().unwrap();
    let (mut frames, end) = (0, clock::now() + DEADLINE);
    while frames < 20 && clock::now() < end && gateway.try_wait().unwrap().is_none() {
        frames += usize::from(matches!(port.recv(Some(Duration::from_millis(20))), Ok(Some(_))));
    }
    let _ = nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(gateway.id()).unwrap()),
        nix::sys::signal::Signal::SIGTERM,
    );
    let output = gateway.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(frames, 20, "{told}");
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("memory is not locked") && told.contains("LimitMEMLOCK"), "{told}");
}
