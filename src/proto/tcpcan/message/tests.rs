//! Tests of the message: golden bytes, every length, every bad field, both ways.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panicking")]

use super::*;
use crate::proto::ocp::fuzz::Rng;
use crate::proto::tcpcan::fuzz;

fn sff(raw: u32) -> Id {
    Id::standard(raw).unwrap()
}

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut out = [0xa5; FD_MESSAGE];
    let size = encode_frame(frame, &mut out).unwrap();
    out[..size].to_vec()
}

/// A frame message with these fields and zeros as data.
fn raw(n: u8, word: u32, len: u8, flags: u8) -> Vec<u8> {
    let mut bytes = vec![b'd', n];
    bytes.extend_from_slice(&word.to_le_bytes());
    bytes.extend_from_slice(&[len, flags, 0, 0]);
    bytes.resize(2 + usize::from(n), 0);
    bytes
}

/// Both ways: the value gives the bytes and the bytes give the value.
#[track_caller]
fn golden(frame: &Frame, bytes: &[u8]) {
    assert_eq!(encoded(frame), bytes);
    assert_eq!(decode(bytes), Ok(Some((Message::Frame(*frame), bytes.len()))));
}

#[test]
fn version_messages_are_big_endian() {
    assert_eq!(encode_version(1), [0x76, 0x04, 0, 0, 0, 1]);
    assert_eq!(decode(&[0x76, 0x04, 0, 0, 0, 1]), Ok(Some((Message::Version(1), 6))));
    assert_eq!(decode(&[0x76, 0x04, 1, 0, 0, 0]), Ok(Some((Message::Version(0x0100_0000), 6))));
    for version in [0, 1, 2, 0x0102_0304, u32::MAX] {
        assert_eq!(decode(&encode_version(version)), Ok(Some((Message::Version(version), 6))));
    }
}

#[test]
fn golden_classic_frame() {
    // Section 1.1 of the protocol: id 0x123, `ABCDEFGH`, as Python 0.0.2 wrote it.
    golden(
        &Frame::data(sff(0x123), b"ABCDEFGH").unwrap(),
        b"\x64\x10\x23\x01\x00\x00\x08\x00\x00\x00ABCDEFGH",
    );
}

#[test]
fn golden_fd_frame() {
    // Section 1.1 of the protocol: 29-bit id 0x123, 64 bytes, BRS, flags as kernel 6.1 gives them.
    let data: [u8; 64] = core::array::from_fn(|n| u8::try_from(n).unwrap());
    let mut bytes = vec![0x64, 0x48, 0x23, 0x01, 0x00, 0x80, 0x40, 0x05, 0x00, 0x00];
    bytes.extend_from_slice(&data);
    let frame = Frame::fd(Id::extended(0x123).unwrap(), &data, true, false).unwrap();
    golden(&frame, &bytes);
    // An older kernel leaves FDF out: the same frame.
    bytes[7] = 0x01;
    assert_eq!(decode(&bytes), Ok(Some((Message::Frame(frame), 74))));
    bytes[7] = 0x02;
    let frame = Frame::fd(Id::extended(0x123).unwrap(), &data, false, true).unwrap();
    assert_eq!(decode(&bytes), Ok(Some((Message::Frame(frame), 74))));
}

#[test]
fn golden_remote_and_empty_frames() {
    let mut bytes = raw(16, 0x4000_0000 | 0x7ff, 8, 0);
    golden(&Frame::remote(sff(0x7ff), 8).unwrap(), &bytes);
    // Data of a remote request has no meaning.
    bytes[10..].fill(0xee);
    assert_eq!(decode(&bytes), Ok(Some((Message::Frame(Frame::remote(sff(0x7ff), 8).unwrap()), 18))));
    golden(&Frame::data(sff(0), &[]).unwrap(), &raw(16, 0, 0, 0));
    let widest = Id::extended(0x1fff_ffff).unwrap();
    golden(&Frame::data(widest, &[]).unwrap(), &raw(16, 0x9fff_ffff, 0, 0));
    golden(&Frame::fd(sff(1), &[], false, false).unwrap(), &raw(72, 1, 0, 4));
}

