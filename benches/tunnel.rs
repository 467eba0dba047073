//! The tunnel against Python's tcpcan in the same run: frames/s, loss, latency from the payload's own stamp, processor time
//! and system calls per frame, memory.
//!
//! Owns the scenarios. Relies on `tests/peers/`: both programs as they are, on buses that need no kernel CAN, and one load
//! that checks every frame and reads one clock. Processor time is user and system of both ends, not of the load, which
//! shares the cores. Never judges by exit status, and never shows the latency of a run that lost frames.
//!
//! `OCPCAN_BENCH_N` is the number of runs per scenario (median and worst are shown), `OCPCAN_BENCH_ONLY` a part of a
//! scenario's name. With `OCPCAN_BENCH_KERNEL=1` the buses are the kernel interfaces `ca` and `cb` (vcan), and
//! `OCPCAN_BENCH_SLOWER` divides every rate (an emulated machine). System calls need strace; without it they are left out;
//! `OCPCAN_BENCH_CALLS=1` lists them by name.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench starts programs, waits and ends where its peers do not start"
)]

#[path = "../tests/peers/mod.rs"]
mod peers;
mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use peers::{Flow, Joined, Link, Peer, Program};
use support::samples::verdict;

/// What is sent, and how.
struct Scenario {
    name: &'static str,
    /// Frames a second; 0 is as fast as they are taken.
    rate: u32,
    count: u32,
    kind: &'static str,
    burst: u32,
    /// On a link of this round trip; none is loopback.
    rtt_ms: Option<u32>,
}

const fn scenario(name: &'static str, rate: u32, count: u32) -> Scenario {
    Scenario { name, rate, count, kind: "classic", burst: 1, rtt_ms: None }
}

/// DESIGN's rates: a slow bus, a full one, two and a half; the saturated rows show back-pressure.
const SCENARIOS: [Scenario; 10] = [
    scenario("1,000/s", 1_000, 3_000),
    scenario("8,000/s", 8_000, 24_000),
    scenario("20,000/s", 20_000, 60_000),
    Scenario { burst: 8, ..scenario("8,000/s in bursts of 8", 8_000, 24_000) },
    Scenario { kind: "fd64", ..scenario("FD64 7,200/s", 7_200, 21_600) },
    scenario("saturated", 0, 1_000_000),
    Scenario { kind: "fd64", ..scenario("FD64 saturated", 0, 500_000) },
    Scenario { rtt_ms: Some(1), ..scenario("RTT 1 ms, 8,000/s", 8_000, 24_000) },
    Scenario { rtt_ms: Some(10), ..scenario("RTT 10 ms, 8,000/s", 8_000, 24_000) },
    Scenario { rtt_ms: Some(40), ..scenario("RTT 40 ms, 8,000/s", 8_000, 24_000) },
];

/// Both ends of one run.
#[derive(Debug, Clone)]
struct Outcome {
    flow: Flow,
    cpu_us: f64,
    rss_kib: u64,
    died: u32,
}

fn main() {
    let runs = support::number("OCPCAN_BENCH_N", 3).max(1);
    let slower = u32::try_from(support::number("OCPCAN_BENCH_SLOWER", 1).max(1)).unwrap();
    let only = std::env::var("OCPCAN_BENCH_ONLY").unwrap_or_default();
    println!("tunnel: ocpcan tcpcan against Python tcpcan 0.0.2; {}", support::machine());
    println!(
        "{} runs each: median, and the worst in brackets; one way, 8 bytes unless said; latency in us",
        runs
    );
    println!(
        "{:<24} {:<7} {:>10} {:>16} {:>18} {:>20} {:>20} {:>14} {:>8}",
        "scenario", "", "frames/s", "lost", "p50", "p99", "p99.9", "CPU us/frame", "RSS KiB"
    );
    for scenario in SCENARIOS.iter().filter(|scenario| scenario.name.contains(&only)) {
        let mut shown = Vec::new();
        let mut outcomes = [Vec::new(), Vec::new()];
        for _ in 0..runs {
            // Taken in turn: what else the machine does meets both.
            for (peer, outcomes) in [Peer::Python, Peer::Ours].into_iter().zip(&mut outcomes) {
                outcomes.push(run(scenario, slower, peer));
            }
        }
        for (peer, outcomes) in [Peer::Python, Peer::Ours].into_iter().zip(&outcomes) {
            shown.push(show(scenario, peer, outcomes));
        }
        compare(scenario, &shown[0], &shown[1]);
    }
    if "outage of 15 s".contains(&only) {
        outage();
    }
    if "system calls".contains(&only) {
        system_calls(slower);
    }
}

