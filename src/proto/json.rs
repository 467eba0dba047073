//! JSON (RFC 8259) read in place: a pull reader over bytes that allocates nothing and is total on any input.
//!
//! Owns the grammar, the depth limit and the text rules (UTF-8, escapes, surrogates). Relies on
//! [`limits::JSON_DEPTH`] for its bound. Never builds a tree, never recurses, never lets a number through that is
//! not finite, and never reports a value that was not wholly there.
//!
//! Differences from `serde_json`, on purpose: nesting ends at 32 instead of 128, and decimal fractions are rounded
//! correctly in every case.

use core::cmp::Ordering;
use core::fmt;

use crate::limits;

/// Why bytes are not an acceptable JSON document. The message that holds them is dropped and counted as a strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JsonError {
    /// The bytes are not UTF-8. Nothing of the message is trusted.
    NotUtf8,
    /// The document stops in the middle of a value: the sender cut it or the length is wrong.
    UnexpectedEnd,
    /// A byte that the grammar does not allow here, `NaN` and `Infinity` among them.
    UnexpectedByte,
    /// A backslash followed by something that is no escape.
    BadEscape,
    /// One half of a UTF-16 pair: the text has no meaning.
    LoneSurrogate,
    /// A raw control character inside a string.
    ControlCharacter,
    /// A number in a form JSON does not know (`01`, `1.`, `+1`).
    BadNumber,
    /// A number too large for a finite 64-bit float: it cannot be a command, and must not become infinity.
    NumberRange,
    /// Nested deeper than [`limits::JSON_DEPTH`]: refused before it costs more.
    TooDeep,
    /// Something follows the document: the length in the frame is wrong.
    TrailingBytes,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotUtf8 => "not UTF-8",
            Self::UnexpectedEnd => "ends in the middle of a value",
            Self::UnexpectedByte => "a byte that JSON does not allow here",
            Self::BadEscape => "an unknown escape in a string",
            Self::LoneSurrogate => "half of a surrogate pair in a string",
            Self::ControlCharacter => "a control character in a string",
            Self::BadNumber => "a malformed number",
            Self::NumberRange => "a number beyond the range of a 64-bit float",
            Self::TooDeep => "nested too deep",
            Self::TrailingBytes => "bytes after the end of the document",
        })
    }
}

impl core::error::Error for JsonError {}

/// What the next value is, told by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number
    Number,
    /// A string
    Str,
    /// An object
    Object,
    /// An array
    Array,
}

/// A value read as a scalar; objects and arrays are read over whole, checked, and reported as such.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, finite as a 64-bit float
    Number(Number<'a>),
    /// A string
    Str(Str<'a>),
    /// An object or array, already passed
    Container,
}

/// A number: its text as sent, and what it is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number<'a> {
    raw: &'a str,
}

impl<'a> Number<'a> {
    /// The text as sent, for values that are echoed and never interpreted.
    #[must_use]
    pub const fn raw(self) -> &'a str {
        self.raw
    }

    /// The value, always finite for a number that a [`Reader`] returned.
    #[must_use]
    pub fn value(self) -> f64 {
        // The grammar was checked and is a subset of what `parse` takes. Should that ever be wrong, not-a-number
        // is what every later check refuses; zero would look like a value.
        self.raw.parse().unwrap_or(f64::NAN)
    }
}

/// A string as it stands between its quotes, checked but not unescaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Str<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Str<'a> {
    /// An empty string, for a field that is not there.
    pub const EMPTY: Self = Self { raw: "", escaped: false };

    /// The text between the quotes as sent, escapes and all.
    #[must_use]
    pub const fn raw(self) -> &'a str {
        self.raw
    }

    /// Whether the string has no characters.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.raw.is_empty()
    }

    /// The characters with escapes resolved.
    #[must_use]
    pub fn chars(self) -> Unescaped<'a> {
        Unescaped { rest: self.raw.chars() }
    }

    /// Whether the unescaped text equals `other`.
    #[must_use]
    pub fn is(self, other: &str) -> bool {
        if self.escaped { self.chars().eq(other.chars()) } else { self.raw == other }
    }

    /// How the unescaped text sorts against `other`, in the order of `str`.
    #[must_use]
    pub fn cmp_str(self, other: &str) -> Ordering {
        // UTF-8 bytes and code points sort alike.
        if self.escaped { self.chars().cmp(other.chars()) } else { self.raw.cmp(other) }
    }
}

