//! The header in front of every message.
//!
//! Owns the 8 bytes: their layout, the kinds of messages, and what makes a header unusable. Relies on nothing. Never
//! looks into a body. Source: the vendor's public example; its specification was readable in part only.

/// Bytes of the header that this version of the protocol knows.
pub const HEADER: usize = 8;

/// First byte of every message.
pub const MARKER: u8 = 0xDC;

/// Version of the header's layout.
pub const HEADER_VERSION: u8 = 1;

/// The kinds of messages; every other number is undefined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PayloadType {
    /// Client to server: a command. It gets exactly one answer.
    Command = 1,
    /// Server to client: the command was carried out.
    ResponseOk = 2,
    /// Server to client: the command was refused.
    ResponseError = 3,
    /// Server to client: something that was subscribed to has happened.
    Event = 4,
}

impl PayloadType {
    /// The kind with this number.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Command),
            2 => Some(Self::ResponseOk),
            3 => Some(Self::ResponseError),
            4 => Some(Self::Event),
            _ => None,
        }
    }
}

/// A header that can be used: a message of this kind and size follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The kind as it stands in the header; it may be an undefined one.
    pub kind: u8,
    /// Bytes between the 8 known ones and the body: a later version's, to be passed over.
    pub extra: u8,
    /// Bytes of the body.
    pub payload_size: u32,
}

/// Why nothing behind this header can be read: the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// The first byte is another one: where the next message begins is not known.
    Marker(u8),
    /// Another version of the layout.
    Version(u8),
    /// A header that says it is shorter than 8 bytes.
    Size(u8),
    /// A body beyond the limit of this end.
    TooLong(u32),
}

impl core::fmt::Display for HeaderError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Marker(byte) => write!(f, "the message begins with {byte:#04x} and not with 0xdc"),
            Self::Version(version) => write!(f, "header version {version} is not known, only 1"),
            Self::Size(size) => write!(f, "a header of {size} bytes: 8 is the least"),
            Self::TooLong(bytes) => write!(f, "a body of {bytes} bytes is too long"),
        }
    }
}

impl core::error::Error for HeaderError {}

impl Header {
    /// Reads the 8 bytes. The limit holds for the body; it is checked before anything is reserved for it.
    ///
    /// # Errors
    /// [`HeaderError`]: the first of the four that applies, in the order of the bytes.
    pub const fn decode(bytes: [u8; HEADER], limit: usize) -> Result<Self, HeaderError> {
        let [marker, version, size, kind, a, b, c, d] = bytes;
        if marker != MARKER {
            return Err(HeaderError::Marker(marker));
        }
        if version != HEADER_VERSION {
            return Err(HeaderError::Version(version));
        }
        let Some(extra) = size.checked_sub(8) else { return Err(HeaderError::Size(size)) };
        let payload_size = u32::from_le_bytes([a, b, c, d]);
        if payload_size as usize > limit {
            return Err(HeaderError::TooLong(payload_size));
        }
        Ok(Self { kind, extra, payload_size })
    }
}

/// A whole message: header and body in one buffer, to be written as one.
///
/// A body longer than the header's field can say does not exist here: every caller's is bounded far below.
#[must_use]
pub fn encode(kind: PayloadType, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend([MARKER, HEADER_VERSION, 8, kind as u8]);
    bytes.extend(size.to_le_bytes());
    bytes.extend(body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_header_is_read_and_written() {
        let bytes = encode(PayloadType::Command, b"{}");
        assert_eq!(bytes, [0xDC, 1, 8, 1, 2, 0, 0, 0, b'{', b'}']);
        for kind in 0..=255u8 {
            for (size, extra) in [(8, 0), (9, 1), (255, 247)] {
                let read = Header::decode([0xDC, 1, size, kind, 0x78, 0x56, 0x34, 0], 1 << 24);
                assert_eq!(read, Ok(Header { kind, extra, payload_size: 0x0034_5678 }));
            }
            let named = PayloadType::from_byte(kind);
            assert_eq!(named.map(|kind| kind as u8), (1..=4).contains(&kind).then_some(kind));
        }
    }

    #[test]
    fn the_first_unusable_byte_is_told() {
        let decode = |bytes| Header::decode(bytes, 100);
        for byte in (0..=255).filter(|byte| *byte != MARKER) {
            assert_eq!(decode([byte, 9, 0, 0, 255, 255, 255, 255]), Err(HeaderError::Marker(byte)));
        }
        for version in (0..=255).filter(|version| *version != 1) {
            assert_eq!(decode([0xDC, version, 0, 1, 255, 255, 255, 255]), Err(HeaderError::Version(version)));
        }
        for size in 0..8 {
            assert_eq!(decode([0xDC, 1, size, 1, 255, 255, 255, 255]), Err(HeaderError::Size(size)));
        }
        assert_eq!(decode([0xDC, 1, 8, 1, 255, 255, 255, 255]), Err(HeaderError::TooLong(u32::MAX)));
        assert_eq!(decode([0xDC, 1, 8, 1, 101, 0, 0, 0]), Err(HeaderError::TooLong(101)));
        decode([0xDC, 1, 8, 1, 100, 0, 0, 0]).unwrap();
    }
}
