//! What the documents repeat of the program, held against it: time constants, fault names, keys of the example.
//!
//! Owns no text. Relies on the documents' form: a table with the key in backticks, code blocks marked `toml`.

use ocpcan::safety::faults::Fault;
use ocpcan::safety::settings::{ARMS_PER_MINUTE, BOUNDS};

const SAFETY: &str = include_str!("../SAFETY.md");
const README: &str = include_str!("../README.md");
/// The files that README's configuration blocks are parts of.
const EXAMPLES: [&str; 4] = [
    include_str!("../deploy/ocpcan.example.toml"),
    include_str!("../deploy/simulator.example.toml"),
    include_str!("../deploy/operator.example.toml"),
    include_str!("../deploy/vehicle-with-panel.example.toml"),
];

/// A number with a comma every three digits, as the documents write it.
fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[test]
fn safety_md_lists_every_time_constant_with_its_bounds() {
    for bound in BOUNDS {
        let [default, min, max] = [bound.default_ms, bound.min_ms, bound.max_ms].map(grouped);
        let row = format!("| `{}` | {default} | {min} to {max} | {} |", bound.key, bound.meaning);
        assert!(SAFETY.contains(&row), "SAFETY.md lacks: {row}");
    }
    let (default, min, max) = ARMS_PER_MINUTE;
    assert!(SAFETY.contains(&format!("| `arms_per_minute` | {default} | {min} to {max} |")));
    let listed = SAFETY.lines().filter(|line| line.starts_with("| `") && line.contains(" to ")).count();
    assert_eq!(listed, BOUNDS.len() + 1, "SAFETY.md lists a time constant that does not exist");
}

#[test]
fn faults_that_safety_md_names_exist() {
    let mut named = 0;
    for line in SAFETY.lines().filter(|line| line.starts_with("| ")) {
        for marker in ["trip `", "trips `", "LOCKOUT `"] {
            for rest in line.split(marker).skip(1) {
                let name = rest.split('`').next().unwrap();
                assert!(Fault::ALL.iter().any(|fault| fault.name() == name), "{name} in {line}");
                named += 1;
            }
        }
    }
    assert!(named > 15, "only {named} faults are named");
}

#[test]
fn the_readmes_configuration_is_part_of_the_examples() {
    let bare = |line: &str| line.split('#').next().unwrap().trim_end().to_owned();
    // What is not used there stands behind "# ".
    let offered = |example: &str| -> Vec<String> {
        example.lines().map(|line| bare(line.strip_prefix("# ").unwrap_or(line))).collect()
    };
    let examples = EXAMPLES.map(offered);
    let mut checked = 0;
    for block in README.split("```toml\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let lines: Vec<String> = block.lines().map(bare).filter(|line| !line.is_empty()).collect();
        let missing = |example: &Vec<String>| lines.iter().find(|line| !example.contains(line)).cloned();
        // A block is part of one example, not a line here and a line there.
        let missing: Vec<String> = examples.iter().filter_map(missing).collect();
        assert!(missing.len() < examples.len(), "in no example as a whole; each lacks one of {missing:?}");
        checked += lines.len();
    }
    assert!(checked > 20, "only {checked} lines");
}
