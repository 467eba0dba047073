//! The simulated Streamer in virtual time, seen by a client that decodes with the gateway's own code.

mod faults;
mod player;
mod rig;

use serde_json::{Value, json};

use super::super::options::{
    DefaultValues, LatencyUpdate, Link, Profile, Reaction, SecondClient, UserDataForm,
};
use super::super::{Direction, command, inject};
use super::*;
use crate::proto::ocp::control::{self, ControlError};
use crate::proto::ocp::frame::{Deframer, FrameError};
use crate::proto::ocp::{Axis, Button, Controller, ResponseWriter, server};

/// The only vehicle.
const CLIENT: Endpoint = Endpoint::Vehicle(0);

/// One decoded message as the client saw it.
#[derive(Debug, Clone)]
struct Got {
    at_ms: u64,
    controller: Option<Controller>,
    fault: bool,
    reason: String,
    latency_ms: f64,
    ack: String,
    ack_ms: f64,
    user_data: Option<Value>,
}

struct World {
    pipeline: Pipeline,
    now: Instant,
    deframer: Deframer,
    answers: bool,
    got: Vec<Got>,
    invalid: Vec<ControlError>,
    framing: Vec<FrameError>,
    pieces: Vec<(u64, usize)>,
    ended: Vec<Transmit>,
}

impl World {
    fn new(options: Options) -> Self {
        let now = Instant::from_millis(1_000_000);
        let mut pipeline = Pipeline::new(options, now);
        assert_eq!(pipeline.handle_connect(now, CLIENT), Admission::Accept);
        Self {
            pipeline,
            now,
            deframer: Deframer::new(),
            answers: true,
            got: Vec::new(),
            invalid: Vec::new(),
            framing: Vec::new(),
            pieces: Vec::new(),
            ended: Vec::new(),
        }
    }

    fn ms(&self) -> u64 {
        self.now.as_millis() - 1_000_000
    }

    fn say(&mut self, line: &str) {
        let command = command::parse(line).unwrap().unwrap();
        self.pipeline.command(self.now, command);
    }

    fn run(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        loop {
            self.now = self.pipeline.poll_timeout().max(self.now).min(end);
            self.pipeline.handle_timeout(self.now);
            while let Some((CLIENT, transmit)) = self.pipeline.poll_transmit(self.now) {
                match transmit {
                    Transmit::Bytes(bytes) => self.receive(&bytes),
                    end => self.ended.push(end),
                }
            }
            if self.now == end {
                return;
            }
        }
    }

    fn receive(&mut self, mut bytes: &[u8]) {
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
                        if let FrameError::Oversize(_) = error {
                            self.deframer.clear();
                            return;
                        }
                        continue;
                    }
                };
                self.message(&body);
            }
        }
    }

    fn message(&mut self, body: &[u8]) {
        let message = match control::decode(body) {
            Ok(message) => message,
            Err(invalid) => {
                self.invalid.push(invalid.error);
                return;
            }
        };
        self.got.push(Got {
            at_ms: self.now.as_millis() - 1_000_000,
            controller: message.controller,
            fault: message.telemetry.fault,
            reason: message.telemetry.fault_reason.chars().collect(),
            latency_ms: message.telemetry.latency_ms,
            ack: String::from_utf8(message.ack_time.to_vec()).unwrap(),
            ack_ms: message.ack_time_ms,
            user_data: message.client_user_data.map(|raw| serde_json::from_slice(raw).unwrap()),
        });
        if self.answers {
            let mut buffer = [0; 512];
            let writer = ResponseWriter::new(&mut buffer, message.ack_time, message.ack_time_mac).unwrap();
            let frame = writer.finish(Some((57.7, 11.9))).frame.to_vec();
            self.pipeline.handle_bytes(self.now, CLIENT, &frame);
        }
    }

    fn last(&self) -> &Got {
        self.got.last().unwrap()
    }

    fn counter(got: &Got) -> u64 {
        got.user_data.as_ref().map_or(0, |data| data["counter"].as_u64().unwrap())
    }

    fn events(&mut self) -> Vec<Event> {
        core::iter::from_fn(|| self.pipeline.poll_event()).map(|(_, event)| event).collect()
    }
}

