//! A CAN bus in virtual time with the controller that the gateway uses, both of which fail.
//!
//! Owns the controller's queue, the wire, and what the kernel tells the gateway's socket. Relies on `can`. Never
//! reorders frames of one sender.

use std::collections::VecDeque;

use crate::can::Frame;
use crate::safety::buswatch::BusEvent;
use crate::safety::transmit::Written;
use crate::time::{Duration, Instant};

/// Frames that the kernel's queue and the controller hold together (measured: 11 with the default queue).
const QUEUE: usize = 11;

/// One frame of 8 bytes at 500 kbit/s.
const FRAME_TIME: Duration = Duration::from_micros(270);

/// What is wrong with the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// The controller cannot send: frames wait in its queue and go out when the trouble is over.
    Stuck,
    /// Frames are taken and vanish.
    Loss,
    /// Nobody takes frames: the queue reports that it is full.
    Full,
}

/// What the gateway's actuator socket delivers.
#[derive(Debug, Clone, Copy)]
pub enum Delivery {
    /// A frame; `own` marks an echo.
    Frame(Frame, bool),
    /// A change of the interface.
    Event(BusEvent),
}

/// A frame on the wire.
#[derive(Debug, Clone, Copy)]
pub struct OnWire {
    /// When the gateway wrote it; `None` for frames of others.
    pub written: Option<Instant>,
    /// The frame.
    pub frame: Frame,
}

/// The bus.
#[derive(Debug)]
pub struct Bus {
    up: bool,
    off: bool,
    trouble: Trouble,
    queue: VecDeque<(Instant, Frame)>,
    others: VecDeque<Frame>,
    free_at: Instant,
    deliveries: VecDeque<(Instant, Delivery)>,
    came_up: Instant,
}

impl Bus {
    /// A bus whose interface comes up now.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let mut bus = Self {
            up: false,
            off: false,
            trouble: Trouble::None,
            queue: VecDeque::new(),
            others: VecDeque::new(),
            free_at: now,
            deliveries: VecDeque::new(),
            came_up: now,
        };
        bus.set_up(now, true);
        bus
    }

    /// Takes the interface up or down; down purges its queue.
    pub fn set_up(&mut self, now: Instant, up: bool) {
        if self.up == up {
            return;
        }
        self.up = up;
        self.off = false;
        if up {
            self.came_up = now;
        } else {
            self.queue.clear();
        }
        let event = if up { BusEvent::Up { proof: true } } else { BusEvent::Down };
        self.deliveries.push_back((now, Delivery::Event(event)));
    }

    /// The controller goes bus-off, or is restarted.
    pub fn set_off(&mut self, now: Instant, off: bool) {
        if !self.up || self.off == off {
            return;
        }
        self.off = off;
        self.queue.clear();
        let event = if off { BusEvent::BusOff } else { BusEvent::Restarted };
        self.deliveries.push_back((now, Delivery::Event(event)));
    }

    /// Sets what is wrong.
    pub const fn set_trouble(&mut self, trouble: Trouble) {
        self.trouble = trouble;
    }

    /// Whether frames leave and come back now.
    #[must_use]
    pub fn works(&self) -> bool {
        self.up && !self.off && self.trouble == Trouble::None
    }

    /// Whether the interface is up.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.up
    }

    /// When the interface came up last.
    #[must_use]
    pub const fn came_up(&self) -> Instant {
        self.came_up
    }

    /// The gateway writes a frame.
    pub fn write(&mut self, now: Instant, frame: Frame) -> Written {
        if !self.up {
            return Written::Failed;
        }
        if self.off || self.trouble == Trouble::Full || self.queue.len() >= QUEUE {
            return Written::Full;
        }
        if self.trouble != Trouble::Loss {
            self.queue.push_back((now, frame));
        }
        Written::Accepted
    }

    /// Another node sends a frame.
    pub fn inject(&mut self, frame: Frame) {
        self.others.push_back(frame);
    }

    /// The next frame that was transmitted completely by `now`.
    pub fn poll_wire(&mut self, now: Instant) -> Option<OnWire> {
        if now < self.free_at {
            return None;
        }
        if let Some(frame) = self.others.pop_front() {
            self.free_at = now + FRAME_TIME;
            if self.up {
                self.deliveries.push_back((now, Delivery::Frame(frame, false)));
            }
            return Some(OnWire { written: None, frame });
        }
        if !self.works() {
            return None;
        }
        let (written, frame) = self.queue.pop_front()?;
        self.free_at = now + FRAME_TIME;
        self.deliveries.push_back((now, Delivery::Frame(frame, true)));
        Some(OnWire { written: Some(written), frame })
    }

    /// What the gateway's socket delivers next.
    pub fn poll_delivery(&mut self) -> Option<(Instant, Delivery)> {
        self.deliveries.pop_front()
    }
}
