//! The way in: from the bytes of a socket to those of DERP.

use std::ops::ControlFlow;

use towpath_relay_proto::session::Close;
use towpath_tls::Reader;

use super::connection::Client;
use super::desk::Desk;
use super::websocket::MessageInlet;

/// How the bytes of a socket become those of DERP.
#[derive(Debug)]
pub(crate) enum Inlet {
    /// They are in records.
    Tls(Reader<towpath_tls::Server>),
    /// They are those of DERP.
    Plain,
    /// They are in messages, in records or not.
    WebSocket(Box<MessageInlet>),
}

// The other ways cost a connection in TLS nothing while it is idle.
const _: () = assert!(size_of::<Inlet>() == size_of::<Reader<towpath_tls::Server>>());

impl Inlet {
    /// Acts on the frames in `bytes`, as they came from the socket. Returns how many are used up; the rest is the start of
    /// a record.
    #[inline]
    pub(super) fn open(
        &mut self,
        bytes: &mut [u8],
        client: &mut Client,
        desk: &mut Desk<'_>,
    ) -> Result<usize, Close> {
        match self {
            Self::Tls(reader) => open_records(reader, bytes, |plaintext| client.handle(plaintext, desk)),
            Self::Plain => client.handle(bytes, desk).map(|()| bytes.len()),
            Self::WebSocket(inlet) => inlet.open(bytes, client, desk),
        }
    }
}

/// Opens the whole records in `ciphertext` and hands their plaintext on. Returns how much is used up.
#[inline]
pub(super) fn open_records<S: towpath_tls::Side>(
    reader: &mut Reader<S>,
    ciphertext: &mut [u8],
    mut handle: impl FnMut(&[u8]) -> Result<(), Close>,
) -> Result<usize, Close> {
    let mut handled = Ok(());
    let opened = reader.open(ciphertext, |plaintext| {
        handled = handle(plaintext);
        if handled.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    handled?;
    let opened = opened.map_err(|_| Close::Tls)?;
    if opened.closed { Err(Close::PeerClosed) } else { Ok(opened.consumed) }
}
