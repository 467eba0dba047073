//! Which frames the other side's kernel has acknowledged.
//!
//! Owns a bounded list of sends whose last byte is not acknowledged yet. Relies on the kernel's count of
//! unacknowledged bytes. Never confirms a frame too early: where it has to be coarse, it is late.

use core::fmt;

use crate::time::{Duration, Instant};

/// Sends that are kept apart. At 8,000 single frames a second that is 128 ms of round trip; beyond that, or when a
/// link stands still, neighbours are put together.
const ENTRIES: usize = 1_024;

/// One send, or several that were put together.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    /// Bytes of the connection up to the end of its last whole frame.
    end: u64,
    /// Frames whose last byte is in it.
    frames: u64,
    /// When the oldest of them was read from the bus.
    read_at: Instant,
    /// When the first of them was written.
    sent_at: Instant,
}

/// A bounded first-in first-out list of [`Entry`].
pub(super) struct Ledger {
    // One allocation at creation; the length is fixed from then on.
    entries: Box<[Entry]>,
    head: usize,
    len: usize,
    /// Bytes given to the kernel on this connection.
    sent: u64,
    /// Frames in the entries.
    in_flight: u64,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("entries", &self.len)
            .field("sent", &self.sent)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self::with_entries(ENTRIES)
    }

    fn with_entries(entries: usize) -> Self {
        let entries = vec![Entry::default(); entries].into_boxed_slice();
        Self { entries, head: 0, len: 0, sent: 0, in_flight: 0 }
    }

    /// The connection is gone, the next one starts. Returns the frames that were not acknowledged.
    pub(super) const fn cut(&mut self) -> u64 {
        let lost = self.in_flight;
        self.head = 0;
        self.len = 0;
        self.sent = 0;
        self.in_flight = 0;
        lost
    }

    const fn place(&self, n: usize) -> usize {
        let at = self.head + n; // both at most the capacity
        if at >= self.entries.len() { at - self.entries.len() } else { at }
    }

    fn get(&self, n: usize) -> Option<Entry> {
        if n < self.len { self.entries.get(self.place(n)).copied() } else { None }
    }

    fn set(&mut self, n: usize, entry: Entry) {
        let place = self.place(n);
        if let Some(slot) = self.entries.get_mut(place) {
            *slot = entry;
        }
    }

    /// The kernel took `bytes` more, and with them the last byte of `frames` frames; after that byte came
    /// `begun_bytes` of the next frame. The oldest frame was read at `read_at`.
    pub(super) fn record(
        &mut self,
        now: Instant,
        bytes: u64,
        begun_bytes: u64,
        frames: u64,
        read_at: Instant,
    ) {
        self.sent += bytes;
        if frames == 0 {
            return;
        }
        if self.len == self.entries.len() {
            self.merge();
        }
        self.in_flight += frames;
        let end = self.sent.saturating_sub(begun_bytes);
        self.set(self.len, Entry { end, frames, read_at, sent_at: now });
        self.len += 1;
    }

    /// Puts each pair of neighbours together: every entry stays about as coarse as the others.
    fn merge(&mut self) {
        let mut kept = 0;
        let mut n = 0;
        while let Some(first) = self.get(n) {
            let merged = self.get(n + 1).map_or(first, |second| Entry {
                end: second.end,
                frames: first.frames + second.frames,
                read_at: first.read_at.min(second.read_at),
                sent_at: first.sent_at,
            });
            self.set(kept, merged);
            kept += 1;
            n += 2;
        }
        self.len = kept;
    }

    /// The kernel still has `unacked` bytes without acknowledgement. Returns the frames that are confirmed by that.
    pub(super) fn acknowledge(&mut self, unacked: u64) -> u64 {
        let acknowledged = self.sent.saturating_sub(unacked);
        let mut confirmed = 0;
        while let Some(entry) = self.get(0).filter(|entry| entry.end <= acknowledged) {
            confirmed += entry.frames;
            self.head = self.place(1);
            self.len -= 1;
        }
        self.in_flight -= confirmed;
        confirmed
    }

    pub(super) const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// When the oldest unacknowledged frame was read.
    pub(super) fn oldest_read_at(&self) -> Option<Instant> {
        self.get(0).map(|entry| entry.read_at)
    }

    /// How long the oldest unacknowledged send waits for its acknowledgement.
    pub(super) fn oldest_wait(&self, now: Instant) -> Option<Duration> {
        self.get(0).map(|entry| now.since(entry.sent_at))
    }
}

#[cfg(test)]
mod tests;
