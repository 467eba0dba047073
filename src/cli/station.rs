//! `ocpcan run` with `role = "operator"`: the operator station's main thread.
//!
//! Owns the start and stop order and the log lines. Relies on `threads::station`. The thread decides and sends; this reads
//! its news and writes them down.

#![allow(clippy::disallowed_methods, reason = "this is the main thread: it waits for the other to end")]

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use super::{complain, exit, happening};
use crate::config::StationConfig;
use crate::io::canbus::{BusAddress, OpenError};
use crate::io::journal::Journal;
use crate::io::notify::{self, Heartbeat};
use crate::io::runtime::BusLock;
use crate::io::{clock, confine};
use crate::nodes::station::{Choice, StationTimes};
use crate::threads::station::{Station, StationOptions};
use crate::time::Duration;
use crate::topology::station::StationNews;

/// How often signals are looked at.
const TURN: Duration = Duration::from_millis(20);

/// Without progress of the station for this long the service manager gets no sign of life.
const STALL: Duration = Duration::from_millis(500);

/// After its end was asked for, the station has this long.
const END_LIMIT: Duration = Duration::from_millis(500);

/// What a log line keeps of a text that came over the network.
const TEXT_CHARS: usize = 64;

/// Runs the operator station.
pub(super) fn run(config: StationConfig, vehicle: Option<String>, listen_only: bool, log: &Journal) -> u8 {
    let mut locks: Vec<BusLock> = Vec::new();
    for bus in &config.plan.buses {
        let address: Result<BusAddress, String> =
            bus.interface.parse().map_err(|error| format!("{}: {error}", bus.interface));
        match address.and_then(|address| BusLock::take(&address).map_err(|error| error.to_string())) {
            Ok(lock) => locks.push(lock),
            Err(text) => {
                complain(text.as_str());
                return exit::UNAVAILABLE;
            }
        }
    }
    let ending = [SIGTERM, SIGINT, SIGQUIT, SIGHUP];
    let mut signals = match Signals::new(ending.into_iter().chain([SIGUSR1, SIGUSR2])) {
        Ok(signals) => signals,
        Err(error) => {
            complain(&format!("cannot listen for signals: {error}"));
            return exit::UNAVAILABLE;
        }
    };
    let buses: Vec<(String, String)> =
        config.plan.buses.iter().map(|bus| (bus.name.clone(), bus.interface.clone())).collect();
    let address = config.player.address.to_string();
    let options = StationOptions {
        times: StationTimes {
            feedback_stale: config.player.feedback_stale,
            data_stale: config.player.data_stale,
        },
        plan: config.plan,
        address: config.player.address,
        vehicle,
        listen_only,
    };
    if let Err(why) = confine::program() {
        log.warning(format_args!("the program {}", happening::not_confined(why)));
    }
    let station = match Station::start(options) {
        Ok(station) => station,
        Err(error) => {
            complain(&error.to_string());
            return exit::UNAVAILABLE;
        }
    };
    if listen_only {
        log.line(format_args!("listening only: nothing is sent"));
    }
    notify::ready();
    let heartbeat = Heartbeat::connect();
    let mut stop_at = None;
    while !station.shared.ended() {
        let now = clock::now();
        for signal in signals.pending() {
            if signal == SIGUSR1 {
                tell_counters(&station, log);
            } else if ending.contains(&signal) && stop_at.is_none() {
                let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
                log.line(format_args!("{name}: stopping"));
                notify::stopping();
                station.shared.request_stop();
                stop_at = Some(now + END_LIMIT);
            }
        }
        if now.since(station.shared.last_beat()) < STALL {
            heartbeat.beat();
        }
        let mut news = station.news.wait(TURN);
        while let Some(one) = news {
            tell(&one, &address, &buses, log);
            // It may be another interface than before, or the first one of this name.
            if let StationNews::Bus { bus, .. } = one
                && let Some(Err(error)) = locks.get_mut(bus).map(BusLock::renew)
            {
                log.warning(format_args!("{error}"));
            }
            news = station.news.take();
        }
        if stop_at.is_some_and(|at| now >= at) {
            break;
        }
    }
    while let Some(one) = station.news.take() {
        tell(&one, &address, &buses, log);
    }
    let code = if station.shared.panicked() { exit::SOFTWARE } else { exit::OK };
    tell_counters(&station, log);
    if station.shared.ended() {
        station.join();
    }
    log.line(format_args!("ended, exit {code}"));
    code
}

