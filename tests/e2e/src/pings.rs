//! Pings from one machine to another, and when their answers came.

use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::machine::Machine;

/// Pings that go on.
#[derive(Debug)]
pub struct Pings {
    /// What `ping` prints.
    path: PathBuf,
}

/// An answer to a ping. The times are since the epoch of the system's clock.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// When the answer came.
    pub came: Duration,
    /// How long it took.
    pub took: Duration,
}

impl Reply {
    /// When the ping was sent.
    pub fn sent(&self) -> Duration {
        self.came.saturating_sub(self.took)
    }

    /// Reads a line of `ping -D`, as `[1700000000.123456] 64 bytes from 10.0.0.2: icmp_seq=1 ttl=64 time=41.2 ms`.
    fn read(line: &str) -> Option<Self> {
        let (came, rest) = line.strip_prefix('[')?.split_once(']')?;
        let took = rest.split_once("time=")?.1.strip_suffix(" ms")?.parse::<f64>().ok()?;
        let came = Duration::try_from_secs_f64(came.parse().ok()?).ok()?;
        Some(Self { came, took: Duration::from_secs_f64(took / 1000.0) })
    }
}

impl Pings {
    /// Starts to send a ping each 20 ms from a machine to a host.
    pub fn start(machine: &Machine, host: &str) -> Self {
        let path = machine.files().join("pings");
        // Answers of earlier pings are none of these.
        let _ = fs::remove_file(&path);
        let file = path.display();
        machine.start_script(&format!(
            "date +%s.%N >{file} && exec stdbuf -oL ping -n -D -i 0.02 {host} >>{file}"
        ));
        Self { path }
    }

    /// When the first ping was sent, to some milliseconds.
    pub fn began(&self) -> Option<Duration> {
        let text = fs::read_to_string(&self.path).ok()?;
        Duration::try_from_secs_f64(text.lines().next()?.parse().ok()?).ok()
    }

    /// The time now, as replies have it.
    pub fn now() -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that is set")
    }

    /// The answers until now, in the order in which they came.
    pub fn replies(&self) -> Vec<Reply> {
        fs::read_to_string(&self.path).unwrap_or_default().lines().filter_map(Reply::read).collect()
    }

    /// Waits until an answer is as wanted. Returns `None` if that takes longer than `longest`.
    pub fn wait_for(&self, longest: Duration, is_wanted: impl Fn(&Reply) -> bool) -> Option<Reply> {
        let deadline = Instant::now() + longest;
        loop {
            let found = self.replies().into_iter().find(&is_wanted);
            if found.is_some() || Instant::now() >= deadline {
                return found;
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// The longest time without an answer from `since` until the last answer.
    pub fn gap(&self, since: Duration) -> Duration {
        let came = self.replies().into_iter().map(|reply| reply.came).filter(|came| *came > since);
        let times: Vec<_> = [since].into_iter().chain(came).collect();
        times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or(Duration::MAX)
    }
}
