//! The control message: what the vehicle-side server sends 50 to 100 times a second.
//!
//! Owns the schema, the ranges of axes and latency, and the vendor's names and order. Relies on
//! [`crate::proto::json`]. Never fills in a value that was not sent, never clamps a command into range (only
//! rounding noise up to 1.01), and never lets bad data elsewhere hide a `fault: true`.
//!
//! ```text
//!   { "controller": { "buttons": {15 booleans}, "axes": {6 numbers} } | null | absent,
//!     "telemetry": { "latency": ms, "fault": bool, "fault_reason": text, "missing_cameras": [text] | null | absent },
//!     "ack_time": number, "ack_time_mac": number, "client_user_data": any | null | absent }
//! ```

use core::fmt;

use super::gamepad::{Axis, Button, Controller};
use crate::limits;
use crate::proto::json::{JsonError, Kind, Number, Reader, Scalar, Str};

/// Longest text of `ack_time` and `ack_time_mac`: 20 digits are a whole 64-bit number, four more leave room for a
/// float's form. They are echoed inline in each response.
pub const ACK_TEXT: usize = 24;

/// Beyond this an axis is no rounding noise of a value at its end stop but a wrong value.
pub const AXIS_TOLERANCE: f64 = 1.01;

/// What the server says about the link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Telemetry<'a> {
    /// Round-trip latency of the timestamp loop, milliseconds, finite, not negative.
    pub latency_ms: f64,
    /// At least one fault is active.
    pub fault: bool,
    /// Why, as the server words it. Not to be trusted as a name, nor to be short; see [`display_reason`].
    pub fault_reason: Str<'a>,
    /// How many cameras the server names as missing (saturates).
    pub missing_cameras: u16,
}

/// A valid control message, borrowed from the frame it came in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ControlMessage<'a> {
    /// The gamepad; `None` where the server sent none or null.
    pub controller: Option<Controller>,
    /// The state of the link.
    pub telemetry: Telemetry<'a>,
    /// `ack_time` as sent, 1..=24 bytes, to be echoed unchanged.
    pub ack_time: &'a [u8],
    /// `ack_time` in milliseconds of the server's own clock, finite, not negative. For freshness only: above 2^53
    /// it is rounded, and then moves in steps of several milliseconds.
    pub ack_time_ms: f64,
    /// `ack_time_mac` as sent, 1..=24 bytes, to be echoed unchanged.
    pub ack_time_mac: &'a [u8],
    /// What the operator side added, as sent; `None` where absent or null.
    pub client_user_data: Option<&'a [u8]>,
}

/// A part of the message, to say which one is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the vendor's field names")]
pub enum Field {
    Controller,
    Buttons,
    Button(Button),
    Axes,
    Axis(Axis),
    Telemetry,
    Latency,
    Fault,
    FaultReason,
    MissingCameras,
    AckTime,
    AckTimeMac,
    ClientUserData,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Controller => "controller",
            Self::Buttons => "controller.buttons",
            Self::Button(button) => return write!(f, "controller.buttons.{}", button.name()),
            Self::Axes => "controller.axes",
            Self::Axis(axis) => return write!(f, "controller.axes.{}", axis.name()),
            Self::Telemetry => "telemetry",
            Self::Latency => "telemetry.latency",
            Self::Fault => "telemetry.fault",
            Self::FaultReason => "telemetry.fault_reason",
            Self::MissingCameras => "telemetry.missing_cameras",
            Self::AckTime => "ack_time",
            Self::AckTimeMac => "ack_time_mac",
            Self::ClientUserData => "client_user_data",
        })
    }
}

