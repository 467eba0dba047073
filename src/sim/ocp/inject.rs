//! Faults put into the stream on purpose.
//!
//! Owns what each one does to a message, to its bytes, or to the way they are sent. Relies on
//! [`crate::proto::ocp::server`] to write messages. Never sends anything itself.

use super::{Rng, mix};
use crate::limits;
use crate::proto::ocp::server::{ControlOut, Gamepad, Part, frame};
use crate::proto::ocp::{Axis, Controller};
use crate::time::Duration;

/// One fault.
#[derive(Debug, Clone, PartialEq)]
pub enum Inject {
    /// The frame goes out byte by byte, with this gap between them.
    Partial(Duration),
    /// The frame goes out in two pieces, cut after so many bytes, with this gap.
    Split(usize, Duration),
    /// So many messages are held back and go out in one piece.
    Coalesce(u32),
    /// So many messages at once.
    Burst(u32),
    /// Half a frame, then the end of the connection.
    Truncate,
    /// A frame of length 0.
    Zero,
    /// A valid message padded to the largest body.
    Largest,
    /// A valid message padded to one byte more.
    Oversize,
    /// The length 0xFFFFFFFF.
    Huge,
    /// The length in the wrong byte order.
    BigEndian,
    /// A body that is not UTF-8.
    NotUtf8,
    /// JSON of another shape.
    Shape,
    /// Random bytes.
    Garbage,
    /// The greeting of another program on the port.
    Http,
    /// 16 KB of `[`.
    Deep,
    /// A body as given.
    Body(String),
    /// The last hundred messages once more instead of new ones.
    Replay,
    /// Unknown members in every object.
    Unknown,
    /// No optional member.
    Minimal,
    /// A button is missing.
    MissingButton,
    /// An axis is missing.
    MissingAxis,
    /// `telemetry` is missing.
    MissingTelemetry,
    /// `ack_time` is missing.
    MissingAck,
    /// Axes as whole numbers.
    Integers,
    /// An axis whose value is this text.
    Axis(String, String),
    /// `NaN` for an axis.
    Nan,
    /// The same key twice.
    Duplicate,
    /// A lone surrogate in the reason.
    Surrogate,
    /// 15 KB of reason with control characters.
    LongReason,
    /// `fault: true` in this message alone.
    Fault,
    /// A reason without a fault.
    Reason,
    /// `telemetry.latency` is this text.
    Latency(String),
    /// `ack_time` is this text.
    AckTime(String),
}

/// A control message of the wrong shape.
pub(super) const CONTROL_SHAPE: &str = r#"{"controller":[],"telemetry":5,"ack_time":"now"}"#;

/// A feedback message of the wrong shape.
pub(super) const FEEDBACK_SHAPE: &str = r#"{"vehicle_feedback":[null],"last_input":5}"#;

/// How the command is written.
pub(super) const USAGE: &str = "inject partial [MS] | split [AT [MS]] | coalesce [N] | burst [N] | truncate | zero | largest | oversize | huge | \
     bigendian | utf8 | shape | garbage | http | deep | body TEXT | replay | unknown | minimal | missing-button | \
     missing-axis | missing-telemetry | missing-ack | integers | axis NAME TEXT | nan | duplicate | surrogate | \
     long-reason | fault | reason | latency TEXT | ack TEXT   [xN]";

/// Every injection that needs no argument.
#[cfg(test)]
pub(super) const NAMES: [&str; 28] = [
    "partial",
    "split",
    "coalesce",
    "burst",
    "truncate",
    "zero",
    "largest",
    "oversize",
    "huge",
    "bigendian",
    "utf8",
    "shape",
    "garbage",
    "http",
    "deep",
    "replay",
    "unknown",
    "minimal",
    "missing-button",
    "missing-axis",
    "missing-telemetry",
    "missing-ack",
    "integers",
    "nan",
    "duplicate",
    "surrogate",
    "long-reason",
    "fault",
];

