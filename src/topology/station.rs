//! What the operator station tells the rest of the process: news for the log, counters for whoever asks.
//!
//! Owns the messages and the atomics. Relies on `nodes` for the reasons. Never blocks the station.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::io::canbus::OpenCause;
use crate::io::confine::Unconfined;
use crate::io::tcp::LinkError;
use crate::nodes::player::{FeedbackError, GiveUp, PlayerCounters};
use crate::nodes::station::Choice;
use crate::time::Instant;

/// Something worth a log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StationNews {
    /// The Player is connected.
    Connected,
    /// The connection ended, or cannot be made.
    Lost(LinkError),
    /// The Player ended the connection before it had said anything.
    TurnedAway,
    /// The connection was given up by this end.
    GaveUp(GiveUp),
    /// A message was no feedback; told once for each connection and reason.
    Invalid(FeedbackError),
    /// A frame without a body.
    Empty,
    /// One vehicle's part of the feedback cannot be used.
    Unusable(String, FeedbackError),
    /// Another vehicle is chosen, or none.
    Choice(Choice),
    /// A panel frame is stale: rest values are sent.
    PanelLost(String),
    /// Every panel frame is fresh.
    PanelBack,
    /// A vehicle's faults changed.
    Faults {
        /// Which.
        vehicle: String,
        /// Faults of the operator's side.
        sender: Vec<String>,
        /// Faults of the vehicle's side.
        receiver: Vec<String>,
    },
    /// The kernel does not hold the thread to its rights.
    NotConfined(Unconfined),
    /// The Player seems not to take our data.
    LockedOut,
    /// A message was longer than OCP takes: its bytes.
    Oversize(usize),
    /// A bus was opened or lost.
    Bus {
        /// Index of the bus.
        bus: usize,
        /// What it is now, in a person's words.
        what: &'static str,
    },
    /// A bus cannot be opened.
    BusUnavailable {
        /// Index of the bus.
        bus: usize,
        /// Why.
        cause: OpenCause,
    },
    /// The thread panicked.
    Panicked,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident, $text:literal;)*) => {
        /// What is counted for a person to read (SIGUSR1, and at the end).
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum StationCounter {
            $($(#[$doc])* $name,)*
        }

        impl StationCounter {
            /// Every counter, in the order in which they are printed.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What it counts, in a person's words.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

counters! {
    /// Feedback that was used.
    Feedback, "feedback messages";
    /// Feedback that was dropped.
    Invalid, "feedback messages invalid";
    /// Parts of feedback that were dropped.
    Unusable, "vehicles' parts of feedback invalid";
    /// Messages that left.
    Sent, "messages to the Player";
    /// Messages that a newer one replaced.
    Skipped, "messages not written: the one before waits";
    /// Messages that were too long.
    Oversize, "messages longer than OCP takes, dropped";
    /// Connections that were made.
    Connections, "connections to the Player";
    /// Panel frames that were believed.
    PanelFrames, "panel frames";
    /// Panel frames that were not believed.
    PanelRefused, "panel frames not believed (length, counter, checksum, range)";
    /// Frames that the kernel dropped.
    Overflow, "panel frames lost in the kernel before they were read";
    /// Dashboard frames that left.
    DashSent, "dashboard frames";
    /// Dashboard frames that the bus did not take.
    DashDropped, "dashboard frames that the bus did not take";
}

/// What both sides share.
#[derive(Debug)]
pub struct StationShared {
    stop: AtomicBool,
    ended: AtomicBool,
    panicked: AtomicBool,
    beat_ns: AtomicU64,
    counters: [AtomicU64; StationCounter::ALL.len()],
}

impl Default for StationShared {
    fn default() -> Self {
        Self {
            stop: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            beat_ns: AtomicU64::new(0),
            counters: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl StationShared {
    /// Asks the thread to end.
    pub fn request_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the end was asked for.
    #[must_use]
    pub fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The thread has ended.
    pub fn end(&self, panicked: bool) {
        self.panicked.store(panicked, Ordering::Relaxed);
        self.ended.store(true, Ordering::Release);
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Whether it ended by a panic.
    #[must_use]
    pub fn panicked(&self) -> bool {
        self.panicked.load(Ordering::Relaxed)
    }

    /// The thread has made progress.
    pub fn beat(&self, now: Instant) {
        self.beat_ns.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// When the thread made progress last.
    #[must_use]
    pub fn last_beat(&self) -> Instant {
        Instant::from_nanos(self.beat_ns.load(Ordering::Relaxed))
    }

    /// Adds to a counter.
    pub fn add(&self, counter: StationCounter, n: u64) {
        if let Some(cell) = self.counters.get(counter as usize) {
            cell.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Publishes what the connection counts.
    pub fn publish(&self, counted: PlayerCounters, connections: u64) {
        for (counter, value) in [
            (StationCounter::Feedback, counted.feedback),
            (StationCounter::Invalid, counted.invalid),
            (StationCounter::Unusable, counted.unusable),
            (StationCounter::Sent, counted.sent),
            (StationCounter::Skipped, counted.skipped),
            (StationCounter::Oversize, counted.oversize),
            (StationCounter::Connections, connections),
        ] {
            if let Some(cell) = self.counters.get(counter as usize) {
                cell.store(value, Ordering::Relaxed);
            }
        }
    }

    /// Every counter with its number.
    pub fn counters(&self) -> impl Iterator<Item = (StationCounter, u64)> + '_ {
        StationCounter::ALL
            .iter()
            .zip(&self.counters)
            .map(|(counter, cell)| (*counter, cell.load(Ordering::Relaxed)))
    }
}