/// Why a message is invalid. Every one of them drops the whole message, counts as a strike, and trips while armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ControlError {
    /// The body is no JSON document.
    Json(JsonError),
    /// The body is JSON, but no object.
    NotAnObject,
    /// A required field is not there.
    Missing(Field),
    /// A field has another type than the schema says; null where a value is required counts as this.
    WrongType(Field),
    /// A field is there twice, so nobody can say which one was meant.
    Duplicate(Field),
    /// An axis beyond 1.01 in either direction.
    AxisRange(Axis),
    /// A latency below zero.
    NegativeLatency,
    /// An `ack_time` below zero.
    NegativeAckTime,
    /// The text of an ack number exceeds [`ACK_TEXT`] bytes: no number the protocol sends is that long.
    AckTooLong(Field),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => write!(f, "not JSON: {error}"),
            Self::NotAnObject => f.write_str("not an object"),
            Self::Missing(field) => write!(f, "{field} is missing"),
            Self::WrongType(field) => write!(f, "{field} has the wrong type"),
            Self::Duplicate(field) => write!(f, "{field} is there twice"),
            Self::AxisRange(axis) => write!(f, "axis {} is outside -1..1", axis.name()),
            Self::NegativeLatency => f.write_str("telemetry.latency is negative"),
            Self::NegativeAckTime => f.write_str("ack_time is negative"),
            Self::AckTooLong(field) => write!(f, "{field} is longer than {ACK_TEXT} bytes"),
        }
    }
}

impl core::error::Error for ControlError {}

/// A message that must not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Invalid {
    /// The first thing found wrong.
    pub error: ControlError,
    /// The message says `fault: true` all the same. Trips whatever else is wrong with it. Where the JSON itself is
    /// broken, this is a search of the bytes for the field: it may see a fault that is none, never the reverse for
    /// a field that is whole.
    pub fault_seen: bool,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid control message: {}", self.error)?;
        if self.fault_seen { f.write_str(" (and it reports a fault)") } else { Ok(()) }
    }
}

impl core::error::Error for Invalid {}

/// Decodes the body of one frame.
///
/// # Errors
/// [`Invalid`] with the first reason, and whether the message reports a fault nevertheless.
pub fn decode(body: &[u8]) -> Result<ControlMessage<'_>, Invalid> {
    let mut decoder = Decoder::default();
    let read = Reader::new(body).and_then(|reader| decoder.message(reader));
    let error = match (decoder.error, read) {
        (Some(error), Ok(())) => error,
        (first, Err(json)) => {
            // What follows the broken place has no reading any more, and may hold the fault.
            let fault_seen = decoder.fault_seen || scan_for_fault(body);
            return Err(Invalid { error: first.unwrap_or(ControlError::Json(json)), fault_seen });
        }
        (None, Ok(())) => match decoder.finish() {
            Ok(message) => return Ok(message),
            Err(error) => error,
        },
    };
    Err(Invalid { error, fault_seen: decoder.fault_seen })
}

/// Whether the bytes hold `"fault": true`, whatever surrounds it.
fn scan_for_fault(body: &[u8]) -> bool {
    const KEY: &[u8] = b"\"fault\"";
    let space = |b: &&u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
    body.windows(KEY.len()).enumerate().filter(|(_, w)| *w == KEY).any(|(at, _)| {
        let mut rest = body.get(at + KEY.len()..).unwrap_or_default().iter().skip_while(space);
        rest.next() == Some(&b':') && rest.skip_while(space).take(4).eq(b"true")
    })
}

/// Which members of one object were seen.
#[derive(Debug, Default, Clone, Copy)]
struct Seen(u16);

impl Seen {
    /// Marks a member; whether it was there before.
    const fn again(&mut self, at: usize) -> bool {
        let bit = 1 << at;
        let again = self.0 & bit != 0;
        self.0 |= bit;
        again
    }

    const fn has(self, at: usize) -> bool {
        self.0 & 1 << at != 0
    }
}

/// Where `key` is in `names`. Senders keep their order, so the one after the last is tried first.
fn position(key: Str<'_>, names: &[&str], next: &mut usize) -> Option<usize> {
    let at = if names.get(*next).is_some_and(|name| key.is(name)) {
        *next
    } else {
        names.iter().position(|name| key.is(name))?
    };
    *next = at + 1;
    Some(at)
}

