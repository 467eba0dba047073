//! The part that decides whether anything moves. Pure functions of time and input; reviewed by eye.
//!
//! Owns the states, the faults, the limits and the schedule of actuator frames. Relies on `signals`, `can`, `limits`
//! and `time`. Never reads a clock, never waits, never allocates after start, never logs.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod allow;
pub mod buswatch;
pub mod core;
pub mod diagnosis;
pub mod envelope;
pub mod faults;
pub mod gate;
pub mod guards;
pub mod injection;
pub mod input;
pub mod liveness;
pub mod rearm;
pub mod settings;
pub mod transmit;
