//! The car that is followed, against what servers and games say and leave out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::stand_in::StandIn;
use super::*;
use crate::limits::ASSETTO_DATAGRAM;
use crate::proto::assetto::game::Handshake;
use crate::proto::assetto::{
    CarInfo, CarUpdate, Command, Connection, Event, LapCompleted, Leaderboard, Session, Text,
};
use crate::signals::bits::{ByteOrder, Codec, Raw};
use crate::signals::car::MapOrigin;
use crate::signals::e2e::CounterPlan;
use crate::signals::plan::{SendMode, SendPlan, SignalPlan};
use crate::signals::source::Source;
use crate::signals::transform::Transform;

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

const fn at(ms: u64) -> Instant {
    Instant::from_millis(1_000 + ms)
}

fn server(car: WantedCar) -> AssettoNode {
    let feed =
        CarFeed::Server { server: SocketAddr::new(HOST, 11_000), listen: SocketAddr::new(HOST, 12_000), car };
    let map = Some(MapOrigin { lat: 47.0, lon: 14.0, ..MapOrigin::default() });
    AssettoNode::new(
        CarSettings { feed, interval: Duration::from_millis(100), heading_min_mps: 1.0, map },
        at(0),
    )
}

fn says(node: &mut AssettoNode, now: Instant, event: &Event<'_>) {
    let mut out = [0; ASSETTO_DATAGRAM];
    let len = event.encode(&mut out).unwrap();
    node.handle_datagram(now, HOST, &out[..len]);
}

fn update(car_id: u8, speed: f32) -> Event<'static> {
    Event::CarUpdate(CarUpdate {
        car_id,
        pos: [100.0, 5.0, -20.0],
        vel: [speed, 1.0, 0.0],
        gear: 3,
        engine_rpm: 4_500,
        normalized_spline_pos: 0.25,
    })
}

fn who(car_id: u8, guid: &'static str) -> Connection<'static> {
    Connection {
        car_id,
        driver_guid: Text::from(guid),
        driver_name: Text::from("Anna"),
        ..Connection::default()
    }
}

/// Everything that is asked until `until`, a pace apart, with time going on.
fn asked(node: &mut AssettoNode, from: u64, until: u64) -> Vec<Command<'static>> {
    let mut questions = Vec::new();
    let mut out = [0; QUESTION_BYTES];
    for ms in (from..until).step_by(20) {
        node.handle_timeout(at(ms));
        while let Some(len) = node.poll_transmit(at(ms), &mut out) {
            questions.push(match Command::decode(&out[..len]).unwrap() {
                Command::GetCarInfo { car_id } => Command::GetCarInfo { car_id },
                Command::GetSessionInfo { session_index } => Command::GetSessionInfo { session_index },
                Command::RealtimePosInterval { interval_ms } => Command::RealtimePosInterval { interval_ms },
                other => panic!("{other:?}: a gateway has no business with it"),
            });
        }
    }
    questions
}

const INTERVAL: Command<'static> = Command::RealtimePosInterval { interval_ms: 100 };
const SESSION: Command<'static> = Command::GetSessionInfo { session_index: -1 };

#[test]
fn an_update_of_our_car_becomes_values_and_grows_stale_after_three_intervals() {
    let mut node = server(WantedCar::Slot(2));
    assert_eq!(node.standing(at(0)), Standing::NoAnswer);
    says(&mut node, at(10), &update(1, 9.0));
    assert_eq!((node.sample(), node.standing(at(10))), (None, Standing::NoCar), "another car");
    says(&mut node, at(20), &update(2, 32.5));
    let sample = *node.sample().unwrap();
    let told = |value| sample.get(value);
    assert_eq!(told(Value::SpeedMps), Some(32.5));
    assert_eq!(told(Value::SpeedKph), Some(117.0));
    assert_eq!(
        (told(Value::Gear), told(Value::Rpm), told(Value::Spline)),
        (Some(2.0), Some(4_500.0), Some(0.25))
    );
    assert_eq!(
        (told(Value::PosX), told(Value::PosY), told(Value::PosZ)),
        (Some(100.0), Some(5.0), Some(-20.0))
    );
    assert_eq!(told(Value::HeadingDeg), Some(90.0));
    assert!(told(Value::Lat).unwrap() < 47.0 && told(Value::Lon).unwrap() > 14.0);
    assert_eq!(
        (told(Value::Throttle), told(Value::LastLapMs), told(Value::LapCount)),
        (None, None, Some(0.0))
    );
    assert_eq!((node.standing(at(320)), node.standing(at(321))), (Standing::Live, Standing::Stale));
    assert!(node.poll_timeout(at(20)) <= at(321), "somebody looks when it happens");
}

