//! The operator station, decided: panel frames and feedback in, one client message and the dashboard's frames out.
//!
//! Owns which vehicle is active, what `user_data` says, and what each dashboard signal shows. Relies on the mapping engine
//! of `signals` and on [`super::player`] for the feedback. Never waits. Never sends a panel value that is stale: the rest
//! value goes out instead, with `panel_ok` false, and nothing reaches a vehicle that was not chosen.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::pace::{Pace, shown};
use super::player::PlayerNode;
use crate::can::Frame;
use crate::proto::ocp::player::{ClientMessage, ClientVehicle, Dialect, VehicleFeedback};
use crate::signals::feedback::{FeedbackTable, FeedbackVerdict};
use crate::signals::pack;
use crate::signals::plan::SignalRef;
use crate::signals::source::{Reading, Readings, UserValue};
use crate::signals::station::{ActiveVehicle, Form, Own, SinkValue, Slot, StationPlan};
use crate::time::{Duration, Instant, millis_f64};

/// After its start, after each loss and after each change of the vehicle, the panel counts as gone for this long although its frames are there: the vehicle must
/// see `panel_ok` false, or a desk that was started again with a lever pulled would go on driving. OCP takes one message of
/// two and the radio loses some; 300 ms are 15 of OCP's own repeats, and longer than the vehicle waits for the counter.
pub const PANEL_SETTLE: Duration = Duration::from_millis(300);

/// How old what is shown may be.
#[derive(Debug, Clone, Copy)]
pub struct StationTimes {
    /// Feedback older than this is stale.
    pub feedback_stale: Duration,
    /// `vehicle_data` older than this (`ms_since_last_vehicle_data`) is stale.
    pub data_stale: Duration,
}

/// Which vehicle is chosen, as the log tells it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Choice {
    /// No vehicle is connected.
    #[default]
    Nobody,
    /// This one.
    Vehicle(String),
    /// Several vehicles are connected, and the configuration names none.
    Several,
    /// The panel's selector says a value that stands for no vehicle, or is stale.
    NotSelected,
}

/// One operator station.
#[derive(Debug)]
pub struct StationNode {
    plan: StationPlan,
    times: StationTimes,
    panel: FeedbackTable,
    /// Given by the command line, in place of the configuration.
    forced: Option<String>,
    choice: Choice,
    /// The vehicle that got the panel last: it must hear that the panel is gone.
    last_chosen: Option<String>,
    is_released: bool,
    /// Since when every panel frame has been fresh without a gap.
    fresh_since: Option<Instant>,
    counter: u64,
    pace: Vec<Pace>,
    readings: Readings,
    /// One for each dashboard signal, in the order of the plan.
    values: Vec<Vec<f64>>,
}

impl StationNode {
    /// A station that has heard nothing yet.
    #[must_use]
    pub fn new(plan: StationPlan, times: StationTimes) -> Self {
        Self {
            panel: FeedbackTable::new(&plan.receive),
            pace: vec![Pace::default(); plan.send.len()],
            values: plan
                .send
                .iter()
                .map(|send| send.signals.iter().map(|signal| signal.safe).collect())
                .collect(),
            plan,
            times,
            forced: None,
            choice: Choice::default(),
            last_chosen: None,
            is_released: false,
            fresh_since: None,
            counter: 0,
            readings: Readings::default(),
        }
    }

    /// Chooses this vehicle, whatever configuration and panel say.
    pub fn choose(&mut self, vehicle: Option<String>) {
        self.forced = vehicle;
    }

    /// The station ends: from now on the panel counts as gone, so that the vehicle stops at once and not when the silence
    /// is noticed.
    pub const fn release(&mut self) {
        self.is_released = true;
    }

    /// Takes a frame of a bus; whether it is a panel frame that is believed.
    pub fn handle_frame(&mut self, at: Instant, bus: usize, frame: &Frame) -> FeedbackVerdict {
        // A gap that this frame ends must be noticed although the frame is there now.
        self.look(at);
        let verdict = self.panel.handle_frame(at, bus, frame);
        self.look(at);
        verdict
    }

