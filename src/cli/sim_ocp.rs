//! `ocpcan sim ocp`: the whole of OCP, simulated.
//!
//! Owns the command's arguments and its lines. Relies on [`crate::sim::live::ocp`]. Never decides what the simulator
//! does: the script, the keyboard and the control port do.

#![allow(clippy::disallowed_methods, reason = "a command waits for its simulator")]

mod hand;
mod keys;

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::builder::PossibleValuesParser;
use crossbeam_channel::RecvTimeoutError;

use crate::io::clock;
use crate::sim::live::ocp::{LiveOptions, OcpSimHandle};
use crate::sim::ocp::options::SETTINGS;
use crate::sim::ocp::{Endpoint, Options, Profile, command};
use crate::time::millis_f64;

/// Longest time until an interrupt is noticed.
const TURN: Duration = Duration::from_millis(100);

/// Longest time between two looks at the events while keys are waited for.
const KEY_TURN: Duration = Duration::from_millis(50);

/// Exit codes, as in sysexits.
const USAGE: u8 = 64;
const UNAVAILABLE: u8 = 69;
const IO: u8 = 74;

/// Plays the operator's Player, the vehicles' Streamers and the radio between: both OCP servers with all their faults.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Where the gateway connects, for one vehicle of the name "example"
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4000", conflicts_with = "vehicles")]
    listen: SocketAddr,

    /// A vehicle and where its gateway connects; once for each vehicle
    #[arg(long = "vehicle", value_name = "NAME=ADDR")]
    vehicles: Vec<String>,

    /// Where an operator's software connects, or "none" for no such server
    #[arg(long, value_name = "ADDR|none", default_value = "127.0.0.1:4001", value_parser = player_address)]
    player: PlayerAddress,

    /// A control port that takes the same lines as a script (loopback only)
    #[arg(long, value_name = "ADDR")]
    control: Option<SocketAddr>,

    /// Commands to run from the start, one a line
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,

    /// Ends when the script does
    #[arg(long, requires = "script")]
    end_with_script: bool,

    /// Reads commands from standard input even where that is no terminal
    #[arg(long)]
    stdin: bool,

    /// Drives with single keys on a terminal (arrows, space, Enter) instead of lines
    #[arg(long, conflicts_with = "stdin")]
    keys: bool,

    /// Drives with a real gamepad: a path such as /dev/input/event5, or "auto" for the only one there is
    #[arg(long, value_name = "PATH|auto")]
    gamepad: Option<PathBuf>,

    /// Version of the vendor's software to play
    #[arg(long, value_name = "NAME", default_value = "2026-05", value_parser = PossibleValuesParser::new(Profile::NAMES))]
    profile: String,

    /// Changes one setting: NAME=VALUE; `--set help` lists them
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,

    /// Lists the commands and ends
    #[arg(long)]
    commands: bool,
}

/// The address of the Player's server, if it shall have one.
type PlayerAddress = Option<SocketAddr>;

fn player_address(text: &str) -> Result<PlayerAddress, String> {
    if text == "none" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| "an address as 127.0.0.1:4001, or none".to_owned())
}

/// Runs the command; the exit code comes back.
#[must_use]
pub fn run(args: &Args) -> u8 {
    if args.commands {
        return print(&command::help());
    }
    if args.settings.iter().any(|setting| setting == "help") {
        return print(&SETTINGS.iter().map(|setting| format!("{setting}\n")).collect::<String>());
    }
    let (options, listen) = match options(args) {
        Ok(options) => options,
        Err(error) => return fail(USAGE, &error),
    };
    let script = match args.script.as_ref().map(std::fs::read_to_string).transpose() {
        Ok(script) => script.unwrap_or_default(),
        Err(error) => return fail(IO, &format!("cannot read the script: {error}")),
    };
    if args.keys && !io::stdin().is_terminal() {
        return fail(USAGE, "--keys needs a terminal; --stdin reads lines from anywhere");
    }
    let live = LiveOptions {
        listen,
        player: args.player,
        control: args.control,
        script,
        stdin: args.stdin || (!args.keys && io::stdin().is_terminal()),
        ends_with_script: args.end_with_script,
    };
    let hand = match args.gamepad.as_deref().map(hand::Hand::take).transpose() {
        Ok(hand) => hand,
        Err(error) => return fail(UNAVAILABLE, &error.to_string()),
    };
    match OcpSimHandle::start(&live, options) {
        Ok(sim) => show(sim, args.keys, hand),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => fail(USAGE, &error.to_string()),
        Err(error) => fail(UNAVAILABLE, &error.to_string()),
    }
}

