//! Frames on their way to one peer: waiting, handed to the kernel, confirmed, or dropped for a counted reason.
//!
//! Owns the queue in front of the connection and the ledger of what is in flight. Relies on the caller to send what a
//! [`Segment`] holds in one call. Never splits a message by itself, never starts a connection in the middle of one,
//! and never loses sight of a frame: at any time, each frame that was pushed is in exactly one of the counters.
//!
//! A frame stays in the queue, where it can age, until the kernel has taken its last byte. Of a message that was taken
//! in part, the rest goes first in the next segment; such a frame is neither evicted nor dropped for its age, since
//! the stream would be torn. A part-sent message reaches a Python peer in two pieces, which ends that peer: keep the
//! unacknowledged bytes well below the size of the send buffer, and it does not happen.

use super::ledger::Ledger;
use super::message::{CLASSIC_MESSAGE, FD_MESSAGE, encode_frame, message_bytes};
use super::queue::FrameQueue;
use crate::can::{Frame, FrameKind};
use crate::time::{Duration, Instant};

/// What became of the frames for one peer: `pushed` is the sum of all that follow up to `discarded`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutboxCounters {
    /// Frames that were put in.
    pub pushed: u64,
    /// In the queue. The first one may be sent in part.
    pub waiting: u64,
    /// Wholly in the kernel's hands, not acknowledged.
    pub in_flight: u64,
    /// Acknowledged: in the receive buffer of the peer's kernel, whether its program has read them or not.
    pub confirmed: u64,
    /// Dropped unsent: too old.
    pub aged: u64,
    /// Dropped unsent: the queue was full and a newer frame came.
    pub evicted: u64,
    /// In flight when their connection was lost: each may have arrived or not.
    pub unconfirmed: u64,
    /// Dropped unsent: [`Outbox::discard`].
    pub discarded: u64,
    /// Not among `pushed`: error messages of a driver, which never go to a peer.
    pub refused: u64,
}

/// The way out to one peer.
#[derive(Debug)]
pub struct Outbox {
    queue: FrameQueue,
    /// Bytes of the oldest frame that the kernel has taken.
    begun: usize,
    ledger: Ledger,
    confirmed: u64,
    unconfirmed: u64,
    refused: u64,
}

