//! What the benches and the allocation test share: a real gateway on a bus, its OCP server and its vehicle, driven
//! from one thread.
//!
//! Owns the arming procedure as a person does it, the vehicle's feedback and the list of samples. Relies on the
//! library's public items and on `deploy/ocpcan.example.toml`. Never measures: the benches do.

#![allow(dead_code, reason = "each bench uses a part of this")]
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench waits for real events and ends where its rig does not come up"
)]

pub mod samples;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use ocpcan::can::{Frame, Id};
use ocpcan::config::{self, Config};
use ocpcan::io::canbus::{Accept, BusAddress, Port, PortOptions};
use ocpcan::io::{clock, sys};
use ocpcan::proto::ocp::server::ControlOut;
use ocpcan::proto::ocp::{Button, Controller};
use ocpcan::safety::input::{StateName, Status};
use ocpcan::signals::bits::Codec;
use ocpcan::signals::plan::{Plan, ReceivePlan};
use ocpcan::signals::transform::Transform;
use ocpcan::threads::{Gateway, GatewayOptions};
use ocpcan::time::Instant;
use ocpcan::topology::Event;

/// How often the vehicle reports its state: its DBC says 20 ms.
const STATE_PERIOD: Duration = Duration::from_millis(20);

/// The gateway arms in about two seconds; a loaded machine may take a few times that.
const ARM_LIMIT: Duration = Duration::from_secs(20);

/// The measuring thread runs above the gateway's threads (40 and 45): what they still do after the frame was written
/// (the answer, the echo) must not delay its reading of the clock. It only waits while they work.
const OWN_PRIORITY: i32 = 46;

/// The first signals of the example's actuator frame.
#[derive(Debug, Clone, Copy)]
pub struct DriveFrame {
    /// Its identifier.
    pub id: Id,
    /// Steering wheel angle, 0.1 degrees a step.
    pub steer: Codec,
    /// Accelerator, percent.
    pub throttle: Codec,
    /// 1 in ARMED.
    pub enable: Codec,
}

impl DriveFrame {
    /// Looks the places up in the plan.
    fn of(plan: &Plan) -> Self {
        let send =
            plan.send.iter().find(|send| send.name == "DRIVE_CMD").expect("the example sends DRIVE_CMD");
        let codec = |name: &str| send.signals.iter().find(|s| s.name == name).expect("its signals").codec;
        Self {
            id: send.id,
            steer: codec("STEER_ANGLE_CMD"),
            throttle: codec("THROTTLE_CMD"),
            enable: send.enable.expect("an enable bit").codec,
        }
    }

    /// Whether the vehicle would obey this frame.
    pub fn is_enabled(&self, frame: &Frame) -> bool {
        self.enable.decode_raw(frame.payload()) == Some(1)
    }

    /// The steering step that the frame carries.
    pub fn steps(&self, frame: &Frame) -> i64 {
        let pattern = self.steer.decode_raw(frame.payload()).unwrap_or(0);
        i64::from(u16::try_from(pattern).unwrap_or(0).cast_signed())
    }

    /// Throttle in percent.
    pub fn throttle(&self, frame: &Frame) -> f64 {
        self.throttle.decode(frame.payload()).unwrap_or(f64::NAN)
    }
}

/// The example configuration on this bus and OCP port, with the shortest legal times of the arming procedure.
pub fn example(bus: &str, port: u16) -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/ocpcan.example.toml");
    let mut config = config::load(&path).unwrap_or_else(|problems| {
        panic!("the example configuration: {}", problems.first().map(ToString::to_string).unwrap_or_default())
    });
    config.ocp.address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    bus.clone_into(&mut config.plan.buses[0].interface);
    for bound in ocpcan::safety::settings::BOUNDS {
        if ["clear_ms", "neutral_ms", "hold_ms", "transition_ms", "listen_ms"].contains(&bound.key) {
            config.settings.set_ms(bound.key, bound.min_ms).expect("a key of the table");
        }
    }
    config
}

