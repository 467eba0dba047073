//! `ocpcan rcsp`: asks any RCSP server.
//!
//! Owns the arguments, the lines and the exit codes. Relies on `threads::rcsp_client` for the connection. Never lets a
//! control character of a server out, and never changes an id on its way back.

#![allow(clippy::disallowed_methods, reason = "a command waits for its server")]

mod events;
pub(super) mod text;

use core::sync::atomic::AtomicBool;
use std::sync::Arc;

use serde_json::value::RawValue;

use self::text::{compact, indented, members_line, tree};
use super::station::clean;
use super::{complain, exit, print};
use crate::config::RCSP_PORT;
use crate::nodes::rcsp_client::{Device, DeviceId, ProtocolError, RemoteError, devices, object};
use crate::threads::rcsp_client::{ClientError, ClientOptions, RcspClient};
use crate::time::Duration;

/// Asks an RCSP server: its devices, what it tells of them, any command, its events
///
/// Works with every server of the protocol, the gateway's own among them. Exit codes: 0 done, 1 the server answered with
/// an error, 64 usage or no such device, 69 unreachable, too slow or lost, 76 the server breaks the protocol.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: Server,

    /// JSON as the server wrote it, one line
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

/// Where the server is, and how long it may take.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Server {
    /// The server's address or name
    #[arg(long, global = true, default_value = "127.0.0.1", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    host: String,

    /// The server's port
    #[arg(long, global = true, default_value_t = RCSP_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,

    /// Longest wait for the connection, and for each answer
    #[arg(long, global = true, value_name = "MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout_ms: u64,
}

impl Server {
    /// Connects; every wait ends once `stop` is set.
    pub(super) fn connect(&self, stop: Option<&Arc<AtomicBool>>) -> Result<RcspClient, ClientError> {
        let timeout = Duration::from_millis(self.timeout_ms);
        let options =
            ClientOptions { connect_timeout: timeout, command_timeout: timeout, stop: stop.cloned() };
        RcspClient::connect(&self.host, self.port, options)
    }

    /// The server as a person writes it.
    pub(super) fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", clean(&self.host, TEXT), self.port)
        } else {
            format!("{}:{}", clean(&self.host, TEXT), self.port)
        }
    }
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Lists the devices, one line each
    List,
    /// Shows what the server tells of a device
    Info {
        /// The device's id: 7 is the number or the string, '"7"' the string
        #[arg(value_name = "DEVICE")]
        device: String,
    },
    /// Sends a command and prints the Response
    Call {
        /// The command's exact name
        #[arg(value_name = "COMMAND", value_parser = clap::builder::NonEmptyStringValueParser::new())]
        command: String,
        /// The arguments, a JSON object
        #[arg(value_name = "JSON", value_parser = arguments)]
        arguments: Option<Arguments>,
    },
    /// Prints events as they come, one line each, until SIGINT or SIGTERM
    ///
    /// The first subscription must work. After that a lost server is called again, after 0.5 s and up to 10 s, and
    /// subscribed to again. The names of publishers and topics are those of the gateway; other servers may have others.
    Events(events::Args),
}

/// Arguments as they were typed.
#[derive(Debug, Clone)]
struct Arguments(Box<RawValue>);

fn arguments(text: &str) -> Result<Arguments, String> {
    let raw: Box<RawValue> = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    if object(raw.get().as_bytes()).is_some() {
        Ok(Arguments(raw))
    } else {
        Err("the arguments are a JSON object, such as {\"DeviceId\":\"ocp\"}".to_owned())
    }
}

/// Longest text of a server in a line of ours.
const TEXT: usize = 300;

