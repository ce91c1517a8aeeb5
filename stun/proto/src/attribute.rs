//! Attributes: type, length, value, padding to a multiple of four bytes (RFC 8489 section 14).

/// Length of an attribute's type and length fields.
pub(crate) const HEADER_LEN: usize = 4;

pub(crate) const MAPPED_ADDRESS: u16 = 0x0001;
pub(crate) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// XOR-MAPPED-ADDRESS under the number that drafts of RFC 5389 gave it; old servers still send it.
pub(crate) const XOR_MAPPED_ADDRESS_DRAFT: u16 = 0x8020;
pub(crate) const SOFTWARE: u16 = 0x8022;
pub(crate) const FINGERPRINT: u16 = 0x8028;

pub(crate) struct Attribute<'a> {
    pub(crate) kind: u16,
    pub(crate) value: &'a [u8],
}

/// The attributes do not fill their space exactly.
#[derive(Debug)]
pub(crate) struct Malformed;

/// Walks over attributes up to the end of the given bytes. After an error the walk is over.
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
    type Item = Result<Attribute<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let attribute = self.split_first();
        if attribute.is_none() {
            self.0 = &[];
        }
        Some(attribute.ok_or(Malformed))
    }
}
