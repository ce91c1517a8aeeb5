//! The Binding request.

use crate::attribute::{Attribute, Attributes, FINGERPRINT, Malformed, SOFTWARE};
use crate::{ATTRIBUTE_HEADER_LEN, BINDING_REQUEST, HEADER_LEN, Header, TransactionId};

/// Length in bytes of the request that [`write_request`] writes and every stock client sends.
pub const REQUEST_LEN: usize = FINGERPRINT_AT + FINGERPRINT_LEN;

/// Length in bytes of the longest datagram that [`Request::parse`] looks into.
///
/// It bounds the work that a stranger's datagram can cause. The value is the smallest MTU of an IPv6 link:
/// nothing longer can be a request that took every path (RFC 8489 section 6.1).
pub const REQUEST_MAX_LEN: usize = 1280;

/// What marks a request as one of this dialect.
const SOFTWARE_VALUE: &[u8; 8] = b"tailnode";

/// Length of the whole FINGERPRINT attribute.
const FINGERPRINT_LEN: usize = ATTRIBUTE_HEADER_LEN + 4;

/// Where FINGERPRINT starts in the request that we write: behind the header and SOFTWARE.
const FINGERPRINT_AT: usize = HEADER_LEN + ATTRIBUTE_HEADER_LEN + SOFTWARE_VALUE.len();

/// A Binding request that deserves an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// To be repeated in the response.
    pub transaction: TransactionId,
}

impl Request {
    /// Parses a datagram under the rules that Tailscale's server applies.
    ///
    /// The datagram must be a Binding request whose attributes end exactly where the datagram ends, with a
    /// SOFTWARE of `tailnode` among them and a correct FINGERPRINT last. The header's length field is not
    /// consulted, except that FINGERPRINT covers it.
    ///
    /// # Errors
    /// The first rule that the datagram breaks. The right answer to any of them is silence.
    pub fn parse(datagram: &[u8]) -> Result<Self, NotStun> {
        if datagram.len() < HEADER_LEN {
            return Err(NotStun::TooShort);
        }
        if datagram.len() > REQUEST_MAX_LEN {
            return Err(NotStun::TooLong);
        }
        let (header, attributes) = Header::split(datagram).ok_or(NotStun::BadHeader)?;
        if header.kind != BINDING_REQUEST {
            return Err(NotStun::NotBindingRequest);
        }

        let mut tailnode = false;
        let mut last = None;
        for attribute in Attributes(attributes) {
            let attribute = attribute.map_err(|Malformed| NotStun::MalformedAttributes)?;
            tailnode |= attribute.kind == SOFTWARE && attribute.value == SOFTWARE_VALUE;
            last = Some(attribute);
        }
        if !tailnode {
            return Err(NotStun::ForeignSoftware);
        }
        let Some(Attribute { kind: FINGERPRINT, value }) = last else {
            return Err(NotStun::NoFingerprint);
        };
        let covered = datagram.len().saturating_sub(FINGERPRINT_LEN);
        if *value != fingerprint(&datagram[..covered]) {
            return Err(NotStun::WrongFingerprint);
        }
        Ok(Self { transaction: header.transaction })
    }
}

/// Writes the Binding request that stock clients send: SOFTWARE first, FINGERPRINT last.
///
/// Servers that answer in the network driver look at the first attribute only, so the order matters.
pub fn write_request(out: &mut [u8; REQUEST_LEN], transaction: TransactionId) {
    let (header, attributes) = out.split_first_chunk_mut().expect("a request is longer than its header");
    Header { kind: BINDING_REQUEST, length: attributes.len(), transaction }.write(header);
    attributes[..2].copy_from_slice(&SOFTWARE.to_be_bytes());
    attributes[2..4].copy_from_slice(&(SOFTWARE_VALUE.len() as u16).to_be_bytes());
    attributes[4..12].copy_from_slice(SOFTWARE_VALUE);
    attributes[12..14].copy_from_slice(&FINGERPRINT.to_be_bytes());
    attributes[14..16].copy_from_slice(&4_u16.to_be_bytes());
    let value = fingerprint(&out[..FINGERPRINT_AT]);
    out[FINGERPRINT_AT + ATTRIBUTE_HEADER_LEN..].copy_from_slice(&value);
}

/// Value of FINGERPRINT over all bytes in front of the attribute (RFC 8489 section 14.7).
fn fingerprint(covered: &[u8]) -> [u8; 4] {
    (crc32fast::hash(covered) ^ 0x5354_554e).to_be_bytes()
}

/// Why a datagram is not a request of this dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotStun {
    /// Shorter than a STUN header.
    #[error("shorter than a STUN header")]
    TooShort,
    /// Longer than [`REQUEST_MAX_LEN`].
    #[error("longer than any Binding request")]
    TooLong,
    /// The two leading zero bits or the magic cookie are missing.
    #[error("no STUN header")]
    BadHeader,
    /// STUN, but of another method or class.
    #[error("not a Binding request")]
    NotBindingRequest,
    /// The attributes do not end where the datagram ends.
    #[error("malformed attributes")]
    MalformedAttributes,
    /// No SOFTWARE attribute says `tailnode`: a STUN client, but not one of this dialect.
    #[error("SOFTWARE is not `tailnode`")]
    ForeignSoftware,
    /// The last attribute is not FINGERPRINT.
    #[error("FINGERPRINT is not the last attribute")]
    NoFingerprint,
    /// FINGERPRINT does not match the bytes in front of it.
    #[error("wrong FINGERPRINT")]
    WrongFingerprint,
}

impl NotStun {
    /// Every reason, in the order of the checks; `ALL[reason as usize] == reason`.
    pub const ALL: [Self; 8] = [
        Self::TooShort,
        Self::TooLong,
        Self::BadHeader,
        Self::NotBindingRequest,
        Self::MalformedAttributes,
        Self::ForeignSoftware,
        Self::NoFingerprint,
        Self::WrongFingerprint,
    ];

    /// The reason as the value of a metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::TooLong => "too_long",
            Self::BadHeader => "bad_header",
            Self::NotBindingRequest => "not_binding_request",
            Self::MalformedAttributes => "malformed_attributes",
            Self::ForeignSoftware => "foreign_software",
            Self::NoFingerprint => "no_fingerprint",
            Self::WrongFingerprint => "wrong_fingerprint",
        }
    }
}
