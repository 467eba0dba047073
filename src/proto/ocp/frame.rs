//! Frames out of a byte stream.
//!
//! Owns one fixed buffer, made once, and the position in the stream. Relies on the length in front of each body
//! being right: there is no marker to find a lost boundary again. Never allocates after creation, never copies a
//! body, never looks inside one.
//!
//! A frame is 4 bytes of unsigned little-endian length and that many bytes of body, at most 16384.

use core::fmt;

use super::{FRAME, HEADER};
use crate::limits;

/// What is wrong with the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameError {
    /// A frame without a body: dropped, counted as a strike, the stream goes on.
    Empty,
    /// A length above the protocol's limit, as read: the framing is lost, the connection must be closed. Bytes of
    /// another protocol and a length in the wrong byte order look like this too.
    Oversize(u32),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a frame of length 0"),
            Self::Oversize(len) => {
                write!(
                    f,
                    "a frame of length {len}, above {}: this is not OCP, or framing is lost",
                    limits::OCP_BODY
                )
            }
        }
    }
}

impl core::error::Error for FrameError {}

/// Takes bytes as they arrive and gives frames as they complete.
///
/// Either copy bytes in with [`handle_bytes`](Self::handle_bytes), or let the socket read straight into
/// [`spare`](Self::spare) and say how much came with [`commit`](Self::commit). Then take frames with
/// [`poll_frame`](Self::poll_frame) until it has none.
pub struct Deframer {
    // One allocation at creation; the length is fixed from then on.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl fmt::Debug for Deframer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deframer").field("start", &self.start).field("end", &self.end).finish_non_exhaustive()
    }
}

impl Default for Deframer {
    fn default() -> Self {
        Self::new()
    }
}

impl Deframer {
    /// A deframer at the start of a stream, with room for one frame of the largest size.
    #[must_use]
    pub fn new() -> Self {
        Self { buffer: vec![0; FRAME].into_boxed_slice(), start: 0, end: 0 }
    }

