//! Events as they come.
//!
//! Owns the sockets and the wait for all of them. Relies on [`Client`] and [`GameClient`] for every question. Never takes
//! a datagram of a host that is not the server.

use core::sync::atomic::{AtomicBool, Ordering};
use std::io::{self, BufWriter};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::line::Printer;
use super::{Args, GAME_PORT, Refusal, failed, reaching, resolve, unavailable};
use crate::cli::{complain, exit};
use crate::io::clock;
use crate::nodes::assetto::client::Client;
use crate::nodes::assetto::game::{GameClient, Stream};
use crate::proto::assetto::game::{GameMessage, Request};
use crate::proto::assetto::{Command, Decoder};
use crate::time::{Duration, Instant};

/// Longest wait: bounds how long an interrupt takes.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// The largest message has 5,108 bytes; a longer datagram is cut, and what is cut is trailing.
const DATAGRAM_MAX: usize = 8_192;

/// Datagrams of one socket in one turn: a burst of every car of the largest server.
const BURST: usize = 256;

type Output = Printer<BufWriter<io::Stdout>>;

/// Listens until it is interrupted, has enough, or nobody reads any more.
pub(super) fn run(args: &Args) -> Result<u8, Refusal> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let _ = signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop));
        let _ = signal_hook::flag::register(signal, Arc::clone(&stop));
    }
    let mut output = Printer::new(BufWriter::new(io::stdout()), args.car, args.count);
    let now = clock::now();
    let mut game = args.game.as_deref().map(|host| Game::open(host, now)).transpose()?;
    // Who only wants the game has no server that would talk.
    let has_server = game.is_none() || args.place.server.is_some() || args.place.listen.is_some();
    let mut server = if has_server { Some(Server::open(args, now)?) } else { None };
    let result = turns(&stop, server.as_mut(), game.as_mut(), &mut output);
    if let Some(server) = server {
        server.end();
    }
    if let Some(game) = game {
        game.end();
    }
    match result.and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(failed("stdout", &error)),
        _ => Ok(exit::OK),
    }
}

fn turns(
    stop: &AtomicBool,
    mut server: Option<&mut Server>,
    mut game: Option<&mut Game>,
    output: &mut Output,
) -> io::Result<()> {
    while !stop.load(Ordering::Relaxed) && !output.is_done() {
        let mut due = clock::now() + WAIT_MAX;
        let mut sockets: Vec<&UdpSocket> = Vec::new();
        if let Some(server) = server.as_deref_mut() {
            server.receive(output)?;
            due = due.min(server.ask(clock::now()).unwrap_or(due));
        }
        if let Some(game) = game.as_deref_mut() {
            game.receive(output)?;
            due = due.min(game.ask(clock::now()).unwrap_or(due));
        }
        output.flush()?;
        sockets.extend(server.as_deref().map(|server| &server.socket));
        sockets.extend(
            game.as_deref().into_iter().flat_map(|game| game.streams.iter().map(|(socket, _)| socket)),
        );
        let mut fds: Vec<PollFd<'_>> =
            sockets.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        // A signal ends the wait early, which is no harm.
        let _ = ppoll(&mut fds, Some(TimeSpec::from_duration(due.since(clock::now()))), None);
    }
    Ok(())
}

/// The next datagram, if there is one. An error is the network's answer to a question that nobody took: asked again.
fn receive<'b>(socket: &UdpSocket, bytes: &'b mut [u8]) -> Option<(&'b [u8], SocketAddr)> {
    let (len, from) = socket.recv_from(bytes).ok()?;
    Some((bytes.get(..len)?, from))
}

struct Server {
    socket: UdpSocket,
    /// None where it only listens.
    peer: Option<(SocketAddr, Client)>,
    decoder: Decoder,
    strangers: u64,
}

impl Server {
    fn open(args: &Args, now: Instant) -> Result<Self, Refusal> {
        let address = args.place.server()?;
        let socket = args.place.socket(address)?;
        socket.set_nonblocking(true).map_err(|error| failed("UDP", &error))?;
        let here =
            socket.local_addr().map_or_else(|_| String::new(), |here| format!("listening on UDP {here}"));
        complain(&address.map_or_else(
            || format!("{here}; nothing is asked for without --server"),
            |server| format!("{here}, server {server}"),
        ));
        let peer = address.map(|address| (address, Client::new(now, args.interval_ms, args.car)));
        Ok(Self { socket, peer, decoder: Decoder::default(), strangers: 0 })
    }

