//! The policy `tokens`: a client presents a token that a key of a file has signed.
//!
//! A token is judged where it is presented, at the login, on the control plane. What was found good is remembered for the node
//! key, without the token, so that it can be looked at again while the client is connected: it expires, and the key of its issuer
//! may be taken out of the file.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use towpath_relay_proto::token::{Checked, TokenError, TokenKeys, TokenKeysError};
use towpath_service::visible_path;
use towpath_wire::derp::info::Introduction;
use towpath_wire::key::NodePublic;
use towpath_wire::sync::lock;

/// The longest file of keys. Two lines have 110 bytes; the rest is for notes.
const MAX_FILE: u64 = 64 * 1024;
/// How many keys may be remembered before those are looked for whose tokens have expired.
const PRUNE_ABOVE: usize = 1024;

/// The reason why a file with the public keys of issuers cannot be used. The message does not repeat its contents.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The system refuses.
    #[error("cannot read the keys for tokens in {path}", path = visible_path(path))]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is longer than what is read of it.
    #[error("{path}: longer than 64 KiB, so it is no file with two keys for tokens", path = visible_path(.0))]
    TooLong(PathBuf),
    /// The file holds something else.
    #[error("{path}", path = visible_path(.0))]
    Keys(PathBuf, #[source] TokenKeysError),
}

/// Reads the file with the public keys of issuers.
///
/// # Errors
///
/// See [`TokenFileError`].
pub fn read_token_keys(path: &Path) -> Result<TokenKeys, TokenFileError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text));
    let length = read.map_err(|source| TokenFileError::File { path: path.into(), source })?;
    if length as u64 > MAX_FILE {
        return Err(TokenFileError::TooLong(path.into()));
    }
    TokenKeys::parse(&text).map_err(|error| TokenFileError::Keys(path.into(), error))
}

/// The tokens of a running relay: the keys whose tokens are accepted, which may be replaced, and what was accepted.
#[derive(Debug)]
pub(crate) struct Tokens {
    keys: Mutex<TokenKeys>,
    accepted: Mutex<Accepted>,
}

/// The tokens that were found good, by the node key that they are for.
#[derive(Debug)]
struct Accepted {
    tokens: HashMap<NodePublic, Checked>,
    prune_above: usize,
}

impl Tokens {
    pub(crate) fn new(keys: TokenKeys) -> Self {
        let accepted = Accepted { tokens: HashMap::new(), prune_above: PRUNE_ABOVE };
        Self { keys: Mutex::new(keys), accepted: Mutex::new(accepted) }
    }

    /// Judges the token of a client that has proved its key at the relay with the key `relay`.
    ///
    /// # Errors
    ///
    /// See [`TokenError`].
    pub(crate) fn answer(
        &self,
        introduction: &Introduction,
        relay: &NodePublic,
        now: i64,
    ) -> Result<(), TokenError> {
        let token = introduction.info.token.as_ref().ok_or(TokenError::Missing)?;
        // Verifying takes as long as the agreement of keys that the login has cost already, so the lock is not held for it.
        let keys = lock(&self.keys).clone();
        let checked = keys.check(token, &introduction.client, relay, now)?;
        lock(&self.accepted).insert(introduction.client, checked, now);
        Ok(())
    }

    /// Whether the token that a key has presented before still holds.
    ///
    /// # Errors
    ///
    /// [`TokenError::Missing`] if none was found good, [`TokenError::Expired`], or [`TokenError::Forged`] if the key of its issuer
    /// is accepted no longer.
    pub(crate) fn answer_again(&self, key: &NodePublic, now: i64) -> Result<(), TokenError> {
        let checked = lock(&self.accepted).tokens.get(key).copied().ok_or(TokenError::Missing)?;
        lock(&self.keys).check_again(&checked, now)
    }

    /// Accepts tokens of these keys from now on, and of no others. Returns whether they differ from the present ones.
    pub(crate) fn replace(&self, keys: TokenKeys) -> bool {
        let mut present = lock(&self.keys);
        let differ = *present != keys;
        *present = keys;
        differ
    }
}

