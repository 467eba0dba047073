//! Both ends of the pipeline in virtual time: a gateway at every vehicle and an operator's software at the Player.

use serde_json::{Value, json};

use super::super::super::{Admission, Endpoint, Event, Options, Pipeline, Transmit, command};
use crate::proto::ocp::frame::{Deframer, FrameError};
use crate::proto::ocp::player::{
    ClientMessage, ClientVehicle, Feedback, FeedbackError, VehicleFeedback, decode_feedback,
};
use crate::proto::ocp::{Controller, control};
use crate::time::{Duration, Instant};

const START_MS: u64 = 1_000_000;

/// One control message as a gateway saw it.
#[derive(Debug, Clone)]
pub(super) struct Got {
    pub at_ms: u64,
    pub controller: Option<Controller>,
    pub fault: bool,
    pub reason: String,
    pub latency_ms: f64,
    pub user_data: Option<Value>,
    pub cameras: bool,
}

/// A gateway that answers every message at once.
#[derive(Debug)]
pub(super) struct Gateway {
    deframer: Deframer,
    /// Whether it answers.
    pub answers: bool,
    /// What it reports; nothing where that is null.
    pub report: Value,
    pub got: Vec<Got>,
}

/// An operator's software: answers each feedback message with what is in here.
#[derive(Debug)]
pub(super) struct Station {
    pub active: Option<String>,
    /// Its data for each vehicle; nothing where that is null. A counter is added.
    pub user_data: Value,
    pub returns_acks: bool,
    pub disables_gamepad: Option<bool>,
    pub counter: u64,
}

impl Default for Station {
    fn default() -> Self {
        Self { active: None, user_data: json!({}), returns_acks: true, disables_gamepad: None, counter: 0 }
    }
}

/// Everything.
pub(super) struct Rig {
    pub pipeline: Pipeline,
    pub now: Instant,
    pub gateways: Vec<Gateway>,
    pub station: Option<Station>,
    deframer: Deframer,
    pub feedback: Vec<(u64, Feedback)>,
    pub bodies: Vec<Value>,
    pub bad: Vec<FeedbackError>,
    pub framing: Vec<FrameError>,
    /// Pieces that came to the station: when, and how many bytes.
    pub pieces: Vec<(u64, usize)>,
    pub ended: Vec<(Endpoint, Transmit)>,
    pub events: Vec<(Endpoint, Event)>,
}

impl Rig {
    /// Vehicles of these names, a gateway at each of them, and nobody at the Player.
    pub fn new(options: Options, names: &[&str]) -> Self {
        let now = Instant::from_millis(START_MS);
        let vehicles = names.iter().map(|name| (*name).to_owned()).collect();
        let mut pipeline = Pipeline::new(Options { vehicles, ..options }, now);
        let gateways = (0..names.len()).map(|place| {
            assert_eq!(pipeline.handle_connect(now, Endpoint::Vehicle(place)), Admission::Accept);
            Gateway { deframer: Deframer::new(), answers: true, report: Value::Null, got: Vec::new() }
        });
        Self {
            gateways: gateways.collect(),
            pipeline,
            now,
            station: None,
            deframer: Deframer::new(),
            feedback: Vec::new(),
            bodies: Vec::new(),
            bad: Vec::new(),
            framing: Vec::new(),
            pieces: Vec::new(),
            ended: Vec::new(),
            events: Vec::new(),
        }
    }

    /// One vehicle and a station that only listens.
    pub fn watched(options: Options) -> Self {
        let mut rig = Self::new(options, &["loader"]);
        rig.connect();
        rig
    }

    /// The station connects.
    pub fn connect(&mut self) {
        assert_eq!(self.pipeline.handle_connect(self.now, Endpoint::Player), Admission::Accept);
        self.deframer.clear();
    }

    pub fn ms(&self) -> u64 {
        self.now.as_millis() - START_MS
    }

    pub fn say(&mut self, line: &str) {
        let command = command::parse(line).unwrap_or_else(|error| panic!("{line}: {error}")).unwrap();
        self.pipeline.command(self.now, command);
    }

    pub fn run(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        loop {
            self.now = self.pipeline.poll_timeout().max(self.now).min(end);
            self.pipeline.handle_timeout(self.now);
            while let Some((endpoint, transmit)) = self.pipeline.poll_transmit(self.now) {
                match (endpoint, transmit) {
                    (Endpoint::Vehicle(place), Transmit::Bytes(bytes)) => self.at_gateway(place, &bytes),
                    (Endpoint::Player, Transmit::Bytes(bytes)) => self.at_station(&bytes),
                    end => self.ended.push(end),
                }
            }
            while let Some(event) = self.pipeline.poll_event() {
                self.events.push(event);
            }
            if self.now == end {
                return;
            }
        }
    }

