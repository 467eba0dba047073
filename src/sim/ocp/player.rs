//! The simulated Player, the operator's computer: a gamepad, a program that sends control to every vehicle, and the TCP
//! server for the operator's own software.
//!
//! Owns what the operator does, whose client data counts, and the faults of the operator's side. Relies on time as an
//! argument and on [`super::connection`] for its client. Never sees a vehicle but through feedback and video.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::Rng;
use super::connection::{Admission, Connection, Transmit};
use super::event::Event;
use super::options::{ClientData, Options, Reaction, Unset};
use super::snapshot::PlayerSnapshot;
use super::streamer::Report;
use crate::proto::ocp::player::{ClientMessage, ClientVehicle, decode_client};
use crate::proto::ocp::server::Part;
use crate::proto::ocp::{Axis, Controller};
use crate::time::Instant;

mod feedback;
mod run;
mod source;

pub use source::{Source, SourceLock};

/// The operator's counter in the user data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CounterMode {
    /// One more with each message.
    #[default]
    Run,
    /// The same in each message.
    Freeze,
    /// Not in the user data.
    Absent,
}

/// A control message on its way to a vehicle.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sent {
    pub controller: Part<Controller>,
    /// `client_user_data`, where there is any.
    pub user_data: Option<Value>,
    /// The ack pair that goes back to the Streamer.
    pub returned: Option<(u64, u32)>,
    /// When it was sent, by the operator's clock.
    pub stamp: Instant,
    /// Faults of the operator's side, as they are written.
    pub faults: Vec<String>,
}

/// What the Player knows of one vehicle.
#[derive(Debug)]
struct Session {
    name: String,
    is_connected: bool,
    is_monitor: bool,
    since: Instant,
    report: Option<Report>,
    report_at: Option<Instant>,
    ping_ms: u64,
    roundtrip_ms: Option<u64>,
    data_number: u64,
    data_at: Option<Instant>,
    /// The newest ack pair in the video.
    seen: Option<(u64, u32)>,
    /// The newest client data for this vehicle.
    client: Option<ClientVehicle>,
    forced_faults: Vec<String>,
    faults: Vec<String>,
}

impl Session {
    fn new(name: &str, now: Instant) -> Self {
        Self {
            name: name.to_owned(),
            is_connected: true,
            is_monitor: false,
            since: now,
            report: None,
            report_at: None,
            ping_ms: 0,
            roundtrip_ms: None,
            data_number: 0,
            data_at: None,
            seen: None,
            client: None,
            forced_faults: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// As after a new connection to the vehicle.
    fn reset(&mut self, now: Instant) {
        let kept = (self.is_connected, self.is_monitor, core::mem::take(&mut self.forced_faults));
        *self = Self::new(&self.name, now);
        (self.is_connected, self.is_monitor, self.forced_faults) = kept;
    }
}

/// What the Player does next of its own accord.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Control,
    Frame,
}

/// The simulated Player.
#[derive(Debug)]
pub struct Player {
    options: Options,
    rng: Rng,
    /// The gamepad as it is held, also while it is unplugged.
    controller: Controller,
    is_plugged: bool,
    /// Whether the program sends control at all.
    is_present: bool,
    /// The operator's own user data beside the counter, sent as long as no client has sent any.
    user_data: Map<String, Value>,
    has_own_data: bool,
    counter_mode: CounterMode,
    counter: u64,
    sessions: Vec<Session>,
    active: Option<String>,
    lock: SourceLock,
    unknown: BTreeSet<String>,
    connection: Connection,
    next_control: Instant,
    next_frame: Instant,
    is_oversized: bool,
    pub(super) events: Vec<Event>,
    seen: PlayerSnapshot,
}

impl Player {
    pub(super) fn new(options: &Options, seed: u64, now: Instant) -> Self {
        Self {
            rng: Rng::new(seed),
            controller: Controller::NEUTRAL,
            is_plugged: true,
            is_present: true,
            user_data: Map::new(),
            has_own_data: options.own_user_data,
            counter_mode: CounterMode::Run,
            counter: 0,
            sessions: options.vehicles.iter().map(|name| Session::new(name, now)).collect(),
            active: None,
            lock: SourceLock::Free,
            unknown: BTreeSet::new(),
            connection: Connection::new(options.second_player_client, options.idle_timeout),
            next_control: now,
            next_frame: now,
            is_oversized: false,
            events: Vec::new(),
            seen: PlayerSnapshot::default(),
            options: options.clone(),
        }
    }

    /// The gamepad as it is held.
    #[must_use]
    pub const fn controller(&self) -> Controller {
        self.controller
    }

    /// The operator's own counter.
    #[must_use]
    pub const fn counter(&self) -> u64 {
        self.counter
    }

