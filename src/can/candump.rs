//! The text forms of candump.
//!
//! Owns the short form (`101#AABB`), the log line (`(1700000000.123456) can0 101#AABB`) both ways, and the column form
//! that people read. Relies on the frame. Never touches a file.

use core::fmt;

use super::frame::{CLASSIC_DATA, FD_DATA, FLAG_BRS, FLAG_ESI, Frame, FrameKind, Id};

/// Error flag that the eight-digit identifier of an error message carries in this text form.
const TEXT_ERR_FLAG: u32 = 0x2000_0000;

/// Why a text is no frame or log line. Consequence: the line is refused, named by its number by whoever reads the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParseError {
    /// The part in parentheses is no time in seconds.
    Time,
    /// Not the three parts time, bus, frame.
    Shape,
    /// The identifier is not 3 or 8 hex digits in range.
    Id,
    /// The data is not whole bytes in hex, too long, or the FD flags are missing.
    Data,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Time => "the time must look like (1700000000.123456)",
            Self::Shape => "a line must look like (1700000000.123456) can0 101#AABB",
            Self::Id => "the identifier must be 3 hex digits up to 7FF or 8 hex digits",
            Self::Data => "the data must be whole bytes in hex, at most 8 (64 after ## and one flag digit)",
        })
    }
}

impl core::error::Error for ParseError {}

/// Prints the short form of a frame: `101#AABB`, `101#R4`, `101##1AABB`, `20000040#...`.
#[derive(Clone, Copy, Debug)]
pub struct Short<'a>(pub &'a Frame);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = self.0;
        match frame.kind() {
            FrameKind::Error => write!(f, "{:08X}#", frame.id().raw() | TEXT_ERR_FLAG)?,
            FrameKind::Data => write!(f, "{}#", frame.id())?,
            FrameKind::Remote => {
                write!(f, "{}#R", frame.id())?;
                return if frame.len() == 0 { Ok(()) } else { write!(f, "{}", frame.len()) };
            }
            FrameKind::Fd { brs, esi } => {
                let flags = if brs { FLAG_BRS } else { 0 } | if esi { FLAG_ESI } else { 0 };
                write!(f, "{}##{flags:X}", frame.id())?;
            }
        }
        frame.payload().iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

/// Reads the short form. Dots between bytes and the `_D` of a raw length code are accepted, as candump's siblings do.
///
/// # Errors
/// [`ParseError::Shape`], [`ParseError::Id`] or [`ParseError::Data`].
pub fn parse_frame(text: &str) -> Result<Frame, ParseError> {
    let (id_text, rest) = text.split_once('#').ok_or(ParseError::Shape)?;
    let raw = hex_word(id_text).ok_or(ParseError::Id)?;
    let id = match id_text.len() {
        3 => Id::standard(raw),
        8 if raw & TEXT_ERR_FLAG != 0 && raw < 0x4000_0000 => return parse_error(raw, rest),
        8 => Id::extended(raw),
        _ => None,
    }
    .ok_or(ParseError::Id)?;

    if let Some(fd) = rest.strip_prefix('#') {
        let mut chars = fd.chars();
        let flags = chars.next().and_then(|c| c.to_digit(16)).ok_or(ParseError::Data)?;
        let mut data = [0; FD_DATA];
        let data = hex_bytes(chars.as_str(), &mut data)?;
        let set = |flag: u8| flags & u32::from(flag) != 0;
        return Frame::fd(id, data, set(FLAG_BRS), set(FLAG_ESI)).map_err(|_| ParseError::Data);
    }
    if let Some(len) = rest.strip_prefix(['R', 'r']) {
        let len = match len.split('_').next().unwrap_or_default() {
            "" => 0,
            digit if digit.len() == 1 => digit.parse::<u8>().map_err(|_| ParseError::Data)?,
            _ => return Err(ParseError::Data),
        };
        return Frame::remote(id, len).map_err(|_| ParseError::Data);
    }
    let mut data = [0; CLASSIC_DATA];
    let data = hex_bytes(without_length_code(rest)?, &mut data)?;
    Frame::data(id, data).map_err(|_| ParseError::Data)
}

/// Cuts off the raw length code (9 to F) that may follow eight data bytes: `1122334455667788_9`.
fn without_length_code(rest: &str) -> Result<&str, ParseError> {
    match rest.split_once('_') {
        None => Ok(rest),
        Some((data, code))
            if code.len() == 1 && matches!(code.as_bytes(), [b'9' | b'A'..=b'F' | b'a'..=b'f']) =>
        {
            Ok(data)
        }
        Some(_) => Err(ParseError::Data),
    }
}

