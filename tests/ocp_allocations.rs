//! The way of an OCP message through the gateway's codec touches the heap not once: socket bytes to frame, to values,
//! to the answer. Nested user data included.

#![allow(unsafe_code, reason = "a counting allocator is the only witness of allocations")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ocpcan::limits;
use ocpcan::proto::ocp::control::{self, display_reason};
use ocpcan::proto::ocp::fuzz::user_fields;
use ocpcan::proto::ocp::response::Key;
use ocpcan::proto::ocp::{Deframer, FRAME, ResponseWriter, UserForm, UserPaths, UserValue};

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
fn a_message_costs_no_allocation_from_bytes_to_answer() {
    let neutral = include_bytes!("data/ocp/control_neutral.bin");
    let driving = include_bytes!("data/ocp/control_driving.bin");
    let fault = include_bytes!("data/ocp/control_fault.bin");
    let broken = [&[5, 0, 0, 0][..], b"{\"a\":", &[0, 0, 0, 0]].concat();
    let stream = [&neutral[..], driving, fault, &broken].concat();
    let paths = UserPaths::new(&user_fields(), UserForm::Auto).unwrap();
    let nested = br#"{"user_data":{"counter":5,"mode":"cr\u0061b","body":{"horn":true},"list":[1,[2],{"x":{"y":[3]}}]}}"#;
    let keys = ["speed_kph", "state", "gear", "counter"].map(Key::new);
    let mut deframer = Deframer::new();
    let mut values = [UserValue::Missing; limits::USER_FIELDS];
    let mut answer = vec![0; FRAME];
    let mut shown = [0; limits::FAULT_REASON];
    let (mut answers, mut refused) = (0, 0);
    let before = count();
    for _ in 0..1_000 {
        for part in stream.chunks(100) {
            deframer.handle_bytes(part);
            loop {
                let body = match deframer.poll_frame() {
                    Ok(Some(body)) => body,
                    Ok(None) => break,
                    Err(_) => {
                        refused += 1;
                        continue;
                    }
                };
                let Ok(message) = control::decode(body) else {
                    refused += 1;
                    continue;
                };
                paths.extract(message.client_user_data.unwrap_or(nested), &mut values).unwrap();
                display_reason(message.telemetry.fault_reason, &mut shown);
                let mut writer =
                    ResponseWriter::new(&mut answer, message.ack_time, message.ack_time_mac).unwrap();
                writer.number(&keys[0], 12.3456e-7).unwrap();
                writer.text(&keys[1], "STANDBY \"x\"\n").unwrap();
                writer.null(&keys[2]).unwrap();
                writer.integer(&keys[3], -7).unwrap();
                answers += usize::from(writer.finish(Some((57.7, 11.9))).has_report);
            }
        }
    }
    let allocations = count() - before;
    assert_eq!((answers, refused), (3_000, 2_000));
    assert_eq!(allocations, 0, "allocations over 5,000 frames");
    // The witness sees an allocation when there is one.
    let witness = count();
    drop(std::hint::black_box(Box::new(5)));
    assert_eq!(count() - witness, 1);
}
