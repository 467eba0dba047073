//! A port on a kernel CAN interface: one raw socket.
//!
//! Owns the socket and its options. Relies on `socketcan` for opening and options, on `io::sys` for the receive flags
//! that it hides. Never blocks in a send.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, setsockopt, socket, sockopt};
use socketcan::{CanFilter, CanSocket, Socket, SocketOptions};

use super::accept::FILTERS;
use super::{
    Batch, BusName, Facts, OpenCause, PortOptions, Received, RecvError, SendError, netlink, send_error,
};
use crate::can::Frame;
use crate::can::frame::FD_BYTES;
use crate::io::{clock, sys};

/// Unreadable frames that one call skips before it gives the caller a turn.
const SKIP: usize = 16;

/// A raw CAN socket.
#[derive(Debug)]
pub struct KernelPort {
    socket: CanSocket,
    name: BusName,
    ifindex: u32,
    /// Once the interface went away, this socket is bound to nothing for ever.
    is_gone: AtomicBool,
    dropped: AtomicU32,
    malformed: AtomicU32,
}

impl KernelPort {
    /// Opens and sets up a raw socket on the interface.
    pub(super) fn open(name: &BusName, options: &PortOptions) -> Result<Self, OpenCause> {
        let Ok(ifindex) = if_nametoindex(name.as_str()) else {
            // Without CAN support "no such interface" would send people the wrong way.
            return Err(probe().err().unwrap_or(OpenCause::NoInterface));
        };
        let socket = CanSocket::open_iface(ifindex).map_err(|e| open_cause(&e))?;
        let port = Self {
            socket,
            name: name.clone(),
            ifindex,
            is_gone: AtomicBool::new(false),
            dropped: AtomicU32::new(0),
            malformed: AtomicU32::new(0),
        };
        if !port.is_up() {
            return Err(OpenCause::Down);
        }
        port.set_up(options)?;
        port.drain();
        Ok(port)
    }

    /// Sets every option.
    fn set_up(&self, options: &PortOptions) -> Result<(), OpenCause> {
        let socket = &self.socket;
        let cause = |e: io::Error| open_cause(&e);
        match options.accept.filters() {
            None => socket.set_filter_accept_all().map_err(cause)?,
            Some(filters) if filters.is_empty() => socket.set_filter_drop_all().map_err(cause)?,
            Some(filters) if filters.len() > FILTERS => return Err(OpenCause::TooManyFilters),
            Some(filters) => {
                let filters: Vec<CanFilter> =
                    filters.iter().map(|filter| CanFilter::new(filter.id, filter.mask)).collect();
                socket.set_filters(&filters).map_err(cause)?;
            }
        }
        if options.errors {
            socket.set_error_filter_accept_all().map_err(cause)?;
        } else {
            socket.set_error_filter_drop_all().map_err(cause)?;
        }
        socket.set_recv_own_msgs(options.own_messages).map_err(cause)?;
        if options.fd {
            self.take_fd()?;
        }
        let errno = |e: Errno| OpenCause::Io(e as i32);
        setsockopt(&self.socket, sockopt::RxqOvfl, &1).map_err(errno)?;
        if let Some(bytes) = options.rcvbuf {
            // Beyond the system's maximum only with CAP_NET_ADMIN; without it the maximum is what we get.
            if setsockopt(&self.socket, sockopt::RcvBufForce, &bytes).is_err() {
                setsockopt(&self.socket, sockopt::RcvBuf, &bytes).map_err(errno)?;
            }
        }
        if let Some(bytes) = options.sndbuf {
            setsockopt(&self.socket, sockopt::SndBuf, &bytes).map_err(errno)?;
        }
        if options.priority6 {
            setsockopt(&self.socket, sockopt::Priority, &6).map_err(errno)?;
        }
        Ok(())
    }

    /// Takes CAN FD frames too, where the interface has them now.
    pub(super) fn take_fd(&self) -> Result<(), OpenCause> {
        if sys::mtu(self.socket.as_fd(), &self.name).is_ok_and(|mtu| mtu < FD_BYTES) {
            return Err(OpenCause::NoFd);
        }
        self.socket
            .set_socket_option_int(libc::SOL_CAN_RAW, libc::CAN_RAW_FD_FRAMES, 1)
            .map_err(|_| OpenCause::NoFd)
    }