    /// Notes since when the panel is whole.
    fn look(&mut self, now: Instant) {
        self.fresh_since = if self.is_fresh(now) { self.fresh_since.or(Some(now)) } else { None };
    }

    /// Whether what the panel says may be used: every frame is fresh, and has been for [`PANEL_SETTLE`]. Without a panel there
    /// is nothing that could be missing.
    #[must_use]
    pub fn panel_ok(&self, now: Instant) -> bool {
        let is_settled = self.fresh_since.is_some_and(|since| now.since(since) >= PANEL_SETTLE);
        self.is_fresh(now) && (is_settled || self.plan.receive.is_empty())
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.missing_panel(now).is_none()
    }

    /// The name of the first panel frame that is not fresh; none either while the panel settles.
    #[must_use]
    pub fn missing_panel(&self, now: Instant) -> Option<&str> {
        let frames = self.plan.receive.iter().enumerate();
        let mut stale = frames.filter(|(index, frame)| {
            self.panel.failed(*index) || self.panel.age(now, *index).is_none_or(|age| age > frame.stale_after)
        });
        stale.next().map(|(_, frame)| frame.name.as_str())
    }

    /// Which vehicle is chosen, as of the last message.
    #[must_use]
    pub const fn choice(&self) -> &Choice {
        &self.choice
    }

    /// The chosen vehicle's name.
    #[must_use]
    pub fn choice_name(&self) -> Option<&str> {
        match &self.choice {
            Choice::Vehicle(name) => Some(name),
            Choice::Nobody | Choice::Several | Choice::NotSelected => None,
        }
    }

    /// A panel value; `None` while its frame is stale or not believed.
    fn panel_value(&self, now: Instant, signal: SignalRef) -> Option<f64> {
        let frame = self.plan.receive.get(signal.receive)?;
        if self.panel.failed(signal.receive) {
            return None;
        }
        self.panel.value(now, signal, frame.stale_after).fresh()
    }

    fn chosen(&self, now: Instant, player: &PlayerNode) -> Choice {
        if let Some(name) = &self.forced {
            return Choice::Vehicle(name.clone());
        }
        match &self.plan.active {
            ActiveVehicle::Named(name) => Choice::Vehicle(name.clone()),
            ActiveVehicle::Panel { signal, vehicles } => {
                let value = self.panel_value(now, *signal);
                let found = value.and_then(|value| vehicles.iter().find(|(number, _)| *number == value));
                found.map_or(Choice::NotSelected, |(_, name)| Choice::Vehicle(name.clone()))
            }
            ActiveVehicle::Only => {
                let is_driven = |name: &&String| {
                    player.vehicles().get(*name).is_some_and(|seen| seen.feedback.is_monitor != Some(true))
                };
                let mut driven = player.connected().iter().filter(is_driven);
                match (driven.next(), driven.next(), player.unread()) {
                    // One of which nothing can be read may be the one that is meant.
                    (Some(_), Some(_), _) | (_, _, 1..) => Choice::Several,
                    (None, ..) => Choice::Nobody,
                    (Some(name), None, 0) => Choice::Vehicle(name.clone()),
                }
            }
        }
    }

