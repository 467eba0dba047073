//! The vehicle description: a DBC file as messages and signals.
//!
//! Owns what the gateway needs of a DBC file, checked: whatever is in [`Message::signals`] with a codec can be encoded
//! and decoded. Relies on `can-dbc` for the grammar, `bits` for the layout. Never repairs a file: what is wrong in it
//! stays visible as a [`SignalProblem`] or in [`Database::refused`], and costs only that signal or message.

mod doubled;

use core::fmt;
use std::collections::HashMap;
use std::io::Read;
use std::panic::catch_unwind;
use std::path::Path;

use can_dbc::{AttributeDefinition, AttributeValue, AttributeValueType, Dbc, MessageId, MultiplexIndicator};

pub use doubled::Doubled;

use super::bits::{ByteOrder, Codec, Raw};
use super::cp1252;
use crate::can::frame::is_valid_length;
use crate::can::{Frame, FrameKind, Id};
use crate::limits::DBC_BYTES;
use crate::time::Duration;

/// Nested multiplexors that are followed. Real files have two; the bound ends a circle in a broken one.
const MUX_DEPTH: usize = 8;

/// The place where editors keep signals that belong to no message.
const ORPHANS: &str = "VECTOR__INDEPENDENT_SIG_MSG";

/// Why a file is no vehicle description. Consequence everywhere: nothing of it is used.
#[derive(Debug)]
pub enum DbcError {
    /// The file cannot be read.
    Unreadable(std::io::Error),
    /// Longer than [`DBC_BYTES`].
    TooLarge,
    /// Not the DBC grammar; the parser's words, with line and column.
    Syntax(String),
    /// The parser itself failed on this file.
    Parser,
}

impl fmt::Display for DbcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Self::TooLarge => write!(f, "larger than {DBC_BYTES} bytes"),
            Self::Syntax(text) => write!(f, "not a DBC file: {text}"),
            Self::Parser => f.write_str("the DBC parser failed on this file"),
        }
    }
}

impl core::error::Error for DbcError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Unreadable(error) => Some(error),
            _ => None,
        }
    }
}

/// Why a signal of the file cannot be used. Consequence: a mapping that names it is refused; others are not touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalProblem {
    /// Its bits lie outside the message, or there are none, or more than 64.
    OutsideMessage,
    /// A float that is not 32 or 64 bits long.
    FloatLength,
    /// The factor is 0, or factor or offset is not a finite number.
    Scaling,
    /// It is multiplexed, and by nothing: its multiplexor does not exist or is itself unusable.
    Multiplexor,
    /// Another signal of the message has the same name.
    Ambiguous,
}

impl fmt::Display for SignalProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutsideMessage => "its bits do not lie within the message",
            Self::FloatLength => "a float must have 32 or 64 bits",
            Self::Scaling => "factor and offset must be finite and the factor not 0",
            Self::Multiplexor => "its multiplexor does not exist",
            Self::Ambiguous => "the message has two signals of this name",
        })
    }
}

/// Why a message of the file is not in [`Database::messages`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its name.
    pub name: String,
    /// What is wrong with it.
    pub reason: MessageProblem,
}

/// What can be wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageProblem {
    /// The identifier does not fit its 11 or 29 bits.
    Identifier,
    /// No CAN or CAN FD frame has this length.
    Length,
    /// A message of this name came before.
    Ambiguous,
}

impl fmt::Display for MessageProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identifier => "its identifier fits neither 11 nor 29 bits",
            Self::Length => "no CAN frame has its length",
            Self::Ambiguous => "the file has two messages of this name",
        })
    }
}

/// The messages of a DBC file.
#[derive(Debug, Clone, Default)]
pub struct Database {
    /// In the order of the file.
    pub messages: Vec<Message>,
    /// Messages that cannot exist on a bus.
    pub refused: Vec<Refused>,
    /// The first message of each identifier.
    by_id: HashMap<Id, usize>,
    doubled: Vec<((String, Id), Doubled)>,
}

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// As in the file, or its long name where the file has one.
    pub name: String,
    /// Identifier on the bus.
    pub id: Id,
    /// Bytes, 0 to 64.
    pub len: u8,
    /// Whether it is a CAN FD frame: the file's `VFrameFormat`, or more than 8 bytes.
    pub fd: bool,
    /// The file's `GenMsgCycleTime`; `None` where it is absent or 0.
    pub cycle: Option<Duration>,
    /// In the order of the file.
    pub signals: Vec<Signal>,
}

