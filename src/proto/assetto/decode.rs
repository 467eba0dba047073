//! Bytes to events: one datagram, or a capture in which datagrams stand one behind the other.
//!
//! Owns what differs between servers, what is learned about the one that speaks, and the counts. Relies on
//! [`super::event`]. Never carries a byte over to the next datagram.

use super::car::{CarInfo, CarUpdate, ClientEvent, Connection};
use super::event::{Event, Session};
use super::id;
use super::lap::{EntryForm, LapCompleted};
use super::wire::{Reader, WireError};

/// What differs between servers and cannot be seen in the message itself. The default is every server of today.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dialect {
    /// How a car's place is written.
    pub lap_entry: EntryForm,
    /// A grip stands behind the places. Early ACSM servers leave it out.
    pub has_grip: bool,
}

impl Default for Dialect {
    fn default() -> Self {
        Self { lap_entry: EntryForm::Eight, has_grip: true }
    }
}

/// How far the bytes at hand belong to one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Extent {
    /// They are one datagram: its length says something.
    Datagram,
    /// Other messages may follow.
    Stream,
}

impl Extent {
    /// Whether a message may end in front of `rest`.
    fn ends_before(self, rest: &[u8]) -> bool {
        rest.first().is_none_or(|byte| self == Self::Stream && id::EVENTS.contains(byte))
    }
}

/// A message, and how many bytes it has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decoded<'d> {
    /// The message.
    pub event: Event<'d>,
    /// Its bytes. What follows them in a datagram means nothing to this version of the protocol.
    pub used: usize,
}

/// Reads one datagram.
///
/// # Errors
/// [`WireError`]; the whole datagram is to be dropped.
pub fn decode(datagram: &[u8], dialect: Dialect) -> Result<Decoded<'_>, WireError> {
    read(datagram, dialect, Extent::Datagram)
}

/// Reads the message at the front of a capture without borders; the next one begins behind [`Decoded::used`].
///
/// # Errors
/// [`WireError`]. Behind an unknown message nothing tells where the next one begins.
pub fn decode_front(capture: &[u8], dialect: Dialect) -> Result<Decoded<'_>, WireError> {
    read(capture, dialect, Extent::Stream)
}

fn read(bytes: &[u8], dialect: Dialect, extent: Extent) -> Result<Decoded<'_>, WireError> {
    let mut reader = Reader::new(bytes)?;
    let r = &mut reader;
    let event = match r.id() {
        id::NEW_SESSION => Event::NewSession(Session::read(r, extent)?),
        id::SESSION_INFO => Event::SessionInfo(Session::read(r, extent)?),
        id::NEW_CONNECTION => Event::NewConnection(Connection::read(r)?),
        id::CONNECTION_CLOSED => Event::ConnectionClosed(Connection::read(r)?),
        id::CAR_UPDATE => Event::CarUpdate(CarUpdate::read(r)?),
        id::CAR_INFO => car_info(r, extent)?,
        id::END_SESSION => Event::EndSession { filename: r.wide()? },
        id::VERSION => Event::Version { proto_version: r.u8()? },
        id::CHAT => Event::Chat { car_id: r.u8()?, message: r.wide()? },
        id::CLIENT_LOADED => Event::ClientLoaded { car_id: r.u8()? },
        id::ERROR => Event::Error { message: r.wide()? },
        id::LAP_COMPLETED => Event::LapCompleted(LapCompleted::read(r, dialect, extent)?),
        id::CLIENT_EVENT => Event::ClientEvent(ClientEvent::read(r)?),
        unknown => return Err(WireError::UnknownId(unknown)),
    };
    Ok(Decoded { event, used: reader.used() })
}

/// Early ACSM servers answer in the layout of a connection. It is taken where the usual layout does not end where the
/// message ends, this one does, and everything in it is plausible.
fn car_info<'d>(reader: &mut Reader<'d>, extent: Extent) -> Result<Event<'d>, WireError> {
    let mut early = reader.clone();
    let usual = CarInfo::read(reader);
    if usual.is_ok() && extent.ends_before(reader.rest()) {
        return usual.map(Event::CarInfo);
    }
    match Connection::read(&mut early) {
        Ok(connection) if extent.ends_before(early.rest()) && connection.is_plausible() => {
            *reader = early;
            Ok(Event::EarlyCarInfo(connection))
        }
        _ => usual.map(Event::CarInfo),
    }
}

/// What came from one server, in numbers. Every datagram is in exactly one of the first four.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Messages that were understood.
    pub events: u64,
    /// Messages of another type: extensions of some servers, or another protocol.
    pub unknown: u64,
    /// Messages that were cut off.
    pub short: u64,
    /// Datagrams without a byte.
    pub empty: u64,
    /// Understood messages with something behind them.
    pub trailing: u64,
    /// The bytes behind them, in all.
    pub trailing_bytes: u64,
}

/// Reads what one server sends, learns its dialect and counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Decoder {
    dialect: Dialect,
    counters: Counters,
}

impl Decoder {
    /// For a server of which something is known.
    #[must_use]
    pub fn with_dialect(dialect: Dialect) -> Self {
        Self { dialect, counters: Counters::default() }
    }

    /// Reads one datagram.
    ///
    /// # Errors
    /// [`WireError`]; the datagram is counted, and the next one is not affected.
    pub fn handle_datagram<'d>(&mut self, datagram: &'d [u8]) -> Result<Event<'d>, WireError> {
        let decoded = self.count(decode(datagram, self.dialect))?;
        let trailing = datagram.len().saturating_sub(decoded.used);
        if trailing > 0 {
            self.counters.trailing += 1;
            self.counters.trailing_bytes += u64::try_from(trailing).unwrap_or(u64::MAX);
        }
        Ok(decoded.event)
    }

    /// Reads the message at the front of a capture without borders, as [`decode_front`].
    ///
    /// # Errors
    /// [`WireError`]; it is counted.
    pub fn handle_front<'d>(&mut self, capture: &'d [u8]) -> Result<Decoded<'d>, WireError> {
        self.count(decode_front(capture, self.dialect))
    }

    /// What is known about the server.
    #[must_use]
    pub const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// What came so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    fn count<'d>(&mut self, result: Result<Decoded<'d>, WireError>) -> Result<Decoded<'d>, WireError> {
        match &result {
            Ok(decoded) => {
                self.counters.events += 1;
                self.learn(&decoded.event);
            }
            Err(WireError::Empty) => self.counters.empty += 1,
            Err(WireError::UnknownId(_)) => self.counters.unknown += 1,
            Err(WireError::Short { .. }) => self.counters.short += 1,
        }
        result
    }

    fn learn(&mut self, event: &Event<'_>) {
        match event {
            Event::Version { proto_version }
            | Event::NewSession(Session { proto_version, .. })
            | Event::SessionInfo(Session { proto_version, .. }) => {
                self.dialect.lap_entry = EntryForm::of_version(*proto_version);
            }
            Event::EarlyCarInfo(_) => self.dialect.has_grip = false,
            Event::CarInfo(_) => self.dialect.has_grip = true,
            _ => {}
        }
    }
}
