//! What the audience sees: a live view on a terminal, lines elsewhere.
//!
//! Owns the drawing. Relies on the observer and the status for every number. Never blocks the story: a terminal that
//! does not take its text is skipped.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;

use super::observer::Observer;
use crate::nodes::report::next_step;
use crate::safety::input::Status;
use crate::sim::ocp::Snapshot;
use crate::time::{Duration, Instant, millis_f64};

/// Time between two pictures.
const PICTURE: Duration = Duration::from_millis(100);

/// Time between two lines where there is no terminal.
const LINE: Duration = Duration::from_secs(1);

/// Messages kept on the screen.
const SAID: usize = 8;

/// Width of a bar in characters.
const BAR: usize = 30;

/// The view.
pub(super) struct Screen {
    start: Instant,
    is_terminal: bool,
    drawn: usize,
    shown_at: Option<Instant>,
    said: VecDeque<String>,
    reaction: Option<String>,
}

impl Screen {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            is_terminal: crate::cli::has_screen(),
            drawn: 0,
            shown_at: None,
            said: VecDeque::new(),
            reaction: None,
        }
    }

    /// A line for the audience.
    pub(super) fn say(&mut self, now: Instant, text: &str) {
        let line = format!("{:7.3} s  {text}", now.since(self.start).as_secs_f64());
        if self.is_terminal {
            if self.said.len() == SAID {
                self.said.pop_front();
            }
            self.said.push_back(line);
        } else {
            write_out(&format!("{line}\n"));
        }
    }

    /// Remembers the last trip's figure.
    pub(super) fn note(&mut self, status: &Status) {
        if let Some(reaction) = &status.reaction {
            self.reaction = Some(format!(
                "{} answered in {:.1} ms",
                reaction.trip.fault.name(),
                millis_f64(reaction.time)
            ));
        }
    }

    /// Draws, if it is time to.
    pub(super) fn show(
        &mut self,
        now: Instant,
        headline: &str,
        status: Option<&Status>,
        ocp: &Snapshot,
        observer: &Observer,
    ) {
        let pause = if self.is_terminal { PICTURE } else { LINE };
        if self.shown_at.is_some_and(|at| now.since(at) < pause) {
            return;
        }
        self.shown_at = Some(now);
        let state = status.map_or("INIT", |status| status.state.name());
        let steer = observer.value("STEER_ANGLE_CMD").unwrap_or(0.0);
        let throttle = observer.value("THROTTLE_CMD").unwrap_or(0.0);
        let brake = observer.value("BRAKE_CMD").unwrap_or(0.0);
        let speed = observer.speed_kph.unwrap_or(0.0);
        let seconds = now.since(self.start).as_secs_f64();
        if !self.is_terminal {
            write_out(&format!(
                "{seconds:7.3} s  {state:<8} enable {} steer {steer:6.1} deg throttle {throttle:5.1} % brake {brake:5.1} % \
                 speed {speed:4.1} km/h latency {:.0} ms\n",
                u8::from(observer.drive.enabled),
                ocp.latency_ms
            ));
            return;
        }
        let mut text = String::new();
        if self.drawn > 0 {
            let _ = write!(text, "\x1b[{}A\x1b[J", self.drawn);
        }
        let body = self.picture(headline, status, ocp, observer, seconds);
        self.drawn = body.lines().count();
        text.push_str(&body);
        write_out(&text);
    }

    fn picture(
        &self,
        headline: &str,
        status: Option<&Status>,
        ocp: &Snapshot,
        observer: &Observer,
        seconds: f64,
    ) -> String {
        let mut out = String::new();
        let state = status.map_or("INIT", |status| status.state.name());
        let _ = writeln!(out, "ocpcan demo  {seconds:5.1} s   state \x1b[1m{state}\x1b[0m   {headline}");
        let next = status.and_then(next_step).unwrap_or("-");
        let _ = writeln!(out, "  to arm         {next}");
        for (name, low, high) in
            [("STEER_ANGLE_CMD", -450.0, 450.0), ("THROTTLE_CMD", 0.0, 100.0), ("BRAKE_CMD", 0.0, 100.0)]
        {
            let value = observer.value(name).unwrap_or(0.0);
            let _ = writeln!(out, "  {name:<15} {} {value:7.1}", bar(value, low, high));
        }
        let _ = writeln!(
            out,
            "  DRIVE_ENABLE    {}   speed {:5.1} km/h   {} frames on the bus",
            u8::from(observer.drive.enabled),
            observer.speed_kph.unwrap_or(0.0),
            observer.frames
        );
        let _ = writeln!(
            out,
            "  OCP             latency {:.0} ms, answer after {:.1} ms, {} messages, faults: {}",
            ocp.latency_ms,
            ocp.reply_ms,
            ocp.sent,
            if ocp.faults.is_empty() { "none".to_owned() } else { ocp.faults.join(", ") }
        );
        let _ = writeln!(out, "  last trip       {}", self.reaction.as_deref().unwrap_or("none yet"));
        for line in &self.said {
            let _ = writeln!(out, "  {line}");
        }
        out
    }

    /// Leaves the last picture standing.
    pub(super) fn end(&mut self) {
        self.drawn = 0;
    }
}

/// A bar with the value's place in its range.
fn bar(value: f64, low: f64, high: f64) -> String {
    let share = ((value - low) / (high - low)).clamp(0.0, 1.0);
    // At most BAR, and never negative: the share is clamped.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 30")]
    let place = (share * (BAR - 1) as f64).round() as usize;
    let mut out = String::from("[");
    for at in 0..BAR {
        out.push(if at == place { '#' } else { '-' });
    }
    out.push(']');
    out
}

/// Writes to stdout; where that fails the show goes on unseen.
fn write_out(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
