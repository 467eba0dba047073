//! What a script makes happen on the server: one line is one action or one wait.
//!
//! Owns the words and the waits between them. Relies on nothing. Never acts: it says what is due.

use core::fmt;
use std::collections::VecDeque;

use crate::time::{Duration, Instant};

/// What can be made to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A driver takes this slot.
    Connect(u8),
    /// The driver of this slot leaves.
    Disconnect(u8),
    /// The driver of this slot writes something.
    Chat(u8, String),
    /// The car hits another one, or the wall.
    Collide(u8, Option<u8>),
    /// The next session.
    Next,
    /// This session again.
    Restart,
    /// The driver of this slot stops on the track, or drives on.
    Halt(u8, bool),
    /// Nothing leaves any more, as behind a cut cable, or it does again.
    Mute(bool),
}

/// Why a line is no action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScriptError {
    /// A first word that is not known.
    Word,
    /// Something is missing, or too much.
    Count,
    /// A slot that is not 0 to 254, or a wait that is not 0 to 3,600,000 ms.
    Number,
    /// A chat of more than 255 characters.
    Text,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Word => {
                "not one of wait, connect, disconnect, chat, collide, halt, go, next, restart, mute, unmute"
            }
            Self::Count => "something is missing, or too much",
            Self::Number => "not a number that is possible here",
            Self::Text => "a text of more than 255 characters",
        })
    }
}

impl core::error::Error for ScriptError {}

/// Longest wait in a script, in ms: an hour.
const WAIT_MAX_MS: u64 = 3_600_000;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    Wait(Duration),
    Act(Action),
}

fn line(text: &str) -> Result<Option<Line>, ScriptError> {
    let text = text.split('#').next().unwrap_or_default().trim();
    let mut words = text.split_whitespace();
    let Some(word) = words.next() else { return Ok(None) };
    let slot = |word: Option<&str>| -> Result<u8, ScriptError> {
        let number: u8 = word.ok_or(ScriptError::Count)?.parse().map_err(|_| ScriptError::Number)?;
        if number == u8::MAX { Err(ScriptError::Number) } else { Ok(number) }
    };
    let action = match word {
        "wait" => {
            let ms: u64 = words.next().ok_or(ScriptError::Count)?.parse().map_err(|_| ScriptError::Number)?;
            if ms > WAIT_MAX_MS {
                return Err(ScriptError::Number);
            }
            Line::Wait(Duration::from_millis(ms))
        }
        "connect" => Line::Act(Action::Connect(slot(words.next())?)),
        "disconnect" => Line::Act(Action::Disconnect(slot(words.next())?)),
        "chat" => {
            let car = slot(words.next())?;
            let said: Vec<&str> = words.by_ref().collect();
            let said = said.join(" ");
            match said.chars().count() {
                0 => return Err(ScriptError::Count),
                1..=255 => Line::Act(Action::Chat(car, said)),
                _ => return Err(ScriptError::Text),
            }
        }
        "collide" => {
            let car = slot(words.next())?;
            let other = words.next().map(|word| slot(Some(word))).transpose()?;
            Line::Act(Action::Collide(car, other))
        }
        "halt" => Line::Act(Action::Halt(slot(words.next())?, true)),
        "go" => Line::Act(Action::Halt(slot(words.next())?, false)),
        "next" => Line::Act(Action::Next),
        "restart" => Line::Act(Action::Restart),
        "mute" => Line::Act(Action::Mute(true)),
        "unmute" => Line::Act(Action::Mute(false)),
        _ => return Err(ScriptError::Word),
    };
    if words.next().is_some() {
        return Err(ScriptError::Count);
    }
    Ok(Some(action))
}

/// The lines that are left.
#[derive(Debug, Clone, Default)]
pub struct Script {
    lines: VecDeque<Line>,
    resume_at: Option<Instant>,
}

impl Script {
    /// Reads a whole script; `#` begins a comment.
    ///
    /// # Errors
    /// The number of the first bad line, from 1, and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, (usize, ScriptError)> {
        let mut lines = VecDeque::new();
        for (at, text) in text.lines().enumerate() {
            lines.extend(line(text).map_err(|error| (at + 1, error))?);
        }
        Ok(Self { lines, resume_at: None })
    }

    /// The next action, if it is due. The first call is the begin of the script.
    pub fn poll(&mut self, now: Instant) -> Option<Action> {
        loop {
            let due = *self.resume_at.get_or_insert(now);
            if now < due {
                return None;
            }
            match self.lines.pop_front()? {
                // From the end of the wait before, so that a late poll does not stretch a script.
                Line::Wait(wait) => self.resume_at = Some(due + wait),
                Line::Act(action) => return Some(action),
            }
        }
    }

    /// When the next action is due; `None` before the first call and where nothing is left.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.resume_at.filter(|_| !self.lines.is_empty())
    }
}
