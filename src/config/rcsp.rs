//! The management plane: where it is asked, and by whom.
//!
//! Owns `[rcsp]`. Relies on `listen`. Never opens anything that could arm or move: there is no such command.

use std::net::{Ipv4Addr, SocketAddr};

use super::listen::{Door, takes};
use super::reader::Table;
use super::tunnel::{TunnelPlan, ocp_address};
use crate::safety::allow::AllowList;

/// The port of the protocol. Source: the vendor's public example.
pub const PORT: u16 = 45_451;

const RCSP: Door = Door {
    usual: "127.0.0.1:45451",
    usual_port: "the protocol's own is 45451",
    risk: "RCSP neither encrypts nor authenticates: whoever has an allowed address reads everything, the configuration among \
           it. Better keep it on the loopback address, behind SSH or WireGuard",
};

/// The management plane.
#[derive(Debug, Clone)]
pub struct RcspPlan {
    /// Where clients connect; never port 0 out of a file.
    pub listen: SocketAddr,
    /// Who may connect beside this machine.
    pub allow: AllowList,
    /// Whether a client on another machine may ask for a stop.
    pub remote_stop: bool,
}

impl Default for RcspPlan {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)),
            allow: AllowList::new(Vec::new()),
            remote_stop: false,
        }
    }
}

/// Reads `[rcsp]`; without it this machine can ask at the usual port. `None` where it is switched off.
pub(super) fn read(root: &Table<'_>, tunnels: &[TunnelPlan]) -> Option<RcspPlan> {
    let Some(table) = root.table("rcsp") else { return Some(RcspPlan::default()) };
    let findings = table.findings;
    let is_on = table.flag("enabled").unwrap_or(true);
    let listen = table.item("listen").and_then(|item| RCSP.address(item, findings).map(|at| (item, at)));
    if let Some((item, at)) = listen {
        if ocp_address(root).is_some_and(|ocp| takes(at, ocp)) {
            findings.at(item, "is where the OCP server listens (ocp.address): take another port");
        }
        if tunnels.iter().any(|tunnel| takes(at, tunnel.listen) || takes(tunnel.listen, at)) {
            findings.at(item, "is where a tunnel listens: take another port");
        }
    }
    let allow = RCSP.allow(&table, listen);
    let remote_stop = table.flag("remote_stop").unwrap_or(false);
    if let Some(item) = table.item("remote_stop").filter(|_| remote_stop && allow.is_empty()) {
        findings.at(item, "has no effect: `allow` lets no other machine in");
    }
    table.finish();
    let usual = RcspPlan::default();
    is_on.then_some(RcspPlan { listen: listen.map_or(usual.listen, |(_, at)| at), allow, remote_stop })
}
