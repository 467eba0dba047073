//! RCSP, the management protocol: an 8-byte header and a JSON body, commands one way, answers and events the other.
//!
//! Owns the framing and the envelopes, in bytes and back. Relies on `serde_json` (nothing here is on the command path).
//! Never knows what a command means, and claims no more of RCSP than is publicly documented: names and shapes that are
//! ours are marked so where they stand.

pub mod body;
pub mod envelope;
#[doc(hidden)]
pub mod fuzz;
pub mod header;
pub mod reader;
pub mod reply;

pub use envelope::{Command, ErrorCode, Refusal, TrackId};
pub use reply::{EventBody, RemoteError, Reply, ReplyError};
