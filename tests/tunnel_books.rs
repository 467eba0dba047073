//! The tunnel's numbers on a real bus and real sockets: every frame of the bus is in one of them, also those that came while
//! nobody was connected, and at the very moment when somebody came or went.
//!
//! One thread plays bus, network and program by turns, so that the moments can be chosen.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test waits for real sockets, with a deadline"
)]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ocpcan::can::{Frame, Id};
use ocpcan::io::canbus::{Accept, BusAddress, Fault, Hub, Port, PortOptions};
use ocpcan::io::tcp::{Connector, Listener};
use ocpcan::safety::allow::AllowList;
use ocpcan::safety::input::StateName;
use ocpcan::threads::tcpcan::{Bus, Count, Counts, Door, Settings, Tunnel};

const PATIENCE: Duration = Duration::from_secs(60);
const VERSION: [u8; 6] = [b'v', 4, 0, 0, 0, 1];
/// A classic frame's message.
const MESSAGE: usize = 18;

/// A bus, and how many frames were put on it.
struct Road {
    hub: Hub,
    port: Port,
    bus: Bus,
    sent: u64,
}

impl Road {
    fn new(name: &str) -> Self {
        let address: BusAddress = format!("sim:{name}{}", std::process::id()).parse().unwrap();
        let BusAddress::Sim(bus) = &address else { panic!("{address}") };
        let hub = Hub::start(bus).unwrap();
        let port = Port::open(&address, &PortOptions::default()).unwrap();
        let bus = Bus { address, accept: Accept::All, fd: true, max_age: Duration::from_millis(250) };
        Self { hub, port, bus, sent: 0 }
    }

    fn send(&mut self) {
        let frame = Frame::data(Id::standard(0x123).unwrap(), &self.sent.to_le_bytes()).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while self.port.try_send(&frame).is_err() {
            assert!(Instant::now() < deadline, "the bus takes nothing");
        }
        self.sent += 1;
    }

    /// Frames that came over the bus since the last call.
    fn received(&self) -> u64 {
        let mut count = 0;
        while self.port.recv(None).unwrap().is_some() {
            count += 1;
        }
        count
    }

    fn settings(&self) -> Settings {
        Settings { buses: vec![self.bus.clone()], coalesce: Duration::ZERO }
    }
}

/// A server in front of the road's bus.
fn serve(road: &Road) -> (Tunnel, std::net::SocketAddr) {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_address().unwrap();
    let doors = vec![Door { listener, allow: AllowList::default(), bus: 0 }];
    (Tunnel::server(road.settings(), doors, None), address)
}

fn turn(tunnel: &mut Tunnel) {
    tunnel.turn(Duration::from_millis(1), &|| StateName::Safe, &mut |_| ());
}

fn turn_until(tunnel: &mut Tunnel, what: &str, mut condition: impl FnMut(&mut Tunnel) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition(tunnel) {
        assert!(Instant::now() < deadline, "{what}: {:?}", tunnel.counts());
        turn(tunnel);
    }
}

/// Frames that were read from the bus, by whomever.
fn seen(counts: &Counts) -> u64 {
    [Count::Unheard, Count::FromBus, Count::BusOverflow].map(|count| counts.get(count)).iter().sum()
}

fn assert_books(counts: &Counts, sent: u64, received: u64) {
    assert_eq!(seen(counts), sent, "{counts:?}");
    assert_eq!(counts.get(Count::FromBus), counts.sum("to peers: "), "{counts:?}");
    let sure = counts.get(Count::ToPeer);
    let perhaps = counts.get(Count::ToPeerUnconfirmed);
    assert!((sure..=sure + perhaps).contains(&received), "{received} received: {counts:?}");
}

/// The peer's side of a connection.
struct Far {
    stream: TcpStream,
    bytes: usize,
}

impl Far {
    fn new(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).unwrap();
        let mut far = Self { stream, bytes: 0 };
        far.stream.write_all(&VERSION).unwrap();
        far
    }

    fn read(&mut self) {
        let mut bytes = [0; 4_096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return,
                Ok(n) => self.bytes += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Cut by the tunnel at its end.
                Err(_) => return,
            }
        }
    }

    /// Whole frames that came.
    fn frames(&self) -> u64 {
        (self.bytes.saturating_sub(VERSION.len()) / MESSAGE) as u64
    }
}

