//! The simulated streamer: what it sends when, what it makes of the responses, which faults it sees.
//!
//! Owns the connection's state, the latency loop and the faults. Relies on time as an argument and on
//! [`super::operator`] for the other side of the link. Never waits: [`Server::poll_timeout`] says when it wants to
//! be asked again.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::Rng;
use super::command::Command;
use super::inject::{self, Inject};
use super::operator::{CounterMode, Operator, Path, Sent};
use super::options::{DefaultValues, LatencyUpdate, Options, Reaction, SecondClient};
use crate::limits;
use crate::proto::ocp::server::{self, ResponseIn};
use crate::time::{Duration, Instant};

/// What shall be done with the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transmit {
    /// Send these bytes in one piece.
    Bytes(Vec<u8>),
    /// End the connection in order.
    Close,
    /// End the connection by reset.
    Reset,
}

/// What shall be done with a client that wants to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is the client now.
    Accept,
    /// It is the client now; the one before is closed.
    Replace,
    /// It is closed at once.
    Reject,
    /// It stays connected, nobody reads it, nothing is sent to it.
    Ignore,
}

/// Something worth a line on the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A client is connected.
    Connected,
    /// A client was turned away or left waiting.
    TurnedAway,
    /// The client is gone.
    Disconnected,
    /// The set of active faults changed.
    Faults(Vec<String>),
    /// A response was dropped, and why.
    BadResponse(String),
    /// The client's buffer is full: messages are lost.
    BackPressure,
    /// The server started anew: new key, clock from 0.
    Restarted,
}

/// What can be seen of the server at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot {
    /// A client is connected.
    pub is_connected: bool,
    /// Clients so far.
    pub connections: u64,
    /// Messages sent.
    pub sent: u64,
    /// Responses that could be read.
    pub responses: u64,
    /// Responses dropped.
    pub bad_responses: u64,
    /// Returned pairs whose hash was wrong.
    pub bad_macs: u64,
    /// Names of the active faults.
    pub faults: Vec<String>,
    /// The measured latency in milliseconds.
    pub latency_ms: f64,
    /// The operator's counter.
    pub counter: u64,
    /// The last `ack_time` sent.
    pub ack_time: u64,
    /// From sending an ack pair to its first return, milliseconds, the last one.
    pub reply_ms: f64,
    /// The longest of these on this connection.
    pub reply_max_ms: f64,
    /// The last response.
    pub last_response: Option<ResponseIn>,
}

impl Event {
    /// The event as one line.
    #[must_use]
    pub fn line(&self) -> String {
        match self {
            Self::Connected => "client connected".to_owned(),
            Self::TurnedAway => "client turned away".to_owned(),
            Self::Disconnected => "client gone".to_owned(),
            Self::Faults(names) if names.is_empty() => "no fault".to_owned(),
            Self::Faults(names) => format!("fault: {}", names.join(", ")),
            Self::BadResponse(why) => format!("response dropped: {why}"),
            Self::BackPressure => "the client does not read: message lost".to_owned(),
            Self::Restarted => "restarted: new key, clock from 0".to_owned(),
        }
    }
}

impl Snapshot {
    /// The state as one JSON object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "connected": self.is_connected, "connections": self.connections, "sent": self.sent,
            "responses": self.responses, "bad_responses": self.bad_responses, "bad_macs": self.bad_macs,
            "faults": self.faults, "latency_ms": self.latency_ms, "counter": self.counter, "ack_time": self.ack_time,
            "reply_ms": self.reply_ms, "reply_max_ms": self.reply_max_ms,
            "user_data": self.last_response.as_ref().and_then(|r| r.user_data.clone()),
            "pos": self.last_response.as_ref().and_then(|r| r.pos).map(|(lat, lon)| json!({"lat": lat, "lon": lon})),
        })
    }
}

/// The vendor's faults of the vehicle side, in the order of the documentation.
const FAULTS: [&str; 6] = [
    "CameraLost",
    "VehicleNoResponse",
    "NoControlMessage",
    "StreamerSlow",
    "HighLatency",
    "LatencyLoopNotClosed",
];

/// Events kept for the driver; older ones are dropped.
const EVENTS: usize = 256;

/// Messages kept for a replay.
const HISTORY: usize = 100;

/// One connected client.
#[derive(Debug, Clone, Default)]
struct Client {
    since: Instant,
    input: Vec<u8>,
    /// Bytes of an oversized body still to be passed over.
    skip: usize,
    messages: u32,
}

