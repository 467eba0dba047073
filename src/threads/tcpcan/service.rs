//! The gateway's tcpcan thread.
//!
//! Owns the tunnel of a running gateway: its listeners, its gate and what it publishes. Relies on the loop in the room
//! above. Never sends to the watchdog: it reads the state, and that is all it knows of driving.

use std::sync::Arc;

use super::{Bus, Door, Guard, News, Peers, Settings, Tunnel, What};
use crate::can::Id;
use crate::config::TunnelPlan;
use crate::io::canbus::{Accept, BusAddress};
use crate::io::clock;
use crate::io::tcp::Listener;
use crate::safety::gate::Gate;
use crate::safety::injection::Injection;
use crate::threads::fault_point;
use crate::time::{Duration, Instant};
use crate::topology::{Counter, Shared, Tx};

/// An address that is not there yet (a network that comes up later) is tried again after this.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// Longest turn: how fresh the published counters are.
const TURN: Duration = Duration::from_millis(100);

/// How fresh the list of peers is.
const PEERS_PERIOD: Duration = Duration::from_millis(100);

/// What the thread can reach.
pub(in crate::threads) struct Ends {
    /// The tunnels.
    pub(in crate::threads) tunnels: Vec<Place>,
    pub(in crate::threads) news: Tx<News>,
    pub(in crate::threads) peers: Tx<Peers>,
    pub(in crate::threads) shared: Arc<Shared>,
}

/// One tunnel and what it needs to know of its bus.
pub(in crate::threads) struct Place {
    pub(in crate::threads) plan: TunnelPlan,
    pub(in crate::threads) bus: BusAddress,
    /// The bus carries CAN FD frames too.
    pub(in crate::threads) fd: bool,
    /// The ids that only the watchdog may send there.
    pub(in crate::threads) own: Vec<Id>,
}

/// A listener to be.
struct Closed {
    plan: TunnelPlan,
    /// The tunnel's own index: doors and ways are in the order of the tunnels.
    index: usize,
    told: Option<i32>,
}

/// Runs until the watchdog has ended.
pub(in crate::threads) fn run(ends: &Ends) {
    let buses = ends
        .tunnels
        .iter()
        .map(|place| Bus {
            address: place.bus.clone(),
            accept: Accept::All,
            fd: place.fd,
            max_age: place.plan.max_age,
        })
        .collect();
    let ways = ends
        .tunnels
        .iter()
        .map(|Place { plan, own, .. }| {
            let gate = Gate::new(own, &plan.always, &plan.unless_armed, &plan.diagnostic);
            Injection::new(gate, plan.peer_per_s, plan.total_per_s)
        })
        .collect();
    let settings = Settings { buses, coalesce: Duration::ZERO };
    let mut tunnel = Tunnel::server(settings, Vec::new(), Some(Guard { ways }));
    let mut closed: Vec<Closed> = ends
        .tunnels
        .iter()
        .enumerate()
        .map(|(index, place)| Closed { plan: place.plan.clone(), index, told: None })
        .collect();
    let mut tried_at: Option<Instant> = None;
    let mut peers_at: Option<Instant> = None;
    while !ends.shared.ended() {
        fault_point::pass("tcpcan");
        let now = clock::now();
        if !closed.is_empty() && tried_at.is_none_or(|at| now.since(at) >= LISTEN_AGAIN) {
            tried_at = Some(now);
            closed.retain_mut(|door| !open(door, &mut tunnel, ends));
        }
        tunnel.turn(TURN, &|| ends.shared.state(), &mut |news| ends.tell(news));
        ends.shared.tunnel.publish(&tunnel.counts());
        ends.shared.set_counter(Counter::TunnelNewsDropped, ends.news.dropped());
        if peers_at.is_none_or(|at| now.since(at) >= PEERS_PERIOD) {
            peers_at = Some(now);
            ends.peers.offer(ends.of_gateway(tunnel.peer_facts()));
        }
    }
    tunnel.stop();
    ends.shared.tunnel.publish(&tunnel.counts());
}

/// Listens, if the address can be had.
fn open(door: &mut Closed, tunnel: &mut Tunnel, ends: &Ends) -> bool {
    let bus = door.index;
    match Listener::bind(door.plan.listen) {
        Ok(listener) => {
            tunnel.open_door(Door { listener, allow: door.plan.allow.clone(), bus });
            ends.tell(News { peer: None, bus, what: What::Listening });
            true
        }
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(0);
            if door.told.replace(errno) != Some(errno) {
                ends.tell(News { peer: None, bus, what: What::NoListener(errno) });
            }
            false
        }
    }
}

impl Ends {
    fn tell(&self, news: News) {
        self.news.offer(News { bus: self.bus(news.bus), ..news });
    }

    /// The gateway's index of a bus: the tunnel counts its own.
    fn bus(&self, index: usize) -> usize {
        self.tunnels.get(index).map_or(index, |place| place.plan.bus)
    }

    fn of_gateway(&self, mut peers: Peers) -> Peers {
        for peer in &mut peers {
            peer.bus = self.bus(peer.bus);
        }
        peers
    }
}
