//! What a plugin tells a server.
//!
//! Owns the ten commands, both directions. Relies on `wire`. Never decides whether a command may be sent:
//! nothing in the protocol protects a server or its players from any of them.

use super::id;
use super::text::Text;
use super::wire::{EncodeError, Reader, WireError, Writer};

/// A question or an order to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// Send the position of every car in this period. To be repeated after each new session.
    RealtimePosInterval {
        /// Milliseconds; 0 is off, but makes AssettoServer send without a pause or not at all.
        interval_ms: u16,
    },
    /// Answered by [`Event::CarInfo`](super::Event::CarInfo).
    GetCarInfo {
        /// The slot.
        car_id: u8,
    },
    /// Answered by [`Event::SessionInfo`](super::Event::SessionInfo), or by an error where there is no such session.
    GetSessionInfo {
        /// From 0; [`CURRENT_SESSION`] is the one that runs.
        session_index: i16,
    },
    /// Write to one driver.
    SendChat {
        /// The driver's slot.
        car_id: u8,
        /// 255 characters at most; the game shows ASCII.
        message: Text<'a>,
    },
    /// Write to every driver.
    BroadcastChat {
        /// 255 characters at most; the game shows ASCII.
        message: Text<'a>,
    },
    /// Change a session of the server.
    SetSessionInfo {
        /// From 0.
        session_index: u8,
        /// 255 characters at most.
        session_name: Text<'a>,
        /// As in [`Session`](super::Session).
        session_type: u8,
        /// 0 where time ends it.
        laps: u32,
        /// Seconds as the vendor's example has it; one early server reads minutes.
        time_s: u32,
        /// Seconds.
        wait_time_s: u32,
    },
    /// Throw a driver out.
    KickUser {
        /// The driver's slot.
        car_id: u8,
    },
    /// End the session, go on with the next.
    NextSession,
    /// Begin the session again.
    RestartSession,
    /// What an administrator of the server may type, with the slash.
    AdminCommand {
        /// 255 characters at most.
        command: Text<'a>,
    },
}

/// The session that runs, where a session is asked for.
pub const CURRENT_SESSION: i16 = -1;

impl<'a> Command<'a> {
    /// The first byte of the message.
    #[must_use]
    pub const fn id(&self) -> u8 {
        match self {
            Self::RealtimePosInterval { .. } => id::REALTIMEPOS_INTERVAL,
            Self::GetCarInfo { .. } => id::GET_CAR_INFO,
            Self::GetSessionInfo { .. } => id::GET_SESSION_INFO,
            Self::SendChat { .. } => id::SEND_CHAT,
            Self::BroadcastChat { .. } => id::BROADCAST_CHAT,
            Self::SetSessionInfo { .. } => id::SET_SESSION_INFO,
            Self::KickUser { .. } => id::KICK_USER,
            Self::NextSession => id::NEXT_SESSION,
            Self::RestartSession => id::RESTART_SESSION,
            Self::AdminCommand { .. } => id::ADMIN_COMMAND,
        }
    }

    /// Whether somebody who drives on the server notices it. The gateway itself sends none of these.
    #[must_use]
    pub const fn acts_on_players(&self) -> bool {
        match self {
            Self::RealtimePosInterval { .. } | Self::GetCarInfo { .. } | Self::GetSessionInfo { .. } => false,
            Self::SendChat { .. }
            | Self::BroadcastChat { .. }
            | Self::SetSessionInfo { .. }
            | Self::KickUser { .. }
            | Self::NextSession
            | Self::RestartSession
            | Self::AdminCommand { .. } => true,
        }
    }

    /// Writes the message to the front of `out` and returns its size, at most 1036.
    ///
    /// # Errors
    /// [`EncodeError`]; what is in `out` then is no message.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        let mut out = Writer::new(out);
        out.u8(self.id())?;
        match *self {
            Self::RealtimePosInterval { interval_ms } => out.u16(interval_ms)?,
            Self::GetCarInfo { car_id } | Self::KickUser { car_id } => out.u8(car_id)?,
            Self::GetSessionInfo { session_index } => out.i16(session_index)?,
            Self::SendChat { car_id, message } => {
                out.u8(car_id)?;
                out.wide(message)?;
            }
            Self::BroadcastChat { message } => out.wide(message)?,
            Self::SetSessionInfo { session_index, session_name, session_type, laps, time_s, wait_time_s } => {
                out.u8(session_index)?;
                out.wide(session_name)?;
                out.u8(session_type)?;
                out.u32(laps)?;
                out.u32(time_s)?;
                out.u32(wait_time_s)?;
            }
            Self::NextSession | Self::RestartSession => {}
            Self::AdminCommand { command } => out.wide(command)?,
        }
        Ok(out.used())
    }

    /// Reads one datagram, as a server does. What follows the command means nothing: the vendor's example sends its
    /// whole buffer.
    ///
    /// # Errors
    /// [`WireError`]; the datagram is to be dropped.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(datagram)?;
        let r = &mut reader;
        Ok(match r.id() {
            id::REALTIMEPOS_INTERVAL => Self::RealtimePosInterval { interval_ms: r.u16()? },
            id::GET_CAR_INFO => Self::GetCarInfo { car_id: r.u8()? },
            id::GET_SESSION_INFO => Self::GetSessionInfo { session_index: r.i16()? },
            id::SEND_CHAT => Self::SendChat { car_id: r.u8()?, message: r.wide()? },
            id::BROADCAST_CHAT => Self::BroadcastChat { message: r.wide()? },
            id::SET_SESSION_INFO => Self::SetSessionInfo {
                session_index: r.u8()?,
                session_name: r.wide()?,
                session_type: r.u8()?,
                laps: r.u32()?,
                time_s: r.u32()?,
                wait_time_s: r.u32()?,
            },
            id::KICK_USER => Self::KickUser { car_id: r.u8()? },
            id::NEXT_SESSION => Self::NextSession,
            id::RESTART_SESSION => Self::RestartSession,
            id::ADMIN_COMMAND => Self::AdminCommand { command: r.wide()? },
            unknown => return Err(WireError::UnknownId(unknown)),
        })
    }
}
