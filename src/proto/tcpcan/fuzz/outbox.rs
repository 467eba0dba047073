//! What must hold for an outbox whatever is done to it.
//!
//! Owns a model that remembers each frame for ever. Relies on the codec, which has properties of its own. Never part of
//! the gateway: nothing outside tests calls it.

use std::collections::VecDeque;

use super::super::message::{CLASSIC_MESSAGE, FD_MESSAGE, encode_frame, message_bytes};
use super::super::outbox::{Outbox, OutboxCounters};
use super::frame_from;
use crate::can::{Frame, FrameKind};
use crate::time::{Duration, Instant};

/// Where a frame of [`Model`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Waiting,
    InFlight { end: u64 },
    Confirmed,
    Aged,
    Evicted,
    Unconfirmed,
    Discarded,
}

/// An outbox that remembers each frame for ever.
#[derive(Debug, Default)]
struct Model {
    frames: Vec<(Frame, Instant, Place)>,
    /// Numbers of the waiting frames, in order.
    waiting: VecDeque<usize>,
    capacity: usize,
    /// Bytes of the first waiting frame that were sent.
    begun: usize,
    /// Every byte that was sent on this connection.
    wire: Vec<u8>,
    refused: u64,
}

impl Model {
    fn drop_at(&mut self, at: usize, place: Place) {
        let number = self.waiting.remove(at).unwrap();
        self.frames[number].2 = place;
    }

    fn push(&mut self, frame: Frame, at: Instant) {
        if frame.kind() == FrameKind::Error {
            self.refused += 1;
            return;
        }
        if self.waiting.len() == self.capacity {
            self.drop_at(usize::from(self.begun > 0), Place::Evicted);
        }
        self.waiting.push_back(self.frames.len());
        self.frames.push((frame, at, Place::Waiting));
    }

    fn expire(&mut self, now: Instant, max_age: Duration) {
        let first = usize::from(self.begun > 0);
        while self.waiting.get(first).is_some_and(|number| now.since(self.frames[*number].1) >= max_age) {
            self.drop_at(first, Place::Aged);
        }
    }

    /// The kernel took these bytes. They are confirmed as one, with the last byte of their last whole message.
    fn sent(&mut self, bytes: &[u8]) {
        let mut numbers = Vec::new();
        for byte in bytes {
            let number = self.waiting[0];
            let frame = self.frames[number].0;
            let mut message = [0; FD_MESSAGE];
            let size = encode_frame(&frame, &mut message).unwrap();
            assert_eq!(*byte, message[self.begun], "byte {} of frame {number}", self.begun);
            self.wire.push(*byte);
            self.begun += 1;
            if self.begun == size {
                numbers.push(number);
                self.drop_at(0, Place::InFlight { end: wide(self.wire.len()) });
                self.begun = 0;
            }
        }
        if let Some(last) = numbers.last() {
            let place = self.frames[*last].2;
            numbers.iter().for_each(|number| self.frames[*number].2 = place);
        }
    }

    fn acknowledged(&mut self, unacked: usize) {
        let acknowledged = u64::try_from(self.wire.len().saturating_sub(unacked)).unwrap();
        for (_, _, place) in &mut self.frames {
            if matches!(place, Place::InFlight { end } if *end <= acknowledged) {
                *place = Place::Confirmed;
            }
        }
    }

    fn cut(&mut self) {
        for (_, _, place) in &mut self.frames {
            if matches!(place, Place::InFlight { .. }) {
                *place = Place::Unconfirmed;
            }
        }
        self.begun = 0;
        self.wire.clear();
    }

    fn counters(&self) -> OutboxCounters {
        let mut counters =
            OutboxCounters { pushed: wide(self.frames.len()), refused: self.refused, ..Default::default() };
        for (_, _, place) in &self.frames {
            *match place {
                Place::Waiting => &mut counters.waiting,
                Place::InFlight { .. } => &mut counters.in_flight,
                Place::Confirmed => &mut counters.confirmed,
                Place::Aged => &mut counters.aged,
                Place::Evicted => &mut counters.evicted,
                Place::Unconfirmed => &mut counters.unconfirmed,
                Place::Discarded => &mut counters.discarded,
            } += 1;
        }
        counters
    }

    fn oldest_unacked_age(&self, now: Instant) -> Option<Duration> {
        let flying = |place: &Place| matches!(place, Place::InFlight { .. });
        let flying = self.frames.iter().find(|(_, _, place)| flying(place)).map(|(_, at, _)| *at);
        let begun = (self.begun > 0).then(|| self.frames[self.waiting[0]].1);
        flying.or(begun).map(|at| now.since(at))
    }
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap()
}

