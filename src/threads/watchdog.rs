//! The watchdog thread: the only writer of actuator frames.
//!
//! Owns the actuator sockets and the rhythm. Relies on `nodes::watchdog` and through it on the safety core. Never
//! waits for anyone but its own channel and tick, never allocates after its first turn, never logs: events go to main.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::fault_point;
use crate::io::canbus::{Port, Received, RecvError, SendError};
use crate::io::clock;
use crate::io::notify::Heartbeat;
use crate::io::runtime::{LastCounters, RuntimeDirectory};
use crate::limits::{BUSES, FEEDBACK_DEPTH};
use crate::nodes::watchdog::{Published, Seen, WatchdogNode};
use crate::safety::buswatch::BusEvent;
use crate::safety::faults::Fault;
use crate::safety::input::{Output, Requests, Status, Stop};
use crate::safety::transmit::Written;
use crate::time::{Duration, Instant};
use crate::topology::{ActuatorSocket, Arrival, Counter, Demand, Event, Rx, Shared, Tx};

/// Longest wait. The reaction budget allows 8 ms to wake up; a quarter of the usual 20 ms period.
const TICK: Duration = Duration::from_millis(5);

/// Wait while a trip is being proven: its safe frame may have to follow an echo.
const TICK_PROVING: Duration = Duration::from_millis(1);

/// The operator's mailbox is refreshed at OCP's own pace.
const STATUS_PERIOD: Duration = Duration::from_millis(10);

/// The checklist on the terminal and the log are told of changes, and of nothing at least this often.
const EVENT_PERIOD: Duration = Duration::from_millis(200);

/// Sign of life to the service manager: a fifth of `WatchdogSec=1s`.
const HEARTBEAT_PERIOD: Duration = Duration::from_millis(200);

/// Between deciding and writing; a longer gap decides again first, so that no old decision reaches the bus.
const DECISION_AGE: Duration = Duration::from_millis(5);

/// Frames taken from one socket between two steps.
const DRAIN: usize = FEEDBACK_DEPTH;

/// Safe frames that the watchdog's own panic handler sends: one cycle of a 4-bit counter.
const LAST_CYCLE: usize = 16;

/// What the thread can reach.
pub(super) struct Ends {
    pub(super) node: WatchdogNode,
    pub(super) buses: usize,
    pub(super) demand: Rx<Demand>,
    pub(super) feedback: Rx<Arrival>,
    pub(super) sockets: Rx<ActuatorSocket>,
    pub(super) dead: Tx<Port>,
    pub(super) status: Tx<Status>,
    /// The same for the management plane.
    pub(super) mirror: Tx<Status>,
    pub(super) events: Tx<Event>,
    pub(super) shared: Arc<Shared>,
    pub(super) listen_only: bool,
    pub(super) last_counters: Option<LastCounters>,
    pub(super) runtime: Option<RuntimeDirectory>,
}

/// One actuator bus as the thread holds it.
#[derive(Debug, Default)]
struct Bus {
    port: Option<Port>,
    proof: bool,
    up: bool,
}

/// The thread's own state.
struct Watchdog {
    ends: Ends,
    buses: [Bus; BUSES],
    heartbeat: Heartbeat,
    status_at: Instant,
    event_at: Instant,
    heartbeat_at: Instant,
    told: Option<Status>,
}

/// Runs until it was asked to end and safe frames are proven.
pub(super) fn run(ends: Ends) {
    let mut watchdog = Watchdog {
        ends,
        buses: Default::default(),
        heartbeat: Heartbeat::connect(),
        status_at: Instant::ZERO,
        event_at: Instant::ZERO,
        heartbeat_at: Instant::ZERO,
        told: None,
    };
    let result = catch_unwind(AssertUnwindSafe(|| while !watchdog.turn() {}));
    if let Err(panic) = result {
        // The sockets are still here: the last thing this process does on the bus is safe.
        watchdog.last_frames();
        resume_unwind(panic);
    }
    watchdog.ends.events.offer(Event::WatchdogEnded);
    watchdog.ends.shared.end();
}

impl Watchdog {
    /// One turn: wait, collect, decide, write, tell. True where it was the last.
    fn turn(&mut self) -> bool {
        fault_point::pass("watchdog");
        self.wait();
        self.adopt_sockets();
        self.collect();
        let now = clock::now();
        let output = self.step(now);
        let now = self.transmit(now);
        self.tell(now, &output);
        if let Some(bus) = output.restart {
            self.ask_restart(bus);
        }
        self.ends.shared.beat_watchdog(now);
        output.finished
    }

