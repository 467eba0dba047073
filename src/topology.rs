//! Every thread and every channel of the process, declared in one table.
//!
//! Owns the threads' names, what they wait on, the channels between them with depth and behaviour when full, and the
//! atomics that any thread may set. Relies on `safety` and `can` for what travels. Nobody blocks on send, every drop
//! is counted, and no thread is started after the first frame.

use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError};

use crate::can::Frame;
use crate::io::canbus::{OpenCause, Port};
use crate::io::tcp::LinkError;
use crate::limits::{BUSES, COMMAND_DEPTH, EVENT_DEPTH, FEEDBACK_DEPTH};
use crate::safety::faults::{Fault, Faults};
use crate::safety::input::{Command, Requests, Status, Stop};
use crate::time::{Duration, Instant};

/// A thread of the vehicle role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thread {
    /// Signals, thread ends, log lines.
    Main,
    /// The OCP connection.
    Ocp,
    /// One CAN bus; there is one such thread per bus.
    Can,
    /// The safety core and the only actuator writer.
    Watchdog,
}

/// A row of the table of threads.
#[derive(Debug, Clone, Copy)]
pub struct ThreadSpec {
    /// The thread's name, as the kernel shows it (a bus thread appends the bus name).
    pub name: &'static str,
    /// What it waits on: one thing.
    pub waits_on: &'static str,
    /// SCHED_FIFO priority; `None` is the normal class. All lie below the kernel's interrupt threads (50).
    pub priority: Option<i32>,
    /// What it does.
    pub duty: &'static str,
}

impl Thread {
    /// Every kind of thread.
    pub const ALL: [Self; 4] = [Self::Main, Self::Ocp, Self::Can, Self::Watchdog];

    /// The row of this thread.
    #[must_use]
    pub const fn spec(self) -> ThreadSpec {
        match self {
            Self::Main => ThreadSpec {
                name: "main",
                waits_on: "events of the others, 100 ms at most",
                priority: None,
                duty: "start and stop order, signals, log lines, exit code",
            },
            Self::Ocp => ThreadSpec {
                name: "ocp",
                waits_on: "OCP TCP read, 20 ms at most",
                priority: Some(40),
                duty: "deframe, decode, trip bits first, newest command to watchdog, answer the ack",
            },
            Self::Can => ThreadSpec {
                name: "can",
                waits_on: "CAN read, 20 ms at most",
                priority: Some(40),
                duty: "feedback to watchdog and ocp; bus load and drops",
            },
            Self::Watchdog => ThreadSpec {
                name: "watchdog",
                waits_on: "new command or tick, 5 ms at most",
                priority: Some(45),
                duty: "step the core, write every actuator frame, feed systemd",
            },
        }
    }
}

/// What happens when a channel is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest message makes room; the drop is counted.
    EvictOldest,
    /// The new message is dropped and counted.
    DropNewest,
}

/// A channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// Newest command.
    Operator,
    /// Feedback frames for freshness and standstill.
    FeedbackToWatchdog,
    /// Feedback frames for the operator's display.
    FeedbackToOcp,
    /// The gateway's own state for the operator.
    StatusToOcp,
    /// State changes and trips for the log.
    Events,
    /// Opened actuator sockets: opening may wait in the kernel, so the watchdog never does it.
    Sockets,
    /// Dead actuator sockets: closing may wait in the kernel too.
    DeadSockets,
}

/// A row of the table of channels.
#[derive(Debug, Clone, Copy)]
pub struct EdgeSpec {
    /// Who sends.
    pub from: Thread,
    /// Who receives.
    pub to: Thread,
    /// Messages it holds.
    pub depth: usize,
    /// What happens when it is full.
    pub when_full: WhenFull,
    /// Bytes of one message.
    pub message_bytes: usize,
    /// Why it is so.
    pub why: &'static str,
}

impl Edge {
    /// Every channel.
    pub const ALL: [Self; 7] = [
        Self::Operator,
        Self::FeedbackToWatchdog,
        Self::FeedbackToOcp,
        Self::StatusToOcp,
        Self::Events,
        Self::Sockets,
        Self::DeadSockets,
    ];

