//! The simulated OCP server on TCP, with its controls: a handle, a script, the keyboard, a control port.
//!
//! Owns the sockets and one thread. Relies on [`crate::sim::ocp`] for everything that happens on them. Never decides
//! what is sent.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeSpec;

use crate::io::{clock, sys};
use crate::sim::ocp::{
    Admission, Command, CommandError, Event, Options, Sequencer, Server, Snapshot, Transmit, command,
};
use crate::time::{Duration, Instant};

/// Where the simulator listens and what it obeys.
#[derive(Debug, Clone)]
pub struct LiveOptions {
    /// Address for the gateway; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Address of the control port, loopback only; `None` for no such port.
    pub control: Option<SocketAddr>,
    /// Commands to run from the start.
    pub script: String,
    /// Whether commands are read from standard input.
    pub stdin: bool,
    /// Whether the simulator ends when its script does.
    pub ends_with_script: bool,
}

impl Default for LiveOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            control: None,
            script: String::new(),
            stdin: false,
            ends_with_script: false,
        }
    }
}

/// Events kept for whoever holds the handle; more are dropped.
const EVENTS: usize = 1_024;

/// How often the state is copied for the handle at most: a human or a test looks, nobody measures with it.
const SNAPSHOT_EVERY: Duration = Duration::from_millis(2);

/// The longest wait of the thread, so that a mistake in a timeout shows as slowness and not as a hang.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// A running simulator. Dropping it stops it.
pub struct OcpSimHandle {
    address: SocketAddr,
    control_address: Option<SocketAddr>,
    commands: Sender<Command>,
    wake: UnixStream,
    events: Receiver<(Instant, Event)>,
    seen: Arc<Mutex<Snapshot>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl fmt::Debug for OcpSimHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OcpSimHandle").field("address", &self.address).finish_non_exhaustive()
    }
}

impl OcpSimHandle {
    /// Opens the sockets and starts the thread.
    ///
    /// # Errors
    /// If a socket cannot be opened, the control address is not loopback, or the script has a bad line.
    pub fn start(live: &LiveOptions, options: Options) -> io::Result<Self> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
        if let Some(control) = live.control.filter(|control| !control.ip().is_loopback()) {
            return Err(invalid(format!(
                "{control}: the control port has no protection and is for loopback only"
            )));
        }
        let mut script = Sequencer::new();
        script.load(&live.script).map_err(|(line, error)| invalid(format!("script line {line}: {error}")))?;
        let listener = listen(live.listen)?;
        let control = live.control.map(listen).transpose()?;
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let (commands, command_rx) = unbounded();
        let (event_tx, events) = bounded(EVENTS);
        let seen = Arc::new(Mutex::new(Snapshot::default()));
        let address = listener.local_addr()?;
        let control_address = control.as_ref().map(TcpListener::local_addr).transpose()?;
        let mut driver = Driver {
            server: Server::new(options, clock::now()),
            address,
            listener: Some(listener),
            client: None,
            pending: Vec::new(),
            is_pressed: false,
            ignored: Vec::new(),
            control,
            sources: vec![Source { input: Input::None, sequencer: script }],
            ends_with_script: live.ends_with_script,
            commands: command_rx,
            woken,
            events: event_tx,
            seen: Arc::clone(&seen),
            seen_at: Instant::ZERO,
            is_done: false,
        };
        if live.stdin {
            driver.sources.push(Source { input: Input::Stdin, sequencer: Sequencer::new() });
        }
        let thread = std::thread::Builder::new().name("sim-ocp".to_owned()).spawn(move || {
            // The other end of a line has a computer of its own: where permitted, a busy machine does not slow it.
            let _ = sys::set_fifo_priority(super::PRIORITY);
            driver.run()
        })?;
        Ok(Self { address, control_address, commands, wake, events, seen, thread: Some(thread) })
    }

    /// Where the gateway connects.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the control port is, if there is one.
    #[must_use]
    pub const fn control_address(&self) -> Option<SocketAddr> {
        self.control_address
    }

    /// Runs a command at once. `wait` has no meaning here.
    pub fn command(&self, command: Command) {
        // A simulator that has ended obeys nothing; `stop` tells how it ended.
        let _ = self.commands.send(command);
        let _ = (&self.wake).write(&[1]);
    }

    /// Runs one line of the control language at once.
    ///
    /// # Errors
    /// [`CommandError`] if it is no command.
    pub fn say(&self, line: &str) -> Result<(), CommandError> {
        if let Some(command) = command::parse(line)? {
            self.command(command);
        }
        Ok(())
    }

    /// The state a few milliseconds ago at most.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What happened, with the time. Ends when the simulator does.
    #[must_use]
    pub const fn events(&self) -> &Receiver<(Instant, Event)> {
        &self.events
    }

    /// Ends the simulator and waits for it.
    ///
    /// # Errors
    /// What ended it before, if it did not end by command.
    pub fn stop(mut self) -> io::Result<()> {
        self.command(Command::Quit);
        self.join()
    }

    /// Waits until the simulator ends: by `quit`, or at the end of its script if it was told so.
    ///
    /// # Errors
    /// What ended it, if it did not end by command.
    pub fn wait(mut self) -> io::Result<()> {
        self.join()
    }

    fn join(&mut self) -> io::Result<()> {
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the simulator panicked")),
        }
    }
}

