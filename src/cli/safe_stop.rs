//! `ocpcan safe-stop`: one counter cycle of safe frames, then the end.
//!
//! For `ExecStopPost=` and supervisors, after the gateway is dead. Owns its own short sending loop. Relies on
//! `safety::transmit` for the frames and on the last counters that the gateway left. Refuses to write while a gateway
//! holds the bus: two writers would look like an attack to both.

#![allow(clippy::disallowed_methods, reason = "a command waits for its own echoes")]

use std::path::PathBuf;

use super::{DEFAULT_CONFIG, complain, exit, print};
use crate::config::{self, Config};
use crate::io::canbus::{Accept, Port, PortOptions};
use crate::io::clock;
use crate::io::runtime::{BusLock, LastCounters, RuntimeDirectory};
use crate::safety::envelope::Envelope;
use crate::safety::transmit::{Enable, Transmitter, Written};
use crate::time::Duration;

/// Sends one counter cycle of safe frames and exits; for supervisors, after the gateway has died.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file.
    #[arg(long, short, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

/// One cycle of a 4-bit counter: whatever the receiver saw last, it sees the whole cycle.
const CYCLE: usize = 16;

/// An echo that does not come in this time does not come: the bus is dead and so is this attempt.
const ECHO_LIMIT: Duration = Duration::from_millis(10);

/// Runs the command.
pub(super) fn run(args: &Args) -> u8 {
    let config = match config::load(&args.config) {
        Ok(config) => config,
        Err(problems) => {
            for problem in problems {
                complain(&problem.to_string());
            }
            return exit::CONFIG;
        }
    };
    match send_cycle(&config) {
        Ok((sent, echoed)) => {
            let code = print(&format!("safe-stop: {sent} safe frames sent, {echoed} confirmed\n"));
            if sent > 0 && echoed == 0 { exit::UNAVAILABLE } else { code }
        }
        Err(text) => {
            complain(&text);
            exit::UNAVAILABLE
        }
    }
}

/// Sends the cycle on every bus. Returns frames sent and echoed.
fn send_cycle(config: &Config) -> Result<(u32, u32), String> {
    let plan = &config.plan;
    let mut ports = Vec::new();
    let mut locks = Vec::new();
    for (index, bus) in plan.buses.iter().enumerate() {
        let address = bus.interface.parse().map_err(|error| format!("{}: {error}", bus.interface))?;
        locks.push(BusLock::take(&address).map_err(|error| error.to_string())?);
        let ids = plan.send.iter().filter(|send| send.bus == index).map(|send| send.id).collect();
        let options = PortOptions {
            accept: Accept::Only(ids),
            own_messages: true,
            fd: bus.fd,
            priority6: true,
            ..PortOptions::default()
        };
        ports.push(Port::open(&address, &options).map_err(|error| error.to_string())?);
    }
    let mut tx = Transmitter::new(plan, &last_counters(config));
    let envelope = Envelope::new(plan);
    let (mut sent, mut echoed) = (0, 0);
    for _ in 0..CYCLE {
        tx.hurry();
        let mut from = 0;
        let now = clock::now();
        while let Ok(Some(next)) = tx.poll(from, now, ECHO_LIMIT, &envelope, Enable::Off, |_| true) {
            from = next.message + 1;
            let taken = ports.get(next.bus).is_some_and(|port| port.try_send(&next.frame).is_ok());
            sent += u32::from(taken);
            tx.handle_written(now, &next, if taken { Written::Accepted } else { Written::Full });
        }
        echoed += await_echoes(&mut tx, &ports);
    }
    drop(locks);
    Ok((sent, echoed))
}

/// Waits for the echoes of what is in flight.
fn await_echoes(tx: &mut Transmitter, ports: &[Port]) -> u32 {
    let until = clock::now() + ECHO_LIMIT;
    let mut echoed = 0;
    while tx.any_in_flight() && clock::now() < until {
        for (bus, port) in ports.iter().enumerate() {
            while let Ok(Some(received)) = port.recv(Some(Duration::from_millis(1))) {
                if received.own && tx.handle_echo(received.at, bus, &received.frame).is_some() {
                    echoed += 1;
                }
                if !tx.any_in_flight() {
                    break;
                }
            }
        }
    }
    echoed
}

/// Where the dead gateway's counters stood, plus one; zero where nothing is known.
pub(super) fn last_counters(config: &Config) -> Vec<u32> {
    let left = RuntimeDirectory::open().ok().and_then(|directory| LastCounters::open(&directory).ok());
    config
        .plan
        .send
        .iter()
        .map(|send| {
            let bus = u8::try_from(send.bus).unwrap_or(u8::MAX);
            let last = left.as_ref().and_then(|left| left.recall(bus, send.id));
            match (last, send.counter) {
                (Some(last), Some(counter)) => counter.next(u32::from(last)),
                _ => 0,
            }
        })
        .collect()
}
