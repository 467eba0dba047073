//! Primitive types of the protocol: reading from one datagram, writing into one buffer.
//!
//! Owns little-endian numbers, the two kinds of counted text, and the errors of both directions. Relies on
//! [`Text`]. Never allocates, never reads behind the datagram, never leaves the buffer.

use core::fmt;

use super::text::{FIXED_UNITS, Form, TERMINATOR, Text};

/// Why a datagram holds no message. Consequence: the whole datagram is dropped and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WireError {
    /// A datagram without a byte.
    Empty,
    /// A first byte that is no message of this direction: an extension of some server, or another protocol.
    UnknownId(u8),
    /// A known message that is cut off.
    Short {
        /// Its first byte.
        id: u8,
        /// Bytes that the message has at least, as far as it could be read.
        need: usize,
        /// Bytes that are there.
        have: usize,
    },
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("an empty datagram"),
            Self::UnknownId(id) => write!(f, "a message of the unknown type {id}"),
            Self::Short { id, need, have } => {
                write!(f, "a message of type {id} with {have} bytes that needs at least {need}")
            }
        }
    }
}

impl core::error::Error for WireError {}

/// Why a message cannot be written. Nothing of it may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EncodeError {
    /// The buffer has too few bytes.
    BufferTooSmall,
    /// A text of more units than its place takes: 255 where it is counted, 49 where its place is fixed.
    TextTooLong,
    /// A text that contains this character, which would end it.
    Terminator(char),
    /// A lap with more cars than the count byte expresses: 255.
    TooManyCars,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BufferTooSmall => f.write_str("the message does not fit into the buffer"),
            Self::TextTooLong => f.write_str("a text is too long"),
            Self::Terminator(c) => write!(f, "a text contains {c:?}, which would end it"),
            Self::TooManyCars => f.write_str("more than 255 cars in a lap"),
        }
    }
}

impl core::error::Error for EncodeError {}

/// Reads one message from the front.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    message: &'a [u8],
    id: u8,
    at: usize,
}

impl<'a> Reader<'a> {
    /// Behind the first byte, which is the message's type.
    pub(super) fn new(message: &'a [u8]) -> Result<Self, WireError> {
        let id = *message.first().ok_or(WireError::Empty)?;
        Ok(Self { message, id, at: 1 })
    }

    /// At the first byte, for structures without a type.
    pub(super) const fn untyped(message: &'a [u8]) -> Self {
        Self { message, id: 0, at: 0 }
    }

    pub(super) const fn id(&self) -> u8 {
        self.id
    }

    /// Bytes that were read, the type included.
    pub(super) const fn used(&self) -> usize {
        self.at
    }

    /// What was not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.message.get(self.at..).unwrap_or_default()
    }

    const fn short(&self, wanted: usize) -> WireError {
        WireError::Short { id: self.id, need: self.at.saturating_add(wanted), have: self.message.len() }
    }

    pub(super) fn slice(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let bytes = self.rest().get(..len).ok_or_else(|| self.short(len))?;
        self.at += len;
        Ok(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let bytes = *self.rest().first_chunk::<N>().ok_or_else(|| self.short(N))?;
        self.at += N;
        Ok(bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(u8::from_le_bytes)
    }

    /// Anything but 0 is true.
    pub(super) fn bool(&mut self) -> Result<bool, WireError> {
        Ok(self.u8()? != 0)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn i16(&mut self) -> Result<i16, WireError> {
        self.array().map(i16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, WireError> {
        self.array().map(i32::from_le_bytes)
    }

    pub(super) fn f32(&mut self) -> Result<f32, WireError> {
        self.array().map(f32::from_le_bytes)
    }

    /// A vector of three, the four wheels of a car.
    pub(super) fn f32s<const N: usize>(&mut self) -> Result<[f32; N], WireError> {
        let (numbers, _none) = self.slice(N * size_of::<f32>())?.as_chunks::<4>();
        let mut values = [0.0; N];
        for (value, bytes) in values.iter_mut().zip(numbers) {
            *value = f32::from_le_bytes(*bytes);
        }
        Ok(values)
    }

    /// `str`: a count of bytes, then the bytes.
    pub(super) fn narrow(&mut self) -> Result<Text<'a>, WireError> {
        let len = usize::from(self.u8()?);
        self.slice(len).map(|bytes| Text::from_form(Form::Narrow(bytes)))
    }

    /// `wstr`: a count of code points, then four bytes for each.
    pub(super) fn wide(&mut self) -> Result<Text<'a>, WireError> {
        let units = usize::from(self.u8()?);
        let (points, _none) = self.slice(4 * units)?.as_chunks::<4>();
        Ok(Text::from_form(Form::Wide(points)))
    }

    /// A text in a place of 50 UTF-16 units.
    pub(super) fn fixed(&mut self) -> Result<Text<'a>, WireError> {
        let (units, _none) = self.slice(2 * FIXED_UNITS)?.as_chunks::<2>();
        Ok(Text::from_form(Form::Fixed(units)))
    }
}

/// Writes one message to the front of a buffer.
#[derive(Debug)]
pub(super) struct Writer<'b> {
    buffer: &'b mut [u8],
    at: usize,
}

