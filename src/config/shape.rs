//! How a signal's source is understood: range, centre, dead zone, expo and output.
//!
//! Owns the choice of `Shape` and the rule that a released control reads as rest. Relies on `reader` and on the types
//! of `signals::transform`. Never looks at the other signals of the frame.

use super::problem::nearest;
use super::reader::{Item, Table, Value};
use super::short::Short;
use crate::signals::bits::{ByteOrder, Codec, Raw};
use crate::signals::plan::Kind;
use crate::signals::source::{Source, is_trigger};
use crate::signals::transform::{Shape, Transform};

/// What the DBC says about a signal, in physical units.
#[derive(Debug, Clone)]
pub(super) struct Described {
    pub(super) name: String,
    pub(super) codec: Codec,
    /// Lowest and highest value that the description and the bits both allow; infinite for a float without limits.
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) names: Vec<(String, f64)>,
    /// Where the value goes into JSON, which knows no range: the lowest and highest reading of its source.
    pub(super) json: Option<(f64, f64)>,
}

impl Described {
    /// A member of a JSON object that reads a signal with this range.
    pub(super) fn member(name: &str, low: f64, high: f64) -> Self {
        // Every finite number is carried as it is.
        let codec =
            Codec { start: 0, bits: 64, order: ByteOrder::Little, raw: Raw::Float, factor: 1.0, offset: 0.0 };
        Self {
            name: name.to_owned(),
            codec,
            low: f64::NEG_INFINITY,
            high: f64::INFINITY,
            names: Vec::new(),
            json: Some((low, high)),
        }
    }
}

/// The keys of this page, with what they need.
const KEYS: [&str; 8] =
    ["shape", "range", "centre", "invert", "dead_zone", "expo", "output", "output_centre"];

/// What `shape` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Direct,
    Switch,
    Centred,
    OneSided,
}

impl Form {
    const NAMES: [(&'static str, Self); 4] = [
        ("direct", Self::Direct),
        ("switch", Self::Switch),
        ("centred", Self::Centred),
        ("one_sided", Self::OneSided),
    ];

    /// Keys that mean nothing here, and why.
    fn idle_keys(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::Direct => (
                &["range", "centre", "invert", "dead_zone", "expo", "output_centre"],
                "has no effect where the reading is the value itself; `range` makes it a lever or stick",
            ),
            Self::Switch => {
                (&["range", "centre", "dead_zone", "expo", "output_centre"], "has no effect on a switch")
            }
            Self::OneSided => {
                (&["centre", "output_centre"], "has no effect on a range that rests at its low end")
            }
            Self::Centred => (&[], ""),
        }
    }
}

/// A number, or the name that the DBC gives to one.
pub(super) fn value(item: &Item, table: &Table<'_>, signal: &Described) -> Option<f64> {
    let findings = table.findings;
    let number = match &item.value {
        Value::Text(text) => match signal.names.iter().find(|(name, _)| name == text) {
            Some((_, number)) => *number,
            None => {
                let names: Vec<&str> = signal.names.iter().map(|(name, _)| name.as_str()).collect();
                let reason = if names.is_empty() {
                    format!("must be a number: the DBC names no values of {}", signal.name)
                } else {
                    format!("{text:?} is no value of {}; its names are: {}", signal.name, names.join(", "))
                };
                findings.at_like(item, reason, nearest(text, names));
                return None;
            }
        },
        Value::Flag(flag) => f64::from(u8::from(*flag)),
        _ => item.number(findings)?,
    };
    within(item, table, signal, number)
}

/// The same, for a value that is sent as it is written: rounding would make it another one in silence.
pub(super) fn exact(item: &Item, table: &Table<'_>, signal: &Described) -> Option<f64> {
    let number = value(item, table, signal)?;
    if let Some(why) = inexact(signal, number) {
        table
            .findings
            .at(item, format!("{why}; take a value that it can say, or correct the factor in the DBC"));
        return None;
    }
    Some(number)
}