/// The characters of a [`Str`], escapes resolved.
#[derive(Debug, Clone)]
pub struct Unescaped<'a> {
    rest: core::str::Chars<'a>,
}

impl Unescaped<'_> {
    /// Four hexadecimal digits, as the reader has already found them.
    fn unit(&mut self) -> u32 {
        let mut unit = 0;
        for _ in 0..4 {
            unit = unit * 16 + self.rest.next().and_then(|c| c.to_digit(16)).unwrap_or(0);
        }
        unit
    }
}

impl Iterator for Unescaped<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        if c != '\\' {
            return Some(c);
        }
        Some(match self.rest.next()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let mut code = self.unit();
                if (0xd800..0xdc00).contains(&code) {
                    // The reader has seen `\u` and the second half.
                    self.rest.next();
                    self.rest.next();
                    code = 0x1_0000 + ((code - 0xd800) << 10) + (self.unit().wrapping_sub(0xdc00) & 0x3ff);
                }
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            other => other,
        })
    }
}

/// Pulls one value after the other out of a document.
///
/// The caller follows the structure it expects: after [`Reader::open_object`] it asks [`Reader::next_key`] until
/// that says `None`, reading exactly one value for each key, and so on. [`Reader::finish`] closes the document. Any
/// error is final: what follows it in the document has no reading.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    text: &'a str,
    pos: usize,
    depth: usize,
    /// The innermost container was just opened: no comma is due before its next member.
    fresh: bool,
}

