//! A vehicle as a plan, made by hand: what simulations and tests drive.
//!
//! Owns one mapping that uses every rule of the core: two buses, a stop profile of each kind, brake and throttle in
//! one frame, a frame on command, checksums of two kinds, a signal that waits for standstill. Relies on `signals`.
//! Never reads a file, so that what it proves does not depend on the configuration's reader.

use crate::can::Id;
use crate::signals::bits::{ByteOrder, Codec, Raw};
use crate::signals::e2e::{Algorithm, ChecksumPlan, CounterPlan};
use crate::signals::plan::{
    BusPlan, ConfirmPlan, Echo, EnablePlan, Kind, OperatorCounter, Plan, ReceivePlan, ReceiveSignal,
    ReportField, ReportSource, Requirement, SendMode, SendPlan, SignalPlan, SignalRef, SpeedPlan,
    StopProfile, UserField,
};
use crate::signals::source::Source;
use crate::signals::transform::Transform;
use crate::time::Duration;

/// Identifier of the driving frame.
pub const DRIVE_ID: u32 = 0x101;
/// Identifier of lights, horn and steering mode.
pub const BODY_ID: u32 = 0x102;
/// Identifier of the tool on the second bus.
pub const TOOL_ID: u32 = 0x110;
/// Identifier of the vehicle's feedback.
pub const STATE_ID: u32 = 0x201;

/// Bit of the arm switch in the pad's buttons (`start`).
pub const ARM_BIT: u8 = 7;
/// Bit of the dead-man switch (`right_bumper`).
pub const DEAD_MAN_BIT: u8 = 5;
/// Bit of the tool's switch (`a`).
pub const TOOL_BIT: u8 = 0;

/// User fields by index.
pub const USER_LIGHTS: u8 = 0;
/// See [`USER_LIGHTS`].
pub const USER_MODE: u8 = 1;
/// See [`USER_LIGHTS`]: the operator's counter.
pub const USER_COUNTER: u8 = 2;
/// See [`USER_LIGHTS`]: a switch that must be true.
pub const USER_PERMIT: u8 = 3;

/// Full lock, degrees.
pub const STEER_MAX: f64 = 450.0;
/// Degrees per second.
pub const STEER_SLEW: f64 = 600.0;
/// Percent per second.
pub const THROTTLE_UP: f64 = 50.0;
/// Percent per second.
pub const THROTTLE_DOWN: f64 = 400.0;
/// Percent per second.
pub const BRAKE_UP: f64 = 400.0;
/// Percent per second.
pub const BRAKE_DOWN: f64 = 200.0;
/// Percent; what the brake shows without a valid session.
pub const BRAKE_SAFE: f64 = 30.0;
/// Percent per second, the brake's stop profile.
pub const BRAKE_RAMP: f64 = 60.0;
/// Largest difference between commanded and actual steering that is no contradiction, degrees.
pub const STEER_TOLERANCE: f64 = 250.0;
/// At or below this speed the vehicle stands, km/h.
pub const STANDSTILL: f64 = 0.5;
/// Without an operator counter no throttle above this speed, km/h.
pub const SPEED_CAP: f64 = 8.0;
/// Feedback older than this is lost.
pub const STATE_STALE: Duration = Duration::from_millis(100);
/// Period of the driving frame.
pub const DRIVE_PERIOD: Duration = Duration::from_millis(20);
/// Period of lights and horn.
pub const BODY_PERIOD: Duration = Duration::from_millis(50);
/// Period of the tool's frame.
pub const TOOL_PERIOD: Duration = Duration::from_millis(40);
/// Gap of the frames on command.
pub const COMMAND_GAP: Duration = Duration::from_millis(10);
/// The operator's counter starts again at this.
pub const COUNTER_MODULO: u32 = 256;