#[test]
fn a_heading_is_held_while_the_car_is_slow() {
    let mut node = server(WantedCar::Slot(2));
    says(&mut node, at(0), &update(2, 0.9));
    assert_eq!(node.sample().unwrap().get(Value::HeadingDeg), None, "never fast enough");
    says(&mut node, at(50), &update(2, 1.0));
    says(&mut node, at(100), &update(2, -0.5));
    assert_eq!(node.sample().unwrap().get(Value::HeadingDeg), Some(90.0));
    says(&mut node, at(150), &update(2, -1.5));
    assert_eq!(node.sample().unwrap().get(Value::HeadingDeg), Some(270.0));
}

#[test]
fn what_is_not_finite_changes_nothing_and_is_counted() {
    let mut node = server(WantedCar::Slot(2));
    says(&mut node, at(0), &update(2, 10.0));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        says(&mut node, at(50), &update(2, bad));
    }
    assert_eq!(node.sample().unwrap().at, at(0), "it did not make the values younger either");
    assert_eq!((node.counts().not_finite, node.counts().updates), (3, 1));
}

#[test]
fn another_host_is_not_heard() {
    let mut node = server(WantedCar::Slot(2));
    let mut out = [0; ASSETTO_DATAGRAM];
    let len = update(2, 10.0).encode(&mut out).unwrap();
    node.handle_datagram(at(0), OTHER, &out[..len]);
    node.handle_datagram(at(0), HOST, &out[..len - 1]);
    node.handle_datagram(at(0), HOST, &[99]);
    assert_eq!((node.sample(), node.standing(at(0))), (None, Standing::NoAnswer));
    assert_eq!((node.counts().strangers, node.counts().not_understood, node.counts().messages), (1, 2, 0));
}

#[test]
fn a_driver_who_leaves_ends_the_car_at_once_and_one_who_loads_is_not_there_yet() {
    let mut node = server(WantedCar::Slot(2));
    says(&mut node, at(0), &update(2, 10.0));
    says(&mut node, at(10), &Event::ConnectionClosed(who(2, "1")));
    assert_eq!((node.sample(), node.standing(at(10))), (None, Standing::NoCar));
    says(&mut node, at(20), &update(2, 10.0));
    assert_eq!(node.sample(), None, "a late datagram brings nobody back");
    says(&mut node, at(30), &Event::NewConnection(who(2, "2")));
    says(&mut node, at(40), &update(2, 10.0));
    assert_eq!((node.sample(), node.standing(at(40))), (None, Standing::Loading));
    says(&mut node, at(50), &Event::ClientLoaded { car_id: 2 });
    says(&mut node, at(60), &update(2, 10.0));
    assert_eq!(node.standing(at(60)), Standing::Live);
    // The datagram that said "loaded" was lost; the answer to a question says the same.
    says(&mut node, at(70), &Event::NewConnection(who(2, "3")));
    let info = |is_connected| Event::CarInfo(CarInfo { car_id: 2, is_connected, ..CarInfo::default() });
    says(&mut node, at(80), &info(false));
    assert_eq!(node.standing(at(80)), Standing::Loading);
    says(&mut node, at(90), &info(true));
    says(&mut node, at(100), &update(2, 10.0));
    assert_eq!(node.standing(at(100)), Standing::Live);
}

#[test]
fn a_driver_is_followed_to_his_slot_by_guid_or_name() {
    let mut node = server(WantedCar::Guid("76561198000000007".to_owned()));
    says(&mut node, at(0), &update(4, 10.0));
    assert_eq!((node.slot(), node.sample()), (None, None), "nobody's car is taken for ours");
    assert!(asked(&mut node, 0, 200).contains(&Command::GetCarInfo { car_id: 4 }), "it was there before us");
    let info = CarInfo {
        car_id: 4,
        is_connected: true,
        driver_guid: Text::from("76561198000000007"),
        ..CarInfo::default()
    };
    says(&mut node, at(210), &Event::CarInfo(info));
    says(&mut node, at(220), &update(4, 10.0));
    assert_eq!((node.slot(), node.standing(at(220))), (Some(4), Standing::Live));
    // The slot is another driver's now, and ours comes back in another one.
    says(&mut node, at(300), &Event::NewConnection(who(4, "1")));
    says(&mut node, at(310), &Event::ClientLoaded { car_id: 4 });
    says(&mut node, at(320), &update(4, 10.0));
    assert_eq!((node.slot(), node.sample()), (None, None));
    says(&mut node, at(330), &Event::NewConnection(who(9, "76561198000000007")));
    says(&mut node, at(340), &Event::ClientLoaded { car_id: 9 });
    says(&mut node, at(350), &update(9, 10.0));
    assert_eq!((node.slot(), node.standing(at(350))), (Some(9), Standing::Live));

    let mut by_name = server(WantedCar::Name("Anna".to_owned()));
    says(&mut by_name, at(0), &Event::NewConnection(who(3, "5")));
    says(&mut by_name, at(10), &Event::ClientLoaded { car_id: 3 });
    says(&mut by_name, at(20), &update(3, 10.0));
    assert_eq!(by_name.standing(at(20)), Standing::Live);
}

