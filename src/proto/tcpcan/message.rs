//! One message: as bytes and as a value.
//!
//! Owns the two message kinds and what makes bytes impossible. Relies on [`crate::can`] for the frame. Never repairs:
//! bytes that no honest sender writes are an error, and the stream they came in is lost.
//!
//! Numbers in a frame are little endian on every host, as the Python program writes them on every usual machine. A
//! frame's `len8_dlc` byte (a raw length code of 9 to 15 with 8 bytes of data) is written as 0 and not read:
//! [`Frame`] has no place for it, so such a frame arrives with length code 8.

use core::fmt;

use crate::can::frame::{CLASSIC_BYTES, CLASSIC_DATA, FD_BYTES, FD_DATA, is_valid_length};
use crate::can::{Frame, FrameKind, Id};

/// TCP port where nothing else is asked for.
pub const PORT: u16 = 20_010;
/// The one version that exists.
pub const VERSION: u32 = 1;

/// Bytes in front of each payload: prefix and length.
pub const HEADER: usize = 2;
/// A whole version message.
pub const VERSION_MESSAGE: usize = HEADER + VERSION_BYTES;
/// A whole message with a classic frame.
pub const CLASSIC_MESSAGE: usize = HEADER + CLASSIC_BYTES;
/// A whole message with a CAN FD frame: the largest one.
pub const FD_MESSAGE: usize = HEADER + FD_BYTES;

/// First byte of a version message.
pub const VERSION_PREFIX: u8 = b'v';
/// First byte of a message with a frame.
pub const DATA_PREFIX: u8 = b'd';

const VERSION_BYTES: usize = 4;
/// The N of the three messages, as the wire has it.
const VERSION_N: u8 = 4;
const CLASSIC_N: u8 = 16;
const FD_N: u8 = 72;

/// Identifier word, bit 31: 29-bit identifier.
const EFF: u32 = 0x8000_0000;
/// Identifier word, bit 30: remote request.
const RTR: u32 = 0x4000_0000;
/// Identifier word, bit 29: error message of a driver.
const ERR: u32 = 0x2000_0000;
/// The other 29 bits.
const ID: u32 = 0x1FFF_FFFF;

const BRS: u8 = 0x01;
const ESI: u8 = 0x02;
/// Set in every FD frame we write; not looked at in what arrives, older kernels leave it out.
const FDF: u8 = 0x04;

/// What a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// A proposal, or the repetition of one. Any number.
    Version(u32),
    /// A frame that a bus can carry.
    Frame(Frame),
    /// A whole message that holds no frame of any bus.
    Refused(Refusal),
}

/// Why a well-formed message holds no frame. The kernel would take all of these, so an honest peer may have read
/// them from its bus: the message is dropped and counted, the connection lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// An error message of a driver: it speaks of the sender's controller, not of ours.
    ErrorFrame,
    /// A remote request with an FD length: CAN FD has none.
    FdRemote,
    /// An FD length that no length code expresses, such as 9.
    FdLength(u8),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ErrorFrame => f.write_str("an error message of a driver"),
            Self::FdRemote => f.write_str("a remote request in a CAN FD frame"),
            Self::FdLength(len) => write!(f, "{len} bytes, which no CAN FD length code expresses"),
        }
    }
}

/// Bytes that no honest sender writes: another protocol, or a torn stream. The connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WireError {
    /// Neither `v` nor `d`.
    Prefix(u8),
    /// A version message whose N is not 4.
    VersionLength(u8),
    /// A frame message whose N is neither 16 nor 72.
    DataLength(u8),
    /// A frame with more data than its kind can carry: above 8, of an FD frame above 64.
    FrameLength(u8),
    /// A number above 0x7FF without the flag of a 29-bit identifier.
    StandardId(u32),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(byte) => write!(f, "a message that begins with 0x{byte:02x}"),
            Self::VersionLength(n) => write!(f, "a version message of {n} bytes"),
            Self::DataLength(n) => write!(f, "a frame message of {n} bytes"),
            Self::FrameLength(len) => write!(f, "a frame with {len} bytes of data"),
            Self::StandardId(raw) => write!(f, "a standard identifier 0x{raw:x}"),
        }
    }
}

impl core::error::Error for WireError {}

/// What two bytes in front of a payload announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Header {
    Version,
    Classic,
    Fd,
}

impl Header {
    /// What as much as is there of a header announces; nothing as long as a second byte can still make it right.
    pub(super) const fn of(bytes: &[u8]) -> Result<Option<Self>, WireError> {
        match bytes {
            [] | [VERSION_PREFIX | DATA_PREFIX] => Ok(None),
            [VERSION_PREFIX, VERSION_N, ..] => Ok(Some(Self::Version)),
            [VERSION_PREFIX, n, ..] => Err(WireError::VersionLength(*n)),
            [DATA_PREFIX, CLASSIC_N, ..] => Ok(Some(Self::Classic)),
            [DATA_PREFIX, FD_N, ..] => Ok(Some(Self::Fd)),
            [DATA_PREFIX, n, ..] => Err(WireError::DataLength(*n)),
            [prefix, ..] => Err(WireError::Prefix(*prefix)),
        }
    }
}

