//! How the simulated vehicle moves: a bicycle model in the plane.
//!
//! Owns position, heading, speed and steering wheel angle. Relies on nothing but the time it is given. Never knows what
//! a CAN frame is, and never stands below standstill: it has no reverse.

use crate::time::{Duration, Instant};

/// Distance of the axles in metres: a small shuttle.
const WHEELBASE_M: f64 = 2.7;
/// Steering wheel degrees per degree of the front wheels: 450 at the wheel are 30 on the road.
const STEERING_RATIO: f64 = 15.0;
/// Fastest turn of the steering wheel in degrees per second: a strong servo.
const STEERING_RATE: f64 = 600.0;
/// Acceleration at full throttle from standstill, m/s2.
const FULL_THROTTLE: f64 = 3.0;
/// Speed at which full throttle gives nothing any more, m/s: 60 km/h.
const TOP_SPEED: f64 = 60.0 / 3.6;
/// Deceleration at full brake, m/s2: dry road.
const FULL_BRAKE: f64 = 8.0;
/// Deceleration of the rolling vehicle, m/s2.
const ROLLING: f64 = 0.2;
/// Longest step of the integration: at top speed 17 cm.
const STEP: Duration = Duration::from_millis(10);
/// Longest time that is computed at once; what lies before it (a suspended machine) is skipped.
const CATCH_UP: Duration = Duration::from_secs(5);
/// Metres per degree of latitude.
const DEGREE_M: f64 = 111_320.0;
/// Below this the vehicle stands, m/s.
const STANDS: f64 = 0.01;

/// How the axles steer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SteeringMode {
    /// The front wheels alone.
    #[default]
    Manual,
    /// Both axles alike: the vehicle moves sideways without turning.
    Crab,
    /// The axles against each other: half the radius.
    Circle,
}

impl SteeringMode {
    /// The mode with this number in the example's value table.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Manual),
            1 => Some(Self::Crab),
            2 => Some(Self::Circle),
            _ => None,
        }
    }
}

/// What the actuators do until something else is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pedals {
    /// Where the steering wheel shall go, degrees, positive to the right; `None` leaves it where it is.
    pub steer_deg: Option<f64>,
    /// Accelerator, 0 to 1. Nothing while the brake is pressed.
    pub throttle: f64,
    /// Brake, 0 to 1.
    pub brake: f64,
}

/// Where the vehicle is and how it moves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Motion {
    /// The moment this is true of.
    pub at: Instant,
    /// Latitude in degrees.
    pub latitude: f64,
    /// Longitude in degrees.
    pub longitude: f64,
    /// Direction of the body, degrees clockwise from north, 0 to 360.
    pub heading_deg: f64,
    /// Speed in m/s, never negative.
    pub speed: f64,
    /// Steering wheel, degrees, positive to the right.
    pub steer_deg: f64,
    /// Way since the start in metres.
    pub travelled_m: f64,
}

impl Motion {
    /// Standing at this place, heading north.
    #[must_use]
    pub const fn standing(at: Instant, latitude: f64, longitude: f64) -> Self {
        Self { at, latitude, longitude, heading_deg: 0.0, speed: 0.0, steer_deg: 0.0, travelled_m: 0.0 }
    }

