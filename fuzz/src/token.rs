//! Tokens: the text that a client presents, what it says, and the file of accepted keys.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use towpath_relay_proto::token::{SigningKey, TokenError, TokenKeys, read_unverified};
use towpath_wire::derp::token::Token;
use towpath_wire::key::NodePublic;

static ISSUER: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_random(&[7; 32]));
static KEYS: LazyLock<TokenKeys> =
    LazyLock::new(|| TokenKeys::parse(&ISSUER.public().to_string()).expect("a key"));

/// Bytes of a signature.
const SIGNATURE: usize = 64;

/// Nothing is accepted that the issuer has not signed, and what the issuer signs is read as it was said.
pub(crate) fn check(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = TokenKeys::parse(text);
        if let Ok(token) = text.parse() {
            judge(&token);
        }
    }
    // As the message of a token, with a signature that is none.
    let text = format!("v4.public.{}", BASE64.encode([input, &[0; SIGNATURE]].concat()));
    let Ok(token) = text.parse() else { return };
    assert_eq!(KEYS.verify(&token), Err(TokenError::Forged));
    judge(&token);
}

fn judge(token: &Token) {
    let other = NodePublic::from_bytes([9; 32]);
    let accepted = KEYS.check(token, &other, &other, 0);
    assert!(accepted.is_err(), "no token is for this key");
    let Ok(claims) = read_unverified(token) else { return };
    // A time that was read may have no text form: one with an offset at the end of the calendar.
    if let Ok(again) = ISSUER.issue(&claims) {
        assert_eq!(KEYS.verify(&again), Ok((claims, ISSUER.public())));
        assert_eq!(read_unverified(&again), Ok(claims));
    }
}
