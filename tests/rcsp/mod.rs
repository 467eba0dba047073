//! An RCSP server on a free port of this machine with a small desk behind it, and a client that reads message by message.
//!
//! Owns the server's thread until the value is dropped. Relies on the library's server as the gateway runs it. Never waits
//! without a deadline.

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "it starts threads, waits with deadlines, and ends the test where something does not come"
)]

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ocpcan::io::tcp::Listener;
use ocpcan::proto::rcsp::envelope;
use ocpcan::threads::rcsp::{Answer, Asked, Counts, Desk, Door, ErrorCode, Event, Server, Service};
use ocpcan::time;
use serde_json::{Map, Value, json};

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Time between two looks at what cannot be waited on.
const LOOK: Duration = Duration::from_millis(1);

/// Asks until the answer is yes.
pub fn until(what: &str, mut ask: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !ask() {
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::sleep(LOOK);
    }
}

/// The members of an object.
pub fn object(value: Value) -> Map<String, Value> {
    let Value::Object(members) = value else { panic!("{value}") };
    members
}

/// Random numbers whose seed is printed: `OCPCAN_SEED`, or the time.
pub struct Random(pub u64);

impl Random {
    pub fn from_environment() -> Self {
        let seed = std::env::var("OCPCAN_SEED").ok().map_or_else(
            || {
                let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                since.unwrap().subsec_nanos().into()
            },
            |text| text.parse().expect("OCPCAN_SEED is a number"),
        );
        println!("OCPCAN_SEED={seed}");
        Self(seed)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

/// What a test and the server's thread share.
#[derive(Default)]
pub struct Shared {
    end: AtomicBool,
    /// Events for the next turn.
    events: Mutex<Vec<Event>>,
    /// One more event in every turn.
    pub noise: AtomicBool,
    pub counts: Mutex<Counts>,
    pub doors: Mutex<Vec<Door>>,
    /// Commands that wait at the desk.
    pub open: AtomicUsize,
    /// Commands that were carried out or begun.
    pub asked: AtomicU64,
    /// Whether the last client that asked was on the loopback address.
    pub local: AtomicBool,
}

/// A desk with two devices. `Now` answers its arguments at once, `Later` after a random time below `Ms`, `Never` never, `Big`
/// with that many `Bytes`, `No` with a refusal.
pub struct TestDesk {
    shared: Arc<Shared>,
    random: Random,
    tickets: u64,
    open: BTreeMap<u64, (time::Instant, Map<String, Value>)>,
    turns: u64,
}

impl TestDesk {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, random: Random::from_environment(), tickets: 0, open: BTreeMap::new(), turns: 0 }
    }

    fn ticket(&mut self, at: time::Instant, response: Map<String, Value>) -> Answer {
        self.tickets += 1;
        self.open.insert(self.tickets, (at, response));
        self.shared.open.store(self.open.len(), Ordering::SeqCst);
        Answer::Pending(self.tickets)
    }
}

impl Desk for TestDesk {
    fn knows_command(&self, command: &str) -> bool {
        ["ListDevices", "GetDeviceInfo", "Now", "Later", "Never", "Big", "No"].contains(&command)
    }

    fn answer(&mut self, now: time::Instant, asked: &Asked<'_>) -> Answer {
        self.shared.asked.fetch_add(1, Ordering::SeqCst);
        self.shared.local.store(asked.local, Ordering::SeqCst);
        let number = |key: &str| asked.arguments.get(key).and_then(Value::as_u64).unwrap_or(0);
        let devices = || object(json!({"Devices": [{"DeviceId": "can0"}, {"DeviceId": "ecu-brake"}]}));
        let info = |device: Option<&str>| object(json!({"DeviceId": device, "State": "up"}));
        let is_slow = self.shared.noise.load(Ordering::SeqCst);
        let response = match asked.command {
            "ListDevices" => devices(),
            "GetDeviceInfo" => info(asked.device),
            "Later" => {
                let after = Duration::from_millis(self.random.below(number("Ms").max(1)));
                return self.ticket(now + after, asked.arguments.clone());
            }
            "Never" => return self.ticket(time::Instant::from_nanos(u64::MAX), Map::new()),
            "Big" => object(json!({"Big": "x".repeat(usize::try_from(number("Bytes")).unwrap())})),
            "No" => return Answer::Refused(ErrorCode::NotPermitted, "not here".to_owned()),
            _ => asked.arguments.clone(),
        };
        // Long enough for some turns, each with its event.
        if is_slow {
            self.ticket(now + Duration::from_millis(60), response)
        } else {
            Answer::Ok(Some(response))
        }
    }

    fn settle(&mut self, now: time::Instant, ticket: u64) -> Option<Answer> {
        let (at, _) = self.open.get(&ticket)?;
        if now < *at {
            return None;
        }
        let (_, response) = self.open.remove(&ticket)?;
        self.shared.open.store(self.open.len(), Ordering::SeqCst);
        Some(Answer::Ok(Some(response)))
    }

    fn forget(&mut self, _: time::Instant, ticket: u64) {
        self.open.remove(&ticket);
        self.shared.open.store(self.open.len(), Ordering::SeqCst);
    }

