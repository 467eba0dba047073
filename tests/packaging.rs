//! What `deploy/` ships, run as far as any machine can: the cross configuration, the units' sandbox, the scripts.
//!
//! Relies on cross (`OCPCAN_CROSS`, else under `target/tools`), shellcheck, systemd-analyze, BusyBox and a C compiler, which
//! `tests/run` installs, and fails without them. Stands in for container engine, rustup, `ip`, `systemctl` and the files of the
//! kernel; touches nothing of the system. The package itself is made and installed by the steps of `tests/run`.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: it starts processes, waits with deadlines and fails by panicking"
)]

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use ocpcan::io::canbus::BusAddress;
use ocpcan::io::runtime::BusLock;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const OCPCAN: &str = env!("CARGO_BIN_EXE_ocpcan");

/// The system's programs, whatever stands before them.
const SYSTEM_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A directory for one test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("packaging-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file and returns where it is.
    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Writes a program that stands in for another one.
    fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.put(name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn deploy(name: &str) -> PathBuf {
    Path::new(ROOT).join("deploy").join(name)
}

fn output(command: &mut Command) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{name} does not start ({error}); tests/run installs what is needed"))
}

/// Everything that a command said.
fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Waits for something, and says what it was if it never comes.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = SystemTime::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed().unwrap_or_default() < Duration::from_secs(60), "never came: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

// Cross.

/// Runs `cross build` in this directory with stand-ins for rustup and the container engine; returns the engine's arguments.
///
/// rustup too, because cross 0.2.5 adds and updates toolchains unasked.
fn cross_build(scratch: &Scratch, directory: &Path) -> String {
    let cross = std::env::var_os("OCPCAN_CROSS")
        .map_or_else(|| Path::new(ROOT).join("target/tools/bin/cross"), PathBuf::from);
    let log = scratch.path("log");
    let _ = fs::remove_file(&log);
    scratch.program(
        "bin/rustup",
        r#"#!/bin/sh
echo "rustup $*" >> "$LOG"
case "$*" in
    "toolchain list") echo "$TOOLCHAIN (default)" ;;
    "target list"*) printf '%s (installed)\n' aarch64-unknown-linux-gnu x86_64-unknown-linux-gnu ;;
    "component list"*) echo "rust-src (installed)" ;;
    *) exit 1 ;;
esac
"#,
    );
    let engine = scratch.program("engine", "#!/bin/sh\necho \"engine $*\" >> \"$LOG\"\n");
    let sysroot = said(&output(Command::new("rustc").args(["--print", "sysroot"])));
    let toolchain = Path::new(sysroot.trim()).file_name().unwrap().to_owned();
    let path = format!("{}:{}", scratch.path("bin").display(), std::env::var("PATH").unwrap());
    let output = output(
        Command::new(&cross)
            .args(["build", "--release", "--target", "aarch64-unknown-linux-gnu"])
            .current_dir(directory)
            .env_remove("CROSS_CONFIG")
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("RUSTUP_TOOLCHAIN")
            .env("PATH", path)
            .env("LOG", &log)
            .env("TOOLCHAIN", toolchain)
            .env("XARGO_HOME", scratch.path("xargo"))
            .env("OCPCAN_REV", "v1-2-gabcdef")
            .env("CROSS_CONTAINER_ENGINE", engine),
    );
    let text = fs::read_to_string(&log).unwrap_or_default();
    assert!(output.status.success(), "{}\n{text}", said(&output));
    for line in text.lines().filter(|line| line.starts_with("rustup ")) {
        assert!(line.contains(" list"), "cross would change a toolchain: {line}");
    }
    let run = text.lines().find(|line| line.starts_with("engine run ")).unwrap_or_else(|| panic!("{text}"));
    run.to_owned()
}

#[test]
fn both_names_of_the_cross_configuration_hold_the_same() {
    let read = |name: &str| fs::read(Path::new(ROOT).join(name)).unwrap();
    assert!(
        read("cross.toml") == read("Cross.toml"),
        "cross.toml and Cross.toml differ: copy the one you changed"
    );
}

