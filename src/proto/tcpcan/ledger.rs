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

impl Entry {
    /// This one and the next one as one, if that has at most `grain` frames.
    fn with(self, next: Self, grain: u64) -> Option<Self> {
        let frames = self.frames + next.frames;
        let both =
            Self { end: next.end, frames, read_at: self.read_at.min(next.read_at), sent_at: self.sent_at };
        (frames <= grain).then_some(both)
    }
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
    /// Most frames that are put together in one entry; 1 while there is room for each send.
    grain: u64,
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

    /// A ledger of `entries` entries, at least 2: two neighbours must be there to be put together.
    fn with_entries(entries: usize) -> Self {
        let entries = vec![Entry::default(); entries.max(2)].into_boxed_slice();
        Self { entries, head: 0, len: 0, sent: 0, in_flight: 0, grain: 1 }
    }

    /// The connection is gone, the next one starts. Returns the frames that were not acknowledged.
    pub(super) const fn cut(&mut self) -> u64 {
        let lost = self.in_flight;
        self.head = 0;
        self.len = 0;
        self.sent = 0;
        self.in_flight = 0;
        self.grain = 1;
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
        self.in_flight += frames;
        let new = Entry { end: self.sent.saturating_sub(begun_bytes), frames, read_at, sent_at: now };
        if let Some(last) = self.len.checked_sub(1)
            && let Some(both) = self.get(last).and_then(|entry| entry.with(new, self.grain))
        {
            self.set(last, both);
            return;
        }
        while self.len == self.entries.len() {
            self.grain = self.grain.saturating_mul(2);
            self.merge();
        }
        self.set(self.len, new);
        self.len += 1;
    }

    /// Puts neighbours together up to the grain. The entries stay about as coarse as each other, so that no frame's
    /// confirmation waits for many others.
    fn merge(&mut self) {
        let Some(mut entry) = self.get(0) else { return };
        let mut kept = 0;
        for n in 1..self.len {
            let Some(next) = self.get(n) else { break };
            if let Some(both) = entry.with(next, self.grain) {
                entry = both;
            } else {
                self.set(kept, entry);
                kept += 1;
                entry = next;
            }
        }
        self.set(kept, entry);
        self.len = kept + 1;
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
        if self.len < self.entries.len() / 4 && self.grain > 1 {
            self.grain /= 2;
        }
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
