//! A list of measured times and how it is printed.
//!
//! Owns percentiles by nearest rank. Relies on nothing. Never drops a sample.

use std::time::Duration;

/// Measured times.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    ns: Vec<u64>,
}

impl Samples {
    /// Room for that many.
    pub fn with_capacity(n: usize) -> Self {
        Self { ns: Vec::with_capacity(n) }
    }

    /// Adds one.
    pub fn push(&mut self, time: Duration) {
        self.ns.push(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds all of another list.
    pub fn extend(&mut self, other: &Self) {
        self.ns.extend_from_slice(&other.ns);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ns.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ns.is_empty()
    }

    /// The value that `thousandths` of the samples do not exceed (nearest rank), in microseconds.
    pub fn us(&self, thousandths: usize) -> f64 {
        let mut sorted = self.ns.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * thousandths).div_ceil(1_000).saturating_sub(1);
        sorted.get(rank).map_or(f64::NAN, |ns| micros(*ns))
    }

    /// p50, p99, p99.9 and the largest, in microseconds, as columns.
    pub fn columns(&self) -> String {
        format!(
            "{:>9.1} {:>9.1} {:>9.1} {:>9.1}   n={}",
            self.us(500),
            self.us(990),
            self.us(999),
            self.us(1_000),
            self.len()
        )
    }
}

/// Nanoseconds as microseconds.
#[allow(clippy::cast_precision_loss, reason = "times of a bench are far below 2^53 ns")]
fn micros(ns: u64) -> f64 {
    ns as f64 / 1e3
}

/// The head of [`Samples::columns`].
pub const HEAD: &str = "p50 us    p99 us  p99.9 us    max us";

/// "reached" or "missed".
pub const fn verdict(reached: bool) -> &'static str {
    if reached { "reached" } else { "missed" }
}
