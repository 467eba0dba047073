//! One CAN frame as a value, and as the bytes the kernel reads and writes.
//!
//! Owns the identifier, the frame and the 16- and 72-byte forms of `linux/can.h`. Relies on nothing. Never keeps a
//! frame that is not in canonical form: two frames that look the same on the wire compare equal, whatever unused bits
//! their bytes carried. So a check of the identifier cannot be passed by setting a bit that no wire carries
//! (SAFETY rows 63 and 92).

use core::fmt;

use super::errorframe::ErrorClass;

/// Size of the kernel's `struct can_frame`.
pub const CLASSIC_BYTES: usize = 16;
/// Size of the kernel's `struct canfd_frame`.
pub const FD_BYTES: usize = 72;

/// Most data bytes of a classic frame.
pub const CLASSIC_DATA: usize = 8;
/// Most data bytes of a CAN FD frame.
pub const FD_DATA: usize = 64;

/// Identifier word: extended (29 bit) identifier follows.
const EFF_FLAG: u32 = 0x8000_0000;
/// Identifier word: remote request.
const RTR_FLAG: u32 = 0x4000_0000;
/// Identifier word: error message of the driver, not a frame of the bus.
const ERR_FLAG: u32 = 0x2000_0000;
/// Bits of a standard identifier.
const SFF_MASK: u32 = 0x7FF;
/// Bits of an extended identifier, and of an error class.
const EFF_MASK: u32 = 0x1FFF_FFFF;

/// FD flag: the data part was sent at the second, faster bit rate.
pub(crate) const FLAG_BRS: u8 = 0x01;
/// FD flag: the sender is error-passive.
pub(crate) const FLAG_ESI: u8 = 0x02;
/// FD flag: marks an FD frame where both kinds share a buffer (Linux 5.14 and later).
pub(crate) const FLAG_FDF: u8 = 0x04;

/// Lengths that a CAN FD data length code can express.
const FD_LENGTHS: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64];

/// A CAN identifier: 11 or 29 bits. Both encodings of one number are different identifiers on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id {
    /// 0 to 0x7FF.
    Standard(StandardId),
    /// 0 to 0x1FFF_FFFF.
    Extended(ExtendedId),
}

/// An 11-bit identifier; cannot hold more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StandardId(u16);

/// A 29-bit identifier; cannot hold more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ExtendedId(u32);

impl Id {
    /// The standard identifier `raw`, if it fits in 11 bits.
    #[must_use]
    pub const fn standard(raw: u32) -> Option<Self> {
        if raw <= SFF_MASK {
            Some(Self::Standard(StandardId((raw & SFF_MASK) as u16))) // masked to 11 bits: fits
        } else {
            None
        }
    }

    /// The extended identifier `raw`, if it fits in 29 bits.
    #[must_use]
    pub const fn extended(raw: u32) -> Option<Self> {
        if raw <= EFF_MASK { Some(Self::Extended(ExtendedId(raw))) } else { None }
    }

    /// The identifier that goes onto the wire for this kernel identifier word: bits that the wire does not carry are
    /// cut off, as the drivers do.
    #[must_use]
    pub const fn from_word(word: u32) -> Self {
        if word & EFF_FLAG != 0 {
            Self::Extended(ExtendedId(word & EFF_MASK))
        } else {
            Self::Standard(StandardId((word & SFF_MASK) as u16)) // masked to 11 bits: fits
        }
    }

    /// The number alone, without its encoding.
    #[must_use]
    pub const fn raw(self) -> u32 {
        match self {
            Self::Standard(id) => id.0 as u32, // widening
            Self::Extended(id) => id.0,
        }
    }

    /// The kernel's identifier word: the number, with the extended flag where it applies.
    #[must_use]
    pub const fn word(self) -> u32 {
        match self {
            Self::Standard(id) => id.0 as u32, // widening
            Self::Extended(id) => id.0 | EFF_FLAG,
        }
    }

    /// Whether this is a 29-bit identifier.
    #[must_use]
    pub const fn is_extended(self) -> bool {
        matches!(self, Self::Extended(_))
    }
}

