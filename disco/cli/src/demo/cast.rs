//! The peers and relays of the demo: two peers behind NATs, and two relays.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use towpath::datagrams::Datagrams;
use towpath::{Endpoint, NodePublic, PeerConfig, Region};
use towpath_live::{Internet, LocalRelay, map_of};
use towpath_relay::identity;
use towpath_sim::{Class, Link, Place, Site};

use super::tap::Tap;
use super::timeline::Timeline;

/// The way between the peers, to the first relay, and to the second one, in each direction.
pub(super) const BETWEEN_PEERS: Duration = Duration::from_millis(20);
pub(super) const TO_RELAYS: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(35)];
/// The names of the peers.
pub(super) const NAMES: [&str; 2] = ["alice", "bob"];
/// How long the start may take.
const START: Duration = Duration::from_secs(10);

/// The two peers and the two relays, and the internet between them.
pub(super) struct Cast {
    pub(super) internet: Internet,
    running: JoinHandle<()>,
    pub(super) relays: [LocalRelay; 2],
    pub(super) sites: [Site; 2],
    pub(super) actors: [Actor; 2],
}

/// A peer.
pub(super) struct Actor {
    pub(super) name: &'static str,
    pub(super) endpoint: Endpoint,
    tap: Arc<Tap>,
    class: Class,
    /// The address of its NAT.
    outside: Option<IpAddr>,
}

impl Cast {
    pub(super) async fn gather(classes: [Class; 2], timeline: &Timeline) -> anyhow::Result<Self> {
        let keys = [identity::random_key()?, identity::random_key()?];
        let publics = [keys[0].public(), keys[1].public()];
        let internet = Internet::new(u64::from_be_bytes(
            *publics[0].as_bytes().first_chunk().context("a key is longer")?,
        ));
        let running = tokio::spawn(internet.clone().run());
        let sites = [internet.add_site(), internet.add_site()];
        internet.set_links(sites[0], sites[1], Link::new(BETWEEN_PEERS));
        let mut regions = Vec::new();
        let mut relays = Vec::new();
        for (number, delay) in (1..).zip(TO_RELAYS) {
            let place = internet.add_site();
            for site in sites {
                internet.set_links(site, place, Link::new(delay));
            }
            let relay = LocalRelay::start(Region(number), delay).await?;
            regions.push(relay.region(&format!("relay {number}"), Some(internet.add_stun(place))));
            relays.push(relay);
        }
        let map = map_of(regions)?;
        let [first, second] = keys;
        let mut actors = Vec::new();
        for (at, key) in [first, second].into_iter().enumerate() {
            let (name, peer, class) = (NAMES[at], NAMES[1 - at], classes[at]);
            let public_place = Place::Internet(sites[at]);
            let nat = class.nat().map(|nat| internet.add_nat(public_place, nat));
            let socket = internet.add_host(publics[at], nat.map_or(public_place, Place::Behind));
            let outside = nat.and_then(|nat| internet.nat_addresses(nat).first().copied());
            let tap = Arc::new(Tap::new(socket, name, peer, timeline.clone()));
            let endpoint = Endpoint::builder()
                .secret_key(key)
                .relay_map(map.clone())
                .peer(PeerConfig::new(publics[1 - at]))
                .datagrams(tap.clone())
                .bind()
                .await?;
            timeout(START, endpoint.online()).await.context("the relays on loopback do not answer")??;
            actors.push(Actor { name, endpoint, tap, class, outside });
        }
        let relays = relays.try_into().map_err(|_| anyhow::anyhow!("there are two relays"))?;
        let actors = actors.try_into().map_err(|_| anyhow::anyhow!("there are two peers"))?;
        Ok(Self { internet, running, relays, sites, actors })
    }

    pub(super) fn keys(&self) -> [NodePublic; 2] {
        [self.actors[0].endpoint.key(), self.actors[1].endpoint.key()]
    }
}

impl Drop for Cast {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Actor {
    /// The name, the key and the place of the peer, in a line.
    pub(super) fn introduction(&self) -> String {
        let key = self.endpoint.key().to_string();
        let (name, local, class) = (self.name, self.tap.local_addr().ip(), self.class);
        let place = match self.outside {
            None => format!("at {local}, a public address"),
            Some(outside) => format!("at {local}, behind a NAT of class {class} at {outside}"),
        };
        format!("  {name:<6} {}…  {place}\n", &key[..16.min(key.len())])
    }
}
