//! Tests of the outbox: whole messages, nothing twice, nothing too old, every frame in one counter.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panicking")]

use super::*;
use crate::can::Id;
use crate::proto::ocp::fuzz::Rng;
use crate::proto::tcpcan::{Message, decode, fuzz};

const NEVER: Duration = Duration::MAX;
const NOTHING: [u8; 0] = [];
const LIMIT: Duration = Duration::from_millis(250);
/// Ethernet with time stamps.
const MSS: usize = 1_448;

fn ms(n: u64) -> Instant {
    Instant::from_millis(n)
}

fn frame(n: u32) -> Frame {
    Frame::data(Id::extended(n).unwrap(), &[1, 2]).unwrap()
}

fn fd(n: u32) -> Frame {
    Frame::fd(Id::extended(n).unwrap(), &[3; 64], true, false).unwrap()
}

/// The frames of a whole stream.
fn numbers(mut bytes: &[u8]) -> Vec<u32> {
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        let Ok(Some((Message::Frame(frame), size))) = decode(bytes) else { panic!("{bytes:02x?}") };
        numbers.push(frame.id().raw());
        bytes = &bytes[size..];
    }
    numbers
}

/// Builds a segment and lets the socket take at most `most` bytes of it.
fn send(outbox: &mut Outbox, now: Instant, max_age: Duration, most: usize) -> Vec<u8> {
    let mut out = [0xa5; 65_536];
    let segment = outbox.segment(now, max_age, MSS, &mut out);
    let n = segment.bytes().len().min(most);
    let taken = segment.bytes()[..n].to_vec();
    segment.handle_sent(now, n);
    taken
}

#[test]
fn segments_hold_what_rule_4_says() {
    // MSS 1448: 80 classic messages or 19 of CAN FD.
    let mut outbox = Outbox::new(300);
    for n in 0..200 {
        outbox.push(&frame(n), ms(0));
    }
    let sizes: Vec<usize> = (0..4).map(|_| send(&mut outbox, ms(0), NEVER, MSS).len()).collect();
    assert_eq!(sizes, [80 * 18, 80 * 18, 40 * 18, 0]);
    for n in 0..20 {
        outbox.push(&fd(n), ms(0));
    }
    let sizes: Vec<usize> = (0..3).map(|_| send(&mut outbox, ms(0), NEVER, MSS).len()).collect();
    assert_eq!(sizes, [19 * 74, 74, 0]);
}

#[test]
fn a_segment_of_one_message_whatever_the_limit_and_none_without_room() {
    let mut outbox = Outbox::new(4);
    outbox.push(&fd(1), ms(0));
    outbox.push(&frame(2), ms(0));
    let mut out = [0; 300];
    for most in [0, 1, 73, 74, 91] {
        assert_eq!(outbox.segment(ms(0), NEVER, most, &mut out).bytes().len(), 74);
    }
    assert_eq!(outbox.segment(ms(0), NEVER, 92, &mut out).bytes().len(), 92);
    assert!(outbox.segment(ms(0), NEVER, MSS, &mut out[..73]).is_empty());
    assert_eq!(outbox.counters().waiting, 2, "a segment that was not sent was never there");
}

#[test]
fn a_full_segment_is_one_into_which_no_message_fits() {
    let mut outbox = Outbox::new(300);
    assert!(!outbox.has_full_segment(MSS));
    assert!(!outbox.has_full_segment(0));
    for n in 0..79 {
        outbox.push(&frame(n), ms(0));
        assert!(!outbox.has_full_segment(MSS), "{n}");
    }
    outbox.push(&frame(79), ms(0));
    assert!(outbox.has_full_segment(MSS));
    send(&mut outbox, ms(0), NEVER, 17);
    assert!(!outbox.has_full_segment(MSS), "17 bytes fewer wait");
}

#[test]
fn a_part_sent_message_goes_on_where_it_stopped() {
    for first in 1..100 {
        let mut outbox = Outbox::new(8);
        outbox.push(&fd(1), ms(0));
        outbox.push(&frame(2), ms(0));
        outbox.push(&fd(3), ms(0));
        let mut wire = send(&mut outbox, ms(0), NEVER, first);
        assert_eq!(wire.len(), first);
        let complete = u64::from(first >= 74) + u64::from(first >= 92);
        assert_eq!((outbox.counters().in_flight, outbox.counters().waiting), (complete, 3 - complete));
        // A frame that comes meanwhile goes behind.
        outbox.push(&frame(4), ms(0));
        wire.extend(send(&mut outbox, ms(0), NEVER, 1));
        wire.extend(send(&mut outbox, ms(0), NEVER, MSS));
        assert_eq!(numbers(&wire), [1, 2, 3, 4], "{first}");
        assert_eq!(outbox.counters().in_flight, 4);
    }
}