impl<'b> Writer<'b> {
    pub(super) const fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, at: 0 }
    }

    /// Bytes that were written.
    pub(super) const fn used(&self) -> usize {
        self.at
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let end = self.at.checked_add(bytes.len()).ok_or(EncodeError::BufferTooSmall)?;
        self.buffer.get_mut(self.at..end).ok_or(EncodeError::BufferTooSmall)?.copy_from_slice(bytes);
        self.at = end;
        Ok(())
    }

    pub(super) fn u8(&mut self, value: u8) -> Result<(), EncodeError> {
        self.bytes(&[value])
    }

    pub(super) fn bool(&mut self, value: bool) -> Result<(), EncodeError> {
        self.u8(u8::from(value))
    }

    pub(super) fn u16(&mut self, value: u16) -> Result<(), EncodeError> {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn i16(&mut self, value: i16) -> Result<(), EncodeError> {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn u32(&mut self, value: u32) -> Result<(), EncodeError> {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn i32(&mut self, value: i32) -> Result<(), EncodeError> {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn f32(&mut self, value: f32) -> Result<(), EncodeError> {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn f32s(&mut self, values: &[f32]) -> Result<(), EncodeError> {
        values.iter().try_for_each(|value| self.f32(*value))
    }

    /// Writes a count byte in front of what `write` writes; `write` says how many units that was.
    fn counted(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<usize, EncodeError>,
    ) -> Result<(), EncodeError> {
        let place = self.at;
        self.u8(0)?;
        let units = write(self)?;
        let count = u8::try_from(units).map_err(|_| EncodeError::TextTooLong)?;
        *self.buffer.get_mut(place).ok_or(EncodeError::BufferTooSmall)? = count;
        Ok(())
    }

    /// `str`. What came as `str` leaves as it came, whatever its bytes mean.
    pub(super) fn narrow(&mut self, text: Text<'_>) -> Result<(), EncodeError> {
        self.counted(|out| {
            let start = out.at;
            match text.form() {
                Form::Narrow(bytes) => out.bytes(bytes)?,
                _ => text.chars().try_for_each(|c| out.bytes(c.encode_utf8(&mut [0; 4]).as_bytes()))?,
            }
            Ok(out.at - start)
        })
    }

    /// `wstr`. What came as `wstr` leaves as it came.
    pub(super) fn wide(&mut self, text: Text<'_>) -> Result<(), EncodeError> {
        self.counted(|out| {
            let start = out.at;
            match text.form() {
                Form::Wide(points) => out.bytes(points.as_flattened())?,
                _ => text.chars().try_for_each(|c| out.u32(c.into()))?,
            }
            Ok((out.at - start) / 4)
        })
    }

    /// A text in a place of 50 UTF-16 units: `%` behind it, zeros to the end. What came from such a place leaves as
    /// it came, with what stood behind the `%`.
    pub(super) fn fixed(&mut self, text: Text<'_>) -> Result<(), EncodeError> {
        if let Form::Fixed(units) = text.form() {
            return self.bytes(units.as_flattened());
        }
        let end = self.at + 2 * FIXED_UNITS;
        for c in text.chars() {
            if c == TERMINATOR || c == '\0' {
                return Err(EncodeError::Terminator(c));
            }
            for unit in c.encode_utf16(&mut [0; 2]) {
                if self.at + 2 >= end {
                    return Err(EncodeError::TextTooLong); // no place is left for the terminator
                }
                self.u16(*unit)?;
            }
        }
        self.bytes(&[b'%', 0])?;
        while self.at < end {
            self.u16(0)?;
        }
        Ok(())
    }
}
