//! What to try on a pair, by the classes of both NATs. Another technique is another variant here: which addresses it probes, and
//! whether it waits until both NATs are open.

use towpath_wire::labels;

use crate::MappingClass;
use crate::MappingClass::{Dependent, Open};

labels! {
    /// A way to make a pair direct.
    pub enum Technique {
        /// Both probe each other's addresses at the same moment, after each has opened its own NAT.
        Simultaneous = "simultaneous",
        /// One side has another port for each destination. It probes the other side, which learns that port by the first probe and
        /// answers with probes of its own.
        Reversal = "reversal",
        /// Both sides have another port for each destination. Nothing but addresses of a shared network is probed.
        LocalOnly = "local only",
    }
}

impl Technique {
    /// The technique for NATs of these classes. What is not known of a NAT may be easy.
    #[must_use]
    pub const fn of(ours: MappingClass, theirs: MappingClass) -> Self {
        match (ours, theirs) {
            (Dependent, Dependent) => Self::LocalOnly,
            (Dependent, _) | (_, Dependent) => Self::Reversal,
            _ => Self::Simultaneous,
        }
    }

    /// Whether an attempt that fails does so for other reasons than loss: a NAT has a port for each destination, and the other side
    /// may let in only addresses that it has sent to.
    pub(super) const fn is_unlikely(ours: MappingClass, theirs: MappingClass) -> bool {
        matches!((ours, theirs), (Dependent, _) | (_, Dependent))
            && !matches!((ours, theirs), (Open, _) | (_, Open))
    }

    /// Whether this node's probes may go out before the NAT of the peer is open: neither a NAT that has a port for each destination
    /// nor a host without one loses its port by a packet that comes early.
    pub(super) const fn may_fire_at_once(ours: MappingClass, theirs: MappingClass) -> bool {
        matches!((ours, theirs), (Dependent, _) | (_, Open))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MappingClass::{Independent, Unknown};

    #[test]
    fn a_technique_follows_from_both_classes() {
        for (ours, theirs, technique, at_once, is_unlikely) in [
            (Open, Open, Technique::Simultaneous, true, false),
            (Independent, Open, Technique::Simultaneous, true, false),
            (Open, Independent, Technique::Simultaneous, false, false),
            (Independent, Independent, Technique::Simultaneous, false, false),
            (Unknown, Unknown, Technique::Simultaneous, false, false),
            (Open, Dependent, Technique::Reversal, false, false),
            (Dependent, Open, Technique::Reversal, true, false),
            (Independent, Dependent, Technique::Reversal, false, true),
            (Dependent, Independent, Technique::Reversal, true, true),
            (Dependent, Unknown, Technique::Reversal, true, true),
            (Dependent, Dependent, Technique::LocalOnly, true, true),
        ] {
            assert_eq!(Technique::is_unlikely(ours, theirs), is_unlikely, "{ours:?}, {theirs:?}");
            assert_eq!(Technique::of(ours, theirs), technique, "{ours:?}, {theirs:?}");
            assert_eq!(Technique::may_fire_at_once(ours, theirs), at_once, "{ours:?}, {theirs:?}");
        }
    }
}
