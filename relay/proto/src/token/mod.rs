//! Tokens: grants that an operator signs for one node key, with an expiry, and if wanted for one relay.
//!
//! A token is a PASETO of version 4 with an Ed25519 signature ([`paseto`]), which any library for it can make. A relay verifies
//! it with the public key alone, so nothing is asked at a login. Two keys are accepted at once, so that one takes the place of
//! the other without a moment in which tokens of either are refused.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::VerifyingKey;
use towpath_wire::derp::token::Token;
use towpath_wire::key::NodePublic;
use towpath_wire::labels;
use zeroize::Zeroizing;

mod claims;
mod paseto;

pub use self::claims::{Claims, write_time};
use self::paseto::Parts;

/// The most keys that are accepted at once: the present one, and the one before or after it.
pub const MAX_TOKEN_KEYS: usize = 2;

labels! {
    /// Why a token does not admit a client.
    #[derive(thiserror::Error)]
    pub enum TokenError {
        /// The client presented no token.
        #[error("the client presents no token")]
        Missing = "token_missing",
        /// The client presented something else than a token of this form: PASETO `v4.public` with a node key and an expiry.
        #[error("the token is malformed")]
        Malformed = "token_malformed",
        /// None of the keys in `tokens.key_file` has signed the token.
        #[error("no accepted key has signed the token")]
        Forged = "token_forged",
        /// The token has expired.
        #[error("the token has expired")]
        Expired = "token_expired",
        /// The token is not valid yet, or the clock of the relay is behind.
        #[error("the token is not valid yet")]
        NotYetValid = "token_not_yet_valid",
        /// The token is for another node key than the client has.
        #[error("the token is for another node key")]
        OtherKey = "token_other_key",
        /// The token is for another relay.
        #[error("the token is for another relay")]
        OtherRelay = "token_other_relay",
    }
}

/// A token that was found good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The first second, since 1970, in which the token is of no use any more.
    pub expires: i64,
    /// The key that has signed the token.
    pub signer: TokenKey,
}

/// The public key of an issuer of tokens, by which they are verified.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenKey([u8; 32]);

impl fmt::Display for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&paseto::write_public(&self.0))
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The keys whose tokens are accepted: one or two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKeys(Vec<VerifyingKey>);

/// Why a text holds no keys whose tokens could be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenKeysError {
    /// There is none.
    #[error("it holds no key: put the public key that token keygen prints on a line of it")]
    None,
    /// There are more than are accepted.
    #[error("line {0} has one key too many: {MAX} are accepted at once", MAX = MAX_TOKEN_KEYS)]
    TooMany(usize),
    /// A key is there twice.
    #[error("line {0} has a key that is there before")]
    Twice(usize),
    /// A line is no key.
    #[error(
        "line {0} is not a public key for tokens: expected `k4.public.` and 43 characters, as token keygen prints it"
    )]
    NotAKey(usize),
    /// A line is the private key of an issuer, with which this host could make tokens.
    #[error(
        "line {0} is a signing key, which belongs to the issuer alone: put its public key there, as token keygen prints it"
    )]
    SigningKey(usize),
}

impl TokenKeys {
    /// Reads keys, one on a line. What follows a `#` is left out, and so are empty lines.
    ///
    /// # Errors
    ///
    /// See [`TokenKeysError`]. The error does not repeat the text.
    pub fn parse(text: &str) -> Result<Self, TokenKeysError> {
        let mut keys = Vec::with_capacity(MAX_TOKEN_KEYS);
        for (index, line) in text.lines().enumerate() {
            let (line, number) = (line.split('#').next().unwrap_or_default().trim(), index + 1);
            if line.is_empty() {
                continue;
            }
            if paseto::is_secret(line) {
                return Err(TokenKeysError::SigningKey(number));
            }
            let key = paseto::read_public(line).ok_or(TokenKeysError::NotAKey(number))?;
            if keys.contains(&key) {
                return Err(TokenKeysError::Twice(number));
            }
            if keys.len() == MAX_TOKEN_KEYS {
                return Err(TokenKeysError::TooMany(number));
            }
            keys.push(key);
        }
        if keys.is_empty() { Err(TokenKeysError::None) } else { Ok(Self(keys)) }
    }

