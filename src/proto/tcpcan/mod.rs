//! CAN frames over TCP, version 1 of the Python `tcpcan`: one bus per connection, both directions.
//!
//! Owns the messages, the negotiation, and the bounded queues on both sides of a connection. Relies on
//! [`crate::can`] and [`crate::time`]. Never decides whether a frame may go onto a bus: that is the gate's, which
//! sees every frame that comes out of here.
//!
//! ```text
//!   +------------+--------------+---------------------------+
//!   | prefix, 1  | N, 1         | N bytes                   |   both directions, no checksum, no resynchronisation
//!   +------------+--------------+---------------------------+
//!   | 'v'        | 4            | version, u32 BIG endian   |   until both sides named the same version
//!   | 'd'        | 16 or 72     | can_frame or canfd_frame, |   from then on, nothing else
//!   |            |              | words LITTLE endian       |
//! ```
//!
//! The path in: [`session::Session`] -> gate -> [`queue::FrameQueue`] -> bus. The path out: bus ->
//! [`outbox::Outbox`] -> one send per [`outbox::Segment`].

#[doc(hidden)]
pub mod fuzz;
mod ledger;
pub mod message;
pub mod outbox;
mod parser;
pub mod queue;
pub mod session;

pub use message::{
    CLASSIC_MESSAGE, FD_MESSAGE, HEADER, Message, PORT, Refusal, VERSION, VERSION_MESSAGE, WireError, decode,
    encode_frame, encode_version, message_bytes,
};
pub use outbox::{Outbox, OutboxCounters, Segment};
pub use queue::{FrameQueue, QueueCounters};
pub use session::{Role, Session, SessionError, SessionEvent, SessionSettings};
