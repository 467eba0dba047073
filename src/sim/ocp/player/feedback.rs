//! The Player's frame: the feedback of every vehicle, for its client.
//!
//! Owns the making of the feedback message. Relies on what the vehicles reported. Never waits for a vehicle.

use core::time::Duration;

use super::{Event, Instant, Player, Session, Transmit};
use crate::limits;
use crate::proto::ocp::player::{Dialect, Feedback, VehicleFeedback};
use crate::proto::ocp::server::frame;
use crate::sim::ocp::inject::{self, Inject};
use crate::sim::ocp::snapshot::PlayerSnapshot;

impl Player {
    /// One frame: faults are looked for, and the client gets its feedback.
    pub(in crate::sim::ocp) fn frame(&mut self, now: Instant) {
        self.next_frame = Self::next(self.next_frame, self.options.feedback_period, now);
        if self.connection.is_down(now) {
            return;
        }
        for place in 0..self.sessions.len() {
            let Some(faults) = self.sessions.get(place).map(|session| self.faults(now, session)) else {
                continue;
            };
            let Some(session) = self.sessions.get_mut(place) else { continue };
            if session.is_connected && session.faults != faults {
                self.events.push(Event::SenderFaults(session.name.clone(), faults.clone()));
            }
            session.faults = faults;
        }
        if self.connection.is_idle(now) {
            self.close(Transmit::Close);
        }
        if self.connection.may_send(now) {
            self.send(now);
        }
    }

    fn send(&mut self, now: Instant) {
        let dialect = if self.options.is_monitor { Dialect::Newer } else { Dialect::Older };
        let body = self.feedback(now).to_json(dialect).to_string().into_bytes();
        let injection = self.connection.next_injection();
        let is_too_long = injection.is_none() && body.len() > limits::OCP_BODY;
        if is_too_long && !self.is_oversized {
            self.events.push(Event::TooLong(body.len()));
        }
        self.is_oversized = is_too_long;
        if is_too_long {
            self.seen.too_long += 1;
            return;
        }
        self.seen.sent += 1;
        let replaced = injection.as_ref().and_then(|i| i.bytes(&body, inject::FEEDBACK_SHAPE, &mut self.rng));
        let mut bytes = replaced.unwrap_or_else(|| frame(&body));
        if let Some(Inject::Burst(n)) = injection {
            bytes = bytes.repeat(n as usize);
            self.seen.sent += u64::from(n - 1);
        }
        if self.connection.send(now, bytes, injection.as_ref(), self.options.feedback_period) {
            self.events.push(Event::Disconnected);
        }
    }

    /// What the client is told at this moment.
    fn feedback(&self, now: Instant) -> Feedback {
        let connected = self.sessions.iter().filter(|session| session.is_connected);
        Feedback {
            vehicles: connected.map(|session| (session.name.clone(), self.entry(now, session))).collect(),
            unusable: Vec::new(),
            last_input: self.is_plugged.then_some(self.controller),
        }
    }

    fn entry(&self, now: Instant, session: &Session) -> VehicleFeedback {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let report = session.report.as_ref();
        let cameras = report.map(|report| report.missing_cameras.clone()).unwrap_or_default();
        let (ack_time, ack_time_mac) = session.seen.unwrap_or_default();
        VehicleFeedback {
            ping_latency_ms: session.ping_ms,
            message_latency_roundtrip: session.roundtrip_ms,
            ms_since_last_vehicle_data: ms(now.since(session.data_at.unwrap_or(session.since))),
            missing_cameras: Some(cameras)
                .filter(|names| !names.is_empty() || !self.options.no_missing_cameras_is_null),
            sender_fault: session.faults.clone(),
            receiver_fault: report.map(|report| report.faults.clone()).unwrap_or_default(),
            vehicle_data: report.and_then(|report| report.vehicle_data.clone()),
            last_remote_input: report.and_then(|report| report.controller),
            ack_time,
            ack_time_mac,
            is_monitor: Some(session.is_monitor),
        }
    }

    /// The state at this moment.
    pub(in crate::sim::ocp) fn snapshot(&self, now: Instant) -> PlayerSnapshot {
        PlayerSnapshot {
            is_connected: self.connection.is_connected(),
            lock: self.lock,
            active_vehicle: self.active.clone(),
            counter: self.counter,
            feedback: self.feedback(now),
            ..self.seen.clone()
        }
    }
}
