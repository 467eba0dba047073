//! The player side of OCP: feedback of every vehicle in, client data for every vehicle out.
//!
//! Owns both messages of the Player's TCP server (port 4001), each in both directions: an operator station reads what a
//! simulator writes, and the reverse. Relies on `serde_json` and on the heap, with the framing of [`super::frame`]. Never
//! used in the vehicle, and never fills in what a message does not say.
//!
//! ```text
//!   Player -> client   { "vehicle_feedback": { "<vehicle>": { .. } }, "last_input": controller | null }
//!   client -> Player   { "active_vehicle": name | null, "client_user_data": { "<vehicle>": { .. } } }
//! ```

#[doc(hidden)]
pub mod fuzz;

use core::fmt;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::gamepad::{Axis, Button, Controller};
use super::server;
use crate::limits;

/// What the Player says about every vehicle it is connected to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Feedback {
    /// By the name of the vehicle.
    pub vehicles: BTreeMap<String, VehicleFeedback>,
    /// Vehicles whose entry cannot be used, and why. The others are not harmed by them.
    pub unusable: Vec<(String, FeedbackError)>,
    /// The last input of the local gamepad.
    pub last_input: Option<Controller>,
}

/// What the Player says about one vehicle. Names as in the vendor's schema.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct VehicleFeedback {
    /// Milliseconds of the data channel, network only.
    pub ping_latency_ms: u64,
    /// Milliseconds from a control message to its return in the feedback; `None` before the first.
    pub message_latency_roundtrip: Option<u64>,
    /// Age of `vehicle_data` in milliseconds.
    pub ms_since_last_vehicle_data: u64,
    /// Cameras without a picture; `None` where the Player does not say.
    pub missing_cameras: Option<Vec<String>>,
    /// Faults of the operator's side.
    pub sender_fault: Vec<String>,
    /// Faults of the vehicle's side.
    pub receiver_fault: Vec<String>,
    /// The last data of the vehicle.
    pub vehicle_data: Option<VehicleData>,
    /// The gamepad as the Streamer last received it.
    pub last_remote_input: Option<Controller>,
    /// The newest ack pair of the video, to be returned as it is.
    pub ack_time: u64,
    /// The second half of the pair.
    pub ack_time_mac: u32,
    /// The session only watches this vehicle; `None` in the older schema.
    pub is_monitor: Option<bool>,
}

/// `vehicle_user_data` as the vehicle sent it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct VehicleData {
    /// Latitude and longitude, decimal degrees.
    pub pos: Option<(f64, f64)>,
    /// Any JSON.
    pub user_data: Value,
}

/// Why a feedback message, or one vehicle's part of it, cannot be used. Consequence: it is dropped and counted, and what
/// was known before grows old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FeedbackError {
    /// The body is no JSON object.
    Malformed,
    /// `vehicle_feedback` is missing or no object.
    NoVehicles,
    /// A vehicle's entry is no object.
    NoObject,
    /// The member of this name is missing, or has a type or range that the schema does not know.
    Member(&'static str),
}

impl fmt::Display for FeedbackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the feedback is no JSON object"),
            Self::NoVehicles => f.write_str("the feedback has no object vehicle_feedback"),
            Self::NoObject => f.write_str("the vehicle's feedback is no object"),
            Self::Member(name) => write!(f, "the vehicle's feedback has no valid {name}"),
        }
    }
}

impl core::error::Error for FeedbackError {}

/// Reads the body of a feedback message. Unknown members are passed over.
///
/// # Errors
/// [`FeedbackError`] where nothing of the message can be used; a single vehicle that cannot be used is in
/// [`Feedback::unusable`].
pub fn decode_feedback(body: &[u8]) -> Result<Feedback, FeedbackError> {
    let Ok(Value::Object(top)) = serde_json::from_slice(body) else { return Err(FeedbackError::Malformed) };
    let vehicles = top.get("vehicle_feedback").and_then(Value::as_object).ok_or(FeedbackError::NoVehicles)?;
    let mut feedback = Feedback {
        // A display only: an odd gamepad does not spoil the acks.
        last_input: top.get("last_input").and_then(|value| controller(value).ok().flatten()),
        ..Feedback::default()
    };
    for (name, entry) in vehicles {
        match vehicle(entry) {
            Ok(vehicle) => drop(feedback.vehicles.insert(name.clone(), vehicle)),
            Err(error) => feedback.unusable.push((name.clone(), error)),
        }
    }
    Ok(feedback)
}

