//! The two system calls that have no safe form in rustix.

use std::ffi::c_int;
use std::io;
use std::os::fd::AsFd;

use rustix::ioctl::{self, Updater, opcode};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// The longest name of a network interface, with the byte that ends it (`IFNAMSIZ`).
const NAME_LEN: usize = 16;
/// `TUNSETIFF` of `linux/if_tun.h`. The kernel numbers it by an `int`, and takes an `ifreq`.
const TUNSETIFF: ioctl::Opcode = opcode::write::<c_int>(b'T', 202);
/// `IFF_TUN | IFF_NO_PI`: IP packets as they are, without a header in front.
const IP_PACKETS: u16 = 0x0001 | 0x1000;

/// `struct ifreq` of `linux/if.h`, which is 40 bytes long, with flags in its union.
#[repr(C, align(8))]
struct InterfaceRequest {
    name: [u8; NAME_LEN],
    flags: u16,
    rest: [u8; 22],
}

/// Moves the calling thread into a new network namespace.
pub(crate) fn unshare_network() -> io::Result<()> {
    // SAFETY: the flag is only about networks. Memory and descriptors stay shared with the other threads.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}

/// Makes a TUN interface in the namespace in which `file`, of `/dev/net/tun`, was opened.
pub(crate) fn make_tun(file: impl AsFd, name: &str) -> io::Result<()> {
    let mut request = InterfaceRequest { name: [0; NAME_LEN], flags: IP_PACKETS, rest: [0; 22] };
    if name.len() >= NAME_LEN {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name of the interface is too long"));
    }
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the kernel reads and writes an `ifreq` for this number, which `InterfaceRequest` is laid out as.
    let updater = unsafe { Updater::<TUNSETIFF, _>::new(&mut request) };
    // SAFETY: `updater` borrows the request exclusively for the call.
    unsafe { ioctl::ioctl(file, updater) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_as_long_as_the_kernel_reads() {
        assert_eq!(size_of::<InterfaceRequest>(), 40);
        assert_eq!(TUNSETIFF, 0x4004_54ca);
    }
}
