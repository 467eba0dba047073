//! The gateway's view of a driving simulator: which car is ours, how it is, and whether that is still true.
//!
//! Owns the feed (a server, or one player's game), the questions it needs, and the newest [`CarSample`]. Relies on
//! `proto::assetto` for the bytes; time is an argument. Never believes another host, never passes a number that is not
//! finite, and sends nothing but questions: 200, 201 and 204 to a server, the handshake to a game.

pub mod client;
mod follow;
pub mod game;
pub mod stand_in;

use std::net::IpAddr;

use self::client::Client;
use self::follow::{Follow, Presence};
use self::game::{GameClient, Stream};
use crate::proto::assetto::Decoder;
use crate::proto::assetto::game::{GameMessage, Operation, Request, RtCarInfo};
use crate::signals::car::{CarFeed, CarSample, CarSettings, Value, WantedCar};
use crate::time::{Duration, Instant};

/// While our car gives nothing, its server is asked again this often: any question or answer may have been lost.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// While our driver is not found, the cars are asked about again this often: one question for each of them.
const FIND_AGAIN: Duration = Duration::from_secs(5);

/// Bytes of the longest question: a handshake.
pub const QUESTION_BYTES: usize = 12;

/// A place further from the last one than this was not driven to: the car was put there.
const JUMP_M: f64 = 50.0;

/// Way between two places from which a direction is read; positions are single floats and shake by less.
const STRIDE_M: f64 = 0.5;

/// How the feed is, as a person is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Standing {
    /// Nobody answers.
    #[default]
    NoAnswer = 0,
    /// The server answers, and our car is not there.
    NoCar = 1,
    /// Our driver is loading the track.
    Loading = 2,
    /// The car is there, and its updates have stopped.
    Stale = 3,
    /// The car drives or stands, and its updates come.
    Live = 4,
}

impl Standing {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::NoAnswer, Self::NoCar, Self::Loading, Self::Stale, Self::Live];

    /// The name in `user_data`, status and records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoAnswer => "no answer",
            Self::NoCar => "no car",
            Self::Loading => "loading",
            Self::Stale => "stale",
            Self::Live => "live",
        }
    }
}

/// What came, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Datagrams of the feed that were understood.
    pub messages: u64,
    /// Updates of our car that were taken.
    pub updates: u64,
    /// Updates of our car with a number that is not finite.
    pub not_finite: u64,
    /// Datagrams of the feed that were not understood.
    pub not_understood: u64,
    /// Datagrams of other hosts.
    pub strangers: u64,
}

#[derive(Debug)]
enum Line {
    Server { client: Client, decoder: Decoder, follow: Follow },
    Game(GameClient),
}

/// One simulated car.
#[derive(Debug)]
pub struct AssettoNode {
    settings: CarSettings,
    stale_after: Duration,
    line: Line,
    sample: Option<CarSample>,
    /// Place from which the next direction is read (a game does not tell the motion).
    anchor: Option<(f64, f64)>,
    heading: Option<f64>,
    ask_again: Instant,
    find_again: Instant,
    counts: Counts,
}

impl AssettoNode {
    /// Begins to ask now.
    #[must_use]
    pub fn new(settings: CarSettings, now: Instant) -> Self {
        let interval_ms = u16::try_from(settings.interval.as_millis()).unwrap_or(u16::MAX);
        let line = match &settings.feed {
            CarFeed::Server { car, .. } => {
                let only = if let WantedCar::Slot(slot) = car { Some(*slot) } else { None };
                Line::Server {
                    client: Client::new(now, interval_ms, only),
                    decoder: Decoder::default(),
                    follow: Follow::new(car.clone()),
                }
            }
            CarFeed::Game { .. } => Line::Game(GameClient::new(Stream::Updates, now)),
        };
        Self {
            stale_after: settings.stale_after(),
            settings,
            line,
            sample: None,
            anchor: None,
            heading: None,
            ask_again: now + ASK_AGAIN,
            find_again: now + FIND_AGAIN,
            counts: Counts::default(),
        }
    }

    /// What it was started with.
    #[must_use]
    pub const fn settings(&self) -> &CarSettings {
        &self.settings
    }

    /// The newest values, however old; `None` while there is no car.
    #[must_use]
    pub const fn sample(&self) -> Option<&CarSample> {
        self.sample.as_ref()
    }

    /// The slot of our car, where a server has told it.
    #[must_use]
    pub fn slot(&self) -> Option<u8> {
        match &self.line {
            Line::Server { follow, .. } => follow.slot(),
            Line::Game(_) => None,
        }
    }

