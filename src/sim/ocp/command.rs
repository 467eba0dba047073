//! The control language: one command a line, the same in a script, at the keyboard and on the control port.
//!
//! Owns the words and their arguments. Relies on the vendor's names for axes and buttons. Never runs a command.

use core::fmt;

use serde_json::{Map, Value};

use super::inject::{self, Inject};
use super::operator::{CounterMode, LinkState};
use super::options::DefaultValues;
use crate::proto::ocp::{Axis, Button};
use crate::time::Duration;

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
    /// `operator on|off`: the operator's program.
    Operator(bool),
    /// `link cut|hold|restore`: both ways between operator and vehicle.
    Link(LinkState),
    /// `link delay MS`, `link jitter MS`, `link loss P`, `link duplicate P`, `link reorder P`: the way up.
    LinkSet(LinkSetting),
    /// `video stop|run`: the camera's picture, and with it the way the acks go.
    Video(bool),
    /// `cameras ok` or `cameras lost NAME...`: also sets CameraLost.
    Cameras(Vec<String>),
    /// `fault NAME on|off`: any name; those of the vendor are known in every spelling.
    Fault(String, bool),
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

/// One property of the way from operator to vehicle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LinkSetting {
    /// Delay of each message.
    Delay(Duration),
    /// Random addition to it.
    Jitter(Duration),
    /// Fraction lost.
    Loss(f64),
    /// Fraction sent twice.
    Duplicate(f64),
    /// Fraction that arrives late.
    Reorder(f64),
}

/// Why a line is no command. It is refused, nothing happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandError {
    /// There is no command of that name.
    Unknown(String),
    /// The arguments do not fit; this is how the command is written.
    Usage(&'static str),
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(word) => write!(f, "unknown command {word:?}; try \"help\""),
            Self::Usage(usage) => write!(f, "usage: {usage}"),
        }
    }
}

impl core::error::Error for CommandError {}

/// Every command, as `help` shows it.
pub const HELP: &[&str] = &[
    "axis NAME VALUE               left_x left_y right_x right_y left_trigger right_trigger, -1..1",
    "trigger left|right VALUE      0 released .. 1 pressed",
    "press BUTTON, release BUTTON  a b x y left_bumper right_bumper back start guide ...",
    "neutral                       all axes at rest, all buttons released",
    "arm [SETTLE_MS HOLD_MS [BTN]] neutral, then the button held (2000 1500 start)",
    "user {json} | user clear      members of the user data; null removes one",
    "counter run|freeze|absent|N   the operator's counter",
    "operator on|off               the operator's program",
    "link cut|hold|restore         the radio; hold delivers in a burst later",
    "link delay|jitter MS, link loss|duplicate|reorder FRACTION",
    "video stop|run                the picture, which carries the acks back",
    "cameras ok | cameras lost NAME...",
    "fault NAME on|off             NoControlMessage HighLatency CameraLost ... or any name",
    "stall MS                      the server hangs",
    "silence on|off                connected, but sends nothing",
    "ack run|freeze | ack back MS  ack_time stands still or jumps back",
    "latency MS|auto               what telemetry.latency says",
    "controller on|none|null|zeroed|neutral|last",
    "defaults neutral|zeroed|null|none|last   controller under a fault",
    "rate HZ|auto                  messages a second",
    "inject WHAT [xN]              see below",
    "close | rst | restart [DOWN_MS] | listen on|off",
    "wait MS                       delays what follows in this script",
    "status | help | quit",
];

/// Everything `help` answers.
#[must_use]
pub fn help() -> String {
    format!("{}\n{}\n", HELP.join("\n"), inject::USAGE)
}