#[test]
fn a_part_sent_message_is_completed_whatever_its_age_and_however_full_it_is() {
    let mut outbox = Outbox::new(2);
    outbox.push(&frame(1), ms(0));
    let mut wire = send(&mut outbox, ms(0), LIMIT, 5);
    for n in 2..9 {
        outbox.push(&frame(n), ms(300));
    }
    assert_eq!(outbox.oldest_unacked_age(ms(600)), Some(Duration::from_millis(600)));
    wire.extend(send(&mut outbox, ms(600), LIMIT, MSS));
    assert_eq!(numbers(&wire), [1]);
    let counters = outbox.counters();
    assert_eq!((counters.in_flight, counters.evicted, counters.aged, counters.waiting), (1, 6, 1, 0));
}

#[test]
fn a_new_connection_starts_with_a_whole_message() {
    let mut outbox = Outbox::new(8);
    for n in 1..=4 {
        outbox.push(&frame(n), ms(0));
    }
    let wire = send(&mut outbox, ms(0), LIMIT, 18 + 18 + 7);
    assert_eq!(numbers(&wire[..36]), [1, 2]);
    outbox.handle_unacked(7 + 18);
    outbox.cut();
    let counters = outbox.counters();
    assert_eq!((counters.confirmed, counters.unconfirmed, counters.in_flight), (0, 2, 0));
    assert_eq!(outbox.oldest_unacked_age(ms(1)), None);
    // Frame 3 cannot have arrived; it goes again, whole, if it is not too old by then.
    assert_eq!(numbers(&send(&mut outbox, ms(249), LIMIT, 18)), [3]);
    outbox.cut();
    assert_eq!(send(&mut outbox, ms(250), LIMIT, MSS), NOTHING);
    let counters = outbox.counters();
    assert_eq!((counters.unconfirmed, counters.aged, counters.waiting), (3, 1, 0));
}

#[test]
fn after_an_outage_no_old_frame_leaves() {
    // 15 s at 500 frames/s with a closed window, then everything at once.
    let mut outbox = Outbox::new(1_000);
    let mut now = ms(0);
    for n in 0..7_500 {
        outbox.push(&frame(n), now);
        now += Duration::from_millis(2);
        outbox.expire(now, LIMIT);
    }
    let mut got = Vec::new();
    loop {
        let wire = send(&mut outbox, now, LIMIT, MSS);
        if wire.is_empty() {
            break;
        }
        got.extend(numbers(&wire));
    }
    assert_eq!(got, (7_376..7_500).collect::<Vec<_>>(), "those of the last 248 ms");
    let counters = outbox.counters();
    assert_eq!((counters.pushed, counters.aged, counters.in_flight), (7_500, 7_376, 124));
    assert_eq!(counters.evicted, 0);
}

#[test]
fn an_old_frame_behind_a_younger_one_does_not_leave() {
    // The order that the caller must not produce.
    let mut outbox = Outbox::new(4);
    for (n, at) in [(1, 300), (2, 0), (3, 300)] {
        outbox.push(&frame(n), ms(at));
    }
    assert_eq!(numbers(&send(&mut outbox, ms(301), LIMIT, MSS)), [1]);
    assert_eq!(numbers(&send(&mut outbox, ms(301), LIMIT, MSS)), [3]);
    assert_eq!(outbox.counters().aged, 1);
}

#[test]
fn error_messages_of_a_driver_stay_here() {
    let mut outbox = Outbox::new(4);
    assert!(!outbox.push(&Frame::error(4, [0; 8]), ms(0)));
    assert!(outbox.is_empty());
    assert_eq!(outbox.counters(), OutboxCounters { refused: 1, ..Default::default() });
    assert_eq!(send(&mut outbox, ms(0), NEVER, MSS), NOTHING);
}

#[test]
fn timers_and_room() {
    let mut outbox = Outbox::new(3);
    assert_eq!((outbox.poll_timeout(LIMIT), outbox.oldest_at(), outbox.room()), (None, None, 3));
    outbox.push(&frame(1), ms(10));
    outbox.push(&frame(2), ms(20));
    assert_eq!(outbox.poll_timeout(LIMIT), Some(ms(260)));
    assert_eq!((outbox.oldest_at(), outbox.len(), outbox.room()), (Some(ms(10)), 2, 1));
    assert_eq!(outbox.expire(ms(260), LIMIT), 1);
    assert!(!outbox.has_unacked());
    send(&mut outbox, ms(261), LIMIT, MSS);
    assert!(outbox.has_unacked());
    assert_eq!(outbox.oldest_unacked_age(ms(280)), Some(Duration::from_millis(260)));
    assert_eq!(outbox.oldest_unacked_wait(ms(280)), Some(Duration::from_millis(19)));
    outbox.handle_unacked(0);
    assert_eq!(outbox.oldest_unacked_wait(ms(280)), None);
    assert_eq!(outbox.counters().confirmed, 1);
    outbox.reset();
    assert_eq!(outbox.counters(), OutboxCounters::default());
}

#[test]
fn every_frame_is_in_exactly_one_place_whatever_happens() {
    let mut rng = Rng::from_environment("every_frame_is_in_exactly_one_place_whatever_happens");
    for _ in 0..2_000 {
        let operations: Vec<u8> = (0..1 + rng.below(300)).map(|_| rng.bits().to_le_bytes()[0]).collect();
        fuzz::outbox(&operations);
    }
}
