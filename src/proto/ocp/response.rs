//! The response: the ack pair, and what the vehicle has to report.
//!
//! Owns the layout of the answer and the limit on its size. Relies on the caller for a buffer and for ack texts that
//! came out of [`super::control::decode`]. Never allocates, never changes a byte of an ack, and never leaves a
//! frame half written: where the report does not fit, the answer is the ack pair alone, because a missing answer
//! stops the vehicle and a missing report does not.
//!
//! ```text
//!   {"ack_time":RAW,"ack_time_mac":RAW,"vehicle_user_data":{"user_data":{...},"pos":{"lat":x,"lon":y}|null}}
//! ```

use core::fmt::{self, Write};

use super::{FRAME, HEADER};

/// The member or the frame does not fit into the buffer, or into the protocol's 16384 bytes. The answer falls back
/// to the ack pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the response does not fit")
    }
}

impl core::error::Error for Full {}

/// The key of a reported value, escaped once at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(Box<str>);

impl Key {
    /// The key for `name`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut text = String::new();
        // Writing to a `String` cannot fail.
        let _ = write_text(&mut text, name);
        text.push(':');
        Self(text.into_boxed_str())
    }
}

/// A finished answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response<'b> {
    /// Header and body, ready to send.
    pub frame: &'b [u8],
    /// Whether the report is in it; `false` says that only the ack pair is.
    pub has_report: bool,
}

/// Writes one response into a buffer.
#[derive(Debug)]
pub struct ResponseWriter<'b> {
    out: Out<'b>,
    /// End of the ack pair: what is before it is sent in any case.
    acks_end: usize,
    /// Objects open inside `user_data`.
    open: usize,
    /// A member stands before the next one.
    comma: bool,
    full: bool,
}

/// A buffer that is written from the front.
#[derive(Debug)]
struct Out<'b> {
    buffer: &'b mut [u8],
    at: usize,
}

impl Write for Out<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes()).map_err(|Full| fmt::Error)
    }
}

impl Out<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let end = self.at.checked_add(bytes.len()).ok_or(Full)?;
        self.buffer.get_mut(self.at..end).ok_or(Full)?.copy_from_slice(bytes);
        self.at = end;
        Ok(())
    }

    fn number(&mut self, value: f64) -> fmt::Result {
        if !value.is_finite() {
            return self.write_str("null");
        }
        // Plain digits where they are short; the other form keeps 1e300 from being 301 digits.
        if value != 0.0 && !(1e-5..1e16).contains(&value.abs()) {
            write!(self, "{value:e}")
        } else {
            // Adding zero turns a negative zero into zero.
            write!(self, "{}", value + 0.0)
        }
    }
}

impl<'b> ResponseWriter<'b> {
    /// Starts a response with the ack pair, both texts exactly as they came.
    ///
    /// # Errors
    /// [`Full`] if not even the ack pair fits.
    pub fn new(buffer: &'b mut [u8], ack_time: &[u8], ack_time_mac: &[u8]) -> Result<Self, Full> {
        let len = buffer.len().min(FRAME);
        let mut out = Out { buffer: buffer.get_mut(..len).ok_or(Full)?, at: HEADER };
        out.bytes(b"{\"ack_time\":")?;
        out.bytes(ack_time)?;
        out.bytes(b",\"ack_time_mac\":")?;
        out.bytes(ack_time_mac)?;
        let acks_end = out.at;
        // Room for the brace that ends the body if nothing else fits.
        if acks_end >= len {
            return Err(Full);
        }
        let full = out.bytes(b",\"vehicle_user_data\":{\"user_data\":{").is_err();
        Ok(Self { out, acks_end, open: 0, comma: false, full })
    }

