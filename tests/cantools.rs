//! Our signal codec against Python cantools: the same DBC text, the same values, the same bytes.
//!
//! Relies on a Python that has cantools (`OCPCAN_PYTHON`, set by `tests/run`) and fails without one. The databases
//! beyond the example are generated from a seed, which is printed; `OCPCAN_SEED` repeats a run.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test: it starts a process, waits with deadlines and fails by panicking"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime};

use ocpcan::can::{Frame, Id};
use ocpcan::signals::bits::{ByteOrder, Codec, Raw};
use ocpcan::signals::dbc::{Database, Message, Signal};
use serde_json::{Value, json};

/// Messages of the generated databases, and random payloads and value sets for each of them.
const DATABASES: usize = 25;
const MESSAGES: usize = 8;
const ROUNDS: usize = 12;

/// The first answer includes the start of Python; a loaded machine takes seconds for it.
const ANSWER_S: u64 = 60;

/// A Python process that answers with cantools.
struct Peer {
    child: Child,
    input: ChildStdin,
    answers: Receiver<String>,
}

impl Peer {
    fn start() -> Self {
        let python = std::env::var("OCPCAN_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cantools_peer.py");
        let mut child = Command::new(&python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{python} does not start ({e}); set OCPCAN_PYTHON, or use tests/run"));
        let output = BufReader::new(child.stdout.take().unwrap());
        let input = child.stdin.take().unwrap();
        let (send, answers) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        let peer = Self { child, input, answers };
        let hello = peer.answer();
        assert!(
            hello.get("ready").is_some(),
            "this test needs the Python package cantools: {hello}; set OCPCAN_PYTHON, or use tests/run"
        );
        peer
    }

    fn answer(&self) -> Value {
        let line = self.answers.recv_timeout(Duration::from_secs(ANSWER_S)).expect("the Python peer answers");
        serde_json::from_str(&line).expect("the Python peer answers in JSON")
    }

    fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.input, "{request}").expect("the Python peer reads");
        let answer = self.answer();
        assert!(answer.get("error").is_none(), "cantools refuses\n{request}\n{answer}");
        answer
    }

    /// Values by name to payload.
    fn encode(&mut self, message: &str, values: &BTreeMap<String, f64>) -> Vec<u8> {
        let answer = self.ask(&json!({ "encode": message, "values": values }));
        let text = answer["data"].as_str().unwrap();
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    /// Payload to values by name and value names.
    fn decode(&mut self, message: &str, data: &[u8]) -> (BTreeMap<String, f64>, BTreeMap<String, String>) {
        let answer = self.ask(&json!({ "decode": message, "data": hex(data) }));
        let value = |v: &Value| f64::from_bits(u64::from_str_radix(v.as_str().unwrap(), 16).unwrap());
        let values = answer["values"].as_object().unwrap();
        let names = answer["names"].as_object().unwrap();
        (
            values.iter().map(|(k, v)| (k.clone(), value(v))).collect(),
            names.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned())).collect(),
        )
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hex(data: &[u8]) -> String {
    data.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// SplitMix64: small, seedable, and good enough to choose bits.
struct Random(u64);

impl Random {
    fn from_environment() -> Self {
        let seed = std::env::var("OCPCAN_SEED").ok().map_or_else(
            || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos().into(),
            |text| text.parse().expect("OCPCAN_SEED is a number"),
        );
        println!("OCPCAN_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n).unwrap()).unwrap()
    }

    fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// 0 to 1, both ends more often than chance would have it.
    fn share(&mut self) -> f64 {
        match self.below(12) {
            0 => 0.0,
            1 => 1.0,
            _ => (self.next() >> 11) as f64 / (1_u64 << 53) as f64,
        }
    }
}

// --- generated databases

/// Bits of a message that are taken.
type Taken = [bool; 512];

struct Generator<'a> {
    random: &'a mut Random,
    len: usize,
    id: u32,
    signals: String,
    after: String,
    count: usize,
}

impl Generator<'_> {
    /// Places a signal on free bits and writes its line; `false` where there was no room for the one that chance chose.
    fn place(
        &mut self,
        name: &str,
        mux: &str,
        taken: &mut Taken,
        bits: u8,
        raw: Raw,
        scale: (f64, f64),
    ) -> bool {
        let order = self.random.one_of(&[ByteOrder::Little, ByteOrder::Big]);
        for _ in 0..20 {
            let start = u16::try_from(self.random.below(self.len * 8)).unwrap();
            let codec = Codec { start, bits, order, raw, factor: scale.0, offset: scale.1 };
            if !codec.fits(self.len) || codec.bit_positions().any(|b| taken[usize::from(b)]) {
                continue;
            }
            codec.bit_positions().for_each(|b| taken[usize::from(b)] = true);
            let order = if order == ByteOrder::Little { 1 } else { 0 };
            let sign = if raw == Raw::Unsigned { '+' } else { '-' };
            let (factor, offset) = scale;
            let line =
                format!(" SG_ {name} {mux}: {start}|{bits}@{order}{sign} ({factor},{offset}) [0|0] \"\" A");
            writeln!(self.signals, "{line}").unwrap();
            if raw == Raw::Float {
                writeln!(self.after, "SIG_VALTYPE_ {} {name} : {};", self.id, bits / 32).unwrap();
            }
            self.count += 1;
            return true;
        }
        false
    }

    /// A signal of random kind.
    fn any(&mut self, mux: &str, taken: &mut Taken) -> Option<String> {
        let raw = self.random.one_of(&[Raw::Unsigned, Raw::Signed, Raw::Unsigned, Raw::Signed, Raw::Float]);
        let bits = match raw {
            Raw::Float => self.random.one_of(&[32, 64]),
            _ => self
                .random
                .one_of(&[1, 2, 3, 4, 5, 7, 8, 9, 10, 12, 13, 15, 16, 17, 24, 31, 32, 33, 40, 53, 63, 64]),
        };
        let factor = self.random.one_of(&[1.0, 1.0, 0.1, 0.01, 0.5, -0.25, 2.0, 3.0, 1e-7, 0.031_25, 1.7e-3]);
        let offset = self.random.one_of(&[0.0, 0.0, -40.0, 100.5, 7.0, -1e-3]);
        let name = format!("S{}", self.count);
        if !self.place(&name, mux, taken, bits, raw, (factor, offset)) {
            return None;
        }
        if raw != Raw::Float && self.random.below(4) == 0 {
            // Unsigned value tables start at 0; a signed signal of one bit holds 0 and -1 only.
            let one = if raw == Raw::Signed { -1 } else { 1 };
            writeln!(self.after, "VAL_ {} {name} 0 \"zero\" {one} \"unit\" ;", self.id).unwrap();
        }
        Some(name)
    }
}