/// Makes the steering of the plan follow the stick at once and in a straight line: each command can then be told by
/// the value in its frame.
pub fn plain_steering(plan: &mut Plan) {
    for signal in plan.send.iter_mut().flat_map(|send| &mut send.signals) {
        if signal.name == "STEER_ANGLE_CMD" {
            signal.transform = Transform::centred(-1.0, 0.0, 1.0).output(-450.0, 450.0);
            signal.slew_up = None;
            signal.slew_down = None;
        }
    }
}

/// The stick position that [`plain_steering`] turns into this many steps of 0.1 degrees (-4500 to 4500).
pub fn stick_for(steps: i64) -> f64 {
    let steps = i32::try_from(steps).unwrap_or(0);
    f64::from(steps) / 4_500.0
}

/// Whether SCHED_FIFO is permitted here; the calling thread then runs under it, above the gateway's threads.
pub fn take_priority() -> bool {
    sys::set_fifo_priority(OWN_PRIORITY).is_ok()
}

/// What is to be said about the machine beside every figure.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    // What was busy before may still be; a figure of the tail is then not the gateway's alone.
    let busy = load.parse::<f64>().is_ok_and(|load| load > 1.5);
    let others = if busy { " (busy before this bench: tails may be others')" } else { "" };
    format!("{cores} cores, load {load} before{others}, kernel {}", kernel.trim())
}

/// The same with the scheduler of a running gateway.
pub fn scheduler_note(real_time: bool) -> String {
    let class =
        if real_time { "SCHED_FIFO (watchdog 45, ocp and can 40)" } else { "SCHED_OTHER: FIFO refused" };
    format!("{}; gateway threads {class}", machine())
}

/// A number from the environment.
pub fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What one attempt at waiting brought.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// The frame.
    pub frame: Frame,
    /// When it was read.
    pub at: Instant,
}

/// A gateway between an OCP server and a vehicle that are both played by the caller's thread.
pub struct Rig {
    /// The gateway.
    pub gateway: Gateway,
    /// What it was started with.
    pub config: Config,
    /// The vehicle's port on the bus.
    pub bus: Port,
    /// The actuator frame.
    pub drive: DriveFrame,
    /// The gamepad of the next message.
    pub pad: Controller,
    /// Whether `ack_time` advances.
    pub ack_runs: bool,
    /// Whether the operator's counter advances.
    pub counter_runs: bool,
    /// The gateway's last status.
    pub status: Option<Status>,
    listener: TcpListener,
    stream: Option<TcpStream>,
    out: ControlOut,
    ack_ms: u64,
    counter: u64,
    state_at: Instant,
    state_count: u32,
    answer: Vec<u8>,
}

impl Rig {
    /// Starts a gateway on `bus` and connects it. `change` alters the example configuration. `also` are further
    /// identifiers that [`Rig::bus`] shall deliver.
    pub fn start(bus: &str, real_time: bool, also: &[Id], change: impl FnOnce(&mut Config)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let mut config = example(bus, listener.local_addr().expect("bound").port());
        change(&mut config);
        let drive = DriveFrame::of(&config.plan);
        let address: BusAddress = bus.parse().expect("a bus name");
        let accept = Accept::Only([&[drive.id], also].concat());
        // Opened before the gateway's ports: whoever hosts the built-in bus serves the ports in this order.
        let port = Port::open(&address, &PortOptions { accept, ..PortOptions::default() })
            .unwrap_or_else(|error| panic!("{error}"));
        let options = GatewayOptions { real_time, ..GatewayOptions::default() };
        let gateway = Gateway::start(&config, options).unwrap_or_else(|error| panic!("{error}"));
        let mut rig = Self {
            gateway,
            config,
            bus: port,
            drive,
            pad: Controller::NEUTRAL,
            ack_runs: true,
            counter_runs: true,
            status: None,
            listener,
            stream: None,
            out: ControlOut::default(),
            ack_ms: 0,
            counter: 0,
            state_at: Instant::ZERO,
            state_count: 0,
            answer: vec![0; 64 << 10],
        };
        rig.accept();
        rig
    }

