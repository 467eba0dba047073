//! The simulated server in virtual time: what it tells, in which order, and what it never tells.

use core::net::SocketAddr;
use std::collections::BTreeMap;

use super::*;
use crate::proto::assetto::game::{GameMessage, Operation, Request};
use crate::proto::assetto::{Command, Decoder, Event, Text};
use crate::sim::world::rng::Rng;
use crate::time::Instant;

const CLIENT: ([u8; 4], u16) = ([127, 0, 0, 1], 40_000);

/// Any beginning of time but zero.
const BEGIN: Instant = Instant::from_millis(5_000);

fn short_sessions() -> Vec<SessionPlan> {
    let mut plans = SessionPlan::usual();
    plans[0].time = Duration::from_secs(200);
    plans[1].time = Duration::from_secs(150);
    plans[2].laps = 2;
    plans
}

/// A server, and everything that it said with the time.
struct Bench {
    world: World,
    now: Instant,
    decoder: Decoder,
    said: Vec<(Instant, String, serde_json::Value)>,
    game: Vec<(Instant, Vec<u8>)>,
}

impl Bench {
    fn new(options: Options) -> Self {
        let world = World::new(options, BEGIN);
        let mut bench = Self { world, now: BEGIN, decoder: Decoder::default(), said: vec![], game: vec![] };
        bench.collect();
        bench
    }

    fn collect(&mut self) {
        while let Some((to, bytes)) = self.world.poll_transmit() {
            match to {
                Receiver::Plugin => {
                    let event = self.decoder.handle_datagram(&bytes).unwrap();
                    if let Event::CarUpdate(update) = event {
                        assert!(update.is_finite());
                    }
                    let mut again = vec![0; bytes.len()];
                    assert_eq!(event.encode(&mut again), Ok(bytes.len()));
                    assert_eq!(again, bytes);
                    self.said.push((self.now, event.name().to_owned(), event.to_json()));
                }
                Receiver::Client(_) => self.game.push((self.now, bytes)),
            }
        }
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.world.poll_timeout() <= end {
            self.now = self.world.poll_timeout();
            self.world.handle_timeout(self.now);
            self.collect();
        }
        self.now = end;
        self.world.handle_timeout(end);
        self.collect();
    }

    fn command(&mut self, command: Command<'_>) {
        let mut bytes = [0; 1_036];
        let len = command.encode(&mut bytes).unwrap();
        // The vendor's example sends what stands behind it too.
        self.world.handle_command(self.now, &bytes[..(len + 3).min(1_036)]);
        self.collect();
    }

    fn request(&mut self, operation: Operation) {
        let from = SocketAddr::from(CLIENT);
        self.world.handle_request(self.now, from, &Request::new(operation).encode());
        self.collect();
    }

    fn act(&mut self, action: Action) {
        self.world.act(self.now, action);
        self.collect();
    }

    fn names(&self) -> Vec<&str> {
        self.said.iter().map(|(_, name, _)| name.as_str()).collect()
    }

    fn of(&self, name: &str) -> Vec<&serde_json::Value> {
        self.said.iter().filter(|(_, said, _)| said == name).map(|(_, _, event)| event).collect()
    }

    fn take(&mut self) -> Vec<(Instant, String, serde_json::Value)> {
        std::mem::take(&mut self.said)
    }
}

fn seeds() -> Vec<u64> {
    match std::env::var("OCPCAN_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (1..=6).collect(),
    }
}

