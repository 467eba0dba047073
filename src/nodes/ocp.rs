//! The OCP connection, decided: bytes in, trips and commands out, one answer per message.
//!
//! Owns the decoding of the stream, the strikes against a peer that sends nonsense, and the reply that waits in
//! front of the socket. Relies on `proto::ocp` and `safety::liveness`. Never waits and never sees the socket; never
//! allocates after [`OcpNode::new`].

use super::report::Report;
use crate::limits::USER_FIELDS;
use crate::proto::ocp::control::{self, ACK_TEXT, ControlMessage};
use crate::proto::ocp::user_data::UserPathsError;
use crate::proto::ocp::{
    Controller, Deframer, FRAME, FrameError, UserField, UserForm, UserPaths, UserValue as Extracted,
};
use crate::safety::faults::{Fault, Faults};
use crate::safety::input::{Command, Status};
use crate::safety::liveness::Session;
use crate::safety::settings::Settings;
use crate::signals::plan::{OperatorCounter, Plan};
use crate::signals::source::{Pad, Readings, UserValue};
use crate::time::{Duration, Instant};

/// Invalid messages within one second that end the connection.
const STRIKES: usize = 3;

/// The time in which strikes are counted.
const STRIKE_MEMORY: Duration = Duration::from_secs(1);

/// What became of the bytes that arrived.
#[derive(Debug, Clone, Copy)]
#[allow(
    clippy::large_enum_variant,
    reason = "events travel inline: a box would allocate on the command path"
)]
pub enum OcpEvent {
    /// A valid message. `faults` is what this very message shows; they are raised before the command is handed on.
    Message {
        /// The command.
        command: Command,
        /// Faults of this message.
        faults: Faults,
    },
    /// A message that is no command: it reports a fault or is invalid.
    Trip {
        /// Why.
        faults: Faults,
        /// The first text of `fault_reason` is kept in [`OcpNode::fault_reason`].
        acked: bool,
    },
    /// The connection must be closed; the faults are raised first.
    Close {
        /// Why.
        faults: Faults,
    },
}

/// Counters of the OCP side.
#[derive(Debug, Clone, Copy, Default)]
pub struct OcpCounters {
    /// Messages that decoded.
    pub messages: u64,
    /// Messages with a fault.
    pub faults: u64,
    /// Messages that did not decode, or had no body.
    pub invalid: u64,
    /// Connections that were closed for lost framing or too many strikes.
    pub closed: u64,
    /// Answers that were written completely.
    pub answers: u64,
    /// Answers replaced by a newer one before they were written.
    pub replaced: u64,
    /// Answers held back because the watchdog or the CAN path is not alive.
    pub withheld: u64,
}

/// The texts of the newest message's ack pair.
#[derive(Debug, Clone, Copy, Default)]
struct Ack {
    time: [u8; ACK_TEXT],
    time_len: usize,
    mac: [u8; ACK_TEXT],
    mac_len: usize,
}

/// One OCP connection after another.
#[derive(Debug)]
pub struct OcpNode {
    deframer: Deframer,
    session: Session,
    paths: UserPaths,
    extracted: [Extracted; USER_FIELDS],
    counter: Option<OperatorCounter>,
    report: Report,
    settings: Settings,
    strikes: heapless::Deque<Instant, STRIKES>,
    partial_since: Option<Instant>,
    ack: Ack,
    reply: Box<[u8]>,
    reply_len: usize,
    reply_at: usize,
    reply_since: Option<Instant>,
    reply_due: bool,
    counters: OcpCounters,
    reason: [u8; crate::limits::FAULT_REASON],
    reason_len: usize,
}

impl OcpNode {
    /// A node without a connection.
    ///
    /// # Errors
    /// [`UserPathsError`] where the plan names user data that cannot be read (found by `config` before).
    pub fn new(plan: &Plan, settings: Settings, form: UserForm) -> Result<Self, UserPathsError> {
        let fields: Vec<UserField> = plan
            .user_fields
            .iter()
            .map(|field| UserField { path: field.path.clone(), names: field.names.clone() })
            .collect();
        Ok(Self {
            deframer: Deframer::new(),
            session: Session::new(),
            paths: UserPaths::new(&fields, form)?,
            extracted: [Extracted::Missing; USER_FIELDS],
            counter: plan.operator_counter,
            report: Report::new(plan),
            settings,
            strikes: heapless::Deque::new(),
            partial_since: None,
            ack: Ack::default(),
            reply: vec![0; FRAME].into_boxed_slice(),
            reply_len: 0,
            reply_at: 0,
            reply_since: None,
            reply_due: false,
            counters: OcpCounters::default(),
            reason: [0; crate::limits::FAULT_REASON],
            reason_len: 0,
        })
    }

