//! The signals of a frame that protect it: enable bit, alive counter, checksum.
//!
//! Owns their keys and the checks on their bits. Relies on `signals::e2e` for what exists. Never computes one.

use super::buses::{described, signal};
use super::problem::Findings;
use super::reader::{Item, Table};
use crate::signals::bits::{Codec, Raw};
use crate::signals::dbc::{Message, Signal};
use crate::signals::e2e::{Algorithm, ChecksumPlan, CounterPlan};
use crate::signals::plan::EnablePlan;

/// Bits of a checksum.
const CHECKSUM_BITS: u8 = 8;

/// Most bits of an alive counter: its modulo is held in 32 bits.
const COUNTER_BITS: u8 = 31;

/// The checksums by the name they have in the file.
pub(super) const ALGORITHMS: [(&str, Algorithm); 4] = [
    ("xor", Algorithm::Xor),
    ("sum", Algorithm::Sum),
    ("crc8-sae-j1850", Algorithm::Crc8SaeJ1850),
    ("crc8-autosar-h2f", Algorithm::Crc8AutosarH2f),
];

/// A protecting signal with the place where it was named.
#[derive(Debug)]
pub(super) struct Named<'a, T> {
    pub(super) item: &'a Item,
    pub(super) signal: &'a str,
    pub(super) plan: T,
}

/// Reads `enable = { signal, stop }`.
pub(super) fn enable<'a>(table: &Table<'a>, message: &'a Message) -> Option<Named<'a, EnablePlan>> {
    let inner = table.table("enable")?;
    let found = named(&inner, message);
    let stop = inner.item("stop").map(|item| match item.flag_or_bit() {
        Some(bit) => bit,
        None => {
            inner.findings.at(item, "must be 0 or 1: the enable bit while stopping");
            false
        }
    });
    let (of, findings) = (inner.of, inner.findings);
    inner.finish();
    let (item, signal) = found?;
    let codec = plain(item, findings, signal, 1, 8)?;
    Some(Named { item: of, signal: &signal.name, plan: EnablePlan { codec, stop: stop.unwrap_or(false) } })
}

/// Reads `counter = { signal, modulo }`.
pub(super) fn counter<'a>(table: &Table<'a>, message: &'a Message) -> Option<Named<'a, CounterPlan>> {
    let inner = table.table("counter")?;
    let found = named(&inner, message);
    let modulo_item = inner.item("modulo");
    let modulo = modulo_item.map(|item| item.integer(inner.findings, 2, u32::MAX, ""));
    let (of, findings) = (inner.of, inner.findings);
    inner.finish();
    let (item, signal) = found?;
    let codec = plain(item, findings, signal, 1, COUNTER_BITS)?;
    let full = 1u32 << codec.bits;
    let modulo = match (modulo, modulo_item) {
        (Some(modulo), Some(item)) => {
            let modulo = modulo?;
            if modulo > full {
                let reason = format!("{modulo} does not fit: {} bits count to {full}", codec.bits);
                findings.at(item, reason);
                return None;
            }
            modulo
        }
        _ => full,
    };
    Some(Named { item: of, signal: &signal.name, plan: CounterPlan { codec, modulo } })
}

/// Reads `checksum = { signal, algorithm, data_id }`.
pub(super) fn checksum<'a>(table: &Table<'a>, message: &'a Message) -> Option<Named<'a, ChecksumPlan>> {
    let inner = table.table("checksum")?;
    let found = named(&inner, message);
    let words: Vec<&str> = ALGORITHMS.iter().map(|(word, _)| *word).collect();
    let algorithm = inner
        .required("algorithm", &format!("one of {}", words.join(", ")))
        .and_then(|item| item.choice(inner.findings, &ALGORITHMS));
    let data_id = inner.integer("data_id", 0, u32::from(u16::MAX), "");
    let (of, findings) = (inner.of, inner.findings);
    inner.finish();
    let (item, signal) = found?;
    let codec = plain(item, findings, signal, CHECKSUM_BITS, CHECKSUM_BITS)?;
    if codec.aligned_byte().is_none() {
        findings.at(item, format!("{} must fill exactly one byte", signal.name));
        return None;
    }
    let data_id = data_id.and_then(|id| u16::try_from(id).ok());
    let plan = ChecksumPlan { codec, algorithm: algorithm?, data_id };
    Some(Named { item: of, signal: &signal.name, plan })
}

/// The `signal` key of such a table.
fn named<'a>(table: &Table<'a>, message: &'a Message) -> Option<(&'a Item, &'a Signal)> {
    let item = table.required("signal", "the name of the signal in the DBC")?;
    let name = item.text(table.findings)?;
    Some((item, signal(message, item, name, table.findings)?))
}

/// A bit field that is written as it is: unsigned, factor 1, offset 0.
fn plain(item: &Item, findings: &Findings, signal: &Signal, fewest: u8, most: u8) -> Option<Codec> {
    let about = described(signal, item, findings)?;
    let codec = about.codec;
    let mut ok = true;
    if !(fewest..=most).contains(&codec.bits) {
        let wanted = if fewest == most { most.to_string() } else { format!("{fewest} to {most}") };
        let reason = format!("{} has {} bits, and {wanted} are needed here", signal.name, codec.bits);
        findings.at(item, reason);
        ok = false;
    }
    if codec.raw != Raw::Unsigned || codec.factor != 1.0 || codec.offset != 0.0 {
        let reason = format!("{} must be unsigned with factor 1 and offset 0 in the DBC", signal.name);
        findings.at(item, reason);
        ok = false;
    }
    ok.then_some(codec)
}
