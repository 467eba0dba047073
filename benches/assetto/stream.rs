//! The stream that every reader of the bench gets: datagrams of the simulated server, recorded in virtual time.
//!
//! Owns the datagrams, when each was due, and what each one says. Relies on [`World`] for the first, and on the library's
//! decoder, whose reading must encode to the same bytes again, for the last. Never reads a clock: the same seed gives the
//! same stream.

use std::collections::HashMap;
use std::time::Duration;

use ocpcan::proto::assetto::{Command, Decoder, Dialect, Event, decode};
use ocpcan::sim::assetto::{Kind, Options, SessionPlan, World};
use ocpcan::sim::world::rng::Rng;
use ocpcan::time::Instant;
use serde_json::Value;

/// Cars on the track.
pub const CARS: u8 = 30;

/// Positions of each car, per second.
pub const RATE_HZ: u32 = 60;

/// What the server is asked for: the nearest whole number of milliseconds. The bench plays the stream a little faster
/// than it was recorded, so that it has [`RATE_HZ`].
const INTERVAL_MS: u16 = 17;

/// How long is recorded. Every car has its first lap within it, and at its end a race is announced.
const RECORDED: Duration = Duration::from_millis(86_000);

/// The practice in front of the race: the paced part of the stream has its end, and the laps and the race around it.
const PRACTICE: Duration = Duration::from_secs(82);

/// A message that acudpclient does not know: of servers with extensions, when a car has completed a sector.
const EXTENSION: u8 = 150;

/// Bursts from one extension to the next: three sectors of a lap of a minute, of every car.
const EXTENSION_BURSTS: usize = 40;

/// Datagrams with their times.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    bytes: Vec<u8>,
    places: Vec<Place>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    at: Duration,
    from: usize,
    to: usize,
}

impl Stream {
    /// Records it. The plugin in front of the server asks for positions after each new session and about each driver.
    pub fn record(seed: u64) -> Self {
        let practice = SessionPlan {
            name: "Practice".to_owned(),
            kind: Kind::Practice,
            time: PRACTICE,
            laps: 0,
            wait: Duration::ZERO,
        };
        let race = SessionPlan {
            name: "Race".to_owned(),
            kind: Kind::Race,
            time: Duration::ZERO,
            laps: 5,
            wait: Duration::from_secs(15),
        };
        let begin = Instant::from_millis(1_000);
        let options = Options { cars: CARS, sessions: vec![practice, race], seed, ..Options::default() };
        let mut world = World::new(options, begin);
        let mut stream = Self::default();
        let mut now = begin;
        while now.since(begin) < RECORDED {
            while let Some((_, datagram)) = world.poll_transmit() {
                stream.push(now.since(begin), &datagram);
                match decode(&datagram, Dialect::default()).expect("the server's own words").event {
                    Event::NewSession(_) => {
                        ask(&mut world, now, &Command::RealtimePosInterval { interval_ms: INTERVAL_MS });
                    }
                    Event::ClientLoaded { car_id } => {
                        ask(&mut world, now, &Command::GetCarInfo { car_id });
                    }
                    _ => {}
                }
            }
            now = world.poll_timeout().max(now);
            world.handle_timeout(now);
        }
        stream
    }

    fn push(&mut self, at: Duration, datagram: &[u8]) {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(datagram);
        self.places.push(Place { at, from, to: self.bytes.len() });
    }

    /// How many datagrams it has.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// From the first datagram to the last, as it was recorded.
    pub fn recorded(&self) -> Duration {
        self.places.last().map_or(Duration::ZERO, |last| last.at)
    }

