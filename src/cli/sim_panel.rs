//! `ocpcan sim panel`: an operator's panel, simulated from the desk's own configuration.
//!
//! Owns the frames that the configuration reads, with their counters and checksums, and the values that a person types. Relies
//! on the same codecs as the desk. Never sends a signal that the configuration does not read: those bits stay 0.

#![allow(clippy::disallowed_methods, reason = "a command waits for its period and its keyboard")]

use core::sync::atomic::{AtomicBool, Ordering};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use super::{check, complain, exit};
use crate::can::Frame;
use crate::config::Loaded;
use crate::io::canbus::{Accept, BusAddress, Port, PortOptions};
use crate::io::clock;
use crate::signals::plan::{ReceivePlan, ReceiveSignal};
use crate::time::{Duration, Instant};

/// Plays the panel of an operator's desk: sends the frames that its configuration reads
///
/// Each line of standard input is a command: `SIGNAL VALUE` (a number, or a name that the DBC gives to one), `unplug`, `plug`,
/// `freeze` (the counters stand still), `go`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The desk's configuration (role = "operator")
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,

    /// Sets a signal from the start; may be given several times
    #[arg(long = "set", value_name = "SIGNAL=VALUE")]
    values: Vec<String>,
}

/// Frames within the time after which the desk calls a frame stale.
const FRAMES_PER_STALE: u32 = 5;

/// Bounds of the period, in milliseconds.
const PERIOD_MS: (u64, u64) = (5, 50);

/// One frame of the panel.
struct Sender {
    plan: ReceivePlan,
    values: Vec<f64>,
    count: u32,
    due: Instant,
    period: Duration,
}

/// What was typed.
#[derive(Debug, Default)]
struct Cable {
    is_unplugged: bool,
    is_frozen: bool,
}

impl Sender {
    fn new(plan: &ReceivePlan) -> Self {
        let (low, high) = (Duration::from_millis(PERIOD_MS.0), Duration::from_millis(PERIOD_MS.1));
        Self {
            values: plan.signals.iter().map(|signal| 0.0_f64.clamp(signal.min, signal.max)).collect(),
            count: 0,
            due: Instant::ZERO,
            period: (plan.stale_after / FRAMES_PER_STALE).clamp(low, high),
            plan: plan.clone(),
        }
    }

    /// Sets the signal of that name; whether there is one.
    fn set(&mut self, name: &str, text: &str) -> Result<bool, String> {
        let Some(at) = self.plan.signals.iter().position(|signal| signal.name == name) else {
            return Ok(false);
        };
        let (Some(signal), Some(slot)) = (self.plan.signals.get(at), self.values.get_mut(at)) else {
            return Ok(false);
        };
        let value = value(signal, text).ok_or_else(|| format!("{text:?} is no value of {name}"))?;
        let mut probe = [0; 64];
        signal.codec.encode(&mut probe, value).map_err(|_| format!("{text} does not fit into {name}"))?;
        *slot = value;
        Ok(true)
    }

    fn frame(&self) -> Option<Frame> {
        let mut data = [0; 64];
        let data = data.get_mut(..usize::from(self.plan.len))?;
        for (signal, value) in self.plan.signals.iter().zip(&self.values) {
            signal.codec.encode(data, *value).ok()?;
        }
        if let Some(counter) = self.plan.counter {
            counter.apply(data, self.count).ok()?;
        }
        if let Some(checksum) = self.plan.checksum {
            checksum.apply(data).ok()?;
        }
        let id = self.plan.id;
        if self.plan.fd { Frame::fd(id, data, true, false).ok() } else { Frame::data(id, data).ok() }
    }
}

/// A number, or the name of one.
#[allow(clippy::cast_precision_loss, reason = "value names are small integers")]
fn value(signal: &ReceiveSignal, text: &str) -> Option<f64> {
    let named = signal.names.iter().find(|(_, name)| name == text);
    named
        .map(|(raw, _)| *raw as f64 * signal.codec.factor + signal.codec.offset)
        .or_else(|| text.parse().ok())
        .filter(|value: &f64| value.is_finite())
}

