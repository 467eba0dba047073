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

impl Transform {
    /// The reading as it is.
    #[must_use]
    pub const fn direct() -> Self {
        Self::of(Shape::Direct, -1.0, 1.0)
    }

    /// A switch with these two values, in the unit of the signal.
    #[must_use]
    pub const fn switch(off: f64, on: f64) -> Self {
        Self::of(Shape::Switch { off, on }, off, on)
    }

    /// A stick that reads `low`, `centre` and `high`; the value is -1, 0 and 1 until [`Transform::output`] says more.
    #[must_use]
    pub const fn centred(low: f64, centre: f64, high: f64) -> Self {
        Self::of(Shape::Centred { low, centre, high }, -1.0, 1.0)
    }

    /// A trigger or lever that reads `low` at rest; the value is 0 to 1 until [`Transform::output`] says more.
    #[must_use]
    pub const fn one_sided(low: f64, high: f64) -> Self {
        Self::of(Shape::OneSided { low, high }, 0.0, 1.0)
    }

    const fn of(shape: Shape, out_low: f64, out_high: f64) -> Self {
        Self {
            shape,
            invert: false,
            dead_zone: 0.0,
            expo: 0.0,
            out_low,
            out_centre: f64::midpoint(out_low, out_high),
            out_high,
        }
    }

    /// Sets the value at both ends, in the unit of the signal; the centre goes half way between.
    #[must_use]
    pub const fn output(mut self, low: f64, high: f64) -> Self {
        self.out_low = low;
        self.out_high = high;
        self.out_centre = f64::midpoint(low, high);
        self
    }

    /// Sets the value at the centre of a centred shape; call it after [`Transform::output`].
    #[must_use]
    pub const fn output_centre(mut self, centre: f64) -> Self {
        self.out_centre = centre;
        self
    }

    /// Mirrors the normalised value.
    #[must_use]
    pub const fn inverted(mut self) -> Self {
        self.invert = !self.invert;
        self
    }

    /// Sets the dead zone, 0 to 0.9 of the normalised range.
    #[must_use]
    pub const fn with_dead_zone(mut self, share: f64) -> Self {
        self.dead_zone = share;
        self
    }

    /// Sets the share of the cubic curve, 0 to 1.
    #[must_use]
    pub const fn with_expo(mut self, share: f64) -> Self {
        self.expo = share;
        self
    }

    /// Where the reading lies in its own range, before inversion and dead zone: -1..=1 centred, 0..=1 one-sided, 0 or
    /// 1 for a switch, the number itself for a direct one. A reading beyond its range counts as its end.
    ///
    /// `None` for what is no usable value: missing, invalid, not finite, a number on a switch that is neither 0 nor 1,
    /// a boolean on a stick, a range without extent.
    #[must_use]
    pub fn normalise(&self, reading: Reading) -> Option<f64> {
        let x = match (self.shape, reading) {
            (_, Reading::Number(n)) if !n.is_finite() => return None,
            (_, Reading::Missing | Reading::Invalid)
            | (Shape::Centred { .. } | Shape::OneSided { .. }, Reading::Bool(_)) => return None,
            (Shape::Direct | Shape::Switch { .. }, Reading::Bool(on)) => f64::from(u8::from(on)),
            (Shape::Direct, Reading::Number(n)) => n,
            (Shape::Switch { .. }, Reading::Number(n)) if n == 0.0 || n == 1.0 => n,
            (Shape::Switch { .. }, Reading::Number(_)) => return None,
            (Shape::Centred { low, centre, high }, Reading::Number(n)) => {
                let above = share(n, centre, high)?;
                if above >= 0.0 { above.min(1.0) } else { -share(n, centre, low)?.clamp(0.0, 1.0) }
            }
            (Shape::OneSided { low, high }, Reading::Number(n)) => share(n, low, high)?.clamp(0.0, 1.0),
        };
        x.is_finite().then_some(x)
    }

    /// Whether the control is at rest: a stick within `stick` of its centre, a lever within `trigger` of its rest end
    /// (the other end where it is inverted), a switch at its `off` value, a direct number within `stick` of 0. A
    /// reading that is no value is not at rest.
    ///
    /// Constants and value names have no rest position: asking for them is the caller's mistake.
    #[must_use]
    pub fn is_neutral(&self, reading: Reading, stick: f64, trigger: f64) -> bool {
        let Some(x) = self.normalise(reading) else { return false };
        match self.shape {
            Shape::Direct | Shape::Centred { .. } => x.abs() <= stick,
            Shape::OneSided { .. } | Shape::Switch { .. } => self.mirrored(x) <= trigger,
        }
    }

    /// The value in the unit of the signal, always within the output range (direct readings excepted, which have
    /// none). `None` for what is no usable value, see [`Transform::normalise`].
    #[must_use]
    pub fn apply(&self, reading: Reading) -> Option<f64> {
        let x = self.mirrored(self.normalise(reading)?);
        let value = match self.shape {
            Shape::Direct => x,
            Shape::Switch { off, on } => {
                if x == 0.0 {
                    off
                } else {
                    on
                }
            }
            Shape::Centred { .. } => {
                let x = self.curved(x);
                if x < 0.0 {
                    between(self.out_centre, self.out_low, -x)
                } else {
                    between(self.out_centre, self.out_high, x)
                }
            }
            Shape::OneSided { .. } => between(self.out_low, self.out_high, self.curved(x)),
        };
        value.is_finite().then_some(value)
    }

