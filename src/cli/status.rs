//! `ocpcan status`: how a gateway is, on one screen.
//!
//! Owns when it is asked and shown, and the exit code. Relies on `threads::rcsp_client` for the answer and on `screen` for
//! its looks. Never changes anything at the gateway: it asks `GwGetStatus` and nothing else.

#![allow(clippy::disallowed_methods, reason = "a command waits for its server")]

pub(super) mod screen;

use core::sync::atomic::{AtomicBool, Ordering};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;

use self::screen::{Colours, marks, screen, state};
use super::rcsp::{Server, client_code, client_said, json_line, stop_on_signals};
use super::{complain, exit, print};
use crate::io::{clock, sys};
use crate::threads::rcsp_client::{ClientError, RcspClient};
use crate::time::{Duration, Instant};

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(500);

/// How often a wait is looked at for a signal.
const LOOK: Duration = Duration::from_millis(50);

/// Shows how a gateway is: its state and why, what is missing to arm, its buses, links and delays
///
/// Asks the gateway's RCSP server. Exit codes: 0 ARMED or READY, 1 any other state or an error that the gateway answered,
/// 69 unreachable, too slow or lost, 76 the server breaks the protocol. With --watch the last look decides.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: Server,

    /// The answer as JSON, one line
    #[arg(long)]
    json: bool,

    /// Look again every 500 ms, until SIGINT or SIGTERM; where stdout is no terminal only what is new is printed
    #[arg(long)]
    watch: bool,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> u8 {
    if args.watch {
        return Watch::new(args).run();
    }
    let answer = args.server.connect(None).and_then(|mut client| ask(&mut client));
    match answer {
        Ok(answer) => {
            let (status, text) = answer.shown(args.json, colours());
            match print(&text) {
                exit::OK => state_code(&status),
                code => code,
            }
        }
        Err(error) => {
            complain(&client_said(&error, &args.server));
            client_code(&error)
        }
    }
}

/// An answer to `GwGetStatus`.
struct Answer(Option<Box<RawValue>>);

impl Answer {
    /// The answer as values, and as it is printed.
    fn shown(&self, json: bool, colours: Colours) -> (Value, String) {
        let status = self.0.as_ref().and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
        let text = if json { json_line(self.0.as_deref()) } else { screen(&status, colours) };
        (status, text)
    }
}

fn ask(client: &mut RcspClient) -> Result<Answer, ClientError> {
    client.call("GwGetStatus", None).map(Answer)
}

/// Whether the vehicle can be driven, or is.
fn state_code(status: &Value) -> u8 {
    if matches!(state(status), "ARMED" | "READY") { exit::OK } else { exit::NO }
}

/// Colours on a terminal, unless the person asked for none (no-color.org: set to anything).
pub(super) fn colours() -> Colours {
    let is_refused = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
    if super::has_screen() && !is_refused { Colours::Yes } else { Colours::No }
}

/// Looks again and again.
struct Watch<'a> {
    args: &'a Args,
    stop: Arc<AtomicBool>,
    client: Option<RcspClient>,
    is_terminal: bool,
    colours: Colours,
    /// Since when there was no answer, and why there is none.
    away: Option<(Instant, String)>,
    /// What was printed last where there is no terminal.
    marks: String,
    code: u8,
}

impl<'a> Watch<'a> {
    fn new(args: &'a Args) -> Self {
        Self {
            args,
            stop: stop_on_signals(),
            client: None,
            is_terminal: super::has_screen() && !args.json,
            colours: colours(),
            away: None,
            marks: String::new(),
            code: exit::UNAVAILABLE,
        }
    }

    fn run(&mut self) -> u8 {
        let mut next = clock::now();
        while !self.stop.load(Ordering::Relaxed) {
            let now = clock::now();
            if now < next {
                std::thread::sleep(next.since(now).min(LOOK));
                continue;
            }
            next = now + EVERY;
            let Some(text) = self.look() else { continue };
            let mut out = io::stdout().lock();
            if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                // A reader that has seen enough is no error.
                return if error.kind() == io::ErrorKind::BrokenPipe { self.code } else { exit::IO };
            }
        }
        self.code
    }

    /// Asks once; what is to be printed, if anything.
    fn look(&mut self) -> Option<String> {
        match self.answer() {
            Ok(answer) => {
                let (status, text) = answer.shown(self.args.json, self.colours);
                self.code = state_code(&status);
                self.away = None;
                self.print(text, marks(&status))
            }
            // The last look that came to an end counts.
            Err(ClientError::Stopped) => None,
            Err(error) => {
                let text = client_said(&error, &self.args.server);
                // A server that says no to a command goes on with the next.
                if !matches!(error, ClientError::Refused(_)) {
                    self.client = None;
                }
                self.code = client_code(&error);
                self.gone(text)
            }
        }
    }

    fn answer(&mut self) -> Result<Answer, ClientError> {
        if self.client.is_none() {
            self.client = Some(self.args.server.connect(Some(&self.stop))?);
        }
        self.client.as_mut().map_or(Err(ClientError::Stopped), ask)
    }

    /// No answer: said each time on a terminal, and once per reason elsewhere.
    fn gone(&mut self, why: String) -> Option<String> {
        let now = clock::now();
        let since = self.away.take().map_or(now, |(since, _)| since);
        let text = format!("unreachable since {} s: {why}\n", now.since(since).as_secs());
        self.away = Some((since, why.clone()));
        if self.args.json || !self.is_terminal {
            if self.marks != why {
                complain(&why);
                self.marks = why;
            }
            return None;
        }
        Some(picture(&text))
    }

    /// The whole picture on a terminal; elsewhere only if something is new.
    fn print(&mut self, text: String, marks: String) -> Option<String> {
        if self.is_terminal {
            return Some(picture(&text));
        }
        if self.marks == marks {
            return None;
        }
        // A line between two screens.
        let text = if self.marks.is_empty() || self.args.json { text } else { format!("\n{text}") };
        self.marks = marks;
        Some(text)
    }
}

/// Draws over the last picture: each line is cleared behind its end, and everything below.
fn picture(text: &str) -> String {
    let rows = sys::terminal_rows(io::stdout().as_fd()).unwrap_or(usize::MAX);
    let mut out = "\x1b[H".to_owned();
    for line in fitted(text, rows) {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{line}\x1b[K");
    }
    out.push_str("\x1b[J");
    out
}

/// The first lines that fit into so many rows: the state and what is missing stand at the top. The row of the cursor stays
/// free, or the terminal would scroll.
fn fitted(text: &str, rows: usize) -> Vec<String> {
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let room = rows.saturating_sub(1).max(1);
    if lines.len() <= room {
        return lines;
    }
    let hidden = lines.len() - (room - 1);
    let more = format!("({hidden} more lines: make the terminal higher)");
    lines.into_iter().take(room - 1).chain([more]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_terminal_shows_the_top_and_says_how_much_is_missing() {
        let text = "a\nb\nc\nd\n";
        assert_eq!(fitted(text, 5), ["a", "b", "c", "d"]);
        assert_eq!(fitted(text, 4), ["a", "b", "(2 more lines: make the terminal higher)"]);
        assert_eq!(fitted(text, 1), ["(4 more lines: make the terminal higher)"]);
        assert_eq!(fitted(text, 0).len(), 1);
        assert_eq!(fitted(text, usize::MAX).len(), 4);
    }
}