#[test]
fn it_asks_again_after_a_session_a_start_and_while_our_car_is_quiet() {
    let mut node = server(WantedCar::Slot(2));
    assert_eq!(asked(&mut node, 0, 100), [SESSION, INTERVAL, Command::GetCarInfo { car_id: 2 }]);
    says(&mut node, at(110), &update(2, 10.0));
    says(&mut node, at(120), &Event::NewSession(Session::default()));
    let again = asked(&mut node, 120, 220);
    assert!(again.contains(&INTERVAL) && again.contains(&SESSION), "{again:?}");
    says(&mut node, at(230), &Event::Version { proto_version: 4 });
    assert_eq!(node.sample(), None, "nobody of the server before is there");
    let again = asked(&mut node, 230, 330);
    assert!(again.contains(&INTERVAL) && again.contains(&Command::GetCarInfo { car_id: 2 }), "{again:?}");
    // The server talks, and about our car it says nothing: the question for positions may have been lost.
    for ms in (400..9_000).step_by(500) {
        says(&mut node, at(ms), &update(5, 10.0));
        let questions = asked(&mut node, ms, ms + 500);
        assert!(ms < 1_500 || ms % 1_000 == 400 || questions.contains(&INTERVAL), "{ms}: {questions:?}");
    }
    let mut out = [0; QUESTION_BYTES];
    assert_eq!(node.farewell(&mut out), None, "it may be AssettoServer");
    let narrow = Session { weather_graph: Text::from("3_clear"), ..Session::default() };
    says(&mut node, at(9_000), &Event::SessionInfo(narrow));
    let len = node.farewell(&mut out).unwrap();
    assert_eq!(Command::decode(&out[..len]), Ok(Command::RealtimePosInterval { interval_ms: 0 }));
}

#[test]
fn laps_are_counted_and_the_best_one_is_a_valid_one() {
    let mut node = server(WantedCar::Slot(2));
    says(&mut node, at(0), &update(2, 10.0));
    let lap = |lap_time_ms, cuts| {
        Event::LapCompleted(LapCompleted {
            car_id: 2,
            lap_time_ms,
            cuts,
            cars: Leaderboard::from(&[][..]),
            grip_level: Some(1.0),
        })
    };
    says(&mut node, at(10), &lap(90_000, 0));
    says(&mut node, at(20), &lap(80_000, 1));
    let laps = |node: &AssettoNode| {
        let sample = node.sample().unwrap();
        [Value::LapCount, Value::LastLapMs, Value::BestLapMs].map(|value| sample.get(value))
    };
    assert_eq!(laps(&node), [Some(2.0), Some(80_000.0), Some(90_000.0)]);
    assert_eq!(node.sample().unwrap().at, at(0), "a lap is no update of the place");
    says(&mut node, at(30), &Event::NewSession(Session::default()));
    assert_eq!(laps(&node), [Some(0.0), None, None]);
}

