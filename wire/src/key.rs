//! Node keys: the Curve25519 pairs that name every peer and every relay, and their text forms.
//!
//! A [`NodePublic`] is what the relay routes by, so it is a plain array that costs nothing to compare or copy. Whether
//! a key is fit to log in with is asked once, at login ([`NodePublic::is_contributory`]).

use std::fmt;
use std::str::FromStr;

use crate::hex;
use crate::secret::Secret;

/// Bytes of a key of either kind.
pub const KEY_LEN: usize = 32;

/// A text that is not a key. The message never repeats the text, which may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind}: expected `{prefix}` and 64 hexadecimal digits")]
pub struct KeyTextError {
    kind: &'static str,
    prefix: &'static str,
}

impl KeyTextError {
    pub(crate) const fn new(kind: &'static str, prefix: &'static str) -> Self {
        Self { kind, prefix }
    }
}

/// The public half of the Curve25519 key with these private bytes.
pub(crate) fn public_of(private: &[u8; KEY_LEN]) -> [u8; KEY_LEN] {
    *crypto_box::SecretKey::from(*private).public_key().as_bytes()
}

/// The public key of a node, in the raw form in which DERP frames carry it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodePublic([u8; KEY_LEN]);

impl NodePublic {
    const PREFIX: &'static str = "nodekey:";

    /// The key with these bytes; any bytes are a key, though not each can log in.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The key in the first 32 bytes of `bytes`, and what follows it.
    #[must_use]
    pub fn split_from(bytes: &[u8]) -> Option<(Self, &[u8])> {
        bytes.split_first_chunk().map(|(key, rest)| (Self(*key), rest))
    }

    /// Whether an agreement with this key yields a secret that only its owner can compute, under one wire form only.
    ///
    /// Refused are the points of small order (RFC 7748 section 6.1: the shared secret is the same for all peers), and
    /// the non-canonical forms (values of 2^255 - 19 and above, or with the top bit set), by which one private key
    /// could log in under several names. Upstream accepts both.
    #[must_use]
    pub fn is_contributory(&self) -> bool {
        self.is_canonical() && !SMALL_ORDER.contains(&self.0)
    }

    fn is_canonical(&self) -> bool {
        // Little endian: p = 2^255 - 19 is ed ff … ff 7f.
        let [first, middle @ .., last] = &self.0;
        *last < 0x7f || (*last == 0x7f && (middle.iter().any(|&byte| byte != 0xff) || *first < 0xed))
    }

    /// The 64 lower-case digits without a prefix, as meta certificates and HTTP headers carry it.
    #[must_use]
    pub fn to_hex(&self) -> String {
        let mut text = String::with_capacity(2 * KEY_LEN);
        hex::write(&mut text, &self.0).expect("writing to a String cannot fail");
        text
    }

    /// The key in 64 digits of either case without a prefix.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        hex::read(text).map(Self)
    }
}

/// The canonical encodings of the points of order 1, 2, 4 and 8 on Curve25519 and its twist.
const SMALL_ORDER: [[u8; KEY_LEN]; 5] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
        0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04,
        0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    {
        let mut minus_one = [0xff; 32];
        minus_one[0] = 0xec;
        minus_one[31] = 0x7f;
        minus_one
    },
];

impl fmt::Display for NodePublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::PREFIX)?;
        hex::write(f, &self.0)
    }
}

/// Upstream's short form: `[` + the first five characters of standard base64 + `]`.
///
/// It is what an operator sees in the logs of Tailscale clients, and too short to be mistaken for the key.
impl fmt::Debug for NodePublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let head = self.0[..4].iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte));
        f.write_str("[")?;
        for index in 0..5 {
            let six = head >> (26 - 6 * index) & 0x3f;
            fmt::Write::write_char(f, char::from(ALPHABET[six as usize]))?;
        }
        f.write_str("]")
    }
}

impl FromStr for NodePublic {
    type Err = KeyTextError;

    fn from_str(text: &str) -> Result<Self, KeyTextError> {
        text.strip_prefix(Self::PREFIX)
            .and_then(Self::from_hex)
            .ok_or(KeyTextError { kind: "node public key", prefix: Self::PREFIX })
    }
}

/// The private key of a node. Wiped when its last clone is dropped; neither printed nor compared.
#[derive(Clone)]
pub struct NodePrivate(Secret);

impl NodePrivate {
    const PREFIX: &'static str = "privkey:";

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
    pub fn public(&self) -> NodePublic {
        NodePublic(public_of(self.as_bytes()))
    }

    /// The text form `privkey:<64 digits>`, for a key file.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::with_capacity(Self::PREFIX.len() + 2 * KEY_LEN);
        text.push_str(Self::PREFIX);
        hex::write(&mut text, self.as_bytes()).expect("writing to a String cannot fail");
        text
    }

    pub(crate) fn as_bytes(&self) -> &[u8; KEY_LEN] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for NodePrivate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodePrivate(..)")
    }
}

impl FromStr for NodePrivate {
    type Err = KeyTextError;

    fn from_str(text: &str) -> Result<Self, KeyTextError> {
        text.strip_prefix(Self::PREFIX)
            .and_then(Secret::from_hex)
            .map(Self)
            .ok_or(KeyTextError { kind: "node private key", prefix: Self::PREFIX })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(hex: &str) -> NodePublic {
        NodePublic::from_hex(hex).expect("64 digits")
    }

    #[test]
    fn text_forms_round_trip_and_take_either_case() {
        let private = NodePrivate::from_random([0xab; 32]);
        let text = private.to_text();
        assert_eq!(text.parse::<NodePrivate>().expect("own text").as_bytes(), private.as_bytes());
        let key = private.public();
        assert_eq!(key.to_string().parse::<NodePublic>(), Ok(key));
        assert_eq!(
            key.to_string().to_uppercase().replace("NODEKEY", "nodekey").parse::<NodePublic>(),
            Ok(key)
        );
    }

    #[test]
    fn a_new_key_is_clamped() {
        let digits = |bytes| NodePrivate::from_random(bytes).to_text().replace("privkey:", "");
        assert_eq!(digits([0xff; 32]), format!("f8{}7f", "ff".repeat(30)));
        assert_eq!(digits([0; 32]), format!("{}40", "00".repeat(31)));
    }

    #[test]
    fn a_bad_text_is_refused_without_repeating_it() {
        for text in ["", "privkey:", "privkey:abcd", "nodekey:00", &format!("privkey:{}", "g".repeat(64))] {
            let message = text.parse::<NodePrivate>().expect_err("not a key").to_string();
            assert_eq!(message, "not a node private key: expected `privkey:` and 64 hexadecimal digits");
        }
    }

    #[test]
    fn debug_shows_the_short_form_of_a_public_key_and_nothing_of_a_private_one() {
        let key = public("358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254");
        assert_eq!(format!("{key:?}"), "[NYBy1]");
        assert_eq!(format!("{:?}", NodePrivate::from_bytes([7; 32])), "NodePrivate(..)");
    }

    #[test]
    fn small_order_and_non_canonical_keys_are_not_contributory() {
        let refused = [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
            "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd1662d4",
        ];
        for hex in refused {
            assert!(!public(hex).is_contributory(), "{hex}");
        }
        assert!(public("358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254").is_contributory());
        assert!(public("ebffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f").is_contributory());
    }
}
