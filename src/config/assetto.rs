//! The simulated car that stands in for a vehicle.
//!
//! Owns `[assetto]`: its feed, which car, the map, and the frames that it sends. Relies on `send` for the frames and on
//! `signals::car` for the values. Never lets a value of the simulator into a frame that the watchdog sends.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Role;
use super::buses::Buses;
use super::mapping::reach;
use super::problem::{Findings, Place as _, nearest};
use super::reader::{Item, Table};
use super::receive::Receives;
use super::send::{self, Mapping};
use super::shape::{self, Described};
use super::sources::CAR;
use crate::can::Id;
use crate::signals::car::{CarFeed, CarSettings, GivenBy, MapOrigin, Value, WantedCar};
use crate::signals::plan::{Kind, SendPlan, SignalPlan, SpeedPlan};
use crate::signals::source::Source;
use crate::signals::transform::Transform;
use crate::time::Duration;

/// Where servers listen to plugins and plugins listen, as in the vendor's example.
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 11_000);
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 12_000);

/// Where a game listens. Source: the vendor's document on its remote telemetry.
const GAME_PORT: u16 = 9_996;

/// Period of the updates in milliseconds: default, least, most. Servers repeat themselves below the rate of the players'
/// own messages, and above a second nothing is driven by them.
const INTERVAL_MS: (u32, u32, u32) = (50, 10, 1_000);

/// Speed below which a direction of motion is noise, m/s: a walk.
const HEADING_MIN_MPS: f64 = 1.0;

/// Longest `driver_guid` or `driver_name` on the wire.
const TEXT_CHARACTERS: usize = 255;

/// What a stand-in has not.
const VEHICLE_KEYS: [(&str, &str); 9] = [
    ("kind", "is for signals that move a vehicle: a simulated car tells how it is"),
    ("stop", "is for signals that move a vehicle: the frames of a car that is stale are not sent"),
    ("slew_up_per_s", "is for signals that move a vehicle"),
    ("slew_down_per_s", "is for signals that move a vehicle"),
    ("change", "is for signals that move a vehicle"),
    ("feedback", "is for signals that move a vehicle"),
    ("feedback_tolerance", "is for signals that move a vehicle"),
    ("select", "is for signals that an operator chooses"),
    ("toggle", "is for signals that an operator chooses"),
];

/// The simulated car.
#[derive(Debug, Clone)]
pub struct CarPlan {
    /// Where it is heard of.
    pub settings: CarSettings,
    /// The frames that it sends in the place of a vehicle.
    pub send: Vec<SendPlan>,
    /// It may send them on a physical bus.
    pub on_real_bus: bool,
}

/// What the rest of the file may ask of the car.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    is_game: bool,
    has_map: bool,
    pub(super) stale_after: Duration,
}

impl Known {
    /// The value that `assetto.NAME` names, if the feed gives it.
    pub(super) fn value(self, item: &Item, findings: &Findings, text: &str) -> Option<Value> {
        let name = text.strip_prefix(CAR).unwrap_or(text);
        let Some((_, value)) = Value::NAMES.into_iter().find(|(known, _)| *known == name) else {
            let names = Value::NAMES.map(|(name, _)| name);
            let like = nearest(name, names).map(|name| format!("{CAR}{name}"));
            findings.at_like(item, format!("there is no {CAR}{name}; there is: {}", names.join(", ")), like);
            return None;
        };
        let missing = match value.given_by() {
            GivenBy::Game if !self.is_game => "only a game tells it: assetto.game in place of assetto.server",
            GivenBy::Map if !self.has_map => "it needs [assetto.map], the place of the track on the earth",
            _ => return Some(value),
        };
        findings.at(item, format!("{CAR}{name}: {missing}"));
        None
    }
}

