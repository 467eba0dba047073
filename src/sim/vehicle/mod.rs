//! A vehicle on a CAN bus, in virtual time: obeys the example DBC's commands and reports its state.
//!
//! Owns what a careful drive-by-wire controller does with `DRIVE_CMD` and `BODY_CMD`: it checks kind, length, CRC,
//! counter and range, obeys only while the enable bit is set, and brakes by itself when it is not, or when no valid
//! command has come for [`TIMEOUT`]. After a timeout it wants to see the enable bit at 0 once before it obeys again, as
//! it does after power-up. Relies on `signals`; never on the gateway's own safety code, whose judge it is.

pub mod layout;
pub mod model;

use heapless::Deque;

pub use layout::{Layout, LayoutError};
pub use model::{Motion, Pedals, SteeringMode};

use self::layout::{Protection, Shape};
use crate::can::{Frame, FrameKind};
use crate::signals::bits::BitsError;
use crate::signals::e2e::Step;
use crate::time::{Duration, Instant};

/// Without a valid command for this long the vehicle brakes by itself.
pub const TIMEOUT: Duration = Duration::from_millis(200);

/// So many bad commands in a row are as good as none: the vehicle does not wait for the timeout.
pub const BAD_IN_A_ROW: u32 = 8;

/// How hard the vehicle brakes by itself, as a share of full brake: firm, not an emergency stop.
const OWN_BRAKE: f64 = 0.6;

/// Without body commands for this long the horn falls silent; lights stay.
const BODY_TIMEOUT: Duration = Duration::from_millis(500);

/// Where it stands at the start: Norrköping, in degrees.
const START: (f64, f64) = (58.590_9, 16.182_6);

/// Whether the vehicle obeys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// No valid command since power-up with the enable bit at 0: brakes.
    Waiting,
    /// Valid commands with the enable bit at 0: brakes.
    Disabled,
    /// Does what it is told.
    Obeying,
    /// No valid command for too long: brakes, until it has seen the enable bit at 0.
    TimedOut,
}

/// What the vehicle counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Valid drive commands.
    pub accepted: u64,
    /// Drive or body commands of a wrong kind or length.
    pub malformed: u64,
    /// Drive commands whose CRC does not fit.
    pub crc: u64,
    /// Drive commands whose counter did not advance by one.
    pub counter: u64,
    /// Drive or body commands with a value that the DBC does not allow.
    pub range: u64,
    /// Times the vehicle gave up waiting for a valid command.
    pub timeouts: u64,
    /// Steering modes that were asked for while it moved.
    pub mode_refused: u64,
    /// State and position frames made.
    pub sent: u64,
}

/// The vehicle as it is now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Snapshot {
    /// Whether it obeys.
    pub control: Control,
    /// Place, direction, speed, steering wheel.
    pub motion: Motion,
    /// What its actuators do, its own braking included.
    pub pedals: Pedals,
    /// As in `VEHICLE_STATE`: 0 park, 2 neutral, 3 drive.
    pub gear: u8,
    /// Lights on.
    pub headlights: bool,
    /// Horn sounding.
    pub horn: bool,
    /// How the axles steer.
    pub mode: SteeringMode,
    /// When the newest valid drive command came.
    pub last_valid: Option<Instant>,
    /// What it counted.
    pub counters: Counters,
}

impl Snapshot {
    /// Speed in km/h.
    #[must_use]
    pub fn speed_kph(&self) -> f64 {
        self.motion.speed * 3.6
    }
}

/// One valid drive command.
#[derive(Debug, Clone, Copy)]
struct DriveCommand {
    steer_deg: f64,
    /// Shares of full pedal.
    throttle: f64,
    brake: f64,
    enable: bool,
}

/// A vehicle on a CAN bus.
#[derive(Debug)]
pub struct Vehicle {
    layout: Layout,
    motion: Motion,
    control: Control,
    command: DriveCommand,
    last_valid: Option<Instant>,
    last_count: Option<u32>,
    bad_in_a_row: u32,
    headlights: bool,
    horn_until: Option<Instant>,
    mode: SteeringMode,
    counters: Counters,
    next_state: Instant,
    next_position: Instant,
    state_count: u32,
    outbox: Deque<Frame, 4>,
}

