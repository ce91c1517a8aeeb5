//! The addresses that a server listens on, and the clients that it answers.

use std::net::SocketAddr;
use std::num::NonZeroU32;

/// Everything that can be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StunSettings {
    /// The addresses that are listened on. `[::]` takes both families, unless `0.0.0.0` with its port is in the list.
    pub listen: Vec<SocketAddr>,
    /// Second addresses, for NAT behaviour discovery (RFC 5780): none, or one for a family or for each. It must differ
    /// in both address and port from the family's only one in `listen`, and neither may be a wildcard.
    pub alternates: Vec<SocketAddr>,
    /// The clients to answer.
    pub policy: Policy,
}

/// The clients that a server answers, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which clients.
    pub clients: ClientFilter,
    /// Answers a second for each source, an IPv4 address or an IPv6 /64; as many may come at once. `None`: no limit.
    pub rate: Option<NonZeroU32>,
    /// Answers by RFC 5780 a second, which may be longer than others. They count as answers, too.
    pub discovery_rate: NonZeroU32,
}

impl Policy {
    /// The rate of answers for each source unless it is set.
    ///
    /// A stock client asks a few times each 20 s, so this serves some ten thousand of them behind one address of a
    /// carrier's NAT. Aimed at a forged source it makes half a megabit a second.
    pub const DEFAULT_RATE: NonZeroU32 = NonZeroU32::new(1000).expect("1000 is not 0");

    /// The rate of discovery answers for each source unless it is set. Discovering all about a NAT takes some ten, one
    /// after the other.
    pub const DEFAULT_DISCOVERY_RATE: NonZeroU32 = NonZeroU32::new(20).expect("20 is not 0");
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            clients: ClientFilter::All,
            rate: Some(Self::DEFAULT_RATE),
            discovery_rate: Self::DEFAULT_DISCOVERY_RATE,
        }
    }
}

/// Which clients a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientFilter {
    /// Every client that speaks STUN.
    All,
    /// Tailscale's clients only, like Tailscale's server.
    Tailscale,
}
