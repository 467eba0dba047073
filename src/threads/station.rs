//! The station thread: waits on the Player's connection and on every bus of the operator's side, in one poll.
//!
//! Owns the connection, its reconnects and the sockets on the buses. Relies on `nodes::player` and `nodes::station` for
//! every decision. Never waits longer than 20 ms, never blocks on a write, and writes no frame but the dashboard's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::player::PlayerLine;
use crate::can::Id;
use crate::io::canbus::{Accept, Batch, BusAddress, OpenCause, Port, PortOptions, RecvError};
use crate::io::{clock, confine};
use crate::nodes::player::PlayerNode;
use crate::nodes::station::{Choice, StationNode, StationTimes};
use crate::signals::feedback::FeedbackVerdict;
use crate::signals::station::StationPlan;
use crate::time::{Duration, Instant};
use crate::topology::station::{StationCounter, StationNews, StationShared};
use crate::topology::{Edge, Rx, Thread, Tx, channel};

/// Longest wait: the thread's beat must go on.
const TURN: Duration = Duration::from_millis(20);

/// Time between two attempts to open a bus that is not there.
const REOPEN: Duration = Duration::from_millis(100);

/// The last message, that nothing is commanded any more, may take this long to leave.
const GOODBYE: Duration = Duration::from_millis(100);

/// A frame is no older than the last time its socket was seen empty. Up to this, three periods of the shortest timeout there is, it
/// counts as new; beyond, the thread was paused, and the frame is taken to be as old as the pause.
const GAP: Duration = Duration::from_millis(30);

/// Receive buffer on a bus, as the kernel counts it: as the vehicle's reading socket.
const RCVBUF: usize = 400_000;

/// What a station needs from its configuration.
#[derive(Debug)]
pub struct StationOptions {
    /// The mapping.
    pub plan: StationPlan,
    /// How old what is shown may be.
    pub times: StationTimes,
    /// The Player's server.
    pub address: SocketAddr,
    /// The vehicle that the command line names.
    pub vehicle: Option<String>,
    /// Does everything but send.
    pub listen_only: bool,
}

/// A running station.
#[derive(Debug)]
pub struct Station {
    /// What both sides share.
    pub shared: Arc<StationShared>,
    /// What happened.
    pub news: Rx<StationNews>,
    thread: JoinHandle<()>,
}

impl Station {
    /// Starts the thread.
    ///
    /// # Errors
    /// A bus name that is none, or a kernel that gives no thread.
    pub fn start(options: StationOptions) -> std::io::Result<Self> {
        let shared = Arc::new(StationShared::default());
        let (news_tx, news) = channel(Edge::StationNews);
        let mut buses = Vec::new();
        for (index, bus) in options.plan.buses.iter().enumerate() {
            let address = bus.interface.parse().map_err(|error| {
                std::io::Error::new(std::io::ErrorKind::InvalidInput, format!("{}: {error}", bus.interface))
            })?;
            let ids = options.plan.receive.iter().filter(|frame| frame.bus == index).map(|frame| frame.id);
            buses.push(Bus {
                address,
                fd: bus.fd,
                ids: ids.collect(),
                port: None,
                next_at: Instant::ZERO,
                told: None,
                lost: 0,
                empty_at: Instant::ZERO,
            });
        }
        let mut node = StationNode::new(options.plan, options.times);
        node.choose(options.vehicle);
        let ends = Ends {
            node,
            line: PlayerLine::new(options.address),
            buses,
            news: news_tx.clone(),
            shared: Arc::clone(&shared),
            told: Told::default(),
            listen_only: options.listen_only,
        };
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("station".to_owned()).spawn(move || {
            let mut ends = ends;
            if let Err(why) = confine::thread(Thread::Station.spec().rights) {
                news_tx.offer(StationNews::NotConfined(why));
            }
            let ended = catch_unwind(AssertUnwindSafe(|| ends.run()));
            if ended.is_err() {
                news_tx.offer(StationNews::Panicked);
            }
            own.end(ended.is_err());
        })?;
        Ok(Self { shared, news, thread })
    }

