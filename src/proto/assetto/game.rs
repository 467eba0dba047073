//! The telemetry of one player's game: pedals, steering and wheels, which no server knows.
//!
//! Owns the handshake and the two structures that follow it, both directions. Relies on `wire`. Never looks
//! at the padding: it is memory of the game.
//!
//! ```text
//!   client -> game   HANDSHAKE                      12 bytes
//!   game -> client   who drives what, and where    408 bytes
//!   client -> game   SUBSCRIBE_UPDATE or _SPOT      12 bytes
//!   game -> client   RTCarInfo, or RTLap           328 or 212 bytes each, until DISMISS
//! ```

use core::fmt;

use super::text::Text;
use super::wire::{EncodeError, Reader, WireError, Writer};

/// UDP port of the game; it cannot be changed.
pub const PORT: u16 = 9_996;

/// Bytes of a request.
pub const REQUEST: usize = 12;
/// Bytes of the answer to a handshake.
pub const HANDSHAKE: usize = 408;
/// Bytes of an update.
pub const CAR_INFO: usize = 328;
/// Bytes of a lap.
pub const LAP: usize = 212;

/// First byte of an update.
const CAR_INFO_IDENTIFIER: u8 = b'a';
/// The size that an update says it has.
const CAR_INFO_SIZE: i32 = 328;

/// Why a datagram is none of the game's, or of a client's. Consequence: it is dropped and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GameError {
    /// A length that no message of this direction has.
    Length(usize),
    /// An update that does not begin with `a`.
    Identifier(u8),
    /// An update that says to have another size than 328.
    Size(i32),
    /// A request for something that is not known.
    Operation(i32),
}

impl fmt::Display for GameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(bytes) => write!(f, "a datagram of {bytes} bytes"),
            Self::Identifier(byte) => write!(f, "an update that begins with 0x{byte:02x}"),
            Self::Size(size) => write!(f, "an update that says to have {size} bytes"),
            Self::Operation(number) => write!(f, "a request with the unknown operation {number}"),
        }
    }
}

impl core::error::Error for GameError {}

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Who is there? Answered by a [`Handshake`].
    Handshake,
    /// An [`RtCarInfo`] for each step of the game.
    SubscribeUpdate,
    /// An [`RtLap`] for each lap of any car.
    SubscribeSpot,
    /// No more.
    Dismiss,
}

impl Operation {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Handshake => 0,
            Self::SubscribeUpdate => 1,
            Self::SubscribeSpot => 2,
            Self::Dismiss => 3,
        }
    }
}

/// A request to the game.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Request {
    /// Of the client's device. Documented as not used; 1 is usual.
    pub identifier: i32,
    /// Of the protocol. Documented as not used; 1 is usual.
    pub version: i32,
    /// What is asked for.
    pub operation: Operation,
}

impl Request {
    /// The usual request.
    #[must_use]
    pub const fn new(operation: Operation) -> Self {
        Self { identifier: 1, version: 1, operation }
    }

    /// The datagram.
    #[must_use]
    pub fn encode(&self) -> [u8; REQUEST] {
        let mut bytes = [0; REQUEST];
        let numbers = [self.identifier, self.version, self.operation.number()];
        for (place, number) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(numbers) {
            *place = number.to_le_bytes();
        }
        bytes
    }

    /// Reads one datagram, as the game does.
    ///
    /// # Errors
    /// [`GameError::Length`] or [`GameError::Operation`].
    pub fn decode(datagram: &[u8]) -> Result<Self, GameError> {
        let length = |_: WireError| GameError::Length(datagram.len());
        if datagram.len() != REQUEST {
            return Err(GameError::Length(datagram.len()));
        }
        let mut reader = Reader::untyped(datagram);
        let identifier = reader.i32().map_err(length)?;
        let version = reader.i32().map_err(length)?;
        let operation = match reader.i32().map_err(length)? {
            0 => Operation::Handshake,
            1 => Operation::SubscribeUpdate,
            2 => Operation::SubscribeSpot,
            3 => Operation::Dismiss,
            unknown => return Err(GameError::Operation(unknown)),
        };
        Ok(Self { identifier, version, operation })
    }
}