#[test]
fn bytes_that_say_nothing_are_ignored_and_sent_as_zero() {
    let mut bytes = raw(16, 0x101, 2, 0xff);
    bytes[8..].copy_from_slice(&[0xff, 0x0f, 1, 2, 9, 9, 9, 9, 9, 9]);
    let frame = Frame::data(sff(0x101), &[1, 2]).unwrap();
    assert_eq!(decode(&bytes), Ok(Some((Message::Frame(frame), 18))));
    let mut clean = raw(16, 0x101, 2, 0);
    clean[10..12].copy_from_slice(&[1, 2]);
    assert_eq!(encoded(&frame), clean);
}

#[test]
fn a_raw_length_code_above_8_is_lost_and_the_data_is_not() {
    // Kernel 5.11 and later: len 8, len8_dlc 15 in byte 7. A frame of ours cannot say so.
    let mut bytes = raw(16, 0x101, 8, 0);
    bytes[9] = 15;
    let frame = Frame::data(sff(0x101), &[0; 8]).unwrap();
    assert_eq!(decode(&bytes), Ok(Some((Message::Frame(frame), 18))));
    assert_eq!(encoded(&frame)[9], 0);
}

#[test]
fn error_messages_of_a_driver_go_neither_way() {
    // Rules 7 and 10 of section 1.5.
    let error = Frame::error(0x1fff_ffff, [0xff; 8]);
    assert_eq!(encode_frame(&error, &mut [0; 74]), None);
    for word in [0x2000_0000, 0x2000_0004, 0x3fff_ffff, 0x6000_0000, 0xa000_0000, 0xffff_ffff] {
        for (n, size) in [(16, 18), (72, 74)] {
            let refused = Message::Refused(Refusal::ErrorFrame);
            assert_eq!(decode(&raw(n, word, 8, 0)), Ok(Some((refused, size))), "{word:08x}");
        }
    }
    assert_eq!(decode(&raw(16, 0x2000_0004, 9, 0)), Err(WireError::FrameLength(9)));
}

#[test]
fn all_lengths_of_a_frame() {
    // Rules 8 and 10 of section 1.5: a length out of range is torn; one that only the kernel would take is refused.
    for len in 0..=255_u8 {
        for rtr in [0, 0x4000_0000] {
            let classic = decode(&raw(16, 0x101 | rtr, len, 0));
            if len <= 8 {
                let Ok(Some((Message::Frame(frame), 18))) = classic else { panic!("{len}: {classic:?}") };
                assert_eq!(frame.len(), usize::from(len));
            } else {
                assert_eq!(classic, Err(WireError::FrameLength(len)));
            }
        }
        let fd = decode(&raw(72, 0x101, len, 0));
        match len {
            0..=8 | 12 | 16 | 20 | 24 | 32 | 48 | 64 => {
                let Ok(Some((Message::Frame(frame), 74))) = fd else { panic!("{len}: {fd:?}") };
                assert_eq!(frame.len(), usize::from(len));
            }
            ..=64 => assert_eq!(fd, Ok(Some((Message::Refused(Refusal::FdLength(len)), 74)))),
            _ => assert_eq!(fd, Err(WireError::FrameLength(len))),
        }
    }
    let remote = decode(&raw(72, 0x4000_0101, 8, 0));
    assert_eq!(remote, Ok(Some((Message::Refused(Refusal::FdRemote), 74))));
}

#[test]
fn all_numbers_of_payload_bytes_for_both_prefixes() {
    // Section 1.3: `d` with 0, 1, 15, 17, 255 and `v` with anything but 4 are what ends or confuses Python.
    for n in 0..=255_u8 {
        let body = vec![0; 255];
        let data = decode(&[&[b'd', n][..], &body].concat());
        let version = decode(&[&[b'v', n][..], &body].concat());
        match n {
            16 => assert!(matches!(data, Ok(Some((Message::Frame(_), 18))))),
            72 => assert!(matches!(data, Ok(Some((Message::Frame(_), 74))))),
            _ => assert_eq!(data, Err(WireError::DataLength(n))),
        }
        match n {
            4 => assert_eq!(version, Ok(Some((Message::Version(0), 6)))),
            _ => assert_eq!(version, Err(WireError::VersionLength(n))),
        }
        // Two bytes are enough to know.
        assert_eq!(decode(&[b'd', n]).is_err(), !matches!(n, 16 | 72));
        assert_eq!(decode(&[b'v', n]).is_err(), n != 4);
    }
}

