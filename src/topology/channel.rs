//! The two ends of a channel: an offer that never blocks, and a wait with a limit.
//!
//! Owns what happens when a channel is full, and that no end ever spins for the other. Relies on the table for depth and
//! behaviour. Never blocks a sender.
//!
//! crossbeam's bounded channel spins while the other end is between claiming a place and filling it. Where that end has
//! a lower priority and shares the CPU, it never gets to fill it, and a real-time thread spins for ever (seen in the
//! guest with one CPU: the watchdog's tick met a send of the ocp thread). So each end says when it is inside, nobody
//! enters while the other one is, and waiting is done outside, by parking.

#![allow(clippy::disallowed_methods, reason = "this is where threads wait for each other")]

use std::mem::size_of;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::{Edge, WhenFull};
use crate::io::clock;
use crate::time::Duration;

/// A sender is inside for less than a microsecond of its own time; sleeping gives it that time.
const SETTLE: Duration = Duration::from_micros(20);

/// So often a receiver lets a sender finish before it gives up for this turn.
const SETTLE_TURNS: u32 = 10;

/// Who is inside the channel, and who waits for it.
#[derive(Debug, Default)]
struct Gate {
    senders: AtomicU32,
    receivers: AtomicU32,
    waiter: OnceLock<Thread>,
    dropped: AtomicU64,
}

impl Gate {
    /// Whether no sender is inside, after letting one finish.
    fn settle(&self) -> bool {
        for _ in 0..SETTLE_TURNS {
            if self.senders.load(Ordering::SeqCst) == 0 {
                return true;
            }
            std::thread::sleep(SETTLE);
        }
        self.senders.load(Ordering::SeqCst) == 0
    }
}

/// The sending end of a channel.
#[derive(Debug)]
pub struct Tx<T> {
    sender: Sender<T>,
    /// For evicting the oldest.
    receiver: Receiver<T>,
    when_full: WhenFull,
    gate: Arc<Gate>,
}

impl<T> Clone for Tx<T> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            receiver: self.receiver.clone(),
            when_full: self.when_full,
            gate: Arc::clone(&self.gate),
        }
    }
}

impl<T> Tx<T> {
    /// Offers a message; returns at once, whatever the other end does.
    pub fn offer(&self, message: T) {
        self.gate.senders.fetch_add(1, Ordering::SeqCst);
        self.put(message);
        self.gate.senders.fetch_sub(1, Ordering::SeqCst);
        if let Some(waiter) = self.gate.waiter.get() {
            waiter.unpark();
        }
    }

    fn put(&self, message: T) {
        let nearly_full = self.sender.capacity().is_some_and(|depth| self.sender.len() + 1 >= depth);
        if nearly_full && self.gate.receivers.load(Ordering::SeqCst) > 0 {
            // The only free place may be the one that the receiver has not finished emptying.
            self.gate.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let Err(TrySendError::Full(message)) = self.sender.try_send(message) else { return };
        self.gate.dropped.fetch_add(1, Ordering::Relaxed);
        if self.when_full == WhenFull::EvictOldest {
            let _ = self.receiver.try_recv();
            // Another sender may have taken the place; then this message is the one that is dropped.
            let _ = self.sender.try_send(message);
        }
    }

    /// Messages dropped so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.gate.dropped.load(Ordering::Relaxed)
    }
}

/// The receiving end of a channel.
#[derive(Debug)]
pub struct Rx<T> {
    receiver: Receiver<T>,
    gate: Arc<Gate>,
}

impl<T> Clone for Rx<T> {
    fn clone(&self) -> Self {
        Self { receiver: self.receiver.clone(), gate: Arc::clone(&self.gate) }
    }
}

impl<T> Rx<T> {
    /// The next message, if there is one now.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        if !self.gate.settle() {
            return None;
        }
        self.gate.receivers.fetch_add(1, Ordering::SeqCst);
        let message = self.receiver.try_recv().ok();
        self.gate.receivers.fetch_sub(1, Ordering::SeqCst);
        message
    }

    /// Waits for a message at most this long. The first thread that waits is the one that every offer wakes; another
    /// one looks again and again.
    #[must_use]
    pub fn wait(&self, at_most: Duration) -> Option<T> {
        /// How often a thread looks that nobody wakes.
        const LOOK: Duration = Duration::from_millis(1);
        let deadline = clock::now() + at_most;
        let here = std::thread::current().id();
        let is_woken = self.gate.waiter.get_or_init(std::thread::current).id() == here;
        loop {
            let message = self.take();
            let left = deadline.since(clock::now());
            if message.is_some() || left.is_zero() {
                return message;
            }
            std::thread::park_timeout(if is_woken { left } else { left.min(LOOK) });
        }
    }
}

/// Makes the two ends of a channel as the table says.
#[must_use]
pub fn channel<T>(edge: Edge) -> (Tx<T>, Rx<T>) {
    let spec = edge.spec();
    debug_assert_eq!(spec.message_bytes, size_of::<T>(), "{}", edge.name());
    let (sender, receiver) = crossbeam_channel::bounded(spec.depth);
    let gate = Arc::new(Gate::default());
    let tx = Tx { sender, receiver: receiver.clone(), when_full: spec.when_full, gate: Arc::clone(&gate) };
    (tx, Rx { receiver, gate })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(depth: usize) -> (Tx<i32>, Rx<i32>) {
        let (sender, receiver) = crossbeam_channel::bounded(depth);
        let gate = Arc::new(Gate::default());
        let when_full = WhenFull::EvictOldest;
        let tx = Tx { sender, receiver: receiver.clone(), when_full, gate: Arc::clone(&gate) };
        (tx, Rx { receiver, gate })
    }

    #[test]
    fn row_85_a_full_channel_never_blocks_and_keeps_the_newest() {
        let (tx, rx) = pair(4);
        for i in 0..10 {
            tx.offer(i);
        }
        let kept: Vec<i32> = std::iter::from_fn(|| rx.take()).collect();
        assert_eq!(kept, [6, 7, 8, 9]);
        assert_eq!(tx.dropped(), 6);
    }

    #[test]
    fn row_83_an_end_that_stands_still_inside_holds_nobody() {
        let (tx, rx) = pair(1);
        tx.offer(1);
        // A sender that was preempted inside: the receiver gives up for this turn instead of spinning.
        rx.gate.senders.fetch_add(1, Ordering::SeqCst);
        assert_eq!(rx.take(), None);
        assert_eq!(rx.wait(Duration::from_millis(1)), None);
        rx.gate.senders.fetch_sub(1, Ordering::SeqCst);
        // A receiver that was preempted inside: the sender drops and counts.
        rx.gate.receivers.fetch_add(1, Ordering::SeqCst);
        tx.offer(2);
        assert_eq!(tx.dropped(), 1);
        rx.gate.receivers.fetch_sub(1, Ordering::SeqCst);
        assert_eq!(rx.take(), Some(1));
    }

    #[test]
    fn an_offer_wakes_the_one_that_waits() {
        let (tx, rx) = pair(4);
        let waiting =
            std::thread::spawn(move || (0..100).map(|_| rx.wait(Duration::from_secs(60))).collect());
        for i in 0..100 {
            // Never more than the channel holds.
            while tx.sender.len() >= 3 {
                std::thread::yield_now();
            }
            tx.offer(i);
        }
        let got: Vec<Option<i32>> = waiting.join().unwrap();
        assert_eq!(got, (0..100).map(Some).collect::<Vec<_>>());
    }
}
