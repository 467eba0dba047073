//! What a server says about one car: where it is, who drives it, what it hits.
//!
//! Owns the bodies of these messages. Relies on `wire`. Never judges a number: what is not finite is shown
//! as it came, and [`CarUpdate::is_finite`] says so.

use super::id;
use super::text::Text;
use super::wire::{EncodeError, Reader, WireError, Writer};

/// `ACSP_CAR_UPDATE`: the telemetry of one car. It has no time and no number: whoever receives it knows when.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CarUpdate {
    /// The car's slot, from 0.
    pub car_id: u8,
    /// Metres in the world; y is up.
    pub pos: [f32; 3],
    /// Metres per second in the world; y is up.
    pub vel: [f32; 3],
    /// 0 is reverse, 1 neutral, 2 the first.
    pub gear: u8,
    /// Revolutions per minute.
    pub engine_rpm: u16,
    /// Place on the track's line, 0 to 1.
    pub normalized_spline_pos: f32,
}

impl CarUpdate {
    /// Whether every number is finite. If not, nothing of the update may be used.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        let numbers = self.pos.iter().chain(&self.vel).chain([&self.normalized_spline_pos]);
        numbers.copied().all(f32::is_finite)
    }

    /// Horizontal speed in metres per second, as the dashboards of this protocol have it: a jump is no speed.
    #[must_use]
    pub fn speed_mps(&self) -> f64 {
        let [x, _up, z] = self.vel.map(f64::from);
        x.hypot(z)
    }

    /// -1 is reverse, 0 neutral, 1 the first.
    #[must_use]
    pub fn signed_gear(&self) -> i16 {
        i16::from(self.gear) - 1
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            car_id: reader.u8()?,
            pos: reader.f32s()?,
            vel: reader.f32s()?,
            gear: reader.u8()?,
            engine_rpm: reader.u16()?,
            normalized_spline_pos: reader.f32()?,
        })
    }

    pub(super) fn write(&self, out: &mut Writer<'_>) -> Result<(), EncodeError> {
        out.u8(self.car_id)?;
        out.f32s(&self.pos)?;
        out.f32s(&self.vel)?;
        out.u8(self.gear)?;
        out.u16(self.engine_rpm)?;
        out.f32(self.normalized_spline_pos)
    }
}

/// Who came or went: the body of `ACSP_NEW_CONNECTION` and `ACSP_CONNECTION_CLOSED`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Connection<'d> {
    /// The driver's name.
    pub driver_name: Text<'d>,
    /// The driver's Steam number, 17 digits; "0" occurs.
    pub driver_guid: Text<'d>,
    /// The car's slot.
    pub car_id: u8,
    /// The car's model.
    pub car_model: Text<'d>,
    /// The car's skin.
    pub car_skin: Text<'d>,
}

impl<'d> Connection<'d> {
    pub(super) fn read(reader: &mut Reader<'d>) -> Result<Self, WireError> {
        Ok(Self {
            driver_name: reader.wide()?,
            driver_guid: reader.wide()?,
            car_id: reader.u8()?,
            car_model: reader.narrow()?,
            car_skin: reader.narrow()?,
        })
    }

    pub(super) fn write(&self, out: &mut Writer<'_>) -> Result<(), EncodeError> {
        out.wide(self.driver_name)?;
        out.wide(self.driver_guid)?;
        out.u8(self.car_id)?;
        out.narrow(self.car_model)?;
        out.narrow(self.car_skin)
    }

    /// Whether these are names and numbers that a driver and a car can have, or an empty slot: a check of a layout that
    /// was guessed. Of a wide text that is taken for a narrow one, one of the first three bytes is zero.
    pub(super) fn is_plausible(&self) -> bool {
        let is_number = self.driver_guid.chars().all(|c| c.is_ascii_digit());
        let names = [self.driver_name, self.car_model, self.car_skin];
        is_number && self.car_model.chars().count() >= 3 && names.into_iter().all(Text::is_printable)
    }
}

/// `ACSP_CAR_INFO`: the answer to a question about one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CarInfo<'d> {
    /// The slot.
    pub car_id: u8,
    /// Whether a driver is there. Still `false` while a new one loads the game.
    pub is_connected: bool,
    /// The car's model.
    pub car_model: Text<'d>,
    /// The car's skin.
    pub car_skin: Text<'d>,
    /// The driver's name.
    pub driver_name: Text<'d>,
    /// The driver's team.
    pub driver_team: Text<'d>,
    /// The driver's Steam number.
    pub driver_guid: Text<'d>,
}

impl<'d> CarInfo<'d> {
    pub(super) fn read(reader: &mut Reader<'d>) -> Result<Self, WireError> {
        Ok(Self {
            car_id: reader.u8()?,
            is_connected: reader.bool()?,
            car_model: reader.wide()?,
            car_skin: reader.wide()?,
            driver_name: reader.wide()?,
            driver_team: reader.wide()?,
            driver_guid: reader.wide()?,
        })
    }

    pub(super) fn write(&self, out: &mut Writer<'_>) -> Result<(), EncodeError> {
        out.u8(self.car_id)?;
        out.bool(self.is_connected)?;
        let texts = [self.car_model, self.car_skin, self.driver_name, self.driver_team, self.driver_guid];
        texts.into_iter().try_for_each(|text| out.wide(text))
    }
}

/// `ACSP_CLIENT_EVENT`: a collision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClientEvent {
    /// [`id::COLLISION_WITH_CAR`] or
    /// [`id::COLLISION_WITH_ENV`]; any other is read as the latter.
    pub ev_type: u8,
    /// The car that says so. Two cars that meet usually give two messages, with different numbers.
    pub car_id: u8,
    /// The other car, where there is one.
    pub other_car_id: Option<u8>,
    /// Kilometres per hour.
    pub impact_speed_kph: f32,
    /// Metres, in the world.
    pub world_pos: [f32; 3],
    /// Metres, seen from the car: x to the side, y up, z to the front.
    pub rel_pos: [f32; 3],
}

impl ClientEvent {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let (ev_type, car_id) = (reader.u8()?, reader.u8()?);
        let has_other = ev_type == id::COLLISION_WITH_CAR;
        Ok(Self {
            ev_type,
            car_id,
            other_car_id: if has_other { Some(reader.u8()?) } else { None },
            impact_speed_kph: reader.f32()?,
            world_pos: reader.f32s()?,
            rel_pos: reader.f32s()?,
        })
    }

    pub(super) fn write(&self, out: &mut Writer<'_>) -> Result<(), EncodeError> {
        out.u8(self.ev_type)?;
        out.u8(self.car_id)?;
        if self.ev_type == id::COLLISION_WITH_CAR {
            out.u8(self.other_car_id.unwrap_or(NO_CAR))?;
        }
        out.f32(self.impact_speed_kph)?;
        out.f32s(&self.world_pos)?;
        out.f32s(&self.rel_pos)
    }
}

/// What stands for "no other car" where a number must stand.
pub(super) const NO_CAR: u8 = 255;
