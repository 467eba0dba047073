//! What must hold for every input of this protocol, as functions that panic where it does not.
//!
//! Owns the properties that the fuzz targets under `fuzz/` and the seeded tests share: here those of messages and
//! sessions, with a second reading of the protocol that knows the whole stream at once. Relies on [`Frame::from_bytes`] as the second opinion about a frame.
//! Never part of the gateway: nothing outside tests calls it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a property that does not hold is reported by a panic"
)]

mod outbox;

pub use outbox::outbox;

use super::message::{FD_MESSAGE, Message, Refusal, WireError, decode, encode_frame, encode_version};
use super::session::{Role, Session, SessionError, SessionEvent, SessionSettings};
use crate::can::frame::is_valid_length;
use crate::can::{Frame, Id};
use crate::proto::ocp::fuzz::Rng;
use crate::time::{Duration, Instant};

/// A stream as it is read with all of it at hand and nothing held back.
#[derive(Debug)]
struct Reading {
    /// Events, each with the offset behind its message.
    events: Vec<(SessionEvent, usize)>,
    /// Where the first impossible message begins, how many of its bytes show it, and what is wrong.
    error: Option<(usize, usize, SessionError)>,
    /// Version messages that are answered or were proposed.
    said: Vec<u32>,
}

/// Negotiation, written out: what each side says to the versions it hears, and what comes of it.
fn negotiation(role: Role, highest: u32, heard: &[u32]) -> (Vec<u32>, Option<Result<u32, SessionError>>) {
    let refused = |version| Some(Err(SessionError::NoAgreement { version }));
    let (mut said, answers) = match (role, heard) {
        (Role::Client, answers) => (vec![highest], answers),
        (Role::Server, []) => return (vec![], None),
        (Role::Server, [0, ..]) => return (vec![], refused(0)),
        (Role::Server, [first, ..]) if *first <= highest => return (vec![*first], Some(Ok(*first))),
        (Role::Server, [_, answers @ ..]) => (vec![highest], answers),
    };
    // One side has named its highest version; the other one's next word decides.
    let outcome = match answers {
        [] => None,
        [0, ..] => refused(0),
        [answer, ..] if *answer > highest => refused(*answer),
        [answer, ..] => {
            if *answer < highest {
                said.push(*answer);
            }
            Some(Ok(*answer))
        }
    };
    (said, outcome)
}

/// The second opinion about a frame message's payload, through the kernel's form.
fn second_opinion(payload: &[u8]) -> Result<Message, WireError> {
    let fd = payload.len() == 72;
    let word = u32::from_le_bytes(payload[..4].try_into().unwrap());
    let (len, raw) = (payload[4], word & 0x1fff_ffff);
    if len > if fd { 64 } else { 8 } {
        return Err(WireError::FrameLength(len));
    }
    if word & 0x2000_0000 != 0 {
        return Ok(Message::Refused(Refusal::ErrorFrame));
    }
    if word & 0x8000_0000 == 0 && raw > 0x7ff {
        return Err(WireError::StandardId(raw));
    }
    if fd && word & 0x4000_0000 != 0 {
        return Ok(Message::Refused(Refusal::FdRemote));
    }
    if fd && !is_valid_length(usize::from(len), true) {
        return Ok(Message::Refused(Refusal::FdLength(len)));
    }
    let mut kernel = payload.to_vec();
    kernel[..4].copy_from_slice(&word.to_ne_bytes());
    Ok(Message::Frame(Frame::from_bytes(&kernel).expect("every field was checked")))
}

