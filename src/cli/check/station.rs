//! What an operator's configuration resolves to.
//!
//! Owns the text. Relies on `frames` for what vehicles have too. Never opens a bus or a socket.

use super::frames::{Bits, buses, receive, reference, send, transform};
use super::{VERSION, warnings};
use crate::config::{Short, StationConfig, budget, written_slot};
use crate::safety::settings::Settings;
use crate::signals::plan::{ReceivePlan, SignalPlan};
use crate::signals::source::Source;
use crate::signals::station::{ActiveVehicle, Form, SinkValue, Slot, StationPlan, UserSink};
use std::fmt::{self, Write as _};

/// The whole report.
pub(super) fn report(out: &mut String, config: &StationConfig) -> fmt::Result {
    let (plan, player) = (&config.plan, &config.player);
    writeln!(out, "ocpcan {VERSION}")?;
    writeln!(out, "station    {}  (configuration {})", config.name, config.digest)?;
    writeln!(
        out,
        "Player     {}, feedback stale after {} ms, vehicle data after {} ms",
        player.address,
        player.feedback_stale.as_millis(),
        player.data_stale.as_millis()
    )?;
    active(out, plan)?;
    let gamepad = match plan.disable_gamepad {
        Some(true) => "disabled (ocp_disable_gamepad = true)",
        Some(false) => "enabled (ocp_disable_gamepad = false)",
        None => "as OCP decides",
    };
    writeln!(out, "gamepad    {gamepad}")?;
    buses(out, &plan.buses)?;
    for frame in &plan.receive {
        receive(out, &plan.buses, frame, "then the panel is sent as rest, with panel_ok false")?;
    }
    user_data(out, plan)?;
    for frame in &plan.send {
        send(out, &plan.buses, frame)?;
        for signal in &frame.signals {
            shown(out, plan, signal)?;
        }
    }
    vehicle(out, plan)?;
    warnings(out, &config.warnings)
}

fn active(out: &mut String, plan: &StationPlan) -> fmt::Result {
    match &plan.active {
        ActiveVehicle::Only => writeln!(out, "active     the only vehicle that is connected"),
        ActiveVehicle::Named(name) => writeln!(out, "active     {name}"),
        ActiveVehicle::Panel { signal, vehicles } => {
            let choices: Vec<String> =
                vehicles.iter().map(|(value, name)| format!("{} -> {name}", Short(*value))).collect();
            let of = reference(&plan.receive, *signal);
            writeln!(out, "active     can.{of}: {}; else nobody", choices.join(", "))
        }
    }
}

/// Everything that is sent to the active vehicle.
fn user_data(out: &mut String, plan: &StationPlan) -> fmt::Result {
    writeln!(
        out,
        "\nuser_data  {}",
        if plan.user_data.is_empty() { "nothing" } else { "to the active vehicle" }
    )?;
    for sink in &plan.user_data {
        writeln!(out, "  {:<20} {}", sink.path.join("."), member(&plan.receive, sink))?;
    }
    Ok(())
}

fn member(receives: &[ReceivePlan], sink: &UserSink) -> String {
    match &sink.value {
        SinkValue::Counter { modulo: Some(modulo) } => {
            format!("counter: one more with every message, modulo {modulo}")
        }
        SinkValue::Counter { modulo: None } => "counter: one more with every message, never wraps".to_owned(),
        SinkValue::PanelOk => "true while every panel frame is fresh".to_owned(),
        SinkValue::Constant(value) => format!("always {value}"),
        SinkValue::Panel { signal, transform: way, form, rest } => {
            let mut text = format!("can.{}", reference(receives, *signal));
            match form {
                Form::Number => {
                    // Writing to a string cannot fail.
                    let _ = transform(&mut text, way);
                }
                Form::Switch if way.invert => text.push_str(": false where it is 1"),
                Form::Switch => text.push_str(": true where it is 1"),
                Form::Name(names) => {
                    let names: Vec<&str> = names.iter().map(|(_, name)| name.as_str()).collect();
                    let _ = write!(text, ": its name, {}", names.join(", "));
                }
            }
            let _ = write!(text, "; at rest {rest}");
            text
        }
    }
}

/// One signal of a dashboard.
fn shown(out: &mut String, plan: &StationPlan, signal: &SignalPlan) -> fmt::Result {
    writeln!(out, "  {}", signal.name)?;
    writeln!(out, "    bits     {}", Bits(&signal.codec))?;
    let mut text = written_slot(plan, signal.source);
    transform(&mut text, &signal.transform)?;
    if let Source::User(slot) = signal.source {
        if let Some(Slot::Feedback { vehicle: Some(vehicle), .. }) = plan.slots.get(usize::from(slot)) {
            write!(text, " of {vehicle}")?;
        }
        writeln!(out, "    source   {text}")?;
        writeln!(out, "    limits   {} .. {}", Short(signal.min), Short(signal.max))?;
        writeln!(out, "    rest     {}", Short(signal.safe))
    } else {
        writeln!(out, "    source   {text}")
    }
}

/// What the configuration of a vehicle must say for this desk.
fn vehicle(out: &mut String, plan: &StationPlan) -> fmt::Result {
    let counter = plan.user_data.iter().find_map(|sink| match sink.value {
        SinkValue::Counter { modulo } => Some((sink.path.join("."), modulo)),
        _ => None,
    });
    let panel_ok = plan.user_data.iter().find(|sink| sink.value == SinkValue::PanelOk);
    if counter.is_none() && panel_ok.is_none() {
        return Ok(());
    }
    writeln!(out, "\nThe vehicle must have")?;
    if let Some(sink) = panel_ok {
        let path = sink.path.join(".");
        writeln!(
            out,
            "  [arm] require = \"user.{path}\": or it drives on with the rest values of a lost panel"
        )?;
    }
    if let Some((path, modulo)) = counter {
        write!(out, "  [operator] counter = \"user.{path}\"")?;
        if let Some(modulo) = modulo {
            write!(out, ", counter_modulo = {modulo}")?;
        }
        let with = budget::loss_with_counter(&Settings::default()).as_millis();
        let without = budget::LOSS_WITHOUT_COUNTER.as_millis();
        writeln!(
            out,
            ": a lost desk ends in safe frames within {with} ms, and within {without} ms without it"
        )?;
    }
    Ok(())
}
