//! The golden packets both ways, every truncation, the dialects, and what servers must not make of it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::game::{GameError, GameMessage, Handshake, Operation, Request, RtCarInfo, RtLap};
use super::*;
use crate::limits::ASSETTO_DATAGRAM;
use crate::proto::ocp::fuzz::Rng;

/// One packet of the collection.
struct Golden {
    name: String,
    bytes: Vec<u8>,
    json: Value,
}

/// The packets of a folder in the order of their names.
fn golden(folder: &str) -> Vec<Golden> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/assetto-corsa").join(folder);
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|e| e == "bin")).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let json: Value = serde_json::from_slice(&fs::read(path.with_extension("json")).unwrap()).unwrap();
        let bytes = fs::read(&path).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(json["hex"], hex, "{}", path.display());
        Golden { name: path.file_stem().unwrap().to_str().unwrap().to_owned(), bytes, json }
    };
    paths.into_iter().map(read).collect()
}

fn event_bytes(event: &Event<'_>) -> Vec<u8> {
    let mut out = [0xa5; ASSETTO_DATAGRAM];
    let size = event.encode(&mut out).unwrap();
    out[..size].to_vec()
}

fn command_bytes(command: &Command<'_>) -> Vec<u8> {
    let mut out = [0xa5; 1_036];
    let size = command.encode(&mut out).unwrap();
    out[..size].to_vec()
}

fn game_bytes(message: &GameMessage<'_>) -> Vec<u8> {
    let mut out = [0xa5; game::HANDSHAKE];
    let size = message.encode(&mut out).unwrap();
    out[..size].to_vec()
}

fn event(datagram: &[u8]) -> Event<'_> {
    let decoded = decode(datagram, Dialect::default()).unwrap();
    assert_eq!(decoded.used, datagram.len());
    decoded.event
}

/// Every cut of a server's message is short, and the error tells the truth about it.
fn expect_short_at_every_cut(name: &str, bytes: &[u8]) {
    for cut in 0..bytes.len() {
        match decode(&bytes[..cut], Dialect::default()) {
            Err(WireError::Empty) => assert_eq!(cut, 0, "{name}"),
            Err(WireError::Short { id, need, have }) => {
                assert!(
                    id == bytes[0] && have == cut && need > cut && need <= bytes.len(),
                    "{name} cut at {cut}"
                );
            }
            other => panic!("{name} cut at {cut}: {other:?}"),
        }
    }
}

#[test]
fn every_golden_event_is_read_as_its_json_says_and_written_as_it_came() {
    let packets = golden("");
    for Golden { name, bytes, json } in &packets {
        let event = event(bytes);
        let mut want = json["acudpclient_event"].clone();
        for (key, value) in json["spec_overrides"].as_object().unwrap() {
            want[key] = value.clone();
        }
        assert_eq!(event.to_json(), want, "{name}");
        assert_eq!(event.name(), json["packet_name"], "{name}");
        assert_eq!(event.id(), json["type_id"], "{name}");
        assert_eq!(event_bytes(&event), *bytes, "{name}");
        assert_eq!(decode_front(bytes, Dialect::default()), decode(bytes, Dialect::default()), "{name}");
        expect_short_at_every_cut(name, bytes);
        if let Event::CarUpdate(update) = event {
            let derived = &json["derived"];
            assert_eq!(derived["speed_horizontal_m_s"], update.speed_mps());
            assert_eq!(derived["gear_label"], update.signed_gear().to_string());
            assert!(update.is_finite());
        }
    }
    let mut ids: Vec<u8> = packets.iter().map(|packet| packet.bytes[0]).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut all = id::EVENTS;
    all.sort_unstable();
    assert_eq!((packets.len(), ids.as_slice()), (14, &all[..]), "a packet for each message");
}