    /// Waits for a command or the tick, whichever is first.
    fn wait(&mut self) {
        let now = clock::now();
        let core = self.ends.node.core();
        let tick = if core.is_proving(now) { TICK_PROVING } else { TICK };
        let due = core.poll_timeout(now).map_or(tick, |due| due.since(now));
        // Until the next frame is due and no longer: its period is kept to the microsecond. A due time that has passed
        // while a bus is not ready must not make this a busy loop.
        let at_most = tick.min(if due.is_zero() { TICK_PROVING } else { due });
        let mut demand = self.ends.demand.wait(at_most);
        while let Some(newest) = demand {
            if let Demand::Command(command) = newest {
                self.ends.node.handle_command(command);
            }
            demand = self.ends.demand.take();
        }
    }

    /// Takes over sockets that a can thread opened.
    fn adopt_sockets(&mut self) {
        while let Some(socket) = self.ends.sockets.take() {
            let now = clock::now();
            let Some(bus) = self.buses.get_mut(socket.bus) else { continue };
            if let Some(old) = bus.port.replace(socket.port) {
                self.ends.dead.offer(old);
                self.ends.node.handle_bus(now, socket.bus, BusEvent::Gone);
            }
            // What was told before belongs to the socket before.
            self.ends.shared.take_proof(socket.bus);
            bus.proof = socket.proof;
            bus.up = true;
            self.ends.node.handle_bus(now, socket.bus, BusEvent::Up { proof: socket.proof });
        }
    }

    /// Takes everything that the sockets and the can threads have.
    fn collect(&mut self) {
        for index in 0..self.ends.buses {
            let Some(bus) = self.buses.get_mut(index) else { continue };
            if !bus.up
                && let Some(port) = &bus.port
                && port.is_up()
            {
                bus.up = true;
                let event = BusEvent::Up { proof: bus.proof };
                self.ends.node.handle_bus(clock::now(), index, event);
            }
            if bus.up && self.ends.shared.take_proof(index) {
                bus.proof = true;
                self.ends.node.handle_bus(clock::now(), index, BusEvent::Up { proof: true });
            }
            self.drain(index);
        }
        for _ in 0..FEEDBACK_DEPTH {
            let Some(arrival) = self.ends.feedback.take() else { break };
            self.ends.node.handle_feedback(arrival.at, arrival.bus, &arrival.frame);
        }
    }

    fn drain(&mut self, index: usize) {
        for _ in 0..DRAIN {
            let Some(Bus { port: Some(port), .. }) = self.buses.get(index) else { return };
            match port.recv(None) {
                Ok(Some(received)) => {
                    let Received { at, frame, own, local, .. } = received;
                    let seen = self.ends.node.handle_received(at, index, &frame, own, local);
                    self.measure(index, at, &seen);
                }
                Ok(None) => return,
                Err(RecvError::Down) => self.bus_down(index),
                Err(RecvError::Gone | RecvError::Io(_)) => self.bus_gone(index),
            }
        }
    }

    /// Publishes what a frame told: plain stores.
    fn measure(&self, bus: usize, at: Instant, seen: &Seen) {
        let gauges = &self.ends.shared.gauges;
        match seen {
            Seen::Confirmed { message, from_door } => {
                if let Some(send) = gauges.sends.get(*message) {
                    send.note_confirmed(at);
                }
                if let Some(time) = from_door {
                    gauges.door_to_bus.note(*time);
                }
            }
            Seen::Error(class) => {
                let Some(gauge) = gauges.buses.get(bus) else { return };
                gauge.errors.fetch_add(1, Relaxed);
                if let Some(state) = class.controller_state() {
                    gauge.set_controller(Some(state));
                }
                if let Some((transmit, receive)) = class.counters() {
                    gauge.set_counters(transmit, receive);
                }
            }
            Seen::Other => {}
        }
    }

    /// What a controller said of itself is not known of the next one, nor after a restart.
    fn forget_controller(&self, index: usize) {
        if let Some(gauge) = self.ends.shared.gauges.buses.get(index) {
            gauge.set_controller(None);
            gauge.forget_counters();
        }
    }

    fn bus_down(&mut self, index: usize) {
        self.forget_controller(index);
        if let Some(bus) = self.buses.get_mut(index) {
            bus.up = false;
            self.ends.node.handle_bus(clock::now(), index, BusEvent::Down);
        }
    }

    fn bus_gone(&mut self, index: usize) {
        self.forget_controller(index);
        if let Some(bus) = self.buses.get_mut(index) {
            bus.up = false;
            if let Some(port) = bus.port.take() {
                self.ends.dead.offer(port);
            }
            self.ends.node.handle_bus(clock::now(), index, BusEvent::Gone);
        }
    }

    fn step(&mut self, now: Instant) -> Output {
        let shared = &self.ends.shared;
        let (trips, trips_at) = shared.take_trips();
        let trips = trips.union(self.ends.node.in_the_way(shared.obstacles()));
        let published = Published {
            link: shared.link(),
            trips,
            trips_at,
            ocp_beat: shared.ocp_beat(),
            can_beats: shared.can_beats(),
            requests: shared.take_requests(),
        };
        self.ends.node.step(now, &published)
    }