    /// The whole answer where there is nothing to report.
    ///
    /// # Errors
    /// [`Full`] if the buffer is too small for the ack pair.
    pub fn ack_only(
        buffer: &'b mut [u8],
        ack_time: &[u8],
        ack_time_mac: &[u8],
    ) -> Result<Response<'b>, Full> {
        let mut writer = Self::new(buffer, ack_time, ack_time_mac)?;
        writer.full = true;
        Ok(writer.finish(None))
    }

    /// Writes one member, or takes back what was written of it.
    fn member(&mut self, key: &Key, write: impl FnOnce(&mut Out<'b>) -> fmt::Result) -> Result<(), Full> {
        let start = self.out.at;
        let comma = if self.comma { "," } else { "" };
        let written = self
            .out
            .write_str(comma)
            .and_then(|()| self.out.write_str(&key.0))
            .and_then(|()| write(&mut self.out));
        if written.is_err() || self.full {
            self.out.at = start;
            self.full = true;
            return Err(Full);
        }
        self.comma = true;
        Ok(())
    }

    /// Adds a number; what is not finite becomes null.
    ///
    /// # Errors
    /// [`Full`]; the member is not there, and the answer will be the ack pair alone. The same for all that follow.
    pub fn number(&mut self, key: &Key, value: f64) -> Result<(), Full> {
        self.member(key, |out| out.number(value))
    }

    /// Adds a whole number.
    ///
    /// # Errors
    /// As [`number`](Self::number).
    pub fn integer(&mut self, key: &Key, value: i64) -> Result<(), Full> {
        self.member(key, |out| write!(out, "{value}"))
    }

    /// Adds a boolean.
    ///
    /// # Errors
    /// As [`number`](Self::number).
    pub fn boolean(&mut self, key: &Key, value: bool) -> Result<(), Full> {
        self.member(key, |out| out.write_str(if value { "true" } else { "false" }))
    }

    /// Adds a text, escaped.
    ///
    /// # Errors
    /// As [`number`](Self::number).
    pub fn text(&mut self, key: &Key, value: &str) -> Result<(), Full> {
        self.member(key, |out| write_text(out, value))
    }

    /// Adds null: the value is known to be stale, and its last state must not look like the present one.
    ///
    /// # Errors
    /// As [`number`](Self::number).
    pub fn null(&mut self, key: &Key) -> Result<(), Full> {
        self.member(key, |out| out.write_str("null"))
    }

    /// Opens an object, for a value with a path. Members go into it until [`end_object`](Self::end_object).
    ///
    /// # Errors
    /// As [`number`](Self::number).
    pub fn begin_object(&mut self, key: &Key) -> Result<(), Full> {
        self.member(key, |out| out.write_str("{"))?;
        self.open += 1;
        self.comma = false;
        Ok(())
    }

    /// Closes the innermost object; without one open, nothing happens.
    ///
    /// # Errors
    /// As [`number`](Self::number).
    pub fn end_object(&mut self) -> Result<(), Full> {
        if self.full {
            return Err(Full);
        }
        if self.open > 0 {
            self.full = self.out.bytes(b"}").is_err();
            self.open -= 1;
            self.comma = true;
        }
        if self.full { Err(Full) } else { Ok(()) }
    }

    /// Ends the response. `pos` is latitude and longitude in decimal degrees; null where unknown or not finite.
    #[must_use]
    pub fn finish(mut self, pos: Option<(f64, f64)>) -> Response<'b> {
        let has_report = !self.full && self.report_end(pos).is_ok();
        if !has_report {
            self.out.at = self.acks_end;
            // `new` kept this byte free.
            let _ = self.out.bytes(b"}");
        }
        let Out { buffer, at } = self.out;
        let body = u32::try_from(at.saturating_sub(HEADER)).unwrap_or(0);
        if let Some(header) = buffer.first_chunk_mut::<HEADER>() {
            *header = body.to_le_bytes();
        }
        let buffer: &'b [u8] = buffer;
        Response { frame: buffer.get(..at).unwrap_or_default(), has_report }
    }

    fn report_end(&mut self, pos: Option<(f64, f64)>) -> fmt::Result {
        for _ in 0..self.open {
            self.out.write_str("}")?;
        }
        self.out.write_str("},\"pos\":")?;
        match pos {
            Some((lat, lon)) if lat.is_finite() && lon.is_finite() => {
                self.out.write_str("{\"lat\":")?;
                self.out.number(lat)?;
                self.out.write_str(",\"lon\":")?;
                self.out.number(lon)?;
                self.out.write_str("}")?;
            }
            _ => self.out.write_str("null")?,
        }
        self.out.write_str("}}")
    }
}

