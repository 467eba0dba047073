//! What a driver's error message says.
//!
//! Owns the class bits of `linux/can/error.h` that mean something to a gateway. Relies on nothing. Never decides what
//! follows from them.

use core::fmt;

/// Class bit: the transmission did not end in time.
pub const TX_TIMEOUT: u32 = 0x001;
/// Class bit: arbitration lost.
pub const LOST_ARBITRATION: u32 = 0x002;
/// Class bit: the controller's state changed; detail in byte 1.
pub const CONTROLLER: u32 = 0x004;
/// Class bit: protocol violation.
pub const PROTOCOL: u32 = 0x008;
/// Class bit: transceiver problem.
pub const TRANSCEIVER: u32 = 0x010;
/// Class bit: nobody acknowledged our frame.
pub const NO_ACK: u32 = 0x020;
/// Class bit: the controller has left the bus.
pub const BUS_OFF: u32 = 0x040;
/// Class bit: error on the bus.
pub const BUS_ERROR: u32 = 0x080;
/// Class bit: the controller was restarted.
pub const RESTARTED: u32 = 0x100;
/// Class bit: bytes 6 and 7 hold the error counters.
pub const COUNTERS: u32 = 0x200;

/// Names of the class bits in the order of their value.
const NAMES: [(u32, &str); 9] = [
    (TX_TIMEOUT, "tx-timeout"),
    (LOST_ARBITRATION, "lost-arbitration"),
    (CONTROLLER, "controller"),
    (PROTOCOL, "protocol-violation"),
    (TRANSCEIVER, "transceiver"),
    (NO_ACK, "no-ack"),
    (BUS_OFF, "bus-off"),
    (BUS_ERROR, "bus-error"),
    (RESTARTED, "restarted"),
];

/// Detail byte 1: receive buffer overflow.
const CTRL_RX_OVERFLOW: u8 = 0x01;
/// Detail byte 1: a receive or transmit error counter reached 96.
const CTRL_WARNING: u8 = 0x04 | 0x08;
/// Detail byte 1: a receive or transmit error counter reached 128.
const CTRL_PASSIVE: u8 = 0x10 | 0x20;
/// Detail byte 1: back to error-active.
const CTRL_ACTIVE: u8 = 0x40;

/// Error state of the controller, as far as its driver tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ControllerState {
    /// Both error counters below 96: healthy.
    Active,
    /// A counter at 96 or more.
    Warning,
    /// A counter at 128 or more: the node no longer disturbs the bus. Where a cut cable ends; never bus-off.
    Passive,
    /// Off the bus until restarted.
    BusOff,
}

impl ControllerState {
    /// Every state, from healthy to gone.
    pub const ALL: [Self; 4] = [Self::Active, Self::Warning, Self::Passive, Self::BusOff];
}

/// An error message, decoded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ErrorClass {
    bits: u32,
    detail: [u8; 8],
}

impl ErrorClass {
    /// From the class bits and the eight detail bytes.
    #[must_use]
    pub const fn new(bits: u32, detail: [u8; 8]) -> Self {
        Self { bits, detail }
    }

    /// All class bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.bits
    }

    /// The controller has left the bus: nothing is sent until it is restarted.
    #[must_use]
    pub const fn is_bus_off(self) -> bool {
        self.bits & BUS_OFF != 0
    }

    /// The controller was restarted after bus-off.
    #[must_use]
    pub const fn is_restarted(self) -> bool {
        self.bits & RESTARTED != 0
    }

    /// Our frame was acknowledged by nobody: cut cable, or alone on the bus.
    #[must_use]
    pub const fn is_no_ack(self) -> bool {
        self.bits & NO_ACK != 0
    }

    /// Frames were lost inside the controller.
    #[must_use]
    pub const fn is_rx_overflow(self) -> bool {
        self.bits & CONTROLLER != 0 && self.detail[1] & CTRL_RX_OVERFLOW != 0
    }

    /// The controller state that this message announces, if it announces one. The worst of several wins.
    #[must_use]
    pub const fn controller_state(self) -> Option<ControllerState> {
        if self.is_bus_off() {
            return Some(ControllerState::BusOff);
        }
        if self.bits & CONTROLLER != 0 {
            let ctrl = self.detail[1];
            if ctrl & CTRL_PASSIVE != 0 {
                return Some(ControllerState::Passive);
            }
            if ctrl & CTRL_WARNING != 0 {
                return Some(ControllerState::Warning);
            }
            if ctrl & CTRL_ACTIVE != 0 {
                return Some(ControllerState::Active);
            }
        }
        if self.is_restarted() {
            return Some(ControllerState::Active);
        }
        None
    }

    /// Transmit and receive error counters, where the driver says that it filled them in.
    #[must_use]
    pub const fn counters(self) -> Option<(u8, u8)> {
        if self.bits & COUNTERS != 0 { Some((self.detail[6], self.detail[7])) } else { None }
    }
}