/// The simulated server.
#[derive(Debug)]
pub struct Server {
    options: Options,
    rng: Rng,
    key: u64,
    t0: Instant,
    ack_offset_ms: u64,
    ack_back_ms: u64,
    ack_frozen: Option<u64>,
    client: Option<Client>,
    closed_until: Instant,
    /// Pace set by command instead of the documented one.
    pace: Option<Duration>,
    next_tick: Instant,
    stalled_until: Instant,
    is_silent: bool,
    replaying_until: Instant,
    last_send: Option<Instant>,
    last_pair: (u64, u32),
    command: Option<Sent>,
    command_at: Instant,
    is_fresh: bool,
    returned: Option<u64>,
    returned_at: Option<Instant>,
    latest_vehicle: Option<(u64, u32)>,
    forced_latency: Option<f64>,
    forced_faults: Vec<String>,
    forced_controller: Option<DefaultValues>,
    missing_cameras: Vec<String>,
    operator: Operator,
    uplink: Path<Sent>,
    video: Path<(u64, u32)>,
    is_video_on: bool,
    next_picture: Instant,
    planned: Vec<(Instant, Command)>,
    injections: VecDeque<(Inject, u32)>,
    held_back: Option<(u32, Vec<u8>)>,
    history: VecDeque<Vec<u8>>,
    sent_at: VecDeque<(u64, Instant)>,
    out: VecDeque<(Instant, Transmit)>,
    events: VecDeque<Event>,
    seen: Snapshot,
}

/// What the server does next of its own accord.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Operator,
    Uplink,
    Picture,
    Video,
    Planned,
    Tick,
}

impl Server {
    /// A server that starts now, with an operator who holds an untouched gamepad.
    #[must_use]
    pub fn new(mut options: Options, now: Instant) -> Self {
        // A period of nothing would never let time pass.
        for period in [&mut options.tick, &mut options.operator_period, &mut options.video_period] {
            *period = (*period).max(Duration::from_millis(1));
        }
        let mut rng = Rng::new(options.seed);
        Self {
            key: rng.bits(),
            rng,
            t0: now,
            ack_offset_ms: options.ack_offset_ms,
            ack_back_ms: 0,
            ack_frozen: None,
            client: None,
            closed_until: Instant::ZERO,
            pace: None,
            next_tick: now,
            stalled_until: Instant::ZERO,
            is_silent: false,
            replaying_until: Instant::ZERO,
            last_send: None,
            last_pair: (0, 0),
            command: None,
            command_at: now,
            is_fresh: false,
            returned: None,
            returned_at: None,
            latest_vehicle: None,
            forced_latency: None,
            forced_faults: Vec::new(),
            forced_controller: None,
            missing_cameras: Vec::new(),
            operator: Operator::new(&options, now),
            uplink: Path::new(options.uplink),
            video: Path::new(options.video),
            is_video_on: true,
            next_picture: now,
            planned: Vec::new(),
            injections: VecDeque::new(),
            held_back: None,
            history: VecDeque::new(),
            sent_at: VecDeque::new(),
            out: VecDeque::new(),
            events: VecDeque::new(),
            seen: Snapshot { latency_ms: options.initial_latency_ms, ..Snapshot::default() },
            options,
        }
    }

    /// The settings.
    #[must_use]
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// The operator.
    #[must_use]
    pub const fn operator(&self) -> &Operator {
        &self.operator
    }

