//! Rows of the machine under the service: refused rights, a changed file, a full disk, no descriptors left, a log that nobody
//! reads.
//!
//! The real program between the simulators, started by the system's own tools (setpriv, prlimit, unshare, setsid of
//! util-linux), so that what is refused is refused by the kernel.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::process::Service;
use super::rig::wait_for;

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Puts the management plane at this port.
fn asked_at(port: u16) -> impl FnOnce(String) -> String {
    move |text| text.replace("[rcsp]\n", &format!("[rcsp]\nlisten = \"127.0.0.1:{port}\"\n"))
}

fn status(port: u16) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_ocpcan"))
        .args(["status", "--json", "--port", &port.to_string()])
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn wait_answer(port: u16) -> Value {
    let mut answer = Value::Null;
    wait_for(
        || {
            answer = status(port);
            answer.is_object()
        },
        "an answer of the management plane",
    );
    answer
}

fn doctor(config: &Path, more: &[&str]) -> (Option<i32>, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_ocpcan"))
        .args(["doctor", "--json", "--config"])
        .arg(config)
        .args(more)
        .output()
        .unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}")))
}

/// Whether the report has a line of this level with this text.
fn says(report: &Value, level: &str, text: &str) -> bool {
    let has = |check: &Value| {
        check["level"] == level && check["text"].as_str().is_some_and(|said| said.contains(text))
    };
    report["checks"].as_array().unwrap().iter().any(has)
}

/// Starts what follows without a capability (where the test is root) and with nothing of real time granted.
fn without_rights() -> Vec<&'static str> {
    let limits = ["prlimit", "--rtprio=0:0", "--memlock=0:0"];
    if nix::unistd::geteuid().is_root() {
        let drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"];
        return drop.into_iter().chain(limits).collect();
    }
    limits.to_vec()
}

#[test]
fn row_70_without_rights_it_drives_and_says_so() {
    let port = free_port();
    let service = Service::start_by(&without_rights(), asked_at(port));
    service.drive();
    let log = service.log();
    assert!(log.contains("warning: memory is not locked"), "{log}");
    for thread in ["watchdog", "ocp", "can"] {
        assert!(log.contains(&format!("warning: thread {thread} runs without real-time priority")), "{log}");
    }
    let told = &wait_answer(port)["RealTime"];
    assert_eq!((&told["Threads"], &told["Refused"]), (&Value::from(0), &Value::from(3)), "{told}");
    assert_eq!(told["MemoryLocked"], false, "{told}");
    assert!(told["RefusedWhy"].as_str().is_some_and(|why| !why.is_empty()), "{told}");
    let text =
        Command::new(env!("CARGO_BIN_EXE_ocpcan")).args(["status", "--port", &port.to_string()]).output();
    let text = String::from_utf8(text.unwrap().stdout).unwrap();
    assert!(text.contains("3 threads without priority"), "{text}");
    // The doctor reads what the running gateway has, whatever this user may.
    let (_, report) = doctor(&service.config, &[]);
    assert!(says(&report, "warning", "thread watchdog runs without real-time priority"), "{report:#}");
    assert!(says(&report, "warning", "memory is not locked"), "{report:#}");
}

#[test]
fn row_70_where_the_file_requires_them_it_does_not_start() {
    let mut service = Service::start_by(&without_rights(), |text| {
        text.replace("# real_time = \"warn\"", "real_time = \"required\" #")
    });
    assert_eq!(service.child.wait().unwrap().code(), Some(69));
    let log = service.log();
    assert!(log.contains("no real-time priority") && log.contains("not started"), "{log}");
    assert_eq!(service.road.count(), 0, "nothing is sent");
}

/// Does something while it drives, and expects that it was true and that it drives on. A busy host may end a drive by itself:
/// then once more, after `heal`.
fn while_driving(service: &Service, what: &str, mut act: impl FnMut() -> bool, mut heal: impl FnMut()) {
    for _ in 0..5 {
        // Who drives already cannot arm again.
        if service.state() != "ARMED" {
            service.drive();
        }
        if act() && service.state() == "ARMED" {
            return;
        }
        eprintln!(
            "not while it drove, once more: {what}; {}",
            service.log().lines().last().unwrap_or_default()
        );
        heal();
    }
    panic!("five times: {what}; {}", service.log());
}

