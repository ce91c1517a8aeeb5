//! Packets of peers, as the application takes them.

use towpath_wire::key::NodePublic;

use crate::path::PathClass;

/// A packet of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The peer. On a direct path it is known by its address, which others can forge: the application authenticates its packets, as
    /// WireGuard does.
    pub peer: NodePublic,
    /// The bytes, at most 65,536.
    pub bytes: &'a [u8],
    /// The kind of path by which it came.
    pub via: PathClass,
}

/// Packets of peers in the order in which they came. The memory is kept and used again.
#[derive(Debug, Default)]
pub struct Packets {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    peer: NodePublic,
    via: PathClass,
    len: usize,
}

impl Packets {
    /// No packets.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The packets.
    pub fn iter(&self) -> impl Iterator<Item = Packet<'_>> {
        let mut rest = &self.bytes[..];
        self.entries.iter().map(move |entry| {
            let (bytes, after) = rest.split_at(entry.len);
            rest = after;
            Packet { peer: entry.peer, bytes, via: entry.via }
        })
    }

    /// Forgets the packets and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    /// The bytes of all of them.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn push(&mut self, peer: NodePublic, via: PathClass, packet: &[u8]) {
        self.bytes.extend_from_slice(packet);
        self.entries.push(Entry { peer, via, len: packet.len() });
    }
}
