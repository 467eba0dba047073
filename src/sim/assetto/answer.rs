//! How the server answers its plugin.
//!
//! Owns what each command does, and what is refused with an error. Relies on [`World`]. Never asks who sent a command:
//! the protocol does not say.

use super::session::{Kind, SessionPlan};
use super::tell::PROTO_VERSION;
use super::world::World;
use crate::proto::assetto::{Command, Event, id};
use crate::time::{Duration, Instant};

impl World {
    /// Takes one datagram from the plugin.
    pub fn handle_command(&mut self, now: Instant, datagram: &[u8]) {
        self.handle_timeout(now);
        // AssettoServer tells its version to who sends that number; harmless where a server does not.
        if datagram.first() == Some(&id::VERSION) {
            return self.tell(&Event::Version { proto_version: PROTO_VERSION });
        }
        let Ok(command) = Command::decode(datagram) else {
            self.not_understood += 1;
            return;
        };
        self.commands += 1;
        match command {
            Command::RealtimePosInterval { interval_ms } => self.set_interval(interval_ms),
            Command::GetCarInfo { car_id } => self.tell_car_info(car_id),
            Command::GetSessionInfo { session_index } => self.answer_session(session_index),
            Command::SendChat { car_id, message } => {
                if self.is_present(car_id) {
                    self.note(format!("to car {car_id}: {message}"));
                } else {
                    self.tell_error(&format!("nobody is in car {car_id}"));
                }
            }
            Command::BroadcastChat { message } => self.note(format!("to all: {message}")),
            Command::SetSessionInfo {
                session_index,
                session_name,
                session_type,
                laps,
                time_s,
                wait_time_s,
            } => {
                let plan = Kind::of_number(session_type).map(|kind| SessionPlan {
                    name: session_name.chars().take(63).collect(), // 255 bytes at most, as bytes on the wire
                    kind,
                    time: Duration::from_secs(time_s.into()),
                    laps: u16::try_from(laps).unwrap_or(u16::MAX),
                    wait: Duration::from_secs(wait_time_s.into()),
                });
                self.set_session(usize::from(session_index), plan);
            }
            Command::KickUser { car_id } => self.kick(car_id),
            Command::NextSession => self.next_session(),
            Command::RestartSession => self.restart_session(),
            Command::AdminCommand { command } => self.administer(&command.to_string()),
        }
    }

    pub(super) fn set_interval(&mut self, interval_ms: u16) {
        self.interval = Duration::from_millis(interval_ms.into());
        self.next_update = (interval_ms > 0).then(|| self.at + self.interval);
    }

    fn answer_session(&mut self, index: i16) {
        let index = if index < 0 { Some(self.session) } else { usize::try_from(index).ok() };
        match index.filter(|index| *index < self.options.sessions.len()) {
            Some(index) => self.tell_session(index, false),
            None => self.tell_error("there is no session of this number"),
        }
    }

    fn set_session(&mut self, index: usize, plan: Option<SessionPlan>) {
        match (self.options.sessions.get_mut(index), plan) {
            (Some(place), Some(plan)) => *place = plan,
            (None, _) => self.tell_error("there is no session of this number"),
            (_, None) => self.tell_error("this type of session is not simulated"),
        }
    }

    /// What an administrator may type. A server knows many more; what is not simulated does nothing, as in
    /// AssettoServer.
    fn administer(&mut self, command: &str) {
        self.note(format!("administrator: {command}"));
        match command.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["/next_session"] => self.next_session(),
            ["/restart_session"] => self.restart_session(),
            ["/kick_id", slot] => match slot.parse() {
                Ok(slot) => self.kick(slot),
                Err(_) => self.tell_error("not the number of a car"),
            },
            _ => {}
        }
    }

    fn kick(&mut self, slot: u8) {
        if self.is_present(slot) {
            self.note(format!("kicked: car {slot}"));
            self.disconnect(slot);
        } else {
            self.tell_error(&format!("nobody is in car {slot}"));
        }
    }
}
