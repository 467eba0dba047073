//! What each command does to the Player.
//!
//! Owns the meaning of the operator's half of the control language. Relies on [`super::Player`]. Never sends anything.

use super::{Event, Player, Session, SourceLock, Transmit};
use crate::proto::ocp::{Axis, Controller};
use crate::sim::ocp::command::Command;
use crate::sim::ocp::faults;
use crate::time::{Duration, Instant};

impl Player {
    /// Runs a command of the operator's side, or of the Player's server; the others are not for it.
    pub(in crate::sim::ocp) fn command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Axis(axis, value) => self.set_axis(axis, value),
            Command::Press(button) => self.controller.buttons |= button.mask(),
            Command::Release(button) => self.controller.buttons &= !button.mask(),
            Command::Neutral | Command::Arm { .. } => self.controller = Controller::NEUTRAL,
            Command::Pad(controller) => {
                self.is_plugged = controller.is_some();
                // What was pressed when the cable was pulled is not pressed when it comes back.
                self.controller = controller.unwrap_or(Controller::NEUTRAL);
            }
            Command::Gamepad(is_plugged) => self.is_plugged = is_plugged,
            Command::User(None) => self.user_data.clear(),
            Command::User(Some(members)) => {
                for (key, value) in members {
                    if value.is_null() {
                        self.user_data.remove(&key);
                    } else {
                        self.user_data.insert(key, value);
                    }
                }
            }
            Command::Counter(mode) => self.counter_mode = mode,
            Command::CounterSet(value) => self.counter = value,
            Command::Operator(is_present) => self.is_present = is_present,
            Command::Active(name) => self.active = name,
            Command::Source(source, message) => self.client_data(source, message.map(|message| *message)),
            Command::Stall(time) => self.connection.stall(now + time),
            Command::Silence(on) => self.connection.set_silent(on),
            Command::Inject(injection, times) => self.connection.inject(injection, times),
            Command::Close => self.close(Transmit::Close),
            Command::Reset => self.close(Transmit::Reset),
            Command::Restart(down) => self.restart(now, down),
            _ => {}
        }
    }

    /// Runs a command about one vehicle.
    pub(in crate::sim::ocp) fn vehicle_command(&mut self, now: Instant, place: usize, command: &Command) {
        let Some(session) = self.sessions.get_mut(place) else { return };
        match command {
            Command::Session(is_connected) => {
                session.is_connected = *is_connected;
                session.reset(now);
            }
            Command::Monitor(is_monitor) => session.is_monitor = *is_monitor,
            Command::Fault(name, on) => {
                let name = faults::documented(name);
                session.forced_faults.retain(|forced| forced != name);
                if *on {
                    session.forced_faults.push(name.to_owned());
                }
            }
            Command::FaultsClear => session.forced_faults.clear(),
            _ => {}
        }
    }

    fn set_axis(&mut self, axis: Axis, value: f64) {
        if let Some(slot) = self.controller.axes.get_mut(axis as usize) {
            *slot = value;
        }
    }

    fn restart(&mut self, now: Instant, down: Duration) {
        self.close(Transmit::Close);
        self.connection.turn_away(now + down);
        self.connection.forget();
        self.lock = SourceLock::Free;
        self.active = None;
        self.unknown.clear();
        for session in &mut self.sessions {
            Session::reset(session, now);
        }
        self.events.push(Event::Restarted);
    }
}
