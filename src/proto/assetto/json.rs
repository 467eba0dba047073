//! Messages as JSON, for people and for programs made for Python's acudpclient.
//!
//! Owns the names: those of acudpclient for what a server says, those of the game's documentation for the rest.
//! Relies on `serde_json` and on the heap. Never used on the way to the bus.
//!
//! A number that is not finite becomes null. A float is given with all the digits of the double that it is, as Python
//! has it.

use serde_json::{Map, Value, json};

use super::car::{CarInfo, CarUpdate, ClientEvent, Connection, NO_CAR};
use super::command::Command;
use super::event::{Event, Session};
use super::game::{GameMessage, Handshake, Request, RtCarInfo, RtLap};
use super::lap::{LapCar, LapCompleted};

impl Event<'_> {
    /// The message with acudpclient's keys. Its name is [`name`](Self::name).
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::NewSession(session) | Self::SessionInfo(session) => session.to_json(),
            Self::NewConnection(connection) | Self::ConnectionClosed(connection) => connection.to_json(),
            Self::CarUpdate(update) => update.to_json(),
            Self::CarInfo(info) => info.to_json(),
            Self::EarlyCarInfo(connection) => {
                let mut info = connection.to_json();
                if let Some(info) = info.as_object_mut() {
                    // What these servers do not say.
                    info.insert("is_connected".to_owned(), Value::Null);
                    info.insert("driver_team".to_owned(), Value::Null);
                }
                info
            }
            Self::EndSession { filename } => json!({ "filename": filename.to_string() }),
            Self::Version { proto_version } => json!({ "proto_version": proto_version }),
            Self::Chat { car_id, message } => json!({ "car_id": car_id, "message": message.to_string() }),
            Self::ClientLoaded { car_id } => json!({ "car_id": car_id }),
            Self::Error { message } => json!({ "message": message.to_string() }),
            Self::LapCompleted(lap) => lap.to_json(),
            Self::ClientEvent(event) => event.to_json(),
        }
    }
}

impl Session<'_> {
    fn to_json(self) -> Value {
        json!({
            "proto_version": self.proto_version,
            "session_index": self.session_index,
            "current_sess_index": self.current_sess_index,
            "session_count": self.session_count,
            "server_name": self.server_name.to_string(),
            "track_name": self.track_name.to_string(),
            "track_config": self.track_config.to_string(),
            "name": self.name.to_string(),
            "session_type": self.session_type,
            "time": self.time_min,
            "laps": self.laps,
            "wait_time": self.wait_time_ms,
            "ambient_temp": self.ambient_temp_c,
            "track_temp": self.track_temp_c,
            "weather_graph": self.weather_graph.to_string(),
            "elapsed_ms": self.elapsed_ms,
        })
    }
}

impl Connection<'_> {
    fn to_json(self) -> Value {
        json!({
            "driver_name": self.driver_name.to_string(),
            "driver_guid": self.driver_guid.to_string(),
            "car_id": self.car_id,
            "car_model": self.car_model.to_string(),
            "car_skin": self.car_skin.to_string(),
        })
    }
}

impl CarUpdate {
    fn to_json(self) -> Value {
        json!({
            "car_id": self.car_id,
            "pos": self.pos,
            "vel": self.vel,
            "gear": self.gear,
            "engine_rpm": self.engine_rpm,
            "normalized_spline_pos": self.normalized_spline_pos,
        })
    }
}

impl CarInfo<'_> {
    fn to_json(self) -> Value {
        json!({
            "car_id": self.car_id,
            "is_connected": self.is_connected,
            "car_model": self.car_model.to_string(),
            "car_skin": self.car_skin.to_string(),
            "driver_name": self.driver_name.to_string(),
            "driver_team": self.driver_team.to_string(),
            "driver_guid": self.driver_guid.to_string(),
        })
    }
}

impl LapCompleted<'_> {
    fn to_json(self) -> Value {
        json!({
            "car_id": self.car_id,
            "lap_time": self.lap_time_ms,
            "cuts": self.cuts,
            "cars": self.cars.cars().map(LapCar::to_json).collect::<Vec<_>>(),
            "grip_level": self.grip_level,
        })
    }
}

impl LapCar {
    fn to_json(self) -> Value {
        json!({
            "rcar_id": self.rcar_id,
            "rtime": self.rtime,
            "rlaps": self.rlaps,
            "has_completed_flag": self.has_completed_flag,
        })
    }
}

impl ClientEvent {
    fn to_json(self) -> Value {
        json!({
            "ev_type": self.ev_type,
            "car_id": self.car_id,
            "other_car_id": self.other_car_id.unwrap_or(NO_CAR),
            "impact_speed": self.impact_speed_kph,
            "world_pos": self.world_pos,
            "rel_pos": self.rel_pos,
        })
    }
}