/// Reads what `[assetto]` says of the feed; the frames are read by [`frames`].
pub(super) fn feed(table: &Table<'_>) -> (Option<CarSettings>, Known) {
    let findings = table.findings;
    let map = table.table("map").map(|map| {
        let origin = origin(&map);
        map.finish();
        origin
    });
    let interval_ms =
        table.integer("interval_ms", INTERVAL_MS.1, INTERVAL_MS.2, " ms").unwrap_or(INTERVAL_MS.0);
    let interval = Duration::from_millis(u64::from(interval_ms));
    let heading_min_mps = table.within("heading_min_mps", 0.1, 50.0).unwrap_or(HEADING_MIN_MPS);
    let game = table.item("game");
    let feed = match (game, table.item("server")) {
        (Some(item), Some(_)) => {
            findings.at(
                item,
                "a car comes from a game or from a server: only one of `game` and `server` can be given",
            );
            for key in ["listen", "car", "driver_guid", "driver_name"] {
                table.item(key);
            }
            None
        }
        (Some(item), None) => {
            for key in ["listen", "car", "driver_guid", "driver_name"] {
                if let Some(item) = table.item(key) {
                    findings.at(
                        item,
                        "is for a server: a game tells of its own player and answers where it is asked from",
                    );
                }
            }
            game_address(item, findings).map(|game| CarFeed::Game { game })
        }
        (None, server) => {
            if server.is_none() {
                let what = "where the server listens to its plugin, such as \"127.0.0.1:11000\" (or `game`)";
                table.missing("server", what);
            }
            let server =
                server.map(|item| address(item, findings, SERVER).filter(|at| is_host(item, findings, *at)));
            let listen_item = table.item("listen");
            let listen = listen_item.map_or(Some(LISTEN), |item| address(item, findings, LISTEN));
            let car = wanted(table);
            if let (Some(Some(server)), Some(listen), place) =
                (server, listen, listen_item.unwrap_or(table.of))
            {
                one_way(place, findings, server, listen);
            }
            server.flatten().zip(listen).zip(car).map(|((server, listen), car)| CarFeed::Server {
                server,
                listen,
                car,
            })
        }
    };
    let map_there = map.is_some();
    let settings = feed.map(|feed| CarSettings { feed, interval, heading_min_mps, map: map.flatten() });
    let stale_after = settings.as_ref().map_or(Duration::ZERO, CarSettings::stale_after);
    (settings, Known { is_game: game.is_some(), has_map: map_there, stale_after })
}

/// A server and its plugin must be able to reach each other.
fn one_way(place: &Item, findings: &Findings, server: SocketAddr, listen: SocketAddr) {
    if listen.ip().is_loopback() && !server.ip().is_loopback() {
        findings.at(
            place,
            format!(
                "a server at {} cannot reach the loopback address: listen at this machine's address in its network, and \
                 name that one in the server's UDP_PLUGIN_ADDRESS",
                server.ip()
            ),
        );
    }
    if listen.is_ipv4() != server.is_ipv4() {
        findings.at(place, "`listen` and `server` must both be IPv4 or both IPv6");
    }
    if listen == server {
        findings.at(place, "is the server's own address: the two must differ");
    }
}

/// Which of the server's cars.
fn wanted(table: &Table<'_>) -> Option<WantedCar> {
    let findings = table.findings;
    let (slot, guid, name) = (table.item("car"), table.item("driver_guid"), table.item("driver_name"));
    let text = |item: &Item| {
        let text = item.text(findings)?;
        if text.is_empty() || text.chars().count() > TEXT_CHARACTERS {
            findings.at(item, format!("must have 1 to {TEXT_CHARACTERS} characters"));
            return None;
        }
        Some(text.to_owned())
    };
    match (slot, guid, name) {
        (None, None, None) => Some(WantedCar::Slot(0)),
        (Some(item), None, None) => {
            let slot = item.integer(findings, 0, 254, "")?;
            u8::try_from(slot).ok().map(WantedCar::Slot)
        }
        (None, Some(item), None) => text(item).map(WantedCar::Guid),
        (None, None, Some(item)) => text(item).map(WantedCar::Name),
        _ => {
            findings.at(table, "only one of `car`, `driver_guid` and `driver_name` can be given");
            None
        }
    }
}

fn address(item: &Item, findings: &Findings, usual: SocketAddr) -> Option<SocketAddr> {
    let text = item.text(findings)?;
    let parsed = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
    if parsed.is_none() {
        findings.at(item, format!("must be an IP address and a port, such as \"{usual}\", not {text:?}"));
    }
    parsed
}

/// Whether one host has this address.
fn is_host(item: &Item, findings: &Findings, address: SocketAddr) -> bool {
    let is_one = !address.ip().is_unspecified() && !address.ip().is_multicast();
    if !is_one {
        findings.at(item, format!("{} is no address of one host", address.ip()));
    }
    is_one
}

fn game_address(item: &Item, findings: &Findings) -> Option<SocketAddr> {
    let text = item.text(findings)?;
    let with_port = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
    let parsed = with_port.or_else(|| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, GAME_PORT)));
    let parsed = parsed.filter(|at| is_host(item, findings, *at));
    if parsed.is_none() && with_port.is_none() && text.parse::<IpAddr>().is_err() {
        let reason = format!("must be an IP address, with a port where it is not {GAME_PORT}, not {text:?}");
        findings.at(item, reason);
    }
    parsed
}

/// `[assetto.map]`.
fn origin(table: &Table<'_>) -> Option<MapOrigin> {
    // Nearer to a pole a plane has no degrees of longitude to speak of.
    let lat = table
        .required("lat", "latitude of the world's origin, degrees")
        .and_then(|_| table.within("lat", -85.0, 85.0));
    let lon = table
        .required("lon", "longitude of the world's origin, degrees")
        .and_then(|_| table.within("lon", -180.0, 180.0));
    let bearing_deg = table.within("bearing_deg", -360.0, 360.0).unwrap_or(0.0);
    let mirrored = table.flag("mirrored").unwrap_or(false);
    Some(MapOrigin { lat: lat?, lon: lon?, bearing_deg, mirrored })
}