/// One message: plain, multiplexed, or multiplexed on two levels.
fn generate_message(random: &mut Random, number: usize) -> (String, String) {
    let extended = random.below(2) == 0;
    let raw_id = random.next() & if extended { 0x1FFF_FFFF } else { 0x7FF };
    // The low bits make identifiers of one database different.
    let raw_id = u32::try_from(raw_id).unwrap() & !0xF | u32::try_from(number).unwrap();
    let id = raw_id | if extended { 1 << 31 } else { 0 };
    let len = random.one_of(&[1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8, 12, 16, 20, 24, 32, 48, 64]);
    let kind = if len < 3 { 0 } else { random.below(3) };
    let mut g = Generator { random, len, id, signals: String::new(), after: String::new(), count: 0 };
    let mut taken = [false; 512];
    taken[len * 8..].fill(true);
    if kind > 0 {
        assert!(
            g.place("SWITCH", "M ", &mut taken, 3, Raw::Unsigned, (1.0, 0.0)),
            "an empty message has room"
        );
    }
    for _ in 0..=g.random.below(6) {
        g.any("", &mut taken);
    }
    if kind > 0 {
        for group in 0..=g.random.below(4) {
            let mut own = taken;
            for _ in 0..=g.random.below(3) {
                if let Some(name) = g.any(&format!("m{group} "), &mut own)
                    && kind == 2
                {
                    writeln!(g.after, "SG_MUL_VAL_ {id} {name} SWITCH {group}-{group};").unwrap();
                }
            }
            if kind == 2 && group == 0 && g.place("INNER", "m0M ", &mut own, 4, Raw::Unsigned, (1.0, 0.0)) {
                writeln!(g.after, "SG_MUL_VAL_ {id} INNER SWITCH 0-0;").unwrap();
                for (first, ranges) in [(1, "1-1, 3-5"), (9, "9-9")] {
                    let mut deep = own;
                    if let Some(name) = g.any(&format!("m{first} "), &mut deep) {
                        writeln!(g.after, "SG_MUL_VAL_ {id} {name} INNER {ranges};").unwrap();
                    }
                }
            }
        }
    }
    (format!("BO_ {id} M{number}: {len} A\n{}\n", g.signals), g.after)
}

