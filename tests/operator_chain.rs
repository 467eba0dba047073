//! The whole chain as four processes, over loopback and two built-in buses: the operator's panel (this test), `ocpcan run`
//! at the desk, `ocpcan sim ocp`, `ocpcan run` in the vehicle, `ocpcan sim vehicle`, and the way back to the dashboard.
//!
//! Owns the panel, both buses and the processes. Relies on the two example configurations, the command line, the control
//! port, `user_data` and frames alone. Never judges by the clock of a busy host: it judges what follows what, and prints
//! the times it saw. The bounds are proven in `tests/vm/operator_chain.py`, by the guest's instruction clock.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test: it starts processes and threads, waits with deadlines and fails by panicking"
)]

#[path = "common/programs.rs"]
mod programs;

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nix::sys::signal::Signal;
use ocpcan::can::{BusName, Frame, Id};
use ocpcan::io::canbus::{Fault as BusFault, Hub, Port, PortOptions};
use ocpcan::io::clock;
use ocpcan::time::{Duration, Instant, millis_f64};
use programs::{Folder, Ocp, PATIENCE, Program};
use serde_json::Value;

const DESK: &str = include_str!("../deploy/operator.example.toml");
const VEHICLE: &str = include_str!("../deploy/vehicle-with-panel.example.toml");
const PANEL_DBC: &str = include_str!("../deploy/panel.dbc");
const VEHICLE_DBC: &str = include_str!("../deploy/example.dbc");

/// Ids of the examples.
const DRIVE_CMD: u32 = 0x101;
const PANEL: u32 = 0x500;
const DASH: u32 = 0x501;

/// The upper bounds of what a busy host can break, the lower ones of what is only waited for. `operator_freeze_ms` is the
/// shipped one: OCP finds a desk that hangs after less than its upper bound.
const TIMES: &str = "\n[safety]\nocp_silence_ms = 250\nstale_ms = 250\nack_freeze_ms = 500\n\
    reply_ms = 200\nframe_assembly_ms = 200\necho_ms = 100\nthread_stall_ms = 100\nown_gap_ms = 100\nclear_ms = 500\n\
    neutral_ms = 250\nhold_ms = 500\nstopping_ms = 500\narms_per_minute = 15\n";

/// The panel's period, as its DBC says.
const PANEL_PERIOD: Duration = Duration::from_millis(20);

/// Safe frames that must follow a trip while the lever is still pulled: a second and a half.
const FOLLOWING: usize = 75;

/// What a busy host may cause at any time; the cause under test is then tried again.
const OF_THE_HOST: [&str; 11] = [
    "own_gap",
    "deadline_missed",
    "ocp_stalled",
    "can_stalled",
    "echo_lost",
    "feedback_lost",
    "ocp_silence",
    "stale",
    "operator_counter",
    "operator_frozen",
    "requirement_lost",
];

/// One chain at a time: on two cores more of them would trip over each other.
static TURN: Mutex<()> = Mutex::new(());
static RUNS: AtomicU32 = AtomicU32::new(0);

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

/// What the operator holds.
#[derive(Default)]
struct Hands {
    /// In tenths of a percent, as the frame has it.
    lever: AtomicU16,
    is_seated: AtomicBool,
    /// The panel's cable is pulled.
    is_unplugged: AtomicBool,
    /// The panel's program hangs, and its CAN controller repeats the last frame.
    is_frozen: AtomicBool,
    ends: AtomicBool,
}

/// The operator's panel: a thread that sends PANEL with a running counter and the right checksum.
struct Panel {
    hands: Arc<Hands>,
    thread: Option<JoinHandle<()>>,
}

impl Panel {
    fn start(bus: &str) -> Self {
        let port = open(bus);
        let hands = Arc::new(Hands::default());
        hands.is_seated.store(true, Ordering::Relaxed);
        let own = Arc::clone(&hands);
        let thread = std::thread::spawn(move || {
            let mut counter = 0;
            while !own.ends.load(Ordering::Relaxed) {
                if !own.is_unplugged.load(Ordering::Relaxed) {
                    counter = (counter + u8::from(!own.is_frozen.load(Ordering::Relaxed))) % 16;
                    // A full bus is the test's own trouble, and shows as a stale panel.
                    let _ = port.try_send(&own.frame(counter));
                }
                std::thread::sleep(PANEL_PERIOD);
            }
        });
        Self { hands, thread: Some(thread) }
    }

