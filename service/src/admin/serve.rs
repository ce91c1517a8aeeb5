//! Connections: how many are served at a time, and for how long.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;
use tokio::{select, time};
use tracing::{debug, info, warn};

use super::door::{Door, DoorKind, Visitor};
use super::pages::Pages;
use crate::ErrorChain;
use crate::limits::SpareFile;
use crate::repeated::Repeated;

/// Connections of a door served at a time; more take the places of older ones. A scraper, two probes and a person need four.
const MAX_CONNECTIONS: usize = 16;

/// How long a connection may take from being accepted to the end of its request's head. Clients are near.
const HEAD_DEADLINE: Duration = Duration::from_secs(1);

/// The pause after a failed accept. Usually file descriptors have run out, and another accept would fail at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until it is cancelled; without a door, it only waits for that.
pub(super) async fn accept(door: Option<Door>, pages: &Arc<Pages>) {
    let Some(door) = door else { return std::future::pending().await };
    let mut connections = Connections::default();
    let (mut spare, mut failures) = (SpareFile::open(), Repeated::default());
    loop {
        let accepted = select! {
            times = failures.over() => {
                info!(times, "admin connections are accepted again");
                continue;
            }
            accepted = door.accept() => accepted,
        };
        match accepted {
            Ok(visitor) => connections.start(visitor, pages),
            Err(error) => {
                if let Some(times) = failures.note() {
                    warn!(times, %error, "cannot accept admin connections; raise the limit on open files if they have run out");
                }
                // The spare file makes room for one connection at a time.
                let served = spare.lend(async {
                    if let Ok(Ok(visitor)) = time::timeout(ACCEPT_PAUSE, door.accept()).await {
                        receive(visitor, pages, &AtomicBool::default()).await;
                    } else {
                        time::sleep(ACCEPT_PAUSE).await;
                    }
                });
                served.await;
            }
        }
    }
}

/// The connections that are served, the oldest first.
#[derive(Default)]
struct Connections(VecDeque<Connection>);

struct Connection {
    /// Its request has come.
    has_asked: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Connections {
    /// Serves a connection. If as many are served as may be, the oldest whose request has not come is closed, or else the
    /// oldest: a client that sends nothing must not make a probe wait.
    fn start(&mut self, visitor: Visitor, pages: &Arc<Pages>) {
        self.0.retain(|connection| !connection.task.is_finished());
        if self.0.len() >= MAX_CONNECTIONS {
            let silent = self.0.iter().position(|connection| !connection.has_asked.load(Ordering::Relaxed));
            if let Some(oldest) = self.0.remove(silent.unwrap_or(0)) {
                oldest.task.abort();
            }
        }
        let (pages, has_asked) = (pages.clone(), Arc::new(AtomicBool::default()));
        let asked = has_asked.clone();
        let task = tokio::spawn(async move { receive(visitor, &pages, &asked).await }).abort_handle();
        self.0.push_back(Connection { has_asked, task });
    }
}

/// Serves one request, which it notes in `has_asked`. A connection that fails is logged at `debug` only.
async fn receive(visitor: Visitor, pages: &Pages, has_asked: &AtomicBool) {
    let peer = visitor.to_string();
    match visitor {
        Visitor::Network(stream, _) => serve(stream, &peer, DoorKind::Network, pages, has_asked).await,
        Visitor::Socket(stream) => serve(stream, &peer, DoorKind::Socket, pages, has_asked).await,
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: &str,
    door: DoorKind,
    pages: &Pages,
    has_asked: &AtomicBool,
) {
    let service = service_fn(async |request: Request<Incoming>| {
        has_asked.store(true, Ordering::Relaxed);
        // No request has a body that is read.
        Ok::<_, Infallible>(pages.answer(&request.map(drop), door).await)
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .serve_connection(TokioIo::new(stream), service);
    match time::timeout(door.deadline(), connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(peer, error = %ErrorChain(&error), "admin connection failed"),
        Err(_) => debug!(peer, "closed an admin connection that took too long"),
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::super::Readiness;
    use super::*;

    /// The clock of tokio goes on when nothing else can.
    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_whole_head_is_closed_after_a_second() {
        let pages = Pages::new(Registry::new(), Readiness::new(), Vec::new(), None);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        for head in [&b""[..], b"GET /healthz HTTP/1.1\r\n"] {
            let address = listener.local_addr().expect("an address");
            let mut client = TcpStream::connect(address).await.expect("a connection");
            client.write_all(head).await.expect("the kernel takes the bytes");
            let (stream, peer) = listener.accept().await.expect("a connection");
            let (begun, has_asked) = (time::Instant::now(), AtomicBool::default());
            receive(Visitor::Network(stream, peer), &pages, &has_asked).await;
            assert_eq!(begun.elapsed(), HEAD_DEADLINE);
            assert!(!has_asked.into_inner());
        }
    }
}
