//! Tests of the ledger: late rather than early, and bounded.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use super::*;

fn ms(n: u64) -> Instant {
    Instant::from_millis(n)
}

#[test]
fn a_frame_is_confirmed_with_its_last_byte() {
    let mut ledger = Ledger::new();
    ledger.record(ms(1), 36, 0, 2, ms(0));
    ledger.record(ms(3), 18, 0, 1, ms(2));
    assert_eq!(ledger.in_flight(), 3);
    assert_eq!(ledger.oldest_read_at(), Some(ms(0)));
    assert_eq!(ledger.oldest_wait(ms(11)), Some(Duration::from_millis(10)));
    assert_eq!(ledger.acknowledge(54), 0);
    assert_eq!(ledger.acknowledge(19), 0, "one send is confirmed as a whole");
    assert_eq!(ledger.acknowledge(18), 2);
    assert_eq!((ledger.in_flight(), ledger.oldest_read_at()), (1, Some(ms(2))));
    assert_eq!(ledger.acknowledge(1), 0);
    assert_eq!(ledger.acknowledge(0), 1);
    assert_eq!((ledger.in_flight(), ledger.oldest_read_at(), ledger.oldest_wait(ms(9))), (0, None, None));
}

#[test]
fn bytes_of_a_begun_frame_confirm_nothing() {
    let mut ledger = Ledger::new();
    ledger.record(ms(0), 20, 2, 1, ms(0)); // one frame and 2 bytes of the next
    ledger.record(ms(0), 5, 7, 0, ms(0));
    assert_eq!(ledger.acknowledge(7), 1, "its own 18 bytes are enough");
    ledger.record(ms(0), 11, 0, 1, ms(0));
    assert_eq!(ledger.acknowledge(1), 0);
    assert_eq!(ledger.acknowledge(0), 1);
}

#[test]
fn more_unacknowledged_bytes_than_were_sent_confirm_nothing() {
    // The kernel counts the handshake and the end of the stream too.
    let mut ledger = Ledger::new();
    ledger.record(ms(0), 18, 0, 1, ms(0));
    assert_eq!(ledger.acknowledge(24), 0);
    assert_eq!(ledger.acknowledge(1), 0);
    assert_eq!(ledger.acknowledge(0), 1);
    assert_eq!(ledger.acknowledge(0), 0);
}

#[test]
fn what_was_in_flight_when_the_connection_broke_is_told_once() {
    let mut ledger = Ledger::new();
    ledger.record(ms(0), 36, 0, 2, ms(0));
    ledger.record(ms(0), 18, 0, 1, ms(0));
    assert_eq!(ledger.acknowledge(18), 2);
    assert_eq!(ledger.cut(), 1);
    assert_eq!(ledger.cut(), 0);
    ledger.record(ms(0), 18, 0, 1, ms(0));
    assert_eq!(ledger.acknowledge(18), 0, "the next connection counts from 0");
    assert_eq!(ledger.acknowledge(0), 1);
}

#[test]
fn a_full_ledger_gets_coarse_and_stays_right() {
    for entries in [2, 3, 4, 7, 64] {
        let mut ledger = Ledger::with_entries(entries);
        let sends = 1_000;
        for n in 0..sends {
            ledger.record(ms(n + 1), 18, 0, 1, ms(n));
            assert!(ledger.len <= entries);
            assert_eq!(ledger.in_flight(), n + 1);
            assert_eq!(ledger.oldest_read_at(), Some(ms(0)));
        }
        let mut confirmed = 0;
        for acknowledged in 0..=sends {
            confirmed += ledger.acknowledge((sends - acknowledged) * 18);
            assert!(confirmed <= acknowledged, "never early");
            assert_eq!(confirmed + ledger.in_flight(), sends);
            // The oldest entry's own frames: at most one entry late.
            let late = acknowledged - confirmed;
            assert!(ledger.get(0).is_none_or(|entry| late < entry.frames), "{late} late");
        }
        assert_eq!(confirmed, sends);
    }
}

#[test]
fn a_standing_link_is_kept_apart_evenly() {
    // A frame every millisecond for an hour without an acknowledgement: no entry holds much more than its share.
    let frames = 3_600_000_u64;
    let mut ledger = Ledger::with_entries(64);
    for n in 0..frames {
        ledger.record(ms(n), 18, 0, 1, ms(n));
    }
    let largest = (0..ledger.len).filter_map(|n| ledger.get(n)).map(|entry| entry.frames).max().unwrap();
    assert!(largest <= 4 * frames / 64, "{largest}");
    // The link is back: when all is acknowledged, sends are kept apart again.
    assert_eq!(ledger.acknowledge(0), frames);
    for n in 0..30 {
        ledger.record(ms(n), 18, 0, 1, ms(n));
        ledger.acknowledge(18);
    }
    ledger.acknowledge(0);
    for _ in 0..3 {
        ledger.record(ms(0), 18, 0, 1, ms(0));
    }
    assert_eq!(ledger.acknowledge(18), 2);
}
