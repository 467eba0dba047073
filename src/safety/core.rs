//! The state machine: from the world as it is known now to what the actuators are told now.
//!
//! Owns the states and every transition. Relies on the other files of `safety`, and through them on `signals`. Never
//! reads a clock, never waits, never allocates after [`Core::new`], never panics; it always has an answer, the worst
//! one being every signal's safe value.
//!
//! Invariants (held by `tests/invariants.rs` over random traces): a frame that is not safe leaves only in ARMED (I1);
//! after a trip none does (I2); no way leads from a trip to ARMED but clear, neutral, released, edge, hold (I3);
//! values stay finite, limited and slewed, brake beats throttle (I4); every frame keeps its period in every state
//! (I6); counters run on (I9); the first cause is kept (I10).

use super::buswatch::{BusEvent, BusWatch};
use super::envelope::{Demand, Envelope, Mode};
use super::faults::{Fault, Faults};
use super::guards::{self, Contradictions};
use super::input::{CanEvent, Command, Input, Output, Reaction, StateName, Status, Stop, Trip};
use super::rearm::{Checklist, ClearTimer};
use super::settings::{SAFE_FRAMES, SESSION_MESSAGES, Settings};
use super::transmit::{Enable, PackError, Transmission, Transmitter, Written};
use crate::signals::feedback::FeedbackTable;
use crate::signals::plan::Plan;
use crate::signals::source::{Reading, Readings};
use crate::time::{Duration, Instant};

/// Safe frames with an echo, per actuator frame, before the process may end.
const LAST_FRAMES: u32 = 3;

/// A process that was asked to end and cannot prove safe frames leaves after this time.
const LAST_FRAMES_LIMIT: Duration = Duration::from_millis(200);

/// A second own gap while ARMED within this time is evidence of a computer that is too slow.
const GAP_MEMORY: Duration = Duration::from_secs(60);

/// How long after a trip its echo is looked for more often than every tick; a dead bus must not cost CPU for ever.
const PROOF_WATCH: Duration = Duration::from_millis(500);

/// Half slew limits during the transition after arming (Autoware limits far harder there; half is our choice).
const TRANSITION_SLEW: f64 = 0.5;

/// The states, with what each remembers.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
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
enum Switch {
    /// It is not in the message, or not readable as a switch.
    Absent,
    /// Open.
    Released,
    /// Closed.
    Pressed,
}

