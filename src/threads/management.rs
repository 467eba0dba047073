//! What the rcsp thread knows of the gateway: the facts behind every answer, gathered from the other threads.
//!
//! Owns the gathering: rates out of counters, percentiles of the last minute, what the kernel says of the controllers. Relies
//! on `nodes::management` for every answer. Never sends to the watchdog: a request is a bit that it reads in its own time.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno;

use super::fault_point;
use super::rcsp::Server;
use crate::can::BusAddress;
use crate::config::RcspPlan;
use crate::io::canbus::controller::{self, Controller};
use crate::io::clock;
use crate::io::tcp::Listener;
use crate::nodes::management::car::CarFacts;
use crate::nodes::management::facts::{BusFacts, Facts, Identity, RealTimeFacts, SendFacts, ms};
use crate::nodes::management::history::Happening;
use crate::nodes::management::{Management, Request, knows_command};
use crate::nodes::rcsp::{Answer, Asked, Desk, Door, Event as Published, Service};
use crate::nodes::spread::Recent;
use crate::safety::faults::Fault;
use crate::safety::input::Status;
use crate::time::{Duration, Instant};
use crate::topology::gauges::RealTimeGauge;
use crate::topology::tunnel::Peers;
use crate::topology::{Event, Rx, Shared, Tx};

/// Facts are not gathered again within this: a client that asks as fast as it can is told the same.
const FRESH: Duration = Duration::from_millis(20);

/// Rates are taken over at least this long.
const RATE: Duration = Duration::from_secs(1);

/// The kernel is asked about the controllers this often, and only while a client is there.
const CONTROLLER: Duration = Duration::from_secs(1);

/// Connections that were closed for what their client did are written down this often.
const CLOSED: Duration = Duration::from_secs(1);

/// What was counted on a bus at one moment.
#[derive(Debug, Clone, Copy)]
struct Counted {
    at: Instant,
    frames: u64,
    nominal_bits: u64,
    data_bits: u64,
}

/// One bus as it is watched.
#[derive(Debug)]
struct Bus {
    address: Option<BusAddress>,
    controller: Option<Controller>,
    before: Option<Counted>,
    frames_per_s: f64,
    nominal_bits_per_s: f64,
    data_bits_per_s: f64,
}

/// What the other threads tell.
#[derive(Debug)]
pub(super) struct Mirrors {
    pub(super) status: Rx<Status>,
    pub(super) peers: Rx<Peers>,
    pub(super) happenings: Rx<(Instant, Happening)>,
}

/// The gateway as the management plane sees it.
#[derive(Debug)]
pub(super) struct GatewayDesk {
    management: Management,
    shared: Arc<Shared>,
    events: Tx<Event>,
    closed_at: Option<Instant>,
    status: Rx<Status>,
    peers: Rx<Peers>,
    happenings: Rx<(Instant, Happening)>,
    newest_status: Option<Status>,
    newest_peers: Peers,
    buses: Vec<Bus>,
    ocp_latency: Recent,
    door_to_bus: Recent,
    gathered_at: Option<Instant>,
    controllers_at: Option<Instant>,
    /// Clients connected now.
    clients: usize,
}

impl GatewayDesk {
    pub(super) fn new(identity: Identity, shared: Arc<Shared>, events: Tx<Event>, mirrors: Mirrors) -> Self {
        let Mirrors { status, peers, happenings } = mirrors;
        let buses = identity.plan.buses.iter().map(|bus| Bus {
            address: bus.interface.parse().ok(),
            controller: None,
            before: None,
            frames_per_s: 0.0,
            nominal_bits_per_s: 0.0,
            data_bits_per_s: 0.0,
        });
        Self {
            buses: buses.collect(),
            management: Management::new(identity),
            shared,
            events,
            closed_at: None,
            status,
            peers,
            happenings,
            newest_status: None,
            newest_peers: Peers::new(),
            ocp_latency: Recent::default(),
            door_to_bus: Recent::default(),
            gathered_at: None,
            controllers_at: None,
            clients: 0,
        }
    }

    /// Gathers everything, if what is there is not fresh.
    fn gather(&mut self, now: Instant) {
        while let Some((at, happening)) = self.happenings.take() {
            self.management.take(at, &happening);
        }
        if self.gathered_at.is_some_and(|at| now.since(at) < FRESH) {
            return;
        }
        self.gathered_at = Some(now);
        while let Some(status) = self.status.take() {
            self.newest_status = Some(status);
        }
        while let Some(peers) = self.peers.take() {
            self.newest_peers = peers;
        }
        if self.clients == 0 {
            // What was known grows old; error messages go on telling the state.
            self.buses.iter_mut().for_each(|bus| bus.controller = None);
            self.controllers_at = None;
        } else if self.controllers_at.is_none_or(|at| now.since(at) >= CONTROLLER) {
            self.controllers_at = Some(now);
            for bus in &mut self.buses {
                bus.controller = bus.address.as_ref().and_then(controller::ask_kernel);
            }
        }
        let facts = self.facts(now);
        self.management.set_facts(now, facts);
    }

