//! A client's side of the game's telemetry: two handshakes, one for each of the two streams.
//!
//! Owns when a request is sent. Relies on nothing but messages and the time as an argument. Never tires: a game that is
//! not there, or that went away, is asked again.

use crate::proto::assetto::game::{GameMessage, Operation};
use crate::time::{Duration, Instant};

/// First wait for an answer; each further one is twice as long.
const WAIT_MIN: Duration = Duration::from_secs(1);

/// Longest wait for an answer.
const WAIT_MAX: Duration = Duration::from_secs(8);

/// Updates come 20 times a second and more. A game that sends none for so long is paused, in its menus or gone.
const SILENCE: Duration = Duration::from_secs(3);

/// One of the two sockets: the game knows one subscription for each address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Each step of the player's car.
    Updates,
    /// Each lap of any car.
    Laps,
}

impl Stream {
    const fn subscription(self) -> Operation {
        match self {
            Self::Updates => Operation::SubscribeUpdate,
            Self::Laps => Operation::SubscribeSpot,
        }
    }
}

/// The conversation on one socket.
#[derive(Debug)]
pub struct GameClient {
    stream: Stream,
    ask_at: Instant,
    wait: Duration,
    is_subscribed: bool,
    request: Option<Operation>,
}

impl GameClient {
    /// Begins now.
    pub const fn new(stream: Stream, now: Instant) -> Self {
        Self { stream, ask_at: now, wait: WAIT_MIN, is_subscribed: false, request: None }
    }

    /// Takes a message.
    pub fn handle_message(&mut self, now: Instant, message: &GameMessage<'_>) {
        match message {
            GameMessage::Handshake(_) => {
                self.request = Some(self.stream.subscription());
                self.is_subscribed = true;
                self.ask_at = now + SILENCE;
            }
            GameMessage::CarInfo(_) => {
                self.wait = WAIT_MIN;
                self.ask_at = now + SILENCE;
            }
            GameMessage::Lap(_) => self.wait = WAIT_MIN,
        }
    }

    /// From the beginning again: the game of the other stream was away.
    pub const fn restart(&mut self, now: Instant) {
        self.ask_at = now;
        self.is_subscribed = false;
    }

    /// Whether the game has not answered yet, or has gone silent.
    #[must_use]
    pub const fn is_silent(&self) -> bool {
        !self.is_subscribed
    }

    /// When to look again; `None` where only the game can change something. Laps are rare: their silence means nothing.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.is_subscribed || self.stream == Stream::Updates).then_some(self.ask_at)
    }

    /// Asks again where it is time to; true where a stream has just gone silent.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return false;
        }
        self.request = Some(Operation::Handshake);
        self.ask_at = now + self.wait;
        self.wait = (self.wait * 2).min(WAIT_MAX);
        core::mem::take(&mut self.is_subscribed)
    }

    /// The request that is due.
    pub const fn poll_transmit(&mut self) -> Option<Operation> {
        self.request.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::assetto::game::{Handshake, RtCarInfo};

    const fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn it_asks_until_there_is_an_answer_and_again_when_the_stream_ends() {
        let mut client = GameClient::new(Stream::Updates, at(0));
        for (ms, due) in
            [(0, true), (999, false), (1_000, true), (3_000, true), (7_000, true), (15_000, true)]
        {
            assert!(!client.handle_timeout(at(ms)));
            assert_eq!(client.poll_transmit(), due.then_some(Operation::Handshake), "{ms}");
        }
        client.handle_message(at(15_100), &GameMessage::Handshake(Handshake::default()));
        assert_eq!(client.poll_transmit(), Some(Operation::SubscribeUpdate));
        client.handle_message(at(16_000), &GameMessage::CarInfo(RtCarInfo::default()));
        assert_eq!(client.poll_timeout(), Some(at(19_000)));
        assert!(client.handle_timeout(at(19_000)) && client.poll_transmit() == Some(Operation::Handshake));
        assert_eq!(client.poll_timeout(), Some(at(20_000)), "quickly again");
    }

    #[test]
    fn laps_are_rare_and_their_silence_is_none() {
        let mut client = GameClient::new(Stream::Laps, at(0));
        client.handle_timeout(at(0));
        client.handle_message(at(10), &GameMessage::Handshake(Handshake::default()));
        assert_eq!((client.poll_transmit(), client.poll_timeout()), (Some(Operation::SubscribeSpot), None));
        client.restart(at(500));
        assert_eq!(client.poll_timeout(), Some(at(500)));
    }
}
