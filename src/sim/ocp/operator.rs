//! The operator: a gamepad, user data with a counter, and the two ways between operator and vehicle.
//!
//! Owns what the operator does and what the radio does to it. Relies on time as an argument. Never sees the vehicle
//! other than through the video.

use serde_json::{Map, Value};

use super::Rng;
use super::options::{Link, Options};
use crate::proto::ocp::Controller;
use crate::time::{Duration, Instant};

/// What the radio does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LinkState {
    /// It works.
    #[default]
    Up,
    /// What is sent is lost.
    Cut,
    /// What is sent waits, and comes all at once when the link is restored.
    Held,
}

/// The operator's counter in the user data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CounterMode {
    /// One more with each message.
    #[default]
    Run,
    /// The same in each message.
    Freeze,
    /// Not in the user data.
    Absent,
}

/// A control message on its way to the vehicle.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sent {
    /// The gamepad; `None` where the operator has none.
    pub controller: Option<Controller>,
    /// The user data, counter included.
    pub user_data: Value,
    /// The ack pair last seen in the video.
    pub returned: Option<(u64, u32)>,
}

/// The simulated operator.
#[derive(Debug, Clone)]
pub struct Operator {
    /// The gamepad as it is held.
    pub controller: Controller,
    /// Whether there is a gamepad at all.
    pub has_controller: bool,
    /// Whether the operator's program runs.
    pub present: bool,
    /// User data beside the counter.
    pub user_data: Map<String, Value>,
    /// What the counter does.
    pub counter_mode: CounterMode,
    /// Its last value.
    pub counter: u64,
    counter_key: String,
    period: Duration,
    next_send: Instant,
    seen: Option<(u64, u32)>,
}

impl Operator {
    pub(super) fn new(options: &Options, now: Instant) -> Self {
        Self {
            controller: Controller::NEUTRAL,
            has_controller: true,
            present: true,
            user_data: Map::new(),
            counter_mode: CounterMode::Run,
            counter: 0,
            counter_key: options.counter_key.clone(),
            period: options.operator_period,
            next_send: now,
            seen: None,
        }
    }

    pub(super) const fn next_send(&self) -> Instant {
        self.next_send
    }

    /// The picture shows an ack pair.
    pub(super) const fn see(&mut self, pair: (u64, u32)) {
        self.seen = Some(pair);
    }

    /// The message that is due, if the operator sends one.
    pub(super) fn send(&mut self) -> Option<Sent> {
        self.next_send += self.period;
        if !self.present {
            return None;
        }
        if self.counter_mode == CounterMode::Run {
            self.counter = self.counter.wrapping_add(1);
        }
        let mut user_data = self.user_data.clone();
        if self.counter_mode != CounterMode::Absent {
            user_data.insert(self.counter_key.clone(), Value::from(self.counter));
        }
        let controller = self.has_controller.then_some(self.controller);
        Some(Sent { controller, user_data: Value::Object(user_data), returned: self.seen })
    }
}

/// Items on their way through a faulty link.
#[derive(Debug, Clone)]
pub(super) struct Path<T> {
    pub link: Link,
    state: LinkState,
    in_flight: Vec<(Instant, T)>,
    held: Vec<T>,
    last_due: Instant,
}

impl<T: Clone> Path<T> {
    pub fn new(link: Link) -> Self {
        Self { link, state: LinkState::Up, in_flight: Vec::new(), held: Vec::new(), last_due: Instant::ZERO }
    }

    pub fn set_state(&mut self, now: Instant, state: LinkState) {
        self.state = state;
        if state == LinkState::Up {
            let due = (now + self.link.delay).max(self.last_due);
            self.in_flight.extend(self.held.drain(..).map(|item| (due, item)));
            self.last_due = due;
        }
    }

    pub fn push(&mut self, now: Instant, item: T, rng: &mut Rng) {
        match self.state {
            LinkState::Cut => return,
            LinkState::Held => {
                self.held.push(item);
                return;
            }
            LinkState::Up if rng.fraction() < self.link.loss => return,
            LinkState::Up => {}
        }
        let mut due = now + self.link.delay + self.link.jitter.mul_f64(rng.fraction());
        if rng.fraction() < self.link.reorder {
            due += self.link.delay;
        } else {
            due = due.max(self.last_due);
            self.last_due = due;
        }
        if rng.fraction() < self.link.duplicate {
            self.in_flight.push((due, item.clone()));
        }
        self.in_flight.push((due, item));
    }

    pub fn next_due(&self) -> Option<Instant> {
        self.in_flight.iter().map(|(due, _)| *due).min()
    }

    /// The item that arrived first, of those that arrived by `now`.
    pub fn pop(&mut self, now: Instant) -> Option<T> {
        let first = self.next_due().filter(|due| *due <= now)?;
        let at = self.in_flight.iter().position(|(due, _)| *due == first)?;
        Some(self.in_flight.remove(at).1)
    }
}
