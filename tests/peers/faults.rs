//! What kills, closes or fools a tcpcan peer, row by row: what Python does beside what ours does, as server and as client.
//!
//! Owns the rows. A row speaks to the program over a plain TCP connection and watches its bus. Relies on `peers/mod.rs`.
//! Whatever the row, our process goes on, the next peer is served, and the bus carries whole frames of this row alone.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::alone;
use crate::peers::{Buses, PATIENCE, Peer, Program, counters, free_port, until};

const VERSION: &[u8] = b"v\x04\0\0\0\x01";

/// A frame that a row means, and the one that proves that a connection lives.
const FRAME: [u8; 18] = *b"d\x10\x23\x01\0\0\x08\0\0\0ABCDEFGH";
const MARKER: [u8; 18] = *b"d\x10\x7f\x07\0\0\x02\0\0\0OK\0\0\0\0\0\0";

/// Longer than any program needs to read what is there: what comes after it is another segment for it.
const APART: Duration = Duration::from_millis(120);

/// So often a row is given to Python's program again if it ends otherwise than the table says: some of its ends are a race
/// between our segments and its own reads. Ours gets one try.
const PYTHON_AGAIN: usize = 3;

/// What becomes of a connection, and of its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The connection goes on.
    Lives,
    /// The connection is closed; the program goes on.
    Closes,
    /// The program ends.
    Dies,
}
use Fate::{Closes, Dies, Lives};

/// How the row leaves the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Fin,
    Reset,
}
use End::{Fin, Open, Reset};

/// One row.
struct Row {
    name: &'static str,
    /// The version is agreed before.
    agreed: bool,
    /// What is sent, each piece in a segment of its own.
    pieces: Vec<Vec<u8>>,
    end: End,
    python: Fate,
    ours: Fate,
    /// Frames of the row that our program writes to its bus.
    written: Vec<[u8; 16]>,
}

fn frame(id: u32, len: u8) -> Vec<u8> {
    let mut bytes = vec![b'd', 16];
    bytes.extend(id.to_le_bytes());
    bytes.extend([len, 0, 0, 0]);
    bytes.extend(*b"ABCDEFGH");
    bytes
}

fn fd_frame(len: u8) -> Vec<u8> {
    let mut bytes = vec![b'd', 72, 0x23, 1, 0, 0, len, 0, 0, 0];
    bytes.resize(74, 0);
    bytes
}

fn data(length: u8) -> Vec<u8> {
    let mut bytes = vec![b'd', length];
    bytes.resize(2 + usize::from(length), 0);
    bytes
}

fn payload() -> [u8; 16] {
    FRAME[2..].try_into().unwrap()
}

