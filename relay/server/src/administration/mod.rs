//! Administration: what an operator may ask of a running relay on its socket, and what the relay answers.
//!
//! | request | answer |
//! |---|---|
//! | `GET /clients` | every connection ([`schema::Clients`]) |
//! | `GET /why?key=…` | what the relay knows of a key ([`schema::Why`]) |
//! | `POST /kick?key=…` | closes the connections of a key ([`schema::Kicked`]) |
//!
//! What is wrong with a request is told by [`schema::Mistake`]. The answers are made on the thread of administration, and ask
//! the workers of the data plane by their inboxes: see `towpath_relay_forward::DataPlane::list`.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use hyper::{Method, StatusCode};
use serde::Serialize;
use tokio::sync::{Mutex, mpsc};
use towpath_relay_forward::{DataPlane, RouteKey};
use towpath_relay_proto::account::connections::Holding;
use towpath_relay_proto::session::Close;
use towpath_service::admin::{AdminListeners, AdminSocket, Call, OperationAnswer, Operations, Parts};
use towpath_wire::host::Host;
use towpath_wire::key::NodePublic;
use tracing::info;

use crate::admission::Engine;
use crate::bind_error::BindError;
use crate::config::AdminSettings;
use crate::control::Accounts;
use crate::socket::listen;
use crate::start_error::StartError;

mod listing;
pub mod schema;

use schema::{KeyPlace, Kicked, ListedConnection, Mistake, Refused, SourceAccount, Why};

/// Binds what the settings name.
pub(crate) fn bind(settings: &AdminSettings) -> Result<AdminListeners, StartError> {
    let tcp = |address| listen(address).map_err(|error| BindError::tcp("admin", address, error));
    Ok(AdminListeners {
        tcp: settings.listen.map(tcp).transpose()?,
        clients: settings.clients.clone(),
        hosts: settings.hosts.clone(),
        socket: settings.socket.as_deref().map(AdminSocket::bind).transpose()?,
    })
}

/// What an operator may ask of a relay.
#[derive(Debug)]
pub(crate) struct Administration {
    pub(crate) plane: Arc<DataPlane>,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) engine: Arc<Engine>,
    /// Held while a page of a listing is made, so that a worker has one to make at a time however many listings there are.
    pub(crate) listing: Arc<Mutex<()>>,
}

impl Operations for Administration {
    fn answer<'a>(
        &'a self,
        call: &'a Call,
    ) -> Pin<Box<dyn Future<Output = Option<OperationAnswer>> + Send + 'a>> {
        Box::pin(async move {
            Some(match (&call.method, &*call.path) {
                (&Method::GET, "/clients") => self.clients(),
                (&Method::GET, "/why") => match key(call) {
                    Ok(key) => json(StatusCode::OK, &self.why(key).await),
                    Err(mistake) => json(StatusCode::BAD_REQUEST, &mistake),
                },
                (&Method::POST, "/kick") => match key(call) {
                    Ok(key) => json(StatusCode::OK, &self.kick(key)),
                    Err(mistake) => json(StatusCode::BAD_REQUEST, &mistake),
                },
                (_, "/clients" | "/why") => wrong_method("GET"),
                (_, "/kick") => wrong_method("POST"),
                _ => return None,
            })
        })
    }
}

impl Administration {
    fn clients(&self) -> OperationAnswer {
        let (pieces, parts) = mpsc::channel(1);
        let (plane, listing) = (self.plane.clone(), self.listing.clone());
        tokio::spawn(async move {
            if let Err(error) = listing::write(&plane, &listing, &pieces).await {
                // The reader may be gone, too.
                let _ = pieces.send(Err(error)).await;
            }
        });
        OperationAnswer { status: StatusCode::OK, parts: Parts::Stream(parts), allow: None }
    }

    fn kick(&self, key: NodePublic) -> Kicked {
        let closed = self.plane.close(&key.into(), Close::Kicked);
        if closed > 0 {
            info!(peer = ?key, connections = closed, "closing the connections of a key, as an operator has asked");
        }
        Kicked { key: key.to_string(), closed }
    }

