//! The named buses and the DBC file of each.
//!
//! Owns `[bus.*]`, loading the descriptions and looking names up in them. Relies on `signals::dbc`. Never opens an
//! interface: whether it exists is known when the gateway runs.

use super::Description;
use super::digest::Digest;
use super::problem::{Findings, Place as _, Problem, nearest};
use super::reader::{Item, Table};
use super::shape::Described;
use super::short::Short;
use crate::can::BusAddress;
use crate::can::frame::is_valid_length;
use crate::limits::{BUSES, DBC_BYTES};
use crate::signals::bits::Raw;
use crate::signals::dbc::{Database, Message, Signal};
use crate::signals::plan::{BusPlan, Echo};
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Where the files are that a configuration names.
#[derive(Debug)]
pub(super) enum Files<'a> {
    /// In this folder.
    Folder(&'a Path),
    /// Built in: name and text.
    Given(&'a [(&'a str, &'a str)]),
}

/// The buses with their descriptions.
#[derive(Debug, Default)]
pub(super) struct Buses {
    pub(super) plans: Vec<BusPlan>,
    /// In the order of `plans`; `None` where the file could not be read, which was reported.
    databases: Vec<Option<Database>>,
    /// The files that were read.
    pub(super) descriptions: Vec<Description>,
}

impl Buses {
    /// Reads `[bus.*]`; DBC paths are relative to the directory of the configuration.
    pub(super) fn read(root: &Table<'_>, files: &Files<'_>, digest: &mut Digest) -> Self {
        let mut buses = Self::default();
        let what = "a CAN bus with its interface and its DBC file, such as [bus.vehicle]";
        let Some(table) = root.required("bus", what).and_then(|item| item.table(root.findings)) else {
            return buses;
        };
        if table.named().is_empty() {
            table.findings.at(&table, "no bus: add one, such as [bus.vehicle]");
        }
        if let Some(excess) = table.named().get(BUSES) {
            let reason = format!("{} buses, and at most {BUSES} are served", table.named().len());
            table.findings.at(excess, reason);
        }
        for item in table.named().iter().take(BUSES) {
            item.is_named(root.findings);
            if let Some(inner) = item.table(root.findings) {
                buses.bus(item, &inner, files, digest);
                inner.finish();
            }
        }
        buses
    }

    fn bus(&mut self, item: &Item, table: &Table<'_>, files: &Files<'_>, digest: &mut Digest) {
        let findings = table.findings;
        let interface = table
            .required("interface", "the CAN interface, such as \"can0\" or \"sim:demo\"")
            .and_then(|item| self.interface(item, findings));
        let database = table
            .required("dbc", "the DBC file that describes the bus")
            .and_then(|item| load(item, findings, files, digest))
            .map(|(database, description)| {
                self.descriptions.push(description);
                database
            });
        let fd = table.flag("fd").unwrap_or(false);
        let echo = table.choice("echo", &[("required", Echo::Required), ("unproven", Echo::Unproven)]);
        if echo == Some(Echo::Unproven) {
            findings.warn(
                item.path(),
                "echo = \"unproven\": the adapter reports frames as sent before they are; a cut cable shows as missing \
                 feedback only",
            );
        }
        self.plans.push(BusPlan {
            name: item.key.clone(),
            interface: interface.unwrap_or_default(),
            fd,
            echo: echo.unwrap_or(Echo::Required),
        });
        self.databases.push(database);
    }

    fn interface(&self, item: &Item, findings: &Findings) -> Option<String> {
        let text = item.text(findings)?;
        if let Err(why) = text.parse::<BusAddress>() {
            findings.at(item, format!("{text:?} is no interface: {why}"));
            return None;
        }
        if let Some(other) = self.plans.iter().find(|bus| bus.interface == text) {
            let reason = format!("{text} is already bus.{}: two writers on one bus", other.name);
            findings.at(item, reason);
            return None;
        }
        Some(text.to_owned())
    }

    /// The bus that a table names, or the only one.
    pub(super) fn chosen(&self, table: &Table<'_>) -> Option<usize> {
        let Some(item) = table.item("bus") else {
            if self.plans.len() > 1 {
                let names: Vec<&str> = self.plans.iter().map(|bus| bus.name.as_str()).collect();
                table.missing("bus", &format!("there are several: {}", names.join(", ")));
            }
            return (self.plans.len() == 1).then_some(0);
        };
        let name = item.text(table.findings)?;
        let found = self.plans.iter().position(|bus| bus.name == name);
        if found.is_none() {
            let names = || self.plans.iter().map(|bus| bus.name.as_str());
            let reason = format!("no bus {name:?}; there is: {}", names().collect::<Vec<_>>().join(", "));
            table.findings.at_like(item, reason, nearest(name, names()));
        }
        found
    }

    /// The name in the DBC that a table's own name looks most like.
    pub(super) fn meant(&self, table: &Table<'_>, bus: usize) -> Option<&str> {
        let messages = &self.databases.get(bus)?.as_ref()?.messages;
        let name = nearest(&table.of.key, messages.iter().map(|m| m.name.as_str()))?;
        messages.iter().find(|m| m.name == name).map(|m| m.name.as_str())
    }

    /// The message that a table describes: its `message` key, else its own name.
    pub(super) fn message(&self, table: &Table<'_>, bus: usize) -> Option<&Message> {
        let item = table.item("message");
        let name = match item {
            Some(item) => item.text(table.findings)?,
            None => &table.of.key,
        };
        let database = self.databases.get(bus)?.as_ref()?;
        let found = database.message(name);
        if found.is_none() {
            let place = item.unwrap_or(table.of);
            match database.refusal(name) {
                Some(why) => table.findings.at(place, format!("{name} cannot be used: {why}, in the DBC")),
                None => {
                    let reason = format!("the DBC of this bus has no message {name:?}");
                    let like = nearest(name, database.messages.iter().map(|m| m.name.as_str()));
                    table.findings.at_like(place, reason, like);
                }
            }
        }
        if let Some((message, why)) = found.and_then(|m| Some((m, database.doubled(m)?))) {
            let place = item.unwrap_or(table.of);
            let reason = format!("{} cannot be used: {why}, in the DBC; delete or rename one", message.name);
            table.findings.at(place, reason);
            return None;
        }
        found
    }
}

impl Buses {
    /// Whether a message travels as a CAN FD frame: as `fd` says, else where it is longer than a classic frame. Its
    /// length must exist on the wire.
    pub(super) fn frame_format(
        &self,
        table: &Table<'_>,
        item: Option<&Item>,
        said: Option<bool>,
        message: &Message,
        bus: usize,
    ) -> bool {
        let len = usize::from(message.len);
        let fd = said.unwrap_or(message.fd);
        let place = item.unwrap_or(table.of);
        let bus_fd = self.plans.get(bus).is_some_and(|bus| bus.fd);
        if len == 0 {
            table.findings.at(place, format!("{} has no payload and so no signals", message.name));
        } else if fd && !bus_fd {
            let reason = format!("{} is a CAN FD frame and its bus has no `fd = true`", message.name);
            table.findings.at(place, reason);
        } else if !is_valid_length(len, fd) {
            let kind = if fd { "CAN FD" } else { "classic CAN" };
            let reason = format!("a {kind} frame cannot carry the {len} bytes of {}", message.name);
            table.findings.at(place, reason);
        }
        fd
    }
}

/// The signal with this name, or a problem at `item`.
pub(super) fn signal<'m>(
    message: &'m Message,
    item: &Item,
    name: &str,
    findings: &Findings,
) -> Option<&'m Signal> {
    let found = message.signal(name);
    if found.is_none() {
        let reason = format!("message {} has no signal {name:?}", message.name);
        findings.at_like(item, reason, nearest(name, message.signals.iter().map(|s| s.name.as_str())));
    }
    found
}

