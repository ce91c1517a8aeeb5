//! What names the parts of a world.

use std::fmt;

macro_rules! id {
    ($(#[$meta:meta])* $name:ident, $prefix:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub(crate) u32);

        impl $name {
            pub(crate) fn of(index: usize) -> Self {
                Self(u32::try_from(index).expect("a world is smaller than that"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id! {
    /// A host.
    HostId, "host"
}
id! {
    /// A NAT or firewall.
    NatId, "nat"
}
id! {
    /// A flow of the application.
    FlowId, "flow"
}
id! {
    /// A spot on the map. The links between two of them have a delay, and what stands at the same one is near.
    Site, "site"
}

macro_rules! index {
    ($($name:ident),*) => {
        $(impl $name {
            pub(crate) const fn index(self) -> usize {
                self.0 as usize
            }
        })*
    };
}

index!(HostId, NatId, FlowId);

/// What a host or a NAT is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The public internet, with IPv4, at a site.
    Internet(Site),
    /// The public internet, with IPv6, at a site.
    Internet6(Site),
    /// The inside of a NAT or firewall. Its address family and its site are those of the NAT.
    Behind(NatId),
}
