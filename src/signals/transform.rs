//! From a source's reading to a value in the unit of the signal.
//!
//! Owns normalising, dead zone, expo, inversion and the output range. Relies on `source`. Never limits a rate and
//! never remembers anything: slew limits and toggles are the envelope's.

use super::source::Reading;

/// How a reading is understood.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// The reading is the value, in the unit of the signal (constants, DBC value names, plain numbers).
    Direct,
    /// A switch: `off` or `on`, in the unit of the signal.
    Switch {
        /// Value while false.
        off: f64,
        /// Value while true.
        on: f64,
    },
    /// A stick: from `low` over `centre` to `high`, normalised to -1..=1; rest is the centre.
    Centred {
        /// Reading that becomes -1.
        low: f64,
        /// Reading that becomes 0.
        centre: f64,
        /// Reading that becomes +1.
        high: f64,
    },
    /// A trigger or lever: from `low` to `high`, normalised to 0..=1; rest is `low`.
    OneSided {
        /// Reading that becomes 0.
        low: f64,
        /// Reading that becomes 1.
        high: f64,
    },
}

/// From a source's reading to a value in the unit of the signal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transform {
    /// How the reading is understood.
    pub shape: Shape,
    /// Mirrors the normalised value (x to -x, or x to 1 - x; a switch swaps its values).
    pub invert: bool,
    /// Normalised values up to this are rest; what lies beyond is stretched to start at 0. 0 to 0.9.
    pub dead_zone: f64,
    /// Share of the cubic curve, 0 (straight) to 1.
    pub expo: f64,
    /// Value at the low end of the normalised range (-1 or 0), in the unit of the signal.
    pub out_low: f64,
    /// Value at normalised 0 of a centred shape.
    pub out_centre: f64,
    /// Value at normalised 1.
    pub out_high: f64,
}
