//! What happens in the simulation that is worth a line on the screen.
//!
//! Owns the events and their words. Relies on nothing. Never decides that one happens.

use super::player::Source;

/// Which of the simulated programs an event, a connection or a command is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// The Streamer of a vehicle, by its place in [`super::Options::vehicles`].
    Vehicle(usize),
    /// The Player.
    Player,
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
    /// The set of active faults of the vehicle's side changed.
    Faults(Vec<String>),
    /// The set of active faults of the operator's side changed, for this vehicle.
    SenderFaults(String, Vec<String>),
    /// A response was dropped, and why.
    BadResponse(String),
    /// A message of the Player's client was dropped, and why.
    BadClientMessage(String),
    /// A message of the server has more bytes than OCP takes and is dropped, as are those after it.
    TooLong(usize),
    /// The client's buffer is full: messages are lost.
    BackPressure,
    /// The program started anew: a Streamer with a new key and its clock from 0, a Player without source.
    Restarted,
    /// The first client data came from here: no other source may send any.
    SourceLocked(Source),
    /// Client data came from the second source: no client data counts until the Player restarts.
    SourceConflict(Source, Source),
    /// The Player's client names a vehicle that is not connected.
    UnknownVehicle(String),
    /// The gamepad was moved while it was being held still to arm.
    ArmingDisturbed,
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
            Self::SenderFaults(vehicle, names) if names.is_empty() => {
                format!("no fault of the operator's side for {vehicle}")
            }
            Self::SenderFaults(vehicle, names) => {
                format!("fault of the operator's side for {vehicle}: {}", names.join(", "))
            }
            Self::BadResponse(why) => format!("response dropped: {why}"),
            Self::BadClientMessage(why) => format!("client's message dropped: {why}"),
            Self::TooLong(bytes) => {
                format!("message of {bytes} bytes dropped, OCP takes {}", crate::limits::OCP_BODY)
            }
            Self::BackPressure => "the client does not read: message lost".to_owned(),
            Self::Restarted => "restarted".to_owned(),
            Self::SourceLocked(source) => format!("client data: locked to {}", source.name()),
            Self::SourceConflict(held, other) => format!(
                "client data: source conflict, locked to {} and {} sent too; all client data is stopped until \
                 \"restart player\"",
                held.name(),
                other.name()
            ),
            Self::UnknownVehicle(name) => format!("the client names {name:?}, which is not connected"),
            Self::ArmingDisturbed => "arming disturbed: the gamepad was moved before it ended".to_owned(),
        }
    }
}
