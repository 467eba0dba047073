//! What a person should know before driving with a configuration that is otherwise right.
//!
//! Owns the warnings that need the whole plan. Relies on `budget`. Never refuses anything.

use super::budget::{self, loss_with_counter, operator_loss};
use super::problem::Findings;
use super::short::Short;
use super::sources::written;
use crate::safety::settings::Settings;
use crate::signals::plan::{BusPlan, Kind, Plan, ReceivePlan, SendPlan, SignalPlan};
use crate::signals::source::Source;

/// Adds every warning.
pub(super) fn remarks(findings: &Findings, plan: &Plan, settings: &Settings, played: &[SendPlan]) {
    operator(findings, plan, settings);
    standstill(findings, plan, settings);
    for frame in &plan.send {
        let at = |key: &str| format!("send.{}{key}", frame.name);
        protection(findings, frame, &at(""));
        for signal in &frame.signals {
            actuator(findings, plan, signal, &at(&format!(".signals.{}", signal.name)));
        }
    }
    simulated(findings, plan, played);
    unused(findings, plan, played);
}

fn operator(findings: &Findings, plan: &Plan, settings: &Settings) {
    if plan.operator_counter.is_some() {
        return;
    }
    let worst = operator_loss(plan, settings).as_millis();
    let best = loss_with_counter(settings).as_millis();
    let cap = plan.speed.and_then(|s| s.cap_without_counter);
    let relief = match cap {
        Some(cap) => format!("the speed is capped at {} (standstill.speed_cap_without_counter)", Short(cap)),
        None => "set [operator] counter, or standstill.speed_cap_without_counter".to_owned(),
    };
    findings.warn(
        "operator.counter",
        format!(
            "no operator counter: a lost operator ends in safe frames after up to {worst} ms instead of {best} ms, \
             because OCP repeats the last command for {} ms; {relief}",
            budget::OCP_OPERATOR_LOSS.as_millis()
        ),
    );
}

fn standstill(findings: &Findings, plan: &Plan, settings: &Settings) {
    if plan.speed.is_none() {
        findings.warn(
            "standstill",
            format!(
                "no speed: arming does not wait for standstill, and every stop profile lasts the full {} ms",
                settings.stopping.as_millis()
            ),
        );
    }
}

fn protection(findings: &Findings, frame: &SendPlan, place: &str) {
    if !frame.signals.iter().any(|s| s.kind != Kind::Other) {
        return;
    }
    if frame.counter.is_none() {
        findings.warn(
            place,
            "moves the vehicle without an alive counter: its receiver cannot see a frozen frame",
        );
    }
    if frame.checksum.is_none() {
        findings.warn(place, "moves the vehicle without a checksum");
    }
}

fn actuator(findings: &Findings, plan: &Plan, signal: &SignalPlan, place: &str) {
    if signal.kind == Kind::Brake && signal.safe == 0.0 {
        findings.warn(place, "the safe value of this brake is 0: after a trip the vehicle rolls on");
    }
    if signal.kind == Kind::Throttle && signal.slew_up.is_none() && signal.source != Source::Constant(0.0) {
        findings.warn(place, "no slew_up_per_s: full throttle within one frame");
    }
    let is_panel = matches!(signal.source, Source::User(_)) && signal.kind == Kind::Throttle;
    if is_panel && plan.require.is_empty() && plan.dead_man.is_none() {
        findings.warn(
            place,
            "driven by the user data without [arm] require or dead_man: a panel that is lost and comes back with its lever \
             pulled may drive on; at an ocpcan desk, require = \"user.panel_ok\"",
        );
    }
    let used = std::iter::once(signal.source).chain(signal.select.iter().map(|(s, _)| *s));
    for source in used {
        if Some(source) == plan.arm {
            let name = written(&plan.user_fields, source);
            findings
                .warn(place, format!("{name} is also the arm switch: holding it to arm works this signal"));
        }
    }
}

/// Buses that no frame uses, in either role.
pub(super) fn idle_buses(findings: &Findings, buses: &[BusPlan], send: &[SendPlan], receive: &[ReceivePlan]) {
    for (index, bus) in buses.iter().enumerate() {
        if !send.iter().any(|f| f.bus == index) && !receive.iter().any(|r| r.bus == index) {
            findings.warn(&format!("bus.{}", bus.name), "nothing is sent or received here");
        }
    }
}

/// Feedback that a simulator gives must not be forgotten when a real vehicle takes its place.
fn simulated(findings: &Findings, plan: &Plan, played: &[SendPlan]) {
    for frame in played {
        if plan.receive.iter().any(|receive| receive.bus == frame.bus && receive.id == frame.id) {
            findings.warn(
                &format!("assetto.send.{}", frame.name),
                "the feedback is a simulated car's: take [assetto] out before a real vehicle is on the bus",
            );
        }
    }
}

fn unused(findings: &Findings, plan: &Plan, played: &[SendPlan]) {
    let sent: Vec<SendPlan> = plan.send.iter().chain(played).cloned().collect();
    idle_buses(findings, &plan.buses, &sent, &plan.receive);
    for receive in plan.receive.iter().filter(|r| r.signals.is_empty() && !r.required) {
        findings
            .warn(&format!("receive.{}", receive.name), "nothing reads this frame and it is not required");
    }
}
