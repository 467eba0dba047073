//! Which car of a server is ours, and whether its updates mean anything.
//!
//! Owns the slot, the driver's presence and his laps. Relies on nothing but events. Never takes a slot for our driver's
//! whose driver is not known, unless the slot itself was configured.

use crate::proto::assetto::{CarUpdate, Event, Text};
use crate::signals::car::{CarSample, Value, WantedCar};

/// Whether our driver is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// Nothing was told: this program may have come later than the driver, so updates count.
    Unknown,
    /// The driver left.
    Gone,
    /// Connected, and loading the track: updates mean nothing yet.
    Loading,
    /// On the track.
    Loaded,
}

/// The laps of our driver since the session began, or since this program came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Laps {
    count: u32,
    last_ms: Option<u32>,
    best_ms: Option<u32>,
}

impl Laps {
    /// Puts them where they are read.
    pub(super) fn fill(&self, sample: &mut CarSample) {
        sample.set(Value::LapCount, f64::from(self.count));
        for (value, ms) in [(Value::LastLapMs, self.last_ms), (Value::BestLapMs, self.best_ms)] {
            sample.set(value, ms.map_or(f64::NAN, f64::from));
        }
    }
}

/// Our car on a server.
#[derive(Debug)]
pub(super) struct Follow {
    wanted: WantedCar,
    slot: Option<u8>,
    presence: Presence,
    laps: Laps,
    has_new_laps: bool,
}

impl Follow {
    /// Nothing known yet but what is wanted.
    pub(super) fn new(wanted: WantedCar) -> Self {
        let slot = if let WantedCar::Slot(slot) = wanted { Some(slot) } else { None };
        Self { wanted, slot, presence: Presence::Unknown, laps: Laps::default(), has_new_laps: false }
    }

    pub(super) const fn slot(&self) -> Option<u8> {
        self.slot
    }

    pub(super) const fn presence(&self) -> Presence {
        self.presence
    }

    pub(super) const fn laps(&self) -> Laps {
        self.laps
    }

    /// The laps, where the event before changed them.
    pub(super) fn news_of_laps(&mut self) -> Option<Laps> {
        core::mem::take(&mut self.has_new_laps).then_some(self.laps)
    }

    /// Whether an answer about the cars could say more than is known.
    pub(super) fn is_to_be_found(&self) -> bool {
        self.slot.is_none() || self.presence != Presence::Loaded
    }

    /// Takes an event; an update where it is one of our car and means something.
    pub(super) fn handle_event(&mut self, event: &Event<'_>) -> Option<CarUpdate> {
        match event {
            Event::CarUpdate(update) => {
                let is_ours = self.slot == Some(update.car_id);
                let counts = matches!(self.presence, Presence::Loaded | Presence::Unknown);
                return (is_ours && counts).then_some(*update);
            }
            Event::Version { .. } => {
                // Another life of the server: nobody of the one before is there.
                let wanted = core::mem::replace(&mut self.wanted, WantedCar::Slot(0));
                *self = Self { presence: Presence::Gone, ..Self::new(wanted) };
            }
            Event::NewSession(_) => {
                self.laps = Laps::default();
                self.has_new_laps = true;
            }
            Event::NewConnection(who) => {
                if self.is_ours(who.car_id, who.driver_guid, who.driver_name) {
                    self.take(who.car_id, Presence::Loading);
                } else {
                    self.lose(who.car_id);
                }
            }
            Event::ConnectionClosed(who) if self.slot == Some(who.car_id) => {
                self.lose(who.car_id);
                self.presence = Presence::Gone;
            }
            Event::ClientLoaded { car_id } if self.slot == Some(*car_id) => {
                self.presence = Presence::Loaded;
            }
            Event::CarInfo(info) if info.is_connected => {
                if self.is_ours(info.car_id, info.driver_guid, info.driver_name) {
                    self.take(info.car_id, Presence::Loaded);
                } else {
                    self.lose(info.car_id);
                }
            }
            Event::LapCompleted(lap) if self.slot == Some(lap.car_id) => {
                self.laps.count = self.laps.count.saturating_add(1);
                self.laps.last_ms = Some(lap.lap_time_ms);
                if lap.cuts == 0 {
                    let best = self.laps.best_ms.map_or(lap.lap_time_ms, |best| best.min(lap.lap_time_ms));
                    self.laps.best_ms = Some(best);
                }
                self.has_new_laps = true;
            }
            _ => {}
        }
        None
    }

    fn is_ours(&self, slot: u8, guid: Text<'_>, name: Text<'_>) -> bool {
        match &self.wanted {
            WantedCar::Slot(wanted) => *wanted == slot,
            WantedCar::Guid(wanted) => guid.chars().eq(wanted.chars()),
            WantedCar::Name(wanted) => name.chars().eq(wanted.chars()),
        }
    }

    fn take(&mut self, slot: u8, presence: Presence) {
        if self.slot != Some(slot) || presence == Presence::Loading {
            self.laps = Laps::default();
            self.has_new_laps = true;
        }
        self.slot = Some(slot);
        self.presence = presence;
    }

    /// Somebody else has this slot now, or nobody.
    fn lose(&mut self, slot: u8) {
        if self.slot == Some(slot) && !matches!(self.wanted, WantedCar::Slot(_)) {
            self.slot = None;
            self.presence = Presence::Gone;
        }
    }
}
