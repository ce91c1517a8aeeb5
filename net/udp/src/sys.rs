//! The system calls that std and socket2 lack.
//!
//! Each call points the kernel at memory of the slots, which are borrowed exclusively until it returns;
//! the headers that hold the pointers are locals and die with the call.

use std::io;
use std::mem::zeroed;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::batch::{BATCH_MAX, Slot};

/// Receives into the slots, as many datagrams as there are and fit, and returns their number.
pub(crate) fn recvmmsg(fd: BorrowedFd<'_>, slots: &mut [Slot]) -> io::Result<usize> {
    let mut headers = Headers::new();
    for (slot, (header, iovec)) in slots.iter_mut().zip(headers.iter_mut()) {
        iovec.iov_base = slot.payload.as_mut_ptr().cast();
        iovec.iov_len = slot.payload.len();
        let header = &mut header.msg_hdr;
        header.msg_iov = iovec;
        header.msg_iovlen = 1;
        header.msg_name = slot.name.0.as_mut_ptr().cast();
        header.msg_namelen = slot.name.0.len() as _;
        header.msg_control = slot.control.0.as_mut_ptr().cast();
        header.msg_controllen = slot.control.0.len() as _;
    }
    let count = slots.len().min(BATCH_MAX);
    // SAFETY: the first `count` headers point to live memory of `slots` with the lengths that they state, and
    // nothing else touches that memory during the call. A null timeout is allowed.
    let received = unsafe {
        libc::recvmmsg(
            fd.as_raw_fd(),
            headers.messages.as_mut_ptr(),
            count as libc::c_uint,
            0,
            std::ptr::null_mut(),
        )
    };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    for (slot, message) in slots.iter_mut().zip(&headers.messages[..received]) {
        let header = &message.msg_hdr;
        slot.len = (message.msg_len as usize).min(slot.payload.len());
        slot.truncated = header.msg_flags & libc::MSG_TRUNC != 0;
        slot.local = slot.control.read(header.msg_controllen as _);
        slot.peer = slot.name.read(header.msg_namelen as _).unwrap_or(UNKNOWN_PEER);
    }
    Ok(received)
}

/// Sends the slots' datagrams in order and returns how many the kernel took; the next one, if any, failed.
pub(crate) fn sendmmsg(fd: BorrowedFd<'_>, slots: &mut [Slot]) -> io::Result<usize> {
    let mut headers = Headers::new();
    for (slot, (header, iovec)) in slots.iter_mut().zip(headers.iter_mut()) {
        iovec.iov_base = slot.payload.as_mut_ptr().cast();
        iovec.iov_len = slot.len;
        let header = &mut header.msg_hdr;
        header.msg_iov = iovec;
        header.msg_iovlen = 1;
        header.msg_namelen = slot.name.write(slot.peer) as _;
        header.msg_name = slot.name.0.as_mut_ptr().cast();
        header.msg_controllen = slot.control.write(slot.local) as _;
        if header.msg_controllen != 0 {
            header.msg_control = slot.control.0.as_mut_ptr().cast();
        }
    }
    let count = slots.len().min(BATCH_MAX);
    // SAFETY: the first `count` headers point to live, initialised memory of `slots` with the lengths that
    // they state.
    let sent =
        unsafe { libc::sendmmsg(fd.as_raw_fd(), headers.messages.as_mut_ptr(), count as libc::c_uint, 0) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Sets an option of the IP layer.
pub(crate) fn set_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the value is a live `c_int` and the length is that of a `c_int`.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A UDP socket always names the sender. Nothing can be sent to this address.
const UNKNOWN_PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// What one system call reads: a header for each datagram, and the one piece of memory that each consists of.
struct Headers {
    messages: [libc::mmsghdr; BATCH_MAX],
    iovecs: [libc::iovec; BATCH_MAX],
}

impl Headers {
    fn new() -> Self {
        // SAFETY: both are arrays of C structs of integers and pointers, for which all zeros are valid.
        unsafe { zeroed() }
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = (&mut libc::mmsghdr, &mut libc::iovec)> {
        self.messages.iter_mut().zip(&mut self.iovecs)
    }
}

#[cfg(test)]
mod tests {
    use crate::cmsg::{Control, LocalAddr};

    #[test]
    fn control_messages_are_laid_out_as_in_the_c_library() {
        let ipv4 = LocalAddr { ip: [192, 0, 2, 1].into(), interface: 0 };
        let ipv6 = LocalAddr { ip: [0x20; 16].into(), interface: 0 };
        let mut control = Control::default();
        // SAFETY: plain arithmetic on a length.
        let space = |len: usize| unsafe { libc::CMSG_SPACE(len as libc::c_uint) } as usize;
        assert_eq!(control.write(ipv4), space(size_of::<libc::in_pktinfo>()));
        assert_eq!(control.write(ipv6), space(size_of::<libc::in6_pktinfo>()));
    }
}
