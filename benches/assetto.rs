//! Assetto Corsa's datagrams, 30 cars at 60 Hz, beside Python's acudpclient on the same machine and the same stream:
//! datagrams per second, allocations, processor time, loss, and which events were told.
//!
//! Owns the scenarios and the tables. Relies on `assetto/`: the recorded stream, the readers, and acudpclient 1.1.0 as it
//! is, in a Python that has it (`OCPCAN_PYTHON`, set by `tests/run`), without which it fails. Never judges speed by its
//! exit status.
//!
//! `OCPCAN_BENCH_N` is the number of runs (median and worst are shown), `OCPCAN_BENCH_SEED` another race. An allocation is
//! a call of the allocator that asks for memory, new or longer, counted in the same way on both sides. Ours reads every
//! text and every place of a message, because acudpclient has done so when its event is there.

#![allow(unsafe_code, reason = "a counting allocator is the only witness of allocations")]
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench starts programs, waits and ends where its peers do not start"
)]

#[path = "assetto/reader.rs"]
mod reader;
#[path = "assetto/stream.rs"]
mod stream;
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use ocpcan::io::clock;
use ocpcan::proto::assetto::{Connection, Decoder, Event, Text};
use reader::{Outcome, Pace, READERS, Reader, play};
use stream::{CARS, RATE_HZ, Stream};

/// How long a reader is flooded.
const FLOOD: Duration = Duration::from_secs(3);

/// Bursts of the paced part: ten seconds.
const PACED_BURSTS: u32 = 10 * RATE_HZ;