/// Reads the whole stream.
fn read_whole(stream: &[u8], role: Role, highest: u32) -> Reading {
    let mut reading = Reading { events: Vec::new(), error: None, said: negotiation(role, highest, &[]).0 };
    let mut heard = Vec::new();
    let (mut at, mut agreed) = (0, false);
    while reading.error.is_none() {
        let rest = &stream[at..];
        let fail = |needed, error| Some((at, needed, error));
        let wire = |needed, error| Some((at, needed, SessionError::Wire(error)));
        let size = match *rest {
            [] => break,
            [b'v', ..] if agreed => {
                reading.error = fail(1, SessionError::LateVersion);
                break;
            }
            [b'd', ..] if !agreed => {
                reading.error = fail(1, SessionError::EarlyFrame);
                break;
            }
            [b'v' | b'd'] => break,
            [b'v', 4, ..] => 6,
            [b'd', 16, ..] => 18,
            [b'd', 72, ..] => 74,
            [b'v', n, ..] => {
                reading.error = wire(2, WireError::VersionLength(n));
                break;
            }
            [b'd', n, ..] => {
                reading.error = wire(2, WireError::DataLength(n));
                break;
            }
            [prefix, ..] => {
                reading.error = wire(1, WireError::Prefix(prefix));
                break;
            }
        };
        let Some(message) = rest.get(..size) else { break };
        if agreed {
            match second_opinion(&message[2..]) {
                Ok(Message::Frame(frame)) => reading.events.push((SessionEvent::Frame(frame), at + size)),
                Ok(Message::Refused(refusal)) => {
                    reading.events.push((SessionEvent::Refused(refusal), at + size));
                }
                Ok(Message::Version(_)) => panic!("no frame message holds a version"),
                Err(error) => reading.error = wire(size, error),
            }
        } else {
            heard.push(u32::from_be_bytes(message[2..].try_into().unwrap()));
            let (said, outcome) = negotiation(role, highest, &heard);
            match outcome {
                None => {}
                Some(Ok(version)) => {
                    agreed = true;
                    reading.events.push((SessionEvent::Agreed { version }, at + size));
                }
                Some(Err(error)) => reading.error = fail(size, error),
            }
            reading.said = said;
        }
        at += size;
    }
    reading
}

impl Reading {
    /// How many events are due when `seen` bytes of the stream are known; `held` if a frame at the very end waits for
    /// what follows.
    fn due(&self, seen: usize, held: bool) -> usize {
        let is_due = |(event, end): &(SessionEvent, usize)| {
            let negotiated = matches!(event, SessionEvent::Agreed { .. });
            // A wrong header behind a frame takes the frame with it; a wrong payload does not.
            let torn =
                self.error.is_some_and(|(at, needed, _)| at == *end && needed <= 2 && seen >= at + needed);
            *end <= seen && (negotiated || !(torn || held && *end == seen))
        };
        self.events.iter().take_while(|event| is_due(event)).count()
    }

    /// Whether the error shows when `seen` bytes are known.
    fn ends(&self, seen: usize) -> Option<SessionError> {
        self.error.filter(|(at, needed, _)| seen >= at + needed).map(|(_, _, error)| error)
    }
}

/// However a stream is cut and whenever events are taken, the session says what a reading of the whole stream says:
/// the same events in the same order and the same end. A frame is given out as soon as it is complete, except that a
/// wrong header that is already known behind it takes it along.
///
/// The first byte chooses role, buffer, version and whether a good handshake comes first; the second and third how
/// the stream is cut.
pub fn session(data: &[u8]) {
    let Some(([choice, seed @ ..], tail)) = data.split_first_chunk::<3>() else { return };
    let role = if choice & 1 == 0 { Role::Server } else { Role::Client };
    let highest = if choice & 2 == 0 { 1 } else { 3 };
    let buffer_bytes = [76, 150, 601, 4_096][usize::from(choice >> 2 & 3)];
    let mut stream = if choice & 16 == 0 { encode_version(1).to_vec() } else { vec![] };
    stream.extend_from_slice(tail);

    let mut rng = Rng::new(u16::from_le_bytes(*seed).into());
    let longest = rng.pick(&[1, 2, 19, 75, 200, 5_000]);
    let patient = choice & 32 == 0; // takes every event before it reads on
    let reading = read_whole(&stream, role, highest);
    let settings = SessionSettings { highest, buffer_bytes, ..SessionSettings::new(role) };
    let mut session = Session::with_settings(settings, Instant::ZERO);
    let (mut seen, mut got, mut due) = (0, Vec::new(), 0);
    let mut heard = Vec::new(); // by the other side
    let end = loop {
        // The socket gives what it has, at most the room; a read that filled the room is followed by another one.
        let (left, spare) = (stream.len() - seen, session.spare());
        let n = left.min(spare.len()).min(1 + rng.below(longest));
        assert!(!spare.is_empty() || !patient, "every event was taken and there is no room");
        spare[..n].copy_from_slice(&stream[seen..seen + n]);
        session.commit(n);
        seen += n;
        let mut most = if patient || n == 0 { usize::MAX } else { rng.below(4) };
        let end = loop {
            if most == 0 {
                break None;
            }
            most -= 1;
            match session.poll_event() {
                Ok(Some(event)) => got.push(event),
                Ok(None) => {
                    due = due.max(reading.due(seen, session.must_read_again()));
                    assert_eq!(got.len(), due, "{seen} bytes of {reading:?}");
                    assert_eq!(reading.ends(seen), None, "an error was not seen");
                    break None;
                }
                Err(error) => break Some(error),
            }
        };
        let words = session.transmit();
        let n = words.len().min(rng.below(8));
        heard.extend_from_slice(&words[..n]);
        session.handle_sent(n);
        if end.is_some() || n == 0 && seen == stream.len() && !session.must_read_again() && most > 0 {
            break end;
        }
    };
    // An error is never early; what was given out is what the whole stream says, at most without the frame in front
    // of the torn place.
    assert_eq!(end, reading.ends(seen));
    assert!(got.len() >= due.max(reading.due(seen, false)) || end.is_none(), "{got:?} of {reading:?}");
    let want: Vec<_> = reading.events.iter().take(got.len()).map(|(event, _)| *event).collect();
    assert_eq!(got, want);
    check_end(&mut session, &reading, end, heard);
}