fn world() -> World {
    World::new(Options::default())
}

#[test]
fn the_pace_is_the_documented_one() {
    let mut world = world();
    world.run(2_000);
    // New data at 50 Hz goes out with the next tick.
    assert!((99..=102).contains(&world.got.len()), "{}", world.got.len());
    world.say("operator off");
    world.run(200);
    let repeats: Vec<_> = world.got.iter().filter(|g| g.at_ms > 2_050).collect();
    assert!(repeats.windows(2).all(|w| w[1].at_ms - w[0].at_ms == 20), "repeated every 20 ms");
    assert!(repeats.windows(2).all(|w| w[1].ack_ms > w[0].ack_ms), "each with a new stamp");
    assert!(repeats.windows(2).all(|w| w[1].user_data == w[0].user_data), "and nothing else new");
}

#[test]
fn the_loop_closes_and_measures_the_whole_way() {
    let mut world = world();
    world.run(3_000);
    let got = world.last();
    assert!(!got.fault && got.reason.is_empty());
    // Up 20, picture up to 33, down 60, operator's period up to 20, tick up to 10.
    assert!((80.0..=160.0).contains(&got.latency_ms), "{}", got.latency_ms);
    assert_eq!(world.pipeline.snapshot().bad_macs, 0);
    assert_eq!(got.controller, Some(Controller::NEUTRAL));
}

#[test]
fn a_mute_client_raises_high_latency_and_gets_default_values() {
    let mut world = world();
    world.say("trigger right 1");
    world.run(1_000);
    assert_eq!(world.last().controller.unwrap().axis(Axis::RightTrigger), 1.0);
    world.answers = false;
    let cut = world.ms();
    world.run(800);
    let first = world.got.iter().find(|g| g.fault).unwrap();
    assert!((first.at_ms - cut) > 300 && (first.at_ms - cut) <= 540, "after {} ms", first.at_ms - cut);
    assert_eq!(first.reason, "High Latency");
    assert_eq!(first.controller, Some(Controller::NEUTRAL));
    world.answers = true;
    world.run(1_000);
    assert!(!world.last().fault, "clears by itself");
    assert_eq!(
        world.last().controller.unwrap().axis(Axis::RightTrigger),
        1.0,
        "and the held trigger is back at once"
    );
}

#[test]
fn a_lost_operator_is_repeated_until_the_fault() {
    let mut world = world();
    world.say("axis left_x 0.5");
    world.run(2_000);
    world.say("link cut");
    let cut = world.ms();
    world.run(1_500);
    let last_new = world.got.iter().filter(|g| !g.fault).map(World::counter).max().unwrap();
    let first = world.got.iter().find(|g| g.fault).unwrap();
    assert!((1_000..=1_040).contains(&(first.at_ms - cut)), "after {} ms", first.at_ms - cut);
    assert!(first.reason.contains("No Control Message"), "{}", first.reason);
    let stale: Vec<_> = world.got.iter().filter(|g| g.at_ms > cut + 40 && !g.fault).collect();
    assert!(stale.len() > 40 && stale.iter().all(|g| World::counter(g) == last_new));
    assert!(stale.iter().all(|g| g.controller.unwrap().axis(Axis::LeftX) == 0.5), "the command stands still");
    world.say("link restore");
    world.run(500);
    assert!(!world.last().fault && world.last().controller.unwrap().axis(Axis::LeftX) == 0.5);
    assert!(World::counter(world.last()) > last_new + 50);
}

#[test]
fn latency_may_be_computed_continuously() {
    let mut world = World::new(Options { latency_update: LatencyUpdate::Continuous, ..Options::default() });
    world.run(2_000);
    world.say("link cut");
    let cut = world.ms();
    world.run(700);
    let first = world.got.iter().find(|g| g.fault).unwrap();
    assert!(first.reason == "High Latency" && first.at_ms - cut < 500);
}

