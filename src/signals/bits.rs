//! A signal's bits in a frame's payload.
//!
//! Owns packing, unpacking and scaling for both byte orders. Relies on nothing. Never allocates, never panics, never
//! writes outside the signal's own bits.

use core::fmt;

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

/// Why a value was not written. The data is unchanged, so the frame keeps what stood there before; a caller that
/// sends must treat this as a fault of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BitsError {
    /// The value does not fit into the signal's bits.
    OutOfRange,
    /// The value, or what the scaling makes of it, is not a number or infinite.
    NotFinite,
    /// The signal's bits do not lie within this payload, or the codec itself is impossible.
    OutsideFrame,
}

impl fmt::Display for BitsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfRange => "value does not fit into the signal's bits",
            Self::NotFinite => "value is not a finite number",
            Self::OutsideFrame => "signal does not lie within the payload",
        })
    }
}

impl core::error::Error for BitsError {}

/// A value is carried as it is where what is read back differs by no more than this share of a step: the digits of a
/// factor in a DBC file are no better.
const STEP_SHARE: f64 = 1e-6;

/// Where the bits lie in memory: a run of at most nine bytes, read as one integer in the signal's byte order.
#[derive(Clone, Copy)]
struct Span {
    first: usize,
    bytes: usize,
    /// How far the integer is shifted to bring the signal's least significant bit to bit 0.
    shift: u32,
}

impl Codec {
    /// Whether all bits lie within a payload of this many bytes, and the codec is one that can exist: 1 to 64 bits,
    /// 32 or 64 for a float.
    #[must_use]
    pub fn fits(&self, len_bytes: usize) -> bool {
        let width = match self.raw {
            Raw::Float => matches!(self.bits, 32 | 64),
            Raw::Unsigned | Raw::Signed => matches!(self.bits, 1..=64),
        };
        width && self.network_start() + usize::from(self.bits) <= len_bytes.saturating_mul(8)
    }

    /// The DBC bit numbers (byte * 8 + bit, bit 0 the least significant) that the signal covers, from its own least
    /// significant bit to its most significant one.
    pub fn bit_positions(&self) -> impl Iterator<Item = u16> + use<> {
        let codec = *self;
        (0..u16::from(codec.bits)).map(move |i| match codec.order {
            ByteOrder::Little => codec.start.saturating_add(i),
            ByteOrder::Big => {
                // Count from the most significant bit: bytes upwards, bits within a byte downwards.
                let from_msb = u16::from(codec.bits) - 1 - i;
                let n = (codec.start / 8 * 8 + 7 - codec.start % 8).saturating_add(from_msb);
                n / 8 * 8 + (7 - n % 8)
            }
        })
    }

    /// The byte this signal covers exactly, if it is eight bits on a byte boundary.
    #[must_use]
    pub const fn aligned_byte(&self) -> Option<usize> {
        let at_edge = match self.order {
            ByteOrder::Little => self.start.is_multiple_of(8),
            ByteOrder::Big => self.start % 8 == 7,
        };
        if self.bits == 8 && at_edge { Some((self.start / 8) as usize) } else { None } // widening
    }

    /// Smallest and largest raw value that an `f64` can name and the bits can hold. Above 53 bits the end is the
    /// nearest `f64` inside the range.
    #[must_use]
    pub fn raw_range(&self) -> (f64, f64) {
        match self.raw {
            Raw::Unsigned => (0.0, largest_below(u32::from(self.bits.min(64)))),
            Raw::Signed => {
                let bits = u32::from(self.bits.clamp(1, 64)) - 1;
                (-power_of_two(bits), largest_below(bits))
            }
            Raw::Float if self.bits == 32 => (f64::from(f32::MIN), f64::from(f32::MAX)),
            Raw::Float => (f64::MIN, f64::MAX),
        }
    }

