//! Judges what leaves a core, from the facts alone.
//!
//! Keeps its own view of the stream, the buses, the feedback and the procedure, decodes every frame byte by byte,
//! and never asks the core anything but its state's name and the cause it tells. A violated invariant is an `Err`
//! that names it.

use ocpcan::can::Frame;
use ocpcan::safety::buswatch::BusEvent;
use ocpcan::safety::input::{CanEvent, StateName, Stop, Trip};
use ocpcan::safety::settings::Settings;
use ocpcan::safety::transmit::{Transmission, Written};
use ocpcan::signals::source::{Pad, UserValue};
use ocpcan::sim::world::plan::{self as p, PlanOptions};
use ocpcan::time::{Duration, Instant};

use super::rig::{Content, Drive, Facts, RIG_BUSES, crc8_j1850};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What the newest valid message says.
#[derive(Debug, Clone, Copy)]
struct Told {
    at: Instant,
    latency_ms: f64,
    pad: Option<Pad>,
    user: [UserValue; 4],
}

#[derive(Debug, Clone, Default)]
struct Stream {
    told: Option<Told>,
    last_at: Option<Instant>,
    ack: Option<u64>,
    ack_rose: Option<Instant>,
    /// Arrival and transit time of every message whose `ack_time` rose.
    transits: Vec<(Instant, i128)>,
    age_ms: i128,
    run: u32,
    counter: Option<f64>,
    counter_rose: Option<Instant>,
}

#[derive(Debug, Clone, Copy, Default)]
struct BusFacts {
    up: Option<Instant>,
    off: bool,
    heard: bool,
    /// Since when frames can be written and are accepted, without a break.
    working: Option<Instant>,
}

/// One sent identifier.
#[derive(Debug, Clone)]
struct Sent {
    id: u32,
    bus: usize,
    period: Duration,
    actuator: bool,
    last: Option<(Instant, Frame)>,
    /// When it was last accepted with the enable bit, or a value that is not safe.
    armed_at: Option<Instant>,
    waiting: Option<Instant>,
    flying: Option<(Frame, bool)>,
    proven: u32,
    counter: Option<u8>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Feedback {
    at: Option<Instant>,
    speed: f64,
    steer: f64,
    counter: Option<u8>,
    strikes: u8,
}

/// How far the procedure has come, by the facts.
#[derive(Debug, Clone, Copy, Default)]
struct Procedure {
    clear: Option<Instant>,
    neutral: Option<Instant>,
    released: bool,
    pressed: Option<Instant>,
}

/// What was seen in a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    pub steps: u64,
    pub frames: u64,
    pub arms: u32,
    pub armed_trips: u32,
    pub lockouts: u32,
    pub driven: bool,
}

#[derive(Debug, Clone)]
pub struct Oracle {
    options: PlanOptions,
    settings: Settings,
    stream: Stream,
    link: Option<u32>,
    buses: [BusFacts; RIG_BUSES],
    bus_count: usize,
    sent: Vec<Sent>,
    feedback: Feedback,
    last_step: Option<Instant>,
    procedure: Procedure,
    state: StateName,
    armed_since: Instant,
    stopping_since: Instant,
    last_armed_drive: Option<(Instant, Drive)>,
    contradicted: Option<Instant>,
    locked: bool,
    cause: Option<Trip>,
    cause_open: bool,
    mode: u8,
    /// The vehicle was proven to stand at some time since the last frame with the mode.
    stood: bool,
    /// The most throttle that the operator asked for in any step since the last driving frame.
    asked: f64,
    /// Why nothing may move, in the last step.
    pub bad: Option<&'static str>,
    pub seen: Seen,
}

impl Oracle {
    pub fn new(options: PlanOptions, settings: Settings) -> Self {
        let sent = |id, bus, period, actuator| Sent {
            id,
            bus,
            period,
            actuator,
            last: None,
            armed_at: None,
            waiting: None,
            flying: None,
            proven: 0,
            counter: None,
        };
        let mut all =
            vec![sent(p::DRIVE_ID, 0, p::DRIVE_PERIOD, true), sent(p::BODY_ID, 0, p::BODY_PERIOD, false)];
        if options.tool {
            all.push(sent(p::TOOL_ID, 1, p::TOOL_PERIOD, true));
        }
        Self {
            options,
            settings,
            stream: Stream::default(),
            link: None,
            buses: [BusFacts::default(); RIG_BUSES],
            bus_count: if options.tool { 2 } else { 1 },
            sent: all,
            feedback: Feedback::default(),
            last_step: None,
            procedure: Procedure::default(),
            state: StateName::Init,
            armed_since: Instant::ZERO,
            stopping_since: Instant::ZERO,
            last_armed_drive: None,
            contradicted: None,
            locked: false,
            cause: None,
            cause_open: true,
            mode: 0,
            stood: false,
            asked: 0.0,
            bad: None,
            seen: Seen::default(),
        }
    }

