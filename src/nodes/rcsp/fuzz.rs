//! What must hold for every stream of bytes of a client, as a function that panics where it does not.
//!
//! Owns the property that the fuzz target under `fuzz/` and the seeded test share. Relies on a reading of the whole stream as
//! the second opinion. Never part of the gateway: nothing outside tests calls it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a property that does not hold is reported by a panic"
)]

use std::collections::VecDeque;

use serde_json::{Map, Value};

use super::session::ANSWER_BYTES;
use super::{Answer, Asked, BODY, COMMANDS, Desk, Ended, ErrorCode, Session};
use crate::proto::rcsp::envelope;
use crate::proto::rcsp::header::{HeaderError, PayloadType, encode};
use crate::proto::rcsp::reader::{Incoming, Reader};
use crate::time::{Duration, Instant};

/// A desk whose answers come at once, later, never, or not at all, by the names of its commands.
#[derive(Debug, Default)]
pub struct FuzzDesk {
    tickets: u64,
    open: VecDeque<(u64, Instant, Map<String, Value>)>,
    is_device_gone: bool,
}

const NAMES: [&str; 5] = ["Now", "Later", "Never", "No", "GetDeviceInfo"];

/// How long `Later` takes.
const LATER: Duration = Duration::from_millis(30);

impl FuzzDesk {
    /// Tickets that somebody may ask for.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// The one device is unplugged.
    pub const fn lose_device(&mut self) {
        self.is_device_gone = true;
    }

    fn ticket(&mut self, at: Instant, asked: &Asked<'_>) -> Answer {
        self.tickets += 1;
        self.open.push_back((self.tickets, at, asked.arguments.clone()));
        Answer::Pending(self.tickets)
    }
}

impl Desk for FuzzDesk {
    fn knows_command(&self, command: &str) -> bool {
        NAMES.contains(&command)
    }

    fn answer(&mut self, now: Instant, asked: &Asked<'_>) -> Answer {
        match asked.command {
            "Later" => self.ticket(now + LATER, asked),
            "Never" => self.ticket(Instant::from_nanos(u64::MAX), asked),
            "No" => Answer::Refused(ErrorCode::NotPermitted, "no".to_owned()),
            _ => Answer::Ok(Some(asked.arguments.clone())),
        }
    }

    fn settle(&mut self, now: Instant, ticket: u64) -> Option<Answer> {
        let at = self.open.iter().position(|(open, ..)| *open == ticket).expect("an open ticket");
        if now < self.open[at].1 {
            return None;
        }
        self.open.remove(at).map(|(.., arguments)| Answer::Ok(Some(arguments)))
    }

    fn forget(&mut self, _: Instant, ticket: u64) {
        self.open.retain(|(open, ..)| *open != ticket);
    }

    fn knows_device(&self, device: &str) -> bool {
        !self.is_device_gone && device == "can0"
    }

    fn knows_topic(&self, _device: Option<&str>, publisher: &str, _topic: &str) -> bool {
        publisher == "P"
    }
}

/// The `TrackId` of each answer that a stream must get, and whether the server ends the connection.
fn expected(stream: &[u8]) -> (Vec<Value>, Option<Ended>) {
    let (mut ids, mut rest, mut is_warned) = (Vec::new(), stream, false);
    let mut reader = Reader::new(BODY, |kind| kind == 1);
    while !rest.is_empty() {
        match reader.take(rest) {
            Ok((used, incoming)) => {
                rest = &rest[used..];
                match incoming {
                    Some(Incoming::Message { body, .. }) => {
                        let id = match envelope::decode_command(&body, |_| true) {
                            Ok(command) => command.track_id,
                            Err(refusal) => refusal.track_id,
                        };
                        ids.push(serde_json::from_str(id.json()).expect("an id is JSON"));
                    }
                    Some(Incoming::Skipped { .. }) => {
                        ids.push("".into());
                        if is_warned {
                            return (ids, Some(Ended::Kind));
                        }
                        is_warned = true;
                    }
                    None => {}
                }
            }
            Err(HeaderError::Marker(_)) => return (ids, Some(Ended::Marker)),
            Err(HeaderError::Size(_)) => return (ids, Some(Ended::HeaderSize)),
            Err(HeaderError::Version(_)) => {
                ids.push("".into());
                return (ids, Some(Ended::HeaderVersion));
            }
            Err(HeaderError::TooLong(_)) => {
                ids.push("".into());
                return (ids, Some(Ended::TooLong));
            }
        }
    }
    (ids, None)
}