    fn knows_device(&self, device: &str) -> bool {
        ["can0", "ecu-brake"].contains(&device)
    }

    fn knows_topic(&self, device: Option<&str>, publisher: &str, topic: &str) -> bool {
        publisher == if device.is_some() { "DeviceEvents" } else { "Gateway" } && topic != "Nothing"
    }
}

impl Service for TestDesk {
    fn turn(&mut self, _: time::Instant) -> Vec<Event> {
        let mut events = std::mem::take(&mut *self.shared.events.lock().unwrap());
        if self.shared.noise.load(Ordering::SeqCst) {
            self.turns += 1;
            events.push(event(None, "Noise", json!({"Turn": self.turns})));
        }
        events
    }

    fn told(&mut self, _: time::Instant, door: Door) {
        self.shared.doors.lock().unwrap().push(door);
    }
}

/// An event of the test desk.
pub fn event(device: Option<&str>, topic: &str, data: Value) -> Event {
    let publisher = if device.is_some() { "DeviceEvents" } else { "Gateway" };
    Event {
        publisher: publisher.to_owned(),
        topic: topic.to_owned(),
        device: device.map(str::to_owned),
        data,
    }
}

/// A running server.
pub struct Bench {
    pub address: SocketAddr,
    pub shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Bench {
    pub fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let mut server = Server::new();
        let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_address().unwrap();
        server.listen(listener).unwrap();
        let mut desk = TestDesk::new(Arc::clone(&shared));
        let inside = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while !inside.end.load(Ordering::SeqCst) {
                server.turn(Duration::from_millis(100), &mut desk);
                *inside.counts.lock().unwrap() = server.counts();
            }
            server.stop(&mut desk);
            *inside.counts.lock().unwrap() = server.counts();
        });
        Self { address, shared, thread: Some(thread) }
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    pub fn publish(&self, event: Event) {
        self.shared.events.lock().unwrap().push(event);
    }

    pub fn counts(&self) -> Counts {
        *self.shared.counts.lock().unwrap()
    }

    /// Waits until the counts are so.
    pub fn until(&self, what: &str, wanted: impl Fn(&Counts) -> bool) -> Counts {
        until(what, || wanted(&self.counts()));
        self.counts()
    }

    pub fn stop(&mut self) {
        self.shared.end.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            assert!(result.is_ok() || std::thread::panicking(), "the server's thread has panicked");
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A message as a client sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub kind: u8,
    pub body: Value,
}

impl Message {
    /// `id:ok`, `id:code` or `!topic`.
    pub fn short(&self) -> String {
        let id = match &self.body["TrackId"] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match self.kind {
            2 => format!("{id}:ok"),
            3 => format!("{id}:{}", self.body["Error"]["Code"]),
            _ => format!("!{}", self.body["Topic"].as_str().unwrap()),
        }
    }
}

/// A client that checks what section 9 of the protocol page demands of every message.
pub struct Client {
    pub stream: TcpStream,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends one command.
    pub fn command(&mut self, name: &str, id: &str, arguments: Value) {
        let arguments = (!arguments.is_null()).then(|| object(arguments));
        self.send(&envelope::command(name, id, arguments));
    }

    /// Sends a message of this kind with this body.
    pub fn raw(&mut self, kind: u8, body: &[u8]) {
        self.send(&raw(kind, body));
    }

    /// The next message; none where the server has closed the connection.
    pub fn next(&mut self) -> Option<Message> {
        let mut header = [0; 8];
        let mut have = 0;
        while have < 8 {
            match self.stream.read(&mut header[have..]) {
                Ok(0) => {
                    assert_eq!(have, 0, "the server closed in the middle of a header");
                    return None;
                }
                Ok(n) => have += n,
                Err(error) if error.kind() == ErrorKind::ConnectionReset && have == 0 => return None,
                Err(error) => panic!("nothing comes: {error}"),
            }
        }
        assert_eq!(header[..3], [0xDC, 1, 8]);
        assert!((2..=4).contains(&header[3]), "type {}", header[3]);
        let size = u32::from_le_bytes(header[4..].try_into().unwrap()) as usize;
        assert!(size > 0, "a body is never empty");
        let mut body = vec![0; size];
        self.stream.read_exact(&mut body).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        match header[3] {
            2 => assert!(body.get("Response").is_none_or(Value::is_object), "{body}"),
            3 => assert!(body["Error"].is_object() && body["Error"]["Message"].is_string(), "{body}"),
            _ => {}
        }
        Some(Message { kind: header[3], body })
    }

    pub fn short(&mut self) -> String {
        self.next().map_or_else(|| "closed".to_owned(), |message| message.short())
    }

    /// The next so many, in short.
    pub fn shorts(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.short()).collect()
    }

    /// One command and what comes next.
    pub fn ask(&mut self, name: &str, id: &str, arguments: Value) -> String {
        self.command(name, id, arguments);
        self.short()
    }

    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }
}

/// A message of this kind with this body.
pub fn raw(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xDC, 1, 8, kind];
    bytes.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
    bytes.extend(body);
    bytes
}