fn vehicle(entry: &Value) -> Result<VehicleFeedback, FeedbackError> {
    let entry = entry.as_object().ok_or(FeedbackError::NoObject)?;
    let required = |name: &'static str| entry.get(name).ok_or(FeedbackError::Member(name));
    // Null and absent are the same where a member may be left out.
    let optional = |name: &'static str| entry.get(name).filter(|value| !value.is_null());
    let whole = |name| required(name)?.as_u64().ok_or(FeedbackError::Member(name));
    let list = |name: &'static str, value: &Value| names(value).ok_or(FeedbackError::Member(name));
    Ok(VehicleFeedback {
        ping_latency_ms: whole("ping_latency_ms")?,
        message_latency_roundtrip: optional("message_latency_roundtrip")
            .map(|value| value.as_u64().ok_or(FeedbackError::Member("message_latency_roundtrip")))
            .transpose()?,
        ms_since_last_vehicle_data: whole("ms_since_last_vehicle_data")?,
        missing_cameras: optional("missing_cameras")
            .map(|value| list("missing_cameras", value))
            .transpose()?,
        sender_fault: list("sender_fault", required("sender_fault")?)?,
        receiver_fault: list("receiver_fault", required("receiver_fault")?)?,
        vehicle_data: optional("vehicle_data").map(vehicle_data).transpose()?,
        last_remote_input: optional("last_remote_input")
            .map_or(Ok(None), controller)
            .map_err(|()| FeedbackError::Member("last_remote_input"))?,
        ack_time: whole("ack_time")?,
        ack_time_mac: u32::try_from(whole("ack_time_mac")?)
            .map_err(|_| FeedbackError::Member("ack_time_mac"))?,
        is_monitor: optional("is_monitor")
            .map(|value| value.as_bool().ok_or(FeedbackError::Member("is_monitor")))
            .transpose()?,
    })
}

fn names(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect()
}

fn vehicle_data(value: &Value) -> Result<VehicleData, FeedbackError> {
    let error = FeedbackError::Member("vehicle_data");
    let data = value.as_object().ok_or(error)?;
    let pos = match data.get("pos").filter(|pos| !pos.is_null()) {
        None => None,
        Some(pos) => {
            let degrees = |name| pos.get(name).and_then(Value::as_f64);
            Some(degrees("lat").zip(degrees("lon")).ok_or(error)?)
        }
    };
    Ok(VehicleData { pos, user_data: data.get("user_data").cloned().unwrap_or_default() })
}

/// A controller with every button and axis, or null.
fn controller(value: &Value) -> Result<Option<Controller>, ()> {
    if value.is_null() {
        return Ok(None);
    }
    let member = |group: &str, name: &str| value.get(group).and_then(|group| group.get(name));
    let mut controller = Controller::NEUTRAL;
    for (axis, name) in controller.axes.iter_mut().zip(Axis::NAMES) {
        *axis = member("axes", name).and_then(Value::as_f64).ok_or(())?;
    }
    for (bit, name) in Button::NAMES.iter().enumerate() {
        let pressed = member("buttons", name).and_then(Value::as_bool).ok_or(())?;
        controller.buttons |= u16::from(pressed) << bit;
    }
    Ok(Some(controller))
}

/// Which members a feedback message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Without `is_monitor`.
    Older,
    /// With `is_monitor`.
    #[default]
    Newer,
}

impl Feedback {
    /// The body as the Player writes it, as long as it gets: the Player's limit is [`limits::OCP_BODY`].
    #[must_use]
    pub fn to_json(&self, dialect: Dialect) -> Value {
        let vehicles: Map<String, Value> =
            self.vehicles.iter().map(|(name, vehicle)| (name.clone(), vehicle.to_json(dialect))).collect();
        json!({ "vehicle_feedback": vehicles, "last_input": self.last_input.map(controller_json) })
    }
}

impl VehicleFeedback {
    /// This vehicle's entry.
    #[must_use]
    pub fn to_json(&self, dialect: Dialect) -> Value {
        let mut entry = json!({
            "ping_latency_ms": self.ping_latency_ms,
            "message_latency_roundtrip": self.message_latency_roundtrip,
            "ms_since_last_vehicle_data": self.ms_since_last_vehicle_data,
            "missing_cameras": self.missing_cameras,
            "sender_fault": self.sender_fault,
            "receiver_fault": self.receiver_fault,
            "vehicle_data": self.vehicle_data.as_ref().map(|data| json!({
                "pos": data.pos.map(|(lat, lon)| json!({ "lat": lat, "lon": lon })),
                "user_data": data.user_data,
            })),
            "last_remote_input": self.last_remote_input.map(controller_json),
            "ack_time": self.ack_time,
            "ack_time_mac": self.ack_time_mac,
        });
        if let (Dialect::Newer, Some(entry)) = (dialect, entry.as_object_mut()) {
            entry.insert("is_monitor".to_owned(), self.is_monitor.unwrap_or(false).into());
        }
        entry
    }
}

