//! Alive counters and checksums.
//!
//! Owns the arithmetic that lets a receiver notice a lost, repeated or damaged frame. Relies on `bits`. Never
//! decides what such a frame means.

use super::bits::Codec;

/// An alive counter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CounterPlan {
    /// Its place in the frame.
    pub codec: Codec,
    /// It counts 0, 1, .. `modulo` - 1, 0; 2 to 2^bits.
    pub modulo: u32,
}

/// A checksum of the other bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChecksumPlan {
    /// Its place in the frame: 8 bits on a byte boundary.
    pub codec: Codec,
    /// How it is computed.
    pub algorithm: Algorithm,
    /// Bytes that are put before the payload (low byte first), known to both ends.
    pub data_id: Option<u16>,
}

/// How a checksum is computed, over the payload without the checksum's own byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Exclusive or of all bytes.
    Xor,
    /// Sum of all bytes, modulo 256.
    Sum,
    /// CRC-8 SAE J1850: polynomial 0x1D, start 0xFF, final 0xFF.
    Crc8SaeJ1850,
    /// CRC-8 AUTOSAR H2F: polynomial 0x2F, start 0xFF, final 0xFF.
    Crc8AutosarH2f,
}
