//! The words of the server: every message that it makes of the world.
//!
//! Owns the names of drivers, cars and track, and the form of each message. Relies on [`World`] and on the codec. Never
//! changes the world.

use super::car::{Car, single};
use super::session::Kind;
use super::world::World;
use crate::proto::assetto::{
    CarInfo, ClientEvent, Connection, Event, LapCar, LapCompleted, Session, Text, id,
};

/// The plugin protocol of every server since 2016.
pub(super) const PROTO_VERSION: u8 = 4;

/// What a place without a time has in the list of practice and qualifying.
const NO_TIME_MS: u32 = 999_999_999;

/// The first of the drivers' numbers: 17 digits as Steam's, and none that Steam gives to anybody.
const GUID: u64 = 90_000_000_000_000_001;

/// The largest message: information about a car with five texts of 255 characters has 5,108 bytes.
pub(super) const MESSAGE_MAX: usize = 5_108;

/// Names of one slot.
pub(super) struct Names {
    pub(super) driver: String,
    pub(super) guid: String,
    pub(super) skin: String,
}

/// The model of every car.
pub(super) const MODEL: &str = "ocpcan_coupe";

/// The track.
pub(super) const TRACK: &str = "ocpcan_ring";

/// The layout of the track.
pub(super) const LAYOUT: &str = "short";

impl Names {
    pub(super) fn of(slot: u8) -> Self {
        // One name with a letter that is not ASCII, and one above U+FFFF: the wire has them, so readers must.
        let driver = match slot % 4 {
            2 => format!("Zoë {slot}"),
            3 => format!("Rail \u{1F697} {slot}"),
            _ => format!("Driver {slot}"),
        };
        let skin = format!("{:02}_{}", slot, ["blue", "red", "silver"][usize::from(slot % 3)]);
        Self { driver, guid: (GUID + u64::from(slot)).to_string(), skin }
    }

    pub(super) fn connection(&self, car_id: u8) -> Connection<'_> {
        Connection {
            driver_name: Text::from(self.driver.as_str()),
            driver_guid: Text::from(self.guid.as_str()),
            car_id,
            car_model: Text::from(MODEL),
            car_skin: Text::from(self.skin.as_str()),
        }
    }
}

impl World {
    /// Sends one message to the plugin.
    pub(super) fn tell(&mut self, event: &Event<'_>) {
        let mut bytes = vec![0; MESSAGE_MAX];
        // Every text was bounded where it came in.
        if let Ok(len) = event.encode(&mut bytes) {
            bytes.truncate(len);
            self.push(super::Receiver::Plugin, bytes);
        }
    }

    /// Says that it cannot do something.
    pub(super) fn tell_error(&mut self, message: &str) {
        self.tell(&Event::Error { message: Text::from(message) });
    }

    /// The session with this number: as an announcement, or as an answer.
    pub(super) fn tell_session(&mut self, index: usize, is_new: bool) {
        let Some(plan) = self.options.sessions.get(index).cloned() else { return };
        let byte = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
        let session = Session {
            proto_version: PROTO_VERSION,
            session_index: byte(index),
            current_sess_index: byte(self.session),
            session_count: byte(self.options.sessions.len()),
            server_name: Text::from("ocpcan sim assetto"),
            track_name: Text::from(TRACK),
            track_config: Text::from(LAYOUT),
            name: Text::from(plan.name.as_str()),
            session_type: plan.kind.number(),
            time_min: plan.minutes(),
            laps: plan.laps,
            wait_time_ms: plan.wait_ms(),
            ambient_temp_c: 22,
            track_temp_c: 28,
            weather_graph: Text::from("3_clear"),
            is_weather_wide: false,
            elapsed_ms: self.elapsed_ms(),
        };
        self.tell(&if is_new { Event::NewSession(session) } else { Event::SessionInfo(session) });
    }

    pub(super) fn tell_car_info(&mut self, slot: u8) {
        let Some(car) = self.cars.get(usize::from(slot)) else {
            let last = self.cars.len().saturating_sub(1);
            return self.tell_error(&format!("car {slot} is not 0 to {last}"));
        };
        let names = Names::of(slot);
        let is_empty = car.presence == super::car::Presence::Empty;
        let text = |text| Text::from(if is_empty { "" } else { text });
        let info = CarInfo {
            car_id: slot,
            is_connected: car.is_driving(),
            car_model: Text::from(MODEL),
            car_skin: Text::from(names.skin.as_str()),
            driver_name: text(names.driver.as_str()),
            driver_team: text(["", "Team North", "Team South"][usize::from(slot % 3)]),
            driver_guid: text(names.guid.as_str()),
        };
        self.tell(&Event::CarInfo(info));
    }

    /// A lap of this car, with the places of all slots.
    pub(super) fn tell_lap(&mut self, slot: u8, time_ms: u32, cuts: u8) {
        let is_race = self.plan().kind == Kind::Race;
        let mut order: Vec<(u8, &Car)> = (0..).zip(&self.cars).collect();
        if is_race {
            order.sort_by_key(|(_, car)| (core::cmp::Reverse(car.laps), car.total_ms));
        } else {
            order.sort_by_key(|(_, car)| car.best_ms.unwrap_or(NO_TIME_MS));
        }
        let places: Vec<LapCar> = order
            .iter()
            .map(|(rcar_id, car)| LapCar {
                rcar_id: *rcar_id,
                rtime: if is_race { car.total_ms } else { car.best_ms.unwrap_or(NO_TIME_MS) },
                rlaps: if is_race { car.laps } else { car.valid_laps },
                has_completed_flag: car.has_finished,
            })
            .collect();
        let lap = LapCompleted {
            car_id: slot,
            lap_time_ms: time_ms,
            cuts,
            cars: places.as_slice().into(),
            grip_level: Some(0.96),
        };
        self.tell(&Event::LapCompleted(lap));
    }

    /// A collision as one car sees it.
    pub(super) fn tell_collision(&mut self, slot: u8, other: Option<u8>, impact_mps: f64, rel_pos: [f64; 3]) {
        let Some(car) = self.cars.get(usize::from(slot)) else { return };
        let place = self.track.place(car.distance_m);
        let event = ClientEvent {
            ev_type: if other.is_some() { id::COLLISION_WITH_CAR } else { id::COLLISION_WITH_ENV },
            car_id: slot,
            other_car_id: other,
            impact_speed_kph: single(impact_mps * 3.6),
            world_pos: [0, 1, 2].map(|axis| single(place.pos[axis] + place.ahead[axis] * rel_pos[2])),
            rel_pos: rel_pos.map(single),
        };
        self.tell(&Event::ClientEvent(event));
    }
}
