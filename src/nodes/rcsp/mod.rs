//! The management protocol on the serving side: what one client is told, and in which order.
//!
//! Owns the rules of a connection ([`session`]), its limits, and the border to whoever knows what a command means
//! ([`Desk`]). Relies on `proto::rcsp` for bytes and JSON. Never touches a socket, never knows a device or a state of the
//! gateway, and never keeps more of a client than the limits below.
//!
//! The limits are ours; nothing public says any. All of them together bound a client to less than 1 MiB beside the kernel's
//! own buffers, one answer of any size on top.

pub mod counts;
#[doc(hidden)]
pub mod fuzz;
pub mod outbox;
pub mod session;
pub mod subscriptions;

use std::sync::Arc;

use serde_json::{Map, Value};

pub use self::counts::{Counts, Ended};
pub use self::session::Session;
use crate::proto::rcsp::envelope;
pub use crate::proto::rcsp::envelope::ErrorCode;
use crate::time::{Duration, Instant};

/// Clients at the same time. Each costs a descriptor; a screen, a logger and a script or two are what there is.
pub const CLIENTS: usize = 8;

/// Longest body of a command in bytes: nobody uploads anything.
pub const BODY: usize = 64 << 10;

/// Commands of one client that wait for their answer. After that its bytes stay in the kernel, and then with it.
pub const COMMANDS: usize = 64;

/// Subscriptions of one client.
pub const SUBSCRIPTIONS: usize = 64;

/// A message must be complete so long after its first byte: a client that sends a byte now and then must not hold a place.
pub const COMPLETE: Duration = Duration::from_secs(10);

/// A client that takes nothing for so long while something waits for it is cut.
pub const TAKES: Duration = Duration::from_secs(10);

/// A command must be answered within this. The vendor's example gives up after 5 s without a byte.
pub const ANSWER: Duration = Duration::from_secs(2);

/// What commands mean: the gateway behind the protocol.
pub trait Desk {
    /// Whether there is a command of this name. `Subscribe`, `Unsubscribe`, `DeviceSubscribe` and `DeviceUnsubscribe` are
    /// not asked for.
    fn knows_command(&self, command: &str) -> bool;

    /// Carries out or refuses one command.
    fn answer(&mut self, now: Instant, asked: &Asked<'_>) -> Answer;

    /// Looks again at a command that was answered with [`Answer::Pending`].
    fn settle(&mut self, now: Instant, ticket: u64) -> Option<Answer>;

    /// Nobody asks for this ticket any more: its command took longer than [`ANSWER`], or its client has gone.
    fn forget(&mut self, now: Instant, ticket: u64) {
        let _ = (now, ticket);
    }

    /// Whether this device exists.
    fn knows_device(&self, device: &str) -> bool;

    /// Whether this topic exists for this device, or for the gateway itself where there is none. The topic `*` is asked for
    /// as it is: whether the publisher has any.
    fn knows_topic(&self, device: Option<&str>, publisher: &str, topic: &str) -> bool;
}

/// A desk that has news, and wants to know who comes and goes.
pub trait Service: Desk {
    /// Called once a turn, about every 100 ms and more often under load: what has happened since.
    fn turn(&mut self, now: Instant) -> Vec<Event>;

    /// Something happened at the door.
    fn told(&mut self, now: Instant, door: Door) {
        let _ = (now, door);
    }
}

/// What happened at the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// A client was let in.
    Connected(std::net::SocketAddr),
    /// Somebody who may not connect was sent away without a word.
    NotAllowed(std::net::SocketAddr),
    /// One client too many was told so and sent away.
    Refused(std::net::SocketAddr),
    /// A client has gone.
    Ended(std::net::SocketAddr, Ended),
    /// This process can take no connection at present, for this errno. Told once until it can again.
    NoAccept(i32),
}

/// A command, checked as far as the protocol goes.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its name.
    pub command: &'a str,
    /// All its arguments, `DeviceId` among them.
    pub arguments: &'a Map<String, Value>,
    /// The device it is for, which exists: for `GetDeviceInfo` and every command whose name begins with `Device`.
    pub device: Option<&'a str>,
    /// The client is on the loopback address.
    pub local: bool,
}

/// What becomes of a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Carried out, with or without data.
    Ok(Option<Map<String, Value>>),
    /// Refused.
    Refused(ErrorCode, String),
    /// To be asked for again under this number.
    Pending(u64),
}

/// Something that has happened, for those who have subscribed to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The upper level of its name.
    pub publisher: String,
    /// The lower level of its name.
    pub topic: String,
    /// The device it happened to; none is the gateway itself.
    pub device: Option<String>,
    /// The rest.
    pub data: Value,
}

impl Event {
    /// The message, once for all clients.
    #[must_use]
    pub fn encode(&self) -> Arc<[u8]> {
        envelope::event(&self.publisher, &self.topic, self.device.as_deref(), &self.data).into()
    }
}
