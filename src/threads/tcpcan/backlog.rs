//! What may have waited in a socket while this program did not run.
//!
//! Owns the earliest time at which what is read now can have come. Relies on nothing. Never reads a clock.

use crate::time::Instant;

/// What may have waited in a socket for longer than it looks.
///
/// Invariant: what is read after a pause is taken to have come right after the last look before it, until the socket was
/// seen empty or as much was read as it can have held then. It takes several turns to read a full socket; without this, all
/// but the first would take old frames for new ones.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Backlog {
    /// Since when, and how much of it is left (frames or bytes).
    old: Option<(Instant, usize)>,
}

impl Backlog {
    /// A pause has ended: up to `most` frames or bytes may have come since then.
    pub(super) fn begin(&mut self, since: Instant, most: usize) {
        if most == 0 {
            return;
        }
        // A second pause before the first one's backlog is read makes nothing younger.
        let since = self.old.map_or(since, |(earlier, _)| earlier);
        self.old = Some((since, most));
    }

    /// The earliest moment at which what is read now can have come.
    pub(super) fn came_at(self, now: Instant) -> Instant {
        self.old.map_or(now, |(since, _)| since)
    }

    /// So much was read.
    pub(super) fn take(&mut self, count: usize, is_empty: bool) {
        self.old = self.old.filter(|_| !is_empty).and_then(|(since, left)| {
            let left = left.saturating_sub(count);
            (left > 0).then_some((since, left))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_is_old_until_the_socket_was_empty_or_all_it_can_have_held_was_read() {
        let at = Instant::from_millis;
        let mut backlog = Backlog::default();
        assert_eq!(backlog.came_at(at(5)), at(5));
        // A second of frames, read in several turns: the last of them is as old as the first.
        backlog.begin(at(1_000), 4_096);
        for turn in 0..8 {
            assert_eq!(backlog.came_at(at(3_000 + turn)), at(1_000));
            backlog.take(512, false);
        }
        assert_eq!(backlog.came_at(at(3_008)), at(3_008), "what is read now came after the pause");
        // The same, seen empty earlier.
        backlog.begin(at(4_000), 4_096);
        backlog.take(64, false);
        assert_eq!(backlog.came_at(at(5_000)), at(4_000));
        backlog.take(3, true);
        assert_eq!(backlog.came_at(at(5_000)), at(5_000));
        // A pause while one is being read makes nothing younger.
        backlog.begin(at(6_000), 100);
        backlog.begin(at(7_000), 100);
        assert_eq!(backlog.came_at(at(8_000)), at(6_000));
        // Nothing waited.
        let mut empty = Backlog::default();
        empty.begin(at(9_000), 0);
        assert_eq!(empty.came_at(at(9_500)), at(9_500));
    }
}
