//! The ocp thread: waits on the TCP connection.
//!
//! Owns the connection and its reconnects. Relies on `nodes::ocp` for every decision. Never blocks on a write, never
//! waits longer than a read's 20 ms, and sets trip bits before it does anything else with a message.

use std::net::SocketAddr;
use std::sync::Arc;

use super::fault_point;
use crate::io::clock;
use crate::io::tcp::{Connector, LinkError, Progress, Read, TcpLink};
use crate::nodes::ocp::{OcpEvent, OcpNode};
use crate::safety::faults::{Fault, Faults};
use crate::safety::input::{Command, Status};
use crate::signals::car::CarSample;
use crate::time::{Duration, Instant};
use crate::topology::{Arrival, Counter, Demand, Event, Rx, Shared, Tx};

/// How long one step of connecting may wait: the thread's beat must go on.
const CONNECT_TURN: Duration = Duration::from_millis(20);

/// A connection that brings no message for this long is closed and made anew: a peer that vanished without a word never
/// says so, and nothing is sent to it that could fail. The trip came long before (`ocp_silence_ms`); this is the
/// read timeout of the vendor's own examples.
const SILENT: Duration = Duration::from_secs(2);

/// What the thread can reach.
pub(super) struct Ends {
    pub(super) node: OcpNode,
    pub(super) address: SocketAddr,
    pub(super) withhold: bool,
    pub(super) ack_stamp_limit: Duration,
    pub(super) demand: Tx<Demand>,
    pub(super) feedback: Rx<Arrival>,
    pub(super) status: Rx<Status>,
    pub(super) events: Tx<Event>,
    pub(super) shared: Arc<Shared>,
    /// What is known of the simulated car, where one stands in.
    pub(super) car: Option<Option<CarSample>>,
}

/// Runs until the watchdog has ended.
pub(super) fn run(mut ends: Ends) {
    // The seed only spreads reconnects of several gateways; the clock at start is random enough.
    let seed = clock::now().as_nanos();
    let mut connector = Connector::new(&ends.address.ip().to_string(), ends.address.port(), seed);
    let mut told = None;
    // How the last connection ended, if it brought nothing.
    let mut useless = None;
    while !ends.shared.ended() {
        ends.shared.beat_ocp(clock::now());
        ends.drain();
        match connector.step(CONNECT_TURN) {
            Progress::Pending => {}
            Progress::Failed(error, _) => {
                // Told once per kind: a server that stays away must not fill the log.
                if told.replace(error) != Some(error) {
                    ends.events.offer(Event::OcpLost(error));
                }
            }
            Progress::Connected(link) => {
                let before = ends.node.counters().messages;
                let error = ends.session(&link, useless.is_none());
                drop(link);
                let worked = ends.node.counters().messages > before;
                // Told once per kind here too: a stranger on the port is met every few seconds.
                if worked || useless != Some(error) {
                    ends.events.offer(Event::OcpLost(error));
                }
                (told, useless) = (None, (!worked).then_some(error));
                connector.session_ended(worked);
            }
        }
    }
}

impl Ends {
    /// One connection, from its start to its end. It is told at once, or only when its first message came.
    fn session(&mut self, link: &TcpLink, tell_at_once: bool) -> LinkError {
        self.node.handle_connected();
        self.shared.set_link(Some(self.node.session()));
        if tell_at_once {
            self.events.offer(Event::OcpConnected);
        }
        let mut is_told = tell_at_once;
        let (mut messages, mut message_at) = (self.node.counters().messages, clock::now());
        let mut status = None;
        let error = loop {
            if self.shared.ended() {
                break LinkError::Closed;
            }
            fault_point::pass("ocp");
            let read = link.read(self.node.spare());
            let now = clock::now();
            self.shared.beat_ocp(now);
            match read {
                Ok(Read::Bytes(n)) => self.node.commit(n),
                Ok(Read::Nothing) => {}
                Err(error) => break error,
            }
            self.drain();
            while let Some(newer) = self.status.take() {
                status = Some(newer);
            }
            if let Err(error) = self.take_events(now, link, status.as_ref()) {
                break error;
            }
            // What an earlier turn could not write.
            if let Err(error) = self.answer(now, link, status.as_ref()) {
                break error;
            }
            self.trip(self.node.handle_timeout(now), now);
            self.count();
            if self.node.counters().messages > messages {
                (messages, message_at) = (self.node.counters().messages, now);
                if !is_told {
                    is_told = true;
                    self.events.offer(Event::OcpConnected);
                }
            } else if now.since(message_at) >= SILENT {
                break LinkError::Silent;
            }
        };
        self.count();
        // The link first, then the bits, then the wake-up: the core sees all of it at once.
        self.shared.set_link(None);
        self.trip(Fault::OcpDown.into(), clock::now());
        error
    }

