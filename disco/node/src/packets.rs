//! Packets of peers, as the application takes them.

use std::fmt::Debug;

use towpath_wire::key::NodePublic;

use crate::datagrams::{cut, train_len};
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

/// Packets of one peer that came one after the other and have one length, the last one perhaps a shorter one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'a> {
    /// The peer. See [`Packet::peer`].
    pub peer: NodePublic,
    /// The packets, one after the other. At most 65,507 bytes, unless it is one packet.
    pub contents: &'a [u8],
    /// The bytes of each packet but the last one. 0 for an empty packet.
    pub segment: usize,
    /// The kind of path by which they came.
    pub via: PathClass,
}

impl<'a> Run<'a> {
    /// The packets one by one.
    pub fn packets(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        cut(self.contents, self.segment)
    }
}

/// What takes the packets of peers as they come, in place of [`Endpoint::recv`](crate::Endpoint::recv).
pub trait PacketSink: Debug + Send + Sync + 'static {
    /// Takes packets. The task that receives calls this and waits for its end: it must not block. How
    /// far the sender is certain, [`Packet::peer`] says.
    fn take(&self, run: &Run<'_>);
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

    /// The packets in runs of at most `most` packets, for a socket that sends a run with one call.
    pub fn runs(&self, most: usize) -> impl Iterator<Item = Run<'_>> {
        let (mut bytes, mut entries) = (&self.bytes[..], &self.entries[..]);
        std::iter::from_fn(move || {
            let first = entries.first()?;
            let is_alike = |entry: &&Entry| (entry.peer, entry.via) == (first.peer, first.via);
            let of_peer = entries.iter().take_while(is_alike);
            let count = train_len(of_peer.map(|entry| entry.len), most);
            let (run, after) = entries.split_at(count);
            let (contents, rest) = bytes.split_at(run.iter().map(|entry| entry.len).sum());
            (bytes, entries) = (rest, after);
            Some(Run { peer: first.peer, contents, segment: first.len, via: first.via })
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

#[cfg(test)]
mod tests {
    use towpath_wire::key::NodePrivate;

    use super::*;

    #[test]
    fn a_run_has_packets_of_one_peer_and_one_length_and_perhaps_a_shorter_one_at_its_end() {
        let [one, other] = [1, 2].map(|seed| NodePrivate::from_random([seed; 32]).public());
        let mut packets = Packets::new();
        for (peer, len, fill) in
            [(one, 9, 1), (one, 9, 2), (one, 4, 3), (one, 9, 4), (other, 9, 5), (other, 0, 6), (other, 3, 7)]
        {
            packets.push(peer, PathClass::Direct, &vec![fill; len]);
        }
        let runs: Vec<_> = packets.runs(64).map(|run| (run.peer, run.contents.len(), run.segment)).collect();
        assert_eq!(runs, [(one, 22, 9), (one, 9, 9), (other, 9, 9), (other, 0, 0), (other, 3, 3)]);
        let joined: Vec<_> = packets.runs(2).flat_map(|run| run.contents.to_vec()).collect();
        let whole: Vec<_> = packets.iter().flat_map(|packet| packet.bytes.to_vec()).collect();
        assert_eq!(joined, whole);
        assert_eq!(packets.runs(1).count(), packets.len());
    }
}
