//! TCP connections that never hold a thread.
//!
//! Owns connecting in short steps, reading with a short limit and writing without waiting. Relies on nix. Never knows
//! what the bytes mean, and never takes a write for a proof that the peer has it.

use core::fmt;
use core::time::Duration;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, connect, getsockopt, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;

use super::backoff::Backoff;
use super::{clock, sys};
use crate::time::Instant;

/// Longest wait of one call: below the 50 ms after which a thread counts as stuck.
pub const TURN: Duration = Duration::from_millis(20);

/// Receive timeout of a connection. The kernel rounds it up to its tick, and adds one (up to 10 ms each): it stays
/// about [`TURN`].
const READ_WAIT: Duration = Duration::from_millis(15);

/// After this without an acknowledgement from the peer's kernel the connection is dead (SAFETY section 4.5). It only
/// frees the socket; the protocol's own timers have acted long before.
const USER_TIMEOUT_MS: u32 = 1_000;

/// An attempt to connect that takes longer has failed.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// The connection has ended. Consequence of each: the session is over and a new one is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkError {
    /// The peer closed it in order.
    Closed,
    /// The peer or its kernel cut it (reset, refused).
    Reset,
    /// The peer's machine did not answer in time.
    TimedOut,
    /// Closed by us: what the peer sends is not OCP.
    Nonsense,
    /// Closed by us: the peer sent no message for too long. It may be another program, or a machine that has gone
    /// without a word.
    Silent,
    /// Any other errno.
    Io(i32),
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed by the peer"),
            Self::Reset => f.write_str("refused or reset by the peer"),
            Self::TimedOut => f.write_str("no answer from the peer's machine"),
            Self::Nonsense => f.write_str("this is not OCP (another program on that port?)"),
            Self::Silent => f.write_str("connected, but no message comes (another program on that port?)"),
            Self::Io(errno) => f.write_str(Errno::from_raw(*errno).desc()),
        }
    }
}

impl core::error::Error for LinkError {}

impl From<Errno> for LinkError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::EPIPE | Errno::ECONNRESET | Errno::ECONNREFUSED | Errno::ECONNABORTED => Self::Reset,
            Errno::ETIMEDOUT => Self::TimedOut,
            other => Self::Io(other as i32), // an errno is a small int by definition
        }
    }
}

/// What a read brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// That many bytes, at least one.
    Bytes(usize),
    /// Nothing in time.
    Nothing,
}

/// An established connection.
#[derive(Debug)]
pub struct TcpLink {
    stream: TcpStream,
}

impl TcpLink {
    /// Sets up a connected stream: no delay of small writes, short reads, dead peers found.
    fn new(stream: TcpStream) -> Result<Self, Errno> {
        let errno = |e: std::io::Error| Errno::from_raw(e.raw_os_error().unwrap_or(0));
        stream.set_nonblocking(false).map_err(errno)?;
        stream.set_nodelay(true).map_err(errno)?;
        stream.set_read_timeout(Some(READ_WAIT)).map_err(errno)?;
        setsockopt(&stream, sockopt::TcpUserTimeout, &USER_TIMEOUT_MS)?;
        Ok(Self { stream })
    }

    /// Reads what is there, or waits about [`TURN`] for it.
    ///
    /// # Errors
    /// [`LinkError`]: the connection has ended.
    pub fn read(&self, buffer: &mut [u8]) -> Result<Read, LinkError> {
        self.receive(buffer, MsgFlags::empty())
    }

    /// Reads what is there, without waiting.
    ///
    /// # Errors
    /// [`LinkError`]: the connection has ended.
    pub fn try_read(&self, buffer: &mut [u8]) -> Result<Read, LinkError> {
        self.receive(buffer, MsgFlags::MSG_DONTWAIT)
    }

