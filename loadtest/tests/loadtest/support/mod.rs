//! A relay and load processes, as users run them.

#![allow(dead_code, reason = "not every test needs all of it")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};
use std::{env, thread};

use serde::de::DeserializeOwned;
use tempfile::TempDir;

const START_LIMIT: Duration = Duration::from_secs(10);

/// A relay on loopback, which is killed when this value is dropped.
#[derive(Debug)]
pub(crate) struct RelayUnderTest {
    process: Child,
    address: SocketAddr,
    stun: SocketAddr,
    admin: SocketAddr,
    files: TempDir,
}

impl RelayUnderTest {
    /// Starts a relay and returns when it is ready.
    pub(crate) fn start() -> Self {
        let files = TempDir::new().expect("a temporary directory");
        let config = files.path().join("relay.toml");
        let text = format!(
            "hostname = \"localhost\"\nadmission = \"open\"\nlisten = \"127.0.0.1:0\"\nkey_file = {:?}\n\n\
             [stun]\nlisten = [\"127.0.0.1:0\"]\nrate = 1000000\n\n[admin]\nlisten = \"127.0.0.1:0\"\n\n\
             [log]\nformat = \"json\"\n",
            files.path().join("relay.key")
        );
        fs::write(&config, text).expect("a configuration file");
        let log = File::create(files.path().join("log")).expect("a log file");
        let binary = binary();
        let mut command = Command::new(&binary);
        // Only the file may configure the relay.
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TOWPATH_")) {
            command.env_remove(name);
        }
        let process = command
            .arg("--config")
            .arg(config)
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
        let unknown = SocketAddr::from(([0; 4], 0));
        let mut relay = Self { process, address: unknown, stun: unknown, admin: unknown, files };
        let deadline = Instant::now() + START_LIMIT;
        // The kernel chooses the ports, and the relay's log says which: a port that a test chose beforehand may be taken
        // by the time the relay binds it.
        while !relay.is_listening() || !is_ready(relay.admin) {
            assert!(relay.process.try_wait().expect("a child").is_none(), "the relay ended at start");
            assert!(Instant::now() < deadline, "the relay is not ready after {START_LIMIT:?}");
            thread::sleep(Duration::from_millis(10));
        }
        relay
    }

    /// Whether the log says where the relay listens, which is noted then.
    fn is_listening(&mut self) -> bool {
        let log = fs::read_to_string(self.files.path().join("log")).expect("a log file");
        let Some([address, stun, admin]) = log.lines().find_map(listening) else { return false };
        (self.address, self.stun, self.admin) = (address, stun, admin);
        true
    }

    /// A command that loads this relay, and writes the report that [`report`](Self::report) returns for `name`.
    pub(crate) fn load(&self, scenario: &str, name: &str) -> Command {
        let mut command = self.command(scenario, self.address, name);
        command.arg("--certificate").arg(self.files.path().join("self-signed.crt"));
        command
    }

    /// A command that loads the relay's STUN server, and writes the report that [`report`](Self::report) returns for
    /// `name`.
    pub(crate) fn load_stun(&self, name: &str) -> Command {
        self.command("stun", self.stun, name)
    }

    fn command(&self, scenario: &str, address: SocketAddr, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_towpath-loadtest"));
        command.args([scenario, "--connect", &address.to_string()]);
        command.args(["--server-pid", &self.process.id().to_string()]);
        command.arg("--json").arg(self.files.path().join(name));
        command
    }

    /// The URL of the relay's metrics.
    pub(crate) fn metrics(&self) -> String {
        format!("http://{}/metrics", self.admin)
    }

    /// The value of a metric without labels.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let page = get(self.admin, "/metrics").expect("metrics");
        let value =
            page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect("the metric");
        value.trim().parse().expect("a number")
    }

    /// The report of a command with this `name`.
    pub(crate) fn report<R: DeserializeOwned>(&self, name: &str) -> R {
        let text = fs::read(self.files.path().join(name)).expect("a report");
        let file: towpath_loadtest::report::ReportFile<R> = serde_json::from_slice(&text).expect("a report");
        file.detail
    }
}

impl Drop for RelayUnderTest {
    #[expect(clippy::print_stderr, reason = "the log of the relay explains a failed test")]
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            let log = fs::read_to_string(self.files.path().join("log")).unwrap_or_default();
            eprintln!("the relay's log:\n{log}");
        }
    }
}

/// Asserts that a load succeeded, and shows its output if not.
pub(crate) fn assert_success(output: &Output) {
    assert!(
        output.status.success(),
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
}

/// Whether `/readyz` answers with 200.
fn is_ready(admin: SocketAddr) -> bool {
    get(admin, "/readyz").is_ok_and(|response| response.starts_with("HTTP/1.1 200 "))
}

/// The whole response to a request of the admin listener.
fn get(admin: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response).map(|_| response)
}

/// The relay's binary: `TOWPATH_RELAY`, or the workspace's own in the profile of the test.
fn binary() -> PathBuf {
    let binary = env::var_os("TOWPATH_RELAY").map_or_else(
        || Path::new(env!("CARGO_BIN_EXE_towpath-loadtest")).with_file_name("towpath-relay"),
        PathBuf::from,
    );
    assert!(binary.exists(), "{} is missing: build towpath-relay or set TOWPATH_RELAY", binary.display());
    binary
}

/// The addresses for TLS, STUN and metrics in a line of the relay's log, if it is the line that has them.
fn listening(line: &str) -> Option<[SocketAddr; 3]> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let address = |name: &str| line[name].as_str()?.trim_matches(['[', ']']).parse().ok();
    if line["message"] != "listening" {
        return None;
    }
    Some([address("listen")?, address("stun")?, address("admin")?])
}
