//! `why`: what a running relay knows of a key.

use std::fmt::Write;

use anyhow::Context;
use clap::Args;
use towpath_relay::administration::schema::{KeyPlace, ListedConnection, Refused, Why};
use towpath_service::command::{Failure, print};

use super::RelayArgs;
use super::clients::{dropped, flags};
use super::key::KeyText;
use super::units::{age, count, size};

#[derive(Args, Debug)]
pub(in crate::cli) struct ShowWhy {
    /// The node key of the client. Its first digits do if it is connected
    key: KeyText,
    /// JSON for programs in place of the text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    relay: RelayArgs,
}

impl ShowWhy {
    pub(in crate::cli) fn run(&self) -> Result<(), Failure> {
        let relay = self.relay.socket()?;
        let key = self.key.resolve(&relay)?;
        let why: Why = relay.ask("GET", &format!("/why?key={key}"))?;
        if self.json {
            let text = serde_json::to_string_pretty(&why);
            return Ok(print(&(text.context("cannot write JSON")? + "\n"))?);
        }
        Ok(print(&text(&why))?)
    }
}

fn text(why: &Why) -> String {
    let mut text = format!("{} {}\n", why.key, place(why));
    for connection in &why.connections {
        describe(connection, &mut text);
    }
    if !why.connections.is_empty() || !why.sources.is_empty() {
        text += "\naccounts\n";
        line(&mut text, "key", &of(why.connections.len(), why.max_connections_per_key));
    }
    for source in &why.sources {
        line(&mut text, &source.prefix, &of(source.connections, source.bound));
    }
    match &why.refusal {
        Some(Refused { reason, meaning, source, age_seconds, times }) => {
            let _ = write!(text, "\nlast refused {} ago, from {source}\n", age(*age_seconds));
            line(&mut text, "reason", &format!("{reason}: {meaning}"));
            line(&mut text, "times", &times.to_string());
        }
        None => text += "\nno refusal of it is remembered\n",
    }
    text
}

fn of(held: usize, bound: usize) -> String {
    format!("{held} of {bound} connections")
}

/// Where packets for the key go.
fn place(why: &Why) -> String {
    match &why.route {
        Some(KeyPlace::Here) => "is connected to this relay".into(),
        Some(KeyPlace::Relay { relay, address }) => {
            format!("is connected to another relay of the region: {relay} at {address}")
        }
        None => "is connected neither to this relay nor to another one of its region".into(),
    }
}

fn describe(connection: &ListedConnection, text: &mut String) {
    let ListedConnection { received, sent, waiting, .. } = connection;
    let _ = write!(text, "\nconnection {} from {}\n", connection.connection, connection.address);
    line(text, "age", &age(connection.age_seconds));
    line(text, "admitted by", connection.policy.as_deref().unwrap_or("–"));
    line(text, "transport", &connection.transport);
    line(text, "version", &connection.version.map_or_else(|| "–".into(), |version| version.to_string()));
    if !connection.app_name.is_empty() {
        line(text, "app name", &connection.app_name);
    }
    let flags = flags(connection);
    if !flags.is_empty() {
        line(text, "flags", &flags);
    }
    for (name, traffic) in [("received", received), ("sent", sent)] {
        line(text, name, &format!("{}, {}", count(traffic.packets, "packet"), size(traffic.bytes)));
    }
    let bound = size(waiting.bound_bytes);
    line(
        text,
        "waiting",
        &format!("{}, {} of {bound}", count(waiting.packets, "packet"), size(waiting.bytes)),
    );
    let reasons: Vec<_> = connection
        .dropped
        .iter()
        .filter(|(_, packets)| **packets > 0)
        .map(|(reason, packets)| format!("{reason} {packets}"))
        .collect();
    let of_reasons = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join(", ")) };
    line(text, "dropped", &format!("{}{of_reasons}", count(dropped(connection), "packet")));
}

fn line(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "  {name:<22}  {value}");
}
