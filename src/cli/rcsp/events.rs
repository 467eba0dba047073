//! `ocpcan rcsp events`: what a server tells as it happens.
//!
//! Owns the subscriptions and the way back after a loss. Relies on `threads::rcsp_client`. Never ends by itself once it was
//! subscribed: a server that restarts is found again.

use core::sync::atomic::{AtomicBool, Ordering};
use std::io::{self, Write as _};
use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;

use super::text::compact;
use super::{Server, TEXT, Trouble, code, find, said};
use crate::cli::station::clean;
use crate::cli::{complain, exit};
use crate::io::clock;
use crate::nodes::rcsp_client::{Event, members};
use crate::threads::rcsp_client::{ClientError, RcspClient};
use crate::time::{Duration, Instant};

/// The wait before a lost server is called again: the first, and the longest. The vendor's own bridge does the same.
const FIRST: Duration = Duration::from_millis(500);
const LAST: Duration = Duration::from_secs(10);

/// A subscription that lived so long has worked: the next loss is told again, and called back soon.
const SETTLED: Duration = Duration::from_secs(2);

/// Reasons told until a subscription has worked: a server that invents them fills neither the memory nor the log.
const REASONS: usize = 16;

/// How often a wait is looked at for a signal.
const LOOK: Duration = Duration::from_millis(50);

/// Longest JSON in a line for people; `--json` has it all.
const DATA: usize = 1_000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The devices whose events are wanted; without one, those of the server itself
    #[arg(value_name = "DEVICE")]
    devices: Vec<String>,

    /// The publisher to subscribe to [default: Gateway, or DeviceEvents for devices]
    #[arg(long, value_name = "NAME")]
    publisher: Option<String>,

    /// The topic to subscribe to; * is every topic of the publisher
    #[arg(long, value_name = "NAME", default_value = "*")]
    topic: String,
}

impl Args {
    /// What every subscription carries.
    fn topic(&self) -> [(&str, &str); 2] {
        let usual = if self.devices.is_empty() { "Gateway" } else { "DeviceEvents" };
        [("Publisher", self.publisher.as_deref().unwrap_or(usual)), ("Topic", &self.topic)]
    }
}

/// The delays between attempts.
#[derive(Debug)]
struct Delays(Duration);

impl Delays {
    fn next(&mut self) -> Duration {
        let now = self.0;
        self.0 = (now * 2).min(LAST);
        now
    }
}

/// How a session ended.
enum End {
    /// The output is closed, or cannot be written: with this exit code.
    Output(u8),
    /// Something else.
    Trouble(Trouble),
}

/// Runs the command.
pub(super) fn run(args: &Args, server: &Server, json: bool) -> u8 {
    let stop = crate::cli::rcsp::stop_on_signals();
    let mut delays = Delays(FIRST);
    let mut told: Vec<String> = Vec::new();
    // A loss was told, and its end is to be told too.
    let mut is_owed = false;
    let mut was_subscribed = false;
    while !stop.load(Ordering::Relaxed) {
        let mut since: Option<Instant> = None;
        let end = session(args, server, json, &stop, &mut |now| {
            since = Some(now);
            if std::mem::take(&mut is_owed) {
                complain(&format!("{}: subscribed again", server.address()));
            }
        });
        let trouble = match end {
            End::Output(code) => return code,
            End::Trouble(Trouble::Client(ClientError::Stopped)) => return exit::OK,
            End::Trouble(trouble) => trouble,
        };
        was_subscribed |= since.is_some();
        let text = said(&trouble, server);
        if !was_subscribed {
            complain(&text);
            return code(&trouble);
        }
        if since.is_some_and(|since| clock::now().since(since) >= SETTLED) {
            delays = Delays(FIRST);
            told.clear();
        }
        // Each reason once: neither a server that stays away nor one that turns us away again and again fills the log.
        if told.len() < REASONS && !told.contains(&text) {
            complain(&format!("{text}; trying again"));
            told.push(text);
            is_owed = true;
        }
        rest(delays.next(), &stop);
    }
    exit::OK
}

fn rest(time: Duration, stop: &AtomicBool) {
    let until = clock::now() + time;
    while !stop.load(Ordering::Relaxed) {
        let left = until.since(clock::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(LOOK));
    }
}

