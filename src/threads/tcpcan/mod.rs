//! The tcpcan tunnel: one poll over listeners, peers and their bus sockets.
//!
//! Owns the listeners, the peers and the loop; the standalone command and the gateway's thread use the same. Relies on
//! `nodes::tunnel` for what is let through, dropped and counted. Every peer has its own buffers and its own bus socket: a
//! slow, dead or hostile one harms itself. Never waits but in its one poll.

mod backlog;
mod bus;
mod peer;
mod service;

use std::net::SocketAddr;
use std::os::fd::AsFd as _;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use self::bus::{Opened, Unheard};
use self::peer::{Common, Peer, Room};
pub(super) use self::service::{Ends, Place, run};
use crate::io::canbus::{Accept, BusAddress};
use crate::io::clock;
use crate::io::tcp::{Connector, LinkError, Listener, Progress, TcpLink};
use crate::limits::{TUNNEL_CALLERS, TUNNEL_PEERS};
use crate::nodes::management::facts::PeerFacts;
pub use crate::nodes::tunnel::{Count, Counts};
use crate::nodes::tunnel::{Lane, LaneSettings, Role, Way};
use crate::safety::allow::AllowList;
use crate::safety::injection::{Injection, Record};
use crate::safety::input::StateName;
use crate::time::{Duration, Instant};
pub use crate::topology::tunnel::{Ended, News, Peers, What};

/// Longest wait of one turn: the end of the program is noticed within it.
const TURN: Duration = Duration::from_millis(100);

/// Shortest wait of an idle turn, however small the age limit is.
const SHORTEST_IDLE: Duration = Duration::from_millis(5);

/// A peer that has gone without a word is found after this: long enough for a mobile network's handover.
const SILENCE: Duration = Duration::from_secs(5);

/// A connection without an agreed version is closed after this (SAFETY row 97).
const HANDSHAKE: Duration = Duration::from_secs(5);

/// A session that lived so long has worked. One that ends sooner, again and again, must not be called at full speed: its
/// server agrees and then cuts it for what it sends, or is there and ill.
const WORKED: Duration = Duration::from_secs(5);

/// Rest of the listeners where this process can take no connection: the one that waits keeps them readable.
const NO_ACCEPT: Duration = Duration::from_millis(100);

/// Most connections that one turn accepts: a flood of them must not keep the peers waiting.
const ACCEPTS: usize = 16;

/// Descriptors of one poll: a listener for each of four buses in two address families, two for each peer, one for each
/// connection that is none yet.
const POLLED: usize = 8 + 2 * TUNNEL_PEERS + TUNNEL_CALLERS;

/// How a tunnel works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The buses.
    pub buses: Vec<Bus>,
    /// How long a frame may wait for others to share its segment; zero sends at once.
    pub coalesce: Duration,
}

/// A bus and what its peers see of it.
#[derive(Debug, Clone)]
pub struct Bus {
    /// Where it is.
    pub address: BusAddress,
    /// Which of its frames the peers get.
    pub accept: Accept,
    /// Whether CAN FD frames pass, where the interface takes them. A bus of classic controllers would answer one with
    /// error frames.
    pub fd: bool,
    /// No frame older than this is handed on.
    pub max_age: Duration,
}

/// A listener in front of a bus.
#[derive(Debug)]
pub struct Door {
    /// Where peers knock.
    pub listener: Listener,
    /// Who is let in.
    pub allow: AllowList,
    /// Index of the bus.
    pub bus: usize,
}

/// The frames' way onto the buses of a gateway; a standalone tunnel has none and lets everything through.
#[derive(Debug)]
pub struct Guard {
    /// The gate and the allowances of each bus.
    pub ways: Vec<Injection>,
}

/// A tunnel at work.
#[derive(Debug)]
pub struct Tunnel {
    settings: Settings,
    doors: Vec<Door>,
    caller: Option<Connector>,
    guard: Option<Guard>,
    /// Those with an agreed version and those without.
    peers: Vec<(Peer, Option<Record>)>,
    /// Each bus while no peer reads it.
    unheard: Vec<Unheard>,
    room: Room,
    /// Of peers that have gone.
    past: Counts,
    /// Why the other end could not be reached since it last was: each is told once.
    told: heapless::Vec<LinkError, 8>,
    /// The listeners are left alone until then, for a reason that was told.
    no_accept_until: Option<Instant>,
    turned_at: Option<Instant>,
    /// Somebody waits at a listener.
    knocked: bool,
    /// The connection of a caller has ended.
    hung_up: bool,
}

