//! Carries packets between WireGuard and an endpoint: each peer has a socket on the loopback interface, which WireGuard takes for the
//! peer's.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{self, sleep_until};
use towpath::datagrams::{Datagrams, ReceivedDatagrams, Train, UdpDatagrams, count, cut};
use towpath::{Endpoint, NodePublic, PacketSink, Run, SendError};
use towpath_wire::time::Instant;
use tracing::debug;

use crate::handshake::{Handshakes, Kept, Verdict};
use crate::message::MessageKind;

/// What a carrier has counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CarrierStats {
    /// Pairs of handshakes that began at the same time, of which one was taken out.
    pub crossed_handshakes: u64,
    /// Initiations that were sent once more, because the peer had not been there to take them.
    pub repeated_initiations: u64,
    /// Packets from programs other than WireGuard to the sockets of peers, and packets that are none of WireGuard's. They are lost.
    pub strange: u64,
    /// Packets of WireGuard that no relay was there for. They are lost; an initiation among them is sent as soon as one is.
    pub unsent: u64,
    /// Packets of peers while WireGuard was not there to take them. They are lost.
    pub undelivered: u64,
}

#[derive(Debug, Default)]
struct Counters {
    repeated: AtomicU64,
    strange: AtomicU64,
    unsent: AtomicU64,
    undelivered: AtomicU64,
}

fn add(counter: &AtomicU64, packets: usize) {
    counter.fetch_add(packets as u64, Ordering::Relaxed);
}

/// A peer, as WireGuard sees it.
#[derive(Debug)]
struct Served {
    key: NodePublic,
    socket: UdpDatagrams,
    handshakes: Mutex<Handshakes>,
}

/// This side of a carrier: the sockets that WireGuard takes for its peers, to which an endpoint [delivers](towpath::PacketSink).
#[derive(Debug)]
pub struct LocalSide {
    /// For the tasks that it starts.
    myself: Weak<Self>,
    began: time::Instant,
    /// The port of WireGuard on this host; 0 while it has none.
    port: AtomicU16,
    peers: HashMap<NodePublic, Arc<Served>>,
    counters: Counters,
}

/// A carrier: the tasks between WireGuard and an endpoint. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Carrier {
    _tasks: JoinSet<()>,
}

/// What the tasks of a carrier share.
#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    local: Arc<LocalSide>,
}

impl LocalSide {
    /// Binds a socket for each peer. `own` is the key of this side's WireGuard.
    pub(crate) fn bind(own: &NodePublic, peers: impl Iterator<Item = NodePublic>) -> io::Result<Arc<Self>> {
        let serve = |key| {
            let socket = UdpDatagrams::bind((Ipv4Addr::LOCALHOST, 0).into())?;
            Ok((key, Arc::new(Served { key, socket, handshakes: Mutex::new(Handshakes::new(own, &key)) })))
        };
        let peers = peers.map(serve).collect::<io::Result<HashMap<_, _>>>()?;
        let (port, counters) = (AtomicU16::new(0), Counters::default());
        let began = time::Instant::now();
        Ok(Arc::new_cyclic(|myself| Self { myself: myself.clone(), began, port, peers, counters }))
    }

    /// The addresses that WireGuard has to take for those of the peers.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (NodePublic, SocketAddr)> {
        self.peers.iter().map(|(key, peer)| (*key, peer.socket.local_addr()))
    }

    /// Says at which port of the loopback interface WireGuard is; 0 for none.
    pub(crate) fn set_port(&self, port: u16) {
        self.port.store(port, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> CarrierStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { repeated, strange, unsent, undelivered } = &self.counters;
        CarrierStats {
            crossed_handshakes: self.peers.values().map(|peer| peer.handshakes().crossed).sum(),
            repeated_initiations: read(repeated),
            strange: read(strange),
            unsent: read(unsent),
            undelivered: read(undelivered),
        }
    }

    fn now(&self) -> Instant {
        Instant::from(self.began.elapsed())
    }

    /// The time of the runtime at a time of this clock.
    fn at(&self, time: Instant) -> time::Instant {
        self.began + Duration::from_nanos(time.as_nanos())
    }

    fn wireguard(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.load(Ordering::Relaxed)).into()
    }

    /// Gives WireGuard the initiation that is kept back when its time has come, unless it is taken out before.
    fn give_later(&self, peer: &Arc<Served>) {
        let Some((local, due)) = self.myself.upgrade().zip(peer.handshakes().due()) else { return };
        let peer = peer.clone();
        tokio::spawn(async move {
            sleep_until(local.at(due)).await;
            let kept = peer.handshakes().take_due(Kept::Incoming, local.now());
            if let Some(packet) = kept {
                local.give(&peer, &packet, packet.len());
            }
        });
    }

    /// Sends packets to WireGuard from the socket of a peer.
    fn give(&self, peer: &Served, contents: &[u8], segment: usize) {
        let destination = self.wireguard();
        let most = peer.socket.train_max().saturating_mul(segment);
        for contents in cut(contents, most) {
            let train = Train { destination, source: None, contents, segment };
            let is_given = destination.port() != 0 && give_train(&peer.socket, &train).is_ok();
            if !is_given {
                add(&self.counters.undelivered, count(contents, segment));
            }
        }
    }
}