impl Accepted {
    fn insert(&mut self, key: NodePublic, checked: Checked, now: i64) {
        self.tokens.insert(key, checked);
        if self.tokens.len() > self.prune_above {
            self.tokens.retain(|_, checked| checked.expires > now);
            // Twice as many before the next look, so that a look costs each login little.
            self.prune_above = PRUNE_ABOVE.max(2 * self.tokens.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use towpath_relay_proto::token::{Claims, SigningKey};
    use towpath_service::ErrorChain;
    use towpath_wire::derp::info::ClientInfo;
    use towpath_wire::key::NodePrivate;
    use towpath_wire::sealed::SharedKey;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn issuer(seed: u8) -> SigningKey {
        SigningKey::from_random(&[seed; 32])
    }

    fn keys(issuers: &[&SigningKey]) -> TokenKeys {
        let lines: Vec<_> = issuers.iter().map(|issuer| issuer.public().to_string()).collect();
        TokenKeys::parse(&lines.join("\n")).expect("keys")
    }

    /// A client with a key made from a number, that presents a token of `issuer`.
    fn introduction(number: u32, issuer: Option<&SigningKey>, expires: i64) -> Introduction {
        let mut bytes = [7; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        let (client, relay) = (NodePublic::from_bytes(bytes), NodePrivate::from_random([2; 32]));
        let claims = Claims { client, relay: None, expires, not_before: None, issued: None };
        let token = issuer.map(|issuer| issuer.issue(&claims).expect("a token"));
        let shared = SharedKey::new(&relay, &relay.public());
        Introduction { client, info: ClientInfo { token, ..ClientInfo::default() }, shared }
    }

    #[test]
    fn a_token_holds_until_it_expires_or_its_key_is_taken_out() {
        let (old, new, relay) = (issuer(1), issuer(2), NodePublic::from_bytes([2; 32]));
        let tokens = Tokens::new(keys(&[&old]));
        let good = introduction(1, Some(&old), NOW + 60);
        assert_eq!(tokens.answer_again(&good.client, NOW), Err(TokenError::Missing));
        assert_eq!(tokens.answer(&good, &relay, NOW), Ok(()));
        assert_eq!(tokens.answer_again(&good.client, NOW + 59), Ok(()));
        assert_eq!(tokens.answer_again(&good.client, NOW + 60), Err(TokenError::Expired));
        for (number, signer, expires, fault) in [
            (2, None, NOW + 60, TokenError::Missing),
            (3, Some(&new), NOW + 60, TokenError::Forged),
            (4, Some(&old), NOW, TokenError::Expired),
        ] {
            let client = introduction(number, signer, expires);
            assert_eq!(tokens.answer(&client, &relay, NOW), Err(fault));
            assert_eq!(tokens.answer_again(&client.client, NOW), Err(TokenError::Missing), "{fault}");
        }
        assert!(!tokens.replace(keys(&[&old])), "nothing has changed");
        assert!(tokens.replace(keys(&[&new, &old])));
        assert_eq!(tokens.answer_again(&good.client, NOW), Ok(()));
        assert!(tokens.replace(keys(&[&new])));
        assert_eq!(tokens.answer_again(&good.client, NOW), Err(TokenError::Forged));
        assert_eq!(tokens.answer(&good, &relay, NOW), Err(TokenError::Forged));
    }

    #[test]
    fn what_has_expired_is_forgotten_before_more_is_remembered() {
        let (old, relay) = (issuer(1), NodePublic::from_bytes([2; 32]));
        let tokens = Tokens::new(keys(&[&old]));
        let present = |number, expires, now| {
            assert_eq!(tokens.answer(&introduction(number, Some(&old), expires), &relay, now), Ok(()));
            lock(&tokens.accepted).tokens.len()
        };
        for number in 0..PRUNE_ABOVE as u32 {
            present(number, NOW + 60, NOW);
        }
        assert_eq!(present(5_000, NOW + 120, NOW + 60), 1, "the others have expired");
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_the_reason() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token-keys");
        let read = || read_token_keys(&path).map_err(|error| ErrorChain(&error).to_string());
        let missing = read().expect_err("no file");
        assert!(
            missing.starts_with(&format!("cannot read the keys for tokens in {}: ", path.display())),
            "{missing}"
        );
        let secret = issuer(1).to_text();
        for (text, reason) in [
            ("# none\n", "it holds no key: put the public key that token keygen prints on a line of it"),
            (&*secret, "line 1 is a signing key, which belongs to the issuer alone"),
            ("\nnodekey:00", "line 2 is not a public key for tokens"),
        ] {
            fs::write(&path, text).expect("a file");
            let told = read().expect_err("no keys");
            assert!(told.starts_with(&format!("{}: {reason}", path.display())), "{told}");
            assert!(!told.contains(&secret[20..]));
        }
        fs::write(&path, format!("{}\n", issuer(1).public())).expect("a file");
        assert_eq!(read(), Ok(keys(&[&issuer(1)])));
    }
}