/// The settings, and an address for each vehicle.
fn options(args: &Args) -> Result<(Options, Vec<SocketAddr>), String> {
    let mut options = Profile::from_name(&args.profile).unwrap_or_default().options();
    for setting in &args.settings {
        let (name, value) =
            setting.split_once('=').ok_or_else(|| format!("--set takes NAME=VALUE, not {setting:?}"))?;
        options.set(name, value).map_err(|error| error.to_string())?;
    }
    if args.vehicles.is_empty() {
        return Ok((options, vec![args.listen]));
    }
    let mut addresses = Vec::new();
    options.vehicles.clear();
    for vehicle in &args.vehicles {
        let (name, address) = vehicle
            .rsplit_once('=')
            .and_then(|(name, address)| Some((name, address.parse().ok()?)))
            .ok_or_else(|| {
                format!("--vehicle takes NAME=ADDR, as loader-7=127.0.0.1:4000, not {vehicle:?}")
            })?;
        // The control language has words.
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(format!("the name of a vehicle is one word, not {name:?}"));
        }
        if options.vehicles.iter().any(|known| known == name) {
            return Err(format!("two vehicles of the name {name:?}"));
        }
        options.vehicles.push(name.to_owned());
        addresses.push(address);
    }
    Ok((options, addresses))
}

