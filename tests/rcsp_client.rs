//! `ocpcan rcsp` and `ocpcan status` against servers that do as they are told: every oddity that a server may have, the
//! exit codes, the texts, and the way back after a loss.
//!
//! Owns the servers: each connection is one script. Relies on the binary and on the library's client, and for the last word
//! on our own server (`rcsp/mod.rs`).

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests start processes and threads and wait with deadlines"
)]

#[path = "common/programs.rs"]
mod programs;
#[path = "rcsp/mod.rs"]
mod rcsp;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nix::sys::signal::Signal;
use ocpcan::io::clock;
use ocpcan::threads::rcsp_client::{ClientError, ClientOptions, RcspClient};
use programs::{PATIENCE, Program, until};
use serde_json::{Value, json};

const OK: u8 = 2;
const ERROR: u8 = 3;
const EVENT: u8 = 4;

/// A message as it stands on the wire.
fn message(kind: u8, body: &str) -> Vec<u8> {
    let mut bytes = vec![0xDC, 1, 8, kind];
    bytes.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
    bytes.extend(body.as_bytes());
    bytes
}

/// One client of a scripted server.
struct Peer {
    stream: TcpStream,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Peer {
    /// The next command's body, and its `TrackId` as JSON; `None` when the client has gone.
    fn command(&mut self) -> Option<(Value, String)> {
        let mut header = [0; 8];
        self.stream.read_exact(&mut header).ok()?;
        assert_eq!(header[..4], [0xDC, 1, 8, 1], "what clients send are commands");
        let mut body = vec![0; u32::from_le_bytes(header[4..].try_into().unwrap()) as usize];
        self.stream.read_exact(&mut body).ok()?;
        let text = String::from_utf8(body).unwrap();
        let command: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(command["Version"], 1);
        let track = command["TrackId"].clone();
        assert!(track.is_string());
        self.asked.lock().unwrap().push(text);
        Some((command, track.to_string()))
    }

    /// A client that has gone takes nothing: that is all right.
    fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    fn ok(&mut self, track: &str, response: &str) {
        self.write(&message(OK, &format!("{{\"TrackId\":{track},\"Response\":{response}}}")));
    }

    /// Waits until the client has gone.
    fn until_gone(&mut self) {
        while let Ok(1..) = self.stream.read(&mut [0; 64]) {}
    }
}

/// A server that runs one script for each connection, one after the other; the script gets the connection's number.
struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    closed: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start(script: impl Fn(usize, &mut Peer) + Send + Sync + 'static) -> Self {
        Self::at(0, script)
    }

