//! The clocks of the machine.
//!
//! Owns the only reading of them. Relies on nothing. Never lets wall time into a decision: it is for log stamps alone
//! (a board without a battery clock boots in 1970, and is set while it runs).

use nix::time::{ClockId, clock_gettime};

use crate::time::Instant;

/// Now, on the monotonic clock.
#[must_use]
pub fn now() -> Instant {
    // The call cannot fail for this clock; zero would read as "very old" everywhere, which is the safe side.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Instant::ZERO, |t| {
        let s = u64::try_from(t.tv_sec()).unwrap_or(0);
        let ns = u64::try_from(t.tv_nsec()).unwrap_or(0);
        Instant::from_nanos(s.saturating_mul(1_000_000_000).saturating_add(ns))
    })
}

/// Microseconds since 1970 by the wall clock. For log stamps only.
#[must_use]
pub fn wall_us() -> u64 {
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, |t| {
        let s = u64::try_from(t.tv_sec()).unwrap_or(0);
        let us = u64::try_from(t.tv_nsec() / 1_000).unwrap_or(0);
        s.saturating_mul(1_000_000).saturating_add(us)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_runs_forward_and_is_not_the_wall_clock() {
        let first = now();
        let mut later = now();
        while later == first {
            later = now();
        }
        assert!(later > first);
        assert!(wall_us() > 1_600_000_000_000_000, "wall clock before 2020");
    }
}