/// Prints what happens until the simulator ends or is interrupted.
fn show(sim: OcpSimHandle, with_keys: bool, mut hand: Option<hand::Hand>) -> u8 {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second one ends it where it stands, for a reader of the output that is stuck.
        let _ = signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop));
        let _ = signal_hook::flag::register(signal, Arc::clone(&stop));
    }
    let start = clock::now();
    // A closed output is no reason to leave the gateway without its server.
    let say = |text: String| drop(writeln!(io::stdout().lock(), "{text}"));
    let is_alone = sim.vehicles().count() == 1;
    for (name, address) in sim.vehicles() {
        say(if is_alone {
            format!("listening on {address}")
        } else {
            format!("listening on {address} as {name}")
        });
    }
    if let Some(control) = sim.control_address() {
        say(format!("control on {control}"));
    }
    if let Some(player) = sim.player_address() {
        say(format!("player on {player}"));
    }
    let terminal = if with_keys { keys::RawTerminal::take().ok() } else { None };
    let mut hands = keys::Hands::default();
    if terminal.is_some() {
        say(keys::HELP.to_owned());
    }
    loop {
        let mut turn = TURN;
        if let Some(terminal) = &terminal {
            turn = Duration::ZERO;
            for line in hands.handle_bytes(&terminal.read(KEY_TURN)) {
                say(format!("> {line}"));
                if let Err(error) = sim.say(&line) {
                    say(error.to_string());
                }
            }
        }
        if let Some(hand) = &mut hand {
            turn = Duration::ZERO;
            if let Some(text) = hand.turn(&sim) {
                say(text);
            }
        }
        match sim.events().recv_timeout(turn) {
            Ok((at, endpoint, event)) => {
                let seconds = millis_f64(at.since(start)) / 1e3;
                // The only vehicle needs no name.
                let is_plain = is_alone && endpoint != Endpoint::Player;
                let whose = if is_plain { String::new() } else { format!("{}: ", sim.name(endpoint)) };
                say(format!("{seconds:9.3} {whose}{}", event.line()));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    say(summary(&sim));
    match sim.stop() {
        Ok(()) => 0,
        Err(error) => fail(IO, &error.to_string()),
    }
}

/// What happened in all, one line for each server that had a client.
fn summary(sim: &OcpSimHandle) -> String {
    let seen = sim.overview();
    let is_alone = seen.vehicles.len() == 1;
    let mut lines: Vec<_> = seen
        .vehicles
        .iter()
        .map(|(name, vehicle)| {
            format!(
                "{}{} messages sent, {} responses, {} dropped, {} with a wrong hash",
                if is_alone { String::new() } else { format!("{name}: ") },
                vehicle.sent,
                vehicle.responses,
                vehicle.bad_responses,
                vehicle.bad_macs
            )
        })
        .collect();
    let player = seen.player;
    if player.connections > 0 {
        lines.push(format!(
            "player: {} messages sent, {} client messages, {} dropped",
            player.sent, player.messages, player.bad_messages
        ));
    }
    lines.join("\n")
}

fn print(text: &str) -> u8 {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => 0,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(_) => IO,
    }
}

fn fail(code: u8, text: &str) -> u8 {
    let _ = writeln!(io::stderr().lock(), "ocpcan sim ocp: {text}");
    code
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Cli::try_parse_from(core::iter::once("ocp").chain(line.split_whitespace())).map(|cli| cli.args)
    }

    #[test]
    fn settings_come_on_top_of_the_profile() {
        let args = parse("--profile doc-2.48 --set default_values=zeroed --set seed=9 --listen 127.0.0.1:0")
            .unwrap();
        let (options, listen) = options(&args).unwrap();
        assert_eq!((listen.len(), args.player.map(|player| player.port())), (1, Some(4001)));
        assert_eq!((options.seed, options.missing_cameras, options.loop_not_closed), (9, false, None));
        assert!(super::options(&parse("--set nonsense=1").unwrap()).unwrap_err().contains("unknown setting"));
        assert!(super::options(&parse("--set seed").unwrap()).unwrap_err().contains("NAME=VALUE"));
        parse("--profile 1999").unwrap_err();
        parse("--end-with-script").unwrap_err();
    }

    #[test]
    fn vehicles_have_names_and_addresses() {
        let args = parse("--vehicle a=127.0.0.1:5000 --vehicle b=[::1]:0 --player none").unwrap();
        let (options, listen) = options(&args).unwrap();
        assert_eq!((options.vehicles, listen.len(), args.player), (vec!["a".into(), "b".into()], 2, None));
        for line in ["a", "a=4000", "=127.0.0.1:1", "a=127.0.0.1:1 --vehicle a=127.0.0.1:2"] {
            let args = parse(&format!("--vehicle {line}")).unwrap();
            assert_eq!(run(&args), USAGE, "{line}");
        }
        parse("--vehicle a=127.0.0.1:1 --listen 127.0.0.1:2").unwrap_err();
        parse("--player 4001").unwrap_err();
    }

    #[test]
    fn a_taken_port_is_unavailable_and_a_script_that_is_not_there_an_io_error() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let args = parse(&format!("--player none --listen {}", taken.local_addr().unwrap())).unwrap();
        assert_eq!(run(&args), UNAVAILABLE);
        let args = parse(&format!("--listen 127.0.0.1:0 --player {}", taken.local_addr().unwrap())).unwrap();
        assert_eq!(run(&args), UNAVAILABLE);
        assert_eq!(run(&parse("--listen 127.0.0.1:0 --script /nonexistent").unwrap()), IO);
        assert_eq!(run(&parse("--listen 127.0.0.1:0 --player none --control 0.0.0.0:0").unwrap()), USAGE);
    }
}
