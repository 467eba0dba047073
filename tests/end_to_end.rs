//! The program as its user starts it: simulator, gateway and vehicle as three processes over loopback and a built-in bus.
//!
//! Owns the processes of each test and a port on their bus. Relies on the command line, the control port, `user_data`
//! and frames alone; what the library says of itself is no evidence here. Never judges by the clock of a busy host: it
//! judges what follows what. The same drive on real SocketCAN is `tests/vm/gateway.py`, the times are `reaction.py`.

#![allow(clippy::disallowed_methods, reason = "a test reads what its processes print")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use ocpcan::can::{Frame, Id};
use ocpcan::io::canbus::{BusAddress, Port, PortOptions};
use ocpcan::io::clock;
use ocpcan::time::{Duration, Instant};
use serde_json::Value;

const EXAMPLE: &str = include_str!("../deploy/ocpcan.example.toml");
const EXAMPLE_DBC: &str = include_str!("../deploy/example.dbc");

/// Actuator frame of the example, and what only the gateway sends beside it.
const DRIVE_CMD: u32 = 0x101;
const BODY_CMD: u32 = 0x102;

/// The upper bounds of everything that a busy host can break, the lower ones of what is only waited for.
const TIMES: &str = "[safety]\nocp_silence_ms = 250\nstale_ms = 250\nack_freeze_ms = 500\noperator_freeze_ms = 500\n\
    reply_ms = 200\nframe_assembly_ms = 200\necho_ms = 100\nthread_stall_ms = 100\nown_gap_ms = 100\nclear_ms = 500\n\
    neutral_ms = 250\nhold_ms = 500\nstopping_ms = 3000\narms_per_minute = 15\n";

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(90);

/// Safe frames that must follow a trip while the stick is still held: a second and a half.
const FOLLOWING: usize = 75;

/// What a busy host may cause at any time; the cause under test is then tried again.
const OF_THE_HOST: [&str; 8] = [
    "own_gap",
    "deadline_missed",
    "ocp_stalled",
    "can_stalled",
    "echo_lost",
    "feedback_lost",
    "ocp_silence",
    "stale",
];

static RUNS: AtomicU32 = AtomicU32::new(0);

/// One drive at a time: nine processes would trip over each other on two cores.
static TURN: Mutex<()> = Mutex::new(());

/// A process that does not outlive its test.
struct Process(Child);

