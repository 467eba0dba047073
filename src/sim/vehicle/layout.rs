//! Where the simulated vehicle finds its signals: the names of the example DBC, looked up in a DBC file.
//!
//! Owns the lookup. Relies on `signals`. Never goes on with a signal that is missing or unusable.

use core::fmt;

use crate::can::Id;
use crate::signals::bits::{BitsError, Codec};
use crate::signals::dbc::{Database, DbcError, Message};
use crate::signals::e2e::{Algorithm, ChecksumPlan, CounterPlan};
use crate::time::Duration;

/// The example that this package ships.
const EXAMPLE: &str = include_str!("../../../deploy/example.dbc");

/// Why a DBC file does not describe this vehicle. Consequence: the simulator does not start.
#[derive(Debug)]
pub enum LayoutError {
    /// The file itself.
    File(DbcError),
    /// A message or signal of the example is missing or cannot be used; the text says which and why.
    Signal(String),
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Signal(text) => f.write_str(text),
        }
    }
}

impl core::error::Error for LayoutError {}

/// A signal with the values it may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) codec: Codec,
    limits: (f64, f64),
}

impl Field {
    /// The value, if it is one that the DBC allows (give or take half a raw step).
    pub(super) fn read(&self, data: &[u8]) -> Option<f64> {
        let slack = self.codec.factor.abs() * 0.5;
        let value = self.codec.decode(data)?;
        (value >= self.limits.0 - slack && value <= self.limits.1 + slack).then_some(value)
    }

    /// Writes the value, or the nearest one that is allowed.
    pub(super) fn write(&self, data: &mut [u8], value: f64) -> Result<(), BitsError> {
        self.codec.encode_saturating(data, value.max(self.limits.0).min(self.limits.1))
    }
}

/// What all four messages have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) id: Id,
    pub(super) len: u8,
    pub(super) fd: bool,
    pub(super) period: Duration,
}

/// Counter and checksum of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Protection {
    pub(super) counter: CounterPlan,
    pub(super) checksum: ChecksumPlan,
}

/// Where the simulated vehicle finds its signals.
#[derive(Debug, Clone)]
pub struct Layout {
    pub(super) drive: Shape,
    pub(super) drive_protection: Protection,
    pub(super) steer: Field,
    pub(super) throttle: Field,
    pub(super) brake: Field,
    pub(super) enable: Codec,
    pub(super) body: Shape,
    pub(super) headlights: Codec,
    pub(super) horn: Codec,
    pub(super) mode: Codec,
    pub(super) state: Shape,
    pub(super) state_protection: Protection,
    pub(super) speed: Field,
    pub(super) angle: Field,
    pub(super) gear: Codec,
    pub(super) position: Shape,
    pub(super) latitude: Field,
    pub(super) longitude: Field,
}

impl Layout {
    /// The layout of the example DBC that this package ships.
    ///
    /// # Errors
    /// None that a test of this package would let through.
    pub fn example() -> Result<Self, LayoutError> {
        Self::find(&[Database::parse(EXAMPLE).map_err(LayoutError::File)?])
    }

    /// Looks the names of the example up in these databases; a message is taken from the first that has it.
    ///
    /// # Errors
    /// [`LayoutError::Signal`] names the first that is missing or cannot be used.
    pub fn find(databases: &[Database]) -> Result<Self, LayoutError> {
        let finder = Finder { databases };
        let [drive, body, state, position] =
            ["DRIVE_CMD", "BODY_CMD", "VEHICLE_STATE", "VEHICLE_POS"].map(|name| finder.message(name));
        let (drive, body, state, position) = (drive?, body?, state?, position?);
        Ok(Self {
            drive: shape(drive, 20),
            drive_protection: protection(drive, "DRIVE_CMD_COUNTER", "DRIVE_CMD_CRC")?,
            steer: field(drive, "STEER_ANGLE_CMD")?,
            throttle: field(drive, "THROTTLE_CMD")?,
            brake: field(drive, "BRAKE_CMD")?,
            enable: codec(drive, "DRIVE_ENABLE")?,
            body: shape(body, 100),
            headlights: codec(body, "HEADLIGHTS")?,
            horn: codec(body, "HORN")?,
            mode: codec(body, "STEERING_MODE")?,
            state: shape(state, 20),
            state_protection: protection(state, "VEHICLE_STATE_COUNTER", "VEHICLE_STATE_CRC")?,
            speed: field(state, "SPEED_KPH")?,
            angle: field(state, "STEER_ANGLE")?,
            gear: codec(state, "GEAR")?,
            position: shape(position, 100),
            latitude: field(position, "LATITUDE")?,
            longitude: field(position, "LONGITUDE")?,
        })
    }

