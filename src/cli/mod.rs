//! The command line: one file per subcommand.

pub mod monitor;
pub mod sim_ocp;

/// Runs the command line of this process and returns its exit code.
#[must_use]
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(64)
}
