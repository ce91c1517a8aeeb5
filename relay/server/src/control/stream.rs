//! A connection of the control plane, in TLS or not.

use std::io;
use std::net::TcpStream;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;
use towpath_tls::{Reader, RecordLayer, Writer};

/// How long a client has to read the last bytes on a connection that is being closed.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// A connection in TLS.
pub(crate) type TlsStream = towpath_tls::Stream<tokio::net::TcpStream, towpath_tls::Server>;

/// A connection, in TLS or not.
#[derive(Debug)]
pub(crate) enum ClientStream {
    Tls(Box<TlsStream>),
    Plain(tokio::net::TcpStream),
}

/// The two halves of TLS.
pub(crate) type Halves = (Reader<towpath_tls::Server>, Writer<towpath_tls::Server>);

/// What a [`ClientStream`] is made of: everything that the data plane takes over.
#[derive(Debug)]
pub(crate) struct StreamParts {
    pub(crate) socket: TcpStream,
    /// `None` where there is no TLS.
    pub(crate) halves: Option<Halves>,
    /// Bytes that were read and not opened.
    pub(crate) incoming: Vec<u8>,
    /// Bytes that were opened and not read.
    pub(crate) plaintext: Vec<u8>,
}

impl ClientStream {
    /// Writes the last bytes and gives the client a moment to read them. If a socket is closed with bytes unread, the
    /// kernel discards what was written.
    pub(crate) async fn say_goodbye(mut self, words: &[u8]) {
        let _ = timeout(LINGER, async {
            self.write_all(words).await?;
            self.shutdown().await?;
            let mut rest = [0; 4096];
            while self.read(&mut rest).await? > 0 {}
            Ok::<_, io::Error>(())
        })
        .await;
    }

    /// The keying material of the TLS connection for `label`; `None` without TLS, and in TLS 1.2.
    pub(crate) fn exporter<const LEN: usize>(&self, label: &[u8]) -> Option<[u8; LEN]> {
        match self {
            Self::Tls(stream) => stream.exporter(label),
            Self::Plain(_) => None,
        }
    }

    /// Takes the stream apart. `layer` opens and seals from now on. Call it after a flush.
    pub(crate) fn into_parts(self, layer: RecordLayer) -> io::Result<StreamParts> {
        match self {
            Self::Tls(stream) => {
                let towpath_tls::Parts { io, reader, writer, incoming, plaintext } =
                    stream.into_parts(layer).map_err(io::Error::other)?;
                Ok(StreamParts {
                    socket: io.into_std()?,
                    halves: Some((reader, writer)),
                    incoming,
                    plaintext,
                })
            }
            Self::Plain(socket) => Ok(StreamParts {
                socket: socket.into_std()?,
                halves: None,
                incoming: Vec::new(),
                plaintext: Vec::new(),
            }),
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
