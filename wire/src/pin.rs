//! Certificate pins: the hash by which a client names the one certificate that it accepts, whatever its issuer.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::hex;

/// The SHA-256 of a certificate's whole DER form.
///
/// The text form is that of `CertName` in a DERP map, [`PREFIX`](Self::PREFIX) and 64 hexadecimal digits. It is written
/// in lower case, because clients compare text, and read in either.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct CertificatePin([u8; 32]);

/// The error for a text that is not a certificate pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a certificate pin: expected `{prefix}` and {digits} hexadecimal digits", prefix = CertificatePin::PREFIX, digits = CertificatePin::DIGITS)]
pub struct PinTextError;

impl CertificatePin {
    /// How the text of a pin begins.
    pub const PREFIX: &'static str = "sha256-raw:";
    /// How many hexadecimal digits follow the prefix.
    pub const DIGITS: usize = 64;

    /// The pin of the certificate whose DER form has this SHA-256.
    #[must_use]
    pub const fn from_sha256(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// The pin with these digits, of either case and without the prefix.
    #[must_use]
    pub fn from_hex(digits: &str) -> Option<Self> {
        hex::read(digits).map(Self)
    }
}

impl fmt::Display for CertificatePin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{self:x}", Self::PREFIX)
    }
}

/// The digits alone.
impl fmt::LowerHex for CertificatePin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}

impl fmt::Debug for CertificatePin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for CertificatePin {
    type Err = PinTextError;

    fn from_str(text: &str) -> Result<Self, PinTextError> {
        text.strip_prefix(Self::PREFIX).and_then(Self::from_hex).ok_or(PinTextError)
    }
}

impl From<CertificatePin> for String {
    fn from(pin: CertificatePin) -> Self {
        pin.to_string()
    }
}

impl TryFrom<String> for CertificatePin {
    type Error = PinTextError;

    fn try_from(text: String) -> Result<Self, PinTextError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_written_in_lower_case_and_read_in_either() {
        let pin = CertificatePin::from_sha256([0xab; 32]);
        let text = format!("sha256-raw:{}", "ab".repeat(32));
        assert_eq!(pin.to_string(), text);
        assert_eq!(text.parse(), Ok(pin));
        assert_eq!(format!("sha256-raw:{}", "AB".repeat(32)).parse(), Ok(pin));
        assert_eq!(CertificatePin::from_hex(&format!("{pin:x}")), Some(pin));
        let json = serde_json::to_string(&pin).expect("a text");
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<CertificatePin>(&json).expect("its own text"), pin);
    }

    #[test]
    fn what_is_no_pin_is_refused() {
        let digits = "ab".repeat(32);
        for text in [
            "",
            &digits,
            "sha256-raw:",
            "sha256-raw:00",
            &format!("SHA256-raw:{digits}"),
            &format!("sha256-raw: {digits}"),
            &format!("sha256-raw:{digits}ab"),
            &format!("sha256-raw:{}", "g".repeat(64)),
        ] {
            assert_eq!(text.parse::<CertificatePin>(), Err(PinTextError), "{text}");
        }
        let message = PinTextError.to_string();
        assert_eq!(message, "not a certificate pin: expected `sha256-raw:` and 64 hexadecimal digits");
    }
}
