//! `ocpcan sim assetto`: a server of Assetto Corsa with cars on a track, and the game of one driver, simulated.
//!
//! Owns the command's arguments and its lines. Relies on [`crate::sim::live::assetto`]. Never decides what the server
//! says.

#![allow(clippy::disallowed_methods, reason = "a command waits for its simulator")]

use core::sync::atomic::{AtomicBool, Ordering};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::station::clean;
use super::{complain, exit};
use crate::io::clock;
use crate::sim::assetto::{CARS_MAX, Options, Overview, Script};
use crate::sim::live::assetto::{AssettoSim, LiveOptions, StartError};
use crate::time::{Duration, Instant};

/// Longest time until an interrupt or a change is noticed.
const TURN: Duration = Duration::from_millis(20);

/// A line at least this often.
const EVERY: Duration = Duration::from_secs(1);

/// Plays Assetto Corsa without the game: a dedicated server with its UDP plugin, and the remote telemetry of one player
///
/// The ports are those of the vendor's example: the server takes commands on 11000 and tells its plugin on 12000. For
/// Python's acudpclient: --listen 127.0.0.1:10001 --plugin 127.0.0.1:10000. The game of the driver in car 0 listens on
/// 9996, as every game.
///
/// A script has one line for each action: wait MS, connect CAR, disconnect CAR, chat CAR TEXT, collide CAR [CAR], halt CAR, go CAR, next,
/// restart, mute, unmute.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Where the server takes the commands of its plugin
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:11000")]
    listen: SocketAddr,

    /// Where the plugin listens: every event goes there, and commands are taken from that IP alone
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:12000")]
    plugin: SocketAddr,

    /// Where the game listens for those who want its telemetry
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9996")]
    game: SocketAddr,

    /// Only the server, without the game
    #[arg(long, conflicts_with = "game")]
    no_game: bool,

    /// Cars that come at the start; two slots more stay empty
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(0..=i64::from(CARS_MAX)))]
    cars: u8,

    /// Sends positions in this period before anybody asks, as AssettoServer does; the original waits for the plugin
    #[arg(long, value_name = "MS", default_value_t = 0)]
    interval_ms: u16,

    /// What happens, from the start; `-` reads it from standard input
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,

    /// No collisions and no cut corners but those of the script
    #[arg(long)]
    no_mishaps: bool,

    /// The same number gives the same world
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Prints nothing but problems
    #[arg(long)]
    quiet: bool,
}

/// Runs the command; the exit code comes back.
#[must_use]
pub fn run(args: &Args) -> u8 {
    match start(args) {
        Ok(sim) => show(args, sim),
        Err((code, text)) => {
            complain(&text);
            code
        }
    }
}

fn start(args: &Args) -> Result<AssettoSim, (u8, String)> {
    let options = LiveOptions {
        listen: args.listen,
        plugin: args.plugin,
        game: (!args.no_game).then_some(args.game),
        world: Options {
            cars: args.cars,
            initial_interval_ms: args.interval_ms,
            has_mishaps: !args.no_mishaps,
            seed: args.seed,
            ..Options::default()
        },
        script: script(args)?,
    };
    AssettoSim::start(options).map_err(|error| {
        let code = if matches!(error, StartError::SameAddress(_)) { exit::USAGE } else { exit::UNAVAILABLE };
        (code, error.to_string())
    })
}

fn script(args: &Args) -> Result<Script, (u8, String)> {
    let Some(file) = &args.script else { return Ok(Script::default()) };
    let text =
        if file.as_os_str() == "-" { io::read_to_string(io::stdin()) } else { std::fs::read_to_string(file) };
    let text = text.map_err(|error| (exit::IO, format!("{}: {error}", file.display())))?;
    Script::parse(&text).map_err(|(at, error)| (exit::USAGE, format!("{}:{at}: {error}", file.display())))
}

/// Prints what happens until it is interrupted.
fn show(args: &Args, mut sim: AssettoSim) -> u8 {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second one ends it where it stands, for a reader of the output that is stuck.
        let _ = signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop));
        let _ = signal_hook::flag::register(signal, Arc::clone(&stop));
    }
    // A closed output is no reason to end the server.
    let say = |text: &str| {
        if !args.quiet {
            drop(writeln!(io::stdout().lock(), "{text}"));
        }
    };
    let game = sim.game_address().map_or_else(String::new, |game| format!(", game on {game}"));
    say(&format!("server on {}, plugin at {}{game}", sim.address(), args.plugin));
    let mut shown: Option<(Instant, String)> = None;
    while !stop.load(Ordering::Relaxed) {
        if !sim.is_running() {
            complain("the simulator has failed");
            return exit::SOFTWARE;
        }
        while let Some(note) = sim.poll_note() {
            say(&clean(&note, 300));
        }
        let (now, seen) = (clock::now(), sim.overview());
        if shown.as_ref().is_none_or(|(at, session)| now >= *at + EVERY || *session != seen.session) {
            say(&line(&seen));
            shown = Some((now, seen.session));
        }
        std::thread::sleep(TURN);
    }
    sim.stop();
    exit::OK
}

/// The world in one line.
fn line(seen: &Overview) -> String {
    let seconds = f64::from(seen.elapsed_ms) / 1_000.0;
    let interval = match seen.interval_ms {
        0 => "not asked for".to_owned(),
        ms => format!("each {ms} ms"),
    };
    let mut text = format!(
        "{} {seconds:6.1} s  {} on the track  positions {interval}  commands {}",
        clean(&seen.session, 80),
        seen.driving,
        seen.commands
    );
    if seen.game_clients > 0 {
        text.push_str(&format!("  game clients {}", seen.game_clients));
    }
    if seen.not_understood > 0 {
        text.push_str(&format!("  not understood {}", seen.not_understood));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_a_plugin_is_waiting_for() {
        let mut seen = Overview {
            session: "Race\u{1b}".to_owned(),
            elapsed_ms: -15_000,
            driving: 4,
            interval_ms: 0,
            commands: 2,
            not_understood: 0,
            game_clients: 0,
        };
        assert_eq!(line(&seen), "Race?  -15.0 s  4 on the track  positions not asked for  commands 2");
        seen.interval_ms = 100;
        seen.not_understood = 3;
        assert!(line(&seen).ends_with("positions each 100 ms  commands 2  not understood 3"));
    }
}
