//! A world that runs in real time, and the sockets of its hosts.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::{fmt, io};

use tokio::sync::Notify;
use tokio::time;
use towpath::datagrams::{Datagrams, ReceivedDatagrams, Train, Writable};
use towpath_disco::datagram::Transmit;
use towpath_sim::{Action, HostId, Link, Nat, NatId, Place, Site, World};
use towpath_wire::key::NodePublic;
use towpath_wire::time::Instant;

use crate::pipe::Pipe;

/// Datagrams of a train, at most.
const TRAIN: usize = 64;

/// A simulated internet that runs in real time, by the clock of tokio. Clones are the same one.
#[derive(Clone)]
pub struct Internet(Arc<Inner>);

struct Inner {
    world: Mutex<World<Pipe>>,
    start: time::Instant,
    /// Something may be due earlier than before.
    changed: Notify,
}

impl Internet {
    /// An internet without anything in it. The order of what happens at the same time, and what NATs and links draw by lot, follow from
    /// the seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let world = Mutex::new(World::new(seed));
        Self(Arc::new(Inner { world, start: time::Instant::now(), changed: Notify::new() }))
    }

    /// Adds a site. See [`World::add_site`].
    #[must_use]
    pub fn add_site(&self) -> Site {
        self.0.world().add_site()
    }

    /// Sets the links between two sites, in both directions.
    pub fn set_links(&self, one: Site, other: Site, link: Link) {
        self.0.with(|world| {
            for (from, to) in [(one, other), (other, one)] {
                world.act_now(Action::SetLink { from, to, link });
            }
        });
    }

    /// Adds a STUN server, and returns its address.
    #[must_use]
    pub fn add_stun(&self, site: Site) -> SocketAddr {
        self.0.world().add_stun(site)
    }

    /// Adds a NAT.
    #[must_use]
    pub fn add_nat(&self, place: Place, nat: Nat) -> NatId {
        self.0.world().add_nat(place, nat)
    }

    /// The external addresses of a NAT.
    #[must_use]
    pub fn nat_addresses(&self, nat: NatId) -> Vec<IpAddr> {
        self.0.world().nat_addresses(nat).to_vec()
    }

    /// Adds a host with an address at a place, and returns the socket of the endpoint that runs on it.
    ///
    /// # Panics
    ///
    /// If there is a host with this key.
    #[must_use]
    pub fn add_host(&self, key: NodePublic, place: Place) -> SimDatagrams {
        let mut world = self.0.world();
        let host = world.add_host(key, &[place], &[], Pipe::default());
        let local = world.addresses(host)[0];
        SimDatagrams { internet: self.clone(), host, local }
    }

    /// Carries out an action now.
    pub fn act(&self, action: Action) {
        self.0.with(|world| world.act_now(action));
    }

    /// Lets what is due happen, without end.
    pub async fn run(self) {
        loop {
            let changed = self.0.changed.notified();
            let due = self.0.with(|world| world.due());
            match due {
                Some(due) => {
                    let at = self.0.start + due.since(Instant::ZERO);
                    let _ = time::timeout_at(at, changed).await;
                }
                None => changed.await,
            }
        }
    }
}

impl fmt::Debug for Internet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Internet(..)")
    }
}

impl Inner {
    fn world(&self) -> MutexGuard<'_, World<Pipe>> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets happen what is due, and then does something.
    fn with<T>(&self, call: impl FnOnce(&mut World<Pipe>) -> T) -> T {
        let mut world = self.world();
        world.run_until(Instant::from(self.start.elapsed()));
        call(&mut world)
    }
}

/// The socket of a host of an [`Internet`].
#[derive(Debug)]
pub struct SimDatagrams {
    internet: Internet,
    host: HostId,
    local: SocketAddr,
}

impl SimDatagrams {
    /// The host, for actions that concern it.
    #[must_use]
    pub const fn host(&self) -> HostId {
        self.host
    }

    fn send(&self, train: &Train<'_>, ttl: Option<u8>) {
        let inner = &self.internet.0;
        inner.with(|world| {
            world.with(self.host, |pipe, _| {
                pipe.sent.extend(train.datagrams().map(|datagram| {
                    (Transmit::Udp { src: train.source, dst: train.destination, ttl }, datagram.to_vec())
                }));
            });
        });
        inner.changed.notify_one();
    }
}

impl Datagrams for SimDatagrams {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn interfaces(&self) -> Option<Vec<IpAddr>> {
        Some(vec![self.local.ip()])
    }

    fn train_max(&self) -> usize {
        TRAIN
    }

    fn try_send(&self, train: &Train<'_>) -> io::Result<()> {
        self.send(train, None);
        Ok(())
    }

    fn try_send_dying(&self, train: &Train<'_>, ttl: u8) -> io::Result<()> {
        self.send(train, Some(ttl));
        Ok(())
    }

    fn writable(&self) -> Writable<'_> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn poll_recv(&self, cx: &mut Context<'_>, received: &mut ReceivedDatagrams) -> Poll<io::Result<()>> {
        self.internet.0.with(|world| {
            world.with(self.host, |pipe, _| {
                while received.has_room()
                    && let Some((remote, datagram)) = pipe.arrived.pop_front()
                {
                    received.push(remote, &datagram);
                }
                if received.is_empty() {
                    pipe.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(Ok(()))
            })
        })
    }
}