#[test]
fn a_server_begins_with_its_version_and_positions_wait_until_they_are_asked_for() {
    let mut bench = Bench::new(Options { cars: 2, ..Options::default() });
    assert_eq!(bench.names(), ["ACSP_VERSION", "ACSP_NEW_SESSION"]);
    bench.run(Duration::from_secs(5));
    assert_eq!(
        bench.names()[2..],
        ["ACSP_NEW_CONNECTION", "ACSP_NEW_CONNECTION", "ACSP_CLIENT_LOADED", "ACSP_CLIENT_LOADED"]
    );
    bench.take();
    bench.command(Command::RealtimePosInterval { interval_ms: 50 });
    bench.run(Duration::from_secs(1));
    let updates = bench.of("ACSP_CAR_UPDATE");
    assert_eq!(updates.len(), 40, "two cars, 20 times");
    let times: Vec<u64> = bench.said.iter().map(|(at, _, _)| at.as_millis()).collect();
    assert!(times.chunks(2).all(|pair| pair[0] == pair[1]), "one burst each");
    assert!(times.windows(3).step_by(2).all(|three| three[2] - three[0] == 50), "{times:?}");
    bench.take();
    bench.command(Command::RealtimePosInterval { interval_ms: 0 });
    bench.run(Duration::from_secs(1));
    assert!(bench.of("ACSP_CAR_UPDATE").is_empty());
    // A new session forgets the wish.
    bench.command(Command::RealtimePosInterval { interval_ms: 100 });
    bench.command(Command::NextSession);
    bench.take();
    bench.run(Duration::from_secs(1));
    assert!(bench.said.is_empty(), "{:?}", bench.names());
    // But not one that streams by itself.
    let mut bench = Bench::new(Options { initial_interval_ms: 1_000, ..Options::default() });
    bench.run(Duration::from_secs(10));
    assert!(!bench.of("ACSP_CAR_UPDATE").is_empty());
}

#[test]
fn a_car_is_where_its_velocity_led_it() {
    for seed in seeds() {
        let options = Options { cars: 3, seed, sessions: short_sessions(), ..Options::default() };
        let mut bench = Bench::new(options);
        bench.run(Duration::from_secs(3));
        bench.command(Command::RealtimePosInterval { interval_ms: 20 });
        bench.run(Duration::from_secs(120));
        let mut before: BTreeMap<u64, (Instant, [f64; 3], [f64; 3])> = BTreeMap::new();
        let (mut compared, mut fastest) = (0, 0.0_f64);
        for (at, name, event) in &bench.said {
            if name != "ACSP_CAR_UPDATE" {
                // A collision takes half of the speed at once.
                if name == "ACSP_CLIENT_EVENT" {
                    before.remove(&event["car_id"].as_u64().unwrap());
                }
                continue;
            }
            let three = |key: &str| [0, 1, 2].map(|axis| event[key][axis].as_f64().unwrap());
            let (pos, vel) = (three("pos"), three("vel"));
            let (gear, rpm) = (event["gear"].as_u64().unwrap(), event["engine_rpm"].as_u64().unwrap());
            let part = event["normalized_spline_pos"].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&part) && (1..=7).contains(&gear), "seed {seed}: {event}");
            assert!((900..=8_000).contains(&rpm), "seed {seed}: {event}");
            let speed = vel[0].hypot(vel[2]);
            fastest = fastest.max(speed);
            let car = event["car_id"].as_u64().unwrap();
            if let Some((then, from, with)) = before.insert(car, (*at, pos, vel)) {
                let dt = at.since(then).as_secs_f64();
                for axis in 0..3 {
                    let led = from[axis] + f64::midpoint(with[axis], vel[axis]) * dt;
                    assert!((led - pos[axis]).abs() < 0.03, "seed {seed}, car {car}: {event}");
                }
                compared += 1;
            }
        }
        assert!(compared > 10_000 && fastest > 40.0, "seed {seed}: {compared} of {fastest} m/s");
    }
}

