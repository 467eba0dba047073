//! A core with a streamer, buses and a vehicle around it, each of which can be broken.

use std::collections::VecDeque;

use ocpcan::can::{Frame, Id};
use ocpcan::limits::BUSES;
use ocpcan::safety::buswatch::BusEvent;
use ocpcan::safety::core::{Core, CoreOptions};
use ocpcan::safety::faults::{Fault, Faults};
use ocpcan::safety::input::{CanEvent, Command, Input, Output, Requests, StateName, Status, Stop};
use ocpcan::safety::liveness::Session;
use ocpcan::safety::settings::{ARMS_PER_MINUTE, Settings};
use ocpcan::safety::transmit::{Transmission, Written};
use ocpcan::signals::source::{Pad, Readings, UserValue};
use ocpcan::sim::world::plan::{self, PlanOptions};
use ocpcan::time::{Duration, Instant};

/// Two buses at most.
pub const RIG_BUSES: usize = 2;

/// What one OCP message is.
#[derive(Debug, Clone, Copy)]
pub enum Content {
    /// A message that decodes and reports no fault.
    Valid { ack_ms: u64, counter: Option<f64>, latency_ms: f64, pad: Option<Pad>, user: [UserValue; 4] },
    /// A message that does not decode.
    Invalid,
    /// A message that reports a fault.
    Fault,
}

/// One OCP message at the gateway's door.
#[derive(Debug, Clone, Copy)]
pub struct Message {
    pub at: Instant,
    pub content: Content,
}

/// What the kernel and the bus do with frames.
#[derive(Debug, Clone)]
pub struct RigBus {
    pub up: bool,
    pub off: bool,
    /// Frames are transmitted and echoed.
    pub moving: bool,
    /// Time from the write to the echo.
    pub echo_after: Duration,
    pub accepts: Written,
    queue: VecDeque<(Instant, Frame)>,
}

/// What happened in one step, for the oracle.
#[derive(Debug, Clone)]
pub struct Facts {
    pub now: Instant,
    pub link: Option<u32>,
    pub messages: Vec<Message>,
    pub can: Vec<(usize, Instant, CanEvent)>,
    pub trips: Faults,
    pub ocp_beat: Option<Instant>,
    pub can_beats: [Option<Instant>; BUSES],
    pub requests: Requests,
    pub output: Output,
    pub status: Status,
    pub sent: Vec<(Transmission, Written)>,
}

/// The world. Every field is a knob.
#[derive(Debug, Clone)]
pub struct Rig {
    pub core: Core,
    pub options: PlanOptions,
    pub settings: Settings,
    pub now: Instant,
    pub session: Session,
    pub connected: bool,
    /// The session number as the ocp thread published it.
    pub link: Option<u32>,
    pub streaming: bool,
    pub message_every: Duration,
    next_message: Instant,
    /// The streamer's clock minus ours.
    pub streamer_offset_ms: i64,
    /// How long messages travel; it grows by less than their pace, so that they still come and still rise.
    pub delay: Duration,
    delay_now: Duration,
    pub ack_runs: bool,
    ack_ms: u64,
    pub counter: f64,
    pub counter_runs: bool,
    pub counter_present: bool,
    pub latency_ms: f64,
    pub pad: Option<Pad>,
    pub user: [UserValue; 4],
    /// Sent instead of the next valid messages.
    pub specials: VecDeque<Content>,
    pub ocp_runs: bool,
    pub can_runs: [bool; RIG_BUSES],
    ocp_beat: Option<Instant>,
    can_beats: [Option<Instant>; BUSES],
    pub buses: [RigBus; RIG_BUSES],
    pub feedback: bool,
    pub feedback_every: Duration,
    next_feedback: Instant,
    pub feedback_counter: u8,
    pub feedback_counter_runs: bool,
    pub feedback_damaged: bool,
    pub speed: f64,
    /// What the vehicle reports as steering angle; `None` follows the commands on the bus.
    pub steer_actual: Option<f64>,
    steer_on_bus: f64,
    /// Raised by other threads in the next step.
    pub trips: Faults,
    /// Delivered in the next step.
    pub events: Vec<(usize, CanEvent)>,
    pub requests: Requests,
    pub facts: Facts,
}

/// The shortest legal times.
pub fn quick() -> Settings {
    let mut settings = Settings::default();
    for (key, ms) in
        [("clear_ms", 500), ("neutral_ms", 250), ("hold_ms", 500), ("listen_ms", 50), ("transition_ms", 500)]
    {
        settings.set_ms(key, ms).unwrap();
    }
    settings.set_ms("stopping_ms", 500).unwrap();
    settings
}