impl Vehicle {
    /// A vehicle that is switched on now, standing.
    #[must_use]
    pub const fn new(layout: Layout, now: Instant) -> Self {
        Self {
            layout,
            motion: Motion::standing(now, START.0, START.1),
            control: Control::Waiting,
            command: DriveCommand { steer_deg: 0.0, throttle: 0.0, brake: 0.0, enable: false },
            last_valid: None,
            last_count: None,
            bad_in_a_row: 0,
            headlights: false,
            horn_until: None,
            mode: SteeringMode::Manual,
            counters: Counters {
                accepted: 0,
                malformed: 0,
                crc: 0,
                counter: 0,
                range: 0,
                timeouts: 0,
                mode_refused: 0,
                sent: 0,
            },
            next_state: now,
            next_position: now,
            state_count: 0,
            outbox: Deque::new(),
        }
    }

    /// Takes a frame of the bus. What is not for the vehicle is ignored.
    pub fn handle_frame(&mut self, now: Instant, frame: &Frame) {
        if frame.kind() == FrameKind::Error {
            return;
        }
        self.advance(now);
        if frame.id() == self.layout.drive.id {
            match self.read_drive(frame) {
                Some(command) => self.obey(now, command),
                None => self.complain(),
            }
        } else if frame.id() == self.layout.body.id {
            self.take_body(now, frame);
        }
    }

