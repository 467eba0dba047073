//! An RCSP client that waits: connects, asks, and is told of events.
//!
//! Owns the socket and every wait. Relies on `nodes::rcsp_client` for what the bytes mean. Never waits longer than its
//! limits say, and never uses a connection again on which an answer is overdue.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use serde_json::value::RawValue;

use crate::io::clock;
use crate::io::tcp::{Connector, LinkError, Progress, Read, TURN, TcpLink};
use crate::nodes::rcsp_client::{
    ClientNode, Device, DeviceId, Event, ProtocolError, RemoteError, Unusable, devices,
};
use crate::time::{Duration, Instant};

/// Connecting and each command have this long, as in the vendor's example.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest single wait: a request to stop is noticed within this.
const LOOK: Duration = Duration::from_millis(100);

/// A peer that has gone without a word is found after this. The protocol has no sign of life, so the kernel asks.
const SILENCE: Duration = Duration::from_secs(10);

/// Bytes of one read, and of one turn: events are taken between two turns, and [`EVENTS`](crate::nodes::rcsp_client::EVENTS)
/// has room for those of one.
const READ: usize = 64 << 10;

/// How long a client waits, and what makes it stop.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// For the connection: name, every address of it, and the handshake.
    pub connect_timeout: Duration,
    /// For the answer to each command.
    pub command_timeout: Duration,
    /// Ends every wait once it is set.
    pub stop: Option<Arc<AtomicBool>>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { connect_timeout: TIMEOUT, command_timeout: TIMEOUT, stop: None }
    }
}

/// Why there is no answer. Consequence of all but [`ClientError::Refused`]: the connection is of no more use.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientError {
    /// No connection came about.
    Unreachable(LinkError),
    /// No answer in time.
    TimedOut(Duration),
    /// The connection has ended.
    Lost(LinkError),
    /// The server breaks the protocol.
    Protocol(ProtocolError),
    /// The server answers with an error.
    Refused(RemoteError),
    /// The same, and the server will hear no more on this connection.
    TurnedAway(RemoteError),
    /// Too many commands wait for their answers.
    Full,
    /// The wait was ended from outside.
    Stopped,
}

