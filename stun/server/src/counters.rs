//! What became of the datagrams.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stun_proto::NotStun;

/// Counters of a server, all of them since its start.
///
/// The server's thread is the only writer. Each number is exact, but they are read one after the other: a
/// reader may see a request before its address family.
#[derive(Debug, Default)]
pub struct Counters {
    success: AtomicU64,
    not_stun: [AtomicU64; NotStun::ALL.len()],
    read_error: AtomicU64,
    write_error: AtomicU64,
    ipv4: AtomicU64,
    ipv6: AtomicU64,
}

impl Counters {
    /// Reads all counters.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            success: self.success.load(Relaxed),
            not_stun: array::from_fn(|reason| self.not_stun[reason].load(Relaxed)),
            read_error: self.read_error.load(Relaxed),
            write_error: self.write_error.load(Relaxed),
            ipv4: self.ipv4.load(Relaxed),
            ipv6: self.ipv6.load(Relaxed),
        }
    }

    pub(crate) fn count_request(&self, ipv4: bool) {
        let family = if ipv4 { &self.ipv4 } else { &self.ipv6 };
        family.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_not_stun(&self, reason: NotStun) {
        self.not_stun[reason as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn count_read_error(&self) {
        self.read_error.fetch_add(1, Relaxed);
    }

    /// Counts what became of a batch of responses.
    pub(crate) fn count_responses(&self, sent: usize, lost: usize) {
        self.success.fetch_add(sent as u64, Relaxed);
        self.write_error.fetch_add(lost as u64, Relaxed);
    }
}

/// The values of [`Counters`] at one moment.
///
/// The first four are the dispositions of derper's `stun_requests`, the last two the families of its
/// `stun_addrfamily`, which counts only requests that deserve an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Requests whose response the kernel took.
    pub success: u64,
    /// Datagrams that deserve no answer, by reason, in the order of [`NotStun::ALL`].
    pub not_stun: [u64; NotStun::ALL.len()],
    /// Failed reads of a socket.
    pub read_error: u64,
    /// Requests whose response the kernel refused or had no room for.
    pub write_error: u64,
    /// Requests from IPv4 clients.
    pub ipv4: u64,
    /// Requests from IPv6 clients.
    pub ipv6: u64,
}

impl Snapshot {
    /// Datagrams that deserve no answer, for whatever reason.
    pub fn not_stun_total(&self) -> u64 {
        self.not_stun.iter().sum()
    }
}
