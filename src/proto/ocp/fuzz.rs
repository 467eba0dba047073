//! What must hold for every input of this protocol, as functions that panic where it does not.
//!
//! Owns the properties that the fuzz targets under `fuzz/` and the seeded tests share. Relies on `serde_json` as the
//! second opinion. Never part of the gateway: nothing outside tests calls it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a property that does not hold is reported by a panic"
)]

use serde_json::{Map, Value};

use super::control;
use super::frame::{Deframer, FrameError};
use super::gamepad::{Axis, Button, Controller};
use super::response::{Key, ResponseWriter};
use super::server::{self, ControlOut, Part};
use super::user_data::{UserField, UserForm, UserPaths, UserValue};
use crate::limits;
use crate::proto::json::{JsonError, Kind, Reader, Scalar};

/// The document as a tree, through the pull reader.
fn tree(reader: &mut Reader<'_>) -> Result<Value, JsonError> {
    Ok(match reader.kind()? {
        Kind::Object => {
            reader.open_object()?;
            let mut members = Map::new();
            while let Some(key) = reader.next_key()? {
                let text: String = key.chars().collect();
                assert!(key.is(&text) && key.cmp_str(&text).is_eq());
                members.insert(text, tree(reader)?);
            }
            Value::Object(members)
        }
        Kind::Array => {
            reader.open_array()?;
            let mut elements = Vec::new();
            while reader.next_element()? {
                elements.push(tree(reader)?);
            }
            Value::Array(elements)
        }
        _ => match reader.scalar()? {
            Scalar::Null | Scalar::Container => Value::Null,
            Scalar::Bool(value) => Value::Bool(value),
            Scalar::Number(number) => {
                assert!(number.value().is_finite());
                Value::from(number.value())
            }
            Scalar::Str(text) => Value::String(text.chars().collect()),
        },
    })
}

fn same(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            // serde_json rounds long fractions within a few units of the last place unless told otherwise.
            a == b || (a - b).abs() <= 4.0 * f64::EPSILON * a.abs().max(b.abs())
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        (a, b) => a == b,
    }
}

/// The reader accepts what `serde_json` accepts, up to its depth, with the same values; passing over a document
/// and reading it give the same verdict.
pub fn json(data: &[u8]) {
    let ours = Reader::new(data).and_then(|mut reader| {
        let value = tree(&mut reader)?;
        reader.finish()?;
        Ok(value)
    });
    let skipped = Reader::new(data).and_then(|mut reader| {
        let raw = reader.skip_value()?;
        reader.finish()?;
        Ok(raw)
    });
    assert_eq!(ours.as_ref().err(), skipped.as_ref().err(), "reading and passing over disagree");
    let theirs = serde_json::from_slice::<Value>(data);
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => assert!(same(&ours, &theirs), "{ours} is not {theirs}"),
        // Within a few units of the largest float serde_json's rounding overshoots.
        (Ok(_), Err(error)) if error.to_string().contains("number out of range") => {}
        (Ok(ours), Err(error)) => panic!("accepted what serde_json refuses: {ours}: {error}"),
        (Err(JsonError::TooDeep), _) | (Err(_), Err(_)) => {}
        (Err(error), Ok(theirs)) => panic!("refused what serde_json accepts: {theirs}: {error}"),
    }
    if let Ok(raw) = skipped {
        assert_eq!(raw.as_bytes(), data.trim_ascii(), "the raw text is the document");
    }
}

/// The tree of a document that was accepted; none where `serde_json` alone finds a number too large (see [`json`]).
fn accepted(theirs: serde_json::Result<Value>) -> Option<Value> {
    match theirs {
        Ok(value) => Some(value),
        Err(error) if error.to_string().contains("number out of range") => None,
        Err(error) => panic!("accepted what serde_json refuses: {error}"),
    }
}