    fn at(port: u16, script: impl Fn(usize, &mut Peer) + Send + Sync + 'static) -> Self {
        let listener = until("a free port", || TcpListener::bind(("127.0.0.1", port)).ok());
        let port = listener.local_addr().unwrap().port();
        let (asked, closed) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let connections = Arc::new(Mutex::new(Vec::new()));
        let mut server = Self {
            port,
            asked: Arc::clone(&asked),
            connections: Arc::clone(&connections),
            closed: Arc::clone(&closed),
            thread: None,
        };
        let script = Arc::new(script);
        server.thread = Some(std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                if closed.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                connections.lock().unwrap().push(stream.try_clone().unwrap());
                let (script, asked) = (Arc::clone(&script), Arc::clone(&asked));
                std::thread::spawn(move || {
                    let mut peer = Peer { stream, asked };
                    script(number, &mut peer);
                    let _ = peer.stream.shutdown(Shutdown::Both);
                });
            }
        }));
        server
    }

    /// Every command body so far.
    fn asked(&self) -> MutexGuard<'_, Vec<String>> {
        self.asked.lock().unwrap()
    }

    /// Runs the command line against this server.
    fn ocpcan(&self, args: &[&str]) -> Output {
        ocpcan(self.port, args)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        // Wakes the listener; then its port is free.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
        for connection in self.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn ocpcan(port: u16, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ocpcan"))
        .args(args)
        .args(["--port", &port.to_string()])
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Fails unless the command ended like this.
fn expect(what: &str, output: &Output, code: i32, stdout: &str, stderr: &str) {
    let seen = (output.status.code(), out(output), err(output));
    assert_eq!(seen, (Some(code), stdout, stderr), "{what}");
}

/// A port at which nobody listens.
fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

const DEVICES: &str =
    r#"{"Devices":[{"DeviceId":"can0","Kind":"bus"},{"DeviceId":7},{"DeviceId":"7"},{"DeviceId":1.50e2}]}"#;

/// A server without oddities: it lists, tells of a device, echoes what a command carried, and knows no other command.
fn plain(peer: &mut Peer) {
    while let Some((command, track)) = peer.command() {
        match command["Command"].as_str().unwrap() {
            "ListDevices" => peer.ok(&track, DEVICES),
            "GetDeviceInfo" => peer.ok(&track, r#"{"Name":"a\u001b[2J","State":{"Up":true,"Load":1.50}}"#),
            "Echo" => {
                let arguments = command["Arguments"].to_string();
                peer.ok(&track, &format!("{{\"Echo\":{arguments}}}"));
            }
            "Nothing" => peer.write(&message(OK, &format!("{{\"TrackId\":{track}}}"))),
            _ => {
                let body = format!(
                    "{{\"TrackId\":{track},\"Error\":{{\"Code\":2,\"Message\":\"un\\u001bknown\"}}}}"
                );
                peer.write(&message(ERROR, &body));
            }
        }
    }
}

#[test]
fn list_info_and_call_print_what_the_server_said() {
    let server = Server::start(|_, peer| plain(peer));
    let list = server.ocpcan(&["rcsp", "list"]);
    expect("list", &list, 0, "can0    Kind=bus\n7\n\"7\"\n1.50e2\n", "");
    let list = server.ocpcan(&["rcsp", "list", "--json"]);
    expect("list --json", &list, 0, &format!("{DEVICES}\n"), "");
    let info = server.ocpcan(&["rcsp", "info", "can0"]);
    expect("info", &info, 0, "Name: a?[2J\nState:\n  Up: yes\n  Load: 1.50\n", "");
    let info = server.ocpcan(&["rcsp", "--json", "info", "can0"]);
    expect("info", &info, 0, "{\"Name\":\"a\\u001b[2J\",\"State\":{\"Up\":true,\"Load\":1.50}}\n", "");
    let call = server.ocpcan(&["rcsp", "call", "Echo", r#"{"a":[1]}"#]);
    expect("call", &call, 0, "{\n  \"Echo\": {\n    \"a\": [\n      1\n    ]\n  }\n}\n", "");
    expect("call", &server.ocpcan(&["rcsp", "call", "Nothing"]), 0, "ok\n", "");
    expect("call", &server.ocpcan(&["rcsp", "call", "Nothing", "--json"]), 0, "null\n", "");
    let call = server.ocpcan(&["rcsp", "call", "nothing"]);
    expect("call", &call, 1, "", "ocpcan: error 2: un?known\n");
    let by_name = server.ocpcan(&["rcsp", "list", "--host", "localhost"]);
    assert_eq!(by_name.status.code(), Some(0), "{}", err(&by_name));
}

#[test]
fn an_id_goes_back_exactly_as_it_came() {
    let server = Server::start(|_, peer| plain(peer));
    for (typed, json) in [("can0", "\"can0\""), ("\"7\"", "\"7\""), ("1.50e2", "1.50e2")] {
        let info = server.ocpcan(&["rcsp", "info", typed]);
        assert_eq!(info.status.code(), Some(0), "{typed}: {}", err(&info));
        let expected = format!(
            "{{\"Command\":\"GetDeviceInfo\",\"TrackId\":\"2\",\"Version\":1,\"Arguments\":{{\"DeviceId\":{json}}}}}"
        );
        assert_eq!(server.asked().last(), Some(&expected));
    }
    let arguments = r#"{"b":1.50e2,"a":123456789012345678901234567890}"#;
    let call = server.ocpcan(&["rcsp", "call", "Nothing", arguments]);
    assert_eq!(call.status.code(), Some(0), "{}", err(&call));
    assert!(server.asked().last().unwrap().contains(&format!("\"Arguments\":{arguments}}}")));
}

#[test]
fn a_device_that_is_not_there_or_not_clear_is_named_with_what_there_is() {
    let server = Server::start(|_, peer| plain(peer));
    let there = "\"can0\", 7, \"7\", 1.50e2";
    let unknown = server.ocpcan(&["rcsp", "info", "can1"]);
    expect("unknown", &unknown, 64, "", &format!("ocpcan: no device can1; there is {there}\n"));
    let ambiguous = server.ocpcan(&["rcsp", "info", "7"]);
    expect("ambiguous", &ambiguous, 64, "", "ocpcan: 7 is ambiguous: 7, \"7\"\n");
    let unknown = server.ocpcan(&["rcsp", "events", "can0", "x"]);
    expect("events", &unknown, 64, "", &format!("ocpcan: no device x; there is {there}\n"));
    let nothing = Server::start(|_, peer| {
        while let Some((_, track)) = peer.command() {
            peer.ok(&track, "{}");
        }
    });
    let unknown = nothing.ocpcan(&["rcsp", "info", "7"]);
    expect("none", &unknown, 64, "", "ocpcan: no device 7: the server has no devices\n");
}

#[test]
fn a_wrong_command_line_is_told_before_the_server_is_called() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    for (args, said) in [
        (&["rcsp", "call", "X", "7"][..], "a JSON object"),
        (&["rcsp", "call", "X", "{"], "not JSON"),
        (&["rcsp", "call", ""], "COMMAND"),
        (&["rcsp", "info"], "DEVICE"),
        (&["rcsp"], "Usage"),
        (&["rcsp", "list", "--timeout-ms", "0"], "timeout-ms"),
        (&["status", "x"], "unexpected"),
    ] {
        let output = ocpcan(port, args);
        assert_eq!((output.status.code(), out(&output)), (Some(64), ""), "{args:?}");
        assert!(err(&output).contains(said), "{args:?}: {}", err(&output));
    }
    let called = listener.accept();
    assert!(called.is_err(), "somebody called: {called:?}");
}

/// What a server does with the first command, and how `rcsp list` ends.
struct Row {
    what: &'static str,
    answer: fn(&mut Peer, &str),
    code: i32,
    stdout: &'static str,
    /// In stderr, behind the server's address.
    stderr: &'static str,
}

fn row(
    what: &'static str,
    code: i32,
    stdout: &'static str,
    stderr: &'static str,
    answer: fn(&mut Peer, &str),
) -> Row {
    Row { what, answer, code, stdout, stderr }
}

const ONE: &str = r#"{"Devices":[{"DeviceId":"can0"}]}"#;

/// The answer of a correct server, as it stands on the wire.
fn correct(track: &str) -> Vec<u8> {
    message(OK, &format!("{{\"TrackId\":{track},\"Response\":{ONE}}}"))
}

/// What a server may do.
fn allowed() -> Vec<Row> {
    vec![
        row("correct", 0, "can0\n", "", |peer, track| peer.write(&correct(track))),
        row("single bytes", 0, "can0\n", "", |peer, track| {
            for byte in correct(track) {
                peer.write(&[byte]);
            }
        }),
        row("events interleaved", 0, "can0\n", "", |peer, track| {
            let mut bytes = message(EVENT, "{}");
            bytes.extend(message(EVENT, "[null]"));
            bytes.extend(correct(track));
            bytes.extend(message(EVENT, "7"));
            peer.write(&bytes);
        }),
        row("numeric id", 0, "843143769\n", "", |peer, track| {
            peer.ok(track, r#"{"Devices":[{"DeviceId":843143769}]}"#);
        }),
        row("white space, order, escapes", 0, "caf\u{e9}\n", "", |peer, track| {
            let body = format!(
                " {{ \"Response\" : {{ \"Devices\" : [ {{ \"DeviceId\" : \"caf\\u00e9\" }} ] }} ,\n\t\"More\":1, \"TrackId\" : {track} }} "
            );
            peer.write(&message(OK, &body));
        }),
        row("Response omitted", 0, "no devices\n", "", |peer, track| {
            peer.write(&message(OK, &format!("{{\"TrackId\":{track}}}")));
        }),
        row("Response null", 0, "no devices\n", "", |peer, track| peer.ok(track, "null")),
        row("Devices null", 0, "no devices\n", "", |peer, track| peer.ok(track, "{\"Devices\":null}")),
        row("Devices empty", 0, "no devices\n", "", |peer, track| peer.ok(track, "{\"Devices\":[]}")),
        row("Error null", 1, "", "error: no reason given", |peer, track| {
            peer.write(&message(ERROR, &format!("{{\"TrackId\":{track},\"Error\":null}}")));
        }),
        row("Error absent", 1, "", "error: no reason given", |peer, track| {
            peer.write(&message(ERROR, &format!("{{\"TrackId\":{track}}}")));
        }),
        row("Code a number", 1, "", "error 12: m", |peer, track| {
            let body = format!("{{\"TrackId\":{track},\"Error\":{{\"Code\":12,\"Message\":\"m\"}}}}");
            peer.write(&message(ERROR, &body));
        }),
        row("Code a string", 1, "", "error E12: m", |peer, track| {
            let body = format!("{{\"TrackId\":{track},\"Error\":{{\"Code\":\"E12\",\"Message\":\"m\"}}}}");
            peer.write(&message(ERROR, &body));
        }),
        row("Code absent", 1, "", "error: m", |peer, track| {
            peer.write(&message(ERROR, &format!("{{\"TrackId\":{track},\"Error\":{{\"Message\":\"m\"}}}}")));
        }),
        row("turned away", 1, "", "error 11: too many clients", |peer, _| {
            peer.write(&message(ERROR, r#"{"TrackId":"","Error":{"Code":11,"Message":"too many clients"}}"#));
        }),
    ]
}

/// What it must not do, and what may happen to it.
fn not_allowed() -> Vec<Row> {
    vec![
        row("wrong TrackId", 76, "", "an answer with the TrackId of another command", |peer, _| {
            peer.write(&correct("\"2\""));
        }),
        row("no list", 76, "", "Devices is not a list of objects", |peer, track| {
            peer.ok(track, "{\"Devices\":7}");
        }),
        row(
            "Response no object",
            76,
            "",
            "the server sent a Response that is not an object",
            |peer, track| {
                peer.ok(track, "[]");
            },
        ),
        row("header version 2", 76, "", "header version 2 is not known, only 1", |peer, track| {
            let mut bytes = correct(track);
            bytes[1] = 2;
            peer.write(&bytes);
        }),
        row("header of 11 bytes", 0, "can0\n", "", |peer, track| {
            let mut bytes = correct(track);
            bytes[2] = 11;
            bytes.splice(8..8, [0xDC, 0, 255]);
            peer.write(&bytes);
        }),
        row("header of 7 bytes", 76, "", "a header of 7 bytes: 8 is the least", |peer, track| {
            let mut bytes = correct(track);
            bytes[2] = 7;
            peer.write(&bytes);
        }),
        row("type 0", 76, "", "a message of type 0, which no server sends", |peer, _| {
            peer.write(&message(0, "{}"));
        }),
        row("type 1", 76, "", "a message of type 1, which no server sends", |peer, _| {
            peer.write(&message(1, "{}"));
        }),
        row("type 5", 76, "", "a message of type 5, which no server sends", |peer, _| {
            peer.write(&message(5, "{}"));
        }),
        row("zero-length body", 76, "", "the server sent a body that is not JSON", |peer, _| {
            peer.write(&message(OK, ""));
        }),
        row("not JSON", 76, "", "the server sent a body that is not JSON", |peer, _| {
            peer.write(&message(OK, "{\"TrackId\":\"1\""));
        }),
        row("bad marker", 76, "", "the message begins with 0x48 and not with 0xdc", |peer, _| {
            peer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }),
        row("17 MiB announced", 76, "", "a body of 17825792 bytes is too long", |peer, _| {
            let mut header = vec![0xDC, 1, 8, OK];
            header.extend((17_u32 << 20).to_le_bytes());
            peer.write(&header);
        }),
        row("no bytes", 69, "", "no answer within 300 ms", |_, _| {}),
        row("half an answer", 69, "", "no answer within 300 ms", |peer, track| {
            let bytes = correct(track);
            peer.write(&bytes[..20]);
        }),
        row("events alone", 69, "", "no answer within 300 ms", |peer, _| {
            peer.write(&message(EVENT, "{}"));
        }),
        row("close in the middle", 69, "", "connection lost: closed by the peer", |peer, track| {
            let bytes = correct(track);
            peer.write(&bytes[..20]);
            let _ = peer.stream.shutdown(Shutdown::Both);
        }),
        row("close at once", 69, "", "connection lost: closed by the peer", |peer, _| {
            let _ = peer.stream.shutdown(Shutdown::Both);
        }),
    ]
}

#[test]
fn every_oddity_of_a_server_ends_with_its_exit_code_and_its_reason() {
    for row in allowed().into_iter().chain(not_allowed()) {
        let answer = row.answer;
        let server = Server::start(move |_, peer| {
            if let Some((_, track)) = peer.command() {
                answer(peer, &track);
                peer.until_gone();
            }
        });
        // Long enough for the rows that answer, on a loaded machine.
        let is_silent = row.stderr.contains("300 ms");
        let output =
            server.ocpcan(&["rcsp", "list", "--timeout-ms", if is_silent { "300" } else { "60000" }]);
        let stderr = match row.code {
            0 => String::new(),
            1 => format!("ocpcan: {}\n", row.stderr),
            76 => {
                format!("ocpcan: 127.0.0.1:{}: the server breaks the protocol: {}\n", server.port, row.stderr)
            }
            _ => format!("ocpcan: 127.0.0.1:{}: {}\n", server.port, row.stderr),
        };
        expect(row.what, &output, row.code, row.stdout, &stderr);
    }
}

#[test]
fn nobody_at_the_port_is_69() {
    let port = free_port();
    for args in [&["rcsp", "list"][..], &["rcsp", "call", "X"], &["rcsp", "events"], &["status"]] {
        let output = ocpcan(port, args);
        let said = format!("ocpcan: 127.0.0.1:{port}: cannot connect: refused or reset by the peer\n");
        expect(&format!("{args:?}"), &output, 69, "", &said);
    }
    let output = ocpcan(port, &["rcsp", "list", "--host", "no such host"]);
    assert_eq!(output.status.code(), Some(69), "{}", err(&output));
}

fn connect(server: &Server, command_timeout: Duration) -> RcspClient {
    let options = ClientOptions { command_timeout, ..ClientOptions::default() };
    RcspClient::connect("127.0.0.1", server.port, options).unwrap()
}

#[test]
fn the_library_keeps_events_between_answers_and_waits_no_longer_than_told() {
    let server = Server::start(|_, peer| {
        let (_, track) = peer.command().unwrap();
        peer.write(&message(EVENT, "{\"Publisher\":\"P\",\"Topic\":\"T\",\"DeviceId\":7,\"Data\":1.50}"));
        peer.ok(&track, ONE);
        let (_, track) = peer.command().unwrap();
        peer.write(&message(ERROR, &format!("{{\"TrackId\":{track},\"Error\":{{\"Code\":7}}}}")));
        let (_, track) = peer.command().unwrap();
        peer.ok(&track, "{\"a\": 1.50}");
        peer.until_gone();
    });
    let mut client = connect(&server, PATIENCE);
    let devices = client.list().unwrap();
    assert_eq!(devices[0].id.json(), "\"can0\"");
    let refused = client.info(&devices[0].id).unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(error) if error.code == Some(json!(7))), "{refused:?}");
    // A refusal is an answer: the connection goes on.
    assert_eq!(client.call("X", None).unwrap().unwrap().get(), "{\"a\": 1.50}");
    let event = client.next_event(clock::now()).unwrap().unwrap();
    assert_eq!((event.body.publisher(), event.body.topic()), (Some("P"), Some("T")));
    assert_eq!((event.body.device(), event.body.data()), (Some(&json!(7)), Some(&json!(1.5))));
    assert!(event.json.get().ends_with("1.50}"));
    let before = clock::now();
    assert!(client.next_event(before + Duration::from_millis(120)).unwrap().is_none());
    assert!(clock::now().since(before) >= Duration::from_millis(120));
    assert_eq!(client.events_dropped(), 0);
}

#[test]
fn no_event_of_a_burst_is_lost_while_they_are_taken() {
    const COUNT: usize = 50_000;
    let server = Server::start(|_, peer| {
        let burst: Vec<u8> = (0..COUNT).flat_map(|number| message(EVENT, &number.to_string())).collect();
        peer.write(&burst);
        peer.until_gone();
    });
    let mut client = connect(&server, PATIENCE);
    for number in 0..COUNT {
        let event = client.next_event(clock::now() + PATIENCE).unwrap().unwrap();
        assert_eq!(event.json.get(), number.to_string());
    }
    assert_eq!(client.events_dropped(), 0);
}

#[test]
fn a_late_answer_is_never_given_to_the_next_command() {
    let server = Server::start(|_, peer| {
        let (_, track) = peer.command().unwrap();
        // The answer leaves when the client has given up and asks again, or has gone.
        let mut byte = [0];
        let _ = peer.stream.read(&mut byte);
        peer.ok(&track, "{\"late\":true}");
        peer.until_gone();
    });
    let mut client = connect(&server, Duration::from_millis(100));
    let limit = Duration::from_millis(100);
    for _ in 0..2 {
        assert_eq!(client.call("X", None).unwrap_err(), ClientError::TimedOut(limit));
    }
    assert_eq!(client.next_event(clock::now()).unwrap_err(), ClientError::TimedOut(limit));
    assert_eq!(server.asked().len(), 1, "nothing is sent on a connection that is out of step");
}

#[test]
fn a_wait_ends_when_it_is_told_to() {
    let server = Server::start(|_, peer| peer.until_gone());
    let stop = Arc::new(AtomicBool::new(false));
    let options = ClientOptions {
        command_timeout: PATIENCE * 10,
        stop: Some(Arc::clone(&stop)),
        ..ClientOptions::default()
    };
    let mut client = RcspClient::connect("127.0.0.1", server.port, options.clone()).unwrap();
    let waiting = std::thread::spawn(move || client.call("X", None).unwrap_err());
    stop.store(true, Ordering::Relaxed);
    until("the end of the wait", || waiting.is_finished().then_some(()));
    assert_eq!(waiting.join().unwrap(), ClientError::Stopped);
    let stopped = RcspClient::connect("127.0.0.1", server.port, options);
    assert_eq!(stopped.unwrap_err(), ClientError::Stopped);
}

#[test]
fn a_large_answer_comes_whole_and_a_large_command_goes_whole() {
    let server = Server::start(|_, peer| {
        while let Some((command, track)) = peer.command() {
            let length = command["Arguments"]["x"].as_str().unwrap().len();
            peer.ok(&track, &format!("{{\"length\":{length},\"y\":\"{}\"}}", "y".repeat(12 << 20)));
        }
    });
    let mut client = connect(&server, PATIENCE);
    let arguments = json!({ "x": "x".repeat(3 << 20) });
    let arguments = serde_json::value::to_raw_value(&arguments).unwrap();
    let response = client.call("Long", Some(&arguments)).unwrap().unwrap();
    let response: Value = serde_json::from_str(response.get()).unwrap();
    assert_eq!(response["length"], 3 << 20);
    assert_eq!(response["y"].as_str().unwrap().len(), 12 << 20);
}

/// A program against a server at this port.
fn start(args: &[&str], port: u16) -> Program {
    let port = port.to_string();
    let args: Vec<&str> = args.iter().copied().chain(["--port", &port]).collect();
    Program::ocpcan(&args, Path::new(env!("CARGO_TARGET_TMPDIR")))
}

fn contains<'a>(text: &'a str) -> impl Fn(&str) -> Option<()> + 'a {
    move |line| line.contains(text).then_some(())
}

#[test]
fn events_come_as_lines_and_a_lost_server_is_subscribed_to_again() {
    // Three connections: the first is closed after two events, the second is no RCSP, the third stays.
    let server = Server::start(|number, peer| {
        if number == 1 {
            peer.write(b"HTTP/1.1");
            return;
        }
        let (_, track) = peer.command().unwrap();
        peer.write(&message(OK, &format!("{{\"TrackId\":{track}}}")));
        let body = format!(
            "{{\"Publisher\":\"Gateway\",\"Topic\":\"Trip\",\"Data\":{{\"Text\":\"from {number}\\u001b[2J\"}}}}"
        );
        peer.write(&message(EVENT, &body));
        peer.write(&message(EVENT, "{\"Button\":\"SinglePress\"}"));
        if number > 0 {
            peer.until_gone();
        }
    });
    let mut program = start(&["rcsp", "events"], server.port);
    program.wait(0, "the first event", contains("Z Gateway/Trip: from 0?[2J"));
    program.wait(0, "an event of another shape", contains("Z {\"Button\":\"SinglePress\"}"));
    program.wait(0, "the loss", contains("connection lost: closed by the peer; trying again"));
    program.wait(0, "the second loss", contains("begins with 0x48 and not with 0xdc; trying again"));
    program.wait(0, "the way back", contains("subscribed again"));
    program.wait(0, "an event after it", contains("Z Gateway/Trip: from 2?[2J"));
    assert_eq!(program.terminate().code(), Some(0));
    let expected = r#"{"Command":"Subscribe","TrackId":"1","Version":1,"Arguments":{"Publisher":"Gateway","Topic":"*"}}"#;
    assert_eq!(*server.asked(), [expected, expected]);
    let losses = program.output().lines().filter(|line| line.contains("trying again")).count();
    assert_eq!(losses, 2, "{}", program.output());
}

#[test]
fn events_of_devices_carry_their_ids_publisher_and_topic_and_are_listed_anew() {
    let server = Server::start(|number, peer| {
        let (_, track) = peer.command().unwrap();
        peer.ok(
            &track,
            if number == 0 { DEVICES } else { r#"{"Devices":[{"DeviceId":"1.50e2"},{"DeviceId":"can0"}]}"# },
        );
        for _ in 0..2 {
            let (_, track) = peer.command().unwrap();
            peer.ok(&track, "null");
        }
        peer.write(&message(EVENT, &format!("{{ \"number\": {number}.50, \"x\": \"\u{9b}\" }}")));
        if number > 0 {
            peer.until_gone();
        }
    });
    let args = ["rcsp", "events", "1.50e2", "can0", "--topic", "ButtonPushed", "--json"];
    let mut program = start(&args, server.port);
    program.wait(0, "the first event", |line| (line == r#"{"number":0.50,"x":"\u009b"}"#).then_some(()));
    program.wait(0, "the second", |line| (line == r#"{"number":1.50,"x":"\u009b"}"#).then_some(()));
    assert_eq!(program.terminate().code(), Some(0));
    let list = r#"{"Command":"ListDevices","TrackId":"1","Version":1}"#.to_owned();
    let subscribe = |track: u32, device: &str| {
        format!(
            "{{\"Command\":\"DeviceSubscribe\",\"TrackId\":\"{track}\",\"Version\":1,\"Arguments\":{{\"DeviceId\":{device},\
             \"Publisher\":\"DeviceEvents\",\"Topic\":\"ButtonPushed\"}}}}"
        )
    };
    let first = [list.clone(), subscribe(2, "1.50e2"), subscribe(3, "\"can0\"")];
    let second = [list, subscribe(2, "\"1.50e2\""), subscribe(3, "\"can0\"")];
    assert_eq!(*server.asked(), [first, second].concat());
}

#[test]
fn a_subscription_that_is_refused_at_first_ends_the_command() {
    let server = Server::start(|_, peer| plain(peer));
    let output = server.ocpcan(&["rcsp", "events", "--publisher", "P"]);
    expect("events", &output, 1, "", "ocpcan: error 2: un?known\n");
    assert!(server.asked()[0].contains(r#""Arguments":{"Publisher":"P","Topic":"*"}"#));
}

#[test]
fn a_loss_is_told_once_however_long_it_lasts() {
    // Every connection is subscribed, gets its event and is lost.
    let script = |_: usize, peer: &mut Peer| {
        if let Some((_, track)) = peer.command() {
            peer.ok(&track, "null");
            peer.write(&message(EVENT, "1"));
        }
    };
    let server = Server::start(script);
    let port = server.port;
    let mut program = start(&["rcsp", "events"], port);
    let events = |count: usize| {
        until("the events", || (program.output().matches("Z 1").count() >= count).then_some(()));
    };
    events(1);
    program.wait(0, "the loss", contains("connection lost"));
    drop(server);
    program.wait(0, "that nobody is there", contains("cannot connect"));
    // The next calls follow after 1 s and 2 s or more: subscribed, and lost for the same reason.
    let server = Server::at(port, script);
    let before = program.output().matches("Z 1").count();
    events(before + 2);
    drop(server);
    assert_eq!(program.terminate().code(), Some(0));
    for said in ["connection lost: closed", "cannot connect"] {
        let times = program.output().lines().filter(|line| line.contains(said)).count();
        assert_eq!(times, 1, "{said}\n{}", program.output());
    }
    let again = program.output().matches("subscribed again").count();
    assert!((1..=2).contains(&again), "one for each loss that was told\n{}", program.output());
}

#[test]
fn a_reader_of_events_that_leaves_is_no_error() {
    let server = Server::start(|_, peer| {
        let (_, track) = peer.command().unwrap();
        peer.ok(&track, "null");
        // Until the reader's end has been noticed at the other end.
        while peer.stream.write_all(&message(EVENT, "7")).is_ok() {}
    });
    let mut child = Command::new(env!("CARGO_BIN_EXE_ocpcan"))
        .args(["rcsp", "events", "--json", "--port", &server.port.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut two = [0; 2];
    child.stdout.as_mut().unwrap().read_exact(&mut two).unwrap();
    assert_eq!(&two, b"7\n");
    drop(child.stdout.take());
    assert_eq!(until("the end", || child.try_wait().unwrap()).code(), Some(0));
}

const RESPONSE: &str = include_str!("data/status/response.json");
const SCREEN: &str = include_str!("data/status/screen.txt");

/// The status in the file, in this state and with this event as its newest.
fn status(state: &str, event: u32) -> String {
    let mut status: Value = serde_json::from_str(RESPONSE).unwrap();
    status["State"] = json!(state);
    status["Events"] =
        json!([{ "Number": event, "AgeMs": 1, "Topic": "State", "Text": format!("event {event}") }]);
    status.to_string()
}

fn gateway(answer: impl Fn() -> String + Send + Sync + 'static) -> impl Fn(usize, &mut Peer) {
    move |_, peer| {
        while let Some((command, track)) = peer.command() {
            assert_eq!(command["Command"], "GwGetStatus");
            peer.ok(&track, &answer());
        }
    }
}

#[test]
fn status_is_one_screen_and_its_exit_code_is_the_state() {
    let server = Server::start(gateway(|| RESPONSE.to_owned()));
    expect("status", &server.ocpcan(&["status"]), 1, SCREEN, "");
    for (state, code) in [
        ("ARMED", 0),
        ("READY", 0),
        ("INIT", 1),
        ("SAFE", 1),
        ("STANDBY", 1),
        ("STOPPING", 1),
        ("LOCKOUT", 1),
        ("DIAG", 1),
        ("armed", 1),
    ] {
        let server = Server::start(gateway(move || status(state, 1)));
        let output = server.ocpcan(&["status"]);
        assert_eq!(output.status.code(), Some(code), "{state}");
        assert!(out(&output).contains(&format!("\nState      {state} for 2.3 s\n")), "{}", out(&output));
        let output = server.ocpcan(&["status", "--json"]);
        assert_eq!(output.status.code(), Some(code), "{state}");
        assert_eq!(out(&output), format!("{}\n", status(state, 1)));
    }
}

#[test]
fn status_of_a_server_that_is_no_gateway_says_so() {
    let server = Server::start(|_, peer| plain(peer));
    expect("status", &server.ocpcan(&["status"]), 1, "", "ocpcan: error 2: un?known\n");
    let empty = Server::start(gateway(|| "null".to_owned()));
    let output = empty.ocpcan(&["status"]);
    expect("empty", &output, 1, include_str!("data/status/empty.txt"), "");
    let broken = Server::start(|_, peer| {
        let _ = peer.command();
        peer.write(&message(7, "{}"));
        peer.until_gone();
    });
    assert_eq!(broken.ocpcan(&["status"]).status.code(), Some(76));
    let silent = Server::start(|_, peer| peer.until_gone());
    let output = silent.ocpcan(&["status", "--timeout-ms", "200"]);
    let said = format!("ocpcan: 127.0.0.1:{}: no answer within 200 ms\n", silent.port);
    expect("silent", &output, 69, "", &said);
}

#[test]
fn watch_prints_what_is_new_survives_a_restart_and_ends_with_the_last_look() {
    let now = Arc::new(Mutex::new(status("SAFE", 1)));
    let shown = Arc::clone(&now);
    let server = Server::start(gateway(move || shown.lock().unwrap().clone()));
    let port = server.port;
    let mut program = start(&["status", "--watch"], port);
    program.wait(0, "the first screen", contains("event 1"));
    // Several looks at the same status are one screen.
    let asked = server.asked().len();
    until("two more looks", || (server.asked().len() >= asked + 2).then_some(()));
    assert_eq!(program.output().matches("State      SAFE").count(), 1, "{}", program.output());
    *now.lock().unwrap() = status("SAFE", 2);
    program.wait(0, "the event", contains("event 2"));
    *now.lock().unwrap() = status("READY", 2);
    program.wait(0, "the state", contains("State      READY"));
    assert_eq!(program.output().matches("Gateway    ocpcan").count(), 3, "{}", program.output());
    // The gateway restarts: nobody listens, and its last connection is cut.
    let mark = program.mark();
    drop(server);
    program.wait(mark, "the loss", contains("connection lost"));
    program.wait(mark, "that nobody is there", contains("cannot connect"));
    let mark = program.mark();
    let server = Server::at(port, gateway(|| status("ARMED", 3)));
    program.wait(mark, "the way back", contains("event 3"));
    assert_eq!(program.terminate().code(), Some(0), "armed at the last look");
    drop(server);
    let mut program = start(&["status", "--watch"], free_port());
    program.wait(0, "that nobody is there", contains("cannot connect"));
    assert_eq!(program.terminate().code(), Some(69));
}

/// Runs the command on a terminal until what it has drawn satisfies; what was drawn.
fn on_terminal(
    args: &[&str],
    port: u16,
    no_color: Option<&str>,
    is_enough: fn(&str) -> bool,
) -> (String, Option<i32>) {
    let terminal = nix::pty::openpty(None, None).unwrap();
    let (mut master, slave): (std::fs::File, OwnedFd) = (terminal.master.into(), terminal.slave);
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocpcan"));
    command.args(args).args(["--port", &port.to_string()]).env("TERM", "xterm").env_remove("NO_COLOR");
    if let Some(value) = no_color {
        command.env("NO_COLOR", value);
    }
    let mut child = command.stdin(Stdio::null()).stdout(slave).stderr(Stdio::null()).spawn().unwrap();
    drop(command);
    let drawn = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&drawn);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        // The terminal ends with its program.
        while let Ok(n @ 1..) = master.read(&mut buffer) {
            seen.lock().unwrap().extend(&buffer[..n]);
        }
    });
    let text = || String::from_utf8_lossy(&drawn.lock().unwrap()).into_owned();
    let text = until("the picture", || Some(text()).filter(|text| is_enough(text)));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    let _ = nix::sys::signal::kill(pid, Signal::SIGINT);
    let status = until("the end", || child.try_wait().unwrap());
    (text, status.code())
}

#[test]
fn a_terminal_gets_colours_and_one_picture_over_the_other() {
    let server = Server::start(gateway(|| status("ARMED", 1)));
    let coloured = "\u{1b}[1;32mARMED\u{1b}[0m";
    let (text, code) = on_terminal(&["status"], server.port, None, |text| text.ends_with("event 1\r\n"));
    assert!(text.contains(coloured) && !text.contains("\u{1b}[H"), "{text:?}");
    assert_eq!(code, Some(0));
    let (text, code) = on_terminal(&["status", "--watch"], server.port, Some("1"), |text| {
        text.matches("event 1").count() >= 2 && text.ends_with("\u{1b}[J")
    });
    assert!(text.starts_with("\u{1b}[H") && text.matches("\u{1b}[J").count() >= 2, "{text:?}");
    assert!(
        text.contains("State      ARMED for 2.3 s\u{1b}[K\r\n") && !text.contains("\u{1b}[1;"),
        "{text:?}"
    );
    assert_eq!(code, Some(0), "the last look, at the first interrupt");
    drop(server);
    let (text, code) =
        on_terminal(&["status", "--watch"], free_port(), None, |text| text.contains("\u{1b}[J"));
    assert!(text.contains("unreachable since 0 s: 127.0.0.1:"), "{text:?}");
    assert_eq!(code, Some(69));
}

#[test]
fn our_client_and_our_server_understand_each_other() {
    let bench = rcsp::Bench::start();
    let port = bench.address.port();
    expect("list", &ocpcan(port, &["rcsp", "list"]), 0, "can0\necu-brake\n", "");
    let info = ocpcan(port, &["rcsp", "info", "ecu-brake"]);
    expect("info", &info, 0, "DeviceId: ecu-brake\nState: up\n", "");
    let call = ocpcan(port, &["rcsp", "call", "Now", r#"{"a":"\u00e9"}"#, "--json"]);
    expect("call", &call, 0, "{\"a\":\"\u{e9}\"}\n", "");
    expect("call", &ocpcan(port, &["rcsp", "call", "No"]), 1, "", "ocpcan: error 10: not here\n");
    let call = ocpcan(port, &["rcsp", "call", "Big", r#"{"Bytes":200000}"#]);
    assert_eq!((call.status.code(), call.stdout.len() > 200_000), (Some(0), true));
    assert_eq!(ocpcan(port, &["rcsp", "call", "Unknown"]).status.code(), Some(1));
    let refused = ocpcan(port, &["rcsp", "events", "can0", "--topic", "Nothing"]);
    assert_eq!(refused.status.code(), Some(1), "{}", err(&refused));

    let mut all = start(&["rcsp", "events", "--json"], port);
    let mut one = start(&["rcsp", "events", "can0"], port);
    // Both are subscribed once each has seen an event; until then they are published again.
    let seen = |program: &Program, text: &str| program.output().contains(text);
    until("the events", || {
        bench.publish(rcsp::event(None, "Trip", json!({ "Text": "a trip" })));
        bench.publish(rcsp::event(Some("can0"), "BusState", json!({ "State": "BusOff" })));
        bench.publish(rcsp::event(Some("ecu-brake"), "BusState", json!({ "State": "Up" })));
        let is_there = seen(&all, "a trip") && seen(&one, "BusOff");
        is_there.then_some(())
    });
    let line = r#"{"Publisher":"Gateway","Topic":"Trip","Data":{"Text":"a trip"}}"#;
    all.wait(0, "the event", |seen| (seen == line).then_some(()));
    one.wait(0, "the event", contains(r#"Z DeviceEvents/BusState can0: {"State":"BusOff"}"#));
    assert!(!seen(&one, "ecu-brake") && !seen(&all, "BusOff"));
    for program in [&mut all, &mut one] {
        assert_eq!(program.terminate().code(), Some(0), "{}", program.output());
    }
}

#[test]
fn one_client_too_many_is_told_why() {
    let bench = rcsp::Bench::start();
    let clients: Vec<rcsp::Client> = (0..8).map(|_| bench.client()).collect();
    bench.until("eight clients", |counts| counts.connections == 8);
    let output = ocpcan(bench.address.port(), &["rcsp", "list"]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(err(&output).starts_with("ocpcan: error 11: "), "{}", err(&output));
    drop(clients);
}