#[test]
fn a_game_tells_pedals_and_no_motion() {
    let feed = CarFeed::Game { game: SocketAddr::new(HOST, 9_996) };
    let settings =
        CarSettings { feed, interval: Duration::from_millis(100), heading_min_mps: 1.0, map: None };
    let mut node = AssettoNode::new(settings, at(0));
    let mut out = [0; QUESTION_BYTES];
    node.handle_timeout(at(0));
    assert_eq!(node.poll_transmit(at(0), &mut out), Some(12));
    assert_eq!(Request::decode(&out).unwrap().operation, Operation::Handshake);
    let say = |node: &mut AssettoNode, ms, message: &GameMessage<'_>| {
        let mut bytes = [0; ASSETTO_DATAGRAM];
        let len = message.encode(&mut bytes).unwrap();
        node.handle_datagram(at(ms), HOST, &bytes[..len]);
    };
    say(&mut node, 10, &GameMessage::Handshake(Handshake::default()));
    assert_eq!(node.standing(at(10)), Standing::NoCar, "it answers, and nothing came yet");
    node.poll_transmit(at(10), &mut out);
    assert_eq!(Request::decode(&out).unwrap().operation, Operation::SubscribeUpdate);
    let step = |z: f32| RtCarInfo {
        speed_mps: 20.0,
        gas: 0.75,
        steer: -0.5,
        gear: 4,
        engine_rpm: 5_000.5,
        last_lap_ms: 0,
        best_lap_ms: 81_000,
        car_coordinates: [3.0, 1.0, z],
        ..RtCarInfo::default()
    };
    say(&mut node, 20, &GameMessage::CarInfo(step(0.0)));
    let told = |node: &AssettoNode, value| node.sample().unwrap().get(value);
    assert_eq!(told(&node, Value::HeadingDeg), None, "one place is no direction");
    assert_eq!((told(&node, Value::Throttle), told(&node, Value::Steer)), (Some(0.75), Some(-0.5)));
    assert_eq!((told(&node, Value::Gear), told(&node, Value::Rpm)), (Some(3.0), Some(5_000.5)));
    assert_eq!((told(&node, Value::LastLapMs), told(&node, Value::BestLapMs)), (None, Some(81_000.0)));
    assert_eq!(told(&node, Value::Lat), None, "no map");
    say(&mut node, 70, &GameMessage::CarInfo(step(-1.0)));
    assert_eq!(told(&node, Value::HeadingDeg), Some(180.0));
    say(&mut node, 120, &GameMessage::CarInfo(step(900.0)));
    assert_eq!(told(&node, Value::HeadingDeg), Some(180.0), "put into the pit, not driven there");
    let mut bad = step(901.0);
    bad.steer = f32::NAN;
    say(&mut node, 170, &GameMessage::CarInfo(bad));
    assert_eq!((node.sample().unwrap().at, node.counts().not_finite), (at(120), 1));
    assert_eq!(node.standing(at(421)), Standing::Stale);
    node.handle_timeout(at(3_170));
    assert_eq!(node.standing(at(3_170)), Standing::NoAnswer);
    node.farewell(&mut out);
    assert_eq!(Request::decode(&out).unwrap().operation, Operation::Dismiss);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]

    /// Whatever comes, in whatever order and from whomever: every value is finite, nothing panics, and nothing but questions
    /// is asked. A failure prints its case and keeps its seed.
    #[test]
    fn whatever_comes_every_value_is_finite(
        events in proptest::collection::vec(
            (0..14_usize, 0..4_u8, proptest::num::f32::ANY, 0..2_000_u64, proptest::bool::weighted(0.1)), 0..120),
        wanted in 0..3_usize,
    ) {
        let wanted = [WantedCar::Slot(1), WantedCar::Guid("7".to_owned()), WantedCar::Name("Anna".to_owned())][wanted].clone();
        let mut node = server(wanted);
        let mut frames = stand_in();
        let mut ms = 0;
        for (kind, car_id, number, wait, is_cut) in events {
            ms += wait;
            let event = match kind {
                0 => Event::NewConnection(who(car_id, "7")),
                1 => Event::NewConnection(who(car_id, "8")),
                2 => Event::ConnectionClosed(who(car_id, "7")),
                3 => Event::ClientLoaded { car_id },
                4 => Event::Version { proto_version: car_id },
                5 => Event::NewSession(Session::default()),
                6 => Event::CarInfo(CarInfo { car_id, is_connected: wait % 2 == 0, ..CarInfo::default() }),
                7 => Event::SessionInfo(Session::default()),
                _ => {
                    let CarUpdate { gear, engine_rpm, normalized_spline_pos, .. } = CarUpdate::default();
                    Event::CarUpdate(CarUpdate {
                        car_id,
                        pos: [number, 1.0, 2.0],
                        vel: [1.0, number, number],
                        gear,
                        engine_rpm,
                        normalized_spline_pos,
                    })
                }
            };
            let mut out = [0; ASSETTO_DATAGRAM];
            let len = event.encode(&mut out).unwrap();
            let len = if is_cut { len / 2 } else { len };
            node.handle_datagram(at(ms), HOST, &out[..len]);
            asked(&mut node, ms, ms + 1);
            let now = at(ms);
            let live = node.standing(now) == Standing::Live;
            proptest::prop_assert_eq!(live, frames.poll_timeout(now, node.sample()).is_some());
            if let Some(sample) = node.sample() {
                for (_, value) in Value::NAMES {
                    proptest::prop_assert!(sample.get(value).is_none_or(f64::is_finite));
                }
            }
            proptest::prop_assert!(live || frames.poll(now, 0, node.sample()).is_none());
            frames.poll(now, 0, node.sample());
            proptest::prop_assert!(node.poll_timeout(now) <= now + Duration::from_secs(5));
        }
    }
}