impl Tunnel {
    fn new(settings: Settings, doors: Vec<Door>, caller: Option<Connector>, guard: Option<Guard>) -> Self {
        Self {
            unheard: settings.buses.iter().map(|_| Unheard::new()).collect(),
            settings,
            doors,
            caller,
            guard,
            peers: Vec::with_capacity(TUNNEL_PEERS + TUNNEL_CALLERS),
            room: Room::new(),
            past: Counts::default(),
            told: heapless::Vec::new(),
            no_accept_until: None,
            turned_at: None,
            knocked: false,
            hung_up: false,
        }
    }

    /// A tunnel that waits for peers.
    #[must_use]
    pub fn server(settings: Settings, doors: Vec<Door>, guard: Option<Guard>) -> Self {
        Self::new(settings, doors, None, guard)
    }

    /// Lets peers in at one more door.
    pub fn open_door(&mut self, door: Door) {
        self.doors.push(door);
    }

    /// The smallest age limit of all buses: how exact the loop has to be.
    fn max_age(&self) -> Duration {
        self.settings.buses.iter().map(|bus| bus.max_age).min().unwrap_or(TURN)
    }

    /// A tunnel that calls the other end, again and again.
    #[must_use]
    pub fn client(settings: Settings, caller: Connector) -> Self {
        Self::new(settings, Vec::new(), Some(caller), None)
    }