    /// Waits for the thread.
    pub fn join(self) {
        // A panic was caught inside.
        let _ = self.thread.join();
    }
}

/// One bus of the station.
#[derive(Debug)]
struct Bus {
    address: BusAddress,
    fd: bool,
    ids: Vec<Id>,
    port: Option<Port>,
    next_at: Instant,
    told: Option<OpenCause>,
    /// The kernel's overflow count as last read.
    lost: u32,
    /// When the socket was last seen empty.
    empty_at: Instant,
}

/// What was told, so that it is told once.
#[derive(Debug, Default)]
struct Told {
    choice: Choice,
    missing: Option<String>,
    panel_known: bool,
    faults: BTreeMap<String, (Vec<String>, Vec<String>)>,
}

struct Ends {
    node: StationNode,
    line: PlayerLine,
    buses: Vec<Bus>,
    news: Tx<StationNews>,
    shared: Arc<StationShared>,
    told: Told,
    listen_only: bool,
}

impl Ends {
    fn run(&mut self) {
        let mut batch = Batch::new();
        while !self.shared.stops() {
            let now = clock::now();
            self.shared.beat(now);
            self.open_buses(now);
            self.line.connect(&mut |one| self.news.offer(one));
            self.wait(now);
            self.read_buses(&mut batch);
            self.exchange(clock::now());
            self.tell(clock::now());
            self.dashboard(clock::now());
            self.publish();
        }
        self.goodbye();
        self.publish();
    }

    fn publish(&self) {
        self.shared.publish(self.line.node.counters(), self.line.connections());
    }

    fn open_buses(&mut self, now: Instant) {
        for (index, bus) in self.buses.iter_mut().enumerate() {
            if bus.port.is_some() || now < bus.next_at {
                continue;
            }
            bus.next_at = now + REOPEN;
            let options = PortOptions {
                accept: Accept::Only(bus.ids.clone()),
                fd: bus.fd,
                rcvbuf: Some(RCVBUF),
                ..PortOptions::default()
            };
            match Port::open(&bus.address, &options) {
                Ok(port) => {
                    (bus.port, bus.told, bus.lost, bus.empty_at) = (Some(port), None, 0, now);
                    self.news.offer(StationNews::Bus { bus: index, what: "open" });
                }
                Err(error) => {
                    if bus.told.replace(error.cause) != Some(error.cause) {
                        self.news.offer(StationNews::BusUnavailable { bus: index, cause: error.cause });
                    }
                }
            }
        }
    }

    /// Waits until something can be read, or something is due.
    fn wait(&self, now: Instant) {
        let due = [self.line.node.due(), self.node.dashboard_due(&self.line.node)];
        let wait = due.into_iter().flatten().map(|at| at.since(now)).fold(TURN, Duration::min);
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(1 + self.buses.len());
        fds.extend(self.line.poll());
        let ports = self.buses.iter().filter_map(|bus| bus.port.as_ref());
        fds.extend(ports.map(|port| PollFd::new(port.as_fd(), PollFlags::POLLIN)));
        // An interrupt, or an error that the reads will meet as well.
        let _ = ppoll(&mut fds, Some(TimeSpec::from_duration(wait)), None);
    }