/// Runs the command; the exit code comes back.
pub(super) fn run(args: &Args) -> u8 {
    let config = match check::load_either(&args.config) {
        Ok(Loaded::Operator(config)) => config,
        Ok(Loaded::Vehicle(_)) => {
            complain("sim panel plays the panel of a desk; this configuration has role = \"vehicle\"");
            return exit::USAGE;
        }
        Err(code) => return code,
    };
    let mut senders: Vec<Sender> = config.plan.receive.iter().map(Sender::new).collect();
    if senders.is_empty() {
        complain("the configuration reads no panel: it has no [receive.X]");
        return exit::USAGE;
    }
    let mut cable = Cable::default();
    for setting in &args.values {
        if let Err(why) = take(&mut senders, &mut cable, &setting.replacen('=', " ", 1)) {
            complain(&why);
            return exit::USAGE;
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let _ = signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop));
        let _ = signal_hook::flag::register(signal, Arc::clone(&stop));
    }
    let mut ports: Vec<Option<Port>> = config.plan.buses.iter().map(|_| None).collect();
    let mut is_told = false;
    let lines = super::player::keyboard();
    while !stop.load(Ordering::Relaxed) {
        while let Ok(line) = lines.try_recv() {
            let said = take(&mut senders, &mut cable, &line).unwrap_or_else(|why| why);
            // A closed output is no reason to stop.
            let _ = writeln!(std::io::stdout().lock(), "{said}");
        }
        let now = clock::now();
        for sender in &mut senders {
            if now < sender.due {
                continue;
            }
            sender.due = if sender.due + sender.period > now {
                sender.due + sender.period
            } else {
                now + sender.period
            };
            let (Some(slot), Some(bus)) =
                (ports.get_mut(sender.plan.bus), config.plan.buses.get(sender.plan.bus))
            else {
                continue;
            };
            if slot.is_none() {
                match open(&bus.interface, bus.fd) {
                    Ok(port) => *slot = Some(port),
                    Err(why) => {
                        if !std::mem::replace(&mut is_told, true) {
                            complain(&format!("{why}; trying again"));
                        }
                        continue;
                    }
                }
            }
            if !cable.is_frozen {
                sender.count = sender.plan.counter.map_or(0, |counter| counter.next(sender.count));
            }
            if cable.is_unplugged {
                continue;
            }
            if let (Some(frame), Some(port)) = (sender.frame(), slot.as_ref())
                && port.try_send(&frame).is_err()
                && !port.is_up()
            {
                *slot = None;
            }
        }
        let due = senders.iter().map(|sender| sender.due).min().unwrap_or(now);
        std::thread::sleep(due.since(clock::now()).min(Duration::from_millis(PERIOD_MS.1)));
    }
    exit::OK
}

fn open(interface: &str, fd: bool) -> Result<Port, String> {
    let address: BusAddress = interface.parse().map_err(|error| format!("{interface}: {error}"))?;
    let options = PortOptions { accept: Accept::Only(Vec::new()), fd, ..PortOptions::default() };
    Port::open(&address, &options).map_err(|error| error.to_string())
}

/// Obeys one line; what is said about it comes back.
fn take(senders: &mut [Sender], cable: &mut Cable, line: &str) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let (first, second) = (words.next().unwrap_or_default(), words.next());
    match (first, second) {
        ("", _) => return Ok(String::new()),
        ("unplug", None) => cable.is_unplugged = true,
        ("plug", None) => cable.is_unplugged = false,
        ("freeze", None) => cable.is_frozen = true,
        ("go", None) => cable.is_frozen = false,
        (name, Some(text)) => {
            let mut is_known = false;
            for sender in senders.iter_mut() {
                is_known |= sender.set(name, text)?;
            }
            if !is_known {
                let names: Vec<&str> = senders
                    .iter()
                    .flat_map(|sender| sender.plan.signals.iter().map(|signal| signal.name.as_str()))
                    .collect();
                return Err(format!("the desk reads no {name:?}; it reads: {}", names.join(", ")));
            }
        }
        _ => return Err(format!("{first:?} is no command: SIGNAL VALUE, unplug, plug, freeze or go")),
    }
    Ok(format!("ok {}", line.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::signals::feedback::{FeedbackTable, FeedbackVerdict};

    const DESK: &str = include_str!("../../deploy/operator.example.toml");
    const PANEL: &str = include_str!("../../deploy/panel.dbc");

    #[test]
    fn the_desk_believes_every_frame_of_the_panel_and_reads_what_was_typed() {
        let Ok(Loaded::Operator(desk)) = config::parse_either(DESK, &[("panel.dbc", PANEL)]) else {
            panic!()
        };
        let mut senders: Vec<Sender> = desk.plan.receive.iter().map(Sender::new).collect();
        let mut cable = Cable::default();
        for line in ["LEVER 42.5", "SEAT 1", "STEERING_MODE crab"] {
            assert_eq!(take(&mut senders, &mut cable, line).unwrap(), format!("ok {line}"));
        }
        for wrong in ["LEVER", "LEVER fast", "LEVER 1e9", "NOTHING 1", "jump"] {
            take(&mut senders, &mut cable, wrong).unwrap_err();
        }
        let mut table = FeedbackTable::new(&desk.plan.receive);
        let [sender] = &mut senders[..] else { panic!("one panel frame") };
        for n in 1..40_u64 {
            sender.count = sender.plan.counter.unwrap().next(sender.count);
            let now = Instant::from_millis(n * 20);
            let verdict = table.handle_frame(now, 0, &sender.frame().unwrap());
            assert!(matches!(verdict, FeedbackVerdict::Accepted(0)), "frame {n}: {verdict:?}");
        }
        let values: Vec<(&str, f64)> =
            sender.plan.signals.iter().map(|s| s.name.as_str()).zip(sender.values.iter().copied()).collect();
        for expected in [("LEVER", 42.5), ("SEAT", 1.0), ("STEERING_MODE", 1.0), ("BUTTON_HORN", 0.0)] {
            assert!(values.contains(&expected), "{values:?}");
        }
    }
}