    /// The next message: every vehicle's acks, and the panel for the one that is chosen.
    pub fn message(&mut self, now: Instant, player: &PlayerNode) -> ClientMessage {
        self.look(now);
        let choice = self.chosen(now, player);
        if choice != self.choice {
            // Whoever is chosen now, or again, must see that the panel was not there for it.
            self.fresh_since = self.fresh_since.map(|_| now);
            self.choice = choice;
        }
        let active_vehicle = match &self.choice {
            Choice::Vehicle(name) => {
                self.last_chosen = Some(name.clone());
                Some(name.clone())
            }
            // The last one hears that nothing is commanded any more; it is the active one no longer.
            Choice::Nobody | Choice::Several | Choice::NotSelected => None,
        };
        let is_chosen = active_vehicle.is_some();
        let mut message = ClientMessage { active_vehicle, ..ClientMessage::default() };
        // OCP gives its gamepad to the only vehicle there is even where none is chosen.
        let gamepad = if self.choice == Choice::NotSelected { Some(true) } else { self.plan.disable_gamepad };
        for name in player.connected() {
            let vehicle = ClientVehicle {
                returned: player.ack(name),
                ocp_disable_gamepad: gamepad,
                ..ClientVehicle::default()
            };
            message.vehicles.insert(name.clone(), vehicle);
        }
        if let Some(name) = &self.last_chosen
            && (is_chosen || message.vehicles.contains_key(name))
        {
            let user_data = self.user_data(now, is_chosen);
            let vehicle = message.vehicles.entry(name.clone()).or_default();
            vehicle.user_data = user_data;
            vehicle.ocp_disable_gamepad = gamepad;
        }
        self.counter = self.counter.wrapping_add(1);
        message
    }

    /// What the panel says now. A vehicle that is not chosen any more gets rest values.
    fn user_data(&self, now: Instant, is_chosen: bool) -> Value {
        let mut data = Map::new();
        let is_ok = is_chosen && !self.is_released && self.panel_ok(now);
        for sink in &self.plan.user_data {
            let value = match &sink.value {
                SinkValue::Counter { modulo: None } => self.counter.into(),
                SinkValue::Counter { modulo: Some(modulo) } => {
                    (self.counter % u64::from(*modulo).max(1)).into()
                }
                SinkValue::PanelOk => is_ok.into(),
                SinkValue::Constant(value) => value.clone(),
                SinkValue::Panel { signal, transform, form, rest } => self
                    .panel_value(now, *signal)
                    .filter(|_| is_ok)
                    .and_then(|value| transform.apply(Reading::Number(value)))
                    .and_then(|value| written(value, form))
                    .unwrap_or_else(|| rest.clone()),
            };
            put(&mut data, &sink.path, value);
        }
        Value::Object(data)
    }

    /// Puts what each slot says now into the readings.
    fn read_slots(&mut self, now: Instant, player: &PlayerNode) {
        let active = self.choice_name().map(str::to_owned);
        let active = active.as_deref();
        // Written out once for all the slots that read the same vehicle.
        let mut entries: BTreeMap<String, Value> = BTreeMap::new();
        for at in 0..self.plan.slots.len() {
            let value = match self.plan.slots.get(at) {
                Some(Slot::Panel(signal)) => {
                    self.panel_value(now, *signal).map_or(UserValue::Missing, UserValue::Number)
                }
                Some(Slot::Feedback { path, vehicle, names }) => vehicle
                    .as_deref()
                    .or(active)
                    .and_then(|name| Some((name, self.fresh(now, player, name)?)))
                    .map_or(UserValue::Missing, |(name, feedback)| {
                        let entry = entries
                            .entry(name.to_owned())
                            .or_insert_with(|| feedback.to_json(Dialect::Newer));
                        self.member(feedback, entry, path, names)
                    }),
                Some(Slot::Own(own)) => self.own(now, player, *own, active),
                None => UserValue::Missing,
            };
            if let Some(reading) = self.readings.user.get_mut(at) {
                *reading = value;
            }
        }
    }

