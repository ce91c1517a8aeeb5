//! The `towpath-loadtest` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    towpath_loadtest::cli::main()
}