    /// Smallest and largest physical value that the bits can carry.
    #[must_use]
    pub fn physical_range(&self) -> (f64, f64) {
        let (low, high) = self.raw_range();
        let (a, b) = (self.scaled(low), self.scaled(high));
        if a <= b { (a, b) } else { (b, a) }
    }

    /// Whether the bits can carry this physical value as it is: what is read back differs by no more than a millionth
    /// of a step (of the value, where that is smaller than a step, and for floats).
    #[must_use]
    pub fn carries(&self, value: f64) -> bool {
        let Ok(raw) = self.unscaled(value) else { return false };
        let (low, high) = self.raw_range();
        if raw < low || raw > high {
            return false;
        }
        let size = value.abs() + self.offset.abs();
        // A step is no measure for a value that is far below one step.
        let measure = if self.raw == Raw::Float { size } else { self.factor.abs().min(value.abs()) };
        // Four roundings lie between a value and itself.
        let noise = 4.0 * f64::EPSILON * size;
        (self.scaled(self.held(raw)) - value).abs() <= STEP_SHARE * measure + noise
    }

    /// The physical values next to this one that the bits can carry, the lower one first; twice the value itself
    /// where it is one of them. `None` for what is not a number or lies beyond the bits.
    #[must_use]
    pub fn neighbours(&self, value: f64) -> Option<(f64, f64)> {
        if self.carries(value) {
            return Some((value, value));
        }
        let raw = (value - self.offset) / self.factor;
        let (low, high) = self.raw_range();
        // Not a number is not inside either.
        if !(raw >= low && raw <= high) {
            return None;
        }
        let (below, above) = if self.raw != Raw::Float {
            (raw.floor(), raw.ceil())
        } else if self.bits == 32 {
            // Within the range of f32; rounds to the nearest, so one of its own neighbours is on the other side.
            let near = raw as f32;
            let wide = f64::from(near);
            if wide <= raw { (wide, f64::from(near.next_up())) } else { (f64::from(near.next_down()), wide) }
        } else {
            (raw.next_down(), raw.next_up())
        };
        let (a, b) = (self.scaled(below), self.scaled(above));
        Some(if a <= b { (a, b) } else { (b, a) })
    }

    /// The lowest and the highest value between `low` and `high` that the bits can carry; `low` and `high` themselves
    /// where they are. Whatever lies between the two is also written and read between them. `None` where there are
    /// not two such values, so that nothing can move.
    #[must_use]
    pub fn within(&self, low: f64, high: f64) -> Option<(f64, f64)> {
        let (_, from) = self.neighbours(low)?;
        let (to, _) = self.neighbours(high)?;
        // Twice the same value is carried by rounding a tiny range to one step.
        (from < to && self.unscaled(from).ok()? != self.unscaled(to).ok()?).then_some((from, to))
    }

    /// Writes a physical value: to the nearest raw value, halves to the even one (as Python's `round`, which
    /// cantools uses). Bits of other signals stay as they are.
    ///
    /// # Errors
    /// [`BitsError`]; the data is unchanged then.
    pub fn encode(&self, data: &mut [u8], value: f64) -> Result<(), BitsError> {
        let raw = self.unscaled(value)?;
        let (low, high) = self.raw_range();
        if raw < low || raw > high {
            return Err(BitsError::OutOfRange);
        }
        self.encode_raw(data, self.pattern(raw))
    }

    /// Writes a physical value as [`Codec::encode`] does, and the nearest end of the raw range for a finite value
    /// that lies outside it.
    ///
    /// # Errors
    /// [`BitsError::NotFinite`] and [`BitsError::OutsideFrame`]; the data is unchanged then.
    pub fn encode_saturating(&self, data: &mut [u8], value: f64) -> Result<(), BitsError> {
        let raw = match self.unscaled(value) {
            // A tiny factor can carry a finite value beyond every f64; its sign still says which end is meant.
            Err(BitsError::OutOfRange) if (value > self.offset) == (self.factor > 0.0) => f64::MAX,
            Err(BitsError::OutOfRange) => f64::MIN,
            other => other?,
        };
        let (low, high) = self.raw_range();
        self.encode_raw(data, self.pattern(raw.clamp(low, high)))
    }