    /// The datagrams in their order.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.places.iter().map(|place| &self.bytes[place.from..place.to])
    }

    /// The datagrams with the time from the first one at which each is due at [`RATE_HZ`].
    pub fn timed(&self) -> impl Iterator<Item = (Duration, &[u8])> {
        let first = self.places.first().map_or(Duration::ZERO, |place| place.at);
        let faster = u32::from(INTERVAL_MS) * RATE_HZ;
        self.places
            .iter()
            .map(move |place| place.at.saturating_sub(first) * 1_000 / faster)
            .zip(self.datagrams())
    }

    /// The end of it, as long as this many bursts of positions.
    pub fn last_bursts(&self, bursts: u32) -> Self {
        let span = Duration::from_millis(u64::from(INTERVAL_MS)) * bursts;
        let after = self.recorded().saturating_sub(span);
        let mut part = Self::default();
        for (place, datagram) in
            self.places.iter().zip(self.datagrams()).filter(|(place, _)| place.at > after)
        {
            part.push(place.at, datagram);
        }
        part
    }

    /// The same with an extension between some bursts. What is in it is made up: no public source has its exact form.
    pub fn with_extensions(&self, seed: u64) -> (Self, usize) {
        let mut rng = Rng::new(seed);
        let mut mixed = Self::default();
        let (mut last, mut bursts, mut extensions) = (None, 0, 0);
        for (place, datagram) in self.places.iter().zip(self.datagrams()) {
            if last.is_some_and(|last| last != place.at) {
                bursts += 1;
                if bursts % EXTENSION_BURSTS == 0 {
                    let car = u8::try_from(rng.range(0, u64::from(CARS) - 1)).expect("a slot");
                    let sector = u8::try_from(rng.range(0, 2)).expect("a sector");
                    let time_ms = u32::try_from(rng.range(15_000, 35_000)).expect("a time");
                    let body = [&[EXTENSION, car, sector][..], &time_ms.to_le_bytes(), &[0]].concat();
                    mixed.push(place.at, &body);
                    extensions += 1;
                }
            }
            last = Some(place.at);
            mixed.push(place.at, datagram);
        }
        (mixed, extensions)
    }

    /// How many there are of each message, the most frequent first.
    pub fn kinds(&self) -> Vec<(&'static str, usize)> {
        let mut kinds: HashMap<&'static str, usize> = HashMap::new();
        for datagram in self.datagrams() {
            let name = decode(datagram, Dialect::default()).map_or("another", |decoded| decoded.event.name());
            *kinds.entry(name).or_default() += 1;
        }
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort_by_key(|(name, count)| (core::cmp::Reverse(*count), *name));
        kinds
    }

    /// What each datagram says, in one form; nothing for those that are no message of the protocol.
    pub fn truth(&self) -> Truth {
        let mut decoder = Decoder::default();
        let mut again = vec![0; 8_192];
        let mut truth = Truth::default();
        for datagram in self.datagrams() {
            let Ok(event) = decoder.handle_datagram(datagram) else { continue };
            let len = event.encode(&mut again).expect("what was decoded");
            assert_eq!(&again[..len], datagram, "{event:?}");
            let mut json = event.to_json();
            json["event"] = event.name().into();
            truth.places.entry(json.to_string()).or_default().push(truth.events);
            truth.events += 1;
        }
        truth
    }

    /// Writes it as a program in another language reads it: for each datagram its length in two bytes, LITTLE endian, and
    /// its bytes.
    pub fn save(&self, path: &std::path::Path) {
        let mut file = Vec::with_capacity(self.bytes.len() + 2 * self.len());
        for datagram in self.datagrams() {
            file.extend(u16::try_from(datagram.len()).expect("a datagram").to_le_bytes());
            file.extend(datagram);
        }
        std::fs::write(path, file).expect("room for the stream");
    }
}

fn ask(world: &mut World, now: Instant, command: &Command<'_>) {
    let mut bytes = [0; 64];
    let len = command.encode(&mut bytes).expect("a short command");
    world.handle_command(now, &bytes[..len]);
}

/// What was said, and where in the order.
#[derive(Debug, Default)]
pub struct Truth {
    places: HashMap<String, Vec<usize>>,
    events: usize,
}

/// What a reader made of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Judged {
    /// Events that were said, in the order in which they were said.
    pub right: usize,
    /// Events that nobody said, or not behind the one before.
    pub wrong: usize,
    /// Events that the reader does not have.
    pub missing: usize,
}

impl Truth {
    /// Compares JSON lines with it. A reader may miss events; each one that it tells must stand behind the one before.
    pub fn judge<'l>(&self, lines: impl Iterator<Item = &'l str>) -> Judged {
        let (mut judged, mut next) = (Judged::default(), 0);
        for line in lines {
            let place = canonical(line).and_then(|event| {
                let places = self.places.get(&event)?;
                places.get(places.partition_point(|place| *place < next)).copied()
            });
            match place {
                Some(place) => {
                    next = place + 1;
                    judged.right += 1;
                }
                None => judged.wrong += 1,
            }
        }
        judged.missing = self.events - judged.right;
        judged
    }
}

/// A printed event in the form of the truth: keys in order, without the reader's own time.
fn canonical(line: &str) -> Option<String> {
    let mut event: Value = serde_json::from_str(line).ok()?;
    event.as_object_mut()?.remove("timestamp");
    Some(event.to_string())
}