/// An error message: all eight detail bytes are written.
fn parse_error(raw: u32, rest: &str) -> Result<Frame, ParseError> {
    let mut detail = [0; CLASSIC_DATA];
    hex_bytes(rest, &mut detail)?;
    Ok(Frame::error(raw & !TEXT_ERR_FLAG, detail))
}

/// 1 to 8 hex digits as a number; nothing else is let through (no sign, no prefix).
fn hex_word(text: &str) -> Option<u32> {
    if text.len() > 8 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(text, 16).ok()
}

/// Hex byte pairs, dots allowed between them, into `out`; what was read comes back.
fn hex_bytes<'a>(text: &str, out: &'a mut [u8]) -> Result<&'a [u8], ParseError> {
    let mut rest = text.as_bytes();
    let mut count = 0;
    while let Some(([high, low], tail)) = rest.split_first_chunk::<2>() {
        let digit =
            |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok()).ok_or(ParseError::Data);
        *out.get_mut(count).ok_or(ParseError::Data)? = digit(*high)? << 4 | digit(*low)?;
        count += 1;
        rest = match tail {
            [b'.', more @ ..] if !more.is_empty() => more,
            _ => tail,
        };
    }
    if rest.is_empty() { out.get(..count).ok_or(ParseError::Data) } else { Err(ParseError::Data) }
}

/// One line of a candump log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogLine<'a> {
    /// Microseconds since 1970, for people and other tools; nothing is timed by it.
    pub wall_us: u64,
    /// Name of the bus.
    pub bus: &'a str,
    /// The frame.
    pub frame: Frame,
}

impl fmt::Display for LogLine<'_> {
    /// `(1700000000.123456) can0 101#AABB`, without a line end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (s, us) = (self.wall_us / 1_000_000, self.wall_us % 1_000_000);
        write!(f, "({s:010}.{us:06}) {} {}", self.bus, Short(&self.frame))
    }
}

/// Reads one line of a candump log; a direction letter behind the frame (`R`, `T`) is accepted and ignored.
///
/// # Errors
/// [`ParseError`] says which part is wrong.
pub fn parse_line(line: &str) -> Result<LogLine<'_>, ParseError> {
    let mut parts = line.split_ascii_whitespace();
    let (Some(time), Some(bus), Some(frame)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(ParseError::Shape);
    };
    match (parts.next(), parts.next()) {
        (None | Some("R" | "T"), None) => {}
        _ => return Err(ParseError::Shape),
    }
    Ok(LogLine { wall_us: parse_time(time)?, bus, frame: parse_frame(frame)? })
}

/// `(seconds.fraction)`, 1 to 9 digits of fraction, as microseconds.
fn parse_time(text: &str) -> Result<u64, ParseError> {
    let inner = text.strip_prefix('(').and_then(|t| t.strip_suffix(')')).ok_or(ParseError::Time)?;
    let (s, fraction) = inner.split_once('.').ok_or(ParseError::Time)?;
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(s) || !digits(fraction) || fraction.len() > 9 {
        return Err(ParseError::Time);
    }
    let s: u64 = s.parse().map_err(|_| ParseError::Time)?;
    let us =
        fraction.bytes().chain(core::iter::repeat(b'0')).take(6).fold(0, |n, b| n * 10 + u64::from(b - b'0'));
    s.checked_mul(1_000_000).and_then(|t| t.checked_add(us)).ok_or(ParseError::Time)
}

/// Prints the columns that people read: `  can0  101   [2]  AA BB`.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// Name of the bus.
    pub bus: &'a str,
    /// The frame.
    pub frame: &'a Frame,
}

