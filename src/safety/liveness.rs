//! Whether the operator's stream is alive: progress, not traffic.
//!
//! Owns what is remembered about one OCP session: the run of valid messages, the advance of `ack_time`, the age of
//! messages by it, and the operator's counter. Relies on `faults` and `time`. Never sees a message that failed to
//! decode (the node calls [`Session::interrupt`]) and never measures silence (the core does, on its own clock).

use super::faults::{Fault, Faults};
use super::settings::SESSION_GAP;
use crate::signals::source::UserValue;
use crate::time::{Duration, Instant};

/// Seconds over which the smallest transit time is remembered. Two clocks that drift apart by 100 ppm move 3 ms
/// in this time, which is far below every staleness limit.
const WINDOW_S: usize = 30;

/// The largest step of the operator's counter that is alive: a Player at 100 Hz, seen through 250 ms of gap.
const COUNTER_STEP: f64 = 25.0;

/// What the session is worth at the newest message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Liveness {
    /// Counts connections and Streamer restarts; a command of another session is worthless.
    pub session: u32,
    /// Consecutive valid messages at 20 Hz or more whose `ack_time` rose.
    pub run: u32,
    /// When the message was read from the socket.
    pub received_at: Instant,
    /// How much longer it took than the fastest message of the last half minute.
    pub staleness: Duration,
    /// When `ack_time` last advanced.
    pub ack_changed_at: Instant,
    /// When the operator's counter last advanced.
    pub counter_alive_at: Option<Instant>,
}

/// The smallest value of the last half minute, in buckets of one second.
#[derive(Debug, Clone)]
struct SlidingMin {
    buckets: [(u64, i64); WINDOW_S],
}

impl SlidingMin {
    const EMPTY: Self = Self { buckets: [(u64::MAX, i64::MAX); WINDOW_S] };

    /// Adds a value and returns the smallest one of the window.
    fn add(&mut self, now: Instant, value: i64) -> i64 {
        let second = now.as_millis() / 1_000;
        let slot = usize::try_from(second % WINDOW_S as u64).unwrap_or(0);
        if let Some(bucket) = self.buckets.get_mut(slot) {
            *bucket = if bucket.0 == second { (second, bucket.1.min(value)) } else { (second, value) };
        }
        let oldest = second.saturating_sub(WINDOW_S as u64 - 1);
        self.buckets
            .iter()
            .filter(|(at, _)| *at >= oldest && *at <= second)
            .map(|(_, value)| *value)
            .min()
            .unwrap_or(value)
    }
}

/// One OCP session: from a connection, or from a restart of the Streamer behind it, to its end.
#[derive(Debug, Clone)]
pub struct Session {
    id: u32,
    run: u32,
    last_at: Option<Instant>,
    last_ack_ms: Option<u64>,
    ack_changed_at: Instant,
    transit_min: SlidingMin,
    staleness: Duration,
    counter: Option<f64>,
    counter_alive_at: Option<Instant>,
}