/// Ends the drive: the connection breaks and comes back.
fn stand_down(service: &Service) {
    let connections = service.ocp.snapshot().connections;
    service.say("rst");
    wait_for(|| service.ocp.snapshot().connections > connections, "a new connection");
    wait_for(|| matches!(service.state().as_str(), "SAFE" | "STANDBY" | "READY"), "no drive any more");
}

/// Replaces a part of the configuration that is there.
fn edit(config: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(config).unwrap();
    assert!(text.contains(from), "{from}");
    // As an editor does it: written beside, then moved into place.
    let draft = config.with_extension("new");
    std::fs::write(&draft, text.replacen(from, to, 1)).unwrap();
    std::fs::rename(draft, config).unwrap();
}

#[test]
fn a_hangup_as_a_service_reloads_the_whole_file_or_nothing_and_never_while_it_drives() {
    let port = free_port();
    // A session of its own has no terminal, wherever the test runs.
    let service = Service::start_by(&["setsid"], asked_at(port));
    let digest = || wait_answer(port)["ConfigDigest"].as_str().unwrap().to_owned();
    let first = digest();
    let hang_up = |expected: &str| {
        let before = service.log().len();
        service.signal(Signal::SIGHUP);
        wait_for(|| service.log()[before..].contains(expected), expected);
    };
    // While it drives nothing is even read: the file is no configuration at this moment.
    let good = std::fs::read_to_string(&service.config).unwrap();
    std::fs::write(&service.config, "no = configuration").unwrap();
    let refused = || {
        let before = service.log().len();
        hang_up("SIGHUP: ");
        service.log()[before..].contains("SIGHUP: not in ARMED")
    };
    while_driving(&service, "a hangup", refused, || ());
    stand_down(&service);

    hang_up("nothing changes; configuration");
    assert!(
        service.log().contains("problem in") || service.log().contains("problems in"),
        "{}",
        service.log()
    );
    assert_eq!(digest(), first);

    std::fs::write(&service.config, &good).unwrap();
    hang_up("is the one at work");

    edit(&service.config, "output = [0, 100]", "output = [0, 50]");
    edit(&service.config, "# level = \"info\"", "level = \"warning\"");
    hang_up("need a restart");
    assert!(service.log().contains("send.DRIVE_CMD.signals.THROTTLE_CMD.output"), "{}", service.log());
    assert_eq!(digest(), first, "no half of it");
    let (code, report) = doctor(&service.config, &[]);
    assert!(says(&report, "warning", "the file is"), "{code:?} {report:#}");

    edit(&service.config, "output = [0, 50]", "output = [0, 100]");
    hang_up("log.level: \"info\" -> \"warning\"");
    wait_for(|| digest() != first, "the new digest");
    let checked = Command::new(env!("CARGO_BIN_EXE_ocpcan"))
        .args(["check", "--json", "--config"])
        .arg(&service.config)
        .output();
    let checked: Value = serde_json::from_slice(&checked.unwrap().stdout).unwrap();
    assert_eq!(checked["digest"], digest());
    // Level "warning" hides changes of state from here on; it drives as before.
    let before = service.log().len();
    service.drive();
    assert!(!service.log()[before..].contains("ARMED"), "{}", &service.log()[before..]);
    service.road.expect_running_counter();
}

#[test]
fn row_104_a_file_that_changes_while_it_runs_is_told_and_not_obeyed() {
    let port = free_port();
    let service = Service::start_by(&[], asked_at(port));
    let first = wait_answer(port)["ConfigDigest"].clone();
    edit(&service.config, "output = [0, 100]", "output = [0, 50]");
    wait_for(|| service.log().contains("ocpcan.toml has changed; configuration"), "the hint");
    service.drive();
    assert_eq!(wait_answer(port)["ConfigDigest"], first);
    let events = wait_answer(port)["Events"].to_string();
    let told = Command::new(env!("CARGO_BIN_EXE_ocpcan"))
        .args(["rcsp", "call", "GwGetEvents", "--json", "--port", &port.to_string()])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&told.stdout).contains("has changed; configuration"), "{events}");
}