/// What was read so far. Reading goes on after the first wrong value, because a fault may follow it.
#[derive(Debug, Default)]
struct Decoder<'a> {
    error: Option<ControlError>,
    fault_seen: bool,
    top: Seen,
    controller: Option<Controller>,
    latency_ms: Option<f64>,
    fault: Option<bool>,
    fault_reason: Option<Str<'a>>,
    missing_cameras: u16,
    ack_time: Option<Number<'a>>,
    ack_time_mac: Option<Number<'a>>,
    client_user_data: Option<&'a [u8]>,
}

const TOP: [(&str, Field); 5] = [
    ("controller", Field::Controller),
    ("telemetry", Field::Telemetry),
    ("ack_time", Field::AckTime),
    ("ack_time_mac", Field::AckTimeMac),
    ("client_user_data", Field::ClientUserData),
];
const TOP_NAMES: [&str; 5] = [TOP[0].0, TOP[1].0, TOP[2].0, TOP[3].0, TOP[4].0];

const TELEMETRY: [(&str, Field); 4] = [
    ("latency", Field::Latency),
    ("fault", Field::Fault),
    ("fault_reason", Field::FaultReason),
    ("missing_cameras", Field::MissingCameras),
];
const TELEMETRY_NAMES: [&str; 4] = [TELEMETRY[0].0, TELEMETRY[1].0, TELEMETRY[2].0, TELEMETRY[3].0];

const CONTROLLER_NAMES: [&str; 2] = ["buttons", "axes"];

impl<'a> Decoder<'a> {
    /// Keeps the first reason.
    fn wrong(&mut self, error: ControlError) {
        self.error.get_or_insert(error);
    }

    fn message(&mut self, mut reader: Reader<'a>) -> Result<(), JsonError> {
        if !reader.open_object()? {
            self.wrong(ControlError::NotAnObject);
            return reader.finish();
        }
        let mut next = 0;
        while let Some(key) = reader.next_key()? {
            let Some(at) = position(key, &TOP_NAMES, &mut next) else {
                reader.skip_value()?;
                continue;
            };
            let Some((_, field)) = TOP.get(at).copied() else { continue };
            if self.top.again(at) {
                self.wrong(ControlError::Duplicate(field));
            }
            match field {
                Field::Controller => self.controller(&mut reader)?,
                Field::Telemetry => self.telemetry(&mut reader)?,
                Field::AckTime => self.ack_time = self.ack(&mut reader, field)?,
                Field::AckTimeMac => self.ack_time_mac = self.ack(&mut reader, field)?,
                _ => {
                    let is_null = reader.kind()? == Kind::Null;
                    let raw = reader.skip_value()?.as_bytes();
                    self.client_user_data = (!is_null).then_some(raw);
                }
            }
        }
        reader.finish()
    }

    fn controller(&mut self, reader: &mut Reader<'a>) -> Result<(), JsonError> {
        if reader.kind()? == Kind::Null {
            reader.skip_value()?;
            return Ok(());
        }
        if !reader.open_object()? {
            self.wrong(ControlError::WrongType(Field::Controller));
            return Ok(());
        }
        let (mut seen, mut next) = (Seen::default(), 0);
        let mut controller = Controller::NEUTRAL;
        while let Some(key) = reader.next_key()? {
            match position(key, &CONTROLLER_NAMES, &mut next) {
                Some(0) => {
                    if seen.again(0) {
                        self.wrong(ControlError::Duplicate(Field::Buttons));
                    }
                    controller.buttons = self.buttons(reader)?;
                }
                Some(_) => {
                    if seen.again(1) {
                        self.wrong(ControlError::Duplicate(Field::Axes));
                    }
                    self.axes(reader, &mut controller.axes)?;
                }
                None => {
                    reader.skip_value()?;
                }
            }
        }
        for (at, field) in [Field::Buttons, Field::Axes].into_iter().enumerate() {
            if !seen.has(at) {
                self.wrong(ControlError::Missing(field));
            }
        }
        self.controller = Some(controller);
        Ok(())
    }

