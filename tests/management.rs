//! The management plane of real processes: what `ocpcan status`, `ocpcan rcsp` and `ocpcan check --json` say of a running
//! gateway and of the demo.
//!
//! Relies on the built-in bus. Never judges how fast a busy machine is: what the demo itself tells at its end is compared
//! with what the status showed meanwhile.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test: it starts processes, waits with deadlines and fails by panicking"
)]

#[path = "common/programs.rs"]
mod programs;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::sys::signal::Signal;
use programs::{Folder, Program};
use serde_json::Value;

const EXAMPLE: &str = include_str!("../deploy/ocpcan.example.toml");
const EXAMPLE_DBC: &str = include_str!("../deploy/example.dbc");

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Runs a command to its end.
fn ocpcan(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ocpcan")).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The example on a bus of its own, asked at this port.
fn config(folder: &Path, bus: &str, port: u16) -> PathBuf {
    let text = EXAMPLE
        .replace("interface = \"can0\"", &format!("interface = \"sim:{bus}-{}\"", std::process::id()))
        .replace("# listen = \"127.0.0.1:45451\"", &format!("listen = \"127.0.0.1:{port}\""))
        .replace("address = \"127.0.0.1:4000\"", &format!("address = \"127.0.0.1:{}\"", free_port()));
    let path = folder.join(format!("{bus}.toml"));
    std::fs::write(&path, text).unwrap();
    std::fs::write(folder.join("example.dbc"), EXAMPLE_DBC).unwrap();
    path
}

#[test]
fn the_status_shows_each_fault_of_the_demo_as_it_happens() {
    let folder = Folder::new("management-demo");
    let bus = format!("sim:md{}", std::process::id());
    let mut demo = Program::ocpcan(&["demo", "--seconds", "40", "--bus", &bus], &folder.0);
    let port = demo.wait(0, "where it can be asked", |line| {
        line.split_once("ocpcan status --watch --port ").map(|(_, port)| port.trim().to_owned())
    });
    let mut watch = Program::ocpcan(&["status", "--watch", "--port", &port], &folder.0);
    // The demo's own table: what was injected, and what the gateway told as its cause.
    let first = demo.wait(0, "a fault", |line| line.contains("fault injected: ").then(|| line.to_owned()));
    println!("{first}");
    // Its own time, and then it prints the table.
    let status = demo.ended();
    println!("demo: {status}");
    let table = demo.output();
    let (_, table) = table.split_once("told as").unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.ends_with("ok") || line.ends_with("MISSED"))
        .map(|line| line.split("  ").map(str::trim).filter(|word| !word.is_empty()).collect())
        .collect();
    assert!(rows.len() >= 3, "{table}");
    let shown = watch.output();
    let mut from = 0;
    for row in &rows {
        let cause = format!("({})", row[1]);
        let at = shown[from..].find(&cause);
        assert!(at.is_some(), "{row:?} is not shown after the one before: {}", &shown[from..]);
        from += at.unwrap();
    }
    watch.wait(0, "that nobody answers", |line| line.starts_with("ocpcan: ").then_some(()));
    watch.signal(Signal::SIGINT);
    assert_eq!(watch.ended().code(), Some(69), "the last look found nobody");
}

#[test]
fn a_gateway_answers_from_its_first_second_and_leaves_its_port_to_the_next() {
    let folder = Folder::new("management-run");
    let port = free_port();
    let (one, two) = (config(&folder.0, "m1", port), config(&folder.0, "m2", port));
    let asked = port.to_string();
    let mut first = Program::ocpcan(&["run", "--config", one.to_str().unwrap()], &folder.0);
    first
        .wait(0, "that it can be asked", |line| line.contains("RCSP: `ocpcan status` can ask").then_some(()));
    let second = Program::ocpcan(&["run", "--config", two.to_str().unwrap()], &folder.0);
    second.wait(0, "that nobody can ask", |line| line.contains("nobody can ask this gateway").then_some(()));
    let status = ocpcan(&["status", "--port", &asked]);
    assert_eq!(status.status.code(), Some(1), "{}", text(&status));
    assert!(text(&status).contains("ocp_down"), "{}", text(&status));
    // What runs is what the file says.
    let told = ocpcan(&["rcsp", "call", "GwGetConfig", "--port", &asked, "--json"]);
    let told: Value = serde_json::from_slice(&told.stdout).unwrap_or_else(|_| panic!("{told:?}"));
    let checked = ocpcan(&["check", "--json", "--config", one.to_str().unwrap()]);
    let checked: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(told["Config"], checked);
    assert_eq!(told["Digest"], checked["digest"]);
    assert_eq!(checked["rcsp"]["listen"], format!("127.0.0.1:{port}"));
    assert_eq!(checked["send"]["DRIVE_CMD"]["signals"]["THROTTLE_CMD"]["kind"], "throttle");
    let status = first.terminate();
    assert_eq!(status.code(), Some(0));
    second
        .wait(0, "that it can be asked", |line| line.contains("RCSP: `ocpcan status` can ask").then_some(()));
    let list = ocpcan(&["rcsp", "list", "--port", &asked]);
    assert!(text(&list).contains("send:DRIVE_CMD"), "{}", text(&list));
}

#[test]
fn a_gateway_that_is_switched_off_for_questions_answers_none() {
    let folder = Folder::new("management-off");
    let port = free_port();
    let path = config(&folder.0, "m3", port);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("# enabled = true ", "enabled = false ")).unwrap();
    let gateway = Program::ocpcan(&["run", "--config", path.to_str().unwrap()], &folder.0);
    gateway.wait(0, "its first state", |line| line.contains("INIT -> SAFE").then_some(()));
    assert!(!gateway.output().contains("RCSP"), "{}", gateway.output());
    assert_eq!(ocpcan(&["status", "--port", &port.to_string()]).status.code(), Some(69));
}
