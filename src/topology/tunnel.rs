//! What the tunnel tells the rest of the process: news for the log, counters for whoever asks.
//!
//! Owns the messages and the atomics. Relies on `nodes::tunnel` for the reasons. Never blocks the tunnel, and the tunnel
//! can reach nothing else: no command, no feedback, no actuator.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::can::Id;
use crate::can::errorframe::ErrorClass;
use crate::io::canbus::OpenCause;
use crate::io::tcp::LinkError;
use crate::limits::{TUNNEL_CALLERS, TUNNEL_PEERS};
use crate::nodes::management::facts::PeerFacts;
use crate::nodes::tunnel::{Count, Counts, LaneEnd};
use crate::safety::injection::Refusal;

/// What is known of the peers at one moment.
pub type Peers = heapless::Vec<PeerFacts, { TUNNEL_PEERS + TUNNEL_CALLERS }>;

/// Something worth a log line.
#[derive(Debug, Clone, Copy)]
pub struct News {
    /// The peer, where it is about one.
    pub peer: Option<SocketAddr>,
    /// Index of the bus.
    pub bus: usize,
    /// What happened.
    pub what: What,
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The program stops.
    Stopped,
    /// The peer or the network ended it.
    Link(LinkError),
    /// This end closed it.
    Lane(LaneEnd),
    /// There is no room for another peer.
    TooMany,
    /// It had not agreed to a version yet, and another one wanted in.
    Displaced,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stopped => f.write_str("this program stops"),
            Self::Link(error) => write!(f, "connection ended: {error}"),
            Self::Lane(error) => write!(f, "connection closed: {error}"),
            Self::TooMany => write!(f, "connection closed: there are {TUNNEL_PEERS} peers already"),
            Self::Displaced => f.write_str("connection closed: no version agreed, and others wait"),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy)]
pub enum What {
    /// Peers can connect.
    Listening,
    /// The address cannot be listened at: the errno.
    NoListener(i32),
    /// This process can take no more connections at present: the errno. Those who knock wait.
    NoAccept(i32),
    /// The peer was let in, or reached.
    Connected,
    /// The version is agreed: frames pass.
    Agreed,
    /// The connection ended.
    Ended(Ended),
    /// The peer may not connect.
    NotAllowed,
    /// The other end cannot be reached.
    Unreachable(LinkError),
    /// A frame of the peer was refused.
    Refused(Refusal, Id),
    /// The bus cannot be opened.
    BusAway(OpenCause),
    /// The bus went down.
    BusDown,
    /// The bus is there again.
    BusBack,
    /// The bus reports an error.
    BusError(ErrorClass),
}

/// The tunnel's counters as other threads read them.
#[derive(Debug)]
pub struct TunnelCounts([AtomicU64; Count::ALL.len()]);

impl Default for TunnelCounts {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl TunnelCounts {
    /// Publishes them (the tunnel's alone).
    pub fn publish(&self, counts: &Counts) {
        for (cell, (_, value)) in self.0.iter().zip(counts.iter()) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// Every reason with its number, as last published.
    pub fn iter(&self) -> impl Iterator<Item = (Count, u64)> + '_ {
        Count::ALL.iter().zip(&self.0).map(|(count, cell)| (*count, cell.load(Ordering::Relaxed)))
    }
}
