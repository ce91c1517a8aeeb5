//! STUN Binding as Tailscale clients speak it: a parser and a writer without allocation.
//!
//! A client asks "which address do you see me at?" with a Binding request (RFC 8489 section 3) of a fixed
//! shape: SOFTWARE `tailnode` and a FINGERPRINT at the end. A server answers that shape and nothing else, so
//! it cannot be mistaken for a general STUN server, and its answer is hardly longer than the question, so it
//! is of no use as an amplifier.
//!
//! The server's half is [`Request::parse`] and [`write_response`], the client's half [`write_request`] and
//! [`Response::parse`]; [`is_stun`] tells STUN from other protocols on a shared socket. Nothing here
//! allocates, and no input panics.

mod attribute;
mod request;
mod response;

use attribute::HEADER_LEN as ATTRIBUTE_HEADER_LEN;
pub use request::{NotStun, REQUEST_LEN, REQUEST_MAX_LEN, Request, write_request};
pub use response::{RESPONSE_MAX_LEN, Response, ResponseError, write_response};

/// UDP port of STUN (RFC 8489 section 18.6).
pub const PORT: u16 = 3478;

/// Length of a message header: type, length, magic cookie, transaction id (RFC 8489 section 5).
const HEADER_LEN: usize = 20;

const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];

/// The 96 bits that tie a response to its request (RFC 8489 section 5).
///
/// The client chooses them at random: they are its only defence against forged responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransactionId(pub [u8; 12]);

/// Whether `datagram` is a STUN message rather than another protocol of the same socket.
///
/// The test is RFC 8489's own (section 6.3): two zero bits in front, and the magic cookie.
pub fn is_stun(datagram: &[u8]) -> bool {
    Header::split(datagram).is_some()
}

/// The parts of a message header that are not constant.
struct Header {
    kind: [u8; 2],
    /// Length in bytes of the attributes, as the sender states it.
    length: usize,
    transaction: TransactionId,
}

impl Header {
    /// Splits a STUN message into header and attributes; `None` for anything that is not STUN.
    fn split(datagram: &[u8]) -> Option<(Self, &[u8])> {
        let (header, attributes) = datagram.split_first_chunk::<HEADER_LEN>()?;
        let [k0, k1, l0, l1, c0, c1, c2, c3, transaction @ ..] = *header;
        if k0 & 0b1100_0000 != 0 || [c0, c1, c2, c3] != MAGIC_COOKIE {
            return None;
        }
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        Some((Self { kind: [k0, k1], length, transaction: TransactionId(transaction) }, attributes))
    }

    fn write(&self, out: &mut [u8; HEADER_LEN]) {
        out[..2].copy_from_slice(&self.kind);
        out[2..4].copy_from_slice(&(self.length as u16).to_be_bytes());
        out[4..8].copy_from_slice(&MAGIC_COOKIE);
        out[8..].copy_from_slice(&self.transaction.0);
    }
}
