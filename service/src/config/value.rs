//! What a setting can be: how each type reads from TOML and from plain text, and what to say when it does not.

use std::net::{SocketAddr, SocketAddrV6};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};
use toml::Spanned;
use toml::de::DeValue;

/// A type that a setting can have.
///
/// The file speaks TOML; the environment and the command line speak plain text. Both readings must accept the same
/// values, so `from_toml` reads a TOML string as text unless a type has a TOML form of its own.
pub trait Value: Clone + 'static {
    /// The allowed values in words, to end the sentence "allowed: …".
    fn allowed() -> String;

    /// Reads plain text: an environment variable or a flag.
    fn from_text(text: &str) -> Option<Self>;

    /// Reads a TOML value. On failure, returns the spans of the parts that are not acceptable.
    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Range<usize>>> {
        value.get_ref().as_str().and_then(Self::from_text).ok_or_else(|| vec![value.span()])
    }

    /// Writes the value as TOML that `from_toml` reads back.
    fn to_toml(&self) -> String;
}

/// A closed set of names, such as the log formats. Implementing this makes a type a [`Value`].
pub trait Choice: Copy + PartialEq + 'static {
    /// Every name with what it stands for, in the order in which messages list them.
    const ALL: &'static [(&'static str, Self)];
}

impl<T: Choice> Value for T {
    fn allowed() -> String {
        let names: Vec<_> = T::ALL.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        names.join(", ")
    }

    fn from_text(text: &str) -> Option<Self> {
        T::ALL.iter().find(|(name, _)| *name == text).map(|(_, value)| *value)
    }

    fn to_toml(&self) -> String {
        let named = T::ALL.iter().find(|(_, value)| value == self);
        quote(named.map_or("", |(name, _)| name))
    }
}

