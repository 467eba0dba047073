//! The work of a hub: frames from each port to the others, then the echo.
//!
//! Owns the ports' connections, the link state and the frames on their way. Relies on `wire`. Never waits for a port: a
//! slow reader loses its own frames, and they are counted.

use core::time::Duration;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;

use super::hub::Fault;
use super::wire::{self, ATTACH, DELIVERY, DONE, FAULT, SEND, WAKE, WELCOME, Wishes};
use crate::can::{Frame, errorframe};
use crate::io::clock;
use crate::io::sys::{self, SharedWords};
use crate::time::Instant;

/// Connections of one hub: ports and fault lines. A dozen is the most that any scenario has.
const CONNECTIONS: usize = 64;

/// Messages that one connection may bring before the others have a turn.
const TURN: usize = 32;

/// Frames that a delayed bus holds; what comes beyond is lost, as in a full transmit queue. 1,000 is what the kernel's
/// own delay queue holds.
const DELAYED: usize = 1_000;

/// Send buffer towards a port that does not say: the system caps it, at about 500 frames by default.
const PORT_BUFFER: usize = 1 << 20;

/// One connection.
#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    token: u64,
    /// What it wants to receive; none before it attached, and for a fault line.
    wishes: Option<Wishes>,
    dropped: u32,
    is_dead: bool,
}

impl Connection {
    /// Hands over a frame, or counts it as lost.
    fn deliver(&mut self, frame: &Frame, flags: u8) {
        let mut message = [0; DELIVERY];
        let size = wire::delivery(frame, flags, self.dropped, &mut message);
        match wire::post(self.socket.as_fd(), message.get(..size).unwrap_or(&message)) {
            Ok(()) => {}
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR) => {
                self.dropped = self.dropped.saturating_add(1);
            }
            Err(_) => self.is_dead = true,
        }
    }
}

/// A frame on a delayed bus.
#[derive(Debug)]
struct Delayed {
    due: Instant,
    from: u64,
    frame: Frame,
}

/// A hub at work.
#[derive(Debug)]
pub(super) struct Switch {
    listener: OwnedFd,
    page: OwnedFd,
    state: SharedWords,
    connections: Vec<Connection>,
    next_token: u64,
    is_up: bool,
    downs: u64,
    swallow: bool,
    stall: bool,
    bus_off: bool,
    gone: bool,
    delay: Duration,
    delayed: VecDeque<Delayed>,
    ended: bool,
}

impl Switch {
    /// A hub behind this listening socket, link up.
    pub(super) fn new(listener: OwnedFd) -> Result<Self, Errno> {
        let page = memfd_create(c"ocpcan-bus", MFdFlags::MFD_CLOEXEC)?;
        let bytes = i64::try_from(wire::STATE_WORDS * size_of::<u64>()).unwrap_or(8);
        nix::unistd::ftruncate(&page, bytes)?;
        let state = SharedWords::map(page.as_fd(), wire::STATE_WORDS, true)?;
        let mut switch = Self {
            listener,
            page,
            state,
            connections: Vec::with_capacity(CONNECTIONS),
            next_token: 1,
            is_up: true,
            downs: 0,
            swallow: false,
            stall: false,
            bus_off: false,
            gone: false,
            delay: Duration::ZERO,
            delayed: VecDeque::with_capacity(DELAYED),
            ended: false,
        };
        switch.publish();
        Ok(switch)
    }

    /// Serves until it is told to end.
    pub(super) fn run(&mut self) {
        while !self.ended {
            let (accept, readable) = self.wait();
            self.release(clock::now());
            if accept {
                self.accept();
            }
            for index in readable {
                self.serve(index);
            }
            self.connections.retain(|c| !c.is_dead);
        }
    }

