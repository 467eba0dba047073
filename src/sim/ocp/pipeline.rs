//! The whole of OCP in virtual time: one Player, one or more vehicles, and the radio between them.
//!
//! Owns the parts and the order in which they act. Relies on time as an argument. Never waits:
//! [`Pipeline::poll_timeout`] says when it wants to be asked again.

use std::collections::VecDeque;

use super::command::{Command, Scope};
use super::connection::{Admission, Transmit};
use super::event::{Endpoint, Event};
use super::faults;
use super::link::{LinkState, Radio};
use super::options::Options;
use super::player::{self, Player};
use super::snapshot::{Overview, Snapshot};
use super::streamer::{self, Streamer};
use super::{Rng, mix};
use crate::time::{Duration, Instant};

/// Events kept for the driver; older ones are dropped.
const EVENTS: usize = 256;

/// One vehicle as the Player is connected to it.
#[derive(Debug)]
struct Vehicle {
    name: String,
    streamer: Streamer,
    radio: Radio,
}

/// The simulated pipeline.
#[derive(Debug)]
pub struct Pipeline {
    options: Options,
    player: Player,
    vehicles: Vec<Vehicle>,
    planned: Vec<(Instant, Command)>,
    /// The gamepad is held still for arming until then.
    arming_until: Instant,
    events: VecDeque<(Endpoint, Event)>,
}

/// Who does something next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Uplink(usize),
    Downlink(usize),
    Video(usize),
    Streamer(usize, streamer::Due),
    Player(player::Due),
    Planned,
}

impl Pipeline {
    /// A pipeline that starts now, with an operator who holds an untouched gamepad.
    #[must_use]
    pub fn new(mut options: Options, now: Instant) -> Self {
        // A period of nothing would never let time pass.
        for period in [
            &mut options.tick,
            &mut options.operator_period,
            &mut options.video_period,
            &mut options.feedback_period,
        ] {
            *period = (*period).max(Duration::from_millis(1));
        }
        let seed = |part: u64| mix(options.seed.wrapping_add(part));
        let vehicles = (1_u64..).zip(&options.vehicles).map(|(place, name)| Vehicle {
            name: name.clone(),
            streamer: Streamer::new(&options, seed(2 * place), now),
            radio: Radio::new(&options, Rng::new(seed(2 * place + 1))),
        });
        Self {
            vehicles: vehicles.collect(),
            player: Player::new(&options, seed(0), now),
            planned: Vec::new(),
            arming_until: Instant::ZERO,
            events: VecDeque::new(),
            options,
        }
    }

    /// The settings.
    #[must_use]
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// The operator's side.
    #[must_use]
    pub const fn player(&self) -> &Player {
        &self.player
    }

