//! The simulated Streamer, one for each vehicle: what its TCP server sends when, what it makes of the responses, which
//! faults it sees.
//!
//! Owns the latency loop and the faults of the vehicle's side. Relies on time as an argument and on
//! [`super::connection`] for its client. Never waits, and never sees the operator but through what the radio brings.

use std::collections::VecDeque;

use super::Rng;
use super::connection::{Admission, Connection, Transmit};
use super::event::Event;
use super::faults;
use super::inject;
use super::options::{DefaultValues, LatencyUpdate, Options, Reaction};
use super::player::Sent;
use super::snapshot::Snapshot;
use crate::proto::ocp::Controller;
use crate::proto::ocp::player::VehicleData;
use crate::proto::ocp::server::{self, Part, ResponseIn};
use crate::time::{Duration, Instant, millis_f64};

/// The feedback message of one frame.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Report {
    /// Active faults, as they are sent.
    pub faults: Vec<String>,
    pub missing_cameras: Vec<String>,
    /// The gamepad of the newest control message.
    pub controller: Option<Controller>,
    pub vehicle_data: Option<VehicleData>,
    /// Which of the vehicle's data that is.
    pub data_number: u64,
    /// When the newest control message was sent, by the operator's clock, and how long it has been here.
    pub echo: Option<(Instant, Duration)>,
    /// Whether a client is connected.
    pub is_served: bool,
}

/// What leaves the vehicle with one video frame.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub picture: Option<(u64, u32)>,
    pub report: Option<Report>,
}

/// What the Streamer does next of its own accord.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Frame,
    Tick,
}

/// The newest control message.
#[derive(Debug)]
struct Arrived {
    sent: Sent,
    at: Instant,
}

/// One vehicle's Streamer.
#[derive(Debug)]
pub(super) struct Streamer {
    options: Options,
    rng: Rng,
    key: u64,
    t0: Instant,
    ack_offset_ms: u64,
    ack_back_ms: u64,
    ack_frozen: Option<u64>,
    connection: Connection,
    /// Pace set by command instead of the documented one.
    pace: Option<Duration>,
    next_tick: Instant,
    last_send: Option<Instant>,
    last_pair: (u64, u32),
    command: Option<Arrived>,
    /// The newest control message's time, or that of the start.
    command_at: Instant,
    is_fresh: bool,
    returned: Option<u64>,
    returned_at: Option<Instant>,
    latest_vehicle: Option<(u64, u32)>,
    vehicle_data: Option<VehicleData>,
    data_number: u64,
    forced_latency: Option<f64>,
    forced_faults: Vec<String>,
    forced_controller: Option<DefaultValues>,
    lost_cameras: Vec<String>,
    /// Cameras that stand still, and since when.
    stopped_cameras: Vec<(String, Instant)>,
    is_video_on: bool,
    is_feedback_on: bool,
    next_frame: Instant,
    /// How long the next frames take, and how many of them.
    slow_frames: (Duration, u32),
    last_frame_took: Duration,
    is_oversized: bool,
    sent_at: VecDeque<(u64, Instant)>,
    pub events: Vec<Event>,
    seen: Snapshot,
}

