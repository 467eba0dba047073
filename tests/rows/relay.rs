//! A piece of network between the gateway and its server that can hold, drop, drip and cut.
//!
//! Owns one listening socket and a thread per direction. Never changes a byte.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

/// What happens to bytes on the way to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Way {
    /// They pass.
    Open = 0,
    /// They wait, and pass later.
    Held = 1,
    /// They are lost for ever; the connection stays.
    Dead = 2,
    /// One byte every 40 ms.
    Drip = 3,
    /// As TCP over a bad radio: up to 50 ms late, and three in ten wait for a repetition, 200 to 400 ms.
    Lossy = 4,
}

/// A relay to one server.
pub struct Relay {
    address: SocketAddr,
    way: Arc<AtomicU8>,
    deaf: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
}

impl Relay {
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let way = Arc::new(AtomicU8::new(0));
        let deaf = Arc::new(AtomicBool::new(false));
        let ended = Arc::new(AtomicBool::new(false));
        let relay =
            Self { address, way: Arc::clone(&way), deaf: Arc::clone(&deaf), ended: Arc::clone(&ended) };
        // A small buffer, so that a peer that does not read is felt at once.
        setsockopt(&listener, sockopt::RcvBuf, &2_048).unwrap();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if ended.load(Ordering::Acquire) {
                    return;
                }
                let Ok(upstream) = TcpStream::connect(server) else { continue };
                let (down, up) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
                let (way, deaf) = (Arc::clone(&way), Arc::clone(&deaf));
                let open = (AtomicU8::new(0), AtomicBool::new(false));
                let (ended1, ended2) = (Arc::clone(&ended), Arc::clone(&ended));
                let (open_way, not_deaf) = open;
                std::thread::spawn(move || carry(down, up, &way, &not_deaf, &ended1));
                std::thread::spawn(move || carry(client, upstream, &open_way, &deaf, &ended2));
            }
        });
        relay
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the gateway sends is not read, or read again.
    pub fn stop_reading(&self, stop: bool) {
        self.deaf.store(stop, Ordering::Release);
    }

    pub fn set(&self, way: Way) {
        self.way.store(way as u8, Ordering::Release);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, way: &AtomicU8, deaf: &AtomicBool, ended: &AtomicBool) {
    let mut buffer = [0; 4_096];
    let _ = from.set_read_timeout(Some(Duration::from_millis(50)));
    let mut held: Vec<u8> = Vec::new();
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    while !ended.load(Ordering::Acquire) {
        if deaf.load(Ordering::Acquire) {
            std::thread::park_timeout(Duration::from_millis(5));
            continue;
        }
        let way = way.load(Ordering::Acquire);
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(_) if way == Way::Dead as u8 => {}
            Ok(n) => held.extend_from_slice(&buffer[..n]),
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
        let pass = match way {
            way if way == Way::Held as u8 => 0,
            way if way == Way::Lossy as u8 && !held.is_empty() => {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let repeated = if random % 10 < 3 { 200 + random / 10 % 200 } else { 0 };
                std::thread::park_timeout(Duration::from_millis(random / 3_000 % 50 + repeated));
                held.len()
            }
            way if way == Way::Drip as u8 => {
                std::thread::park_timeout(Duration::from_millis(40));
                held.len().min(1)
            }
            _ => held.len(),
        };
        if to.write_all(&held[..pass]).is_err() {
            break;
        }
        held.drain(..pass);
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
