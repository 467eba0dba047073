//! The controller of a CAN interface: what its driver says of it.
//!
//! Owns one question to the kernel (rtnetlink, what `ip -details link show` prints) and the reading of its answer. Relies on `netlink`.
//! Never changes anything. The kernel may hold the question while somebody reconfigures an interface: only a thread that
//! may wait asks.

use nix::net::if_::if_nametoindex;

use super::BusAddress;
use super::netlink::{REQUEST, ask, attribute, number, text};
use crate::can::errorframe::ControllerState;

/// Numbers of `linux/rtnetlink.h` and `linux/if_link.h`.
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const LINKINFO: u16 = 18;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;

/// Numbers of `linux/can/netlink.h`.
const BITTIMING: u16 = 1;
const STATE: u16 = 4;
const BERR_COUNTER: u16 = 8;
const DATA_BITTIMING: u16 = 9;

/// Bytes of `struct ifinfomsg`; the interface's index is at 4.
const INFO: usize = 16;

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
}

/// Asks the kernel; none where there is no such interface or the kernel does not say.
#[must_use]
pub fn ask_kernel(bus: &BusAddress) -> Option<Controller> {
    let BusAddress::Kernel(name) = bus else { return None };
    let index = if_nametoindex(name.as_str()).ok()?;
    let mut body = [0; INFO];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut controller = None;
    ask(GET_LINK, REQUEST, &body, NEW_LINK, |message| controller = Some(read(message)));
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
        let mut timing = 500_000_u32.to_ne_bytes().to_vec();
        timing.resize(32, 1);
        let data = [
            attribute_of(BITTIMING, &timing),
            attribute_of(STATE, &2_u32.to_ne_bytes()),
            attribute_of(BERR_COUNTER, &[128_u16.to_ne_bytes(), 7_u16.to_ne_bytes()].concat()),
        ]
        .concat();
        let info = [attribute_of(INFO_KIND, b"can\0"), attribute_of(INFO_DATA, &data)].concat();
        // Nested attributes carry a flag in some kernels.
        let message =
            [vec![0; INFO], attribute_of(3, b"can0\0"), attribute_of(LINKINFO | 0x8000, &info)].concat();
        let want = Controller {
            kind: "can".to_owned(),
            bitrate_bps: Some(500_000),
            data_bitrate_bps: None,
            state: Some(ControllerState::Passive),
            errors: Some((128, 7)),
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
