//! One client in virtual time: the order of answers, each deadline, each limit, and what ends a connection.

use serde_json::json;

use super::super::fuzz::{self, FuzzDesk};
use super::super::{SUBSCRIPTIONS, Service, outbox};
use super::*;
use crate::proto::ocp::fuzz::Rng;
use crate::proto::rcsp::header::encode;
use crate::proto::rcsp::reply::{decode_event, decode_reply};

const MS: Duration = Duration::from_millis(1);

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

/// A message with this body.
fn message(body: &str) -> Vec<u8> {
    encode(PayloadType::Command, body.as_bytes())
}

fn command(name: &str, id: &str) -> Vec<u8> {
    envelope::command(name, id, None)
}

fn command_with(name: &str, id: &str, arguments: Value) -> Vec<u8> {
    let Value::Object(arguments) = arguments else { panic!("{arguments}") };
    envelope::command(name, id, Some(arguments))
}

/// A session, its desk, and everything that has left it.
struct Rig {
    session: Session,
    desk: FuzzDesk,
    now: Instant,
}

impl Rig {
    fn new() -> Self {
        Self { session: Session::new(true), desk: FuzzDesk::default(), now: at(1_000) }
    }

    /// Feeds bytes; all of them must be taken.
    fn feed(&mut self, bytes: &[u8]) {
        assert_eq!(self.session.handle_bytes(self.now, bytes, &mut self.desk), bytes.len());
    }

    fn poll(&mut self) -> Result<(), Ended> {
        self.session.poll(self.now, &mut self.desk)
    }

    fn pass(&mut self, time: Duration) -> Result<(), Ended> {
        self.now += time;
        self.poll()
    }

    /// Everything that waits, as `id:ok`, `id:code` or `!topic`.
    fn read(&mut self) -> Vec<String> {
        let mut bytes = Vec::new();
        while !self.session.transmit().is_empty() {
            bytes.extend(self.session.transmit());
            let n = self.session.transmit().len();
            self.session.handle_sent(self.now, n);
        }
        let mut reader = Reader::new(1 << 24, |_| true);
        let (mut rest, mut seen) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let (used, incoming) = reader.take(rest).unwrap();
            rest = &rest[used..];
            let Some(Incoming::Message { kind, body }) = incoming else { panic!("{incoming:?}") };
            if kind == 4 {
                seen.push(format!("!{}", decode_event(&body).unwrap().topic().unwrap()));
                continue;
            }
            let reply = decode_reply(kind, &body).unwrap();
            let id = reply.track_id.as_str().map_or_else(|| reply.track_id.to_string(), str::to_owned);
            seen.push(match reply.result {
                Ok(_) => format!("{id}:ok"),
                Err(error) => format!("{id}:{}", error.code.unwrap()),
            });
        }
        seen
    }

    /// What one command is answered with at once.
    fn ask(&mut self, bytes: &[u8]) -> String {
        self.feed(bytes);
        let seen = self.read();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen[0].clone()
    }

    fn publish(&mut self, device: Option<&str>, topic: &str) {
        let event = Event {
            publisher: "P".to_owned(),
            topic: topic.to_owned(),
            device: device.map(str::to_owned),
            data: json!({"n": 1}),
        };
        self.session.publish(&event, &event.encode());
    }
}

#[test]
fn answers_leave_in_the_order_of_the_commands() {
    let mut rig = Rig::new();
    for (name, id) in [("Later", "1"), ("Now", "2"), ("Never", "3"), ("No", "4"), ("nope", "5")] {
        rig.feed(&command(name, id));
    }
    assert_eq!(rig.poll(), Ok(()));
    assert!(rig.read().is_empty(), "the first one is not there yet");
    assert_eq!(rig.session.due(rig.now), Some(rig.now + SETTLE));
    assert_eq!(rig.pass(30 * MS), Ok(()));
    assert_eq!(rig.read(), ["1:ok", "2:ok"]);
    assert_eq!(rig.pass(ANSWER - 31 * MS), Ok(()));
    assert!(rig.read().is_empty());
    assert_eq!(rig.pass(MS), Ok(()));
    assert_eq!(rig.read(), ["3:9", "4:10", "5:2"], "what is not answered in 2 s is error 9");
    assert_eq!((rig.session.counts().commands, rig.session.counts().errors), (5, 3));
    assert_eq!(rig.session.held_bytes(), 0);
}

