//! What the operator is told: `vehicle_user_data` with the vehicle's feedback and the gateway's own state.
//!
//! Owns the content of the answer to each control message. Relies on `proto::ocp` for the bytes and on
//! `signals::feedback` for values with an age. Never repeats a stale value: it is null, and `stale` names its age.

use crate::proto::ocp::ResponseWriter;
use crate::proto::ocp::response::{Full, Key, Response};
use crate::safety::faults::Fault;
use crate::safety::input::{StateName, Status};
use crate::signals::car::CarSample;
use crate::signals::feedback::{FeedbackTable, FeedbackValue};
use crate::signals::plan::{Plan, PositionReport, ReceiveSignal, ReportSource};
use crate::time::{Duration, Instant, millis_f64};

/// One field of `user_data`.
#[derive(Debug)]
struct Field {
    key: Key,
    from: ReportSource,
    stale_after: Duration,
    /// Value names of the signal.
    names: Vec<(f64, String)>,
}

/// The keys of the gateway's own object, escaped once.
#[derive(Debug)]
struct Keys {
    gateway: Key,
    state: Key,
    armed: Key,
    cause: Key,
    cause_text: Key,
    cause_ms_ago: Key,
    reaction_ms: Key,
    fault: Key,
    next: Key,
    since_ms: Key,
    throttle_scale: Key,
    session_run: Key,
    stale: Key,
}

/// Builds answers.
#[derive(Debug)]
pub struct Report {
    fields: Vec<Field>,
    position: Option<PositionReport>,
    keys: Keys,
    table: FeedbackTable,
    /// The simulated car, where one stands in.
    car: Option<CarSample>,
}