fn run(scenario: &Scenario, slower: u32, peer: Peer) -> Outcome {
    let link = scenario.rtt_ms.map(|rtt_ms| Link::new(rtt_ms, 0));
    let (rate, count) = ((scenario.rate / slower).to_string(), (scenario.count / slower).to_string());
    let burst = scenario.burst.to_string();
    let mut load = vec!["--count", &count, "--kind", scenario.kind, "--burst", &burst, "--idle-ms", "1500"];
    if scenario.rate > 0 {
        load.extend(["--rate", &rate]);
    }
    let mut joined = Joined::new(peer, peer, link.as_ref(), &load, &[]);
    let before = [&joined.server, &joined.client].map(cpu_us);
    joined.go();
    let flow = joined.flows().swap_remove(0);
    let mut died = 0;
    let mut cpu = 0.0;
    let mut rss_kib = 0;
    for (program, before) in [&mut joined.server, &mut joined.client].into_iter().zip(before) {
        if program.ended().is_some() {
            died += 1;
        } else {
            cpu += cpu_us(program) - before;
            rss_kib += rss(program);
        }
    }
    let received = flow.number("received").max(1.0);
    Outcome { flow, cpu_us: cpu / received, rss_kib, died }
}

/// Processor time of all threads, in microseconds.
fn cpu_us(program: &Program) -> f64 {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", program.pid())) else { return 0.0 };
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<f64>().ok())
        .sum::<f64>()
        / 1e3
}

fn rss(program: &Program) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid())).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Median and worst of a figure.
fn spread(outcomes: &[Outcome], of: impl Fn(&Outcome) -> f64) -> (f64, f64) {
    let mut values: Vec<f64> = outcomes.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[values.len() - 1])
}

/// Prints one line; returns the medians of frames/s, p50, p99, CPU per frame, and the most that was lost.
fn show(scenario: &Scenario, peer: Peer, outcomes: &[Outcome]) -> [f64; 5] {
    let (lost, most_lost) = spread(outcomes, |o| o.flow.number("lost"));
    let died: u32 = outcomes.iter().map(|o| o.died).sum();
    let (fps, _) = spread(outcomes, |o| o.flow.number("fps"));
    let times = ["p50_us", "p99_us", "p999_us"].map(|key| spread(outcomes, |o| o.flow.number(key)));
    let (cpu, worst_cpu) = spread(outcomes, |o| o.cpu_us);
    let (rss, _) = spread(outcomes, |o| f64::from(u32::try_from(o.rss_kib).unwrap_or(u32::MAX)));
    let time = |(median, worst): (f64, f64)| {
        if most_lost > 0.0 { "-".to_owned() } else { format!("{median:.0} ({worst:.0})") }
    };
    let corrupt: u64 = outcomes
        .iter()
        .map(|o| ["corrupt", "doubled", "late"].iter().map(|key| o.flow.count(key)).sum::<u64>())
        .sum();
    println!(
        "{:<24} {:<7} {:>10.0} {:>16} {:>18} {:>20} {:>20} {:>14} {:>8.0}{}{}",
        scenario.name,
        peer,
        fps,
        format!("{lost:.0} ({most_lost:.0})"),
        time(times[0]),
        time(times[1]),
        time(times[2]),
        if died > 0 { "-".to_owned() } else { format!("{cpu:.1} ({worst_cpu:.1})") },
        rss,
        if died > 0 { format!("  {died} processes died") } else { String::new() },
        if corrupt > 0 { format!("  {corrupt} frames wrong") } else { String::new() },
    );
    [fps, times[0].0, times[1].0, cpu, most_lost]
}

