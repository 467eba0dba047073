//! The RCSP server over real sockets: what it does on every row of bad input, with every way of cutting a stream, with clients
//! that stall, and with a client that knows no more than the vendor's example does.
//!
//! Relies on `rcsp/mod.rs`: the server as the gateway runs it with a small desk behind it. Rows and lines are those of our
//! profile of the protocol. Never judges how fast anything is.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: it starts threads, waits with deadlines and fails by panicking"
)]

#[path = "common/programs.rs"]
mod programs;
#[path = "rcsp/mod.rs"]
mod rcsp;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ocpcan::io::tcp::Listener;
use ocpcan::proto::rcsp::envelope;
use ocpcan::proto::rcsp::reader::{Incoming, Reader};
use ocpcan::threads::rcsp::{Door, Ended, Server};
use programs::Program;
use rcsp::{Bench, Client, TestDesk, event, object, raw, until};
use serde_json::{Value, json};

const BODY: usize = 64 << 10;

/// A command whose body has so many bytes.
fn padded(bytes: usize) -> Vec<u8> {
    let mut body = br#"{"Command":"Now","TrackId":"p","Version":1}"#.to_vec();
    body.resize(bytes, b' ');
    raw(1, &body)
}

fn now(id: &str) -> Vec<u8> {
    envelope::command("Now", id, None)
}

/// What comes after these bytes until the server closes.
fn to_the_end(bench: &Bench, bytes: &[u8]) -> Vec<String> {
    let mut client = bench.client();
    client.send(bytes);
    std::iter::from_fn(|| client.next()).map(|message| message.short()).collect()
}

#[test]
fn row_fewer_than_8_bytes_then_end_closes_quietly() {
    let bench = Bench::start();
    for bytes in 0..8 {
        let mut client = bench.client();
        client.send(&now("1")[..bytes]);
        client.finish();
        assert_eq!(client.next(), None, "{bytes} bytes");
    }
    // In the middle of a body too.
    let mut client = bench.client();
    client.send(&now("1")[..20]);
    client.finish();
    assert_eq!(client.next(), None);
    let counts = bench.until("nine ends", |counts| counts.closed(Ended::Left) == 9);
    assert_eq!((counts.commands, counts.errors, counts.connections), (0, 0, 9));
}

#[test]
fn row_marker_wrong_closes_and_counts() {
    let bench = Bench::start();
    assert_eq!(to_the_end(&bench, b"GET / HTTP/1.1\r\n\r\n"), [""; 0]);
    assert_eq!(to_the_end(&bench, &[&now("1")[..], b"\0\0\0\0\0\0\0\0", &now("2")].concat()), ["1:ok"]);
    bench.until("two ends", |counts| counts.closed(Ended::Marker) == 2);
    let doors = bench.shared.doors.lock().unwrap();
    assert!(doors.iter().any(|door| matches!(door, Door::Ended(_, Ended::Marker))));
}

#[test]
fn row_header_version_other_is_told_and_closes() {
    let bench = Bench::start();
    for version in [0, 2, 255] {
        assert_eq!(to_the_end(&bench, &[0xDC, version, 8, 1, 2, 0, 0, 0, b'{', b'}']), [":3"]);
    }
    bench.until("three ends", |counts| counts.closed(Ended::HeaderVersion) == 3);
}

#[test]
fn row_header_size_below_8_closes() {
    let bench = Bench::start();
    for size in [0, 7] {
        assert_eq!(to_the_end(&bench, &[0xDC, 1, size, 1, 2, 0, 0, 0, b'{', b'}']), [""; 0]);
    }
    bench.until("two ends", |counts| counts.closed(Ended::HeaderSize) == 2);
}

#[test]
fn row_header_size_above_8_is_skipped_and_goes_on() {
    let bench = Bench::start();
    let mut client = bench.client();
    let mut bytes = now("1");
    bytes[2] = 255;
    bytes.splice(8..8, [0xDC; 247]);
    client.send(&bytes);
    client.send(&now("2"));
    assert_eq!(client.shorts(2), ["1:ok", "2:ok"]);
}

