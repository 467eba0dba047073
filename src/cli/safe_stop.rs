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
use crate::signals::plan::BusPlan;
use crate::time::Duration;

/// Sends one counter cycle of safe frames and exits; for supervisors, after the gateway has died.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file.
    #[arg(long, short, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

/// Frames of each message at least: one cycle of a 4-bit counter. A longer counter has its own whole cycle, so that
/// whatever the receiver saw last, it sees the number after it.
const SHORTEST: u32 = 16;

/// Frames of each message at most: what remains of the last process tells the low byte of a wider counter.
const LONGEST: u32 = 256;

/// An echo that does not come in this time does not come: the bus is dead and so is this attempt.
const ECHO_LIMIT: Duration = Duration::from_millis(10);

/// Runs the command.
pub(super) fn run(args: &Args) -> u8 {
    // systemd calls `ExecStopPost=` also where the unit's condition was not met: no gateway ran, and nothing is configured.
    if std::env::var_os("SERVICE_RESULT").is_some_and(|result| result == "exec-condition") {
        return exit::OK;
    }
    let config = match config::load(&args.config) {
        Ok(config) => config,
        Err(problems) => {
            for problem in problems {
                complain(&problem.to_string());
            }
            return exit::CONFIG;
        }
    };
    let (ports, _locks) = open_buses(&config);
    let (sent, echoed) = send_cycle(&config, &ports);
    let code = print(&format!("safe-stop: {sent} safe frames sent, {echoed} confirmed\n"));
    // A bus that was not reached was named; the others had their frames all the same.
    let all_reached = config.plan.send.iter().all(|send| ports.get(send.bus).is_some_and(Option::is_some));
    if all_reached && echoed > 0 { code } else { exit::UNAVAILABLE }
}

/// Opens every bus that has frames to send and that no gateway drives. One that is missing must not keep the safe
/// frames from the others: it is named and left out.
fn open_buses(config: &Config) -> (Vec<Option<Port>>, Vec<BusLock>) {
    let plan = &config.plan;
    let mut locks = Vec::new();
    let mut open = |index: usize, bus: &BusPlan| -> Result<Port, String> {
        let address = bus.interface.parse().map_err(|error| format!("{}: {error}", bus.interface))?;
        let lock = BusLock::take(&address).map_err(|error| error.to_string())?;
        let ids = plan.send.iter().filter(|send| send.bus == index).map(|send| send.id).collect();
        let options = PortOptions {
            accept: Accept::Only(ids),
            own_messages: true,
            fd: bus.fd,
            priority6: true,
            ..PortOptions::default()
        };
        let port = Port::open(&address, &options).map_err(|error| error.to_string())?;
        locks.push(lock);
        Ok(port)
    };
    let ports = plan
        .buses
        .iter()
        .enumerate()
        .map(|(index, bus)| {
            let is_needed = plan.send.iter().any(|send| send.bus == index);
            is_needed.then(|| open(index, bus).map_err(|text| complain(&text)).ok()).flatten()
        })
        .collect();
    (ports, locks)
}

/// Sends the cycle on every open bus. Returns frames sent and echoed.
fn send_cycle(config: &Config, ports: &[Option<Port>]) -> (u32, u32) {
    let plan = &config.plan;
    let port = |bus: usize| ports.get(bus).and_then(Option::as_ref);
    let mut tx = Transmitter::new(plan, &last_counters(config));
    let envelope = Envelope::new(plan);
    let mut last = vec![None; plan.send.len()];
    let longest = plan.send.iter().filter_map(|send| send.counter).map(|counter| counter.modulo).max();
    let (mut sent, mut echoed) = (0, 0);
    for round in 0..longest.unwrap_or(SHORTEST).clamp(SHORTEST, LONGEST) {
        if round >= SHORTEST && echoed == 0 {
            break;
        }
        tx.hurry();
        let mut from = 0;
        let now = clock::now();
        while let Ok(Some(next)) =
            tx.poll(from, now, ECHO_LIMIT, &envelope, Enable::Off, |bus| port(bus).is_some())
        {
            from = next.message + 1;
            let taken = port(next.bus).is_some_and(|port| port.try_send(&next.frame).is_ok());
            if taken {
                sent += 1;
                if let Some(slot) = last.get_mut(next.message) {
                    *slot = Some(next.counter);
                }
            }
            tx.handle_written(now, &next, if taken { Written::Accepted } else { Written::Full });
        }
        echoed += await_echoes(&mut tx, ports);
    }
    keep_counters(config, &last);
    (sent, echoed)
}

/// Where the gateway of these buses left its counters.
fn runtime(config: &Config) -> Option<RuntimeDirectory> {
    RuntimeDirectory::open().ok().map(|directory| directory.of(config.plan.interfaces()))
}

/// The gateway that starts next goes on from here.
fn keep_counters(config: &Config, last: &[Option<u32>]) {
    if last.iter().all(Option::is_none) {
        return;
    }
    let Some(file) = runtime(config).and_then(|directory| LastCounters::create(&directory).ok()) else {
        return;
    };
    for (slot, (send, counter)) in config.plan.send.iter().zip(last).enumerate() {
        if let (Ok(bus), Some(counter)) = (u8::try_from(send.bus), counter) {
            file.record(slot, bus, send.id, counter.to_le_bytes()[0]);
        }
    }
}

/// Waits for the echoes of what is in flight.
fn await_echoes(tx: &mut Transmitter, ports: &[Option<Port>]) -> u32 {
    let until = clock::now() + ECHO_LIMIT;
    let mut echoed = 0;
    while tx.any_in_flight() && clock::now() < until {
        for (bus, port) in ports.iter().enumerate() {
            let Some(port) = port else { continue };
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
    let left = runtime(config).and_then(|directory| LastCounters::open(&directory).ok());
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
