//! `ocpcan player`: the operator's side without a configuration.
//!
//! Owns the table, the JSON lines and what a person types. Relies on `threads::player` for the connection and on
//! `nodes::station` for who is chosen. Never sends more than the acks and the user data that were asked for.

#![allow(clippy::disallowed_methods, reason = "a command waits for its connection and its keyboard")]

use core::sync::atomic::{AtomicBool, Ordering};
use std::fmt::Write as _;
use std::io::{self, BufRead as _, Write as _};
use std::sync::Arc;

use nix::poll::{PollFd, ppoll};
use nix::sys::time::TimeSpec;
use serde_json::{Value, json};

use super::station::{choice_line, clean, line};
use super::{complain, exit};
use crate::io::clock;
use crate::io::journal::Journal;
use crate::nodes::player::{PlayerNode, Seen};
use crate::nodes::station::{StationNode, StationTimes};
use crate::proto::ocp::player::Dialect;
use crate::signals::station::{ActiveVehicle, StationPlan};
use crate::threads::player::PlayerLine;
use crate::time::{Duration, Instant, millis_f64};
use crate::topology::station::StationNews;

/// Talks to the Player on the operator's computer: shows every vehicle's feedback, returns the acks, sends user data
///
/// The acks close OCP's latency loop; a Player takes data from one source only, so do not run this beside a web view or a
/// plugin that sends data (--listen sends nothing). With --stdin each line is a command: a JSON value becomes the user data,
/// `vehicle NAME` chooses the vehicle, `vehicle` alone the only one there is.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The Player's OCP server
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:4001")]
    connect: String,

    /// The vehicle that gets the gamepad and the user data; needed where several are connected
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    vehicle: Option<String>,

    /// User data for that vehicle, any JSON
    #[arg(long, value_name = "JSON", value_parser = user_data)]
    user_data: Option<Value>,

    /// Tell OCP to ignore the gamepad for that vehicle
    #[arg(long)]
    disable_gamepad: bool,

    /// Send nothing, not even acks
    #[arg(long, conflicts_with_all = ["user_data", "stdin", "disable_gamepad"])]
    listen: bool,

    /// Take commands from standard input
    #[arg(long)]
    stdin: bool,

    /// One JSON object a line, for each feedback message; the newest where several come at once
    #[arg(long)]
    json: bool,

    /// End after that many feedback messages
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
}

fn user_data(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}

/// Longest wait.
const TURN: Duration = Duration::from_millis(20);

/// How often the table is drawn on a terminal, and a line printed elsewhere.
const DRAW: Duration = Duration::from_millis(200);
const LINE: Duration = Duration::from_secs(1);

/// Feedback older than this is shown as stale.
const STALE: Duration = Duration::from_millis(500);

/// Vehicle data older than this are shown as stale.
const DATA_STALE: Duration = Duration::from_secs(1);

/// Longest user data in the table; `--json` has it all.
const DATA_CHARS: usize = 200;

/// What the person wants to be sent.
struct Wish {
    station: StationNode,
    user_data: Value,
}

impl Wish {
    fn take(&mut self, line: &str) -> Result<(), String> {
        let line = line.trim();
        match line.split_once(char::is_whitespace).unwrap_or((line, "")) {
            ("", _) => {}
            ("vehicle", name) => {
                let name = name.trim();
                self.station.choose((!name.is_empty()).then(|| name.to_owned()));
            }
            _ => self.user_data = user_data(line).map_err(|why| format!("{}: {why}", clean(line, 40)))?,
        }
        Ok(())
    }
}

/// Runs the command.
pub(super) fn run(args: &Args) -> u8 {
    let Some((host, port)) = host_and_port(&args.connect) else {
        complain(&format!("--connect takes HOST:PORT, such as 127.0.0.1:4001, not {:?}", args.connect));
        return exit::USAGE;
    };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second one ends it where it stands, for a reader of the output that is stuck.
        let _ = signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop));
        let _ = signal_hook::flag::register(signal, Arc::clone(&stop));
    }
    let plan = StationPlan {
        active: args.vehicle.clone().map_or(ActiveVehicle::Only, ActiveVehicle::Named),
        disable_gamepad: args.disable_gamepad.then_some(true),
        ..StationPlan::default()
    };
    let times = StationTimes { feedback_stale: STALE, data_stale: DATA_STALE };
    let wish = Wish {
        station: StationNode::new(plan, times),
        user_data: args.user_data.clone().unwrap_or_default(),
    };
    let mut player = Player {
        line: PlayerLine::to(&host, port),
        wish,
        log: Journal::stderr(),
        address: args.connect.clone(),
        screen: Screen { lines: 0, is_terminal: super::has_screen() && !args.json },
        drawn_at: Instant::ZERO,
        last: String::new(),
        choice_told: String::new(),
    };
    let lines = args.stdin.then(keyboard);
    let mut seen = 0;
    while !stop.load(Ordering::Relaxed) {
        if let Some(lines) = &lines {
            while let Ok(line) = lines.try_recv() {
                if let Err(why) = player.wish.take(&line) {
                    complain(&why);
                }
                player.line.node.want();
            }
        }
        player.turn(args.listen);
        let now = clock::now();
        let feedback = player.line.node.counters().feedback;
        let is_new = feedback != seen;
        seen = feedback;
        let is_shown = if args.json { is_new.then(|| player.json(now)) } else { player.text(now) };
        if let Some(text) = is_shown
            && let Err(error) = io::stdout().lock().write_all(text.as_bytes())
        {
            // A reader that has seen enough is no error.
            return if error.kind() == io::ErrorKind::BrokenPipe { exit::OK } else { exit::IO };
        }
        if args.count.is_some_and(|count| feedback >= count) {
            break;
        }
    }
    if !args.listen {
        player.goodbye();
    }
    exit::OK
}

