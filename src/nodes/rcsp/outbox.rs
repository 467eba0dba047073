//! Messages on their way to one client.
//!
//! Owns their order and what is dropped where the client does not keep up. Relies on the caller to write what [`next`] gives
//! and to say how much the socket took. Never drops an answer, never drops what has begun to leave, never splits a message
//! by another one.
//!
//! [`next`]: Outbox::next

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::json;

use crate::proto::rcsp::envelope;

/// Events that wait for one client: a status screen's worth of news of several minutes.
pub const EVENTS: usize = 256;

/// Bytes of the events that wait for one client.
pub const EVENT_BYTES: usize = 256 << 10;

/// What a message costs beside its bytes: its place in line and the allocator's. Without it, many small answers would weigh
/// nothing.
pub const OVERHEAD: usize = 64;

/// A message, its client's own or one that all have in common.
#[derive(Debug)]
enum Bytes {
    Answer(Vec<u8>),
    Event(Arc<[u8]>),
}

impl Bytes {
    fn get(&self) -> &[u8] {
        match self {
            Self::Answer(bytes) => bytes,
            Self::Event(bytes) => bytes,
        }
    }
}

/// The messages that wait for one client.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: VecDeque<Bytes>,
    /// Bytes of the first message that have left.
    begun: usize,
    events: usize,
    event_bytes: usize,
    answer_weight: usize,
    dropped: u64,
    /// Of those, how many the client was told of.
    told: u64,
}

impl Outbox {
    /// Puts an answer in line.
    pub fn push_answer(&mut self, message: Vec<u8>) {
        self.answer_weight += message.len() + OVERHEAD;
        self.queue.push_back(Bytes::Answer(message));
    }

    /// Puts an event in line. Where there are too many, the oldest that has not begun to leave goes.
    pub fn push_event(&mut self, message: &Arc<[u8]>) {
        self.events += 1;
        self.event_bytes += message.len();
        self.queue.push_back(Bytes::Event(Arc::clone(message)));
        let mut at = usize::from(self.begun > 0);
        while self.events > EVENTS || self.event_bytes > EVENT_BYTES {
            match self.queue.get(at) {
                Some(Bytes::Event(event)) => {
                    self.events -= 1;
                    self.event_bytes -= event.len();
                    self.dropped += 1;
                    self.queue.remove(at);
                }
                Some(Bytes::Answer(_)) => at += 1,
                // What is left over the limit has begun to leave.
                None => break,
            }
        }
    }

    /// The bytes to be written next, to the end of a message; empty where nothing waits.
    #[must_use]
    pub fn next(&self) -> &[u8] {
        self.queue.front().and_then(|message| message.get().get(self.begun..)).unwrap_or_default()
    }

    /// Says that the socket took `n` bytes of [`next`](Self::next).
    pub fn wrote(&mut self, n: usize) {
        self.begun += n;
        let Some(length) = self.queue.front().map(|message| message.get().len()) else { return };
        if self.begun < length {
            return;
        }
        self.begun = 0;
        match self.queue.pop_front() {
            Some(Bytes::Answer(_)) => self.answer_weight -= length + OVERHEAD,
            Some(Bytes::Event(_)) => {
                self.events -= 1;
                self.event_bytes -= length;
            }
            None => {}
        }
        self.tell_loss();
    }

    /// The client is told how many events it has missed, where they would have stood. The notice is never dropped; there is at
    /// most one for each message that has left.
    fn tell_loss(&mut self) {
        let lost = self.dropped - self.told;
        if lost == 0 {
            return;
        }
        self.told = self.dropped;
        let text = format!("{lost} events were dropped: this client does not keep up");
        let data = json!({ "Dropped": lost, "Text": text });
        let notice = envelope::event("Gateway", "EventsDropped", None, &data);
        self.answer_weight += notice.len() + OVERHEAD;
        self.queue.push_front(Bytes::Answer(notice));
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// What the waiting answers cost in bytes.
    #[must_use]
    pub const fn answer_weight(&self) -> usize {
        self.answer_weight
    }

    /// What all that waits costs in bytes, as if no event were shared.
    #[must_use]
    pub const fn weight(&self) -> usize {
        self.answer_weight + self.event_bytes + self.events * OVERHEAD
    }

    /// Events that were dropped.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(bytes: &[u8]) -> Arc<[u8]> {
        bytes.into()
    }

