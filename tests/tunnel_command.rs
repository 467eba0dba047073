//! `ocpcan tcpcan` as a user meets it: what it refuses, with which exit code and in which words.
//!
//! Relies on the real binary and on built-in buses. What frames do is tested elsewhere.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests start programs and wait for their lines"
)]

use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ocpcan::can::{Frame, Id};
use ocpcan::io::canbus::{Port, PortOptions};

/// A program that says nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

const USAGE: i32 = 64;
const UNAVAILABLE: i32 = 69;

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocpcan"));
    command.arg("tcpcan").args(args).stdin(Stdio::null());
    command
}

/// Runs to the end: these command lines end by themselves.
fn run(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

fn refused(args: &[&str], code: i32) -> String {
    let output = run(args);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    text
}

/// A tunnel that goes on, until it is dropped.
struct Running {
    child: Child,
    lines: BufReader<ChildStderr>,
    /// Without this it is killed after [`PATIENCE`], and its lines end.
    _alive: Sender<()>,
}

impl Running {
    fn start(args: &[&str]) -> Self {
        Self::from(command(args))
    }

    /// With 16 descriptors: its own, and a few peers.
    fn start_short(args: &[&str]) -> Self {
        let program = env!("CARGO_BIN_EXE_ocpcan");
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 16; exec \"$@\"", "sh", program, "tcpcan"]).args(args);
        Self::from(command)
    }

    fn from(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap());
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let (alive, ended) = channel::<()>();
        std::thread::spawn(move || {
            if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        Self { child, lines, _alive: alive }
    }

    /// Reads lines up to one with this text; the end of the program is a failure.
    fn wait_line(&mut self, wanted: &str) -> String {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "it ended without {wanted:?}: {all}");
            if line.contains(wanted) {
                return line;
            }
            all += &line;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bus(name: &str) -> String {
    format!("sim:{name}{}", std::process::id() % 100_000)
}

/// Free now; whoever takes it in between makes the test fail, not pass.
fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

#[test]
fn more_filters_than_the_kernel_takes_are_a_mistake_of_the_command_line() {
    let filters = |count: u32| (0..count).map(|n| format!("{n:X}:7FF")).collect::<Vec<_>>().join(",");
    let text = refused(&[&bus("tcf"), "--serve", "--port", "0", "--filter", &filters(513)], USAGE);
    assert!(text.contains("512"), "{text}");
    let mut running =
        Running::start(&[&bus("tcf"), "--serve", "--port", "0", "--filter", &filters(512), "-v"]);
    running.wait_line("listening");
}

#[test]
fn an_interface_that_is_no_bus_is_refused_at_once() {
    let text = refused(&["lo", "--serve", "--port", "0"], UNAVAILABLE);
    assert!(text.contains("not a CAN interface"), "{text}");
    refused(&["lo", "--port", &free_port()], UNAVAILABLE);
}

#[test]
fn the_second_caller_of_one_bus_to_one_server_is_refused() {
    let (bus, other, port) = (bus("tca"), bus("tcb"), free_port());
    let mut first = Running::start(&[&bus, "--host", "127.0.0.1", "--port", &port]);
    first.wait_line("trying again");
    for host in ["127.0.0.1", "localhost", "::1"] {
        let text = refused(&[&bus, "--host", host, "--port", &port], UNAVAILABLE);
        assert!(text.contains("without end") && text.contains(&bus), "{host}: {text}");
    }
    let mut second = Running::start(&[&other, "--host", "127.0.0.1", "--port", &port]);
    second.wait_line("trying again");
}

#[test]
fn a_caller_on_its_own_servers_bus_is_refused_whichever_came_first() {
    let (bus, port) = (bus("tcs"), free_port());
    // It waits for a server, and one comes on its own bus.
    let mut early = Running::start(&[&bus, "--port", &port]);
    early.wait_line("trying again");
    let mut server = Running::start(&[&bus, "--serve", "--port", &port, "-v"]);
    server.wait_line("listening");
    early.wait_line("this very bus");
    assert_eq!(early.child.wait().unwrap().code(), Some(UNAVAILABLE));
    for host in ["localhost", "127.0.0.1"] {
        let text = refused(&[&bus, "--host", host, "--port", &port], UNAVAILABLE);
        assert!(text.contains("this very bus"), "{host}: {text}");
    }
}

#[test]
fn a_server_without_a_descriptor_left_says_so_and_goes_on() {
    let (name, port) = (bus("tcn"), free_port());
    let mut server =
        Running::start_short(&[&name, "--stats", "--serve", "--host", "127.0.0.1", "--port", &port, "-v"]);
    server.wait_line("listening");
    // While the program that plays the bus can still take it.
    let road = Port::open(&name.parse().unwrap(), &PortOptions::default()).unwrap();
    let callers: Vec<TcpStream> =
        (0..20).map(|_| TcpStream::connect(format!("127.0.0.1:{port}")).unwrap()).collect();
    let line = server.wait_line("can take no more connections");
    assert!(line.contains("Too many open files"), "{line}");
    // It looks at the lock of the bus, which needs a descriptor, just before it prints the numbers that changed.
    for _ in 0..2 {
        road.try_send(&Frame::data(Id::standard(0x123).unwrap(), &[]).unwrap()).unwrap();
        server.wait_line("frames of the bus while no peer was connected");
    }
    drop(callers);
    let mut next = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    std::io::Write::write_all(&mut next, b"v\x04\0\0\0\x01").unwrap();
    // The number, not the line: after so many comings and goings within a second the line may be one that is not told.
    server.wait_line("connections agreed");
}

#[test]
fn a_server_that_agrees_and_closes_is_told_of_once() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port().to_string();
    let mut caller = Running::start(&[&bus("tce"), "--host", "127.0.0.1", "--port", &port]);
    server.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + PATIENCE;
    for _ in 0..5 {
        let (mut stream, _) = loop {
            match server.accept() {
                Ok(taken) => break taken,
                Err(error) => assert!(Instant::now() < deadline, "no call: {error}"),
            }
            std::thread::yield_now();
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut version = [0; 6];
        std::io::Read::read_exact(&mut stream, &mut version).unwrap();
        std::io::Write::write_all(&mut stream, &version).unwrap();
    }
    drop(server);
    let mut lines = Vec::new();
    loop {
        lines.push(caller.wait_line(""));
        if lines.last().unwrap().contains("trying again") {
            break;
        }
    }
    let ended = lines.iter().filter(|line| line.contains("connection ended")).count();
    // The last one may have been reset by the end of its listener.
    assert!((1..=2).contains(&ended), "{lines:?}");
}
