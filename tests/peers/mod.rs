//! What the tunnel's test and bench share: both peers (Python's tcpcan, unmodified, and our own program, unmodified) on
//! buses that this machine's kernel need not have, a load that checks every frame, and a link with delay and loss.
//!
//! Owns the processes it starts and ends them. Relies on cc for the three C programs beside this file, on a Python with
//! tcpcan 0.0.2 (`OCPCAN_PYTHON`, set by `tests/run`), and for the link on namespaces and /dev/net/tun. Never judges.

#![allow(dead_code, reason = "the test and the bench each use a part of this")]
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it starts processes, waits with deadlines, and a missing peer ends the test"
)]

use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The start of Python, or of anything on a loaded machine, takes seconds.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Which program is at an end of the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// tcpcan 0.0.2.
    Python,
    /// `ocpcan tcpcan`.
    Ours,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Python => "Python",
            Self::Ours => "ours",
        })
    }
}

/// The C programs, compiled once.
struct Programs {
    fakecan: PathBuf,
    canload: PathBuf,
    delaylink: PathBuf,
}

fn programs() -> &'static Programs {
    static BUILT: OnceLock<Programs> = OnceLock::new();
    BUILT.get_or_init(|| {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers");
        std::fs::create_dir_all(&folder).unwrap();
        let build = |name: &str, flags: &[&str]| {
            // Test and bench may run side by side: built under a name of its own, then moved.
            let own = folder.join(format!("{name}.{}", std::process::id()));
            let built = Command::new("cc")
                .args(["-O2", "-Wall", "-Wextra", "-Werror", "-o"])
                .arg(&own)
                .arg(sources.join(format!("{name}.c")))
                .args(flags)
                .status()
                .expect("cc, the C compiler");
            assert!(built.success(), "{name}.c does not compile");
            let path = folder.join(name);
            std::fs::rename(own, &path).unwrap();
            path
        };
        Programs {
            fakecan: build("fakecan", &["-shared", "-fPIC", "-ldl"]),
            canload: build("canload", &["-pthread"]),
            delaylink: build("delaylink", &[]),
        }
    })
}

/// The Python that has tcpcan; checked once.
fn python() -> &'static str {
    static FOUND: OnceLock<String> = OnceLock::new();
    FOUND.get_or_init(|| {
        let python = std::env::var("OCPCAN_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let ask = "import importlib.metadata as m, tcpcan; print(m.version('tcpcan'))";
        let said = Command::new(&python).args(["-c", ask]).output().expect("a Python");
        let version = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        assert_eq!(version, "0.0.2", "{python} needs tcpcan 0.0.2; set OCPCAN_PYTHON, or use tests/run");
        python
    })
}

/// A started program whose lines are kept; killed when dropped.
pub struct Program {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Arc<(Mutex<Lines>, Condvar)>,
}

#[derive(Default)]
struct Lines {
    text: Vec<String>,
    open: usize,
}

