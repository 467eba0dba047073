//! Where a mapped value comes from, and what was read there.
//!
//! Owns the list of sources and the snapshot they are read from. Relies on `limits`. Never interprets a value:
//! ranges and limits are `transform` and the envelope.

use crate::limits::USER_FIELDS;

/// The six axes in the vendor's order, as index into [`Pad::axes`].
pub const AXES: [&str; 6] = ["left_x", "left_y", "right_x", "right_y", "left_trigger", "right_trigger"];

/// The fifteen buttons in the vendor's order, as bit number in [`Pad::buttons`].
pub const BUTTONS: [&str; 15] = [
    "a",
    "b",
    "x",
    "y",
    "left_bumper",
    "right_bumper",
    "back",
    "start",
    "guide",
    "left_thumb",
    "right_thumb",
    "dpad_up",
    "dpad_right",
    "dpad_down",
    "dpad_left",
];

/// Whether the axis with this index is a trigger: at rest it reads -1, fully pressed +1.
#[must_use]
pub const fn is_trigger(axis: u8) -> bool {
    axis >= 4
}

/// What the operator's gamepad says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pad {
    /// In the order of [`AXES`], each finite and within -1..=1.
    pub axes: [f64; 6],
    /// One bit per button, in the order of [`BUTTONS`].
    pub buttons: u16,
}

impl Pad {
    /// Nobody touches the gamepad: sticks 0, triggers -1, no button.
    pub const NEUTRAL: Self = Self { axes: [0.0, 0.0, 0.0, 0.0, -1.0, -1.0], buttons: 0 };
}

/// What one field of `client_user_data` says.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum UserValue {
    /// The field is not in this message.
    #[default]
    Missing,
    /// The field is there and cannot be used: null, an object, a text without a value of that name.
    Invalid,
    /// `true` or `false`.
    Bool(bool),
    /// A finite number, or the number behind a DBC value name.
    Number(f64),
}

/// One consistent set of what all sources say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Readings {
    /// The gamepad, if there is one.
    pub pad: Option<Pad>,
    /// In the order of [`crate::signals::plan::Plan::user_fields`].
    pub user: [UserValue; USER_FIELDS],
}

impl Default for Readings {
    fn default() -> Self {
        Self { pad: None, user: [UserValue::Missing; USER_FIELDS] }
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Source {
    /// A number of the configuration, in the unit of the signal.
    Constant(f64),
    /// Index into [`AXES`].
    Axis(u8),
    /// Bit number in [`BUTTONS`].
    Button(u8),
    /// Index into [`crate::signals::plan::Plan::user_fields`].
    User(u8),
    /// Number of a [`crate::signals::car::Value`]. Only in frames that a simulated car sends: nothing of a simulator is
    /// among what the command path reads.
    Car(u8),
}

/// What was read from a source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reading {
    /// Nothing there: the gamepad or the field is absent.
    Missing,
    /// Something that is no value.
    Invalid,
    /// A switch.
    Bool(bool),
    /// A finite number.
    Number(f64),
}

impl Source {
    /// Reads this source.
    #[must_use]
    pub fn read(self, readings: &Readings) -> Reading {
        match self {
            Self::Constant(value) => Reading::Number(value),
            Self::Axis(index) => match &readings.pad {
                Some(pad) => {
                    pad.axes.get(usize::from(index)).map_or(Reading::Invalid, |v| Reading::Number(*v))
                }
                None => Reading::Missing,
            },
            Self::Button(bit) => match &readings.pad {
                Some(pad) => Reading::Bool(pad.buttons.checked_shr(u32::from(bit)).unwrap_or(0) & 1 == 1),
                None => Reading::Missing,
            },
            Self::User(index) => match readings.user.get(usize::from(index)) {
                Some(UserValue::Bool(b)) => Reading::Bool(*b),
                Some(UserValue::Number(n)) if n.is_finite() => Reading::Number(*n),
                Some(UserValue::Missing) => Reading::Missing,
                _ => Reading::Invalid,
            },
            Self::Car(_) => Reading::Missing,
        }
    }

    /// Reads a switch: a boolean, or a number that is exactly 0 or 1. Anything else reads as not pressed.
    #[must_use]
    pub fn read_switch(self, readings: &Readings) -> bool {
        match self.read(readings) {
            Reading::Bool(pressed) => pressed,
            Reading::Number(n) => n == 1.0,
            Reading::Missing | Reading::Invalid => false,
        }
    }
}