/// What a valid message must say, by a reading of the whole tree.
fn check_against_tree(message: &control::ControlMessage<'_>, value: &Value) {
    let number = |value: &Value| value.as_f64().expect("a number");
    let telemetry = &value["telemetry"];
    assert_eq!(telemetry["fault"], Value::Bool(message.telemetry.fault));
    let reason: String = message.telemetry.fault_reason.chars().collect();
    assert_eq!(telemetry["fault_reason"], Value::String(reason));
    assert!(
        (number(&telemetry["latency"]) - message.telemetry.latency_ms).abs()
            <= 1e-9 * message.telemetry.latency_ms
    );
    assert!(message.telemetry.latency_ms >= 0.0 && message.ack_time_ms >= 0.0);
    for text in [message.ack_time, message.ack_time_mac] {
        assert!((1..=control::ACK_TEXT).contains(&text.len()));
        assert!(core::str::from_utf8(text).unwrap().parse::<f64>().unwrap().is_finite());
    }
    match (&message.controller, &value["controller"]) {
        (None, controller) => assert!(controller.is_null()),
        (Some(controller), tree) => {
            for button in Button::ALL {
                assert_eq!(tree["buttons"][button.name()], Value::Bool(controller.pressed(button)));
            }
            for axis in Axis::ALL {
                let (got, sent) = (controller.axis(axis), number(&tree["axes"][axis.name()]));
                assert!(
                    (-1.0..=1.0).contains(&got)
                        && (got == 0.0 || got.is_normal())
                        && !(got == 0.0 && got.is_sign_negative())
                );
                assert!((got - sent).abs() <= 0.010_001, "{sent} became {got}");
            }
        }
    }
    match (message.client_user_data, &value["client_user_data"]) {
        (None, data) => assert!(data.is_null()),
        (Some(raw), data) => assert!(same(&serde_json::from_slice(raw).unwrap(), data)),
    }
}

/// Decoding is total; what it accepts agrees with a reading of the whole tree, and comes back the same when it is
/// written and decoded again; a structurally readable fault is seen in what it refuses.
pub fn control(data: &[u8]) {
    let theirs = serde_json::from_slice::<Value>(data);
    match control::decode(data) {
        Ok(message) => {
            let Some(value) = accepted(theirs) else { return };
            check_against_tree(&message, &value);
            let mut out = [0; limits::FAULT_REASON];
            let shown = control::display_reason(message.telemetry.fault_reason, &mut out);
            assert!(shown.len() <= limits::FAULT_REASON && !shown.chars().any(char::is_control));
            again(&message);
        }
        Err(invalid) => {
            if let Ok(value) = theirs {
                assert!(
                    invalid.fault_seen || value["telemetry"]["fault"] != Value::Bool(true),
                    "a readable fault was not seen in a message refused for {invalid}"
                );
            }
        }
    }
}

/// Writes a decoded message with the encoder and decodes it again.
fn again(message: &control::ControlMessage<'_>) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let cameras = vec!["c".to_owned(); usize::from(message.telemetry.missing_cameras)];
    let out = ControlOut {
        controller: message.controller.map_or(Part::Absent, |c| Part::Is(c.into())),
        telemetry: Part::Is(server::LinkState {
            latency: Part::Is(message.telemetry.latency_ms),
            fault: Part::Is(message.telemetry.fault),
            fault_reason: Part::Is(message.telemetry.fault_reason.chars().collect()),
            missing_cameras: Part::Is(cameras),
        }),
        ack_time: Part::Raw(text(message.ack_time)),
        ack_time_mac: Part::Raw(text(message.ack_time_mac)),
        client_user_data: message.client_user_data.map_or(Part::Absent, |raw| Part::Raw(text(raw))),
        extra: vec![("later".to_owned(), "{}".to_owned())],
    };
    let body = out.body();
    let second = control::decode(&body).expect("what was accepted is accepted again");
    assert_eq!(second.controller, message.controller);
    assert_eq!(second.telemetry.latency_ms, message.telemetry.latency_ms);
    assert_eq!(second.telemetry.fault, message.telemetry.fault);
    assert!(second.telemetry.fault_reason.chars().eq(message.telemetry.fault_reason.chars()));
    assert_eq!(second.telemetry.missing_cameras, message.telemetry.missing_cameras);
    assert_eq!(
        (second.ack_time, second.ack_time_ms, second.ack_time_mac, second.client_user_data),
        (message.ack_time, message.ack_time_ms, message.ack_time_mac, message.client_user_data)
    );
}

/// However a stream is cut, the same frames and errors come out of it as from reading it in one piece.
pub fn deframe(data: &[u8]) {
    let Some((&cut, stream)) = data.split_first() else { return };
    let mut want = Vec::new();
    let mut rest = stream;
    while let Some((header, tail)) = rest.split_first_chunk::<4>() {
        let announced = u32::from_le_bytes(*header);
        let len = usize::try_from(announced).unwrap();
        if len == 0 {
            want.push(Err(FrameError::Empty));
        } else if len > limits::OCP_BODY {
            want.push(Err(FrameError::Oversize(announced)));
            break;
        } else if let Some((body, next)) = tail.split_at_checked(len) {
            want.push(Ok(body.to_vec()));
            rest = next;
            continue;
        } else {
            break;
        }
        rest = tail;
    }
    let mut got = Vec::new();
    let mut deframer = Deframer::new();
    let mut left = stream;
    'stream: while !left.is_empty() {
        let part = &left[..left.len().min(usize::from(cut) + 1)];
        let n = deframer.handle_bytes(part);
        assert!(n > 0, "no progress");
        left = &left[n..];
        loop {
            match deframer.poll_frame() {
                Ok(Some(body)) => got.push(Ok(body.to_vec())),
                Ok(None) => break,
                Err(error @ FrameError::Empty) => got.push(Err(error)),
                Err(error) => {
                    got.push(Err(error));
                    break 'stream;
                }
            }
        }
    }
    assert_eq!(got, want);
}

