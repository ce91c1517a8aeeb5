//! A relay under test, as a process of its own, for tests with client crates that are not ours.
//!
//! The binary is `TOWPATH_RELAY`, or the workspace's own: the release build before the debug build. With
//! `TOWPATH_RELAY_KIND=derper` it is stock derper, which proves that a test asks for what the protocol is.
//! The tests with the stock client library are in Go, in `go/`; `foreign/install` fetches foreign programs.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use std::{env, thread};

use tempfile::TempDir;

const START_LIMIT: Duration = Duration::from_secs(10);

/// A relay on loopback, which ends with this value.
#[derive(Debug)]
pub struct Relay {
    process: Child,
    address: SocketAddr,
    files: TempDir,
}

impl Relay {
    /// Starts the relay with a fresh key and a self-signed certificate, and returns when it serves.
    ///
    /// # Panics
    /// When there is no relay binary, or it does not serve within 10 s.
    pub fn start() -> Self {
        Self::start_kind(env::var("TOWPATH_RELAY_KIND").as_deref() == Ok("derper"), &binary())
    }

    /// Starts the stock derper that `foreign/install` has installed, whatever the relay under test is.
    ///
    /// # Panics
    /// When it is not installed, or does not serve within 10 s.
    pub fn start_derper() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.foreign");
        let foreign = env::var_os("TOWPATH_FOREIGN").map_or(root, PathBuf::from);
        let binary = foreign.join("bin/derper");
        assert!(binary.exists(), "{} is missing; run tests/interop/foreign/install", binary.display());
        Self::start_kind(true, &binary)
    }

    fn start_kind(is_stock: bool, binary: &Path) -> Self {
        let files = TempDir::new().expect("a temporary directory");
        let address = free_address();
        let start = if is_stock { derper } else { towpath };
        let (mut command, ready) = start(binary, files.path(), address);
        // The relay's settings are in the file alone.
        for (variable, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TOWPATH_"))
        {
            command.env_remove(variable);
        }
        let log = File::create(files.path().join("log")).expect("a log file");
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        let process = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", binary.display()));
        let mut relay = Self { process, address, files };
        relay.wait_until(ready);
        relay
    }

    /// The address that the relay serves TLS on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether this is derper.
    pub fn is_stock(&self) -> bool {
        env::var("TOWPATH_RELAY_KIND").as_deref() == Ok("derper")
    }

    fn wait_until(&mut self, ready: Ready) {
        let deadline = Instant::now() + START_LIMIT;
        while !ready.holds() {
            let exited = self.process.try_wait().expect("the relay is our child");
            assert!(exited.is_none(), "the relay exited at start: {exited:?}");
            assert!(Instant::now() < deadline, "the relay was not ready within {START_LIMIT:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Relay {
    #[expect(clippy::print_stderr, reason = "a failed test shows the relay's side")]
    fn drop(&mut self) {
        let exited = self.process.try_wait().ok().flatten();
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            let log = fs::read_to_string(self.files.path().join("log")).unwrap_or_default();
            eprintln!("the relay's log:\n{log}");
        } else {
            assert!(exited.is_none(), "the relay had exited before the end of the test: {exited:?}");
        }
    }
}

/// How a relay shows that it serves.
enum Ready {
    /// It accepts connections there.
    Accepts(SocketAddr),
    /// `/readyz` says 200 there.
    Admin(SocketAddr),
}

impl Ready {
    fn holds(&self) -> bool {
        match *self {
            Self::Accepts(address) => TcpStream::connect(address).is_ok(),
            Self::Admin(address) => readyz(address).is_ok_and(|status| status.ends_with(" 200 OK")),
        }
    }
}

/// Returns the status line of `/readyz`.
fn readyz(admin: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response.lines().next().unwrap_or_default().to_owned())
}

fn towpath(binary: &Path, dir: &Path, address: SocketAddr) -> (Command, Ready) {
    let (cert, key) = certificate(dir, "cert.pem", "key.pem");
    let admin = free_address();
    let config = dir.join("relay.toml");
    let text = format!(
        "hostname = \"127.0.0.1\"\nadmission = \"open\"\nlisten = \"{address}\"\ncert = {cert:?}\nkey = {key:?}\nkey_file = {:?}\n\n\
         [stun]\nlisten = []\n\n[admin]\nlisten = \"{admin}\"\n",
        dir.join("relay.key")
    );
    fs::write(&config, text).expect("a configuration file");
    let mut command = Command::new(binary);
    command.arg("--config").arg(config);
    (command, Ready::Admin(admin))
}

fn derper(binary: &Path, dir: &Path, address: SocketAddr) -> (Command, Ready) {
    certificate(dir, "127.0.0.1.crt", "127.0.0.1.key");
    let mut command = Command::new(binary);
    command.args(["-hostname", "127.0.0.1", "-certmode", "manual", "-http-port", "-1", "-stun=false"]);
    command.arg("-c").arg(dir.join("relay.key")).arg("-certdir").arg(dir).arg("-a").arg(address.to_string());
    (command, Ready::Accepts(address))
}

/// Writes a self-signed ECDSA P-256 certificate and its key.
fn certificate(dir: &Path, cert: &str, key: &str) -> (PathBuf, PathBuf) {
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("valid names");
    let (cert, key) = (dir.join(cert), dir.join(key));
    fs::write(&cert, made.cert.pem()).expect("a certificate file");
    fs::write(&key, made.signing_key.serialize_pem()).expect("a key file");
    (cert, key)
}

fn binary() -> PathBuf {
    if let Some(path) = env::var_os("TOWPATH_RELAY") {
        return path.into();
    }
    // A test runs from TARGET/PROFILE/deps.
    let test = env::current_exe().expect("the path of the test");
    let target = test.ancestors().nth(3).expect("a target directory");
    ["release", "debug"]
        .map(|profile| target.join(profile).join("towpath-relay"))
        .into_iter()
        .find(|path| path.exists())
        .expect("no relay binary: set TOWPATH_RELAY or build towpath-relay first")
}

/// Returns a loopback address whose TCP port was free a moment ago.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("a bound address")
}