    fn buttons(&mut self, reader: &mut Reader<'a>) -> Result<u16, JsonError> {
        if !reader.open_object()? {
            self.wrong(ControlError::WrongType(Field::Buttons));
            return Ok(0);
        }
        let (mut seen, mut next, mut buttons) = (Seen::default(), 0, 0);
        while let Some(key) = reader.next_key()? {
            let at = position(key, &Button::NAMES, &mut next);
            let Some(button) = at.and_then(|at| Button::ALL.get(at).copied()) else {
                reader.skip_value()?;
                continue;
            };
            if seen.again(button as usize) {
                self.wrong(ControlError::Duplicate(Field::Button(button)));
            }
            match reader.scalar()? {
                Scalar::Bool(true) => buttons |= button.mask(),
                Scalar::Bool(false) => {}
                _ => self.wrong(ControlError::WrongType(Field::Button(button))),
            }
        }
        if let Some(button) = Button::ALL.into_iter().find(|b| !seen.has(*b as usize)) {
            self.wrong(ControlError::Missing(Field::Button(button)));
        }
        Ok(buttons)
    }

    fn axes(&mut self, reader: &mut Reader<'a>, axes: &mut [f64; Axis::COUNT]) -> Result<(), JsonError> {
        if !reader.open_object()? {
            self.wrong(ControlError::WrongType(Field::Axes));
            return Ok(());
        }
        let (mut seen, mut next) = (Seen::default(), 0);
        while let Some(key) = reader.next_key()? {
            let at = position(key, &Axis::NAMES, &mut next);
            let Some(axis) = at.and_then(|at| Axis::ALL.get(at).copied()) else {
                reader.skip_value()?;
                continue;
            };
            if seen.again(axis as usize) {
                self.wrong(ControlError::Duplicate(Field::Axis(axis)));
            }
            let Scalar::Number(number) = reader.scalar()? else {
                self.wrong(ControlError::WrongType(Field::Axis(axis)));
                continue;
            };
            match axis_value(number.value()) {
                Some(value) => {
                    if let Some(slot) = axes.get_mut(axis as usize) {
                        *slot = value;
                    }
                }
                None => self.wrong(ControlError::AxisRange(axis)),
            }
        }
        if let Some(axis) = Axis::ALL.into_iter().find(|a| !seen.has(*a as usize)) {
            self.wrong(ControlError::Missing(Field::Axis(axis)));
        }
        Ok(())
    }

    fn telemetry(&mut self, reader: &mut Reader<'a>) -> Result<(), JsonError> {
        if !reader.open_object()? {
            self.wrong(ControlError::WrongType(Field::Telemetry));
            return Ok(());
        }
        let (mut seen, mut next) = (Seen::default(), 0);
        while let Some(key) = reader.next_key()? {
            let at = position(key, &TELEMETRY_NAMES, &mut next);
            let Some((_, field)) = at.and_then(|at| TELEMETRY.get(at).copied()) else {
                reader.skip_value()?;
                continue;
            };
            if seen.again(at.unwrap_or(0)) {
                self.wrong(ControlError::Duplicate(field));
            }
            match (field, reader.kind()?) {
                (Field::MissingCameras, Kind::Null) => {
                    reader.skip_value()?;
                }
                (Field::MissingCameras, Kind::Array) => self.missing_cameras(reader)?,
                (field, _) => match (field, reader.scalar()?) {
                    (Field::Latency, Scalar::Number(number)) if number.value() < 0.0 => {
                        self.wrong(ControlError::NegativeLatency);
                    }
                    // Adding zero turns a negative zero into zero.
                    (Field::Latency, Scalar::Number(number)) => self.latency_ms = Some(number.value() + 0.0),
                    (Field::Fault, Scalar::Bool(fault)) => {
                        self.fault_seen |= fault;
                        self.fault = Some(fault);
                    }
                    (Field::FaultReason, Scalar::Str(reason)) => self.fault_reason = Some(reason),
                    (field, _) => self.wrong(ControlError::WrongType(field)),
                },
            }
        }
        Ok(())
    }

