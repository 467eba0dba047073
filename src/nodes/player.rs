//! The connection to the Player, decided: feedback in, one message with every vehicle's acks out.
//!
//! Owns the newest feedback of each vehicle with its age, the pace of our messages, the strikes against a server that
//! sends nonsense, and the bytes that wait in front of the socket. Relies on `proto::ocp::player`. Never waits and never
//! sees the socket; never returns an ack of an earlier connection, and never sends half a message.

use std::collections::BTreeMap;

pub use crate::proto::ocp::player::FeedbackError;
use crate::proto::ocp::player::{self, ClientMessage, Feedback, Oversize, VehicleFeedback};
use crate::proto::ocp::{Deframer, FrameError};
use crate::time::{Duration, Instant};

/// Shortest time between two messages: OCP looks at its data every 10 ms.
pub const MIN_GAP: Duration = Duration::from_millis(10);

/// Longest time between two messages.
pub const MAX_GAP: Duration = Duration::from_millis(50);

/// Invalid messages within [`STRIKE_MEMORY`] that end the connection.
const STRIKES: usize = 3;

/// The time in which strikes are counted.
const STRIKE_MEMORY: Duration = Duration::from_secs(1);

/// A message whose bytes take longer than this comes from no Player: the largest is 16 KiB, and the server is on this
/// machine or one cable away.
const ASSEMBLY: Duration = Duration::from_secs(1);

/// Without a message for this long the connection is made anew (the read timeout of the vendor's own examples).
const SILENT: Duration = Duration::from_secs(2);

/// Our bytes are not taken for this long: the server does not read.
const BLOCKED: Duration = Duration::from_secs(2);

/// A loop that stays open for this long although acks go back: our data are not taken.
const UNCLOSED: Duration = Duration::from_secs(3);

/// Vehicles of one message, and vehicles kept; a Player connects to a few.
const VEHICLES: usize = 64;

/// Why a connection is given up. Consequence: it is closed and made anew, with growing delays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GiveUp {
    /// A length that OCP never sends, or too many messages that are none.
    Nonsense,
    /// A message that does not get complete.
    Stalled,
    /// No message.
    Silent,
    /// The server does not read.
    Blocked,
}

impl std::fmt::Display for GiveUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nonsense => "this is not OCP (another program on that port?)",
            Self::Stalled => "a message does not get complete",
            Self::Silent => "connected, but no feedback comes (another program on that port?)",
            Self::Blocked => "the server does not read",
        })
    }
}

/// What the bytes brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlayerEvent {
    /// Feedback; [`PlayerNode::vehicles`] has it.
    Feedback,
    /// A message that is none; dropped.
    Invalid(FeedbackError),
    /// A message without a body; dropped.
    Empty,
    /// One vehicle's part was dropped.
    Unusable(String, FeedbackError),
    /// The connection must be given up.
    GiveUp(GiveUp),
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlayerCounters {
    /// Feedback messages that were used.
    pub feedback: u64,
    /// Messages that were dropped.
    pub invalid: u64,
    /// Parts of messages that were dropped.
    pub unusable: u64,
    /// Messages of ours that the kernel took whole.
    pub sent: u64,
    /// Messages that were not written because the one before was not taken yet.
    pub skipped: u64,
    /// Messages that were longer than OCP takes.
    pub oversize: u64,
}

/// A vehicle as it was last heard of.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// When.
    pub at: Instant,
    /// What.
    pub feedback: VehicleFeedback,
}

/// One connection to a Player after another.
#[derive(Debug)]
pub struct PlayerNode {
    deframer: Deframer,
    vehicles: BTreeMap<String, Seen>,
    /// The vehicles of the newest message on this connection.
    connected: Vec<String>,
    /// Vehicles of that message whose part cannot be used: they are connected all the same.
    unread: usize,
    feedback_at: Option<Instant>,
    is_linked: bool,
    /// This connection has brought feedback.
    is_known: bool,
    heard_at: Instant,
    partial_since: Option<Instant>,
    strikes: heapless::Deque<Instant, STRIKES>,
    pending: std::collections::VecDeque<PlayerEvent>,
    out: Vec<u8>,
    out_at: usize,
    out_since: Instant,
    sent_at: Option<Instant>,
    /// Something new is to be sent.
    is_wanted: bool,
    open_since: Option<Instant>,
    counters: PlayerCounters,
}

impl Default for PlayerNode {
    fn default() -> Self {
        Self::new()
    }
}

