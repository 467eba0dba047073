//! One client: bytes in, answers and events out.
//!
//! Owns the order of the answers, every deadline, and when the connection must end. Relies on the caller for the socket, the
//! time and the [`Desk`]. Never gives a command two answers or none while its client stays, never takes more commands than it
//! can hold, and never sends an event in front of the answer that allowed it.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::counts::{Counts, Ended};
use super::outbox::{OVERHEAD, Outbox};
use super::subscriptions::{Name, Subscriptions};
use super::{ANSWER, Answer, Asked, BODY, COMMANDS, COMPLETE, Desk, ErrorCode, Event, TAKES};
use crate::proto::rcsp::envelope::{self, Command, Refusal, TrackId};
use crate::proto::rcsp::header::{HeaderError, PayloadType};
use crate::proto::rcsp::reader::{Incoming, Reader};
use crate::time::{Duration, Instant};

/// Answers that wait for a client in bytes: beyond that none of its commands is taken.
pub const ANSWER_BYTES: usize = 256 << 10;

/// How often a command that waits for its answer is looked at.
const SETTLE: Duration = Duration::from_millis(10);

/// A command that was taken and whose answer is not in line yet.
#[derive(Debug)]
enum Slot {
    /// The answer; one in front of it is not there yet.
    Ready(Vec<u8>),
    Pending {
        track_id: TrackId,
        ticket: u64,
        due: Instant,
    },
}

/// The protocol side of one client.
#[derive(Debug)]
pub struct Session {
    is_local: bool,
    reader: Reader,
    slots: VecDeque<Slot>,
    /// The number of the first command in `slots`.
    first: u64,
    /// What the answers in `slots` cost.
    held: usize,
    outbox: Outbox,
    subscriptions: Subscriptions,
    /// Since when a message is incomplete.
    inside_since: Option<Instant>,
    /// Since when the client has taken nothing of what waits.
    stuck_since: Option<Instant>,
    /// A message that was no command has come.
    is_warned: bool,
    /// No byte is read any more; when everything is written the connection ends.
    ending: Option<Ended>,
    counts: Counts,
}

impl Session {
    /// A client that has just connected; whether it is on the loopback address.
    #[must_use]
    pub fn new(is_local: bool) -> Self {
        Self {
            is_local,
            reader: Reader::new(BODY, |kind| kind == PayloadType::Command as u8),
            slots: VecDeque::new(),
            first: 0,
            held: 0,
            outbox: Outbox::default(),
            subscriptions: Subscriptions::default(),
            inside_since: None,
            stuck_since: None,
            is_warned: false,
            ending: None,
            counts: Counts::default(),
        }
    }

    /// Whether bytes may be read for it. Where not, they stay in the kernel and the client waits.
    #[must_use]
    pub fn wants_bytes(&self) -> bool {
        self.ending.is_none()
            && self.slots.len() < COMMANDS
            && self.held + self.outbox.answer_weight() < ANSWER_BYTES
    }

    /// Takes bytes that were read; how many of them. The rest is for the time when [`wants_bytes`](Self::wants_bytes) is
    /// true again.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8], desk: &mut dyn Desk) -> usize {
        let mut used = 0;
        while self.wants_bytes() {
            let rest = bytes.get(used..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            match self.reader.take(rest) {
                Ok((n, incoming)) => {
                    used += n;
                    // What is behind the end of a message has a time of its own.
                    if incoming.is_some() {
                        self.inside_since = None;
                    } else if self.reader.is_inside() {
                        self.inside_since.get_or_insert(now);
                    }
                    match incoming {
                        Some(Incoming::Message { body, .. }) => self.handle_command(now, &body, desk),
                        Some(Incoming::Skipped { kind }) => self.handle_other(kind),
                        None => {}
                    }
                }
                Err(error) => {
                    self.handle_unreadable(error);
                    return bytes.len();
                }
            }
        }
        used
    }

    /// The client sends no more. What it has asked for is still answered.
    pub fn handle_end(&mut self) {
        self.end(Ended::Left);
    }

    /// Looks at what waits and at every deadline.
    ///
    /// # Errors
    /// [`Ended`]: the connection is to be closed, for this reason.
    pub fn poll(&mut self, now: Instant, desk: &mut dyn Desk) -> Result<(), Ended> {
        self.settle(now, desk);
        if self.outbox.is_empty() {
            self.stuck_since = None;
        } else if now.since(*self.stuck_since.get_or_insert(now)) >= TAKES {
            return Err(Ended::NotReading);
        }
        if let Some(ended) = self.ending {
            return if self.slots.is_empty() && self.outbox.is_empty() { Err(ended) } else { Ok(()) };
        }
        match self.inside_since {
            // Its bytes may be waiting in the kernel: it is we who do not read.
            Some(_) if !self.wants_bytes() => self.inside_since = Some(now),
            Some(since) if now.since(since) >= COMPLETE => return Err(Ended::Incomplete),
            _ => {}
        }
        Ok(())
    }

