//! Captures that are made here, byte by byte, and what becomes of them.

use super::*;
use crate::proto::assetto::{CarUpdate, Event};
use serde_json::Value;

/// What a server sends, in order.
fn messages() -> Vec<Vec<u8>> {
    let events = [
        Event::Version { proto_version: 4 },
        Event::ClientLoaded { car_id: 3 },
        Event::CarUpdate(CarUpdate { car_id: 3, gear: 4, engine_rpm: 5_000, ..CarUpdate::default() }),
    ];
    let encode = |event: Event<'_>| {
        let mut bytes = vec![0; 64];
        let len = event.encode(&mut bytes).unwrap();
        bytes.truncate(len);
        bytes
    };
    events.map(encode).to_vec()
}

fn udp_packet(payload: &[u8], from: [u8; 4], ports: [u16; 2]) -> Vec<u8> {
    let len = |header: usize| u16::try_from(header + payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0];
    packet.extend(len(28));
    packet.extend([0, 0, 0x40, 0, 64, UDP, 0, 0]);
    packet.extend(from);
    packet.extend([127, 0, 0, 1]);
    ports.iter().for_each(|port| packet.extend(port.to_be_bytes()));
    packet.extend(len(8));
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

fn ethernet_frame(packet: &[u8], has_tag: bool) -> Vec<u8> {
    let mut frame = vec![2; 12];
    if has_tag {
        frame.extend([0x81, 0, 0, 7]);
    }
    frame.extend([8, 0]);
    frame.extend(packet);
    // The shortest frame has 60 bytes.
    frame.resize(frame.len().max(60), 0xee);
    frame
}

fn pcap(link: u32, packets: &[Vec<u8>]) -> Vec<u8> {
    let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0];
    file.extend([0; 8]);
    file.extend(65_535_u32.to_le_bytes());
    file.extend(link.to_le_bytes());
    for packet in packets {
        let len = u32::try_from(packet.len()).unwrap().to_le_bytes();
        file.extend(1_700_000_000_u32.to_le_bytes());
        file.extend(250_000_u32.to_le_bytes());
        file.extend(len);
        file.extend(len);
        file.extend(packet);
    }
    file
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let len = u32::try_from(body.len() + 12).unwrap().to_le_bytes();
    [&kind.to_le_bytes()[..], &len, &body, &len].concat()
}