    /// What came so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// How the feed is now.
    #[must_use]
    pub fn standing(&self, now: Instant) -> Standing {
        if self.sample.as_ref().is_some_and(|sample| sample.is_fresh(now, self.stale_after)) {
            return Standing::Live;
        }
        match &self.line {
            Line::Server { client, .. } if client.is_silent() => Standing::NoAnswer,
            Line::Server { follow, .. } => match follow.presence() {
                Presence::Gone => Standing::NoCar,
                Presence::Loading => Standing::Loading,
                Presence::Unknown | Presence::Loaded if self.sample.is_none() => Standing::NoCar,
                Presence::Unknown | Presence::Loaded => Standing::Stale,
            },
            Line::Game(client) if client.is_silent() => Standing::NoAnswer,
            Line::Game(_) if self.sample.is_none() => Standing::NoCar,
            Line::Game(_) => Standing::Stale,
        }
    }

    /// Takes a datagram. One of another host is counted and not looked at.
    pub fn handle_datagram(&mut self, now: Instant, from: IpAddr, bytes: &[u8]) {
        if from != self.settings.feed.address().ip().to_canonical() {
            self.counts.strangers += 1;
            return;
        }
        if matches!(self.line, Line::Server { .. }) {
            self.server_says(now, bytes);
        } else {
            self.game_says(now, bytes);
        }
    }

    fn server_says(&mut self, now: Instant, bytes: &[u8]) {
        let Line::Server { client, decoder, follow } = &mut self.line else { return };
        let Ok(event) = decoder.handle_datagram(bytes) else {
            self.counts.not_understood += 1;
            return;
        };
        self.counts.messages += 1;
        client.handle_event(now, &event);
        let Some(update) = follow.handle_event(&event) else {
            if follow.presence() != Presence::Loaded && follow.presence() != Presence::Unknown {
                self.forget();
            } else if let (Some(sample), Some(laps)) = (&mut self.sample, follow.news_of_laps()) {
                laps.fill(sample);
            }
            return;
        };
        if !update.is_finite() {
            self.counts.not_finite += 1;
            return;
        }
        self.counts.updates += 1;
        let laps = follow.laps();
        let [x, up, z] = update.pos.map(f64::from);
        let [vx, _, vz] = update.vel.map(f64::from);
        let speed = update.speed_mps();
        if speed >= self.settings.heading_min_mps {
            self.heading = Some(self.settings.map.unwrap_or_default().heading_deg(vx, vz));
        }
        let mut sample = self.placed(now, [x, up, z], speed);
        sample.set(Value::Gear, f64::from(update.signed_gear()));
        sample.set(Value::Rpm, f64::from(update.engine_rpm));
        sample.set(Value::Spline, f64::from(update.normalized_spline_pos));
        laps.fill(&mut sample);
        self.sample = Some(sample);
    }

    fn game_says(&mut self, now: Instant, bytes: &[u8]) {
        let Line::Game(client) = &mut self.line else { return };
        let Ok(message) = GameMessage::decode(bytes) else {
            self.counts.not_understood += 1;
            return;
        };
        self.counts.messages += 1;
        client.handle_message(now, &message);
        let GameMessage::CarInfo(step) = message else { return };
        if !used(&step).into_iter().all(f32::is_finite) {
            self.counts.not_finite += 1;
            return;
        }
        self.counts.updates += 1;
        let place = step.car_coordinates.map(f64::from);
        let speed = f64::from(step.speed_mps).abs();
        self.watch_direction(place, speed);
        let mut sample = self.placed(now, place, speed);
        sample.set(Value::Gear, f64::from(step.signed_gear()));
        sample.set(Value::Rpm, f64::from(step.engine_rpm));
        sample.set(Value::Spline, f64::from(step.car_position_normalized));
        sample.set(Value::Throttle, f64::from(step.gas));
        sample.set(Value::Brake, f64::from(step.brake));
        sample.set(Value::Clutch, f64::from(step.clutch));
        sample.set(Value::Steer, f64::from(step.steer));
        sample.set(Value::GVertical, f64::from(step.acc_g_vertical));
        sample.set(Value::GHorizontal, f64::from(step.acc_g_horizontal));
        sample.set(Value::GFrontal, f64::from(step.acc_g_frontal));
        sample.set(Value::LapCount, f64::from(step.lap_count));
        sample.set(Value::LapTimeMs, f64::from(step.lap_time_ms));
        // 0 is a lap that was never driven.
        for (value, ms) in [(Value::LastLapMs, step.last_lap_ms), (Value::BestLapMs, step.best_lap_ms)] {
            sample.set(value, if ms > 0 { f64::from(ms) } else { f64::NAN });
        }
        self.sample = Some(sample);
    }

