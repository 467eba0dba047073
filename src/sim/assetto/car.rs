//! One slot of the server and the car in it.
//!
//! Owns how a car follows the track: speed, gear, engine, pedals, laps. Relies on [`Track`]. Never knows another car.

use super::track::{BRAKING_MPS2, Place, Track};
use crate::proto::assetto::CarUpdate;
use crate::proto::assetto::game::RtCarInfo;
use crate::time::{Duration, Instant};

/// Acceleration at full throttle from a standstill, in m/s²; it falls with the speed.
const THRUST_MPS2: f64 = 6.5;

/// The speed in m/s at which nothing of the thrust is left.
const THRUST_END_MPS: f64 = 75.0;

/// The speed in m/s up to which each forward gear is used; the last has no end.
const SHIFT_MPS: [f64; 5] = [14.0, 23.0, 32.0, 41.0, 51.0];

/// Revolutions per minute at a standstill.
const IDLE_RPM: f64 = 900.0;

/// Revolutions per minute where a gear ends.
const SHIFT_RPM: f64 = 7_200.0;

/// Steering wheel angle in degrees for a bend of 1/m: a ratio of 14 on a wheelbase of 2.6 m.
const STEER_DEG_M: f64 = 14.0 * 2.6 * 57.3;

/// Distance between two places of the grid, in metres.
const GRID_M: f64 = 8.0;

/// Standard gravity, in m/s².
const G_MPS2: f64 = 9.806_65;

/// Radius of a wheel in metres.
const WHEEL_M: f64 = 0.33;

/// Weight on one wheel of a car at rest, in newtons: a car of 1,250 kg.
const WHEEL_N: f64 = 3_065.0;

/// Whether somebody is in the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Nobody.
    Empty,
    /// A driver who loads the game until then.
    Loading(Instant),
    /// A driver on the track.
    Driving,
}

/// A lap that has just ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lap {
    /// From line to line; the first of a race from the start.
    pub time_ms: u32,
    /// When the line was crossed.
    pub at: Instant,
}

/// A slot.
#[derive(Debug, Clone)]
pub struct Car {
    /// Whether somebody is in it.
    pub presence: Presence,
    /// Part of the limit that its driver dares, below 1.
    pub skill: f64,
    /// From the first crossing of the line; negative on the grid.
    pub distance_m: f64,
    /// Along the line.
    pub speed_mps: f64,
    acceleration_mps2: f64,
    /// When the running lap began; `None` before the first crossing.
    pub lap_began: Option<Instant>,
    /// Laps of this session.
    pub laps: u16,
    /// Laps of this session without a cut.
    pub valid_laps: u16,
    /// Last lap, in ms; 0 is none.
    pub last_ms: u32,
    /// Best lap without a cut, in ms.
    pub best_ms: Option<u32>,
    /// From the start of the race to the end of the last lap, in ms.
    pub total_ms: u32,
    /// Its race is over.
    pub has_finished: bool,
    /// Its driver stops on the track and waits there.
    pub is_halted: bool,
    /// When something next happens to it.
    pub mishap_at: Instant,
}

impl Car {
    /// An empty slot.
    pub(super) fn empty(skill: f64) -> Self {
        Self {
            presence: Presence::Empty,
            skill,
            distance_m: 0.0,
            speed_mps: 0.0,
            acceleration_mps2: 0.0,
            lap_began: None,
            laps: 0,
            valid_laps: 0,
            last_ms: 0,
            best_ms: None,
            total_ms: 0,
            has_finished: false,
            is_halted: false,
            mishap_at: Instant::ZERO,
        }
    }

    /// Puts it on its place of the grid with nothing driven.
    pub(super) fn line_up(&mut self, place: usize) {
        let (presence, is_halted) = (self.presence, self.is_halted);
        *self = Self { presence, is_halted, mishap_at: self.mishap_at, ..Self::empty(self.skill) };
        let place = u8::try_from(place).unwrap_or(u8::MAX);
        self.distance_m = -GRID_M * (f64::from(place) + 1.0);
    }

    /// Whether positions of it are sent.
    #[must_use]
    pub fn is_driving(&self) -> bool {
        self.presence == Presence::Driving
    }

    /// Drives on until `now`, for at most [`super::STEP`]. The lap that this ended, if any.
    pub(super) fn drive(&mut self, track: &Track, now: Instant, dt: Duration, is_held: bool) -> Option<Lap> {
        let dt_s = dt.as_secs_f64();
        if is_held || dt_s <= 0.0 {
            self.speed_mps = 0.0;
            self.acceleration_mps2 = 0.0;
            return None;
        }
        // Who has finished rolls on slowly.
        let dare = if self.has_finished { self.skill * 0.5 } else { self.skill };
        let dare = if self.is_halted { 0.0 } else { dare };
        let target = track.place(self.distance_m + self.speed_mps * dt_s).limit_mps * dare;
        let thrust = THRUST_MPS2 * (1.0 - self.speed_mps / THRUST_END_MPS).max(0.0);
        let wanted = (target - self.speed_mps) / dt_s;
        self.acceleration_mps2 = wanted.clamp(-BRAKING_MPS2, thrust);
        let before = self.speed_mps;
        self.speed_mps = (before + self.acceleration_mps2 * dt_s).max(0.0);
        let from = self.distance_m;
        self.distance_m += f64::midpoint(before, self.speed_mps) * dt_s;
        let line = ((from / track.length_m()).floor() + 1.0) * track.length_m();
        if self.distance_m < line || self.speed_mps <= 0.0 {
            return None;
        }
        let behind = Duration::from_secs_f64((self.distance_m - line) / self.speed_mps).min(dt);
        let at = Instant::from_nanos(now.as_nanos().saturating_sub(nanos(behind)));
        // From the grid over the line is no lap, and where a race started it is already part of the first.
        if line <= 0.0 {
            self.lap_began.get_or_insert(at);
            return None;
        }
        let began = self.lap_began.replace(at)?;
        Some(Lap { time_ms: millis(at.since(began)), at })
    }