impl fmt::Display for Id {
    /// Three hex digits for a standard identifier, eight for an extended one, as candump writes them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(id) => write!(f, "{:03X}", id.0),
            Self::Extended(id) => write!(f, "{:08X}", id.0),
        }
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{self}")
    }
}

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FrameKind {
    /// Classic data frame, 0 to 8 bytes.
    Data,
    /// Classic remote request: a length, no data.
    Remote,
    /// CAN FD data frame, 0 to 64 bytes.
    Fd {
        /// Data part at the second bit rate.
        brs: bool,
        /// The sender was error-passive.
        esi: bool,
    },
    /// Error message of the driver. Never seen on the wire; its identifier holds the class bits.
    Error,
}

/// Why bytes are not a frame. Consequence everywhere: the bytes are dropped and counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// Neither 16 nor 72 bytes.
    Size,
    /// More data than this kind of frame can carry.
    Length,
    /// A CAN FD frame that claims to be a remote request or an error message: there is no such thing.
    Kind,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Size => "not 16 or 72 bytes",
            Self::Length => "more data than the frame can carry",
            Self::Kind => "CAN FD with remote or error flag",
        })
    }
}

impl core::error::Error for FrameError {}

/// One CAN frame. Bytes beyond the length are zero, so equality means equality on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Frame {
    id: Id,
    kind: FrameKind,
    len: u8,
    data: [u8; FD_DATA],
}

impl Frame {
    /// A classic data frame of 0 to 8 bytes.
    ///
    /// # Errors
    /// [`FrameError::Length`] for more than 8 bytes.
    pub fn data(id: Id, payload: &[u8]) -> Result<Self, FrameError> {
        if payload.len() > CLASSIC_DATA {
            return Err(FrameError::Length);
        }
        Ok(Self::filled(id, FrameKind::Data, payload))
    }

    /// A CAN FD frame of 0 to 64 bytes. A length that FD cannot express is filled up with zeros to the next one, as the
    /// drivers do.
    ///
    /// # Errors
    /// [`FrameError::Length`] for more than 64 bytes.
    pub fn fd(id: Id, payload: &[u8], brs: bool, esi: bool) -> Result<Self, FrameError> {
        if payload.len() > FD_DATA {
            return Err(FrameError::Length);
        }
        Ok(Self::filled(id, FrameKind::Fd { brs, esi }, payload))
    }

    /// A remote request for `len` bytes, 0 to 8.
    ///
    /// # Errors
    /// [`FrameError::Length`] for more than 8 bytes.
    pub fn remote(id: Id, len: u8) -> Result<Self, FrameError> {
        if usize::from(len) > CLASSIC_DATA {
            return Err(FrameError::Length);
        }
        Ok(Self { id, kind: FrameKind::Remote, len, data: [0; FD_DATA] })
    }

    /// An error message with these class bits (29 of them count) and detail bytes, as a driver sends it.
    #[must_use]
    pub fn error(class: u32, detail: [u8; CLASSIC_DATA]) -> Self {
        Self::filled(Id::Extended(ExtendedId(class & EFF_MASK)), FrameKind::Error, &detail)
    }

    /// Builds the canonical form. Callers have checked the length against the kind.
    fn filled(id: Id, kind: FrameKind, payload: &[u8]) -> Self {
        let mut data = [0; FD_DATA];
        let mut len = 0_u8;
        for (to, from) in data.iter_mut().zip(payload) {
            *to = *from;
            len += 1; // at most 64 turns
        }
        if matches!(kind, FrameKind::Fd { .. }) {
            len = fd_length(len);
        }
        Self { id, kind, len, data }
    }

    /// The identifier. Of an error message: the class bits, as an extended identifier.
    #[must_use]
    pub const fn id(&self) -> Id {
        self.id
    }

    /// What the frame is.
    #[must_use]
    pub const fn kind(&self) -> FrameKind {
        self.kind
    }

