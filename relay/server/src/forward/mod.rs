//! The data plane: plain threads that move frames from connection to connection.
//!
//! Each worker has an epoll of its own, the connections that were handed to it, one buffer to read into and one to seal
//! into. A turn of its loop: wait for events; read each ready connection once, open its records, cut them into frames,
//! and append each frame to the outbox of its destination, whoever owns that; then seal and write each outbox that this
//! turn made dirty, once. So a burst costs one read, one record and one write, and a packet one copy.
//!
//! - [`peer`]: a connection as others see it, and the way out to its socket.
//! - [`registry`]: which connection has which key.
//! - [`audience`]: who is told when a key leaves. [`watch`]: who is told of keys that come and go.
//! - [`route`]: the ways that packets take. [`sender`]: which of them those of a connection do.
//! - [`connection`]: a connection as its worker sees it. [`inlet`]: the way in from its socket.
//! - [`websocket`]: the layer between, where a client speaks WebSocket.
//! - [`desk`]: what handling frames needs besides the connection. [`inbox`]: what other threads tell a worker.
//! - [`link`]: what a relay says that this one has dialled. [`mesh`]: what one asks for that has dialled this one.
//! - [`strangers`]: who has heard from keys that nobody has announced.
//! - [`worker`]: the loop. [`moderation`]: its pauses. [`wheel`]: its timers. [`counters`]: what it counts.

mod audience;
pub(crate) mod connection;
pub(crate) mod counters;
mod desk;
mod inbox;
pub(crate) mod inlet;
pub(crate) mod link;
mod mesh;
mod moderation;
pub(crate) mod peer;
pub(crate) mod registry;
mod route;
mod sender;
mod strangers;
mod watch;
pub(crate) mod websocket;
mod wheel;
pub(crate) mod worker;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use towpath_relay_proto::outbox::Limits;
use towpath_wire::time::Instant;

use counters::Counters;
use inbox::{Inbox, Message};
use link::LinkArrival;
use peer::Peer;
use registry::Registry;
use towpath_wire::key::NodePublic;
use worker::Worker;

use crate::config::Waiting;
use crate::server::TCP_USER_TIMEOUT;

pub(crate) use connection::Arrival;
pub(crate) use inlet::Inlet;

/// The clock of the data plane: nanoseconds since the process set it up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(std::time::Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub(crate) fn now(self) -> Instant {
        Instant::from(self.0.elapsed())
    }
}

/// What the workers share and never change.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) limits: Limits,
    pub(crate) write_timeout: Duration,
    pub(crate) keepalive: Duration,
    pub(crate) waiting: Waiting,
    /// This relay's own key.
    pub(crate) own_key: NodePublic,
    /// Whether anybody may watch who comes and goes.
    pub(crate) watchable: bool,
}

impl Rules {
    /// How long the socket of `peer` may take nothing. A relay has as long as the kernel gives it: behind it are many, and a
    /// link that is made anew has to learn everything anew.
    pub(crate) fn write_timeout(&self, peer: &Peer) -> Duration {
        if peer.is_mesh() { self.write_timeout.max(TCP_USER_TIMEOUT) } else { self.write_timeout }
    }
}

/// The data plane as the rest of the relay sees it.
#[derive(Debug)]
pub(crate) struct DataPlane {
    inboxes: Arc<[Arc<Inbox>]>,
    counters: Vec<Arc<Counters>>,
    registry: Arc<Registry>,
    next: AtomicUsize,
}

/// The threads of the data plane.
#[derive(Debug)]
pub(crate) struct Workers {
    inboxes: Arc<[Arc<Inbox>]>,
    threads: Vec<JoinHandle<()>>,
}

impl DataPlane {
    /// Starts `workers` threads. Each calls `started` first, and `ended` when it ends before it was told to.
    pub(crate) fn start(
        workers: usize,
        rules: Rules,
        started: impl Fn() + Clone + Send + 'static,
        ended: impl Fn() + Clone + Send + 'static,
    ) -> io::Result<(Self, Workers)> {
        let (clock, rules) = (Clock::start(), Arc::new(rules));
        let registry = Arc::new(Registry::new(rules.watchable));
        let polls = (0..workers).map(|_| mio::Poll::new()).collect::<io::Result<Vec<_>>>()?;
        let inboxes =
            polls.iter().map(|poll| Inbox::new(poll).map(Arc::new)).collect::<io::Result<Arc<[_]>>>()?;
        let mut plane =
            Self { inboxes: inboxes.clone(), counters: Vec::new(), registry, next: AtomicUsize::new(0) };
        let mut running = Workers { inboxes, threads: Vec::new() };
        for (index, poll) in polls.into_iter().enumerate() {
            let counters = Arc::new(Counters::default());
            let worker = Worker::new(
                index,
                poll,
                plane.inboxes.clone(),
                plane.registry.clone(),
                rules.clone(),
                counters.clone(),
                clock,
            );
            let (started, ended) = (started.clone(), ended.clone());
            let thread = std::thread::Builder::new().name(format!("forward-{index}")).spawn(move || {
                started();
                let guard = CallOnUnwind(ended);
                worker.run();
                std::mem::forget(guard);
            })?;
            plane.counters.push(counters);
            running.threads.push(thread);
        }
        Ok((plane, running))
    }

    /// Hands a logged-in connection to one of the workers, in turn.
    pub(crate) fn attach(&self, arrival: Arrival) {
        self.next_inbox().send(Message::Attach(Box::new(arrival)));
    }

    /// The same with a link.
    pub(crate) fn attach_link(&self, arrival: LinkArrival) {
        self.next_inbox().send(Message::AttachLink(Box::new(arrival)));
    }

    fn next_inbox(&self) -> &Inbox {
        &self.inboxes[self.next.fetch_add(1, Ordering::Relaxed) % self.inboxes.len()]
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    pub(crate) fn counters(&self) -> Vec<Arc<Counters>> {
        self.counters.clone()
    }
}

impl Workers {
    /// Closes every connection and ends the threads. Returns when they have ended; they do not wait for any client.
    pub(crate) fn stop(self) {
        self.inboxes.iter().for_each(|inbox| inbox.send(Message::Stop));
        for thread in self.threads {
            // A worker that panicked has been reported when it did.
            let _ = thread.join();
        }
    }
}

struct CallOnUnwind<F: Fn()>(F);

impl<F: Fn()> Drop for CallOnUnwind<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
