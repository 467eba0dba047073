//! The sessions that a server has in turn.
//!
//! Owns what is configured of each. Relies on nothing. Never knows which one runs.

use crate::time::Duration;

/// What is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// For the best lap.
    Practice,
    /// For the best lap.
    Qualify,
    /// For the first place.
    Race,
}

impl Kind {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Practice => 1,
            Self::Qualify => 2,
            Self::Race => 3,
        }
    }

    /// The kind with this number; 0 (booking), 4 and 5 (drag, drift) are not simulated.
    #[must_use]
    pub const fn of_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Practice),
            2 => Some(Self::Qualify),
            3 => Some(Self::Race),
            _ => None,
        }
    }
}

/// One session as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPlan {
    /// As drivers see it; at most 63 characters of at most four bytes.
    pub name: String,
    /// What is driven.
    pub kind: Kind,
    /// How long; the wire tells whole minutes. Without a meaning where laps end it.
    pub time: Duration,
    /// How many laps; 0 where time ends it.
    pub laps: u16,
    /// From its begin to its start.
    pub wait: Duration,
}

impl SessionPlan {
    /// Practice and qualifying of ten minutes, and a race of five laps after a wait of 15 s.
    #[must_use]
    pub fn usual() -> Vec<Self> {
        let timed = |name: &str, kind| Self {
            name: name.to_owned(),
            kind,
            time: Duration::from_secs(600),
            laps: 0,
            wait: Duration::ZERO,
        };
        let race = Self {
            name: "Race".to_owned(),
            kind: Kind::Race,
            time: Duration::ZERO,
            laps: 5,
            wait: Duration::from_secs(15),
        };
        vec![timed("Practice", Kind::Practice), timed("Qualify", Kind::Qualify), race]
    }

    /// Minutes on the wire: 0 where laps end it.
    pub(super) fn minutes(&self) -> u16 {
        if self.laps > 0 { 0 } else { u16::try_from(self.time.as_secs() / 60).unwrap_or(u16::MAX) }
    }

    /// What the wire keeps of the wait in ms: the remainder by 65,536.
    #[allow(clippy::cast_possible_truncation, reason = "the wire keeps the lower 16 bits")]
    pub(super) fn wait_ms(&self) -> u16 {
        self.wait.as_millis() as u16
    }
}