    /// Length in bytes; of a remote request, the length asked for.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "the length of a frame is a field of it, not a container's size"
    )]
    pub const fn len(&self) -> usize {
        self.len as usize // widening
    }

    /// The data bytes; none for a remote request.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        if matches!(self.kind, FrameKind::Remote) {
            return &[];
        }
        self.data.get(..self.len()).unwrap_or(&self.data)
    }

    /// The data bytes to change in place; none for a remote request.
    #[must_use]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        if matches!(self.kind, FrameKind::Remote) {
            return &mut [];
        }
        let len = self.len();
        self.data.get_mut(..len).unwrap_or_default()
    }

    /// Whether this is a CAN FD frame.
    #[must_use]
    pub const fn is_fd(&self) -> bool {
        matches!(self.kind, FrameKind::Fd { .. })
    }

    /// Bits of the frame on a wire, at the nominal bit rate and at the data bit rate of CAN FD: ISO 11898-1, with the three
    /// bits between frames, without the stuff bits that depend on what is in it (0 to a fifth more). An error message has
    /// none: it was never on a wire.
    #[must_use]
    pub const fn wire_bits(&self) -> (u32, u32) {
        // Identifier, its flags and the start bit, and in FD up to the bit that switches the rate.
        let head = match (self.id.is_extended(), self.is_fd()) {
            (false, false) => 14,
            (true, false) => 34,
            (false, true) => 17,
            (true, true) => 36,
        };
        let data = 8 * self.len as u32;
        match self.kind {
            // Length 4, checksum 15 and its delimiter, acknowledgement 2, end 7, pause 3; a classic frame has one reserved bit.
            FrameKind::Data => (head + 33 + data, 0),
            FrameKind::Remote => (head + 33, 0),
            FrameKind::Fd { brs, .. } => {
                // Error state, length 4, count of stuff bits 4, checksum with its fixed stuff bits, delimiter.
                let checksum = if self.len <= 16 { 17 + 5 } else { 21 + 6 };
                let (nominal, fast) = (head + 12, 10 + data + checksum);
                if brs { (nominal, fast) } else { (nominal + fast, 0) }
            }
            FrameKind::Error => (0, 0),
        }
    }

    /// What the driver reports, if this is an error message.
    #[must_use]
    pub fn error_class(&self) -> Option<ErrorClass> {
        match self.kind {
            FrameKind::Error => {
                let mut detail = [0; CLASSIC_DATA];
                for (to, from) in detail.iter_mut().zip(self.payload()) {
                    *to = *from;
                }
                Some(ErrorClass::new(self.id.raw(), detail))
            }
            FrameKind::Data | FrameKind::Remote | FrameKind::Fd { .. } => None,
        }
    }

    /// Writes the kernel's form into `out` and returns its size: 16 or 72.
    pub fn to_bytes(&self, out: &mut [u8; FD_BYTES]) -> usize {
        let (word, flags, size) = match self.kind {
            FrameKind::Data => (self.id.word(), 0, CLASSIC_BYTES),
            FrameKind::Remote => (self.id.word() | RTR_FLAG, 0, CLASSIC_BYTES),
            FrameKind::Error => (self.id.raw() | ERR_FLAG, 0, CLASSIC_BYTES),
            FrameKind::Fd { brs, esi } => {
                let flags = FLAG_FDF | if brs { FLAG_BRS } else { 0 } | if esi { FLAG_ESI } else { 0 };
                (self.id.word(), flags, FD_BYTES)
            }
        };
        out[0..4].copy_from_slice(&word.to_ne_bytes());
        out[4..8].copy_from_slice(&[self.len, flags, 0, 0]);
        out[8..72].copy_from_slice(&self.data);
        size
    }

    /// Reads the kernel's form: 16 bytes of `can_frame` or 72 of `canfd_frame`.
    ///
    /// Canonicalises: bits of the identifier that the encoding does not have, reserved bytes and data beyond the length
    /// are dropped; an FD length is filled up to one that exists.
    ///
    /// # Errors
    /// [`FrameError`] says why the bytes are no frame.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FrameError> {
        let fd = match bytes.len() {
            CLASSIC_BYTES => false,
            FD_BYTES => true,
            _ => return Err(FrameError::Size),
        };
        let (head, data) = bytes.split_first_chunk::<8>().ok_or(FrameError::Size)?;
        let [w0, w1, w2, w3, len, flags, _, _] = *head;
        let word = u32::from_ne_bytes([w0, w1, w2, w3]);
        let payload = data.get(..usize::from(len)).ok_or(FrameError::Length)?;
        if fd {
            if word & (RTR_FLAG | ERR_FLAG) != 0 {
                return Err(FrameError::Kind);
            }
            return Self::fd(Id::from_word(word), payload, flags & FLAG_BRS != 0, flags & FLAG_ESI != 0);
        }
        if word & ERR_FLAG != 0 {
            let id = Id::Extended(ExtendedId(word & EFF_MASK));
            return Ok(Self::filled(id, FrameKind::Error, payload));
        }
        let id = Id::from_word(word);
        if word & RTR_FLAG != 0 { Self::remote(id, len) } else { Self::data(id, payload) }
    }
}

