//! What must hold for every input of this protocol, as functions that panic where it does not.
//!
//! Owns the properties that the fuzz target under `fuzz/` and the seeded tests share, with a second reading of the
//! protocol: a table of keys and types, and JSON made from it. Relies on `serde_json`. Never part of the gateway:
//! nothing outside tests calls it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a property that does not hold is reported by a panic"
)]

use serde_json::{Map, Value, json};

use super::command::Command;
use super::decode::{Counters, Decoded, Decoder, Dialect, decode, decode_front};
use super::event::{Event, Session};
use super::game::{self, GameError, GameMessage, Operation, Request};
use super::id;
use super::lap::EntryForm;
use super::wire::{EncodeError, WireError};
use crate::limits::ASSETTO_DATAGRAM;

/// The fields of a server's message in their order. `B` u8, `b` bool, `H` u16, `I` u32, `i` i32, `f` f32, `V` three
/// of them, `N` str, `W` wstr, `S` str or wstr, `L` the places behind a lap, `o` a car only in a collision of two.
fn fields(id: u8) -> &'static [(&'static str, char)] {
    match id {
        id::NEW_SESSION | id::SESSION_INFO => &[
            ("proto_version", 'B'),
            ("session_index", 'B'),
            ("current_sess_index", 'B'),
            ("session_count", 'B'),
            ("server_name", 'W'),
            ("track_name", 'N'),
            ("track_config", 'N'),
            ("name", 'N'),
            ("session_type", 'B'),
            ("time", 'H'),
            ("laps", 'H'),
            ("wait_time", 'H'),
            ("ambient_temp", 'B'),
            ("track_temp", 'B'),
            ("weather_graph", 'S'),
            ("elapsed_ms", 'i'),
        ],
        id::NEW_CONNECTION | id::CONNECTION_CLOSED => &[
            ("driver_name", 'W'),
            ("driver_guid", 'W'),
            ("car_id", 'B'),
            ("car_model", 'N'),
            ("car_skin", 'N'),
        ],
        id::CAR_UPDATE => &[
            ("car_id", 'B'),
            ("pos", 'V'),
            ("vel", 'V'),
            ("gear", 'B'),
            ("engine_rpm", 'H'),
            ("normalized_spline_pos", 'f'),
        ],
        id::CAR_INFO => &[
            ("car_id", 'B'),
            ("is_connected", 'b'),
            ("car_model", 'W'),
            ("car_skin", 'W'),
            ("driver_name", 'W'),
            ("driver_team", 'W'),
            ("driver_guid", 'W'),
        ],
        id::END_SESSION => &[("filename", 'W')],
        id::VERSION => &[("proto_version", 'B')],
        id::CHAT => &[("car_id", 'B'), ("message", 'W')],
        id::CLIENT_LOADED => &[("car_id", 'B')],
        id::ERROR => &[("message", 'W')],
        id::LAP_COMPLETED => {
            &[("car_id", 'B'), ("lap_time", 'I'), ("cuts", 'B'), ("cars", 'L'), ("grip_level", 'f')]
        }
        id::CLIENT_EVENT => &[
            ("ev_type", 'B'),
            ("car_id", 'B'),
            ("other_car_id", 'o'),
            ("impact_speed", 'f'),
            ("world_pos", 'V'),
            ("rel_pos", 'V'),
        ],
        other => panic!("{other} is no message of a server"),
    }
}

/// The second reading of a whole message in today's dialect: JSON and size, nothing where it is cut off.
fn second_opinion(datagram: &[u8], wide_weather: bool) -> Option<(Value, usize)> {
    let mut at = 1;
    let mut take = |n: usize| {
        at += n;
        datagram.get(at - n..at)
    };
    let float = |bytes: &[u8]| json!(f64::from(f32::from_le_bytes(bytes.try_into().unwrap())));
    let whole = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let mut object = Map::new();
    for (key, kind) in fields(datagram[0]) {
        let kind = if *kind == 'S' { if wide_weather { 'W' } else { 'N' } } else { *kind };
        let value = match kind {
            'B' => whole(take(1)?).into(),
            'b' => (take(1)?[0] != 0).into(),
            'H' => whole(take(2)?).into(),
            'I' => whole(take(4)?).into(),
            'i' => i32::from_le_bytes(take(4)?.try_into().unwrap()).into(),
            'f' => float(take(4)?),
            'V' => take(12)?.chunks(4).map(float).collect(),
            'o' if object["ev_type"] != 10 => 255.into(),
            'o' => whole(take(1)?).into(),
            'N' => {
                let n = usize::from(take(1)?[0]);
                let text = String::from_utf8_lossy(take(n)?);
                text.strip_prefix('\u{feff}').unwrap_or(&text).into()
            }
            'W' => {
                let n = usize::from(take(1)?[0]);
                let points = take(4 * n)?.chunks(4).map(|point| u32::try_from(whole(point)).unwrap());
                let text: String = points.map(|p| char::from_u32(p).unwrap_or('\u{fffd}')).collect();
                text.strip_prefix('\u{feff}').unwrap_or(&text).into()
            }
            'L' => {
                let n = usize::from(take(1)?[0]);
                let car = |entry: &[u8]| {
                    json!({ "rcar_id": entry[0], "rtime": whole(&entry[1..5]), "rlaps": whole(&entry[5..7]),
                        "has_completed_flag": entry[7] != 0 })
                };
                take(8 * n)?.chunks(8).map(car).collect()
            }
            other => panic!("{other}"),
        };
        object.insert((*key).to_owned(), value);
    }
    Some((object.into(), at))
}

