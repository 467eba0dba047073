//! How long it takes from a fault to a safe frame, from the times of a configuration.
//!
//! Owns the arithmetic of the timing budget. Relies on `safety::settings` and the plan. Never measures anything: the
//! benches do.

use crate::safety::settings::Settings;
use crate::signals::plan::Plan;
use crate::time::Duration;

/// From a fault that the gateway has seen to the safe frame on the bus, worst allowed: reader 8, check 2, watchdog 8,
/// compose and write 1, controller 3, bus 3 ms.
pub const REACTION: Duration = Duration::from_millis(25);

/// OCP goes on repeating the last command of a lost operator for this long before it says so.
pub const OCP_OPERATOR_LOSS: Duration = Duration::from_millis(1_000);

/// OCP's repeat interval: the news waits for the next message.
pub const OCP_REPEAT: Duration = Duration::from_millis(20);

/// What the vehicle's own actuator units must do when frames stay away: no software survives a power cut.
pub const ACTUATOR_TIMEOUT: Duration = Duration::from_millis(200);

/// From the operator's link failing to the safe frame where no operator counter shows it: OCP has to say so.
pub const LOSS_WITHOUT_COUNTER: Duration =
    OCP_OPERATOR_LOSS.saturating_add(OCP_REPEAT).saturating_add(REACTION);

/// The same with an operator counter, after its last change.
#[must_use]
pub fn loss_with_counter(settings: &Settings) -> Duration {
    settings.operator_freeze + REACTION
}

/// One way to lose control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What happens.
    pub cause: String,
    /// Longest time until the safe frame is on the bus.
    pub within: Duration,
    /// What to know about it, possibly nothing.
    pub note: &'static str,
}

/// From the operator's link failing to the safe frame.
#[must_use]
pub fn operator_loss(plan: &Plan, settings: &Settings) -> Duration {
    match plan.operator_counter {
        Some(_) => loss_with_counter(settings),
        None => LOSS_WITHOUT_COUNTER,
    }
}

/// The budget, shortest reactions first.
#[must_use]
pub fn budget(plan: &Plan, settings: &Settings) -> Vec<Row> {
    let row = |cause: &str, detection: Duration, note: &'static str| Row {
        cause: cause.to_owned(),
        within: detection + REACTION,
        note,
    };
    let mut rows = vec![
        row("fault flag, closed connection, invalid axis, missing controller", Duration::ZERO, ""),
        row("latency above safety.latency_stop_ms", Duration::ZERO, "after the message that says it"),
        row("our reply is not taken", settings.reply, ""),
        row("a message arrives in drips", settings.frame_assembly, ""),
        row("a reader thread stalls", settings.thread_stall, ""),
        row(
            "no echo: cable cut, bus-off",
            settings.echo,
            "nothing can leave: the actuator's own timeout stops it",
        ),
        row("OCP silent", settings.ocp_silence, ""),
        row("messages older than allowed", settings.stale, ""),
        row("ack_time frozen", settings.ack_freeze, ""),
    ];
    for receive in plan.receive.iter().filter(|r| r.required) {
        rows.push(row(&format!("feedback {} stays away", receive.name), receive.stale_after, ""));
    }
    if plan.send.iter().any(|f| f.signals.iter().any(|s| s.confirm.is_some())) {
        rows.push(row("feedback contradicts the command", settings.contradiction, "LOCKOUT"));
    }
    let (cause, note) = match plan.operator_counter {
        Some(_) => ("operator gone", "after the last change of the operator counter"),
        None => ("operator gone", "no operator counter: OCP repeats the last command for 1,000 ms"),
    };
    rows.push(Row { cause: cause.to_owned(), within: operator_loss(plan, settings), note });
    rows.sort_by_key(|r| r.within);
    rows
}

/// Metres that a vehicle moves in this time.
#[must_use]
pub fn blind_metres(speed_kph: f64, time: Duration) -> f64 {
    speed_kph / 3.6 * time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::plan::OperatorCounter;

    #[test]
    fn the_safety_pages_figures_come_out() {
        let settings = Settings::default();
        let mut plan = Plan::default();
        assert_eq!(operator_loss(&plan, &settings), Duration::from_millis(1_045));
        plan.operator_counter = Some(OperatorCounter { field: 0, modulo: None });
        assert_eq!(operator_loss(&plan, &settings), Duration::from_millis(275));
        let rows = budget(&plan, &settings);
        let of = |cause: &str| rows.iter().find(|r| r.cause.starts_with(cause)).map(|r| r.within.as_millis());
        assert_eq!(of("fault flag"), Some(25));
        assert_eq!(of("OCP silent"), Some(125));
        assert_eq!(of("no echo"), Some(75));
        // 30 km/h for 1,045 ms: 8.7 m.
        assert!((blind_metres(30.0, Duration::from_millis(1_045)) - 8.7).abs() < 0.05);
    }
}
