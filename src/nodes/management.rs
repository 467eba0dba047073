//! The management plane, decided: what the gateway answers when it is asked how it is, and what a person may ask of it.
//!
//! Owns the commands, the devices, the events and the few requests that change anything. Relies on plain facts that the thread
//! gathers. Nothing here can arm or move an actuator: a request can stop, and it can ask the core for what the core alone
//! decides. Names of the vendor's are as publicly documented; everything with the prefix `Gw`, and every shape of a record,
//! is ours.

pub mod car;
pub mod devices;
pub mod facts;
pub mod history;
mod status;

use serde_json::{Map, Value, json};

use self::devices::object;
use self::facts::{Facts, Identity, SendFacts};
use self::history::{
    ALL, BUS_TOPICS, DEVICE, Event, GATEWAY, GATEWAY_TOPICS, Happening, History, KEPT, LINK_TOPICS,
    TUNNEL_TOPICS,
};
use super::rcsp::{Answer, Asked, Door, Event as Published};
use crate::proto::rcsp::envelope::ErrorCode;
use crate::safety::input::{StateName, Status};
use crate::time::{Duration, Instant, millis_f64};

/// The core answers a request within two turns of the watchdog; a slow machine gets this long. Below the two seconds in which
/// every command is answered.
const PATIENCE: Duration = Duration::from_millis(1_000);

/// A watchdog that came round so recently has taken what was asked for 100 ms ago; its longest wait is 5 ms.
const CORE_ALIVE_MS: f64 = 50.0;

/// No proof of any frame for this long, and for three of their periods: above the scheduling gaps of a busy computer.
const NO_ECHO_MS: f64 = 200.0;

/// Requests that have changed nothing are written down this often: a client must not fill the log.
const SAY: Duration = Duration::from_secs(1);

/// Events that `GwGetEvents` gives when it is not told how many.
const EVENTS: usize = 50;

/// Every command beside those about subscriptions, for the message to who asks for another one.
pub const COMMANDS: [&str; 10] = [
    "ListDevices",
    "GetDeviceInfo",
    "GwGetStatus",
    "GwGetCounters",
    "GwGetEvents",
    "GwGetConfig",
    "GwSafeStop",
    "GwAcknowledgeLockout",
    "GwEnterDiag",
    "GwLeaveDiag",
];

/// What a person asked the gateway to do. The thread hands it to the core, which decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// A trip, class A.
    SafeStop,
    /// Leave LOCKOUT.
    Acknowledge,
    /// Enter DIAG.
    EnterDiag,
    /// Leave DIAG.
    LeaveDiag,
}

impl Request {
    const fn command(self) -> &'static str {
        match self {
            Self::SafeStop => "GwSafeStop",
            Self::Acknowledge => "GwAcknowledgeLockout",
            Self::EnterDiag => "GwEnterDiag",
            Self::LeaveDiag => "GwLeaveDiag",
        }
    }

    /// Whether the core has done it.
    fn is_done(self, status: &Status, trips_before: u32, waited: Duration, is_core_alive: bool) -> bool {
        /// A stop of a gateway that is safe already changes nothing that could be seen.
        const SETTLED: Duration = Duration::from_millis(100);
        match self {
            Self::SafeStop => {
                // Without a trip to be seen, only a core that has run since then can have heard of it.
                let tripped = status.trips != trips_before || (waited >= SETTLED && is_core_alive);
                // Out of DIAG as well: a stop ends what others may do.
                tripped && !matches!(status.state, StateName::Armed | StateName::Diag)
            }
            Self::Acknowledge => status.state != StateName::Lockout,
            Self::EnterDiag => status.state == StateName::Diag,
            Self::LeaveDiag => status.state != StateName::Diag,
        }
    }
}

/// A request that the core has not answered yet.
#[derive(Debug, Clone)]
struct Waiting {
    ticket: u64,
    request: Request,
    by: &'static str,
    since: Instant,
    trips: u32,
}

