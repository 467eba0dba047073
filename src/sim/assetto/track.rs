//! A closed track: where its line runs, and how fast a car may follow it.
//!
//! Owns the shape, which is computed and not measured: no track of the game is copied. Relies on nothing. Never changes
//! once it is made.

use core::f64::consts::TAU;

/// Points of the table from distance to place. At 1.9 km one stands every 1.9 m.
const POINTS: usize = 1_024;

/// Mean radius of the line in metres: a lap of about 1.9 km, which a fast car drives in about a minute.
const RADIUS_M: f64 = 280.0;

/// How far the line leaves a circle, as parts of its radius, and how often on one lap. Together they make slow corners,
/// fast ones, and straights.
const WAVES: [(f64, f64); 2] = [(0.18, 2.0), (0.08, 5.0)];

/// Height of the track over its mean, in metres: a climb of less than 3 %.
const HEIGHT_M: f64 = 6.0;

/// Sideways acceleration on the limit, in m/s²: a road car on good tyres.
pub(super) const GRIP_MPS2: f64 = 11.0;

/// Braking, in m/s².
pub(super) const BRAKING_MPS2: f64 = 9.0;

/// Most that any car of the simulation reaches, in m/s: 216 km/h.
pub(super) const SPEED_MAX_MPS: f64 = 60.0;

/// A place on the line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// Metres; y is up.
    pub pos: [f64; 3],
    /// Where the line leads, of length 1.
    pub ahead: [f64; 3],
    /// Bend of the line in 1/m; positive turns from x towards z.
    pub bend_per_m: f64,
    /// The speed of a car on the limit, in m/s.
    pub limit_mps: f64,
}

/// The track.
#[derive(Debug, Clone)]
pub struct Track {
    /// Distance from the line of start and finish, for equal steps of the angle; one more than [`POINTS`].
    distance_m: Vec<f64>,
    /// Speed on the limit at the same places.
    limit_mps: Vec<f64>,
}

/// Place, and its first and second derivative by the angle.
fn shape(angle: f64) -> [[f64; 3]; 3] {
    let (mut r, mut dr, mut ddr) = (1.0, 0.0, 0.0);
    for (part, times) in WAVES {
        r += part * (times * angle).cos();
        dr -= part * times * (times * angle).sin();
        ddr -= part * times * times * (times * angle).cos();
    }
    let [r, dr, ddr] = [r, dr, ddr].map(|value| value * RADIUS_M);
    let (sin, cos) = angle.sin_cos();
    [
        [r * cos, HEIGHT_M * sin, r * sin],
        [dr * cos - r * sin, HEIGHT_M * cos, dr * sin + r * cos],
        [ddr * cos - 2.0 * dr * sin - r * cos, -HEIGHT_M * sin, ddr * sin + 2.0 * dr * cos - r * sin],
    ]
}

fn length(vector: [f64; 3]) -> f64 {
    vector.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// Bend in the horizontal, in 1/m.
fn bend([_, d, dd]: [[f64; 3]; 3]) -> f64 {
    (d[0] * dd[2] - d[2] * dd[0]) / d[0].hypot(d[2]).powi(3)
}

#[allow(clippy::cast_precision_loss, reason = "a table of 1,024 points")]
fn angle_of(point: f64) -> f64 {
    TAU * point / POINTS as f64
}

#[allow(clippy::cast_precision_loss, reason = "a table of 1,024 points")]
fn as_f64(point: usize) -> f64 {
    point as f64
}

impl Track {
    /// The track of every simulated server.
    #[must_use]
    pub fn new() -> Self {
        let mut distance_m = vec![0.0; POINTS + 1];
        for point in 0..POINTS {
            let middle = length(shape(angle_of(as_f64(point) + 0.5))[1]);
            distance_m[point + 1] = distance_m[point] + middle * angle_of(1.0);
        }
        let mut limit_mps: Vec<f64> = (0..=POINTS)
            .map(|point| {
                let bend = bend(shape(angle_of(as_f64(point)))).abs();
                (GRIP_MPS2 / bend.max(1e-9)).sqrt().min(SPEED_MAX_MPS)
            })
            .collect();
        // Twice around, backwards: in front of a corner there must be room to brake, also across the start.
        for step in (0..2 * POINTS).rev() {
            let point = step % POINTS;
            let room = distance_m[point + 1] - distance_m[point];
            let most = (limit_mps[point + 1].powi(2) + 2.0 * BRAKING_MPS2 * room).sqrt();
            limit_mps[point] = limit_mps[point].min(most);
            limit_mps[POINTS] = limit_mps[0];
        }
        Self { distance_m, limit_mps }
    }

    /// One lap, in metres.
    #[must_use]
    pub fn length_m(&self) -> f64 {
        self.distance_m[POINTS]
    }

    /// The place in 0 to 1 at this distance; a car in front of the first line has a negative distance.
    #[must_use]
    pub fn part(&self, distance_m: f64) -> f64 {
        let part = (distance_m / self.length_m()).rem_euclid(1.0);
        // Just below zero rounds to a whole lap.
        if part >= 1.0 { 0.0 } else { part }
    }

    /// The place at this distance.
    #[must_use]
    pub fn place(&self, distance_m: f64) -> Place {
        let on_lap = self.part(distance_m) * self.length_m();
        let after = self.distance_m.partition_point(|d| *d <= on_lap).clamp(1, POINTS);
        let (before, step) = (after - 1, self.distance_m[after] - self.distance_m[after - 1]);
        let share = (on_lap - self.distance_m[before]) / step;
        let shape = shape(angle_of(as_f64(before) + share));
        let size = length(shape[1]);
        Place {
            pos: shape[0],
            ahead: shape[1].map(|d| d / size),
            bend_per_m: bend(shape),
            limit_mps: self.limit_mps[before] + share * (self.limit_mps[after] - self.limit_mps[before]),
        }
    }
}

impl Default for Track {
    fn default() -> Self {
        Self::new()
    }
}
