//! Every thread and every channel of the process, declared in one table.
//!
//! Owns the threads' names, what they wait on, the channels between them with depth and behaviour when full, and the
//! atomics that any thread may set. Relies on `safety` and `can` for what travels. Nobody blocks on send, every drop
//! is counted, and no thread is started after the first frame.

pub mod car;
mod channel;
pub mod gauges;
mod shared;
pub mod station;
pub mod tunnel;

use std::mem::size_of;
use std::net::SocketAddr;

use self::car::CarNews;
pub use self::channel::{Rx, Tx, channel};
pub use self::shared::{Counter, Shared};
use self::station::StationNews;
use self::tunnel::{News, Peers};
use crate::can::Frame;
use crate::io::canbus::{OpenCause, Port};
use crate::io::confine::{Family, Rights, Unconfined};
use crate::io::tcp::LinkError;
use crate::limits::{BUSES, COMMAND_DEPTH, EVENT_DEPTH, FEEDBACK_DEPTH, HAPPENING_DEPTH};
use crate::nodes::management::history::Happening;
use crate::nodes::rcsp::Ended;
use crate::safety::input::{Command, Status};
use crate::time::Instant;

/// A thread of the gateway.
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
    /// The tunnels, where the configuration has any.
    Tcpcan,
    /// The management plane, unless the configuration switches it off.
    Rcsp,
    /// The simulated car in the place of a vehicle, where the configuration has one.
    Assetto,
    /// The operator's side: the only thread beside main where `role = "operator"`.
    Station,
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
    /// What it may open once it runs: no thread that reads what others sent opens a file. The kernel holds it to that.
    pub rights: Rights,
    /// What it does.
    pub duty: &'static str,
}

/// No file, and sockets of these families.
const fn sockets(sockets: &'static [Family]) -> Rights {
    Rights { files: false, threads: false, sockets }
}

/// Where a bus is: at the kernel, which is asked for it by netlink, or behind a socket of this computer, where the first who
/// opens the built-in bus is its host and has a thread for it.
const BUSES_ONLY: Rights = Rights { threads: true, ..sockets(&[Family::Can, Family::Netlink, Family::Unix]) };
const BUSES_AND_IP: Rights =
    Rights { threads: true, ..sockets(&[Family::Can, Family::Netlink, Family::Unix, Family::Ip]) };

impl Thread {
    /// Every kind of thread.
    pub const ALL: [Self; 8] = [
        Self::Main,
        Self::Ocp,
        Self::Can,
        Self::Watchdog,
        Self::Tcpcan,
        Self::Rcsp,
        Self::Assetto,
        Self::Station,
    ];

