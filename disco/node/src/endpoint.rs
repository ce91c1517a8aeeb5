//! An endpoint: packets to and from peers that are named by their keys.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use towpath_disco::datagram::{Region, Route};
use towpath_disco::{PeerConfig, Why};
use towpath_wire::disco::datagram::DatagramKind;
use towpath_wire::disco::key::DiscoPublic;
use towpath_wire::key::NodePublic;

use crate::builder::Builder;
use crate::datagrams::{Datagrams, PACKET_MAX, Train, count, cut, train_len};
use crate::packets::Packets;
use crate::path::{Path, PathClass};
use crate::shared::{PeerState, Shared};
use crate::stats::{Stats, add};
use crate::status::{PeerStatus, RelayStatus, Status};

/// A peer among peers: sends packets to them by their keys, and receives theirs. Clones are the same endpoint, which ends when the last
/// one is dropped or when it is [closed](Self::close).
#[derive(Clone, Debug)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    key: NodePublic,
    shared: Arc<Shared>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.abort();
    }
}

/// Why packets were not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The peer was not [added](Endpoint::add_peer).
    #[error("{0} is not a peer of this endpoint")]
    UnknownPeer(NodePublic),
    /// A packet is longer than [`PACKET_MAX`].
    #[error("a packet of {0} bytes is too long: the limit is {PACKET_MAX}")]
    TooLong(usize),
    /// A packet begins as one of disco, STUN or Geneve does, so that the peer would take it for one.
    #[error("a packet begins as one of disco, STUN or Geneve does: the peer would take it for one")]
    Mistakable,
    /// No relay is known over which the peer could be reached, and there is no direct path. Right after the start the home relay is not
    /// chosen yet: see [`Endpoint::online`].
    #[error("no way to the peer is known yet")]
    NoWay,
    /// The endpoint is closed.
    #[error("the endpoint is closed")]
    Closed,
}

/// The end of [`Endpoint::recv`]: the endpoint is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the endpoint is closed")]
pub struct Closed;

impl Endpoint {
    /// Begins to set up an endpoint.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(key: NodePublic, shared: Arc<Shared>) -> Self {
        Self { inner: Arc::new(Inner { key, shared }) }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// The key by which peers know this endpoint.
    #[must_use]
    pub fn key(&self) -> NodePublic {
        self.inner.key
    }

    /// The disco key of this endpoint, for peers whose control plane hands such keys out, as Tailscale's does. It is another one at each
    /// start.
    #[must_use]
    pub fn disco_key(&self) -> DiscoPublic {
        self.shared().look(|node, _| node.disco_key())
    }

    /// The addresses under which this endpoint may be reached directly, the most useful first, as far as they are known by now.
    #[must_use]
    pub fn direct_addresses(&self) -> Vec<SocketAddr> {
        self.shared().look(|node, _| node.endpoints())
    }