#[test]
fn a_caller_counts_the_frames_of_the_time_without_a_connection() {
    let seed = 0x5EED_0B00_u64;
    println!("seed {seed:#x}");
    let mut x = seed;
    let mut next = |most: u64| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x % most
    };
    let mut road = Road::new("bookc");
    // Bound and not yet listened at by anybody else: the tunnel's first calls wait in its queue, unanswered.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tunnel = Tunnel::client(road.settings(), Connector::new("127.0.0.1", port, seed));
    turn(&mut tunnel);
    let (mut received, mut heard) = (0, 0);
    // Each session is a short one, so the rest before the next grows to 2 s.
    for _ in 0..8 {
        for _ in 0..next(40) {
            road.send();
            turn(&mut tunnel);
        }
        let mut far = None;
        turn_until(&mut tunnel, "a call", |_| {
            far = listener.accept().ok().map(|(stream, _)| Far::new(stream));
            far.is_some()
        });
        let mut far = far.unwrap();
        // Frames come while the version is agreed.
        let agreed = tunnel.counts().get(Count::Connections);
        turn_until(&mut tunnel, "agreed", |tunnel| {
            road.send();
            tunnel.counts().get(Count::Connections) > agreed
        });
        for _ in 0..next(60) {
            road.send();
            turn(&mut tunnel);
            far.read();
        }
        heard = tunnel.counts().get(Count::FromBus);
        // The connection ends with frames on their way.
        far.stream.shutdown(std::net::Shutdown::Write).unwrap();
        let lost = tunnel.counts().get(Count::Lost);
        turn_until(&mut tunnel, "the end", |tunnel| {
            road.send();
            tunnel.counts().get(Count::Lost) > lost
        });
        far.read();
        received += far.frames();
    }
    // The last frame may still be on its way over the bus.
    turn_until(&mut tunnel, "every frame is seen", |tunnel| seen(&tunnel.counts()) == road.sent);
    tunnel.stop();
    let counts = tunnel.counts();
    println!(
        "{} sent, {received} received, {:?}",
        road.sent,
        counts.iter().filter(|(_, n)| *n > 0).collect::<Vec<_>>()
    );
    assert_books(&counts, road.sent, received);
    assert!(heard > 0 && counts.get(Count::Unheard) > 0, "both kinds were there: {counts:?}");
    assert_eq!(counts.get(Count::Connections), 8);
}

#[test]
fn a_server_counts_them_too_and_those_who_say_nothing_keep_nobody_out() {
    let mut road = Road::new("books");
    let (mut tunnel, address) = serve(&road);
    turn(&mut tunnel);
    for _ in 0..100 {
        road.send();
        turn(&mut tunnel);
    }
    turn_until(&mut tunnel, "frames for nobody", |tunnel| tunnel.counts().get(Count::Unheard) == 100);
    // Twenty who say nothing, and one who does, again and again.
    let mut received = 0;
    let mut silent = Vec::new();
    for round in 1..=5 {
        for _ in 0..20 {
            silent.push(TcpStream::connect(address).unwrap());
            turn(&mut tunnel);
        }
        let mut far = Far::new(TcpStream::connect(address).unwrap());
        turn_until(&mut tunnel, "agreed in spite of them", |tunnel| {
            tunnel.counts().get(Count::Connections) == round
        });
        for _ in 0..10 {
            road.send();
        }
        turn_until(&mut tunnel, "ten frames", |_| {
            far.read();
            far.frames() == 10
        });
        received += far.frames();
        drop(far);
        turn_until(&mut tunnel, "the end", |tunnel| tunnel.counts().get(Count::Lost) == round);
        road.send();
    }
    // The last frame may still be on its way over the bus.
    turn_until(&mut tunnel, "every frame is seen", |tunnel| seen(&tunnel.counts()) == road.sent);
    tunnel.stop();
    let counts = tunnel.counts();
    assert_books(&counts, road.sent, received);
    assert!(counts.get(Count::Displaced) >= 80, "{counts:?}");
    assert_eq!(counts.get(Count::RefusedFull), 0, "{counts:?}");
}

/// What a script sends that connects, sends `count` frames and ends.
fn burst(count: u32) -> Vec<u8> {
    let mut bytes = VERSION.to_vec();
    for n in 0..count {
        bytes.extend([b'd', 16, 0x23, 1, 0, 0, 8, 0, 0, 0]);
        bytes.extend(u64::from(n).to_le_bytes());
    }
    bytes
}