impl PlayerNode {
    /// A node without a connection.
    #[must_use]
    pub fn new() -> Self {
        Self {
            deframer: Deframer::new(),
            vehicles: BTreeMap::new(),
            connected: Vec::new(),
            unread: 0,
            feedback_at: None,
            is_linked: false,
            is_known: false,
            heard_at: Instant::ZERO,
            partial_since: None,
            strikes: heapless::Deque::new(),
            pending: std::collections::VecDeque::new(),
            out: Vec::new(),
            out_at: 0,
            out_since: Instant::ZERO,
            sent_at: None,
            is_wanted: false,
            open_since: None,
            counters: PlayerCounters::default(),
        }
    }

    /// A connection was made. What was known stays, and grows old; no ack of before is returned.
    pub fn handle_connected(&mut self, now: Instant) {
        self.handle_disconnected();
        self.is_linked = true;
        self.heard_at = now;
    }

    /// The connection has ended.
    pub fn handle_disconnected(&mut self) {
        self.deframer.clear();
        self.connected.clear();
        self.unread = 0;
        self.is_linked = false;
        self.is_known = false;
        self.partial_since = None;
        self.strikes.clear();
        self.pending.clear();
        self.out.clear();
        self.out_at = 0;
        self.sent_at = None;
        self.is_wanted = false;
        self.open_since = None;
    }

    /// Whether there is a connection.
    #[must_use]
    pub const fn is_linked(&self) -> bool {
        self.is_linked
    }

    /// What was counted.
    #[must_use]
    pub const fn counters(&self) -> PlayerCounters {
        self.counters
    }

    /// When the newest feedback came; `None` before the first.
    #[must_use]
    pub const fn feedback_at(&self) -> Option<Instant> {
        self.feedback_at
    }

    /// Every vehicle that was heard of since the start, by name.
    #[must_use]
    pub const fn vehicles(&self) -> &BTreeMap<String, Seen> {
        &self.vehicles
    }

    /// The vehicles that the newest message of this connection names.
    #[must_use]
    pub fn connected(&self) -> &[String] {
        &self.connected
    }

    /// How many more vehicles that message has, of which nothing can be read.
    #[must_use]
    pub const fn unread(&self) -> usize {
        self.unread
    }

    /// The ack pair to return for a vehicle; `None` where it is not in the newest message of this connection.
    #[must_use]
    pub fn ack(&self, vehicle: &str) -> Option<(u64, u32)> {
        let seen =
            self.connected.iter().any(|name| name == vehicle).then(|| self.vehicles.get(vehicle))??;
        Some((seen.feedback.ack_time, seen.feedback.ack_time_mac))
    }

    /// Room for the next bytes of the socket.
    pub fn spare(&mut self) -> &mut [u8] {
        self.deframer.spare()
    }

    /// Says how many bytes were read into [`PlayerNode::spare`].
    pub fn commit(&mut self, n: usize) {
        self.deframer.commit(n);
    }

    /// The next event of the bytes that are here.
    pub fn poll_event(&mut self, now: Instant) -> Option<PlayerEvent> {
        if let Some(event) = self.pending.pop_front() {
            return Some(event);
        }
        let body = match self.deframer.poll_frame() {
            Ok(Some(body)) => body,
            Ok(None) => {
                self.partial_since =
                    if self.deframer.is_partial() { self.partial_since.or(Some(now)) } else { None };
                return None;
            }
            Err(FrameError::Empty) => return Some(self.strike(now, PlayerEvent::Empty)),
            Err(FrameError::Oversize(_)) => return Some(PlayerEvent::GiveUp(GiveUp::Nonsense)),
        };
        self.partial_since = None;
        let decoded = player::decode_feedback(body);
        self.heard_at = now;
        match decoded {
            Ok(feedback) => {
                self.take(now, feedback);
                Some(PlayerEvent::Feedback)
            }
            Err(error) => Some(self.strike(now, PlayerEvent::Invalid(error))),
        }
    }

