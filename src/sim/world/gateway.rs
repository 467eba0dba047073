//! The gateway's threads in virtual time: the same nodes, the same order of steps, no threads.
//!
//! Owns what the threads share and when each of them runs. Relies on `nodes`. Mirrors `threads/ocp.rs`,
//! `threads/can.rs` and `threads/watchdog.rs`, whose waiting it replaces by a schedule with delays of its own.

use std::collections::VecDeque;

use super::bus::{Bus, Delivery};
use super::checks::Checks;
use super::link::Pipe;
use super::rng::Rng;
use crate::can::Frame;
use crate::config::Config;
use crate::limits::BUSES;
use crate::nodes::ocp::{OcpEvent, OcpNode};
use crate::nodes::watchdog::{Published, WatchdogNode};
use crate::proto::ocp::UserForm;
use crate::safety::core::{Core, CoreOptions};
use crate::safety::faults::{Fault, Faults};
use crate::safety::input::{Command, Output, Requests, Status};
use crate::time::{Duration, Instant};

/// Waits of the real threads.
const READ_TURN: Duration = Duration::from_millis(20);
const TICK: Duration = Duration::from_millis(5);
const TICK_PROVING: Duration = Duration::from_millis(1);
const STATUS_PERIOD: Duration = Duration::from_millis(10);
const RECONNECT: Duration = Duration::from_millis(100);
const ACK_STAMP: Duration = Duration::from_millis(50);

/// The connection as the ocp thread sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Socket {
    /// Not connected; the next attempt is at this time.
    Closed(Instant),
    Open,
}

/// The gateway.
#[derive(Debug)]
pub struct Gateway {
    /// The OCP side.
    pub ocp: OcpNode,
    /// The watchdog.
    pub watchdog: WatchdogNode,
    socket: Socket,
    arrived: VecDeque<u8>,
    ended: bool,
    link: Option<u32>,
    trips: Faults,
    trips_at: Option<Instant>,
    ocp_beat: Option<Instant>,
    can_beat: Option<Instant>,
    watchdog_beat: Option<Instant>,
    command: Option<Command>,
    feedback: VecDeque<(Instant, Frame)>,
    reports: VecDeque<(Instant, Frame)>,
    status: Option<Status>,
    status_at: Instant,
    ocp_at: Instant,
    can_at: Instant,
    watchdog_at: Instant,
    /// What a person at the box asks for.
    pub requests: Requests,
}

impl Gateway {
    /// A gateway that starts now.
    ///
    /// # Panics
    /// Where the configuration names user data that cannot be read, which the configuration's reader refuses.
    #[must_use]
    pub fn new(config: &Config, now: Instant) -> Self {
        let core = Core::new(
            config.plan.clone(),
            CoreOptions {
                settings: config.settings,
                arms_per_minute: config.arms_per_minute,
                counters: Vec::new(),
                locked_out: None,
            },
        );
        let ocp = OcpNode::new(&config.plan, config.settings, UserForm::Auto);
        Self {
            ocp: ocp.unwrap_or_else(|error| panic!("{error}")),
            watchdog: WatchdogNode::new(core),
            socket: Socket::Closed(now),
            arrived: VecDeque::new(),
            ended: false,
            link: None,
            trips: Faults::NONE,
            trips_at: None,
            ocp_beat: None,
            can_beat: None,
            watchdog_beat: None,
            command: None,
            feedback: VecDeque::new(),
            reports: VecDeque::new(),
            status: None,
            status_at: Instant::ZERO,
            ocp_at: now,
            can_at: now,
            watchdog_at: now,
            requests: Requests::default(),
        }
    }

    /// Whether the gateway tries to connect now.
    #[must_use]
    pub fn wants_to_connect(&self, now: Instant) -> bool {
        matches!(self.socket, Socket::Closed(at) if now >= at)
    }

    /// The connection was made, or was refused.
    pub fn handle_connect(&mut self, now: Instant, accepted: bool) {
        if !accepted {
            self.socket = Socket::Closed(now + RECONNECT);
            return;
        }
        self.socket = Socket::Open;
        self.arrived.clear();
        self.ended = false;
        self.ocp.handle_connected();
        self.link = Some(self.ocp.session());
    }

