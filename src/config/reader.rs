//! A TOML file as a tree that knows its lines, and typed readers that report instead of stopping.
//!
//! Owns types of values, unknown keys and their places. Relies on `problem` and the `toml` crate for the syntax. Never
//! knows what a key means.

use super::problem::{Findings, MISSING, Place, Problem, nearest};
use super::short::Short;
use std::cell::RefCell;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Longest text that any key takes; names on a CAN bus, in a DBC or in JSON are far shorter.
const TEXT_BYTES: usize = 256;

/// Longest name that the user chooses as a key; a DBC's own names have 32 characters, their long form seldom more.
const NAME_BYTES: usize = 64;

/// A value in the file.
#[derive(Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    /// An integer beyond 64 bits: no key takes one.
    Huge,
    Number(f64),
    Flag(bool),
    /// A date or a time: no key takes one.
    Time,
    Array(Vec<Item>),
    Table(Vec<Item>),
}

/// A value with its place.
#[derive(Debug)]
pub(super) struct Item {
    /// The last part of `path`.
    pub(super) key: String,
    path: String,
    line: usize,
    pub(super) value: Value,
}

impl Place for Item {
    fn path(&self) -> &str {
        &self.path
    }
    fn line(&self) -> Option<usize> {
        Some(self.line)
    }
}

/// Parses the text. All syntax errors go to `findings`. After duplicate keys the rest is still worth checking; after
/// anything else it is `None`, because a broken line may have swallowed the next ones.
pub(super) fn parse(text: &str, file: &Path, findings: &Findings) -> Option<Item> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let readable = errors.iter().all(|error| error.message().contains("duplicate key"));
    for error in errors {
        let line = error.span().map(|span| line_of(text, span.start));
        findings.push(Problem {
            file: file.to_path_buf(),
            line,
            key: String::new(),
            reason: format!("not valid TOML: {}", error.message().replace('\n', ", ")),
            nearest: None,
        });
    }
    readable.then(|| Item {
        key: String::new(),
        path: String::new(),
        line: 1,
        value: table(text, "", root.get_ref()),
    })
}

/// Line of a byte offset, counted from 1.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|b| *b == b'\n').count()
}

fn table(text: &str, path: &str, from: &DeTable<'_>) -> Value {
    let mut entries: Vec<(&Spanned<_>, &Spanned<DeValue<'_>>)> = from.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let items = entries.into_iter().map(|(key, value)| {
        let name = key.get_ref().to_string();
        let path = join(path, &name);
        let line = line_of(text, key.span().start);
        let value = convert(text, &path, value.get_ref());
        Item { key: name, path, line, value }
    });
    Value::Table(items.collect())
}

