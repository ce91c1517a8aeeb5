//! The stage that reads the header of a proxy: which client a proxy of TCP passes on.
//!
//! Connections from `proxy_protocol.sources` begin with such a header, and all others without. So no client can say in a
//! header where it comes from, and no connection of a proxy is taken for one of a client. The header is taken from the socket
//! byte for byte, because the client's own bytes, which are TLS as a rule, come right behind it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use towpath_relay_proto::proxy_header::{PARSED_LEN, ProxyHeader, ProxyHeaderError};
use towpath_service::repeated::Repeated;
use towpath_wire::host::Prefixes;
use towpath_wire::sync::lock;
use tracing::warn;

use super::listener::{Accepted, ListenerKind};
use super::neighbour::{ALERT, bad_request};
use super::refusal::Refusal;
use super::stream::ClientStream;

/// The proxies whose connections begin with a header, and the log lines about those that do not.
#[derive(Debug)]
pub(crate) struct ProxyProtocol {
    sources: Prefixes,
    faults: Mutex<Repeated>,
}

/// What became of reading a header.
enum Received {
    /// The header is taken from the socket.
    Header(ProxyHeader),
    /// The connection ended without a byte, as that of a health check does.
    Nothing,
    /// The connection begins with something else.
    Unusable(ProxyHeaderError),
}

impl ProxyProtocol {
    pub(crate) fn new(sources: Prefixes) -> Self {
        Self { sources, faults: Mutex::default() }
    }

    /// Whether a connection from `ip` begins with a header.
    pub(super) fn expects_header(&self, ip: IpAddr) -> bool {
        self.sources.contains(ip)
    }

    /// Takes the header from `socket`, within `limit`. Returns the socket, and the client unless the connection is the proxy's
    /// own.
    pub(super) async fn receive(
        &self,
        mut socket: TcpStream,
        accepted: Accepted,
        limit: Duration,
    ) -> Result<(TcpStream, Option<SocketAddr>), Refusal> {
        let received = timeout(limit, take_header(&mut socket))
            .await
            .map_err(|_: Elapsed| Refusal::ProxyHeaderTimeout)?
            .map_err(Refusal::Broken)?;
        match received {
            Received::Header(header) => Ok((socket, header.client)),
            Received::Nothing => Ok((socket, None)),
            Received::Unusable(error) => {
                self.note(accepted, error);
                ClientStream::Plain(socket).say_goodbye(&answer(accepted.kind)).await;
                Err(Refusal::ProxyHeader(error))
            }
        }
    }

    /// Logs a connection without a header that can be used, once a minute at most.
    fn note(&self, Accepted { id, address, kind, .. }: Accepted, error: ProxyHeaderError) {
        let Some(times) = lock(&self.faults).note() else { return };
        warn!(
            connection = id,
            %address,
            listener = ?kind,
            times,
            "closed a connection of a proxy in proxy_protocol.sources, because {error}: turn the header on at the proxy \
             (send-proxy-v2 in HAProxy, proxy_protocol on in nginx), or take its address out of proxy_protocol.sources"
        );
    }
}

/// The bytes that tell the other end that the header is missing. Behind it, the client speaks what the listener does.
fn answer(kind: ListenerKind) -> Vec<u8> {
    match kind {
        ListenerKind::Tls => ALERT.into(),
        ListenerKind::Plain | ListenerKind::Redirect => {
            bad_request("This relay expects a PROXY protocol header from this address.")
        }
    }
}

/// Takes the header from the socket and nothing behind it.
async fn take_header(socket: &mut TcpStream) -> io::Result<Received> {
    let mut start = [0; PARSED_LEN];
    let mut taken = 0;
    loop {
        // A look first: how long the header is stands in it.
        let seen = socket.peek(&mut start[taken..]).await?;
        if seen == 0 {
            return if taken == 0 { Ok(Received::Nothing) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        match ProxyHeader::parse(&start[..taken + seen]) {
            Ok(Some(header)) => {
                pass_over(socket, header.len - taken).await?;
                return Ok(Received::Header(header));
            }
            // All of it is header.
            Ok(None) => {
                socket.read_exact(&mut start[taken..taken + seen]).await?;
                taken += seen;
            }
            Err(error) => return Ok(Received::Unusable(error)),
        }
    }
}

/// Reads so many bytes and forgets them.
async fn pass_over(socket: &mut TcpStream, mut left: usize) -> io::Result<()> {
    let mut buffer = [0; 256];
    while left > 0 {
        let most = left.min(buffer.len());
        match socket.read(&mut buffer[..most]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => left -= read,
        }
    }
    Ok(())
}
