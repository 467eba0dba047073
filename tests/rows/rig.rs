//! A gateway between a simulated OCP server and a simulated vehicle, on real sockets and the built-in bus.
//!
//! Owns everything that a row needs: the parts, what was seen on the bus, and the verdict on it. Relies on the library's
//! simulators. Never judges by the clock of a busy host: what it checks is what follows what. Reaction times are measured
//! in the guest, where time counts instructions.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ocpcan::can::{Frame, Id};
use ocpcan::config;
use ocpcan::io::canbus::{BusAddress, Hub, Port, PortOptions, RecvError};
use ocpcan::io::clock;
use ocpcan::io::runtime::RuntimeDirectory;
use ocpcan::safety::faults::Fault;
use ocpcan::safety::input::{StateName, Status, Trip};
use ocpcan::sim::live::ocp::{LiveOptions, OcpSimHandle};
use ocpcan::sim::ocp::Options;
use ocpcan::sim::vehicle::{Layout, Vehicle};
use ocpcan::threads::{Gateway, GatewayOptions};
use ocpcan::topology::Event;

use super::relay::Relay;

/// Longest wait for anything: a busy host with two cores needs some of it, a healthy one a tenth.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Safe frames that must follow a trip without an exception.
const FOLLOWING: usize = 25;

/// Few gateways at a time: many would fight for the cores and trip over their own gaps.
static TURNS: [Mutex<()>; 3] = [const { Mutex::new(()) }; 3];

/// What the kernel of a busy host may cause at any time: not the row's doing, so the row is tried again.
const OF_THE_HOST: [Fault; 9] = [
    Fault::OwnGap,
    Fault::DeadlineMissed,
    Fault::OcpStalled,
    Fault::CanStalled,
    Fault::EchoLost,
    Fault::FeedbackLost,
    Fault::FeedbackBad,
    Fault::OcpSilence,
    Fault::Stale,
];

/// The generous end of every bound that a busy host could break, and short waits before arming.
pub const TIMES: &str = "ocp_silence_ms = 250\nstale_ms = 250\nack_freeze_ms = 500\noperator_freeze_ms = 500\n\
    reply_ms = 200\nframe_assembly_ms = 200\necho_ms = 100\nthread_stall_ms = 100\nown_gap_ms = 100\nclear_ms = 500\n\
    neutral_ms = 250\nhold_ms = 500\nstopping_ms = 2000\narms_per_minute = 15\n";

/// A driving frame as the vehicle reads it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drive {
    pub steer: i16,
    pub throttle: u16,
    pub brake: u16,
    pub enabled: bool,
    pub counter: u8,
}

impl Drive {
    /// Reads it by hand, so that the program's own codec is not its own judge. `None` where the checksum is wrong.
    fn of(frame: &Frame) -> Option<Self> {
        let data: [u8; 8] = frame.payload().try_into().ok()?;
        (data[7] == crc8_j1850(&data[..7])).then_some(Self {
            steer: i16::from_le_bytes([data[0], data[1]]),
            throttle: u16::from_le_bytes([data[2], data[3]]),
            brake: u16::from_le_bytes([data[4], data[5]]),
            enabled: data[6] & 1 == 1,
            counter: data[6] >> 4,
        })
    }

    /// Safe, or of the stop profile: nothing drives.
    pub const fn is_safe(&self) -> bool {
        !self.enabled && self.throttle == 0
    }
}

/// Polynomial 0x1D, start and final value 0xFF, bit by bit.
pub fn crc8_j1850(data: &[u8]) -> u8 {
    let step = |crc: u8| if crc & 0x80 != 0 { crc << 1 ^ 0x1D } else { crc << 1 };
    !data.iter().fold(0xFF, |crc, byte| (0..8).fold(crc ^ byte, |crc, _| step(crc)))
}