fn generate_database(random: &mut Random) -> String {
    let mut text = "VERSION \"\"\n\nNS_ :\n\nBS_:\n\nBU_: A\n\n".to_owned();
    let mut after = String::new();
    for number in 0..MESSAGES {
        let (message, rest) = generate_message(random, number);
        text += &message;
        after += &rest;
    }
    // The grammar wants value tables before value types before multiplexing.
    for section in ["VAL_ ", "SIG_VALTYPE_ ", "SG_MUL_VAL_ "] {
        for line in after.lines().filter(|l| l.starts_with(section)) {
            writeln!(text, "{line}").unwrap();
        }
    }
    text
}

// --- comparison

/// A payload whose multiplexors select something: cantools refuses any other.
fn random_payload(random: &mut Random, message: &Message) -> Vec<u8> {
    let mut data: Vec<u8> = (0..message.len).map(|_| random.next().to_le_bytes()[0]).collect();
    for switch in message.signals.iter().filter(|s| s.is_multiplexor && s.name == "SWITCH") {
        choose(random, message, switch, &mut data);
    }
    for switch in message.signals.iter().filter(|s| s.is_multiplexor && s.name != "SWITCH") {
        if switch.is_present(&data) {
            choose(random, message, switch, &mut data);
        }
    }
    data
}

/// Sets a multiplexor to one of the values that select a signal directly below it.
fn choose(random: &mut Random, message: &Message, switch: &Signal, data: &mut [u8]) {
    let below = message.signals.iter().filter_map(|s| s.mux.last().filter(|m| m.switch == switch.name));
    let values: Vec<u64> =
        below.flat_map(|m| m.ranges.iter().flat_map(|(first, last)| *first..=*last)).collect();
    let value = if values.is_empty() { 0 } else { random.one_of(&values) };
    switch.codec.unwrap().encode_raw(data, value).unwrap();
}

/// What the two agree on: the same double, or for integers beyond 53 bits (where Python computes without loss) the
/// same one but for the last places.
fn same(codec: &Codec, ours: f64, theirs: f64) -> bool {
    let whole = codec.factor.fract() == 0.0;
    let beyond = codec.raw != Raw::Float && whole && theirs.abs() >= 9e15;
    ours.to_bits() == theirs.to_bits()
        || ours == theirs
        || (ours.is_nan() && theirs.is_nan())
        || (beyond && ((ours - theirs) / theirs).abs() < 4.5e-16)
}

fn compare_decode(peer: &mut Peer, message: &Message, data: &[u8]) -> usize {
    let (theirs, names) = peer.decode(&message.name, data);
    let mut present = 0;
    for signal in &message.signals {
        let ours = signal.decode(data);
        let place = format!("{}.{} {} {:?}", message.name, signal.name, hex(data), signal.codec);
        match (ours, theirs.get(&signal.name)) {
            (Some(ours), Some(theirs)) => {
                assert!(
                    same(&signal.codec.unwrap(), ours.value, *theirs),
                    "{place}: {} {theirs}",
                    ours.value
                );
                assert_eq!(ours.name, names.get(&signal.name).map(String::as_str), "{place}");
                present += 1;
            }
            (None, None) => {}
            (ours, theirs) => panic!("{place}: present here {}, there {}", ours.is_some(), theirs.is_some()),
        }
    }
    assert_eq!(present, theirs.len(), "{}: cantools knows more signals", message.name);
    present
}

fn compare_encode(random: &mut Random, peer: &mut Peer, message: &Message, template: &[u8]) -> usize {
    let mut data = vec![0; usize::from(message.len)];
    let mut values = BTreeMap::new();
    for signal in &message.signals {
        if !signal.is_present(template) {
            continue;
        }
        let codec = signal.codec.unwrap();
        let value = if signal.is_multiplexor {
            codec.decode(template).unwrap()
        } else {
            random_value(random, &codec)
        };
        codec.encode(&mut data, value).unwrap_or_else(|e| panic!("{} {value}: {e}", signal.name));
        values.insert(signal.name.clone(), value);
    }
    let theirs = peer.encode(&message.name, &values);
    assert_eq!(hex(&data), hex(&theirs), "{} {values:?}\n{:#?}", message.name, message.signals);
    values.len()
}

