//! `ocpcan demo`: OCP simulator, gateway and vehicle in one process, a scripted drive with faults, and a table of how
//! fast each fault was answered.
//!
//! Owns the story: arm, drive, inject a fault with the stick still held, see the safe frames, recover, arm again. Relies
//! on the real gateway threads and on the simulators. Never pretends: every figure is measured in this run, and the
//! exit status says whether every fault was answered within its bound.

#![allow(clippy::disallowed_methods, reason = "a command paces its own story")]

mod observer;
mod screen;
mod story;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::observer::Observer;
use self::screen::Screen;
use self::story::{Beat, Story};
use super::{complain, exit, happening, print};
use crate::config::{self, Config};
use crate::io::canbus::{BusAddress, Hub, Port, PortOptions};
use crate::io::clock;
use crate::io::runtime::BusLock;
use crate::io::tcp::Listener;
use crate::safety::input::Status;
use crate::sim::live::ocp::{LiveOptions, OcpSimHandle};
use crate::sim::live::vehicle::VehicleSim;
use crate::sim::ocp::{Options, command};
use crate::threads::{Gateway, GatewayOptions, ManagementOptions};
use crate::time::{Duration, Instant};
use crate::topology::Event;

/// Shows the whole thing on this machine: no root, no CAN, no files.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long it runs, 10 to 86400 seconds.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    seconds: u64,
    /// The bus it drives: a built-in one, or a vcan interface.
    #[arg(long, value_name = "BUS", default_value = "sim:demo")]
    bus: String,
    /// Writes every frame of the bus as a candump log.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Port at which `ocpcan status` can ask it how it is; 0 is a free one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    rcsp_port: u16,
}

/// Time between two looks at everything: fine enough to measure, coarse enough to leave the CPU to the gateway.
const TURN: Duration = Duration::from_millis(5);

/// The gateway has this long to end after it was asked to.
const END_LIMIT: Duration = Duration::from_secs(3);

const EXAMPLE: &str = include_str!("../../deploy/ocpcan.example.toml");
const EXAMPLE_DBC: &str = include_str!("../../deploy/example.dbc");

/// Runs the command.
pub(super) fn run(args: &Args) -> u8 {
    match Demo::prepare(args).and_then(|demo| demo.run(args)) {
        Ok(code) => code,
        Err((code, text)) => {
            complain(&text);
            code
        }
    }
}

/// Why the demo cannot run: exit code and text.
type Refusal = (u8, String);

fn unavailable(error: impl std::fmt::Display) -> Refusal {
    (exit::UNAVAILABLE, error.to_string())
}

/// Everything that runs.
struct Demo {
    _lock: BusLock,
    hub: Option<Hub>,
    vehicle: VehicleSim,
    ocp: OcpSimHandle,
    gateway: Gateway,
    observer: Observer,
    config: Config,
    /// Where it can be asked how it is.
    rcsp: SocketAddr,
}

