//! Values to a frame, checked.
//!
//! Owns the order in which a frame is filled (signals, enable bit, counter, checksum last) and the proof that it decodes
//! to what was meant. Relies on `bits`, `e2e` and `plan`. Never decides a value.

use super::plan::{SendPlan, SignalPlan};
use crate::can::Frame;

/// Why a frame could not be packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackError {
    /// A value does not fit, or does not decode to what was meant: nothing is sent.
    Check,
}

/// Packs one frame and checks that it decodes to what was meant. `values` gives each signal with its value, the same ones
/// every time it is called.
///
/// # Errors
/// [`PackError::Check`]: the frame must not be sent.
pub fn frame<'p, V: Iterator<Item = (&'p SignalPlan, f64)>>(
    plan: &SendPlan,
    counter: u32,
    enable: bool,
    values: impl Fn() -> V,
) -> Result<Frame, PackError> {
    let mut data = [0_u8; 64];
    let data = data.get_mut(..usize::from(plan.len)).ok_or(PackError::Check)?;
    for (signal, value) in values() {
        signal.codec.encode(data, value).map_err(|_| PackError::Check)?;
    }
    if let Some(place) = plan.enable {
        place.codec.encode(data, f64::from(u8::from(enable))).map_err(|_| PackError::Check)?;
    }
    if let Some(place) = plan.counter {
        place.codec.encode(data, f64::from(counter)).map_err(|_| PackError::Check)?;
    }
    if let Some(checksum) = plan.checksum {
        checksum.apply(data).map_err(|_| PackError::Check)?;
    }
    // The second half of the pair: what will be read is what was meant, to half a step.
    for (signal, value) in values() {
        let read = signal.codec.decode(data).ok_or(PackError::Check)?;
        let step = (signal.codec.factor.abs() * 0.5).max(value.abs() * 1e-6) + 1e-9;
        let inside = read >= signal.min - step && read <= signal.max + step;
        if !inside || (read - value).abs() > step {
            return Err(PackError::Check);
        }
    }
    let frame = if plan.fd { Frame::fd(plan.id, data, true, false) } else { Frame::data(plan.id, data) };
    frame.map_err(|_| PackError::Check)
}
