//! The connection to the Player as a thread drives it: connects, reads, writes, and tells each reason once.
//!
//! Owns the socket and the reconnects. Relies on `nodes::player` for every decision. Never waits: whoever drives it polls
//! [`PlayerLine::poll`] beside whatever else it waits for.

use std::net::SocketAddr;
use std::os::fd::AsFd as _;

use nix::poll::{PollFd, PollFlags};

use crate::io::clock;
use crate::io::tcp::{Connector, LinkError, Progress, Read, TcpLink};
use crate::nodes::player::{PlayerEvent, PlayerNode};
use crate::proto::ocp::player::ClientMessage;
use crate::time::{Duration, Instant};
use crate::topology::station::StationNews;

/// Reasons kept per connection, so that a server that invents them fills neither the memory nor the log.
const REASONS: usize = 16;

/// Reads of one turn: a server that floods must not keep us from sending.
const READS: usize = 8;

/// A session that ends before this has not worked: its server is called again with growing delays, and that it came and
/// went is told once.
const SETTLED: Duration = Duration::from_secs(2);

/// What was told, so that it is told once.
#[derive(Debug, Default)]
struct Told {
    unreachable: Option<LinkError>,
    /// The last connection brought no feedback, or ended at once.
    useless: bool,
    reasons: Vec<String>,
    locked_out: bool,
    oversize: bool,
}

/// One connection to the Player after another.
#[derive(Debug)]
pub struct PlayerLine {
    /// What is known and what is to be sent.
    pub node: PlayerNode,
    connector: Connector,
    link: Option<TcpLink>,
    connections: u64,
    connected_at: Instant,
    /// Feedback before this connection.
    feedback_before: u64,
    told: Told,
}

impl PlayerLine {
    /// A line that is not connected yet.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self::to(&address.ip().to_string(), address.port())
    }

    /// The same, to a host that may be a name: the step that looks it up waits for the resolver.
    #[must_use]
    pub fn to(host: &str, port: u16) -> Self {
        // The seed only spreads the reconnects of several stations; the clock at start is random enough.
        let seed = clock::now().as_nanos();
        Self {
            node: PlayerNode::new(),
            connector: Connector::new(host, port, seed),
            link: None,
            connections: 0,
            connected_at: Instant::ZERO,
            feedback_before: 0,
            told: Told::default(),
        }
    }

    /// Connections so far.
    #[must_use]
    pub const fn connections(&self) -> u64 {
        self.connections
    }

    /// What to wait for, while there is a connection.
    #[must_use]
    pub fn poll(&self) -> Option<PollFd<'_>> {
        let link = self.link.as_ref()?;
        let is_writing = self.node.poll_transmit().is_some();
        let writes = if is_writing { PollFlags::POLLOUT } else { PollFlags::empty() };
        Some(PollFd::new(link.as_fd(), PollFlags::POLLIN | writes))
    }

    /// Goes one step on towards a connection, where there is none.
    pub fn connect(&mut self, tell: &mut dyn FnMut(StationNews)) {
        if self.link.is_some() {
            return;
        }
        match self.connector.step(Duration::ZERO) {
            Progress::Pending => {}
            Progress::Failed(error, _) => {
                // Told once per kind: a server that stays away must not fill the log.
                if self.told.unreachable.replace(error) != Some(error) {
                    tell(StationNews::Lost(error));
                }
            }
            Progress::Connected(link) => {
                self.connected_at = clock::now();
                self.node.handle_connected(self.connected_at);
                self.feedback_before = self.node.counters().feedback;
                self.link = Some(link);
                self.connections += 1;
                self.told.unreachable = None;
                self.told.reasons.clear();
                // A stranger on the port is met again and again: told when the first feedback comes.
                if !self.told.useless {
                    tell(StationNews::Connected);
                }
            }
        }
    }

    /// Reads what the Player says, and writes what is due; `message` composes it, `None` sends nothing.
    pub fn exchange(
        &mut self,
        now: Instant,
        message: &mut dyn FnMut(&PlayerNode) -> Option<ClientMessage>,
        tell: &mut dyn FnMut(StationNews),
    ) {
        let Some(link) = self.link.take() else { return };
        match self.turn(&link, now, message, tell) {
            Ok(()) => self.link = Some(link),
            Err(news) => {
                drop(link);
                self.node.handle_disconnected();
                let has_spoken = self.node.counters().feedback > self.feedback_before;
                let worked = has_spoken && now.since(self.connected_at) >= SETTLED;
                // Told once per kind here too: a stranger on the port is met every few seconds.
                if worked || !self.told.useless {
                    let is_refused = matches!(news, StationNews::Lost(LinkError::Closed | LinkError::Reset));
                    tell(if is_refused && !has_spoken { StationNews::TurnedAway } else { news });
                }
                self.told.useless = !worked;
                self.told.locked_out = false;
                self.connector.session_ended(worked);
            }
        }
    }

    fn turn(
        &mut self,
        link: &TcpLink,
        now: Instant,
        message: &mut dyn FnMut(&PlayerNode) -> Option<ClientMessage>,
        tell: &mut dyn FnMut(StationNews),
    ) -> Result<(), StationNews> {
        for _ in 0..READS {
            let read = link.try_read(self.node.spare()).map_err(StationNews::Lost)?;
            let Read::Bytes(n) = read else { break };
            self.node.commit(n);
            self.take_events(now, tell)?;
        }
        let is_settled = now.since(self.connected_at) >= SETTLED && self.node.due().is_some();
        if is_settled && std::mem::replace(&mut self.told.useless, false) {
            tell(StationNews::Connected);
        }
        if let Some(why) = self.node.handle_timeout(now) {
            return Err(StationNews::GaveUp(why));
        }
        if self.node.is_locked_out(now) && !std::mem::replace(&mut self.told.locked_out, true) {
            tell(StationNews::LockedOut);
        }
        self.write(link)?;
        if self.node.due().is_some_and(|due| due <= now)
            && let Some(message) = message(&self.node)
        {
            if let Err(error) = self.node.send(now, &message)
                && !std::mem::replace(&mut self.told.oversize, true)
            {
                tell(StationNews::Oversize(error.bytes));
            }
            self.write(link)?;
        }
        Ok(())
    }

    fn take_events(&mut self, now: Instant, tell: &mut dyn FnMut(StationNews)) -> Result<(), StationNews> {
        while let Some(event) = self.node.poll_event(now) {
            let news = match event {
                PlayerEvent::Feedback => continue,
                PlayerEvent::Invalid(error) => StationNews::Invalid(error),
                PlayerEvent::Empty => StationNews::Empty,
                PlayerEvent::Unusable(name, error) => StationNews::Unusable(name, error),
                PlayerEvent::GiveUp(why) => return Err(StationNews::GaveUp(why)),
            };
            let reason = format!("{news:?}");
            if self.told.reasons.len() < REASONS && !self.told.reasons.contains(&reason) {
                self.told.reasons.push(reason);
                tell(news);
            }
        }
        Ok(())
    }

    fn write(&mut self, link: &TcpLink) -> Result<(), StationNews> {
        if let Some(bytes) = self.node.poll_transmit() {
            let written = link.try_write(bytes).map_err(StationNews::Lost)?;
            self.node.handle_written(written);
        }
        Ok(())
    }

    /// Goes on writing; false once there is nothing left that could leave.
    pub fn flush(&mut self) -> bool {
        let Some(link) = self.link.take() else { return false };
        let is_open = self.write(&link).is_ok();
        self.link = Some(link);
        is_open && self.node.poll_transmit().is_some()
    }
}
