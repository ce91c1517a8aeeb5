//! The token that a client presents at login, as text. What it grants is read where tokens are judged.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The longest token, in bytes. Tokens that the relay's own commands make have about 400; with this bound a login fits into
/// what a relay takes of one.
pub const MAX_TOKEN: usize = 2048;

/// The token that a client presents at login. Its text stays in one place of memory, which is wiped when the last clone is
/// dropped, and is not printed.
#[derive(Clone)]
pub struct Token(Arc<Zeroizing<String>>);

/// A text that is no token. The message never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a token: expected 1 to {max} letters, digits, dots, hyphens and underscores", max = MAX_TOKEN)]
pub struct TokenTextError;

impl Token {
    /// The text of the token, which is a secret; empty for a text that a login claimed to be a token and that is none.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The token that a ClientInfo claims. A text that is none is kept as the empty text, so that it is judged as a token and
    /// found malformed, where tokens are judged at all.
    pub(super) fn from_claim(text: &str) -> Self {
        text.parse().unwrap_or_else(|TokenTextError| Self::keep(""))
    }

    fn keep(text: &str) -> Self {
        Self(Arc::new(Zeroizing::new(text.to_owned())))
    }
}

/// The characters of base64 for URLs, and the dots between the parts of a token: JSON needs no escape for any.
impl FromStr for Token {
    type Err = TokenTextError;

    fn from_str(text: &str) -> Result<Self, TokenTextError> {
        let is_token = (1..=MAX_TOKEN).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
        if is_token { Ok(Self::keep(text)) } else { Err(TokenTextError) }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.as_str().as_bytes().ct_eq(other.as_str().as_bytes()).into()
    }
}

impl Eq for Token {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_short_and_of_the_characters_of_tokens() {
        let longest = "x".repeat(MAX_TOKEN);
        for text in ["v4.public.a-b_C9", "x", &longest] {
            assert_eq!(text.parse::<Token>().expect("a token").as_str(), text);
            assert_eq!(Token::from_claim(text).as_str(), text);
        }
        for text in ["", " x", "x\n", "a b", "a\"b", "é", &format!("{longest}x")] {
            assert_eq!(text.parse::<Token>(), Err(TokenTextError), "{text:?}");
            assert_eq!(Token::from_claim(text).as_str(), "", "{text:?}");
        }
    }

    #[test]
    fn a_token_is_not_printed_and_has_one_place_in_memory() {
        let token: Token = "v4.public.secret".parse().expect("a token");
        assert_eq!(format!("{token:?}"), "Token(..)");
        assert_eq!(token.clone().as_str().as_ptr(), token.as_str().as_ptr());
        assert!(token == token.clone() && token != "v4.public.secreT".parse().expect("a token"));
    }
}