    /// Waits for the gateway's connection, and meanwhile keeps the vehicle alive.
    pub fn accept(&mut self) {
        self.listener.set_nonblocking(true).expect("a flag");
        let deadline = clock::now() + ARM_LIMIT;
        let stream = loop {
            if let Ok((stream, _)) = self.listener.accept() {
                break stream;
            }
            assert!(clock::now() < deadline, "the gateway did not connect");
            self.tend();
            std::thread::sleep(Duration::from_millis(1));
        };
        stream.set_nodelay(true).expect("a flag");
        stream.set_nonblocking(true).expect("a flag");
        self.stream = Some(stream);
    }

    /// The bytes of the next message with the gamepad as it is; `alter` makes it a special one.
    pub fn message(&mut self, alter: impl FnOnce(&mut ControlOut)) -> Vec<u8> {
        if self.ack_runs {
            self.ack_ms = (self.ack_ms + 1).max(clock::now().as_millis());
        }
        self.counter += u64::from(self.counter_runs);
        self.out.controller = ocpcan::proto::ocp::server::Part::Is(self.pad.into());
        self.out.ack_time = self.ack_ms.into();
        self.out.client_user_data = serde_json::json!({
            "counter": self.counter, "headlights": true, "horn": false, "steering_mode": "manual",
        })
        .into();
        let mut out = self.out.clone();
        alter(&mut out);
        out.frame()
    }

    /// Writes bytes to the gateway's connection and returns the time just before.
    pub fn write(&mut self, bytes: &[u8]) -> Instant {
        let at = clock::now();
        let stream = self.stream.as_mut().expect("connected");
        if stream.write_all(bytes).is_err() {
            // The gateway closed it: a host that stood still can make a message late or cut it.
            self.accept();
        }
        at
    }

    /// Sends the next healthy message.
    pub fn send(&mut self) -> Instant {
        let bytes = self.message(|_| {});
        self.write(&bytes)
    }

    /// Ends the connection: in order, or by a reset. Returns the time just before.
    pub fn disconnect(&mut self, reset: bool) -> Instant {
        let stream = self.stream.take().expect("connected");
        // What the gateway wrote must be read, or the kernel makes a reset of an orderly end.
        let mut stream = stream;
        while stream.read(&mut self.answer).is_ok_and(|n| n > 0) {}
        if reset {
            nix::sys::socket::setsockopt(
                &stream,
                nix::sys::socket::sockopt::Linger,
                &libc::linger { l_onoff: 1, l_linger: 0 },
            )
            .expect("a flag");
        }
        let at = clock::now();
        drop(stream);
        at
    }

    /// Plays the vehicle where its state is due, takes the gateway's answers and events.
    pub fn tend(&mut self) {
        let now = clock::now();
        if now.since(self.state_at) >= STATE_PERIOD {
            self.state_at = now;
            let frames: Vec<Frame> =
                self.config.plan.receive.iter().map(|r| feedback(r, self.state_count)).collect();
            self.state_count += 1;
            for frame in &frames {
                // A bus that takes nothing is a fault that the bench made.
                let _ = self.bus.try_send(frame);
            }
        }
        if let Some(stream) = &mut self.stream {
            while stream.read(&mut self.answer).is_ok_and(|n| n > 0) {}
        }
        while let Some(event) = self.gateway.events.take() {
            if let Event::Status(status) = event {
                self.status = Some(status);
            }
        }
    }

    /// The gateway's state, as its last event told.
    pub fn state(&self) -> Option<StateName> {
        self.status.map(|status| status.state)
    }

    /// Waits for the next frame that is wanted.
    pub fn wait_frame(&self, at_most: Duration, wanted: impl Fn(&Frame) -> bool) -> Option<Seen> {
        let deadline = clock::now() + at_most;
        loop {
            let left = deadline.since(clock::now());
            match self.bus.recv(Some(left)) {
                Ok(Some(received)) if wanted(&received.frame) => {
                    return Some(Seen { frame: received.frame, at: received.at });
                }
                Ok(_) if left.is_zero() => return None,
                Ok(_) => {}
                Err(error) => panic!("the bus: {error}"),
            }
        }
    }

