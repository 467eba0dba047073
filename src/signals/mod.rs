//! Signals: the DBC file, bit codec, counters and checksums, sources, transforms and the mapping plan.
//!
//! Owns what a configuration becomes once it is validated ([`plan`]) and the pure functions that turn a source
//! reading into a frame's bits and back. Relies on `can`, `limits` and `time`. Never does I/O after start.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod bits;
pub mod car;
mod cp1252;
pub mod dbc;
pub mod e2e;
pub mod feedback;
pub mod pack;
pub mod plan;
pub mod source;
pub mod station;
pub mod transform;
