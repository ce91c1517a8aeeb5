//! Socket addresses as the kernel writes them, `sockaddr_in` and `sockaddr_in6`.
//!
//! They are read and written as bytes, at the offsets that Linux promises, so that only the system calls
//! themselves need `unsafe`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Length of `sockaddr_in`: family, port, address, eight bytes of padding.
const IPV4_LEN: usize = size_of::<libc::sockaddr_in>();
/// Length of `sockaddr_in6`: family, port, flow label, address, scope.
const IPV6_LEN: usize = size_of::<libc::sockaddr_in6>();

/// Memory for a socket address of either family.
#[derive(Clone, Debug, Default)]
#[repr(C, align(8))]
pub(crate) struct Name(pub(crate) [u8; IPV6_LEN]);

impl Name {
    /// Writes `address` and returns the length of what was written.
    pub(crate) fn write(&mut self, address: SocketAddr) -> usize {
        let out = &mut self.0;
        out[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(address) => {
                out[..2].copy_from_slice(&(libc::AF_INET as libc::sa_family_t).to_ne_bytes());
                out[4..8].copy_from_slice(&address.ip().octets());
                out[8..IPV4_LEN].fill(0);
                IPV4_LEN
            }
            SocketAddr::V6(address) => {
                out[..2].copy_from_slice(&(libc::AF_INET6 as libc::sa_family_t).to_ne_bytes());
                out[4..8].copy_from_slice(&address.flowinfo().to_ne_bytes());
                out[8..24].copy_from_slice(&address.ip().octets());
                out[24..28].copy_from_slice(&address.scope_id().to_ne_bytes());
                IPV6_LEN
            }
        }
    }

    /// Reads an address of which the kernel wrote `len` bytes. A flow label is not kept: a reply has its own.
    pub(crate) fn read(&self, len: usize) -> Option<SocketAddr> {
        let [f0, f1, p0, p1, rest @ ..] = &self.0;
        let port = u16::from_be_bytes([*p0, *p1]);
        match libc::c_int::from(libc::sa_family_t::from_ne_bytes([*f0, *f1])) {
            libc::AF_INET if len >= IPV4_LEN => {
                let ip: [u8; 4] = *rest.first_chunk()?;
                Some(SocketAddrV4::new(Ipv4Addr::from(ip), port).into())
            }
            libc::AF_INET6 if len >= IPV6_LEN => {
                let ip: [u8; 16] = *rest.get(4..)?.first_chunk()?;
                let scope = u32::from_ne_bytes(*rest.last_chunk()?);
                Some(SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope).into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn addresses_survive() {
        for address in ["192.0.2.1:3478", "[2001:db8::1]:3478", "[fe80::1%7]:65535"] {
            let address: SocketAddr = address.parse().unwrap();
            let mut name = Name::default();
            let len = name.write(address);
            assert_eq!(name.read(len), Some(address));
            assert_eq!(name.read(len - 1), None);
        }
        assert_eq!(Name::default().read(IPV6_LEN), None);
    }

    #[test]
    fn offsets_are_those_of_the_c_library() {
        assert_eq!(offset_of!(libc::sockaddr_in, sin_port), 2);
        assert_eq!(offset_of!(libc::sockaddr_in, sin_addr), 4);
        assert_eq!(offset_of!(libc::sockaddr_in6, sin6_port), 2);
        assert_eq!(offset_of!(libc::sockaddr_in6, sin6_flowinfo), 4);
        assert_eq!(offset_of!(libc::sockaddr_in6, sin6_addr), 8);
        assert_eq!(offset_of!(libc::sockaddr_in6, sin6_scope_id), 24);
    }
}
