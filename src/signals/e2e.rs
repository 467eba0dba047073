//! Alive counters and checksums.
//!
//! Owns the arithmetic that lets a receiver notice a lost, repeated or damaged frame. Relies on `bits`. Never
//! decides what such a frame means, never allocates.

use crc::{CRC_8_AUTOSAR, CRC_8_SAE_J1850, Crc, Table};

use super::bits::{BitsError, Codec};

// Tables are computed at compile time; 256 bytes each.
static SAE_J1850: Crc<u8, Table<1>> = Crc::<u8, Table<1>>::new(&CRC_8_SAE_J1850);
static AUTOSAR_H2F: Crc<u8, Table<1>> = Crc::<u8, Table<1>>::new(&CRC_8_AUTOSAR);

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

/// What a received counter says about the frame before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Exactly one further: nothing was lost.
    Next,
    /// The same again: the sender repeats itself, or is frozen.
    Repeated,
    /// This many further, 2 to `modulo` - 1: frames were lost, or another sender writes.
    Jumped(u32),
    /// Not a value that this counter can have.
    Invalid,
}

impl CounterPlan {
    /// The value after `count`; 0 after the last one and after anything that is no value of this counter.
    #[must_use]
    pub const fn next(&self, count: u32) -> u32 {
        match count.checked_add(1) {
            Some(next) if next < self.modulo => next,
            _ => 0,
        }
    }

    /// Writes the counter.
    ///
    /// # Errors
    /// [`BitsError`] where the count does not fit its bits or the payload does not hold them; the data is unchanged.
    pub fn apply(&self, data: &mut [u8], count: u32) -> Result<(), BitsError> {
        self.codec.encode_raw(data, u64::from(count))
    }

    /// Reads the counter; `None` where the payload does not hold it.
    #[must_use]
    pub fn read(&self, data: &[u8]) -> Option<u32> {
        u32::try_from(self.codec.decode_raw(data)?).ok()
    }

    /// How `current` follows `previous`.
    #[must_use]
    pub const fn step(&self, previous: u32, current: u32) -> Step {
        if current >= self.modulo {
            return Step::Invalid;
        }
        let previous = if previous < self.modulo { previous } else { 0 };
        let ahead = if current >= previous { current - previous } else { self.modulo - (previous - current) };
        match ahead {
            0 => Step::Repeated,
            1 => Step::Next,
            more => Step::Jumped(more),
        }
    }
}

impl ChecksumPlan {
    /// The checksum of this payload: over the data id (if there is one) and every byte but the checksum's own.
    #[must_use]
    pub fn compute(&self, data: &[u8]) -> u8 {
        let own = self.codec.aligned_byte().unwrap_or(usize::MAX);
        let (before, after) = match data.get(own..) {
            Some([_, after @ ..]) => (data.get(..own).unwrap_or_default(), after),
            _ => (data, [].as_slice()),
        };
        let id = self.data_id.map(u16::to_le_bytes);
        let parts = [id.as_ref().map_or([].as_slice(), |bytes| bytes.as_slice()), before, after];
        match self.algorithm {
            Algorithm::Xor => parts.iter().copied().flatten().fold(0, |sum, byte| sum ^ byte),
            Algorithm::Sum => {
                parts.iter().copied().flatten().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
            }
            Algorithm::Crc8SaeJ1850 => crc8(&SAE_J1850, parts),
            Algorithm::Crc8AutosarH2f => crc8(&AUTOSAR_H2F, parts),
        }
    }

    /// Computes the checksum and writes it: the last thing that is done to a payload.
    ///
    /// # Errors
    /// [`BitsError`] where the payload does not hold the checksum; the data is unchanged then.
    pub fn apply(&self, data: &mut [u8]) -> Result<(), BitsError> {
        let sum = self.compute(data);
        self.codec.encode_raw(data, u64::from(sum))
    }

    /// Whether the payload carries the checksum it should; false where it does not hold one.
    #[must_use]
    pub fn verify(&self, data: &[u8]) -> bool {
        self.codec.decode_raw(data) == Some(u64::from(self.compute(data)))
    }
}

