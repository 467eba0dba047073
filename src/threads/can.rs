//! A can thread: waits on one CAN bus.
//!
//! Owns the reading socket, and opens and closes the actuator socket for the watchdog, because both may wait in the
//! kernel. Relies on `io::canbus`. Never writes a frame.

use std::sync::Arc;

use super::fault_point;
use crate::can::Id;
use crate::io::canbus::{Accept, BusAddress, OpenError, Port, PortOptions, RecvError};
use crate::io::clock;
use crate::signals::plan::Echo;
use crate::time::{Duration, Instant};
use crate::topology::{ActuatorSocket, Arrival, Counter, Event, Rx, Shared, Tx};

/// Longest wait for a frame: the thread's stamp must stay younger than 50 ms.
const READ_TURN: Duration = Duration::from_millis(20);

/// Time between two attempts to open a bus that is not there.
const REOPEN: Duration = Duration::from_millis(100);

/// Receive buffer of the reading socket, as the kernel counts it (about 800 bytes a frame): a scheduling gap of 60 ms
/// on a full 1 Mbit/s bus, half of what the kernel's default maximum allows.
const RCVBUF: usize = 400_000;

/// A transmit queue that holds more frames than this stores old commands for too long (the default of a CAN
/// interface is 10).
const QUEUE_MAX: u32 = 64;

/// What the thread can reach.
pub(super) struct Ends {
    pub(super) bus: usize,
    pub(super) address: BusAddress,
    pub(super) fd: bool,
    pub(super) echo: Echo,
    pub(super) own_ids: Vec<Id>,
    pub(super) feedback_ids: Vec<Id>,
    pub(super) to_watchdog: Tx<Arrival>,
    pub(super) to_ocp: Tx<Arrival>,
    pub(super) sockets: Tx<ActuatorSocket>,
    pub(super) dead: Rx<Port>,
    pub(super) events: Tx<Event>,
    pub(super) shared: Arc<Shared>,
}

/// Runs until the watchdog has ended.
pub(super) fn run(ends: &Ends) {
    let mut told = None;
    while !ends.shared.ended() {
        match ends.open() {
            Ok(port) => {
                told = None;
                ends.events.offer(Event::Bus { bus: ends.bus, what: "open" });
                ends.read(&port);
                ends.events.offer(Event::Bus { bus: ends.bus, what: "gone" });
            }
            Err(error) => {
                if told.replace(error.cause) != Some(error.cause) {
                    ends.events.offer(Event::BusUnavailable { bus: ends.bus, cause: error.cause });
                }
            }
        }
        ends.rest();
    }
}

impl Ends {
    /// Opens both sockets and hands the actuator socket over.
    fn open(&self) -> Result<Port, OpenError> {
        let reading = PortOptions { fd: self.fd, rcvbuf: Some(RCVBUF), ..PortOptions::default() };
        let port = Port::open(&self.address, &reading)?;
        let writing = PortOptions {
            accept: Accept::Only(self.own_ids.clone()),
            errors: true,
            own_messages: true,
            fd: self.fd,
            priority6: true,
            ..PortOptions::default()
        };
        let actuator = Port::open(&self.address, &writing)?;
        let facts = actuator.facts().ok();
        let echoed = facts.as_ref().is_some_and(|facts| facts.is_virtual || facts.has_driver_echo);
        let queue_ok = facts.as_ref().is_some_and(|facts| facts.is_virtual || facts.queue_len <= QUEUE_MAX);
        let proof = (echoed || self.echo == Echo::Unproven) && queue_ok;
        if !queue_ok {
            let what = "transmit queue longer than 64 frames: set txqueuelen 10";
            self.events.offer(Event::Bus { bus: self.bus, what });
        }
        if !echoed && self.echo == Echo::Unproven {
            let what = "open, echo unproven: that frames leave is not known";
            self.events.offer(Event::Bus { bus: self.bus, what });
        }
        self.sockets.offer(ActuatorSocket { bus: self.bus, port: actuator, proof });
        Ok(port)
    }

    /// Reads until the interface is gone.
    fn read(&self, port: &Port) {
        let mut lost = 0;
        while !self.shared.ended() {
            fault_point::pass("can");
            let received = port.recv(Some(READ_TURN));
            let now = clock::now();
            self.shared.beat_can(self.bus, now);
            match received {
                Ok(Some(received)) => {
                    self.shared.add_counter(Counter::CanFrames, 1);
                    // The kernel counts per socket, wrapping; the difference is what is new.
                    let more = received.dropped_total.wrapping_sub(lost);
                    lost = received.dropped_total;
                    self.shared.add_counter(Counter::CanOverflow, u64::from(more));
                    self.deliver(received.at, &received.frame);
                }
                Ok(None) | Err(RecvError::Down) => self.close_dead(),
                Err(RecvError::Gone | RecvError::Io(_)) => return,
            }
        }
    }

    fn deliver(&self, at: Instant, frame: &crate::can::Frame) {
        if self.feedback_ids.contains(&frame.id()) {
            let arrival = Arrival { bus: self.bus, at, frame: *frame };
            self.to_watchdog.offer(arrival);
            self.shared.set_counter(Counter::FeedbackEvicted, self.to_watchdog.dropped());
            self.to_ocp.offer(arrival);
        }
    }

    /// Closes sockets that the watchdog gave back.
    fn close_dead(&self) {
        while let Some(port) = self.dead.take() {
            drop(port);
        }
    }

    /// Waits between two attempts, beating.
    fn rest(&self) {
        let until = clock::now() + REOPEN;
        loop {
            let now = clock::now();
            self.shared.beat_can(self.bus, now);
            self.close_dead();
            if now >= until || self.shared.ended() {
                return;
            }
            std::thread::sleep(until.since(now).min(READ_TURN));
        }
    }
}
