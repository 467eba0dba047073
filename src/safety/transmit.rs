//! When each frame goes out, with which counter and checksum, and what proves that it left.
//!
//! Owns the schedule, the alive counters, the one frame in flight per id, and the echo bookkeeping. Relies on
//! `signals` for the codecs. Never decides a value: it packs what the envelope says.

use super::envelope::{Envelope, is_actuator};
use crate::can::Frame;
use crate::signals::pack::{self, PackError};
use crate::signals::plan::{Plan, SendMode, SendPlan};
use crate::time::{Duration, Instant};

/// What became of a frame handed to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Taken by the kernel.
    Accepted,
    /// The queue is full: the frame was not taken; the newest one is offered again at the next step.
    Full,
    /// The interface is down, gone, or refused it.
    Failed,
}

/// What the transmit side knows about one frame.
#[derive(Debug, Clone)]
struct Slot {
    plan: SendPlan,
    actuator: bool,
    next_due: Instant,
    last_sent: Option<Instant>,
    counter: u32,
    in_flight: Option<(Instant, Frame)>,
    /// Since when a frame waits for its proof: refused by the kernel or not echoed.
    unproven_since: Option<Instant>,
    last_echo: Option<Instant>,
    safe_echoes: u32,
    in_flight_safe: bool,
    /// A trip: at the next chance, whatever period and gap say.
    urgent: bool,
    /// A new command in `on_command` mode: once the gap has passed.
    requested: bool,
}

impl Slot {
    /// When the frame is due, its echo aside.
    fn due(&self, now: Instant) -> Instant {
        if self.urgent {
            return now.min(self.next_due);
        }
        match self.plan.mode {
            SendMode::OnCommand { min_gap } if self.requested => {
                let after_gap = self.last_sent.map_or(now, |sent| sent + min_gap);
                after_gap.min(self.next_due)
            }
            _ => self.next_due,
        }
    }
}

/// The transmit side of all sent frames.
#[derive(Debug, Clone)]
pub struct Transmitter {
    slots: Vec<Slot>,
}

/// A frame to write now.
#[derive(Debug, Clone, Copy)]
pub struct Transmission {
    /// Index into [`Plan::send`].
    pub message: usize,
    /// Index into [`Plan::buses`].
    pub bus: usize,
    /// The frame.
    pub frame: Frame,
    /// The alive counter it carries.
    pub counter: u32,
    /// Whether it holds safe values or a stop profile, that is, was packed outside ARMED.
    pub safe: bool,
}

impl Transmitter {
    /// Nothing sent yet; the counters start where `counters` says (a restart continues them).
    #[must_use]
    pub fn new(plan: &Plan, counters: &[u32]) -> Self {
        let slots = plan
            .send
            .iter()
            .enumerate()
            .map(|(index, send)| Slot {
                actuator: is_actuator(send),
                next_due: Instant::ZERO,
                last_sent: None,
                // What a process with another configuration left behind must still fit.
                counter: counters
                    .get(index)
                    .zip(send.counter)
                    .map_or(0, |(last, plan)| last % plan.modulo.max(1)),
                in_flight: None,
                unproven_since: None,
                last_echo: None,
                safe_echoes: 0,
                in_flight_safe: false,
                urgent: false,
                requested: false,
                plan: send.clone(),
            })
            .collect();
        Self { slots }
    }

    /// Number of frames.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether nothing is sent at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Every frame goes out at the next chance, whatever its period says (a trip).
    pub fn hurry(&mut self) {
        for slot in &mut self.slots {
            slot.urgent = true;
        }
    }

    /// A new command arrived: frames in `on_command` mode go out once their gap has passed.
    pub fn on_command(&mut self) {
        for slot in &mut self.slots {
            slot.requested |= matches!(slot.plan.mode, SendMode::OnCommand { .. });
        }
    }

    /// Forgets what was in flight on a bus that went down: nothing comes back from there.
    pub fn bus_lost(&mut self, bus: usize) {
        for slot in self.slots.iter_mut().filter(|slot| slot.plan.bus == bus) {
            slot.in_flight = None;
            slot.unproven_since = None;
            slot.safe_echoes = 0;
            slot.last_echo = None;
        }
    }

    /// Whether this frame may be written now.
    fn is_due(slot: &Slot, now: Instant, echo_limit: Duration) -> bool {
        if let Some((since, _)) = slot.in_flight
            && now.since(since) < echo_limit
        {
            return false;
        }
        now >= slot.due(now)
    }

    /// The next frame to write at or after index `from`, packed with the envelope's values.
    ///
    /// # Errors
    /// `(message, PackError::Check)` where the packed frame does not decode to the values that were meant.
    pub fn poll(
        &self,
        from: usize,
        now: Instant,
        echo_limit: Duration,
        envelope: &Envelope,
        enable: Enable,
        bus_ready: impl Fn(usize) -> bool,
    ) -> Result<Option<Transmission>, (usize, PackError)> {
        for (message, slot) in self.slots.iter().enumerate().skip(from) {
            if !bus_ready(slot.plan.bus) || !Self::is_due(slot, now, echo_limit) {
                continue;
            }
            let frame =
                pack::frame(&slot.plan, slot.counter, enable.bit(&slot.plan), || envelope.values(message))
                    .map_err(|error| (message, error))?;
            // Outside ARMED the envelope gives safe values and stop profiles only.
            let safe = enable != Enable::On;
            return Ok(Some(Transmission {
                message,
                bus: slot.plan.bus,
                frame,
                counter: slot.counter,
                safe,
            }));
        }
        Ok(None)
    }