/// The fields that [`user_data`] looks for.
#[must_use]
pub fn user_fields() -> Vec<UserField> {
    let names = vec![("manual".to_owned(), 0.0), ("crab".to_owned(), 1.0), ("circle".to_owned(), 2.0)];
    ["counter", "body.headlights", "body.horn", "mode", "list.0", "list.2.x", "body", "a.b.c.d"]
        .iter()
        .map(|path| UserField { path: path.split('.').map(str::to_owned).collect(), names: names.clone() })
        .collect()
}

/// Extraction is total, and what it finds is what a reading of the whole tree finds.
pub fn user_data(data: &[u8]) {
    let fields = user_fields();
    let paths = UserPaths::new(&fields, UserForm::Auto).expect("the fields are fine");
    let mut out = vec![UserValue::Invalid; fields.len()];
    if paths.extract(data, &mut out).is_err() {
        return;
    }
    let Some(value) = accepted(serde_json::from_slice(data)) else { return };
    let top = value.as_object().and_then(|o| o.get("user_data")).unwrap_or(&value);
    for (field, got) in fields.iter().zip(&out) {
        let found = field.path.iter().try_fold(top, |at, segment| match at {
            Value::Object(members) => members.get(segment),
            Value::Array(elements) => elements.get(segment.parse::<usize>().ok()?),
            _ => None,
        });
        let want = match found {
            None | Some(Value::Null) => UserValue::Missing,
            Some(Value::Bool(value)) => UserValue::Bool(*value),
            Some(Value::Number(n)) => {
                let UserValue::Number(got) = *got else { panic!("{got:?} for {n}") };
                assert!(same(&Value::from(got), &Value::Number(n.clone())));
                continue;
            }
            Some(Value::String(text)) => {
                let named = field.names.iter().find(|(name, _)| name == text);
                named.map_or(UserValue::Invalid, |(_, value)| UserValue::Number(*value))
            }
            Some(_) => UserValue::Invalid,
        };
        assert_eq!(*got, want, "{:?} in {value}", field.path);
    }
}

/// Whatever is reported, the frame is whole, within the limit, and carries the ack text unchanged.
pub fn response(data: &[u8]) {
    let (size, data) =
        data.split_first_chunk::<2>().map_or((u16::MAX, data), |(s, d)| (u16::from_le_bytes(*s), d));
    let mut buffer = vec![0xa5; usize::from(size)];
    let Ok(mut writer) = ResponseWriter::new(&mut buffer, b"12345", b"4294967295") else {
        assert!(usize::from(size) < 4 + 60);
        return;
    };
    for part in data.chunks(9) {
        let bytes = part.first_chunk::<8>().copied().unwrap_or_default();
        let key = Key::new(&String::from_utf8_lossy(part));
        // Errors are the subject: the frame has to be right after any of them.
        let _ = match part[0] % 7 {
            0 => writer.number(&key, f64::from_bits(u64::from_le_bytes(bytes))),
            1 => writer.integer(&key, i64::from_le_bytes(bytes)),
            2 => writer.boolean(&key, bytes[0] > 9),
            3 => writer.text(&key, &String::from_utf8_lossy(data)),
            4 => writer.null(&key),
            5 => writer.begin_object(&key),
            _ => writer.end_object(),
        };
    }
    let response = writer.finish((data.len() % 2 == 0).then_some((57.7, 11.9)));
    let (header, body) = response.frame.split_first_chunk::<4>().expect("a header");
    assert_eq!(usize::try_from(u32::from_le_bytes(*header)).unwrap(), body.len());
    assert!(body.len() <= limits::OCP_BODY);
    assert!(body.starts_with(b"{\"ack_time\":12345,\"ack_time_mac\":4294967295"));
    let read = server::decode_response(body).expect("the server can read it");
    assert_eq!((read.ack_time, read.ack_time_mac), (12_345, u32::MAX));
    assert_eq!(read.user_data.is_some(), response.has_report);
}

