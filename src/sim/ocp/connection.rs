//! One TCP server in virtual time: one client at a time, whole bodies in, bytes out, and the faults put into them.
//!
//! Owns who is the client, the framing of both directions and the way bytes go out. Relies on time as an argument.
//! Never knows what a body means: the streamer and the player do.

use std::collections::VecDeque;

use super::inject::Inject;
use super::options::SecondClient;
use crate::limits;
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

/// Messages kept for a replay.
const HISTORY: usize = 100;

/// One connected client.
#[derive(Debug, Clone)]
struct Client {
    since: Instant,
    heard_at: Instant,
    input: Vec<u8>,
    /// Bytes of an oversized body still to be passed over.
    skip: usize,
    messages: u32,
}

/// The server's side of its connection.
#[derive(Debug)]
pub(super) struct Connection {
    second_client: SecondClient,
    idle_timeout: Option<Duration>,
    client: Option<Client>,
    closed_until: Instant,
    stalled_until: Instant,
    is_silent: bool,
    replaying_until: Instant,
    injections: VecDeque<(Inject, u32)>,
    held_back: Option<(u32, Vec<u8>)>,
    history: VecDeque<Vec<u8>>,
    out: VecDeque<(Instant, Transmit)>,
}

impl Connection {
    pub fn new(second_client: SecondClient, idle_timeout: Option<Duration>) -> Self {
        Self {
            second_client,
            idle_timeout,
            client: None,
            closed_until: Instant::ZERO,
            stalled_until: Instant::ZERO,
            is_silent: false,
            replaying_until: Instant::ZERO,
            injections: VecDeque::new(),
            held_back: None,
            history: VecDeque::new(),
            out: VecDeque::new(),
        }
    }

    /// A client wants to connect.
    pub fn connect(&mut self, now: Instant) -> Admission {
        let admission = match (&self.client, self.second_client) {
            _ if now < self.closed_until => Admission::Reject,
            (None, _) => Admission::Accept,
            (Some(_), SecondClient::Reject) => Admission::Reject,
            (Some(_), SecondClient::Replace) => Admission::Replace,
            (Some(_), SecondClient::Ignore) => Admission::Ignore,
        };
        if matches!(admission, Admission::Accept | Admission::Replace) {
            let client = Client { since: now, heard_at: now, input: Vec::new(), skip: 0, messages: 0 };
            self.client = Some(client);
            self.out.clear();
            self.held_back = None;
        }
        admission
    }

    /// The client is gone; answers whether there was one.
    pub fn disconnect(&mut self) -> bool {
        self.out.clear();
        self.client.take().is_some()
    }

    /// Ends the connection after what is still to be sent; a reset drops that. Answers whether there was a client.
    pub fn close(&mut self, how: Transmit) -> bool {
        if self.client.take().is_none() {
            return false;
        }
        if how == Transmit::Reset {
            self.out.clear();
        }
        let due = self.out.back().map_or(Instant::ZERO, |(due, _)| *due);
        self.out.push_back((due, how));
        true
    }

    pub const fn is_connected(&self) -> bool {
        self.client.is_some()
    }

    /// Since when the client is connected.
    pub fn since(&self) -> Option<Instant> {
        self.client.as_ref().map(|client| client.since)
    }

    /// Messages this client was sent.
    pub fn messages(&self) -> Option<u32> {
        self.client.as_ref().map(|client| client.messages)
    }

    /// Clients are turned away until then.
    pub const fn turn_away(&mut self, until: Instant) {
        self.closed_until = until;
    }

    /// Whether the program is down.
    pub fn is_down(&self, now: Instant) -> bool {
        now < self.closed_until
    }

    pub const fn stall(&mut self, until: Instant) {
        self.stalled_until = until;
    }

    /// Until when the program hangs.
    pub const fn stalled_until(&self) -> Instant {
        self.stalled_until
    }

    pub const fn set_silent(&mut self, is_silent: bool) {
        self.is_silent = is_silent;
    }

    /// Whether a message can go out now.
    pub fn may_send(&self, now: Instant) -> bool {
        self.client.is_some() && !self.is_silent && now >= self.replaying_until
    }

