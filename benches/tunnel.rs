//! A CAN bus over TCP: ours against Python's tcpcan, in the same run and under the same driver.
//!
//! Owns the two buses (local sockets that a preload library gives to both programs as CAN interfaces, see
//! `tests/peers/fakecan.c`), the frames with their stamps, and the printed table. Relies on the release program, a C
//! compiler, and a Python with tcpcan 0.0.2 (`OCPCAN_PYTHON`; `tests/run prepare` makes one in target/venv); what is missing is
//! said and left out. Never judges by exit status: figures of a shared machine are figures.
//!
//! `OCPCAN_BENCH_S` is the length of one run in seconds, `OCPCAN_BENCH_LOAD` a word of the loads to run.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench starts programs and threads, waits, and ends where they do not come up"
)]

mod support;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use ocpcan::io::{clock, sys};
use ocpcan::time::Instant;
use support::samples::Samples;

/// Two programs and two buses come up within this, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(20);

/// A frame that has not come this long after the last one was sent is lost.
const LOST: Duration = Duration::from_millis(700);

/// Which program stands at an end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    Ours,
    Python,
}

impl Peer {
    const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ocpcan",
            Self::Python => "Python",
        }
    }
}

/// What is sent.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    /// Frames a second; 0 is as many as are taken.
    per_s: u64,
    /// 16 or 72 bytes a frame.
    bytes: usize,
    /// Frames that are sent together.
    burst: u64,
}

const LOADS: [Load; 5] = [
    Load { name: "1,000/s", per_s: 1_000, bytes: 16, burst: 1 },
    Load { name: "8,000/s", per_s: 8_000, bytes: 16, burst: 1 },
    Load { name: "20,000/s", per_s: 20_000, bytes: 16, burst: 1 },
    Load { name: "FD64 7,200/s", per_s: 7_200, bytes: 72, burst: 8 },
    Load { name: "saturated", per_s: 0, bytes: 16, burst: 64 },
];

/// A bus: where a program's CAN socket connects to.
struct Bus {
    listener: OwnedFd,
}

impl Bus {
    fn new(folder: &Path, name: &str) -> Self {
        let listener =
            socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(&folder.join(name)).unwrap()).unwrap();
        listen(&listener, Backlog::new(8).unwrap()).unwrap();
        Self { listener }
    }

    /// The next program that opens this bus.
    fn accept(&self) -> Option<OwnedFd> {
        ready(self.listener.as_fd(), PollFlags::POLLIN, PATIENCE)
            .then(|| sys::accept(self.listener.as_fd()).unwrap())
    }
}

fn ready(fd: std::os::fd::BorrowedFd<'_>, events: PollFlags, wait: Duration) -> bool {
    let wait = PollTimeout::try_from(wait).unwrap();
    poll(&mut [PollFd::new(fd, events)], wait).is_ok_and(|n| n > 0)
}

/// A program that is killed when the bench is done with it.
struct Program(Child);

impl Program {
    /// Processor time so far, user and system.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
        Duration::from_millis((ticks(11) + ticks(12)) * 10) // the usual 100 ticks a second
    }

    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS"));
        line.and_then(|l| l.split_whitespace().nth(1)).and_then(|n| n.parse().ok()).unwrap_or(0)
    }

    fn is_running(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|status| status.is_none())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What both programs need.
struct Stage {
    folder: PathBuf,
    shim: PathBuf,
    python: Option<PathBuf>,
}

impl Stage {
    /// `Err` says what is missing.
    fn new() -> Result<Self, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = std::env::temp_dir().join(format!("ocpcan-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
        let (source, shim) = (root.join("tests/peers/fakecan.c"), folder.join("fakecan.so"));
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&shim).arg(&source).arg("-ldl");
        let built = compiler.status().map_err(|e| format!("cc: {e}"))?;
        if !built.success() {
            return Err(format!("{} does not compile", source.display()));
        }
        let python = std::env::var_os("OCPCAN_PYTHON")
            .map_or_else(|| root.join("target/venv/bin/python"), PathBuf::from);
        let has = Command::new(&python).args(["-c", "import tcpcan"]).stderr(Stdio::null()).status();
        let python = has.is_ok_and(|status| status.success()).then_some(python);
        Ok(Self { folder, shim, python })
    }

