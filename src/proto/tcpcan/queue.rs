//! Frames that wait for a slow side, for a bounded time and in bounded memory.
//!
//! Owns the ring, made once, and the count of what became of each frame. Relies on the caller for the time at which a
//! frame was read; times do not decrease from one frame to the next. Never gives out a frame that is too old, and
//! never loses one without counting it.

use core::fmt;

use super::message::message_bytes;
use crate::can::Frame;
use crate::time::{Duration, Instant};

/// What became of the frames of a queue: `pushed` is the sum of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueCounters {
    /// Frames that were put in.
    pub pushed: u64,
    /// Still here.
    pub waiting: u64,
    /// Taken out to be written.
    pub taken: u64,
    /// Dropped: too old.
    pub aged: u64,
    /// Dropped: the queue was full and a newer frame came.
    pub evicted: u64,
    /// Dropped: [`FrameQueue::discard`].
    pub discarded: u64,
}

#[derive(Clone, Copy)]
struct Slot {
    frame: Frame,
    at: Instant,
}

/// Frames in the order in which they were read, the oldest first.
pub struct FrameQueue {
    // One allocation at creation; the length is fixed from then on.
    slots: Box<[Slot]>,
    head: usize,
    len: usize,
    /// Bytes of all waiting frames as messages.
    bytes: usize,
    /// The oldest frame is partly written: it must be completed, so it is not dropped.
    begun: bool,
    counters: QueueCounters,
}

impl fmt::Debug for FrameQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameQueue")
            .field("capacity", &self.slots.len())
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

impl FrameQueue {
    /// A queue for `capacity` frames, at least 2; 88 bytes each.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let empty = Slot { frame: Frame::error(0, [0; 8]), at: Instant::ZERO };
        Self {
            slots: vec![empty; capacity.max(2)].into_boxed_slice(),
            head: 0,
            len: 0,
            bytes: 0,
            begun: false,
            counters: QueueCounters::default(),
        }
    }

    /// Forgets every frame and every count. Allocates nothing.
    pub fn reset(&mut self) {
        self.head = 0;
        self.len = 0;
        self.bytes = 0;
        self.begun = false;
        self.counters = QueueCounters::default();
    }

    /// The place of the `n`th oldest frame.
    const fn place(&self, n: usize) -> usize {
        // Both are below the capacity, which is far below half of the address space.
        let at = self.head + n;
        if at >= self.slots.len() { at - self.slots.len() } else { at }
    }

    fn slot(&self, n: usize) -> Option<&Slot> {
        if n < self.len { self.slots.get(self.place(n)) } else { None }
    }

    /// Puts in a frame that was read at `at`. If the queue is full, its oldest frame is dropped and counted.
    pub fn push(&mut self, frame: &Frame, at: Instant) {
        if self.is_full() && self.drop_oldest() {
            self.counters.evicted += 1;
        }
        let place = self.place(self.len);
        if let Some(slot) = self.slots.get_mut(place) {
            *slot = Slot { frame: *frame, at };
            self.len += 1;
            self.bytes += message_bytes(frame);
            self.counters.pushed += 1;
        }
    }

    /// Drops the oldest frame that is not begun. False if there is none.
    fn drop_oldest(&mut self) -> bool {
        let victim = usize::from(self.begun);
        let Some(dropped) = self.slot(victim).copied() else { return false };
        if self.begun {
            // The begun frame takes the place of the dropped one.
            let (from, to) = (self.place(0), self.place(1));
            if let Some(begun) = self.slots.get(from).copied()
                && let Some(slot) = self.slots.get_mut(to)
            {
                *slot = begun;
            }
        }
        self.advance(&dropped.frame);
        true
    }

    /// Moves the front on by one; `gone` is the frame that is no longer here.
    const fn advance(&mut self, gone: &Frame) {
        self.head = self.place(1);
        self.len -= 1;
        self.bytes -= message_bytes(gone);
    }

    /// Drops and counts the frames that are `max_age` old or older; [`Duration::MAX`] keeps all. Returns how many.
    pub fn expire(&mut self, now: Instant, max_age: Duration) -> usize {
        let mut dropped = 0;
        while self.slot(usize::from(self.begun)).is_some_and(|slot| now.since(slot.at) >= max_age)
            && self.drop_oldest()
        {
            dropped += 1;
            self.counters.aged += 1;
        }
        dropped
    }

    /// The frames that are younger than `max_age`, from the oldest on. Call [`expire`](Self::expire) first: an old
    /// frame at the front hides the others.
    pub fn fresh(&self, now: Instant, max_age: Duration) -> impl Iterator<Item = &Frame> {
        self.iter().take_while(move |(_, at)| now.since(*at) < max_age).map(|(frame, _)| frame)
    }

    /// Every waiting frame with the time at which it was read, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Frame, Instant)> {
        let (wrapped, first) = self.slots.split_at_checked(self.head).unwrap_or_default();
        first.iter().chain(wrapped).take(self.len).map(|slot| (&slot.frame, slot.at))
    }

    /// Says that the `n` oldest frames were written.
    pub fn take(&mut self, n: usize) {
        for _ in 0..n {
            let Some(slot) = self.slot(0).copied() else { return };
            self.begun = false;
            self.advance(&slot.frame);
            self.counters.taken += 1;
        }
    }

    /// Takes out the oldest frame that is not too old.
    pub fn pop(&mut self, now: Instant, max_age: Duration) -> Option<Frame> {
        self.expire(now, max_age);
        let frame = self.slot(0)?.frame;
        self.take(1);
        Some(frame)
    }

    /// Drops and counts every frame. Returns how many.
    pub fn discard(&mut self) -> usize {
        let dropped = self.len;
        self.counters.discarded += u64::try_from(dropped).unwrap_or(u64::MAX);
        self.len = 0;
        self.bytes = 0;
        self.begun = false;
        dropped
    }

    /// Whether the oldest frame is partly written; it is then neither evicted nor dropped for its age.
    pub(super) const fn set_begun(&mut self, begun: bool) {
        self.begun = begun && self.len > 0;
    }

    /// When the oldest frame was read.
    #[must_use]
    pub fn oldest_at(&self) -> Option<Instant> {
        self.slot(0).map(|slot| slot.at)
    }

    /// When [`expire`](Self::expire) has something to drop.
    #[must_use]
    pub fn poll_timeout(&self, max_age: Duration) -> Option<Instant> {
        self.slot(usize::from(self.begun)).map(|slot| slot.at + max_age)
    }

    /// Frames that wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the next frame would push another one out.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.len == self.slots.len()
    }

    /// Frames that can be put in before one is pushed out.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.slots.len() - self.len
    }

    /// Bytes of the waiting frames as messages.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// What became of every frame.
    #[must_use]
    pub fn counters(&self) -> QueueCounters {
        QueueCounters { waiting: u64::try_from(self.len).unwrap_or(u64::MAX), ..self.counters }
    }
}

#[cfg(test)]
mod tests;
