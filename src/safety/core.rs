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

mod states;

use self::states::State;
use super::buswatch::{BusEvent, BusWatch};
use super::envelope::{Demand, Envelope, Mode};
use super::faults::{Class, Fault, Faults};
use super::guards::{self, Contradictions, Impossibilities};
use super::input::{CanEvent, Command, Input, Output, Reaction, StateName, Status, Stop, Trip};
use super::rearm::{Checklist, ClearTimer};
use super::settings::{SAFE_FRAMES, SESSION_MESSAGES, Settings};
use super::transmit::{Enable, Transmission, Transmitter, Written};
use crate::signals::feedback::FeedbackTable;
use crate::signals::pack::PackError;
use crate::signals::plan::Plan;
use crate::signals::source::Readings;
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

/// What a core starts with.
#[derive(Debug, Clone)]
pub struct CoreOptions {
    /// The time constants.
    pub settings: Settings,
    /// Arms within one minute that end in LOCKOUT.
    pub arms_per_minute: u32,
    /// Alive counters of a previous process, in the order of the plan's frames.
    pub counters: Vec<u32>,
    /// Why a previous process was in LOCKOUT, where no person has acknowledged it since.
    pub locked_out: Option<Fault>,
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
    impossibilities: Impossibilities,
    tx: Transmitter,
    needs_pad: bool,
    clear: ClearTimer,
    cause: Option<Trip>,
    /// Why it is, or will be after STOPPING, in LOCKOUT.
    lockout: Option<Fault>,
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
            impossibilities: Impossibilities::new(&plan),
            tx: Transmitter::new(&plan, &options.counters),
            needs_pad: envelope.needs_pad(),
            envelope,
            clear: ClearTimer::default(),
            cause: None,
            lockout: None,
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
        if let Some(fault) = options.locked_out.filter(|fault| fault.class() == Class::B) {
            core.raised.insert(fault);
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
        let armed = self.state == State::Armed;
        let impossible = self.impossibilities.step(armed, &self.plan, &self.settings, &self.table);
        faults.insert_if(impossible, Fault::Contradiction);
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
        self.tx.next_due(now, self.settings.echo, |bus| self.buses.get(bus).is_some_and(BusWatch::is_ready))
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
            lockout: self.lockout,
        }
    }
}

/// The bit of a message in a mask; messages beyond 64 do not exist (`limits::OUT_MESSAGES`).
const fn bit(message: usize) -> u64 {
    if message < 64 { 1 << message } else { 0 }
}
