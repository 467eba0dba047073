//! The report as a person reads it, and as a program does.
//!
//! Owns the layout. Relies on the findings, and on the looks of `status`. Never lets a control character out: part of a line may
//! come from a file or a socket.

use serde_json::json;

use super::facts::Facts;
use super::judge::{Finding, Level, has_problem};
use crate::cli::VERSION;
use crate::cli::station::clean;
use crate::cli::status::screen::{Colours, Tone, hanging};

/// Longest text of one finding: a problem of the configuration with everything that it quotes.
const TEXT_CHARS: usize = 1_000;

/// Where the texts begin: behind the area and the level.
const COLUMN: usize = 19;

/// The whole report.
pub(super) fn lines(facts: &Facts, findings: &[Finding], colours: Colours) -> String {
    let mut out = String::new();
    hanging(&mut out, "Doctor", &format!("ocpcan {VERSION}, {}", facts.path.display()), COLUMN);
    out.push('\n');
    let mut area = "";
    for finding in findings {
        let name = if finding.area == area { "" } else { finding.area };
        area = finding.area;
        let tone = match finding.level {
            Level::Ok => Tone::Good,
            Level::Warning => Tone::Waiting,
            Level::Problem => Tone::Bad,
        };
        let level = colours.paint(tone, &format!("{:<7}", finding.level.name()));
        hanging(&mut out, name, &format!("{level} {}", clean(&finding.text, TEXT_CHARS)), COLUMN);
        if let Some(remedy) = &finding.remedy {
            let indent = COLUMN - crate::cli::status::screen::NAMES;
            hanging(&mut out, "", &format!("{:indent$}-> {}", "", clean(remedy, TEXT_CHARS)), COLUMN + 3);
        }
    }
    out.push('\n');
    hanging(&mut out, "Result", &result(findings), COLUMN);
    out
}

fn count(findings: &[Finding], level: Level) -> usize {
    findings.iter().filter(|finding| finding.level == level).count()
}

fn result(findings: &[Finding]) -> String {
    let counted = |level, one: &str| match count(findings, level) {
        0 => format!("no {one}"),
        1 => format!("1 {one}"),
        n => format!("{n} {one}s"),
    };
    format!("{}, {}", counted(Level::Problem, "problem"), counted(Level::Warning, "warning"))
}

/// One object, in one line.
pub(super) fn json(facts: &Facts, findings: &[Finding]) -> String {
    let checks: Vec<_> = findings
        .iter()
        .map(|finding| {
            json!({
                "area": finding.area,
                "level": finding.level.name(),
                "text": clean(&finding.text, TEXT_CHARS),
                "remedy": finding.remedy.as_ref().map(|remedy| clean(remedy, TEXT_CHARS)),
            })
        })
        .collect();
    let report = json!({
        "ok": !has_problem(findings),
        "problems": count(findings, Level::Problem),
        "warnings": count(findings, Level::Warning),
        "version": VERSION,
        "config": facts.path.display().to_string(),
        "digest": facts.config.as_ref().ok().map(|config| &config.digest),
        "checks": checks,
    });
    format!("{report}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::facts::{ClockFacts, Rights, RuntimeFacts, Unusable};
    use crate::io::power::Power;

    fn facts() -> Facts {
        Facts {
            path: "x.toml".into(),
            config: Err(Unusable::NotWritten),
            buses: Vec::new(),
            rights: Rights { user: "pi".to_owned(), fifo: Ok(()), memory: Ok(()) },
            running: None,
            clock: ClockFacts::default(),
            ports: Vec::new(),
            peer: None,
            power: Power::default(),
            watchdogs: Vec::new(),
            service: None,
            runtime: RuntimeFacts::Missing("/run/ocpcan".into()),
        }
    }

    fn findings() -> Vec<Finding> {
        let finding = |area, level, text: &str, remedy: Option<&str>| Finding {
            area,
            level,
            text: text.to_owned(),
            remedy: remedy.map(str::to_owned),
        };
        vec![
            finding("Bus", Level::Ok, "can0: up", None),
            finding(
                "Bus",
                Level::Problem,
                &format!("can0: {} \x1b[31m", "long ".repeat(20)),
                Some("mend it"),
            ),
            finding("OCP", Level::Warning, "late", Some("wait")),
        ]
    }

    #[test]
    fn a_line_has_its_area_once_its_level_and_its_remedy_below() {
        let text = lines(&facts(), &findings(), Colours::No);
        assert!(text.contains("\nBus        ok      can0: up\n           problem can0: long"), "{text}");
        assert!(text.contains("\n                   -> mend it\nOCP        warning late\n"), "{text}");
        assert!(text.ends_with("\nResult     1 problem, 1 warning\n"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80) && !text.contains('\x1b'), "{text}");
        assert!(lines(&facts(), &findings(), Colours::Yes).contains("\x1b[1;31mproblem\x1b[0m can0"));
    }

    #[test]
    fn json_is_one_object_in_one_line() {
        let text = json(&facts(), &findings());
        assert_eq!(text.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((value["ok"].as_bool(), value["problems"].as_u64()), (Some(false), Some(1)));
        assert_eq!(value["checks"][1]["remedy"], "mend it");
        assert!(!value["checks"][1]["text"].as_str().unwrap().contains('\x1b'));
    }
}
