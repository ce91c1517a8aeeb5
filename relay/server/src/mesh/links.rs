//! The links that this relay keeps, each by a task of its own: it dials, and dials again after the link has closed.
//!
//! The list of relays may change while the relay runs. The link of a relay that is in both lists stays as it is.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;
use towpath_relay_client::{Client, DialError, Dialer, Raw};
use towpath_relay_forward::{DataPlane, LinkArrival, LinkEvent, LinkHandle, Transport, set_socket_options};
use towpath_relay_proto::outbox::SharedLimits;
use towpath_relay_proto::session::Close;
use towpath_service::ErrorChain;
use towpath_service::repeated::Repeated;
use towpath_wire::key::NodePrivate;
use towpath_wire::sync::lock;
use tracing::{debug, info, warn};

use super::metrics::MeshMetrics;
use super::remedy::remedy;
use crate::config::MeshPeer;

/// The pause before a link is dialled again, as in derper, and the largest random time added to it, so that relays
/// which lost a third one together do not come back to it together.
const REDIAL: Duration = Duration::from_secs(5);
const REDIAL_SPREAD: Duration = Duration::from_secs(1);
/// The pause after a link that was closed for too many keys. To learn and forget a million keys is too much work to be
/// done every few seconds.
const REDIAL_AFTER_MESH_KEYS: Duration = Duration::from_secs(60);
/// How often a link that is not to be kept is asked to close, until it has.
const CLOSE_AGAIN: Duration = Duration::from_millis(100);

/// The state that all links share.
#[derive(Clone, Debug)]
pub(crate) struct LinkContext {
    pub(crate) plane: Arc<DataPlane>,
    /// This relay's node key, with which it logs in.
    pub(crate) key: NodePrivate,
    /// The bounds of what waits for another relay.
    pub(crate) limits: SharedLimits,
    pub(crate) metrics: MeshMetrics,
}

/// The links that are kept.
#[derive(Debug)]
pub(crate) struct Links {
    context: LinkContext,
    runtime: Handle,
    kept: Mutex<Vec<KeptLink>>,
}

/// A relay to which a link is kept, and what tells its task to give the link up.
#[derive(Debug)]
struct KeptLink {
    peer: MeshPeer,
    give_up: Arc<Notify>,
}

impl Links {
    /// No links yet. Their tasks will run on the runtime of the caller.
    pub(crate) fn new(context: LinkContext) -> Self {
        Self { context, runtime: Handle::current(), kept: Mutex::default() }
    }

    /// Keeps links to these relays and to no others: gives up those to relays that are not in the list or have another entry
    /// there, and dials those that are new.
    pub(crate) fn keep(&self, dialers: Vec<(MeshPeer, Dialer)>) {
        let mut kept = lock(&self.kept);
        kept.retain(|link| {
            let is_listed = dialers.iter().any(|(peer, _)| *peer == link.peer);
            if !is_listed {
                link.give_up.notify_one();
            }
            is_listed
        });
        for (peer, dialer) in dialers {
            if kept.iter().any(|link| link.peer == peer) {
                continue;
            }
            let give_up = Arc::new(Notify::new());
            let task = LinkTask::new(peer.clone(), dialer, self.context.clone(), give_up.clone());
            self.runtime.spawn(task.run());
            kept.push(KeptLink { peer, give_up });
        }
        self.context.metrics.peers.set(i64::try_from(kept.len()).unwrap_or(i64::MAX));
    }
}

/// The task that keeps one link.
struct LinkTask {
    peer: MeshPeer,
    /// Is told once, when the link is to be closed and not dialled again.
    give_up: Arc<Notify>,
    dialer: Dialer,
    context: LinkContext,
    /// The link cannot be dialled or handed over.
    failures: Repeated,
    /// The link comes up, and goes down again.
    ups: Repeated,
    downs: Repeated,
}

impl LinkTask {
    fn new(peer: MeshPeer, dialer: Dialer, context: LinkContext, give_up: Arc<Notify>) -> Self {
        let (failures, ups, downs) = (Repeated::default(), Repeated::default(), Repeated::default());
        Self { peer, give_up, dialer, context, failures, ups, downs }
    }

    /// Keeps the link until the relay leaves `mesh.peers`.
    async fn run(mut self) {
        while let Some(pause) = self.dial().await {
            tokio::select! {
                () = sleep(pause + spread()) => {}
                () = self.give_up.notified() => break,
            }
        }
        info!(host = %self.peer.host, relay = ?self.peer.public_key, "no link is kept to a relay that has left mesh.peers");
    }

    /// Dials and keeps the link until it closes. Returns the pause before it is dialled again; `None` if it is not to be.
    async fn dial(&mut self) -> Option<Duration> {
        let dialled = tokio::select! {
            dialled = self.dialer.connect(&self.context.key) => dialled,
            () = self.give_up.notified() => return None,
        };
        match dialled {
            Ok(client) => self.link(client).await,
            Err(error) => {
                self.note_failure(&error);
                Some(REDIAL)
            }
        }
    }