#[test]
fn default_values_come_in_every_form() {
    for (form, want) in [
        ("neutral", Some(Controller::NEUTRAL)),
        ("zeroed", Some(Controller { axes: [0.0; 6], buttons: 0 })),
        ("null", None),
        ("none", None),
        ("last", Some(Controller { axes: [0.0, 0.0, 0.0, 0.0, -1.0, 1.0], buttons: Button::A.mask() })),
    ] {
        let mut world = world();
        world.say("trigger right 1");
        world.say("press a");
        world.say(&format!("defaults {form}"));
        world.run(200);
        world.say("fault StreamerSlow on");
        world.run(100);
        assert!(world.last().fault && world.last().reason == "Streamer Slow");
        assert_eq!(world.last().controller, want, "{form}");
        world.say("fault streamer slow off");
        world.run(100);
        assert!(!world.last().fault && world.last().controller.unwrap().pressed(Button::A));
        world.say(&format!("controller {form}"));
        world.run(100);
        assert!(!world.last().fault);
        assert_eq!(world.last().controller, want, "{form} without a fault");
    }
}

#[test]
fn faults_are_named_as_the_version_names_them() {
    let mut old = World::new(Profile::Doc248.options());
    old.say("fault high latency on");
    old.say("fault SomethingNew on");
    old.say("cameras lost front rear");
    old.run(100);
    assert_eq!(old.last().reason, "CameraLost, HighLatency, SomethingNew");
    let mut new = world();
    new.say("cameras lost front rear");
    new.run(100);
    assert_eq!(new.last().reason, "Camera Lost");
    new.say("cameras ok");
    new.run(100);
    assert!(!new.last().fault);
}

#[test]
fn the_loop_that_never_closes_is_a_fault_of_its_own() {
    let mut world = world();
    world.say("video stop");
    world.run(1_200);
    assert_eq!(world.last().reason, "High Latency, Latency Loop Not Closed");
    world.say("video run");
    world.run(500);
    assert!(!world.last().fault);
}

#[test]
fn a_restart_closes_resets_the_clock_and_changes_the_key() {
    let mut world = world();
    world.run(2_000);
    let before = world.last().ack_ms;
    world.say("restart 300");
    world.run(1);
    assert_eq!(world.ended, [Transmit::Close]);
    assert_eq!(world.pipeline.handle_connect(world.now, CLIENT), Admission::Reject, "still down");
    world.run(300);
    assert_eq!(world.pipeline.handle_connect(world.now, CLIENT), Admission::Accept);
    world.run(50);
    assert!(world.last().ack_ms < 400.0 && before > 1_900.0);
    let bad = world.pipeline.snapshot().bad_macs;
    assert!(bad > 0, "pairs under the old key are refused");
    world.run(1_000);
    assert!(!world.last().fault);
    assert!(world.events().contains(&Event::Restarted));
}

#[test]
fn ack_time_can_freeze_and_jump_back() {
    let mut world = world();
    world.run(500);
    world.say("ack freeze");
    world.run(300);
    let frozen: Vec<_> = world.got.iter().filter(|g| g.at_ms > 520).map(|g| g.ack.clone()).collect();
    assert!(frozen.len() > 10 && frozen.iter().all(|ack| *ack == frozen[0]));
    world.say("ack run");
    world.say("ack back 400");
    world.run(40);
    assert!(world.last().ack_ms < 460.0);
}

#[test]
fn ack_times_beyond_a_float_come_back_exactly() {
    let offset = (1 << 53) + 1;
    let mut world = World::new(Options { ack_offset_ms: offset, ..Options::default() });
    world.run(1_000);
    let acks: std::collections::BTreeSet<_> =
        world.got.iter().map(|g| g.ack.parse::<u64>().unwrap()).collect();
    assert!(acks.len() == world.got.len() && acks.iter().all(|ack| *ack >= offset));
    let seen = world.pipeline.snapshot();
    assert_eq!((seen.bad_macs, seen.bad_responses), (0, 0));
    assert!(seen.latency_ms > 50.0 && seen.latency_ms < 200.0);
    world.say("inject ack 1.7e12");
    world.run(30);
    assert!(world.got.iter().any(|g| g.ack == "1.7e12"));
}