    /// The first vehicle at this moment.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.vehicles.first().map(|vehicle| self.seen(vehicle)).unwrap_or_default()
    }

    /// Everything at this moment.
    #[must_use]
    pub fn overview(&self, now: Instant) -> Overview {
        Overview {
            vehicles: self
                .vehicles
                .iter()
                .map(|vehicle| (vehicle.name.clone(), self.seen(vehicle)))
                .collect(),
            player: self.player.snapshot(now),
        }
    }

    fn seen(&self, vehicle: &Vehicle) -> Snapshot {
        Snapshot {
            counter: self.player.counter(),
            link: vehicle.radio.states(),
            ..vehicle.streamer.snapshot()
        }
    }

    fn streamer(&mut self, place: usize) -> Option<&mut Streamer> {
        self.vehicles.get_mut(place).map(|vehicle| &mut vehicle.streamer)
    }

    /// A client wants to connect. Where there is no such vehicle, it is turned away.
    pub fn handle_connect(&mut self, now: Instant, endpoint: Endpoint) -> Admission {
        match endpoint {
            Endpoint::Player => self.player.handle_connect(now),
            Endpoint::Vehicle(place) => {
                self.streamer(place).map_or(Admission::Reject, |streamer| streamer.handle_connect(now))
            }
        }
    }

    /// The client is gone, or was closed on the server's own wish.
    pub fn handle_disconnect(&mut self, endpoint: Endpoint) {
        match endpoint {
            Endpoint::Player => self.player.handle_disconnect(),
            Endpoint::Vehicle(place) => {
                if let Some(streamer) = self.streamer(place) {
                    streamer.handle_disconnect();
                }
            }
        }
    }

    /// A message could not be sent because the client does not read.
    pub fn handle_back_pressure(&mut self, endpoint: Endpoint) {
        match endpoint {
            Endpoint::Player => self.player.handle_back_pressure(),
            Endpoint::Vehicle(place) => {
                if let Some(streamer) = self.streamer(place) {
                    streamer.handle_back_pressure();
                }
            }
        }
    }

    /// Whether the server reads its socket now: not while it hangs.
    #[must_use]
    pub fn wants_bytes(&self, now: Instant, endpoint: Endpoint) -> bool {
        match endpoint {
            Endpoint::Player => self.player.wants_bytes(now),
            Endpoint::Vehicle(place) => {
                self.vehicles.get(place).is_some_and(|vehicle| vehicle.streamer.wants_bytes(now))
            }
        }
    }

    /// Bytes from the client.
    pub fn handle_bytes(&mut self, now: Instant, endpoint: Endpoint, bytes: &[u8]) {
        match endpoint {
            Endpoint::Player => self.player.handle_bytes(now, bytes),
            Endpoint::Vehicle(place) => {
                if let Some(streamer) = self.streamer(place) {
                    streamer.handle_bytes(now, bytes);
                }
            }
        }
    }

    /// The next thing to do with a connection, if it is due. After [`Transmit::Close`] or [`Transmit::Reset`] that
    /// server has no client any more.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<(Endpoint, Transmit)> {
        for (place, vehicle) in self.vehicles.iter_mut().enumerate() {
            if let Some(transmit) = vehicle.streamer.poll_transmit(now) {
                return Some((Endpoint::Vehicle(place), transmit));
            }
        }
        self.player.poll_transmit(now).map(|transmit| (Endpoint::Player, transmit))
    }

    /// The next thing worth a line.
    pub fn poll_event(&mut self) -> Option<(Endpoint, Event)> {
        self.collect();
        self.events.pop_front()
    }

    /// Takes the parts' events over.
    fn collect(&mut self) {
        for (place, vehicle) in self.vehicles.iter_mut().enumerate() {
            self.events
                .extend(vehicle.streamer.events.drain(..).map(|event| (Endpoint::Vehicle(place), event)));
        }
        self.events.extend(self.player.events.drain(..).map(|event| (Endpoint::Player, event)));
        let surplus = self.events.len().saturating_sub(EVENTS);
        self.events.drain(..surplus);
    }

    /// When [`Pipeline::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let out = self.vehicles.iter().filter_map(|vehicle| vehicle.streamer.next_out());
        let out = out.chain(self.player.next_out()).min();
        let due = self.next_due().1;
        out.map_or(due, |out| due.min(out))
    }

    /// Arrivals come before what is sent at the same moment, so that it is already in it.
    fn next_due(&self) -> (Due, Instant) {
        let (due, at) = self.player.next_due();
        let mut next = (Due::Player(due), at);
        let mut candidate = |what, at: Option<Instant>| {
            if let Some(at) = at.filter(|at| *at < next.1) {
                next = (what, at);
            }
        };
        candidate(Due::Planned, self.planned.iter().map(|(at, _)| *at).min());
        for (place, vehicle) in self.vehicles.iter().enumerate() {
            let (due, at) = vehicle.streamer.next_due();
            candidate(Due::Streamer(place, due), Some(at));
        }
        let mut arrival = |what, at: Option<Instant>| {
            if let Some(at) = at.filter(|at| *at <= next.1) {
                next = (what, at);
            }
        };
        for (place, vehicle) in self.vehicles.iter().enumerate() {
            // What hangs does not read; the radio goes on.
            let up = vehicle.radio.uplink.next_due().map(|at| vehicle.streamer.awake(at));
            arrival(Due::Uplink(place), up);
            arrival(Due::Downlink(place), vehicle.radio.downlink.next_due().map(|at| self.player.awake(at)));
            arrival(Due::Video(place), vehicle.radio.video.next_due().map(|at| self.player.awake(at)));
        }
        next
    }

    /// Does everything that is due by `now`, in order.
    pub fn handle_timeout(&mut self, now: Instant) {
        loop {
            let (what, at) = self.next_due();
            if at > now {
                break;
            }
            self.act(what, at, now);
        }
        self.collect();
    }

    fn act(&mut self, what: Due, at: Instant, now: Instant) {
        match what {
            Due::Planned => {
                if let Some(first) = self.planned.iter().position(|(due, _)| *due == at) {
                    let (_, command) = self.planned.remove(first);
                    self.run(at, command);
                }
            }
            Due::Player(player::Due::Control) => {
                for (place, sent) in self.player.control(at) {
                    if let Some(vehicle) = self.vehicles.get_mut(place) {
                        vehicle.radio.send_control(at, sent);
                    }
                }
            }
            Due::Player(player::Due::Frame) => self.player.frame(at),
            Due::Streamer(place, due) => {
                let Some(vehicle) = self.vehicles.get_mut(place) else { return };
                if due == streamer::Due::Tick {
                    vehicle.streamer.tick(now);
                    return;
                }
                let outgoing = vehicle.streamer.frame(at);
                if let Some(pair) = outgoing.picture {
                    vehicle.radio.send_picture(at, pair);
                }
                if let Some(report) = outgoing.report {
                    vehicle.radio.send_report(at, report);
                }
            }
            Due::Uplink(place) => {
                if let Some(vehicle) = self.vehicles.get_mut(place)
                    && let Some(sent) = vehicle.radio.uplink.pop(at)
                {
                    vehicle.streamer.handle_control(at, sent);
                }
            }
            Due::Downlink(place) => {
                if let Some(report) = self.vehicles.get_mut(place).and_then(|v| v.radio.downlink.pop(at)) {
                    self.player.handle_report(at, place, report);
                }
            }
            Due::Video(place) => {
                if let Some(pair) = self.vehicles.get_mut(place).and_then(|v| v.radio.video.pop(at)) {
                    self.player.handle_picture(at, place, pair);
                }
            }
        }
    }

    /// Runs a command. `wait`, `status`, `listen` and `quit` are for whoever drives the pipeline.
    pub fn command(&mut self, now: Instant, command: Command) {
        if command.moves_gamepad() && now < self.arming_until {
            self.arming_until = Instant::ZERO;
            self.events.push_back((Endpoint::Player, Event::ArmingDisturbed));
        }
        self.run(now, command);
    }

    fn run(&mut self, now: Instant, command: Command) {
        match command {
            Command::Player(command) => self.player.command(now, *command),
            Command::Vehicle(name, command) => {
                if let Some(place) = self.vehicles.iter().position(|vehicle| vehicle.name == name) {
                    self.vehicle_command(now, place, *command);
                }
            }
            Command::Arm { settle, hold, button } => {
                self.planned.push((now + settle, Command::Press(button)));
                self.planned.push((now + settle + hold, Command::Release(button)));
                self.arming_until = now + settle + hold;
                self.player.command(now, Command::Neutral);
            }
            command if command.scope() == Scope::Operator => self.player.command(now, command),
            command => {
                for place in 0..self.vehicles.len() {
                    self.vehicle_command(now, place, command.clone());
                }
            }
        }
    }

    fn vehicle_command(&mut self, now: Instant, place: usize, command: Command) {
        let Some(vehicle) = self.vehicles.get_mut(place) else { return };
        match &command {
            Command::Link(direction, state, time) => {
                vehicle.radio.set_state(now, *direction, *state);
                if let Some(time) = time {
                    let restore = Command::Link(*direction, LinkState::Up, None);
                    self.planned
                        .push((now + *time, Command::Vehicle(vehicle.name.clone(), Box::new(restore))));
                }
            }
            Command::LinkSet(direction, setting) => vehicle.radio.set(*direction, *setting),
            Command::Session(_) | Command::Monitor(_) => self.player.vehicle_command(now, place, &command),
            Command::FaultsClear => {
                self.player.vehicle_command(now, place, &command);
                vehicle.streamer.command(now, command);
            }
            Command::Fault(name, _) if faults::SENDER.contains(&faults::documented(name)) => {
                self.player.vehicle_command(now, place, &command);
            }
            _ => vehicle.streamer.command(now, command),
        }
    }
}

#[cfg(test)]
mod tests;
