//! The gateway in virtual time, between a streamer and a vehicle that fail.
//!
//! Owns the schedule, the operator who drives and the faults that happen to both. Relies on `sim::ocp`, `sim::vehicle`
//! and on the nodes of the gateway. Never reads a clock and never uses a random number that the seed does not give: the
//! same seed is the same world, to the last bit on the wire.

pub mod bus;
pub mod checks;
mod fate;
pub mod gateway;
pub mod link;
pub mod plan;
pub mod rng;

use self::bus::Bus;
use self::checks::{Checks, Seen};
use self::gateway::Gateway;
use self::link::Pipe;
use self::rng::Rng;
use super::ocp::Options;
use super::ocp::command::{self, Command};
use super::ocp::{Admission, Endpoint, Pipeline, Transmit};
use super::vehicle::{Layout, Vehicle};
use crate::config::{self, Config};
use crate::proto::ocp::{Axis, Button};
use crate::safety::input::StateName;
use crate::time::{Duration, Instant};

/// The grain of time.
const QUANTUM: Duration = Duration::from_micros(250);

/// How often the operator's hands and the faults are looked at.
const HANDS: Duration = Duration::from_millis(10);

/// The only vehicle, and the only one that is connected: the Player has no client here.
const VEHICLE: Endpoint = Endpoint::Vehicle(0);

const EXAMPLE: &str = include_str!("../../deploy/ocpcan.example.toml");
const EXAMPLE_DBC: &str = include_str!("../../deploy/example.dbc");

/// Identifier of the vehicle's state in the example.
const STATE_ID: u32 = 0x201;

