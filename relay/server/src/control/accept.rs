//! The stage accept: takes sockets from a listener, within the bounds on connections that have not logged in.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use towpath_relay_forward::set_socket_options;
use tracing::warn;

use super::frontend::Frontend;
use super::hosts::Hosts;
use super::listener::{Accepted, ListenerKind};
use super::refusal::Refusal;

/// The pause after a failed accept. Usually file descriptors have run out, and another accept would fail at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until it is cancelled.
pub(crate) async fn accept(listener: TcpListener, frontend: Arc<Frontend>, kind: ListenerKind) {
    let limits = &frontend.limits;
    let pending = Arc::new(Semaphore::new(limits.max_pending));
    // All clients of a proxy come from its address.
    let per_host = if kind == ListenerKind::Plain { usize::MAX } else { limits.max_pending_per_host };
    let hosts = Arc::new(Hosts::new(per_host));
    loop {
        // More logins at a time would only slow each one down. Further connections wait in the backlog.
        let Ok(permit) = pending.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, address)) => {
                let accepted = Accepted { id: frontend.plane.next_connection(), address, kind };
                // The connection is closed, because a waiting one would hold a permit.
                let Some(host_permit) = hosts.permit(address.ip()) else {
                    frontend.refuse(accepted, &Refusal::HostLimit);
                    continue;
                };
                if let Err(error) = set_socket_options(&socket) {
                    warn!(connection = accepted.id, %address, "cannot set the options of a new connection's socket: {error}");
                }
                let frontend = frontend.clone();
                frontend.metrics.pending.inc();
                tokio::spawn(async move {
                    frontend.serve(socket, accepted).await;
                    frontend.metrics.pending.dec();
                    drop((host_permit, permit));
                });
            }
            Err(error) => {
                frontend.metrics.accept_errors.inc();
                warn!("cannot accept a connection, retrying in 100 ms: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
