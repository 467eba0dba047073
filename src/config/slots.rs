//! What a desk can read: its panel, the vehicles' feedback and itself.
//!
//! Owns the spelling `can.*`, `feedback.*` and `station.*`, the list of slots that the dashboard names, and the signals of
//! a dashboard. Relies on `receive` for the panel and on the schema of OCP's feedback. Never reads a value.

use super::Role;
use super::mapping::{reach, resting};
use super::problem::{Findings, nearest};
use super::reader::{Item, Table};
use super::receive::Receives;
use super::send::Mapping;
use super::shape::{self, Described};
use crate::limits::USER_FIELDS;
use crate::signals::plan::{Kind, SignalPlan};
use crate::signals::source::{AXES, BUTTONS, Source};
use crate::signals::station::{Own, Slot, StationPlan};
use crate::signals::transform::Transform;

/// Keys that lead to one member of the feedback: `vehicle_data.user_data` and as many as a vehicle may report.
const PATH_DEPTH: usize = 10;

/// The members of a vehicle's feedback that hold a value or a list, in the vendor's order.
const VALUES: [&str; 9] = [
    "ping_latency_ms",
    "message_latency_roundtrip",
    "ms_since_last_vehicle_data",
    "missing_cameras",
    "sender_fault",
    "receiver_fault",
    "ack_time",
    "ack_time_mac",
    "is_monitor",
];

/// The members that hold others.
const OBJECTS: [&str; 2] = ["vehicle_data", "last_remote_input"];

/// The keys of a vehicle's signal that a dashboard has not.
const VEHICLE_KEYS: [(&str, &str); 10] = [
    ("kind", "is for signals that move a vehicle: a dashboard only shows"),
    ("safe", "is for signals that move a vehicle: what a dashboard shows without a value is `rest`"),
    ("stop", "is for signals that move a vehicle: without a value a dashboard shows `rest` at once"),
    ("slew_up_per_s", "is for signals that move a vehicle: a dashboard shows the value as it is"),
    ("slew_down_per_s", "is for signals that move a vehicle: a dashboard shows the value as it is"),
    ("change", "is for signals that move a vehicle: a dashboard only shows"),
    ("feedback", "is for signals that move a vehicle: what is shown is `source = \"feedback.<path>\"`"),
    ("feedback_tolerance", "is for signals that move a vehicle: a dashboard only shows"),
    ("select", "is for signals that move a vehicle: a dashboard remembers nothing"),
    ("form", "is for user_data: the values of a CAN signal are numbers, and names of the DBC are understood"),
];

/// A key that `shape` knows: nothing is said about the shape of what has it.
pub(super) const TOGGLE: [(&str, &str); 1] =
    [("toggle", "is for signals that move a vehicle: a desk remembers no presses")];

/// A source of a desk by its first word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin<'a> {
    /// `can.MESSAGE.SIGNAL`.
    Panel,
    /// `feedback.<path>`.
    Feedback(&'a str),
    /// `station.<name>`.
    Station(Own),
}

/// What stands before a signal of the panel.
pub(super) const PANEL: &str = "can.";

/// Reads the first word of a source, and the rest where a list says what exists. `takes` names the sources that fit.
pub(super) fn origin<'a>(
    item: &'a Item,
    receives: &Receives<'_>,
    findings: &Findings,
    takes: &str,
) -> Option<Origin<'a>> {
    if item.is_number() {
        findings.at(item, "a number is no source: write `value = ...` for a constant");
        return None;
    }
    let text = item.text(findings)?;
    let (prefix, rest) = text.split_once('.').unwrap_or((text, ""));
    match prefix {
        "can" => Some(Origin::Panel),
        "feedback" => Some(Origin::Feedback(rest)),
        "station" => own(item, findings, rest).map(Origin::Station),
        "axes" | "buttons" => {
            let reason = format!(
                "{prefix}.* is the gamepad, which OCP takes to the vehicle by itself: this takes {takes}"
            );
            findings.at(item, reason);
            None
        }
        "user" => {
            findings.at(
                item,
                format!("user.* is what arrives in a vehicle, and a desk sends it: this takes {takes}"),
            );
            None
        }
        _ => {
            // A signal of the panel without its first word is the likely mistake.
            let bare = receives.is_declared(prefix).then(|| format!("{PANEL}{text}"));
            let word = || nearest(prefix, ["can", "feedback", "station"]).filter(|_| !rest.is_empty());
            let like = bare.or_else(|| word().map(|word| format!("{word}.{rest}")));
            findings.at_like(item, format!("no such source: {text:?}; this takes {takes}"), like);
            None
        }
    }
}