/// The configuration that is shipped as the example.
///
/// # Panics
/// If it has a problem; a test of the configuration would have said so.
#[must_use]
pub fn example() -> Config {
    config::parse(EXAMPLE, &[("example.dbc", EXAMPLE_DBC)]).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// One world.
#[derive(Debug)]
pub struct World {
    now: Instant,
    rng: Rng,
    ocp: Pipeline,
    server_due: Instant,
    connected: bool,
    server_closed: bool,
    to_gateway: Pipe,
    to_server: Pipe,
    gateway: Gateway,
    bus: Bus,
    restart_at: Option<Instant>,
    vehicle: Vehicle,
    vehicle_speaks: bool,
    checks: Checks,
    hands_at: Instant,
    ready_since: Option<Instant>,
    release_at: Option<Instant>,
    trouble_at: Instant,
    heal_at: Option<Instant>,
    /// The operator keeps the stick and the switch where they are, whatever happens.
    stubborn: bool,
    look_at: Option<Instant>,
    /// Frames of the foreign writer, which the vehicle refuses.
    foreign_frames: u64,
    /// Every drive ends at once, and the operator tries again (row 9).
    hasty: bool,
    /// A connection that becomes slower by this more each time: no gap shows it, only the age of the messages does.
    creeping: Option<Duration>,
    log: Option<Vec<String>>,
}

impl World {
    /// The world of this seed. `verbose` keeps a log of what was done to it.
    ///
    /// # Panics
    /// If the shipped example is not usable.
    #[must_use]
    pub fn new(seed: u64, verbose: bool) -> Self {
        let mut rng = Rng::new(seed);
        let config = example();
        // Some worlds start just before a 32-bit millisecond clock would wrap.
        let start = *rng.pick(&[1_000, 86_400_000, u64::from(u32::MAX) - 20_000]);
        let now = Instant::from_millis(start);
        let options = Options { seed: rng.bits(), ..Options::default() };
        let layout = Layout::example().unwrap_or_else(|error| panic!("{error:?}"));
        let ocp = Pipeline::new(options, now);
        Self {
            now,
            server_due: ocp.poll_timeout(),
            ocp,
            connected: false,
            server_closed: false,
            // A burst of a hundred messages fits one way; the other fills up within a second or two.
            to_gateway: Pipe::new(128 * 1024),
            to_server: Pipe::new(8 * 1024),
            gateway: Gateway::new(&config, now),
            bus: Bus::new(now),
            restart_at: None,
            vehicle: Vehicle::new(layout, now),
            vehicle_speaks: true,
            checks: Checks::new(config.settings),
            hands_at: now,
            ready_since: None,
            release_at: None,
            trouble_at: now + Duration::from_millis(rng.range(3_000, 8_000)),
            heal_at: None,
            stubborn: false,
            look_at: None,
            foreign_frames: 0,
            hasty: rng.per_mille(50),
            creeping: None,
            log: verbose.then(Vec::new),
            rng,
        }
    }

    /// Lets the world go on for this long.
    ///
    /// # Errors
    /// The first violation of what must hold.
    pub fn run(&mut self, time: Duration) -> Result<Seen, String> {
        let end = self.now + time;
        while self.now < end {
            self.now += QUANTUM;
            self.advance();
            if let Some(violation) = self.checks.violation.take() {
                return Err(violation);
            }
        }
        let counters = self.vehicle.snapshot().counters;
        if counters.crc != 0 || counters.malformed > self.foreign_frames || counters.range != 0 {
            return Err(format!("the vehicle refused frames: {counters:?}"));
        }
        Ok(self.checks.seen.clone())
    }

    /// What was done to the world, if it was asked to keep it.
    #[must_use]
    pub fn log(&self) -> &[String] {
        self.log.as_deref().unwrap_or_default()
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(log) = &mut self.log {
            log.push(format!("{now:?} {}", what()));
        }
    }

    fn advance(&mut self) {
        let now = self.now;
        if now >= self.hands_at {
            self.hands_at = now + HANDS;
            self.hands();
        }
        self.serve();
        self.connect();
        self.carry();
        if now >= self.vehicle.poll_timeout() {
            self.vehicle.handle_timeout(now);
            while let Some(frame) = self.vehicle.poll_transmit() {
                if self.vehicle_speaks {
                    self.bus.inject(frame);
                }
            }
        }
        while let Some(on) = self.bus.poll_wire(now) {
            self.checks.wire(now, &on, self.bus.came_up());
            self.vehicle.handle_frame(now, &on.frame);
            if on.written.is_none() && self.bus.is_up() {
                if on.frame.id().raw() == STATE_ID {
                    self.checks.feedback(now);
                }
                self.gateway.handle_frame(now, on.frame, &mut self.rng);
            }
        }
        let before = self.gateway.watchdog.core().state();
        let restart =
            self.gateway.run(now, &mut self.bus, &mut self.to_server, &mut self.checks, &mut self.rng);
        if restart {
            self.restart_at = Some(now + Duration::from_millis(self.rng.range(5, 60)));
        }
        if self.restart_at.is_some_and(|at| now >= at) {
            self.restart_at = None;
            self.bus.set_off(now, false);
        }
        let after = self.gateway.watchdog.core().state();
        if before != after {
            self.note(|| format!("{} -> {}", before.name(), after.name()));
        }
        if !self.bus.works() {
            self.checks.bus_trouble(now);
        }
    }

    /// The streamer sends what is due.
    fn serve(&mut self) {
        let now = self.now;
        if now < self.server_due {
            return;
        }
        self.ocp.handle_timeout(now);
        while let Some((_, transmit)) = self.ocp.poll_transmit(now) {
            match transmit {
                Transmit::Bytes(bytes) => {
                    if self.to_gateway.push(now, &bytes, &mut self.rng) < bytes.len() {
                        // The gateway does not read: a real server drops whole messages, and so the stream ends.
                        self.ocp.handle_back_pressure(VEHICLE);
                        self.server_closed = true;
                    }
                }
                Transmit::Close => self.server_closed = true,
                Transmit::Reset => {
                    self.to_gateway.clear();
                    self.server_closed = true;
                }
            }
        }
        while self.ocp.poll_event().is_some() {}
        self.server_due = self.ocp.poll_timeout();
    }

    fn connect(&mut self) {
        let now = self.now;
        if self.connected && self.gateway.is_closed() {
            self.connected = false;
            self.ocp.handle_disconnect(VEHICLE);
            self.server_due = now;
            self.note(|| "the gateway is disconnected".to_owned());
        }
        if !self.connected && self.gateway.wants_to_connect(now) {
            let accepted =
                matches!(self.ocp.handle_connect(now, VEHICLE), Admission::Accept | Admission::Replace);
            self.server_due = now;
            if accepted {
                self.to_gateway.clear();
                self.to_server.clear();
                self.server_closed = false;
                self.connected = true;
                self.checks.connected();
                self.note(|| "connected".to_owned());
            }
            self.gateway.handle_connect(now, accepted);
        }
    }

    /// Bytes arrive at both ends.
    fn carry(&mut self) {
        let now = self.now;
        if !self.connected {
            return;
        }
        while let Some(bytes) = self.to_gateway.pop(now) {
            self.checks.arrived(now, &bytes);
            self.gateway.handle_bytes(now, &bytes, &mut self.rng);
        }
        if self.server_closed && self.to_gateway.is_empty() {
            self.server_closed = false;
            self.checks.cause(now, "the end of the connection");
            self.gateway.handle_end(now, &mut self.rng);
        }
        while self.ocp.wants_bytes(now, VEHICLE) {
            let Some(bytes) = self.to_server.pop(now) else { break };
            self.ocp.handle_bytes(now, VEHICLE, &bytes);
        }
    }

    fn command(&mut self, command: Command) {
        self.ocp.command(self.now, command);
        self.server_due = self.now;
    }

    /// A line of the simulator's control language.
    fn say(&mut self, line: &str) {
        self.note(|| line.to_owned());
        if let Ok(Some(command)) = command::parse(line) {
            self.command(command);
        } else {
            self.checks.violation = Some(format!("not a command: {line}"));
        }
    }

    /// The operator, the person at the box, and fate.
    fn hands(&mut self) {
        let now = self.now;
        let state = self.gateway.watchdog.core().state();
        if self.heal_at.is_some_and(|at| now >= at) {
            self.heal();
        }
        if state == StateName::Lockout {
            let look =
                *self.look_at.get_or_insert_with(|| now + Duration::from_millis(self.rng.range(500, 3_000)));
            if now >= look {
                self.look_at = None;
                self.gateway.requests.acknowledge = true;
            }
        }
        if state == StateName::Armed {
            self.drive();
        } else if !self.stubborn {
            self.arm(state);
        }
        if let Some(delay) = &mut self.creeping {
            *delay += Duration::from_millis(3);
            self.to_gateway.slow_down(*delay);
        }
        if self.hasty {
            if state == StateName::Armed && self.heal_at.is_none() {
                self.say("inject fault");
                self.heal_at = Some(now + Duration::from_millis(100));
            }
            return;
        }
        if now >= self.trouble_at && self.heal_at.is_none() {
            let armed = state == StateName::Armed;
            if armed || self.rng.per_mille(200) {
                self.break_something();
                self.heal_at = Some(now + Duration::from_millis(self.rng.range(30, 2_500)));
            }
            self.trouble_at = now + Duration::from_millis(self.rng.range(500, 5_000));
        }
    }

    /// Lets go, waits for READY, then holds the switch.
    fn arm(&mut self, state: StateName) {
        let now = self.now;
        if let Some(at) = self.release_at {
            if now >= at || state != StateName::Ready {
                self.release_at = None;
                self.command(Command::Release(Button::Start));
                self.checks.arming_wanted = false;
            }
            return;
        }
        if self.ocp.player().controller().axes != crate::proto::ocp::Controller::NEUTRAL.axes {
            self.command(Command::Neutral);
        }
        self.ready_since = (state == StateName::Ready).then(|| self.ready_since.unwrap_or(now));
        if self.ready_since.is_some_and(|since| now.since(since) > Duration::from_millis(150)) {
            self.command(Command::Press(Button::Start));
            self.checks.arming_wanted = true;
            self.release_at = Some(now + Duration::from_millis(1_500));
        }
    }

    fn drive(&mut self) {
        if self.release_at.take().is_some() {
            self.command(Command::Release(Button::Start));
            self.stubborn = self.rng.per_mille(200);
        }
        self.checks.arming_wanted = false;
        self.ready_since = None;
        if !self.rng.per_mille(40) {
            return;
        }
        let throttle = if self.rng.per_mille(700) { self.rng.between(-1.0, 1.0) } else { -1.0 };
        let brake = if self.rng.per_mille(200) { self.rng.between(-1.0, 1.0) } else { -1.0 };
        let steer = self.rng.between(-1.0, 1.0);
        self.command(Command::Axis(Axis::RightTrigger, throttle));
        self.command(Command::Axis(Axis::LeftTrigger, brake));
        self.command(Command::Axis(Axis::LeftX, steer));
    }
}
