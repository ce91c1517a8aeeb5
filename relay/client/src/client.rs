//! A logged-in connection.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use rustls::ProtocolVersion;
use tokio::sync::Mutex;
use towpath_relay_proto::session::ClientSession;
use towpath_wire::derp::frame::{ClientFrame, PingData};
use towpath_wire::derp::info::ServerInfo;
use towpath_wire::key::NodePublic;

use crate::event::{Event, Received};
use crate::incoming::{Incoming, RecvError, Source};
use crate::outgoing::{Outgoing, SendError, check_len};
use crate::tls::{TlsReader, TlsWriter};
use crate::websocket::Unwrapper;

/// The facts about a logged-in connection.
#[derive(Clone, Debug)]
pub(crate) struct Welcome {
    pub(crate) relay: NodePublic,
    pub(crate) info: ServerInfo,
    pub(crate) tls_version: Option<ProtocolVersion>,
    pub(crate) fast_start: bool,
}

/// A connection that is logged in, taken apart.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: tokio::net::TcpStream,
    pub(crate) tls: Option<(TlsReader, TlsWriter)>,
    /// Where DERP is in messages.
    pub(crate) websocket: Option<Unwrapper>,
    /// Ciphertext that was read and not opened.
    pub(crate) sealed: Vec<u8>,
    /// Bytes that were opened and not used.
    pub(crate) opened: Vec<u8>,
}

impl Connection {
    /// A connection without TLS.
    pub(crate) const fn plain(socket: tokio::net::TcpStream, websocket: Option<Unwrapper>) -> Self {
        Self { socket, tls: None, websocket, sealed: Vec::new(), opened: Vec::new() }
    }
}

/// A client of a relay.
///
/// A call may be dropped before it is done: bytes that it began to send go out before those of the next call, and
/// nothing received is lost.
#[derive(Debug)]
pub struct Client {
    incoming: Incoming,
    outgoing: Outgoing,
    welcome: Welcome,
}

/// The sending half of a [`Client`]. Clones send on the same connection, one after the other.
#[derive(Clone, Debug)]
pub struct ClientSender(Arc<Mutex<Outgoing>>);

/// The receiving half of a [`Client`].
#[derive(Debug)]
pub struct ClientReceiver {
    incoming: Incoming,
    sender: ClientSender,
}

/// The parts of a [`Client`], for programs that do their own reading and writing.
#[derive(Debug)]
pub struct Raw {
    /// The socket, non-blocking.
    pub socket: TcpStream,
    /// The two halves of TLS; `None` on plain TCP.
    pub tls: Option<(TlsReader, TlsWriter)>,
    /// The place in the stream of frames.
    pub session: ClientSession,
    /// Ciphertext that was read and not opened.
    pub incoming: Vec<u8>,
    /// Plaintext that was opened and not used; it comes before what `incoming` opens to.
    pub plaintext: Vec<u8>,
}

impl Client {
    /// The client on a connection. `frames` came behind the login.
    pub(crate) fn new(
        connection: Connection,
        session: ClientSession,
        frames: Vec<u8>,
        welcome: Welcome,
    ) -> Self {
        let Connection { socket, tls, websocket, sealed, opened } = connection;
        let (reader, writer) = tls.unzip();
        let (read_half, write_half) = socket.into_split();
        let outgoing = Outgoing::new(write_half, writer, websocket.is_some());
        let source = Source { socket: read_half, reader, sealed };
        Self { incoming: Incoming::new(source, session, opened, frames, websocket), outgoing, welcome }
    }

    /// The relay's node key.
    #[must_use]
    pub const fn relay(&self) -> NodePublic {
        self.welcome.relay
    }

    /// What the relay said at login.
    #[must_use]
    pub const fn server_info(&self) -> ServerInfo {
        self.welcome.info
    }

    /// The version of TLS; `None` on plain TCP.
    #[must_use]
    pub const fn tls_version(&self) -> Option<ProtocolVersion> {
        self.welcome.tls_version
    }

    /// Whether the login did without an HTTP response.
    #[must_use]
    pub const fn fast_start(&self) -> bool {
        self.welcome.fast_start
    }

    /// Sends a packet.
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub async fn send(&mut self, to: NodePublic, packet: &[u8]) -> Result<(), SendError> {
        check_len(packet)?;
        self.outgoing.send(&ClientFrame::SendPacket { to, packet }).await
    }

    /// Sends many packets at the price of few: sealed and written together, 64 KiB at a time.
    ///
    /// # Errors
    ///
    /// See [`SendError`]; packets before one that is too long are sent.
    pub async fn send_batch<'a>(
        &mut self,
        packets: impl IntoIterator<Item = (NodePublic, &'a [u8])>,
    ) -> Result<(), SendError> {
        self.outgoing.send_batch(packets).await
    }

