//! Random numbers that a seed repeats.
//!
//! Owns a small generator (SplitMix64). Relies on nothing. Never used for anything secret.

/// A generator; the same seed gives the same numbers, on every machine.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The generator of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub const fn range(&mut self, low: u64, high: u64) -> u64 {
        // The bias of the remainder is below 2^-40 for the small ranges of a simulation.
        low + self.bits() % (high - low + 1)
    }

    /// True in `share` of 1,000 cases.
    pub const fn per_mille(&mut self, share: u64) -> bool {
        self.bits() % 1_000 < share
    }

    /// A number from 0 up to, but not, 1.
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub const fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number from `low` up to `high`.
    pub const fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// One of these.
    ///
    /// # Panics
    /// Without anything to choose from.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let last = u64::try_from(from.len()).unwrap_or(u64::MAX) - 1;
        &from[usize::try_from(self.range(0, last)).unwrap_or(0)]
    }
}
