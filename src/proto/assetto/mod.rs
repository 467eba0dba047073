//! Assetto Corsa over UDP: the plugin protocol of its servers (ACSP), and the telemetry of one player's game.
//!
//! Owns the messages of both, in both directions. Relies on nothing but a datagram. Never keeps a byte of it for the
//! next one, and never allocates but for [`json`].
//!
//! ```text
//!   +---------+------------------------------+
//!   | type, 1 | packed fields, LITTLE endian |   a server and its plugin: one datagram is one message
//!   +---------+------------------------------+
//!   +----------------------------------------+
//!   | a C structure, LITTLE endian           |   the game (port 9996): told apart by length
//!   +----------------------------------------+
//! ```
//!
//! The path in: [`decode::Decoder::handle_datagram`] -> [`Event`]. The path out: [`Command`]. Of the commands a
//! gateway needs three; [`Command::acts_on_players`] names the others. [`game`] is the only feed with pedals and
//! steering.
//!
//! Nothing in either protocol says when a message was made or who made it.

pub mod car;
pub mod command;
pub mod decode;
pub mod event;
#[doc(hidden)]
pub mod fuzz;
pub mod game;
pub mod json;
pub mod lap;
pub mod text;
mod wire;

pub use car::{CarInfo, CarUpdate, ClientEvent, Connection};
pub use command::Command;
pub use decode::{Counters, Decoded, Decoder, Dialect, decode, decode_front};
pub use event::{Event, Session};
pub use lap::{EntryForm, LapCar, LapCompleted, Leaderboard};
pub use text::Text;
pub use wire::{EncodeError, WireError};

/// The first byte of each message, and the two kinds of collision.
pub mod id {
    #![allow(missing_docs, reason = "the names are the protocol's own")]

    pub const NEW_SESSION: u8 = 50;
    pub const NEW_CONNECTION: u8 = 51;
    pub const CONNECTION_CLOSED: u8 = 52;
    pub const CAR_UPDATE: u8 = 53;
    pub const CAR_INFO: u8 = 54;
    pub const END_SESSION: u8 = 55;
    pub const VERSION: u8 = 56;
    pub const CHAT: u8 = 57;
    pub const CLIENT_LOADED: u8 = 58;
    pub const SESSION_INFO: u8 = 59;
    pub const ERROR: u8 = 60;
    pub const LAP_COMPLETED: u8 = 73;
    pub const CLIENT_EVENT: u8 = 130;

    /// Inside a client event, never a message.
    pub const COLLISION_WITH_CAR: u8 = 10;
    /// Inside a client event, never a message.
    pub const COLLISION_WITH_ENV: u8 = 11;

    pub const REALTIMEPOS_INTERVAL: u8 = 200;
    pub const GET_CAR_INFO: u8 = 201;
    pub const SEND_CHAT: u8 = 202;
    pub const BROADCAST_CHAT: u8 = 203;
    pub const GET_SESSION_INFO: u8 = 204;
    pub const SET_SESSION_INFO: u8 = 205;
    pub const KICK_USER: u8 = 206;
    pub const NEXT_SESSION: u8 = 207;
    pub const RESTART_SESSION: u8 = 208;
    pub const ADMIN_COMMAND: u8 = 209;

    /// All that a server says.
    pub const EVENTS: [u8; 13] = [
        NEW_SESSION,
        NEW_CONNECTION,
        CONNECTION_CLOSED,
        CAR_UPDATE,
        CAR_INFO,
        END_SESSION,
        VERSION,
        CHAT,
        CLIENT_LOADED,
        SESSION_INFO,
        ERROR,
        LAP_COMPLETED,
        CLIENT_EVENT,
    ];
}

#[cfg(test)]
mod tests;
