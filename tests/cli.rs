//! The command line as a user meets it: the real binary, its exit codes, what goes to stdout and what to stderr.
//!
//! Owns the promises of `--help`, `--version`, `check`, `completions` and `man`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/ocpcan.example.toml");

fn ocpcan(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ocpcan")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// A copy of the example with changes, beside its DBC.
fn changed(name: &str, changes: &[(&str, &str)]) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{}-{name}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let deploy = Path::new(EXAMPLE).parent().unwrap();
    fs::copy(deploy.join("example.dbc"), directory.join("example.dbc")).unwrap();
    let mut text = fs::read_to_string(EXAMPLE).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    let path = directory.join("ocpcan.toml");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn version_names_the_commit() {
    let output = ocpcan(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    let text = out(&output).trim();
    let rest = text.strip_prefix(concat!("ocpcan ", env!("CARGO_PKG_VERSION"), " (")).expect(text);
    let rev = rest.strip_suffix(')').expect(text);
    assert!(!rev.is_empty());
    assert!(rev.chars().all(|c| c.is_ascii_graphic()), "{rev}");
    // In a working copy it is not unknown.
    if Path::new(env!("CARGO_MANIFEST_DIR")).join(".git").exists() {
        assert_ne!(rev, "unknown");
    }
}

#[test]
fn help_is_one_screen_and_goes_to_stdout() {
    let output = ocpcan(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(err(&output).is_empty());
    assert!(out(&output).lines().count() <= 24, "{}", out(&output));
    let also = out(&output).lines().find_map(|line| line.strip_prefix("Also: ")).map(str::to_owned).unwrap();
    for command in ["run", "check", "doctor", "monitor", "sim", "safe-stop", "topology", "completions", "man"]
    {
        let is_named = out(&output).contains(&format!("  {command} "))
            || also.trim_end_matches('.').split(", ").any(|name| name == command);
        assert!(is_named, "{command} is not in the help");
        let help = ocpcan(&[command, "--help"]);
        assert_eq!(help.status.code(), Some(0));
        assert!(out(&help).starts_with(char::is_uppercase), "{}", out(&help));
    }
}

#[test]
fn a_wrong_command_line_is_64_and_says_what_was_meant() {
    for args in
        [&[][..], &["chek"], &["check", "--confg", "x"], &["check", "--config"], &["completions"], &["--no"]]
    {
        let output = ocpcan(args);
        assert_eq!(output.status.code(), Some(64), "{args:?}");
        assert!(out(&output).is_empty(), "{args:?}: {}", out(&output));
        assert!(!err(&output).is_empty(), "{args:?}");
    }
    assert!(err(&ocpcan(&["chek"])).contains("check"));
}

#[test]
fn check_prints_the_mapping_down_to_bits() {
    let output = ocpcan(&["check", "--config", EXAMPLE]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(err(&output).is_empty());
    let text = out(&output);
    for wanted in [
        "vehicle    example",
        "OCP        127.0.0.1:4000",
        "bus        vehicle: can0, classic, echo required",
        "arm        buttons.start, at most 10 times a minute",
        "operator   counter user.counter",
        "standstill |VEHICLE_STATE.SPEED_KPH| <= 0.5",
        "send DRIVE_CMD 0x101 on vehicle, 8 bytes, every 20 ms",
        "STEER_ANGLE_CMD (steering)",
        "axes.left_x -1 | 0 | 1 -> -450 | 0 | 450, dead zone 0.05, expo 0.3",
        "axes.right_trigger -1 .. 1 -> 0 .. 100",
        "limits   0 .. 100, up 40/s, down any",
        "safe     30, by 60/s while stopping",
        "CRC-8 SAE J1850",
        "modulo 16",
        "user.steering_mode",
        "changes at standstill only",
        "receive VEHICLE_STATE 0x201 on vehicle, 8 bytes, stale after 100 ms, its loss trips",
        "VEHICLE_POS.LATITUDE, VEHICLE_POS.LONGITUDE",
        "operator_freeze_ms",
        "  275    0.76 m    2.29 m  operator gone",
        "Memory of the channels",
        "Warnings   none",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is not in\n{text}");
    }
}

#[test]
fn check_prints_each_problem_with_file_line_key_and_suggestion_and_ends_with_78() {
    let path = changed(
        "problems",
        &[
            ("switch = \"buttons.start\"", "switch = \"buttons.strat\""),
            ("[send.BODY_CMD]\nperiod_ms = 50", "[send.BODY_CMD]\nperiod_ms = 0"),
            ("safe = \"manual\"", "safe = \"manuel\""),
        ],
    );
    let output = ocpcan(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(78));
    assert!(out(&output).is_empty());
    let lines: Vec<&str> = err(&output).lines().collect();
    assert_eq!(lines.len(), 4, "{lines:#?}");
    let text = fs::read_to_string(&path).unwrap();
    let line_of = |needle: &str| 1 + text.lines().position(|l| l.contains(needle)).unwrap();
    let place = |needle: &str| format!("ocpcan: {}:{}: ", path.display(), line_of(needle));
    assert!(lines[0].starts_with(&format!("{}arm.switch: ", place("buttons.strat"))), "{}", lines[0]);
    assert!(lines[0].ends_with("did you mean `buttons.start`?"), "{}", lines[0]);
    assert!(
        lines[1].starts_with(&format!("{}send.BODY_CMD.period_ms: ", place("period_ms = 0"))),
        "{}",
        lines[1]
    );
    assert!(lines[2].ends_with("did you mean `manual`?"), "{}", lines[2]);
    assert!(lines[3].contains("3 problems"), "{}", lines[3]);
}

#[test]
fn check_of_a_missing_file_is_78_and_names_it() {
    let output = ocpcan(&["check", "--config", "/nowhere/x.toml"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(err(&output).contains("/nowhere/x.toml"), "{}", err(&output));
}

#[test]
fn check_reads_regular_files_only_and_waits_for_nobody() {
    let path = changed("fifo", &[("dbc = \"example.dbc\"", "dbc = \"pipe.dbc\"")]);
    let pipe = path.with_file_name("pipe.dbc");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // As a configuration, and as a DBC file that one names. Nobody ever writes into it.
    for (config, place) in [(&pipe, ""), (&path, "bus.vehicle.dbc: ")] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ocpcan"))
            .args(["check", "--config", config.to_str().unwrap()])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut word = [PollFd::new(child.stderr.as_ref().unwrap().as_fd(), PollFlags::POLLIN)];
        if poll(&mut word, PollTimeout::from(60_000_u16)).unwrap() == 0 {
            child.kill().unwrap();
            panic!("still waits for somebody to write into {}", pipe.display());
        }
        let output = child.wait_with_output().unwrap();
        let text = err(&output);
        assert_eq!(output.status.code(), Some(78), "{text}");
        assert!(
            text.contains(&format!("{place}{}: is no regular file but a FIFO,", pipe.display())),
            "{text}"
        );
    }
    let folder = ocpcan(&["check", "--config", path.parent().unwrap().to_str().unwrap()]);
    assert_eq!(folder.status.code(), Some(78));
    assert!(err(&folder).contains("is no regular file but a directory"), "{}", err(&folder));
    let device = ocpcan(&["check", "--config", "/dev/zero"]);
    assert!(err(&device).contains("is no regular file but a FIFO, a socket or a device"), "{}", err(&device));
}

#[test]
fn warnings_are_printed_and_do_not_fail() {
    let path = changed("warnings", &[("safe = 30 ", "safe = 0 ")]);
    let full = ocpcan(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(full.status.code(), Some(0));
    assert!(out(&full).contains("the vehicle rolls on"), "{}", out(&full));
    let quiet = ocpcan(&["check", "--quiet", "--config", path.to_str().unwrap()]);
    assert_eq!(quiet.status.code(), Some(0));
    assert!(out(&quiet).is_empty());
    assert!(err(&quiet).contains("warning: send.DRIVE_CMD.signals.BRAKE_CMD"), "{}", err(&quiet));
}

#[test]
fn a_reader_that_leaves_is_no_error_and_a_full_disk_is_74() {
    for args in [&["check", "--config", EXAMPLE][..], &["--help"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ocpcan"))
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", err(&output));
        assert!(err(&output).is_empty(), "{args:?}: {}", err(&output));
    }

    for args in [
        &["man"][..],
        &["completions", "bash"],
        &["--help"],
        &["--version"],
        &["run", "--help"],
        &["sim", "ocp", "--help"],
        &["sim", "ocp", "--commands"],
        &["check", "--config", EXAMPLE],
    ] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_ocpcan")).args(args).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(74), "{args:?}: {}", err(&output));
    }
}

#[test]
fn completions_exist_for_every_shell_and_name_the_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = ocpcan(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(out(&output).contains("monitor"), "{shell}");
    }
    // The script is one that bash can read.
    let script = ocpcan(&["completions", "bash"]).stdout;
    let path =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("completions-{}.bash", std::process::id()));
    fs::write(&path, script).unwrap();
    let status = Command::new("bash").arg("-n").arg(&path).status().unwrap();
    assert!(status.success());
    fs::remove_file(path).unwrap();
}

#[test]
fn manual_pages_are_printed_and_written() {
    let page = ocpcan(&["man"]);
    assert_eq!(page.status.code(), Some(0));
    assert!(out(&page).contains(".TH ocpcan"), "{}", out(&page));
    assert!(out(&page).contains("check"));
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("man-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let written = ocpcan(&["man", "--dir", directory.to_str().unwrap()]);
    assert_eq!(written.status.code(), Some(0), "{}", err(&written));
    assert!(directory.join("ocpcan.1").exists());
    assert!(directory.join("ocpcan-check.1").exists());
    fs::remove_dir_all(directory).unwrap();
    let nowhere = ocpcan(&["man", "--dir", "/proc/nowhere"]);
    assert_eq!(nowhere.status.code(), Some(74));
}

#[test]
fn the_demos_help_says_how_long_it_may_run() {
    let help = ocpcan(&["demo", "--help"]);
    assert!(out(&help).contains("10 to 86400 seconds"), "{}", out(&help));
    for wrong in ["9", "86401"] {
        assert_eq!(ocpcan(&["demo", "--seconds", wrong]).status.code(), Some(64), "{wrong}");
    }
}

#[test]
fn a_demo_that_cannot_record_says_so() {
    let bus = format!("sim:full{}", std::process::id());
    let output = Command::new(env!("CARGO_BIN_EXE_ocpcan"))
        .args(["demo", "--seconds", "10", "--record", "/dev/full", "--bus", &bus])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("the recording is not complete"), "{told}");
}

#[test]
fn row_103_and_105_a_sealed_file_that_was_cut_off_or_came_from_another_computer_is_not_driven_with() {
    let path = changed("seal", &[("interface = \"can0\"", "interface = \"sim:seal\"")]);
    let config = path.to_str().unwrap();
    let board = |number: &str| {
        let sys = path.parent().unwrap().join(number);
        let file = sys.join("firmware/devicetree/base/serial-number");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, number).unwrap();
        sys.to_str().unwrap().to_owned()
    };
    let (here, there) = (board("100000003d1f"), board("10000000aaaa"));
    let sealed = ocpcan(&["check", "--quiet", "--seal", "--config", config, "--sys", &here]);
    assert_eq!(sealed.status.code(), Some(0), "{}", err(&sealed));
    let refused = |sys: &str, why: &str| {
        let output = ocpcan(&["run", "--config", config, "--sys", sys]);
        assert_eq!(output.status.code(), Some(78), "{}", err(&output));
        assert!(err(&output).contains(why) && err(&output).contains("nothing is sent"), "{}", err(&output));
    };
    refused(&there, "sealed for computer 100000003d1f");
    // Cut off behind a table: what is left is a configuration, of a vehicle without times and management of its own.
    let whole = fs::read_to_string(&path).unwrap();
    let cut = whole.split("[rcsp]").next().unwrap();
    assert!(cut.len() < whole.len());
    fs::write(&path, cut).unwrap();
    let seal = path.with_extension("toml.seal");
    let kept = fs::read(&seal).unwrap();
    let check = |sys: &str| ocpcan(&["check", "--quiet", "--config", config, "--sys", sys]);
    fs::remove_file(&seal).unwrap();
    assert_eq!(check(&here).status.code(), Some(0), "the seal is what finds it");
    fs::write(&seal, kept).unwrap();
    // An upgrade asks `check` whether the new program would start.
    let checked = check(&here);
    assert!(
        checked.status.code() == Some(78) && err(&checked).contains("it was cut off"),
        "{}",
        err(&checked)
    );
    refused(&here, "it was cut off");
    let doctor = ocpcan(&["doctor", "--json", "--config", config, "--sys", &here]);
    assert_eq!(doctor.status.code(), Some(69));
    assert!(out(&doctor).contains("it was cut off"), "{}", out(&doctor));
    // Cut anywhere else it is refused with or without one, or by the seal.
    for size in (0..whole.len()).step_by(whole.len() / 12) {
        fs::write(&path, &whole.as_bytes()[..size]).unwrap();
        assert_eq!(
            ocpcan(&["run", "--config", config, "--sys", &here]).status.code(),
            Some(78),
            "{size} bytes"
        );
    }
}

#[test]
fn the_doctor_reports_a_supply_that_is_too_weak_and_ends_with_69() {
    let path = changed("doctor", &[("interface = \"can0\"", "interface = \"nosuchcan0\"")]);
    let sys = path.parent().unwrap().join("sys");
    let firmware = sys.join("devices/platform/soc/soc:firmware");
    fs::create_dir_all(&firmware).unwrap();
    fs::write(firmware.join("get_throttled"), "50005\n").unwrap();
    let watchdog = sys.join("class/watchdog/watchdog0");
    fs::create_dir_all(&watchdog).unwrap();
    for (file, text) in [("identity", "A timer\n"), ("state", "active\n"), ("timeout", "15\n")] {
        fs::write(watchdog.join(file), text).unwrap();
    }
    let arguments = ["doctor", "--config", path.to_str().unwrap(), "--sys", sys.to_str().unwrap()];
    let output = ocpcan(&arguments);
    assert_eq!(output.status.code(), Some(69), "{}", out(&output));
    assert!(out(&output).contains("\nSupply     problem undervoltage"), "{}", out(&output));
    assert!(out(&output).contains("\nBus        problem vehicle: nosuchcan0: "), "{}", out(&output));
    assert!(out(&output).contains("\nHardware   ok      watchdog A timer: fed;"), "{}", out(&output));
    assert!(out(&output).contains("-> ") && err(&output).is_empty(), "{}", out(&output));
}
