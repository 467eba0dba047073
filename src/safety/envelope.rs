//! The value of every sent signal, now.
//!
//! Owns limits, slew, stop profiles, brake priority, derating and standstill rules, and the memory they need.
//! Relies on `signals`. Never decides in which state the gateway is: it is told.

use super::settings::{NEUTRAL_STICK, NEUTRAL_TRIGGER};
use crate::signals::plan::{Kind, Plan, SignalPlan, StopProfile};
use crate::signals::source::{Reading, Readings, Source};
use crate::signals::transform::Shape;
use crate::time::Duration;

/// A brake pressed by more than this share of its span cuts the throttle. The same distance from rest as a trigger
/// that is not neutral.
const BRAKE_PRESSED: f64 = NEUTRAL_TRIGGER;

/// A number of the user data may lie beyond its range by this share of it, and then counts as the end: arithmetic of the
/// sender. The same share as an axis may (SAFETY row 36).
const BEYOND: f64 = 0.01;

/// Longest time that one step may move a slew-limited value: a watchdog that was held up must not make up for it.
const STEP_MAX: Duration = Duration::from_millis(50);

/// What the values follow.
#[derive(Debug, Clone, Copy)]
pub enum Mode<'a> {
    /// Nobody has a valid session: safe values.
    Safe,
    /// After a trip from ARMED: stop profiles.
    Stopping,
    /// A valid session that is not armed: actuators safe, everything else follows the operator.
    Present(&'a Readings),
    /// The operator drives.
    Armed(&'a Demand<'a>),
}

/// What the operator asks for and what limits it.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    /// What all sources say.
    pub readings: &'a Readings,
    /// Factor on every throttle, 0 to 1 (latency, speed cap).
    pub throttle_scale: f64,
    /// Factor on every slew limit, 0.5 just after arming, else 1.
    pub slew_scale: f64,
}

/// What one signal remembers.
#[derive(Debug, Clone, Copy)]
struct Memory {
    /// The value of the last step.
    value: f64,
    /// A toggle's position.
    on: bool,
    /// Whether the toggle's switch was pressed at the last step.
    pressed: bool,
    /// The value that `select` chose.
    selected: Option<f64>,
}

/// One sent frame's values.
#[derive(Debug, Clone)]
struct FrameValues {
    actuator: bool,
    signals: Vec<(SignalPlan, Memory)>,
}

/// The values of all sent signals.
#[derive(Debug, Clone)]
pub struct Envelope {
    frames: Vec<FrameValues>,
}

/// Whether a frame moves something: it has an enable bit or a signal of an actuator kind.
#[must_use]
pub fn is_actuator(send: &crate::signals::plan::SendPlan) -> bool {
    send.enable.is_some() || send.signals.iter().any(|signal| signal.kind != Kind::Other)
}