    fn facts(&mut self, now: Instant) -> Facts {
        let gauges = &self.shared.gauges;
        self.ocp_latency.look(now, || gauges.ocp_latency.counted());
        self.door_to_bus.look(now, || gauges.door_to_bus.counted());
        let age = |at: Option<Instant>| at.map(|at| ms(now.since(at)));
        let sends =
            gauges.sends.iter().take(self.management.identity().plan.send.len()).map(|send| SendFacts {
                written: send.written.load(Relaxed),
                refused: send.refused.load(Relaxed),
                confirmed: send.confirmed.load(Relaxed),
                confirmed_age_ms: age(send.confirmed_at()),
                period: send.period.counted().percentiles(),
            });
        let buses = self.buses.iter_mut().zip(&gauges.buses).map(|(bus, gauge)| {
            let counted = Counted {
                at: now,
                frames: gauge.frames.load(Relaxed),
                nominal_bits: gauge.nominal_bits.load(Relaxed),
                data_bits: gauge.data_bits.load(Relaxed),
            };
            bus.rate(counted);
            let controller = bus.controller.clone().unwrap_or_default();
            BusFacts {
                up: gauge.up.load(Relaxed),
                // The management plane sees it: it knows what is sent where.
                no_echo: false,
                // What the kernel was asked is newer than the last error message, where it knows.
                controller: controller.state.or_else(|| gauge.controller()),
                errors: controller.errors.or_else(|| gauge.counters().map(|(t, r)| (t.into(), r.into()))),
                bitrate_bps: controller.bitrate_bps,
                data_bitrate_bps: controller.data_bitrate_bps,
                load_percent: bus.load_percent(&controller),
                driver: controller.kind,
                frames_per_s: bus.frames_per_s,
                frames: counted.frames,
                error_messages: gauge.errors.load(Relaxed),
                dropped: gauge.lost.load(Relaxed),
            }
        });
        Facts {
            status: self.newest_status,
            watchdog_age_ms: age(self.shared.watchdog_beat()),
            connected: self.shared.link().is_some(),
            message_age_ms: age(gauges.message_at.get()),
            ack_age_ms: age(gauges.ack_at.get()),
            counter_age_ms: age(gauges.counter_at.get()),
            buses: buses.collect(),
            sends: sends.collect(),
            peers: self.newest_peers.to_vec(),
            ocp_latency: self.ocp_latency.percentiles(&gauges.ocp_latency.counted()),
            door_to_bus: self.door_to_bus.percentiles(&gauges.door_to_bus.counted()),
            car: self.management.identity().car.is_some().then(|| self.car_facts()),
            real_time: real_time(&gauges.real_time),
            counters: self.shared.counters().map(|(counter, value)| (counter.text(), value)).collect(),
            tunnel_counters: self.shared.tunnel.iter().map(|(count, value)| (count.text(), value)).collect(),
        }
    }

    fn car_facts(&self) -> CarFacts {
        let cell = &self.shared.car;
        let mut sample = None;
        // The writer is at it for a few nanoseconds at a time; the next page would tell it anyway.
        for _ in 0..3 {
            cell.read(&mut sample);
            if sample.is_some() {
                break;
            }
        }
        CarFacts {
            standing: cell.standing(),
            slot: cell.slot(),
            sample,
            counts: cell.counts(),
            sent: cell.frames.sent.load(Relaxed),
            refused: cell.frames.refused.load(Relaxed),
        }
    }

    /// Hands what should be in the log to main.
    fn say(&mut self) {
        for (command, by, outcome) in self.management.take_said() {
            self.events.offer(Event::Requested(command, by, outcome));
        }
    }

    /// Hands what a person asked for to the core.
    fn hand_on(&mut self, now: Instant) {
        for request in self.management.take_requests() {
            match request {
                Request::SafeStop => {
                    self.shared.trip(Fault::StopRequested.into(), now);
                    self.shared.request_leave_diag();
                }
                Request::Acknowledge => self.shared.request_acknowledge(),
                Request::EnterDiag => self.shared.request_enter_diag(),
                Request::LeaveDiag => self.shared.request_leave_diag(),
            }
        }
    }
}

/// What the kernel gave, in words.
fn real_time(gauge: &RealTimeGauge) -> RealTimeFacts {
    let why = |errno: i32| Errno::from_raw(errno).desc();
    let (granted, refused) = (gauge.granted.load(Relaxed), gauge.refused.load(Relaxed));
    let memory = gauge.memory();
    RealTimeFacts {
        granted,
        refused,
        refused_why: (refused > 0).then(|| why(gauge.refused_errno.load(Relaxed))),
        memory_locked: memory.map(|memory| memory.is_ok()),
        memory_why: memory.and_then(Result::err).map(why),
    }
}

