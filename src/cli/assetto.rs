//! `ocpcan assetto`: what a server of Assetto Corsa, or a game, tells.
//!
//! Owns the arguments and the sockets' addresses. Relies on `proto::assetto` for every message. Never sends a command that
//! acts on players unless the command line says so in as many words.

#![allow(clippy::disallowed_methods, reason = "a command waits for its server")]

mod capture;
mod line;
mod listen;
mod send;

use core::fmt;
use core::str::FromStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::path::PathBuf;

use super::{complain, exit};
use crate::proto::assetto::game::PORT as GAME_PORT;

/// Where plugins listen, as in the vendor's example.
const PLUGIN_PORT: u16 = 12_000;

/// Prints what a server or a game of Assetto Corsa tells: one JSON line for each event
///
/// Names and keys are those of Python's acudpclient; `event` and `timestamp` (seconds since 1970) stand in front. With
/// --server, it asks the server for positions and for what it needs to know, again after each new session. Without, it
/// only listens. --game connects to the telemetry of a player's game, the only feed with pedals and steering.
///
/// Exit codes: 0 done, 64 usage, 69 an address that cannot be had, 74 input or output failed, 76 a capture that cannot
/// be read on.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(flatten)]
    place: Place,

    /// The game whose telemetry is received, a host or host:port
    #[arg(long, value_name = "HOST", conflicts_with = "replay")]
    game: Option<String>,

    /// Only events of this car, and those of the whole server
    #[arg(long, value_name = "N")]
    car: Option<u8>,

    /// Period of the positions that the server is asked for
    #[arg(long, value_name = "MS", default_value_t = 250, value_parser = clap::value_parser!(u16).range(10..))]
    interval_ms: u16,

    /// Ends after so many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// Reads a capture instead: pcap, pcapng, or UDP payloads one behind the other
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Send(send::Args),
}

/// Where this end is, and where the server is.
#[derive(Debug, Clone, clap::Args)]
struct Place {
    /// Where the server sends to (its UDP_PLUGIN_ADDRESS): a port, or ip:port. The address is the one that reaches the
    /// server, or loopback [default: 12000]
    #[arg(long, value_name = "PORT")]
    listen: Option<Listen>,

    /// Where the server takes commands (its UDP_PLUGIN_LOCAL_PORT). Events of other hosts are dropped
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,
}

/// A port, with or without the address of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listen {
    ip: Option<IpAddr>,
    port: u16,
}

impl Default for Listen {
    fn default() -> Self {
        Self { ip: None, port: PLUGIN_PORT }
    }
}

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text.parse(), text.parse::<SocketAddr>()) {
            (Ok(port), _) => Ok(Self { ip: None, port }),
            (_, Ok(address)) => Ok(Self { ip: Some(address.ip()), port: address.port() }),
            _ => Err("not a port, and not ip:port"),
        }
    }
}

/// An exit code with its reason.
type Refusal = (u8, String);

/// Why reading or writing ended the command.
fn failed(what: impl fmt::Display, error: &io::Error) -> Refusal {
    (exit::IO, format!("{what}: {error}"))
}

impl Place {
    /// The server's address, if there is one.
    fn server(&self) -> Result<Option<SocketAddr>, Refusal> {
        self.server.as_deref().map(|text| resolve(text, None)).transpose()
    }

    /// The one socket for both directions: servers answer to where they send, and some listen to nobody else.
    fn socket(&self, server: Option<SocketAddr>) -> Result<UdpSocket, Refusal> {
        let Listen { ip, port } = self.listen.unwrap_or_default();
        let ip = match (ip, server) {
            (Some(ip), _) => ip,
            (None, Some(server)) => reaching(server).map_err(|error| unavailable(server, &error))?,
            (None, None) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let address = SocketAddr::new(ip, port);
        UdpSocket::bind(address).map_err(|error| unavailable(address, &error))
    }
}

fn unavailable(address: SocketAddr, error: &io::Error) -> Refusal {
    let mut text = format!("UDP {address}: {error}");
    if error.kind() == io::ErrorKind::AddrInUse {
        text.push_str("; another plugin listens there (--listen PORT takes another one)");
    }
    (exit::UNAVAILABLE, text)
}

/// Resolves a host with a port, or with this one.
fn resolve(text: &str, port: Option<u16>) -> Result<SocketAddr, Refusal> {
    let found = match (text.to_socket_addrs(), port) {
        (Err(_), Some(port)) => (text, port).to_socket_addrs(),
        (result, _) => result,
    };
    let wrong = |why: String| (exit::UNAVAILABLE, format!("{text}: {why}"));
    found.map_err(|e| wrong(e.to_string()))?.next().ok_or_else(|| wrong("no address".to_owned()))
}

/// The address of this machine that a peer sees; asking for it sends nothing.
fn reaching(peer: SocketAddr) -> io::Result<IpAddr> {
    let any =
        if peer.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(peer)?;
    Ok(socket.local_addr()?.ip())
}

/// Runs the command; the exit code comes back.
#[must_use]
pub fn run(args: &Args) -> u8 {
    let result = match (&args.command, &args.replay) {
        (Some(Command::Send(args)), _) => send::run(args),
        (None, Some(file)) => capture::run(args, file),
        (None, None) => listen::run(args),
    };
    result.unwrap_or_else(|(code, text)| {
        complain(&text);
        code
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_end_is_a_port_or_an_address_with_one() {
        assert_eq!("12000".parse(), Ok(Listen::default()));
        let ip = Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)));
        assert_eq!("10.0.0.2:5".parse(), Ok(Listen { ip, port: 5 }));
        assert!("".parse::<Listen>().is_err() && "65536".parse::<Listen>().is_err());
    }

    #[test]
    fn a_game_needs_no_port_and_a_server_does() {
        assert_eq!(resolve("127.0.0.1", Some(GAME_PORT)).unwrap(), "127.0.0.1:9996".parse().unwrap());
        assert_eq!(resolve("127.0.0.1:7", Some(GAME_PORT)).unwrap(), "127.0.0.1:7".parse().unwrap());
        assert_eq!(resolve("127.0.0.1", None).unwrap_err().0, exit::UNAVAILABLE);
        assert_eq!(reaching("127.0.0.1:9".parse().unwrap()).unwrap(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
}
