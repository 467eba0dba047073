//! The assetto thread: waits on the simulator's datagrams and on the beat of the frames that its car sends.
//!
//! Owns the one UDP socket for both directions and a socket on each bus that the car sends on. Relies on `nodes::assetto`
//! for every decision. Never writes a frame that the watchdog sends, never sets a trip or a request, and never waits longer
//! than 50 ms; whoever reads what it publishes does not wait for it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::fault_point;
use crate::config::CarPlan;
use crate::io::canbus::{Accept, BusAddress, Port, PortOptions, SendError};
use crate::io::clock;
use crate::limits::{ASSETTO_DATAGRAM, BUSES};
use crate::nodes::assetto::stand_in::StandIn;
use crate::nodes::assetto::{AssettoNode, QUESTION_BYTES, Standing};
use crate::signals::car::CarFeed;
use crate::signals::plan::BusPlan;
use crate::time::{Duration, Instant};
use crate::topology::car::CarNews;
use crate::topology::{Shared, Tx};

/// Longest wait: bounds how long the end takes.
const TURN: Duration = Duration::from_millis(50);

/// Datagrams in one turn: a burst of every car of the largest server.
const BURST: usize = 256;

/// Time between two attempts to have a socket.
const REOPEN: Duration = Duration::from_millis(500);

/// A car that comes and goes is told once in this time, as it is then; while that goes on, the time doubles.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// Up to this.
const TELL_AGAIN_MAX: Duration = Duration::from_secs(300);

/// A feed that has not answered for so long from the start on is told.
const FIRST_ANSWER: Duration = Duration::from_secs(3);

/// A turn that took so long was no turn: the process was stopped or starved, and what waited in the socket is as old as that.
const PAUSE: Duration = Duration::from_millis(150);

/// What the thread starts with.
pub(super) struct Ends {
    pub(super) plan: CarPlan,
    pub(super) buses: Vec<BusPlan>,
    pub(super) news: Tx<CarNews>,
    pub(super) shared: Arc<Shared>,
    /// Frames are not sent.
    pub(super) listen_only: bool,
}

/// A bus that the car sends on.
struct Bus {
    index: usize,
    address: BusAddress,
    fd: bool,
    port: Option<Port>,
    next_at: Instant,
    told: Option<CarNews>,
}

struct Thread {
    node: AssettoNode,
    frames: StandIn,
    socket: Option<UdpSocket>,
    socket_at: Instant,
    told_errno: Option<i32>,
    buses: Vec<Bus>,
    on_real_bus: bool,
    news: Tx<CarNews>,
    shared: Arc<Shared>,
    /// None before the first word.
    told: Option<(Standing, Option<u8>)>,
    tell_at: Instant,
    tell_wait: Duration,
    /// It has changed since, and back perhaps, before it could be told.
    is_restless: bool,
    turned_at: Instant,
    buffer: Box<[u8]>,
}

/// Runs until the gateway ends.
pub(super) fn run(ends: Ends) {
    let now = clock::now();
    let Ends { plan, buses, news, shared, listen_only } = ends;
    let CarPlan { settings, send, on_real_bus } = plan;
    let used = |index: &usize| !listen_only && send.iter().any(|frame| frame.bus == *index);
    let buses = (0..BUSES.min(buses.len()))
        .filter(used)
        .filter_map(|index| {
            let bus = buses.get(index)?;
            // Every name was parsed at the start of the other threads.
            let address = bus.interface.parse().ok()?;
            Some(Bus { index, address, fd: bus.fd, port: None, next_at: now, told: None })
        })
        .collect();
    let stale_after = settings.stale_after();
    let mut thread = Thread {
        node: AssettoNode::new(settings, now),
        frames: StandIn::new(send, stale_after),
        socket: None,
        socket_at: now,
        told_errno: None,
        buses,
        on_real_bus,
        news,
        shared,
        told: None,
        tell_at: now + FIRST_ANSWER,
        tell_wait: TELL_AGAIN,
        is_restless: false,
        turned_at: now,
        buffer: vec![0; ASSETTO_DATAGRAM].into_boxed_slice(),
    };
    while !thread.shared.ended() {
        thread.turn();
    }
    thread.end();
}

impl Thread {
    fn turn(&mut self) {
        fault_point::pass("assetto");
        self.open_socket(clock::now());
        self.open_buses(clock::now());
        self.receive();
        let now = clock::now();
        self.node.handle_timeout(now);
        self.ask(now);
        self.publish(now);
        self.send_frames(now);
        self.wait();
    }

