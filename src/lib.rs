//! ocpcan: from a remote operator's commands to CAN frames, and to safe values whenever there is no
//! fresh, proven reason to do otherwise.
//!
//! Dependencies point one way: [`limits`], [`time`] -> [`can`] -> [`proto`], [`signals`] -> [`safety`] ->
//! [`nodes`] -> `threads` -> `cli`. `proto` and `safety` meet only in `nodes`. Clocks, sockets and threads are
//! touched in `io`, `threads`, `topology`, `cli` and `sim::live` alone.

#![warn(missing_docs)]

pub mod can;
pub mod cli;
pub mod config;
pub mod io;
pub mod limits;
pub mod nodes;
pub mod proto;
pub mod safety;
pub mod signals;
pub mod sim;
pub mod threads;
pub mod time;
pub mod topology;
