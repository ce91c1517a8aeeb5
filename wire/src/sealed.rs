//! Sealed boxes: NaCl `crypto_box` (X25519, HSalsa20, XSalsa20-Poly1305), tag first, as DERP logins and disco use it.
//!
//! This file is the only one that names the crate behind it. Nonces come from the caller, because a pure crate has no
//! source of randomness. One agreement costs about 100 µs; keep the [`SharedKey`] where more than one box is made.

use std::fmt;

use crypto_box::SalsaBox;
use crypto_box::aead::Aead;

use crate::disco::key::{DiscoPrivate, DiscoPublic};
use crate::key::{KEY_LEN, NodePrivate, NodePublic};

/// Bytes of a box's nonce.
pub const NONCE_LEN: usize = 24;
/// Bytes that a box adds to its plaintext.
pub const OVERHEAD: usize = 16;

/// A nonce: random, sent in front of its box, never used twice under one pair of keys.
pub type Nonce = [u8; NONCE_LEN];

/// A box that does not open: another pair of keys, another nonce, or changed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the box does not open")]
pub struct OpenError;

/// The agreement of one private with one public key.
pub struct SharedKey(SalsaBox);

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedKey(..)")
    }
}

impl SharedKey {
    /// Agrees `mine` with `theirs`. Ask [`NodePublic::is_contributory`] first where `theirs` comes from the network.
    #[must_use]
    pub fn new(mine: &NodePrivate, theirs: &NodePublic) -> Self {
        Self::agree(mine.as_bytes(), theirs.as_bytes())
    }

    /// Agrees two disco keys. Ask [`DiscoPublic::is_contributory`] first where `theirs` comes from the network.
    #[must_use]
    pub fn of_disco(mine: &DiscoPrivate, theirs: &DiscoPublic) -> Self {
        Self::agree(mine.as_bytes(), theirs.as_bytes())
    }

    fn agree(mine: &[u8; KEY_LEN], theirs: &[u8; KEY_LEN]) -> Self {
        let secret = crypto_box::SecretKey::from(*mine);
        Self(SalsaBox::new(&crypto_box::PublicKey::from(*theirs), &secret))
    }

    /// Seals `plaintext`; the result is [`OVERHEAD`] bytes longer.
    #[must_use]
    pub fn seal(&self, nonce: &Nonce, plaintext: &[u8]) -> Vec<u8> {
        self.0
            .encrypt(nonce.into(), plaintext)
            .expect("XSalsa20-Poly1305 seals any plaintext that fits in memory")
    }

    /// Opens a box.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when the tag does not verify or `sealed` is shorter than a tag.
    pub fn open(&self, nonce: &Nonce, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        self.0.decrypt(nonce.into(), sealed).map_err(|_| OpenError)
    }
}
