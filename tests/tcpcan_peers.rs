//! The tunnel against the real Python tcpcan: every pairing, every kind of frame, over clean and bad links, and what each
//! program does with what kills the other.
//!
//! Relies on `peers/mod.rs`: both programs run as they are, on buses that need no kernel CAN. "Ours" is one side of every
//! table; what Python does is asserted where it always does the same. Python against Python is printed, not asserted: it
//! loses by itself. Interfaces that go down or away need real ones: `tests/vm/tcpcan.py`.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests start programs and threads and wait for events"
)]

#[path = "peers/faults.rs"]
mod faults;
#[path = "peers/mod.rs"]
mod peers;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peers::{Flow, Joined, Link, Peer, counters};

/// Rates are only kept if the tests of this file run one after another.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who serves, who calls.
const PAIRINGS: [(Peer, Peer); 4] = [
    (Peer::Ours, Peer::Ours),
    (Peer::Python, Peer::Ours),
    (Peer::Ours, Peer::Python),
    (Peer::Python, Peer::Python),
];

/// A busy test machine may hold a process for longer than the default of 250 ms, and that must not look like a loss.
const OLD: [&str; 2] = ["--max-age-ms", "5000"];

/// Nothing lost, doubled, late or changed.
fn is_perfect(flow: &Flow) -> bool {
    ["lost", "doubled", "late", "corrupt"].iter().all(|key| flow.count(key) == 0) && flow.count("sent") > 0
}

/// Runs one load over a pairing; a connection that ended while it ran counts as a fault.
fn run(server: Peer, client: Peer, link: Option<&Link>, load: &[&str], ours: &[&str]) -> (bool, String) {
    let mut joined = Joined::new(server, client, link, load, ours);
    joined.go();
    let flows = joined.flows();
    let mut text = String::new();
    for flow in &flows {
        text.push_str(&format!("\n    {flow}"));
    }
    let mut is_good = flows.len() == 2 && flows.iter().all(is_perfect);
    for (peer, program) in [(server, &mut joined.server), (client, &mut joined.client)] {
        if let Some(status) = program.ended() {
            is_good = false;
            text.push_str(&format!("\n    {peer} has ended: {status}; {:?}", program.lines()));
            continue;
        }
        if peer == Peer::Ours {
            let status = program.terminate();
            let counted = counters(program, 0);
            is_good &= status.success() && counted.get("connections agreed") == Some(&1);
            for (reason, number) in counted {
                text.push_str(&format!("\n    {number} {reason}"));
            }
        }
    }
    (is_good, text)
}

#[test]
fn every_pairing_carries_every_kind_of_frame_both_ways_at_8000_a_second() {
    let _alone = alone();
    let mut failed = Vec::new();
    for (server, client) in PAIRINGS {
        let load = ["--kind", "mixed", "--both", "--rate", "8000", "--count", "16000", "--patient"];
        let (is_good, text) = run(server, client, None, &load, &OLD);
        println!("{server} serves, {client} calls: {}{text}", if is_good { "whole" } else { "NOT whole" });
        if !is_good && (server, client) != (Peer::Python, Peer::Python) {
            failed.push(format!("{server} / {client}{text}"));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn no_frame_and_no_connection_is_lost_on_a_link_with_delay() {
    let _alone = alone();
    let mut failed = Vec::new();
    for rtt_ms in [1, 10, 40] {
        for (server, client) in PAIRINGS {
            let link = Link::new(rtt_ms, 0);
            let load = ["--kind", "mixed", "--both", "--rate", "8000", "--count", "16000", "--patient"];
            // Python against Python ends the server here; that is told below and not run again for each delay.
            if (server, client) == (Peer::Python, Peer::Python) {
                continue;
            }
            let (is_good, text) = run(server, client, Some(&link), &load, &OLD);
            println!(
                "RTT {rtt_ms} ms, {server} serves, {client} calls: {}{text}",
                if is_good { "whole" } else { "NOT whole" }
            );
            if !is_good {
                failed.push(format!("RTT {rtt_ms} ms: {server} / {client}{text}"));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn a_link_that_loses_a_packet_in_a_hundred_loses_no_frame() {
    let _alone = alone();
    let mut failed = Vec::new();
    for (server, client) in PAIRINGS {
        for age in [&OLD[..], &[]] {
            if (server, client) == (Peer::Python, Peer::Python) {
                continue;
            }
            let link = Link::new(10, 1);
            let load = ["--kind", "mixed", "--both", "--rate", "2000", "--count", "6000", "--patient"];
            let (is_good, text) = run(server, client, Some(&link), &load, age);
            let what = if age.is_empty() { "default age limit, drops what is late" } else { "age limit 5 s" };
            println!(
                "RTT 10 ms, 1 % loss, {server} serves, {client} calls, {what}: {}{text}",
                if is_good { "whole" } else { "NOT whole" }
            );
            if !is_good && !age.is_empty() {
                failed.push(format!("{server} / {client}{text}"));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn after_an_outage_of_15_s_no_old_frame_arrives_and_every_frame_is_accounted_for() {
    let _alone = alone();
    let mut link = Link::new(4, 0);
    let load = ["--rate", "500", "--seconds", "22", "--age-limit-ms", "250", "--idle-ms", "3000"];
    let mut joined = Joined::new(Peer::Ours, Peer::Ours, Some(&link), &load, &[]);
    joined.go();
    std::thread::sleep(Duration::from_secs(2)); // the stimulus: frames flow, then do not for 15 s
    link.cut();
    std::thread::sleep(Duration::from_secs(15));
    link.mend();
    let flow = joined.flows().swap_remove(0);
    println!("outage of 15 s, ours: {flow}, {} older than 250 ms", flow.count("old"));
    assert!(joined.server.terminate().success());
    assert!(joined.client.terminate().success());
    let (server, client) = (counters(&joined.server, 0), counters(&joined.client, 0));
    println!("server {server:#?}\nclient {client:#?}");
    assert_eq!(flow.count("old"), 0, "frames older than the limit: {flow}");
    assert_eq!(flow.count("corrupt") + flow.count("doubled") + flow.count("late"), 0, "{flow}");
    // Two seconds before and five after, less a reconnection of five seconds at most.
    assert!(flow.count("received") > 1_000, "it never came back: {flow}");

    let sum = |counters: &std::collections::BTreeMap<String, u64>, start: &str| -> u64 {
        counters.iter().filter(|(reason, _)| reason.starts_with(start)).map(|(_, number)| number).sum()
    };
    let of = |counters: &std::collections::BTreeMap<String, u64>, reason: &str| {
        counters.get(reason).copied().unwrap_or(0)
    };
    assert_eq!(of(&server, "frames read from the bus"), sum(&server, "to peers: "), "{server:#?}");
    assert_eq!(of(&client, "frames read from peers"), sum(&client, "from peers: "), "{client:#?}");
    // What was in flight may have arrived or not: the one number that the two ends do not know.
    let arrived = of(&client, "frames read from peers");
    let confirmed = of(&server, "to peers: frames acknowledged");
    let unknown = of(&server, "to peers: frames in flight when the connection ended (each may have arrived)");
    assert!(
        (confirmed..=confirmed + unknown).contains(&arrived),
        "{confirmed} to +{unknown}, but {arrived} arrived"
    );
}
