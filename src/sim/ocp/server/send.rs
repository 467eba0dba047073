//! What the simulated server sends: the message of the moment, and the faults put into it.
//!
//! Owns the making of a message and the way its bytes go out. Relies on the server's state. Never decides when.

use serde_json::json;

use super::{HISTORY, Server, Transmit};
use crate::proto::ocp::server::{ControlOut, Gamepad, LinkState, Part};
use crate::proto::ocp::{Axis, Controller};
use crate::sim::ocp::inject::{self, Inject};
use crate::sim::ocp::options::{DefaultValues, UserDataForm};
use crate::time::Instant;

impl Server {
    /// The message of this moment.
    pub(super) fn message(&mut self, now: Instant) -> ControlOut {
        if self.is_fresh || self.options.stamp_repeats || self.last_send.is_none() {
            let ack = self.ack_frozen.unwrap_or_else(|| self.elapsed_ms(now));
            self.last_pair = (ack, inject::mac(self.key, ack));
        }
        let faults = self.faults(now);
        let named =
            if self.options.reason_first_only { faults.get(..1).unwrap_or_default() } else { &faults };
        let is_default = if self.options.defaults_on_any_fault {
            !faults.is_empty()
        } else {
            faults.iter().any(|f| [self.spelled("NoControlMessage"), self.spelled("HighLatency")].contains(f))
        };
        let last = match self.command.as_ref().map(|sent| sent.controller) {
            Some(Some(controller)) => Part::Is(controller.into()),
            Some(None) => Part::Absent,
            None => Part::Is(Controller::NEUTRAL.into()),
        };
        let controller = match (self.forced_controller, is_default) {
            (Some(form), _) => default_controller(form, last),
            (None, true) => default_controller(self.options.default_values, last),
            (None, false) => last,
        };
        let user_data =
            self.command.as_ref().filter(|_| faults.is_empty() || self.options.user_data_under_fault);
        let user_data = user_data.map_or(Part::Absent, |sent| match self.options.user_data_form {
            UserDataForm::Bare => Part::Is(sent.user_data.clone()),
            UserDataForm::Wrapped => Part::Is(json!({ "user_data": sent.user_data })),
        });
        let cameras = self.missing_cameras.clone();
        ControlOut {
            controller,
            telemetry: Part::Is(LinkState {
                latency: Part::Is(self.forced_latency.unwrap_or(self.seen.latency_ms)),
                fault: Part::Is(!faults.is_empty()),
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
        let injection = self.next_injection();
        if let Some(injection) = &injection {
            injection.change(&mut message);
        }
        self.is_fresh = false;
        self.last_send = Some(now);
        self.seen.sent += 1;
        self.seen.ack_time = self.last_pair.0;
        if let Some(client) = &mut self.client {
            client.messages = client.messages.saturating_add(1);
        }
        if self.sent_at.len() == 512 {
            self.sent_at.pop_front();
        }
        self.sent_at.push_back((self.last_pair.0, now));
        let replaced = injection.as_ref().and_then(|i| i.bytes(&message, &mut self.rng));
        let frame = replaced.unwrap_or_else(|| message.frame());
        if injection.is_none() {
            if self.history.len() == HISTORY {
                self.history.pop_front();
            }
            self.history.push_back(frame.clone());
        }
        self.transport(now, frame, injection);
    }

    fn next_injection(&mut self) -> Option<Inject> {
        let (injection, times) = self.injections.front_mut()?;
        *times -= 1;
        if *times > 0 {
            return Some(injection.clone());
        }
        self.injections.pop_front().map(|(injection, _)| injection)
    }

    /// Puts a frame into the stream in the way the injection wants it.
    fn transport(&mut self, now: Instant, frame: Vec<u8>, injection: Option<Inject>) {
        match injection {
            Some(Inject::Partial(gap)) => {
                for (at, byte) in (0_u32..).zip(frame) {
                    self.transmit(now + gap * at, vec![byte]);
                }
            }
            Some(Inject::Split(at, gap)) => {
                let mut first = frame;
                let second = first.split_off(at.min(first.len()));
                self.transmit(now, first);
                self.transmit(now + gap, second);
            }
            Some(Inject::Coalesce(n)) => self.held_back = Some((n - 1, frame)),
            Some(Inject::Burst(n)) => {
                let mut all = frame;
                for _ in 1..n {
                    all.extend(self.message(now).frame());
                }
                self.seen.sent += u64::from(n - 1);
                self.transmit(now, all);
            }
            Some(Inject::Truncate) => {
                self.transmit(now, frame.get(..frame.len() / 2).unwrap_or_default().to_vec());
                self.close(Transmit::Close);
            }
            Some(Inject::Replay) => {
                let frames = core::mem::take(&mut self.history);
                for (at, frame) in (0_u32..).zip(frames) {
                    self.replaying_until = now + self.options.repeat * at;
                    self.transmit(self.replaying_until, frame);
                }
            }
            _ => self.transmit(now, frame),
        }
    }

    /// Appends to the stream; nothing overtakes what was put there before.
    fn transmit(&mut self, due: Instant, bytes: Vec<u8>) {
        let bytes = match self.held_back.take() {
            None => bytes,
            Some((left, mut held)) => {
                held.extend(bytes);
                if left > 1 {
                    self.held_back = Some((left - 1, held));
                    return;
                }
                held
            }
        };
        let due = self.out.back().map_or(due, |(last, _)| due.max(*last));
        self.out.push_back((due, Transmit::Bytes(bytes)));
    }
}

fn default_controller(form: DefaultValues, last: Part<Gamepad>) -> Part<Gamepad> {
    match form {
        DefaultValues::Neutral => Part::Is(Controller::NEUTRAL.into()),
        DefaultValues::Zeroed => Part::Is(Controller { axes: [0.0; Axis::COUNT], buttons: 0 }.into()),
        DefaultValues::Null => Part::null(),
        DefaultValues::Absent => Part::Absent,
        DefaultValues::Last => last,
    }
}
