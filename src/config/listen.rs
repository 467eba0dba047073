//! Where others may connect to this program, and who.
//!
//! Owns the reading of `listen` and `allow`, for every server of the program. Relies on `safety::allow` for the addresses.
//! Never lets a server be reached from other machines without a word about who may.

use std::net::{IpAddr, SocketAddr};

use super::problem::{Findings, Place as _};
use super::reader::{Item, Table};
use crate::safety::allow::{AllowList, Network};

/// Most networks that may connect.
const NETWORKS: usize = 16;

/// One of the program's servers.
#[derive(Debug)]
pub(super) struct Door {
    /// Its usual address, as an example.
    pub(super) usual: &'static str,
    /// Its usual port, as a remedy.
    pub(super) usual_port: &'static str,
    /// What a person should know who opens it to others.
    pub(super) risk: &'static str,
}

impl Door {
    /// An address to listen at.
    pub(super) fn address(&self, item: &Item, findings: &Findings) -> Option<SocketAddr> {
        let text = item.text(findings)?;
        let Ok(address) = text.parse::<SocketAddr>() else {
            let usual = self.usual;
            let reason = if text.parse::<IpAddr>().is_ok() {
                format!("must have a port, such as {usual:?}")
            } else {
                format!("must be an IP address and a port, such as {usual:?}, not {text:?}")
            };
            findings.at(item, reason);
            return None;
        };
        if address.port() == 0 {
            findings.at(item, format!("port 0 is no port: {}", self.usual_port));
            return None;
        }
        Some(address)
    }

    /// Who may connect beside this machine: `allow`, without which only the loopback address can be listened at.
    pub(super) fn allow(&self, table: &Table<'_>, listen: Option<(&Item, SocketAddr)>) -> AllowList {
        let findings = table.findings;
        let item = table.item("allow");
        let allow = item.map(|item| networks(item, findings)).unwrap_or_default();
        if let Some((place, address)) = listen
            && !address.ip().is_loopback()
        {
            if item.is_none() {
                findings.at(
                    place,
                    format!(
                        "{} can be reached from other machines: say who may connect, such as allow = [\"192.168.1.7\"]",
                        address.ip()
                    ),
                );
            } else {
                findings.warn(place.path(), self.risk);
            }
        }
        AllowList::new(allow)
    }
}

/// Whether a listener at `listen` would take the place of this machine's `server`.
pub(super) fn takes(listen: SocketAddr, server: SocketAddr) -> bool {
    // A listener on every address of this machine is also on its loopback address.
    let everywhere = listen.ip().is_unspecified() && server.ip().is_loopback();
    listen.port() == server.port() && (listen.ip() == server.ip() || everywhere)
}

fn networks(item: &Item, findings: &Findings) -> Vec<Network> {
    let items = item.list(findings).unwrap_or_default();
    if items.len() > NETWORKS {
        findings.at(item, format!("at most {NETWORKS} addresses and networks"));
    }
    let mut networks = Vec::new();
    for one in items {
        if let Some(text) = one.text(findings) {
            match text.parse::<Network>() {
                Ok(network) => {
                    if network.holds_everybody() {
                        findings.warn(
                            one.path(),
                            format!("{network} is everybody: whoever reaches the address may connect"),
                        );
                    }
                    networks.push(network);
                }
                Err(error) => findings.at(one, format!("{text:?}: {error}")),
            }
        }
    }
    networks
}
