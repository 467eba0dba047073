//! `ocpcan completions`: a completion script for a shell, made from the command line's own definition.

use super::{Cli, print};
use clap::CommandFactory as _;

/// Prints a completion script for a shell
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell that will read the script
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Prints the script.
#[must_use]
pub fn run(args: Args) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ocpcan", &mut script);
    print(&String::from_utf8_lossy(&script))
}
