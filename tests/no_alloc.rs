//! No heap allocation per message after warm-up: counted by the allocator itself, part by part and in the running
//! gateway's threads.
//!
//! Owns the counting allocator. Relies on the same rig as the benches for the running gateway. Never counts the
//! test's own thread in there: it plays the OCP server and the vehicle, and allocates as it likes.

#![allow(
    unsafe_code,
    reason = "a global allocator is an unsafe trait; this one counts and calls the system's"
)]

#[path = "../benches/support/mod.rs"]
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ocpcan::can::{Frame, Id};
use ocpcan::config::Config;
use ocpcan::io::canbus::{Accept, BusAddress, Port, PortOptions};
use ocpcan::io::clock;
use ocpcan::limits::BUSES;
use ocpcan::nodes::ocp::{OcpEvent, OcpNode};
use ocpcan::nodes::watchdog::{Published, WatchdogNode};
use ocpcan::proto::ocp::server::ControlOut;
use ocpcan::proto::ocp::{Button, Controller, UserForm};
use ocpcan::safety::buswatch::BusEvent;
use ocpcan::safety::core::{Core, CoreOptions};
use ocpcan::safety::faults::{Fault, Faults};
use ocpcan::safety::input::{Command, Requests, StateName, Status};
use ocpcan::safety::transmit::Written;
use ocpcan::signals::feedback::{FeedbackTable, FeedbackVerdict};
use ocpcan::signals::plan::SignalRef;
use ocpcan::time::Instant;
use ocpcan::topology::{Arrival, Demand, Edge, channel};
use support::Rig;

/// Counts per thread, and by name for the gateway's threads.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The gateway's threads, by the start of their names.
const NAMES: [&str; 3] = ["ocp", "can-", "watchdog"];

/// Allocations of the gateway's threads while [`WATCHING`].
static BY_NAME: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// Whether the gateway's threads are past their warm-up.
static WATCHING: AtomicBool = AtomicBool::new(false);

/// Where the first one came from, for whoever has to find it.
static FIRST: Mutex<Option<String>> = Mutex::new(None);

thread_local! {
    /// Allocations of this thread.
    static OWN: Cell<u64> = const { Cell::new(0) };
    /// Set while the allocator itself takes a backtrace.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: every call goes to the system's allocator unchanged; counting does not touch the memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Counts one allocation of this thread.
fn note() {
    // A thread that ends has no thread-locals any more; nothing is measured there.
    let _ = OWN.try_with(|own| own.set(own.get() + 1));
    if !WATCHING.load(Ordering::Relaxed) || INSIDE.try_with(Cell::get).unwrap_or(true) {
        return;
    }
    let mut name = [0_u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes to the address, with a zero at the end.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    let Some(thread) = NAMES.iter().position(|start| name.starts_with(start.as_bytes())) else { return };
    BY_NAME[thread].fetch_add(1, Ordering::Relaxed);
    let _ = INSIDE.try_with(|inside| {
        inside.set(true);
        if let Ok(mut first) = FIRST.try_lock() {
            first.get_or_insert_with(|| std::backtrace::Backtrace::force_capture().to_string());
        }
        inside.set(false);
    });
}

/// Allocations of this thread while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = OWN.with(Cell::get);
    work();
    OWN.with(Cell::get) - before
}

/// Runs `work` some times to warm up, proves that one allocation would be seen, and expects none.
fn expect_none(what: &str, rounds: u64, mut work: impl FnMut(u64)) {
    for round in 0..rounds / 10 + 1 {
        work(round);
    }
    let first = rounds / 10 + 1;
    let seen = allocations(|| {
        work(first);
        std::hint::black_box(Box::new(1_u8));
    });
    assert!(seen >= 1, "{what}: a deliberate allocation was not counted");
    let count = allocations(|| (first + 1..first + 1 + rounds).for_each(&mut work));
    println!("{what}: {count} allocations in {rounds} rounds");
    assert_eq!(count, 0, "{what}: allocations in {rounds} rounds");
}

#[test]
fn one_deliberate_allocation_of_each_kind_is_counted() {
    assert_eq!(allocations(|| ()), 0);
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new([7_u8; 3])))), 1);
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![0_u8; 100]))), 1, "zeroed");
    let mut grown = vec![1_u8];
    assert_eq!(allocations(|| grown.reserve_exact(1_000)), 1, "grown");
    std::hint::black_box(&mut grown);
}

