//! Rows of the fault table that need real sockets and threads: named after their rows.
//!
//! Relies on `rows/rig.rs`. What a row proves is the order of things (trip, safe frames, no arming while the stick is
//! held), never a time on a busy host.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests start threads and programs and wait for events"
)]

#[path = "rows/bus.rs"]
mod bus;
#[path = "rows/ocp.rs"]
mod ocp;
#[path = "rows/process.rs"]
mod process;
#[path = "rows/relay.rs"]
mod relay;
#[path = "rows/rig.rs"]
mod rig;
#[path = "rows/service.rs"]
mod service;
#[path = "rows/shared.rs"]
mod shared;
#[path = "rows/tunnel.rs"]
mod tunnel;
