//! What goes wrong in a world, and when it is well again.
//!
//! Owns the list of faults and how each is done. Relies on the control language of the OCP simulator for everything on
//! the streamer's side. Never decides what must follow: the checkers know that from the bytes.

use super::World;
use super::bus::Trouble;
use crate::can::{Frame, Id};
use crate::sim::ocp::command;
use crate::time::{Duration, Instant};

impl World {
    pub(super) fn break_something(&mut self) {
        match self.rng.range(0, 9) {
            0..=3 => self.break_stream(),
            4 => self.break_connection(),
            5..=7 => self.break_can(),
            _ => {
                let which = self.rng.range(0, 2);
                let time = Duration::from_millis(self.rng.range(10, 300));
                self.note(|| format!("thread {which} hangs for {time:?}"));
                self.gateway.stall(self.now, which, time);
                self.checks.stalled(self.now, which, self.now + time);
            }
        }
    }

    fn break_stream(&mut self) {
        let lines = [
            "fault NoControlMessage on",
            "silence on",
            "stall 300",
            "stall 60",
            "ack freeze",
            "ack back 3000",
            "latency 300",
            "latency 501",
            "controller none",
            "controller null",
            "controller zeroed",
            "controller last",
            "counter freeze",
            "counter absent",
            "operator off",
            "link cut",
            "link hold",
            "video stop",
            "rate 5",
            "rate 100",
            "link jitter 40",
            "link loss 0.3",
        ];
        let line = *self.rng.pick(&lines);
        self.say(line);
    }

    fn break_connection(&mut self) {
        let lines = [
            "close",
            "rst",
            "restart 300",
            "inject partial 2",
            "inject partial 40",
            "inject split 3 10",
            "inject coalesce 3",
            "inject burst 20",
            "inject truncate",
            "inject zero",
            "inject zero x3",
            "inject oversize",
            "inject huge",
            "inject bigendian",
            "inject utf8",
            "inject shape",
            "inject garbage",
            "inject http",
            "inject deep",
            "inject replay",
            "inject unknown x5",
            "inject missing-axis",
            "inject missing-telemetry",
            "inject missing-ack",
            "inject integers",
            "inject nan",
            "inject axis left_x 1e39",
            "inject axis right_trigger 1.5",
            "inject duplicate",
            "inject surrogate",
            "inject long-reason",
            "inject fault",
            "inject reason",
            "inject latency -5",
        ];
        if self.rng.per_mille(150) {
            self.note(|| "TCP becomes slower and slower".to_owned());
            self.creeping = Some(Duration::ZERO);
            return;
        }
        if self.rng.per_mille(250) {
            self.note(|| "TCP stalls".to_owned());
            self.to_gateway.hold(true);
            self.to_server.hold(self.rng.per_mille(500));
            return;
        }
        let line = *self.rng.pick(&lines);
        self.say(line);
    }

    fn break_can(&mut self) {
        let now = self.now;
        let which = self.rng.range(0, 8);
        let what = ["down", "bus-off", "stuck", "loss", "full", "vehicle silent", "foreign", "flap", "load"];
        self.note(|| format!("CAN: {}", what[which as usize]));
        match which {
            0 => self.bus.set_up(now, false),
            1 => self.bus.set_off(now, true),
            2 => {
                self.checks.bus_stuck();
                self.bus.set_trouble(Trouble::Stuck);
            }
            3 => self.bus.set_trouble(Trouble::Loss),
            4 => self.bus.set_trouble(Trouble::Full),
            5 => self.vehicle_speaks = false,
            6 => {
                let id = Id::standard(0x101).unwrap_or(Id::from_word(0));
                if let Ok(frame) = Frame::data(id, &[0xFF; 3]) {
                    self.bus.inject(frame);
                    self.foreign_frames += 1;
                    self.foreign(now);
                }
            }
            7 => {
                self.bus.set_up(now, false);
                self.bus.set_up(now, true);
            }
            _ => {
                // A burst of a louder node: 8 ms of the bus.
                for _ in 0..30 {
                    if let Ok(frame) = Frame::data(Id::from_word(0x050), &[0; 8]) {
                        self.bus.inject(frame);
                    }
                }
            }
        }
        if !self.bus.works() {
            self.checks.bus_trouble(now);
        }
    }

    /// A foreign frame with our identifier is on the bus, if the bus is there.
    fn foreign(&mut self, now: Instant) {
        if self.bus.is_up() {
            self.checks.cause(now, "a foreign writer");
        }
    }

    pub(super) fn heal(&mut self) {
        let now = self.now;
        self.heal_at = None;
        self.stubborn = false;
        self.note(|| "healed".to_owned());
        for line in [
            "fault NoControlMessage off",
            "silence off",
            "ack run",
            "latency auto",
            "controller on",
            "counter run",
            "operator on",
            "link restore",
            "link jitter 0",
            "link loss 0",
            "video run",
            "rate auto",
        ] {
            if let Ok(Some(command)) = command::parse(line) {
                self.command(command);
            }
        }
        self.to_gateway.hold(false);
        self.to_gateway.slow_down(Duration::ZERO);
        self.creeping = None;
        self.to_server.hold(false);
        self.bus.set_trouble(Trouble::None);
        self.bus.set_up(now, true);
        self.vehicle_speaks = true;
    }
}
