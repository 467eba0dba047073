//! TCP connections that never hold a thread.
//!
//! Owns connecting in short steps ([`connect`]), reading with a short limit and writing without waiting. Relies on nix.
//! Never knows what the bytes mean, and never takes a write for a proof that the peer has it.

mod connect;

use core::fmt;
use core::time::Duration;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{MsgFlags, Shutdown, getsockopt, recv, send, setsockopt, shutdown, sockopt};
use nix::sys::time::TimeSpec;

pub use self::connect::{Connector, Progress};
use super::sys;

/// Longest wait of one call: below the 50 ms after which a thread counts as stuck.
pub const TURN: Duration = Duration::from_millis(20);

/// Receive timeout of a connection. The kernel rounds it up to its tick, and adds one (up to 10 ms each): it stays
/// about [`TURN`].
const READ_WAIT: Duration = Duration::from_millis(15);

/// After this without an acknowledgement from the peer's kernel the connection is dead (SAFETY section 4.5). It only
/// frees the socket; the protocol's own timers have acted long before.
const USER_TIMEOUT_MS: u32 = 1_000;

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
    /// Nobody listens at that port, and the kernel had lent it to this very call: both ends were ours.
    Itself,
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
            Self::Itself => f.write_str("refused: nobody listens there, and the call met itself"),
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

    /// Says to the peer that nothing more comes; reading goes on.
    ///
    /// # Errors
    /// [`LinkError`]: the connection has ended already.
    pub fn finish_writing(&self) -> Result<(), LinkError> {
        shutdown(self.stream.as_raw_fd(), Shutdown::Write).map_err(LinkError::from)
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
        self.try_accept().ok().flatten()
    }

    /// Takes the next connection, if one waits. A connection that broke before it was taken is none.
    ///
    /// # Errors
    /// The errno where this process can take none at present (no descriptor or memory left): the connection waits on, and
    /// the listener stays readable.
    pub fn try_accept(&self) -> Result<Option<(TcpLink, SocketAddr)>, Errno> {
        match self.inner.accept() {
            Ok((stream, peer)) => Ok(TcpLink::new(stream).ok().map(|link| (link, peer))),
            Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
                errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => Err(errno),
                _ => Ok(None),
            },
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock;
    use super::*;

    /// Longer than any step takes on a loaded machine.
    pub(super) const PATIENCE: Duration = Duration::from_secs(10);

    pub(super) fn listener() -> (Listener, u16) {
        let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let port = listener.local_address().unwrap().port();
        (listener, port)
    }

    pub(super) fn connected(connector: &mut Connector) -> TcpLink {
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
    fn one_side_can_end_while_the_other_goes_on() {
        let (client, server) = pair();
        let mut buffer = [0; 16];
        server.finish_writing().unwrap();
        assert_eq!(read(&client, &mut buffer), Err(LinkError::Closed));
        assert_eq!(client.try_write(b"more"), Ok(4));
        assert_eq!(read(&server, &mut buffer), Ok(4));
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
    fn a_process_without_a_descriptor_left_says_so_and_the_connection_waits() {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        // In a process of its own: the limit is the process's.
        if std::env::var_os("OCPCAN_TEST_NO_DESCRIPTOR").is_none() {
            let name = "a_process_without_a_descriptor_left_says_so_and_the_connection_waits";
            let status = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", &format!("io::tcp::tests::{name}"), "--test-threads", "1"])
                .env("OCPCAN_TEST_NO_DESCRIPTOR", "1")
                .stdout(std::process::Stdio::null())
                .status()
                .unwrap();
            assert!(status.success(), "{status}");
            return;
        }
        let (listener, port) = listener();
        let _client = connected(&mut Connector::new("127.0.0.1", port, 1));
        let deadline = clock::now() + PATIENCE;
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
        loop {
            match listener.try_accept() {
                Err(errno) => break assert_eq!(errno, Errno::EMFILE),
                Ok(taken) => assert!(taken.is_none() && clock::now() < deadline),
            }
        }
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        assert!(listener.accept(PATIENCE).is_some());
    }
}
