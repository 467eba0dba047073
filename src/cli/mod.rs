//! The command line: one file per subcommand, one exit code for each way to end.
//!
//! Owns the arguments and what is printed. Relies on everything below. Never decides anything about the vehicle.

mod assetto;
mod check;
mod completions;
mod demo;
mod doctor;
mod happening;
mod man;
pub mod monitor;
mod player;
mod rcsp;
mod run;
mod safe_stop;
mod seal;
pub mod sim_assetto;
pub mod sim_ocp;
mod sim_panel;
pub mod sim_vehicle;
mod station;
mod status;
mod tcpcan;
mod topology;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// How a command ended, in the numbers of `sysexits.h`.
pub mod exit {
    /// All is well.
    pub const OK: u8 = 0;
    /// It was asked and the answer is no: a server's error, a gateway that is not ready.
    pub const NO: u8 = 1;
    /// The command line is wrong.
    pub const USAGE: u8 = 64;
    /// Something that is needed is not there: a bus, a peer, a right.
    pub const UNAVAILABLE: u8 = 69;
    /// A defect of this program.
    pub const SOFTWARE: u8 = 70;
    /// Reading or writing failed.
    pub const IO: u8 = 74;
    /// The other end breaks the protocol.
    pub const PROTOCOL: u8 = 76;
    /// The configuration is refused.
    pub const CONFIG: u8 = 78;
}

/// Version and commit, as `--version` prints them.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("OCPCAN_REV"), ")");

/// Where a packaged gateway keeps its configuration.
pub const DEFAULT_CONFIG: &str = "/etc/ocpcan/ocpcan.toml";

/// Teleoperation gateway: OCP commands in, CAN frames out, and every actuator safe when there is no fresh reason to
/// move.
#[derive(Debug, Parser)]
#[command(name = "ocpcan", version = VERSION, disable_help_subcommand = true, max_term_width = 100)]
// The usual form without the line between usage and commands: the whole fits a terminal of 24 lines.
#[command(
    help_template = "{about}\n\n{usage-heading} {usage}\nCommands:\n{subcommands}\n\nOptions:\n{options}{after-help}",
    after_help = "Also: topology, completions, man.\n\
                  Exit codes: 0 done, 64 usage, 69 unavailable, 70 defect, 74 input/output, 76 protocol, 78 configuration."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Assetto(assetto::Args),
    Check(check::Args),
    Demo(demo::Args),
    Doctor(doctor::Args),
    Monitor(monitor::Args),
    Player(player::Args),
    Rcsp(rcsp::Args),
    Status(status::Args),
    Tcpcan(tcpcan::Args),
    /// Plays the other end of a line: the operator's side, or the vehicle
    #[command(subcommand)]
    Sim(Sim),
    SafeStop(safe_stop::Args),
    // Named in the last lines of the help instead.
    #[command(hide = true)]
    Topology(topology::Args),
    #[command(hide = true)]
    Completions(completions::Args),
    #[command(hide = true)]
    Man(man::Args),
}

/// Plays the other end of a line
#[derive(Debug, Subcommand)]
enum Sim {
    Assetto(sim_assetto::Args),
    Ocp(sim_ocp::Args),
    Panel(sim_panel::Args),
    Vehicle(sim_vehicle::Args),
}

/// Runs the command line of this process and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::from(run(std::env::args_os()))
}

/// Runs one command line; the first argument is the program's name.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    match Cli::try_parse_from(args) {
        Ok(cli) => match cli.command {
            Command::Assetto(args) => assetto::run(&args),
            Command::Run(args) => run::run(&args),
            Command::Check(args) => check::run(&args),
            Command::Demo(args) => demo::run(&args),
            Command::Doctor(args) => doctor::run(&args),
            Command::Monitor(args) => monitor::run(args),
            Command::Player(args) => player::run(&args),
            Command::Rcsp(args) => rcsp::run(&args),
            Command::Status(args) => status::run(&args),
            Command::Tcpcan(args) => tcpcan::run(&args),
            Command::Sim(Sim::Assetto(args)) => sim_assetto::run(&args),
            Command::Sim(Sim::Ocp(args)) => sim_ocp::run(&args),
            Command::Sim(Sim::Panel(args)) => sim_panel::run(&args),
            Command::Sim(Sim::Vehicle(args)) => sim_vehicle::run(&args),
            Command::SafeStop(args) => safe_stop::run(&args),
            Command::Topology(args) => topology::run(&args),
            Command::Completions(args) => completions::run(args),
            Command::Man(args) => man::run(&args),
        },
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            written(error.print().and_then(|()| io::stdout().flush()))
        }
        Err(error) => {
            // Where even stderr fails, the exit code still speaks.
            let _ = error.print();
            exit::USAGE
        }
    }
}

/// Whether stdout takes pictures: a terminal, and not a dumb one.
pub(crate) fn has_screen() -> bool {
    io::IsTerminal::is_terminal(&io::stdout()) && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Writes a command's result to stdout.
pub(crate) fn print(text: &str) -> u8 {
    let mut out = io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// The exit code for what became of writing to stdout. A reader that has seen enough (`| head`) is no error.
fn written(result: io::Result<()>) -> u8 {
    match result {
        Ok(()) => exit::OK,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => exit::OK,
        Err(error) => {
            complain(&format!("stdout: {error}"));
            exit::IO
        }
    }
}

/// Writes one line to stderr. Where even that fails, the exit code still speaks.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "ocpcan: {text}");
}
