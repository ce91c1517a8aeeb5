//! The Binding success response.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::attribute::{Attributes, MAPPED_ADDRESS, Malformed, XOR_MAPPED_ADDRESS, XOR_MAPPED_ADDRESS_DRAFT};
use crate::{ATTRIBUTE_HEADER_LEN, BINDING_SUCCESS, HEADER_LEN, Header, MAGIC_COOKIE, TransactionId};

/// Length in bytes of the longest response that [`write_response`] writes, the one to an IPv6 client.
pub const RESPONSE_MAX_LEN: usize = ADDRESS_AT + 16;

/// Where the address starts: behind the header, the attribute's header, a zero byte, family and port.
const ADDRESS_AT: usize = HEADER_LEN + ATTRIBUTE_HEADER_LEN + 4;

const FAMILY_IPV4: u8 = 1;
const FAMILY_IPV6: u8 = 2;

/// Writes the response that tells a client its address, and returns its length: 32 bytes for an IPv4 client,
/// 44 for an IPv6 client.
///
/// XOR-MAPPED-ADDRESS is the only attribute. An IPv4 client seen through a dual-stack socket
/// (`::ffff:192.0.2.1`) is told its IPv4 address.
pub fn write_response(
    out: &mut [u8; RESPONSE_MAX_LEN],
    transaction: TransactionId,
    client: SocketAddr,
) -> usize {
    let (family, address_len) = match client.ip().to_canonical() {
        IpAddr::V4(ip) => {
            out[ADDRESS_AT..ADDRESS_AT + 4].copy_from_slice(&ip.octets());
            (FAMILY_IPV4, 4)
        }
        IpAddr::V6(ip) => {
            out[ADDRESS_AT..].copy_from_slice(&ip.octets());
            (FAMILY_IPV6, 16)
        }
    };
    let mask = Mask::of(transaction);
    mask.apply(&mut out[ADDRESS_AT..ADDRESS_AT + address_len]);

    let (header, attribute) = out.split_first_chunk_mut().expect("a response is longer than its header");
    let value_len = 4 + address_len;
    Header { kind: BINDING_SUCCESS, length: ATTRIBUTE_HEADER_LEN + value_len, transaction }.write(header);
    attribute[..2].copy_from_slice(&XOR_MAPPED_ADDRESS.to_be_bytes());
    attribute[2..4].copy_from_slice(&(value_len as u16).to_be_bytes());
    attribute[4..6].copy_from_slice(&[0, family]);
    attribute[6..8].copy_from_slice(&mask.port(client.port()).to_be_bytes());
    ADDRESS_AT + address_len
}

/// A Binding success response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// Transaction of the request that is answered. The caller checks that it is one of its own.
    pub transaction: TransactionId,
    /// The client's address as the server saw it, never in the IPv4-mapped form.
    pub mapped: SocketAddr,
}

impl Response {
    /// Parses a response, also one of a server that is laxer than ours.
    ///
    /// Bytes behind the stated length are ignored. The address is taken from the first XOR-MAPPED-ADDRESS,
    /// under its own number or that of the drafts; MAPPED-ADDRESS (RFC 3489) is the fallback, since
    /// gateways that rewrite addresses in payloads make it the less trustworthy one.
    ///
    /// # Errors
    /// See [`ResponseError`].
    pub fn parse(datagram: &[u8]) -> Result<Self, ResponseError> {
        let (header, attributes) = Header::split(datagram).ok_or(ResponseError::NotStun)?;
        if header.kind != BINDING_SUCCESS {
            return Err(ResponseError::NotSuccess);
        }
        let attributes = attributes.get(..header.length).ok_or(ResponseError::MalformedAttributes)?;

        let mask = Mask::of(header.transaction);
        let mut xor_mapped = None;
        let mut mapped = None;
        for attribute in Attributes(attributes) {
            let attribute = attribute.map_err(|Malformed| ResponseError::MalformedAttributes)?;
            let (mask, slot) = match attribute.kind {
                XOR_MAPPED_ADDRESS | XOR_MAPPED_ADDRESS_DRAFT => (mask, &mut xor_mapped),
                MAPPED_ADDRESS => (Mask::NONE, &mut mapped),
                _ => continue,
            };
            let address = read_address(attribute.value, mask).ok_or(ResponseError::MalformedAddress)?;
            slot.get_or_insert(address);
        }
        let mapped = xor_mapped.or(mapped).ok_or(ResponseError::NoAddress)?;
        Ok(Self { transaction: header.transaction, mapped })
    }
}

/// Why a datagram is not a usable Binding response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// No STUN header.
    #[error("not a STUN message")]
    NotStun,
    /// STUN, but not the success response of the Binding method.
    #[error("not a Binding success response")]
    NotSuccess,
    /// The attributes do not fill the stated length, or the datagram ends before it.
    #[error("malformed attributes")]
    MalformedAttributes,
    /// A mapped address is of an unknown family or too short for its family.
    #[error("malformed mapped address")]
    MalformedAddress,
    /// The response carries no mapped address.
    #[error("no mapped address")]
    NoAddress,
}

fn read_address(value: &[u8], mask: Mask) -> Option<SocketAddr> {
    let ([_, family, p0, p1], address) = value.split_first_chunk()?;
    let ip = match *family {
        FAMILY_IPV4 => {
            let mut octets = *address.first_chunk::<4>()?;
            mask.apply(&mut octets);
            IpAddr::V4(Ipv4Addr::from(octets))
        }
        FAMILY_IPV6 => {
            let mut octets = *address.first_chunk::<16>()?;
            mask.apply(&mut octets);
            IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, mask.port(u16::from_be_bytes([*p0, *p1]))))
}

/// What XOR-MAPPED-ADDRESS is XORed with: cookie and transaction id (RFC 8489 section 14.2).
#[derive(Clone, Copy)]
struct Mask([u8; 16]);

impl Mask {
    const NONE: Self = Self([0; 16]);

    fn of(transaction: TransactionId) -> Self {
        let mut mask = [0; 16];
        mask[..4].copy_from_slice(&MAGIC_COOKIE);
        mask[4..].copy_from_slice(&transaction.0);
        Self(mask)
    }

    fn port(self, port: u16) -> u16 {
        port ^ u16::from_be_bytes([self.0[0], self.0[1]])
    }

    fn apply(self, address: &mut [u8]) {
        for (byte, mask) in address.iter_mut().zip(self.0) {
            *byte ^= mask;
        }
    }
}
