//! `GwGetStatus`: everything on one page.
//!
//! Owns the record that `ocpcan status` shows. Relies on the facts and the history. Contains no decision.

use serde_json::{Map, Value, json};

use super::Management;
use super::devices::{OCP, known, percentiles};
use super::facts::ms;
use crate::nodes::report::next_step;
use crate::nodes::spread::Percentiles;
use crate::safety::faults::{Class, Fault};
use crate::safety::input::{StateName, Status};
use crate::time::Instant;

/// Events on the page.
const EVENTS: usize = 5;

/// What to do next. In LOCKOUT the reader of this page is the person who can.
fn next(status: &Status) -> Option<&'static str> {
    if status.state == StateName::Lockout {
        return Some(
            "look at the vehicle; then, on the gateway itself: ocpcan rcsp call GwAcknowledgeLockout",
        );
    }
    next_step(status)
}

fn fault(fault: Fault) -> Value {
    json!({ "Name": fault.name(), "Text": fault.text() })
}

impl Management {
    /// The page.
    #[must_use]
    pub fn status(&self, now: Instant) -> Map<String, Value> {
        let identity = &self.identity;
        let mut page = known([
            ("Vehicle", Some(json!(identity.plan.vehicle))),
            ("Role", Some(json!("vehicle"))),
            ("Version", Some(json!(identity.version))),
            ("ConfigDigest", Some(json!(identity.digest))),
            ("UptimeMs", Some(json!(ms(now.since(identity.started_at))))),
            ("ListenOnly", Some(json!(identity.listen_only))),
        ]);
        page.extend(self.core_record(now));
        page.extend(known([
            ("Sources", Some(Value::Array(self.sources()))),
            ("Buses", Some(self.bus_records())),
            (
                "Links",
                Some(Value::Array(
                    std::iter::once(self.link_record(now)).chain(self.car_link(now)).collect(),
                )),
            ),
            (
                "Peers",
                Some(Value::Array(
                    self.facts.peers.iter().map(|peer| self.peer_record(now, peer).into()).collect(),
                )),
            ),
            ("Latency", Some(Value::Array(self.latency()))),
            ("RealTime", Some(Value::Object(self.real_time()))),
            ("Events", Some(self.records(now, self.history.last_own(EVENTS)))),
        ]));
        page
    }

    /// State, cause and what is missing to arm.
    fn core_record(&self, now: Instant) -> Map<String, Value> {
        let Some(status) = &self.facts.status else {
            // Before the core's first step nothing is known, and nothing is sent.
            return known([("State", Some(json!("INIT"))), ("Faults", Some(json!([])))]);
        };
        let cause = status.cause.map(|trip| {
            let class = match trip.fault.class() {
                Class::A => "A",
                Class::B => "B",
            };
            json!({
                "Fault": trip.fault.name(), "Text": trip.fault.text(), "Class": class, "From": trip.from.name(),
                "AgeMs": ms(now.since(trip.at)),
            })
        });
        let reaction = status
            .reaction
            .map(|reaction| json!({ "Fault": reaction.trip.fault.name(), "Ms": ms(reaction.time) }));
        let checklist = status.checklist.points();
        let checklist = checklist.map(|(name, met, todo)| json!({ "Name": name, "Met": met, "Todo": todo }));
        known([
            ("State", Some(json!(status.state.name()))),
            ("InStateMs", Some(json!(ms(now.since(status.since))))),
            ("Faults", Some(Value::Array(status.faults.iter().map(fault).collect()))),
            ("Cause", cause),
            ("Reaction", reaction),
            ("Lockout", status.lockout.map(|fault| json!({ "Fault": fault.name(), "Text": fault.text() }))),
            // What is missing to arm; nothing is asked for where the operator drives.
            ("Checklist", (status.state != StateName::Armed).then(|| Value::Array(checklist.collect()))),
            ("Next", next(status).map(Value::from)),
            ("Arms", Some(json!(status.arms))),
            ("Trips", Some(json!(status.trips))),
            ("Standing", Some(json!(status.standing))),
            ("ThrottleScale", Some(json!(status.throttle_scale))),
            ("CanAlive", Some(json!(status.can_alive))),
        ])
    }

    /// What the operator's side sends, and how old it is. One that never came has no age, and is named all the same.
    fn sources(&self) -> Vec<Value> {
        let source = |name: String, age_ms: Option<f64>| json!({ "Name": name, "AgeMs": age_ms });
        let facts = &self.facts;
        let mut sources = vec![
            source("ocp".to_owned(), facts.message_age_ms),
            source("ack_time".to_owned(), facts.ack_age_ms),
        ];
        if let Some(counter) = &self.identity.plan.operator_counter {
            let field = self.identity.plan.user_fields.get(usize::from(counter.field));
            let name = field.map_or_else(|| "user".to_owned(), |field| format!("user.{}", field.dotted()));
            sources.push(source(name, facts.counter_age_ms));
        }
        sources
    }

    fn bus_records(&self) -> Value {
        (0..self.identity.plan.buses.len()).map(|bus| Value::Object(self.bus_record(bus))).collect()
    }

    fn link_record(&self, now: Instant) -> Value {
        Value::Object(known([
            ("DeviceId", Some(json!(OCP))),
            ("Name", Some(json!("OCP Streamer"))),
            ("Address", Some(json!(self.identity.ocp.to_string()))),
            ("Connected", Some(json!(self.facts.connected))),
            ("ForMs", self.link_age_ms(now).map(Value::from)),
            ("Why", self.link_text().map(Value::from)),
        ]))
    }

    /// What keeps it in time, as the kernel gave it.
    fn real_time(&self) -> Map<String, Value> {
        let facts = &self.facts.real_time;
        known([
            ("Threads", Some(json!(facts.granted))),
            ("Refused", Some(json!(facts.refused))),
            ("RefusedWhy", facts.refused_why.map(Value::from)),
            ("MemoryLocked", facts.memory_locked.map(Value::from)),
            ("MemoryWhy", facts.memory_why.map(Value::from)),
        ])
    }

    fn latency(&self) -> Vec<Value> {
        let row = |name: &str, seen: Option<Percentiles>| {
            let mut row = seen.as_ref().map(percentiles).unwrap_or_default();
            row.insert("Name".to_owned(), json!(name));
            Value::Object(row)
        };
        vec![
            row("operator to gateway (OCP)", self.facts.ocp_latency),
            row("door to bus", self.facts.door_to_bus),
        ]
    }
}