/// What is compared with.
const VERSION: &str = "1.1.0";

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes on to the system's allocator unchanged; the count is a plain cell of the thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(reader::ROLE) {
        return reader::receive();
    }
    let python = std::env::var("OCPCAN_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let python_version = match acudpclient(&python) {
        Ok(version) => version,
        Err(why) => {
            eprintln!("assetto: {why}");
            return ExitCode::FAILURE;
        }
    };
    let runs = support::number("OCPCAN_BENCH_N", 3).max(1);
    let seed = u64::try_from(support::number("OCPCAN_BENCH_SEED", 1)).unwrap();
    let folder = std::env::temp_dir().join(format!("ocpcan-assetto-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();

    let stream = Stream::record(seed);
    println!(
        "assetto: ocpcan against acudpclient {VERSION} on Python {python_version}; {}",
        support::machine()
    );
    let kinds: Vec<String> = stream.kinds().iter().map(|(name, count)| format!("{count} {name}")).collect();
    println!(
        "{CARS} cars at {RATE_HZ} Hz, seed {seed}: {} datagrams of {:.0} s: {}",
        stream.len(),
        stream.recorded().as_secs_f64(),
        kinds.join(", ")
    );
    println!("{runs} runs each: median, and the worst in brackets");
    in_memory(&python, &stream, runs, &folder);
    flat_out(&python, &stream, runs);
    let paced = stream.last_bursts(PACED_BURSTS);
    at_its_pace(&python, &paced, runs);
    told(&python, &stream, &paced, seed, &folder);
    let _ = std::fs::remove_dir_all(&folder);
    ExitCode::SUCCESS
}

/// The version of the interpreter, if it has the package.
fn acudpclient(python: &str) -> Result<String, String> {
    let remedy = format!(
        "set OCPCAN_PYTHON to a Python that has acudpclient {VERSION} (python3 -m venv VENV && \
         VENV/bin/pip install acudpclient=={VERSION}), or use that of tests/run (target/venv/bin/python)"
    );
    let said =
        script(python).arg("version").output().map_err(|error| format!("{python}: {error}; {remedy}"))?;
    let text = String::from_utf8_lossy(&said.stdout);
    match text.trim().split_once(' ') {
        Some((VERSION, version)) => Ok(version.to_owned()),
        Some((other, _)) => Err(format!("{python} has acudpclient {other}; {remedy}")),
        None => {
            let errors = String::from_utf8_lossy(&said.stderr);
            let last = errors.lines().last().unwrap_or("it says nothing");
            Err(format!("{python} has no acudpclient ({last}); {remedy}"))
        }
    }
}

/// The interpreter with the reader in Python.
fn script(python: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/assetto/acudpclient_reader.py");
    let mut command = Command::new(python);
    command.arg(path).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// A count as a number to divide with.
#[allow(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^53")]
const fn float(count: u64) -> f64 {
    count as f64
}

/// Median and worst of figures of which the largest is the worst.
fn spread(values: impl IntoIterator<Item = f64>) -> (f64, f64) {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[values.len() - 1])
}

/// Decoding alone: the datagrams are in memory.
fn in_memory(python: &str, stream: &Stream, runs: usize, folder: &Path) {
    println!("\nin memory                     ns/datagram         datagrams/s   allocations/datagram");
    let file = folder.join("stream");
    stream.save(&file);
    let answer = |command: &mut Command| -> serde_json::Value {
        let said = command.output().expect("Python");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        serde_json::from_slice(&said.stdout).expect("its counts")
    };
    let took = answer(script(python).arg("decode").arg(&file).arg(runs.to_string()));
    let made = answer(reader::preloaded(python, &counter(folder)).arg("allocations").arg(&file));
    assert_eq!(took["datagrams"], stream.len());
    let count = float(u64::try_from(stream.len()).unwrap());
    let theirs = |times: &str, calls: &str| {
        let times: Vec<f64> =
            took[times].as_array().unwrap().iter().map(|ns| ns.as_f64().unwrap() / count).collect();
        (spread(times), made[calls].as_f64().unwrap() / count)
    };
    let show = |name: &str, ((median, worst), allocations): ((f64, f64), f64)| {
        println!(
            "{name:<24} {:>18} {:>18.0} {allocations:>18.2}",
            format!("{median:.0} ({worst:.0})"),
            1e9 / median
        );
        median
    };
    let python_ns = show("acudpclient, events", theirs("events_ns", "events"));
    let our_ns = show("ours, events", measure(stream, runs, read_all));
    show("acudpclient, JSON", theirs("json_ns", "json"));
    show("ours, JSON", measure(stream, runs, |event| drop(black_box(event.to_json().to_string()))));
    println!("    ours decodes {:.0} times as many datagrams per second", python_ns / our_ns);
}

/// Our decoder over the stream: nanoseconds and allocations per datagram.
fn measure(stream: &Stream, runs: usize, mut read: impl FnMut(&Event<'_>)) -> ((f64, f64), f64) {
    let count = float(u64::try_from(stream.len()).unwrap());
    let mut times = Vec::with_capacity(runs);
    let mut allocations = 0;
    // The first round finds nothing in the caches, and is not shown.
    for round in 0..=runs {
        let mut decoder = Decoder::default();
        let before = COUNT.with(Cell::get);
        let begin = clock::now();
        for datagram in stream.datagrams() {
            if let Ok(event) = decoder.handle_datagram(datagram) {
                read(&black_box(event));
            }
        }
        let took = clock::now().since(begin);
        allocations = COUNT.with(Cell::get) - before;
        assert_eq!(decoder.counters().events, u64::try_from(stream.len()).unwrap());
        if round > 0 {
            times.push(took.as_secs_f64() * 1e9 / count);
        }
    }
    (spread(times), float(allocations) / count)
}

/// Reads every field of an event: texts and places stay in the datagram until somebody asks for them.
fn read_all(event: &Event<'_>) {
    let texts = |texts: &[Text<'_>]| texts.iter().flat_map(|text| text.chars()).map(u64::from).sum::<u64>();
    let who = |who: &Connection<'_>| texts(&[who.driver_name, who.driver_guid, who.car_model, who.car_skin]);
    black_box(match event {
        Event::NewSession(session) | Event::SessionInfo(session) => texts(&[
            session.server_name,
            session.track_name,
            session.track_config,
            session.name,
            session.weather_graph,
        ]),
        Event::NewConnection(connection)
        | Event::ConnectionClosed(connection)
        | Event::EarlyCarInfo(connection) => who(connection),
        Event::CarInfo(info) => {
            texts(&[info.car_model, info.car_skin, info.driver_name, info.driver_team, info.driver_guid])
        }
        Event::EndSession { filename: text }
        | Event::Chat { message: text, .. }
        | Event::Error { message: text } => texts(&[*text]),
        Event::LapCompleted(lap) => lap.cars.cars().map(|car| u64::from(car.rtime)).sum(),
        Event::CarUpdate(_) | Event::ClientEvent(_) | Event::Version { .. } | Event::ClientLoaded { .. } => 0,
    });
}

/// The library that counts Python's allocations, compiled.
fn counter(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/assetto/count_allocations.c");
    let library = folder.join("count_allocations.so");
    let built = Command::new("cc")
        .args(["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(source)
        .status()
        .expect("cc, the C compiler");
    assert!(built.success(), "count_allocations.c does not compile");
    library
}

/// All readers in turn, so many times: what else the machine does meets all of them.
fn outcomes(python: &str, stream: &Stream, pace: Pace, runs: usize) -> Vec<(Reader, Vec<Outcome>)> {
    let mut all: Vec<(Reader, Vec<Outcome>)> =
        READERS.map(|reader| (reader, Vec::with_capacity(runs))).into();
    for _ in 0..runs {
        for (reader, outcomes) in &mut all {
            outcomes.push(play(*reader, python, stream, pace, None));
        }
    }
    all
}

/// What is wrong with the counts of a reader, in words; nothing where each datagram taken is one event.
fn remark(outcomes: &[Outcome]) -> String {
    let differ = |outcome: &&Outcome| outcome.events.is_some_and(|events| events != outcome.taken());
    let mut text = String::new();
    if let Some(outcome) = outcomes.iter().find(differ) {
        text.push_str(&format!("  {} events of {} datagrams", outcome.events.unwrap(), outcome.taken()));
    }
    let errors: u64 = outcomes.iter().map(|outcome| outcome.errors).sum();
    if errors > 0 {
        text.push_str(&format!("  {errors} errors"));
    }
    text
}

/// More than any reader takes.
fn flat_out(python: &str, stream: &Stream, runs: usize) {
    println!(
        "\nUDP, flat out for {} s; receive buffer {} bytes, the system's default",
        FLOOD.as_secs(),
        reader::default_buffer()
    );
    println!(
        "                                 sent/s    taken/s             lost %       CPU us/datagram   RSS KiB"
    );
    for (reader, outcomes) in outcomes(python, stream, Pace::FlatOut(FLOOD), runs) {
        let of = |figure: fn(&Outcome) -> f64| spread(outcomes.iter().map(figure));
        let (sent, _) = of(|o| float(o.sent) / o.took_s);
        let (taken, _) = of(|o| float(o.taken()) / o.took_s);
        let (lost, worst_lost) = of(|o| float(o.lost) / float(o.sent) * 100.0);
        let (cpu, worst_cpu) = of(|o| o.cpu_us);
        let (rss, _) = of(|o| float(o.rss_kib));
        println!(
            "{reader:<28} {sent:>10.0} {taken:>10.0} {:>18} {:>21} {rss:>9.0}{}",
            format!("{lost:.1} ({worst_lost:.1})"),
            format!("{cpu:.2} ({worst_cpu:.2})"),
            remark(&outcomes)
        );
    }
}

/// As a server sends it: a burst of all cars, 60 times a second.
fn at_its_pace(python: &str, paced: &Stream, runs: usize) {
    println!(
        "\nUDP, {} positions/s in bursts of {CARS}, {} datagrams in {} s",
        u32::from(CARS) * RATE_HZ,
        paced.len(),
        PACED_BURSTS / RATE_HZ
    );
    println!(
        "                                 sent/s         lost       CPU us/datagram   % of a core   RSS KiB"
    );
    for (reader, outcomes) in outcomes(python, paced, Pace::Due, runs) {
        let of = |figure: fn(&Outcome) -> f64| spread(outcomes.iter().map(figure));
        let (sent, _) = of(|o| float(o.sent) / o.took_s);
        let (lost, worst_lost) = of(|o| float(o.lost));
        let (cpu, worst_cpu) = of(|o| o.cpu_us);
        let (core, _) = of(|o| o.cpu_us * float(o.taken()) / o.took_s / 1e4);
        let (rss, _) = of(|o| float(o.rss_kib));
        println!(
            "{reader:<28} {sent:>10.0} {:>12} {:>21} {core:>13.1} {rss:>9.0}{}",
            format!("{lost:.0} ({worst_lost:.0})"),
            format!("{cpu:.2} ({worst_cpu:.2})"),
            remark(&outcomes)
        );
    }
}

/// Every event that was told, against the recorded stream; runs of their own, because the lines go into a file.
fn told(python: &str, stream: &Stream, paced: &Stream, seed: u64, folder: &Path) {
    println!(
        "\nevents told; errors are exceptions of acudpclient, and datagrams that ocpcan counts as not understood"
    );
    println!("                                                 right    wrong  missing     lost   errors");
    let (extended, extensions) = paced.with_extensions(seed);
    let with_extensions = format!("paced, {extensions} datagrams of an extension");
    let lines = folder.join("lines");
    for (name, stream, pace) in [
        ("paced", paced, Pace::Due),
        (&with_extensions, &extended, Pace::Due),
        ("flat out, once", stream, Pace::FlatOut(Duration::ZERO)),
    ] {
        let truth = stream.truth();
        println!("{name}");
        for reader in [Reader::AcudpclientJson, Reader::OursJson] {
            let outcome = play(reader, python, stream, pace, Some(&lines));
            let text = std::fs::read_to_string(&lines).unwrap();
            let judged = truth.judge(text.lines());
            println!(
                "    {reader:<40} {:>9} {:>8} {:>8} {:>8} {:>8}",
                judged.right, judged.wrong, judged.missing, outcome.lost, outcome.errors
            );
        }
    }
}
