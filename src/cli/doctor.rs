//! `ocpcan doctor`: what a technician checks first, with the remedy beside each problem.
//!
//! Owns the order of the questions and the exit code. Relies on `gather` for what is, and on `judge` for what it means. Never
//! changes anything: it sends no frame, creates no file, and calls no OCP server while a gateway may be driving.

mod facts;
mod gather;
mod judge;
mod text;

use std::path::PathBuf;

use super::{DEFAULT_CONFIG, exit, print};
use crate::io::power;

/// Checks what the gateway stands on: buses, rights, clock, ports, supply, and who answers
///
/// One line for each thing: ok, warning or problem, and the remedy. It changes nothing and may be run beside a gateway that
/// drives. Exit codes: 0 no problem, 69 at least one.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file
    #[arg(long, short, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,

    /// One JSON object in place of the lines
    #[arg(long)]
    json: bool,

    /// Where the kernel tells of the machine, for tests
    #[arg(long, value_name = "FOLDER", default_value = power::SYS, hide = true)]
    sys: PathBuf,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> u8 {
    let facts = gather::gather(&args.config, &args.sys);
    let findings = judge::judge(&facts);
    let text = if args.json {
        text::json(&facts, &findings)
    } else {
        text::lines(&facts, &findings, super::status::colours())
    };
    match print(&text) {
        exit::OK if judge::has_problem(&findings) => exit::UNAVAILABLE,
        code => code,
    }
}
