//! A real gamepad: the Linux kernel's events become the vendor's controller.
//!
//! Owns what the kernel's codes mean (`input-event-codes.h`, and the kernel's "Linux Gamepad Specification" for which
//! button sits where), the axis ranges, and what to do when events were lost. Relies on `proto::ocp` for the
//! controller. Never opens a device: `sim::live::gamepad` does.
//!
//! | vendor | kernel |
//! | --- | --- |
//! | left stick | `ABS_X`, `ABS_Y` (up is negative on both sides) |
//! | right stick | `ABS_RX`, `ABS_RY`; on pads without them `ABS_Z`, `ABS_RZ` |
//! | triggers | `ABS_BRAKE`, `ABS_GAS`, else `ABS_Z`, `ABS_RZ`, else the buttons `BTN_TL2`, `BTN_TR2` |
//! | directional pad | `ABS_HAT0X`, `ABS_HAT0Y` and `BTN_DPAD_*` |
//! | `a`, `b` | `BTN_SOUTH`, `BTN_EAST` |
//! | `x`, `y` | `BTN_X`, `BTN_Y`, see [`Decoder::new`] |
//! | the rest | `BTN_TL`, `BTN_TR`, `BTN_SELECT`, `BTN_START`, `BTN_MODE`, `BTN_THUMBL`, `BTN_THUMBR` |
//!
//! No dead zone: the vendor documents none, and the gateway's mapping has its own.

use crate::proto::ocp::{Axis, Button, Controller};

/// Types of events.
const EV_SYN: u16 = 0x00;
const EV_KEY: u16 = 0x01;
const EV_ABS: u16 = 0x03;

/// End of a report: what came since the last one belongs together.
const SYN_REPORT: u16 = 0;
/// The kernel's buffer was full and events are lost.
const SYN_DROPPED: u16 = 3;

const ABS_X: u16 = 0x00;
const ABS_Y: u16 = 0x01;
const ABS_Z: u16 = 0x02;
const ABS_RX: u16 = 0x03;
const ABS_RY: u16 = 0x04;
const ABS_RZ: u16 = 0x05;
const ABS_GAS: u16 = 0x09;
const ABS_BRAKE: u16 = 0x0A;
const ABS_HAT0X: u16 = 0x10;
const ABS_HAT0Y: u16 = 0x11;

/// The button that every gamepad has, and nothing else (also called `BTN_GAMEPAD`).
const BTN_SOUTH: u16 = 0x130;
/// `BTN_NORTH` by place, `BTN_X` by letter.
const BTN_NORTH_OR_X: u16 = 0x133;
/// `BTN_WEST` by place, `BTN_Y` by letter.
const BTN_WEST_OR_Y: u16 = 0x134;
const BTN_TL2: u16 = 0x138;
const BTN_TR2: u16 = 0x139;

/// Buttons that mean the same on every gamepad.
const BUTTONS: [(u16, Button); 13] = [
    (BTN_SOUTH, Button::A),
    (0x131, Button::B),           // BTN_EAST
    (0x136, Button::LeftBumper),  // BTN_TL
    (0x137, Button::RightBumper), // BTN_TR
    (0x13A, Button::Back),        // BTN_SELECT
    (0x13B, Button::Start),       // BTN_START
    (0x13C, Button::Guide),       // BTN_MODE
    (0x13D, Button::LeftThumb),   // BTN_THUMBL
    (0x13E, Button::RightThumb),  // BTN_THUMBR
    (0x220, Button::DpadUp),
    (0x221, Button::DpadDown),
    (0x222, Button::DpadLeft),
    (0x223, Button::DpadRight),
];

/// Makers whose drivers report `x` and `y` by place: Sony and Nintendo.
const BY_PLACE: [u16; 2] = [0x054C, 0x057E];

/// Least and greatest value of an axis of the device, in its own steps.
pub type Range = (i32, i32);

/// One axis of the device.
#[derive(Clone, Copy, Debug)]
struct Input {
    code: u16,
    range: Range,
    /// Where it is untouched, in the device's steps.
    rest: i32,
    /// Whether the device has said anything about it.
    is_known: bool,
}

