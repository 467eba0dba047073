//! The other end of the protocol, for simulators and tests: control messages out, responses in.
//!
//! Owns every way a control message can be written, wrong ones included. Relies on `serde_json` and on the heap.
//! Never used on the gateway's command path.

use core::fmt::{self, Write};

use serde_json::Value;

use super::gamepad::{Axis, Button, Controller};
use super::{FRAME, HEADER};
use crate::limits;

/// A member of a message: written as the protocol says, left out, or written as any text.
#[derive(Debug, Clone, PartialEq)]
pub enum Part<T> {
    /// The member is not in the message.
    Absent,
    /// The member has this value.
    Is(T),
    /// The member's value is this text, which need not be JSON.
    Raw(String),
}

impl<T> From<T> for Part<T> {
    fn from(value: T) -> Self {
        Self::Is(value)
    }
}

impl<T> Part<T> {
    /// The member with the value null.
    #[must_use]
    pub fn null() -> Self {
        Self::Raw("null".to_owned())
    }
}

/// A gamepad as it is written into a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Gamepad {
    /// The state.
    pub controller: Controller,
    /// Vendor names of axes and buttons that are left out.
    pub without: Vec<String>,
    /// Vendor names of axes and buttons that are written as the given text.
    pub raw: Vec<(String, String)>,
}

impl From<Controller> for Gamepad {
    fn from(controller: Controller) -> Self {
        Self { controller, without: Vec::new(), raw: Vec::new() }
    }
}

/// The state of the link as it is written into a message.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkState {
    /// Milliseconds.
    pub latency: Part<f64>,
    /// Whether a fault is active.
    pub fault: Part<bool>,
    /// Text.
    pub fault_reason: Part<String>,
    /// Names; not in the older schema.
    pub missing_cameras: Part<Vec<String>>,
}

/// A control message with every part under control.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlOut {
    /// The gamepad.
    pub controller: Part<Gamepad>,
    /// The state of the link.
    pub telemetry: Part<LinkState>,
    /// Milliseconds of the server's clock.
    pub ack_time: Part<u64>,
    /// Its keyed hash.
    pub ack_time_mac: Part<u32>,
    /// What the operator side added.
    pub client_user_data: Part<Value>,
    /// More members at the end of the outermost object: name and text of the value.
    pub extra: Vec<(String, String)>,
}

impl Default for ControlOut {
    /// A healthy message with an untouched gamepad.
    fn default() -> Self {
        Self {
            controller: Part::Is(Controller::NEUTRAL.into()),
            telemetry: Part::Is(LinkState {
                latency: Part::Is(0.0),
                fault: Part::Is(false),
                fault_reason: Part::Is(String::new()),
                missing_cameras: Part::Absent,
            }),
            ack_time: Part::Is(0),
            ack_time_mac: Part::Is(0),
            client_user_data: Part::Absent,
            extra: Vec::new(),
        }
    }
}

impl ControlOut {
    /// The body, members in the order of the vendor's schema.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut top = Members::default();
        top.part("controller", &self.controller, gamepad);
        top.part("telemetry", &self.telemetry, |link| {
            let mut members = Members::default();
            members.part("latency", &link.latency, f64::to_string);
            members.part("fault", &link.fault, bool::to_string);
            members.part("fault_reason", &link.fault_reason, |text| quoted(text));
            members.part("missing_cameras", &link.missing_cameras, |names| {
                let names: Vec<_> = names.iter().map(|name| quoted(name)).collect();
                format!("[{}]", names.join(","))
            });
            members.object()
        });
        top.part("ack_time", &self.ack_time, u64::to_string);
        top.part("ack_time_mac", &self.ack_time_mac, u32::to_string);
        top.part("client_user_data", &self.client_user_data, Value::to_string);
        for (name, text) in &self.extra {
            top.member(name, text);
        }
        top.object().into_bytes()
    }

    /// The whole frame.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        frame(&self.body())
    }
}