/// What the game sends.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "it lives on the stack for one datagram, and a box would be an allocation"
)]
pub enum GameMessage<'d> {
    /// The answer to a handshake.
    Handshake(Handshake<'d>),
    /// One step of the player's car.
    CarInfo(RtCarInfo),
    /// A completed lap of any car.
    Lap(RtLap<'d>),
}

impl<'d> GameMessage<'d> {
    /// Reads one datagram.
    ///
    /// # Errors
    /// [`GameError`], but for the operation.
    pub fn decode(datagram: &'d [u8]) -> Result<Self, GameError> {
        let length = |_: WireError| GameError::Length(datagram.len());
        let mut reader = Reader::untyped(datagram);
        match datagram.len() {
            HANDSHAKE => Handshake::read(&mut reader).map(Self::Handshake).map_err(length),
            LAP => RtLap::read(&mut reader).map(Self::Lap).map_err(length),
            CAR_INFO => {
                let mut head = reader.clone();
                let [identifier, _, _, _] = head.array().map_err(length)?;
                let size = head.i32().map_err(length)?;
                if identifier != CAR_INFO_IDENTIFIER {
                    return Err(GameError::Identifier(identifier));
                }
                if size != CAR_INFO_SIZE {
                    return Err(GameError::Size(size));
                }
                RtCarInfo::read(&mut reader).map(Self::CarInfo).map_err(length)
            }
            other => Err(GameError::Length(other)),
        }
    }

    /// Writes the message to the front of `out` and returns its size. The padding is zero.
    ///
    /// # Errors
    /// [`EncodeError`]; what is in `out` then is no message.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        let mut out = Writer::new(out);
        match self {
            Self::Handshake(handshake) => handshake.write(&mut out),
            Self::CarInfo(info) => info.write(&mut out),
            Self::Lap(lap) => lap.write(&mut out),
        }?;
        Ok(out.used())
    }
}

/// The answer to a handshake. Texts have 49 UTF-16 units at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Handshake<'d> {
    /// The car's model.
    pub car_name: Text<'d>,
    /// The player's name.
    pub driver_name: Text<'d>,
    /// 4242 from every game that was seen.
    pub identifier: i32,
    /// 1 from every game that was seen.
    pub version: i32,
    /// The track.
    pub track_name: Text<'d>,
    /// The track's layout.
    pub track_config: Text<'d>,
}

impl<'d> Handshake<'d> {
    fn read(reader: &mut Reader<'d>) -> Result<Self, WireError> {
        Ok(Self {
            car_name: reader.fixed()?,
            driver_name: reader.fixed()?,
            identifier: reader.i32()?,
            version: reader.i32()?,
            track_name: reader.fixed()?,
            track_config: reader.fixed()?,
        })
    }

    fn write(&self, out: &mut Writer<'_>) -> Result<(), EncodeError> {
        out.fixed(self.car_name)?;
        out.fixed(self.driver_name)?;
        out.i32(self.identifier)?;
        out.i32(self.version)?;
        out.fixed(self.track_name)?;
        out.fixed(self.track_config)
    }
}

/// `RTLap`: a completed lap of any car. Texts have 49 UTF-16 units at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RtLap<'d> {
    /// The car.
    pub car_identifier_number: i32,
    /// The lap's number.
    pub lap: i32,
    /// The driver's name.
    pub driver_name: Text<'d>,
    /// The car's model.
    pub car_name: Text<'d>,
    /// Milliseconds.
    pub time_ms: i32,
}

impl<'d> RtLap<'d> {
    fn read(reader: &mut Reader<'d>) -> Result<Self, WireError> {
        Ok(Self {
            car_identifier_number: reader.i32()?,
            lap: reader.i32()?,
            driver_name: reader.fixed()?,
            car_name: reader.fixed()?,
            time_ms: reader.i32()?,
        })
    }

    fn write(&self, out: &mut Writer<'_>) -> Result<(), EncodeError> {
        out.i32(self.car_identifier_number)?;
        out.i32(self.lap)?;
        out.fixed(self.driver_name)?;
        out.fixed(self.car_name)?;
        out.i32(self.time_ms)
    }
}

/// `RTCarInfo`: one step of the player's car. Wheels are front left, front right, rear left, rear right, as far as
/// anybody says. Any number may be infinite or none at all: each is to be checked where it is used.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RtCarInfo {
    /// Kilometres per hour.
    pub speed_kmh: f32,
    /// Miles per hour.
    pub speed_mph: f32,
    /// Metres per second.
    pub speed_mps: f32,
    /// The car has an anti-lock brake, and it is on.
    pub is_abs_enabled: bool,
    /// The anti-lock brake works at this moment.
    pub is_abs_in_action: bool,
    /// The traction control works at this moment.
    pub is_tc_in_action: bool,
    /// The car has a traction control, and it is on.
    pub is_tc_enabled: bool,
    /// In the pit. One client has this flag two bytes later.
    pub is_in_pit: bool,
    /// The engine is at its limit. One client has this flag two bytes later.
    pub is_engine_limiter_on: bool,
    /// In g.
    pub acc_g_vertical: f32,
    /// In g.
    pub acc_g_horizontal: f32,
    /// In g.
    pub acc_g_frontal: f32,
    /// Milliseconds of the lap so far.
    pub lap_time_ms: i32,
    /// Milliseconds of the last lap.
    pub last_lap_ms: i32,
    /// Milliseconds of the best lap.
    pub best_lap_ms: i32,
    /// Laps so far.
    pub lap_count: i32,
    /// Throttle, 0 to 1.
    pub gas: f32,
    /// 0 to 1.
    pub brake: f32,
    /// 0 to 1; 1 is a released pedal.
    pub clutch: f32,
    /// Revolutions per minute.
    pub engine_rpm: f32,
    /// The steering; its unit is not documented.
    pub steer: f32,
    /// 0 is reverse, 1 neutral, 2 the first.
    pub gear: i32,
    /// Height of the centre of gravity.
    pub cg_height: f32,
    /// Of each wheel.
    pub wheel_angular_speed: [f32; 4],
    /// Of each wheel.
    pub slip_angle: [f32; 4],
    /// Of each wheel.
    pub slip_angle_contact_patch: [f32; 4],
    /// Of each wheel.
    pub slip_ratio: [f32; 4],
    /// Of each wheel.
    pub tyre_slip: [f32; 4],
    /// Of each wheel.
    pub nd_slip: [f32; 4],
    /// Newtons on each wheel.
    pub load: [f32; 4],
    /// Of each wheel.
    pub dy: [f32; 4],
    /// Of each wheel.
    pub mz: [f32; 4],
    /// Of each wheel.
    pub tyre_dirty_level: [f32; 4],
    /// Radians of each wheel.
    pub camber_rad: [f32; 4],
    /// Metres of each wheel.
    pub tyre_radius: [f32; 4],
    /// Metres of each wheel under its load.
    pub tyre_loaded_radius: [f32; 4],
    /// Of each wheel.
    pub suspension_height: [f32; 4],
    /// Place on the track's line, 0 to 1.
    pub car_position_normalized: f32,
    /// The car's slope.
    pub car_slope: f32,
    /// Metres in the world; y is up.
    pub car_coordinates: [f32; 3],
}

