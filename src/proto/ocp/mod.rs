//! The Oden Control Pipeline, vehicle side: control messages in, responses out.
//!
//! Owns the framing (4-byte little-endian length, then that many bytes of UTF-8 JSON) and the two messages. Relies
//! on [`crate::proto::json`] and [`crate::limits`]. Never decides what a value means for the vehicle: that is the
//! safety core's, which sees the values as they came.
//!
//! ```text
//!   +----------------+---------------------------+
//!   | length, u32 LE | JSON object, 1..=16384 B  |   both directions, no checksum, no resynchronisation
//!   +----------------+---------------------------+
//! ```
//!
//! The path of a message: [`frame::Deframer`] -> [`control::decode`] -> [`user_data::UserPaths::extract`] for what
//! the operator side added -> [`response::ResponseWriter`] for the answer. [`server`] is the other end, for
//! simulators and tests. [`player`] is the operator's side, both ends of it.

pub mod control;
pub mod frame;
#[doc(hidden)]
pub mod fuzz;
pub mod gamepad;
pub mod player;
pub mod response;
pub mod server;
pub mod user_data;

pub use control::{ControlError, ControlMessage, Invalid, Telemetry};
pub use frame::{Deframer, FrameError};
pub use gamepad::{Axis, Button, Controller};
pub use response::ResponseWriter;
pub use user_data::{UserField, UserForm, UserPaths, UserValue};

/// Bytes of the length in front of each body.
pub const HEADER: usize = 4;

/// The largest whole frame.
pub const FRAME: usize = HEADER + crate::limits::OCP_BODY;
