//! Programs that a test starts as their user does: what they print, and `ocpcan sim ocp` with its control port.
//!
//! Owns each process until its value is dropped. Relies on the command line, the printed lines and the control port
//! alone. Never judges, and never waits without a deadline.

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it starts processes and threads, waits with deadlines, and a program that does not answer ends the test"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Longest wait for anything: the start of a program on a loaded machine takes seconds.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Time between two looks at what cannot be waited on.
const LOOK: Duration = Duration::from_millis(5);

/// Asks until the answer is there.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    until_or(what, &mut ask, String::new)
}

/// As [`until`]; what `why` says is shown where nothing came.
pub fn until_or<T>(what: &str, ask: &mut dyn FnMut() -> Option<T>, why: impl FnOnce() -> String) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "{what} did not happen; {}", why());
        std::thread::sleep(LOOK);
    }
}

/// What a program printed so far, on both outputs.
#[derive(Default)]
struct Printed {
    lines: Mutex<Vec<String>>,
    changed: Condvar,
}

/// A process that does not outlive its test.
pub struct Program {
    name: String,
    child: Child,
    printed: Arc<Printed>,
}

impl Program {
    /// Starts `ocpcan` with these arguments; its counters and lockout lie in `runtime`.
    pub fn ocpcan(arguments: &[&str], runtime: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ocpcan"));
        command.args(arguments).env("RUNTIME_DIRECTORY", runtime).env_remove("NOTIFY_SOCKET");
        Self::start(&format!("ocpcan {}", arguments.join(" ")), &mut command)
    }

    /// Starts a Python program of `tests/`.
    pub fn python(script: &str, arguments: &[&str]) -> Self {
        let python = std::env::var("OCPCAN_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let mut command = Command::new(python);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(script);
        command.arg(path).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1");
        Self::start(script, &mut command)
    }

    fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let printed = Arc::new(Printed::default());
        let outputs: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for output in outputs {
            let printed = Arc::clone(&printed);
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    printed.lines.lock().unwrap().push(line);
                    printed.changed.notify_all();
                }
            });
        }
        Self { name: name.to_owned(), child, printed }
    }

    /// How many lines there are: a place in what it prints.
    pub fn mark(&self) -> usize {
        self.printed.lines.lock().unwrap().len()
    }

    /// The first line from `mark` on for which `found` has an answer.
    pub fn wait<T>(&self, mark: usize, what: &str, found: impl Fn(&str) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        let mut lines = self.printed.lines.lock().unwrap();
        loop {
            if let Some(answer) = lines.iter().skip(mark).find_map(|line| found(line)) {
                return answer;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} does not print {what}; it said\n{}", self.name, lines.join("\n"));
            lines = self.printed.changed.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Everything it printed so far.
    pub fn output(&self) -> String {
        self.printed.lines.lock().unwrap().join("\n")
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// SIGKILL, as a crash would end it.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the status it ends with.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.ended()
    }

    /// The status it ends with.
    pub fn ended(&mut self) -> ExitStatus {
        let (name, child) = (&self.name, &mut self.child);
        until(&format!("the end of {name}"), || child.try_wait().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `ocpcan sim ocp` on ports of its own, and a connection to its control port.
pub struct Ocp {
    pub program: Program,
    /// Where a vehicle's client connects.
    pub vehicle: String,
    /// Where an operator's client connects.
    pub player: String,
    control: BufReader<TcpStream>,
}

impl Ocp {
    pub fn start(more: &[&str], runtime: &Path) -> Self {
        let any = "127.0.0.1:0";
        let mut arguments = vec!["sim", "ocp", "--listen", any, "--player", any, "--control", any];
        arguments.extend(more);
        let program = Program::ocpcan(&arguments, runtime);
        let address = |what: &str| program.wait(0, what, |line| line.strip_prefix(what).map(str::to_owned));
        let [vehicle, player, control] = ["listening on ", "player on ", "control on "].map(address);
        let control = TcpStream::connect(control).unwrap();
        control.set_nodelay(true).unwrap();
        control.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { program, vehicle, player, control: BufReader::new(control) }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.control.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Runs one line of the control language.
    pub fn say(&mut self, text: &str) {
        self.control.get_mut().write_all(format!("{text}\n").as_bytes()).unwrap();
        assert_eq!(self.line(), "ok", "{text}");
    }

    /// What the simulator sees at this moment.
    pub fn status(&mut self) -> Value {
        self.say("status");
        serde_json::from_str(&self.line()).unwrap()
    }

    /// Asks for the status until it is as wanted.
    pub fn until(&mut self, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < end, "{what} did not happen; {status}\n{}", self.program.output());
            std::thread::sleep(LOOK);
        }
    }
}

/// An empty folder that is removed with its value.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ocpcan-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        // The gateway refuses a runtime folder that others may write to.
        std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
