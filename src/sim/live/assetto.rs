//! The simulated server of Assetto Corsa, and the game of its first driver, on UDP.
//!
//! Owns two sockets and one thread. Relies on [`crate::sim::assetto`] for everything that is said. Takes commands from
//! the plugin's address alone, as servers do: nothing in the protocol says who sent one.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver as Notes, Sender, bounded};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::io::{clock, sys};
use crate::sim::assetto::{Options, Overview, Receiver, Script, World};
use crate::time::Duration;

/// The longest wait of the thread: bounds how long a stop takes.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// The largest command has 1,036 bytes; the vendor's example sends its buffer of 1,000. What is longer is cut.
const COMMAND_MAX: usize = 2_048;

/// Notes kept for whoever holds the handle; more are dropped.
const NOTES: usize = 256;

/// Where the server is, and where its plugin is.
#[derive(Debug, Clone)]
pub struct LiveOptions {
    /// Where the server takes commands, and what it sends from; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the plugin listens.
    pub plugin: SocketAddr,
    /// Where the game listens; `None` for no game.
    pub game: Option<SocketAddr>,
    /// What the world is like.
    pub world: Options,
    /// What happens from the start.
    pub script: Script,
}

/// Why the server cannot start.
#[derive(Debug)]
pub enum StartError {
    /// An address that cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// Plugin and server on the same address: they would hear themselves.
    SameAddress(SocketAddr),
    /// No thread.
    Thread(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(address, error) => write!(f, "cannot listen on UDP {address}: {error}"),
            Self::SameAddress(address) => write!(f, "server and plugin cannot both have {address}"),
            Self::Thread(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    seen: Mutex<Overview>,
}

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct AssettoSim {
    address: SocketAddr,
    game: Option<SocketAddr>,
    notes: Notes<String>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl AssettoSim {
    /// Starts the server; its first words leave at once, so a plugin that is to hear them listens already.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(options: LiveOptions) -> Result<Self, StartError> {
        let socket = listen(options.listen)?;
        let address = socket.local_addr().map_err(|error| StartError::Listen(options.listen, error))?;
        if address == options.plugin {
            return Err(StartError::SameAddress(address));
        }
        let game_socket = options.game.map(listen).transpose()?;
        let game = game_socket.as_ref().and_then(|socket| socket.local_addr().ok());
        let world = World::new(options.world, clock::now());
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), seen: Mutex::new(world.overview()) });
        let (note, notes) = bounded(NOTES);
        let mut driver = Driver {
            world,
            script: options.script,
            socket,
            game: game_socket,
            plugin: options.plugin,
            note,
            shared: Arc::clone(&shared),
        };
        let thread = std::thread::Builder::new()
            .name("sim-assetto".to_owned())
            .spawn(move || {
                // Another computer in the end, as the simulated vehicle.
                let _ = sys::set_fifo_priority(super::PRIORITY);
                driver.run();
            })
            .map_err(StartError::Thread)?;
        Ok(Self { address, game, notes, shared, thread: Some(thread) })
    }

    /// Where the server takes commands.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the game listens.
    #[must_use]
    pub const fn game_address(&self) -> Option<SocketAddr> {
        self.game
    }

    /// The world as it was at most [`WAIT_MAX`] ago.
    #[must_use]
    pub fn overview(&self) -> Overview {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The next thing that the server would show to its administrator or its drivers.
    #[must_use]
    pub fn poll_note(&self) -> Option<String> {
        self.notes.try_recv().ok()
    }

    /// Whether the thread runs; false after a stop, or after a mistake in the simulator.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ends the server; returns when its thread has ended.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the simulator was printed by its thread; there is nothing to add.
            let _ = thread.join();
        }
    }
}

impl Drop for AssettoSim {
    fn drop(&mut self) {
        self.stop();
    }
}

