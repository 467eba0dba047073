//! The table of threads and channels is what the documents show and what runs.
//!
//! Owns the comparison with ARCHITECTURE.md, with the command's output and with the kernel's list of threads. Relies on
//! the rig of the benches for a running gateway. Never compares a priority: it needs a right that a test may not have.

#[path = "../benches/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::process::Command;

use ocpcan::io::clock;
use ocpcan::io::confine::Family;
use ocpcan::time::Duration;
use ocpcan::topology::{self, Edge, Thread};
use support::Rig;

#[test]
fn architecture_md_holds_the_table_letter_by_letter() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/ARCHITECTURE.md")).unwrap();
    assert!(
        text.contains(&topology::table()),
        "ARCHITECTURE.md does not hold the output of `ocpcan topology`:\n{}",
        topology::table()
    );
}

#[test]
fn the_command_prints_the_table() {
    let output = Command::new(env!("CARGO_BIN_EXE_ocpcan")).arg("topology").output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&topology::table()), "{text}");
}

#[test]
fn every_channel_is_bounded_and_ends_where_a_thread_is() {
    for edge in Edge::ALL {
        let spec = edge.spec();
        assert!(spec.depth > 0 && spec.message_bytes > 0, "{}", edge.name());
        assert!(!spec.why.is_empty());
        assert_ne!(spec.from, spec.to, "{}", edge.name());
        assert!(Thread::ALL.contains(&spec.from) && Thread::ALL.contains(&spec.to));
    }
    let bytes: usize = topology::memory().map(|(_, bytes)| bytes).sum();
    println!("all channels: {bytes} bytes");
    assert!(bytes > 0);
}

#[test]
fn only_real_time_threads_send_to_the_watchdog() {
    // The channel's waker holds a lock: a normal thread that is preempted inside would hold up the watchdog.
    for edge in Edge::ALL {
        let spec = edge.spec();
        if spec.to == Thread::Watchdog {
            assert!(spec.from.spec().priority.is_some(), "{}", edge.name());
        }
    }
    let watchdog = Thread::Watchdog.spec().priority.unwrap();
    for thread in [Thread::Ocp, Thread::Can] {
        assert!(thread.spec().priority.unwrap() < watchdog);
    }
    assert!(watchdog < 50, "below the kernel's interrupt threads");
}

/// The threads of this process by name, without those of the test itself and of the built-in bus.
fn running() -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let name = name.trim().to_owned();
        if ["ocp", "watchdog"].contains(&name.as_str()) || name.starts_with("can-") {
            *names.entry(name).or_insert(0) += 1;
        }
    }
    names
}

fn all_tasks() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn the_threads_are_those_of_the_table_and_none_is_started_later() {
    let mut rig = Rig::start("sim:topology", false, &[], |_| {});
    let expected: BTreeMap<String, usize> =
        [("can-vehicle", 1), ("ocp", 1), ("watchdog", 1)].map(|(name, n)| (name.to_owned(), n)).into();
    // A thread takes its name when it first runs.
    let deadline = clock::now() + Duration::from_secs(10);
    while running() != expected {
        assert!(clock::now() < deadline, "{:?}", running());
        rig.tend();
    }
    rig.arm(Duration::from_millis(10));
    assert_eq!(running(), expected, "while driving");
    rig.disconnect(true);
    rig.accept();
    rig.arm(Duration::from_millis(10));
    assert_eq!(running(), expected, "after a reconnect");
    println!("{} tasks with the test's own", all_tasks());
    rig.end();
    assert!(running().is_empty(), "{:?}", running());
}

#[test]
fn who_reads_what_others_sent_opens_no_file() {
    for thread in Thread::ALL {
        let (name, rights) = (thread.spec().name, thread.spec().rights);
        // main reads the configuration, the watchdog asks for a bus restart by a file; neither parses a byte of a stranger.
        assert_eq!(rights.files, matches!(thread, Thread::Main | Thread::Watchdog), "{name}");
        let may_can = rights.sockets.contains(&Family::Can);
        let opens_buses =
            matches!(thread, Thread::Main | Thread::Can | Thread::Tcpcan | Thread::Assetto | Thread::Station);
        assert_eq!(may_can, opens_buses, "{name}: a CAN socket is a way to the actuators");
    }
}
