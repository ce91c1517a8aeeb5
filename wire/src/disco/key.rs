//! Disco keys: a Curve25519 pair that a peer makes at each start, and that is never written to disk.

use std::fmt;
use std::str::FromStr;

use crate::hex;
use crate::key::{KEY_LEN, KeyTextError, NodePublic, public_of};
use crate::secret::Secret;

/// The public half of a disco key, as it stands in clear in each disco packet of its owner.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiscoPublic([u8; KEY_LEN]);

impl DiscoPublic {
    const PREFIX: &'static str = "discokey:";

    /// The key with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// Whether an agreement with this key yields a secret that only its owner can compute, see
    /// [`NodePublic::is_contributory`].
    #[must_use]
    pub fn is_contributory(&self) -> bool {
        NodePublic::from_bytes(self.0).is_contributory()
    }
}

impl fmt::Display for DiscoPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::PREFIX)?;
        hex::write(f, &self.0)
    }
}

/// Upstream's short form: `d:` and 16 digits.
impl fmt::Debug for DiscoPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("d:")?;
        hex::write(f, &self.0[..8])
    }
}

impl FromStr for DiscoPublic {
    type Err = KeyTextError;

    fn from_str(text: &str) -> Result<Self, KeyTextError> {
        text.strip_prefix(Self::PREFIX)
            .and_then(hex::read)
            .map(Self)
            .ok_or(KeyTextError::new("disco public key", Self::PREFIX))
    }
}

/// The private half of a disco key. It has no text form, as upstream's has none: nothing keeps it.
#[derive(Clone)]
pub struct DiscoPrivate(Secret);

impl DiscoPrivate {
    /// The private key made of 32 random bytes, clamped as upstream clamps it at creation (RFC 7748 section 5).
    #[must_use]
    pub fn from_random(bytes: [u8; KEY_LEN]) -> Self {
        Self(Secret::clamped(bytes))
    }

    /// The key with exactly these bytes. X25519 clamps when it multiplies, so an unclamped key works as well.
    #[must_use]
    pub fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(Secret::new(bytes))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> DiscoPublic {
        DiscoPublic(public_of(self.as_bytes()))
    }

    pub(crate) fn as_bytes(&self) -> &[u8; KEY_LEN] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for DiscoPrivate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiscoPrivate(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_has_a_text_form_and_a_short_form() {
        let key = DiscoPrivate::from_random([7; 32]).public();
        assert_eq!(key.to_string().parse::<DiscoPublic>(), Ok(key));
        assert_eq!(format!("{key:?}"), format!("d:{}", &key.to_string()[9..25]));
        let error = "nodekey:00".parse::<DiscoPublic>().expect_err("another prefix").to_string();
        assert_eq!(error, "not a disco public key: expected `discokey:` and 64 hexadecimal digits");
    }

    #[test]
    fn a_private_key_is_not_shown() {
        assert_eq!(format!("{:?}", DiscoPrivate::from_bytes([7; 32])), "DiscoPrivate(..)");
        assert!(!DiscoPublic::from_bytes([0; 32]).is_contributory());
    }
}