    /// The normalised value on the other side, where that is asked for.
    fn mirrored(&self, x: f64) -> f64 {
        match (self.invert, self.shape) {
            (false, _) => x,
            (true, Shape::Switch { .. } | Shape::OneSided { .. }) => 1.0 - x,
            (true, Shape::Direct | Shape::Centred { .. }) => -x,
        }
    }

    /// Dead zone, stretched so that its edge is 0, then the curve. Keeps the sign; 0 to 0 and 1 to 1 exactly.
    fn curved(&self, x: f64) -> f64 {
        let beyond = x.abs() - self.dead_zone;
        if beyond <= 0.0 {
            return 0.0;
        }
        let live = (beyond / (1.0 - self.dead_zone)).clamp(0.0, 1.0);
        let curve = (1.0 - self.expo) * live + self.expo * (live * live * live);
        curve.clamp(0.0, 1.0).copysign(x)
    }
}

/// How far `x` lies on the way from `from` to `to`: 0 at `from`, 1 at `to`. `None` where the way has no length that
/// can be divided by: a degenerate range must not turn noise into full scale.
fn share(x: f64, from: f64, to: f64) -> Option<f64> {
    let way = to - from;
    let share = (x - from) / way;
    (way.is_normal() && !share.is_nan()).then_some(share)
}