#[test]
fn macs_use_all_32_bits_and_depend_on_the_key() {
    let macs: Vec<u32> = (0..64).map(|ack| inject::mac(7, ack)).collect();
    assert!(macs.iter().any(|mac| *mac > 1 << 31) && macs.iter().any(|mac| *mac < 1 << 31));
    assert!((0..64).all(|ack| inject::mac(8, ack) != inject::mac(7, ack)));
}

#[test]
fn each_bad_message_is_one_bad_message_and_the_stream_goes_on() {
    for line in [
        "utf8",
        "shape",
        "deep",
        "missing-button",
        "missing-axis",
        "missing-telemetry",
        "missing-ack",
        "nan",
        "duplicate",
        "surrogate",
        "axis left_x 1e39",
        "axis left_x null",
        "axis right_y 2",
        "latency -1",
        "latency null",
        "ack null",
        "body []",
        "body 5",
    ] {
        let mut world = world();
        world.run(100);
        world.say(&format!("inject {line}"));
        world.run(200);
        assert_eq!((world.invalid.len(), world.framing.len()), (1, 0), "{line}: {:?}", world.invalid);
        assert!(world.last().at_ms > 280);
    }
}

#[test]
fn each_odd_but_valid_message_is_valid() {
    for line in [
        "unknown",
        "minimal",
        "integers",
        "long-reason",
        "largest",
        "axis left_x 1.005",
        "axis left_x 1e0",
        "ack 1.7e12",
    ] {
        let mut world = world();
        world.run(100);
        world.say(&format!("inject {line} x3"));
        world.run(200);
        assert_eq!((world.invalid.len(), world.framing.len()), (0, 0), "{line}: {:?}", world.invalid);
    }
}

#[test]
fn lost_framing_is_lost() {
    for (line, want) in [
        ("oversize", Some(16_385)),
        ("huge", Some(u32::MAX)),
        ("http", Some(u32::from_le_bytes(*b"HTTP"))),
        ("bigendian", None),
        ("garbage", None),
    ] {
        let mut world = world();
        world.run(100);
        world.say(&format!("inject {line}"));
        world.run(25);
        let Some(FrameError::Oversize(len)) = world.framing.first() else {
            panic!("{line}: {:?}", world.framing)
        };
        assert!(want.is_none_or(|want| want == *len), "{line}: {len}");
    }
    let mut world = world();
    world.say("inject zero x3");
    world.run(200);
    assert_eq!(world.framing, [FrameError::Empty; 3]);
}

#[test]
fn a_fault_in_one_message_and_a_reason_without_one() {
    let mut world = world();
    world.run(100);
    world.say("inject fault");
    world.say("inject reason");
    world.run(200);
    assert_eq!(world.got.iter().filter(|g| g.fault).count(), 1);
    assert_eq!(world.got.iter().filter(|g| !g.fault && !g.reason.is_empty()).count(), 1);
}

#[test]
fn frames_are_dripped_split_joined_and_cut() {
    let mut world = world();
    world.run(100);
    let start = world.ms();
    world.say("inject partial 1");
    world.run(1_000);
    let ones: Vec<_> = world.pieces.iter().filter(|(_, len)| *len == 1).collect();
    assert!(ones.len() > 400 && ones.last().unwrap().0 - start > 400, "one byte each millisecond");
    world.pieces.clear();
    world.say("inject split 2 7");
    world.run(100);
    let at = world.pieces.iter().position(|(_, len)| *len == 2).unwrap();
    assert_eq!(world.pieces[at + 1].0 - world.pieces[at].0, 7);
    world.pieces.clear();
    world.say("inject coalesce 4");
    world.run(200);
    let whole = world.pieces.iter().map(|(_, len)| *len).min().unwrap();
    assert!(world.pieces.iter().any(|(_, len)| *len >= 4 * whole));
    assert_eq!((world.invalid.len(), world.framing.len()), (0, 0), "nothing of this is an error");
    world.say("inject truncate");
    world.run(100);
    assert_eq!(world.ended, [Transmit::Close]);
    assert!(world.deframer.is_partial());
}

#[test]
fn recorded_messages_are_replayed_instead_of_new_ones() {
    let mut world = world();
    world.run(3_000);
    world.say("inject replay");
    let start = world.got.len();
    world.run(1_000);
    let replayed = &world.got[start + 1..];
    assert!(replayed.len() > 40 && replayed.iter().all(|g| g.ack_ms < 3_000.0));
}

