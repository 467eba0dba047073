//! TOML to validated types; every problem reported at once.
//!
//! Owns the configuration file: its keys, their defaults and every check that can be made before the first frame.
//! Relies on `signals` for the DBC and the types of the mapping, on `safety` for the bounds of the times. Never opens a
//! socket, and never accepts a file partly: either all of it holds, or nothing is sent.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod budget;
mod buses;
mod digest;
mod mapping;
mod problem;
mod protection;
mod reader;
mod receive;
mod remarks;
mod send;
mod session;
mod shape;
mod short;
mod sources;
mod tunnel;

pub use problem::{Problem, nearest};
pub use receive::GATEWAY_KEY;
pub use short::Short;
pub use sources::written;
pub use tunnel::TunnelPlan;

use crate::safety::settings::Settings;
use crate::signals::plan::{OperatorCounter, Plan, Requirement};
use crate::signals::source::Source;
use buses::{Buses, Files};
use digest::Digest;
use mapping::Context;
use problem::Findings;
use reader::{Item, Table};
use receive::Receives;
use sources::Sources;
use std::net::SocketAddr;
use std::path::Path;

/// Largest configuration file: 1,024 signals with every key need a third of this.
const FILE_BYTES: u64 = 1 << 20;

/// Longest name of a vehicle.
const VEHICLE_BYTES: usize = 64;

/// Most switches that must be true to arm.
const REQUIREMENTS: usize = 16;

/// Smallest modulo of an operator counter: a step forward by up to 25 must differ from a step back.
const OPERATOR_MODULO: u32 = 64;

/// A configuration that passed every check.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which end of the line this gateway serves.
    pub role: Role,
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
    /// What happens where real-time priority or locked memory is refused.
    pub real_time: RealTime,
    /// 16 hexadecimal digits that change with every byte of the configuration file and its DBC files (FNV-1a; it
    /// tells versions apart and proves nothing against an attacker).
    pub digest: String,
    /// What a person should know before driving with this file, one line each.
    pub warnings: Vec<String>,
}

/// Which end of the line a gateway serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// In the vehicle: commands to CAN.
    Vehicle,
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

/// Reads a configuration and everything it names.
///
/// # Errors
///
/// Every problem of the file and its DBC files, in the order of the lines. Nothing of a file with a problem may be
/// used.
pub fn load(path: &Path) -> Result<Config, Vec<Problem>> {
    let whole_file = |reason: String| Problem {
        file: path.to_path_buf(),
        line: None,
        key: String::new(),
        reason,
        nearest: None,
    };
    let bytes = buses::read_bounded(path, FILE_BYTES).map_err(|error| vec![whole_file(error)])?;
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = 1 + bytes.iter().take(error.valid_up_to()).filter(|b| **b == b'\n').count();
            let problem = Problem { line: Some(line), ..whole_file("not valid UTF-8".to_owned()) };
            return Err(vec![problem]);
        }
    };
    let files = Files::Folder(path.parent().unwrap_or_else(|| Path::new("")));
    read(text, path, &files)
}

/// Reads a configuration that is part of the program, with its DBC files by name (the demo needs no files).
///
/// # Errors
///
/// As [`load`].
pub fn parse(text: &str, files: &[(&str, &str)]) -> Result<Config, Vec<Problem>> {
    read(text, Path::new("built-in configuration"), &Files::Given(files))
}

fn read(text: &str, path: &Path, files: &Files<'_>) -> Result<Config, Vec<Problem>> {
    let findings = Findings::new(path);
    let mut digest = Digest::new();
    digest.file(text.as_bytes());
    let root = reader::parse(text, path, &findings);
    let config = root.and_then(|root| {
        let table = root.table(&findings)?;
        resolve(table, files, digest)
    });
    let clean = findings.is_clean();
    let (problems, warnings) = findings.into_parts();
    match config {
        Some(config) if clean => Ok(Config { warnings, ..config }),
        _ => Err(problems),
    }
}

/// Every table in turn. `None` only after a problem was reported.
fn resolve(root: Table<'_>, files: &Files<'_>, mut digest: Digest) -> Option<Config> {
    let findings = root.findings;
    let role = role(&root);
    let vehicle = vehicle(&root);
    let ocp = session::ocp(&root);
    let safety = session::safety(&root);
    let buses = Buses::read(&root, files, &mut digest);
    let mut sources = Sources::default();
    let (arm, dead_man, require) = arm(&root, &mut sources);
    let operator_counter = operator(&root, &mut sources);
    let mut receives = Receives::read(&root, &buses);
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
    let (report, position) = receives.report(&root);
    let tunnels = tunnel::read(&root, &buses, &tunnel::Own { send: &send, receive: &receives.plans });
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
    remarks::remarks(findings, &plan, &safety.settings);
    Some(Config {
        role: role?,
        plan,
        settings: safety.settings,
        arms_per_minute: safety.arms_per_minute,
        ocp: ocp?,
        tunnels,
        real_time: safety.real_time,
        digest: digest.hex(),
        warnings: Vec::new(),
    })
}

/// `None` for a role of another version. A role that is missing or misspelled is reported, and the rest of the file is
/// read as a vehicle's: every problem at once.
fn role(root: &Table<'_>) -> Option<Role> {
    let Some(item) = root.required("role", "\"vehicle\"") else { return Some(Role::Vehicle) };
    let roles = [("vehicle", Some(Role::Vehicle)), ("operator", None)];
    let Some(role) = item.choice(root.findings, &roles) else { return Some(Role::Vehicle) };
    if role.is_none() {
        root.findings
            .at(item, "the operator role is not part of this version: this gateway serves vehicles only");
    }
    role
}

fn vehicle(root: &Table<'_>) -> Option<String> {
    let item = root.required("vehicle", "the name of the vehicle, as shown to the operator")?;
    let name = item.text(root.findings)?;
    if name.len() > VEHICLE_BYTES {
        root.findings.at(item, format!("must be at most {VEHICLE_BYTES} bytes long"));
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
        let items = item.list(findings).unwrap_or_default();
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
