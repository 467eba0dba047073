//! What a desk sends to the active vehicle.
//!
//! Owns `[user_data]`: its paths, the forms of a value, the rest values, and that the object fits a message. Relies on
//! `shape` for levers. Never decides what a stale panel means for a vehicle.

use super::problem::{Findings, nearest};
use super::reader::{self, Item, Table};
use super::receive::Receives;
use super::shape::{self, Described};
use super::short::Short;
use super::slots::{Origin, PANEL, TOGGLE, origin};
use super::{OPERATOR_MODULO, sources};
use crate::limits::{OCP_BODY, USER_FIELDS};
use crate::signals::plan::{Kind, ReceiveSignal, SignalRef};
use crate::signals::source::Source;
use crate::signals::station::{Form, Own, SinkValue, UserSink};
use crate::signals::transform::{Shape, Transform};
use serde_json::{Map, Value};

/// The member that says whether the panel can be believed.
pub(super) const PANEL_OK: &str = "panel_ok";

/// The key around the whole object in one of its two forms, so no key inside.
const WRAPPER: &str = "user_data";

/// Bytes of a message that are not `user_data`: two names of vehicles, the acks of several, the keys; and in the vehicle
/// the gamepad beside it.
const ENVELOPE_BYTES: usize = 1_024;

/// Characters of the longest finite number in JSON, such as -2.2250738585072014e-308.
const NUMBER_BYTES: usize = 24;

/// What `form` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Number,
    Switch,
    Name,
}

