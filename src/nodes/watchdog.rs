//! The watchdog, decided: what its sockets and the other threads deliver becomes the core's input, and the core's
//! answer becomes frames.
//!
//! Owns the classification of frames on the actuator sockets (echo, foreign writer, error message) and the buffer
//! of events between two steps. Relies on `safety::core`. Never waits, never writes: the thread does.

use crate::can::errorframe::ErrorClass;
use crate::can::{Frame, FrameKind, Id};
use crate::limits::{BUSES, FEEDBACK_DEPTH};
use crate::safety::buswatch::BusEvent;
use crate::safety::core::Core;
use crate::safety::envelope::is_actuator;
use crate::safety::faults::Faults;
use crate::safety::input::{CanEvent, Command, Input, Output, Requests, StateName};
use crate::time::{Duration, Instant};

/// What one frame on an actuator socket tells about the bus, beside what the core makes of it.
#[derive(Debug, Clone, Copy)]
pub enum Seen {
    /// One of our frames has left.
    Confirmed {
        /// Its place in the plan.
        message: usize,
        /// From the door to here, where it is the first one after a command.
        from_door: Option<Duration>,
    },
    /// The driver reports an error.
    Error(ErrorClass),
    /// Anything else.
    Other,
}

/// Events kept between two steps: a full feedback channel, and as many echoes and errors again.
const EVENTS: usize = 2 * FEEDBACK_DEPTH;

/// What the other threads published.
#[derive(Debug, Clone, Copy)]
pub struct Published {
    /// The connected session.
    pub link: Option<u32>,
    /// Faults raised since the last step.
    pub trips: Faults,
    /// When the first of them was at our door.
    pub trips_at: Option<Instant>,
    /// When the ocp thread last came round.
    pub ocp_beat: Option<Instant>,
    /// When each can thread last came round.
    pub can_beats: [Option<Instant>; BUSES],
    /// What people ask for.
    pub requests: Requests,
}

/// Counters of the actuator sockets.
#[derive(Debug, Clone, Copy, Default)]
pub struct WatchdogCounters {
    /// Echoes of our own frames.
    pub echoes: u64,
    /// Frames with one of our ids that we did not send.
    pub foreign: u64,
    /// Error messages of the driver.
    pub errors: u64,
    /// Error messages that a local program wrote; ignored (fault 66).
    pub forged: u64,
    /// Events that did not fit between two steps.
    pub overflow: u64,
}

/// The watchdog's pure half.
#[derive(Debug)]
pub struct WatchdogNode {
    core: Core,
    /// Bus and identifier of every frame that only we may send.
    own_ids: Vec<(usize, Id)>,
    events: Vec<(usize, Instant, CanEvent)>,
    command: Option<Command>,
    counters: WatchdogCounters,
    /// When the newest command was at our door, until a frame was written after it.
    door: Option<Instant>,
    /// The frame that was written first after it, until it is confirmed.
    on_its_way: Option<(usize, Instant)>,
}

impl WatchdogNode {
    /// A node around a core.
    #[must_use]
    pub fn new(core: Core) -> Self {
        let own_ids = core.plan().send.iter().map(|send| (send.bus, send.id)).collect();
        Self {
            core,
            own_ids,
            events: Vec::with_capacity(EVENTS),
            command: None,
            counters: WatchdogCounters::default(),
            door: None,
            on_its_way: None,
        }
    }

    /// The identifiers that the watchdog's socket on this bus listens to.
    pub fn own_ids(&self, bus: usize) -> impl Iterator<Item = Id> {
        self.own_ids.iter().filter(move |(at, _)| *at == bus).map(|(_, id)| *id)
    }

    /// The core.
    #[must_use]
    pub const fn core(&self) -> &Core {
        &self.core
    }

    /// The core, for taking frames out.
    pub const fn core_mut(&mut self) -> &mut Core {
        &mut self.core
    }

    /// What was counted.
    #[must_use]
    pub const fn counters(&self) -> WatchdogCounters {
        self.counters
    }

    /// Takes a command; an older one that was not stepped yet is replaced.
    pub const fn handle_command(&mut self, command: Command) {
        self.door = Some(command.liveness.received_at);
        self.command = Some(command);
    }

    /// The interface took a frame of the plan. With it the wait for the newest command's frame ends.
    pub fn note_written(&mut self, message: usize) {
        let is_actuator = self.core.plan().send.get(message).is_some_and(is_actuator);
        if is_actuator && let Some(door) = self.door.take() {
            self.on_its_way = Some((message, door));
        }
    }

