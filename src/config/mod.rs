//! TOML to validated types; every problem reported at once.
//!
//! Owns the configuration file: its keys, their defaults and every check that can be made before the first frame.
//! Relies on `signals` for the DBC and the types of the mapping, on `safety` for the bounds of the times. Never opens a
//! socket, and never accepts a file partly: either all of it holds, or nothing is sent.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod assetto;
pub mod budget;
mod buses;
mod digest;
mod keyed;
mod listen;
mod mapping;
mod problem;
mod protection;
mod rcsp;
mod reader;
mod receive;
mod remarks;
mod send;
mod session;
mod shape;
mod short;
mod slots;
mod sources;
mod station;
mod tunnel;
mod user_data;

pub use assetto::CarPlan;
pub use problem::{Problem, nearest};
pub use rcsp::{PORT as RCSP_PORT, RcspPlan};
pub use receive::GATEWAY_KEY;
pub use short::Short;
pub use slots::written as written_slot;
pub use sources::written;
pub use station::{PlayerSettings, StationConfig};
pub use tunnel::TunnelPlan;

use crate::safety::settings::Settings;
use crate::signals::plan::{OperatorCounter, Plan, Requirement};
use crate::signals::source::Source;
use buses::{Buses, Files};
use digest::Digest;
use mapping::Context;
use problem::Findings;
use reader::{Item, Table, Value};
use receive::Receives;
use sources::Sources;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Largest configuration file: 1,024 signals with every key need a third of this.
const FILE_BYTES: u64 = 1 << 20;

/// Longest name of a vehicle or a desk.
const STATION_BYTES: usize = 64;

/// Most switches that must be true to arm.
const REQUIREMENTS: usize = 16;

/// Smallest modulo of an operator counter: a step forward by up to 25 must differ from a step back.
const OPERATOR_MODULO: u32 = 64;

/// A configuration that passed every check.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "a process holds one, from its start")]
pub enum Loaded {
    /// `role = "vehicle"`: commands to CAN.
    Vehicle(Config),
    /// `role = "operator"`: a panel to OCP, and feedback to CAN.
    Operator(StationConfig),
}

/// A vehicle's configuration that passed every check.
#[derive(Debug, Clone)]
pub struct Config {
    /// The resolved mapping.
    pub plan: Plan,
    /// The time constants, each within its bounds.
    pub settings: Settings,
    /// More arms than this within one minute end in LOCKOUT.
    pub arms_per_minute: u32,
    /// The OCP session.
    pub ocp: OcpSettings,
    /// The tunnels: one for a bus at most.
    pub tunnels: Vec<TunnelPlan>,
    /// The simulated car in the place of a vehicle, where there is one.
    pub car: Option<CarPlan>,
    /// The management plane, unless it is switched off.
    pub rcsp: Option<RcspPlan>,
    /// What happens where real-time priority or locked memory is refused.
    pub real_time: RealTime,
    /// What the log holds. Taken from a changed file without a restart.
    pub log_level: LogLevel,
    /// 16 hexadecimal digits that change with every byte of the configuration file and its DBC files (FNV-1a; it
    /// tells versions apart and proves nothing against an attacker).
    pub digest: String,
    /// The DBC file of each bus.
    pub descriptions: Vec<Description>,
    /// What a person should know before driving with this file, one line each.
    pub warnings: Vec<String>,
}

/// A DBC file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Where it was found.
    pub path: PathBuf,
    /// Its digest, as [`Config::digest`] of this file alone.
    pub digest: String,
}

/// Which end of the line a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// In the vehicle.
    Vehicle,
    /// At the operator's desk.
    Operator,
}

/// The OCP session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OcpSettings {
    /// The Streamer's OCP server; never port 0.
    pub address: SocketAddr,
    /// How `client_user_data` is wrapped.
    pub user_data: UserForm,
    /// Whether acks are held back while nothing can leave on CAN, so that OCP itself reports the fault.
    pub withhold_acks_when_can_dead: bool,
}

/// How `client_user_data` is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UserForm {
    /// Wrapped if the outermost object has a `user_data` key, bare otherwise.
    #[default]
    Auto,
    /// The operator's value itself.
    Bare,
    /// The operator's value under `user_data`.
    Wrapped,
}

/// What happens where real-time priority or locked memory is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RealTime {
    /// The gateway runs and says so.
    #[default]
    Warn,
    /// The gateway does not start.
    Required,
}

/// What the log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// What a person should look at.
    Warning,
    /// And changes of state, and what people asked for.
    Notice,
    /// And everything else.
    #[default]
    Info,
}

impl LogLevel {
    /// Every level as the file writes it.
    pub const NAMES: [(&'static str, Self); 3] =
        [("warning", Self::Warning), ("notice", Self::Notice), ("info", Self::Info)];

    /// As the file writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Notice => "notice",
            Self::Info => "info",
        }
    }
}

/// Reads a vehicle's configuration and everything it names.
///
/// # Errors
///
/// Every problem of the file and its DBC files, in the order of the lines; for an operator's file, that it is one.
/// Nothing of a file with a problem may be used.
pub fn load(path: &Path) -> Result<Config, Vec<Problem>> {
    vehicle_only(path, load_as(path, Accepted::Vehicles))
}