/// A valid controller drawn from bytes, for tests that need many.
#[must_use]
pub fn controller_from(seed: u64) -> Controller {
    let mut controller = Controller { buttons: u16::try_from(seed & 0x7fff).unwrap(), ..Controller::NEUTRAL };
    for (at, axis) in controller.axes.iter_mut().enumerate() {
        let step = i32::try_from(seed >> (15 + 8 * at) & 0xff).unwrap();
        *axis = f64::from(step - 128) / 128.0;
    }
    controller
}

/// Random numbers for the seeded tests: small, fast, the same on every machine for the same seed.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Starts from `OCPCAN_SEED` (decimal) if that is set, from a fresh seed otherwise, and prints which.
    #[must_use]
    pub fn from_environment(test: &str) -> Self {
        use std::hash::{BuildHasher, Hasher, RandomState};
        let set = std::env::var("OCPCAN_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = set.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        println!("{test}: OCPCAN_SEED={seed}");
        Self::new(seed)
    }

    /// Starts from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits (the "splitmix" step).
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.bits() % u64::try_from(n).unwrap()).unwrap()
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// A random document, written in one of the many ways JSON allows.
    pub fn document(&mut self, depth: usize) -> String {
        let kind = if depth == 0 { self.below(5) } else { self.below(8) };
        let space = self.pick(&["", "", "", " ", "\n\t", "\r "]);
        match kind {
            0 => self.pick(&["null", "true", "false"]).to_owned(),
            1 => self.pick(&NUMBERS).to_owned(),
            2 => f64::from_bits(self.bits()).to_string().replace("inf", "1").replace("NaN", "0"),
            3 => self.bits().to_string(),
            4 => format!("\"{}\"", self.pick(&TEXTS)),
            5 | 6 => {
                let members: Vec<_> = (0..self.below(5))
                    .map(|_| {
                        format!("{space}\"{}\"{space}:{space}{}", self.pick(&TEXTS), self.document(depth - 1))
                    })
                    .collect();
                format!("{{{}{space}}}", members.join(","))
            }
            _ => {
                let elements: Vec<_> = (0..self.below(5)).map(|_| self.document(depth - 1)).collect();
                format!("[{space}{}{space}]", elements.join(","))
            }
        }
    }

    /// Changes a few bytes: flips, cuts, repeats, and pieces that parsers trip over.
    pub fn mutate(&mut self, data: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(data.len() + 1);
            match self.below(6) {
                0 if at < data.len() => data[at] ^= 1 << self.below(8),
                1 if at < data.len() => {
                    data[at] = self.pick(b"{}[]\",:\\u0e-.+\x00\x1f\x7f\xc3\xed\xff tfn19")
                }
                2 => data.truncate(at),
                3 if at < data.len() => {
                    let end = at + self.below((data.len() - at).min(40) + 1);
                    let piece = data[at..end].to_vec();
                    let to = self.below(data.len() + 1);
                    data.splice(to..to, piece);
                }
                4 if at < data.len() => {
                    let end = at + self.below((data.len() - at).min(40) + 1);
                    data.drain(at..end);
                }
                _ => {
                    let piece = self.pick(&PIECES);
                    data.splice(at..at, piece.bytes());
                }
            }
        }
    }
}

const NUMBERS: [&str; 22] = [
    "0",
    "-0",
    "-1",
    "1",
    "0.5",
    "1e0",
    "1.7e12",
    "1e39",
    "-1.0",
    "1.01",
    "1.0100001",
    "-1.5",
    "1e-400",
    "5e-324",
    "1e308",
    "1.7976931348623157e308",
    "9007199254740993",
    "18446744073709551615",
    "18446744073709551616",
    "0e999",
    "123456.789E-3",
    "1E+2",
];

const TEXTS: [&str; 16] = [
    "",
    "a",
    "counter",
    "user_data",
    "fault",
    "b\\u0061ck",
    "\\ud83d\\ude00",
    "😀",
    "\\n\\\\\\\"\\/",
    "ä",
    "\\u0000",
    "mode",
    "crab",
    "body",
    "list",
    "x",
];

const PIECES: [&str; 26] = [
    "NaN",
    "-Infinity",
    "null",
    "true",
    "\"fault\":true,",
    "\"fault\":true",
    "\\ud800",
    "\\udc00",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    "1e999",
    "1e39",
    "-0.0",
    "\"a\":true,",
    "\"left_x\":1.005,",
    "\"ack_time\":5,",
    "\u{feff}",
    "\\u12",
    "1.7e12",
    "{}",
    ",",
    "\"\":1,",
    "\"counter\":1,",
    "\"body\":{\"horn\":true},",
    "\"user_data\":{",
    "01",
    "\"mode\":\"crab\",",
];
