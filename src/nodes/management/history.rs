//! What has happened: the last events, each as a record that is told the same to everybody.
//!
//! Owns the words, the topics and the numbering of events, and how many are kept. Relies on the status and on what the
//! threads tell. Never decides anything, and never grows.

use std::collections::VecDeque;
use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use super::devices;
use super::facts::{BusFacts, ms};
use crate::nodes::report::transition;
use crate::safety::faults::{Class, Fault};
use crate::safety::input::{StateName, Status};
use crate::signals::plan::Plan;
use crate::time::Instant;

/// Events of the gateway itself that are kept for those who come late: a day of a quiet one.
const KEPT_OWN: usize = 192;

/// Events that others can cause as often as they like (callers who are refused, requests that come to nothing). They have a
/// place of their own, so that nobody can push out what the gateway has done.
const KEPT_OTHERS: usize = 64;

/// All together.
pub const KEPT: usize = KEPT_OWN + KEPT_OTHERS;

/// Publisher of what concerns the gateway as a whole.
pub const GATEWAY: &str = "Gateway";

/// Publisher of what concerns one device: the only publisher of the vendor's that is publicly known.
pub const DEVICE: &str = "DeviceEvents";

/// Publisher of everything, devices among it: for a log.
pub const ALL: &str = "GwAll";

/// Topics of the gateway as a whole.
pub const GATEWAY_TOPICS: [&str; 9] = [
    "StateChanged",
    "Trip",
    "Reaction",
    "Armed",
    "ForeignWriter",
    "DropsCrossed",
    "Requested",
    "Configured",
    "Warning",
];

/// Topics of a bus.
pub const BUS_TOPICS: [&str; 1] = ["BusStateChanged"];

/// Topics of the OCP connection.
pub const LINK_TOPICS: [&str; 1] = ["LinkStateChanged"];

/// Topics of a tunnel.
pub const TUNNEL_TOPICS: [&str; 4] = ["PeerConnected", "PeerRefused", "PeerEnded", "TunnelChanged"];

/// What a thread tells.
#[derive(Debug, Clone)]
pub enum Happening {
    /// The core's status, because something in it has changed.
    Status(Status),
    /// A bus was opened or lost.
    Bus {
        /// Its index.
        bus: usize,
        /// Whether it can be used now.
        up: bool,
        /// In a person's words.
        text: String,
    },
    /// OCP was connected, or lost.
    Link {
        /// Whether it is connected now.
        connected: bool,
        /// Where, or why not.
        text: String,
    },
    /// A tunnel's peer, or the tunnel itself.
    Tunnel {
        /// Index of its bus.
        bus: usize,
        /// The peer, where it is about one.
        peer: Option<SocketAddr>,
        /// One of [`TUNNEL_TOPICS`].
        topic: &'static str,
        /// In a person's words.
        text: String,
    },
    /// Something that a person asked the management plane for.
    Requested {
        /// The command.
        command: &'static str,
        /// Who asked.
        by: &'static str,
        /// What came of it.
        outcome: &'static str,
        /// Whether it has changed anything.
        changed: bool,
    },
    /// The simulated car, or what it sends.
    Car {
        /// One of [`super::car::CAR_TOPICS`].
        topic: &'static str,
        /// In a person's words.
        text: String,
    },
    /// A changed configuration file was taken while the gateway runs: what drives is the same in both.
    Configured {
        /// Its digest.
        digest: String,
        /// The whole as a record.
        config: Map<String, Value>,
        /// Whether a client on another machine may ask for a stop.
        remote_stop: bool,
    },
    /// What a person should know.
    Warning(String),
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Counts from 1, without a gap.
    pub number: u64,
    /// When.
    pub at: Instant,
    /// [`GATEWAY`] or [`DEVICE`].
    pub publisher: &'static str,
    /// The topic.
    pub topic: &'static str,
    /// Others can cause it as often as they like.
    by_others: bool,
    /// The device that it is about.
    pub device: Option<String>,
    /// One line for a person.
    pub text: String,
    /// The facts.
    pub data: Map<String, Value>,
}

impl Event {
    /// The record as `GwGetEvents` and `GwGetStatus` tell it.
    #[must_use]
    pub fn record(&self, now: Instant) -> Value {
        let mut record = Map::new();
        record.insert("Number".to_owned(), json!(self.number));
        record.insert("Text".to_owned(), json!(self.text));
        record.insert("Data".to_owned(), Value::Object(self.data.clone()));
        record.insert("AgeMs".to_owned(), json!(ms(now.since(self.at))));
        record.insert("Publisher".to_owned(), json!(self.publisher));
        record.insert("Topic".to_owned(), json!(self.topic));
        if let Some(device) = &self.device {
            record.insert("DeviceId".to_owned(), json!(device));
        }
        Value::Object(record)
    }