    fn missing_cameras(&mut self, reader: &mut Reader<'a>) -> Result<(), JsonError> {
        reader.open_array()?;
        while reader.next_element()? {
            match reader.scalar()? {
                Scalar::Str(_) => self.missing_cameras = self.missing_cameras.saturating_add(1),
                _ => self.wrong(ControlError::WrongType(Field::MissingCameras)),
            }
        }
        Ok(())
    }

    fn ack(&mut self, reader: &mut Reader<'a>, field: Field) -> Result<Option<Number<'a>>, JsonError> {
        let Scalar::Number(number) = reader.scalar()? else {
            self.wrong(ControlError::WrongType(field));
            return Ok(None);
        };
        if number.raw().len() > ACK_TEXT {
            self.wrong(ControlError::AckTooLong(field));
        }
        if field == Field::AckTime && number.value() < 0.0 {
            self.wrong(ControlError::NegativeAckTime);
        }
        Ok(Some(number))
    }

    fn finish(&self) -> Result<ControlMessage<'a>, ControlError> {
        if !self.top.has(1) {
            return Err(ControlError::Missing(Field::Telemetry));
        }
        let ack_time = self.ack_time.ok_or(const { ControlError::Missing(Field::AckTime) })?;
        let ack_time_mac = self.ack_time_mac.ok_or(const { ControlError::Missing(Field::AckTimeMac) })?;
        Ok(ControlMessage {
            controller: self.controller,
            telemetry: Telemetry {
                latency_ms: self.latency_ms.ok_or(const { ControlError::Missing(Field::Latency) })?,
                fault: self.fault.ok_or(const { ControlError::Missing(Field::Fault) })?,
                fault_reason: self.fault_reason.ok_or(const { ControlError::Missing(Field::FaultReason) })?,
                missing_cameras: self.missing_cameras,
            },
            ack_time: ack_time.raw().as_bytes(),
            ack_time_ms: ack_time.value(),
            ack_time_mac: ack_time_mac.raw().as_bytes(),
            client_user_data: self.client_user_data,
        })
    }
}

/// An axis value made fit for use: rounding noise at the end stop cut, negative zero and subnormals made zero.
fn axis_value(x: f64) -> Option<f64> {
    if !x.is_finite() || x.abs() > AXIS_TOLERANCE {
        return None;
    }
    // Also what would be subnormal as f32: nothing downstream shall compute with it.
    if x.abs() < f64::from(f32::MIN_POSITIVE) { Some(0.0) } else { Some(x.clamp(-1.0, 1.0)) }
}

/// Copies a fault reason for display: unescaped, cut at a character boundary, every control character (and every
/// character that turns text around) made a space. Returns the part of `out` that was written.
pub fn display_reason<'o>(reason: Str<'_>, out: &'o mut [u8; limits::FAULT_REASON]) -> &'o str {
    let mut len = 0;
    for c in reason.chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let c = if c.is_control() || turns { ' ' } else { c };
        let mut utf8 = [0; 4];
        let bytes = c.encode_utf8(&mut utf8).as_bytes();
        let Some(to) = out.get_mut(len..len + bytes.len()) else { break };
        to.copy_from_slice(bytes);
        len += bytes.len();
    }
    core::str::from_utf8(out.get(..len).unwrap_or_default()).unwrap_or("")
}

#[cfg(test)]
mod tests;
