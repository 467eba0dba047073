//! The effective configuration as a record: what `ocpcan check --json` prints and `GwGetConfig` tells.
//!
//! Owns the shape. Relies on the loaded configuration. Never reads a file: it says what the program works with.

use serde_json::{Map, Value, json};

use super::frames::{reference, reported};
use super::{origin, written};
use crate::can::Id;
use crate::config::{CarPlan, Config, RealTime, UserForm};
use crate::safety::settings::BOUNDS;
use crate::signals::car::CarFeed;
use crate::signals::e2e::{Algorithm, ChecksumPlan};
use crate::signals::plan::{
    BusPlan, Echo, Kind, Plan, ReceivePlan, SendMode, SendPlan, SignalPlan, StopProfile,
};
use crate::time::millis_f64;

/// The whole record. Keys are those of the configuration file where there is one.
pub(in crate::cli) fn effective(config: &Config) -> Map<String, Value> {
    let plan = &config.plan;
    let source = |source| json!(written(&plan.user_fields, source));
    let user_data = match config.ocp.user_data {
        UserForm::Auto => "auto",
        UserForm::Bare => "bare",
        UserForm::Wrapped => "wrapped",
    };
    let counter = plan.operator_counter.and_then(|counter| {
        let field = plan.user_fields.get(usize::from(counter.field))?;
        Some(json!({ "counter": format!("user.{}", field.dotted()), "counter_modulo": counter.modulo }))
    });
    let standstill = plan.speed.map(|speed| {
        json!({
            "signal": reference(&plan.receive, speed.signal),
            "at_most": speed.standstill,
            "cap_without_counter": speed.cap_without_counter,
        })
    });
    let record = json!({
        "role": "vehicle",
        "vehicle": plan.vehicle,
        "digest": config.digest,
        "ocp": {
            "address": config.ocp.address.to_string(),
            "user_data": user_data,
            "withhold_acks_when_can_dead": config.ocp.withhold_acks_when_can_dead,
        },
        "arm": {
            "switch": plan.arm.map(source),
            "dead_man": plan.dead_man.map(source),
            "require": plan.require.iter().map(|requirement| &requirement.name).collect::<Vec<_>>(),
        },
        "operator": counter,
        "standstill": standstill,
        "safety": safety(config),
        "bus": plan.buses.iter().map(|one| (one.name.clone(), bus(one))).collect::<Map<_, _>>(),
        "send": plan.send.iter().map(|one| (one.name.clone(), send(plan, one))).collect::<Map<_, _>>(),
        "receive": plan.receive.iter().map(|one| (one.name.clone(), receive(plan, one))).collect::<Map<_, _>>(),
        "report": report(plan),
        "assetto": config.car.as_ref().map(|car| simulated(plan, car)),
        "tcpcan": tunnels(config),
        "rcsp": config.rcsp.as_ref().map(|rcsp| json!({
            "listen": rcsp.listen.to_string(),
            "allow": rcsp.allow.to_string(),
            "remote_stop": rcsp.remote_stop,
        })),
        "log": { "level": config.log_level.name() },
        "warnings": config.warnings,
    });
    match without_null(record) {
        Value::Object(record) => record,
        _ => Map::new(),
    }
}

/// What is not configured is not there, instead of null.
fn without_null(value: Value) -> Value {
    match value {
        Value::Object(entries) => {
            let kept = entries.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key, without_null(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_null).collect()),
        other => other,
    }
}

fn safety(config: &Config) -> Map<String, Value> {
    let times = BOUNDS.iter().filter_map(|bound| {
        let time = config.settings.of(bound.key)?;
        Some((bound.key.to_owned(), json!(millis_f64(time))))
    });
    let real_time = match config.real_time {
        RealTime::Warn => "warn",
        RealTime::Required => "required",
    };
    let others = [("arms_per_minute", json!(config.arms_per_minute)), ("real_time", json!(real_time))];
    times.chain(others.map(|(key, value)| (key.to_owned(), value))).collect()
}

fn bus(bus: &BusPlan) -> Value {
    let echo = match bus.echo {
        Echo::Required => "required",
        Echo::Unproven => "unproven",
    };
    json!({ "interface": bus.interface, "fd": bus.fd, "echo": echo })
}

fn send(plan: &Plan, send: &SendPlan) -> Value {
    let (mode, gap) = match send.mode {
        SendMode::Cyclic => ("cyclic", None),
        SendMode::OnCommand { min_gap } => ("on_command", Some(millis_f64(min_gap))),
    };
    json!({
        "bus": plan.buses.get(send.bus).map(|bus| &bus.name),
        "id": send.id.to_string(),
        "bytes": send.len,
        "fd": send.fd,
        "period_ms": millis_f64(send.period),
        "mode": mode,
        "min_gap_ms": gap,
        "enable": send.enable.as_ref().map(|enable| json!({ "stop": u8::from(enable.stop) })),
        "counter": send.counter.as_ref().map(|counter| json!({ "modulo": counter.modulo })),
        "checksum": send.checksum.as_ref().map(checksum),
        "signals": send.signals.iter().map(|one| (one.name.clone(), signal(plan, one))).collect::<Map<_, _>>(),
    })
}

