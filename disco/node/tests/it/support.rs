//! A world for endpoints: relays, NATs, and the endpoints behind them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use towpath::{Builder, Endpoint, NodePrivate, NodePublic, Packets, PeerConfig, Region, RelayMap};
use towpath_live::{Internet, LocalRelay, SimDatagrams, map_of};
use towpath_sim::{Class, Link, Place, Site};

/// How long anything may take that takes milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// The way to the relay of the first region, in each direction, and that between the peers.
pub(crate) const TO_RELAY: Duration = Duration::from_millis(20);
const TO_PEER: Duration = Duration::from_millis(20);
/// The region of the first relay; the second one has the next number.
pub(crate) const HOME: Region = Region(1);

/// An internet with two relays and two sites for peers.
pub(crate) struct Lab {
    pub(crate) internet: Internet,
    running: JoinHandle<()>,
    pub(crate) relays: Vec<LocalRelay>,
    pub(crate) map: RelayMap,
    sites: [Site; 2],
}

/// An endpoint, and the socket that it has.
pub(crate) struct Seat {
    pub(crate) endpoint: Endpoint,
    pub(crate) socket: Arc<SimDatagrams>,
}

pub(crate) fn private(seed: u8) -> NodePrivate {
    NodePrivate::from_random([seed; 32])
}

pub(crate) fn public(seed: u8) -> NodePublic {
    private(seed).public()
}

impl Lab {
    pub(crate) async fn new(seed: u64) -> Self {
        let internet = Internet::new(seed);
        let sites = [internet.add_site(), internet.add_site()];
        internet.set_links(sites[0], sites[1], Link::new(TO_PEER));
        let (mut relays, mut regions) = (Vec::new(), Vec::new());
        for (number, code) in [(1, "near"), (2, "far")] {
            let delay = TO_RELAY * u32::from(number);
            let place = internet.add_site();
            for site in sites {
                internet.set_links(site, place, Link::new(delay));
            }
            let stun: SocketAddr = internet.add_stun(place);
            let relay = LocalRelay::start(Region(number), delay).await.expect("a relay");
            regions.push(relay.region(code, Some(stun)));
            relays.push(relay);
        }
        let map = map_of(regions).expect("a map");
        let running = tokio::spawn(internet.clone().run());
        Self { internet, running, relays, map, sites }
    }

    /// An endpoint behind a NAT of its own at one of the two sites.
    pub(crate) async fn seat(&self, site: usize, class: Class, seed: u8, peer: u8) -> Seat {
        let outside = Place::Internet(self.sites[site]);
        let place = class.nat().map_or(outside, |nat| Place::Behind(self.internet.add_nat(outside, nat)));
        let seat = self.seat_at(place, seed, peer, |builder| builder).await;
        let home = seat.endpoint.online().await.expect("it is open");
        assert_eq!(home, HOME, "the nearest");
        seat
    }

    /// An endpoint with a public address at the first site, and with what `change` makes of it.
    pub(crate) async fn open_seat(
        &self,
        seed: u8,
        peer: u8,
        change: impl FnOnce(Builder) -> Builder,
    ) -> Seat {
        self.seat_at(Place::Internet(self.sites[0]), seed, peer, change).await
    }

    async fn seat_at(
        &self,
        place: Place,
        seed: u8,
        peer: u8,
        change: impl FnOnce(Builder) -> Builder,
    ) -> Seat {
        let socket = Arc::new(self.internet.add_host(public(seed), place));
        let builder = Endpoint::builder()
            .secret_key(private(seed))
            .relay_map(self.map.clone())
            .peer(PeerConfig::new(public(peer)))
            .datagrams(socket.clone());
        let endpoint = change(builder).bind().await.expect("an endpoint");
        Seat { endpoint, socket }
    }

    /// Two endpoints that know each other.
    pub(crate) async fn pair(&self, classes: [Class; 2]) -> [Seat; 2] {
        let [first, second] = classes;
        [self.seat(0, first, 1, 2).await, self.seat(1, second, 2, 1).await]
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// A packet with a number, as long as one of WireGuard.
pub(crate) fn packet(number: u32) -> Vec<u8> {
    let mut packet = vec![4, 0, 0, 0];
    packet.extend_from_slice(&number.to_be_bytes());
    packet.resize(1280, 0);
    packet
}

/// The numbers of the packets that come, until `count` have come.
pub(crate) async fn numbers(endpoint: &Endpoint, count: usize) -> Vec<u32> {
    let (mut numbers, mut packets) = (Vec::new(), Packets::new());
    let receive = async {
        while numbers.len() < count {
            endpoint.recv(&mut packets).await.expect("it is open");
            let number = |bytes: &[u8]| u32::from_be_bytes(*bytes[4..].first_chunk().expect("a number"));
            numbers.extend(packets.iter().map(|packet| number(packet.bytes)));
        }
    };
    tokio::time::timeout(PATIENCE, receive).await.unwrap_or_else(|_| panic!("{count} packets have not come"));
    numbers
}