    /// The name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::FeedbackToWatchdog => "feedback-to-watchdog",
            Self::FeedbackToOcp => "feedback-to-ocp",
            Self::StatusToOcp => "status-to-ocp",
            Self::Events => "events",
            Self::Sockets => "sockets",
            Self::DeadSockets => "dead-sockets",
        }
    }

    /// The row of this channel.
    #[must_use]
    pub const fn spec(self) -> EdgeSpec {
        const fn row(
            from: Thread,
            to: Thread,
            depth: usize,
            when_full: WhenFull,
            message_bytes: usize,
            why: &'static str,
        ) -> EdgeSpec {
            EdgeSpec { from, to, depth, when_full, message_bytes, why }
        }
        use Thread::{Can, Main, Ocp, Watchdog};
        use WhenFull::{DropNewest, EvictOldest};
        match self {
            Self::Operator => row(
                Ocp,
                Watchdog,
                COMMAND_DEPTH,
                EvictOldest,
                size_of::<Demand>(),
                "only the newest demand matters; trips travel by atomics",
            ),
            Self::FeedbackToWatchdog => row(
                Can,
                Watchdog,
                FEEDBACK_DEPTH,
                EvictOldest,
                size_of::<Arrival>(),
                "a drop makes feedback older, and age is what is judged",
            ),
            Self::FeedbackToOcp => row(
                Can,
                Ocp,
                FEEDBACK_DEPTH,
                EvictOldest,
                size_of::<Arrival>(),
                "the operator sees the newest values",
            ),
            Self::StatusToOcp => {
                row(Watchdog, Ocp, 1, EvictOldest, size_of::<Status>(), "mailbox for the next answer")
            }
            Self::Events => row(
                Watchdog,
                Main,
                EVENT_DEPTH,
                DropNewest,
                size_of::<Event>(),
                "the first events tell the cause; a slow log must not hold the watchdog",
            ),
            Self::Sockets => row(
                Can,
                Watchdog,
                BUSES,
                EvictOldest,
                size_of::<ActuatorSocket>(),
                "one per bus; a newer socket of a bus replaces the older one",
            ),
            Self::DeadSockets => row(
                Watchdog,
                Can,
                BUSES,
                DropNewest,
                size_of::<Port>(),
                "closed by whoever has time; dropped here only if all buses die at once",
            ),
        }
    }
}

/// What wakes the watchdog.
#[derive(Debug, Clone, Copy)]
#[allow(
    clippy::large_enum_variant,
    reason = "messages travel inline: a box would allocate on the command path"
)]
pub enum Demand {
    /// The newest command.
    Command(Command),
    /// Trip bits were set, or the link changed.
    Wake,
}

/// A frame that arrived on a bus.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// Index of the bus.
    pub bus: usize,
    /// When it was read.
    pub at: Instant,
    /// The frame.
    pub frame: Frame,
}

/// An opened actuator socket on its way to the watchdog.
#[derive(Debug)]
pub struct ActuatorSocket {
    /// Index of the bus.
    pub bus: usize,
    /// The socket: the actuator ids, error messages and its own echo.
    pub port: Port,
    /// Whether the echo counts as proof.
    pub proof: bool,
}

/// Something worth a log line.
#[derive(Debug, Clone, Copy)]
pub enum Event {
    /// The state changed, or a trip was decided or answered.
    Status(Status),
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
    /// OCP was connected.
    OcpConnected,
    /// The connection to OCP ended or could not be made.
    OcpLost(LinkError),
    /// A thread panicked.
    Panicked(Thread),
    /// A thread could not get real-time priority or locked memory.
    RealTimeRefused {
        /// The thread.
        thread: Thread,
        /// The kernel's error number.
        errno: i32,
    },
    /// The watchdog has ended; nothing will be sent any more.
    WatchdogEnded,
}

/// The sending end of a channel.
#[derive(Debug)]
pub struct Tx<T> {
    sender: Sender<T>,
    /// For evicting the oldest.
    receiver: Receiver<T>,
    when_full: WhenFull,
    dropped: Arc<AtomicU64>,
}

impl<T> Clone for Tx<T> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            receiver: self.receiver.clone(),
            when_full: self.when_full,
            dropped: Arc::clone(&self.dropped),
        }
    }
}