    /// Does what is due by `now`: moves on, and makes the frames whose time has come. Frames whose time passed unseen
    /// are not made up for.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        if now >= self.next_state {
            self.next_state = following(self.next_state, self.layout.state.period, now);
            self.send(|v, data| v.fill_state(data), self.layout.state);
        }
        if now >= self.next_position {
            self.next_position = following(self.next_position, self.layout.position.period, now);
            self.send(|v, data| v.fill_position(data), self.layout.position);
        }
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self) -> Option<Frame> {
        self.outbox.pop_front()
    }

    /// When [`Vehicle::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let due = self.next_state.min(self.next_position);
        self.deadline().map_or(due, |deadline| due.min(deadline))
    }

    /// The vehicle as of the newest call.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            control: self.control,
            motion: self.motion,
            pedals: self.pedals(),
            gear: self.gear(),
            headlights: self.headlights,
            horn: self.horn_until.is_some_and(|until| self.motion.at < until),
            mode: self.mode,
            last_valid: self.last_valid,
            counters: self.counters,
        }
    }

    /// Moves on to `now`; a timeout on the way takes effect at its own moment.
    fn advance(&mut self, now: Instant) {
        if let Some(deadline) = self.deadline()
            && now >= deadline
        {
            self.motion.advance(deadline, &self.pedals(), self.mode);
            self.time_out();
        }
        self.motion.advance(now, &self.pedals(), self.mode);
    }

    /// When the vehicle gives up waiting for the next valid command.
    fn deadline(&self) -> Option<Instant> {
        match self.control {
            Control::Obeying | Control::Disabled => self.last_valid.map(|at| at + TIMEOUT),
            Control::Waiting | Control::TimedOut => None,
        }
    }

    const fn time_out(&mut self) {
        self.control = Control::TimedOut;
        self.counters.timeouts += 1;
    }

    /// What the actuators do.
    fn pedals(&self) -> Pedals {
        match self.control {
            Control::Obeying => Pedals {
                steer_deg: Some(self.command.steer_deg),
                throttle: self.command.throttle,
                brake: self.command.brake,
            },
            _ => Pedals { steer_deg: None, throttle: 0.0, brake: OWN_BRAKE },
        }
    }

    fn gear(&self) -> u8 {
        match self.control {
            Control::Obeying => 3,
            _ if self.motion.stands() => 0,
            _ => 2,
        }
    }

    /// A drive command, if every check passes; else it is counted under the first that does not.
    fn read_drive(&mut self, frame: &Frame) -> Option<DriveCommand> {
        let (layout, counters) = (&self.layout, &mut self.counters);
        let data = frame.payload();
        if !fits(&layout.drive, frame) {
            counters.malformed += 1;
            return None;
        }
        if !layout.drive_protection.checksum.verify(data) {
            counters.crc += 1;
            return None;
        }
        let plan = &layout.drive_protection.counter;
        let count = plan.read(data)?;
        let step = self.last_count.replace(count).map_or(Step::Next, |last| plan.step(last, count));
        if step != Step::Next {
            counters.counter += 1;
            return None;
        }
        let (steer, throttle, brake) =
            (layout.steer.read(data), layout.throttle.read(data), layout.brake.read(data));
        let (Some(steer_deg), Some(throttle), Some(brake)) = (steer, throttle, brake) else {
            counters.range += 1;
            return None;
        };
        let share = |percent: f64| (percent / 100.0).clamp(0.0, 1.0);
        let enable = layout.enable.decode_raw(data)? == 1;
        Some(DriveCommand { steer_deg, throttle: share(throttle), brake: share(brake), enable })
    }

    const fn obey(&mut self, now: Instant, command: DriveCommand) {
        self.counters.accepted += 1;
        self.bad_in_a_row = 0;
        self.last_valid = Some(now);
        self.command = command;
        self.control = match (self.control, command.enable) {
            (_, false) => Control::Disabled,
            (Control::Disabled | Control::Obeying, true) => Control::Obeying,
            (Control::Waiting | Control::TimedOut, true) => self.control,
        };
    }

    fn complain(&mut self) {
        self.bad_in_a_row = self.bad_in_a_row.saturating_add(1);
        if self.bad_in_a_row >= BAD_IN_A_ROW && self.deadline().is_some() {
            self.time_out();
        }
    }

    fn take_body(&mut self, now: Instant, frame: &Frame) {
        let layout = &self.layout;
        let data = frame.payload();
        if !fits(&layout.body, frame) {
            self.counters.malformed += 1;
            return;
        }
        let wanted = layout.mode.decode_raw(data).and_then(|raw| u8::try_from(raw).ok());
        let Some(wanted) = wanted.and_then(SteeringMode::from_number) else {
            self.counters.range += 1;
            return;
        };
        self.headlights = layout.headlights.decode_raw(data) == Some(1);
        self.horn_until = (layout.horn.decode_raw(data) == Some(1)).then(|| now + BODY_TIMEOUT);
        if wanted != self.mode {
            if self.motion.stands() {
                self.mode = wanted;
            } else {
                self.counters.mode_refused += 1;
            }
        }
    }

    fn send(&mut self, fill: fn(&mut Self, &mut [u8]) -> Result<(), BitsError>, shape: Shape) {
        let payload = [0; 64];
        let payload = payload.get(..usize::from(shape.len)).unwrap_or(&payload);
        let frame =
            if shape.fd { Frame::fd(shape.id, payload, true, false) } else { Frame::data(shape.id, payload) };
        let Ok(mut frame) = frame else { return };
        // The layout was checked against the length: a value that cannot be written would be a mistake in here.
        if fill(self, frame.payload_mut()).is_err() {
            return;
        }
        if self.outbox.is_full() {
            self.outbox.pop_front(); // nobody polls: the newest counts
        }
        if self.outbox.push_back(frame).is_ok() {
            self.counters.sent += 1;
        }
    }

    fn fill_state(&mut self, data: &mut [u8]) -> Result<(), BitsError> {
        let layout = &self.layout;
        layout.speed.write(data, self.motion.speed * 3.6)?;
        layout.angle.write(data, self.motion.steer_deg)?;
        layout.gear.encode_saturating(data, f64::from(self.gear()))?;
        let Protection { counter, checksum } = &layout.state_protection;
        counter.apply(data, self.state_count)?;
        self.state_count = counter.next(self.state_count);
        checksum.apply(data)
    }

    fn fill_position(&mut self, data: &mut [u8]) -> Result<(), BitsError> {
        self.layout.latitude.write(data, self.motion.latitude)?;
        self.layout.longitude.write(data, self.motion.longitude)
    }
}

/// Whether the frame has the kind and length of the message.
fn fits(shape: &Shape, frame: &Frame) -> bool {
    let kind = match frame.kind() {
        FrameKind::Data => !shape.fd,
        FrameKind::Fd { .. } => shape.fd,
        FrameKind::Remote | FrameKind::Error => false,
    };
    kind && frame.len() == usize::from(shape.len)
}

/// The first moment of the grid after `now`.
fn following(due: Instant, period: Duration, now: Instant) -> Instant {
    let next = due + period;
    if next > now { next } else { now + period }
}

#[cfg(test)]
mod tests;