    /// The state at this moment.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { is_connected: self.client.is_some(), counter: self.operator.counter, ..self.seen.clone() }
    }

    /// Milliseconds of the server's clock.
    fn elapsed_ms(&self, now: Instant) -> u64 {
        let ms = u64::try_from(now.since(self.t0).as_millis()).unwrap_or(u64::MAX);
        ms.saturating_add(self.ack_offset_ms).saturating_sub(self.ack_back_ms)
    }

    /// A client wants to connect.
    pub fn handle_connect(&mut self, now: Instant) -> Admission {
        let admission = match (&self.client, self.options.second_client) {
            _ if now < self.closed_until => Admission::Reject,
            (None, _) => Admission::Accept,
            (Some(_), SecondClient::Reject) => Admission::Reject,
            (Some(_), SecondClient::Replace) => Admission::Replace,
            (Some(_), SecondClient::Ignore) => Admission::Ignore,
        };
        if !matches!(admission, Admission::Accept | Admission::Replace) {
            self.event(Event::TurnedAway);
            return admission;
        }
        self.client = Some(Client { since: now, ..Client::default() });
        self.out.clear();
        self.held_back = None;
        self.last_send = None;
        self.seen.connections += 1;
        self.seen.reply_max_ms = 0.0;
        self.event(Event::Connected);
        admission
    }

    /// The client is gone, or was closed on the server's own wish.
    pub fn handle_disconnect(&mut self) {
        if self.client.take().is_some() {
            self.event(Event::Disconnected);
        }
        self.out.clear();
    }

    /// A message could not be sent because the client does not read.
    pub fn handle_back_pressure(&mut self) {
        self.event(Event::BackPressure);
        if self.options.back_pressure == Reaction::Close {
            self.close(Transmit::Close);
        }
    }

    /// Whether the server reads its socket now: not while it hangs.
    #[must_use]
    pub fn wants_bytes(&self, now: Instant) -> bool {
        now >= self.stalled_until
    }

    /// Bytes from the client.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        let Some(client) = &mut self.client else { return };
        client.input.extend_from_slice(bytes);
        while let Some(client) = &mut self.client {
            let passed = client.skip.min(client.input.len());
            client.input.drain(..passed);
            client.skip -= passed;
            let Some((header, rest)) = client.input.split_first_chunk::<4>() else { return };
            let len = u32::from_le_bytes(*header) as usize;
            if len > limits::OCP_BODY {
                client.input.drain(..4);
                client.skip = len;
                self.bad_response(format!("a response of {len} bytes"));
                continue;
            }
            let Some(body) = rest.get(..len) else { return };
            let response = server::decode_response(body);
            client.input.drain(..4 + len);
            match response {
                Ok(response) => self.response(now, response),
                Err(error) => self.bad_response(error.to_string()),
            }
        }
    }

    fn bad_response(&mut self, why: String) {
        self.seen.bad_responses += 1;
        self.event(Event::BadResponse(why));
        if self.options.bad_response == Reaction::Close {
            self.close(Transmit::Close);
        }
    }

    fn response(&mut self, now: Instant, response: ResponseIn) {
        self.seen.responses += 1;
        self.latest_vehicle = Some((response.ack_time, response.ack_time_mac));
        if let Some(at) = self.sent_at.iter().position(|(ack, _)| *ack == response.ack_time) {
            let reply = self.sent_at.drain(..=at).next_back().map_or(now, |(_, sent)| sent);
            self.seen.reply_ms = crate::time::millis_f64(now.since(reply));
            self.seen.reply_max_ms = self.seen.reply_max_ms.max(self.seen.reply_ms);
        }
        self.seen.last_response = Some(response);
    }

    /// Ends the connection after what is still to be sent; a reset drops that.
    fn close(&mut self, how: Transmit) {
        if self.client.take().is_none() {
            return;
        }
        if how == Transmit::Reset {
            self.out.clear();
        }
        let due = self.out.back().map_or(Instant::ZERO, |(due, _)| *due);
        self.out.push_back((due, how));
        self.event(Event::Disconnected);
    }

    fn event(&mut self, event: Event) {
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// The next thing worth a line.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next thing to do with the connection, if it is due. After [`Transmit::Close`] or [`Transmit::Reset`] the
    /// server has no client any more.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        let (due, _) = self.out.front()?;
        if *due > now { None } else { self.out.pop_front().map(|(_, transmit)| transmit) }
    }

    /// When [`Server::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let due = self.next_due().1;
        self.out.front().map_or(due, |(out, _)| due.min(*out))
    }

    fn next_due(&self) -> (Due, Instant) {
        // What the streamer itself does waits while it hangs; the operator and the radio go on.
        let own = |at: Instant| at.max(self.stalled_until);
        let mut next = (Due::Tick, own(self.next_tick));
        let mut candidate = |what, at: Option<Instant>| {
            if let Some(at) = at.filter(|at| *at < next.1 || (*at == next.1 && next.0 == Due::Tick)) {
                next = (what, at);
            }
        };
        candidate(Due::Uplink, self.uplink.next_due().map(own));
        candidate(Due::Picture, Some(own(self.next_picture)));
        candidate(Due::Video, self.video.next_due());
        candidate(Due::Operator, Some(self.operator.next_send()));
        candidate(Due::Planned, self.planned.iter().map(|(at, _)| *at).min());
        next
    }

    /// Does everything that is due by `now`, in order.
    pub fn handle_timeout(&mut self, now: Instant) {
        loop {
            let (what, at) = self.next_due();
            if at > now {
                return;
            }
            match what {
                Due::Operator => {
                    if let Some(sent) = self.operator.send() {
                        self.uplink.push(at, sent, &mut self.rng);
                    }
                }
                Due::Uplink => {
                    if let Some(sent) = self.uplink.pop(at) {
                        self.arrival(at, sent);
                    }
                }
                Due::Picture => {
                    self.next_picture = at + self.options.video_period;
                    if let (true, Some(pair)) = (self.is_video_on, self.latest_vehicle) {
                        self.video.push(at, pair, &mut self.rng);
                    }
                }
                Due::Video => {
                    if let Some(pair) = self.video.pop(at) {
                        self.operator.see(pair);
                    }
                }
                Due::Planned => {
                    if let Some(first) = self.planned.iter().position(|(due, _)| *due == at) {
                        let (_, command) = self.planned.remove(first);
                        self.command(at, command);
                    }
                }
                Due::Tick => self.tick(now),
            }
        }
    }

    /// A control message of the operator arrives.
    fn arrival(&mut self, now: Instant, sent: Sent) {
        if let Some((ack, mac)) = sent.returned {
            if inject::mac(self.key, ack) == mac {
                self.returned = Some(ack);
                self.returned_at = Some(now);
            } else {
                self.seen.bad_macs += 1;
            }
        }
        self.command = Some(sent);
        self.command_at = now;
        self.is_fresh = true;
        self.measure(now);
    }

    /// Latency: the age of the newest pair that came back. Before there is one on this connection, the connection's
    /// own age, which stays hidden until it is over the limit.
    fn measure(&mut self, now: Instant) {
        let Some(client) = &self.client else { return };
        let since_ms = self.elapsed_ms(client.since);
        let age =
            |ms: u64| crate::time::millis_f64(Duration::from_millis(self.elapsed_ms(now).saturating_sub(ms)));
        let latency = match self.returned {
            Some(returned) if returned >= since_ms => age(returned),
            _ if age(since_ms) > crate::time::millis_f64(self.options.latency_limit) => age(since_ms),
            _ => self.options.initial_latency_ms,
        };
        self.seen.latency_ms = latency;
    }

    /// The faults of this moment, named as they are sent.
    fn faults(&self, now: Instant) -> Vec<String> {
        let is_starting =
            self.client.as_ref().is_some_and(|c| c.messages < self.options.faults_after_connect);
        let connected = self.client.as_ref().map(|c| c.since);
        let is_open = |limit: Duration| {
            connected
                .is_some_and(|since| now.since(self.returned_at.map_or(since, |at| at.max(since))) > limit)
        };
        let is_active = |name: &str| match name {
            "CameraLost" => !self.missing_cameras.is_empty(),
            "VehicleNoResponse" => self.client.is_none() || is_starting,
            "NoControlMessage" => now.since(self.command_at) > self.options.control_timeout,
            "HighLatency" => {
                let latency = self.forced_latency.unwrap_or(self.seen.latency_ms);
                latency > crate::time::millis_f64(self.options.latency_limit)
            }
            "LatencyLoopNotClosed" => self.options.loop_not_closed.is_some_and(is_open),
            _ => false,
        };
        let forced = |name: &str| self.forced_faults.iter().any(|f| f == name);
        let known =
            FAULTS.into_iter().filter(|name| forced(name) || is_active(name)).map(|name| self.spelled(name));
        let other = self.forced_faults.iter().filter(|name| !FAULTS.contains(&name.as_str())).cloned();
        known.chain(other).collect()
    }

    fn spelled(&self, name: &str) -> String {
        let mut out = String::new();
        for c in name.chars() {
            if self.options.spaced_faults && c.is_uppercase() && !out.is_empty() {
                out.push(' ');
            }
            out.push(c);
        }
        out
    }

    fn tick(&mut self, now: Instant) {
        let period = self.pace.unwrap_or(self.options.tick);
        // After a hang the missed ticks are not made up for: the vendor's program would not send them either. A
        // little lateness of the driver is, so that a pace of many thousands a second is kept.
        let next = self.next_tick + period;
        self.next_tick = if next + Duration::from_millis(20) < now { now + period } else { next };
        if self.options.latency_update == LatencyUpdate::Continuous {
            self.measure(now);
        }
        let faults = self.faults(now);
        if faults != self.seen.faults {
            self.seen.faults.clone_from(&faults);
            self.event(Event::Faults(faults));
        }
        if self.client.is_none() || self.is_silent || now < self.replaying_until {
            return;
        }
        let is_repeat_due = self.last_send.is_none_or(|at| now.since(at) >= self.options.repeat);
        if self.is_fresh || is_repeat_due || self.pace.is_some() {
            self.send(now);
        }
    }

    /// Whether the operator's counter runs, for whoever shows it.
    #[must_use]
    pub fn is_counter_running(&self) -> bool {
        self.operator.present && self.operator.counter_mode == CounterMode::Run
    }
}

mod run;
mod send;
#[cfg(test)]
mod tests;