    /// Writes every frame that is due. Returns the time after the last write.
    fn transmit(&mut self, decided: Instant) -> Instant {
        if self.ends.listen_only {
            return decided;
        }
        let mut decided = decided;
        let mut now = decided;
        let mut from = 0;
        while let Some(next) = self.ends.node.core_mut().poll_transmit(decided, from) {
            now = clock::now();
            if now.since(decided) > DECISION_AGE {
                // Held up between deciding and writing: decide again with what is known now.
                decided = now;
                if let Some(bus) = self.step(now).restart {
                    self.ask_restart(bus);
                }
                continue;
            }
            from = next.message + 1;
            let result = match self.buses.get(next.bus) {
                Some(Bus { port: Some(port), up: true, .. }) => port.try_send(&next.frame),
                _ => Err(SendError::Down),
            };
            let written = match result {
                Ok(()) => Written::Accepted,
                Err(SendError::Full) => Written::Full,
                Err(SendError::Down | SendError::Gone | SendError::Refused(_)) => Written::Failed,
            };
            self.ends.node.core_mut().handle_written(now, &next, written);
            self.note_written(next.message, written);
            if written == Written::Accepted
                && let Some(last) = &self.ends.last_counters
            {
                // Counters are at most 8 bits wide where a receiver checks them; of a wider one the low byte serves.
                let counter = next.counter.to_le_bytes()[0];
                let bus = u8::try_from(next.bus).unwrap_or(u8::MAX);
                last.record(next.message, bus, next.frame.id(), counter);
            }
            match result {
                Err(SendError::Down) => self.bus_down(next.bus),
                Err(SendError::Gone) => self.bus_gone(next.bus),
                _ => {}
            }
        }
        now
    }

    fn note_written(&mut self, message: usize, written: Written) {
        let is_taken = written == Written::Accepted;
        if is_taken {
            self.ends.node.note_written(message);
        }
        if let Some(gauge) = self.ends.shared.gauges.sends.get(message) {
            let count = if is_taken { &gauge.written } else { &gauge.refused };
            count.fetch_add(1, Relaxed);
        }
    }

    /// Tells the others what is.
    fn tell(&mut self, now: Instant, output: &Output) {
        let status = self.ends.node.core().status();
        self.ends.shared.set_state(status.state);
        self.ends.shared.set_can_alive(status.can_alive);
        let changed = output.left.is_some() || output.trip.is_some() || output.reaction.is_some();
        if changed || now.since(self.status_at) >= STATUS_PERIOD {
            self.status_at = now;
            self.ends.status.offer(status);
            self.ends.mirror.offer(status);
        }
        let news = self.told.is_none_or(|told| {
            told.checklist != status.checklist || told.faults != status.faults || told.state != status.state
        });
        if changed || (news && now.since(self.event_at) >= EVENT_PERIOD) {
            self.event_at = now;
            self.told = Some(status);
            self.ends.events.offer(Event::Status(status));
        }
        if now.since(self.heartbeat_at) >= HEARTBEAT_PERIOD || output.finished {
            self.heartbeat_at = now;
            self.heartbeat.beat();
            self.count(&status);
        }
    }

    /// Publishes what was counted: plain stores.
    fn count(&self, status: &Status) {
        let counted = self.ends.node.counters();
        let shared = &self.ends.shared;
        shared.set_counter(Counter::Echoes, counted.echoes);
        shared.set_counter(Counter::Foreign, counted.foreign);
        shared.set_counter(Counter::BusErrors, counted.errors);
        shared.set_counter(Counter::Forged, counted.forged);
        shared.set_counter(Counter::EventOverflow, counted.overflow);
        shared.set_counter(Counter::OldCommands, u64::from(status.dropped_commands));
        shared.set_counter(Counter::EventsDropped, self.ends.events.dropped());
    }

    /// Asks the bring-up unit for a restart of the interface.
    fn ask_restart(&self, bus: usize) {
        let Some(runtime) = &self.ends.runtime else { return };
        let Some(plan) = self.ends.node.core().plan().buses.get(bus) else { return };
        let Ok(address) = plan.interface.parse() else { return };
        // Once per bus-off, on a tmpfs; a failure leaves the bus off, which is already the fault that is shown.
        let _ = runtime.request_bus_restart(&address);
    }

    /// After a panic of this very thread: one counter cycle of safe frames.
    fn last_frames(&mut self) {
        let _ = catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..LAST_CYCLE {
                self.collect();
                let now = clock::now();
                let published = Published {
                    link: None,
                    trips: Fault::Panic.into(),
                    trips_at: Some(now),
                    ocp_beat: None,
                    can_beats: [None; BUSES],
                    requests: Requests { stop: Stop::Now, ..Requests::default() },
                };
                self.ends.node.step(now, &published);
                self.ends.node.core_mut().hurry();
                self.transmit(now);
                std::thread::sleep(TICK_PROVING * 5);
            }
        }));
    }
}