#[test]
fn every_golden_command_is_read_as_its_json_says_and_written_as_it_came() {
    let packets = golden("commands");
    for Golden { name, bytes, json } in &packets {
        let command = Command::decode(bytes).unwrap();
        assert_eq!(command.to_json(), json["fields"], "{name}");
        assert_eq!(command_bytes(&command), *bytes, "{name}");
        assert_eq!(command.acts_on_players(), ![200, 201, 204].contains(&bytes[0]), "{name}");
        for cut in 0..bytes.len() {
            match Command::decode(&bytes[..cut]) {
                Err(WireError::Empty) => assert_eq!(cut, 0, "{name}"),
                Err(WireError::Short { id, need, have }) => {
                    assert!(
                        id == bytes[0] && have == cut && need > cut && need <= bytes.len(),
                        "{name} at {cut}"
                    );
                }
                other => panic!("{name} cut at {cut}: {other:?}"),
            }
        }
        // The vendor's example sends its buffer with zeros to the end.
        let mut buffer = bytes.clone();
        buffer.resize(1_000, 0);
        assert_eq!(Command::decode(&buffer), Ok(command), "{name}");
    }
    let mut ids: Vec<u8> = packets.iter().map(|packet| packet.bytes[0]).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((packets.len(), ids), (12, (200..=209).collect()), "a packet for each command");
}

#[test]
fn every_golden_packet_of_the_game_is_read_as_its_json_says_and_written_as_it_came() {
    let packets = golden("rt");
    let mut kinds = [0; 4];
    for Golden { name, bytes, json } in &packets {
        if let Ok(request) = Request::decode(bytes) {
            kinds[0] += 1;
            assert_eq!(request.to_json(), json["fields"], "{name}");
            assert_eq!(request.encode(), bytes[..], "{name}");
            assert_eq!(request, Request::new(request.operation));
        } else {
            let message = GameMessage::decode(bytes).unwrap();
            assert_eq!(message.to_json(), json["fields"], "{name}");
            let mut want = bytes.clone();
            kinds[match message {
                GameMessage::Handshake(_) => 1,
                GameMessage::CarInfo(_) => {
                    // Padding says nothing, and is not kept.
                    for at in [1, 2, 3, 26, 27] {
                        want[at] = 0;
                    }
                    2
                }
                GameMessage::Lap(_) => 3,
            }] += 1;
            assert_eq!(game_bytes(&message), want, "{name}");
        }
        for cut in (0..bytes.len()).chain([bytes.len() + 1]) {
            let mut datagram = bytes.clone();
            datagram.resize(cut, 0);
            // A cut that has the length of something else is read as that: nothing else tells them apart.
            if ![game::HANDSHAKE, game::LAP, game::CAR_INFO].contains(&cut) {
                assert_eq!(GameMessage::decode(&datagram), Err(GameError::Length(cut)), "{name}");
            }
            if cut != game::REQUEST {
                assert_eq!(Request::decode(&datagram), Err(GameError::Length(cut)), "{name}");
            }
        }
    }
    assert_eq!(kinds, [4, 1, 2, 1]);
}

#[test]
fn the_game_refuses_what_only_has_the_right_length() {
    let mut update = game_bytes(&GameMessage::CarInfo(RtCarInfo::default()));
    update[0] = b'b';
    assert_eq!(GameMessage::decode(&update), Err(GameError::Identifier(b'b')));
    update[0] = b'a';
    update[4] = 0x47;
    assert_eq!(GameMessage::decode(&update), Err(GameError::Size(327)));
    let mut request = Request::new(Operation::Dismiss).encode();
    request[8] = 4;
    assert_eq!(Request::decode(&request), Err(GameError::Operation(4)));
    request[8..].copy_from_slice(&(-1_i32).to_le_bytes());
    assert_eq!(Request::decode(&request), Err(GameError::Operation(-1)));
    assert_eq!(RtCarInfo { gear: i32::MIN, ..RtCarInfo::default() }.signed_gear(), i32::MIN);
}