    pub(super) fn handle_connect(&mut self, now: Instant) -> Admission {
        let admission = self.connection.connect(now);
        if matches!(admission, Admission::Accept | Admission::Replace) {
            self.seen.connections += 1;
            self.events.push(Event::Connected);
        } else {
            self.events.push(Event::TurnedAway);
        }
        admission
    }

    pub(super) fn handle_disconnect(&mut self) {
        if self.connection.disconnect() {
            self.events.push(Event::Disconnected);
        }
    }

    pub(super) fn handle_back_pressure(&mut self) {
        self.events.push(Event::BackPressure);
        if self.options.back_pressure == Reaction::Close {
            self.close(Transmit::Close);
        }
    }

    pub(super) fn wants_bytes(&self, now: Instant) -> bool {
        self.connection.wants_bytes(now)
    }

    pub(super) fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        self.connection.handle_bytes(now, bytes);
        while let Some(body) = self.connection.poll_body() {
            match body.map(|body| decode_client(&body)) {
                Ok(Ok(message)) => {
                    self.seen.messages += 1;
                    self.client_data(Source::Tcp, Some(message));
                }
                Ok(Err(error)) => self.bad_message(error.to_string()),
                Err(len) => self.bad_message(format!("a message of {len} bytes")),
            }
        }
    }

    fn bad_message(&mut self, why: String) {
        self.seen.bad_messages += 1;
        self.events.push(Event::BadClientMessage(why));
        if self.options.bad_client_message == Reaction::Close {
            self.close(Transmit::Close);
        }
    }