    /// Everything that leaves, at most `piece` bytes at once.
    fn drain(outbox: &mut Outbox, piece: usize) -> Vec<u8> {
        let mut left = Vec::new();
        while !outbox.is_empty() {
            let n = outbox.next().len().min(piece);
            assert!(n > 0, "an empty message never leaves");
            left.extend(&outbox.next()[..n]);
            outbox.wrote(n);
        }
        assert_eq!((outbox.weight(), outbox.next()), (0, &[][..]));
        left
    }

    #[test]
    fn messages_leave_whole_and_in_order_however_they_are_cut() {
        for piece in 1..8 {
            let mut outbox = Outbox::default();
            outbox.push_answer(b"one".to_vec());
            outbox.push_event(&event(b"TWO"));
            outbox.push_answer(b"three".to_vec());
            assert_eq!(outbox.weight(), 11 + 3 * OVERHEAD);
            assert_eq!(outbox.answer_weight(), 8 + 2 * OVERHEAD);
            assert_eq!(drain(&mut outbox, piece), b"oneTWOthree");
        }
    }

    /// What has left without the one notice of so many dropped events.
    fn without_notice(left: Vec<u8>, lost: u64) -> Vec<u8> {
        let start = left.windows(4).position(|bytes| bytes == [0xDC, 1, 8, 4]).unwrap();
        let size = usize::from(u16::from_le_bytes([left[start + 4], left[start + 5]]));
        let end = start + 8 + size;
        let body = String::from_utf8_lossy(&left[start + 8..end]);
        assert!(body.contains(&format!("\"Dropped\":{lost},")), "{body}");
        [&left[..start], &left[end..]].concat()
    }

    #[test]
    fn the_oldest_events_go_and_no_answer_does() {
        let mut outbox = Outbox::default();
        for number in 0..EVENTS + 10 {
            outbox.push_event(&event(format!("e{number};").as_bytes()));
            if number % 100 == 0 {
                outbox.push_answer(format!("a{number};").into_bytes());
            }
        }
        assert_eq!(outbox.dropped(), 10);
        let left = without_notice(drain(&mut outbox, 1_000), 10);
        let left = String::from_utf8(left).unwrap();
        let messages: Vec<&str> = left.split_terminator(';').collect();
        assert_eq!(messages.len(), EVENTS + 3);
        assert_eq!(messages[..3], ["a0", "e10", "e11"]);
        assert_eq!(messages.iter().filter(|message| message.starts_with('a')).count(), 3);
        assert_eq!(messages.last(), Some(&"e265"));
    }

    #[test]
    fn an_event_that_has_begun_to_leave_is_not_dropped() {
        let mut outbox = Outbox::default();
        outbox.push_event(&event(b"first"));
        outbox.wrote(2);
        for _ in 0..EVENTS {
            outbox.push_event(&event(b"x"));
        }
        assert_eq!(outbox.dropped(), 1);
        let left = without_notice(drain(&mut outbox, 1_000), 1);
        assert_eq!(left, [b"rst".as_slice(), &[b'x'; EVENTS - 1]].concat());
    }

    #[test]
    fn bytes_of_events_are_bounded_too() {
        let mut outbox = Outbox::default();
        let large = event(&[b'x'; EVENT_BYTES / 4 + 1]);
        for _ in 0..100 {
            outbox.push_event(&large);
            assert!(outbox.weight() <= EVENT_BYTES + 4 * OVERHEAD);
        }
        assert_eq!(outbox.dropped(), 97);
        // One that could never fit takes the others along and goes itself.
        outbox.push_event(&event(&[b'y'; EVENT_BYTES + 1]));
        assert!(outbox.is_empty());
        assert_eq!((outbox.weight(), outbox.dropped()), (0, 101));
    }

    #[test]
    fn a_client_is_told_once_how_much_it_has_missed_and_where() {
        let mut outbox = Outbox::default();
        outbox.push_event(&event(b"begun"));
        outbox.wrote(1);
        for number in 0..EVENTS + 9 {
            outbox.push_event(&event(format!("<{number}>").as_bytes()));
        }
        // The one that had begun is one of those that are kept.
        assert_eq!(outbox.dropped(), 10);
        let left = String::from_utf8_lossy(&drain(&mut outbox, 7)).into_owned();
        let notice = left.find("EventsDropped").unwrap();
        assert_eq!(left.matches("EventsDropped").count(), 1);
        assert!(left.contains("\"Dropped\":10"), "{left}");
        assert!(left.starts_with("egun") && notice < left.find("<10>").unwrap());
        assert_eq!((outbox.answer_weight(), outbox.weight()), (0, 0));
    }
}
