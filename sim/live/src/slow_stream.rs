//! A stretch of network on the way of a TCP connection: a proxy that delivers everything later.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Reads of 16 KiB that may be on the way in a direction.
const ON_THE_WAY: usize = 1024;
const READ: usize = 16 << 10;

/// A proxy of TCP that takes as long for each byte as the network between two places. It ends, with all its connections, when dropped.
#[derive(Debug)]
pub struct SlowStream {
    address: SocketAddr,
    /// How often the connections were forgotten.
    forgotten: Arc<AtomicU64>,
    tasks: JoinSet<()>,
}

impl SlowStream {
    /// Listens on a port of loopback, and connects to `target` what connects there. Each direction takes `delay`.
    ///
    /// # Errors
    ///
    /// If the system has no port.
    pub async fn start(target: SocketAddr, delay: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        let forgotten = Arc::new(AtomicU64::new(0));
        tasks.spawn(accept(listener, target, delay, forgotten.clone()));
        Ok(Self { address, forgotten, tasks })
    }

    /// The address to connect to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets the connections carry nothing more in either direction, which neither end notices, as when a NAT has forgotten them. Later
    /// ones work.
    pub fn forget(&self) {
        self.forgotten.fetch_add(1, Ordering::Relaxed);
    }

    /// Breaks all connections, and accepts no more.
    pub async fn kill(&mut self) {
        self.tasks.shutdown().await;
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, delay: Duration, forgotten: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let began = forgotten.load(Ordering::Relaxed);
        let forgotten = forgotten.clone();
        connections.spawn(async move {
            let works = || forgotten.load(Ordering::Relaxed) == began;
            // The handshake of TCP takes a round trip.
            sleep_until(Instant::now() + 2 * delay).await;
            if let Ok(server) = TcpStream::connect(target).await {
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::select! {
                    () = carry(from_client, to_server, delay, &works) => {}
                    () = carry(from_server, to_client, delay, &works) => {}
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Carries bytes in one direction until that ends, as long as it `works`. Not even the end is carried then.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration, works: impl Fn() -> bool) {
    let (on_the_way, mut due) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let read = async move {
        loop {
            let mut bytes = Vec::with_capacity(READ);
            match from.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            if on_the_way.send((Instant::now() + delay, bytes)).await.is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((at, bytes)) = due.recv().await {
            sleep_until(at).await;
            if works() && to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
    if !works() {
        std::future::pending::<()>().await;
    }
}