/// The value at `share` (0..=1) of the way, exact at both ends and never outside.
fn between(from: f64, to: f64, share: f64) -> f64 {
    if share >= 1.0 {
        return to;
    }
    let value = from + (to - from) * share;
    let (low, high) = if from <= to { (from, to) } else { (to, from) };
    // No f64::clamp: it panics where a bound is not a number.
    if value < low {
        low
    } else if value > high {
        high
    } else {
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // The limits that the safety core uses; the numbers are its own.
    const STICK: f64 = 0.05;
    const TRIGGER: f64 = 0.02;

    fn trigger() -> Transform {
        Transform::one_sided(-1.0, 1.0).output(0.0, 100.0)
    }

    fn steering() -> Transform {
        Transform::centred(-1.0, 0.0, 1.0).output(-450.0, 450.0)
    }

    fn at(t: &Transform, x: f64) -> f64 {
        t.apply(Reading::Number(x)).unwrap()
    }

    #[test]
    fn a_trigger_at_rest_is_exactly_nothing_and_zero_is_half() {
        assert_eq!(at(&trigger(), -1.0), 0.0);
        assert_eq!(at(&trigger(), 0.0), 50.0);
        assert_eq!(at(&trigger(), 1.0), 100.0);
        assert!(trigger().is_neutral(Reading::Number(-1.0), STICK, TRIGGER));
        assert!(trigger().is_neutral(Reading::Number(-0.97), STICK, TRIGGER));
        assert!(!trigger().is_neutral(Reading::Number(-0.95), STICK, TRIGGER));
        assert!(!trigger().is_neutral(Reading::Number(0.0), STICK, TRIGGER));
    }

    #[test]
    fn a_stick_is_piecewise_around_its_centre() {
        let t = Transform::centred(-1.0, 0.2, 1.0).output(-10.0, 30.0).output_centre(0.0);
        for (x, y) in
            [(-1.0, -10.0), (-0.4, -5.0), (0.2, 0.0), (0.6, 15.0), (1.0, 30.0), (-9.0, -10.0), (9.0, 30.0)]
        {
            assert!((at(&t, x) - y).abs() < 1e-12, "{x}");
        }
        assert!(t.is_neutral(Reading::Number(0.2), STICK, TRIGGER));
        assert!(!t.is_neutral(Reading::Number(0.0), STICK, TRIGGER));
        // A stick whose low end is the larger number reads the other way round.
        let t = Transform::centred(1.0, 0.0, -1.0);
        assert_eq!((at(&t, 1.0), at(&t, 0.0), at(&t, -1.0)), (-1.0, 0.0, 1.0));
    }

    #[test]
    fn the_dead_zone_is_stretched_to_start_at_zero() {
        let t = steering().with_dead_zone(0.1);
        for x in [-0.1, -0.05, 0.0, 0.1] {
            assert_eq!(at(&t, x), 0.0);
        }
        assert!((at(&t, 0.100_001)) < 0.001);
        assert!((at(&t, 0.55) - 225.0).abs() < 1e-9);
        assert_eq!(at(&t, -1.0), -450.0);
    }

    #[test]
    fn expo_softens_the_middle_and_keeps_the_ends() {
        let t = steering().with_expo(0.5);
        assert!((at(&t, 0.5) - 450.0 * (0.25 + 0.0625)).abs() < 1e-9);
        assert_eq!((at(&t, -1.0), at(&t, 0.0), at(&t, 1.0)), (-450.0, 0.0, 450.0));
    }

    #[test]
    fn inversion_mirrors_and_rest_follows() {
        assert_eq!(at(&steering().inverted(), 1.0), -450.0);
        // A lever that is mirrored rests where its value is 0, at the high end: a dead trigger is not at rest.
        let t = trigger().inverted();
        assert_eq!(at(&t, 1.0), 0.0);
        assert!(t.is_neutral(Reading::Number(1.0), STICK, TRIGGER));
        assert!(!t.is_neutral(Reading::Number(-1.0), STICK, TRIGGER));
        // The same for a switch that is closed at rest.
        let t = Transform::switch(0.0, 3.0).inverted();
        assert_eq!(t.apply(Reading::Bool(true)), Some(0.0));
        assert!(t.is_neutral(Reading::Bool(true), STICK, TRIGGER));
        assert!(!t.is_neutral(Reading::Bool(false), STICK, TRIGGER));
    }

    #[test]
    fn what_is_no_value_gives_none() {
        for t in [Transform::direct(), Transform::switch(0.0, 1.0), steering(), trigger()] {
            for reading in [
                Reading::Missing,
                Reading::Invalid,
                Reading::Number(f64::NAN),
                Reading::Number(f64::INFINITY),
                Reading::Number(f64::NEG_INFINITY),
            ] {
                assert_eq!(t.apply(reading), None, "{t:?} {reading:?}");
                assert!(!t.is_neutral(reading, STICK, TRIGGER));
            }
        }
        assert_eq!(steering().apply(Reading::Bool(true)), None);
        assert_eq!(Transform::switch(0.0, 1.0).apply(Reading::Number(0.5)), None);
        assert_eq!(Transform::switch(2.0, 5.0).apply(Reading::Number(1.0)), Some(5.0));
        assert_eq!(Transform::direct().apply(Reading::Number(7.5)), Some(7.5));
        assert_eq!(Transform::direct().apply(Reading::Bool(true)), Some(1.0));
    }

    #[test]
    fn a_range_without_extent_never_becomes_full_scale() {
        assert_eq!(Transform::one_sided(0.5, 0.5).apply(Reading::Number(0.500_1)), None);
        assert_eq!(Transform::centred(-1.0, 1.0, 1.0).apply(Reading::Number(1.0)), None);
        assert_eq!(Transform::one_sided(0.0, f64::NAN).apply(Reading::Number(1.0)), None);
    }

    fn any_transform() -> impl Strategy<Value = Transform> {
        let ends = (-2.0..2.0_f64, 0.01..2.0_f64, 0.01..2.0_f64);
        let out = (-1e6..1e6_f64, 0.0..=1.0_f64, 0.0..1e6_f64);
        (any::<bool>(), ends, any::<bool>(), 0.0..=0.9_f64, 0.0..=1.0_f64, out, any::<bool>()).prop_map(
            |(one_sided, (centre, down, up), invert, dead_zone, expo, (base, share, extent), falls)| {
                let shape = if one_sided {
                    Shape::OneSided { low: centre, high: centre + up }
                } else {
                    Shape::Centred { low: centre - down, centre, high: centre + up }
                };
                let (a, b) = (base, base + extent);
                let (out_low, out_high) = if falls { (b, a) } else { (a, b) };
                let out_centre = out_low + (out_high - out_low) * share;
                Transform { shape, invert, dead_zone, expo, out_low, out_centre, out_high }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn monotone_bounded_finite(t in any_transform(), a in -5.0..5.0_f64, b in -5.0..5.0_f64) {
            let (a, b) = (a.min(b), a.max(b));
            let (x, y) = (at(&t, a), at(&t, b));
            let (low, high) = (t.out_low.min(t.out_high), t.out_low.max(t.out_high));
            for v in [x, y] {
                prop_assert!(v.is_finite() && low <= v && v <= high, "{}", v);
            }
            let rises = (t.out_low <= t.out_high) != t.invert;
            prop_assert!(if rises { x <= y } else { x >= y }, "{} {}", x, y);
        }

        #[test]
        fn ends_and_rest_are_exact(t in any_transform()) {
            let t = Transform { invert: false, ..t };
            match t.shape {
                Shape::Centred { low, centre, high } => {
                    prop_assert_eq!(at(&t, low), t.out_low);
                    prop_assert_eq!(at(&t, centre), t.out_centre);
                    prop_assert_eq!(at(&t, high), t.out_high);
                }
                Shape::OneSided { low, high } => {
                    prop_assert_eq!(at(&t, low), t.out_low);
                    prop_assert_eq!(at(&t, high), t.out_high);
                }
                Shape::Direct | Shape::Switch { .. } => {}
            }
        }

        #[test]
        fn no_number_gives_anything_else_than_a_finite_value_or_none(t in any_transform(), x: f64) {
            if let Some(v) = t.apply(Reading::Number(x)) {
                prop_assert!(v.is_finite());
            }
        }
    }
}
