//! The game of the first driver: its handshake and its two subscriptions.
//!
//! Owns who asked for what. Relies on [`crate::proto::assetto::game`]. Never keeps a client beyond [`CLIENTS_MAX`].

use core::net::SocketAddr;

use crate::proto::assetto::game::{GameError, Operation, Request};

/// Clients of one game; more are not answered.
pub(super) const CLIENTS_MAX: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// It shook hands and nothing more.
    Nothing,
    Updates,
    Laps,
}

/// The clients.
#[derive(Debug, Clone, Default)]
pub(super) struct Clients(Vec<(SocketAddr, Wish)>);

impl Clients {
    /// Takes a request; true where a handshake is to be answered.
    pub(super) fn handle_request(&mut self, from: SocketAddr, datagram: &[u8]) -> Result<bool, GameError> {
        let operation = Request::decode(datagram)?.operation;
        let Some((_, wish)) = self.0.iter_mut().find(|(address, _)| *address == from) else {
            // Without a handshake there is nothing to subscribe to.
            let is_welcome = operation == Operation::Handshake && self.0.len() < CLIENTS_MAX;
            if is_welcome {
                self.0.push((from, Wish::Nothing));
            }
            return Ok(is_welcome);
        };
        match operation {
            // A client that lost its way begins again.
            Operation::Handshake => *wish = Wish::Nothing,
            Operation::SubscribeUpdate => *wish = Wish::Updates,
            Operation::SubscribeSpot => *wish = Wish::Laps,
            Operation::Dismiss => self.0.retain(|(address, _)| *address != from),
        }
        Ok(operation == Operation::Handshake)
    }

    fn who(&self, wanted: Wish) -> Vec<SocketAddr> {
        self.0.iter().filter(|(_, wish)| *wish == wanted).map(|(address, _)| *address).collect()
    }

    /// Who gets each step.
    pub(super) fn of_updates(&self) -> Vec<SocketAddr> {
        self.who(Wish::Updates)
    }

    /// Who gets each lap.
    pub(super) fn of_laps(&self) -> Vec<SocketAddr> {
        self.who(Wish::Laps)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