/// What differs between the plans that are driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is one key of a configuration")]
pub struct PlanOptions {
    /// A button that must be held while armed.
    pub dead_man: bool,
    /// The operator sends a counter.
    pub operator_counter: bool,
    /// A switch in the user data must be true.
    pub permit: bool,
    /// The vehicle's steering is compared with the command.
    pub confirm: bool,
    /// The vehicle's speed is known.
    pub speed: bool,
    /// A second bus with a tool.
    pub tool: bool,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            dead_man: false,
            operator_counter: true,
            permit: false,
            confirm: true,
            speed: true,
            tool: true,
        }
    }
}

/// Unsigned or signed little-endian bits.
fn codec(start: u16, bits: u8, raw: Raw, factor: f64) -> Codec {
    Codec { start, bits, order: ByteOrder::Little, raw, factor, offset: 0.0 }
}

fn standard(raw: u32) -> Id {
    Id::standard(raw).unwrap_or(Id::from_word(0))
}

/// A signal of kind `other` without limits of rate, safe at 0.
#[must_use]
pub fn signal(name: &str, place: Codec, source: Source, transform: Transform, max: f64) -> SignalPlan {
    SignalPlan {
        name: name.to_owned(),
        codec: place,
        named: false,
        kind: Kind::Other,
        source,
        toggle: false,
        select: Vec::new(),
        transform,
        min: 0.0,
        max,
        slew_up: None,
        slew_down: None,
        safe: 0.0,
        stop: StopProfile::Safe,
        at_standstill: false,
        confirm: None,
    }
}

fn drive(options: PlanOptions) -> SendPlan {
    let steer = SignalPlan {
        kind: Kind::Steering,
        min: -STEER_MAX,
        slew_up: Some(STEER_SLEW),
        slew_down: Some(STEER_SLEW),
        stop: StopProfile::Hold,
        confirm: options.confirm.then_some(ConfirmPlan {
            signal: SignalRef { receive: 0, signal: 1 },
            tolerance: STEER_TOLERANCE,
        }),
        ..signal(
            "STEER",
            codec(0, 16, Raw::Signed, 0.1),
            Source::Axis(0),
            Transform::centred(-1.0, 0.0, 1.0).output(-STEER_MAX, STEER_MAX),
            STEER_MAX,
        )
    };
    let pedal = |name, byte: u16, axis| {
        let lever = Transform::one_sided(-1.0, 1.0).output(0.0, 100.0);
        signal(name, codec(byte * 8, 8, Raw::Unsigned, 0.5), Source::Axis(axis), lever, 100.0)
    };
    let throttle = SignalPlan {
        kind: Kind::Throttle,
        slew_up: Some(THROTTLE_UP),
        slew_down: Some(THROTTLE_DOWN),
        ..pedal("THROTTLE", 2, 5)
    };
    let brake = SignalPlan {
        kind: Kind::Brake,
        slew_up: Some(BRAKE_UP),
        slew_down: Some(BRAKE_DOWN),
        safe: BRAKE_SAFE,
        stop: StopProfile::Ramp { per_s: BRAKE_RAMP },
        ..pedal("BRAKE", 3, 4)
    };
    SendPlan {
        name: "DRIVE".to_owned(),
        bus: 0,
        id: standard(DRIVE_ID),
        len: 8,
        fd: false,
        period: DRIVE_PERIOD,
        mode: SendMode::Cyclic,
        enable: Some(EnablePlan { codec: codec(32, 1, Raw::Unsigned, 1.0), stop: false }),
        counter: Some(CounterPlan { codec: codec(48, 4, Raw::Unsigned, 1.0), modulo: 16 }),
        checksum: Some(ChecksumPlan {
            codec: codec(56, 8, Raw::Unsigned, 1.0),
            algorithm: Algorithm::Crc8SaeJ1850,
            data_id: None,
        }),
        signals: vec![steer, throttle, brake],
    }
}

fn body() -> SendPlan {
    let lights = signal(
        "LIGHTS",
        codec(0, 1, Raw::Unsigned, 1.0),
        Source::User(USER_LIGHTS),
        Transform::switch(0.0, 1.0),
        1.0,
    );
    let mode = SignalPlan {
        at_standstill: true,
        ..signal("MODE", codec(8, 2, Raw::Unsigned, 1.0), Source::User(USER_MODE), Transform::direct(), 2.0)
    };
    SendPlan {
        name: "BODY".to_owned(),
        bus: 0,
        id: standard(BODY_ID),
        len: 8,
        fd: false,
        period: BODY_PERIOD,
        mode: SendMode::OnCommand { min_gap: COMMAND_GAP },
        enable: None,
        counter: None,
        checksum: None,
        signals: vec![lights, mode],
    }
}

