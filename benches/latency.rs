//! From the bytes of a control message to the actuator frame on the bus, against what a program can reach at best.
//!
//! Owns the two floors (one bounded-channel hop between two threads; one thread alone) and the printed tables. Relies
//! on the rig for a real, really armed gateway. Never judges by exit status: figures of a shared machine are figures.
//!
//! `OCPCAN_BENCH_BUS` names the bus (default: a built-in one), `OCPCAN_BENCH_N` the messages per column.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench starts threads, waits and ends where its rig does not come up"
)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use ocpcan::can::{Frame, Id};
use ocpcan::config::Config;
use ocpcan::io::canbus::{Accept, BusAddress, Hub, Port, PortOptions};
use ocpcan::io::{clock, sys};
use ocpcan::limits::COMMAND_DEPTH;
use ocpcan::proto::ocp::FRAME;
use ocpcan::signals::plan::SendMode;
use ocpcan::time::Instant;
use support::samples::{HEAD, Samples, verdict};
use support::{Hogs, Rig, plain_steering, stick_for};

/// Messages of OCP follow each other at this pace.
const PACE: Duration = Duration::from_millis(10);

/// The three ways share one pace, so that each meets the machine in the same mood.
const THIRD: Duration = Duration::from_micros(3_300);

/// A frame that does not come within this time is lost, and the bench says so.
const LOST: Duration = Duration::from_millis(500);

/// Period jitter that is to be reached unloaded.
const JITTER_US: f64 = 1_000.0;

fn main() {
    let n = support::number("OCPCAN_BENCH_N", 3_000);
    let kernel_bus = std::env::var("OCPCAN_BENCH_BUS").ok();
    let bus = kernel_bus.clone().unwrap_or_else(|| format!("sim:lat{}", std::process::id() % 10_000));
    // Hosted here first, so that its thread can be found; a kernel interface needs no host.
    let hub =
        kernel_bus.is_none().then(|| Hub::start(&bus["sim:".len()..].parse().expect("a bus name")).unwrap());
    let wire = hub.is_some() && support::raise_bus_thread(&bus, 47);
    let real_time = support::take_priority();
    println!("message to frame, on {bus}; {}", support::scheduler_note(real_time));
    if hub.is_some() {
        println!(
            "the thread of the built-in bus runs at {}",
            if wire { "SCHED_FIFO 47" } else { "normal priority" }
        );
    }
    on_command(&bus, real_time, n);
    cyclic(&bus, real_time, n / 3);
}

