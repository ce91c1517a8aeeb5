//! `/bootstrap-dns`: addresses of a few names, for clients whose DNS does not work yet.
//!
//! Every refresh resolves each configured name with the system's resolver. A name that does not resolve keeps the
//! addresses that it had. An unpublished name is answered only if a client asks for it by name. Every other answer
//! is all published names, so that no question reveals other names.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::time::{Instant, sleep_until, timeout_at};
use towpath_wire::sync;
use tracing::warn;

use crate::config::BootstrapDns;

/// How often names are resolved, and how long that may take for all of them, as in derper.
const REFRESH: Duration = Duration::from_secs(600);
const REFRESH_LIMIT: Duration = Duration::from_secs(60);

type NameAddresses = BTreeMap<String, Vec<IpAddr>>;

/// The names, and the addresses that they resolved to.
#[derive(Debug)]
pub(crate) struct Bootstrap {
    names: BootstrapDns,
    answers: RwLock<Arc<Bodies>>,
}

/// The bodies of the answers, ready to send.
#[derive(Debug, Default)]
struct Bodies {
    /// Empty until a name has been resolved.
    published: Bytes,
    unpublished: BTreeMap<String, Bytes>,
}

impl Bootstrap {
    pub(crate) fn new(names: BootstrapDns) -> Self {
        Self { names, answers: RwLock::default() }
    }

    /// Returns the body for a request with this query string.
    pub(crate) fn answer(&self, query: Option<&str>) -> Bytes {
        let answers = sync::read(&self.answers).clone();
        let parameters = query.unwrap_or_default().split('&');
        let name = parameters.filter_map(|parameter| parameter.strip_prefix("q=")).next();
        let unpublished = name.and_then(|name| answers.unpublished.get(name));
        unpublished.unwrap_or(&answers.published).clone()
    }

    /// Resolves the names now and at each refresh, until it is cancelled.
    pub(crate) async fn keep_fresh(&self) {
        let (mut published, mut unpublished) = (NameAddresses::new(), NameAddresses::new());
        loop {
            let start = Instant::now();
            resolve(&self.names.names, &mut published, start + REFRESH_LIMIT).await;
            resolve(&self.names.unpublished_names, &mut unpublished, start + REFRESH_LIMIT).await;
            self.publish(&published, &unpublished);
            sleep_until(start + REFRESH).await;
        }
    }

    fn publish(&self, published: &NameAddresses, unpublished: &NameAddresses) {
        let answers = Bodies {
            published: if published.is_empty() { Bytes::new() } else { json(published) },
            unpublished: unpublished
                .iter()
                .map(|(name, addresses)| (name.clone(), json(&BTreeMap::from([(name, addresses)]))))
                .collect(),
        };
        *sync::write(&self.answers) = Arc::new(answers);
    }
}

async fn resolve(names: &[String], known: &mut NameAddresses, deadline: Instant) {
    for name in names {
        let resolved = timeout_at(deadline, tokio::net::lookup_host((name.as_str(), 0))).await;
        let mut addresses: Vec<_> = match resolved {
            Ok(Ok(resolved)) => resolved.map(|address| address.ip()).collect(),
            Ok(Err(error)) => {
                warn!(name, "bootstrap DNS: cannot resolve a name, keeping its last addresses: {error}");
                continue;
            }
            Err(_) => {
                warn!(name, "bootstrap DNS: a name was not resolved in time, keeping its last addresses");
                continue;
            }
        };
        addresses.sort_unstable();
        addresses.dedup();
        // Each refresh starts with another address, so that not all clients take the same family.
        let mut random = [0; 4];
        if getrandom::fill(&mut random).is_ok() && !addresses.is_empty() {
            let by = u32::from_ne_bytes(random) as usize % addresses.len();
            addresses.rotate_left(by);
        }
        if !addresses.is_empty() {
            known.insert(name.clone(), addresses);
        }
    }
}

/// Returns `value` as JSON with tabs, as Go's `json.MarshalIndent` writes it.
fn json(value: &impl Serialize) -> Bytes {
    let mut body = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    value
        .serialize(&mut serde_json::Serializer::with_formatter(&mut body, formatter))
        .expect("names and addresses are JSON");
    body.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_names_are_told_to_all_and_unpublished_ones_only_by_name() {
        let bootstrap = Bootstrap::new(BootstrapDns::default());
        assert_eq!(bootstrap.answer(Some("q=hidden.example")), "", "nothing is known yet");
        let addresses = |name: &str, ips: &[&str]| {
            (name.to_owned(), ips.iter().map(|ip| ip.parse().expect("an address")).collect::<Vec<_>>())
        };
        let published = NameAddresses::from([
            addresses("a.example", &["192.0.2.1", "2001:db8::1"]),
            addresses("b.example", &["192.0.2.2"]),
        ]);
        let unpublished = NameAddresses::from([
            addresses("hidden.example", &["192.0.2.3"]),
            addresses("other.example", &["192.0.2.4"]),
        ]);
        bootstrap.publish(&published, &unpublished);
        let all = "{\n\t\"a.example\": [\n\t\t\"192.0.2.1\",\n\t\t\"2001:db8::1\"\n\t],\n\t\"b.example\": [\n\t\t\"192.0.2.2\"\n\t]\n}";
        for query in [
            None,
            Some(""),
            Some("q="),
            Some("q=a.example"),
            Some("q=nowhere.example"),
            Some("x=hidden.example"),
            Some("Q=hidden.example"),
        ] {
            assert_eq!(bootstrap.answer(query), all, "{query:?}");
        }
        let hidden = "{\n\t\"hidden.example\": [\n\t\t\"192.0.2.3\"\n\t]\n}";
        for query in ["q=hidden.example", "t=1&q=hidden.example&q=a.example"] {
            assert_eq!(bootstrap.answer(Some(query)), hidden);
        }
    }
}
