//! The devices of a gateway: what `ListDevices` lists and `GetDeviceInfo` describes.
//!
//! Owns the ids and the records. Relies on the facts. Contains no decision. Ids are texts, stable across restarts but for the
//! peers of a tunnel, which are named by their address.

use serde_json::{Map, Value, json};

use super::Management;
use super::car::{CAR, CAR_TOPICS};
use super::facts::{BusFacts, PeerFacts, SendFacts, ms, rounded};
use super::history::{BUS_TOPICS, LINK_TOPICS, TUNNEL_TOPICS};
use crate::can::errorframe::ControllerState;
use crate::nodes::spread::Percentiles;
use crate::safety::envelope::is_actuator;
use crate::signals::plan::{Echo, Kind, Plan, SendMode, SendPlan};
use crate::time::{Instant, millis_f64};

/// The connection to OCP.
pub const OCP: &str = "ocp";

/// A bus.
#[must_use]
pub fn bus_id(plan: &Plan, bus: usize) -> String {
    format!("bus:{}", bus_name(plan, bus))
}

/// The name of a bus.
#[must_use]
pub fn bus_name(plan: &Plan, bus: usize) -> &str {
    plan.buses.get(bus).map_or("?", |bus| &bus.name)
}

/// The tunnel of a bus.
#[must_use]
pub fn tunnel_id(plan: &Plan, bus: usize) -> String {
    format!("tunnel:{}", bus_name(plan, bus))
}

fn send_id(send: &SendPlan) -> String {
    format!("send:{}", send.name)
}

fn peer_id(peer: &PeerFacts) -> String {
    format!("peer:{}", peer.address)
}

/// One device by its id.
#[derive(Debug, Clone, Copy)]
enum Device<'a> {
    Ocp,
    Bus(usize),
    Send(usize),
    Tunnel(usize),
    Peer(&'a PeerFacts),
    Car,
}

/// What a bus is doing, in one word.
#[must_use]
pub fn bus_state(bus: &BusFacts) -> &'static str {
    match (bus.up, bus.controller) {
        (false, _) => "Down",
        (true, Some(ControllerState::BusOff)) => "BusOff",
        _ if bus.no_echo => "NoEcho",
        (true, None) => "Up",
        (true, Some(ControllerState::Active)) => "ErrorActive",
        (true, Some(ControllerState::Warning)) => "ErrorWarning",
        (true, Some(ControllerState::Passive)) => "ErrorPassive",
    }
}

fn link_state(connected: bool) -> &'static str {
    if connected { "Connected" } else { "Disconnected" }
}

/// Percentiles as a record.
#[must_use]
pub fn percentiles(seen: &Percentiles) -> Map<String, Value> {
    object([
        ("P50Ms", json!(seen.p50_ms)),
        ("P99Ms", json!(seen.p99_ms)),
        ("MaxMs", json!(seen.max_ms)),
        ("Count", json!(seen.count)),
    ])
}

