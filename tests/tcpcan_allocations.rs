//! The way of a CAN frame through the tunnel's codec, session and queues touches the heap not once, in either
//! direction: sessions are reset, queues overflow and connections break without an allocation too.

#![allow(unsafe_code, reason = "a counting allocator is the only witness of allocations")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ocpcan::proto::tcpcan::fuzz::frame_from;
use ocpcan::proto::tcpcan::{FrameQueue, Outbox, Role, Session, SessionEvent};
use ocpcan::time::{Duration, Instant};

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

#[test]
fn a_frame_costs_no_allocation_from_bus_to_bus() {
    let frames: Vec<_> = (0..500).map(frame_from).collect();
    let limit = Duration::from_millis(250);
    let mut now = Instant::from_millis(1);
    let mut client = Session::new(Role::Client, now);
    let mut server = Session::new(Role::Server, now);
    let mut outbox = Outbox::new(300);
    let mut inbox = FrameQueue::new(300);
    let mut segment_bytes = [0; 1_448];
    let (mut arrived, mut torn) = (0_u64, 0_u64);
    let before = count();
    for connection in 0..50 {
        client.reset(now);
        server.reset(now);
        let n = server.handle_bytes(client.transmit());
        client.handle_sent(n);
        assert_eq!(server.poll_event(), Ok(Some(SessionEvent::Agreed { version: 1 })));
        let n = client.handle_bytes(server.transmit());
        server.handle_sent(n);
        assert_eq!(client.poll_event(), Ok(Some(SessionEvent::Agreed { version: 1 })));
        // More than the outbox holds; the socket takes an odd number of bytes; then the connection breaks.
        for frame in &frames {
            outbox.push(frame, now);
        }
        for round in 0..20_usize {
            let segment = outbox.segment(now, limit, 1_448, &mut segment_bytes);
            let n = segment.bytes().len().min(1_000 + 7 * round);
            assert_eq!(server.handle_bytes(&segment.bytes()[..n]), n);
            segment.handle_sent(now, n);
            outbox.handle_unacked(500);
            while let Ok(Some(event)) = server.poll_event() {
                if let SessionEvent::Frame(frame) = event {
                    inbox.push(&frame, now);
                }
            }
            now += Duration::from_millis(20);
            inbox.expire(now, limit);
            let batch = inbox.fresh(now, limit).take(64).count();
            inbox.take(batch);
            arrived += u64::try_from(batch).unwrap();
        }
        outbox.cut();
        if connection % 2 == 0 {
            server.handle_bytes(b"dx");
            torn += u64::from(server.poll_event().is_err());
        }
    }
    let allocations = count() - before;
    assert!(arrived > 5_000, "{arrived} frames arrived");
    assert_eq!(torn, 25);
    assert!(outbox.counters().evicted > 5_000 && outbox.counters().unconfirmed > 100);
    assert_eq!(allocations, 0, "allocations over {arrived} frames");
    // The witness sees an allocation when there is one.
    let witness = count();
    drop(std::hint::black_box(Box::new(5)));
    assert_eq!(count() - witness, 1);
}