#[test]
fn whatever_happens_the_order_of_the_protocol_holds() {
    for seed in seeds() {
        let mut rng = Rng::new(seed ^ 0xA55E);
        let cars = u8::try_from(rng.range(1, 6)).unwrap();
        let mut bench = Bench::new(Options { cars, seed, sessions: short_sessions(), ..Options::default() });
        for _ in 0..200 {
            let slot = u8::try_from(rng.range(0, 9)).unwrap();
            match rng.range(0, 12) {
                0 => bench.act(Action::Connect(slot)),
                1 => bench.act(Action::Disconnect(slot)),
                2 => bench.act(Action::Collide(slot, (slot % 2 == 0).then_some(slot / 2))),
                3 => bench.act(Action::Chat(slot, "hello \u{1F697}".to_owned())),
                4 => bench.command(Command::RealtimePosInterval { interval_ms: 100 }),
                5 => bench.command(Command::KickUser { car_id: slot }),
                6 if rng.per_mille(300) => bench.command(Command::NextSession),
                7 => bench.command(Command::GetCarInfo { car_id: slot }),
                8 => bench.command(Command::GetSessionInfo { session_index: i16::from(slot) - 2 }),
                10 => bench.act(Action::Halt(slot, rng.per_mille(500))),
                9 => bench.command(Command::AdminCommand { command: Text::from("/restart_session now") }),
                _ => bench.run(Duration::from_millis(rng.range(1, 8_000))),
            }
        }
        judge(&bench, seed);
    }
}

/// What holds for every server, whoever drives and whatever is asked.
fn judge(bench: &Bench, seed: u64) {
    // 0 nobody, 1 loading, 2 loaded.
    let mut slots = [0_u8; 16];
    let mut is_session_open = false;
    for (at, name, event) in &bench.said {
        let car = event["car_id"].as_u64().map(|car| usize::try_from(car).unwrap());
        let what = || format!("seed {seed}, {} ms: {name} {event}", at.as_millis());
        match name.as_str() {
            "ACSP_NEW_CONNECTION" => {
                assert_eq!(slots[car.unwrap()], 0, "{}", what());
                slots[car.unwrap()] = 1;
            }
            "ACSP_CLIENT_LOADED" => {
                assert_eq!(slots[car.unwrap()], 1, "{}", what());
                slots[car.unwrap()] = 2;
            }
            "ACSP_CONNECTION_CLOSED" => {
                assert_ne!(slots[car.unwrap()], 0, "{}", what());
                slots[car.unwrap()] = 0;
            }
            "ACSP_CAR_UPDATE" | "ACSP_CLIENT_EVENT" | "ACSP_LAP_COMPLETED" => {
                assert_eq!(slots[car.unwrap()], 2, "{}", what());
            }
            "ACSP_CAR_INFO" => {
                assert_eq!(event["is_connected"], slots[car.unwrap()] == 2, "{}", what());
            }
            "ACSP_END_SESSION" => {
                assert!(is_session_open, "{}", what());
                is_session_open = false;
            }
            "ACSP_NEW_SESSION" => is_session_open = true,
            _ => {}
        }
        if name == "ACSP_LAP_COMPLETED" {
            let places = event["cars"].as_array().unwrap();
            assert_eq!(places.len(), bench.world.cars().len(), "{}", what());
            // About 1.9 km at 216 km/h at most, and nobody stands still for minutes.
            let lap_ms = event["lap_time"].as_u64().unwrap();
            assert!((30_000..240_000).contains(&lap_ms), "{}", what());
        }
    }
    assert_eq!(bench.decoder.counters().trailing + bench.decoder.counters().short, 0, "seed {seed}");
}

