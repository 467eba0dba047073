//! The vendor's faults: their names, and how a version spells them.
//!
//! Owns the names and nothing else. Relies on nothing. Never decides which fault is active.

/// Faults of the operator's side, as the documentation names them.
pub const SENDER: [&str; 3] = ["InputLost", "NoFeedbackMessage", "VehicleControlInactive"];

/// Faults of the vehicle's side, in the order of the documentation.
pub const RECEIVER: [&str; 6] = [
    "CameraLost",
    "VehicleNoResponse",
    "NoControlMessage",
    "StreamerSlow",
    "HighLatency",
    "LatencyLoopNotClosed",
];

/// The documented name of a fault written in any way, or the name as it is where it is none of the vendor's.
#[must_use]
pub fn documented(name: &str) -> &str {
    let letters =
        |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
    SENDER.into_iter().chain(RECEIVER).find(|known| letters(known) == letters(name)).unwrap_or(name)
}

/// The name in one word or in several.
#[must_use]
pub fn spelled(name: &str, spaced: bool) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if spaced && c.is_uppercase() && !out.is_empty() {
            out.push(' ');
        }
        out.push(c);
    }
    out
}

/// The active faults as they are sent: the vendor's in the vendor's order, then whatever else was raised by hand.
pub(super) fn listed(
    known: &[&'static str],
    forced: &[String],
    spaced: bool,
    is_active: impl Fn(&str) -> bool,
) -> Vec<String> {
    let is_forced = |name: &str| forced.iter().any(|forced| forced == name);
    let of_vendor = known.iter().filter(|name| is_forced(name) || is_active(name));
    let others = forced.iter().filter(|name| !known.contains(&name.as_str())).cloned();
    of_vendor.map(|name| spelled(name, spaced)).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_in_every_spelling_and_spelled_as_asked() {
        for name in SENDER.into_iter().chain(RECEIVER) {
            assert_eq!(documented(&spelled(name, true)), name);
            assert_eq!(documented(&name.to_lowercase()), name);
            assert_eq!(spelled(name, false), name);
        }
        assert_eq!(spelled("LatencyLoopNotClosed", true), "Latency Loop Not Closed");
        assert_eq!(documented("Something New"), "Something New");
    }
}