fn convert(text: &str, path: &str, from: &DeValue<'_>) -> Value {
    match from {
        DeValue::String(s) => Value::Text(s.to_string()),
        DeValue::Integer(i) => i64::from_str_radix(i.as_str(), i.radix()).map_or(Value::Huge, Value::Integer),
        DeValue::Float(f) => Value::Number(f.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(b) => Value::Flag(*b),
        DeValue::Datetime(_) => Value::Time,
        DeValue::Array(items) => Value::Array(
            items
                .iter()
                .enumerate()
                .map(|(i, item)| {
                    let path = format!("{path}[{i}]");
                    let value = convert(text, &path, item.get_ref());
                    Item { key: i.to_string(), path, line: line_of(text, item.span().start), value }
                })
                .collect(),
        ),
        DeValue::Table(inner) => table(text, path, inner),
    }
}

/// Appends a key to a path; keys that are not bare are quoted and escaped, so that a path is always one line.
fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let key = if bare { key.to_owned() } else { format!("\"{}\"", key.escape_debug()) };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

impl Item {
    /// Whether the key, which the user chose, is fit to be printed and sent. Reports where it is not.
    pub(super) fn is_named(&self, findings: &Findings) -> bool {
        let fits = (1..=NAME_BYTES).contains(&self.key.len()) && !self.key.chars().any(char::is_control);
        if !fits {
            findings.at(self, format!("a name has 1 to {NAME_BYTES} bytes and no control characters"));
        }
        fits
    }

    fn type_name(&self) -> &'static str {
        match self.value {
            Value::Text(_) => "a text",
            Value::Integer(_) => "an integer",
            Value::Huge => "an integer beyond 64 bits",
            Value::Number(_) => "a number",
            Value::Flag(_) => "true or false",
            Value::Time => "a date or time",
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
        }
    }

    /// Whether this is an integer or a float.
    pub(super) fn is_number(&self) -> bool {
        matches!(self.value, Value::Integer(_) | Value::Huge | Value::Number(_))
    }

    fn wrong_type(&self, findings: &Findings, wanted: &str) {
        findings.at(self, format!("must be {wanted}, not {}", self.type_name()));
    }

    /// A text of one line.
    pub(super) fn text(&self, findings: &Findings) -> Option<&str> {
        let Value::Text(text) = &self.value else {
            self.wrong_type(findings, "a text");
            return None;
        };
        if text.is_empty() || text.len() > TEXT_BYTES || text.chars().any(char::is_control) {
            findings
                .at(self, format!("must be a text of 1 to {TEXT_BYTES} bytes without control characters"));
            return None;
        }
        Some(text)
    }

    /// A finite number.
    pub(super) fn number(&self, findings: &Findings) -> Option<f64> {
        // Beyond 2^53 an f64 does not hold every integer.
        const EXACT: i64 = 1 << 53;
        match self.value {
            Value::Integer(i) if (-EXACT..=EXACT).contains(&i) => Some(i as f64),
            Value::Number(n) if n.is_finite() => Some(n),
            Value::Integer(_) | Value::Huge | Value::Number(_) => {
                findings.at(self, "must be a finite number, at most 2^53 where it has no decimals");
                None
            }
            _ => {
                self.wrong_type(findings, "a number");
                None
            }
        }
    }

    /// An integer within bounds.
    pub(super) fn integer(&self, findings: &Findings, min: u32, max: u32, unit: &str) -> Option<u32> {
        if let Value::Huge = self.value {
            findings.at(self, format!("must be {min} to {max}{unit}: this integer is too large for any key"));
            return None;
        }
        let Value::Integer(i) = self.value else {
            self.wrong_type(findings, &format!("an integer, {min} to {max}{unit}"));
            return None;
        };
        match u32::try_from(i) {
            Ok(value) if (min..=max).contains(&value) => Some(value),
            _ => {
                findings.at(self, format!("must be {min} to {max}{unit}, not {i}"));
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, findings: &Findings) -> Option<bool> {
        match self.value {
            Value::Flag(flag) => Some(flag),
            _ => {
                self.wrong_type(findings, "true or false");
                None
            }
        }
    }

    /// `true`, `false`, 1 or 0, without a report.
    pub(super) const fn flag_or_bit(&self) -> Option<bool> {
        match self.value {
            Value::Flag(flag) => Some(flag),
            Value::Integer(0) => Some(false),
            Value::Integer(1) => Some(true),
            _ => None,
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, findings: &Findings, choices: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(findings)?;
        let found = choices.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            let like = nearest(text, words.iter().copied());
            findings.at_like(self, format!("must be one of: {}", words.join(", ")), like);
        }
        found.map(|(_, value)| *value)
    }

    /// The entries of a table.
    pub(super) fn table<'a>(&'a self, findings: &'a Findings) -> Option<Table<'a>> {
        let Value::Table(entries) = &self.value else {
            self.wrong_type(findings, "a table");
            return None;
        };
        Some(Table { of: self, entries, asked: RefCell::new(Vec::new()), findings })
    }

    /// The items of a list.
    pub(super) fn list(&self, findings: &Findings) -> Option<&[Self]> {
        let Value::Array(items) = &self.value else {
            self.wrong_type(findings, "a list");
            return None;
        };
        Some(items)
    }

    /// A list of two numbers, the first below the second.
    pub(super) fn range(&self, findings: &Findings) -> Option<(f64, f64)> {
        let Value::Array(items) = &self.value else {
            self.wrong_type(findings, "a list of two numbers, [low, high]");
            return None;
        };
        let [low, high] = items.as_slice() else {
            findings.at(self, format!("must be a list of two numbers, [low, high], not of {}", items.len()));
            return None;
        };
        let (low, high) = (low.number(findings), high.number(findings));
        let (low, high) = (low?, high?);
        if low >= high {
            let (low, high) = (Short(low), Short(high));
            findings
                .at(self, format!("the first number must be below the second: {low} is not below {high}"));
            return None;
        }
        Some((low, high))
    }
}

/// A table that notes which keys were asked for, so that the others are unknown.
#[derive(Debug)]
pub(super) struct Table<'a> {
    pub(super) of: &'a Item,
    entries: &'a [Item],
    asked: RefCell<Vec<&'static str>>,
    pub(super) findings: &'a Findings,
}

impl Place for Table<'_> {
    fn path(&self) -> &str {
        &self.of.path
    }
    fn line(&self) -> Option<usize> {
        // The root has no line of its own: what is missing there is missing in the file.
        (!self.of.path.is_empty()).then_some(self.of.line)
    }
}