/// Size of the message that carries this frame: 18 or 74.
#[must_use]
pub const fn message_bytes(frame: &Frame) -> usize {
    if frame.is_fd() { FD_MESSAGE } else { CLASSIC_MESSAGE }
}

/// The version message.
#[must_use]
pub const fn encode_version(version: u32) -> [u8; VERSION_MESSAGE] {
    let [a, b, c, d] = version.to_be_bytes();
    [VERSION_PREFIX, VERSION_N, a, b, c, d]
}

/// Writes the message with this frame to the front of `out` and returns its size, 18 or 74. Bytes beyond the data
/// are zero.
///
/// Nothing for an error message of a driver, which the other side would write to its bus; nothing where `out` is too
/// short.
pub fn encode_frame(frame: &Frame, out: &mut [u8]) -> Option<usize> {
    let (flag, flags, n) = match frame.kind() {
        FrameKind::Data => (0, 0, CLASSIC_N),
        FrameKind::Remote => (RTR, 0, CLASSIC_N),
        FrameKind::Fd { brs, esi } => (0, FDF | if brs { BRS } else { 0 } | if esi { ESI } else { 0 }, FD_N),
        FrameKind::Error => return None,
    };
    let size = message_bytes(frame);
    let (head, data) = out.get_mut(..size)?.split_first_chunk_mut::<{ HEADER + 8 }>()?;
    let [w0, w1, w2, w3] = (frame.id().word() | flag).to_le_bytes();
    let len = u8::try_from(frame.len()).ok()?; // at most 64
    *head = [DATA_PREFIX, n, w0, w1, w2, w3, len, flags, 0, 0];
    let payload = frame.payload();
    let (filled, rest) = data.split_at_mut_checked(payload.len())?;
    filled.copy_from_slice(payload);
    rest.fill(0);
    Some(size)
}

/// The message at the front of `bytes` and its size; nothing while it is incomplete.
///
/// # Errors
/// [`WireError`] as soon as the bytes show it: an impossible first byte needs no second one.
pub fn decode(bytes: &[u8]) -> Result<Option<(Message, usize)>, WireError> {
    let Some(header) = Header::of(bytes)? else { return Ok(None) };
    let payload = bytes.get(HEADER..).unwrap_or_default();
    Ok(match header {
        Header::Version => payload
            .first_chunk::<VERSION_BYTES>()
            .map(|version| (Message::Version(u32::from_be_bytes(*version)), VERSION_MESSAGE)),
        Header::Classic => match payload.first_chunk::<CLASSIC_BYTES>() {
            Some(frame) => Some((classic(frame)?, CLASSIC_MESSAGE)),
            None => None,
        },
        Header::Fd => match payload.first_chunk::<FD_BYTES>() {
            Some(frame) => Some((fd(frame)?, FD_MESSAGE)),
            None => None,
        },
    })
}

/// The identifier of a word without the error flag.
fn id(word: u32) -> Result<Id, WireError> {
    let raw = word & ID;
    let id = if word & EFF != 0 { Id::extended(raw) } else { Id::standard(raw) };
    id.ok_or(WireError::StandardId(raw)) // an extended one always fits
}

fn classic(bytes: &[u8; CLASSIC_BYTES]) -> Result<Message, WireError> {
    let [w0, w1, w2, w3, len, _pad, _reserved, _len8_dlc, data @ ..] = bytes;
    let word = u32::from_le_bytes([*w0, *w1, *w2, *w3]);
    let too_long = WireError::FrameLength(*len);
    let payload = data.get(..usize::from(*len)).ok_or(too_long)?;
    if word & ERR != 0 {
        return Ok(Message::Refused(Refusal::ErrorFrame));
    }
    let id = id(word)?;
    let frame = if word & RTR != 0 { Frame::remote(id, *len) } else { Frame::data(id, payload) };
    frame.map(Message::Frame).map_err(|_| too_long)
}

fn fd(bytes: &[u8; FD_BYTES]) -> Result<Message, WireError> {
    let [w0, w1, w2, w3, len, flags, _reserved_0, _reserved_1, data @ ..] = bytes;
    let word = u32::from_le_bytes([*w0, *w1, *w2, *w3]);
    let too_long = WireError::FrameLength(*len);
    let payload = data.get(..usize::from(*len)).ok_or(too_long)?;
    if word & ERR != 0 {
        return Ok(Message::Refused(Refusal::ErrorFrame));
    }
    let id = id(word)?;
    if word & RTR != 0 {
        return Ok(Message::Refused(Refusal::FdRemote));
    }
    if !is_valid_length(payload.len(), true) {
        return Ok(Message::Refused(Refusal::FdLength(*len)));
    }
    Frame::fd(id, payload, flags & BRS != 0, flags & ESI != 0).map(Message::Frame).map_err(|_| too_long)
}

const _: () = assert!(CLASSIC_N as usize == CLASSIC_BYTES && FD_N as usize == FD_BYTES);
const _: () = assert!(CLASSIC_BYTES == 8 + CLASSIC_DATA && FD_BYTES == 8 + FD_DATA);

#[cfg(test)]
mod tests;
