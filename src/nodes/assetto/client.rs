//! A plugin's side of the conversation: what it asks for, and when it asks again.
//!
//! Owns the questions that wait, their pace, and the cars that are known. Relies on nothing but events and the time as
//! an argument. Never asks for more than positions, sessions and cars.

use std::collections::{BTreeSet, VecDeque};

use crate::proto::assetto::command::CURRENT_SESSION;
use crate::proto::assetto::{Command, Event, Session};
use crate::time::{Duration, Instant};

/// Pause between two questions: that of a common plugin library. Servers do not take bursts.
const PACE: Duration = Duration::from_millis(20);

/// A server that says nothing for so long is asked again: positions come more often, and where no car drives, the
/// question for the session is answered.
const SILENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Session,
    Interval,
    Car(u8),
}

/// The conversation.
#[derive(Debug)]
pub struct Client {
    interval_ms: u16,
    /// The only car that is asked about, if there is one.
    car: Option<u8>,
    waiting: VecDeque<Question>,
    /// Cars that were asked about, or do not need it.
    known: BTreeSet<u8>,
    next_send: Instant,
    /// Last event, or last time that silence was noticed.
    heard: Instant,
    is_silent: bool,
    /// It has sent a narrow weather: no AssettoServer does.
    is_narrow: bool,
}

impl Client {
    /// Begins to ask now.
    pub fn new(now: Instant, interval_ms: u16, car: Option<u8>) -> Self {
        let mut client = Self {
            interval_ms,
            car,
            waiting: VecDeque::new(),
            known: BTreeSet::new(),
            next_send: now,
            heard: now,
            is_silent: true,
            is_narrow: false,
        };
        client.ask(Question::Session);
        client.ask(Question::Interval);
        client.car.into_iter().for_each(|car| client.ask_about(car));
        client
    }

    fn ask(&mut self, question: Question) {
        if !self.waiting.contains(&question) {
            self.waiting.push_back(question);
        }
    }

    /// Only about cars that the server named: some servers stop listening at a wrong number.
    fn ask_about(&mut self, car: u8) {
        if self.car.is_none_or(|wanted| wanted == car) && self.known.insert(car) {
            self.ask(Question::Car(car));
        }
    }

    /// Positions have stopped though the server talks: it is asked for them again.
    pub fn ask_for_positions(&mut self) {
        self.ask(Question::Interval);
    }

    /// An answer about a car may have been lost: all that are seen are asked about again.
    pub fn forget_cars(&mut self) {
        self.known.clear();
        self.car.into_iter().for_each(|car| self.ask_about(car));
    }

    /// Whether nothing has been heard for a while, or ever.
    #[must_use]
    pub const fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// Takes an event; true where it ended a silence.
    pub fn handle_event(&mut self, now: Instant, event: &Event<'_>) -> bool {
        self.heard = now;
        match event {
            Event::Version { .. } => {
                // The server has started: what was known is of the one before.
                self.known.clear();
                self.car.into_iter().for_each(|car| self.ask_about(car));
                self.ask(Question::Session);
                self.ask(Question::Interval);
            }
            Event::NewSession(session) => {
                self.look_at(session);
                // Cars stay where they are, positions stop.
                self.ask(Question::Interval);
                self.ask(Question::Session);
                for car in core::mem::take(&mut self.known) {
                    self.ask_about(car);
                }
            }
            Event::SessionInfo(session) => self.look_at(session),
            // While it loads, the answer would be that nobody is there.
            Event::NewConnection(who) | Event::ConnectionClosed(who) => {
                self.known.remove(&who.car_id);
                self.waiting.retain(|question| *question != Question::Car(who.car_id));
            }
            Event::ClientLoaded { car_id } => {
                self.known.remove(car_id);
                self.ask_about(*car_id);
            }
            // Who was there before this program is known by its positions alone.
            Event::CarUpdate(update) => self.ask_about(update.car_id),
            _ => {}
        }
        core::mem::take(&mut self.is_silent)
    }