    /// Counts a lap.
    pub(super) fn count(&mut self, lap: Lap, cuts: u8, started: Instant) {
        self.laps = self.laps.saturating_add(1);
        self.last_ms = lap.time_ms;
        self.total_ms = millis(lap.at.since(started));
        if cuts == 0 {
            self.valid_laps = self.valid_laps.saturating_add(1);
            self.best_ms = Some(self.best_ms.map_or(lap.time_ms, |best| best.min(lap.time_ms)));
        }
    }

    /// 0 is neutral, 1 the first: these cars never drive backwards.
    #[must_use]
    pub fn gear(&self) -> u8 {
        if self.speed_mps < 0.1 {
            return 0;
        }
        let below = SHIFT_MPS.iter().filter(|end| self.speed_mps >= **end).count();
        u8::try_from(below).map_or(u8::MAX, |below| below + 1)
    }

    /// Revolutions per minute.
    #[must_use]
    pub fn rpm(&self) -> f64 {
        let end = match self.gear() {
            0 => return IDLE_RPM,
            gear => SHIFT_MPS.get(usize::from(gear) - 1).copied().unwrap_or(62.0),
        };
        (SHIFT_RPM * self.speed_mps / end).max(IDLE_RPM)
    }

    fn velocity(&self, place: &Place) -> [f64; 3] {
        place.ahead.map(|part| part * self.speed_mps)
    }

    /// What the server tells of it.
    #[must_use]
    pub fn update(&self, track: &Track, car_id: u8) -> CarUpdate {
        let place = track.place(self.distance_m);
        CarUpdate {
            car_id,
            pos: place.pos.map(single),
            vel: self.velocity(&place).map(single),
            gear: self.gear() + 1,
            engine_rpm: whole(self.rpm()),
            normalized_spline_pos: single(track.part(self.distance_m)).min(1.0),
        }
    }

    /// What the game of its driver tells.
    #[must_use]
    pub fn telemetry(&self, track: &Track, now: Instant) -> RtCarInfo {
        let place = track.place(self.distance_m);
        let sideways = self.speed_mps.powi(2) * place.bend_per_m;
        let gas = (self.acceleration_mps2 / THRUST_MPS2).clamp(0.0, 1.0);
        let brake = (-self.acceleration_mps2 / BRAKING_MPS2).clamp(0.0, 1.0);
        let lap_ms = self.lap_began.map_or(0, |began| millis(now.since(began)));
        let whole_ms = |ms: u32| i32::try_from(ms).unwrap_or(i32::MAX);
        RtCarInfo {
            speed_kmh: single(self.speed_mps * 3.6),
            speed_mph: single(self.speed_mps * 2.236_936),
            speed_mps: single(self.speed_mps),
            is_abs_enabled: true,
            is_abs_in_action: brake > 0.95,
            is_tc_in_action: false,
            is_tc_enabled: true,
            is_in_pit: false,
            is_engine_limiter_on: false,
            acc_g_vertical: 0.0,
            acc_g_horizontal: single(sideways / G_MPS2),
            acc_g_frontal: single(self.acceleration_mps2 / G_MPS2),
            lap_time_ms: whole_ms(lap_ms),
            last_lap_ms: whole_ms(self.last_ms),
            best_lap_ms: whole_ms(self.best_ms.unwrap_or(0)),
            lap_count: i32::from(self.laps),
            gas: single(gas),
            brake: single(brake),
            clutch: 1.0,
            engine_rpm: single(self.rpm()),
            steer: single(place.bend_per_m * STEER_DEG_M),
            gear: i32::from(self.gear()) + 1,
            cg_height: 0.3,
            wheel_angular_speed: [single(self.speed_mps / WHEEL_M); 4],
            load: [single(WHEEL_N); 4],
            tyre_radius: [single(WHEEL_M); 4],
            tyre_loaded_radius: [single(WHEEL_M - 0.01); 4],
            car_position_normalized: single(track.part(self.distance_m)).min(1.0),
            car_slope: single(place.ahead[1]),
            car_coordinates: place.pos.map(single),
            ..RtCarInfo::default()
        }
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Whole milliseconds, as the protocol has them.
pub(super) fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

/// The wire has 32 bits.
#[allow(clippy::cast_possible_truncation, reason = "rounded to what the wire has")]
pub(super) fn single(value: f64) -> f32 {
    value as f32
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of revolutions, clamped"
)]
fn whole(value: f64) -> u16 {
    value.round().clamp(0.0, f64::from(u16::MAX)) as u16
}