#[test]
fn sixty_four_commands_wait_and_the_next_stays_outside() {
    let mut rig = Rig::new();
    for _ in 0..COMMANDS {
        assert!(rig.session.wants_bytes());
        rig.feed(&command("Never", "n"));
    }
    assert!(!rig.session.wants_bytes());
    assert_eq!(rig.session.handle_bytes(rig.now, &command("Now", "x"), &mut rig.desk), 0);
    // A message that has begun does not age meanwhile: it is we who do not read.
    assert_eq!(rig.pass(ANSWER), Ok(()));
    assert_eq!(rig.read(), vec!["n:9"; COMMANDS]);
    assert_eq!(rig.ask(&command("Now", "x")), "x:ok");
}

#[test]
fn answers_that_nobody_reads_stop_the_commands() {
    let mut rig = Rig::new();
    let big = command_with("Now", "b", json!({"a": "x".repeat(60_000)}));
    let mut taken = 0;
    while rig.session.wants_bytes() {
        rig.feed(&big);
        taken += 1;
    }
    assert_eq!(taken, ANSWER_BYTES / 60_000 + 1);
    assert!(rig.session.held_bytes() < ANSWER_BYTES + 61_000);
    // The same behind an answer that is still missing.
    assert_eq!(rig.read().len(), taken);
    rig.feed(&command("Never", "n"));
    let mut taken = 0;
    while rig.session.wants_bytes() {
        rig.feed(&big);
        taken += 1;
    }
    assert_eq!(taken, ANSWER_BYTES / 60_000 + 1);
    assert_eq!(rig.pass(ANSWER), Ok(()));
    assert_eq!(rig.read().len(), taken + 1);
    assert!(rig.session.wants_bytes());
    // And many small ones.
    let mut rig = Rig::new();
    while rig.session.wants_bytes() {
        rig.feed(&command("Now", "s"));
    }
    assert!(rig.session.held_bytes() < ANSWER_BYTES + 1_000);
}

#[test]
fn row_message_incomplete_after_10_s_closes_and_idle_time_does_not() {
    let mut rig = Rig::new();
    let bytes = command("Now", "1");
    for cut in [1, 7, 8, 9, bytes.len() - 1] {
        let mut rig = Rig::new();
        assert_eq!(rig.pass(Duration::from_secs(100_000)), Ok(()), "nothing has begun");
        rig.feed(&bytes[..1]);
        assert_eq!(rig.session.due(rig.now), Some(rig.now + COMPLETE));
        // More bytes do not make it younger.
        assert_eq!(rig.pass(COMPLETE - MS), Ok(()));
        rig.feed(&bytes[1..cut]);
        assert_eq!(rig.poll(), Ok(()));
        assert_eq!(rig.pass(MS), Err(Ended::Incomplete), "cut at {cut}");
    }
    // A message that ends in time starts the next one's time anew.
    for _ in 0..5 {
        rig.feed(&bytes[..20]);
        assert_eq!(rig.pass(COMPLETE - MS), Ok(()));
        rig.feed(&[&bytes[20..], &bytes[..3]].concat());
        assert_eq!(rig.read(), ["1:ok"]);
        assert_eq!(rig.pass(COMPLETE - MS), Ok(()));
        rig.feed(&bytes[3..]);
        assert_eq!(rig.read(), ["1:ok"]);
    }
    // One whose rest we do not read has all its time again when we do.
    for _ in 0..5 {
        rig.feed(&command_with("Later", "l", json!({"a": "x".repeat(60_000)})));
    }
    rig.feed(&bytes[..5]);
    assert_eq!(rig.pass(30 * MS), Ok(()));
    assert!(!rig.session.wants_bytes(), "too many answers wait");
    for _ in 0..3 {
        assert_eq!(rig.pass(TAKES - MS), Ok(()));
        rig.session.handle_sent(rig.now, 1);
    }
    assert_eq!(rig.poll(), Ok(()));
    while !rig.session.transmit().is_empty() {
        rig.session.handle_sent(rig.now, rig.session.transmit().len());
    }
    assert_eq!(rig.pass(COMPLETE - MS), Ok(()));
    rig.feed(&bytes[5..]);
    assert_eq!(rig.read(), ["1:ok"]);
}

