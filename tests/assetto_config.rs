//! The configuration of a simulated car: what is accepted, what is refused, and that no value of a simulator gets into a
//! frame that commands.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use ocpcan::config::{self, Config, Problem};
use ocpcan::signals::car::{CarFeed, Value, WantedCar};
use ocpcan::signals::plan::ReportSource;
use ocpcan::signals::source::Source;
use ocpcan::time::Duration;

const EXAMPLE: &str = include_str!("../deploy/simulator.example.toml");
const DBC: &str = include_str!("../deploy/example.dbc");

fn load(text: &str) -> Result<Config, Vec<Problem>> {
    config::parse(text, &[("example.dbc", DBC)])
}

/// The example with some of its text replaced; each must be there once.
fn changed(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(EXAMPLE.to_owned(), |text, (from, to)| {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        text.replace(from, to)
    })
}

/// One problem, at this key, with these words.
#[track_caller]
fn refused(changes: &[(&str, &str)], key: &str, says: &[&str]) {
    let problems = load(&changed(changes)).unwrap_err();
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 1, "{told:#?}");
    assert_eq!(problems[0].key, key, "{told:#?}");
    for words in says {
        assert!(told[0].contains(words), "{words:?} is not in {told:#?}");
    }
}

#[test]
fn the_example_means_what_it_says() {
    let config = load(EXAMPLE).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let car = config.car.as_ref().unwrap();
    assert_eq!(
        car.settings.feed,
        CarFeed::Server {
            server: "127.0.0.1:11000".parse().unwrap(),
            listen: "127.0.0.1:12000".parse().unwrap(),
            car: WantedCar::Slot(0),
        }
    );
    assert_eq!(car.settings.stale_after(), Duration::from_millis(150));
    assert!(!car.on_real_bus);
    let names: Vec<&str> = car.send.iter().map(|frame| frame.name.as_str()).collect();
    assert_eq!(names, ["VEHICLE_STATE", "VEHICLE_POS"]);
    let sources: Vec<Source> = car.send[0].signals.iter().map(|signal| signal.source).collect();
    let of = |value: Value| Source::Car(value as u8);
    assert_eq!(sources, [of(Value::SpeedKph), Source::Constant(0.0), of(Value::Gear)]);
    assert!(car.send.iter().all(|frame| frame.enable.is_none()));
    assert!(config.plan.report.iter().any(|field| field.from == ReportSource::Car(Value::Rpm)));
    assert_eq!(config.plan.send.len(), 1, "what the car sends is none of the watchdog's");
    assert!(config.warnings.iter().any(|warning| warning.contains("before a real vehicle is on the bus")));
}

#[test]
fn no_value_of_a_simulator_gets_into_a_command() {
    let to = [("source = \"axes.right_trigger\"", "source = \"assetto.throttle\"")];
    refused(&to, "send.DRIVE_CMD.signals.THROTTLE_CMD.source", &["can never move anything"]);
    let to = [("switch = \"buttons.start\"", "switch = \"assetto.gear\"")];
    refused(&to, "arm.switch", &["can never move anything"]);
    // And no command into the frames of the car.
    let to = [("source = \"assetto.speed_kph\" }", "source = \"axes.left_x\" }")];
    refused(
        &to,
        "assetto.send.VEHICLE_STATE.signals.SPEED_KPH.source",
        &["a simulated car sends its own values"],
    );
    let to = [(
        "[assetto.send.VEHICLE_POS]",
        "[assetto.send.DRIVE_CMD]\nenable = { signal = \"DRIVE_ENABLE\" }\n[assetto.send.VEHICLE_POS]",
    )];
    let problems = load(&changed(&to)).unwrap_err();
    assert!(problems.iter().any(|p| p.key == "assetto.send.DRIVE_CMD.enable"), "{problems:#?}");
    let frame = "[assetto.send.DRIVE_CMD.signals]\nSTEER_ANGLE_CMD = { value = 0 }\nTHROTTLE_CMD = { value = 0 }\n\
                 BRAKE_CMD = { value = 0 }\nDRIVE_ENABLE = { value = 0 }\nDRIVE_CMD_COUNTER = { value = 0 }\n\
                 DRIVE_CMD_CRC = { value = 0 }\n\n[assetto.send.VEHICLE_POS]";
    refused(&[("[assetto.send.VEHICLE_POS]", frame)], "assetto", &["DRIVE_CMD is sent as send.DRIVE_CMD"]);
}

