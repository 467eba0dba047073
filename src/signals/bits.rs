//! A signal's bits in a frame's payload.
//!
//! Owns packing and unpacking for both byte orders. Relies on nothing. Never writes outside the signal's own bits.

/// How bytes of a signal follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteOrder {
    /// Intel: the start bit is the least significant one.
    Little,
    /// Motorola: the start bit is the most significant one, in the DBC's sawtooth numbering.
    Big,
}

/// What the raw bits are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raw {
    /// An unsigned integer.
    Unsigned,
    /// A two's complement integer.
    Signed,
    /// An IEEE 754 single (32 bits) or double (64 bits).
    Float,
}

/// Place and scale of one signal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Codec {
    /// DBC start bit, 0 to 511.
    pub start: u16,
    /// Length in bits, 1 to 64.
    pub bits: u8,
    /// Byte order.
    pub order: ByteOrder,
    /// What the bits are.
    pub raw: Raw,
    /// Physical = raw * factor + offset; never 0.
    pub factor: f64,
    /// See `factor`.
    pub offset: f64,
}
