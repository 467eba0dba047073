//! What is known of a driving simulator's car, as values that a mapping can name.
//!
//! Owns the names `assetto.*`, one set of their values with its age, and the way from the simulator's flat world to
//! degrees. Relies on nothing. Never holds a value that is not finite, and never guesses one that the feed did not give.

use std::net::SocketAddr;

use crate::time::{Duration, Instant};

/// One value of the car.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Value {
    /// Over ground, never negative, m/s.
    SpeedMps,
    /// The same, km/h.
    SpeedKph,
    /// -1 reverse, 0 neutral, 1 first and so on.
    Gear,
    /// Of the engine.
    Rpm,
    /// World metres.
    PosX,
    /// World metres, up.
    PosY,
    /// World metres.
    PosZ,
    /// Degrees, -90 to 90: from the position, through the map's origin.
    Lat,
    /// Degrees, -180 to 180.
    Lon,
    /// Compass direction of the motion, degrees, 0 to 360; held below the least speed.
    HeadingDeg,
    /// Along the track's reference line, 0 to 1.
    Spline,
    /// Laps driven. A server does not tell those before this program came.
    LapCount,
    /// The newest lap, ms.
    LastLapMs,
    /// The best valid lap, ms.
    BestLapMs,
    /// Since this lap began, ms.
    LapTimeMs,
    /// Accelerator pedal, 0 to 1.
    Throttle,
    /// Brake pedal, 0 to 1.
    Brake,
    /// Clutch pedal as the game tells it, 0 to 1 (1 is released).
    Clutch,
    /// Steering as the game tells it; its unit is not documented.
    Steer,
    /// Acceleration upwards, g.
    GVertical,
    /// Acceleration sideways, g.
    GHorizontal,
    /// Acceleration forwards, g.
    GFrontal,
}

/// How many there are.
pub const VALUES: usize = 22;

/// Which feed gives a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenBy {
    /// A server and a game.
    Both,
    /// A game alone.
    Game,
    /// Either, with a map.
    Map,
}

impl Value {
    /// Every value with its name behind `assetto.`.
    pub const NAMES: [(&'static str, Self); VALUES] = [
        ("speed_mps", Self::SpeedMps),
        ("speed_kph", Self::SpeedKph),
        ("gear", Self::Gear),
        ("rpm", Self::Rpm),
        ("pos_x", Self::PosX),
        ("pos_y", Self::PosY),
        ("pos_z", Self::PosZ),
        ("lat", Self::Lat),
        ("lon", Self::Lon),
        ("heading_deg", Self::HeadingDeg),
        ("spline", Self::Spline),
        ("lap_count", Self::LapCount),
        ("last_lap_ms", Self::LastLapMs),
        ("best_lap_ms", Self::BestLapMs),
        ("lap_time_ms", Self::LapTimeMs),
        ("throttle", Self::Throttle),
        ("brake", Self::Brake),
        ("clutch", Self::Clutch),
        ("steer", Self::Steer),
        ("g_vertical", Self::GVertical),
        ("g_horizontal", Self::GHorizontal),
        ("g_frontal", Self::GFrontal),
    ];

    /// The value with this number, as [`crate::signals::source::Source::Car`] holds it.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::NAMES.get(usize::from(number)).map(|(_, value)| *value)
    }

    /// The name behind `assetto.`.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.get(self as usize).map_or("?", |(name, _)| name)
    }

    /// Which feed gives it. Source: the fields of the server's CAR_UPDATE and LAP_COMPLETED and of the game's RTCarInfo.
    #[must_use]
    pub const fn given_by(self) -> GivenBy {
        match self {
            Self::Lat | Self::Lon => GivenBy::Map,
            Self::LapTimeMs
            | Self::Throttle
            | Self::Brake
            | Self::Clutch
            | Self::Steer
            | Self::GVertical
            | Self::GHorizontal
            | Self::GFrontal => GivenBy::Game,
            _ => GivenBy::Both,
        }
    }
}

/// Updates missing for so many of their periods make the car stale.
const STALE_PERIODS: u32 = 3;

/// Which car is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WantedCar {
    /// The slot in the server's entry list, from 0.
    Slot(u8),
    /// The driver's `driver_guid`, 17 digits as a rule.
    Guid(String),
    /// The driver's `driver_name`.
    Name(String),
}

