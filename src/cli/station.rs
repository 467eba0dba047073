//! `ocpcan run` with `role = "operator"`: the operator station's main thread.
//!
//! Owns the start and stop order and the log lines. Relies on `threads::station`. The thread decides and sends; this reads
//! its news and writes them down.

use crate::nodes::station::Choice;
use crate::topology::station::StationNews;

/// What a log line keeps of a text that came over the network.
const TEXT_CHARS: usize = 64;

/// One piece of news in a person's words.
pub(super) fn line(news: &StationNews, address: &str) -> String {
    let list = |faults: &[String]| {
        if faults.is_empty() { "none".to_owned() } else { clean(&faults.join(", "), TEXT_CHARS) }
    };
    match news {
        StationNews::Connected => format!("Player: connected to {address}"),
        StationNews::Lost(error) => format!("Player: {address}: {error}; trying again"),
        StationNews::GaveUp(why) => format!("Player: {address}: closed: {why}; trying again"),
        StationNews::Invalid(error) => format!("Player: message dropped: {error}"),
        StationNews::Empty => "Player: message dropped: it has no body".to_owned(),
        StationNews::Unusable(name, error) => {
            format!("Player: feedback of {} dropped: {error}", clean(name, TEXT_CHARS))
        }
        StationNews::Choice(choice) => choice_line(choice, "choose one"),
        StationNews::PanelLost(name) => {
            format!("panel: {name} is missing or not believed: rest values are sent, panel_ok false")
        }
        StationNews::PanelBack => "panel: every frame is fresh".to_owned(),
        StationNews::Faults { vehicle, sender, receiver } => format!(
            "{}: faults of the operator's side: {}; of the vehicle's side: {}",
            clean(vehicle, TEXT_CHARS),
            list(sender),
            list(receiver)
        ),
        StationNews::LockedOut => format!(
            "Player: {address} seems not to take our data: acks go back, and the latency loop stays open. A Player listens to \
             the first source of data only (a web view, a plugin or one TCP client), and after a second one to none until \
             it is restarted. End the other source, then restart the Player. (A vehicle that does not answer looks the same.)"
        ),
        StationNews::Oversize(bytes) => {
            format!("Player: a message of {bytes} bytes was not sent: OCP takes 16384")
        }
        StationNews::Bus { what, .. } => format!("bus: {what}"),
        StationNews::BusUnavailable { .. } => "bus: cannot be opened; trying again".to_owned(),
        StationNews::Panicked => "thread station panicked: the panel's data stop".to_owned(),
    }
}

/// Who is chosen, in a person's words.
pub(super) fn choice_line(choice: &Choice, remedy: &str) -> String {
    match choice {
        Choice::Nobody => "no vehicle is connected".to_owned(),
        Choice::Vehicle(name) => format!("active vehicle: {}", clean(name, TEXT_CHARS)),
        Choice::Several => format!("several vehicles are connected and none gets input: {remedy}"),
        Choice::NotSelected => "no vehicle is selected at the panel: none gets input".to_owned(),
    }
}

/// A text from the network, fit for a terminal and a log: no control characters, not too long.
pub(super) fn clean(text: &str, most: usize) -> String {
    let mut out: String = text.chars().take(most).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(most).is_some() {
        out.push_str("...");
    }
    out
}