    /// The physical value, or `None` where the payload does not hold the signal. A float signal may read as not a
    /// number or infinite: whoever acts on the value asks `is_finite`.
    #[must_use]
    pub fn decode(&self, data: &[u8]) -> Option<f64> {
        let bits = self.decode_raw(data)?;
        let raw = match self.raw {
            // Above 53 bits the nearest f64 is the physical value.
            Raw::Unsigned => bits as f64,
            // Above 53 bits the nearest f64 is the physical value.
            Raw::Signed => self.sign_extended(bits) as f64,
            Raw::Float if self.bits == 32 => f64::from(f32::from_bits(u32::try_from(bits).ok()?)),
            Raw::Float => f64::from_bits(bits),
        };
        Some(self.scaled(raw))
    }

    /// The raw value as an integer, sign included: what a DBC value name stands for. `None` for floats, for unsigned
    /// values above `i64::MAX` and where the payload does not hold the signal.
    #[must_use]
    pub fn decode_integer(&self, data: &[u8]) -> Option<i64> {
        let bits = self.decode_raw(data)?;
        match self.raw {
            Raw::Unsigned => i64::try_from(bits).ok(),
            Raw::Signed => Some(self.sign_extended(bits)),
            Raw::Float => None,
        }
    }

    /// Writes the bit pattern: the low `bits` bits of `pattern`.
    ///
    /// # Errors
    /// [`BitsError::OutOfRange`] where a higher bit is set, [`BitsError::OutsideFrame`]; the data is unchanged then.
    pub fn encode_raw(&self, data: &mut [u8], pattern: u64) -> Result<(), BitsError> {
        if !self.fits(data.len()) {
            return Err(BitsError::OutsideFrame);
        }
        let mask = mask(self.bits);
        if pattern & !mask != 0 {
            return Err(BitsError::OutOfRange);
        }
        let span = self.span();
        let keep = !(u128::from(mask) << span.shift);
        let set = u128::from(pattern) << span.shift;
        let bytes = data.get_mut(span.first..span.first + span.bytes).ok_or(BitsError::OutsideFrame)?;
        for (i, byte) in bytes.iter_mut().enumerate() {
            let at = self.byte_shift(span, i);
            *byte = (*byte & low_byte(keep >> at)) | low_byte(set >> at);
        }
        Ok(())
    }

    /// The bit pattern in the low `bits` bits, without sign extension; `None` where the payload does not hold it.
    #[must_use]
    pub fn decode_raw(&self, data: &[u8]) -> Option<u64> {
        if !self.fits(data.len()) {
            return None;
        }
        let span = self.span();
        let bytes = data.get(span.first..span.first + span.bytes)?;
        let mut all = 0_u128;
        for (i, byte) in bytes.iter().enumerate() {
            all |= u128::from(*byte) << self.byte_shift(span, i);
        }
        u64::try_from((all >> span.shift) & u128::from(mask(self.bits))).ok()
    }

    /// Bits of the frame before the first one of this signal, counted in the signal's own direction.
    fn network_start(&self) -> usize {
        let start = usize::from(self.start);
        match self.order {
            ByteOrder::Little => start,
            ByteOrder::Big => start / 8 * 8 + 7 - start % 8,
        }
    }

    fn span(&self) -> Span {
        let start = self.network_start();
        let lead = start % 8;
        let used = lead + usize::from(self.bits.min(64));
        let bytes = used.div_ceil(8);
        let below = match self.order {
            ByteOrder::Little => lead,
            ByteOrder::Big => bytes * 8 - used,
        };
        Span { first: start / 8, bytes, shift: u32::try_from(below).unwrap_or(0) } // 0 to 7
    }

