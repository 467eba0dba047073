//! Text in code page 1252, which tools on Windows write DBC files in.
//!
//! Owns the table of the 32 bytes that differ from Unicode's first 256 characters (source: the Unicode consortium's mapping of
//! CP1252). A crate for it would bring every other code page along, a twentieth of the program. Never fails: the five bytes that the
//! code page does not define become the control characters of the same number, as web browsers read them.

/// What the bytes 0x80 to 0x9F stand for.
const HIGH: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', //
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// The text that these bytes are.
pub(super) fn decode(bytes: &[u8]) -> String {
    let character = |byte: &u8| match byte {
        0x80..=0x9F => HIGH.get(usize::from(byte - 0x80)).copied().unwrap_or(char::REPLACEMENT_CHARACTER),
        _ => char::from(*byte),
    };
    bytes.iter().map(character).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_the_character_that_the_mapping_has() {
        for byte in (0..=0x7F).chain(0xA0..=0xFF) {
            assert_eq!(decode(&[byte]), char::from(byte).to_string());
        }
        // Code points as the mapping lists them.
        let listed = [
            (0x80, 0x20AC),
            (0x82, 0x201A),
            (0x83, 0x0192),
            (0x84, 0x201E),
            (0x85, 0x2026),
            (0x86, 0x2020),
            (0x87, 0x2021),
            (0x88, 0x02C6),
            (0x89, 0x2030),
            (0x8A, 0x0160),
            (0x8B, 0x2039),
            (0x8C, 0x0152),
            (0x8E, 0x017D),
            (0x91, 0x2018),
            (0x92, 0x2019),
            (0x93, 0x201C),
            (0x94, 0x201D),
            (0x95, 0x2022),
            (0x96, 0x2013),
            (0x97, 0x2014),
            (0x98, 0x02DC),
            (0x99, 0x2122),
            (0x9A, 0x0161),
            (0x9B, 0x203A),
            (0x9C, 0x0153),
            (0x9E, 0x017E),
            (0x9F, 0x0178),
        ];
        for (byte, code) in listed {
            assert_eq!(decode(&[byte]), char::from_u32(code).unwrap().to_string(), "{byte:#x}");
        }
        for undefined in [0x81, 0x8D, 0x8F, 0x90, 0x9D] {
            assert_eq!(decode(&[undefined]), char::from(undefined).to_string());
        }
        assert_eq!(decode(b"25 \xB0C"), "25 °C");
    }
}
