//! What the tunnels and the simulated car have to tell, written into the log.
//!
//! Owns the turning of their news into lines. Relies on [`happening`] for the words. Never waits.

use super::Main;
use crate::cli::{happening, tcpcan};
use crate::io::clock;
use crate::threads::Gateway;

impl Main {
    /// Writes down what the simulated car has to tell.
    pub(super) fn take_car_news(&mut self, gateway: &Gateway) {
        while let Some(news) = gateway.car_news.take() {
            self.screen.erase();
            let text = happening::car(&news, &self.config);
            if happening::is_trouble(&news) {
                self.log.warning(format_args!("assetto: {text}"));
            } else {
                self.log.notice(format_args!("assetto: {text}"));
            }
            self.screen.draw();
            gateway.tell(happening::of_car(&news, &self.config));
        }
    }

    /// Writes down what the tunnels have to tell. What peers can cause without end is counted, and a few a second are told.
    pub(super) fn take_news(&mut self, gateway: &Gateway) {
        while let Some(news) = gateway.tunnel_news.take() {
            if !self.news.take(&news.what, clock::now()) {
                continue;
            }
            let Some(Ok(address)) = self.config.plan.buses.get(news.bus).map(|bus| bus.interface.parse())
            else {
                continue;
            };
            let name = self.bus(news.bus);
            let line = tcpcan::line(&news, &format_args!("tunnel {name}"), &address);
            let again = tcpcan::goes_on(&news.what);
            gateway.tell(happening::of_news(&news, &self.config));
            self.screen.erase();
            self.log.line(format_args!("tcpcan: {line}{again}"));
            self.screen.draw();
        }
    }
}