/// Who tells about the car.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CarFeed {
    /// A dedicated server's plugin port.
    Server {
        /// Where it listens to plugins.
        server: SocketAddr,
        /// Where this plugin listens.
        listen: SocketAddr,
        /// Which of its cars.
        car: WantedCar,
    },
    /// The telemetry of one player's game.
    Game {
        /// Where the game listens.
        game: SocketAddr,
    },
}

impl CarFeed {
    /// Who is asked.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        match self {
            Self::Server { server, .. } => *server,
            Self::Game { game } => *game,
        }
    }
}

/// Where the car is heard of, and how.
#[derive(Debug, Clone)]
pub struct CarSettings {
    /// Who tells about the car.
    pub feed: CarFeed,
    /// Time between two updates, 10 to 1,000 ms: a server is asked for it, a game is expected to be as quick.
    pub interval: Duration,
    /// Below this speed the heading is held, m/s.
    pub heading_min_mps: f64,
    /// The way to degrees, if there is one.
    pub map: Option<MapOrigin>,
}

impl CarSettings {
    /// Age from which the car's values are worth nothing.
    #[must_use]
    pub fn stale_after(&self) -> Duration {
        self.interval * STALE_PERIODS
    }
}

/// One consistent set of what is known of the car.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CarSample {
    /// When the update arrived. The protocols carry no time of their own.
    pub at: Instant,
    values: [f64; VALUES],
    /// One bit for each value that is known.
    known: u32,
}

impl CarSample {
    /// Nothing known yet.
    #[must_use]
    pub const fn new(at: Instant) -> Self {
        Self { at, values: [0.0; VALUES], known: 0 }
    }

    /// The same from its parts; what is not finite is not known.
    #[must_use]
    pub fn from_parts(at: Instant, values: [f64; VALUES], known: u32) -> Self {
        let mut sample = Self::new(at);
        for ((_, value), number) in Value::NAMES.into_iter().zip(values) {
            if known >> value as u32 & 1 == 1 {
                sample.set(value, number);
            }
        }
        sample
    }

    /// The values in the order of [`Value::NAMES`], and the mask of those that are known.
    #[must_use]
    pub const fn parts(&self) -> (&[f64; VALUES], u32) {
        (&self.values, self.known)
    }

    /// Sets a value; one that is not finite becomes unknown.
    pub fn set(&mut self, value: Value, number: f64) {
        let bit = 1 << value as u32;
        if let Some(place) = self.values.get_mut(value as usize).filter(|_| number.is_finite()) {
            *place = number;
            self.known |= bit;
        } else {
            self.known &= !bit;
        }
    }

    /// A value, if it is known.
    #[must_use]
    pub fn get(&self, value: Value) -> Option<f64> {
        (self.known >> value as u32 & 1 == 1).then(|| self.values.get(value as usize).copied()).flatten()
    }

    /// Whether it is young enough to stand for the car as it is now.
    #[must_use]
    pub fn is_fresh(&self, now: Instant, stale_after: Duration) -> bool {
        now.since(self.at) <= stale_after
    }
}

/// Where the origin of the simulator's world lies on the earth, and how it is turned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MapOrigin {
    /// Degrees, -85 to 85: nearer to a pole a track is no plane in degrees.
    pub lat: f64,
    /// Degrees, -180 to 180.
    pub lon: f64,
    /// Compass direction of the world's z axis, degrees.
    pub bearing_deg: f64,
    /// The x axis lies to the left of the z axis and not to its right. Which one holds is not documented.
    pub mirrored: bool,
}

impl Default for MapOrigin {
    /// Without a map: z is north, x is east.
    fn default() -> Self {
        Self { lat: 0.0, lon: 0.0, bearing_deg: 0.0, mirrored: false }
    }
}

/// WGS 84: half the great axis in metres, and the square of the eccentricity.
const WGS84: (f64, f64) = (6_378_137.0, 0.006_694_379_990_14);

impl MapOrigin {
    /// East and north of a vector in the world's plane, in its unit.
    fn turned(&self, x: f64, z: f64) -> (f64, f64) {
        let (sin, cos) = self.bearing_deg.to_radians().sin_cos();
        let x = if self.mirrored { -x } else { x };
        (z * sin + x * cos, z * cos - x * sin)
    }