    /// The next question, if it is time for one.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Command<'static>> {
        if now < self.next_send {
            return None;
        }
        let question = self.waiting.pop_front()?;
        self.next_send = now + PACE;
        Some(match question {
            Question::Session => Command::GetSessionInfo { session_index: CURRENT_SESSION },
            Question::Interval => Command::RealtimePosInterval { interval_ms: self.interval_ms },
            Question::Car(car_id) => Command::GetCarInfo { car_id },
        })
    }

    /// When to look again.
    pub fn poll_timeout(&self) -> Instant {
        let silence = self.heard + SILENCE;
        if self.waiting.is_empty() { silence } else { self.next_send.min(silence) }
    }

    /// Notices a silence; true the first time.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        if now < self.heard + SILENCE {
            return false;
        }
        self.heard = now;
        self.ask(Question::Session);
        self.ask(Question::Interval);
        !core::mem::replace(&mut self.is_silent, true)
    }

    /// The last word: no more positions. Only to a server that is known not to be AssettoServer, which takes a period of zero
    /// for one without a pause; an empty weather is the same in both.
    pub const fn farewell(&self) -> Option<Command<'static>> {
        if self.is_narrow && !self.is_silent {
            Some(Command::RealtimePosInterval { interval_ms: 0 })
        } else {
            None
        }
    }

    fn look_at(&mut self, session: &Session<'_>) {
        if session.is_weather_wide {
            self.is_narrow = false;
        } else if !session.weather_graph.is_empty() {
            self.is_narrow = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::assetto::{CarUpdate, Connection, Text};

    const SESSION: Command<'static> = Command::GetSessionInfo { session_index: -1 };
    const INTERVAL: Command<'static> = Command::RealtimePosInterval { interval_ms: 100 };

    const fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    /// Everything that it asks from this time on, a pace apart.
    fn asked(client: &mut Client, from: u64) -> Vec<Command<'static>> {
        (0..50).map_while(|turn| client.poll_transmit(at(from + 20 * turn))).collect()
    }

    #[test]
    fn it_asks_at_once_at_a_pace_and_again_after_a_session_a_start_and_a_silence() {
        let mut client = Client::new(at(1_000), 100, None);
        assert_eq!(client.poll_transmit(at(1_000)), Some(SESSION));
        assert_eq!((client.poll_transmit(at(1_019)), client.poll_timeout()), (None, at(1_020)));
        assert_eq!(client.poll_transmit(at(1_020)), Some(INTERVAL));
        assert_eq!((client.poll_transmit(at(1_100)), client.poll_timeout()), (None, at(4_000)));
        assert_eq!(client.farewell(), None, "nobody was there");

        assert!(
            client
                .handle_event(at(2_000), &Event::CarUpdate(CarUpdate { car_id: 7, ..CarUpdate::default() }))
        );
        assert!(
            !client
                .handle_event(at(2_001), &Event::CarUpdate(CarUpdate { car_id: 7, ..CarUpdate::default() }))
        );
        assert_eq!(asked(&mut client, 2_001), [Command::GetCarInfo { car_id: 7 }]);
        client.handle_event(at(3_000), &Event::NewSession(Session::default()));
        assert_eq!(asked(&mut client, 3_000), [INTERVAL, SESSION, Command::GetCarInfo { car_id: 7 }]);
        client.handle_event(at(3_500), &Event::Version { proto_version: 4 });
        client.handle_event(at(3_500), &Event::NewSession(Session::default()));
        assert_eq!(asked(&mut client, 3_500), [SESSION, INTERVAL], "the cars of the server before are gone");

        assert!(!client.handle_timeout(at(6_499)) && client.handle_timeout(at(6_500)));
        assert_eq!(asked(&mut client, 6_500), [SESSION, INTERVAL]);
        assert!(!client.handle_timeout(at(9_500)), "said once");
        assert_eq!(asked(&mut client, 9_500), [SESSION, INTERVAL]);
        assert!(client.handle_event(at(9_900), &Event::SessionInfo(Session::default())));
        assert_eq!(client.farewell(), None, "no weather: it may be any server");
        let narrow = Session { weather_graph: Text::from("3_clear"), ..Session::default() };
        client.handle_event(at(9_900), &Event::SessionInfo(narrow));
        assert_eq!(client.farewell(), Some(Command::RealtimePosInterval { interval_ms: 0 }));
        let wide = Session { is_weather_wide: true, ..narrow };
        client.handle_event(at(9_901), &Event::SessionInfo(wide));
        assert_eq!(client.farewell(), None, "it would never pause again");
    }

    #[test]
    fn a_driver_who_loads_is_asked_about_once_loaded() {
        let mut client = Client::new(at(0), 100, None);
        asked(&mut client, 0);
        let who = Connection { car_id: 2, ..Connection::default() };
        client.handle_event(at(500), &Event::NewConnection(who));
        assert_eq!(asked(&mut client, 500), []);
        client.handle_event(at(600), &Event::ClientLoaded { car_id: 2 });
        client.handle_event(at(600), &Event::CarUpdate(CarUpdate { car_id: 2, ..CarUpdate::default() }));
        assert_eq!(asked(&mut client, 600), [Command::GetCarInfo { car_id: 2 }]);
        client.handle_event(at(1_700), &Event::ClientLoaded { car_id: 3 });
        client.handle_event(at(1_700), &Event::ConnectionClosed(Connection { car_id: 3, ..who }));
        assert_eq!(asked(&mut client, 1_700), []);
    }

    #[test]
    fn one_car_is_the_only_one_asked_about() {
        let mut client = Client::new(at(0), 100, Some(5));
        assert_eq!(asked(&mut client, 0), [SESSION, INTERVAL, Command::GetCarInfo { car_id: 5 }]);
        client.handle_event(at(2_000), &Event::ClientLoaded { car_id: 2 });
        assert_eq!(asked(&mut client, 2_000), []);
    }
}
