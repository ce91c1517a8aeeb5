//! Commands that ask a running peer: `status`, `why`, `ping` and `events`.

use std::fmt::Write;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;
use towpath::NodePublic;
use towpath_service::admin::ask::{AskError, AskedService};
use towpath_service::command::{Failure, print};
use towpath_service::logs::say;

use crate::journal::Page;
use crate::settings::socket_of;

/// The pause between two pings.
const PAUSE: Duration = Duration::from_secs(1);

/// The peer to ask.
#[derive(Args, Debug)]
pub(crate) struct PeerArgs {
    /// The configuration file of the running peer, TOML [env: TOWPATH_PEER_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The control socket of the running peer, in place of the configuration's admin.socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl PeerArgs {
    fn peer(&self) -> Result<AskedService, Failure> {
        let path = match &self.socket {
            Some(path) => path.clone(),
            None => socket_of(self.config.as_deref())?,
        };
        Ok(AskedService::socket("peer", path))
    }
}

/// The command `status`.
#[derive(Args, Debug)]
pub(crate) struct ShowStatus {
    /// JSON for programs in place of the text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    peer: PeerArgs,
}

impl ShowStatus {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let status: Value = self.peer.peer()?.ask("GET", "/status")?;
        let text = if self.json { format!("{status:#}\n") } else { status_text(&status) };
        Ok(print(&text)?)
    }
}

fn status_text(status: &Value) -> String {
    let text_of = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let list = |value: &Value| {
        let items: Vec<_> = value.as_array().into_iter().flatten().map(text_of).collect();
        if items.is_empty() { "none".to_owned() } else { items.join(", ") }
    };
    let region =
        |value: &Value| value.as_u64().map_or("none".to_owned(), |region| format!("region {region}"));
    let mut text = format!("{}\n", text_of(&status["key"]));
    let _ = writeln!(
        text,
        "  home             {}, and {} is kept ready",
        region(&status["home"]),
        region(&status["standby"])
    );
    let _ = writeln!(text, "  sockets          {}", list(&status["local_addresses"]));
    let _ = writeln!(text, "  reached at       {}", list(&status["direct_addresses"]));
    let _ = writeln!(text, "  port mapping     {}", text_of(&status["port_mapping"]));
    for relay in status["relays"].as_array().into_iter().flatten() {
        let state = if relay["up"] == true { "up" } else { "down" };
        let rtt = relay["rtt_us"].as_u64().map_or(String::new(), |rtt| format!(", {}", millis(rtt)));
        let trouble = relay["trouble"].as_str().map_or(String::new(), |trouble| format!(": {trouble}"));
        let _ = writeln!(text, "  relay {:<10} {state}{rtt}{trouble}", relay["region"].to_string());
    }
    for peer in status["peers"].as_array().into_iter().flatten() {
        let at = peer["address"].as_str().map_or(String::new(), |address| format!(" at {address}"));
        let (sent, received) = (&peer["sent"]["packets"], &peer["received"]["packets"]);
        let _ = writeln!(
            text,
            "\n{}\n  {}{at}; {sent} packets sent, {received} received",
            text_of(&peer["key"]),
            text_of(&peer["state"])
        );
    }
    text
}

/// The command `why`.
#[derive(Args, Debug)]
pub(crate) struct ShowWhy {
    /// The node key of the peer
    key: NodePublic,
    /// JSON for programs in place of the text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    peer: PeerArgs,
}

impl ShowWhy {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let answer: Value = self.peer.peer()?.ask("GET", &format!("/why?key={}", self.key))?;
        let text = match answer["text"].as_str().filter(|_| !self.json) {
            Some(text) => text.replace("; ", "\n") + "\n",
            None => format!("{:#}\n", answer["why"]),
        };
        Ok(print(&text)?)
    }
}

/// The command `ping`.
#[derive(Args, Debug)]
pub(crate) struct Ping {
    /// The node key of the peer
    key: NodePublic,
    /// How many answers to wait for
    #[arg(long, short = 'c', value_name = "N", default_value_t = 10)]
    count: u32,
    /// Stop at the first answer that comes directly
    #[arg(long)]
    until_direct: bool,
    #[command(flatten)]
    peer: PeerArgs,
}

impl Ping {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let (peer, began) = (self.peer.peer()?, Instant::now());
        let mut became_direct = None;
        let mut answers = 0;
        for number in 0..self.count {
            if number > 0 {
                // At first often, so that the moment at which the path becomes direct is seen.
                sleep(if became_direct.is_none() && began.elapsed() < PAUSE { PAUSE / 20 } else { PAUSE });
            }
            match peer.ask::<Value>("GET", &format!("/ping?key={}", self.key)) {
                Ok(pong) => {
                    answers += 1;
                    print(&pong_text(&pong))?;
                    if pong["address"].is_string() {
                        became_direct.get_or_insert(began.elapsed());
                    }
                }
                Err(AskError::Refused(_, why)) => print(&format!("no answer: {why}\n"))?,
                Err(error) => return Err(error.into()),
            }
            if self.until_direct && became_direct.is_some() {
                break;
            }
        }
        let text = match became_direct {
            Some(took) => format!("direct {:.0} ms after the first ping\n", took.as_secs_f64() * 1000.0),
            None if answers > 0 => format!("not direct; `towpath why {}` says why\n", self.key),
            None => return Err(Failure::Wrong),
        };
        Ok(print(&text)?)
    }
}

fn pong_text(pong: &Value) -> String {
    let way = match (pong["address"].as_str(), pong["region"].as_u64()) {
        (Some(address), _) => format!("directly from {address}"),
        (None, Some(region)) => format!("over the relay of region {region}"),
        (None, None) => "by a way that this version does not know".to_owned(),
    };
    format!("answer {way} in {}\n", pong["rtt_us"].as_u64().map_or("?".to_owned(), millis))
}

fn millis(micros: u64) -> String {
    format!("{:.1} ms", micros as f64 / 1000.0)
}

/// The command `events`.
#[derive(Args, Debug)]
pub(crate) struct FollowEvents {
    #[command(flatten)]
    peer: PeerArgs,
}

impl FollowEvents {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let peer = self.peer.peer()?;
        let mut target = "/events".to_owned();
        loop {
            let page: Page<Value> = peer.ask("GET", &target)?;
            if page.lost > 0 {
                say(&format!("towpath: {} events were not kept long enough to be read", page.lost));
            }
            for entry in page.entries {
                print(&format!("{entry}\n"))?;
            }
            target = format!("/events?after={}", page.next);
        }
    }
}
