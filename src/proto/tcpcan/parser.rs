//! Messages out of a byte stream.
//!
//! Owns one fixed buffer, made once, and the position in the stream. Relies on the caller to close on the first
//! error. Never finds a lost boundary again, never allocates after creation.
//!
//! A writer whose socket buffer is full may drop the rest of a message and go on with the next one: the length then
//! counts bytes of two messages as one frame. There is always more data behind such a place, so a frame is given out
//! only when what follows it can be a header. Where nothing follows, it is given out at once.

use core::fmt;

use super::message::{DATA_PREFIX, FD_MESSAGE, HEADER, Header, Message, VERSION_PREFIX, WireError, decode};

/// What may stand at the front of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    /// Before agreement.
    Versions,
    /// After agreement.
    Frames,
}

/// Why the stream ends here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ParseError {
    /// Not a message at all.
    Wire(WireError),
    /// A message of the kind that is not expected.
    Kind,
}

/// Takes bytes as they arrive and gives messages as they complete.
pub(super) struct Parser {
    // One allocation at creation; the length is fixed from then on.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// The last read filled the buffer, so more may be waiting: a frame at the very end is not given out yet.
    more: bool,
}

impl fmt::Debug for Parser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parser")
            .field("start", &self.start)
            .field("end", &self.end)
            .field("more", &self.more)
            .finish_non_exhaustive()
    }
}

impl Parser {
    /// A parser at the start of a stream. Room for less than one message and the next header is raised to that.
    pub(super) fn new(bytes: usize) -> Self {
        let least = FD_MESSAGE + HEADER;
        Self { buffer: vec![0; bytes.max(least)].into_boxed_slice(), start: 0, end: 0, more: false }
    }

    pub(super) const fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
        self.more = false;
    }

    /// Room for the next bytes. Empty only while messages wait to be polled.
    pub(super) fn spare(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    /// `n` bytes were written to the front of the spare room. A read that filled it may have left bytes behind.
    pub(super) fn commit(&mut self, n: usize) {
        self.end = self.end.saturating_add(n).min(self.buffer.len());
        self.more = n > 0 && self.end == self.buffer.len();
    }

    /// Takes as many of `bytes` as fit and returns how many.
    pub(super) fn handle_bytes(&mut self, bytes: &[u8]) -> usize {
        let spare = self.spare();
        let n = spare.len().min(bytes.len());
        for (to, from) in spare.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.commit(n);
        self.more = n < bytes.len(); // known here, not guessed
        n
    }

    /// Whether a frame may be held back until it is known what follows it.
    pub(super) const fn must_read_again(&self) -> bool {
        self.more
    }

    /// Whether bytes are held.
    pub(super) const fn is_partial(&self) -> bool {
        self.end > self.start
    }

    /// The next message, if it is complete and what follows does not show that it was torn.
    pub(super) fn poll(&mut self, expect: Expect) -> Result<Option<Message>, ParseError> {
        let bytes = self.buffer.get(self.start..self.end).unwrap_or_default();
        check_front(bytes, expect)?;
        let Some((message, size)) = decode(bytes).map_err(ParseError::Wire)? else { return Ok(None) };
        if !matches!(message, Message::Version(_)) {
            let rest = bytes.get(size..).unwrap_or_default();
            if rest.is_empty() && self.more {
                return Ok(None);
            }
            check_front(rest, Expect::Frames)?;
        }
        self.start += size;
        Ok(Some(message))
    }
}

/// Whether as much as is there can be the front of a message of the expected kind. The first byte decides about the
/// kind, so that the verdict is the same however the bytes arrive.
fn check_front(bytes: &[u8], expect: Expect) -> Result<(), ParseError> {
    let wrong_kind = match expect {
        Expect::Versions => DATA_PREFIX,
        Expect::Frames => VERSION_PREFIX,
    };
    if bytes.first() == Some(&wrong_kind) {
        return Err(ParseError::Kind);
    }
    Header::of(bytes).map(drop).map_err(ParseError::Wire)
}
