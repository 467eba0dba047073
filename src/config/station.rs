//! The configuration of an operator's desk.
//!
//! Owns `[player]`, the order in which a desk's tables are read, and what an operator should know about them. Relies on
//! `slots` and `user_data`, and on the tables that desks share with vehicles. Never opens a socket.

use super::buses::{Buses, Files};
use super::digest::Digest;
use super::problem::Findings;
use super::reader::{Item, Table, Value};
use super::receive::Receives;
use super::session::{Server, address};
use super::slots::{Dashboard, Origin, PANEL, origin};
use super::{Description, Role, budget, name, send, shape, user_data};
use crate::safety::settings::Settings;
use crate::signals::station::{ActiveVehicle, SinkValue, StationPlan};
use crate::time::Duration;
use std::net::SocketAddr;

/// The desk of an operator, from a file that passed every check.
#[derive(Debug, Clone)]
pub struct StationConfig {
    /// The name of the desk, for logs.
    pub name: String,
    /// The session with the Player.
    pub player: PlayerSettings,
    /// The resolved mapping.
    pub plan: StationPlan,
    /// 16 hexadecimal digits that change with every byte of the configuration file and its DBC files, as
    /// [`super::Config::digest`].
    pub digest: String,
    /// The DBC file of each bus.
    pub descriptions: Vec<Description>,
    /// What an operator should know before driving with this file, one line each.
    pub warnings: Vec<String>,
}

/// The session with the Player.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlayerSettings {
    /// The Player's OCP server; never port 0.
    pub address: SocketAddr,
    /// Without a feedback message for this long all feedback is stale; 100 to 5,000 ms.
    pub feedback_stale: Duration,
    /// Above this `ms_since_last_vehicle_data`, `vehicle_data` is stale; 100 to 5,000 ms.
    pub data_stale: Duration,
}

/// The Player's, on the operator's computer.
const PLAYER: Server = Server {
    key: "player.address",
    name: "the Player's OCP server",
    usual: "127.0.0.1:4001",
    danger: "tells the desk what it shows, and gets what the panel says",
};

/// Bounds of both staleness times in milliseconds: five Player frames at 50 Hz, and 5 s, beyond which "fresh" means
/// nothing.
const STALE_MS: (u32, u32) = (100, 5_000);

/// Feedback comes with every Player frame; half a second is 30 of them at 60 Hz.
const FEEDBACK_STALE_MS: u32 = 500;

/// OCP raises its own fault after a second without the vehicle's data.
const DATA_STALE_MS: u32 = 1_000;

/// The tables of a vehicle.
const VEHICLES_KEYS: [(&str, &str); 10] = [
    (
        "vehicle",
        "names a vehicle: a desk's own name is `station`, and whom it drives is [player] active_vehicle",
    ),
    ("ocp", "is the vehicle's side of OCP: a desk's is [player]"),
    ("arm", "is a vehicle's: vehicles arm, desks do not"),
    (
        "operator",
        "is where a vehicle reads the operator's counter: a desk sends it, [user_data] counter = { counter = 256 }",
    ),
    ("standstill", "is a vehicle's"),
    ("report", "is what a vehicle reports: a desk sends [user_data]"),
    ("safety", "is a vehicle's: a desk guards nothing"),
    ("tcpcan", "is a vehicle's: the tunnel is not served by a desk"),
    ("assetto", "stands in for a vehicle: a desk drives one"),
    ("rcsp", "is a vehicle's: a desk tells what happens in its log, and answers no questions"),
];

/// Every table in turn. `None` only after a problem was reported.
pub(super) fn resolve(root: Table<'_>, files: &Files<'_>, mut digest: Digest) -> Option<StationConfig> {
    let findings = root.findings;
    root.refuse(&VEHICLES_KEYS);
    let name = name(&root, "station", "the name of this desk, as shown in logs");
    // A desk without a panel and without a dashboard needs no bus.
    let has_frames = root.item("receive").is_some() || root.item("send").is_some();
    let buses = if has_frames || root.item("bus").is_some() {
        Buses::read(&root, files, &mut digest)
    } else {
        Buses::default()
    };
    let mut receives = Receives::read(&root, &buses, Role::Operator);
    let player = player(&root, &mut receives);
    let mut user_data = user_data::read(&root, &mut receives);
    let selects = matches!(&player, Some(player) if matches!(player.active, ActiveVehicle::Panel { .. }));
    let sends = user_data.iter().any(|sink| matches!(sink.value, SinkValue::Panel { .. }));
    user_data::complete(&mut user_data, selects || sends);
    let mut dashboard = Dashboard::new(&mut receives);
    let send = send::read(&root, &buses, &mut dashboard);
    let slots = dashboard.slots;
    root.finish();
    let player = player?;
    let plan = StationPlan {
        buses: buses.plans.clone(),
        receive: receives.plans,
        send,
        slots,
        user_data,
        active: player.active,
        disable_gamepad: player.disable_gamepad,
    };
    remarks(findings, &plan);
    Some(StationConfig {
        name: name?,
        player: player.settings,
        plan,
        digest: digest.hex(),
        descriptions: buses.descriptions.clone(),
        warnings: Vec::new(),
    })
}

