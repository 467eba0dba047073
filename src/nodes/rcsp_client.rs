//! The client's side of an RCSP connection, decided: commands out, answers in their order and events in.
//!
//! Owns the commands that wait for their answers, the events that nobody has taken yet, and the bytes in front of the
//! socket. Relies on `proto::rcsp`. Never waits and never sees the socket; never goes on after a message that the
//! protocol does not allow, and never takes an answer that is overdue for the answer to the next command.

mod devices;

use std::collections::VecDeque;

use serde_json::value::RawValue;

pub use self::devices::{Device, DeviceId, ListError, devices, members, object};
use crate::proto::rcsp::envelope;
use crate::proto::rcsp::header::{HeaderError, PayloadType};
use crate::proto::rcsp::reader::{Incoming, Reader};
pub use crate::proto::rcsp::reply::{EventBody, RemoteError, ReplyError};
use crate::proto::rcsp::reply::{decode_event, decode_reply};
use crate::time::{Duration, Instant};

/// Longest body that is taken. Nothing is documented; a list of devices is a few kilobytes, and what comes is held whole.
pub const BODY: usize = 16 << 20;

/// Commands that may wait for their answers, as many as our server takes from one client.
pub const OUTSTANDING: usize = 64;

/// Events that wait for somebody to take them: more than 64 KiB can bring (7,282 of 9 bytes), so that whoever takes them
/// after each read of that size loses none.
pub const EVENTS: usize = 8_192;

/// Bytes of those events together; the newest is kept however long it is.
pub const EVENT_BYTES: usize = BODY;

/// What a server did that the protocol does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolError {
    /// A header behind which nothing can be read.
    Header(HeaderError),
    /// A message that only clients send, or of no known kind.
    Kind(u8),
    /// A body that has no reading.
    Body(ReplyError),
    /// The answer to another command than the oldest.
    TrackId,
    /// An answer without a command.
    Unasked,
    /// An answer to `ListDevices` that is no list.
    List(ListError),
}

