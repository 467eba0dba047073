//! The resolved mapping: what a configuration file and its DBC files become once every check has passed.
//!
//! Owns plain data, sized at start and never changed. Relies on `can` for identifiers and on `signals::bits` for
//! codecs. Never contains a name that is still to be looked up: whatever can be wrong was found by `config`.

use super::bits::Codec;
use super::car::Value;
use super::e2e::{ChecksumPlan, CounterPlan};
use super::source::Source;
use super::transform::Transform;
use crate::can::Id;
use crate::time::Duration;

/// Everything the gateway does with signals.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The vehicle's name, from the file.
    pub vehicle: String,
    /// The named buses; other parts refer to them by index.
    pub buses: Vec<BusPlan>,
    /// Every frame that the watchdog sends.
    pub send: Vec<SendPlan>,
    /// Every frame that is listened to for feedback.
    pub receive: Vec<ReceivePlan>,
    /// The fields of `client_user_data` that sources name.
    pub user_fields: Vec<UserField>,
    /// The switch that arms.
    pub arm: Option<Source>,
    /// A switch that must be held while ARMED.
    pub dead_man: Option<Source>,
    /// Switches that must be true; the loss of one trips.
    pub require: Vec<Requirement>,
    /// The operator's own counter in the user data.
    pub operator_counter: Option<OperatorCounter>,
    /// What is reported in `vehicle_user_data.user_data`.
    pub report: Vec<ReportField>,
    /// What is reported as `vehicle_user_data.pos`.
    pub position: Option<PositionReport>,
    /// Where the vehicle's speed is read, for standstill.
    pub speed: Option<SpeedPlan>,
}

/// One CAN bus.
#[derive(Debug, Clone)]
pub struct BusPlan {
    /// The name in the configuration.
    pub name: String,
    /// `can0`, or `sim:NAME`.
    pub interface: String,
    /// Whether CAN FD frames are exchanged.
    pub fd: bool,
    /// What counts as proof that a frame left.
    pub echo: Echo,
}

/// What counts as proof that a frame left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// The driver's own echo; a physical interface without it is refused.
    Required,
    /// The interface echoes before the adapter has the frame (slcan). Shown everywhere as unproven.
    Unproven,
}

/// One frame that the watchdog sends.
#[derive(Debug, Clone)]
pub struct SendPlan {
    /// Message name in the DBC.
    pub name: String,
    /// Index into [`Plan::buses`].
    pub bus: usize,
    /// Identifier on the bus.
    pub id: Id,
    /// Bytes of payload.
    pub len: u8,
    /// Whether it goes out as a CAN FD frame (with bit rate switch).
    pub fd: bool,
    /// The longest time between two frames.
    pub period: Duration,
    /// When frames go out within the period.
    pub mode: SendMode,
    /// The bit that tells the vehicle to obey.
    pub enable: Option<EnablePlan>,
    /// The alive counter.
    pub counter: Option<CounterPlan>,
    /// The checksum, computed last.
    pub checksum: Option<ChecksumPlan>,
    /// Every other signal of the frame.
    pub signals: Vec<SignalPlan>,
}

/// When frames go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendMode {
    /// Every period, with the newest values.
    Cyclic,
    /// With every new command, but not before this gap has passed; and every period in any case.
    OnCommand {
        /// Shortest time between two frames.
        min_gap: Duration,
    },
}

/// The bit that tells the vehicle to obey: 1 in ARMED, [`EnablePlan::stop`] in STOPPING, else 0.
#[derive(Debug, Clone, Copy)]
pub struct EnablePlan {
    /// Its place in the frame.
    pub codec: Codec,
    /// Its value while STOPPING (0 or 1).
    pub stop: bool,
}

/// What a signal is for. Brake priority, derating and the lints follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Propels the vehicle.
    Throttle,
    /// Slows the vehicle.
    Brake,
    /// Steers the vehicle.
    Steering,
    /// Allows others to act (a switch that is an actuator).
    Enable,
    /// Everything else: lights, horn, modes.
    Other,
}

/// What a signal does between a trip and the end of STOPPING.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StopProfile {
    /// The safe value at once.
    Safe,
    /// Keeps its last commanded value until STOPPING ends.
    Hold,
    /// Moves towards the safe value at this rate, in the unit of the signal per second. A brake that is pressed
    /// harder than its safe value stays where it is.
    Ramp {
        /// Positive, finite.
        per_s: f64,
    },
}

/// One mapped signal of a sent frame.
#[derive(Debug, Clone)]
pub struct SignalPlan {
    /// Signal name in the DBC.
    pub name: String,
    /// Its place and scale.
    pub codec: Codec,
    /// The DBC gives its values names: a number between two of them is no value.
    pub named: bool,
    /// What it is for.
    pub kind: Kind,
    /// Where its value comes from.
    pub source: Source,
    /// A switch that flips the value with each press instead of being held.
    pub toggle: bool,
    /// Switches that choose a value, in the signal's unit: the first in this list that is held, and it stays chosen
    /// after its release. Where this is not empty it stands in place of `source`.
    pub select: Vec<(Source, f64)>,
    /// From the source's reading to a value in the signal's unit.
    pub transform: Transform,
    /// Lowest value that is ever sent, in the signal's unit.
    pub min: f64,
    /// Highest value that is ever sent.
    pub max: f64,
    /// Fastest rise per second; `None` is no limit.
    pub slew_up: Option<f64>,
    /// Fastest fall per second; `None` is no limit.
    pub slew_down: Option<f64>,
    /// What is sent without a valid session.
    pub safe: f64,
    /// What is sent while STOPPING.
    pub stop: StopProfile,
    /// Changes only while the vehicle stands.
    pub at_standstill: bool,
    /// The feedback that must follow this signal, and how closely.
    pub confirm: Option<ConfirmPlan>,
}