    /// Runs in steps of a millisecond until it is so, at most so long; answers how long it took.
    pub fn until(&mut self, most_ms: u64, what: &str, mut is_so: impl FnMut(&Self) -> bool) -> u64 {
        let from = self.ms();
        while !is_so(self) {
            assert!(self.ms() - from < most_ms, "not within {most_ms} ms: {what}");
            self.run(1);
        }
        self.ms() - from
    }

    fn at_gateway(&mut self, place: usize, mut bytes: &[u8]) {
        let gateway = &mut self.gateways[place];
        let mut answers = Vec::new();
        while !bytes.is_empty() {
            let n = gateway.deframer.handle_bytes(bytes);
            bytes = &bytes[n..];
            while let Some(body) = gateway.deframer.poll_frame().unwrap() {
                let message = control::decode(body).unwrap();
                gateway.got.push(Got {
                    at_ms: self.now.as_millis() - START_MS,
                    controller: message.controller,
                    fault: message.telemetry.fault,
                    reason: message.telemetry.fault_reason.chars().collect(),
                    latency_ms: message.telemetry.latency_ms,
                    user_data: message.client_user_data.map(|raw| serde_json::from_slice(raw).unwrap()),
                    cameras: String::from_utf8_lossy(body).contains("missing_cameras"),
                });
                if gateway.answers {
                    let data = match &gateway.report {
                        Value::Null => "null".to_owned(),
                        data => json!({ "user_data": data }).to_string(),
                    };
                    let body = format!(
                        r#"{{"ack_time":{},"ack_time_mac":{},"vehicle_user_data":{data}}}"#,
                        String::from_utf8_lossy(message.ack_time),
                        String::from_utf8_lossy(message.ack_time_mac)
                    );
                    let frame = crate::proto::ocp::server::frame(body.as_bytes());
                    answers.push(frame);
                }
            }
        }
        for frame in answers {
            self.pipeline.handle_bytes(self.now, Endpoint::Vehicle(place), &frame);
        }
    }

    fn at_station(&mut self, mut bytes: &[u8]) {
        self.pieces.push((self.ms(), bytes.len()));
        while !bytes.is_empty() {
            let n = self.deframer.handle_bytes(bytes);
            bytes = &bytes[n..];
            loop {
                let body = match self.deframer.poll_frame() {
                    Ok(Some(body)) => body.to_vec(),
                    Ok(None) => break,
                    Err(error) => {
                        self.framing.push(error);
                        if matches!(error, FrameError::Oversize(_)) {
                            self.deframer.clear();
                            return;
                        }
                        continue;
                    }
                };
                match decode_feedback(&body) {
                    Ok(feedback) => {
                        self.bodies.push(serde_json::from_slice(&body).unwrap());
                        self.answer(&feedback);
                        self.feedback.push((self.ms(), feedback));
                    }
                    Err(error) => self.bad.push(error),
                }
            }
        }
    }

    fn answer(&mut self, feedback: &Feedback) {
        let Some(station) = &mut self.station else { return };
        station.counter += 1;
        let vehicles = feedback.vehicles.iter().map(|(name, vehicle)| {
            let mut user_data = station.user_data.clone();
            if let Some(members) = user_data.as_object_mut() {
                members.insert("station".to_owned(), station.counter.into());
            }
            let returned = station.returns_acks.then_some((vehicle.ack_time, vehicle.ack_time_mac));
            let data = ClientVehicle { user_data, ocp_disable_gamepad: station.disables_gamepad, returned };
            (name.clone(), data)
        });
        let message = ClientMessage { active_vehicle: station.active.clone(), vehicles: vehicles.collect() };
        let frame = message.frame().unwrap();
        self.pipeline.handle_bytes(self.now, Endpoint::Player, &frame);
    }

    /// The newest control message of a gateway.
    pub fn got(&self, place: usize) -> &Got {
        self.gateways[place].got.last().unwrap()
    }

    /// The newest feedback of a vehicle.
    pub fn seen(&self, name: &str) -> &VehicleFeedback {
        &self.feedback.last().unwrap().1.vehicles[name]
    }

    /// The counter of the station's own data in the newest control message.
    pub fn station_counter(&self, place: usize) -> u64 {
        let data = self.got(place).user_data.as_ref();
        data.and_then(|data| data["station"].as_u64()).unwrap_or(0)
    }
}
