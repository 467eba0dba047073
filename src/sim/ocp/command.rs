//! The control language: one command a line, the same in a script, at the keyboard and on the control port.
//!
//! Owns the commands and whom each one is for; [`parse()`] has the words. Relies on the vendor's names for axes and
//! buttons. Never runs a command.

use core::fmt;

use serde_json::{Map, Value};

use super::inject::{self, Inject};
use super::link::{Direction, LinkSetting, LinkState};
use super::options::DefaultValues;
use super::player::{CounterMode, Source};
use crate::proto::ocp::player::ClientMessage;
use crate::proto::ocp::{Axis, Button, Controller};
use crate::time::Duration;

mod parse;

pub use parse::parse;

/// One command.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// `axis NAME VALUE`: moves an axis, in the vendor's range (-1..1, triggers rest at -1).
    Axis(Axis, f64),
    /// `press BUTTON`
    Press(Button),
    /// `release BUTTON`
    Release(Button),
    /// `neutral`: every axis at rest, every button released.
    Neutral,
    /// `arm [SETTLE_MS HOLD_MS [BUTTON]]`: neutral, and after the settle time the button pressed for the hold time.
    Arm {
        /// How long everything is neutral first.
        settle: Duration,
        /// How long the button is held.
        hold: Duration,
        /// Which button.
        button: Button,
    },
    /// `user {json}`: sets members of the user data; null removes one. `user clear` removes all.
    User(Option<Map<String, Value>>),
    /// `counter run|freeze|absent`
    Counter(CounterMode),
    /// `counter N`
    CounterSet(u64),
    /// `operator on|off`: the operator's program, which sends control.
    Operator(bool),
    /// `gamepad plug|unplug`
    Gamepad(bool),
    /// The state of a real gamepad, or that there is none. It has no words: a driver gives it.
    Pad(Option<Controller>),
    /// `active NAME` or `active none`: the vehicle that gets the gamepad, as if a client had chosen it.
    Active(Option<String>),
    /// `source webview|plugin [{json}]`: another source than the TCP client sends client data once; without a message it
    /// only takes part, as a web page that shows the feedback.
    Source(Source, Option<Box<ClientMessage>>),
    /// `cut|hold|restore uplink|downlink|both [MS]`: the radio, for so long. `link cut` is `cut both`.
    Link(Direction, LinkState, Option<Duration>),
    /// `uplink|downlink delay MS`, `jitter MS`, `loss P`, `duplicate P`, `reorder P`; `link` is the way up.
    LinkSet(Direction, LinkSetting),
    /// `video stop|run`: the picture, and with it the way the acks go.
    Video(bool),
    /// `feedback stop|run`: the Streamer's feedback messages.
    Feedback(bool),
    /// `cameras ok` or `cameras lost NAME...`: CameraLost at once.
    Cameras(Vec<String>),
    /// `camera stop|run NAME`: this camera has no new picture; CameraLost after its time.
    Camera(String, bool),
    /// `frame MS [xN]`: the next frames of the Streamer take that long; StreamerSlow above its limit.
    Frame(Duration, u32),
    /// `fault NAME on|off`, `fault raise|clear NAME`: any name; those of the vendor are known in every spelling.
    Fault(String, bool),
    /// `fault clear`: nothing is raised by hand any more.
    FaultsClear,
    /// `session on|off`: the Player's connection to the vehicle.
    Session(bool),
    /// `monitor on|off`: the session only watches.
    Monitor(bool),
    /// `vehicle NAME COMMAND`: to this vehicle alone. Without it a vehicle's command goes to all of them.
    Vehicle(String, Box<Self>),
    /// `player COMMAND`: to the Player's server: close, rst, stall, silence, inject, restart, listen.
    Player(Box<Self>),
    /// `stall MS`: the server does nothing at all for a while.
    Stall(Duration),
    /// `silence on|off`: the server keeps the connection and reads, but sends nothing.
    Silence(bool),
    /// `ack run|freeze`
    AckFreeze(bool),
    /// `ack back MS`: `ack_time` jumps back.
    AckBack(u64),
    /// `latency MS|auto`: what `telemetry.latency` says.
    Latency(Option<f64>),
    /// `controller on`: as the operator holds it. `controller none|null|zeroed|neutral|last`: replaced, no fault.
    Controller(Option<DefaultValues>),
    /// `defaults neutral|zeroed|null|none|last`: what `controller` says under a fault.
    Defaults(DefaultValues),
    /// `rate HZ`: messages a second, new or repeated. `rate auto` goes back to the documented pace.
    Rate(Option<f64>),
    /// `inject WHAT [xN]`: a fault in the next message or bytes beside it, N times.
    Inject(Inject, u32),
    /// `close`: ends the connection in order.
    Close,
    /// `rst`: ends it by reset.
    Reset,
    /// `restart [DOWN_MS]`: as the vendor's program restarted: connection closed, new key, `ack_time` from 0; clients
    /// are turned away for so long.
    Restart(Duration),
    /// `listen on|off`: opens or closes the listening socket.
    Listen(bool),
    /// `wait MS`: delays what follows in the same script.
    Wait(Duration),
    /// `status`: answers with the state as JSON.
    Status,
    /// `help`: answers with all commands.
    Help,
    /// `quit`: ends the simulator.
    Quit,
}