/// One connection: subscribes, says so, and prints until it ends.
fn session(
    args: &Args,
    server: &Server,
    json: bool,
    stop: &Arc<AtomicBool>,
    subscribed: &mut dyn FnMut(Instant),
) -> End {
    let mut client = match subscribe(args, server, stop) {
        Ok(client) => client,
        Err(trouble) => return End::Trouble(trouble),
    };
    subscribed(clock::now());
    let mut dropped = 0;
    loop {
        match client.next_event(clock::now() + Duration::from_secs(1)) {
            Ok(None) => {}
            Ok(Some(event)) => {
                let text = if json { compact(event.json.get()) } else { line(&event, clock::wall_us()) };
                let mut out = io::stdout().lock();
                if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
                    return End::Output(output_code(&error));
                }
            }
            Err(error) => return End::Trouble(error.into()),
        }
        let lost = client.events_dropped();
        if lost > dropped {
            complain(&format!("{} events lost: this output is read too slowly", lost - dropped));
            dropped = lost;
        }
    }
}

fn output_code(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::BrokenPipe {
        // A reader that has seen enough is no error.
        return exit::OK;
    }
    complain(&format!("stdout: {error}"));
    exit::IO
}

fn subscribe(args: &Args, server: &Server, stop: &Arc<AtomicBool>) -> Result<RcspClient, Trouble> {
    let mut client = server.connect(Some(stop))?;
    if args.devices.is_empty() {
        client.call("Subscribe", Some(&members(None, &args.topic())))?;
        return Ok(client);
    }
    // Listed anew on each connection: a server that restarts may give other ids.
    let devices = client.list()?;
    let wanted: Vec<Box<RawValue>> = args
        .devices
        .iter()
        .map(|wanted| Ok(find(&devices, wanted)?.id.arguments(&args.topic())))
        .collect::<Result<_, Trouble>>()?;
    for arguments in &wanted {
        client.call("DeviceSubscribe", Some(arguments))?;
    }
    Ok(client)
}

/// An event for people: the time, what and where, and what else it says.
fn line(event: &Event, wall_us: u64) -> String {
    let body = &event.body;
    let ms = wall_us / 1_000;
    let (h, min, s) = (ms / 3_600_000 % 24, ms / 60_000 % 60, ms / 1_000 % 60);
    let mut out = format!("{h:02}:{min:02}:{s:02}.{:03}Z", ms % 1_000);
    let (Some(publisher), Some(topic)) = (body.publisher(), body.topic()) else {
        // Another server's event: nothing public says how it is made.
        return format!("{out} {}", clean(&compact(event.json.get()), DATA));
    };
    out.push_str(&format!(" {}/{}", clean(publisher, TEXT), clean(topic, TEXT)));
    match body.device() {
        Some(Value::String(device)) => out.push_str(&format!(" {}", clean(device, TEXT))),
        Some(device) => out.push_str(&format!(" {}", clean(&device.to_string(), TEXT))),
        None => {}
    }
    let text = body.raw.get("Text").or_else(|| body.data()?.get("Text")).and_then(Value::as_str);
    match (text, body.data()) {
        (Some(text), _) => out.push_str(&format!(": {}", clean(text, DATA))),
        (None, Some(data)) => out.push_str(&format!(": {}", clean(&compact(&data.to_string()), DATA))),
        (None, None) => {}
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::rcsp_client::EventBody;

    fn shown(json: &str) -> String {
        let raw: Value = serde_json::from_str(json).unwrap();
        let event = Event { json: RawValue::from_string(json.to_owned()).unwrap(), body: EventBody { raw } };
        line(&event, 1_767_323_045_678_901)
    }

    #[test]
    fn an_event_is_one_line_without_control_characters() {
        assert_eq!(
            shown(
                r#"{"Publisher":"DeviceEvents","Topic":"BusState","DeviceId":"bus:a","Data":{"State":"Bus\nOff"}}"#
            ),
            r#"03:04:05.678Z DeviceEvents/BusState bus:a: {"State":"Bus\nOff"}"#
        );
        assert_eq!(
            shown(r#"{"Publisher":"Gateway","Topic":"Trip","Data":{"Text":"a\u001b[2Jb"}}"#),
            "03:04:05.678Z Gateway/Trip: a?[2Jb"
        );
        assert_eq!(shown(r#"{"Publisher":"P","Topic":"T","DeviceId":7}"#), "03:04:05.678Z P/T 7");
        assert_eq!(shown(r#"["SinglePress"]"#), r#"03:04:05.678Z ["SinglePress"]"#);
    }

    #[test]
    fn delays_double_from_half_a_second_to_ten() {
        let mut delays = Delays(FIRST);
        let seen: Vec<u128> = (0..7).map(|_| delays.next().as_millis()).collect();
        assert_eq!(seen, [500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
    }
}