/// Reads the configuration of a vehicle or of a desk, and everything it names.
///
/// # Errors
///
/// Every problem of the file and its DBC files, in the order of the lines. Nothing of a file with a problem may be
/// used.
pub fn load_either(path: &Path) -> Result<Loaded, Vec<Problem>> {
    load_as(path, Accepted::Both)
}

/// Reads a vehicle's configuration that is part of the program, with its DBC files by name (the demo needs no files).
///
/// # Errors
///
/// As [`load`].
pub fn parse(text: &str, files: &[(&str, &str)]) -> Result<Config, Vec<Problem>> {
    let path = Path::new(BUILT_IN);
    vehicle_only(path, read(text, path, &Files::Given(files), Accepted::Vehicles))
}

/// The same for either role.
///
/// # Errors
///
/// As [`load_either`].
pub fn parse_either(text: &str, files: &[(&str, &str)]) -> Result<Loaded, Vec<Problem>> {
    read(text, Path::new(BUILT_IN), &Files::Given(files), Accepted::Both)
}

/// What stands in problems in place of a file name.
const BUILT_IN: &str = "built-in configuration";

/// Which roles a caller serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accepted {
    Vehicles,
    Both,
}

/// A problem of a file as a whole.
fn whole_file(path: &Path, reason: String) -> Problem {
    Problem { file: path.to_path_buf(), line: None, key: String::new(), reason, nearest: None }
}

/// Why a command that serves vehicles refuses the file of a desk.
const OPERATORS_FILE: &str = "this is an operator's file: `ocpcan run` and `ocpcan check` take it, and this command serves vehicles only";

fn vehicle_only(path: &Path, loaded: Result<Loaded, Vec<Problem>>) -> Result<Config, Vec<Problem>> {
    match loaded? {
        Loaded::Vehicle(config) => Ok(config),
        Loaded::Operator(_) => Err(vec![whole_file(path, OPERATORS_FILE.to_owned())]),
    }
}

fn load_as(path: &Path, accepted: Accepted) -> Result<Loaded, Vec<Problem>> {
    let bytes = buses::read_bounded(path, FILE_BYTES).map_err(|error| vec![whole_file(path, error)])?;
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = 1 + bytes.iter().take(error.valid_up_to()).filter(|b| **b == b'\n').count();
            let problem = Problem { line: Some(line), ..whole_file(path, "not valid UTF-8".to_owned()) };
            return Err(vec![problem]);
        }
    };
    let files = Files::Folder(path.parent().unwrap_or_else(|| Path::new("")));
    read(text, path, &files, accepted)
}

fn read(text: &str, path: &Path, files: &Files<'_>, accepted: Accepted) -> Result<Loaded, Vec<Problem>> {
    let findings = Findings::new(path);
    let mut digest = Digest::new();
    digest.file(text.as_bytes());
    let root = reader::parse(text, path, &findings);
    let loaded = root.and_then(|root| {
        let table = root.table(&findings)?;
        match role(&table, accepted)? {
            Role::Vehicle => resolve(table, files, digest).map(Loaded::Vehicle),
            Role::Operator => station::resolve(table, files, digest).map(Loaded::Operator),
        }
    });
    let clean = findings.is_clean();
    let (problems, warnings) = findings.into_parts();
    match loaded {
        Some(Loaded::Vehicle(config)) if clean => Ok(Loaded::Vehicle(Config { warnings, ..config })),
        Some(Loaded::Operator(config)) if clean => Ok(Loaded::Operator(StationConfig { warnings, ..config })),
        _ => Err(problems),
    }
}

/// Whose file it is. A role that is missing or misspelled is reported, and the rest of the file is read as what it looks
/// like: every problem at once. `None` for a desk's file where only vehicles are served: that is the one problem.
fn role(root: &Table<'_>, accepted: Accepted) -> Option<Role> {
    let roles = [("vehicle", Role::Vehicle), ("operator", Role::Operator)];
    let item = root.required("role", "\"vehicle\" or \"operator\"");
    let said = item.and_then(|item| item.choice(root.findings, &roles));
    let looks_like = || {
        let of_a_desk = |entry: &Item| ["station", "player"].contains(&entry.key.as_str());
        if root.named().iter().any(of_a_desk) { Role::Operator } else { Role::Vehicle }
    };
    if let (Some(item), Some(Role::Operator), Accepted::Vehicles) = (item, said, accepted) {
        root.findings.at(item, OPERATORS_FILE);
        return None;
    }
    Some(said.unwrap_or_else(looks_like))
}

/// The tables of the other role.
const DESKS_KEYS: [(&str, &str); 3] = [
    ("station", "names a desk, with role = \"operator\": a vehicle's name is `vehicle`"),
    ("player", "is the operator's side of OCP: a vehicle's is [ocp]"),
    ("user_data", "is what a desk sends: a vehicle reads it as user.*, and reports with [report.user_data]"),
];