impl Streamer {
    pub fn new(options: &Options, seed: u64, now: Instant) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            key: rng.bits(),
            rng,
            t0: now,
            ack_offset_ms: options.ack_offset_ms,
            ack_back_ms: 0,
            ack_frozen: None,
            connection: Connection::new(options.second_client, options.idle_timeout),
            pace: None,
            next_tick: now,
            last_send: None,
            last_pair: (0, 0),
            command: None,
            command_at: now,
            is_fresh: false,
            returned: None,
            returned_at: None,
            latest_vehicle: None,
            vehicle_data: None,
            data_number: 0,
            forced_latency: None,
            forced_faults: Vec::new(),
            forced_controller: None,
            lost_cameras: Vec::new(),
            stopped_cameras: Vec::new(),
            is_video_on: true,
            is_feedback_on: true,
            next_frame: now,
            slow_frames: (Duration::ZERO, 0),
            last_frame_took: Duration::ZERO,
            is_oversized: false,
            sent_at: VecDeque::new(),
            events: Vec::new(),
            seen: Snapshot { latency_ms: options.initial_latency_ms, ..Snapshot::default() },
            options: options.clone(),
        }
    }

    /// The state at this moment, but for what only the player knows.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { is_connected: self.connection.is_connected(), ..self.seen.clone() }
    }

    /// Milliseconds of the Streamer's clock.
    fn elapsed_ms(&self, now: Instant) -> u64 {
        let ms = u64::try_from(now.since(self.t0).as_millis()).unwrap_or(u64::MAX);
        ms.saturating_add(self.ack_offset_ms).saturating_sub(self.ack_back_ms)
    }

    pub fn handle_connect(&mut self, now: Instant) -> Admission {
        let admission = self.connection.connect(now);
        if matches!(admission, Admission::Accept | Admission::Replace) {
            self.last_send = None;
            self.seen.connections += 1;
            self.seen.reply_max_ms = 0.0;
            self.events.push(Event::Connected);
        } else {
            self.events.push(Event::TurnedAway);
        }
        admission
    }

    pub fn handle_disconnect(&mut self) {
        if self.connection.disconnect() {
            self.events.push(Event::Disconnected);
        }
    }

    pub fn handle_back_pressure(&mut self) {
        self.events.push(Event::BackPressure);
        if self.options.back_pressure == Reaction::Close {
            self.close(Transmit::Close);
        }
    }

    pub fn wants_bytes(&self, now: Instant) -> bool {
        self.connection.wants_bytes(now)
    }

    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        self.connection.handle_bytes(now, bytes);
        while let Some(body) = self.connection.poll_body() {
            match body.map(|body| server::decode_response(&body)) {
                Ok(Ok(response)) => self.response(now, response),
                Ok(Err(error)) => self.bad_response(error.to_string()),
                Err(len) => self.bad_response(format!("a response of {len} bytes")),
            }
        }
    }

    fn bad_response(&mut self, why: String) {
        self.seen.bad_responses += 1;
        self.events.push(Event::BadResponse(why));
        if self.options.bad_response == Reaction::Close {
            self.close(Transmit::Close);
        }
    }

    fn response(&mut self, now: Instant, response: ResponseIn) {
        self.seen.responses += 1;
        self.latest_vehicle = Some((response.ack_time, response.ack_time_mac));
        if let Some(at) = self.sent_at.iter().position(|(ack, _)| *ack == response.ack_time) {
            let reply = self.sent_at.drain(..=at).next_back().map_or(now, |(_, sent)| sent);
            self.seen.reply_ms = millis_f64(now.since(reply));
            self.seen.reply_max_ms = self.seen.reply_max_ms.max(self.seen.reply_ms);
        }
        if let Some(user_data) = &response.user_data {
            self.vehicle_data = Some(VehicleData { pos: response.pos, user_data: user_data.clone() });
            self.data_number += 1;
        }
        self.seen.last_response = Some(response);
    }

    fn close(&mut self, how: Transmit) {
        if self.connection.close(how) {
            self.events.push(Event::Disconnected);
        }
    }

    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        self.connection.poll_transmit(now)
    }

    pub fn next_out(&self) -> Option<Instant> {
        self.connection.poll_timeout()
    }

    /// When it reads what the radio brought at `at`: not while it hangs.
    pub fn awake(&self, at: Instant) -> Instant {
        at.max(self.connection.stalled_until())
    }

    pub fn next_due(&self) -> (Due, Instant) {
        let (frame, tick) = (self.awake(self.next_frame), self.awake(self.next_tick));
        if frame <= tick { (Due::Frame, frame) } else { (Due::Tick, tick) }
    }

    /// A control message of the operator arrives.
    pub fn handle_control(&mut self, now: Instant, sent: Sent) {
        if self.connection.is_down(now) {
            return;
        }
        // Zeros are what clients return before they have seen a pair; they are no forgery.
        if let Some((ack, mac)) = sent.returned.filter(|pair| *pair != (0, 0)) {
            if inject::mac(self.key, ack) == mac {
                self.returned = Some(ack);
                self.returned_at = Some(now);
            } else {
                self.seen.bad_macs += 1;
            }
        }
        self.command = Some(Arrived { sent, at: now });
        self.command_at = now;
        self.is_fresh = true;
        self.measure(now);
    }

    /// Latency: the age of the newest pair that came back. Before there is one on this connection, the connection's
    /// own age, which stays hidden until it is over the limit.
    fn measure(&mut self, now: Instant) {
        let Some(since) = self.connection.since() else { return };
        let since_ms = self.elapsed_ms(since);
        let age = |ms: u64| millis_f64(Duration::from_millis(self.elapsed_ms(now).saturating_sub(ms)));
        let latency = match self.returned {
            Some(returned) if returned >= since_ms => age(returned),
            _ if age(since_ms) > millis_f64(self.options.latency_limit) => age(since_ms),
            _ => self.options.initial_latency_ms,
        };
        self.seen.latency_ms = latency;
    }

    /// One video frame is done.
    pub fn frame(&mut self, now: Instant) -> Outgoing {
        let (slow, left) = self.slow_frames;
        let took = if left > 0 { slow } else { Duration::ZERO };
        self.slow_frames.1 = left.saturating_sub(1);
        // A frame that was due while the program hung took as long as that.
        self.last_frame_took = took.max(now.since(self.next_frame));
        self.seen.frame_ms = millis_f64(self.last_frame_took);
        let next = if self.slow_frames.1 > 0 { slow } else { Duration::ZERO };
        self.next_frame = now + self.options.video_period.max(next);
        if self.connection.is_down(now) {
            return Outgoing::default();
        }
        Outgoing {
            picture: self.latest_vehicle.filter(|_| self.is_video_on),
            report: self.is_feedback_on.then(|| self.report(now)),
        }
    }

    fn report(&self, now: Instant) -> Report {
        let command = self.command.as_ref();
        Report {
            faults: self.faults(now),
            missing_cameras: self.missing_cameras(now),
            controller: command.and_then(|command| match command.sent.controller {
                Part::Is(controller) => Some(controller),
                Part::Absent | Part::Raw(_) => None,
            }),
            vehicle_data: self.vehicle_data.clone(),
            data_number: self.data_number,
            echo: command.map(|command| (command.sent.stamp, now.since(command.at))),
            is_served: self.connection.is_connected(),
        }
    }

    /// Cameras without a picture, as the drop detector sees them.
    fn missing_cameras(&self, now: Instant) -> Vec<String> {
        let is_late = |since: Instant| now.since(since) > self.options.camera_timeout;
        let is_watched = |name: &String| !self.options.unwatched_cameras.contains(name);
        let stopped = self.stopped_cameras.iter().filter(|(name, since)| is_late(*since) && is_watched(name));
        let mut names = self.lost_cameras.clone();
        names.extend(stopped.map(|(name, _)| name.clone()));
        names
    }

    /// The faults of this moment, as they are sent.
    fn faults(&self, now: Instant) -> Vec<String> {
        let is_starting =
            self.connection.messages().is_some_and(|sent| sent < self.options.faults_after_connect);
        let connected = self.connection.since();
        let is_open = |limit: Duration| {
            connected
                .is_some_and(|since| now.since(self.returned_at.map_or(since, |at| at.max(since))) > limit)
        };
        let is_active = |name: &str| match name {
            "CameraLost" => !self.missing_cameras(now).is_empty(),
            "VehicleNoResponse" => connected.is_none() || is_starting,
            "NoControlMessage" => {
                (self.command.is_none() && self.options.no_control_at_start)
                    || now.since(self.command_at) > self.options.control_timeout
            }
            "StreamerSlow" => self.last_frame_took > self.options.slow_frame,
            "HighLatency" => {
                let latency = self.forced_latency.unwrap_or(self.seen.latency_ms);
                latency > millis_f64(self.options.latency_limit)
            }
            "LatencyLoopNotClosed" => self.options.loop_not_closed.is_some_and(is_open),
            _ => false,
        };
        let spaced = self.options.spaced_faults;
        let mut faults = faults::listed(&faults::RECEIVER, &self.forced_faults, spaced, is_active);
        if let Some(command) = self.command.as_ref().filter(|_| self.options.sender_faults_in_telemetry) {
            let of_sender = command.sent.faults.iter().filter(|name| !faults.contains(name));
            let of_sender: Vec<_> = of_sender.cloned().collect();
            faults.extend(of_sender);
        }
        faults
    }

    pub fn tick(&mut self, now: Instant) {
        let period = self.pace.unwrap_or(self.options.tick);
        // After a hang the missed ticks are not made up for: the vendor's program would not send them either. A
        // little lateness of the driver is, so that a pace of many thousands a second is kept.
        let next = self.next_tick + period;
        self.next_tick = if next + Duration::from_millis(20) < now { now + period } else { next };
        if self.options.latency_update == LatencyUpdate::Continuous {
            self.measure(now);
        }
        let faults = self.faults(now);
        self.seen.missing_cameras = self.missing_cameras(now);
        if faults != self.seen.faults {
            self.seen.faults.clone_from(&faults);
            self.events.push(Event::Faults(faults));
        }
        if self.connection.is_idle(now) {
            self.close(Transmit::Close);
        }
        if !self.connection.may_send(now) {
            return;
        }
        let is_repeat_due = self.last_send.is_none_or(|at| now.since(at) >= self.options.repeat);
        if self.is_fresh || is_repeat_due || self.pace.is_some() {
            self.send(now);
        }
    }
}

mod run;
mod send;