fn signal(name: &str, start: u16, source: Source, transform: Transform, safe: f64) -> SignalPlan {
    let codec =
        Codec { start, bits: 8, order: ByteOrder::Little, raw: Raw::Unsigned, factor: 1.0, offset: 0.0 };
    SignalPlan::telling((name.to_owned(), codec, false), source, transform, (0.0, 250.0), safe)
}

/// Speed, gear, last lap and a counter, each a byte.
fn stand_in() -> StandIn {
    let car = |value: Value| Source::Car(value as u8);
    let counter =
        Codec { start: 24, bits: 4, order: ByteOrder::Little, raw: Raw::Unsigned, factor: 1.0, offset: 0.0 };
    let gear = Transform::centred(-1.0, 0.0, 1.0).output(1.0, 3.0).output_centre(2.0);
    let plan = SendPlan {
        name: "STATE".to_owned(),
        bus: 1,
        id: crate::can::Id::standard(0x201).unwrap(),
        len: 4,
        fd: false,
        period: Duration::from_millis(20),
        mode: SendMode::Cyclic,
        enable: None,
        counter: Some(CounterPlan { codec: counter, modulo: 16 }),
        checksum: None,
        signals: vec![
            signal("SPEED", 0, car(Value::SpeedKph), Transform::direct(), 0.0),
            signal("GEAR", 8, car(Value::Gear), gear, 2.0),
            signal("LAP", 16, car(Value::LastLapMs), Transform::direct(), 7.0),
        ],
    };
    StandIn::new(vec![plan], Duration::from_millis(300))
}

#[test]
fn its_frames_keep_their_beat_and_fall_silent_with_the_car() {
    let mut frames = stand_in();
    let mut sample = CarSample::new(at(0));
    sample.set(Value::SpeedKph, 1_000.0);
    sample.set(Value::Gear, 5.0);
    assert_eq!(frames.poll(at(0), 0, None), None);
    assert_eq!(frames.poll_timeout(at(0), None), None);
    let mut counters = Vec::new();
    for ms in 0..=400 {
        let due = frames.poll_timeout(at(ms), Some(&sample));
        assert_eq!(due.is_some(), ms <= 300, "{ms}");
        let Some((index, bus, frame)) = frames.poll(at(ms), 0, Some(&sample)) else { continue };
        assert_eq!((index, bus, ms % 20), (0, 1, 0));
        assert_eq!(
            frame.payload()[..3],
            [250, 3, 7],
            "clamped; nothing but its safe value for what is not known"
        );
        counters.push(frame.payload()[3]);
        assert_eq!(frames.poll(at(ms), index + 1, Some(&sample)), None, "once");
    }
    assert_eq!(counters, (0..16).collect::<Vec<_>>(), "at 0, 20 .. 300 and never after");
    // What has no safe value and is not known is withheld, and the counter does not go on.
    let mut strict = stand_in();
    strict.frames[0].0.signals[2].safe = f64::NAN;
    assert_eq!(strict.poll(at(0), 0, Some(&sample)), None);
    assert_eq!(strict.poll_timeout(at(0), Some(&sample)), Some(at(20)), "looked at again in a period");
    sample.set(Value::LastLapMs, 9.0);
    assert_eq!(strict.poll(at(20), 0, Some(&sample)).map(|(.., frame)| frame.payload()[3]), Some(0));
    sample.set(Value::LastLapMs, f64::NAN);
    sample.at = at(1_000);
    sample.set(Value::Gear, -1.0);
    let (.., frame) = frames.poll(at(1_000), 0, Some(&sample)).unwrap();
    assert_eq!(frame.payload(), [250, 1, 7, 0], "the counter goes on");
    assert_eq!(frames.poll(at(1_001), 0, Some(&sample)), None, "what was missed is not made up for");
}
