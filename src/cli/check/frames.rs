//! Buses, frames and signals as `ocpcan check` prints them for both roles.
//!
//! Owns the text of what a vehicle and a desk have in common. Relies on `signals`. Never decides what is printed.

use crate::can::Id;
use crate::config::Short;
use crate::signals::bits::{ByteOrder, Codec, Raw};
use crate::signals::e2e::Algorithm;
use crate::signals::plan::{BusPlan, Echo, ReceivePlan, ReportSource, SendMode, SendPlan, SignalRef};
use crate::signals::transform::{Shape, Transform};
use crate::time::millis_f64;
use std::fmt::{self, Write as _};

/// One line for each bus.
pub(super) fn buses(out: &mut String, buses: &[BusPlan]) -> fmt::Result {
    for bus in buses {
        let kind = if bus.fd { "classic and FD" } else { "classic" };
        let echo = match bus.echo {
            Echo::Required => "echo required",
            Echo::Unproven => "echo UNPROVEN",
        };
        writeln!(out, "bus        {}: {}, {kind}, {echo}", bus.name, bus.interface)?;
    }
    Ok(())
}

/// The head of a sent frame and what protects it.
pub(super) fn send(out: &mut String, buses: &[BusPlan], frame: &SendPlan) -> fmt::Result {
    let mode = match frame.mode {
        SendMode::Cyclic => format!("every {} ms", millis_f64(frame.period)),
        SendMode::OnCommand { min_gap } => format!(
            "with each command (gap {} ms) and every {} ms",
            millis_f64(min_gap),
            millis_f64(frame.period)
        ),
    };
    let head = frame_head(buses, &frame.name, frame.bus, frame.id, frame.len, frame.fd);
    writeln!(out, "\nsend {head}, {mode}")?;
    if let Some(enable) = &frame.enable {
        let place = Bits(&enable.codec);
        writeln!(out, "  enable   {place}: 1 in ARMED, {} in STOPPING, else 0", u8::from(enable.stop))?;
    }
    if let Some(counter) = &frame.counter {
        writeln!(out, "  counter  {}: modulo {}", Bits(&counter.codec), counter.modulo)?;
    }
    if let Some(checksum) = &frame.checksum {
        checksum_line(out, checksum.algorithm, checksum.data_id, &checksum.codec)?;
    }
    Ok(())
}

fn checksum_line(out: &mut String, algorithm: Algorithm, data_id: Option<u16>, codec: &Codec) -> fmt::Result {
    let algorithm = match algorithm {
        Algorithm::Xor => "XOR",
        Algorithm::Sum => "sum",
        Algorithm::Crc8SaeJ1850 => "CRC-8 SAE J1850",
        Algorithm::Crc8AutosarH2f => "CRC-8 AUTOSAR H2F",
    };
    write!(out, "  checksum {}: {algorithm}", Bits(codec))?;
    match data_id {
        Some(id) => writeln!(out, ", data id 0x{id:04X}"),
        None => writeln!(out),
    }
}

fn frame_head(buses: &[BusPlan], name: &str, bus: usize, id: Id, len: u8, fd: bool) -> String {
    let bus = buses.get(bus).map_or("?", |b| b.name.as_str());
    let id = if id.is_extended() { format!("0x{:08X}", id.raw()) } else { format!("0x{:03X}", id.raw()) };
    format!("{name} {id} on {bus}, {len} bytes{}", if fd { ", FD" } else { "" })
}

/// What becomes of a reading.
pub(super) fn transform(text: &mut String, t: &Transform) -> fmt::Result {
    match t.shape {
        Shape::Direct => {}
        Shape::Switch { off, on } => {
            let (off, on) = if t.invert { (on, off) } else { (off, on) };
            write!(text, ": off {}, on {}", Short(off), Short(on))?;
        }
        Shape::Centred { low, centre, high } => {
            write!(
                text,
                " {} | {} | {} -> {}",
                Short(low),
                Short(centre),
                Short(high),
                three(t.out_low, t.out_centre, t.out_high, t.invert)
            )?;
        }
        Shape::OneSided { low, high } => {
            let (a, b) = if t.invert { (t.out_high, t.out_low) } else { (t.out_low, t.out_high) };
            write!(text, " {} .. {} -> {} .. {}", Short(low), Short(high), Short(a), Short(b))?;
        }
    }
    if t.dead_zone > 0.0 {
        write!(text, ", dead zone {}", t.dead_zone)?;
    }
    if t.expo > 0.0 {
        write!(text, ", expo {}", t.expo)?;
    }
    Ok(())
}

fn three(low: f64, centre: f64, high: f64, invert: bool) -> String {
    let (low, centre, high) = (Short(low), Short(centre), Short(high));
    if invert { format!("{high} | {centre} | {low}") } else { format!("{low} | {centre} | {high}") }
}

/// A received frame with the signals that are read; `loss` says what it means when it stays away.
pub(super) fn receive(out: &mut String, buses: &[BusPlan], frame: &ReceivePlan, loss: &str) -> fmt::Result {
    let head = frame_head(buses, &frame.name, frame.bus, frame.id, frame.len, frame.fd);
    writeln!(out, "\nreceive {head}, stale after {} ms, {loss}", millis_f64(frame.stale_after))?;
    if let Some(counter) = &frame.counter {
        writeln!(out, "  counter  {}: modulo {}", Bits(&counter.codec), counter.modulo)?;
    }
    if let Some(checksum) = &frame.checksum {
        checksum_line(out, checksum.algorithm, checksum.data_id, &checksum.codec)?;
    }
    for signal in &frame.signals {
        write!(out, "  {:<20} {}", signal.name, Bits(&signal.codec))?;
        writeln!(out, ", plausible {} .. {}", Short(signal.min), Short(signal.max))?;
    }
    Ok(())
}

/// The name of a received signal.
pub(super) fn reference(receives: &[ReceivePlan], of: SignalRef) -> String {
    let receive = receives.get(of.receive);
    let signal = receive.and_then(|r| r.signals.get(of.signal));
    receive.zip(signal).map_or_else(|| "?".to_owned(), |(r, s)| format!("{}.{}", r.name, s.name))
}

/// The name of a reported value.
pub(super) fn reported(receives: &[ReceivePlan], from: ReportSource) -> String {
    match from {
        ReportSource::Signal(of) => reference(receives, of),
        ReportSource::Car(value) => format!("assetto.{}", value.name()),
    }
}

/// A codec as a person reads it: byte.bit from the least significant bit.
pub(super) struct Bits<'a>(pub(super) &'a Codec);

impl fmt::Display for Bits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codec = self.0;
        let mut positions: Vec<u16> = codec.bit_positions().collect();
        if positions.is_empty() {
            return write!(f, "no bits");
        }
        let at = |bit: u16| format!("{}.{}", bit / 8, bit % 8);
        let (first, last) = (positions.remove(0), positions.pop());
        match last {
            Some(last) => write!(f, "{} to {}", at(first), at(last))?,
            None => write!(f, "{}", at(first))?,
        }
        let raw = match codec.raw {
            Raw::Unsigned => "unsigned",
            Raw::Signed => "signed",
            Raw::Float => "float",
        };
        let order = match codec.order {
            ByteOrder::Little => "little endian",
            ByteOrder::Big => "big endian",
        };
        write!(f, " ({} {raw}, {order}", codec.bits)?;
        if codec.factor != 1.0 || codec.offset != 0.0 {
            write!(f, ", x {} + {}", Short(codec.factor), Short(codec.offset))?;
        }
        write!(f, ")")
    }
}