    /// Whether it stands.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.speed < STANDS
    }

    /// Moves on to `now`, with the pedals held as they are. An earlier moment changes nothing.
    pub fn advance(&mut self, now: Instant, pedals: &Pedals, mode: SteeringMode) {
        if now.since(self.at) > CATCH_UP {
            self.at = now - CATCH_UP;
        }
        while self.at < now {
            let step = now.since(self.at).min(STEP);
            self.step(step.as_secs_f64(), pedals, mode);
            self.at += step;
        }
    }

    fn step(&mut self, dt: f64, pedals: &Pedals, mode: SteeringMode) {
        if let Some(wanted) = pedals.steer_deg {
            let most = STEERING_RATE * dt;
            self.steer_deg += (wanted - self.steer_deg).clamp(-most, most);
        }
        let throttle = if pedals.brake > 0.0 { 0.0 } else { pedals.throttle };
        let push = throttle * FULL_THROTTLE * (1.0 - self.speed / TOP_SPEED).max(0.0);
        let before = self.speed;
        self.speed = (before + (push - pedals.brake * FULL_BRAKE - ROLLING) * dt).max(0.0);
        let way = (before + self.speed) * 0.5 * dt;
        self.travelled_m += way;

        let wheel = (self.steer_deg / STEERING_RATIO).to_radians();
        let heading = self.heading_deg.to_radians();
        // The direction of travel, and how far the body turns per metre.
        let (course, turn) = match mode {
            SteeringMode::Manual => (heading, wheel.tan() / WHEELBASE_M),
            SteeringMode::Crab => (heading + wheel, 0.0),
            SteeringMode::Circle => (heading, 2.0 * wheel.tan() / WHEELBASE_M),
        };
        // Half of the turn first: keeps a circle closed at any step.
        let course = course + turn * way * 0.5;
        let shrink = self.latitude.to_radians().cos().max(0.01); // meridians meet at the poles
        self.latitude = (self.latitude + way * course.cos() / DEGREE_M).clamp(-90.0, 90.0);
        self.longitude += way * course.sin() / (DEGREE_M * shrink);
        if self.longitude.abs() > 180.0 {
            self.longitude -= 360.0_f64.copysign(self.longitude);
        }
        self.heading_deg = (heading + turn * way).to_degrees().rem_euclid(360.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COAST: Pedals = Pedals { steer_deg: Some(0.0), throttle: 0.0, brake: 0.0 };

    fn start() -> Motion {
        Motion::standing(Instant::ZERO, 58.59, 16.18)
    }

    fn run(motion: &mut Motion, seconds: f64, pedals: Pedals, mode: SteeringMode) {
        motion.advance(motion.at + Duration::from_secs_f64(seconds), &pedals, mode);
    }

    #[test]
    fn throttle_moves_it_and_the_brake_stops_it_for_good() {
        let mut m = start();
        run(&mut m, 4.0, Pedals { throttle: 1.0, ..COAST }, SteeringMode::Manual);
        assert!((5.0..12.0).contains(&m.speed), "{}", m.speed);
        assert!(m.latitude > 58.59 && (m.longitude - 16.18).abs() < 1e-12);
        let gone = m.travelled_m;
        run(&mut m, 2.0, Pedals { throttle: 1.0, brake: 1.0, ..COAST }, SteeringMode::Manual);
        assert!(m.stands());
        assert!(m.travelled_m - gone < 12.0 * 12.0 / (2.0 * FULL_BRAKE) + 0.5);
        let stood = m;
        run(&mut m, 4.0, Pedals { brake: 1.0, ..COAST }, SteeringMode::Manual);
        assert_eq!((m.latitude, m.speed, m.travelled_m), (stood.latitude, 0.0, stood.travelled_m));
    }

    #[test]
    fn it_never_passes_its_top_speed_and_rolls_out() {
        let mut m = start();
        for _ in 0..30 {
            run(&mut m, 4.0, Pedals { throttle: 1.0, ..COAST }, SteeringMode::Manual);
        }
        assert!(m.speed < TOP_SPEED && m.speed > TOP_SPEED * 0.8);
        for _ in 0..30 {
            run(&mut m, 4.0, COAST, SteeringMode::Manual);
        }
        assert!(m.stands());
    }

    #[test]
    fn right_is_clockwise_and_a_full_circle_comes_back() {
        let mut m = start();
        run(&mut m, 1.0, Pedals { steer_deg: Some(450.0), ..COAST }, SteeringMode::Manual);
        assert_eq!(m.steer_deg, 450.0);
        m.speed = 3.0;
        let (lat, lon, gone) = (m.latitude, m.longitude, m.travelled_m);
        let round = core::f64::consts::TAU * WHEELBASE_M / 30.0_f64.to_radians().tan();
        let keep = Pedals { steer_deg: Some(450.0), throttle: 0.1, brake: 0.0 };
        run(&mut m, 0.5, keep, SteeringMode::Manual);
        assert!(m.heading_deg > 5.0 && m.heading_deg < 90.0, "{}", m.heading_deg);
        assert!(m.longitude > lon, "right of north is east");
        let mut farthest = 0.0_f64;
        while m.travelled_m - gone < round {
            run(&mut m, 0.005, keep, SteeringMode::Manual);
            farthest = farthest.max((m.latitude - lat).abs() * DEGREE_M);
        }
        assert!((m.latitude - lat).abs() * DEGREE_M < 0.1 && (m.longitude - lon).abs() * DEGREE_M < 0.2);
        assert!(farthest > 3.0);
    }

    #[test]
    fn crab_goes_sideways_without_turning_and_circle_turns_twice() {
        let turned = |mode| {
            let mut m = Motion { steer_deg: 225.0, speed: 5.0, ..start() };
            run(&mut m, 0.5, Pedals { steer_deg: Some(225.0), ..COAST }, mode);
            (m.heading_deg, m.longitude - 16.18)
        };
        let (manual, crab, circle) =
            (turned(SteeringMode::Manual), turned(SteeringMode::Crab), turned(SteeringMode::Circle));
        assert_eq!(crab.0, 0.0);
        assert!(crab.1 > 0.0);
        assert!((circle.0 - 2.0 * manual.0).abs() < 0.01 * circle.0);
    }

    proptest! {
        #[test]
        fn it_stays_on_the_map(
            steer in -450.0..450.0_f64, throttle in 0.0..=1.0_f64, brake in 0.0..=1.0_f64,
            latitude in -90.0..90.0_f64, longitude in -180.0..180.0_f64, mode in 0..3_u8, ms in 0..20_000_u64
        ) {
            let mut m = Motion::standing(Instant::ZERO, latitude, longitude);
            m.speed = 10.0;
            let pedals = Pedals { steer_deg: Some(steer), throttle, brake };
            m.advance(Instant::from_millis(ms), &pedals, SteeringMode::from_number(mode).unwrap());
            prop_assert_eq!(m.at, Instant::from_millis(ms));
            prop_assert!(m.latitude.abs() <= 90.0 && m.longitude.abs() <= 180.0);
            prop_assert!((0.0..=TOP_SPEED).contains(&m.speed) && (0.0..=360.0).contains(&m.heading_deg));
            prop_assert!(m.steer_deg.abs() <= 450.0);
        }
    }
}