fn tell_counters(station: &Station, log: &Journal) {
    for (counter, value) in station.shared.counters().filter(|(_, value)| *value > 0) {
        log.line(format_args!("counted: {value} {}", counter.text()));
    }
}

fn tell(news: &StationNews, address: &str, buses: &[(String, String)], log: &Journal) {
    let name = |bus: usize| buses.get(bus).map_or("?", |(name, _)| name.as_str());
    match news {
        StationNews::Choice(choice) => {
            log.line(format_args!(
                "{}",
                choice_line(choice, "set player.active_vehicle, or start with --vehicle")
            ));
        }
        StationNews::Bus { bus, what } => log.line(format_args!("bus {}: {what}", name(*bus))),
        StationNews::BusUnavailable { bus, cause } => {
            if let Some(Ok(address)) = buses.get(*bus).map(|(_, interface)| interface.parse()) {
                let error = OpenError { bus: address, cause: *cause };
                log.line(format_args!("bus {}: {error}; trying again", name(*bus)));
            }
        }
        other => log.line(format_args!("{}", line(other, address))),
    }
}

/// One piece of news in a person's words.
pub(super) fn line(news: &StationNews, address: &str) -> String {
    let list = |faults: &[String]| {
        if faults.is_empty() { "none".to_owned() } else { clean(&faults.join(", "), TEXT_CHARS) }
    };
    match news {
        StationNews::Connected => format!("Player: connected to {address}"),
        StationNews::Lost(error) => format!("Player: {address}: {error}; trying again"),
        StationNews::TurnedAway => format!(
            "Player: {address}: closed before any feedback came: a Player takes one client at a time, and another one may be \
             connected; trying again"
        ),
        StationNews::GaveUp(why) => format!("Player: {address}: closed: {why}; trying again"),
        StationNews::Invalid(error) => format!("Player: message dropped: {error}"),
        StationNews::Empty => "Player: message dropped: it has no body".to_owned(),
        StationNews::Unusable(name, error) => {
            format!("Player: feedback of {} dropped: {error}", clean(name, TEXT_CHARS))
        }
        StationNews::Choice(choice) => choice_line(choice, "choose one"),
        StationNews::PanelLost(name) => {
            format!("panel: {name} is missing or not believed: rest values are sent, panel_ok false")
        }
        StationNews::PanelBack => "panel: every frame is fresh".to_owned(),
        StationNews::Faults { vehicle, sender, receiver } => format!(
            "{}: faults of the operator's side: {}; of the vehicle's side: {}",
            clean(vehicle, TEXT_CHARS),
            list(sender),
            list(receiver)
        ),
        StationNews::LockedOut => format!(
            "Player: {address} seems not to take our data: acks go back, and the latency loop stays open. A Player listens to \
             the first source of data only (a web view, a plugin or one TCP client), and after a second one to none until \
             it is restarted. End the other source, then restart the Player. (A vehicle that does not answer looks the same.)"
        ),
        StationNews::Oversize(bytes) => {
            format!("Player: a message of {bytes} bytes was not sent: OCP takes 16384")
        }
        StationNews::Bus { what, .. } => format!("bus: {what}"),
        StationNews::BusUnavailable { .. } => "bus: cannot be opened; trying again".to_owned(),
        StationNews::NotConfined(why) => format!("thread station {}", happening::not_confined(*why)),
        StationNews::Panicked => "thread station panicked: the panel's data stop".to_owned(),
    }
}

/// Who is chosen, in a person's words.
pub(super) fn choice_line(choice: &Choice, remedy: &str) -> String {
    match choice {
        Choice::Nobody => "no vehicle is connected".to_owned(),
        Choice::Vehicle(name) => format!("active vehicle: {}", clean(name, TEXT_CHARS)),
        Choice::Several => format!("several vehicles are connected and none gets input: {remedy}"),
        Choice::NotSelected => "no vehicle is selected at the panel: none gets input".to_owned(),
    }
}

/// A text from the network, fit for a terminal and a log: no control characters, not too long.
pub(super) fn clean(text: &str, most: usize) -> String {
    let mut out: String = text.chars().take(most).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(most).is_some() {
        out.push_str("...");
    }
    out
}