impl State {
    const fn name(self) -> StateName {
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

/// What a core starts with.
#[derive(Debug, Clone)]
pub struct CoreOptions {
    /// The time constants.
    pub settings: Settings,
    /// Arms within one minute that end in LOCKOUT.
    pub arms_per_minute: u32,
    /// Alive counters of a previous process, in the order of the plan's frames.
    pub counters: Vec<u32>,
    /// A previous process was in LOCKOUT and no person has acknowledged it.
    pub locked_out: bool,
}

/// The safety core. A copy of it goes on by itself: what-if questions of simulations and tests.
#[derive(Debug, Clone)]
pub struct Core {
    plan: Plan,
    settings: Settings,
    arms_per_minute: u32,
    state: State,
    since: Instant,
    started: Option<Instant>,
    last_step: Option<Instant>,
    newest: Option<Command>,
    buses: Vec<BusWatch>,
    table: FeedbackTable,
    envelope: Envelope,
    contradictions: Contradictions,
    tx: Transmitter,
    needs_pad: bool,
    clear: ClearTimer,
    cause: Option<Trip>,
    /// Whether the next trip is a first cause: the clear procedure was completed since the last one.
    cause_open: bool,
    pending: Option<(Trip, u64)>,
    last_reaction: Option<Reaction>,
    arms: heapless::Deque<Instant, 16>,
    arm_count: u32,
    trip_count: u32,
    dropped_commands: u32,
    gap_at: Option<Instant>,
    raised: Faults,
    faults: Faults,
    checklist: Checklist,
    standing: bool,
    enable: Enable,
    throttle_scale: f64,
    stop_since: Option<Instant>,
    reaction: Option<Reaction>,
}

impl Core {
    /// A core in INIT.
    #[must_use]
    pub fn new(plan: Plan, options: CoreOptions) -> Self {
        let envelope = Envelope::new(&plan);
        let mut core = Self {
            settings: options.settings,
            arms_per_minute: options.arms_per_minute,
            state: State::Init,
            since: Instant::ZERO,
            started: None,
            last_step: None,
            newest: None,
            buses: vec![BusWatch::new(); plan.buses.len()],
            table: FeedbackTable::new(&plan.receive),
            contradictions: Contradictions::new(&plan),
            tx: Transmitter::new(&plan, &options.counters),
            needs_pad: envelope.needs_pad(),
            envelope,
            clear: ClearTimer::default(),
            cause: None,
            cause_open: true,
            pending: None,
            last_reaction: None,
            arms: heapless::Deque::new(),
            arm_count: 0,
            trip_count: 0,
            dropped_commands: 0,
            gap_at: None,
            raised: Faults::NONE,
            faults: Faults::NONE,
            checklist: Checklist::default(),
            standing: false,
            enable: Enable::Off,
            throttle_scale: 1.0,
            stop_since: None,
            reaction: None,
            plan,
        };
        if options.locked_out {
            core.raised.insert(Fault::TooManyArms);
        }
        core
    }

    /// Decides what is true and what the outputs are at `now`. Frames are then taken with
    /// [`Core::poll_transmit`], at the same instant.
    pub fn step(&mut self, now: Instant, input: &Input<'_>) -> Output {
        let before = self.state.name();
        let elapsed = self.last_step.map_or(Duration::ZERO, |last| now.since(last));
        let started = *self.started.get_or_insert(now);
        self.reaction = None;
        self.absorb(now, input);
        self.judge(now, input, elapsed);
        let trip = self.transition(now, input, started);
        if self.state.name() != before {
            self.since = now;
        }
        self.set_values(now, elapsed);
        self.last_step = Some(now);
        Output {
            state: self.state.name(),
            left: (self.state.name() != before).then_some(before),
            trip,
            reaction: self.reaction,
            restart: self.buses.iter_mut().position(|bus| bus.poll_restart(now)),
            finished: self.is_finished(now, input.requests.stop),
        }
    }

    /// Takes what happened since the last step.
    fn absorb(&mut self, now: Instant, input: &Input<'_>) {
        for (bus, at, event) in input.can {
            match event {
                CanEvent::Bus(event) => self.absorb_bus(*at, *bus, *event),
                CanEvent::Echo(frame) => self.absorb_echo(*at, *bus, frame),
                CanEvent::Foreign => self.raised.insert(Fault::ForeignWriter),
                CanEvent::Frame(frame) => {
                    // What is no feedback of ours, or fails its checks, is counted in the table.
                    let _ = self.table.handle_frame(*at, *bus, frame);
                }
            }
        }
        if self.newest.is_some_and(|command| Some(command.liveness.session) != input.link) {
            self.newest = None;
            // A session ended, even where the next one is already here with a command of its own.
            self.raised.insert(Fault::OcpDown);
        }
        if let Some(command) = input.command {
            if Some(command.liveness.session) == input.link {
                self.newest = Some(*command);
                self.tx.on_command();
            } else {
                self.dropped_commands = self.dropped_commands.saturating_add(1);
            }
        }
        for bus in &mut self.buses {
            bus.ready(now, &self.settings);
        }
    }

    fn absorb_bus(&mut self, at: Instant, bus: usize, event: BusEvent) {
        let Some(watch) = self.buses.get_mut(bus) else { return };
        let lost = watch.handle(at, event);
        if lost {
            self.tx.bus_lost(bus);
            // The first frame after the bus is back goes out at once, and it is a safe one.
            self.tx.hurry();
        }
        // Raised as events, not only as states: what ends before the next step was a loss all the same.
        match event {
            BusEvent::Down | BusEvent::Gone => self.raised.insert(Fault::BusDown),
            BusEvent::BusOff | BusEvent::Restarted => self.raised.insert(Fault::BusOff),
            BusEvent::Up { .. } => {}
        }
    }

    fn absorb_echo(&mut self, at: Instant, bus: usize, frame: &crate::can::Frame) {
        let Some((message, _, safe)) = self.tx.handle_echo(at, bus, frame) else { return };
        if let Some(watch) = self.buses.get_mut(bus) {
            watch.handle_echo();
        }
        if let Some((trip, waiting)) = &mut self.pending
            && safe
        {
            *waiting &= !bit(message);
            if *waiting == 0 {
                let reaction = Reaction { trip: *trip, time: at.since(trip.evidence_at) };
                self.reaction = Some(reaction);
                self.last_reaction = Some(reaction);
                self.pending = None;
            }
        }
    }

    /// Finds every fault that is present and answers the checklist.
    fn judge(&mut self, now: Instant, input: &Input<'_>, elapsed: Duration) {
        let mut faults = input.trips.union(self.raised);
        self.raised = Faults::NONE;
        let stream = guards::stream(now, &self.plan, &self.settings, input, self.newest.as_ref());
        faults = faults.union(stream);
        if let Some(command) = &self.newest {
            faults = faults.union(guards::sources(&self.plan, &self.envelope, self.needs_pad, command));
        }
        faults.insert_if(self.state == State::Armed && !self.dead_man_is_held(), Fault::DeadMan);
        let lost = guards::feedback(now, &self.plan, &self.settings, input, &self.table);
        faults = faults.union(lost);
        for (index, bus) in self.buses.iter_mut().enumerate() {
            faults = faults.union(bus.faults(now, &self.settings, self.tx.unproven(index)));
        }
        if self.state == State::Armed
            && self.contradictions.step(now, &self.plan, &self.settings, &self.envelope, &self.table)
        {
            faults.insert(Fault::Contradiction);
        }
        if elapsed > self.settings.own_gap {
            faults.insert(Fault::OwnGap);
            if self.state == State::Armed {
                let again = self.gap_at.is_some_and(|at| now.since(at) < GAP_MEMORY);
                faults.insert_if(again, Fault::DeadlineMissed);
                self.gap_at = Some(now);
            }
        }
        faults.insert_if(input.requests.stop != Stop::No, Fault::StopRequested);
        self.standing = guards::standing(now, &self.plan, &self.table);
        self.faults = faults;
        self.answer(now, input);
    }

    /// Answers the points of the checklist that do not depend on the state.
    fn answer(&mut self, now: Instant, input: &Input<'_>) {
        let feedback = self.faults.contains(Fault::FeedbackLost) || self.faults.contains(Fault::FeedbackBad);
        let no_fault = self.faults.is_empty();
        let ready = !self.buses.is_empty() && self.buses.iter().all(BusWatch::is_ready);
        self.checklist = Checklist {
            link: input.link.is_some(),
            no_fault,
            clear: self.clear.step(now, no_fault, self.settings.clear),
            session: self.newest.is_some_and(|command| command.liveness.run >= SESSION_MESSAGES),
            can: ready && self.tx.safe_echoes() >= SAFE_FRAMES,
            feedback: !feedback,
            standstill: self.plan.speed.is_none() || self.standing,
            ..Checklist::default()
        };
    }

    /// One transition at most. Returns the trip, if this step decided one.
    fn transition(&mut self, now: Instant, input: &Input<'_>, started: Instant) -> Option<Trip> {
        let readings = self.readings();
        let neutral = self.newest.is_some() && self.envelope.is_neutral(&readings);
        let switch = self.arm_switch(&readings);
        let lock = self.faults.any_class_b();
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
                } else if input.requests.enter_diag && (self.plan.speed.is_none() || self.standing) {
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
                }
            }
            // DIAG -> SAFE
            State::Diag => {
                let moving = self.plan.speed.is_some() && !self.standing;
                if lock {
                    return Some(self.trip(now, input, State::Lockout));
                }
                if input.requests.leave_diag || moving {
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
    fn dead_man_is_held(&self) -> bool {
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

    /// Computes the value of every signal for the state that holds now.
    fn set_values(&mut self, now: Instant, elapsed: Duration) {
        let readings = self.readings();
        self.throttle_scale = self.scale_throttle(now);
        match self.state {
            State::Armed => {
                self.enable = Enable::On;
                let young = now.since(self.since) < self.settings.transition;
                let demand = Demand {
                    readings: &readings,
                    throttle_scale: self.throttle_scale,
                    slew_scale: if young { TRANSITION_SLEW } else { 1.0 },
                };
                self.envelope.step(Mode::Armed(&demand), elapsed, self.standing);
            }
            State::Stopping { .. } => {
                self.enable = Enable::Stopping;
                self.envelope.step(Mode::Stopping, elapsed, self.standing);
            }
            State::Standby { .. } | State::Ready { .. } => {
                self.enable = Enable::Off;
                self.envelope.step(Mode::Present(&readings), elapsed, self.standing);
            }
            State::Init | State::Safe | State::Lockout | State::Diag => {
                self.enable = Enable::Off;
                self.envelope.step(Mode::Safe, elapsed, self.standing);
            }
        }
    }

    /// Less throttle as latency grows (the blind distance stays the same), and none above the speed that is safe
    /// without an operator counter.
    fn scale_throttle(&self, now: Instant) -> f64 {
        let warn_ms = self.settings.latency_warn.as_secs_f64() * 1e3;
        let latency_ms = self.newest.map_or(0.0, |command| command.latency_ms);
        let by_latency = if latency_ms > warn_ms { warn_ms / latency_ms } else { 1.0 };
        let capped = self.plan.operator_counter.is_none()
            && self.plan.speed.as_ref().and_then(|speed| speed.cap_without_counter).is_some_and(|cap| {
                guards::speed(now, &self.plan, &self.table).is_none_or(|speed| speed.abs() > cap)
            });
        if capped { 0.0 } else { by_latency }
    }

    fn readings(&self) -> Readings {
        self.newest.map(|command| command.readings).unwrap_or_default()
    }

    /// Whether the process may end.
    fn is_finished(&mut self, now: Instant, stop: Stop) -> bool {
        let moving = matches!(self.state, State::Armed | State::Stopping { .. });
        if stop == Stop::No || moving {
            self.stop_since = None;
            return false;
        }
        let since = *self.stop_since.get_or_insert_with(|| {
            self.tx.forget_safe_echoes();
            self.tx.hurry();
            now
        });
        self.tx.safe_echoes() >= LAST_FRAMES || now.since(since) >= LAST_FRAMES_LIMIT || self.tx.is_empty()
    }

    /// The next frame to write now, at or after message index `from`; call after [`Core::step`] with the same time,
    /// and report each frame's fate with [`Core::handle_written`].
    pub fn poll_transmit(&mut self, now: Instant, from: usize) -> Option<Transmission> {
        if self.state == State::Init {
            return None;
        }
        let buses = &self.buses;
        let ready = |bus: usize| buses.get(bus).is_some_and(BusWatch::is_ready);
        let mut from = from;
        loop {
            match self.tx.poll(from, now, self.settings.echo, &self.envelope, self.enable, ready) {
                Ok(found) => return found,
                Err((message, PackError::Check)) => {
                    self.raised.insert(Fault::EncodingCheck);
                    from = message + 1;
                }
            }
        }
    }

    /// Takes the result of writing a frame.
    pub fn handle_written(&mut self, now: Instant, sent: &Transmission, written: Written) {
        self.tx.handle_written(now, sent, written);
    }

    /// Every frame goes out at the next chance, whatever its period says.
    pub fn hurry(&mut self) {
        self.tx.hurry();
    }

    /// When the next step is needed at the latest, whatever else happens.
    #[must_use]
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.tx.next_due(now, self.settings.echo)
    }

    /// Whether a fresh trip waits for its proof on the bus: the thread should look at its sockets more often.
    #[must_use]
    pub fn is_proving(&self, now: Instant) -> bool {
        self.pending.is_some_and(|(trip, _)| now.since(trip.at) < PROOF_WATCH)
    }

    /// The state now.
    #[must_use]
    pub const fn state(&self) -> StateName {
        self.state.name()
    }

    /// The alive counters, in the order of the plan's frames.
    pub fn counters(&self) -> impl Iterator<Item = u32> {
        self.tx.counters()
    }

    /// The mapping.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The values as they are sent now.
    #[must_use]
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// Everything a person may want to know.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            state: self.state.name(),
            since: self.since,
            cause: self.cause,
            reaction: self.last_reaction,
            faults: self.faults,
            checklist: self.checklist,
            standing: self.standing,
            latency_ms: self.newest.map(|command| command.latency_ms),
            session_run: self.newest.map_or(0, |command| command.liveness.run),
            arms: self.arm_count,
            trips: self.trip_count,
            dropped_commands: self.dropped_commands,
            can_alive: !self.faults.contains(Fault::EchoLost)
                && !self.faults.contains(Fault::CanDead)
                && self.buses.iter().all(BusWatch::is_ready),
            throttle_scale: self.throttle_scale,
        }
    }

    /// Whether a restart of the process must not clear this LOCKOUT.
    #[must_use]
    pub fn lockout_lasts(&self) -> bool {
        self.state == State::Lockout
            && self.cause.is_some_and(|trip| trip.faults.contains(Fault::TooManyArms))
    }
}

/// The bit of a message in a mask; messages beyond 64 do not exist (`limits::OUT_MESSAGES`).
const fn bit(message: usize) -> u64 {
    if message < 64 { 1 << message } else { 0 }
}
