//! What can be seen of the simulation at one moment.
//!
//! Owns the figures of a Streamer and of the Player, and their JSON. Relies on the messages' types. Never changes
//! anything.

use serde_json::{Map, Value, json};

use super::link::LinkState;
use super::player::SourceLock;
use crate::proto::ocp::player::{Dialect, Feedback};
use crate::proto::ocp::server::ResponseIn;

/// One vehicle: its Streamer and its radio.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot {
    /// A client is connected.
    pub is_connected: bool,
    /// Clients so far.
    pub connections: u64,
    /// Messages sent.
    pub sent: u64,
    /// Messages dropped for their length.
    pub too_long: u64,
    /// Responses that could be read.
    pub responses: u64,
    /// Responses dropped.
    pub bad_responses: u64,
    /// Returned pairs whose hash was wrong.
    pub bad_macs: u64,
    /// Names of the active faults.
    pub faults: Vec<String>,
    /// Cameras without a picture.
    pub missing_cameras: Vec<String>,
    /// The measured latency in milliseconds.
    pub latency_ms: f64,
    /// How long the last video frame took, milliseconds; 0 for one in time.
    pub frame_ms: f64,
    /// The operator's own counter.
    pub counter: u64,
    /// The last `ack_time` sent.
    pub ack_time: u64,
    /// From sending an ack pair to its first return, milliseconds, the last one.
    pub reply_ms: f64,
    /// The longest of these on this connection.
    pub reply_max_ms: f64,
    /// The last response.
    pub last_response: Option<ResponseIn>,
    /// Radio, way up and way down.
    pub link: [LinkState; 2],
}

impl Snapshot {
    /// The state as one JSON object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let [up, down] = self.link.map(LinkState::name);
        json!({
            "connected": self.is_connected, "connections": self.connections, "sent": self.sent,
            "too_long": self.too_long, "responses": self.responses, "bad_responses": self.bad_responses,
            "bad_macs": self.bad_macs, "faults": self.faults, "missing_cameras": self.missing_cameras,
            "latency_ms": self.latency_ms, "frame_ms": self.frame_ms, "counter": self.counter,
            "ack_time": self.ack_time, "reply_ms": self.reply_ms, "reply_max_ms": self.reply_max_ms,
            "user_data": self.last_response.as_ref().and_then(|r| r.user_data.clone()),
            "pos": self.last_response.as_ref().and_then(|r| r.pos).map(|(lat, lon)| json!({"lat": lat, "lon": lon})),
            "uplink": up, "downlink": down,
        })
    }
}

/// The Player and its server.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PlayerSnapshot {
    /// A client is connected.
    pub is_connected: bool,
    /// Clients so far.
    pub connections: u64,
    /// Feedback messages sent.
    pub sent: u64,
    /// Feedback messages dropped for their length.
    pub too_long: u64,
    /// Client messages that could be read.
    pub messages: u64,
    /// Client messages dropped.
    pub bad_messages: u64,
    /// Client messages that could be read and did not count, for a source conflict.
    pub ignored: u64,
    /// Whose client data counts.
    pub lock: SourceLock,
    /// The vehicle that gets the gamepad, where one is chosen.
    pub active_vehicle: Option<String>,
    /// The operator's own counter.
    pub counter: u64,
    /// The feedback of this moment.
    pub feedback: Feedback,
}

impl PlayerSnapshot {
    /// The state as one JSON object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut state = json!({
            "connected": self.is_connected, "connections": self.connections, "sent": self.sent,
            "too_long": self.too_long, "messages": self.messages, "bad_messages": self.bad_messages,
            "ignored": self.ignored, "source": self.lock.to_string(), "active_vehicle": self.active_vehicle,
            "counter": self.counter,
        });
        if let (Some(state), Value::Object(feedback)) =
            (state.as_object_mut(), self.feedback.to_json(Dialect::Newer))
        {
            state.extend(feedback);
        }
        state
    }
}

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Overview {
    /// Each vehicle by its name, in the order of the options.
    pub vehicles: Vec<(String, Snapshot)>,
    /// The Player.
    pub player: PlayerSnapshot,
}

impl Overview {
    /// The first vehicle.
    #[must_use]
    pub fn first(&self) -> Snapshot {
        self.vehicles.first().map(|(_, vehicle)| vehicle.clone()).unwrap_or_default()
    }

    /// The state as one JSON object: the first vehicle's members, then every vehicle and the player.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut state = self.first().to_json();
        if let Some(state) = state.as_object_mut() {
            let vehicles: Map<_, _> =
                self.vehicles.iter().map(|(name, vehicle)| (name.clone(), vehicle.to_json())).collect();
            state.insert("vehicle".to_owned(), self.vehicles.first().map(|(name, _)| name.clone()).into());
            state.insert("vehicles".to_owned(), vehicles.into());
            state.insert("player".to_owned(), self.player.to_json());
        }
        state
    }
}