#[test]
fn rates_from_5_to_10_000_a_second() {
    let mut world = world();
    world.say("rate 5");
    world.run(2_000);
    assert!((9..=12).contains(&world.got.len()), "{}", world.got.len());
    world.got.clear();
    world.say("rate 10000");
    world.run(500);
    assert!((4_990..=5_010).contains(&world.got.len()), "{}", world.got.len());
    world.say("rate auto");
    world.got.clear();
    world.run(1_000);
    assert!((48..=52).contains(&world.got.len()), "{}", world.got.len());
}

#[test]
fn a_stall_stops_everything_and_ends_without_a_burst() {
    let mut world = world();
    world.run(500);
    world.say("stall 1000");
    let n = world.got.len();
    world.run(999);
    assert_eq!(world.got.len(), n);
    assert!(!world.pipeline.wants_bytes(world.now, CLIENT));
    world.run(100);
    assert!((4..=7).contains(&(world.got.len() - n)), "{}", world.got.len() - n);
    world.say("silence on");
    let n = world.got.len();
    world.run(500);
    assert_eq!((world.got.len(), world.ended.len()), (n, 0));
    world.say("silence off");
    world.run(100);
    assert!(world.got.len() > n);
}

#[test]
fn the_radio_loses_delays_doubles_and_holds() {
    let mut world = world();
    world.run(1_000);
    world.say("link hold");
    world.run(400);
    let held = World::counter(world.last());
    world.say("link restore");
    world.run(40);
    assert!(World::counter(world.last()) >= held + 20, "a burst, of which the newest counts");
    let link = Link {
        jitter: Duration::from_millis(30),
        loss: 0.3,
        duplicate: 0.2,
        reorder: 0.2,
        ..Link::new(Duration::from_millis(50))
    };
    let run = |seed| {
        let mut world = World::new(Options { uplink: link, seed, ..Options::default() });
        world.run(3_000);
        world.got.iter().map(World::counter).collect::<Vec<_>>()
    };
    assert_eq!(run(3), run(3), "the same seed gives the same run");
    assert!(run(3) != run(4));
    assert!(run(3).windows(2).any(|w| w[1] < w[0]), "reordered commands arrive");
}

#[test]
fn a_second_client_is_met_in_three_ways() {
    for (second_client, want) in [
        (SecondClient::Reject, Admission::Reject),
        (SecondClient::Replace, Admission::Replace),
        (SecondClient::Ignore, Admission::Ignore),
    ] {
        let mut world = World::new(Options { second_client, ..Options::default() });
        world.run(100);
        assert_eq!(world.pipeline.handle_connect(world.now, CLIENT), want);
        let n = world.got.len();
        world.run(100);
        assert!(world.got.len() > n, "whoever is the client is served");
    }
}

