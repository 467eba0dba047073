//! How long each cause takes to become a safe frame on the bus, in the running gateway on this host.
//!
//! Owns the causes and how each is made. Relies on the rig; several gateways run side by side, each on a bus of its own.
//! Never judges by exit status: a shared host's scheduler is part of these figures. The guest that counts instructions
//! is where the budget is held (`tests/run vcan`).
//!
//! `OCPCAN_BENCH_N` is the number of trips per cause, `OCPCAN_BENCH_LANES` the gateways that run at the same time.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench starts threads, waits and ends where its rig does not come up"
)]

mod support;

use std::sync::Mutex;
use std::time::Duration;

use ocpcan::can::Frame;
use ocpcan::io::canbus::{Fault as BusFault, FaultLine};
use ocpcan::io::clock;
use ocpcan::proto::ocp::server::{LinkState, Part};
use ocpcan::safety::faults::Fault;
use ocpcan::safety::input::StateName;
use ocpcan::safety::settings::Settings;
use ocpcan::time::{Instant, millis_f64};
use support::samples::Samples;
use support::{Rig, plain_steering, stick_for};

/// OCP's own pace.
const PACE: Duration = Duration::from_millis(10);

/// While arming, messages come faster: fifty of them are needed each time.
const ARM_PACE: Duration = Duration::from_millis(3);

/// Longest wait for a safe frame; far beyond every bound.
const LOST: Duration = Duration::from_secs(3);

/// After the first safe frame nothing else may come for this long.
const WATCH: Duration = Duration::from_millis(30);

/// Between two invalid messages.
const STRIKES_APART: Duration = Duration::from_millis(550);

/// A way to stop driving.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cause {
    FaultFlag,
    Fin,
    Reset,
    BadAxis,
    Silence,
    AckFreeze,
    CounterFreeze,
    EchoLost,
}

impl Cause {
    const ALL: [Self; 8] = [
        Self::FaultFlag,
        Self::Fin,
        Self::Reset,
        Self::BadAxis,
        Self::Silence,
        Self::AckFreeze,
        Self::CounterFreeze,
        Self::EchoLost,
    ];

    /// The fault that it is, and where its time begins.
    const fn of(self) -> (Fault, &'static str) {
        match self {
            Self::FaultFlag => (Fault::OcpFault, "fault flag: message written"),
            Self::Fin => (Fault::OcpDown, "FIN: connection closed"),
            Self::Reset => (Fault::OcpDown, "RST: connection reset"),
            Self::BadAxis => (Fault::InvalidMessage, "axis of 1e39: message written"),
            Self::Silence => (Fault::OcpSilence, "silence: last message written"),
            Self::AckFreeze => (Fault::AckFrozen, "ack freeze: last advance written"),
            Self::CounterFreeze => (Fault::OperatorFrozen, "counter freeze: last advance written"),
            Self::EchoLost => (Fault::EchoLost, "echo lost: first lost frame due, state left"),
        }
    }
}

/// What one cause gave.
#[derive(Debug, Default)]
struct Result {
    times: Samples,
    /// Non-safe frames after the first safe one.
    relapses: usize,
    /// Trips whose cause was another one: the host was too slow meanwhile.
    others: usize,
}

fn main() {
    let n = support::number("OCPCAN_BENCH_N", 200);
    let lanes = support::number("OCPCAN_BENCH_LANES", 4).max(1);
    let real_time = std::thread::spawn(support::take_priority).join().unwrap_or(false);
    println!("cause to safe frame seen on the bus; {}", support::scheduler_note(real_time));
    println!(
        "{n} trips per cause, {lanes} gateways at a time; reaction times of the example, arming shortened to do so many"
    );
    println!(
        "{:<46} {:>9} {:>9} {:>9}   {:>9}",
        "cause: begin of its time", "p50 ms", "p99 ms", "max ms", "bound ms"
    );
    let waiting: Mutex<Vec<Cause>> = Mutex::new(Cause::ALL.into_iter().rev().collect());
    let settings = Settings::default();
    std::thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                loop {
                    let Some(cause) = waiting.lock().unwrap().pop() else { return };
                    let result = measure(cause, n, real_time);
                    tell(cause, &result, &settings);
                }
            });
        }
    });
}