    /// The addresses of the sockets.
    #[must_use]
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.shared().sockets.iter().map(|socket| socket.local_addr()).collect()
    }

    /// Adds a peer, or takes in what is said of one now. Packets of others are not received.
    pub fn add_peer(&self, peer: &PeerConfig) {
        self.shared().add_peer(peer.key);
        self.shared().call(|node, now| node.set_peer(peer, now));
    }

    /// Forgets a peer. Nothing is sent to it any more, and nothing of it is received.
    pub fn remove_peer(&self, key: &NodePublic) {
        self.shared().call(|node, _| node.remove_peer(key));
        self.shared().remove_peer(key);
    }

    /// Waits until the link to the home relay is up, so that this endpoint can be reached by peers that know no more than its key and
    /// region. Returns the region.
    ///
    /// # Errors
    ///
    /// If the endpoint is closed.
    pub async fn online(&self) -> Result<Region, Closed> {
        let mut homes = self.shared().homes.subscribe();
        loop {
            let home = homes.borrow_and_update()[0];
            if let Some(link) = home.and_then(|home| self.shared().links.get(home)) {
                tokio::select! {
                    () = link.up() => return Ok(link.region()),
                    _ = homes.changed() => continue,
                    () = self.shared().inbox.closed() => return Err(Closed),
                }
            }
            tokio::select! {
                _ = homes.changed() => {}
                () = self.shared().inbox.closed() => return Err(Closed),
            }
        }
    }

    /// Begins to make the path to a peer direct before the first packet is sent to it.
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`].
    pub fn prepare(&self, peer: &NodePublic) -> Result<(), SendError> {
        let state = self.state_of(peer)?;
        self.shared().route(peer, &state, (0, false));
        Ok(())
    }

    /// Sends packets to a peer: directly where a path has been found, over a relay until then, and both ways while it is not certain. A
    /// packet may be lost, as on any network. Waits while the system or the relay has no room.
    ///
    /// The application authenticates and encrypts its packets itself, as WireGuard does. Packets of one length in a row are sent with
    /// one call of the system where it can do that.
    ///
    /// # Errors
    ///
    /// See [`SendError`]. No packet was sent then.
    pub async fn send<P: AsRef<[u8]>>(&self, peer: &NodePublic, packets: &[P]) -> Result<(), SendError> {
        let packets_of = || packets.iter().map(AsRef::as_ref);
        let Some((address, socket)) = self.send_over_relays(peer, packets_of, false).await? else {
            return Ok(());
        };
        let mut joined = Vec::new();
        let mut rest = packets;
        while let Some(first) = rest.first().map(AsRef::as_ref) {
            let count = train_len(rest.iter().map(|packet| packet.as_ref().len()), socket.train_max());
            let (train, after) = rest.split_at(count);
            let contents = if count == 1 {
                first
            } else {
                joined.clear();
                train.iter().for_each(|packet| joined.extend_from_slice(packet.as_ref()));
                &joined
            };
            let train = Train { destination: address, source: None, contents, segment: first.len() };
            self.send_train(socket.as_ref(), &train, count).await;
            rest = after;
        }
        Ok(())
    }

    /// Sends packets of one length to a peer, as [`send`](Self::send) does, from where they are one after the other: each of `segment`
    /// bytes but the last one, which may be shorter. Nothing is copied for a direct path.
    ///
    /// # Errors
    ///
    /// See [`SendError`]. No packet was sent then.
    pub async fn send_run(
        &self,
        peer: &NodePublic,
        contents: &[u8],
        segment: usize,
    ) -> Result<(), SendError> {
        let packets_of = || cut(contents, segment);
        let Some((address, socket)) = self.send_over_relays(peer, packets_of, false).await? else {
            return Ok(());
        };
        let fitting = socket.train_max().min(PACKET_MAX / segment.max(1)).max(1);
        for contents in cut(contents, fitting.saturating_mul(segment)) {
            let train = Train { destination: address, source: None, contents, segment };
            self.send_train(socket.as_ref(), &train, count(contents, segment)).await;
        }
        Ok(())
    }

    /// Sends a packet to a peer over a relay and, where there is a path, directly as well: for the few packets whose loss costs seconds,
    /// such as those of a handshake. The peer receives it once.
    ///
    /// # Errors
    ///
    /// See [`SendError`]. The packet was not sent then.
    pub async fn send_both_ways(&self, peer: &NodePublic, packet: &[u8]) -> Result<(), SendError> {
        let packets_of = || std::iter::once(packet);
        if let Some((address, socket)) = self.send_over_relays(peer, packets_of, true).await? {
            let train = Train { destination: address, source: None, contents: packet, segment: packet.len() };
            self.send_train(socket.as_ref(), &train, 1).await;
        }
        Ok(())
    }

    /// Sends packets over the relays of the route to a peer. Returns the address to which they go directly as well, and the socket for
    /// that.
    async fn send_over_relays<'p, I: Iterator<Item = &'p [u8]>>(
        &self,
        peer: &NodePublic,
        packets: impl Fn() -> I,
        precious: bool,
    ) -> Result<Option<(SocketAddr, &Arc<dyn Datagrams>)>, SendError> {
        let Sizes { longest, count, bytes } = check(packets())?;
        let (shared, state) = (self.shared(), self.state_of(peer)?);
        let counters = &shared.counters;
        let route = shared.route(peer, &state, (longest, precious));
        if route == Route::default() {
            add(&counters.unroutable, count);
            return Err(SendError::NoWay);
        }
        state.sent.add(count, bytes);
        let is_relayed_alone = route.direct.is_none();
        for region in [route.relay, route.standby].into_iter().flatten() {
            let Some(link) = shared.links.get(region) else {
                add(&counters.unroutable, count);
                continue;
            };
            counters.sent(PathClass::Relayed).add(count, bytes);
            if is_relayed_alone {
                link.room().await;
                add(&counters.relay_dropped, link.push_data(peer, packets()));
            } else {
                add(&counters.copies_left_out, link.push_copies(peer, packets()));
            }
        }
        let Some(address) = route.direct else { return Ok(None) };
        let Some(socket) = shared.socket_for(address) else {
            add(&counters.send_refused, count);
            return Ok(None);
        };
        counters.sent(PathClass::of(address)).add(count, bytes);
        Ok(Some((address, socket)))
    }

    async fn send_train(&self, socket: &dyn Datagrams, train: &Train<'_>, packets: usize) {
        if let Err(error) = send_train(socket, train).await {
            self.shared().count_refused(&error, packets);
        }
    }

    /// Waits for packets of peers and puts them into `packets`, in place of those that are there.
    ///
    /// A packet that was sent by two ways is received once. A packet whose sender is known by its address on UDP alone may be forged:
    /// the application authenticates its packets.
    ///
    /// # Errors
    ///
    /// If the endpoint is closed.
    pub async fn recv(&self, packets: &mut Packets) -> Result<(), Closed> {
        packets.clear();
        if self.shared().inbox.take(packets).await { Ok(()) } else { Err(Closed) }
    }

    /// Follows the path to a peer.
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`].
    pub fn watch_path(&self, peer: &NodePublic) -> Result<PathWatch, SendError> {
        Ok(PathWatch { receiver: self.state_of(peer)?.path.subscribe() })
    }

    /// Waits until a peer has introduced itself over a relay, which it may have done already. Returns the region.
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`], also if the peer is removed meanwhile.
    pub async fn introduced(&self, peer: &NodePublic) -> Result<Region, SendError> {
        let mut introduced = self.state_of(peer)?.introduced.subscribe();
        let region = introduced.wait_for(Option::is_some).await.map(|region| *region);
        region.ok().flatten().ok_or(SendError::UnknownPeer(*peer))
    }

    /// Follows how a peer introduces itself over relays: at each start of it, and when it has changed its relay.
    ///
    /// # Errors
    ///
    /// [`SendError::UnknownPeer`].
    pub fn watch_introductions(&self, peer: &NodePublic) -> Result<Introductions, SendError> {
        Ok(Introductions { receiver: self.state_of(peer)?.introduced.subscribe() })
    }

    /// Why the path to a peer is what it is; `None` for a peer that was not added.
    #[must_use]
    pub fn why(&self, peer: &NodePublic) -> Option<Why> {
        self.shared().look(|node, now| node.why(peer, now))
    }

    /// What this endpoint has sent, received and lost.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared().counters.get()
    }

    /// How this endpoint, its relays and its peers are.
    #[must_use]
    pub fn status(&self) -> Status {
        let shared = self.shared();
        let [home, standby] = *shared.homes.borrow();
        let relays =
            shared.links.all().into_iter().map(|link| RelayStatus::new(link.region(), &link.health()));
        let peers = shared.peers().into_iter().map(|(key, state)| PeerStatus {
            key,
            path: *state.path.borrow(),
            class: state.path.borrow().class(),
            sent: state.sent.get(),
            received: state.received.get(),
        });
        Status {
            key: self.key(),
            disco_key: self.disco_key().to_string(),
            home: home.map(|home| home.0),
            standby: standby.map(|standby| standby.0),
            local_addresses: self.local_addresses(),
            direct_addresses: self.direct_addresses(),
            port_mapping: shared.look(|node, _| node.port_mapping()),
            relays: relays.collect(),
            peers: peers.collect(),
        }
    }

    /// Sends what waits for relays, as far as that does not take long, gives back the port that the gateway forwards, and ends. What has
    /// been received can still be taken.
    pub async fn close(&self) {
        let shared = self.shared();
        shared.call(|node, _| node.close());
        shared.inbox.close();
        tokio::join!(shared.links.close(), shared.upnp.finish());
        shared.abort();
    }

    fn state_of(&self, peer: &NodePublic) -> Result<Arc<PeerState>, SendError> {
        if self.shared().inbox.is_closed() {
            return Err(SendError::Closed);
        }
        self.shared().peer(peer).ok_or(SendError::UnknownPeer(*peer))
    }
}

/// The path to a peer, followed.
#[derive(Clone, Debug)]
pub struct PathWatch {
    receiver: watch::Receiver<Path>,
}

impl PathWatch {
    /// The path now.
    #[must_use]
    pub fn path(&self) -> Path {
        *self.receiver.borrow()
    }

    /// Waits until the path is another one than at the last call, and returns it. A path that lasts for less than it takes to ask again
    /// may be missed.
    ///
    /// # Errors
    ///
    /// If the peer was removed.
    pub async fn changed(&mut self) -> Result<Path, Closed> {
        self.receiver.changed().await.map_err(|_| Closed)?;
        Ok(*self.receiver.borrow_and_update())
    }

    /// Waits until the path is direct, which it may be already. Returns the address of the peer.
    ///
    /// # Errors
    ///
    /// If the peer was removed.
    pub async fn direct(&mut self) -> Result<SocketAddr, Closed> {
        let path = *self.receiver.wait_for(Path::is_direct).await.map_err(|_| Closed)?;
        match path {
            Path::Direct { address } => Ok(address),
            _ => Err(Closed),
        }
    }
}

/// The introductions of a peer, followed.
#[derive(Clone, Debug)]
pub struct Introductions {
    receiver: watch::Receiver<Option<Region>>,
}

impl Introductions {
    /// Waits for the next one, and returns the region. Of several that come before it is asked again, it is the last.
    ///
    /// # Errors
    ///
    /// If the peer was removed.
    pub async fn next(&mut self) -> Result<Region, Closed> {
        loop {
            self.receiver.changed().await.map_err(|_| Closed)?;
            if let Some(region) = *self.receiver.borrow_and_update() {
                return Ok(region);
            }
        }
    }
}

/// The sizes of packets that are sent together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sizes {
    /// Bytes of the longest.
    longest: usize,
    count: usize,
    /// Bytes of all.
    bytes: usize,
}

/// Checks packets.
fn check<'p>(packets: impl Iterator<Item = &'p [u8]>) -> Result<Sizes, SendError> {
    let mut sizes = Sizes::default();
    for packet in packets {
        if packet.len() > PACKET_MAX {
            return Err(SendError::TooLong(packet.len()));
        }
        if DatagramKind::is_mistaken(packet) {
            return Err(SendError::Mistakable);
        }
        sizes.longest = sizes.longest.max(packet.len());
        sizes.count += 1;
        sizes.bytes += packet.len();
    }
    Ok(sizes)
}

async fn send_train(socket: &dyn Datagrams, train: &Train<'_>) -> io::Result<()> {
    loop {
        match socket.try_send(train) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable().await?,
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_that_a_peer_would_take_for_something_else_are_refused() {
        let stun = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[0; 12]].concat();
        let disco = [&b"TS\xf0\x9f\x92\xac"[..], &[0; 60]].concat();
        let geneve = [0, 0, 0x7a, 0x12, 0, 0, 1, 0];
        for mistaken in [&stun[..], &disco, &geneve] {
            assert_eq!(check([&[4; 9][..], mistaken].into_iter()), Err(SendError::Mistakable));
        }
        let (long, longest) = (vec![4; PACKET_MAX + 1], vec![4; PACKET_MAX]);
        assert_eq!(check([&long[..]].into_iter()), Err(SendError::TooLong(PACKET_MAX + 1)));
        let sizes = Sizes { longest: PACKET_MAX, count: 2, bytes: PACKET_MAX + 3 };
        assert_eq!(check([&[4; 3][..], &longest].into_iter()), Ok(sizes));
    }
}
