//! Rows of the tunnel: what a peer of the gateway's tcpcan listener can do, on real sockets and threads while it drives.
//!
//! The peers are written here from the protocol's page, without the program's own codec.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use ocpcan::can::{Frame, FrameKind};
use ocpcan::io::canbus::{Port, PortOptions};
use ocpcan::io::clock;
use ocpcan::limits::{TUNNEL_CALLERS, TUNNEL_PEERS};
use ocpcan::nodes::tunnel::Count;
use ocpcan::safety::input::StateName;
use ocpcan::sim::ocp::Options;
use ocpcan::topology::tunnel::What;

use super::rig::{PATIENCE, Rig, wait_for};

const VERSION: [u8; 6] = [b'v', 4, 0, 0, 0, 1];

/// `can_id` words: the flags of `linux/can.h`.
const EXTENDED: u32 = 1 << 31;
const REMOTE: u32 = 1 << 30;
const ERROR: u32 = 1 << 29;

fn classic(word: u32, data: &[u8]) -> Vec<u8> {
    let mut message = vec![b'd', 16];
    message.extend(word.to_le_bytes());
    message.extend([u8::try_from(data.len()).unwrap(), 0, 0, 0]);
    message.extend(data);
    message.resize(18, 0);
    message
}

fn fd(word: u32, len: u8, flags: u8) -> Vec<u8> {
    let mut message = vec![b'd', 72];
    message.extend(word.to_le_bytes());
    message.extend([len, flags, 0, 0]);
    message.resize(74, 0xAB);
    message
}

/// A gateway with a tunnel in front of its bus.
fn gateway(inject: &str) -> (Rig, SocketAddr) {
    // Free now; whoever takes it in between makes the test fail, not pass.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let tunnel = format!("\n[tcpcan.vehicle]\nlisten = \"{address}\"\nframes_per_s = 100\n{inject}\n");
    let mut rig = Rig::with(Options::default(), |text| text + &tunnel);
    rig.wait_until("the tunnel listens", |rig| {
        rig.gateway.tunnel_news.take().is_some_and(|news| matches!(news.what, What::Listening))
    });
    (rig, address)
}

struct Peer {
    stream: TcpStream,
    rest: Vec<u8>,
}