/// The example configuration; the address is not used by the parts.
fn config() -> Config {
    support::example("sim:unused", 4_000)
}

/// Message number `n` of a driving operator, with user data that nests as deep as a dashboard's.
fn message(n: u64, nested: bool) -> Vec<u8> {
    let mut pad = Controller::NEUTRAL;
    pad.axes[0] = f64::from(u32::try_from(n % 200).unwrap()) / 100.0 - 1.0;
    pad.axes[5] = -0.25;
    let mut user = serde_json::json!({
        "counter": n, "headlights": n.is_multiple_of(2), "horn": false, "steering_mode": "crab",
    });
    if nested {
        user["dash"] =
            serde_json::json!({"a": [1, {"b": "\u{e9}\n"}, [null, true]], "c": {"d": {"e": 1e-3}}});
        user = serde_json::json!({"user_data": user});
    }
    ControlOut {
        controller: ocpcan::proto::ocp::server::Part::Is(pad.into()),
        ack_time: (1_700_000_000_000 + n * 10).into(),
        ack_time_mac: 0xfeed_f00d_u32.into(),
        client_user_data: user.into(),
        ..ControlOut::default()
    }
    .frame()
}

/// A status as the watchdog tells it while driving, and one after a trip with every text in it.
fn statuses() -> [Status; 2] {
    let config = config();
    let mut node = WatchdogNode::new(Core::new(config.plan.clone(), options(&config)));
    let quiet = node.core().status();
    node.step(
        Instant::from_millis(1_000),
        &published(Instant::from_millis(1_000), Fault::OcpFault.into(), None),
    );
    [quiet, Status { latency_ms: Some(31.25), ..node.core().status() }]
}

fn options(config: &Config) -> CoreOptions {
    CoreOptions {
        settings: config.settings,
        arms_per_minute: config.arms_per_minute,
        counters: Vec::new(),
        locked_out: None,
    }
}

fn published(now: Instant, trips: Faults, link: Option<u32>) -> Published {
    Published {
        link,
        trips,
        trips_at: (!trips.is_empty()).then_some(now),
        ocp_beat: Some(now),
        can_beats: [Some(now); BUSES],
        requests: Requests::default(),
    }
}

#[test]
fn a_control_message_is_read_judged_and_answered_without_an_allocation() {
    let config = config();
    let mut node = OcpNode::new(&config.plan, config.settings, UserForm::Auto).unwrap();
    node.handle_connected();
    let rounds = 500;
    // Every tenth message is bad in another way; one in ten does not close the connection.
    let frames: Vec<Vec<u8>> = (0..1_000)
        .map(|n| match n {
            n if n % 50 == 20 => ocpcan::proto::ocp::server::frame(b"{\"controller\":"),
            n if n % 50 == 40 => ocpcan::proto::ocp::server::frame(b""),
            n => message(n, n % 3 == 0),
        })
        .collect();
    let states = feedback_frames(&config);
    let statuses = statuses();
    let mut answered = 0;
    let mut commands = 0;
    expect_none("OCP message to answer", rounds, |n| {
        let at = Instant::from_millis(10_000 + n * 40);
        for frame in &states {
            node.handle_frame(at, 0, frame);
        }
        let mut bytes = frames[usize::try_from(n).unwrap()].as_slice();
        while !bytes.is_empty() {
            // In pieces, as TCP may deliver it.
            let spare = node.spare();
            let piece = bytes.len().min(spare.len()).min(200);
            spare[..piece].copy_from_slice(&bytes[..piece]);
            node.commit(piece);
            bytes = &bytes[piece..];
            while let Some(event) = node.poll_event(at) {
                commands += u64::from(matches!(event, OcpEvent::Message { .. }));
                assert!(!matches!(event, OcpEvent::Close { .. }));
            }
            assert!(node.handle_timeout(at).is_empty());
        }
        if let Some(answer) = node.poll_transmit(at, true, Some(&statuses[usize::from(n % 2 == 0)])) {
            assert!(answer.len() > 100);
            let taken = answer.len();
            // The kernel takes one part, then the rest.
            node.handle_written(at, taken / 2);
            let rest = node.poll_transmit(at, true, None).unwrap().len();
            node.handle_written(at, rest);
            answered += 1;
        }
    });
    assert!(commands > 500 && answered > 500, "{commands} commands, {answered} answers");
}

