//! `ocpcan assetto` and `ocpcan sim assetto` as a user meets them, with each other and beside Python's acudpclient.
//!
//! Owns the socket in the middle, which gives two readers the same traffic. Relies on the real binary, and on a Python
//! that has acudpclient 1.1.0 (`OCPCAN_PYTHON`, set by `tests/run`), without which the comparison fails.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests start programs and wait with deadlines"
)]

#[path = "common/programs.rs"]
mod programs;

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Output;

use ocpcan::proto::assetto::{CarUpdate, Event};
use programs::{PATIENCE, Program};
use serde_json::Value;

/// What acudpclient 1.1.0 gets wrong, and what this test does about it. None of it is imitated.
///
/// - `elapsed_ms` is read without its sign: the only field that is compared by another rule, below.
/// - Datagram borders are lost: no short, unknown or long datagram goes through here, because nothing right would come
///   behind it. The same for datagrams above 4,096 bytes and AssettoServer's sessions.
/// - Narrow texts that are not ASCII end it: the simulator's model and skin names are ASCII.
/// - Nothing pending is an exception, subscribers fail on Python 3, `packets` is not imported: see the peer.
/// - Chats that it sends begin with a byte order mark and lack their last letter: it sends none here.
const SIGNED: &[&str] = &["elapsed_ms"];

/// The server's last word in this test, so that both readers know their end.
const LAST_VERSION: u8 = 77;