impl Program {
    pub fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let lines = Arc::new((Mutex::new(Lines { open: 2, ..Lines::default() }), Condvar::new()));
        let readers: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for reader in readers {
            let lines = Arc::clone(&lines);
            std::thread::spawn(move || {
                for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
                    lines.0.lock().unwrap().text.push(String::from_utf8_lossy(&line).into_owned());
                    lines.1.notify_all();
                }
                lines.0.lock().unwrap().open -= 1;
                lines.1.notify_all();
            });
        }
        let input = child.stdin.take();
        Self { name: name.to_owned(), child, input, lines }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.0.lock().unwrap().text.clone()
    }

    /// Waits for a line that the condition takes, from line `from` on.
    pub fn wait_line(&self, from: usize, within: Duration, what: &str, is: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + within;
        let mut lines = self.lines.0.lock().unwrap();
        loop {
            if let Some(line) = lines.text.iter().skip(from).find(|line| is(line)) {
                return line.clone();
            }
            let left = until.saturating_duration_since(Instant::now());
            let is_over = left.is_zero() || lines.open == 0;
            assert!(!is_over, "{}: no line {what:?}; it said:\n{}", self.name, lines.text.join("\n"));
            lines = self.lines.1.wait_timeout(lines, left).unwrap().0;
        }
    }

    pub fn say(&mut self, line: &str) {
        writeln!(self.input.as_mut().expect("its stdin"), "{line}")
            .unwrap_or_else(|e| panic!("{}: {e}", self.name));
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Its exit status if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end.
    pub fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        until(within, || self.child.try_wait().unwrap())
    }

    /// Waits for its end, and for the last of its lines.
    pub fn finish(&mut self, within: Duration) -> ExitStatus {
        let status = self.wait(within);
        let status = status.unwrap_or_else(|| panic!("{} goes on; it said {:?}", self.name, self.lines()));
        until(PATIENCE, || (self.lines.0.lock().unwrap().open == 0).then_some(()));
        status
    }

    /// SIGTERM, then the end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        self.finish(PATIENCE)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first value that `ask` gives, asked every 2 ms.
