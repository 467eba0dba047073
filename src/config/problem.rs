//! What is wrong with a configuration, said so that a person can repair it.
//!
//! Owns the form of a problem, the list that collects them and the search for the name that was meant. Relies on
//! nothing. Never decides what is wrong.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

/// One reason why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file that must be changed, as it was named.
    pub file: PathBuf,
    /// Line in that file, counted from 1, where it is known.
    pub line: Option<usize>,
    /// The key, such as `send.DRIVE_CMD.period_ms`; empty where the whole file is meant.
    pub key: String,
    /// What is wrong, and what would be right.
    pub reason: String,
    /// The valid name that looks most like the one in the file.
    pub nearest: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.reason)?;
        match &self.nearest {
            Some(name) => write!(f, "; did you mean `{name}`?"),
            None => Ok(()),
        }
    }
}

/// How the reason begins where a key is not there.
pub(super) const MISSING: &str = "is missing";

/// Everything found so far in one file.
#[derive(Debug)]
pub(super) struct Findings {
    file: PathBuf,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<String>>,
}

impl Findings {
    pub(super) fn new(file: &Path) -> Self {
        Self {
            file: file.to_path_buf(),
            problems: RefCell::new(Vec::new()),
            warnings: RefCell::new(Vec::new()),
        }
    }

    /// The configuration file.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Adds a problem at a key of the configuration file.
    pub(super) fn at(&self, place: &impl Place, reason: impl Into<String>) {
        self.at_like(place, reason, None);
    }

    /// The same, with the name that was probably meant.
    pub(super) fn at_like(&self, place: &impl Place, reason: impl Into<String>, nearest: Option<String>) {
        self.push(Problem {
            file: self.file.clone(),
            line: place.line(),
            key: place.path().to_owned(),
            reason: reason.into(),
            nearest,
        });
    }

    /// Adds a problem that may lie in another file.
    pub(super) fn push(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// Takes back that a key is missing: it is there under a wrong spelling, which is reported.
    pub(super) fn withdraw_missing(&self, key: &str) {
        self.problems.borrow_mut().retain(|p| !(p.key == key && p.reason.starts_with(MISSING)));
    }

    /// Adds a remark that does not stop the gateway from starting.
    pub(super) fn warn(&self, place: &str, text: impl fmt::Display) {
        self.warnings.borrow_mut().push(format!("{place}: {text}"));
    }

    pub(super) fn is_clean(&self) -> bool {
        self.problems.borrow().is_empty()
    }

    /// The problems in the order of the file, then the warnings.
    pub(super) fn into_parts(self) -> (Vec<Problem>, Vec<String>) {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|p| (p.file != self.file, p.line));
        problems.dedup();
        (problems, self.warnings.into_inner())
    }
}

/// Where in the configuration file something stands.
pub(super) trait Place {
    /// The dotted key path.
    fn path(&self) -> &str;
    /// The line, counted from 1.
    fn line(&self) -> Option<usize>;
}

/// The candidate that looks most like `wrong`, if one is near enough to have been meant: at most a third of the
/// letters differ, or the letters differ in case only.
#[must_use]
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    // Longer names are not compared: the work is quadratic in their length.
    const LONGEST: usize = 128;
    if wrong.len() > LONGEST {
        return None;
    }
    let wrong_lower = wrong.to_lowercase();
    let allowed = (wrong.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .filter(|c| c.len() <= LONGEST)
        .map(|c| (distance(&wrong_lower, &c.to_lowercase()), c))
        .filter(|(d, _)| *d <= allowed)
        .min_by_key(|(d, c)| (*d, c.len().abs_diff(wrong.len())))
        .map(|(_, c)| c.to_owned())
}

/// Insertions, deletions, substitutions and swaps of neighbours that lead from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before_last: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut previous_char = None;
    for (i, ca) in a.chars().enumerate() {
        let mut row = vec![i + 1; b.len() + 1];
        for (j, cb) in b.iter().enumerate() {
            let substituted = last[j] + usize::from(ca != *cb);
            row[j + 1] = substituted.min(last[j + 1] + 1).min(row[j] + 1);
            if j > 0 && previous_char == Some(*cb) && b[j - 1] == ca {
                row[j + 1] = row[j + 1].min(before_last[j - 1] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
        previous_char = Some(ca);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_that_was_meant_is_found_and_a_strange_one_is_not() {
        let names = ["buttons.start", "buttons.back", "axes.left_x", "axes.left_y"];
        assert_eq!(nearest("buttons.strat", names), Some("buttons.start".into()));
        assert_eq!(nearest("BUTTONS.BACK", names), Some("buttons.back".into()));
        assert_eq!(nearest("axes.left", names), Some("axes.left_x".into()));
        assert_eq!(nearest("speed", names), None);
        assert_eq!(nearest("", names), None);
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("", ""), 0);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("ab", "ba"), 1);
    }
}
