//! The tunnels: which bus a laptop may see, from where, and which of its frames may pass.
//!
//! Owns `[tcpcan.*]`. Relies on `buses` for the names and on `safety::allow` for the addresses. Never lets an id through
//! that the gateway sends or listens to, whatever the file says: such a file is refused.

use std::net::SocketAddr;

use super::buses::Buses;
use super::listen::{Door, takes};
use super::problem::{Findings, nearest};
use super::reader::{Item, Table, Value};
use crate::can::Id;
use crate::safety::allow::AllowList;
use crate::signals::plan::{ReceivePlan, SendPlan};
use crate::time::Duration;

const TCPCAN: Door = Door {
    usual: "127.0.0.1:20010",
    usual_port: "tcpcan's own is 20010",
    risk: "tcpcan neither encrypts nor authenticates: whoever has an allowed address reads the bus. Better keep it on the \
           loopback address, behind SSH or WireGuard",
};

/// Most ids of one list. A diagnostic tool needs a handful; the lists are looked through for every frame.
const IDS: usize = 64;

/// Oldest frame that is handed on, in milliseconds: default and bounds. Below 10 a busy machine drops what is fresh, above
/// a minute "old" means nothing.
const AGE_MS: (u32, u32, u32) = (250, 10, 60_000);

/// The lists of ids that peers may send, in the order of the states that they are for.
const LISTS: [&str; 3] = ["always", "unless_armed", "diagnostic"];

/// Frames a second that one peer may put on the bus: default, where the total is not less, and bounds. 100 carries a
/// diagnostic session; 1,000 is an eighth of a full 1 Mbit/s bus.
const PEER_PER_S: (u32, u32, u32) = (100, 1, 1_000);

/// The same for all peers of a bus.
const TOTAL_PER_S: (u32, u32, u32) = (200, 1, 2_000);

/// One tunnel.
#[derive(Debug, Clone)]
pub struct TunnelPlan {
    /// Index of the bus.
    pub bus: usize,
    /// Where peers connect; never port 0.
    pub listen: SocketAddr,
    /// Who may connect beside this machine.
    pub allow: AllowList,
    /// Ids that peers may send in every state.
    pub always: Vec<Id>,
    /// Ids that peers may send in every state but ARMED and STOPPING.
    pub unless_armed: Vec<Id>,
    /// Ids that peers may send in DIAG only.
    pub diagnostic: Vec<Id>,
    /// No frame older than this is handed on.
    pub max_age: Duration,
    /// Frames a second that one peer may send.
    pub peer_per_s: u32,
    /// Frames a second that all peers may send.
    pub total_per_s: u32,
}

/// What the gateway itself does with the buses: no peer may send any of it.
#[derive(Debug)]
pub(super) struct Own<'a> {
    pub(super) send: &'a [SendPlan],
    pub(super) receive: &'a [ReceivePlan],
}

/// Reads `[tcpcan.*]`: one table for each bus that has a tunnel, named like the bus.
pub(super) fn read(root: &Table<'_>, buses: &Buses, own: &Own<'_>) -> Vec<TunnelPlan> {
    let mut tunnels: Vec<TunnelPlan> = Vec::new();
    let Some(table) = root.table("tcpcan") else { return tunnels };
    let ocp = ocp_address(root);
    for item in table.named() {
        let findings = table.findings;
        let bus = buses.plans.iter().position(|bus| bus.name == item.key);
        if bus.is_none() {
            let names = || buses.plans.iter().map(|bus| bus.name.as_str());
            let reason = format!(
                "no bus {:?}: a tunnel is named like its bus; there is: {}",
                item.key,
                names().collect::<Vec<_>>().join(", ")
            );
            findings.at_like(item, reason, nearest(&item.key, names()));
        }
        let Some(inner) = item.table(findings) else { continue };
        let tunnel = tunnel(&inner, bus.unwrap_or(usize::MAX), own, ocp);
        inner.finish();
        if let (Some(tunnel), Some(_)) = (tunnel, bus) {
            if tunnels.iter().any(|other| other.listen == tunnel.listen) {
                findings.at(item, format!("{} is another tunnel's address already", tunnel.listen));
            }
            tunnels.push(tunnel);
        }
    }
    tunnels
}

/// The OCP server's address, where `[ocp]` has one that can be read; what is wrong with it is reported there.
pub(super) fn ocp_address<'a>(root: &Table<'a>) -> Option<SocketAddr> {
    let inside = |items: &'a [Item], key| items.iter().find(|item| item.key == key).map(|item| &item.value);
    let Value::Table(entries) = inside(root.named(), "ocp")? else { return None };
    let Value::Text(text) = inside(entries, "address")? else { return None };
    text.parse().ok()
}

