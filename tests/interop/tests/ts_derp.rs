//! The second implementation of DERP clients, ts_derp, against the relay: over TLS 1.3, upgrading with a POST
//! to an absolute-form target, without fast start.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;
use towpath_interop::Relay;
use ts_derp::frame::{FrameType, NotePreferred, Ping};
use ts_derp::{DefaultClient, Error, IpUsage, ServerConnInfo, TlsValidationConfig};
use ts_keys::{NodeKeyPair, NodePublicKey};

const LIMIT: Duration = Duration::from_secs(5);

/// The largest payload that ts_derp sends and takes: its limit of 64 KiB includes the key.
const LARGEST: usize = 65_536 - 32;

/// A client that has logged in.
struct Peer {
    key: NodePublicKey,
    client: DefaultClient,
}

impl Peer {
    async fn connect(relay: SocketAddr) -> Self {
        Self::connect_as(&NodeKeyPair::random(), relay).await
    }

    async fn connect_as(keys: &NodeKeyPair, relay: SocketAddr) -> Self {
        let SocketAddr::V4(relay) = relay else { panic!("an IPv4 relay") };
        let server = ServerConnInfo {
            hostname: "localhost".to_owned(),
            ipv4: IpUsage::FixedAddr(*relay.ip()),
            ipv6: IpUsage::Disable,
            tls_validation_config: TlsValidationConfig::InsecureForTests,
            https_port: relay.port(),
            stun_port: None,
            stun_only: false,
            supports_port_80: false,
        };
        // `connect` panics when it is refused; the test fails either way.
        let client = soon(DefaultClient::connect([&server], keys)).await.expect("login");
        Self { key: keys.public, client }
    }

    async fn send(&self, to: &Self, packet: &[u8]) {
        self.client.send_one(to.key, packet).await.expect("send");
    }

    /// Receives a packet and demands that it is this one.
    async fn expect(&self, from: &Self, packet: &[u8]) {
        let (source, received) = soon(self.client.recv_one()).await.expect("receive");
        assert_eq!(source, from.key);
        assert!(
            received.as_ref() == packet,
            "got {} bytes that are not the {} expected",
            received.len(),
            packet.len()
        );
    }
}

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(LIMIT, future).await.expect("in time")
}

#[tokio::test]
async fn login_and_packets_both_ways() {
    let relay = Relay::start();
    let (a, b) = (Peer::connect(relay.address()).await, Peer::connect(relay.address()).await);
    a.client.send_frame(&NotePreferred { is_home: 1 }).await.expect("NotePreferred");
    a.send(&b, b"from a").await;
    b.expect(&a, b"from a").await;
    b.send(&a, b"from b").await;
    a.expect(&b, b"from b").await;
    a.send(&a, b"to myself").await;
    a.expect(&a, b"to myself").await;
}

#[tokio::test]
async fn smallest_and_largest_packet() {
    let relay = Relay::start();
    let (a, b) = (Peer::connect(relay.address()).await, Peer::connect(relay.address()).await);
    for size in [0, 1, LARGEST - 1, LARGEST] {
        let packet = vec![0xa5; size];
        a.send(&b, &packet).await;
        b.expect(&a, &packet).await;
    }
}

#[tokio::test]
async fn ten_thousand_packets_each_way_in_order() {
    let relay = Relay::start();
    let (a, b) = (Peer::connect(relay.address()).await, Peer::connect(relay.address()).await);
    tokio::join!(stream(&a, &b, 1_200), stream(&b, &a, 1_300));
}

/// Sends 10,000 numbered packets, of which no more are underway than derper queues, and receives them in order.
async fn stream(from: &Peer, to: &Peer, size: usize) {
    const PACKETS: u32 = 10_000;
    let packet = |n: u32| n.to_be_bytes().into_iter().cycle().take(size).collect::<Vec<u8>>();
    let window = Semaphore::new(32);
    let send = async {
        for n in 0..PACKETS {
            window.acquire().await.expect("never closed").forget();
            from.send(to, &packet(n)).await;
        }
    };
    let receive = async {
        for n in 0..PACKETS {
            to.expect(from, &packet(n)).await;
            window.add_permits(1);
        }
    };
    tokio::join!(send, receive);
}

#[tokio::test]
async fn ping_is_answered() {
    let relay = Relay::start();
    let a = Peer::connect(relay.address()).await;
    a.client.send_frame(&Ping { payload: *b"pingpong" }).await.expect("ping");
    // ts_derp reports a Pong as a frame it did not expect, and goes on.
    let answer = soon(a.client.recv_one()).await;
    assert!(matches!(answer, Err(Error::UnexpectedRecvFrameType(FrameType::Pong))), "{answer:?}");
    a.send(&a, b"go on").await;
    a.expect(&a, b"go on").await;
}

/// ts_derp does not know what to do with a Health frame, and goes on.
#[tokio::test]
async fn a_contested_key_is_survived() {
    let relay = Relay::start();
    if relay.is_stock() {
        return; // derper sends no Health
    }
    let keys = NodeKeyPair::random();
    let first = Peer::connect_as(&keys, relay.address()).await;
    let second = Peer::connect_as(&keys, relay.address()).await;
    for sender in [&first, &second] {
        sender.client.send_frame(&Ping { payload: *b"pingpong" }).await.expect("ping");
        wants(sender, FrameType::Pong).await;
    }
    // The first takes the place of the second one again.
    first.client.send_frame(&Ping { payload: *b"pingpong" }).await.expect("ping");
    wants(&first, FrameType::Health).await;
    wants(&first, FrameType::Pong).await;
    wants(&second, FrameType::Health).await;
    for sender in [&second, &first] {
        sender.send(sender, b"go on").await;
        sender.expect(sender, b"go on").await;
    }
}

/// Demands a frame that ts_derp reports as one that it did not expect.
async fn wants(peer: &Peer, kind: FrameType) {
    let answer = soon(peer.client.recv_one()).await;
    assert!(matches!(answer, Err(Error::UnexpectedRecvFrameType(got)) if got == kind), "{answer:?}");
}

/// ts_derp logs PeerGone and panics when one is short.
#[tokio::test]
async fn peer_gone_is_understood() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
        .with_ansi(false)
        .with_writer({
            let log = log.clone();
            move || log.clone()
        })
        .finish();
    let _guard = tracing_subscriber::util::SubscriberInitExt::set_default(subscriber);

    let relay = Relay::start();
    let (a, b) = (Peer::connect(relay.address()).await, Peer::connect(relay.address()).await);
    a.send(&b, b"hello").await;
    b.expect(&a, b"hello").await;
    let gone = format!("peer={}", a.key);
    drop(a);
    soon(async {
        while !log.has_line_with(&["peer gone from derp server", &gone]) {
            let silence = timeout(Duration::from_millis(20), b.client.recv_one()).await;
            assert!(silence.is_err(), "{silence:?}");
        }
    })
    .await;
    b.send(&b, b"go on").await;
    b.expect(&b, b"go on").await;
}

/// What the crates under test log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn has_line_with(&self, words: &[&str]) -> bool {
        let log = self.0.lock().expect("no panic while held");
        String::from_utf8_lossy(&log).lines().any(|line| words.iter().all(|word| line.contains(word)))
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic while held").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
