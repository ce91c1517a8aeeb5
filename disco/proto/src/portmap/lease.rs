//! A port that a gateway forwards for a time: when that is renewed, and how it is known that the gateway has forgotten it.

use std::net::SocketAddrV4;
use std::time::Duration;

use towpath_wire::time::Instant;

use super::state::PortProtocol;

/// Bounds of what is believed of a lifetime. RFC 6887 section 15 has gateways grant two minutes to a day.
const LEAST: Duration = Duration::from_secs(60);
const MOST: Duration = Duration::from_secs(24 * 3600);
/// The least time between two requests to renew (RFC 6887 section 11.2.1).
const RENEW_LEAST: Duration = Duration::from_secs(4);
/// How long an answer is waited for, and the least time between two questions whether the gateway has started anew.
const ANSWERED: Duration = Duration::from_secs(10);
/// The least time between two such questions by UPnP-IGD, each of which asks for the port anew, by two connections of TCP.
const UPNP_ANSWERED: Duration = Duration::from_secs(600);

/// A port that a gateway forwards.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) protocol: PortProtocol,
    pub(super) external: SocketAddrV4,
    /// When the gateway forwards the port no longer.
    pub(super) ends: Instant,
    pub(super) renew_at: Instant,
    /// When the gateway was asked last, and whether that was for this lease.
    asked: Instant,
    is_asked: bool,
    /// The seconds since the start of the gateway that its last answer named, and when that came.
    epoch: (u32, Instant),
}

impl Lease {
    /// A lease of `lifetime` seconds, and what the gateway says of its start.
    pub(super) fn new(
        protocol: PortProtocol,
        external: SocketAddrV4,
        lifetime: u32,
        epoch: u32,
        now: Instant,
    ) -> Self {
        let lifetime = Duration::from_secs(lifetime.into()).clamp(LEAST, MOST);
        let renew_at = now + lifetime / 2;
        let ends = now + lifetime;
        Self { protocol, external, ends, renew_at, asked: now, is_asked: false, epoch: (epoch, now) }
    }

    /// Notes that the gateway has been asked to renew. Where it does not answer, it is asked again after half of the time that is
    /// left.
    pub(super) fn renew(&mut self, now: Instant) {
        (self.asked, self.is_asked) = (now, true);
        self.renew_at = now + (self.ends.since(now) / 2).max(RENEW_LEAST);
    }

    /// Notes a question whether the gateway has started anew. Returns whether it is time for one.
    pub(super) fn question(&mut self, now: Instant) -> bool {
        let least = if self.protocol == PortProtocol::Upnp { UPNP_ANSWERED } else { ANSWERED };
        let is_time = now.since(self.asked) >= least;
        if is_time {
            (self.asked, self.is_asked) = (now, true);
        }
        is_time
    }

    /// Whether an answer of the gateway is waited for. What it grants is another lease, so that it can change what is offered to
    /// peers once for each request.
    pub(super) fn is_awaited(&self, now: Instant) -> bool {
        self.is_asked && now.since(self.asked) < ANSWERED
    }

    /// Takes the seconds since the start of the gateway. Returns whether it has started anew, so that it has forgotten the lease.
    pub(super) fn has_restarted(&mut self, epoch: u32, now: Instant) -> bool {
        let (before, at) = std::mem::replace(&mut self.epoch, (epoch, now));
        let (before, epoch, passed) = (u64::from(before), u64::from(epoch), now.since(at).as_secs());
        match self.protocol {
            // Its answers name no such time.
            PortProtocol::Upnp => false,
            // Section 3.6 of RFC 6886: its clock may be slow by an eighth, and 2 s.
            PortProtocol::NatPmp => epoch + 2 < before + passed * 7 / 8,
            // Section 8.5 of RFC 6887: either clock may be slow by a sixteenth, and 2 s.
            PortProtocol::Pcp => {
                let theirs = epoch.saturating_sub(before);
                epoch + 1 < before || passed + 2 < theirs - theirs / 16 || theirs + 2 < passed - passed / 16
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from(Duration::from_secs(seconds))
    }

    fn lease(protocol: PortProtocol, lifetime: u32, epoch: u32) -> Lease {
        let external = "203.0.113.1:7".parse().expect("an address");
        Lease::new(protocol, external, lifetime, epoch, at(1000))
    }

    #[test]
    fn a_gateway_that_counts_fewer_seconds_than_have_passed_has_started_anew() {
        use PortProtocol::{NatPmp, Pcp};
        for (protocol, passed, epoch, expected) in [
            (Pcp, 0, 500, false),
            (Pcp, 0, 499, false),
            (Pcp, 0, 498, true),
            (Pcp, 160, 660, false),
            (Pcp, 160, 648, false),
            (Pcp, 160, 647, true),
            (Pcp, 160, 672, false),
            (Pcp, 160, 673, true),
            (Pcp, 3600, 10, true),
            (NatPmp, 0, 498, false),
            (NatPmp, 0, 497, true),
            (NatPmp, 160, 638, false),
            (NatPmp, 160, 637, true),
            (NatPmp, 160, 9999, false),
            (NatPmp, 3600, 10, true),
        ] {
            let restarted = lease(protocol, 7200, 500).has_restarted(epoch, at(1000 + passed));
            assert_eq!(restarted, expected, "{} after {passed} s: {epoch}", protocol.label());
        }
        let mut lease = lease(Pcp, 7200, 500);
        assert!(
            !lease.has_restarted(600, at(1100)) && lease.has_restarted(500, at(1101)),
            "since the last answer"
        );
    }

    #[test]
    fn lifetimes_are_believed_within_bounds_and_renewed_at_half() {
        for (lifetime, half, ends) in [(7200, 4600, 8200), (1, 1030, 1060), (u32::MAX, 44_200, 87_400)] {
            let lease = lease(PortProtocol::Pcp, lifetime, 0);
            assert_eq!((lease.renew_at, lease.ends), (at(half), at(ends)), "{lifetime} s");
        }
        let mut lease = lease(PortProtocol::Pcp, 7200, 0);
        let mut renewals = Vec::new();
        while lease.renew_at < lease.ends {
            let now = lease.renew_at;
            renewals.push(now.since(at(1000)).as_secs());
            lease.renew(now);
        }
        assert_eq!(renewals, [3600, 5400, 6300, 6750, 6975, 7087, 7143, 7171, 7185, 7192, 7196]);
    }
}
