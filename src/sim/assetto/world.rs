//! The server: what happens, when, and in which order it is told.
//!
//! Owns cars, sessions, the period of the positions, and the queue of datagrams. Relies on [`super::car`] for the
//! driving and on `tell` for the words. Never sends a position of a car that has not loaded.

use core::net::SocketAddr;
use std::collections::VecDeque;

use super::car::{Car, Presence, millis};
use super::game::Clients;
use super::script::Action;
use super::session::{Kind, SessionPlan};
use super::tell::{LAYOUT, MESSAGE_MAX, MODEL, Names, PROTO_VERSION, TRACK};
use super::track::Track;
use super::{CARS_MAX, EMPTY_SLOTS, STEP};
use crate::proto::assetto::game::{GameMessage, Handshake, RtLap};
use crate::proto::assetto::{Event, Text};
use crate::sim::world::rng::Rng;
use crate::time::{Duration, Instant};

/// A race ends this long after its winner, whoever still drives.
const AFTER_WINNER: Duration = Duration::from_secs(60);

/// No session is shorter, whatever it is set to: a server does not run through its sessions without a pause.
const SESSION_MIN: Duration = Duration::from_secs(1);

/// A program that stood still for longer than this goes on where it was.
const BEHIND_MAX: Duration = Duration::from_secs(1);

/// Datagrams that wait for the socket; more are lost, as in any socket.
const QUEUE: usize = 4_096;

/// Notes that wait for a reader; more are lost.
const NOTES: usize = 256;

/// Cars that are nearer than this along the line can hit each other, in metres.
const NEAR_M: f64 = 25.0;

/// What the server is like.
#[derive(Debug, Clone)]
pub struct Options {
    /// Cars that come by themselves, at most [`CARS_MAX`].
    pub cars: u8,
    /// Period of the positions that nobody asked for, as AssettoServer has it; 0 for none, as the original.
    pub initial_interval_ms: u16,
    /// The sessions in turn, at least one and at most 255.
    pub sessions: Vec<SessionPlan>,
    /// From one driver's arrival to the next.
    pub arrival: Duration,
    /// From a driver's arrival to the first position.
    pub loading: Duration,
    /// Whether cars hit something now and then, and cut corners.
    pub has_mishaps: bool,
    /// The same seed gives the same world.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cars: 4,
            initial_interval_ms: 0,
            sessions: SessionPlan::usual(),
            arrival: Duration::from_millis(300),
            loading: Duration::from_secs(1),
            has_mishaps: true,
            seed: 1,
        }
    }
}

/// Who gets a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Receiver {
    /// The server's plugin.
    Plugin,
    /// A client of the game.
    Client(SocketAddr),
}

/// The world in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overview {
    /// Name of the session that runs.
    pub session: String,
    /// Milliseconds since its start; negative before.
    pub elapsed_ms: i32,
    /// Cars on the track.
    pub driving: usize,
    /// Period of the positions; 0 is off.
    pub interval_ms: u16,
    /// Commands that were understood.
    pub commands: u64,
    /// Datagrams that were no command, or no request.
    pub not_understood: u64,
    /// Clients of the game.
    pub game_clients: usize,
}

/// A server, its cars, and the game of the driver in slot 0.
#[derive(Debug)]
pub struct World {
    pub(super) options: Options,
    pub(super) track: Track,
    pub(super) cars: Vec<Car>,
    /// Number of the session that runs.
    pub(super) session: usize,
    /// Until then everything has happened.
    pub(super) at: Instant,
    /// When the session is or was started.
    started: Instant,
    winner_at: Option<Instant>,
    pub(super) interval: Duration,
    pub(super) next_update: Option<Instant>,
    /// Drivers who have not come yet: slot and time.
    arrivals: VecDeque<(Instant, u8)>,
    clients: Clients,
    is_muted: bool,
    queue: VecDeque<(Receiver, Vec<u8>)>,
    notes: VecDeque<String>,
    rng: Rng,
    pub(super) commands: u64,
    pub(super) not_understood: u64,
}

