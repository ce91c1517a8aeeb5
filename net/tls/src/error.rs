//! Errors of a connection after its handshake.

use rustls::PeerMisbehaved;

use crate::own::RecordError;

/// Why a connection can no longer be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The peer broke TLS, or an alert of it ends the connection.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
    /// The peer broke the record layer of this crate.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The peer cut a handshake message in pieces after the handshake.
    ///
    /// rustls would keep its place in the caller's buffer for the rest and panic when a writer without that buffer
    /// comes next. No honest peer does it: the only such message has five bytes.
    #[error("a handshake message in pieces after the handshake")]
    HandshakeInPieces,
    /// Keys are used up (TLS 1.2), the connection is not open, or it has failed before.
    #[error("the connection is of no more use")]
    Unusable,
}

impl TlsError {
    /// Whether the peer has changed keys too often.
    #[must_use]
    pub const fn is_key_updates(&self) -> bool {
        matches!(
            self,
            Self::Record(RecordError::KeyUpdates)
                | Self::Rustls(rustls::Error::PeerMisbehaved(PeerMisbehaved::TooManyKeyUpdateRequests))
        )
    }
}
