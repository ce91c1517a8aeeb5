//! The proof in the upgrade that the server speaks WebSocket: a key that it has to answer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// The text that every key is hashed with (RFC 6455 section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Returns the value of `Sec-WebSocket-Key` for these random bytes.
#[must_use]
pub fn handshake_key(random: [u8; 16]) -> String {
    STANDARD.encode(random)
}

/// Returns the value of `Sec-WebSocket-Accept` for a value of `Sec-WebSocket-Key`; `None` unless the key is 16 bytes in
/// base64.
#[must_use]
pub fn accept_key(key: &[u8]) -> Option<String> {
    if STANDARD.decode(key).ok()?.len() != 16 {
        return None;
    }
    Some(STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize()))
}

#[cfg(test)]
mod tests {
    use super::{accept_key, handshake_key};

    #[test]
    fn the_key_of_random_bytes_has_an_answer() {
        assert_eq!(handshake_key(*b"the sample nonce"), "dGhlIHNhbXBsZSBub25jZQ==");
        assert!(accept_key(handshake_key([0xff; 16]).as_bytes()).is_some());
    }

    #[test]
    fn the_answer_is_that_of_the_rfc_and_bad_keys_have_none() {
        let accepted = accept_key(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accepted.as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        for bad in ["", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZ==", "dGhlIHNhbXBsZSBub25jZWU=", "!"]
        {
            assert_eq!(accept_key(bad.as_bytes()), None, "{bad}");
        }
    }
}