impl Bus {
    /// Takes the rates once enough time has passed.
    fn rate(&mut self, counted: Counted) {
        let Some(before) = self.before else {
            self.before = Some(counted);
            return;
        };
        let time = counted.at.since(before.at);
        if time < RATE {
            return;
        }
        let per_s = |now: u64, before: u64| {
            // More than 2^32 bits between two looks would take hours of a bus.
            let more = u32::try_from(now.wrapping_sub(before)).unwrap_or(u32::MAX);
            f64::from(more) / time.as_secs_f64()
        };
        self.frames_per_s = per_s(counted.frames, before.frames);
        self.nominal_bits_per_s = per_s(counted.nominal_bits, before.nominal_bits);
        self.data_bits_per_s = per_s(counted.data_bits, before.data_bits);
        self.before = Some(counted);
    }

    /// The share of the bus that is in use, where its bit rate is known.
    fn load_percent(&self, controller: &Controller) -> Option<f64> {
        let nominal = f64::from(controller.bitrate_bps?);
        let data = controller.data_bitrate_bps.map_or(nominal, f64::from);
        Some(100.0 * (self.nominal_bits_per_s / nominal + self.data_bits_per_s / data))
    }
}

/// An address that cannot be had (another gateway's, a network that comes up later) is tried again after this.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// Longest turn: how late an event is told, and the end of the program noticed.
const TURN: Duration = Duration::from_millis(100);

/// What the thread can reach.
pub(super) struct Ends {
    pub(super) plan: RcspPlan,
    pub(super) listener: Option<Listener>,
    pub(super) desk: GatewayDesk,
    pub(super) events: Tx<Event>,
    pub(super) shared: Arc<Shared>,
}

/// Runs until the watchdog has ended.
pub(super) fn run(ends: Ends) {
    let Ends { plan, mut listener, mut desk, events, shared } = ends;
    let mut server = Server::allowing(plan.allow);
    let (mut told, mut tried_at, mut is_open) = (None, None, false);
    while !shared.ended() {
        fault_point::pass("rcsp");
        let now = clock::now();
        if !is_open && (listener.is_some() || tried_at.is_none_or(|at| now.since(at) >= LISTEN_AGAIN)) {
            tried_at = Some(now);
            match listener.take().map_or_else(|| Listener::bind(plan.listen), Ok) {
                Ok(bound) => {
                    let address = bound.local_address().unwrap_or(plan.listen);
                    // The first of four places.
                    is_open = server.listen(bound).is_ok();
                    events.offer(Event::RcspListening(address));
                }
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or(0);
                    if told.replace(errno) != Some(errno) {
                        events.offer(Event::RcspNotListening(errno));
                    }
                }
            }
        }
        server.turn(TURN, &mut desk);
        desk.management.set_own_counters(server.counts().iter().collect());
    }
    server.stop(&mut desk);
}

impl Desk for GatewayDesk {
    fn knows_command(&self, command: &str) -> bool {
        knows_command(command)
    }

    fn answer(&mut self, now: Instant, asked: &Asked<'_>) -> Answer {
        self.gather(now);
        let answer = self.management.answer(now, asked);
        self.hand_on(now);
        self.say();
        answer
    }

    fn settle(&mut self, now: Instant, ticket: u64) -> Option<Answer> {
        self.gather(now);
        let answer = self.management.settle(now, ticket);
        self.say();
        answer
    }

    fn forget(&mut self, now: Instant, ticket: u64) {
        self.management.forget(now, ticket);
        self.say();
    }

    fn knows_device(&self, device: &str) -> bool {
        self.management.has_device(device)
    }

    fn knows_topic(&self, device: Option<&str>, publisher: &str, topic: &str) -> bool {
        self.management.has_topic(device, publisher, topic)
    }
}

impl Service for GatewayDesk {
    fn turn(&mut self, now: Instant) -> Vec<Published> {
        self.gather(now);
        self.management.take_fresh(now)
    }

    fn told(&mut self, now: Instant, door: Door) {
        match door {
            Door::Connected(_) => {
                self.clients += 1;
                // Its first question is answered with what is now.
                self.gathered_at = None;
            }
            Door::Ended(address, ended) => {
                self.clients = self.clients.saturating_sub(1);
                // The log has one a second, the counters have all.
                if ended.is_fault() && self.closed_at.is_none_or(|at| now.since(at) >= CLOSED) {
                    self.closed_at = Some(now);
                    self.events.offer(Event::RcspClosed(address, ended));
                }
            }
            Door::NotAllowed(_) | Door::Refused(_) | Door::NoAccept(_) => {}
        }
        self.management.take_door(now, door);
    }
}
