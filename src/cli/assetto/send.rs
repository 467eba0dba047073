//! One command to a server.
//!
//! Owns the commands' arguments and the wait for an answer. Relies on the codec for what acts on players. Never sends such
//! a command without `--acts-on-players`.

use std::net::SocketAddr;

use super::{Place, Refusal, failed, unavailable};
use crate::cli::{exit, print};
use crate::io::clock;
use crate::proto::assetto::{Command, Decoder, Event, Text};
use crate::time::Duration;

use super::line::line;

/// Sends one command to a server, prints it, and prints the answer where there is one
///
/// Servers send answers to their plugin's address, so this takes its place: --listen must be that port. Exit codes: 0
/// done, 1 the server answered with an error, 64 usage, 69 no answer, or an address that cannot be had.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,

    /// Allows what drivers notice: chat, kick, and everything that changes a session. Nothing in the protocol asks who
    /// sends it
    #[arg(long, global = true)]
    acts_on_players: bool,

    /// Longest wait for an answer
    #[arg(long, global = true, value_name = "MS", default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout_ms: u64,

    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Asks for the positions of all cars in this period; 0 is off, but never send it to AssettoServer
    Interval { ms: u16 },
    /// Asks who is in a car
    CarInfo { car: u8 },
    /// Asks for a session; without a number, the one that runs
    SessionInfo {
        #[arg(value_parser = clap::value_parser!(i16).range(0..))]
        index: Option<i16>,
    },
    /// Writes to one driver (acts on players)
    Chat { car: u8, text: String },
    /// Writes to every driver (acts on players)
    Broadcast { text: String },
    /// Changes a session; some servers begin it at once (acts on players)
    SetSession {
        index: u8,
        name: String,
        /// 1 practice, 2 qualifying, 3 race
        kind: u8,
        /// 0 where time ends it
        #[arg(long, default_value_t = 0)]
        laps: u32,
        /// Seconds; early ACSM servers read minutes
        #[arg(long, default_value_t = 0)]
        time_s: u32,
        #[arg(long, default_value_t = 0)]
        wait_s: u32,
    },
    /// Throws a driver out (acts on players)
    Kick { car: u8 },
    /// Ends the session, begins the next (acts on players)
    Next,
    /// Begins the session again (acts on players)
    Restart,
    /// What an administrator may type, with its slash (acts on players)
    Admin { text: String },
}

impl What {
    fn command(&self) -> Command<'_> {
        match self {
            Self::Interval { ms } => Command::RealtimePosInterval { interval_ms: *ms },
            Self::CarInfo { car } => Command::GetCarInfo { car_id: *car },
            Self::SessionInfo { index } => Command::GetSessionInfo { session_index: index.unwrap_or(-1) },
            Self::Chat { car, text } => {
                Command::SendChat { car_id: *car, message: Text::from(text.as_str()) }
            }
            Self::Broadcast { text } => Command::BroadcastChat { message: Text::from(text.as_str()) },
            Self::SetSession { index, name, kind, laps, time_s, wait_s } => Command::SetSessionInfo {
                session_index: *index,
                session_name: Text::from(name.as_str()),
                session_type: *kind,
                laps: *laps,
                time_s: *time_s,
                wait_time_s: *wait_s,
            },
            Self::Kick { car } => Command::KickUser { car_id: *car },
            Self::Next => Command::NextSession,
            Self::Restart => Command::RestartSession,
            Self::Admin { text } => Command::AdminCommand { command: Text::from(text.as_str()) },
        }
    }
}

/// Sends the command; the exit code comes back.
pub(super) fn run(args: &Args) -> Result<u8, Refusal> {
    let command = args.what.command();
    let usage = |text: &str| (exit::USAGE, text.to_owned());
    if command.acts_on_players() && !args.acts_on_players {
        return Err(usage("this acts on the players of the server; if it must be, say --acts-on-players"));
    }
    let server = args.place.server()?.ok_or_else(|| usage("--server HOST:PORT is missing"))?;
    let mut bytes = [0; 1_036];
    let len = command.encode(&mut bytes).map_err(|error| usage(&error.to_string()))?;
    let socket = args.place.socket(Some(server))?;
    socket.send_to(&bytes[..len], server).map_err(|error| unavailable(server, &error))?;
    let code = print(&format!("{}\n", command.to_json()));
    if code != exit::OK {
        return Ok(code);
    }
    // The others have no answer; an error of the server would come to its plugin.
    if matches!(command, Command::GetCarInfo { .. } | Command::GetSessionInfo { .. }) {
        return answer(args, &socket, server, &command);
    }
    Ok(exit::OK)
}

fn answer(
    args: &Args,
    socket: &std::net::UdpSocket,
    server: SocketAddr,
    command: &Command<'_>,
) -> Result<u8, Refusal> {
    let end = clock::now() + Duration::from_millis(args.timeout_ms);
    let mut bytes = [0; 8_192];
    let mut decoder = Decoder::default();
    loop {
        let left = end.since(clock::now());
        if left.is_zero() {
            return Err((exit::UNAVAILABLE, format!("{server}: no answer in {} ms", args.timeout_ms)));
        }
        socket.set_read_timeout(Some(left)).map_err(|error| failed("UDP", &error))?;
        // An error is the network's answer, or the end of the wait: the clock decides.
        let Ok((len, from)) = socket.recv_from(&mut bytes) else { continue };
        if from.ip() != server.ip() {
            continue;
        }
        let Ok(event) = decoder.handle_datagram(&bytes[..len]) else { continue };
        let is_answer = match (&event, command) {
            (Event::Error { .. }, _) => true,
            (Event::CarInfo(info), Command::GetCarInfo { car_id }) => info.car_id == *car_id,
            (Event::EarlyCarInfo(info), Command::GetCarInfo { car_id }) => info.car_id == *car_id,
            (Event::SessionInfo(_), Command::GetSessionInfo { .. }) => true,
            _ => false,
        };
        if is_answer {
            let code = print(&line(event.name(), &event.to_json(), Some(clock::wall_us())));
            let is_error = matches!(event, Event::Error { .. });
            return Ok(if code == exit::OK && is_error { exit::NO } else { code });
        }
    }
}
