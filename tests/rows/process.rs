//! Rows of the process: the real program between the simulators, stopped, killed and started again.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::MutexGuard;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ocpcan::io::runtime::RuntimeDirectory;
use ocpcan::sim::live::ocp::{LiveOptions, OcpSimHandle};
use ocpcan::sim::ocp::Options;

use super::rig::{Drive, Road, configuration, turn, wait_for};

/// The program with everything around it.
pub struct Service {
    pub child: Child,
    pub config: PathBuf,
    pub ocp: OcpSimHandle,
    pub road: Road,
    _turn: MutexGuard<'static, ()>,
}

impl Service {
    fn start() -> Self {
        Self::start_by(&[], |text| text)
    }

    /// Started by this command, which ends by becoming the program.
    pub fn start_by(command: &[&str], edit: impl FnOnce(String) -> String) -> Self {
        Self::start_with(command, Stdio::null(), edit)
    }

    /// The same with this as its stdin.
    pub fn start_with(command: &[&str], stdin: Stdio, edit: impl FnOnce(String) -> String) -> Self {
        Self::begin(edit, |config| start(config, command, &[], stdin, log_file(config)))
    }

    /// With its log going there.
    pub fn start_logging_to(log: Stdio) -> Self {
        Self::begin(|text| text, |config| start(config, &[], &[], Stdio::null(), log))
    }

