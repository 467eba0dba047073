//! The states and every transition between them.
//!
//! Owns the one `match` that decides what may follow what, the arming procedure, and the record of a trip. Relies on what
//! [`Core::step`](super::Core::step) found out before: the faults and the checklist. Never looks at the world itself.

use super::super::faults::{Class, Fault};
use super::super::input::{Input, StateName, Stop, Trip};
use super::{Core, bit};
use crate::signals::source::{Reading, Readings};
use crate::time::{Duration, Instant};

/// The states, with what each remembers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum State {
    /// Listening; nothing is sent. Left when the listening time is over.
    Init,
    /// Safe frames. Left to STANDBY when the first seven points of the checklist are met.
    Safe,
    /// Safe frames, everything clear. Left to READY when all controls were at rest long enough.
    Standby { neutral_since: Option<Instant> },
    /// Safe frames, controls at rest. Left to ARMED when the arm switch was released, pressed and held.
    Ready { released: bool, pressed_at: Option<Instant> },
    /// The operator drives. Left by any trip.
    Armed,
    /// The stop profile. Left at standstill or after its longest time, to SAFE or LOCKOUT.
    Stopping { lock: bool },
    /// Safe frames until a person acknowledges on the box itself.
    Lockout,
    /// Safe frames; others may diagnose.
    Diag,
}

/// What the arm switch says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Switch {
    /// It is not in the message, or not readable as a switch.
    Absent,
    /// Open.
    Released,
    /// Closed.
    Pressed,
}

impl State {
    pub(super) const fn name(self) -> StateName {
        match self {
            Self::Init => StateName::Init,
            Self::Safe => StateName::Safe,
            Self::Standby { .. } => StateName::Standby,
            Self::Ready { .. } => StateName::Ready,
            Self::Armed => StateName::Armed,
            Self::Stopping { .. } => StateName::Stopping,
            Self::Lockout => StateName::Lockout,
            Self::Diag => StateName::Diag,
        }
    }
}

impl Core {
    /// One transition at most. Returns the trip, if this step decided one.
    pub(super) fn transition(&mut self, now: Instant, input: &Input<'_>, started: Instant) -> Option<Trip> {
        let readings = self.readings();
        let neutral = self.newest.is_some() && self.envelope.is_neutral(&readings);
        let switch = self.arm_switch(&readings);
        let lock = self.faults.any_class_b();
        if self.lockout.is_none() {
            self.lockout = self.faults.first().filter(|fault| fault.class() == Class::B);
        }
        match self.state {
            // INIT -> SAFE after listening, INIT -> LOCKOUT on a foreign writer
            State::Init => {
                if lock {
                    return Some(self.trip(now, input, State::Lockout));
                }
                if now.since(started) >= self.settings.listen {
                    self.state = State::Safe;
                }
            }
            // SAFE -> STANDBY | DIAG | LOCKOUT
            State::Safe => {
                if lock {
                    return Some(self.trip(now, input, State::Lockout));
                }
                if self.checklist.standby() {
                    self.state = State::Standby { neutral_since: None };
                    self.cause_open = true;
                } else if input.requests.enter_diag && self.standing {
                    self.state = State::Diag;
                }
            }
            // STANDBY -> READY | SAFE | LOCKOUT
            State::Standby { neutral_since } => {
                if let Some(trip) = self.leave_if_not_clear(now, input, lock) {
                    return trip;
                }
                let since = neutral.then(|| neutral_since.unwrap_or(now));
                self.state = State::Standby { neutral_since: since };
                if since.is_some_and(|since| now.since(since) >= self.settings.neutral) {
                    self.state = State::Ready { released: false, pressed_at: None };
                }
            }
            // READY -> ARMED | STANDBY | SAFE | LOCKOUT
            State::Ready { released, pressed_at } => {
                if let Some(trip) = self.leave_if_not_clear(now, input, lock) {
                    return trip;
                }
                self.ready(now, neutral, switch, released, pressed_at);
                if self.state == State::Armed && self.too_many_arms(now) {
                    self.state = State::Ready { released, pressed_at };
                    self.faults.insert(Fault::TooManyArms);
                    self.lockout = Some(Fault::TooManyArms);
                    return Some(self.trip(now, input, State::Lockout));
                }
            }
            // ARMED -> STOPPING on any fault; a panic does not wait for a stop profile
            State::Armed => {
                if !self.faults.is_empty() {
                    let panic = self.faults.contains(Fault::Panic);
                    let to = if panic { State::Lockout } else { State::Stopping { lock } };
                    return Some(self.trip(now, input, to));
                }
            }
            // STOPPING -> SAFE | LOCKOUT at standstill or after the longest time
            State::Stopping { lock: locked } => {
                let lock = locked || lock;
                self.state = State::Stopping { lock };
                let over = self.standing || now.since(self.since) >= self.settings.stopping;
                if over || self.faults.contains(Fault::Panic) || input.requests.stop == Stop::Now {
                    self.state = if lock { State::Lockout } else { State::Safe };
                }
            }
            // LOCKOUT -> SAFE by a person at the box
            State::Lockout => {
                if input.requests.acknowledge && !lock {
                    self.state = State::Safe;
                    self.clear.reset();
                    self.arms.clear();
                    self.lockout = None;
                }
            }
            // DIAG -> SAFE
            State::Diag => {
                if lock {
                    return Some(self.trip(now, input, State::Lockout));
                }
                if input.requests.leave_diag || !self.standing {
                    self.state = State::Safe;
                    self.clear.reset();
                }
            }
        }
        self.complete_checklist(neutral, switch);
        None
    }