impl core::fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Header(error) => write!(f, "{error}"),
            Self::Kind(kind) => write!(f, "a message of type {kind}, which no server sends"),
            Self::Body(error) => write!(f, "{error}"),
            Self::TrackId => f.write_str("an answer with the TrackId of another command"),
            Self::Unasked => f.write_str("an answer to no command"),
            Self::List(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for ProtocolError {}

/// Why a connection is of no more use. Consequence of each: it is closed, and made anew where somebody wants to go on.
#[derive(Debug, Clone, PartialEq)]
pub enum Unusable {
    /// The server breaks the protocol.
    Protocol(ProtocolError),
    /// An answer is overdue: were it to come, it would be taken for the next one's.
    TimedOut,
    /// The server says no to no command in particular: it takes no more of them (too many clients, a header that it
    /// cannot read).
    TurnedAway(RemoteError),
    /// As many commands as there may be wait for their answers.
    Full,
}

/// Which command an answer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

impl Ticket {
    /// The command's `TrackId`, unique on its connection.
    fn track_id(self) -> String {
        self.0.to_string()
    }
}

/// What became of a command.
#[derive(Debug)]
pub struct Answer {
    /// Of which.
    pub ticket: Ticket,
    /// The `Response` as it was written, `None` where it is absent or `null`; or the server's no.
    pub result: Result<Option<Box<RawValue>>, RemoteError>,
}

/// Something that was subscribed to has happened.
#[derive(Debug)]
pub struct Event {
    /// The body as it was written.
    pub json: Box<RawValue>,
    /// The same with what is known about its keys.
    pub body: EventBody,
}

#[derive(Debug)]
struct Outstanding {
    ticket: Ticket,
    due: Instant,
}

/// One connection to a server.
#[derive(Debug)]
pub struct ClientNode {
    timeout: Duration,
    reader: Reader,
    next: u64,
    outstanding: VecDeque<Outstanding>,
    answers: VecDeque<Answer>,
    events: VecDeque<Event>,
    event_bytes: usize,
    dropped: u64,
    out: Vec<u8>,
    out_at: usize,
    unusable: Option<Unusable>,
}

/// The kinds that a server sends.
fn from_server(kind: u8) -> bool {
    PayloadType::from_byte(kind).is_some_and(|kind| kind != PayloadType::Command)
}

impl ClientNode {
    /// A connection on which nothing was said. Each answer must come within `timeout` of its command.
    #[must_use]
    pub const fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            reader: Reader::new(BODY, from_server),
            next: 1,
            outstanding: VecDeque::new(),
            answers: VecDeque::new(),
            events: VecDeque::new(),
            event_bytes: 0,
            dropped: 0,
            out: Vec::new(),
            out_at: 0,
            unusable: None,
        }
    }

    /// Puts a command in front of the socket; the answer carries the ticket. Arguments are an object, as it is to be
    /// written.
    ///
    /// # Errors
    /// [`Unusable`]: nothing is sent. [`Unusable::Full`] alone passes.
    pub fn command(
        &mut self,
        now: Instant,
        command: &str,
        arguments: Option<&RawValue>,
    ) -> Result<Ticket, Unusable> {
        if let Some(why) = &self.unusable {
            return Err(why.clone());
        }
        if self.outstanding.len() >= OUTSTANDING {
            return Err(Unusable::Full);
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        self.out.extend(envelope::command_text(command, &ticket.track_id(), arguments.map(RawValue::get)));
        self.outstanding.push_back(Outstanding { ticket, due: now + self.timeout });
        Ok(ticket)
    }

    /// The bytes to write now.
    #[must_use]
    pub fn poll_transmit(&self) -> Option<&[u8]> {
        self.out.get(self.out_at..).filter(|rest| !rest.is_empty())
    }

    /// Says that the kernel took `n` bytes of [`ClientNode::poll_transmit`].
    pub fn handle_written(&mut self, n: usize) {
        self.out_at = self.out_at.saturating_add(n).min(self.out.len());
        if self.out_at == self.out.len() {
            self.out.clear();
            self.out_at = 0;
        }
    }

    /// Takes bytes from the socket. What was complete before an error stays to be taken.
    pub fn handle_bytes(&mut self, mut bytes: &[u8]) {
        while self.unusable.is_none() && !bytes.is_empty() {
            match self.reader.take(bytes) {
                Ok((used, message)) => {
                    bytes = bytes.get(used..).unwrap_or_default();
                    let taken = message.map_or(Ok(()), |message| self.take(message));
                    self.unusable = taken.err();
                }
                Err(error) => self.unusable = Some(Unusable::Protocol(ProtocolError::Header(error))),
            }
        }
    }

    fn take(&mut self, message: Incoming) -> Result<(), Unusable> {
        let broken = |error| Unusable::Protocol(error);
        let (kind, body) = match message {
            Incoming::Message { kind, body } => (kind, body),
            Incoming::Skipped { kind } => return Err(broken(ProtocolError::Kind(kind))),
        };
        if kind == PayloadType::Event as u8 {
            return self.take_event(&body).map_err(|error| broken(ProtocolError::Body(error)));
        }
        let reply = decode_reply(kind, &body).map_err(|error| broken(ProtocolError::Body(error)))?;
        // A server that could not read which command it refuses echoes an empty text.
        let result = match reply.result {
            Err(error) if reply.track_id == "" => return Err(Unusable::TurnedAway(error)),
            Err(error) => Err(error),
            // As it was written: a number keeps its digits.
            Ok(Some(_)) => Ok(object(&body).and_then(|mut members| members.remove("Response"))),
            Ok(None) => Ok(None),
        };
        let oldest = self.outstanding.pop_front().ok_or_else(|| broken(ProtocolError::Unasked))?;
        if reply.track_id != oldest.ticket.track_id() {
            return Err(broken(ProtocolError::TrackId));
        }
        self.answers.push_back(Answer { ticket: oldest.ticket, result });
        Ok(())
    }

    fn take_event(&mut self, body: &[u8]) -> Result<(), ReplyError> {
        let read = decode_event(body)?;
        let json = serde_json::from_slice::<Box<RawValue>>(body).map_err(|_| ReplyError::NotJson)?;
        self.event_bytes += json.get().len();
        self.events.push_back(Event { json, body: read });
        while self.events.len() > EVENTS || (self.event_bytes > EVENT_BYTES && self.events.len() > 1) {
            if self.poll_event().is_some() {
                self.dropped += 1;
            }
        }
        Ok(())
    }

    /// The next answer, in the order of the commands.
    pub fn poll_answer(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    /// The oldest event that nobody has taken.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.event_bytes = self.event_bytes.saturating_sub(event.json.get().len());
        Some(event)
    }

    /// Events that were dropped because nobody took them: the oldest each time.
    #[must_use]
    pub const fn events_dropped(&self) -> u64 {
        self.dropped
    }

    /// When the oldest answer is overdue; `None` where none is waited for.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.outstanding.front().map(|oldest| oldest.due)
    }

    /// Gives the connection up where an answer is overdue.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.unusable.is_none() && self.due().is_some_and(|due| due <= now) {
            self.unusable = Some(Unusable::TimedOut);
        }
    }

    /// Why the connection is of no more use; `None` while it is.
    #[must_use]
    pub const fn unusable(&self) -> Option<&Unusable> {
        self.unusable.as_ref()
    }
}

#[cfg(test)]
mod tests;