impl Demo {
    /// Starts the bus, the vehicle, OCP and the gateway, in this order.
    fn prepare(args: &Args) -> Result<Self, Refusal> {
        let address: BusAddress =
            args.bus.parse().map_err(|error| (exit::USAGE, format!("--bus {}: {error}", args.bus)))?;
        let lock = BusLock::take(&address).map_err(unavailable)?;
        let hub = match &address {
            BusAddress::Sim(name) => Some(Hub::start(name).map_err(|cause| {
                unavailable(crate::io::canbus::OpenError { bus: address.clone(), cause })
            })?),
            BusAddress::Kernel(_) => None,
        };
        let port = Port::open(&address, &PortOptions { fd: false, ..PortOptions::default() })
            .map_err(unavailable)?;
        let is_virtual = port.facts().is_ok_and(|facts| facts.is_virtual);
        if !is_virtual {
            let text = format!("{address} is a physical bus; the demo drives only vcan and built-in buses");
            return Err((exit::USAGE, text));
        }
        let vehicle = VehicleSim::start(&address).map_err(unavailable)?;
        let ocp = OcpSimHandle::start(&LiveOptions::default(), Options::default()).map_err(unavailable)?;
        let config = example(&args.bus, ocp.address())?;
        let observer = Observer::new(port, &config, args.record.as_deref(), &args.bus)
            .map_err(|error| (exit::IO, error))?;
        // A free port of its own: a gateway that drives this machine's vehicle keeps the usual one.
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, args.rcsp_port).into())
            .map_err(|error| unavailable(format!("127.0.0.1:{}: {error} (--rcsp-port)", args.rcsp_port)))?;
        let rcsp = listener.local_address().map_err(unavailable)?;
        let management = ManagementOptions {
            version: super::VERSION,
            config: super::check::effective(&config),
            listener: Some(listener),
        };
        let options =
            GatewayOptions { real_time: true, management: Some(management), ..GatewayOptions::default() };
        let gateway =
            Gateway::start(&config, options).map_err(|error| (exit::SOFTWARE, error.to_string()))?;
        Ok(Self { _lock: lock, hub, vehicle, ocp, gateway, observer, config, rcsp })
    }

    /// Plays the story to its end.
    fn run(mut self, args: &Args) -> Result<u8, Refusal> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(unavailable)?;
        let start = clock::now();
        let end = start + Duration::from_secs(args.seconds);
        let mut story = Story::new(&self.config, start, end, self.hub.is_some());
        let mut screen = Screen::new(start);
        screen.say(start, &format!("ask it how it is: ocpcan status --watch --port {}", self.rcsp.port()));
        let mut status: Option<Status> = None;
        let mut panicked = false;
        while !story.is_over() && signals.pending().next().is_none() {
            let mut event = self.gateway.events.wait(TURN);
            while let Some(one) = event {
                self.gateway.tell(happening::of_event(&one, &self.config));
                match one {
                    Event::Status(newer) => {
                        story.handle_status(clock::now(), &newer, &self.observer);
                        screen.note(&newer);
                        status = Some(newer);
                    }
                    Event::Panicked(_) => panicked = true,
                    _ => {}
                }
                event = self.gateway.events.take();
            }
            let now = clock::now();
            self.observer.collect();
            story.handle_timeout(now, &self.observer);
            while let Some(beat) = story.poll_beat() {
                self.play(&beat, now, &mut screen);
            }
            screen.show(now, story.headline(), status.as_ref(), &self.ocp.snapshot(), &self.observer);
        }
        screen.end();
        let (ended, is_recorded) = self.end();
        let table = story.table();
        let code = print(&table);
        if code != exit::OK {
            return Ok(code);
        }
        if !story.all_answered() || panicked || !ended {
            return Ok(1);
        }
        Ok(if is_recorded { exit::OK } else { exit::IO })
    }

    /// Carries out one beat of the story.
    fn play(&mut self, beat: &Beat, now: Instant, screen: &mut Screen) {
        match beat {
            Beat::Operator(text) => match command::parse(text) {
                Ok(Some(command)) => self.ocp.command(command),
                Ok(None) => {}
                // The story's own words are wrong: a defect, told instead of hidden.
                Err(error) => screen.say(now, &format!("defect: {text}: {error}")),
            },
            Beat::Cable(fault) => {
                if let Some(hub) = &self.hub
                    && hub.set(*fault).is_err()
                {
                    screen.say(now, "defect: the built-in bus does not answer");
                }
            }
            Beat::Say(text) => screen.say(now, text),
        }
    }

    /// Ends the gateway as SIGTERM does, then the simulators. Whether it ended in time, and whether the recording is whole.
    fn end(mut self) -> (bool, bool) {
        self.gateway.shared.request_stop();
        let until = clock::now() + END_LIMIT;
        while !self.gateway.all_ended() && clock::now() < until {
            let _ = self.gateway.events.wait(TURN);
            self.observer.collect();
        }
        let recording = self.observer.end_recording();
        if let Some(error) = &recording {
            complain(&format!("the recording is not complete: {error}"));
        }
        let ended = self.gateway.all_ended();
        // The simulators end after the gateway, so that its last frames have someone to obey them.
        let stopped = self.ocp.stop().is_ok();
        self.vehicle.stop();
        (ended && stopped, recording.is_none())
    }
}

/// The example configuration, driving this bus from this server. Held in memory: the demo needs no files.
fn example(bus: &str, ocp: SocketAddr) -> Result<Config, Refusal> {
    let text = EXAMPLE
        .replace("interface = \"can0\"", &format!("interface = \"{bus}\""))
        .replace("address = \"127.0.0.1:4000\"", &format!("address = \"{ocp}\""));
    config::parse(&text, &[("example.dbc", EXAMPLE_DBC)]).map_err(|problems| {
        let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
        (exit::SOFTWARE, format!("the built-in example is refused: {}", text.join("; ")))
    })
}
