//! The radio between operator and vehicle: control goes up, feedback and the picture come down.
//!
//! Owns what is on its way and what the radio does to it. Relies on time as an argument. Never looks into what it
//! carries.

use super::Rng;
use super::options::{Link, Options};
use super::player::Sent;
use super::streamer::Report;
use crate::time::{Duration, Instant};

/// What one direction of the radio does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LinkState {
    /// It works.
    #[default]
    Up,
    /// What is sent is lost.
    Cut,
    /// What is sent waits, and comes all at once when the link is restored.
    Held,
}

impl LinkState {
    /// One word for the status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Cut => "cut",
            Self::Held => "held",
        }
    }
}

/// Which way a command is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the operator to the vehicle: control.
    Up,
    /// From the vehicle to the operator: feedback and picture.
    Down,
    /// Both.
    Both,
}

/// One property of a direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LinkSetting {
    /// Delay of each message.
    Delay(Duration),
    /// Random addition to it.
    Jitter(Duration),
    /// Fraction lost.
    Loss(f64),
    /// Fraction sent twice.
    Duplicate(f64),
    /// Fraction that arrives late.
    Reorder(f64),
}

/// The radio of one vehicle.
#[derive(Debug)]
pub(super) struct Radio {
    up: Link,
    down: Link,
    video_delay: Duration,
    pub uplink: Path<Sent>,
    pub downlink: Path<Report>,
    pub video: Path<(u64, u32)>,
    rng: Rng,
}

impl Radio {
    pub fn new(options: &Options, rng: Rng) -> Self {
        Self {
            up: options.uplink,
            down: options.downlink,
            video_delay: options.video_delay,
            uplink: Path::default(),
            downlink: Path::default(),
            video: Path::default(),
            rng,
        }
    }

    /// The picture takes the downlink, and before and after it the time of coding and decoding.
    fn video_link(&self) -> Link {
        Link { delay: self.down.delay + self.video_delay, ..self.down }
    }

    pub fn set_state(&mut self, now: Instant, direction: Direction, state: LinkState) {
        let video = self.video_link();
        if direction != Direction::Down {
            self.uplink.set_state(now, state, self.up);
        }
        if direction != Direction::Up {
            self.downlink.set_state(now, state, self.down);
            self.video.set_state(now, state, video);
        }
    }

    pub const fn states(&self) -> [LinkState; 2] {
        [self.uplink.state, self.downlink.state]
    }

    pub fn set(&mut self, direction: Direction, setting: LinkSetting) {
        let up = (direction != Direction::Down).then_some(&mut self.up);
        let down = (direction != Direction::Up).then_some(&mut self.down);
        for link in up.into_iter().chain(down) {
            match setting {
                LinkSetting::Delay(time) => link.delay = time,
                LinkSetting::Jitter(time) => link.jitter = time,
                LinkSetting::Loss(p) => link.loss = p,
                LinkSetting::Duplicate(p) => link.duplicate = p,
                LinkSetting::Reorder(p) => link.reorder = p,
            }
        }
    }

    pub fn send_control(&mut self, now: Instant, sent: Sent) {
        self.uplink.push(now, sent, self.up, &mut self.rng);
    }

    pub fn send_report(&mut self, now: Instant, report: Report) {
        self.downlink.push(now, report, self.down, &mut self.rng);
    }

    pub fn send_picture(&mut self, now: Instant, pair: (u64, u32)) {
        self.video.push(now, pair, self.video_link(), &mut self.rng);
    }
}

/// Items on their way through a faulty link.
#[derive(Debug, Clone)]
pub(super) struct Path<T> {
    state: LinkState,
    in_flight: Vec<(Instant, T)>,
    held: Vec<T>,
    last_due: Instant,
}

impl<T> Default for Path<T> {
    fn default() -> Self {
        Self { state: LinkState::Up, in_flight: Vec::new(), held: Vec::new(), last_due: Instant::ZERO }
    }
}

impl<T: Clone> Path<T> {
    fn set_state(&mut self, now: Instant, state: LinkState, link: Link) {
        self.state = state;
        if state == LinkState::Up {
            let due = (now + link.delay).max(self.last_due);
            self.in_flight.extend(self.held.drain(..).map(|item| (due, item)));
            self.last_due = due;
        }
    }

    fn push(&mut self, now: Instant, item: T, link: Link, rng: &mut Rng) {
        match self.state {
            LinkState::Cut => return,
            LinkState::Held => {
                self.held.push(item);
                return;
            }
            LinkState::Up if rng.fraction() < link.loss => return,
            LinkState::Up => {}
        }
        let mut due = now + link.delay + link.jitter.mul_f64(rng.fraction());
        if rng.fraction() < link.reorder {
            due += link.delay;
        } else {
            due = due.max(self.last_due);
            self.last_due = due;
        }
        if rng.fraction() < link.duplicate {
            self.in_flight.push((due, item.clone()));
        }
        self.in_flight.push((due, item));
    }

    pub fn next_due(&self) -> Option<Instant> {
        self.in_flight.iter().map(|(due, _)| *due).min()
    }

    /// The item that arrived first, of those that arrived by `now`.
    pub fn pop(&mut self, now: Instant) -> Option<T> {
        let first = self.next_due().filter(|due| *due <= now)?;
        let at = self.in_flight.iter().position(|(due, _)| *due == first)?;
        Some(self.in_flight.remove(at).1)
    }
}
