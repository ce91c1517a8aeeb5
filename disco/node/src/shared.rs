//! What the tasks of an endpoint share: the state machine, and everything that it drives.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use towpath_disco::datagram::{Received, Region, RelayEvent, Route, Transmit};
use towpath_disco::{Event, Node};
use towpath_wire::key::NodePublic;
use towpath_wire::time::Instant;
use tracing::{debug, info};

use crate::clock::Clock;
use crate::datagrams::{Datagrams, ReceivedDatagrams, ReceivedTrain, Train, count};
use crate::inbox::Inbox;
use crate::interfaces::{Network, NetworkChanges};
use crate::links::Links;
use crate::packets::{PacketSink, Run};
use crate::path::{Path, PathClass};
use crate::ping::Pong;
use crate::stats::{Counters, TrafficCounter, add};
use crate::upnp::Upnp;

/// No deadline.
const NEVER: u64 = u64::MAX;
/// Answers to pings that wait for the calls that have asked.
const PONGS: usize = 64;

/// What is kept of a peer beside the state machine.
#[derive(Debug, Default)]
pub(crate) struct PeerState {
    pub(crate) path: watch::Sender<Path>,
    /// The region over which the peer has introduced itself.
    pub(crate) introduced: watch::Sender<Option<Region>>,
    pub(crate) sent: TrafficCounter,
    pub(crate) received: TrafficCounter,
    /// Since when a direct path is wanted, in nanoseconds of the clock; 0 while it is not, or there is one.
    wanted: AtomicU64,
}

/// What the tasks of an endpoint share.
#[derive(Debug)]
pub(crate) struct Shared {
    clock: Clock,
    node: NodeLock,
    /// When the state machine is to be called, in nanoseconds of the clock, as far as the task that waits for that knows.
    armed: AtomicU64,
    rearm: Notify,
    /// At most one for each address family.
    pub(crate) sockets: Vec<Arc<dyn Datagrams>>,
    pub(crate) links: Links,
    pub(crate) upnp: Upnp,
    pub(crate) inbox: Inbox,
    /// Takes packets in place of the inbox.
    sink: Option<Arc<dyn PacketSink>>,
    peers: RwLock<HashMap<NodePublic, Arc<PeerState>>>,
    pub(crate) counters: Counters,
    /// The regions by which this endpoint is reached.
    pub(crate) homes: watch::Sender<[Option<Region>; 2]>,
    /// Answers to pings.
    pub(crate) pongs: broadcast::Sender<(NodePublic, Pong)>,
    /// The tasks run there, whichever runtime calls.
    runtime: Handle,
    tasks: Mutex<JoinSet<()>>,
}

/// The state machine.
struct NodeLock(Mutex<Node>);

impl std::fmt::Debug for NodeLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Node(..)")
    }
}

impl Shared {
    pub(crate) fn new(
        node: Node,
        clock: Clock,
        sockets: Vec<Arc<dyn Datagrams>>,
        links: Links,
        sink: Option<Arc<dyn PacketSink>>,
        upnp: Upnp,
    ) -> Self {
        Self {
            clock,
            homes: watch::Sender::new(node.homes()),
            node: NodeLock(Mutex::new(node)),
            armed: AtomicU64::new(NEVER),
            rearm: Notify::new(),
            sockets,
            links,
            upnp,
            inbox: Inbox::default(),
            sink,
            peers: RwLock::default(),
            counters: Counters::default(),
            pongs: broadcast::Sender::new(PONGS),
            runtime: Handle::current(),
            tasks: Mutex::default(),
        }
    }

