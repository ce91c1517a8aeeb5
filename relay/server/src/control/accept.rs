//! The stage accept: takes sockets from a listener, within the bounds on connections.
//!
//! It never stops accepting: a backlog that nothing empties would be the attacker's to fill. What is above a bound is closed,
//! or an older connection is, see `towpath_relay_proto::account`.

use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use towpath_relay_forward::set_socket_options;
use towpath_relay_proto::account::Origin;
use towpath_service::limits::SpareFile;
use towpath_service::repeated::Repeated;
use towpath_wire::host::Host;
use tracing::{info, warn};

use super::frontend::Frontend;
use super::listener::{Accepted, ListenerKind};
use super::refusal::Refusal;

/// The pause after a failed accept that nothing can be done about, because another accept would fail at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until it is cancelled.
pub(crate) async fn accept(listener: TcpListener, frontend: Arc<Frontend>, kind: ListenerKind) {
    let mut spare = SpareFile::open();
    let (mut failures, mut option_failures) = (Repeated::default(), Repeated::default());
    loop {
        let accepted = tokio::select! {
            times = failures.over() => {
                info!(times, listener = ?kind, "connections are accepted again");
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, address)) => {
                if let Err(error) = set_socket_options(&socket)
                    && let Some(times) = option_failures.note()
                {
                    warn!(times, %address, "cannot set the options of a new connection's socket: {error}");
                }
                begin(&frontend, socket, accepted_by(&frontend, kind, address));
            }
            Err(error) => {
                frontend.metrics.accept_errors.inc();
                if let Some(times) = failures.note() {
                    warn!(
                        times,
                        listener = ?kind,
                        "cannot accept connections: {error}; if open files have run out, raise their limit or lower \
                         login.max_connections"
                    );
                }
                if !SpareFile::helps(&error) || !make_room(&listener, kind, &frontend, &mut spare).await {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Closes a connection that is pending and the next one of the backlog, so that neither fills up when no more files can be
/// opened. Returns whether it could take one from the backlog.
async fn make_room(
    listener: &TcpListener,
    kind: ListenerKind,
    frontend: &Frontend,
    spare: &mut SpareFile,
) -> bool {
    frontend.accounts.displace_silent();
    let accepted = spare.lend(async {
        tokio::select! {
            biased;
            accepted = listener.accept() => accepted.ok().map(|(_, address)| address),
            () = ready(()) => None,
        }
    });
    let Some(address) = accepted.await else { return false };
    frontend.refuse(accepted_by(frontend, kind, address), &Refusal::OpenFiles);
    true
}

/// Starts the stages of a new connection, or closes it if a bound is reached.
fn begin(frontend: &Arc<Frontend>, socket: TcpStream, accepted: Accepted) {
    let Accepted { id, address, kind, origin } = accepted;
    let is_proxy = frontend.proxy_protocol.expects_header(address.ip());
    if kind == ListenerKind::Plain && !is_proxy && !frontend.http.proxies.allow(address.ip()) {
        return frontend.refuse(accepted, &Refusal::NotAProxy);
    }
    let (standing, displaced) = match frontend.accounts.open(id, origin) {
        Ok(opened) => opened,
        Err(exceeded) => return frontend.refuse(accepted, &Refusal::Exceeded(exceeded)),
    };
    let frontend = frontend.clone();
    frontend.metrics.pending.inc();
    tokio::spawn(async move {
        frontend.serve(socket, accepted, standing, displaced).await;
        frontend.metrics.pending.dec();
    });
}

/// What is known of a connection from `address` that has just been accepted.
fn accepted_by(frontend: &Frontend, kind: ListenerKind, address: SocketAddr) -> Accepted {
    let (ip, host) = (address.ip(), Host::of(address.ip()));
    let origin = match kind {
        ListenerKind::Plain => Origin::Proxy(host),
        ListenerKind::Tls | ListenerKind::Redirect if frontend.proxy_protocol.expects_header(ip) => {
            Origin::Proxy(host)
        }
        ListenerKind::Tls | ListenerKind::Redirect => Origin::Client(host),
    };
    Accepted { id: frontend.plane.next_connection(), address, kind, origin }
}