#[test]
fn row_type_not_command_is_an_error_and_the_second_one_closes() {
    let bench = Bench::start();
    for kind in [0, 2, 3, 4, 5, 255] {
        let bytes = [raw(kind, b"anything"), now("1"), raw(kind, b""), now("2")].concat();
        assert_eq!(to_the_end(&bench, &bytes), [":1", "1:ok", ":1"], "type {kind}");
    }
    bench.until("six ends", |counts| counts.closed(Ended::Kind) == 6);
}

#[test]
fn row_payload_above_the_limit_is_told_and_closes_and_one_at_the_limit_is_taken() {
    let bench = Bench::start();
    assert_eq!(to_the_end(&bench, &[padded(BODY), padded(BODY + 1)].concat()), ["p:ok", ":11"]);
    // Nothing but the header of it comes: the server does not wait for the rest.
    assert_eq!(to_the_end(&bench, &[0xDC, 1, 8, 1, 255, 255, 255, 255]), [":11"]);
    assert_eq!(to_the_end(&bench, &[0xDC, 1, 8, 4, 255, 255, 255, 255]), [":11"]);
    bench.until("three ends", |counts| counts.closed(Ended::TooLong) == 3);
}

#[test]
fn row_payload_that_is_no_command_is_an_error_and_stays_open() {
    let bench = Bench::start();
    let mut client = bench.client();
    for (body, answer) in [
        (&b""[..], ":1"),
        (b"\xff\xfe", ":1"),
        (b"{\"TrackId\":\"t\",\"Command\":", "t:1"),
        (b"[1]", ":1"),
        (b"null", ":1"),
        (br#"{"TrackId":"t","Command":"Now","Version":1,"Version":1}"#, "t:1"),
        (br#"{"TrackId":"t","Command":"Now","Version":1,"Arguments":{"a":1,"a":2}}"#, "t:1"),
        (br#"{"TrackId":"t","TrackId":"t","Command":"Now","Version":1}"#, ":1"),
    ] {
        client.raw(1, body);
        assert_eq!(client.short(), answer, "{}", String::from_utf8_lossy(body));
    }
    assert_eq!(client.ask("Now", "1", Value::Null), "1:ok");
    let counts = bench.until("nine commands", |counts| counts.commands == 9);
    assert_eq!(counts.errors, 8);
}

#[test]
fn rows_message_not_complete_and_client_that_does_not_read_close_after_10_s_and_idle_does_not() {
    let bench = Bench::start();
    let mut idle = bench.client();
    assert_eq!(idle.ask("Now", "1", Value::Null), "1:ok");
    let mut header = bench.client();
    header.send(&now("1")[..1]);
    let mut body = bench.client();
    body.send(&now("1")[..30]);
    let mut deaf = bench.client();
    assert_eq!(deaf.ask("Subscribe", "1", json!({"Publisher": "Gateway", "Topic": "*"})), "1:ok");
    // More than the kernel holds: from then on the server waits for it. Whatever room opens later is filled again.
    let flood = || {
        for _ in 0..100 {
            bench.publish(event(None, "Flood", json!("x".repeat(50_000))));
        }
    };
    until("events are dropped", || {
        flood();
        bench.counts().events_dropped > 0
    });
    assert_eq!(header.next(), None);
    assert_eq!(body.next(), None);
    let counts = bench.until("three ends", |counts| {
        counts.closed(Ended::Incomplete) == 2 && counts.closed(Ended::NotReading) == 1
    });
    assert!(counts.events_dropped > 0);
    assert_eq!(idle.ask("Now", "2", Value::Null), "2:ok", "idle time is unlimited");
}

#[test]
fn row_send_queue_full_drops_the_oldest_events_and_no_answer() {
    let bench = Bench::start();
    let mut client = bench.client();
    assert_eq!(client.ask("Subscribe", "s", json!({"Publisher": "Gateway", "Topic": "*"})), "s:ok");
    let (mut sent, mut asked) = (0, 1);
    until("events are dropped", || {
        for _ in 0..100 {
            bench.publish(event(None, "Flood", json!({"Number": sent, "More": "x".repeat(10_000)})));
            sent += 1;
        }
        client.command("Now", "a", Value::Null);
        asked += 1;
        bench.until("they are handed out", |counts| counts.events == sent && counts.commands == asked);
        bench.counts().events_dropped > 100
    });
    client.command("Now", "last", Value::Null);
    client.finish();
    let messages: Vec<_> = std::iter::from_fn(|| client.next()).collect();
    let numbers: Vec<u64> =
        messages.iter().filter_map(|message| message.body["Data"]["Number"].as_u64()).collect();
    assert!(numbers.is_sorted(), "events keep their order");
    assert_eq!(numbers.last(), Some(&(sent - 1)), "the newest is there");
    let counts = bench.until("its end", |counts| counts.closed(Ended::Left) == 1);
    assert_eq!(numbers.len() as u64, counts.events - counts.events_dropped, "each drop is counted");
    let answers = messages.iter().filter(|message| message.kind == 2).count() as u64;
    assert_eq!(answers + 1, counts.commands, "no answer is missing");
}

#[test]
fn line_byte_at_a_time_and_coalesced() {
    let bench = Bench::start();
    let mut stream = Vec::new();
    for id in 0..20 {
        stream.extend(envelope::command("Now", &id.to_string(), Some(object(json!({"n": id})))));
    }
    let want: Vec<String> = (0..20).map(|id| format!("{id}:ok")).collect();
    let mut client = bench.client();
    client.send(&stream);
    assert_eq!(client.shorts(20), want);
    for byte in &stream {
        client.send(&[*byte]);
    }
    assert_eq!(client.shorts(20), want);
    let counts = bench.counts();
    assert_eq!((counts.commands, counts.errors), (40, 0));
}

#[test]
fn line_100_pipelined_commands_with_random_delays_keep_their_order() {
    let bench = Bench::start();
    let mut client = bench.client();
    let mut stream = Vec::new();
    for id in 0..100 {
        let arguments = object(json!({"Ms": 40, "n": id}));
        stream.extend(envelope::command(["Now", "Later", "Later"][id % 3], &id.to_string(), Some(arguments)));
    }
    client.send(&stream);
    for id in 0..100 {
        let message = client.next().unwrap();
        assert_eq!((message.kind, message.body["TrackId"].as_str()), (2, Some(&*id.to_string())));
        assert_eq!(message.body["Response"]["n"], id);
    }
}

#[test]
fn line_two_clients_one_of_them_stalled() {
    let bench = Bench::start();
    let mut stalled = bench.client();
    let mut other = bench.client();
    // Answers that nobody reads, until the server takes no more commands.
    stalled.stream.set_nonblocking(true).unwrap();
    let big = envelope::command("Big", "b", Some(object(json!({"Bytes": 60_000}))));
    let mut left: &[u8] = &[];
    let mut taken = 0;
    let mut silent = 0;
    // Full when nothing can be written during a hundred answers to the other.
    while silent < 100 {
        if left.is_empty() {
            left = &big;
            taken += 1;
        }
        match stalled.stream.write(left) {
            Ok(n) => (left, silent) = (&left[n..], 0),
            Err(_) => {
                silent += 1;
                assert_eq!(other.ask("Now", "o", Value::Null), "o:ok");
            }
        }
    }
    stalled.stream.set_nonblocking(false).unwrap();
    // And when it reads again nothing is missing.
    for _ in 1..taken {
        assert_eq!(stalled.short(), "b:ok");
    }
    stalled.send(left);
    assert_eq!(stalled.short(), "b:ok");
}

#[test]
fn line_event_between_command_and_answer() {
    let bench = Bench::start();
    let mut client = bench.client();
    let topic = json!({"DeviceId": "can0", "Publisher": "DeviceEvents", "Topic": "BusStateChanged"});
    assert_eq!(client.ask("DeviceSubscribe", "1", topic), "1:ok");
    client.command("Never", "2", Value::Null);
    until("it is taken", || bench.shared.open.load(Ordering::SeqCst) == 1);
    bench.publish(event(Some("can0"), "BusStateChanged", json!({"State": "BusOff"})));
    bench.publish(event(Some("ecu-brake"), "BusStateChanged", json!({"State": "BusOff"})));
    let message = client.next().unwrap();
    assert_eq!(
        (message.kind, message.body),
        (
            4,
            json!({"Publisher": "DeviceEvents", "Topic": "BusStateChanged", "DeviceId": "can0", "Data": {"State": "BusOff"}})
        )
    );
    assert_eq!(client.short(), "2:9", "2 s for a command");
    assert_eq!(bench.shared.open.load(Ordering::SeqCst), 0, "the desk need not keep it");
}

#[test]
fn line_arguments_absent_null_empty_array_string() {
    let bench = Bench::start();
    let mut client = bench.client();
    for (arguments, answer) in [
        ("", "t:ok"),
        (r#","Arguments":null"#, "t:ok"),
        (r#","Arguments":{}"#, "t:ok"),
        (r#","Arguments":[]"#, "t:5"),
        (r#","Arguments":"x""#, "t:5"),
        (r#","Arguments":7"#, "t:5"),
    ] {
        client.raw(1, format!(r#"{{"Command":"Now","TrackId":"t","Version":1{arguments}}}"#).as_bytes());
        assert_eq!(client.short(), answer, "{arguments}");
    }
}

#[test]
fn line_wrong_case_of_commands_and_keys() {
    let bench = Bench::start();
    let mut client = bench.client();
    for (body, answer) in [
        (r#"{"Command":"listdevices","TrackId":"t","Version":1}"#, "t:2"),
        (r#"{"Command":"LISTDEVICES","TrackId":"t","Version":1}"#, "t:2"),
        (r#"{"command":"ListDevices","TrackId":"t","Version":1}"#, "t:1"),
        (r#"{"Command":"ListDevices","trackid":"t","Version":1}"#, ":1"),
        (r#"{"Command":"ListDevices","TrackId":"t","version":1}"#, "t:3"),
        (r#"{"Command":"GetDeviceInfo","TrackId":"t","Version":1,"arguments":{"DeviceId":"can0"}}"#, "t:4"),
        (r#"{"Command":"GetDeviceInfo","TrackId":"t","Version":1,"Arguments":{"deviceId":"can0"}}"#, "t:4"),
        (r#"{"Command":"GetDeviceInfo","TrackId":"t","Version":1,"Arguments":{"DeviceId":"Can0"}}"#, "t:7"),
        (r#"{ "Version" : 1.0,"Else":null, "TrackId" : "t" ,"\u0043ommand":"ListDev\u0069ces"}"#, "t:ok"),
    ] {
        client.raw(1, body.as_bytes());
        assert_eq!(client.short(), answer, "{body}");
    }
}

#[test]
fn line_device_id_missing_unknown_numeric_string() {
    let bench = Bench::start();
    let mut client = bench.client();
    assert_eq!(client.ask("GetDeviceInfo", "1", Value::Null), "1:4");
    for (device, answer) in [
        (Value::Null, "1:4"),
        (json!("can7"), "1:7"),
        (json!(843_143_769), "1:7"),
        (json!({}), "1:5"),
        (json!("can0"), "1:ok"),
    ] {
        assert_eq!(client.ask("GetDeviceInfo", "1", json!({"DeviceId": device.clone()})), answer, "{device}");
    }
    assert!(bench.shared.local.load(Ordering::SeqCst));
}

#[test]
fn line_version_absent_0_2_text_and_1_0() {
    let bench = Bench::start();
    let mut client = bench.client();
    for (version, answer) in [
        ("", "7:3"),
        (r#","Version":0"#, "7:3"),
        (r#","Version":2"#, "7:3"),
        (r#","Version":"1""#, "7:3"),
        (r#","Version":null"#, "7:3"),
        (r#","Version":1"#, "7:ok"),
        (r#","Version":1.0"#, "7:ok"),
    ] {
        client.raw(1, format!(r#"{{"Command":"Now","TrackId":7{version}}}"#).as_bytes());
        assert_eq!(client.short(), answer, "{version}");
    }
}

#[test]
fn line_disconnect_with_queued_commands_and_subscriptions() {
    let bench = Bench::start();
    let mut other = bench.client();
    for round in 1..=3 {
        let mut client = bench.client();
        let topic = json!({"Publisher": "Gateway", "Topic": "*"});
        assert_eq!(client.ask("Subscribe", "s", topic), "s:ok");
        for _ in 0..10 {
            client.command("Never", "n", Value::Null);
        }
        until("they wait", || bench.shared.open.load(Ordering::SeqCst) == 10);
        drop(client);
        bench.publish(event(None, "StateChanged", json!({})));
        until("the desk is asked no more", || bench.shared.open.load(Ordering::SeqCst) == 0);
        bench.until("its end", |counts| counts.closed(Ended::Left) + counts.closed(Ended::Lost) == round);
        let before = bench.counts().events;
        bench.publish(event(None, "StateChanged", json!({})));
        assert_eq!(other.ask("Now", "o", Value::Null), "o:ok");
        assert_eq!(bench.counts().events, before, "subscriptions die with their connection");
    }
}

#[test]
fn the_ninth_client_is_told_and_a_free_place_is_taken_again() {
    let bench = Bench::start();
    let mut clients: Vec<Client> = (0..8).map(|_| bench.client()).collect();
    for client in &mut clients {
        assert_eq!(client.ask("Now", "1", Value::Null), "1:ok");
    }
    for _ in 0..20 {
        // It speaks at once, as every client does, and still reads why.
        let mut ninth = bench.client();
        let _ = ninth.stream.write(&now("9"));
        assert_eq!(ninth.short(), ":11");
        assert_eq!(ninth.next(), None);
    }
    assert_eq!(bench.until("twenty refusals", |counts| counts.refused == 20).connections, 8);
    drop(clients.pop());
    bench.until("its end", |counts| counts.closed(Ended::Left) == 1);
    assert_eq!(bench.client().ask("Now", "1", Value::Null), "1:ok");
    for client in &mut clients {
        assert_eq!(client.ask("Now", "2", Value::Null), "2:ok", "the others are not harmed");
    }
}

#[test]
fn a_client_that_waits_for_nothing_gives_its_place_after_ten_seconds() {
    let bench = Bench::start();
    let mut subscriber = bench.client();
    let subscription = json!({ "Publisher": "Gateway", "Topic": "*" });
    assert_eq!(subscriber.ask("Subscribe", "1", subscription), "1:ok");
    let mut idle: Vec<Client> = (0..7).map(|_| bench.client()).collect();
    for client in &mut idle {
        assert_eq!(client.ask("Now", "1", Value::Null), "1:ok");
    }
    assert_eq!(bench.client().short(), ":11", "nobody was silent for long");
    // The one who was silent longest goes, and nobody else.
    until("a place", || {
        let mut caller = bench.client();
        let _ = caller.stream.write(&now("9"));
        caller.short() == "9:ok"
    });
    assert_eq!(bench.counts().closed(Ended::Displaced), 1);
    assert_eq!(idle[0].next(), None);
    assert_eq!(idle[6].ask("Now", "2", Value::Null), "2:ok");
    assert_eq!(subscriber.ask("Now", "2", Value::Null), "2:ok");
}

#[test]
fn the_end_of_the_server_ends_every_connection() {
    let mut bench = Bench::start();
    let mut client = bench.client();
    assert_eq!(client.ask("Now", "1", Value::Null), "1:ok");
    client.command("Never", "2", Value::Null);
    until("it waits", || bench.shared.open.load(Ordering::SeqCst) == 1);
    bench.stop();
    assert_eq!(client.next(), None);
    assert_eq!(bench.counts().closed(Ended::Stopped), 1);
    assert_eq!(bench.shared.open.load(Ordering::SeqCst), 0);
}

#[test]
fn a_command_of_a_client_that_was_cut_right_behind_it_is_carried_out() {
    let shared = Arc::default();
    let mut desk = TestDesk::new(Arc::clone(&shared));
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_address().unwrap();
    let mut server = Server::new();
    server.listen(listener).unwrap();
    let mut client = Client::connect(address);
    client.command("Now", "1", Value::Null);
    until("it is answered", || {
        server.turn(Duration::from_millis(10), &mut desk);
        server.counts().commands == 1
    });
    // The answer has come and is not read: closing now is a reset, right behind the command.
    assert_eq!(client.stream.peek(&mut [0]).unwrap(), 1);
    client.command("Now", "2", Value::Null);
    drop(client);
    until("it has gone", || {
        server.turn(Duration::from_millis(10), &mut desk);
        server.clients() == 0
    });
    assert_eq!(shared.asked.load(Ordering::SeqCst), 2);
    let counts = server.counts();
    assert_eq!(counts.closed(Ended::Lost) + counts.closed(Ended::Left), 1);
}

/// Its process can open no more descriptors, so it runs in one of its own.
#[test]
fn a_process_without_a_descriptor_left_rests_its_listener_and_takes_the_client_later() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if std::env::var_os("OCPCAN_TEST_NO_DESCRIPTOR").is_none() {
        let name = "a_process_without_a_descriptor_left_rests_its_listener_and_takes_the_client_later";
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--test-threads", "1"])
            .env("OCPCAN_TEST_NO_DESCRIPTOR", "1")
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
        return;
    }
    let shared = Arc::default();
    let mut desk = TestDesk::new(Arc::clone(&shared));
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_address().unwrap();
    let mut server = Server::new();
    server.listen(listener).unwrap();
    let mut client = Client::connect(address);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
    let wait = Duration::from_millis(50);
    until("it is told", || {
        server.turn(wait, &mut desk);
        !shared.doors.lock().unwrap().is_empty()
    });
    assert_eq!(shared.doors.lock().unwrap()[..], [Door::NoAccept(nix::errno::Errno::EMFILE as i32)]);
    // The one that waits keeps the listener readable: turns that looked at it would not wait at all.
    let start = Instant::now();
    for _ in 0..20 {
        server.turn(wait, &mut desk);
    }
    assert!(start.elapsed() >= 10 * wait, "{:?} for 20 turns", start.elapsed());
    assert_eq!(shared.doors.lock().unwrap().len(), 1, "told once");
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    client.command("Now", "1", Value::Null);
    until("it is let in and answered", || {
        server.turn(wait, &mut desk);
        server.counts().commands == 1
    });
    assert_eq!(client.short(), "1:ok");
}

/// Between a client and the server: hands on byte by byte, subscribes in the client's name, and notes what passed.
fn splitting_relay(server: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let kinds = Arc::new(Mutex::new(Vec::new()));
    let passed = Arc::clone(&kinds);
    std::thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let mut up = Client::connect(server);
        assert_eq!(up.ask("Subscribe", "relay", json!({"Publisher": "Gateway", "Topic": "*"})), "relay:ok");
        client.set_nodelay(true).unwrap();
        let (client_in, server_out) = (client.try_clone().unwrap(), up.stream.try_clone().unwrap());
        std::thread::spawn(move || copy(client_in, server_out, |_| {}));
        let mut reader = Reader::new(1 << 20, |_| true);
        copy(up.stream, client, |byte| {
            if let Ok((_, Some(Incoming::Message { kind, .. }))) = reader.take(&[byte]) {
                passed.lock().unwrap().push(kind);
            }
        });
    });
    (address, kinds)
}

/// Hands on single bytes until one side ends.
fn copy(mut from: TcpStream, mut to: TcpStream, mut see: impl FnMut(u8)) {
    let mut byte = [0];
    while let Ok(1) = from.read(&mut byte) {
        see(byte[0]);
        if to.write_all(&byte).is_err() {
            return;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

#[test]
fn a_plain_python_client_works_through_single_bytes_with_events_in_between() {
    let bench = Bench::start();
    bench.shared.noise.store(true, Ordering::SeqCst);
    let (relay, kinds) = splitting_relay(bench.address);
    let program = Program::python(
        "rcsp_client_plain.py",
        &[&relay.ip().to_string(), &relay.port().to_string(), "no-such"],
    );
    let line = |start: &str| {
        program.wait(0, start, |line| {
            line.strip_prefix(start).map(|rest| serde_json::from_str::<Value>(rest).unwrap())
        })
    };
    assert_eq!(line("devices "), json!([{"DeviceId": "can0"}, {"DeviceId": "ecu-brake"}]));
    assert_eq!(line("info "), json!({"DeviceId": "can0", "State": "up"}));
    assert_eq!(line("error ")["Code"], 7);
    assert!(line("events ").as_u64().unwrap() > 0);
    let kinds: Vec<u8> = kinds.lock().unwrap().clone();
    let answers: Vec<u8> = kinds.iter().copied().filter(|kind| *kind != 4).collect();
    assert_eq!(answers, [2, 2, 3]);
    // In front of each of the two answers that took a while there was an event.
    for piece in kinds.split(|kind| *kind == 2).take(2) {
        assert!(piece.contains(&4), "{kinds:?}");
    }
}

#[test]
fn a_plain_python_client_works_without_anything_in_between() {
    let bench = Bench::start();
    let address = bench.address;
    let program =
        Program::python("rcsp_client_plain.py", &[&address.ip().to_string(), &address.port().to_string()]);
    let events = program.wait(0, "events ", |line| line.strip_prefix("events ").map(str::to_owned));
    assert_eq!(events, "0", "nothing is sent unasked");
    assert!(program.output().contains(r#"info {"DeviceId": "can0""#), "{}", program.output());
    bench.until("its end", |counts| counts.closed(Ended::Left) == 1);
}

/// A server that sends these answers, one for each command; whether the plain client got to its end.
fn survives(answers: &[Vec<u8>]) -> bool {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let python = std::env::var("OCPCAN_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rcsp_client_plain.py");
    let mut command = std::process::Command::new(python);
    command.arg(script).args(["127.0.0.1", &port.to_string()]).env("PYTHONDONTWRITEBYTECODE", "1");
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    let (mut client, _) = listener.accept().unwrap();
    for answer in answers {
        // Its commands are small enough to come in one piece.
        let _ = client.read(&mut [0; 4_096]).unwrap();
        client.write_all(answer).unwrap();
    }
    child.wait().unwrap().success()
}

#[test]
fn the_plain_client_is_as_brittle_as_the_vendors_example() {
    let info = raw(2, br#"{"TrackId":"2","Response":{"a":1}}"#);
    let devices = raw(2, br#"{"TrackId":"1","Response":{"Devices":[{"DeviceId":843143769}]}}"#);
    let mut version = devices.clone();
    version[1] = 9;
    for (answers, survived) in [
        (vec![devices.clone(), info.clone()], true),
        (vec![raw(2, br#"{"TrackId":"1"}"#)], true),
        (vec![raw(2, br#"{"TrackId":"1","Response":{"Devices":null}}"#)], true),
        (vec![raw(2, br#"{"TrackId":"other","Response":{}}"#)], true),
        (vec![version, info], true),
        (vec![raw(2, br#"{"TrackId":"1","Response":null}"#)], false),
        (vec![raw(3, br#"{"TrackId":"1","Error":null}"#)], false),
        (vec![[&[0xDC, 1, 9, 2, 2, 0, 0, 0, b'x'][..], b"{}"].concat()], false),
        (vec![raw(5, b"{}")], false),
        (vec![raw(2, b"")], false),
        (vec![[&[0xDD][..], &devices[1..]].concat()], false),
    ] {
        assert_eq!(survives(&answers), survived, "{:?}", String::from_utf8_lossy(&answers[0]));
    }
}