/// CRC-8 SAE J1850, bit by bit.
pub fn crc8_j1850(bytes: &[u8]) -> u8 {
    let mut crc = 0xFF_u8;
    for byte in bytes {
        crc ^= byte;
        for _ in 0..8 {
            crc = if crc & 0x80 == 0 { crc << 1 } else { (crc << 1) ^ 0x1D };
        }
    }
    crc ^ 0xFF
}

impl Rig {
    pub fn new(options: PlanOptions, settings: Settings, start: Instant) -> Self {
        Self::with(
            options,
            start,
            CoreOptions {
                settings,
                arms_per_minute: ARMS_PER_MINUTE.0,
                counters: Vec::new(),
                locked_out: None,
            },
        )
    }

    pub fn with(options: PlanOptions, start: Instant, core: CoreOptions) -> Self {
        let settings = core.settings;
        let core = Core::new(plan::plan(options), core);
        let status = core.status();
        let bus = || RigBus {
            up: false,
            off: false,
            moving: true,
            echo_after: Duration::from_millis(1),
            accepts: Written::Accepted,
            queue: VecDeque::new(),
        };
        Self {
            core,
            options,
            settings,
            now: start,
            session: Session::new(),
            connected: false,
            link: None,
            streaming: true,
            message_every: Duration::from_millis(10),
            next_message: start,
            // Milliseconds since 1970 in 2023, and what a clock near the end of 64 bits of nanoseconds still allows.
            streamer_offset_ms: 1_700_000_000_000,
            delay: Duration::from_millis(2),
            delay_now: Duration::from_millis(2),
            ack_runs: true,
            ack_ms: 0,
            counter: 0.0,
            counter_runs: true,
            counter_present: true,
            latency_ms: 20.0,
            pad: Some(Pad::NEUTRAL),
            user: [UserValue::Bool(false), UserValue::Number(0.0), UserValue::Missing, UserValue::Bool(true)],
            specials: VecDeque::new(),
            ocp_runs: true,
            can_runs: [true; RIG_BUSES],
            ocp_beat: None,
            can_beats: [None; BUSES],
            buses: [bus(), bus()],
            feedback: true,
            feedback_every: Duration::from_millis(20),
            next_feedback: start,
            feedback_counter: 0,
            feedback_counter_runs: true,
            feedback_damaged: false,
            speed: 0.0,
            steer_actual: None,
            steer_on_bus: 0.0,
            trips: Faults::NONE,
            events: Vec::new(),
            requests: Requests::default(),
            facts: Facts {
                now: start,
                link: None,
                messages: Vec::new(),
                can: Vec::new(),
                trips: Faults::NONE,
                ocp_beat: None,
                can_beats: [None; BUSES],
                requests: Requests::default(),
                output: Output {
                    state: StateName::Init,
                    left: None,
                    trip: None,
                    reaction: None,
                    restart: None,
                    finished: false,
                },
                status,
                sent: Vec::new(),
            },
        }
    }

    /// A rig whose buses are up and whose streamer is connected; nothing has run yet.
    pub fn healthy(options: PlanOptions, settings: Settings) -> Self {
        let mut rig = Self::new(options, settings, Instant::from_millis(1_000_000));
        rig.bus_up(0);
        rig.bus_up(1);
        rig.connect();
        rig
    }

    /// A rig that is armed, by the whole procedure.
    pub fn armed(options: PlanOptions, settings: Settings) -> Self {
        let mut rig = Self::healthy(options, settings);
        rig.arm();
        rig
    }

    /// Goes through the procedure.
    ///
    /// # Panics
    /// If it does not end in ARMED within 20 s.
    pub fn arm(&mut self) {
        self.pad = Some(Pad::NEUTRAL);
        self.hold_dead_man(true);
        let deadline = self.now + Duration::from_secs(20);
        while self.state() != StateName::Armed {
            assert!(self.now < deadline, "{:?}", self.core.status());
            let ready = self.state() == StateName::Ready;
            let released = self.core.status().checklist.released;
            self.press_arm(ready && released);
            self.step(10);
        }
        self.press_arm(false);
    }

    pub fn state(&self) -> StateName {
        self.core.state()
    }

    fn press(&mut self, bit: u8, down: bool) {
        if let Some(pad) = &mut self.pad {
            pad.buttons = if down { pad.buttons | 1 << bit } else { pad.buttons & !(1 << bit) };
        }
    }

    pub fn press_arm(&mut self, down: bool) {
        self.press(plan::ARM_BIT, down);
    }

    pub fn hold_dead_man(&mut self, down: bool) {
        self.press(plan::DEAD_MAN_BIT, down);
    }

    /// Steering -1 to 1, throttle and brake 0 to 1.
    pub fn drive(&mut self, steer: f64, throttle: f64, brake: f64) {
        if let Some(pad) = &mut self.pad {
            pad.axes = [steer, 0.0, 0.0, 0.0, brake * 2.0 - 1.0, throttle * 2.0 - 1.0];
        }
    }