#[test]
fn bad_responses_are_dropped_in_step_or_end_the_connection() {
    let bad: [Vec<u8>; 4] = [
        server::frame(&[b' '; 16_385]),
        server::frame(b"{"),
        server::frame(br#"{"vehicle_user_data":null}"#),
        server::frame(br#"{"ack_time":1,"ack_time_mac":-1}"#),
    ];
    for bytes in &bad {
        let mut world = world();
        world.run(100);
        for part in bytes.chunks(1_000) {
            world.pipeline.handle_bytes(world.now, CLIENT, part);
        }
        let before = world.pipeline.snapshot();
        assert_eq!(before.bad_responses, 1);
        world.run(100);
        assert!(world.pipeline.snapshot().responses > before.responses, "the next response is read");
        let mut world = World::new(Options { bad_response: Reaction::Close, ..Options::default() });
        world.run(100);
        world.pipeline.handle_bytes(world.now, CLIENT, bytes);
        world.run(1);
        assert_eq!(world.ended, [Transmit::Close]);
    }
    // The vendor's examples send this before the first message.
    let mut world = world();
    world.pipeline.handle_bytes(
        world.now,
        CLIENT,
        &server::frame(br#"{"ack_time":0,"ack_time_mac":0,"vehicle_user_data":null}"#),
    );
    world.run(1_000);
    assert_eq!(world.pipeline.snapshot().bad_responses, 0);
    assert!(!world.last().fault);
}

#[test]
fn the_first_messages_may_still_report_no_vehicle() {
    let mut world = World::new(Options { faults_after_connect: 3, ..Options::default() });
    world.run(500);
    let faults: Vec<_> = world.got.iter().map(|g| g.fault).collect();
    assert_eq!(faults[..5], [true, true, true, false, false]);
    assert_eq!(world.got[0].reason, "Vehicle No Response");
}

#[test]
fn arming_is_neutral_then_a_press_then_a_release() {
    let mut world = world();
    world.say("trigger right 1");
    world.run(100);
    world.say("arm 300 200 x");
    world.run(1_000);
    let pressed: Vec<_> =
        world.got.iter().filter(|g| g.controller.unwrap().pressed(Button::X)).map(|g| g.at_ms).collect();
    assert!(
        (400..=460).contains(&pressed[0]) && (580..=660).contains(pressed.last().unwrap()),
        "{pressed:?}"
    );
    assert_eq!(world.last().controller, Some(Controller::NEUTRAL));
}

#[test]
fn user_data_is_bare_or_wrapped_and_may_end_with_a_fault() {
    let mut world = World::new(Options {
        user_data_form: UserDataForm::Wrapped,
        user_data_under_fault: false,
        ..Options::default()
    });
    world.say(r#"user {"horn": true, "mode": "crab"}"#);
    world.run(200);
    let got = world.last().user_data.clone().unwrap();
    assert_eq!(got["user_data"]["horn"], json!(true));
    assert!(got["user_data"]["counter"].as_u64().unwrap() > 5);
    world.say(r#"user {"horn": null}"#);
    world.say("counter absent");
    world.run(100);
    assert_eq!(world.last().user_data, Some(json!({"user_data": {"mode": "crab"}})));
    world.say("fault CameraLost on");
    world.run(100);
    assert_eq!(world.last().user_data, None);
}

#[test]
fn the_counter_freezes_jumps_and_goes_on() {
    let mut world = world();
    world.run(500);
    world.say("counter freeze");
    world.run(100);
    let frozen = World::counter(world.last());
    world.run(300);
    assert_eq!(World::counter(world.last()), frozen);
    world.say("counter 5");
    world.say("counter run");
    world.run(200);
    assert!((10..=17).contains(&World::counter(world.last())), "{}", World::counter(world.last()));
}

#[test]
fn the_connection_ends_in_order_or_by_reset() {
    for (line, want) in [("close", Transmit::Close), ("rst", Transmit::Reset)] {
        let mut world = world();
        world.run(100);
        world.say(line);
        world.run(10);
        assert_eq!(world.ended, [want]);
        assert!(!world.pipeline.snapshot().is_connected);
        assert!(world.events().contains(&Event::Disconnected));
        world.pipeline.handle_connect(world.now, CLIENT);
        world.run(200);
        assert!(world.last().at_ms > 280);
    }
}

#[test]
fn without_a_client_the_server_says_so_and_nothing_is_sent() {
    let mut world = world();
    world.run(100);
    world.pipeline.handle_disconnect(CLIENT);
    let n = world.got.len();
    world.run(500);
    assert_eq!(world.got.len(), n);
    assert_eq!(world.pipeline.snapshot().faults, ["Vehicle No Response"]);
    assert_eq!(world.pipeline.handle_connect(world.now, CLIENT), Admission::Accept);
    world.run(300);
    assert!(!world.last().fault);
}

#[test]
fn the_report_of_the_vehicle_is_kept() {
    let mut world = world();
    world.run(100);
    world.pipeline.command(world.now, Command::Link(Direction::Both, LinkState::Up, None));
    let seen = world.pipeline.snapshot();
    assert_eq!(seen.last_response.unwrap().pos, Some((57.7, 11.9)));
    assert_eq!(seen.reply_max_ms, 0.0, "answered within the same instant");
    assert_eq!(world.pipeline.snapshot().to_json()["pos"]["lat"], json!(57.7));
    assert!(matches!(world.pipeline.options().default_values, DefaultValues::Neutral));
}