    /// Says whether this relay is the client's home.
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub async fn note_preferred(&mut self, preferred: bool) -> Result<(), SendError> {
        self.outgoing.send(&ClientFrame::NotePreferred(preferred)).await
    }

    /// Asks the relay for an [`Event::Pong`] with the same bytes.
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub async fn ping(&mut self, data: PingData) -> Result<(), SendError> {
        self.outgoing.send(&ClientFrame::Ping(data)).await
    }

    /// Asks the relay to announce every key that is connected, comes or goes. The relay closes the connection if the
    /// client has no right to watch.
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub async fn watch(&mut self) -> Result<(), SendError> {
        self.outgoing.send(&ClientFrame::WatchConns).await
    }

    /// Returns the next event. Answers pings meanwhile.
    ///
    /// # Errors
    ///
    /// See [`RecvError`].
    pub async fn recv(&mut self) -> Result<Event, RecvError> {
        loop {
            match self.incoming.next().await? {
                Received::Event(event) => return Ok(event),
                Received::Ping(data) => self.outgoing.send(&ClientFrame::Pong(data)).await?,
                Received::WebSocketPing(payload) => self.outgoing.pong(&payload).await?,
                Received::WebSocketClose => self.outgoing.answer_close().await,
                Received::Ignored => {}
            }
        }
    }

    /// Tells the relay that this is the end.
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub async fn close(mut self) -> Result<(), SendError> {
        self.outgoing.close().await
    }

    /// Two halves for two tasks.
    #[must_use]
    pub fn split(self) -> (ClientSender, ClientReceiver) {
        let sender = ClientSender(Arc::new(Mutex::new(self.outgoing)));
        (sender.clone(), ClientReceiver { incoming: self.incoming, sender })
    }

    /// Takes the client apart. Only between calls that were awaited to their end: what was begun to be sent is lost.
    ///
    /// # Errors
    ///
    /// If the socket cannot be taken from the runtime, or the client speaks WebSocket
    /// ([`Unsupported`](io::ErrorKind::Unsupported)).
    pub fn into_raw(self) -> io::Result<Raw> {
        if self.outgoing.is_websocket() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "a WebSocket cannot be taken apart"));
        }
        let (Source { socket: read_half, reader, sealed: incoming }, session, plaintext) =
            self.incoming.into_parts();
        let (write_half, writer) = self.outgoing.into_parts();
        let socket = read_half.reunite(write_half).map_err(io::Error::other)?.into_std()?;
        Ok(Raw { socket, tls: reader.zip(writer), session, incoming, plaintext })
    }
}

impl ClientSender {
    /// As [`Client::send`].
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub async fn send(&self, to: NodePublic, packet: &[u8]) -> Result<(), SendError> {
        check_len(packet)?;
        self.0.lock().await.send(&ClientFrame::SendPacket { to, packet }).await
    }

    /// As [`Client::send_batch`].
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub async fn send_batch<'a>(
        &self,
        packets: impl IntoIterator<Item = (NodePublic, &'a [u8])>,
    ) -> Result<(), SendError> {
        self.0.lock().await.send_batch(packets).await
    }

    /// As [`Client::note_preferred`].
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub async fn note_preferred(&self, preferred: bool) -> Result<(), SendError> {
        self.0.lock().await.send(&ClientFrame::NotePreferred(preferred)).await
    }

    /// As [`Client::ping`].
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub async fn ping(&self, data: PingData) -> Result<(), SendError> {
        self.0.lock().await.send(&ClientFrame::Ping(data)).await
    }

    /// Tells the relay that this is the end.
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub async fn close(&self) -> Result<(), SendError> {
        self.0.lock().await.close().await
    }
}

impl ClientReceiver {
    /// As [`Client::recv`].
    ///
    /// # Errors
    ///
    /// See [`RecvError`].
    pub async fn recv(&mut self) -> Result<Event, RecvError> {
        loop {
            match self.incoming.next().await? {
                Received::Event(event) => return Ok(event),
                // Waits for a sender that is held up; no relay makes its reading depend on ours.
                Received::Ping(data) => self.sender.0.lock().await.send(&ClientFrame::Pong(data)).await?,
                Received::WebSocketPing(payload) => self.sender.0.lock().await.pong(&payload).await?,
                Received::WebSocketClose => {
                    // A relay that closes may have ended its reading: a sender that is held up is not waited for.
                    if let Ok(mut outgoing) = self.sender.0.try_lock() {
                        outgoing.answer_close().await;
                    }
                }
                Received::Ignored => {}
            }
        }
    }
}
