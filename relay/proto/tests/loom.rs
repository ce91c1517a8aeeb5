//! Every interleaving of the threads that share an outbox, and of a sender with one connection of a key, or one relay
//! that has the key, that replaces another. Run by `make loom`, which builds with `--cfg loom`.

#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

use std::sync::Arc as StdArc;
use std::time::Duration;

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;
use towpath_relay_proto::egress::{Egress, FlushContext, Flushed, Pushed, Sent, Transmit};
use towpath_relay_proto::key_routes::{Forwards, KeyRoutes, Route};
use towpath_relay_proto::outbox::{Batch, DropReason, DropSink, Hop, Limits};
use towpath_relay_proto::presence::{Departure, Member, Presence};
use towpath_relay_proto::session::PacketKind;
use towpath_relay_proto::watch_backlog::PresenceChange;
use towpath_wire::derp::app_name::AppName;
use towpath_wire::derp::frame::ServerFrame;
use towpath_wire::derp::mesh::PresentFlags;
use towpath_wire::key::NodePublic;
use towpath_wire::pool::BufferPool;
use towpath_wire::time::Instant;

const FROM: NodePublic = NodePublic::from_bytes([7; 32]);
const LIMITS: Limits = Limits {
    bytes: 1 << 20,
    packets: 0,
    disco_bytes: 1 << 20,
    age: Duration::from_secs(1),
    hold_above: 1 << 19,
};
const FRAME: usize = ServerFrame::recv_packet_len(1);

#[derive(Default)]
struct Drops(usize);

impl DropSink for Drops {
    fn dropped(&mut self, _: Hop, _: DropReason, _: PacketKind, _: usize) {
        self.0 += 1;
    }
}

/// A socket as the kernel has it: it takes a frame while it is writable, and promises an event after it was full.
#[derive(Default)]
struct Socket {
    writable: bool,
    event_promised: bool,
    received: Vec<u8>,
    /// What came of the way out's own.
    own: usize,
}

/// The way out to a [`Socket`]; `sending` is up while a write is in flight.
struct Outlet {
    socket: Arc<Mutex<Socket>>,
    sending: Arc<AtomicBool>,
    /// The outbound side itself owes the peer something.
    owes: bool,
}

impl Transmit for Outlet {
    type Scratch = ();

    fn send(&mut self, batch: Option<&mut Batch>, _: Instant, _: &mut BufferPool, (): &mut ()) -> Sent {
        if std::mem::take(&mut self.owes) {
            self.socket.lock().unwrap().own += 1;
        }
        let Some(batch) = batch else { return Sent::All };
        assert!(!self.sending.swap(true, Ordering::SeqCst), "two writes in flight for one socket");
        let sent = {
            let mut socket = self.socket.lock().unwrap();
            if socket.writable {
                while let Some(chunk) = batch.chunk(usize::MAX) {
                    socket.received.extend_from_slice(chunk);
                    let len = chunk.len();
                    batch.advance(len);
                }
                Sent::All
            } else {
                socket.event_promised = true;
                Sent::Blocked
            }
        };
        self.sending.store(false, Ordering::SeqCst);
        sent
    }
}

fn connection(writable: bool) -> (Arc<Mutex<Socket>>, Arc<Egress<Outlet>>) {
    let socket = Arc::new(Mutex::new(Socket { writable, ..Socket::default() }));
    (socket.clone(), Arc::new(Egress::new(outlet(socket), StdArc::new(LIMITS))))
}

fn outlet(socket: Arc<Mutex<Socket>>) -> Outlet {
    Outlet { socket, sending: Arc::new(AtomicBool::new(false)), owes: false }
}

