//! A server of Assetto Corsa with its cars, and the game of one driver, simulated.
//!
//! Owns the world on one track: drivers who come, load and leave, sessions in turn, laps, collisions, what a server
//! tells its plugin and how it answers the plugin's commands, and the telemetry of the first driver's game. Relies on
//! [`crate::proto::assetto`] for every byte. Never waits: time comes in as an argument.
//!
//! ```text
//!   command datagram -> World::handle_command -+
//!   game request     -> World::handle_request -+-> World::poll_transmit -> datagram, to the plugin or to a game client
//!   time             -> World::handle_timeout -+
//! ```
//!
//! What a real server does is taken from the sources of public servers and plugins, and one capture; none was at hand.

mod answer;
pub mod car;
mod game;
pub mod script;
mod session;
mod tell;
pub mod track;
mod world;

pub use script::{Action, Script, ScriptError};
pub use session::{Kind, SessionPlan};
pub use world::{Options, Overview, Receiver, World};

use crate::time::Duration;

/// Step of the cars, and period of the game's telemetry: 100 Hz, between the 20 and 500 Hz that people report.
pub const STEP: Duration = Duration::from_millis(10);

/// Most cars: a leaderboard has an entry for each slot, and two slots stay empty.
pub const CARS_MAX: u8 = 253;

/// Slots in which nobody drives: real servers have some, and their leaderboards show them.
pub const EMPTY_SLOTS: u8 = 2;

#[cfg(test)]
mod tests;