/// The rows that hold for a server and for a client.
fn rows() -> Vec<Row> {
    let row = |name, agreed, pieces: &[&[u8]], end, python, ours, written: usize| Row {
        name,
        agreed,
        pieces: pieces.iter().map(|piece| piece.to_vec()).collect(),
        end,
        python,
        ours,
        written: vec![payload(); written],
    };
    let torn = [&FRAME[..12], &FRAME[..], &FRAME[..]].concat();
    let each_byte: Vec<&[u8]> = FRAME.chunks(1).collect();
    let glued = [&FRAME[..], &FRAME[..], &FRAME[..]].concat();
    let mut rows = vec![
        row("one whole frame", true, &[&FRAME], Open, Lives, Lives, 1),
        row("three frames in one segment", true, &[&glued], Open, Lives, Lives, 3),
        row("unknown prefix", true, &[&[b"x\x10", &FRAME[2..]].concat()], Open, Closes, Closes, 0),
        row("unknown prefix, no payload", true, &[b"x\x10"], Open, Dies, Closes, 0),
        row("version again", true, &[VERSION], Open, Closes, Closes, 0),
        row("version of 3 bytes", true, &[b"v\x03\0\0\x01"], Open, Closes, Closes, 0),
        row(
            "1 byte of the header, the rest later",
            true,
            &[&FRAME[..1], &FRAME[1..]],
            Open,
            Closes,
            Lives,
            1,
        ),
        row("header, the payload later", true, &[&FRAME[..2], &FRAME[2..]], Open, Dies, Lives, 1),
        row("payload in two segments", true, &[&FRAME[..9], &FRAME[9..]], Open, Closes, Lives, 1),
        row("each byte in a segment", true, &each_byte, Open, Closes, Lives, 1),
        row("payload cut, then the end", true, &[&FRAME[..9]], Fin, Closes, Closes, 0),
        row("header, then the end", true, &[&FRAME[..2]], Fin, Closes, Closes, 0),
        row("header, then a reset", true, &[&FRAME[..2]], Reset, Dies, Closes, 0),
        row("a frame made of two halves", true, &[&torn], Open, Closes, Closes, 0),
        row("standard id 0x800", true, &[&frame(0x800, 8)], Open, Lives, Closes, 0),
        row("id of ones", true, &[&frame(0x1FFF_FFFF, 8)], Open, Lives, Closes, 0),
        row("length 9", true, &[&frame(0x123, 9)], Open, Lives, Closes, 0),
        row("length 255", true, &[&frame(0x123, 255)], Open, Lives, Closes, 0),
        row("FD length 9", true, &[&fd_frame(9)], Open, Lives, Lives, 0),
        row("FD length 65", true, &[&fd_frame(65)], Open, Lives, Closes, 0),
        row("error frame", true, &[&frame(0x2000_0040, 8)], Open, Lives, Lives, 0),
        row("version 0", false, &[b"v\x04\0\0\0\0"], Open, Closes, Closes, 0),
        row("version 1, little endian", false, &[b"v\x04\x01\0\0\0"], Fin, Closes, Closes, 0),
        row("version of 5 bytes", false, &[b"v\x05\0\0\0\0\x01"], Open, Dies, Closes, 0),
        row("version of no bytes", false, &[b"v\0"], Open, Dies, Closes, 0),
        row("a frame before the version", false, &[&FRAME], Open, Closes, Closes, 0),
        row("text", false, &[b"GET / HTTP/1.1\r\n\r\n"], Open, Closes, Closes, 0),
        row(
            "header of the version, the rest later",
            false,
            &[&VERSION[..2], &VERSION[2..]],
            Open,
            Dies,
            Lives,
            0,
        ),
        row(
            "version and a frame in one segment",
            false,
            &[&[VERSION, &FRAME].concat()],
            Open,
            Lives,
            Lives,
            1,
        ),
    ];
    for (length, name) in [
        (0, "data of 0 bytes"),
        (1, "data of 1 byte"),
        (15, "data of 15"),
        (17, "data of 17"),
        (255, "data of 255"),
    ] {
        rows.push(row(name, true, &[&data(length)], Open, Lives, Closes, 0));
    }
    rows
}

/// The program under test, on a bus that is watched.
struct Bench {
    peer: Peer,
    port: u16,
    /// Where a client calls; none for a server.
    door: Option<TcpListener>,
    buses: Buses,
    bus: Program,
    program: Option<Program>,
}

impl Bench {
    fn new(peer: Peer, is_server: bool) -> Self {
        let door = (!is_server).then(|| TcpListener::bind("127.0.0.1:0").unwrap());
        let port = door.as_ref().map_or_else(free_port, |door| door.local_addr().unwrap().port());
        if let Some(door) = &door {
            door.set_nonblocking(true).unwrap();
        }
        let buses = Buses::new();
        let bus = buses.load(&["--watch", "can0"]);
        Self { peer, port, door, buses, bus, program: None }
    }

    /// The program, started again if a row has ended it.
    fn program(&mut self) -> &mut Program {
        if self.program.as_mut().is_none_or(|program| program.ended().is_some()) {
            let port = self.port.to_string();
            let mut arguments = vec!["can0", "--host", "127.0.0.1", "--port", &port];
            if self.door.is_none() {
                arguments.push("--serve");
            }
            if self.peer == Peer::Ours {
                // A frame is as old as its first byte, and the rows send some in pieces.
                arguments.extend(["--max-age-ms", "5000"]);
            }
            self.program = Some(self.buses.peer(self.peer, None, &arguments));
        }
        self.program.as_mut().unwrap()
    }

