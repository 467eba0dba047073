//! Connecting to a host, again and again, in short steps.
//!
//! Owns the order of the host's addresses and the delays between attempts. Relies on the connection of the room above and
//! on a thread of its own for the resolver, which may take as long as it likes. Never holds its caller.

use core::time::Duration;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;

use super::{LinkError, TURN, TcpLink};
use crate::io::backoff::Backoff;
use crate::io::clock;
use crate::time::Instant;

/// A call to one address that takes longer has failed.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

impl LinkError {
    /// How far a call came that ended so. Of a host's addresses the one that came farthest tells most: a refusal says that
    /// the machine is there, a missing route to another address of it says nothing.
    const fn reach(self) -> u8 {
        match self {
            Self::Reset | Self::Itself => 2,
            Self::TimedOut => 1,
            _ => 0,
        }
    }
}

/// Where a connector stands after a step.
#[derive(Debug)]
pub enum Progress {
    /// Nothing yet; call again.
    Pending,
    /// Connected. The connector rests until it is used for the next connection.
    Connected(TcpLink),
    /// No address of the host could be reached; the next attempt follows after the delay.
    Failed(LinkError, Duration),
}

/// Connects, and connects again, with growing delays. An attempt tries every address that the host has.
#[derive(Debug)]
pub struct Connector {
    host: String,
    port: u16,
    /// Of the host, the one that worked last in front; none before they were looked up.
    addresses: Vec<SocketAddr>,
    /// How many of them this attempt has tried.
    tried: usize,
    /// Of those that failed in this attempt, the one that came farthest.
    error: Option<LinkError>,
    backoff: Backoff,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Not before then.
    Resting(Instant),
    /// The host's name is looked up; the answer comes from there.
    LookingUp(Receiver<std::io::Result<Vec<SocketAddr>>>),
    /// An address is called since then.
    Calling(OwnedFd, Instant),
}

impl Connector {
    /// Connects to `host`, an IP address or a name, at `port`; the first attempt is made at once.
    #[must_use]
    pub fn new(host: &str, port: u16, seed: u64) -> Self {
        Self {
            host: host.to_owned(),
            port,
            addresses: Vec::new(),
            tried: 0,
            error: None,
            backoff: Backoff::new(seed),
            state: State::Resting(Instant::ZERO),
        }
    }