#[test]
fn a_plain_cross_build_picks_the_configuration_up() {
    let scratch = Scratch::new("cross");
    let run = cross_build(&scratch, Path::new(ROOT));
    println!("{run}");
    let wanted = [
        " -e OCPCAN_REV ",
        " -e SOURCE_DATE_EPOCH ",
        "CROSS_RUNNER=qemu-user ",
        " ghcr.io/cross-rs/aarch64-unknown-linux-gnu:0.2.5 ",
        "cargo build --release --target aarch64-unknown-linux-gnu",
    ];
    for piece in wanted {
        assert!(run.contains(piece), "{piece:?} is not in the engine's arguments: {run}");
    }
    // With the lower-case name alone the same command sees nothing of it: the test above can fail.
    scratch.put(
        "other/Cargo.toml",
        "[package]\nname = \"other\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n",
    );
    scratch.put("other/src/lib.rs", "");
    fs::copy(Path::new(ROOT).join("cross.toml"), scratch.path("other/cross.toml")).unwrap();
    let run = cross_build(&scratch, &scratch.path("other"));
    assert!(!run.contains("OCPCAN_REV"), "{run}");
}

#[test]
fn cross_is_given_a_rustup_that_changes_nothing() {
    let scratch = Scratch::new("rustup");
    let real =
        scratch.program("real", "#!/bin/sh\necho \"$*\" >> \"$LOG\"\necho 'stable-x (active, default)'\n");
    let rustup = |words: &str| {
        let _ = fs::remove_file(scratch.path("log"));
        let done = output(
            Command::new(deploy("cross/rustup"))
                .args(words.split_whitespace())
                .env("LOG", scratch.path("log"))
                .env("OCPCAN_RUSTUP", &real),
        );
        (done.status.success(), said(&done), scratch.read("log"))
    };
    // As an older rustup said it, which cross understands.
    assert_eq!(
        rustup("toolchain list"),
        (true, "stable-x (default)\n".to_owned(), "toolchain list\n".to_owned())
    );
    for list in ["target list --toolchain stable", "component list --toolchain stable"] {
        assert_eq!(rustup(list).2, format!("{list}\n"));
    }
    for change in [
        "toolchain add stable --profile minimal",
        "toolchain install stable",
        "target add aarch64-unknown-linux-gnu",
        "component add rust-src",
        "self update",
        "update",
        "default nightly",
        "",
    ] {
        let (success, said, log) = rustup(change);
        assert!(!success && said.contains("refused") && log.is_empty(), "{change}: {said}{log}");
    }
    // Nor is cross called before it has this one: it changes toolchains even when asked for its version.
    let script = fs::read_to_string(deploy("build-aarch64")).unwrap();
    let calls: Vec<&str> = script.lines().filter(|line| line.contains("bin/cross\"")).collect();
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert!(!script.contains("--version\""), "no tool is asked for its version");
    let guarded = script.find("guard_rustup \"$1\"").unwrap();
    assert!(guarded < script.find(calls[0]).unwrap());
}

// The limit for glibc.

fn glibc_need(file: &Path, limit: &str) -> Output {
    output(Command::new(deploy("glibc-need")).arg(file).arg(limit))
}

#[test]
fn a_program_that_needs_a_newer_glibc_is_refused() {
    let scratch = Scratch::new("glibc");
    // A C library of the future with one function in it, and a program that calls this function.
    let library = scratch.put("future.c", "int ocpcan_future(void) { return 0; }\n");
    let versions = scratch.put("versions", "GLIBC_2.39 { ocpcan_future; };\n");
    let program =
        scratch.put("program.c", "int ocpcan_future(void);\nint _start(void) { return ocpcan_future(); }\n");
    let (so, made) = (scratch.path("libc.so.6"), scratch.path("program"));
    let cc = |words: &[&dyn AsRef<std::ffi::OsStr>]| {
        let done = output(Command::new("cc").arg("-nostdlib").args(words.iter().map(AsRef::as_ref)));
        assert!(done.status.success(), "{}", said(&done));
    };
    let script = format!("-Wl,--version-script={}", versions.display());
    cc(&[&"-shared", &"-Wl,-soname,libc.so.6", &script, &"-o", &so, &library]);
    cc(&[&"-o", &made, &program, &so]);
    let refused = glibc_need(&made, "2.36");
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("needs glibc 2.39, newer than 2.36"), "{}", said(&refused));
    let taken = glibc_need(&made, "2.39");
    assert_eq!((taken.status.code(), said(&taken).as_str()), (Some(0), "2.39\n"));
    // By number, not by letter: 2.9 is older than 2.36.
    assert_eq!(glibc_need(&made, "2.9").status.code(), Some(1));
    // What cannot be told is not passed.
    for not_a_program in [&versions, &scratch.path("missing")] {
        assert_eq!(glibc_need(not_a_program, "2.36").status.code(), Some(69), "{}", not_a_program.display());
    }
}