/// The management plane of one gateway.
#[derive(Debug)]
pub struct Management {
    identity: Identity,
    facts: Facts,
    history: History,
    /// What the server itself counts.
    own_counters: Vec<(&'static str, u64)>,
    requests: Vec<Request>,
    waiting: Vec<Waiting>,
    tickets: u64,
    said: Vec<(&'static str, &'static str, &'static str)>,
    said_at: Option<Instant>,
}

impl Management {
    /// A gateway that has just started.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            facts: Facts::default(),
            history: History::default(),
            own_counters: Vec::new(),
            requests: Vec::new(),
            waiting: Vec::new(),
            tickets: 0,
            said: Vec::new(),
            said_at: None,
        }
    }

    /// What it is made of.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Takes the newest facts.
    pub fn set_facts(&mut self, now: Instant, facts: Facts) {
        let foreign = facts.counters.iter().find(|(name, _)| *name == FOREIGN).map_or(0, |(_, value)| *value);
        let all = facts.counters.iter().chain(&facts.tunnel_counters).chain(&self.own_counters);
        self.history.look(now, foreign, all.filter(|(name, _)| is_drop(name)).copied());
        let mut facts = facts;
        for (index, bus) in facts.buses.iter_mut().enumerate() {
            bus.no_echo = self.has_no_echo(index, &facts.sends, facts.status.as_ref());
            self.history.look_at_bus(now, &self.identity.plan, index, bus);
        }
        self.facts = facts;
    }

    /// Whether frames are sent on a bus and none is proven to leave: a cut cable, where the interface itself sees nothing.
    fn has_no_echo(&self, bus: usize, sends: &[SendFacts], status: Option<&Status>) -> bool {
        let is_sending =
            status.is_some_and(|status| status.state != StateName::Init) && !self.identity.listen_only;
        let sent = self.identity.plan.send.iter().zip(sends).filter(|(send, _)| send.bus == bus);
        let mut ages =
            sent.filter_map(|(send, facts)| Some((send.period, facts.confirmed_age_ms?))).peekable();
        is_sending
            && ages.peek().is_some()
            && ages.all(|(period, age)| age > NO_ECHO_MS.max(3.0 * millis_f64(period)))
    }

    /// Takes what the server counts.
    pub fn set_own_counters(&mut self, counters: Vec<(&'static str, u64)>) {
        self.own_counters = counters;
    }

    /// Takes what happened.
    pub fn take(&mut self, at: Instant, happening: &Happening) {
        // The mailbox has newer ones, once there is any.
        if let Happening::Status(status) = happening {
            self.facts.status.get_or_insert(*status);
        }
        if let Happening::Configured { digest, config, remote_stop } = happening {
            self.identity.digest.clone_from(digest);
            self.identity.config.clone_from(config);
            self.identity.remote_stop = *remote_stop;
        }
        if let Happening::Requested { command, by, outcome, changed } = happening
            && (*changed || self.said_at.is_none_or(|said| at.since(said) >= SAY))
        {
            self.said_at = Some(at);
            self.said.push((*command, *by, *outcome));
        }
        self.history.take(at, &self.identity.plan, happening);
    }

    /// What the gateway's log should say of requests: each that has changed something, and one a second of the others.
    pub fn take_said(&mut self) -> Vec<(&'static str, &'static str, &'static str)> {
        std::mem::take(&mut self.said)
    }

    /// What subscribers have not been told yet: each event under its publisher, and once more for those who want all.
    pub fn take_fresh(&mut self, now: Instant) -> Vec<Published> {
        let mut published = Vec::new();
        for event in self.history.take_fresh() {
            let record = event.record(now);
            published.push(Published {
                publisher: event.publisher.to_owned(),
                topic: event.topic.to_owned(),
                data: Value::Object(event.body()),
                device: event.device,
            });
            let (publisher, topic) = (ALL.to_owned(), event.topic.to_owned());
            published.push(Published { publisher, topic, device: None, data: record });
        }
        published
    }

    /// Takes what happened at the server's own door: only what a person at the box should see is an event.
    pub fn take_door(&mut self, now: Instant, door: Door) {
        // Who is refused is counted, and the counters are told as they grow: a caller must not fill the history.
        if let Door::NoAccept(errno) = door {
            let text = format!("RCSP: this process can take no more connections (errno {errno})");
            self.take(now, &Happening::Warning(text));
        }
    }

    /// What the core is asked for; taken once.
    pub fn take_requests(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.requests)
    }

