//! Settings that are lists: a TOML array, or text separated by commas. Empty text is the empty list.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::DeValue;

use super::Value;
use super::value::quote;

/// What a list can be of.
pub trait Element: Value {
    /// The allowed lists in words, to end the sentence "allowed: …".
    fn allowed_list() -> String;
}

impl<T: Element> Value for Vec<T> {
    fn allowed() -> String {
        T::allowed_list()
    }

    fn from_text(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::new());
        }
        text.split(',').map(|element| T::from_text(element.trim())).collect()
    }

    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Range<usize>>> {
        let array = value.get_ref().as_array().ok_or_else(|| vec![value.span()])?;
        let mut elements = Self::new();
        let mut rejected = Vec::new();
        for element in array.iter() {
            match T::from_toml(element) {
                Ok(element) => elements.push(element),
                Err(spans) => rejected.extend(spans),
            }
        }
        if rejected.is_empty() { Ok(elements) } else { Err(rejected) }
    }

    fn to_toml(&self) -> String {
        let elements: Vec<_> = self.iter().map(Value::to_toml).collect();
        format!("[{}]", elements.join(", "))
    }
}

/// A list, or a word that says what no list can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WordOr<T> {
    /// The word.
    Word,
    /// A list.
    List(Vec<T>),
}

/// An element in the place of whose list a word may stand.
pub trait Wordy: Element {
    /// The word.
    const WORD: &'static str;
}

impl<T: Wordy> Value for WordOr<T> {
    fn allowed() -> String {
        format!("{}, or {}", quote(T::WORD), T::allowed_list())
    }

    fn from_text(text: &str) -> Option<Self> {
        if text == T::WORD { Some(Self::Word) } else { Vec::from_text(text).map(Self::List) }
    }

    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Range<usize>>> {
        match value.get_ref().as_str() {
            Some(text) if text == T::WORD => Ok(Self::Word),
            _ => Vec::from_toml(value).map(Self::List),
        }
    }

    fn to_toml(&self) -> String {
        match self {
            Self::Word => quote(T::WORD),
            Self::List(list) => list.to_toml(),
        }
    }
}

impl Element for SocketAddr {
    fn allowed_list() -> String {
        "a list of IP addresses with ports such as [\"192.0.2.7:3478\", \"[2001:db8::7]:3478\"]".into()
    }
}

impl Element for String {
    fn allowed_list() -> String {
        "a list of text such as [\"one\", \"two\"]".into()
    }
}

impl Element for IpNet {
    fn allowed_list() -> String {
        "a list of IP addresses or prefixes such as [\"192.0.2.7\", \"2001:db8::/64\"]".into()
    }
}

/// A prefix; an address stands for the prefix of itself alone.
impl Value for IpNet {
    fn allowed() -> String {
        "an IP address or a prefix such as \"192.0.2.7\" or \"2001:db8::/64\"".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().or_else(|_| text.parse::<IpAddr>().map(Self::from)).ok()
    }

    fn to_toml(&self) -> String {
        let whole = self.prefix_len() == self.max_prefix_len();
        quote(&if whole { self.addr().to_string() } else { self.trunc().to_string() })
    }
}