/// One signal.
#[derive(Debug, Clone, PartialEq)]
pub struct Signal {
    /// As in the file, or its long name where the file has one.
    pub name: String,
    /// Place and scale, if they are possible.
    pub codec: Result<Codec, SignalProblem>,
    /// Smallest and largest physical value as the file says them, which may be the wrong way round; `None` where it
    /// gives no real range (`[0|0]`).
    pub limits: Option<(f64, f64)>,
    /// May be empty.
    pub unit: String,
    /// The raw values that have a name.
    pub names: Vec<(i64, String)>,
    /// What must be selected for the message to hold this signal, outermost first; empty for a plain signal.
    pub mux: Vec<Selector>,
    /// Whether it selects others.
    pub is_multiplexor: bool,
}

/// One condition of a multiplexed signal.
#[derive(Debug, Clone, PartialEq)]
pub struct Selector {
    /// Name of the multiplexor.
    pub switch: String,
    /// Its place.
    pub codec: Codec,
    /// The raw values of it that select the signal, both ends included.
    pub ranges: Vec<(u64, u64)>,
}

/// A frame, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded<'a> {
    /// The message it is.
    pub message: &'a Message,
    /// The signals it holds, in the order of the file.
    pub values: Vec<DecodedSignal<'a>>,
}

/// One signal of a frame, read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DecodedSignal<'a> {
    /// The signal.
    pub signal: &'a Signal,
    /// Its physical value; not a number or infinite where a float signal says so.
    pub value: f64,
    /// The name of the raw value, if it has one.
    pub name: Option<&'a str>,
}

impl Database {
    /// Reads a file: UTF-8 first, then Windows-1252 as older editors write it.
    ///
    /// # Errors
    /// [`DbcError`] says why the file is not used.
    pub fn load(path: &Path) -> Result<Self, DbcError> {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(DbcError::Unreadable)?;
        let limit = u64::try_from(DBC_BYTES).unwrap_or(u64::MAX); // 64 bits hold every usize of our targets
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(DbcError::Unreadable)?;
        if bytes.len() > DBC_BYTES {
            return Err(DbcError::TooLarge);
        }
        match core::str::from_utf8(&bytes) {
            Ok(text) => Self::parse(text),
            Err(_) => Self::parse(&cp1252::decode(&bytes)),
        }
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// [`DbcError`] says why the text is not used.
    pub fn parse(text: &str) -> Result<Self, DbcError> {
        let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
        let file = catch_unwind(|| Dbc::try_from(text))
            .map_err(|_| DbcError::Parser)?
            .map_err(|error| DbcError::Syntax(one_line(&error.to_string())))?;
        Ok(Self::from_file(&File::new(&file, text), text))
    }

    /// The message with this name.
    #[must_use]
    pub fn message(&self, name: &str) -> Option<&Message> {
        self.messages.iter().find(|m| m.name == name)
    }

    /// The first message of the file with this identifier.
    #[must_use]
    pub fn message_by_id(&self, id: Id) -> Option<&Message> {
        self.by_id.get(&id).and_then(|index| self.messages.get(*index))
    }

    /// Why a message of this name is not there, if the file has one that cannot exist.
    #[must_use]
    pub fn refusal(&self, name: &str) -> Option<MessageProblem> {
        self.refused.iter().find(|r| r.name == name).map(|r| r.reason)
    }

    /// Reads a data frame; `None` for a frame that the file does not know. A frame that is too short gives the signals
    /// it holds.
    #[must_use]
    pub fn decode(&self, frame: &Frame) -> Option<Decoded<'_>> {
        if matches!(frame.kind(), FrameKind::Error | FrameKind::Remote) {
            return None;
        }
        let message = self.message_by_id(frame.id())?;
        let data = frame.payload();
        let values = message.signals.iter().filter_map(|signal| signal.decode(data)).collect();
        Some(Decoded { message, values })
    }

    fn from_file(file: &File<'_>, text: &str) -> Self {
        let mut db = Self::default();
        let mut headers = Vec::new();
        for message in &file.dbc.messages {
            if message.name == ORPHANS {
                continue;
            }
            headers.extend(file.header(message));
            match file.message(message) {
                Ok(message) if db.message(&message.name).is_some() => {
                    db.refused.push(Refused { name: message.name, reason: MessageProblem::Ambiguous });
                }
                Ok(message) => {
                    db.by_id.entry(message.id).or_insert(db.messages.len());
                    db.messages.push(message);
                }
                Err(reason) => {
                    db.refused.push(Refused { name: file.message_name(message).to_owned(), reason });
                }
            }
        }
        db.doubled = doubled::find(&headers, &db.messages, text);
        db
    }
}

