//! Keys as an operator gives them: whole, or as far as they are unambiguous.

use anyhow::{anyhow, bail};
use towpath_relay::administration::schema::{Clients, OtherEnd};
use towpath_service::admin::ask::AskedService;
use towpath_service::command::Failure;
use towpath_wire::key::NodePublic;

/// The fewest digits by which a key may be given.
const FEWEST_DIGITS: usize = 6;

/// A node key: whole, the beginning of it, or the short form of logs.
#[derive(Clone, Debug)]
pub(super) struct KeyText(String);

/// Reads any text: whether it is a key is known once the connections are.
impl From<&str> for KeyText {
    fn from(text: &str) -> Self {
        Self(text.trim().into())
    }
}

impl KeyText {
    /// Whether `key`, which is `nodekey:` and 64 digits, is meant.
    pub(super) fn means(&self, key: &str) -> bool {
        if self.0.starts_with('[') {
            return key.parse::<NodePublic>().is_ok_and(|key| format!("{key:?}") == self.0);
        }
        let digits = self.0.strip_prefix("nodekey:").unwrap_or(&self.0).to_ascii_lowercase();
        key.strip_prefix("nodekey:").is_some_and(|key| key.starts_with(&digits))
    }

    fn whole(&self) -> Option<NodePublic> {
        self.0.parse().ok().or_else(|| NodePublic::from_hex(&self.0))
    }

    /// The key that is meant. Part of a key is looked up among the clients of the relay.
    pub(super) fn resolve(&self, relay: &AskedService) -> Result<NodePublic, Failure> {
        if let Some(key) = self.whole() {
            return Ok(key);
        }
        let is_short = self.0.starts_with('[') && self.0.ends_with(']');
        let digits = self.0.strip_prefix("nodekey:").unwrap_or(&self.0);
        let are_digits =
            digits.len() >= FEWEST_DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        if !is_short && !are_digits {
            return Err(Failure::Unreadable(anyhow!(
                "a key is nodekey: and 64 hexadecimal digits, the first {FEWEST_DIGITS} of them or more, or the short form of the \
                 log, as in [AbCdE]"
            )));
        }
        Ok(self.among(&relay.ask::<Clients>("GET", "/clients")?)?)
    }

    /// Links are left out: no request by key concerns them.
    fn among(&self, clients: &Clients) -> anyhow::Result<NodePublic> {
        let clients = clients.connections.iter().filter(|connection| connection.kind == OtherEnd::Client);
        let mut keys: Vec<&str> = clients.map(|connection| &*connection.key).collect();
        keys.retain(|key| self.means(key));
        keys.sort_unstable();
        keys.dedup();
        match keys[..] {
            [key] => Ok(key.parse()?),
            [] => bail!("no client has a key that begins with {}; give the whole key", self.0),
            _ => bail!("{} keys begin with {}; give more of it", keys.len(), self.0),
        }
    }
}
