//! The data plane as the rest of the relay sees it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use towpath_relay_proto::key_routes::Route;
use towpath_relay_proto::session::Close;

use crate::arrival::{ClientArrival, LinkArrival, NewClient, NewLink};
use crate::clock::Clock;
use crate::config::{DataPlaneConfig, PlaneLimits};
use crate::counters::{PlaneStats, WorkerCounters};
use crate::inbox::{OwnerRequest, WorkerInbox, WorkerMessage};
use crate::key::RouteKey;
use crate::peer::Peer;
use crate::report::{ConnectionReport, KeyRoute, ListCursor, ListPage, ReportSink};
use crate::shared::PlaneShared;
use crate::worker::Worker;

/// The handle of the data plane: it takes connections and gives statistics.
#[derive(Debug)]
pub struct DataPlane {
    shared: Arc<PlaneShared>,
    counters: Vec<Arc<WorkerCounters>>,
    next: AtomicUsize,
}

/// The threads of the data plane.
#[derive(Debug)]
pub struct Workers {
    shared: Arc<PlaneShared>,
    threads: Vec<JoinHandle<()>>,
}

impl DataPlane {
    /// Starts `workers` threads. Each calls `started` first, and `ended` if it panics, there or later: see
    /// `docs/decisions/0002-a-panic-ends-the-process.md`.
    ///
    /// # Errors
    ///
    /// The error of the system if it refuses a thread, an epoll or an eventfd.
    pub fn start(
        workers: usize,
        config: DataPlaneConfig,
        started: impl Fn() + Clone + Send + 'static,
        ended: impl Fn() + Clone + Send + 'static,
    ) -> io::Result<(Self, Workers)> {
        let clock = Clock::start();
        let polls = (0..workers).map(|_| mio::Poll::new()).collect::<io::Result<Vec<_>>>()?;
        let inboxes = polls.iter().map(WorkerInbox::new).collect::<io::Result<Box<[_]>>>()?;
        let shared = Arc::new(PlaneShared::new(config, inboxes));
        let mut plane = Self { shared: shared.clone(), counters: Vec::new(), next: AtomicUsize::new(0) };
        let mut running = Workers { shared, threads: Vec::new() };
        for (index, poll) in polls.into_iter().enumerate() {
            let counters = Arc::new(WorkerCounters::default());
            plane.counters.push(counters.clone());
            let (started, ended, shared) = (started.clone(), ended.clone(), plane.shared.clone());
            let thread = std::thread::Builder::new().name(format!("forward-{index}")).spawn(move || {
                let guard = CallOnUnwind(ended);
                started();
                Worker::new(index, poll, &shared, counters, clock).run();
                std::mem::forget(guard);
            })?;
            running.threads.push(thread);
        }
        Ok((plane, running))
    }

    /// The number of the next connection, by which log lines of the control plane and the data plane name it. No other
    /// connection of this process has it.
    #[must_use]
    pub fn next_connection(&self) -> u64 {
        self.shared.registry.next_id()
    }

    /// Hands a client that has logged in to one of the workers, in turn.
    pub fn attach(&self, arrival: ClientArrival<'_>) {
        let client = NewClient::new(arrival);
        self.next_inbox().send(WorkerMessage::Attach(Box::new(client)));
    }

    /// Hands a link that was dialled to one of the workers, in turn. The handle closes it.
    pub fn attach_link(&self, arrival: LinkArrival) -> LinkHandle {
        let link = NewLink::new(arrival);
        let handle = LinkHandle { shared: self.shared.clone(), peer: link.peer.clone() };
        self.next_inbox().send(WorkerMessage::AttachLink(Box::new(link)));
        handle
    }

    /// Replaces the limits. They hold from the next time on that each is looked at: no connection is closed for a bound on
    /// their number, and none of a link for its keys before the next one is announced.
    pub fn set_limits(&self, limits: PlaneLimits) {
        self.shared.limits.set(limits);
    }

    /// The most connections of a key, as the limits have it now.
    #[must_use]
    pub fn max_connections_per_key(&self) -> usize {
        self.shared.limits.max_connections_per_key()
    }

    /// Closes all connections of `key` that a worker has taken over. Returns how many there are. Each is closed, and
    /// counted under `reason`, in the next turn of its owner.
    pub fn close(&self, key: &RouteKey, reason: Close) -> usize {
        self.shared.close(key, reason)
    }

    /// Asks for the page of a listing of all connections that begins at `cursor`. A worker calls `reply` in its next turn;
    /// `reply` must not block, and is dropped instead where the data plane stops.
    ///
    /// A connection that is there from the first page to the last is on one of them.
    pub fn list(&self, cursor: ListCursor, reply: impl FnOnce(ListPage) + Send + 'static) {
        if let Some(inbox) = self.shared.inboxes.get(cursor.worker) {
            inbox.send(WorkerMessage::List(cursor.token, ReportSink::new(reply)));
        }
    }

    /// Asks for a report on each connection of `key`. The owner of each calls `reply` in its next turn; `reply` must not
    /// block, and is dropped instead for a connection that has gone.
    pub fn inspect(&self, key: &RouteKey, reply: impl FnOnce(ConnectionReport) + Clone + Send + 'static) {
        for peer in self.shared.registry.connections(key) {
            let (owner, connection) = peer.place();
            if let Some(inbox) = self.shared.inboxes.get(owner) {
                inbox.send(WorkerMessage::Inspect(connection, ReportSink::new(reply.clone())));
            }
        }
    }

    /// The route that packets for `key` take; `None` if neither this relay nor another one that it knows has the key.
    #[must_use]
    pub fn route(&self, key: &RouteKey) -> Option<KeyRoute> {
        Some(match self.shared.registry.find(key)? {
            Route::Local(_) => KeyRoute::Local,
            Route::Via(forwarder) => {
                let link = forwarder.link();
                KeyRoute::Via { relay: *link.key.node(), address: link.address }
            }
        })
    }

    /// Whether a worker has taken over a connection of `key`.
    #[must_use]
    pub fn has(&self, key: &RouteKey) -> bool {
        self.shared.registry.find_local(key).is_some()
    }

    /// The numbers of the data plane, as the workers last published them.
    #[must_use]
    pub fn stats(&self) -> PlaneStats {
        PlaneStats::of(&self.counters, self.shared.registry.gauges())
    }

    fn next_inbox(&self) -> &WorkerInbox {
        let inboxes = &self.shared.inboxes;
        &inboxes[self.next.fetch_add(1, Ordering::Relaxed) % inboxes.len()]
    }
}

/// A link that a worker has, or is about to have.
#[derive(Debug)]
pub struct LinkHandle {
    shared: Arc<PlaneShared>,
    peer: Arc<Peer>,
}

impl LinkHandle {
    /// Asks the owner to close the link, in its next turn. A link that no worker has taken over yet is not reached, so ask
    /// again until the link has told that it is down.
    pub fn close(&self, reason: Close) {
        self.shared.ask_owner(&self.peer, OwnerRequest::Close(reason));
    }
}

impl Workers {
    /// Closes every connection and ends the threads. Returns when they have ended; they do not wait for any client.
    pub fn stop(self) {
        self.shared.inboxes.iter().for_each(|inbox| inbox.send(WorkerMessage::Stop));
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

#[cfg(test)]
mod tests;