    /// Whether this publisher has this topic, of a device or of the gateway itself.
    #[must_use]
    pub fn has_topic(&self, device: Option<&str>, publisher: &str, topic: &str) -> bool {
        match device {
            Some(id) => {
                let topics = self.topics(id);
                publisher == DEVICE && !topics.is_empty() && (topic == "*" || topics.contains(&topic))
            }
            None if publisher == GATEWAY => topic == "*" || GATEWAY_TOPICS.contains(&topic),
            None => {
                let mut all =
                    [&GATEWAY_TOPICS[..], &BUS_TOPICS, &LINK_TOPICS, &TUNNEL_TOPICS].into_iter().flatten();
                publisher == ALL && (topic == "*" || all.any(|known| *known == topic))
            }
        }
    }

    /// Carries out or refuses one command.
    pub fn answer(&mut self, now: Instant, asked: &Asked<'_>) -> Answer {
        match asked.command {
            "ListDevices" => Answer::Ok(Some(object([("Devices", Value::Array(self.devices()))]))),
            "GetDeviceInfo" => match asked.device.and_then(|id| self.device(now, id)) {
                Some(record) => Answer::Ok(Some(record)),
                None => Answer::Refused(ErrorCode::DeviceNotFound, "no such device".to_owned()),
            },
            "GwGetStatus" => Answer::Ok(Some(self.status(now))),
            "GwGetCounters" => Answer::Ok(Some(self.counters())),
            "GwGetEvents" => self.events(now, asked.arguments),
            "GwGetConfig" => Answer::Ok(Some(object([
                ("Digest", json!(self.identity.digest)),
                ("Version", json!(self.identity.version)),
                ("Config", Value::Object(self.identity.config.clone())),
            ]))),
            "GwSafeStop" => self.request(now, Request::SafeStop, asked),
            "GwAcknowledgeLockout" => self.request(now, Request::Acknowledge, asked),
            "GwEnterDiag" => self.request(now, Request::EnterDiag, asked),
            "GwLeaveDiag" => self.request(now, Request::LeaveDiag, asked),
            other => Answer::Refused(ErrorCode::UnknownCommand, format!("unknown command {other:?}")),
        }
    }

    /// Looks again at a command that waits for the core.
    pub fn settle(&mut self, now: Instant, ticket: u64) -> Option<Answer> {
        let place = self.waiting.iter().position(|waiting| waiting.ticket == ticket)?;
        let waiting = self.waiting.get(place)?;
        let status = self.facts.status?;
        let waited = now.since(waiting.since);
        let is_core_alive = self.facts.watchdog_age_ms.is_some_and(|age| age < CORE_ALIVE_MS);
        let is_done = waiting.request.is_done(&status, waiting.trips, waited, is_core_alive);
        if !is_done && waited < PATIENCE {
            return None;
        }
        let Waiting { request, by, trips, .. } = self.waiting.swap_remove(place);
        let outcome = if is_done { "done" } else { "refused by the core" };
        // A stop of a gateway that was safe has changed nothing.
        let changed = is_done && (request != Request::SafeStop || status.trips != trips);
        self.take(now, &Happening::Requested { command: request.command(), by, outcome, changed });
        if is_done {
            return Some(Answer::Ok(Some(object([("State", json!(status.state.name()))]))));
        }
        let faults: Vec<&str> = status.faults.iter().map(|fault| fault.text()).collect();
        let why = match request {
            Request::SafeStop => "the core has not stopped".to_owned(),
            Request::Acknowledge => format!("the cause is still there: {}", faults.join(", ")),
            Request::EnterDiag => "the vehicle is not proven to stand".to_owned(),
            Request::LeaveDiag => "the core has not left DIAG".to_owned(),
        };
        Some(Answer::Refused(ErrorCode::NotReady, why))
    }

    /// Nobody waits for this answer any more; the core has its request all the same, and it is told.
    pub fn forget(&mut self, now: Instant, ticket: u64) {
        let Some(place) = self.waiting.iter().position(|waiting| waiting.ticket == ticket) else { return };
        let Waiting { request, by, trips, .. } = self.waiting.swap_remove(place);
        let (command, outcome) = (request.command(), "asked for; its client has gone");
        let tripped = self.facts.status.is_some_and(|status| status.trips != trips);
        let changed = request != Request::SafeStop || tripped;
        self.take(now, &Happening::Requested { command, by, outcome, changed });
    }