    fn receive(&mut self, output: &mut Output) -> io::Result<()> {
        let mut bytes = [0; DATAGRAM_MAX];
        for _ in 0..BURST {
            let Some((datagram, from)) = receive(&self.socket, &mut bytes) else { break };
            if self.peer.as_ref().is_some_and(|(server, _)| server.ip() != from.ip()) {
                self.strangers += 1;
                continue;
            }
            // What is not understood is counted; servers with extensions send it all the time.
            let Ok(event) = self.decoder.handle_datagram(datagram) else { continue };
            output.event(&event, Some(clock::wall_us()))?;
            if let Some((server, client)) = &mut self.peer
                && client.handle_event(clock::now(), &event)
            {
                complain(&format!("{server} answers"));
            }
        }
        Ok(())
    }

    fn ask(&mut self, now: Instant) -> Option<Instant> {
        let (server, client) = self.peer.as_mut()?;
        if client.handle_timeout(now) {
            complain(&format!("{server} is silent; asking again"));
        }
        while let Some(command) = client.poll_transmit(now) {
            send(&self.socket, *server, &command);
        }
        Some(client.poll_timeout())
    }

    fn end(self) {
        if let Some((server, client)) = &self.peer
            && let Some(command) = client.farewell()
        {
            send(&self.socket, *server, &command);
        }
        let c = self.decoder.counters();
        let counts = [
            (c.unknown, "of an unknown type"),
            (c.short, "cut off"),
            (c.empty, "empty"),
            (c.trailing, "with something behind them"),
            (self.strangers, "of other hosts"),
        ];
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            complain(&format!("datagrams {what}: {count}"));
        }
    }
}

/// What the network does not take is asked again after a silence.
fn send(socket: &UdpSocket, server: SocketAddr, command: &Command<'_>) {
    let mut bytes = [0; 64];
    if let Ok(len) = command.encode(&mut bytes)
        && let Some(bytes) = bytes.get(..len)
    {
        let _ = socket.send_to(bytes, server);
    }
}

struct Game {
    address: SocketAddr,
    streams: [(UdpSocket, GameClient); 2],
    not_understood: u64,
}

impl Game {
    fn open(host: &str, now: Instant) -> Result<Self, Refusal> {
        let address = resolve(host, Some(GAME_PORT))?;
        let open = |stream| {
            let socket = UdpSocket::bind((reaching(address)?, 0))?;
            socket.set_nonblocking(true)?;
            Ok((socket, GameClient::new(stream, now)))
        };
        let both = open(Stream::Updates).and_then(|updates| Ok([updates, open(Stream::Laps)?]));
        let streams = both.map_err(|error: io::Error| unavailable(address, &error))?;
        complain(&format!("game {address}"));
        Ok(Self { address, streams, not_understood: 0 })
    }

    fn receive(&mut self, output: &mut Output) -> io::Result<()> {
        let mut bytes = [0; DATAGRAM_MAX];
        for (at, (socket, client)) in self.streams.iter_mut().enumerate() {
            for _ in 0..BURST {
                let Some((datagram, from)) = receive(socket, &mut bytes) else { break };
                if from.ip() != self.address.ip() {
                    continue;
                }
                let Ok(message) = GameMessage::decode(datagram) else {
                    self.not_understood += 1;
                    continue;
                };
                client.handle_message(clock::now(), &message);
                // The second stream's handshake says the same again.
                if at == 0 || !matches!(message, GameMessage::Handshake(_)) {
                    output.message(&message, Some(clock::wall_us()))?;
                }
            }
        }
        Ok(())
    }

    fn ask(&mut self, now: Instant) -> Option<Instant> {
        let [(_, updates), (_, laps)] = &mut self.streams;
        if updates.handle_timeout(now) {
            complain(&format!("game {} is silent; asking again", self.address));
            laps.restart(now);
        }
        laps.handle_timeout(now);
        for (socket, client) in &mut self.streams {
            if let Some(operation) = client.poll_transmit() {
                let _ = socket.send_to(&Request::new(operation).encode(), self.address);
            }
        }
        self.streams.iter().filter_map(|(_, client)| client.poll_timeout()).min()
    }

    fn end(self) {
        for (socket, _) in &self.streams {
            let dismiss = Request::new(crate::proto::assetto::game::Operation::Dismiss);
            let _ = socket.send_to(&dismiss.encode(), self.address);
        }
        if self.not_understood > 0 {
            complain(&format!(
                "datagrams of the game that are none of its messages: {}",
                self.not_understood
            ));
        }
    }
}
