//! What the assetto thread tells the others: the newest values of the car, how its feed is, news for the log.
//!
//! Owns a cell that one thread writes and anyone reads, and the messages. Relies on `signals::car`. A reader never waits
//! and never holds up the writer: while a set is being written it keeps the one it had. A channel would not do: its sender
//! can be stopped half way, and a reader of higher priority would wait for it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use crate::io::canbus::OpenCause;
use crate::nodes::assetto::{Counts, Standing};
use crate::signals::car::{CarSample, VALUES};
use crate::time::{Duration, Instant};

/// Something worth a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CarNews {
    /// The feed is this now. With the slot where a server has told it, and the age of the newest update.
    Standing {
        /// How it is.
        standing: Standing,
        /// The car's slot.
        slot: Option<u8>,
        /// Age of the newest update.
        age: Option<Duration>,
    },
    /// The socket cannot be had: the errno. It is tried again.
    NotListening(i32),
    /// Updates are received here.
    Listening(SocketAddr),
    /// The car's frames cannot go out on this bus.
    BusUnavailable {
        /// Index of the bus.
        bus: usize,
        /// Why.
        cause: OpenCause,
    },
    /// The bus is a physical one, and the configuration did not say that the car may send there.
    PhysicalBus(usize),
    /// The car's frames go out on this bus.
    BusOpen(usize),
    /// The car's frames go out there no more.
    BusLost(usize),
}

/// Counts of the frames that the car sends.
#[derive(Debug, Default)]
pub struct CarFrames {
    /// Frames that the interface took.
    pub sent: AtomicU64,
    /// Frames that it did not take.
    pub refused: AtomicU64,
}

/// The newest set of values, and how the feed is. Written by the assetto thread alone.
#[derive(Debug, Default)]
pub struct CarCell {
    /// Odd while a set is being written.
    sequence: AtomicU32,
    /// 0: no car.
    at_ns: AtomicU64,
    known: AtomicU32,
    values: [AtomicU64; VALUES],
    standing: AtomicU8,
    /// The slot and 1; 0 is unknown.
    slot: AtomicU16,
    counts: [AtomicU64; 5],
    /// What was sent.
    pub frames: CarFrames,
}

impl CarCell {
    /// Publishes a set of values, or that there is no car.
    pub fn publish(&self, sample: Option<&CarSample>) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        // What follows is not seen before the odd number is.
        fence(Ordering::Release);
        if let Some(sample) = sample {
            let (values, known) = sample.parts();
            for (cell, value) in self.values.iter().zip(values) {
                cell.store(value.to_bits(), Ordering::Relaxed);
            }
            self.known.store(known, Ordering::Relaxed);
        }
        let at = sample.map_or(0, |sample| sample.at.as_nanos().max(1));
        self.at_ns.store(at, Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// Brings `sample` up to date. Where a set is being written at this moment, `sample` stays as it is.
    pub fn read(&self, sample: &mut Option<CarSample>) {
        let before = self.sequence.load(Ordering::Acquire);
        if before & 1 == 1 {
            return;
        }
        let at = self.at_ns.load(Ordering::Relaxed);
        let known = self.known.load(Ordering::Relaxed);
        let values = std::array::from_fn(|index| {
            self.values.get(index).map_or(f64::NAN, |cell| f64::from_bits(cell.load(Ordering::Relaxed)))
        });
        // What was read is not from after the number that is read now.
        fence(Ordering::Acquire);
        if self.sequence.load(Ordering::Relaxed) == before {
            *sample = (at > 0).then(|| CarSample::from_parts(Instant::from_nanos(at), values, known));
        }
    }

    /// Publishes how the feed is.
    pub fn publish_feed(&self, standing: Standing, slot: Option<u8>, counts: &Counts) {
        self.standing.store(standing as u8, Ordering::Relaxed);
        self.slot.store(slot.map_or(0, |slot| u16::from(slot) + 1), Ordering::Relaxed);
        let Counts { messages, updates, not_finite, not_understood, strangers } = *counts;
        let numbers = [messages, updates, not_finite, not_understood, strangers];
        for (cell, number) in self.counts.iter().zip(numbers) {
            cell.store(number, Ordering::Relaxed);
        }
    }

    /// How the feed was when it was last told.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let number = usize::from(self.standing.load(Ordering::Relaxed));
        Standing::ALL.get(number).copied().unwrap_or_default()
    }

    /// The slot of our car.
    #[must_use]
    pub fn slot(&self) -> Option<u8> {
        u8::try_from(self.slot.load(Ordering::Relaxed).checked_sub(1)?).ok()
    }

    /// What came.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let number = |index: usize| self.counts.get(index).map_or(0, |cell| cell.load(Ordering::Relaxed));
        Counts {
            messages: number(0),
            updates: number(1),
            not_finite: number(2),
            not_understood: number(3),
            strangers: number(4),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::signals::car::Value;

    /// A set that betrays a mixture: every value is the same.
    fn alike(number: u32) -> CarSample {
        CarSample::from_parts(
            Instant::from_nanos(u64::from(number) + 1),
            [f64::from(number); VALUES],
            u32::MAX,
        )
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "two threads are what the test is about")]
    fn a_reader_never_sees_half_of_a_set() {
        let cell = Arc::new(CarCell::default());
        let mut sample = Some(alike(7));
        cell.read(&mut sample);
        assert_eq!(sample, None, "no car yet");
        let writer = Arc::clone(&cell);
        let thread = std::thread::spawn(move || {
            for number in 0..200_000 {
                writer.publish(Some(&alike(number)));
            }
        });
        let mut newest = 0.0;
        while !thread.is_finished() {
            cell.read(&mut sample);
            let Some(sample) = &sample else { continue };
            let first = sample.get(Value::SpeedMps).unwrap();
            assert!(Value::NAMES.iter().all(|(_, value)| sample.get(*value) == Some(first)), "{sample:?}");
            assert_eq!(sample.at, Instant::from_nanos(first as u64 + 1));
            assert!(first >= newest, "never back");
            newest = first;
        }
        thread.join().unwrap();
        cell.read(&mut sample);
        assert_eq!(sample, Some(alike(199_999)));
        cell.publish(None);
        cell.read(&mut sample);
        assert_eq!(sample, None);
    }

    #[test]
    fn the_feed_is_told_as_it_was_published() {
        let cell = CarCell::default();
        assert_eq!((cell.standing(), cell.slot()), (Standing::NoAnswer, None));
        let counts = Counts { messages: 5, updates: 4, not_finite: 3, not_understood: 2, strangers: 1 };
        cell.publish_feed(Standing::Live, Some(255), &counts);
        assert_eq!((cell.standing(), cell.slot(), cell.counts()), (Standing::Live, Some(255), counts));
    }
}
