//! How a bus is named: `can0`, or `sim:NAME` for the built-in one.
//!
//! Owns the parsing. Relies on nothing. Never asks whether the bus exists.

use core::fmt;
use core::str::FromStr;

/// Name of a bus: 1 to 15 characters, the kernel's limit for an interface (`IFNAMSIZ` less its terminator), kept for
/// the built-in bus too so that logs and tunnels can hold either.
pub type BusName = heapless::String<15>;

/// A bus.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum BusAddress {
    /// A network interface of the kernel.
    Kernel(BusName),
    /// The built-in bus of that name.
    Sim(BusName),
}

/// The text names no bus. Consequence: the configuration or command line is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressError;

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a bus is an interface such as `can0` or a built-in bus `sim:NAME`, 1 to 15 letters, digits, `_`, `-`, `.`")
    }
}

impl core::error::Error for AddressError {}

impl FromStr for BusAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (sim, name) = match text.strip_prefix("sim:") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || !name.chars().all(plain) || name.chars().all(|c| c == '.') {
            return Err(AddressError);
        }
        let name = BusName::try_from(name).map_err(|_| AddressError)?;
        Ok(if sim { Self::Sim(name) } else { Self::Kernel(name) })
    }
}

impl BusAddress {
    /// Whether this is the built-in bus.
    #[must_use]
    pub const fn is_sim(&self) -> bool {
        matches!(self, Self::Sim(_))
    }

    /// The name without its prefix.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Kernel(name) | Self::Sim(name) => name,
        }
    }
}

impl fmt::Display for BusAddress {
    /// As it is written in a configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(name) => f.write_str(name),
            Self::Sim(name) => write!(f, "sim:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_read_and_written_alike() {
        for text in ["can0", "vcan0", "slcan-left.1", "sim:demo", "sim:a"] {
            let address: BusAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(address.is_sim(), text.starts_with("sim:"));
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "sim:", "can 0", "can/0", "a123456789012345", "sim:a:b", ".", "..", "kän0", "can0\n"]
        {
            assert_eq!(text.parse::<BusAddress>(), Err(AddressError), "{text:?}");
        }
    }
}
