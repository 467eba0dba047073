//! Spreads of times: how long something took, as a technician reads it.
//!
//! Owns the classes into which times are counted, and percentiles of them. Relies on nothing. Never keeps a single time: a
//! spread has the same size after a minute and after a year.

use crate::time::{Duration, Instant};

/// Classes for each doubling of a time: a value is known to an eighth of itself.
const STEPS: u32 = 8;

/// Doublings: from 1 microsecond to 16 seconds, longer than any time constant of the program.
const DOUBLINGS: u32 = 24;

/// Classes of a spread.
pub const CLASSES: usize = (STEPS * DOUBLINGS) as usize;

/// The class of a time.
#[must_use]
pub fn class(time: Duration) -> usize {
    let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    // Below 8 every microsecond has a class of its own.
    let us = us.max(1);
    let power = us.ilog2();
    let within = if power >= 3 { (us >> (power - 3)) & 7 } else { (us << (3 - power)) & 7 };
    usize::try_from(u64::from(power * STEPS) + within).map_or(CLASSES - 1, |class| class.min(CLASSES - 1))
}

/// The largest time of a class, in microseconds.
fn upper_us(class: usize) -> f64 {
    let class = u32::try_from(class).unwrap_or(u32::MAX);
    let lower = f64::from(1_u32 << (class / STEPS).min(31));
    lower * (1.0 + f64::from(class % STEPS + 1) / f64::from(STEPS))
}

/// A spread at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted(pub Vec<u32>);

/// What a person reads of a spread. Each time is the upper end of its class: at most an eighth too long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentiles {
    /// Half of all times were not longer, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 were not longer.
    pub p99_ms: f64,
    /// None was longer.
    pub max_ms: f64,
    /// Times that were counted.
    pub count: u64,
}

impl Counted {
    /// What came since an earlier moment.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |class: usize| earlier.0.get(class).copied().unwrap_or(0);
        Self(self.0.iter().enumerate().map(|(class, now)| now.wrapping_sub(before(class))).collect())
    }

    /// The percentiles; none where nothing was counted.
    #[must_use]
    pub fn percentiles(&self) -> Option<Percentiles> {
        let count: u64 = self.0.iter().map(|count| u64::from(*count)).sum();
        if count == 0 {
            return None;
        }
        let rank = |rank: u64| {
            let mut seen = 0;
            let class = self.0.iter().position(|count| {
                seen += u64::from(*count);
                seen >= rank
            });
            class.map_or(0.0, |class| upper_us(class) / 1_000.0)
        };
        Some(Percentiles {
            p50_ms: rank(count.div_ceil(2)),
            p99_ms: rank((count * 99).div_ceil(100)),
            max_ms: rank(count),
            count,
        })
    }
}

/// Percentiles of about the last minute: a spread is looked at every [`Recent::STEP`], and the oldest look is subtracted.
#[derive(Debug, Default)]
pub struct Recent {
    looks: heapless::Deque<(Instant, Counted), 7>,
}

impl Recent {
    /// Time between two looks; six of them are the minute.
    pub const STEP: Duration = Duration::from_secs(10);

    /// Looks at the spread if it is time.
    pub fn look(&mut self, now: Instant, counted: impl FnOnce() -> Counted) {
        if self.looks.back().is_some_and(|(at, _)| now.since(*at) < Self::STEP) {
            return;
        }
        if self.looks.is_full() {
            self.looks.pop_front();
        }
        // There was just made room.
        let _ = self.looks.push_back((now, counted()));
    }

    /// The percentiles of what came since the oldest look.
    #[must_use]
    pub fn percentiles(&self, counted: &Counted) -> Option<Percentiles> {
        match self.looks.front() {
            Some((_, oldest)) => counted.since(oldest).percentiles(),
            None => counted.percentiles(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_known_to_an_eighth_of_itself() {
        let mut before = 0;
        for us in
            (1..4_096).chain((12..24).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1]))
        {
            let class = class(Duration::from_micros(us));
            assert!(class >= before, "{us}");
            before = class;
            let upper = upper_us(class);
            let exact = f64::from(u32::try_from(us).unwrap());
            assert!(upper > exact && upper <= exact * 1.126 + 1.0, "{us}: {upper}");
        }
        assert_eq!(class(Duration::ZERO), class(Duration::from_micros(1)));
        assert_eq!(class(Duration::MAX), CLASSES - 1);
    }

    #[test]
    fn percentiles_are_those_of_what_was_counted() {
        let mut spread = Counted(vec![0; CLASSES]);
        assert_eq!(spread.percentiles(), None);
        for ms in 1..=100 {
            spread.0[class(Duration::from_millis(ms))] += 1;
        }
        let seen = spread.percentiles().unwrap();
        assert_eq!(seen.count, 100);
        for (value, want) in [(seen.p50_ms, 50.0), (seen.p99_ms, 99.0), (seen.max_ms, 100.0)] {
            assert!(value >= want && value <= want * 1.126, "{value} for {want}");
        }
    }

    #[test]
    fn what_is_older_than_a_minute_does_not_count() {
        let (mut spread, mut recent) = (Counted(vec![0; CLASSES]), Recent::default());
        spread.0[class(Duration::from_secs(1))] += 1;
        for step in 0..7 {
            recent.look(Instant::from_millis(10_000 * step), || spread.clone());
            recent.look(Instant::from_millis(10_000 * step + 1), || unreachable!());
        }
        assert_eq!(recent.percentiles(&spread), None, "the slow one was there before the first look");
        spread.0[class(Duration::from_millis(1))] += 1;
        assert_eq!(recent.percentiles(&spread).map(|seen| seen.count), Some(1));
        for step in 7..14 {
            recent.look(Instant::from_millis(10_000 * step), || spread.clone());
        }
        assert_eq!(recent.percentiles(&spread), None);
    }
}
