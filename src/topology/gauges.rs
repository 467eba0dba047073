//! What the gateway measures about itself while it works: ages, rates and spreads, for whoever asks.
//!
//! Owns the atomics. Each is written by one thread with a plain store or add and read by anyone. Relies on nothing. Never
//! allocates, never waits, and nothing on the command path ever reads it.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::can::errorframe::ControllerState;
use crate::limits::{BUSES, OUT_MESSAGES};
use crate::nodes::spread::{CLASSES, Counted, class};
use crate::time::{Duration, Instant};

/// How often times of each length were seen.
#[derive(Debug)]
pub struct Spread {
    classes: [AtomicU32; CLASSES],
}

impl Default for Spread {
    fn default() -> Self {
        Self { classes: std::array::from_fn(|_| AtomicU32::new(0)) }
    }
}

impl Spread {
    /// Counts one time.
    pub fn note(&self, time: Duration) {
        if let Some(cell) = self.classes.get(class(time)) {
            cell.fetch_add(1, Relaxed);
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counted(&self) -> Counted {
        Counted(self.classes.iter().map(|cell| cell.load(Relaxed)).collect())
    }
}

/// What is measured about one bus. Frames are the can thread's, errors the watchdog's.
#[derive(Debug, Default)]
pub struct BusGauge {
    /// Frames seen, ours among them.
    pub frames: AtomicU64,
    /// Bits of them at the nominal bit rate, without stuff bits.
    pub nominal_bits: AtomicU64,
    /// Bits of them at the data bit rate of CAN FD.
    pub data_bits: AtomicU64,
    /// Frames lost in the kernel before they were read.
    pub lost: AtomicU64,
    /// The interface is there and up.
    pub up: AtomicBool,
    /// Error messages of the driver.
    pub errors: AtomicU64,
    /// What the controller last said of itself: 0 nothing, else [`ControllerState`] and 1.
    controller: AtomicU8,
    /// Its error counters, if the driver gives them: transmit, receive, and that they are known.
    counters: AtomicU32,
}

impl BusGauge {
    /// The controller told its state.
    pub fn set_controller(&self, state: Option<ControllerState>) {
        self.controller.store(state.map_or(0, |state| state as u8 + 1), Relaxed);
    }

    /// The state the controller last told.
    #[must_use]
    pub fn controller(&self) -> Option<ControllerState> {
        let number = self.controller.load(Relaxed).checked_sub(1)?;
        ControllerState::ALL.into_iter().find(|state| *state as u8 == number)
    }

    /// The driver told the error counters.
    pub fn set_counters(&self, transmit: u8, receive: u8) {
        self.counters.store(1 << 16 | u32::from(transmit) << 8 | u32::from(receive), Relaxed);
    }

    /// They are not known any more.
    pub fn forget_counters(&self) {
        self.counters.store(0, Relaxed);
    }

    /// The error counters as last told: transmit, receive.
    #[must_use]
    pub fn counters(&self) -> Option<(u8, u8)> {
        let [receive, transmit, known, _] = self.counters.load(Relaxed).to_le_bytes();
        (known != 0).then_some((transmit, receive))
    }
}

/// What is measured about one frame that the gateway sends. All of it is the watchdog's.
#[derive(Debug, Default)]
pub struct SendGauge {
    /// Frames that the interface took.
    pub written: AtomicU64,
    /// Frames that it did not take.
    pub refused: AtomicU64,
    /// Frames proven sent.
    pub confirmed: AtomicU64,
    confirmed_at_ns: AtomicU64,
    /// From one proof to the next.
    pub period: Spread,
}

impl SendGauge {
    /// A frame is proven sent.
    pub fn note_confirmed(&self, at: Instant) {
        self.confirmed.fetch_add(1, Relaxed);
        let before = self.confirmed_at_ns.swap(at.as_nanos().max(1), Relaxed);
        if before != 0 {
            self.period.note(at.since(Instant::from_nanos(before)));
        }
    }

    /// When a frame was last proven sent.
    #[must_use]
    pub fn confirmed_at(&self) -> Option<Instant> {
        match self.confirmed_at_ns.load(Relaxed) {
            0 => None,
            ns => Some(Instant::from_nanos(ns)),
        }
    }
}

/// A moment that one thread tells and others read.
#[derive(Debug, Default)]
pub struct Moment(AtomicU64);

impl Moment {
    /// It was now.
    pub fn set(&self, at: Option<Instant>) {
        self.0.store(at.map_or(0, |at| at.as_nanos().max(1)), Relaxed);
    }

    /// When it last was.
    #[must_use]
    pub fn get(&self) -> Option<Instant> {
        match self.0.load(Relaxed) {
            0 => None,
            ns => Some(Instant::from_nanos(ns)),
        }
    }
}

/// Whether the kernel gave what keeps the gateway in time. Told once, at the start.
#[derive(Debug, Default)]
pub struct RealTimeGauge {
    /// Threads that run at real-time priority.
    pub granted: AtomicU32,
    /// Threads that should and do not.
    pub refused: AtomicU32,
    /// Why, of the last one: an errno.
    pub refused_errno: AtomicI32,
    /// Memory: 0 nobody has asked, 1 locked, below 0 the negative errno.
    memory: AtomicI32,
}

impl RealTimeGauge {
    /// A thread has asked for its priority.
    pub fn note_thread(&self, result: Result<(), i32>) {
        match result {
            Ok(()) => drop(self.granted.fetch_add(1, Relaxed)),
            Err(errno) => {
                self.refused_errno.store(errno, Relaxed);
                self.refused.fetch_add(1, Relaxed);
            }
        }
    }

    /// Main has asked for locked memory.
    pub fn note_memory(&self, result: Result<(), i32>) {
        self.memory.store(result.map_or_else(|errno| -errno, |()| 1), Relaxed);
    }

    /// What came of it; none where nobody has asked.
    #[must_use]
    pub fn memory(&self) -> Option<Result<(), i32>> {
        match self.memory.load(Relaxed) {
            0 => None,
            1 => Some(Ok(())),
            errno => Some(Err(-errno)),
        }
    }
}

/// Everything that is measured.
#[derive(Debug)]
pub struct Gauges {
    /// One for each bus of the plan.
    pub buses: [BusGauge; BUSES],
    /// One for each frame of the plan.
    pub sends: [SendGauge; OUT_MESSAGES],
    /// The last valid message of OCP.
    pub message_at: Moment,
    /// When `ack_time` last advanced.
    pub ack_at: Moment,
    /// When the operator's counter last advanced.
    pub counter_at: Moment,
    /// `telemetry.latency`: from the operator's side to OCP's server in the vehicle.
    pub ocp_latency: Spread,
    /// From a message at our door to the proof that the next actuator frame has left.
    pub door_to_bus: Spread,
    /// Priority and memory.
    pub real_time: RealTimeGauge,
}

impl Default for Gauges {
    fn default() -> Self {
        Self {
            buses: Default::default(),
            sends: std::array::from_fn(|_| SendGauge::default()),
            message_at: Moment::default(),
            ack_at: Moment::default(),
            counter_at: Moment::default(),
            ocp_latency: Spread::default(),
            door_to_bus: Spread::default(),
            real_time: RealTimeGauge::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proofs_of_one_frame_give_its_period() {
        let gauge = SendGauge::default();
        assert_eq!(gauge.confirmed_at(), None);
        for ms in [100, 120, 140] {
            gauge.note_confirmed(Instant::from_millis(ms));
        }
        assert_eq!(gauge.confirmed_at(), Some(Instant::from_millis(140)));
        assert_eq!(gauge.period.counted().percentiles().map(|seen| seen.count), Some(2));
    }

    #[test]
    fn what_the_kernel_gave_is_read_back() {
        let gauge = RealTimeGauge::default();
        assert_eq!(gauge.memory(), None);
        gauge.note_memory(Err(12));
        assert_eq!(gauge.memory(), Some(Err(12)));
        gauge.note_memory(Ok(()));
        assert_eq!(gauge.memory(), Some(Ok(())));
        gauge.note_thread(Ok(()));
        gauge.note_thread(Err(1));
        assert_eq!((gauge.granted.load(Relaxed), gauge.refused.load(Relaxed)), (1, 1));
        assert_eq!(gauge.refused_errno.load(Relaxed), 1);
    }

    #[test]
    fn what_a_controller_tells_is_read_back() {
        let gauge = BusGauge::default();
        assert_eq!((gauge.controller(), gauge.counters()), (None, None));
        for state in ControllerState::ALL {
            gauge.set_controller(Some(state));
            assert_eq!(gauge.controller(), Some(state));
        }
        gauge.set_counters(0, 0);
        assert_eq!(gauge.counters(), Some((0, 0)));
        gauge.set_counters(255, 7);
        assert_eq!(gauge.counters(), Some((255, 7)));
        gauge.forget_counters();
        assert_eq!(gauge.counters(), None);
    }
}