#[test]
fn sessions_follow_each_other_and_a_race_waits_is_won_and_ends() {
    let mut bench = Bench::new(Options { cars: 4, sessions: short_sessions(), ..Options::default() });
    bench.run(Duration::from_secs(350));
    let session = bench.of("ACSP_NEW_SESSION");
    let kinds: Vec<_> = session.iter().map(|s| s["session_type"].as_u64().unwrap()).collect();
    assert_eq!(kinds, [1, 2, 3]);
    assert_eq!((&session[2]["elapsed_ms"], &session[2]["wait_time"]), (&(-15_000).into(), &15_000.into()));
    assert_eq!(
        (&session[2]["time"], &session[2]["laps"], &session[0]["time"]),
        (&0.into(), &2.into(), &3.into())
    );
    assert_eq!(bench.of("ACSP_END_SESSION").len(), 2, "somebody drove in both");
    let last = bench.of("ACSP_LAP_COMPLETED").pop().unwrap();
    assert!(last["cars"].as_array().unwrap().iter().any(|place| place["rtime"] == 999_999_999));
    bench.take();
    bench.command(Command::RealtimePosInterval { interval_ms: 1_000 });
    bench.run(Duration::from_secs(14));
    assert!(
        bench.of("ACSP_CAR_UPDATE").iter().all(|update| update["vel"] == serde_json::json!([0.0, 0.0, 0.0]))
    );
    bench.run(Duration::from_secs(240));
    let laps = bench.of("ACSP_LAP_COMPLETED");
    let finished = |lap: &serde_json::Value| {
        let places = lap["cars"].as_array().unwrap();
        places.iter().filter(|place| place["has_completed_flag"] == true).count()
    };
    assert_eq!(laps.iter().map(|lap| finished(lap)).max(), Some(4));
    // In the order of the race; the time of two laps is that of the race.
    let last = laps.iter().find(|lap| finished(lap) == 4).unwrap();
    let places = last["cars"].as_array().unwrap();
    assert!(places.windows(2).all(|two| two[0]["rlaps"].as_u64() >= two[1]["rlaps"].as_u64()));
    assert!(places[0]["rtime"].as_u64().unwrap() > 60_000 && places[5]["rtime"] == 0);
    assert_eq!(bench.of("ACSP_NEW_SESSION").len(), 1, "the first session again");
    assert_eq!(bench.world.overview().session, "Practice");
}

#[test]
fn every_command_is_answered_as_a_server_answers() {
    let mut bench = Bench::new(Options { cars: 2, ..Options::default() });
    bench.command(Command::GetCarInfo { car_id: 0 });
    bench.run(Duration::from_millis(100));
    bench.command(Command::GetCarInfo { car_id: 0 });
    bench.run(Duration::from_secs(3));
    for car_id in [0, 2, 200] {
        bench.command(Command::GetCarInfo { car_id });
    }
    let infos = bench.of("ACSP_CAR_INFO");
    let connected: Vec<_> = infos.iter().map(|info| info["is_connected"].as_bool().unwrap()).collect();
    assert_eq!(connected, [false, false, true, false], "while it loads it is not connected");
    assert_eq!(infos[3]["driver_name"], "");
    assert_eq!(bench.of("ACSP_ERROR").len(), 1, "there is no car 200");
    bench.take();
    for session_index in [-1, 2, 3, 400] {
        bench.command(Command::GetSessionInfo { session_index });
    }
    assert_eq!(bench.names(), ["ACSP_SESSION_INFO", "ACSP_SESSION_INFO", "ACSP_ERROR", "ACSP_ERROR"]);
    assert_eq!(
        (&bench.said[1].2["name"], &bench.said[1].2["current_sess_index"]),
        (&"Race".into(), &0.into())
    );
    bench.take();
    let set = |session_index, session_type| Command::SetSessionInfo {
        session_index,
        session_name: Text::from("Short"),
        session_type,
        laps: 3,
        time_s: 0,
        wait_time_s: 70,
    };
    bench.command(set(2, 3));
    bench.command(set(9, 3));
    bench.command(set(2, 9));
    bench.command(Command::GetSessionInfo { session_index: 2 });
    assert_eq!(bench.names(), ["ACSP_ERROR", "ACSP_ERROR", "ACSP_SESSION_INFO"]);
    // 70 s in the 16 bits of the wire.
    assert_eq!((&bench.said[2].2["name"], &bench.said[2].2["wait_time"]), (&"Short".into(), &4_464.into()));
    bench.take();
    bench.command(Command::SendChat { car_id: 1, message: Text::from("hello") });
    bench.command(Command::BroadcastChat { message: Text::from("all") });
    bench.command(Command::SendChat { car_id: 3, message: Text::from("nobody") });
    bench.command(Command::KickUser { car_id: 1 });
    bench.command(Command::KickUser { car_id: 1 });
    assert_eq!(bench.names(), ["ACSP_ERROR", "ACSP_CONNECTION_CLOSED", "ACSP_ERROR"]);
    let notes: Vec<String> = std::iter::from_fn(|| bench.world.poll_note()).collect();
    assert_eq!(notes, ["to car 1: hello", "to all: all", "kicked: car 1"]);
    bench.take();
    bench.command(Command::RestartSession);
    bench.command(Command::AdminCommand { command: Text::from("/next_session") });
    bench.command(Command::AdminCommand { command: Text::from("/kick_id 0") });
    bench.command(Command::AdminCommand { command: Text::from("/ballast 0 10") });
    assert_eq!(bench.names(), ["ACSP_NEW_SESSION", "ACSP_NEW_SESSION", "ACSP_CONNECTION_CLOSED"]);
    assert_eq!(bench.of("ACSP_NEW_SESSION")[1]["name"], "Qualify");
    let before = bench.world.overview();
    for bad in [&[][..], &[200], &[210, 1], &[203, 9, 0]] {
        bench.world.handle_command(bench.now, bad);
    }
    let after = bench.world.overview();
    assert_eq!((after.not_understood, after.commands), (before.not_understood + 4, before.commands));
}