    fn confirmed(&mut self, at: Instant, bus: usize, id: Id) -> Seen {
        let Some(message) = self.own_ids.iter().position(|own| *own == (bus, id)) else { return Seen::Other };
        let from_door =
            self.on_its_way.take_if(|(first, _)| *first == message).map(|(_, door)| at.since(door));
        Seen::Confirmed { message, from_door }
    }

    /// Takes a frame of the actuator socket. `own` is the kernel's word that it is our echo, `local` that a program
    /// on this machine sent it.
    pub fn handle_received(
        &mut self,
        at: Instant,
        bus: usize,
        frame: &Frame,
        own: bool,
        local: bool,
    ) -> Seen {
        if own {
            self.counters.echoes += 1;
            self.push(at, bus, CanEvent::Echo(*frame));
            return self.confirmed(at, bus, frame.id());
        }
        if let Some(class) = frame.error_class() {
            if local {
                self.counters.forged += 1;
                return Seen::Other;
            }
            self.counters.errors += 1;
            if class.is_bus_off() {
                self.push(at, bus, CanEvent::Bus(BusEvent::BusOff));
            } else if class.is_restarted() {
                self.push(at, bus, CanEvent::Bus(BusEvent::Restarted));
            }
            return Seen::Error(class);
        }
        // A remote frame asks for data; it commands nothing.
        if matches!(frame.kind(), FrameKind::Remote) {
            return Seen::Other;
        }
        if self.own_ids.contains(&(bus, frame.id())) {
            self.counters.foreign += 1;
            self.push(at, bus, CanEvent::Foreign);
        }
        Seen::Other
    }

    /// Takes a feedback frame.
    pub fn handle_feedback(&mut self, at: Instant, bus: usize, frame: &Frame) {
        self.push(at, bus, CanEvent::Frame(*frame));
    }

    /// Takes a change of the interface.
    pub fn handle_bus(&mut self, at: Instant, bus: usize, event: BusEvent) {
        self.push(at, bus, CanEvent::Bus(event));
    }

    fn push(&mut self, at: Instant, bus: usize, event: CanEvent) {
        if self.events.len() < EVENTS {
            self.events.push((bus, at, event));
            return;
        }
        self.counters.overflow += 1;
        // Feedback may be lost: it grows old. An echo may be lost: its absence trips. What stops must not be.
        let rank = |event: &CanEvent| match event {
            CanEvent::Frame(_) => 0,
            CanEvent::Echo(_) => 1,
            CanEvent::Bus(_) | CanEvent::Foreign => 2,
        };
        let least = self.events.iter().enumerate().min_by_key(|(_, (_, _, old))| rank(old));
        if let Some((index, (_, _, old))) = least
            && rank(old) < rank(&event)
        {
            // Removed and pushed, so that the order in time stays.
            self.events.remove(index);
            self.events.push((bus, at, event));
        }
    }

    /// What of these obstacles is a fault now. An obstacle keeps from arming; it is no reason to stop who drives, because
    /// braking does not take it away.
    #[must_use]
    pub fn in_the_way(&self, obstacles: Faults) -> Faults {
        match self.core.status().state {
            StateName::Armed | StateName::Stopping => Faults::NONE,
            _ => obstacles,
        }
    }