    fn open_socket(&mut self, now: Instant) {
        if self.socket.is_some() || now < self.socket_at {
            return;
        }
        self.socket_at = now + REOPEN;
        match open(&self.node.settings().feed) {
            Ok((socket, here)) => {
                self.socket = Some(socket);
                self.told_errno = None;
                self.news.offer(CarNews::Listening(here));
            }
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(0);
                if self.told_errno.replace(errno) != Some(errno) {
                    self.news.offer(CarNews::NotListening(errno));
                }
            }
        }
    }

    fn open_buses(&mut self, now: Instant) {
        for bus in self.buses.iter_mut().filter(|bus| bus.port.is_none() && now >= bus.next_at) {
            bus.next_at = now + REOPEN;
            let options =
                PortOptions { accept: Accept::Only(Vec::new()), fd: bus.fd, ..PortOptions::default() };
            let news = match Port::open(&bus.address, &options) {
                Ok(port) if self.on_real_bus || port.facts().is_ok_and(|facts| facts.is_virtual) => {
                    bus.port = Some(port);
                    CarNews::BusOpen(bus.index)
                }
                Ok(_) => CarNews::PhysicalBus(bus.index),
                Err(error) => CarNews::BusUnavailable { bus: bus.index, cause: error.cause },
            };
            if bus.told.replace(news) != Some(news) {
                self.news.offer(news);
            }
        }
    }

    fn receive(&mut self) {
        let now = clock::now();
        let paused_at = (now.since(self.turned_at) > PAUSE).then_some(self.turned_at);
        self.turned_at = now;
        let Some(socket) = &self.socket else { return };
        for _ in 0..BURST {
            // An error is the network's answer to a question that nobody took: it is asked again.
            let Ok((len, from)) = socket.recv_from(&mut self.buffer) else { break };
            if let Some(bytes) = self.buffer.get(..len) {
                let at = paused_at.unwrap_or_else(clock::now);
                self.node.handle_datagram(at, from.ip().to_canonical(), bytes);
            }
        }
    }

    fn ask(&mut self, now: Instant) {
        let Some(socket) = &self.socket else { return };
        let mut question = [0; QUESTION_BYTES];
        while let Some(len) = self.node.poll_transmit(now, &mut question) {
            if let Some(bytes) = question.get(..len) {
                let _ = socket.send_to(bytes, self.node.settings().feed.address());
            }
        }
    }

    fn publish(&mut self, now: Instant) {
        let car = &self.shared.car;
        car.publish(self.node.sample());
        let (standing, slot) = (self.node.standing(now), self.node.slot());
        car.publish_feed(standing, slot, &self.node.counts());
        self.tell(now, standing, slot);
    }

    fn tell(&mut self, now: Instant, standing: Standing, slot: Option<u8>) {
        if self.told == Some((standing, slot)) {
            if now >= self.tell_at + self.tell_wait {
                (self.tell_wait, self.is_restless) = (TELL_AGAIN, false);
            }
            return;
        }
        // At the start everything is news at once but that nobody has answered yet.
        let is_first = self.told.is_none() && standing != Standing::NoAnswer;
        if now < self.tell_at && !is_first {
            self.is_restless |= self.told.is_some();
            return;
        }
        let age = self.node.sample().map(|sample| now.since(sample.at));
        self.news.offer(CarNews::Standing { standing, slot, age });
        self.told = Some((standing, slot));
        self.tell_wait =
            if self.is_restless { (self.tell_wait * 2).min(TELL_AGAIN_MAX) } else { self.tell_wait };
        (self.tell_at, self.is_restless) = (now + self.tell_wait, false);
    }

    fn send_frames(&mut self, now: Instant) {
        let mut from = 0;
        while let Some((at, bus, frame)) = self.frames.poll(now, from, self.node.sample()) {
            from = at + 1;
            let Some(bus) = self.buses.iter_mut().find(|known| known.index == bus) else { continue };
            let counts = &self.shared.car.frames;
            let Some(port) = &bus.port else {
                counts.refused.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            match port.try_send(&frame) {
                Ok(()) => {
                    counts.sent.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    counts.refused.fetch_add(1, Ordering::Relaxed);
                    if matches!(error, SendError::Gone) {
                        bus.port = None;
                        bus.told = None;
                        self.news.offer(CarNews::BusLost(bus.index));
                    }
                }
            }
        }
    }

    fn wait(&self) {
        let now = clock::now();
        let due = self.frames.poll_timeout(now, self.node.sample()).unwrap_or(now + TURN);
        let until = due.min(self.node.poll_timeout(now)).min(now + TURN);
        let limit = Some(TimeSpec::from_duration(until.since(now)));
        // A signal ends the wait early, which is no harm.
        let _ = match &self.socket {
            Some(socket) => ppoll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], limit, None),
            None => ppoll(&mut [], limit, None),
        };
    }

    fn end(&self) {
        let mut word = [0; QUESTION_BYTES];
        if let (Some(socket), Some(len)) = (&self.socket, self.node.farewell(&mut word))
            && let Some(bytes) = word.get(..len)
        {
            let _ = socket.send_to(bytes, self.node.settings().feed.address());
        }
    }
}

/// The socket for both directions: some servers take questions from exactly the address that they send to.
fn open(feed: &CarFeed) -> io::Result<(UdpSocket, SocketAddr)> {
    let at = match feed {
        CarFeed::Server { listen, .. } => *listen,
        // A game answers where it is asked from.
        CarFeed::Game { game } => match (game.ip().is_loopback(), game.ip()) {
            (true, ip) => SocketAddr::new(ip, 0),
            (false, IpAddr::V4(_)) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            (false, IpAddr::V6(_)) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        },
    };
    let socket = UdpSocket::bind(at)?;
    socket.set_nonblocking(true)?;
    let here = socket.local_addr()?;
    Ok((socket, here))
}