/// Every table in turn. `None` only after a problem was reported.
fn resolve(root: Table<'_>, files: &Files<'_>, mut digest: Digest) -> Option<Config> {
    let findings = root.findings;
    root.refuse(&DESKS_KEYS);
    let vehicle = name(&root, "vehicle", "the name of the vehicle, as shown to the operator");
    let ocp = session::ocp(&root);
    let safety = session::safety(&root);
    let log_level = session::log(&root);
    let buses = Buses::read(&root, files, &mut digest);
    let mut sources = Sources::default();
    let (arm, dead_man, require) = arm(&root, &mut sources);
    let operator_counter = operator(&root, &mut sources);
    let mut receives = Receives::read(&root, &buses, Role::Vehicle);
    let has_standstill = root.item("standstill").is_some();
    let speed = receives.standstill(&root);
    let send = {
        let mut context = Context {
            sources: &mut sources,
            receives: &mut receives,
            stopping: safety.settings.stopping,
            standstill: has_standstill,
        };
        send::read(&root, &buses, &mut context)
    };
    let car_table = root.table("assetto");
    let feed = car_table.as_ref().map(assetto::feed);
    let (report, position) = receives.report(&root, feed.as_ref().map(|(_, known)| *known));
    let car = car_table.zip(feed).and_then(|(table, (settings, known))| {
        let (send, on_real_bus) = assetto::frames(&table, &buses, &receives, known, &send, speed.as_ref());
        table.finish();
        Some(CarPlan { settings: settings?, send, on_real_bus })
    });
    let played = car.as_ref().map_or(&[][..], |car| &car.send);
    let sent: Vec<_> = send.iter().chain(played).cloned().collect();
    let tunnels = tunnel::read(&root, &buses, &tunnel::Own { send: &sent, receive: &receives.plans });
    let rcsp = rcsp::read(&root, &tunnels);
    if !has_standstill && tunnels.iter().any(|tunnel| !tunnel.diagnostic.is_empty()) {
        let text = "ids for DIAG have no effect without [standstill]: DIAG is entered where the vehicle is proven to stand";
        findings.warn("tcpcan", text);
    }
    root.finish();
    let plan = Plan {
        vehicle: vehicle.unwrap_or_default(),
        buses: buses.plans.clone(),
        send,
        receive: receives.plans,
        user_fields: sources.into_fields(),
        arm,
        dead_man,
        require,
        operator_counter,
        report,
        position,
        speed,
    };
    remarks::remarks(findings, &plan, &safety.settings, played);
    Some(Config {
        plan,
        settings: safety.settings,
        arms_per_minute: safety.arms_per_minute,
        ocp: ocp?,
        tunnels,
        car,
        rcsp,
        real_time: safety.real_time,
        log_level,
        digest: digest.hex(),
        descriptions: buses.descriptions.clone(),
        warnings: Vec::new(),
    })
}

/// The name of a vehicle or a desk.
fn name(root: &Table<'_>, key: &'static str, what: &str) -> Option<String> {
    let item = root.required(key, what)?;
    let name = item.text(root.findings)?;
    if name.len() > STATION_BYTES {
        root.findings.at(item, format!("must be at most {STATION_BYTES} bytes long"));
        return None;
    }
    Some(name.to_owned())
}

/// `[arm]`: the switch, the dead-man switch and what else must be true.
fn arm(root: &Table<'_>, sources: &mut Sources) -> (Option<Source>, Option<Source>, Vec<Requirement>) {
    let findings = root.findings;
    let what = "the switch that arms, such as [arm] switch = \"buttons.start\"";
    let Some(table) = root.required("arm", what).and_then(|item| item.table(findings)) else {
        return (None, None, Vec::new());
    };
    let mut switch = |item: &Item| sources.switch(item, findings);
    let arm = table.required("switch", "such as \"buttons.start\"").and_then(&mut switch);
    let dead_man = table.item("dead_man").and_then(&mut switch);
    let mut require = Vec::new();
    if let Some(item) = table.item("require") {
        // One switch needs no list.
        let items = match item.value {
            Value::Text(_) => std::slice::from_ref(item),
            _ => item.list(findings).unwrap_or_default(),
        };
        if items.len() > REQUIREMENTS {
            findings.at(item, format!("at most {REQUIREMENTS} switches can be required"));
        }
        for item in items {
            let source = switch(item);
            require.extend(source.map(|source| Requirement {
                name: item.text(findings).unwrap_or_default().to_owned(),
                source,
            }));
        }
    }
    table.finish();
    (arm, dead_man, require)
}

/// `[operator]`: the counter that shows a living operator.
fn operator(root: &Table<'_>, sources: &mut Sources) -> Option<OperatorCounter> {
    let table = root.table("operator")?;
    let counter = table.item("counter");
    let field = counter.and_then(|item| sources.user_number(item, root.findings));
    let modulo_item = table.item("counter_modulo");
    let modulo = table.integer("counter_modulo", OPERATOR_MODULO, u32::MAX, "");
    if let (None, Some(item)) = (counter, modulo_item) {
        root.findings.at(item, "has no effect without `counter`");
    }
    table.finish();
    Some(OperatorCounter { field: field?, modulo })
}