    /// A connection was made: nothing of the last one counts.
    pub fn handle_connected(&mut self) {
        self.deframer.clear();
        self.session.restart();
        self.partial_since = None;
        self.strikes.clear();
        self.reply_len = 0;
        self.reply_at = 0;
        self.reply_since = None;
        self.reply_due = false;
    }

    /// The session number to publish as the link.
    #[must_use]
    pub const fn session(&self) -> u32 {
        self.session.id()
    }

    /// What was counted.
    #[must_use]
    pub const fn counters(&self) -> OcpCounters {
        self.counters
    }

    /// The last fault text of the server, cleaned for display.
    #[must_use]
    pub fn fault_reason(&self) -> &str {
        self.reason.get(..self.reason_len).and_then(|text| core::str::from_utf8(text).ok()).unwrap_or("")
    }

    /// Room for the next bytes of the socket.
    pub fn spare(&mut self) -> &mut [u8] {
        self.deframer.spare()
    }

    /// Says how many bytes were read into [`OcpNode::spare`].
    pub fn commit(&mut self, n: usize) {
        self.deframer.commit(n);
    }

    /// Whether no byte waits behind the events that were polled: the last one is the newest there is.
    #[must_use]
    pub const fn is_drained(&self) -> bool {
        !self.deframer.is_partial()
    }

    /// Takes a frame of the vehicle for the report.
    pub fn handle_frame(&mut self, at: Instant, bus: usize, frame: &crate::can::Frame) {
        self.report.handle_frame(at, bus, frame);
    }

    /// Takes what is known of the simulated car for the report.
    pub const fn handle_car(&mut self, car: Option<crate::signals::car::CarSample>) {
        self.report.handle_car(car);
    }

    /// The next event of the bytes that are here.
    pub fn poll_event(&mut self, now: Instant) -> Option<OcpEvent> {
        let event = match self.deframer.poll_frame() {
            Ok(None) => {
                self.partial_since =
                    if self.deframer.is_partial() { self.partial_since.or(Some(now)) } else { None };
                return None;
            }
            Ok(Some(body)) => {
                let decoded = control::decode(body);
                match decoded {
                    Ok(message) => {
                        let valid = message.client_user_data.is_none_or(|raw| {
                            self.extracted.fill(Extracted::Missing);
                            self.paths.extract(raw, &mut self.extracted).is_ok()
                        });
                        if message.client_user_data.is_none() {
                            self.extracted.fill(Extracted::Missing);
                        }
                        let digest = Digest::of(&message, &mut self.reason, &mut self.reason_len);
                        self.ack = digest.ack;
                        self.take_message(now, &digest, valid)
                    }
                    Err(invalid) => self.take_invalid(now, invalid.fault_seen),
                }
            }
            Err(FrameError::Empty) => self.take_invalid(now, false),
            Err(FrameError::Oversize(_)) => {
                self.counters.closed += 1;
                OcpEvent::Close { faults: Fault::FramingLost.into() }
            }
        };
        self.partial_since = None;
        Some(event)
    }

    /// A message that decoded.
    fn take_message(&mut self, now: Instant, message: &Digest, user_data_valid: bool) -> OcpEvent {
        self.counters.messages += 1;
        self.reply_due = true;
        if message.fault || message.has_reason {
            self.counters.faults += 1;
            self.session.interrupt();
            return OcpEvent::Trip { faults: Fault::OcpFault.into(), acked: true };
        }
        if !user_data_valid {
            return self.take_invalid(now, false);
        }
        let mut readings = Readings { pad: message.controller.map(pad), ..Readings::default() };
        for (to, from) in readings.user.iter_mut().zip(&self.extracted) {
            *to = user_value(*from);
        }
        let counter = self.counter.map(|counter| {
            let value = readings.user.get(usize::from(counter.field)).copied().unwrap_or_default();
            (value, counter.modulo)
        });
        let (liveness, faults) = self.session.observe(now, message.ack_ms, counter);
        OcpEvent::Message { command: Command { liveness, latency_ms: message.latency_ms, readings }, faults }
    }

    /// A message that did not decode.
    fn take_invalid(&mut self, now: Instant, fault_seen: bool) -> OcpEvent {
        self.counters.invalid += 1;
        self.session.interrupt();
        let mut faults = Faults::from(Fault::InvalidMessage);
        faults.insert_if(fault_seen, Fault::OcpFault);
        while self.strikes.front().is_some_and(|at| now.since(*at) >= STRIKE_MEMORY) {
            self.strikes.pop_front();
        }
        // Three places: a fourth strike never comes, the third closes.
        let _ = self.strikes.push_back(now);
        if self.strikes.is_full() {
            self.counters.closed += 1;
            return OcpEvent::Close { faults };
        }
        OcpEvent::Trip { faults, acked: false }
    }