#[test]
fn texts_of_the_game_end_where_they_say() {
    let mut longest = "x".repeat(49);
    let lap = |driver_name: &str, car_name: &str| {
        let mut out = [0; game::LAP];
        let lap = RtLap { driver_name: driver_name.into(), car_name: car_name.into(), ..RtLap::default() };
        GameMessage::Lap(lap).encode(&mut out).map(|size| (size, out))
    };
    let (size, bytes) = lap(&longest, "ü🚗").unwrap();
    assert_eq!(size, game::LAP);
    let GameMessage::Lap(read) = GameMessage::decode(&bytes).unwrap() else { panic!() };
    assert_eq!((read.driver_name, read.car_name), (longest.as_str().into(), "ü🚗".into()));
    longest.push('x');
    assert_eq!(lap(&longest, ""), Err(EncodeError::TextTooLong));
    // One more than there is place for, by the second half of a pair.
    assert_eq!(lap(&format!("{}🚗", "x".repeat(48)), ""), Err(EncodeError::TextTooLong));
    assert_eq!(lap("100%", ""), Err(EncodeError::Terminator('%')));
    assert_eq!(lap("", "a\0"), Err(EncodeError::Terminator('\0')));
    // Without any end, with half a pair, with zeros in place of the end.
    let mut open = [0; game::LAP];
    open[8..108].fill(b'a');
    open[108..114].copy_from_slice(&[b'x', 0, 0x00, 0xd8, b'y', 0]);
    let GameMessage::Lap(read) = GameMessage::decode(&open).unwrap() else { panic!() };
    assert_eq!(read.driver_name, "\u{6161}".repeat(50).as_str());
    assert_eq!(read.car_name, "x\u{fffd}y");
    assert_eq!(game_bytes(&GameMessage::Lap(read)), open);
}

/// A session as the original server writes it.
fn session() -> Session<'static> {
    Session {
        proto_version: 4,
        session_count: 3,
        server_name: "Prüfstand".into(),
        track_name: "magione".into(),
        name: "Race".into(),
        session_type: 3,
        laps: 7,
        wait_time_ms: 40_000,
        weather_graph: "3_clear".into(),
        elapsed_ms: -40_000,
        ..Session::default()
    }
}

#[test]
fn a_weather_in_wide_characters_is_seen_and_a_cut_one_is_not_taken_for_a_narrow_one() {
    for weather in ["3_clear", "7_heavy_clouds_and_more", "Ω_Ωx", "sol"] {
        let assetto_server =
            Event::NewSession(Session { is_weather_wide: true, weather_graph: weather.into(), ..session() });
        let bytes = event_bytes(&assetto_server);
        let kunos = event_bytes(&Event::NewSession(Session { weather_graph: weather.into(), ..session() }));
        assert_eq!(event(&bytes), assetto_server);
        let Event::NewSession(read) = event(&kunos) else { panic!() };
        assert!(!read.is_weather_wide && read.weather_graph == weather);
        expect_short_at_every_cut(weather, &bytes);
        expect_short_at_every_cut(weather, &kunos);
        for bytes in [bytes, kunos] {
            // In front of another message, and with something behind it.
            let capture = [&bytes[..], &[58, 5], &bytes].concat();
            assert_eq!(decode_front(&capture, Dialect::default()), decode(&bytes, Dialect::default()));
            let padded = [&bytes[..], &[0; 40]].concat();
            assert_eq!(decode(&padded, Dialect::default()), decode(&bytes, Dialect::default()));
        }
    }
    // Without a name both are the same bytes.
    let empty = Session { weather_graph: "".into(), ..session() };
    let bytes = event_bytes(&Event::SessionInfo(empty));
    let wide = Session { is_weather_wide: true, ..empty };
    assert_eq!(bytes, event_bytes(&Event::SessionInfo(wide)));
    assert_eq!(event(&bytes), Event::SessionInfo(empty));
    // One character: only the length of the datagram tells.
    let one = Session { is_weather_wide: true, weather_graph: "3".into(), ..session() };
    assert_eq!(event(&event_bytes(&Event::SessionInfo(one))), Event::SessionInfo(one));
    let one = Session { is_weather_wide: false, ..one };
    assert_eq!(event(&event_bytes(&Event::SessionInfo(one))), Event::SessionInfo(one));
}