    /// Waits for something to do: whether somebody connects, and which connections have something to say.
    fn wait(&self) -> (bool, heapless::Vec<usize, CONNECTIONS>) {
        // A stalled bus reads nothing from its ports; fault lines are heard.
        let hears = |c: &Connection| !(self.stall && c.wishes.is_some());
        let mut fds = heapless::Vec::<PollFd<'_>, { CONNECTIONS + 1 }>::new();
        let listening =
            if self.connections.len() < CONNECTIONS { PollFlags::POLLIN } else { PollFlags::empty() };
        let _ = fds.push(PollFd::new(self.listener.as_fd(), listening)); // room for all by the count above
        for c in &self.connections {
            let events = if hears(c) { PollFlags::POLLIN } else { PollFlags::empty() };
            let _ = fds.push(PollFd::new(c.socket.as_fd(), events));
        }
        let timeout = self.delayed.front().map(|d| TimeSpec::from_duration(d.due.since(clock::now())));
        if ppoll(&mut fds, timeout, None).is_err() {
            return (false, heapless::Vec::new());
        }
        let has = |fd: &PollFd<'_>| fd.revents().is_none_or(|r| !r.is_empty());
        let readable = fds.iter().skip(1).enumerate().filter(|(_, fd)| has(fd)).map(|(i, _)| i).collect();
        (fds.first().is_some_and(has), readable)
    }

    /// Takes new connections.
    fn accept(&mut self) {
        while self.connections.len() < CONNECTIONS {
            let Ok(socket) = sys::accept(self.listener.as_fd()) else { return };
            let token = self.next_token;
            self.next_token += 1;
            self.connections.push(Connection { socket, token, wishes: None, dropped: 0, is_dead: false });
        }
    }