    fn pull(&self, percent: u16) {
        self.hands.lever.store(percent * 10, Ordering::Relaxed);
    }

    fn unplug(&self, is_unplugged: bool) {
        self.hands.is_unplugged.store(is_unplugged, Ordering::Relaxed);
    }
}

impl Hands {
    fn frame(&self, counter: u8) -> Frame {
        let [low, high] = self.lever.load(Ordering::Relaxed).to_le_bytes();
        let buttons = u8::from(self.is_seated.load(Ordering::Relaxed)) << 6;
        let mut payload = [low, high, buttons, 0, 0, 0, counter << 4, 0];
        payload[7] = crc8(&payload[..7]);
        Frame::data(Id::standard(PANEL).unwrap(), &payload).unwrap()
    }
}

impl Drop for Panel {
    fn drop(&mut self) {
        self.hands.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open(bus: &str) -> Port {
    Port::open(&bus.parse().unwrap(), &PortOptions::default()).unwrap()
}

/// A frame and when it was seen.
#[derive(Clone, Copy)]
struct Sight {
    at: Instant,
    frame: Frame,
}

/// The chain and observers on both buses.
struct Chain {
    ocp: Ocp,
    _vehicle: Program,
    gateway: Program,
    desk: Program,
    panel: Panel,
    drives: (Port, Vec<Sight>),
    dashes: (Port, Vec<Sight>),
    hubs: [Hub; 2],
    vehicle_config: String,
    desk_config: String,
    folder: Folder,
    _turn: MutexGuard<'static, ()>,
}

/// The example with other interfaces, addresses and times.
fn changed(text: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "the example has no {from:?}");
        text.replace(from, to)
    })
}