/// Lends a thread what a flush needs.
fn with_context<R>(drops: &mut Drops, work: impl FnOnce(&mut FlushContext<'_, (), Drops>) -> R) -> R {
    let context =
        &mut FlushContext { now: Instant::ZERO, pool: &mut BufferPool::default(), drops, scratch: &mut () };
    work(context)
}

/// Flushes until the flush is finished, as a worker does over several turns.
fn flush(egress: &Egress<Outlet>, drops: &mut Drops) {
    while with_context(drops, |context| egress.flush(context)) == Flushed::Unfinished {}
}

/// Pushes a packet and flushes if that is owed. Returns whether the connection took it.
fn send(egress: &Egress<Outlet>, number: u8, drops: &mut Drops) -> bool {
    let pushed = egress.push(|outbox| {
        outbox.push_packet(Instant::ZERO, &FROM, &[number], &mut BufferPool::default(), drops);
        true
    });
    if pushed == Pushed::MustFlush {
        flush(egress, drops);
    }
    pushed != Pushed::Closed
}

fn received(socket: &Mutex<Socket>) -> usize {
    let len = socket.lock().unwrap().received.len();
    assert_eq!(len % FRAME, 0, "frames are whole");
    len / FRAME
}

#[test]
fn what_two_threads_push_is_sent_by_the_time_both_are_done() {
    loom::model(|| {
        let (socket, egress) = connection(true);
        let other = {
            let egress = egress.clone();
            thread::spawn(move || {
                assert!(send(&egress, 1, &mut Drops::default()));
            })
        };
        assert!(send(&egress, 2, &mut Drops::default()));
        other.join().unwrap();
        assert_eq!(received(&socket), 2);
    });
}

#[test]
fn a_socket_that_becomes_writable_at_any_moment_is_written_to() {
    loom::model(|| {
        let (socket, egress) = connection(false);
        let owner = {
            let (socket, egress) = (socket.clone(), egress.clone());
            thread::spawn(move || {
                let event = {
                    let mut socket = socket.lock().unwrap();
                    socket.writable = true;
                    std::mem::take(&mut socket.event_promised)
                };
                if event {
                    let flushed =
                        with_context(&mut Drops::default(), |context| egress.flush_writable(context));
                    if flushed == Flushed::Unfinished {
                        flush(&egress, &mut Drops::default());
                    }
                }
            })
        };
        assert!(send(&egress, 1, &mut Drops::default()));
        assert!(send(&egress, 2, &mut Drops::default()));
        owner.join().unwrap();
        assert_eq!(received(&socket), 2);
        assert!(!egress.is_blocked());
    });
}

#[test]
fn what_the_outbound_side_owes_is_sent_after_a_nudge_even_while_another_thread_sends() {
    loom::model(|| {
        let (socket, egress) = connection(true);
        let other = {
            let egress = egress.clone();
            thread::spawn(move || {
                egress.with_transmit(|outlet| outlet.owes = true);
                if egress.nudge() == Pushed::MustFlush {
                    flush(&egress, &mut Drops::default());
                }
            })
        };
        assert!(send(&egress, 1, &mut Drops::default()));
        other.join().unwrap();
        assert_eq!((received(&socket), socket.lock().unwrap().own), (1, 1));
    });
}

#[test]
fn a_packet_pushed_while_the_connection_closes_is_sent_or_dropped_and_never_both() {
    loom::model(|| {
        let (socket, egress) = connection(true);
        let closer = {
            let egress = egress.clone();
            thread::spawn(move || {
                let mut drops = Drops::default();
                with_context(&mut drops, |context| egress.close(context, |_, _| ()));
                drops.0
            })
        };
        let mut drops = Drops::default();
        let refused = usize::from(!send(&egress, 1, &mut drops));
        let dropped = closer.join().unwrap();
        assert_eq!(received(&socket) + dropped + drops.0 + refused, 1);
        assert!(!send(&egress, 2, &mut drops), "a closed connection takes nothing");
    });
}

/// A connection with the flag that senders look at.
struct Peer {
    id: u64,
    active: AtomicBool,
    inbox: Mutex<Vec<u8>>,
}

impl Member for Peer {
    fn id(&self) -> u64 {
        self.id
    }
    fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Release);
    }
    fn set_shared(&self, _: bool) {}
}

fn peer(id: u64) -> StdArc<Peer> {
    StdArc::new(Peer { id, active: AtomicBool::new(false), inbox: Mutex::new(Vec::new()) })
}

type Map = Mutex<Option<Presence<Peer>>>;

/// What a sender does that knows `route`: trust its flag, else ask the map.
fn deliver(map: &Map, route: &StdArc<Peer>, number: u8) -> bool {
    let to = if route.active.load(Ordering::Acquire) {
        Some(route.clone())
    } else {
        map.lock().unwrap().as_ref().map(|presence| presence.active().clone())
    };
    if let Some(to) = &to {
        to.inbox.lock().unwrap().push(number);
    }
    to.is_some()
}

#[test]
fn while_one_connection_replaces_another_a_packet_reaches_one_of_them_and_then_the_new_one() {
    loom::model(|| {
        let (old, new) = (peer(1), peer(2));
        let map: Arc<Map> = Arc::new(Mutex::new(Some(Presence::new(old.clone()))));
        let arrival = {
            let (map, new) = (map.clone(), new.clone());
            thread::spawn(move || map.lock().unwrap().as_mut().unwrap().join(new))
        };
        assert!(deliver(&map, &old, 1), "the key is here all the time");
        arrival.join().unwrap();
        assert!(deliver(&map, &old, 2));
        let (old, new) = (old.inbox.lock().unwrap().clone(), new.inbox.lock().unwrap().clone());
        assert_eq!(old.len() + new.len(), 2);
        assert_eq!(new.last(), Some(&2), "once the new one is there, it is the one");
    });
}

