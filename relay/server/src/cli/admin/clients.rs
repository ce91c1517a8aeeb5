//! `clients`: every connection of a running relay, as a table or as JSON.

use std::cmp::Reverse;
use std::io::{IsTerminal, stdout};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Context;
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use towpath_relay::administration::schema::{Clients, ListedConnection, OtherEnd};
use towpath_relay_proto::admission::PolicyName;
use towpath_service::command::{Failure, print};
use towpath_service::config::{IpNet, Value};

use super::RelayArgs;
use super::key::KeyText;
use super::table::{Align, Column, render, width};
use super::units::{age, count, size};

/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Moves the cursor to the upper left corner and clears the screen.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// The digits of a key in a table.
const KEY_DIGITS: usize = 10;

#[derive(Args, Debug)]
pub(in crate::cli) struct ShowClients {
    /// The order of the connections; numbers begin with the largest
    #[arg(long, value_enum, default_value_t = SortBy::Age)]
    sort: SortBy,
    /// Only connections of keys that begin so
    #[arg(long, value_name = "PREFIX")]
    key: Option<KeyText>,
    /// Only connections from this IP address or prefix
    #[arg(long, value_name = "PREFIX", value_parser = source)]
    source: Option<IpNet>,
    /// Only connections that this policy has admitted
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(PolicyName::ALL.map(PolicyName::label)))]
    policy: Option<String>,
    /// Only connections of programs with this name
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
    /// Shows the table again every 2 s
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// JSON for programs in place of the table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    relay: RelayArgs,
}

/// The order of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SortBy {
    Key,
    Source,
    Age,
    Policy,
    App,
    Version,
    Received,
    Sent,
    Dropped,
    Waiting,
}

fn source(text: &str) -> Result<IpNet, String> {
    IpNet::from_text(text).ok_or_else(|| format!("allowed: {}", IpNet::allowed()))
}

impl ShowClients {
    pub(in crate::cli) fn run(&self) -> Result<(), Failure> {
        let relay = self.relay.socket()?;
        loop {
            let clients: Clients = relay.ask("GET", "/clients")?;
            let all = clients.connections.len();
            let connections = self.select(clients.connections);
            if self.json {
                let text = serde_json::to_string_pretty(&Clients { connections });
                return Ok(print(&(text.context("cannot write JSON")? + "\n"))?);
            }
            let clear = if self.watch && stdout().is_terminal() { CLEAR } else { "" };
            print(&format!("{clear}{}", table(&connections, all, width())))?;
            if !self.watch {
                return Ok(());
            }
            sleep(WATCH_EVERY);
        }
    }

    /// The connections that are asked for, in their order.
    fn select(&self, mut connections: Vec<ListedConnection>) -> Vec<ListedConnection> {
        connections.retain(|connection| {
            self.key.as_ref().is_none_or(|key| key.means(&connection.key))
                && self.source.is_none_or(|source| source.contains(&connection.address.ip()))
                && self.policy.as_ref().is_none_or(|policy| connection.policy.as_ref() == Some(policy))
                && self.app.as_ref().is_none_or(|app| connection.app_name == *app)
        });
        connections.sort_by_key(|connection| connection.connection);
        let largest =
            |number: fn(&ListedConnection) -> u64| move |each: &ListedConnection| Reverse(number(each));
        match self.sort {
            SortBy::Key => connections.sort_by(|a, b| a.key.cmp(&b.key)),
            SortBy::Source => connections.sort_by_key(|each| each.address),
            SortBy::Age => connections.sort_by_key(largest(|each| each.age_seconds)),
            SortBy::Policy => connections.sort_by(|a, b| a.policy.cmp(&b.policy)),
            SortBy::App => connections.sort_by(|a, b| a.app_name.cmp(&b.app_name)),
            SortBy::Version => connections.sort_by_key(|each| Reverse(each.version)),
            SortBy::Received => connections.sort_by_key(largest(|each| each.received.bytes)),
            SortBy::Sent => connections.sort_by_key(largest(|each| each.sent.bytes)),
            SortBy::Dropped => connections.sort_by_key(largest(dropped)),
            SortBy::Waiting => connections.sort_by_key(largest(|each| each.waiting.bytes)),
        }
        connections
    }
}

/// All packets of a connection that were dropped.
pub(super) fn dropped(connection: &ListedConnection) -> u64 {
    connection.dropped.values().sum()
}

/// What a connection is besides an active one of a client.
pub(super) fn flags(connection: &ListedConnection) -> String {
    let flags = [
        (connection.kind == OtherEnd::Link, "link"),
        (connection.home, "home"),
        (connection.duplicate && connection.active, "active"),
        (connection.duplicate && !connection.active, "standby"),
        (connection.kind == OtherEnd::Client && connection.mesh, "mesh"),
        (connection.kind == OtherEnd::Client && connection.watch && !connection.mesh, "watch"),
        (connection.prober, "prober"),
        (connection.not_ideal, "not-ideal"),
        (connection.blocked, "blocked"),
    ];
    let names: Vec<_> = flags.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect();
    names.join(",")
}

const fn left(
    title: &'static str,
    rank: u8,
    cell: fn(&ListedConnection) -> String,
) -> Column<ListedConnection> {
    Column { title, align: Align::Left, rank, cell }
}

const fn right(
    title: &'static str,
    rank: u8,
    cell: fn(&ListedConnection) -> String,
) -> Column<ListedConnection> {
    Column { title, align: Align::Right, rank, cell }
}

/// The columns. With the usual addresses of IPv4 the first seven fit into 80 characters, and all of them into 140.
const COLUMNS: [Column<ListedConnection>; 14] = [
    left("KEY", 0, |each| each.key.trim_start_matches("nodekey:").chars().take(KEY_DIGITS).collect()),
    left("SOURCE", 0, |each| each.address.to_string()),
    right("AGE", 0, |each| age(each.age_seconds)),
    left("POLICY", 1, |each| each.policy.clone().unwrap_or_else(|| "–".into())),
    right("RECEIVED", 0, |each| size(each.received.bytes)),
    right("SENT", 0, |each| size(each.sent.bytes)),
    right("DROPPED", 0, |each| dropped(each).to_string()),
    right("WAITING", 2, |each| size(each.waiting.bytes)),
    left("FLAGS", 3, flags),
    right("IN", 7, |each| each.received.packets.to_string()),
    right("OUT", 8, |each| each.sent.packets.to_string()),
    left("OVER", 5, |each| each.transport.clone()),
    right("VER", 6, |each| each.version.map_or_else(|| "–".into(), |version| version.to_string())),
    left("APP", 4, |each| each.app_name.clone()),
];

fn table(connections: &[ListedConnection], all: usize, width: usize) -> String {
    let shown = count(connections.len() as u64, "connection");
    let of = if connections.len() == all { String::new() } else { format!(" of {all}") };
    format!("{}{shown}{of}\n", render(&COLUMNS, connections, width))
}
