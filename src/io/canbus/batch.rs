//! Many frames in one call: what the tunnel reads and writes.
//!
//! Owns the buffers of one direction, allocated once. Relies on `io::sys` for the calls. Never waits, and never says that
//! a frame has left: a frame taken is a frame queued.

use crate::can::Frame;
use crate::can::frame::FD_BYTES;
use crate::io::sys::MANY;

/// Frames of one call, and how many the port has lost so far.
#[derive(Debug)]
pub struct Batch {
    pub(super) raw: Box<[[u8; FD_BYTES]]>,
    pub(super) lengths: Box<[usize]>,
    pub(super) frames: Vec<Frame>,
    /// Frames that this port lost to a full receive buffer since it was opened, as last told.
    pub(super) dropped_total: u32,
}

impl Batch {
    /// Room for [`MANY`] frames.
    #[must_use]
    pub fn new() -> Self {
        Self {
            raw: vec![[0; FD_BYTES]; MANY].into_boxed_slice(),
            lengths: vec![0; MANY].into_boxed_slice(),
            frames: Vec::with_capacity(MANY),
            dropped_total: 0,
        }
    }

    /// The frames that the last call brought.
    #[must_use]
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// Frames that the port lost to a full receive buffer since it was opened, as of the last frame.
    #[must_use]
    pub const fn dropped_total(&self) -> u32 {
        self.dropped_total
    }

    /// Whether the last call filled the batch, so that more may be waiting.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.frames.len() >= MANY
    }

    /// Writes the kernel's form of `frames` into the buffers; returns how many fit.
    pub(super) fn fill(&mut self, frames: &[Frame]) -> usize {
        let mut count = 0;
        for ((raw, length), frame) in self.raw.iter_mut().zip(self.lengths.iter_mut()).zip(frames) {
            *length = frame.to_bytes(raw);
            count += 1;
        }
        count
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}
