//! What the core's tests share: a world around the core that can be broken piece by piece, and an oracle that judges
//! what leaves it.
//!
//! Owns both. Relies on the public interface of `safety` and on the plan of `sim::world`. The oracle decodes bytes and
//! keeps its own view of time; it asks the core for its state's name and nothing else.

#![allow(dead_code, reason = "each test binary uses a part")]

pub mod oracle;
pub mod rig;
