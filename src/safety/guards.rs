//! Which faults are present now.
//!
//! Owns every guard that is a function of the newest command, the feedback and the clock. Relies on `envelope`,
//! `feedback` and `settings`. Never changes a state: `core` does.

use super::envelope::Envelope;
use super::faults::{Fault, Faults};
use super::input::{Command, Input};
use super::settings::Settings;
use crate::limits::{BUSES, OUT_SIGNALS};
use crate::signals::feedback::{FeedbackTable, FeedbackValue};
use crate::signals::plan::{ConfirmPlan, Plan};
use crate::time::Instant;

/// Strikes at which a feedback message counts as damaged (fault 59).
pub const STRIKES: u8 = 5;

/// The guards on the operator's stream. Without a message of this session the stream is silent.
#[must_use]
pub fn stream(
    now: Instant,
    plan: &Plan,
    settings: &Settings,
    input: &Input<'_>,
    newest: Option<&Command>,
) -> Faults {
    let mut found = Faults::NONE;
    if input.link.is_none() {
        return Fault::OcpDown.into();
    }
    // A thread that never came round is not alive either: a check that did not run has not passed.
    let stalled = input.ocp_beat.is_none_or(|beat| now.since(beat) > settings.thread_stall);
    found.insert_if(stalled, Fault::OcpStalled);
    let Some(command) = newest else {
        found.insert_if(true, Fault::OcpSilence);
        return found;
    };
    let live = &command.liveness;
    found.insert_if(now.since(live.received_at) >= settings.ocp_silence, Fault::OcpSilence);
    found.insert_if(live.staleness >= settings.stale, Fault::Stale);
    found.insert_if(now.since(live.ack_changed_at) >= settings.ack_freeze, Fault::AckFrozen);
    if plan.operator_counter.is_some() {
        let alive = live.counter_alive_at.is_some_and(|at| now.since(at) < settings.operator_freeze);
        found.insert_if(!alive, Fault::OperatorFrozen);
    }
    // Written so that a NaN is a fault, although the decoder lets none through.
    let latency_ok = command.latency_ms <= settings.latency_stop.as_secs_f64() * 1e3;
    found.insert_if(!latency_ok, Fault::LatencyHigh);
    found
}

/// The guards on what the operator's sources say.
#[must_use]
pub fn sources(plan: &Plan, envelope: &Envelope, needs_pad: bool, command: &Command) -> Faults {
    let mut found = Faults::NONE;
    let readings = &command.readings;
    found.insert_if(needs_pad && readings.pad.is_none(), Fault::ControllerMissing);
    found.insert_if(envelope.source_missing(readings), Fault::SourceMissing);
    let required = plan.require.iter().all(|switch| switch.source.read_switch(readings));
    found.insert_if(!required, Fault::RequirementLost);
    found
}

/// The guards on the vehicle's feedback and on the threads that read it.
#[must_use]
pub fn feedback(
    now: Instant,
    plan: &Plan,
    settings: &Settings,
    input: &Input<'_>,
    table: &FeedbackTable,
) -> Faults {
    let mut found = Faults::NONE;
    for (index, receive) in plan.receive.iter().enumerate() {
        let fresh = table.age(now, index).is_some_and(|age| age <= receive.stale_after);
        found.insert_if(receive.required && !fresh, Fault::FeedbackLost);
        found.insert_if(receive.required && table.strikes(index) >= STRIKES, Fault::FeedbackBad);
    }
    for beat in input.can_beats.iter().take(plan.buses.len().min(BUSES)) {
        let stalled = beat.is_none_or(|beat| now.since(beat) > settings.thread_stall);
        found.insert_if(stalled, Fault::CanStalled);
    }
    found
}

/// The vehicle's speed, if it is configured and fresh.
#[must_use]
pub fn speed(now: Instant, plan: &Plan, table: &FeedbackTable) -> Option<f64> {
    let speed = plan.speed.as_ref()?;
    let stale_after = plan.receive.get(speed.signal.receive)?.stale_after;
    match table.value(now, speed.signal, stale_after) {
        FeedbackValue::Fresh { value, .. } => Some(value),
        FeedbackValue::Stale { .. } | FeedbackValue::Never => None,
    }
}

