//! The two ends of a channel: an offer that never blocks, and a wait with a limit.
//!
//! Owns what happens when a channel is full. Relies on the table for depth and behaviour. Never blocks a sender.

use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::{Edge, WhenFull};
use crate::time::Duration;

/// The sending end of a channel.
#[derive(Debug)]
pub struct Tx<T> {
    sender: Sender<T>,
    /// For evicting the oldest.
    receiver: Receiver<T>,
    when_full: WhenFull,
    dropped: Arc<AtomicU64>,
}

impl<T> Clone for Tx<T> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            receiver: self.receiver.clone(),
            when_full: self.when_full,
            dropped: Arc::clone(&self.dropped),
        }
    }
}

impl<T> Tx<T> {
    /// Offers a message; returns at once, whatever the other end does.
    pub fn offer(&self, message: T) {
        let Err(TrySendError::Full(message)) = self.sender.try_send(message) else { return };
        self.dropped.fetch_add(1, Ordering::Relaxed);
        if self.when_full == WhenFull::EvictOldest {
            let _ = self.receiver.try_recv();
            // Another sender may have taken the place; then this message is the one that is dropped.
            let _ = self.sender.try_send(message);
        }
    }

    /// Messages dropped so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The receiving end of a channel.
#[derive(Debug)]
pub struct Rx<T> {
    receiver: Receiver<T>,
}

impl<T> Clone for Rx<T> {
    fn clone(&self) -> Self {
        Self { receiver: self.receiver.clone() }
    }
}

impl<T> Rx<T> {
    /// The next message, if there is one now.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    /// Waits for a message at most this long.
    #[must_use]
    pub fn wait(&self, at_most: Duration) -> Option<T> {
        self.receiver.recv_timeout(at_most).ok()
    }
}

/// Makes the two ends of a channel as the table says.
#[must_use]
pub fn channel<T>(edge: Edge) -> (Tx<T>, Rx<T>) {
    let spec = edge.spec();
    debug_assert_eq!(spec.message_bytes, size_of::<T>(), "{}", edge.name());
    let (sender, receiver) = crossbeam_channel::bounded(spec.depth);
    let tx = Tx {
        sender,
        receiver: receiver.clone(),
        when_full: spec.when_full,
        dropped: Arc::new(AtomicU64::new(0)),
    };
    (tx, Rx { receiver })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_85_a_full_channel_never_blocks_and_keeps_the_newest() {
        let (sender, receiver) = crossbeam_channel::bounded(4);
        let tx = Tx {
            sender,
            receiver: receiver.clone(),
            when_full: WhenFull::EvictOldest,
            dropped: Arc::new(AtomicU64::new(0)),
        };
        let rx = Rx { receiver };
        for i in 0..10 {
            tx.offer(i);
        }
        let kept: Vec<i32> = std::iter::from_fn(|| rx.take()).collect();
        assert_eq!(kept, [6, 7, 8, 9]);
        assert_eq!(tx.dropped(), 6);
    }
}