/// Whom a command is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The operator at the Player.
    Operator,
    /// A vehicle, its Streamer and its radio.
    Vehicle,
    /// A server: a Streamer's, or after `player` the Player's.
    Server,
    /// Whoever drives the simulation.
    Driver,
}

impl Command {
    /// Whom the command is for.
    #[must_use]
    pub const fn scope(&self) -> Scope {
        match self {
            Self::Axis(..)
            | Self::Press(_)
            | Self::Release(_)
            | Self::Neutral
            | Self::Arm { .. }
            | Self::User(_)
            | Self::Counter(_)
            | Self::CounterSet(_)
            | Self::Operator(_)
            | Self::Gamepad(_)
            | Self::Pad(_)
            | Self::Active(_)
            | Self::Source(..)
            | Self::Player(_) => Scope::Operator,
            Self::Stall(_)
            | Self::Silence(_)
            | Self::Inject(..)
            | Self::Close
            | Self::Reset
            | Self::Restart(_)
            | Self::Listen(_) => Scope::Server,
            Self::Wait(_) | Self::Status | Self::Help | Self::Quit => Scope::Driver,
            _ => Scope::Vehicle,
        }
    }

    /// Whether it moves the gamepad, which a person who arms must not.
    #[must_use]
    pub const fn moves_gamepad(&self) -> bool {
        matches!(
            self,
            Self::Axis(..) | Self::Press(_) | Self::Release(_) | Self::Neutral | Self::Gamepad(false)
        )
    }

    /// The name of a vehicle that the command needs.
    #[must_use]
    pub fn vehicle(&self) -> Option<&str> {
        match self {
            Self::Vehicle(name, _) | Self::Active(Some(name)) => Some(name),
            _ => None,
        }
    }
}

/// Why a line is no command. It is refused, nothing happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandError {
    /// There is no command of that name.
    Unknown(String),
    /// The arguments do not fit; this is how the command is written.
    Usage(&'static str),
    /// There is no vehicle of that name.
    NoVehicle(String),
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(word) => write!(f, "unknown command {word:?}; try \"help\""),
            Self::Usage(usage) => write!(f, "usage: {usage}"),
            Self::NoVehicle(name) => write!(f, "there is no vehicle {name:?}"),
        }
    }
}

impl core::error::Error for CommandError {}

/// Every command, as `help` shows it.
pub const HELP: &[&str] = &[
    "The operator:",
    "axis NAME VALUE               left_x left_y right_x right_y left_trigger right_trigger, -1..1",
    "trigger left|right VALUE      0 released .. 1 pressed",
    "press BUTTON, release BUTTON  a b x y left_bumper right_bumper back start guide ...",
    "neutral                       all axes at rest, all buttons released",
    "arm [SETTLE_MS HOLD_MS [BTN]] neutral, then the button held (2000 1500 start)",
    "gamepad plug|unplug           InputLost",
    "operator on|off               the operator's program, which sends control",
    "active NAME|none              the vehicle that gets the gamepad",
    "user {json} | user clear      members of the operator's own user data; null removes one",
    "counter run|freeze|absent|N   the operator's own counter",
    "source webview|plugin [{json}]   another source than the TCP client sends client data once",
    "",
    "A vehicle and its radio, all vehicles where none is named:",
    "vehicle NAME COMMAND          to this vehicle alone, here and below",
    "cut|hold|restore uplink|downlink|both [MS]   the radio; hold delivers in a burst later; MS: for so long",
    "uplink|downlink delay|jitter MS, uplink|downlink loss|duplicate|reorder FRACTION",
    "link cut|hold|restore         the same for both, link delay|jitter|loss|duplicate|reorder for the uplink",
    "video stop|run                the picture, which carries the acks back",
    "feedback stop|run             the Streamer's feedback; NoFeedbackMessage",
    "camera stop|run NAME          no new picture of this camera; CameraLost after 200 ms",
    "cameras ok | cameras lost NAME...   CameraLost at once",
    "frame MS [xN]                 the next frames take so long; StreamerSlow above 500 ms",
    "fault NAME on|off             also fault raise NAME, fault clear [NAME]; of either side, or any name",
    "session on|off                the Player's connection to the vehicle",
    "monitor on|off                the session only watches",
    "ack run|freeze | ack back MS  ack_time stands still or jumps back",
    "latency MS|auto               what telemetry.latency says",
    "controller on|none|null|zeroed|neutral|last",
    "defaults neutral|zeroed|null|none|last   controller under a fault",
    "rate HZ|auto                  messages a second",
    "",
    "A server, every vehicle's where none is named:",
    "player COMMAND                to the Player's server",
    "stall MS                      the program hangs",
    "silence on|off                connected, but sends nothing",
    "inject WHAT [xN]              see below",
    "close | rst | restart [DOWN_MS] | listen on|off",
    "restart player [DOWN_MS]      the Player; ends a source conflict",
    "",
    "The simulator:",
    "wait MS                       delays what follows in this script",
    "status | help | quit",
];

/// Everything `help` answers.
#[must_use]
pub fn help() -> String {
    format!(
        "{}\n{}\nto the Player: partial .. replay of these, and body TEXT\n",
        HELP.join("\n"),
        inject::USAGE
    )
}

#[cfg(test)]
mod tests;
