//! A fault in a part of the relay, and how the relay ends.

use std::sync::mpsc;

use towpath_relay::config::Config;
use towpath_relay::{Identity, RunError, Server};
use towpath_service::config::Sources;

use crate::common::PATIENCE;

/// See `docs/decisions/0002-a-panic-ends-the-process.md`. That the program exits with 1 and the reason is a test of
/// `relay/server/src/cli/outcome.rs`.
#[test]
fn a_worker_that_panics_ends_the_relay() {
    let text = "listen = \"127.0.0.1:0\"\nworkers = 2\nstun.listen = []\nadmin.listen = \"\"\n";
    let (config, _) = Config::read(&Sources::new("UNSET").text("test.toml", text), true).unwrap();
    let server = Server::bind(&config, Identity::load(&config).unwrap()).unwrap();
    let server = server.with_worker_hook(|| panic!("a bug, as a test wants it"));
    let (tell, ended) = mpsc::channel();
    std::thread::spawn(move || tell.send(server.run(std::future::pending())));
    let ended = ended.recv_timeout(PATIENCE).expect("the relay ends, though nothing asks it to");
    assert!(matches!(ended, Err(RunError::Worker)), "{ended:?}");
}
