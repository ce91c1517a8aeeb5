//! `towpath-relay`: a DERP relay with STUN. What it does is in the library, how it is asked to in [`cli`].

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