    /// Bytes reached the kernel.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8], rng: &mut Rng) {
        self.arrived.extend(bytes);
        self.wake_ocp(now, rng);
    }

    /// The other end closed the connection.
    pub fn handle_end(&mut self, now: Instant, rng: &mut Rng) {
        self.ended = true;
        self.wake_ocp(now, rng);
    }

    /// A frame of the vehicle reached the can thread's socket.
    pub fn handle_frame(&mut self, now: Instant, frame: Frame, rng: &mut Rng) {
        self.reports.push_back((now, frame));
        self.feedback.push_back((now, frame));
        if self.can_at.since(now) <= READ_TURN {
            self.can_at = self.can_at.min(now + wake_up(rng));
        }
    }

    /// A thread does not run for this long.
    pub fn stall(&mut self, now: Instant, which: u64, time: Duration) {
        let at = match which {
            0 => &mut self.ocp_at,
            1 => &mut self.can_at,
            _ => &mut self.watchdog_at,
        };
        *at = now + time;
    }

    fn wake_ocp(&mut self, now: Instant, rng: &mut Rng) {
        // A thread that hangs is not woken by a byte: its turn lies further away than any wait.
        if self.ocp_at.since(now) <= READ_TURN {
            self.ocp_at = self.ocp_at.min(now + wake_up(rng));
        }
    }

    fn wake_watchdog(&mut self, now: Instant, rng: &mut Rng) {
        if self.watchdog_at.since(now) <= TICK {
            self.watchdog_at = self.watchdog_at.min(now + wake_up(rng));
        }
    }

    fn trip(&mut self, now: Instant, faults: Faults, rng: &mut Rng) {
        if faults.is_empty() {
            return;
        }
        self.trips = self.trips.union(faults);
        self.trips_at = self.trips_at.or(Some(now));
        self.wake_watchdog(now, rng);
    }

    /// Runs the threads whose time has come.
    ///
    /// True where a restart of the bus is asked for.
    pub fn run(
        &mut self,
        now: Instant,
        bus: &mut Bus,
        to_server: &mut Pipe,
        checks: &mut Checks,
        rng: &mut Rng,
    ) -> bool {
        let mut restart = false;
        if now >= self.can_at {
            self.can_beat = Some(now);
            self.can_at = now + READ_TURN;
            while let Some((at, frame)) = self.feedback.pop_front() {
                self.watchdog.handle_feedback(at, 0, &frame);
            }
        }
        if now >= self.ocp_at {
            self.ocp_at = now + READ_TURN;
            self.ocp_turn(now, to_server, checks, rng);
        }
        if now >= self.watchdog_at {
            let output = self.watchdog_turn(now, bus, checks);
            let core = self.watchdog.core();
            let tick = if core.is_proving(now) { TICK_PROVING } else { TICK };
            let due = core.poll_timeout(now).map_or(tick, |due| due.since(now));
            self.watchdog_at = now + tick.min(due.max(TICK_PROVING)) + jitter(rng);
            checks.stepped(now, core, &output);
            restart = output.restart.is_some();
        }
        restart
    }

    fn ocp_turn(&mut self, now: Instant, to_server: &mut Pipe, checks: &mut Checks, rng: &mut Rng) {
        if self.socket != Socket::Open {
            return;
        }
        self.ocp_beat = Some(now);
        loop {
            let spare = self.ocp.spare();
            let n = spare.len().min(self.arrived.len());
            for (to, from) in spare.iter_mut().zip(self.arrived.drain(..n)) {
                *to = from;
            }
            self.ocp.commit(n);
            while let Some((at, frame)) = self.reports.pop_front() {
                self.ocp.handle_frame(at, 0, &frame);
            }
            let alive = self.take_events(now, to_server, checks, rng)
                && self.answer(now, to_server, checks, rng).is_some();
            if !alive {
                self.close(now, rng);
                return;
            }
            let faults = self.ocp.handle_timeout(now);
            self.trip(now, faults, rng);
            if self.arrived.is_empty() {
                break;
            }
        }
        if self.ended {
            self.close(now, rng);
        }
    }

    fn close(&mut self, now: Instant, rng: &mut Rng) {
        self.socket = Socket::Closed(now + RECONNECT);
        self.arrived.clear();
        self.link = None;
        self.trip(now, Fault::OcpDown.into(), rng);
    }

    /// Whether the gateway gave up the connection.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.socket != Socket::Open
    }

    fn take_events(
        &mut self,
        now: Instant,
        to_server: &mut Pipe,
        checks: &mut Checks,
        rng: &mut Rng,
    ) -> bool {
        let mut newest = None;
        let mut alive = true;
        while let Some(event) = self.ocp.poll_event(now) {
            match event {
                OcpEvent::Message { command, faults } => {
                    checks.decoded();
                    self.trip(now, faults, rng);
                    newest = Some(command);
                }
                OcpEvent::Trip { faults, acked } => {
                    if acked {
                        checks.decoded()
                    } else {
                        checks.undecoded()
                    }
                    self.trip(now, faults, rng);
                    newest = None;
                }
                OcpEvent::Close { faults } => {
                    self.trip(now, faults, rng);
                    newest = None;
                    alive = false;
                    break;
                }
            }
            if self.answer(now, to_server, checks, rng).is_none() {
                alive = false;
                break;
            }
        }
        if let Some(command) = newest {
            self.link = Some(self.ocp.session());
            self.command = Some(command);
            self.wake_watchdog(now, rng);
        }
        alive
    }

    /// Writes what the kernel takes now; `None` where the connection is gone.
    fn answer(
        &mut self,
        now: Instant,
        to_server: &mut Pipe,
        checks: &mut Checks,
        rng: &mut Rng,
    ) -> Option<()> {
        let alive = self.watchdog_beat.is_some_and(|at| now.since(at) <= ACK_STAMP);
        self.ocp.note_backlog();
        for _ in 0..2 {
            let Some(bytes) = self.ocp.poll_transmit(now, alive, self.status.as_ref()) else {
                return Some(());
            };
            let len = bytes.len();
            let written = to_server.push(now, bytes, rng);
            checks.answering(now, bytes, written);
            self.ocp.handle_written(now, written);
            if written < len {
                return Some(());
            }
        }
        Some(())
    }

    fn watchdog_turn(&mut self, now: Instant, bus: &mut Bus, checks: &mut Checks) -> Output {
        while let Some((at, delivery)) = bus.poll_delivery() {
            match delivery {
                Delivery::Frame(frame, own) => {
                    self.watchdog.handle_received(at, 0, &frame, own, false);
                }
                Delivery::Event(event) => self.watchdog.handle_bus(at, 0, event),
            }
        }
        if let Some(command) = self.command.take() {
            self.watchdog.handle_command(command);
        }
        let published = Published {
            link: self.link,
            trips: std::mem::take(&mut self.trips),
            trips_at: self.trips_at.take(),
            ocp_beat: self.ocp_beat,
            can_beats: std::array::from_fn::<_, BUSES, _>(|bus| self.can_beat.filter(|_| bus == 0)),
            requests: std::mem::take(&mut self.requests),
        };
        let output = self.watchdog.step(now, &published);
        let mut from = 0;
        while let Some(sent) = self.watchdog.core_mut().poll_transmit(now, from) {
            from = sent.message + 1;
            let written = bus.write(now, sent.frame);
            checks.written(now, self.watchdog.core().state(), &sent.frame, written);
            self.watchdog.core_mut().handle_written(now, &sent, written);
        }
        self.watchdog_beat = Some(now);
        let status = self.watchdog.core().status();
        let changed = output.left.is_some() || output.trip.is_some() || output.reaction.is_some();
        if changed || now.since(self.status_at) >= STATUS_PERIOD {
            self.status_at = now;
            self.status = Some(status);
        }
        output
    }
}

/// From the event to the thread that runs: mostly a tenth of a millisecond, rarely the 8 ms of the budget.
fn wake_up(rng: &mut Rng) -> Duration {
    if rng.per_mille(3) {
        return Duration::from_micros(rng.range(1_000, 7_500));
    }
    Duration::from_micros(rng.range(50, 400))
}

/// How late a timer fires.
fn jitter(rng: &mut Rng) -> Duration {
    Duration::from_micros(if rng.per_mille(3) { rng.range(1_000, 5_000) } else { rng.range(0, 200) })
}