    fn has_ended(&mut self) -> bool {
        self.program.as_mut().is_some_and(|program| program.ended().is_some())
    }

    /// A connection with the program, or none once the program has ended.
    fn connect(&mut self) -> Option<TcpStream> {
        let stream = until(PATIENCE, || {
            if self.has_ended() {
                return Some(None);
            }
            let stream = match &self.door {
                None => TcpStream::connect(("127.0.0.1", self.port)).ok(),
                Some(door) => door.accept().ok().map(|(stream, _)| stream),
            };
            stream.map(Some)
        });
        let stream = stream.expect("a connection, or the end of the program")?;
        stream.set_nonblocking(false).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(stream)
    }

    /// Agrees the version; false where the program did not.
    fn agree(&self, stream: &mut TcpStream) -> bool {
        let mut answer = [0; 6];
        stream.write_all(VERSION).is_ok() && stream.read_exact(&mut answer).is_ok() && answer == VERSION
    }

    /// Frames seen on the bus since line `from`, in hex.
    fn seen(&self, from: usize) -> Vec<String> {
        self.bus.lines().split_off(from)
    }

    /// Sends the marker and waits until the bus has it; false where the connection or the program ends instead.
    fn mark(&mut self, stream: &mut TcpStream, from: usize) -> bool {
        let marker = hex(&MARKER[2..]);
        let _ = stream.write_all(&MARKER); // a closed one is noticed by reading
        stream.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
        let arrived = until(PATIENCE, || {
            if self.seen(from).contains(&marker) {
                return Some(true);
            }
            // Whatever it answered before it closed is of no interest.
            match stream.read(&mut [0; 256]) {
                Ok(0) => Some(false),
                Err(error) if error.kind() != ErrorKind::WouldBlock => Some(false),
                _ => None,
            }
        });
        arrived.unwrap_or_else(|| panic!("neither the marker nor an end; {:?}", self.program().lines()))
    }

    /// Runs a row: what became of it, and what the bus saw.
    fn run(&mut self, row: &Row) -> (Fate, Vec<String>) {
        self.program();
        let mut stream = self.connect().expect("a program that runs");
        if self.door.is_some() {
            // A client proposes at once.
            let mut proposal = [0; 6];
            stream.read_exact(&mut proposal).unwrap();
            assert_eq!(proposal, VERSION);
        }
        let from = self.bus.lines().len();
        if row.agreed {
            if self.door.is_some() {
                stream.write_all(VERSION).unwrap();
                // A client that has agreed says nothing, and Python's takes one message at a time.
                std::thread::sleep(APART);
            } else {
                assert!(self.agree(&mut stream), "no agreement");
            }
        }
        for (number, piece) in row.pieces.iter().enumerate() {
            if number > 0 {
                std::thread::sleep(APART); // the stimulus: the rest comes later
            }
            if stream.write_all(piece).is_err() {
                break; // closed already
            }
        }
        let lives = match row.end {
            Open => {
                std::thread::sleep(APART);
                self.mark(&mut stream, from)
            }
            Fin => {
                // The program may have closed already, for what it was sent: then there is nothing left to shut.
                let _ = stream.shutdown(Shutdown::Write);
                drain(&mut stream);
                false
            }
            Reset => {
                std::thread::sleep(APART);
                let linger = libc::linger { l_onoff: 1, l_linger: 0 };
                nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger).unwrap();
                drop(stream);
                return self.after(from);
            }
        };
        if lives {
            return (Lives, self.without_markers(from));
        }
        self.after(from)
    }

    /// The next connection tells whether the program has survived.
    fn after(&mut self, from: usize) -> (Fate, Vec<String>) {
        let fate = loop {
            let Some(mut stream) = self.connect() else { break Dies };
            if self.agree(&mut stream) {
                std::thread::sleep(APART);
                if self.mark(&mut stream, from) {
                    break Closes;
                }
            }
            // A program on its way out still had its listener.
            if until(Duration::from_secs(2), || self.has_ended().then_some(())).is_some() {
                break Dies;
            }
        };
        (fate, self.without_markers(from))
    }

    fn without_markers(&self, from: usize) -> Vec<String> {
        let marker = hex(&MARKER[2..]);
        self.seen(from).into_iter().filter(|line| *line != marker).collect()
    }
}