fn own(item: &Item, findings: &Findings, name: &str) -> Option<Own> {
    let found = Own::NAMES.iter().find(|(known, _)| *known == name);
    if found.is_none() {
        let names = Own::NAMES.map(|(name, _)| name);
        let like = nearest(name, names).map(|name| format!("station.{name}"));
        let reason = format!("there is no station.{name}; station has: {}", names.join(", "));
        findings.at_like(item, reason, like);
    }
    found.map(|(_, own)| *own)
}

/// The keys that lead to a member of a vehicle's feedback, if it can have a value.
fn feedback_path(item: &Item, findings: &Findings, path: &str) -> Option<Vec<String>> {
    let keys: Vec<&str> = path.split('.').collect();
    if keys.iter().any(|key| key.is_empty()) || keys.len() > PATH_DEPTH {
        let reason =
            format!("needs 1 to {PATH_DEPTH} keys after `feedback`, such as \"feedback.ping_latency_ms\"");
        findings.at(item, reason);
        return None;
    }
    let refuse = |reason: String, like: Option<String>| {
        findings.at_like(item, reason, like.map(|like| format!("feedback.{like}")));
    };
    // The one name at this depth that is not known.
    let among = |before: &str, name: &str, after: &str, names: &[&str]| {
        if names.contains(&name) {
            return Some(());
        }
        let like = nearest(name, names.iter().copied()).map(|name| format!("{before}{name}{after}"));
        refuse(format!("the feedback has no {before}{name}; there is: {}", names.join(", ")), like);
        None
    };
    let inside = |rest: &[&str]| rest.iter().map(|key| format!(".{key}")).collect::<String>();
    let members: Vec<&str> = VALUES.iter().chain(&OBJECTS).copied().collect();
    let wrong = match keys.as_slice() {
        [] | ["vehicle_data"] => "is an object: name what lies inside, such as vehicle_data.user_data.speed",
        ["last_remote_input"] => "is an object: name what lies inside, such as last_remote_input.axes.left_x",
        ["vehicle_data", "user_data", ..] => "",
        ["vehicle_data", "pos", name] => {
            among("vehicle_data.pos.", name, "", &["lat", "lon"])?;
            ""
        }
        ["vehicle_data", "pos", ..] => {
            "a position has two values: vehicle_data.pos.lat and vehicle_data.pos.lon"
        }
        ["vehicle_data", name, rest @ ..] => {
            among("vehicle_data.", name, &inside(rest), &["pos", "user_data"])?;
            ""
        }
        ["last_remote_input", "axes", name] => {
            among("last_remote_input.axes.", name, "", &AXES)?;
            ""
        }
        ["last_remote_input", "buttons", name] => {
            among("last_remote_input.buttons.", name, "", &BUTTONS)?;
            ""
        }
        ["last_remote_input", ..] => "last_remote_input has axes.* and buttons.*, and nothing inside them",
        [name, rest @ ..] => {
            among("", name, &inside(rest), &members)?;
            if rest.is_empty() { "" } else { "is no object: nothing lies inside" }
        }
    };
    if !wrong.is_empty() {
        refuse(wrong.to_owned(), None);
        return None;
    }
    Some(keys.into_iter().map(str::to_owned).collect())
}

/// The dashboard's signals, and the slots that they read.
#[derive(Debug)]
pub(super) struct Dashboard<'c, 'a> {
    pub(super) receives: &'c mut Receives<'a>,
    pub(super) slots: Vec<Slot>,
    /// Whether the limit was reported already: once is enough.
    full: bool,
}

impl<'a> Mapping<'a> for Dashboard<'_, 'a> {
    const ROLE: Role = Role::Operator;

    fn signal(&mut self, table: &Table<'a>, about: &Described) -> Option<SignalPlan> {
        table.refuse(&VEHICLE_KEYS);
        let rest = resting(
            table,
            about,
            "rest",
            "say what is shown without a value",
            "say what is shown without a value, or correct factor and offset in the DBC",
        );
        let (source, transform) = self.value(table, about, rest)?;
        let rest = rest?;
        let (min, max) = reach(source, &transform, rest);
        Some(SignalPlan::telling(
            (about.name.clone(), about.codec, !about.names.is_empty()),
            source,
            transform,
            (min, max),
            rest,
        ))
    }