/// What `[player]` says.
#[derive(Debug)]
struct Player {
    settings: PlayerSettings,
    active: ActiveVehicle,
    disable_gamepad: Option<bool>,
}

/// Reads `[player]`.
fn player(root: &Table<'_>, receives: &mut Receives<'_>) -> Option<Player> {
    let what = "the [player] table with the address of the Player's OCP server";
    let table = root.required("player", what)?.table(root.findings)?;
    let address = table
        .required("address", "the Player's OCP server, such as \"127.0.0.1:4001\"")
        .and_then(|item| address(item, table.findings, &PLAYER));
    let stale = |key, default| {
        let ms = table.integer(key, STALE_MS.0, STALE_MS.1, " ms").unwrap_or(default);
        Duration::from_millis(u64::from(ms))
    };
    let feedback_stale = stale("feedback_stale_ms", FEEDBACK_STALE_MS);
    let data_stale = stale("data_stale_ms", DATA_STALE_MS);
    let active = match table.item("active_vehicle") {
        Some(item) => active(item, receives, table.findings),
        None => Some(ActiveVehicle::Only),
    };
    let disable_gamepad = table.flag("disable_gamepad");
    table.finish();
    Some(Player {
        settings: PlayerSettings { address: address?, feedback_stale, data_stale },
        active: active?,
        disable_gamepad,
    })
}

/// `active_vehicle = "NAME"` or `{ source, vehicles = { VALUE = "NAME" } }`.
fn active(item: &Item, receives: &mut Receives<'_>, findings: &Findings) -> Option<ActiveVehicle> {
    if let Value::Text(_) = item.value {
        return item.text(findings).map(|name| ActiveVehicle::Named(name.to_owned()));
    }
    if !matches!(item.value, Value::Table(_)) {
        findings.at(
            item,
            "must be the name of a vehicle, or { source = \"can.MESSAGE.SIGNAL\", vehicles = { .. } }",
        );
        return None;
    }
    let table = item.table(findings)?;
    let source = table.required("source", "the selector on the panel, can.MESSAGE.SIGNAL");
    let signal = source.and_then(|item| match origin(item, receives, findings, "can.*")? {
        Origin::Panel => receives.reference_after(PANEL, item, findings),
        Origin::Feedback(_) | Origin::Station(_) => {
            findings.at(item, "only the panel chooses a vehicle: can.MESSAGE.SIGNAL");
            None
        }
    });
    let list =
        table.required("vehicles", "which value chooses which vehicle, such as { \"0\" = \"loader-7\" }");
    let list = list.and_then(|item| item.table(findings));
    table.finish();
    let (signal, list) = (signal?, list?);
    if list.named().is_empty() {
        findings.at(&list, "must name at least one vehicle");
        return None;
    }
    let read = receives.signal(signal)?;
    let about = shape::Described {
        name: read.name.clone(),
        codec: read.codec,
        low: read.min,
        high: read.max,
        names: user_data::names(read).into_iter().map(|(value, name)| (name, value)).collect(),
        json: None,
    };
    let mut vehicles: Vec<(f64, String)> = Vec::new();
    let mut complete = true;
    for item in list.named() {
        let value = super::keyed::keyed(item, findings, &about);
        let name = item.text(findings);
        let (Some(value), Some(name)) = (value, name) else {
            complete = false;
            continue;
        };
        if vehicles.iter().any(|(other, _)| *other == value) {
            findings.at(item, "this value already chooses a vehicle");
            complete = false;
        }
        vehicles.push((value, name.to_owned()));
    }
    complete.then_some(ActiveVehicle::Panel { signal, vehicles })
}

/// What an operator should know before driving with a file that is otherwise right.
fn remarks(findings: &Findings, plan: &StationPlan) {
    let has_counter = plan.user_data.iter().any(|sink| matches!(sink.value, SinkValue::Counter { .. }));
    if !has_counter {
        let settings = Settings::default();
        let (with, without) = (budget::loss_with_counter(&settings), budget::LOSS_WITHOUT_COUNTER);
        findings.warn(
            "user_data",
            format!(
                "no counter: a vehicle notices a lost desk after up to {} ms instead of {} ms; send one, \
                 counter = {{ counter = 256 }}, and map it there as [operator] counter",
                without.as_millis(),
                with.as_millis()
            ),
        );
    }
    let to_vehicle: Vec<usize> = plan
        .user_data
        .iter()
        .filter_map(|sink| match &sink.value {
            SinkValue::Panel { signal, .. } => Some(signal.receive),
            _ => None,
        })
        .collect();
    for (index, frame) in plan.receive.iter().enumerate() {
        let place = format!("receive.{}", frame.name);
        if to_vehicle.contains(&index) && frame.counter.is_none() {
            findings.warn(
                &place,
                "goes to a vehicle without an alive counter: a frozen panel looks like a held lever",
            );
        }
        if frame.signals.is_empty() {
            findings.warn(&place, "nothing reads this frame; panel_ok is false without it all the same");
        }
    }
    super::remarks::idle_buses(findings, &plan.buses, &plan.send, &plan.receive);
}
