//! One connection: the negotiation, then frames.
//!
//! Owns the reading side's buffer, what has been proposed, and the limit on the handshake's time. Relies on the
//! caller for the socket, and for the time as an argument. Never goes on after an error: it says the same error again
//! until it is [`reset`](Session::reset) for the next connection.
//!
//! The rule: the client proposes the highest version it knows, each side answers with the same or a lower one, and
//! the first repetition is the agreement; 0 says that there is none. A proposal that is not lower than the own last
//! one, nor equal to it, ends the connection, so each side speaks at most twice. The Python program does less: a
//! client sends 1 and takes 1, a server takes 1 and sends 1. Both fit the rule.

use core::fmt;

use super::message::{Message, Refusal, VERSION, VERSION_MESSAGE, WireError, encode_version};
use super::parser::{Expect, ParseError, Parser};
use crate::can::Frame;
use crate::time::{Duration, Instant};

/// Which side of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Connected; proposes at once.
    Client,
    /// Accepted; waits for a proposal.
    Server,
}

/// What a session is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionSettings {
    /// The side.
    pub role: Role,
    /// The highest version to agree to, 1 or more; all below it are known too. The Python program closes on any
    /// proposal but 1.
    pub highest: u32,
    /// Bytes of the reading buffer, the most that one read takes; raised to 76 where it is less.
    pub buffer_bytes: usize,
    /// How long agreement may take.
    pub handshake: Duration,
}

impl SessionSettings {
    /// Version 1, 64 KiB (3,640 classic messages: one read drains a socket that waited for 400 ms of a full bus),
    /// 3 s (three times the first retransmission time of TCP; a Python client speaks at once).
    #[must_use]
    pub const fn new(role: Role) -> Self {
        Self { role, highest: VERSION, buffer_bytes: 64 << 10, handshake: Duration::from_secs(3) }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEvent {
    /// Frames may be sent from now on, behind [`Session::transmit`]. Once per connection, before any frame.
    Agreed {
        /// The version.
        version: u32,
    },
    /// A frame of the other side.
    Frame(Frame),
    /// A message without a frame in it: to be counted.
    Refused(Refusal),
}

/// Why the connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionError {
    /// The bytes are no messages; behind frames, the stream is torn. A frame directly in front of the place was not
    /// given out.
    Wire(WireError),
    /// A frame message before agreement.
    EarlyFrame,
    /// A version message after agreement.
    LateVersion,
    /// The other side proposed 0, or a version that is not lower than ours.
    NoAgreement {
        /// Its proposal.
        version: u32,
    },
    /// No agreement within the time.
    HandshakeTimeout,
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wire(error) => write!(f, "{error}: this is not tcpcan, or the stream is torn"),
            Self::EarlyFrame => f.write_str("a frame before a version was agreed"),
            Self::LateVersion => f.write_str("a version message after the version was agreed"),
            Self::NoAgreement { version } => {
                write!(f, "no agreement: the other side proposed version {version}")
            }
            Self::HandshakeTimeout => f.write_str("no version was agreed in time"),
        }
    }
}

impl core::error::Error for SessionError {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The own last proposal, if there was one.
    Negotiating {
        proposed: Option<u32>,
    },
    Agreed {
        version: u32,
    },
    Dead(SessionError),
}

/// The protocol side of one connection.
///
/// Reading: let the socket read into [`spare`](Self::spare), say with [`commit`](Self::commit) how much came, take
/// events with [`poll_event`](Self::poll_event) until there is none. Writing: send [`transmit`](Self::transmit)
/// first; frames only after [`SessionEvent::Agreed`].
#[derive(Debug)]
pub struct Session {
    settings: SessionSettings,
    parser: Parser,
    state: State,
    deadline: Instant,
    /// At most two version messages wait here: more are never sent.
    outgoing: [u8; 2 * VERSION_MESSAGE],
    sent: usize,
    queued: usize,
}

impl Session {
    /// A session with the usual settings on a connection that was made at `now`.
    #[must_use]
    pub fn new(role: Role, now: Instant) -> Self {
        Self::with_settings(SessionSettings::new(role), now)
    }

    /// A session on a connection that was made at `now`.
    #[must_use]
    pub fn with_settings(settings: SessionSettings, now: Instant) -> Self {
        let mut session = Self {
            settings,
            parser: Parser::new(settings.buffer_bytes),
            state: State::Negotiating { proposed: None },
            deadline: now,
            outgoing: [0; 2 * VERSION_MESSAGE],
            sent: 0,
            queued: 0,
        };
        session.reset(now);
        session
    }

    /// Forgets everything: a new connection was made at `now`. Allocates nothing.
    pub fn reset(&mut self, now: Instant) {
        self.parser.clear();
        self.state = State::Negotiating { proposed: None };
        self.deadline = now + self.settings.handshake;
        self.sent = 0;
        self.queued = 0;
        if self.settings.role == Role::Client {
            self.propose(self.settings.highest.max(VERSION));
        }
    }

    /// Room for the next bytes of the stream. Not empty if events were polled until there was none.
    pub fn spare(&mut self) -> &mut [u8] {
        if self.is_dead() {
            self.parser.clear();
        }
        self.parser.spare()
    }

