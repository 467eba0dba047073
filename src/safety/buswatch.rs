//! What is known about one CAN bus: up, listening, bus-off, restarts.
//!
//! Owns the state of the interface as the watchdog sees it. Relies on `faults` and `settings`. Never opens or
//! restarts anything: it says when a restart is due, the bring-up unit does it.

use super::faults::{Fault, Faults};
use super::settings::Settings;
use crate::time::{Duration, Instant};

/// A controller in bus-off rests at least this long before a restart is asked for (fault 53).
const RESTART_REST: Duration = Duration::from_millis(100);

/// A restart that nobody carried out is asked for again: whoever does it may have been away, and a bus that stays off for
/// want of one lost request needs a person. Longer than the bring-up unit takes to take a link down and up.
const RESTART_AGAIN: Duration = Duration::from_secs(5);

/// More restarts than this within a minute are evidence of a broken bus (fault 53).
const RESTARTS_PER_MINUTE: usize = 3;

/// After a restart the first frame must be echoed within this time (fault 54).
const RESTART_PROOF: Duration = Duration::from_secs(1);

/// What the watchdog's socket reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusEvent {
    /// The socket is open and the interface is up. `proof` is false where the interface cannot prove that frames
    /// leave although the configuration demands it.
    Up {
        /// Whether the echo counts as proof.
        proof: bool,
    },
    /// The interface is down.
    Down,
    /// The interface is gone; the socket must be opened anew.
    Gone,
    /// The driver reports bus-off.
    BusOff,
    /// The driver reports that the controller was restarted.
    Restarted,
}

/// One bus.
#[derive(Debug, Clone)]
pub struct BusWatch {
    up_since: Option<Instant>,
    listening: bool,
    proof: bool,
    bus_off_at: Option<Instant>,
    /// When a restart was last asked for in this bus-off.
    restart_asked_at: Option<Instant>,
    restarts: heapless::Deque<Instant, 8>,
    /// No echo since the last restart.
    restart_unproven: bool,
    broken: Faults,
}

impl BusWatch {
    /// A bus that has not been seen yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            up_since: None,
            listening: true,
            proof: true,
            bus_off_at: None,
            restart_asked_at: None,
            restarts: heapless::Deque::new(),
            restart_unproven: false,
            broken: Faults::NONE,
        }
    }

    /// Takes an event. Returns whether frames in flight on this bus are lost.
    pub fn handle(&mut self, now: Instant, event: BusEvent) -> bool {
        match event {
            BusEvent::Up { proof } => {
                if self.up_since.is_none() {
                    self.up_since = Some(now);
                }
                self.proof = proof;
                false
            }
            BusEvent::Down | BusEvent::Gone => {
                self.up_since = None;
                // A link that was taken down and up is a restarted controller.
                if self.bus_off_at.take().is_some() {
                    self.note_restart(now);
                }
                true
            }
            BusEvent::BusOff => {
                if self.bus_off_at.is_none() {
                    self.bus_off_at = Some(now);
                    self.restart_asked_at = None;
                }
                true
            }
            BusEvent::Restarted => {
                if self.bus_off_at.take().is_some() {
                    self.note_restart(now);
                }
                true
            }
        }
    }

    /// Restarts older than a minute no longer count.
    fn forget_old_restarts(&mut self, now: Instant) {
        while self.restarts.front().is_some_and(|at| now.since(*at) > Duration::from_secs(60)) {
            self.restarts.pop_front();
        }
    }

    fn note_restart(&mut self, now: Instant) {
        self.forget_old_restarts(now);
        if self.restarts.is_full() {
            self.restarts.pop_front();
        }
        // The queue was just given room.
        let _ = self.restarts.push_back(now);
        if self.restarts.len() > RESTARTS_PER_MINUTE {
            self.broken.insert(Fault::BusOffRepeated);
        }
        self.restart_unproven = true;
    }

    /// An echo proves that the bus works.
    pub const fn handle_echo(&mut self) {
        self.restart_unproven = false;
    }

    /// Whether frames may be written: up, not in bus-off, and listened to for long enough.
    pub fn ready(&mut self, now: Instant, settings: &Settings) -> bool {
        let Some(since) = self.up_since else { return false };
        if self.listening {
            if now.since(since) < settings.listen {
                return false;
            }
            self.listening = false;
        }
        self.bus_off_at.is_none()
    }

    /// Whether frames may be written, without a change of state.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.up_since.is_some() && !self.listening && self.bus_off_at.is_none()
    }

    /// The faults of this bus now. `unproven_since` is when the oldest frame without proof was handed over.
    pub fn faults(&mut self, now: Instant, settings: &Settings, unproven_since: Option<Instant>) -> Faults {
        let mut faults = self.broken;
        self.broken = Faults::NONE;
        faults.insert_if(self.up_since.is_none(), Fault::BusDown);
        faults.insert_if(self.bus_off_at.is_some(), Fault::BusOff);
        faults.insert_if(!self.proof, Fault::NoProof);
        if self.is_ready()
            && let Some(since) = unproven_since
        {
            faults.insert_if(now.since(since) >= settings.echo, Fault::EchoLost);
            // Counted from the first frame after the restart: the link may have come up long after it.
            let after_restart = self.restart_unproven && now.since(since) >= RESTART_PROOF;
            let dead = now.since(since) >= settings.can_dead || after_restart;
            faults.insert_if(dead, Fault::CanDead);
        }
        faults
    }

    /// Whether a restart must be asked for now: after a rest, and again every five seconds until it is done. What is asked for
    /// and not carried out is no restart, and does not count as one.
    pub fn poll_restart(&mut self, now: Instant) -> bool {
        self.forget_old_restarts(now);
        let rested = self.bus_off_at.is_some_and(|at| now.since(at) >= RESTART_REST);
        let due = self.restart_asked_at.is_none_or(|at| now.since(at) >= RESTART_AGAIN);
        let ask = rested && due && self.restarts.len() <= RESTARTS_PER_MINUTE;
        if ask {
            self.restart_asked_at = Some(now);
        }
        ask
    }

    /// Whether the interface is there and up.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.up_since.is_some()
    }
}

