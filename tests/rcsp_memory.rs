//! The memory of the RCSP server under eight clients of which one never reads and one sends a byte a second: bounded, and the
//! other six get every answer in order. And a header that announces 4 GiB reserves nothing.
//!
//! Relies on an allocator that counts what lives, for the server and the clients of this process together.

#![allow(unsafe_code, reason = "a counting allocator is the only witness of memory")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: it starts threads, waits with deadlines and fails by panicking"
)]

#[path = "rcsp/mod.rs"]
mod rcsp;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ocpcan::proto::rcsp::envelope;
use ocpcan::threads::rcsp::Ended;
use rcsp::{Bench, event, object};
use serde_json::json;

struct Counting;

/// Bytes that live now, the most that ever did, and the largest piece.
static LIVE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);

fn note(more: isize, piece: usize) {
    let live = LIVE.fetch_add(more, Ordering::Relaxed) + more;
    PEAK.fetch_max(live, Ordering::Relaxed);
    LARGEST.fetch_max(piece, Ordering::Relaxed);
}

// SAFETY: every call goes on to the system's allocator unchanged; the counts are plain atomics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size().cast_signed(), layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(-layout.size().cast_signed(), 0);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size.cast_signed() - layout.size().cast_signed(), size);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a client may cost by the limits: 256 KiB of answers and 256 KiB of events, what comes in, and an answer of 60 kB more.
const CLIENT: isize = 1 << 20;

/// Bytes of one event.
const EVENT: usize = 50_000;

/// One pipelined round of a client that behaves; the answers come in order, whatever events are in between.
fn round(client: &mut rcsp::Client) {
    let mut stream = Vec::new();
    for id in 0..100 {
        let name = if id % 10 == 0 { "Later" } else { "Now" };
        stream.extend(envelope::command(name, &id.to_string(), Some(object(json!({"Ms": 5})))));
    }
    client.send(&stream);
    for id in 0..100 {
        let answer = loop {
            let message = client.next().unwrap();
            if message.kind != 4 {
                break message;
            }
        };
        assert_eq!(answer.short(), format!("{id}:ok"));
    }
}

/// Bytes of events that were dropped: they would be in memory without the limits.
fn dropped(bench: &Bench) -> isize {
    isize::try_from(bench.counts().events_dropped).unwrap() * EVENT.cast_signed()
}

#[test]
fn eight_clients_one_deaf_and_one_slow_cost_no_more_than_the_limits_say() {
    let bench = Bench::start();
    // What is announced: a client says 4 GiB, the server says no.
    LARGEST.store(0, Ordering::Relaxed);
    let mut liar = bench.client();
    liar.send(&[0xDC, 1, 8, 1, 255, 255, 255, 255]);
    assert_eq!(liar.short(), ":11");
    assert_eq!(liar.next(), None);
    assert!(LARGEST.load(Ordering::Relaxed) < 64 << 10, "{} bytes at once", LARGEST.load(Ordering::Relaxed));
    bench.until("its end", |counts| counts.closed(Ended::TooLong) == 1);

    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let topic = json!({"Publisher": "Gateway", "Topic": "*"});
    let mut deaf = bench.client();
    assert_eq!(deaf.ask("Subscribe", "s", topic.clone()), "s:ok");
    deaf.stream.set_nonblocking(true).unwrap();
    let big = envelope::command("Big", "b", Some(object(json!({"Bytes": 60_000}))));
    let mut slow = bench.client();
    let slow_bytes = envelope::command("Now", "slow", None);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = bench.client();
                    let mut rounds = 0;
                    while !is_over.load(Ordering::SeqCst) || rounds == 0 {
                        round(&mut client);
                        rounds += 1;
                    }
                    rounds
                })
            })
            .collect();
        let start = Instant::now();
        let (mut sent, mut left) = (0, &big[..]);
        // Four bytes of the slow one, and of events for the deaf one twice what all clients together may cost.
        while sent < 4 || dropped(&bench) < 2 * 8 * CLIENT {
            if start.elapsed() >= Duration::from_secs(sent) {
                slow.send(&slow_bytes[usize::try_from(sent).unwrap()..][..1]);
                sent += 1;
            }
            if let Ok(n) = deaf.stream.write(left) {
                left = if n == left.len() { &big } else { &left[n..] };
            }
            let seen = bench.counts().events;
            for _ in 0..10 {
                bench.publish(event(None, "Flood", json!("x".repeat(EVENT))));
            }
            // After 10 s it is cut, and nobody is left to hand them to.
            bench.until("they are handed out", |counts| {
                counts.events > seen || counts.closed(Ended::NotReading) == 1
            });
        }
        is_over.store(true, Ordering::SeqCst);
        for worker in workers {
            assert!(worker.join().unwrap() > 0);
        }
    });
    let counts = bench.counts();
    let peak = PEAK.load(Ordering::Relaxed) - before;
    println!("{peak} bytes at the peak, {counts:?}");
    assert!(peak < 8 * CLIENT, "{peak} bytes at the peak");
    assert_eq!((counts.connections, counts.refused), (9, 0));
    // The slow one is served as soon as its command is whole.
    slow.send(&slow_bytes[4..]);
    assert_eq!(slow.short(), "slow:ok");
}
