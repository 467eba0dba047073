//! The controller of a CAN interface: what its driver says of it.
//!
//! Owns one question to the kernel (rtnetlink, what `ip -details link show` prints) and the reading of its answer. Relies on `netlink`.
//! Never changes anything. The kernel may hold the question while somebody reconfigures an interface: only a thread that
//! may wait asks.

use nix::net::if_::if_nametoindex;

use super::BusAddress;
use super::netlink::{INFO, ask_link, attribute, number, text};
use crate::can::errorframe::ControllerState;

/// Numbers of `linux/rtnetlink.h` and `linux/if_link.h`.
const LINKINFO: u16 = 18;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_XSTATS: u16 = 3;

/// Numbers of `linux/can/netlink.h`.
const BITTIMING: u16 = 1;
const CLOCK: u16 = 3;
const STATE: u16 = 4;
const CTRLMODE: u16 = 5;
const RESTART_MS: u16 = 6;
const BERR_COUNTER: u16 = 8;
const DATA_BITTIMING: u16 = 9;

/// Flags of `struct can_ctrlmode`.
const LISTEN_ONLY: usize = 0x02;
const BERR_REPORTING: usize = 0x10;

/// What is known of a controller. Everything is optional: a virtual interface has none of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Controller {
    /// Kind of the interface: `can`, `vcan`.
    pub kind: String,
    /// Nominal bit rate.
    pub bitrate_bps: Option<u32>,
    /// Bit rate of the data of CAN FD.
    pub data_bitrate_bps: Option<u32>,
    /// Its error state; none while it is stopped.
    pub state: Option<ControllerState>,
    /// Its error counters: transmit, receive.
    pub errors: Option<(u16, u16)>,
    /// Where in a bit it is sampled, in parts of a thousand.
    pub sample_point_permille: Option<u32>,
    /// The clock that bit times are made of, in hertz. Where a crystal feeds it, the driver believes what it was told of
    /// the crystal: a wrong one gives a wrong bit rate that looks right here.
    pub clock_hz: Option<u32>,
    /// The driver restarts it by itself this long after bus-off; 0 never.
    pub restart_ms: Option<u32>,
    /// Whether every bus error is reported.
    pub berr_reporting: Option<bool>,
    /// It never acknowledges and never sends.
    pub listen_only: Option<bool>,
    /// Times it was in bus-off since the driver was loaded.
    pub bus_offs: Option<u32>,
}

/// Asks the kernel; none where there is no such interface or the kernel does not say.
#[must_use]
pub fn ask_kernel(bus: &BusAddress) -> Option<Controller> {
    let BusAddress::Kernel(name) = bus else { return None };
    let index = if_nametoindex(name.as_str()).ok()?;
    let mut controller = None;
    ask_link(index, |message| controller = Some(read(message)));
    controller
}

fn read(message: &[u8]) -> Controller {
    let attributes = message.get(INFO..).unwrap_or_default();
    let info = attribute(attributes, LINKINFO).unwrap_or_default();
    let data = attribute(info, INFO_DATA).unwrap_or_default();
    // The bit rate is the first number of `struct can_bittiming`; 0 before it was set.
    let rate = |which| {
        let rate = number(attribute(data, which)?, 0, 4)?;
        u32::try_from(rate).ok().filter(|rate| *rate > 0)
    };
    let whole = |which, at| u32::try_from(number(attribute(data, which)?, at, 4)?).ok();
    let flags = attribute(data, CTRLMODE).and_then(|mode| number(mode, 4, 4));
    let counter = |at| u16::try_from(number(attribute(data, BERR_COUNTER)?, at, 2)?).ok();
    Controller {
        kind: text(info, INFO_KIND).unwrap_or_default(),
        bitrate_bps: rate(BITTIMING),
        data_bitrate_bps: rate(DATA_BITTIMING),
        // `enum can_state`; 4 and 5 are stopped and sleeping.
        state: attribute(data, STATE)
            .and_then(|state| number(state, 0, 4))
            .and_then(|state| ControllerState::ALL.get(state).copied()),
        errors: counter(0).zip(counter(2)),
        sample_point_permille: whole(BITTIMING, 4).filter(|point| *point > 0),
        clock_hz: whole(CLOCK, 0).filter(|clock| *clock > 0),
        restart_ms: whole(RESTART_MS, 0),
        berr_reporting: flags.map(|flags| flags & BERR_REPORTING != 0),
        listen_only: flags.map(|flags| flags & LISTEN_ONLY != 0),
        // The fourth number of `struct can_device_stats`.
        bus_offs: attribute(info, INFO_XSTATS)
            .and_then(|counts| number(counts, 12, 4))
            .and_then(|count| u32::try_from(count).ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute_of(kind: u16, content: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(4 + content.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_controllers_answer_is_read_and_every_shorter_one_too() {
        let mut timing = [500_000_u32.to_ne_bytes(), 875_u32.to_ne_bytes()].concat();
        timing.resize(32, 1);
        let data = [
            attribute_of(BITTIMING, &timing),
            attribute_of(CLOCK, &8_000_000_u32.to_ne_bytes()),
            attribute_of(STATE, &2_u32.to_ne_bytes()),
            attribute_of(CTRLMODE, &[0x13_u32.to_ne_bytes(), 0x10_u32.to_ne_bytes()].concat()),
            attribute_of(RESTART_MS, &100_u32.to_ne_bytes()),
            attribute_of(BERR_COUNTER, &[128_u16.to_ne_bytes(), 7_u16.to_ne_bytes()].concat()),
        ]
        .concat();
        let counts: Vec<u8> = [9_u32, 8, 7, 3, 5, 4].iter().flat_map(|count| count.to_ne_bytes()).collect();
        let info = [
            attribute_of(INFO_KIND, b"can\0"),
            attribute_of(INFO_DATA, &data),
            attribute_of(INFO_XSTATS, &counts),
        ]
        .concat();
        // Nested attributes carry a flag in some kernels.
        let message =
            [vec![0; INFO], attribute_of(3, b"can0\0"), attribute_of(LINKINFO | 0x8000, &info)].concat();
        let want = Controller {
            kind: "can".to_owned(),
            bitrate_bps: Some(500_000),
            data_bitrate_bps: None,
            state: Some(ControllerState::Passive),
            errors: Some((128, 7)),
            sample_point_permille: Some(875),
            clock_hz: Some(8_000_000),
            restart_ms: Some(100),
            berr_reporting: Some(true),
            listen_only: Some(false),
            bus_offs: Some(3),
        };
        assert_eq!(read(&message), want);
        for size in 0..message.len() {
            let _ = read(&message[..size]);
        }
    }

    #[test]
    fn an_interface_without_a_controller_says_nothing_of_one() {
        // Nothing at all where a sandbox forbids the question.
        let seen = ask_kernel(&"lo".parse().unwrap());
        assert!(seen.is_none_or(|seen| seen == Controller::default()), "lo has no kind and no controller");
        assert_eq!(ask_kernel(&"sim:any".parse().unwrap()), None);
        assert_eq!(ask_kernel(&"nosuchcan0".parse().unwrap()), None);
    }
}