fn tool() -> SendPlan {
    let switch = SignalPlan {
        kind: Kind::Enable,
        ..signal(
            "TOOL",
            codec(8, 8, Raw::Unsigned, 1.0),
            Source::Button(TOOL_BIT),
            Transform::switch(0.0, 100.0),
            100.0,
        )
    };
    SendPlan {
        name: "TOOL".to_owned(),
        bus: 1,
        id: standard(TOOL_ID),
        len: 4,
        fd: false,
        period: TOOL_PERIOD,
        mode: SendMode::OnCommand { min_gap: COMMAND_GAP },
        enable: None,
        counter: Some(CounterPlan { codec: codec(0, 8, Raw::Unsigned, 1.0), modulo: 256 }),
        checksum: Some(ChecksumPlan {
            codec: codec(24, 8, Raw::Unsigned, 1.0),
            algorithm: Algorithm::Xor,
            data_id: Some(0x1234),
        }),
        signals: vec![switch],
    }
}

fn state() -> ReceivePlan {
    let reading = |name: &str, place: Codec, min: f64, max: f64| ReceiveSignal {
        name: name.to_owned(),
        codec: place,
        min,
        max,
        names: Vec::new(),
        mux: None,
    };
    ReceivePlan {
        name: "STATE".to_owned(),
        bus: 0,
        id: standard(STATE_ID),
        len: 8,
        fd: false,
        stale_after: STATE_STALE,
        required: true,
        counter: Some(CounterPlan { codec: codec(48, 4, Raw::Unsigned, 1.0), modulo: 16 }),
        checksum: Some(ChecksumPlan {
            codec: codec(56, 8, Raw::Unsigned, 1.0),
            algorithm: Algorithm::Crc8SaeJ1850,
            data_id: None,
        }),
        signals: vec![
            reading("SPEED", codec(0, 16, Raw::Unsigned, 0.01), 0.0, 200.0),
            reading("STEER_ACTUAL", codec(16, 16, Raw::Signed, 0.1), -500.0, 500.0),
        ],
    }
}

/// The plan.
#[must_use]
pub fn plan(options: PlanOptions) -> Plan {
    let bus = |name: &str| BusPlan {
        name: name.to_owned(),
        interface: format!("sim:{name}"),
        fd: false,
        echo: Echo::Required,
    };
    let field = |name: &str| UserField { path: vec![name.to_owned()], names: Vec::new() };
    let mut plan = Plan {
        vehicle: "simulated".to_owned(),
        buses: vec![bus("drive")],
        send: vec![drive(options), body()],
        receive: vec![state()],
        user_fields: ["lights", "mode", "counter", "permit"].map(field).to_vec(),
        arm: Some(Source::Button(ARM_BIT)),
        dead_man: options.dead_man.then_some(Source::Button(DEAD_MAN_BIT)),
        require: Vec::new(),
        operator_counter: options
            .operator_counter
            .then_some(OperatorCounter { field: USER_COUNTER, modulo: Some(COUNTER_MODULO) }),
        report: vec![ReportField {
            key: "speed_kph".to_owned(),
            from: ReportSource::Signal(SignalRef { receive: 0, signal: 0 }),
            stale_after: STATE_STALE,
        }],
        position: None,
        speed: options.speed.then_some(SpeedPlan {
            signal: SignalRef { receive: 0, signal: 0 },
            standstill: STANDSTILL,
            cap_without_counter: Some(SPEED_CAP),
        }),
    };
    if options.permit {
        plan.require.push(Requirement { name: "user.permit".to_owned(), source: Source::User(USER_PERMIT) });
    }
    if options.tool {
        plan.buses.push(bus("tool"));
        plan.send.push(tool());
    }
    plan
}