/// One valid frame of each feedback message at counter 0.
fn feedback_frames(config: &Config) -> Vec<Frame> {
    config.plan.receive.iter().map(|plan| support::feedback(plan, 0)).collect()
}

#[test]
fn the_feedback_table_takes_good_and_bad_frames_without_an_allocation() {
    let config = config();
    let mut table = FeedbackTable::new(&config.plan.receive);
    let frames: Vec<Vec<Frame>> = (0..16)
        .map(|count| config.plan.receive.iter().map(|plan| support::feedback(plan, count)).collect())
        .collect();
    let mut torn = frames[3][0];
    torn.payload_mut()[0] ^= 0x55;
    let other = Frame::data(Id::standard(0x7FF).unwrap(), &[1, 2]).unwrap();
    let mut accepted = 0;
    expect_none("feedback frame", 2_000, |n| {
        let at = Instant::from_millis(1_000 + n * 20);
        for frame in frames[usize::try_from(n % 16).unwrap()].iter().chain([&torn, &other]) {
            accepted += u64::from(matches!(table.handle_frame(at, 0, frame), FeedbackVerdict::Accepted(_)));
        }
        for receive in 0..config.plan.receive.len() {
            let signal = SignalRef { receive, signal: 0 };
            std::hint::black_box(table.value(at, signal, Duration::from_millis(100)));
            std::hint::black_box(table.value_name(signal));
        }
    });
    assert!(accepted > 2_000);
}

/// A watchdog node with a bus that echoes at once, an operator and a vehicle: in virtual time, 5 ms a step.
struct World {
    node: WatchdogNode,
    now: Instant,
    command: Command,
    feedback: Vec<Vec<Frame>>,
    turn: u64,
    sent: u64,
}

impl World {
    fn new() -> Self {
        let config = config();
        let mut node = WatchdogNode::new(Core::new(config.plan.clone(), options(&config)));
        let now = Instant::from_millis(1_000);
        node.handle_bus(now, 0, BusEvent::Up { proof: true });
        let feedback =
            (0..16).map(|n| config.plan.receive.iter().map(|r| support::feedback(r, n)).collect()).collect();
        // A real command of the OCP node, so that every part of it is what it would be.
        let mut ocp = OcpNode::new(&config.plan, config.settings, UserForm::Auto).unwrap();
        ocp.handle_connected();
        let mut command = None;
        for n in 0..60 {
            let bytes = message(n, false);
            ocp.spare()[..bytes.len()].copy_from_slice(&bytes);
            ocp.commit(bytes.len());
            while let Some(OcpEvent::Message { command: newest, .. }) =
                ocp.poll_event(now + Duration::from_millis(n * 10))
            {
                command = Some(newest);
            }
        }
        Self { node, now, command: command.unwrap(), feedback, turn: 0, sent: 0 }
    }