/// Reads one line. A blank line or a comment (`#`) is no command.
///
/// # Errors
/// [`CommandError`] with the right form of the command.
pub fn parse(line: &str) -> Result<Option<Command>, CommandError> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let words: Vec<&str> = rest.split_whitespace().collect();
    if word.is_empty() || word.starts_with('#') {
        return Ok(None);
    }
    let usage = CommandError::Usage;
    let command = match (word, words.as_slice()) {
        ("axis" | "trigger", words) => axis(word, words)?,
        ("press", [name]) => Command::Press(button(name)?),
        ("release", [name]) => Command::Release(button(name)?),
        ("neutral", []) => Command::Neutral,
        ("arm", words) => arm(words)?,
        ("user", _) => user(rest)?,
        ("counter", [mode]) => match *mode {
            "run" => Command::Counter(CounterMode::Run),
            "freeze" => Command::Counter(CounterMode::Freeze),
            "absent" => Command::Counter(CounterMode::Absent),
            n => n.parse().map(Command::CounterSet).map_err(|_| usage("counter run|freeze|absent|N"))?,
        },
        ("operator", [state]) => Command::Operator(on_off(state).ok_or_else(|| usage("operator on|off"))?),
        ("link", words) => link(words)?,
        ("video", ["run"]) => Command::Video(true),
        ("video", ["stop"]) => Command::Video(false),
        ("cameras", ["ok"]) => Command::Cameras(Vec::new()),
        ("cameras", ["lost", names @ ..]) if !names.is_empty() => {
            Command::Cameras(names.iter().map(|name| (*name).to_owned()).collect())
        }
        ("fault", words) => fault(words)?,
        ("stall", [ms]) => Command::Stall(millis(ms).ok_or_else(|| usage("stall MS"))?),
        ("silence", [state]) => Command::Silence(on_off(state).ok_or_else(|| usage("silence on|off"))?),
        ("ack", ["run"]) => Command::AckFreeze(false),
        ("ack", ["freeze"]) => Command::AckFreeze(true),
        ("ack", ["back", ms]) => Command::AckBack(ms.parse().map_err(|_| usage("ack back MS"))?),
        ("latency", ["auto"]) => Command::Latency(None),
        ("latency", [ms]) => Command::Latency(Some(number(ms).ok_or_else(|| usage("latency MS|auto"))?)),
        ("controller", ["on"]) => Command::Controller(None),
        ("controller", [form]) => Command::Controller(Some(default_values(form)?)),
        ("defaults", [form]) => Command::Defaults(default_values(form)?),
        ("rate", ["auto"]) => Command::Rate(None),
        ("rate", [hz]) => {
            // 20,000 a second is twice what the fault catalogue asks for.
            let hz = number(hz).filter(|hz| (0.1..=20_000.0).contains(hz));
            Command::Rate(Some(hz.ok_or_else(|| usage("rate HZ|auto, HZ from 0.1 to 20000"))?))
        }
        ("inject", words) => inject(words, rest)?,
        ("close", []) => Command::Close,
        ("rst", []) => Command::Reset,
        ("restart", []) => Command::Restart(Duration::ZERO),
        ("restart", [ms]) => Command::Restart(millis(ms).ok_or_else(|| usage("restart [DOWN_MS]"))?),
        ("listen", [state]) => Command::Listen(on_off(state).ok_or_else(|| usage("listen on|off"))?),
        ("wait", [ms]) => Command::Wait(millis(ms).ok_or_else(|| usage("wait MS"))?),
        ("status", []) => Command::Status,
        ("help", _) => Command::Help,
        ("quit", []) => Command::Quit,
        _ => return Err(misused(word)),
    };
    Ok(Some(command))
}

/// The right form of a known command, or that there is none.
fn misused(word: &str) -> CommandError {
    let known = HELP.iter().find(|line| {
        line.split([',', '|']).any(|part| part.split_whitespace().next() == Some(word)) && !word.is_empty()
    });
    known.map_or_else(|| CommandError::Unknown(word.to_owned()), |line| CommandError::Usage(line))
}