impl Message {
    /// The signal with this name.
    #[must_use]
    pub fn signal(&self, name: &str) -> Option<&Signal> {
        self.signals.iter().find(|s| s.name == name)
    }
}

impl Signal {
    /// Whether this payload holds the signal: every multiplexor above it selects it.
    #[must_use]
    pub fn is_present(&self, data: &[u8]) -> bool {
        self.mux.iter().all(|selector| {
            selector.codec.decode_raw(data).is_some_and(|raw| {
                selector.ranges.iter().any(|(first, last)| (*first..=*last).contains(&raw))
            })
        })
    }

    /// Reads the signal; `None` where this payload does not hold it.
    #[must_use]
    pub fn decode(&self, data: &[u8]) -> Option<DecodedSignal<'_>> {
        let codec = self.codec.ok()?;
        if !self.is_present(data) {
            return None;
        }
        let value = codec.decode(data)?;
        let name = codec.decode_integer(data).and_then(|raw| self.name_of(raw));
        Some(DecodedSignal { signal: self, value, name })
    }

    /// The name of a raw value.
    #[must_use]
    pub fn name_of(&self, raw: i64) -> Option<&str> {
        self.names.iter().find(|(value, _)| *value == raw).map(|(_, name)| name.as_str())
    }

    /// The physical value behind a value name; names are compared without regard to upper and lower case only where
    /// no exact one exists.
    #[must_use]
    pub fn value_named(&self, name: &str) -> Option<f64> {
        let codec = self.codec.ok()?;
        let exact = self.names.iter().find(|(_, n)| n == name);
        let (raw, _) = exact.or_else(|| self.names.iter().find(|(_, n)| n.eq_ignore_ascii_case(name)))?;
        // Value names are small integers; above 53 bits the nearest f64 encodes to the nearest raw value.
        Some(*raw as f64 * codec.factor + codec.offset)
    }

    /// The one multiplexor and its one value that select this signal, in the form of
    /// [`ReceiveSignal::mux`](super::plan::ReceiveSignal::mux): `Some(None)` for a plain signal, `None` where the
    /// condition is nested or has several values.
    #[must_use]
    pub fn simple_mux(&self) -> Option<Option<(Codec, u64)>> {
        match self.mux.as_slice() {
            [] => Some(None),
            [Selector { codec, ranges, .. }] => match ranges.as_slice() {
                [(first, last)] if first == last => Some(Some((*codec, *first))),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The parsed file with what has to be looked up in it.
struct File<'a> {
    dbc: &'a Dbc,
    /// Identifiers as written: the parser cuts a standard one to 16 bits without a word, so 0x10101 would drive
    /// 0x101.
    written: HashMap<&'a str, Vec<u64>>,
    floats: HashMap<(MessageId, &'a str), u64>,
    names: HashMap<(MessageId, &'a str), &'a [can_dbc::ValDescription]>,
    mux: HashMap<(MessageId, &'a str), &'a can_dbc::ExtendedMultiplex>,
    long_messages: HashMap<MessageId, &'a str>,
    long_signals: HashMap<(MessageId, &'a str), &'a str>,
    /// The words of the `VFrameFormat` attribute, by number.
    formats: &'a [String],
}

impl<'a> File<'a> {
    fn new(dbc: &'a Dbc, text: &'a str) -> Self {
        let mut written: HashMap<&str, Vec<u64>> = HashMap::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if words.next() == Some("BO_")
                && let (Some(id), Some(name)) = (words.next(), words.next())
                && let Ok(id) = id.parse()
            {
                written.entry(name.split(':').next().unwrap_or(name)).or_default().push(id);
            }
        }
        let floats = dbc.signal_extended_value_type_list.iter().filter_map(|entry| {
            let bits = match entry.signal_extended_value_type {
                can_dbc::SignalExtendedValueType::IEEEfloat32Bit => 32,
                can_dbc::SignalExtendedValueType::IEEEdouble64bit => 64,
                can_dbc::SignalExtendedValueType::SignedOrUnsignedInteger => return None,
            };
            Some(((entry.message_id, entry.signal_name.as_str()), bits))
        });
        let names = dbc.value_descriptions.iter().filter_map(|entry| match entry {
            can_dbc::ValueDescription::Signal { message_id, name, value_descriptions } => {
                Some(((*message_id, name.as_str()), value_descriptions.as_slice()))
            }
            can_dbc::ValueDescription::EnvironmentVariable { .. } => None,
        });
        let long_messages = dbc.attribute_values_message.iter().filter_map(|a| match &a.value {
            AttributeValue::String(name) if a.name == "SystemMessageLongSymbol" => {
                Some((a.message_id, name.as_str()))
            }
            _ => None,
        });
        let long_signals = dbc.attribute_values_signal.iter().filter_map(|a| match &a.value {
            AttributeValue::String(name) if a.name == "SystemSignalLongSymbol" => {
                Some(((a.message_id, a.signal_name.as_str()), name.as_str()))
            }
            _ => None,
        });
        let formats = dbc.attribute_definitions.iter().find_map(|definition| match definition {
            AttributeDefinition::Message(name, AttributeValueType::Enum(words)) if name == "VFrameFormat" => {
                Some(words.as_slice())
            }
            _ => None,
        });
        Self {
            dbc,
            written,
            floats: floats.collect(),
            names: names.collect(),
            mux: dbc.extended_multiplex.iter().map(|m| ((m.message_id, m.signal_name.as_str()), m)).collect(),
            long_messages: long_messages.collect(),
            long_signals: long_signals.collect(),
            formats: formats.unwrap_or_default(),
        }
    }

    fn message_name(&self, message: &'a can_dbc::Message) -> &'a str {
        self.long_messages.get(&message.id).copied().unwrap_or(&message.name)
    }

    fn message(&self, message: &'a can_dbc::Message) -> Result<Message, MessageProblem> {
        let id = self.id(message).ok_or(MessageProblem::Identifier)?;
        let fd = message.size > 8 || self.is_fd(message.id);
        let len = usize::try_from(message.size).unwrap_or(usize::MAX);
        if !is_valid_length(len, fd) {
            return Err(MessageProblem::Length);
        }
        let cycle = match self.dbc.resolved_message_attribute(message.id, "GenMsgCycleTime") {
            Some(AttributeValue::Uint(ms)) if *ms > 0 => Some(Duration::from_millis(*ms)),
            Some(AttributeValue::Double(ms)) if *ms >= 1.0 && *ms < 1e9 => {
                Some(Duration::from_secs_f64(ms / 1e3))
            }
            _ => None,
        };
        let codecs: HashMap<&str, Result<Codec, SignalProblem>> =
            message.signals.iter().map(|s| (s.name.as_str(), self.codec(message, s, len))).collect();
        let signals = message.signals.iter().map(|s| self.signal(message, s, &codecs)).collect();
        let name = self.message_name(message).to_owned();
        Ok(Message { name, id, len: u8::try_from(len).unwrap_or(64), fd, cycle, signals }) // at most 64
    }

    /// The identifier, where the number in the file says the same as the parser.
    fn id(&self, message: &can_dbc::Message) -> Option<Id> {
        let id = match message.id {
            MessageId::Standard(raw) => Id::standard(u32::from(raw))?,
            MessageId::Extended(raw) => Id::extended(raw)?,
        };
        // The file marks an extended identifier by bit 31, as the kernel's identifier word does.
        let written = self.written.get(message.name.as_str())?;
        written.iter().any(|w| *w == u64::from(id.word())).then_some(id)
    }

    fn is_fd(&self, id: MessageId) -> bool {
        let word = match self.dbc.resolved_message_attribute(id, "VFrameFormat") {
            Some(AttributeValue::Uint(n)) => {
                usize::try_from(*n).ok().and_then(|n| self.formats.get(n)).map(String::as_str)
            }
            Some(AttributeValue::String(word)) => Some(word.as_str()),
            _ => None,
        };
        word.is_some_and(|w| w.ends_with("_FD"))
    }

    fn codec(
        &self,
        message: &can_dbc::Message,
        signal: &'a can_dbc::Signal,
        len: usize,
    ) -> Result<Codec, SignalProblem> {
        let float = self.floats.get(&(message.id, signal.name.as_str()));
        if float.is_some_and(|bits| *bits != signal.size) {
            return Err(SignalProblem::FloatLength);
        }
        let codec = Codec {
            start: u16::try_from(signal.start_bit).map_err(|_| SignalProblem::OutsideMessage)?,
            bits: u8::try_from(signal.size).map_err(|_| SignalProblem::OutsideMessage)?,
            order: match signal.byte_order {
                can_dbc::ByteOrder::LittleEndian => ByteOrder::Little,
                can_dbc::ByteOrder::BigEndian => ByteOrder::Big,
            },
            raw: match (float, signal.value_type) {
                (Some(_), _) => Raw::Float,
                (None, can_dbc::ValueType::Signed) => Raw::Signed,
                (None, can_dbc::ValueType::Unsigned) => Raw::Unsigned,
            },
            factor: signal.factor,
            offset: signal.offset,
        };
        if !codec.factor.is_finite() || codec.factor == 0.0 || !codec.offset.is_finite() {
            return Err(SignalProblem::Scaling);
        }
        if !codec.fits(len) {
            return Err(SignalProblem::OutsideMessage);
        }
        if message.signals.iter().filter(|s| s.name == signal.name).count() > 1 {
            return Err(SignalProblem::Ambiguous);
        }
        Ok(codec)
    }

    fn signal(
        &self,
        message: &'a can_dbc::Message,
        signal: &'a can_dbc::Signal,
        codecs: &HashMap<&str, Result<Codec, SignalProblem>>,
    ) -> Signal {
        let key = (message.id, signal.name.as_str());
        let own = codecs.get(signal.name.as_str()).copied().unwrap_or(Err(SignalProblem::Ambiguous));
        let mux = self.selectors(message, signal, codecs);
        let codec =
            own.and_then(|codec| if mux.is_some() { Ok(codec) } else { Err(SignalProblem::Multiplexor) });
        let (min, max) = (number(signal.min), number(signal.max));
        Signal {
            name: self.long_signals.get(&key).copied().unwrap_or(&signal.name).to_owned(),
            codec,
            limits: (min != max).then_some((min, max)),
            unit: signal.unit.clone(),
            names: self
                .names
                .get(&key)
                .map(|names| names.iter().map(|n| (n.id, n.description.clone())).collect())
                .unwrap_or_default(),
            mux: mux.unwrap_or_default(),
            is_multiplexor: is_multiplexor(signal),
        }
    }

    /// The conditions of a signal, outermost first; `None` where one of them cannot be met by any frame.
    fn selectors(
        &self,
        message: &'a can_dbc::Message,
        signal: &'a can_dbc::Signal,
        codecs: &HashMap<&str, Result<Codec, SignalProblem>>,
    ) -> Option<Vec<Selector>> {
        let mut chain = Vec::new();
        let mut at = signal;
        while let Some((parent, ranges)) = self.parent(message, at)? {
            let codec = codecs.get(parent.name.as_str()).copied()?.ok()?;
            if chain.len() == MUX_DEPTH || codec.raw == Raw::Float {
                return None;
            }
            chain.push(Selector { switch: parent.name.clone(), codec, ranges });
            at = parent;
        }
        chain.reverse();
        Some(chain)
    }

    /// The multiplexor directly above a signal and its selecting values: `Some(None)` for a plain signal, `None`
    /// where it is multiplexed by nothing.
    #[expect(clippy::type_complexity, reason = "two questions, one answer, one caller")]
    fn parent(
        &self,
        message: &'a can_dbc::Message,
        signal: &can_dbc::Signal,
    ) -> Option<Option<(&'a can_dbc::Signal, Vec<(u64, u64)>)>> {
        let value = match signal.multiplexer_indicator {
            MultiplexIndicator::Plain | MultiplexIndicator::Multiplexor => return Some(None),
            MultiplexIndicator::MultiplexedSignal(value)
            | MultiplexIndicator::MultiplexorAndMultiplexedSignal(value) => value,
        };
        if let Some(extended) = self.mux.get(&(message.id, signal.name.as_str())) {
            let named =
                |s: &&can_dbc::Signal| s.name == extended.multiplexor_signal_name && is_multiplexor(s);
            let parent = message.signals.iter().find(named)?;
            let ranges = extended.mappings.iter().map(|m| (m.min_value, m.max_value)).collect();
            return Some(Some((parent, ranges)));
        }
        let mut roots =
            message.signals.iter().filter(|s| s.multiplexer_indicator == MultiplexIndicator::Multiplexor);
        match (roots.next(), roots.next()) {
            (Some(parent), None) => Some(Some((parent, vec![(value, value)]))),
            _ => None,
        }
    }
}

/// The parser's picture of an error (an arrow with line and column, the line, and what was expected) in one line.
fn one_line(picture: &str) -> String {
    let place = picture.lines().find_map(|l| l.trim_start().strip_prefix("--> "));
    let wanted = picture.lines().find_map(|l| l.trim_start().strip_prefix("= "));
    match (place.and_then(|p| p.trim().split_once(':')), wanted) {
        (Some((line, column)), Some("expected file")) => format!("line {line}, column {column}"),
        (Some((line, column)), Some(wanted)) => format!("line {line}, column {column}: {wanted}"),
        _ => picture.lines().map(str::trim).collect::<Vec<_>>().join(" "),
    }
}

fn is_multiplexor(signal: &can_dbc::Signal) -> bool {
    matches!(
        signal.multiplexer_indicator,
        MultiplexIndicator::Multiplexor | MultiplexIndicator::MultiplexorAndMultiplexedSignal(_)
    )
}

fn number(value: can_dbc::NumericValue) -> f64 {
    match value {
        // Limits of 64-bit signals: the nearest f64 is near enough.
        can_dbc::NumericValue::Uint(n) => n as f64,
        can_dbc::NumericValue::Int(n) => n as f64,
        can_dbc::NumericValue::Double(n) => n,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Database {
        Database::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/example.dbc"))).unwrap()
    }

    fn parse(body: &str) -> Database {
        Database::parse(&format!("VERSION \"\"\n\nNS_ :\n\nBS_:\n\nBU_: A\n\n{body}\n")).unwrap()
    }

    #[test]
    fn the_example_is_what_the_issue_asks_for() {
        let db = example();
        assert_eq!(db.refused, []);
        let drive = db.message("DRIVE_CMD").unwrap();
        assert_eq!((drive.id, drive.len, drive.fd), (Id::standard(0x101).unwrap(), 8, false));
        assert_eq!(drive.cycle, Some(Duration::from_millis(20)));
        let steer = drive.signal("STEER_ANGLE_CMD").unwrap();
        assert_eq!((steer.limits, steer.unit.as_str()), (Some((-450.0, 450.0)), "deg"));
        for name in ["THROTTLE_CMD", "BRAKE_CMD"] {
            let signal = drive.signal(name).unwrap();
            assert_eq!((signal.limits, signal.unit.as_str()), (Some((0.0, 100.0)), "%"));
        }
        assert_eq!(drive.signal("DRIVE_ENABLE").unwrap().codec.unwrap().bits, 1);
        assert_eq!(drive.signal("DRIVE_CMD_COUNTER").unwrap().codec.unwrap().bits, 4);
        assert_eq!(drive.signal("DRIVE_CMD_CRC").unwrap().codec.unwrap().aligned_byte(), Some(7));
        let body = db.message("BODY_CMD").unwrap();
        assert_eq!(body.id, Id::standard(0x102).unwrap());
        assert!(body.signal("HEADLIGHTS").is_some() && body.signal("HORN").is_some());
        let mode = body.signal("STEERING_MODE").unwrap();
        assert_eq!(
            ["manual", "crab", "Circle", "x"].map(|n| mode.value_named(n)),
            [Some(0.0), Some(1.0), Some(2.0), None]
        );
        let state = db.message("VEHICLE_STATE").unwrap();
        assert_eq!(state.id, Id::standard(0x201).unwrap());
        for name in ["SPEED_KPH", "STEER_ANGLE", "GEAR", "VEHICLE_STATE_COUNTER", "VEHICLE_STATE_CRC"] {
            assert!(state.signal(name).unwrap().codec.is_ok(), "{name}");
        }
        let position = db.message("VEHICLE_POS").unwrap();
        assert_eq!(
            (position.id, position.cycle),
            (Id::standard(0x202).unwrap(), Some(Duration::from_millis(100)))
        );
        for name in ["LATITUDE", "LONGITUDE"] {
            assert_eq!(position.signal(name).unwrap().codec.unwrap().factor, 1e-7);
        }
        // No two signals of a message share a bit, and every one can carry the whole of its own range.
        for message in &db.messages {
            let mut seen = std::collections::HashSet::new();
            for signal in &message.signals {
                let codec = signal.codec.unwrap();
                assert!(codec.bit_positions().all(|bit| seen.insert(bit)), "{}", signal.name);
                let (min, max) = signal.limits.unwrap();
                let (low, high) = codec.physical_range();
                assert!(low <= min && max <= high, "{}", signal.name);
            }
        }
    }

    #[test]
    fn frames_are_decoded_with_names_and_units() {
        let db = example();
        let frame =
            Frame::data(Id::standard(0x201).unwrap(), &[0xE8, 0x03, 0xF6, 0xFF, 3, 0, 0x50, 0]).unwrap();
        let decoded = db.decode(&frame).unwrap();
        assert_eq!(decoded.message.name, "VEHICLE_STATE");
        let text: Vec<String> = decoded
            .values
            .iter()
            .map(|v| format!("{}={}{} {:?}", v.signal.name, v.value, v.signal.unit, v.name))
            .collect();
        assert_eq!(
            text[..4],
            [
                "SPEED_KPH=10km/h None",
                "STEER_ANGLE=-1deg None",
                "GEAR=3 Some(\"drive\")",
                "VEHICLE_STATE_COUNTER=5 None"
            ]
        );
        // A short frame gives what it holds; other encodings and kinds give nothing.
        let short = Frame::data(Id::standard(0x201).unwrap(), &[1, 0, 0]).unwrap();
        assert_eq!(db.decode(&short).unwrap().values.len(), 1);
        assert_eq!(db.decode(&Frame::data(Id::extended(0x201).unwrap(), &[0; 8]).unwrap()), None);
        assert_eq!(db.decode(&Frame::remote(Id::standard(0x201).unwrap(), 8).unwrap()), None);
    }

    #[test]
    fn an_identifier_that_does_not_fit_never_becomes_another_one() {
        // 65793 is 0x10101: the parser cuts it to 0x101.
        let db = parse(
            "BO_ 65793 A: 8 A\n SG_ X : 0|8@1+ (1,0) [0|0] \"\" A\n\nBO_ 2048 B: 8 A\n\nBO_ 257 C: 8 A\n",
        );
        assert_eq!(db.refusal("A"), Some(MessageProblem::Identifier));
        assert_eq!(db.refusal("B"), Some(MessageProblem::Identifier));
        assert_eq!(db.message_by_id(Id::standard(0x101).unwrap()).unwrap().name, "C");
        let db = parse("BO_ 2566844672 EXT: 8 A\n\nBO_ 3758096385 WIDE: 8 A\n");
        assert_eq!(db.message("EXT").unwrap().id, Id::extended(0x18FE_F100).unwrap());
        assert_eq!(db.refusal("WIDE"), Some(MessageProblem::Identifier));
    }

    #[test]
    fn what_is_wrong_stays_visible_and_costs_only_itself() {
        let db = parse(concat!(
            "BO_ 1 M: 8 A\n",
            " SG_ GOOD : 0|8@1+ (1,0) [0|0] \"\" A\n",
            " SG_ PAST : 60|8@1+ (1,0) [0|0] \"\" A\n",
            " SG_ PAST_BIG : 56|9@0+ (1,0) [0|0] \"\" A\n",
            " SG_ EMPTY : 0|0@1+ (1,0) [0|0] \"\" A\n",
            " SG_ HUGE : 0|300@1+ (1,0) [0|0] \"\" A\n",
            " SG_ FLAT : 0|8@1+ (0,0) [0|0] \"\" A\n",
            " SG_ TWICE : 0|8@1+ (1,0) [0|0] \"\" A\n",
            " SG_ TWICE : 8|8@1+ (1,0) [0|0] \"\" A\n",
            " SG_ HALF : 0|16@1- (1,0) [0|0] \"\" A\n",
            " SG_ LOST m3 : 0|8@1+ (1,0) [0|0] \"\" A\n\n",
            "BO_ 2 TOO_LONG: 65 A\n\nBO_ 3 ODD: 10 A\n\nBO_ 4 M: 8 A\n\n",
            "SIG_VALTYPE_ 1 HALF : 1;\n",
        ));
        let problem = |name: &str| db.message("M").unwrap().signal(name).unwrap().codec.err();
        assert_eq!(problem("GOOD"), None);
        for name in ["PAST", "PAST_BIG", "EMPTY", "HUGE"] {
            assert_eq!(problem(name), Some(SignalProblem::OutsideMessage), "{name}");
        }
        assert_eq!(problem("FLAT"), Some(SignalProblem::Scaling));
        assert_eq!(problem("TWICE"), Some(SignalProblem::Ambiguous));
        assert_eq!(problem("HALF"), Some(SignalProblem::FloatLength));
        assert_eq!(problem("LOST"), Some(SignalProblem::Multiplexor));
        assert_eq!(db.refusal("TOO_LONG"), Some(MessageProblem::Length));
        assert_eq!(db.refusal("ODD"), Some(MessageProblem::Length));
        assert_eq!(db.refusal("M"), Some(MessageProblem::Ambiguous));
        let frame = Frame::data(Id::standard(1).unwrap(), &[7; 8]).unwrap();
        assert_eq!(db.decode(&frame).unwrap().values.len(), 1);
    }

    #[test]
    fn multiplexing_simple_and_extended() {
        let db = parse(concat!(
            "BO_ 1 M: 8 A\n",
            " SG_ SW M : 0|4@1+ (1,0) [0|0] \"\" A\n",
            " SG_ A m0 : 8|8@1+ (1,0) [0|0] \"\" A\n",
            " SG_ SUB m1M : 4|4@1+ (1,0) [0|0] \"\" A\n",
            " SG_ B m2 : 8|8@1- (1,0) [0|0] \"\" A\n\n",
            "SG_MUL_VAL_ 1 SUB SW 1-1;\n",
            "SG_MUL_VAL_ 1 B SUB 2-3, 7-7;\n",
        ));
        let m = db.message("M").unwrap();
        let present = |name: &str, byte: u8| m.signal(name).unwrap().is_present(&[byte, 0, 0, 0, 0, 0, 0, 0]);
        assert!(m.signal("SW").unwrap().is_multiplexor && present("SW", 9));
        assert!(present("A", 0x00) && !present("A", 0x01) && present("SUB", 0x01) && !present("SUB", 0x00));
        for sub in 0..16_u8 {
            assert_eq!(present("B", sub << 4 | 1), matches!(sub, 2 | 3 | 7), "{sub}");
            assert!(!present("B", sub << 4));
        }
        let switch = m.signal("SW").unwrap().codec.unwrap();
        assert_eq!(m.signal("A").unwrap().simple_mux(), Some(Some((switch, 0))));
        assert_eq!(m.signal("SW").unwrap().simple_mux(), Some(None));
        assert_eq!(m.signal("B").unwrap().simple_mux(), None);
    }

    #[test]
    fn a_circle_of_multiplexors_ends() {
        let db = parse(concat!(
            "BO_ 1 M: 8 A\n",
            " SG_ P m1M : 0|4@1+ (1,0) [0|0] \"\" A\n",
            " SG_ Q m1M : 4|4@1+ (1,0) [0|0] \"\" A\n\n",
            "SG_MUL_VAL_ 1 P Q 1-1;\nSG_MUL_VAL_ 1 Q P 1-1;\n",
        ));
        assert_eq!(db.message("M").unwrap().signal("P").unwrap().codec, Err(SignalProblem::Multiplexor));
    }

    #[test]
    fn fd_comes_from_the_attribute_or_the_length() {
        let db = parse(concat!(
            "BO_ 1 CLASSIC: 8 A\n\nBO_ 2 FD8: 8 A\n\nBO_ 3 FD64: 64 A\n\n",
            "BA_DEF_ BO_ \"VFrameFormat\" ENUM \"StandardCAN\",\"ExtendedCAN\",\"StandardCAN_FD\",\"ExtendedCAN_FD\";\n",
            "BA_DEF_DEF_ \"VFrameFormat\" \"StandardCAN\";\n",
            "BA_ \"VFrameFormat\" BO_ 2 2;\n",
        ));
        assert_eq!(["CLASSIC", "FD8", "FD64"].map(|n| db.message(n).unwrap().fd), [false, true, true]);
    }

    #[test]
    fn long_names_replace_short_ones() {
        let db = parse(concat!(
            "BO_ 1 M_short: 8 A\n SG_ S_short : 0|8@1+ (1,0) [0|0] \"\" A\n\n",
            "BA_DEF_ BO_ \"SystemMessageLongSymbol\" STRING ;\nBA_DEF_ SG_ \"SystemSignalLongSymbol\" STRING ;\n",
            "BA_DEF_DEF_ \"SystemMessageLongSymbol\" \"\";\nBA_DEF_DEF_ \"SystemSignalLongSymbol\" \"\";\n",
            "BA_ \"SystemMessageLongSymbol\" BO_ 1 \"M_with_a_name_beyond_thirty_two_characters\";\n",
            "BA_ \"SystemSignalLongSymbol\" SG_ 1 S_short \"S_with_a_name_beyond_thirty_two_characters\";\n",
        ));
        let message = db.message("M_with_a_name_beyond_thirty_two_characters").unwrap();
        assert!(message.signal("S_with_a_name_beyond_thirty_two_characters").is_some());
    }

    #[test]
    fn text_that_is_no_dbc_is_an_error() {
        for text in
            ["", "hello", "BO_ 1 A: 8", "\u{0}\u{1}", "VERSION \"", "BO_ 99999999999999999999 A: 8 A\n"]
        {
            if let Ok(db) = Database::parse(text) {
                assert!(db.messages.is_empty(), "{text:?}");
            }
        }
        assert_eq!(Database::parse("hello").unwrap_err().to_string(), "not a DBC file: line 1, column 1");
        let error = Database::parse("VERSION \"\"\n\nBU_: A\n\nBO_ 1 A: eight A\n").unwrap_err().to_string();
        assert!(error.contains("line 5") && !error.contains('\n'), "{error}");
        assert!(matches!(Database::load(Path::new("/nonexistent.dbc")), Err(DbcError::Unreadable(_))));
    }

    #[test]
    fn windows_1252_is_read() {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/dbc/cp1252.dbc"));
        let db = Database::load(path).unwrap();
        assert_eq!(db.message("TEMPERATURES").unwrap().signal("COOLANT").unwrap().unit, "\u{b0}C");
    }
}
