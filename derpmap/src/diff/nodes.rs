//! The changes among the nodes of one region.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use towpath_wire::ports;

use super::{Diff, Impact, SAME_RELAY, port};
use crate::MapFormat;
use crate::code::Difference;
use crate::map::{ParsedNode, ParsedRegion};

/// A member of a node that a client compares.
struct NodeMember {
    name: &'static str,
    difference: Difference,
    /// A change of the member leads to another relay, as far as the node is one.
    moves: bool,
    value: fn(&ParsedNode) -> String,
    effect: &'static str,
}

const MEMBERS: [NodeMember; 12] = [
    NodeMember {
        name: "HostName",
        difference: Difference::HostChanged,
        moves: true,
        value: |node| node.host_name.clone(),
        effect: "every client of the region reconnects, to that name; the certificate has to be for it",
    },
    NodeMember {
        name: "DERPPort",
        difference: Difference::PortChanged,
        moves: true,
        value: |node| port(node.derp_port, ports::HTTPS).to_string(),
        effect: "every client of the region reconnects, to that port",
    },
    NodeMember {
        name: "CertName",
        difference: Difference::PinChanged,
        moves: true,
        value: |node| node.cert_name.clone(),
        effect: "every client of the region reconnects and expects that certificate; one with the other map \
                cannot connect anew, whichever certificate the relay has",
    },
    NodeMember {
        name: "IPv4",
        difference: Difference::AddressChanged,
        moves: true,
        value: |node| node.ipv4.clone(),
        effect: "every client of the region reconnects, to that address, or to the DNS's if there is none",
    },
    NodeMember {
        name: "IPv6",
        difference: Difference::AddressChanged,
        moves: true,
        value: |node| node.ipv6.clone(),
        effect: "every client of the region reconnects, to that address, or to the DNS's if there is none",
    },
    NodeMember {
        name: "STUNOnly",
        difference: Difference::RelayChanged,
        moves: true,
        value: |node| node.stun_only.to_string(),
        effect: "every client of the region reconnects, and to a relay: one that answers STUN only is none",
    },
    NodeMember {
        name: "InsecureForTests",
        difference: Difference::SecurityChanged,
        moves: true,
        value: |node| node.insecure_for_tests.to_string(),
        effect: "every client of the region reconnects, and judges certificates by the new rule",
    },
    NodeMember {
        name: "STUNPort",
        difference: Difference::StunChanged,
        moves: false,
        value: |node| port(node.stun_port, ports::STUN).to_string(),
        effect: SAME_RELAY,
    },
    NodeMember {
        name: "STUNTestIP",
        difference: Difference::StunChanged,
        moves: false,
        value: |node| node.stun_test_ip.clone(),
        effect: SAME_RELAY,
    },
    NodeMember {
        name: "Name",
        difference: Difference::Cosmetic,
        moves: false,
        value: |node| node.name.clone(),
        effect: SAME_RELAY,
    },
    NodeMember {
        name: "CanPort80",
        difference: Difference::Cosmetic,
        moves: false,
        value: |node| node.can_port80.to_string(),
        effect: SAME_RELAY,
    },
    NodeMember {
        name: "RegionID",
        difference: Difference::RegionIdChanged,
        moves: false,
        value: |node| node.region_id.to_string(),
        effect: SAME_RELAY,
    },
];

impl Diff {
    pub(super) fn nodes(&mut self, id: i64, old: &ParsedRegion, new: &ParsedRegion) {
        let pairs = pair(&old.nodes, &new.nodes);
        for (index, node) in old.nodes.iter().enumerate() {
            if pairs.binary_search_by_key(&index, |(from, _)| *from).is_err() {
                self.node_removed(id, node);
            }
        }
        let mut paired = vec![false; new.nodes.len()];
        for (_, to) in &pairs {
            paired[*to] = true;
        }
        // A client takes the first relay that answers.
        let first = new.nodes.iter().position(|node| !node.stun_only);
        for (index, node) in new.nodes.iter().enumerate().filter(|(index, _)| !paired[*index]) {
            self.node_added(id, node, first == Some(index));
        }
        for (from, to) in &pairs {
            self.node(id, &old.nodes[*from], &new.nodes[*to]);
        }
        self.order(id, old, new, &pairs);
        self.null_nodes(id, old, new);
    }

    /// A client compares the region unequal for these as well.
    fn null_nodes(&mut self, id: i64, old: &ParsedRegion, new: &ParsedRegion) {
        if old.null_nodes == new.null_nodes {
            return;
        }
        let (impact, message, effect) = match new.null_nodes.is_empty() {
            true => (Impact::Reconnect, "no node is null any more", SAME_RELAY),
            false => (
                Impact::Disconnect,
                "a node is null",
                "every client looks into the nodes of all regions, and crashes on one that is null",
            ),
        };
        self.push((impact, Difference::NullNode), Some(id), format!("region {id}"), message.into(), effect);
    }

