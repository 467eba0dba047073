//! What anyone on the bus sees during the demo: an eye that is not the gateway's.
//!
//! Owns its own port and the decoded frames of the example. Relies on `signals::dbc`. Never writes.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use crate::can::candump::LogLine;
use crate::config::Config;
use crate::io::canbus::Port;
use crate::io::clock;
use crate::signals::plan::Plan;
use crate::time::Instant;

/// Frames taken at one look.
const DRAIN: usize = 512;

/// The last `DRIVE_CMD` and what it says.
#[derive(Debug, Clone, Default)]
pub(super) struct Drive {
    /// When it was seen.
    pub(super) at: Option<Instant>,
    /// Enable bit.
    pub(super) enabled: bool,
    /// Each mapped signal by name.
    pub(super) values: Vec<(String, f64)>,
}

/// The eye.
#[derive(Debug)]
pub(super) struct Observer {
    port: Port,
    plan: Plan,
    record: Option<BufWriter<File>>,
    record_error: Option<io::Error>,
    bus: String,
    pub(super) drive: Drive,
    pub(super) speed_kph: Option<f64>,
    /// When a frame with enable 1 was last seen.
    pub(super) enabled_at: Option<Instant>,
    /// When the first frame with enable 0 after it was seen.
    pub(super) safe_at: Option<Instant>,
    pub(super) frames: u64,
}

impl Observer {
    /// Looks through this port.
    pub(super) fn new(port: Port, config: &Config, record: Option<&Path>, bus: &str) -> Result<Self, String> {
        let record = match record {
            Some(path) => {
                let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
                Some(BufWriter::new(file))
            }
            None => None,
        };
        Ok(Self {
            port,
            plan: config.plan.clone(),
            record,
            record_error: None,
            bus: bus.trim_start_matches("sim:").to_owned(),
            drive: Drive::default(),
            speed_kph: None,
            enabled_at: None,
            safe_at: None,
            frames: 0,
        })
    }

    /// Takes everything that was seen since the last look.
    pub(super) fn collect(&mut self) {
        for _ in 0..DRAIN {
            let Ok(Some(received)) = self.port.recv(None) else { break };
            self.frames += 1;
            if let Some(out) = &mut self.record {
                let line = LogLine { wall_us: clock::wall_us(), bus: &self.bus, frame: received.frame };
                // A full disk ends the recording, not the demo; the end tells.
                if let Err(error) = writeln!(out, "{line}") {
                    self.record = None;
                    self.record_error = Some(error);
                }
            }
            self.look(received.at, &received.frame);
        }
    }

    /// Writes the rest of the recording. Why it is not whole, if it is not.
    pub(super) fn end_recording(&mut self) -> Option<io::Error> {
        let flushed = self.record.take().map_or(Ok(()), |mut out| out.flush());
        self.record_error.take().or_else(|| flushed.err())
    }

    fn look(&mut self, at: Instant, frame: &crate::can::Frame) {
        let Some(send) = self.plan.send.iter().find(|send| send.id == frame.id() && send.enable.is_some())
        else {
            if let Some(speed) = &self.plan.speed
                && let Some(receive) = self.plan.receive.get(speed.signal.receive)
                && receive.id == frame.id()
            {
                let signal = receive.signals.get(speed.signal.signal);
                self.speed_kph = signal.and_then(|signal| signal.codec.decode(frame.payload()));
            }
            return;
        };
        let enabled =
            send.enable.and_then(|enable| enable.codec.decode(frame.payload())).is_some_and(|bit| bit == 1.0);
        if enabled {
            self.enabled_at = Some(at);
            self.safe_at = None;
        } else if self.safe_at.is_none() {
            self.safe_at = Some(at);
        }
        self.drive.at = Some(at);
        self.drive.enabled = enabled;
        self.drive.values.clear();
        for signal in &send.signals {
            let value = signal.codec.decode(frame.payload()).unwrap_or(f64::NAN);
            self.drive.values.push((signal.name.clone(), value));
        }
    }

    /// The value of a signal of the last drive frame.
    pub(super) fn value(&self, name: &str) -> Option<f64> {
        self.drive.values.iter().find(|(signal, _)| signal == name).map(|(_, value)| *value)
    }
}