/// Why this number cannot be sent as it is, if the description would round it.
pub(super) fn inexact(signal: &Described, number: f64) -> Option<String> {
    if signal.codec.carries(number) {
        return None;
    }
    let number_text = Short(number);
    let scale = scale(signal);
    Some(match signal.codec.neighbours(number) {
        Some((below, above)) => format!(
            "{number_text} cannot be sent: with {scale} the DBC can say {} or {}, and nothing between",
            Short(below),
            Short(above)
        ),
        None => {
            format!("{number_text} cannot be sent: with {scale} it is beyond the bits of {}", signal.name)
        }
    })
}

fn scale(signal: &Described) -> String {
    format!("factor {} and offset {}", Short(signal.codec.factor), Short(signal.codec.offset))
}

fn within(item: &Item, table: &Table<'_>, signal: &Described, number: f64) -> Option<f64> {
    if !(signal.low..=signal.high).contains(&number) {
        let (low, high) = (Short(signal.low), Short(signal.high));
        let reason = format!("{} is outside {low} .. {high} of {}", Short(number), signal.name);
        table.findings.at(item, reason);
        return None;
    }
    Some(number)
}

/// A constant takes none of the keys.
pub(super) fn constant(table: &Table<'_>, why: &str) -> Transform {
    forbid(table, &KEYS, why);
    Transform::direct()
}

/// A switch that stays one takes `invert` and nothing else.
pub(super) fn only_invert(table: &Table<'_>, why: &str) {
    for key in KEYS.iter().filter(|key| **key != "invert") {
        forbid(table, &[*key], why);
    }
}

/// Where the source is wrong, nothing can be said about the keys, except that they are known.
pub(super) fn skip(table: &Table<'_>) {
    for key in KEYS {
        table.item(key);
    }
}

fn forbid(table: &Table<'_>, keys: &[&'static str], why: &str) {
    for key in keys {
        if let Some(item) = table.item(key) {
            table.findings.at(item, why);
        }
    }
}

/// Reads the keys of this page. `None` where one of them is wrong; all of them are reported. `safe` is `None` where
/// it is wrong itself, which was reported.
pub(super) fn shape(
    table: &Table<'_>,
    signal: &Described,
    kind: Kind,
    safe: Option<f64>,
    source: Source,
) -> Option<Transform> {
    let range_item = table.item("range");
    let given = range_item.map(|item| item.range(table.findings));
    let centre_item = table.item("centre");
    let form = form(table, signal, source, given.is_some());
    let invert = table.flag("invert").unwrap_or(false);
    let dead_zone = table.within("dead_zone", 0.0, 0.9).unwrap_or(0.0);
    let expo = table.within("expo", 0.0, 1.0).unwrap_or(0.0);
    let output = output(table, signal, form);
    table.item("output_centre");
    let form = form?;
    let (idle, why) = form.idle_keys();
    forbid(table, idle, why);

    let (out_low, out_high) = output?;
    let sent = sent(table, signal, form, (out_low, out_high));
    let (low, high) = match given {
        Some(range) => range?,
        None => (-1.0, 1.0),
    };
    let shape = match form {
        Form::Direct => Shape::Direct,
        Form::Switch => Shape::Switch { off: out_low, on: out_high },
        Form::OneSided => Shape::OneSided { low, high },
        Form::Centred => {
            // The middle of a range that does not hold 0 is its centre: 0..10 rests at 5.
            let default = if low < 0.0 && high > 0.0 { 0.0 } else { f64::midpoint(low, high) };
            let centre = centre_item.map_or(Some(default), |item| item.number(table.findings))?;
            if !(low < centre && centre < high) {
                let place = centre_item.or(range_item).unwrap_or(table.of);
                table.findings.at(
                    place,
                    format!(
                        "the centre {} must lie between {} and {}",
                        Short(centre),
                        Short(low),
                        Short(high)
                    ),
                );
                return None;
            }
            Shape::Centred { low, centre, high }
        }
    };
    let out_centre = if form == Form::Centred { output_centre(table, out_low, out_high)? } else { out_low };
    let transform = Transform { shape, invert, dead_zone, expo, out_low, out_centre, out_high };
    // Judged as it is written; what is sent lies within.
    if !rests(table, range_item, &transform, kind, safe, source) {
        return None;
    }
    let (out_low, out_high) = sent?;
    Some(Transform { out_low, out_centre: out_centre.max(out_low).min(out_high), out_high, ..transform })
}

