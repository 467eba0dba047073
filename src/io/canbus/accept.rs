//! Which frames a port receives: lists of identifiers, or pairs of identifier and mask as candump writes them.
//!
//! Owns the filter in the kernel's words, and its text form. Relies on the identifier. The kernel filters for a kernel
//! interface, the hub for the built-in bus, both by the same words.

use core::fmt;
use core::str::FromStr;

use crate::can::{Frame, FrameKind, Id};

/// `CAN_EFF_FLAG` of `linux/can.h`: the identifier has 29 bits.
const EXTENDED: u32 = 0x8000_0000;
/// `CAN_RTR_FLAG`: a remote request.
const REMOTE: u32 = 0x4000_0000;
/// `CAN_INV_FILTER`: what does not match passes.
pub(super) const INVERT: u32 = 0x2000_0000;
/// The 11 bits of a standard identifier.
const STANDARD_BITS: u32 = 0x7FF;
/// The 29 bits of an extended one.
const EXTENDED_BITS: u32 = 0x1FFF_FFFF;

/// Most filters that one raw socket takes (`CAN_RAW_FILTER_MAX`).
pub const FILTERS: usize = 512;

/// Which frames a port receives.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Accept {
    /// Every frame of the bus.
    #[default]
    All,
    /// Data frames and remote requests with exactly these identifiers; the same number in the other encoding is
    /// another identifier and does not pass. An empty list receives nothing (error messages are apart).
    Only(Vec<Id>),
    /// What one of these filters lets through.
    Masked(Vec<IdMask>),
}

impl Accept {
    /// The filters in the kernel's words; `None` where every frame passes.
    pub(super) fn filters(&self) -> Option<Vec<IdMask>> {
        match self {
            Self::All => None,
            Self::Only(ids) => Some(ids.iter().map(|id| IdMask::exactly(*id)).collect()),
            Self::Masked(masks) => Some(masks.clone()),
        }
    }
}

/// One filter: a frame passes if `(can_id & mask) == (id & mask)`, or if not, where it is inverted. In the kernel's words:
/// the identifier with the flags for extended (bit 31) and remote (bit 30).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdMask {
    /// What the masked bits must be, with bit 29 for an inverted filter.
    pub(super) id: u32,
    /// Which bits count.
    pub(super) mask: u32,
}

impl IdMask {
    /// Exactly this identifier. The encoding is part of the mask, the remote flag is not: a remote request passes.
    #[must_use]
    pub const fn exactly(id: Id) -> Self {
        let bits = if id.is_extended() { EXTENDED_BITS } else { STANDARD_BITS };
        Self { id: id.word(), mask: bits | EXTENDED }
    }

    /// Whether a frame passes.
    #[must_use]
    pub fn passes(self, frame: &Frame) -> bool {
        let remote = if frame.kind() == FrameKind::Remote { REMOTE } else { 0 };
        let word = frame.id().word() | remote;
        let matches = word & self.mask == self.id & !INVERT & self.mask;
        matches != (self.id & INVERT != 0)
    }
}

/// A text that is no filter. Consequence: the command line is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FilterError;

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not a filter: ID:MASK lets through what matches, ID~MASK what does not, both hexadecimal \
             (123:7FF, 12345678:DFFFFFFF), as candump takes them",
        )
    }
}

impl core::error::Error for FilterError {}

impl FromStr for IdMask {
    type Err = FilterError;

    /// candump's form: `ID:MASK` or `ID~MASK`, hexadecimal. An identifier of eight digits is extended.
    fn from_str(text: &str) -> Result<Self, FilterError> {
        let (id_text, mask_text, invert) = match text.split_once(':') {
            Some((id, mask)) => (id, mask, 0),
            None => text.split_once('~').map(|(id, mask)| (id, mask, INVERT)).ok_or(FilterError)?,
        };
        let word = |text: &str| {
            let is_hex = (1..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
            if is_hex { u32::from_str_radix(text, 16).map_err(|_| FilterError) } else { Err(FilterError) }
        };
        let extended = if id_text.len() == 8 { EXTENDED } else { 0 };
        let id = word(id_text)? | extended;
        let mask = word(mask_text)?;
        // Bit 29 is the error flag in a frame and the inversion in a filter: error messages are no frames of the bus.
        Ok(Self { id: id & !INVERT | invert, mask: mask & !INVERT })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standard(raw: u32) -> Frame {
        Frame::data(Id::standard(raw).unwrap(), &[]).unwrap()
    }

    fn extended(raw: u32) -> Frame {
        Frame::data(Id::extended(raw).unwrap(), &[]).unwrap()
    }

    #[test]
    fn candumps_forms_mean_what_candump_means() {
        let exact: IdMask = "123:7FF".parse().unwrap();
        assert!(exact.passes(&standard(0x123)) && !exact.passes(&standard(0x124)));
        // A mask of 11 bits does not look at the encoding: so does candump's.
        assert!(exact.passes(&extended(0x8_0123)));
        let coded: IdMask = "123:C00007FF".parse().unwrap();
        assert!(coded.passes(&standard(0x123)) && !coded.passes(&extended(0x8_0123)));
        assert!(!coded.passes(&Frame::remote(Id::standard(0x123).unwrap(), 1).unwrap()));
        let but: IdMask = "100~700".parse().unwrap();
        assert!(!but.passes(&standard(0x1FF)) && but.passes(&standard(0x200)));
        let wide: IdMask = "18DA10F1:DFFFFFFF".parse().unwrap();
        assert!(wide.passes(&extended(0x18DA_10F1)) && !wide.passes(&standard(0x0F1)));
        let all: IdMask = "0:0".parse().unwrap();
        assert!(all.passes(&standard(0)) && all.passes(&extended(5)));
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for text in
            ["", "123", ":", "123:", ":7FF", "12G:7FF", "123456789:7FF", "123:7FF:1", "+12:7FF", "0x12:7FF"]
        {
            assert_eq!(text.parse::<IdMask>(), Err(FilterError), "{text:?}");
        }
    }
}
