//! PASETO version 4, public: `v4.public.` and the message with its Ed25519 signature, in base64 for URLs without padding;
//! behind another dot a footer, if there is one. And PASERK, the text form of its keys.
//!
//! The format is the one of the specification (github.com/paseto-standard), and the signature is ed25519-dalek's. The crates of
//! the whole format draw clocks and randomness in, which the pure crates do without. Tests hold this against one of them, and
//! against the vectors of the specification.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ed25519_dalek::{
    PUBLIC_KEY_LENGTH, SIGNATURE_LENGTH, Signature, Signer, SigningKey, Verifier, VerifyingKey,
};
use zeroize::Zeroizing;

const HEADER: &str = "v4.public.";
const PUBLIC_KEY: &str = "k4.public.";
const SECRET_KEY: &str = "k4.secret.";

/// A token in its parts, signed by any key or none.
pub(super) struct Parts {
    /// The message, and the signature behind it.
    signed: Zeroizing<Vec<u8>>,
    footer: Vec<u8>,
}

impl Parts {
    /// Splits the text of a token. Returns `None` for a text of another form.
    pub(super) fn of(token: &str) -> Option<Self> {
        let body = token.strip_prefix(HEADER)?;
        let (body, footer) = match body.split_once('.') {
            Some((_, "")) => return None,
            Some((body, footer)) => (body, BASE64.decode(footer).ok()?),
            None => (body, Vec::new()),
        };
        let signed = Zeroizing::new(BASE64.decode(body).ok()?);
        (signed.len() >= SIGNATURE_LENGTH).then_some(Self { signed, footer })
    }

    pub(super) fn message(&self) -> &[u8] {
        &self.signed[..self.signed.len() - SIGNATURE_LENGTH]
    }

    /// The first of `keys` that has signed the message. No key is of small order, see [`read_public`], so that the cheaper of
    /// ed25519-dalek's two ways to verify says as much as the other.
    pub(super) fn signer<'k>(&self, keys: &'k [VerifyingKey]) -> Option<&'k VerifyingKey> {
        let signature = Signature::from_bytes(self.signed.last_chunk()?);
        let bytes = to_be_signed(self.message(), &self.footer);
        keys.iter().find(|key| key.verify(&bytes, &signature).is_ok())
    }
}

/// Signs a message. There is no footer.
pub(super) fn sign(key: &SigningKey, message: &[u8]) -> String {
    let signature = key.sign(&to_be_signed(message, &[]));
    format!("{HEADER}{}", BASE64.encode([message, &signature.to_bytes()].concat()))
}

/// The pre-authentication encoding of header, message, footer and an empty implicit assertion.
fn to_be_signed(message: &[u8], footer: &[u8]) -> Zeroizing<Vec<u8>> {
    let pieces = [HEADER.as_bytes(), message, footer, &[]];
    let len = pieces.iter().map(|piece| 8 + piece.len()).sum::<usize>() + 8;
    let mut bytes = Zeroizing::new(Vec::with_capacity(len));
    bytes.extend_from_slice(&(pieces.len() as u64).to_le_bytes());
    for piece in pieces {
        bytes.extend_from_slice(&(piece.len() as u64).to_le_bytes());
        bytes.extend_from_slice(piece);
    }
    bytes
}

/// Reads a public key. One of small order, for which signatures prove nothing, is none.
pub(super) fn read_public(text: &str) -> Option<VerifyingKey> {
    let bytes = BASE64.decode(text.strip_prefix(PUBLIC_KEY)?).ok()?;
    let key = VerifyingKey::from_bytes(bytes.as_slice().try_into().ok()?).ok()?;
    (!key.is_weak()).then_some(key)
}

pub(super) fn write_public(key: &[u8; PUBLIC_KEY_LENGTH]) -> String {
    format!("{PUBLIC_KEY}{}", BASE64.encode(key))
}

/// Reads a private key, which has its public half behind it.
pub(super) fn read_secret(text: &str) -> Option<SigningKey> {
    let bytes = Zeroizing::new(BASE64.decode(text.strip_prefix(SECRET_KEY)?).ok()?);
    SigningKey::from_keypair_bytes(bytes.as_slice().try_into().ok()?).ok()
}

pub(super) fn write_secret(key: &SigningKey) -> Zeroizing<String> {
    let bytes = Zeroizing::new(key.to_keypair_bytes());
    let mut text = Zeroizing::new(String::with_capacity(SECRET_KEY.len() + bytes.len() * 4 / 3 + 4));
    text.push_str(SECRET_KEY);
    BASE64.encode_string(bytes.as_slice(), &mut text);
    text
}

