//! The few fields of an X.509 certificate that DERP asks for: serial number, common name, dates.
//!
//! Signatures, names and chains are rustls' business. It gives no access to these fields, and its parser is right to
//! refuse what a meta certificate looks like: a common name beyond the 64 characters of RFC 5280.

use rustls::pki_types::CertificateDer;
use towpath_wire::derp::META_NAME_PREFIX;
use towpath_wire::key::NodePublic;

mod tag {
    pub(super) const INTEGER: u8 = 0x02;
    pub(super) const OID: u8 = 0x06;
    pub(super) const UTC_TIME: u8 = 0x17;
    pub(super) const GENERALIZED_TIME: u8 = 0x18;
    pub(super) const SEQUENCE: u8 = 0x30;
    pub(super) const SET: u8 = 0x31;
    pub(super) const VERSION: u8 = 0xa0;
}

/// `id-at-commonName`, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The fields, borrowed from the certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fields<'a> {
    serial: &'a [u8],
    /// Empty where there is none.
    common_name: &'a str,
    /// Seconds since 1970.
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
}

impl<'a> Fields<'a> {
    /// Reads a certificate; `None` for what is not laid out like one.
    pub(crate) fn read(certificate: &'a CertificateDer<'_>) -> Option<Self> {
        let mut certificate = Der(certificate).expect(tag::SEQUENCE)?;
        let mut to_be_signed = certificate.expect(tag::SEQUENCE)?;
        if to_be_signed.peek() == Some(tag::VERSION) {
            to_be_signed.next()?;
        }
        let serial = to_be_signed.expect(tag::INTEGER)?.0;
        let _signature_algorithm = to_be_signed.expect(tag::SEQUENCE)?;
        let _issuer = to_be_signed.expect(tag::SEQUENCE)?;
        let mut validity = to_be_signed.expect(tag::SEQUENCE)?;
        let (not_before, not_after) = (validity.time()?, validity.time()?);
        let common_name = common_name(to_be_signed.expect(tag::SEQUENCE)?)?;
        Some(Self { serial, common_name, not_before, not_after })
    }

    /// Whether this is a meta certificate, be it a good one or not.
    pub(crate) fn is_meta(&self) -> bool {
        self.common_name.starts_with(META_NAME_PREFIX)
    }

    /// The relay's key in a meta certificate. The serial number is the protocol version: one to 255.
    pub(crate) fn relay_key(&self) -> Option<NodePublic> {
        match self.serial {
            [1..=0x7f] | [0, 0x80..=0xff] => {
                NodePublic::from_hex(self.common_name.strip_prefix(META_NAME_PREFIX)?)
            }
            _ => None,
        }
    }
}

/// Returns the name alone from how webpki writes one of a certificate: `DnsName("relay.example.com")`,
/// `IpAddress(192.0.2.1)`.
#[must_use]
pub fn plain_name(name: &str) -> &str {
    let inside = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inside.unwrap_or(name).trim_matches('"')
}

/// The time within which clients accept a certificate, in seconds since 1970. Both ends are part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before: i64,
    /// The last second.
    pub not_after: i64,
}

impl Validity {
    /// Reads the dates of a certificate; `None` for what is not laid out like one.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let Fields { not_before, not_after, .. } = Fields::read(certificate)?;
        Some(Self { not_before, not_after })
    }
}

