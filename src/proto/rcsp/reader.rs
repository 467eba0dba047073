//! Messages out of a byte stream, however it is cut.
//!
//! Owns the bytes of the one message that is arriving. Relies on `header`. Never holds more than the limit, never
//! reserves memory for bytes that are only announced, and never goes on after a header that cannot be used.

use super::header::{HEADER, Header, HeaderError};

/// What has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A message of a kind that this end takes.
    Message {
        /// Its kind.
        kind: u8,
        /// Its body; it may be empty.
        body: Vec<u8>,
    },
    /// A message of another kind: its body was passed over.
    Skipped {
        /// Its kind.
        kind: u8,
    },
}

/// Where in a message the stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// This many bytes of the header are here.
    Header(usize),
    /// So many bytes of a longer header are still to be passed over.
    Extra(Header),
    Body(Header),
}

/// Takes bytes as they arrive and gives messages as they complete.
#[derive(Debug)]
pub struct Reader {
    limit: usize,
    takes: fn(u8) -> bool,
    place: Place,
    header: [u8; HEADER],
    body: Vec<u8>,
    /// Bytes of the body, or of the longer header, that are still to come.
    left: usize,
    broken: Option<HeaderError>,
}

impl Reader {
    /// A reader at the start of a stream. Bodies are at most `limit` bytes; those of kinds that `takes` refuses are passed over.
    #[must_use]
    pub const fn new(limit: usize, takes: fn(u8) -> bool) -> Self {
        Self {
            limit,
            takes,
            place: Place::Header(0),
            header: [0; HEADER],
            body: Vec::new(),
            left: 0,
            broken: None,
        }
    }

    /// Whether a message has begun and is not complete.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        self.place != Place::Header(0)
    }

    /// Bytes that are held for the message that is arriving.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.body.capacity()
    }

    /// Takes bytes up to the end of one message: how many, and the message if it is complete. The rest is for the next
    /// call; nothing is left only when no message came.
    ///
    /// # Errors
    /// [`HeaderError`]: nothing that follows can be read; every later call says the same.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(usize, Option<Incoming>), HeaderError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        let mut used = 0;
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            match self.place {
                Place::Header(have) => {
                    let Some(byte) = rest.first() else { return Ok((used, None)) };
                    if let Some(cell) = self.header.get_mut(have) {
                        *cell = *byte;
                    }
                    used += 1;
                    self.place = Place::Header(have + 1);
                    if have + 1 == HEADER {
                        self.begin()?;
                    }
                }
                Place::Extra(header) => {
                    let now = rest.len().min(self.left);
                    used += now;
                    self.left -= now;
                    if self.left > 0 {
                        return Ok((used, None));
                    }
                    self.place = Place::Body(header);
                    self.left = header.payload_size as usize;
                }
                Place::Body(header) => {
                    let now = rest.len().min(self.left);
                    let taken = (self.takes)(header.kind);
                    if taken {
                        self.body.extend(rest.get(..now).unwrap_or_default());
                    }
                    used += now;
                    self.left -= now;
                    if self.left > 0 {
                        return Ok((used, None));
                    }
                    self.place = Place::Header(0);
                    let kind = header.kind;
                    let message = if taken {
                        Incoming::Message { kind, body: std::mem::take(&mut self.body) }
                    } else {
                        Incoming::Skipped { kind }
                    };
                    return Ok((used, Some(message)));
                }
            }
        }
    }

    /// The header is complete: what follows it.
    fn begin(&mut self) -> Result<(), HeaderError> {
        match Header::decode(self.header, self.limit) {
            Ok(header) => {
                self.place = Place::Extra(header);
                self.left = header.extra.into();
                Ok(())
            }
            Err(error) => {
                self.broken = Some(error);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::header::{PayloadType, encode};
    use super::*;

    const LIMIT: usize = 100;

    fn commands(kind: u8) -> bool {
        kind == 1
    }

    /// Everything that a stream holds, when it arrives in pieces of these sizes.
    fn read(stream: &[u8], piece: usize) -> (Vec<Incoming>, Option<HeaderError>, bool) {
        let mut reader = Reader::new(LIMIT, commands);
        let mut seen = Vec::new();
        for chunk in stream.chunks(piece) {
            let mut rest = chunk;
            while !rest.is_empty() {
                match reader.take(rest) {
                    Ok((used, message)) => {
                        assert!(used > 0, "no progress");
                        rest = &rest[used..];
                        seen.extend(message);
                    }
                    Err(error) => {
                        assert_eq!(reader.take(b"x"), Err(error), "it stays broken");
                        return (seen, Some(error), false);
                    }
                }
            }
        }
        (seen, None, reader.is_inside())
    }

    fn message(body: &[u8]) -> Incoming {
        Incoming::Message { kind: 1, body: body.to_vec() }
    }

    #[test]
    fn a_stream_is_the_same_however_it_is_cut() {
        let mut stream = encode(PayloadType::Command, b"{\"a\":1}");
        stream.extend(encode(PayloadType::Event, b"passed over"));
        stream.extend(encode(PayloadType::Command, b""));
        // A header of 11 bytes.
        stream.extend([0xDC, 1, 11, 1, 2, 0, 0, 0, 9, 9, 9, b'{', b'}']);
        stream.extend(encode(PayloadType::Command, &[b' '; LIMIT]));
        let want = vec![
            message(b"{\"a\":1}"),
            Incoming::Skipped { kind: 4 },
            message(b""),
            message(b"{}"),
            message(&[b' '; LIMIT]),
        ];
        for piece in 1..=stream.len() {
            assert_eq!(read(&stream, piece), (want.clone(), None, false), "pieces of {piece}");
        }
    }

    #[test]
    fn every_truncation_is_an_unfinished_message_and_nothing_else() {
        let whole = encode(PayloadType::Command, b"{\"Command\":\"x\"}");
        for cut in 1..whole.len() {
            let (seen, error, is_inside) = read(&whole[..cut], 3);
            assert!(seen.is_empty() && error.is_none() && is_inside, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_announced_reserves_nothing() {
        let mut reader = Reader::new(LIMIT, commands);
        let announced = [0xDC, 1, 8, 1, 0xFF, 0xFF, 0xFF, 0xFF];
        assert_eq!(reader.take(&announced), Err(HeaderError::TooLong(u32::MAX)));
        assert_eq!(reader.body.capacity(), 0);
        let mut reader = Reader::new(LIMIT, commands);
        assert_eq!(reader.take(&[0xDC, 1, 8, 1, 100, 0, 0, 0]), Ok((8, None)));
        assert_eq!(reader.body.capacity(), 0, "a body within the limit is kept as it comes");
    }

    #[test]
    fn a_message_before_a_broken_header_is_given_out() {
        let mut stream = encode(PayloadType::Command, b"{}");
        stream.push(0);
        stream.extend([0; 7]);
        assert_eq!(read(&stream, 100), (vec![message(b"{}")], Some(HeaderError::Marker(0)), false));
    }
}
