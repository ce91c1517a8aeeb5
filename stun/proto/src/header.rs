//! The header of a message.

/// Length of a message header: type, length, magic cookie, transaction id (RFC 8489 section 5).
pub(crate) const HEADER_LEN: usize = 20;

pub(crate) const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// Length of cookie and transaction id together.
pub(crate) const ID_LEN: usize = 16;

pub(crate) const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
pub(crate) const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
pub(crate) const BINDING_ERROR: [u8; 2] = [0x01, 0x11];

/// The 96 bits that tie a response to its request (RFC 8489 section 5).
///
/// The client chooses them at random: they are its only defence against forged responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransactionId(pub [u8; 12]);

/// The parts of a message header that are not constant.
pub(crate) struct MessageHeader {
    pub(crate) kind: [u8; 2],
    /// Length in bytes of the attributes, as the sender states it.
    pub(crate) length: usize,
    pub(crate) transaction: TransactionId,
}

impl MessageHeader {
    /// Splits a STUN message into header and attributes; `None` for anything that is not STUN.
    ///
    /// The test is RFC 8489's own (section 6.3): two zero bits in front, and the magic cookie.
    pub(crate) fn split(datagram: &[u8]) -> Option<(Self, &[u8])> {
        let ((kind, length, id), attributes) = split_header(datagram)?;
        let [c0, c1, c2, c3, transaction @ ..] = id;
        if kind[0] & 0b1100_0000 != 0 || [c0, c1, c2, c3] != MAGIC_COOKIE {
            return None;
        }
        Some((Self { kind, length, transaction: TransactionId(transaction) }, attributes))
    }
}

/// Type, length field, and what identifies the transaction: 128 bits for RFC 3489, of which the first 32 are a constant
/// since RFC 5389.
pub(crate) type HeaderFields = ([u8; 2], usize, [u8; ID_LEN]);

/// Cuts a datagram behind the header, whatever is in it; `None` if it is shorter.
pub(crate) fn split_header(datagram: &[u8]) -> Option<(HeaderFields, &[u8])> {
    let (header, attributes) = datagram.split_first_chunk::<HEADER_LEN>()?;
    let [k0, k1, l0, l1, id @ ..] = *header;
    Some((([k0, k1], usize::from(u16::from_be_bytes([l0, l1])), id), attributes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookie_and_two_zero_bits_make_a_stun_message() {
        let is_stun = |datagram: &[u8]| MessageHeader::split(datagram).is_some();
        let message = |first: u8, cookie: [u8; 4]| [&[first, 0, 0, 0][..], &cookie, &[0; 12]].concat();
        let good = message(0, MAGIC_COOKIE);
        assert!(is_stun(&good));
        assert!(!is_stun(&[]));
        assert!(!is_stun(&good[..19]), "19 bytes");
        assert!(is_stun(&[&good[..], b"foo"].concat()), "bytes behind it");
        assert!(!is_stun(&[0; 20]), "no cookie");
        for (first, is) in [(0x20, true), (0x3f, true), (0x40, false), (0x80, false), (0xf0, false)] {
            assert_eq!(is_stun(&message(first, MAGIC_COOKIE)), is, "{first:#04x} in front");
        }
        for cookie in [[0x21, 0x12, 0xa4, 0x43], [0x21, 0x13, 0xa4, 0x42], [0x42, 0xa4, 0x12, 0x21]] {
            assert!(!is_stun(&message(0, cookie)), "{cookie:02x?}");
        }
    }
}