    /// Says that `n` bytes were written to the front of [`spare`](Self::spare); 0 says that the socket has no more
    /// for now, or that the stream has ended.
    pub fn commit(&mut self, n: usize) {
        self.parser.commit(n);
    }

    /// Whether the last read filled the whole room. The last frame may then be held back until it is known what
    /// follows it: read again before waiting, and [`commit`](Self::commit) 0 if there is nothing.
    #[must_use]
    pub const fn must_read_again(&self) -> bool {
        self.parser.must_read_again() && !self.is_dead()
    }

    /// Takes as many of `bytes` as fit and returns how many. At least one if events were polled until there was
    /// none.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> usize {
        if self.is_dead() {
            self.parser.clear();
        }
        self.parser.handle_bytes(bytes)
    }

    /// Whether a part of a message is held. At the end of a stream, asked after polling: the peer's last message is
    /// lost.
    #[must_use]
    pub const fn is_partial(&self) -> bool {
        self.parser.is_partial() && !self.is_dead()
    }

    /// What the bytes say, one thing at a time.
    ///
    /// # Errors
    /// [`SessionError`], the same from then on: the connection must be closed. Nothing that follows is looked at.
    pub fn poll_event(&mut self) -> Result<Option<SessionEvent>, SessionError> {
        while let State::Negotiating { proposed } = self.state {
            match self.parser.poll(Expect::Versions) {
                Ok(None) => return Ok(None),
                Ok(Some(Message::Version(version))) => {
                    if let Some(event) = self.negotiate(proposed, version)? {
                        return Ok(Some(event));
                    }
                }
                Ok(Some(_)) | Err(ParseError::Kind) => return self.fail(SessionError::EarlyFrame),
                Err(ParseError::Wire(error)) => return self.fail(SessionError::Wire(error)),
            }
        }
        if let State::Dead(error) = self.state {
            return Err(error);
        }
        match self.parser.poll(Expect::Frames) {
            Ok(None) => Ok(None),
            Ok(Some(Message::Frame(frame))) => Ok(Some(SessionEvent::Frame(frame))),
            Ok(Some(Message::Refused(refusal))) => Ok(Some(SessionEvent::Refused(refusal))),
            Ok(Some(Message::Version(_))) | Err(ParseError::Kind) => self.fail(SessionError::LateVersion),
            Err(ParseError::Wire(error)) => self.fail(SessionError::Wire(error)),
        }
    }

    /// One round: a version arrived.
    fn negotiate(
        &mut self,
        proposed: Option<u32>,
        version: u32,
    ) -> Result<Option<SessionEvent>, SessionError> {
        if proposed == Some(version) {
            // The other side repeated ours; repeating it once more would be a version message after agreement.
            return Ok(Some(self.agree(version)));
        }
        if version == 0 || proposed.is_some_and(|own| version > own) {
            return self.fail(SessionError::NoAgreement { version });
        }
        let highest = self.settings.highest.max(VERSION);
        self.propose(version.min(highest));
        // The first one, or a lower one than ours: repeating it is the agreement.
        Ok((version <= highest).then(|| self.agree(version)))
    }

    const fn agree(&mut self, version: u32) -> SessionEvent {
        self.state = State::Agreed { version };
        SessionEvent::Agreed { version }
    }

    fn propose(&mut self, version: u32) {
        let message = encode_version(version);
        if let Some(room) = self.outgoing.get_mut(self.queued..self.queued + VERSION_MESSAGE) {
            room.copy_from_slice(&message);
            self.queued += VERSION_MESSAGE;
        }
        self.state = State::Negotiating { proposed: Some(version) };
    }

    fn fail<T>(&mut self, error: SessionError) -> Result<T, SessionError> {
        self.state = State::Dead(error);
        self.sent = self.queued; // no word after that
        Err(error)
    }

    const fn is_dead(&self) -> bool {
        matches!(self.state, State::Dead(_))
    }

    /// Bytes of the negotiation to send now, in front of any frame; empty where there are none.
    #[must_use]
    pub fn transmit(&self) -> &[u8] {
        self.outgoing.get(self.sent..self.queued).unwrap_or_default()
    }

    /// Says that the socket took `n` bytes of [`transmit`](Self::transmit).
    pub fn handle_sent(&mut self, n: usize) {
        self.sent = self.sent.saturating_add(n).min(self.queued);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due; nothing once agreed or dead.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Negotiating { .. } => Some(self.deadline),
            State::Agreed { .. } | State::Dead(_) => None,
        }
    }

    /// Ends the session if no version is agreed by its deadline.
    ///
    /// # Errors
    /// [`SessionError::HandshakeTimeout`] then; the old error if the session was dead.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), SessionError> {
        match self.state {
            State::Dead(error) => Err(error),
            State::Negotiating { .. } if now >= self.deadline => self.fail(SessionError::HandshakeTimeout),
            State::Negotiating { .. } | State::Agreed { .. } => Ok(()),
        }
    }

    /// The version that was agreed. Frames may be sent only if there is one.
    #[must_use]
    pub const fn version(&self) -> Option<u32> {
        match self.state {
            State::Agreed { version } => Some(version),
            State::Negotiating { .. } | State::Dead(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