#[test]
fn row_86_the_end_of_the_terminal_ends_the_gateway_in_order() {
    let pty = nix::pty::openpty(None, None).unwrap();
    // The new session takes the terminal that is its stdin.
    let mut service =
        Service::start_with(&["setsid", "--ctty"], pty.slave.try_clone().unwrap().into(), |text| text);
    let from = service.drive();
    service.signal(Signal::SIGHUP);
    assert_eq!(service.child.wait().unwrap().code(), Some(0));
    service.quiet();
    service.road.expect_safe_after_to_the_end(from, 3);
    drop(pty);
}

/// A group of processes with so little memory, where this machine lets the test make one (either version of cgroups).
struct Cage(std::path::PathBuf);

impl Cage {
    fn new(bytes: u32) -> Option<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let name = format!("ocpcan-row71-{}", std::process::id());
        let places = [(root.join("memory"), "memory.limit_in_bytes"), (root.to_path_buf(), "memory.max")];
        places.into_iter().find_map(|(parent, limit)| {
            let folder = parent.join(&name);
            std::fs::create_dir(&folder).ok()?;
            let cage = Self(folder);
            std::fs::OpenOptions::new()
                .write(true)
                .open(cage.0.join(limit))
                .ok()?
                .write_all(bytes.to_string().as_bytes())
                .ok()?;
            Some(cage)
        })
    }

    /// A command line that goes into it first.
    fn script(&self, oom_score: i32, then: &str) -> String {
        // To be spared is a right that the test may not have; to be taken first is everybody's.
        let score = format!("(echo {oom_score} >/proc/self/oom_score_adj) 2>/dev/null");
        format!("echo $$ >{}/cgroup.procs && {{ {score} || true; }} && {then}", self.0.display())
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        // Only once nobody is in it any more.
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn row_71_without_memory_the_others_are_killed_and_the_drive_goes_on() {
    let Some(cage) = Cage::new(96 << 20) else {
        return eprintln!(
            "row 71 needs a memory cgroup of its own (root, and cgroups that can be written): not tried here"
        );
    };
    // As the unit has it: OOMScoreAdjust=-900.
    let script = cage.script(-900, r#"exec "$0" "$@""#);
    let mut service = Service::start_by(&["sh", "-c", &script], |text| text);
    service.drive();
    // It reads zeros without end and keeps them all.
    let glutton = cage.script(1_000, "exec tail /dev/zero");
    let ended = Command::new("sh").args(["-c", &glutton]).status().unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&ended),
        Some(9),
        "the kernel ended it: {ended}"
    );
    assert!(service.child.try_wait().unwrap().is_none(), "{}", service.log());
    let drives = || {
        let from = service.road.count();
        service.road.wait_count(from + 25);
        service.road.sent().iter().skip(from).all(|drive| drive.enabled)
    };
    while_driving(&service, "after the others were killed", drives, || ());
    service.road.expect_running_counter();
    service.signal(Signal::SIGTERM);
    assert_eq!(service.child.wait().unwrap().code(), Some(0));
}

#[test]
fn row_72_a_full_disk_under_directory_and_log_stops_nothing() {
    // A file system of its own, full to the last block, seen by this program alone. User namespaces make it anybody's right.
    let script = r#"mount -t tmpfs -o size=64k,mode=700 none "$RUNTIME_DIRECTORY" || exit 90
        exec 2>"$RUNTIME_DIRECTORY/log"
        head -c 1000000 /dev/zero >"$RUNTIME_DIRECTORY/fill" 2>/dev/null
        exec "$0" "$@""#;
    let mut service =
        Service::start_by(&["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script], |text| {
            text
        });
    let from = service.drive();
    service.road.wait_count(from + 50);
    service.road.expect_running_counter();
    service.signal(Signal::SIGTERM);
    assert_eq!(service.child.wait().unwrap().code(), Some(0));
    service.quiet();
    service.road.expect_safe_after_to_the_end(from, 3);
}