    fn close(&mut self, how: Transmit) {
        if self.connection.close(how) {
            self.events.push(Event::Disconnected);
        }
    }

    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        self.connection.poll_transmit(now)
    }

    pub(super) fn next_out(&self) -> Option<Instant> {
        self.connection.poll_timeout()
    }

    /// When it sees what the radio brought at `at`: not while it hangs.
    pub(super) fn awake(&self, at: Instant) -> Instant {
        at.max(self.connection.stalled_until())
    }

    pub(super) fn next_due(&self) -> (Due, Instant) {
        let (control, frame) = (self.awake(self.next_control), self.awake(self.next_frame));
        if control <= frame { (Due::Control, control) } else { (Due::Frame, frame) }
    }

    /// The next time after one that was due; what was missed in a hang is not made up for.
    fn next(due: Instant, period: core::time::Duration, now: Instant) -> Instant {
        let next = due + period;
        if next < now { now + period } else { next }
    }

    /// The control messages of this moment, by the vehicle's place.
    pub(super) fn control(&mut self, now: Instant) -> Vec<(usize, Sent)> {
        self.next_control = Self::next(self.next_control, self.options.operator_period, now);
        if !self.is_present || self.connection.is_down(now) {
            return Vec::new();
        }
        if self.counter_mode == CounterMode::Run {
            self.counter = self.counter.wrapping_add(1);
        }
        let sends = |session: &Session| {
            session.is_connected && (!session.is_monitor || self.options.monitor_sends_null)
        };
        let places: Vec<usize> = (0..self.sessions.len()).collect();
        places
            .into_iter()
            .zip(&self.sessions)
            .filter(|(_, session)| sends(session))
            .map(|(place, session)| (place, self.sent(now, session)))
            .collect()
    }

    fn sent(&self, now: Instant, session: &Session) -> Sent {
        let is_disabled =
            session.client.as_ref().is_some_and(|client| client.ocp_disable_gamepad == Some(true));
        let held = Part::Is(self.with_dead_zone());
        let controller = if session.is_monitor {
            Part::null()
        } else if !self.is_active(session) {
            self.options.controller_inactive.controller(held)
        } else if is_disabled {
            self.options.controller_disabled.controller(held)
        } else if !self.is_plugged {
            self.options.controller_input_lost.controller(held)
        } else {
            held
        };
        let (user_data, returned) = self.client_part(session);
        Sent { controller, user_data, returned, stamp: now, faults: session.faults.clone() }
    }

    /// The user data and the ack pair that go to the vehicle.
    fn client_part(&self, session: &Session) -> (Option<Value>, Option<(u64, u32)>) {
        let client = session.client.as_ref();
        let user_data = client.map(|client| client.user_data.clone());
        let repeated = |what: ClientData| user_data.clone().filter(|_| what == ClientData::Repeat);
        match self.lock {
            SourceLock::Free => {
                let own = self.has_own_data.then(|| Value::Object(self.own_data()));
                (own, session.seen.filter(|_| self.options.own_ack_echo))
            }
            // The web view's library returns the acks by itself.
            SourceLock::Held(Source::Webview) => (user_data, session.seen),
            SourceLock::Held(Source::Tcp) if !self.connection.is_connected() => {
                let returned = client.and_then(|client| client.returned);
                let is_repeated = self.options.data_after_close == ClientData::Repeat;
                (repeated(self.options.data_after_close), returned.filter(|_| is_repeated))
            }
            SourceLock::Held(Source::Tcp | Source::Plugin) => {
                (user_data, client.and_then(|client| client.returned))
            }
            SourceLock::Conflict(..) => (repeated(self.options.data_in_conflict), None),
        }
    }

    fn own_data(&self) -> Map<String, Value> {
        let mut user_data = self.user_data.clone();
        if self.counter_mode != CounterMode::Absent {
            user_data.insert(self.options.counter_key.clone(), Value::from(self.counter));
        }
        user_data
    }

    fn with_dead_zone(&self) -> Controller {
        let mut controller = self.controller;
        for (value, axis) in controller.axes.iter_mut().zip(Axis::ALL) {
            if !axis.is_trigger() && value.abs() < self.options.dead_zone {
                *value = 0.0;
            }
        }
        controller
    }

    /// Whether the vehicle gets the gamepad.
    fn is_active(&self, session: &Session) -> bool {
        let is_named = match &self.active {
            Some(name) => session.name == *name,
            None => self.drivable() == 1,
        };
        is_named && session.is_connected && !session.is_monitor
    }

    /// Vehicles that could get the gamepad.
    fn drivable(&self) -> usize {
        self.sessions.iter().filter(|session| session.is_connected && !session.is_monitor).count()
    }

    /// The faults of the operator's side for one vehicle, as they are sent.
    fn faults(&self, now: Instant, session: &Session) -> Vec<String> {
        let is_unset = self.active.is_none() && self.drivable() > 1;
        let is_lost = |name: &str| match name {
            "InputLost" => {
                let is_unused =
                    session.client.as_ref().is_some_and(|client| client.ocp_disable_gamepad == Some(true));
                (!self.is_plugged && (!is_unused || self.options.input_lost_when_disabled))
                    || (is_unset && self.options.unset_active == Unset::InputLost)
            }
            "NoFeedbackMessage" => {
                now.since(session.report_at.unwrap_or(session.since)) > self.options.feedback_timeout
            }
            "VehicleControlInactive" if is_unset => self.options.unset_active == Unset::Inactive,
            "VehicleControlInactive" => !self.is_active(session),
            _ => false,
        };
        let spaced = self.options.spaced_faults;
        super::faults::listed(&super::faults::SENDER, &session.forced_faults, spaced, is_lost)
    }

    /// A feedback message of a vehicle arrives.
    pub(super) fn handle_report(&mut self, now: Instant, place: usize, report: Report) {
        let is_down = self.connection.is_down(now);
        let Some(session) = self.sessions.get_mut(place).filter(|session| session.is_connected && !is_down)
        else {
            return;
        };
        let ms = |since: core::time::Duration| u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        if let Some((stamp, held)) = report.echo {
            let roundtrip = now.since(stamp);
            session.ping_ms = ms(roundtrip.saturating_sub(held));
            session.roundtrip_ms = report.is_served.then(|| ms(roundtrip));
        }
        if report.data_number != session.data_number {
            session.data_number = report.data_number;
            session.data_at = Some(now);
        }
        session.report = Some(report);
        session.report_at = Some(now);
    }

    /// The video shows an ack pair.
    pub(super) fn handle_picture(&mut self, now: Instant, place: usize, pair: (u64, u32)) {
        let is_down = self.connection.is_down(now);
        if let Some(session) = self.sessions.get_mut(place).filter(|session| session.is_connected && !is_down)
        {
            session.seen = Some(pair);
        }
    }

    /// Client data from a source; without a message, the source has only taken part.
    fn client_data(&mut self, source: Source, message: Option<ClientMessage>) {
        let before = self.lock;
        self.lock = before.after(source);
        match self.lock {
            SourceLock::Held(held) if before == SourceLock::Free => {
                self.events.push(Event::SourceLocked(held));
                // Whoever watches the operator's counter must not take ours for the client's, not even after the
                // Player has restarted.
                self.has_own_data = false;
            }
            SourceLock::Conflict(held, other) => {
                if before == self.lock {
                    self.seen.ignored += 1;
                } else {
                    self.events.push(Event::SourceConflict(held, other));
                }
                return;
            }
            SourceLock::Free | SourceLock::Held(_) => {}
        }
        let Some(message) = message else { return };
        self.active = message.active_vehicle;
        for (name, data) in message.vehicles {
            match self.sessions.iter_mut().find(|session| session.name == name && session.is_connected) {
                Some(session) => session.client = Some(data),
                None => self.unknown(name),
            }
        }
        if let Some(name) = self.active.clone()
            && !self.sessions.iter().any(|session| session.name == name && session.is_connected)
        {
            self.unknown(name);
        }
    }

    /// Says once that the client means a vehicle that is not there.
    fn unknown(&mut self, name: String) {
        /// A client that makes names up is said to do so; not each of them is kept.
        const NAMES: usize = 16;
        if self.unknown.len() < NAMES && self.unknown.insert(name.clone()) {
            self.events.push(Event::UnknownVehicle(name));
        }
    }
}