    /// STANDBY and READY fall back as soon as one of their conditions does.
    fn leave_if_not_clear(&mut self, now: Instant, input: &Input<'_>, lock: bool) -> Option<Option<Trip>> {
        if !self.faults.is_empty() {
            let to = if lock { State::Lockout } else { State::Safe };
            return Some(Some(self.trip(now, input, to)));
        }
        if !self.checklist.standby() {
            self.state = State::Safe;
            return Some(None);
        }
        None
    }

    /// READY: released first, then a rising edge, then held, all of it at rest.
    fn ready(
        &mut self,
        now: Instant,
        neutral: bool,
        switch: Switch,
        released: bool,
        pressed_at: Option<Instant>,
    ) {
        if !neutral {
            self.state = State::Standby { neutral_since: None };
            return;
        }
        // Pressed counts only where it was seen released here; a switch that is not there is neither.
        let (released, pressed_at) = match switch {
            Switch::Released => (true, None),
            Switch::Absent => (false, None),
            Switch::Pressed => (released, released.then(|| pressed_at.unwrap_or(now))),
        };
        self.state = State::Ready { released, pressed_at };
        let held = pressed_at.is_some_and(|at| now.since(at) >= self.settings.hold);
        if held && self.dead_man_is_held() {
            self.state = State::Armed;
        }
    }

    /// What the arm switch says in the newest message.
    fn arm_switch(&self, readings: &Readings) -> Switch {
        match self.plan.arm.map(|switch| switch.read(readings)) {
            Some(Reading::Bool(true)) => Switch::Pressed,
            Some(Reading::Bool(false)) => Switch::Released,
            Some(Reading::Number(1.0)) => Switch::Pressed,
            Some(Reading::Number(0.0)) => Switch::Released,
            _ => Switch::Absent,
        }
    }

    /// Whether the dead-man switch is held, or none is configured.
    pub(super) fn dead_man_is_held(&self) -> bool {
        self.plan
            .dead_man
            .is_none_or(|switch| self.newest.is_some_and(|command| switch.read_switch(&command.readings)))
    }

    /// Notes one arming; true where it is one too many.
    fn too_many_arms(&mut self, now: Instant) -> bool {
        while self.arms.front().is_some_and(|at| now.since(*at) > Duration::from_secs(60)) {
            self.arms.pop_front();
        }
        let already = u32::try_from(self.arms.len()).unwrap_or(u32::MAX);
        if already >= self.arms_per_minute {
            return true;
        }
        // Sixteen places; the configuration allows fifteen arms.
        let _ = self.arms.push_back(now);
        self.arm_count = self.arm_count.saturating_add(1);
        self.cause = None;
        false
    }

    /// Records the trip and moves to the given state.
    fn trip(&mut self, now: Instant, input: &Input<'_>, to: State) -> Trip {
        let fault = self.faults.first().unwrap_or(Fault::StopRequested);
        let trip = Trip {
            fault,
            faults: self.faults,
            at: now,
            evidence_at: self.evidence(now, input, fault),
            from: self.state.name(),
        };
        if self.cause_open || self.cause.is_none() {
            self.cause = Some(trip);
            self.cause_open = false;
        }
        self.trip_count = self.trip_count.saturating_add(1);
        self.state = to;
        self.clear.reset();
        self.contradictions.reset();
        self.tx.forget_safe_echoes();
        self.tx.hurry();
        let actuators = (0..self.tx.len()).filter(|message| self.tx.is_actuator(*message));
        self.pending = Some((trip, actuators.fold(0, |mask, message| mask | bit(message))));
        self.checklist.clear = false;
        trip
    }

    /// The moment from which the reaction to a fault is counted.
    fn evidence(&self, now: Instant, input: &Input<'_>, fault: Fault) -> Instant {
        let live = self.newest.map(|command| command.liveness);
        let known = match fault {
            Fault::OcpSilence => live.map(|live| live.received_at),
            Fault::AckFrozen => live.map(|live| live.ack_changed_at),
            Fault::OperatorFrozen => live.and_then(|live| live.counter_alive_at),
            Fault::EchoLost | Fault::CanDead => {
                (0..self.buses.len()).filter_map(|bus| self.tx.unproven(bus)).min()
            }
            Fault::OcpStalled => input.ocp_beat,
            Fault::Stale | Fault::ControllerMissing | Fault::SourceMissing | Fault::LatencyHigh => {
                live.map(|live| live.received_at)
            }
            _ if input.trips.contains(fault) => input.trips_at,
            _ => None,
        };
        known.unwrap_or(now)
    }

    /// Fills in the points that depend on the state.
    fn complete_checklist(&mut self, neutral: bool, switch: Switch) {
        self.checklist.neutral = match self.state {
            State::Standby { .. } => false,
            State::Ready { .. } | State::Armed => true,
            _ => neutral,
        };
        self.checklist.released = match self.state {
            State::Ready { released, .. } => released,
            State::Armed => true,
            _ => switch == Switch::Released,
        };
        self.checklist.held = self.state == State::Armed;
    }
}