/// Whether the text is a private key, or was meant to be one.
pub(super) fn is_secret(text: &str) -> bool {
    text.starts_with(SECRET_KEY)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of the specification's vectors for version 4.
    const SEED: &str = "b4cbfb43df4ce210727d953e4a713307fa19bb7d9f85041438d9e11b942a3774";
    const PUBLIC: &str = "1eb9dbbbbc047c03fd70604e0071f0987e16b28b757225c11f00415d0e20b1a2";
    const MESSAGE: &[u8] = br#"{"data":"this is a signed message","exp":"2022-01-01T00:00:00+00:00"}"#;
    /// The vectors 4-S-1, without a footer, and 4-S-2, with one.
    const WITHOUT_FOOTER: &str = "v4.public.eyJkYXRhIjoidGhpcyBpcyBhIHNpZ25lZCBtZXNzYWdlIiwiZXhwIjoiMjAyMi0wMS0wMVQwMDowMDowMCswMDowMCJ9bg_XBBzds8lTZShVlwwKSgeKpLT3yukTw6JUz3W4h_ExsQV-P0V54zemZDcAxFaSeef1QlXEFtkqxT1ciiQEDA";
    const WITH_FOOTER: &str = "v4.public.eyJkYXRhIjoidGhpcyBpcyBhIHNpZ25lZCBtZXNzYWdlIiwiZXhwIjoiMjAyMi0wMS0wMVQwMDowMDowMCswMDowMCJ9v3Jt8mx_TdM2ceTGoqwrh4yDFn0XsHvvV_D0DtwQxVrJEBMl0F2caAdgnpKlt4p7xBnx1HcO-SPo8FPp214HDw.eyJraWQiOiJ6VmhNaVBCUDlmUmYyc25FY1Q3Z0ZUaW9lQTlDT2NOeTlEZmdMMVc2MGhhTiJ9";

    fn bytes(hex: &str) -> [u8; 32] {
        std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("digits"))
    }

    #[test]
    fn tokens_are_those_of_the_specification() {
        let (key, public) = (SigningKey::from_bytes(&bytes(SEED)), bytes(PUBLIC));
        assert_eq!(key.verifying_key().as_bytes(), &public);
        assert_eq!(sign(&key, MESSAGE), WITHOUT_FOOTER);
        for token in [WITHOUT_FOOTER, WITH_FOOTER] {
            let parts = Parts::of(token).expect("a token");
            assert_eq!(parts.message(), MESSAGE);
            assert_eq!(parts.signer(&[key.verifying_key()]), Some(&key.verifying_key()), "{token}");
        }
    }

    /// Each character of a token counts, those of the footer, too, and base64 has one form.
    #[test]
    fn a_token_that_is_changed_or_cut_is_not_signed() {
        let keys = [SigningKey::from_bytes(&bytes(SEED)).verifying_key()];
        let is_signed = |token: &str| Parts::of(token).is_some_and(|parts| parts.signer(&keys).is_some());
        assert!(is_signed(WITH_FOOTER));
        for at in 0..WITH_FOOTER.len() {
            assert!(!is_signed(&WITH_FOOTER[..at]), "{at} characters");
            for other in ["A", "B", ".", "="] {
                let mut changed = WITH_FOOTER.to_owned();
                changed.replace_range(at..=at, other);
                assert!(changed == WITH_FOOTER || !is_signed(&changed), "{other} at {at}");
            }
        }
        for token in
            [&format!("{WITHOUT_FOOTER}."), &format!("{WITH_FOOTER}."), &format!("{WITHOUT_FOOTER}=")]
        {
            assert!(Parts::of(token).is_none(), "{token}");
        }
    }

    #[test]
    fn keys_have_the_text_form_of_the_specification() {
        let key = SigningKey::from_bytes(&bytes(SEED));
        let (public, secret) = (write_public(key.verifying_key().as_bytes()), write_secret(&key));
        // As Python encodes the 32 and the 64 bytes.
        assert_eq!(public, "k4.public.Hrnbu7wEfAP9cGBOAHHwmH4Wsot1ciXBHwBBXQ4gsaI");
        assert_eq!(&secret[..53], "k4.secret.tMv7Q99M4hByfZU-SnEzB_oZu32fhQQUONnhG5QqN3Q");
        assert_eq!(read_public(&public), Some(key.verifying_key()));
        assert_eq!(read_secret(&secret).map(|key| key.to_bytes()), Some(key.to_bytes()));
        assert!(is_secret(&secret) && !is_secret(&public));
        for text in ["", "k4.public.", &public[1..], &public[..52], &format!("{public}A"), &secret] {
            assert_eq!(read_public(text), None, "{text}");
        }
        let mut other_half = secret.to_string();
        other_half.replace_range(70..71, if &secret[70..71] == "A" { "B" } else { "A" });
        assert!(read_secret(&other_half).is_none(), "the halves belong together");
        let small_order = format!("{PUBLIC_KEY}{}", BASE64.encode([0; 32]));
        assert_eq!(read_public(&small_order), None);
    }
}