fn controller_json(controller: Controller) -> Value {
    let buttons: Map<String, Value> = Button::NAMES
        .iter()
        .enumerate()
        .map(|(bit, name)| ((*name).to_owned(), (controller.buttons >> bit & 1 == 1).into()))
        .collect();
    let axes: Map<String, Value> = Axis::NAMES
        .iter()
        .zip(controller.axes)
        .map(|(name, value)| ((*name).to_owned(), value.into()))
        .collect();
    json!({ "buttons": buttons, "axes": axes })
}

/// What a client tells the Player.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClientMessage {
    /// The vehicle that gets the gamepad; may be left out where there is only one.
    pub active_vehicle: Option<String>,
    /// By the name of the vehicle.
    pub vehicles: BTreeMap<String, ClientVehicle>,
}

/// What a client tells the Player about one vehicle.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClientVehicle {
    /// Any JSON; it reaches the vehicle as `client_user_data`.
    pub user_data: Value,
    /// Whether OCP shall ignore the gamepad for this vehicle.
    pub ocp_disable_gamepad: Option<bool>,
    /// `ack_time` and `ack_time_mac` of the feedback, as they came.
    pub returned: Option<(u64, u32)>,
}

/// A message longer than OCP takes: nothing of it may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oversize {
    /// Bytes of the body.
    pub bytes: usize,
}

impl fmt::Display for Oversize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a message of {} bytes, and OCP takes {}", self.bytes, limits::OCP_BODY)
    }
}

impl core::error::Error for Oversize {}

impl ClientMessage {
    /// The body.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let vehicles: Map<String, Value> = self
            .vehicles
            .iter()
            .map(|(name, vehicle)| {
                let mut entry = Map::new();
                entry.insert("user_data".to_owned(), vehicle.user_data.clone());
                if let Some(disable) = vehicle.ocp_disable_gamepad {
                    entry.insert("ocp_disable_gamepad".to_owned(), disable.into());
                }
                if let Some((time, mac)) = vehicle.returned {
                    entry.insert("ack_time_returned".to_owned(), time.into());
                    entry.insert("ack_time_mac_returned".to_owned(), mac.into());
                }
                (name.clone(), entry.into())
            })
            .collect();
        json!({ "active_vehicle": self.active_vehicle, "client_user_data": vehicles })
    }

    /// The whole frame.
    ///
    /// # Errors
    /// [`Oversize`]: the body is longer than [`limits::OCP_BODY`].
    pub fn frame(&self) -> Result<Vec<u8>, Oversize> {
        let body = self.to_json().to_string();
        if body.len() > limits::OCP_BODY {
            return Err(Oversize { bytes: body.len() });
        }
        Ok(server::frame(body.as_bytes()))
    }
}

/// Why a client's message cannot be used. Consequence: the Player drops it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientError {
    /// The body is no JSON object.
    Malformed,
    /// `client_user_data` is missing or no object of objects.
    NoVehicles,
    /// The member of this name has a type or range that the schema does not know.
    Member(&'static str),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the client's message is no JSON object"),
            Self::NoVehicles => f.write_str("the client's message has no object client_user_data"),
            Self::Member(name) => write!(f, "the client's message has no valid {name}"),
        }
    }
}

impl core::error::Error for ClientError {}

/// Reads the body of a client's message. Half an ack pair is none.
///
/// # Errors
/// [`ClientError`]: nothing of the message is used.
pub fn decode_client(body: &[u8]) -> Result<ClientMessage, ClientError> {
    let Ok(Value::Object(top)) = serde_json::from_slice(body) else { return Err(ClientError::Malformed) };
    let active_vehicle = match top.get("active_vehicle") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name.clone()),
        Some(_) => return Err(ClientError::Member("active_vehicle")),
    };
    let entries = top.get("client_user_data").and_then(Value::as_object).ok_or(ClientError::NoVehicles)?;
    let mut vehicles = BTreeMap::new();
    for (name, entry) in entries {
        let entry = entry.as_object().ok_or(ClientError::NoVehicles)?;
        let optional = |name: &str| entry.get(name).filter(|value| !value.is_null());
        let whole = |name: &'static str| {
            optional(name).map(|value| value.as_u64().ok_or(ClientError::Member(name))).transpose()
        };
        let mac = whole("ack_time_mac_returned")?
            .map(|mac| u32::try_from(mac).map_err(|_| ClientError::Member("ack_time_mac_returned")))
            .transpose()?;
        let vehicle = ClientVehicle {
            user_data: entry.get("user_data").cloned().ok_or(ClientError::Member("user_data"))?,
            ocp_disable_gamepad: optional("ocp_disable_gamepad")
                .map(|value| value.as_bool().ok_or(ClientError::Member("ocp_disable_gamepad")))
                .transpose()?,
            returned: whole("ack_time_returned")?.zip(mac),
        };
        vehicles.insert(name.clone(), vehicle);
    }
    Ok(ClientMessage { active_vehicle, vehicles })
}

#[cfg(test)]
mod tests;