// Scripts.

/// Every shell script below `deploy/`.
fn scripts() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(ROOT).join("deploy")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if fs::read(&path).unwrap().starts_with(b"#!") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn shellcheck_finds_nothing_and_every_script_can_be_run() {
    let scripts = scripts();
    assert!(scripts.len() >= 13, "{scripts:?}");
    for script in &scripts {
        assert!(fs::metadata(script).unwrap().permissions().mode() & 0o111 == 0o111, "{}", script.display());
    }
    let done = output(Command::new("shellcheck").args(&scripts));
    assert!(done.status.success(), "{}", said(&done));
}

#[test]
fn the_shipped_file_is_not_configured_and_a_wrong_a_lost_or_a_cut_one_is() {
    let scratch = Scratch::new("configured");
    let is_configured = |path: &Path| output(Command::new(deploy("lib/configured")).arg(path)).status.code();
    assert_eq!(is_configured(&deploy("debian/ocpcan.toml")), Some(1), "as the package ships it");
    // Whoever had a configuration must hear that it is gone, or what is left of it.
    assert_eq!(is_configured(&scratch.path("missing.toml")), Some(0));
    assert_eq!(is_configured(&scratch.put("empty.toml", "")), Some(0));
    assert_eq!(is_configured(&scratch.put("cut.toml", " \n\t# role = \"vehicle\"\n")), Some(0));
    assert_eq!(is_configured(&scratch.put("wrong.toml", "# x\n  role = \n")), Some(0));
    let shipped = fs::read_to_string(deploy("debian/ocpcan.toml")).unwrap();
    assert_eq!(
        is_configured(&scratch.put("written.toml", &format!("{shipped}\nrole = \"vehicle\"\n"))),
        Some(0)
    );
    assert_eq!(is_configured(&deploy("ocpcan.example.toml")), Some(0));
    // The program refuses the file as it is shipped, and names what is missing.
    let check = output(Command::new(OCPCAN).arg("check").arg("--config").arg(deploy("debian/ocpcan.toml")));
    assert_eq!(check.status.code(), Some(78));
    assert!(said(&check).contains("role: is missing"), "{}", said(&check));
    // What systemd calls after it passed over the start has nothing to do, and nothing to complain about.
    let mut safe_stop = Command::new(OCPCAN);
    safe_stop.arg("safe-stop").arg("--config").arg(deploy("debian/ocpcan.toml"));
    let loud = output(&mut safe_stop);
    assert_eq!(loud.status.code(), Some(78));
    let quiet = output(safe_stop.env("SERVICE_RESULT", "exec-condition"));
    assert_eq!((quiet.status.code(), said(&quiet).as_str()), (Some(0), ""));
}

/// `can-link` with a kernel and an `ip` of its own.
struct Links(Scratch);

impl Links {
    fn new(name: &str) -> Self {
        let links = Self(Scratch::new(name));
        links.0.program("bin/ip", "#!/bin/sh\necho \"ip $*\" >> \"$LOG\"\n");
        for (name, kind) in [("can0", 280), ("can1", 280), ("eth0", 1)] {
            links.0.put(&format!("sys/{name}/type"), &format!("{kind}\n"));
            links.0.put(&format!("sys/{name}/flags"), "0x40081\n");
        }
        fs::create_dir_all(links.0.path("runtime")).unwrap();
        fs::create_dir_all(links.0.path("state")).unwrap();
        links
    }

    /// Runs it; returns its exit code, what it said, and the calls of `ip` since the last time.
    fn run(&self, words: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
        let _ = fs::remove_file(self.0.path("log"));
        let done = output(
            Command::new(deploy("lib/can-link"))
                .args(words)
                .envs(environment.iter().copied())
                .env("PATH", format!("{}:{SYSTEM_PATH}", self.0.path("bin").display()))
                .env("LOG", self.0.path("log"))
                .env("OCPCAN_SYS", self.0.path("sys"))
                .env("OCPCAN_BIN", OCPCAN),
        );
        (done.status.code(), said(&done), self.0.read("log"))
    }

