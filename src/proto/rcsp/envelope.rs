//! The JSON around commands, answers and events.
//!
//! Owns the names in the envelopes, the order in which a command is checked, and the error codes. Relies on `header` for the
//! frame around a body and on `body` for reading one. Never knows what a command means: the caller says which names there
//! are.
//!
//! Documented in public: `Command`, `TrackId`, `Version`, `Arguments`, `Response`, and `Error` with `Code` and `Message`.
//! Ours, because nothing public says them: every error code, and all keys of an event. They are in this file alone, so that
//! they are changed here alone.

use serde_json::{Map, Value};

use super::body::{self, Top};
use super::header::{PayloadType, encode};

/// Longest `TrackId` in bytes of its text. Ours: it is held and echoed, so it has a bound.
pub const TRACK_ID: usize = 128;

/// Longest `Command` in bytes. Ours; the longest public name has 15.
pub const COMMAND: usize = 64;

/// The `Version` of a command, the only one that is known.
pub const VERSION: u32 = 1;

/// Longest `Message` of an error in bytes: it may quote what the other side sent, and is for a person to read.
const MESSAGE: usize = 300;

/// Why a command was refused. All numbers are ours; the vendor's are not public.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ErrorCode {
    /// The message or its JSON is malformed, or a key of the envelope is missing.
    Malformed = 1,
    /// No command of that name.
    UnknownCommand = 2,
    /// `Version` is absent or not 1.
    Version = 3,
    /// An argument is missing.
    MissingArgument = 4,
    /// An argument has the wrong type or a value that it cannot have.
    InvalidArgument = 5,
    /// No such topic, or it is not subscribed.
    UnknownTopic = 6,
    /// No device of that id.
    DeviceNotFound = 7,
    /// The device is busy or not ready.
    NotReady = 8,
    /// The command took too long.
    Timeout = 9,
    /// Not allowed: from this peer, in this state or by the configuration.
    NotPermitted = 10,
    /// A limit of the server is exceeded.
    Limit = 11,
    /// A fault of the server.
    Internal = 12,
}

/// The `TrackId` of a command: a string or a number, in the JSON text in which it came. Its answer carries the same text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackId(String);

impl TrackId {
    /// For an answer to what had none.
    #[must_use]
    pub fn empty() -> Self {
        Self("\"\"".to_owned())
    }

    /// The JSON text.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.0
    }
}

/// A command that can be carried out or refused by what it means.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// Its name, at most [`COMMAND`] bytes.
    pub command: String,
    /// What its answer carries.
    pub track_id: TrackId,
    /// The arguments; absent and `null` are none.
    pub arguments: Map<String, Value>,
}

/// An answer that says no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The command's, where it could be read; else the empty one.
    pub track_id: TrackId,
    /// Why, for programs.
    pub code: ErrorCode,
    /// Why, for people.
    pub message: String,
}

/// Reads the body of a command. The first check that fails decides: JSON object without a key twice, `Command`, `TrackId`,
/// `Version`, a name that `is_known`, `Arguments`. Keys that are not known are ignored.
///
/// # Errors
/// [`Refusal`]: the answer to be given instead.
pub fn decode_command(body: &[u8], is_known: impl Fn(&str) -> bool) -> Result<Command, Refusal> {
    let mut top = Top::default();
    let read = body::read(body, &mut top);
    let (track_id, track_error) = track_id(&top);
    let refuse = |code, message: String| Refusal { track_id: track_id.clone(), code, message };
    if let Err(error) = read {
        return Err(refuse(ErrorCode::Malformed, error.to_string()));
    }
    let command = match top.members.remove("Command") {
        Some(Value::String(command)) if command.len() > COMMAND => {
            return Err(refuse(ErrorCode::Limit, format!("Command is longer than {COMMAND} bytes")));
        }
        Some(Value::String(command)) => command,
        Some(Value::Null) | None => {
            return Err(refuse(ErrorCode::Malformed, "Command is missing".to_owned()));
        }
        Some(_) => return Err(refuse(ErrorCode::Malformed, "Command is not a string".to_owned())),
    };
    if let Some((code, message)) = track_error {
        return Err(refuse(code, message));
    }
    match top.members.get("Version") {
        Some(Value::Number(number)) if number.as_f64() == Some(f64::from(VERSION)) => {}
        Some(Value::Null) | None => {
            return Err(refuse(ErrorCode::Version, "Version is missing; only 1 is known".to_owned()));
        }
        Some(_) => return Err(refuse(ErrorCode::Version, "Version is not known, only 1".to_owned())),
    }
    if !is_known(&command) {
        return Err(refuse(ErrorCode::UnknownCommand, "unknown command".to_owned()));
    }
    let arguments = match top.members.remove("Arguments") {
        Some(Value::Object(arguments)) => arguments,
        Some(Value::Null) | None => Map::new(),
        Some(_) => {
            return Err(refuse(ErrorCode::InvalidArgument, "Arguments is not an object".to_owned()));
        }
    };
    Ok(Command { command, track_id, arguments })
}

