//! DERP in TLS records on a TCP socket, on either side of TLS.

use std::ops::ControlFlow;

use towpath_relay_proto::session::Close;
use towpath_tls::{Reader, Side, Writer};

use super::stream::{CannotEncode, Decode, Encode, FrameSink, WriteScratch};

impl<S: Side> Decode for Reader<S> {
    #[inline]
    fn decode(&mut self, bytes: &mut [u8], sink: &mut impl FrameSink) -> Result<usize, Close> {
        open(self, bytes, |plaintext| sink.receive(plaintext))
    }
}

impl<S: Side> Encode for Writer<S> {
    #[inline]
    fn push(&mut self, frames: &[u8], scratch: &mut WriteScratch) -> Result<(), CannotEncode> {
        self.seal(frames, &mut scratch.seal).map_err(|_| CannotEncode)
    }

    fn close(&mut self, _: Close, scratch: &mut WriteScratch) {
        let _ = Self::close(self, &mut scratch.seal);
    }
}

/// Opens the whole records in `ciphertext` and hands their plaintext to `receive`. Returns how many bytes are used up.
#[inline]
pub(super) fn open<S: Side>(
    reader: &mut Reader<S>,
    ciphertext: &mut [u8],
    mut receive: impl FnMut(&[u8]) -> Result<(), Close>,
) -> Result<usize, Close> {
    let mut received = Ok(());
    let opened = reader.open(ciphertext, |plaintext| {
        received = receive(plaintext);
        if received.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    received?;
    let opened =
        opened.map_err(|error| if error.is_key_updates() { Close::KeyUpdates } else { Close::Tls })?;
    if opened.closed { Err(Close::PeerClosed) } else { Ok(opened.consumed) }
}