    /// Asks the core for something, if this peer may and the state is one in which the core could do it.
    fn request(&mut self, now: Instant, request: Request, asked: &Asked<'_>) -> Answer {
        let command = request.command();
        let by = if asked.local { "a client on this machine" } else { "a client on another machine" };
        let (remote_stop, status) = (self.identity.remote_stop, self.facts.status);
        let mut refuse = |outcome, code, why: String| {
            self.take(now, &Happening::Requested { command, by, outcome, changed: false });
            Answer::Refused(code, why)
        };
        let may = asked.local || (request == Request::SafeStop && remote_stop);
        if !may {
            let why = if request == Request::SafeStop {
                "rcsp.remote_stop is not set in the configuration".to_owned()
            } else {
                "only a client on the gateway's own machine may ask for this".to_owned()
            };
            return refuse("not permitted", ErrorCode::NotPermitted, why);
        }
        let Some(status) = status else {
            return refuse("not ready", ErrorCode::NotReady, "the gateway is starting".to_owned());
        };
        let wanted = match request {
            Request::SafeStop => None,
            Request::Acknowledge => Some(StateName::Lockout),
            Request::EnterDiag => Some(StateName::Safe),
            Request::LeaveDiag => Some(StateName::Diag),
        };
        if let Some(wanted) = wanted.filter(|wanted| *wanted != status.state) {
            let why = format!("the state is {}, not {}", status.state.name(), wanted.name());
            return refuse("not ready", ErrorCode::NotReady, why);
        }
        self.requests.push(request);
        self.tickets += 1;
        let ticket = self.tickets;
        self.waiting.push(Waiting { ticket, request, by, since: now, trips: status.trips });
        Answer::Pending(ticket)
    }

    fn counters(&self) -> Map<String, Value> {
        let all = |list: &[(&'static str, u64)]| {
            Value::Object(list.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect())
        };
        object([
            ("Gateway", all(&self.facts.counters)),
            ("Tunnels", all(&self.facts.tunnel_counters)),
            ("Management", all(&self.own_counters)),
        ])
    }

    fn events(&self, now: Instant, arguments: &Map<String, Value>) -> Answer {
        let number = |key: &str| match arguments.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => whole(value).map(Some).ok_or_else(|| {
                Answer::Refused(ErrorCode::InvalidArgument, format!("{key} must be a whole number from 0 on"))
            }),
        };
        let (last, after) = match (number("Last"), number("After")) {
            (Ok(last), Ok(after)) => (last, after),
            (Err(refusal), _) | (_, Err(refusal)) => return refusal,
        };
        let last = last.map_or(EVENTS, |last| usize::try_from(last).unwrap_or(KEPT)).min(KEPT);
        let events = match after {
            Some(after) => self.records(now, self.history.after(after).into_iter().take(last)),
            None => self.records(now, self.history.last(last).into_iter()),
        };
        Answer::Ok(Some(object([("Count", json!(self.history.count())), ("Events", events)])))
    }

    fn records<'a>(&self, now: Instant, events: impl Iterator<Item = &'a Event>) -> Value {
        events.map(|event| event.record(now)).collect()
    }

    /// How long OCP has been as it is.
    fn link_age_ms(&self, now: Instant) -> Option<f64> {
        self.history.link().map(|(at, _)| facts::ms(now.since(at)))
    }

    /// Why OCP is as it is.
    fn link_text(&self) -> Option<String> {
        self.history.link().map(|(_, why)| why.to_owned())
    }
}

/// Whether there is a command of this name, beside those about subscriptions.
#[must_use]
pub fn knows_command(command: &str) -> bool {
    COMMANDS.contains(&command)
}

/// A whole number, also one that is written `3.0`.
fn whole(value: &Value) -> Option<u64> {
    let from_float =
        |number: f64| format!("{number:.0}").parse().ok().filter(|_| number >= 0.0 && number.fract() == 0.0);
    value.as_u64().or_else(|| value.as_f64().and_then(from_float))
}

/// The counter of foreign frames, as it is called.
const FOREIGN: &str = "frames of others with our ids";

/// Whether a counter is of something that was lost: its growth is told.
fn is_drop(name: &str) -> bool {
    ["evicted", "lost", "dropped", "refused"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests;