#[test]
fn places_of_older_servers_are_read_by_the_version_they_said() {
    let lap = |entry: &[u8], grip: &[u8]| [&[73, 5, 1, 0, 0, 0, 0, 2], entry, entry, grip].concat();
    let grip = 0.75_f32.to_le_bytes();
    let car = LapCar { rcar_id: 5, rtime: 0x0102, rlaps: 3, has_completed_flag: false };
    let cars = |decoder: &mut Decoder, bytes: &[u8]| match decoder.handle_datagram(bytes) {
        Ok(Event::LapCompleted(lap)) => Ok((lap.cars.cars().collect::<Vec<_>>(), lap.grip_level)),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    };
    let mut decoder = Decoder::default();
    let entry = [5, 2, 1, 0, 0, 3, 0, 1];
    for (version, form) in [(2, &[5, 2, 1, 0, 0, 3][..]), (3, &entry[..7])] {
        // The same bytes from a server of today are cut off.
        decoder.handle_datagram(&[56, 4]).unwrap();
        assert!(matches!(cars(&mut decoder, &lap(form, &grip)), Err(WireError::Short { id: 73, .. })));
        decoder.handle_datagram(&[56, version]).unwrap();
        let bytes = lap(form, &grip);
        assert_eq!(cars(&mut decoder, &bytes), Ok((vec![car; 2], Some(0.75))));
        let Ok(event) = decoder.handle_datagram(&bytes) else { panic!() };
        assert_eq!(event_bytes(&event), bytes);
        for cut in 1..bytes.len() {
            assert!(matches!(decoder.handle_datagram(&bytes[..cut]), Err(WireError::Short { .. })), "{cut}");
        }
    }
    // The version also comes with a session.
    decoder.handle_datagram(&event_bytes(&Event::NewSession(session()))).unwrap();
    let finished = LapCar { has_completed_flag: true, ..car };
    assert_eq!(cars(&mut decoder, &lap(&entry, &grip)), Ok((vec![finished; 2], Some(0.75))));
}

#[test]
fn an_early_acsm_server_is_known_by_its_car_info_and_sends_no_grip() {
    let connection = Connection {
        driver_name: "Test Drïver".into(),
        driver_guid: "76561190000000001".into(),
        car_id: 5,
        car_model: "ks_ferrari_sf15t".into(),
        car_skin: "".into(),
    };
    let empty_slot = Connection { driver_name: "".into(), driver_guid: "".into(), ..connection };
    assert_eq!(event(&event_bytes(&Event::EarlyCarInfo(empty_slot))), Event::EarlyCarInfo(empty_slot));
    let bytes = event_bytes(&Event::EarlyCarInfo(connection));
    let no_grip = [73, 5, 1, 0, 0, 0, 0, 1, 5, 2, 1, 0, 0, 3, 0, 1];
    let mut decoder = Decoder::default();
    // A lap without a grip is a cut one as long as nothing else is known.
    assert_eq!(
        decoder.handle_datagram(&no_grip),
        Err(WireError::Short { id: 73, need: no_grip.len() + 4, have: no_grip.len() })
    );
    let event = decoder.handle_datagram(&bytes).unwrap();
    assert_eq!((event, event.name()), (Event::EarlyCarInfo(connection), "ACSP_CAR_INFO"));
    assert_eq!(
        event.to_json(),
        json!({ "car_id": 5, "is_connected": null, "car_model": "ks_ferrari_sf15t", "car_skin": "",
            "driver_name": "Test Drïver", "driver_team": null, "driver_guid": "76561190000000001" })
    );
    // A cut one is short as the usual layout, which is longer.
    for cut in 1..bytes.len() {
        let cut = decode(&bytes[..cut], Dialect::default());
        assert!(matches!(cut, Err(WireError::Short { id: id::CAR_INFO, .. })), "{cut:?}");
    }
    let Ok(Event::LapCompleted(lap)) = decoder.handle_datagram(&no_grip) else { panic!() };
    assert_eq!((lap.grip_level, lap.cars.len()), (None, 1));
    assert_eq!(event_bytes(&Event::LapCompleted(lap)), no_grip);
    assert_eq!(Event::LapCompleted(lap).to_json()["grip_level"], Value::Null);
    // A later one that sends it is read too.
    let with_grip = [&no_grip[..], &1_f32.to_le_bytes()].concat();
    let Ok(Event::LapCompleted(lap)) = decoder.handle_datagram(&with_grip) else { panic!() };
    assert_eq!(lap.grip_level, Some(1.0));
    // In a capture without borders too.
    let capture = [&bytes[..], &no_grip, &[58, 5], &no_grip].concat();
    let mut walker = Decoder::default();
    let mut rest = &capture[..];
    let mut names = Vec::new();
    while let Ok(decoded) = walker.handle_front(rest) {
        names.push(decoded.event.name());
        rest = &rest[decoded.used..];
    }
    assert_eq!(names, ["ACSP_CAR_INFO", "ACSP_LAP_COMPLETED", "ACSP_CLIENT_LOADED", "ACSP_LAP_COMPLETED"]);
    assert_eq!((rest.len(), walker.counters().empty), (0, 1));
}

