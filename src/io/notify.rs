//! What the service manager is told.
//!
//! Owns the messages to systemd: ready, status, stopping, and the watchdog's sign of life. Relies on `sd-notify` for
//! what it asks of us; its own sending waits for ever where the manager does not read, so sending is done here. The sign
//! of life goes through a socket that is connected once, because the thread that gives it must not allocate. Does nothing, and never fails, outside a service.

use core::time::Duration;
use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Tells the service manager that the program is ready.
pub fn ready() {
    tell("READY=1");
}

/// Tells the service manager that the configuration is being read again; [`ready`] ends that. With the time, as
/// `Type=notify-reload` wants it.
pub fn reloading() {
    let us = super::clock::now().as_nanos() / 1_000;
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={us}"));
}

/// Tells the service manager that the program is on its way out.
pub fn stopping() {
    tell("STOPPING=1");
}

/// One line for `systemctl status`.
pub fn status(text: &str) {
    tell(&format!("STATUS={text}"));
}

/// Longest wait for a service manager that does not read: the thread that waits here also takes the signals.
const TELL_LIMIT: Duration = Duration::from_millis(50);

/// Sends without caring for the outcome: there is nothing that the program could do about a missing service manager.
fn tell(text: &str) {
    if let Some(path) = std::env::var_os("NOTIFY_SOCKET") {
        tell_at(&path, text);
    }
}

fn tell_at(path: &OsStr, text: &str) {
    if let Some(socket) = Heartbeat::dial(path) {
        let _ = socket.set_nonblocking(false).and_then(|()| socket.set_write_timeout(Some(TELL_LIMIT)));
        let _ = socket.send(text.as_bytes());
    }
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
    fn a_manager_that_does_not_read_holds_nobody() {
        let name = format!("ocpcan/test/deaf-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let path = std::ffi::OsString::from(format!("@{name}"));
        let heartbeat = Heartbeat { socket: Heartbeat::dial(&path) };
        while heartbeat.beat() {}
        // Without a limit this would never come back.
        tell_at(&path, "STOPPING=1");
        let mut buffer = [0; 32];
        let n = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"WATCHDOG=1");
        tell_at(&path, "READY=1");
        manager.set_nonblocking(true).unwrap();
        let mut seen = Vec::new();
        while let Ok(n) = manager.recv(&mut buffer) {
            seen.push(buffer[..n].to_vec());
        }
        assert!(seen.contains(&b"READY=1".to_vec()));
    }

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
