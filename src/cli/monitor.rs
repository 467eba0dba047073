//! `ocpcan monitor`: what is on a bus, one line a frame.
//!
//! Owns the lines. Relies on the port, on the candump forms and, where a DBC file is given, on its signals. Never sends, and never ends because nobody reads its
//! output: a closed stdout is an end like any other.

#![allow(clippy::disallowed_methods, reason = "a command waits for its bus")]

use core::fmt::Write as _;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use crate::can::candump::{Columns, LogLine};
use crate::io::canbus::{BusAddress, OpenCause, OpenError, Port, PortOptions, Received, RecvError};
use crate::io::clock;
use crate::signals::bits::Raw;
use crate::signals::dbc::{Database, DbcError, DecodedSignal};

/// Longest time until an interrupt is noticed.
const TURN: Duration = Duration::from_millis(100);

/// Pause between two attempts to open a bus that has gone.
const REOPEN: Duration = Duration::from_millis(500);

/// Receive buffer that is asked for: a second of a full 1 Mbit/s bus, 8,000 frames of about 800 bytes of the kernel's
/// memory. The system's limit applies without the right to pass it.
const RCVBUF: usize = 6_400_000;

/// Exit codes, as in sysexits.
const UNAVAILABLE: u8 = 69;
const IO: u8 = 74;
const CONFIG: u8 = 78;

/// Most digits behind the point of a decoded value: 1e-7 degrees of a position need seven, a binary fraction more.
const DIGITS: usize = 9;

/// Prints the frames of a bus, like candump.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The bus: an interface such as `can0`, or a built-in bus `sim:NAME`
    #[arg(value_name = "BUS")]
    bus: BusAddress,

    /// Adds the signals of the frames that this DBC file knows
    #[arg(long, value_name = "FILE", conflicts_with = "log")]
    dbc: Option<PathBuf>,

    /// Writes candump log lines: (seconds) bus id#data
    #[arg(short = 'L', long)]
    log: bool,

    /// Ends after that many frames
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
}

/// Why the printing ended.
enum End {
    /// Interrupted, or the count is reached.
    Done,
    /// Nobody reads the output any more.
    Closed,
    /// The output cannot be written.
    Output(io::Error),
}

/// Runs the command; the exit code comes back.
#[must_use]
pub fn run(args: Args) -> u8 {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second one ends it where it stands, for a reader of the output that is stuck. Without the handlers each does.
        let _ = signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop));
        let _ = signal_hook::flag::register(signal, Arc::clone(&stop));
    }
    let signals = match args.dbc.as_deref().map(Database::load).transpose() {
        Ok(signals) => signals,
        Err(error) => {
            note(format_args!("{}: {error}", args.dbc.as_deref().unwrap_or_else(|| "".as_ref()).display()));
            return if matches!(error, DbcError::Unreadable(_)) { IO } else { CONFIG };
        }
    };
    let port = match open(&args.bus) {
        Ok(port) => port,
        Err(error) => {
            note(format_args!("{error}"));
            return UNAVAILABLE;
        }
    };
    match print(&args, signals.as_ref(), port, &stop, &mut io::stdout().lock()) {
        End::Done | End::Closed => 0,
        End::Output(error) => {
            note(format_args!("stdout: {error}"));
            IO
        }
    }
}

/// One line on stderr, if it can be written.
fn note(text: core::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "ocpcan monitor: {text}");
}

/// Opens the bus for everything: every frame, error messages, FD where the interface has it.
fn open(bus: &BusAddress) -> Result<Port, OpenError> {
    let options = PortOptions { errors: true, fd: true, rcvbuf: Some(RCVBUF), ..PortOptions::default() };
    match Port::open(bus, &options) {
        Err(OpenError { cause: OpenCause::NoFd, .. }) => {
            Port::open(bus, &PortOptions { fd: false, ..options })
        }
        result => result,
    }
}