impl Input {
    /// An axis that rests in the middle. `None` for one that has no middle.
    fn centred(code: u16, range: Option<Range>) -> Option<Self> {
        let (min, max) = range.filter(|(min, max)| i64::from(*max) - i64::from(*min) >= 2)?;
        // The upper of two middles: of -32768..=32767 that is 0, of 0..=255 it is 128.
        let rest = (i64::from(min) + i64::from(max) + 1).div_euclid(2);
        Some(Self { code, range: (min, max), rest: i32::try_from(rest).ok()?, is_known: false })
    }

    /// An axis that rests at its least value.
    fn one_sided(code: u16, range: Option<Range>) -> Option<Self> {
        let (min, max) = range.filter(|(min, max)| min < max)?;
        Some(Self { code, range: (min, max), rest: min, is_known: false })
    }

    /// -1 at the least value, 0 in the middle of a centred one, 1 at the greatest.
    fn scaled(&self, value: i32) -> f64 {
        let (min, max) = (f64::from(self.range.0), f64::from(self.range.1));
        let (value, rest) = (f64::from(value).clamp(min, max), f64::from(self.rest));
        if rest <= min {
            ((value - min) / (max - min)).mul_add(2.0, -1.0)
        } else if value >= rest {
            (value - rest) / (max - rest)
        } else {
            (value - rest) / (rest - min)
        }
    }

    /// The value to take for what the kernel has stored. It starts every axis at 0, and 0 is full deflection on many
    /// pads: until the device has said something, such an axis counts as untouched.
    fn stored(&mut self, value: i32) -> i32 {
        self.is_known |= value != 0;
        if self.is_known { value } else { self.rest }
    }
}

/// What an event asks of whoever reads them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Nothing yet: more of this report follows.
    More,
    /// A whole report: the gamepad is now held like this.
    Report(Controller),
    /// Events were lost: read every axis and button, and tell them by [`Decoder::stored_axis`] and
    /// [`Decoder::key`].
    Reread,
}

/// Turns the events of one gamepad into the vendor's controller.
#[derive(Clone, Debug)]
pub struct Decoder {
    sticks: [Option<Input>; Axis::COUNT],
    /// Right and down are positive.
    hat: [Option<Input>; 2],
    hat_at: [f64; 2],
    x_y: [(u16, Button); 2],
    axes: [f64; Axis::COUNT],
    /// By the vendor's mask.
    pressed: u16,
    has_lost: bool,
}

impl Decoder {
    /// For a device of this maker, with these keys and axes. `None` for what is no gamepad: it lacks the button that
    /// marks one, or a stick.
    ///
    /// The codes 0x133 and 0x134 have two names each. Most drivers mean the letters (`BTN_X`, `BTN_Y`), as on an Xbox
    /// pad; those of Sony and Nintendo mean the place (`BTN_NORTH`, `BTN_WEST`). The vendor's `x` is the left one and
    /// `y` the upper one on all of them.
    pub fn new(
        maker: u16,
        has_key: impl Fn(u16) -> bool,
        range: impl Fn(u16) -> Option<Range>,
    ) -> Option<Self> {
        let pair = |make: fn(u16, Option<Range>) -> Option<Input>, x: u16, y: u16| {
            Some([make(x, range(x))?, make(y, range(y))?])
        };
        let left = pair(Input::centred, ABS_X, ABS_Y).filter(|_| has_key(BTN_SOUTH))?.map(Some);
        let none = [None, None];
        let own = pair(Input::centred, ABS_RX, ABS_RY);
        let right = own.or_else(|| pair(Input::centred, ABS_Z, ABS_RZ));
        let triggers = pair(Input::one_sided, ABS_BRAKE, ABS_GAS)
            .or_else(|| pair(Input::one_sided, ABS_Z, ABS_RZ).filter(|_| own.is_some()));
        let ([right_x, right_y], [trigger_l, trigger_r]) =
            (right.map_or(none, |pair| pair.map(Some)), triggers.map_or(none, |pair| pair.map(Some)));
        let x_y = if BY_PLACE.contains(&maker) { [Button::Y, Button::X] } else { [Button::X, Button::Y] };
        Some(Self {
            sticks: [left[0], left[1], right_x, right_y, trigger_l, trigger_r],
            hat: pair(Input::centred, ABS_HAT0X, ABS_HAT0Y).map_or(none, |pair| pair.map(Some)),
            hat_at: [0.0; 2],
            x_y: [(BTN_NORTH_OR_X, x_y[0]), (BTN_WEST_OR_Y, x_y[1])],
            axes: Controller::NEUTRAL.axes,
            pressed: 0,
            has_lost: false,
        })
    }