/// `send = "on_command"` against both floors, interleaved message by message.
fn on_command(bus: &str, real_time: bool, n: usize) {
    let ids = [Id::standard(0x7A0).unwrap(), Id::standard(0x7A1).unwrap()];
    let mut rig = Rig::start(bus, real_time, &ids, |config| {
        plain_steering(&mut config.plan);
        for send in &mut config.plan.send {
            send.mode = SendMode::OnCommand { min_gap: Duration::from_millis(1) };
            send.period = Duration::from_millis(50);
        }
        without_body(config);
    });
    rig.arm(PACE);
    let mut two = Floor::start(bus, ids[0], real_time, true);
    let mut one = Floor::start(bus, ids[1], real_time, false);
    let mut gateway_times = Samples::with_capacity(n);
    let mut two_times = Samples::with_capacity(n);
    let mut one_times = Samples::with_capacity(n);
    let mut lost = 0;
    for turn in 0..3 * n {
        rig.drain_bus();
        // In another order each round: who comes after whom matters to caches and timers.
        let (i, way) = (turn / 3, (turn + turn / 3) % 3);
        let steps = wanted(i);
        rig.pad.axes[0] = stick_for(steps);
        let bytes = rig.message(|_| {});
        let begin = match way {
            0 => {
                let begin = rig.write(&bytes);
                let drive = rig.drive;
                let ours =
                    |f: &Frame| f.id() == drive.id && (drive.steps(f) == steps || !drive.is_enabled(f));
                match rig.wait_frame(LOST, ours) {
                    Some(seen) if drive.is_enabled(&seen.frame) => gateway_times.push(seen.at.since(begin)),
                    _ => {
                        lost += 1;
                        rig.arm(PACE);
                    }
                }
                begin
            }
            way => {
                let (floor, times) =
                    if way == 1 { (&mut two, &mut two_times) } else { (&mut one, &mut one_times) };
                let begin = floor.write(&bytes);
                let id = floor.id;
                match rig.wait_frame(LOST, |frame| frame.id() == id) {
                    Some(seen) => times.push(seen.at.since(begin)),
                    None => lost += 1,
                }
                begin
            }
        };
        rig.tend();
        rest(begin + THIRD);
    }
    println!("\nsend = \"on_command\", min_gap 1 ms; same messages, same bus, interleaved");
    println!("                              {HEAD}");
    println!("gateway, armed              {}", gateway_times.columns());
    println!("floor: two threads, one hop {}", two_times.columns());
    println!("floor: one thread           {}", one_times.columns());
    let ratio = |thousandths| gateway_times.us(thousandths) / two_times.us(thousandths);
    for (name, thousandths, target) in [("p50", 500, 1.15), ("p99.9", 999, 1.5)] {
        let got = ratio(thousandths);
        println!(
            "{name:<6} {got:.2}x of the two-thread floor, {:.2}x of one thread   target <= {target}x: {}",
            gateway_times.us(thousandths) / one_times.us(thousandths),
            verdict(got <= target)
        );
    }
    println!("frames that did not come or a trip of the gateway: {lost}");
    rig.end();
}

/// The default mode: how old the newest command is when its frame leaves, and how even the period is.
fn cyclic(bus: &str, real_time: bool, frames: usize) {
    let period = Duration::from_millis(20);
    println!("\nsend = \"cyclic\", period 20 ms; messages every 10 ms");
    println!("                              {HEAD}");
    for loaded in [false, true] {
        let mut rig = Rig::start(bus, real_time, &[], |config| {
            plain_steering(&mut config.plan);
            without_body(config);
        });
        rig.arm(PACE);
        let hogs = loaded.then(Hogs::start);
        let result = run_cyclic(&mut rig, frames, period);
        drop(hogs);
        let load = if loaded { "every core busy" } else { "unloaded" };
        println!("age of the command carried, {load:<15} {}", result.age.columns());
        println!("period jitter,              {load:<15} {}", result.jitter.columns());
        let target_us = period.as_secs_f64() * 1e6 / 2.0 + 1_000.0;
        let p50 = result.age.us(500);
        println!(
            "  age p50 {p50:.0} us, target <= {target_us:.0} us: {}; not the newest command: {} of {}; trips: {}",
            verdict(p50 <= target_us),
            result.not_newest,
            result.age.len(),
            result.trips
        );
        let jitter = result.jitter.us(999);
        let target = if loaded { "printed only".to_owned() } else { verdict(jitter <= JITTER_US).to_owned() };
        println!("  jitter p99.9 {jitter:.0} us, target <= {JITTER_US:.0} us unloaded: {target}");
        rig.end();
    }
}

/// What the cyclic run measured.
struct Cyclic {
    age: Samples,
    jitter: Samples,
    not_newest: usize,
    trips: usize,
}