    /// Place of the span's byte `i` in the integer.
    fn byte_shift(&self, span: Span, i: usize) -> u32 {
        let place = match self.order {
            ByteOrder::Little => i,
            ByteOrder::Big => span.bytes - 1 - i,
        };
        u32::try_from(place * 8).unwrap_or(0) // 0 to 64
    }

    /// The raw value as the bits hold it.
    fn held(&self, raw: f64) -> f64 {
        // Within the range of f32; rounds to the nearest.
        if self.raw == Raw::Float && self.bits == 32 { f64::from(raw as f32) } else { raw }
    }

    fn scaled(&self, raw: f64) -> f64 {
        raw * self.factor + self.offset
    }

    /// The raw value for a physical one, a whole number unless the signal is a float. `OutOfRange` where it is beyond
    /// every `f64`.
    fn unscaled(&self, value: f64) -> Result<f64, BitsError> {
        if !value.is_finite() {
            return Err(BitsError::NotFinite);
        }
        let raw = (value - self.offset) / self.factor;
        if raw.is_nan() {
            return Err(BitsError::NotFinite);
        }
        if raw.is_infinite() {
            return Err(BitsError::OutOfRange);
        }
        Ok(if self.raw == Raw::Float { raw } else { raw.round_ties_even() })
    }

    /// The bits of a raw value that lies within [`Codec::raw_range`].
    fn pattern(&self, raw: f64) -> u64 {
        let bits = match self.raw {
            // Whole and in range; saturates.
            Raw::Unsigned => raw as u64,
            // Whole and in range; saturates.
            Raw::Signed => (raw as i64).cast_unsigned(),
            // Within the range of f32; rounds to the nearest.
            Raw::Float if self.bits == 32 => u64::from((raw as f32).to_bits()),
            Raw::Float => raw.to_bits(),
        };
        bits & mask(self.bits)
    }

    fn sign_extended(&self, bits: u64) -> i64 {
        let unused = 64 - u32::from(self.bits.clamp(1, 64));
        (bits << unused).cast_signed() >> unused
    }
}

/// Ones in the low `bits` bits.
const fn mask(bits: u8) -> u64 {
    match bits {
        0 => 0,
        1..=63 => u64::MAX >> (64 - bits),
        64.. => u64::MAX,
    }
}

// Masked to eight bits.
const fn low_byte(x: u128) -> u8 {
    (x & 0xFF) as u8
}

/// 2 to the `n`, 0 to 64: exact.
// A power of two is exact.
fn power_of_two(n: u32) -> f64 {
    (1_u128 << n.min(64)) as f64
}

