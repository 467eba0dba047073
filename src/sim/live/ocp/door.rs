//! One TCP server of the simulation: its listening socket, its client, and what did not fit into the client's buffer.
//!
//! Owns these sockets. Relies on the pipeline for what is sent and who is let in. Never blocks.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use nix::sys::socket::{setsockopt, sockopt};

use crate::sim::ocp::{Admission, Endpoint, Pipeline, Transmit};
use crate::time::Instant;

/// A server and its client.
pub(super) struct Door {
    pub endpoint: Endpoint,
    pub address: SocketAddr,
    pub listener: Option<TcpListener>,
    pub client: Option<TcpStream>,
    /// Bytes of a frame that the client's buffer had no room for.
    pending: Vec<u8>,
    /// Messages are being lost for want of room.
    is_pressed: bool,
    ignored: Vec<TcpStream>,
}

/// A listening socket that does not block.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Whether the call is to be made again later.
pub(super) fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

impl Door {
    pub fn open(endpoint: Endpoint, address: SocketAddr) -> io::Result<Self> {
        let listener = listen(address)?;
        Ok(Self {
            endpoint,
            address: listener.local_addr()?,
            listener: Some(listener),
            client: None,
            pending: Vec::new(),
            is_pressed: false,
            ignored: Vec::new(),
        })
    }

    /// Opens or closes the listening socket; the client stays.
    pub fn set_listening(&mut self, on: bool) -> io::Result<()> {
        self.listener = match self.listener.take() {
            Some(listener) if on => Some(listener),
            None if on => Some(listen(self.address)?),
            _ => None,
        };
        Ok(())
    }

    pub const fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub fn accept(&mut self, now: Instant, pipeline: &mut Pipeline) {
        let Some(Ok((stream, _))) = self.listener.as_ref().map(TcpListener::accept) else { return };
        if stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).is_err() {
            return;
        }
        match pipeline.handle_connect(now, self.endpoint) {
            Admission::Accept | Admission::Replace => {
                self.client = Some(stream);
                self.pending.clear();
                self.is_pressed = false;
            }
            Admission::Reject => {}
            // More than a few are a mistake of the test, not a test.
            Admission::Ignore if self.ignored.len() < 16 => self.ignored.push(stream),
            Admission::Ignore => {}
        }
    }

    pub fn client_ready(&mut self, now: Instant, pipeline: &mut Pipeline) {
        self.flush(pipeline);
        let mut buffer = [0; 65_536];
        while let Some(client) = self.client.as_mut().filter(|_| pipeline.wants_bytes(now, self.endpoint)) {
            match client.read(&mut buffer) {
                Ok(0) => self.lost(pipeline),
                Ok(n) => pipeline.handle_bytes(now, self.endpoint, buffer.get(..n).unwrap_or_default()),
                Err(error) if is_later(&error) => return,
                Err(_) => self.lost(pipeline),
            }
        }
    }

    fn lost(&mut self, pipeline: &mut Pipeline) {
        self.client = None;
        self.pending.clear();
        pipeline.handle_disconnect(self.endpoint);
    }

    pub fn transmit(&mut self, transmit: Transmit, pipeline: &mut Pipeline) {
        match transmit {
            Transmit::Bytes(bytes) => {
                self.flush(pipeline);
                if !self.pending.is_empty() {
                    // What is half sent must be finished, so the newest message is what is lost.
                    if !self.is_pressed {
                        self.is_pressed = true;
                        pipeline.handle_back_pressure(self.endpoint);
                    }
                    return;
                }
                self.pending = bytes;
                self.flush(pipeline);
            }
            Transmit::Close => {
                if let Some(mut client) = self.client.take() {
                    // Unread bytes would turn the end into a reset.
                    let mut buffer = [0; 65_536];
                    while matches!(client.read(&mut buffer), Ok(n) if n > 0) {}
                    let _ = client.shutdown(std::net::Shutdown::Write);
                }
                self.pending.clear();
            }
            Transmit::Reset => {
                if let Some(client) = self.client.take() {
                    let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
                    let _ = setsockopt(&client, sockopt::Linger, &at_once);
                }
                self.pending.clear();
            }
        }
    }

    /// Writes what is left of the last frame.
    fn flush(&mut self, pipeline: &mut Pipeline) {
        let Some(client) = &mut self.client else { return };
        while !self.pending.is_empty() {
            match client.write(&self.pending) {
                Ok(n) if n > 0 => {
                    self.pending.drain(..n);
                    self.is_pressed = false;
                }
                Err(error) if is_later(&error) => return,
                Ok(_) | Err(_) => {
                    self.lost(pipeline);
                    return;
                }
            }
        }
    }
}