impl Peer {
    fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, rest: Vec::new() }
    }

    fn agreed(address: SocketAddr) -> Self {
        let mut peer = Self::silent(address);
        peer.stream.write_all(&VERSION).unwrap();
        let mut answer = [0; 6];
        wait_for(|| peer.stream.peek(&mut answer).is_ok_and(|n| n == 6), "the version is agreed");
        peer.stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, VERSION);
        peer
    }

    /// Sends if it still can.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The identifiers' words of the frames that came, or `None` at the end of the connection.
    fn words(&mut self) -> Option<Vec<u32>> {
        let mut buffer = [0; 65_536];
        match self.stream.read(&mut buffer) {
            Ok(0) => return None,
            Ok(n) => self.rest.extend(&buffer[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return None,
        }
        let mut words = Vec::new();
        while self.rest.len() >= 2 && self.rest.len() >= 2 + usize::from(self.rest[1]) {
            assert_eq!(self.rest[0], b'd', "{:?}", &self.rest[..2]);
            assert!([16, 72].contains(&self.rest[1]));
            let message: Vec<u8> = self.rest.drain(..2 + usize::from(self.rest[1])).collect();
            words.push(u32::from_le_bytes(message[2..6].try_into().unwrap()));
        }
        Some(words)
    }

    fn wait_closed(&mut self) {
        wait_for(|| self.words().is_none(), "the connection is closed");
    }

    fn wait_word(&mut self, word: u32) {
        wait_for(|| self.words().expect("connected").contains(&word), &format!("{word:x} arrives"));
    }
}

/// What others than the gateway and its vehicle put on the bus.
struct Watch {
    port: Port,
    seen: Vec<Frame>,
}

impl Watch {
    fn new(rig: &Rig) -> Self {
        let options = PortOptions { fd: true, ..PortOptions::default() };
        Self { port: Port::open(&rig.road.address, &options).unwrap(), seen: Vec::new() }
    }

    fn look(&mut self) -> &[Frame] {
        while let Ok(Some(received)) = self.port.recv(None) {
            if !(0x100..0x300).contains(&received.frame.id().raw()) || received.frame.id().is_extended() {
                self.seen.push(received.frame);
            }
        }
        &self.seen
    }

    fn count(&mut self, raw: u32) -> usize {
        self.look().iter().filter(|frame| frame.id().raw() == raw).count()
    }
}

#[test]
fn row_91_and_92_an_actuator_id_never_passes_in_any_encoding_while_driving() {
    let (mut rig, address) = gateway("[tcpcan.vehicle.inject]\nalways = [0x7DF]");
    let from = rig.drive();
    let mut watch = Watch::new(&rig);
    for raw in [0x101, 0x102] {
        for message in [
            classic(raw, &[0; 8]),
            classic(raw, &[]),
            classic(raw | EXTENDED, &[1]),
            classic(raw | REMOTE, &[]),
            classic(raw | ERROR, &[0; 8]),
            fd(raw, 8, 0),
            fd(raw | EXTENDED, 64, 5),
        ] {
            let mut peer = Peer::agreed(address);
            // A frame that may pass shows that the ones before it were looked at.
            let passed = watch.count(0x7DF);
            peer.send(&message);
            peer.send(&classic(0x7DF, &[2, 0x3E, 0]));
            wait_for(|| watch.count(0x7DF) > passed, "the listed frame passes");
        }
    }
    // Bits that an 11-bit identifier does not have: the stream is taken for torn.
    let mut peer = Peer::agreed(address);
    peer.send(&classic(0x101 | 0x800, &[0; 8]));
    peer.wait_closed();
    // Three tries are the last, and the fourth message of the same segment is not even looked at.
    let passed = watch.count(0x7DF);
    let mut peer = Peer::agreed(address);
    let mut burst: Vec<u8> = (0..3).flat_map(|_| classic(0x101, &[0; 8])).collect();
    burst.extend(classic(0x7DF, &[2, 0x3E, 0]));
    peer.send(&burst);
    peer.wait_closed();
    assert_eq!(watch.count(0x7DF), passed);
    assert_eq!(rig.road.damaged.load(std::sync::atomic::Ordering::Acquire), 0, "no frame of ours by another");
    assert_eq!(rig.state(), StateName::Armed, "it drives on");
    let sent = rig.road.sent();
    assert!(sent.iter().skip(from).all(|drive| drive.enabled), "undisturbed");
    rig.road.expect_running_counter();
}

#[test]
fn row_91_all_2048_ids_through_a_real_socket_while_driving_and_only_the_listed_one_passes() {
    let (mut rig, address) = gateway("[tcpcan.vehicle.inject]\nalways = [0x7DF]");
    let mut watch = Watch::new(&rig);
    for round in 1..=5 {
        rig.drive();
        let mut peer = Peer::agreed(address);
        let mut refused = 0;
        for raw in 0..2_048 {
            if peer.words().is_none() {
                peer = Peer::agreed(address);
            }
            for message in [classic(raw, &[0; 8]), classic(raw | EXTENDED, &[0; 8]), fd(raw, 8, 0)] {
                if raw != 0x7DF {
                    peer.send(&message);
                    refused += 1;
                }
            }
        }
        let mut last = Peer::agreed(address);
        last.send(&classic(0x7DF, &[2, 0x3E, 0]));
        wait_for(|| watch.count(0x7DF) == round, "the listed id passes");
        let foreign: Vec<&Frame> = watch.look().iter().filter(|frame| frame.id().raw() != 0x7DF).collect();
        assert!(foreign.is_empty(), "{foreign:?}");
        println!("{refused} frames sent, 1 passed");
        if rig.state() == StateName::Armed {
            return;
        }
        rig.expect_trip_of_the_host();
    }
    panic!("the host was too slow five times");
}

#[test]
fn row_93_diagnostics_pass_before_driving_and_not_while_armed() {
    let (mut rig, address) = gateway("[tcpcan.vehicle.inject]\nalways = [0x7DF]\nunless_armed = [0x7E0]");
    let mut watch = Watch::new(&rig);
    let mut peer = Peer::agreed(address);
    rig.wait_until("SAFE or more", |rig| rig.state() != StateName::Init);
    peer.send(&classic(0x7E0, &[2, 0x10, 2]));
    wait_for(|| watch.count(0x7E0) == 1, "it passes before driving");
    rig.drive();
    peer.send(&classic(0x7E0, &[2, 0x11, 1]));
    // To every ECU, and listed for every state: ECU reset, communication control, programming session; a remote request.
    for request in [[2, 0x11, 1], [2, 0x28, 3], [2, 0x10, 2]] {
        peer.send(&classic(0x7DF, &request));
    }
    peer.send(&classic(0x7DF | REMOTE, &[]));
    peer.send(&classic(0x7DF, &[2, 0x01, 0x0D]));
    wait_for(|| watch.count(0x7DF) == 1, "what is always listed and only reads passes while armed");
    let refused =
        rig.gateway.shared.tunnel.iter().find(|(count, _)| *count == Count::RefusedService).unwrap().1;
    assert_eq!(refused, 4, "requests that may change something");
    assert_eq!(watch.count(0x7E0), 1, "an ECU reset while armed");
    assert_eq!(rig.state(), StateName::Armed);
}

#[test]
fn row_94_a_flood_passes_at_its_rate_and_the_drive_goes_on() {
    let (mut rig, address) = gateway("[tcpcan.vehicle.inject]\nalways = [0x7DF]");
    rig.drive();
    let mut watch = Watch::new(&rig);
    let mut peer = Peer::agreed(address);
    let began = clock::now();
    for _ in 0..200 {
        let burst: Vec<u8> = (0..100).flat_map(|_| classic(0x7DF, &[2, 0x3E, 0])).collect();
        peer.send(&burst);
        let _ = watch.look();
    }
    let mut last = Peer::agreed(address);
    let gate = |rig: &Rig| {
        let count = |text: &str| {
            rig.gateway.shared.tunnel.iter().find(|(count, _)| count.text().contains(text)).unwrap().1
        };
        (count("frames read from peers"), count("more than this peer"), count("written to the bus"))
    };
    wait_for(|| gate(&rig).0 == 20_000, "all of them are read");
    let took = clock::now().since(began).as_secs_f64();
    let (_, refused, written) = gate(&rig);
    assert_eq!(refused + written, 20_000, "each is in one of the counters");
    // 100 frames a second and a tenth of a second's worth at once.
    assert!(written as f64 <= 100.0 * took + 11.0, "{written} in {took} s");
    wait_for(|| watch.count(0x7DF) as u64 == written, "what was written is on the bus");
    last.send(&classic(0x100, &[]));
    assert_eq!(rig.state(), StateName::Armed, "it drives on");
    println!("flood of 20,000 frames in {took:.1} s: {written} passed");
}

#[test]
fn row_95_a_peer_that_does_not_read_harms_itself_only() {
    let (mut rig, address) = gateway("");
    rig.drive();
    let deaf = Peer::agreed(address);
    let mut other = Peer::agreed(address);
    let noise = Port::open(&rig.road.address, &PortOptions::default()).unwrap();
    let frame = Frame::data(ocpcan::can::Id::standard(0x400).unwrap(), &[0; 8]).unwrap();
    let dropped = |rig: &Rig| {
        let all = rig.gateway.shared.tunnel.iter();
        all.filter(|(count, _)| count.text().starts_with("to peers: frames dropped"))
            .map(|(_, n)| n)
            .sum::<u64>()
    };
    // More than two kernels' buffers and the queue hold, until the deaf peer's frames are dropped.
    wait_for(
        || {
            for _ in 0..500 {
                let _ = noise.try_send(&frame);
            }
            let _ = other.words();
            dropped(&rig) > 0
        },
        "frames for the deaf peer are dropped",
    );
    for _ in 0..5 {
        other.wait_word(0x101);
    }
    assert_eq!(rig.state(), StateName::Armed, "it drives on");
    drop(deaf);
}

#[test]
fn row_96_what_is_no_tcpcan_is_closed() {
    let (mut rig, address) = gateway("");
    for nonsense in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[b'v', 4, 0, 0, 0, 0],
        &[b'v', 3, 0, 0, 1],
        &[b'v', 255],
        &[b'd', 16],
        &[0],
    ] {
        let mut peer = Peer::silent(address);
        peer.send(nonsense);
        peer.wait_closed();
    }
    for nonsense in [&VERSION[..], &[b'd', 0], &[b'd', 15], &[b'd', 255], b"x"] {
        let mut peer = Peer::agreed(address);
        peer.send(nonsense);
        peer.wait_closed();
    }
    let mut peer = Peer::agreed(address);
    peer.wait_word(0x101);
    rig.wait_until("SAFE or more", |rig| rig.state() != StateName::Init);
}

