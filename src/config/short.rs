//! Numbers as they are printed for a person.
//!
//! Owns the short form. Relies on nothing. Never changes a number that is used.

use std::fmt;

/// Digits that an `f64` always holds; what comes behind is noise of its arithmetic.
const DIGITS: usize = 15;

/// From here on a number is printed with an exponent: its digits would only fill the line.
const LARGE: f64 = 1e15;

/// Below this a number is printed with an exponent: its zeros would only fill the line.
const SMALL: f64 = 1e-9;

/// A number as a person reads and writes it: `0.3`, `1e300`. At most 15 digits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Short(pub f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One digit stands before the point. The largest numbers are printed as they are: rounded up they are none.
        let rounded = format!("{:.*e}", DIGITS - 1, self.0).parse().ok();
        let rounded: f64 = rounded.filter(|n: &f64| n.is_finite()).unwrap_or(self.0);
        let size = rounded.abs();
        if size >= LARGE && size.is_finite() || size > 0.0 && size < SMALL {
            write!(f, "{rounded:e}")
        } else {
            write!(f, "{rounded}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_read_back() {
        for (number, text) in [
            (0.0, "0"),
            (-4.0, "-4"),
            (0.1 + 0.2, "0.3"),
            (450.0, "450"),
            (1e-7, "0.0000001"),
            (65_535.0, "65535"),
            (4_294_967_295.0, "4294967295"),
            (1e300, "1e300"),
            (-1e300, "-1e300"),
            (1.5e-12, "1.5e-12"),
            (f64::MAX, "1.7976931348623157e308"),
            (f64::INFINITY, "inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(Short(number).to_string(), text);
        }
    }
}
