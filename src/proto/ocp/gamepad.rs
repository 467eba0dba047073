//! The gamepad: the vendor's axes and buttons, their names, order and rest values.
//!
//! Owns those names and nothing else. Relies on nothing. Never knows how a value came in or what it drives.

/// A gamepad axis. Sticks rest at 0, triggers rest at **-1** and are fully pressed at +1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Axis {
    /// Left stick, right is positive.
    LeftX,
    /// Left stick, down is positive by gamepad convention (the vendor does not say).
    LeftY,
    /// Right stick, right is positive.
    RightX,
    /// Right stick, down is positive by gamepad convention.
    RightY,
    /// Left trigger: -1 released, 0 half pressed, +1 fully pressed.
    LeftTrigger,
    /// Right trigger: -1 released, 0 half pressed, +1 fully pressed.
    RightTrigger,
}

impl Axis {
    /// Number of axes.
    pub const COUNT: usize = 6;

    /// All axes in vendor order.
    pub const ALL: [Self; Self::COUNT] =
        [Self::LeftX, Self::LeftY, Self::RightX, Self::RightY, Self::LeftTrigger, Self::RightTrigger];

    /// The vendor's names, in the order of [`Axis::ALL`].
    pub const NAMES: [&'static str; Self::COUNT] =
        ["left_x", "left_y", "right_x", "right_y", "left_trigger", "right_trigger"];

    /// The axis of that vendor name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let at = Self::NAMES.iter().position(|n| *n == name)?;
        Self::ALL.get(at).copied()
    }

    /// The vendor's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.get(self as usize).copied().unwrap_or("")
    }

    /// Whether the axis rests at -1 instead of 0.
    #[must_use]
    pub const fn is_trigger(self) -> bool {
        matches!(self, Self::LeftTrigger | Self::RightTrigger)
    }

    /// The value of the untouched control: 0 for a stick, -1 for a trigger.
    #[must_use]
    pub const fn rest(self) -> f64 {
        if self.is_trigger() { -1.0 } else { 0.0 }
    }
}

/// A gamepad button, in vendor order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(
    missing_docs,
    reason = "the names are the vendor's and say it all; a is south, b east, x west, y north"
)]
pub enum Button {
    A,
    B,
    X,
    Y,
    LeftBumper,
    RightBumper,
    Back,
    Start,
    Guide,
    LeftThumb,
    RightThumb,
    DpadUp,
    DpadRight,
    DpadDown,
    DpadLeft,
}

impl Button {
    /// Number of buttons.
    pub const COUNT: usize = 15;

    /// All buttons in vendor order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::A,
        Self::B,
        Self::X,
        Self::Y,
        Self::LeftBumper,
        Self::RightBumper,
        Self::Back,
        Self::Start,
        Self::Guide,
        Self::LeftThumb,
        Self::RightThumb,
        Self::DpadUp,
        Self::DpadRight,
        Self::DpadDown,
        Self::DpadLeft,
    ];

    /// The vendor's names, in the order of [`Button::ALL`].
    pub const NAMES: [&'static str; Self::COUNT] = [
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

    /// The button of that vendor name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let at = Self::NAMES.iter().position(|n| *n == name)?;
        Self::ALL.get(at).copied()
    }

    /// The vendor's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.get(self as usize).copied().unwrap_or("")
    }

    /// The bit of the button in [`Controller::buttons`].
    #[must_use]
    pub const fn mask(self) -> u16 {
        1 << (self as u16)
    }
}

/// The gamepad as the operator holds it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Controller {
    /// Axes in vendor order, each within -1.0..=1.0, never negative zero or subnormal.
    pub axes: [f64; Axis::COUNT],
    /// Pressed buttons, one bit each in vendor order from bit 0.
    pub buttons: u16,
}

impl Controller {
    /// An untouched gamepad: sticks 0, triggers -1, no button.
    pub const NEUTRAL: Self = Self { axes: [0.0, 0.0, 0.0, 0.0, -1.0, -1.0], buttons: 0 };

    /// The value of one axis.
    #[must_use]
    pub fn axis(&self, axis: Axis) -> f64 {
        self.axes.get(axis as usize).copied().unwrap_or_else(|| axis.rest())
    }

    /// Whether one button is pressed.
    #[must_use]
    pub const fn pressed(&self, button: Button) -> bool {
        self.buttons & button.mask() != 0
    }
}
