//! The frames that the watchdog sends.
//!
//! Owns `[send.*]` and the checks on a frame as a whole: every signal has a value, no two share a bit, the identifier
//! is ours alone. Relies on `protection`, and on each role for what a signal means there. Never decides when a frame goes
//! out.

use super::Role;
use super::buses::{Buses, described, signal};
use super::problem::{Findings, nearest};
use super::protection;
use super::reader::{Item, Table};
use super::receive::Receives;
use super::shape::Described;
use super::short::Short;
use crate::limits::{OUT_MESSAGES, OUT_SIGNALS};
use crate::safety::settings::PERIOD_MS;
use crate::signals::bits::Raw;
use crate::signals::dbc::{Message, Signal};
use crate::signals::plan::{SendMode, SendPlan, SignalPlan};
use crate::time::Duration;

/// Period without a key and without a cycle time in the DBC: OCP repeats every 20 ms (SAFETY.md section 4).
const DEFAULT_PERIOD_MS: u32 = 20;

/// Shortest gap of `mode = "on_command"` without a key: twice as fast as OCP sends, so every command finds its frame.
const DEFAULT_GAP_MS: u32 = 5;

/// Bits of the longest payload.
const PAYLOAD_BITS: usize = 512;

/// What a role makes of the signals in its frames.
pub(super) trait Mapping<'a> {
    /// Whose frames they are.
    const ROLE: Role;

    /// Whether they command: a vehicle's own do, and those of a car that is played do not.
    const IS_COMMAND: bool = true;

    /// Bounds of a period in milliseconds.
    const PERIOD_MS: (u32, u32) = PERIOD_MS;

    /// Reads one signal. `None` where something is wrong with it, which is reported.
    fn signal(&mut self, table: &Table<'a>, about: &Described) -> Option<SignalPlan>;

    /// The received frames of the file.
    fn receives(&self) -> &Receives<'a>;
}

/// Reads `[send.*]` inside `root`; a vehicle must have commands.
pub(super) fn read<'a, M: Mapping<'a>>(root: &Table<'a>, buses: &'a Buses, mapping: &mut M) -> Vec<SendPlan> {
    let mut frames: Vec<SendPlan> = Vec::new();
    let item = match M::ROLE {
        Role::Vehicle if M::IS_COMMAND => {
            root.required("send", "the frames that are sent, such as [send.DRIVE_CMD]")
        }
        Role::Vehicle | Role::Operator => root.item("send"),
    };
    let Some(table) = item.and_then(|item| item.table(root.findings)) else { return frames };
    if table.named().is_empty() {
        root.findings.at(&table, "no frame to send: add one, such as [send.DRIVE_CMD]");
    }
    if let Some(excess) = table.named().get(OUT_MESSAGES) {
        root.findings.at(excess, format!("more than {OUT_MESSAGES} frames to send"));
    }
    for item in table.named().iter().take(OUT_MESSAGES) {
        item.is_named(root.findings);
        let Some(inner) = item.table(root.findings) else { continue };
        if let Some(plan) = frame(&inner, buses, mapping) {
            if let Some(other) = frames.iter().find(|f| f.bus == plan.bus && f.id == plan.id) {
                let reason = format!("the same frame is already sent as {}", other.name);
                root.findings.at(item, reason);
            }
            frames.push(plan);
        }
        inner.finish();
    }
    let signals: usize = frames.iter().map(|f| f.signals.len()).sum();
    if signals > OUT_SIGNALS {
        root.findings.at(&table, format!("{signals} signals, and at most {OUT_SIGNALS} are sent"));
    }
    if M::IS_COMMAND {
        ours_alone(root.findings, &frames, mapping.receives());
    }
    frames
}

/// A frame cannot be both our command and the vehicle's feedback (fault 101): our own echo would confirm itself.
fn ours_alone(findings: &Findings, frames: &[SendPlan], receives: &Receives<'_>) {
    for (receive, item) in receives.plans.iter().zip(&receives.items) {
        if let Some(frame) = frames.iter().find(|f| f.bus == receive.bus && f.id == receive.id) {
            findings
                .at(*item, format!("this frame is sent as send.{}: it cannot be feedback too", frame.name));
        }
    }
}

fn frame<'a, M: Mapping<'a>>(table: &Table<'a>, buses: &'a Buses, mapping: &mut M) -> Option<SendPlan> {
    let bus = buses.chosen(table);
    let message = bus.and_then(|bus| buses.message(table, bus));
    let period_ms = table
        .integer("period_ms", M::PERIOD_MS.0, M::PERIOD_MS.1, " ms")
        .unwrap_or_else(|| default_period(message, M::PERIOD_MS));
    let mode = mode(table, period_ms);
    let fd_key = table.item("fd");
    let fd = table.flag("fd");
    let (Some(bus), Some(message)) = (bus, message) else {
        // Without the message nothing more can be said about these.
        for key in ["message", "enable", "counter", "checksum", "signals"] {
            table.item(key);
        }
        return None;
    };
    let fd = buses.frame_format(table, fd_key, fd, message, bus);
    geometry(table, message);

    let enable = match M::ROLE {
        Role::Vehicle if M::IS_COMMAND => protection::enable(table, message),
        Role::Vehicle | Role::Operator => {
            let why = match M::ROLE {
                Role::Operator => "tells a vehicle to obey: a dashboard obeys nobody; map it as a signal",
                Role::Vehicle => {
                    "tells a vehicle to obey, and nobody obeys a simulated car; map it as a signal"
                }
            };
            table.refuse(&[("enable", why)]);
            None
        }
    };
    let counter = protection::counter(table, message);
    let checksum = protection::checksum(table, message);
    let mut taken: Vec<&str> = Vec::new();
    let protecting = [
        enable.as_ref().map(|n| (n.item, n.signal)),
        counter.as_ref().map(|n| (n.item, n.signal)),
        checksum.as_ref().map(|n| (n.item, n.signal)),
    ];
    for (item, name) in protecting.into_iter().flatten() {
        claim(table.findings, &mut taken, item, name);
    }
    let complete = protecting.iter().flatten().count()
        == ["enable", "counter", "checksum"].iter().filter(|k| table.item(k).is_some()).count();
    let signals = signals(table, message, &mut taken, complete, mapping);
    Some(SendPlan {
        name: table.of.key.clone(),
        bus,
        id: message.id,
        len: message.len,
        fd,
        period: Duration::from_millis(u64::from(period_ms)),
        mode,
        enable: enable.map(|n| n.plan),
        counter: counter.map(|n| n.plan),
        checksum: checksum.map(|n| n.plan),
        signals,
    })
}