#[test]
fn a_capture_without_borders_is_walked_from_end_to_end() {
    let packets = golden("");
    let capture: Vec<u8> = packets.iter().flat_map(|packet| packet.bytes.clone()).collect();
    let mut decoder = Decoder::default();
    let mut rest = &capture[..];
    for Golden { name, bytes, .. } in &packets {
        let decoded = decoder.handle_front(rest).unwrap();
        assert_eq!((decoded.event, decoded.used), (event(bytes), bytes.len()), "{name}");
        rest = &rest[decoded.used..];
    }
    assert_eq!(decoder.handle_front(rest), Err(WireError::Empty));
}

#[test]
fn nothing_is_carried_over_and_everything_is_counted() {
    let update = event_bytes(&Event::CarUpdate(CarUpdate { car_id: 7, gear: 3, ..CarUpdate::default() }));
    let mut decoder = Decoder::default();
    // What makes acudpclient read one wrong update and then garbage: a short update with a message behind it.
    assert_eq!(decoder.handle_datagram(&update[..20]), Err(WireError::Short { id: 53, need: 26, have: 20 }));
    let Ok(Event::CarUpdate(read)) = decoder.handle_datagram(&update) else { panic!() };
    assert_eq!((read.car_id, read.gear, read.signed_gear()), (7, 3, 2));
    // A version with something behind it that looks like another one.
    assert_eq!(decoder.handle_datagram(&[56, 4, 56, 9]), Ok(Event::Version { proto_version: 4 }));
    for (datagram, want) in [
        (&[][..], WireError::Empty),
        (&[150, 1, 2, 3], WireError::UnknownId(150)),
        (&[10, 5], WireError::UnknownId(10)),
        (&[11, 5], WireError::UnknownId(11)),
        (&[201, 5], WireError::UnknownId(201)),
        (&[0], WireError::UnknownId(0)),
    ] {
        assert_eq!(decoder.handle_datagram(datagram), Err(want));
    }
    let want = Counters { events: 2, unknown: 5, short: 1, empty: 1, trailing: 1, trailing_bytes: 2 };
    assert_eq!(decoder.counters(), want);
    assert_eq!(Command::decode(&[53, 5]), Err(WireError::UnknownId(53)));
    assert_eq!(Command::decode(&[210]), Err(WireError::UnknownId(210)));
}

#[test]
fn numbers_that_are_none_are_seen_and_become_null() {
    let fine = CarUpdate { vel: [3.0, 100.0, -4.0], ..CarUpdate::default() };
    assert!(fine.is_finite());
    assert_eq!((fine.speed_mps(), fine.signed_gear()), (5.0, -1));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in 0..7 {
            let mut update = fine;
            match at {
                0..=2 => update.pos[at] = bad,
                3..=5 => update.vel[at - 3] = bad,
                _ => update.normalized_spline_pos = bad,
            }
            let bytes = event_bytes(&Event::CarUpdate(update));
            let Event::CarUpdate(read) = event(&bytes) else { panic!() };
            assert!(!read.is_finite(), "{bad} at {at}");
            assert_eq!(event_bytes(&Event::CarUpdate(read)), bytes);
            assert!(Event::CarUpdate(read).to_json().to_string().contains("null"));
        }
    }
}