    /// Whether the server reads its socket now: not while it hangs.
    pub fn wants_bytes(&self, now: Instant) -> bool {
        now >= self.stalled_until
    }

    /// Whether the client has said nothing for too long.
    pub fn is_idle(&self, now: Instant) -> bool {
        let heard_at = self.client.as_ref().map(|client| client.heard_at);
        self.idle_timeout.zip(heard_at).is_some_and(|(timeout, at)| now.since(at) > timeout)
    }

    /// Bytes from the client.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        if let Some(client) = &mut self.client {
            client.heard_at = now;
            client.input.extend_from_slice(bytes);
        }
    }

    /// The next whole body, or the length of one that is too long; that one is passed over.
    pub fn poll_body(&mut self) -> Option<Result<Vec<u8>, usize>> {
        let client = self.client.as_mut()?;
        let passed = client.skip.min(client.input.len());
        client.input.drain(..passed);
        client.skip -= passed;
        let (header, rest) = client.input.split_first_chunk::<4>()?;
        let len = u32::from_le_bytes(*header) as usize;
        if len > limits::OCP_BODY {
            client.input.drain(..4);
            client.skip = len;
            return Some(Err(len));
        }
        let body = rest.get(..len)?.to_vec();
        client.input.drain(..4 + len);
        Some(Ok(body))
    }

    pub fn inject(&mut self, injection: Inject, times: u32) {
        self.injections.push_back((injection, times));
    }

    /// What shall happen to the next message.
    pub fn next_injection(&mut self) -> Option<Inject> {
        let (injection, times) = self.injections.front_mut()?;
        *times -= 1;
        if *times > 0 {
            return Some(injection.clone());
        }
        self.injections.pop_front().map(|(injection, _)| injection)
    }

    /// Puts a frame into the stream in the way the injection wants it, a replay with this gap. Answers whether that
    /// ended the connection.
    pub fn send(&mut self, now: Instant, frame: Vec<u8>, injection: Option<&Inject>, gap: Duration) -> bool {
        if let Some(client) = &mut self.client {
            client.messages = client.messages.saturating_add(1);
        }
        if injection.is_none() {
            if self.history.len() == HISTORY {
                self.history.pop_front();
            }
            self.history.push_back(frame.clone());
        }
        match injection {
            Some(Inject::Partial(gap)) => {
                for (at, byte) in (0_u32..).zip(frame) {
                    self.transmit(now + *gap * at, vec![byte]);
                }
            }
            Some(Inject::Split(at, gap)) => {
                let mut first = frame;
                let second = first.split_off((*at).min(first.len()));
                self.transmit(now, first);
                self.transmit(now + *gap, second);
            }
            Some(Inject::Coalesce(n)) => self.held_back = Some((n - 1, frame)),
            Some(Inject::Truncate) => {
                self.transmit(now, frame.get(..frame.len() / 2).unwrap_or_default().to_vec());
                return self.close(Transmit::Close);
            }
            Some(Inject::Replay) => {
                let frames = core::mem::take(&mut self.history);
                for (at, frame) in (0_u32..).zip(frames) {
                    self.replaying_until = now + gap * at;
                    self.transmit(self.replaying_until, frame);
                }
            }
            _ => self.transmit(now, frame),
        }
        false
    }

    /// Forgets what was sent: the program started anew.
    pub fn forget(&mut self) {
        self.history.clear();
    }

    /// Appends to the stream; nothing overtakes what was put there before.
    fn transmit(&mut self, due: Instant, bytes: Vec<u8>) {
        let bytes = match self.held_back.take() {
            None => bytes,
            Some((left, mut held)) => {
                held.extend(bytes);
                if left > 1 {
                    self.held_back = Some((left - 1, held));
                    return;
                }
                held
            }
        };
        let due = self.out.back().map_or(due, |(last, _)| due.max(*last));
        self.out.push_back((due, Transmit::Bytes(bytes)));
    }

    /// The next thing to do with the connection, if it is due.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        let (due, _) = self.out.front()?;
        if *due > now { None } else { self.out.pop_front().map(|(_, transmit)| transmit) }
    }

    /// When that is.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.out.front().map(|(due, _)| *due)
    }
}