#[test]
fn the_game_answers_a_handshake_and_streams_what_the_server_says_of_the_car() {
    let mut bench = Bench::new(Options { cars: 2, has_mishaps: false, ..Options::default() });
    bench.request(Operation::SubscribeUpdate);
    bench.run(Duration::from_secs(5));
    assert!(bench.game.is_empty(), "nobody shook hands");
    bench.request(Operation::Handshake);
    assert!(matches!(
        GameMessage::decode(&bench.game[0].1),
        Ok(GameMessage::Handshake(hand)) if hand.identifier == 4_242 && hand.track_name == "ocpcan_ring"
    ));
    bench.request(Operation::SubscribeUpdate);
    bench.command(Command::RealtimePosInterval { interval_ms: 10 });
    bench.take();
    bench.game.clear();
    bench.run(Duration::from_secs(90));
    let server: BTreeMap<u64, &serde_json::Value> = bench
        .said
        .iter()
        .filter(|(_, name, event)| name == "ACSP_CAR_UPDATE" && event["car_id"] == 0)
        .map(|(at, _, event)| (at.as_nanos(), event))
        .collect();
    let mut compared = 0;
    let (mut has_braked, mut has_thrust) = (false, false);
    for (at, bytes) in &bench.game {
        let Ok(GameMessage::CarInfo(info)) = GameMessage::decode(bytes) else { panic!("not an update") };
        assert!((0.0..=1.0).contains(&info.gas) && (0.0..=1.0).contains(&info.brake));
        assert!(info.gas == 0.0 || info.brake == 0.0 && info.acc_g_horizontal.abs() < 1.6);
        has_braked |= info.brake > 0.5;
        has_thrust |= info.gas > 0.5;
        let Some(update) = server.get(&at.as_nanos()) else { continue };
        assert_eq!(update["pos"], serde_json::json!(info.car_coordinates));
        assert_eq!(update["gear"], info.gear);
        compared += 1;
    }
    assert!(compared > 8_000 && has_braked && has_thrust, "{compared} compared");
    // Laps of any car, instead.
    bench.game.clear();
    bench.request(Operation::SubscribeSpot);
    bench.run(Duration::from_secs(100));
    let mut cars: Vec<i32> = Vec::new();
    for (_, bytes) in &bench.game {
        let Ok(GameMessage::Lap(lap)) = GameMessage::decode(bytes) else { panic!("not a lap") };
        cars.push(lap.car_identifier_number);
    }
    assert!(cars.contains(&0) && cars.contains(&1), "{cars:?}");
    bench.game.clear();
    bench.request(Operation::Dismiss);
    bench.run(Duration::from_secs(100));
    assert!(bench.game.is_empty());
}

