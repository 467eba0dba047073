//! JSON from the network as a person or a script reads it.
//!
//! Owns the two JSON forms and the tree. Relies on the caller for valid JSON. Never changes a number or the order of
//! members, and never lets a control character out.

use std::fmt::Write as _;

use crate::proto::json::{JsonError, Kind, Reader, Scalar, Str};

/// Spaces of one level.
const STEP: usize = 2;

/// Valid JSON on one line, control characters escaped.
pub(in crate::cli) fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in json.chars() {
        if !in_string {
            in_string = c == '"';
            if !c.is_ascii_whitespace() {
                out.push(c);
            }
            continue;
        }
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => in_string = false,
            _ => {}
        }
        if c.is_control() {
            // DEL and the second set: JSON lets them stand as they are, a terminal may act on them.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// The same over several lines, with a line end.
pub(in crate::cli) fn indented(json: &str) -> String {
    let mut out = String::new();
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let text = compact(json);
    let mut chars = text.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', depth * STEP));
    };
    while let Some(c) = chars.next() {
        if in_string {
            out.push(c);
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match c {
            '{' | '[' => {
                out.push(c);
                if let Some(close) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => {
                in_string = c == '"';
                out.push(c);
            }
        }
    }
    out.push('\n');
    out
}

/// The scalar members of an object on one line, but for this one, which stands elsewhere.
pub(in crate::cli) fn members_line(json: &str, but: &str) -> String {
    let mut out = String::new();
    // What cannot be read ends the line: `--json` has it all.
    let _ = Reader::new(json.as_bytes()).and_then(|mut reader| {
        reader.open_object()?;
        while let Some(key) = reader.next_key()? {
            let value = reader.scalar()?;
            if value != Scalar::Container && !key.is(but) {
                let space = if out.is_empty() { "" } else { "  " };
                let _ = write!(out, "{space}{}={}", cleaned(key), scalar(value));
            }
        }
        Ok(())
    });
    out
}

/// The value as a tree of `Key: value` lines; as indented JSON where it is too deep for that.
pub(in crate::cli) fn tree(json: &str) -> String {
    let mut out = String::new();
    let read = Reader::new(json.as_bytes()).and_then(|mut reader| branch(&mut out, &mut reader, 0));
    match read {
        Ok(()) => out,
        Err(_) => indented(json),
    }
}

/// Writes the next value: a scalar on one line, everything else on lines of its own.
fn branch(out: &mut String, reader: &mut Reader<'_>, depth: usize) -> Result<(), JsonError> {
    match reader.kind()? {
        Kind::Object => {
            reader.open_object()?;
            while let Some(key) = reader.next_key()? {
                indent(out, depth);
                let _ = write!(out, "{}:", cleaned(key));
                member(out, reader, depth)?;
            }
        }
        Kind::Array => {
            reader.open_array()?;
            while reader.next_element()? {
                let mut element = String::new();
                branch(&mut element, reader, depth + 1)?;
                indent(out, depth);
                // What the element begins with stands behind the dash.
                let _ = writeln!(out, "- {}", element.trim());
            }
        }
        _ => {
            indent(out, depth);
            let _ = writeln!(out, "{}", scalar(reader.scalar()?));
        }
    }
    Ok(())
}

/// What stands behind a key.
fn member(out: &mut String, reader: &mut Reader<'_>, depth: usize) -> Result<(), JsonError> {
    if !matches!(reader.kind()?, Kind::Object | Kind::Array) {
        let _ = writeln!(out, " {}", scalar(reader.scalar()?));
        return Ok(());
    }
    let mut below = String::new();
    branch(&mut below, reader, depth + 1)?;
    out.push_str(if below.is_empty() { " none\n" } else { "\n" });
    out.push_str(&below);
    Ok(())
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n(' ', depth * STEP));
}

fn cleaned(text: Str<'_>) -> String {
    // Marks that turn the direction of writing could make one text look like another.
    let turns =
        |c: char| matches!(c, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if c.is_control() || turns(c) { '?' } else { c }).collect()
}

fn scalar(value: Scalar<'_>) -> String {
    match value {
        Scalar::Null | Scalar::Container => "-".to_owned(),
        Scalar::Bool(yes) => if yes { "yes" } else { "no" }.to_owned(),
        Scalar::Number(number) => number.raw().to_owned(),
        Scalar::Str(text) => cleaned(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = "{ \"b\" : [1.50e2, {\"x\":null,\"y\":[ ]} ],\n \"a\\\"{\":\"t, \u{9b}2J\\u001b\",\"e\":{}, \"t\":true}";

    #[test]
    fn one_line_keeps_order_and_numbers_and_escapes_control_characters() {
        assert_eq!(
            compact(JSON),
            r#"{"b":[1.50e2,{"x":null,"y":[]}],"a\"{":"t, \u009b2J\u001b","e":{},"t":true}"#
        );
        let (a, b): (serde_json::Value, serde_json::Value) =
            (serde_json::from_str(JSON).unwrap(), serde_json::from_str(&compact(JSON)).unwrap());
        assert_eq!(a, b);
        assert_eq!(compact("\"\\\\\" "), "\"\\\\\"");
    }

    #[test]
    fn scalar_members_fit_on_a_line() {
        let json =
            r#"{"DeviceId":"x","Kind":"bus","Up":true,"Load":1.50,"More":{"a":1},"Why":null,"E":"\u001b"}"#;
        assert_eq!(members_line(json, "DeviceId"), "Kind=bus  Up=yes  Load=1.50  Why=-  E=?");
        assert_eq!(members_line("{\"a\":", "DeviceId"), "");
    }

    #[test]
    fn several_lines_hold_the_same() {
        let expected = r#"{
  "b": [
    1.50e2,
    {
      "x": null,
      "y": []
    }
  ],
  "a\"{": "t, \u009b2J\u001b",
  "e": {},
  "t": true
}
"#;
        assert_eq!(indented(JSON), expected);
        assert_eq!(indented("7"), "7\n");
    }

    #[test]
    fn a_tree_is_read_without_knowing_json() {
        let expected = "b:\n  - 1.50e2\n  - x: -\n    y: none\na\"{: t, ?2J?\ne: none\nt: yes\n";
        assert_eq!(tree(JSON), expected);
        assert_eq!(tree("\"x\""), "x\n");
        let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
        assert_eq!(tree(&deep), indented(&deep));
    }
}
