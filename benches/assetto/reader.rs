//! The readers of the bench, each in a process of its own behind a UDP socket on loopback, and what one made of a stream.
//!
//! Owns the processes, the sender, and what the kernel counts of each: processor time, memory, datagrams that found the
//! receive buffer full. Relies on `acudpclient_reader.py`, on the installed program, and on this bench's own binary, which
//! is the reader without JSON. Never sets a receive buffer: each reader has the system's default, as its users have it.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::hint::black_box;
use std::io::{BufRead as _, BufReader};
use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ocpcan::io::clock;
use ocpcan::proto::assetto::Decoder;

use crate::stream::Stream;

/// The start of Python, or of anything on a loaded machine, takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// The word that makes this bench's binary a reader.
pub const ROLE: &str = "receive";

/// Larger than any message.
const DATAGRAM_MAX: usize = 8_192;

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// acudpclient's events.
    Acudpclient,
    /// The library's events, in this bench's own binary.
    Ours,
    /// acudpclient's events as JSON lines.
    AcudpclientJson,
    /// `ocpcan assetto`, which prints JSON lines.
    OursJson,
}

/// In the order in which they are measured and shown.
pub const READERS: [Reader; 4] =
    [Reader::Acudpclient, Reader::Ours, Reader::AcudpclientJson, Reader::OursJson];

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Acudpclient => "acudpclient",
            Self::Ours => "ours",
            Self::AcudpclientJson => "acudpclient, JSON lines",
            Self::OursJson => "ocpcan assetto",
        })
    }
}

/// How fast the stream is played.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// Each datagram when it is due.
    Due,
    /// As fast as the sender can, again from the begin until so much time is over.
    FlatOut(Duration),
}

/// What became of a stream.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Datagrams that were sent.
    pub sent: u64,
    /// Datagrams that found the receive buffer full.
    pub lost: u64,
    /// From the first datagram to the empty receive buffer, in seconds.
    pub took_s: f64,
    /// Processor time of the reader for each datagram that it took, user and system, in microseconds.
    pub cpu_us: f64,
    /// Resident memory at the end, KiB.
    pub rss_kib: u64,
    /// Events that the reader counted; only those count that say so.
    pub events: Option<u64>,
    /// Exceptions of the reader, or datagrams that it did not understand.
    pub errors: u64,
}

impl Outcome {
    /// Datagrams that the reader took.
    pub const fn taken(&self) -> u64 {
        self.sent - self.lost
    }
}

/// A reader that listens.
struct Running {
    reader: Reader,
    child: Child,
    said: Receiver<String>,
    port: u16,
}

