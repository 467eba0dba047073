//! Tests of the session: the negotiation row by row, torn streams, every cut of every stream.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panicking")]

use super::*;
use crate::can::Id;
use crate::proto::ocp::fuzz::Rng;
use crate::proto::tcpcan::{fuzz, message};

const NOW: Instant = Instant::from_millis(1_000);
const V1: [u8; 6] = [0x76, 4, 0, 0, 0, 1];

const NOTHING: [u8; 0] = [];

type Verdict = Result<(), SessionError>;

fn v(version: u32) -> Vec<u8> {
    encode_version(version).to_vec()
}

fn frame(n: u8) -> Frame {
    Frame::data(Id::standard(0x120 + u32::from(n)).unwrap(), &[n; 8]).unwrap()
}

fn fd_frame(n: u8) -> Frame {
    Frame::fd(Id::extended(0x120 + u32::from(n)).unwrap(), &[n; 64], true, false).unwrap()
}

fn d(frame: &Frame) -> Vec<u8> {
    let mut out = [0; message::FD_MESSAGE];
    let size = message::encode_frame(frame, &mut out).unwrap();
    out[..size].to_vec()
}

/// Polls until there is nothing more.
fn drain(session: &mut Session, events: &mut Vec<SessionEvent>) -> Verdict {
    while let Some(event) = session.poll_event()? {
        events.push(event);
    }
    Ok(())
}

/// Feeds the parts one after the other, as reads of their own.
fn feed<P: AsRef<[u8]>>(session: &mut Session, parts: &[P]) -> (Vec<SessionEvent>, Verdict) {
    let mut events = Vec::new();
    for part in parts {
        let part = part.as_ref();
        assert_eq!(session.handle_bytes(part), part.len());
        if let Err(error) = drain(session, &mut events) {
            return (events, Err(error));
        }
    }
    (events, Ok(()))
}

/// Takes what there is to send.
fn said(session: &mut Session) -> Vec<u8> {
    let bytes = session.transmit().to_vec();
    session.handle_sent(bytes.len());
    assert!(session.transmit().is_empty());
    bytes
}

fn agreed(role: Role) -> Session {
    let mut session = Session::new(role, NOW);
    assert_eq!(feed(&mut session, &[V1]), (vec![AGREED], Ok(())));
    session
}

const AGREED: SessionEvent = SessionEvent::Agreed { version: 1 };

// Section 1.2 of the protocol, row by row.

#[test]
fn row_client_just_connected_sends_version_1_at_once() {
    let mut client = Session::new(Role::Client, NOW);
    assert_eq!(said(&mut client), V1);
    assert_eq!(client.version(), None);
}

#[test]
fn row_client_waiting_hears_version_1_and_agrees_without_another_word() {
    let mut client = Session::new(Role::Client, NOW);
    said(&mut client);
    assert_eq!(feed(&mut client, &[V1]), (vec![AGREED], Ok(())));
    assert_eq!(said(&mut client), NOTHING);
    assert_eq!(client.version(), Some(1));
}

#[test]
fn row_client_waiting_hears_any_other_version_and_closes() {
    for version in [0, 2, 3, 0x0100_0000, u32::MAX] {
        let mut client = Session::new(Role::Client, NOW);
        said(&mut client);
        let (events, end) = feed(&mut client, &[v(version)]);
        assert_eq!((events, end), (vec![], Err(SessionError::NoAgreement { version })));
        assert_eq!(said(&mut client), NOTHING);
    }
}

#[test]
fn row_server_accepted_sends_nothing_and_its_patience_ends() {
    let mut server = Session::new(Role::Server, NOW);
    assert_eq!(said(&mut server), NOTHING);
    let deadline = NOW + Duration::from_secs(3);
    assert_eq!(server.poll_timeout(), Some(deadline));
    assert_eq!(server.handle_timeout(deadline - Duration::from_nanos(1)), Ok(()));
    // A part of a version message is no agreement.
    assert_eq!(feed(&mut server, &[&V1[..5]]), (vec![], Ok(())));
    assert_eq!(server.handle_timeout(deadline), Err(SessionError::HandshakeTimeout));
    assert_eq!(server.poll_timeout(), None);
    assert_eq!(feed(&mut server, &[&V1[5..]]), (vec![], Err(SessionError::HandshakeTimeout)));
}

