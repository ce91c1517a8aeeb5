//! What became of the datagrams.

use std::array;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use towpath_stun_proto::{AnswerKind, NotStun};
use towpath_wire::labels;

labels! {
    /// Why a request has no answer although it is one.
    pub enum Withheld {
        /// The client is not Tailscale's, with `stun.clients = "tailscale"`.
        ForeignClient = "foreign_client",
        /// The source has had `stun.rate` answers in the last second.
        RateLimit = "rate_limit",
        /// The source has had `stun.discovery_rate` answers of discovery in the last second.
        DiscoveryRateLimit = "discovery_rate_limit",
        /// The answer would have been too much longer than the request. No known request makes it so.
        Amplification = "amplification",
    }
}

/// Why a datagram has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    NotStun(NotStun),
    Withheld(Withheld),
}

/// Counters of a server, all of them since its start.
///
/// The server's thread is the only writer. Each number is exact, but they are read one after the other: a
/// reader may see a request before its address family.
#[derive(Debug, Default)]
pub struct StunCounters {
    success: AtomicU64,
    not_stun: [AtomicU64; NotStun::ALL.len()],
    withheld: [AtomicU64; Withheld::ALL.len()],
    answers: [AtomicU64; AnswerKind::ALL.len()],
    read_error: AtomicU64,
    write_error: AtomicU64,
    ipv4: AtomicU64,
    ipv6: AtomicU64,
}

impl StunCounters {
    /// Reads all counters.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            success: self.success.load(Relaxed),
            not_stun: read_all(&self.not_stun),
            withheld: read_all(&self.withheld),
            answers: read_all(&self.answers),
            read_error: self.read_error.load(Relaxed),
            write_error: self.write_error.load(Relaxed),
            ipv4: self.ipv4.load(Relaxed),
            ipv6: self.ipv6.load(Relaxed),
        }
    }

    pub(crate) fn count_answer(&self, kind: AnswerKind, ipv4: bool) {
        let family = if ipv4 { &self.ipv4 } else { &self.ipv6 };
        add(family, 1);
        add(&self.answers[kind.index()], 1);
    }

    pub(crate) fn count_unanswered(&self, unanswered: Unanswered) {
        let counter = match unanswered {
            Unanswered::NotStun(reason) => &self.not_stun[reason.index()],
            Unanswered::Withheld(reason) => &self.withheld[reason.index()],
        };
        add(counter, 1);
    }

    pub(crate) fn count_read_error(&self) {
        add(&self.read_error, 1);
    }

    /// Counts what became of a batch of responses.
    pub(crate) fn count_responses(&self, sent: usize, lost: usize) {
        add(&self.success, sent as u64);
        add(&self.write_error, lost as u64);
    }
}

/// Adds without a locked instruction: there is one writer.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Relaxed) + count, Relaxed);
}

fn read_all<const N: usize>(counters: &[AtomicU64; N]) -> [u64; N] {
    array::from_fn(|index| counters[index].load(Relaxed))
}

/// The values of [`StunCounters`] at one moment.
///
/// `success`, the sum of `not_stun`, `read_error` and `write_error` are the dispositions of derper's `stun_requests`; the
/// last two are the families of its `stun_addrfamily`, which counts only requests that deserve an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Requests whose answer the kernel took.
    pub success: u64,
    /// Datagrams that are no requests, by reason, in the order of [`NotStun::ALL`].
    pub not_stun: [u64; NotStun::ALL.len()],
    /// Requests whose answer was withheld, by reason, in the order of [`Withheld::ALL`].
    pub withheld: [u64; Withheld::ALL.len()],
    /// Requests with one, by what it says, in the order of [`AnswerKind::ALL`].
    pub answers: [u64; AnswerKind::ALL.len()],
    /// Failed reads of a socket.
    pub read_error: u64,
    /// Requests whose answer the kernel refused or had no room for.
    pub write_error: u64,
    /// Answered requests from IPv4 clients.
    pub ipv4: u64,
    /// Answered requests from IPv6 clients.
    pub ipv6: u64,
}

impl Snapshot {
    /// Datagrams that are no requests, for whatever reason.
    pub fn not_stun_total(&self) -> u64 {
        self.not_stun.iter().sum()
    }
}
