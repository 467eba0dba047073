//! The binary: hands the arguments to the command line and its answer to the shell.

fn main() -> std::process::ExitCode {
    ocpcan::cli::main()
}