fn checksum(checksum: &ChecksumPlan) -> Value {
    let algorithm = match checksum.algorithm {
        Algorithm::Xor => "xor",
        Algorithm::Sum => "sum",
        Algorithm::Crc8SaeJ1850 => "crc8-sae-j1850",
        Algorithm::Crc8AutosarH2f => "crc8-autosar-h2f",
    };
    json!({ "algorithm": algorithm, "data_id": checksum.data_id })
}

fn signal(plan: &Plan, signal: &SignalPlan) -> Value {
    let kind = match signal.kind {
        Kind::Throttle => "throttle",
        Kind::Brake => "brake",
        Kind::Steering => "steering",
        Kind::Enable => "enable",
        Kind::Other => "other",
    };
    let stop = match signal.stop {
        StopProfile::Safe => json!("safe"),
        StopProfile::Hold => json!("hold"),
        StopProfile::Ramp { per_s } => json!({ "ramp_per_s": per_s }),
    };
    let confirm = signal.confirm.as_ref();
    json!({
        "kind": kind,
        "source": origin(plan, signal),
        "output": [signal.min, signal.max],
        "slew_up_per_s": signal.slew_up,
        "slew_down_per_s": signal.slew_down,
        "safe": signal.safe,
        "stop": stop,
        "at_standstill": signal.at_standstill,
        "feedback": confirm.map(|confirm| reference(&plan.receive, confirm.signal)),
        "feedback_tolerance": confirm.map(|confirm| confirm.tolerance),
    })
}

fn receive(plan: &Plan, receive: &ReceivePlan) -> Value {
    json!({
        "bus": plan.buses.get(receive.bus).map(|bus| &bus.name),
        "id": receive.id.to_string(),
        "bytes": receive.len,
        "stale_ms": millis_f64(receive.stale_after),
        "required": receive.required,
        "counter": receive.counter.as_ref().map(|counter| json!({ "modulo": counter.modulo })),
        "checksum": receive.checksum.as_ref().map(checksum),
        "signals": receive.signals.iter().map(|signal| &signal.name).collect::<Vec<_>>(),
    })
}

fn simulated(plan: &Plan, car: &CarPlan) -> Value {
    let settings = &car.settings;
    let (listen, wanted) = match &settings.feed {
        CarFeed::Server { listen, car, .. } => (Some(listen.to_string()), Some(super::wanted(car))),
        CarFeed::Game { .. } => (None, None),
    };
    json!({
        "feed": if listen.is_some() { "server" } else { "game" },
        "address": settings.feed.address().to_string(),
        "listen": listen,
        "car": wanted,
        "interval_ms": millis_f64(settings.interval),
        "stale_ms": millis_f64(settings.stale_after()),
        "heading_min_mps": settings.heading_min_mps,
        "map": settings.map.map(|map| json!({
            "lat": map.lat,
            "lon": map.lon,
            "bearing_deg": map.bearing_deg,
            "mirrored": map.mirrored,
        })),
        "on_real_bus": car.on_real_bus,
        "send": car.send.iter().map(|one| (one.name.clone(), send(plan, one))).collect::<Map<_, _>>(),
    })
}

fn report(plan: &Plan) -> Map<String, Value> {
    let fields = plan.report.iter().map(|field| {
        let of = json!({
            "signal": reported(&plan.receive, field.from),
            "stale_ms": millis_f64(field.stale_after),
        });
        (field.key.clone(), of)
    });
    fields.collect()
}

fn tunnels(config: &Config) -> Map<String, Value> {
    let ids = |ids: &[Id]| ids.iter().map(Id::to_string).collect::<Vec<_>>();
    let tunnels = config.tunnels.iter().map(|tunnel| {
        let bus = config.plan.buses.get(tunnel.bus).map_or("?", |bus| &bus.name);
        let record = json!({
            "listen": tunnel.listen.to_string(),
            "allow": tunnel.allow.to_string(),
            "inject": {
                "always": ids(&tunnel.always),
                "unless_armed": ids(&tunnel.unless_armed),
                "diagnostic": ids(&tunnel.diagnostic),
            },
            "max_age_ms": millis_f64(tunnel.max_age),
            "frames_per_s": tunnel.peer_per_s,
            "total_frames_per_s": tunnel.total_per_s,
        });
        (bus.to_owned(), record)
    });
    tunnels.collect()
}
