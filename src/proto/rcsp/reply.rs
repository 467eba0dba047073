//! What a server says, as a client reads it.
//!
//! Owns the tolerance towards other servers: what is optional may be absent or `null`, and what is not public is kept as the
//! JSON that came. Relies on `serde_json`, whose nesting ends at 128. Never panics on what a server sends, and never takes a
//! refusal for a success.

use serde_json::{Map, Value};

use super::header::PayloadType;

/// The answer to a command.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The `TrackId` as it came; `null` where there is none.
    pub track_id: Value,
    /// What the command brought, or why it was refused. Carried out without data is `Ok(None)`.
    pub result: Result<Option<Map<String, Value>>, RemoteError>,
}

/// Why the server refused.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RemoteError {
    /// The code, a number or a string; nothing public says which.
    pub code: Option<Value>,
    /// The text for people; empty where the server gave none.
    pub message: String,
}

impl core::fmt::Display for RemoteError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let message = if self.message.is_empty() { "refused without a reason" } else { &self.message };
        match &self.code {
            Some(Value::String(code)) => write!(f, "{message} (code {code})"),
            Some(code) => write!(f, "{message} (code {code})"),
            None => f.write_str(message),
        }
    }
}

impl core::error::Error for RemoteError {}

/// Why a body from the server has no reading: the connection is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyError {
    /// Neither an answer nor an event: a server sends nothing else.
    Kind,
    /// No JSON.
    NotJson,
    /// An answer that is not an object.
    NotAnObject,
    /// `Response` is there and is not an object.
    Response,
}

impl core::fmt::Display for ReplyError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Kind => "the server sent a message that is neither an answer nor an event",
            Self::NotJson => "the server sent a body that is not JSON",
            Self::NotAnObject => "the server sent an answer that is not an object",
            Self::Response => "the server sent a Response that is not an object",
        })
    }
}

impl core::error::Error for ReplyError {}

/// Reads an answer: a body of the kinds 2 and 3.
///
/// # Errors
/// [`ReplyError`]: what came is no answer.
pub fn decode_reply(kind: u8, body: &[u8]) -> Result<Reply, ReplyError> {
    let is_ok = match PayloadType::from_byte(kind) {
        Some(PayloadType::ResponseOk) => true,
        Some(PayloadType::ResponseError) => false,
        _ => return Err(ReplyError::Kind),
    };
    let Value::Object(mut members) = serde_json::from_slice(body).map_err(|_| ReplyError::NotJson)? else {
        return Err(ReplyError::NotAnObject);
    };
    let track_id = members.remove("TrackId").unwrap_or_default();
    let result = if is_ok {
        match members.remove("Response") {
            Some(Value::Object(response)) => Ok(Some(response)),
            Some(Value::Null) | None => Ok(None),
            Some(_) => return Err(ReplyError::Response),
        }
    } else {
        Err(remote_error(members.remove("Error")))
    };
    Ok(Reply { track_id, result })
}

fn remote_error(error: Option<Value>) -> RemoteError {
    let as_text = |value: Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text,
        other => other.to_string(),
    };
    match error {
        Some(Value::Object(mut error)) => RemoteError {
            code: error.remove("Code").filter(|code| !code.is_null()),
            message: error.remove("Message").map(as_text).unwrap_or_default(),
        },
        Some(other) => RemoteError { code: None, message: as_text(other) },
        None => RemoteError::default(),
    }
}

/// The body of an event, whatever its server puts there.
#[derive(Debug, Clone, PartialEq)]
pub struct EventBody {
    /// The body as it came.
    pub raw: Value,
}

impl EventBody {
    /// `Publisher`, if it is there as a string. Provisional: the key is ours, as are the next three.
    #[must_use]
    pub fn publisher(&self) -> Option<&str> {
        self.raw.get("Publisher")?.as_str()
    }

    /// `Topic`, if it is there as a string.
    #[must_use]
    pub fn topic(&self) -> Option<&str> {
        self.raw.get("Topic")?.as_str()
    }

    /// `DeviceId` as it came; its type is the server's.
    #[must_use]
    pub fn device(&self) -> Option<&Value> {
        self.raw.get("DeviceId").filter(|device| !device.is_null())
    }

    /// `Data` as it came.
    #[must_use]
    pub fn data(&self) -> Option<&Value> {
        self.raw.get("Data").filter(|data| !data.is_null())
    }
}

/// Reads an event: a body of the kind 4. Any JSON is one.
///
/// # Errors
/// [`ReplyError::NotJson`].
pub fn decode_event(body: &[u8]) -> Result<EventBody, ReplyError> {
    serde_json::from_slice(body).map(|raw| EventBody { raw }).map_err(|_| ReplyError::NotJson)
}

#[cfg(test)]
mod tests;
