//! What the mapping costs: one step of the core and the packing of every frame, for 1 to 1,000 mapped signals; and what
//! one control message costs from its bytes to the command and from the report to the answer.
//!
//! Owns the generated plans and the table. Relies on the pure rooms alone: nothing here waits. Never judges by exit
//! status.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench ends where its plan does not work"
)]

mod support;

use std::time::Duration;

use ocpcan::can::Id;
use ocpcan::io::clock;
use ocpcan::limits::{BUSES, OUT_MESSAGES};
use ocpcan::nodes::ocp::{OcpEvent, OcpNode};
use ocpcan::nodes::watchdog::{Published, WatchdogNode};
use ocpcan::proto::ocp::UserForm;
use ocpcan::proto::ocp::server::ControlOut;
use ocpcan::safety::buswatch::BusEvent;
use ocpcan::safety::core::{Core, CoreOptions};
use ocpcan::safety::faults::Faults;
use ocpcan::safety::input::{Command, Requests, StateName};
use ocpcan::safety::liveness::Liveness;
use ocpcan::safety::settings::Settings;
use ocpcan::safety::transmit::Written;
use ocpcan::signals::bits::{ByteOrder, Codec, Raw};
use ocpcan::signals::e2e::{Algorithm, ChecksumPlan, CounterPlan};
use ocpcan::signals::plan::{BusPlan, Echo, Kind, Plan, SendMode, SendPlan, SignalPlan, StopProfile};
use ocpcan::signals::source::{Pad, Readings, Source};
use ocpcan::signals::transform::Transform;
use ocpcan::time::Instant;
use support::samples::{Samples, verdict};

/// For 1,000 mapped signals.
const TARGET_US: f64 = 100.0;

/// Signals of 16 bits in one CAN FD frame of 64 bytes, beside counter and checksum.
const PER_FRAME: usize = 30;

fn main() {
    println!("mapping: one core step, and every frame packed, checked and echoed; {}", support::machine());
    println!(
        "ARMED, every signal from an axis with dead zone, expo and slew limits, every frame with counter and CRC-8"
    );
    println!("signals  frames    p50 us    p99 us  us per signal");
    let cycles = support::number("OCPCAN_BENCH_N", 3_000);
    let mut costs = Vec::new();
    for signals in [1, 10, 100, 1_000] {
        let mut world = World::new(signals);
        world.arm();
        let samples = world.measure(cycles);
        let p50 = samples.us(500);
        let per_signal = p50 / f64::from(u32::try_from(signals).unwrap());
        println!("{signals:>7} {:>7} {p50:>9.2} {:>9.2} {per_signal:>14.3}", world.frames, samples.us(990));
        costs.push((signals, p50));
    }
    let (_, thousand) = costs[3];
    let (_, hundred) = costs[2];
    println!(
        "1,000 signals: {thousand:.1} us a cycle, target <= {TARGET_US} us: {}",
        verdict(thousand <= TARGET_US)
    );
    println!(
        "ten times the signals of 100 cost {:.1} times as much: {}",
        thousand / hundred,
        if thousand / hundred <= 12.0 { "linear" } else { "more than linear" }
    );
    message(cycles);
}

/// A gateway's core with that many mapped signals, in virtual time.
struct World {
    node: WatchdogNode,
    now: Instant,
    command: Command,
    frames: usize,
    turn: u64,
}

impl World {
    fn new(signals: usize) -> Self {
        let plan = plan(signals);
        let frames = plan.send.len();
        let settings = Settings::default();
        let options = CoreOptions { settings, arms_per_minute: 10, counters: Vec::new(), locked_out: None };
        let mut node = WatchdogNode::new(Core::new(plan, options));
        let now = Instant::from_millis(1_000);
        node.handle_bus(now, 0, BusEvent::Up { proof: true });
        let liveness = Liveness {
            session: 0,
            run: 100,
            received_at: now,
            staleness: Duration::ZERO,
            ack_changed_at: now,
            counter_alive_at: Some(now),
        };
        let readings = Readings { pad: Some(Pad::NEUTRAL), ..Readings::default() };
        Self { node, now, command: Command { liveness, latency_ms: 20.0, readings }, frames, turn: 0 }
    }

    /// Arms by the whole procedure.
    fn arm(&mut self) {
        for turn in 0..2_000 {
            let pressed = self.node.core().state() == StateName::Ready && turn % 400 >= 20;
            self.command.readings.pad = Some(Pad { buttons: u16::from(pressed) << 7, ..Pad::NEUTRAL });
            self.cycle();
            if self.node.core().state() == StateName::Armed {
                return;
            }
        }
        panic!("not armed: {:?}", self.node.core().status());
    }

    /// One cycle of 20 ms with a new command: all frames are due. Returns how long step and packing took.
    fn cycle(&mut self) -> Duration {
        self.turn += 1;
        self.now += Duration::from_millis(20);
        let now = self.now;
        self.command.liveness.received_at = now;
        self.command.liveness.ack_changed_at = now;
        self.node.handle_command(self.command);
        let published = Published {
            link: Some(0),
            trips: Faults::NONE,
            trips_at: None,
            ocp_beat: Some(now),
            can_beats: [Some(now); BUSES],
            requests: Requests::default(),
        };
        let begin = clock::now();
        self.node.step(now, &published);
        let mut from = 0;
        let mut sent = 0;
        while let Some(next) = self.node.core_mut().poll_transmit(now, from) {
            from = next.message + 1;
            sent += 1;
            self.node.core_mut().handle_written(now, &next, Written::Accepted);
            self.node.handle_received(now, 0, &next.frame, true, true);
        }
        let took = clock::now().since(begin);
        assert!(sent == self.frames || self.node.core().state() == StateName::Init, "{sent} frames");
        took
    }