/// A stream of commands, one for each line: a single byte is one of the known names, all else is the body.
fn framed(lines: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    for (id, line) in lines.split(|byte| *byte == b'\n').enumerate() {
        let message = match line {
            [byte] => {
                let name = NAMES[usize::from(*byte) % NAMES.len()];
                let device = [("DeviceId".to_owned(), "can0".into())];
                envelope::command(name, &id.to_string(), Some(device.into_iter().collect()))
            }
            _ => encode(PayloadType::Command, line),
        };
        stream.extend(message);
    }
    stream
}

/// One answer for each command, in order, however the stream is cut and however slowly the client reads; memory within its
/// bound; no ticket is left at the desk. The first two bytes say how large the pieces are, and whether what follows is a
/// stream or the lines of one.
pub fn session(data: &[u8]) {
    let Some((head, stream)) = data.split_first_chunk::<2>() else { return };
    let (piece_in, piece_out) = (usize::from(head[0]) + 1, usize::from(head[1]) + 1);
    let lines;
    let stream = if head[0] % 2 == 0 {
        stream
    } else {
        lines = framed(stream);
        &lines
    };
    let (ids, ending) = expected(stream);
    let mut desk = FuzzDesk::default();
    let mut session = Session::new(true);
    let mut now = Instant::from_millis(1);
    let (mut written, mut rest) = (Vec::new(), stream);
    let mut ended = None;
    let mut is_told = false;
    let mut turns = 0;
    while ended.is_none() {
        turns += 1;
        assert!(turns < 1_000_000, "what is left to do does not shrink");
        let take = rest.len().min(piece_in);
        let used = session.handle_bytes(now, &rest[..take], &mut desk);
        assert!(used > 0 || take == 0 || !session.wants_bytes(), "a session that wants bytes takes them");
        rest = &rest[used..];
        if rest.is_empty() && !is_told {
            is_told = true;
            session.handle_end();
        }
        assert!(desk.open.len() <= COMMANDS);
        // Beside the limit: the body that arrives, the answer of the first command and one more, each up to six times as
        // long as its command.
        let bound = ANSWER_BYTES + 2 * BODY + 12 * BODY;
        assert!(session.held_bytes() <= bound, "{} bytes are held", session.held_bytes());
        // Time passes while nothing is taken: no message is too slow here.
        if used == 0 {
            now += Duration::from_millis(20);
        }
        ended = session.poll(now, &mut desk).err();
        let mut n = session.transmit().len().min(piece_out);
        while n > 0 {
            written.extend(&session.transmit()[..n]);
            session.handle_sent(now, n);
            // Once everything is read, all that waits, so that long answers do not take many turns.
            n = if rest.is_empty() { session.transmit().len() } else { 0 };
        }
    }
    session.close(Instant::ZERO, &mut desk);
    assert_eq!(ended, Some(ending.unwrap_or(Ended::Left)));
    assert!(desk.open.is_empty(), "a ticket nobody asks for");
    let counts = session.counts();
    assert!(counts.commands <= ids.len() as u64 && counts.errors <= ids.len() as u64, "{counts:?}");
    // What was written, read as a client reads it.
    let mut reader = Reader::new(usize::MAX >> 1, |_| true);
    let (mut rest, mut seen) = (&written[..], Vec::new());
    while !rest.is_empty() {
        let (used, incoming) = reader.take(rest).expect("our own messages are readable");
        rest = &rest[used..];
        let Some(Incoming::Message { kind, body }) = incoming else { panic!("half a message") };
        let reply =
            crate::proto::rcsp::reply::decode_reply(kind, &body).expect("our own answers are readable");
        seen.push(reply.track_id);
    }
    assert_eq!(seen, ids, "one answer for each command, in order");
}
