//! The simulated car as a device, and as a link on the status page.
//!
//! Owns the records. Relies on the facts. Contains no decision.

use serde_json::{Map, Value, json};

use super::Management;
use super::devices::known;
use super::facts::rounded;
use crate::nodes::assetto::{Counts, Standing};
use crate::signals::car::{CarFeed, CarSample, Value as CarValue};
use crate::time::{Instant, millis_f64};

/// The simulated car.
pub const CAR: &str = "car";

/// Topics of the car.
pub const CAR_TOPICS: [&str; 2] = ["CarStateChanged", "CarFrames"];

/// The car at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CarFacts {
    /// How its feed is.
    pub standing: Standing,
    /// Its slot, where a server has told it.
    pub slot: Option<u8>,
    /// The newest update.
    pub sample: Option<CarSample>,
    /// What came.
    pub counts: Counts,
    /// Frames that it sent in the place of a vehicle, and those that were not taken.
    pub sent: u64,
    /// See there.
    pub refused: u64,
}

impl Management {
    /// What the car's feed is, in one word.
    pub(super) fn car_state(&self) -> &'static str {
        match self.facts.car.map(|car| car.standing).unwrap_or_default() {
            Standing::NoAnswer => "NoAnswer",
            Standing::NoCar => "NoCar",
            Standing::Loading => "Loading",
            Standing::Stale => "Stale",
            Standing::Live => "Live",
        }
    }

    /// The device.
    pub(super) fn car(&self, now: Instant) -> Map<String, Value> {
        let Some(settings) = &self.identity.car else { return Map::new() };
        let facts = self.facts.car;
        let counts = facts.map(|car| car.counts).unwrap_or_default();
        let values = facts.and_then(|car| car.sample).map(|sample| {
            let values = CarValue::NAMES.into_iter().filter_map(|(name, value)| {
                // Nine digits after the point are a tenth of a millimetre in a degree.
                Some((name.to_owned(), json!(rounded(sample.get(value)?, 1e9))))
            });
            Value::Object(values.collect())
        });
        let (feed, listen) = match &settings.feed {
            CarFeed::Server { listen, .. } => ("server", Some(listen.to_string())),
            CarFeed::Game { .. } => ("game", None),
        };
        known([
            ("Feed", Some(json!(feed))),
            ("Address", Some(json!(settings.feed.address().to_string()))),
            ("Listens", listen.map(Value::from)),
            ("State", Some(json!(self.car_state()))),
            ("CarId", facts.and_then(|car| car.slot).map(Value::from)),
            ("UpdateAgeMs", self.car_age_ms(now).map(Value::from)),
            ("StaleMs", Some(json!(millis_f64(settings.stale_after())))),
            ("Values", values),
            ("Messages", Some(json!(counts.messages))),
            ("Updates", Some(json!(counts.updates))),
            ("NotFinite", Some(json!(counts.not_finite))),
            ("NotUnderstood", Some(json!(counts.not_understood))),
            ("OtherHosts", Some(json!(counts.strangers))),
            ("FramesSent", Some(json!(facts.map_or(0, |car| car.sent)))),
            ("FramesNotTaken", Some(json!(facts.map_or(0, |car| car.refused)))),
        ])
    }

    fn car_age_ms(&self, now: Instant) -> Option<f64> {
        let sample = self.facts.car?.sample?;
        Some(millis_f64(now.since(sample.at)).round())
    }

    /// The same as a link of the status page; none where there is no car.
    pub(super) fn car_link(&self, now: Instant) -> Option<Value> {
        let settings = self.identity.car.as_ref()?;
        let standing = self.facts.car.map(|car| car.standing).unwrap_or_default();
        let age = self.car_age_ms(now).map_or_else(String::new, |age| format!(", update {age} ms old"));
        let slot =
            self.facts.car.and_then(|car| car.slot).map_or_else(String::new, |n| format!(" (car {n})"));
        Some(Value::Object(known([
            ("DeviceId", Some(json!(CAR))),
            ("Name", Some(json!("simulated car"))),
            ("Address", Some(json!(settings.feed.address().to_string()))),
            ("Connected", Some(json!(standing == Standing::Live))),
            ("Why", Some(json!(format!("{}{slot}{age}", standing.name())))),
        ])))
    }
}