    /// Goes one step on; waits `wait` at most, and [`TURN`] at most.
    ///
    /// A name is looked up by a thread of its own, before the first attempt and after each one in which all addresses have
    /// failed: a resolver can take many seconds, and the caller has a stop request to notice.
    pub fn step(&mut self, wait: Duration) -> Progress {
        let wait = wait.min(TURN);
        let now = clock::now();
        match &self.state {
            State::Resting(until) if *until > now => {
                std::thread::sleep(until.since(now).min(wait));
                Progress::Pending
            }
            State::Resting(_) => self.begin(),
            State::LookingUp(answer) => match answer.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) => Progress::Pending,
                Ok(Ok(addresses)) => {
                    self.addresses = addresses;
                    self.call_next()
                }
                Ok(Err(error)) => self.failed(unknown_host(&error)),
                // The thread has ended without an answer.
                Err(RecvTimeoutError::Disconnected) => self.failed(LinkError::Io(Errno::EHOSTUNREACH as i32)),
            },
            State::Calling(..) => self.go_on(wait),
        }
    }

    /// The session on the last connection has ended: rests before the next attempt, 100 ms where the session had
    /// `worked`, longer after each one that had not.
    pub fn session_ended(&mut self, worked: bool) {
        if worked {
            self.backoff.reset();
        }
        self.state = State::Resting(clock::now() + self.backoff.next_delay());
    }

    /// Starts an attempt.
    fn begin(&mut self) -> Progress {
        (self.tried, self.error) = (0, None);
        if !self.addresses.is_empty() {
            return self.call_next();
        }
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            self.addresses = vec![SocketAddr::new(ip, self.port)];
            return self.call_next();
        }
        let (answer, receiver) = channel();
        let (host, port) = (self.host.clone(), self.port);
        let look_up = move || {
            // Nobody waits for it any more: that is all right.
            let _ = answer.send((host.as_str(), port).to_socket_addrs().map(Iterator::collect));
        };
        match std::thread::Builder::new().name("resolver".to_owned()).spawn(look_up) {
            Ok(_) => {
                self.state = State::LookingUp(receiver);
                Progress::Pending
            }
            Err(error) => self.failed(unknown_host(&error)),
        }
    }

    /// Calls the next address of this attempt; the attempt has failed where there is none left.
    fn call_next(&mut self) -> Progress {
        while let Some(address) = self.addresses.get(self.tried).copied() {
            self.tried += 1;
            match call(address) {
                Ok(fd) => {
                    self.state = State::Calling(fd, clock::now());
                    return Progress::Pending;
                }
                Err(errno) => self.note(errno.into()),
            }
        }
        // The name may mean other addresses by now.
        self.addresses.clear();
        self.failed(self.error.unwrap_or(LinkError::Io(Errno::ENODATA as i32)))
    }

    /// Looks after the running call.
    fn go_on(&mut self, wait: Duration) -> Progress {
        let State::Calling(fd, since) = &self.state else { return Progress::Pending };
        let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
        let ready = matches!(ppoll(&mut fds, Some(TimeSpec::from_duration(wait)), None), Ok(n) if n > 0);
        let outcome = if ready {
            match getsockopt(fd, sockopt::SocketError) {
                Ok(0) => Ok(()),
                Ok(errno) => Err(Errno::from_raw(errno).into()),
                Err(errno) => Err(errno.into()),
            }
        } else if clock::now().since(*since) > CONNECT_LIMIT {
            Err(LinkError::TimedOut)
        } else {
            return Progress::Pending;
        };
        let rest = State::Resting(Instant::ZERO);
        let State::Calling(fd, _) = core::mem::replace(&mut self.state, rest) else {
            return Progress::Pending;
        };
        match outcome.and_then(|()| established(fd)) {
            Ok(link) => {
                // The address that works is tried first the next time.
                let worked = self.tried.saturating_sub(1).min(self.addresses.len());
                self.addresses.rotate_left(worked);
                // Also for a caller that does not say how the session ended: what accepts and closes at once must not
                // be called at full speed.
                self.state = State::Resting(clock::now() + self.backoff.next_delay());
                Progress::Connected(link)
            }
            Err(error) => {
                self.note(error);
                self.call_next()
            }
        }
    }

    /// An address of this attempt has failed.
    fn note(&mut self, error: LinkError) {
        if self.error.is_none_or(|before| error.reach() > before.reach()) {
            self.error = Some(error);
        }
    }

    /// Rests after an attempt that has failed.
    fn failed(&mut self, error: LinkError) -> Progress {
        let delay = self.backoff.next_delay();
        self.state = State::Resting(clock::now() + delay);
        Progress::Failed(error, delay)
    }
}

/// Starts a call.
fn call(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Stream, flags, None)?;
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(fd),
        Err(errno) => Err(errno),
    }
}

/// Takes a call that was answered. A call to a port of this machine at which nobody listens can be given that very port as
/// its own, and TCP connects it with itself: what it sends would come back.
fn established(fd: OwnedFd) -> Result<TcpLink, LinkError> {
    let link = TcpLink::new(TcpStream::from(fd))?;
    if link.stream.local_addr().is_ok_and(|own| link.peer() == Some(own)) {
        // An orderly end would keep the port from its server for a minute.
        link.reset_on_close();
        return Err(LinkError::Itself);
    }
    Ok(link)
}