/// Puts the length in front of a body.
#[must_use]
pub fn frame(body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&len.to_le_bytes()[..], body].concat()
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn gamepad(pad: &Gamepad) -> String {
    let members = |names: &[&str], value: &dyn Fn(usize) -> String| {
        let mut members = Members::default();
        for (at, name) in names.iter().enumerate().filter(|(_, name)| !pad.without.iter().any(|w| w == *name))
        {
            match pad.raw.iter().find(|(raw, _)| raw == name) {
                Some((_, text)) => members.member(name, text),
                None => members.member(name, &value(at)),
            }
        }
        members.object()
    };
    let buttons = members(&Button::NAMES, &|at| (pad.controller.buttons >> at & 1 == 1).to_string());
    // Axes with a fraction in any case (`0.0`), as the vendor's serializer writes floats.
    let axes = members(&Axis::NAMES, &|at| {
        format!("{:?}", pad.controller.axes.get(at).copied().unwrap_or_default())
    });
    format!("{{\"buttons\":{buttons},\"axes\":{axes}}}")
}

/// The inside of an object.
#[derive(Default)]
struct Members(String);

impl Members {
    fn member(&mut self, name: &str, text: &str) {
        let comma = if self.0.is_empty() { "" } else { "," };
        // Writing to a `String` cannot fail.
        let _ = write!(self.0, "{comma}{}:{text}", quoted(name));
    }

    fn part<T>(&mut self, name: &str, part: &Part<T>, write: impl FnOnce(&T) -> String) {
        match part {
            Part::Absent => {}
            Part::Is(value) => self.member(name, &write(value)),
            Part::Raw(text) => self.member(name, text),
        }
    }

    fn object(self) -> String {
        format!("{{{}}}", self.0)
    }
}

/// Why a response cannot be used. The real server drops it with a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResponseError {
    /// The body is no JSON object.
    Malformed,
    /// `ack_time` is no whole number of 64 bits, or is not there: nothing is returned to the latency loop.
    NoAckTime,
    /// `ack_time_mac` is no whole number of 32 bits, or is not there.
    NoAckTimeMac,
    /// `vehicle_user_data` is there without the object `user_data`, or with a `pos` that is none.
    BadReport,
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the response is no JSON object",
            Self::NoAckTime => "the response has no valid ack_time",
            Self::NoAckTimeMac => "the response has no valid ack_time_mac",
            Self::BadReport => "the response's vehicle_user_data does not fit the schema",
        })
    }
}

impl core::error::Error for ResponseError {}

/// A response as the server reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct ResponseIn {
    /// The returned `ack_time`.
    pub ack_time: u64,
    /// The returned `ack_time_mac`.
    pub ack_time_mac: u32,
    /// `vehicle_user_data.user_data`, where there is one.
    pub user_data: Option<Value>,
    /// Latitude and longitude in degrees, where there are any.
    pub pos: Option<(f64, f64)>,
}

/// Decodes the body of a response, as strictly as the vendor's types are.
///
/// # Errors
/// [`ResponseError`] with the first reason.
pub fn decode_response(body: &[u8]) -> Result<ResponseIn, ResponseError> {
    let value: Value = serde_json::from_slice(body).map_err(|_| ResponseError::Malformed)?;
    let top = value.as_object().ok_or(ResponseError::Malformed)?;
    let ack_time = top.get("ack_time").and_then(Value::as_u64).ok_or(ResponseError::NoAckTime)?;
    let ack_time_mac = top
        .get("ack_time_mac")
        .and_then(Value::as_u64)
        .and_then(|mac| u32::try_from(mac).ok())
        .ok_or(ResponseError::NoAckTimeMac)?;
    let mut response = ResponseIn { ack_time, ack_time_mac, user_data: None, pos: None };
    match top.get("vehicle_user_data") {
        None | Some(Value::Null) => {}
        Some(report) => {
            let user_data = report.get("user_data").filter(|data| data.is_object());
            response.user_data = Some(user_data.ok_or(ResponseError::BadReport)?.clone());
            if let Some(pos) = report.get("pos").filter(|pos| !pos.is_null()) {
                let degrees = |key| pos.get(key).and_then(Value::as_f64).ok_or(ResponseError::BadReport);
                response.pos = Some((degrees("lat")?, degrees("lon")?));
            }
        }
    }
    Ok(response)
}

