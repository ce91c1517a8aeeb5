//! The bounds of accounts, and which connection loses its place.

use std::hash::RandomState;
use std::mem::size_of;
use std::net::Ipv4Addr;
use std::sync::Arc;

use towpath_wire::host::Host;
use towpath_wire::key::NodePublic;

use super::connections::{ConnectionBounds, Connections, Seat};
use super::places::{Place, PlaceBounds, Places, Taken};
use super::{Exceeded, Origin};

fn client(address: &str) -> Origin {
    Origin::Client(Host::of(address.parse().expect("an address")))
}

fn proxy(address: &str) -> Origin {
    Origin::Proxy(Host::of(address.parse().expect("an address")))
}

fn key(number: u64) -> NodePublic {
    let mut bytes = [1; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    NodePublic::from_bytes(bytes)
}

/// A table whose handles are the numbers of the connections, and the places that are held.
struct Pending {
    places: Arc<Places<u64>>,
    held: Vec<Place<u64>>,
}

impl Pending {
    fn new(all: usize, per_host: usize) -> Self {
        Self { places: Arc::new(Places::new(PlaceBounds { all, per_host })), held: Vec::new() }
    }

    /// Takes a place for the next number, and returns which numbers are displaced.
    fn take(&mut self, origin: Origin) -> Result<Vec<u64>, Exceeded> {
        let id = self.held.len() as u64;
        let Taken { place, displaced } = self.places.take(id, origin, id)?;
        self.held.push(place);
        Ok(displaced)
    }

    fn hear(&self, id: usize) {
        self.held[id].hear();
    }
}

#[test]
fn new_bounds_hold_for_the_next_connection_and_those_that_are_there_stay() {
    let mut pending = Pending::new(2, 2);
    for address in ["192.0.2.1", "192.0.2.2"] {
        assert_eq!(pending.take(client(address)), Ok(vec![]));
    }
    pending.places.set_bounds(PlaceBounds { all: 3, per_host: 1 });
    assert_eq!(pending.take(client("192.0.2.3")), Ok(vec![]));
    pending.hear(2);
    assert_eq!(pending.take(client("192.0.2.3")), Err(Exceeded::PendingOfSource));
    let accounts = connections(4, 4);
    let seat = |address| accounts.take(client(address), || false);
    let held = [seat("192.0.2.1"), seat("192.0.2.1")].map(|seat| seat.expect("there is room"));
    let bounds = |all, per_host| ConnectionBounds { all, per_host, per_key: 8 };
    accounts.set_bounds(bounds(4, 1));
    assert_eq!(seat("192.0.2.1").map(|_| ()), Err(Exceeded::ConnectionsOfSource));
    accounts.set_bounds(bounds(1, 4));
    assert_eq!(seat("192.0.2.2").map(|_| ()), Err(Exceeded::Connections));
    assert_eq!(accounts.len(), held.len());
}

#[test]
fn the_oldest_silent_connection_of_the_prefix_with_the_most_is_displaced() {
    let mut pending = Pending::new(5, 5);
    for address in ["192.0.2.9", "192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.9"] {
        assert_eq!(pending.take(client(address)), Ok(vec![]));
    }
    pending.hear(1);
    assert_eq!(
        pending.take(client("192.0.2.7")),
        Ok(vec![2]),
        "1 has sent something and 0 is of another host"
    );
    assert_eq!(
        pending.take(client("192.0.2.1")),
        Ok(vec![0]),
        "of two hosts with two, the oldest silent one"
    );
    assert_eq!(pending.take(client("192.0.2.8")), Ok(vec![3]), "three of 192.0.2.1 again");
    pending.hear(6);
    assert_eq!(pending.take(client("192.0.2.6")), Ok(vec![1]), "no silent one of the host with the most");
}

#[test]
fn a_customer_with_many_64s_is_one_and_may_hold_more_than_a_host() {
    let mut pending = Pending::new(8, 100);
    for address in ["192.0.2.1", "192.0.2.1", "192.0.2.1"] {
        assert_eq!(pending.take(client(address)), Ok(vec![]));
    }
    for net in 0..5 {
        assert_eq!(pending.take(client(&format!("2001:db8:7:{net}::1"))), Ok(vec![]));
    }
    assert_eq!(pending.take(client("192.0.2.7")), Ok(vec![0]), "five of a /56 are less than three of a host");
    let mut pending = Pending::new(9, 100);
    for address in ["192.0.2.1", "192.0.2.1"] {
        assert_eq!(pending.take(client(address)), Ok(vec![]));
    }
    for net in 0..7 {
        assert_eq!(pending.take(client(&format!("2001:db8:7:{net}::1"))), Ok(vec![]));
    }
    assert_eq!(pending.take(client("192.0.2.7")), Ok(vec![2]), "seven of a /56 are more than two of a host");
}

#[test]
fn a_prefix_at_its_bound_loses_its_own_silent_connections_and_else_is_refused() {
    let mut pending = Pending::new(100, 2);
    assert_eq!(pending.take(client("192.0.2.1")), Ok(vec![]));
    assert_eq!(pending.take(client("192.0.2.1")), Ok(vec![]));
    assert_eq!(pending.take(client("::ffff:192.0.2.1")), Ok(vec![0]));
    pending.hear(1);
    pending.hear(2);
    assert_eq!(pending.take(client("192.0.2.1")), Err(Exceeded::PendingOfSource));
    assert_eq!(pending.take(client("192.0.2.2")), Ok(vec![]), "another host");
    drop(pending.held.swap_remove(1));
    let again = pending.places.take(10, client("192.0.2.1"), 10).expect("a place is free");
    assert!(again.displaced.is_empty());
}

#[test]
fn a_connection_that_has_sent_something_keeps_its_place_in_a_prefix_at_its_bound() {
    let mut pending = Pending::new(100, 2);
    assert_eq!(pending.take(client("192.0.2.1")), Ok(vec![]));
    assert_eq!(pending.take(client("192.0.2.1")), Ok(vec![]));
    pending.hear(0);
    assert_eq!(pending.take(client("192.0.2.1")), Ok(vec![1]), "0 is older, and has sent something");
}

#[test]
fn a_56_has_the_places_of_two_hosts_and_a_48_those_of_four() {
    for (net, bound) in [(1, 4), (0x100, 8)] {
        let mut pending = Pending::new(100, 2);
        for n in 0..bound {
            assert_eq!(pending.take(client(&format!("2001:db8:0:{:x}::1", n * net))), Ok(vec![]));
            pending.hear(n);
        }
        let refused = pending.take(client(&format!("2001:db8:0:{:x}::1", bound * net)));
        assert_eq!(refused, Err(Exceeded::PendingOfSource), "{bound}");
        assert_eq!(pending.take(client("2001:db8:1::1")), Ok(vec![]));
    }
}

#[test]
fn a_proxy_has_no_bound_of_its_own_and_a_named_client_has() {
    let mut pending = Pending::new(100, 2);
    for _ in 0..10 {
        assert_eq!(pending.take(proxy("10.0.0.1")), Ok(vec![]));
    }
    for id in 0..3 {
        pending.hear(id);
    }
    let named = client("192.0.2.1");
    assert_eq!(pending.held[0].charge_to(named), Ok(vec![]));
    assert_eq!(pending.held[1].charge_to(named), Ok(vec![]));
    assert_eq!(pending.held[0].charge_to(named), Ok(vec![]), "it is not counted twice");
    assert_eq!(pending.held[2].charge_to(named), Err(Exceeded::PendingOfSource));
    assert_eq!(
        pending.take(client("10.0.0.1")),
        Ok(vec![]),
        "a client at the proxy's address is not the proxy"
    );
}

#[test]
fn silent_connections_of_a_proxy_are_displaced_like_those_of_a_client() {
    let mut pending = Pending::new(4, 2);
    for _ in 0..4 {
        assert_eq!(pending.take(proxy("10.0.0.1")), Ok(vec![]));
    }
    pending.hear(0);
    assert_eq!(pending.take(proxy("10.0.0.1")), Ok(vec![1]));
    assert_eq!(pending.take(client("192.0.2.1")), Ok(vec![2]));
}

#[test]
fn a_silent_connection_is_found_beside_a_greater_crowd_that_has_spoken() {
    let mut pending = Pending::new(100, 100);
    for address in ["192.0.2.1", "192.0.2.1", "192.0.2.2"] {
        assert_eq!(pending.take(client(address)), Ok(vec![]));
    }
    pending.hear(0);
    pending.hear(1);
    assert_eq!(pending.places.displace_silent(), Some(2));
    assert_eq!(pending.places.displace_silent(), None);
}

#[test]
fn a_table_is_crowded_above_half() {
    let mut pending = Pending::new(4, 4);
    for (taken, crowded) in [(1, false), (2, false), (3, true)] {
        assert_eq!(pending.take(client("192.0.2.1")), Ok(vec![]));
        assert_eq!(pending.places.are_crowded(), crowded, "{taken}");
    }
    pending.held.clear();
    assert!(!pending.places.are_crowded());
}

fn connections(all: usize, per_host: usize) -> Arc<Connections> {
    Arc::new(Connections::new(ConnectionBounds { all, per_host, per_key: 8 }, RandomState::new()))
}

fn take(connections: &Arc<Connections>, origin: Origin) -> Result<Seat, Exceeded> {
    connections.take(origin, || false)
}

fn refusal(connections: &Arc<Connections>, origin: Origin) -> Option<Exceeded> {
    take(connections, origin).err()
}

#[test]
fn seats_are_given_back_and_idle_ones_cost_16_bytes() {
    assert_eq!(size_of::<Seat>(), 16);
    let connections = connections(100, 2);
    let seats =
        [client("192.0.2.1"), client("192.0.2.1")].map(|origin| take(&connections, origin).expect("a seat"));
    assert_eq!(refusal(&connections, client("192.0.2.1")), Some(Exceeded::ConnectionsOfSource));
    assert_eq!(refusal(&connections, client("192.0.2.2")), None);
    drop(seats);
    assert!(connections.is_empty());
    assert_eq!(refusal(&connections, client("192.0.2.1")), None);
}

#[test]
fn at_the_bound_of_the_process_another_has_to_make_room() {
    let connections = connections(2, 2);
    let _seats =
        ["192.0.2.1", "192.0.2.2"].map(|address| take(&connections, client(address)).expect("a seat"));
    assert_eq!(refusal(&connections, client("192.0.2.3")), Some(Exceeded::Connections));
    // Those that are displaced have not left yet. Only so many may be on their way.
    let seats: Vec<_> = (0..100)
        .map_while(|n| connections.take(client(&Ipv4Addr::from_bits(n).to_string()), || true).ok())
        .collect();
    assert_eq!(seats.len(), 64);
}

#[test]
fn the_connections_of_a_proxy_are_charged_to_the_clients_that_it_names() {
    let connections = connections(100, 2);
    let mut seats: Vec<_> = (0..4).map(|_| take(&connections, proxy("10.0.0.1")).expect("a seat")).collect();
    let named = client("192.0.2.1");
    for seat in &mut seats[..2] {
        assert_eq!(seat.charge_to(named), Ok(()));
    }
    assert_eq!(seats[2].charge_to(named), Err(Exceeded::ConnectionsOfSource));
    assert_eq!(
        seats[0].charge_to(client("192.0.2.2")),
        Ok(()),
        "a proxy uses a connection for several clients"
    );
    assert_eq!(seats[2].charge_to(named), Ok(()));
    assert_eq!(seats[1].charge_to(proxy("10.0.0.1")), Ok(()));
    assert_eq!(refusal(&connections, named), None);
    assert_eq!(connections.len(), 4);
    drop(seats);
    assert!(connections.is_empty());
}

/// Logs in with each of these keys from one address, and returns the connections that found room.
fn log_in(connections: &Arc<Connections>, keys: impl IntoIterator<Item = u64>) -> Vec<Seat> {
    let admitted = keys.into_iter().map_while(|number| {
        let mut seat = take(connections, client("192.0.2.1")).ok()?;
        seat.admit(&key(number));
        Some(seat)
    });
    admitted.collect()
}

#[test]
fn a_shared_address_holds_more_with_each_key_and_one_key_does_not_lock_the_others_out() {
    let connections = connections(10_000, 100);
    let one_key = log_in(&connections, std::iter::repeat_n(0, 10_000));
    assert_eq!(one_key.len(), 108, "one key counts once");
    drop(one_key);
    let many = log_in(&connections, 0..10_000);
    assert_eq!(many.len(), 5_000, "up to half of the process");
    assert_eq!(refusal(&connections, client("192.0.2.1")), Some(Exceeded::ConnectionsOfSource));
    assert_eq!(refusal(&connections, client("192.0.2.2")), None);
    drop(many);
    let many = log_in(&connections, 0..500);
    // A neighbour that uses as many connections of each key as a key may have takes no room from the others.
    let neighbour = log_in(&connections, (1000..1100).flat_map(|key| std::iter::repeat_n(key, 8)));
    assert_eq!((many.len(), neighbour.len()), (500, 800));
    assert_eq!(log_in(&connections, 500..600).len(), 100);
    drop((many, neighbour));
    // The accounts of an address without connections are forgotten, and with them its keys.
    let stays = log_in(&connections, [0]);
    drop(log_in(&connections, 1..1000));
    let again = log_in(&connections, std::iter::repeat_n(0, 10_000));
    assert_eq!(stays.len() + again.len(), 108, "keys that have left do not count");
}
