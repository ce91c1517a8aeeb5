//! A message on its way out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::attribute::{FINGERPRINT, HEADER_LEN as ATTRIBUTE_HEADER_LEN};
use crate::header::{HEADER_LEN, ID_LEN, MAGIC_COOKIE, TransactionId};

const FAMILY_IPV4: u8 = 1;
const FAMILY_IPV6: u8 = 2;

/// Length of the whole FINGERPRINT attribute.
pub(crate) const FINGERPRINT_LEN: usize = ATTRIBUTE_HEADER_LEN + 4;

/// Length of the whole attribute of an IPv6 address, the longer one.
pub(crate) const ADDRESS_MAX_LEN: usize = ATTRIBUTE_HEADER_LEN + 4 + 16;

/// A message that is being written, attribute by attribute. The memory must have room for all of it.
pub(crate) struct MessageWriter<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl<'a> MessageWriter<'a> {
    /// Begins a message with this type and this cookie and transaction id.
    pub(crate) fn begin(out: &'a mut [u8], kind: [u8; 2], id: &[u8; ID_LEN]) -> Self {
        out[..2].copy_from_slice(&kind);
        out[4..HEADER_LEN].copy_from_slice(id);
        Self { out, len: HEADER_LEN }
    }

    /// Appends an attribute and returns its value, which is zero, for the caller to fill.
    pub(crate) fn attribute(&mut self, kind: u16, value_len: usize) -> &mut [u8] {
        let value_at = self.len + ATTRIBUTE_HEADER_LEN;
        self.out[self.len..self.len + 2].copy_from_slice(&kind.to_be_bytes());
        self.out[self.len + 2..value_at].copy_from_slice(&(value_len as u16).to_be_bytes());
        self.len = value_at + value_len.next_multiple_of(4);
        let value = &mut self.out[value_at..self.len];
        value.fill(0);
        &mut value[..value_len]
    }

    /// Appends an address, which is IPv4 also if it is given in the IPv4-mapped form.
    pub(crate) fn address(&mut self, kind: u16, address: SocketAddr, mask: Mask) {
        let port = mask.port(address.port()).to_be_bytes();
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => {
                let value = self.attribute(kind, 8);
                value[1] = FAMILY_IPV4;
                value[2..4].copy_from_slice(&port);
                value[4..].copy_from_slice(&ip.octets());
                mask.apply(&mut value[4..]);
            }
            IpAddr::V6(ip) => {
                let value = self.attribute(kind, 20);
                value[1] = FAMILY_IPV6;
                value[2..4].copy_from_slice(&port);
                value[4..].copy_from_slice(&ip.octets());
                mask.apply(&mut value[4..]);
            }
        }
    }

    /// Ends the message and returns its length. FINGERPRINT covers the length field, which counts it.
    pub(crate) fn finish(mut self, fingerprint: bool) -> usize {
        let covered = self.len;
        let length = self.len - HEADER_LEN + if fingerprint { FINGERPRINT_LEN } else { 0 };
        self.out[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        if fingerprint {
            let value = self::fingerprint(&self.out[..covered]);
            self.attribute(FINGERPRINT, value.len()).copy_from_slice(&value);
        }
        self.len
    }
}

/// Value of FINGERPRINT over all bytes in front of the attribute (RFC 8489 section 14.7).
pub(crate) fn fingerprint(covered: &[u8]) -> [u8; 4] {
    (crc32fast::hash(covered) ^ 0x5354_554e).to_be_bytes()
}

/// Reads the value of an address attribute, never in the IPv4-mapped form.
pub(crate) fn read_address(value: &[u8], mask: Mask) -> Option<SocketAddr> {
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
pub(crate) struct Mask([u8; ID_LEN]);

impl Mask {
    pub(crate) const NONE: Self = Self([0; ID_LEN]);

    pub(crate) const fn of(id: [u8; ID_LEN]) -> Self {
        Self(id)
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

impl TransactionId {
    /// Cookie and transaction id, as they stand in a header.
    pub(crate) fn with_cookie(self) -> [u8; ID_LEN] {
        let mut id = [0; ID_LEN];
        id[..MAGIC_COOKIE.len()].copy_from_slice(&MAGIC_COOKIE);
        id[MAGIC_COOKIE.len()..].copy_from_slice(&self.0);
        id
    }
}
