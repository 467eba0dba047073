//! CAN frames, identifiers, names of buses and the candump text form. Pure: no sockets, no clock.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "a test fails by panicking"
    )
)]

pub mod address;
pub mod candump;
pub mod errorframe;
pub mod frame;

pub use address::{AddressError, BusAddress, BusName};
pub use errorframe::{ControllerState, ErrorClass};
pub use frame::{Frame, FrameError, FrameKind, Id};
