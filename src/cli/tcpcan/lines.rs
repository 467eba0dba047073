//! What is told of a tunnel: the lines, and how many of them.
//!
//! Owns the words for each piece of news and the measure that keeps a log readable; the gateway's log uses the same. Relies on
//! nothing but the news. Never counts: the tunnel's counters have everything.

use core::fmt::Display;

use crate::io::canbus::{BusAddress, OpenError};
use crate::safety::injection::Refusal;
use crate::threads::tcpcan::{Ended, News, What};
use crate::time::{Duration, Instant};

/// Refused frames and connections that are told in a second; all are counted.
const REFUSALS_PER_S: u32 = 10;

/// Comings and goings that are told in a second. Three for each of the eight peers that may come at once: connected, agreed,
/// ended.
const VISITS_PER_S: u32 = 24;

/// Which news are told: what peers can cause as often as they like is told a few times a second, and the counters have it
/// all. Refusals have their own measure: those who come and go must not hide who was refused.
#[derive(Debug, Default)]
pub(in crate::cli) struct Told {
    refusals: Lines,
    visits: Lines,
}

impl Told {
    /// Takes the right to tell this, if there is one.
    pub(in crate::cli) fn take(&mut self, what: &What, now: Instant) -> bool {
        match what {
            What::Refused(..) | What::NotAllowed => self.refusals.take(REFUSALS_PER_S, now),
            What::Connected | What::Agreed | What::Ended(_) => self.visits.take(VISITS_PER_S, now),
            _ => true,
        }
    }
}

/// Lines told in this second.
#[derive(Debug, Default)]
struct Lines {
    since: Option<Instant>,
    count: u32,
}

impl Lines {
    fn take(&mut self, most: u32, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.since(since) >= Duration::from_secs(1)) {
            *self = Self { since: Some(now), count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= most
    }
}

/// A connection that lived so long has worked.
const WORKED: Duration = Duration::from_secs(5);

/// What a line ends with where the tunnel goes on trying.
pub(in crate::cli) const fn goes_on(what: &What) -> &'static str {
    match what {
        What::NoListener(_) | What::NoAccept(_) | What::Unreachable(_) | What::BusAway(_) => "; trying again",
        _ => "",
    }
}

/// One piece of news in a person's words; `bus` is what the person calls the bus.
pub(in crate::cli) fn line(news: &News, bus: &dyn Display, address: &BusAddress) -> String {
    let who = news.peer.map_or_else(|| bus.to_string(), |peer| peer.to_string());
    match news.what {
        What::Listening => format!("{bus}: listening"),
        What::NoListener(errno) => {
            let why = nix::errno::Errno::from_raw(errno).desc();
            format!("{bus}: cannot listen: {why}")
        }
        What::NoAccept(errno) => {
            let why = nix::errno::Errno::from_raw(errno).desc();
            format!("{bus}: this process can take no more connections: {why}")
        }
        What::Connected => format!("{who}: connected"),
        What::Agreed => format!("{who}: version agreed, frames pass"),
        What::Ended(ended) => format!("{who}: {ended}"),
        What::NotAllowed => format!("{who}: refused, not on the allow list"),
        What::Unreachable(error) => format!("the other end: {error}"),
        What::Refused(refusal, id) => {
            let why = match refusal {
                Refusal::Actuator => "only the gateway may send it",
                Refusal::NotListed => "not listed for this state",
                Refusal::Service => {
                    "a diagnostic service that may change something, while the vehicle is driven"
                }
                Refusal::ErrorFrame => "an error message",
                Refusal::PeerRate => "more than this peer may send",
                Refusal::TotalRate => "more than all peers may send",
            };
            format!("{who}: frame {id} refused: {why}")
        }
        What::BusAway(cause) => OpenError { bus: address.clone(), cause }.to_string(),
        What::BusDown => format!("{bus}: the interface went down"),
        What::BusBack => format!("{bus}: back"),
        What::BusError(class) => format!("{bus}: {class}"),
    }
}

/// Which ends of connections a caller is told of: not the same one again and again, if each comes so soon that nothing has
/// worked in between.
#[derive(Debug, Default)]
pub(super) struct Ends {
    connected_at: Option<Instant>,
    told: heapless::Vec<Ended, 8>,
}

impl Ends {
    pub(super) const fn note_connected(&mut self, now: Instant) {
        self.connected_at = Some(now);
    }

    /// Whether this end is worth a line.
    pub(super) fn is_new(&mut self, ended: Ended, now: Instant) -> bool {
        let worked = self.connected_at.take().is_some_and(|at| now.since(at) >= WORKED);
        if worked {
            self.told.clear();
        }
        // More kinds than there is room for are a flood.
        worked || (!self.told.contains(&ended) && self.told.push(ended).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::tcp::LinkError;

    #[test]
    fn the_same_end_is_told_once_until_a_connection_has_worked() {
        let at = Instant::from_millis;
        let (closed, reset) = (Ended::Link(LinkError::Closed), Ended::Link(LinkError::Reset));
        let mut ends = Ends::default();
        let mut told = |ended, from, to| {
            ends.note_connected(at(from));
            ends.is_new(ended, at(to))
        };
        assert!(told(closed, 0, 10));
        assert!(!told(closed, 100, 200) && told(reset, 300, 310) && !told(closed, 400, 410));
        assert!(told(closed, 1_000, 6_000), "it had worked");
        assert!(told(reset, 7_000, 7_010) && told(closed, 7_100, 7_110) && !told(reset, 7_200, 7_210));
    }
}
