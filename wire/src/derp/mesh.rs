//! The key that the relays of a region share, and the flags with which they announce clients.

use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq;

use crate::hex;
use crate::secret::{SECRET_LEN, Secret};

/// Bytes of a mesh key.
pub const MESH_KEY_LEN: usize = SECRET_LEN;

/// The secret that the relays of a region share. A client with this key may watch, forward and close at each of them.
///
/// Wiped when its last clone is dropped, and never printed. Comparing takes as long for any two keys; upstream's plain comparison was a
/// vulnerability (TS-2025-003).
#[derive(Clone)]
pub struct MeshKey(Secret);

/// A text that is not a mesh key. The message never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a mesh key: expected 64 hexadecimal digits that are not all zero")]
pub struct MeshKeyTextError;

impl MeshKey {
    /// The key with these bytes. All zero stands for "no key" and matches nothing.
    #[must_use]
    pub fn from_bytes(bytes: [u8; MESH_KEY_LEN]) -> Self {
        Self(Secret::new(bytes))
    }

    /// Whether `claimed` is this key. A key of zeros is never.
    #[must_use]
    pub fn admits(&self, claimed: &Self) -> bool {
        let (key, claimed) = (self.0.as_bytes(), claimed.0.as_bytes());
        let zero = key.ct_eq(&[0; MESH_KEY_LEN]);
        (key.ct_eq(claimed) & !zero).into()
    }

    /// The 64 digits, for a key file.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::with_capacity(2 * MESH_KEY_LEN);
        hex::write(&mut text, self.0.as_bytes()).expect("writing to a String cannot fail");
        text
    }

    /// The key that a ClientInfo claims.
    pub(super) fn from_claim(text: &str) -> Option<Self> {
        Secret::from_hex(text).map(Self)
    }

    pub(super) fn write(&self, out: &mut String) {
        hex::write(out, self.0.as_bytes()).expect("writing to a String cannot fail");
    }
}

impl fmt::Debug for MeshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeshKey(..)")
    }
}

impl PartialEq for MeshKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for MeshKey {}

/// As upstream's key files: digits of either case, white space around them.
impl FromStr for MeshKey {
    type Err = MeshKeyTextError;

    fn from_str(text: &str) -> Result<Self, MeshKeyTextError> {
        let key = Secret::from_hex(text.trim()).map(Self).ok_or(MeshKeyTextError)?;
        if key.admits(&key) { Ok(key) } else { Err(MeshKeyTextError) }
    }
}

/// The flags of a connection that a relay tells its watchers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PresentFlags(u8);

impl PresentFlags {
    /// None of the other flags holds.
    pub const REGULAR: Self = Self(0x01);
    /// The client holds the mesh key.
    pub const MESH_PEER: Self = Self(0x02);
    /// The client says that it is a monitoring probe.
    pub const PROBER: Self = Self(0x04);
    /// The client says that another relay of the region would suit it better.
    pub const NOT_IDEAL: Self = Self(0x08);

    /// The flags of a connection: [`REGULAR`](Self::REGULAR) where it is nothing else.
    #[must_use]
    pub const fn of(mesh_peer: bool, prober: bool, not_ideal: bool) -> Self {
        let bits = (mesh_peer as u8) << 1 | (prober as u8) << 2 | (not_ideal as u8) << 3;
        if bits == 0 { Self::REGULAR } else { Self(bits) }
    }

    /// The flags in this byte, those that this version does not know included.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Self {
        Self(byte)
    }

    /// The byte on the wire.
    #[must_use]
    pub const fn as_byte(self) -> u8 {
        self.0
    }

    /// Whether all of `flags` are set.
    #[must_use]
    pub const fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_admits_itself_and_nothing_else() {
        let key = MeshKey::from_bytes([0xab; 32]);
        assert!(key.admits(&MeshKey::from_bytes([0xab; 32])));
        for at in 0..MESH_KEY_LEN {
            let mut other = [0xab; 32];
            other[at] ^= 1;
            assert!(!key.admits(&MeshKey::from_bytes(other)), "byte {at}");
        }
        let zero = MeshKey::from_bytes([0; 32]);
        assert!(!zero.admits(&zero) && !key.admits(&zero) && !zero.admits(&key));
    }

    #[test]
    fn the_text_of_a_key_file_is_read_as_upstream_reads_it() {
        let digits = "aB".repeat(32);
        for text in [digits.clone(), format!("\n {digits}\r\n"), digits.to_lowercase()] {
            assert_eq!(text.parse(), Ok(MeshKey::from_bytes([0xab; 32])), "{text:?}");
        }
        assert_eq!(MeshKey::from_bytes([0xab; 32]).to_text(), digits.to_lowercase());
        for text in ["", "ab", &digits[1..], &format!("{digits}0"), &"g".repeat(64), &"0".repeat(64)] {
            let message = text.parse::<MeshKey>().expect_err("not a key").to_string();
            assert_eq!(message, "not a mesh key: expected 64 hexadecimal digits that are not all zero");
        }
    }

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(format!("{:?}", MeshKey::from_bytes([0xab; 32])), "MeshKey(..)");
    }

    #[test]
    fn a_connection_without_flags_is_regular() {
        assert_eq!(PresentFlags::of(false, false, false).as_byte(), 1);
        assert_eq!(PresentFlags::of(true, false, false), PresentFlags::MESH_PEER);
        let all = PresentFlags::of(true, true, true);
        assert_eq!(all.as_byte(), 0x0e);
        assert!(all.has(PresentFlags::PROBER) && !all.has(PresentFlags::REGULAR));
    }
}