    fn requests(&self) -> (Option<i32>, String, String) {
        let [runtime, state] = ["runtime", "state"].map(|name| self.0.path(name).display().to_string());
        self.run(&["requests", &runtime, &state], &[])
    }
}

const CYCLE: &str = "ip link set can0 down\nip link set can0 up\n";

#[test]
fn row_53_a_bus_is_restarted_at_most_four_times_a_minute() {
    let links = Links::new("requests");
    let ask = |name: &str| drop(links.0.put(&format!("runtime/restart-{name}"), ""));
    for round in 0..6 {
        ask("can0");
        let (code, said, calls) = links.requests();
        assert_eq!(code, Some(0), "{said}");
        let allowed = round < 4;
        assert_eq!(calls, if allowed { CYCLE } else { "" }, "round {round}: {said}");
        assert_eq!(said.contains("not again before it is over"), !allowed, "{said}");
        assert!(
            !links.0.path("runtime/restart-can0").exists(),
            "what stays would start the unit again without end"
        );
    }
    // One interface's count is not the other's.
    ask("can1");
    assert_eq!(links.requests().2, CYCLE.replace("can0", "can1"));
    // A minute later the count begins anew.
    let now: u64 = fs::read_to_string("/proc/uptime").unwrap().split('.').next().unwrap().parse().unwrap();
    links.0.put("state/can0", &format!("{0}\n{0}\n{0}\n{0}\nnoise\n", now.saturating_sub(60)));
    ask("can0");
    assert_eq!(links.requests().2, CYCLE);
}

#[test]
fn what_is_no_can_interface_is_never_touched() {
    let links = Links::new("names");
    for name in ["eth0", "none0", "can0;reboot", "can0 up", "..", "-a", "can0name-that-is-too-long"] {
        links.0.put(&format!("runtime/restart-{name}"), "");
    }
    // Neither a folder nor a link to somewhere stays behind, and what it leads to does.
    fs::create_dir(links.0.path("runtime/restart-folder")).unwrap();
    let kept = links.0.put("kept", "kept");
    symlink(&kept, links.0.path("runtime/restart-link")).unwrap();
    let (code, said, calls) = links.requests();
    assert_eq!((code, calls.as_str()), (Some(0), ""), "{said}");
    assert_eq!(fs::read_dir(links.0.path("runtime")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(links.0.path("state")).unwrap().count(), 0);
    assert!(kept.exists());
    assert_eq!(links.requests(), (Some(0), String::new(), String::new()));
}

#[test]
fn an_interface_comes_up_with_its_bit_rate_or_not_at_all() {
    let links = Links::new("up");
    let (code, _, calls) = links.run(&["up", "can0"], &[("BITRATE", "500000"), ("TXQUEUELEN", "8")]);
    assert_eq!(code, Some(0));
    let calls: Vec<&str> = calls.lines().collect();
    let wanted = [
        "ip link set can0 down",
        "ip link set can0 txqueuelen 8",
        "ip -details link show can0",
        "ip link set can0 type can bitrate 500000 restart-ms 0",
        "ip link set can0 type can berr-reporting on",
        "ip link set can0 up",
    ];
    assert_eq!(calls, wanted);
    let fd = [("BITRATE", "500000"), ("DATA_BITRATE", "2000000"), ("SAMPLE_POINT", "0.875")];
    let (_, _, calls) = links.run(&["up", "can0"], &fd);
    let line =
        "ip link set can0 type can bitrate 500000 sample-point 0.875 dbitrate 2000000 fd on restart-ms 0\n";
    assert!(calls.contains(line), "{calls}");
    // A guessed bit rate would disturb everybody on the bus.
    let (code, said, calls) = links.run(&["up", "can0"], &[]);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("/etc/ocpcan/can0.env") && !calls.contains("can0 up"), "{said}{calls}");
    let (code, _, calls) = links.run(&["up", "eth0"], &[("BITRATE", "500000")]);
    assert_eq!((code, calls.as_str()), (Some(69), ""));
    assert_eq!(links.run(&["up"], &[]).0, Some(64));
}

