//! Names of sources to sources.
//!
//! Owns the spelling `axes.*`, `buttons.*`, `user.*` and the list of user-data fields that the configuration names.
//! Relies on `signals::source` for what exists. Never reads a value.

use super::problem::{Findings, nearest};
use super::reader::Item;
use super::short::Short;
use crate::limits::USER_FIELDS;
use crate::signals::car::Value;
use crate::signals::plan::UserField;
use crate::signals::source::{AXES, BUTTONS, Source};

/// Keys that lead to one user-data field; deeper data is a document, not an input.
pub(super) const USER_DEPTH: usize = 8;

/// The sources that exist elsewhere, so that their refusal can say why.
const ELSEWHERE: [(&str, &str); 3] = [
    ("can", "frames of the bus"),
    ("feedback", "the vehicle's feedback"),
    ("assetto", "a driving simulator (its car sends [assetto.send.*] and fills [report.*])"),
];

/// The user-data fields named so far.
#[derive(Debug, Default)]
pub(super) struct Sources {
    fields: Vec<UserField>,
    /// Whether the limit was reported already: once is enough.
    full: bool,
}

impl Sources {
    /// Any source.
    pub(super) fn source(&mut self, item: &Item, findings: &Findings) -> Option<Source> {
        if item.is_number() {
            findings.at(item, "a number is no source: write `value = ...` for a constant");
            return None;
        }
        let text = item.text(findings)?;
        let (prefix, rest) = text.split_once('.').unwrap_or((text, ""));
        match prefix {
            "axes" => index(item, findings, rest, &AXES, "axes").map(Source::Axis),
            "buttons" => index(item, findings, rest, &BUTTONS, "buttons").map(Source::Button),
            "user" => self.user(item, findings, rest).map(Source::User),
            _ => {
                findings.at_like(item, refusal(prefix, text), meant(prefix, rest, text));
                None
            }
        }
    }

    /// A source that can be on or off.
    pub(super) fn switch(&mut self, item: &Item, findings: &Findings) -> Option<Source> {
        let source = self.source(item, findings)?;
        if let Source::Axis(_) = source {
            findings.at(item, "an axis is no switch: take a button or a boolean of the user data");
            return None;
        }
        Some(source)
    }

    /// A number in the user data.
    pub(super) fn user_number(&mut self, item: &Item, findings: &Findings) -> Option<u8> {
        match self.source(item, findings)? {
            Source::User(field) => Some(field),
            _ => {
                findings.at(item, "must be a field of the user data, such as \"user.counter\"");
                None
            }
        }
    }

    /// Lets the texts of a field stand for numbers.
    pub(super) fn name_values(
        &mut self,
        item: &Item,
        findings: &Findings,
        source: Source,
        names: &[(String, f64)],
    ) {
        let Source::User(field) = source else { return };
        let Some(field) = self.fields.get_mut(usize::from(field)) else { return };
        for (name, value) in names {
            match field.names.iter().find(|(known, _)| known == name) {
                None => field.names.push((name.clone(), *value)),
                Some((_, known)) if known == value => {}
                Some((_, known)) => findings.at(
                    item,
                    format!(
                        "the text {name:?} of user.{} would mean {} for one signal and {} for another: use two fields",
                        field.dotted(),
                        Short(*known),
                        Short(*value)
                    ),
                ),
            }
        }
    }

    pub(super) fn into_fields(self) -> Vec<UserField> {
        self.fields
    }

    fn user(&mut self, item: &Item, findings: &Findings, path: &str) -> Option<u8> {
        let keys: Vec<String> = path.split('.').map(str::to_owned).collect();
        if keys.iter().any(String::is_empty) || keys.len() > USER_DEPTH {
            let reason = format!("needs 1 to {USER_DEPTH} keys after `user`, such as \"user.counter\"");
            findings.at(item, reason);
            return None;
        }
        let known = self.fields.iter().position(|field| field.path == keys);
        let index = match known {
            Some(index) => index,
            None if self.fields.len() < USER_FIELDS => {
                self.fields.push(UserField { path: keys, names: Vec::new() });
                self.fields.len() - 1
            }
            None => {
                if !self.full {
                    findings.at(item, format!("more than {USER_FIELDS} different fields of the user data"));
                    self.full = true;
                }
                return None;
            }
        };
        u8::try_from(index).ok()
    }
}

/// How a source is written in the file.
#[must_use]
pub fn written(fields: &[UserField], source: Source) -> String {
    let named = |prefix: &str, name: Option<&&str>| format!("{prefix}.{}", name.map_or("?", |n| *n));
    match source {
        Source::Constant(value) => Short(value).to_string(),
        Source::Axis(index) => named("axes", AXES.get(usize::from(index))),
        Source::Button(bit) => named("buttons", BUTTONS.get(usize::from(bit))),
        Source::User(field) => {
            let path = fields.get(usize::from(field)).map_or_else(|| "?".to_owned(), UserField::dotted);
            format!("user.{path}")
        }
        Source::Car(number) => format!("{CAR}{}", Value::from_number(number).map_or("?", Value::name)),
    }
}

/// What stands before a value of the simulated car.
pub(super) const CAR: &str = "assetto.";

/// The index of a name in one of the vendor's lists.
fn index(item: &Item, findings: &Findings, name: &str, names: &[&str], prefix: &str) -> Option<u8> {
    if let Some(index) = names.iter().position(|n| *n == name) {
        return u8::try_from(index).ok();
    }
    // The whole gamepad is searched: a trigger among the buttons is a likely mistake.
    let like = nearest(name, names.iter().copied())
        .map(|n| format!("{prefix}.{n}"))
        .or_else(|| every_name().find(|full| full.ends_with(&format!(".{name}")) && !name.is_empty()));
    findings.at_like(item, format!("there is no {prefix}.{name}; {prefix} are: {}", names.join(", ")), like);
    None
}

/// Every source of the gamepad as it is written.
fn every_name() -> impl Iterator<Item = String> {
    let axes = AXES.iter().map(|n| format!("axes.{n}"));
    axes.chain(BUTTONS.iter().map(|n| format!("buttons.{n}")))
}

fn refusal(prefix: &str, text: &str) -> String {
    match ELSEWHERE.iter().find(|(p, _)| *p == prefix) {
        Some((_, what)) => format!(
            "{what} can never move anything: a signal takes axes.*, buttons.*, user.* or `value = ...`"
        ),
        None => format!("no such source: {text:?}; a source is axes.*, buttons.* or user.*"),
    }
}

/// What was probably meant where the first word is wrong or missing.
fn meant(prefix: &str, rest: &str, text: &str) -> Option<String> {
    let names: Vec<String> = every_name().collect();
    let bare = names.iter().find(|n| n.split_once('.').is_some_and(|(_, name)| name == text)).cloned();
    let whole = || nearest(text, names.iter().map(String::as_str));
    let user = || nearest(prefix, ["user"]).filter(|_| !rest.is_empty()).map(|user| format!("{user}.{rest}"));
    bare.or_else(whole).or_else(user)
}