    /// When [`poll`](Self::poll) is due, whatever comes.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let waits = self.slots.iter().any(|slot| matches!(slot, Slot::Pending { .. }));
        let settle = waits.then(|| now + SETTLE);
        let inside = self.inside_since.map(|since| since + COMPLETE);
        let stuck = self.stuck_since.map(|since| since + TAKES);
        settle.into_iter().chain(inside).chain(stuck).min()
    }

    /// Bytes to be written, to the end of a message; empty where there are none.
    #[must_use]
    pub fn transmit(&self) -> &[u8] {
        self.outbox.next()
    }

    /// Says that the socket took `n` bytes of [`transmit`](Self::transmit).
    pub fn handle_sent(&mut self, now: Instant, n: usize) {
        if n > 0 {
            self.outbox.wrote(n);
            self.stuck_since = (!self.outbox.is_empty()).then_some(now);
        }
    }

    /// Puts an event in line, if the client has subscribed to it. `message` is the event encoded.
    pub fn publish(&mut self, event: &Event, message: &Arc<[u8]>) {
        if self.ending.is_none() && self.subscriptions.want(event) {
            self.counts.events += 1;
            self.outbox.push_event(message);
        }
    }

    /// The connection is closed: nobody asks for what is not settled.
    pub fn close(&mut self, now: Instant, desk: &mut dyn Desk) {
        for slot in self.slots.drain(..) {
            if let Slot::Pending { ticket, .. } = slot {
                desk.forget(now, ticket);
            }
        }
    }

    /// Whether its client is on this machine.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        self.is_local
    }

    /// Whether its client could miss something: an answer or an event that it has asked for.
    #[must_use]
    pub fn is_awaiting(&self) -> bool {
        !self.slots.is_empty() || !self.outbox.is_empty() || !self.subscriptions.is_empty()
    }

    /// What was counted so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        Counts { events_dropped: self.outbox.dropped(), ..self.counts }
    }

    /// What this client's messages cost in bytes, on their way in and out.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.reader.held_bytes() + self.held + self.outbox.weight()
    }

    fn handle_command(&mut self, now: Instant, body: &[u8], desk: &mut dyn Desk) {
        self.counts.commands += 1;
        let number = self.first + self.slots.len() as u64;
        let is_known = |command: &str| is_ours(command) || desk.knows_command(command);
        let (track_id, answer) = match envelope::decode_command(body, is_known) {
            Ok(command) => {
                let answer = self.carry_out(now, number, &command, desk);
                (command.track_id, answer.unwrap_or_else(|(code, text)| Answer::Refused(code, text)))
            }
            Err(Refusal { track_id, code, message }) => (track_id, Answer::Refused(code, message)),
        };
        let slot = match answer {
            Answer::Pending(ticket) => Slot::Pending { track_id, ticket, due: now + ANSWER },
            Answer::Ok(response) => Slot::Ready(envelope::ok(&track_id, response)),
            Answer::Refused(code, text) => self.refuse(&track_id, code, &text),
        };
        self.put(slot);
    }

    fn carry_out(
        &mut self,
        now: Instant,
        number: u64,
        asked: &Command,
        desk: &mut dyn Desk,
    ) -> Result<Answer, (ErrorCode, String)> {
        let Command { command, arguments, .. } = asked;
        let command = command.as_str();
        let is_for_device = command == "GetDeviceInfo" || command.starts_with("Device");
        let device = if is_for_device { Some(device(arguments)?) } else { None };
        let is_removal = ["Unsubscribe", "DeviceUnsubscribe"].contains(&command);
        if is_removal && let Ok(name) = name(device, arguments) {
            // In front of all else: a device that has gone can be left too.
            if self.subscriptions.remove(&name) {
                return Ok(Answer::Ok(None));
            }
        }
        if let Some(device) = device
            && !desk.knows_device(device)
        {
            return Err((ErrorCode::DeviceNotFound, "device not found".to_owned()));
        }
        if !is_ours(command) {
            return Ok(desk.answer(now, &Asked { command, arguments, device, local: self.is_local }));
        }
        let name = name(device, arguments)?;
        if is_removal {
            return Err((ErrorCode::UnknownTopic, "not subscribed".to_owned()));
        }
        if !desk.knows_topic(name.device, name.publisher, name.topic) {
            return Err((ErrorCode::UnknownTopic, "unknown topic".to_owned()));
        }
        match self.subscriptions.add(&name, number) {
            Ok(()) => Ok(Answer::Ok(None)),
            Err(full) => Err((ErrorCode::Limit, full.to_string())),
        }
    }

    /// A message that is no command, already passed over: told once, then the end.
    fn handle_other(&mut self, kind: u8) {
        let refusal = self.refuse(
            &TrackId::empty(),
            ErrorCode::Malformed,
            &format!("a client sends commands (type 1), not type {kind}"),
        );
        self.put(refusal);
        if core::mem::replace(&mut self.is_warned, true) {
            self.end(Ended::Kind);
        }
    }

    /// Nothing more can be read. Where the sender may understand why, it is told.
    fn handle_unreadable(&mut self, error: HeaderError) {
        let (ended, code) = match error {
            HeaderError::Marker(_) => (Ended::Marker, None),
            HeaderError::Size(_) => (Ended::HeaderSize, None),
            HeaderError::Version(_) => (Ended::HeaderVersion, Some(ErrorCode::Version)),
            HeaderError::TooLong(_) => (Ended::TooLong, Some(ErrorCode::Limit)),
        };
        if let Some(code) = code {
            let refusal = self.refuse(&TrackId::empty(), code, &error.to_string());
            self.put(refusal);
        }
        self.end(ended);
    }

    fn end(&mut self, ended: Ended) {
        self.ending.get_or_insert(ended);
        self.inside_since = None;
    }

    fn refuse(&mut self, track_id: &TrackId, code: ErrorCode, text: &str) -> Slot {
        self.counts.errors += 1;
        Slot::Ready(envelope::error(track_id, code, text))
    }

    /// Puts the newest command in line.
    fn put(&mut self, slot: Slot) {
        if let Slot::Ready(message) = &slot {
            self.held += message.len() + OVERHEAD;
        }
        self.slots.push_back(slot);
        self.promote();
    }

    /// Answers whose turn has come go out.
    fn promote(&mut self) {
        while let Some(Slot::Ready(message)) = self.slots.front_mut() {
            let message = core::mem::take(message);
            self.slots.pop_front();
            self.held = self.held.saturating_sub(message.len() + OVERHEAD);
            self.outbox.push_answer(message);
            self.subscriptions.answered(self.first);
            self.first += 1;
        }
    }

    /// Asks for what is pending, as far as there is room for the answers.
    fn settle(&mut self, now: Instant, desk: &mut dyn Desk) {
        let waiting = self.outbox.answer_weight();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Slot::Pending { track_id, ticket, due } = slot else { continue };
            // The first one holds up all behind it: its answer makes room for theirs.
            let is_room = waiting < ANSWER_BYTES && (index == 0 || waiting + self.held < ANSWER_BYTES);
            let message = match if is_room { desk.settle(now, *ticket) } else { None } {
                Some(Answer::Ok(response)) => envelope::ok(track_id, response),
                Some(Answer::Refused(code, text)) => {
                    self.counts.errors += 1;
                    envelope::error(track_id, code, &text)
                }
                still => {
                    if let Some(Answer::Pending(other)) = still {
                        *ticket = other;
                    }
                    if now < *due {
                        continue;
                    }
                    desk.forget(now, *ticket);
                    self.counts.errors += 1;
                    envelope::error(track_id, ErrorCode::Timeout, "no answer in time")
                }
            };
            self.held += message.len() + OVERHEAD;
            *slot = Slot::Ready(message);
        }
        self.promote();
    }
}