/// Why a command has no result.
#[derive(Debug)]
enum Trouble {
    /// The connection or the server.
    Client(ClientError),
    /// The devices that were named are not these.
    Device(String),
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

/// Runs the command.
pub(super) fn run(args: &Args) -> u8 {
    let result = match &args.command {
        Command::List => list(args),
        Command::Info { device } => info(args, device),
        Command::Call { command, arguments } => call(args, command, arguments.as_ref()),
        Command::Events(events) => return events::run(events, &args.server, args.json),
    };
    match result {
        Ok(text) => print(&text),
        Err(trouble) => {
            complain(&said(&trouble, &args.server));
            code(&trouble)
        }
    }
}

/// Set by SIGINT and SIGTERM; the second one ends the program where it stands, for a reader of the output that is stuck.
pub(super) fn stop_on_signals() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // Without the handlers each ends it at once.
        let _ = signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop));
        let _ = signal_hook::flag::register(signal, Arc::clone(&stop));
    }
    stop
}

/// What is told of trouble.
fn said(trouble: &Trouble, server: &Server) -> String {
    match trouble {
        Trouble::Client(error) => client_said(error, server),
        Trouble::Device(text) => text.clone(),
    }
}

/// What is told of an error of the connection or the server.
pub(super) fn client_said(error: &ClientError, server: &Server) -> String {
    match error {
        ClientError::Refused(error) | ClientError::TurnedAway(error) => refusal(error),
        error => format!("{}: {error}", server.address()),
    }
}

/// A server's no.
fn refusal(error: &RemoteError) -> String {
    let code = match &error.code {
        None => String::new(),
        Some(serde_json::Value::String(code)) => format!(" {}", clean(code, TEXT)),
        Some(code) => format!(" {}", clean(&code.to_string(), TEXT)),
    };
    let message = if error.message.is_empty() { "no reason given" } else { &error.message };
    format!("error{code}: {}", clean(message, TEXT))
}

const fn code(trouble: &Trouble) -> u8 {
    match trouble {
        Trouble::Client(error) => client_code(error),
        Trouble::Device(_) => exit::USAGE,
    }
}

/// The exit code of an error of the connection or the server.
pub(super) const fn client_code(error: &ClientError) -> u8 {
    match error {
        ClientError::Refused(_) | ClientError::TurnedAway(_) => exit::NO,
        ClientError::Protocol(_) => exit::PROTOCOL,
        ClientError::Unreachable(_) | ClientError::TimedOut(_) | ClientError::Lost(_) | ClientError::Full => {
            exit::UNAVAILABLE
        }
        ClientError::Stopped => exit::OK,
    }
}

/// A response on one line; without data there is `null`.
pub(super) fn json_line(response: Option<&RawValue>) -> String {
    format!("{}\n", compact(response.map_or("null", RawValue::get)))
}

fn list(args: &Args) -> Result<String, Trouble> {
    let mut client = args.server.connect(None)?;
    if args.json {
        let response = client.call("ListDevices", None)?;
        // What is no list is an error in this form too.
        devices(response.as_deref()).map_err(|error| ClientError::Protocol(ProtocolError::List(error)))?;
        return Ok(json_line(response.as_deref()));
    }
    let list = client.list()?;
    if list.is_empty() {
        return Ok("no devices\n".to_owned());
    }
    let names: Vec<String> = list.iter().map(|device| name(&device.id)).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    Ok(list
        .iter()
        .zip(&names)
        .map(|(device, name)| {
            let line = format!("{name:<width$}  {}", members_line(device.entry.get(), "DeviceId"));
            format!("{}\n", line.trim_end())
        })
        .collect())
}

fn info(args: &Args, wanted: &str) -> Result<String, Trouble> {
    let mut client = args.server.connect(None)?;
    let devices = client.list()?;
    let device = find(&devices, wanted)?;
    let response = client.info(&device.id)?;
    if args.json {
        return Ok(json_line(response.as_deref()));
    }
    Ok(response.map_or_else(|| "the server tells nothing of it\n".to_owned(), |raw| tree(raw.get())))
}

fn call(args: &Args, command: &str, arguments: Option<&Arguments>) -> Result<String, Trouble> {
    let mut client = args.server.connect(None)?;
    let response = client.call(command, arguments.map(|arguments| &*arguments.0))?;
    if args.json {
        return Ok(json_line(response.as_deref()));
    }
    Ok(response.map_or_else(|| "ok\n".to_owned(), |raw| indented(raw.get())))
}