    fn receives(&self) -> &Receives<'a> {
        self.receives
    }
}

impl<'c, 'a> Dashboard<'c, 'a> {
    pub(super) const fn new(receives: &'c mut Receives<'a>) -> Self {
        Self { receives, slots: Vec::new(), full: false }
    }

    /// Exactly one of `source` and `value`.
    fn value(
        &mut self,
        table: &Table<'_>,
        about: &Described,
        rest: Option<f64>,
    ) -> Option<(Source, Transform)> {
        let findings = table.findings;
        let vehicle = table.item("vehicle");
        match (table.item("source"), table.item("value")) {
            (Some(item), None) => {
                let Some(source) = self.slot(item, vehicle, about, findings) else {
                    shape::skip(table);
                    return None;
                };
                if table.refuse(&TOGGLE) {
                    shape::skip(table);
                    return None;
                }
                Some((source, shape::shape(table, about, Kind::Other, rest, source)?))
            }
            (None, Some(item)) => {
                let transform = shape::constant(table, "has no effect on a constant");
                if let Some(vehicle) = vehicle {
                    findings.at(vehicle, "has no effect on a constant");
                }
                Some((Source::Constant(shape::exact(item, table, about)?), transform))
            }
            (None, None) => {
                table.missing("source", "what the signal shows (or `value` for a constant)");
                shape::skip(table);
                None
            }
            (Some(_), Some(_)) => {
                findings.at(table, "only one of `source` and `value` can be given");
                shape::skip(table);
                None
            }
        }
    }

    /// The slot that a source reads.
    fn slot(
        &mut self,
        item: &Item,
        vehicle: Option<&Item>,
        about: &Described,
        findings: &Findings,
    ) -> Option<Source> {
        const TAKES: &str = "feedback.*, station.* or can.*";
        let origin = origin(item, self.receives, findings, TAKES)?;
        if let (Some(vehicle), Origin::Panel | Origin::Station(_)) = (vehicle, origin) {
            findings.at(vehicle, "has no effect here: only feedback.* belongs to a vehicle");
        }
        let slot = match origin {
            Origin::Panel => Slot::Panel(self.receives.reference_after(PANEL, item, findings)?),
            Origin::Feedback(path) => {
                let path = feedback_path(item, findings, path);
                let vehicle = vehicle.map(|vehicle| vehicle.text(findings));
                // A vehicle whose name is wrong is not the active one.
                let vehicle = match vehicle {
                    Some(name) => Some(name?.to_owned()),
                    None => None,
                };
                Slot::Feedback { path: path?, vehicle, names: about.names.clone() }
            }
            Origin::Station(Own::PanelOk) if self.receives.plans.is_empty() => {
                findings.at(item, "there is no panel: this file has no [receive.*]");
                return None;
            }
            Origin::Station(own) => Slot::Own(own),
        };
        let known = self.slots.iter().position(|other| *other == slot);
        let index = match known {
            Some(index) => index,
            None if self.slots.len() < USER_FIELDS => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
            None => {
                if !self.full {
                    findings.at(item, format!("more than {USER_FIELDS} different sources on a dashboard"));
                    self.full = true;
                }
                return None;
            }
        };
        u8::try_from(index).ok().map(Source::User)
    }
}

/// How the source of a dashboard signal is written in the file.
#[must_use]
pub fn written(plan: &StationPlan, source: Source) -> String {
    let slot = match source {
        Source::User(index) => plan.slots.get(usize::from(index)),
        _ => return super::sources::written(&[], source),
    };
    match slot {
        Some(Slot::Panel(signal)) => {
            let frame = plan.receive.get(signal.receive);
            let name = frame.and_then(|frame| Some((&frame.name, &frame.signals.get(signal.signal)?.name)));
            name.map_or_else(|| "?".to_owned(), |(frame, name)| format!("{PANEL}{frame}.{name}"))
        }
        Some(Slot::Feedback { path, .. }) => format!("feedback.{}", path.join(".")),
        Some(Slot::Own(own)) => {
            let name = Own::NAMES.iter().find(|(_, known)| known == own);
            format!("station.{}", name.map_or("?", |(name, _)| name))
        }
        None => "?".to_owned(),
    }
}