    pub fn connect(&mut self) {
        self.session.restart();
        self.connected = true;
        self.link = Some(self.session.id());
        self.next_message = self.now;
    }

    /// The link goes first, then the bit, as the ocp thread does it.
    pub fn disconnect(&mut self) {
        self.connected = false;
        self.link = None;
        self.trips.insert(Fault::OcpDown);
    }

    pub fn bus_up(&mut self, bus: usize) {
        if bus < self.core.plan().buses.len() {
            self.buses[bus].up = true;
            self.events.push((bus, CanEvent::Bus(BusEvent::Up { proof: true })));
        }
    }

    /// The interface goes down: its queue is purged.
    pub fn bus_down(&mut self, bus: usize, event: BusEvent) {
        if bus < self.core.plan().buses.len() {
            self.buses[bus].up = false;
            self.buses[bus].off = false;
            self.buses[bus].queue.clear();
            self.events.push((bus, CanEvent::Bus(event)));
        }
    }

    pub fn bus_off(&mut self, bus: usize) {
        if bus < self.core.plan().buses.len() {
            self.buses[bus].off = true;
            self.buses[bus].queue.clear();
            self.events.push((bus, CanEvent::Bus(BusEvent::BusOff)));
        }
    }

    pub fn bus_restarted(&mut self, bus: usize) {
        if bus < self.core.plan().buses.len() {
            self.buses[bus].off = false;
            self.events.push((bus, CanEvent::Bus(BusEvent::Restarted)));
        }
    }

    /// Steps of 5 ms for this long.
    pub fn run(&mut self, ms: u64) {
        for _ in 0..ms / 5 {
            self.step(5);
        }
    }

    /// Tries to arm for this long, whatever comes of it.
    pub fn arm_attempt(&mut self, ms: u64) {
        self.pad = Some(Pad::NEUTRAL);
        self.hold_dead_man(true);
        for step in 0..ms / 10 {
            self.press_arm(step % 100 > 20);
            self.step(10);
        }
        self.press_arm(false);
    }

    /// Lets time pass and stays in the state.
    pub fn step_away(&mut self, ms: u64) {
        let state = self.state();
        self.run(ms);
        assert_eq!(self.state(), state);
    }

    /// One turn of the watchdog after `ms`.
    pub fn step(&mut self, ms: u64) {
        self.step_after(Duration::from_millis(ms));
    }

    /// One turn of the watchdog.
    pub fn step_after(&mut self, dt: Duration) {
        let before = self.now;
        self.now += dt;
        let now = self.now;
        let mut trips = std::mem::take(&mut self.trips);
        let command = self.receive(&mut trips);
        if self.ocp_runs && self.connected {
            self.ocp_beat = Some(now);
        }
        for (bus, runs) in self.can_runs.iter().enumerate() {
            if *runs {
                self.can_beats[bus] = Some(now);
            }
        }
        self.deliver(before);
        let input = Input {
            link: self.link,
            command: command.as_ref(),
            trips,
            trips_at: None,
            can: &self.facts.can,
            ocp_beat: self.ocp_beat,
            can_beats: self.can_beats,
            requests: self.requests,
        };
        let output = self.core.step(now, &input);
        self.facts.now = now;
        self.facts.link = self.link;
        self.facts.trips = trips;
        self.facts.ocp_beat = self.ocp_beat;
        self.facts.can_beats = self.can_beats;
        self.facts.requests = self.requests;
        self.facts.output = output;
        self.facts.status = self.core.status();
        self.requests = Requests { stop: self.requests.stop, ..Requests::default() };
        self.transmit();
    }

    /// What the ocp thread does with what came since the last step.
    fn receive(&mut self, trips: &mut Faults) -> Option<Command> {
        self.facts.messages.clear();
        let mut newest = None;
        while self.next_message <= self.now {
            let at = self.next_message;
            self.next_message = at + self.message_every;
            if !self.connected || !self.streaming {
                continue;
            }
            let content = self.specials.pop_front().unwrap_or_else(|| self.valid(at));
            self.facts.messages.push(Message { at, content });
            match content {
                Content::Invalid => {
                    self.session.interrupt();
                    trips.insert(Fault::InvalidMessage);
                    newest = None;
                }
                Content::Fault => {
                    self.session.interrupt();
                    trips.insert(Fault::OcpFault);
                    newest = None;
                }
                Content::Valid { ack_ms, counter, latency_ms, pad, user } => {
                    let mut readings = Readings { pad, ..Readings::default() };
                    readings.user[..4].copy_from_slice(&user);
                    let value = counter.map_or(UserValue::Missing, UserValue::Number);
                    readings.user[usize::from(plan::USER_COUNTER)] = value;
                    let watched =
                        self.options.operator_counter.then_some((value, Some(plan::COUNTER_MODULO)));
                    let (liveness, faults) = self.session.observe(at, ack_ms, watched);
                    *trips = trips.union(faults);
                    newest = Some(Command { liveness, latency_ms, readings });
                }
            }
        }
        if newest.is_some() {
            self.link = Some(self.session.id());
        }
        newest
    }

