//! The mesh, where it takes many clients or a look inside: what foreign programs can see of it is in
//! `tests/interop/go/mesh_test.go`.

use std::collections::HashSet;

use towpath_relay_client::{Client, Event};
use towpath_wire::derp::app_name::AppName;
use towpath_wire::derp::frame::GoneReason;
use towpath_wire::derp::info::ClientInfo;
use towpath_wire::derp::mesh::PresentFlags;
use towpath_wire::key::{NodePrivate, NodePublic};

use crate::common::{MeshFiles, Relay, event, mesh_info};

/// More than are announced at a time.
const CLIENTS: usize = 1200;

/// A key made from a number.
fn key(number: usize) -> NodePrivate {
    let mut bytes = [0x77; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    NodePrivate::from_random(bytes)
}

async fn crowd(relay: &Relay) -> Vec<(NodePublic, Client)> {
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let key = key(number);
        clients.push((key.public(), relay.dialer().connect(&key).await.expect("a login")));
    }
    clients
}

async fn watcher(relay: &Relay) -> (NodePublic, Client) {
    let key = NodePrivate::from_random([0xee; 32]);
    let mut client = relay.dialer().with_info(mesh_info()).connect(&key).await.expect("a login");
    client.watch().await.expect("sent");
    (key.public(), client)
}

