//! A completed lap, with the place of every car behind it.
//!
//! Owns the three generations of an entry and whether a grip follows. Relies on `wire` and on the dialect it
//! is told. Never guesses the generation from a length: those of eight, seven and six bytes meet for a few cars, and
//! a message that is cut off looks like an older one.

use core::fmt;

use super::decode::{Dialect, Extent};
use super::wire::{EncodeError, Reader, WireError, Writer};

/// How a server writes the entry of one car, by the age of its game.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EntryForm {
    /// Six bytes, laps in one of them: protocol 2 and before (2015).
    Six,
    /// Seven bytes, laps in two: protocol 3, and protocol 4 before game 1.7 (July 2016).
    Seven,
    /// Eight bytes, with a flag at the end: all since.
    #[default]
    Eight,
}

impl EntryForm {
    /// What a server of this protocol version writes.
    #[must_use]
    pub const fn of_version(proto_version: u8) -> Self {
        match proto_version {
            0..=2 => Self::Six,
            3 => Self::Seven,
            _ => Self::Eight,
        }
    }

    /// Bytes of one entry.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Six => 6,
            Self::Seven => 7,
            Self::Eight => 8,
        }
    }

    fn read(self, entry: &mut Reader<'_>) -> Result<LapCar, WireError> {
        Ok(LapCar {
            rcar_id: entry.u8()?,
            rtime: entry.u32()?,
            rlaps: if self == Self::Six { entry.u8()?.into() } else { entry.u16()? },
            has_completed_flag: self == Self::Eight && entry.bool()?,
        })
    }
}

/// One car's place. The list has one for each slot of the server, also for empty ones, the first car first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LapCar {
    /// The car's slot.
    pub rcar_id: u8,
    /// Practice and qualifying: the best lap in ms, 999999999 where there is none. Race: the whole time in ms, 0 where
    /// there is none.
    pub rtime: u32,
    /// Laps that count.
    pub rlaps: u16,
    /// The car has finished; `false` where the server's entries do not say it.
    pub has_completed_flag: bool,
}

/// The places of all cars: a piece of a datagram, or a list of the program that will be sent.
#[derive(Clone, Copy)]
pub struct Leaderboard<'a>(Board<'a>);

#[derive(Clone, Copy)]
enum Board<'a> {
    Wire(&'a [u8], EntryForm),
    List(&'a [LapCar]),
}

impl<'a> Leaderboard<'a> {
    /// The places, the first car first.
    pub fn cars(self) -> impl Iterator<Item = LapCar> + 'a {
        let (bytes, form, list): (&[u8], _, &[LapCar]) = match self.0 {
            Board::Wire(bytes, form) => (bytes, form, &[]),
            Board::List(list) => (&[], EntryForm::Eight, list),
        };
        // Whole entries only, so each can be read.
        let read =
            bytes.chunks_exact(form.bytes()).map_while(move |e| form.read(&mut Reader::untyped(e)).ok());
        read.chain(list.iter().copied())
    }

    /// How many places there are.
    #[must_use]
    pub fn len(self) -> usize {
        match self.0 {
            Board::Wire(bytes, form) => bytes.len() / form.bytes(),
            Board::List(list) => list.len(),
        }
    }

    /// Whether there is no place.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl<'a> From<&'a [LapCar]> for Leaderboard<'a> {
    fn from(list: &'a [LapCar]) -> Self {
        Self(Board::List(list))
    }
}

impl fmt::Debug for Leaderboard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.cars()).finish()
    }
}

impl PartialEq for Leaderboard<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cars().eq(other.cars())
    }
}

/// `ACSP_LAP_COMPLETED`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LapCompleted<'d> {
    /// The car whose lap it was.
    pub car_id: u8,
    /// Milliseconds.
    pub lap_time_ms: u32,
    /// Cut corners; a lap with any does not count.
    pub cuts: u8,
    /// Where everybody stands now; at most 255.
    pub cars: Leaderboard<'d>,
    /// Grip of the track, 0 to 1; `None` from a server that does not say it.
    pub grip_level: Option<f32>,
}

impl<'d> LapCompleted<'d> {
    pub(super) fn read(reader: &mut Reader<'d>, dialect: Dialect, extent: Extent) -> Result<Self, WireError> {
        let (car_id, lap_time_ms, cuts) = (reader.u8()?, reader.u32()?, reader.u8()?);
        let count = usize::from(reader.u8()?);
        let cars = reader.slice(count * dialect.lap_entry.bytes())?;
        let is_there = extent == Extent::Datagram && reader.rest().len() >= size_of::<f32>();
        Ok(Self {
            car_id,
            lap_time_ms,
            cuts,
            cars: Leaderboard(Board::Wire(cars, dialect.lap_entry)),
            grip_level: if dialect.has_grip || is_there { Some(reader.f32()?) } else { None },
        })
    }

    pub(super) fn write(&self, out: &mut Writer<'_>) -> Result<(), EncodeError> {
        out.u8(self.car_id)?;
        out.u32(self.lap_time_ms)?;
        out.u8(self.cuts)?;
        out.u8(u8::try_from(self.cars.len()).map_err(|_| EncodeError::TooManyCars)?)?;
        match self.cars.0 {
            Board::Wire(bytes, _) => out.bytes(bytes)?,
            Board::List(list) => {
                for car in list {
                    out.u8(car.rcar_id)?;
                    out.u32(car.rtime)?;
                    out.u16(car.rlaps)?;
                    out.bool(car.has_completed_flag)?;
                }
            }
        }
        self.grip_level.map_or(Ok(()), |grip| out.f32(grip))
    }
}