impl Envelope {
    /// Every signal at its safe value.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let frames = plan
            .send
            .iter()
            .map(|send| FrameValues {
                actuator: is_actuator(send),
                signals: send
                    .signals
                    .iter()
                    .map(|signal| {
                        let memory = Memory { value: signal.safe, on: false, pressed: false, selected: None };
                        (signal.clone(), memory)
                    })
                    .collect(),
            })
            .collect();
        Self { frames }
    }

    /// Moves every value by one step. `standing` is true only where fresh feedback proves standstill.
    pub fn step(&mut self, mode: Mode<'_>, elapsed: Duration, standing: bool) {
        let seconds = elapsed.min(STEP_MAX).as_secs_f64();
        // Brakes first: they decide about the throttle.
        self.step_kinds(mode, seconds, standing, false, |kind| kind == Kind::Brake);
        let braking = match mode {
            Mode::Armed(demand) => self.brake_is_applied(demand.readings),
            _ => false,
        };
        self.step_kinds(mode, seconds, standing, braking, |kind| kind != Kind::Brake);
    }

    /// One step of the signals of some kinds.
    fn step_kinds(
        &mut self,
        mode: Mode<'_>,
        seconds: f64,
        standing: bool,
        braking: bool,
        chosen: impl Fn(Kind) -> bool,
    ) {
        for frame in &mut self.frames {
            let actuator = frame.actuator;
            for (plan, memory) in frame.signals.iter_mut().filter(|(plan, _)| chosen(plan.kind)) {
                let next = match mode {
                    Mode::Safe => {
                        memory.forget();
                        plan.safe
                    }
                    Mode::Stopping => {
                        memory.forget();
                        stop_value(plan, memory.value, seconds)
                    }
                    Mode::Present(_) if actuator => {
                        memory.forget();
                        plan.safe
                    }
                    Mode::Present(readings) => {
                        let target = target(plan, memory, readings).unwrap_or(plan.safe);
                        slewed(plan, memory.value, target, seconds, 1.0)
                    }
                    Mode::Armed(demand) => {
                        let mut target = target(plan, memory, demand.readings).unwrap_or(plan.safe);
                        if plan.kind == Kind::Throttle {
                            target *= demand.throttle_scale;
                        }
                        let moved = slewed(plan, memory.value, target, seconds, demand.slew_scale);
                        // Brake priority is at once: a slow fall of the throttle would push against the brake.
                        if plan.kind == Kind::Throttle && braking { plan.safe } else { moved }
                    }
                };
                let next = if next.is_finite() { bounded(next, plan.min, plan.max) } else { plan.safe };
                if !waits_for_standstill(plan) || standing {
                    memory.value = next;
                }
            }
        }
    }

    /// The values of one frame, in the order of its plan.
    pub fn values(&self, frame: usize) -> impl Iterator<Item = (&SignalPlan, f64)> {
        self.frames
            .get(frame)
            .into_iter()
            .flat_map(|values| values.signals.iter().map(|(plan, memory)| (plan, memory.value)))
    }

    /// Whether every value of the frame is its safe value.
    #[must_use]
    pub fn is_safe(&self, frame: usize) -> bool {
        // Exact: a safe value is assigned, never computed. A signal that may change at standstill only is allowed
        // to keep what it has: changing it would be the danger.
        self.values(frame).all(|(plan, value)| value == plan.safe || waits_for_standstill(plan))
    }

    /// The value of one signal as it is sent now.
    #[must_use]
    pub fn value(&self, frame: usize, signal: usize) -> Option<f64> {
        self.frames.get(frame)?.signals.get(signal).map(|(_, memory)| memory.value)
    }

    /// Whether every mapped control is at rest: all actuators' sources, and every axis whatever it drives.
    #[must_use]
    pub fn is_neutral(&self, readings: &Readings) -> bool {
        self.mapped().all(|(plan, source)| {
            let matters = plan.kind != Kind::Other || matches!(source, Source::Axis(_));
            !matters
                || matches!(source, Source::Constant(_))
                || plan.transform.is_neutral(source.read(readings), NEUTRAL_STICK, NEUTRAL_TRIGGER)
        })
    }

    /// Whether a source that is mapped gives no usable value. An actuator's source must be there; another signal's
    /// may be absent (its safe value is sent), but what is there must be usable.
    #[must_use]
    pub fn source_missing(&self, readings: &Readings) -> bool {
        self.mapped().any(|(plan, source)| match source.read(readings) {
            Reading::Invalid => true,
            Reading::Missing => plan.kind != Kind::Other && matches!(source, Source::User(_)),
            _ => plan.select.is_empty() && !plan.toggle && wanted(plan, source, readings).is_none(),
        })
    }

    /// Whether anything is mapped to the gamepad.
    #[must_use]
    pub fn needs_pad(&self) -> bool {
        self.mapped().any(|(_, source)| matches!(source, Source::Axis(_) | Source::Button(_)))
    }

    /// Every signal with each of its sources.
    fn mapped(&self) -> impl Iterator<Item = (&SignalPlan, Source)> {
        self.frames.iter().flat_map(|frame| &frame.signals).flat_map(|(plan, _)| {
            let single = plan.select.is_empty().then_some(plan.source);
            single.into_iter().chain(plan.select.iter().map(|(source, _)| *source)).map(move |s| (plan, s))
        })
    }

    /// Whether the operator presses a brake, or one is still on: its value of this step lies away from rest.
    fn brake_is_applied(&self, readings: &Readings) -> bool {
        self.frames.iter().flat_map(|frame| &frame.signals).any(|(plan, memory)| {
            let rest = bounded(0.0, plan.min, plan.max);
            let away = |value: f64| (value - rest).abs() > BRAKE_PRESSED * (plan.max - plan.min);
            plan.kind == Kind::Brake && (away(memory.value) || asked(plan, memory, readings).is_none_or(away))
        })
    }
}