    /// Latitude and longitude of a place in the world, degrees. The earth is taken as flat around the origin: over the
    /// 5 km of a track that errs by less than a metre.
    #[must_use]
    pub fn degrees(&self, x: f64, z: f64) -> (f64, f64) {
        let (east, north) = self.turned(x, z);
        let (axis, e2) = WGS84;
        let (sin, cos) = self.lat.to_radians().sin_cos();
        let flat = 1.0 - e2 * sin * sin;
        let along_meridian = axis * (1.0 - e2) / (flat * flat.sqrt());
        let along_parallel = axis / flat.sqrt() * cos;
        let lon = self.lon + (east / along_parallel).to_degrees();
        (self.lat + (north / along_meridian).to_degrees(), (lon + 180.0).rem_euclid(360.0) - 180.0)
    }

    /// Compass direction of a motion, degrees from 0 to below 360.
    #[must_use]
    pub fn heading_deg(&self, x: f64, z: f64) -> f64 {
        let (east, north) = self.turned(x, z);
        let heading = east.atan2(north).to_degrees().rem_euclid(360.0);
        // A tiny negative angle rounds to 360 itself.
        if heading >= 360.0 { 0.0 } else { heading }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        for (number, (name, value)) in Value::NAMES.into_iter().enumerate() {
            assert_eq!((value as usize, value.name()), (number, name));
            assert_eq!(Value::from_number(u8::try_from(number).unwrap()), Some(value));
        }
        assert_eq!(Value::from_number(u8::try_from(VALUES).unwrap()), None);
    }

    #[test]
    fn what_is_not_finite_is_not_known() {
        let mut sample = CarSample::new(Instant::from_millis(5));
        assert_eq!(sample.get(Value::Gear), None);
        sample.set(Value::Gear, -1.0);
        sample.set(Value::Rpm, f64::NAN);
        assert_eq!((sample.get(Value::Gear), sample.get(Value::Rpm)), (Some(-1.0), None));
        sample.set(Value::Gear, f64::INFINITY);
        assert_eq!(sample.get(Value::Gear), None, "the former value is not kept in its place");
        let again = CarSample::from_parts(sample.at, [f64::NAN; VALUES], u32::MAX);
        assert_eq!(again.parts().1, 0);
    }

    #[test]
    fn a_sample_is_fresh_until_its_limit() {
        let sample = CarSample::new(Instant::from_millis(1_000));
        let limit = Duration::from_millis(300);
        assert!(sample.is_fresh(Instant::from_millis(1_300), limit));
        assert!(!sample.is_fresh(Instant::from_millis(1_301), limit));
    }

    #[test]
    fn the_map_turns_mirrors_and_scales() {
        let north = MapOrigin { lat: 60.0, lon: 179.9999, ..MapOrigin::default() };
        let (lat, lon) = north.degrees(0.0, 1_000.0);
        // A degree of latitude at 60 degrees has 111,412 m (WGS 84).
        assert!(
            (lat - 60.0 - 1_000.0 / 111_412.2).abs() < 1e-7 && (lon - 179.9999).abs() < 1e-9,
            "{lat} {lon}"
        );
        let (lat, lon) = north.degrees(1_000.0, 0.0);
        // A degree of longitude there has 55,800 m; the date line is crossed.
        assert!(
            (lat - 60.0).abs() < 1e-9 && (lon + 360.0 - 179.9999 - 1_000.0 / 55_800.0).abs() < 1e-6,
            "{lon}"
        );
        let east = MapOrigin { bearing_deg: 90.0, ..north };
        assert!((east.heading_deg(0.0, 1.0) - 90.0).abs() < 1e-9);
        assert!((east.heading_deg(1.0, 0.0) - 180.0).abs() < 1e-9);
        let mirrored = MapOrigin { mirrored: true, ..east };
        let heading = mirrored.heading_deg(1.0, 0.0);
        assert!(heading.abs() < 1e-9 || (heading - 360.0).abs() < 1e-9, "{heading}");
        assert!((0.0..360.0).contains(&MapOrigin::default().heading_deg(-1e-300, 1.0)));
    }
}