fn tell(cause: Cause, result: &Result, settings: &Settings) {
    let (fault, name) = cause.of();
    let ms = |thousandths| result.times.us(thousandths) / 1e3;
    let bound = millis_f64(fault.bound(settings));
    println!(
        "{name:<46} {:>9.2} {:>9.2} {:>9.2}   {bound:>9.0}   n={} within: {}{}{}",
        ms(500),
        ms(990),
        ms(1_000),
        result.times.len(),
        if ms(1_000) <= bound { "all" } else { "not all" },
        if result.relapses > 0 {
            format!("  NOT SAFE AFTERWARDS: {}", result.relapses)
        } else {
            String::new()
        },
        if result.others > 0 {
            format!("  tripped by the host instead: {}", result.others)
        } else {
            String::new()
        },
    );
}

fn measure(cause: Cause, n: usize, real_time: bool) -> Result {
    let bus = format!("sim:r{}-{}", std::process::id() % 10_000, cause as u8);
    let mut rig = Rig::start(&bus, real_time, &[], |config| {
        plain_steering(&mut config.plan);
        // None of these is part of a reaction; with legal ones 1,600 trips would take an hour.
        let ms = Duration::from_millis;
        config.settings = Settings {
            clear: ms(100),
            neutral: ms(20),
            hold: ms(20),
            transition: ms(20),
            ..Settings::default()
        };
        config.arms_per_minute = u32::MAX;
        if cause == Cause::EchoLost {
            // The bus that loses the commands loses the feedback too, and that would be told first.
            config.plan.receive.iter_mut().for_each(|receive| receive.required = false);
        }
    });
    // The wire and the eye that watches it: a busy host must not be measured there.
    if real_time {
        support::raise_bus_thread(&bus, 47);
        support::take_priority();
    }
    let line = FaultLine::connect(&bus["sim:".len()..].parse().expect("a bus name"))
        .expect("the bus is hosted here");
    let mut result = Result::default();
    let mut next = clock::now();
    for i in 0..n {
        rig.arm(ARM_PACE);
        // Three invalid messages within a second would end the connection.
        while cause == Cause::BadAxis && clock::now() < next {
            drive(&mut rig, 5);
        }
        next = clock::now() + STRIKES_APART;
        if !drive(&mut rig, 5 + i % 7) {
            result.others += 1;
            continue;
        }
        // Not always at the same place of the period.
        let phase = clock::now() + Duration::from_micros(u64::try_from(i * 1_370 % 10_000).unwrap());
        rig.wait_frame(phase.since(clock::now()), |_| false);
        let found = match cause {
            Cause::EchoLost => lose_echo(&mut rig, &line),
            _ => trip(&mut rig, cause, &mut result.relapses),
        };
        // The cause as the gateway tells it.
        let told = clock::now() + Duration::from_millis(500);
        while rig.status.and_then(|status| status.cause).is_none() && clock::now() < told {
            rig.tend();
        }
        let named = rig.status.and_then(|status| status.cause).map(|trip| trip.fault);
        match found {
            Some(time) if named == Some(cause.of().0) => result.times.push(time),
            _ => result.others += 1,
        }
    }
    rig.end();
    result
}

/// Sends healthy messages with the stick moving. False where the gateway tripped.
fn drive(rig: &mut Rig, messages: usize) -> bool {
    let drive = rig.drive;
    for i in 0..messages {
        rig.pad.axes[0] = stick_for(i64::try_from(i).unwrap() * 100 + 200);
        rig.pad.axes[5] = 0.0;
        rig.send();
        rig.tend();
        if rig.wait_frame(PACE, |frame| frame.id() == drive.id && !drive.is_enabled(frame)).is_some() {
            return false;
        }
    }
    true
}

