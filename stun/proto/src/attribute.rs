//! Attributes: type, length, value, padding to a multiple of four bytes (RFC 8489 section 14).

/// Length of an attribute's type and length fields.
pub(crate) const HEADER_LEN: usize = 4;

pub(crate) const MAPPED_ADDRESS: u16 = 0x0001;
/// RFC 5780 section 7.2.
pub(crate) const CHANGE_REQUEST: u16 = 0x0003;
/// RFC 3489 section 11.2.5.
pub(crate) const SOURCE_ADDRESS: u16 = 0x0004;
/// RFC 3489 section 11.2.3.
pub(crate) const CHANGED_ADDRESS: u16 = 0x0005;
const USERNAME: u16 = 0x0006;
/// RFC 3489 section 11.2.7.
const PASSWORD: u16 = 0x0007;
pub(crate) const MESSAGE_INTEGRITY: u16 = 0x0008;
pub(crate) const ERROR_CODE: u16 = 0x0009;
pub(crate) const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
/// RFC 3489 section 11.2.11.
const REFLECTED_FROM: u16 = 0x000b;
const REALM: u16 = 0x0014;
const NONCE: u16 = 0x0015;
pub(crate) const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
const PASSWORD_ALGORITHM: u16 = 0x001d;
const USERHASH: u16 = 0x001e;
pub(crate) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// RFC 8445 section 16.1.
const PRIORITY: u16 = 0x0024;
/// RFC 8445 section 16.1.
const USE_CANDIDATE: u16 = 0x0025;
/// RFC 5780 section 7.5.
pub(crate) const RESPONSE_PORT: u16 = 0x0027;
/// XOR-MAPPED-ADDRESS under the number that drafts of RFC 5389 gave it; old servers still send it.
pub(crate) const XOR_MAPPED_ADDRESS_DRAFT: u16 = 0x8020;
pub(crate) const SOFTWARE: u16 = 0x8022;
pub(crate) const FINGERPRINT: u16 = 0x8028;
/// RFC 5780 section 7.3.
pub(crate) const RESPONSE_ORIGIN: u16 = 0x802b;
/// RFC 5780 section 7.4.
pub(crate) const OTHER_ADDRESS: u16 = 0x802c;

/// Whether a receiver that does not understand the attribute must say so (RFC 8489 section 14).
pub(crate) const fn is_comprehension_required(kind: u16) -> bool {
    kind < 0x8000
}

/// Whether a comprehension-required attribute is known and asks a Binding server without authentication for nothing, which
/// then ignores it (RFC 8489 section 6.3: "known but unexpected").
pub(crate) const fn asks_for_nothing(kind: u16) -> bool {
    let of_rfc_8489 = matches!(
        kind,
        MAPPED_ADDRESS
            | USERNAME
            | MESSAGE_INTEGRITY
            | ERROR_CODE
            | UNKNOWN_ATTRIBUTES
            | REALM
            | NONCE
            | MESSAGE_INTEGRITY_SHA256
            | PASSWORD_ALGORITHM
            | USERHASH
            | XOR_MAPPED_ADDRESS
    );
    let of_classic_responses = matches!(kind, SOURCE_ADDRESS | CHANGED_ADDRESS | PASSWORD | REFLECTED_FROM);
    // For the peer of a connectivity check. Some ICE agents send them to servers, too.
    let of_ice = matches!(kind, PRIORITY | USE_CANDIDATE);
    of_rfc_8489 || of_classic_responses || of_ice
}

#[derive(Clone, Copy)]
pub(crate) struct Attribute<'a> {
    pub(crate) kind: u16,
    pub(crate) value: &'a [u8],
}

/// The attributes do not fill their space exactly.
#[derive(Debug)]
pub(crate) struct MalformedAttribute;

/// Walks over attributes up to the end of the given bytes. After an error the walk is over.
#[derive(Clone)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    fn split_first(&mut self) -> Option<Attribute<'a>> {
        let ([k0, k1, l0, l1], rest) = self.0.split_first_chunk::<HEADER_LEN>()?;
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let (padded, rest) = rest.split_at_checked(length.next_multiple_of(4))?;
        self.0 = rest;
        Some(Attribute { kind: u16::from_be_bytes([*k0, *k1]), value: padded.get(..length)? })
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, MalformedAttribute>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let attribute = self.split_first();
        if attribute.is_none() {
            self.0 = &[];
        }
        Some(attribute.ok_or(MalformedAttribute))
    }
}
