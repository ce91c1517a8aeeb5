//! What a test does to a world while it runs, and the script of all that it did.

use std::fmt::{self, Write as _};
use std::time::Duration;

use towpath_disco::datagram::Region;
use towpath_wire::time::Instant;

use crate::flow::Flow;
use crate::id::{HostId, NatId, Place, Site};
use crate::link::Link;
use crate::nat::Nat;
use crate::trace::millis;

/// Something that is done to a world.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A host moves to other places. Its links to relays break at once, and those to its homes are dialled again as soon
    /// as it has an address.
    Roam {
        /// The host.
        host: HostId,
        /// Where it is attached from then on.
        places: Vec<Place>,
        /// How long it has no address in between.
        gap: Duration,
    },
    /// A NAT starts anew and loses its mappings, those that its gateway has granted as well.
    Rebind {
        /// The NAT.
        nat: NatId,
        /// Whether the external endpoints of before are not used again.
        new_ports: bool,
    },
    /// A NAT forgets the streams of the hosts behind it to relays: those carry nothing more in either direction, and neither end
    /// notices, as behind a NAT that answers no packet of a stream that it does not know. [`Self::Rebind`] concerns UDP alone.
    ForgetStreams {
        /// The NAT.
        nat: NatId,
    },
    /// A host hears nothing and does nothing for a while. What comes over relays waits.
    Suspend {
        /// The host.
        host: HostId,
        /// For how long.
        lasts: Duration,
    },
    /// A relay dies. Each host hears of it as soon as the relay's last packet can reach it.
    KillRelay(Region),
    /// A relay goes silent: its links stay up, and what it is sent waits until it works again.
    SilenceRelay(Region),
    /// A dead or silent relay works again.
    RestoreRelay(Region),
    /// The link in one direction becomes another.
    SetLink {
        /// The site where it begins.
        from: Site,
        /// The site where it ends.
        to: Site,
        /// What it is from then on.
        link: Link,
    },
    /// The link in one direction is blocked or unblocked.
    Block {
        /// The site where it begins.
        from: Site,
        /// The site where it ends.
        to: Site,
        /// Whether it is blocked from then on.
        blocked: bool,
    },
    /// A host keeps its links to other relays from then on. The ones that it has stay up.
    SetHomes {
        /// The host.
        host: HostId,
        /// The regions.
        homes: Vec<Region>,
    },
    /// A host's clock jumps ahead.
    StepClock {
        /// The host.
        host: HostId,
        /// By how much.
        by: Duration,
    },
}

/// What was done to build and to drive a world.
#[derive(Clone, Debug)]
pub(crate) enum Line {
    Relay(Region, Site),
    Stun(Site),
    Nat(NatId, Place, Nat),
    Host(HostId, Vec<Place>, Vec<Region>),
    Forward(NatId, u16, HostId),
    Link(Site, Site, Link),
    Flow(Flow),
    Action(Instant, Action),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relay(region, site) => write!(f, "relay {} at {site}", region.0),
            Self::Stun(site) => write!(f, "STUN server at {site}"),
            Self::Nat(id, place, nat) => write!(f, "{id} at {place:?}: {nat:?}"),
            Self::Host(id, places, homes) => write!(f, "{id} at {places:?}, homes {homes:?}"),
            Self::Forward(nat, port, host) => write!(f, "{nat} forwards port {port} to {host}"),
            Self::Link(from, to, link) => write!(f, "{from} -> {to}: {link:?}"),
            Self::Flow(flow) => write!(f, "{flow:?}"),
            Self::Action(at, action) => write!(f, "at {:.3} ms: {action:?}", millis(*at)),
        }
    }
}

/// The script as text.
pub(crate) fn text(seed: u64, lines: &[Line]) -> String {
    let mut text = format!("seed {seed}\n");
    for line in lines {
        writeln!(text, "{line}").expect("writing to a String cannot fail");
    }
    text
}