#[test]
fn a_log_that_is_closed_full_or_broken_from_the_start_stops_nothing() {
    for script in [r#"exec "$0" "$@" 2>&-"#, r#"exec "$0" "$@" 2>/dev/full"#] {
        let mut service = Service::start_by(&["sh", "-c", script], |text| text);
        let from = service.drive();
        service.signal(Signal::SIGTERM);
        assert_eq!(service.child.wait().unwrap().code(), Some(0), "{script}");
        service.quiet();
        service.road.expect_safe_after_to_the_end(from, 3);
    }
    // A pipe that was full before the first line, and one whose reader has gone.
    for keep_reader in [true, false] {
        let (reader, writer) = std::io::pipe().unwrap();
        let filler = writer.try_clone().unwrap();
        fill(&filler);
        let reader = keep_reader.then_some(reader);
        let mut service = Service::start_logging_to(writer.into());
        let from = service.drive();
        service.signal(Signal::SIGTERM);
        assert_eq!(service.child.wait().unwrap().code(), Some(0), "reader kept: {keep_reader}");
        service.quiet();
        service.road.expect_safe_after_to_the_end(from, 3);
        drop((reader, filler));
    }
}

/// Writes until a pipe takes no more.
fn fill(pipe: &std::io::PipeWriter) {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let chunk = [b'x'; 4_096];
    while nix::unistd::write(pipe, &chunk).is_ok() {}
    while nix::unistd::write(pipe, b"x").is_ok() {}
    fcntl(pipe, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
}

#[test]
fn row_77_without_descriptors_the_tunnel_refuses_and_the_drive_goes_on() {
    let (port, tunnel) = (free_port(), free_port());
    let lines = format!("\n[tcpcan.vehicle]\nlisten = \"127.0.0.1:{tunnel}\"\n");
    let mut service = Service::start_by(&[], |text| asked_at(port)(text) + &lines);
    service.drive();
    wait_answer(port);
    let pid = service.child.id();
    let open = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let limit = |count: usize| {
        let done =
            Command::new("prlimit").args([format!("--pid={pid}"), format!("--nofile={count}:4096")]).status();
        assert!(done.unwrap().success());
    };
    let mut waiting: Vec<TcpStream> = Vec::new();
    let starved = || {
        limit(open());
        // The kernel takes the connections; the gateway cannot, and must go on.
        let connect = |port: &u16| TcpStream::connect(("127.0.0.1", *port)).unwrap();
        waiting = [tunnel, port, tunnel].iter().map(connect).collect();
        let from = service.road.count();
        service.road.wait_count(from + 100);
        service.road.sent().iter().skip(from).all(|drive| drive.enabled)
    };
    while_driving(&service, "no descriptors", starved, || limit(1_024));
    service.road.expect_running_counter();
    assert!(service.log().contains("Too many open files"), "{}", service.log());
    // With descriptors again, those who waited are served.
    limit(1_024);
    wait_for(
        || service.log().lines().any(|line| line.starts_with("tcpcan: ") && line.ends_with(": connected")),
        "a peer that had waited",
    );
    drop(waiting);
    service.signal(Signal::SIGTERM);
    assert_eq!(service.child.wait().unwrap().code(), Some(0));
}

#[test]
fn row_78_a_weak_supply_is_told_by_the_doctor_and_keeps_the_gateway_from_arming() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sys-{}", std::process::id()));
    let firmware = folder.join("devices/platform/soc/soc:firmware");
    std::fs::create_dir_all(&firmware).unwrap();
    let bits = |text: &str| std::fs::write(firmware.join("get_throttled"), text).unwrap();
    bits("0\n");
    let script = format!(r#"exec "$0" "$@" --sys '{}'"#, folder.display());
    let service = Service::start_by(&["sh", "-c", &script], |text| text);
    // A dip while it drives is told and no reason to stop: braking does not mend a supply.
    let dip = || {
        let before = service.log().len();
        bits("50005\n");
        wait_for(|| service.log()[before..].contains("warning: undervoltage"), "the warning");
        let from = service.road.count();
        service.road.wait_count(from + 25);
        service.road.sent().iter().skip(from).all(|drive| drive.enabled)
    };
    let mend = || {
        let before = service.log().len();
        bits("50000\n");
        wait_for(|| service.log()[before..].contains("the supply is right again"), "the end of the dip");
    };
    while_driving(&service, "a dip of the supply", dip, mend);
    let (code, report) = doctor(&service.config, &["--sys", folder.to_str().unwrap()]);
    assert_eq!(code, Some(69));
    assert!(says(&report, "problem", "undervoltage"), "{report:#}");
    // Once it stands, it does not arm again before the supply is right.
    stand_down(&service);
    wait_for(|| service.state() == "SAFE", "SAFE");
    service.say("neutral");
    service.say("release start");
    let from = service.road.count();
    service.say("arm 300 1000");
    service.road.wait_count(from + 150);
    assert_eq!(service.state(), "SAFE");
    assert!(service.log().contains("too little voltage"), "{}", service.log());
    mend();
    service.drive();
}

#[test]
fn the_doctor_of_a_bench_says_what_is_there_and_changes_nothing() {
    let port = free_port();
    let service = Service::start_by(&[], asked_at(port));
    service.drive();
    wait_answer(port);
    let mut report = Value::Null;
    let mut connections = 0;
    let look = || {
        connections = service.ocp.snapshot().connections;
        report = doctor(&service.config, &["--sys", "/nonexistent"]).1;
        says(&report, "ok", "ARMED")
    };
    while_driving(&service, "the doctor", look, || ());
    assert!(says(&report, "warning", "the built-in bus"), "{report:#}");
    assert!(says(&report, "ok", "the gateway is connected"), "{report:#}");
    assert!(says(&report, "ok", "in use while the gateway runs"), "{report:#}");
    assert!(says(&report, "ok", "example.dbc"), "{report:#}");
    assert_eq!(report["digest"], wait_answer(port)["ConfigDigest"]);
    assert_eq!(service.ocp.snapshot().connections, connections, "nobody else called the Streamer");
    // The lines say the same as the object, without colours where nobody looks.
    let lines = Command::new(env!("CARGO_BIN_EXE_ocpcan"))
        .args(["doctor", "--config"])
        .arg(&service.config)
        .output()
        .unwrap();
    let lines = String::from_utf8(lines.stdout).unwrap();
    assert!(lines.starts_with("Doctor     ocpcan ") && !lines.contains('\x1b'), "{lines}");
    assert!(lines.lines().last().unwrap().starts_with("Result "), "{lines}");
}

#[test]
fn the_doctor_without_a_gateway_calls_the_server_and_says_who_holds_a_port() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut service = Service::start_by(&[], asked_at(port));
    service.signal(Signal::SIGTERM);
    service.child.wait().unwrap();
    let (code, report) = doctor(&service.config, &[]);
    assert_eq!((code, report["ok"].as_bool()), (Some(69), Some(false)));
    assert!(says(&report, "problem", "another program listens there"), "{report:#}");
    assert!(says(&report, "ok", "reached in"), "{report:#}");
    drop(listener);
    let (_, report) = doctor(&service.config, &[]);
    assert!(says(&report, "ok", "free"), "{report:#}");
    std::fs::write(&service.config, "nonsense").unwrap();
    let (code, report) = doctor(&service.config, &[]);
    assert_eq!(code, Some(69));
    assert!(says(&report, "problem", "ocpcan.toml"), "{report:#}");
    assert!(report["checks"].as_array().unwrap().iter().any(|check| check["area"] == "Supply"), "{report:#}");
}