impl Outbox {
    /// An outbox in which `capacity` frames can wait, at least 2. Takes 88 bytes a frame and 32 KiB; nothing more
    /// later.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            queue: FrameQueue::new(capacity),
            begun: 0,
            ledger: Ledger::new(),
            confirmed: 0,
            unconfirmed: 0,
            refused: 0,
        }
    }

    /// Forgets every frame and every count: another peer. Allocates nothing.
    pub fn reset(&mut self) {
        self.queue.reset();
        self.begun = 0;
        self.ledger.cut();
        self.confirmed = 0;
        self.unconfirmed = 0;
        self.refused = 0;
    }

    /// Puts in a frame that was read from the bus at `read_at`. If the outbox is full, the oldest frame that is not
    /// begun is dropped and counted. False for an error message of a driver: it is counted and goes nowhere.
    pub fn push(&mut self, frame: &Frame, read_at: Instant) -> bool {
        if frame.kind() == FrameKind::Error {
            self.refused += 1;
            return false;
        }
        self.queue.push(frame, read_at);
        true
    }

    /// Drops and counts the waiting frames that are `max_age` old or older; [`Duration::MAX`] keeps all. Returns how
    /// many.
    pub fn expire(&mut self, now: Instant, max_age: Duration) -> usize {
        self.queue.expire(now, max_age)
    }

    /// When [`expire`](Self::expire) has something to drop.
    #[must_use]
    pub fn poll_timeout(&self, max_age: Duration) -> Option<Instant> {
        self.queue.poll_timeout(max_age)
    }

    /// When the oldest waiting frame was read, for a limit on how long frames are collected.
    #[must_use]
    pub fn oldest_at(&self) -> Option<Instant> {
        self.queue.oldest_at()
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Frames that wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.queue.len()
    }

    /// Frames that can be put in before one is pushed out.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.queue.room()
    }

    /// Whether what waits fills a segment: no further message would fit into `most_bytes`. As long as it does not and
    /// bytes before it are unsent, collecting costs nothing and saves segments.
    #[must_use]
    pub const fn has_full_segment(&self, most_bytes: usize) -> bool {
        !self.queue.is_empty() && self.queue.bytes() - self.begun + CLASSIC_MESSAGE > most_bytes
    }

    /// Builds the next segment at the front of `out`: the rest of a part-sent message, then whole messages, at most
    /// `most_bytes` (the segment size of the connection) but at least one message. Frames that are `max_age` old or
    /// older are dropped and counted instead. `out` should hold `most_bytes`, and needs 74 for any message to fit.
    pub fn segment<'a>(
        &'a mut self,
        now: Instant,
        max_age: Duration,
        most_bytes: usize,
        out: &'a mut [u8],
    ) -> Segment<'a> {
        self.queue.expire(now, max_age);
        let (mut bytes, mut frames) = (0, 0);
        let mut skip = self.begun;
        for (frame, at) in self.queue.iter() {
            // The begun frame has to be completed whatever its age.
            if skip == 0 && now.since(at) >= max_age {
                break;
            }
            let size = message_bytes(frame) - skip;
            if bytes + size > out.len() || bytes > 0 && bytes + size > most_bytes {
                break;
            }
            let Some(room) = out.get_mut(bytes..) else { break };
            let written =
                if skip == 0 { encode_frame(frame, room).is_some() } else { rest(frame, skip, room) };
            if !written {
                break;
            }
            bytes += size;
            frames += 1;
            skip = 0;
        }
        Segment { outbox: self, bytes: out.get(..bytes).unwrap_or_default(), frames }
    }

    /// The kernel took `n` bytes of a segment.
    fn handle_sent(&mut self, now: Instant, n: usize) {
        let mut left = n + self.begun;
        let (mut frames, mut read_at) = (0, None);
        for (frame, at) in self.queue.iter() {
            let Some(after) = left.checked_sub(message_bytes(frame)) else { break };
            left = after;
            frames += 1;
            read_at = read_at.or(Some(at));
        }
        self.queue.take(frames);
        self.begun = left;
        self.queue.set_begun(left > 0);
        self.ledger.record(now, wide(n), wide(left), wide(frames), read_at.unwrap_or(now));
    }

    /// The connection has `unacked_bytes` that the peer's kernel did not acknowledge (`SIOCOUTQ`). Bytes of the
    /// handshake and the end of the stream may be among them: that confirms later, never too early.
    pub fn handle_unacked(&mut self, unacked_bytes: usize) {
        self.confirmed += self.ledger.acknowledge(wide(unacked_bytes));
    }

    /// Whether frames are in flight: only then is [`handle_unacked`](Self::handle_unacked) worth a system call.
    #[must_use]
    pub const fn has_unacked(&self) -> bool {
        self.ledger.in_flight() > 0
    }

    /// Age since it was read from the bus of the oldest frame that the kernel has and the peer's kernel does not
    /// have, a part-sent one included. Such a frame can no longer be taken back except by ending the connection.
    #[must_use]
    pub fn oldest_unacked_age(&self, now: Instant) -> Option<Duration> {
        let begun = if self.begun > 0 { self.queue.oldest_at() } else { None };
        self.ledger.oldest_read_at().or(begun).map(|at| now.since(at))
    }

    /// How long the oldest unacknowledged send waits for its acknowledgement: the round trip on a healthy connection.
    #[must_use]
    pub fn oldest_unacked_wait(&self, now: Instant) -> Option<Duration> {
        self.ledger.oldest_wait(now)
    }

    /// The connection is lost. Frames in flight are counted as unconfirmed. A part-sent message cannot have arrived:
    /// it is whole again, and ages as the others do. What waits stays for the next connection.
    pub fn cut(&mut self) {
        self.unconfirmed += self.ledger.cut();
        self.begun = 0;
        self.queue.set_begun(false);
    }

    /// Drops and counts every waiting frame; only on a connection that is [`cut`](Self::cut), which this does first.
    /// Returns how many.
    pub fn discard(&mut self) -> usize {
        self.cut();
        self.queue.discard()
    }

    /// What became of every frame.
    #[must_use]
    pub fn counters(&self) -> OutboxCounters {
        let queue = self.queue.counters();
        OutboxCounters {
            pushed: queue.pushed,
            waiting: queue.waiting,
            in_flight: self.ledger.in_flight(),
            confirmed: self.confirmed,
            aged: queue.aged,
            evicted: queue.evicted,
            unconfirmed: self.unconfirmed,
            discarded: queue.discarded,
            refused: self.refused,
        }
    }
}

/// Writes a message without its first `skip` bytes. False if there is no room.
fn rest(frame: &Frame, skip: usize, out: &mut [u8]) -> bool {
    let mut message = [0; FD_MESSAGE];
    let size = encode_frame(frame, &mut message).unwrap_or(0);
    let Some(rest) = message.get(skip..size) else { return false };
    let Some(room) = out.get_mut(..rest.len()) else { return false };
    room.copy_from_slice(rest);
    true
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// Bytes for one send. The outbox stands still while this exists, so what is sent is what is counted.
///
/// Dropped without [`handle_sent`](Self::handle_sent), it was never there: the frames still wait.
#[derive(Debug)]
#[must_use = "the bytes are to be sent, and what the socket took to be told"]
pub struct Segment<'a> {
    outbox: &'a mut Outbox,
    bytes: &'a [u8],
    frames: usize,
}

impl Segment<'_> {
    /// The bytes, for exactly one send.
    #[must_use]
    pub const fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// Frames that are complete when all bytes are sent.
    #[must_use]
    pub const fn frames(&self) -> usize {
        self.frames
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Says that the socket took the first `n` bytes at `now`.
    pub fn handle_sent(self, now: Instant, n: usize) {
        self.outbox.handle_sent(now, n.min(self.bytes.len()));
    }
}

#[cfg(test)]
mod tests;