impl Inject {
    /// The injection of that name. `text` is everything after the name.
    pub(super) fn parse(name: &str, arguments: &[&str], text: &str) -> Option<Self> {
        let number =
            |at: usize, default: u32| arguments.get(at).map_or(Some(default), |word| word.parse().ok());
        let gap = |at, default| number(at, default).map(|ms| Duration::from_millis(u64::from(ms)));
        let most = match name {
            "partial" | "coalesce" | "burst" => 1,
            "split" | "axis" => 2,
            "body" | "latency" | "ack" => usize::MAX,
            _ => 0,
        };
        if arguments.len() > most {
            return None;
        }
        let given = || (!text.is_empty()).then(|| text.to_owned());
        Some(match name {
            "partial" => Self::Partial(gap(0, 1)?),
            "split" => Self::Split(number(0, 2)? as usize, gap(1, 5)?),
            "coalesce" => Self::Coalesce(number(0, 3)?.clamp(2, 1_000)),
            "burst" => Self::Burst(number(0, 10)?.clamp(1, 10_000)),
            "truncate" => Self::Truncate,
            "zero" => Self::Zero,
            "largest" => Self::Largest,
            "oversize" => Self::Oversize,
            "huge" => Self::Huge,
            "bigendian" => Self::BigEndian,
            "utf8" => Self::NotUtf8,
            "shape" => Self::Shape,
            "garbage" => Self::Garbage,
            "http" => Self::Http,
            "deep" => Self::Deep,
            "body" => Self::Body(given()?),
            "replay" => Self::Replay,
            "unknown" => Self::Unknown,
            "minimal" => Self::Minimal,
            "missing-button" => Self::MissingButton,
            "missing-axis" => Self::MissingAxis,
            "missing-telemetry" => Self::MissingTelemetry,
            "missing-ack" => Self::MissingAck,
            "integers" => Self::Integers,
            "axis" => {
                let [name, value] = arguments else { return None };
                Axis::from_name(name)?;
                Self::Axis((*name).to_owned(), (*value).to_owned())
            }
            "nan" => Self::Nan,
            "duplicate" => Self::Duplicate,
            "surrogate" => Self::Surrogate,
            "long-reason" => Self::LongReason,
            "fault" => Self::Fault,
            "reason" => Self::Reason,
            "latency" => Self::Latency(given()?),
            "ack" => Self::AckTime(given()?),
            _ => return None,
        })
    }

    /// Whether it is about bytes and their way, and so fits any message.
    pub(super) const fn fits_any_message(&self) -> bool {
        matches!(
            self,
            Self::Partial(_)
                | Self::Split(..)
                | Self::Coalesce(_)
                | Self::Burst(_)
                | Self::Truncate
                | Self::Zero
                | Self::Largest
                | Self::Oversize
                | Self::Huge
                | Self::BigEndian
                | Self::NotUtf8
                | Self::Shape
                | Self::Garbage
                | Self::Http
                | Self::Deep
                | Self::Body(_)
                | Self::Replay
        )
    }

    /// Bytes that go out instead of the message with this body, for the faults of that kind. `shape` is a body of the
    /// wrong shape.
    pub(super) fn bytes(&self, body: &[u8], shape: &str, rng: &mut Rng) -> Option<Vec<u8>> {
        Some(match self {
            Self::Zero => vec![0; 4],
            Self::Largest => padded(body, limits::OCP_BODY),
            Self::Oversize => padded(body, limits::OCP_BODY + 1),
            Self::Huge => [&u32::MAX.to_le_bytes()[..], body].concat(),
            Self::BigEndian => {
                let mut bytes = frame(body);
                if let Some(header) = bytes.first_chunk_mut::<4>() {
                    header.reverse();
                }
                bytes
            }
            Self::NotUtf8 => {
                let mut body = body.to_vec();
                let middle = body.len() / 2;
                body.splice(middle..middle, *b"\xc3\x28\xff");
                frame(&body)
            }
            Self::Shape => frame(shape.as_bytes()),
            Self::Garbage => (0..200).flat_map(|_| rng.bits().to_le_bytes()).collect(),
            Self::Http => b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec(),
            Self::Deep => frame(&vec![b'['; limits::OCP_BODY]),
            Self::Body(text) => frame(text.as_bytes()),
            _ => return None,
        })
    }

