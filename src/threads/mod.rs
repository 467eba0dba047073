//! How each thread waits. A thread is a place to wait, not a place to think.
//!
//! Owns the start of the gateway's threads, their names and priorities, and what happens when one panics. Relies on
//! `topology` for the channels and on `nodes` for every decision. Never restarts a thread: a lost one ends the process
//! with safe frames.

#![allow(clippy::disallowed_methods, reason = "this is where threads are started and clocks are read")]

mod assetto;
mod can;
mod fault_point;
mod management;
mod ocp;
pub mod player;
pub mod rcsp;
pub mod rcsp_client;
pub mod station;
pub mod tcpcan;
mod watchdog;

use self::management::GatewayDesk;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::config::{Config, TunnelPlan, UserForm as ConfiguredForm};
use crate::io::runtime::{LastCounters, RuntimeDirectory};
use crate::io::tcp::Listener;
use crate::io::{clock, confine, sys};
use crate::nodes::management::facts::Identity;
use crate::nodes::management::history::Happening;
use crate::nodes::ocp::OcpNode;
use crate::nodes::watchdog::WatchdogNode;
use crate::proto::ocp::UserForm;
use crate::proto::ocp::user_data::UserPathsError;
use crate::safety::core::{Core, CoreOptions};
use crate::safety::faults::Fault;
use crate::time::Instant;
use crate::topology::car::CarNews;
use crate::topology::tunnel::News;
use crate::topology::{Edge, Event, Rx, Shared, Thread, Tx, channel};

/// How a gateway is started, beyond its configuration.
#[derive(Debug, Default)]
pub struct GatewayOptions {
    /// Does everything but send.
    pub listen_only: bool,
    /// Asks for SCHED_FIFO.
    pub real_time: bool,
    /// Alive counters of a previous process.
    pub counters: Vec<u32>,
    /// The lasting LOCKOUT that a previous process left.
    pub locked_out: Option<Fault>,
    /// Where the alive counters are kept for the program that sends safe frames after this process.
    pub last_counters: Option<LastCounters>,
    /// The directory in which a restart of a bus is asked for.
    pub runtime: Option<RuntimeDirectory>,
    /// What the management plane tells of the configuration; without it there is none, whatever the configuration says.
    pub management: Option<ManagementOptions>,
}

/// What the management plane is told at its start.
#[derive(Debug)]
pub struct ManagementOptions {
    /// Version and commit.
    pub version: &'static str,
    /// The effective configuration as a record.
    pub config: serde_json::Map<String, serde_json::Value>,
    /// Where it can be asked already; without it the thread listens where the configuration says, as soon as that is possible.
    pub listener: Option<Listener>,
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    /// What any thread may set.
    pub shared: Arc<Shared>,
    /// What happened.
    pub events: Rx<Event>,
    /// What happened at the tunnels.
    pub tunnel_news: Rx<News>,
    /// What happened to the simulated car.
    pub car_news: Rx<CarNews>,
    happenings: Tx<(Instant, Happening)>,
    threads: Vec<JoinHandle<()>>,
}

