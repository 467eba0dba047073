//! When a frame that commands nobody goes out: a dashboard's, or one of a vehicle that is played.
//!
//! Owns the beat and the alive counter of one such frame, and the value that a signal of it shows. Relies on `signals` for
//! the plan. Never used for what the watchdog sends: there the echo decides as well.

use crate::signals::plan::{SendMode, SendPlan, SignalPlan};
use crate::signals::source::Reading;
use crate::time::Instant;

/// The beat of one frame.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    next_due: Instant,
    last_sent: Option<Instant>,
    /// What the next frame carries.
    pub counter: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { next_due: Instant::ZERO, last_sent: None, counter: 0 }
    }
}

impl Pace {
    /// When the frame is due: each period, and with `on_command` once something `newest` is there and the gap has passed.
    #[must_use]
    pub fn due(&self, mode: SendMode, newest: Option<Instant>) -> Instant {
        let SendMode::OnCommand { min_gap } = mode else { return self.next_due };
        let is_new = newest.is_some_and(|at| self.last_sent.is_none_or(|sent| at > sent));
        if !is_new {
            return self.next_due;
        }
        self.last_sent.map_or(Instant::ZERO, |sent| sent + min_gap).min(self.next_due)
    }

    /// The frame is withheld this time: the beat goes on, and the counter does not.
    pub fn skip(&mut self, now: Instant, plan: &SendPlan) {
        let kept = self.next_due + plan.period;
        self.next_due = if kept > now { kept.min(now + plan.period) } else { now + plan.period };
        self.last_sent = Some(now);
    }

    /// The frame was packed: the beat goes on where it was kept, and begins anew after a delay.
    pub fn advance(&mut self, now: Instant, plan: &SendPlan) {
        self.skip(now, plan);
        self.counter = plan.counter.map_or(0, |counter| counter.next(self.counter));
    }
}

/// What a signal shows: its value within the limits, or the rest value where there is none.
#[must_use]
pub fn shown(signal: &SignalPlan, reading: Reading) -> f64 {
    let value = signal.transform.apply(reading).unwrap_or(signal.safe);
    // A value beyond the display's range shows its end.
    let (low, high) = signal.codec.physical_range();
    value.clamp(signal.min.max(low), signal.max.min(high).max(signal.min.max(low)))
}