/// The relay's key in the first good meta certificate of a chain: fast start needs it, from bytes that are not yet
/// authenticated.
#[must_use]
pub fn relay_key(chain: &[CertificateDer<'_>]) -> Option<NodePublic> {
    chain.iter().find_map(|certificate| Fields::read(certificate)?.relay_key())
}

/// Whether this is a meta certificate, be it a good one or not.
pub(crate) fn is_meta(certificate: &CertificateDer<'_>) -> bool {
    Fields::read(certificate).is_some_and(|fields| fields.is_meta())
}

/// The last common name of `name`, as Go takes it. A name in another encoding than UTF-8 or a part of it counts as
/// none.
fn common_name(mut name: Der<'_>) -> Option<&str> {
    let mut found = "";
    while !name.0.is_empty() {
        let mut relative = name.expect(tag::SET)?;
        while !relative.0.is_empty() {
            let mut attribute = relative.expect(tag::SEQUENCE)?;
            let kind = attribute.expect(tag::OID)?;
            let (_string_type, value) = attribute.next()?;
            if kind.0 == COMMON_NAME {
                found = std::str::from_utf8(value).unwrap_or_default();
            }
        }
    }
    Some(found)
}

/// Elements in DER that are not read yet.
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The tag and the contents of the next element.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], mut rest) = self.0.split_first_chunk()?;
        let len = match first {
            0..=0x7f => usize::from(first),
            0x81..=0x83 => {
                let (digits, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
                rest = after;
                digits.iter().fold(0, |len, &digit| len << 8 | usize::from(digit))
            }
            _ => return None,
        };
        let (contents, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, contents))
    }

    fn expect(&mut self, tag: u8) -> Option<Self> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, contents)| Self(contents))
    }

    /// A time in one of the two forms of RFC 5280 section 4.1.2.5, both in UTC, as seconds since 1970.
    fn time(&mut self) -> Option<i64> {
        let (tag, text) = self.next()?;
        let (year, rest) = match tag {
            tag::UTC_TIME => match number(text, 2)? {
                (year @ 50.., rest) => (1900 + year, rest),
                (year, rest) => (2000 + year, rest),
            },
            tag::GENERALIZED_TIME => number(text, 4)?,
            _ => return None,
        };
        let (month, rest) = number(rest, 2)?;
        let (day, rest) = number(rest, 2)?;
        let (hour, rest) = number(rest, 2)?;
        let (minute, rest) = number(rest, 2)?;
        let (second, rest) = number(rest, 2)?;
        let in_range =
            (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 60;
        (rest == b"Z" && in_range)
            .then(|| ((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
    }
}

/// The number in the first `digits` characters of `text`, and what follows.
fn number(text: &[u8], digits: usize) -> Option<(i64, &[u8])> {
    let (number, rest) = text.split_at_checked(digits)?;
    let number = number
        .iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))?;
    Some((number, rest))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years are taken to start in March, so that the leap day
/// is the last of its year and months follow a pattern of five.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SerialNumber, date_time_ymd};

    use super::*;

    const KEY: &str = "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254";

    fn certificate(common_name: &str, serial: u64) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "derpkeys and others");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_before = date_time_ymd(1999, 12, 31);
        params.not_after = date_time_ymd(2100, 3, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_meta_certificate_names_the_relay() {
        let key = NodePublic::from_hex(KEY);
        assert!(key.is_some());
        for serial in [1, 2, 127, 128, 255] {
            let certificate = certificate(&format!("derpkey{KEY}"), serial);
            assert_eq!(Fields::read(&certificate).unwrap().relay_key(), key, "serial {serial}");
        }
        let upper = certificate(&format!("derpkey{}", KEY.to_uppercase()), 2);
        let other = certificate("localhost", 2);
        assert_eq!(relay_key(&[other, upper]), key);
    }

    #[test]
    fn a_malformed_meta_certificate_names_no_relay() {
        for (name, serial, is_meta) in [
            (format!("derpkey{KEY}"), 0, true),
            (format!("derpkey{KEY}"), 256, true),
            (format!("derpkey{KEY}0"), 2, true),
            (format!("derpkey{}", &KEY[1..]), 2, true),
            (format!("derp{KEY}"), 2, false),
            (KEY.to_owned(), 2, false),
        ] {
            let certificate = certificate(&name, serial);
            let fields = Fields::read(&certificate).unwrap();
            assert_eq!((fields.relay_key(), fields.is_meta()), (None, is_meta), "{name}, serial {serial}");
        }
    }

    #[test]
    fn dates_are_read_in_both_forms() {
        let certificate = certificate("localhost", 1);
        let fields = Fields::read(&certificate).unwrap();
        // The first is a UTCTime, the second, from 2050 on, a GeneralizedTime.
        assert_eq!((fields.not_before, fields.not_after), (946_598_400, 4_107_542_400));
        for (text, seconds) in [
            (&b"\x17\x0d700101000000Z"[..], Some(0)),
            (b"\x17\x0d491231235959Z", Some(2_524_607_999)),
            (b"\x17\x0d500101000000Z", Some(-631_152_000)),
            (b"\x18\x0f20000229120000Z", Some(951_825_600)),
            (b"\x17\x0d701301000000Z", None),
            (b"\x17\x0d700101000000X", None),
            (b"\x17\x0b7001010000Z", None),
            (b"\x04\x0d700101000000Z", None),
        ] {
            assert_eq!(Der(text).time(), seconds, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn truncated_and_changed_certificates_do_no_harm() {
        let whole = certificate(&format!("derpkey{KEY}"), 2);
        for len in 0..whole.len() {
            assert_eq!(Fields::read(&CertificateDer::from(&whole[..len])), None, "{len} bytes");
        }
        let mut changed = whole.to_vec();
        for index in 0..changed.len() {
            for byte in 0..=255 {
                changed[index] = byte;
                let _ = Fields::read(&CertificateDer::from(&changed[..]));
            }
            changed[index] = whole[index];
        }
    }
}