/// The car's signals.
struct Signals<'c, 'a> {
    receives: &'c Receives<'a>,
    known: Known,
}

impl<'a> Mapping<'a> for Signals<'_, 'a> {
    const ROLE: Role = Role::Vehicle;
    const IS_COMMAND: bool = false;
    // A position every second is a usual frame of a vehicle.
    const PERIOD_MS: (u32, u32) = (5, 1_000);

    fn signal(&mut self, table: &Table<'a>, about: &Described) -> Option<SignalPlan> {
        table.refuse(&VEHICLE_KEYS);
        // Without the key, a frame with a value that the car does not tell is not sent: 0 would be a lie.
        let safe = match table.item("safe") {
            Some(item) => shape::exact(item, table, about),
            None => Some(f64::NAN),
        };
        let (source, transform) = self.value(table, about, None)?;
        let safe = safe?;
        let (min, max) = reach(source, &transform, if safe.is_nan() { transform.out_low } else { safe });
        Some(SignalPlan::telling(
            (about.name.clone(), about.codec, !about.names.is_empty()),
            source,
            transform,
            (min, max),
            safe,
        ))
    }

    fn receives(&self) -> &Receives<'a> {
        self.receives
    }
}

impl Signals<'_, '_> {
    fn value(&self, table: &Table<'_>, about: &Described, safe: Option<f64>) -> Option<(Source, Transform)> {
        let findings = table.findings;
        match (table.item("source"), table.item("value")) {
            (Some(item), None) => {
                let text = if item.is_number() { None } else { item.text(findings) };
                let value = match text {
                    Some(text) if text.starts_with(CAR) => self.known.value(item, findings, text),
                    _ => {
                        findings.at(
                            item,
                            "a simulated car sends its own values: this takes assetto.*, or `value = ...`",
                        );
                        None
                    }
                };
                let Some(value) = value else {
                    shape::skip(table);
                    return None;
                };
                let source = Source::Car(value as u8);
                Some((source, shape::shape(table, about, Kind::Other, safe, source)?))
            }
            (None, Some(item)) => {
                let transform = shape::constant(table, "has no effect on a constant");
                Some((Source::Constant(shape::exact(item, table, about)?), transform))
            }
            (None, None) => {
                table.missing("source", "assetto.*, or `value` for a constant");
                shape::skip(table);
                None
            }
            (Some(_), Some(_)) => {
                findings.at(table, "only one of `source` and `value` can be given");
                shape::skip(table);
                None
            }
        }
    }
}

/// Reads `[assetto.send.*]` and what is said about its bus.
pub(super) fn frames<'a>(
    table: &Table<'a>,
    buses: &'a Buses,
    receives: &Receives<'a>,
    known: Known,
    commands: &[SendPlan],
    speed: Option<&SpeedPlan>,
) -> (Vec<SendPlan>, bool) {
    let findings = table.findings;
    let real_item = table.item("on_real_bus");
    let on_real_bus = table.flag("on_real_bus").unwrap_or(false);
    let frames = send::read(table, buses, &mut Signals { receives, known });
    let standstill = speed.and_then(|speed| {
        let plan = receives.plans.get(speed.signal.receive)?;
        Some((plan.bus, plan.id, &plan.signals.get(speed.signal.signal)?.name))
    });
    for frame in &frames {
        let is_constant = |(bus, id, name): (usize, Id, &String)| {
            let same =
                |signal: &&SignalPlan| signal.name == *name && matches!(signal.source, Source::Constant(_));
            frame.bus == bus && frame.id == id && frame.signals.iter().find(same).is_some()
        };
        if standstill.is_some_and(is_constant) {
            findings.at(
                table,
                format!("{}: [standstill] reads it, so its speed cannot be a constant", frame.name),
            );
        }
        if let Some(command) = commands.iter().find(|other| other.bus == frame.bus && other.id == frame.id) {
            findings.at(
                table,
                format!("{} is sent as send.{}: the car cannot send it too", frame.name, command.name),
            );
        }
        // On a real bus the feedback would be that of a simulator while the commands reach real actuators.
        let is_feedback = receives.plans.iter().any(|other| other.bus == frame.bus && other.id == frame.id);
        if let (Some(item), true) = (real_item, on_real_bus && is_feedback) {
            findings.at(
                item,
                format!(
                    "{} is also this gateway's feedback: on a real bus a simulated car would tell it that a real vehicle \
                     stands",
                    frame.name
                ),
            );
        }
    }
    if let (Some(item), true) = (real_item, on_real_bus) {
        findings.warn(
            item.path(),
            "frames of a simulated car go out on a physical bus: real control units hear them; and what [report] takes from it is \
             not the real vehicle's",
        );
    }
    (frames, on_real_bus)
}
