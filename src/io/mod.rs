//! Sockets, CAN buses, the clock and the kernel. Waits and moves bytes; decides nothing.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "io is where clocks are read, sockets are waited for and the simulated bus has its thread"
)]

pub mod backoff;
pub mod canbus;
pub mod claim;
pub mod clock;
pub mod confine;
pub mod evdev;
pub mod journal;
pub mod notify;
pub mod power;
pub mod runtime;
pub mod sys;
pub mod tcp;
