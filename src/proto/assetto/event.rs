//! Every message of a server, as a value and as bytes.
//!
//! Owns the list of the messages and the description of a session. Relies on [`super::car`], [`super::lap`] and
//! `wire`; `decode` turns bytes into these values. Never keeps a byte: texts are borrowed from the
//! datagram.

use super::car::{CarInfo, CarUpdate, ClientEvent, Connection};
use super::decode::Extent;
use super::id;
use super::lap::LapCompleted;
use super::text::Text;
use super::wire::{EncodeError, Reader, WireError, Writer};

/// What a server says. Names as in the server's own list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event<'d> {
    /// A session began. Positions come only after they were asked for again.
    NewSession(Session<'d>),
    /// The answer to a question about a session.
    SessionInfo(Session<'d>),
    /// A driver took a slot and loads the game.
    NewConnection(Connection<'d>),
    /// A driver left.
    ConnectionClosed(Connection<'d>),
    /// Where a car is.
    CarUpdate(CarUpdate),
    /// The answer to a question about a slot.
    CarInfo(CarInfo<'d>),
    /// The same from an early ACSM server, which says it in the layout of a connection.
    EarlyCarInfo(Connection<'d>),
    /// A session ended.
    EndSession {
        /// The report's path on the server; empty from some.
        filename: Text<'d>,
    },
    /// The server started.
    Version {
        /// 4 today.
        proto_version: u8,
    },
    /// A driver wrote something; programs of the drivers also talk that way.
    Chat {
        /// The driver's slot.
        car_id: u8,
        /// What was written, commands with a slash included.
        message: Text<'d>,
    },
    /// The first position of a driver came: from now on updates mean something.
    ClientLoaded {
        /// The driver's slot.
        car_id: u8,
    },
    /// The server could not do what it was asked.
    Error {
        /// For a person.
        message: Text<'d>,
    },
    /// A car completed a lap.
    LapCompleted(LapCompleted<'d>),
    /// A car hit something.
    ClientEvent(ClientEvent),
}

impl Event<'_> {
    /// The first byte of the message.
    #[must_use]
    pub const fn id(&self) -> u8 {
        match self {
            Self::NewSession(_) => id::NEW_SESSION,
            Self::SessionInfo(_) => id::SESSION_INFO,
            Self::NewConnection(_) => id::NEW_CONNECTION,
            Self::ConnectionClosed(_) => id::CONNECTION_CLOSED,
            Self::CarUpdate(_) => id::CAR_UPDATE,
            Self::CarInfo(_) | Self::EarlyCarInfo(_) => id::CAR_INFO,
            Self::EndSession { .. } => id::END_SESSION,
            Self::Version { .. } => id::VERSION,
            Self::Chat { .. } => id::CHAT,
            Self::ClientLoaded { .. } => id::CLIENT_LOADED,
            Self::Error { .. } => id::ERROR,
            Self::LapCompleted(_) => id::LAP_COMPLETED,
            Self::ClientEvent(_) => id::CLIENT_EVENT,
        }
    }

    /// The message's name in the server's own list, which is acudpclient's too.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NewSession(_) => "ACSP_NEW_SESSION",
            Self::SessionInfo(_) => "ACSP_SESSION_INFO",
            Self::NewConnection(_) => "ACSP_NEW_CONNECTION",
            Self::ConnectionClosed(_) => "ACSP_CONNECTION_CLOSED",
            Self::CarUpdate(_) => "ACSP_CAR_UPDATE",
            Self::CarInfo(_) | Self::EarlyCarInfo(_) => "ACSP_CAR_INFO",
            Self::EndSession { .. } => "ACSP_END_SESSION",
            Self::Version { .. } => "ACSP_VERSION",
            Self::Chat { .. } => "ACSP_CHAT",
            Self::ClientLoaded { .. } => "ACSP_CLIENT_LOADED",
            Self::Error { .. } => "ACSP_ERROR",
            Self::LapCompleted(_) => "ACSP_LAP_COMPLETED",
            Self::ClientEvent(_) => "ACSP_CLIENT_EVENT",
        }
    }

    /// Writes the message to the front of `out` and returns its size. What was decoded is written in the dialect it
    /// came in.
    ///
    /// # Errors
    /// [`EncodeError`]; what is in `out` then is no message.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        let mut out = Writer::new(out);
        out.u8(self.id())?;
        match self {
            Self::NewSession(session) | Self::SessionInfo(session) => session.write(&mut out),
            Self::NewConnection(connection)
            | Self::ConnectionClosed(connection)
            | Self::EarlyCarInfo(connection) => connection.write(&mut out),
            Self::CarUpdate(update) => update.write(&mut out),
            Self::CarInfo(info) => info.write(&mut out),
            Self::EndSession { filename } => out.wide(*filename),
            Self::Version { proto_version } => out.u8(*proto_version),
            Self::Chat { car_id, message } => out.u8(*car_id).and_then(|()| out.wide(*message)),
            Self::ClientLoaded { car_id } => out.u8(*car_id),
            Self::Error { message } => out.wide(*message),
            Self::LapCompleted(lap) => lap.write(&mut out),
            Self::ClientEvent(event) => event.write(&mut out),
        }?;
        Ok(out.used())
    }
}

/// The body of `ACSP_NEW_SESSION` and `ACSP_SESSION_INFO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Session<'d> {
    /// The server's version of the protocol, 4 today.
    pub proto_version: u8,
    /// The session that this message describes.
    pub session_index: u8,
    /// The session that runs.
    pub current_sess_index: u8,
    /// How many sessions the server has in turn.
    pub session_count: u8,
    /// The server's name.
    pub server_name: Text<'d>,
    /// The track.
    pub track_name: Text<'d>,
    /// The track's layout; empty where it has one only.
    pub track_config: Text<'d>,
    /// The session's name.
    pub name: Text<'d>,
    /// 0 booking, 1 practice, 2 qualifying, 3 race; 4 drag and 5 drift are named by some.
    pub session_type: u8,
    /// Length in minutes; 0 where laps end it.
    pub time_min: u16,
    /// Length in laps; 0 where time ends it.
    pub laps: u16,
    /// Wait before the start in milliseconds, of which the wire keeps the remainder by 65536.
    pub wait_time_ms: u16,
    /// Degrees Celsius.
    pub ambient_temp_c: u8,
    /// Degrees Celsius.
    pub track_temp_c: u8,
    /// The weather's name.
    pub weather_graph: Text<'d>,
    /// The weather's name stands in four bytes for each character, as AssettoServer writes it. All others write bytes.
    pub is_weather_wide: bool,
    /// Milliseconds since the start; negative while a race waits for it.
    pub elapsed_ms: i32,
}

impl<'d> Session<'d> {
    pub(super) fn read(reader: &mut Reader<'d>, extent: Extent) -> Result<Self, WireError> {
        let mut session = Self {
            proto_version: reader.u8()?,
            session_index: reader.u8()?,
            current_sess_index: reader.u8()?,
            session_count: reader.u8()?,
            server_name: reader.wide()?,
            track_name: reader.narrow()?,
            track_config: reader.narrow()?,
            name: reader.narrow()?,
            session_type: reader.u8()?,
            time_min: reader.u16()?,
            laps: reader.u16()?,
            wait_time_ms: reader.u16()?,
            ambient_temp_c: reader.u8()?,
            track_temp_c: reader.u8()?,
            is_weather_wide: is_weather_wide(reader.rest(), extent),
            ..Self::default()
        };
        session.weather_graph = if session.is_weather_wide { reader.wide()? } else { reader.narrow()? };
        session.elapsed_ms = reader.i32()?;
        Ok(session)
    }

    fn write(&self, out: &mut Writer<'_>) -> Result<(), EncodeError> {
        out.bytes(&[self.proto_version, self.session_index, self.current_sess_index, self.session_count])?;
        out.wide(self.server_name)?;
        out.narrow(self.track_name)?;
        out.narrow(self.track_config)?;
        out.narrow(self.name)?;
        out.u8(self.session_type)?;
        out.u16(self.time_min)?;
        out.u16(self.laps)?;
        out.u16(self.wait_time_ms)?;
        out.bytes(&[self.ambient_temp_c, self.track_temp_c])?;
        if self.is_weather_wide { out.wide(self.weather_graph) } else { out.narrow(self.weather_graph) }?;
        out.i32(self.elapsed_ms)
    }
}

/// Whether the text at the front of `rest`, with the elapsed time behind it, has four bytes for each character.
///
/// Not by the length alone: a wide one that is cut off has the length of a narrow one with something behind it. Of a
/// wide text of four and more characters one of the first `n` bytes is zero, and no name contains a zero. For one to
/// three characters, which no known weather has, the length of the datagram decides where it can.
fn is_weather_wide(rest: &[u8], extent: Extent) -> bool {
    let Some((n, text)) = rest.split_first() else { return false };
    let units = usize::from(*n);
    if units > 0 && text.iter().take(units).any(|byte| *byte == 0) {
        return true;
    }
    let fits = units > 0 && extent == Extent::Datagram && text.len() == 4 * units + size_of::<i32>();
    // The bytes of a narrow name are no code point.
    fits && text.first_chunk::<4>().is_some_and(|first| char::from_u32(u32::from_le_bytes(*first)).is_some())
}