/// Why a gateway did not start.
#[derive(Debug)]
pub enum StartError {
    /// The plan names user data that cannot be read.
    UserPaths(UserPathsError),
    /// A bus name that is none.
    Bus(String),
    /// The kernel gives no more threads.
    Spawn(std::io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UserPaths(error) => write!(f, "user data: {error}"),
            Self::Bus(name) => write!(f, "{name} is no bus"),
            Self::Spawn(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl Gateway {
    /// Starts every thread. No thread is started later.
    ///
    /// # Errors
    /// [`StartError`]; nothing was sent then.
    pub fn start(config: &Config, options: GatewayOptions) -> Result<Self, StartError> {
        fault_point::watch();
        let shared = Arc::new(Shared::default());
        let (demand_tx, demand_rx) = channel(Edge::Operator);
        let (to_watchdog_tx, to_watchdog_rx) = channel(Edge::FeedbackToWatchdog);
        let (to_ocp_tx, to_ocp_rx) = channel(Edge::FeedbackToOcp);
        let (status_tx, status_rx) = channel(Edge::StatusToOcp);
        let (events_tx, events_rx) = channel(Edge::Events);
        let (sockets_tx, sockets_rx) = channel(Edge::Sockets);
        let (dead_tx, dead_rx) = channel(Edge::DeadSockets);
        let (news_tx, news_rx) = channel(Edge::TunnelNews);

        let core = Core::new(
            config.plan.clone(),
            CoreOptions {
                settings: config.settings,
                arms_per_minute: config.arms_per_minute,
                counters: options.counters.clone(),
                locked_out: options.locked_out,
            },
        );
        let node = WatchdogNode::new(core);
        let (peers_tx, peers_rx) = channel(Edge::PeersToRcsp);
        let (mirror_tx, mirror_rx) = channel(Edge::StatusToRcsp);
        let (happenings, happenings_rx) = channel(Edge::Happenings);
        let tcpcan = tcpcan::Ends {
            tunnels: places(config, &node),
            news: news_tx,
            peers: peers_tx,
            shared: Arc::clone(&shared),
        };
        let form = user_form(config);
        let ocp_node = OcpNode::new(&config.plan, config.settings, form).map_err(StartError::UserPaths)?;
        let mut can_ends = Vec::with_capacity(config.plan.buses.len());
        for (bus, plan) in config.plan.buses.iter().enumerate() {
            let address = plan.interface.parse().map_err(|_| StartError::Bus(plan.interface.clone()))?;
            can_ends.push(can::Ends {
                bus,
                address,
                fd: plan.fd,
                echo: plan.echo,
                // A simulator's feedback must not move real actuators.
                virtual_only: config.car.as_ref().is_some_and(|car| !car.on_real_bus),
                own_ids: node.own_ids(bus).collect(),
                feedback_ids: config.plan.receive.iter().filter(|r| r.bus == bus).map(|r| r.id).collect(),
                to_watchdog: to_watchdog_tx.clone(),
                to_ocp: to_ocp_tx.clone(),
                sockets: sockets_tx.clone(),
                dead: dead_rx.clone(),
                events: events_tx.clone(),
                shared: Arc::clone(&shared),
            });
        }
        let spawner = Spawner { shared: &shared, events: &events_tx, real_time: options.real_time };
        let mut threads = Vec::new();
        // The watchdog first: it must be there before anyone has something to say.
        let watchdog = watchdog::Ends {
            node,
            buses: config.plan.buses.len(),
            demand: demand_rx,
            feedback: to_watchdog_rx,
            sockets: sockets_rx,
            dead: dead_tx,
            status: status_tx,
            mirror: mirror_tx,
            events: events_tx.clone(),
            shared: Arc::clone(&shared),
            listen_only: options.listen_only,
            last_counters: options.last_counters,
            runtime: options.runtime,
        };
        threads
            .push(spawner.spawn(Thread::Watchdog, "watchdog".to_owned(), move || watchdog::run(watchdog))?);
        for ends in can_ends {
            let name = format!("can-{}", config.plan.buses.get(ends.bus).map_or("", |bus| &bus.name));
            threads.push(spawner.spawn(Thread::Can, name, move || can::run(&ends))?);
        }
        let ocp = ocp::Ends {
            node: ocp_node,
            address: config.ocp.address,
            withhold: config.ocp.withhold_acks_when_can_dead,
            ack_stamp_limit: config.settings.thread_stall,
            demand: demand_tx,
            feedback: to_ocp_rx,
            status: status_rx,
            events: events_tx.clone(),
            shared: Arc::clone(&shared),
            car: config.car.is_some().then_some(None),
        };
        threads.push(spawner.spawn(Thread::Ocp, "ocp".to_owned(), move || ocp::run(ocp))?);
        let mirrors = management::Mirrors { status: mirror_rx, peers: peers_rx, happenings: happenings_rx };
        if let Some(ends) =
            management_ends(config, options.management, options.listen_only, mirrors, &events_tx, &shared)
        {
            threads.push(spawner.spawn(Thread::Rcsp, "rcsp".to_owned(), move || management::run(ends))?);
        }
        if !tcpcan.tunnels.is_empty() {
            threads.push(spawner.spawn(Thread::Tcpcan, "tcpcan".to_owned(), move || tcpcan::run(&tcpcan))?);
        }
        let (car_news_tx, car_news) = channel(Edge::CarNews);
        if let Some(ends) = car_ends(config, options.listen_only, car_news_tx, &shared) {
            threads.push(spawner.spawn(Thread::Assetto, "assetto".to_owned(), move || assetto::run(ends))?);
        }
        Ok(Self { shared, events: events_rx, tunnel_news: news_rx, car_news, happenings, threads })
    }

    /// Tells the management plane what has happened, if there is anything to tell. False where its channel was full; only one
    /// thread may ask for that.
    pub fn tell(&self, happening: Option<Happening>) -> bool {
        let Some(happening) = happening else { return true };
        let dropped = self.happenings.dropped();
        self.happenings.offer((clock::now(), happening));
        self.happenings.dropped() == dropped
    }

    /// Waits until every thread has ended; they end after the watchdog did.
    pub fn join(self) {
        for thread in self.threads {
            // A panic was caught inside; nothing is left to report.
            let _ = thread.join();
        }
    }

    /// Whether the watchdog has ended.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.shared.ended()
    }

    /// Whether every thread has ended; one that hangs must not keep the process.
    #[must_use]
    pub fn all_ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

/// What the rcsp thread needs; none where there is no management plane.
fn management_ends(
    config: &Config,
    options: Option<ManagementOptions>,
    listen_only: bool,
    mirrors: management::Mirrors,
    events: &Tx<Event>,
    shared: &Arc<Shared>,
) -> Option<management::Ends> {
    let plan = config.rcsp.clone()?;
    let ManagementOptions { version, config: effective, listener } = options?;
    let identity = Identity {
        version,
        digest: config.digest.clone(),
        plan: config.plan.clone(),
        ocp: config.ocp.address,
        tunnels: config.tunnels.iter().map(|tunnel| (tunnel.bus, tunnel.listen)).collect(),
        car: config.car.as_ref().map(|car| car.settings.clone()),
        config: effective,
        listen_only,
        remote_stop: plan.remote_stop,
        started_at: clock::now(),
    };
    Some(management::Ends {
        desk: GatewayDesk::new(identity, Arc::clone(shared), events.clone(), mirrors),
        plan,
        listener,
        events: events.clone(),
        shared: Arc::clone(shared),
    })
}

/// How `client_user_data` is wrapped, in the words of the protocol's room.
const fn user_form(config: &Config) -> UserForm {
    match config.ocp.user_data {
        ConfiguredForm::Auto => UserForm::Auto,
        ConfiguredForm::Bare => UserForm::Bare,
        ConfiguredForm::Wrapped => UserForm::Wrapped,
    }
}

/// What the assetto thread needs; none where no simulated car stands in.
fn car_ends(
    config: &Config,
    listen_only: bool,
    news: Tx<CarNews>,
    shared: &Arc<Shared>,
) -> Option<assetto::Ends> {
    let (plan, buses) = (config.car.clone()?, config.plan.buses.clone());
    Some(assetto::Ends { plan, buses, news, shared: Arc::clone(shared), listen_only })
}

/// The tunnels that the configuration asks for, with what each must know of its bus.
fn places(config: &Config, node: &WatchdogNode) -> Vec<tcpcan::Place> {
    let played = |bus: usize| {
        let frames = config.car.iter().flat_map(|car| &car.send);
        frames.filter(move |frame| frame.bus == bus).map(|frame| frame.id)
    };
    let place = |tunnel: &TunnelPlan| {
        let bus = config.plan.buses.get(tunnel.bus)?;
        Some(tcpcan::Place {
            plan: tunnel.clone(),
            bus: bus.interface.parse().ok()?,
            fd: bus.fd,
            own: node.own_ids(tunnel.bus).chain(played(tunnel.bus)).collect(),
        })
    };
    config.tunnels.iter().filter_map(place).collect()
}

/// Starts threads that report their own panic.
struct Spawner<'a> {
    shared: &'a Arc<Shared>,
    events: &'a Tx<Event>,
    real_time: bool,
}

impl Spawner<'_> {
    fn spawn(
        &self,
        thread: Thread,
        name: String,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<JoinHandle<()>, StartError> {
        let shared = Arc::clone(self.shared);
        let events = self.events.clone();
        let has_priority = thread.spec().priority.is_some();
        let priority = thread.spec().priority.filter(|_| self.real_time);
        // The kernel shows fifteen bytes of a thread's name.
        let name: String = name.chars().take(15).collect();
        std::thread::Builder::new()
            .name(name)
            .spawn(move || {
                if has_priority {
                    sys::prefault_stack();
                }
                if let Some(priority) = priority {
                    let result = sys::set_fifo_priority(priority).map_err(|errno| errno as i32);
                    shared.gauges.real_time.note_thread(result);
                    if let Err(errno) = result {
                        events.offer(Event::RealTimeRefused { thread, errno });
                    }
                }
                // After the priority, which it may not change any more.
                if let Err(why) = confine::thread(thread.spec().rights) {
                    events.offer(Event::NotConfined(thread, why));
                }
                if catch_unwind(AssertUnwindSafe(body)).is_err() {
                    shared.note_panic(clock::now());
                    events.offer(Event::Panicked(thread));
                    if thread == Thread::Watchdog {
                        shared.end();
                    }
                }
            })
            .map_err(StartError::Spawn)
    }
}