impl Report {
    /// Prepares every key and table.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let signal = |from: ReportSource| -> Option<&ReceiveSignal> {
            let ReportSource::Signal(at) = from else { return None };
            plan.receive.get(at.receive).and_then(|receive| receive.signals.get(at.signal))
        };
        let fields = plan
            .report
            .iter()
            .map(|field| Field {
                key: Key::new(&field.key),
                from: field.from,
                stale_after: field.stale_after,
                names: signal(field.from).map_or_else(Vec::new, |signal| {
                    let physical = |raw: i64| {
                        // Value names are small integers; a larger one would not be a name.
                        let raw = i32::try_from(raw).map_or(f64::NAN, f64::from);
                        raw * signal.codec.factor + signal.codec.offset
                    };
                    signal.names.iter().map(|(raw, name)| (physical(*raw), name.clone())).collect()
                }),
            })
            .collect();
        Self {
            fields,
            position: plan.position,
            keys: Keys {
                gateway: Key::new("gateway"),
                state: Key::new("state"),
                armed: Key::new("armed"),
                cause: Key::new("cause"),
                cause_text: Key::new("cause_text"),
                cause_ms_ago: Key::new("cause_ms_ago"),
                reaction_ms: Key::new("reaction_ms"),
                fault: Key::new("fault"),
                next: Key::new("next"),
                since_ms: Key::new("since_ms"),
                throttle_scale: Key::new("throttle_scale"),
                session_run: Key::new("session_run"),
                stale: Key::new("stale"),
            },
            table: FeedbackTable::new(&plan.receive),
            car: None,
        }
    }

    /// Takes what is known of the simulated car; `None` while there is none.
    pub const fn handle_car(&mut self, car: Option<CarSample>) {
        self.car = car;
    }

    /// A reported value with its age.
    fn value(&self, now: Instant, from: ReportSource, stale_after: Duration) -> FeedbackValue {
        match from {
            ReportSource::Signal(signal) => self.table.value(now, signal, stale_after),
            ReportSource::Car(value) => {
                let Some(sample) = &self.car else { return FeedbackValue::Never };
                let age = now.since(sample.at);
                match sample.get(value) {
                    None => FeedbackValue::Never,
                    Some(_) if age > stale_after => FeedbackValue::Stale { age },
                    Some(value) => FeedbackValue::Fresh { value, age },
                }
            }
        }
    }

    /// Takes a frame of the vehicle.
    pub fn handle_frame(&mut self, at: Instant, bus: usize, frame: &crate::can::Frame) {
        // What is no feedback, or fails its checks, leaves the old value to grow stale.
        let _ = self.table.handle_frame(at, bus, frame);
    }

    /// Writes one answer. Where the report does not fit, the answer is the ack pair alone.
    ///
    /// # Errors
    /// [`Full`] if not even the ack pair fits the buffer.
    pub fn write<'b>(
        &self,
        now: Instant,
        buffer: &'b mut [u8],
        ack_time: &[u8],
        ack_time_mac: &[u8],
        status: Option<&Status>,
    ) -> Result<Response<'b>, Full> {
        let mut writer = ResponseWriter::new(buffer, ack_time, ack_time_mac)?;
        // A member that does not fit makes the writer fall back by itself.
        let _ = self.members(now, &mut writer, status);
        let position = self.position.and_then(|position| {
            let fresh = |from| self.value(now, from, position.stale_after).fresh();
            Some((tidied(fresh(position.lat)?), tidied(fresh(position.lon)?)))
        });
        Ok(writer.finish(position))
    }

    fn members(
        &self,
        now: Instant,
        writer: &mut ResponseWriter<'_>,
        status: Option<&Status>,
    ) -> Result<(), Full> {
        let mut any_stale = false;
        for field in &self.fields {
            match self.value(now, field.from, field.stale_after) {
                FeedbackValue::Fresh { value, .. } => {
                    let name = field.names.iter().find(|(number, _)| *number == value);
                    match name {
                        Some((_, name)) => writer.text(&field.key, name)?,
                        None => writer.number(&field.key, value)?,
                    }
                }
                FeedbackValue::Stale { .. } | FeedbackValue::Never => {
                    any_stale = true;
                    writer.null(&field.key)?;
                }
            }
        }
        if any_stale {
            self.stale(now, writer)?;
        }
        status.map_or(Ok(()), |status| self.gateway(now, writer, status))
    }

    /// The age of every stale value; null for one that never came.
    fn stale(&self, now: Instant, writer: &mut ResponseWriter<'_>) -> Result<(), Full> {
        writer.begin_object(&self.keys.stale)?;
        for field in &self.fields {
            match self.value(now, field.from, field.stale_after) {
                FeedbackValue::Fresh { .. } => {}
                FeedbackValue::Stale { age } => writer.number(&field.key, millis_f64(age).round())?,
                FeedbackValue::Never => writer.null(&field.key)?,
            }
        }
        writer.end_object()
    }

    /// The gateway's own state, so that the operator sees why nothing moves.
    fn gateway(&self, now: Instant, writer: &mut ResponseWriter<'_>, status: &Status) -> Result<(), Full> {
        let keys = &self.keys;
        writer.begin_object(&keys.gateway)?;
        writer.text(&keys.state, status.state.name())?;
        writer.boolean(&keys.armed, status.state == StateName::Armed)?;
        writer.number(&keys.since_ms, millis_f64(now.since(status.since)).round())?;
        match &status.cause {
            Some(trip) => {
                writer.text(&keys.cause, trip.fault.name())?;
                writer.text(&keys.cause_text, trip.fault.text())?;
                writer.number(&keys.cause_ms_ago, millis_f64(now.since(trip.at)).round())?;
            }
            None => writer.null(&keys.cause)?,
        }
        if let Some(reaction) = &status.reaction {
            writer.number(&keys.reaction_ms, millis_f64(reaction.time))?;
        }
        match status.faults.first().or(status.lockout) {
            Some(fault) => writer.text(&keys.fault, fault.name())?,
            None => writer.null(&keys.fault)?,
        }
        match next_step(status) {
            Some(todo) => writer.text(&keys.next, todo)?,
            None => writer.null(&keys.next)?,
        }
        writer.number(&keys.throttle_scale, status.throttle_scale)?;
        writer.integer(&keys.session_run, i64::from(status.session_run))?;
        writer.end_object()
    }
}

/// Without the noise of the scaling: nine digits after the point are 0.1 mm.
fn tidied(degrees: f64) -> f64 {
    (degrees * 1e9).round() / 1e9
}

/// What the operator should do next; `None` while armed.
#[must_use]
pub fn next_step(status: &Status) -> Option<&'static str> {
    match status.state {
        StateName::Armed => None,
        StateName::Lockout => Some("a person at the vehicle must acknowledge the lockout"),
        StateName::Stopping => Some("wait until the vehicle has stopped"),
        StateName::Diag => Some("wait until the local diagnosis ends"),
        StateName::Init | StateName::Safe | StateName::Standby | StateName::Ready => {
            match status.faults.first() {
                Some(fault) => Some(fault.text()),
                None => status.checklist.next(),
            }
        }
    }
}