#[test]
fn what_a_peer_sent_before_it_closed_in_order_reaches_the_bus() {
    let mut road = Road::new("bookt");
    // Not the matter here, and a busy test machine may hold a frame for longer than the default.
    road.bus.max_age = Duration::from_secs(60);
    let (mut tunnel, address) = serve(&road);
    let mut closed = 0;
    for half in [false, true] {
        for count in [1, 20, 600, 2_000, 4_000] {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(&burst(count)).unwrap();
            if half {
                stream.shutdown(std::net::Shutdown::Write).unwrap();
            }
            let kept = half.then_some(stream);
            closed += 1;
            let mut received = 0;
            turn_until(&mut tunnel, "the end", |tunnel| {
                received += road.received();
                tunnel.counts().get(Count::Lost) == closed
            });
            // What was sent last may still be on its way through the bus's host.
            turn_until(&mut tunnel, "every frame", |_| {
                received += road.received();
                received >= u64::from(count)
            });
            assert_eq!(received, u64::from(count), "half {half}: {:?}", tunnel.counts());
            drop(kept);
        }
    }
    assert_eq!(tunnel.counts().get(Count::ToBusLeft), 0);
}

#[test]
fn a_peer_that_has_closed_holds_its_place_no_longer_than_the_age_limit_and_its_old_frames_are_dropped() {
    let road = Road::new("bookh");
    let (mut tunnel, address) = serve(&road);
    turn(&mut tunnel);
    road.hub.set(Fault::Stall(true)).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&burst(3_000)).unwrap();
    drop(stream);
    turn_until(&mut tunnel, "the end", |tunnel| tunnel.counts().get(Count::Lost) == 1);
    let counts = tunnel.counts();
    assert_eq!(tunnel.peers(), 0);
    assert_eq!(counts.get(Count::FromPeer), counts.sum("from peers: "), "{counts:?}");
    assert_eq!(counts.get(Count::FromPeer), 3_000, "{counts:?}");
    assert!(counts.get(Count::ToBusAged) > 0, "{counts:?}");
    assert_eq!(counts.get(Count::ToBusLeft), 0, "too old, not given up: {counts:?}");
    road.hub.set(Fault::Clear).unwrap();
}

#[test]
fn what_is_left_of_a_connection_that_was_cut_does_not_reach_the_bus() {
    let road = Road::new("bookr");
    let (mut tunnel, address) = serve(&road);
    turn(&mut tunnel);
    road.hub.set(Fault::Stall(true)).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&burst(3_000)).unwrap();
    turn_until(&mut tunnel, "read", |tunnel| tunnel.counts().get(Count::FromPeer) == 3_000);
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger).unwrap();
    drop(stream);
    turn_until(&mut tunnel, "the end", |tunnel| tunnel.counts().get(Count::Lost) == 1);
    let counts = tunnel.counts();
    assert!(counts.get(Count::ToBusLeft) + counts.get(Count::ToBusAged) > 0, "{counts:?}");
    assert_eq!(counts.get(Count::FromPeer), counts.sum("from peers: "), "{counts:?}");
    road.hub.set(Fault::Clear).unwrap();
}

#[test]
fn a_server_that_agrees_and_closes_is_called_at_growing_distances() {
    let road = Road::new("bookg");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tunnel = Tunnel::client(road.settings(), Connector::new("127.0.0.1", port, 0x5EED_0B09));
    let mut ended = Vec::new();
    for _ in 0..6 {
        let mut far = None;
        turn_until(&mut tunnel, "a call", |_| {
            far = listener.accept().ok().map(|(stream, _)| Far::new(stream));
            far.is_some()
        });
        turn_until(&mut tunnel, "agreed", |tunnel| {
            tunnel.counts().get(Count::Connections) > ended.len() as u64
        });
        drop(far);
        turn_until(&mut tunnel, "the end", |tunnel| tunnel.counts().get(Count::Lost) > ended.len() as u64);
        ended.push(Instant::now());
    }
    // 100, 200, 400, 800 and 1,600 ms, each less a quarter at most.
    let took = ended[5].duration_since(ended[0]);
    assert!(took >= Duration::from_millis(2_300), "six calls within {took:?}");
}