    /// Throws away what came between opening and filtering: it would pass a filter that it does not match. Bounded by
    /// more than a receive buffer can hold.
    fn drain(&self) {
        let mut buffer = [0; FD_BYTES];
        for _ in 0..4096 {
            match sys::receive(self.socket.as_fd(), &mut buffer) {
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    pub(super) fn try_send(&self, frame: &Frame) -> Result<(), SendError> {
        let mut bytes = [0; FD_BYTES];
        let size = frame.to_bytes(&mut bytes);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        send(self.socket.as_raw_fd(), &bytes[..size], flags).map(drop).map_err(send_error)
    }

    pub(super) fn try_recv(&self) -> Result<Option<Received>, RecvError> {
        if self.is_gone.load(Ordering::Relaxed) {
            return Err(RecvError::Gone);
        }
        let mut bytes = [0; FD_BYTES];
        for _ in 0..SKIP {
            let message = match sys::receive(self.socket.as_fd(), &mut bytes) {
                Ok(message) => message,
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
                Err(Errno::ENETDOWN) => return Err(RecvError::Down),
                Err(Errno::ENODEV | Errno::ENXIO) => {
                    self.is_gone.store(true, Ordering::Relaxed);
                    return Err(RecvError::Gone);
                }
                Err(other) => return Err(RecvError::Io(other as i32)),
            };
            let at = clock::now();
            if let Some(total) = message.overflows {
                self.dropped.store(total, Ordering::Relaxed);
            }
            match Frame::from_bytes(bytes.get(..message.len).unwrap_or_default()) {
                Ok(frame) => {
                    return Ok(Some(Received {
                        frame,
                        own: message.flags & libc::MSG_CONFIRM != 0,
                        local: message.flags & libc::MSG_DONTROUTE != 0,
                        dropped_total: self.dropped.load(Ordering::Relaxed),
                        at,
                    }));
                }
                Err(_) => {
                    self.malformed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(None)
    }

    pub(super) fn recv_many(&self, batch: &mut Batch) -> Result<(), RecvError> {
        if self.is_gone.load(Ordering::Relaxed) {
            return Err(RecvError::Gone);
        }
        let many = match sys::receive_many(self.socket.as_fd(), &mut batch.raw, &mut batch.lengths) {
            Ok(many) => many,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            Err(Errno::ENETDOWN) => return Err(RecvError::Down),
            Err(Errno::ENODEV | Errno::ENXIO) => {
                self.is_gone.store(true, Ordering::Relaxed);
                return Err(RecvError::Gone);
            }
            Err(other) => return Err(RecvError::Io(other as i32)),
        };
        if let Some(total) = many.overflows {
            self.dropped.store(total, Ordering::Relaxed);
        }
        batch.dropped_total = self.dropped.load(Ordering::Relaxed);
        for (raw, length) in batch.raw.iter().zip(&batch.lengths).take(many.count) {
            match Frame::from_bytes(raw.get(..*length).unwrap_or_default()) {
                Ok(frame) => batch.frames.push(frame),
                Err(_) => {
                    self.malformed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }

    pub(super) fn send_many(&self, frames: &[Frame], batch: &mut Batch) -> (usize, Option<SendError>) {
        let count = batch.fill(frames);
        let (raw, lengths) =
            (batch.raw.get(..count).unwrap_or_default(), batch.lengths.get(..count).unwrap_or_default());
        match sys::send_many(self.socket.as_fd(), raw, lengths) {
            // What stopped the kernel behind the last one taken is told by the next call.
            Ok(taken) => (taken, None),
            Err(errno) => (0, Some(send_error(errno))),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        let up = u16::try_from(libc::IFF_UP).unwrap_or(1);
        !self.is_gone.load(Ordering::Relaxed)
            && sys::interface_flags(self.socket.as_fd(), &self.name).is_ok_and(|flags| flags & up != 0)
    }

    pub(super) fn facts(&self) -> Result<Facts, OpenCause> {
        facts(self.socket.as_fd(), &self.name)
    }

    pub(super) fn malformed_total(&self) -> u32 {
        self.malformed.load(Ordering::Relaxed)
    }

    /// Index of the interface when the port was opened.
    #[must_use]
    pub const fn ifindex(&self) -> u32 {
        self.ifindex
    }
}

impl AsFd for KernelPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether the interface is a CAN interface, where there is one of that name and the kernel says what it is.
pub(super) fn is_can(name: &BusName) -> Option<bool> {
    let (kind, _) = netlink::type_and_flags(if_nametoindex(name.as_str()).ok()?)?;
    Some(kind == libc::ARPHRD_CAN)
}

/// Whether this kernel lets this process open CAN sockets.
fn probe() -> Result<(), OpenCause> {
    let can = socket(
        AddressFamily::Can,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        nix::sys::socket::SockProtocol::CanRaw,
    );
    can.map(drop).map_err(|errno| open_cause(&io::Error::from(errno)))
}

/// What the kernel tells of an interface. `IFF_ECHO` lies beyond the 16 flags of the ioctl, so rtnetlink is asked for it: the
/// threads that read may open no file.
fn facts(any_socket: BorrowedFd<'_>, name: &BusName) -> Result<Facts, OpenCause> {
    let flags = sys::interface_flags(any_socket, name).map_err(|_| OpenCause::NoInterface)?;
    let ifindex = if_nametoindex(name.as_str()).map_err(|_| OpenCause::NoInterface)?;
    let has = |flag: i32| i32::from(flags) & flag != 0;
    let driver = sys::driver_name(any_socket, name).unwrap_or_default();
    let (_, all_flags) = netlink::type_and_flags(ifindex).unwrap_or_default();
    Ok(Facts {
        is_virtual: matches!(driver.as_str(), "vcan" | "vxcan"),
        driver,
        has_driver_echo: all_flags & libc::IFF_ECHO.cast_unsigned() != 0,
        queue_len: sys::transmit_queue_len(any_socket, name).unwrap_or(0),
        ifindex,
        is_up: has(libc::IFF_UP),
        is_running: has(libc::IFF_RUNNING),
    })
}

/// What the error of opening a CAN socket means.
fn open_cause(error: &io::Error) -> OpenCause {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT) => {
            OpenCause::NoCanSupport
        }
        Some(Errno::EPERM | Errno::EACCES) => OpenCause::Permission,
        // The interface was there a moment ago: the kernel gives this for one that is not CAN.
        Some(Errno::ENODEV) => OpenCause::NotCan,
        Some(Errno::ENXIO) => OpenCause::NoInterface,
        Some(Errno::ENETDOWN) => OpenCause::Down,
        Some(errno) => OpenCause::Io(errno as i32),
        None => OpenCause::Io(0),
    }
}
