//! A drive with one fault after another: memory, descriptors and threads stay flat, and the gateway recovers from each.
//!
//! Owns row 90. Relies on the real binary, on the OCP simulator and on a built-in bus. Runs for 20 s of faults, or for
//! `OCPCAN_SOAK_SECONDS`. Every round plays every fault, in an order of its own; the first round is the warm-up.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests; the seed comes from the wall clock and is printed"
)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ocpcan::can::{Frame, Id};
use ocpcan::io::canbus::{BusAddress, Fault, Hub, Port, PortOptions};
use ocpcan::io::clock;
use ocpcan::sim::live::ocp::{LiveOptions, OcpSimHandle};
use ocpcan::sim::live::vehicle::VehicleSim;
use ocpcan::sim::ocp::Options;
use ocpcan::time::{Duration, Instant};

const EXAMPLE: &str = include_str!("../deploy/ocpcan.example.toml");
const EXAMPLE_DBC: &str = include_str!("../deploy/example.dbc");

/// Frames of the actuator message of the example.
const DRIVE: u32 = 0x101;

/// Long for a loaded machine; every wait ends earlier where the event comes.
const DEADLINE: Duration = Duration::from_secs(60);

/// Without the environment's word.
const SECONDS: u64 = 20;

/// Resident memory may grow by this much after the warm-up: pages that are touched for the first time by a path that no
/// earlier round took (a leak of one message body a second would be 16 KiB a second).
const GROWTH_KIB: u64 = 256;

/// What the operator's side does, and how it ends.
const OCP_FAULTS: [(&str, &str); 21] = [
    ("rst", ""),
    ("close", ""),
    ("silence on", "silence off"),
    ("link cut", "link restore"),
    ("ack freeze", "ack run"),
    ("counter freeze", "counter run"),
    ("fault CameraLost on", "fault CameraLost off"),
    ("controller none", "controller on"),
    ("stall 300", ""),
    ("restart 50", ""),
    ("rate 5", "rate auto"),
    ("rate 2000", "rate auto"),
    ("inject garbage x3", ""),
    ("inject axis left_x 1e39 x3", ""),
    ("inject huge", ""),
    ("inject deep x3", ""),
    ("inject long-reason x3", ""),
    ("inject burst 100", ""),
    ("inject http", ""),
    ("inject utf8 x5", ""),
    ("inject largest x5", ""),
];

/// A small generator: the order of the faults must differ, nothing else.
struct Order(u64);

impl Order {
    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let other = usize::try_from(self.0 >> 33).unwrap() % (last + 1);
            items.swap(last, other);
        }
    }
}

/// What the kernel says about a process.
#[derive(Debug, Clone, Copy)]
struct Use {
    resident_kib: u64,
    descriptors: usize,
    threads: u64,
}