    fn take(&mut self, now: Instant, feedback: Feedback) {
        self.counters.feedback += 1;
        self.feedback_at = Some(now);
        self.is_known = true;
        self.unread = feedback.unusable.len() + feedback.vehicles.len().saturating_sub(VEHICLES);
        self.connected = feedback.vehicles.keys().take(VEHICLES).cloned().collect();
        self.is_wanted = true;
        let is_open = feedback
            .vehicles
            .values()
            .any(|vehicle| vehicle.receiver_fault.iter().any(|fault| is_open_loop(fault)));
        // Only while our acks go out: before the first there is nothing that could have closed it.
        self.open_since =
            if is_open && self.sent_at.is_some() { self.open_since.or(Some(now)) } else { None };
        for (name, feedback) in feedback.vehicles.into_iter().take(VEHICLES) {
            self.vehicles.insert(name, Seen { at: now, feedback });
        }
        // A server that invents a name with each message must not fill the memory: the longest unheard of is forgotten.
        while self.vehicles.len() > VEHICLES {
            let oldest = self.vehicles.iter().min_by_key(|(_, seen)| seen.at).map(|(name, _)| name.clone());
            oldest.and_then(|name| self.vehicles.remove(&name));
        }
        for (name, error) in feedback.unusable {
            self.counters.unusable += 1;
            self.pending.push_back(PlayerEvent::Unusable(name, error));
        }
    }

    fn strike(&mut self, now: Instant, event: PlayerEvent) -> PlayerEvent {
        self.counters.invalid += 1;
        while self.strikes.front().is_some_and(|at| now.since(*at) >= STRIKE_MEMORY) {
            self.strikes.pop_front();
        }
        // Three places: a fourth strike never comes, the third closes.
        let _ = self.strikes.push_back(now);
        if self.strikes.is_full() {
            self.pending.push_back(PlayerEvent::GiveUp(GiveUp::Nonsense));
        }
        event
    }

    /// What time alone says about the connection.
    #[must_use]
    pub fn handle_timeout(&self, now: Instant) -> Option<GiveUp> {
        if !self.is_linked {
            return None;
        }
        if self.partial_since.is_some_and(|since| now.since(since) >= ASSEMBLY) {
            return Some(GiveUp::Stalled);
        }
        if self.out_at < self.out.len() && now.since(self.out_since) >= BLOCKED {
            return Some(GiveUp::Blocked);
        }
        (now.since(self.heard_at) >= SILENT).then_some(GiveUp::Silent)
    }

    /// Whether the latency loop stays open although acks are returned: the Player does not take our data, most likely
    /// because another source has locked it.
    #[must_use]
    pub fn is_locked_out(&self, now: Instant) -> bool {
        self.open_since.is_some_and(|since| now.since(since) >= UNCLOSED)
    }

    /// There is something new to send.
    pub const fn want(&mut self) {
        self.is_wanted = true;
    }

    /// When the next message is due; `None` without a connection, or before its first feedback: nobody is known then.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        if !self.is_known {
            return None;
        }
        let gap = if self.is_wanted { MIN_GAP } else { MAX_GAP };
        Some(self.sent_at.map_or(Instant::ZERO, |at| at + gap))
    }

    /// Puts one message in front of the socket. Where the one before is not gone yet, this one is dropped: the next is
    /// newer. Returns whether it was taken.
    ///
    /// # Errors
    /// [`Oversize`]: nothing of it is sent.
    pub fn send(&mut self, now: Instant, message: &ClientMessage) -> Result<bool, Oversize> {
        self.sent_at = Some(now);
        self.is_wanted = false;
        if self.out_at < self.out.len() {
            self.counters.skipped += 1;
            return Ok(false);
        }
        match message.frame() {
            Ok(frame) => {
                self.out = frame;
                self.out_at = 0;
                self.out_since = now;
                Ok(true)
            }
            Err(error) => {
                self.counters.oversize += 1;
                Err(error)
            }
        }
    }

    /// The bytes to write now.
    #[must_use]
    pub fn poll_transmit(&self) -> Option<&[u8]> {
        self.out.get(self.out_at..).filter(|rest| !rest.is_empty())
    }

    /// Says that the kernel took `n` bytes of [`PlayerNode::poll_transmit`].
    pub fn handle_written(&mut self, n: usize) {
        self.out_at = self.out_at.saturating_add(n).min(self.out.len());
        if n > 0 && self.out_at == self.out.len() {
            self.counters.sent += 1;
            self.out.clear();
            self.out_at = 0;
        }
    }
}

/// Both spellings of the two faults that say so: `HighLatency`, `High Latency`, `Latency Loop Not Closed`.
fn is_open_loop(fault: &str) -> bool {
    let letters: String =
        fault.chars().filter(char::is_ascii_alphabetic).map(|c| c.to_ascii_lowercase()).collect();
    letters == "highlatency" || letters == "latencyloopnotclosed"
}

#[cfg(test)]
mod tests;