#[test]
fn queues_are_purged_of_the_interfaces_that_the_configuration_names() {
    let links = Links::new("purge");
    let purge = |path: &Path| links.run(&["purge", &path.display().to_string()], &[]);
    assert_eq!(purge(&deploy("ocpcan.example.toml")).2, CYCLE);
    assert_eq!(purge(&deploy("operator.example.toml")).2, CYCLE);
    // Down stays down: somebody wanted it so.
    links.0.put("sys/can0/flags", "0x40080\n");
    assert_eq!(purge(&deploy("ocpcan.example.toml")), (Some(0), String::new(), String::new()));
    // A second gateway is refused, and must not take the bus from the first on its way there.
    for name in ["can5", "can6"] {
        links.0.put(&format!("sys/{name}/type"), "280\n");
        links.0.put(&format!("sys/{name}/flags"), "0x40081\n");
    }
    let text = fs::read_to_string(deploy("ocpcan.example.toml")).unwrap();
    links.0.put("example.dbc", &fs::read_to_string(deploy("example.dbc")).unwrap());
    let [driven, free] = ["can5", "can6"]
        .map(|name| links.0.put(&format!("{name}.toml"), &text.replace("\"can0\"", &format!("\"{name}\""))));
    let lock = BusLock::take(&"can5".parse::<BusAddress>().unwrap()).unwrap();
    let (code, said, calls) = purge(&driven);
    assert_eq!((code, calls.as_str()), (Some(0), ""), "{said}");
    assert!(said.contains("can5: a gateway drives it"), "{said}");
    assert_eq!(purge(&free).2, CYCLE.replace("can0", "can6"));
    drop(lock);
    assert_eq!(purge(&driven).2, CYCLE.replace("can0", "can5"));
    // It never keeps the gateway from starting.
    assert_eq!(purge(Path::new("/nowhere/x.toml")).0, Some(0));
}

#[test]
fn an_upgrade_restarts_only_what_stands_and_is_accepted() {
    let scratch = Scratch::new("upgraded");
    scratch.program(
        "bin/systemctl",
        r#"#!/bin/sh
echo "systemctl $*" >> "$LOG"
case "$*" in
    *is-active*) [ "$ACTIVE" = yes ] ;;
    *StatusText*) echo "$STATUS_TEXT" ;;
    *=User*) echo ocpcan ;;
    *InaccessiblePaths*) echo "-/opt -/srv" ;;
esac
"#,
    );
    scratch.program(
        "bin/systemd-run",
        r#"#!/bin/sh
echo "systemd-run $*" >> "$LOG"
until [ "$1" = -- ]; do shift; done
shift
exec "$@"
"#,
    );
    scratch.program(
        "bin/ocpcan",
        r#"#!/bin/sh
echo "ocpcan $*" >> "$LOG"
case $1 in
    check)
        [ "$CHECK" != impossible ] || { echo "Failed to start transient service unit" >&2; exit 1; }
        [ "$CHECK" = good ] || { echo "ocpcan: arm.switch: is wrong" >&2; exit 78; }
        [ "$2" != --json ] || printf '{\n  "bus": {\n    "listen": "x:1"\n  },\n  "rcsp": {\n    "listen": "127.0.0.1:4711",\n  }\n}\n'
        ;;
    status)
        case "$*" in *"--port 4711"*) ;; *) exit 69 ;; esac
        [ -n "$STATE" ] || exit 69
        echo "{\"Buses\":[{\"State\":\"Up\"}],\"State\":\"$STATE\",\"Uptime\":1}"
        exit 1
        ;;