    /// The axes that matter, by code: after [`Step::Reread`] and at the start they are read.
    pub fn axes(&self) -> impl Iterator<Item = u16> {
        let codes = [self.sticks.as_slice(), self.hat.as_slice()].map(|inputs| {
            let mut codes = [None; Axis::COUNT];
            for (code, input) in codes.iter_mut().zip(inputs) {
                *code = input.map(|input| input.code);
            }
            codes
        });
        codes.into_iter().flatten().flatten()
    }

    /// The buttons that matter, by code.
    pub fn keys() -> impl Iterator<Item = u16> {
        let others = [BTN_NORTH_OR_X, BTN_WEST_OR_Y, BTN_TL2, BTN_TR2];
        BUTTONS.into_iter().map(|(code, _)| code).chain(others)
    }

    /// Takes one event.
    pub fn event(&mut self, kind: u16, code: u16, value: i32) -> Step {
        match (kind, code) {
            (EV_SYN, SYN_DROPPED) => self.has_lost = true,
            (EV_SYN, SYN_REPORT) if core::mem::take(&mut self.has_lost) => return Step::Reread,
            (EV_SYN, SYN_REPORT) => return Step::Report(self.controller()),
            // The rest of a report whose beginning is lost.
            _ if self.has_lost => {}
            // 2 is a key's repetition.
            (EV_KEY, _) => self.key(code, value != 0),
            (EV_ABS, _) => self.axis(code, |input| {
                input.is_known = true;
                value
            }),
            _ => {}
        }
        Step::More
    }

    /// Takes the value of an axis that the kernel has stored.
    pub fn stored_axis(&mut self, code: u16, value: i32) {
        self.axis(code, |input| input.stored(value));
    }

    /// Takes the state of a button.
    pub fn key(&mut self, code: u16, is_pressed: bool) {
        if let Some((_, button)) = BUTTONS.iter().chain(&self.x_y).find(|(known, _)| *known == code) {
            let mask = button.mask();
            self.pressed = if is_pressed { self.pressed | mask } else { self.pressed & !mask };
        }
        let trigger = match code {
            BTN_TL2 => Axis::LeftTrigger,
            BTN_TR2 => Axis::RightTrigger,
            _ => return,
        };
        // Pads with analogue triggers report these as well, when they are half pressed.
        if self.sticks[trigger as usize].is_none() {
            self.axes[trigger as usize] = if is_pressed { 1.0 } else { trigger.rest() };
        }
    }

    fn axis(&mut self, code: u16, value: impl FnOnce(&mut Input) -> i32) {
        let sticks = self.sticks.iter_mut().zip(&mut self.axes);
        let hat = self.hat.iter_mut().zip(&mut self.hat_at);
        let found = sticks.chain(hat).find_map(|(input, at)| {
            input.as_mut().filter(|input| input.code == code).map(|input| (input, at))
        });
        if let Some((input, at)) = found {
            let value = value(input);
            *at = input.scaled(value);
        }
    }

    /// The gamepad as it is held, as far as the events have told.
    #[must_use]
    pub fn controller(&self) -> Controller {
        let [x, y] = self.hat_at;
        // Half way: a hat has three positions, whatever its range is.
        let hat = [
            (x < -0.5, Button::DpadLeft),
            (x > 0.5, Button::DpadRight),
            (y < -0.5, Button::DpadUp),
            (y > 0.5, Button::DpadDown),
        ];
        let hat = hat.iter().filter(|(is_pressed, _)| *is_pressed).fold(0, |mask, (_, b)| mask | b.mask());
        Controller { axes: self.axes, buttons: self.pressed | hat }
    }
}

#[cfg(test)]
mod tests;