    /// Takes every frame that has already arrived.
    pub fn drain_bus(&self) -> usize {
        let mut drained = 0;
        while matches!(self.bus.recv(None), Ok(Some(_))) {
            drained += 1;
        }
        drained
    }

    /// Arms as a person does: everything at rest, then the arm switch pressed and held. Messages go out every `pace`.
    /// Returns when an enabled frame was seen on the bus and the switch is released again.
    pub fn arm(&mut self, pace: Duration) {
        self.pad = Controller::NEUTRAL;
        self.drain_bus();
        let deadline = clock::now() + ARM_LIMIT;
        let mut released = 0;
        loop {
            assert!(clock::now() < deadline, "the gateway did not arm: {:?}", self.status);
            self.send();
            self.tend();
            match self.state() {
                // Seen released in READY, then pressed.
                Some(StateName::Ready) if released < 3 => released += 1,
                Some(StateName::Ready | StateName::Armed) => self.pad.buttons = Button::Start.mask(),
                // A machine that was too slow twice while it drove; the person at the box acknowledges.
                Some(StateName::Lockout) => {
                    self.gateway.shared.request_acknowledge();
                    self.pad.buttons = 0;
                }
                _ => {
                    released = 0;
                    self.pad.buttons = 0;
                }
            }
            let drive = self.drive;
            if self.wait_frame(pace, |frame| frame.id() == drive.id && drive.is_enabled(frame)).is_some() {
                self.pad.buttons = 0;
                return;
            }
        }
    }

    /// Sends healthy messages at this pace for a while.
    pub fn run(&mut self, time: Duration, pace: Duration) {
        let until = clock::now() + time;
        while clock::now() < until {
            self.send();
            self.tend();
            std::thread::sleep(pace);
        }
        self.drain_bus();
    }

    /// Ends the gateway with its stop profile and waits for it.
    pub fn end(mut self) {
        self.gateway.shared.request_stop();
        let deadline = clock::now() + ARM_LIMIT;
        while !self.gateway.all_ended() && clock::now() < deadline {
            self.tend();
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(self.gateway.all_ended(), "the gateway did not end");
        self.gateway.join();
    }
}

/// A frame of the vehicle at rest, with its counter and checksum.
pub fn feedback(plan: &ReceivePlan, count: u32) -> Frame {
    let mut data = [0_u8; 64];
    let data = &mut data[..usize::from(plan.len)];
    if let Some(counter) = plan.counter {
        counter.apply(data, count % counter.modulo).expect("fits");
    }
    if let Some(checksum) = plan.checksum {
        checksum.apply(data).expect("fits");
    }
    Frame::data(plan.id, data).expect("a classic frame")
}

/// Threads that keep every core busy at normal priority.
pub struct Hogs {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Hogs {
    /// One for each core.
    pub fn start() -> Self {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = (0..cores)
            .map(|_| {
                let stop = std::sync::Arc::clone(&stop);
                std::thread::spawn(move || {
                    let mut x = 1_u64;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        for _ in 0..10_000 {
                            x = std::hint::black_box(x.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1));
                        }
                    }
                })
            })
            .collect();
        Self { stop, threads }
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The thread of the built-in bus plays a wire; a wire does not wait for the processor. Returns whether that was
/// permitted.
pub fn raise_bus_thread(bus: &str, priority: u8) -> bool {
    let name: String = bus.replacen("sim:", "bus-", 1).chars().take(15).collect();
    // A thread takes its name when it first runs.
    let deadline = clock::now() + Duration::from_secs(2);
    loop {
        let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let named = tasks.filter(|task| {
            std::fs::read_to_string(task.path().join("comm")).unwrap_or_default().trim() == name
        });
        if let Some(task) = { named }.next() {
            let result = std::process::Command::new("chrt")
                .args(["--fifo", "--pid", &priority.to_string()])
                .arg(task.file_name())
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .status();
            return result.is_ok_and(|status| status.success());
        }
        if clock::now() >= deadline {
            return false;
        }
        std::thread::yield_now();
    }
}
