//! `ocpcan sim vehicle`: a vehicle on a CAN bus, simulated.
//!
//! Owns the command's arguments, its lines, and the refusal of a physical bus. Relies on [`crate::sim::live::vehicle`].
//! Never decides what the vehicle does.

#![allow(clippy::disallowed_methods, reason = "a command waits for its simulator")]

use core::fmt::Write as _;
use core::sync::atomic::{AtomicBool, Ordering};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{complain, exit};
use crate::io::canbus::{BusAddress, Port, PortOptions};
use crate::io::clock;
use crate::signals::dbc::{Database, DbcError};
use crate::sim::live::vehicle::VehicleSim;
use crate::sim::vehicle::{Control, Layout, Snapshot};
use crate::time::{Duration, Instant};

/// Longest time until an interrupt or a change is noticed.
const TURN: Duration = Duration::from_millis(20);

/// A line at least this often.
const EVERY: Duration = Duration::from_secs(1);

/// Plays the vehicle: obeys the commands of the example DBC, reports its state, and brakes by itself without them.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The bus: an interface such as `vcan0`, or a built-in bus `sim:NAME`
    #[arg(long, value_name = "BUS")]
    bus: BusAddress,

    /// Allows a physical bus: nothing on it may mistake these frames for a vehicle's
    #[arg(long)]
    on_real_bus: bool,

    /// Takes the layout from these DBC files instead of the built-in example; the names must be the example's
    #[arg(long, value_name = "FILE", num_args = 1..)]
    dbc: Vec<PathBuf>,

    /// Prints nothing but problems
    #[arg(long)]
    quiet: bool,
}

/// Runs the command; the exit code comes back.
#[must_use]
pub fn run(args: &Args) -> u8 {
    match start(args) {
        Ok(vehicle) => show(args, vehicle),
        Err((code, text)) => {
            complain(&text);
            code
        }
    }
}

fn start(args: &Args) -> Result<VehicleSim, (u8, String)> {
    let layout = layout(&args.dbc)?;
    let unavailable = |text: String| (exit::UNAVAILABLE, text);
    let port = Port::open(&args.bus, &PortOptions::default()).map_err(|e| unavailable(e.to_string()))?;
    let is_virtual = port.facts().is_ok_and(|facts| facts.is_virtual);
    drop(port);
    if !is_virtual && !args.on_real_bus {
        let text = format!(
            "{} is a physical bus; a simulated vehicle belongs on vcan or sim:NAME (--on-real-bus if it must be)",
            args.bus
        );
        return Err((exit::USAGE, text));
    }
    VehicleSim::start_with(&args.bus, layout).map_err(|e| unavailable(e.to_string()))
}

fn layout(files: &[PathBuf]) -> Result<Layout, (u8, String)> {
    if files.is_empty() {
        return Layout::example().map_err(|e| (exit::SOFTWARE, e.to_string()));
    }
    let databases: Vec<Database> = files.iter().map(|file| load(file)).collect::<Result<_, _>>()?;
    Layout::find(&databases).map_err(|e| (exit::CONFIG, e.to_string()))
}

fn load(file: &Path) -> Result<Database, (u8, String)> {
    Database::load(file).map_err(|error| {
        let code = if matches!(error, DbcError::Unreadable(_)) { exit::IO } else { exit::CONFIG };
        (code, format!("{}: {error}", file.display()))
    })
}

/// Prints what the vehicle does until it is interrupted.
fn show(args: &Args, mut vehicle: VehicleSim) -> u8 {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second one ends it where it stands, for a reader of the output that is stuck.
        let _ = signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop));
        let _ = signal_hook::flag::register(signal, Arc::clone(&stop));
    }
    // A closed output is no reason to take the vehicle off the bus.
    let say = |text: &str| drop(writeln!(io::stdout().lock(), "{text}"));
    if !args.quiet {
        say(&format!("vehicle on {}", args.bus));
    }
    let mut shown: Option<(Instant, Control, bool)> = None;
    while !stop.load(Ordering::Relaxed) {
        if !vehicle.is_running() {
            complain("the vehicle simulator has failed");
            return exit::SOFTWARE;
        }
        let (now, seen, connected) = (clock::now(), vehicle.snapshot(), vehicle.is_connected());
        let due = shown.is_none_or(|(at, control, link)| {
            now >= at + EVERY || control != seen.control || link != connected
        });
        if due && !args.quiet {
            say(&line(&seen, connected));
            shown = Some((now, seen.control, connected));
        }
        std::thread::sleep(TURN);
    }
    vehicle.stop();
    exit::OK
}

/// The vehicle in one line.
fn line(seen: &Snapshot, connected: bool) -> String {
    let control = match seen.control {
        Control::Waiting => "waiting",
        Control::Disabled => "disabled",
        Control::Obeying => "obeying",
        Control::TimedOut => "timed out",
    };
    let (motion, c) = (&seen.motion, &seen.counters);
    let mut text = format!(
        "{control:<9} {:5.1} km/h  steer {:+6.1} deg  throttle {:3.0} %  brake {:3.0} %  at {:.6} {:.6}",
        seen.speed_kph(),
        motion.steer_deg,
        seen.pedals.throttle * 100.0,
        seen.pedals.brake * 100.0,
        motion.latitude,
        motion.longitude,
    );
    let problems = [
        ("malformed", c.malformed),
        ("crc", c.crc),
        ("counter", c.counter),
        ("range", c.range),
        ("timeouts", c.timeouts),
        ("mode refused", c.mode_refused),
    ];
    for (name, count) in problems.iter().filter(|(_, count)| *count > 0) {
        // Writing to a string cannot fail.
        let _ = write!(text, "  {name} {count}");
    }
    if !connected {
        text.push_str("  bus lost");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::canbus::{BusName, Hub};

    fn args(bus: &str, dbc: &[&str]) -> Args {
        let dbc = dbc.iter().map(PathBuf::from).collect();
        Args { bus: bus.parse().unwrap(), on_real_bus: false, dbc, quiet: true }
    }

    #[test]
    fn every_refusal_has_its_exit_code() {
        assert_eq!(run(&args("nosuchcan0", &[])), exit::UNAVAILABLE);
        assert_eq!(run(&args("nosuchcan0", &["/nonexistent.dbc"])), exit::IO);
        let root = env!("CARGO_MANIFEST_DIR");
        assert_eq!(run(&args("nosuchcan0", &[&format!("{root}/Cargo.toml")])), exit::CONFIG);
        // A DBC file, but of another vehicle.
        assert_eq!(run(&args("nosuchcan0", &[&format!("{root}/tests/data/dbc/cp1252.dbc")])), exit::CONFIG);
    }

    #[test]
    fn a_built_in_bus_is_taken_and_the_line_says_what_happens() {
        let name = format!("w{}", std::process::id() % 100_000);
        let _hub = Hub::start(&BusName::try_from(name.as_str()).unwrap()).unwrap();
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/example.dbc");
        let vehicle = start(&args(&format!("sim:{name}"), &[example])).unwrap();
        let mut seen = vehicle.snapshot();
        assert!(
            line(&seen, true)
                .starts_with("waiting     0.0 km/h  steer   +0.0 deg  throttle   0 %  brake  60 %")
        );
        seen.counters.crc = 3;
        assert!(line(&seen, false).ends_with("  crc 3  bus lost"), "{}", line(&seen, false));
    }
}
