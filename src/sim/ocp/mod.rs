//! The Oden Control Pipeline, simulated: the Player with the operator, every vehicle's Streamer, and the radio between.
//!
//! Owns a model of the vendor's two servers as far as they are documented, every undocumented choice as an option, and
//! every way of misbehaving that a gateway or an operator station must survive. Relies on [`crate::proto::ocp`] for the
//! bytes. Never touches a socket or a clock: [`Pipeline`] lives in virtual time, `sim::live` drives it on real sockets.
//!
//! ```text
//!   client <--TCP--> Player --uplink: control--> Streamer, tick 10 ms --TCP: control message--> gateway
//!                      ^  ^                        |    ^                                        |
//!                      |  +----- downlink: feedback+    +---------------- response -------------+
//!                      +---- video: ack pair in the picture, returned with the next control
//! ```

pub mod command;
mod connection;
mod event;
pub mod faults;
mod inject;
mod link;
pub mod options;
mod pipeline;
mod player;
pub mod script;
mod snapshot;
mod streamer;

pub use command::{Command, CommandError};
pub use connection::{Admission, Transmit};
pub use event::{Endpoint, Event};
pub use link::{Direction, LinkSetting, LinkState};
pub use options::{Options, Profile};
pub use pipeline::Pipeline;
pub use player::{CounterMode, Player, Source, SourceLock};
pub use script::Sequencer;
pub use snapshot::{Overview, PlayerSnapshot, Snapshot};

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
