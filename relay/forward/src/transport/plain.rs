//! DERP on a TCP socket without TLS, for the last hop behind a proxy that ends TLS.

use towpath_relay_proto::session::Close;

use super::stream::{CannotEncode, Decode, Encode, FrameSink, WriteScratch};

/// The identity coding: the bytes of the socket are the bytes of DERP.
#[derive(Debug)]
pub(crate) struct Plain;

impl Decode for Plain {
    fn decode(&mut self, bytes: &mut [u8], sink: &mut impl FrameSink) -> Result<usize, Close> {
        sink.receive(bytes).map(|()| bytes.len())
    }
}

impl Encode for Plain {
    fn push(&mut self, frames: &[u8], scratch: &mut WriteScratch) -> Result<(), CannotEncode> {
        scratch.seal.append(frames);
        Ok(())
    }

    fn close(&mut self, _: Close, _: &mut WriteScratch) {}
}
