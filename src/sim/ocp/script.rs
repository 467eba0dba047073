//! One source of commands in the order they came, with waits between them.
//!
//! Owns the line buffer and the waits of a script, a keyboard or a control connection. Relies on [`super::command`].
//! Never runs a command: it says when one is due.

use std::collections::VecDeque;

use super::command::{self, Command, CommandError};
use crate::time::{Duration, Instant};

/// Turns text into commands that fall due in order.
#[derive(Debug, Clone, Default)]
pub struct Sequencer {
    /// Names that a command may use for a vehicle; every name where there is no list.
    vehicles: Option<Vec<String>>,
    partial: String,
    queue: VecDeque<Command>,
    resume_at: Instant,
}

impl Sequencer {
    /// A sequencer with nothing to do.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A sequencer that refuses commands about vehicles of other names.
    #[must_use]
    pub fn of(vehicles: &[String]) -> Self {
        Self { vehicles: Some(vehicles.to_vec()), ..Self::default() }
    }

    fn parse(&self, line: &str) -> Result<Option<Command>, CommandError> {
        let command = command::parse(line)?;
        match (command.as_ref().and_then(Command::vehicle), &self.vehicles) {
            (Some(name), Some(known)) if !known.iter().any(|known| known == name) => {
                Err(CommandError::NoVehicle(name.to_owned()))
            }
            _ => Ok(command),
        }
    }

    /// Takes a whole script.
    ///
    /// # Errors
    /// The number of the first bad line, from 1, and what is wrong with it. Nothing of the script is taken.
    pub fn load(&mut self, script: &str) -> Result<(), (usize, CommandError)> {
        let mut commands = Vec::new();
        for (at, line) in script.lines().enumerate() {
            commands.extend(self.parse(line).map_err(|error| (at + 1, error))?);
        }
        self.queue.extend(commands);
        Ok(())
    }

    /// Takes text as it arrives and gives an answer for each complete line. A line longer than 64 KiB is cut there.
    pub fn handle_text(&mut self, text: &str) -> Vec<Result<(), CommandError>> {
        /// No command is longer: user data has to fit one message of 16 KiB, and a test may want more.
        const LINE_MAX: usize = 65_536;
        let mut answers = Vec::new();
        for c in text.chars() {
            if c == '\n' {
                let line = core::mem::take(&mut self.partial);
                answers.push(self.parse(&line).map(|command| self.queue.extend(command)));
            } else if self.partial.len() < LINE_MAX {
                self.partial.push(c);
            }
        }
        answers
    }

    /// The next command, if it is due.
    pub fn poll(&mut self, now: Instant) -> Option<Command> {
        while now >= self.resume_at {
            match self.queue.pop_front()? {
                // From the end of the wait before where that just ended: a late poll does not stretch a script.
                Command::Wait(wait) => {
                    let is_late = now.since(self.resume_at) < Duration::from_millis(100);
                    self.resume_at = if is_late { self.resume_at } else { now } + wait;
                }
                command => return Some(command),
            }
        }
        None
    }

    /// When the next command is due; `None` where there is none.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.queue.is_empty()).then_some(self.resume_at)
    }

    /// Whether every command was given and every wait is over.
    #[must_use]
    pub fn is_done(&self, now: Instant) -> bool {
        self.queue.is_empty() && now >= self.resume_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ocp::Button;

    const fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn a_script_runs_in_order_with_its_waits() {
        let mut sequencer = Sequencer::new();
        sequencer.load("# a comment\npress start\nwait 100\nrelease start\n\nwait 50\n").unwrap();
        assert_eq!(sequencer.poll(at(1_000)), Some(Command::Press(Button::Start)));
        assert_eq!(sequencer.poll(at(1_000)), None);
        assert_eq!(sequencer.poll_timeout(), Some(at(1_100)));
        // Late, and the next wait still ends where the script says.
        assert_eq!(sequencer.poll(at(1_120)), Some(Command::Release(Button::Start)));
        assert_eq!(sequencer.poll(at(1_120)), None);
        assert!(!sequencer.is_done(at(1_149)) && sequencer.is_done(at(1_150)));
    }

    #[test]
    fn a_wait_typed_much_later_starts_then() {
        let mut sequencer = Sequencer::new();
        sequencer.load("wait 10").unwrap();
        assert_eq!(sequencer.poll(at(1_000)), None);
        sequencer.load("wait 10\nneutral").unwrap();
        assert_eq!(sequencer.poll(at(9_000)), None);
        assert_eq!(sequencer.poll_timeout(), Some(at(9_010)));
        assert_eq!(sequencer.poll(at(9_010)), Some(Command::Neutral));
    }

    #[test]
    fn a_bad_line_is_named_and_nothing_of_the_script_runs() {
        let mut sequencer = Sequencer::new();
        let (line, _) = sequencer.load("press start\nfly\n").unwrap_err();
        assert_eq!((line, sequencer.poll(at(5))), (2, None));
    }

    #[test]
    fn a_vehicle_that_is_not_there_is_refused() {
        let mut sequencer = Sequencer::of(&["a".to_owned(), "b".to_owned()]);
        let answers = sequencer.handle_text("vehicle a close\nvehicle c close\nactive d\nactive b\n");
        let ok: Vec<_> = answers.iter().map(Result::is_ok).collect();
        assert_eq!(ok, [true, false, false, true]);
        assert_eq!(answers[1], Err(CommandError::NoVehicle("c".into())));
    }

    #[test]
    fn typed_text_is_answered_line_by_line_however_it_is_cut() {
        let mut sequencer = Sequencer::new();
        let mut answers = Vec::new();
        for c in "press start\nnonsense\n\nneutral\nneut".chars() {
            answers.extend(sequencer.handle_text(&c.to_string()));
        }
        let ok: Vec<_> = answers.iter().map(Result::is_ok).collect();
        assert_eq!(ok, [true, false, true, true]);
        assert_eq!(sequencer.poll(at(0)), Some(Command::Press(Button::Start)));
        assert_eq!(sequencer.poll(at(0)), Some(Command::Neutral));
        assert_eq!(sequencer.poll(at(0)), None);
    }
}