esac
"#,
    );
    let upgraded = |active: &str, check: &str, state: &str, status_text: &str| {
        let _ = fs::remove_file(scratch.path("log"));
        let done = output(
            Command::new(deploy("lib/upgraded"))
                .env("PATH", format!("{}:{SYSTEM_PATH}", scratch.path("bin").display()))
                .env("LOG", scratch.path("log"))
                .env("ACTIVE", active)
                .env("CHECK", check)
                .env("STATE", state)
                .env("STATUS_TEXT", status_text),
        );
        assert_eq!(done.status.code(), Some(0), "{}", said(&done));
        (scratch.read("log").contains("systemctl restart ocpcan.service"), said(&done))
    };
    for state in ["INIT", "SAFE", "STANDBY", "READY"] {
        assert!(upgraded("yes", "good", state, "").0, "{state}");
        assert!(upgraded("yes", "good", "", state).0, "{state}, told by systemd alone");
    }
    for state in ["ARMED", "STOPPING", "LOCKOUT", "DIAG", ""] {
        for (rcsp, text) in [(state, "SAFE"), ("", state)] {
            if rcsp.is_empty() && text == "SAFE" {
                continue;
            }
            let (restarted, said) = upgraded("yes", "good", rcsp, text);
            let named = if state.is_empty() { "unknown" } else { state };
            assert!(!restarted, "{state}: {said}");
            assert!(
                said.contains(&format!("state is {named}")) && said.contains("systemctl restart ocpcan"),
                "{said}"
            );
        }
    }
    // By the service's user, where the service looks: what root may read says nothing.
    let log = scratch.read("log");
    let check = log.lines().find(|line| line.starts_with("systemd-run ")).unwrap_or_else(|| panic!("{log}"));
    for part in
        ["--property=User=ocpcan ", "--property=InaccessiblePaths=-/opt -/srv ", " -- ocpcan check --quiet"]
    {
        assert!(check.contains(part), "{part}: {check}");
    }
    let (restarted, said) = upgraded("yes", "bad", "SAFE", "SAFE");
    assert!(!restarted && said.contains("arm.switch") && said.contains("NOT restarted"), "{said}");
    let (restarted, said) = upgraded("yes", "impossible", "SAFE", "SAFE");
    assert!(!restarted && said.contains("could not be tried (1)") && !said.contains("refuses"), "{said}");
    assert_eq!(
        upgraded("no", "good", "SAFE", "SAFE"),
        (false, String::new()),
        "what was stopped stays stopped"
    );
}

// Units.

/// The values of a key in a unit, in their order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn the_units_sandbox_is_scored_at_most_1_5() {
    for (name, most) in
        [("ocpcan.service", 1.5), ("ocpcan-can-restart.service", 4.0), ("ocpcan-can@.service", 4.5)]
    {
        // A template is judged by an instance.
        let scratch = Scratch::new("score");
        let unit = scratch.path(&name.replace('@', "@can0"));
        fs::copy(deploy("systemd").join(name), &unit).unwrap();
        let done = output(
            Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager"]).arg(&unit),
        );
        let text = said(&done);
        let line = text
            .lines()
            .find(|line| line.contains("Overall exposure level"))
            .unwrap_or_else(|| panic!("{text}"));
        println!("{}", line.trim_start_matches(['→', ' ']));
        let score: f64 = line.split(": ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(score <= most, "{name}: {score}, at most {most}\n{text}");
    }
}

#[test]
fn the_unit_says_what_the_core_depends_on() {
    let unit = fs::read_to_string(deploy("systemd/ocpcan.service")).unwrap();
    let wanted = [
        ("Type", "notify"),
        ("WatchdogSec", "1s"),
        ("WatchdogSignal", "SIGKILL"),
        ("Restart", "always"),
        ("RestartSec", "100ms"),
        ("StartLimitIntervalSec", "0"),
        ("RestartPreventExitStatus", "64 78"),
        ("LimitRTPRIO", "49"),
        ("LimitMEMLOCK", "infinity"),
        ("LimitCORE", "0"),
        ("RuntimeDirectoryPreserve", "yes"),
        ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6 AF_CAN AF_NETLINK"),
        ("User", "ocpcan"),
    ];
    for (key, value) in wanted {
        assert_eq!(values(&unit, key), [value], "{key}");
    }
    assert!(values(&unit, "ExecStopPost").iter().all(|line| line.starts_with("/usr/bin/ocpcan safe-stop ")));
    // systemd must not cut the stop profile short.
    let longest =
        ocpcan::safety::settings::BOUNDS.iter().find(|bound| bound.key == "stopping_ms").unwrap().max_ms;
    let limit: u32 = values(&unit, "TimeoutStopSec")[0].trim_end_matches('s').parse().unwrap();
    assert!(limit * 1_000 >= longest + 5_000, "{limit} s for a stop profile of {longest} ms");
}

