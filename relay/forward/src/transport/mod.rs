//! Transports: how the frames of a connection get from and to its peer.
//!
//! A transport owns what carries its bytes. The control plane makes a
//! [`Transport`] after the login; the data plane takes it apart into the side that the owner reads ([`Inbound`]) and
//! the side that any worker writes ([`Outbound`]).
//!
//! | transport | carries DERP in | file |
//! |---|---|---|
//! | TLS, accepted or dialled | TLS records on a TCP socket | `tls.rs` |
//! | plain | bytes on a TCP socket, behind a proxy that ends TLS | `plain.rs` |
//! | WebSocket | binary messages, over either of the above | `websocket.rs` |
//!
//! All three are byte streams and share `stream.rs`. A transport that is not a byte stream has a variant of its own in
//! both enums, has no descriptor to register, and takes input for its outbound side by `Egress::with_transmit`.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use towpath_relay_proto::egress::{Sent, Transmit};
use towpath_relay_proto::outbox::Batch;
use towpath_relay_proto::session::Close;
use towpath_tls::{Client, Reader, Server, Writer};
use towpath_wire::labels;
use towpath_wire::pool::BufferPool;
use towpath_wire::time::Instant;

mod plain;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod websocket;

pub(crate) use stream::{FrameSink, READ_SIZE, ReadOutcome, WriteScratch};
pub use websocket::{Reply, Unwrapper, WebSocketEnd};

use plain::Plain;
use stream::{StreamInbound, StreamOutbound};
use websocket::{WebSocketReader, WebSocketWriter};

/// How long the kernel waits for the acknowledgement of bytes before it gives a connection up, unless told otherwise;
/// derper's value.
pub(crate) const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a connection is silent before the kernel probes it; derper's value.
const TCP_KEEPALIVE: Duration = Duration::from_secs(600);
/// Unsent bytes that the kernel takes for a connection. Without a bound it takes megabytes, and packets that wait there
/// can be neither dropped nor overtaken.
const UNSENT_IN_KERNEL: u32 = 128 * 1024;

/// Sets the options that every TCP socket of the relay has.
///
/// # Errors
///
/// The first option that the kernel refuses.
pub fn set_socket_options(socket: &impl std::os::fd::AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT_IN_KERNEL)?;
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE))
}

/// Both sides of a connection's transport, on their way to a worker.
#[derive(Debug)]
pub struct Transport {
    pub(crate) inbound: Inbound,
    pub(crate) outbound: Outbound,
}

impl Transport {
    /// TLS on an accepted socket, which does not block. `incoming`: bytes that were read and not opened.
    #[must_use]
    pub fn tls(
        socket: TcpStream,
        (reader, writer): (Reader<Server>, Writer<Server>),
        incoming: Vec<u8>,
    ) -> Self {
        let socket = Arc::new(socket);
        Self {
            inbound: Inbound::Tls(StreamInbound::new(socket.clone(), reader, incoming)),
            outbound: Outbound::Tls(StreamOutbound::new(socket, writer)),
        }
    }

    /// TLS on a socket that this relay has dialled, which does not block. `incoming`: bytes that were read and not
    /// opened.
    #[must_use]
    pub fn dialled_tls(
        socket: TcpStream,
        (reader, writer): (Reader<Client>, Writer<Client>),
        incoming: Vec<u8>,
    ) -> Self {
        let socket = Arc::new(socket);
        Self {
            inbound: Inbound::DialledTls(Box::new(StreamInbound::new(socket.clone(), reader, incoming))),
            outbound: Outbound::DialledTls(Box::new(StreamOutbound::new(socket, writer))),
        }
    }

    /// DERP on an accepted socket without TLS, which does not block.
    #[must_use]
    pub fn plain(socket: TcpStream) -> Self {
        let socket = Arc::new(socket);
        Self {
            inbound: Inbound::Plain(Box::new(StreamInbound::new(socket.clone(), Plain, Vec::new()))),
            outbound: Outbound::Plain(Box::new(StreamOutbound::new(socket, Plain))),
        }
    }

