//! A TLS connection on tokio, from its first byte until it is taken apart.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::{fmt, io};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, InvalidMessage, ProtocolVersion, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::error::TlsError;
use crate::exporter::ExporterSecret;
use crate::layer::RecordLayer;
use crate::records::{Reader, Records, Stopped, Writer};
use crate::seal::SealBuffer;
use crate::side::{Client, RustlsSide, Server, Side};

/// How much is read at once. Handshakes and logins are short; what comes after is read elsewhere.
const READ_SIZE: usize = 4 * 1024;
/// How much a client may send of a handshake message before it is whole. A ClientHello has less than 2 KiB, or 4 with a
/// certificate's worth of extensions; rustls by itself would keep 64 KiB for each connection.
const MAX_UNFINISHED: usize = 16 * 1024;
/// How much may wait to be written before a writer is held up.
const MAX_UNSENT: usize = 64 * 1024;

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The socket failed, or the peer closed it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The TLS handshake failed.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The peer speaks HTTP without TLS.
    #[error("the peer speaks plain HTTP, not TLS")]
    PlainHttp,
    /// The peer's bytes are no records of TLS.
    #[error("the peer's bytes are not TLS")]
    NotTls,
    /// The client's handshake message is longer than this server keeps. The client is told nothing.
    #[error("a handshake message is longer than 16 KiB")]
    TooLong,
}

/// A TLS connection over a byte stream.
pub struct Stream<IO, S: Side> {
    io: IO,
    records: Records<S>,
    /// `None` in TLS 1.2, and where the configuration has no `ExporterLog`.
    exporter: Option<ExporterSecret>,
    /// Ciphertext that was read and not used.
    incoming: Vec<u8>,
    /// Plaintext that was opened and, from `taken` on, not read.
    plaintext: Vec<u8>,
    taken: usize,
    /// Records of which those from `sent` on are not written.
    out: SealBuffer,
    sent: usize,
}

/// The parts of a [`Stream`].
#[derive(Debug)]
pub struct Parts<IO, S: Side> {
    /// The byte stream below.
    pub io: IO,
    /// The reading half.
    pub reader: Reader<S>,
    /// The writing half.
    pub writer: Writer<S>,
    /// Ciphertext that was read and not opened: the start of a record, as a rule nothing.
    pub incoming: Vec<u8>,
    /// Plaintext that was opened and not read.
    pub plaintext: Vec<u8>,
}

