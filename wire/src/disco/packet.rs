//! The disco packet: who sealed the box, and the box.

use super::key::DiscoPublic;
use super::message::{Message, MessageError};
use super::{MAGIC, MIN_LEN};
use crate::key::KEY_LEN;
use crate::sealed::{NONCE_LEN, Nonce, OVERHEAD, OpenError, SharedKey};

/// Bytes that a packet has beyond its plaintext: 78.
pub const PACKET_OVERHEAD: usize = MIN_LEN + OVERHEAD;

/// A disco packet taken apart. Nothing is verified yet: anybody can write any sender.
///
/// The sender must be known before the box is opened, because the agreement with a new key is what a packet can cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscoPacket<'a> {
    /// The disco key that the packet claims.
    pub sender: DiscoPublic,
    nonce: &'a Nonce,
    sealed: &'a [u8],
}

/// Why a packet holds no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// The box does not open: it is of another key, stale after a restart of the peer, or forged.
    #[error(transparent)]
    Box(#[from] OpenError),
    /// The box holds no message.
    #[error(transparent)]
    Message(#[from] MessageError),
}

impl<'a> DiscoPacket<'a> {
    /// Takes a packet apart; `None` if it is no disco packet.
    #[must_use]
    pub fn split(packet: &'a [u8]) -> Option<Self> {
        let rest = packet.strip_prefix(&MAGIC)?;
        let (sender, rest) = rest.split_first_chunk::<KEY_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        Some(Self { sender: DiscoPublic::from_bytes(*sender), nonce, sealed })
    }

    /// Opens the box and reads its message.
    ///
    /// # Errors
    ///
    /// See [`PacketError`].
    pub fn open(&self, shared: &SharedKey) -> Result<Message, PacketError> {
        let plaintext = shared.open(self.nonce, self.sealed)?;
        Ok(Message::decode(&plaintext)?)
    }
}

/// Appends the packet that carries `message` from the owner of `sender`. `shared` is the agreement of its private key with the
/// key of the peer; `nonce` is random, and used once.
pub fn seal(sender: &DiscoPublic, shared: &SharedKey, nonce: &Nonce, message: &Message, out: &mut Vec<u8>) {
    let mut plaintext = Vec::new();
    message.encode(&mut plaintext);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(sender.as_bytes());
    out.extend_from_slice(nonce);
    out.extend_from_slice(&shared.seal(nonce, &plaintext));
}