    fn start(&self, peer: Peer, bus: &str, port: u16, serve: bool) -> Program {
        let mut command = match peer {
            Peer::Ours => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_ocpcan"));
                command.arg("tcpcan");
                command
            }
            Peer::Python => {
                let mut command = Command::new(self.python.as_ref().unwrap());
                command.args(["-c", "import sys, tcpcan; sys.argv[0] = 'tcpcan'; sys.exit(tcpcan.main())"]);
                command
            }
        };
        command.arg(bus).args(["--port", &port.to_string()]);
        if serve {
            command.arg("--serve");
        }
        command.env("LD_PRELOAD", &self.shim).env("FAKECAN_DIR", &self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Program(command.spawn().unwrap())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What one run showed.
struct Run {
    sent: u64,
    received: u64,
    disordered: u64,
    took: Duration,
    latency: Samples,
    cpu: Duration,
    resident_kib: u64,
    died: bool,
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The frame's own number and stamp: bytes 8 to 15, whatever its kind.
fn stamp(frame: &mut [u8; 72], number: u64, now: Instant) {
    let number = u32::try_from(number & 0xFFFF_FFFF).unwrap();
    let us = u32::try_from(now.as_micros() & 0xFFFF_FFFF).unwrap();
    frame[8..12].copy_from_slice(&number.to_le_bytes());
    frame[12..16].copy_from_slice(&us.to_le_bytes());
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().unwrap())
}

/// Server on one bus, client on the other; frames go from the server's bus to the client's.
fn run(stage: &Stage, peers: (Peer, Peer), load: Load, length: Duration) -> Option<Run> {
    let names = [
        format!("a{}", clock::now().as_micros() % 100_000_000),
        format!("b{}", clock::now().as_micros() % 100_000_000),
    ];
    let (bus_a, bus_b) = (Bus::new(&stage.folder, &names[0]), Bus::new(&stage.folder, &names[1]));
    let port = free_port();
    let mut server = stage.start(peers.0, &names[0], port, true);
    let mut client = stage.start(peers.1, &names[1], port, false);
    let (Some(from), Some(to)) = (bus_a.accept(), bus_b.accept()) else { return None };
    let sent = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    // Number of the first frame that counts; none of the warm-up does.
    let first = Arc::new(AtomicU64::new(u64::MAX));
    let receiver = {
        let (first, done) = (Arc::clone(&first), Arc::clone(&done));
        std::thread::spawn(move || receive(&to, load, &first, &done))
    };
    warm_up(&from, load, &sent);
    let cpu = server.cpu() + client.cpu();
    let began = clock::now();
    let before = sent.load(Ordering::Acquire);
    first.store(before, Ordering::Release);
    drive(&from, load, length, &sent);
    let took = clock::now().since(began);
    done.store(true, Ordering::Release);
    let (received, disordered, latency) = receiver.join().unwrap();
    let cpu = (server.cpu() + client.cpu()).saturating_sub(cpu);
    let resident_kib = server.resident_kib().max(client.resident_kib());
    let died = !server.is_running() || !client.is_running();
    let sent = sent.load(Ordering::Acquire) - before;
    Some(Run { sent, received, disordered, took, latency, cpu, resident_kib, died })
}

/// Both programs have agreed and found their pace after this.
const WARM_UP: Duration = Duration::from_secs(2);

/// A frame now and then.
fn warm_up(from: &OwnedFd, load: Load, sent: &AtomicU64) {
    let until = clock::now() + WARM_UP;
    while clock::now() < until {
        put(from, load, 1, sent);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends `count` frames; what the bus does not take now is waited for.
fn put(from: &OwnedFd, load: Load, count: u64, sent: &AtomicU64) -> bool {
    let mut frames = [[0_u8; 72]; sys::MANY];
    let lengths = [load.bytes; sys::MANY];
    let count = usize::try_from(count).unwrap().min(sys::MANY);
    let number = sent.load(Ordering::Relaxed);
    let now = clock::now();
    for (index, frame) in frames.iter_mut().take(count).enumerate() {
        frame[..4].copy_from_slice(&0x123_u32.to_le_bytes());
        frame[4] = if load.bytes == 72 { 64 } else { 8 };
        stamp(frame, number + index as u64, now);
    }
    let mut taken = 0;
    while taken < count {
        match sys::send_many(from.as_fd(), &frames[taken..count], &lengths[taken..count]) {
            Ok(more) => {
                taken += more;
                sent.fetch_add(more as u64, Ordering::Release);
            }
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::ENOBUFS) => {
                if !ready(from.as_fd(), PollFlags::POLLOUT, Duration::from_secs(2)) {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
    true
}

/// Sends at the load's pace for that long.
fn drive(from: &OwnedFd, load: Load, length: Duration, sent: &AtomicU64) {
    let began = clock::now();
    let mut bursts = 0_u64;
    while clock::now().since(began) < length {
        let due_ns = (1_000_000_000 * load.burst * bursts).checked_div(load.per_s);
        if let Some(due_ns) = due_ns {
            let left = (began + Duration::from_nanos(due_ns)).since(clock::now());
            if left > Duration::from_micros(60) {
                // The kernel adds its own 50 us of slack.
                std::thread::sleep(left - Duration::from_micros(60));
            }
        }
        bursts += 1;
        if !put(from, load, load.burst, sent) {
            return;
        }
    }
}

/// Reads until everything that was sent has come, or nothing more comes. Counts what was sent after the warm-up only.
fn receive(to: &OwnedFd, load: Load, first: &AtomicU64, done: &AtomicBool) -> (u64, u64, Samples) {
    let mut buffers = [[0_u8; 72]; sys::MANY];
    let mut lengths = [0; sys::MANY];
    let mut latency = Samples::default();
    let (mut received, mut disordered) = (0, 0);
    let mut expected: Option<u32> = None;
    let mut last = clock::now();
    loop {
        if !ready(to.as_fd(), PollFlags::POLLIN, Duration::from_millis(50)) {
            if done.load(Ordering::Acquire) && clock::now().since(last) > LOST {
                return (received, disordered, latency);
            }
            continue;
        }
        let Ok(many) = sys::receive_many(to.as_fd(), &mut buffers, &mut lengths) else {
            return (received, disordered, latency);
        };
        if lengths.first() == Some(&0) {
            // The program has closed the bus: it has died.
            return (received, disordered, latency);
        }
        let now = clock::now();
        last = now;
        for frame in buffers.iter().zip(&lengths).take(many.count).map(|(frame, length)| &frame[..*length]) {
            if frame.len() != load.bytes {
                disordered += 1;
                continue;
            }
            let (number, us) = (word(&frame[8..12]), word(&frame[12..16]));
            disordered += u64::from(expected.is_some_and(|e| number < e));
            expected = Some(number.wrapping_add(1));
            if u64::from(number) < first.load(Ordering::Acquire) {
                continue;
            }
            received += 1;
            let now_us = u32::try_from(now.as_micros() & 0xFFFF_FFFF).unwrap();
            latency.push(Duration::from_micros(now_us.wrapping_sub(us).into()));
        }
    }
}

fn main() {
    println!("{}", support::machine());
    let stage = match Stage::new() {
        Ok(stage) => stage,
        Err(why) => {
            println!("the tunnel bench did not run: {why}");
            return;
        }
    };
    let length = Duration::from_secs(support::number("OCPCAN_BENCH_S", 4) as u64);
    if stage.python.is_none() {
        println!("no Python with tcpcan: run `tests/run prepare` first; ours alone is measured");
    }
    println!(
        "{:<14} {:<17} {:>9} {:>7} {:>8} {:>8} {:>8} {:>9} {:>8}",
        "load", "server > client", "frames/s", "lost", "p50 us", "p99 us", "p99.9", "CPU us/fr", "RSS KiB"
    );
    let pairs = [(Peer::Python, Peer::Python), (Peer::Ours, Peer::Ours)];
    let only = std::env::var("OCPCAN_BENCH_LOAD").unwrap_or_default();
    for load in LOADS.into_iter().filter(|load| load.name.contains(&only)) {
        for pair in pairs {
            if stage.python.is_none() && pair.0 == Peer::Python {
                continue;
            }
            let name = format!("{} > {}", pair.0.name(), pair.1.name());
            match run(&stage, pair, load, length) {
                None => println!("{:<14} {name:<17} did not come up", load.name),
                Some(run) => print_run(load, &name, &run),
            }
        }
    }
    println!(
        "targets (ours): 8,000/s p50 <= 50 us, p99 <= 110 us, CPU <= 25 us/frame; saturated >= 400,000/s, none lost"
    );
}

fn print_run(load: Load, name: &str, run: &Run) {
    let lost = run.sent.saturating_sub(run.received);
    let per_s = run.received as f64 / run.took.as_secs_f64();
    let cpu = run.cpu.as_secs_f64() * 1e6 / (run.received.max(1) as f64);
    let died = if run.died { "  A PROGRAM DIED" } else { "" };
    let disordered =
        if run.disordered > 0 { format!("  {} out of order", run.disordered) } else { String::new() };
    println!(
        "{:<14} {name:<17} {per_s:>9.0} {lost:>7} {:>8.0} {:>8.0} {:>8.0} {cpu:>9.1} {:>8}{disordered}{died}",
        load.name,
        run.latency.us(500),
        run.latency.us(990),
        run.latency.us(999),
        run.resident_kib
    );
}