// `skip_rest` keeps one bit per level.
const _: () = assert!(limits::JSON_DEPTH <= 64);

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    ///
    /// # Errors
    /// [`JsonError::NotUtf8`] if they are not text.
    pub fn new(bytes: &'a [u8]) -> Result<Self, JsonError> {
        let text = core::str::from_utf8(bytes).map_err(|_| JsonError::NotUtf8)?;
        Ok(Self { text, pos: 0, depth: 0, fresh: false })
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.pos).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.pos += 1;
        }
    }

    fn slice(&self, start: usize, end: usize) -> &'a str {
        self.text.get(start..end).unwrap_or("")
    }

    /// The kind of the value that comes next, which stays unread.
    ///
    /// # Errors
    /// If the next byte starts no value.
    pub fn kind(&mut self) -> Result<Kind, JsonError> {
        self.skip_space();
        match self.peek() {
            None => Err(JsonError::UnexpectedEnd),
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::Str),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            Some(_) => Err(JsonError::UnexpectedByte),
        }
    }

    /// Enters the object that comes next; a value of another kind is passed over and the answer is `false`.
    ///
    /// # Errors
    /// If the next value is malformed or too deep.
    pub fn open_object(&mut self) -> Result<bool, JsonError> {
        if self.kind()? == Kind::Object {
            self.open()?;
            return Ok(true);
        }
        self.skip_value()?;
        Ok(false)
    }

    /// Enters the array that comes next; a value of another kind is passed over and the answer is `false`.
    ///
    /// # Errors
    /// If the next value is malformed or too deep.
    pub fn open_array(&mut self) -> Result<bool, JsonError> {
        if self.kind()? == Kind::Array {
            self.open()?;
            return Ok(true);
        }
        self.skip_value()?;
        Ok(false)
    }

    fn open(&mut self) -> Result<(), JsonError> {
        if self.depth == limits::JSON_DEPTH {
            return Err(JsonError::TooDeep);
        }
        self.pos += 1;
        self.depth += 1;
        self.fresh = true;
        Ok(())
    }

    /// Moves to the next member of the innermost object: its key, or `None` where the object ends.
    ///
    /// # Errors
    /// If there is neither a member nor the end.
    pub fn next_key(&mut self) -> Result<Option<Str<'a>>, JsonError> {
        if !self.next_member(b'}')? {
            return Ok(None);
        }
        match self.peek() {
            Some(b'"') => {}
            Some(_) => return Err(JsonError::UnexpectedByte),
            None => return Err(JsonError::UnexpectedEnd),
        }
        let key = self.string()?;
        self.skip_space();
        match self.peek() {
            Some(b':') => self.pos += 1,
            Some(_) => return Err(JsonError::UnexpectedByte),
            None => return Err(JsonError::UnexpectedEnd),
        }
        Ok(Some(key))
    }

    /// Moves to the next element of the innermost array; `false` where the array ends.
    ///
    /// # Errors
    /// If there is neither an element nor the end.
    pub fn next_element(&mut self) -> Result<bool, JsonError> {
        self.next_member(b']')
    }

    fn next_member(&mut self, close: u8) -> Result<bool, JsonError> {
        let fresh = core::mem::replace(&mut self.fresh, false);
        self.skip_space();
        match self.peek() {
            None => Err(JsonError::UnexpectedEnd),
            Some(b) if b == close && self.depth > 0 => {
                self.pos += 1;
                self.depth -= 1;
                Ok(false)
            }
            Some(_) if fresh => Ok(true),
            Some(b',') => {
                self.pos += 1;
                self.skip_space();
                Ok(true)
            }
            Some(_) => Err(JsonError::UnexpectedByte),
        }
    }

    /// Reads the next value as a scalar. An object or array is passed over and reported as a container.
    ///
    /// # Errors
    /// If the value is malformed.
    pub fn scalar(&mut self) -> Result<Scalar<'a>, JsonError> {
        Ok(match self.kind()? {
            Kind::Null => {
                self.word("null")?;
                Scalar::Null
            }
            Kind::Bool if self.peek() == Some(b't') => {
                self.word("true")?;
                Scalar::Bool(true)
            }
            Kind::Bool => {
                self.word("false")?;
                Scalar::Bool(false)
            }
            Kind::Number => Scalar::Number(self.number()?),
            Kind::Str => Scalar::Str(self.string()?),
            kind @ (Kind::Object | Kind::Array) => {
                self.open()?;
                self.skip_rest(kind == Kind::Object)?;
                Scalar::Container
            }
        })
    }

    /// Passes over the next value, checking all of it, and returns its text as sent.
    ///
    /// # Errors
    /// If the value is malformed.
    pub fn skip_value(&mut self) -> Result<&'a str, JsonError> {
        self.skip_space();
        let start = self.pos;
        self.scalar()?;
        Ok(self.slice(start, self.pos))
    }

    /// Passes over the rest of a container that was just opened. One bit per level says what it is.
    fn skip_rest(&mut self, object: bool) -> Result<(), JsonError> {
        let mut objects = u64::from(object);
        let mut open = 1_usize;
        while open > 0 {
            let more = if objects & 1 == 1 { self.next_key()?.is_some() } else { self.next_element()? };
            if !more {
                objects >>= 1;
                open -= 1;
                continue;
            }
            match self.kind()? {
                kind @ (Kind::Object | Kind::Array) => {
                    self.open()?;
                    objects = objects << 1 | u64::from(kind == Kind::Object);
                    open += 1;
                }
                _ => {
                    self.scalar()?;
                }
            }
        }
        Ok(())
    }

    /// Ends the document.
    ///
    /// # Errors
    /// [`JsonError::TrailingBytes`] if something other than white space is left.
    pub fn finish(mut self) -> Result<(), JsonError> {
        self.skip_space();
        if self.depth > 0 {
            return Err(JsonError::UnexpectedEnd);
        }
        if self.pos == self.text.len() { Ok(()) } else { Err(JsonError::TrailingBytes) }
    }

    fn word(&mut self, word: &'static str) -> Result<(), JsonError> {
        for expected in word.bytes() {
            match self.peek() {
                Some(b) if b == expected => self.pos += 1,
                Some(_) => return Err(JsonError::UnexpectedByte),
                None => return Err(JsonError::UnexpectedEnd),
            }
        }
        Ok(())
    }

    /// Digits from here on; how many there are.
    fn digits(&mut self) -> usize {
        let start = self.pos;
        while let Some(b'0'..=b'9') = self.peek() {
            self.pos += 1;
        }
        self.pos - start
    }

    fn number(&mut self) -> Result<Number<'a>, JsonError> {
        let start = self.pos;
        if self.peek() == Some(b'-') {
            self.pos += 1;
        }
        match self.peek() {
            Some(b'0') => self.pos += 1,
            Some(b'1'..=b'9') => {
                self.digits();
            }
            Some(_) => return Err(JsonError::BadNumber),
            None => return Err(JsonError::UnexpectedEnd),
        }
        if let Some(b'0'..=b'9') = self.peek() {
            return Err(JsonError::BadNumber);
        }
        if self.peek() == Some(b'.') {
            self.pos += 1;
            self.some_digits()?;
        }
        let mut has_exponent = false;
        if let Some(b'e' | b'E') = self.peek() {
            self.pos += 1;
            has_exponent = true;
            if let Some(b'+' | b'-') = self.peek() {
                self.pos += 1;
            }
            self.some_digits()?;
        }
        let number = Number { raw: self.slice(start, self.pos) };
        // Below 10^308 without an exponent nothing overflows, so only the rest is worth the conversion here.
        if (has_exponent || number.raw.len() > 308) && !number.value().is_finite() {
            return Err(JsonError::NumberRange);
        }
        Ok(number)
    }

    fn some_digits(&mut self) -> Result<(), JsonError> {
        if self.digits() > 0 {
            return Ok(());
        }
        Err(if self.peek().is_none() { JsonError::UnexpectedEnd } else { JsonError::BadNumber })
    }

    /// Reads a string whose opening quote is next.
    fn string(&mut self) -> Result<Str<'a>, JsonError> {
        self.pos += 1;
        let start = self.pos;
        let mut escaped = false;
        loop {
            match self.peek() {
                None => return Err(JsonError::UnexpectedEnd),
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(0..=0x1f) => return Err(JsonError::ControlCharacter),
                Some(_) => self.pos += 1,
            }
        }
        let raw = self.slice(start, self.pos);
        self.pos += 1;
        Ok(Str { raw, escaped })
    }

    /// Passes over one escape, both halves of a surrogate pair counting as one.
    fn escape(&mut self) -> Result<(), JsonError> {
        self.pos += 1;
        match self.peek() {
            None => return Err(JsonError::UnexpectedEnd),
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.pos += 1;
                return Ok(());
            }
            Some(b'u') => self.pos += 1,
            Some(_) => return Err(JsonError::BadEscape),
        }
        match self.hex4()? {
            0xd800..=0xdbff => {
                for expected in [b'\\', b'u'] {
                    match self.peek() {
                        Some(b) if b == expected => self.pos += 1,
                        Some(_) => return Err(JsonError::LoneSurrogate),
                        None => return Err(JsonError::UnexpectedEnd),
                    }
                }
                match self.hex4()? {
                    0xdc00..=0xdfff => Ok(()),
                    _ => Err(JsonError::LoneSurrogate),
                }
            }
            0xdc00..=0xdfff => Err(JsonError::LoneSurrogate),
            _ => Ok(()),
        }
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let mut unit = 0;
        for _ in 0..4 {
            let byte = self.peek().ok_or(JsonError::UnexpectedEnd)?;
            let digit = char::from(byte).to_digit(16).ok_or(JsonError::BadEscape)?;
            unit = unit * 16 + digit;
            self.pos += 1;
        }
        Ok(unit)
    }
}

#[cfg(test)]
mod tests;