#[test]
fn the_same_seed_is_the_same_world_and_a_muted_one_says_nothing() {
    let run = |seed| {
        let mut bench = Bench::new(Options { seed, initial_interval_ms: 500, ..Options::default() });
        bench.run(Duration::from_secs(150));
        bench.take()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
    let mut bench = Bench::new(Options { initial_interval_ms: 100, ..Options::default() });
    bench.run(Duration::from_secs(5));
    bench.act(Action::Mute(true));
    bench.take();
    bench.run(Duration::from_secs(5));
    assert!(bench.said.is_empty());
    bench.act(Action::Mute(false));
    bench.run(Duration::from_secs(1));
    assert_eq!(bench.of("ACSP_CAR_UPDATE").len(), 40);
}

#[test]
fn a_program_that_stood_still_does_not_send_what_was_missed() {
    let mut bench = Bench::new(Options { cars: 1, initial_interval_ms: 100, ..Options::default() });
    bench.run(Duration::from_secs(5));
    bench.take();
    bench.now += Duration::from_secs(3_600);
    bench.world.handle_timeout(bench.now);
    bench.collect();
    assert_eq!(bench.of("ACSP_CAR_UPDATE").len(), 1, "{:?}", bench.names());
}

#[test]
fn a_driver_stops_where_he_is_told_and_drives_on() {
    let mut bench = Bench::new(Options { cars: 1, initial_interval_ms: 100, ..Options::default() });
    bench.run(Duration::from_secs(20));
    bench.act(Action::Halt(0, true));
    bench.run(Duration::from_secs(15));
    let car = &bench.world.cars()[0];
    assert_eq!((car.speed_mps, car.gear(), car.is_driving()), (0.0, 0, true));
    bench.act(Action::Halt(0, false));
    bench.run(Duration::from_secs(5));
    assert!(bench.world.cars()[0].speed_mps > 5.0);
}

#[test]
fn a_script_says_what_and_when() {
    let mut script =
        Script::parse("connect 1 # one\n\nwait 100\nchat 1 hello  there\ncollide 1 2\nhalt 1\ngo 1\n")
            .unwrap();
    let at = Instant::from_millis;
    assert_eq!(script.poll(at(10)), Some(Action::Connect(1)));
    assert_eq!((script.poll(at(10)), script.poll_timeout()), (None, Some(at(110))));
    assert_eq!(script.poll(at(400)), Some(Action::Chat(1, "hello there".to_owned())));
    assert_eq!(script.poll(at(400)), Some(Action::Collide(1, Some(2))));
    assert_eq!(script.poll(at(400)), Some(Action::Halt(1, true)));
    assert_eq!(script.poll(at(400)), Some(Action::Halt(1, false)));
    assert_eq!((script.poll(at(400)), script.poll_timeout()), (None, None));
    for (text, error) in [
        ("next\nfly", (2, ScriptError::Word)),
        ("connect", (1, ScriptError::Count)),
        ("connect 1 2", (1, ScriptError::Count)),
        ("connect 255", (1, ScriptError::Number)),
        ("wait 3600001", (1, ScriptError::Number)),
        ("chat 1", (1, ScriptError::Count)),
    ] {
        assert_eq!(Script::parse(text).unwrap_err(), error, "{text}");
    }
    assert_eq!(Script::parse(&format!("chat 0 {}", "x".repeat(256))).unwrap_err(), (1, ScriptError::Text));
}