/// The DBC's cycle time as far as it is allowed, else the usual one.
fn default_period(message: Option<&Message>, bounds: (u32, u32)) -> u32 {
    let cycle = message.and_then(|m| m.cycle).and_then(|c| u32::try_from(c.as_millis()).ok());
    cycle.map_or(DEFAULT_PERIOD_MS, |ms| ms.clamp(bounds.0, bounds.1))
}

fn mode(table: &Table<'_>, period_ms: u32) -> SendMode {
    let on_command = table.choice("mode", &[("cyclic", false), ("on_command", true)]).unwrap_or(false);
    let gap_item = table.item("min_gap_ms");
    let gap =
        table.integer("min_gap_ms", 1, period_ms, " ms").unwrap_or_else(|| DEFAULT_GAP_MS.min(period_ms));
    match (on_command, gap_item) {
        (true, _) => SendMode::OnCommand { min_gap: Duration::from_millis(u64::from(gap)) },
        (false, Some(item)) => {
            table.findings.at(item, "has no effect without mode = \"on_command\"");
            SendMode::Cyclic
        }
        (false, None) => SendMode::Cyclic,
    }
}

/// Every signal inside the message, none on another's bits, none multiplexed.
fn geometry(table: &Table<'_>, message: &Message) {
    let findings = table.findings;
    let mut owner: Vec<Option<&str>> = vec![None; PAYLOAD_BITS];
    for signal in &message.signals {
        if signal.is_multiplexor || !signal.mux.is_empty() {
            let reason = format!(
                "{} is multiplexed (signal {}): such frames cannot be sent",
                message.name, signal.name
            );
            findings.at(table, reason);
            return;
        }
        // A signal whose bits cannot exist is reported where it is mapped.
        let Ok(codec) = signal.codec else { continue };
        let mut met: Vec<&str> = Vec::new();
        for bit in codec.bit_positions() {
            let Some(slot) = owner.get_mut(usize::from(bit)) else { continue };
            match slot {
                Some(other) if !met.contains(other) => met.push(other),
                Some(_) => {}
                None => *slot = Some(&signal.name),
            }
        }
        for other in met {
            findings.at(table, format!("{} and {other} overlap in the DBC", signal.name));
        }
    }
}

/// Each signal has one job.
fn claim<'a>(findings: &Findings, taken: &mut Vec<&'a str>, item: &Item, name: &'a str) {
    if taken.contains(&name) {
        findings.at(item, format!("{name} is already used in this frame"));
    } else {
        taken.push(name);
    }
}

/// Reads `[send.*.signals]`; every signal of the message must be there or protect the frame.
fn signals<'a, M: Mapping<'a>>(
    table: &Table<'a>,
    message: &'a Message,
    taken: &mut Vec<&'a str>,
    complete: bool,
    mapping: &mut M,
) -> Vec<SignalPlan> {
    let findings = table.findings;
    let mut plans = Vec::new();
    if let Some(inner) = table.table("signals") {
        for item in inner.named() {
            let Some(found) = signal(message, item, &item.key, findings) else {
                // The signal that was probably meant is not missing as well.
                let names = message.signals.iter().map(|s| s.name.as_str());
                let meant = nearest(&item.key, names).and_then(|name| message.signal(&name));
                taken.extend(meant.map(|signal| signal.name.as_str()));
                continue;
            };
            claim(findings, taken, item, &found.name);
            let Some(keys) = item.table(findings) else { continue };
            if let Some(about) = described(found, item, findings).filter(|a| range(item, findings, found, a))
            {
                plans.extend(mapping.signal(&keys, &about));
                keys.finish();
            }
        }
    }
    // Where a protecting signal could not be resolved, it would be reported here a second time.
    if complete {
        for signal in message.signals.iter().filter(|s| !taken.contains(&s.name.as_str())) {
            let what =
                format!("the DBC has {0} in this frame; give it a source, or `value = 0`", signal.name);
            table.missing(&format!("signals.{}", signal.name), &what);
        }
    }
    plans
}

/// The range of a sent signal must fit its bits.
fn range(item: &Item, findings: &Findings, signal: &Signal, about: &Described) -> bool {
    let Some((min, max)) = signal.limits else { return true };
    let (low, high) = about.codec.physical_range();
    // Half a step: a range that was rounded for the eye still fits.
    let slack = if about.codec.raw == Raw::Float { 0.0 } else { about.codec.factor.abs() / 2.0 };
    if min < low - slack || max > high + slack {
        let reason = format!(
            "the DBC's range {} .. {} of {} does not fit its {} bits, {} .. {}",
            Short(min),
            Short(max),
            signal.name,
            about.codec.bits,
            Short(low),
            Short(high)
        );
        findings.at(item, reason);
        return false;
    }
    true
}
