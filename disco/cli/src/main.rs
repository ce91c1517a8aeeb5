//! `towpath`: the command line of a peer. The library `towpath` does the work.
//!
//! Exit codes: 0 for success, 1 for a failure while running, 2 for a wrong configuration or command line, as clap has it.

mod ask;
mod control;
mod demo;
mod journal;
mod key;
mod metrics;
mod netcheck;
mod pair;
mod proxy;
mod running;
mod settings;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use towpath_service::command::Failure;
use towpath_service::logs;
use towpath_service::logs::say;

use self::ask::{FollowEvents, Ping, ShowStatus, ShowWhy};
use self::demo::Demo;
use self::key::Key;
use self::netcheck::NetCheck;
use self::pair::Pair;
use self::proxy::RunProxy;
use self::up::Up;

/// A peer that is reached by its WireGuard key, directly or over relays.
#[derive(Debug, Parser)]
#[command(name = "towpath", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows what a peer does: two peers behind simulated NATs become direct, all in this process
    Demo(Demo),
    /// Reports what the network of this machine lets through and what its NATs do, with the servers of a relay map
    Netcheck(NetCheck),
    /// Runs a peer, with a control socket that the commands below ask
    Up(Up),
    /// Carries the packets of a WireGuard interface to its peers: over a relay at once, and directly as soon as a path is found
    Proxy(RunProxy),
    /// Makes a mesh of two: files of wg-quick for this machine and for another one, on which a line is pasted
    Pair(Pair),
    /// Shows a running peer: its addresses, its relays, the path to each of its peers
    Status(ShowStatus),
    /// Asks a peer for answers, by a running peer: the way and the round trip of each, and when it became direct
    Ping(Ping),
    /// Says why the path from a running peer to another is what it is, and what would make it direct
    Why(ShowWhy),
    /// Prints each change of a path of a running peer as a line of JSON, without end
    Events(FollowEvents),
    /// Prints the public key of a key file, which is made if it is missing
    Key(Key),
}

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let done = match command {
        Command::Demo(demo) => demo.run(),
        Command::Netcheck(check) => check.run(),
        Command::Up(up) => up.run(),
        Command::Proxy(proxy) => proxy.run(),
        Command::Pair(pair) => pair.run(),
        Command::Status(status) => status.run(),
        Command::Ping(ping) => ping.run(),
        Command::Why(why) => why.run(),
        Command::Events(events) => events.run(),
        Command::Key(key) => key.run(),
    };
    let code = match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::Wrong) {
                say(&format!("towpath: {failure}"));
            }
            failure.into()
        }
    };
    logs::flush();
    code
}
