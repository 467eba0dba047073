//! The simulator's thread: waits for sockets and times, and lets the pipeline act.
//!
//! Owns the loop. Relies on [`super::door`] for the servers and [`super::control`] for the commands. Never decides what
//! is sent.

use std::io::{self, Read};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::control::{Input, Source};
use super::door::Door;
use crate::io::clock;
use crate::sim::ocp::{Command, Endpoint, Event, Overview, Pipeline, Sequencer, command};
use crate::time::{Duration, Instant};

/// How often the state is copied for the handle at most: a human or a test looks, nobody measures with it.
const SNAPSHOT_EVERY: Duration = Duration::from_millis(2);

/// The longest wait of the thread, so that a mistake in a timeout shows as slowness and not as a hang.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// What a descriptor in the poll set belongs to.
#[derive(Clone, Copy)]
enum Ready {
    Wake,
    Listener(usize),
    Client(usize),
    Control,
    Source(usize),
}

pub(super) struct Driver {
    pub pipeline: Pipeline,
    /// The vehicles' servers in their order, then the Player's if there is one.
    pub doors: Vec<Door>,
    pub control: Option<TcpListener>,
    /// The script first, then everything else.
    pub sources: Vec<Source>,
    pub ends_with_script: bool,
    pub commands: Receiver<Command>,
    pub woken: UnixStream,
    pub events: Sender<(Instant, Endpoint, Event)>,
    pub seen: Arc<Mutex<Overview>>,
    pub seen_at: Instant,
    pub is_done: bool,
}

impl Driver {
    pub fn run(&mut self) -> io::Result<()> {
        while !self.is_done {
            let ready = self.wait()?;
            let now = clock::now();
            for ready in ready {
                match ready {
                    Ready::Wake => {
                        let mut buffer = [0; 64];
                        while matches!(self.woken.read(&mut buffer), Ok(n) if n > 0) {}
                    }
                    Ready::Listener(at) => {
                        if let Some(door) = self.doors.get_mut(at) {
                            door.accept(now, &mut self.pipeline);
                        }
                    }
                    Ready::Client(at) => {
                        if let Some(door) = self.doors.get_mut(at) {
                            door.client_ready(now, &mut self.pipeline);
                        }
                    }
                    Ready::Control => self.accept_control(),
                    Ready::Source(at) => {
                        if let Some(source) = self.sources.get_mut(at) {
                            source.read();
                        }
                    }
                }
            }
            self.run_commands(now);
            self.pipeline.handle_timeout(now);
            while let Some((endpoint, transmit)) = self.pipeline.poll_transmit(now) {
                if let Some(door) = self.doors.iter_mut().find(|door| door.endpoint == endpoint) {
                    door.transmit(transmit, &mut self.pipeline);
                }
            }
            self.report(now);
        }
        self.publish(clock::now());
        Ok(())
    }

    /// Waits until something is readable or due.
    fn wait(&self) -> io::Result<Vec<Ready>> {
        let now = clock::now();
        let mut set: Vec<(BorrowedFd<'_>, PollFlags, Ready)> =
            vec![(self.woken.as_fd(), PollFlags::POLLIN, Ready::Wake)];
        for (at, door) in self.doors.iter().enumerate() {
            if let Some(listener) = &door.listener {
                set.push((listener.as_fd(), PollFlags::POLLIN, Ready::Listener(at)));
            }
            if let Some(client) = &door.client {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::POLLIN, self.pipeline.wants_bytes(now, door.endpoint));
                flags.set(PollFlags::POLLOUT, door.has_pending());
                if !flags.is_empty() {
                    set.push((client.as_fd(), flags, Ready::Client(at)));
                }
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
        let mut due = self.pipeline.poll_timeout();
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

    fn accept_control(&mut self) {
        /// A control connection is a person or a test.
        const PEERS: usize = 16;
        let Some(Ok((stream, _))) = self.control.as_ref().map(TcpListener::accept) else { return };
        if self.sources.len() <= PEERS && stream.set_nonblocking(true).is_ok() {
            let sequencer = Sequencer::of(&self.pipeline.options().vehicles);
            self.sources.push(Source { input: Input::Peer(stream), sequencer });
        }
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
        let answer = match &command {
            Command::Quit => {
                self.is_done = true;
                None
            }
            Command::Listen(on) => self.listen(*on, |endpoint| matches!(endpoint, Endpoint::Vehicle(_))),
            Command::Player(inner) if matches!(**inner, Command::Listen(_)) => {
                self.listen(matches!(**inner, Command::Listen(true)), |endpoint| endpoint == Endpoint::Player)
            }
            Command::Vehicle(name, inner) if matches!(**inner, Command::Listen(_)) => {
                let place = self.pipeline.options().vehicles.iter().position(|known| known == name);
                let is_meant = |endpoint| place.map(Endpoint::Vehicle) == Some(endpoint);
                self.listen(matches!(**inner, Command::Listen(true)), is_meant)
            }
            Command::Status => Some(format!("{}\n", self.pipeline.overview(now).to_json())),
            Command::Help => Some(command::help()),
            _ => {
                self.pipeline.command(now, command);
                return;
            }
        };
        if let (Some(text), Some(source)) = (answer, source.and_then(|at| self.sources.get_mut(at))) {
            source.answer(&text);
        }
    }

    /// Opens or closes listening sockets; answers with what went wrong.
    fn listen(&mut self, on: bool, is_meant: impl Fn(Endpoint) -> bool) -> Option<String> {
        let doors = self.doors.iter_mut().filter(|door| is_meant(door.endpoint));
        let errors: Vec<_> = doors.filter_map(|door| door.set_listening(on).err()).collect();
        (!errors.is_empty()).then(|| errors.iter().map(|error| format!("error: {error}\n")).collect())
    }

    /// Tells whoever looks.
    fn report(&mut self, now: Instant) {
        while let Some((endpoint, event)) = self.pipeline.poll_event() {
            // Nobody may be listening, or not fast enough.
            let _ = self.events.try_send((now, endpoint, event));
        }
        if now.since(self.seen_at) >= SNAPSHOT_EVERY {
            self.seen_at = now;
            self.publish(now);
        }
    }

    fn publish(&self, now: Instant) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = self.pipeline.overview(now);
    }
}