#[test]
fn row_server_waiting_hears_version_1_answers_and_agrees_in_the_same_step() {
    let mut server = Session::new(Role::Server, NOW);
    assert_eq!(feed(&mut server, &[V1]), (vec![AGREED], Ok(())));
    assert_eq!(said(&mut server), V1);
    assert_eq!((server.version(), server.poll_timeout()), (Some(1), None));
    assert_eq!(server.handle_timeout(NOW + Duration::from_secs(99)), Ok(()));
}

#[test]
fn row_server_waiting_hears_0_and_closes_without_a_reply() {
    let mut server = Session::new(Role::Server, NOW);
    assert_eq!(feed(&mut server, &[v(0)]), (vec![], Err(SessionError::NoAgreement { version: 0 })));
    assert_eq!(said(&mut server), NOTHING);
}

#[test]
fn row_server_waiting_hears_a_higher_version_and_offers_1() {
    // Python closes here; the prose rule and 1.5-2 answer 1. Little-endian 1 is such a number too.
    for version in [2, 3, 0x0100_0000, u32::MAX] {
        let mut server = Session::new(Role::Server, NOW);
        assert_eq!(feed(&mut server, &[v(version)]), (vec![], Ok(())));
        assert_eq!(said(&mut server), V1, "never a number that Python cannot take");
        assert_eq!(server.version(), None);
        let mut patient = Session::new(Role::Server, NOW);
        feed(&mut patient, &[v(version)]).1.unwrap();
        // The client takes it, insists, or gives up.
        assert_eq!(feed(&mut server, &[V1]), (vec![AGREED], Ok(())));
        assert_eq!(said(&mut server), NOTHING, "never an answer that equals its own last proposal");
        let insists = Err(SessionError::NoAgreement { version });
        assert_eq!(feed(&mut patient, &[v(version)]), (vec![], insists));
    }
}

#[test]
fn row_agreed_hears_a_version_and_closes() {
    for role in [Role::Client, Role::Server] {
        for version in [0, 1, 2] {
            let (events, end) = feed(&mut agreed(role), &[v(version)]);
            assert_eq!((events, end), (vec![], Err(SessionError::LateVersion)));
        }
    }
}

#[test]
fn row_waiting_hears_a_frame_and_closes() {
    for role in [Role::Client, Role::Server] {
        let mut session = Session::new(role, NOW);
        assert_eq!(feed(&mut session, &[d(&frame(1))]), (vec![], Err(SessionError::EarlyFrame)));
        // The first byte is enough.
        let mut session = Session::new(role, NOW);
        assert_eq!(feed(&mut session, &[b"d"]), (vec![], Err(SessionError::EarlyFrame)));
    }
    // Also between two rounds.
    let mut server = Session::new(Role::Server, NOW);
    let (events, end) = feed(&mut server, &[[v(9), d(&frame(1))].concat()]);
    assert_eq!((events, end), (vec![], Err(SessionError::EarlyFrame)));
}

#[test]
fn a_client_accepts_a_server_that_speaks_first() {
    let mut client = Session::new(Role::Client, NOW);
    assert_eq!(feed(&mut client, &[V1]), (vec![AGREED], Ok(())), "before its own word left");
    assert_eq!(said(&mut client), V1, "which still has to go");
}

#[test]
fn version_and_first_frame_may_share_a_segment() {
    for role in [Role::Client, Role::Server] {
        let mut session = Session::new(role, NOW);
        let (events, end) = feed(&mut session, &[[v(1), d(&frame(7))].concat()]);
        assert_eq!((events, end), (vec![AGREED, SessionEvent::Frame(frame(7))], Ok(())));
        assert_eq!(said(&mut session), V1);
    }
}

