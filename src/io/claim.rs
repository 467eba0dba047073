//! A claim that every process of this machine can see, one holder for each name.
//!
//! Owns a listening abstract socket: gone with its process however that ends, and one set for each network namespace, as CAN
//! interfaces are. Relies on nix. Never decides what a claim is good for.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen, socket, sockopt,
};

/// A claim, until it is dropped.
#[derive(Debug)]
pub struct Claim {
    name: String,
    _socket: OwnedFd,
}

/// A claim cannot be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClaimError {
    /// Somebody has it: the process number, where it can be told.
    Held(Option<i32>),
    /// Any other errno (the name is too long, no descriptor is left).
    Io(i32),
}

impl Claim {
    /// Takes the claim of that name, at most 90 bytes.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub fn take(name: &str) -> Result<Self, ClaimError> {
        let errno = |e: Errno| ClaimError::Io(e as i32); // an errno is a small int by definition
        let socket = new_socket().map_err(errno)?;
        match bind(socket.as_raw_fd(), &address(name).map_err(errno)?) {
            Ok(()) => {}
            Err(Errno::EADDRINUSE) => return Err(ClaimError::Held(holder(name))),
            Err(e) => return Err(errno(e)),
        }
        // Listens only so that others can ask who holds it; nobody is ever accepted.
        listen(&socket, Backlog::new(16).map_err(errno)?).map_err(errno)?;
        Ok(Self { name: name.to_owned(), _socket: socket })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether some process, this one included, is known to hold the claim of that name.
    #[must_use]
    pub fn is_taken(name: &str) -> bool {
        // A full backlog is a holder too.
        matches!(ask(name), Ok(_) | Err(Errno::EAGAIN))
    }
}

/// The process that holds the claim.
fn holder(name: &str) -> Option<i32> {
    let socket = ask(name).ok()?;
    getsockopt(&socket, sockopt::PeerCredentials).ok().map(|c| c.pid()).filter(|pid| *pid > 0)
}

/// Connects to the holder; its kernel answers, the holder itself notices nothing.
fn ask(name: &str) -> Result<OwnedFd, Errno> {
    let socket = new_socket()?;
    connect(socket.as_raw_fd(), &address(name)?)?;
    Ok(socket)
}

fn new_socket() -> Result<OwnedFd, Errno> {
    socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}

fn address(name: &str) -> Result<UnixAddr, Errno> {
    UnixAddr::new_abstract(format!("ocpcan/claim/{name}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_has_one_holder_until_it_is_dropped() {
        let name = format!("test/{}", std::process::id());
        assert!(!Claim::is_taken(&name));
        let claim = Claim::take(&name).unwrap();
        for _ in 0..40 {
            // More askers than the backlog holds.
            assert!(Claim::is_taken(&name));
        }
        assert!(matches!(Claim::take(&name), Err(ClaimError::Held(_))));
        let _other = Claim::take(&format!("{name}/other")).unwrap();
        assert!(matches!(Claim::take(&"x".repeat(200)), Err(ClaimError::Io(_))));
        drop(claim);
        assert!(!Claim::is_taken(&name));
        let _again = Claim::take(&name).unwrap();
    }
}