    /// The faults of time: a message that arrives in drips, an answer that is not taken.
    #[must_use]
    pub fn handle_timeout(&self, now: Instant) -> Faults {
        let mut faults = Faults::NONE;
        let over = |since: Option<Instant>, limit| since.is_some_and(|since| now.since(since) >= limit);
        faults.insert_if(over(self.partial_since, self.settings.frame_assembly), Fault::FrameAssembly);
        faults.insert_if(over(self.reply_since, self.settings.reply), Fault::ReplyBlocked);
        faults
    }

    /// The bytes to write now, if there are any. `alive` says that acks may be given (the watchdog's stamp is young,
    /// and the CAN path is proven where the configuration asks for it).
    pub fn poll_transmit(&mut self, now: Instant, alive: bool, status: Option<&Status>) -> Option<&[u8]> {
        let writing = self.reply_at < self.reply_len;
        if !writing && self.reply_due {
            self.reply_due = false;
            if !alive {
                self.counters.withheld += 1;
                return None;
            }
            let time = self.ack.time.get(..self.ack.time_len).unwrap_or_default();
            let mac = self.ack.mac.get(..self.ack.mac_len).unwrap_or_default();
            let response = self.report.write(now, &mut self.reply, time, mac, status).ok()?;
            self.reply_len = response.frame.len();
            self.reply_at = 0;
            self.reply_since = None;
        }
        self.reply.get(self.reply_at..self.reply_len).filter(|rest| !rest.is_empty())
    }

    /// Says that the kernel took `n` bytes of [`OcpNode::poll_transmit`].
    pub fn handle_written(&mut self, now: Instant, n: usize) {
        self.reply_at = self.reply_at.saturating_add(n).min(self.reply_len);
        if self.reply_at == self.reply_len {
            if self.reply_len > 0 {
                self.counters.answers += 1;
            }
            self.reply_len = 0;
            self.reply_at = 0;
            self.reply_since = None;
        } else if self.reply_since.is_none() {
            self.reply_since = Some(now);
        }
    }

    /// Whether an older answer still waits; the newest message's answer then follows it.
    pub const fn note_backlog(&mut self) {
        if self.reply_at < self.reply_len && self.reply_due {
            self.counters.replaced += 1;
        }
    }
}

/// What is kept of a message once its buffer is reused.
#[derive(Debug, Clone, Copy)]
struct Digest {
    ack: Ack,
    ack_ms: u64,
    latency_ms: f64,
    fault: bool,
    has_reason: bool,
    controller: Option<Controller>,
}

impl Digest {
    fn of(
        message: &ControlMessage<'_>,
        reason: &mut [u8; crate::limits::FAULT_REASON],
        reason_len: &mut usize,
    ) -> Self {
        let has_reason = !message.telemetry.fault_reason.is_empty();
        if has_reason {
            *reason_len = control::display_reason(message.telemetry.fault_reason, reason).len();
        }
        Self {
            ack: Ack::of(message),
            ack_ms: ack_ms(message.ack_time, message.ack_time_ms),
            latency_ms: message.telemetry.latency_ms,
            fault: message.telemetry.fault,
            has_reason,
            controller: message.controller,
        }
    }
}

impl Ack {
    fn of(message: &ControlMessage<'_>) -> Self {
        let mut ack = Self::default();
        ack.time_len = copy(message.ack_time, &mut ack.time);
        ack.mac_len = copy(message.ack_time_mac, &mut ack.mac);
        ack
    }
}

fn copy(from: &[u8], to: &mut [u8]) -> usize {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
    from.len().min(to.len())
}

/// `ack_time` as exact milliseconds where it is written as an integer: above 2^53 a float would move in steps.
fn ack_ms(text: &[u8], rounded: f64) -> u64 {
    let exact = core::str::from_utf8(text).ok().and_then(|text| text.parse::<u64>().ok());
    exact.unwrap_or_else(|| saturating_u64(rounded))
}

/// A float as u64; a float-to-integer `as` saturates and turns NaN into 0, which is what is wanted here.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturation is the intent")]
const fn saturating_u64(value: f64) -> u64 {
    value as u64
}

fn pad(controller: Controller) -> Pad {
    Pad { axes: controller.axes, buttons: controller.buttons }
}

const fn user_value(value: Extracted) -> UserValue {
    match value {
        Extracted::Missing => UserValue::Missing,
        Extracted::Invalid => UserValue::Invalid,
        Extracted::Bool(b) => UserValue::Bool(b),
        Extracted::Number(n) => UserValue::Number(n),
    }
}

#[cfg(test)]
mod tests;