impl Written {
    const NAMES: [(&'static str, Self); 3] =
        [("number", Self::Number), ("switch", Self::Switch), ("name", Self::Name)];
}

/// Reads `[user_data]`.
pub(super) fn read(root: &Table<'_>, receives: &mut Receives<'_>) -> Vec<UserSink> {
    let Some(table) = root.table("user_data") else { return Vec::new() };
    let findings = root.findings;
    if let Some(excess) = table.named().get(USER_FIELDS) {
        findings.at(excess, format!("more than {USER_FIELDS} members: no vehicle reads more"));
    }
    let mut sinks = Vec::new();
    let mut largest = Map::new();
    for item in table.named().iter().take(USER_FIELDS) {
        let path = path(item, findings);
        let Some(keys) = item.table(findings) else { continue };
        if let Some(inner) = keys.named().iter().find(|inner| matches!(inner.value, reader::Value::Table(_)))
        {
            let name = format!("{}.{}", item.key, inner.key);
            findings.at(item, format!("a path with a dot needs quotes: {name:?} = {{ .. }}"));
            continue;
        }
        let value = value(item, &keys, path.as_deref(), receives);
        keys.finish();
        let (Some(path), Some(value)) = (path, value) else { continue };
        if !insert(&mut largest, &path, longest(&value)) {
            findings
                .at(item, "one name cannot be a value and hold others: another member begins or ends here");
            continue;
        }
        sinks.push(UserSink { path, value });
    }
    let bytes = Value::Object(largest).to_string().len();
    let most = OCP_BODY - ENVELOPE_BYTES;
    if bytes > most {
        let reason = format!(
            "this object can have {bytes} bytes, and {most} fit: a message of OCP has {OCP_BODY}, of which \
             {ENVELOPE_BYTES} are kept for names and acks"
        );
        findings.at(&table, reason);
    }
    sinks
}

/// Adds `panel_ok` where the panel is used and the file does not list it.
pub(super) fn complete(sinks: &mut Vec<UserSink>, uses_panel: bool) {
    if uses_panel && !sinks.iter().any(|sink| sink.path == [PANEL_OK]) {
        sinks.push(UserSink { path: vec![PANEL_OK.to_owned()], value: SinkValue::PanelOk });
    }
}

/// The keys of a dotted name.
fn path(item: &Item, findings: &Findings) -> Option<Vec<String>> {
    if !item.is_named(findings) {
        return None;
    }
    let path: Vec<String> = item.key.split('.').map(str::to_owned).collect();
    if path.iter().any(String::is_empty) || path.len() > sources::USER_DEPTH {
        findings.at(item, format!("a path has 1 to {} keys, such as \"arm.lift\"", sources::USER_DEPTH));
        return None;
    }
    if path.first().is_some_and(|key| key == WRAPPER) {
        findings
            .at(item, "a vehicle takes this key for the wrapper around the whole object: take another name");
        return None;
    }
    Some(path)
}

/// Exactly one of `source`, `value` and `counter`.
fn value(
    item: &Item,
    table: &Table<'_>,
    path: Option<&[String]>,
    receives: &mut Receives<'_>,
) -> Option<SinkValue> {
    let findings = table.findings;
    let (source, value, count) = (table.item("source"), table.item("value"), table.item("counter"));
    let reserved = path == Some(&[PANEL_OK.to_owned()]);
    let found = match (source, value, count) {
        (Some(of), None, None) => sourced(item, of, table, receives),
        (None, Some(of), None) => {
            idle(table, "has no effect on a constant");
            constant(of, findings)
        }
        (None, None, Some(of)) => {
            idle(table, "has no effect on a counter");
            counter(of, findings)
        }
        (None, None, None) => {
            table.missing("source", "where the value comes from (or `value` for a constant, or `counter`)");
            skip(table);
            None
        }
        _ => {
            findings.at(table, "only one of `source`, `value` and `counter` can be given");
            skip(table);
            None
        }
    }?;
    if reserved && found != SinkValue::PanelOk {
        findings.at(
            item,
            "this name says whether the panel can be believed: leave it out, or write { source = \"station.panel_ok\" }",
        );
        return None;
    }
    Some(found)
}

/// Where something is wrong already, the other keys are known and no more.
fn skip(table: &Table<'_>) {
    table.item("form");
    table.item("rest");
    shape::skip(table);
}

/// Nothing but the value itself can be said here.
fn idle(table: &Table<'_>, why: &str) {
    table.refuse(&[("form", why), ("rest", why)]);
    shape::constant(table, why);
}

fn constant(item: &Item, findings: &Findings) -> Option<SinkValue> {
    let value = match &item.value {
        reader::Value::Text(_) => Value::from(item.text(findings)?),
        reader::Value::Flag(flag) => Value::from(*flag),
        reader::Value::Integer(_) | reader::Value::Huge | reader::Value::Number(_) => {
            number(item, item.number(findings)?)
        }
        _ => {
            findings.at(item, "must be a text, a number, true or false");
            return None;
        }
    };
    Some(SinkValue::Constant(value))
}

/// A number as the file writes it: an integer stays one.
fn number(item: &Item, number: f64) -> Value {
    match item.value {
        reader::Value::Integer(integer) => Value::from(integer),
        _ => Value::from(number),
    }
}

fn counter(item: &Item, findings: &Findings) -> Option<SinkValue> {
    let modulo = match item.value {
        reader::Value::Flag(true) => None,
        reader::Value::Flag(false) => {
            findings.at(item, "must be true, for a counter that never wraps, or its modulo");
            return None;
        }
        _ => Some(item.integer(findings, OPERATOR_MODULO, u32::MAX, "")?),
    };
    Some(SinkValue::Counter { modulo })
}

/// A signal of the panel, or whether the panel can be believed.
fn sourced(item: &Item, of: &Item, table: &Table<'_>, receives: &mut Receives<'_>) -> Option<SinkValue> {
    const TAKES: &str = "can.*, or `value` or `counter`";
    let findings = table.findings;
    let signal = match origin(of, receives, findings, TAKES) {
        Some(Origin::Panel) => receives.reference_after(PANEL, of, findings),
        Some(Origin::Station(Own::PanelOk)) => {
            idle(table, "has no effect on station.panel_ok, which is true or false at all times");
            if receives.plans.is_empty() {
                findings.at(of, "there is no panel: this file has no [receive.*]");
                return None;
            }
            return Some(SinkValue::PanelOk);
        }
        Some(Origin::Feedback(_)) => {
            findings.at(
                of,
                "the feedback is what a vehicle said: sent back to a vehicle it would command by itself; it goes to \
                 [send.*] only",
            );
            None
        }
        Some(Origin::Station(_)) => {
            findings.at(of, "says something about this desk, and goes to [send.*] only");
            None
        }
        None => None,
    };
    let found = signal.and_then(|signal| Some((signal, receives.signal(signal)?.clone())));
    let Some((signal, read)) = found else {
        skip(table);
        return None;
    };
    panel(item, table, signal, &read)
}

/// Form, shape and rest value of a signal of the panel.
fn panel(item: &Item, table: &Table<'_>, signal: SignalRef, read: &ReceiveSignal) -> Option<SinkValue> {
    let findings = table.findings;
    let is_bit = read.codec.bits == 1 && read.codec.physical_range() == (0.0, 1.0);
    let usual = if is_bit && read.names.is_empty() { Written::Switch } else { Written::Number };
    let form = match table.item("form") {
        Some(item) => item.choice(findings, &Written::NAMES),
        None => Some(usual),
    };
    let form = form.filter(|_| !table.refuse(&TOGGLE));
    let Some(form) = form else {
        skip(table);
        return None;
    };
    let (transform, form, rest) = match form {
        Written::Number => {
            let about = Described::member(&item.key, read.min, read.max);
            let transform = shape::shape(table, &about, Kind::Other, None, Source::User(0));
            let rest = rest_number(table, read, transform.as_ref());
            (transform, Some(Form::Number), rest)
        }
        Written::Switch => {
            let why = "has no effect on true and false; form = \"number\" sends a number";
            shape::only_invert(table, why);
            let mut transform = Transform::switch(0.0, 1.0);
            if table.flag("invert").unwrap_or(false) {
                transform = transform.inverted();
            }
            (Some(transform), Some(Form::Switch), rest_switch(table))
        }
        Written::Name => {
            let transform = shape::constant(table, "has no effect on a name");
            let names = names(read);
            let rest = rest_name(table, read, &names);
            if names.is_empty() {
                let place = table.item("form").unwrap_or(table.of);
                findings.at(place, format!("the DBC names no values of {}", read.name));
            }
            (Some(transform), (!names.is_empty()).then_some(Form::Name(names)), rest)
        }
    };
    Some(SinkValue::Panel { signal, transform: transform?, form: form?, rest: rest? })
}

/// The values of a signal that have names, in its unit.
pub(super) fn names(read: &ReceiveSignal) -> Vec<(f64, String)> {
    let value = |raw: i64| raw as f64 * read.codec.factor + read.codec.offset;
    read.names.iter().map(|(raw, name)| (value(*raw), name.clone())).collect()
}

/// A number that the member can have, 0 by default.
fn rest_number(table: &Table<'_>, read: &ReceiveSignal, transform: Option<&Transform>) -> Option<Value> {
    let item = table.item("rest");
    let rest = item.map_or(Some(0.0), |item| item.number(table.findings))?;
    // Without the transform its range is not known, and why was reported.
    let transform = transform?;
    let (low, high) = match transform.shape {
        Shape::Direct => (read.min, read.max),
        _ => (transform.out_low, transform.out_high),
    };
    if !(low..=high).contains(&rest) {
        let (low, high) = (Short(low), Short(high));
        match item {
            Some(item) => {
                let reason = format!("{} is outside {low} .. {high}, what this member can be", Short(rest));
                table.findings.at(item, reason);
            }
            None => {
                let what =
                    format!("0, the default, is outside {low} .. {high}; say what a stale panel sends");
                table.missing("rest", &what);
            }
        }
        return None;
    }
    Some(item.map_or_else(|| Value::from(0), |item| number(item, rest)))
}

fn rest_switch(table: &Table<'_>) -> Option<Value> {
    let Some(item) = table.item("rest") else { return Some(Value::from(false)) };
    let bit = item.flag_or_bit();
    if bit.is_none() {
        table.findings.at(item, "must be true or false");
    }
    bit.map(Value::from)
}

/// A name, by default that of 0.
fn rest_name(table: &Table<'_>, read: &ReceiveSignal, names: &[(f64, String)]) -> Option<Value> {
    let list = || names.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>();
    let Some(item) = table.item("rest") else {
        let zero = names.iter().find(|(value, _)| *value == 0.0);
        if zero.is_none() && !names.is_empty() {
            let what = format!("the name that a stale panel sends, one of: {}", list().join(", "));
            table.missing("rest", &what);
        }
        return zero.map(|(_, name)| Value::from(name.as_str()));
    };
    let text = item.text(table.findings)?;
    if !names.is_empty() && !names.iter().any(|(_, name)| name == text) {
        let like = nearest(text, list());
        let reason = format!("{text:?} is no value of {}; its names are: {}", read.name, list().join(", "));
        table.findings.at_like(item, reason, like);
        return None;
    }
    Some(Value::from(text))
}

/// A value as long as the member gets. A text has two quotes of its own.
fn longest(value: &SinkValue) -> Value {
    let characters = |count: usize| Value::from("x".repeat(count.saturating_sub(2)));
    match value {
        SinkValue::Counter { modulo } => Value::from(modulo.map_or(u64::MAX, |m| u64::from(m - 1))),
        SinkValue::PanelOk => Value::from(false),
        SinkValue::Constant(value) => value.clone(),
        SinkValue::Panel { form: Form::Number, .. } => characters(NUMBER_BYTES),
        SinkValue::Panel { form: Form::Switch, .. } => Value::from(false),
        SinkValue::Panel { form: Form::Name(names), .. } => {
            let lengths = names.iter().map(|(_, name)| Value::from(name.as_str()).to_string().len());
            characters(lengths.max().unwrap_or(0))
        }
    }
}

/// Puts a value at its path. `false` where a value stands on the way, or the place is taken.
fn insert(object: &mut Map<String, Value>, path: &[String], value: Value) -> bool {
    match path {
        [] => false,
        [key] if object.contains_key(key) => false,
        [key] => {
            object.insert(key.clone(), value);
            true
        }
        [key, rest @ ..] => {
            let inner = object.entry(key.clone()).or_insert_with(|| Value::Object(Map::new()));
            inner.as_object_mut().is_some_and(|inner| insert(inner, rest, value))
        }
    }
}