/// `HOST:PORT`, `[V6]:PORT`.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port > 0)?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// Lines of standard input, from a thread of its own: it may wait for ever.
pub(super) fn keyboard() -> crossbeam_channel::Receiver<String> {
    let (to, lines) = crossbeam_channel::bounded(16);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if to.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

struct Player {
    line: PlayerLine,
    wish: Wish,
    log: Journal,
    address: String,
    screen: Screen,
    drawn_at: Instant,
    last: String,
    choice_told: String,
}

impl Player {
    /// Waits for the socket and does what is due.
    fn turn(&mut self, listen_only: bool) {
        let now = clock::now();
        let mut news: Vec<StationNews> = Vec::new();
        self.line.connect(&mut |one| news.push(one));
        let wait = self.line.node.due().filter(|_| !listen_only).map_or(TURN, |due| due.since(now).min(TURN));
        let mut fds: Vec<PollFd<'_>> = self.line.poll().into_iter().collect();
        // An interrupt, or an error that the reads will meet as well.
        let _ = ppoll(&mut fds, Some(TimeSpec::from_duration(wait)), None);
        drop(fds);
        let now = clock::now();
        let wish = &mut self.wish;
        let mut compose = |player: &PlayerNode| {
            let mut message = wish.station.message(now, player);
            if let Some(name) = &message.active_vehicle {
                message.vehicles.entry(name.clone()).or_default().user_data = wish.user_data.clone();
            }
            (!listen_only).then_some(message)
        };
        self.line.exchange(now, &mut compose, &mut |one| news.push(one));
        for one in &news {
            self.say(&line(one, &self.address));
        }
        let choice = choice_line(self.wish.station.choice(), "give --vehicle NAME");
        if choice != self.choice_told && self.line.node.feedback_at().is_some() {
            self.say(&choice);
            self.choice_told = choice;
        }
    }

    /// The last message takes the user data back: OCP repeats what it had last.
    fn goodbye(&mut self) {
        let now = clock::now();
        self.wish.user_data = Value::Null;
        let mut message = self.wish.station.message(now, &self.line.node);
        for vehicle in message.vehicles.values_mut() {
            vehicle.user_data = Value::Null;
        }
        if self.line.node.due().is_some() && self.line.node.send(now, &message).is_ok() {
            // What the kernel does not take now is not worth waiting for.
            let _ = self.line.flush();
        }
    }

    fn say(&mut self, text: &str) {
        let _ = io::stdout().lock().write_all(self.screen.erased().as_bytes());
        self.log.line(format_args!("{text}"));
    }

    /// The newest feedback as one line of JSON.
    fn json(&self, now: Instant) -> String {
        let player = &self.line.node;
        let vehicles: serde_json::Map<String, Value> = player
            .connected()
            .iter()
            .filter_map(|name| {
                Some((name.clone(), player.vehicles().get(name)?.feedback.to_json(Dialect::Newer)))
            })
            .collect();
        let age_ms = player.feedback_at().map(|at| millis_f64(now.since(at)).round());
        format!("{}\n", json!({ "vehicle_feedback": vehicles, "age_ms": age_ms }))
    }

    /// The table, where it is time for it.
    fn text(&mut self, now: Instant) -> Option<String> {
        let every = if self.screen.is_terminal { DRAW } else { LINE };
        if now.since(self.drawn_at) < every {
            return None;
        }
        let table = table(&self.line.node, self.wish.station.choice_name(), now);
        if self.screen.is_terminal {
            self.drawn_at = now;
            let mut text = self.screen.erased();
            text.push_str(&table);
            self.screen.lines = table.lines().count();
            return Some(text);
        }
        // Elsewhere only what is new.
        if table == self.last || self.line.node.feedback_at().is_none() {
            return None;
        }
        self.drawn_at = now;
        self.last.clone_from(&table);
        Some(table)
    }
}

/// The table on a terminal.
struct Screen {
    is_terminal: bool,
    lines: usize,
}

impl Screen {
    /// What takes the table away.
    fn erased(&mut self) -> String {
        match std::mem::take(&mut self.lines) {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        }
    }
}

/// Every vehicle that was heard of.
fn table(player: &PlayerNode, chosen: Option<&str>, now: Instant) -> String {
    let mut text = String::new();
    if player.vehicles().is_empty() {
        let what = if player.is_linked() { "connected, no vehicle yet" } else { "not connected" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{what}");
    }
    for (name, seen) in player.vehicles() {
        let is_connected = player.connected().contains(name);
        let mark = if chosen == Some(name) { "*" } else { " " };
        let _ = write!(text, "{mark} {}: ", clean(name, 32));
        vehicle(&mut text, seen, is_connected, now);
    }
    text
}

fn vehicle(text: &mut String, seen: &Seen, is_connected: bool, now: Instant) {
    let age = now.since(seen.at);
    let feedback = &seen.feedback;
    if !is_connected || age > STALE {
        let _ = writeln!(text, "STALE, last feedback {:.1} s ago", age.as_secs_f64());
        return;
    }
    match feedback.message_latency_roundtrip {
        Some(ms) => drop(write!(text, "round trip {ms} ms")),
        None => text.push_str("round trip unknown"),
    }
    let _ = write!(text, ", ping {} ms", feedback.ping_latency_ms);
    if feedback.is_monitor == Some(true) {
        text.push_str(", monitor only");
    }
    let faults: Vec<String> = feedback
        .sender_fault
        .iter()
        .map(|fault| format!("operator {}", clean(fault, 40)))
        .chain(feedback.receiver_fault.iter().map(|fault| format!("vehicle {}", clean(fault, 40))))
        .collect();
    let faults = if faults.is_empty() { "none".to_owned() } else { faults.join(", ") };
    let _ = writeln!(text, ", faults: {faults}");
    if let Some(cameras) = feedback.missing_cameras.as_ref().filter(|cameras| !cameras.is_empty()) {
        let _ = writeln!(text, "    no picture: {}", clean(&cameras.join(", "), DATA_CHARS));
    }
    let Some(data) = &feedback.vehicle_data else {
        let _ = writeln!(text, "    no vehicle data");
        return;
    };
    let data_age = Duration::from_millis(feedback.ms_since_last_vehicle_data);
    let stale = if data_age > DATA_STALE { "STALE, " } else { "" };
    let _ = writeln!(
        text,
        "    vehicle data, {stale}{} ms old: {}",
        feedback.ms_since_last_vehicle_data,
        clean(&data.user_data.to_string(), DATA_CHARS)
    );
    if let Some((lat, lon)) = data.pos {
        let _ = writeln!(text, "    position {lat:.6} {lon:.6}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_taken_apart() {
        assert_eq!(host_and_port("127.0.0.1:4001"), Some(("127.0.0.1".to_owned(), 4001)));
        assert_eq!(host_and_port("[::1]:4001"), Some(("::1".to_owned(), 4001)));
        assert_eq!(host_and_port("desk:1"), Some(("desk".to_owned(), 1)));
        for wrong in ["", "desk", ":4001", "desk:", "desk:0", "desk:65536", "desk:port"] {
            assert_eq!(host_and_port(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_table_says_what_is_stale_and_shows_no_control_character() {
        let mut player = PlayerNode::new();
        let at = |ms: u64| Instant::from_millis(10_000 + ms);
        player.handle_connected(at(0));
        assert_eq!(table(&player, None, at(0)), "connected, no vehicle yet\n");
        let body = json!({ "vehicle_feedback": { "a\u{1b}[2J": {
            "ping_latency_ms": 3, "ms_since_last_vehicle_data": 1_500, "ack_time": 1, "ack_time_mac": 2,
            "sender_fault": ["Input\u{9b}Lost"], "receiver_fault": ["High Latency"],
            "vehicle_data": { "pos": { "lat": 57.7, "lon": 11.9 }, "user_data": { "speed": 1.5 } },
        } } });
        let bytes = crate::proto::ocp::server::frame(body.to_string().as_bytes());
        player.spare()[..bytes.len()].copy_from_slice(&bytes);
        player.commit(bytes.len());
        while player.poll_event(at(1)).is_some() {}
        let expected = concat!(
            "  a?[2J: round trip unknown, ping 3 ms, faults: operator Input?Lost, vehicle High Latency\n",
            "    vehicle data, STALE, 1500 ms old: {\"speed\":1.5}\n",
            "    position 57.700000 11.900000\n",
        );
        assert_eq!(table(&player, None, at(2)), expected);
        assert_eq!(table(&player, None, at(601)), "  a?[2J: STALE, last feedback 0.6 s ago\n");
        player.handle_disconnected();
        assert_eq!(table(&player, None, at(3)), "  a?[2J: STALE, last feedback 0.0 s ago\n");
    }
}
