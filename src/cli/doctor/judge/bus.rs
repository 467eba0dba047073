//! Verdicts on a bus: its interface, its driver's modes, and what its controller has seen.
//!
//! Owns the words about each, and the hint to a crystal that the driver cannot see. Relies on the facts alone.

use super::Report;
use crate::can::errorframe::ControllerState;
use crate::cli::doctor::facts::BusFacts;
use crate::cli::status::screen::bit_rate;
use crate::io::canbus::controller::Controller;
use crate::io::canbus::{Facts as Interface, OpenCause};
use crate::limits::TRANSMIT_QUEUE;
use crate::signals::plan::Echo;

/// One bus, from the interface to what it has seen.
pub(super) fn bus(report: &mut Report, bus: &BusFacts) {
    // Without a configuration it has no other name.
    let who = if bus.name == bus.interface {
        bus.name.clone()
    } else {
        format!("{} ({})", bus.name, bus.interface)
    };
    if bus.is_built_in {
        return report.warning(
            format!("{who}: the built-in bus, no wire behind it"),
            "for a vehicle: interface = \"can0\" in the file",
        );
    }
    let interface = match &bus.opened {
        Some(Ok(interface)) => interface,
        Some(Err(error)) => {
            let text = error.to_string();
            let (what, remedy) = text.split_once("; ").unwrap_or((&text, "see `ip -details link show`"));
            let remedy = match error.cause {
                // No bit rate is guessed, and the driver must not end bus-off by itself.
                OpenCause::Down => format!(
                    "BITRATE=... in /etc/ocpcan/{0}.env, then systemctl enable --now ocpcan-can@{0}; by hand: ip link set {0} \
                     type can bitrate RATE restart-ms 0, then ip link set {0} up",
                    bus.interface
                ),
                OpenCause::NoInterface => format!(
                    "{remedy}; for a HAT, its lines in /boot/firmware/config.txt and a reboot (dmesg | grep -i -e can -e spi)"
                ),
                _ => remedy.to_owned(),
            };
            return report.problem(format!("{}: {what}", bus.name), remedy);
        }
        None => {
            return report
                .problem(format!("{who}: no name of an interface"), "correct `interface` in the file");
        }
    };
    let controller = bus.controller.clone().unwrap_or_default();
    report.ok(format!("{who}: up, {}", looks(interface, &controller)));
    proof(report, bus, interface);
    queues(report, bus, interface);
    modes(report, bus, &controller);
    health(report, bus, interface, &controller);
}

/// Driver, bit rate and clock in one line.
fn looks(interface: &Interface, controller: &Controller) -> String {
    let mut parts = vec![if interface.driver.is_empty() {
        "driver not known".to_owned()
    } else {
        format!("driver {}", interface.driver)
    }];
    if interface.is_virtual {
        parts.push("virtual: no wire behind it".to_owned());
    }
    parts.extend(controller.bitrate_bps.map(|bps| format!("{}bit/s", bit_rate(bps.into()))));
    parts.extend(controller.data_bitrate_bps.map(|bps| format!("data {}bit/s", bit_rate(bps.into()))));
    parts.extend(
        controller.sample_point_permille.map(|point| format!("sampled at {:.1} %", f64::from(point) / 10.0)),
    );
    parts.extend(controller.clock_hz.map(|hz| format!("clock {} MHz", f64::from(hz) / 1e6)));
    parts.push(format!("queue {}", interface.queue_len));
    parts.join(", ")
}

fn proof(report: &mut Report, bus: &BusFacts, interface: &Interface) {
    let name = &bus.interface;
    if interface.is_virtual || interface.has_driver_echo {
        return;
    }
    match bus.echo {
        Echo::Required => report.problem(
            format!("{name}: the driver has no echo, so nothing proves that a frame leaves; the gateway does not arm"),
            format!("another adapter; or echo = \"unproven\" in bus.{}, and a cut cable shows as missing feedback only", bus.name),
        ),
        Echo::Unproven => report.warning(
            format!("{name}: the echo proves nothing, as the file says"),
            "an adapter whose driver has an echo (`ip -details link show` says ECHO)",
        ),
    }
}

fn queues(report: &mut Report, bus: &BusFacts, interface: &Interface) {
    let name = &bus.interface;
    if !interface.is_virtual && interface.queue_len > TRANSMIT_QUEUE {
        report.problem(
            format!(
                "{name}: a transmit queue of {} frames stores old commands; the gateway does not arm above {TRANSMIT_QUEUE}",
                interface.queue_len
            ),
            format!("ip link set {name} txqueuelen 10"),
        );
    }
    if let Some(kind) = &bus.unfit_queue {
        report.warning(
            format!("{name}: the queueing discipline {kind} may drop or reorder frames that it took"),
            format!("tc qdisc replace dev {name} root pfifo_fast, and net.core.default_qdisc = pfifo_fast"),
        );
    }
}

