//! The gateway in virtual time, between a streamer and a vehicle that fail.
//!
//! Owns the plan that simulations drive and the generator behind their faults. Relies on `nodes`. Never reads a clock.

pub mod plan;
pub mod rng;
