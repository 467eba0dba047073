//! `ocpcan topology`: every thread and every channel, from the table that the program is built from.

use super::print;

/// Prints every thread and channel of the gateway.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Prints the table.
pub(super) fn run(_args: &Args) -> u8 {
    print(&crate::topology::table())
}