#[test]
fn while_the_active_connection_leaves_a_packet_goes_to_it_or_to_its_successor() {
    loom::model(|| {
        let (stays, leaves) = (peer(1), peer(2));
        let mut presence = Presence::new(stays.clone());
        presence.join(leaves.clone());
        let map: Arc<Map> = Arc::new(Mutex::new(Some(presence)));
        let departure = {
            let map = map.clone();
            thread::spawn(move || {
                let departure = map.lock().unwrap().as_mut().unwrap().leave(2);
                assert_eq!(departure, Departure::OthersRemain { resolved: false });
            })
        };
        assert!(deliver(&map, &leaves, 1), "the key is here all the time");
        departure.join().unwrap();
        assert!(deliver(&map, &leaves, 2));
        assert_eq!(
            stays.inbox.lock().unwrap().last(),
            Some(&2),
            "once it has left, the successor is the one"
        );
    });
}

impl Forwards for Peer {
    fn link(&self) -> u64 {
        self.id
    }
    fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Release);
    }
}

type RegionMap = Mutex<Option<KeyRoutes<Peer, Peer>>>;

/// As [`deliver`], with relays.
fn deliver_in_region(map: &RegionMap, route: &StdArc<Peer>, number: u8) -> bool {
    let to = if route.active.load(Ordering::Acquire) {
        Some(route.clone())
    } else {
        let map = map.lock().unwrap();
        map.as_ref().and_then(KeyRoutes::route).map(|way| match way {
            Route::Local(peer) | Route::Via(peer) => peer.clone(),
        })
    };
    if let Some(to) = &to {
        to.inbox.lock().unwrap().push(number);
    }
    to.is_some()
}

#[test]
fn while_a_client_moves_here_a_packet_goes_by_the_relay_it_left_or_here_and_then_here() {
    loom::model(|| {
        let (relay, here) = (peer(1), peer(2));
        let map: Arc<RegionMap> = Arc::new(Mutex::new(Some(KeyRoutes::remote(relay.clone()))));
        let arrival = {
            let (map, here) = (map.clone(), here.clone());
            thread::spawn(move || map.lock().unwrap().as_mut().unwrap().join(here))
        };
        assert!(deliver_in_region(&map, &relay, 1), "the key is in the region all the time");
        arrival.join().unwrap();
        assert!(deliver_in_region(&map, &relay, 2));
        assert_eq!(here.inbox.lock().unwrap().last(), Some(&2), "once it is here, it is here");
    });
}

#[test]
fn while_a_link_breaks_a_packet_goes_over_it_or_over_the_next_and_then_over_the_next() {
    loom::model(|| {
        let (broken, next) = (peer(1), peer(2));
        let mut key_routes = KeyRoutes::remote(broken.clone());
        key_routes.add_forwarder(next.clone());
        let map: Arc<RegionMap> = Arc::new(Mutex::new(Some(key_routes)));
        let breaking = {
            let map = map.clone();
            thread::spawn(move || {
                map.lock().unwrap().as_mut().unwrap().remove_forwarder(1);
            })
        };
        assert!(deliver_in_region(&map, &broken, 1), "the key is in the region all the time");
        breaking.join().unwrap();
        assert!(deliver_in_region(&map, &broken, 2));
        assert_eq!(next.inbox.lock().unwrap().last(), Some(&2));
    });
}

#[test]
fn what_a_watcher_is_told_while_another_flushes_is_sent_and_the_last_word_is_true() {
    loom::model(|| {
        let (socket, egress) = connection(true);
        let address = ([192, 0, 2, 1], 1).into();
        let (flags, app_name) = (PresentFlags::REGULAR, AppName::default());
        let present = PresenceChange::Present { address, flags, app_name };
        // The two changes of one key are made one after the other, as under its lock in the map.
        let order = Arc::new(Mutex::new(vec![present, PresenceChange::Gone]));
        let tell = move |order: &Mutex<Vec<PresenceChange>>, egress: &Egress<Outlet>| {
            let mut order = order.lock().unwrap();
            let change = order.remove(0);
            let pushed = egress.push(|outbox| outbox.push_change(FROM, change));
            drop(order);
            if pushed == Pushed::MustFlush {
                flush(egress, &mut Drops::default());
            }
        };
        let other = {
            let (order, egress) = (order.clone(), egress.clone());
            thread::spawn(move || tell(&order, &egress))
        };
        tell(&order, &egress);
        other.join().unwrap();
        let mut gone = Vec::new();
        PresenceChange::Gone.frame(FROM).encode(&mut gone);
        let socket = socket.lock().unwrap();
        assert!(socket.received.ends_with(&gone), "nothing waits, and the last word is the last change");
    });
}