    fn node_removed(&mut self, id: i64, node: &ParsedNode) {
        let (impact, effect) = match node.stun_only {
            true => {
                (Impact::Reconnect, "every client of the region reconnects, and measures without this node")
            }
            false => (
                Impact::Disconnect,
                "clients that are on it move to another relay of the region, if there is one",
            ),
        };
        let place = format!("region {id}, {}", node.label);
        self.push((impact, Difference::NodeRemoved), Some(id), place, "the node is gone".into(), effect);
    }

    fn node_added(&mut self, id: i64, node: &ParsedNode, first: bool) {
        let (impact, message, effect) = match first {
            true => (
                Impact::Disconnect,
                "the node is new, and the first relay",
                "every client of the region reconnects, and to this relay",
            ),
            false => (Impact::Reconnect, "the node is new", SAME_RELAY),
        };
        let place = format!("region {id}, {}", node.label);
        self.push((impact, Difference::NodeAdded), Some(id), place, message.into(), effect);
    }

    fn order(&mut self, id: i64, old: &ParsedRegion, new: &ParsedRegion, pairs: &[(usize, usize)]) {
        if pairs.iter().map(|(_, to)| to).is_sorted() {
            return;
        }
        let relays: Vec<_> = pairs.iter().filter(|(from, _)| !old.nodes[*from].stun_only).collect();
        let names =
            |nodes: &[ParsedNode]| nodes.iter().map(|node| &*node.label).collect::<Vec<_>>().join(", ");
        let message =
            format!("the order of nodes changed from {} to {}", names(&old.nodes), names(&new.nodes));
        let (impact, effect) = match relays.iter().map(|(_, to)| to).is_sorted() {
            true => (Impact::Reconnect, SAME_RELAY),
            false if self.format == MapFormat::Headscale => (
                Impact::Disconnect,
                "Headscale draws the order anew at each refresh, whatever the file says: every client of the \
                    region reconnects, to the relay that is first then; as long as some have the old order and \
                    some the new one, they are on different relays and, unless the relays are meshed, do not \
                    hear each other",
            ),
            false => (
                Impact::Disconnect,
                "every client of the region reconnects, to the relay that is first now; as long as some \
                    have the old map and some the new one, they are on different relays and, unless the \
                    relays are meshed, do not hear each other",
            ),
        };
        self.push((impact, Difference::NodeOrder), Some(id), format!("region {id}"), message, effect);
    }

    fn node(&mut self, id: i64, old: &ParsedNode, new: &ParsedNode) {
        let place = || format!("region {id}, {}", new.label);
        for NodeMember { name, difference, moves, value, effect } in MEMBERS {
            let (from, to) = (value(old), value(new));
            if from != to {
                let is_relay = !new.stun_only || !old.stun_only;
                let impact = if moves && is_relay { Impact::Disconnect } else { Impact::Reconnect };
                let message = format!("{name} changed from {} to {}", shown(&from), shown(&to));
                self.push((impact, difference), Some(id), place(), message, effect);
            }
        }
        // 0 and the number that it stands for are the same port and not the same map.
        let spelt = |from: i64, to: i64, default| from != to && port(from, default) == port(to, default);
        if spelt(old.derp_port, new.derp_port, ports::HTTPS)
            || spelt(old.stun_port, new.stun_port, ports::STUN)
        {
            let message = "a port is written out that is the default, or no longer".to_owned();
            self.push((Impact::Reconnect, Difference::Cosmetic), Some(id), place(), message, SAME_RELAY);
        }
    }
}

fn shown(text: &str) -> &str {
    if text.is_empty() { "nothing" } else { text }
}

/// Which node of the one list is which of the other, by name, else by host and port; in the order of the first list.
fn pair(old: &[ParsedNode], new: &[ParsedNode]) -> Vec<(usize, usize)> {
    let mut pairs = NodePairs { of_old: vec![None; old.len()], of_new: vec![None; new.len()] };
    pairs.match_by(old, new, |node| node.name.clone());
    pairs.match_by(old, new, |node| (node.host_name.clone(), port(node.derp_port, ports::HTTPS)));
    pairs.of_old.into_iter().enumerate().filter_map(|(from, to)| Some((from, to?))).collect()
}

struct NodePairs {
    of_old: Vec<Option<usize>>,
    of_new: Vec<Option<usize>>,
}

impl NodePairs {
    /// Pairs the nodes that have no partner yet and have the same key.
    fn match_by<K: Eq + Hash>(
        &mut self,
        old: &[ParsedNode],
        new: &[ParsedNode],
        key: impl Fn(&ParsedNode) -> K,
    ) {
        let mut candidates: HashMap<K, VecDeque<usize>> = HashMap::new();
        for (to, node) in new.iter().enumerate().filter(|(to, _)| self.of_new[*to].is_none()) {
            candidates.entry(key(node)).or_default().push_back(to);
        }
        for (from, node) in old.iter().enumerate() {
            if self.of_old[from].is_some() {
                continue;
            }
            if let Some(to) = candidates.get_mut(&key(node)).and_then(VecDeque::pop_front) {
                self.of_old[from] = Some(to);
                self.of_new[to] = Some(from);
            }
        }
    }
}