fn listen(address: SocketAddr) -> Result<UdpSocket, StartError> {
    let open = || {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    open().map_err(|error| StartError::Listen(address, error))
}

/// What the thread owns.
struct Driver {
    world: World,
    script: Script,
    socket: UdpSocket,
    game: Option<UdpSocket>,
    plugin: SocketAddr,
    note: Sender<String>,
    shared: Arc<Shared>,
}

impl Driver {
    fn run(&mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let now = clock::now();
            while let Some(action) = self.script.poll(now) {
                self.world.act(now, action);
            }
            self.world.handle_timeout(now);
            self.receive();
            self.send();
            *self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner) = self.world.overview();
            self.wait();
        }
    }

    fn wait(&self) {
        let script = self.script.poll_timeout();
        let due = script.into_iter().fold(self.world.poll_timeout(), |due, at| due.min(at));
        let wait = due.since(clock::now()).min(WAIT_MAX);
        let sockets = [Some(&self.socket), self.game.as_ref()];
        let mut fds: Vec<PollFd<'_>> = sockets
            .into_iter()
            .flatten()
            .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
            .collect();
        // A signal ends the wait early, which is no harm.
        let _ = ppoll(&mut fds, Some(TimeSpec::from_duration(wait)), None);
    }

    /// An error of a socket is an answer of the network to what was sent: nobody listens. Like the original, the
    /// server does not mind.
    fn receive(&mut self) {
        let mut bytes = [0; COMMAND_MAX];
        // Not more in one turn than a burst of a plugin with every command for every slot.
        for _ in 0..1_024 {
            match self.socket.recv_from(&mut bytes) {
                Ok((len, from)) if from.ip() == self.plugin.ip() => {
                    self.world.handle_command(clock::now(), &bytes[..len]);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {}
            }
        }
        let Some(game) = &self.game else { return };
        for _ in 0..64 {
            match game.recv_from(&mut bytes) {
                Ok((len, from)) => self.world.handle_request(clock::now(), from, &bytes[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {}
            }
        }
    }

    /// What the network does not take is lost.
    fn send(&mut self) {
        while let Some((to, datagram)) = self.world.poll_transmit() {
            let _ = match (to, &self.game) {
                (Receiver::Plugin, _) => self.socket.send_to(&datagram, self.plugin),
                (Receiver::Client(client), Some(game)) => game.send_to(&datagram, client),
                (Receiver::Client(_), None) => Ok(0),
            };
        }
        while let Some(note) = self.world.poll_note() {
            let _ = self.note.try_send(note);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::assetto::game::{GameMessage, Operation, Request};
    use crate::proto::assetto::{Command, Decoder, Event};

    /// A loaded machine takes its time; nothing here waits that long without being wrong.
    const LIMIT: Duration = Duration::from_secs(20);

    fn loopback() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    fn options(plugin: SocketAddr) -> LiveOptions {
        LiveOptions {
            listen: "127.0.0.1:0".parse().unwrap(),
            plugin,
            game: Some("127.0.0.1:0".parse().unwrap()),
            world: Options { cars: 2, loading: Duration::from_millis(20), ..Options::default() },
            script: Script::parse("wait 10\nchat 0 hello").unwrap(),
        }
    }

    #[test]
    fn plugin_and_game_client_are_served_and_strangers_are_not() {
        let (plugin, address) = loopback();
        let mut sim = AssettoSim::start(options(address)).unwrap();
        let mut bytes = [0; 8_192];
        let mut decoder = Decoder::default();
        let ask = |command: Command<'_>| {
            let mut bytes = [0; 64];
            let len = command.encode(&mut bytes).unwrap();
            plugin.send_to(&bytes[..len], sim.address()).unwrap();
        };
        ask(Command::RealtimePosInterval { interval_ms: 10 });
        ask(Command::GetSessionInfo { session_index: -1 });
        let (mut chats, mut infos, mut updates) = (0, 0, 0);
        while chats == 0 || infos == 0 || updates < 20 {
            let (len, from) = plugin.recv_from(&mut bytes).unwrap();
            assert_eq!(from, sim.address());
            match decoder.handle_datagram(&bytes[..len]).unwrap() {
                Event::Chat { message, .. } => {
                    assert_eq!(message, "hello");
                    chats += 1;
                }
                Event::SessionInfo(_) => infos += 1,
                Event::CarUpdate(_) => updates += 1,
                _ => {}
            }
        }
        let (client, _) = loopback();
        for operation in [Operation::Handshake, Operation::SubscribeUpdate] {
            client.send_to(&Request::new(operation).encode(), sim.game_address().unwrap()).unwrap();
        }
        let mut updates = 0;
        while updates < 3 {
            let (len, _) = client.recv_from(&mut bytes).unwrap();
            updates += u32::from(matches!(GameMessage::decode(&bytes[..len]), Ok(GameMessage::CarInfo(_))));
        }
        // From another address of this machine; what the plugin sends behind it is the sign that it was read.
        let stranger = UdpSocket::bind("127.0.0.2:0").unwrap();
        stranger.send_to(&[207], sim.address()).unwrap();
        let before = sim.overview().commands;
        ask(Command::GetSessionInfo { session_index: -1 });
        let end = clock::now() + Duration::from_secs(20);
        while sim.overview().commands == before {
            assert!(clock::now() < end);
            std::thread::yield_now();
        }
        assert_eq!((sim.overview().session.as_str(), sim.overview().game_clients), ("Practice", 1));
        sim.stop();
        assert!(!sim.is_running());
    }

    #[test]
    fn an_address_that_is_taken_is_an_error() {
        let (_plugin, address) = loopback();
        let taken = LiveOptions { listen: address, ..options("127.0.0.1:9".parse().unwrap()) };
        let error = AssettoSim::start(taken).unwrap_err();
        assert!(matches!(error, StartError::Listen(..)), "{error}");
    }
}