    fn measure(&mut self, cycles: usize) -> Samples {
        let mut samples = Samples::with_capacity(cycles);
        for i in 0..cycles {
            let mut pad = Pad::NEUTRAL;
            // All of them move all the time.
            for (axis, value) in pad.axes.iter_mut().enumerate() {
                *value = f64::from(u32::try_from((i * 7 + axis * 13) % 200).unwrap()) / 100.0 - 1.0;
            }
            self.command.readings.pad = Some(pad);
            let took = self.cycle();
            assert_eq!(self.node.core().state(), StateName::Armed, "{:?}", self.node.core().status());
            samples.push(took);
        }
        samples
    }
}

/// A plan with that many mapped signals in as few CAN FD frames as hold them.
fn plan(signals: usize) -> Plan {
    let frames = signals.div_ceil(PER_FRAME);
    assert!(frames <= OUT_MESSAGES);
    let send = (0..frames)
        .map(|frame| {
            let first = frame * PER_FRAME;
            let here = first..signals.min(first + PER_FRAME);
            SendPlan {
                name: format!("FRAME_{frame}"),
                bus: 0,
                id: Id::standard(0x100 + u32::try_from(frame).unwrap()).unwrap(),
                len: 64,
                fd: true,
                period: Duration::from_millis(20),
                mode: SendMode::Cyclic,
                enable: None,
                counter: Some(CounterPlan { codec: codec(60 * 8, 4, Raw::Unsigned, 1.0), modulo: 16 }),
                checksum: Some(ChecksumPlan {
                    codec: codec(61 * 8, 8, Raw::Unsigned, 1.0),
                    algorithm: Algorithm::Crc8AutosarH2f,
                    data_id: Some(0x1234),
                }),
                signals: here.map(|n| signal(n, n - first)).collect(),
            }
        })
        .collect();
    Plan {
        buses: vec![BusPlan {
            name: "vehicle".to_owned(),
            interface: "sim:unused".to_owned(),
            fd: true,
            echo: Echo::Required,
        }],
        send,
        arm: Some(Source::Button(7)),
        ..Plan::default()
    }
}

fn codec(start: u16, bits: u8, raw: Raw, factor: f64) -> Codec {
    Codec { start, bits, order: ByteOrder::Little, raw, factor, offset: 0.0 }
}

/// Signal number `n` at place `at` of its frame: sticks steer, triggers are levers.
fn signal(n: usize, at: usize) -> SignalPlan {
    let axis = u8::try_from(n % 6).unwrap();
    let stick = axis < 4;
    let shape = if stick { Transform::centred(-1.0, 0.0, 1.0) } else { Transform::one_sided(-1.0, 1.0) };
    let low = if stick { -450.0 } else { 0.0 };
    SignalPlan {
        name: format!("SIGNAL_{n}"),
        codec: codec(u16::try_from(at * 16).unwrap(), 16, Raw::Signed, 0.1),
        named: false,
        kind: if stick { Kind::Steering } else { Kind::Enable },
        source: Source::Axis(axis),
        toggle: false,
        select: Vec::new(),
        transform: shape.output(low, 450.0).with_dead_zone(0.05).with_expo(0.3),
        min: low,
        max: 450.0,
        slew_up: Some(600.0),
        slew_down: Some(600.0),
        safe: 0.0,
        stop: StopProfile::Hold,
        at_standstill: false,
        confirm: None,
    }
}

/// One control message through the OCP node of the example.
fn message(rounds: usize) {
    let config = support::example("sim:unused", 4_000);
    let mut node = OcpNode::new(&config.plan, config.settings, UserForm::Auto).unwrap();
    node.handle_connected();
    let status = World::new(1).node.core().status();
    let mut command = Samples::with_capacity(rounds);
    let mut answer = Samples::with_capacity(rounds);
    let mut bytes = 0;
    for n in 0..rounds {
        let n = u64::try_from(n).unwrap();
        let frame = ControlOut {
            ack_time: (1_000 + n * 10).into(),
            ack_time_mac: 0xfeed_f00d_u32.into(),
            client_user_data: serde_json::json!({
                "counter": n, "headlights": true, "horn": false, "steering_mode": "crab",
            })
            .into(),
            ..ControlOut::default()
        }
        .frame();
        bytes = frame.len();
        let at = Instant::from_millis(10_000 + n * 10);
        node.spare()[..frame.len()].copy_from_slice(&frame);
        let begin = clock::now();
        node.commit(frame.len());
        let event = node.poll_event(at);
        command.push(clock::now().since(begin));
        assert!(matches!(event, Some(OcpEvent::Message { .. })), "{event:?}");
        let begin = clock::now();
        let len = node.poll_transmit(at, true, Some(&status)).unwrap().len();
        answer.push(clock::now().since(begin));
        node.handle_written(at, len);
    }
    println!(
        "one control message of {bytes} bytes: p50 {:.2} us to the command, p99 {:.2}",
        command.us(500),
        command.us(990)
    );
    println!("its answer: p50 {:.2} us to the bytes, p99 {:.2}", answer.us(500), answer.us(990));
}
