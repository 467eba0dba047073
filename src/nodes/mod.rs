//! What each thread decides. Pure: protocols and the safety core meet here and nowhere else.
//!
//! Owns the glue between bytes, frames and the core. Relies on `proto`, `signals` and `safety`. Never waits, never
//! reads a clock; the threads do both.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod assetto;
pub mod management;
pub mod ocp;
mod pace;
pub mod player;
pub mod rcsp;
pub mod rcsp_client;
pub mod report;
pub mod spread;
pub mod station;
pub mod tunnel;
pub mod watchdog;