impl PacketSink for LocalSide {
    fn take(&self, run: &Run<'_>) {
        let Some(peer) = self.peers.get(&run.peer) else { return };
        if is_data(run.contents, run.segment) {
            return self.give(peer, run.contents, run.segment);
        }
        for packet in run.packets() {
            let Some(kind) = MessageKind::of(packet) else {
                add(&self.counters.strange, 1);
                continue;
            };
            let verdict = peer.handshakes().incoming(kind, packet, self.now());
            match verdict {
                Verdict::Pass => self.give(peer, packet, packet.len()),
                Verdict::Keep => self.give_later(peer),
            }
        }
    }
}

impl Served {
    fn handshakes(&self) -> MutexGuard<'_, Handshakes> {
        self.handshakes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Carrier {
    /// Begins to carry packets. The endpoint delivers to `local` and knows its peers.
    pub(crate) fn start(endpoint: Endpoint, local: Arc<LocalSide>) -> Self {
        let shared = Arc::new(Shared { endpoint, local });
        let mut tasks = JoinSet::new();
        tasks.spawn(shared.clone().send_again_at_home());
        for peer in shared.local.peers.values() {
            tasks.spawn(shared.clone().send(peer.clone()));
            tasks.spawn(shared.clone().send_again_to(peer.clone()));
        }
        Self { _tasks: tasks }
    }
}

impl Shared {
    /// Sends to a peer what WireGuard sends to its socket.
    async fn send(self: Arc<Self>, peer: Arc<Served>) {
        let mut received = ReceivedDatagrams::new();
        loop {
            received.clear();
            if let Err(error) = std::future::poll_fn(|cx| peer.socket.poll_recv(cx, &mut received)).await {
                // WireGuard was not there to take an earlier packet.
                debug!(%error, "a socket on the loopback interface tells of an error");
                continue;
            }
            for train in received.trains() {
                let is_wireguard = train.remote == self.local.wireguard();
                if is_wireguard && is_data(train.contents, train.segment) {
                    self.send_run(&peer, train.contents, train.segment).await;
                    continue;
                }
                for packet in train.datagrams() {
                    match MessageKind::of(packet).filter(|_| is_wireguard) {
                        Some(kind) => self.send_message(&peer, kind, packet).await,
                        None => add(&self.local.counters.strange, 1),
                    }
                }
            }
        }
    }

    async fn send_message(self: &Arc<Self>, peer: &Arc<Served>, kind: MessageKind, packet: &[u8]) {
        let verdict = peer.handshakes().outgoing(kind, packet, self.local.now());
        match verdict {
            Verdict::Pass if kind == MessageKind::Data => self.send_run(peer, packet, packet.len()).await,
            // WireGuard sends one that is lost again after five seconds.
            Verdict::Pass => self.send_both_ways(peer, packet).await,
            Verdict::Keep => self.send_later(peer),
        }
    }

    async fn send_both_ways(&self, peer: &Served, packet: &[u8]) {
        let sent = self.endpoint.send_both_ways(&peer.key, packet).await;
        self.note_sent(peer, sent, 1);
    }

    async fn send_run(&self, peer: &Served, contents: &[u8], segment: usize) {
        let sent = self.endpoint.send_run(&peer.key, contents, segment).await;
        self.note_sent(peer, sent, count(contents, segment));
    }

    fn note_sent(&self, peer: &Served, sent: Result<(), SendError>, packets: usize) {
        match sent {
            Ok(()) | Err(SendError::Closed) => {}
            Err(error) => {
                add(&self.local.counters.unsent, packets);
                debug!(peer = %peer.key, %error, "cannot send packets of WireGuard");
            }
        }
    }

    /// Sends the initiation that is kept back when its time has come, unless it is taken out before.
    fn send_later(self: &Arc<Self>, peer: &Arc<Served>) {
        let Some(due) = peer.handshakes().due() else { return };
        let (shared, peer) = (self.clone(), peer.clone());
        tokio::spawn(async move {
            sleep_until(shared.local.at(due)).await;
            let kept = peer.handshakes().take_due(Kept::Outgoing, shared.local.now());
            if let Some(packet) = kept {
                shared.send_both_ways(&peer, &packet).await;
            }
        });
    }

    /// Sends initiations that no relay was there for, as soon as one is.
    async fn send_again_at_home(self: Arc<Self>) {
        if self.endpoint.online().await.is_ok() {
            for peer in self.local.peers.values() {
                self.send_again(peer).await;
            }
        }
    }

    /// Sends an initiation that the peer was not there to take, whenever it comes to a relay.
    async fn send_again_to(self: Arc<Self>, peer: Arc<Served>) {
        let Ok(mut introductions) = self.endpoint.watch_introductions(&peer.key) else { return };
        while introductions.next().await.is_ok() {
            self.send_again(&peer).await;
        }
    }

    async fn send_again(&self, peer: &Served) {
        let again = peer.handshakes().again(self.local.now());
        if let Some(initiation) = again {
            add(&self.local.counters.repeated, 1);
            self.send_both_ways(peer, &initiation).await;
        }
    }
}

/// Whether all packets of a run are encrypted ones, as nearly always.
fn is_data(contents: &[u8], segment: usize) -> bool {
    cut(contents, segment).all(|packet| MessageKind::of(packet) == Some(MessageKind::Data))
}

fn give_train(socket: &UdpDatagrams, train: &Train<'_>) -> io::Result<()> {
    match socket.try_send(train) {
        // It tells of an earlier packet (ICMP): this one has not been sent.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => socket.try_send(train),
        done => done,
    }
}