#[test]
fn versions_above_1_are_negotiated_down_by_the_prose_rule() {
    let settings = |role, highest| SessionSettings { highest, ..SessionSettings::new(role) };
    for client_highest in 1..=5 {
        for server_highest in 1..=5 {
            let mut client = Session::with_settings(settings(Role::Client, client_highest), NOW);
            let mut server = Session::with_settings(settings(Role::Server, server_highest), NOW);
            let (mut of_client, mut of_server) = (Vec::new(), Vec::new());
            let mut messages = 0;
            loop {
                let (to_server, to_client) = (said(&mut client), said(&mut server));
                messages += (to_server.len() + to_client.len()) / 6;
                if to_server.is_empty() && to_client.is_empty() {
                    break;
                }
                of_server.extend(feed(&mut server, &[to_server]).0);
                of_client.extend(feed(&mut client, &[to_client]).0);
            }
            let version = client_highest.min(server_highest);
            assert_eq!(of_client, [SessionEvent::Agreed { version }], "{client_highest} {server_highest}");
            assert_eq!(of_client, of_server);
            assert!(messages <= 3, "{messages} messages");
        }
    }
}

#[test]
fn rounds_are_bounded_whatever_the_other_side_says() {
    let mut rng = Rng::from_environment("rounds_are_bounded_whatever_the_other_side_says");
    for _ in 0..5_000 {
        let role = rng.pick(&[Role::Client, Role::Server]);
        let highest = 1 + u32::try_from(rng.below(6)).unwrap();
        let settings = SessionSettings { highest, ..SessionSettings::new(role) };
        let settings = SessionSettings { buffer_bytes: 0, ..settings };
        let mut session = Session::with_settings(settings, NOW);
        let mut words = said(&mut session).len() / 6;
        let mut heard = 0;
        while session.version().is_none() {
            heard += 1;
            let version = u32::try_from(rng.below(8)).unwrap();
            let end = feed(&mut session, &[v(version)]).1;
            words += said(&mut session).len() / 6;
            if end.is_err() {
                break;
            }
        }
        assert!(heard <= 2 && words <= 2, "heard {heard}, said {words}");
    }
}

#[test]
fn handshake_bytes_go_out_in_parts_too() {
    let mut client = Session::new(Role::Client, NOW);
    for byte in V1 {
        assert_eq!(client.transmit()[0], byte);
        client.handle_sent(1);
    }
    assert!(client.transmit().is_empty());
    client.handle_sent(7);
    assert!(client.transmit().is_empty());
}

// Section 1.3 of the protocol, as far as a session sees it: what ends, confuses or tears Python.

#[test]
fn row_unknown_prefix_closes() {
    for prefix in (0..=255_u8).filter(|p| !matches!(p, b'v' | b'd')) {
        let error = Err(SessionError::Wire(WireError::Prefix(prefix)));
        assert_eq!(feed(&mut Session::new(Role::Server, NOW), &[[prefix]]), (vec![], error));
        assert_eq!(feed(&mut agreed(Role::Server), &[[prefix]]), (vec![], error));
    }
}

#[test]
fn row_frame_message_of_a_wrong_size_closes() {
    for n in (0..=255_u8).filter(|n| !matches!(n, 16 | 72)) {
        let error = Err(SessionError::Wire(WireError::DataLength(n)));
        let whole = [&[b'd', n][..], &vec![0; n.into()]].concat();
        assert_eq!(feed(&mut agreed(Role::Server), &[&whole]), (vec![], error));
        assert_eq!(feed(&mut agreed(Role::Client), &[&whole[..2]]), (vec![], error), "two bytes are enough");
    }
}