/// Whatever is done in whatever order, each frame that was pushed is in exactly the place where a model that
/// remembers everything has it; what goes over a connection is whole messages in order; no segment is longer than
/// it may be or holds a frame that is too old.
pub fn outbox(data: &[u8]) {
    let Some((&capacity, operations)) = data.split_first() else { return };
    let capacity = usize::from(capacity % 13);
    let mut outbox = Outbox::new(capacity);
    let mut model = Model { capacity: capacity.max(2), ..Model::default() };
    let mut now = Instant::from_millis(1_000);
    let mut scratch = [0xa5; 300];
    for (step, operation) in operations.chunks_exact(2).enumerate() {
        let (kind, amount) = (operation[0], usize::from(operation[1]));
        let max_age = [Duration::from_millis(20), Duration::from_millis(3), Duration::MAX][amount % 3];
        match kind % 16 {
            0..=5 => {
                let frame = if amount == 255 { Frame::error(4, [0; 8]) } else { frame_from(wide(step)) };
                assert_eq!(outbox.push(&frame, now), amount != 255);
                model.push(frame, now);
            }
            6 | 7 => now += Duration::from_millis(wide(amount % 8)),
            8 => {
                let before = model.waiting.len();
                model.expire(now, max_age);
                assert_eq!(outbox.expire(now, max_age), before - model.waiting.len());
            }
            9..=12 => {
                let most_bytes = [0, 18, 100, 250, 1_448][amount % 5];
                let room = &mut scratch[..[300, 80, 40][amount / 5 % 3]];
                model.expire(now, max_age);
                segment(&mut outbox, &mut model, now, max_age, most_bytes, room, amount);
            }
            13 => {
                let unacked = amount % 128 * 2;
                outbox.handle_unacked(unacked);
                model.acknowledged(unacked);
            }
            14 if amount < 100 => {
                outbox.cut();
                model.cut();
            }
            15 if amount < 40 => {
                model.cut();
                assert_eq!(outbox.discard(), model.waiting.len());
                while !model.waiting.is_empty() {
                    model.drop_at(0, Place::Discarded);
                }
            }
            _ => {}
        }
        check_outbox(&outbox, &model, now);
    }
}

/// One segment is built and sent, perhaps in part, perhaps not at all.
fn segment(
    outbox: &mut Outbox,
    model: &mut Model,
    now: Instant,
    max_age: Duration,
    most_bytes: usize,
    room: &mut [u8],
    amount: usize,
) {
    let full = outbox.has_full_segment(most_bytes);
    let room_bytes = room.len();
    let segment = outbox.segment(now, max_age, most_bytes, room);
    let first = model.waiting.front().map(|n| message_bytes(&model.frames[*n].0) - model.begun);
    let bytes = segment.bytes().len();
    assert!(bytes <= room_bytes);
    assert!(bytes <= most_bytes || Some(bytes) == first, "{bytes} of {most_bytes}");
    assert_eq!(segment.is_empty(), first.is_none_or(|size| size > room_bytes));
    let next = model.waiting.get(segment.frames()).map(|n| message_bytes(&model.frames[*n].0));
    assert!(
        segment.is_empty() || next.is_none_or(|next| bytes + next > most_bytes.min(room_bytes)),
        "the segment is as long as it may be"
    );
    if full && !segment.is_empty() && room_bytes >= most_bytes && max_age == Duration::MAX {
        let shortest = most_bytes.saturating_sub(FD_MESSAGE);
        assert!(bytes > shortest && (next.is_some() || bytes + CLASSIC_MESSAGE > most_bytes));
    }
    let sent = if amount.is_multiple_of(7) { bytes.min(amount / 7 * 5) } else { bytes };
    let taken = segment.bytes()[..sent].to_vec();
    if sent > 0 || amount.is_multiple_of(2) {
        segment.handle_sent(now, sent);
    }
    model.sent(&taken);
}

fn check_outbox(outbox: &Outbox, model: &Model, now: Instant) {
    let counters = outbox.counters();
    assert_eq!(counters, model.counters());
    let sum = counters.waiting
        + counters.in_flight
        + counters.confirmed
        + counters.aged
        + counters.evicted
        + counters.unconfirmed
        + counters.discarded;
    assert_eq!(sum, counters.pushed);
    assert_eq!((outbox.len(), outbox.is_empty()), (model.waiting.len(), model.waiting.is_empty()));
    assert_eq!(outbox.room(), model.capacity - model.waiting.len());
    assert_eq!(outbox.has_unacked(), counters.in_flight > 0);
    assert_eq!(outbox.oldest_unacked_age(now), model.oldest_unacked_age(now));
    assert_eq!(outbox.oldest_at(), model.waiting.front().map(|n| model.frames[*n].1));
}