    /// The message that a healthy streamer would send now, as far as its knobs allow.
    pub fn valid(&mut self, at: Instant) -> Content {
        self.delay_now = self.delay.min(self.delay_now + self.message_every / 2);
        if self.ack_runs {
            let sent = i64::try_from((at - self.delay_now).as_millis()).unwrap();
            self.ack_ms = u64::try_from(sent + self.streamer_offset_ms).unwrap();
        }
        if self.counter_runs {
            self.counter = (self.counter + 1.0) % f64::from(plan::COUNTER_MODULO);
        }
        Content::Valid {
            ack_ms: self.ack_ms,
            counter: self.counter_present.then_some(self.counter),
            latency_ms: self.latency_ms,
            pad: self.pad,
            user: self.user,
        }
    }

    /// What the CAN sockets deliver.
    fn deliver(&mut self, before: Instant) {
        let now = self.now;
        self.facts.can.clear();
        for (bus, event) in self.events.drain(..) {
            self.facts.can.push((bus, now, event));
        }
        for (index, bus) in self.buses.iter_mut().enumerate() {
            while bus.moving && bus.up && !bus.off {
                let Some((at, frame)) = bus.queue.front().copied() else { break };
                let echo_at = (at + bus.echo_after).max(before);
                if echo_at > now {
                    break;
                }
                bus.queue.pop_front();
                self.facts.can.push((index, echo_at, CanEvent::Echo(frame)));
                if frame.id().raw() == plan::DRIVE_ID {
                    let data = frame.payload();
                    self.steer_on_bus = f64::from(i16::from_le_bytes([data[0], data[1]])) * 0.1;
                }
            }
        }
        while self.next_feedback <= now {
            let at = self.next_feedback;
            self.next_feedback = at + self.feedback_every;
            if self.feedback && self.buses[0].up && !self.buses[0].off {
                let frame = self.feedback_frame();
                self.facts.can.push((0, at, CanEvent::Frame(frame)));
            }
        }
        self.facts.can.sort_by_key(|(_, at, _)| *at);
    }

    /// The vehicle's next feedback frame.
    pub fn feedback_frame(&mut self) -> Frame {
        if self.feedback_counter_runs {
            self.feedback_counter = (self.feedback_counter + 1) % 16;
        }
        let steer = self.steer_actual.unwrap_or(self.steer_on_bus);
        let mut data = [0_u8; 8];
        data[..2].copy_from_slice(&((self.speed * 100.0).round() as u16).to_le_bytes());
        data[2..4].copy_from_slice(&((steer * 10.0).round() as i16).to_le_bytes());
        data[6] = self.feedback_counter;
        data[7] = crc8_j1850(&data[..7]) ^ u8::from(self.feedback_damaged);
        Frame::data(Id::standard(plan::STATE_ID).unwrap(), &data).unwrap()
    }

    /// Takes every frame that is due and hands it to its bus.
    fn transmit(&mut self) {
        let now = self.now;
        self.facts.sent.clear();
        let mut from = 0;
        while let Some(sent) = self.core.poll_transmit(now, from) {
            from = sent.message + 1;
            let bus = &mut self.buses[sent.bus];
            let written = if bus.up { bus.accepts } else { Written::Failed };
            if written == Written::Accepted && !bus.off {
                bus.queue.push_back((now, sent.frame));
            }
            self.core.handle_written(now, &sent, written);
            self.facts.sent.push((sent, written));
        }
    }

    pub fn request_stop(&mut self, stop: Stop) {
        self.requests.stop = stop;
    }

    /// The newest frame of this identifier in the last step.
    pub fn sent(&self, id: u32) -> Option<&Frame> {
        self.facts.sent.iter().map(|(sent, _)| &sent.frame).find(|frame| frame.id().raw() == id)
    }
}

/// The driving frame as the vehicle reads it: degrees, percent, percent, enabled, counter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drive {
    pub steer: f64,
    pub throttle: f64,
    pub brake: f64,
    pub enabled: bool,
    pub counter: u8,
}

impl Drive {
    pub fn of(frame: &Frame) -> Self {
        let data = frame.payload();
        assert_eq!(data.len(), 8);
        assert_eq!(data[7], crc8_j1850(&data[..7]), "checksum of {frame:?}");
        Self {
            steer: f64::from(i16::from_le_bytes([data[0], data[1]])) * 0.1,
            throttle: f64::from(data[2]) * 0.5,
            brake: f64::from(data[3]) * 0.5,
            enabled: data[4] & 1 == 1,
            counter: data[6] & 0xF,
        }
    }
}