    /// Handles everything that is complete; answers each message at once.
    fn take_events(
        &mut self,
        now: Instant,
        link: &TcpLink,
        status: Option<&Status>,
    ) -> Result<(), LinkError> {
        let mut newest: Option<Command> = None;
        let mut result = Ok(());
        while let Some(event) = self.node.poll_event(now) {
            match event {
                OcpEvent::Message { command, faults } => {
                    self.trip(faults, now);
                    self.measure(&command);
                    newest = Some(command);
                    // Nothing newer is here: the command goes on before its answer is written, which takes longer
                    // than everything else that is done with a message.
                    if self.node.is_drained() {
                        self.hand_on(newest.take());
                    }
                }
                OcpEvent::Trip { faults, .. } => {
                    self.trip(faults, now);
                    newest = None;
                }
                OcpEvent::Close { faults } => {
                    self.trip(faults, now);
                    newest = None;
                    result = Err(LinkError::Nonsense);
                    break;
                }
            }
            if let Err(error) = self.answer(now, link, status) {
                result = Err(error);
                break;
            }
        }
        self.hand_on(newest);
        result
    }

    /// Publishes how old the operator's side is: plain stores.
    fn measure(&self, command: &Command) {
        let gauges = &self.shared.gauges;
        gauges.message_at.set(Some(command.liveness.received_at));
        gauges.ack_at.set(Some(command.liveness.ack_changed_at));
        gauges.counter_at.set(command.liveness.counter_alive_at);
        // Checked by the decoder: finite and not negative. What is longer than any duration is the longest class.
        let latency = Duration::try_from_secs_f64(command.latency_ms / 1_000.0).unwrap_or(Duration::MAX);
        gauges.ocp_latency.note(latency);
    }

    /// Hands the newest command to the watchdog.
    fn hand_on(&self, newest: Option<Command>) {
        if let Some(command) = newest {
            // A restart of the Streamer is a new session on the same connection.
            self.shared.set_link(Some(self.node.session()));
            self.demand.offer(Demand::Command(command));
        }
    }

    /// Writes what the kernel takes now.
    fn answer(&mut self, now: Instant, link: &TcpLink, status: Option<&Status>) -> Result<(), LinkError> {
        let awake = self.shared.watchdog_beat().is_some_and(|at| now.since(at) <= self.ack_stamp_limit);
        let alive = awake && (!self.withhold || self.shared.can_alive());
        self.node.note_backlog();
        // Twice: the rest of an older answer, then the newest one.
        for _ in 0..2 {
            let Some(bytes) = self.node.poll_transmit(now, alive, status) else { return Ok(()) };
            let len = bytes.len();
            let written = link.try_write(bytes)?;
            self.node.handle_written(now, written);
            if written < len {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Publishes what was counted: plain stores.
    fn count(&self) {
        let counted = self.node.counters();
        let shared = &self.shared;
        shared.set_counter(Counter::OcpMessages, counted.messages);
        shared.set_counter(Counter::OcpFaults, counted.faults);
        shared.set_counter(Counter::OcpInvalid, counted.invalid);
        shared.set_counter(Counter::OcpClosed, counted.closed);
        shared.set_counter(Counter::OcpAnswers, counted.answers);
        shared.set_counter(Counter::OcpReplaced, counted.replaced);
        shared.set_counter(Counter::OcpWithheld, counted.withheld);
        shared.set_counter(Counter::CommandsEvicted, self.demand.dropped());
    }

    /// Raises faults and wakes the watchdog.
    fn trip(&self, faults: Faults, now: Instant) {
        if !faults.is_empty() {
            self.shared.trip(faults, now);
            self.demand.offer(Demand::Wake);
        }
    }

    /// Takes the vehicle's frames for the report.
    fn drain(&mut self) {
        while let Some(arrival) = self.feedback.take() {
            self.node.handle_frame(arrival.at, arrival.bus, &arrival.frame);
        }
        if let Some(car) = &mut self.car {
            self.shared.car.read(car);
            self.node.handle_car(*car);
        }
    }
}