    /// Judges one step.
    pub fn judge(&mut self, facts: &Facts) -> Result<(), String> {
        let before = self.state;
        let gap = self.last_step.map_or(Duration::ZERO, |last| facts.now.since(last));
        let bad = self.learn(facts, gap);
        self.bad = bad;
        let state = facts.output.state;
        self.judge_state(facts, before, state, bad)?;
        for (sent, written) in &facts.sent {
            self.judge_frame(facts, sent, *written, bad)?;
        }
        self.judge_rhythm(facts, gap)?;
        self.judge_cause(facts)?;
        self.last_step = Some(facts.now);
        self.state = state;
        self.seen.steps += 1;
        Ok(())
    }

    /// Takes the facts in; answers why nothing may move now, if there is a reason.
    fn learn(&mut self, facts: &Facts, gap: Duration) -> Option<&'static str> {
        let mut reasons = Vec::new();
        if facts.link != self.link && self.link.is_some() {
            reasons.push("the session changed");
        }
        if facts.link != self.link {
            self.stream = Stream::default();
            self.link = facts.link;
        }
        for message in &facts.messages {
            match message.content {
                Content::Invalid | Content::Fault => {
                    self.stream.run = 0;
                    reasons.push("a bad message");
                }
                Content::Valid { ack_ms, counter, latency_ms, pad, user } => {
                    let told = Told { at: message.at, latency_ms, pad, user };
                    if let Some(reason) = self.stream.take(told, ack_ms, counter, self.options) {
                        reasons.push(reason);
                    }
                }
            }
        }
        for (bus, at, event) in &facts.can {
            if let Some(reason) = self.learn_can(*bus, *at, event) {
                reasons.push(reason);
            }
        }
        if !facts.trips.is_empty() {
            reasons.push("another thread saw a fault");
        }
        if facts.trips.any_class_b() {
            self.locked = true;
        }
        if facts.requests.stop != Stop::No {
            reasons.push("a stop was requested");
        }
        if gap > self.settings.own_gap {
            reasons.push("own gap");
        }
        reasons.extend(self.guards(facts));
        self.asked = self.asked.max(self.asked());
        self.stood |= self.options.speed && self.standing(facts.now);
        self.learn_procedure(facts, reasons.is_empty());
        reasons.first().copied()
    }

    fn learn_can(&mut self, bus: usize, at: Instant, event: &CanEvent) -> Option<&'static str> {
        match event {
            CanEvent::Foreign => {
                self.locked = true;
                Some("a foreign writer")
            }
            CanEvent::Bus(event) => {
                let facts = &mut self.buses[bus];
                match event {
                    BusEvent::Up { .. } => {
                        facts.up = facts.up.or(Some(at));
                        return None;
                    }
                    BusEvent::Down | BusEvent::Gone => {
                        facts.up = None;
                        facts.off = false;
                    }
                    BusEvent::BusOff => facts.off = true,
                    BusEvent::Restarted => facts.off = false,
                }
                for sent in self.sent.iter_mut().filter(|sent| sent.bus == bus) {
                    sent.waiting = None;
                    sent.flying = None;
                    sent.proven = 0;
                }
                Some("a bus was lost")
            }
            CanEvent::Echo(frame) => {
                let sent =
                    self.sent.iter_mut().find(|sent| sent.bus == bus && sent.id == frame.id().raw())?;
                if let Some((flying, safe)) = sent.flying.take() {
                    if flying == *frame {
                        sent.waiting = None;
                        sent.proven = if safe { sent.proven + 1 } else { 0 };
                    } else {
                        sent.flying = Some((flying, safe));
                    }
                }
                None
            }
            CanEvent::Frame(frame) => {
                self.feedback.take(at, frame);
                None
            }
        }
    }

    /// The standing reasons not to move.
    fn guards(&mut self, facts: &Facts) -> Vec<&'static str> {
        let now = facts.now;
        let settings = &self.settings;
        let mut found = Vec::new();
        let mut check = |bad: bool, reason: &'static str| {
            if bad {
                found.push(reason);
            }
        };
        let stream = &self.stream;
        check(facts.link.is_none(), "no connection");
        let limit = |since: Option<Instant>, limit| since.is_none_or(|since| now.since(since) >= limit);
        check(limit(stream.told.map(|told| told.at), settings.ocp_silence), "silence");
        check(limit(stream.ack_rose, settings.ack_freeze), "ack frozen");
        check(stream.age_ms >= i128::try_from(settings.stale.as_millis()).unwrap(), "stale");
        if self.options.operator_counter {
            check(limit(stream.counter_rose, settings.operator_freeze), "operator frozen");
        }
        if let Some(told) = &stream.told {
            check(told.latency_ms > settings.latency_stop.as_secs_f64() * 1e3, "latency");
            check(told.pad.is_none(), "no gamepad");
            let lights = match told.user[0] {
                UserValue::Invalid => false,
                UserValue::Number(n) => n == 0.0 || n == 1.0,
                UserValue::Missing | UserValue::Bool(_) => true,
            };
            let mode = match told.user[1] {
                UserValue::Invalid => false,
                // 0 to 2, and a hundredth of that beyond.
                UserValue::Number(n) => (-0.02..=2.02).contains(&n),
                UserValue::Missing | UserValue::Bool(_) => true,
            };
            check(!lights || !mode, "an unusable value");
            let on = matches!(told.user[3], UserValue::Bool(true) | UserValue::Number(1.0));
            check(self.options.permit && !on, "a required switch is off");
        }
        let stalled = |beat: Option<Instant>| beat.is_none_or(|at| now.since(at) > settings.thread_stall);
        check(stalled(facts.ocp_beat), "the ocp thread hangs");
        check(facts.can_beats[..self.bus_count].iter().any(|beat| stalled(*beat)), "a can thread hangs");
        check(self.feedback.at.is_none_or(|at| now.since(at) > p::STATE_STALE), "no feedback");
        check(self.feedback.strikes >= 5, "damaged feedback");
        for (index, bus) in self.buses[..self.bus_count].iter_mut().enumerate() {
            check(bus.up.is_none(), "a bus is down");
            check(bus.off, "bus-off");
            bus.heard |= bus.up.is_some_and(|up| now.since(up) >= settings.listen);
            let ready = bus.up.is_some() && !bus.off && bus.heard;
            let unproven = self.sent.iter().filter(|sent| sent.bus == index).filter_map(|sent| sent.waiting);
            check(ready && unproven.min().is_some_and(|at| now.since(at) >= settings.echo), "echo missing");
        }
        // The commanded angle moves between frames, so the last frame's angle counts only where it is far off.
        let slack = p::STEER_SLEW * 0.05;
        let fresh = self.feedback.at.is_some_and(|at| now.since(at) <= p::STATE_STALE);
        let off = self.options.confirm
            && fresh
            && self.state == StateName::Armed
            && self.last_armed_drive.is_some_and(|(_, drive)| {
                (drive.steer - self.feedback.steer).abs() > p::STEER_TOLERANCE + slack
            });
        self.contradicted = off.then(|| self.contradicted.unwrap_or(now));
        let contradicted =
            self.contradicted.is_some_and(|at| now.since(at) >= settings.contradiction + ms(60));
        check(contradicted, "feedback contradicts");
        if contradicted {
            self.locked = true;
        }
        found
    }

    fn standing(&self, now: Instant) -> bool {
        self.feedback.at.is_some_and(|at| now.since(at) <= p::STATE_STALE)
            && self.feedback.speed <= p::STANDSTILL + 1e-9
    }

    /// Clear, then neutral, then released, then pressed: each only while everything before it goes on.
    fn learn_procedure(&mut self, facts: &Facts, clear: bool) {
        let now = facts.now;
        let told = self.stream.told;
        let arm_bit = |pad: Pad| pad.buttons >> p::ARM_BIT & 1 == 1;
        let proven = self.sent.iter().filter(|sent| sent.actuator).all(|sent| sent.proven >= 10);
        let standstill = !self.options.speed || self.standing(now);
        let neutral = told.and_then(|told| told.pad).is_some_and(|pad| {
            pad.axes[0].abs() <= 0.05
                && pad.axes[4] <= -0.96
                && pad.axes[5] <= -0.96
                && (!self.options.tool || pad.buttons >> p::TOOL_BIT & 1 == 0)
        });
        let settings = &self.settings;
        let at = &mut self.procedure;
        at.clear = clear.then(|| at.clear.unwrap_or(now));
        let conditions = at.clear.is_some_and(|since| now.since(since) >= settings.clear)
            && self.stream.run >= 50
            && proven
            && standstill;
        if !conditions || !neutral {
            *at = Procedure { clear: at.clear, ..Procedure::default() };
            return;
        }
        let since = *at.neutral.get_or_insert(now);
        if now.since(since) < settings.neutral {
            return;
        }
        match told.and_then(|told| told.pad).map(arm_bit) {
            Some(true) if at.released => at.pressed = at.pressed.or(Some(now)),
            Some(true) => {}
            Some(false) => {
                at.released = true;
                at.pressed = None;
            }
            None => *at = Procedure { clear: at.clear, ..Procedure::default() },
        }
    }

    fn judge_state(
        &mut self,
        facts: &Facts,
        before: StateName,
        state: StateName,
        bad: Option<&'static str>,
    ) -> Result<(), String> {
        use StateName::{Armed, Lockout, Ready, Safe, Standby, Stopping};
        let now = facts.now;
        if before == Lockout && state == Safe && facts.requests.acknowledge {
            self.locked = false;
        }
        if self.locked && !matches!(state, Lockout | Stopping | StateName::Init) {
            return Err(format!("I3: {state:?} although a person must look first"));
        }
        if state == Armed {
            if let Some(reason) = bad {
                return Err(format!("I1: ARMED although: {reason}"));
            }
            if before != Armed {
                if before != Ready {
                    return Err(format!("I3: {before:?} to ARMED"));
                }
                let held = self.procedure.pressed.is_some_and(|at| now.since(at) >= self.settings.hold);
                if !held {
                    return Err(format!("I3: armed without the procedure: {:?}", self.procedure));
                }
                self.armed_since = now;
                // Values start from safe, even where the first frame of ARMED follows later.
                let safe =
                    Drive { steer: 0.0, throttle: 0.0, brake: p::BRAKE_SAFE, enabled: true, counter: 0 };
                self.last_armed_drive = Some((now, safe));
                self.seen.arms += 1;
                // The proof and the clear time for the next arming begin after this one.
                self.procedure = Procedure { clear: self.procedure.clear, ..Procedure::default() };
            }
        }
        if before == Armed && state != Armed {
            self.seen.armed_trips += 1;
            self.procedure = Procedure::default();
            for sent in &mut self.sent {
                sent.proven = 0;
            }
            if facts.output.trip.is_none() {
                return Err("I10: left ARMED without a trip".to_owned());
            }
        }
        if matches!(before, Ready | Standby) && facts.output.trip.is_some() {
            self.procedure = Procedure::default();
        }
        if state == Stopping && before != Stopping {
            if before != Armed {
                return Err(format!("{before:?} to STOPPING"));
            }
            self.stopping_since = now;
        }
        if state == Stopping && now.since(self.stopping_since) >= self.settings.stopping {
            return Err("STOPPING for longer than its longest time".to_owned());
        }
        if state == Lockout && before != Lockout {
            self.seen.lockouts += 1;
        }
        Ok(())
    }

    fn judge_frame(
        &mut self,
        facts: &Facts,
        sent: &Transmission,
        written: Written,
        bad: Option<&'static str>,
    ) -> Result<(), String> {
        let state = facts.output.state;
        self.seen.frames += 1;
        if state == StateName::Init {
            return Err("a frame in INIT".to_owned());
        }
        let raw = sent.frame.id().raw();
        let index = self.sent.iter().position(|one| one.id == raw && one.bus == sent.bus);
        let index = index.ok_or_else(|| format!("a frame that nobody mapped: {:?}", sent.frame))?;
        let moves = match raw {
            p::DRIVE_ID => self.judge_drive(facts, &sent.frame, index)?,
            p::BODY_ID => {
                self.judge_body(facts, &sent.frame)?;
                false
            }
            _ => {
                let data = sent.frame.payload();
                let xor = data[..3].iter().fold(0x34 ^ 0x12, |sum, byte| sum ^ byte);
                if data.len() != 4 || data[3] != xor {
                    return Err(format!("I9: checksum of {:?}", sent.frame));
                }
                if data[1] != 0 && data[1] != 100 {
                    return Err(format!("I4: the tool is told {}", data[1]));
                }
                data[1] != 0
            }
        };
        if moves && state != StateName::Armed {
            return Err(format!("I1: {:?} in {state:?}", sent.frame));
        }
        if let (true, Some(reason)) = (moves, bad) {
            return Err(format!("I2: {:?} although: {reason}", sent.frame));
        }
        if moves && self.options.dead_man {
            let held = self.stream.told.and_then(|told| told.pad);
            if held.is_none_or(|pad| pad.buttons >> p::DEAD_MAN_BIT & 1 == 0) {
                return Err("I1: moves without the dead-man switch".to_owned());
            }
        }
        self.judge_counter(index, &sent.frame, written)?;
        let one = &mut self.sent[index];
        if one.waiting.is_none() {
            one.waiting = Some(facts.now);
        }
        if written == Written::Accepted {
            if one.flying.is_some() {
                one.proven = 0;
            }
            one.flying = Some((sent.frame, state != StateName::Armed));
            one.last = Some((facts.now, sent.frame));
            if moves {
                one.armed_at = Some(facts.now);
            }
        } else {
            one.proven = 0;
        }
        Ok(())
    }

    /// I9: one more for each frame that the kernel took, whatever happened in between.
    fn judge_counter(&mut self, index: usize, frame: &Frame, written: Written) -> Result<(), String> {
        let one = &mut self.sent[index];
        let (counter, modulo) = match one.id {
            p::DRIVE_ID => (frame.payload()[6] & 0xF, 16_u16),
            p::TOOL_ID => (frame.payload()[0], 256),
            _ => return Ok(()),
        };
        if let Some(last) = one.counter {
            let next = (u16::from(last) + 1) % modulo;
            if u16::from(counter) != next {
                return Err(format!("I9: {:x} counts {counter} after {last}", one.id));
            }
        }
        if written == Written::Accepted {
            one.counter = Some(counter);
        }
        Ok(())
    }

    /// I1, I2 and I4 for the driving frame. True where it moves the vehicle.
    fn judge_drive(&mut self, facts: &Facts, frame: &Frame, index: usize) -> Result<bool, String> {
        let now = facts.now;
        let state = facts.output.state;
        let data = frame.payload();
        if data.len() != 8 || data[7] != crc8_j1850(&data[..7]) {
            return Err(format!("I9: checksum of {frame:?}"));
        }
        let drive = Drive::of(frame);
        if drive.steer.abs() > p::STEER_MAX + 1e-9 || drive.throttle > 100.0 || drive.brake > 100.0 {
            return Err(format!("I4: {drive:?}"));
        }
        if drive.brake > 2.0 && drive.throttle > 0.0 {
            return Err(format!("I4: throttle against the brake: {drive:?}"));
        }
        if drive.enabled {
            self.judge_motion(facts, drive, index)?;
            self.last_armed_drive = Some((now, drive));
            self.asked = self.asked();
            self.seen.driven |= drive.throttle > 10.0;
            return Ok(true);
        }
        if state == StateName::Armed {
            return Err("ARMED without the enable bit".to_owned());
        }
        if drive.throttle > 0.0 {
            return Err(format!("I1: throttle without enable: {drive:?}"));
        }
        let safe = drive.steer == 0.0 && drive.brake == p::BRAKE_SAFE;
        if safe {
            return Ok(false);
        }
        let profile = self.last_armed_drive.filter(|_| state == StateName::Stopping);
        let Some((at, last)) = profile else { return Err(format!("I1: {drive:?} in {state:?}")) };
        // Between the last frame in ARMED and the trip the values moved on by at most the slew limits.
        let moved = self.stopping_since.since(at).as_secs_f64();
        if (drive.steer - last.steer).abs() > p::STEER_SLEW * moved + 0.2 {
            return Err(format!("I2: the steering did not stay: {drive:?} after {last:?}"));
        }
        let ramp = p::BRAKE_RAMP * now.since(self.stopping_since).as_secs_f64();
        let slack = p::BRAKE_UP * (moved + 0.05) + 1.0;
        let low = (last.brake - slack).min(p::BRAKE_SAFE);
        let high = (last.brake + slack).max((last.brake + ramp + slack).min(p::BRAKE_SAFE));
        if drive.brake < low || drive.brake > high {
            return Err(format!("I2: the brake left its profile: {drive:?} after {last:?}"));
        }
        Ok(false)
    }

    /// I4: no faster than the limits, no further than the operator.
    fn judge_motion(&self, facts: &Facts, drive: Drive, index: usize) -> Result<(), String> {
        let now = facts.now;
        let Some((at, frame)) = &self.sent[index].last else {
            return Err("I3: the first frame of all is armed".to_owned());
        };
        let last = Drive::of(frame);
        let seconds = now.since(*at).as_secs_f64();
        let young = now.since(self.armed_since) < self.settings.transition;
        let scale = if young { 0.5 } else { 1.0 };
        let steer = (drive.steer - last.steer).abs();
        let (throttle, brake) = (drive.throttle - last.throttle, drive.brake - last.brake);
        // How fast the throttle falls is no danger, and a touch of the brake between two frames drops it at once.
        let within = steer <= p::STEER_SLEW * scale * seconds + 0.11
            && throttle <= p::THROTTLE_UP * scale * seconds + 0.51
            && brake <= p::BRAKE_UP * seconds + 0.51
            && brake >= -p::BRAKE_DOWN * scale * seconds - 0.51;
        if !within {
            return Err(format!("I4: too fast, {last:?} to {drive:?} in {seconds} s, scale {scale}"));
        }
        // Compared with the frame before, even where the kernel refused that one.
        let offered = self.last_armed_drive.map_or(0.0, |(_, drive)| drive.throttle);
        if drive.throttle > offered && drive.throttle > self.asked + 0.51 {
            return Err(format!("I4: throttle {} where {} is asked for", drive.throttle, self.asked));
        }
        Ok(())
    }

    /// The throttle that the operator may have now, by the newest message, its latency and the vehicle's speed.
    fn asked(&self) -> f64 {
        let Some(told) = self.stream.told else { return 0.0 };
        let slow =
            self.options.operator_counter || !self.options.speed || self.feedback.speed <= p::SPEED_CAP;
        if !slow {
            return 0.0;
        }
        let axis = told.pad.map_or(-1.0, |pad| pad.axes[5]);
        let by_latency = if told.latency_ms > 200.0 { 200.0 / told.latency_ms } else { 1.0 };
        f64::midpoint(axis, 1.0) * 100.0 * by_latency
    }

    /// Lights only with a session; the mode changes only at standstill.
    fn judge_body(&mut self, facts: &Facts, frame: &Frame) -> Result<(), String> {
        use StateName::{Armed, Ready, Standby};
        let data = frame.payload();
        let (lights, mode) = (data[0] & 1, data[1] & 3);
        if lights == 1 && !matches!(facts.output.state, Standby | Ready | Armed) {
            return Err(format!("lights without a session in {:?}", facts.output.state));
        }
        // The value moves in a step; the frame may follow some steps later.
        if mode != self.mode && !self.stood {
            return Err(format!("the mode changes from {} to {mode} while the vehicle moves", self.mode));
        }
        self.mode = mode;
        self.stood = false;
        Ok(())
    }

    /// I6: silence is never the stop signal.
    fn judge_rhythm(&mut self, facts: &Facts, gap: Duration) -> Result<(), String> {
        let now = facts.now;
        for (index, bus) in self.buses[..self.bus_count].iter_mut().enumerate() {
            let ready = bus.up.is_some() && !bus.off && bus.heard;
            let refused =
                facts.sent.iter().any(|(sent, written)| sent.bus == index && *written != Written::Accepted);
            let works = ready && !refused && facts.output.state != StateName::Init;
            bus.working = works.then(|| bus.working.unwrap_or(now));
        }
        for one in &self.sent {
            let Some(working) = self.buses[one.bus].working else { continue };
            let limit = (one.period * 2).max(self.settings.echo + ms(5));
            let since = one.last.map_or(working, |(at, _)| at.max(working));
            if now.since(since) >= limit + gap {
                return Err(format!("I6: {:x} is silent for {:?}", one.id, now.since(since)));
            }
        }
        Ok(())
    }

    /// I10: the first cause is told until the clear procedure is complete.
    fn judge_cause(&mut self, facts: &Facts) -> Result<(), String> {
        let told = facts.status.cause;
        if facts.output.state == StateName::Armed && self.state != StateName::Armed {
            self.cause = None;
        }
        if let Some(trip) = facts.output.trip {
            if trip.faults.is_empty() || !trip.faults.contains(trip.fault) {
                return Err(format!("I10: a trip without a fault: {trip:?}"));
            }
            let armed = self.state == StateName::Armed;
            if trip.from == StateName::Armed && !armed {
                return Err(format!("I10: a trip from ARMED in {:?}", self.state));
            }
            if self.cause_open || self.cause.is_none() {
                self.cause = Some(trip);
                self.cause_open = false;
            }
        }
        if facts.output.state == StateName::Standby {
            self.cause_open = true;
        }
        match (self.cause, told) {
            (Some(first), Some(told)) if first == told => Ok(()),
            (None, None) => Ok(()),
            (first, told) => Err(format!("I10: {told:?} is told where {first:?} came first")),
        }
    }

    /// I2 at the end of a run: the last frame of each actuator is safe unless the gateway is armed.
    pub fn judge_end(&self) -> Result<(), String> {
        for one in &self.sent {
            let Some((at, frame)) = &one.last else { continue };
            if self.state != StateName::Armed && one.armed_at.is_some_and(|armed| armed >= *at) {
                // Only a bus that cannot take another frame may end like this.
                let bus = &self.buses[one.bus];
                if bus.working.is_some_and(|since| one.waiting.is_none() && since < *at) {
                    return Err(format!("I2: the last frame of {:x} is {frame:?}", one.id));
                }
            }
        }
        Ok(())
    }
}