    /// Runs a task until the endpoint ends.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks().spawn_on(task, &self.runtime);
    }

    /// Ends all tasks.
    pub(crate) fn abort(&self) {
        self.inbox.close();
        self.tasks().abort_all();
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the state machine.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Node, Instant) -> T) -> T {
        look(&self.node.0.lock().unwrap_or_else(PoisonError::into_inner), self.clock.now())
    }

    /// Calls the state machine, and does what it wants then.
    pub(crate) fn call<T>(&self, call: impl FnOnce(&mut Node, Instant) -> T) -> T {
        let mut sent = Vec::new();
        let (result, due) = {
            let mut node = self.node.0.lock().unwrap_or_else(PoisonError::into_inner);
            let result = call(&mut node, self.clock.now());
            let mut packet = Vec::new();
            while let Some(transmit) = node.poll_transmit(&mut packet) {
                sent.push((transmit, std::mem::take(&mut packet)));
            }
            // Under the lock, so that nothing is told in another order than it happened.
            while let Some(event) = node.poll_event() {
                self.tell(&event);
            }
            (result, node.poll_timeout())
        };
        let due = due.map_or(NEVER, Instant::as_nanos);
        if due < self.armed.load(Ordering::Acquire) {
            self.rearm.notify_one();
        }
        for (transmit, packet) in sent {
            self.transmit(transmit, packet);
        }
        result
    }

    /// Calls the state machine whenever it is due.
    pub(crate) async fn keep_time(self: Arc<Self>) {
        loop {
            let rearm = self.rearm.notified();
            // A call that finds an earlier deadline from now on says so.
            self.armed.store(NEVER, Ordering::Release);
            let due = self.look(|node, _| node.poll_timeout());
            self.armed.store(due.map_or(NEVER, Instant::as_nanos), Ordering::Release);
            let timer = async {
                match due {
                    Some(due) => sleep_until(self.clock.at(due)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = timer => self.call(|node, now| node.handle_timeout(now)),
                () = rearm => {}
            }
        }
    }

    /// Takes what a socket receives.
    pub(crate) async fn receive(self: Arc<Self>, socket: Arc<dyn Datagrams>) {
        let mut received = ReceivedDatagrams::new();
        loop {
            received.clear();
            match std::future::poll_fn(|cx| socket.poll_recv(cx, &mut received)).await {
                Ok(()) => self.receive_datagrams(&received),
                // An error of an earlier datagram, no memory, or the destruction of the socket by another program, which it survives:
                // none of them lasts.
                Err(error) => {
                    debug!(%error, "cannot receive datagrams");
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            }
        }
    }

    /// Takes datagrams: those of the machine are handled under its lock, those of the application are delivered behind it.
    fn receive_datagrams(&self, received: &ReceivedDatagrams) {
        let runs = self.call(|node, now| {
            let mut runs = Vec::new();
            for train in received.trains() {
                take_runs(&train, &mut runs, |datagram| {
                    node.handle_packet(now, Received::Udp { remote: train.remote }, datagram)
                });
            }
            runs
        });
        self.deliver(&runs);
    }

    /// Delivers packets to the application.
    fn deliver(&self, runs: &[Run<'_>]) {
        let mut delivery = None;
        for run in runs {
            let count = count(run.contents, run.segment);
            if let Some(state) = self.peer(&run.peer) {
                state.received.add(count, run.contents.len());
            }
            self.counters.received(run.via).add(count, run.contents.len());
            match &self.sink {
                Some(sink) => sink.take(run),
                None => {
                    let lost = delivery.get_or_insert_with(|| self.inbox.deliver()).push(run);
                    add(&self.counters.inbox_dropped, lost);
                }
            }
        }
    }

    /// Takes a packet that came over a relay.
    pub(crate) fn receive_relayed(&self, region: Region, peer: NodePublic, packet: &[u8]) {
        let received = Received::Relay { region, peer };
        if self.call(|node, now| node.handle_packet(now, received, packet)).is_some() {
            self.deliver(&[Run { peer, contents: packet, segment: packet.len(), via: PathClass::Relayed }]);
        }
    }

    pub(crate) fn relay_event(&self, event: RelayEvent) {
        self.call(|node, now| node.handle_relay(now, event));
    }

    /// Tells the state machine of the network of this host, and again whenever that changes.
    pub(crate) async fn follow_network(self: Arc<Self>, ignored: Vec<String>, maps_ports: bool) {
        let changes = NetworkChanges::watch();
        let mut before = None;
        loop {
            let network = Network::look(&ignored);
            if before.as_ref() != Some(&network) {
                self.set_network(&network, maps_ports);
                before = Some(network);
            }
            changes.next().await;
        }
    }

    /// Tells the state machine of the network of this host.
    pub(crate) fn set_network(&self, network: &Network, maps_ports: bool) {
        let bound = |socket: SocketAddr| (!socket.ip().is_unspecified()).then(|| socket.ip());
        let endpoints: Vec<_> = self
            .sockets
            .iter()
            .flat_map(|socket| {
                let local = socket.local_addr();
                // A socket that is bound to an address is reached at that one alone.
                network
                    .endpoints(local)
                    .filter(move |endpoint| bound(local).is_none_or(|ip| ip == endpoint.ip()))
            })
            .collect();
        let port = self.sockets.iter().map(|socket| socket.local_addr()).find(SocketAddr::is_ipv4);
        let gateway = port.filter(|_| maps_ports).and_then(|socket| network.gateway(socket.port()));
        debug!(?endpoints, ?gateway, "the network of this host");
        self.call(|node, now| {
            if !node.handle_interfaces(now, &endpoints) {
                node.handle_network_change(now);
            }
            node.handle_gateway(now, gateway);
        });
    }

    /// The ways for packets to a peer, of which the longest has `len` bytes; over a relay in any case if they are `precious`.
    pub(crate) fn route(
        &self,
        peer: &NodePublic,
        state: &PeerState,
        (len, precious): (usize, bool),
    ) -> Route {
        let (route, now) = self.call(|node, now| {
            let route =
                if precious { node.route_both_ways(now, peer, len) } else { node.route(now, peer, len) };
            (route, now)
        });
        if route.direct.is_none() {
            // What has begun to be waited for stays.
            let _ =
                state.wanted.compare_exchange(0, now.as_nanos().max(1), Ordering::Relaxed, Ordering::Relaxed);
        }
        route
    }

    pub(crate) fn peer(&self, key: &NodePublic) -> Option<Arc<PeerState>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// The keys of all peers, in their order.
    pub(crate) fn peers(&self) -> Vec<(NodePublic, Arc<PeerState>)> {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        let mut peers: Vec<_> = peers.iter().map(|(key, state)| (*key, state.clone())).collect();
        peers.sort_by_key(|(key, _)| *key);
        peers
    }

    pub(crate) fn add_peer(&self, key: NodePublic) {
        self.peers.write().unwrap_or_else(PoisonError::into_inner).entry(key).or_default();
    }

    pub(crate) fn remove_peer(&self, key: &NodePublic) {
        self.peers.write().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// The socket for addresses of the family of this one.
    pub(crate) fn socket_for(&self, address: SocketAddr) -> Option<&Arc<dyn Datagrams>> {
        self.sockets.iter().find(|socket| socket.local_addr().is_ipv4() == address.is_ipv4())
    }

    /// Counts datagrams of the application that the system has refused.
    pub(crate) fn count_refused(&self, error: &io::Error, datagrams: usize) {
        let counter = if quinn_udp::is_msg_size_err(error) {
            &self.counters.too_long
        } else {
            &self.counters.send_refused
        };
        add(counter, datagrams);
        debug!(%error, "the system refuses a datagram");
    }

    fn transmit(&self, transmit: Transmit, packet: Vec<u8>) {
        match transmit {
            Transmit::Udp { src, dst, ttl } => {
                let is_lost = self.transmit_datagram(src, dst, ttl, &packet).is_err();
                add(&self.counters.disco_lost, usize::from(is_lost));
            }
            Transmit::Relay { region, peer } => {
                let lost = self.links.get(region).map_or(1, |link| link.push_disco(peer, packet));
                add(&self.counters.disco_lost, lost);
            }
            Transmit::Ping { region } => {
                if let Some(link) = self.links.get(region) {
                    link.push_ping();
                }
            }
            Transmit::Redial { region } => {
                if let Some(link) = self.links.get(region) {
                    link.redial();
                }
            }
            Transmit::Upnp { gateway, request } => self.upnp.order(gateway, request),
        }
    }

    fn transmit_datagram(
        &self,
        source: Option<IpAddr>,
        destination: SocketAddr,
        ttl: Option<u8>,
        packet: &[u8],
    ) -> io::Result<()> {
        let Some(socket) = self.socket_for(destination) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let train = Train { destination, source, contents: packet, segment: packet.len() };
        match ttl {
            Some(ttl) => socket.try_send_dying(&train, ttl),
            None => socket.try_send(&train),
        }
    }

    fn tell(&self, event: &Event) {
        match *event {
            Event::Home { home, standby } => {
                info!(
                    home = home.map(|home| home.0),
                    standby = standby.map(|standby| standby.0),
                    "the home region"
                );
                self.homes.send_replace([home, standby]);
                self.links.keep(home, standby);
            }
            Event::Introduced { peer, region } => {
                debug!(%peer, region = region.0, "the peer has introduced itself over the relay");
                if let Some(state) = self.peer(&peer) {
                    state.introduced.send_replace(Some(region));
                }
            }
            Event::Pong { peer, way, took } => {
                // Without a receiver, nothing waits for it any more.
                let _ = self.pongs.send((peer, Pong { via: way.into(), took }));
            }
            Event::Direct { peer, address } => self.set_path(&peer, Path::Direct { address }),
            Event::Suspected { peer, address } => self.set_path(&peer, Path::Suspected { address }),
            Event::Lossy { peer, address } => self.set_path(&peer, Path::Lossy { address }),
            Event::Relayed { peer } => self.set_path(&peer, Path::Relayed),
        }
    }

    fn set_path(&self, peer: &NodePublic, path: Path) {
        let Some(state) = self.peer(peer) else { return };
        let wanted = if path.is_direct() { state.wanted.swap(0, Ordering::Relaxed) } else { 0 };
        if wanted > 0 {
            self.counters.time_to_direct.note(self.clock.now().since(Instant::from_nanos(wanted)));
        }
        if state.path.send_replace(path) != path {
            log_path(peer, path);
        }
    }
}

/// Adds the datagrams of a train to `runs`, as far as `peer_of` says that they are packets of peers.
fn take_runs<'a>(
    train: &ReceivedTrain<'a>,
    runs: &mut Vec<Run<'a>>,
    mut peer_of: impl FnMut(&[u8]) -> Option<NodePublic>,
) {
    let (via, segment) = (PathClass::of(train.remote), train.segment);
    // The peer, and where its packets begin and end.
    let mut open: Option<(NodePublic, usize, usize)> = None;
    let mut close = |open: Option<(NodePublic, usize, usize)>| {
        runs.extend(open.map(|(peer, begin, end)| {
            let contents = &train.contents[begin..end];
            Run { peer, contents, segment: segment.min(contents.len()), via }
        }));
    };
    let mut begin = 0;
    for datagram in train.datagrams() {
        let end = begin + datagram.len();
        open = match (peer_of(datagram), open) {
            (Some(peer), Some((of, first, _))) if of == peer => Some((peer, first, end)),
            (found, before) => {
                close(before);
                found.map(|peer| (peer, begin, end))
            }
        };
        begin = end;
    }
    close(open);
}

fn log_path(peer: &NodePublic, path: Path) {
    match path {
        Path::Relayed => info!(%peer, "the path goes over a relay: the direct one is given up"),
        Path::Direct { address } => {
            info!(%peer, %address, class = path.class().label(), "the path is direct: a probe was answered");
        }
        Path::Suspected { address } => {
            info!(%peer, %address, "the direct path is suspected: its address is silent, and packets go over the relay as well");
        }
        Path::Lossy { address } => {
            info!(%peer, %address, "the path goes over a relay: the direct one loses too much");
        }
    }
}

#[cfg(test)]
mod tests {
    use towpath_wire::key::NodePrivate;

    use super::*;

    #[test]
    fn packets_of_a_train_make_runs_of_one_peer_without_those_of_the_machine() {
        let [one, other] = [1, 2].map(|seed| NodePrivate::from_random([seed; 32]).public());
        let remote = SocketAddr::from(([192, 0, 2, 1], 7));
        // Each datagram but the last has 3 bytes; the first byte says what it is.
        let train = ReceivedTrain { remote, contents: b"1..1..m..1..2..2.", segment: 3 };
        let mut runs = Vec::new();
        take_runs(&train, &mut runs, |datagram| match datagram[0] {
            b'1' => Some(one),
            b'2' => Some(other),
            _ => None,
        });
        let runs: Vec<_> = runs.iter().map(|run| (run.peer, run.contents, run.segment)).collect();
        assert_eq!(runs, [(one, &b"1..1.."[..], 3), (one, b"1..", 3), (other, b"2..2.", 3)]);
        let mut runs = Vec::new();
        take_runs(&ReceivedTrain { remote, contents: b"", segment: 0 }, &mut runs, |_| Some(one));
        assert_eq!((runs.len(), runs[0].packets().count()), (1, 1), "an empty datagram is a packet");
    }
}
