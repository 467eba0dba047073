//! The simulated OCP on TCP, with its controls: a handle, a script, the keyboard, a control port.
//!
//! Owns the handle of one thread with all the sockets. Relies on [`crate::sim::ocp`] for everything that happens on
//! them. Never decides what is sent.

use std::fmt;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::io::{clock, sys};
use crate::proto::ocp::Controller;
use crate::sim::ocp::{
    Command, CommandError, Endpoint, Event, Options, Overview, Pipeline, Sequencer, Snapshot, command,
};
use crate::time::Instant;

mod control;
mod door;
mod driver;

use control::{Input, Source};
use door::{Door, listen};
use driver::Driver;

/// Where the simulator listens and what it obeys.
#[derive(Debug, Clone)]
pub struct LiveOptions {
    /// An address for the gateway of each vehicle, in the order of [`Options::vehicles`]; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// Address of the Player's server, for an operator's software; `None` for no such server.
    pub player: Option<SocketAddr>,
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
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            player: None,
            control: None,
            script: String::new(),
            stdin: false,
            ends_with_script: false,
        }
    }
}

/// Events kept for whoever holds the handle; more are dropped.
const EVENTS: usize = 1_024;

/// A running simulator. Dropping it stops it.
pub struct OcpSimHandle {
    names: Vec<String>,
    addresses: Vec<SocketAddr>,
    player_address: Option<SocketAddr>,
    control_address: Option<SocketAddr>,
    commands: Sender<Command>,
    wake: UnixStream,
    events: Receiver<(Instant, Endpoint, Event)>,
    seen: Arc<Mutex<Overview>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl fmt::Debug for OcpSimHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OcpSimHandle").field("addresses", &self.addresses).finish_non_exhaustive()
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
        if options.vehicles.is_empty() || options.vehicles.len() != live.listen.len() {
            return Err(invalid(format!(
                "{} vehicles and {} addresses for them",
                options.vehicles.len(),
                live.listen.len()
            )));
        }
        let names = options.vehicles.clone();
        let mut script = Sequencer::of(&names);
        script.load(&live.script).map_err(|(line, error)| invalid(format!("script line {line}: {error}")))?;
        let places = (0..).map(Endpoint::Vehicle).zip(&live.listen);
        let mut doors: Vec<Door> =
            places.map(|(endpoint, address)| Door::open(endpoint, *address)).collect::<io::Result<_>>()?;
        let addresses = doors.iter().map(|door| door.address).collect();
        let player = live.player.map(|address| Door::open(Endpoint::Player, address)).transpose()?;
        let player_address = player.as_ref().map(|door| door.address);
        doors.extend(player);
        let control = live.control.map(listen).transpose()?;
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let (commands, command_rx) = unbounded();
        let (event_tx, events) = bounded(EVENTS);
        let seen = Arc::new(Mutex::new(Overview::default()));
        let control_address = control.as_ref().map(TcpListener::local_addr).transpose()?;
        let mut driver = Driver {
            pipeline: Pipeline::new(options, clock::now()),
            doors,
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
            driver.sources.push(Source { input: Input::Stdin, sequencer: Sequencer::of(&names) });
        }
        let thread = std::thread::Builder::new().name("sim-ocp".to_owned()).spawn(move || {
            // The other end of a line has a computer of its own: where permitted, a busy machine does not slow it.
            let _ = sys::set_fifo_priority(super::PRIORITY);
            driver.run()
        })?;
        let thread = Some(thread);
        Ok(Self { names, addresses, player_address, control_address, commands, wake, events, seen, thread })
    }

    /// Where the gateway of the first vehicle connects.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.addresses.first().copied().unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Where the gateways connect, with the names of their vehicles.
    pub fn vehicles(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.names.iter().map(String::as_str).zip(self.addresses.iter().copied())
    }

    /// Where an operator's software connects, if the Player has a server.
    #[must_use]
    pub const fn player_address(&self) -> Option<SocketAddr> {
        self.player_address
    }

    /// The name of what an event is about.
    #[must_use]
    pub fn name(&self, endpoint: Endpoint) -> &str {
        match endpoint {
            Endpoint::Player => "player",
            Endpoint::Vehicle(place) => self.names.get(place).map_or("", String::as_str),
        }
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
            if let Some(name) = command.vehicle().filter(|name| !self.names.iter().any(|known| known == name))
            {
                return Err(CommandError::NoVehicle(name.to_owned()));
            }
            self.command(command);
        }
        Ok(())
    }

    /// Gives the operator a gamepad in this state, or takes it away: for a real one.
    pub fn set_controller(&self, controller: Option<Controller>) {
        self.command(Command::Pad(controller));
    }

    /// The first vehicle a few milliseconds ago at most.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).first()
    }

    /// Everything a few milliseconds ago at most.
    #[must_use]
    pub fn overview(&self) -> Overview {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What happened, with the time. Ends when the simulator does.
    #[must_use]
    pub const fn events(&self) -> &Receiver<(Instant, Endpoint, Event)> {
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

#[cfg(test)]
mod tests;
