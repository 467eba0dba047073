//! What is known of the gateway at one moment, and what it is made of.
//!
//! Owns the two plain records from which every answer of the management plane is written. Relies on the types of what is
//! described. Contains no decision; the thread fills it in.

use std::net::SocketAddr;

use super::car::CarFacts;
use crate::can::errorframe::ControllerState;
use crate::nodes::spread::Percentiles;
use crate::safety::input::Status;
use crate::signals::car::CarSettings;
use crate::signals::plan::Plan;
use crate::time::{Duration, Instant, millis_f64};

/// Milliseconds as they are told: to a microsecond.
#[must_use]
pub fn ms(time: Duration) -> f64 {
    rounded(millis_f64(time), 1_000.0)
}

/// A number with so many parts of one.
#[must_use]
pub fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

/// What does not change while the process runs, but by a reload: digest, effective configuration and who may ask for a stop.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Version and commit.
    pub version: &'static str,
    /// Digest of the configuration.
    pub digest: String,
    /// The resolved mapping.
    pub plan: Plan,
    /// The Streamer's address.
    pub ocp: SocketAddr,
    /// A tunnel's bus and address.
    pub tunnels: Vec<(usize, SocketAddr)>,
    /// Where the simulated car is heard of, where one stands in.
    pub car: Option<CarSettings>,
    /// The effective configuration, as `GwGetConfig` tells it.
    pub config: serde_json::Map<String, serde_json::Value>,
    /// Nothing is sent.
    pub listen_only: bool,
    /// Whether a client on another machine may ask for a stop.
    pub remote_stop: bool,
    /// When the process started.
    pub started_at: Instant,
}

/// One bus.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BusFacts {
    /// The interface is there and up.
    pub up: bool,
    /// Frames are sent and none is proven to leave.
    pub no_echo: bool,
    /// What the controller says of itself.
    pub controller: Option<ControllerState>,
    /// Error counters, where the driver gives them: transmit, receive.
    pub errors: Option<(u16, u16)>,
    /// Nominal bit rate, where there is one.
    pub bitrate_bps: Option<u32>,
    /// Bit rate of the data of CAN FD.
    pub data_bitrate_bps: Option<u32>,
    /// Name of the driver; empty where it is not known.
    pub driver: String,
    /// Share of the bus that is in use, without stuff bits.
    pub load_percent: Option<f64>,
    /// Frames in the last second or so, ours among them.
    pub frames_per_s: f64,
    /// Frames since the start.
    pub frames: u64,
    /// Error messages of the driver.
    pub error_messages: u64,
    /// Frames lost in the kernel before they were read.
    pub dropped: u64,
}

/// What keeps the gateway in time, as the kernel gave it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RealTimeFacts {
    /// Threads at real-time priority.
    pub granted: u32,
    /// Threads that should be and are not.
    pub refused: u32,
    /// Why.
    pub refused_why: Option<&'static str>,
    /// Whether memory is locked; none where nobody has asked for it.
    pub memory_locked: Option<bool>,
    /// Why it is not.
    pub memory_why: Option<&'static str>,
}

/// One frame that the gateway sends.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SendFacts {
    /// Frames that the interface took.
    pub written: u64,
    /// Frames that it did not take.
    pub refused: u64,
    /// Frames proven sent.
    pub confirmed: u64,
    /// Since the last of them.
    pub confirmed_age_ms: Option<f64>,
    /// From one proof to the next, since the start.
    pub period: Option<Percentiles>,
}

/// One peer of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerFacts {
    /// Where it comes from.
    pub address: SocketAddr,
    /// Index of its bus.
    pub bus: usize,
    /// It has agreed to a version: frames pass.
    pub agreed: bool,
    /// When it connected.
    pub since: Instant,
    /// Its frames that went onto the bus.
    pub to_bus: u64,
    /// Frames of the bus that it was sent.
    pub to_peer: u64,
    /// Frames that wait, both ways together.
    pub waiting: u64,
    /// Frames that were dropped or refused, both ways together.
    pub dropped: u64,
}

/// Everything at one moment.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The core's status; none before its first step.
    pub status: Option<Status>,
    /// Since the watchdog last came round; without it the status is of no more than that age.
    pub watchdog_age_ms: Option<f64>,
    /// OCP is connected.
    pub connected: bool,
    /// Age of the newest message, of the newest `ack_time` and of the operator's counter.
    pub message_age_ms: Option<f64>,
    /// See there.
    pub ack_age_ms: Option<f64>,
    /// See there.
    pub counter_age_ms: Option<f64>,
    /// In the order of the plan.
    pub buses: Vec<BusFacts>,
    /// In the order of the plan.
    pub sends: Vec<SendFacts>,
    /// Peers connected now.
    pub peers: Vec<PeerFacts>,
    /// `telemetry.latency`, in the last minute.
    pub ocp_latency: Option<Percentiles>,
    /// From our door to the proof of the next actuator frame, in the last minute.
    pub door_to_bus: Option<Percentiles>,
    /// The simulated car, where one stands in.
    pub car: Option<CarFacts>,
    /// Priority and memory.
    pub real_time: RealTimeFacts,
    /// What is counted, in a person's words.
    pub counters: Vec<(&'static str, u64)>,
    /// What the tunnels count.
    pub tunnel_counters: Vec<(&'static str, u64)>,
}
