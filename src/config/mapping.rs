//! One mapped signal of a sent frame.
//!
//! Owns `[send.*.signals.*]`: kind, source, limits, safe value and stop profile, and the rules that follow from the
//! kind. Relies on `shape` and `sources`. Never looks at the other signals of the frame.

use super::Role;
use super::reader::{Item, Table, Value};
use super::receive::Receives;
use super::send::Mapping;
use super::shape::{self, Described};
use super::short::Short;
use super::sources::Sources;
use crate::signals::plan::{ConfirmPlan, Kind, SignalPlan, StopProfile};
use crate::signals::source::Source;
use crate::signals::transform::{Shape, Transform};
use crate::time::Duration;

/// What `kind` may say.
pub(super) const KINDS: [(&str, Kind); 5] = [
    ("throttle", Kind::Throttle),
    ("brake", Kind::Brake),
    ("steering", Kind::Steering),
    ("enable", Kind::Enable),
    ("other", Kind::Other),
];

/// What a signal needs from the rest of the file.
#[derive(Debug)]
pub(super) struct Context<'c, 'a> {
    pub(super) sources: &'c mut Sources,
    pub(super) receives: &'c mut Receives<'a>,
    /// Longest time in STOPPING, which a ramp must keep.
    pub(super) stopping: Duration,
    /// Whether `[standstill]` is in the file.
    pub(super) standstill: bool,
}

impl<'a> Mapping<'a> for Context<'_, 'a> {
    const ROLE: Role = Role::Vehicle;

    fn signal(&mut self, table: &Table<'a>, about: &Described) -> Option<SignalPlan> {
        signal(table, about, self)
    }

    fn receives(&self) -> &Receives<'a> {
        self.receives
    }
}

/// Where the value comes from.
struct Origin {
    source: Source,
    select: Vec<(Source, f64)>,
    transform: Transform,
}

/// Reads one signal. `None` where something is wrong with it; everything that is wrong is reported.
fn signal(table: &Table<'_>, about: &Described, context: &mut Context<'_, '_>) -> Option<SignalPlan> {
    let kind = kind(table);
    let guess = kind.unwrap_or(Kind::Other);
    let safe = safe(table, about, guess);
    let toggle_item = table.item("toggle");
    let toggle = table.flag("toggle").unwrap_or(false);
    let origin = origin(table, about, guess, safe, context);
    if let (true, Some(item), Some(origin)) = (toggle, toggle_item, &origin) {
        check_toggle(table, item, guess, origin);
    }
    let slew_up = table.positive("slew_up_per_s");
    let slew_down = table.positive("slew_down_per_s");
    let stop = stop(table, about, guess, safe, context.stopping);
    let at_standstill = at_standstill(table, guess, context.standstill);
    let confirm = confirm(table, context);
    let (kind, origin, safe, stop) = (kind?, origin?, safe?, stop?);
    let (min, max) = extent(&origin, safe);
    Some(SignalPlan {
        name: about.name.clone(),
        codec: about.codec,
        named: !about.names.is_empty(),
        kind,
        source: origin.source,
        toggle,
        select: origin.select,
        transform: origin.transform,
        min,
        max,
        slew_up,
        slew_down,
        safe,
        stop,
        at_standstill,
        confirm,
    })
}

/// The kind must be said, except for a constant.
fn kind(table: &Table<'_>) -> Option<Kind> {
    let words: Vec<&str> = KINDS.iter().map(|(word, _)| *word).collect();
    match table.item("kind") {
        Some(item) => item.choice(table.findings, &KINDS),
        None if table.item("value").is_some() => Some(Kind::Other),
        None => {
            table.missing("kind", &format!("one of {}", words.join(", ")));
            None
        }
    }
}

/// The safe value, 0 by default.
fn safe(table: &Table<'_>, about: &Described, kind: Kind) -> Option<f64> {
    let remedy = if kind == Kind::Throttle {
        "a throttle must be 0 when safe, so correct factor and offset in the DBC"
    } else {
        "say what is safe, or correct factor and offset in the DBC"
    };
    let safe = resting(table, about, "safe", "say what is safe", remedy)?;
    if let (Some(item), true) = (table.item("safe"), kind == Kind::Throttle && safe != 0.0) {
        let reason = format!("the safe value of a throttle must be 0, not {}", Short(safe));
        table.findings.at(item, reason);
        return None;
    }
    Some(safe)
}

