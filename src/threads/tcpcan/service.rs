//! The gateway's tcpcan thread.
//!
//! Owns the tunnel of a running gateway: its listeners, its gate and what it publishes. Relies on the loop in the room
//! above. Never sends to the watchdog: it reads the state, and that is all it knows of driving.

use std::sync::Arc;

use super::{Bus, Door, Guard, News, Settings, Tunnel, What};
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

/// What the thread can reach.
pub(in crate::threads) struct Ends {
    /// The tunnels, with the bus of each and the ids that only the watchdog may send there.
    pub(in crate::threads) tunnels: Vec<(TunnelPlan, BusAddress, Vec<Id>)>,
    pub(in crate::threads) news: Tx<News>,
    pub(in crate::threads) shared: Arc<Shared>,
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
        .map(|(plan, address, _)| Bus {
            address: address.clone(),
            accept: Accept::All,
            max_age: plan.max_age,
        })
        .collect();
    let ways = ends
        .tunnels
        .iter()
        .map(|(plan, _, own)| {
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
        .map(|(index, (plan, ..))| Closed { plan: plan.clone(), index, told: None })
        .collect();
    let mut tried_at: Option<Instant> = None;
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
        // The log names the gateway's buses; the tunnel counts its own.
        let bus = self.tunnels.get(news.bus).map_or(news.bus, |(plan, ..)| plan.bus);
        self.news.offer(News { bus, ..news });
    }
}