impl Drop for OcpSimHandle {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.command(Command::Quit);
            let _ = self.join();
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Where commands come from.
enum Input {
    /// A script: everything is there already.
    None,
    Stdin,
    Peer(TcpStream),
    /// A peer that has closed; what it said still runs.
    Closed,
}

struct Source {
    input: Input,
    sequencer: Sequencer,
}

impl Source {
    /// Answers to whoever asked; a peer that does not read its answers loses them.
    fn answer(&mut self, text: &str) {
        let _ = match &mut self.input {
            Input::Peer(stream) => stream.write(text.as_bytes()).map(|_| ()),
            Input::Stdin => io::stdout().lock().write_all(text.as_bytes()),
            Input::None | Input::Closed => Ok(()),
        };
    }

    /// Reads what is there and answers each complete line.
    fn read(&mut self) {
        let mut buffer = [0; 4_096];
        let read = match &mut self.input {
            Input::Peer(stream) => stream.read(&mut buffer),
            Input::Stdin => nix::unistd::read(io::stdin().as_fd(), &mut buffer).map_err(io::Error::from),
            Input::None | Input::Closed => return,
        };
        match read {
            Ok(0) => self.input = Input::Closed,
            Ok(n) => {
                let text = String::from_utf8_lossy(buffer.get(..n).unwrap_or_default()).into_owned();
                for answer in self.sequencer.handle_text(&text) {
                    match answer {
                        Ok(()) => self.answer("ok\n"),
                        Err(error) => self.answer(&format!("error: {error}\n")),
                    }
                }
            }
            Err(error) if is_later(&error) => {}
            Err(_) => self.input = Input::Closed,
        }
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// What a descriptor in the poll set belongs to.
#[derive(Clone, Copy)]
enum Ready {
    Wake,
    Listener,
    Client,
    Control,
    Source(usize),
}

struct Driver {
    server: Server,
    address: SocketAddr,
    listener: Option<TcpListener>,
    client: Option<TcpStream>,
    /// Bytes of a frame that the client's buffer had no room for.
    pending: Vec<u8>,
    /// Messages are being lost for want of room.
    is_pressed: bool,
    ignored: Vec<TcpStream>,
    control: Option<TcpListener>,
    /// The script first, then everything else.
    sources: Vec<Source>,
    ends_with_script: bool,
    commands: Receiver<Command>,
    woken: UnixStream,
    events: Sender<(Instant, Event)>,
    seen: Arc<Mutex<Snapshot>>,
    seen_at: Instant,
    is_done: bool,
}

impl Driver {
    fn run(&mut self) -> io::Result<()> {
        while !self.is_done {
            let ready = self.wait()?;
            let now = clock::now();
            for ready in ready {
                match ready {
                    Ready::Wake => {
                        let mut buffer = [0; 64];
                        while matches!(self.woken.read(&mut buffer), Ok(n) if n > 0) {}
                    }
                    Ready::Listener => self.accept(now),
                    Ready::Client => self.client_ready(now),
                    Ready::Control => self.accept_control(),
                    Ready::Source(at) => {
                        if let Some(source) = self.sources.get_mut(at) {
                            source.read();
                        }
                    }
                }
            }
            self.run_commands(now);
            self.server.handle_timeout(now);
            while let Some(transmit) = self.server.poll_transmit(now) {
                self.transmit(transmit);
            }
            self.report(now);
        }
        self.publish();
        Ok(())
    }

    /// Waits until something is readable or due.
    fn wait(&self) -> io::Result<Vec<Ready>> {
        let now = clock::now();
        let mut set: Vec<(BorrowedFd<'_>, PollFlags, Ready)> =
            vec![(self.woken.as_fd(), PollFlags::POLLIN, Ready::Wake)];
        if let Some(listener) = &self.listener {
            set.push((listener.as_fd(), PollFlags::POLLIN, Ready::Listener));
        }
        if let Some(client) = &self.client {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, self.server.wants_bytes(now));
            flags.set(PollFlags::POLLOUT, !self.pending.is_empty());
            if !flags.is_empty() {
                set.push((client.as_fd(), flags, Ready::Client));
            }
        }
        if let Some(control) = &self.control {
            set.push((control.as_fd(), PollFlags::POLLIN, Ready::Control));
        }
        let stdin = io::stdin();
        for (at, source) in self.sources.iter().enumerate() {
            match &source.input {
                Input::Peer(stream) => set.push((stream.as_fd(), PollFlags::POLLIN, Ready::Source(at))),
                Input::Stdin => set.push((stdin.as_fd(), PollFlags::POLLIN, Ready::Source(at))),
                Input::None | Input::Closed => {}
            }
        }
        let mut due = self.server.poll_timeout();
        for source in &self.sources {
            due = source.sequencer.poll_timeout().map_or(due, |at| due.min(at));
        }
        let wait = due.since(now).min(WAIT_MAX);
        let mut fds: Vec<_> = set.iter().map(|(fd, flags, _)| PollFd::new(*fd, *flags)).collect();
        match ppoll(&mut fds, Some(TimeSpec::from_duration(wait)), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(fds
            .iter()
            .zip(&set)
            .filter(|(fd, _)| fd.any().unwrap_or(false))
            .map(|(_, (_, _, ready))| *ready)
            .collect())
    }

    fn accept(&mut self, now: Instant) {
        let Some(Ok((stream, _))) = self.listener.as_ref().map(TcpListener::accept) else { return };
        if stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).is_err() {
            return;
        }
        match self.server.handle_connect(now) {
            Admission::Accept | Admission::Replace => {
                self.client = Some(stream);
                self.pending.clear();
                self.is_pressed = false;
            }
            Admission::Reject => {}
            // More than a few are a mistake of the test, not a test.
            Admission::Ignore if self.ignored.len() < 16 => self.ignored.push(stream),
            Admission::Ignore => {}
        }
    }

    fn accept_control(&mut self) {
        /// A control connection is a person or a test.
        const PEERS: usize = 16;
        let Some(Ok((stream, _))) = self.control.as_ref().map(TcpListener::accept) else { return };
        if self.sources.len() <= PEERS && stream.set_nonblocking(true).is_ok() {
            self.sources.push(Source { input: Input::Peer(stream), sequencer: Sequencer::new() });
        }
    }

    fn client_ready(&mut self, now: Instant) {
        self.flush();
        let mut buffer = [0; 65_536];
        while let Some(client) = self.client.as_mut().filter(|_| self.server.wants_bytes(now)) {
            match client.read(&mut buffer) {
                Ok(0) => self.lost(),
                Ok(n) => self.server.handle_bytes(now, buffer.get(..n).unwrap_or_default()),
                Err(error) if is_later(&error) => return,
                Err(_) => self.lost(),
            }
        }
    }

    fn lost(&mut self) {
        self.client = None;
        self.pending.clear();
        self.server.handle_disconnect();
    }

    fn run_commands(&mut self, now: Instant) {
        while let Ok(command) = self.commands.try_recv() {
            self.command(now, command, None);
        }
        for at in 0..self.sources.len() {
            while let Some(command) = self.sources.get_mut(at).and_then(|source| source.sequencer.poll(now)) {
                self.command(now, command, Some(at));
            }
        }
        if self.ends_with_script && self.sources.first().is_some_and(|script| script.sequencer.is_done(now)) {
            self.is_done = true;
        }
        let mut at = 0;
        self.sources.retain(|source| {
            at += 1;
            at == 1 || !matches!(source.input, Input::Closed) || !source.sequencer.is_done(now)
        });
    }

    fn command(&mut self, now: Instant, command: Command, source: Option<usize>) {
        let source = source.and_then(|at| self.sources.get_mut(at));
        match command {
            Command::Quit => self.is_done = true,
            Command::Listen(false) => self.listener = None,
            Command::Listen(true) if self.listener.is_none() => match listen(self.address) {
                Ok(listener) => self.listener = Some(listener),
                Err(error) => {
                    if let Some(source) = source {
                        source.answer(&format!("error: {error}\n"));
                    }
                }
            },
            Command::Status => {
                let text = format!("{}\n", self.server.snapshot().to_json());
                if let Some(source) = source {
                    source.answer(&text);
                }
            }
            Command::Help => {
                if let Some(source) = source {
                    source.answer(&command::help());
                }
            }
            command => self.server.command(now, command),
        }
    }

    fn transmit(&mut self, transmit: Transmit) {
        match transmit {
            Transmit::Bytes(bytes) => {
                self.flush();
                if !self.pending.is_empty() {
                    // What is half sent must be finished, so the newest message is what is lost.
                    if !self.is_pressed {
                        self.is_pressed = true;
                        self.server.handle_back_pressure();
                    }
                    return;
                }
                self.pending = bytes;
                self.flush();
            }
            Transmit::Close => {
                if let Some(mut client) = self.client.take() {
                    // Unread bytes would turn the end into a reset.
                    let mut buffer = [0; 65_536];
                    while matches!(client.read(&mut buffer), Ok(n) if n > 0) {}
                    let _ = client.shutdown(std::net::Shutdown::Write);
                }
                self.pending.clear();
            }
            Transmit::Reset => {
                if let Some(client) = self.client.take() {
                    let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
                    let _ = setsockopt(&client, sockopt::Linger, &at_once);
                }
                self.pending.clear();
            }
        }
    }

    /// Writes what is left of the last frame.
    fn flush(&mut self) {
        let Some(client) = &mut self.client else { return };
        while !self.pending.is_empty() {
            match client.write(&self.pending) {
                Ok(n) if n > 0 => {
                    self.pending.drain(..n);
                    self.is_pressed = false;
                }
                Err(error) if is_later(&error) => return,
                Ok(_) | Err(_) => {
                    self.lost();
                    return;
                }
            }
        }
    }

    /// Tells whoever looks.
    fn report(&mut self, now: Instant) {
        while let Some(event) = self.server.poll_event() {
            // Nobody may be listening, or not fast enough.
            let _ = self.events.try_send((now, event));
        }
        if now.since(self.seen_at) >= SNAPSHOT_EVERY {
            self.seen_at = now;
            self.publish();
        }
    }

    fn publish(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = self.server.snapshot();
    }
}

#[cfg(test)]
mod tests;