/// A frame of the largest body that is allowed, or of one byte more, both valid JSON: for tests of the limit.
#[must_use]
pub fn padded_frame(message: &ControlOut, body_len: usize) -> Vec<u8> {
    let mut body = message.body();
    let spaces = body_len.min(2 * limits::OCP_BODY).saturating_sub(body.len());
    body.extend(core::iter::repeat_n(b' ', spaces));
    debug_assert!(body.len() <= 2 * FRAME - HEADER);
    frame(&body)
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
    use serde_json::json;

    #[test]
    fn every_part_can_be_left_out_or_replaced() {
        let text = |message: &ControlOut| String::from_utf8(message.body()).unwrap();
        let mut message =
            ControlOut { controller: Part::Absent, telemetry: Part::null(), ..ControlOut::default() };
        assert_eq!(text(&message), r#"{"telemetry":null,"ack_time":0,"ack_time_mac":0}"#);
        message.ack_time = Part::Raw("1.7e12".into());
        message.ack_time_mac = Part::Absent;
        message.client_user_data = Part::Is(json!({"counter": 3}));
        message.extra.push(("new \"field\"".into(), "[1]".into()));
        let want =
            r#"{"telemetry":null,"ack_time":1.7e12,"client_user_data":{"counter":3},"new \"field\"":[1]}"#;
        assert_eq!(text(&message), want);
    }

    #[test]
    fn single_buttons_and_axes_can_be_left_out_or_replaced() {
        let pad = Gamepad {
            controller: Controller { buttons: Button::Start.mask(), ..Controller::NEUTRAL },
            without: vec!["a".into(), "left_y".into()],
            raw: vec![("left_x".into(), "1e39".into()), ("b".into(), "null".into())],
        };
        let value: Value = serde_json::from_str(&gamepad(&pad).replace("1e39", "7")).unwrap();
        assert_eq!(value["buttons"].as_object().unwrap().len(), 14);
        assert_eq!(value["buttons"]["start"], json!(true));
        assert_eq!(value["buttons"]["b"], Value::Null);
        assert_eq!(value["axes"]["left_x"], json!(7));
        assert_eq!(value["axes"]["right_trigger"], json!(-1.0));
        assert_eq!(value["axes"].as_object().unwrap().len(), 5);
    }

    #[test]
    fn responses_are_read_as_the_vendor_types_are() {
        let ok = |body: &str| decode_response(body.as_bytes());
        let bare = ResponseIn { ack_time: u64::MAX, ack_time_mac: u32::MAX, user_data: None, pos: None };
        assert_eq!(ok(r#"{"ack_time":18446744073709551615,"ack_time_mac":4294967295}"#), Ok(bare.clone()));
        let null = r#"{"ack_time":18446744073709551615,"ack_time_mac":4294967295,"vehicle_user_data":null}"#;
        assert_eq!(ok(null), Ok(bare));
        let full = r#"{"ack_time":1,"ack_time_mac":2,"vehicle_user_data":{"user_data":{"a":1},"pos":{"lat":57.7,"lon":11.9}}}"#;
        let want = ResponseIn {
            ack_time: 1,
            ack_time_mac: 2,
            user_data: Some(json!({"a": 1})),
            pos: Some((57.7, 11.9)),
        };
        assert_eq!(ok(full), Ok(want));
        assert_eq!(ok("[]"), Err(ResponseError::Malformed));
        assert_eq!(ok("{"), Err(ResponseError::Malformed));
        assert_eq!(ok(r#"{"ack_time":1.5,"ack_time_mac":1}"#), Err(ResponseError::NoAckTime));
        assert_eq!(ok(r#"{"ack_time":1,"ack_time_mac":4294967296}"#), Err(ResponseError::NoAckTimeMac));
        let lost = r#"{"ack_time":1,"ack_time_mac":2,"vehicle_user_data":{"pos":null}}"#;
        assert_eq!(ok(lost), Err(ResponseError::BadReport));
        let half = r#"{"ack_time":1,"ack_time_mac":2,"vehicle_user_data":{"user_data":{},"pos":{"lat":1}}}"#;
        assert_eq!(ok(half), Err(ResponseError::BadReport));
    }

    #[test]
    fn a_padded_frame_has_the_length_that_was_asked_for() {
        for len in [16_384, 16_385] {
            let bytes = padded_frame(&ControlOut::default(), len);
            assert_eq!(bytes.len(), len + 4);
            serde_json::from_slice::<Value>(&bytes[4..]).unwrap();
        }
    }
}