/// The value of a signal while nobody says more: the key, or 0 where it is left out and the signal can say it. `say`
/// asks for the key, `remedy` is the advice where the description would round 0.
pub(super) fn resting(
    table: &Table<'_>,
    about: &Described,
    key: &'static str,
    say: &str,
    remedy: &str,
) -> Option<f64> {
    if let Some(item) = table.item(key) {
        return shape::exact(item, table, about);
    }
    if !(about.low..=about.high).contains(&0.0) {
        let (low, high) = (Short(about.low), Short(about.high));
        let what = format!("0, the default, is outside {low} .. {high} of {}; {say}", about.name);
        table.missing(key, &what);
        return None;
    }
    if let Some(why) = shape::inexact(about, 0.0) {
        table.missing(key, &format!("the default {why}; {remedy}"));
        return None;
    }
    Some(0.0)
}

/// Exactly one of `source`, `value` and `select`.
fn origin(
    table: &Table<'_>,
    about: &Described,
    kind: Kind,
    safe: Option<f64>,
    context: &mut Context<'_, '_>,
) -> Option<Origin> {
    let findings = table.findings;
    let (source, value, select) = (table.item("source"), table.item("value"), table.item("select"));
    match (source, value, select) {
        (Some(item), None, None) => {
            let Some(source) = context.sources.source(item, findings) else {
                shape::skip(table);
                return None;
            };
            if !about.names.is_empty() {
                context.sources.name_values(item, findings, source, &about.names);
            }
            let transform = shape::shape(table, about, kind, safe, source)?;
            Some(Origin { source, select: Vec::new(), transform })
        }
        (None, Some(item), None) => {
            let transform = shape::constant(table, "has no effect on a constant");
            let value = shape::exact(item, table, about)?;
            if kind == Kind::Throttle && value != 0.0 {
                findings.at(
                    item,
                    format!(
                        "a throttle fixed at {} drives without a hand on it; only 0 is allowed",
                        Short(value)
                    ),
                );
                return None;
            }
            Some(Origin { source: Source::Constant(value), select: Vec::new(), transform })
        }
        (None, None, Some(item)) => {
            let transform = shape::constant(table, "has no effect beside `select`");
            if kind == Kind::Throttle {
                findings.at(item, "a throttle cannot keep a value after its switch is released");
                return None;
            }
            let select = choices(item, table, about, context)?;
            // Until the first press nothing is chosen, and the safe value stands.
            Some(Origin { source: Source::Constant(safe.unwrap_or(0.0)), select, transform })
        }
        (None, None, None) => {
            table.missing("source", "where the value comes from (or `value` for a constant, or `select`)");
            shape::skip(table);
            None
        }
        _ => {
            findings.at(table, "only one of `source`, `value` and `select` can be given");
            shape::skip(table);
            None
        }
    }
}

/// `select = [{ switch, value }, ..]`.
fn choices(
    item: &Item,
    table: &Table<'_>,
    about: &Described,
    context: &mut Context<'_, '_>,
) -> Option<Vec<(Source, f64)>> {
    let items = item.list(table.findings)?;
    if items.is_empty() {
        table.findings.at(item, "must hold at least one { switch, value }");
        return None;
    }
    let mut chosen: Vec<Option<(Source, f64)>> = Vec::new();
    for item in items {
        let Some(inner) = item.table(table.findings) else {
            chosen.push(None);
            continue;
        };
        let switch = inner.required("switch", "the button or boolean that chooses this value");
        let switch = switch.and_then(|item| context.sources.switch(item, table.findings));
        let value = inner.required("value", "the value it chooses");
        let value = value.and_then(|item| shape::exact(item, &inner, about));
        inner.finish();
        if switch.is_some_and(|switch| chosen.iter().flatten().any(|(other, _)| *other == switch)) {
            table.findings.at(item, "this switch already chooses another value");
        }
        chosen.push(switch.zip(value));
    }
    chosen.into_iter().collect()
}

/// A toggle needs a switch, and a throttle needs a hand.
fn check_toggle(table: &Table<'_>, item: &Item, kind: Kind, origin: &Origin) {
    if !matches!(origin.transform.shape, Shape::Switch { .. }) {
        table.findings.at(item, "only a switch can toggle: a button, or a boolean of the user data");
    } else if kind == Kind::Throttle {
        table.findings.at(item, "a throttle cannot stay on after its switch is released");
    }
}

