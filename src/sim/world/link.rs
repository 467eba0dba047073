//! A TCP connection in virtual time: bytes in order, late, in pieces, or stuck.
//!
//! Owns the bytes on their way and in the kernel's buffers. Relies on `rng`. Never loses a byte of a connection that
//! lives: what fails is time.

use std::collections::VecDeque;

use super::rng::Rng;
use crate::time::{Duration, Instant};

/// One direction.
#[derive(Debug)]
pub struct Pipe {
    /// Bytes that may be on their way before a write is refused: the socket buffers.
    window: usize,
    delay: Duration,
    segments: VecDeque<(Instant, Vec<u8>)>,
    on_the_way: usize,
    stuck: bool,
}

impl Pipe {
    /// An empty one whose socket buffers hold this many bytes.
    #[must_use]
    pub const fn new(window: usize) -> Self {
        Self { window, delay: Duration::ZERO, segments: VecDeque::new(), on_the_way: 0, stuck: false }
    }

    /// Every byte from now on is later by this.
    pub const fn slow_down(&mut self, delay: Duration) {
        self.delay = delay;
    }

    /// Takes what fits into the window; answers how much that was.
    pub fn push(&mut self, now: Instant, bytes: &[u8], rng: &mut Rng) -> usize {
        let n = bytes.len().min(self.window.saturating_sub(self.on_the_way));
        let mut rest = bytes.get(..n).unwrap_or_default();
        self.on_the_way += n;
        let mut due = now + self.delay + Duration::from_micros(rng.range(100, 900));
        due = self.segments.back().map_or(due, |(last, _)| due.max(*last));
        while !rest.is_empty() {
            // A segment boundary may lie anywhere, also in the middle of a length.
            let cut = if rng.per_mille(50) { rng.range(1, rest.len() as u64) as usize } else { rest.len() };
            let (segment, later) = rest.split_at(cut.min(rest.len()));
            self.segments.push_back((due, segment.to_vec()));
            due += Duration::from_micros(rng.range(0, 400));
            rest = later;
        }
        n
    }

    /// The next bytes that have arrived.
    pub fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.stuck || self.segments.front().is_none_or(|(due, _)| *due > now) {
            return None;
        }
        let (_, bytes) = self.segments.pop_front()?;
        self.on_the_way -= bytes.len();
        Some(bytes)
    }

    /// Whether anything is still on its way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Nothing arrives until it is loosened; then everything does at once.
    pub const fn hold(&mut self, stuck: bool) {
        self.stuck = stuck;
    }

    /// The connection is gone, with everything on its way.
    pub fn clear(&mut self) {
        self.segments.clear();
        self.on_the_way = 0;
        self.stuck = false;
        self.delay = Duration::ZERO;
    }
}