#[test]
fn row_version_message_of_a_wrong_size_closes() {
    for n in (0..=255_u8).filter(|n| *n != 4) {
        let error = Err(SessionError::Wire(WireError::VersionLength(n)));
        let whole = [&[b'v', n][..], &vec![0; n.into()]].concat();
        assert_eq!(feed(&mut Session::new(Role::Server, NOW), &[&whole]), (vec![], error));
        assert_eq!(feed(&mut Session::new(Role::Client, NOW), &[&whole]), (vec![], error));
        assert_eq!(feed(&mut agreed(Role::Server), &[&whole]), (vec![], Err(SessionError::LateVersion)));
    }
}

#[test]
fn rows_one_byte_of_header_and_payload_in_a_later_segment_are_waited_for() {
    for message in [d(&frame(1)), d(&fd_frame(2))] {
        for cut in 0..message.len() {
            let mut session = agreed(Role::Server);
            assert_eq!(feed(&mut session, &[&message[..cut]]), (vec![], Ok(())));
            assert_eq!(session.is_partial(), cut > 0);
            let events = feed(&mut session, &[&message[cut..]]).0;
            assert!(matches!(events[..], [SessionEvent::Frame(_)]), "{cut}");
            assert!(!session.is_partial());
        }
    }
}

#[test]
fn row_payload_cut_and_connection_closed_is_told_and_nothing_is_given_out() {
    // Also the row of a reset between header and payload: the socket's end is the caller's, half a message is ours.
    for cut in 1..18 {
        let mut session = agreed(Role::Server);
        let (events, end) = feed(&mut session, &[&d(&frame(1))[..cut], &[]]);
        assert_eq!((events, end), (vec![], Ok(())));
        session.commit(0);
        assert_eq!(session.poll_event(), Ok(None));
        assert!(session.is_partial());
    }
}

#[test]
fn row_torn_stream_gives_out_no_frame_of_two_halves() {
    // A Python writer with a full socket buffer: a message loses its tail at any byte, the next ones follow.
    for (torn, next) in [(d(&frame(1)), d(&frame(2))), (d(&fd_frame(1)), d(&fd_frame(2)))] {
        for kept in 1..torn.len() {
            // Enough follows that a message of two halves is complete and has a header behind it.
            let stream = [&d(&frame(9))[..], &torn[..kept], &next, &next, &next].concat();
            let mut session = agreed(Role::Server);
            let (events, end) = feed(&mut session, &[stream]);
            let halves = events.iter().filter(|event| **event != SessionEvent::Frame(frame(9))).count();
            assert_eq!(halves, 0, "{kept}: {events:?}");
            assert!(end.is_err(), "{kept}: {events:?}");
            assert_eq!(session.poll_event(), end.map(|()| None), "no second start");
        }
    }
}

// Rule 9 of section 1.5: the look-ahead.

#[test]
fn a_frame_with_nothing_behind_it_is_given_out_at_once() {
    let mut session = agreed(Role::Server);
    let (events, end) = feed(&mut session, &[d(&frame(1))]);
    assert_eq!((events, end), (vec![SessionEvent::Frame(frame(1))], Ok(())));
}

#[test]
fn every_pair_of_bytes_behind_a_frame_decides_about_it() {
    for first in 0..=255_u8 {
        for second in 0..=255_u8 {
            let mut session = agreed(Role::Client);
            let (events, end) = feed(&mut session, &[[&d(&frame(1))[..], &[first, second]].concat()]);
            let good = first == b'd' && matches!(second, 16 | 72);
            assert_eq!(events.len(), usize::from(good), "{first:02x} {second:02x}");
            assert_eq!(end.is_ok(), good);
        }
        let mut session = agreed(Role::Client);
        let (events, end) = feed(&mut session, &[[&d(&frame(1))[..], &[first]].concat()]);
        assert_eq!(events.len(), usize::from(first == b'd'), "one byte decides by the prefix");
        assert_eq!(end.is_ok(), first == b'd');
    }
}

