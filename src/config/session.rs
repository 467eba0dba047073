//! The tables that do not touch the DBC: the OCP session of a vehicle and the times.
//!
//! Owns `[ocp]`, `[safety]` and `[log]`, and what an OCP server's address must be. Relies on `reader` and on the bounds of `safety::settings`. Never resolves a name.

use super::problem::Findings;
use super::reader::{Item, Table};
use super::{LogLevel, OcpSettings, RealTime, UserForm};
use crate::safety::settings::{ARMS_PER_MINUTE, BOUNDS, Settings};
use crate::time::millis_f64;
use std::net::{IpAddr, SocketAddr};

/// What `[safety]` says.
#[derive(Debug)]
pub(super) struct Safety {
    pub(super) settings: Settings,
    pub(super) arms_per_minute: u32,
    pub(super) real_time: RealTime,
}

/// Reads `[safety]`; every key has a default.
pub(super) fn safety(root: &Table<'_>) -> Safety {
    let mut safety = Safety {
        settings: Settings::default(),
        arms_per_minute: ARMS_PER_MINUTE.0,
        real_time: RealTime::default(),
    };
    let Some(table) = root.table("safety") else { return safety };
    for bound in BOUNDS {
        if let Some(ms) = table.integer(bound.key, bound.min_ms, bound.max_ms, " ms") {
            // The key comes from the same table as the setter, so it exists.
            let _ = safety.settings.set_ms(bound.key, ms);
        }
    }
    let (_, min, max) = ARMS_PER_MINUTE;
    if let Some(arms) = table.integer("arms_per_minute", min, max, "") {
        safety.arms_per_minute = arms;
    }
    let policies = [("warn", RealTime::Warn), ("required", RealTime::Required)];
    if let Some(policy) = table.choice("real_time", &policies) {
        safety.real_time = policy;
    }
    let (warn, stop) = (safety.settings.latency_warn, safety.settings.latency_stop);
    if warn >= stop {
        let place = table.item("latency_warn_ms").or_else(|| table.item("latency_stop_ms"));
        if let Some(place) = place {
            let (warn, stop) = (millis_f64(warn), millis_f64(stop));
            table.findings.at(
                place,
                format!("latency_warn_ms must be below latency_stop_ms: {warn} ms is not below {stop} ms"),
            );
        }
    }
    table.finish();
    safety
}

/// Reads `[log]`.
pub(super) fn log(root: &Table<'_>) -> LogLevel {
    let Some(table) = root.table("log") else { return LogLevel::default() };
    let level = table.choice("level", &LogLevel::NAMES).unwrap_or_default();
    table.finish();
    level
}

/// Reads `[ocp]`.
pub(super) fn ocp(root: &Table<'_>) -> Option<OcpSettings> {
    let what = "the [ocp] table with the address of the OCP server";
    let table = root.required("ocp", what)?.table(root.findings)?;
    let address = table
        .required("address", "the OCP server, such as \"127.0.0.1:4000\"")
        .and_then(|item| address(item, table.findings, &STREAMER));
    let forms = [("auto", UserForm::Auto), ("bare", UserForm::Bare), ("wrapped", UserForm::Wrapped)];
    let user_data = table.choice("user_data", &forms).unwrap_or_default();
    let withhold_acks_when_can_dead = table.flag("withhold_acks_when_can_dead").unwrap_or(false);
    table.finish();
    Some(OcpSettings { address: address?, user_data, withhold_acks_when_can_dead })
}

/// One of OCP's two servers.
#[derive(Debug)]
pub(super) struct Server {
    /// Where its address stands in the file.
    pub(super) key: &'static str,
    /// What it is called.
    pub(super) name: &'static str,
    /// Its usual address.
    pub(super) usual: &'static str,
    /// What a stranger can do who answers at the address.
    pub(super) danger: &'static str,
}

/// The Streamer's, in the vehicle.
const STREAMER: Server = Server {
    key: "ocp.address",
    name: "the OCP server",
    usual: "127.0.0.1:4000",
    danger: "drives the vehicle",
};

/// An address and port. Names are refused: the gateway connects to one configured peer and asks no name server who
/// that is (fault 106).
pub(super) fn address(item: &Item, findings: &Findings, server: &Server) -> Option<SocketAddr> {
    let text = item.text(findings)?;
    let usual = server.usual;
    let Ok(address) = text.parse::<SocketAddr>() else {
        let reason = if text.parse::<IpAddr>().is_ok() {
            format!("must have a port, such as {usual:?}")
        } else {
            format!(
                "must be an IP address and a port, such as {usual:?}, not {text:?}; host names are not looked up"
            )
        };
        let nearest = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        findings.at_like(item, reason, nearest);
        return None;
    };
    if address.port() == 0 {
        let port = usual.rsplit(':').next().unwrap_or_default();
        findings.at(item, format!("port 0 is no port: {} usually listens on {port}", server.name));
        return None;
    }
    if address.ip().is_unspecified() || address.ip().is_multicast() {
        findings.at(item, format!("{} is no address of a server", address.ip()));
        return None;
    }
    if !address.ip().is_loopback() {
        findings.warn(
            server.key,
            format!(
                "{} is another machine and OCP has no authentication: whoever answers there {}. \
                 Use a tunnel that ends on the loopback address, or a network that nobody else can reach",
                address.ip(),
                server.danger
            ),
        );
    }
    Some(address)
}