#[test]
fn what_the_package_takes_from_here_exists() {
    let manifest: toml::Table =
        fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).unwrap().parse().unwrap();
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().unwrap();
    assert!(assets.len() > 15);
    let mut missing = String::new();
    for asset in assets {
        let from = asset[0].as_str().unwrap();
        let (folder, name) = from.rsplit_once('/').unwrap_or((".", from));
        let (before, after) = name.split_once('*').unwrap_or((name, ""));
        let exact = !name.contains('*');
        let matches =
            |file: &str| if exact { file == name } else { file.starts_with(before) && file.ends_with(after) };
        let found = fs::read_dir(Path::new(ROOT).join(folder)).is_ok_and(|entries| {
            entries.flatten().any(|entry| matches(&entry.file_name().to_string_lossy()))
        });
        if !from.starts_with("target/") && !found {
            let _ = writeln!(missing, "{from}");
        }
    }
    assert!(missing.is_empty(), "{missing}");
}

#[test]
fn the_release_notes_are_the_changelogs_section_or_nothing_is_released() {
    let notes = |version: &str| output(Command::new(deploy("release-notes")).arg(version));
    let text = said(&notes("Unreleased"));
    assert!(text.contains("`ocpcan run`") && !text.contains("## ["), "{text}");
    for unknown in ["9.9.9", "Unrel"] {
        assert_eq!(notes(unknown).status.code(), Some(1), "{unknown}");
    }
    // What the workflow calls is here.
    let workflow = fs::read_to_string(Path::new(ROOT).join(".github/workflows/release.yml")).unwrap();
    for script in ["deploy/release-notes", "deploy/build-aarch64"] {
        assert!(workflow.contains(script) && Path::new(ROOT).join(script).exists(), "{script}");
    }
}

// Init scripts, under BusyBox.

/// A system of BusyBox alone, with the scripts as a package would put them there.
struct BusyBox {
    scratch: Scratch,
    bus: BusAddress,
}

impl BusyBox {
    fn new(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let applets = scratch.path("bin");
        fs::create_dir(&applets).unwrap();
        let done = output(Command::new("busybox").args(["--install", "-s"]).arg(&applets));
        assert!(done.status.success(), "{}", said(&done));
        let shell = format!("#!{}\n", applets.join("sh").display());
        for script in scripts() {
            let text = fs::read_to_string(&script).unwrap();
            let place = script.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
            let name = script.file_name().unwrap().to_string_lossy().into_owned();
            scratch.program(&format!("{place}/{name}"), &text.replacen("#!/bin/sh\n", &shell, 1));
        }
        // A name on the built-in bus has few letters.
        let bus = format!("sim:{}{}", name.chars().next().unwrap(), std::process::id());
        fs::copy(deploy("example.dbc"), scratch.path("example.dbc")).unwrap();
        let example = fs::read_to_string(deploy("ocpcan.example.toml")).unwrap();
        let text =
            example.replace("\"can0\"", &format!("\"{bus}\"")).replace("# enabled = true", "enabled = false");
        scratch.put("ocpcan.toml", &text);
        Self { scratch, bus: bus.parse().unwrap() }
    }

    fn call(&self, script: &str, action: &str) -> (Option<i32>, String) {
        let path = |name: &str| self.scratch.path(name);
        // Not through pipes: what is started in the background would keep them open.
        let said = path("said");
        let file = fs::File::create(&said).unwrap();
        let user = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name;
        let status = Command::new(path("bin/sh"))
            .arg(path("init").join(script))
            .arg(action)
            .env_clear()
            .env("PATH", path("bin"))
            .env("OCPCAN_SUPERVISE", path("lib/supervise"))
            .env("OCPCAN_PIDFILE", path("pid"))
            .env("OCPCAN_BIN", OCPCAN)
            .env("OCPCAN_CONFIG", path("ocpcan.toml"))
            .env("OCPCAN_USER", user)
            .env("OCPCAN_RUNTIME", path("runtime"))
            .env("OCPCAN_STATE", path("state"))
            .env("OCPCAN_LOG", path("log"))
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .status()
            .unwrap();
        (status.code(), fs::read_to_string(said).unwrap())
    }