#[test]
fn pending_answers_are_asked_for_as_far_as_there_is_room() {
    let mut rig = Rig::new();
    for _ in 0..COMMANDS {
        rig.feed(&command_with("Later", "l", json!({"a": "x".repeat(60_000)})));
    }
    for _ in 0..10 {
        assert_eq!(rig.pass(30 * MS), Ok(()));
        assert!(rig.session.held_bytes() < ANSWER_BYTES + 2 * 61_000, "{}", rig.session.held_bytes());
    }
    let mut seen = Vec::new();
    while seen.len() < COMMANDS {
        seen.extend(rig.read());
        assert_eq!(rig.poll(), Ok(()));
    }
    assert_eq!(seen, vec!["l:ok"; COMMANDS]);
    // One in front that nobody settles gives way in the end.
    rig.feed(&command("Never", "n"));
    for _ in 0..10 {
        rig.feed(&command_with("Later", "l", json!({"a": "x".repeat(60_000)})));
    }
    assert_eq!(rig.pass(ANSWER - MS), Ok(()));
    assert!(rig.read().is_empty());
    assert_eq!(rig.pass(MS), Ok(()));
    assert_eq!(rig.read()[..2], ["n:9", "l:ok"]);
}

#[test]
fn row_client_does_not_read_for_10_s_closes() {
    let mut rig = Rig::new();
    rig.feed(&command("Now", "1"));
    assert_eq!(rig.poll(), Ok(()));
    assert_eq!(rig.session.due(rig.now), Some(rig.now + TAKES));
    assert_eq!(rig.pass(TAKES - MS), Ok(()));
    // One byte shows that it lives.
    rig.session.handle_sent(rig.now, 1);
    assert_eq!(rig.pass(TAKES - MS), Ok(()));
    rig.session.handle_sent(rig.now, 0);
    assert_eq!(rig.pass(MS), Err(Ended::NotReading));
    let mut rig = Rig::new();
    assert_eq!(rig.ask(&command("Now", "1")), "1:ok");
    assert_eq!(rig.pass(10 * TAKES), Ok(()), "nothing waits");
}

#[test]
fn row_marker_wrong_closes_without_a_word_after_what_was_asked() {
    let mut rig = Rig::new();
    rig.feed(&[&command("Later", "1")[..], b"GET / HTTP/1.1\r\n", &command("Now", "2")[..]].concat());
    assert!(!rig.session.wants_bytes());
    assert_eq!(rig.poll(), Ok(()), "the answer comes first");
    rig.now += 30 * MS;
    assert_eq!(rig.poll(), Ok(()));
    assert_eq!(rig.read(), ["1:ok"]);
    assert_eq!(rig.poll(), Err(Ended::Marker));
}

#[test]
fn rows_of_unusable_headers_are_told_where_the_layout_is_known() {
    for (header, told, ended) in [
        ([0xDC, 2, 8, 1, 2, 0, 0, 0], &[":3"][..], Ended::HeaderVersion),
        ([0xDC, 1, 7, 1, 2, 0, 0, 0], &[][..], Ended::HeaderSize),
        ([0xDC, 1, 8, 1, 1, 0, 1, 0], &[":11"][..], Ended::TooLong),
        ([0xDC, 1, 8, 1, 255, 255, 255, 255], &[":11"][..], Ended::TooLong),
        ([0xDC, 1, 8, 4, 255, 255, 255, 255], &[":11"][..], Ended::TooLong),
        ([0, 1, 8, 1, 2, 0, 0, 0], &[][..], Ended::Marker),
    ] {
        let mut rig = Rig::new();
        rig.feed(&[&header[..], b"{}"].concat());
        assert_eq!(rig.read(), told, "{header:?}");
        assert_eq!(rig.poll(), Err(ended));
        assert_eq!(rig.session.held_bytes(), 0);
    }
}