/// Writes a JSON string with its quotes.
fn write_text(out: &mut impl Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            '\0'..='\u{1f}' => write!(out, "\\u{:04x}", u32::from(c))?,
            c => out.write_char(c)?,
        }
    }
    out.write_char('"')
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
    use crate::limits;
    use crate::proto::ocp::server::{ResponseError, decode_response};
    use serde_json::{Value, json};

    fn body(frame: &[u8]) -> Value {
        let len = u32::from_le_bytes(*frame.first_chunk::<4>().unwrap());
        assert_eq!(usize::try_from(len).unwrap(), frame.len() - 4);
        assert!(frame.len() - 4 <= limits::OCP_BODY);
        serde_json::from_slice(&frame[4..]).unwrap()
    }

    #[test]
    fn the_smallest_answer_is_45_bytes() {
        let mut buffer = [0xa5; 64];
        let response = ResponseWriter::ack_only(&mut buffer, b"123456", b"3735928559").unwrap();
        assert!(!response.has_report);
        assert_eq!(response.frame, b"\x2d\0\0\0{\"ack_time\":123456,\"ack_time_mac\":3735928559}");
    }

    #[test]
    fn the_golden_responses_are_written_and_read() {
        let small = include_bytes!("../../../tests/data/ocp/response_ack_only.bin");
        let mut buffer = [0xa5; 512];
        assert_eq!(ResponseWriter::ack_only(&mut buffer, b"123456", b"3735928559").unwrap().frame, small);
        let golden = include_bytes!("../../../tests/data/ocp/response_full.bin");
        let mut w = ResponseWriter::new(&mut buffer, b"9007199254740993", b"4294967295").unwrap();
        w.number(&Key::new("speed_kph"), 12.5).unwrap();
        w.null(&Key::new("gear")).unwrap();
        w.boolean(&Key::new("armed"), true).unwrap();
        w.text(&Key::new("state"), "ARMED").unwrap();
        w.integer(&Key::new("trips"), 3).unwrap();
        w.begin_object(&Key::new("body")).unwrap();
        w.boolean(&Key::new("horn"), false).unwrap();
        w.end_object().unwrap();
        assert_eq!(w.finish(Some((57.7, 11.9))).frame, golden);
        let read = decode_response(&golden[4..]).unwrap();
        assert_eq!((read.ack_time, read.ack_time_mac), (9_007_199_254_740_993, u32::MAX));
        assert_eq!(read.pos, Some((57.7, 11.9)));
        for cut in 4..golden.len() {
            assert_eq!(decode_response(&golden[4..cut]), Err(ResponseError::Malformed), "cut at {cut}");
        }
    }

    #[test]
    fn row_22_the_ack_text_is_echoed_byte_for_byte() {
        for ack in ["0", "9007199254740993", "18446744073709551615", "1.7e12", "1.70E+12", "-0", "1e0"] {
            let mut buffer = [0; 256];
            let frame =
                ResponseWriter::new(&mut buffer, ack.as_bytes(), b"4294967295").unwrap().finish(None).frame;
            let text = core::str::from_utf8(&frame[4..]).unwrap();
            assert!(
                text.starts_with(&format!("{{\"ack_time\":{ack},\"ack_time_mac\":4294967295,")),
                "{text}"
            );
        }
    }

    #[test]
    fn every_kind_of_value() {
        let mut buffer = vec![0xa5; FRAME];
        let mut w = ResponseWriter::new(&mut buffer, b"1", b"2").unwrap();
        let k = Key::new;
        w.number(&k("speed_kph"), 12.5).unwrap();
        w.number(&k("inf"), f64::INFINITY).unwrap();
        w.number(&k("nan"), f64::NAN).unwrap();
        w.number(&k("minus_zero"), -0.0).unwrap();
        w.integer(&k("count"), i64::MIN).unwrap();
        w.boolean(&k("armed"), true).unwrap();
        w.text(&k("state \"x\"\n"), "a\"b\\c\u{1}\u{7f}ä😀\n").unwrap();
        w.null(&k("stale")).unwrap();
        w.begin_object(&k("gear")).unwrap();
        w.integer(&k("now"), 3).unwrap();
        w.begin_object(&k("empty")).unwrap();
        w.end_object().unwrap();
        w.boolean(&k("last"), false).unwrap();
        w.end_object().unwrap();
        w.end_object().unwrap();
        w.number(&k("after"), 1e-7).unwrap();
        let response = w.finish(Some((57.7, 11.9)));
        assert!(response.has_report);
        assert_eq!(
            body(response.frame),
            json!({"ack_time": 1, "ack_time_mac": 2, "vehicle_user_data": {
                "user_data": {"speed_kph": 12.5, "inf": null, "nan": null, "minus_zero": 0, "count": i64::MIN,
                    "armed": true, "state \"x\"\n": "a\"b\\c\u{1}\u{7f}ä😀\n", "stale": null,
                    "gear": {"now": 3, "empty": {}, "last": false}, "after": 1e-7},
                "pos": {"lat": 57.7, "lon": 11.9}}})
        );
    }

    #[test]
    fn numbers_stay_short_and_come_back_exactly() {
        for value in
            [0.1, 1e300, -1e-300, f64::MAX, f64::MIN_POSITIVE, 5e-324, 123_456_789.125, 1e16, 9.999e15, 1e-5]
        {
            let mut buffer = [0; 256];
            let mut w = ResponseWriter::new(&mut buffer, b"1", b"2").unwrap();
            w.number(&Key::new("v"), value).unwrap();
            let frame = w.finish(None).frame;
            assert!(frame.len() < 130, "{value} took {} bytes", frame.len());
            let text = core::str::from_utf8(&frame[4..]).unwrap();
            let raw = text.split("\"v\":").nth(1).unwrap().split('}').next().unwrap();
            assert_eq!(raw.parse::<f64>().unwrap(), value);
        }
    }

    #[test]
    fn unfinished_objects_are_closed_and_bad_positions_are_null() {
        let mut buffer = [0; 256];
        let mut w = ResponseWriter::new(&mut buffer, b"1", b"2").unwrap();
        w.begin_object(&Key::new("a")).unwrap();
        w.begin_object(&Key::new("b")).unwrap();
        let got = body(w.finish(Some((f64::NAN, 1.0))).frame);
        assert_eq!(got["vehicle_user_data"], json!({"user_data": {"a": {"b": {}}}, "pos": null}));
    }

    #[test]
    fn what_does_not_fit_falls_back_to_the_ack_pair_at_every_buffer_size() {
        let fill = |buffer: &mut [u8]| {
            let Ok(mut w) = ResponseWriter::new(buffer, b"123456", b"3735928559") else {
                return (None, false);
            };
            let mut ok = w.text(&Key::new("text"), "some \"text\" of the vehicle").is_ok();
            ok &= w.begin_object(&Key::new("o")).is_ok();
            ok &= w.number(&Key::new("n"), 1.25).is_ok();
            ok &= w.end_object().is_ok();
            let response = w.finish(Some((1.5, -2.5)));
            (Some((response.frame.to_vec(), response.has_report)), ok)
        };
        let mut large = vec![0; 1_000];
        let (whole, ok) = fill(&mut large);
        let (whole, report) = whole.unwrap();
        assert!(ok && report);
        for size in 0..1_000 {
            let mut buffer = vec![0xa5; size];
            let (frame, ok) = fill(&mut buffer);
            match frame {
                None => assert!(size < 4 + 45, "size {size}"),
                Some((frame, true)) => assert!(ok && frame == whole && size >= whole.len()),
                Some((frame, false)) => {
                    assert!(size < whole.len());
                    assert_eq!(body(&frame), json!({"ack_time": 123_456, "ack_time_mac": 3_735_928_559_u32}));
                }
            }
        }
    }

    #[test]
    fn the_protocol_limit_holds_in_a_larger_buffer() {
        let mut buffer = vec![0; 3 * FRAME];
        let mut w = ResponseWriter::new(&mut buffer, b"1", b"2").unwrap();
        let mut added = 0;
        while w.text(&Key::new("key"), "0123456789abcdef").is_ok() {
            added += 1;
        }
        assert!(added > 600);
        assert_eq!(w.integer(&Key::new("x"), 1), Err(Full), "once full, always full: no report with holes");
        let response = w.finish(None);
        assert!(!response.has_report);
        assert_eq!(body(response.frame), json!({"ack_time": 1, "ack_time_mac": 2}));
    }
}