    fn begin(edit: impl FnOnce(String) -> String, start: impl FnOnce(&std::path::Path) -> Child) -> Self {
        let turn = turn();
        let road = Road::new();
        let ocp = OcpSimHandle::start(&LiveOptions::default(), Options::default()).unwrap();
        let config = configuration(&road.address, ocp.address(), edit);
        let child = start(&config);
        Self { child, config, ocp, road, _turn: turn }
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.config.with_extension("log")).unwrap()).into_owned()
    }

    pub fn say(&self, line: &str) {
        self.ocp.say(line).unwrap();
    }

    pub fn state(&self) -> String {
        let response = self.ocp.snapshot().last_response;
        let data = response.and_then(|response| response.user_data).unwrap_or_default();
        data["gateway"]["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Arms and drives. Answers how many frames were seen then.
    pub fn drive(&self) -> usize {
        loop {
            self.say("neutral");
            self.say("release start");
            wait_for(|| self.state() == "READY", "READY");
            self.say("arm 300 1000");
            let armed = || matches!(self.state().as_str(), "ARMED");
            wait_for(|| armed() || matches!(self.state().as_str(), "SAFE" | "LOCKOUT"), "ARMED");
            self.say("trigger right 0.4");
            let from = self.road.count();
            let driving =
                || self.road.sent().iter().skip(from).any(|drive| drive.enabled && drive.throttle > 0);
            wait_for(|| driving() || !armed(), "driving");
            if driving() && armed() {
                return self.road.count();
            }
            assert_ne!(self.state(), "LOCKOUT", "the host stood still twice");
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Waits until nothing more comes from a program that is stopped or dead.
    pub fn quiet(&self) -> usize {
        let mut seen = self.road.count();
        let mut since = ocpcan::io::clock::now();
        wait_for(
            || {
                let now = ocpcan::io::clock::now();
                if self.road.count() != seen {
                    (seen, since) = (self.road.count(), now);
                }
                now.since(since).as_millis() > 200
            },
            "silence",
        );
        seen
    }

    fn restart(&mut self) {
        self.child = run(&self.config);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The runtime directory of the program.
fn runtime(config: &std::path::Path) -> PathBuf {
    config.parent().unwrap().join("service")
}

fn run(config: &std::path::Path) -> Child {
    run_with(config, &[])
}

fn run_with(config: &std::path::Path, more: &[&str]) -> Child {
    start(config, &[], more, Stdio::null(), log_file(config))
}

fn log_file(config: &std::path::Path) -> Stdio {
    let path = config.with_extension("log");
    std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap().into()
}

/// Starts the program by a command, with more arguments.
fn start(config: &std::path::Path, by: &[&str], more: &[&str], stdin: Stdio, log: Stdio) -> Child {
    let runtime = runtime(config);
    std::fs::create_dir_all(&runtime).unwrap();
    let words: Vec<&str> = by.iter().copied().chain([env!("CARGO_BIN_EXE_ocpcan")]).collect();
    Command::new(words[0])
        .args(&words[1..])
        .args(["run", "--config"])
        .arg(config)
        .args(more)
        .env("RUNTIME_DIRECTORY", runtime)
        .stdin(stdin)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

#[test]
fn row_75_after_sigstop_the_first_frame_is_safe() {
    let service = Service::start();
    service.drive();
    service.signal(Signal::SIGSTOP);
    let from = service.quiet();
    service.signal(Signal::SIGCONT);
    service.road.wait_count(from + 50);
    let sent = service.road.sent();
    assert!(sent.iter().skip(from).all(Drive::is_safe), "{:?}", &sent[from..]);
    service.road.expect_running_counter();
}

#[test]
fn row_86_sigterm_runs_the_stop_profile_and_ends_with_safe_frames() {
    let mut service = Service::start();
    // The last one: the kernel warns of too much processor time.
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGXCPU] {
        let from = service.drive();
        service.signal(signal);
        let status = service.child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{signal}");
        service.quiet();
        service.road.expect_safe_after_to_the_end(from, 3);
        service.road.expect_running_counter();
        service.restart();
    }
}

#[test]
fn row_86_a_stray_signal_does_not_end_it_and_a_hangup_does_not_cut_the_stop_short() {
    let mut service = Service::start();
    let from = service.drive();
    for signal in
        [Signal::SIGUSR2, Signal::SIGALRM, Signal::SIGVTALRM, Signal::SIGPROF, Signal::SIGIO, Signal::SIGXFSZ]
    {
        service.signal(signal);
    }
    service.road.wait_count(from + 25);
    assert!(service.child.try_wait().unwrap().is_none());
    // Fast enough that the stop profile takes its time.
    let speed = || {
        let data = service.ocp.snapshot().last_response.and_then(|response| response.user_data);
        data.and_then(|data| data.get("speed_kph")?.as_f64()).unwrap_or(0.0)
    };
    wait_for(|| speed() > 5.0, "the vehicle moves");
    let from = service.road.count();
    service.signal(Signal::SIGTERM);
    service.signal(Signal::SIGHUP);
    assert_eq!(service.child.wait().unwrap().code(), Some(0));
    service.quiet();
    service.road.expect_safe_after_to_the_end(from, 3);
    // The stop profile ran: the brake came by its ramp, which takes longer than an end at once.
    let stopping = service.road.sent().iter().skip(from).filter(|drive| drive.is_safe()).count();
    assert!(stopping >= 10, "{stopping} safe frames");
}

#[test]
fn a_lockout_is_acknowledged_by_a_stop_of_its_own_gateway_and_not_by_a_look_or_another_one() {
    let mut service = Service::start();
    let lockout = |bus: &str| RuntimeDirectory::at(runtime(&service.config)).unwrap().of([bus]);
    let (own, other) = (lockout(&service.road.address.to_string()), lockout("sim:elsewhere"));
    service.signal(Signal::SIGKILL);
    service.child.wait().unwrap();
    for (more, is_acknowledged) in [(&["--listen"][..], false), (&[], true)] {
        for directory in [&own, &other] {
            directory.set_lockout("foreign_writer").unwrap();
        }
        service.child = run_with(&service.config, more);
        // What the last process told is gone with its session.
        let connections = service.ocp.snapshot().connections;
        wait_for(|| service.ocp.snapshot().connections > connections, "its connection");
        wait_for(|| service.state() == "LOCKOUT", "LOCKOUT");
        service.signal(Signal::SIGTERM);
        assert_eq!(service.child.wait().unwrap().code(), Some(0));
        assert_eq!(own.lockout().is_none(), is_acknowledged, "after a run with {more:?}");
        assert!(other.lockout().is_some(), "another gateway's");
    }
}

#[test]
fn row_88_however_often_it_is_started_it_starts_safe_and_arms_by_the_procedure_alone() {
    let mut service = Service::start();
    service.drive();
    service.say("press start");
    for _ in 0..5 {
        service.signal(Signal::SIGKILL);
        service.child.wait().unwrap();
        let from = service.quiet();
        service.restart();
        service.road.wait_count(from + 75);
        let sent = service.road.sent();
        assert!(sent.iter().skip(from).all(Drive::is_safe), "{:?}", &sent[from..]);
    }
    service.drive();
}

#[test]
fn row_90_memory_and_descriptors_stay_flat_over_reconnects() {
    let service = Service::start();
    let pid = service.child.id();
    let descriptors = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let resident_kib = || {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let reconnect = |times: u32| {
        for _ in 0..times {
            let before = service.ocp.snapshot().connections;
            service.say("rst");
            wait_for(|| service.ocp.snapshot().connections > before, "a new connection");
            let answered = service.ocp.snapshot().responses;
            wait_for(|| service.ocp.snapshot().responses > answered + 5, "answers");
        }
    };
    service.drive();
    reconnect(5);
    let (open, resident) = (descriptors(), resident_kib());
    reconnect(20);
    // main opens files for a moment, once a second; one that leaks with each connection stays.
    wait_for(|| descriptors() <= open, "as few descriptors as before");
    let grown = resident_kib().saturating_sub(resident);
    // Log lines and the journal's pipe may touch a few pages for the first time; 25 leaked buffers would be 400 KiB.
    assert!(grown <= 256, "grew by {grown} KiB from {resident} KiB");
}