/// Raw IP, with nanoseconds, as Wireshark may write it.
fn pcapng(packets: &[Vec<u8>]) -> Vec<u8> {
    let section = [&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat();
    let interface = [101, 0, 0, 0, 0xff, 0xff, 0, 0, 9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0];
    let mut file = [block(0x0a0d_0d0a, &section), block(1, &interface)].concat();
    let ns = 1_700_000_000_250_000_000_u64;
    for packet in packets {
        let len = u32::try_from(packet.len()).unwrap().to_le_bytes();
        let [high, low] = [ns >> 32, ns & 0xffff_ffff].map(|part| u32::try_from(part).unwrap().to_le_bytes());
        file.extend(block(6, &[&[0; 4], &high[..], &low, &len, &len, packet].concat()));
    }
    file
}

struct Seen {
    lines: Vec<Value>,
    other: u64,
    fragments: u64,
    broken: Option<String>,
}

fn read(file: &[u8], server: Option<[u8; 4]>, port: Option<u16>) -> Seen {
    let mut out = Vec::new();
    let server = server.map(|ip| IpAddr::V4(ip.into()));
    let printer = Printer::new(&mut out, None, None);
    let mut replay = Replay { printer, decoder: Decoder::default(), server, port, other: 0, fragments: 0 };
    let broken = match replay.file(file) {
        Ok(()) => None,
        Err(Stop::Broken(why)) => Some(why),
        Err(Stop::Output(error)) => panic!("{error}"),
    };
    let (other, fragments) = (replay.other, replay.fragments);
    let text = String::from_utf8(out).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    Seen { lines, other, fragments, broken }
}

fn names(seen: &Seen) -> Vec<&str> {
    seen.lines.iter().map(|line| line["event"].as_str().unwrap()).collect()
}

const ALL: [&str; 3] = ["ACSP_VERSION", "ACSP_CLIENT_LOADED", "ACSP_CAR_UPDATE"];
const SERVER: [u8; 4] = [10, 0, 0, 1];

#[test]
fn payloads_without_borders_are_read_and_have_no_time() {
    let seen = read(&messages().concat(), None, None);
    assert_eq!(names(&seen), ALL);
    assert!(seen.lines[0]["timestamp"].is_null());
    // Behind an unknown message nothing says where the next one begins.
    let seen = read(&[messages().concat(), vec![150, 1], messages().concat()].concat(), None, None);
    assert_eq!(
        (names(&seen).len(), seen.broken.unwrap()),
        (3, "at byte 37: a message of the unknown type 150".into())
    );
    let cut = messages().concat();
    assert!(read(&cut[..cut.len() - 1], None, None).broken.is_some());
    assert!(read(&[], None, None).lines.is_empty());
}

#[test]
fn captures_of_every_link_give_the_same_with_their_time() {
    let packets: Vec<Vec<u8>> = messages().iter().map(|m| udp_packet(m, SERVER, [11_000, 12_000])).collect();
    let framed = |has_tag| packets.iter().map(|packet| ethernet_frame(packet, has_tag)).collect::<Vec<_>>();
    let loopback: Vec<Vec<u8>> = packets.iter().map(|packet| [&[2, 0, 0, 0][..], packet].concat()).collect();
    let files = [
        pcap(1, &framed(false)),
        pcap(1, &framed(true)),
        pcap(101, &packets),
        pcap(0, &loopback),
        pcapng(&packets),
    ];
    for (number, file) in files.iter().enumerate() {
        let seen = read(file, None, None);
        assert_eq!(names(&seen), ALL, "file {number}");
        assert!(seen.lines.iter().all(|line| line["timestamp"] == 1_700_000_000.25), "file {number}");
        assert_eq!(names(&read(file, Some(SERVER), Some(12_000))), ALL, "file {number}");
        assert_eq!(read(file, Some([10, 0, 0, 9]), None).other, 3, "file {number}");
        assert_eq!(read(file, None, Some(12_001)).other, 3, "file {number}");
    }
}

#[test]
fn a_capture_that_is_cut_anywhere_gives_what_is_whole_and_harms_nothing() {
    let packets: Vec<Vec<u8>> = messages().iter().map(|m| udp_packet(m, SERVER, [11_000, 12_000])).collect();
    let framed: Vec<Vec<u8>> = packets.iter().map(|packet| ethernet_frame(packet, false)).collect();
    for file in [pcap(1, &framed), pcapng(&packets)] {
        for len in 0..file.len() {
            let seen = read(&file[..len], None, None);
            assert!(seen.lines.len() < 3 && names(&seen) == ALL[..seen.lines.len()], "{len} bytes");
        }
        // Any byte may lie.
        for at in 24..file.len() {
            let mut file = file.clone();
            file[at] ^= 0xff;
            read(&file, None, None);
        }
    }
}

#[test]
fn commands_fragments_and_the_game_are_told_apart() {
    let mut fragment = udp_packet(&messages()[2], SERVER, [11_000, 12_000]);
    fragment[6] = 0x20;
    let game = include_bytes!("../../../../tests/data/assetto-corsa/rt/car_info_real.bin");
    let packets = [
        udp_packet(&[200, 100, 0], SERVER, [12_000, 11_000]),
        fragment,
        udp_packet(game, SERVER, [9_996, 40_000]),
        udp_packet(&[211, 1], SERVER, [11_000, 12_000]),
    ];
    let seen = read(&pcap(101, &packets), None, None);
    assert_eq!((names(&seen), seen.other, seen.fragments), (vec!["RTCarInfo"], 1, 1));
}
