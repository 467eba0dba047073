//! Whose client data counts: the Player's lock on the first source.
//!
//! Owns the sources and the lock's three states. Relies on nothing. Never leaves the conflict: a restart of the Player
//! makes a new lock.

use core::fmt;

/// A kind of program that can send client data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// A web page in the Player.
    Webview,
    /// The client of the TCP server.
    Tcp,
    /// A plugin of the Player.
    Plugin,
}

impl Source {
    /// The vendor's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Webview => "Webview",
            Self::Tcp => "TCP",
            Self::Plugin => "Plugin",
        }
    }
}

/// Which source the Player listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SourceLock {
    /// Nobody has sent client data.
    #[default]
    Free,
    /// This one was the first.
    Held(Source),
    /// The first and the one that sent later: nobody's data counts any more.
    Conflict(Source, Source),
}

impl SourceLock {
    /// The lock after data of this source.
    #[must_use]
    pub fn after(self, source: Source) -> Self {
        match self {
            Self::Free => Self::Held(source),
            Self::Held(held) if held != source => Self::Conflict(held, source),
            Self::Held(_) | Self::Conflict(..) => self,
        }
    }
}

impl fmt::Display for SourceLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Free => f.write_str("none"),
            Self::Held(source) => f.write_str(source.name()),
            Self::Conflict(held, other) => write!(f, "conflict of {} and {}", held.name(), other.name()),
        }
    }
}
