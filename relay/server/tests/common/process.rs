//! The relay in a process of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use towpath_relay_client::{Client, Dialer, TlsVersions, Trust};
use towpath_wire::key::NodePrivate;

use super::PATIENCE;

/// The key of a client with this number.
pub(crate) fn key(number: u64) -> NodePrivate {
    let mut bytes = [0x51; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    NodePrivate::from_random(bytes)
}

/// The relay in a process of its own, killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) listen: SocketAddr,
    admin: SocketAddr,
    pub(crate) http: Option<SocketAddr>,
    log: Log,
    /// Has the configuration file.
    dir: TempDir,
}

/// What the program logs after it has said where it listens.
enum Log {
    /// It waits in the pipe.
    Unread(BufReader<ChildStderr>),
    /// A thread reads it and counts its lines.
    Read(JoinHandle<usize>),
    /// A test has it.
    Taken,
}

const CONFIG: &str = "relay.toml";

/// A configuration with these settings besides the addresses to listen on.
fn whole(settings: &str) -> String {
    format!("listen = '127.0.0.1:0'\nstun.listen = []\nadmin.listen = '127.0.0.1:0'\n{settings}")
}

impl Process {
    /// Starts the program with these settings, after a command of the shell, such as one that limits it.
    pub(crate) fn start(before: &str, settings: &str) -> Self {
        let mut process = Self::start_unread(before, settings);
        let log = process.take_log();
        process.log = Log::Read(std::thread::spawn(move || log.lines().map_while(Result::ok).count()));
        process
    }

    /// Starts the program as [`Self::start`] does, with a reader of its log that stalls once it knows where the program listens.
    pub(crate) fn start_unread(before: &str, settings: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join(CONFIG);
        std::fs::write(&file, whole(settings)).expect("a file");
        let mut child = Command::new("sh")
            .args(["-c", &format!("{before} && exec \"$@\""), "sh"])
            .args([env!("CARGO_BIN_EXE_towpath-relay"), "--dev", "--config"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut log = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut listening = String::new();
        while !listening.contains("listening") {
            listening.clear();
            assert_ne!(log.read_line(&mut listening).expect("UTF-8"), 0, "the log says where it listens");
        }
        let address = |name: &str| {
            let field = listening.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
            field.and_then(|field| field.trim().parse().ok())
        };
        let (listen, admin) = (address("listen").expect("an address"), address("admin").expect("an address"));
        let http = address("http");
        Self { child, listen, admin, http, log: Log::Unread(log), dir }
    }

    /// Replaces the configuration file by one with these settings, at one moment.
    pub(crate) fn configure(&self, settings: &str) {
        let draft = self.dir.path().join("draft");
        std::fs::write(&draft, whole(settings)).expect("a file");
        std::fs::rename(draft, self.dir.path().join(CONFIG)).expect("a new name");
    }

    /// Asks the program to read its files again, by SIGHUP.
    pub(crate) fn hang_up(&self) {
        kill_process(Pid::from_child(&self.child), Signal::HUP).expect("a signal");
    }

    /// The address of the admin listener.
    pub(crate) const fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The log from here on, if nothing has read it.
    pub(crate) fn take_log(&mut self) -> BufReader<ChildStderr> {
        match std::mem::replace(&mut self.log, Log::Taken) {
            Log::Unread(log) => log,
            Log::Read(_) | Log::Taken => panic!("the log is read already"),
        }
    }

    /// Logs in with a key made from a number; `None` if the relay refuses it.
    pub(crate) async fn log_in(&self, number: u64) -> Option<Client> {
        let dialer = Dialer::tls("localhost", self.listen.port(), &Trust::Anyone, TlsVersions::Both);
        dialer.expect("a dialer").at(self.listen).connect(&key(number)).await.ok()
    }

    pub(crate) fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).expect("the admin listener accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    pub(crate) fn metric(&self, sample: &str) -> u64 {
        let page = self.get("/metrics");
        let value = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {sample}:\n{page}")).parse().expect("a number")
    }

    pub(crate) fn wait(&self, what: &str, fact: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !fact(self) {
            assert!(Instant::now() < deadline, "not in time: {what}\n{}", self.get("/metrics"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The resident memory of the process, in bytes.
    pub(crate) fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
    }

    /// The CPU time of its threads with this name (proc_pid_stat(5), in ticks of 10 ms).
    pub(crate) fn cpu(&self, thread: &str) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let stats = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
        let ticks = stats.filter_map(|stat| {
            let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
            let mut fields = rest.split(' ').skip(11);
            let mut ticks = || fields.next()?.parse::<u64>().ok();
            (name == thread).then_some(ticks()? + ticks()?)
        });
        Duration::from_millis(10 * ticks.sum::<u64>())
    }

    /// Asks the program to end by SIGTERM, and waits until it has.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("a signal");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < deadline, "the relay does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends the process and returns how many lines it has logged.
    pub(crate) fn lines(mut self) -> usize {
        self.child.kill().expect("it runs");
        match std::mem::replace(&mut self.log, Log::Taken) {
            Log::Read(count) => count.join().expect("no panic"),
            Log::Unread(_) | Log::Taken => panic!("the log is not counted"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
