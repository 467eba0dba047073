//! The frames that are listened to, and references to their signals.
//!
//! Owns `[receive.*]`, `[report.*]` and `[standstill]`. Relies on `buses` for the DBC. Never decides what a stale value
//! means.

use super::Role;
use super::assetto::Known;
use super::buses::{Buses, described};
use super::problem::{Findings, Place as _, nearest};
use super::protection;
use super::reader::{Item, Table, Value};
use super::short::Short;
use super::sources::CAR;
use crate::limits::{FEEDBACK_MESSAGES, REPORT_FIELDS};
use crate::signals::dbc::Message;
use crate::signals::plan::{
    PositionReport, ReceivePlan, ReceiveSignal, ReportField, ReportSource, SignalRef, SpeedPlan,
};
use crate::time::Duration;

/// Bounds of a staleness time in milliseconds: below 20 every frame of a usual bus is stale, above 5 s "fresh" means
/// nothing.
const STALE_MS: (u32, u32) = (20, 5_000);

/// Bounds of the period of a received frame in milliseconds.
const PERIOD_MS: (u32, u32) = (1, 5_000);

/// Staleness without a key: three periods, but not less than this (SAFETY.md, row 60).
const STALE_DEFAULT_MS: u32 = 100;

/// Largest share of a speed signal's range that can count as standing: beyond walking pace of every vehicle.
const STANDSTILL_SHARE: f64 = 0.1;

/// The key of `user_data` under which the gateway reports itself.
pub const GATEWAY_KEY: &str = "gateway";

fn millis(ms: u32) -> Duration {
    Duration::from_millis(u64::from(ms))
}

/// The received frames.
#[derive(Debug, Default)]
pub(super) struct Receives<'a> {
    pub(super) plans: Vec<ReceivePlan>,
    messages: Vec<&'a Message>,
    /// Line and path of each, for problems found later.
    pub(super) items: Vec<&'a Item>,
    /// Every name in the file, also of those that were refused: a reference to one of them is not a second problem.
    declared: Vec<&'a str>,
    /// What the file says about `required`.
    required: Vec<Option<bool>>,
}

impl<'a> Receives<'a> {
    /// Reads `[receive.*]`.
    pub(super) fn read(root: &Table<'a>, buses: &'a Buses, role: Role) -> Self {
        let mut receives = Self::default();
        let Some(table) = root.table("receive") else { return receives };
        if let Some(excess) = table.named().get(FEEDBACK_MESSAGES) {
            root.findings.at(excess, format!("more than {FEEDBACK_MESSAGES} received messages"));
        }
        for item in table.named().iter().take(FEEDBACK_MESSAGES) {
            receives.declared.push(&item.key);
            item.is_named(root.findings);
            if let Some(inner) = item.table(root.findings) {
                receives.message(item, &inner, buses, role);
                inner.finish();
            }
        }
        receives
    }

    fn message(&mut self, item: &'a Item, table: &Table<'a>, buses: &'a Buses, role: Role) {
        let findings = table.findings;
        let bus = buses.chosen(table);
        let message = bus.and_then(|bus| buses.message(table, bus));
        let period = table.integer("period_ms", PERIOD_MS.0, PERIOD_MS.1, " ms");
        let stale = table.integer("stale_after_ms", STALE_MS.0, STALE_MS.1, " ms");
        let required = match role {
            Role::Vehicle => table.flag("required"),
            Role::Operator => {
                table.refuse(&[(
                    "required",
                    "nothing trips at a desk: while a panel frame is stale the panel is sent as its rest values, with \
                     panel_ok = false",
                )]);
                None
            }
        };
        let fd_item = table.item("fd");
        let fd = table.flag("fd");
        let (Some(bus), Some(message)) = (bus, message) else {
            // References to the message that was probably meant are no second problem.
            self.declared.extend(bus.and_then(|bus| buses.meant(table, bus)));
            // Without the message nothing more can be said about these.
            for key in ["message", "counter", "checksum"] {
                table.item(key);
            }
            return;
        };
        let fd = buses.frame_format(table, fd_item, fd, message, bus);
        let counter = protection::counter(table, message).map(|c| c.plan);
        let checksum = protection::checksum(table, message).map(|c| c.plan);
        if let Some(other) = self.plans.iter().find(|p| p.bus == bus && p.id == message.id) {
            findings.at(item, format!("the same frame is already received as {}", other.name));
            return;
        }
        let period = period.map(millis).or(message.cycle);
        let bounds = (millis(STALE_DEFAULT_MS), millis(STALE_MS.1));
        let default = period.map_or(Duration::ZERO, |p| p.saturating_mul(3)).clamp(bounds.0, bounds.1);
        self.plans.push(ReceivePlan {
            name: item.key.clone(),
            bus,
            id: message.id,
            len: message.len,
            fd,
            stale_after: stale.map_or(default, millis),
            required: required.unwrap_or(false),
            counter,
            checksum,
            signals: Vec::new(),
        });
        self.messages.push(message);
        self.items.push(item);
        self.required.push(required);
    }