/// Reads until the other end closes.
fn drain(stream: &mut TcpStream) {
    let mut bytes = [0; 4096];
    while stream.read(&mut bytes).is_ok_and(|count| count > 0) {}
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs every row against both programs in one role.
fn table(is_server: bool) {
    let _alone = alone();
    let mut wrong = Vec::new();
    let mut benches = [Bench::new(Peer::Python, is_server), Bench::new(Peer::Ours, is_server)];
    println!("{:<42} {:<8} {:<8} written by Python / ours", "stimulus", "Python", "ours");
    for row in rows() {
        let [python, ours] = &mut benches;
        let (mut python_fate, mut python_wrote) = python.run(&row);
        for _ in 0..PYTHON_AGAIN {
            if python_fate != row.python {
                (python_fate, python_wrote) = python.run(&row);
            }
        }
        let (fate, wrote) = ours.run(&row);
        println!(
            "{:<42} {:<8} {:<8} {} / {}",
            row.name,
            format!("{python_fate:?}"),
            format!("{fate:?}"),
            python_wrote.len(),
            wrote.len()
        );
        if python_fate != row.python {
            wrong.push(format!("{}: Python {python_fate:?}, but the table says {:?}", row.name, row.python));
        }
        let want: Vec<String> = row.written.iter().map(|frame| hex(frame)).collect();
        if fate != row.ours || wrote != want {
            wrong.push(format!(
                "{}: ours {fate:?} and {wrote:?}, wanted {:?} and {want:?}",
                row.name, row.ours
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let status = benches[1].program().terminate();
    assert!(status.success(), "{status}");
    let told = counters(benches[1].program.as_ref().unwrap(), 0);
    println!("{told:#?}");
    assert!(told.contains_key("connections closed, stream torn or not tcpcan"), "{told:#?}");
}

#[test]
fn what_ends_a_python_server_ends_no_server_of_ours() {
    table(true);
}

#[test]
fn what_ends_a_python_client_ends_no_client_of_ours() {
    table(false);
}

#[test]
fn a_higher_version_is_answered_with_ours_and_python_closes() {
    let _alone = alone();
    for (peer, answers) in [(Peer::Python, false), (Peer::Ours, true)] {
        let mut bench = Bench::new(peer, true);
        bench.program();
        let mut stream = bench.connect().unwrap();
        stream.write_all(b"v\x04\0\0\0\x02").unwrap();
        let mut answer = [0; 6];
        let got = stream.read_exact(&mut answer).is_ok();
        println!("version 2 proposed, {peer}: {}", if got { "answers 1" } else { "closes" });
        assert_eq!(got, answers, "{peer}");
        if got {
            assert_eq!(answer, VERSION);
            stream.write_all(VERSION).unwrap();
            stream.write_all(&FRAME).unwrap();
            bench.bus.wait_line(0, PATIENCE, "the frame", |line| line == hex(&FRAME[2..]));
        }
    }
}

/// CPU time that a process has used.
fn cpu(program: &Program) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{}/schedstat", program.pid())).unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn a_silent_peer_and_a_frame_that_waits_cost_no_processor_time() {
    let _alone = alone();
    for is_server in [true, false] {
        for peer in [Peer::Python, Peer::Ours] {
            let mut bench = Bench::new(peer, is_server);
            bench.program();
            let silent = bench.connect().unwrap();
            std::thread::sleep(APART); // it opens its bus after the connection
            bench.bus.say(&hex(&FRAME[2..]));
            let before = cpu(bench.program());
            std::thread::sleep(Duration::from_secs(1)); // the time that is measured
            let used = cpu(bench.program()) - before;
            println!(
                "{peer} {} with a silent peer and one frame: {:.0} ms of processor time in 1 s",
                if is_server { "server" } else { "client" },
                used.as_secs_f64() * 1e3
            );
            match peer {
                Peer::Python => assert!(used > Duration::from_millis(100), "it used to spin: {used:?}"),
                Peer::Ours => {
                    assert!(used < Duration::from_millis(50), "{used:?}");
                    // And the silent one is closed.
                    let mut silent = silent;
                    drain(&mut silent);
                    let mut next = bench.connect().expect("it goes on");
                    assert!(bench.agree(&mut next));
                }
            }
        }
    }
}

#[test]
fn a_bus_that_is_not_there_yet_ends_python_and_ours_waits_for_it() {
    let _alone = alone();
    let buses = Buses::new();
    let port = free_port();
    let arguments = ["can7", "--serve", "--host", "127.0.0.1", "--port", &port.to_string()];
    for peer in [Peer::Python, Peer::Ours] {
        let mut program = buses.peer(peer, None, &arguments);
        let mut stream =
            until(PATIENCE, || TcpStream::connect(("127.0.0.1", port)).ok()).expect("a listener");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        match peer {
            Peer::Python => assert!(!program.finish(PATIENCE).success(), "it used to end"),
            Peer::Ours => {
                let mut answer = [0; 6];
                stream.write_all(VERSION).unwrap();
                stream.read_exact(&mut answer).unwrap();
                stream.write_all(&MARKER).unwrap();
                program.wait_line(0, PATIENCE, "trying again", |line| line.contains("trying again"));
                let bus = buses.load(&["--watch", "can7"]);
                let arrived = until(PATIENCE, || {
                    stream.write_all(&FRAME).unwrap();
                    bus.lines().contains(&hex(&FRAME[2..])).then_some(())
                });
                assert!(arrived.is_some(), "no frame on the new bus; {:?}", program.lines());
                assert!(!bus.lines().contains(&hex(&MARKER[2..])), "a frame from before the bus was there");
                assert!(program.terminate().success());
                let told = counters(&program, 0);
                assert!(told.get("from peers: frames dropped, no bus").is_some_and(|n| *n > 0), "{told:#?}");
            }
        }
    }
}

/// Whole messages at the start of a stream, and whether what follows is the beginning of one more.
fn whole(stream: &[u8]) -> (usize, bool) {
    let mut count = 0;
    let mut rest = stream;
    while rest.len() >= 18 && rest[..2] == *b"d\x10" && rest[6] == 8 {
        count += 1;
        rest = &rest[18..];
    }
    (count, rest.is_empty() || (rest[0] == b'd' && rest.len() < 18 && rest.get(1).is_none_or(|n| *n == 16)))
}

#[test]
fn a_peer_that_stops_reading_gets_whole_frames_or_an_end() {
    let _alone = alone();
    for peer in [Peer::Python, Peer::Ours] {
        let buses = Buses::new();
        let load =
            ["--rate", "8000", "--seconds", "8", "--patient", "--hold", "--idle-ms", "1000", "ca", "cb"];
        let mut load = buses.load(&load);
        let port = free_port();
        let port_text = port.to_string();
        // A busy test machine must not look like a slow peer; four seconds without reading do.
        let extra: &[&str] = if peer == Peer::Ours { &["--max-age-ms", "1000"] } else { &[] };
        let arguments = [&["ca", "--serve", "--host", "127.0.0.1", "--port", &port_text], extra].concat();
        let mut server = buses.peer(peer, None, &arguments);
        let connect = || {
            let mut stream =
                until(PATIENCE, || TcpStream::connect(("127.0.0.1", port)).ok()).expect("a listener");
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(VERSION).unwrap();
            stream.read_exact(&mut [0; 6]).unwrap();
            stream
        };
        // A good peer reads on meanwhile.
        let reader =
            buses.peer(Peer::Ours, None, &["cb", "--host", "127.0.0.1", "--port", &port.to_string()]);
        load.wait_line(0, PATIENCE, "ready", |line| line == "ready");
        let mut stalled = connect();
        load.say("go");
        std::thread::sleep(Duration::from_secs(3)); // the stimulus: it does not read
        let mut stream = Vec::new();
        let ended = loop {
            let mut bytes = vec![0; 1 << 20];
            match stalled.read(&mut bytes) {
                Ok(0) => break "closed",
                Ok(count) => stream.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break "open",
                Err(_) => break "reset",
            }
        };
        load.finish(Duration::from_secs(180));
        // Probes of the load come first, one byte long.
        let probes = stream.chunks(18).take_while(|message| message.len() == 18 && message[6] == 1).count();
        let (count, is_whole) = whole(&stream[probes * 18..]);
        let flow = &crate::peers::flows(&load)[0];
        println!(
            "{peer} to a peer that did not read for 4 s: {} bytes, {count} whole frames, then {}; connection {ended}; the \
             peer beside it: {flow}",
            stream.len(),
            if is_whole { "at most a beginning" } else { "a torn one" },
        );
        // Python tears its stream here, but not each time.
        if peer == Peer::Ours {
            assert!(is_whole);
            assert!(count > 0);
            assert_eq!(["lost", "corrupt", "doubled", "late"].map(|key| flow.count(key)), [0; 4], "{flow}");
            assert!(server.ended().is_none(), "{:?}", server.lines());
            drop(connect());
            assert!(server.terminate().success());
            println!("{:#?}", counters(&server, 0));
        }
        drop(reader);
    }
}

#[test]
fn disconnects_under_load_end_no_server_of_ours() {
    let _alone = alone();
    for peer in [Peer::Python, Peer::Ours] {
        let buses = Buses::new();
        let mut load =
            buses.load(&["--rate", "8000", "--seconds", "8", "--hold", "--idle-ms", "500", "ca", "cb"]);
        let port = free_port().to_string();
        let mut server = buses.peer(peer, None, &["ca", "--serve", "--host", "127.0.0.1", "--port", &port]);
        let reader = buses.peer(Peer::Ours, None, &["cb", "--host", "127.0.0.1", "--port", &port]);
        load.wait_line(0, PATIENCE, "ready", |line| line == "ready");
        load.say("go");
        let mut done = 0;
        while done < 100 && load.ended().is_none() {
            let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port.parse().unwrap())) else { break };
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            if stream.write_all(VERSION).is_err() {
                break;
            }
            // Frames flow, then an end in order, a reset (unread bytes), or half a frame.
            if stream.read_exact(&mut [0; 200]).is_err() {
                break;
            }
            if done % 3 == 1 {
                let _ = stream.write_all(&FRAME[..7]);
            } else if done % 3 == 2 {
                let _ = stream.shutdown(Shutdown::Both);
            }
            done += 1;
        }
        let ended = until(Duration::from_secs(2), || server.ended());
        println!(
            "{done} disconnects at 8,000 frames/s: {peer} {}",
            match ended {
                None => "goes on".to_owned(),
                Some(status) => format!("has ended ({status})"),
            }
        );
        if peer == Peer::Ours {
            assert_eq!((done, ended), (100, None), "{:?}", server.lines());
            // The good peer never noticed.
            load.finish(Duration::from_secs(60));
            let flow = &crate::peers::flows(&load)[0];
            println!("the other peer meanwhile: {flow}");
            assert_eq!(flow.count("corrupt") + flow.count("doubled"), 0, "{flow}");
            assert!(server.terminate().success());
            let told = counters(&server, 0);
            assert_eq!(told.get("connections agreed"), Some(&101), "{told:#?}");
        }
        drop(reader);
    }
}

#[test]
fn term_and_int_end_ours_in_order() {
    let _alone = alone();
    for is_server in [true, false] {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let mut bench = Bench::new(Peer::Ours, is_server);
            bench.program();
            let mut stream = bench.connect().unwrap();
            assert!(bench.agree(&mut stream));
            bench.program().signal(signal);
            let status = bench.program.as_mut().unwrap().finish(PATIENCE);
            assert_eq!(status.code(), Some(0), "{signal}: {status}");
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            assert_eq!(stream.read(&mut [0; 64]).unwrap_or(0), 0, "closed in order");
        }
    }
    let mut bench = Bench::new(Peer::Python, true);
    bench.program();
    bench.connect().unwrap();
    bench.program().signal(Signal::SIGTERM);
    let status = bench.program.as_mut().unwrap().finish(PATIENCE);
    println!("SIGTERM: Python {status}, ours exit status 0");
    assert_eq!(status.code(), None, "it used to end by the signal");
}