    /// What a subscriber gets as `Data`.
    #[must_use]
    pub fn body(&self) -> Map<String, Value> {
        let mut body = self.data.clone();
        body.insert("Number".to_owned(), json!(self.number));
        body.insert("Text".to_owned(), json!(self.text));
        body
    }
}

/// The last events, and what was told already.
#[derive(Debug, Default)]
pub struct History {
    own: VecDeque<Event>,
    others: VecDeque<Event>,
    /// Events since the start.
    count: u64,
    /// Those up to this number were given to subscribers.
    taken: u64,
    /// How OCP is, since when, and why; kept also when the event itself is forgotten.
    link: Option<(Instant, String)>,
    state: Option<StateName>,
    trips: u32,
    arms: u32,
    reaction_of: Option<Instant>,
    /// Each bus and the state that was told of it.
    buses: Vec<&'static str>,
    foreign: u64,
    /// Each drop counter and the threshold that it last crossed.
    crossed: Vec<(&'static str, u64)>,
}

/// A counter is told when it reaches 1, 10, 100 and so on: the first drop at once, a flood in twenty events.
fn threshold(value: u64) -> u64 {
    10_u64.checked_pow(value.checked_ilog10().unwrap_or(0)).filter(|_| value > 0).unwrap_or(0)
}

impl History {
    /// Takes what a thread tells.
    pub fn take(&mut self, at: Instant, plan: &Plan, happening: &Happening) {
        match happening {
            Happening::Status(status) => self.take_status(at, status),
            Happening::Bus { bus, up, text } => {
                let state = if *up { "Up" } else { "Down" };
                self.tell_bus(at, plan, *bus, state, text);
            }
            Happening::Link { connected, text } => {
                self.link = Some((at, text.clone()));
                let facts = [("Connected", json!(connected)), ("Why", json!(text))];
                self.push(
                    at,
                    "LinkStateChanged",
                    Some(devices::OCP.to_owned()),
                    format!("OCP: {text}"),
                    facts,
                );
            }
            Happening::Tunnel { bus, peer, topic, text } => {
                let device = devices::tunnel_id(plan, *bus);
                let mut facts = vec![("Why", json!(text))];
                facts.extend(peer.map(|peer| ("Peer", json!(peer.to_string()))));
                let line = format!("tcpcan: {text}");
                self.put(at, topic, Some(device), line, facts, true);
            }
            Happening::Requested { command, by, outcome, changed } => {
                let facts = [("Command", json!(command)), ("By", json!(by)), ("Outcome", json!(outcome))];
                let line = format!("{command} by {by}: {outcome}");
                self.put(at, "Requested", None, line, facts, !changed);
            }
            Happening::Car { topic, text } => {
                let line = format!("assetto: {text}");
                self.put(at, topic, Some(super::car::CAR.to_owned()), line, [("Why", json!(text))], true);
            }
            Happening::Configured { digest, .. } => {
                let line = format!("configuration {digest} was taken");
                self.push(at, "Configured", None, line, [("Digest", json!(digest))]);
            }
            Happening::Warning(text) => self.push(at, "Warning", None, text.clone(), []),
        }
    }

    /// Tells what is new in a status.
    fn take_status(&mut self, at: Instant, status: &Status) {
        if let Some(trip) = status.cause.filter(|_| status.trips != self.trips) {
            let class = match trip.fault.class() {
                Class::A => "A",
                Class::B => "B",
            };
            let facts = [
                ("Fault", json!(trip.fault.name())),
                ("FaultText", json!(trip.fault.text())),
                ("Class", json!(class)),
                ("From", json!(trip.from.name())),
                ("EvidenceAgeMs", json!(ms(at.since(trip.evidence_at)))),
                ("Faults", json!(trip.faults.iter().map(Fault::name).collect::<Vec<_>>())),
                ("Trips", json!(status.trips)),
            ];
            let line = format!("{} ({})", trip.fault.name(), trip.fault.text());
            self.push(at, "Trip", None, line, facts);
        }
        self.trips = status.trips;
        if self.state != Some(status.state) {
            let mut facts = vec![("To", json!(status.state.name()))];
            facts.extend(self.state.map(|from| ("From", json!(from.name()))));
            self.push(at, "StateChanged", None, transition(self.state, status), facts);
            self.state = Some(status.state);
        }
        if status.arms != self.arms {
            self.arms = status.arms;
            let line = "the operator drives".to_owned();
            self.push(at, "Armed", None, line, [("Arms", json!(status.arms))]);
        }
        if let Some(reaction) = status.reaction.filter(|reaction| self.reaction_of != Some(reaction.trip.at))
        {
            self.reaction_of = Some(reaction.trip.at);
            let (name, time_ms) = (reaction.trip.fault.name(), ms(reaction.time));
            let line = format!("{name} answered: safe frames on the bus {time_ms:.1} ms after its evidence");
            self.push(at, "Reaction", None, line, [("Fault", json!(name)), ("Ms", json!(time_ms))]);
        }
    }