impl std::fmt::Display for ClientError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(error) => write!(f, "cannot connect: {error}"),
            Self::TimedOut(limit) => write!(f, "no answer within {} ms", limit.as_millis()),
            Self::Lost(error) => write!(f, "connection lost: {error}"),
            Self::Protocol(error) => write!(f, "the server breaks the protocol: {error}"),
            Self::Refused(error) | Self::TurnedAway(error) => write!(f, "{error}"),
            Self::Full => f.write_str("too many commands wait for their answers"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

impl std::error::Error for ClientError {}

/// One connection to a server.
#[derive(Debug)]
pub struct RcspClient {
    link: TcpLink,
    node: ClientNode,
    options: ClientOptions,
    buffer: Vec<u8>,
    /// A write has failed; what the server said before is still read.
    unwritable: Option<LinkError>,
    lost: Option<LinkError>,
}

impl RcspClient {
    /// Connects to `host`, an address or a name of which every address is tried.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], or [`ClientError::Stopped`].
    pub fn connect(host: &str, port: u16, options: ClientOptions) -> Result<Self, ClientError> {
        let until = clock::now() + options.connect_timeout;
        // The seed spreads reconnects; one attempt has none.
        let mut connector = Connector::new(host, port, 0);
        let mut error = LinkError::TimedOut;
        loop {
            if is_stopped(&options) {
                return Err(ClientError::Stopped);
            }
            let left = until.since(clock::now());
            if left.is_zero() {
                return Err(ClientError::Unreachable(error));
            }
            match connector.step(left.min(TURN)) {
                Progress::Pending => {}
                // The first packet may have been lost: called again, as long as there is time.
                Progress::Failed(LinkError::TimedOut, _) => error = LinkError::TimedOut,
                Progress::Failed(error, _) => return Err(ClientError::Unreachable(error)),
                Progress::Connected(link) => {
                    link.set_up_tunnel(SILENCE).map_err(ClientError::Unreachable)?;
                    return Ok(Self {
                        link,
                        node: ClientNode::new(options.command_timeout),
                        options,
                        buffer: vec![0; READ],
                        unwritable: None,
                        lost: None,
                    });
                }
            }
        }
    }

    /// The devices of the server, in its order.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn list(&mut self) -> Result<Vec<Device>, ClientError> {
        let response = self.call("ListDevices", None)?;
        devices(response.as_deref()).map_err(|error| ClientError::Protocol(ProtocolError::List(error)))
    }

    /// What the server tells of a device; `None` where it has nothing to tell.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn info(&mut self, device: &DeviceId) -> Result<Option<Box<RawValue>>, ClientError> {
        self.call("GetDeviceInfo", Some(&device.arguments(&[])))
    }

    /// Sends a command and waits for its answer: the `Response` as it was written, `None` where it is absent or `null`.
    /// Events that come meanwhile are kept for [`RcspClient::next_event`].
    ///
    /// # Errors
    /// [`ClientError`]. After [`ClientError::Refused`] the connection goes on; after each other one every call fails.
    pub fn call(
        &mut self,
        command: &str,
        arguments: Option<&RawValue>,
    ) -> Result<Option<Box<RawValue>>, ClientError> {
        self.check()?;
        let ticket = self.node.command(clock::now(), command, arguments).map_err(|why| self.unusable(why))?;
        loop {
            while let Some(answer) = self.node.poll_answer() {
                // An earlier one belongs to a call that was stopped.
                if answer.ticket == ticket {
                    return answer.result.map_err(ClientError::Refused);
                }
            }
            self.check()?;
            let due = self.node.due().unwrap_or_else(clock::now);
            self.exchange(due);
        }
    }

    /// Waits until `deadline` for the next event of what was subscribed to; `None` when none came.
    ///
    /// # Errors
    /// [`ClientError`], after the events that came before it.
    pub fn next_event(&mut self, deadline: Instant) -> Result<Option<Event>, ClientError> {
        loop {
            if let Some(event) = self.node.poll_event() {
                return Ok(Some(event));
            }
            self.check()?;
            if clock::now() >= deadline {
                return Ok(None);
            }
            self.exchange(deadline);
        }
    }

    /// Events that were dropped because nobody took them in time.
    #[must_use]
    pub const fn events_dropped(&self) -> u64 {
        self.node.events_dropped()
    }

    /// Whether the connection can still be used.
    fn check(&mut self) -> Result<(), ClientError> {
        self.node.handle_timeout(clock::now());
        if let Some(why) = self.node.unusable() {
            return Err(self.unusable(why.clone()));
        }
        if let Some(error) = self.lost {
            return Err(ClientError::Lost(error));
        }
        if is_stopped(&self.options) { Err(ClientError::Stopped) } else { Ok(()) }
    }

    fn unusable(&self, why: Unusable) -> ClientError {
        match why {
            Unusable::Protocol(error) => ClientError::Protocol(error),
            Unusable::TimedOut => ClientError::TimedOut(self.options.command_timeout),
            Unusable::TurnedAway(error) => ClientError::TurnedAway(error),
            Unusable::Full => ClientError::Full,
        }
    }

    /// Writes what waits and reads what has come, waiting for either until then at most.
    fn exchange(&mut self, until: Instant) {
        if self.unwritable.is_none()
            && let Some(bytes) = self.node.poll_transmit()
        {
            match self.link.try_write(bytes) {
                Ok(written) => self.node.handle_written(written),
                Err(error) => self.unwritable = Some(error),
            }
        }
        let is_writing = self.unwritable.is_none() && self.node.poll_transmit().is_some();
        let writes = if is_writing { PollFlags::POLLOUT } else { PollFlags::empty() };
        let wait = until.since(clock::now()).min(LOOK);
        let mut fds = [PollFd::new(self.link.as_fd(), PollFlags::POLLIN | writes)];
        // An interrupt, or an error that the read will meet as well.
        let _ = ppoll(&mut fds, Some(TimeSpec::from_duration(wait)), None);
        match self.link.try_read(&mut self.buffer) {
            Ok(Read::Bytes(n)) => self.node.handle_bytes(self.buffer.get(..n).unwrap_or_default()),
            Ok(Read::Nothing) => self.lost = self.lost.or(self.unwritable),
            Err(error) => self.lost = Some(error),
        }
    }
}

fn is_stopped(options: &ClientOptions) -> bool {
    options.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed))
}
