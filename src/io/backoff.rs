//! How long to wait before the next attempt to connect.
//!
//! Owns the growing, jittered delay. Pure: the seed comes from the caller. Never gives up.

use core::time::Duration;

/// First delay: OCP asks for a quick return, and a server that restarts is back within this order.
const FIRST: Duration = Duration::from_millis(100);

/// Largest delay: what an operator waits at most after the server has come back.
const LAST: Duration = Duration::from_secs(2);

/// Growing delays with jitter, 100 ms to 2 s.
#[derive(Clone, Debug)]
pub struct Backoff {
    random: u64,
    base: Duration,
}

impl Backoff {
    /// Starts at the shortest delay. Different seeds keep several gateways from knocking at the same moment.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { random: seed, base: FIRST }
    }

    /// The next delay: doubles from call to call, less up to a quarter by chance, never below the first.
    pub fn next_delay(&mut self) -> Duration {
        // Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (SplitMix64).
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let thousandths = u32::try_from((z ^ (z >> 31)) % 251).unwrap_or(0);
        let delay = self.base - self.base * thousandths / 1_000;
        self.base = (self.base * 2).min(LAST);
        delay.max(FIRST)
    }

    /// Back to the shortest delay, after a session that worked.
    pub const fn reset(&mut self) {
        self.base = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_from_100_ms_to_2_s_with_jitter() {
        let mut differ = false;
        for seed in 0..1_000 {
            let (mut a, mut b) = (Backoff::new(seed), Backoff::new(seed));
            assert_eq!(a.next_delay(), FIRST);
            b.next_delay();
            for n in 1..20_u32 {
                let base = (FIRST * 2_u32.pow(n.min(10))).min(LAST);
                let delay = a.next_delay();
                assert!(delay <= base && delay >= base * 3 / 4, "seed {seed}, attempt {n}: {delay:?}");
                assert_eq!(delay, b.next_delay(), "same seed, same delays");
                differ |= delay != base;
            }
            a.reset();
            assert_eq!(a.next_delay(), FIRST);
        }
        assert!(differ, "no jitter at all");
    }
}