#[tokio::test]
async fn a_watcher_is_told_of_a_crowd_that_is_there_comes_and_goes() {
    let relay = Relay::start(&MeshFiles::new(1).settings(&[]));
    let mut clients = crowd(&relay).await;
    let (own, mut watcher) = watcher(&relay).await;
    let mut expected: HashSet<_> = clients.iter().map(|(key, _)| *key).chain([own]).collect();
    while !expected.is_empty() {
        match event(&mut watcher).await {
            Event::PeerPresent { peer, address, flags, app_name } => {
                assert!(expected.remove(&peer), "each is announced once");
                assert!(address.is_some());
                let mesh = peer == own;
                assert_eq!(flags, PresentFlags::of(mesh, false, false));
                assert!(app_name.is_empty());
            }
            other => panic!("{other:?}"),
        }
    }
    let left: HashSet<_> = clients.drain(..CLIENTS / 2).map(|(key, _)| key).collect();
    let mut gone = HashSet::new();
    while gone.len() < left.len() {
        match event(&mut watcher).await {
            Event::PeerGone { peer, reason: GoneReason::Disconnected } => {
                assert!(left.contains(&peer) && gone.insert(peer));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(relay.metric("derp_clients_local"), 1 + clients.len() as u64);
}

#[tokio::test]
async fn a_watcher_is_told_the_app_name_that_a_client_states() {
    let relay = Relay::start(&MeshFiles::new(1).settings(&[]));
    let name = |text: &str| AppName::from_bytes(text.as_bytes()).expect("a name");
    let login = async |number: usize, app_name| {
        let (key, info) = (key(number), ClientInfo { version: 2, app_name, ..ClientInfo::default() });
        let client = relay.dialer().with_info(info).connect(&key).await.expect("a login");
        (key.public(), client)
    };
    let (early, _early) = login(1, name("some app")).await;
    let (own, mut watcher) = watcher(&relay).await;
    let mut told = HashSet::new();
    for _ in 0..2 {
        let Event::PeerPresent { peer, app_name, .. } = event(&mut watcher).await else {
            panic!("PeerPresent")
        };
        told.insert((peer, app_name.as_str().to_owned()));
    }
    assert_eq!(told, HashSet::from([(early, "some app".to_owned()), (own, String::new())]));
    for (number, app_name) in [(2, AppName::default()), (3, name(&"x".repeat(32)))] {
        let (key, client) = login(number, app_name).await;
        let Event::PeerPresent { peer, app_name: told, .. } = event(&mut watcher).await else {
            panic!("PeerPresent")
        };
        assert_eq!((peer, told), (key, app_name));
        drop(client);
        assert_eq!(event(&mut watcher).await, Event::PeerGone { peer, reason: GoneReason::Disconnected });
    }
}

#[tokio::test]
async fn a_mesh_key_from_elsewhere_gives_no_rights() {
    let files = MeshFiles::new(1);
    let settings = files.settings(&[]);
    let claims =
        |relay: &Relay, claim: &str| relay.metric(&format!("towpath_mesh_claims_total{{claim=\"{claim}\"}}"));
    for (sources, claim, closed) in [("10.0.0.0/8", "wrong_source", 1), ("127.0.0.0/8", "mesh", 0)] {
        let relay = Relay::start(&format!("{settings}\nmesh.sources = [\"{sources}\"]"));
        let (_, mut watcher) = watcher(&relay).await;
        match watcher.recv().await {
            Ok(Event::PeerPresent { .. }) => assert_eq!(closed, 0, "{sources}"),
            Err(_) => assert_eq!(closed, 1, "{sources}"),
            Ok(other) => panic!("{other:?}"),
        }
        assert_eq!(claims(&relay, claim), 1, "{sources}");
        relay.wait("the reason is counted", |relay| {
            relay.metric("towpath_closed_total{reason=\"not_permitted\"}") == closed
        });
    }
}

#[test]
fn a_relay_is_linked_to_by_the_key_and_the_certificate_that_the_configuration_names() {
    let (own, files, other) = (MeshFiles::new(1), MeshFiles::new(2), MeshFiles::new(3));
    let relay = Relay::start(&files.settings(&[]));
    let address = relay.tls();
    let (entry, other_entry) = (files.peer(address), other.peer(address));
    let [(host, key, pin), (_, other_key, other_pin)] = [&entry, &other_entry].map(|entry| words(entry));
    for (key, pin, failed) in [(other_key, pin, "login"), (key, other_pin, "tls")] {
        let dialling = Relay::start(&own.settings(&[format!("{host} {key} {pin} {address}")]));
        dialling.wait("dialling fails", |relay| {
            relay.metric(&format!("towpath_mesh_dial_failures_total{{step=\"{failed}\"}}")) > 0
        });
        assert_eq!(dialling.metric("towpath_mesh_links"), 0, "{failed}");
    }
    assert_eq!(relay.metric("towpath_mesh_claims_total"), 0, "the key of the mesh was not sent");
    let dialling = Relay::start(&own.settings(&[entry]));
    dialling.wait("the link is up", |relay| relay.metric("towpath_mesh_links") == 1);
}

/// Host, node key and pin of an entry in `mesh.peers`.
fn words(entry: &str) -> (&str, &str, &str) {
    let mut words = entry.split(' ').map(Some).chain(std::iter::repeat(None));
    let mut next = || words.next().flatten().expect("a word");
    (next(), next(), next())
}

#[tokio::test]
async fn what_a_link_has_taught_is_forgotten_with_it_and_learned_anew() {
    let (files_of_one, files_of_other) = (MeshFiles::new(1), MeshFiles::new(2));
    let mut other = Relay::start(&files_of_other.settings(&[]));
    let address = other.tls();
    let one =
        Relay::start(&files_of_one.settings(&[files_of_other.peer(address), files_of_one.peer(address)]));
    one.wait("the link is up", |relay| relay.metric("towpath_mesh_links") == 1);
    assert_eq!(one.metric("towpath_mesh_peers"), 1, "this relay itself is not dialled");
    let (client, _open) = other.client(3).await;
    one.wait("the client is known", |relay| relay.metric("derp_clients_remote") == 1);
    assert_eq!(one.metric("derp_clients_total"), 1);

    other.stop();
    one.wait("the client is forgotten", |relay| relay.metric("derp_clients_remote") == 0);
    assert_eq!(one.metric("towpath_mesh_links"), 0);
    assert!(one.get("/readyz").starts_with("HTTP/1.1 200"), "a relay is ready whatever becomes of others");
    one.wait("it is dialled again", |relay| relay.metric("towpath_mesh_dial_failures_total") > 0);

    let settings = format!("{}\nlisten = \"{address}\"", files_of_other.settings(&[]));
    let again = Relay::start_at(&settings);
    one.wait("the link is up again", |relay| relay.metric("towpath_mesh_links") == 1);
    let (same, _open) = again.client(3).await;
    assert_eq!(same, client);
    one.wait("the client is known again", |relay| relay.metric("derp_clients_remote") == 1);
}
