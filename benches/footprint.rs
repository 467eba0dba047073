//! What the installed program costs: from exec to the first frame on the bus, and resident memory after five seconds of
//! messages.
//!
//! Owns the started processes. Relies on the real binary and the example configuration, on a built-in bus that this
//! process hosts. Never judges by exit status.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench waits and ends where its program does not start"
)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ocpcan::can::Id;
use ocpcan::io::canbus::{Accept, BusAddress, Hub, Port, PortOptions};
use ocpcan::io::clock;
use ocpcan::proto::ocp::server::ControlOut;
use support::samples::{Samples, verdict};

/// Resident memory in the vehicle role, KiB.
const RSS_KIB: u64 = 6 * 1024;

/// First safe frame after exec; 100 ms of it are spent listening for other writers.
const FIRST_FRAME_MS: f64 = 200.0;

/// The example's actuator frame.
const DRIVE_CMD: u32 = 0x101;

fn main() {
    let starts = support::number("OCPCAN_BENCH_N", 30).clamp(1, 200);
    println!("the program {}; {}", env!("CARGO_BIN_EXE_ocpcan"), support::machine());
    let folder = std::env::temp_dir().join(format!("ocpcan-footprint-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let bus = format!("foot{}", std::process::id() % 10_000);
    let hub = Hub::start(&bus.parse().unwrap()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = write_config(&folder, &bus, listener.local_addr().unwrap().port());
    let address: BusAddress = format!("sim:{bus}").parse().unwrap();
    let accept = Accept::Only(vec![Id::standard(DRIVE_CMD).unwrap()]);
    let port = Port::open(&address, &PortOptions { accept, ..PortOptions::default() }).unwrap();

    let mut first = Samples::with_capacity(starts);
    for _ in 0..starts {
        while matches!(port.recv(None), Ok(Some(_))) {}
        let begin = clock::now();
        let child = start(&config, &folder);
        let frame = port.recv(Some(Duration::from_secs(10))).unwrap().expect("a frame within ten seconds");
        first.push(frame.at.since(begin));
        end(child);
    }
    let p50 = first.us(500) / 1e3;
    let most = first.us(1_000) / 1e3;
    println!(
        "exec to first frame: p50 {p50:.1} ms, max {most:.1} ms (n={starts}), target <= {FIRST_FRAME_MS} ms: {}",
        verdict(most <= FIRST_FRAME_MS)
    );

    let child = start(&config, &folder);
    let messages = talk(&listener, Duration::from_secs(5));
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let kib = |key: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    let (rss, own, threads) = (kib("VmRSS:"), kib("RssAnon:"), kib("Threads:"));
    println!(
        "resident after 5 s and {messages} messages: {rss} KiB (own pages {own} KiB, {threads} threads), \
         target <= {RSS_KIB} KiB: {}",
        verdict(rss <= RSS_KIB)
    );
    end(child);
    let size = std::fs::metadata(env!("CARGO_BIN_EXE_ocpcan")).map_or(0, |meta| meta.len() / 1024);
    println!("binary on this host: {size} KiB (the target of 3 MiB is for aarch64, stripped)");
    drop(hub);
    let _ = std::fs::remove_dir_all(&folder);
}

/// The example with another bus and port.
fn write_config(folder: &Path, bus: &str, port: u16) -> std::path::PathBuf {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let text = std::fs::read_to_string(deploy.join("ocpcan.example.toml")).unwrap();
    let changed = text
        .replace("interface = \"can0\"", &format!("interface = \"sim:{bus}\""))
        .replace("127.0.0.1:4000", &format!("127.0.0.1:{port}"));
    assert_ne!(text, changed);
    std::fs::copy(deploy.join("example.dbc"), folder.join("example.dbc")).unwrap();
    let path = folder.join("ocpcan.toml");
    std::fs::write(&path, changed).unwrap();
    path
}

fn start(config: &Path, folder: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_ocpcan"))
        .args(["run", "--config"])
        .arg(config)
        .env("RUNTIME_DIRECTORY", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Ends it as a service manager does, and waits.
fn end(mut child: Child) {
    let _ = kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM);
    let _ = child.wait();
}

/// Plays the OCP server at its own pace.
fn talk(listener: &TcpListener, time: Duration) -> u64 {
    // Connections of the earlier starts are still in the queue.
    listener.set_nonblocking(true).unwrap();
    let until = clock::now() + time;
    let mut stream: Option<std::net::TcpStream> = None;
    let mut answer = vec![0; 64 << 10];
    let mut messages = 0;
    while clock::now() < until {
        while let Ok((newer, _)) = listener.accept() {
            newer.set_nonblocking(true).unwrap();
            stream = Some(newer);
        }
        if let Some(stream) = &mut stream {
            messages += 1;
            let frame = ControlOut {
                ack_time: clock::now().as_millis().into(),
                client_user_data: serde_json::json!({ "counter": messages, "headlights": true }).into(),
                ..ControlOut::default()
            }
            .frame();
            let _ = stream.write_all(&frame);
            while stream.read(&mut answer).is_ok_and(|n| n > 0) {}
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    messages
}