/// The `TrackId` to answer with, and what is wrong with it.
fn track_id(top: &Top) -> (TrackId, Option<(ErrorCode, String)>) {
    let bytes = match (top.members.get("TrackId"), &top.track_id) {
        (Some(Value::String(text)), Some(_)) => text.len(),
        (Some(_), Some(json)) => json.len(),
        (Some(Value::Null) | None, _) => {
            return (TrackId::empty(), Some((ErrorCode::Malformed, "TrackId is missing".to_owned())));
        }
        (Some(_), None) => {
            let message = "TrackId is neither a string nor a number".to_owned();
            return (TrackId::empty(), Some((ErrorCode::Malformed, message)));
        }
    };
    match &top.track_id {
        Some(json) if bytes <= TRACK_ID => (TrackId(json.clone()), None),
        _ => (TrackId::empty(), Some((ErrorCode::Limit, format!("TrackId is longer than {TRACK_ID} bytes")))),
    }
}

/// The message that says that a command was carried out. Without data the key `Response` is left out: `null` there ends the
/// vendor's example.
#[must_use]
pub fn ok(track_id: &TrackId, response: Option<Map<String, Value>>) -> Vec<u8> {
    let id = track_id.json();
    let body = match response {
        Some(response) => format!("{{\"TrackId\":{id},\"Response\":{}}}", Value::Object(response)),
        None => format!("{{\"TrackId\":{id}}}"),
    };
    encode(PayloadType::ResponseOk, body.as_bytes())
}

/// The message that says that a command was refused. A text beyond 300 bytes is cut.
#[must_use]
pub fn error(track_id: &TrackId, code: ErrorCode, message: &str) -> Vec<u8> {
    let mut end = message.len().min(MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    let message = Value::from(message.get(..end).unwrap_or_default());
    let (id, code) = (track_id.json(), code as u8);
    let body = format!("{{\"TrackId\":{id},\"Error\":{{\"Code\":{code},\"Message\":{message}}}}}");
    encode(PayloadType::ResponseError, body.as_bytes())
}

/// The message that says that something has happened. Provisional: all four keys are ours.
#[must_use]
pub fn event(publisher: &str, topic: &str, device: Option<&str>, data: &Value) -> Vec<u8> {
    let (publisher, topic) = (Value::from(publisher), Value::from(topic));
    let body = match device {
        Some(device) => {
            let device = Value::from(device);
            format!("{{\"Publisher\":{publisher},\"Topic\":{topic},\"DeviceId\":{device},\"Data\":{data}}}")
        }
        None => format!("{{\"Publisher\":{publisher},\"Topic\":{topic},\"Data\":{data}}}"),
    };
    encode(PayloadType::Event, body.as_bytes())
}

/// The message of a command, as a client sends it.
#[must_use]
pub fn command(command: &str, track_id: &str, arguments: Option<Map<String, Value>>) -> Vec<u8> {
    let arguments = arguments.map(|arguments| Value::Object(arguments).to_string());
    command_text(command, track_id, arguments.as_deref())
}

/// The same with arguments that are JSON already: what a server gave comes back to it digit by digit.
#[must_use]
pub fn command_text(command: &str, track_id: &str, arguments: Option<&str>) -> Vec<u8> {
    let (command, track_id) = (Value::from(command), Value::from(track_id));
    let mut body = format!("{{\"Command\":{command},\"TrackId\":{track_id},\"Version\":{VERSION}");
    if let Some(arguments) = arguments {
        body.push_str(",\"Arguments\":");
        body.push_str(arguments);
    }
    body.push('}');
    encode(PayloadType::Command, body.as_bytes())
}

#[cfg(test)]
mod tests;
