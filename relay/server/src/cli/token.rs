//! Tokens: the key of an issuer, tokens made with it, and what a token says.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;
use towpath_relay::{read_token_keys, secret_file, unix_now};
use towpath_relay_proto::token::{Claims, SigningKey, TokenError, read_unverified, write_time};
use towpath_service::command::{Failure, print};
use towpath_service::logs::say;
use towpath_service::visible_path;
use towpath_wire::derp::token::{MAX_TOKEN, Token};
use towpath_wire::key::NodePublic;
use zeroize::Zeroizing;

#[derive(Args, Debug)]
pub(super) struct Tokens {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a signing key for tokens, and prints the public key for tokens.key_file
    Keygen(Keygen),
    /// Makes a token for one node key, and prints it
    Issue(Issue),
    /// Prints what a token says, and whether it is valid. Exits with 1 unless --key-file has verified that it is
    Inspect(Inspect),
}

#[derive(Args, Debug)]
struct Keygen {
    /// The file to create, readable by its owner only. It belongs to the issuer, not to the relay
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Args, Debug)]
struct Issue {
    /// The file with the signing key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The node key that may log in with the token, as `tailscale status --json` has it
    #[arg(long = "for", value_name = "NODEKEY")]
    client: NodePublic,
    /// How long the token is valid: 1m to 3650d
    #[arg(long, value_name = "TIME", value_parser = life)]
    expires: Duration,
    /// The node key of the one relay that the token is for; without it, any relay that accepts the signing key
    #[arg(long, value_name = "NODEKEY")]
    relay: Option<NodePublic>,
}

#[derive(Args, Debug)]
struct Inspect {
    /// The token; - reads it from standard input, where other users of this machine do not see it
    #[arg(value_name = "TOKEN")]
    token: String,
    /// The file with the public keys that relays accept, to verify the signature
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The form for programs
    #[arg(long)]
    json: bool,
}

/// The lives that a token can have.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3650 * 24 * 3600);

/// Reads a time such as `30d`.
fn life(text: &str) -> Result<Duration, String> {
    let seconds = |unit: char| match unit {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3600),
        'd' => Some(24 * 3600),
        _ => None,
    };
    let read = || {
        let unit = text.chars().next_back()?;
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(Duration::from_secs(number.checked_mul(seconds(unit)?)?))
    };
    read()
        .filter(|life| (SHORTEST..=LONGEST).contains(life))
        .ok_or_else(|| "expected 1m to 3650d, a number with s, m, h or d behind it".into())
}

impl Tokens {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Keygen(keygen) => keygen.run(),
            Command::Issue(issue) => issue.run(),
            Command::Inspect(inspect) => inspect.run(),
        }
    }
}

impl Keygen {
    fn run(&self) -> Result<(), Failure> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut()).context("cannot make a key")?;
        let key = SigningKey::from_random(&bytes);
        let mut text = key.to_text();
        text.push('\n');
        secret_file::create(&self.file, text.as_bytes()).map_err(anyhow::Error::from)?;
        print(&format!("{}\n", key.public()))?;
        Ok(())
    }
}

impl Issue {
    fn run(&self) -> Result<(), Failure> {
        let mut warnings = Vec::new();
        let text = secret_file::read_text(&self.key, &mut warnings).map_err(anyhow::Error::from)?;
        for warning in warnings {
            say(&format!("towpath-relay: warning: {warning}"));
        }
        let key: SigningKey = text.parse().with_context(|| visible_path(&self.key))?;
        let issued = unix_now();
        let expires = issued.saturating_add_unsigned(self.expires.as_secs());
        let claims = Claims {
            client: self.client,
            relay: self.relay,
            expires,
            not_before: None,
            issued: Some(issued),
        };
        let token = key.issue(&claims).map_err(anyhow::Error::from)?;
        let line = Zeroizing::new(format!("{}\n", token.as_str()));
        print(&line)?;
        Ok(())
    }
}

/// What is known of a token.
#[derive(Serialize)]
struct Report {
    /// The node key that it is for.
    #[serde(rename = "for")]
    client: String,
    relay: Option<String>,
    issued: Option<String>,
    not_before: Option<String>,
    expires: Option<String>,
    /// The public key that has signed it, if it was verified.
    signed_by: Option<String>,
    /// `None` if that depends on a signature that was not verified.
    valid: Option<bool>,
    /// The label of the reason for which it is not valid.
    reason: Option<&'static str>,
}

impl Inspect {
    fn run(&self) -> Result<(), Failure> {
        let token = self.read().map_err(Failure::Unreadable)?;
        let keys = self.key_file.as_deref().map(read_token_keys).transpose();
        let keys = keys.map_err(|error| Failure::Unreadable(error.into()))?;
        let claims = read_unverified(&token).map_err(|error| Failure::Unreadable(error.into()))?;
        let verified = keys.map(|keys| keys.verify(&token).map(|(_, signer)| signer));
        let signer = verified.and_then(Result::ok);
        let judged = match verified {
            Some(Err(error)) => Err(error),
            _ => claims.check_time(unix_now()),
        };
        let report = Report {
            client: claims.client.to_string(),
            relay: claims.relay.map(|relay| relay.to_string()),
            issued: claims.issued.and_then(write_time),
            not_before: claims.not_before.and_then(write_time),
            expires: write_time(claims.expires),
            signed_by: signer.map(|signer| signer.to_string()),
            valid: match (judged, signer) {
                (Err(_), _) => Some(false),
                (Ok(()), Some(_)) => Some(true),
                (Ok(()), None) => None,
            },
            reason: judged.err().map(TokenError::label),
        };
        if self.json {
            let json = serde_json::to_string_pretty(&report).expect("texts are JSON");
            print(&format!("{json}\n"))?;
        } else {
            print(&report.to_text(judged))?;
        }
        if report.valid == Some(true) { Ok(()) } else { Err(Failure::Wrong) }
    }

    fn read(&self) -> anyhow::Result<Token> {
        let mut text = Zeroizing::new(String::new());
        if self.token == "-" {
            // A token and its line break; what is longer is none.
            let mut input = std::io::stdin().lock().take(2 * MAX_TOKEN as u64);
            input.read_to_string(&mut text).context("cannot read standard input")?;
        } else {
            text.push_str(&self.token);
        }
        Ok(text.trim().parse()?)
    }
}

impl Report {
    fn to_text(&self, judged: Result<(), TokenError>) -> String {
        let or = |text: &Option<String>, otherwise: &str| text.clone().unwrap_or_else(|| otherwise.into());
        let valid = match (judged, self.valid) {
            (Err(error), _) => format!("no: {error}"),
            (Ok(()), Some(_)) => "yes".into(),
            (Ok(()), None) => "not known: --key-file verifies the signature".into(),
        };
        format!(
            "for         {}\nrelay       {}\nissued      {}\nnot before  {}\nexpires     {}\nsigned by   {}\nvalid       {valid}\n",
            self.client,
            or(&self.relay, "any"),
            or(&self.issued, "not stated"),
            or(&self.not_before, "not stated"),
            or(&self.expires, "not stated"),
            or(&self.signed_by, "not verified"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_a_number_with_its_unit() {
        for (text, seconds) in
            [("60s", 60), ("1m", 60), ("36h", 129_600), ("30d", 2_592_000), ("3650d", 315_360_000)]
        {
            assert_eq!(life(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in
            ["", "d", "30", "59s", "3651d", "-1d", "1.5d", "30 d", "30D", "99999999999999999999d", "1€"]
        {
            assert!(life(text).is_err(), "{text}");
        }
    }
}
