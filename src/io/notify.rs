//! What the service manager is told.
//!
//! Owns the messages to systemd: ready, status, stopping, and the watchdog's sign of life. Relies on `sd-notify` for the
//! rare ones; the sign of life goes through a socket that is connected once, because the thread that gives it must not
//! allocate. Does nothing, and never fails, outside a service.

use core::time::Duration;
use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use sd_notify::NotifyState;

/// Tells the service manager that the program is ready.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Tells the service manager that the program is on its way out.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// One line for `systemctl status`.
pub fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// Sends without caring for the outcome: there is nothing that the program could do about a missing service manager.
fn tell(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}

/// How often the service manager wants a sign of life at the least; none where it does not watch.
#[must_use]
pub fn watchdog_limit() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// The sign of life to the service manager.
#[derive(Debug)]
pub struct Heartbeat {
    socket: Option<UnixDatagram>,
}

impl Heartbeat {
    /// Connects to the service manager, if there is one.
    #[must_use]
    pub fn connect() -> Self {
        Self { socket: std::env::var_os("NOTIFY_SOCKET").and_then(|path| Self::dial(&path)) }
    }

    /// A socket connected to this path, or to the abstract name behind an `@`.
    fn dial(path: &OsStr) -> Option<UnixDatagram> {
        let address = match path.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok()?,
            _ => SocketAddr::from_pathname(path).ok()?,
        };
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect_addr(&address).ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(socket)
    }

    /// Gives one sign of life. Does not wait and does not allocate; true where it was taken or nobody asks for it.
    pub fn beat(&self) -> bool {
        self.socket.as_ref().is_none_or(|s| s.send(b"WATCHDOG=1").is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_reach_the_socket_and_a_full_or_missing_one_does_no_harm() {
        let name = format!("ocpcan/test/notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let heartbeat = Heartbeat { socket: Heartbeat::dial(OsStr::new(&format!("@{name}"))) };
        assert!(heartbeat.beat());
        let mut buffer = [0; 32];
        let n = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"WATCHDOG=1");
        let mut taken = 0;
        while heartbeat.beat() {
            taken += 1;
            assert!(taken < 100_000, "a full socket is not noticed");
        }
        drop(manager);
        assert!(!heartbeat.beat());
        assert!(Heartbeat { socket: None }.beat());
        assert!(Heartbeat::dial(OsStr::new("/nonexistent/socket")).is_none());
    }
}