#[test]
fn texts_of_a_server_lose_a_byte_order_mark_and_keep_every_character() {
    let chat = |points: &[u32]| {
        let points = points.iter().flat_map(|point| point.to_le_bytes());
        [57, 5, 0].into_iter().chain(points).collect::<Vec<u8>>()
    };
    let mut bytes = chat(&[0xfeff, 0x41, 0xd800, 0x11_0000, 0x1f697, 0xfeff]);
    bytes[2] = 6;
    let Event::Chat { message, .. } = event(&bytes) else { panic!() };
    assert_eq!(message, "A\u{fffd}\u{fffd}🚗\u{feff}");
    assert_eq!(message.to_string(), "A\u{fffd}\u{fffd}🚗\u{feff}");
    assert_eq!(format!("{message:?}"), "\"A\u{fffd}\u{fffd}🚗\\u{feff}\"");
    assert_eq!(event_bytes(&event(&bytes)), bytes, "written as it came");
    // Narrow: UTF-8, or what is left of it.
    let names = |model: &[u8]| {
        let length = u8::try_from(model.len()).unwrap();
        [&[51, 0, 0, 5, length][..], model, &[0]].concat()
    };
    for (raw, want) in [
        (&b"\xef\xbb\xbfks"[..], "ks"),
        ("Drïver".as_bytes(), "Drïver"),
        (b"Dr\xefver", "Dr\u{fffd}ver"),
        (b"\xf0\x9f\x9a", "\u{fffd}"),
        (b"", ""),
    ] {
        let bytes = names(raw);
        let Event::NewConnection(connection) = event(&bytes) else { panic!() };
        assert_eq!(connection.car_model, want);
        assert_eq!(connection.car_model.is_empty(), want.is_empty());
        assert_eq!(event_bytes(&event(&bytes)), bytes);
    }
}

#[test]
fn what_does_not_fit_is_not_written() {
    let (longest, longer) = ("é".repeat(255), "é".repeat(256));
    let mut out = [0; ASSETTO_DATAGRAM];
    // The longest messages there are.
    let text = Text::from(longest.as_str());
    let info = CarInfo {
        car_model: text,
        car_skin: text,
        driver_name: text,
        driver_team: text,
        driver_guid: text,
        ..CarInfo::default()
    };
    assert_eq!(Event::CarInfo(info).encode(&mut out), Ok(5_108));
    let message = Text::from(longer.as_str());
    assert_eq!(Command::BroadcastChat { message }.encode(&mut out), Err(EncodeError::TextTooLong));
    // 510 bytes where 255 are the most.
    let narrow = Event::NewConnection(Connection { car_model: text, ..Connection::default() });
    assert_eq!(narrow.encode(&mut out), Err(EncodeError::TextTooLong));
    let order = Command::SetSessionInfo {
        session_index: 1,
        session_name: text,
        session_type: 3,
        laps: 0,
        time_s: 0,
        wait_time_s: 0,
    };
    assert_eq!(order.encode(&mut [0; 1_035]), Err(EncodeError::BufferTooSmall));
    assert_eq!(order.encode(&mut [0; 1_036]), Ok(1_036));
    let cars = [LapCar::default(); 256];
    let lap = |cars: &[LapCar], out: &mut [u8]| {
        let lap =
            LapCompleted { car_id: 0, lap_time_ms: 0, cuts: 0, cars: cars.into(), grip_level: Some(1.0) };
        Event::LapCompleted(lap).encode(out)
    };
    assert_eq!(lap(&cars[..255], &mut out), Ok(2_052));
    assert_eq!(lap(&cars, &mut out), Err(EncodeError::TooManyCars));
    assert_eq!(Event::Version { proto_version: 4 }.encode(&mut []), Err(EncodeError::BufferTooSmall));
}