/// The ends of the output as the description can say them: within the output, so that no value between them is rounded
/// beyond it. Both ends of a switch are values themselves and must be exact.
fn sent(table: &Table<'_>, signal: &Described, form: Form, (low, high): (f64, f64)) -> Option<(f64, f64)> {
    let item = table.item("output");
    if signal.json.is_some() {
        return Some((low, high));
    }
    if form == Form::Switch {
        let place = |index: usize| match item.map(|item| (item, &item.value)) {
            Some((item, Value::Array(ends))) => ends.get(index).unwrap_or(item),
            Some((item, _)) => item,
            None => table.of,
        };
        for (index, end) in [low, high].into_iter().enumerate() {
            if let Some(why) = inexact(signal, end) {
                let reason = format!("{why}; take a value that it can say, or correct the factor in the DBC");
                table.findings.at(place(index), reason);
                return None;
            }
        }
        return Some((low, high));
    }
    let ends = signal.codec.within(low, high);
    if ends.is_none() {
        let reason = format!(
            "the signal cannot move: with {} the DBC has no two values between {} and {}; widen `output`, or correct \
             the factor in the DBC",
            scale(signal),
            Short(low),
            Short(high)
        );
        table.findings.at(item.unwrap_or(table.of), reason);
    }
    ends
}

/// The form that the file names, or the one that fits the source.
fn form(table: &Table<'_>, signal: &Described, source: Source, ranged: bool) -> Option<Form> {
    let item = table.item("shape");
    let named = match item {
        Some(item) => Some(item.choice(table.findings, &Form::NAMES)?),
        None => None,
    };
    let is_told = matches!(source, Source::User(_) | Source::Car(_));
    if is_told && !ranged && matches!(named, Some(Form::Centred | Form::OneSided)) {
        table.missing("range", "the readings at both ends, such as [0, 1]");
        return None;
    }
    let by_range = || {
        let both_ways = table.item("range").is_some_and(spans_zero);
        if both_ways || table.item("centre").is_some() { Form::Centred } else { Form::OneSided }
    };
    let (allowed, default, why): (&[Form], _, _) = match source {
        Source::Axis(axis) if is_trigger(axis) => (
            &[Form::OneSided],
            Form::OneSided,
            "a trigger rests at -1, the low end of its range: it can only be one_sided",
        ),
        Source::Axis(_) => {
            // A stick that is used from its middle outwards is a lever.
            let default =
                if table.item("range").is_none_or(spans_zero) { Form::Centred } else { Form::OneSided };
            (&[Form::Centred, Form::OneSided], default, "a stick is centred or one_sided")
        }
        Source::Button(_) => (&[Form::Switch], Form::Switch, "a button is a switch"),
        Source::User(_) => {
            let is_switch = signal.codec.bits == 1 || table.item("toggle").is_some();
            let default = if ranged {
                by_range()
            } else if is_switch {
                Form::Switch
            } else {
                Form::Direct
            };
            (&[Form::Direct, Form::Switch, Form::Centred, Form::OneSided], default, "")
        }
        Source::Car(_) => (
            &[Form::Direct, Form::Centred, Form::OneSided],
            if ranged { by_range() } else { Form::Direct },
            "a value of the simulated car is direct, centred or one_sided",
        ),
        Source::Constant(_) => (&[Form::Direct], Form::Direct, "a constant is direct"),
    };
    match (named, item) {
        (Some(form), Some(item)) if !allowed.contains(&form) => {
            table.findings.at(item, why);
            None
        }
        (Some(form), _) => Some(form),
        (None, _) => Some(default),
    }
}

/// Whether a range holds 0 between its ends, without a report: `Item::range` reports.
fn spans_zero(item: &Item) -> bool {
    let Value::Array(items) = &item.value else { return true };
    let number = |item: &Item| match item.value {
        Value::Integer(i) => Some(i as f64),
        Value::Number(n) => Some(n),
        _ => None,
    };
    match items.as_slice() {
        [low, high] => number(low).zip(number(high)).is_none_or(|(low, high)| low < 0.0 && high > 0.0),
        _ => true,
    }
}