impl Default for BusWatch {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(10_000 + ms)
    }

    fn up() -> BusWatch {
        let mut bus = BusWatch::new();
        bus.handle(at(0), BusEvent::Up { proof: true });
        assert!(bus.ready(at(100), &Settings::default()));
        bus
    }

    #[test]
    fn a_bus_is_listened_to_before_the_first_frame_and_only_once() {
        let settings = Settings::default();
        let mut bus = BusWatch::new();
        assert!(!bus.ready(at(0), &settings));
        bus.handle(at(10), BusEvent::Up { proof: true });
        assert!(!bus.ready(at(109), &settings));
        assert!(bus.ready(at(110), &settings));
        bus.handle(at(120), BusEvent::Down);
        assert!(!bus.ready(at(121), &settings));
        bus.handle(at(130), BusEvent::Up { proof: true });
        assert!(bus.ready(at(130), &settings), "after a link flap the safe frame comes first, at once");
    }

    #[test]
    fn row_52_and_54_a_missing_echo_trips_and_after_a_restart_counts_as_dead() {
        let settings = Settings::default();
        let mut bus = up();
        assert!(bus.faults(at(149), &settings, Some(at(100))).is_empty());
        assert!(bus.faults(at(150), &settings, Some(at(100))).contains(Fault::EchoLost));
        assert!(!bus.faults(at(5_000), &settings, Some(at(100))).contains(Fault::CanDead));
        assert!(bus.faults(at(10_100), &settings, Some(at(100))).contains(Fault::CanDead));

        let mut bus = up();
        bus.handle(at(200), BusEvent::BusOff);
        assert!(bus.faults(at(200), &settings, None).contains(Fault::BusOff));
        bus.handle(at(400), BusEvent::Restarted);
        assert!(!bus.faults(at(900), &settings, Some(at(400))).contains(Fault::CanDead));
        assert!(bus.faults(at(1_400), &settings, Some(at(400))).contains(Fault::CanDead));
        bus.handle_echo();
        assert!(!bus.faults(at(1_500), &settings, Some(at(1_450))).contains(Fault::CanDead));
    }

    #[test]
    fn row_53_restart_is_asked_for_after_100_ms_once_and_three_times_a_minute() {
        let settings = Settings::default();
        let mut bus = up();
        let mut asked = 0;
        for i in 0..5 {
            let t = 1_000 * (i + 1);
            bus.handle(at(t), BusEvent::BusOff);
            assert!(!bus.poll_restart(at(t + 99)));
            asked += u32::from(bus.poll_restart(at(t + 100)));
            assert!(!bus.poll_restart(at(t + 101)), "asked once");
            bus.handle(at(t + 200), BusEvent::Restarted);
            let repeated = bus.faults(at(t + 200), &settings, None).contains(Fault::BusOffRepeated);
            assert_eq!(repeated, i >= 3, "{i}");
        }
        assert_eq!(asked, 4, "three restarts, and the fourth that ends in LOCKOUT");
    }

    #[test]
    fn row_53_a_restart_that_nobody_carries_out_is_asked_for_again() {
        let mut bus = up();
        bus.handle(at(1_000), BusEvent::BusOff);
        assert!(bus.poll_restart(at(1_100)));
        assert!(!bus.poll_restart(at(6_099)));
        for again in 1..20 {
            assert!(bus.poll_restart(at(1_100 + again * 5_000)), "{again}");
            assert!(!bus.poll_restart(at(1_101 + again * 5_000)), "{again}");
        }
        bus.handle(at(110_000), BusEvent::Restarted);
        assert!(!bus.poll_restart(at(116_000)), "it was done");
        bus.handle(at(120_000), BusEvent::BusOff);
        assert!(!bus.poll_restart(at(120_099)), "a new bus-off rests first");
        assert!(bus.poll_restart(at(120_100)));
    }

    #[test]
    fn row_65_an_interface_without_proof_is_a_fault() {
        let mut bus = BusWatch::new();
        bus.handle(at(0), BusEvent::Up { proof: false });
        assert!(bus.faults(at(1), &Settings::default(), None).contains(Fault::NoProof));
    }
}
