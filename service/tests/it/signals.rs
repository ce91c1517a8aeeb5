//! Signals against a real process: this test starts itself again as the process to be signalled.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use towpath_service::signals::Shutdown;

/// Set for the process to be signalled.
const ROLE: &str = "SIGNALS_TEST_CHILD";

const LIFETIME: Duration = Duration::from_secs(20);

/// Says when it is ready, when a shutdown is requested, and then, in the role `stuck`, does not end.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    // Whatever fails, neither this process nor the test that waits for it outlives this.
    std::thread::spawn(|| {
        std::thread::sleep(LIFETIME);
        std::process::exit(43);
    });
    let say = |text: &str| writeln!(std::io::stdout(), "\n{text}").unwrap();
    let shutdown = Shutdown::install().unwrap();
    say("ready");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(shutdown.clone().requested());
    runtime.block_on(shutdown.requested());
    say("requested");
    if role == "stuck" {
        std::thread::sleep(LIFETIME);
    }
    std::process::exit(42);
}

struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(role: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "signals::child", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut process = Self { child, output };
        process.wait_for("ready");
        process
    }

    fn wait_for(&mut self, text: &str) {
        let mut lines = self.output.by_ref().lines();
        assert!(lines.any(|line| line.unwrap() == text), "the process ended without saying {text:?}");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn exit(mut self) -> ExitStatus {
        let deadline = Instant::now() + 2 * LIFETIME;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > deadline {
                self.child.kill().unwrap();
                panic!("the process does not end");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn the_first_signal_requests_a_shutdown() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut process = Process::start("orderly");
        process.signal(signal);
        process.wait_for("requested");
        assert_eq!(process.exit().code(), Some(42), "{signal:?}");
    }
}

/// Signals come all the time: those of the first second are echoes of the first, the next one is impatience.
#[test]
fn a_second_signal_ends_the_process_at_once_unless_it_comes_with_the_first() {
    let mut process = Process::start("stuck");
    let first = Instant::now();
    process.signal(Signal::TERM);
    process.wait_for("requested");
    let requested = Instant::now();
    let status = loop {
        process.signal(Signal::INT);
        std::thread::sleep(Duration::from_millis(20));
        if let Some(status) = process.child.try_wait().unwrap() {
            break status;
        }
        assert!(requested.elapsed() < LIFETIME / 2, "impatience is not heard");
    };
    assert_eq!(status.code(), Some(1));
    assert!(first.elapsed() >= Duration::from_secs(1), "ended after {:?}", first.elapsed());
}

#[test]
fn a_hangup_is_ignored() {
    let mut process = Process::start("orderly");
    process.signal(Signal::HUP);
    process.signal(Signal::HUP);
    process.signal(Signal::TERM);
    process.wait_for("requested");
    assert_eq!(process.exit().code(), Some(42));
}