impl Stream {
    fn take(
        &mut self,
        told: Told,
        ack_ms: u64,
        counter: Option<f64>,
        options: PlanOptions,
    ) -> Option<&'static str> {
        let now = told.at;
        let mut reason = None;
        if self.ack.is_some_and(|last| ack_ms < last) {
            *self = Self::default();
            reason = Some("ack went backwards");
        }
        let rose = self.ack.is_none_or(|last| ack_ms > last);
        if rose {
            self.ack_rose = Some(now);
            let transit = i128::from(now.as_millis()) - i128::from(ack_ms);
            self.transits.push((now, transit));
            // A little more than the half minute that the gateway remembers, so that no age is overstated here.
            self.transits.retain(|(at, _)| now.since(*at) < Duration::from_secs(29));
            let fastest = self.transits.iter().map(|(_, transit)| *transit).min().unwrap_or(transit);
            self.age_ms = transit - fastest;
        }
        self.ack = Some(ack_ms);
        if self.last_at.is_some_and(|last| now.since(last) > ms(50)) {
            self.run = 0;
        }
        self.last_at = Some(now);
        self.run += u32::from(rose);
        self.told = Some(told);
        if options.operator_counter {
            let modulo = f64::from(p::COUNTER_MODULO);
            match (self.counter, counter) {
                (Some(last), Some(next)) => {
                    let step = (next - last).rem_euclid(modulo);
                    if (1.0..=25.0).contains(&step) {
                        self.counter_rose = Some(now);
                    } else if step != 0.0 {
                        reason = Some("the operator's counter jumped");
                    }
                }
                (Some(_), None) => reason = Some("the operator's counter is gone"),
                _ => {}
            }
            self.counter = counter;
        }
        if reason.is_some() {
            self.run = 0;
        }
        reason
    }
}

impl Feedback {
    fn take(&mut self, at: Instant, frame: &Frame) {
        let data = frame.payload();
        if frame.id().raw() != p::STATE_ID || frame.is_fd() {
            return;
        }
        let strike = |strikes: u8| (strikes + 1).min(5);
        if data.len() != 8 || data[7] != crc8_j1850(&data[..7]) {
            self.strikes = strike(self.strikes);
            return;
        }
        let counter = data[6] & 0xF;
        if let Some(last) = self.counter.replace(counter)
            && counter != (last + 1) % 16
        {
            // A repeated counter is a frozen sender, which only grows old.
            if counter != last {
                self.strikes = strike(self.strikes);
            }
            return;
        }
        self.strikes = self.strikes.saturating_sub(1);
        let speed = f64::from(u16::from_le_bytes([data[0], data[1]])) * 0.01;
        let steer = f64::from(i16::from_le_bytes([data[2], data[3]])) * 0.1;
        if speed > 200.0 + 1e-9 || steer.abs() > 500.0 + 1e-9 {
            return;
        }
        (self.at, self.speed, self.steer) = (Some(at), speed, steer);
    }
}
