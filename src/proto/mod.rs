//! Protocols as bytes to values and back: no sockets, no clock, no allocation on the command path.
//!
//! Owns the wire formats. Relies on [`crate::limits`], [`crate::time`] and [`crate::can`]. Never waits, never reads a
//! clock, and never panics on any input: what arrives here was written by somebody else.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod assetto;
pub mod json;
pub mod ocp;
pub mod rcsp;
pub mod tcpcan;
