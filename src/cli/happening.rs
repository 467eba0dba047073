//! What main writes down, for those who subscribed to it.
//!
//! Owns the turning of the threads' events into what the management plane tells, and the words that the log shares with it.
//! Relies on the configuration for names. Never waits: an event that has no room is dropped and counted.

use super::tcpcan;
use crate::config::Config;
use crate::io::canbus::{OpenCause, OpenError};
use crate::io::confine::Unconfined;
use crate::io::tcp::LinkError;
use crate::nodes::assetto::Standing;
use crate::nodes::management::history::Happening;
use crate::time::millis_f64;
use crate::topology::Event;
use crate::topology::car::CarNews;
use crate::topology::tunnel::{News, What};

/// The name of a bus.
pub(super) fn bus_name(config: &Config, bus: usize) -> &str {
    config.plan.buses.get(bus).map_or("?", |bus| &bus.name)
}

/// The OCP connection, as the log says it too.
pub(super) fn connected(config: &Config) -> String {
    format!("connected to {}", config.ocp.address)
}

/// The same where there is none.
pub(super) fn lost(config: &Config, error: LinkError) -> String {
    format!("{}: {error}; trying again", config.ocp.address)
}

/// Why a bus cannot be opened.
pub(super) fn unavailable(config: &Config, bus: usize, cause: OpenCause) -> Option<String> {
    let address = config.plan.buses.get(bus)?.interface.parse().ok()?;
    Some(format!("{}; trying again", OpenError { bus: address, cause }))
}

/// An event of the threads; none where it is nothing for others.
pub(super) fn of_event(event: &Event, config: &Config) -> Option<Happening> {
    Some(match event {
        Event::Status(status) => Happening::Status(*status),
        Event::Bus { bus, what } => {
            Happening::Bus { bus: *bus, up: *what != "gone", text: (*what).to_owned() }
        }
        Event::BusUnavailable { bus, cause } => {
            let name = bus_name(config, *bus);
            Happening::Warning(format!("bus {name}: {}", unavailable(config, *bus, *cause)?))
        }
        Event::OcpConnected => Happening::Link { connected: true, text: connected(config) },
        Event::OcpLost(error) => Happening::Link { connected: false, text: lost(config, *error) },
        // The management plane's own.
        Event::RcspListening(_)
        | Event::RcspNotListening(_)
        | Event::Requested(..)
        | Event::RcspClosed(..) => return None,
        Event::Panicked(thread) => Happening::Warning(format!("thread {} panicked", thread.spec().name)),
        Event::RealTimeRefused { thread, .. } => {
            Happening::Warning(format!("thread {} runs without real-time priority", thread.spec().name))
        }
        Event::NotConfined(thread, why) => {
            Happening::Warning(format!("thread {} {}", thread.spec().name, not_confined(*why)))
        }
        Event::WatchdogEnded => return None,
    })
}

/// What is said of a thread, or of the program, that the kernel does not hold to its rights.
pub(super) fn not_confined(why: Unconfined) -> String {
    let desc = |errno| nix::errno::Errno::from_raw(errno).desc();
    match why {
        Unconfined::Filter(errno) => format!(
            "may do whatever its user may: the kernel installs no filter of system calls ({}; CONFIG_SECCOMP_FILTER)",
            desc(errno)
        ),
        Unconfined::Capabilities(errno) => format!("keeps root's capabilities: {}", desc(errno)),
    }
}

/// What the log says of the simulated car.
pub(super) fn car(news: &CarNews, config: &Config) -> String {
    let address = config.car.as_ref().map(|car| car.settings.feed.address());
    let who = address.map_or_else(String::new, |address| format!("{address}: "));
    let errno = |errno: i32| nix::errno::Errno::from_raw(errno).desc();
    match news {
        CarNews::Listening(here) => format!("{who}asking from UDP {here}"),
        CarNews::NotListening(number) => {
            format!("{who}no UDP socket: {}; trying again (assetto.listen)", errno(*number))
        }
        CarNews::Standing { standing, slot, age } => {
            let car = slot.map_or_else(|| "the car".to_owned(), |slot| format!("car {slot}"));
            let what = match (standing, age) {
                (Standing::Live, _) => format!("{car} is live"),
                (Standing::Loading, _) => format!("{car}: its driver is loading the track"),
                (Standing::NoCar, _) => "it answers, and our car is not there".to_owned(),
                (Standing::NoAnswer, None) => "no answer; asking again".to_owned(),
                (Standing::NoAnswer, Some(age)) => {
                    format!("no answer for {:.1} s; asking again", age.as_secs_f64())
                }
                (Standing::Stale, age) => {
                    let age = age.map_or(0.0, |age| millis_f64(age).round());
                    format!(
                        "{car} is STALE: no update for {age} ms; its frames stop and its values are reported as stale"
                    )
                }
            };
            format!("{who}{what}")
        }
        CarNews::BusOpen(bus) => format!("the car sends on bus {}", bus_name(config, *bus)),
        CarNews::BusLost(bus) => {
            format!("bus {} is gone: the car sends nothing there", bus_name(config, *bus))
        }
        CarNews::PhysicalBus(bus) => format!(
            "bus {} is a physical one: a simulated car belongs on vcan or sim:NAME and sends nothing there (assetto.on_real_bus = true if it must)",
            bus_name(config, *bus)
        ),
        CarNews::BusUnavailable { bus, cause } => {
            let why = unavailable(config, *bus, *cause).unwrap_or_default();
            format!("bus {}: {why}", bus_name(config, *bus))
        }
    }
}

/// Whether it is a warning: the car tells nothing, or cannot be heard.
pub(super) const fn is_trouble(news: &CarNews) -> bool {
    match news {
        CarNews::Standing { standing, .. } => matches!(standing, Standing::NoAnswer | Standing::Stale),
        CarNews::Listening(_) | CarNews::BusOpen(_) => false,
        _ => true,
    }
}

/// The same for those who subscribed.
pub(super) fn of_car(news: &CarNews, config: &Config) -> Option<Happening> {
    let (topic, is_told) = match news {
        CarNews::Standing { .. } => ("CarStateChanged", true),
        CarNews::Listening(_) => ("CarFrames", false),
        _ => ("CarFrames", true),
    };
    is_told.then(|| Happening::Car { topic, text: car(news, config) })
}

/// News of a tunnel.
pub(super) fn of_news(news: &News, config: &Config) -> Option<Happening> {
    let address = config.plan.buses.get(news.bus)?.interface.parse().ok()?;
    let topic = match news.what {
        What::Connected => "PeerConnected",
        What::Ended(_) => "PeerEnded",
        What::NotAllowed | What::Refused(..) => "PeerRefused",
        _ => "TunnelChanged",
    };
    let name = bus_name(config, news.bus);
    let text = tcpcan::line(news, &format_args!("tunnel {name}"), &address);
    Some(Happening::Tunnel { bus: news.bus, peer: news.peer, topic, text })
}
