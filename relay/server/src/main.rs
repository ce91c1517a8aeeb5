//! `towpath-relay`: a DERP relay with STUN. What it does is in the library, how it is asked to in [`cli`].

mod cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
