//! A relay of the region that announces keys without end.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use towpath_relay_proto::login::{Login, greet};
use towpath_wire::derp::app_name::AppName;
use towpath_wire::derp::frame::ServerFrame;
use towpath_wire::derp::info::ServerInfo;
use towpath_wire::derp::mesh::PresentFlags;
use towpath_wire::key::NodePublic;
use towpath_wire::pool::BufferPool;

use crate::alone;
use crate::common::{MeshFiles, Relay};
use crate::honest::Pair;
use crate::memory::resident;

/// The keys that the other relay may announce.
const MAX_KEYS: usize = 50_000;
/// What one key costs at most. The registry has 32 bytes of key, the routes and their forwarder (200 bytes with
/// the heads of their allocations) and the link 32 bytes in its set. Both tables are at least 7/16 full.
const KEY: usize = 512;
/// Keys in one write of the announcing relay.
const AT_ONCE: usize = 500;

/// The stream of a link, from the side of the relay that was dialled.
type Stream = towpath_tls::Stream<tokio::net::TcpStream, towpath_tls::Server>;

/// Takes the next link of a relay that dials the one with `files`, up to the ServerInfo.
async fn take_link(listener: &TcpListener, files: &MeshFiles) -> Stream {
    let (socket, _) = listener.accept().await.expect("the relay dials");
    let mut stream = Stream::accept(socket, files.tls()).await.expect("a handshake");
    let mut received = Vec::new();
    while !received.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut received).await.expect("a request"), 0);
    }
    let mut answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\n\r\n".to_vec();
    greet(&files.node_key().public(), &mut answer);
    write(&mut stream, &answer).await.expect("the relay reads");
    let (mut login, mut pool) = (Login::default(), BufferPool::default());
    let introduction = loop {
        received.clear();
        assert_ne!(stream.read_buf(&mut received).await.expect("a login"), 0);
        let next = login.next(&mut &received[..], files.node_key(), &mut pool).expect("a login");
        if let Some(introduction) = next {
            break introduction;
        }
    };
    let nonce = [9; 24];
    let sealed = ServerInfo { rate: 0, burst: 0 }.seal(&introduction.shared, &nonce);
    answer.clear();
    ServerFrame::ServerInfo { nonce: &nonce, sealed: &sealed }.encode(&mut answer);
    write(&mut stream, &answer).await.expect("the relay reads");
    stream
}

async fn write(stream: &mut Stream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Announces the keys with these numbers.
async fn announce(stream: &mut Stream, numbers: std::ops::Range<usize>) -> std::io::Result<()> {
    let mut frames = Vec::new();
    for number in numbers {
        let mut bytes = [0x3c; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        let peer = NodePublic::from_bytes(bytes);
        let (flags, app_name) = (PresentFlags::REGULAR, AppName::default());
        ServerFrame::PeerPresent { peer, address: None, flags, app_name }.encode(&mut frames);
    }
    write(stream, &frames).await
}

/// Announces new keys until the relay closes. Returns how many keys were sent.
async fn announce_without_end(stream: &mut Stream, from: usize) -> usize {
    let mut next = from;
    while next < 40 * MAX_KEYS && announce(stream, next..next + AT_ONCE).await.is_ok() {
        next += AT_ONCE;
    }
    next
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_announces_keys_without_end_costs_what_its_bound_says_and_is_closed() {
    let _alone = alone().await;
    let (files, other) = (MeshFiles::new(1), MeshFiles::new(2));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let peer = other.peer(listener.local_addr().expect("an address"));
    let settings = format!("{}\nmesh.max_keys = {MAX_KEYS}", files.settings(&[peer]));
    let relay = Relay::start(&settings);
    let mut link = take_link(&listener, &other).await;
    let mut pair = Pair::new(&relay).await;
    pair.exchange(100).await;
    let closed = |relay: &Relay| relay.metric("towpath_closed_total{reason=\"mesh_keys\"}");

    let before = resident();
    for first in (0..MAX_KEYS).step_by(AT_ONCE) {
        announce(&mut link, first..first + AT_ONCE).await.expect("the relay reads");
    }
    relay.wait("it knows all of them", |relay| relay.metric("derp_clients_remote") == MAX_KEYS as u64);
    let cost = resident().saturating_sub(before);
    assert!(cost <= MAX_KEYS * KEY, "{MAX_KEYS} keys cost {cost} bytes");
    assert_eq!((closed(&relay), relay.metric("towpath_mesh_links")), (0, 1));
    pair.exchange(100).await;

    let (sent, ()) = tokio::join!(announce_without_end(&mut link, MAX_KEYS), pair.exchange(100));
    assert!(sent < 40 * MAX_KEYS, "the relay never closes");
    relay.wait("the link is closed", |relay| closed(relay) == 1);
    relay.wait("its keys are forgotten", |relay| relay.metric("derp_clients_remote") == 0);
    assert_eq!(relay.metric("towpath_mesh_links"), 0);
    pair.exchange(100).await;
}