#[test]
fn a_refused_message_needs_a_header_behind_it_too() {
    let mut error_frame = d(&frame(1));
    error_frame[5] |= 0x20;
    let refused = SessionEvent::Refused(Refusal::ErrorFrame);
    let (events, end) = feed(&mut agreed(Role::Server), &[[&error_frame[..], &d(&frame(2))].concat()]);
    assert_eq!((events, end), (vec![refused, SessionEvent::Frame(frame(2))], Ok(())));
    let (events, end) = feed(&mut agreed(Role::Server), &[[&error_frame[..], b"xx"].concat()]);
    assert_eq!((events, end), (vec![], Err(SessionError::Wire(WireError::Prefix(b'x')))));
}

#[test]
fn a_read_that_fills_the_buffer_holds_its_last_frame_until_the_next_read() {
    // 90 bytes are five classic messages: the last one ends where the buffer does.
    let settings = SessionSettings { buffer_bytes: 90, ..SessionSettings::new(Role::Server) };
    let messages: Vec<u8> = (1..=5).flat_map(|n| d(&frame(n))).collect();
    let torn = Err(SessionError::Wire(WireError::DataLength(17)));
    let cases = [
        (&b""[..], Ok(())),
        (b"d", Ok(())),
        (b"d\x10", Ok(())),
        (b"d\x48\x01", Ok(())),
        (b"d\x11", torn),
        (b"x", Err(SessionError::Wire(WireError::Prefix(b'x')))),
        (b"v", Err(SessionError::LateVersion)),
    ];
    for (behind, want) in cases {
        let mut session = Session::with_settings(settings, NOW);
        feed(&mut session, &[V1]).1.unwrap();
        let mut events = Vec::new();
        assert_eq!(session.spare().len(), 90);
        session.spare().copy_from_slice(&messages);
        session.commit(90);
        drain(&mut session, &mut events).unwrap();
        assert_eq!(events.len(), 4);
        assert!(session.must_read_again());
        // The next read finds these bytes, or nothing.
        assert_eq!(session.spare().len(), 72);
        session.spare()[..behind.len()].copy_from_slice(behind);
        session.commit(behind.len());
        assert!(!session.must_read_again());
        assert_eq!(drain(&mut session, &mut events), want, "{behind:02x?}");
        assert_eq!(events.len(), if want.is_ok() { 5 } else { 4 }, "{behind:02x?}");
    }
}

#[test]
fn copied_bytes_that_do_not_all_fit_look_ahead_too() {
    let settings = SessionSettings { buffer_bytes: 90, ..SessionSettings::new(Role::Server) };
    let messages: Vec<u8> = (1..=5).flat_map(|n| d(&frame(n))).collect();
    let mut session = Session::with_settings(settings, NOW);
    feed(&mut session, &[V1]).1.unwrap();
    let mut events = Vec::new();
    assert_eq!(session.handle_bytes(&[&messages[..], b"xx"].concat()), 90);
    drain(&mut session, &mut events).unwrap();
    assert_eq!(events.len(), 4);
    assert_eq!(session.handle_bytes(b"xx"), 2);
    assert!(drain(&mut session, &mut events).is_err());
    assert_eq!(events.len(), 4);
    // All of them fit to the last byte, and it is known that nothing follows.
    let mut session = Session::with_settings(settings, NOW);
    feed(&mut session, &[V1]).1.unwrap();
    assert_eq!(feed(&mut session, &[&messages]).0.len(), 5);
}

#[test]
fn the_default_buffer_takes_a_whole_burst_in_one_read() {
    let mut session = agreed(Role::Server);
    let burst: Vec<u8> = (0..3_000_u32).flat_map(|n| d(&frame(u8::try_from(n % 200).unwrap()))).collect();
    assert!(session.spare().len() >= burst.len());
    let (events, end) = feed(&mut session, &[burst]);
    assert_eq!((events.len(), end), (3_000, Ok(())));
}

// Every cut.

/// A handshake and one message of every kind.
fn one_of_each() -> Vec<u8> {
    let mut error_frame = d(&frame(4));
    error_frame[5] |= 0x20;
    let remote = Frame::remote(Id::standard(5).unwrap(), 3).unwrap();
    let empty = Frame::data(Id::extended(6).unwrap(), &[]).unwrap();
    [&V1[..], &d(&frame(1)), &d(&fd_frame(2)), &d(&remote), &error_frame, &d(&empty), &d(&frame(7))].concat()
}

