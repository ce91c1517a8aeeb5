//! Login: the relay states its key, the client proves its own, the relay answers.
//!
//! ```text
//! S -> C   0x01 ServerKey    (always, also in fast-start mode)
//! C -> S   0x02 ClientInfo   (must be the first frame)
//! S -> C   0x03 ServerInfo
//! ```
//!
//! A client binds its login to its TLS connection by stating keying material of that connection ([`BINDING_LABEL`]) in the
//! ClientInfo. A relay that refuses a client which has proved its key may say why in a Health frame ([`refusal_text`]).

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

/// The label of the keying material that a login is bound by: the channel binding `tls-exporter` of RFC 9266, which libraries for
/// TLS have under this name.
pub const BINDING_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// The reason of a refusal because a login is bound to another connection than it came on.
pub const BOUND_ELSEWHERE: &str = "bound_elsewhere";

/// How the text of a refusal begins.
const REFUSAL: &str = "login refused: ";

/// What a client that is refused for `reason` is told in a Health frame: the label of the reason, and the reason in words.
#[must_use]
pub fn refusal_text(reason: &str, words: &str) -> String {
    format!("{REFUSAL}{reason}: {words}")
}

/// The label of the reason and the reason in words from the text of a Health frame; `None` for a text that is not of a refusal.
#[must_use]
pub fn read_refusal(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix(REFUSAL)?.split_once(": ")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_refusal_is_read_from_its_text() {
        let text = refusal_text(BOUND_ELSEWHERE, "the login is another's: go away");
        assert_eq!(text, "login refused: bound_elsewhere: the login is another's: go away");
        assert_eq!(read_refusal(&text), Some((BOUND_ELSEWHERE, "the login is another's: go away")));
        for other in ["", "another device uses the same node key", "login refused: ", "refused: x: y"] {
            assert_eq!(read_refusal(other), None, "{other}");
        }
    }
}