impl World {
    /// A server that starts now: it says its version and its first session.
    #[must_use]
    pub fn new(mut options: Options, now: Instant) -> Self {
        options.cars = options.cars.min(CARS_MAX);
        if options.sessions.is_empty() {
            options.sessions = SessionPlan::usual();
        }
        options.sessions.truncate(usize::from(u8::MAX));
        let mut rng = Rng::new(options.seed);
        let slots = options.cars + EMPTY_SLOTS;
        let cars = (0..slots).map(|_| Car::empty(rng.between(0.8, 0.98))).collect();
        let arrivals =
            (0..options.cars).map(|slot| (now + options.arrival * u32::from(slot), slot)).collect();
        let mut world = Self {
            options,
            track: Track::new(),
            cars,
            session: 0,
            at: now,
            started: now,
            winner_at: None,
            interval: Duration::ZERO,
            next_update: None,
            arrivals,
            clients: Clients::default(),
            is_muted: false,
            queue: VecDeque::new(),
            notes: VecDeque::new(),
            rng,
            commands: 0,
            not_understood: 0,
        };
        world.tell(&Event::Version { proto_version: PROTO_VERSION });
        world.begin_session(0);
        world
    }

    /// Takes one datagram from a client of the game.
    pub fn handle_request(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        self.handle_timeout(now);
        match self.clients.handle_request(from, datagram) {
            Ok(false) => {}
            Ok(true) => {
                let names = Names::of(0);
                let handshake = Handshake {
                    car_name: Text::from(MODEL),
                    driver_name: Text::from(names.driver.as_str()),
                    identifier: 4_242,
                    version: 1,
                    track_name: Text::from(TRACK),
                    track_config: Text::from(LAYOUT),
                };
                self.tell_clients(&[from], &GameMessage::Handshake(handshake));
            }
            Err(_) => self.not_understood += 1,
        }
    }

    /// Makes something happen.
    pub fn act(&mut self, now: Instant, action: Action) {
        self.handle_timeout(now);
        match action {
            Action::Connect(slot) => self.connect(slot),
            Action::Disconnect(slot) => self.disconnect(slot),
            Action::Chat(slot, said) => {
                if self.is_present(slot) {
                    self.tell(&Event::Chat { car_id: slot, message: Text::from(said.as_str()) });
                }
            }
            Action::Collide(slot, other) => self.collide(slot, other),
            Action::Halt(slot, is_halted) => {
                if let Some(car) = self.cars.get_mut(usize::from(slot)) {
                    car.is_halted = is_halted;
                }
            }
            Action::Next => self.next_session(),
            Action::Restart => self.restart_session(),
            Action::Mute(is_muted) => self.is_muted = is_muted,
        }
    }

