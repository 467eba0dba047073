//! One event as one line.
//!
//! Owns the form of the line, which events are wanted, and the count. Relies on `proto::assetto::json` for names and
//! keys. Never writes a control character: what comes from players goes to terminals.

use core::fmt::Write as _;
use std::io::{self, Write};

use serde_json::Value;

use crate::proto::assetto::Event;
use crate::proto::assetto::game::GameMessage;

/// Writes the wanted events, and knows when it is enough.
#[derive(Debug)]
pub(super) struct Printer<W> {
    out: W,
    car: Option<u8>,
    left: Option<u64>,
}

impl<W: Write> Printer<W> {
    /// Events of this car or of all, so many or all.
    pub(super) const fn new(out: W, car: Option<u8>, count: Option<u64>) -> Self {
        Self { out, car, left: count }
    }

    /// Whether the count is reached.
    pub(super) fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// An event of a server, with the time of its arrival in µs since 1970 if it is known.
    pub(super) fn event(&mut self, event: &Event<'_>, at_us: Option<u64>) -> io::Result<()> {
        if self.car.is_some_and(|car| !concerns(event, car)) {
            return Ok(());
        }
        self.write(event.name(), &event.to_json(), at_us)
    }

    /// A message of a game.
    pub(super) fn message(&mut self, message: &GameMessage<'_>, at_us: Option<u64>) -> io::Result<()> {
        self.write(message.name(), &message.to_json(), at_us)
    }

    fn write(&mut self, name: &str, fields: &Value, at_us: Option<u64>) -> io::Result<()> {
        if self.is_done() {
            return Ok(());
        }
        self.left = self.left.map(|left| left - 1);
        self.out.write_all(line(name, fields, at_us).as_bytes())
    }

    /// Hands over what was written.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The line, with its end. `event` and `timestamp` are keys of no message.
pub(super) fn line(name: &str, fields: &Value, at_us: Option<u64>) -> String {
    let fields = fields.to_string();
    let mut line = format!("{{\"event\":\"{name}\",\"timestamp\":");
    // Writing to a string cannot fail.
    let _ = match at_us {
        Some(us) => write!(line, "{}.{:06}", us / 1_000_000, us % 1_000_000),
        None => line.write_str("null"),
    };
    let rest = fields.strip_prefix('{').unwrap_or("}");
    if rest != "}" {
        line.push(',');
    }
    for c in rest.chars() {
        // JSON escapes what is below a space and leaves these; they can only be inside of a text.
        if ('\u{7f}'..='\u{9f}').contains(&c) {
            let _ = write!(line, "\\u{:04x}", u32::from(c));
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    line
}

/// Whether an event says something about this car, or about the whole server.
fn concerns(event: &Event<'_>, car: u8) -> bool {
    match event {
        Event::NewSession(_)
        | Event::SessionInfo(_)
        | Event::EndSession { .. }
        | Event::Version { .. }
        | Event::Error { .. } => true,
        Event::NewConnection(who) | Event::ConnectionClosed(who) | Event::EarlyCarInfo(who) => {
            who.car_id == car
        }
        Event::CarUpdate(update) => update.car_id == car,
        Event::CarInfo(info) => info.car_id == car,
        Event::Chat { car_id, .. } | Event::ClientLoaded { car_id } => *car_id == car,
        Event::LapCompleted(lap) => lap.car_id == car,
        Event::ClientEvent(event) => event.car_id == car || event.other_car_id == Some(car),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::assetto::Text;

    fn printed(car: Option<u8>, count: Option<u64>, events: &[Event<'_>]) -> String {
        let mut printer = Printer::new(Vec::new(), car, count);
        for event in events {
            printer.event(event, Some(1_700_000_000_000_042)).unwrap();
        }
        String::from_utf8(printer.out).unwrap()
    }

    #[test]
    fn a_line_begins_with_the_name_and_the_time_and_holds_no_control_character() {
        let said = Event::Chat { car_id: 3, message: Text::from("a\u{1b}\u{9b}b\n\u{7f}") };
        assert_eq!(
            printed(None, None, &[said]),
            "{\"event\":\"ACSP_CHAT\",\"timestamp\":1700000000.000042,\"car_id\":3,\"message\":\"a\\u001b\\u009bb\\n\\u007f\"}\n"
        );
        assert_eq!(line("X", &serde_json::json!({}), None), "{\"event\":\"X\",\"timestamp\":null}\n");
    }

    #[test]
    fn a_car_hides_the_others_and_a_count_ends_it() {
        let loaded = |car_id| Event::ClientLoaded { car_id };
        let events = [loaded(1), Event::Version { proto_version: 4 }, loaded(2), loaded(1)];
        assert_eq!(printed(Some(2), None, &events).lines().count(), 2);
        assert_eq!(printed(Some(1), Some(2), &events).lines().count(), 2);
        assert_eq!(printed(None, Some(3), &events).lines().count(), 3);
    }
}