    /// Decides whether `client` may log in at `relay` with `token` at `now`, in seconds since 1970.
    ///
    /// # Errors
    ///
    /// See [`TokenError`].
    pub fn check(
        &self,
        token: &Token,
        client: &NodePublic,
        relay: &NodePublic,
        now: i64,
    ) -> Result<Checked, TokenError> {
        let (claims, signer) = self.verify(token)?;
        claims.check_keys(client, relay)?;
        claims.check_time(now)?;
        Ok(Checked { expires: claims.expires, signer })
    }

    /// Decides whether a token that was found good before still is: it has not expired, and the key of its signature is accepted.
    ///
    /// # Errors
    ///
    /// [`TokenError::Expired`] or [`TokenError::Forged`].
    pub fn check_again(&self, checked: &Checked, now: i64) -> Result<(), TokenError> {
        if !self.0.iter().any(|key| *key.as_bytes() == checked.signer.0) {
            return Err(TokenError::Forged);
        }
        if now >= checked.expires { Err(TokenError::Expired) } else { Ok(()) }
    }

    /// Returns what the token says, and the key that has signed it.
    ///
    /// # Errors
    ///
    /// [`TokenError::Malformed`] or [`TokenError::Forged`].
    pub fn verify(&self, token: &Token) -> Result<(Claims, TokenKey), TokenError> {
        let parts = Parts::of(token.as_str()).ok_or(TokenError::Malformed)?;
        let signer = parts.signer(&self.0).ok_or(TokenError::Forged)?;
        // The JSON of an unknown signer is not read.
        let claims = Claims::read(parts.message()).ok_or(TokenError::Malformed)?;
        Ok((claims, TokenKey(signer.to_bytes())))
    }
}

/// Returns what a token says, signed by any key or none.
///
/// # Errors
///
/// [`TokenError::Malformed`].
pub fn read_unverified(token: &Token) -> Result<Claims, TokenError> {
    let parts = Parts::of(token.as_str()).ok_or(TokenError::Malformed)?;
    Claims::read(parts.message()).ok_or(TokenError::Malformed)
}

/// The private key of an issuer, with which tokens are made. Wiped when it is dropped, and not printed.
pub struct SigningKey(ed25519_dalek::SigningKey);

/// A text that is not the private key of an issuer. The message never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a signing key for tokens: expected `k4.secret.` and 86 characters, as token keygen makes it")]
pub struct SigningKeyTextError;

/// A time that a token cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token cannot have a time beyond the year 9999")]
pub struct BeyondCalendar;

impl SigningKey {
    /// The key made of 32 random bytes.
    #[must_use]
    pub fn from_random(bytes: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(bytes))
    }

    /// The public half, which relays accept.
    #[must_use]
    pub fn public(&self) -> TokenKey {
        TokenKey(self.0.verifying_key().to_bytes())
    }

    /// The text form, for a key file.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        paseto::write_secret(&self.0)
    }

    /// Makes a token that says `claims`.
    ///
    /// # Errors
    ///
    /// [`BeyondCalendar`] for a time that has no text form.
    pub fn issue(&self, claims: &Claims) -> Result<Token, BeyondCalendar> {
        let token = Zeroizing::new(paseto::sign(&self.0, &claims.write().ok_or(BeyondCalendar)?));
        Ok(token.parse().expect("tokens are short, and of the characters of tokens"))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

impl FromStr for SigningKey {
    type Err = SigningKeyTextError;

    fn from_str(text: &str) -> Result<Self, SigningKeyTextError> {
        paseto::read_secret(text.trim()).map(Self).ok_or(SigningKeyTextError)
    }
}

#[cfg(test)]
mod tests;
