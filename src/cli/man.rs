//! `ocpcan man`: the manual pages, made from the command line's own definition.

use super::{Cli, complain, exit, print};
use clap::CommandFactory as _;
use std::path::PathBuf;

/// Prints the manual page, or writes the pages of all commands
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write one page per command into this directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints or writes the pages.
#[must_use]
pub fn run(args: &Args) -> u8 {
    let command = Cli::command();
    if let Some(dir) = &args.dir {
        return match std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(command, dir)) {
            Ok(()) => exit::OK,
            Err(error) => {
                complain(&format!("{}: {error}", dir.display()));
                exit::IO
            }
        };
    }
    let mut page = Vec::new();
    // A vector takes every byte.
    let _ = clap_mangen::Man::new(command).render(&mut page);
    print(&String::from_utf8_lossy(&page))
}