    async fn why(&self, key: NodePublic) -> Why {
        let route_key = RouteKey::from(key);
        let (send, mut reports) = mpsc::unbounded_channel();
        self.plane.inspect(&route_key, move |report| {
            // The reader may be gone.
            let _ = send.send(report);
        });
        let (mut connections, mut sources) = (Vec::new(), Vec::new());
        while let Some(report) = reports.recv().await {
            sources.push(report.address.ip());
            connections.push(ListedConnection::from(&report));
        }
        let refusal = self.engine.last_refusal(&key).map(|(last, age)| {
            sources.push(last.source);
            Refused::new(&last, age)
        });
        connections.sort_by_key(|connection| connection.connection);
        Why {
            key: key.to_string(),
            route: self.plane.route(&route_key).map(KeyPlace::from),
            connections,
            max_connections_per_key: self.plane.max_connections_per_key(),
            sources: accounts_of(sources, |host| self.accounts.holdings(host)),
            refusal,
        }
    }
}

/// The accounts of the prefixes that these addresses are in, each prefix once.
fn accounts_of(sources: Vec<IpAddr>, holdings: impl Fn(Host) -> Vec<Holding>) -> Vec<SourceAccount> {
    let mut accounts: Vec<SourceAccount> = Vec::new();
    for source in sources {
        for holding in holdings(Host::of(source)) {
            let account = SourceAccount::new(source, holding);
            // What a prefix holds may have changed since it was listed.
            if accounts.iter().all(|known| known.prefix != account.prefix) {
                accounts.push(account);
            }
        }
    }
    accounts
}

/// The key that a request names: `key=` and a node key, with or without its prefix.
fn key(call: &Call) -> Result<NodePublic, Mistake> {
    let text = call.query.split('&').find_map(|pair| pair.strip_prefix("key=")).unwrap_or_default();
    let text = text.replace("%3A", ":").replace("%3a", ":");
    let key = text.parse().ok().or_else(|| NodePublic::from_hex(&text));
    key.ok_or_else(|| Mistake { error: "key must be nodekey: and 64 hexadecimal digits".into() })
}

fn wrong_method(method: &'static str) -> OperationAnswer {
    let mistake = Mistake { error: format!("only {method}") };
    OperationAnswer { allow: Some(method), ..json(StatusCode::METHOD_NOT_ALLOWED, &mistake) }
}

fn json(status: StatusCode, answer: &impl Serialize) -> OperationAnswer {
    let text = serde_json::to_string(answer).expect("texts, numbers and lists of them can be written");
    OperationAnswer { status, parts: Parts::Whole(text + "\n"), allow: None }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use towpath_wire::host::PrefixWidth;

    use super::*;

    #[test]
    fn the_listener_has_the_clients_and_the_hosts_of_the_settings() {
        let settings = AdminSettings {
            listen: Some(([127, 0, 0, 1], 0).into()),
            clients: vec!["198.51.100.0/24".parse().expect("a prefix")],
            hosts: vec!["metrics.example".into()],
            socket: None,
        };
        let listeners = bind(&settings).expect("a port is free");
        assert!(listeners.tcp.is_some() && listeners.socket.is_none());
        assert_eq!((listeners.clients, listeners.hosts), (settings.clients, settings.hosts));
    }

    #[test]
    fn each_prefix_is_listed_once_also_while_connections_come() {
        let connections = Cell::new(0);
        let holdings = |_| {
            let holding = |width| {
                connections.set(connections.get() + 1);
                Holding { width, connections: connections.get(), bound: 9 }
            };
            vec![holding(PrefixWidth::Host), holding(PrefixWidth::Net48)]
        };
        let sources = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"];
        let sources = sources.map(|source| source.parse().expect("an address")).into();
        let listed: Vec<_> = accounts_of(sources, holdings)
            .into_iter()
            .map(|account| (account.prefix, account.connections))
            .collect();
        let expected = [("2001:db8::/64", 1), ("2001:db8::/48", 2), ("2001:db8:0:1::/64", 5)];
        assert_eq!(listed, expected.map(|(prefix, connections)| (prefix.to_owned(), connections)));
    }
}