/// What holds at the end of a stream.
fn check_end(session: &mut Session, reading: &Reading, end: Option<SessionError>, mut heard: Vec<u8>) {
    let version = reading.events.first().map(|(event, _)| match event {
        SessionEvent::Agreed { version } => *version,
        other => panic!("{other:?} before agreement"),
    });
    let late = Instant::ZERO + Duration::from_secs(3_600);
    let said: Vec<u8> = reading.said.iter().flat_map(|version| encode_version(*version)).collect();
    heard.extend_from_slice(session.transmit());
    match end {
        None => {
            assert_eq!(heard, said);
            assert_eq!(session.version(), version);
            let timeout = if version.is_some() { Ok(()) } else { Err(SessionError::HandshakeTimeout) };
            assert_eq!(session.handle_timeout(late), timeout);
        }
        Some(error) => {
            assert!(said.starts_with(&heard), "said {heard:?}");
            // Dead for good, whatever comes.
            for _ in 0..3 {
                assert!(session.handle_bytes(&encode_version(1)) > 0);
                assert_eq!(session.poll_event(), Err(error));
                assert_eq!(session.handle_timeout(late), Err(error));
                assert_eq!((session.version(), session.poll_timeout()), (None, None));
                assert!(session.transmit().is_empty() && !session.must_read_again());
            }
        }
    }
    session.reset(late);
    assert_eq!(session.poll_event(), Ok(None));
    assert_eq!(session.poll_timeout(), Some(late + Duration::from_secs(3)));
}

/// Decoding is total, agrees with the second opinion, needs no byte more than the message has, and what it accepts
/// comes back the same when it is written and decoded again.
pub fn message(data: &[u8]) {
    let decoded = decode(data);
    let Ok(Some((message, size))) = decoded else { return };
    assert!(size <= data.len());
    assert_eq!(decode(&data[..size]), decoded);
    for cut in 0..size {
        assert_eq!(decode(&data[..cut]), Ok(None));
    }
    match message {
        Message::Version(version) => assert_eq!(encode_version(version), data[..size]),
        Message::Refused(_) => assert_eq!(second_opinion(&data[2..size]), Ok(message)),
        Message::Frame(frame) => {
            assert_eq!(second_opinion(&data[2..size]), Ok(message));
            let mut out = [0xa5; FD_MESSAGE + 1];
            assert_eq!(encode_frame(&frame, &mut out[..size - 1]), None);
            assert_eq!(encode_frame(&frame, &mut out), Some(size));
            assert_eq!(decode(&out[..size]), decoded);
            assert_eq!(out[size], 0xa5);
            let len = frame.len();
            assert!(out[10 + frame.payload().len()..size].iter().all(|byte| *byte == 0));
            assert_eq!(out[10..10 + frame.payload().len()], data[10..10 + frame.payload().len()]);
            assert!(is_valid_length(len, frame.is_fd()));
        }
    }
}

/// A frame of any kind that a bus carries, drawn from a number.
#[must_use]
pub fn frame_from(seed: u64) -> Frame {
    let mut rng = Rng::new(seed);
    let word = u32::try_from(rng.bits() & 0x9fff_ffff).unwrap();
    let id = Id::from_word(word);
    let payload: Vec<u8> = (0..64).map(|_| rng.bits().to_le_bytes()[0]).collect();
    match rng.below(4) {
        0 => Frame::remote(id, u8::try_from(rng.below(9)).unwrap()).unwrap(),
        1 => Frame::fd(id, &payload[..rng.below(65)], rng.below(2) == 1, rng.below(2) == 1).unwrap(),
        _ => Frame::data(id, &payload[..rng.below(9)]).unwrap(),
    }
}