fn modes(report: &mut Report, bus: &BusFacts, controller: &Controller) {
    let name = &bus.interface;
    if let Some(ms) = controller.restart_ms.filter(|ms| *ms > 0) {
        report.problem(
            format!("{name}: restart-ms {ms}: the driver ends bus-off by itself, where the gateway counts and limits it"),
            format!("ip link set {name} down; ip link set {name} type can restart-ms 0; ip link set {name} up"),
        );
    }
    if controller.listen_only == Some(true) {
        report.problem(
            format!("{name}: listen-only: nothing is sent and nothing acknowledged"),
            format!(
                "ip link set {name} down; ip link set {name} type can listen-only off; ip link set {name} up"
            ),
        );
    }
    if controller.berr_reporting == Some(false) {
        report.warning(
            format!("{name}: berr-reporting is off: fewer errors are told"),
            format!("ip link set {name} down; ip link set {name} type can berr-reporting on; ip link set {name} up (not every driver has it)"),
        );
    }
}

/// Bit rates that buses have. Another one is a mistake, or what a wrong clock makes of the right one.
const BIT_RATES: [u32; 11] =
    [10_000, 20_000, 33_333, 50_000, 83_333, 100_000, 125_000, 250_000, 500_000, 800_000, 1_000_000];

/// Error counter from which a controller warns (ISO 11898-1).
const MANY_ERRORS: u16 = 96;

fn health(report: &mut Report, bus: &BusFacts, interface: &Interface, controller: &Controller) {
    let name = &bus.interface;
    let crystal = crystal(&interface.driver, controller.clock_hz);
    let wiring =
        format!("cable, ground, 120 ohm at both ends, the other nodes' supply and bit rate{crystal}");
    let counts = controller.errors.map_or_else(String::new, |(transmit, receive)| {
        format!(" (error counters: sending {transmit}, receiving {receive})")
    });
    let has_errors = controller.errors.is_some_and(|(transmit, receive)| transmit.max(receive) > 0);
    match controller.state {
        Some(ControllerState::BusOff) => {
            let remedy = format!("{wiring}; then ip link set {name} down; ip link set {name} up");
            report.problem(format!("{name}: bus-off{counts}"), remedy);
        }
        Some(ControllerState::Passive) => {
            report.problem(
                format!(
                    "{name}: error-passive{counts}: nobody acknowledges, or another bit rate is on the bus"
                ),
                wiring.clone(),
            );
        }
        Some(ControllerState::Warning) => {
            report.warning(format!("{name}: many errors{counts}"), wiring.clone())
        }
        _ if controller.errors.is_some_and(|(transmit, receive)| transmit.max(receive) >= MANY_ERRORS) => {
            report.warning(format!("{name}: many errors{counts}"), wiring.clone());
        }
        Some(ControllerState::Active) if has_errors => report.ok(format!("{name}: error-active{counts}")),
        Some(ControllerState::Active) => report.ok(format!("{name}: error-active, no errors")),
        None if !interface.is_running && !interface.is_virtual => {
            report.problem(
                format!("{name}: up, and the controller does not run"),
                format!("ip link set {name} down; ip link set {name} up"),
            );
        }
        None => {}
    }
    if let Some(count) = controller.bus_offs.filter(|count| *count > 0) {
        report.warning(
            format!("{name}: was in bus-off {count} times since its driver was loaded"),
            wiring.clone(),
        );
    }
    if let Some(bps) = controller.bitrate_bps.filter(|bps| !BIT_RATES.contains(bps)) {
        report.warning(
            format!(
                "{name}: {bps} bit/s is no usual bit rate: what was asked for cannot be made of this clock"
            ),
            format!("compare with `bitrate` of the bring-up{crystal}"),
        );
    }
    if bus.received == Some(0) && !interface.is_virtual {
        let errors = bus.receive_errors.unwrap_or(0);
        report.warning(
            format!("{name}: no frame was ever received ({errors} receive errors)"),
            format!("is another node on the bus and awake? {wiring}"),
        );
    }
}

/// Where a crystal that the driver cannot see makes the bit rate: what it was told, to be held against what is printed on it.
pub(super) fn crystal(driver: &str, clock_hz: Option<u32>) -> String {
    let Some(hz) = clock_hz else { return String::new() };
    // The MCP2515 divides its crystal by two; the others take theirs as it is.
    let told = f64::from(hz) / 1e6 * if driver == "mcp251x" { 2.0 } else { 1.0 };
    if driver.starts_with("mcp25") {
        format!("; and read the HAT's crystal: the driver was told {told} MHz (`oscillator=` in config.txt)")
    } else {
        String::new()
    }
}
