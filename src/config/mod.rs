//! TOML to validated types; every problem reported at once.
//!
//! Owns the configuration file: its keys, their defaults and every check that can be made before the first frame.
//! Relies on `signals` for the DBC and the types of the mapping, on `safety` for the bounds of the times. Never opens a
//! socket, and never accepts a file partly: either all of it holds, or nothing is sent.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod problem;
mod reader;
mod session;

pub use problem::{Problem, nearest};

use crate::safety::settings::Settings;
use crate::signals::plan::Plan;
use std::net::SocketAddr;

/// A configuration that passed every check.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which end of the line this gateway serves.
    pub role: Role,
    /// The resolved mapping.
    pub plan: Plan,
    /// The time constants, each within its bounds.
    pub settings: Settings,
    /// More arms than this within one minute end in LOCKOUT.
    pub arms_per_minute: u32,
    /// The OCP session.
    pub ocp: OcpSettings,
    /// What happens where real-time priority or locked memory is refused.
    pub real_time: RealTime,
    /// 16 hexadecimal digits that change with every byte of the configuration file and its DBC files (FNV-1a; it
    /// tells versions apart and proves nothing against an attacker).
    pub digest: String,
    /// What a person should know before driving with this file, one line each.
    pub warnings: Vec<String>,
}

/// Which end of the line a gateway serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// In the vehicle: commands to CAN.
    Vehicle,
}

/// The OCP session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OcpSettings {
    /// The Streamer's OCP server; never port 0.
    pub address: SocketAddr,
    /// How `client_user_data` is wrapped.
    pub user_data: UserForm,
    /// Whether acks are held back while nothing can leave on CAN, so that OCP itself reports the fault.
    pub withhold_acks_when_can_dead: bool,
}

/// How `client_user_data` is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UserForm {
    /// Wrapped if the outermost object has a `user_data` key, bare otherwise.
    #[default]
    Auto,
    /// The operator's value itself.
    Bare,
    /// The operator's value under `user_data`.
    Wrapped,
}

/// What happens where real-time priority or locked memory is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RealTime {
    /// The gateway runs and says so.
    #[default]
    Warn,
    /// The gateway does not start.
    Required,
}
