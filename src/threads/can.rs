//! A can thread: waits on one CAN bus.
//!
//! Owns the reading socket, and opens and closes the actuator socket for the watchdog, because both may wait in the
//! kernel. Relies on `io::canbus`. Never writes a frame.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::fault_point;
use crate::can::{Frame, Id};
use crate::io::canbus::{Accept, BusAddress, OpenCause, OpenError, Port, PortOptions, RecvError};
use crate::io::clock;
use crate::limits::TRANSMIT_QUEUE;
use crate::signals::plan::Echo;
use crate::time::{Duration, Instant};
use crate::topology::gauges::BusGauge;
use crate::topology::{ActuatorSocket, Arrival, Counter, Event, Rx, Shared, Tx};

/// Longest wait for a frame: the thread's stamp must stay younger than 50 ms.
const READ_TURN: Duration = Duration::from_millis(20);

/// Time between two attempts to open a bus that is not there.
const REOPEN: Duration = Duration::from_millis(100);

/// Receive buffer of the reading socket, as the kernel counts it (about 800 bytes a frame): a scheduling gap of 60 ms
/// on a full 1 Mbit/s bus, half of what the kernel's default maximum allows.
const RCVBUF: usize = 400_000;

/// While an interface cannot prove that frames leave, it is looked at again this often: a person who corrects it
/// (shortens the queue) need not restart the gateway.
const PROOF_CHECK: Duration = Duration::from_secs(1);

/// What the thread can reach.
pub(super) struct Ends {
    pub(super) bus: usize,
    pub(super) address: BusAddress,
    pub(super) fd: bool,
    pub(super) echo: Echo,
    /// A physical bus is refused.
    pub(super) virtual_only: bool,
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
            Ok((port, proof)) => {
                told = None;
                // First, so that whoever hears of it sees it.
                ends.note_up(true);
                ends.events.offer(Event::Bus { bus: ends.bus, what: "open" });
                ends.read(&port, proof);
                ends.note_up(false);
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
    /// Opens both sockets and hands the actuator socket over. Returns the reading one, and whether an echo is a proof.
    fn open(&self) -> Result<(Port, bool), OpenError> {
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
        if self.virtual_only && !actuator.facts().is_ok_and(|facts| facts.is_virtual) {
            return Err(OpenError { bus: self.address.clone(), cause: OpenCause::Physical });
        }
        let proof = Proof::of(&actuator);
        if !proof.queue {
            let what = "transmit queue longer than 64 frames: set txqueuelen 10";
            self.events.offer(Event::Bus { bus: self.bus, what });
        }
        if !proof.echo && self.echo == Echo::Unproven {
            let what = "open, echo unproven: that frames leave is not known";
            self.events.offer(Event::Bus { bus: self.bus, what });
        }
        let proof = proof.is_enough(self.echo);
        self.sockets.offer(ActuatorSocket { bus: self.bus, port: actuator, proof });
        Ok((port, proof))
    }

    /// Reads until the interface is gone.
    fn read(&self, port: &Port, mut proof: bool) {
        let mut lost = 0;
        let mut up = true;
        let mut checked_at = clock::now();
        while !self.shared.ended() {
            fault_point::pass("can");
            let received = port.recv(Some(READ_TURN));
            let now = clock::now();
            self.shared.beat_can(self.bus, now);
            // That the interface went down is told once; until it is up again there is only silence.
            up = match received {
                Ok(Some(_)) => true,
                Ok(None) => up || port.is_up(),
                Err(_) => false,
            };
            self.note_up(up);
            if !proof && now.since(checked_at) >= PROOF_CHECK {
                checked_at = now;
                proof = Proof::of(port).is_enough(self.echo);
                if proof {
                    // The sockets stay: a new one would take what the old one has in flight for another writer's.
                    self.shared.note_proof(self.bus);
                    self.events
                        .offer(Event::Bus { bus: self.bus, what: "corrected: it proves that frames leave" });
                }
            }
            match received {
                Ok(Some(received)) => {
                    self.shared.add_counter(Counter::CanFrames, 1);
                    self.measure(&received.frame);
                    // The kernel counts per socket, wrapping; the difference is what is new.
                    let more = received.dropped_total.wrapping_sub(lost);
                    lost = received.dropped_total;
                    self.shared.add_counter(Counter::CanOverflow, u64::from(more));
                    if let Some(gauge) = self.gauge() {
                        gauge.lost.fetch_add(more.into(), Relaxed);
                    }
                    self.deliver(received.at, &received.frame);
                }
                Ok(None) | Err(RecvError::Down) => self.close_dead(),
                Err(RecvError::Gone | RecvError::Io(_)) => return,
            }
        }
    }

    fn gauge(&self) -> Option<&BusGauge> {
        self.shared.gauges.buses.get(self.bus)
    }

    fn note_up(&self, is_up: bool) {
        if let Some(gauge) = self.gauge() {
            gauge.up.store(is_up, Relaxed);
        }
    }

    /// Counts the frame for the load of the bus.
    fn measure(&self, frame: &Frame) {
        if let Some(gauge) = self.gauge() {
            let (nominal, data) = frame.wire_bits();
            gauge.frames.fetch_add(1, Relaxed);
            gauge.nominal_bits.fetch_add(nominal.into(), Relaxed);
            gauge.data_bits.fetch_add(data.into(), Relaxed);
        }
    }

    fn deliver(&self, at: Instant, frame: &Frame) {
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

/// What the interface itself says about its echo.
#[derive(Debug, Clone, Copy)]
struct Proof {
    /// The driver makes the echo when the frame has left, or there is no wire that it could miss.
    echo: bool,
    /// The queue cannot store many old frames.
    queue: bool,
}

impl Proof {
    fn of(port: &Port) -> Self {
        let facts = port.facts().ok();
        Self {
            echo: facts.as_ref().is_some_and(|facts| facts.is_virtual || facts.has_driver_echo),
            queue: facts.as_ref().is_some_and(|facts| facts.is_virtual || facts.queue_len <= TRANSMIT_QUEUE),
        }
    }

    fn is_enough(self, demanded: Echo) -> bool {
        (self.echo || demanded == Echo::Unproven) && self.queue
    }
}