    /// Takes the result of writing a frame.
    pub fn handle_written(&mut self, now: Instant, sent: &Transmission, written: Written) {
        let Some(slot) = self.slots.get_mut(sent.message) else { return };
        match written {
            Written::Accepted => {
                slot.counter = slot.plan.counter.map_or(slot.counter, |plan| plan.next(slot.counter));
                if slot.in_flight.is_some() {
                    // The frame before was given up without an echo: the row of proven frames is broken.
                    slot.safe_echoes = 0;
                }
                slot.in_flight = Some((now, sent.frame));
                slot.in_flight_safe = sent.safe;
                slot.last_sent = Some(now);
                slot.urgent = false;
                slot.requested = false;
                // Keep the beat where it was kept; after a delay start a new one instead of catching up.
                let kept = slot.next_due + slot.plan.period;
                slot.next_due =
                    if kept > now { kept.min(now + slot.plan.period) } else { now + slot.plan.period };
            }
            Written::Full | Written::Failed => slot.safe_echoes = 0,
        }
        if slot.unproven_since.is_none() {
            slot.unproven_since = Some(now);
        }
    }

    /// Takes an echo. Returns the message it proves, with the time it was in flight and whether it was safe; `None`
    /// where no such frame is in flight (a late echo).
    pub fn handle_echo(
        &mut self,
        now: Instant,
        bus: usize,
        frame: &Frame,
    ) -> Option<(usize, Duration, bool)> {
        let (message, slot) = self.slots.iter_mut().enumerate().find(|(_, slot)| {
            slot.plan.bus == bus && slot.in_flight.as_ref().is_some_and(|(_, sent)| same(sent, frame))
        })?;
        let (since, _) = slot.in_flight.take()?;
        slot.unproven_since = None;
        slot.last_echo = Some(now);
        slot.safe_echoes = if slot.in_flight_safe { slot.safe_echoes.saturating_add(1) } else { 0 };
        Some((message, now.since(since), slot.in_flight_safe))
    }

    /// Since when the oldest frame of this bus waits for its proof.
    #[must_use]
    pub fn unproven(&self, bus: usize) -> Option<Instant> {
        self.slots.iter().filter(|slot| slot.plan.bus == bus).filter_map(|slot| slot.unproven_since).min()
    }

    /// The fewest consecutive echoed safe frames of any actuator frame; of any frame where none is an actuator's.
    #[must_use]
    pub fn safe_echoes(&self) -> u32 {
        let fewest = |wanted: fn(&Slot) -> bool| {
            self.slots.iter().filter(|slot| wanted(slot)).map(|slot| slot.safe_echoes).min()
        };
        fewest(|slot| slot.actuator).or_else(|| fewest(|_| true)).unwrap_or(0)
    }

    /// Starts counting safe echoes anew (the proof for the next arming must be newer than the last trip).
    pub fn forget_safe_echoes(&mut self) {
        for slot in &mut self.slots {
            slot.safe_echoes = 0;
        }
    }

    /// Whether this frame belongs to an actuator.
    #[must_use]
    pub fn is_actuator(&self, message: usize) -> bool {
        self.slots.get(message).is_some_and(|slot| slot.actuator)
    }

    /// The alive counters, for the supervisor that sends safe frames after this process.
    pub fn counters(&self) -> impl Iterator<Item = u32> {
        self.slots.iter().map(|slot| slot.counter)
    }

    /// When the next frame is due on a bus that can take it, for the thread that waits.
    #[must_use]
    pub fn next_due(
        &self,
        now: Instant,
        echo_limit: Duration,
        bus_ready: impl Fn(usize) -> bool,
    ) -> Option<Instant> {
        self.slots
            .iter()
            .filter(|slot| bus_ready(slot.plan.bus))
            .map(|slot| {
                let due = slot.due(now);
                slot.in_flight.map_or(due, |(since, _)| due.max(since + echo_limit))
            })
            .min()
    }

    /// Whether a frame waits for its echo.
    #[must_use]
    pub fn any_in_flight(&self) -> bool {
        self.slots.iter().any(|slot| slot.in_flight.is_some())
    }
}

/// What the enable bits say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enable {
    /// 0.
    Off,
    /// What each message's plan says for STOPPING.
    Stopping,
    /// 1.
    On,
}

impl Enable {
    /// The enable bit of this frame; false where it has none.
    fn bit(self, plan: &SendPlan) -> bool {
        plan.enable.is_some_and(|enable| match self {
            Self::Off => false,
            Self::Stopping => enable.stop,
            Self::On => true,
        })
    }
}

/// Whether an echo is the frame that was sent; bit-rate and error-state flags of the driver do not matter.
fn same(sent: &Frame, echo: &Frame) -> bool {
    sent.id() == echo.id() && sent.payload() == echo.payload()
}
