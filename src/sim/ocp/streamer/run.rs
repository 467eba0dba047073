//! What each command does to a Streamer.
//!
//! Owns the meaning of the vehicle's half of the control language. Relies on [`super::Streamer`]. Never sends
//! anything.

use super::{Event, Streamer, Transmit, faults};
use crate::sim::ocp::command::Command;
use crate::time::{Duration, Instant};

impl Streamer {
    /// Runs a command of the vehicle's side; the others are not for it.
    pub fn command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Video(on) => self.is_video_on = on,
            Command::Feedback(on) => self.is_feedback_on = on,
            Command::Cameras(names) => {
                if names.is_empty() {
                    self.stopped_cameras.clear();
                }
                self.lost_cameras = names;
            }
            Command::Camera(name, true) => self.stopped_cameras.retain(|(stopped, _)| *stopped != name),
            Command::Camera(name, false) => {
                // One that stands still already does so since then.
                let known = self.stopped_cameras.iter().find(|(stopped, _)| *stopped == name);
                let since = known.map_or(now, |(_, since)| *since);
                self.stopped_cameras.retain(|(stopped, _)| *stopped != name);
                self.stopped_cameras.push((name, since));
            }
            Command::Frame(time, times) => {
                self.slow_frames = (time, times);
                // The frame that is being made is the first of them.
                self.next_frame = now + time;
            }
            Command::Fault(name, on) => self.set_fault(&name, on),
            Command::FaultsClear => self.forced_faults.clear(),
            Command::Stall(time) => self.connection.stall(now + time),
            Command::Silence(on) => self.connection.set_silent(on),
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
            Command::Inject(injection, times) => self.connection.inject(injection, times),
            Command::Close => self.close(Transmit::Close),
            Command::Reset => self.close(Transmit::Reset),
            Command::Restart(down) => self.restart(now, down),
            _ => {}
        }
    }

    fn set_fault(&mut self, name: &str, on: bool) {
        let name = faults::documented(name).to_owned();
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
        self.connection.turn_away(now + down);
        self.connection.forget();
        self.command = None;
        self.command_at = now;
        self.is_fresh = false;
        self.returned = None;
        self.returned_at = None;
        self.latest_vehicle = None;
        self.vehicle_data = None;
        self.last_frame_took = Duration::ZERO;
        self.seen.latency_ms = self.options.initial_latency_ms;
        self.events.push(Event::Restarted);
    }
}
