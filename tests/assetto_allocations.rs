//! A datagram of a driving simulator costs no allocation: bytes to values, for every message of a server and of the
//! game, and the commands that ask for them.

#![allow(unsafe_code, reason = "a counting allocator is the only witness of allocations")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use ocpcan::nodes::assetto::stand_in::StandIn;
use ocpcan::nodes::assetto::{AssettoNode, QUESTION_BYTES};
use ocpcan::proto::assetto::game::{GameMessage, Operation, Request};
use ocpcan::proto::assetto::{Command, Decoder, Event};
use ocpcan::time::Instant;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes on to the system's allocator unchanged; the count is a plain cell of the thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() -> u64 {
    COUNT.with(Cell::get)
}

/// A car that is followed, and the frames that it sends: datagrams in, frames out.
#[test]
fn a_followed_car_costs_no_allocation() {
    let text = include_str!("../deploy/simulator.example.toml");
    let config =
        ocpcan::config::parse(text, &[("example.dbc", include_str!("../deploy/example.dbc"))]).unwrap();
    let plan = config.car.unwrap();
    let mut frames = StandIn::new(plan.send, plan.settings.stale_after());
    let server = plan.settings.feed.address().ip();
    let mut node = AssettoNode::new(plan.settings, Instant::from_millis(1));
    let mut update = *include_bytes!("data/assetto-corsa/car_update.bin");
    let (mut out, mut sent, mut asked, mut before) = ([0; QUESTION_BYTES], 0, 0, 0);
    for turn in 0..2_000 {
        // The first second is warm-up: thirty cars become known, and the first questions are asked.
        if turn == 60 {
            before = count();
        }
        let now = Instant::from_millis(1_000 + 17 * turn);
        for car in 0..30 {
            update[1] = car;
            node.handle_datagram(now, server, &update);
        }
        node.handle_timeout(now);
        while node.poll_transmit(now, &mut out).is_some() {
            asked += 1;
        }
        let mut from = 0;
        while let Some((at, _, frame)) = frames.poll(now, from, node.sample()) {
            from = at + 1;
            sent += black_box(frame).payload().len();
        }
        black_box((node.standing(now), node.poll_timeout(now), frames.poll_timeout(now, node.sample())));
    }
    assert_eq!(count() - before, 0);
    assert!(sent > 10_000 && asked > 2 && node.counts().updates == 2_000, "{sent} {asked}");
}

#[test]
fn a_datagram_costs_no_allocation() {
    let update = include_bytes!("data/assetto-corsa/car_update.bin");
    // Everything else that a server says, an extension, and a message that is cut off.
    let others: [&[u8]; 9] = [
        include_bytes!("data/assetto-corsa/version.bin"),
        include_bytes!("data/assetto-corsa/new_session.bin"),
        include_bytes!("data/assetto-corsa/new_connection.bin"),
        include_bytes!("data/assetto-corsa/car_info.bin"),
        include_bytes!("data/assetto-corsa/chat.bin"),
        include_bytes!("data/assetto-corsa/lap_completed.bin"),
        include_bytes!("data/assetto-corsa/client_event_car.bin"),
        &[150, 0, 0],
        &update[..20],
    ];
    let game: [&[u8]; 3] = [
        include_bytes!("data/assetto-corsa/rt/car_info_synthetic.bin"),
        include_bytes!("data/assetto-corsa/rt/lap_real.bin"),
        include_bytes!("data/assetto-corsa/rt/handshake_response.bin"),
    ];
    let mut decoder = Decoder::default();
    let (mut metres_per_second, mut laps, mut letters, mut bytes) = (0.0, 0, 0, 0);
    let mut out = [0; 2_048];
    let before = count();
    for _ in 0..1_000 {
        // Thirty cars, then something else.
        for datagram in [&update[..]; 30].into_iter().chain(others) {
            match decoder.handle_datagram(datagram) {
                Ok(Event::CarUpdate(update)) if update.is_finite() => metres_per_second += update.speed_mps(),
                Ok(Event::LapCompleted(lap)) => laps += lap.cars.cars().count(),
                Ok(Event::CarInfo(info)) => letters += info.driver_name.chars().count(),
                Ok(Event::Chat { message, .. }) => letters += message.chars().count(),
                Ok(event) => bytes += event.encode(&mut out).unwrap(),
                Err(error) => drop(black_box(error)),
            }
        }
        for datagram in game {
            match GameMessage::decode(datagram).unwrap() {
                GameMessage::CarInfo(info) => metres_per_second += f64::from(info.speed_mps),
                GameMessage::Lap(lap) => letters += lap.car_name.chars().count(),
                message @ GameMessage::Handshake(_) => bytes += message.encode(&mut out).unwrap(),
            }
        }
        black_box(Request::new(Operation::SubscribeUpdate).encode());
        bytes += Command::RealtimePosInterval { interval_ms: 100 }.encode(&mut out).unwrap();
    }
    let allocations = count() - before;
    let counters = decoder.counters();
    assert_eq!((counters.events, counters.unknown, counters.short), (37_000, 1_000, 1_000));
    assert_eq!((metres_per_second, laps, letters), (31_000.0 * 32.5, 3_000, 1_000 * (13 + 17 + 18)));
    assert_eq!(bytes, 1_000 * (2 + 135 + 154 + 32 + 408 + 3));
    assert_eq!(allocations, 0, "allocations over 42,000 datagrams");
    // The witness sees an allocation when there is one.
    let witness = count();
    drop(black_box(Box::new(5)));
    assert_eq!(count() - witness, 1);
}