/// What DESIGN.md section 9 asks for, beside what came.
fn compare(scenario: &Scenario, python: &[f64; 5], ours: &[f64; 5]) {
    let [fps, p50, p99, cpu, lost] = *ours;
    match scenario.name {
        "8,000/s" => {
            println!("    target p50 <= 50 us: {p50:.0}: {}", verdict(p50 <= 50.0 && lost == 0.0));
            println!("    target p99 <= 110 us: {p99:.0}: {}", verdict(p99 <= 110.0 && lost == 0.0));
            println!("    target CPU <= 25 us/frame: {cpu:.1}: {}", verdict(cpu <= 25.0));
        }
        "saturated" => {
            println!(
                "    target >= 400,000 frames/s, none lost: {fps:.0}, {lost:.0}: {}",
                verdict(fps >= 4e5 && lost == 0.0)
            );
            let part = cpu / python[3].max(f64::MIN_POSITIVE);
            println!("    target CPU <= 1/8 of Python's: 1/{:.1}: {}", 1.0 / part, verdict(part <= 0.125));
        }
        _ if scenario.rtt_ms.is_some() => {
            println!("    target none lost: {lost:.0}: {}", verdict(lost == 0.0))
        }
        _ => {}
    }
}

/// A dead link for 15 s at 500 frames/s.
fn outage() {
    for peer in [Peer::Python, Peer::Ours] {
        let mut link = Link::new(4, 0);
        // Python's kernel tries again 25 s after the cut, and what waited comes then.
        let load = ["--rate", "500", "--seconds", "32", "--age-limit-ms", "250", "--idle-ms", "3000"];
        let mut joined = Joined::new(peer, peer, Some(&link), &load, &[]);
        joined.go();
        std::thread::sleep(Duration::from_secs(2));
        link.cut();
        std::thread::sleep(Duration::from_secs(15));
        link.mend();
        let flow = joined.flows().swap_remove(0);
        let old = flow.count("old");
        println!(
            "outage of 15 s, 500/s    {peer:<7} lost {} of {}, delivered older than 250 ms {old}, oldest {:.3} s",
            flow.count("lost"),
            flow.count("sent"),
            flow.number("max_us") / 1e6
        );
        if peer == Peer::Ours {
            println!("    target no old frame: {old}: {}", verdict(old == 0));
        }
    }
}

/// System calls of both ends, in a run of their own: tracing slows a program.
fn system_calls(slower: u32) {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("system calls: strace is not here");
        return;
    }
    let rate = (2_000 / slower).to_string();
    for peer in [Peer::Python, Peer::Ours] {
        let load = ["--rate", &rate, "--seconds", "3", "--idle-ms", "1500"];
        let mut joined = Joined::new(peer, peer, None, &load, &[]);
        let mut traces = [&joined.server, &joined.client].map(|program| {
            let pid = program.pid().to_string();
            let trace = Program::start("strace", Command::new("strace").args(["-c", "-f", "-p", &pid]));
            trace.wait_line(0, peers::PATIENCE, "attached", |line| line.contains("attached"));
            trace
        });
        joined.go();
        let flow = joined.flows().swap_remove(0);
        let started = Instant::now();
        let calls: f64 = traces
            .iter_mut()
            .map(|trace| {
                trace.signal(nix::sys::signal::Signal::SIGINT);
                trace.finish(peers::PATIENCE);
                if std::env::var_os("OCPCAN_BENCH_CALLS").is_some() {
                    trace.lines().iter().for_each(|line| println!("    {line}"));
                }
                // `100.00    0.012345           1     12345       678 total`
                let total =
                    trace.lines().into_iter().find(|line| line.ends_with(" total")).unwrap_or_default();
                total.split_whitespace().nth(3).and_then(|n| n.parse::<f64>().ok()).unwrap_or(f64::NAN)
            })
            .sum();
        println!(
            "system calls, {rate}/s    {peer:<7} {:.1} per frame, both ends together ({} frames; traced, so slower; counted in {:?})",
            calls / flow.number("received").max(1.0),
            flow.count("received"),
            started.elapsed()
        );
    }
}
