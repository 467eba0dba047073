//! What main writes down, for those who subscribed to it.
//!
//! Owns the turning of the threads' events into what the management plane tells, and the words that the log shares with it.
//! Relies on the configuration for names. Never waits: an event that has no room is dropped and counted.

use super::tcpcan;
use crate::config::Config;
use crate::io::canbus::{OpenCause, OpenError};
use crate::io::tcp::LinkError;
use crate::nodes::management::history::Happening;
use crate::topology::Event;
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
        Event::WatchdogEnded => return None,
    })
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