#[test]
fn values_that_the_feed_does_not_give_are_named() {
    let to = [("\"assetto.rpm\"", "\"assetto.steer\"")];
    refused(&to, "report.user_data.rpm", &["only a game tells it", "assetto.game"]);
    let to = [("\"assetto.rpm\"", "\"assetto.rmp\"")];
    refused(&to, "report.user_data.rpm", &["there is no assetto.rmp", "assetto.rpm"]);
    let map = "[assetto.map]                   # where the track lies on the earth, for lat and lon\nlat = 47.2197                   # of the world's origin, degrees\nlon = 14.7647\n";
    let problems = load(&changed(&[(map, "")])).unwrap_err();
    assert_eq!(problems.len(), 4, "two signals and two of the report: {problems:#?}");
    assert!(problems.iter().all(|problem| problem.to_string().contains("[assetto.map]")));
}

#[test]
fn feeds_that_cannot_be_meant_are_refused() {
    let server = "server = \"127.0.0.1:11000\"";
    let listen = "listen = \"127.0.0.1:12000\"";
    refused(&[(server, "server = \"localhost:11000\"")], "assetto.server", &["an IP address and a port"]);
    refused(&[(server, "server = \"0.0.0.0:11000\"")], "assetto.server", &["no address of one host"]);
    refused(
        &[(server, "server = \"10.0.0.7:11000\"")],
        "assetto.listen",
        &["cannot reach the loopback address"],
    );
    refused(&[(listen, "listen = \"127.0.0.1:11000\"")], "assetto.listen", &["the two must differ"]);
    refused(&[(server, "")], "assetto.server", &["(or `game`)"]);
    refused(
        &[(server, "server = \"127.0.0.1:11000\"\ngame = \"127.0.0.1\"")],
        "assetto.game",
        &["only one of"],
    );
    refused(&[("car = 0 ", "car = 255 ")], "assetto.car", &["0 to 254"]);
    refused(&[("car = 0 ", "car = 0\ndriver_name = \"Anna\" ")], "assetto", &["only one of `car`"]);
    refused(&[("interval_ms = 50", "interval_ms = 9")], "assetto.interval_ms", &["10 to 1000"]);
    refused(&[("lat = 47.2197 ", "lat = 89 ")], "assetto.map.lat", &["-85 to 85"]);
    refused(&[("lon = 14.7647", "lon = 14.7647\nnorth = 1")], "assetto.map.north", &["unknown key"]);
    let to = [("[assetto.map]", "on_real_bus = true\n[assetto.map]")];
    refused(&to, "assetto.on_real_bus", &["VEHICLE_STATE is also this gateway's feedback"]);
    let to = [("SPEED_KPH = { source = \"assetto.speed_kph\" }", "SPEED_KPH = { value = 0 }")];
    refused(&to, "assetto", &["VEHICLE_STATE: [standstill] reads it"]);
    let to = [("GEAR = { source", "GEAR = { kind = \"brake\", source")];
    refused(&to, "assetto.send.VEHICLE_STATE.signals.GEAR.kind", &["tells how it is"]);
}

#[test]
fn a_game_is_asked_at_its_usual_port_and_gives_pedals() {
    let text = changed(&[
        ("server = \"127.0.0.1:11000\"", "game = \"192.168.1.20\"\n# server"),
        ("listen = \"127.0.0.1:12000\"", "# listen"),
        ("car = 0 ", "# car "),
        ("STEER_ANGLE = { value = 0 }", "STEER_ANGLE = { source = \"assetto.steer\", range = [-1, 1] }"),
    ]);
    let config = load(&text).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let car = config.car.unwrap();
    assert_eq!(car.settings.feed, CarFeed::Game { game: "192.168.1.20:9996".parse().unwrap() });
    let steer = &car.send[0].signals[1];
    assert_eq!((steer.source, steer.min, steer.max), (Source::Car(Value::Steer as u8), -450.0, 450.0));
}

#[test]
fn a_tunnel_lets_nobody_send_the_cars_frames() {
    let pos = "[report.pos]";
    let tunnel = "[tcpcan.vehicle]\nlisten = \"127.0.0.1:20010\"\n[tcpcan.vehicle.inject]\nalways = [0x202]\n\n[report.pos]";
    refused(
        &[(pos, tunnel)],
        "tcpcan.vehicle.inject.always[0]",
        &["VEHICLE_POS, which only the gateway may send"],
    );
}
