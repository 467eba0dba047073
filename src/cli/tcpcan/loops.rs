//! Tunnels of this machine that would make a ring: a frame in it is sent again and again, without end.
//!
//! Owns what can be known on one machine: two callers of one bus to one server, and a caller on its own server's bus. Relies on
//! [`Claim`]. Never sees a ring over several machines, or one through SSH: README warns of those.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{if_indextoname, if_nametoindex};

use crate::io::canbus::BusAddress;
use crate::io::claim::{Claim, ClaimError};

/// What every name and address of this machine counts as.
const HERE: &str = "localhost";

/// The claims of one tunnel.
#[derive(Debug)]
pub(super) struct Loops {
    /// What the person calls the bus.
    bus: BusAddress,
    /// What the machine calls it.
    key: String,
    held: Vec<Claim>,
}

impl Loops {
    pub(super) fn new(bus: &BusAddress) -> Self {
        let name = match bus {
            // An interface can have several names; the kernel calls it by one of them.
            BusAddress::Kernel(name) => if_nametoindex(name.as_str())
                .and_then(if_indextoname)
                .ok()
                .and_then(|name| name.into_string().ok()),
            BusAddress::Sim(_) => None,
        };
        Self { bus: bus.clone(), key: name.unwrap_or_else(|| bus.to_string()), held: Vec::new() }
    }

    /// A server on this bus listens at this port.
    pub(super) fn note_server(&mut self, port: u16) {
        // Another server of the same bus at another address of this port may have said so already.
        if let Ok(claim) = Claim::take(&self.server(port)) {
            self.held.push(claim);
        }
    }

    /// This bus is about to be joined to that server, by its name or address.
    pub(super) fn claim_call(&mut self, host: &str, port: u16) -> Result<(), String> {
        let bus = &self.bus;
        let host = place(host);
        if host == HERE && Claim::is_taken(&self.server(port)) {
            return Err(format!(
                "{bus}: the server at port {port} of this machine stands on this very bus, and each frame would come back \
                 without end; --host names the other machine"
            ));
        }
        let name = format!("call/{}/{host}/{port}", self.key);
        if self.held.iter().any(|claim| claim.name() == name) {
            return Ok(());
        }
        match Claim::take(&name) {
            Ok(claim) => self.held.push(claim),
            Err(ClaimError::Held(holder)) => {
                let who = holder.map_or_else(String::new, |pid| format!(" (process {pid})"));
                return Err(format!(
                    "{bus}: another tunnel{who} joins this bus to {host} port {port} already, and with two of them each frame \
                     would go round without end"
                ));
            }
            // A guard against a mistake, not worth ending for.
            Err(ClaimError::Io(_)) => {}
        }
        Ok(())
    }

    fn server(&self, port: u16) -> String {
        format!("serve/{}/{port}", self.key)
    }
}

/// A host in one of its spellings; this machine always in the same.
fn place(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(ip) if is_here(ip) => HERE.to_owned(),
        Ok(ip) => ip.to_string(),
        Err(_) => host.trim_end_matches('.').to_ascii_lowercase(),
    }
}

/// Whether this machine has that address.
fn is_here(ip: IpAddr) -> bool {
    ip.is_loopback()
        || ip.is_unspecified()
        || getifaddrs().is_ok_and(|interfaces| {
            interfaces.filter_map(|interface| interface.address).any(|address| {
                let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
                let v6 = address.as_sockaddr_in6().map(|address| IpAddr::from(address.ip()));
                v4.or(v6) == Some(ip)
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(name: &str) -> Loops {
        Loops::new(&format!("sim:{name}{}", std::process::id() % 100_000).parse().unwrap())
    }

    #[test]
    fn one_caller_for_each_bus_and_server() {
        let (mut first, mut second, mut other) = (on("loopa"), on("loopa"), on("loopb"));
        first.claim_call("vehicle.local", 20_010).unwrap();
        first.claim_call("192.0.2.7", 20_010).unwrap();
        first.claim_call("Vehicle.local.", 20_010).unwrap();
        for host in ["vehicle.local", "VEHICLE.local", "192.0.2.7"] {
            let text = second.claim_call(host, 20_010).unwrap_err();
            assert!(text.contains("without end"), "{text}");
        }
        second.claim_call("vehicle.local", 20_011).unwrap();
        other.claim_call("vehicle.local", 20_010).unwrap();
        drop(first);
        second.claim_call("vehicle.local", 20_010).unwrap();
    }

    #[test]
    fn this_machine_has_one_place_and_no_call_goes_to_a_server_on_its_own_bus() {
        assert_eq!(["localhost", "127.0.0.1", "::1", "127.0.1.1", "LocalHost"].map(place), [HERE; 5]);
        assert_ne!(place("192.0.2.7"), HERE);
        let (mut server, mut caller, mut far) = (on("loopc"), on("loopc"), on("loopd"));
        server.note_server(20_010);
        server.note_server(20_010);
        for host in ["localhost", "127.0.0.1", "::1"] {
            let text = caller.claim_call(host, 20_010).unwrap_err();
            assert!(text.contains("this very bus"), "{text}");
        }
        caller.claim_call("192.0.2.7", 20_010).unwrap();
        caller.claim_call("localhost", 20_011).unwrap();
        far.claim_call("localhost", 20_010).unwrap();
    }
}
