//! Panics and hangs of each thread in the real binary, and what a thread may not do, driving over loopback and a built-in bus.
//!
//! Owns faults 33, 81 to 84 and 107, and the part of 87 that `safe-stop` plays. Relies on the feature `fault-points`.

#![allow(clippy::disallowed_methods, reason = "a test has threads of its own")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use ocpcan::can::Frame;
use ocpcan::io::canbus::{BusAddress, Port, PortOptions};
use ocpcan::io::clock;
use ocpcan::sim::live::ocp::{LiveOptions, OcpSimHandle};
use ocpcan::sim::ocp::Options;
use ocpcan::time::{Duration, Instant};

const EXAMPLE: &str = include_str!("../deploy/ocpcan.example.toml");
const EXAMPLE_DBC: &str = include_str!("../deploy/example.dbc");

/// Frames of the actuator message of the example.
const DRIVE: u32 = 0x101;

/// Long for a loaded machine; every wait ends earlier where the event comes.
const DEADLINE: Duration = Duration::from_secs(30);

static RUNS: AtomicU32 = AtomicU32::new(0);

/// Held by who makes a real-time thread run away: two of them would leave a machine of two processors no time for anybody
/// else, and the one that is to end in order could not.
static RUNAWAY: Mutex<()> = Mutex::new(());

struct Bench {
    folder: PathBuf,
    trigger: PathBuf,
    config: PathBuf,
    port: Port,
    ocp: OcpSimHandle,
    gateway: Child,
    last: Vec<(Instant, Frame)>,
}

impl Bench {
    /// Everything started, driving, throttle held.
    fn driving() -> Self {
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        let name = format!("fp{}x{number}", std::process::id());
        let folder = std::env::temp_dir().join(&name);
        std::fs::create_dir_all(&folder).unwrap();
        let ocp = OcpSimHandle::start(&LiveOptions::default(), Options::default()).unwrap();
        let text = EXAMPLE
            .replace("interface = \"can0\"", &format!("interface = \"sim:{name}\""))
            .replace("address = \"127.0.0.1:4000\"", &format!("address = \"{}\"", ocp.address()))
            .replace("\nrequired = true", "\nrequired = false")
            .replace("[standstill]\nsignal = \"VEHICLE_STATE.SPEED_KPH\"\nat_most = 0.5", "")
            .replace("\nchange = \"standstill\"", "")
            // The shortest legal times: a test waits for them.
            .replace(
                "[safety]",
                "[safety]\nclear_ms = 500\nneutral_ms = 250\nhold_ms = 500\nstopping_ms = 500\nown_gap_ms = 100\n\
                 echo_ms = 100\nocp_silence_ms = 250\nstale_ms = 250\noperator_freeze_ms = 500\nack_freeze_ms = 500",
            );
        let config = folder.join("c.toml");
        std::fs::write(&config, text).unwrap();
        std::fs::write(folder.join("example.dbc"), EXAMPLE_DBC).unwrap();
        let address: BusAddress = format!("sim:{name}").parse().unwrap();
        let port = Port::open(&address, &PortOptions::default()).unwrap();
        let trigger = folder.join("trigger");
        let gateway = Command::new(env!("CARGO_BIN_EXE_ocpcan"))
            .args(["run", "--config"])
            .arg(&config)
            .env("OCPCAN_FAULT_POINT", &trigger)
            .env("RUNTIME_DIRECTORY", &folder)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut permissions = std::fs::metadata(&folder).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o700);
        std::fs::set_permissions(&folder, permissions).unwrap();
        let mut bench = Self { folder, trigger, config, port, ocp, gateway, last: Vec::new() };
        bench.arm();
        bench
    }

    fn state(&self) -> String {
        let data = self.ocp.snapshot().last_response.and_then(|response| response.user_data);
        data.and_then(|data| Some(data.get("gateway")?.get("state")?.as_str()?.to_owned()))
            .unwrap_or_default()
    }

    /// Waits for an event while the bus is watched.
    fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let end = clock::now() + DEADLINE;
        while !done(self) {
            self.watch(Duration::from_millis(5));
            assert!(clock::now() < end, "{what} did not happen; state {}", self.state());
        }
    }

    /// Takes frames for this long.
    fn watch(&mut self, time: Duration) {
        let end = clock::now() + time;
        while clock::now() < end {
            if let Ok(Some(received)) = self.port.recv(Some(time))
                && received.frame.id().raw() == DRIVE
            {
                self.last.push((received.at, received.frame));
            }
        }
    }

    /// The operator's procedure; a loaded machine may throw it back, and then the operator starts again.
    fn arm(&mut self) {
        let end = clock::now() + DEADLINE;
        while self.state() != "ARMED" {
            assert!(clock::now() < end, "not armed; state {}", self.state());
            self.ocp.say("release start").unwrap();
            self.until("READY", |bench| bench.state() == "READY");
            // Seen released in READY first; then pressed until it arms.
            self.watch(Duration::from_millis(100));
            self.ocp.say("press start").unwrap();
            let patience = clock::now() + Duration::from_secs(3);
            self.until("ARMED or patience", |bench| bench.state() == "ARMED" || clock::now() > patience);
        }
        self.ocp.say("release start").unwrap();
        self.ocp.say("axis right_trigger 0.5").unwrap();
        self.until("throttle on the bus", |bench| {
            bench.last.last().is_some_and(|(_, frame)| throttle(frame) > 5.0)
        });
    }

    fn trigger(&self, what: &str) {
        let draft = self.folder.join("draft");
        std::fs::write(&draft, what).unwrap();
        std::fs::rename(draft, &self.trigger).unwrap();
    }

    /// Waits for the end of the gateway. Returns its exit code and signal.
    fn ended(&mut self) -> (Option<i32>, Option<i32>) {
        let end = clock::now() + DEADLINE;
        loop {
            self.watch(Duration::from_millis(5));
            if let Some(status) = self.gateway.try_wait().unwrap() {
                self.watch(Duration::from_millis(50));
                return (status.code(), std::os::unix::process::ExitStatusExt::signal(&status));
            }
            assert!(clock::now() < end, "the gateway does not end");
        }
    }

    /// The last frames of all are safe, and their counters run on without a gap.
    fn assert_ended_safe(&self, at_least: usize) {
        let tail = &self.last[self.last.len() - at_least..];
        for (_, frame) in tail {
            assert!(is_safe(frame), "{frame:?}");
        }
        for pair in self.last.windows(2) {
            let step = (counter(&pair[1].1) + 16 - counter(&pair[0].1)) % 16;
            assert_eq!(step, 1, "the alive counter runs on: {pair:?}");
        }
    }

    fn safe_stop(&mut self) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_ocpcan"))
            .args(["safe-stop", "--config"])
            .arg(&self.config)
            .env("RUNTIME_DIRECTORY", &self.folder)
            .output()
            .unwrap();
        self.watch(Duration::from_millis(100));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.gateway.kill();
        let _ = self.gateway.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn throttle(frame: &Frame) -> f64 {
    f64::from(u16::from_le_bytes([frame.payload()[2], frame.payload()[3]])) * 0.1
}