    /// A vehicle's feedback, while it is fresh.
    fn fresh<'p>(&self, now: Instant, player: &'p PlayerNode, name: &str) -> Option<&'p VehicleFeedback> {
        let seen = player.vehicles().get(name)?;
        let is_fresh = player.is_linked() && now.since(seen.at) <= self.times.feedback_stale;
        is_fresh.then_some(&seen.feedback)
    }

    /// The member at the end of a path; `entry` is the same feedback, written out.
    fn member(
        &self,
        feedback: &VehicleFeedback,
        entry: &Value,
        path: &[String],
        names: &[(String, f64)],
    ) -> UserValue {
        let is_data = path.first().is_some_and(|key| key == "vehicle_data");
        if is_data && Duration::from_millis(feedback.ms_since_last_vehicle_data) > self.times.data_stale {
            return UserValue::Missing;
        }
        let found = path.iter().try_fold(entry, |value, key| value.get(key));
        match found {
            None | Some(Value::Null) => UserValue::Missing,
            Some(Value::Bool(flag)) => UserValue::Bool(*flag),
            Some(Value::Number(number)) => {
                number.as_f64().filter(|n| n.is_finite()).map_or(UserValue::Invalid, UserValue::Number)
            }
            Some(Value::String(text)) => names
                .iter()
                .find(|(name, _)| name == text)
                .map_or(UserValue::Invalid, |(_, number)| UserValue::Number(*number)),
            Some(Value::Array(list)) => {
                UserValue::Number(u32::try_from(list.len()).map_or(f64::MAX, f64::from))
            }
            Some(Value::Object(_)) => UserValue::Invalid,
        }
    }

    fn own(&self, now: Instant, player: &PlayerNode, own: Own, active: Option<&str>) -> UserValue {
        match own {
            Own::Connected => {
                let fresh = |at: Instant| now.since(at) <= self.times.feedback_stale;
                UserValue::Bool(player.is_linked() && player.feedback_at().is_some_and(fresh))
            }
            Own::PanelOk => UserValue::Bool(self.panel_ok(now)),
            Own::FeedbackAge => player
                .feedback_at()
                .map_or(UserValue::Missing, |at| UserValue::Number(millis_f64(now.since(at)).round())),
            Own::Fault => match active.and_then(|name| self.fresh(now, player, name)) {
                Some(feedback) => {
                    UserValue::Bool(!(feedback.sender_fault.is_empty() && feedback.receiver_fault.is_empty()))
                }
                // Nothing is known: not "no fault".
                None => UserValue::Missing,
            },
        }
    }

    /// The next dashboard frame that is due, at or after index `from`: its index, its bus, the frame. A frame whose values
    /// do not fit is passed over (`config` lets none through).
    pub fn poll_dashboard(
        &mut self,
        now: Instant,
        from: usize,
        player: &PlayerNode,
    ) -> Option<(usize, usize, Frame)> {
        for at in from..self.plan.send.len() {
            let Some((send, pace)) = self.plan.send.get(at).zip(self.pace.get(at).copied()) else { continue };
            if now < pace.due(send.mode, player.feedback_at()) {
                continue;
            }
            let bus = send.bus;
            self.look(now);
            self.read_slots(now, player);
            let (Some(send), Some(values)) = (self.plan.send.get(at), self.values.get_mut(at)) else {
                continue;
            };
            for (value, signal) in values.iter_mut().zip(&send.signals) {
                *value = shown(signal, signal.source.read(&self.readings));
            }
            let values = || send.signals.iter().zip(values.iter().copied());
            let packed = pack::frame(send, pace.counter, false, values);
            if let Some(pace) = self.pace.get_mut(at) {
                pace.advance(now, send);
            }
            if let Ok(frame) = packed {
                return Some((at, bus, frame));
            }
        }
        None
    }

    /// When the next dashboard frame is due.
    #[must_use]
    pub fn dashboard_due(&self, player: &PlayerNode) -> Option<Instant> {
        self.plan
            .send
            .iter()
            .zip(&self.pace)
            .map(|(send, pace)| pace.due(send.mode, player.feedback_at()))
            .min()
    }
}

/// A value as JSON; `None` where its form has no word for it.
fn written(value: f64, form: &Form) -> Option<Value> {
    match form {
        Form::Number => serde_json::Number::from_f64(value).map(Value::Number),
        Form::Switch => Some((value == 1.0).into()),
        Form::Name(names) => {
            names.iter().find(|(number, _)| *number == value).map(|(_, name)| name.clone().into())
        }
    }
}

/// Puts a value at the end of a path of keys.
fn put(data: &mut Map<String, Value>, path: &[String], value: Value) {
    match path {
        [] => {}
        [last] => drop(data.insert(last.clone(), value)),
        [first, rest @ ..] => {
            let inner = data.entry(first.clone()).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
