//! A short name for the exact content of a configuration.
//!
//! Owns FNV-1a with 64 bits. Relies on nothing. Never a proof: it tells versions apart, not friends from attackers.

/// Hash of several files in a row.
#[derive(Debug)]
pub(super) struct Digest(u64);

impl Digest {
    /// Offset basis and prime of FNV-1a, 64 bits.
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;

    pub(super) const fn new() -> Self {
        Self(Self::BASIS)
    }

    /// Adds one file, length first, so that bytes cannot wander from one file to the next unseen.
    pub(super) fn file(&mut self, bytes: &[u8]) {
        self.bytes(&(bytes.len() as u64).to_le_bytes());
        self.bytes(bytes);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(Self::PRIME);
        }
    }

    /// 16 hexadecimal digits.
    pub(super) fn hex(&self) -> String {
        format!("{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_test_value_of_fnv_1a_comes_out() {
        let mut digest = Digest::new();
        digest.bytes(b"foobar");
        assert_eq!(digest.hex(), "85944171f73967e8");
    }

    #[test]
    fn a_byte_that_moves_to_the_next_file_changes_the_digest() {
        let of = |files: &[&[u8]]| {
            let mut digest = Digest::new();
            files.iter().for_each(|f| digest.file(f));
            digest.hex()
        };
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
        assert_eq!(of(&[b"ab", b"c"]), of(&[b"ab", b"c"]));
    }
}