    /// The identifiers that the vehicle listens to.
    #[must_use]
    pub const fn accepts(&self) -> [Id; 2] {
        [self.drive.id, self.body.id]
    }

    /// Whether one of the messages is a CAN FD frame.
    #[must_use]
    pub const fn needs_fd(&self) -> bool {
        self.drive.fd || self.body.fd || self.state.fd || self.position.fd
    }
}

struct Finder<'a> {
    databases: &'a [Database],
}

impl<'a> Finder<'a> {
    fn message(&self, name: &str) -> Result<&'a Message, LayoutError> {
        if let Some(message) = self.databases.iter().find_map(|db| db.message(name)) {
            return Ok(message);
        }
        let reason = self.databases.iter().find_map(|db| db.refusal(name));
        Err(LayoutError::Signal(reason.map_or_else(
            || format!("no message {name}: the vehicle simulator needs the messages of the example DBC"),
            |reason| format!("message {name}: {reason}"),
        )))
    }
}

fn shape(message: &Message, default_ms: u64) -> Shape {
    Shape {
        id: message.id,
        len: message.len,
        fd: message.fd,
        period: message.cycle.unwrap_or_else(|| Duration::from_millis(default_ms)),
    }
}

fn codec(message: &Message, name: &str) -> Result<Codec, LayoutError> {
    let signal = message
        .signal(name)
        .ok_or_else(|| LayoutError::Signal(format!("message {} has no signal {name}", message.name)))?;
    signal.codec.map_err(|problem| LayoutError::Signal(format!("signal {}.{name}: {problem}", message.name)))
}

fn field(message: &Message, name: &str) -> Result<Field, LayoutError> {
    let codec = codec(message, name)?;
    let limits = message.signal(name).and_then(|signal| signal.limits);
    Ok(Field { codec, limits: limits.unwrap_or_else(|| codec.physical_range()) })
}

/// The example's own: a counter of all its bits, and CRC-8 SAE J1850 without data id.
fn protection(message: &Message, counter: &str, checksum: &str) -> Result<Protection, LayoutError> {
    let counter_codec = codec(message, counter)?;
    let checksum_codec = codec(message, checksum)?;
    if !(1..=8).contains(&counter_codec.bits) || checksum_codec.aligned_byte().is_none() {
        return Err(LayoutError::Signal(format!(
            "message {}: the counter has 1 to 8 bits and the checksum is one whole byte",
            message.name
        )));
    }
    Ok(Protection {
        counter: CounterPlan { codec: counter_codec, modulo: 1 << counter_codec.bits },
        checksum: ChecksumPlan { codec: checksum_codec, algorithm: Algorithm::Crc8SaeJ1850, data_id: None },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_example_is_complete() {
        let layout = Layout::example().unwrap();
        assert_eq!(layout.accepts().map(Id::raw), [0x101, 0x102]);
        assert!(!layout.needs_fd());
        assert_eq!(layout.state.period, Duration::from_millis(20));
        assert_eq!(layout.position.period, Duration::from_millis(100));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = Layout::find(&[]).unwrap_err().to_string();
        assert!(error.contains("DRIVE_CMD"), "{error}");
        let text = EXAMPLE.replace("BRAKE_CMD", "BRAKES_CMD");
        let error = Layout::find(&[Database::parse(&text).unwrap()]).unwrap_err().to_string();
        assert_eq!(error, "message DRIVE_CMD has no signal BRAKE_CMD");
        let text = EXAMPLE.replace("SG_ GEAR : 32|4", "SG_ GEAR : 62|4");
        let error = Layout::find(&[Database::parse(&text).unwrap()]).unwrap_err().to_string();
        assert_eq!(error, "signal VEHICLE_STATE.GEAR: its bits do not lie within the message");
    }
}