#[test]
fn row_97_peers_are_limited_and_one_that_says_nothing_is_closed() {
    let (rig, address) = gateway("");
    let mut peers: Vec<Peer> = (1..TUNNEL_PEERS).map(|_| Peer::agreed(address)).collect();
    let mut silent = Peer::silent(address);
    // One that says nothing takes no peer's place.
    peers.push(Peer::agreed(address));
    let mut one_too_many = Peer::silent(address);
    one_too_many.wait_closed();
    silent.wait_closed();
    for peer in &mut peers {
        peer.wait_word(0x101);
    }
    peers.pop();
    let mut next = Peer::silent(address);
    wait_for(
        || {
            // Until the gateway has seen that a place is free.
            next = Peer::silent(address);
            let mut answer = [0; 6];
            next.stream.write_all(&VERSION).is_ok() && next.stream.read_exact(&mut answer).is_ok()
        },
        "the free place",
    );
    next.wait_word(0x101);
    assert!(!rig.gateway.ended());
}

#[test]
fn row_97_those_who_say_nothing_give_way_to_those_who_come_later() {
    let (rig, address) = gateway("");
    let mut peer = Peer::agreed(address);
    let mut silent: Vec<Peer> = (0..4 * TUNNEL_CALLERS).map(|_| Peer::silent(address)).collect();
    let mut late = Peer::agreed(address);
    late.wait_word(0x101);
    peer.wait_word(0x101);
    // The first of them was closed long before its five seconds.
    silent[0].wait_closed();
    assert!(!rig.gateway.ended());
}