impl Memory {
    /// A toggle and a selection start anew with the next session.
    const fn forget(&mut self) {
        self.on = false;
        self.selected = None;
        // A switch that is still held must be released before it counts again.
        self.pressed = true;
    }
}

/// Whether a signal keeps its value while the vehicle moves. Nothing that moves the vehicle may: it would be kept
/// through a trip as well.
const fn waits_for_standstill(plan: &SignalPlan) -> bool {
    plan.at_standstill && matches!(plan.kind, Kind::Other)
}

/// The nearest value within the limits. Unlike `clamp` it has an answer for limits that are the wrong way round.
const fn bounded(value: f64, low: f64, high: f64) -> f64 {
    value.max(low).min(high)
}

/// Moves the memory of a selection or a toggle, then answers what the operator asks of the signal, in its unit.
fn target(plan: &SignalPlan, memory: &mut Memory, readings: &Readings) -> Option<f64> {
    if let Some((_, value)) = plan.select.iter().find(|(source, _)| source.read_switch(readings)) {
        memory.selected = Some(*value);
    }
    if plan.toggle {
        let pressed = plan.source.read_switch(readings);
        if pressed && !memory.pressed {
            memory.on = !memory.on;
        }
        memory.pressed = pressed;
    }
    asked(plan, memory, readings)
}

/// What the operator asks of one signal, in its unit.
fn asked(plan: &SignalPlan, memory: &Memory, readings: &Readings) -> Option<f64> {
    if !plan.select.is_empty() {
        Some(memory.selected.unwrap_or(plan.safe))
    } else if plan.toggle {
        plan.transform.apply(Reading::Bool(memory.on))
    } else {
        wanted(plan, plan.source, readings)
    }
}

/// What a source asks for, in the signal's unit. `None` for what is no value of this signal: it trips, and is never made
/// one by clamping or rounding. A stick that is calibrated (`range`) may go beyond its ends; a number of the user data is
/// somebody's statement, and beyond them it is a mistake.
fn wanted(plan: &SignalPlan, source: Source, readings: &Readings) -> Option<f64> {
    let reading = source.read(readings);
    let value = plan.transform.apply(reading)?;
    let (Source::User(_), Reading::Number(number)) = (source, reading) else { return Some(value) };
    let is_within = |number: f64, a: f64, b: f64| {
        let slack = BEYOND * (b - a).abs();
        (a.min(b) - slack..=a.max(b) + slack).contains(&number)
    };
    let is_said = match plan.transform.shape {
        // The number is the value: it must be one that the signal has.
        Shape::Direct => is_within(value, plan.min, plan.max) && (!plan.named || plan.codec.carries(value)),
        Shape::Centred { low, high, .. } | Shape::OneSided { low, high } => is_within(number, low, high),
        // Has taken 0 or 1, and nothing else.
        Shape::Switch { .. } => true,
    };
    is_said.then_some(value)
}

/// One step towards the target, no faster than the limits.
fn slewed(plan: &SignalPlan, from: f64, to: f64, seconds: f64, scale: f64) -> f64 {
    // Just after arming, motion begins at half the rate; releasing the throttle or pressing the brake never waits.
    let rise_scale = if plan.kind == Kind::Brake { 1.0 } else { scale };
    let fall_scale = if plan.kind == Kind::Throttle { 1.0 } else { scale };
    let rise = plan.slew_up.map_or(f64::INFINITY, |rate| rate * rise_scale * seconds);
    let fall = plan.slew_down.map_or(f64::INFINITY, |rate| rate * fall_scale * seconds);
    bounded(to - from, -fall, rise) + from
}

/// One step of the stop profile.
fn stop_value(plan: &SignalPlan, from: f64, seconds: f64) -> f64 {
    // Whatever the file says: a throttle is safe in the first frame.
    if plan.kind == Kind::Throttle {
        return plan.safe;
    }
    match plan.stop {
        StopProfile::Safe => plan.safe,
        StopProfile::Hold => from,
        StopProfile::Ramp { per_s } => {
            if plan.kind == Kind::Brake && from >= plan.safe {
                return from;
            }
            let step = per_s * seconds;
            from + bounded(plan.safe - from, -step, step)
        }
    }
}
