//! `towpath-relay`: a DERP relay with STUN. The library does the work; [`cli`] is its command line.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
