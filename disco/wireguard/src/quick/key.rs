//! WireGuard keys as text: base64 of 32 bytes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use towpath::{NodePrivate, NodePublic};
use zeroize::Zeroizing;

/// What the text of a key is, for a message.
pub const KEY_TEXT: &str = "44 letters of base64, as `wg genkey` and `wg pubkey` print them";

/// The bytes of a key.
fn bytes(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut decoded = Zeroizing::new([0; 33]);
    let len = STANDARD.decode_slice(text, &mut *decoded).ok()?;
    let (key, _) = decoded.split_first_chunk().filter(|_| len == 32)?;
    Some(Zeroizing::new(*key))
}

/// Reads a public key.
#[must_use]
pub fn public_from_text(text: &str) -> Option<NodePublic> {
    bytes(text).map(|bytes| NodePublic::from_bytes(*bytes))
}

/// Reads a private key.
#[must_use]
pub fn secret_from_text(text: &str) -> Option<NodePrivate> {
    bytes(text).map(|bytes| NodePrivate::from_bytes(*bytes))
}

/// The text of a public key.
#[must_use]
pub fn to_text(key: &NodePublic) -> String {
    STANDARD.encode(key.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_wireguard_writes_them() {
        // Of wg(8): a private key, and what `wg pubkey` makes of it.
        let secret = secret_from_text("yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=").expect("a key");
        let public = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
        assert_eq!(to_text(&secret.public()), public);
        assert_eq!(public_from_text(public), Some(secret.public()));
        for wrong in [
            "",
            "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw",
            &public[1..],
            "nodekey:00",
            &[public, "A"].concat(),
        ] {
            assert_eq!(public_from_text(wrong), None, "{wrong}");
        }
    }
}