/// Why a name was not found.
fn unknown_host(error: &std::io::Error) -> LinkError {
    LinkError::Io(error.raw_os_error().unwrap_or(Errno::EHOSTUNREACH as i32))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{PATIENCE, connected, listener};
    use super::*;
    use crate::io::tcp::Listener;

    /// The end of an attempt that fails.
    fn failure(connector: &mut Connector) -> LinkError {
        let deadline = clock::now() + PATIENCE;
        while clock::now() < deadline {
            match connector.step(TURN) {
                Progress::Pending => {}
                Progress::Failed(error, _) => return error,
                Progress::Connected(link) => panic!("connected to {:?}", link.peer()),
            }
        }
        panic!("no end within {PATIENCE:?}");
    }

    #[test]
    fn a_refused_connection_is_tried_again_until_it_works() {
        let (first, port) = listener();
        drop(first);
        let mut connector = Connector::new("127.0.0.1", port, 7);
        let deadline = clock::now() + PATIENCE;
        let mut failures = 0;
        while failures < 2 {
            assert!(clock::now() < deadline);
            let before = clock::now();
            if let Progress::Failed(error, delay) = connector.step(TURN) {
                assert_eq!(error, LinkError::Reset);
                assert!(delay >= Duration::from_millis(100) && delay <= Duration::from_secs(2));
                failures += 1;
            }
            let took = clock::now().since(before);
            assert!(took < Duration::from_secs(1), "one step took {took:?}");
        }
        let again = Listener::bind(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
        let _link = connected(&mut connector);
        assert!(again.accept(PATIENCE).is_some());
    }

    #[test]
    fn a_lost_session_is_followed_by_a_rest() {
        let (listener, port) = listener();
        let mut connector = Connector::new("127.0.0.1", port, 5);
        for _ in 0..2 {
            let link = connected(&mut connector);
            assert!(listener.accept(PATIENCE).is_some());
            drop(link);
            let ended = clock::now();
            connector.session_ended(true);
            let link = connected(&mut connector);
            assert!(clock::now().since(ended) >= Duration::from_millis(100));
            assert!(listener.accept(PATIENCE).is_some());
            drop(link);
            connector.session_ended(false);
        }
    }

    #[test]
    fn a_name_is_looked_up() {
        let (listener, port) = listener();
        let link = connected(&mut Connector::new("localhost", port, 3));
        assert!(link.peer().is_some());
        assert!(listener.accept(PATIENCE).is_some());
        assert!(matches!(failure(&mut Connector::new("no such host", port, 3)), LinkError::Io(_)));
    }

    #[test]
    fn an_attempt_tries_every_address_and_tells_of_the_one_that_came_farthest() {
        let (listener, port) = listener();
        let (dead, dead_port) = super::super::tests::listener();
        drop(dead);
        let at = |text: &str, port| SocketAddr::new(text.parse().unwrap(), port);
        // As a name has them: IPv6 first, where nobody listens; and one that this machine cannot even call.
        let refused = at("127.0.0.1", dead_port);
        let unreachable = at("255.255.255.255", port);
        let mut connector = Connector::new("a.name", port, 11);
        connector.addresses = vec![unreachable, refused, at("127.0.0.1", port)];
        let link = connected(&mut connector);
        assert_eq!(link.peer(), Some(at("127.0.0.1", port)));
        assert_eq!(connector.addresses[0], at("127.0.0.1", port), "first the next time");
        assert!(listener.accept(PATIENCE).is_some());
        for addresses in [vec![refused, unreachable], vec![unreachable, refused]] {
            let mut connector = Connector::new("127.0.0.1", dead_port, 12);
            connector.addresses = addresses;
            assert_eq!(failure(&mut connector), LinkError::Reset);
        }
    }

    #[test]
    fn a_call_that_meets_itself_is_refused_and_its_port_is_free_at_once() {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        nix::sys::socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
        let own: SockaddrStorage = nix::sys::socket::getsockname(fd.as_raw_fd()).unwrap();
        connect(fd.as_raw_fd(), &own).unwrap();
        let own = SocketAddr::from(([127, 0, 0, 1], own.as_sockaddr_in().unwrap().port()));
        let mut connector = Connector::new("127.0.0.1", own.port(), 13);
        connector.addresses = vec![own];
        connector.tried = 1;
        connector.state = State::Calling(fd, clock::now());
        assert_eq!(failure(&mut connector), LinkError::Itself);
        Listener::bind(own).unwrap();
    }

    #[test]
    fn a_resolver_that_takes_its_time_holds_no_step() {
        let (answer, receiver) = channel();
        let (listener, port) = listener();
        let mut connector = Connector::new("a.name", port, 17);
        connector.state = State::LookingUp(receiver);
        for _ in 0..5 {
            assert!(matches!(connector.step(TURN), Progress::Pending));
        }
        answer.send(Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])).unwrap();
        connected(&mut connector);
        assert!(listener.accept(PATIENCE).is_some());
        // It ends without a word.
        let (answer, receiver) = channel();
        connector.state = State::LookingUp(receiver);
        drop(answer);
        assert!(matches!(failure(&mut connector), LinkError::Io(_)));
    }
}
