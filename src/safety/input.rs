//! What the core is told and what it answers: plain data.
//!
//! Owns the vocabulary between the watchdog's node and the core. Relies on `faults`, `liveness`, `rearm`. Contains no
//! decision.

use super::buswatch::BusEvent;
use super::faults::{Fault, Faults};
use super::liveness::Liveness;
use super::rearm::Checklist;
use crate::can::Frame;
use crate::limits::BUSES;
use crate::signals::source::Readings;
use crate::time::{Duration, Instant};

/// One valid message of the operator.
#[derive(Debug, Clone, Copy)]
pub struct Command {
    /// What its session is worth.
    pub liveness: Liveness,
    /// `telemetry.latency`, milliseconds, finite and not negative.
    pub latency_ms: f64,
    /// What all sources say.
    pub readings: Readings,
}

/// What a watchdog's CAN socket delivered.
#[derive(Debug, Clone, Copy)]
pub enum CanEvent {
    /// The state of the interface changed.
    Bus(BusEvent),
    /// Our own frame came back: it left.
    Echo(Frame),
    /// A frame with one of our ids that we did not send.
    Foreign,
    /// Any other frame.
    Frame(Frame),
}

/// A request to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stop {
    /// None.
    #[default]
    No,
    /// Run the stop profile, then safe frames, then finish.
    Profile,
    /// Safe frames now, then finish.
    Now,
}

/// What people ask for; each only from the box itself, and none of them arms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Requests {
    /// End of the process.
    pub stop: Stop,
    /// Leave LOCKOUT.
    pub acknowledge: bool,
    /// Enter DIAG.
    pub enter_diag: bool,
    /// Leave DIAG.
    pub leave_diag: bool,
}

/// Everything that may have changed since the last step.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The session that is connected; `None` without a connection.
    pub link: Option<u32>,
    /// The newest message, if one came.
    pub command: Option<&'a Command>,
    /// Faults that other threads saw since the last step.
    pub trips: Faults,
    /// When the message or event behind the first of them was at our door, where that is known.
    pub trips_at: Option<Instant>,
    /// What the CAN sockets delivered since the last step, with the bus and the time of reading.
    pub can: &'a [(usize, Instant, CanEvent)],
    /// When the ocp thread last came round.
    pub ocp_beat: Option<Instant>,
    /// When each can thread last came round.
    pub can_beats: [Option<Instant>; BUSES],
    /// What people ask for.
    pub requests: Requests,
}

impl Input<'_> {
    /// Nothing happened and nothing is connected.
    pub const IDLE: Input<'static> = Input {
        link: None,
        command: None,
        trips: Faults::NONE,
        trips_at: None,
        can: &[],
        ocp_beat: None,
        can_beats: [None; BUSES],
        requests: Requests { stop: Stop::No, acknowledge: false, enter_diag: false, leave_diag: false },
    };
}

/// One trip: the first cause, kept until the next arming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trip {
    /// The cause that is told.
    pub fault: Fault,
    /// Everything that was present.
    pub faults: Faults,
    /// When the core decided.
    pub at: Instant,
    /// When it could first be known: the message at our door, the last message before silence, the unproven frame.
    pub evidence_at: Instant,
    /// The state before.
    pub from: StateName,
}

/// A trip answered on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reaction {
    /// The trip.
    pub trip: Trip,
    /// From the evidence to the echo of the last actuator frame's first safe frame.
    pub time: Duration,
}

/// The states, without what they remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum StateName {
    /// Listening before the first frame.
    Init = 0,
    /// Something is missing.
    Safe = 1,
    /// Everything is clear; controls must be at rest.
    Standby = 2,
    /// Controls are at rest; the arm switch must be held.
    Ready = 3,
    /// The operator drives.
    Armed = 4,
    /// The stop profile runs.
    Stopping = 5,
    /// A person at the vehicle must look.
    Lockout = 6,
    /// Local diagnosis.
    Diag = 7,
}

impl StateName {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Init,
        Self::Safe,
        Self::Standby,
        Self::Ready,
        Self::Armed,
        Self::Stopping,
        Self::Lockout,
        Self::Diag,
    ];

    /// The name in `user_data`, events and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Init => "INIT",
            Self::Safe => "SAFE",
            Self::Standby => "STANDBY",
            Self::Ready => "READY",
            Self::Armed => "ARMED",
            Self::Stopping => "STOPPING",
            Self::Lockout => "LOCKOUT",
            Self::Diag => "DIAG",
        }
    }
}

/// What a step decided.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// The state now.
    pub state: StateName,
    /// The state before, where it changed.
    pub left: Option<StateName>,
    /// A trip that this step decided.
    pub trip: Option<Trip>,
    /// A trip that was proven answered in this step.
    pub reaction: Option<Reaction>,
    /// A bus whose restart must be asked for now.
    pub restart: Option<usize>,
    /// The process may end: it was asked to, and safe frames are proven or cannot be.
    pub finished: bool,
}

/// Everything a person may want to know, as one copy.
#[derive(Debug, Clone, Copy)]
pub struct Status {
    /// The state.
    pub state: StateName,
    /// Since when.
    pub since: Instant,
    /// The first cause since the last arming.
    pub cause: Option<Trip>,
    /// The last trip that was proven answered.
    pub reaction: Option<Reaction>,
    /// Faults that are present now.
    pub faults: Faults,
    /// What is needed to arm.
    pub checklist: Checklist,
    /// Proven standstill.
    pub standing: bool,
    /// The newest message's latency.
    pub latency_ms: Option<f64>,
    /// Consecutive valid messages of the session.
    pub session_run: u32,
    /// Arms since start.
    pub arms: u32,
    /// Trips since start.
    pub trips: u32,
    /// Commands of an old session that were dropped.
    pub dropped_commands: u32,
    /// Whether the CAN path is proven alive (acks may be withheld while it is not).
    pub can_alive: bool,
    /// Factor on the throttle (latency, missing counter).
    pub throttle_scale: f64,
    /// Why it is, or will be after STOPPING, in LOCKOUT.
    pub lockout: Option<Fault>,
}

impl Status {
    /// The cause of a LOCKOUT that a restart of the process must not clear: every one but the process's own panic, after
    /// which the service starts anew and the whole procedure of arming stands between it and motion.
    #[must_use]
    pub fn lasting_lockout(&self) -> Option<Fault> {
        self.lockout.filter(|fault| self.state == StateName::Lockout && *fault != Fault::Panic)
    }
}