    fn read_buses(&mut self, batch: &mut Batch) {
        for (index, bus) in self.buses.iter_mut().enumerate() {
            let Some(port) = &bus.port else { continue };
            match port.recv_many(batch) {
                Ok(()) => {
                    let now = clock::now();
                    let at = if now.since(bus.empty_at) <= GAP { now } else { bus.empty_at };
                    if !batch.is_full() {
                        bus.empty_at = now;
                    }
                    let lost = batch.dropped_total().wrapping_sub(bus.lost);
                    bus.lost = batch.dropped_total();
                    self.shared.add(StationCounter::Overflow, lost.into());
                    for frame in batch.frames() {
                        match self.node.handle_frame(at, index, frame) {
                            FeedbackVerdict::Accepted(_) => {
                                self.shared.add(StationCounter::PanelFrames, 1);
                                self.line.node.want();
                            }
                            FeedbackVerdict::Ignored { .. } => {
                                self.shared.add(StationCounter::PanelRefused, 1)
                            }
                            FeedbackVerdict::NotOurs => {}
                        }
                    }
                }
                // Told once; the same socket goes on when the interface is up again.
                Err(RecvError::Down) => self.news.offer(StationNews::Bus { bus: index, what: "down" }),
                Err(RecvError::Gone | RecvError::Io(_)) => {
                    bus.port = None;
                    self.news.offer(StationNews::Bus { bus: index, what: "gone" });
                }
            }
        }
    }

    /// Reads what the Player says, and writes what is due.
    fn exchange(&mut self, now: Instant) {
        let Self { line, node, news, listen_only, .. } = self;
        let mut message = |player: &PlayerNode| (!*listen_only).then(|| node.message(now, player));
        line.exchange(now, &mut message, &mut |one| news.offer(one));
    }

    /// Tells what has changed.
    fn tell(&mut self, now: Instant) {
        if self.node.choice() != &self.told.choice {
            self.told.choice = self.node.choice().clone();
            self.news.offer(StationNews::Choice(self.told.choice.clone()));
        }
        let missing = self.node.missing_panel(now).map(str::to_owned);
        if missing != self.told.missing || !self.told.panel_known {
            self.told.panel_known = true;
            match &missing {
                Some(name) => self.news.offer(StationNews::PanelLost(name.clone())),
                None => self.news.offer(StationNews::PanelBack),
            }
            self.told.missing = missing;
            self.line.node.want();
        }
        for name in self.line.node.connected() {
            let Some(seen) = self.line.node.vehicles().get(name) else { continue };
            let faults = (seen.feedback.sender_fault.clone(), seen.feedback.receiver_fault.clone());
            if self.told.faults.get(name) != Some(&faults) {
                let (sender, receiver) = faults.clone();
                let is_quiet =
                    sender.is_empty() && receiver.is_empty() && !self.told.faults.contains_key(name);
                self.told.faults.insert(name.clone(), faults);
                if !is_quiet {
                    self.news.offer(StationNews::Faults { vehicle: name.clone(), sender, receiver });
                }
            }
        }
    }

    fn dashboard(&mut self, now: Instant) {
        let mut from = 0;
        while let Some((at, bus, frame)) = self.node.poll_dashboard(now, from, &self.line.node) {
            from = at + 1;
            if self.listen_only {
                continue;
            }
            let port = self.buses.get(bus).and_then(|bus| bus.port.as_ref());
            let taken = port.is_some_and(|port| port.try_send(&frame).is_ok());
            self.shared.add(if taken { StationCounter::DashSent } else { StationCounter::DashDropped }, 1);
        }
    }

    /// The last message says that the panel has gone: the vehicle stops at once and not when the silence is noticed.
    fn goodbye(&mut self) {
        let start = clock::now();
        self.node.release();
        let mut is_sent = self.listen_only || self.line.node.due().is_none();
        loop {
            if !self.line.flush() {
                if is_sent {
                    return;
                }
                is_sent = true;
                let now = clock::now();
                let message = self.node.message(now, &self.line.node);
                // One that is too long was told before.
                let _ = self.line.node.send(now, &message);
                continue;
            }
            if clock::now().since(start) >= GOODBYE {
                return;
            }
            let mut fds: Vec<PollFd<'_>> = self.line.poll().into_iter().collect();
            let _ = ppoll(&mut fds, Some(TimeSpec::from_duration(Duration::from_millis(5))), None);
        }
    }
}