impl Process {
    fn start(arguments: &[&str], runtime: &std::path::Path, out: Stdio, log: &str) -> Self {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(runtime.join(log)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_ocpcan"))
            .args(arguments)
            .env("RUNTIME_DIRECTORY", runtime)
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(log)
            .spawn()
            .unwrap();
        Self(child)
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `ocpcan sim ocp` and a connection to its control port.
struct Server {
    process: Process,
    control: BufReader<TcpStream>,
    ports: [String; 2],
}

impl Server {
    fn start(runtime: &std::path::Path, ports: [&str; 2], more: &[&str]) -> Self {
        let mut arguments =
            vec!["sim", "ocp", "--player", "none", "--listen", ports[0], "--control", ports[1]];
        arguments.extend(more);
        let mut process = Process::start(&arguments, runtime, Stdio::piped(), "server.log");
        let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
        let mut address = |what: &str| {
            let line = lines.next().expect("the simulator says where it is").unwrap();
            line.strip_prefix(what).unwrap_or_else(|| panic!("{line}")).to_owned()
        };
        let ports = [address("listening on "), address("control on ")];
        // Read on to its end, or its next line would block it.
        std::thread::spawn(move || lines.for_each(drop));
        let control = TcpStream::connect(&ports[1]).unwrap();
        control.set_nodelay(true).unwrap();
        Self { process, control: BufReader::new(control), ports }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.control.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn say(&mut self, text: &str) {
        self.control.get_mut().write_all(format!("{text}\n").as_bytes()).unwrap();
        assert_eq!(self.line(), "ok", "{text}");
    }

    fn status(&mut self) -> Value {
        self.say("status");
        serde_json::from_str(&self.line()).unwrap()
    }
}

/// The three processes and an observer on their bus.
struct Trio {
    folder: PathBuf,
    config: String,
    server: Server,
    vehicle: Process,
    gateway: Process,
    port: Port,
    seen: Vec<Frame>,
    _turn: std::sync::MutexGuard<'static, ()>,
}

impl Trio {
    fn start(options: &[&str]) -> Self {
        let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let name = format!("e2e{}x{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(format!("ocpcan-{name}"));
        std::fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
        let address: BusAddress = format!("sim:{name}").parse().unwrap();
        let port = Port::open(&address, &PortOptions::default()).unwrap();
        let mut server = Server::start(&folder, ["127.0.0.1:0", "127.0.0.1:0"], &[]);
        server.say(r#"user {"headlights":false,"horn":false,"steering_mode":"manual"}"#);
        let text = EXAMPLE
            .replace("interface = \"can0\"", &format!("interface = \"sim:{name}\""))
            .replace("address = \"127.0.0.1:4000\"", &format!("address = \"{}\"", server.ports[0]))
            .replace("# stale_after_ms = 100 ", "stale_after_ms = 500 ")
            .replace("[safety]\n", TIMES);
        let config = folder.join("c.toml");
        std::fs::write(&config, text).unwrap();
        std::fs::write(folder.join("example.dbc"), EXAMPLE_DBC).unwrap();
        let config = config.to_str().unwrap().to_owned();
        let bus = format!("sim:{name}");
        let vehicle = Process::start(
            &["sim", "vehicle", "--quiet", "--bus", &bus],
            &folder,
            Stdio::null(),
            "vehicle.log",
        );
        let gateway = Self::gateway(&folder, &config, options);
        Self { folder, config, server, vehicle, gateway, port, seen: Vec::new(), _turn: turn }
    }

    fn gateway(folder: &std::path::Path, config: &str, options: &[&str]) -> Process {
        let mut arguments = vec!["run", "--config", config];
        arguments.extend(options);
        Process::start(&arguments, folder, Stdio::null(), "gateway.log")
    }

    /// One member of the gateway's own object in the newest `user_data`.
    fn told(&mut self, key: &str) -> Value {
        self.server.status()["user_data"]["gateway"][key].clone()
    }

    fn state(&mut self) -> String {
        self.told("state").as_str().unwrap_or_default().to_owned()
    }

    /// Takes the frames that come within this time.
    fn watch(&mut self, time: Duration) {
        let end = clock::now() + time;
        loop {
            let left = end.since(clock::now());
            match self.port.recv(Some(left)) {
                Ok(Some(received)) => self.seen.push(received.frame),
                Ok(None) => {}
                Err(error) => panic!("{error:?}"),
            }
            if left.is_zero() {
                return;
            }
        }
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        self.until_within(PATIENCE, what, &mut done);
    }

    fn until_within(&mut self, limit: Duration, what: &str, done: &mut dyn FnMut(&mut Self) -> bool) {
        let end: Instant = clock::now() + limit;
        while !done(self) {
            self.watch(Duration::from_millis(5));
            if clock::now() > end {
                let log = std::fs::read_to_string(self.folder.join("gateway.log")).unwrap_or_default();
                panic!("{what} did not happen; {}\n{log}", self.server.status());
            }
        }
    }

    /// The operator's whole procedure, then throttle and steering until they are on the bus.
    fn drive(&mut self) {
        let end = clock::now() + PATIENCE;
        loop {
            assert!(clock::now() < end, "the host does not let it arm");
            for line in ["neutral", "defaults last"] {
                self.server.say(line);
            }
            self.until("READY, released", |trio| {
                trio.state() == "READY" && trio.told("next") == "press and hold the arm switch"
            });
            self.server.say("press start");
            self.until("a decision", |trio| !matches!(trio.state().as_str(), "READY"));
            self.server.say("release start");
            if self.state() != "ARMED" {
                continue;
            }
            self.server.say("trigger right 0.7");
            self.server.say("axis left_x 0.5");
            let from = self.seen.len();
            let patience = clock::now() + Duration::from_secs(5);
            self.until("throttle on the bus", |trio| {
                drives(&trio.seen[from..]).any(|frame| throttle(frame) > 50) || clock::now() > patience
            });
            if self.state() == "ARMED" {
                return;
            }
        }
    }

    /// After the first safe frame from here on, nothing but safe frames, and never ARMED, with the stick still held.
    fn stays_safe(&mut self, from: usize) {
        self.until("a safe frame", |trio| drives(&trio.seen[from..]).any(is_safe));
        let first = self.seen.iter().skip(from).position(|frame| is_drive(frame) && is_safe(frame));
        let first = from + first.unwrap();
        self.until("ARMED is left", |trio| !matches!(trio.state().as_str(), "ARMED" | ""));
        self.until("more frames", |trio| {
            assert_ne!(trio.state(), "ARMED", "armed by itself");
            drives(&trio.seen[first..]).count() > FOLLOWING
        });
        let moving = drives(&self.seen[first..]).find(|frame| !is_safe(frame));
        assert!(moving.is_none(), "{moving:?} after a safe frame");
    }

    /// Drives, breaks, mends, stays safe; the operator is told this cause.
    fn trips(&mut self, break_it: &str, mend: &[&str], cause: &str) {
        for _ in 0..4 {
            self.drive();
            let from = self.seen.len();
            self.server.say(break_it);
            self.until("a safe frame", |trio| drives(&trio.seen[from..]).any(is_safe));
            for line in mend {
                self.server.say(line);
            }
            self.stays_safe(from);
            let told = self.told("cause").as_str().unwrap_or_default().to_owned();
            if told == cause {
                return;
            }
            assert!(OF_THE_HOST.contains(&told.as_str()), "{break_it}: told {told}, not {cause}");
        }
        panic!("{break_it}: the host was always first");
    }

    /// Every frame with the right checksum and a counter one further than the last.
    fn assert_row(&self) {
        let row: Vec<&Frame> = drives(&self.seen).collect();
        for frame in &row {
            assert_eq!(crc8(&frame.payload()[..7]), frame.payload()[7], "{frame:?}");
        }
        for pair in row.windows(2) {
            assert_eq!((counter(pair[0]) + 1) % 16, counter(pair[1]), "{pair:?}");
        }
    }

    fn command(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_ocpcan"))
            .args(arguments)
            .env("RUNTIME_DIRECTORY", &self.folder)
            .output()
            .unwrap()
    }
}

impl Drop for Trio {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn is_drive(frame: &Frame) -> bool {
    frame.id().raw() == DRIVE_CMD
}

fn drives(frames: &[Frame]) -> impl Iterator<Item = &Frame> {
    frames.iter().filter(|frame| is_drive(frame))
}

/// In tenths of a percent.
fn throttle(frame: &Frame) -> u16 {
    u16::from_le_bytes([frame.payload()[2], frame.payload()[3]])
}

fn counter(frame: &Frame) -> u8 {
    frame.payload()[6] >> 4
}

/// Safe, or of the stop profile: enable and throttle are 0.
fn is_safe(frame: &Frame) -> bool {
    frame.payload()[6] & 1 == 0 && throttle(frame) == 0
}

/// CRC-8 SAE J1850, bit by bit.
fn crc8(data: &[u8]) -> u8 {
    let mut crc = 0xFF_u8;
    for byte in data {
        crc ^= byte;
        for _ in 0..8 {
            crc = if crc & 0x80 == 0 { crc << 1 } else { crc << 1 ^ 0x1D };
        }
    }
    crc ^ 0xFF
}

#[test]
fn three_processes_drive_stop_for_every_cause_and_arm_by_the_procedure_alone() {
    let mut trio = Trio::start(&[]);
    trio.trips("fault CameraLost on", &["fault CameraLost off"], "ocp_fault");
    trio.trips("inject axis right_trigger 1e39", &[], "invalid_message");
    trio.trips("controller none", &["controller on"], "controller_missing");
    trio.trips("ack freeze", &["ack run"], "ack_frozen");
    trio.trips("counter freeze", &["counter run"], "operator_frozen");
    trio.trips("silence on", &["silence off"], "ocp_silence");
    trio.trips("close", &[], "ocp_down");
    trio.trips("rst", &[], "ocp_down");
    let speed = |trio: &mut Trio| trio.server.status()["user_data"]["speed_kph"].as_f64().unwrap_or(0.0);
    trio.drive();
    trio.until("the vehicle moves", |trio| speed(trio) > 1.0);
    assert!(trio.server.status()["pos"]["lat"].is_f64(), "the operator has no position");
    trio.assert_row();
}

#[test]
fn row_02_and_46_a_server_that_comes_back_with_everything_held_moves_nothing() {
    let mut trio = Trio::start(&[]);
    trio.drive();
    let from = trio.seen.len();
    trio.server.process.kill();
    trio.until("a safe frame", |trio| drives(&trio.seen[from..]).any(is_safe));
    let script = trio.folder.join("held");
    let user = r#"user {"headlights":false,"horn":false,"steering_mode":"manual"}"#;
    std::fs::write(&script, format!("defaults last\n{user}\ntrigger right 0.7\npress start\n")).unwrap();
    let ports = trio.server.ports.clone();
    let more = ["--script", script.to_str().unwrap()];
    trio.server = Server::start(&trio.folder, [&ports[0], &ports[1]], &more);
    trio.until("answers", |trio| trio.server.status()["responses"].as_u64() > Some(60));
    trio.stays_safe(from);
    // The stick released, the button still down from before: still nothing.
    trio.server.say("trigger right 0");
    trio.until("READY", |trio| trio.state() == "READY");
    trio.stays_safe(from);
    assert_eq!(trio.told("next"), "release the arm switch");
    trio.server.say("release start");
    trio.drive();
    trio.assert_row();
}

#[test]
fn row_58_and_87_a_foreign_frame_locks_out_and_safe_stop_waits_for_the_end_of_the_gateway() {
    let mut trio = Trio::start(&[]);
    trio.drive();
    let config = trio.config.clone();
    assert_eq!(trio.command(&["safe-stop", "--config", &config]).status.code(), Some(69));
    let from = trio.seen.len();
    let mut payload = [0, 0, 0xE8, 0x03, 0, 0, 0x01, 0];
    payload[7] = crc8(&payload[..7]);
    trio.port.try_send(&Frame::data(Id::standard(0x101).unwrap(), &payload).unwrap()).unwrap();
    trio.stays_safe(from);
    trio.until("LOCKOUT", |trio| trio.state() == "LOCKOUT");
    assert_eq!(trio.told("cause"), "foreign_writer");
    trio.gateway.kill();
    trio.watch(Duration::from_millis(50));
    let from = trio.seen.len();
    let output = trio.command(&["safe-stop", "--config", &config]);
    assert!(output.status.success(), "{output:?}");
    trio.watch(Duration::from_millis(100));
    let count = drives(&trio.seen[from..]).filter(|frame| is_safe(frame)).count();
    assert_eq!(count, 16, "one cycle of the counter");
    trio.assert_row();
    // A new process, that no person started, is still locked out, and its frames are safe.
    trio.gateway = Trio::gateway(&trio.folder, &config, &[]);
    let from = trio.seen.len();
    trio.until("frames of the new process", |trio| drives(&trio.seen[from..]).count() > 50);
    assert!(drives(&trio.seen[from..]).all(is_safe));
    assert_eq!(trio.state(), "LOCKOUT");
    // A person stops it and starts it: then it arms by the procedure alone.
    let pid = nix::unistd::Pid::from_raw(i32::try_from(trio.gateway.0.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(trio.gateway.0.wait().unwrap().code(), Some(0));
    trio.gateway = Trio::gateway(&trio.folder, &config, &[]);
    trio.drive();
}

#[test]
fn row_60_a_vehicle_that_falls_silent_trips() {
    let mut trio = Trio::start(&[]);
    trio.drive();
    let from = trio.seen.len();
    trio.vehicle.kill();
    trio.stays_safe(from);
    let told = trio.told("cause");
    let host = OF_THE_HOST.contains(&told.as_str().unwrap_or_default());
    assert!(told == "feedback_lost" || host, "told {told}");
    assert!(trio.server.status()["user_data"]["speed_kph"].is_null(), "an old speed is shown as a new one");
    trio.assert_row();
}

#[test]
fn run_listen_sends_nothing_and_shows_everything() {
    let mut trio = Trio::start(&["--listen"]);
    trio.until("the vehicle in user_data", |trio| !trio.server.status()["user_data"]["gear"].is_null());
    trio.watch(Duration::from_millis(500));
    let own = trio.seen.iter().find(|frame| [DRIVE_CMD, BODY_CMD].contains(&frame.id().raw()));
    assert!(own.is_none(), "{own:?}");
    assert!(!trio.seen.is_empty(), "the vehicle was not there");
}