/// `stop = "safe" | "hold" | { ramp_per_s }`.
fn stop(
    table: &Table<'_>,
    about: &Described,
    kind: Kind,
    safe: Option<f64>,
    stopping: Duration,
) -> Option<StopProfile> {
    let Some(item) = table.item("stop") else { return Some(StopProfile::Safe) };
    let findings = table.findings;
    let profile = if let Value::Table(_) = item.value {
        let inner = item.table(findings)?;
        let per_s = inner
            .required("ramp_per_s", "the rate towards the safe value")
            .and_then(|_| inner.positive("ramp_per_s"));
        inner.finish();
        StopProfile::Ramp { per_s: per_s? }
    } else {
        let words = [("safe", StopProfile::Safe), ("hold", StopProfile::Hold)];
        if !matches!(item.value, Value::Text(_)) {
            findings.at(item, "must be \"safe\", \"hold\" or { ramp_per_s = ... }");
            return None;
        }
        item.choice(findings, &words)?
    };
    if matches!(kind, Kind::Throttle | Kind::Enable) && profile != StopProfile::Safe {
        findings.at(
            item,
            "a throttle or enable signal must stop with \"safe\": its first frame after a trip is safe",
        );
        return None;
    }
    if let (StopProfile::Ramp { per_s }, Some(safe)) = (profile, safe) {
        // A brake pressed harder than its safe value stays: only the way up from its lowest value counts.
        let below = safe - about.low;
        let way = if kind == Kind::Brake { below } else { below.max(about.high - safe) };
        let needed_s = way / per_s;
        if needed_s > stopping.as_secs_f64() {
            let reason = format!(
                "the ramp needs up to {} s and is cut off by safety.stopping_ms after {:.1} s",
                Short((needed_s * 10.0).round() / 10.0),
                stopping.as_secs_f64()
            );
            findings.at(item, reason);
            return None;
        }
    }
    Some(profile)
}

/// `change = "always" | "standstill"`.
fn at_standstill(table: &Table<'_>, kind: Kind, standstill_known: bool) -> bool {
    let Some(item) = table.item("change") else { return false };
    let wanted = item.choice(table.findings, &[("always", false), ("standstill", true)]).unwrap_or(false);
    if wanted && !standstill_known {
        table.findings.at(item, "needs a [standstill] table: nothing says when the vehicle stands");
    }
    if wanted && !matches!(kind, Kind::Other | Kind::Enable) {
        table
            .findings
            .at(item, "a throttle, brake or steering must follow the operator while the vehicle moves");
    }
    wanted
}

/// `feedback` and `feedback_tolerance`, both or none.
fn confirm(table: &Table<'_>, context: &mut Context<'_, '_>) -> Option<ConfirmPlan> {
    let feedback = table.item("feedback");
    let tolerance_item = table.item("feedback_tolerance");
    let tolerance = table.positive("feedback_tolerance");
    let signal = feedback.and_then(|item| context.receives.relied_on(item, table.findings));
    match (feedback, tolerance_item) {
        (Some(_), None) => {
            table.missing("feedback_tolerance", "the largest difference that is no contradiction");
            None
        }
        (None, Some(item)) => {
            table.findings.at(item, "needs `feedback`, the signal that must follow, MESSAGE.SIGNAL");
            None
        }
        _ => Some(ConfirmPlan { signal: signal?, tolerance: tolerance? }),
    }
}

/// The lowest and highest value that can ever be sent.
fn extent(origin: &Origin, safe: f64) -> (f64, f64) {
    if origin.select.is_empty() {
        return reach(origin.source, &origin.transform, safe);
    }
    span(origin.select.iter().map(|(_, value)| *value).chain([safe]))
}

/// The same for a signal that reads one source.
pub(super) fn reach(source: Source, transform: &Transform, safe: f64) -> (f64, f64) {
    match source {
        Source::Constant(value) => span([safe, value]),
        _ => span([safe, transform.out_low, transform.out_high]),
    }
}

fn span(values: impl IntoIterator<Item = f64>) -> (f64, f64) {
    values.into_iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), v| (min.min(v), max.max(v)))
}