    /// One step of 5 ms with this gamepad; `trips` are raised by another thread.
    fn step(&mut self, pad: Controller, trips: Faults) -> StateName {
        self.turn += 1;
        self.now += Duration::from_millis(5);
        let now = self.now;
        if self.turn.is_multiple_of(2) {
            let live = &mut self.command.liveness;
            live.received_at = now;
            live.ack_changed_at = now;
            live.counter_alive_at = Some(now);
            live.staleness = Duration::ZERO;
            live.run = live.run.saturating_add(1);
            self.command.readings.pad =
                Some(ocpcan::signals::source::Pad { axes: pad.axes, buttons: pad.buttons });
            self.node.handle_command(self.command);
        }
        if self.turn.is_multiple_of(4) {
            for frame in &self.feedback[usize::try_from(self.turn / 4 % 16).unwrap()] {
                self.node.handle_feedback(now, 0, frame);
            }
        }
        let output = self.node.step(now, &published(now, trips, Some(self.command.liveness.session)));
        std::hint::black_box(self.node.core().status());
        std::hint::black_box(self.node.core().poll_timeout(now));
        let mut from = 0;
        while let Some(next) = self.node.core_mut().poll_transmit(now, from) {
            from = next.message + 1;
            self.node.core_mut().handle_written(now, &next, Written::Accepted);
            self.node.handle_received(now, next.bus, &next.frame, true, true);
            self.sent += 1;
        }
        output.state
    }
}

#[test]
fn the_watchdog_arms_drives_trips_and_arms_again_without_an_allocation() {
    let mut world = World::new();
    let driving = Controller { axes: [0.4, 0.0, 0.0, 0.0, -1.0, 0.2], buttons: 0 };
    let pressed = Controller { buttons: Button::Start.mask(), ..Controller::NEUTRAL };
    let mut armed = 0_u64;
    let mut safe = 0_u64;
    // One round: from a trip over the whole procedure to driving, 12 s of virtual time.
    expect_none("trip, re-arm and drive", 8, |round| {
        let fault =
            [Fault::OcpFault, Fault::InvalidMessage, Fault::OcpDown][usize::try_from(round % 3).unwrap()];
        world.step(driving, fault.into());
        assert_ne!(world.node.core().state(), StateName::Armed);
        let mut turns = 0;
        while world.node.core().state() != StateName::Armed {
            turns += 1;
            assert!(turns < 4_000, "not armed: {:?}", world.node.core().status().checklist);
            let pad = match world.node.core().state() {
                StateName::Ready if turns % 400 >= 20 => pressed,
                _ => Controller::NEUTRAL,
            };
            world.step(pad, Faults::NONE);
            safe += 1;
        }
        for _ in 0..1_000 {
            assert_eq!(
                world.step(driving, Faults::NONE),
                StateName::Armed,
                "{:?}",
                world.node.core().status()
            );
            armed += 1;
        }
        // Not more arms than the lockout allows: ten a minute.
        for _ in 0..1_400 {
            world.step(driving, Faults::NONE);
        }
    });
    println!("{armed} steps armed, {safe} on the way, {} frames", world.sent);
    assert!(armed > 8_000 && world.sent > 10_000);
}

#[test]
fn every_channel_takes_gives_and_drops_without_an_allocation() {
    let frame = Frame::data(Id::standard(0x201).unwrap(), &[1; 8]).unwrap();
    let (demand_tx, demand_rx) = channel::<Demand>(Edge::Operator);
    let (arrival_tx, arrival_rx) = channel::<Arrival>(Edge::FeedbackToWatchdog);
    let (status_tx, status_rx) = channel::<Status>(Edge::StatusToOcp);
    let (events_tx, events_rx) = channel(Edge::Events);
    let command = World::new().command;
    let status = statuses()[1];
    expect_none("channels", 2_000, |n| {
        let at = Instant::from_nanos(n);
        // More than they hold, so that both ways of being full are met.
        for _ in 0..3 {
            demand_tx.offer(Demand::Command(command));
            demand_tx.offer(Demand::Wake);
            arrival_tx.offer(Arrival { bus: 0, at, frame });
            status_tx.offer(status);
            events_tx.offer(ocpcan::topology::Event::Status(status));
        }
        if n % 4 == 0 {
            while demand_rx.wait(Duration::from_micros(1)).is_some() {}
            while arrival_rx.take().is_some() {}
            while status_rx.take().is_some() {}
            while events_rx.take().is_some() {}
        }
    });
    assert!(demand_tx.dropped() > 0 && status_tx.dropped() > 0);
}