impl fmt::Debug for Frame {
    /// The candump short form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", super::candump::Short(self))
    }
}

/// The smallest length that CAN FD can express and that holds `len` bytes; 64 for anything larger.
#[must_use]
pub fn fd_length(len: u8) -> u8 {
    FD_LENGTHS.iter().copied().find(|l| *l >= len).unwrap_or(64)
}

/// Whether a frame of this kind can have exactly this length.
#[must_use]
pub fn is_valid_length(len: usize, fd: bool) -> bool {
    if fd { FD_LENGTHS.iter().any(|l| usize::from(*l) == len) } else { len <= CLASSIC_DATA }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sff(raw: u32) -> Id {
        Id::standard(raw).unwrap()
    }

    #[test]
    fn classic_frame_has_the_kernel_layout() {
        let mut out = [0xa5; FD_BYTES];
        let frame = Frame::data(sff(0x101), &[0xaa, 0xbb, 0xcc]).unwrap();
        assert_eq!(frame.to_bytes(&mut out), 16);
        let golden = [0x01, 0x01, 0, 0, 3, 0, 0, 0, 0xaa, 0xbb, 0xcc, 0, 0, 0, 0, 0];
        assert_eq!(out[..16], golden);
        assert_eq!(Frame::from_bytes(&golden), Ok(frame));
    }

    #[test]
    fn extended_and_remote_flags_have_the_kernel_layout() {
        let mut out = [0xa5; FD_BYTES];
        let frame = Frame::remote(Id::extended(0x18FE_F100).unwrap(), 8).unwrap();
        assert_eq!(frame.to_bytes(&mut out), 16);
        assert_eq!(out[..16], [0x00, 0xf1, 0xfe, 0xd8, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(frame.payload(), &[] as &[u8]);
        assert_eq!(frame.len(), 8);
    }

    #[test]
    fn fd_frame_has_the_kernel_layout() {
        let mut out = [0xa5; FD_BYTES];
        let frame = Frame::fd(sff(0x7ff), &[1; 9], true, false).unwrap();
        assert_eq!(frame.to_bytes(&mut out), 72);
        assert_eq!(out[..8], [0xff, 0x07, 0, 0, 12, 0x05, 0, 0]);
        assert_eq!(out[8..20], [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0]);
        assert!(out[20..].iter().all(|b| *b == 0));
        assert_eq!(Frame::from_bytes(&out), Ok(frame));
    }

    #[test]
    fn bits_that_no_wire_carries_change_nothing() {
        // Row 92: 0x101 with bits 11 to 28 set and no extended flag leaves the driver as 0x101.
        let mut bytes = [0_u8; 16];
        bytes[0..4].copy_from_slice(&0x1FFF_F901_u32.to_ne_bytes());
        bytes[4..8].copy_from_slice(&[2, 0xff, 0xff, 0x0f]);
        bytes[8..].copy_from_slice(&[1, 2, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee]);
        assert_eq!(Frame::from_bytes(&bytes), Frame::data(sff(0x101), &[1, 2]));
    }

    #[test]
    fn the_same_number_in_the_other_encoding_is_another_id() {
        assert_ne!(sff(0x101), Id::extended(0x101).unwrap());
        assert_eq!(sff(0x101).raw(), Id::extended(0x101).unwrap().raw());
        assert_eq!(Id::standard(0x800), None);
        assert_eq!(Id::extended(0x2000_0000), None);
    }

    #[test]
    fn every_size_but_two_and_every_excess_length_is_refused() {
        let buffer = [0xa5_u8; 80];
        for size in 0..=80 {
            if size != 16 && size != 72 {
                assert_eq!(Frame::from_bytes(&buffer[..size]), Err(FrameError::Size));
            }
        }
        for len in 0..=255_u8 {
            let mut classic = [0; 16];
            classic[4] = len;
            assert_eq!(Frame::from_bytes(&classic).is_ok(), len <= 8, "classic {len}");
            classic[3] = 0x40; // remote, on a little-endian machine
            assert_eq!(Frame::from_bytes(&classic).is_ok(), len <= 8, "remote {len}");
            let mut fd = [0; 72];
            fd[4] = len;
            assert_eq!(Frame::from_bytes(&fd).is_ok(), len <= 64, "fd {len}");
        }
        let mut fd = [0; 72];
        fd[0..4].copy_from_slice(&RTR_FLAG.to_ne_bytes());
        assert_eq!(Frame::from_bytes(&fd), Err(FrameError::Kind));
        fd[0..4].copy_from_slice(&ERR_FLAG.to_ne_bytes());
        assert_eq!(Frame::from_bytes(&fd), Err(FrameError::Kind));
    }

    #[test]
    fn every_standard_id_in_every_disguise_is_found_out() {
        for raw in 0..=SFF_MASK {
            for high in [0, 0x800, 0x1FFF_F800] {
                for flag in [0, RTR_FLAG] {
                    let mut bytes = [0; 16];
                    bytes[0..4].copy_from_slice(&(raw | high | flag).to_ne_bytes());
                    let frame = Frame::from_bytes(&bytes).unwrap();
                    assert_eq!(frame.id(), sff(raw));
                    assert_eq!(frame.kind() == FrameKind::Remote, flag != 0);
                }
            }
        }
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        (any::<u32>(), 0..4_u8, prop::collection::vec(any::<u8>(), 0..=64), any::<bool>(), any::<bool>())
            .prop_map(|(word, kind, mut data, brs, esi)| {
                let id = Id::from_word(word);
                if kind != 2 {
                    data.truncate(8);
                }
                match kind {
                    0 => Frame::data(id, &data).unwrap(),
                    1 => Frame::remote(id, u8::try_from(data.len()).unwrap()).unwrap(),
                    2 => Frame::fd(id, &data, brs, esi).unwrap(),
                    _ => Frame::error(word, [brs.into(), 1, 2, 3, 4, 5, 6, esi.into()]),
                }
            })
    }

    proptest! {
        #[test]
        fn frame_to_bytes_and_back(frame in any_frame()) {
            let mut out = [0xa5; FD_BYTES];
            let size = frame.to_bytes(&mut out);
            prop_assert_eq!(Frame::from_bytes(&out[..size]), Ok(frame));
        }

        #[test]
        fn text_and_back(frame in any_frame()) {
            let text = super::super::candump::Short(&frame).to_string();
            prop_assert_eq!(super::super::candump::parse_frame(&text), Ok(frame));
        }

        #[test]
        fn any_bytes_give_a_canonical_frame_or_none(bytes in prop::collection::vec(any::<u8>(), 0..=80), fd in any::<bool>()) {
            let mut bytes = bytes;
            bytes.resize(if fd { 72 } else { 16 }, 0x5a);
            bytes[4] &= 0x4f;
            if let Ok(frame) = Frame::from_bytes(&bytes) {
                let mut out = [0xa5; FD_BYTES];
                let size = frame.to_bytes(&mut out);
                prop_assert_eq!(Frame::from_bytes(&out[..size]), Ok(frame));
                prop_assert!(is_valid_length(frame.len(), frame.is_fd()));
            }
        }
    }

    #[test]
    fn bits_on_a_wire_are_those_of_the_standard() {
        let standard = Id::standard(0x123).unwrap();
        let extended = Id::extended(0x123).unwrap();
        // 47 and 67 bits around the data: the figures that every table of CAN frames gives.
        assert_eq!(Frame::data(standard, &[]).unwrap().wire_bits(), (47, 0));
        assert_eq!(Frame::data(standard, &[0; 8]).unwrap().wire_bits(), (111, 0));
        assert_eq!(Frame::data(extended, &[0; 8]).unwrap().wire_bits(), (131, 0));
        assert_eq!(Frame::remote(standard, 8).unwrap().wire_bits(), (47, 0));
        assert_eq!(Frame::fd(standard, &[0; 8], true, false).unwrap().wire_bits(), (29, 96));
        assert_eq!(Frame::fd(standard, &[0; 8], false, false).unwrap().wire_bits(), (125, 0));
        assert_eq!(Frame::fd(extended, &[0; 64], true, false).unwrap().wire_bits(), (48, 549));
        assert_eq!(Frame::error(0x40, [0; 8]).wire_bits(), (0, 0));
    }
}