    /// WebSocket on an accepted socket, which does not block; in TLS if its halves are given.
    /// `unwrapper` is the place in the stream of messages. `incoming`: bytes that were read and not opened; none
    /// without TLS.
    #[must_use]
    pub fn websocket(
        socket: TcpStream,
        halves: Option<(Reader<Server>, Writer<Server>)>,
        mut unwrapper: Unwrapper,
        incoming: Vec<u8>,
    ) -> Self {
        let (socket, (reader, writer)) = (Arc::new(socket), halves.unzip());
        let writer = WebSocketWriter::new(writer, unwrapper.take_reply());
        let reader = WebSocketReader::new(reader, unwrapper);
        Self {
            inbound: Inbound::WebSocket(Box::new(StreamInbound::new(socket.clone(), reader, incoming))),
            outbound: Outbound::WebSocket(Box::new(StreamOutbound::new(socket, writer))),
        }
    }
}

labels! {
    /// What carries the frames of a connection.
    pub enum TransportKind {
        /// TLS, accepted or dialled.
        Tls = "tls",
        /// TCP, behind a proxy that ends TLS.
        Plain = "plain",
        /// WebSocket, over either.
        WebSocket = "websocket",
    }
}

/// The side that the owner of a connection reads.
#[derive(Debug)]
pub(crate) enum Inbound {
    Tls(StreamInbound<Reader<Server>>),
    DialledTls(Box<StreamInbound<Reader<Client>>>),
    Plain(Box<StreamInbound<Plain>>),
    WebSocket(Box<StreamInbound<WebSocketReader>>),
}

#[cfg(test)]
impl Inbound {
    /// An inbound side without TLS that shares its socket.
    pub(crate) fn sharing(socket: &Arc<TcpStream>) -> Self {
        Self::Plain(Box::new(StreamInbound::new(socket.clone(), Plain, Vec::new())))
    }
}

// The other transports cost a connection in TLS nothing.
const _: () = assert!(size_of::<Inbound>() == size_of::<StreamInbound<Reader<Server>>>());

impl Inbound {
    /// Reads once and hands the frames that came to `sink`. `buffer` has room for [`READ_SIZE`] and a record more.
    #[inline]
    pub(crate) fn read(
        &mut self,
        buffer: &mut [u8],
        sink: &mut impl FrameSink,
    ) -> Result<ReadOutcome, Close> {
        match self {
            Self::Tls(stream) => stream.read(buffer, sink),
            Self::DialledTls(stream) => stream.read(buffer, sink),
            Self::Plain(stream) => stream.read(buffer, sink),
            Self::WebSocket(stream) => stream.read(buffer, sink),
        }
    }

    /// Hands the frames in what was read before the worker took over to `sink`.
    pub(crate) fn resume(&mut self, sink: &mut impl FrameSink) -> Result<(), Close> {
        match self {
            Self::Tls(stream) => stream.resume(sink),
            Self::DialledTls(stream) => stream.resume(sink),
            Self::Plain(stream) => stream.resume(sink),
            Self::WebSocket(stream) => stream.resume(sink),
        }
    }

    /// Takes the reply that the last read made due. The outbound side has to send it.
    #[inline]
    pub(crate) fn take_reply(&mut self) -> Option<Reply> {
        match self {
            Self::Tls(_) | Self::DialledTls(_) | Self::Plain(_) => None,
            Self::WebSocket(stream) => stream.decoder_mut().take_reply(),
        }
    }

    /// Notes that the peer has closed. No later event reports that there is something to read.
    pub(crate) fn note_hang_up(&mut self) {
        match self {
            Self::Tls(stream) => stream.note_hang_up(),
            Self::DialledTls(stream) => stream.note_hang_up(),
            Self::Plain(stream) => stream.note_hang_up(),
            Self::WebSocket(stream) => stream.note_hang_up(),
        }
    }

    /// The number of the record that has begun and is not whole; `None` if there is none.
    #[inline]
    pub(crate) fn unfinished(&self) -> Option<u32> {
        match self {
            Self::Tls(stream) => stream.unfinished(),
            Self::DialledTls(stream) => stream.unfinished(),
            Self::Plain(stream) => stream.unfinished(),
            Self::WebSocket(stream) => stream.unfinished(),
        }
    }

    /// Bytes of a record that has begun and is not whole.
    pub(crate) fn held(&self) -> usize {
        match self {
            Self::Tls(stream) => stream.held(),
            Self::DialledTls(stream) => stream.held(),
            Self::Plain(stream) => stream.held(),
            Self::WebSocket(stream) => stream.held(),
        }
    }