    /// Reads what one connection has to say.
    fn serve(&mut self, index: usize) {
        let mut message = [0; wire::MESSAGE];
        for _ in 0..TURN {
            let Some(connection) = self.connections.get_mut(index) else { return };
            if self.stall && connection.wishes.is_some() {
                // A stalled port is not polled for reading, so what woke us is its end.
                connection.is_dead = true;
            }
            if connection.is_dead {
                return;
            }
            let len = match sys::receive(connection.socket.as_fd(), &mut message) {
                Ok(got) if got.len > 0 => got.len,
                Err(Errno::EAGAIN | Errno::EINTR) => return,
                Ok(_) | Err(_) => {
                    connection.is_dead = true;
                    return;
                }
            };
            let token = connection.token;
            let body = message.get(1..len).unwrap_or_default();
            match message[0] {
                SEND => {
                    if let Ok(frame) = Frame::from_bytes(body) {
                        self.take(token, frame);
                    }
                }
                ATTACH => self.attach(index, Wishes::decode(body)),
                FAULT => {
                    if let Some(fault) = Fault::decode(body) {
                        self.apply(fault);
                        // A fault line that has left needs no answer.
                        if let Some(c) = self.connections.get(index) {
                            let _ = wire::post(c.socket.as_fd(), &[DONE]);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Attaches a port, or refuses it while the adapter is "unplugged".
    fn attach(&mut self, index: usize, wishes: Option<Wishes>) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        let Some(wishes) = wishes.filter(|_| !self.gone) else {
            let _ = wire::post(connection.socket.as_fd(), &[WELCOME, 1]);
            connection.is_dead = true;
            return;
        };
        let buffer = if wishes.rcvbuf == 0 { PORT_BUFFER } else { wishes.rcvbuf as usize }; // u32 fits
        let _ = setsockopt(&connection.socket, sockopt::SndBuf, &buffer); // the default will do
        let welcome = [WELCOME, 0];
        let page = [self.page.as_raw_fd()];
        let sent = sendmsg::<()>(
            connection.socket.as_raw_fd(),
            &[IoSlice::new(&welcome)],
            &[ControlMessage::ScmRights(&page)],
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            None,
        );
        connection.is_dead = sent.is_err();
        connection.wishes = Some(wishes);
    }

    /// A port's frame onto the bus.
    fn take(&mut self, from: u64, frame: Frame) {
        if !self.is_up || self.swallow || self.bus_off {
            return;
        }
        if self.delay.is_zero() && self.delayed.is_empty() {
            self.distribute(from, &frame, wire::LOCAL);
        } else if self.delayed.len() < DELAYED {
            // Behind what waits already, even if the delay has just ended: a bus keeps the order.
            self.delayed.push_back(Delayed { due: clock::now() + self.delay, from, frame });
        }
    }

    /// Lets go of the frames that are due.
    fn release(&mut self, now: Instant) {
        while self.delayed.front().is_some_and(|d| d.due <= now) {
            if let Some(d) = self.delayed.pop_front() {
                self.distribute(d.from, &d.frame, wire::LOCAL);
            }
        }
    }

    /// To everybody else first, then the echo to the sender: the echo says that it was sent.
    fn distribute(&mut self, from: u64, frame: &Frame, flags: u8) {
        let wants = |c: &Connection| c.wishes.as_ref().is_some_and(|w| w.want(frame));
        for c in self.connections.iter_mut().filter(|c| c.token != from && wants(c)) {
            c.deliver(frame, flags);
        }
        let echo = |c: &&mut Connection| {
            c.token == from && wants(c) && c.wishes.as_ref().is_some_and(|w| w.own_messages)
        };
        if let Some(sender) = self.connections.iter_mut().find(echo) {
            sender.deliver(frame, flags | wire::OWN);
        }
    }

    /// Puts a fault in force.
    fn apply(&mut self, fault: Fault) {
        match fault {
            Fault::Clear => {
                (self.swallow, self.stall, self.bus_off, self.gone) = (false, false, false, false);
                self.delay = Duration::ZERO;
                self.is_up = true;
                self.publish();
            }
            Fault::Down => {
                if self.is_up {
                    self.downs += 1;
                }
                self.is_up = false;
                self.publish();
                self.lose_stored();
                self.wake();
            }
            Fault::Swallow(on) => self.swallow = on,
            Fault::Stall(on) => self.stall = on,
            Fault::Delay(by) => self.delay = by,
            Fault::BusOff => {
                self.bus_off = true;
                self.delayed.clear();
                self.distribute(0, &Frame::error(errorframe::BUS_OFF, [0; 8]), 0);
            }
            Fault::Restart => {
                self.bus_off = false;
                self.distribute(0, &Frame::error(errorframe::RESTARTED, [0; 8]), 0);
            }
            Fault::Inject(frame) => self.distribute(0, &frame, 0),
            Fault::Gone => {
                self.gone = true;
                self.delayed.clear();
                for c in self.connections.iter_mut().filter(|c| c.wishes.is_some()) {
                    c.is_dead = true;
                }
                // Shut before the caller is answered: the ports see it at once.
                for c in self.connections.iter().filter(|c| c.is_dead) {
                    let _ =
                        nix::sys::socket::shutdown(c.socket.as_raw_fd(), nix::sys::socket::Shutdown::Both);
                }
            }
            Fault::End => self.ended = true,
        }
    }

    /// Loses what is on its way, as an interface does that goes down.
    fn lose_stored(&mut self) {
        self.delayed.clear();
        let mut message = [0; wire::MESSAGE];
        for c in self.connections.iter().filter(|c| c.wishes.is_some()) {
            // Attached ports send frames only. The end of a connection is found by the next turn too.
            while sys::receive(c.socket.as_fd(), &mut message).is_ok_and(|got| got.len > 0) {}
        }
    }

    /// Writes the link state where every port sees it.
    fn publish(&mut self) {
        self.state.store(wire::STATE_WORD, self.downs << 1 | u64::from(self.is_up));
    }

    /// Wakes every port. One whose buffer is full has something to read anyway.
    fn wake(&mut self) {
        for c in self.connections.iter().filter(|c| c.wishes.is_some()) {
            let _ = wire::post(c.socket.as_fd(), &[WAKE]);
        }
    }
}
