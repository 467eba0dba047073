//! What the ports of the built-in bus and its hub say to each other.
//!
//! Owns the messages on the Unix sockets, and the name and the socket calls that both sides share. Relies on the frame.
//! Never leaves the machine: both ends are this program, numbers are in the machine's own order.

use core::time::Duration;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket};

use super::accept::{FILTERS, IdMask};
use super::{BusName, PortOptions};
use crate::can::Frame;
use crate::can::frame::FD_BYTES;

/// Port to hub: "attach me with these options".
pub(super) const ATTACH: u8 = 1;
/// Port to hub: a frame.
pub(super) const SEND: u8 = 2;
/// Fault line to hub: a fault.
pub(super) const FAULT: u8 = 3;
/// Hub to port: attached (the state page comes with it), or refused.
pub(super) const WELCOME: u8 = 0x11;
/// Hub to port: a frame.
pub(super) const DELIVER: u8 = 0x12;
/// Hub to port: look at the state page.
pub(super) const WAKE: u8 = 0x13;
/// Hub to fault line: done.
pub(super) const DONE: u8 = 0x14;

/// Delivered frame: the echo of the receiver's own frame.
pub(super) const OWN: u8 = 1;
/// Delivered frame: sent by a port of this machine.
pub(super) const LOCAL: u8 = 2;

/// Largest message: an attach with every filter.
pub(super) const MESSAGE: usize = 8 + 8 * FILTERS;
/// A delivered frame: kind, flags, drop count, frame.
pub(super) const DELIVERY: usize = 6 + FD_BYTES;

/// State page, word 0: bit 0 is "up", the rest counts how often the link went down.
pub(super) const STATE_WORD: usize = 0;
/// Words of the state page.
pub(super) const STATE_WORDS: usize = 1;

/// How long a port or a fault line waits for the hub, which answers within microseconds unless it is stopped.
pub(super) const ANSWER: Duration = Duration::from_secs(1);

/// The abstract socket address of a bus: free of files, gone with the process that hosts it.
pub(super) fn address(name: &BusName) -> Result<UnixAddr, Errno> {
    let mut path = heapless::String::<32>::new();
    // "ocpcan/bus/" and 15 characters are 26.
    path.push_str("ocpcan/bus/").and_then(|()| path.push_str(name)).map_err(|_| Errno::ENAMETOOLONG)?;
    UnixAddr::new_abstract(path.as_bytes())
}

/// A socket for the built-in bus: messages with boundaries, in order, connected.
pub(super) fn new_socket() -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
}

/// Connects to the hub of that bus.
pub(super) fn dial(name: &BusName) -> Result<OwnedFd, Errno> {
    let socket = new_socket()?;
    connect(socket.as_raw_fd(), &address(name)?)?;
    Ok(socket)
}

/// Sends one message without waiting.
pub(super) fn post(fd: BorrowedFd<'_>, message: &[u8]) -> Result<(), Errno> {
    send(fd.as_raw_fd(), message, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL).map(drop)
}

/// What a port wants from the hub.
#[derive(Debug)]
pub(super) struct Wishes {
    /// The filters; none where every frame passes.
    pub(super) filters: Option<Vec<IdMask>>,
    pub(super) errors: bool,
    pub(super) own_messages: bool,
    pub(super) fd: bool,
    pub(super) rcvbuf: u32,
}

impl Wishes {
    /// The attach message for these options; `None` for too many filters.
    pub(super) fn encode(options: &PortOptions) -> Option<Vec<u8>> {
        let filters = options.accept.filters();
        let everything = filters.is_none();
        let filters = filters.unwrap_or_default();
        if filters.len() > FILTERS {
            return None;
        }
        let bits = u8::from(options.own_messages)
            | u8::from(options.errors) << 1
            | u8::from(options.fd) << 2
            | u8::from(everything) << 3;
        let rcvbuf = options.rcvbuf.map_or(0, |b| u32::try_from(b).unwrap_or(u32::MAX));
        let mut message = vec![ATTACH, bits, 0, 0];
        message.extend(rcvbuf.to_ne_bytes());
        for filter in filters {
            message.extend(filter.id.to_ne_bytes());
            message.extend(filter.mask.to_ne_bytes());
        }
        Some(message)
    }

    /// Reads an attach message behind its kind byte.
    pub(super) fn decode(body: &[u8]) -> Option<Self> {
        let (&[bits, _, _, r0, r1, r2, r3], filters) = body.split_first_chunk::<7>()?;
        let (pairs, rest) = filters.as_chunks::<8>();
        if !rest.is_empty() || pairs.len() > FILTERS {
            return None;
        }
        let filter = |&[i0, i1, i2, i3, m0, m1, m2, m3]: &[u8; 8]| IdMask {
            id: u32::from_ne_bytes([i0, i1, i2, i3]),
            mask: u32::from_ne_bytes([m0, m1, m2, m3]),
        };
        Some(Self {
            filters: (bits & 8 == 0).then(|| pairs.iter().map(filter).collect()),
            own_messages: bits & 1 != 0,
            errors: bits & 2 != 0,
            fd: bits & 4 != 0,
            rcvbuf: u32::from_ne_bytes([r0, r1, r2, r3]),
        })
    }

    /// Whether a port with these wishes receives this frame.
    pub(super) fn want(&self, frame: &Frame) -> bool {
        if frame.error_class().is_some() {
            return self.errors;
        }
        (self.fd || !frame.is_fd())
            && self.filters.as_ref().is_none_or(|filters| filters.iter().any(|f| f.passes(frame)))
    }
}

/// Builds a delivery; its size comes back.
pub(super) fn delivery(frame: &Frame, flags: u8, dropped: u32, out: &mut [u8; DELIVERY]) -> usize {
    let mut bytes = [0; FD_BYTES];
    let size = frame.to_bytes(&mut bytes);
    out[0] = DELIVER;
    out[1] = flags;
    out[2..6].copy_from_slice(&dropped.to_ne_bytes());
    out[6..].copy_from_slice(&bytes);
    6 + size
}

/// Reads a delivery behind its kind byte: flags, drop count, frame.
pub(super) fn read_delivery(body: &[u8]) -> Option<(u8, u32, Frame)> {
    let (&[flags, d0, d1, d2, d3], bytes) = body.split_first_chunk::<5>()?;
    Some((flags, u32::from_ne_bytes([d0, d1, d2, d3]), Frame::from_bytes(bytes).ok()?))
}