impl Value for bool {
    fn allowed() -> String {
        "true or false".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Range<usize>>> {
        value.get_ref().as_bool().ok_or_else(|| vec![value.span()])
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }
}

/// An unsigned TOML integer, whatever its radix.
fn integer(value: &Spanned<DeValue<'_>>) -> Option<u64> {
    let integer = value.get_ref().as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

macro_rules! integer_value {
    ($($type:ty: $allowed:expr;)*) => {$(
        impl Value for $type {
            fn allowed() -> String {
                $allowed.into()
            }

            fn from_text(text: &str) -> Option<Self> {
                text.parse().ok()
            }

            fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Range<usize>>> {
                integer(value).and_then(|number| Self::try_from(number).ok()).ok_or_else(|| vec![value.span()])
            }

            fn to_toml(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

integer_value! {
    u16: "a whole number from 0 to 65535";
    u32: "a whole number from 0 to 4294967295";
    u64: "a whole number, 0 or more";
    usize: "a whole number, 0 or more";
}

impl Value for NonZeroUsize {
    fn allowed() -> String {
        "a whole number, 1 or more".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Range<usize>>> {
        usize::from_toml(value).and_then(|number| Self::new(number).ok_or_else(|| vec![value.span()]))
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }
}

/// A number of bytes, written as a plain integer or with a binary unit: `"512KiB"`.
///
/// Decimal units are not accepted: half of all readers take `64KB` for 65536 and the other half for 64000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(usize);

impl ByteSize {
    const UNITS: [(&'static str, usize); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

    /// This many bytes.
    pub const fn bytes(bytes: usize) -> Self {
        Self(bytes)
    }

    /// This many KiB. Meant for constants: it overflows as `*` does.
    pub const fn kib(kib: usize) -> Self {
        Self(kib << 10)
    }

    /// This many MiB. Meant for constants: it overflows as `*` does.
    pub const fn mib(mib: usize) -> Self {
        Self(mib << 20)
    }

    /// The size in bytes.
    pub const fn get(self) -> usize {
        self.0
    }
}

impl Value for ByteSize {
    fn allowed() -> String {
        "a size such as \"512KiB\", \"1MiB\" or a number of bytes".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let (digits, scale) = Self::UNITS
            .iter()
            .find_map(|(unit, scale)| Some((text.strip_suffix(unit)?.trim_end(), *scale)))
            .unwrap_or((text, 1));
        digits.parse::<usize>().ok()?.checked_mul(scale).map(Self)
    }

    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Range<usize>>> {
        let read = match value.get_ref() {
            DeValue::String(text) => Self::from_text(text),
            _ => integer(value).and_then(|bytes| usize::try_from(bytes).ok()).map(Self),
        };
        read.ok_or_else(|| vec![value.span()])
    }

    fn to_toml(&self) -> String {
        Self::UNITS
            .iter()
            .find(|(_, scale)| self.0 > 0 && self.0.is_multiple_of(*scale))
            .map_or_else(|| self.0.to_string(), |(unit, scale)| quote(&format!("{}{unit}", self.0 / scale)))
    }
}

/// Units of time in microseconds, smallest first.
const TIME_UNITS: [(&str, u64); 5] =
    [("us", 1), ("ms", 1000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000)];

impl Value for Duration {
    fn allowed() -> String {
        "a duration such as \"250ms\", \"10s\" or \"5m\"".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let (digits, scale) =
            TIME_UNITS.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, *scale)))?;
        digits.parse::<u64>().ok()?.checked_mul(scale).map(Self::from_micros)
    }

    fn to_toml(&self) -> String {
        let micros = self.as_micros();
        let (unit, scale) = TIME_UNITS
            .iter()
            .rev()
            .find(|(unit, scale)| micros.is_multiple_of(u128::from(*scale)) && (micros > 0 || *unit == "s"))
            .unwrap_or(&TIME_UNITS[0]);
        quote(&format!("{}{unit}", micros / u128::from(*scale)))
    }
}

impl Value for SocketAddr {
    fn allowed() -> String {
        "an IP address and port such as \"0.0.0.0:443\" or \"[::]:443\"".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok().or_else(|| with_interface_name(text))
    }

    fn to_toml(&self) -> String {
        quote(&self.to_string())
    }
}

/// Reads an address whose scope is the name of an interface of this host, as in `[fe80::1%eth0]:3478` (RFC 4007 section 11).
fn with_interface_name(text: &str) -> Option<SocketAddr> {
    let (address, rest) = text.strip_prefix('[')?.split_once('%')?;
    let (interface, port) = rest.split_once("]:")?;
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    let scope = name_to_index(any, interface).ok()?;
    Some(SocketAddrV6::new(address.parse().ok()?, port.parse().ok()?, 0, scope).into())
}

/// A listener that can be turned off: `""` stands for `None`.
impl Value for Option<SocketAddr> {
    fn allowed() -> String {
        format!("{}, or \"\" to turn it off", SocketAddr::allowed())
    }

    fn from_text(text: &str) -> Option<Self> {
        if text.is_empty() { Some(None) } else { SocketAddr::from_text(text).map(Some) }
    }

    fn to_toml(&self) -> String {
        quote(&self.map_or_else(String::new, |address| address.to_string()))
    }
}

impl Value for String {
    fn allowed() -> String {
        "text".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        Some(text.into())
    }

    fn to_toml(&self) -> String {
        quote(self)
    }
}

impl Value for PathBuf {
    fn allowed() -> String {
        "a path".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Path::new(text).to_owned())
    }

    fn to_toml(&self) -> String {
        quote(&self.to_string_lossy())
    }
}

/// A file that is used or not: `""` stands for `None`.
impl Value for Option<PathBuf> {
    fn allowed() -> String {
        format!("{}, or \"\" for none", PathBuf::allowed())
    }

    fn from_text(text: &str) -> Option<Self> {
        if text.is_empty() { Some(None) } else { PathBuf::from_text(text).map(Some) }
    }

    fn to_toml(&self) -> String {
        self.as_ref().map_or_else(|| quote(""), Value::to_toml)
    }
}

/// Writes text as a TOML string.
pub fn quote(text: &str) -> String {
    toml::Value::String(text.into()).to_string()
}
