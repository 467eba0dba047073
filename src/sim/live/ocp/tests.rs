//! The simulator on real sockets: a client that answers, the controls, and the ways a connection ends.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;

use super::*;
use crate::proto::ocp::control;
use crate::proto::ocp::frame::Deframer;
use crate::proto::ocp::{Axis, Button, ResponseWriter};
use crate::time::Duration;

/// Longest wait for anything in these tests; reached only when something is broken.
const DEADLINE: Duration = Duration::from_secs(10);

struct Client {
    stream: TcpStream,
    deframer: Deframer,
}

impl Client {
    fn connect(sim: &OcpSimHandle) -> Self {
        let stream = TcpStream::connect(sim.address()).unwrap();
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