/// The device that is meant.
fn find<'a>(devices: &'a [Device], wanted: &str) -> Result<&'a Device, Trouble> {
    let mut found: Vec<&Device> = Vec::new();
    for device in devices {
        if device.id.is_named(wanted) && !found.iter().any(|one| one.id == device.id) {
            found.push(device);
        }
    }
    let shown = clean(wanted, TEXT);
    match found.as_slice() {
        [one] => Ok(one),
        [] if devices.is_empty() => {
            Err(Trouble::Device(format!("no device {shown}: the server has no devices")))
        }
        [] => Err(Trouble::Device(format!("no device {shown}; there is {}", names(devices.iter())))),
        several => Err(Trouble::Device(format!("{shown} is ambiguous: {}", names(several.iter().copied())))),
    }
}

fn names<'a>(devices: impl Iterator<Item = &'a Device>) -> String {
    let names: Vec<String> = devices.map(|device| compact(device.id.json())).collect();
    clean(&names.join(", "), 2_000)
}

/// An id as a person reads it: a string without its quotes, unless it would be taken for something else.
fn name(id: &DeviceId) -> String {
    match id.text() {
        Some(text) if is_plain(&text) => text,
        _ => compact(id.json()),
    }
}

fn is_plain(text: &str) -> bool {
    let is_clean = !text.is_empty() && !text.contains(|c: char| c.is_control() || c.is_whitespace());
    is_clean && serde_json::from_str::<Box<RawValue>>(text).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str) -> Device {
        let raw = |json: String| RawValue::from_string(json).unwrap();
        Device { id: DeviceId::from(raw(id.to_owned())), entry: raw(format!("{{\"DeviceId\":{id}}}")) }
    }

    fn trouble(devices: &[Device], wanted: &str) -> String {
        match find(devices, wanted) {
            Err(Trouble::Device(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_device_is_found_by_number_or_text_and_what_is_unclear_is_named() {
        let all = [device("7"), device("\"can0\""), device("\"7\""), device("8"), device("8")];
        assert_eq!(find(&all, "can0").unwrap().id.json(), "\"can0\"");
        assert_eq!(find(&all, "8").unwrap().id.json(), "8", "listed twice is still one");
        assert_eq!(find(&all, "\"7\"").unwrap().id.json(), "\"7\"");
        assert_eq!(trouble(&all, "7"), "7 is ambiguous: 7, \"7\"");
        assert_eq!(trouble(&all, "can\u{1b}1"), "no device can?1; there is 7, \"can0\", \"7\", 8, 8");
        assert_eq!(trouble(&[], "7"), "no device 7: the server has no devices");
    }

    #[test]
    fn a_name_is_written_so_that_it_can_be_typed() {
        for (id, shown) in [
            ("\"bus:vehicle\"", "bus:vehicle"),
            ("7", "7"),
            ("\"7\"", "\"7\""),
            ("\"\"", "\"\""),
            ("\"a b\"", "\"a b\""),
            ("\"a\\u001bb\"", "\"a\\u001bb\""),
            ("1.50e2", "1.50e2"),
        ] {
            assert_eq!(name(&device(id).id), shown, "{id}");
        }
    }

    #[test]
    fn a_servers_no_is_one_line_whatever_its_code_is() {
        let error = |code: serde_json::Value, message: &str| {
            let code = (!code.is_null()).then_some(code);
            refusal(&RemoteError { code, message: message.to_owned() })
        };
        assert_eq!(error(2.into(), "unknown command"), "error 2: unknown command");
        assert_eq!(error("E_NO\u{1b}".into(), "a\nb"), "error E_NO?: a?b");
        assert_eq!(error(serde_json::Value::Null, ""), "error: no reason given");
    }

    #[test]
    fn arguments_are_an_object() {
        assert_eq!(arguments(" {\"a\": 1.50} ").unwrap().0.get(), "{\"a\": 1.50}");
        for wrong in ["", "7", "[]", "null", "{", "{}x"] {
            assert!(arguments(wrong).is_err(), "{wrong}");
        }
    }
}
