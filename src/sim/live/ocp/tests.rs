//! The simulator on real sockets: a client that answers, the controls, and the ways a connection ends.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;

use super::*;
use crate::proto::ocp::frame::Deframer;
use crate::proto::ocp::{Axis, Button, ResponseWriter};
use crate::proto::ocp::{control, player};
use crate::time::Duration;

/// Longest wait for anything in these tests; reached only when something is broken.
const DEADLINE: Duration = Duration::from_secs(10);

struct Client {
    stream: TcpStream,
    deframer: Deframer,
}

impl Client {
    fn connect(sim: &OcpSimHandle) -> Self {
        Self::to(sim.address())
    }

    fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, deframer: Deframer::new() }
    }

    /// Answers messages until one fits, or the connection ends.
    fn until(
        &mut self,
        what: &str,
        mut fits: impl FnMut(&control::ControlMessage<'_>) -> bool,
    ) -> io::Result<()> {
        let end = clock::now() + DEADLINE;
        loop {
            assert!(clock::now() < end, "never came: {what}");
            while let Some(body) = self.deframer.poll_frame().unwrap() {
                let message = control::decode(body).unwrap();
                let mut buffer = [0; 512];
                let response = ResponseWriter::new(&mut buffer, message.ack_time, message.ack_time_mac)
                    .unwrap()
                    .finish(None);
                let fitted = fits(&message);
                self.stream.write_all(response.frame)?;
                if fitted {
                    return Ok(());
                }
            }
            let n = self.stream.read(self.deframer.spare())?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.deframer.commit(n);
        }
    }
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = clock::now() + DEADLINE;
    while !is_so() {
        assert!(clock::now() < end, "never came: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_client_is_served_and_commands_reach_it() {
    let sim = OcpSimHandle::start(&LiveOptions::default(), Options::default()).unwrap();
    let mut client = Client::connect(&sim);
    client.until("the loop closes", |m| m.telemetry.latency_ms > 0.0 && !m.telemetry.fault).unwrap();
    sim.say("axis left_x 0.25").unwrap();
    sim.command(Command::Press(Button::Start));
    client
        .until("the command", |m| {
            m.controller.is_some_and(|c| c.axis(Axis::LeftX) == 0.25 && c.pressed(Button::Start))
        })
        .unwrap();
    sim.say("fault HighLatency on").unwrap();
    client.until("the fault", |m| m.telemetry.fault).unwrap();
    let seen = sim.snapshot();
    assert!(seen.is_connected && seen.responses > 3 && seen.bad_responses == 0 && seen.bad_macs == 0);
    sim.say("nonsense").unwrap_err();
    sim.stop().unwrap();
}

#[test]
fn connections_end_in_order_by_reset_and_by_restart() {
    let sim = OcpSimHandle::start(&LiveOptions::default(), Options::default()).unwrap();
    for (line, want) in [
        ("close", io::ErrorKind::UnexpectedEof),
        ("rst", io::ErrorKind::ConnectionReset),
        ("restart", io::ErrorKind::UnexpectedEof),
    ] {
        let before = sim.snapshot().responses;
        let mut client = Client::connect(&sim);
        client.until("a message", |_| true).unwrap();
        // Nothing of ours is under way when the connection ends.
        wait_for("our answer", || sim.snapshot().responses > before);
        sim.say(line).unwrap();
        let end = loop {
            let mut buffer = [0; 4_096];
            match client.stream.read(&mut buffer) {
                Ok(0) => break io::ErrorKind::UnexpectedEof,
                Ok(_) => {}
                Err(error) => break error.kind(),
            }
        };
        assert_eq!(end, want, "{line}");
        wait_for("the server's own view", || !sim.snapshot().is_connected);
    }
    assert_eq!(sim.snapshot().connections, 3);
}

#[test]
fn the_port_closes_and_opens_again() {
    let sim = OcpSimHandle::start(&LiveOptions::default(), Options::default()).unwrap();
    sim.say("listen off").unwrap();
    wait_for("refusal", || TcpStream::connect(sim.address()).is_err());
    sim.say("listen on").unwrap();
    wait_for("the port", || TcpStream::connect(sim.address()).is_ok());
}

#[test]
fn the_control_port_answers_line_by_line() {
    let live = LiveOptions { control: Some(SocketAddr::from(([127, 0, 0, 1], 0))), ..LiveOptions::default() };
    let sim = OcpSimHandle::start(&live, Options::default()).unwrap();
    let mut control = TcpStream::connect(sim.control_address().unwrap()).unwrap();
    control.set_read_timeout(Some(DEADLINE)).unwrap();
    control.write_all(b"fault CameraLost on\nfly\nwait 30\nstatus\nquit\n").unwrap();
    let lines: Vec<_> = BufReader::new(control).lines().map_while(Result::ok).collect();
    assert_eq!(lines.first().map(String::as_str), Some("ok"));
    assert!(lines.iter().any(|line| line.starts_with("error: unknown command")));
    let status: serde_json::Value =
        serde_json::from_str(lines.iter().find(|l| l.starts_with('{')).unwrap()).unwrap();
    assert!(status["faults"].as_array().unwrap().contains(&serde_json::json!("Camera Lost")));
    sim.wait().unwrap();
}

#[test]
fn a_script_runs_and_ends_the_simulator() {
    let live = LiveOptions {
        script: "axis right_y -1\nwait 1000\n".to_owned(),
        ends_with_script: true,
        ..LiveOptions::default()
    };
    let sim = OcpSimHandle::start(&live, Options::default()).unwrap();
    let mut client = Client::connect(&sim);
    let ended = client.until("the script's end", |_| false).unwrap_err();
    assert!(matches!(
        ended.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    ));
    sim.wait().unwrap();
    let bad = LiveOptions { script: "neutral\nfly\n".to_owned(), ..LiveOptions::default() };
    let error = OcpSimHandle::start(&bad, Options::default()).unwrap_err();
    assert!(error.to_string().contains("script line 2"), "{error}");
    let open = LiveOptions { control: Some(SocketAddr::from(([0, 0, 0, 0], 0))), ..LiveOptions::default() };
    assert_eq!(
        OcpSimHandle::start(&open, Options::default()).unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
}

#[test]
fn a_client_that_does_not_read_loses_whole_messages_only() {
    let sim = OcpSimHandle::start(&LiveOptions::default(), Options::default()).unwrap();
    let mut client = Client::connect(&sim);
    sim.say("rate 20000").unwrap();
    wait_for("back pressure", || sim.events().try_iter().any(|(_, _, event)| event == Event::BackPressure));
    sim.say("rate auto").unwrap();
    // Whatever was lost, what comes is whole: `until` decodes every frame.
    let mut n = 0;
    client
        .until("messages after the loss", |_| {
            n += 1;
            n > 2_000
        })
        .unwrap();
}

/// An operator's software at the Player: returns every vehicle's acks.
struct Station {
    stream: TcpStream,
    deframer: Deframer,
}

impl Station {
    fn connect(sim: &OcpSimHandle) -> Self {
        let stream = TcpStream::connect(sim.player_address().unwrap()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, deframer: Deframer::new() }
    }

    /// Answers feedback until one fits, or the connection ends.
    fn until(
        &mut self,
        what: &str,
        active: &str,
        mut fits: impl FnMut(&player::Feedback) -> bool,
    ) -> io::Result<()> {
        let end = clock::now() + DEADLINE;
        loop {
            assert!(clock::now() < end, "never came: {what}");
            while let Some(body) = self.deframer.poll_frame().unwrap() {
                let feedback = player::decode_feedback(body).unwrap();
                let data = |vehicle: &player::VehicleFeedback| player::ClientVehicle {
                    user_data: serde_json::json!({ "site": "north" }),
                    ocp_disable_gamepad: None,
                    returned: Some((vehicle.ack_time, vehicle.ack_time_mac)),
                };
                let vehicles = feedback.vehicles.iter().map(|(name, vehicle)| (name.clone(), data(vehicle)));
                let message = player::ClientMessage {
                    active_vehicle: Some(active.to_owned()),
                    vehicles: vehicles.collect(),
                };
                self.stream.write_all(&message.frame().unwrap())?;
                if fits(&feedback) {
                    return Ok(());
                }
            }
            let n = self.stream.read(self.deframer.spare())?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.deframer.commit(n);
        }
    }
}

fn with_player(names: &[&str]) -> OcpSimHandle {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let live = LiveOptions { listen: vec![any; names.len()], player: Some(any), ..LiveOptions::default() };
    let vehicles = names.iter().map(|name| (*name).to_owned()).collect();
    OcpSimHandle::start(&live, Options { vehicles, ..Options::default() }).unwrap()
}

#[test]
fn a_station_and_two_gateways_meet_in_the_simulator() {
    let sim = with_player(&["loader", "dumper"]);
    let addresses: Vec<_> = sim.vehicles().map(|(_, address)| address).collect();
    assert_eq!(addresses.len(), 2);
    let mut gateways = addresses.iter().map(|address| Client::to(*address));
    let (mut loader, mut dumper) = (gateways.next().unwrap(), gateways.next().unwrap());
    let mut station = Station::connect(&sim);
    let (done_tx, done) = bounded::<()>(0);
    std::thread::scope(|scope| {
        let gateways = [&mut loader, &mut dumper];
        for gateway in gateways {
            let done = done.clone();
            // A gateway that answers until the test is over.
            scope.spawn(move || {
                let is_over =
                    || matches!(done.try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected));
                while !is_over() {
                    gateway.until("a message", |_| true).unwrap();
                }
            });
        }
        let closed = |feedback: &player::Feedback, active: &str, other: &str| {
            let [active, other] = [active, other].map(|name| &feedback.vehicles[name]);
            active.sender_fault.is_empty()
                && active.receiver_fault.is_empty()
                && active.ack_time > 0
                && other.ack_time > 0
                && other.sender_fault == ["Vehicle Control Inactive"]
        };
        station.until("the first", "loader", |feedback| closed(feedback, "loader", "dumper")).unwrap();
        station.until("the second", "dumper", |feedback| closed(feedback, "dumper", "loader")).unwrap();
        drop(done_tx);
    });
    dumper.until("the gamepad", |m| m.controller.is_some()).unwrap();
    loader
        .until("the data", |m| {
            let data = m.client_user_data.map(|raw| String::from_utf8_lossy(raw).into_owned());
            m.controller.is_none() && data.is_some_and(|data| data.contains("north"))
        })
        .unwrap();
    let seen = sim.overview();
    assert_eq!(seen.player.lock.to_string(), "TCP");
    assert!(seen.vehicles.iter().all(|(_, vehicle)| vehicle.bad_macs == 0 && vehicle.responses > 0));
    sim.stop().unwrap();
}

#[test]
fn the_players_port_closes_opens_and_restarts() {
    let sim = with_player(&["loader"]);
    let address = sim.player_address().unwrap();
    let mut station = Station::connect(&sim);
    station.until("feedback", "loader", |_| true).unwrap();
    sim.say("player rst").unwrap();
    let error = station.until("the end", "loader", |_| false).unwrap_err();
    assert!([io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe].contains(&error.kind()), "{error:?}");
    sim.say("player listen off").unwrap();
    wait_for("refusal", || TcpStream::connect(address).is_err());
    assert!(TcpStream::connect(sim.address()).is_ok(), "the vehicle's is another port");
    sim.say("player listen on").unwrap();
    wait_for("the port", || TcpStream::connect(address).is_ok());
    sim.say("vehicle crane close").unwrap_err();
    sim.say("vehicle loader close").unwrap();
    sim.stop().unwrap();
}

#[test]
fn a_gamepad_can_be_given_from_outside() {
    let sim = OcpSimHandle::start(&LiveOptions::default(), Options::default()).unwrap();
    let mut client = Client::connect(&sim);
    let held = Controller { buttons: Button::B.mask(), ..Controller::NEUTRAL };
    sim.set_controller(Some(held));
    client.until("the gamepad", |m| m.controller == Some(held)).unwrap();
    sim.set_controller(None);
    client.until("no gamepad", |m| m.controller.is_none()).unwrap();
}

#[test]
fn a_station_that_does_not_read_loses_whole_messages() {
    let sim = with_player(&["loader"]);
    let mut station = Station::connect(&sim);
    sim.say("vehicle loader close").unwrap();
    // Messages of 16 KiB fill the buffers soon.
    sim.say("player inject largest x5000").unwrap();
    wait_for("back pressure", || sim.events().try_iter().any(|(_, _, event)| event == Event::BackPressure));
    // Whatever was lost, what comes is whole: `until` decodes every frame.
    let mut n = 0;
    station
        .until("messages after the loss", "loader", |_| {
            n += 1;
            n > 300
        })
        .unwrap();
    sim.stop().unwrap();
}