    /// Looks at the state of a bus: what its interface and its controller say.
    pub fn look_at_bus(&mut self, at: Instant, plan: &Plan, bus: usize, facts: &BusFacts) {
        let why = if facts.no_echo {
            "frames are sent and none is proven to leave"
        } else if facts.controller.is_some() {
            "the controller says so"
        } else {
            "the interface says so"
        };
        self.tell_bus(at, plan, bus, devices::bus_state(facts), why);
    }

    /// Tells the state of a bus, if it is another one than was told last. At the start a bus is down.
    fn tell_bus(&mut self, at: Instant, plan: &Plan, bus: usize, state: &'static str, why: &str) {
        if self.buses.len() <= bus {
            self.buses.resize(bus + 1, "Down");
        }
        let Some(told) = self.buses.get_mut(bus) else { return };
        if std::mem::replace(told, state) == state {
            return;
        }
        let line = format!("bus {}: {state}, {why}", devices::bus_name(plan, bus));
        let data = [("State", json!(state)), ("Why", json!(why))];
        self.push(at, "BusStateChanged", Some(devices::bus_id(plan, bus)), line, data);
    }

    /// Looks at what is counted: frames of a foreign writer, and drops.
    pub fn look(&mut self, at: Instant, foreign: u64, drops: impl Iterator<Item = (&'static str, u64)>) {
        if threshold(foreign) > threshold(self.foreign) {
            let line = format!("{foreign} frames of others with our ids");
            self.push(at, "ForeignWriter", None, line, [("Frames", json!(foreign))]);
        }
        self.foreign = foreign;
        for (name, value) in drops {
            let place = self.crossed.iter().position(|(known, _)| *known == name);
            let place = place.unwrap_or_else(|| {
                self.crossed.push((name, 0));
                self.crossed.len() - 1
            });
            let Some((_, last)) = self.crossed.get_mut(place) else { continue };
            let now = threshold(value);
            if now > *last {
                *last = now;
                let facts = [("Counter", json!(name)), ("Value", json!(value)), ("Threshold", json!(now))];
                self.push(at, "DropsCrossed", None, format!("counted: {value} {name}"), facts);
            }
        }
    }

    /// Something that the gateway itself has done or seen.
    fn push(
        &mut self,
        at: Instant,
        topic: &'static str,
        device: Option<String>,
        text: String,
        facts: impl IntoIterator<Item = (&'static str, Value)>,
    ) {
        self.put(at, topic, device, text, facts, false);
    }

    fn put(
        &mut self,
        at: Instant,
        topic: &'static str,
        device: Option<String>,
        text: String,
        facts: impl IntoIterator<Item = (&'static str, Value)>,
        by_others: bool,
    ) {
        self.count += 1;
        let publisher = if device.is_some() { DEVICE } else { GATEWAY };
        let data = facts.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let event = Event { number: self.count, at, publisher, topic, by_others, device, text, data };
        let (ring, most) =
            if by_others { (&mut self.others, KEPT_OTHERS) } else { (&mut self.own, KEPT_OWN) };
        if ring.len() == most {
            ring.pop_front();
        }
        ring.push_back(event);
    }

    /// Those that were not taken yet, oldest first.
    pub fn take_fresh(&mut self) -> Vec<Event> {
        let taken = std::mem::replace(&mut self.taken, self.count);
        self.after(taken).into_iter().cloned().collect()
    }

    /// The last so many, oldest first.
    #[must_use]
    pub fn last(&self, count: usize) -> Vec<&Event> {
        let mut events = self.after(0);
        events.drain(..events.len().saturating_sub(count));
        events
    }

    /// The last so many that the gateway itself has done or seen, oldest first.
    pub fn last_own(&self, count: usize) -> impl Iterator<Item = &Event> {
        self.own.iter().skip(self.own.len().saturating_sub(count))
    }

    /// Those after a number, oldest first.
    #[must_use]
    pub fn after(&self, number: u64) -> Vec<&Event> {
        let mut events: Vec<&Event> =
            self.own.iter().chain(&self.others).filter(|event| event.number > number).collect();
        events.sort_unstable_by_key(|event| event.number);
        events
    }

    /// Events since the start.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// How OCP is, since when, and why.
    #[must_use]
    pub fn link(&self) -> Option<(Instant, &str)> {
        self.link.as_ref().map(|(at, why)| (*at, why.as_str()))
    }
}

#[cfg(test)]
mod tests;