impl<IO: fmt::Debug, S: Side> fmt::Debug for Stream<IO, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("io", &self.io).finish_non_exhaustive()
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Stream<IO, Server> {
    /// Does the handshake with a client.
    ///
    /// # Errors
    ///
    /// See [`HandshakeError`]. The peer has been told by an alert, as far as the socket took it.
    pub async fn accept(io: IO, config: Arc<ServerConfig>) -> Result<Self, HandshakeError> {
        let connection = <Server as RustlsSide>::Connection::new(config).map_err(TlsError::Rustls)?;
        Self::handshake(io, connection, MAX_UNFINISHED).await
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Stream<IO, Client> {
    /// Does the handshake with the server `name`. The handshake ends with the client's own last flight. If the server
    /// rejects it, the first read reports that.
    ///
    /// # Errors
    ///
    /// See [`HandshakeError`]. The peer has been told by an alert, as far as the socket took it.
    pub async fn connect(
        io: IO,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, HandshakeError> {
        let connection = <Client as RustlsSide>::Connection::new(config, name).map_err(TlsError::Rustls)?;
        Self::handshake(io, connection, usize::MAX).await
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin, S: Side> Stream<IO, S> {
    /// Does the handshake. `max_unfinished`: bytes that the peer may have sent of a message before it is whole.
    async fn handshake(
        io: IO,
        connection: S::Connection,
        max_unfinished: usize,
    ) -> Result<Self, HandshakeError> {
        let mut stream = Self {
            io,
            records: Records::new(connection),
            exporter: None,
            incoming: Vec::new(),
            plaintext: Vec::new(),
            taken: 0,
            out: SealBuffer::default(),
            sent: 0,
        };
        loop {
            let (stopped, secret) = ExporterSecret::of(|| stream.advance());
            stream.exporter = secret.or(stream.exporter);
            let owed = std::mem::take(&mut stream.records.owed);
            stream.io.write_all(&owed).await?;
            let stopped = stopped.map_err(|error| stream.failure(error))?;
            match stopped {
                Stopped::Handshaking if stream.incoming.len() > max_unfinished => {
                    return Err(HandshakeError::TooLong);
                }
                Stopped::Handshaking => {}
                Stopped::Closed if stream.is_handshaking() => {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                Stopped::Open | Stopped::Broken | Stopped::Closed => {
                    // A peer that sends all it has with its last flight may close with it, and still wants its answer.
                    stream.io.flush().await?;
                    return Ok(stream);
                }
            }
            // Not more than is read: an unfinished message may stay for as long as its sender likes.
            stream.incoming.reserve_exact(READ_SIZE);
            if stream.io.read_buf(&mut stream.incoming).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// The error as a handshake has it: bytes that begin no record are something else than TLS.
    fn failure(&self, error: TlsError) -> HandshakeError {
        const IS_NO_RECORD: InvalidMessage = InvalidMessage::InvalidContentType;
        match error {
            TlsError::Rustls(rustls::Error::InvalidMessage(IS_NO_RECORD)) => {
                if self.incoming.starts_with(b"HTTP/") {
                    HandshakeError::PlainHttp
                } else {
                    HandshakeError::NotTls
                }
            }
            error => HandshakeError::Tls(error),
        }
    }

    fn is_handshaking(&self) -> bool {
        S::state(&self.records.connection).is_handshaking()
    }

    /// The version that was negotiated.
    pub fn protocol_version(&self) -> Option<ProtocolVersion> {
        S::state(&self.records.connection).protocol_version()
    }

    /// The chain that the peer has shown, its own certificate first.
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        S::state(&self.records.connection).peer_certificates()
    }

    /// The keying material of this connection for `label`, without a context (RFC 8446 section 7.5): the same at both ends and of
    /// no other connection. `None` in TLS 1.2, and unless the configuration has an [`ExporterLog`](crate::ExporterLog).
    pub fn exporter<const LEN: usize>(&self, label: &[u8]) -> Option<[u8; LEN]> {
        let mut material = [0; LEN];
        self.exporter.as_ref()?.export(S::state(&self.records.connection), label, &mut material)?;
        Some(material)
    }

    /// The byte stream below.
    pub const fn io(&self) -> &IO {
        &self.io
    }

    /// Takes the stream apart. `layer` opens and seals from now on. Call it after a flush: bytes that were written and
    /// not sent are lost.
    ///
    /// # Errors
    ///
    /// Where [`RecordLayer::Own`] is asked for, the version is TLS 1.3, and the configuration does not allow
    /// `enable_secret_extraction`.
    pub fn into_parts(mut self, layer: RecordLayer) -> Result<Parts<IO, S>, TlsError> {
        self.plaintext.drain(..self.taken);
        let (reader, writer) = self.records.into_halves(layer)?;
        Ok(Parts { io: self.io, reader, writer, incoming: self.incoming, plaintext: self.plaintext })
    }

    /// Runs the state machine over what was read.
    fn advance(&mut self) -> Result<Stopped, TlsError> {
        if self.taken == self.plaintext.len() {
            self.plaintext.clear();
            self.taken = 0;
        }
        let plaintext = &mut self.plaintext;
        let advanced = self.records.advance(&mut self.incoming, |bytes| {
            plaintext.extend_from_slice(bytes);
            ControlFlow::Continue(())
        });
        let (consumed, stopped) = advanced?;
        self.incoming.drain(..consumed);
        Ok(stopped)
    }

    /// Writes what was sealed.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.out.as_slice().len() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.out.as_slice()[self.sent..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
        }
        self.out.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Tells the peer which of its errors ends the connection, as far as the socket takes it at once.
    fn poll_alert(&mut self, cx: &mut Context<'_>) {
        self.out.append(&std::mem::take(&mut self.records.owed));
        let _ = self.poll_send(cx);
    }
}

fn invalid(error: TlsError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<IO: AsyncRead + AsyncWrite + Unpin, S: Side<Connection: Unpin>> AsyncRead for Stream<IO, S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let waiting = &this.plaintext[this.taken..];
            if !waiting.is_empty() {
                let taken = waiting.len().min(buf.remaining());
                buf.put_slice(&waiting[..taken]);
                this.taken += taken;
                return Poll::Ready(Ok(()));
            }
            if this.records.is_closed() {
                return Poll::Ready(Ok(()));
            }
            this.incoming.reserve(READ_SIZE);
            let mut chunk = [0; READ_SIZE];
            let mut read = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            this.incoming.extend_from_slice(read.filled());
            if let Err(error) = this.advance() {
                this.poll_alert(cx);
                return Poll::Ready(Err(invalid(error)));
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin, S: Side<Connection: Unpin>> AsyncWrite for Stream<IO, S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.out.as_slice().len() >= MAX_UNSENT {
            ready!(this.poll_send(cx))?;
        }
        let taken = bytes.len().min(MAX_UNSENT);
        this.records.seal(&mut this.incoming, &bytes[..taken], &mut this.out).map_err(invalid)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.records.seal(&mut this.incoming, &[], &mut this.out).map_err(invalid)?;
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Called again until it is done; a second close_notify is not made.
        let _ = this.records.close(&mut this.incoming, &mut this.out);
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}
