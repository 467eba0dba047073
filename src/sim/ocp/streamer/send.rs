//! What a Streamer sends: the message of the moment, and the faults put into it.
//!
//! Owns the making of a message. Relies on the Streamer's state. Never decides when.

use serde_json::json;

use super::{Event, Streamer, faults};
use crate::limits;
use crate::proto::ocp::Controller;
use crate::proto::ocp::server::{ControlOut, Gamepad, LinkState, Part, frame};
use crate::sim::ocp::inject::{self, Inject};
use crate::sim::ocp::options::UserDataForm;
use crate::time::Instant;

/// Messages whose answer is waited for.
const SENT: usize = 512;

impl Streamer {
    /// The message of this moment.
    fn message(&mut self, now: Instant) -> ControlOut {
        if self.is_fresh || self.options.stamp_repeats || self.last_send.is_none() {
            let ack = self.ack_frozen.unwrap_or_else(|| self.elapsed_ms(now));
            self.last_pair = (ack, inject::mac(self.key, ack));
        }
        let active = self.faults(now);
        let named =
            if self.options.reason_first_only { active.get(..1).unwrap_or_default() } else { &active };
        let spaced = self.options.spaced_faults;
        let is_default = if self.options.defaults_on_any_fault {
            !active.is_empty()
        } else {
            ["NoControlMessage", "HighLatency"].iter().any(|f| active.contains(&faults::spelled(f, spaced)))
        };
        let command = self.command.as_ref().map(|command| &command.sent);
        let last = command.map_or(Part::Is(Controller::NEUTRAL), |sent| sent.controller.clone());
        let controller = match (self.forced_controller, is_default) {
            (Some(form), _) => form.controller(last),
            (None, true) => self.options.default_values.controller(last),
            (None, false) => last,
        };
        let user_data = command.filter(|_| active.is_empty() || self.options.user_data_under_fault);
        let user_data = match user_data.and_then(|sent| sent.user_data.clone()) {
            None => Part::Absent,
            Some(value) => match self.options.user_data_form {
                UserDataForm::Bare => Part::Is(value),
                UserDataForm::Wrapped => Part::Is(json!({ "user_data": value })),
            },
        };
        let cameras = self.missing_cameras(now);
        ControlOut {
            controller: match controller {
                Part::Is(controller) => Part::Is(Gamepad::from(controller)),
                Part::Absent => Part::Absent,
                Part::Raw(text) => Part::Raw(text),
            },
            telemetry: Part::Is(LinkState {
                latency: Part::Is(self.forced_latency.unwrap_or(self.seen.latency_ms)),
                fault: Part::Is(!active.is_empty()),
                fault_reason: Part::Is(named.join(&self.options.reason_separator)),
                missing_cameras: if self.options.missing_cameras { Part::Is(cameras) } else { Part::Absent },
            }),
            ack_time: Part::Is(self.last_pair.0),
            ack_time_mac: Part::Is(self.last_pair.1),
            client_user_data: user_data,
            extra: Vec::new(),
        }
    }

    pub(super) fn send(&mut self, now: Instant) {
        let mut message = self.message(now);
        let injection = self.connection.next_injection();
        if let Some(injection) = &injection {
            injection.change(&mut message);
        }
        self.is_fresh = false;
        self.last_send = Some(now);
        let body = message.body();
        let is_too_long = injection.is_none() && body.len() > limits::OCP_BODY;
        if is_too_long && !self.is_oversized {
            self.events.push(Event::TooLong(body.len()));
        }
        self.is_oversized = is_too_long;
        if is_too_long {
            self.seen.too_long += 1;
            return;
        }
        self.seen.sent += 1;
        self.seen.ack_time = self.last_pair.0;
        if self.sent_at.len() == SENT {
            self.sent_at.pop_front();
        }
        self.sent_at.push_back((self.last_pair.0, now));
        let replaced = injection.as_ref().and_then(|i| i.bytes(&body, inject::CONTROL_SHAPE, &mut self.rng));
        let mut bytes = replaced.unwrap_or_else(|| frame(&body));
        if let Some(Inject::Burst(n)) = injection {
            for _ in 1..n {
                bytes.extend(self.message(now).frame());
            }
            self.seen.sent += u64::from(n - 1);
        }
        if self.connection.send(now, bytes, injection.as_ref(), self.options.repeat) {
            self.events.push(Event::Disconnected);
        }
    }
}