/// Reading a datagram is total and agrees with the second opinion, alone and in front of others; what is read is
/// written as it came, but for a `true` that is not 1; what follows a message changes nothing.
pub fn datagram(data: &[u8], dialect: Dialect) {
    let front = decode_front(data, dialect);
    check_opinion(data, front, dialect);
    let decoded = decode(data, dialect);
    check_opinion(data, decoded, dialect);
    let Ok(Decoded { event, used }) = decoded else { return };
    assert_eq!(same(decode(&data[..used], dialect)), same(decoded), "without what follows");
    assert_eq!(event.id(), data[0]);
    let mut out = [0xa5; ASSETTO_DATAGRAM];
    let size = event.encode(&mut out).expect("what came fits");
    assert_eq!(size, used);
    assert!(out[size..].iter().all(|byte| *byte == 0xa5), "behind the message");
    for (ours, theirs) in out.iter().zip(&data[..used]) {
        assert!(ours == theirs || *ours == 1 && *theirs > 1, "{event:?}");
    }
    assert_eq!(same(decode(&out[..size], dialect)), same(decoded), "written and read again");
    assert_eq!(event.encode(&mut out[..size - 1]), Err(EncodeError::BufferTooSmall));
    assert!(event.to_json().is_object() && event.name().starts_with("ACSP_"));
}

/// A form in which a number that is none equals itself.
fn same(result: Result<Decoded<'_>, WireError>) -> String {
    format!("{result:?}")
}

fn check_opinion(data: &[u8], decoded: Result<Decoded<'_>, WireError>, dialect: Dialect) {
    let known = data.first().is_some_and(|first| id::EVENTS.contains(first));
    match decoded {
        Err(WireError::Empty) => assert!(data.is_empty()),
        Err(WireError::UnknownId(unknown)) => assert!(unknown == data[0] && !known),
        Err(WireError::Short { id, need, have }) => {
            assert!(known && id == data[0] && have == data.len() && need > have);
            // What looks like a wide text may be short as that only.
            let is_session = [id::NEW_SESSION, id::SESSION_INFO].contains(&id);
            if dialect == Dialect::default() {
                assert_eq!(second_opinion(data, is_session), None);
            }
        }
        Ok(Decoded { event, used }) => {
            assert!(known && used <= data.len());
            let wide = match event {
                Event::EarlyCarInfo(_) => return,
                Event::LapCompleted(lap) if dialect != Dialect::default() => {
                    assert!(
                        lap.cars.cars().count() == lap.cars.len() && lap.cars.len() == usize::from(data[7])
                    );
                    return;
                }
                Event::NewSession(session) | Event::SessionInfo(session) => session.is_weather_wide,
                _ => false,
            };
            assert_eq!(second_opinion(data, wide), Some((event.to_json(), used)));
        }
    }
}

