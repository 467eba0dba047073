//! Texts of the game and its servers, as they stand in a datagram.
//!
//! Owns the four forms of a text and how each becomes characters. Relies on nothing. Never allocates and never
//! fails: what is no character becomes U+FFFD.

use core::char::{self, DecodeUtf16, REPLACEMENT_CHARACTER};
use core::fmt::{self, Write};
use core::slice;
use core::str::{self, Utf8Chunks};

/// UTF-16 units of a text's place in the game's telemetry.
pub(super) const FIXED_UNITS: usize = 50;

/// Ends a text of the game's telemetry. What stands behind it is memory of the game.
pub(super) const TERMINATOR: char = '%';

/// The byte order mark: senders made with a common Python codec put one in front of their text.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// A borrowed text: a piece of a datagram, or a `str` of the program that will be sent.
///
/// Two texts are equal if their characters are, however they are stored.
#[derive(Clone, Copy)]
pub struct Text<'a>(Form<'a>);

#[derive(Clone, Copy)]
pub(super) enum Form<'a> {
    /// Of the program.
    Plain(&'a str),
    /// ASCII from the original server, UTF-8 from others, anything from a hostile one.
    Narrow(&'a [u8]),
    /// UTF-32, little endian.
    Wide(&'a [[u8; 4]]),
    /// UTF-16, little endian, up to [`TERMINATOR`].
    Fixed(&'a [[u8; 2]]),
}

impl<'a> Text<'a> {
    pub(super) const fn from_form(form: Form<'a>) -> Self {
        Self(form)
    }

    pub(super) const fn form(self) -> Form<'a> {
        self.0
    }

    /// The characters, without a byte order mark at the front. U+FFFD stands for what is none: broken UTF-8, half a
    /// surrogate pair, a number above 0x10FFFF.
    pub fn chars(self) -> impl Iterator<Item = char> + 'a {
        let mut chars = Chars::of(self.0);
        let first = chars.next().filter(|c| *c != BYTE_ORDER_MARK);
        first.into_iter().chain(chars)
    }

    /// Whether there is no character.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.chars().next().is_none()
    }

    /// Whether every character is one that a name is written with.
    pub(super) fn is_printable(self) -> bool {
        self.chars().all(|c| !c.is_control() && c != REPLACEMENT_CHARACTER)
    }
}

impl Default for Text<'_> {
    fn default() -> Self {
        Self(Form::Plain(""))
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Form::Plain(text))
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.chars().try_for_each(|c| f.write_char(c))
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        self.chars().try_for_each(|c| write!(f, "{}", c.escape_debug()))?;
        f.write_char('"')
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.chars().eq(other.chars())
    }
}

impl Eq for Text<'_> {}

impl PartialEq<str> for Text<'_> {
    fn eq(&self, other: &str) -> bool {
        self.chars().eq(other.chars())
    }
}

impl PartialEq<&str> for Text<'_> {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

/// Walks the characters of any form.
enum Chars<'a> {
    Plain(str::Chars<'a>),
    Narrow { chunks: Utf8Chunks<'a>, valid: str::Chars<'a>, broken: bool },
    Wide(slice::Iter<'a, [u8; 4]>),
    Fixed(DecodeUtf16<Units<'a>>),
}

impl<'a> Chars<'a> {
    fn of(form: Form<'a>) -> Self {
        match form {
            Form::Plain(text) => Self::Plain(text.chars()),
            Form::Narrow(bytes) => {
                Self::Narrow { chunks: bytes.utf8_chunks(), valid: "".chars(), broken: false }
            }
            Form::Wide(points) => Self::Wide(points.iter()),
            Form::Fixed(units) => Self::Fixed(char::decode_utf16(Units(units.iter()))),
        }
    }
}

impl Iterator for Chars<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        match self {
            Self::Plain(chars) => chars.next(),
            Self::Narrow { chunks, valid, broken } => loop {
                if let Some(c) = valid.next() {
                    return Some(c);
                }
                if core::mem::take(broken) {
                    return Some(REPLACEMENT_CHARACTER);
                }
                let chunk = chunks.next()?;
                *valid = chunk.valid().chars();
                *broken = !chunk.invalid().is_empty();
            },
            Self::Wide(points) => {
                let point = u32::from_le_bytes(*points.next()?);
                Some(char::from_u32(point).unwrap_or(REPLACEMENT_CHARACTER))
            }
            Self::Fixed(chars) => Some(chars.next()?.unwrap_or(REPLACEMENT_CHARACTER)),
        }
    }
}

/// UTF-16 units in front of the terminator, or of a zero: a sender that fills with zeros means the same.
struct Units<'a>(slice::Iter<'a, [u8; 2]>);

impl Iterator for Units<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        let unit = u16::from_le_bytes(*self.0.next()?);
        if unit == 0 || u32::from(unit) == u32::from(TERMINATOR) {
            self.0 = [].iter();
            return None;
        }
        Some(unit)
    }
}
