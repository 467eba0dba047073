//! The layout, held against files.

use serde_json::json;

use super::*;

const RESPONSE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/status/response.json"));
const SCREEN: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/status/screen.txt"));
const EMPTY: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/status/empty.txt"));

fn response() -> Value {
    serde_json::from_str(RESPONSE).unwrap()
}

/// Without the colours.
fn bare(text: &str) -> String {
    let mut in_escape = false;
    text.chars()
        .filter(|c| {
            in_escape |= *c == '\x1b';
            let is_shown = !in_escape;
            in_escape &= *c != 'm';
            is_shown
        })
        .collect()
}

#[test]
fn the_layout_is_the_one_in_the_file() {
    let text = screen(&response(), Colours::No);
    assert_eq!(text, SCREEN, "tests/data/status/screen.txt has another layout; this is\n{text}");
}

#[test]
fn what_is_missing_is_a_dash() {
    for nothing in [json!({}), json!(null), json!([])] {
        let text = screen(&nothing, Colours::No);
        assert_eq!(text, EMPTY, "tests/data/status/empty.txt has another layout; this is\n{text}");
    }
}

#[test]
fn every_key_may_be_missing_null_or_of_another_type() {
    /// Each value of the tree in turn, replaced.
    fn spoil(value: &Value, with: &Value, out: &mut Vec<Value>) {
        match value {
            Value::Object(members) => {
                for (key, member) in members {
                    let put = |one: Value| {
                        let mut whole = members.clone();
                        whole.insert(key.clone(), one);
                        Value::Object(whole)
                    };
                    out.push(put(with.clone()));
                    let mut below = Vec::new();
                    spoil(member, with, &mut below);
                    out.extend(below.into_iter().map(put));
                }
            }
            Value::Array(elements) => {
                for (at, element) in elements.iter().enumerate() {
                    let put = |one: Value| {
                        let mut whole = elements.clone();
                        whole[at] = one;
                        Value::Array(whole)
                    };
                    out.push(put(with.clone()));
                    let mut below = Vec::new();
                    spoil(element, with, &mut below);
                    out.extend(below.into_iter().map(put));
                }
            }
            _ => {}
        }
    }
    let mut cases = Vec::new();
    for with in
        [json!(null), json!("te\u{9b}xt"), json!(-1e300), json!([]), json!({}), json!([[]]), json!(true)]
    {
        spoil(&response(), &with, &mut cases);
    }
    assert!(cases.len() > 500);
    for case in cases {
        let text = screen(&case, Colours::No);
        for line in text.lines() {
            assert!(line.chars().count() <= COLUMNS, "{line}\nof {case}");
            assert!(!line.contains(char::is_control), "{line:?}\nof {case}");
        }
        let _ = marks(&case);
    }
}

#[test]
fn colours_change_nothing_but_the_colours() {
    let text = screen(&response(), Colours::Yes);
    assert!(text.contains("\x1b[1;33mSAFE\x1b[0m"), "{text}");
    assert_eq!(bare(&text), SCREEN);
    assert_eq!(text.matches("\x1b[1;").count(), text.matches("\x1b[0m").count(), "{text:?}");
}

#[test]
fn a_wide_line_goes_on_below_and_loses_nothing() {
    let status = json!({ "Faults": [{ "Name": "x".repeat(100), "Text": "some words ".repeat(10) }] });
    let plain = screen(&status, Colours::No);
    let lines: Vec<&str> = plain.lines().skip_while(|line| !line.starts_with("Wrong now")).collect();
    assert_eq!(lines[0], format!("Wrong now  {}", "some words ".repeat(6).trim_end()));
    let at = NAMES + 2;
    assert_eq!(lines[1], format!("{:at$}{}", "", "some words ".repeat(4).trim_end()));
    assert_eq!(lines[2], format!("{:at$}({}", "", "x".repeat(COLUMNS - at - 1)));
    assert_eq!(lines[3], format!("{:at$}{})", "", "x".repeat(100 - (COLUMNS - at - 1))));
    assert_eq!(bare(&screen(&status, Colours::Yes)), plain);
}

#[test]
fn a_gateway_that_is_driven_says_so() {
    let text = screen(&json!({ "State": "ARMED", "InStateMs": 9.5, "Faults": [] }), Colours::No);
    assert!(text.contains("State      ARMED for 9.5 ms\nWrong now  nothing\n"), "{text}");
    assert!(text.contains("To arm     armed: the operator drives\n"), "{text}");
    let text = screen(&json!({ "ListenOnly": true, "Lockout": { "Fault": "f", "Text": "t" } }), Colours::No);
    assert!(text.contains("listens only"), "{text}");
    assert!(text.contains("Lockout    t (f)\n"), "{text}");
}

#[test]
fn times_are_read_at_a_glance() {
    for (ms, text) in [
        (0.0, "0.0 ms"),
        (9.94, "9.9 ms"),
        (12.3, "12 ms"),
        (999.0, "999 ms"),
        (2_300.0, "2.3 s"),
        (100_000.0, "1 min 40 s"),
        (7_199_000.0, "119 min 59 s"),
        (7_200_000.0, "2 h 00 min"),
        (172_800_000.0, "2 d 00 h"),
    ] {
        assert_eq!(time(Some(ms)), text);
    }
    assert_eq!(time(None), "-");
}

#[test]
fn a_new_screen_is_due_when_state_faults_or_the_newest_event_change() {
    let first = marks(&response());
    for change in ["State", "Faults", "Events"] {
        let mut status = response();
        status[change] = json!([{ "Name": "other", "Number": 18 }]);
        assert_ne!(marks(&status), first, "{change}");
    }
    let mut status = response();
    status["UptimeMs"] = json!(1);
    status["Sources"] = json!([]);
    assert_eq!(marks(&status), first);
}