    /// The signal that `MESSAGE.SIGNAL` names; it is read from now on.
    pub(super) fn reference(&mut self, item: &Item, findings: &Findings) -> Option<SignalRef> {
        self.reference_after("", item, findings)
    }

    /// The same where something stands in front of the name: `can.MESSAGE.SIGNAL`.
    pub(super) fn reference_after(
        &mut self,
        prefix: &str,
        item: &Item,
        findings: &Findings,
    ) -> Option<SignalRef> {
        let text = item.text(findings)?;
        let Some((name, signal_name)) = text.strip_prefix(prefix).and_then(|text| text.rsplit_once('.'))
        else {
            findings.at(item, format!("must be {prefix}MESSAGE.SIGNAL, not {text:?}"));
            return None;
        };
        let Some(receive) = self.plans.iter().position(|plan| plan.name == name) else {
            if !self.declared.contains(&name) {
                let like = nearest(name, self.declared.iter().copied())
                    .map(|n| format!("{prefix}{n}.{signal_name}"));
                findings.at_like(item, format!("no [receive.{name}] in this file"), like);
            }
            return None;
        };
        let message = *self.messages.get(receive)?;
        let Some(found) = message.signal(signal_name) else {
            let names = message.signals.iter().map(|s| s.name.as_str());
            let like = nearest(signal_name, names).map(|n| format!("{prefix}{name}.{n}"));
            findings.at_like(item, format!("message {} has no signal {signal_name:?}", message.name), like);
            return None;
        };
        let signals = &mut self.plans.get_mut(receive)?.signals;
        if let Some(known) = signals.iter().position(|s| s.name == signal_name) {
            return Some(SignalRef { receive, signal: known });
        }
        let about = described(found, item, findings)?;
        let Some(mux) = found.simple_mux() else {
            let reason =
                format!("{signal_name} is multiplexed by more than one value: such signals are not read");
            findings.at(item, reason);
            return None;
        };
        signals.push(ReceiveSignal {
            name: found.name.clone(),
            codec: about.codec,
            min: about.low,
            max: about.high,
            names: found.names.clone(),
            mux,
        });
        Some(SignalRef { receive, signal: signals.len() - 1 })
    }

    /// The same for a signal that safety relies on: its frame is required unless the file says otherwise.
    pub(super) fn relied_on(&mut self, item: &Item, findings: &Findings) -> Option<SignalRef> {
        let found = self.reference(item, findings)?;
        let said = self.required.get(found.receive).copied().flatten();
        if let (None, Some(plan)) = (said, self.plans.get_mut(found.receive)) {
            plan.required = true;
        }
        if said == Some(false) {
            findings.warn(
                item.path(),
                "the frame is not required: when it stays away, the gateway drives on without it",
            );
        }
        Some(found)
    }

    /// What is known of a signal that is read.
    pub(super) fn signal(&self, of: SignalRef) -> Option<&ReceiveSignal> {
        self.plans.get(of.receive)?.signals.get(of.signal)
    }

    /// Whether the file has a table of this name.
    pub(super) fn is_declared(&self, name: &str) -> bool {
        self.declared.contains(&name)
    }

    fn stale_after(&self, signal: SignalRef) -> Duration {
        self.plans.get(signal.receive).map_or(Duration::ZERO, |plan| plan.stale_after)
    }

    /// Reads `[report.*]`.
    pub(super) fn report(
        &mut self,
        root: &Table<'_>,
        car: Option<Known>,
    ) -> (Vec<ReportField>, Option<PositionReport>) {
        let Some(table) = root.table("report") else { return (Vec::new(), None) };
        let mut fields = Vec::new();
        if let Some(user_data) = table.table("user_data") {
            if let Some(excess) = user_data.named().get(REPORT_FIELDS) {
                table.findings.at(excess, format!("more than {REPORT_FIELDS} reported fields"));
            }
            for item in user_data.named().iter().take(REPORT_FIELDS) {
                fields.extend(self.field(item, car, table.findings));
            }
        }
        let position = table.table("pos").and_then(|pos| self.position(pos, car));
        table.finish();
        (fields, position)
    }