#[test]
fn every_split_of_every_message_gives_the_same_frames() {
    let stream = one_of_each();
    let (want, end) = feed(&mut Session::new(Role::Server, NOW), &[&stream]);
    assert_eq!((want.len(), end), (7, Ok(())));
    for (role, buffer_bytes) in [(Role::Server, 64 << 10), (Role::Client, 76), (Role::Server, 90)] {
        let settings = SessionSettings { buffer_bytes, ..SessionSettings::new(role) };
        let mut session = Session::with_settings(settings, NOW);
        // Every two cuts, so every one and none too.
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                session.reset(NOW);
                let mut events = Vec::new();
                for part in [&stream[..first], &stream[first..second], &stream[second..]] {
                    let mut left = part;
                    while !left.is_empty() {
                        let n = session.handle_bytes(left);
                        assert!(n > 0);
                        left = &left[n..];
                        drain(&mut session, &mut events).unwrap();
                    }
                }
                assert_eq!(events, want, "{first} {second}");
                assert_eq!(said(&mut session), V1);
            }
        }
        // Byte by byte.
        session.reset(NOW);
        let bytes: Vec<[u8; 1]> = stream.iter().map(|byte| [*byte]).collect();
        assert_eq!(feed(&mut session, &bytes), (want.clone(), Ok(())));
    }
}

#[test]
fn every_truncation_gives_the_whole_messages_and_waits() {
    let stream = one_of_each();
    let whole = feed(&mut Session::new(Role::Server, NOW), &[&stream]).0;
    let ends = [6, 24, 98, 116, 134, 152, 170];
    for cut in 0..=stream.len() {
        let mut session = Session::new(Role::Server, NOW);
        let (events, end) = feed(&mut session, &[&stream[..cut]]);
        let complete = ends.iter().filter(|end| **end <= cut).count();
        assert_eq!((&events[..], end), (&whole[..complete], Ok(())), "{cut}");
        assert_eq!(session.is_partial(), cut > 0 && !ends.contains(&cut));
    }
}

#[test]
fn after_an_error_nothing_is_looked_at() {
    let mut session = agreed(Role::Server);
    let error = feed(&mut session, &[b"x"]).1;
    assert!(error.is_err() && !session.is_partial());
    for _ in 0..10_000 {
        // More than the buffer holds: the socket can still be read until it is closed.
        assert_eq!(session.handle_bytes(&d(&frame(1))), 18);
    }
    assert!(!session.spare().is_empty());
    assert!(!session.is_partial() && !session.must_read_again());
    assert_eq!(session.poll_event(), error.map(|()| None));
    assert_eq!(session.version(), None);
    session.reset(NOW);
    assert_eq!(feed(&mut session, &[V1]), (vec![AGREED], Ok(())));
}

/// A stream that is mostly right.
fn stream(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..rng.below(12) {
        let mut message = d(&fuzz::frame_from(rng.bits()));
        match rng.below(24) {
            0 => message.truncate(rng.below(message.len())),
            1 => message[rng.pick(&[0, 1, 5, 6])] ^= 1 << rng.below(8),
            2 => message = v(u32::try_from(rng.below(4)).unwrap()),
            3 => message[5] |= 0x20,
            _ => {}
        }
        bytes.extend_from_slice(&message);
    }
    bytes
}

#[test]
fn any_stream_in_any_cut_is_read_as_one_that_is_read_whole() {
    let mut rng = Rng::from_environment("any_stream_in_any_cut_is_read_as_one_that_is_read_whole");
    for _ in 0..20_000 {
        let mut input = rng.bits().to_le_bytes()[..3].to_vec();
        if rng.below(4) == 0 {
            input.extend_from_slice(&v(u32::try_from(rng.below(5)).unwrap()));
        }
        input.extend_from_slice(&stream(&mut rng));
        fuzz::session(&input);
    }
}
