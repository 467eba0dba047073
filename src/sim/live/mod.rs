//! The simulators on real sockets and the real clock.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "sim::live is where the simulators wait: threads, sockets and the clock"
)]

pub mod assetto;
pub mod gamepad;
pub mod ocp;
pub mod vehicle;

pub use assetto::AssettoSim;
pub use vehicle::VehicleSim;

/// Real-time priority of a simulator's thread, where permitted: below every thread of a gateway (40 and above).
const PRIORITY: i32 = 20;