/// Datagrams of any length behind each other, the first byte of each being its length: every one is counted once, and
/// none knows of the one before it but for the dialect. Then the same bytes as a capture without borders, which comes
/// to an end.
pub fn server(data: &[u8]) {
    let mut decoder = Decoder::default();
    let (mut rest, mut datagrams, mut trailing) = (data, 0, 0);
    while let Some((length, behind)) = rest.split_first() {
        let (datagram, next) = behind.split_at(usize::from(*length).min(behind.len()));
        let alone = decode(datagram, decoder.dialect());
        let event = decoder.handle_datagram(datagram);
        assert_eq!(format!("{event:?}"), format!("{:?}", alone.map(|decoded| decoded.event)));
        match event {
            Ok(Event::Version { proto_version } | Event::NewSession(Session { proto_version, .. })) => {
                assert_eq!(decoder.dialect().lap_entry, EntryForm::of_version(proto_version));
            }
            Ok(Event::EarlyCarInfo(_)) => assert!(!decoder.dialect().has_grip),
            _ => {}
        }
        trailing += alone.map_or(0, |decoded| datagram.len() - decoded.used);
        (rest, datagrams) = (next, datagrams + 1);
    }
    let Counters { events, unknown, short, empty, trailing_bytes, .. } = decoder.counters();
    assert_eq!(events + unknown + short + empty, datagrams);
    assert_eq!(trailing_bytes, u64::try_from(trailing).unwrap());
    let mut rest = data;
    while let Ok(decoded) = decoder.handle_front(rest) {
        assert!(decoded.used > 0);
        rest = &rest[decoded.used..];
    }
}

/// Reading a command is total; what is read is written as it came.
pub fn command(data: &[u8]) {
    let mut out = [0; ASSETTO_DATAGRAM];
    match Command::decode(data) {
        Ok(command) => {
            let size = command.encode(&mut out).expect("what came fits");
            assert_eq!(out[..size], data[..size]);
            assert_eq!(Command::decode(&data[..size]), Ok(command));
            assert_eq!(command.encode(&mut out[..size - 1]), Err(EncodeError::BufferTooSmall));
            assert_eq!(command.to_json()["type_id"], data[0]);
        }
        Err(WireError::Empty) => assert!(data.is_empty()),
        Err(WireError::UnknownId(id)) => assert!(id == data[0] && !(200..=209).contains(&id)),
        Err(WireError::Short { id, need, have }) => {
            assert!(id == data[0] && (200..=209).contains(&id) && have == data.len() && need > have);
        }
    }
}

/// Reading what the game sends is total; what is read is written as it came, but for padding and for a `true` that is
/// not 1. The bytes are also cut or filled up to each length that means something, an update with its first fields.
pub fn game(data: &[u8]) {
    game_datagram(data);
    for length in [game::REQUEST, game::HANDSHAKE, game::LAP, game::CAR_INFO] {
        let mut datagram = data.to_vec();
        datagram.resize(length, 0);
        if length == game::CAR_INFO {
            datagram[0] = b'a';
            datagram[4..8].copy_from_slice(&328_i32.to_le_bytes());
        }
        game_datagram(&datagram);
    }
}

fn game_datagram(data: &[u8]) {
    match Request::decode(data) {
        Ok(request) => assert_eq!(request.encode(), data),
        Err(GameError::Operation(number)) => {
            let known = [
                Operation::Handshake,
                Operation::SubscribeUpdate,
                Operation::SubscribeSpot,
                Operation::Dismiss,
            ];
            assert!(data.len() == game::REQUEST && known.iter().all(|one| one.number() != number));
        }
        Err(error) => assert!(error == GameError::Length(data.len()) && data.len() != game::REQUEST),
    }
    let mut out = [0; ASSETTO_DATAGRAM];
    match GameMessage::decode(data) {
        Ok(message) => {
            let size = message.encode(&mut out).expect("what came fits");
            assert_eq!(size, data.len());
            let is_update = size == game::CAR_INFO;
            for (at, (ours, theirs)) in out.iter().zip(data).enumerate() {
                let is_padding = is_update && [1, 2, 3, 26, 27].contains(&at);
                let is_flag = is_update && (20..26).contains(&at);
                assert!(ours == theirs || is_padding || is_flag && *ours == 1 && *theirs > 1, "byte {at}");
            }
            assert_eq!(
                format!("{:?}", GameMessage::decode(&out[..size])),
                format!("{:?}", Ok::<_, ()>(message))
            );
            assert_eq!(message.encode(&mut out[..size - 1]), Err(EncodeError::BufferTooSmall));
            assert!(message.to_json().is_object());
        }
        Err(GameError::Length(length)) => {
            assert!(length == data.len());
            assert!(![game::HANDSHAKE, game::LAP, game::CAR_INFO].contains(&length));
        }
        Err(_) => assert!(data.len() == game::CAR_INFO),
    }
}

/// All of it. The first byte chooses the side, for the sake of speed, and a server's dialect.
pub fn assetto(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    if choice & 8 != 0 {
        game(data);
        return;
    }
    let lap_entry = [EntryForm::Eight, EntryForm::Seven, EntryForm::Six][usize::from(choice >> 1 & 3) % 3];
    datagram(data, Dialect::default());
    datagram(data, Dialect { lap_entry, has_grip: choice & 1 == 0 });
    server(data);
    command(data);
}