/// Prints until the end.
fn print(
    args: &Args,
    signals: Option<&Database>,
    port: Port,
    stop: &AtomicBool,
    out: &mut impl io::Write,
) -> End {
    let mut port = Some(port);
    let (mut printed, mut dropped) = (0_u64, 0_u32);
    let mut line = String::new();
    while !stop.load(Ordering::Relaxed) && args.count.is_none_or(|n| printed < n) {
        let Some(open_port) = &port else {
            std::thread::sleep(REOPEN);
            port = open(&args.bus).inspect(|_| note(format_args!("{}: back", args.bus))).ok();
            dropped = 0;
            continue;
        };
        match open_port.recv(Some(TURN)) {
            Ok(None) => {}
            Ok(Some(received)) => {
                if received.dropped_total != dropped {
                    let lost = received.dropped_total.wrapping_sub(dropped);
                    note(format_args!(
                        "{}: {lost} frames lost, the reader of this output is too slow",
                        args.bus
                    ));
                    dropped = received.dropped_total;
                }
                line.clear();
                write_line(args, signals, &received, &mut line);
                match out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
                    Ok(()) => printed += 1,
                    Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return End::Closed,
                    Err(e) => return End::Output(e),
                }
            }
            Err(RecvError::Down) => note(format_args!("{}: interface down", args.bus)),
            Err(error) => {
                note(format_args!("{}: {error}, waiting for it", args.bus));
                port = None;
            }
        }
    }
    End::Done
}

/// One frame as a line.
fn write_line(args: &Args, signals: Option<&Database>, received: &Received, line: &mut String) {
    let (bus, frame) = (args.bus.name(), &received.frame);
    // Writing to a string cannot fail.
    let _ = if args.log {
        write!(line, "{}", LogLine { wall_us: clock::wall_us(), bus, frame: *frame })
    } else {
        write!(line, "{}", Columns { bus, frame })
    };
    if let Some(decoded) = signals.and_then(|db| db.decode(frame)) {
        line.push_str("  ");
        push_plain(line, &decoded.message.name);
        for signal in &decoded.values {
            write_signal(signal, line);
        }
    }
    line.push('\n');
}

/// ` NAME=value unit`, with the digits that the signal's scale can tell apart.
fn write_signal(decoded: &DecodedSignal<'_>, line: &mut String) {
    line.push(' ');
    push_plain(line, &decoded.signal.name);
    line.push('=');
    if let Some(name) = decoded.name {
        return push_plain(line, name);
    }
    // Writing to a string cannot fail.
    let _ = match decoded.signal.codec {
        Ok(codec) if codec.raw != Raw::Float => {
            let digits = digits(codec.factor).max(digits(codec.offset));
            write!(line, "{:.digits$}", decoded.value)
        }
        _ => write!(line, "{:?}", decoded.value), // an exponent where it is long
    };
    push_plain(line, &decoded.signal.unit);
}

/// Digits behind the point of this number as it is written, at most [`DIGITS`].
fn digits(number: f64) -> usize {
    number.to_string().split_once('.').map_or(0, |(_, fraction)| fraction.len().min(DIGITS))
}