    /// Gives up a record that is not whole and returns its buffer.
    pub(crate) fn clear(&mut self, pool: &mut BufferPool) {
        match self {
            Self::Tls(stream) => stream.clear(pool),
            Self::DialledTls(stream) => stream.clear(pool),
            Self::Plain(stream) => stream.clear(pool),
            Self::WebSocket(stream) => stream.clear(pool),
        }
    }

    /// What carries the frames.
    pub(crate) const fn kind(&self) -> TransportKind {
        match self {
            Self::Tls(_) | Self::DialledTls(_) => TransportKind::Tls,
            Self::Plain(_) => TransportKind::Plain,
            Self::WebSocket(_) => TransportKind::WebSocket,
        }
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Tls(stream) => stream.socket(),
            Self::DialledTls(stream) => stream.socket(),
            Self::Plain(stream) => stream.socket(),
            Self::WebSocket(stream) => stream.socket(),
        }
    }

    /// The descriptor whose events belong to this connection alone.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.socket().as_raw_fd()
    }

    /// Makes the kernel wait for at least `patience` until it gives up a peer that acknowledges nothing.
    pub(crate) fn set_patience(&self, patience: Duration) -> io::Result<()> {
        if patience <= TCP_USER_TIMEOUT {
            return Ok(());
        }
        SockRef::from(self.socket()).set_tcp_user_timeout(Some(patience))
    }

    /// How long the kernel waits until it gives up a peer that acknowledges nothing.
    #[cfg(test)]
    pub(crate) fn patience(&self) -> io::Result<Option<Duration>> {
        SockRef::from(self.socket()).tcp_user_timeout()
    }
}

/// The side that any worker writes.
#[derive(Debug)]
pub(crate) enum Outbound {
    Tls(StreamOutbound<Writer<Server>>),
    DialledTls(Box<StreamOutbound<Writer<Client>>>),
    Plain(Box<StreamOutbound<Plain>>),
    WebSocket(Box<StreamOutbound<WebSocketWriter>>),
}

// The other transports cost a connection in TLS nothing.
const _: () = assert!(size_of::<Outbound>() == size_of::<StreamOutbound<Writer<Server>>>());

impl Outbound {
    /// Closes the transport, after its closing messages as far as the socket takes them without waiting.
    pub(crate) fn end(&mut self, reason: Close, pool: &mut BufferPool, scratch: &mut WriteScratch) {
        match self {
            Self::Tls(stream) => stream.end(reason, pool, scratch),
            Self::DialledTls(stream) => stream.end(reason, pool, scratch),
            Self::Plain(stream) => stream.end(reason, pool, scratch),
            Self::WebSocket(stream) => stream.end(reason, pool, scratch),
        }
    }

    /// An outbound side without TLS that shares its socket.
    #[cfg(test)]
    pub(crate) fn sharing(socket: &Arc<TcpStream>) -> Self {
        Self::Plain(Box::new(StreamOutbound::new(socket.clone(), Plain)))
    }

    /// Takes over the reply of the inbound side. It is sent with the next transmission.
    pub(crate) fn owe(&mut self, reply: Reply) {
        match self {
            Self::Tls(_) | Self::DialledTls(_) | Self::Plain(_) => {}
            Self::WebSocket(stream) => {
                if let Some(encoder) = stream.encoder_mut() {
                    encoder.owe(reply);
                }
            }
        }
    }

    /// When the peer last took bytes.
    pub(crate) fn progress(&self) -> Instant {
        match self {
            Self::Tls(stream) => stream.progress(),
            Self::DialledTls(stream) => stream.progress(),
            Self::Plain(stream) => stream.progress(),
            Self::WebSocket(stream) => stream.progress(),
        }
    }
}

impl Transmit for Outbound {
    type Scratch = WriteScratch;

    fn send(
        &mut self,
        batch: Option<&mut Batch>,
        now: Instant,
        pool: &mut BufferPool,
        scratch: &mut WriteScratch,
    ) -> Sent {
        match self {
            Self::Tls(stream) => stream.send(batch, now, pool, scratch),
            Self::DialledTls(stream) => stream.send(batch, now, pool, scratch),
            Self::Plain(stream) => stream.send(batch, now, pool, scratch),
            Self::WebSocket(stream) => stream.send(batch, now, pool, scratch),
        }
    }
}
