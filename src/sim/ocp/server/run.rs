//! What each command does to the simulated server.
//!
//! Owns the meaning of the control language. Relies on [`super::Server`]. Never sends anything.

use super::{Event, FAULTS, Server, Transmit};
use crate::proto::ocp::{Axis, Controller};
use crate::sim::ocp::command::{Command, LinkSetting};
use crate::time::{Duration, Instant};

impl Server {
    /// Runs a command. `wait`, `status`, `listen` and `quit` are for whoever drives the server.
    pub fn command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Axis(axis, value) => self.set_axis(axis, value),
            Command::Press(button) => self.operator.controller.buttons |= button.mask(),
            Command::Release(button) => self.operator.controller.buttons &= !button.mask(),
            Command::Neutral => self.operator.controller = Controller::NEUTRAL,
            Command::Arm { settle, hold, button } => {
                self.operator.controller = Controller::NEUTRAL;
                self.planned.push((now + settle, Command::Press(button)));
                self.planned.push((now + settle + hold, Command::Release(button)));
            }
            Command::User(None) => self.operator.user_data.clear(),
            Command::User(Some(members)) => {
                for (key, value) in members {
                    if value.is_null() {
                        self.operator.user_data.remove(&key);
                    } else {
                        self.operator.user_data.insert(key, value);
                    }
                }
            }
            Command::Counter(mode) => self.operator.counter_mode = mode,
            Command::CounterSet(value) => self.operator.counter = value,
            Command::Operator(present) => self.operator.present = present,
            Command::Link(state) => {
                self.uplink.set_state(now, state);
                self.video.set_state(now, state);
            }
            Command::LinkSet(setting) => self.set_link(setting),
            Command::Video(on) => self.is_video_on = on,
            Command::Cameras(names) => self.missing_cameras = names,
            Command::Fault(name, on) => self.set_fault(&name, on),
            Command::Stall(time) => self.stalled_until = now + time,
            Command::Silence(on) => self.is_silent = on,
            Command::AckFreeze(true) => self.ack_frozen = Some(self.last_pair.0),
            Command::AckFreeze(false) => self.ack_frozen = None,
            Command::AckBack(ms) => self.ack_back_ms = self.ack_back_ms.saturating_add(ms),
            Command::Latency(ms) => self.forced_latency = ms,
            Command::Controller(form) => self.forced_controller = form,
            Command::Defaults(form) => self.options.default_values = form,
            Command::Rate(hz) => {
                self.pace = hz.map(|hz| Duration::from_secs_f64(1.0 / hz));
                self.next_tick = now;
            }
            Command::Inject(injection, times) => self.injections.push_back((injection, times)),
            Command::Close => self.close(Transmit::Close),
            Command::Reset => self.close(Transmit::Reset),
            Command::Restart(down) => self.restart(now, down),
            Command::Wait(_) | Command::Status | Command::Help | Command::Listen(_) | Command::Quit => {}
        }
    }

    fn set_axis(&mut self, axis: Axis, value: f64) {
        if let Some(slot) = self.operator.controller.axes.get_mut(axis as usize) {
            *slot = value;
        }
    }

    const fn set_link(&mut self, setting: LinkSetting) {
        let link = &mut self.uplink.link;
        match setting {
            LinkSetting::Delay(time) => link.delay = time,
            LinkSetting::Jitter(time) => link.jitter = time,
            LinkSetting::Loss(p) => link.loss = p,
            LinkSetting::Duplicate(p) => link.duplicate = p,
            LinkSetting::Reorder(p) => link.reorder = p,
        }
    }

    fn set_fault(&mut self, name: &str, on: bool) {
        let letters =
            |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
        let name =
            FAULTS.into_iter().find(|known| letters(known) == letters(name)).unwrap_or(name).to_owned();
        self.forced_faults.retain(|forced| *forced != name);
        if on {
            self.forced_faults.push(name);
        }
    }

    fn restart(&mut self, now: Instant, down: Duration) {
        self.close(Transmit::Close);
        self.key = self.rng.bits();
        self.t0 = now;
        self.ack_offset_ms = 0;
        self.ack_back_ms = 0;
        self.ack_frozen = None;
        self.closed_until = now + down;
        self.command = None;
        self.command_at = now;
        self.is_fresh = false;
        self.returned = None;
        self.returned_at = None;
        self.latest_vehicle = None;
        self.seen.latency_ms = self.options.initial_latency_ms;
        self.history.clear();
        self.event(Event::Restarted);
    }
}