/// The vehicle's file and the desk's, in this folder.
fn write_configs(folder: &Folder, buses: [&str; 2], addresses: [&str; 2], has_counter: bool) -> [String; 2] {
    let [desk_bus, vehicle_bus] = buses.map(|bus| format!("interface = \"{bus}\""));
    let [player, ocp] = addresses;
    let mut vehicle = changed(
        VEHICLE,
        &[
            ("interface = \"can0\"", &vehicle_bus),
            ("127.0.0.1:4000", ocp),
            ("required = true\n", "required = true\nstale_after_ms = 500\n"),
        ],
    ) + TIMES;
    let mut desk = changed(
        DESK,
        &[
            ("interface = \"can0\"", &desk_bus),
            ("127.0.0.1:4001", player),
            ("# stale_after_ms = 100 ", "stale_after_ms = 250 "),
        ],
    );
    if !has_counter {
        for text in [&mut vehicle, &mut desk] {
            let lines = text.lines().filter(|line| {
                !["counter = \"user", "counter_modulo", "counter = { counter = 256"]
                    .iter()
                    .any(|key| line.starts_with(key))
            });
            *text = lines.collect::<Vec<_>>().join("\n");
        }
    }
    let write = |name: &str, text: &str| {
        let path = folder.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    write("panel.dbc", PANEL_DBC);
    write("example.dbc", VEHICLE_DBC);
    [write("vehicle.toml", &vehicle), write("desk.toml", &desk)]
}

impl Chain {
    fn start(has_counter: bool) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // A bus has a name as short as an interface's.
        let name = format!("op{}x{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
        let folder = Folder::new(&name);
        let buses = ["d", "v"].map(|side| format!("{name}{side}"));
        let hubs = [0, 1].map(|at| Hub::start(&buses[at].parse::<BusName>().unwrap()).unwrap());
        let buses = buses.map(|bus| format!("sim:{bus}"));
        let ocp = Ocp::start(&[], &folder.0);
        let [vehicle_config, desk_config] =
            write_configs(&folder, [&buses[0], &buses[1]], [&ocp.player, &ocp.vehicle], has_counter);
        let vehicle = Program::ocpcan(&["sim", "vehicle", "--quiet", "--bus", &buses[1]], &folder.0);
        Self {
            panel: Panel::start(&buses[0]),
            drives: (open(&buses[1]), Vec::new()),
            dashes: (open(&buses[0]), Vec::new()),
            gateway: Program::ocpcan(&["run", "--config", &vehicle_config], &folder.0),
            desk: Program::ocpcan(&["run", "--config", &desk_config], &folder.0),
            ocp,
            _vehicle: vehicle,
            hubs,
            vehicle_config,
            desk_config,
            folder,
            _turn: turn,
        }
    }

    /// One member of the vehicle's own object in the newest `user_data`.
    fn told(&mut self, key: &str) -> Value {
        self.ocp.status()["user_data"]["gateway"][key].clone()
    }

    fn state(&mut self) -> String {
        self.told("state").as_str().unwrap_or_default().to_owned()
    }

    /// Takes the frames that both buses have for us, with the time of the look.
    fn look(&mut self) {
        for ((port, seen), id) in [(&mut self.drives, DRIVE_CMD), (&mut self.dashes, DASH)] {
            while let Ok(Some(received)) = port.recv(Some(Duration::ZERO)) {
                if received.frame.id().raw() == id {
                    seen.push(Sight { at: clock::now(), frame: received.frame });
                }
            }
        }
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let end = clock::now() + PATIENCE;
        loop {
            self.look();
            if done(self) {
                return;
            }
            if clock::now() > end {
                let logs = [&self.gateway, &self.desk, &self.ocp.program].map(Program::output);
                panic!("{what} did not happen; {}\n{}", self.ocp.status(), logs.join("\n--\n"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn drives(&self, from: usize) -> &[Sight] {
        &self.drives.1[from..]
    }

    /// The whole procedure, then the lever until the throttle is on the bus.
    fn drive(&mut self) {
        let end = clock::now() + PATIENCE;
        loop {
            assert!(clock::now() < end, "the host does not let it arm; {}", self.gateway.output());
            if self.state() == "ARMED" && self.pull_until_it_drives() {
                return;
            }
            self.panel.pull(0);
            self.ocp.say("neutral");
            self.until("READY, released", |chain| {
                chain.state() == "READY" && chain.told("next") == "press and hold the arm switch"
            });
            self.ocp.say("press start");
            self.until("a decision", |chain| !matches!(chain.state().as_str(), "READY"));
            self.ocp.say("release start");
        }
    }

    /// Pulls the lever of an armed vehicle until the throttle is on the bus. False where a trip came first.
    fn pull_until_it_drives(&mut self) -> bool {
        let from = self.drives.1.len();
        self.panel.pull(70);
        let patience = clock::now() + Duration::from_secs(5);
        self.until("throttle on the bus", |chain| {
            chain.drives(from).iter().any(|seen| throttle(&seen.frame) > 50) || clock::now() > patience
        });
        self.state() == "ARMED"
    }

    /// After the first safe frame from here on, nothing but safe frames, and never ARMED, with the lever still pulled.
    fn stays_safe(&mut self, from: usize) {
        self.until("a safe frame", |chain| chain.drives(from).iter().any(is_safe));
        let first = from + self.drives(from).iter().position(is_safe).unwrap();
        self.until("ARMED is left", |chain| !matches!(chain.state().as_str(), "ARMED" | ""));
        self.until("more frames", |chain| {
            assert_ne!(chain.state(), "ARMED", "armed by itself");
            chain.drives(first).len() > FOLLOWING
        });
        let moving = self.drives(first).iter().find(|seen| !is_safe(seen));
        assert!(moving.is_none(), "{:?} after a safe frame", moving.map(|seen| seen.frame));
    }

    /// Drives, breaks, mends, stays safe; the operator is told one of these causes.
    fn trips(&mut self, what: &str, break_it: impl Fn(&mut Self), mend: impl Fn(&mut Self), causes: &[&str]) {
        for _ in 0..4 {
            self.drive();
            let (from, broken) = (self.drives.1.len(), clock::now());
            break_it(self);
            self.until("a safe frame", |chain| chain.drives(from).iter().any(is_safe));
            let safe = self.drives(from).iter().find(|seen| is_safe(seen)).unwrap().at;
            mend(self);
            self.stays_safe(from);
            let told = self.told("cause").as_str().unwrap_or_default().to_owned();
            if causes.contains(&told.as_str()) {
                println!(
                    "{what}: {told}, safe {:.0} ms after the test's own action",
                    millis_f64(safe.since(broken))
                );
                return;
            }
            assert!(OF_THE_HOST.contains(&told.as_str()), "{what}: told {told}, not {causes:?}");
        }
        panic!("{what}: the host was always first");
    }

    /// The newest dashboard frame.
    fn dash(&self) -> Option<Dash> {
        self.dashes.1.last().map(|seen| Dash::read(&seen.frame))
    }
}

fn throttle(frame: &Frame) -> u16 {
    u16::from_le_bytes([frame.payload()[2], frame.payload()[3]])
}

/// Safe, or of the stop profile: enable and throttle are 0.
fn is_safe(seen: &Sight) -> bool {
    seen.frame.payload()[6] & 1 == 0 && throttle(&seen.frame) == 0
}

/// DASH, unpacked by hand from deploy/panel.dbc.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Dash {
    /// In hundredths of km/h.
    speed: u16,
    latency_ms: u16,
    state: u8,
    is_linked: bool,
    has_fault: bool,
    is_panel_ok: bool,
    vehicle_faults: u8,
    operator_faults: u8,
    counter: u8,
}

impl Dash {
    fn read(frame: &Frame) -> Self {
        let data = frame.payload();
        assert_eq!((data.len(), crc8(&data[..7])), (8, data[7]), "{frame:?}");
        Self {
            speed: u16::from_le_bytes([data[0], data[1]]),
            latency_ms: u16::from_le_bytes([data[2], data[3]]),
            state: data[4] & 15,
            is_linked: data[4] & 16 != 0,
            has_fault: data[4] & 32 != 0,
            is_panel_ok: data[4] & 64 != 0,
            vehicle_faults: data[5] & 15,
            operator_faults: data[5] >> 4,
            counter: data[6] >> 4,
        }
    }
}

/// Value of VEHICLE_STATE in the dashboard frame.
const ARMED: u8 = 5;

#[test]
fn a_lever_drives_the_vehicle_the_dashboard_shows_it_and_every_cut_leg_stops_it() {
    let mut chain = Chain::start(true);
    chain.drive();
    chain.until("the dashboard shows the drive", |chain| {
        chain.dash().is_some_and(|dash| dash.state == ARMED && dash.speed > 100 && dash.speed < 20_000)
    });
    let dash = chain.dash().unwrap();
    assert!(dash.is_linked && dash.is_panel_ok && !dash.has_fault, "{dash:?}");
    assert_eq!((dash.vehicle_faults, dash.operator_faults), (0, 0), "{dash:?}");
    assert!(dash.latency_ms > 20, "a command needs 20 ms to the vehicle, and as long back: {dash:?}");

    // The panel's cable, and its return with the lever pulled.
    let panel = |is_unplugged| move |chain: &mut Chain| chain.panel.unplug(is_unplugged);
    chain.trips("panel silent", panel(true), panel(false), &["requirement_lost"]);
    chain.until("the desk sees its panel again", |chain| chain.dash().is_some_and(|dash| dash.is_panel_ok));
    let from = chain.drives.1.len();
    chain.stays_safe(from);
    let state = chain.state();
    assert!(matches!(state.as_str(), "SAFE" | "STANDBY"), "{state} with the lever pulled");

    let freeze =
        |is_frozen| move |chain: &mut Chain| chain.panel.hands.is_frozen.store(is_frozen, Ordering::Relaxed);
    chain.trips("panel repeats its last frame", freeze(true), freeze(false), &["requirement_lost"]);

    let stop = |signal| move |chain: &mut Chain| chain.desk.signal(signal);
    chain.trips("desk stopped (SIGSTOP)", stop(Signal::SIGSTOP), stop(Signal::SIGCONT), &["operator_frozen"]);
    let say = |lines: &'static [&'static str]| {
        move |chain: &mut Chain| lines.iter().for_each(|line| chain.ocp.say(line))
    };
    let no_player = say(&["player listen off", "player close"]);
    chain.trips("TCP to the Player gone", no_player, say(&["player listen on"]), &["operator_frozen"]);
    let cut = say(&["cut uplink"]);
    chain.trips("uplink cut", cut, say(&["restore uplink"]), &["operator_frozen"]);
    // The seat switch is lost with the connection, and may be told first.
    chain.trips("TCP to the vehicle gone", say(&["close"]), |_| {}, &["ocp_down", "dead_man"]);
    let seat =
        |is_seated| move |chain: &mut Chain| chain.panel.hands.is_seated.store(is_seated, Ordering::Relaxed);
    chain.trips("the operator gets up", seat(false), seat(true), &["dead_man"]);

    // The downlink and the video: the desk sees it first, OCP after its own time.
    chain.trips(
        "downlink cut",
        say(&["cut downlink"]),
        say(&["restore downlink"]),
        &["ocp_fault", "latency_high"],
    );

    // Nothing leaves a bus that is down: the proof is what the operator is told, and the frames after it.
    chain.drive();
    chain.hubs[1].set(BusFault::Down).unwrap();
    chain.until("ARMED is left", |chain| !matches!(chain.state().as_str(), "ARMED" | ""));
    let from = chain.drives.1.len();
    chain.hubs[1].set(BusFault::Clear).unwrap();
    chain.stays_safe(from);

    // A desk that ends in order says so; one that crashes and comes back with the lever pulled drives nothing.
    chain.trips(
        "desk ended (SIGTERM)",
        |chain| assert!(chain.desk.terminate().success(), "{}", chain.desk.output()),
        |chain| chain.desk = Program::ocpcan(&["run", "--config", &chain.desk_config], &chain.folder.0),
        &["requirement_lost"],
    );
    chain.trips(
        "desk crashed (SIGKILL)",
        |chain| chain.desk.kill(),
        |chain| chain.desk = Program::ocpcan(&["run", "--config", &chain.desk_config], &chain.folder.0),
        &["operator_frozen"],
    );
    chain.drive();
    assert!(chain.gateway.terminate().success(), "{}", chain.gateway.output());
    let from = chain.dashes.1.len();
    chain.until("the dashboard knows nothing any more", |chain| {
        chain.dashes.1[from..].last().is_some_and(|seen| {
            let dash = Dash::read(&seen.frame);
            dash.speed == u16::MAX && dash.state == 0 && dash.has_fault && dash.vehicle_faults > 0
        })
    });
    for pair in chain.dashes.1.windows(2) {
        let [one, two] = [0, 1].map(|at| Dash::read(&pair[at].frame));
        // A desk that was started anew counts from 0.
        assert!(two.counter == (one.counter + 1) % 16 || two.counter == 0, "{one:?} {two:?}");
    }
}

/// What a command says about a configuration.
fn said(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ocpcan")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[test]
fn without_an_operator_counter_ocps_own_fault_stops_the_vehicle_and_check_and_the_log_say_so() {
    let mut chain = Chain::start(false);
    // Both numbers, with or without a comma in the thousand.
    let warns = |text: &str| text.contains("275 ms") && text.replace(',', "").contains("1045 ms");
    for config in [&chain.vehicle_config, &chain.desk_config] {
        let text = said(&["check", "--config", config]);
        assert!(warns(&text), "{text}");
    }
    for program in [&chain.gateway, &chain.desk] {
        program.wait(0, "what a lost operator means", |line| warns(line).then_some(()));
    }
    // The desk hangs: OCP repeats its last data and its last acks, and finds those old.
    let stop = |signal| move |chain: &mut Chain| chain.desk.signal(signal);
    let causes = ["ocp_fault", "latency_high"];
    chain.trips("desk stopped (SIGSTOP)", stop(Signal::SIGSTOP), stop(Signal::SIGCONT), &causes);
    // The radio is gone: OCP repeats its last command until it has had no control for a second.
    let say = |line: &'static str| move |chain: &mut Chain| chain.ocp.say(line);
    chain.trips("uplink cut", say("cut uplink"), say("restore uplink"), &["ocp_fault"]);
}
