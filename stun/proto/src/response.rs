//! The Binding success response: as Tailscale clients expect it, and as clients read it.

use std::net::SocketAddr;

use crate::attribute::{
    Attributes, MAPPED_ADDRESS, MalformedAttribute, OTHER_ADDRESS, XOR_MAPPED_ADDRESS,
    XOR_MAPPED_ADDRESS_DRAFT,
};
use crate::header::{BINDING_SUCCESS, HEADER_LEN, MessageHeader, TransactionId};
use crate::message::{ADDRESS_MAX_LEN, Mask, MessageWriter, read_address};

/// Length in bytes of the longest response that [`write_response`] writes, the one to an IPv6 client.
pub const RESPONSE_MAX_LEN: usize = HEADER_LEN + ADDRESS_MAX_LEN;

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
    let id = transaction.with_cookie();
    let mut message = MessageWriter::begin(out, BINDING_SUCCESS, &id);
    message.address(XOR_MAPPED_ADDRESS, client, Mask::of(id));
    message.finish(false)
}

/// A Binding success response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// Transaction of the request that is answered. The caller checks that it is one of its own.
    pub transaction: TransactionId,
    /// The client's address as the server saw it, never in the IPv4-mapped form.
    pub mapped: SocketAddr,
    /// The address and port of the server that share neither with those that were asked, where the server does NAT behaviour
    /// discovery (OTHER-ADDRESS, RFC 5780 section 7.4).
    pub other: Option<SocketAddr>,
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
        let (header, attributes) = MessageHeader::split(datagram).ok_or(ResponseError::NotStun)?;
        if header.kind != BINDING_SUCCESS {
            return Err(ResponseError::NotSuccess);
        }
        let attributes = attributes.get(..header.length).ok_or(ResponseError::MalformedAttributes)?;

        let mask = Mask::of(header.transaction.with_cookie());
        let mut xor_mapped = None;
        let (mut mapped, mut other) = (None, None);
        for attribute in Attributes(attributes) {
            let attribute = attribute.map_err(|MalformedAttribute| ResponseError::MalformedAttributes)?;
            let (mask, slot) = match attribute.kind {
                XOR_MAPPED_ADDRESS | XOR_MAPPED_ADDRESS_DRAFT => (mask, &mut xor_mapped),
                MAPPED_ADDRESS => (Mask::NONE, &mut mapped),
                OTHER_ADDRESS => (Mask::NONE, &mut other),
                _ => continue,
            };
            let address = read_address(attribute.value, mask).ok_or(ResponseError::MalformedAddress)?;
            slot.get_or_insert(address);
        }
        let mapped = xor_mapped.or(mapped).ok_or(ResponseError::NoAddress)?;
        Ok(Self { transaction: header.transaction, mapped, other })
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
    /// An address is of an unknown family or too short for its family.
    #[error("malformed address")]
    MalformedAddress,
    /// The response carries no mapped address.
    #[error("no mapped address")]
    NoAddress,
}