fn crc8(crc: &'static Crc<u8, Table<1>>, parts: [&[u8]; 3]) -> u8 {
    let mut digest = crc.digest();
    for part in parts {
        digest.update(part);
    }
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::bits::{ByteOrder, Raw};
    use proptest::prelude::*;

    const ALL: [Algorithm; 4] =
        [Algorithm::Xor, Algorithm::Sum, Algorithm::Crc8SaeJ1850, Algorithm::Crc8AutosarH2f];

    fn at(byte: u16) -> Codec {
        Codec {
            start: byte * 8,
            bits: 8,
            order: ByteOrder::Little,
            raw: Raw::Unsigned,
            factor: 1.0,
            offset: 0.0,
        }
    }

    fn plan(byte: u16, algorithm: Algorithm, data_id: Option<u16>) -> ChecksumPlan {
        ChecksumPlan { codec: at(byte), algorithm, data_id }
    }

    /// CRC-8 bit by bit, as the definitions print it: the second opinion for the tables.
    fn by_definition(poly: u8, bytes: &[u8]) -> u8 {
        let mut crc = 0xFF_u8;
        for byte in bytes {
            crc ^= byte;
            for _ in 0..8 {
                crc = if crc & 0x80 != 0 { (crc << 1) ^ poly } else { crc << 1 };
            }
        }
        crc ^ 0xFF
    }

    #[test]
    fn the_published_check_values() {
        // The catalogue of CRC algorithms gives these for the text "123456789".
        let mut data = *b"123456789_";
        for (algorithm, check) in [(Algorithm::Crc8SaeJ1850, 0x4B), (Algorithm::Crc8AutosarH2f, 0xDF)] {
            let plan = plan(9, algorithm, None);
            assert_eq!(plan.compute(&data), check);
            plan.apply(&mut data).unwrap();
            assert_eq!(data[9], check);
            assert!(plan.verify(&data));
        }
    }

    #[test]
    fn autosar_profile_vectors() {
        // AUTOSAR "Specification of CRC Routines": example sequences for CRC8 (0x1D) and CRC8H2F (0x2F).
        let cases: [(&[u8], u8, u8); 7] = [
            (&[0x00, 0x00, 0x00, 0x00], 0x59, 0x12),
            (&[0xF2, 0x01, 0x83], 0x37, 0xC2),
            (&[0x0F, 0xAA, 0x00, 0x55], 0x79, 0xC6),
            (&[0x00, 0xFF, 0x55, 0x11], 0xB8, 0x77),
            (&[0x33, 0x22, 0x55, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF], 0xCB, 0x11),
            (&[0x92, 0x6B, 0x55], 0x8C, 0x33),
            (&[0xFF, 0xFF, 0xFF, 0xFF], 0x74, 0x6C),
        ];
        for (bytes, j1850, h2f) in cases {
            // No byte of its own: the checksum lies beyond this data.
            assert_eq!(plan(60, Algorithm::Crc8SaeJ1850, None).compute(bytes), j1850, "{bytes:02x?}");
            assert_eq!(plan(60, Algorithm::Crc8AutosarH2f, None).compute(bytes), h2f, "{bytes:02x?}");
        }
    }

    #[test]
    fn the_data_id_goes_first_low_byte_first() {
        let payload = [0x11, 0x22, 0x00, 0x44];
        let with = plan(2, Algorithm::Crc8SaeJ1850, Some(0xBEEF)).compute(&payload);
        assert_eq!(with, by_definition(0x1D, &[0xEF, 0xBE, 0x11, 0x22, 0x44]));
        assert_eq!(plan(2, Algorithm::Xor, Some(0x0102)).compute(&payload), 0x11 ^ 0x22 ^ 0x44 ^ 1 ^ 2);
        assert_eq!(plan(2, Algorithm::Sum, Some(0xFFFE)).compute(&payload), 0x77_u8.wrapping_add(0xFD));
    }

    #[test]
    fn a_payload_without_room_for_the_checksum_is_refused() {
        let plan = plan(7, Algorithm::Sum, None);
        let mut data = [1; 7];
        assert_eq!(plan.apply(&mut data), Err(BitsError::OutsideFrame));
        assert!(!plan.verify(&data));
        assert!(!plan.verify(&[]));
    }

    #[test]
    fn counters_of_every_modulo_go_round() {
        for bits in 1..=8_u8 {
            for modulo in 2..=1_u32 << bits {
                let counter = CounterPlan { codec: Codec { bits, ..at(0) }, modulo };
                let mut count = 0;
                let mut data = [0; 1];
                for turn in 0..2 * modulo {
                    assert_eq!(count, turn % modulo);
                    counter.apply(&mut data, count).unwrap();
                    assert_eq!(counter.read(&data), Some(count));
                    let next = counter.next(count);
                    assert_eq!(counter.step(count, next), Step::Next);
                    assert_eq!(counter.step(count, count), Step::Repeated);
                    for ahead in 2..modulo {
                        assert_eq!(counter.step(count, (count + ahead) % modulo), Step::Jumped(ahead));
                    }
                    assert_eq!(counter.step(count, modulo), Step::Invalid);
                    count = next;
                }
                assert_eq!(counter.next(u32::MAX), 0);
            }
        }
    }

    proptest! {
        #[test]
        fn every_single_bit_error_is_noticed(
            mut data in prop::collection::vec(any::<u8>(), 2..=64), which in 0..4_usize,
            place in any::<prop::sample::Index>(), flip in any::<prop::sample::Index>(), id: Option<u16>
        ) {
            let byte = u16::try_from(place.index(data.len())).unwrap();
            let plan = plan(byte, ALL[which], id);
            plan.apply(&mut data).unwrap();
            prop_assert!(plan.verify(&data));
            let bit = flip.index(data.len() * 8);
            data[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!plan.verify(&data));
        }

        #[test]
        fn crcs_agree_with_their_definition(data in prop::collection::vec(any::<u8>(), 0..=64)) {
            let beyond = 100;
            prop_assert_eq!(plan(beyond, Algorithm::Crc8SaeJ1850, None).compute(&data), by_definition(0x1D, &data));
            prop_assert_eq!(plan(beyond, Algorithm::Crc8AutosarH2f, None).compute(&data), by_definition(0x2F, &data));
        }
    }
}
