//! What must be true, and for how long, before the gateway arms.
//!
//! Owns the clear timer and the checklist. Relies on `time`. Never arms: it answers questions of `core`.

use crate::time::{Duration, Instant};

/// While a fault flaps, clear time counts at a quarter of its speed (the refill rate of PX4's failsafe delay).
const FLAP_FACTOR: u32 = 4;

/// How long everything has been clear.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClearTimer {
    since: Option<Instant>,
    flapping: bool,
}

impl ClearTimer {
    /// Starts again, without a memory of flapping.
    pub const fn reset(&mut self) {
        self.since = None;
        self.flapping = false;
    }

    /// Takes one observation; returns whether everything has been clear for long enough.
    pub fn step(&mut self, now: Instant, clear: bool, limit: Duration) -> bool {
        if !clear {
            self.flapping |= self.since.take().is_some();
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let needed = if self.flapping { limit * FLAP_FACTOR } else { limit };
        now.since(since) >= needed
    }
}

macro_rules! checklist {
    ($($(#[$doc:meta])* $field:ident, $todo:literal;)*) => {
        /// What is needed to arm, each point answered now.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Checklist {
            $($(#[$doc])* pub $field: bool,)*
        }

        impl Checklist {
            /// Names of the points, in the order in which they are met.
            pub const NAMES: &[&str] = &[$(stringify!($field),)*];

            /// Each point: name, whether it is met, and what to do in the operator's words.
            pub fn points(&self) -> impl Iterator<Item = (&'static str, bool, &'static str)> {
                [$((stringify!($field), self.$field, $todo),)*].into_iter()
            }
        }
    };
}

checklist! {
    /// OCP is connected.
    link, "wait for the connection to OCP";
    /// No fault is present.
    no_fault, "clear the faults that are shown";
    /// No fault was present for the clear time.
    clear, "wait until everything has been clear for a moment";
    /// The session is steady: 50 valid messages at 20 Hz or more, and the operator's counter runs.
    session, "wait for a steady stream from the operator";
    /// The CAN bus proved ten safe frames.
    can, "wait for the CAN bus to confirm safe frames";
    /// Required feedback is fresh.
    feedback, "wait for the vehicle's feedback";
    /// The vehicle stands, or its speed is not known by configuration.
    standstill, "stop the vehicle";
    /// All mapped controls were at rest for long enough.
    neutral, "release sticks, pedals and triggers";
    /// The arm switch was seen released.
    released, "release the arm switch";
    /// The arm switch was held for long enough.
    held, "press and hold the arm switch";
}

impl Checklist {
    /// Everything up to and including standstill: the conditions of STANDBY.
    #[must_use]
    pub const fn standby(&self) -> bool {
        self.link
            && self.no_fault
            && self.clear
            && self.session
            && self.can
            && self.feedback
            && self.standstill
    }

    /// What to do next, in the operator's words; `None` where nothing is missing.
    #[must_use]
    pub fn next(&self) -> Option<&'static str> {
        self.points().find(|(_, met, _)| !met).map(|(_, _, todo)| todo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_27_a_flapping_fault_needs_four_times_as_long() {
        let limit = Duration::from_millis(1_000);
        let mut timer = ClearTimer::default();
        let at = Instant::from_millis;
        assert!(!timer.step(at(0), true, limit));
        assert!(timer.step(at(1_000), true, limit));
        timer.reset();
        assert!(!timer.step(at(2_000), true, limit));
        assert!(!timer.step(at(2_100), false, limit));
        assert!(!timer.step(at(2_200), true, limit));
        assert!(!timer.step(at(3_300), true, limit));
        assert!(!timer.step(at(6_199), true, limit));
        assert!(timer.step(at(6_200), true, limit));
    }

    #[test]
    fn the_checklist_tells_the_first_missing_point() {
        let mut list = Checklist { link: true, no_fault: true, clear: true, ..Checklist::default() };
        assert_eq!(list.next(), Some("wait for a steady stream from the operator"));
        assert!(!list.standby());
        list = Checklist { session: true, can: true, feedback: true, standstill: true, ..list };
        assert!(list.standby());
        assert_eq!(list.next(), Some("release sticks, pedals and triggers"));
    }
}