/// Anything the signal can carry, now and then exactly half way between two raw values.
fn random_value(random: &mut Random, codec: &Codec) -> f64 {
    if codec.raw == Raw::Float {
        return (random.share() - 0.5) * random.one_of(&[1.0, 1e3, 1e-6, 1e30]);
    }
    let (low, high) = codec.raw_range();
    let raw = (low + (high - low) * random.share()).round();
    let raw = if random.below(3) == 0 && raw < high && codec.bits < 50 { raw + 0.5 } else { raw };
    let value = raw * codec.factor + codec.offset;
    // The scaling itself may round a value at the very end of a wide signal out of its range.
    let (min, max) = codec.physical_range();
    if codec.bits > 50 { value * 0.999 + (min + max) * 0.000_5 } else { value }
}

fn compare_database(random: &mut Random, peer: &mut Peer, text: &str, rounds: usize) -> (usize, usize) {
    let database = Database::parse(text).unwrap();
    assert_eq!(database.refused, [], "{text}");
    let answer = peer.ask(&json!({ "load": text }));
    let theirs = answer["messages"].as_object().unwrap();
    assert_eq!(theirs.len(), database.messages.len());
    let (mut encoded, mut decoded) = (0, 0);
    for message in &database.messages {
        let their = &theirs[&message.name];
        assert_eq!(their["id"], message.id.raw());
        assert_eq!(their["extended"], message.id.is_extended());
        assert_eq!(their["length"], message.len);
        assert_eq!(their["signals"].as_array().unwrap().len(), message.signals.len());
        assert!(message.signals.iter().all(|s| s.codec.is_ok()), "{message:?}");
        for _ in 0..rounds {
            let data = random_payload(random, message);
            encoded += compare_encode(random, peer, message, &data);
            decoded += compare_decode(peer, message, &data);
        }
    }
    (encoded, decoded)
}

#[test]
fn the_example_agrees_with_cantools() {
    let mut random = Random::from_environment();
    let mut peer = Peer::start();
    let text = include_str!("../deploy/example.dbc");
    let (encoded, decoded) = compare_database(&mut random, &mut peer, text, 200);
    println!("example.dbc: {encoded} values encoded alike, {decoded} decoded alike");
    assert_eq!(encoded, 200 * (6 + 3 + 5 + 2));
    assert_eq!(decoded, encoded);
    let database = Database::parse(text).unwrap();
    let answer = peer.ask(&json!({ "load": text }));
    for message in &database.messages {
        let cycle = message.cycle.map(|c| c.as_millis());
        assert_eq!(
            answer["messages"][&message.name]["cycle"].as_u64().map(u128::from),
            cycle,
            "{}",
            message.name
        );
    }
    // The frame way into the same numbers.
    let frame = Frame::data(Id::standard(0x101).unwrap(), &[0x5E, 0xEE, 0xE8, 3, 0, 0, 0x11, 0]).unwrap();
    let (theirs, _) = peer.decode("DRIVE_CMD", frame.payload());
    for value in database.decode(&frame).unwrap().values {
        assert_eq!(value.value, theirs[&value.signal.name]);
    }
}

#[test]
fn generated_databases_agree_with_cantools() {
    let mut random = Random::from_environment();
    let mut peer = Peer::start();
    let (mut encoded, mut decoded) = (0, 0);
    let mut seen = [0_usize; 7];
    for _ in 0..DATABASES {
        let text = generate_database(&mut random);
        let (e, d) = compare_database(&mut random, &mut peer, &text, ROUNDS);
        encoded += e;
        decoded += d;
        for message in Database::parse(&text).unwrap().messages {
            seen[0] += usize::from(message.id.is_extended());
            seen[1] += usize::from(message.len > 8);
            for signal in &message.signals {
                let codec = signal.codec.unwrap();
                seen[2] += usize::from(codec.order == ByteOrder::Big);
                seen[3] += usize::from(codec.raw == Raw::Signed);
                seen[4] += usize::from(codec.raw == Raw::Float);
                seen[5] += usize::from(signal.mux.len() == 1);
                seen[6] += usize::from(signal.mux.len() == 2);
            }
        }
    }
    println!("{DATABASES} databases: {encoded} values encoded alike, {decoded} decoded alike");
    println!("extended, longer than 8, big endian, signed, float, multiplexed, nested: {seen:?}");
    assert!(seen.iter().all(|n| *n > 0), "the generator must make every kind: {seen:?}");
}