/// A change of the state in a person's words, with its cause where the new state has one.
#[must_use]
pub fn transition(before: Option<StateName>, status: &Status) -> String {
    if before == Some(StateName::Lockout) && status.state == StateName::Safe {
        return "LOCKOUT -> SAFE, acknowledged by a person".to_owned();
    }
    let before = before.map_or("start", StateName::name);
    let because = |fault: Fault| format!(" because of {} ({})", fault.name(), fault.text());
    let cause = match (status.state, &status.cause, status.lockout) {
        (StateName::Lockout, _, Some(fault)) => because(fault),
        (StateName::Safe | StateName::Stopping | StateName::Lockout, Some(trip), _) => because(trip.fault),
        _ => String::new(),
    };
    format!("{before} -> {}{cause}", status.state.name())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::can::{Frame, Id};
    use crate::safety::core::{Core, CoreOptions};
    use crate::safety::faults::Fault;
    use crate::safety::input::Input;
    use crate::safety::settings::Settings;
    use crate::sim::world::plan::{self, PlanOptions};

    fn at(ms: u64) -> Instant {
        Instant::from_millis(1_000 + ms)
    }

    /// The vehicle's state with this speed, in hundredths of km/h.
    fn state(plan: &Plan, speed: u16, count: u32) -> Frame {
        let receive = &plan.receive[0];
        let mut data = [0; 8];
        data[..2].copy_from_slice(&speed.to_le_bytes());
        receive.counter.unwrap().apply(&mut data, count).unwrap();
        receive.checksum.unwrap().apply(&mut data).unwrap();
        Frame::data(Id::standard(plan::STATE_ID).unwrap(), &data).unwrap()
    }

    fn user_data(report: &Report, now: Instant, status: Option<&Status>) -> Value {
        let mut buffer = vec![0; 16_388];
        let response = report.write(now, &mut buffer, b"17", b"4", status).unwrap();
        let body: Value = serde_json::from_slice(&response.frame[4..]).unwrap();
        assert_eq!((&body["ack_time"], &body["ack_time_mac"]), (&Value::from(17), &Value::from(4)));
        body["vehicle_user_data"]["user_data"].clone()
    }

    #[test]
    fn a_stale_value_is_null_with_its_age_and_never_the_last_one() {
        let plan = plan::plan(PlanOptions::default());
        let mut report = Report::new(&plan);
        let never = user_data(&report, at(0), None);
        assert_eq!((&never["speed_kph"], &never["stale"]["speed_kph"]), (&Value::Null, &Value::Null));
        assert!(never["stale"].get("speed_kph").is_some(), "named although it never came");
        report.handle_frame(at(10), 0, &state(&plan, 1_234, 1));
        let fresh = user_data(&report, at(110), None);
        assert_eq!(fresh["speed_kph"], 12.34);
        assert!(fresh.get("stale").is_none());
        let stale = user_data(&report, at(111), None);
        assert_eq!((&stale["speed_kph"], &stale["stale"]["speed_kph"]), (&Value::Null, &Value::from(101)));
    }

    #[test]
    fn the_operator_is_told_the_state_the_cause_and_what_to_do() {
        let plan = plan::plan(PlanOptions::default());
        let report = Report::new(&plan);
        let options = CoreOptions {
            settings: Settings::default(),
            arms_per_minute: 10,
            counters: Vec::new(),
            locked_out: None,
        };
        let mut core = Core::new(plan, options);
        core.step(at(0), &Input::IDLE);
        let told = user_data(&report, at(1), Some(&core.status()));
        assert_eq!((&told["gateway"]["state"], &told["gateway"]["armed"]), (&"INIT".into(), &false.into()));
        assert_eq!(told["gateway"]["cause"], Value::Null);
        let first = core.status().faults.first().unwrap();
        assert_eq!(told["gateway"]["fault"], first.name());
        core.step(at(10), &Input { trips: Fault::ForeignWriter.into(), ..Input::IDLE });
        let told = user_data(&report, at(30), Some(&core.status()));
        assert_eq!(told["gateway"]["state"], "LOCKOUT");
        assert_eq!(told["gateway"]["cause"], "foreign_writer");
        assert_eq!(told["gateway"]["cause_ms_ago"], 20.0);
        assert_eq!(told["gateway"]["next"], "a person at the vehicle must acknowledge the lockout");
    }

    #[test]
    fn a_transition_names_its_cause_and_an_acknowledgement_none() {
        let options = CoreOptions {
            settings: Settings::default(),
            arms_per_minute: 10,
            counters: Vec::new(),
            locked_out: Some(Fault::ForeignWriter),
        };
        let mut core = Core::new(plan::plan(PlanOptions::default()), options);
        core.step(at(0), &Input::IDLE);
        let locked = core.status();
        assert_eq!(locked.state, StateName::Lockout);
        let told = transition(None, &locked);
        assert!(told.starts_with("start -> LOCKOUT because of foreign_writer ("), "{told}");
        let freed = Status { state: StateName::Safe, ..locked };
        assert_eq!(transition(Some(StateName::Lockout), &freed), "LOCKOUT -> SAFE, acknowledged by a person");
    }
}