#[test]
fn row_header_size_above_8_is_skipped() {
    let mut rig = Rig::new();
    let body = br#"{"Command":"Now","TrackId":"1","Version":1}"#;
    let mut bytes = vec![0xDC, 1, 12, 1, u8::try_from(body.len()).unwrap(), 0, 0, 0, 1, 2, 3, 4];
    bytes.extend(body);
    assert_eq!(rig.ask(&bytes), "1:ok");
    assert_eq!(rig.ask(&command("Now", "2")), "2:ok");
}

#[test]
fn row_type_that_is_no_command_is_told_once_and_then_closes() {
    for kind in [0, 2, 3, 4, 5, 255] {
        let mut rig = Rig::new();
        let foreign = [&[0xDC, 1, 8, kind, 3, 0, 0, 0][..], b"abc"].concat();
        assert_eq!(rig.ask(&foreign), ":1");
        assert_eq!(rig.ask(&command("Now", "1")), "1:ok", "it stays open");
        assert_eq!(rig.poll(), Ok(()));
        rig.feed(&foreign);
        assert_eq!(rig.read(), [":1"]);
        assert_eq!(rig.poll(), Err(Ended::Kind));
    }
}

#[test]
fn row_bodies_that_are_no_command_are_errors_and_the_connection_stays() {
    let mut rig = Rig::new();
    for body in
        [&b""[..], b"\xff", b"{", b"[]", br#"{"Command":"Now","Command":"Now","TrackId":"","Version":1}"#]
    {
        assert_eq!(rig.ask(&encode(PayloadType::Command, body)), ":1");
    }
    assert_eq!(rig.ask(&message(r#"{"TrackId":"7","Command":"Now","Version":1,"#)), "7:1");
    assert_eq!(rig.ask(&command("Now", "1")), "1:ok");
    assert_eq!(rig.poll(), Ok(()));
}

#[test]
fn body_at_the_limit_is_taken_and_one_above_closes() {
    let body = |bytes: usize| {
        let mut body = br#"{"Command":"Now","TrackId":"1","Version":1}"#.to_vec();
        body.resize(bytes, b' ');
        encode(PayloadType::Command, &body)
    };
    let mut rig = Rig::new();
    assert_eq!(rig.ask(&body(BODY)), "1:ok");
    rig.feed(&body(BODY + 1));
    assert_eq!(rig.read(), [":11"]);
    assert_eq!(rig.poll(), Err(Ended::TooLong));
}

#[test]
fn row_end_of_the_stream_answers_what_was_asked_and_closes_quietly() {
    let mut rig = Rig::new();
    rig.feed(&[&command("Later", "1")[..], &command("Now", "2")[..], &command("Now", "3")[..5]].concat());
    rig.session.handle_end();
    assert_eq!(rig.poll(), Ok(()));
    assert!(!rig.session.wants_bytes());
    assert_eq!(rig.pass(30 * MS), Ok(()));
    assert_eq!(rig.read(), ["1:ok", "2:ok"]);
    assert_eq!(rig.poll(), Err(Ended::Left));
    for bytes in 0..8 {
        let mut rig = Rig::new();
        rig.feed(&command("Now", "1")[..bytes]);
        rig.session.handle_end();
        assert_eq!(rig.poll(), Err(Ended::Left));
        assert!(rig.read().is_empty());
    }
}

#[test]
fn a_client_that_goes_leaves_no_ticket_behind() {
    let mut rig = Rig::new();
    rig.feed(&[&command("Never", "1")[..], &command("Later", "2")[..]].concat());
    rig.session.close(Instant::ZERO, &mut rig.desk);
    assert_eq!(rig.desk.open(), 0);
}

#[test]
fn device_commands_need_a_device_that_exists() {
    let mut rig = Rig::new();
    for name in ["GetDeviceInfo", "DeviceSubscribe", "DeviceUnsubscribe"] {
        let topic = |device: Value| json!({"DeviceId": device, "Publisher": "P", "Topic": "T"});
        for (arguments, code) in [
            (json!({}), 4),
            (topic(Value::Null), 4),
            (topic(json!("can9")), 7),
            (topic(json!("CAN0")), 7),
            (topic(json!(843_143_769)), 7),
            (topic(json!(true)), 5),
            (topic(json!(["can0"])), 5),
        ] {
            assert_eq!(
                rig.ask(&command_with(name, "1", arguments.clone())),
                format!("1:{code}"),
                "{name} {arguments}"
            );
        }
    }
    assert_eq!(rig.ask(&command_with("GetDeviceInfo", "1", json!({"DeviceId": "can0"}))), "1:ok");
    // What nobody knows is unknown before its device is looked for.
    assert_eq!(rig.ask(&command("DeviceDance", "1")), "1:2");
}

#[test]
fn subscriptions_are_checked_one_argument_after_the_other() {
    let mut rig = Rig::new();
    for (arguments, answer) in [
        (json!({}), "1:4"),
        (json!({"Publisher": null, "Topic": "T"}), "1:4"),
        (json!({"Publisher": "P"}), "1:4"),
        (json!({"Publisher": 1, "Topic": "T"}), "1:5"),
        (json!({"Publisher": "P", "Topic": ["T"]}), "1:5"),
        (json!({"Publisher": "Q", "Topic": "T"}), "1:6"),
        (json!({"Publisher": "p", "Topic": "*"}), "1:6"),
        (json!({"Publisher": "P", "Topic": "T"}), "1:ok"),
        (json!({"Publisher": "P", "Topic": "T"}), "1:ok"),
    ] {
        assert_eq!(rig.ask(&command_with("Subscribe", "1", arguments.clone())), answer, "{arguments}");
    }
    let topic = json!({"Publisher": "P", "Topic": "T"});
    assert_eq!(rig.ask(&command_with("Unsubscribe", "1", topic.clone())), "1:ok");
    assert_eq!(rig.ask(&command_with("Unsubscribe", "1", topic)), "1:6");
    assert_eq!(rig.ask(&command_with("Unsubscribe", "1", json!({"Publisher": "P"}))), "1:4");
}

#[test]
fn the_sixty_fifth_subscription_is_refused() {
    let mut rig = Rig::new();
    let topic = |number: usize| json!({"Publisher": "P", "Topic": format!("T{number}")});
    for number in 0..SUBSCRIPTIONS {
        assert_eq!(rig.ask(&command_with("Subscribe", "1", topic(number))), "1:ok");
    }
    assert_eq!(rig.ask(&command_with("Subscribe", "1", topic(SUBSCRIPTIONS))), "1:11");
    assert_eq!(rig.ask(&command_with("Subscribe", "1", topic(0))), "1:ok");
}

#[test]
fn events_follow_the_answer_to_their_subscription() {
    let mut rig = Rig::new();
    rig.publish(None, "T");
    assert!(rig.read().is_empty(), "nobody asked");
    rig.feed(&command("Later", "1"));
    rig.feed(&command_with("Subscribe", "2", json!({"Publisher": "P", "Topic": "T"})));
    rig.publish(None, "T");
    assert!(rig.read().is_empty(), "the answer has not left");
    assert_eq!(rig.pass(30 * MS), Ok(()));
    rig.publish(None, "T");
    rig.publish(None, "U");
    rig.publish(Some("can0"), "T");
    assert_eq!(rig.read(), ["1:ok", "2:ok", "!T"]);
    // Between a command and its answer.
    rig.feed(&command("Later", "3"));
    rig.publish(None, "T");
    assert_eq!(rig.read(), ["!T"]);
    assert_eq!(rig.pass(30 * MS), Ok(()));
    assert_eq!(rig.read(), ["3:ok"]);
    assert_eq!(rig.session.counts().events, 2);
}

#[test]
fn a_device_that_has_gone_can_still_be_left() {
    let mut rig = Rig::new();
    let all = json!({"DeviceId": "can0", "Publisher": "P", "Topic": "*"});
    assert_eq!(rig.ask(&command_with("DeviceSubscribe", "1", all.clone())), "1:ok");
    rig.publish(Some("can0"), "T");
    rig.publish(Some("can0"), "U");
    assert_eq!(rig.read(), ["!T", "!U"]);
    rig.desk.lose_device();
    assert_eq!(rig.ask(&command_with("DeviceUnsubscribe", "2", all.clone())), "2:ok");
    assert_eq!(rig.ask(&command_with("DeviceUnsubscribe", "3", all)), "3:7");
    rig.publish(Some("can0"), "T");
    assert!(rig.read().is_empty());
}

#[test]
fn events_for_who_does_not_read_are_dropped_and_counted_and_answers_are_not() {
    let mut rig = Rig::new();
    let all = json!({"Publisher": "P", "Topic": "*"});
    rig.feed(&command_with("Subscribe", "1", all));
    for number in 0..1_000 {
        rig.publish(None, &format!("T{number}"));
        if number % 100 == 0 {
            rig.feed(&command("Now", &number.to_string()));
        }
    }
    let counts = rig.session.counts();
    assert_eq!((counts.events, counts.events_dropped), (1_000, 1_000 - outbox::EVENTS as u64));
    let seen = rig.read();
    // It is told what it has missed.
    assert_eq!(seen[..3], ["1:ok", "!EventsDropped", "0:ok"]);
    assert_eq!(seen[3..11], ["100:ok", "200:ok", "300:ok", "400:ok", "500:ok", "600:ok", "700:ok", "!T744"]);
    assert_eq!(seen.len(), 12 + outbox::EVENTS);
}

#[test]
fn every_stream_gets_one_answer_a_command_in_order_within_bounds() {
    let mut rng = Rng::from_environment("every_stream_gets_one_answer");
    let byte = |rng: &mut Rng| u8::try_from(rng.below(256)).unwrap();
    let names = ["Now", "Later", "Never", "No", "nope", "Subscribe", "DeviceSubscribe", "GetDeviceInfo"];
    for _ in 0..300 {
        let mut stream = vec![byte(&mut rng) & 0xFE, byte(&mut rng)];
        for number in 0..rng.below(120) {
            match rng.below(40) {
                0 => stream.extend([0xDC, 1, 8, byte(&mut rng), 1, 0, 0, 0, b'x']),
                1 => stream.extend([0xDC, 1, 9, 1, 2, 0, 0, 0, 0, b'{', b'}']),
                2 => stream.extend(message(r#"{"TrackId":"t","TrackId":"u"}"#)),
                3 => stream.extend(message("")),
                _ => {
                    let name = names[rng.below(names.len())];
                    let arguments = json!({"DeviceId": "can0", "Publisher": "P", "Topic": number});
                    stream.extend(command_with(name, &number.to_string(), arguments));
                }
            }
        }
        // Now and then a byte is another one, or the end is missing.
        if rng.below(3) == 0 && stream.len() > 2 {
            let at = 2 + rng.below(stream.len() - 2);
            stream[at] = byte(&mut rng);
        }
        if rng.below(3) == 0 {
            stream.truncate(2 + rng.below(stream.len() - 1));
        }
        fuzz::session(&stream);
    }
}

#[test]
fn every_order_of_quick_slow_and_lost_commands_keeps_the_answers_in_order() {
    let mut rng = Rng::from_environment("every_order_of_commands");
    for _ in 0..100 {
        let mut lines = vec![0x41, 0xFF];
        for _ in 0..rng.below(200) {
            lines.extend([b'a' + u8::try_from(rng.below(26)).unwrap(), b'\n']);
        }
        fuzz::session(&lines);
    }
}

/// The border can be used with the default methods alone.
#[derive(Debug)]
struct Silent;

impl Desk for Silent {
    fn knows_command(&self, _: &str) -> bool {
        false
    }
    fn answer(&mut self, _: Instant, _: &Asked<'_>) -> Answer {
        Answer::Pending(1)
    }
    fn settle(&mut self, _: Instant, _: u64) -> Option<Answer> {
        None
    }
    fn knows_device(&self, _: &str) -> bool {
        false
    }
    fn knows_topic(&self, _: Option<&str>, _: &str, _: &str) -> bool {
        false
    }
}

impl Service for Silent {
    fn turn(&mut self, _: Instant) -> Vec<Event> {
        Vec::new()
    }
}

#[test]
fn a_desk_that_knows_nothing_refuses_everything() {
    let mut session = Session::new(false);
    let bytes = [&command("Now", "1")[..], &command("Subscribe", "2")[..]].concat();
    assert_eq!(session.handle_bytes(at(0), &bytes, &mut Silent), bytes.len());
    assert_eq!(session.counts().errors, 2);
}
