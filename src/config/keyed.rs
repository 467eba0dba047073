//! Keys of the file that stand for values of a signal.
//!
//! Owns the reading of such a key. Relies on [`Described`] for the names and the bits. Never rounds: what the signal cannot say
//! is no key.

use super::problem::{Findings, nearest};
use super::reader::Item;
use super::shape::Described;
use super::short::Short;

/// Bytes of the longest payload.
const FRAME_BYTES: usize = 64;

/// The value that a key of the file stands for: a number as text, or a name of the DBC. It is the very number that the
/// signal reads then, so that both can be compared: with a factor of 0.1, three steps are not 0.3.
pub(super) fn keyed(item: &Item, findings: &Findings, signal: &Described) -> Option<f64> {
    let named = signal.names.iter().find(|(name, _)| *name == item.key).map(|(_, value)| *value);
    let number = || {
        let number = item.key.parse().ok().filter(|number| signal.codec.carries(*number))?;
        let mut data = [0; FRAME_BYTES];
        signal.codec.encode(&mut data, number).ok()?;
        signal.codec.decode(&data)
    };
    if let Some(value) = named.or_else(number).filter(|value| (signal.low..=signal.high).contains(value)) {
        return Some(value);
    }
    let names: Vec<&str> = signal.names.iter().map(|(name, _)| name.as_str()).collect();
    let (low, high) = (Short(signal.low), Short(signal.high));
    let mut reason = format!("is no value of {}, which goes from {low} to {high}", signal.name);
    if !names.is_empty() {
        reason = format!("{reason} and has the names: {}", names.join(", "));
    }
    findings.at_like(item, reason, nearest(&item.key, names));
    None
}