    fn receive(&self, buffer: &mut [u8], flags: MsgFlags) -> Result<Read, LinkError> {
        if buffer.is_empty() {
            return Ok(Read::Nothing); // zero bytes would read as the end of the stream
        }
        match recv(self.stream.as_raw_fd(), buffer, flags) {
            Ok(0) => Err(LinkError::Closed),
            Ok(n) => Ok(Read::Bytes(n)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Read::Nothing),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Writes what fits without waiting; how much was taken comes back, 0 where nothing fits.
    ///
    /// # Errors
    /// [`LinkError`]: the connection has ended.
    pub fn try_write(&self, bytes: &[u8]) -> Result<usize, LinkError> {
        self.transmit(bytes, MsgFlags::empty())
    }

    fn transmit(&self, bytes: &[u8], flags: MsgFlags) -> Result<usize, LinkError> {
        if bytes.is_empty() {
            return Ok(0);
        }
        match send(self.stream.as_raw_fd(), bytes, flags | MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
            Ok(n) => Ok(n),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            // The kernel's word for a peer that had closed in order before it refused these bytes.
            Err(Errno::EPIPE) => Err(LinkError::Closed),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sets the connection up as one end of a tunnel: what cannot leave at once stays with the caller, and a peer that has
    /// gone without a word is found after `silence`, whether bytes are under way or not.
    ///
    /// # Errors
    /// [`LinkError`]: the options cannot be set, so the connection is of no use.
    pub fn set_up_tunnel(&self, silence: Duration) -> Result<(), LinkError> {
        // Four probes in that time; whole seconds, at least one, are what the kernel takes.
        let step_s = u32::try_from(silence.as_secs() / 5).unwrap_or(1).max(1);
        let user_ms = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX).max(1);
        setsockopt(&self.stream, sockopt::KeepAlive, &true)?;
        setsockopt(&self.stream, sockopt::TcpKeepIdle, &step_s)?;
        setsockopt(&self.stream, sockopt::TcpKeepInterval, &step_s)?;
        setsockopt(&self.stream, sockopt::TcpKeepCount, &4)?;
        setsockopt(&self.stream, sockopt::TcpUserTimeout, &user_ms)?;
        // One byte: writable when nothing is unsent.
        sys::set_unsent_limit(self.stream.as_fd(), 1)?;
        Ok(())
    }

    /// Writes what fits without waiting, marked as a whole (`MSG_EOR`): the kernel never puts the next write into the
    /// same segment. How much was taken comes back, 0 where nothing fits.
    ///
    /// # Errors
    /// [`LinkError`]: the connection has ended.
    pub fn try_write_whole(&self, bytes: &[u8]) -> Result<usize, LinkError> {
        self.transmit(bytes, MsgFlags::MSG_EOR)
    }

    /// Payload of one segment in bytes, as of now; it changes with the path.
    #[must_use]
    pub fn segment_bytes(&self) -> Option<usize> {
        getsockopt(&self.stream, sockopt::TcpMaxSeg).ok().and_then(|bytes| usize::try_from(bytes).ok())
    }

    /// Bytes that were written and not yet acknowledged by the peer's kernel.
    ///
    /// # Errors
    /// [`LinkError`]: the connection has ended.
    pub fn unacknowledged(&self) -> Result<usize, LinkError> {
        sys::unacknowledged(self.stream.as_fd()).map_err(LinkError::from)
    }

    /// Bytes that have come and were not read yet.
    ///
    /// # Errors
    /// [`LinkError`]: the connection has ended.
    pub fn unread(&self) -> Result<usize, LinkError> {
        sys::unread(self.stream.as_fd()).map_err(LinkError::from)
    }

    /// Makes the next close a reset: the peer sees the connection cut, and what is unsent is lost.
    pub fn reset_on_close(&self) {
        // Where it cannot be set the peer sees an orderly end instead.
        let _ = setsockopt(&self.stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
    }

    /// The other end, where it is still known.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.stream.peer_addr().ok()
    }
}

impl AsFd for TcpLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Where a connector stands after a step.
#[derive(Debug)]
pub enum Progress {
    /// Nothing yet; call again.
    Pending,
    /// Connected. The connector rests until it is used for the next connection.
    Connected(TcpLink),
    /// This attempt has failed; the next follows after the delay.
    Failed(LinkError, Duration),
}

/// Connects, and connects again, with growing delays.
#[derive(Debug)]
pub struct Connector {
    host: String,
    port: u16,
    addresses: Vec<SocketAddr>,
    turn: usize,
    backoff: Backoff,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Not before then.
    Resting(Instant),
    /// An attempt runs since then.
    Connecting(OwnedFd, Instant),
}

impl Connector {
    /// Connects to `host`, an IP address or a name, at `port`; the first attempt is made at once.
    #[must_use]
    pub fn new(host: &str, port: u16, seed: u64) -> Self {
        Self {
            host: host.to_owned(),
            port,
            addresses: Vec::new(),
            turn: 0,
            backoff: Backoff::new(seed),
            state: State::Resting(Instant::ZERO),
        }
    }

    /// Goes one step on; waits `wait` at most, and [`TURN`] at most.
    ///
    /// Where the host is a name, the step that looks it up (the first, and each one after all its addresses have
    /// failed) waits for the resolver instead, which can take seconds. An IP address never waits.
    pub fn step(&mut self, wait: Duration) -> Progress {
        let wait = wait.min(TURN);
        let now = clock::now();
        match &self.state {
            State::Resting(until) if *until > now => {
                std::thread::sleep(until.since(now).min(wait));
                Progress::Pending
            }
            State::Resting(_) => self.begin(now),
            State::Connecting(..) => self.go_on(wait),
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
    fn begin(&mut self, now: Instant) -> Progress {
        if self.turn >= self.addresses.len() {
            self.turn = 0;
            match resolve(&self.host, self.port) {
                Ok(addresses) if !addresses.is_empty() => self.addresses = addresses,
                Ok(_) => return self.failed(LinkError::Io(Errno::ENODATA as i32)),
                Err(e) => {
                    self.addresses.clear();
                    return self
                        .failed(LinkError::Io(e.raw_os_error().unwrap_or(Errno::EHOSTUNREACH as i32)));
                }
            }
        }
        let Some(address) = self.addresses.get(self.turn).copied() else { return Progress::Pending };
        self.turn += 1;
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let attempt = socket(family, SockType::Stream, flags, None).and_then(|fd| {
            match connect(fd.as_raw_fd(), &SockaddrStorage::from(address)) {
                Ok(()) | Err(Errno::EINPROGRESS) => Ok(fd),
                Err(errno) => Err(errno),
            }
        });
        match attempt {
            Ok(fd) => {
                self.state = State::Connecting(fd, now);
                Progress::Pending
            }
            Err(errno) => self.failed(errno.into()),
        }
    }

    /// Looks after the running attempt.
    fn go_on(&mut self, wait: Duration) -> Progress {
        let State::Connecting(fd, since) = &self.state else { return Progress::Pending };
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
        let State::Connecting(fd, _) = core::mem::replace(&mut self.state, rest) else {
            return Progress::Pending;
        };
        match outcome.and_then(|()| TcpLink::new(TcpStream::from(fd)).map_err(LinkError::from)) {
            Ok(link) => {
                self.turn = self.turn.saturating_sub(1); // the address that works is tried first the next time
                // Also for a caller that does not say how the session ended: what accepts and closes at once must not
                // be called at full speed.
                self.state = State::Resting(clock::now() + self.backoff.next_delay());
                Progress::Connected(link)
            }
            Err(error) => self.failed(error),
        }
    }

    /// Rests after a failure.
    fn failed(&mut self, error: LinkError) -> Progress {
        let delay = self.backoff.next_delay();
        self.state = State::Resting(clock::now() + delay);
        Progress::Failed(error, delay)
    }
}

/// Looks a host up. Waits for the resolver unless `host` is an IP address.
fn resolve(host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    (host, port).to_socket_addrs().map(Iterator::collect)
}

/// A listening socket for simulators and servers.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
}

impl Listener {
    /// Listens at this address; port 0 takes a free one.
    ///
    /// # Errors
    /// The error of the system (address in use, not permitted).
    pub fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let inner = TcpListener::bind(address)?;
        inner.set_nonblocking(true)?;
        Ok(Self { inner })
    }

    /// The address that it listens at.
    ///
    /// # Errors
    /// The error of the system.
    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// Takes the next connection, waiting up to `wait` for it. A connection that broke before it was taken is none.
    #[must_use]
    pub fn accept(&self, wait: Duration) -> Option<(TcpLink, SocketAddr)> {
        let mut fds = [PollFd::new(self.inner.as_fd(), PollFlags::POLLIN)];
        if !matches!(ppoll(&mut fds, Some(TimeSpec::from_duration(wait)), None), Ok(n) if n > 0) {
            return None;
        }
        let (stream, peer) = self.inner.accept().ok()?;
        TcpLink::new(stream).ok().map(|link| (link, peer))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than any step takes on a loaded machine.
    const PATIENCE: Duration = Duration::from_secs(10);

    fn listener() -> (Listener, u16) {
        let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let port = listener.local_address().unwrap().port();
        (listener, port)
    }

    fn connected(connector: &mut Connector) -> TcpLink {
        let deadline = clock::now() + PATIENCE;
        while clock::now() < deadline {
            if let Progress::Connected(link) = connector.step(TURN) {
                return link;
            }
        }
        panic!("not connected within {PATIENCE:?}");
    }

    /// Both ends of a connection.
    fn pair() -> (TcpLink, TcpLink) {
        let (listener, port) = listener();
        let client = connected(&mut Connector::new("127.0.0.1", port, 1));
        let (server, _) = listener.accept(PATIENCE).unwrap();
        (client, server)
    }

    /// Reads until something else than silence.
    fn read(link: &TcpLink, buffer: &mut [u8]) -> Result<usize, LinkError> {
        let deadline = clock::now() + PATIENCE;
        while clock::now() < deadline {
            if let Read::Bytes(n) = link.read(buffer)? {
                return Ok(n);
            }
        }
        panic!("nothing within {PATIENCE:?}");
    }

    #[test]
    fn bytes_travel_both_ways_and_silence_is_not_an_end() {
        let (client, server) = pair();
        let mut buffer = [0; 16];
        assert_eq!(client.read(&mut buffer), Ok(Read::Nothing));
        assert_eq!(client.try_read(&mut buffer), Ok(Read::Nothing));
        assert_eq!(client.read(&mut []), Ok(Read::Nothing));
        assert_eq!(client.try_write(b"hello"), Ok(5));
        assert_eq!(read(&server, &mut buffer), Ok(5));
        assert_eq!(&buffer[..5], b"hello");
        drop(server);
        assert_eq!(read(&client, &mut buffer), Err(LinkError::Closed));
    }

    #[test]
    fn a_reset_is_told_from_an_orderly_end() {
        let (client, server) = pair();
        server.reset_on_close();
        drop(server);
        assert_eq!(read(&client, &mut [0; 16]), Err(LinkError::Reset));
    }

    #[test]
    fn a_peer_that_does_not_read_never_holds_the_writer() {
        let (client, server) = pair();
        let chunk = [0xa5; 65_536];
        let mut taken = 0;
        while let Ok(n @ 1..) = client.try_write(&chunk) {
            taken += n;
            assert!(taken < 1 << 30, "the buffers never fill");
        }
        assert_eq!(client.try_write(&chunk), Ok(0));
        drop(server);
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
        assert!(matches!(
            Connector::new("no such host", port, 3).step(TURN),
            Progress::Failed(LinkError::Io(_), _)
        ));
    }
}