fn counter(frame: &Frame) -> u8 {
    frame.payload()[6] >> 4
}

/// Throttle 0 and enable 0: a safe frame or a frame of the stop profile.
fn is_safe(frame: &Frame) -> bool {
    throttle(frame) == 0.0 && frame.payload()[6] & 1 == 0
}

#[test]
fn row_81_a_panic_in_a_reader_ends_in_safe_frames_and_exit_70() {
    for thread in ["ocp", "can"] {
        let mut bench = Bench::driving();
        bench.trigger(&format!("panic {thread}"));
        assert_eq!(bench.ended(), (Some(70), None), "{thread}");
        bench.assert_ended_safe(3);
    }
}

#[test]
fn row_81_a_panic_of_the_watchdog_itself_ends_in_a_cycle_of_safe_frames_and_exit_70() {
    let mut bench = Bench::driving();
    bench.trigger("panic watchdog");
    assert_eq!(bench.ended(), (Some(70), None));
    bench.assert_ended_safe(12);
}

#[test]
fn row_82_after_a_double_panic_safe_stop_continues_the_counter() {
    let mut bench = Bench::driving();
    bench.trigger("double watchdog");
    let (code, signal) = bench.ended();
    assert_eq!((code, signal), (None, Some(6)), "a panic within a panic aborts");
    let text = bench.safe_stop();
    assert!(text.contains("confirmed"), "{text}");
    bench.assert_ended_safe(16);
}

#[test]
fn row_83_a_reader_that_hangs_trips() {
    for (thread, cause) in [("ocp", "ocp_stalled"), ("can", "can_stalled")] {
        let mut bench = Bench::driving();
        bench.trigger(&format!("hang {thread}"));
        bench.until("safe frames", |bench| bench.last.last().is_some_and(|(_, frame)| is_safe(frame)));
        if thread == "can" {
            bench.until("the cause", |bench| {
                let data = bench.ocp.snapshot().last_response.and_then(|response| response.user_data);
                data.is_some_and(|data| data["gateway"]["cause"] == cause)
            });
        }
        let from = bench.last.len();
        bench.watch(Duration::from_millis(500));
        assert!(bench.last.len() > from + 5, "silence is not the stop signal");
        assert!(bench.last[from..].iter().all(|(_, frame)| is_safe(frame)));
    }
}

