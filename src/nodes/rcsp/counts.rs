//! What is counted of the clients, and why each of them went.
//!
//! Owns the names. Relies on nothing. Never resets: the numbers of those who have gone are added to the server's.

/// Why a connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ended {
    /// The client closed it.
    Left = 0,
    /// Reset, or the client's machine has gone without a word.
    Lost,
    /// A message did not begin with `0xdc`.
    Marker,
    /// A header of another version.
    HeaderVersion,
    /// A header that says it is shorter than 8 bytes.
    HeaderSize,
    /// A body beyond the limit.
    TooLong,
    /// The second message that was no command.
    Kind,
    /// A message began and its end did not come in time.
    Incomplete,
    /// The client did not read for too long.
    NotReading,
    /// The server ends.
    Stopped,
    /// Another client wanted its place, and it needed it less.
    Displaced,
}

impl Ended {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Left,
        Self::Lost,
        Self::Marker,
        Self::HeaderVersion,
        Self::HeaderSize,
        Self::TooLong,
        Self::Kind,
        Self::Incomplete,
        Self::NotReading,
        Self::Stopped,
        Self::Displaced,
    ];

    /// Whether it went for what it sent, or did not read.
    #[must_use]
    pub const fn is_fault(self) -> bool {
        !matches!(self, Self::Left | Self::Lost | Self::Stopped | Self::Displaced)
    }

    /// What its number counts.
    const fn counted(self) -> &'static str {
        match self {
            Self::Left => "RCSP clients gone: closed by the client",
            Self::Lost => "RCSP clients gone: reset, or the machine is gone",
            Self::Marker => "RCSP clients closed: not RCSP",
            Self::HeaderVersion => "RCSP clients closed: another header version",
            Self::HeaderSize => "RCSP clients closed: header too short",
            Self::TooLong => "RCSP clients closed: message too long",
            Self::Kind => "RCSP clients closed: no commands",
            Self::Incomplete => "RCSP clients closed: message not ended",
            Self::NotReading => "RCSP clients closed: does not read",
            Self::Stopped => "RCSP clients closed: the server ends",
            Self::Displaced => "RCSP clients closed: another one needed the place",
        }
    }
}

impl core::fmt::Display for Ended {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Left => "closed by the client",
            Self::Lost => "reset by the client, or its machine is gone",
            Self::Marker => "what it sends is not RCSP",
            Self::HeaderVersion => "it sends headers of another version",
            Self::HeaderSize => "it sent a header that is too short",
            Self::TooLong => "it sent a message that is too long",
            Self::Kind => "it sends messages that are no commands",
            Self::Incomplete => "it began a message and did not end it",
            Self::NotReading => "it does not read",
            Self::Stopped => "the server ends",
            Self::Displaced => "another client needed its place",
        })
    }
}

/// Numbers since the start, of all clients there are and were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Messages that were commands, well-formed or not. Each got one answer or lost its client first.
    pub commands: u64,
    /// Answers that were errors, those to what was no command included.
    pub errors: u64,
    /// Events that were put in line for a client.
    pub events: u64,
    /// Of those, dropped unsent because the client did not keep up.
    pub events_dropped: u64,
    /// Clients that were let in.
    pub connections: u64,
    /// Clients that found every place taken.
    pub refused: u64,
    /// Callers that may not connect.
    pub not_allowed: u64,
    pub(super) closed: [u64; Ended::ALL.len()],
}

impl Counts {
    /// Connections that ended for this reason.
    #[must_use]
    pub fn closed(&self, ended: Ended) -> u64 {
        self.closed.get(ended as usize).copied().unwrap_or(0)
    }

    /// One more connection ended for this reason.
    pub fn note_closed(&mut self, ended: Ended) {
        if let Some(count) = self.closed.get_mut(ended as usize) {
            *count += 1;
        }
    }

    /// Every number with what it counts, in a person's words.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let plain = [
            ("RCSP commands", self.commands),
            ("RCSP answers that were errors", self.errors),
            ("RCSP events handed out", self.events),
            ("RCSP events dropped, a client did not keep up", self.events_dropped),
            ("RCSP connections", self.connections),
            ("RCSP connections refused, too many clients", self.refused),
            ("RCSP connections refused, address not allowed", self.not_allowed),
        ];
        plain.into_iter().chain(Ended::ALL.into_iter().map(|ended| (ended.counted(), self.closed(ended))))
    }

    /// Adds what another has counted.
    pub fn absorb(&mut self, other: &Self) {
        self.commands += other.commands;
        self.errors += other.errors;
        self.events += other.events;
        self.events_dropped += other.events_dropped;
        self.connections += other.connections;
        self.refused += other.refused;
        self.not_allowed += other.not_allowed;
        for (count, more) in self.closed.iter_mut().zip(other.closed) {
            *count += more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_number_and_text() {
        let mut counts = Counts::default();
        for (index, ended) in Ended::ALL.into_iter().enumerate() {
            assert_eq!(ended as usize, index);
            for _ in 0..=index {
                counts.note_closed(ended);
            }
        }
        counts.absorb(&counts.clone());
        for (index, ended) in Ended::ALL.into_iter().enumerate() {
            assert_eq!(counts.closed(ended), 2 * (index as u64 + 1));
        }
        let texts: std::collections::BTreeSet<String> = Ended::ALL.iter().map(Ended::to_string).collect();
        assert_eq!(texts.len(), Ended::ALL.len());
    }
}