/// A port that was free a moment ago: the readers are told one, and cannot say which they took.
fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn runtime(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("ocpcan-assetto-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

struct Sim {
    program: Program,
    server: String,
    game: String,
}

/// The simulator on free ports.
fn sim(folder: &Path, plugin: u16, script: &str) -> Sim {
    let file = folder.join("script");
    std::fs::write(&file, script).unwrap();
    let (plugin, file) = (format!("127.0.0.1:{plugin}"), file.to_string_lossy().into_owned());
    let arguments = [
        "sim",
        "assetto",
        "--listen",
        "127.0.0.1:0",
        "--game",
        "127.0.0.1:0",
        "--plugin",
        &plugin,
        "--cars",
        "4",
        "--script",
        &file,
    ];
    let program = Program::ocpcan(&arguments, folder);
    let (server, game) = program.wait(0, "its addresses", |line| {
        let words: Vec<&str> = line.strip_prefix("server on ")?.split([',', ' ']).collect();
        Some((words[0].to_owned(), (*words.last()?).to_owned()))
    });
    Sim { program, server, game }
}

fn port(address: &str) -> &str {
    address.rsplit(':').next().unwrap()
}

/// The events among what a program printed.
fn events(program: &Program) -> Vec<Value> {
    let text = program.output();
    text.lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// An event of this name; a stream of lines is looked at before it is read.
fn has_event(name: &'static str) -> impl Fn(&str) -> Option<Value> {
    move |line| {
        let event: Value = line.contains(name).then(|| serde_json::from_str(line).ok())??;
        (event["event"] == name).then_some(event)
    }
}

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/assetto-corsa/{name}.bin")))
        .unwrap()
}

#[test]
fn acudpclient_and_this_program_read_the_same_traffic_alike() {
    let folder = runtime("peer");
    let middle = UdpSocket::bind("127.0.0.1:0").unwrap();
    middle.set_read_timeout(Some(PATIENCE)).unwrap();
    let script = "wait 3000\nchat 0 hello \u{1F697}\ncollide 0 1\ncollide 2\ndisconnect 3\nnext\nwait 300\nconnect 3\n";
    let sim = sim(&folder, middle.local_addr().unwrap().port(), script);
    let ours = Program::ocpcan(&["assetto", "--listen", "0"], &folder);
    let our_port = ours.wait(0, "its port", |line| {
        let address = line.split("listening on UDP ").nth(1)?.split(';').next()?;
        Some(port(address).to_owned())
    });
    let their_port = free_port().to_string();
    let theirs = Program::python("assetto/acudpclient_peer.py", &[&their_port, port(&sim.server)]);
    theirs.wait(0, "ready (is acudpclient there?)", |line| (line == "ready").then_some(()));

    let readers = [our_port, their_port].map(|port| format!("127.0.0.1:{port}"));
    let give = |datagram: &[u8]| {
        for reader in &readers {
            middle.send_to(datagram, reader).unwrap();
        }
    };
    // Until the driver who came back has loaded and was asked about, and every car has moved a while.
    let mut bytes = [0; 8_192];
    let (mut loaded, mut infos, mut updates) = (0, 0, 0);
    while loaded < 5 || infos < 5 || updates < 300 {
        let (len, _) = middle.recv_from(&mut bytes).unwrap();
        give(&bytes[..len]);
        loaded += u32::from(bytes[0] == ocpcan::proto::assetto::id::CLIENT_LOADED);
        infos += u32::from(bytes[0] == ocpcan::proto::assetto::id::CAR_INFO);
        updates += u32::from(bytes[0] == ocpcan::proto::assetto::id::CAR_UPDATE);
    }
    // A lap takes a minute; these are the messages of one, and of everything else.
    for name in
        ["lap_completed", "end_session", "session_info", "client_event_car", "client_event_env", "error"]
    {
        give(&golden(name));
    }
    let mut last = [0; 2];
    Event::Version { proto_version: LAST_VERSION }.encode(&mut last).unwrap();
    give(&last);
    for program in [&ours, &theirs] {
        program.wait(0, "the last event", |line| {
            has_event("ACSP_VERSION")(line).filter(|event| event["proto_version"] == LAST_VERSION)
        });
    }

    let (ours, theirs) = (events(&ours), events(&theirs));
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        let (mut ours, mut theirs) = (ours.clone(), theirs.clone());
        let stamp = ours.as_object_mut().unwrap().remove("timestamp").unwrap();
        assert!(stamp.as_f64().unwrap() > 1_600_000_000.0, "{ours}");
        for key in SIGNED {
            if let Some(value) = theirs.get_mut(key) {
                let unsigned = u32::try_from(value.as_u64().unwrap()).unwrap();
                *value = unsigned.cast_signed().into();
            }
        }
        assert_eq!(ours, theirs);
    }
    let kinds: BTreeSet<&str> = ours.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(kinds.len(), 13, "every message of the protocol: {kinds:?}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn it_asks_what_it_needs_again_after_a_new_session_and_takes_leave() {
    let folder = runtime("loop");
    let plugin = free_port();
    let sim = sim(&folder, plugin, "wait 6000\nnext\n");
    let mut ours = Program::ocpcan(
        &[
            "assetto",
            "--listen",
            &plugin.to_string(),
            "--server",
            &sim.server,
            "--game",
            &sim.game,
            "--interval-ms",
            "50",
        ],
        &folder,
    );
    for name in ["ACSP_SESSION_INFO", "ACSP_CAR_UPDATE", "HandshakeResponse", "RTCarInfo"] {
        ours.wait(0, name, has_event(name));
    }
    ours.wait(0, "a car that is there", |line| {
        has_event("ACSP_CAR_INFO")(line).filter(|info| info["is_connected"] == true)
    });
    ours.wait(0, "a new session", has_event("ACSP_NEW_SESSION"));
    let text = ours.output();
    let mark = text.lines().position(|line| has_event("ACSP_NEW_SESSION")(line).is_some()).unwrap();
    ours.wait(mark, "positions again", has_event("ACSP_CAR_UPDATE"));
    ours.wait(mark, "the session again", has_event("ACSP_SESSION_INFO"));
    ours.wait(mark, "a car again", has_event("ACSP_CAR_INFO"));
    let mark = sim.program.mark();
    assert_eq!(ours.terminate().code(), Some(0), "{}", ours.output());
    sim.program.wait(mark, "the farewell", |line| line.contains("positions not asked for").then_some(()));
    std::fs::remove_dir_all(folder).unwrap();
}

fn send(sim: &Sim, plugin: u16, words: &[&str]) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ocpcan"));
    command.args(["assetto", "send", "--listen", &plugin.to_string(), "--server", &sim.server]).args(words);
    command.output().unwrap()
}

#[test]
fn commands_are_sent_one_by_one_and_those_that_act_on_players_only_on_these_words() {
    let folder = runtime("send");
    let plugin = free_port();
    let sim = sim(&folder, plugin, "");
    sim.program.wait(0, "every car", |line| line.contains("4 on the track").then_some(()));
    let text = |output: &Output| String::from_utf8(output.stdout.clone()).unwrap();

    let info = send(&sim, plugin, &["car-info", "2"]);
    assert_eq!(info.status.code(), Some(0), "{info:?}");
    let last: Value = serde_json::from_str(text(&info).lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["event"], &last["car_id"], &last["is_connected"]),
        (&"ACSP_CAR_INFO".into(), &2.into(), &true.into())
    );
    let wrong = send(&sim, plugin, &["session-info", "99"]);
    assert_eq!(wrong.status.code(), Some(1), "{wrong:?}");
    assert!(text(&wrong).contains("ACSP_ERROR"));

    let refused = send(&sim, plugin, &["kick", "1"]);
    assert_eq!(refused.status.code(), Some(64), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--acts-on-players"));
    for (words, seen) in [
        (&["--acts-on-players", "broadcast", "hello"][..], "to all: hello"),
        (&["chat", "0", "to you", "--acts-on-players"], "to car 0: to you"),
        (&["--acts-on-players", "kick", "1"], "kicked: car 1"),
        (&["--acts-on-players", "admin", "/next_session"], "administrator: /next_session"),
    ] {
        assert_eq!(send(&sim, plugin, words).status.code(), Some(0), "{words:?}");
        sim.program.wait(0, seen, |line| (line == seen).then_some(()));
    }
    sim.program.wait(0, "the next session, without the one who was kicked", |line| {
        (line.starts_with("Qualify") && line.contains("3 on the track")).then_some(())
    });
    let all: BTreeSet<String> = sim.program.output().lines().map(str::to_owned).collect();
    assert_eq!(all.iter().filter(|line| line.starts_with("kicked")).count(), 1);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_is_refused_has_its_exit_code() {
    let run = |words: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ocpcan"));
        command.args(words).output().unwrap().status.code().unwrap()
    };
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert_eq!(run(&["assetto", "--listen", &address]), 69);
    assert_eq!(run(&["sim", "assetto", "--listen", &address, "--no-game"]), 69);
    assert_eq!(run(&["sim", "assetto", "--listen", "127.0.0.1:5", "--script", "/nonexistent"]), 74);
    assert_eq!(run(&["assetto", "--replay", "/nonexistent"]), 74);
    assert_eq!(run(&["assetto", "send", "next", "--acts-on-players"]), 64, "no server");
    assert_eq!(
        run(&[
            "assetto",
            "send",
            "--server",
            "127.0.0.1:9",
            "--listen",
            "0",
            "--timeout-ms",
            "50",
            "car-info",
            "0"
        ]),
        69
    );

    let folder = runtime("replay");
    let file = folder.join("capture");
    std::fs::write(&file, [golden("version"), golden("car_update"), vec![150]].concat()).unwrap();
    assert_eq!(run(&["assetto", "--replay", &file.to_string_lossy()]), 76);
    std::fs::write(&file, [golden("version"), golden("car_update")].concat()).unwrap();
    assert_eq!(run(&["assetto", "--replay", &file.to_string_lossy()]), 0);
    std::fs::remove_dir_all(folder).unwrap();
}

const EXAMPLE: &str = include_str!("../deploy/simulator.example.toml");
const EXAMPLE_DBC: &str = include_str!("../deploy/example.dbc");

/// What a server says of car 0.
fn update(speed_mps: f32) -> Vec<u8> {
    let event = Event::CarUpdate(CarUpdate {
        car_id: 0,
        vel: [speed_mps, 0.0, 0.0],
        gear: 4,
        engine_rpm: 3_000,
        ..CarUpdate::default()
    });
    let mut out = [0; 64];
    let len = event.encode(&mut out).unwrap();
    out[..len].to_vec()
}

/// What the management plane tells of the car.
fn told_of_car(rcsp: &str) -> Value {
    let told = std::process::Command::new(env!("CARGO_BIN_EXE_ocpcan"))
        .args(["rcsp", "info", "car", "--port", rcsp, "--json"])
        .output()
        .unwrap();
    serde_json::from_slice(&told.stdout).unwrap_or(Value::Null)
}

#[test]
fn a_gateway_follows_a_car_tells_when_it_is_stale_and_says_goodbye() {
    let folder = runtime("gateway");
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let stranger = UdpSocket::bind("127.0.0.2:0").unwrap();
    let (listen, rcsp) = (free_port(), free_port().to_string());
    let text = EXAMPLE
        .replace("127.0.0.1:11000", &server.local_addr().unwrap().to_string())
        .replace("127.0.0.1:12000", &format!("127.0.0.1:{listen}"))
        .replace("127.0.0.1:4000", &format!("127.0.0.1:{}", free_port()))
        .replace("sim:demo", &format!("sim:car{}", std::process::id()));
    let config = folder.join("simulator.toml");
    std::fs::write(&config, format!("{text}\n[rcsp]\nlisten = \"127.0.0.1:{rcsp}\"\n")).unwrap();
    std::fs::write(folder.join("example.dbc"), EXAMPLE_DBC).unwrap();
    let mut gateway = Program::ocpcan(&["run", "--config", config.to_str().unwrap()], &folder);
    let mut bytes = [0; 64];
    let mut question =
        || server.recv_from(&mut bytes).map(|(len, from)| (bytes[..len].to_vec(), from)).unwrap();
    let (first, plugin) = question();
    assert_eq!((first, plugin.port()), (vec![204, 0xff, 0xff], listen), "asked from where it listens");
    gateway.wait(0, "that it can be asked", |line| line.contains("`ocpcan status` can ask").then_some(()));

    // A stranger, half an update and an infinite speed come between; each is counted and nothing more.
    let live = programs::until("a live car", || {
        stranger.send_to(&update(99.0), plugin).unwrap();
        server.send_to(&update(f32::INFINITY), plugin).unwrap();
        server.send_to(&update(99.0)[..20], plugin).unwrap();
        server.send_to(&update(20.0), plugin).unwrap();
        let told = told_of_car(&rcsp);
        (told["State"] == "Live").then_some(told)
    });
    assert_eq!(
        (&live["Values"]["speed_kph"], &live["Values"]["gear"]),
        (&72.0.into(), &3.0.into()),
        "{live}"
    );
    for name in ["NotFinite", "NotUnderstood", "OtherHosts", "FramesSent"] {
        assert!(live[name].as_u64().unwrap() > 0, "{name}: {live}");
    }

    // The updates end.
    gateway.wait(0, "that it is stale", |line| line.contains("car 0 is STALE: no update for").then_some(()));
    let stale = told_of_car(&rcsp);
    assert_eq!(stale["State"], "Stale");
    let sent = stale["FramesSent"].as_u64().unwrap();
    programs::until("a question for positions", || (question().0[0] == 200).then_some(()));
    assert_eq!(told_of_car(&rcsp)["FramesSent"].as_u64(), Some(sent), "none meanwhile");
    // A server that is known to be no AssettoServer is told that nothing more is wanted.
    server.send_to(&golden("session_info"), plugin).unwrap();
    programs::until("that it was heard", || {
        (told_of_car(&rcsp)["Messages"].as_u64() > stale["Messages"].as_u64()).then_some(())
    });

    gateway.terminate();
    let last = programs::until("the last word", || Some(question().0).filter(|word| *word == [200, 0, 0]));
    assert_eq!(last, [200, 0, 0]);
}