impl<T> Tx<T> {
    /// Offers a message; returns at once, whatever the other end does.
    pub fn offer(&self, message: T) {
        let Err(TrySendError::Full(message)) = self.sender.try_send(message) else { return };
        self.dropped.fetch_add(1, Ordering::Relaxed);
        if self.when_full == WhenFull::EvictOldest {
            let _ = self.receiver.try_recv();
            // Another sender may have taken the place; then this message is the one that is dropped.
            let _ = self.sender.try_send(message);
        }
    }

    /// Messages dropped so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The receiving end of a channel.
#[derive(Debug)]
pub struct Rx<T> {
    receiver: Receiver<T>,
}

impl<T> Clone for Rx<T> {
    fn clone(&self) -> Self {
        Self { receiver: self.receiver.clone() }
    }
}

impl<T> Rx<T> {
    /// The next message, if there is one now.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    /// Waits for a message at most this long.
    #[must_use]
    pub fn wait(&self, at_most: Duration) -> Option<T> {
        self.receiver.recv_timeout(at_most).ok()
    }
}

/// Makes the two ends of a channel as the table says.
#[must_use]
pub fn channel<T>(edge: Edge) -> (Tx<T>, Rx<T>) {
    let spec = edge.spec();
    debug_assert_eq!(spec.message_bytes, size_of::<T>(), "{}", edge.name());
    let (sender, receiver) = crossbeam_channel::bounded(spec.depth);
    let tx = Tx {
        sender,
        receiver: receiver.clone(),
        when_full: spec.when_full,
        dropped: Arc::new(AtomicU64::new(0)),
    };
    (tx, Rx { receiver })
}

/// What any thread may set and the watchdog reads: no locks, no queues.
#[derive(Debug, Default)]
pub struct Shared {
    trips: AtomicU64,
    trips_at_ns: AtomicU64,
    /// 0: no connection; else the session number plus 1.
    link: AtomicU64,
    ocp_beat_ns: AtomicU64,
    can_beats_ns: [AtomicU64; BUSES],
    watchdog_beat_ns: AtomicU64,
    stop: AtomicU8,
    requests: AtomicU32,
    ended: AtomicBool,
    can_alive: AtomicBool,
    panicked: AtomicBool,
    counters: Counters,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident, $text:literal;)*) => {
        /// What is counted for a person to read (SIGUSR1, and at the end).
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Counter {
            $($(#[$doc])* $name,)*
        }

        impl Counter {
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
    /// Valid messages.
    OcpMessages, "OCP messages";
    /// Messages that reported a fault.
    OcpFaults, "OCP messages with a fault";
    /// Messages that did not decode.
    OcpInvalid, "OCP messages invalid";
    /// Connections that this side closed.
    OcpClosed, "OCP connections closed for nonsense";
    /// Complete answers.
    OcpAnswers, "OCP answers";
    /// Answers that a newer one replaced.
    OcpReplaced, "OCP answers replaced by a newer one";
    /// Answers held back.
    OcpWithheld, "OCP answers withheld";
    /// Commands of an old session.
    OldCommands, "commands of an old session dropped";
    /// Commands that a newer one evicted.
    CommandsEvicted, "commands evicted by a newer one";
    /// Feedback frames that did not reach the watchdog.
    FeedbackEvicted, "feedback frames evicted";
    /// Frames read by the can threads.
    CanFrames, "CAN frames read";
    /// Frames that the kernel dropped before they were read.
    CanOverflow, "CAN frames lost before they were read";
    /// Frames sent with an echo.
    Echoes, "own frames confirmed";
    /// Foreign frames with an actuator id.
    Foreign, "frames of others with our ids";
    /// Error messages of the driver.
    BusErrors, "CAN error messages";
    /// Forged error messages.
    Forged, "CAN error messages forged by a program here";
    /// Events that did not fit between two steps.
    EventOverflow, "CAN events lost between two steps";
    /// Log events that did not fit.
    EventsDropped, "log events dropped";
}

/// The counters' values. Each is written by one thread and read by main.
#[derive(Debug, Default)]
struct Counters([AtomicU64; 32]);

const _: () = assert!(Counter::ALL.len() <= 32, "room for every counter");

const REQUEST_ACKNOWLEDGE: u32 = 1;
const REQUEST_ENTER_DIAG: u32 = 2;
const REQUEST_LEAVE_DIAG: u32 = 4;

fn stamp(cell: &AtomicU64, now: Instant) {
    cell.store(now.as_nanos().max(1), Ordering::Release);
}

fn read_stamp(cell: &AtomicU64) -> Option<Instant> {
    match cell.load(Ordering::Acquire) {
        0 => None,
        ns => Some(Instant::from_nanos(ns)),
    }
}

impl Shared {
    /// Raises faults; `at` is when their evidence was at our door. The bits are set before anything else is done.
    pub fn trip(&self, faults: Faults, at: Instant) {
        if faults.is_empty() {
            return;
        }
        // The first one keeps its time: the watchdog clears it with the bits.
        let _ =
            self.trips_at_ns.compare_exchange(0, at.as_nanos().max(1), Ordering::AcqRel, Ordering::Acquire);
        self.trips.fetch_or(faults.bits(), Ordering::AcqRel);
    }

    /// Takes all faults that were raised (the watchdog's alone).
    #[must_use]
    pub fn take_trips(&self) -> (Faults, Option<Instant>) {
        let bits = self.trips.swap(0, Ordering::AcqRel);
        if bits == 0 {
            return (Faults::NONE, None);
        }
        let at = match self.trips_at_ns.swap(0, Ordering::AcqRel) {
            0 => None,
            ns => Some(Instant::from_nanos(ns)),
        };
        (Faults::from_bits(bits), at)
    }

    /// Tells which OCP session is connected.
    pub fn set_link(&self, session: Option<u32>) {
        self.link.store(session.map_or(0, |number| u64::from(number) + 1), Ordering::Release);
    }

    /// The connected session.
    #[must_use]
    pub fn link(&self) -> Option<u32> {
        u32::try_from(self.link.load(Ordering::Acquire).checked_sub(1)?).ok()
    }

    /// The ocp thread came round.
    pub fn beat_ocp(&self, now: Instant) {
        stamp(&self.ocp_beat_ns, now);
    }

    /// A can thread came round.
    pub fn beat_can(&self, bus: usize, now: Instant) {
        if let Some(cell) = self.can_beats_ns.get(bus) {
            stamp(cell, now);
        }
    }

    /// The watchdog came round.
    pub fn beat_watchdog(&self, now: Instant) {
        stamp(&self.watchdog_beat_ns, now);
    }

    /// When the ocp thread last came round.
    #[must_use]
    pub fn ocp_beat(&self) -> Option<Instant> {
        read_stamp(&self.ocp_beat_ns)
    }

    /// When each can thread last came round.
    #[must_use]
    pub fn can_beats(&self) -> [Option<Instant>; BUSES] {
        std::array::from_fn(|bus| self.can_beats_ns.get(bus).and_then(read_stamp))
    }

    /// When the watchdog last came round.
    #[must_use]
    pub fn watchdog_beat(&self) -> Option<Instant> {
        read_stamp(&self.watchdog_beat_ns)
    }

    /// Asks for the end; a second call asks for it now.
    pub fn request_stop(&self) {
        let _ = self.stop.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| Some(n.saturating_add(1)));
    }

    /// What people asked for; acknowledgements are taken once.
    #[must_use]
    pub fn take_requests(&self) -> Requests {
        let bits = self.requests.swap(0, Ordering::AcqRel);
        Requests {
            stop: match self.stop.load(Ordering::Acquire) {
                0 => Stop::No,
                1 => Stop::Profile,
                _ => Stop::Now,
            },
            acknowledge: bits & REQUEST_ACKNOWLEDGE != 0,
            enter_diag: bits & REQUEST_ENTER_DIAG != 0,
            leave_diag: bits & REQUEST_LEAVE_DIAG != 0,
        }
    }

    /// A person at the box acknowledges LOCKOUT.
    pub fn request_acknowledge(&self) {
        self.requests.fetch_or(REQUEST_ACKNOWLEDGE, Ordering::AcqRel);
    }

    /// Publishes a counter's value.
    pub fn set_counter(&self, counter: Counter, value: u64) {
        if let Some(cell) = self.counters.0.get(counter as usize) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// Adds to a counter that several threads share.
    pub fn add_counter(&self, counter: Counter, value: u64) {
        if let Some(cell) = self.counters.0.get(counter as usize) {
            cell.fetch_add(value, Ordering::Relaxed);
        }
    }

    /// Every counter with its value.
    pub fn counters(&self) -> impl Iterator<Item = (Counter, u64)> {
        Counter::ALL.iter().map(|counter| {
            let value = self.counters.0.get(*counter as usize).map_or(0, |cell| cell.load(Ordering::Relaxed));
            (*counter, value)
        })
    }

    /// A thread panicked: safe frames now, then the end.
    pub fn note_panic(&self, now: Instant) {
        self.panicked.store(true, Ordering::Release);
        self.trip(Fault::Panic.into(), now);
        self.stop.store(2, Ordering::Release);
    }

    /// Whether a thread panicked.
    #[must_use]
    pub fn panicked(&self) -> bool {
        self.panicked.load(Ordering::Acquire)
    }

    /// The watchdog is done: every thread ends.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Whether every thread must end.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// The watchdog tells whether the CAN path is proven alive.
    pub fn set_can_alive(&self, alive: bool) {
        self.can_alive.store(alive, Ordering::Release);
    }

    /// Whether the CAN path is proven alive.
    #[must_use]
    pub fn can_alive(&self) -> bool {
        self.can_alive.load(Ordering::Acquire)
    }
}

/// The table of threads and channels as `ocpcan topology` prints it and ARCHITECTURE.md holds it.
#[must_use]
pub fn table() -> String {
    use std::fmt::Write as _;
    let mut out = String::from("threads\n");
    for thread in Thread::ALL {
        let spec = thread.spec();
        let priority = spec.priority.map_or_else(|| "normal".to_owned(), |p| format!("fifo {p}"));
        let _ = writeln!(out, "  {:<9} {:<8} waits on {}; {}", spec.name, priority, spec.waits_on, spec.duty);
    }
    out.push_str("channels\n");
    for edge in Edge::ALL {
        let spec = edge.spec();
        let when = match spec.when_full {
            WhenFull::EvictOldest => "evicts oldest",
            WhenFull::DropNewest => "drops newest",
        };
        let route = format!("{} -> {}", spec.from.spec().name, spec.to.spec().name);
        let _ = writeln!(
            out,
            "  {:<21} {:<17} {:>3} x, {:<13} {}",
            edge.name(),
            route,
            spec.depth,
            when,
            spec.why
        );
    }
    out
}

/// Bytes held by each channel of a gateway with this many buses (a feedback channel is shared by all buses).
pub fn memory() -> impl Iterator<Item = (Edge, usize)> {
    Edge::ALL.into_iter().map(|edge| {
        let spec = edge.spec();
        (edge, spec.depth * spec.message_bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_85_a_full_channel_never_blocks_and_keeps_the_newest() {
        let (sender, receiver) = crossbeam_channel::bounded(4);
        let tx = Tx {
            sender,
            receiver: receiver.clone(),
            when_full: WhenFull::EvictOldest,
            dropped: Arc::new(AtomicU64::new(0)),
        };
        let rx = Rx { receiver };
        for i in 0..10 {
            tx.offer(i);
        }
        let kept: Vec<i32> = std::iter::from_fn(|| rx.take()).collect();
        assert_eq!(kept, [6, 7, 8, 9]);
        assert_eq!(tx.dropped(), 6);
    }

    #[test]
    fn trips_are_set_by_anyone_and_taken_once_with_the_first_time() {
        let shared = Shared::default();
        shared.trip(Fault::OcpFault.into(), Instant::from_millis(5));
        shared.trip(Fault::InvalidMessage.into(), Instant::from_millis(7));
        let (faults, at) = shared.take_trips();
        assert!(faults.contains(Fault::OcpFault) && faults.contains(Fault::InvalidMessage));
        assert_eq!(at, Some(Instant::from_millis(5)));
        assert_eq!(shared.take_trips(), (Faults::NONE, None));
    }

    #[test]
    fn a_link_carries_its_session_number() {
        let shared = Shared::default();
        assert_eq!(shared.link(), None);
        shared.set_link(Some(0));
        assert_eq!(shared.link(), Some(0));
        shared.set_link(Some(u32::MAX));
        assert_eq!(shared.link(), Some(u32::MAX));
    }
}