    /// What was counted so far, by all peers there are and were.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = self.past;
        for (peer, _) in &self.peers {
            counts.absorb(&peer.lane.counts());
        }
        counts
    }

    /// What is known of each peer.
    #[must_use]
    pub fn peer_facts(&self) -> Peers {
        let facts = self.peers.iter().map(|(peer, _)| {
            let counts = peer.lane.counts();
            PeerFacts {
                address: peer.address,
                bus: peer.bus,
                agreed: peer.lane.is_agreed(),
                since: peer.since,
                to_bus: counts.get(Count::ToBus),
                to_peer: counts.get(Count::ToPeer),
                waiting: counts.get(Count::ToBusWaiting) + counts.get(Count::ToPeerWaiting),
                dropped: counts.dropped(),
            }
        });
        // Room for all of them by the two limits.
        facts.take(Peers::new().capacity()).collect()
    }

    /// Peers connected now.
    #[must_use]
    pub const fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Whether the connection of a caller has ended since the last question.
    pub const fn take_hung_up(&mut self) -> bool {
        core::mem::replace(&mut self.hung_up, false)
    }

    /// One turn: waits until something happens, `wait` at most, and serves it. `state` tells the gateway's; it is asked
    /// after the wait, so that no frame is judged by what was before it.
    pub fn turn(&mut self, wait: Duration, state: &dyn Fn() -> StateName, news: &mut dyn FnMut(News)) {
        self.read_unheard(news);
        let calling = self.peers.is_empty() && self.caller.is_some();
        if calling {
            self.call(wait.min(self.due_unheard()), news);
            return;
        }
        self.wait(wait);
        let now = clock::now();
        // Away for longer than any wait: this program did not run, and what waits in the sockets may have come at any time
        // since the last turn. What is shorter is allowed for in the lanes' own limit.
        let turned_at = self.turned_at.unwrap_or(now);
        let came_at = if now.since(turned_at) > self.idle() { turned_at } else { now };
        self.turned_at = Some(now);
        self.serve((came_at, now), state(), news);
        if self.knocked {
            self.accept(now, news);
        }
    }

    fn read_unheard(&mut self, news: &mut dyn FnMut(News)) {
        let now = clock::now();
        for (index, (unheard, bus)) in self.unheard.iter_mut().zip(&self.settings.buses).enumerate() {
            let what = match unheard.serve(now, bus, &mut self.room.read, &mut self.past) {
                // A gateway tells of its buses itself.
                Some(_) if self.guard.is_some() => continue,
                Some(Opened::Back) => What::BusBack,
                Some(Opened::Away(cause)) => What::BusAway(cause),
                None => continue,
            };
            news(News { peer: None, bus: index, what });
        }
    }

    /// How long no bus without a peer has to be read.
    fn due_unheard(&self) -> Duration {
        let now = clock::now();
        self.unheard.iter().filter_map(|unheard| unheard.due(now)).min().unwrap_or(TURN)
    }

    /// Ends every connection in order.
    pub fn stop(&mut self) {
        while !self.peers.is_empty() {
            self.end(0, Ended::Stopped);
        }
        // What came since the last look is in a number too.
        for unheard in &mut self.unheard {
            unheard.hand_over(&mut self.room.read, &mut self.past);
        }
    }

    /// Ends one connection; returns its address and bus.
    fn end(&mut self, index: usize, ended: Ended) -> (SocketAddr, usize) {
        let (mut peer, _) = self.peers.swap_remove(index);
        let socket = peer.end(ended);
        self.past.absorb(&peer.lane.counts());
        let is_last = !self.peers.iter().any(|(other, _)| other.bus == peer.bus && other.lane.is_agreed());
        if is_last
            && let Some(unheard) = self.unheard.get_mut(peer.bus)
            && peer.lane.is_agreed()
        {
            unheard.take_back(clock::now(), socket);
        }
        let count = match ended {
            Ended::Stopped | Ended::Lane(_) => None,
            Ended::Link(_) => Some(Count::Lost),
            Ended::TooMany => Some(Count::RefusedFull),
            Ended::Displaced => Some(Count::Displaced),
        };
        if let Some(count) = count {
            self.past.add(count, 1);
        }
        if let Some(caller) = &mut self.caller {
            let lived = clock::now().since(peer.since) >= WORKED;
            caller.session_ended(lived && peer.lane.is_agreed());
            self.hung_up = true;
        }
        (peer.address, peer.bus)
    }

    /// A turn that takes longer than this was a pause of the program.
    fn idle(&self) -> Duration {
        (self.max_age() / 4).max(SHORTEST_IDLE)
    }

    /// Waits for a socket or a time, and notes who is ready.
    fn wait(&mut self, wait: Duration) {
        let now = clock::now();
        // A fifth less than that: a timer that is late is no pause.
        let idle = self.idle() * 4 / 5;
        let due = self.peers.iter().filter_map(|(peer, _)| peer.due(now)).min();
        let wait = due.unwrap_or(idle).min(idle).min(wait).min(TURN).min(self.due_unheard());
        let mut fds = heapless::Vec::<PollFd<'_>, POLLED>::new();
        // Room for all of them by the two limits; one that had none would be served a turn later.
        let doors = if self.no_accept_until.is_some_and(|until| until > now) { &[][..] } else { &self.doors };
        for door in doors {
            let _ = fds.push(PollFd::new(door.listener.as_fd(), PollFlags::POLLIN));
        }
        for (peer, _) in &self.peers {
            for (fd, flags) in peer.link_interest(now).into_iter().chain(peer.bus_interest(now)) {
                let _ = fds.push(PollFd::new(fd, flags));
            }
        }
        // An error here (a signal) is the end of the wait, and nobody is ready.
        let any = ppoll(&mut fds, Some(TimeSpec::from_duration(wait)), None).is_ok_and(|count| count > 0);
        let events = |fd: &PollFd<'_>| fd.revents().filter(|_| any).unwrap_or(PollFlags::empty());
        let seen: heapless::Vec<PollFlags, POLLED> = fds.iter().map(events).collect();
        drop(fds);
        let mut seen = seen.into_iter();
        self.knocked = seen.by_ref().take(doors.len()).fold(false, |any, events| any | !events.is_empty());
        for (peer, _) in &mut self.peers {
            peer.note_ready(now, &mut seen);
        }
    }

    fn serve(&mut self, times: (Instant, Instant), state: StateName, news: &mut dyn FnMut(News)) {
        let mut agreed = self.agreed();
        let mut index = 0;
        while let Some((peer, record)) = self.peers.get_mut(index) {
            let way = match (&mut self.guard, record) {
                (Some(guard), Some(record)) => {
                    guard.ways.get_mut(peer.bus).map(|injection| Way { injection, record, state })
                }
                _ => None,
            };
            let (Some(bus), Some(unheard)) =
                (self.settings.buses.get(peer.bus), self.unheard.get_mut(peer.bus))
            else {
                return;
            };
            let was_agreed = peer.lane.is_agreed();
            let mut common = Common { room: &mut self.room, unheard, counts: &mut self.past };
            let mut result = peer.serve(times, bus, way, &mut common, news);
            if !was_agreed && peer.lane.is_agreed() {
                agreed += 1;
                if agreed > TUNNEL_PEERS && result.is_ok() {
                    result = Err(Ended::TooMany);
                }
            }
            match result {
                Ok(()) => index += 1,
                Err(ended) => {
                    agreed -= usize::from(peer.lane.is_agreed());
                    let (address, bus) = self.end(index, ended);
                    news(News { peer: Some(address), bus, what: What::Ended(ended) });
                }
            }
        }
    }

    /// Peers with an agreed version.
    fn agreed(&self) -> usize {
        self.peers.iter().filter(|(peer, _)| peer.lane.is_agreed()).count()
    }

    fn accept(&mut self, now: Instant, news: &mut dyn FnMut(News)) {
        for index in 0..self.doors.len() {
            for _ in 0..ACCEPTS {
                let Some(door) = self.doors.get(index) else { break };
                let bus = door.bus;
                let (link, address) = match door.listener.try_accept() {
                    Ok(Some(taken)) => taken,
                    Ok(None) => break,
                    Err(errno) => {
                        if self.no_accept_until.replace(now + NO_ACCEPT).is_none() {
                            news(News { peer: None, bus, what: What::NoAccept(errno as i32) });
                        }
                        return;
                    }
                };
                self.no_accept_until = None;
                if !door.allow.permits(address.ip()) {
                    self.past.add(Count::RefusedAddress, 1);
                    link.reset_on_close();
                    news(News { peer: Some(address), bus, what: What::NotAllowed });
                    continue;
                }
                if self.agreed() >= TUNNEL_PEERS {
                    self.past.add(Count::RefusedFull, 1);
                    link.reset_on_close();
                    news(News { peer: Some(address), bus, what: What::Ended(Ended::TooMany) });
                    continue;
                }
                self.make_room(news);
                self.join(link, address, bus, Role::Server, now, news);
            }
        }
    }

    /// Of those that have not agreed to a version the oldest gives way, if there is no room for one more.
    fn make_room(&mut self, news: &mut dyn FnMut(News)) {
        let callers = self.peers.iter().enumerate().filter(|(_, (peer, _))| !peer.lane.is_agreed());
        if callers.clone().count() >= TUNNEL_CALLERS
            && let Some((oldest, _)) = callers.min_by_key(|(_, (peer, _))| peer.since)
        {
            let (address, bus) = self.end(oldest, Ended::Displaced);
            news(News { peer: Some(address), bus, what: What::Ended(Ended::Displaced) });
        }
    }

    /// Tries to reach the other end.
    fn call(&mut self, wait: Duration, news: &mut dyn FnMut(News)) {
        let Some(caller) = &mut self.caller else { return };
        match caller.step(wait) {
            Progress::Pending => {}
            Progress::Failed(error, _) => {
                self.hung_up = true;
                // A host with several addresses fails now so, now so. More kinds than there is room for are a flood.
                if !self.told.contains(&error) && self.told.push(error).is_ok() {
                    news(News { peer: None, bus: 0, what: What::Unreachable(error) });
                }
            }
            Progress::Connected(link) => {
                self.told.clear();
                let Some(address) = link.peer() else { return };
                self.join(link, address, 0, Role::Client, clock::now(), news);
            }
        }
    }

    fn join(
        &mut self,
        link: TcpLink,
        address: SocketAddr,
        bus: usize,
        role: Role,
        now: Instant,
        news: &mut dyn FnMut(News),
    ) {
        let Some(at) = self.settings.buses.get(bus) else { return };
        let settings =
            LaneSettings { max_age: at.max_age, coalesce: self.settings.coalesce, handshake: HANDSHAKE };
        let lane = Lane::new(role, settings, now);
        let record = self.guard.as_ref().and_then(|guard| guard.ways.get(bus)).map(Injection::record);
        match Peer::new(link, address, bus, lane, now) {
            Ok(peer) => {
                news(News { peer: Some(address), bus, what: What::Connected });
                self.peers.push((peer, record));
                self.turned_at = Some(now);
            }
            Err(error) => {
                news(News { peer: Some(address), bus, what: What::Ended(Ended::Link(error)) });
            }
        }
    }
}