#[test]
fn the_port_sends_and_receives_without_an_allocation() {
    let address: BusAddress = "sim:noalloc-port".parse().unwrap();
    let id = Id::standard(0x101).unwrap();
    let options = PortOptions {
        accept: Accept::Only(vec![id]),
        errors: true,
        own_messages: true,
        fd: true,
        ..PortOptions::default()
    };
    let port = Port::open(&address, &options).unwrap();
    let classic = Frame::data(id, &[1, 2, 3]).unwrap();
    let fd = Frame::fd(id, &[9; 64], true, false).unwrap();
    expect_none("port, frame out and echo in", 2_000, |n| {
        let frame = if n % 2 == 0 { &classic } else { &fd };
        port.try_send(frame).unwrap();
        let deadline = clock::now() + Duration::from_secs(10);
        let echo = loop {
            if let Some(received) = port.recv(Some(Duration::from_millis(100))).unwrap() {
                break received;
            }
            assert!(clock::now() < deadline, "no echo");
        };
        assert!(echo.own);
        assert_eq!(echo.frame.payload(), frame.payload());
        assert!(port.recv(None).unwrap().is_none());
    });
}

#[test]
fn i8_the_running_threads_allocate_nothing_while_driving() {
    let mut rig = Rig::start("sim:noalloc-run", false, &[], |config| {
        // The longest legal times: a busy machine must not end the drive, which is not what is tested here.
        for bound in ocpcan::safety::settings::BOUNDS {
            if !["clear_ms", "neutral_ms", "hold_ms", "transition_ms", "listen_ms", "stopping_ms"]
                .contains(&bound.key)
            {
                config.settings.set_ms(bound.key, bound.max_ms).unwrap();
            }
        }
    });
    // Warm-up: a whole round of everything that follows.
    rig.arm(PACE);
    drive(&mut rig, 50);
    trip(&mut rig);
    rig.arm(PACE);
    WATCHING.store(true, Ordering::SeqCst);
    drive(&mut rig, 200);
    trip(&mut rig);
    rig.arm(PACE);
    drive(&mut rig, 100);
    WATCHING.store(false, Ordering::SeqCst);
    let counts: Vec<u64> = BY_NAME.iter().map(|count| count.load(Ordering::SeqCst)).collect();
    println!("allocations in 300 messages driven, a trip and a re-arm: {NAMES:?} {counts:?}");
    let first = FIRST.lock().unwrap().take().unwrap_or_default();
    assert_eq!(counts, [0, 0, 0], "first one:\n{first}");

    // The same counters see an allocation in a thread of that name.
    WATCHING.store(true, Ordering::SeqCst);
    for name in ["ocp", "can-vehicle", "watchdog"] {
        let work = || drop(std::hint::black_box(Box::new([3_u8; 5])));
        std::thread::Builder::new().name(name.to_owned()).spawn(work).unwrap().join().unwrap();
    }
    WATCHING.store(false, Ordering::SeqCst);
    assert!(
        BY_NAME.iter().all(|count| count.load(Ordering::SeqCst) >= 1),
        "a deliberate allocation is counted"
    );
    rig.end();
}

/// OCP's own pace.
const PACE: Duration = Duration::from_millis(10);

/// An invalid message, and its safe frame.
fn trip(rig: &mut Rig) {
    let bad = rig.message(|out| out.ack_time = ocpcan::proto::ocp::server::Part::null());
    rig.write(&bad);
    let drive = rig.drive;
    rig.wait_frame(Duration::from_secs(5), |frame| frame.id() == drive.id && !drive.is_enabled(frame))
        .expect("safe frames after an invalid message");
}

/// Sends that many messages while armed, the stick moving. Where the machine was too slow and the gateway tripped, it
/// is armed again.
fn drive(rig: &mut Rig, messages: u32) {
    let drive = rig.drive;
    let mut sent = 0;
    while sent < messages {
        rig.pad.axes[0] = f64::from(sent % 100) / 100.0;
        rig.pad.axes[5] = -0.5;
        rig.send();
        rig.tend();
        sent += 1;
        if rig.wait_frame(PACE, |frame| frame.id() == drive.id && !drive.is_enabled(frame)).is_some() {
            println!("tripped by the machine: {:?}", rig.status.map(|status| status.cause));
            rig.arm(PACE);
        }
    }
}