    /// The row of this thread.
    #[must_use]
    pub const fn spec(self) -> ThreadSpec {
        match self {
            Self::Main => ThreadSpec {
                name: "main",
                waits_on: "events of the others, 100 ms at most",
                priority: None,
                rights: Rights::PROGRAM,
                duty: "start and stop order, signals, log lines, exit code",
            },
            Self::Ocp => ThreadSpec {
                name: "ocp",
                waits_on: "OCP TCP read, 20 ms at most",
                priority: Some(40),
                rights: sockets(&[Family::Ip]),
                duty: "deframe, decode, trip bits first, newest command to watchdog, answer the ack",
            },
            Self::Can => ThreadSpec {
                name: "can",
                waits_on: "CAN read, 20 ms at most",
                priority: Some(40),
                rights: BUSES_ONLY,
                duty: "feedback to watchdog and ocp; bus load and drops",
            },
            Self::Watchdog => ThreadSpec {
                name: "watchdog",
                waits_on: "new command or tick, 5 ms at most",
                priority: Some(45),
                // A restart of a bus is asked for by a file; its socket is the service manager's.
                rights: Rights { files: true, ..sockets(&[Family::Unix]) },
                duty: "step the core, write every actuator frame, feed systemd",
            },
            Self::Tcpcan => ThreadSpec {
                name: "tcpcan",
                waits_on: "listeners, peers and their bus sockets in one poll, 100 ms at most",
                priority: None,
                rights: BUSES_AND_IP,
                duty: "tunnel with bounded buffers for each peer, every frame of a peer through the gate",
            },
            Self::Rcsp => ThreadSpec {
                name: "rcsp",
                waits_on: "the listener and its clients in one poll, 100 ms at most",
                priority: None,
                rights: sockets(&[Family::Ip, Family::Netlink, Family::Unix]), // asks for bit rates
                duty: "management plane: answers how the gateway is, tells events; can ask for a stop, never for motion",
            },
            Self::Assetto => ThreadSpec {
                name: "assetto",
                waits_on: "UDP and its frames' beat, 50 ms at most",
                priority: None,
                rights: BUSES_AND_IP,
                duty: "the simulated car: its telemetry, and the frames that it sends in the place of a vehicle",
            },
            Self::Station => ThreadSpec {
                name: "station",
                waits_on: "the Player's connection and every bus in one poll, 20 ms at most",
                priority: None,
                rights: BUSES_AND_IP,
                duty: "operator role: panel to user data, acks of every vehicle, feedback to the dashboard",
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
    /// What the tunnel has to tell the log.
    TunnelNews,
    /// The gateway's own state for the management plane.
    StatusToRcsp,
    /// The tunnels' peers for the management plane.
    PeersToRcsp,
    /// What main has written down, for those who subscribed to it.
    Happenings,
    /// What the simulated car has to tell the log.
    CarNews,
    /// What the operator station has to tell the log.
    StationNews,
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
    pub const ALL: [Self; 13] = [
        Self::Operator,
        Self::FeedbackToWatchdog,
        Self::FeedbackToOcp,
        Self::StatusToOcp,
        Self::Events,
        Self::Sockets,
        Self::DeadSockets,
        Self::TunnelNews,
        Self::StatusToRcsp,
        Self::PeersToRcsp,
        Self::Happenings,
        Self::CarNews,
        Self::StationNews,
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
            Self::TunnelNews => "tunnel-news",
            Self::StatusToRcsp => "status-to-rcsp",
            Self::PeersToRcsp => "peers-to-rcsp",
            Self::Happenings => "happenings",
            Self::CarNews => "car-news",
            Self::StationNews => "station-news",
        }
    }

    /// The row of this channel.
    #[must_use]
    #[allow(clippy::too_many_lines, reason = "a table: one row for each channel")]
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
        use Thread::{Assetto, Can, Main, Ocp, Rcsp, Station, Tcpcan, Watchdog};
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
            Self::TunnelNews => row(
                Tcpcan,
                Main,
                EVENT_DEPTH,
                DropNewest,
                size_of::<News>(),
                "a hostile peer must not push out the events of the watchdog",
            ),
            Self::StatusToRcsp => row(
                Watchdog,
                Rcsp,
                1,
                EvictOldest,
                size_of::<Status>(),
                "mailbox: whoever asks is told what is now",
            ),
            Self::PeersToRcsp => row(
                Tcpcan,
                Rcsp,
                1,
                EvictOldest,
                size_of::<Peers>(),
                "mailbox: whoever asks is told who is there now",
            ),
            Self::Happenings => row(
                Main,
                Rcsp,
                HAPPENING_DEPTH,
                DropNewest,
                size_of::<(Instant, Happening)>(),
                "the first events tell the cause; a slow client must not hold the log",
            ),
            Self::CarNews => row(
                Assetto,
                Main,
                EVENT_DEPTH,
                DropNewest,
                size_of::<CarNews>(),
                "the first events tell the cause; a slow log must not hold the car's frames",
            ),
            Self::StationNews => row(
                Station,
                Main,
                EVENT_DEPTH,
                DropNewest,
                size_of::<StationNews>(),
                "the first events tell the cause; a slow log must not hold the panel",
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
    /// A client asked for something: the command, who, and what came of it.
    Requested(&'static str, &'static str, &'static str),
    /// A client's connection was closed for what it sent or did not read.
    RcspClosed(SocketAddr, Ended),
    /// The management plane can be asked here.
    RcspListening(SocketAddr),
    /// It cannot: the errno. It is tried again.
    RcspNotListening(i32),
    /// A thread panicked.
    Panicked(Thread),
    /// A thread could not get real-time priority or locked memory.
    RealTimeRefused {
        /// The thread.
        thread: Thread,
        /// The kernel's error number.
        errno: i32,
    },
    /// The kernel does not hold a thread to its rights.
    NotConfined(Thread, Unconfined),
    /// The watchdog has ended; nothing will be sent any more.
    WatchdogEnded,
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
    out.push_str("what a thread may open once it runs\n");
    for thread in Thread::ALL {
        let ThreadSpec { name, rights, .. } = thread.spec();
        let _ = writeln!(out, "  {name:<9} {rights}");
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