impl Command<'_> {
    /// The command with its number under `type_id`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut fields = match self {
            Self::RealtimePosInterval { interval_ms } => json!({ "interval_ms": interval_ms }),
            Self::GetCarInfo { car_id } | Self::KickUser { car_id } => json!({ "car_id": car_id }),
            Self::GetSessionInfo { session_index } => json!({ "session_index": session_index }),
            Self::SendChat { car_id, message } => json!({ "car_id": car_id, "message": message.to_string() }),
            Self::BroadcastChat { message } => json!({ "message": message.to_string() }),
            Self::SetSessionInfo { session_index, session_name, session_type, laps, time_s, wait_time_s } => {
                json!({
                    "session_index": session_index,
                    "session_name": session_name.to_string(),
                    "session_type": session_type,
                    "laps": laps,
                    "time_s": time_s,
                    "wait_time_s": wait_time_s,
                })
            }
            Self::NextSession | Self::RestartSession => Map::new().into(),
            Self::AdminCommand { command } => json!({ "command": command.to_string() }),
        };
        if let Some(fields) = fields.as_object_mut() {
            fields.insert("type_id".to_owned(), self.id().into());
        }
        fields
    }
}

impl Request {
    /// The request with its fields' documented names.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "identifier": self.identifier,
            "version": self.version,
            "operation_id": self.operation.number(),
        })
    }
}

impl GameMessage<'_> {
    /// The message's name; those of the structures are the game's own.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Handshake(_) => "HandshakeResponse",
            Self::CarInfo(_) => "RTCarInfo",
            Self::Lap(_) => "RTLap",
        }
    }

    /// The message with its fields' documented names, words parted by `_`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Handshake(handshake) => handshake.to_json(),
            Self::CarInfo(info) => info.to_json(),
            Self::Lap(lap) => lap.to_json(),
        }
    }
}

impl Handshake<'_> {
    fn to_json(self) -> Value {
        json!({
            "car_name": self.car_name.to_string(),
            "driver_name": self.driver_name.to_string(),
            "identifier": self.identifier,
            "version": self.version,
            "track_name": self.track_name.to_string(),
            "track_config": self.track_config.to_string(),
        })
    }
}

impl RtLap<'_> {
    fn to_json(self) -> Value {
        json!({
            "car_identifier_number": self.car_identifier_number,
            "lap": self.lap,
            "driver_name": self.driver_name.to_string(),
            "car_name": self.car_name.to_string(),
            "time_ms": self.time_ms,
        })
    }
}

impl RtCarInfo {
    fn to_json(self) -> Value {
        let mut fields = json!({
            "identifier": "a",
            "size": super::game::CAR_INFO,
            "speed_kmh": self.speed_kmh,
            "speed_mph": self.speed_mph,
            "speed_ms": self.speed_mps,
            "is_abs_enabled": self.is_abs_enabled,
            "is_abs_in_action": self.is_abs_in_action,
            "is_tc_in_action": self.is_tc_in_action,
            "is_tc_enabled": self.is_tc_enabled,
            "is_in_pit": self.is_in_pit,
            "is_engine_limiter_on": self.is_engine_limiter_on,
            "acc_g_vertical": self.acc_g_vertical,
            "acc_g_horizontal": self.acc_g_horizontal,
            "acc_g_frontal": self.acc_g_frontal,
            "lap_time": self.lap_time_ms,
            "last_lap": self.last_lap_ms,
            "best_lap": self.best_lap_ms,
            "lap_count": self.lap_count,
            "gas": self.gas,
            "brake": self.brake,
            "clutch": self.clutch,
            "engine_rpm": self.engine_rpm,
            "steer": self.steer,
            "gear": self.gear,
            "cg_height": self.cg_height,
            "car_position_normalized": self.car_position_normalized,
            "car_slope": self.car_slope,
            "car_coordinates": self.car_coordinates,
        });
        let wheels = [
            ("wheel_angular_speed", self.wheel_angular_speed),
            ("slip_angle", self.slip_angle),
            ("slip_angle_contact_patch", self.slip_angle_contact_patch),
            ("slip_ratio", self.slip_ratio),
            ("tyre_slip", self.tyre_slip),
            ("nd_slip", self.nd_slip),
            ("load", self.load),
            ("dy", self.dy),
            ("mz", self.mz),
            ("tyre_dirty_level", self.tyre_dirty_level),
            ("camber_rad", self.camber_rad),
            ("tyre_radius", self.tyre_radius),
            ("tyre_loaded_radius", self.tyre_loaded_radius),
            ("suspension_height", self.suspension_height),
        ];
        if let Some(fields) = fields.as_object_mut() {
            fields.extend(wheels.map(|(name, four)| (name.to_owned(), json!(four))));
        }
        fields
    }
}