impl<'a> Table<'a> {
    /// The value of a key, of whatever type.
    pub(super) fn item(&self, key: &'static str) -> Option<&'a Item> {
        self.asked.borrow_mut().push(key);
        self.entries.iter().find(|e| e.key == key)
    }

    /// The value of a key that must be there.
    pub(super) fn required(&self, key: &'static str, what: &str) -> Option<&'a Item> {
        let found = self.item(key);
        if found.is_none() {
            self.missing(key, what);
        }
        found
    }

    /// Reports the keys that belong to the other role, or that mean nothing here, each with its reason. Whether there
    /// was one.
    pub(super) fn refuse(&self, keys: &[(&'static str, &str)]) -> bool {
        let mut found = false;
        for (key, reason) in keys {
            // Asking for a key offers it as a correction: only those that are there are asked for.
            if self.entries.iter().any(|e| e.key == *key) {
                self.item(key).into_iter().for_each(|item| self.findings.at(item, *reason));
                found = true;
            }
        }
        found
    }

    /// Reports a key that must be there and is not; a dot leads into an inner table.
    pub(super) fn missing(&self, key: &str, what: &str) {
        self.findings.push(Problem {
            file: self.findings.file().to_path_buf(),
            line: self.line(),
            key: key.split('.').fold(self.of.path.clone(), |path, part| join(&path, part)),
            reason: format!("{MISSING}: {what}"),
            nearest: None,
        });
    }

    /// All entries, for tables whose keys are names the user chooses.
    pub(super) fn named(&self) -> &'a [Item] {
        self.entries
    }

    /// A number above 0.
    pub(super) fn positive(&self, key: &'static str) -> Option<f64> {
        let item = self.item(key)?;
        let number = item.number(self.findings)?;
        if number <= 0.0 {
            self.findings.at(item, format!("must be above 0, not {}", Short(number)));
            return None;
        }
        Some(number)
    }

    /// A number within bounds.
    pub(super) fn within(&self, key: &'static str, min: f64, max: f64) -> Option<f64> {
        let item = self.item(key)?;
        let number = item.number(self.findings)?;
        if !(min..=max).contains(&number) {
            self.findings.at(item, format!("must be {min} to {max}, not {}", Short(number)));
            return None;
        }
        Some(number)
    }

    /// See [`Item::integer`].
    pub(super) fn integer(&self, key: &'static str, min: u32, max: u32, unit: &str) -> Option<u32> {
        self.item(key)?.integer(self.findings, min, max, unit)
    }

    /// See [`Item::flag`].
    pub(super) fn flag(&self, key: &'static str) -> Option<bool> {
        self.item(key)?.flag(self.findings)
    }

    /// See [`Item::choice`].
    pub(super) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&'static str, T)]) -> Option<T> {
        self.item(key)?.choice(self.findings, choices)
    }

    /// See [`Item::table`].
    pub(super) fn table(&self, key: &'static str) -> Option<Self> {
        self.item(key)?.table(self.findings)
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        for entry in self.entries.iter().filter(|e| !asked.contains(&e.key.as_str())) {
            let free = asked.iter().copied().filter(|a| !self.entries.iter().any(|e| e.key == *a));
            let meant = nearest(&entry.key, free);
            if let Some(meant) = &meant {
                self.findings.withdraw_missing(&join(&self.of.path, meant));
            }
            self.findings.at_like(entry, "unknown key", meant);
        }
    }
}
