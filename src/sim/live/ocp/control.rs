//! Where commands come from: the script, the keyboard, the connections of the control port.
//!
//! Owns these inputs and the answers to them. Relies on [`Sequencer`] for the lines. Never runs a command.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;

use super::door::is_later;
use crate::sim::ocp::Sequencer;

/// Where commands come from.
pub(super) enum Input {
    /// A script: everything is there already.
    None,
    Stdin,
    Peer(TcpStream),
    /// A peer that has closed; what it said still runs.
    Closed,
}

/// One input with its commands.
pub(super) struct Source {
    pub input: Input,
    pub sequencer: Sequencer,
}

impl Source {
    /// Answers to whoever asked; a peer that does not read its answers loses them.
    pub fn answer(&mut self, text: &str) {
        let _ = match &mut self.input {
            Input::Peer(stream) => stream.write(text.as_bytes()).map(|_| ()),
            Input::Stdin => io::stdout().lock().write_all(text.as_bytes()),
            Input::None | Input::Closed => Ok(()),
        };
    }

    /// Reads what is there and answers each complete line.
    pub fn read(&mut self) {
        let mut buffer = [0; 4_096];
        let read = match &mut self.input {
            Input::Peer(stream) => stream.read(&mut buffer),
            Input::Stdin => nix::unistd::read(io::stdin().as_fd(), &mut buffer).map_err(io::Error::from),
            Input::None | Input::Closed => return,
        };
        match read {
            Ok(0) => self.input = Input::Closed,
            Ok(n) => {
                let text = String::from_utf8_lossy(buffer.get(..n).unwrap_or_default()).into_owned();
                for answer in self.sequencer.handle_text(&text) {
                    match answer {
                        Ok(()) => self.answer("ok\n"),
                        Err(error) => self.answer(&format!("error: {error}\n")),
                    }
                }
            }
            Err(error) if is_later(&error) => {}
            Err(_) => self.input = Input::Closed,
        }
    }
}