impl Running {
    fn start(reader: Reader, python: &str, output: Stdio) -> Self {
        let mut command = match reader {
            Reader::Acudpclient | Reader::AcudpclientJson => {
                let mut command = super::script(python);
                command.arg("receive").args((reader == Reader::AcudpclientJson).then_some("--json"));
                command
            }
            Reader::Ours => {
                let mut command = Command::new(std::env::current_exe().expect("this binary"));
                command.arg(ROLE);
                command
            }
            Reader::OursJson => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_ocpcan"));
                command.args(["assetto", "--listen", "127.0.0.1:0"]);
                command
            }
        };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{reader} does not start: {error}"));
        let (say, said) = channel();
        let errors = BufReader::new(child.stderr.take().expect("piped"));
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                let _ = say.send(line);
            }
        });
        let mut running = Self { reader, child, said, port: 0 };
        running.port = running.wait("its port", |line| {
            let port = line.split_once("ready ").or_else(|| line.split_once("UDP 127.0.0.1:"))?.1;
            port.split([' ', ';']).next()?.parse().ok()
        });
        running
    }

    /// The first line from now on for which `found` has an answer.
    fn wait<T>(&self, what: &str, found: impl Fn(&str) -> Option<T>) -> T {
        let (end, mut lines) = (clock::now() + PATIENCE, Vec::new());
        loop {
            let Ok(line) = self.said.recv_timeout(end.since(clock::now())) else {
                panic!("{} does not say {what}; it said\n{}", self.reader, lines.join("\n"));
            };
            if let Some(answer) = found(&line) {
                return answer;
            }
            lines.push(line);
        }
    }

    /// Processor time of all threads so far, in microseconds.
    fn cpu_us(&self) -> f64 {
        let tasks =
            std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("a process that runs");
        tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
            .filter_map(|text| text.split(' ').next()?.parse::<f64>().ok())
            .sum::<f64>()
            / 1e3
    }

    fn rss_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
    }

    /// Waits until the reader has taken what waits for it; the datagrams that were lost before.
    fn drained(&self) -> u64 {
        let end = clock::now() + PATIENCE;
        loop {
            let (waiting, lost) = socket_counts(self.port).expect("the reader's socket");
            if waiting == 0 {
                return lost;
            }
            assert!(clock::now() < end, "{} does not take what waits for it", self.reader);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends it as its user does; the events it counted and its errors.
    fn end(mut self) -> (Option<u64>, u64) {
        let counts = if self.reader == Reader::OursJson {
            kill(Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")), Signal::SIGTERM)
                .expect("a signal");
            None
        } else {
            drop(self.child.stdin.take());
            let told: serde_json::Value = self.wait("its counts", |line| serde_json::from_str(line).ok());
            Some((told["events"].as_u64().expect("a count"), told["errors"].as_u64().expect("a count")))
        };
        assert!(self.child.wait().expect("a process").success(), "{} ended with an error", self.reader);
        // `ocpcan: datagrams of an unknown type: 15`
        let complaints = self.said.try_iter().filter_map(|line| {
            line.contains("datagrams ").then(|| line.rsplit(' ').next()?.parse::<u64>().ok())?
        });
        let not_understood = complaints.sum();
        counts.map_or((None, not_understood), |(events, errors)| (Some(events), errors))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended is no longer there.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes that wait in the UDP socket on this port, and datagrams that it lost, as the kernel counts them.
fn socket_counts(port: u16) -> Option<(u64, u64)> {
    let table = std::fs::read_to_string("/proc/net/udp").ok()?;
    let ending = format!(":{port:04X}");
    // `sl local remote st tx:rx tr:when retransmits uid timeout inode references pointer drops`
    let row =
        table.lines().find(|row| row.split_whitespace().nth(1).is_some_and(|at| at.ends_with(&ending)))?;
    let columns: Vec<&str> = row.split_whitespace().collect();
    let waiting = u64::from_str_radix(columns.get(4)?.split_once(':')?.1, 16).ok()?;
    Some((waiting, columns.last()?.parse().ok()?))
}

/// The receive buffer of a socket for which nothing was set, in bytes.
pub fn default_buffer() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/net/core/rmem_default").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Plays the stream to a new reader. What it prints goes into the file, or nowhere.
pub fn play(reader: Reader, python: &str, stream: &Stream, pace: Pace, lines: Option<&Path>) -> Outcome {
    let output = lines.map_or_else(Stdio::null, |path| File::create(path).expect("a file").into());
    let running = Running::start(reader, python, output);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a loopback port");
    socket.connect(("127.0.0.1", running.port)).expect("an address");
    let send = |datagram: &[u8]| {
        socket.send(datagram).unwrap_or_else(|error| panic!("{reader} does not listen any more: {error}"));
    };
    let cpu_before = running.cpu_us();
    let begin = clock::now();
    let mut sent = 0;
    match pace {
        Pace::Due => {
            for (at, datagram) in stream.timed() {
                let wait = (begin + at).since(clock::now());
                if !wait.is_zero() {
                    std::thread::sleep(wait);
                }
                send(datagram);
                sent += 1;
            }
        }
        Pace::FlatOut(time) => loop {
            for datagram in stream.datagrams() {
                send(datagram);
                sent += 1;
            }
            if clock::now().since(begin) >= time {
                break;
            }
        },
    }
    let lost = running.drained();
    let took_s = clock::now().since(begin).as_secs_f64();
    let cpu_us = (running.cpu_us() - cpu_before) / super::float(sent - lost).max(1.0);
    let rss_kib = running.rss_kib();
    let (events, errors) = running.end();
    Outcome { sent, lost, took_s, cpu_us, rss_kib, events, errors }
}

/// The reader without JSON, until its stdin ends: the same turns as acudpclient's, wait and then take what is there.
pub fn receive() -> ExitCode {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a loopback port");
    socket.set_nonblocking(true).expect("a flag");
    eprintln!("ready {}", socket.local_addr().expect("bound").port());
    let mut bytes = [0; DATAGRAM_MAX];
    let mut decoder = Decoder::default();
    let stdin = std::io::stdin();
    loop {
        let mut fds = [&socket.as_fd(), &stdin.as_fd()].map(|fd| PollFd::new(*fd, PollFlags::POLLIN));
        poll(&mut fds, PollTimeout::NONE).expect("two descriptors");
        let [has_datagrams, has_ended] = fds.map(|fd| fd.any().unwrap_or(false));
        while let Ok(len) = socket.recv(&mut bytes) {
            if let Ok(event) = decoder.handle_datagram(&bytes[..len]) {
                super::read_all(&black_box(event));
            }
        }
        if has_ended && !has_datagrams {
            break;
        }
    }
    let counts = decoder.counters();
    let errors = counts.unknown + counts.short + counts.empty;
    eprintln!("{}", serde_json::json!({ "events": counts.events, "errors": errors }));
    ExitCode::SUCCESS
}

/// The interpreter with the reader in Python; what counts its allocations stands in front of it.
pub fn preloaded(python: &str, library: &Path) -> Command {
    let mut command = super::script(python);
    let preload: OsString = library.into();
    command.env("LD_PRELOAD", preload).env("PYTHONMALLOC", "malloc");
    command
}