impl SignalPlan {
    /// A signal that tells something and moves nothing: a dashboard's, or one of a car that is played. `described` is its name, its
    /// place, and whether the DBC names its values; `reach` the lowest and highest value that is ever sent.
    #[must_use]
    pub fn telling(
        (name, codec, named): (String, Codec, bool),
        source: Source,
        transform: Transform,
        (min, max): (f64, f64),
        safe: f64,
    ) -> Self {
        Self {
            name,
            codec,
            named,
            kind: Kind::Other,
            source,
            toggle: false,
            select: Vec::new(),
            transform,
            min,
            max,
            slew_up: None,
            slew_down: None,
            safe,
            stop: StopProfile::Safe,
            at_standstill: false,
            confirm: None,
        }
    }
}

/// The feedback that must follow an actuator (fault 61).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConfirmPlan {
    /// Where the actual value is read.
    pub signal: SignalRef,
    /// Largest difference that is no contradiction, in the signal's unit.
    pub tolerance: f64,
}

/// One frame that is listened to.
#[derive(Debug, Clone)]
pub struct ReceivePlan {
    /// Message name in the DBC.
    pub name: String,
    /// Index into [`Plan::buses`].
    pub bus: usize,
    /// Identifier on the bus.
    pub id: Id,
    /// Bytes of payload; a frame of another length is no feedback.
    pub len: u8,
    /// Whether it comes as a CAN FD frame; a frame of the other kind is no feedback (row 63).
    pub fd: bool,
    /// How old its values may be.
    pub stale_after: Duration,
    /// Whether its loss trips.
    pub required: bool,
    /// The alive counter that is checked.
    pub counter: Option<CounterPlan>,
    /// The checksum that is checked.
    pub checksum: Option<ChecksumPlan>,
    /// The signals that are read.
    pub signals: Vec<ReceiveSignal>,
}

/// One signal that is read.
#[derive(Debug, Clone)]
pub struct ReceiveSignal {
    /// Signal name in the DBC.
    pub name: String,
    /// Its place and scale.
    pub codec: Codec,
    /// Lowest plausible value (the DBC's minimum), if it has one.
    pub min: f64,
    /// Highest plausible value (the DBC's maximum).
    pub max: f64,
    /// The raw values that have a name.
    pub names: Vec<(i64, String)>,
    /// For a multiplexed signal: the multiplexor's place and the value that selects this one.
    pub mux: Option<(Codec, u64)>,
}

/// A received signal, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalRef {
    /// Index into [`Plan::receive`].
    pub receive: usize,
    /// Index into [`ReceivePlan::signals`].
    pub signal: usize,
}

/// One field of `client_user_data`.
#[derive(Debug, Clone, PartialEq)]
pub struct UserField {
    /// The keys that lead to it, outermost first.
    pub path: Vec<String>,
    /// The names that stand for numbers (DBC value names).
    pub names: Vec<(String, f64)>,
}

impl UserField {
    /// The path as it is written in the file.
    #[must_use]
    pub fn dotted(&self) -> String {
        self.path.join(".")
    }
}

impl Plan {
    /// The interfaces of all buses, in their order.
    pub fn interfaces(&self) -> impl Iterator<Item = &str> {
        self.buses.iter().map(|bus| bus.interface.as_str())
    }
}

/// A switch that must be true for the gateway to arm and to stay armed.
#[derive(Debug, Clone, PartialEq)]
pub struct Requirement {
    /// As written in the file, for messages.
    pub name: String,
    /// Where it is read.
    pub source: Source,
}

/// The operator's counter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OperatorCounter {
    /// Index into [`Plan::user_fields`].
    pub field: u8,
    /// The counter starts again at 0 after reaching this minus 1; `None`: it never wraps.
    pub modulo: Option<u32>,
}

/// Where a reported value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportSource {
    /// A signal of a received frame.
    Signal(SignalRef),
    /// The simulated car.
    Car(Value),
}

/// One field of `vehicle_user_data.user_data`.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportField {
    /// Key in `user_data`.
    pub key: String,
    /// What is reported.
    pub from: ReportSource,
    /// Older than this is reported as stale.
    pub stale_after: Duration,
}

/// `vehicle_user_data.pos`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PositionReport {
    /// Latitude, decimal degrees.
    pub lat: ReportSource,
    /// Longitude, decimal degrees.
    pub lon: ReportSource,
    /// Older than this is reported as null.
    pub stale_after: Duration,
}

/// Where the speed is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpeedPlan {
    /// The speed signal.
    pub signal: SignalRef,
    /// The vehicle stands when the absolute value is at most this, in the signal's unit.
    pub standstill: f64,
    /// Without an operator counter, throttle is cut to zero above this speed, in the signal's unit.
    pub cap_without_counter: Option<f64>,
}