impl Session {
    /// The first session.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            id: 0,
            run: 0,
            last_at: None,
            last_ack_ms: None,
            ack_changed_at: Instant::ZERO,
            transit_min: SlidingMin::EMPTY,
            staleness: Duration::ZERO,
            counter: None,
            counter_alive_at: None,
        }
    }

    /// The number of this session.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Starts the next session: nothing of the old one counts.
    pub fn restart(&mut self) {
        let id = self.id.wrapping_add(1);
        *self = Self::new();
        self.id = id;
    }

    /// A message that does not count (fault, invalid): the run of valid messages starts again.
    pub const fn interrupt(&mut self) {
        self.run = 0;
    }

    /// Takes one valid message. `counter` is `None` where no operator counter is configured.
    ///
    /// Returns what the session is worth now and the faults that this very message shows.
    pub fn observe(
        &mut self,
        now: Instant,
        ack_ms: u64,
        counter: Option<(UserValue, Option<u32>)>,
    ) -> (Liveness, Faults) {
        let mut faults = Faults::NONE;
        if self.last_ack_ms.is_some_and(|last| ack_ms < last) {
            self.restart();
            faults.insert(Fault::AckBackwards);
        }
        let rose = self.last_ack_ms.is_none_or(|last| ack_ms > last);
        if rose {
            self.ack_changed_at = now;
            self.measure_age(now, ack_ms);
        }
        self.last_ack_ms = Some(ack_ms);
        if self.last_at.is_some_and(|last| now.since(last) > SESSION_GAP) {
            self.run = 0;
        }
        self.last_at = Some(now);
        if rose {
            self.run = self.run.saturating_add(1);
        }
        if let Some((value, modulo)) = counter
            && !self.observe_counter(now, value, modulo)
        {
            faults.insert(Fault::OperatorCounter);
        }
        if !faults.is_empty() {
            self.run = 0;
        }
        (
            Liveness {
                session: self.id,
                run: self.run,
                received_at: now,
                staleness: self.staleness,
                ack_changed_at: self.ack_changed_at,
                counter_alive_at: self.counter_alive_at,
            },
            faults,
        )
    }

    /// Age is judged only when `ack_time` changes: a repeated one is the freeze limit's business.
    fn measure_age(&mut self, now: Instant, ack_ms: u64) {
        let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        // Only differences of transit times are used, so a wrapped absolute value does no harm.
        let transit = now_ms.wrapping_sub(ack_ms.cast_signed());
        let fastest = self.transit_min.add(now, transit);
        let age = transit.saturating_sub(fastest).max(0);
        self.staleness = Duration::from_millis(age.unsigned_abs());
    }

    /// Whether the counter is plausible: the same again, or forward by 1 to 25.
    fn observe_counter(&mut self, now: Instant, value: UserValue, modulo: Option<u32>) -> bool {
        let UserValue::Number(next) = value else {
            // Absent from the start: the core waits for it. Absent after it was there: a fault.
            return self.counter.take().is_none();
        };
        let Some(last) = self.counter.replace(next) else {
            return true;
        };
        let mut step = next - last;
        if let Some(modulo) = modulo
            && step < 0.0
        {
            step += f64::from(modulo);
        }
        if step == 0.0 {
            return true;
        }
        let alive = (1.0..=COUNTER_STEP).contains(&step);
        if alive {
            self.counter_alive_at = Some(now);
        }
        alive
    }
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(1_000_000 + ms)
    }

    #[test]
    fn a_steady_stream_builds_a_run_and_is_not_stale() {
        let mut session = Session::new();
        for i in 0..60 {
            let (live, faults) = session.observe(at(i * 10), i * 10, None);
            assert!(faults.is_empty());
            assert_eq!(live.run, u32::try_from(i).unwrap() + 1);
            assert_eq!(live.staleness, Duration::ZERO);
        }
    }

    #[test]
    fn row_07_a_burst_after_a_stall_reads_as_old() {
        let mut session = Session::new();
        for i in 0..100 {
            session.observe(at(i * 10), i * 10, None);
        }
        // 2 s of silence, then 100 messages at once, stamped while the link was down.
        let mut stale = 0;
        for i in 100..200 {
            let (live, _) = session.observe(at(3_000), i * 10, None);
            if live.staleness > Duration::from_millis(100) {
                stale += 1;
            }
            assert!(live.run <= i as u32 - 99);
        }
        assert_eq!(stale, 100);
    }

    #[test]
    fn row_20_ack_time_going_back_is_a_new_session() {
        let mut session = Session::new();
        session.observe(at(0), 5_000, None);
        let (live, faults) = session.observe(at(10), 3, None);
        assert!(faults.contains(Fault::AckBackwards));
        assert_eq!((live.session, live.run), (1, 0));
    }

    #[test]
    fn row_22_acks_beyond_2_to_53_keep_their_millisecond() {
        let mut session = Session::new();
        let base = (1_u64 << 60) + 1;
        for i in 0..50 {
            let (live, faults) = session.observe(at(i), base + i, None);
            assert!(faults.is_empty());
            assert_eq!(live.ack_changed_at, at(i));
            assert_eq!(live.staleness, Duration::ZERO);
        }
        let (_, faults) = session.observe(at(60), u64::MAX, None);
        assert!(faults.is_empty());
    }

    #[test]
    fn a_gap_or_an_interruption_starts_the_run_again() {
        let mut session = Session::new();
        session.observe(at(0), 1, None);
        session.observe(at(10), 2, None);
        assert_eq!(session.observe(at(61), 3, None).0.run, 1);
        session.interrupt();
        assert_eq!(session.observe(at(71), 4, None).0.run, 1);
    }

    #[test]
    fn repeated_acks_neither_count_nor_break_the_run() {
        let mut session = Session::new();
        session.observe(at(0), 1, None);
        let (live, faults) = session.observe(at(10), 1, None);
        assert!(faults.is_empty());
        assert_eq!((live.run, live.ack_changed_at), (1, at(0)));
    }

    #[test]
    fn row_31_operator_counter_stuck_jumping_and_absent() {
        let number = |n: f64| Some((UserValue::Number(n), None));
        let mut session = Session::new();
        assert!(session.observe(at(0), 1, number(100.0)).1.is_empty());
        assert_eq!(session.observe(at(10), 2, number(100.0)).0.counter_alive_at, None);
        assert_eq!(session.observe(at(20), 3, number(125.0)).0.counter_alive_at, Some(at(20)));
        assert!(session.observe(at(30), 4, number(151.0)).1.contains(Fault::OperatorCounter));
        assert!(session.observe(at(40), 5, number(150.0)).1.contains(Fault::OperatorCounter));
        assert!(session.observe(at(50), 6, number(150.5)).1.contains(Fault::OperatorCounter));
        let missing = Some((UserValue::Missing, None));
        assert!(session.observe(at(60), 7, missing).1.contains(Fault::OperatorCounter));
        assert!(session.observe(at(70), 8, missing).1.is_empty(), "told once; the freeze limit goes on");
    }

    #[test]
    fn row_74_a_wrapping_operator_counter_is_alive_over_the_wrap() {
        let mut session = Session::new();
        let mut dead = 0;
        for i in 0_u32..600 {
            let value = UserValue::Number(f64::from(i % 256));
            let (_, faults) = session.observe(at(u64::from(i) * 10), u64::from(i), Some((value, Some(256))));
            dead += u32::from(!faults.is_empty());
        }
        assert_eq!(dead, 0);
    }

    #[test]
    fn slow_clock_drift_is_not_staleness() {
        let mut session = Session::new();
        for i in 0..120_000_u64 {
            // The Streamer's clock is 200 ppm slow: after 20 minutes it lags by 240 ms.
            let (live, _) = session.observe(at(i * 10), i * 10 - i * 10 / 5_000, None);
            assert!(live.staleness < Duration::from_millis(10), "{i}: {:?}", live.staleness);
        }
    }
}