/// The largest `f64` that is a whole number below 2 to the `n`, 0 to 64.
fn largest_below(n: u32) -> f64 {
    if n <= 53 { power_of_two(n) - 1.0 } else { power_of_two(n).next_down() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn codec(start: u16, bits: u8, order: ByteOrder, raw: Raw) -> Codec {
        Codec { start, bits, order, raw, factor: 1.0, offset: 0.0 }
    }

    #[test]
    fn known_layouts() {
        let mut data = [0; 8];
        codec(4, 12, ByteOrder::Little, Raw::Unsigned).encode(&mut data, 2748.0).unwrap(); // 0xABC
        assert_eq!(data, [0xC0, 0xAB, 0, 0, 0, 0, 0, 0]);
        let mut data = [0; 8];
        codec(3, 12, ByteOrder::Big, Raw::Unsigned).encode(&mut data, 2748.0).unwrap();
        assert_eq!(data, [0x0A, 0xBC, 0, 0, 0, 0, 0, 0]);
        let mut data = [0xFF; 8];
        codec(7, 16, ByteOrder::Big, Raw::Signed).encode(&mut data, -2.0).unwrap();
        assert_eq!(data, [0xFF, 0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);
        let mut data = [0; 8];
        codec(0, 32, ByteOrder::Little, Raw::Float).encode(&mut data, 1.5).unwrap();
        assert_eq!(data, [0, 0, 0xC0, 0x3F, 0, 0, 0, 0]);
    }

    #[test]
    fn positions_name_the_dbc_bits() {
        let little: Vec<u16> = codec(6, 4, ByteOrder::Little, Raw::Unsigned).bit_positions().collect();
        assert_eq!(little, [6, 7, 8, 9]);
        // Motorola from bit 1 of byte 0 downwards, then bit 7 of byte 1.
        let big: Vec<u16> = codec(1, 4, ByteOrder::Big, Raw::Unsigned).bit_positions().collect();
        assert_eq!(big, [14, 15, 0, 1]);
        assert_eq!(codec(8, 8, ByteOrder::Little, Raw::Unsigned).aligned_byte(), Some(1));
        assert_eq!(codec(15, 8, ByteOrder::Big, Raw::Unsigned).aligned_byte(), Some(1));
        assert_eq!(codec(8, 8, ByteOrder::Big, Raw::Unsigned).aligned_byte(), None);
    }

    #[test]
    fn every_place_and_length_touches_its_own_bits_only() {
        // Every start bit and length that fits 8 bytes (and the 64-byte end), both orders: all ones into zeros and
        // zeros into ones change exactly the bits that `bit_positions` names.
        for order in [ByteOrder::Little, ByteOrder::Big] {
            for len in [8_usize, 64] {
                for start in 0..520_u16 {
                    for bits in 0..=70_u8 {
                        let c = codec(start, bits, order, Raw::Unsigned);
                        let mut ones = vec![0xFF; len];
                        if !c.fits(len) {
                            assert_eq!(c.encode_raw(&mut ones, 0), Err(BitsError::OutsideFrame));
                            assert_eq!(c.decode_raw(&ones), None);
                            assert_eq!(c.decode(&ones), None);
                            continue;
                        }
                        let mut expected = vec![0_u8; len];
                        for p in c.bit_positions() {
                            expected[usize::from(p / 8)] |= 1 << (p % 8);
                        }
                        let mut zeros = vec![0; len];
                        c.encode_raw(&mut zeros, mask(bits)).unwrap();
                        assert_eq!(zeros, expected, "{c:?}");
                        assert_eq!(c.decode_raw(&zeros), Some(mask(bits)));
                        c.encode_raw(&mut ones, 0).unwrap();
                        assert!(ones.iter().zip(&expected).all(|(a, b)| *a == !*b), "{c:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_raw_value_of_small_signals_survives_and_every_other_value_is_refused() {
        // Row 48: the whole raw range of every length up to 12 bits, and what lies just outside.
        for order in [ByteOrder::Little, ByteOrder::Big] {
            for raw in [Raw::Unsigned, Raw::Signed] {
                for bits in 1..=12_u8 {
                    let mut c = codec(5, bits, order, raw);
                    c.factor = 0.25;
                    c.offset = -7.5;
                    let (low, high) = c.raw_range();
                    let mut x = low - 3.0;
                    while x <= high + 3.0 {
                        let value = x * c.factor + c.offset;
                        let mut data = [0xA5; 8];
                        let wanted =
                            if (low..=high).contains(&x) { Ok(()) } else { Err(BitsError::OutOfRange) };
                        assert_eq!(c.encode(&mut data, value), wanted, "{c:?} {x}");
                        c.encode_saturating(&mut data, value).unwrap();
                        assert_eq!(c.decode(&data), Some(x.clamp(low, high) * c.factor + c.offset));
                        x += 1.0;
                    }
                }
            }
        }
    }

    #[test]
    fn halves_go_to_the_even_raw_value() {
        let c = codec(0, 8, ByteOrder::Little, Raw::Signed);
        for (value, raw) in
            [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (-2.5, -2), (0.500_000_1, 1)]
        {
            let mut data = [0xEE; 1];
            c.encode(&mut data, value).unwrap();
            assert_eq!(data[0].cast_signed(), raw, "{value}");
        }
    }

    #[test]
    fn the_ends_of_wide_integers() {
        for (raw, bits) in [(Raw::Unsigned, 64), (Raw::Signed, 64), (Raw::Unsigned, 63), (Raw::Unsigned, 54)]
        {
            let c = codec(0, bits, ByteOrder::Little, raw);
            let (low, high) = c.raw_range();
            let mut data = [0; 8];
            c.encode(&mut data, high).unwrap();
            assert_eq!(c.decode(&data), Some(high));
            c.encode(&mut data, low).unwrap();
            assert_eq!(c.decode(&data), Some(low));
            assert_eq!(c.encode(&mut data, high.next_up()), Err(BitsError::OutOfRange));
            c.encode_saturating(&mut data, 1e300).unwrap();
            assert_eq!(c.decode(&data), Some(high));
        }
    }

    #[test]
    fn what_is_not_finite_is_refused_and_changes_nothing() {
        for raw in [Raw::Unsigned, Raw::Signed, Raw::Float] {
            let mut c = codec(0, 32, ByteOrder::Big, raw);
            c.start = 7;
            let mut data = [0x5A; 8];
            for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                assert_eq!(c.encode(&mut data, value), Err(BitsError::NotFinite));
                assert_eq!(c.encode_saturating(&mut data, value), Err(BitsError::NotFinite));
            }
            assert_eq!(data, [0x5A; 8]);
        }
        let mut c = codec(0, 8, ByteOrder::Little, Raw::Unsigned);
        c.factor = 1e-300;
        let mut data = [0; 1];
        assert_eq!(c.encode(&mut data, 1e300), Err(BitsError::OutOfRange));
        c.encode_saturating(&mut data, 1e300).unwrap();
        assert_eq!(data, [0xFF]);
        c.encode_saturating(&mut data, -1e300).unwrap();
        assert_eq!(data, [0]);
    }

    fn any_codec() -> impl Strategy<Value = Codec> {
        (
            any::<u16>(),
            any::<u8>(),
            any::<bool>(),
            0..3_u8,
            prop_oneof![Just(1.0), Just(0.1), Just(-0.5), Just(1e-7), any::<f64>()],
            prop_oneof![Just(0.0), -1e4..1e4, any::<f64>()],
        )
            .prop_map(|(start, bits, little, raw, factor, offset)| Codec {
                start: start % 600,
                bits: bits % 70,
                order: if little { ByteOrder::Little } else { ByteOrder::Big },
                raw: [Raw::Unsigned, Raw::Signed, Raw::Float][usize::from(raw)],
                factor,
                offset,
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn no_codec_and_no_value_panics_or_touches_foreign_bits(
            c in any_codec(), value in any::<f64>(), data in prop::collection::vec(any::<u8>(), 0..=64)
        ) {
            let mut after = data.clone();
            let encoded = c.encode_saturating(&mut after, value);
            if encoded.is_err() {
                prop_assert_eq!(&after, &data);
            }
            let mut own = [0_u8; 64];
            if c.fits(data.len()) {
                for p in c.bit_positions() {
                    own[usize::from(p / 8)] |= 1 << (p % 8);
                }
            }
            for (i, (a, b)) in after.iter().zip(&data).enumerate() {
                prop_assert_eq!(a & !own[i], b & !own[i]);
            }
            let _ = (c.decode(&after), c.decode_integer(&after), c.physical_range(), c.aligned_byte());
        }

        #[test]
        fn a_value_in_range_comes_back_within_half_a_step(
            start in 0..64_u16, bits in 1..=40_u8, little: bool, signed: bool, share in 0.0..=1.0_f64,
            factor in prop_oneof![Just(1.0), Just(0.1), Just(-0.03), 1e-6..1e3_f64], offset in -1e3..1e3_f64
        ) {
            let c = Codec {
                start, bits, factor, offset,
                order: if little { ByteOrder::Little } else { ByteOrder::Big },
                raw: if signed { Raw::Signed } else { Raw::Unsigned },
            };
            let mut data = [0x5A; 64];
            let (low, high) = c.physical_range();
            let value = low + (high - low) * share;
            c.encode_saturating(&mut data, value).unwrap();
            let back = c.decode(&data).unwrap();
            prop_assert!((back - value).abs() <= factor.abs() * 0.5 + (high - low) * 1e-12, "{} {}", value, back);
        }
    }

    #[test]
    fn what_the_bits_carry_and_what_lies_next_to_it() {
        let scaled =
            |factor, offset| Codec { factor, offset, ..codec(0, 16, ByteOrder::Little, Raw::Unsigned) };
        assert_eq!(scaled(7.0, -4.0).neighbours(0.0), Some((-4.0, 3.0)));
        assert_eq!(scaled(7.0, -4.0).neighbours(3.0), Some((3.0, 3.0)));
        assert_eq!(scaled(-7.0, 10.0).neighbours(0.0), Some((-4.0, 3.0)));
        assert_eq!(scaled(1e308, 0.0).neighbours(30.0), Some((0.0, 1e308)));
        assert_eq!(scaled(1.0, 0.0).neighbours(-1.0), None);
        assert_eq!(scaled(1.0, 0.0).neighbours(f64::NAN), None);
        assert_eq!(scaled(40.0, 0.0).within(0.0, 110.0), Some((0.0, 80.0)));
        assert_eq!(scaled(40.0, 0.0).within(1.0, 79.0), None);
        assert_eq!(scaled(0.1, 0.0).within(0.0, 0.01), None);
        assert_eq!(scaled(0.1, 0.0).within(0.0, 0.3), Some((0.0, 0.3)));
        let float = codec(0, 32, ByteOrder::Little, Raw::Float);
        assert!(float.carries(0.1) && float.carries(1e6) && float.carries(0.0) && !float.carries(1e-300));
        assert_eq!(float.neighbours(1e-300), Some((0.0, f64::from(f32::from_bits(1)))));
        assert_eq!(float.within(-1.5, 2.5), Some((-1.5, 2.5)));
    }

    proptest! {
        #[test]
        fn rounding_stays_within_what_the_bits_carry(
            bits in 2..=16_u8, signed: bool, factor in 0.001..50.0_f64, falls: bool, offset in -100.0..100.0_f64,
            a in 0.0..=1.0_f64, b in 0.0..=1.0_f64, at in 0.0..=1.0_f64,
        ) {
            let raw = if signed { Raw::Signed } else { Raw::Unsigned };
            let factor = if falls { -factor } else { factor };
            let c = Codec { factor, offset, ..codec(0, bits, ByteOrder::Little, raw) };
            let (min, max) = c.physical_range();
            let at_share = |share: f64| min + (max - min) * share;
            let (low, high) = (at_share(a.min(b)), at_share(a.max(b)));
            if let Some((from, to)) = c.within(low, high) {
                prop_assert!(low <= from && from < to && to <= high && c.carries(from) && c.carries(to));
                let mut data = [0; 8];
                c.encode(&mut data, from + (to - from) * at).unwrap();
                let read = c.decode(&data).unwrap();
                // A millionth of a step is what `carries` allows.
                let slack = 1.1e-6 * factor.abs();
                prop_assert!(low - slack <= read && read <= high + slack, "{read} is not in {low} .. {high}");
            } else {
                prop_assert!(high - low < 2.0 * factor.abs());
            }
        }

        #[test]
        fn every_raw_value_is_carried(raw: i32, factor in 1e-9..1e9_f64, offset in -1e6..1e6_f64) {
            let c = Codec { factor, offset, ..codec(0, 32, ByteOrder::Little, Raw::Signed) };
            let value = f64::from(raw) * factor + offset;
            prop_assert!(c.carries(value), "{value}");
        }
    }
}