    /// When something is to happen next.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let step = self.at + STEP;
        let arrival = self.arrivals.front().map(|(at, _)| *at);
        [self.next_update, arrival].into_iter().flatten().fold(step, Instant::min)
    }

    /// Lets everything happen until now.
    pub fn handle_timeout(&mut self, now: Instant) {
        let behind = now.since(self.at);
        if behind > BEHIND_MAX {
            self.at += behind - BEHIND_MAX;
        }
        loop {
            let due = self.poll_timeout().max(self.at);
            if due > now {
                return;
            }
            self.move_to(due);
            while let Some((_, slot)) = self.arrivals.front().copied().filter(|(at, _)| *at <= due) {
                self.arrivals.pop_front();
                self.connect(slot);
            }
            if self.next_update.is_some_and(|at| at <= due) {
                self.tell_positions();
                // From when it was due; a program that was late does not send what was missed all at once.
                let next = due + self.interval;
                self.next_update = Some(if next > now { next } else { now + self.interval });
            }
        }
    }

    /// The next datagram, and who gets it.
    pub fn poll_transmit(&mut self) -> Option<(Receiver, Vec<u8>)> {
        self.queue.pop_front()
    }

    /// The next thing that the server would show to its administrator or its drivers.
    pub fn poll_note(&mut self) -> Option<String> {
        self.notes.pop_front()
    }

    /// The world in numbers.
    #[must_use]
    pub fn overview(&self) -> Overview {
        Overview {
            session: self.plan().name.clone(),
            elapsed_ms: self.elapsed_ms(),
            driving: self.cars.iter().filter(|car| car.is_driving()).count(),
            interval_ms: u16::try_from(self.interval.as_millis()).unwrap_or(u16::MAX),
            commands: self.commands,
            not_understood: self.not_understood,
            game_clients: self.clients.len(),
        }
    }

    /// The slots, the first one first.
    #[must_use]
    pub fn cars(&self) -> &[Car] {
        &self.cars
    }

    /// The track.
    #[must_use]
    pub const fn track(&self) -> &Track {
        &self.track
    }

    pub(super) fn plan(&self) -> &SessionPlan {
        &self.options.sessions[self.session]
    }

    pub(super) fn elapsed_ms(&self) -> i32 {
        let since = i32::try_from(millis(self.at.since(self.started))).unwrap_or(i32::MAX);
        since - i32::try_from(millis(self.started.since(self.at))).unwrap_or(i32::MAX)
    }

    pub(super) fn push(&mut self, to: Receiver, datagram: Vec<u8>) {
        if !self.is_muted && self.queue.len() < QUEUE {
            self.queue.push_back((to, datagram));
        }
    }

    pub(super) fn note(&mut self, text: String) {
        if self.notes.len() < NOTES {
            self.notes.push_back(text);
        }
    }

    pub(super) fn is_present(&self, slot: u8) -> bool {
        self.cars.get(usize::from(slot)).is_some_and(|car| car.presence != Presence::Empty)
    }

    fn tell_clients(&mut self, clients: &[SocketAddr], message: &GameMessage<'_>) {
        let mut bytes = vec![0; MESSAGE_MAX];
        let Ok(len) = message.encode(&mut bytes) else { return };
        bytes.truncate(len);
        for client in clients {
            self.push(Receiver::Client(*client), bytes.clone());
        }
    }

    fn tell_positions(&mut self) {
        for slot in 0..self.slots() {
            let car = &self.cars[usize::from(slot)];
            if car.is_driving() {
                let update = car.update(&self.track, slot);
                self.tell(&Event::CarUpdate(update));
            }
        }
    }

    fn slots(&self) -> u8 {
        u8::try_from(self.cars.len()).unwrap_or(u8::MAX)
    }

    fn connect(&mut self, slot: u8) {
        let until = self.at + self.options.loading;
        let (is_race, started) = (self.plan().kind == Kind::Race, self.started);
        let Some(car) = self.cars.get_mut(usize::from(slot)) else { return };
        if car.presence != Presence::Empty {
            return;
        }
        car.presence = Presence::Loading(until);
        car.line_up(slot.into());
        car.lap_began = is_race.then_some(started);
        self.tell(&Event::NewConnection(Names::of(slot).connection(slot)));
    }

    pub(super) fn disconnect(&mut self, slot: u8) {
        if self.is_present(slot) {
            self.cars[usize::from(slot)].presence = Presence::Empty;
            self.tell(&Event::ConnectionClosed(Names::of(slot).connection(slot)));
        }
    }

    pub(super) fn restart_session(&mut self) {
        self.end_session();
        self.begin_session(self.session);
    }

    pub(super) fn next_session(&mut self) {
        self.end_session();
        self.begin_session((self.session + 1) % self.options.sessions.len());
    }

    /// A report is written where somebody drove.
    fn end_session(&mut self) {
        if self.cars.iter().any(|car| car.laps > 0) {
            let name = format!("results/{}_{}.json", self.session, self.plan().name.to_uppercase());
            self.tell(&Event::EndSession { filename: Text::from(name.as_str()) });
        }
    }

    /// Cars stay connected; positions are to be asked for again.
    fn begin_session(&mut self, index: usize) {
        self.session = index;
        self.started = self.at + self.plan().wait;
        self.winner_at = None;
        let is_race = self.plan().kind == Kind::Race;
        for (place, car) in self.cars.iter_mut().enumerate() {
            car.line_up(place);
            car.lap_began = is_race.then_some(self.started);
        }
        self.set_interval(self.options.initial_interval_ms);
        self.tell_session(index, true);
    }

    fn is_over(&self) -> bool {
        let plan = self.plan();
        if plan.laps == 0 {
            return self.at.since(self.started) >= plan.time.max(SESSION_MIN);
        }
        let all_in = self.cars.iter().all(|car| !car.is_driving() || car.has_finished);
        self.winner_at.is_some_and(|at| all_in || self.at.since(at) >= AFTER_WINNER)
    }

    /// Drives every car until then, at most one step.
    fn move_to(&mut self, until: Instant) {
        let dt = until.since(self.at);
        self.at = until;
        let is_held = until < self.started;
        for slot in 0..self.slots() {
            let car = &mut self.cars[usize::from(slot)];
            match car.presence {
                Presence::Empty => {}
                Presence::Loading(end) if until >= end => {
                    car.presence = Presence::Driving;
                    car.mishap_at = until + mishap(&mut self.rng);
                    self.tell(&Event::ClientLoaded { car_id: slot });
                }
                Presence::Loading(_) => {}
                Presence::Driving => {
                    let lap = car.drive(&self.track, until, dt, is_held);
                    let has_mishap = self.options.has_mishaps && until >= car.mishap_at && !is_held;
                    if has_mishap {
                        car.mishap_at = until + mishap(&mut self.rng);
                    }
                    if let Some(lap) = lap {
                        self.complete(slot, lap);
                    }
                    if has_mishap {
                        let other = self.nearest(slot);
                        self.collide(slot, other);
                    }
                }
            }
        }
        if !dt.is_zero() {
            let clients = self.clients.of_updates();
            if !clients.is_empty() && self.cars[0].is_driving() {
                let info = self.cars[0].telemetry(&self.track, until);
                self.tell_clients(&clients, &GameMessage::CarInfo(info));
            }
        }
        if self.is_over() {
            self.next_session();
        }
    }

    fn complete(&mut self, slot: u8, lap: super::car::Lap) {
        // Now and then somebody cuts a corner: one lap in eight.
        let cuts = u8::from(self.options.has_mishaps && self.rng.per_mille(125));
        let (kind, laps, started) = (self.plan().kind, self.plan().laps, self.started);
        let car = &mut self.cars[usize::from(slot)];
        if car.has_finished {
            return;
        }
        car.count(lap, cuts, started);
        let number = car.laps;
        if kind == Kind::Race && laps > 0 && (number >= laps || self.winner_at.is_some()) {
            car.has_finished = true;
            self.winner_at.get_or_insert(self.at);
        }
        self.tell_lap(slot, lap.time_ms, cuts);
        let names = Names::of(slot);
        let spot = RtLap {
            car_identifier_number: slot.into(),
            lap: number.into(),
            driver_name: Text::from(names.driver.as_str()),
            car_name: Text::from(MODEL),
            time_ms: i32::try_from(lap.time_ms).unwrap_or(i32::MAX),
        };
        let clients = self.clients.of_laps();
        self.tell_clients(&clients, &GameMessage::Lap(spot));
    }

    /// A car that is near enough to be hit.
    fn nearest(&self, slot: u8) -> Option<u8> {
        let lap = self.track.length_m();
        let here = self.cars.get(usize::from(slot))?.distance_m;
        let apart = |car: &Car| {
            let ahead = (car.distance_m - here).rem_euclid(lap);
            ahead.min(lap - ahead)
        };
        let others = (0..).zip(&self.cars).filter(|(other, car)| *other != slot && car.is_driving());
        let near = others.map(|(other, car)| (other, apart(car))).filter(|(_, m)| *m < NEAR_M);
        near.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(other, _)| other)
    }

    /// Two cars that meet say so twice, each with its own numbers; both lose half of their speed.
    fn collide(&mut self, slot: u8, other: Option<u8>) {
        let is_driving =
            |world: &Self, slot: u8| world.cars.get(usize::from(slot)).is_some_and(Car::is_driving);
        if !is_driving(self, slot) || other.is_some_and(|other| other == slot || !is_driving(self, other)) {
            return;
        }
        let both = [Some((slot, other, 1.0)), other.map(|other| (other, Some(slot), -1.0))];
        for (car_id, other, end) in both.into_iter().flatten() {
            let impact = self.cars[usize::from(car_id)].speed_mps * self.rng.between(0.1, 0.6);
            // Half the width of a car to either side, bumper height, and the front or the rear of it.
            let rel_pos = [self.rng.between(-0.8, 0.8), self.rng.between(0.2, 0.7), end * 2.0];
            self.tell_collision(car_id, other, impact, rel_pos);
            self.cars[usize::from(car_id)].speed_mps *= 0.5;
        }
    }
}

/// Time to a driver's next mishap.
fn mishap(rng: &mut Rng) -> Duration {
    Duration::from_millis(rng.range(15_000, 60_000))
}
