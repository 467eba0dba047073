//! The frames that a simulated car sends in the place of a vehicle.
//!
//! Owns their beat and their counters. Relies on the mapping of `signals` and on [`CarSample`]. Never sends a frame while
//! the car is stale, or with a value that is not known and has no `safe`: a receiver sees then what it sees of an ECU that has fallen silent, and not a vehicle that seems to
//! stand.

use crate::can::Frame;
use crate::nodes::pace::{Pace, shown};
use crate::signals::car::{CarSample, Value};
use crate::signals::pack;
use crate::signals::plan::{SendPlan, SignalPlan};
use crate::signals::source::{Reading, Source};
use crate::time::{Duration, Instant};

/// The frames of one simulated car.
#[derive(Debug)]
pub struct StandIn {
    pub(super) frames: Vec<(SendPlan, Pace, Vec<f64>)>,
    stale_after: Duration,
}

impl StandIn {
    /// Nothing sent yet.
    #[must_use]
    pub fn new(plans: Vec<SendPlan>, stale_after: Duration) -> Self {
        let frame = |plan: SendPlan| {
            let values = plan.signals.iter().map(|signal| signal.safe).collect();
            (plan, Pace::default(), values)
        };
        Self { frames: plans.into_iter().map(frame).collect(), stale_after }
    }

    /// The next frame that is due, at or after index `from`: its index, its bus, the frame. None while the car is stale.
    pub fn poll(
        &mut self,
        now: Instant,
        from: usize,
        sample: Option<&CarSample>,
    ) -> Option<(usize, usize, Frame)> {
        let sample = sample.filter(|sample| sample.is_fresh(now, self.stale_after))?;
        for (at, (plan, pace, values)) in self.frames.iter_mut().enumerate().skip(from) {
            if now < pace.due(plan.mode, Some(sample.at)) {
                continue;
            }
            let mut is_known = true;
            for (value, signal) in values.iter_mut().zip(&plan.signals) {
                let reading = read(signal, sample);
                // Without a `safe` of its own, what is not known is not made up.
                is_known &= !(reading == Reading::Missing && signal.safe.is_nan());
                *value = shown(signal, reading);
            }
            if !is_known {
                pace.skip(now, plan);
                continue;
            }
            let packed =
                pack::frame(plan, pace.counter, false, || plan.signals.iter().zip(values.iter().copied()));
            pace.advance(now, plan);
            // `config` lets no plan through whose values do not fit.
            if let Ok(frame) = packed {
                return Some((at, plan.bus, frame));
            }
        }
        None
    }

    /// When the next frame is due; `None` while there is nothing to send.
    #[must_use]
    pub fn poll_timeout(&self, now: Instant, sample: Option<&CarSample>) -> Option<Instant> {
        let sample = sample.filter(|sample| sample.is_fresh(now, self.stale_after))?;
        self.frames.iter().map(|(plan, pace, _)| pace.due(plan.mode, Some(sample.at))).min()
    }
}

fn read(signal: &SignalPlan, sample: &CarSample) -> Reading {
    match signal.source {
        Source::Constant(value) => Reading::Number(value),
        Source::Car(number) => Value::from_number(number)
            .and_then(|value| sample.get(value))
            .map_or(Reading::Missing, Reading::Number),
        _ => Reading::Missing,
    }
}