    /// Changes the message, for the faults of that kind.
    pub(super) fn change(&self, message: &mut ControlOut) {
        match self {
            Self::Unknown => {
                message
                    .extra
                    .push(("protocol_version".to_owned(), r#"{"fault":true,"list":[1,null]}"#.to_owned()));
                raw_axis(message, "left_x", |value| format!("{value:?},\"gyro\":[0.5,null]"));
            }
            Self::Minimal => {
                message.controller = Part::Absent;
                message.client_user_data = Part::Absent;
                if let Part::Is(link) = &mut message.telemetry {
                    link.missing_cameras = Part::Absent;
                }
            }
            Self::MissingButton => gamepad(message).without.push("dpad_left".to_owned()),
            Self::MissingAxis => gamepad(message).without.push("right_y".to_owned()),
            Self::MissingTelemetry => message.telemetry = Part::Absent,
            Self::MissingAck => message.ack_time = Part::Absent,
            Self::Integers => {
                for axis in Axis::NAMES {
                    raw_axis(message, axis, |value| format!("{value:.0}"));
                }
            }
            Self::Axis(name, text) => raw_axis(message, name, |_| text.clone()),
            Self::Nan => raw_axis(message, "left_x", |_| "NaN".to_owned()),
            Self::Duplicate => {
                raw_axis(message, "right_trigger", |value| format!("{value:?},\"right_trigger\":1.0"))
            }
            Self::Surrogate => reason(message, Part::Raw(r#""\ud800""#.to_owned())),
            Self::LongReason => reason(message, Part::Is("why\u{1b}[2J\n\u{7}".repeat(15_000 / 20))),
            Self::Reason => reason(message, Part::Is("CameraLost".to_owned())),
            Self::Fault => {
                if let Part::Is(link) = &mut message.telemetry {
                    link.fault = Part::Is(true);
                }
                reason(message, Part::Is("Injected".to_owned()));
            }
            Self::Latency(text) => {
                if let Part::Is(link) = &mut message.telemetry {
                    link.latency = Part::Raw(text.clone());
                }
            }
            Self::AckTime(text) => message.ack_time = Part::Raw(text.clone()),
            _ => {}
        }
    }
}

/// The body with spaces behind it, valid JSON as before.
fn padded(body: &[u8], len: usize) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(len.max(body.len()), b' ');
    frame(&body)
}

fn reason(message: &mut ControlOut, text: Part<String>) {
    if let Part::Is(link) = &mut message.telemetry {
        link.fault_reason = text;
    }
}

/// The gamepad of the message, which gets one if it has none: the fault shall be in the message.
fn gamepad(message: &mut ControlOut) -> &mut Gamepad {
    if !matches!(message.controller, Part::Is(_)) {
        message.controller = Part::Is(Controller::NEUTRAL.into());
    }
    match &mut message.controller {
        Part::Is(pad) => pad,
        Part::Absent | Part::Raw(_) => unreachable!("it was just set"),
    }
}

fn raw_axis(message: &mut ControlOut, name: &str, text: impl FnOnce(f64) -> String) {
    let pad = gamepad(message);
    let value = Axis::from_name(name).map_or(0.0, |axis| pad.controller.axis(axis));
    pad.raw.push((name.to_owned(), text(value)));
}

/// A keyed 32-bit hash of an ack time. The vendor's is unknown; a client must not care.
pub(super) fn mac(key: u64, ack_time: u64) -> u32 {
    let bits = mix(key ^ mix(ack_time.wrapping_add(key)));
    u32::try_from(bits >> 32).unwrap_or(u32::MAX)
}