fn run_cyclic(rig: &mut Rig, frames: usize, period: Duration) -> Cyclic {
    let mut result = Cyclic {
        age: Samples::with_capacity(frames),
        jitter: Samples::with_capacity(frames),
        not_newest: 0,
        trips: 0,
    };
    let mut written: Vec<(i64, Instant)> = Vec::new();
    let mut last = None;
    let mut i = 0;
    rig.drain_bus();
    let mut next = clock::now();
    let drive = rig.drive;
    while result.age.len() < frames {
        let now = clock::now();
        if now >= next {
            // Not in step with the period, or the age would be the same each time.
            next = now + PACE + Duration::from_micros(u64::try_from(i % 7).unwrap() * 100);
            let steps = wanted(i);
            i += 1;
            rig.pad.axes[0] = stick_for(steps);
            let at = rig.send();
            written.push((steps, at));
            rig.tend();
            if written.len() > 100 {
                written.drain(..50);
            }
        }
        let Some(seen) = rig.wait_frame(next.since(clock::now()), |frame| frame.id() == drive.id) else {
            continue;
        };
        if !drive.is_enabled(&seen.frame) {
            result.trips += 1;
            rig.arm(PACE);
            (last, next) = (None, clock::now());
            written.clear();
            continue;
        }
        let steps = drive.steps(&seen.frame);
        let Some(place) = written.iter().position(|(of, _)| *of == steps) else { continue };
        result.age.push(seen.at.since(written[place].1));
        // Half a millisecond on its way through two threads is no command left behind.
        let newer =
            written[place + 1..].iter().any(|(_, at)| seen.at.since(*at) > Duration::from_micros(500));
        result.not_newest += usize::from(newer);
        if let Some(before) = last.replace(seen.at) {
            let gap: Duration = seen.at.since(before);
            result.jitter.push(gap.abs_diff(period));
        }
    }
    result
}

/// The lights are sent too in the example; here they would only add frames that nobody looks at.
fn without_body(config: &mut Config) {
    config.plan.send.retain(|send| send.name == "DRIVE_CMD");
}

/// A steering value for message `i` that differs from those around it: 7 is no divisor of 8,001.
fn wanted(i: usize) -> i64 {
    i64::try_from(i * 7 % 8_001).unwrap() - 4_000
}

/// Sleeps until then.
fn rest(until: Instant) {
    let left = until.since(clock::now());
    if !left.is_zero() {
        std::thread::sleep(left);
    }
}

/// The least a program can do: read the bytes, hand them on or not, write the frame.
struct Floor {
    id: Id,
    stream: TcpStream,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// As large as the gateway's command, so that the same bytes go through the channel.
type Parcel = [u8; size_of::<ocpcan::topology::Demand>()];

impl Floor {
    fn start(bus: &str, id: Id, real_time: bool, hop: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nodelay(true).unwrap();
        let (mut reading, _) = listener.accept().unwrap();
        // The gateway's own way of opening the socket that it writes to.
        let options = PortOptions {
            accept: Accept::Only(vec![id]),
            errors: true,
            own_messages: true,
            priority6: true,
            ..PortOptions::default()
        };
        let address: BusAddress = bus.parse().unwrap();
        let port = Port::open(&address, &options).unwrap();
        let frame = Frame::data(id, &[0x5A; 8]).unwrap();
        let write = move || {
            port.try_send(&frame).unwrap();
            // Its echo of the time before.
            while matches!(port.recv(None), Ok(Some(_))) {}
        };
        let mut threads = Vec::new();
        let mut deliver: Box<dyn FnMut() + Send> = if hop {
            let (tx, rx) = crossbeam_channel::bounded::<Parcel>(COMMAND_DEPTH);
            let body = move || {
                priority(real_time, 45);
                while rx.recv().is_ok() {
                    write();
                }
            };
            threads.push(std::thread::spawn(body));
            Box::new(move || {
                let _ = tx.try_send([7; size_of::<Parcel>()]);
            })
        } else {
            Box::new(write)
        };
        let body = move || {
            priority(real_time, 40);
            let mut buffer = vec![0; FRAME];
            while reading.read(&mut buffer).is_ok_and(|n| n > 0) {
                deliver();
            }
        };
        threads.push(std::thread::spawn(body));
        Self { id, stream, threads }
    }

    /// Writes one message and returns the time just before.
    fn write(&mut self, bytes: &[u8]) -> Instant {
        let at = clock::now();
        self.stream.write_all(bytes).unwrap();
        at
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn priority(real_time: bool, priority: i32) {
    if real_time {
        let _ = sys::set_fifo_priority(priority);
    }
}
