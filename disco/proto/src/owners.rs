//! Which peers have a disco key. Nodes of one host may share one, and a peer may claim the key of another.

use std::collections::BTreeSet;

use towpath_wire::disco::key::DiscoPublic;
use towpath_wire::key::{KEY_LEN, NodePublic};

/// Each peer by its disco key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owners(BTreeSet<(DiscoPublic, NodePublic)>);

impl Owners {
    /// The peers with a disco key, in the order of their node keys.
    pub(crate) fn of(&self, disco: DiscoPublic) -> impl Iterator<Item = NodePublic> + '_ {
        let first = (disco, NodePublic::from_bytes([0; KEY_LEN]));
        self.0.range(first..).take_while(move |(of, _)| *of == disco).map(|(_, owner)| *owner)
    }

    /// The peer that a message with a disco key is from: the one that it names, else the only one with that key.
    pub(crate) fn sender(&self, disco: DiscoPublic, named: Option<NodePublic>) -> Option<NodePublic> {
        let mut owners = self.of(disco);
        let sole = owners.next().filter(|_| owners.next().is_none());
        named.filter(|key| self.0.contains(&(disco, *key))).or(sole)
    }

    /// Notes that a peer has another disco key than before.
    pub(crate) fn change(
        &mut self,
        owner: NodePublic,
        before: Option<DiscoPublic>,
        disco: Option<DiscoPublic>,
    ) {
        if let Some(before) = before {
            self.0.remove(&(before, owner));
        }
        self.0.extend(disco.map(|disco| (disco, owner)));
    }
}