    /// Steps the core with everything that came.
    pub fn step(&mut self, now: Instant, published: &Published) -> Output {
        let input = Input {
            link: published.link,
            command: self.command.as_ref(),
            trips: published.trips,
            trips_at: published.trips_at,
            can: &self.events,
            ocp_beat: published.ocp_beat,
            can_beats: published.can_beats,
            requests: published.requests,
        };
        let output = self.core.step(now, &input);
        self.events.clear();
        self.command = None;
        output
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::safety::core::CoreOptions;
    use crate::safety::faults::Fault;
    use crate::safety::input::StateName;
    use crate::safety::settings::Settings;
    use crate::sim::world::plan::{self, PlanOptions};

    const NOBODY: Published = Published {
        link: None,
        trips: Faults::NONE,
        trips_at: None,
        ocp_beat: None,
        can_beats: [None; BUSES],
        requests: Requests {
            stop: crate::safety::input::Stop::No,
            acknowledge: false,
            enter_diag: false,
            leave_diag: false,
        },
    };

    fn node() -> WatchdogNode {
        let options = CoreOptions {
            settings: Settings::default(),
            arms_per_minute: 10,
            counters: Vec::new(),
            locked_out: None,
        };
        WatchdogNode::new(Core::new(plan::plan(PlanOptions::default()), options))
    }

    fn at(ms: u64) -> Instant {
        Instant::from_millis(1_000 + ms)
    }

    fn frame(id: u32) -> Frame {
        Frame::data(Id::standard(id).unwrap(), &[0; 8]).unwrap()
    }

    #[test]
    fn row_57_and_58_a_frame_with_our_id_that_is_no_echo_is_foreign_in_every_kind() {
        for local in [false, true] {
            for written in [
                frame(plan::DRIVE_ID),
                Frame::data(Id::standard(plan::DRIVE_ID).unwrap(), &[]).unwrap(),
                Frame::fd(Id::standard(plan::DRIVE_ID).unwrap(), &[0; 8], true, false).unwrap(),
            ] {
                let mut node = node();
                node.handle_received(at(0), 0, &written, false, local);
                node.step(at(0), &NOBODY);
                assert_eq!(node.core().state(), StateName::Lockout, "{written:?}");
                assert_eq!(node.counters().foreign, 1);
            }
        }
    }

    #[test]
    fn row_63_other_buses_other_encodings_and_requests_are_not_foreign() {
        let mut node = node();
        let wide = Frame::data(Id::extended(plan::DRIVE_ID).unwrap(), &[0; 8]).unwrap();
        node.handle_received(at(0), 0, &wide, false, false);
        node.handle_received(at(0), 1, &frame(plan::DRIVE_ID), false, false);
        let request = Frame::remote(Id::standard(plan::DRIVE_ID).unwrap(), 8).unwrap();
        node.handle_received(at(0), 0, &request, false, false);
        node.handle_received(at(0), 0, &frame(plan::DRIVE_ID), true, true);
        node.step(at(0), &NOBODY);
        assert_ne!(node.core().state(), StateName::Lockout);
        assert_eq!((node.counters().foreign, node.counters().echoes), (0, 1));
    }

    #[test]
    fn row_66_an_error_message_of_a_local_program_is_ignored() {
        // Class bit 6 is bus-off.
        let bus_off = Frame::error(0x40, [0; 8]);
        assert!(bus_off.error_class().unwrap().is_bus_off());
        let mut node = node();
        node.handle_bus(at(0), 0, BusEvent::Up { proof: true });
        node.handle_received(at(1), 0, &bus_off, false, true);
        node.step(at(1), &NOBODY);
        assert!(!node.core().status().faults.contains(Fault::BusOff));
        node.handle_received(at(2), 0, &bus_off, false, false);
        node.step(at(2), &NOBODY);
        assert!(node.core().status().faults.contains(Fault::BusOff));
        assert_eq!((node.counters().errors, node.counters().forged), (1, 1));
    }

    #[test]
    fn row_85_a_full_buffer_loses_feedback_before_echoes_and_never_what_stops() {
        let mut node = node();
        node.handle_received(at(0), 0, &frame(plan::DRIVE_ID), false, false);
        for _ in 0..EVENTS {
            node.handle_feedback(at(0), 0, &frame(plan::STATE_ID));
        }
        for _ in 0..EVENTS {
            node.handle_received(at(1), 0, &frame(plan::DRIVE_ID), true, false);
        }
        let kept = |node: &WatchdogNode, kind: fn(&CanEvent) -> bool| {
            node.events.iter().filter(|(_, _, event)| kind(event)).count()
        };
        assert_eq!(kept(&node, |event| matches!(event, CanEvent::Frame(_))), 0);
        for bus in 0..2 {
            node.handle_bus(at(2), bus, BusEvent::Down);
        }
        assert_eq!(kept(&node, |event| matches!(event, CanEvent::Foreign)), 1);
        assert_eq!(kept(&node, |event| matches!(event, CanEvent::Bus(BusEvent::Down))), 2);
        assert_eq!(node.events.len(), EVENTS);
        assert!(node.events.windows(2).all(|pair| pair[0].1 <= pair[1].1), "in the order of time");
        assert_eq!(node.events.capacity(), EVENTS, "never allocated again");
    }

    #[test]
    fn only_the_newest_command_reaches_the_core_and_only_once() {
        use crate::safety::liveness::Session;
        let mut session = Session::new();
        let mut node = node();
        let mut published = Published { link: Some(session.id()), ..NOBODY };
        for i in 0..5_u32 {
            let (liveness, _) = session.observe(at(u64::from(i)), u64::from(i), None);
            let latency_ms = f64::from(i);
            node.handle_command(Command { liveness, latency_ms, readings: Default::default() });
        }
        node.step(at(5), &published);
        assert_eq!(node.core().status().latency_ms, Some(4.0));
        published.link = Some(session.id().wrapping_add(1));
        node.step(at(6), &published);
        assert_eq!(node.core().status().latency_ms, None, "a new session knows nothing of it");
    }
}