/// What the configuration needs to know of a signal, in physical units. A signal whose bits cannot exist is a problem
/// at `item`.
pub(super) fn described(signal: &Signal, item: &Item, findings: &Findings) -> Option<Described> {
    let codec = match signal.codec {
        Ok(codec) => codec,
        Err(why) => {
            findings.at(item, format!("{} cannot be used: {why}, in the DBC", signal.name));
            return None;
        }
    };
    let (bits_low, bits_high) = match codec.raw {
        // What a float can hold is no statement about the vehicle.
        Raw::Float => (f64::NEG_INFINITY, f64::INFINITY),
        Raw::Unsigned | Raw::Signed => codec.physical_range(),
    };
    if let Some((low, high)) = signal.limits.filter(|(low, high)| low > high) {
        let (name, low, high) = (&signal.name, Short(low), Short(high));
        let reason = format!(
            "the DBC's range of {name} is [{low}|{high}], and {low} is above {high}: correct it there"
        );
        findings.at(item, reason);
        return None;
    }
    let (low, high) =
        signal.limits.map_or((bits_low, bits_high), |(low, high)| (low.max(bits_low), high.min(bits_high)));
    let physical = |raw: i64| raw as f64 * codec.factor + codec.offset;
    let names = signal.names.iter().map(|(raw, name)| (name.clone(), physical(*raw))).collect();
    Some(Described { name: signal.name.clone(), codec, low, high, names, json: None })
}

/// Reads a whole regular file of bounded size. Anything else is refused before it is opened: a FIFO would hold us until
/// somebody writes into it, which may be never.
pub(super) fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let kind = fs::metadata(path).map_err(|e| e.to_string())?.file_type();
    if !kind.is_file() {
        let kind = if kind.is_dir() { "directory" } else { "FIFO, a socket or a device" };
        return Err(format!("is no regular file but a {kind}"));
    }
    let file = File::open(path).map_err(|e| e.to_string())?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > most {
        return Err(format!("larger than {most} bytes"));
    }
    Ok(bytes)
}

fn load(
    item: &Item,
    findings: &Findings,
    files: &Files<'_>,
    digest: &mut Digest,
) -> Option<(Database, Description)> {
    let name = item.text(findings)?;
    let mut own = Digest::new();
    let mut take = |bytes: &[u8]| {
        digest.file(bytes);
        own.file(bytes);
    };
    let (path, text) = match files {
        Files::Folder(directory) => {
            let path = directory.join(name);
            match read_bounded(&path, DBC_BYTES as u64) {
                Ok(bytes) => take(&bytes),
                Err(error) => {
                    findings.at(item, format!("{}: {error}", path.display()));
                    return None;
                }
            }
            (path, None)
        }
        Files::Given(given) => {
            let Some((_, text)) = given.iter().find(|(known, _)| *known == name) else {
                findings.at(item, format!("{name} is not among the built-in files"));
                return None;
            };
            take(text.as_bytes());
            (PathBuf::from(name), Some(*text))
        }
    };
    match text.map_or_else(|| Database::load(&path), Database::parse) {
        Ok(database) => Some((database, Description { path, digest: own.hex() })),
        Err(error) => {
            findings.push(Problem {
                file: path,
                line: None,
                key: String::new(),
                reason: error.to_string(),
                nearest: None,
            });
            None
        }
    }
}