#[test]
fn mutated_packets_harm_nothing() {
    let mut rng = Rng::from_environment("mutated_packets_harm_nothing");
    let all: Vec<Vec<u8>> =
        ["", "commands", "rt"].into_iter().flat_map(golden).map(|packet| packet.bytes).collect();
    for _ in 0..20_000 {
        let mut data = vec![rng.bits().to_le_bytes()[0]];
        data.extend_from_slice(&all[rng.below(all.len())]);
        fuzz::assetto(&data);
        rng.mutate(&mut data);
        fuzz::assetto(&data);
        // A row of datagrams, each behind its length.
        let mut row = vec![0];
        for _ in 0..3 {
            let packet = &all[rng.below(all.len())];
            row.push(u8::try_from(packet.len().min(255)).unwrap());
            row.extend_from_slice(packet);
        }
        rng.mutate(&mut row);
        fuzz::assetto(&row);
    }
}

/// Characters that people write, and some that need more than one unit somewhere.
fn any_text() -> impl Strategy<Value = String> {
    "[ -~äéΩ€🚗]{0,40}"
}

proptest! {
    #[test]
    fn any_session_is_read_as_it_was_written(
        numbers in any::<([u8; 5], [u16; 3], [u8; 2], i32)>(),
        texts in prop::collection::vec(any_text(), 5),
        wide in any::<bool>(),
    ) {
        let ([a, b, c, d, e], [time_min, laps, wait_time_ms], [f, g], elapsed_ms) = numbers;
        let session = Session {
            proto_version: a,
            session_index: b,
            current_sess_index: c,
            session_count: d,
            server_name: texts[0].as_str().into(),
            track_name: texts[1].as_str().into(),
            track_config: texts[2].as_str().into(),
            name: texts[3].as_str().into(),
            session_type: e,
            time_min,
            laps,
            wait_time_ms,
            ambient_temp_c: f,
            track_temp_c: g,
            weather_graph: texts[4].as_str().into(),
            is_weather_wide: wide && texts[4].chars().count() > 3,
            elapsed_ms,
        };
        let bytes = event_bytes(&Event::SessionInfo(session));
        prop_assert_eq!(event(&bytes), Event::SessionInfo(session));
        expect_short_at_every_cut("session", &bytes);
    }

    #[test]
    fn any_driver_and_car_is_read_as_it_was_written(
        car_id in prop_oneof![any::<u8>(), 0..3_u8],
        is_connected in any::<bool>(),
        texts in prop::collection::vec(prop_oneof![any_text(), "[aΩ中🚗]{0,3}"], 4),
        guid in "[0-9]{0,17}",
    ) {
        let t = |at: usize| Text::from(texts[at].as_str());
        let info = CarInfo {
            car_id,
            is_connected,
            car_model: t(0),
            car_skin: t(1),
            driver_name: t(2),
            driver_team: t(3),
            driver_guid: guid.as_str().into(),
        };
        let connection = Connection {
            driver_name: t(2),
            driver_guid: guid.as_str().into(),
            car_id,
            car_model: t(0),
            car_skin: t(1),
        };
        let message = t(3);
        for written in [
            Event::CarInfo(info),
            Event::NewConnection(connection),
            Event::ConnectionClosed(connection),
            Event::Chat { car_id, message },
            Event::Error { message },
            Event::EndSession { filename: message },
        ] {
            let bytes = event_bytes(&written);
            prop_assert_eq!(event(&bytes), written);
            expect_short_at_every_cut(written.name(), &bytes);
        }
        for written in [
            Command::SendChat { car_id, message },
            Command::BroadcastChat { message },
            Command::AdminCommand { command: message },
        ] {
            let bytes = command_bytes(&written);
            prop_assert_eq!(Command::decode(&bytes), Ok(written));
        }
    }

    #[test]
    fn any_lap_is_read_as_it_was_written(
        numbers in any::<(u8, u32, u8, f32)>(),
        cars in prop::collection::vec(any::<(u8, u32, u16, bool)>(), 0..=255),
    ) {
        let (car_id, lap_time_ms, cuts, grip) = numbers;
        let cars: Vec<LapCar> = cars
            .into_iter()
            .map(|(rcar_id, rtime, rlaps, has_completed_flag)| LapCar { rcar_id, rtime, rlaps, has_completed_flag })
            .collect();
        let lap = LapCompleted { car_id, lap_time_ms, cuts, cars: cars.as_slice().into(), grip_level: Some(grip) };
        let bytes = event_bytes(&Event::LapCompleted(lap));
        prop_assert_eq!(bytes.len(), 12 + 8 * cars.len());
        prop_assert_eq!(event(&bytes), Event::LapCompleted(lap));
        expect_short_at_every_cut("lap", &bytes);
    }

    #[test]
    fn any_step_of_the_game_is_read_as_it_was_written(
        floats in prop::collection::vec(any::<f32>(), 76),
        whole in any::<[i32; 5]>(),
        flags in any::<[bool; 6]>(),
    ) {
        let four = |at: usize| [floats[at], floats[at + 1], floats[at + 2], floats[at + 3]];
        let info = RtCarInfo {
            speed_kmh: floats[56],
            speed_mph: floats[57],
            speed_mps: floats[58],
            is_abs_enabled: flags[0],
            is_abs_in_action: flags[1],
            is_tc_in_action: flags[2],
            is_tc_enabled: flags[3],
            is_in_pit: flags[4],
            is_engine_limiter_on: flags[5],
            acc_g_vertical: floats[59],
            acc_g_horizontal: floats[60],
            acc_g_frontal: floats[61],
            lap_time_ms: whole[0],
            last_lap_ms: whole[1],
            best_lap_ms: whole[2],
            lap_count: whole[3],
            gas: floats[62],
            brake: floats[63],
            clutch: floats[64],
            engine_rpm: floats[65],
            steer: floats[66],
            gear: whole[4],
            cg_height: floats[67],
            wheel_angular_speed: four(0),
            slip_angle: four(4),
            slip_angle_contact_patch: four(8),
            slip_ratio: four(12),
            tyre_slip: four(16),
            nd_slip: four(20),
            load: four(24),
            dy: four(28),
            mz: four(32),
            tyre_dirty_level: four(36),
            camber_rad: four(40),
            tyre_radius: four(44),
            tyre_loaded_radius: four(48),
            suspension_height: four(52),
            car_position_normalized: floats[68],
            car_slope: floats[69],
            car_coordinates: [floats[70], floats[71], floats[72]],
        };
        let bytes = game_bytes(&GameMessage::CarInfo(info));
        prop_assert_eq!(GameMessage::decode(&bytes), Ok(GameMessage::CarInfo(info)));
    }

    #[test]
    fn any_handshake_is_read_as_it_was_written(
        texts in prop::collection::vec("[ -$&-~äΩ🚗]{0,24}", 4),
        numbers in any::<(i32, i32)>(),
    ) {
        let handshake = Handshake {
            car_name: texts[0].as_str().into(),
            driver_name: texts[1].as_str().into(),
            identifier: numbers.0,
            version: numbers.1,
            track_name: texts[2].as_str().into(),
            track_config: texts[3].as_str().into(),
        };
        let bytes = game_bytes(&GameMessage::Handshake(handshake));
        prop_assert_eq!(bytes.len(), game::HANDSHAKE);
        prop_assert_eq!(GameMessage::decode(&bytes), Ok(GameMessage::Handshake(handshake)));
    }

    #[test]
    fn any_bytes_harm_nothing(data in prop::collection::vec(any::<u8>(), 0..600)) {
        fuzz::assetto(&data);
    }

    #[test]
    fn any_bytes_behind_a_known_type_harm_nothing(
        first in prop::sample::select(&id::EVENTS[..]),
        data in prop::collection::vec(prop_oneof![any::<u8>(), 0..6_u8], 0..200),
    ) {
        fuzz::assetto(&[&[0, first][..], &data].concat());
    }
}