    /// What both feeds tell.
    fn placed(&self, now: Instant, [x, up, z]: [f64; 3], speed: f64) -> CarSample {
        let mut sample = CarSample::new(now);
        sample.set(Value::SpeedMps, speed);
        sample.set(Value::SpeedKph, speed * 3.6);
        sample.set(Value::PosX, x);
        sample.set(Value::PosY, up);
        sample.set(Value::PosZ, z);
        if let Some(map) = &self.settings.map {
            let (lat, lon) = map.degrees(x, z);
            // A place beyond a pole is no place, and has no longitude either.
            if (-90.0..=90.0).contains(&lat) {
                sample.set(Value::Lat, lat);
                sample.set(Value::Lon, lon);
            }
        }
        if let Some(heading) = self.heading {
            sample.set(Value::HeadingDeg, heading);
        }
        sample
    }

    /// A game tells places and no motion: the direction is that from one place to the next.
    fn watch_direction(&mut self, [x, _, z]: [f64; 3], speed: f64) {
        let Some((from_x, from_z)) = self.anchor else {
            self.anchor = Some((x, z));
            return;
        };
        let (dx, dz) = (x - from_x, z - from_z);
        let way = dx.hypot(dz);
        if way < STRIDE_M {
            return;
        }
        self.anchor = Some((x, z));
        if way < JUMP_M && speed >= self.settings.heading_min_mps {
            self.heading = Some(self.settings.map.unwrap_or_default().heading_deg(dx, dz));
        }
    }

    fn forget(&mut self) {
        self.sample = None;
        self.heading = None;
        self.anchor = None;
    }

    /// When to look again: a question is due, or the newest sample becomes stale.
    #[must_use]
    pub fn poll_timeout(&self, now: Instant) -> Instant {
        let asking = match &self.line {
            Line::Server { client, .. } => client.poll_timeout().min(self.ask_again),
            Line::Game(client) => client.poll_timeout().unwrap_or(now + ASK_AGAIN),
        };
        let stale = self.sample.map(|sample| sample.at + self.stale_after).filter(|at| *at >= now);
        // One past the limit, or it would be looked at while still fresh.
        stale.map_or(asking, |at| asking.min(at + Duration::from_millis(1)))
    }

    /// Notices silence.
    pub fn handle_timeout(&mut self, now: Instant) {
        let is_live = self.standing(now) == Standing::Live;
        match &mut self.line {
            Line::Server { client, follow, .. } => {
                client.handle_timeout(now);
                if now >= self.ask_again {
                    self.ask_again = now + ASK_AGAIN;
                    // A silent server is asked at the client's own pace.
                    if !is_live && !client.is_silent() {
                        client.ask_for_positions();
                        if follow.is_to_be_found() && now >= self.find_again {
                            self.find_again = now + FIND_AGAIN;
                            client.forget_cars();
                        }
                    }
                }
            }
            Line::Game(client) => {
                client.handle_timeout(now);
            }
        }
    }

    /// The next question that is due: its bytes in `out`, and how many.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut [u8; QUESTION_BYTES]) -> Option<usize> {
        match &mut self.line {
            Line::Server { client, .. } => client.poll_transmit(now)?.encode(out).ok(),
            Line::Game(client) => {
                *out = Request::new(client.poll_transmit()?).encode();
                Some(out.len())
            }
        }
    }

    /// The last word: nothing more is wanted.
    pub fn farewell(&self, out: &mut [u8; QUESTION_BYTES]) -> Option<usize> {
        match &self.line {
            Line::Server { client, .. } => client.farewell()?.encode(out).ok(),
            Line::Game(_) => {
                *out = Request::new(Operation::Dismiss).encode();
                Some(out.len())
            }
        }
    }
}

/// Every number of a step that becomes a value.
const fn used(step: &RtCarInfo) -> [f32; 13] {
    let [x, y, z] = step.car_coordinates;
    [
        step.speed_mps,
        x,
        y,
        z,
        step.engine_rpm,
        step.car_position_normalized,
        step.gas,
        step.brake,
        step.clutch,
        step.steer,
        step.acc_g_vertical,
        step.acc_g_horizontal,
        step.acc_g_frontal,
    ]
}

#[cfg(test)]
mod tests;