/// A record of these keys.
pub(super) fn object(entries: impl IntoIterator<Item = (&'static str, Value)>) -> Map<String, Value> {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The same, without those that are not known: an optional key is left out, never null.
pub(super) fn known(entries: impl IntoIterator<Item = (&'static str, Option<Value>)>) -> Map<String, Value> {
    object(entries.into_iter().filter_map(|(key, value)| Some((key, value?))))
}

impl Management {
    /// Every device: id, kind, name and state.
    #[must_use]
    pub fn devices(&self) -> Vec<Value> {
        let plan = &self.identity.plan;
        let entry = |id: String, kind: &str, name: &str, state: &str| json!({ "DeviceId": id, "Kind": kind, "Name": name, "State": state });
        let mut devices = Vec::new();
        for (index, bus) in plan.buses.iter().enumerate() {
            let state = self.facts.buses.get(index).map_or("Down", bus_state);
            devices.push(entry(bus_id(plan, index), "CanBus", &bus.name, state));
        }
        devices.push(entry(OCP.to_owned(), "OcpLink", "OCP Streamer", link_state(self.facts.connected)));
        for (index, send) in plan.send.iter().enumerate() {
            let kind = if is_actuator(send) { "ActuatorMessage" } else { "Message" };
            devices.push(entry(send_id(send), kind, &send.name, self.send_state(index)));
        }
        for (bus, address) in &self.identity.tunnels {
            let peers = self.facts.peers.iter().filter(|peer| peer.bus == *bus).count();
            let state = if peers > 0 { "InUse" } else { "Listening" };
            devices.push(entry(tunnel_id(plan, *bus), "Tunnel", &address.to_string(), state));
        }
        for peer in &self.facts.peers {
            let state = if peer.agreed { "Connected" } else { "NotAgreed" };
            devices.push(entry(peer_id(peer), "TunnelPeer", &peer.address.to_string(), state));
        }
        if let Some(car) = &self.identity.car {
            let name = car.feed.address().to_string();
            devices.push(entry(CAR.to_owned(), "SimulatedCar", &name, self.car_state()));
        }
        devices
    }

    fn find(&self, id: &str) -> Option<Device<'_>> {
        let plan = &self.identity.plan;
        if id == OCP {
            return Some(Device::Ocp);
        }
        if id == CAR {
            return self.identity.car.is_some().then_some(Device::Car);
        }
        let (kind, name) = id.split_once(':')?;
        match kind {
            "bus" => plan.buses.iter().position(|bus| bus.name == name).map(Device::Bus),
            "send" => plan.send.iter().position(|send| send.name == name).map(Device::Send),
            "tunnel" => {
                let mut tunnels = self.identity.tunnels.iter().map(|(bus, _)| *bus);
                tunnels.find(|bus| bus_name(plan, *bus) == name).map(Device::Tunnel)
            }
            "peer" => self.facts.peers.iter().find(|peer| peer_id(peer) == id).map(Device::Peer),
            _ => None,
        }
    }

    /// Whether there is such a device.
    #[must_use]
    pub fn has_device(&self, id: &str) -> bool {
        self.find(id).is_some()
    }

    /// The topics of a device: what it publishes under `DeviceEvents`.
    #[must_use]
    pub fn topics(&self, id: &str) -> &'static [&'static str] {
        match self.find(id) {
            Some(Device::Bus(_)) => &BUS_TOPICS,
            Some(Device::Ocp) => &LINK_TOPICS,
            Some(Device::Car) => &CAR_TOPICS,
            Some(Device::Tunnel(_)) => &TUNNEL_TOPICS,
            Some(Device::Send(_) | Device::Peer(_)) | None => &[],
        }
    }

    /// Everything about one device.
    #[must_use]
    pub fn device(&self, now: Instant, id: &str) -> Option<Map<String, Value>> {
        let device = self.find(id)?;
        let (kind, mut record) = match device {
            Device::Ocp => ("OcpLink", self.ocp(now)),
            Device::Bus(bus) => ("CanBus", self.bus(bus)),
            Device::Send(message) => return self.send(message),
            Device::Tunnel(bus) => ("Tunnel", self.tunnel(bus)),
            Device::Peer(peer) => ("TunnelPeer", self.peer(now, peer)),
            Device::Car => ("SimulatedCar", self.car(now)),
        };
        record.insert("DeviceId".to_owned(), json!(id));
        record.insert("Kind".to_owned(), json!(kind));
        let topics = self.topics(id);
        if !topics.is_empty() {
            record.insert("Topics".to_owned(), json!(topics));
        }
        Some(record)
    }

    fn ocp(&self, now: Instant) -> Map<String, Value> {
        let facts = &self.facts;
        let status = facts.status.as_ref();
        known([
            ("Address", Some(json!(self.identity.ocp.to_string()))),
            ("State", Some(json!(link_state(facts.connected)))),
            ("ForMs", self.link_age_ms(now).map(Value::from)),
            ("Why", self.link_text().map(Value::from)),
            ("MessageAgeMs", facts.message_age_ms.map(Value::from)),
            ("AckTimeAgeMs", facts.ack_age_ms.map(Value::from)),
            ("OperatorCounterAgeMs", facts.counter_age_ms.map(Value::from)),
            ("ValidMessagesInARow", status.map(|status| json!(status.session_run))),
            ("LatencyMs", facts.ocp_latency.map(|seen| Value::Object(percentiles(&seen)))),
            ("DoorToBusMs", facts.door_to_bus.map(|seen| Value::Object(percentiles(&seen)))),
            ("Counters", Some(counters(facts.counters.iter().filter(|(name, _)| name.contains("OCP"))))),
        ])
    }

    fn bus(&self, bus: usize) -> Map<String, Value> {
        let mut record = self.bus_record(bus);
        let Some(plan) = self.identity.plan.buses.get(bus) else { return record };
        let echo = match plan.echo {
            Echo::Required => "required",
            Echo::Unproven => "unproven",
        };
        record.insert("Fd".to_owned(), json!(plan.fd));
        record.insert("Echo".to_owned(), json!(echo));
        if let Some(facts) = self.facts.buses.get(bus) {
            record.insert("Frames".to_owned(), json!(facts.frames));
            if !facts.driver.is_empty() {
                record.insert("Driver".to_owned(), json!(facts.driver));
            }
            if let Some(rate) = facts.data_bitrate_bps {
                record.insert("DataBitrateBps".to_owned(), json!(rate));
            }
        }
        let sent = self.identity.plan.send.iter().filter(|send| send.bus == bus).map(send_id);
        record.insert("Sends".to_owned(), json!(sent.collect::<Vec<_>>()));
        record
    }

    /// A bus as the status shows it.
    pub(super) fn bus_record(&self, bus: usize) -> Map<String, Value> {
        let plan = &self.identity.plan;
        let facts = self.facts.buses.get(bus).cloned().unwrap_or_default();
        known([
            ("DeviceId", Some(json!(bus_id(plan, bus)))),
            ("Name", Some(json!(bus_name(plan, bus)))),
            ("Interface", plan.buses.get(bus).map(|bus| json!(bus.interface))),
            ("State", Some(json!(bus_state(&facts)))),
            ("BitrateBps", facts.bitrate_bps.map(Value::from)),
            ("LoadPercent", facts.load_percent.map(|load| json!(rounded(load, 10.0)))),
            ("FramesPerS", Some(json!(rounded(facts.frames_per_s, 10.0)))),
            ("TxErrors", facts.errors.map(|(transmit, _)| json!(transmit))),
            ("RxErrors", facts.errors.map(|(_, receive)| json!(receive))),
            ("ErrorMessages", Some(json!(facts.error_messages))),
            ("Dropped", Some(json!(facts.dropped))),
        ])
    }

    fn send_state(&self, message: usize) -> &'static str {
        let period = self.identity.plan.send.get(message).map_or(0.0, |send| millis_f64(send.period));
        match self.facts.sends.get(message).and_then(|facts| facts.confirmed_age_ms) {
            _ if self.identity.listen_only => "NotSent",
            None => "NotSent",
            // Three periods: one that is late by scheduling is no silence.
            Some(age) if age > 3.0 * period => "Silent",
            Some(_) => "Sent",
        }
    }

    fn send(&self, message: usize) -> Option<Map<String, Value>> {
        let plan = &self.identity.plan;
        let send = plan.send.get(message)?;
        let facts = self.facts.sends.get(message).copied().unwrap_or_default();
        let SendFacts { written, refused, confirmed, confirmed_age_ms, period } = facts;
        let mode = match send.mode {
            SendMode::Cyclic => "cyclic",
            SendMode::OnCommand { .. } => "on_command",
        };
        let signals = send.signals.iter().map(|signal| {
            let kind = match signal.kind {
                Kind::Throttle => "throttle",
                Kind::Brake => "brake",
                Kind::Steering => "steering",
                Kind::Enable => "enable",
                Kind::Other => "other",
            };
            json!({ "Name": signal.name, "Kind": kind, "Safe": signal.safe, "Min": signal.min, "Max": signal.max })
        });
        Some(known([
            ("DeviceId", Some(json!(send_id(send)))),
            ("Kind", Some(json!(if is_actuator(send) { "ActuatorMessage" } else { "Message" }))),
            ("Name", Some(json!(send.name))),
            ("Bus", Some(json!(bus_id(plan, send.bus)))),
            ("Id", Some(json!(send.id.to_string()))),
            ("Bytes", Some(json!(send.len))),
            ("Fd", Some(json!(send.fd))),
            ("Mode", Some(json!(mode))),
            ("PeriodMs", Some(json!(millis_f64(send.period)))),
            ("Counter", Some(json!(send.counter.is_some()))),
            ("Checksum", Some(json!(send.checksum.is_some()))),
            ("Signals", Some(Value::Array(signals.collect()))),
            ("State", Some(json!(self.send_state(message)))),
            ("Written", Some(json!(written))),
            ("NotTaken", Some(json!(refused))),
            ("Confirmed", Some(json!(confirmed))),
            ("ConfirmedAgeMs", confirmed_age_ms.map(Value::from)),
            ("MeasuredPeriodMs", period.map(|seen| Value::Object(percentiles(&seen)))),
        ]))
    }

    fn tunnel(&self, bus: usize) -> Map<String, Value> {
        let plan = &self.identity.plan;
        let peers: Vec<String> =
            self.facts.peers.iter().filter(|peer| peer.bus == bus).map(peer_id).collect();
        let address =
            self.identity.tunnels.iter().find(|(at, _)| *at == bus).map(|(_, address)| address.to_string());
        let state = if peers.is_empty() { "Listening" } else { "InUse" };
        known([
            ("Bus", Some(json!(bus_id(plan, bus)))),
            ("Address", address.map(Value::from)),
            ("State", Some(json!(state))),
            ("Peers", Some(json!(peers))),
            // Of all tunnels together: they share one thread and its numbers.
            ("CountersOfAllTunnels", Some(counters(self.facts.tunnel_counters.iter()))),
        ])
    }

    fn peer(&self, now: Instant, peer: &PeerFacts) -> Map<String, Value> {
        let mut record = self.peer_record(now, peer);
        record.insert("Tunnel".to_owned(), json!(tunnel_id(&self.identity.plan, peer.bus)));
        record
    }

    /// A peer as the status shows it.
    pub(super) fn peer_record(&self, now: Instant, peer: &PeerFacts) -> Map<String, Value> {
        object([
            ("DeviceId", json!(peer_id(peer))),
            ("Address", json!(peer.address.to_string())),
            ("Bus", json!(bus_name(&self.identity.plan, peer.bus))),
            ("Agreed", json!(peer.agreed)),
            ("ForMs", json!(ms(now.since(peer.since)))),
            ("FramesToBus", json!(peer.to_bus)),
            ("FramesToPeer", json!(peer.to_peer)),
            ("Waiting", json!(peer.waiting)),
            ("Dropped", json!(peer.dropped)),
        ])
    }
}

/// Counters as a record; those that are zero are left out.
pub(super) fn counters<'a>(counters: impl Iterator<Item = &'a (&'static str, u64)>) -> Value {
    Value::Object(
        counters
            .filter(|(_, value)| *value > 0)
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect(),
    )
}