impl Use {
    fn of(process: &Child) -> Self {
        let text = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
        let number = |key: &str| {
            let line = text.lines().find(|line| line.starts_with(key)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        Self {
            resident_kib: number("VmRSS:"),
            descriptors: std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap().count(),
            threads: number("Threads:"),
        }
    }
}

struct Bench {
    folder: PathBuf,
    address: BusAddress,
    hub: Hub,
    port: Port,
    ocp: OcpSimHandle,
    _vehicle: VehicleSim,
    gateway: Child,
    last: Option<Frame>,
    arms: u32,
}

impl Bench {
    fn start() -> Self {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let name = format!("soak{}x{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(&name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let address: BusAddress = format!("sim:{name}").parse().unwrap();
        let BusAddress::Sim(bus) = &address else { panic!("{address}") };
        let hub = Hub::start(bus).unwrap();
        let port = Port::open(&address, &PortOptions::default()).unwrap();
        let vehicle = VehicleSim::start(&address).unwrap();
        let ocp = OcpSimHandle::start(&LiveOptions::default(), Options::default()).unwrap();
        // A port of its own for questions: the usual one may be another test's, and come free while descriptors are counted.
        let asked = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let text = EXAMPLE
            .replace("\"can0\"", &format!("\"{address}\""))
            .replace("# listen = \"127.0.0.1:45451\"", &format!("listen = \"{asked}\""))
            .replace("127.0.0.1:4000", &ocp.address().to_string())
            .replace("period_ms = 20\n# stale_after_ms = 100", "period_ms = 20\nstale_after_ms = 400")
            .replace("ramp_per_s = 60", "ramp_per_s = 100")
            .replace(
                "[safety]",
                "[safety]\nclear_ms = 500\nneutral_ms = 250\nhold_ms = 500\nstopping_ms = 500\nown_gap_ms = 100\n\
                 echo_ms = 100\nocp_silence_ms = 250\nstale_ms = 250\nthread_stall_ms = 100\narms_per_minute = 15",
            );
        std::fs::write(folder.join("c.toml"), text).unwrap();
        std::fs::write(folder.join("example.dbc"), EXAMPLE_DBC).unwrap();
        let gateway = Command::new(env!("CARGO_BIN_EXE_ocpcan"))
            .args(["run", "--config"])
            .arg(folder.join("c.toml"))
            .env("RUNTIME_DIRECTORY", &folder)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { folder, address, hub, port, ocp, _vehicle: vehicle, gateway, last: None, arms: 0 }
    }

    fn say(&self, line: &str) {
        self.ocp.say(line).unwrap();
    }

    fn told(&self) -> serde_json::Value {
        let snapshot = self.ocp.snapshot();
        if !snapshot.is_connected {
            return serde_json::Value::Null;
        }
        snapshot.last_response.and_then(|response| response.user_data).unwrap_or_default()["gateway"].clone()
    }

    fn state(&self) -> String {
        self.told()["state"].as_str().unwrap_or_default().to_owned()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn watch(&mut self, time: Duration) {
        let end = clock::now() + time;
        while clock::now() < end {
            if let Ok(Some(received)) = self.port.recv(Some(Duration::from_millis(5)))
                && received.frame.id().raw() == DRIVE
            {
                self.last = Some(received.frame);
            }
        }
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let end = clock::now() + DEADLINE;
        while !done(self) {
            self.watch(Duration::from_millis(10));
            assert!(clock::now() < end, "{what} did not happen; {}\n{}", self.told(), self.log());
            assert!(self.gateway.try_wait().unwrap().is_none(), "the gateway has ended\n{}", self.log());
        }
    }

    fn is_safe(&self) -> bool {
        self.last.is_some_and(|frame| frame.payload()[2..4] == [0, 0] && frame.payload()[6] & 1 == 0)
    }

    fn drive(&mut self) {
        let end = clock::now() + DEADLINE;
        self.say("neutral");
        while self.state() != "ARMED" {
            assert!(clock::now() < end, "not armed; {}\n{}", self.told(), self.log());
            self.say("release start");
            self.until("READY", |bench| bench.state() == "READY");
            let sent = self.ocp.snapshot().sent + 10;
            self.until("a released switch", |bench| bench.ocp.snapshot().sent >= sent);
            self.say("press start");
            let patience = clock::now() + Duration::from_secs(2);
            self.until("ARMED", |bench| bench.state() == "ARMED" || clock::now() > patience);
        }
        self.arms += 1;
        self.say("release start");
        self.say("axis right_trigger 0.5");
        self.until("driving or tripped", |bench| !bench.is_safe() || bench.state() != "ARMED");
    }

    /// The bus, the process and strangers; all over when this returns.
    fn rough(&mut self) {
        for fault in [Fault::Down, Fault::Swallow(true), Fault::Stall(true), Fault::Gone] {
            self.hub.set(fault).unwrap();
            self.watch(Duration::from_millis(60));
            self.hub.set(Fault::Clear).unwrap();
            self.reopen();
            self.watch(Duration::from_millis(60));
        }
        // A flood of foreign frames of lower priority.
        for number in 0..20_000u32 {
            let frame = Frame::data(Id::standard(0x400 + number % 0x300).unwrap(), &[0; 8]).unwrap();
            let _ = self.port.try_send(&frame);
        }
        let process = Pid::from_raw(i32::try_from(self.gateway.id()).unwrap());
        kill(process, Signal::SIGSTOP).unwrap();
        self.watch(Duration::from_millis(200));
        kill(process, Signal::SIGCONT).unwrap();
        kill(process, Signal::SIGUSR1).unwrap();
        self.watch(Duration::from_millis(100));
    }

    /// After `Gone` every port must be opened again.
    fn reopen(&mut self) {
        self.port = Port::open(&self.address, &PortOptions::default()).unwrap();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.gateway.kill();
        let _ = self.gateway.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn row_90_memory_descriptors_and_threads_stay_flat_over_a_drive_of_faults() {
    let seed =
        std::env::var("OCPCAN_SOAK_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            u64::from(now.subsec_nanos())
        });
    let seconds =
        std::env::var("OCPCAN_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    println!("OCPCAN_SOAK_SEED={seed}");
    let mut order = Order(seed);
    let mut bench = Bench::start();
    let mut baseline: Option<Use> = None;
    let (mut rounds, mut faults) = (0, 0);
    let mut end: Option<Instant> = None;
    while end.is_none_or(|end| clock::now() < end) || rounds < 3 {
        let mut list = OCP_FAULTS;
        order.shuffle(&mut list);
        bench.drive();
        for (begin, over) in list {
            bench.say(begin);
            bench.watch(Duration::from_millis(60));
            if !over.is_empty() {
                bench.say(over);
            }
            bench.watch(Duration::from_millis(20));
            faults += 1;
        }
        bench.until("safe frames after a row of faults", Bench::is_safe);
        bench.rough();
        bench.say("neutral");
        bench.until("a session", |bench| bench.state() == "STANDBY" || bench.state() == "READY");
        rounds += 1;
        let now = Use::of(&bench.gateway);
        if let Some(base) = baseline {
            assert_eq!(
                (now.descriptors, now.threads),
                (base.descriptors, base.threads),
                "{now:?}\n{}",
                bench.log()
            );
            assert!(now.resident_kib <= base.resident_kib + GROWTH_KIB, "{base:?} -> {now:?}");
        } else {
            baseline = Some(now);
            end = Some(clock::now() + Duration::from_secs(seconds));
        }
    }
    println!(
        "{rounds} rounds, {faults} faults, {} arms, {baseline:?} -> {:?}",
        bench.arms,
        Use::of(&bench.gateway)
    );
    bench.drive();
    kill(Pid::from_raw(i32::try_from(bench.gateway.id()).unwrap()), Signal::SIGTERM).unwrap();
    let limit = clock::now() + DEADLINE;
    let status = loop {
        bench.watch(Duration::from_millis(10));
        if let Some(status) = bench.gateway.try_wait().unwrap() {
            break status;
        }
        assert!(clock::now() < limit, "SIGTERM does not end it\n{}", bench.log());
    };
    bench.watch(Duration::from_millis(50));
    assert_eq!(status.code(), Some(0), "{}", bench.log());
    assert!(bench.is_safe(), "{:?}", bench.last);
}

/// Where nothing but garbage listens, the gateway stays safe, tries again with pauses, and does not grow.
#[test]
fn row_90_strangers_on_the_port_cost_nothing() {
    let mut bench = Bench::start();
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = stranger.local_addr().unwrap();
    let text = std::fs::read_to_string(bench.folder.join("c.toml")).unwrap();
    let _ = bench.gateway.kill();
    let _ = bench.gateway.wait();
    std::fs::write(
        bench.folder.join("c.toml"),
        text.replace(&bench.ocp.address().to_string(), &address.to_string()),
    )
    .unwrap();
    bench.gateway = Command::new(env!("CARGO_BIN_EXE_ocpcan"))
        .args(["run", "--config"])
        .arg(bench.folder.join("c.toml"))
        .env("RUNTIME_DIRECTORY", &bench.folder)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(bench.folder.join("log")).unwrap())
        .spawn()
        .unwrap();
    stranger.set_nonblocking(true).unwrap();
    let manners: [fn(&mut TcpStream); 5] = [
        |peer| drop(peer.write_all(b"SSH-2.0-OpenSSH_9.6\r\n")),
        |peer| drop(peer.write_all(&[0xFF; 64])),
        |peer| drop(peer.write_all(&[0; 4_096])),
        |peer| drop(peer.write_all(&vec![b'['; 200_000])),
        |_| {},
    ];
    let (mut met, mut peers, mut baseline) = (0usize, Vec::new(), None);
    bench.until("twenty visits", |bench| {
        if let Ok((mut peer, _)) = stranger.accept() {
            let _ = peer.set_nonblocking(true);
            manners[met % manners.len()](&mut peer);
            let _ = peer.read(&mut [0; 64]);
            met += 1;
            // The fifth kind says nothing; none of them ever closes.
            peers.push(peer);
        }
        if met == 6 && baseline.is_none() {
            baseline = Some(Use::of(&bench.gateway));
        }
        met >= 20
    });
    let (base, now) = (baseline.unwrap(), Use::of(&bench.gateway));
    assert!(now.descriptors <= base.descriptors + 1 && now.threads == base.threads, "{base:?} -> {now:?}");
    assert!(now.resident_kib <= base.resident_kib + GROWTH_KIB, "{base:?} -> {now:?}");
    assert!(bench.is_safe());
    let log = bench.log();
    assert!(log.contains("another program on that port"), "{log}");
    assert!(log.lines().count() < 60, "{log}");
}