impl RtCarInfo {
    /// -1 is reverse, 0 neutral, 1 the first.
    #[must_use]
    pub const fn signed_gear(&self) -> i32 {
        self.gear.saturating_sub(1)
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        r.slice(8)?; // identifier, three bytes of padding, size
        Ok(Self {
            speed_kmh: r.f32()?,
            speed_mph: r.f32()?,
            speed_mps: r.f32()?,
            is_abs_enabled: r.bool()?,
            is_abs_in_action: r.bool()?,
            is_tc_in_action: r.bool()?,
            is_tc_enabled: r.bool()?,
            is_in_pit: r.bool()?,
            is_engine_limiter_on: r.bool()?,
            acc_g_vertical: r.slice(2).and_then(|_padding| r.f32())?,
            acc_g_horizontal: r.f32()?,
            acc_g_frontal: r.f32()?,
            lap_time_ms: r.i32()?,
            last_lap_ms: r.i32()?,
            best_lap_ms: r.i32()?,
            lap_count: r.i32()?,
            gas: r.f32()?,
            brake: r.f32()?,
            clutch: r.f32()?,
            engine_rpm: r.f32()?,
            steer: r.f32()?,
            gear: r.i32()?,
            cg_height: r.f32()?,
            wheel_angular_speed: r.f32s()?,
            slip_angle: r.f32s()?,
            slip_angle_contact_patch: r.f32s()?,
            slip_ratio: r.f32s()?,
            tyre_slip: r.f32s()?,
            nd_slip: r.f32s()?,
            load: r.f32s()?,
            dy: r.f32s()?,
            mz: r.f32s()?,
            tyre_dirty_level: r.f32s()?,
            camber_rad: r.f32s()?,
            tyre_radius: r.f32s()?,
            tyre_loaded_radius: r.f32s()?,
            suspension_height: r.f32s()?,
            car_position_normalized: r.f32()?,
            car_slope: r.f32()?,
            car_coordinates: r.f32s()?,
        })
    }

    fn write(&self, out: &mut Writer<'_>) -> Result<(), EncodeError> {
        out.bytes(&[CAR_INFO_IDENTIFIER, 0, 0, 0])?;
        out.i32(CAR_INFO_SIZE)?;
        out.f32s(&[self.speed_kmh, self.speed_mph, self.speed_mps])?;
        let flags = [
            self.is_abs_enabled,
            self.is_abs_in_action,
            self.is_tc_in_action,
            self.is_tc_enabled,
            self.is_in_pit,
            self.is_engine_limiter_on,
            false, // padding
            false,
        ];
        flags.into_iter().try_for_each(|flag| out.bool(flag))?;
        out.f32s(&[self.acc_g_vertical, self.acc_g_horizontal, self.acc_g_frontal])?;
        let laps = [self.lap_time_ms, self.last_lap_ms, self.best_lap_ms, self.lap_count];
        laps.into_iter().try_for_each(|number| out.i32(number))?;
        out.f32s(&[self.gas, self.brake, self.clutch, self.engine_rpm, self.steer])?;
        out.i32(self.gear)?;
        out.f32(self.cg_height)?;
        let wheels = [
            self.wheel_angular_speed,
            self.slip_angle,
            self.slip_angle_contact_patch,
            self.slip_ratio,
            self.tyre_slip,
            self.nd_slip,
            self.load,
            self.dy,
            self.mz,
            self.tyre_dirty_level,
            self.camber_rad,
            self.tyre_radius,
            self.tyre_loaded_radius,
            self.suspension_height,
        ];
        wheels.iter().try_for_each(|four| out.f32s(four))?;
        out.f32s(&[self.car_position_normalized, self.car_slope])?;
        out.f32s(&self.car_coordinates)
    }
}
