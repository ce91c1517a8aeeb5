//! A secret of 32 bytes that stays in one place of memory.

use std::sync::Arc;

use zeroize::{Zeroize, Zeroizing};

use crate::hex;

/// Bytes of a secret.
pub(crate) const SECRET_LEN: usize = 32;

/// A secret behind a pointer. A move of an array leaves its bytes where they were; a move or a clone of this copies the
/// pointer. The bytes are wiped when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Secret(Arc<Zeroizing<[u8; SECRET_LEN]>>);

impl Secret {
    /// Takes the secret with these bytes, and wipes the copy that was passed.
    pub(crate) fn new(mut bytes: [u8; SECRET_LEN]) -> Self {
        let mut secret = Self::zero();
        secret.place().copy_from_slice(&bytes);
        bytes.zeroize();
        secret
    }

    /// Takes 32 random bytes as a private key of X25519, clamped as upstream clamps it at creation (RFC 7748 section 5), and wipes
    /// the copy that was passed.
    pub(crate) fn clamped(mut bytes: [u8; SECRET_LEN]) -> Self {
        bytes[0] &= 248;
        bytes[31] = bytes[31] & 127 | 64;
        let secret = Self::new(bytes);
        bytes.zeroize();
        secret
    }

    /// Reads the secret in 64 digits of either case.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let mut secret = Self::zero();
        hex::read_into(text, secret.place())?;
        Some(secret)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; SECRET_LEN] {
        &self.0
    }

    fn zero() -> Self {
        Self(Arc::new(Zeroizing::new([0; SECRET_LEN])))
    }

    fn place(&mut self) -> &mut [u8; SECRET_LEN] {
        Arc::get_mut(&mut self.0).expect("a new secret has no clone")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_and_moves_share_one_place_in_memory() {
        let secret = Secret::new([7; SECRET_LEN]);
        let place = secret.as_bytes().as_ptr();
        let clones = [secret.clone(), secret.clone()];
        let moved = Box::new(secret);
        assert!(clones.iter().chain([&*moved]).all(|each| each.as_bytes().as_ptr() == place));
        assert_eq!(moved.as_bytes(), &[7; SECRET_LEN]);
    }

    #[test]
    fn digits_are_read_whole_or_not_at_all() {
        assert_eq!(Secret::from_hex(&"aB".repeat(32)).expect("a secret").as_bytes(), &[0xab; SECRET_LEN]);
        assert!(Secret::from_hex(&"ab".repeat(31)).is_none() && Secret::from_hex(&"g".repeat(64)).is_none());
    }
}