/// Whether this user may ask for real-time priority: only then the kernel counts the time of a thread that never sleeps.
fn may_be_real_time() -> bool {
    std::thread::spawn(|| ocpcan::io::sys::set_fifo_priority(1).is_ok()).join().unwrap()
}

#[test]
fn row_107_a_reader_that_is_taken_over_opens_no_file_and_starts_nothing_and_the_drive_goes_on() {
    let never = ["file", "new file", "program", "process", "signal", "executable memory", "socket other"];
    let kept = [
        ("ocp", &["socket ip", "socket ip6"][..]),
        ("can", &["thread", "socket can", "socket netlink", "socket unix"]),
        ("rcsp", &["socket ip", "socket ip6", "socket netlink", "socket unix"]),
    ];
    let mut bench = Bench::driving();
    for (thread, _) in kept {
        bench.trigger(&format!("try {thread}"));
        let trigger = bench.trigger.clone();
        bench.until("the trigger is taken", |_| !trigger.exists());
        // Taken by the thread that looks for it; the other needs a turn of its own.
        bench.watch(Duration::from_millis(300));
    }
    assert!(!is_safe(&bench.last.last().unwrap().1), "an attempt that is refused does not end the drive");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(bench.gateway.id().cast_signed()),
        nix::sys::signal::SIGTERM,
    )
    .unwrap();
    assert_eq!(bench.ended(), (Some(0), None));
    let mut log = String::new();
    std::io::Read::read_to_string(bench.gateway.stderr.as_mut().unwrap(), &mut log).unwrap();
    for (thread, sockets) in kept {
        let start = format!("fault point: {thread} tried: ");
        let line =
            log.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("{start}{log}"));
        let outcome = |what: &str| {
            let of =
                |one: &str| one.strip_prefix(what).and_then(|rest| rest.strip_prefix(' ')).map(str::to_owned);
            line.split(", ").find_map(of).unwrap_or_else(|| panic!("{what}: {line}"))
        };
        for what in never {
            assert!(outcome(what).starts_with("EPERM"), "{thread}: {what}: {line}");
        }
        for what in ["thread", "socket unix", "socket ip", "socket ip6", "socket netlink", "socket can"] {
            let is_refused = outcome(what).starts_with("EPERM");
            assert_ne!(is_refused, sockets.contains(&what), "{thread}: {what}: {line}");
        }
    }
}

#[test]
fn row_76_a_reader_that_runs_away_trips_and_is_ended_in_order() {
    if !may_be_real_time() {
        return eprintln!(
            "row 76 needs the right to real-time priority (ulimit -r 49, or root): not tried here"
        );
    }
    let _alone = RUNAWAY.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bench = Bench::driving();
    bench.trigger("spin ocp");
    // The kernel's signal after a second of its processor time; the watchdog has made the bus safe long before.
    let (code, signal) = bench.ended();
    assert_eq!((code, signal), (Some(0), None));
    bench.assert_ended_safe(16);
}

#[test]
fn row_76_a_watchdog_that_runs_away_is_killed_by_the_kernel_and_safe_stop_follows() {
    if !may_be_real_time() {
        return eprintln!(
            "row 76 needs the right to real-time priority (ulimit -r 49, or root): not tried here"
        );
    }
    let _alone = RUNAWAY.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bench = Bench::driving();
    bench.trigger("spin watchdog");
    let (code, signal) = bench.ended();
    assert_eq!((code, signal), (None, Some(9)), "nothing else could end it");
    let text = bench.safe_stop();
    assert!(text.contains("confirmed"), "{text}");
    bench.assert_ended_safe(16);
}

#[test]
fn row_33_and_84_a_watchdog_that_hangs_stops_the_acks_and_nobody_else_writes() {
    let mut bench = Bench::driving();
    bench.trigger("hang watchdog");
    bench.until("the frames stop", |bench| {
        bench.last.last().is_some_and(|(at, _)| clock::now().since(*at) > Duration::from_millis(300))
    });
    let answers = bench.ocp.snapshot().responses;
    let sent = bench.ocp.snapshot().sent;
    bench.until("more messages", |bench| bench.ocp.snapshot().sent > sent + 30);
    assert!(bench.ocp.snapshot().responses <= answers + 1, "acks of a dead gateway");
    // What the service manager does next: kill, then safe-stop.
    bench.gateway.kill().unwrap();
    bench.ended();
    bench.safe_stop();
    bench.assert_ended_safe(16);
}

#[test]
fn row_87_after_sigkill_safe_stop_sends_a_counter_cycle() {
    let mut bench = Bench::driving();
    bench.gateway.kill().unwrap();
    bench.ended();
    let text = bench.safe_stop();
    assert!(text.starts_with("safe-stop: 32 safe frames sent, 32 confirmed"), "{text}");
    bench.assert_ended_safe(16);
}
