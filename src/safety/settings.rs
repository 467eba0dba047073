//! The time constants of the safety core, each with its bounds.
//!
//! Owns the numbers and the table that says what they may be. Relies on `time`. Zero never means "off": every lower
//! bound is above zero.

use crate::time::Duration;

/// One time constant that the configuration may set.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// Key in the `[safety]` table, unit included.
    pub key: &'static str,
    /// Value without a key in the file.
    pub default_ms: u32,
    /// Smallest allowed value.
    pub min_ms: u32,
    /// Largest allowed value.
    pub max_ms: u32,
    /// What the time is for, as `check` prints it.
    pub meaning: &'static str,
}

macro_rules! settings {
    ($($(#[$doc:meta])* $field:ident, $key:literal, $default:literal, $min:literal ..= $max:literal, $meaning:literal;)*) => {
        /// The time constants, each within its [`Bound`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct Settings {
            $($(#[$doc])* pub $field: Duration,)*
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($field: Duration::from_millis($default),)* }
            }
        }

        /// Every time constant with its bounds, in the order of the file.
        pub const BOUNDS: &[Bound] = &[
            $(Bound { key: $key, default_ms: $default, min_ms: $min, max_ms: $max, meaning: $meaning },)*
        ];

        impl Settings {
            /// Sets the constant with this key; `None` where no such key exists. Bounds are the caller's duty
            /// (`config` reports every violation at once).
            pub fn set_ms(&mut self, key: &str, ms: u32) -> Option<()> {
                match key {
                    $($key => self.$field = Duration::from_millis(u64::from(ms)),)*
                    _ => return None,
                }
                Some(())
            }

            /// The value of the constant with this key.
            #[must_use]
            pub fn of(&self, key: &str) -> Option<Duration> {
                match key {
                    $($key => Some(self.$field),)*
                    _ => None,
                }
            }
        }
    };
}

// Defaults and bounds: SAFETY.md section 4; bounds of the others are half to about four
// times the default unless a line says why not.
settings! {
    /// OCP repeats every 20 ms, so this is five missed repeats.
    ocp_silence, "ocp_silence_ms", 100, 40..=250, "no OCP message";
    /// Age of the newest message by its `ack_time`.
    stale, "stale_ms", 100, 50..=250, "message older than this by its ack_time";
    /// A dead Streamer core, or a replay.
    ack_freeze, "ack_freeze_ms", 250, 100..=500, "ack_time does not advance";
    /// Replaces OCP's own 1,000 ms where the operator sends a counter.
    operator_freeze, "operator_freeze_ms", 250, 100..=500, "operator counter does not advance";
    /// Above this latency throttle is scaled down.
    latency_warn, "latency_warn_ms", 200, 50..=400, "latency above which throttle is reduced";
    /// Above this latency the gateway trips.
    latency_stop, "latency_stop_ms", 500, 100..=500, "latency above which it trips";
    /// Our answer is not taken by the kernel: the peer does not read.
    reply, "reply_ms", 50, 20..=200, "our reply waits in front of the socket";
    /// Up and accepting frames, and nothing echoed: by then it is no cable that is plugged in again.
    can_dead, "can_dead_ms", 10_000, 2_000..=60_000, "no echo at all before the bus counts as dead";
    /// A message that arrives in drips.
    frame_assembly, "frame_assembly_ms", 50, 20..=200, "one message takes this long to arrive";
    /// Cut cable, bus-off, dead driver.
    echo, "echo_ms", 50, 10..=100, "a sent frame is not echoed";
    /// A reader thread that does not come round: its waits are 20 ms at most.
    thread_stall, "thread_stall_ms", 50, 30..=100, "a reader thread does not run";
    /// The watchdog itself was not run for this long (SIGSTOP, starvation).
    own_gap, "own_gap_ms", 50, 25..=100, "the watchdog thread itself was not run";
    /// Every trip source clear for this long before anything else counts.
    clear, "clear_ms", 1_000, 500..=5_000, "everything clear before arming can begin";
    /// All mapped axes at rest for this long.
    neutral, "neutral_ms", 500, 250..=2_000, "controls at rest before arming";
    /// The arm switch held for this long.
    hold, "hold_ms", 1_000, 500..=3_000, "arm switch held";
    /// Half slew limits after arming.
    transition, "transition_ms", 2_000, 500..=5_000, "half slew limits after arming";
    /// Longest time in STOPPING.
    stopping, "stopping_ms", 5_000, 500..=30_000, "longest stop profile";
    /// A foreign writer would show itself within this time after a bus opens.
    listen, "listen_ms", 100, 50..=1_000, "listen for other writers before the first frame";
    /// Feedback that contradicts a command for this long.
    contradiction, "contradiction_ms", 300, 100..=1_000, "feedback contradicts the command";
}

/// Consecutive valid messages of one session before it counts (at 20 Hz or faster).
pub const SESSION_MESSAGES: u32 = 50;

/// Safe frames with an echo, per actuator frame, before arming.
pub const SAFE_FRAMES: u32 = 10;

/// The longest gap between two messages of a session that counts as 20 Hz.
pub const SESSION_GAP: Duration = Duration::from_millis(50);

/// Largest distance from rest that is neutral: sticks, normalised.
pub const NEUTRAL_STICK: f64 = 0.05;

/// Largest distance from rest that is neutral: triggers and levers, normalised.
pub const NEUTRAL_TRIGGER: f64 = 0.02;

/// Smallest and largest period of an actuator frame in milliseconds.
pub const PERIOD_MS: (u32, u32) = (5, 50);

/// Arms within one minute that end in LOCKOUT: default and bounds (the key is `arms_per_minute`).
pub const ARMS_PER_MINUTE: (u32, u32, u32) = (10, 3, 15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_lies_within_its_bounds_and_zero_never_does() {
        let settings = Settings::default();
        for bound in BOUNDS {
            assert!(bound.min_ms > 0, "{}", bound.key);
            assert!((bound.min_ms..=bound.max_ms).contains(&bound.default_ms), "{}", bound.key);
            assert_eq!(settings.of(bound.key), Some(Duration::from_millis(u64::from(bound.default_ms))));
        }
    }
}
