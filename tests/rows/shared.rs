//! The row of torn reads: the words that threads share, hammered by real threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ocpcan::io::clock;
use ocpcan::safety::faults::Fault;
use ocpcan::topology::Shared;

/// Times each thread sets its bit, and waits until it was taken.
const ROUNDS: u64 = 2_000;

#[test]
fn row_89_no_trip_bit_is_lost_and_no_session_is_torn_between_threads() {
    let shared = Arc::new(Shared::default());
    let faults = [Fault::OcpFault, Fault::InvalidMessage, Fault::CanStalled];
    let taken: Arc<[AtomicU64; 3]> = Arc::default();
    let ended = Arc::new(AtomicBool::new(false));
    let setters = faults.iter().enumerate().map(|(index, fault)| {
        let (shared, taken, fault) = (Arc::clone(&shared), Arc::clone(&taken), *fault);
        std::thread::spawn(move || {
            for round in 1..=ROUNDS {
                shared.trip(fault.into(), clock::now());
                // A lost bit would never be taken.
                let deadline = clock::now() + super::rig::PATIENCE;
                while taken[index].load(Ordering::Acquire) < round {
                    assert!(clock::now() < deadline, "{fault:?} was lost in round {round}");
                    std::thread::yield_now();
                }
            }
        })
    });
    let setters: Vec<_> = setters.collect();
    let linker = {
        let (shared, ended) = (Arc::clone(&shared), Arc::clone(&ended));
        std::thread::spawn(move || {
            while !ended.load(Ordering::Acquire) {
                for session in [Some(0), None, Some(u32::MAX), Some(0x0001_0000)] {
                    shared.set_link(session);
                }
            }
        })
    };
    while setters.iter().any(|setter| !setter.is_finished()) {
        let (bits, _) = shared.take_trips();
        for (fault, count) in faults.iter().zip(taken.iter()) {
            count.fetch_add(u64::from(bits.contains(*fault)), Ordering::AcqRel);
        }
        assert!(bits.iter().all(|fault| faults.contains(&fault)), "{bits:?}");
        let link = shared.link();
        assert!(matches!(link, None | Some(0 | u32::MAX | 0x0001_0000)), "{link:?}");
    }
    ended.store(true, Ordering::Release);
    linker.join().unwrap();
    for setter in setters {
        setter.join().unwrap();
    }
    // Every bit was taken as often as it was set: set while waiting, so never merged.
    assert!(taken.iter().all(|count| count.load(Ordering::Acquire) == ROUNDS), "{taken:?}");
}
