//! The words of the control language.
//!
//! Owns how each command is written. Relies on [`super::Command`]. Never knows what a command does.

use serde_json::Value;

use super::{Command, CommandError, HELP, Scope};
use crate::proto::ocp::player::decode_client;
use crate::proto::ocp::{Axis, Button};
use crate::sim::ocp::inject::{self, Inject};
use crate::sim::ocp::link::{Direction, LinkSetting, LinkState};
use crate::sim::ocp::options::DefaultValues;
use crate::sim::ocp::player::{CounterMode, Source};
use crate::time::Duration;

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
        ("gamepad", ["plug"]) => Command::Gamepad(true),
        ("gamepad", ["unplug"]) => Command::Gamepad(false),
        ("active", ["none"]) => Command::Active(None),
        ("active", [_, ..]) => Command::Active(Some(rest.to_owned())),
        ("source", [name, ..]) => source(name, rest)?,
        ("vehicle", [name, _, ..]) => of_vehicle(name, rest)?,
        ("player", [_, ..]) => of_player(rest)?,
        ("restart", ["player", ..]) => of_player(&rest.replacen("player", "restart", 1))?,
        _ => return vehicle_side(word, rest, &words),
    };
    Ok(Some(command))
}

/// What is for a vehicle, a server or the simulator.
fn vehicle_side(word: &str, rest: &str, words: &[&str]) -> Result<Option<Command>, CommandError> {
    let usage = CommandError::Usage;
    let command = match (word, words) {
        ("link" | "uplink" | "downlink" | "cut" | "hold" | "restore", words) => link(word, words)?,
        ("video", ["run"]) => Command::Video(true),
        ("video", ["stop"]) => Command::Video(false),
        ("cameras", ["ok"]) => Command::Cameras(Vec::new()),
        ("cameras", ["lost", names @ ..]) if !names.is_empty() => {
            Command::Cameras(names.iter().map(|name| (*name).to_owned()).collect())
        }
        ("camera", ["run", _, ..]) => Command::Camera(after_word(rest), true),
        ("camera", ["stop", _, ..]) => Command::Camera(after_word(rest), false),
        ("feedback", ["run"]) => Command::Feedback(true),
        ("feedback", ["stop"]) => Command::Feedback(false),
        ("session", [state]) => Command::Session(on_off(state).ok_or_else(|| usage("session on|off"))?),
        ("monitor", [state]) => Command::Monitor(on_off(state).ok_or_else(|| usage("monitor on|off"))?),
        ("frame", words) => frame(words)?,
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

/// Everything after the first word.
fn after_word(rest: &str) -> String {
    rest.split_once(char::is_whitespace).map_or("", |(_, text)| text).trim().to_owned()
}

fn link(word: &str, words: &[&str]) -> Result<Command, CommandError> {
    let usage = || {
        CommandError::Usage(
            "cut|hold|restore uplink|downlink|both [MS], uplink|downlink delay|jitter MS, \
             uplink|downlink loss|duplicate|reorder 0..1",
        )
    };
    let state = |word: &str| match word {
        "cut" => Some(LinkState::Cut),
        "hold" => Some(LinkState::Held),
        "restore" => Some(LinkState::Up),
        _ => None,
    };
    let direction = |word: &str| match word {
        "uplink" => Some(Direction::Up),
        "downlink" => Some(Direction::Down),
        "both" => Some(Direction::Both),
        _ => None,
    };
    if let (Some(state), [way, time @ ..]) = (state(word), words) {
        let time = match time {
            [] => None,
            [time] if state != LinkState::Up => Some(millis(time).ok_or_else(usage)?),
            _ => return Err(usage()),
        };
        return Ok(Command::Link(direction(way).ok_or_else(usage)?, state, time));
    }
    let fraction = |word: &str| number(word).filter(|p| (0.0..=1.0).contains(p)).ok_or_else(usage);
    let time = |word: &str| millis(word).ok_or_else(usage);
    let setting = match words {
        [name] if word == "link" => {
            return Ok(Command::Link(Direction::Both, state(name).ok_or_else(usage)?, None));
        }
        ["delay", ms] => LinkSetting::Delay(time(ms)?),
        ["jitter", ms] => LinkSetting::Jitter(time(ms)?),
        ["loss", p] => LinkSetting::Loss(fraction(p)?),
        ["duplicate", p] => LinkSetting::Duplicate(fraction(p)?),
        ["reorder", p] => LinkSetting::Reorder(fraction(p)?),
        _ => return Err(usage()),
    };
    let way = if word == "link" { Some(Direction::Up) } else { direction(word) };
    Ok(Command::LinkSet(way.ok_or_else(usage)?, setting))
}

fn frame(words: &[&str]) -> Result<Command, CommandError> {
    let usage = || CommandError::Usage("frame MS [xN]");
    let (time, times) = match words {
        [time] => (time, Some(1)),
        [time, times] => (time, times.strip_prefix('x').and_then(|n| n.parse().ok())),
        _ => return Err(usage()),
    };
    Ok(Command::Frame(millis(time).ok_or_else(usage)?, times.filter(|n| *n > 0).ok_or_else(usage)?))
}

fn fault(words: &[&str]) -> Result<Command, CommandError> {
    let usage = CommandError::Usage("fault NAME on|off, fault raise NAME, fault clear [NAME]");
    match words {
        ["clear"] => Ok(Command::FaultsClear),
        ["clear", name @ ..] => Ok(Command::Fault(name.join(" "), false)),
        ["raise", name @ ..] if !name.is_empty() => Ok(Command::Fault(name.join(" "), true)),
        [name @ .., state] if !name.is_empty() => {
            Ok(Command::Fault(name.join(" "), on_off(state).ok_or(usage)?))
        }
        _ => Err(usage),
    }
}

fn source(name: &str, rest: &str) -> Result<Command, CommandError> {
    let usage = CommandError::Usage("source webview|plugin [{json as a client of the Player sends it}]");
    let source = match name {
        "webview" => Source::Webview,
        "plugin" => Source::Plugin,
        _ => return Err(usage),
    };
    let text = after_word(rest);
    if text.is_empty() {
        return Ok(Command::Source(source, None));
    }
    let message = decode_client(text.as_bytes()).map_err(|_| usage)?;
    Ok(Command::Source(source, Some(Box::new(message))))
}

/// The command behind an address, which has no address of its own.
fn inner(text: &str, usage: &CommandError) -> Result<Command, CommandError> {
    let is_addressed = text.starts_with("vehicle") || text.starts_with("player");
    if is_addressed { Err(usage.clone()) } else { parse(text)?.ok_or_else(|| usage.clone()) }
}

fn of_vehicle(name: &str, rest: &str) -> Result<Command, CommandError> {
    let usage = CommandError::Usage("vehicle NAME COMMAND, with a command of a vehicle or of its server");
    let command = inner(&after_word(rest), &usage)?;
    let fits = matches!(command.scope(), Scope::Vehicle | Scope::Server) && command.vehicle().is_none();
    if fits { Ok(Command::Vehicle(name.to_owned(), Box::new(command))) } else { Err(usage) }
}

fn of_player(rest: &str) -> Result<Command, CommandError> {
    let usage = CommandError::Usage(
        "player stall|silence|inject|close|rst|restart|listen ..; inject: only what is about bytes",
    );
    let command = inner(rest, &usage)?;
    let fits = match &command {
        Command::Inject(injection, _) => injection.fits_any_message(),
        command => command.scope() == Scope::Server,
    };
    if fits { Ok(Command::Player(Box::new(command))) } else { Err(usage) }
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