#[test]
fn all_prefixes() {
    for prefix in 0..=255_u8 {
        let one = decode(&[prefix]);
        let more = decode(&[prefix, 16, 0, 0]);
        if matches!(prefix, b'v' | b'd') {
            assert_eq!(one, Ok(None));
        } else {
            assert_eq!(one, Err(WireError::Prefix(prefix)));
            assert_eq!(more, one);
        }
    }
}

#[test]
fn standard_ids_above_11_bits_are_torn() {
    // Rule 8: the kernel would take 0x800 without the flag.
    for bit in 11..29 {
        let raw_id = 1 << bit;
        for (n, rtr) in [(16, 0), (16, 0x4000_0000), (72, 0), (72, 0x4000_0000)] {
            let got = decode(&raw(n, raw_id | rtr, 0, 0));
            assert_eq!(got, Err(WireError::StandardId(raw_id)), "{raw_id:x} {n}");
        }
        let extended = decode(&raw(16, raw_id | 0x8000_0000, 0, 0));
        assert!(matches!(extended, Ok(Some((Message::Frame(_), 18)))));
    }
}

#[test]
fn every_truncation_waits_for_the_rest() {
    for message in [
        encode_version(1).to_vec(),
        encoded(&Frame::data(sff(0x123), b"ABCDEFGH").unwrap()),
        encoded(&Frame::fd(sff(0x123), &[7; 64], true, true).unwrap()),
        raw(16, 0x2000_0000, 8, 0),
    ] {
        for cut in 0..message.len() {
            assert_eq!(decode(&message[..cut]), Ok(None), "{cut} of {message:02x?}");
        }
        let whole = decode(&message);
        let with_more = [&message[..], b"\xff\xff"].concat();
        assert!(matches!(whole, Ok(Some((_, size))) if size == message.len()));
        assert_eq!(decode(&with_more), whole);
    }
}

#[test]
fn no_room_is_no_message() {
    let classic = Frame::data(sff(1), &[1]).unwrap();
    let fd = Frame::fd(sff(1), &[1], false, false).unwrap();
    for room in 0..FD_MESSAGE {
        let mut out = [0xa5; FD_MESSAGE];
        assert_eq!(encode_frame(&classic, &mut out[..room]), (room >= 18).then_some(18));
        let mut out = [0xa5; FD_MESSAGE];
        assert_eq!(encode_frame(&fd, &mut out[..room]), None);
        assert_eq!(out, [0xa5; FD_MESSAGE]);
    }
}

#[test]
fn every_standard_id_and_many_extended_ones_and_back() {
    for number in 0..=0x7ff {
        let frame = Frame::data(sff(number), &[1]).unwrap();
        assert_eq!(decode(&encoded(&frame)), Ok(Some((Message::Frame(frame), 18))));
    }
    let mut rng = Rng::from_environment("every_standard_id_and_many_extended_ones_and_back");
    for _ in 0..20_000 {
        let frame = fuzz::frame_from(rng.bits());
        let bytes = encoded(&frame);
        assert_eq!(bytes.len(), message_bytes(&frame));
        assert_eq!(decode(&bytes), Ok(Some((Message::Frame(frame), bytes.len()))));
    }
}

#[test]
fn any_bytes() {
    let mut rng = Rng::from_environment("tcpcan any_bytes");
    for _ in 0..50_000 {
        let mut bytes: Vec<u8> = (0..rng.below(90)).map(|_| rng.bits().to_le_bytes()[0]).collect();
        if rng.below(8) > 0 && bytes.len() > 7 {
            bytes[..2].copy_from_slice(rng.pick(&[b"v\x04", b"d\x10", b"d\x48"]));
            bytes[6] %= 70;
            bytes[5] |= rng.pick(&[0, 0x80]);
        }
        fuzz::message(&bytes);
    }
}