    /// Forgets everything: a new connection starts.
    pub const fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Takes as many of `bytes` as fit and returns how many. All fit if all frames were polled before, up to the
    /// size of the largest frame.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> usize {
        let spare = self.spare();
        let n = spare.len().min(bytes.len());
        for (to, from) in spare.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.commit(n);
        n
    }

    /// Room for the next bytes of the stream. Empty only while a complete frame of the largest size waits.
    pub fn spare(&mut self) -> &mut [u8] {
        if self.start > 0 {
            // What is left of the next frame moves to the front, so that the largest frame always has room.
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    /// Says that `n` bytes were written to the front of [`spare`](Self::spare).
    pub fn commit(&mut self, n: usize) {
        self.end = self.end.saturating_add(n).min(self.buffer.len());
    }

    /// The length that the next frame announces, once its header is here.
    fn announced(&self) -> Option<u32> {
        let bytes = self.buffer.get(self.start..self.end)?;
        bytes.first_chunk::<HEADER>().map(|header| u32::from_le_bytes(*header))
    }

    /// The body of the next frame, if it is complete.
    ///
    /// # Errors
    /// [`FrameError::Empty`] once for each frame without a body. [`FrameError::Oversize`] from then on for good:
    /// only [`clear`](Self::clear) ends it.
    pub fn poll_frame(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let Some(announced) = self.announced() else { return Ok(None) };
        if announced == 0 {
            self.start += HEADER;
            return Err(FrameError::Empty);
        }
        let len = usize::try_from(announced).unwrap_or(usize::MAX);
        if len > limits::OCP_BODY {
            return Err(FrameError::Oversize(announced));
        }
        let body = self.start + HEADER;
        if self.end < body + len {
            return Ok(None);
        }
        self.start = body + len;
        Ok(self.buffer.get(body..body + len))
    }

    /// Whether bytes of an incomplete frame are held, for the limit on assembly time. Asked after polling.
    #[must_use]
    pub const fn is_partial(&self) -> bool {
        self.end > self.start
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "tests fail by panicking"
    )]
    use super::*;

    fn framed(body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
        bytes.extend_from_slice(body);
        bytes
    }

    /// Feeds everything, polling whenever the buffer is full, and lists what came out.
    fn drain(deframer: &mut Deframer, mut bytes: &[u8]) -> Vec<Result<Vec<u8>, FrameError>> {
        let mut out = Vec::new();
        loop {
            let n = deframer.handle_bytes(bytes);
            bytes = &bytes[n..];
            loop {
                match deframer.poll_frame() {
                    Ok(Some(body)) => out.push(Ok(body.to_vec())),
                    Ok(None) => break,
                    Err(e @ FrameError::Empty) => out.push(Err(e)),
                    Err(e) => {
                        out.push(Err(e));
                        return out;
                    }
                }
            }
            if bytes.is_empty() {
                return out;
            }
        }
    }

    #[test]
    fn row_13_length_zero_is_dropped_and_the_stream_goes_on() {
        let mut bytes = framed(b"{}");
        bytes.extend([0, 0, 0, 0]);
        bytes.extend(framed(b"[1]"));
        let got = drain(&mut Deframer::new(), &bytes);
        assert_eq!(got, [Ok(b"{}".to_vec()), Err(FrameError::Empty), Ok(b"[1]".to_vec())]);
    }

    #[test]
    fn row_14_lengths_above_the_limit_lose_the_framing_for_good() {
        for len in [16_385_u32, 65_536, 0x8000_0000, u32::MAX] {
            let mut deframer = Deframer::new();
            assert_eq!(deframer.handle_bytes(&len.to_le_bytes()), 4);
            assert_eq!(deframer.poll_frame(), Err(FrameError::Oversize(len)));
            deframer.handle_bytes(&framed(b"{}"));
            assert_eq!(deframer.poll_frame(), Err(FrameError::Oversize(len)), "sticky until cleared");
            deframer.clear();
            assert!(!deframer.is_partial());
            deframer.handle_bytes(&framed(b"{}"));
            assert_eq!(deframer.poll_frame(), Ok(Some(&b"{}"[..])));
        }
    }

    #[test]
    fn row_14_the_largest_body_passes() {
        let body: Vec<u8> = (0..limits::OCP_BODY).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let mut bytes = framed(&body);
        bytes.extend(framed(&body));
        let got = drain(&mut Deframer::new(), &bytes);
        assert_eq!(got, [Ok(body.clone()), Ok(body)]);
    }

    #[test]
    fn row_15_a_truncated_frame_is_partial_and_never_given() {
        let bytes = framed(b"{\"a\":1}");
        for cut in 1..bytes.len() {
            let mut deframer = Deframer::new();
            deframer.handle_bytes(&bytes[..cut]);
            assert_eq!(deframer.poll_frame(), Ok(None), "cut at {cut}");
            assert!(deframer.is_partial());
        }
    }

    #[test]
    fn row_16_text_of_another_protocol_loses_the_framing() {
        for other in [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"SSH-2.0-OpenSSH", b"< hi >", b"{\"a\":1}"] {
            assert!(matches!(drain(&mut Deframer::new(), other)[..], [Err(FrameError::Oversize(_))]));
        }
    }

    #[test]
    fn row_17_a_length_in_big_endian_loses_the_framing() {
        let mut deframer = Deframer::new();
        deframer.handle_bytes(&467_u32.to_be_bytes());
        assert_eq!(deframer.poll_frame(), Err(FrameError::Oversize(0xd301_0000)));
    }

    #[test]
    fn row_18_every_split_point_of_two_messages_gives_the_same_frames() {
        let mut bytes = framed(b"{\"first\":1}");
        bytes.extend(framed(b"{\"second\":22}"));
        let want = [Ok(b"{\"first\":1}".to_vec()), Ok(b"{\"second\":22}".to_vec())];
        for a in 0..=bytes.len() {
            for b in a..=bytes.len() {
                let mut deframer = Deframer::new();
                let mut got = drain(&mut deframer, &bytes[..a]);
                got.extend(drain(&mut deframer, &bytes[a..b]));
                got.extend(drain(&mut deframer, &bytes[b..]));
                assert_eq!(got, want, "split at {a} and {b}");
                assert!(!deframer.is_partial());
            }
        }
    }

    #[test]
    fn row_18_one_message_in_ten_segments_and_one_byte_at_a_time() {
        let bytes = framed(&[b'x'; 96]);
        for chunk in [1, 10] {
            let mut deframer = Deframer::new();
            let mut got = Vec::new();
            for (i, part) in bytes.chunks(chunk).enumerate() {
                assert!(got.is_empty(), "complete before the last segment ({i})");
                got.extend(drain(&mut deframer, part));
            }
            assert_eq!(got, [Ok(vec![b'x'; 96])]);
        }
    }

    #[test]
    fn reading_straight_into_the_buffer_does_the_same() {
        let bytes = [framed(b"one"), framed(b"two"), framed(&[7; 16_384])].concat();
        let mut deframer = Deframer::new();
        let (mut at, mut got) = (0, Vec::new());
        while at < bytes.len() {
            let spare = deframer.spare();
            assert!(!spare.is_empty());
            let n = spare.len().min(bytes.len() - at).min(5_000);
            spare[..n].copy_from_slice(&bytes[at..at + n]);
            deframer.commit(n);
            at += n;
            while let Some(body) = deframer.poll_frame().unwrap() {
                got.push(body.to_vec());
            }
        }
        assert_eq!(got, [b"one".to_vec(), b"two".to_vec(), vec![7; 16_384]]);
    }
}