fn on_off(word: &str) -> Option<bool> {
    match word {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

fn number(word: &str) -> Option<f64> {
    word.parse().ok().filter(|value: &f64| value.is_finite())
}

/// Up to a day.
fn millis(word: &str) -> Option<Duration> {
    let ms = number(word).filter(|ms| (0.0..=86_400_000.0).contains(ms))?;
    Some(Duration::from_secs_f64(ms / 1e3))
}

fn button(name: &str) -> Result<Button, CommandError> {
    Button::from_name(name).ok_or(CommandError::Usage(
        "press|release a b x y left_bumper right_bumper back start guide left_thumb right_thumb dpad_up dpad_right \
         dpad_down dpad_left",
    ))
}

fn axis(word: &str, words: &[&str]) -> Result<Command, CommandError> {
    let usage = CommandError::Usage("axis NAME -1..1, or trigger left|right 0..1");
    let [name, value] = words else { return Err(usage) };
    let value = number(value).ok_or_else(|| usage.clone())?;
    if word == "axis" {
        return Ok(Command::Axis(Axis::from_name(name).ok_or(usage)?, value));
    }
    let axis = match *name {
        "left" => Axis::LeftTrigger,
        "right" => Axis::RightTrigger,
        _ => return Err(usage),
    };
    Ok(Command::Axis(axis, value * 2.0 - 1.0))
}

fn arm(words: &[&str]) -> Result<Command, CommandError> {
    let usage = CommandError::Usage("arm [SETTLE_MS HOLD_MS [BUTTON]]");
    let (settle, hold, name) = match words {
        // One second without faults and half a second neutral before, one second held: with a margin.
        [] => ("2000", "1500", "start"),
        [settle, hold] => (*settle, *hold, "start"),
        [settle, hold, name] => (*settle, *hold, *name),
        _ => return Err(usage),
    };
    let (Some(settle), Some(hold)) = (millis(settle), millis(hold)) else { return Err(usage) };
    Ok(Command::Arm { settle, hold, button: button(name)? })
}

fn user(rest: &str) -> Result<Command, CommandError> {
    if rest == "clear" {
        return Ok(Command::User(None));
    }
    match serde_json::from_str(rest) {
        Ok(Value::Object(members)) => Ok(Command::User(Some(members))),
        _ => Err(CommandError::Usage("user {json object} | user clear")),
    }
}

fn link(words: &[&str]) -> Result<Command, CommandError> {
    let usage = || {
        CommandError::Usage("link cut|hold|restore, link delay|jitter MS, link loss|duplicate|reorder 0..1")
    };
    let fraction = |word: &str| number(word).filter(|p| (0.0..=1.0).contains(p)).ok_or_else(usage);
    let time = |word: &str| millis(word).ok_or_else(usage);
    Ok(match words {
        ["cut"] => Command::Link(LinkState::Cut),
        ["hold"] => Command::Link(LinkState::Held),
        ["restore"] => Command::Link(LinkState::Up),
        ["delay", ms] => Command::LinkSet(LinkSetting::Delay(time(ms)?)),
        ["jitter", ms] => Command::LinkSet(LinkSetting::Jitter(time(ms)?)),
        ["loss", p] => Command::LinkSet(LinkSetting::Loss(fraction(p)?)),
        ["duplicate", p] => Command::LinkSet(LinkSetting::Duplicate(fraction(p)?)),
        ["reorder", p] => Command::LinkSet(LinkSetting::Reorder(fraction(p)?)),
        _ => return Err(usage()),
    })
}

fn fault(words: &[&str]) -> Result<Command, CommandError> {
    let usage = CommandError::Usage("fault NAME on|off");
    let [name @ .., state] = words else { return Err(usage) };
    if name.is_empty() {
        return Err(usage);
    }
    Ok(Command::Fault(name.join(" "), on_off(state).ok_or(usage)?))
}

fn default_values(word: &str) -> Result<DefaultValues, CommandError> {
    DefaultValues::from_name(word).ok_or(CommandError::Usage("controller on|none|null|zeroed|neutral|last"))
}

fn inject(words: &[&str], rest: &str) -> Result<Command, CommandError> {
    let usage = CommandError::Usage(inject::USAGE);
    let times = words.last().and_then(|word| word.strip_prefix('x')).and_then(|n| n.parse::<u32>().ok());
    let (words, rest, times) = match (words, times) {
        // 100,000 messages are half an hour; more is a slip of the finger.
        ([words @ .., last], Some(times)) if (1..=100_000).contains(&times) => {
            (words, rest.strip_suffix(last).unwrap_or(rest).trim_end(), times)
        }
        (_, Some(_)) => return Err(usage),
        (words, None) => (words, rest, 1),
    };
    let [name, arguments @ ..] = words else { return Err(usage) };
    let text = rest.strip_prefix(name).unwrap_or("").trim_start();
    Ok(Command::Inject(Inject::parse(name, arguments, text).ok_or(usage)?, times))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(line: &str) -> Command {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}")).unwrap_or_else(|| panic!("{line}"))
    }

    #[test]
    fn each_command_is_understood() {
        let ms = Duration::from_millis;
        for (line, want) in [
            ("axis left_x 0.5", Command::Axis(Axis::LeftX, 0.5)),
            ("trigger right 1", Command::Axis(Axis::RightTrigger, 1.0)),
            ("trigger left 0", Command::Axis(Axis::LeftTrigger, -1.0)),
            ("trigger left 0.5", Command::Axis(Axis::LeftTrigger, 0.0)),
            ("  press  start ", Command::Press(Button::Start)),
            ("release dpad_left", Command::Release(Button::DpadLeft)),
            ("arm", Command::Arm { settle: ms(2_000), hold: ms(1_500), button: Button::Start }),
            ("arm 10 20 a", Command::Arm { settle: ms(10), hold: ms(20), button: Button::A }),
            ("counter freeze", Command::Counter(CounterMode::Freeze)),
            ("counter 77", Command::CounterSet(77)),
            ("link cut", Command::Link(LinkState::Cut)),
            ("link jitter 30", Command::LinkSet(LinkSetting::Jitter(ms(30)))),
            ("link loss 0.1", Command::LinkSet(LinkSetting::Loss(0.1))),
            ("fault Latency Loop Not Closed on", Command::Fault("Latency Loop Not Closed".into(), true)),
            ("fault HighLatency off", Command::Fault("HighLatency".into(), false)),
            ("stall 1000", Command::Stall(ms(1_000))),
            ("ack freeze", Command::AckFreeze(true)),
            ("ack back 500", Command::AckBack(500)),
            ("controller none", Command::Controller(Some(DefaultValues::Absent))),
            ("controller on", Command::Controller(None)),
            ("rate 5", Command::Rate(Some(5.0))),
            ("restart", Command::Restart(Duration::ZERO)),
            ("restart 300", Command::Restart(ms(300))),
            ("wait 1.5", Command::Wait(Duration::from_micros(1_500))),
            ("inject zero", Command::Inject(Inject::Zero, 1)),
            ("inject zero x3", Command::Inject(Inject::Zero, 3)),
            (
                "inject axis left_x 1e39 x20",
                Command::Inject(Inject::Axis("left_x".into(), "1e39".into()), 20),
            ),
            ("inject body {\"a b\": 1}", Command::Inject(Inject::Body("{\"a b\": 1}".into()), 1)),
        ] {
            assert_eq!(ok(line), want, "{line}");
        }
        let Command::User(Some(members)) = ok(r#"user {"horn": true, "mode": "crab"}"#) else { panic!() };
        assert_eq!(members.len(), 2);
    }

    #[test]
    fn blank_lines_and_comments_are_no_commands() {
        for line in ["", "   ", "# axis left_x 1", "\t#"] {
            assert_eq!(parse(line), Ok(None), "{line:?}");
        }
    }

    #[test]
    fn mistakes_are_answered_with_the_right_form() {
        for line in [
            "axis",
            "axis left 1",
            "axis left_x NaN",
            "axis left_x",
            "trigger up 1",
            "press",
            "press button",
            "arm 1",
            "user [1]",
            "user {",
            "counter slow",
            "link",
            "link loss 2",
            "fault on",
            "fault X maybe",
            "stall",
            "stall -1",
            "rate 0",
            "wait forever",
            "inject",
            "inject nonsense",
            "inject zero x0",
            "neutral now",
            "listen maybe",
            "video",
        ] {
            assert!(matches!(parse(line), Err(CommandError::Usage(_))), "{line}: {:?}", parse(line));
        }
        assert_eq!(parse("fly away"), Err(CommandError::Unknown("fly".into())));
    }

    #[test]
    fn every_injection_in_the_usage_text_is_understood() {
        for name in inject::NAMES {
            ok(&format!("inject {name}"));
            ok(&format!("inject {name} x2"));
        }
    }
}