fn tunnel(table: &Table<'_>, bus: usize, own: &Own<'_>, ocp: Option<SocketAddr>) -> Option<TunnelPlan> {
    let findings = table.findings;
    let listen = table
        .required("listen", "where peers connect, such as \"127.0.0.1:20010\"")
        .and_then(|item| TCPCAN.address(item, findings).map(|address| (item, address)));
    if let Some((item, _)) = listen.filter(|(_, address)| ocp.is_some_and(|ocp| takes(*address, ocp))) {
        findings.at(item, "is where the OCP server listens (ocp.address): take another port");
    }
    let allow = TCPCAN.allow(table, listen);
    let inject = table.table("inject");
    let mut listed: Vec<(Id, &str)> = Vec::new();
    if let Some(inject) = inject {
        for key in LISTS {
            if let Some(item) = inject.item(key) {
                ids(item, key, bus, own, &mut listed, findings);
            }
        }
        inject.finish();
    }
    let [always, unless_armed, diagnostic] =
        LISTS.map(|key| listed.iter().filter(|(_, list)| *list == key).map(|(id, _)| *id).collect());
    let number = |key, (default, min, max): (u32, u32, u32), unit| {
        table.integer(key, min, max, unit).unwrap_or(default)
    };
    let max_age = Duration::from_millis(number("max_age_ms", AGE_MS, " ms").into());
    let total_per_s = number("total_frames_per_s", TOTAL_PER_S, " frames per second");
    let (default, min, max) = PEER_PER_S;
    let peer_per_s = number("frames_per_s", (default.min(total_per_s), min, max), " frames per second");
    if let Some(item) = table.item("frames_per_s").filter(|_| peer_per_s > total_per_s) {
        let reason = format!(
            "{peer_per_s} for one peer, and {total_per_s} for all peers together (total_frames_per_s): one of them is \
             not meant"
        );
        findings.at(item, reason);
    }
    let (_, listen) = listen?;
    Some(TunnelPlan {
        bus,
        listen,
        allow,
        always,
        unless_armed,
        diagnostic,
        max_age,
        peer_per_s,
        total_per_s,
    })
}

/// Reads a list of ids: numbers (above 0x7FF they have 29 bits), or texts as candump writes them (eight digits have 29).
/// What is good is added to `listed`, with the name of the list.
fn ids(
    item: &Item,
    list: &'static str,
    bus: usize,
    own: &Own<'_>,
    listed: &mut Vec<(Id, &'static str)>,
    findings: &Findings,
) {
    let items = item.list(findings).unwrap_or_default();
    if items.len() > IDS {
        findings.at(item, format!("at most {IDS} ids"));
    }
    for one in items.iter().take(IDS) {
        let Some(id) = id(one, findings) else { continue };
        // By number alone, as the gate does: the same number in the other encoding is refused as well.
        if let Some(send) = own.send.iter().find(|send| send.bus == bus && send.id.raw() == id.raw()) {
            findings.at(one, format!("{id} is {}, which only the gateway may send", send.name));
        } else if let Some(receive) =
            own.receive.iter().find(|receive| receive.bus == bus && receive.id.raw() == id.raw())
        {
            let reason =
                format!("{id} is {}, which the gateway relies on as the vehicle's own", receive.name);
            findings.at(one, reason);
        } else if let Some((_, other)) = listed.iter().find(|(known, _)| *known == id) {
            // Which of two lists counts is nothing to be guessed.
            let reason = if *other == list {
                format!("{id} is listed twice")
            } else {
                format!("{id} is already in `{other}`")
            };
            findings.at(one, reason);
        } else {
            listed.push((id, list));
        }
    }
}

fn id(item: &Item, findings: &Findings) -> Option<Id> {
    let id = match &item.value {
        Value::Integer(number) => {
            u32::try_from(*number).ok().and_then(|raw| Id::standard(raw).or_else(|| Id::extended(raw)))
        }
        Value::Text(text) if text.len() == 8 => u32::from_str_radix(text, 16).ok().and_then(Id::extended),
        Value::Text(text) if (1..=3).contains(&text.len()) => {
            u32::from_str_radix(text, 16).ok().and_then(Id::standard)
        }
        _ => None,
    };
    if id.is_none() {
        findings.at(
            item,
            "must be a CAN id: a number up to 0x1FFFFFFF, or a text of three (11 bits) or eight (29 bits) hexadecimal \
             digits",
        );
    }
    id
}