/// Makes the cause and waits for the first safe frame.
fn trip(rig: &mut Rig, cause: Cause, relapses: &mut usize) -> Option<Duration> {
    let drive = rig.drive;
    rig.drain_bus();
    let begin = match cause {
        Cause::FaultFlag => {
            let message = rig.message(|out| {
                out.telemetry = Part::Is(LinkState {
                    latency: 20.0.into(),
                    fault: true.into(),
                    fault_reason: "HIGH LATENCY".to_owned().into(),
                    missing_cameras: Part::Absent,
                });
            });
            rig.write(&message)
        }
        Cause::BadAxis => {
            let message = rig.message(|out| {
                if let Part::Is(pad) = &mut out.controller {
                    pad.raw.push(("left_x".to_owned(), "1e39".to_owned()));
                }
            });
            rig.write(&message)
        }
        Cause::Fin => rig.disconnect(false),
        Cause::Reset => rig.disconnect(true),
        // The last good message is the begin; then it stands.
        Cause::Silence | Cause::AckFreeze | Cause::CounterFreeze => rig.send(),
        Cause::EchoLost => unreachable!("made elsewhere"),
    };
    rig.ack_runs = cause != Cause::AckFreeze;
    rig.counter_runs = cause != Cause::CounterFreeze;
    let goes_on = matches!(cause, Cause::AckFreeze | Cause::CounterFreeze);
    let safe = |frame: &Frame| frame.id() == drive.id && !drive.is_enabled(frame);
    let mut seen = None;
    let mut next = begin + PACE;
    while seen.is_none() && clock::now().since(begin) < LOST {
        if goes_on && clock::now() >= next {
            next = clock::now() + PACE;
            rig.send();
        }
        rig.tend();
        let wait = next.since(clock::now()).min(PACE);
        seen = rig.wait_frame(if wait.is_zero() { PACE } else { wait }, safe);
        if !goes_on {
            next = clock::now() + PACE;
        }
    }
    // Nothing that moves may follow.
    *relapses += usize::from(
        rig.wait_frame(WATCH, |f| f.id() == drive.id && (drive.is_enabled(f) || drive.throttle(f) != 0.0))
            .is_some(),
    );
    (rig.ack_runs, rig.counter_runs) = (true, true);
    if matches!(cause, Cause::Fin | Cause::Reset) {
        rig.accept();
    }
    seen.map(|seen| seen.at.since(begin))
}

/// Frames are taken and do not leave. Nothing can be seen on the bus then, so the end is the moment at which the
/// gateway says that it no longer drives; the begin is when the first lost frame was due. The first frame after the
/// bus is whole again must be a safe one.
fn lose_echo(rig: &mut Rig, line: &FaultLine) -> Option<Duration> {
    let drive = rig.drive;
    let period = rig.config.plan.send.iter().find(|send| send.id == drive.id)?.period;
    // Just after a frame: the next one is the first that is lost.
    rig.drain_bus();
    let last = rig.wait_frame(LOST, |frame| frame.id() == drive.id)?.at;
    line.set(BusFault::Swallow(true)).expect("the hub lives");
    let begin: Instant = last + period;
    let mut next = clock::now();
    let mut end = None;
    while end.is_none() && clock::now().since(begin) < LOST {
        if clock::now() >= next {
            next = clock::now() + PACE;
            rig.send();
        }
        while let Some(event) = rig.gateway.events.wait(Duration::from_micros(200)) {
            if let ocpcan::topology::Event::Status(status) = event {
                rig.status = Some(status);
                if status.state != StateName::Armed {
                    end = Some(clock::now());
                    break;
                }
            }
        }
    }
    line.set(BusFault::Clear).expect("the hub lives");
    let first = rig.wait_frame(LOST, |frame| frame.id() == drive.id)?;
    assert!(!drive.is_enabled(&first.frame), "the first frame after a lost echo is not safe");
    end.map(|end| end.since(begin))
}