pub fn until<T>(within: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + within;
    loop {
        let value = ask();
        if value.is_some() || Instant::now() >= end {
            return value;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A folder with buses in it; or none, and the buses are the kernel's.
#[derive(Debug)]
pub struct Buses {
    folder: Option<PathBuf>,
}

impl Buses {
    pub fn new() -> Self {
        if std::env::var_os("OCPCAN_BENCH_KERNEL").is_some() {
            return Self { folder: None };
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // A socket's path is 107 bytes at most, so not below target/.
        let folder = std::env::temp_dir().join(format!("ocpcan-buses-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self { folder: Some(folder) }
    }

    /// The load; the buses exist from here on.
    pub fn load(&self, arguments: &[&str]) -> Program {
        let mut command = Command::new(&programs().canload);
        command.args(arguments);
        if let Some(folder) = &self.folder {
            command.env("FAKECAN_DIR", folder);
        }
        let load = Program::start("canload", &mut command);
        load.wait_line(0, PATIENCE, "listening", |line| line == "listening");
        load
    }

    /// An end of the tunnel, under the shim; `place` puts it on a link.
    pub fn peer(&self, peer: Peer, place: Option<u32>, arguments: &[&str]) -> Program {
        let words: Vec<&str> = match peer {
            Peer::Python => vec![python(), "-c", "import tcpcan; tcpcan.main()"],
            Peer::Ours => vec![env!("CARGO_BIN_EXE_ocpcan"), "tcpcan"],
        };
        let mut command = placed(place, &words);
        command.args(arguments);
        if let Some(folder) = &self.folder {
            command.env("FAKECAN_DIR", folder).env("LD_PRELOAD", &programs().fakecan);
        }
        Program::start(&format!("{peer} {}", arguments.join(" ")), &mut command)
    }
}

impl Drop for Buses {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// A command in the namespace of a process.
fn placed(place: Option<u32>, words: &[&str]) -> Command {
    let Some(pid) = place else {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        return command;
    };
    let mut command = Command::new("nsenter");
    if !nix::unistd::geteuid().is_root() {
        command.arg(format!("--user=/proc/{pid}/ns/user")).arg("--preserve-credentials");
    }
    command.arg(format!("--net=/proc/{pid}/ns/net")).args(words);
    command
}

/// Two namespaces joined by a link.
pub struct Link {
    program: Program,
    pub a: u32,
    pub b: u32,
}

impl Link {
    /// Address of A, where the servers are.
    pub const SERVER: &'static str = "10.77.0.1";

    pub fn new(rtt_ms: u32, loss_percent: u32) -> Self {
        let mut command = Command::new(&programs().delaylink);
        command.args(["--rtt-ms", &rtt_ms.to_string(), "--loss-percent", &loss_percent.to_string()]);
        let program = Program::start("delaylink", &mut command);
        let said = program.wait_line(0, PATIENCE, "a PID b PID", |line| line.starts_with("a "));
        let pids: Vec<u32> = said.split(' ').filter_map(|word| word.parse().ok()).collect();
        Self { program, a: pids[0], b: pids[1] }
    }

    /// Lets nothing through, both ways; what is on its way is lost.
    pub fn cut(&mut self) {
        self.program.say("cut");
        self.program.wait_line(0, PATIENCE, "cut", |line| line == "cut");
    }

    pub fn mend(&mut self) {
        self.program.say("mend");
        self.program.wait_line(0, PATIENCE, "mend", |line| line == "mend");
    }
}

/// A port that nobody uses now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// One direction of a load, as canload tells it.
#[derive(Debug, Clone)]
pub struct Flow(pub Value);

impl Flow {
    pub fn count(&self, key: &str) -> u64 {
        self.0.get(key).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {key} in {}", self.0))
    }

    pub fn number(&self, key: &str) -> f64 {
        self.0.get(key).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {key} in {}", self.0))
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}>{} sent {} lost {} doubled {} late {} corrupt {}, p50 {:.0} p99 {:.0} max {:.0} us",
            self.0["from"].as_str().unwrap_or_default(),
            self.0["to"].as_str().unwrap_or_default(),
            self.count("sent"),
            self.count("lost"),
            self.count("doubled"),
            self.count("late"),
            self.count("corrupt"),
            self.number("p50_us"),
            self.number("p99_us"),
            self.number("max_us"),
        )
    }
}

/// The directions of a load that has ended.
pub fn flows(load: &Program) -> Vec<Flow> {
    load.lines()
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(Value::is_object)
        .map(Flow)
        .collect()
}

/// Two buses, joined by a server on the first and a client on the second.
pub struct Joined {
    pub load: Program,
    pub server: Program,
    pub client: Program,
    _buses: Buses,
}

impl Joined {
    /// Starts all of it and waits until frames come through; the load waits for [`Joined::go`].
    pub fn new(server: Peer, client: Peer, link: Option<&Link>, load: &[&str], ours: &[&str]) -> Self {
        let buses = Buses::new();
        let load = buses.load(&[load, &["--hold", "ca", "cb"]].concat());
        let port = free_port().to_string();
        let host = link.map_or("127.0.0.1", |_| Link::SERVER);
        let extra = |peer: Peer| if peer == Peer::Ours { ours } else { &[] };
        let open: &[&str] =
            if link.is_some() && server == Peer::Ours { &["--allow", "10.77.0.0/24"] } else { &[] };
        let arguments = [&["ca", "--serve", "--host", host, "--port", &port], open, extra(server)].concat();
        let server = buses.peer(server, link.map(|link| link.a), &arguments);
        let arguments = [&["cb", "--host", host, "--port", &port], extra(client)].concat();
        let client = buses.peer(client, link.map(|link| link.b), &arguments);
        load.wait_line(0, PATIENCE, "ready", |line| line == "ready");
        Self { load, server, client, _buses: buses }
    }

    pub fn go(&mut self) {
        self.load.say("go");
        self.load.wait_line(0, PATIENCE, "go", |line| line == "go");
    }

    /// Waits for the end of the load.
    pub fn flows(&mut self) -> Vec<Flow> {
        let status = self.load.finish(Duration::from_secs(180));
        assert!(status.success(), "canload: {status}; it said {:?}", self.load.lines());
        flows(&self.load)
    }
}

/// The counters that our program told from line `from` on: reason and number.
pub fn counters(program: &Program, from: usize) -> std::collections::BTreeMap<String, u64> {
    let mut counters = std::collections::BTreeMap::new();
    for line in program.lines().iter().skip(from) {
        if let Some((number, reason)) =
            line.split_once("counted: ").and_then(|(_, counted)| counted.split_once(' '))
            && let Ok(number) = number.parse()
        {
            counters.insert(reason.to_owned(), number);
        }
    }
    counters
}