impl fmt::Display for ErrorClass {
    /// Names of the classes, comma between them, the state and counters behind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut any = false;
        for (_, name) in NAMES.iter().filter(|(bit, _)| self.bits & bit != 0) {
            if any {
                f.write_str(",")?;
            }
            f.write_str(name)?;
            any = true;
        }
        if !any {
            f.write_str("unspecified")?;
        }
        match self.controller_state() {
            Some(ControllerState::Active) => f.write_str(" error-active")?,
            Some(ControllerState::Warning) => f.write_str(" error-warning")?,
            Some(ControllerState::Passive) => f.write_str(" error-passive")?,
            Some(ControllerState::BusOff) | None => {}
        }
        if let Some((tx, rx)) = self.counters() {
            write!(f, " tx={tx} rx={rx}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}({self})", self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::can::Frame;

    fn class(bits: u32, detail: [u8; 8]) -> ErrorClass {
        Frame::error(bits, detail).error_class().unwrap()
    }

    #[test]
    fn slcan_bus_off_is_read() {
        // The identifier word 0x20000040 was seen from the kernel's slcan driver after `sb256256`.
        let mut bytes = [0; 16];
        bytes[0..4].copy_from_slice(&0x2000_0040_u32.to_ne_bytes());
        bytes[4] = 8;
        let class = Frame::from_bytes(&bytes).unwrap().error_class().unwrap();
        assert!(class.is_bus_off());
        assert_eq!(class.controller_state(), Some(ControllerState::BusOff));
        assert_eq!(class.to_string(), "bus-off");
    }

    #[test]
    fn controller_states_are_told_apart_and_the_worst_wins() {
        let state = |ctrl| class(CONTROLLER, [0, ctrl, 0, 0, 0, 0, 0, 0]).controller_state();
        assert_eq!(state(0x04), Some(ControllerState::Warning));
        assert_eq!(state(0x08), Some(ControllerState::Warning));
        assert_eq!(state(0x10), Some(ControllerState::Passive));
        assert_eq!(state(0x20 | 0x08), Some(ControllerState::Passive));
        assert_eq!(state(0x40), Some(ControllerState::Active));
        assert_eq!(state(0x01), None);
        assert_eq!(class(0, [0, 0x10, 0, 0, 0, 0, 0, 0]).controller_state(), None);
        assert_eq!(class(RESTARTED, [0; 8]).controller_state(), Some(ControllerState::Active));
        assert!(class(CONTROLLER, [0, 1, 0, 0, 0, 0, 0, 0]).is_rx_overflow());
    }

    #[test]
    fn counters_only_where_the_driver_says_so() {
        assert_eq!(class(COUNTERS, [0, 0, 0, 0, 0, 0, 128, 3]).counters(), Some((128, 3)));
        assert_eq!(class(CONTROLLER, [0, 0, 0, 0, 0, 0, 128, 3]).counters(), None);
        assert_eq!(
            class(CONTROLLER | COUNTERS, [0, 0x20, 0, 0, 0, 0, 128, 0]).to_string(),
            "controller error-passive tx=128 rx=0"
        );
    }

    #[test]
    fn a_data_frame_is_never_an_error() {
        let frame = Frame::data(crate::can::Id::standard(0x40).unwrap(), &[0; 8]).unwrap();
        assert_eq!(frame.error_class(), None);
    }
}
