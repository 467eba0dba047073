//! The vehicle-side OCP server, simulated: the streamer, its latency loop through the video, and the operator.
//!
//! Owns a model of the vendor's server as far as it is documented, every undocumented choice as an option, and every
//! way of misbehaving that a gateway must survive. Relies on [`crate::proto::ocp::server`] for the bytes. Never
//! touches a socket or a clock: [`Server`] lives in virtual time, `sim::live` drives it on real sockets.
//!
//! ```text
//!   operator --uplink--> [last command] --tick 10 ms--> control message --TCP--> gateway
//!      ^                                                                            |
//!      +---video--- [ack pair in the picture] <------------ response ---------------+
//! ```

pub mod command;
mod inject;
mod operator;
pub mod options;
pub mod script;
mod server;

pub use command::{Command, CommandError};
pub use operator::{LinkState, Operator};
pub use options::{Options, Profile};
pub use script::Sequencer;
pub use server::{Admission, Event, Server, Snapshot, Transmit};

/// Random numbers of the simulation: the same for the same seed, on every machine.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Starts from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits (the "splitmix" step).
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A fraction from 0 up to 1.
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub fn fraction(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Spreads 64 bits so that none can be told from another.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
