//! Login: the relay states its key, the client proves its own, the relay answers.
//!
//! ```text
//! S -> C   0x01 ServerKey    (always, also in fast-start mode)
//! C -> S   0x02 ClientInfo   (must be the first frame)
//! S -> C   0x03 ServerInfo
//! ```

use towpath_wire::derp::buffer::{BadLength, Deframer};
use towpath_wire::derp::frame::{FrameType, PayloadBounds, ServerFrame};
use towpath_wire::derp::info::{ClientInfo, ClientInfoError, Introduction, MIN_CLIENT_INFO};
use towpath_wire::key::{NodePrivate, NodePublic};
use towpath_wire::pool::BufferPool;

/// Most bytes of a ClientInfo payload. derper takes 256 KiB from any client; the largest honest one has about 350
/// bytes.
pub const MAX_CLIENT_INFO: u32 = 4096;

/// The reason why a login fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum LoginError {
    /// The first frame is not a ClientInfo.
    #[error("the first frame has type {0:#04x} instead of ClientInfo")]
    NotClientInfo(u8),
    /// The ClientInfo is shorter than key and nonce, or longer than [`MAX_CLIENT_INFO`].
    #[error("the ClientInfo has {0} bytes, which is too short or too long")]
    Length(u32),
    /// The ClientInfo is refused.
    #[error(transparent)]
    ClientInfo(#[from] ClientInfoError),
}

/// Appends the ServerKey frame.
pub fn greet(relay: &NodePublic, out: &mut Vec<u8>) {
    ServerFrame::ServerKey(*relay).encode(out);
}

/// A whole ClientInfo that has not been opened: its client says that it has a key, and has not proved it.
#[derive(Clone, Copy, Debug)]
pub struct Claimed<'a>(&'a [u8]);

impl Claimed<'_> {
    /// The key that the client says it has.
    #[must_use]
    pub fn key(&self) -> Option<NodePublic> {
        NodePublic::split_from(self.0).map(|(key, _)| key)
    }

    /// Opens the box, which proves the key. This is what a login costs.
    ///
    /// # Errors
    ///
    /// [`LoginError::ClientInfo`].
    pub fn open(self, relay: &NodePrivate) -> Result<Introduction, LoginError> {
        Ok(ClientInfo::open(relay, self.0)?)
    }
}

/// The relay's side of one login.
#[derive(Debug, Default)]
pub struct Login {
    deframer: Deframer,
}

impl Login {
    /// Reads on and opens the ClientInfo: [`claim`](Self::claim) and [`Claimed::open`] in one.
    ///
    /// # Errors
    ///
    /// See [`LoginError`]. The connection is then no longer usable.
    pub fn next(
        &mut self,
        input: &mut &[u8],
        relay: &NodePrivate,
        pool: &mut BufferPool,
    ) -> Result<Option<Introduction>, LoginError> {
        self.claim(input, pool)?.map(|claimed| claimed.open(relay)).transpose()
    }

    /// Reads on. Returns `None` while the ClientInfo is incomplete. Bytes behind it stay in `input`.
    ///
    /// # Errors
    ///
    /// See [`LoginError`]. The connection is then no longer usable.
    pub fn claim<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
        pool: &mut BufferPool,
    ) -> Result<Option<Claimed<'s>>, LoginError> {
        const CLIENT_INFO: u8 = FrameType::ClientInfo as u8;
        // No length suits any other type, so that it is refused by its header.
        let bounds = |kind| match kind {
            CLIENT_INFO => PayloadBounds::Read { least: MIN_CLIENT_INFO as u32, most: MAX_CLIENT_INFO },
            _ => PayloadBounds::Read { least: 1, most: 0 },
        };
        match self.deframer.next(input, bounds, pool) {
            Ok(None) => Ok(None),
            Ok(Some(frame)) => Ok(Some(Claimed(frame.payload))),
            Err(BadLength { kind: CLIENT_INFO, len }) => Err(LoginError::Length(len)),
            Err(BadLength { kind, .. }) => Err(LoginError::NotClientInfo(kind)),
        }
    }
}
