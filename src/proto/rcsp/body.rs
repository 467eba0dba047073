//! A body as a tree of values, read strictly.
//!
//! Owns what counts as a well-formed body: UTF-8, the grammar of JSON, nesting of at most
//! [`limits::JSON_DEPTH`](crate::limits::JSON_DEPTH), no key twice in any object. Relies on [`crate::proto::json`]. Never
//! recurses deeper than that limit, and never lets one key of two win in silence.

use serde_json::{Map, Number, Value};

use crate::proto::json::{JsonError, Kind, Reader, Scalar, Str};

/// What the top level of a body says, as far as it could be read.
#[derive(Debug, Default)]
pub struct Top {
    /// The members, first ones of their name; text and tree.
    pub members: Map<String, Value>,
    /// The `TrackId` as it was written, if it was there once, as a string or a number.
    pub track_id: Option<String>,
}

/// Why a body has no reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// No byte at all.
    Empty,
    /// No JSON, or nested too deep.
    Json(JsonError),
    /// JSON, but no object.
    NotAnObject,
    /// A key stands twice in one object.
    Duplicate,
}

impl core::fmt::Display for BodyError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Empty => f.write_str("the body is empty"),
            Self::Json(error) => write!(f, "the body is not JSON: {error}"),
            Self::NotAnObject => f.write_str("the body is not an object"),
            Self::Duplicate => f.write_str("a key stands twice in one object"),
        }
    }
}

impl core::error::Error for BodyError {}

/// Reads a body that must be an object. What was read in front of an error stays in `top`: the sender may be told which
/// of its commands is meant.
///
/// # Errors
/// [`BodyError`]: the first of them that applies.
pub fn read(body: &[u8], top: &mut Top) -> Result<(), BodyError> {
    if body.is_empty() {
        return Err(BodyError::Empty);
    }
    let mut reader = Reader::new(body).map_err(BodyError::Json)?;
    if reader.kind().map_err(BodyError::Json)? != Kind::Object {
        reader.skip_value().and_then(|_| reader.finish()).map_err(BodyError::Json)?;
        return Err(BodyError::NotAnObject);
    }
    let mut is_double = false;
    members(&mut reader, top, &mut is_double).and_then(|()| reader.finish()).map_err(BodyError::Json)?;
    if is_double { Err(BodyError::Duplicate) } else { Ok(()) }
}

fn members(reader: &mut Reader<'_>, top: &mut Top, is_double: &mut bool) -> Result<(), JsonError> {
    reader.open_object()?;
    while let Some(key) = reader.next_key()? {
        let key = text(key);
        if key == "TrackId" {
            let (start, kind) = (reader.clone(), reader.kind()?);
            let value = tree(reader, is_double)?;
            let raw = start.clone().skip_value()?;
            let is_first = !top.members.contains_key(&key);
            // Of two nobody knows which one the sender looks for.
            top.track_id =
                (is_first && matches!(kind, Kind::Str | Kind::Number)).then(|| raw.trim().to_owned());
            *is_double |= !is_first;
            top.members.insert(key, value);
            continue;
        }
        let value = tree(reader, is_double)?;
        *is_double |= top.members.insert(key, value).is_some();
    }
    Ok(())
}

fn tree(reader: &mut Reader<'_>, is_double: &mut bool) -> Result<Value, JsonError> {
    Ok(match reader.kind()? {
        Kind::Object => {
            reader.open_object()?;
            let mut members = Map::new();
            while let Some(key) = reader.next_key()? {
                let value = tree(reader, is_double)?;
                *is_double |= members.insert(text(key), value).is_some();
            }
            Value::Object(members)
        }
        Kind::Array => {
            reader.open_array()?;
            let mut elements = Vec::new();
            while reader.next_element()? {
                elements.push(tree(reader, is_double)?);
            }
            Value::Array(elements)
        }
        _ => match reader.scalar()? {
            Scalar::Null | Scalar::Container => Value::Null,
            Scalar::Bool(value) => Value::Bool(value),
            // The grammar was checked; what is left is a number beyond a 64-bit float, in somebody else's rounding.
            Scalar::Number(number) => {
                let number: Number = number.raw().parse().map_err(|_| JsonError::NumberRange)?;
                Value::Number(number)
            }
            Scalar::Str(value) => Value::String(text(value)),
        },
    })
}

/// The text with its escapes resolved.
fn text(text: Str<'_>) -> String {
    text.chars().collect()
}