/// The commands that the session carries out itself.
fn is_ours(command: &str) -> bool {
    ["Subscribe", "Unsubscribe", "DeviceSubscribe", "DeviceUnsubscribe"].contains(&command)
}

/// The device that a command is for.
fn device(arguments: &Map<String, Value>) -> Result<&str, (ErrorCode, String)> {
    match arguments.get("DeviceId") {
        Some(Value::String(device)) => Ok(device),
        Some(Value::Null) | None => Err((ErrorCode::MissingArgument, "DeviceId is missing".to_owned())),
        // Another server's ids are numbers; none of ours is.
        Some(Value::Number(_)) => Err((ErrorCode::DeviceNotFound, "device not found".to_owned())),
        Some(_) => Err((ErrorCode::InvalidArgument, "DeviceId is neither a string nor a number".to_owned())),
    }
}

/// What a client subscribes to. Provisional: `Publisher` and `Topic` are ours.
fn name<'a>(
    device: Option<&'a str>,
    arguments: &'a Map<String, Value>,
) -> Result<Name<'a>, (ErrorCode, String)> {
    let text = |key: &str| match arguments.get(key) {
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(Value::Null) | None => Err((ErrorCode::MissingArgument, format!("{key} is missing"))),
        Some(_) => Err((ErrorCode::InvalidArgument, format!("{key} is not a string"))),
    };
    Ok(Name { device, publisher: text("Publisher")?, topic: text("Topic")? })
}

#[cfg(test)]
mod tests;