/// Whether fresh feedback proves that the vehicle stands.
#[must_use]
pub fn standing(now: Instant, plan: &Plan, table: &FeedbackTable) -> bool {
    match (&plan.speed, speed(now, plan, table)) {
        (Some(limit), Some(value)) => value.abs() <= limit.standstill,
        _ => false,
    }
}

/// Watches for a vehicle that goes on reporting what cannot be (fault 61).
///
/// Invariant: a required frame whose values begin to be impossible while ARMED, and are impossible in every frame for
/// `contradiction_ms`, is evidence of a broken vehicle side, whatever the state has become meanwhile: its age trips first. One
/// believed frame ends the count. What begins outside ARMED is not counted: a vehicle that is parked or starting may say "not
/// available", and a sender that has fallen silent proves nothing more.
#[derive(Debug, Clone)]
pub struct Impossibilities {
    /// For each received frame: since when its values are impossible, if that began while ARMED.
    since: Vec<Option<Instant>>,
}

impl Impossibilities {
    /// Every received frame of the plan.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self { since: vec![None; plan.receive.len()] }
    }

    /// Whether a required frame has been impossible for too long.
    pub fn step(&mut self, armed: bool, plan: &Plan, settings: &Settings, table: &FeedbackTable) -> bool {
        let mut found = false;
        let watched = plan.receive.iter().zip(&mut self.since).enumerate();
        for (index, (_, since)) in watched.filter(|(_, (receive, _))| receive.required) {
            match table.impossible(index) {
                None => *since = None,
                Some((first, newest)) => {
                    if armed {
                        since.get_or_insert(first);
                    }
                    found |= since.is_some_and(|since| newest.since(since) >= settings.contradiction);
                }
            }
        }
        found
    }
}

/// One confirmed signal: the frame and signal it belongs to, its rule, and since when it disagrees.
#[derive(Debug, Clone, Copy)]
struct Confirmation {
    frame: usize,
    signal: usize,
    rule: ConfirmPlan,
    since: Option<Instant>,
}

/// Compares commands with what the vehicle reports (fault 61).
#[derive(Debug, Clone)]
pub struct Contradictions {
    watched: Vec<Confirmation>,
}

impl Contradictions {
    /// Every signal with a `feedback` key.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let mut watched = Vec::with_capacity(OUT_SIGNALS.min(16));
        for (frame, send) in plan.send.iter().enumerate() {
            for (signal, mapped) in send.signals.iter().enumerate() {
                if let Some(rule) = mapped.confirm {
                    watched.push(Confirmation { frame, signal, rule, since: None });
                }
            }
        }
        Self { watched }
    }

    /// Forgets what disagreed: outside ARMED the vehicle need not follow.
    pub fn reset(&mut self) {
        for one in &mut self.watched {
            one.since = None;
        }
    }

    /// Whether a signal has disagreed for too long.
    pub fn step(
        &mut self,
        now: Instant,
        plan: &Plan,
        settings: &Settings,
        envelope: &Envelope,
        table: &FeedbackTable,
    ) -> bool {
        let mut found = false;
        for one in &mut self.watched {
            let stale_after = plan.receive.get(one.rule.signal.receive).map(|receive| receive.stale_after);
            let actual = stale_after.map(|limit| table.value(now, one.rule.signal, limit));
            let (Some(FeedbackValue::Fresh { value, .. }), Some(commanded)) =
                (actual, envelope.value(one.frame, one.signal))
            else {
                one.since = None;
                continue;
            };
            if (value - commanded).abs() <= one.rule.tolerance {
                one.since = None;
                continue;
            }
            let since = *one.since.get_or_insert(now);
            found |= now.since(since) >= settings.contradiction;
        }
        found
    }
}