/// The bus, the vehicle on it, and a record of what the gateway sent.
pub struct Road {
    pub hub: Hub,
    pub address: BusAddress,
    sent: Arc<Mutex<Vec<Drive>>>,
    /// Frames of our id with a wrong checksum: a foreign writer's, or a defect.
    pub damaged: Arc<AtomicU32>,
    pub vehicle_runs: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Road {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sim:rows{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let address: BusAddress = name.parse().unwrap();
        let BusAddress::Sim(bus) = &address else { panic!("{name}") };
        let hub = Hub::start(bus).unwrap();
        let mut road = Self {
            hub,
            address,
            sent: Arc::default(),
            damaged: Arc::default(),
            vehicle_runs: Arc::new(AtomicBool::new(true)),
            ended: Arc::default(),
            threads: Vec::new(),
        };
        road.record();
        road.drive();
        road
    }

    fn record(&mut self) {
        let address = self.address.clone();
        let mut port = Port::open(&address, &PortOptions::default()).ok();
        let (sent, ended) = (Arc::clone(&self.sent), Arc::clone(&self.ended));
        let damaged = Arc::clone(&self.damaged);
        self.threads.push(std::thread::spawn(move || {
            while !ended.load(Ordering::Acquire) {
                let Some(open) = &port else {
                    std::thread::park_timeout(Duration::from_millis(5));
                    port = Port::open(&address, &PortOptions::default()).ok();
                    continue;
                };
                match open.recv(Some(Duration::from_millis(20))) {
                    Ok(Some(received)) if received.frame.id() == drive_id() => {
                        match Drive::of(&received.frame) {
                            Some(drive) => sent.lock().unwrap().push(drive),
                            None => drop(damaged.fetch_add(1, Ordering::AcqRel)),
                        }
                    }
                    Ok(_) | Err(RecvError::Down) => {}
                    Err(RecvError::Gone | RecvError::Io(_)) => port = None,
                }
            }
        }));
    }

    fn drive(&mut self) {
        let address = self.address.clone();
        let (runs, ended) = (Arc::clone(&self.vehicle_runs), Arc::clone(&self.ended));
        self.threads.push(std::thread::spawn(move || {
            let mut vehicle = Vehicle::new(Layout::example().unwrap(), clock::now());
            let mut port = Port::open(&address, &PortOptions::default()).ok();
            while !ended.load(Ordering::Acquire) {
                let Some(open) = &port else {
                    std::thread::park_timeout(Duration::from_millis(20));
                    port = Port::open(&address, &PortOptions::default()).ok();
                    continue;
                };
                let wait = vehicle.poll_timeout().since(clock::now()).min(Duration::from_millis(20));
                let received = open.recv(Some(wait.max(Duration::from_millis(1))));
                let now = clock::now();
                match received {
                    Ok(Some(received)) => vehicle.handle_frame(now, &received.frame),
                    Ok(None) => {}
                    Err(RecvError::Down) => {}
                    Err(_) => {
                        port = None;
                        continue;
                    }
                }
                vehicle.handle_timeout(now);
                while let Some(frame) = vehicle.poll_transmit() {
                    if runs.load(Ordering::Acquire) {
                        // A bus that takes nothing is the row's own fault.
                        let _ = open.try_send(&frame);
                    }
                }
            }
        }));
    }

    /// Everything the gateway has sent so far.
    pub fn sent(&self) -> Vec<Drive> {
        self.sent.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.sent.lock().unwrap().len()
    }

    /// Waits until this many frames were seen.
    pub fn wait_count(&self, count: usize) {
        wait_for(|| self.count() >= count, "frames on the bus");
    }

    /// After `from` the gateway becomes safe and stays safe, for as long as was recorded and [`FOLLOWING`] frames more.
    pub fn expect_safe_after(&self, from: usize) {
        let mut first = from;
        wait_for(
            || match self.sent().iter().skip(from).position(Drive::is_safe) {
                Some(at) => {
                    first = from + at;
                    true
                }
                None => false,
            },
            "a safe frame",
        );
        self.wait_count(first + FOLLOWING);
        let sent = self.sent();
        let bad = sent.iter().skip(first).position(|drive| !drive.is_safe());
        assert_eq!(bad, None, "{:?}", &sent[first..]);
    }

    /// After the program has ended: from the first safe frame after `from` all were safe, and there were this many.
    pub fn expect_safe_after_to_the_end(&self, from: usize, at_least: usize) {
        let sent = self.sent();
        let tail: Vec<Drive> = sent.iter().skip(from).copied().skip_while(|drive| !drive.is_safe()).collect();
        assert!(tail.len() >= at_least && tail.iter().all(Drive::is_safe), "{:?}", &sent[from..]);
    }

    /// The alive counter never skips and never repeats (invariant I9).
    pub fn expect_running_counter(&self) {
        for pair in self.sent().windows(2) {
            assert_eq!(pair[1].counter, (pair[0].counter + 1) % 16, "{pair:?}");
        }
    }
}

impl Drop for Road {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The right to run a gateway now.
pub fn turn() -> MutexGuard<'static, ()> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let mine = NEXT.fetch_add(1, Ordering::Relaxed) % TURNS.len();
    TURNS[mine].lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts these times in place of the generous ones.
fn replace_times(text: String, times: &str) -> String {
    times.lines().fold(text, |text, line| {
        let key = line.split('=').next().unwrap();
        let generous = TIMES.lines().find(|line| line.split('=').next() == Some(key)).unwrap();
        text.replace(&format!("{generous}\n"), &format!("{line}\n"))
    })
}

/// Waits for what must happen.
pub fn wait_for(mut condition: impl FnMut() -> bool, what: &str) {
    let deadline = clock::now() + PATIENCE;
    while !condition() {
        assert!(clock::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Writes a configuration next to its DBC file: the example on this bus and this server, with `edit` applied.
pub fn configuration(
    address: &BusAddress,
    ocp: std::net::SocketAddr,
    edit: impl FnOnce(String) -> String,
) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(address.name());
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("example.dbc"), include_str!("../../deploy/example.dbc")).unwrap();
    let text = include_str!("../../deploy/ocpcan.example.toml")
        .replace("\"can0\"", &format!("\"{address}\""))
        .replace("127.0.0.1:4000", &ocp.to_string())
        .replace("# stale_after_ms = 100", "stale_after_ms = 400")
        .replace("[safety]\n", &format!("[safety]\n{TIMES}"));
    let path = directory.join("ocpcan.toml");
    std::fs::write(&path, edit(text)).unwrap();
    path
}

/// A gateway in this process with everything around it.
pub struct Rig {
    pub gateway: Gateway,
    pub ocp: OcpSimHandle,
    pub road: Road,
    pub runtime: RuntimeDirectory,
    status: Option<Status>,
    /// Every trip whose status was seen.
    pub trips: Vec<Trip>,
    /// Lines about buses and OCP.
    pub others: Vec<String>,
    _turn: MutexGuard<'static, ()>,
}

impl Rig {
    pub fn new() -> Self {
        Self::with(Options::default(), |text| text)
    }

    pub fn with(options: Options, edit: impl FnOnce(String) -> String) -> Self {
        let turn = turn();
        let ocp = OcpSimHandle::start(&LiveOptions::default(), options).unwrap();
        let address = ocp.address();
        Self::around(turn, ocp, address, edit)
    }

    /// With lines added to `[safety]` in place of the generous ones.
    pub fn with_times(times: &str) -> Self {
        Self::with(Options::default(), |text| replace_times(text, times))
    }

    /// With something between gateway and server that listens at `address`.
    fn around(
        turn: MutexGuard<'static, ()>,
        ocp: OcpSimHandle,
        address: std::net::SocketAddr,
        edit: impl FnOnce(String) -> String,
    ) -> Self {
        let road = Road::new();
        let path = configuration(&road.address, address, edit);
        let config = config::load(&path).unwrap_or_else(|problems| panic!("{problems:?}"));
        let runtime = path.parent().unwrap().join("run");
        let runtime = RuntimeDirectory::at(runtime).unwrap();
        let options = GatewayOptions { runtime: Some(runtime.clone()), ..GatewayOptions::default() };
        let gateway = Gateway::start(&config, options).unwrap();
        Self { gateway, ocp, road, runtime, status: None, trips: Vec::new(), others: Vec::new(), _turn: turn }
    }

    /// A gateway that reaches the server through a relay.
    pub fn through_relay(options: Options, times: &str) -> (Self, Relay) {
        let turn = turn();
        let ocp = OcpSimHandle::start(&LiveOptions::default(), options).unwrap();
        let relay = Relay::to(ocp.address());
        let address = relay.address();
        (Self::around(turn, ocp, address, |text| replace_times(text, times)), relay)
    }

    pub fn say(&self, line: &str) {
        self.ocp.say(line).unwrap();
    }

    /// Takes what the gateway tells.
    fn pump(&mut self) {
        let mut event = self.gateway.events.wait(Duration::from_millis(5));
        while let Some(one) = event {
            match one {
                Event::Status(status) => {
                    if let Some(trip) = status.cause
                        && self.trips.last() != Some(&trip)
                    {
                        self.trips.push(trip);
                    }
                    self.status = Some(status);
                }
                other => self.others.push(format!("{other:?}")),
            }
            event = self.gateway.events.take();
        }
    }

    pub fn status(&self) -> Status {
        self.status.unwrap()
    }

    pub fn state(&mut self) -> StateName {
        self.pump();
        self.status.map_or(StateName::Init, |status| status.state)
    }

    /// Pumps until the condition holds.
    pub fn wait_until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let deadline = clock::now() + PATIENCE;
        while !condition(self) {
            assert!(
                clock::now() < deadline,
                "not within {PATIENCE:?}: {what}; {:?} {:?}",
                self.status,
                self.others
            );
            self.pump();
        }
    }

    /// The whole procedure, as an operator does it.
    pub fn arm(&mut self) {
        self.say("neutral");
        let mut pressed = false;
        self.wait_until("ARMED", |rig| {
            let state = rig.state();
            let ready = state == StateName::Ready && rig.status().checklist.released;
            if state == StateName::Lockout {
                // A host that stood still twice: a person acknowledges.
                rig.gateway.shared.request_acknowledge();
            }
            if ready && !pressed {
                rig.say("press start");
                pressed = true;
            } else if pressed && !matches!(state, StateName::Ready | StateName::Armed) {
                rig.say("release start");
                pressed = false;
            }
            state == StateName::Armed
        });
        self.say("release start");
    }

    /// Armed, and really driving: seen on the bus. Answers how many frames were seen then.
    pub fn drive(&mut self) -> usize {
        loop {
            self.arm();
            self.say("trigger right 0.4");
            self.say("axis left_x 0.5");
            let from = self.road.count();
            let driving = |rig: &Self| {
                rig.road.sent().iter().skip(from).any(|drive| drive.enabled && drive.throttle > 0)
            };
            self.wait_until("driving", |rig| driving(rig) || rig.state() != StateName::Armed);
            if self.state() == StateName::Armed {
                return self.road.count();
            }
        }
    }

    /// Drives, does `harm`, and expects exactly this fault as the cause. A trip of the host's own making is tried
    /// again, after `heal`. Answers how many frames were seen before the harm.
    pub fn trip(&mut self, fault: Fault, harm: impl Fn(&Self), heal: impl Fn(&Self)) -> usize {
        for _ in 0..5 {
            let from = self.drive();
            harm(self);
            self.wait_until("a trip", |rig| rig.state() != StateName::Armed);
            let cause = self.status().cause.unwrap();
            if cause.fault != fault && OF_THE_HOST.contains(&cause.fault) {
                eprintln!("the host's own trip, once more: {cause:?}");
                heal(self);
                continue;
            }
            assert_eq!(cause.fault, fault, "{cause:?}");
            assert_eq!(cause.from, StateName::Armed, "{cause:?}");
            return from;
        }
        panic!("the host was too slow five times");
    }

    /// It does not drive any more although nothing was done to it: only a slow host explains that.
    pub fn expect_trip_of_the_host(&mut self) {
        let cause = self.status().cause.unwrap();
        assert!(OF_THE_HOST.contains(&cause.fault), "{cause:?}");
        eprintln!("the host's own trip, once more: {cause:?}");
    }

    /// As [`Rig::trip`] on a bus that works: safe frames follow although the stick stays where it is, and no arming.
    pub fn expect_trip(&mut self, fault: Fault, harm: impl Fn(&Self)) {
        let from = self.trip(fault, harm, |_| ());
        self.road.expect_safe_after(from);
        assert_ne!(self.state(), StateName::Armed);
    }

    /// As [`Rig::expect_trip`] for a fault that lasts until it is taken back.
    pub fn expect_trip_until(&mut self, fault: Fault, harm: &str, heal: &str) {
        let from = self.trip(fault, |rig| rig.say(harm), |rig| rig.say(heal));
        self.road.expect_safe_after(from);
        assert_ne!(self.state(), StateName::Armed);
        self.say(heal);
    }

    /// Nothing but safe frames from here on, for a second and a half of the bus's own time.
    pub fn expect_still_safe(&mut self) {
        let from = self.road.count();
        self.road.wait_count(from + 75);
        let sent = self.road.sent();
        assert!(sent.iter().skip(from).all(Drive::is_safe), "{:?}", &sent[from..]);
        assert_ne!(self.state(), StateName::Armed);
    }

    /// The gateway's own object in what the operator received last.
    pub fn told(&self) -> serde_json::Value {
        let response = self.ocp.snapshot().last_response;
        let data = response.and_then(|response| response.user_data).unwrap_or_default();
        data.get("gateway").cloned().unwrap_or_default()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.gateway.shared.request_stop();
        self.gateway.shared.request_stop();
        let deadline = clock::now() + Duration::from_secs(5);
        while !self.gateway.all_ended() && clock::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// The id of `DRIVE_CMD`.
pub fn drive_id() -> Id {
    Id::standard(0x101).unwrap()
}
