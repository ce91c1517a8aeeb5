//! Batched UDP sockets that answer from the address that was asked.
//!
//! A host with several addresses has two traps for a UDP server on a wildcard socket. One `recvfrom` and one
//! `sendto` for each datagram spend most of the time entering the kernel; and the kernel chooses the source
//! address of a reply by route, so a client that asked the host's second address is answered from the first,
//! which its NAT or firewall drops. [`BatchSocket`] moves up to [`BATCH_MAX`] datagrams with one system call
//! (`recvmmsg`, `sendmmsg`) and carries the asked address along (`IP_PKTINFO`, `IPV6_PKTINFO`): what arrives
//! in a [`DatagramBatch`] says to which [`LocalAddr`] it was sent, and what leaves in one says from which it
//! comes. A socket that is bound to one address needs none of that.
//!
//! Buffers live in the batches and are reused; no call allocates. This is the only crate of a program that has
//! `unsafe`, all of it in `sys`, around the system calls.

#[cfg(not(target_os = "linux"))]
compile_error!("towpath-udp speaks Linux: recvmmsg, sendmmsg and PKTINFO");

mod batch;
mod cmsg;
mod dying;
mod name;
mod socket;
#[allow(unsafe_code, reason = "std has neither batched system calls nor PKTINFO")]
mod sys;

pub use batch::{BATCH_MAX, DATAGRAM_MAX_LEN, Datagram, DatagramBatch, PushError};
pub use cmsg::LocalAddr;
pub use dying::send_dying;
pub use socket::{BatchSocket, SendOutcome, bind};