impl fmt::Display for Columns<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bus, frame } = *self;
        write!(f, "  {bus}  ")?;
        match frame.kind() {
            FrameKind::Error => write!(f, "{:08X}", frame.id().raw() | TEXT_ERR_FLAG)?,
            FrameKind::Data | FrameKind::Remote | FrameKind::Fd { .. } => write!(f, "{}", frame.id())?,
        }
        if frame.is_fd() {
            write!(f, "  [{:02}] ", frame.len())?;
        } else {
            write!(f, "   [{}] ", frame.len())?;
        }
        if frame.kind() == FrameKind::Remote {
            return f.write_str(" remote request");
        }
        frame.payload().iter().try_for_each(|byte| write!(f, " {byte:02X}"))?;
        match frame.error_class() {
            Some(class) => write!(f, "  ERRORFRAME {class}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sff(raw: u32) -> Id {
        Id::standard(raw).unwrap()
    }

    #[test]
    fn log_lines_both_ways() {
        let cases = [
            ("(1700000000.123456) can0 101#AABB", Frame::data(sff(0x101), &[0xaa, 0xbb]).unwrap()),
            ("(0000000000.000001) vcan0 000#", Frame::data(sff(0), &[]).unwrap()),
            ("(1700000000.000000) can0 101#R", Frame::remote(sff(0x101), 0).unwrap()),
            ("(1700000000.000000) can0 101#R8", Frame::remote(sff(0x101), 8).unwrap()),
            (
                "(1700000000.000000) can0 00000101#01",
                Frame::data(Id::extended(0x101).unwrap(), &[1]).unwrap(),
            ),
            (
                "(1700000000.000000) can0 1FFFFFFF##3",
                Frame::fd(Id::extended(0x1FFF_FFFF).unwrap(), &[], true, true).unwrap(),
            ),
            (
                "(1700000000.000000) can0 7FF##1010203040506070809000000",
                Frame::fd(sff(0x7ff), &[1, 2, 3, 4, 5, 6, 7, 8, 9], true, false).unwrap(),
            ),
            ("(1700000000.000000) can0 20000040#0000000000000000", Frame::error(0x40, [0; 8])),
        ];
        for (text, frame) in cases {
            let line = parse_line(text).unwrap();
            assert_eq!(line.frame, frame, "{text}");
            assert_eq!(line.to_string(), text);
        }
    }

    #[test]
    fn what_other_tools_write_is_read() {
        assert_eq!(parse_line("(1.5) can0 101#AA R\n").unwrap().wall_us, 1_500_000);
        assert_eq!(parse_line("(1.123456789) can0 101#AA").unwrap().wall_us, 1_123_456);
        assert_eq!(parse_frame("101#11.22.33"), Ok(Frame::data(sff(0x101), &[0x11, 0x22, 0x33]).unwrap()));
        assert_eq!(parse_frame("101#1122334455667788_B").unwrap().len(), 8);
        assert_eq!(parse_frame("101##5aa"), Ok(Frame::fd(sff(0x101), &[0xaa], true, false).unwrap()));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (text, error) in [
            ("", ParseError::Shape),
            ("(1.0) can0", ParseError::Shape),
            ("(1.0) can0 101#00 R T", ParseError::Shape),
            ("(1.0) can0 101#00 X", ParseError::Shape),
            ("1.0 can0 101#00", ParseError::Time),
            ("(1) can0 101#00", ParseError::Time),
            ("(1.) can0 101#00", ParseError::Time),
            ("(-1.0) can0 101#00", ParseError::Time),
            ("(1.+5) can0 101#00", ParseError::Time),
            ("(18446744073709551615.0) can0 101#00", ParseError::Time),
            ("(1.0) can0 101", ParseError::Shape),
            ("(1.0) can0 800#00", ParseError::Id),
            ("(1.0) can0 +01#00", ParseError::Id),
            ("(1.0) can0 1#00", ParseError::Id),
            ("(1.0) can0 FFFFFFFF#00", ParseError::Id),
            ("(1.0) can0 101#0", ParseError::Data),
            ("(1.0) can0 101#0g", ParseError::Data),
            ("(1.0) can0 101#00.", ParseError::Data),
            ("(1.0) can0 101#é", ParseError::Data),
            ("(1.0) can0 101#112233445566778899", ParseError::Data),
            ("(1.0) can0 101#R9", ParseError::Data),
            ("(1.0) can0 101##", ParseError::Data),
            ("(1.0) can0 101#1122334455667788_8", ParseError::Data),
        ] {
            assert_eq!(parse_line(text), Err(error), "{text}");
        }
    }

    #[test]
    fn columns_as_candump_prints_them() {
        let show = |frame: &Frame| Columns { bus: "can0", frame }.to_string();
        assert_eq!(show(&Frame::data(sff(0x101), &[0xaa, 0xbb]).unwrap()), "  can0  101   [2]  AA BB");
        assert_eq!(show(&Frame::remote(sff(0x101), 4).unwrap()), "  can0  101   [4]  remote request");
        assert_eq!(show(&Frame::fd(sff(0x101), &[1; 2], false, false).unwrap()), "  can0  101  [02]  01 01");
        let off = show(&Frame::error(0x40, [0; 8]));
        assert_eq!(off, "  can0  20000040   [8]  00 00 00 00 00 00 00 00  ERRORFRAME bus-off");
    }

    #[test]
    fn any_text_is_answered_without_a_panic() {
        proptest::proptest!(|(text in "\\PC{0,40}")| {
            let _ = parse_line(&text);
            let _ = parse_frame(&text);
        });
    }
}