    /// The gateway's process, once there is one that drives the bus and is not that one.
    fn gateway_other_than(&self, old: i32) -> i32 {
        let what = format!("a gateway; the log says:\n{}", self.scratch.read("log"));
        wait_for(&what, || BusLock::holder(&self.bus).filter(|pid| *pid != old))
    }

    fn wait_for_log(&self, word: &str, times: usize) {
        wait_for(&format!("{word:?} in\n{}", self.scratch.read("log")), || {
            (self.scratch.read("log").matches(word).count() >= times).then_some(())
        });
    }
}

impl Drop for BusyBox {
    fn drop(&mut self) {
        // A failed test must leave nothing running; a good one has left nothing.
        let _ = self.call("S80ocpcan", "stop");
    }
}

fn starts_stops_and_restarts(script: &str) {
    let machine = BusyBox::new(script);
    let (code, said) = machine.call(script, "start");
    assert_eq!(code, Some(0), "{said}");
    let first = machine.gateway_other_than(0);
    machine.wait_for_log("INIT -> SAFE", 1);
    assert_eq!(machine.call(script, "start").0, Some(0));
    assert_eq!(BusLock::holder(&machine.bus), Some(first), "started twice is started once");

    // What the gateway asks for is looked at, and taken away.
    machine.scratch.put("runtime/restart-none0", "");
    machine.wait_for_log("is no CAN interface's: ignored", 1);
    assert!(!machine.scratch.path("runtime/restart-none0").exists());

    // Killed: safe frames, and another one.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL).unwrap();
    let second = machine.gateway_other_than(first);
    machine.wait_for_log("safe frames sent", 1);
    // Earlier, SIGTERM finds no handler yet.
    machine.wait_for_log("INIT -> SAFE", 2);

    let (code, said) = machine.call(script, "restart");
    assert_eq!(code, Some(0), "{said}");
    machine.gateway_other_than(second);
    machine.wait_for_log("ended, exit 0", 1);
    machine.wait_for_log("INIT -> SAFE", 3);

    let (code, said) = machine.call(script, "stop");
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(BusLock::is_taken(&machine.bus), Ok(false), "it has ended when `stop` comes back");
    machine.wait_for_log("ended, exit 0", 2);
    assert!(!machine.scratch.path("pid").exists());
    assert_eq!(machine.call(script, "stop").0, Some(0), "stopped twice is stopped");
    assert_eq!(machine.call(script, "nonsense").0, Some(if script.ends_with("lsb") { 2 } else { 64 }));

    // A configuration that is refused is not tried again and again.
    let log = machine.scratch.path("log");
    fs::remove_file(&log).unwrap();
    machine.scratch.put("ocpcan.toml", "role = \"vehicle\"\n");
    machine.call(script, "start");
    machine.wait_for_log("nothing is sent", 1);
    wait_for("the end of supervise", || {
        let pid = machine.scratch.read("pid");
        (!Path::new("/proc").join(pid.trim()).join("exe").exists()).then_some(())
    });
    assert_eq!(machine.scratch.read("log").matches("ocp: is missing").count(), 2, "by run, and by safe-stop");

    // The one that is shipped is not tried at all.
    machine.scratch.put("ocpcan.toml", &fs::read_to_string(deploy("debian/ocpcan.toml")).unwrap());
    let (_, said) = machine.call(script, "start");
    assert!(said.contains("not configured yet"), "{said}");
    assert_eq!(BusLock::is_taken(&machine.bus), Ok(false));
}

#[test]
fn the_busybox_script_starts_stops_and_restarts_a_gateway() {
    starts_stops_and_restarts("S80ocpcan");
}

#[test]
fn the_lsb_script_starts_stops_and_restarts_a_gateway_and_tells_its_status() {
    starts_stops_and_restarts("ocpcan.lsb");
    let machine = BusyBox::new("status");
    assert_eq!(machine.call("ocpcan.lsb", "status").0, Some(3));
    assert_eq!(machine.call("ocpcan.lsb", "start").0, Some(0));
    machine.gateway_other_than(0);
    assert_eq!(machine.call("ocpcan.lsb", "status").0, Some(0));
    assert_eq!(machine.call("ocpcan.lsb", "stop").0, Some(0));
    assert_eq!(machine.call("ocpcan.lsb", "status").0, Some(3));
}