#[test]
fn frames_of_one_peer_reach_the_others_and_the_bus_but_not_itself() {
    let (rig, address) = gateway("[tcpcan.vehicle.inject]\nalways = [0x7DF]");
    let mut watch = Watch::new(&rig);
    let (mut one, mut two) = (Peer::agreed(address), Peer::agreed(address));
    // Both have their bus sockets when they see the gateway's own frames.
    one.wait_word(0x101);
    two.wait_word(0x101);
    wait_for(
        || {
            one.send(&classic(0x7DF, &[2, 0x3E, 0]));
            two.words().expect("connected").contains(&0x7DF)
        },
        "the other peer sees it",
    );
    assert!(watch.count(0x7DF) >= 1);
    assert!(watch.look().iter().all(|frame| frame.kind() == FrameKind::Data));
    for _ in 0..5 {
        assert!(!one.words().expect("connected").contains(&0x7DF), "its own frame came back");
    }
}

#[test]
fn row_92_a_frame_of_can_fd_does_not_reach_a_bus_of_classic_controllers() {
    let (mut rig, address) = gateway("[tcpcan.vehicle.inject]\nalways = [0x7DF]\n");
    rig.wait_until("SAFE or more", |rig| rig.state() != StateName::Init);
    let mut watch = Watch::new(&rig);
    let mut peer = Peer::agreed(address);
    peer.send(&fd(0x7DF, 4, 0));
    peer.send(&classic(0x7DF, &[2, 0x3E, 0]));
    wait_for(|| watch.count(0x7DF) > 0, "the classic frame");
    assert_eq!(watch.count(0x7DF), 1);
    assert!(watch.look().iter().all(|frame| matches!(frame.kind(), FrameKind::Data)));
    let refused =
        || rig.gateway.shared.tunnel.iter().find(|(count, _)| *count == Count::BusRefused).unwrap().1;
    wait_for(|| refused() == 1, "it is counted");
}