    /// Logs a failure to dial: the first, one a minute, and those in between at `debug`.
    fn note_failure(&mut self, error: &DialError) {
        self.context.metrics.dial_failed(error.step());
        let (host, mut failure) = (&self.peer.host, ErrorChain(error).to_string());
        if let Some(remedy) = remedy(error, &self.peer) {
            failure = format!("{failure}. What to do: {remedy}");
        }
        match self.failures.note() {
            Some(times) => warn!(times, %host, "cannot link; retrying every 5 s: {failure}"),
            None => debug!(%host, "still cannot link: {failure}"),
        }
    }

    /// Hands the link to the data plane and waits until it is closed. Returns the pause before it is dialled again; `None` if it
    /// is not to be.
    async fn link(&mut self, client: Client) -> Option<Duration> {
        let (events, mut told) = mpsc::unbounded_channel();
        let connection = self.context.plane.next_connection();
        let handle = match self.hand_over(connection, client, events) {
            Ok(handle) => handle,
            Err(error) => {
                if let Some(times) = self.failures.note() {
                    let host = &self.peer.host;
                    warn!(times, connection, %host, "cannot hand the link to the data plane; retrying in 5 s: {error}");
                }
                return Some(REDIAL);
            }
        };
        let failures = self.failures.clear();
        let (mut was_up, mut pause, mut is_kept) = (false, Some(REDIAL), true);
        loop {
            let event = tokio::select! {
                event = told.recv() => event,
                () = self.give_up.notified(), if is_kept => {
                    (is_kept, pause) = (false, None);
                    handle.close(Close::Unlinked);
                    continue;
                }
                // A worker that had not taken the link over was not reached.
                () = sleep(CLOSE_AGAIN), if !is_kept => {
                    handle.close(Close::Unlinked);
                    continue;
                }
            };
            match event {
                None => return pause,
                Some(LinkEvent::Up) => {
                    was_up = true;
                    self.note_up(connection, failures);
                }
                Some(LinkEvent::Down(Close::Unlinked)) => {}
                Some(LinkEvent::Down(reason)) => {
                    if matches!(reason, Close::MeshKeys) && is_kept {
                        pause = Some(REDIAL_AFTER_MESH_KEYS);
                    }
                    self.note_down(connection, reason, was_up);
                }
            }
        }
    }

    /// Logs that the link is up, as often as [`Repeated`] lets it.
    fn note_up(&mut self, connection: u64, failures: u64) {
        let (host, relay) = (&self.peer.host, &self.peer.public_key);
        match self.ups.note() {
            Some(times) => {
                let (times, failures) = ((times > 1).then_some(times), (failures > 0).then_some(failures));
                info!(connection, %host, ?relay, times, failures, "mesh link up");
            }
            None => debug!(connection, %host, "mesh link up again"),
        }
    }

    /// Logs why the link is down and what to do about it, as often as [`Repeated`] lets it.
    fn note_down(&mut self, connection: u64, close: Close, was_up: bool) {
        let (host, reason) = (&self.peer.host, close.label());
        let Some(times) = self.downs.note() else {
            debug!(connection, %host, reason, "mesh link down again");
            return;
        };
        if matches!(close, Close::MeshKeys) {
            warn!(
                times,
                connection,
                %host,
                "mesh link down: the relay announced more keys than mesh.max_keys; if it has that many clients, raise \
                 mesh.max_keys; dialling again in a minute"
            );
        } else if was_up {
            warn!(times, connection, %host, reason, "mesh link down");
        } else {
            warn!(
                times,
                connection,
                %host,
                reason,
                "the relay announced no clients before the link closed; check that both have the same mesh key and that \
                 its mesh.sources allows this address"
            );
        }
    }

    fn hand_over(
        &self,
        id: u64,
        client: Client,
        events: mpsc::UnboundedSender<LinkEvent>,
    ) -> io::Result<LinkHandle> {
        let relay = client.relay();
        let Raw { socket, tls, session, incoming, plaintext } = client.into_raw()?;
        let halves = tls.ok_or_else(|| io::Error::other("a link without TLS"))?;
        set_socket_options(&socket)?;
        let address = socket.peer_addr()?;
        Ok(self.context.plane.attach_link(LinkArrival {
            id,
            relay,
            address,
            transport: Transport::dialled_tls(socket, halves, incoming),
            session,
            frames: plaintext,
            limits: self.context.limits.current(),
            on_event: Box::new(move |event| {
                // Sending fails only if the task is gone, which means that the process is about to end.
                let _ = events.send(event);
            }),
        }))
    }
}

/// Returns a random part of [`REDIAL_SPREAD`], or zero if the system has no random bytes.
fn spread() -> Duration {
    let mut byte = [0];
    getrandom::fill(&mut byte).map_or(Duration::ZERO, |()| REDIAL_SPREAD * u32::from(byte[0]) / 255)
}