/// The values at both ends.
fn output(table: &Table<'_>, signal: &Described, form: Option<Form>) -> Option<(f64, f64)> {
    let Some(item) = table.item("output") else {
        if let Some(readings) = signal.json {
            return Some(match form {
                Some(Form::Centred) => (-1.0, 1.0),
                Some(Form::OneSided | Form::Switch) => (0.0, 1.0),
                Some(Form::Direct) | None => readings,
            });
        }
        if !(signal.low.is_finite() && signal.high.is_finite()) {
            let what = format!(
                "{} is a float without limits in the DBC: name its lowest and highest value",
                signal.name
            );
            table.missing("output", &what);
            return None;
        }
        // What "pressed" means is known for a bit only; the highest value of anything else is a bad guess.
        if form == Some(Form::Switch) && (signal.low, signal.high) != (0.0, 1.0) {
            let what = format!("the values of {} while off and while on, such as [0, 1]", signal.name);
            table.missing("output", &what);
            return None;
        }
        return Some((signal.low, signal.high));
    };
    let ends = match &item.value {
        Value::Array(items) => match items.as_slice() {
            [low, high] => {
                let (low, high) = (value(low, table, signal), value(high, table, signal));
                (low?, high?)
            }
            _ => item.range(table.findings)?,
        },
        _ => item.range(table.findings)?,
    };
    if ends.0 >= ends.1 {
        let (low, high) = ends;
        let reason = format!(
            "the first number must be below the second: {} is not below {}; `invert` mirrors",
            Short(low),
            Short(high)
        );
        table.findings.at(item, reason);
        return None;
    }
    Some(ends)
}

/// The value at rest of a centred range.
fn output_centre(table: &Table<'_>, low: f64, high: f64) -> Option<f64> {
    let Some(item) = table.item("output_centre") else {
        return Some(if (low..=high).contains(&0.0) { 0.0 } else { f64::midpoint(low, high) });
    };
    let centre = item.number(table.findings)?;
    if !(low..=high).contains(&centre) {
        table.findings.at(
            item,
            format!("must lie within the output, {} to {}, not {}", Short(low), Short(high), Short(centre)),
        );
        return None;
    }
    Some(centre)
}

/// A control that nobody touches must read as rest, and a throttle at rest must not drive.
fn rests(
    table: &Table<'_>,
    range: Option<&Item>,
    transform: &Transform,
    kind: Kind,
    safe: Option<f64>,
    source: Source,
) -> bool {
    let place = range.unwrap_or(table.of);
    if let Source::Axis(axis) = source {
        let rest = if is_trigger(axis) { -1.0 } else { 0.0 };
        let (wanted, fits) = match transform.shape {
            // A lever rests at its low end, an inverted one at its high end.
            Shape::OneSided { high, .. } if transform.invert => (high, rest >= high),
            Shape::OneSided { low, .. } => (low, rest <= low),
            Shape::Centred { centre, .. } => (centre, rest == centre),
            Shape::Direct | Shape::Switch { .. } => (rest, true),
        };
        if !fits {
            table.findings.at(
                place,
                format!(
                    "the released control reads {rest}, but rest would be {}: it would never be neutral, and the \
                     signal would move without a hand on it",
                    Short(wanted)
                ),
            );
            return false;
        }
    }
    let at_rest = match transform.shape {
        Shape::Direct => return true,
        Shape::Centred { .. } => transform.out_centre,
        Shape::OneSided { .. } => transform.out_low,
        Shape::Switch { off, on } => {
            if transform.invert {
                on
            } else {
                off
            }
        }
    };
    if kind == Kind::Throttle && at_rest != 0.0 {
        let reason =
            format!("a throttle must be 0 while its control rests, and this one is {}", Short(at_rest));
        table.findings.at(table, reason);
        return false;
    }
    match (transform.shape, safe) {
        (Shape::OneSided { .. }, Some(safe)) if kind == Kind::Steering && at_rest != safe => {
            let remedy = match source {
                Source::User(_) => "write shape = \"centred\"",
                _ => "take a stick, such as axes.left_x",
            };
            let reason = format!(
                "the released control steers to {}, and the safe value is {}: {remedy}, or an `output` that begins at \
                 the safe value",
                Short(at_rest),
                Short(safe)
            );
            table.findings.at(table, reason);
            false
        }
        _ => true,
    }
}