    /// What `MESSAGE.SIGNAL` or `assetto.NAME` names, and how old it may be where the file says nothing.
    fn reported(
        &mut self,
        item: &Item,
        car: Option<Known>,
        findings: &Findings,
    ) -> Option<(ReportSource, Duration)> {
        match &item.value {
            Value::Text(text) if text.starts_with(CAR) => {
                let Some(car) = car else {
                    findings.at(item, "there is no simulated car: this file has no [assetto]");
                    return None;
                };
                Some((ReportSource::Car(car.value(item, findings, text)?), car.stale_after))
            }
            _ => {
                let signal = self.reference(item, findings)?;
                Some((ReportSource::Signal(signal), self.stale_after(signal)))
            }
        }
    }

    /// `key = "MESSAGE.SIGNAL"` or `key = { signal, stale_after_ms }`.
    fn field(&mut self, item: &Item, car: Option<Known>, findings: &Findings) -> Option<ReportField> {
        if item.key == GATEWAY_KEY {
            findings.at(item, "this key is the gateway's own report; take another name");
            return None;
        }
        if !item.is_named(findings) {
            return None;
        }
        let ((from, usual), stale) = if let Value::Text(_) = item.value {
            (self.reported(item, car, findings)?, None)
        } else {
            let table = item.table(findings)?;
            let signal = table.required("signal", "what is reported, MESSAGE.SIGNAL");
            let signal = signal.and_then(|item| self.reported(item, car, findings));
            let stale = table.integer("stale_after_ms", STALE_MS.0, STALE_MS.1, " ms");
            table.finish();
            (signal?, stale)
        };
        Some(ReportField { key: item.key.clone(), from, stale_after: stale.map_or(usual, millis) })
    }

    /// `[report.pos]`.
    fn position(&mut self, table: Table<'_>, car: Option<Known>) -> Option<PositionReport> {
        let findings = table.findings;
        let lat = table.required("lat", "latitude in degrees, MESSAGE.SIGNAL");
        let lat = lat.and_then(|item| self.reported(item, car, findings));
        let lon = table.required("lon", "longitude in degrees, MESSAGE.SIGNAL");
        let lon = lon.and_then(|item| self.reported(item, car, findings));
        let stale = table.integer("stale_after_ms", STALE_MS.0, STALE_MS.1, " ms");
        table.finish();
        let ((lat, lat_stale), (lon, lon_stale)) = (lat?, lon?);
        let stale_after = stale.map_or_else(|| lat_stale.max(lon_stale), millis);
        Some(PositionReport { lat, lon, stale_after })
    }

    /// Reads `[standstill]`.
    pub(super) fn standstill(&mut self, root: &Table<'_>) -> Option<SpeedPlan> {
        let table = root.table("standstill")?;
        let findings = table.findings;
        let signal = table.required("signal", "where the speed is read, MESSAGE.SIGNAL");
        let signal = signal.and_then(|item| self.relied_on(item, findings));
        let at_most = table
            .required("at_most", "the highest speed that counts as standing")
            .and_then(|item| self.standing(item, signal, findings));
        let cap_without_counter = table.positive("speed_cap_without_counter");
        table.finish();
        Some(SpeedPlan { signal: signal?, standstill: at_most?, cap_without_counter })
    }

    /// The highest speed that counts as standing: a small part of what the signal can say, or the vehicle would
    /// "stand" at every speed.
    fn standing(&self, item: &Item, signal: Option<SignalRef>, findings: &Findings) -> Option<f64> {
        let speed = item.number(findings)?;
        if speed < 0.0 {
            findings.at(item, format!("must be 0 or more, not {}", Short(speed)));
            return None;
        }
        let found = signal.and_then(|of| self.signal(of));
        let Some(found) = found else { return Some(speed) };
        // A float without a range says what its bits can hold.
        let (low, high) = found.codec.physical_range();
        let fastest = found.min.max(low).abs().max(found.max.min(high).abs());
        if speed > fastest * STANDSTILL_SHARE {
            let reason = format!(
                "{} is no standstill: {} goes up to {}, and at most a tenth of it counts as standing",
                Short(speed),
                found.name,
                Short(fastest)
            );
            findings.at(item, reason);
            return None;
        }
        Some(speed)
    }
}