/// Text from a file, without what would change the terminal.
fn push_plain(line: &mut String, text: &str) {
    line.extend(text.chars().filter(|c| !c.is_control()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::can::{Frame, Id};
    use crate::io::canbus::{BusName, Hub};

    /// A bus of this test alone, with a sender on it.
    fn bus(name: &str) -> (Hub, Args, Port) {
        let name = format!("m{}{name}", std::process::id() % 100_000);
        let hub = Hub::start(&BusName::try_from(name.as_str()).unwrap()).unwrap();
        let args = Args { bus: format!("sim:{name}").parse().unwrap(), dbc: None, log: false, count: None };
        let sender = Port::open(&args.bus, &PortOptions::default()).unwrap();
        (hub, args, sender)
    }

    fn frame(data: &[u8]) -> Frame {
        Frame::data(Id::standard(0x101).unwrap(), data).unwrap()
    }

    #[test]
    fn both_forms_are_printed_and_the_count_ends_it() {
        let (_hub, args, sender) = bus("a");
        for log in [false, true] {
            let args = Args { log, count: Some(2), ..args.clone() };
            let port = open(&args.bus).unwrap();
            for data in [[1_u8, 2], [3, 4], [5, 6]] {
                sender.try_send(&frame(&data)).unwrap();
            }
            let mut out = Vec::new();
            assert!(matches!(print(&args, None, port, &AtomicBool::new(false), &mut out), End::Done));
            let text = String::from_utf8(out).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.len(), 2);
            if log {
                let line = crate::can::candump::parse_line(lines[1]).unwrap();
                assert_eq!((line.bus, line.frame), (args.bus.name(), frame(&[3, 4])));
            } else {
                assert_eq!(lines[0], format!("  {}  101   [2]  01 02", args.bus.name()));
            }
        }
    }

    #[test]
    fn known_frames_show_their_signals() {
        let db = Database::parse(concat!(
            "VERSION \"\"\nBU_: A\n",
            "BO_ 257 STATE: 8 A\n",
            " SG_ SPEED : 0|16@1+ (0.1,0) [0|0] \"km/h\" A\n",
            " SG_ LATITUDE : 16|32@1- (1E-007,0) [0|0] \"deg\" A\n",
            " SG_ GEAR : 48|2@1+ (1,0) [0|3] \"\" A\n",
            " SG_ COUNT : 56|8@1+ (1,0) [0|255] \"\" A\n",
            "VAL_ 257 GEAR 2 \"reverse\" ;\n",
        ))
        .unwrap();
        let args = Args { bus: "can0".parse().unwrap(), dbc: None, log: false, count: None };
        let show = |frame| {
            let at = crate::time::Instant::ZERO;
            let received = Received { frame, own: false, local: false, dropped_total: 0, at };
            let mut line = String::new();
            write_line(&args, Some(&db), &received, &mut line);
            line
        };
        assert_eq!(
            show(frame(&[3, 0, 0xff, 0xff, 0xff, 0xff, 2, 7])),
            "  can0  101   [8]  03 00 FF FF FF FF 02 07  STATE SPEED=0.3km/h LATITUDE=-0.0000001deg GEAR=reverse COUNT=7\n"
        );
        assert_eq!(show(frame(&[3, 0])), "  can0  101   [2]  03 00  STATE SPEED=0.3km/h\n");
        let unknown = Frame::data(Id::standard(0x102).unwrap(), &[1]).unwrap();
        assert_eq!(show(unknown), "  can0  102   [1]  01\n");
    }

    #[test]
    fn a_bad_dbc_file_ends_it_before_the_bus_is_opened() {
        let args = Args { bus: "nosuchcan0".parse().unwrap(), dbc: None, log: false, count: None };
        assert_eq!(run(Args { dbc: Some("/nonexistent.dbc".into()), ..args.clone() }), IO);
        assert_eq!(run(Args { dbc: Some("Cargo.toml".into()), ..args.clone() }), CONFIG);
        assert_eq!(run(args), UNAVAILABLE);
    }

    #[test]
    fn a_closed_reader_is_an_end_and_a_full_disk_an_error() {
        /// Fails with this.
        struct Broken(io::ErrorKind);
        impl io::Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (_hub, args, sender) = bus("b");
        let stop = AtomicBool::new(false);
        let end = |kind| {
            let port = open(&args.bus).unwrap();
            sender.try_send(&frame(&[])).unwrap();
            print(&args, None, port, &stop, &mut Broken(kind))
        };
        assert!(matches!(end(io::ErrorKind::BrokenPipe), End::Closed));
        assert!(matches!(end(io::ErrorKind::StorageFull), End::Output(_)));
        stop.store(true, Ordering::Relaxed);
        assert!(matches!(end(io::ErrorKind::BrokenPipe), End::Done));
    }
}
