//! Datagrams on their way in or out, with the memory for all of them.

use std::net::{Ipv4Addr, SocketAddr};

use crate::cmsg::{Control, LocalAddr};
use crate::name::Name;

/// Most datagrams in one batch. The gain of batching is spent by then, and a batch still fits into the
/// second-level cache.
pub const BATCH_MAX: usize = 64;

/// Length in bytes of the longest datagram that a batch holds: an Ethernet frame's worth, with room to spare.
pub const DATAGRAM_MAX_LEN: usize = 2048;

/// Up to [`BATCH_MAX`] datagrams, received or to be sent.
///
/// Memory for all of them, about 2.2 KiB each, is taken at creation and kept.
#[derive(Debug)]
pub struct DatagramBatch {
    slots: Box<[Slot]>,
    len: usize,
}

/// One datagram of a batch, and the memory in which the kernel is told, or tells, its addresses.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) payload: [u8; DATAGRAM_MAX_LEN],
    pub(crate) len: usize,
    pub(crate) truncated: bool,
    pub(crate) peer: SocketAddr,
    pub(crate) local: LocalAddr,
    pub(crate) name: Name,
    pub(crate) control: Control,
}

impl DatagramBatch {
    /// An empty batch with room for `capacity` datagrams, which is held to the range 1 to [`BATCH_MAX`].
    pub fn with_capacity(capacity: usize) -> Self {
        let slot = Slot {
            payload: [0; DATAGRAM_MAX_LEN],
            len: 0,
            truncated: false,
            peer: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            local: LocalAddr::ANY,
            name: Name::default(),
            control: Control::default(),
        };
        Self { slots: vec![slot; capacity.clamp(1, BATCH_MAX)].into_boxed_slice(), len: 0 }
    }

    /// Number of datagrams.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no datagram.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of datagrams for which there is room.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Forgets all datagrams.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// The datagrams in the order of arrival or of [`push`](Self::push).
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Datagram<'_>> {
        self.slots[..self.len].iter().map(|slot| Datagram {
            payload: &slot.payload[..slot.len],
            truncated: slot.truncated,
            peer: slot.peer,
            local: slot.local,
        })
    }

    /// Appends a copy of `payload`, to be sent from `local` to `peer`.
    ///
    /// # Errors
    /// The batch is full, or the payload is longer than [`DATAGRAM_MAX_LEN`]. The batch is unchanged.
    pub fn push(&mut self, peer: SocketAddr, local: LocalAddr, payload: &[u8]) -> Result<(), PushError> {
        let slot = self.slots.get_mut(self.len).ok_or(PushError::Full)?;
        slot.payload.get_mut(..payload.len()).ok_or(PushError::TooLong)?.copy_from_slice(payload);
        (slot.len, slot.truncated, slot.peer, slot.local) = (payload.len(), false, peer, local);
        self.len += 1;
        Ok(())
    }

    /// The memory of all datagrams, for the kernel to write to.
    pub(crate) fn slots_mut(&mut self) -> &mut [Slot] {
        &mut self.slots
    }

    /// The slots of the datagrams to be sent.
    pub(crate) fn filled_mut(&mut self) -> &mut [Slot] {
        &mut self.slots[..self.len]
    }

    /// Declares that the first `len` slots hold a datagram.
    pub(crate) fn set_len(&mut self, len: usize) {
        self.len = len.min(self.slots.len());
    }
}

/// A datagram of a [`DatagramBatch`].
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// The bytes; only the first [`DATAGRAM_MAX_LEN`] of a longer datagram.
    pub payload: &'a [u8],
    /// Whether the datagram was longer than a batch can hold and its end is lost.
    pub truncated: bool,
    /// The remote address: the sender or the destination. An IPv6 link-local peer has its interface as scope.
    pub peer: SocketAddr,
    /// The local address: the one that was asked, or the one to send from. A socket that is bound to one address
    /// reports [`LocalAddr::ANY`], and sends from its own.
    pub local: LocalAddr,
}

/// The reason why a datagram does not fit into a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The batch holds as many datagrams as it has room for.
    #[error("the batch is full")]
    Full,
    /// The payload is longer than [`DATAGRAM_MAX_LEN`].
    #[error("the payload is longer than {DATAGRAM_MAX_LEN} bytes")]
    TooLong,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_holds_what_was_pushed_and_no_more() {
        let peer = SocketAddr::from(([192, 0, 2, 1], 9));
        let mut batch = DatagramBatch::with_capacity(2);
        assert_eq!(batch.push(peer, LocalAddr::ANY, &[0; DATAGRAM_MAX_LEN + 1]), Err(PushError::TooLong));
        assert!(batch.is_empty());
        batch.push(peer, LocalAddr::ANY, b"one").unwrap();
        batch.push(peer, LocalAddr::ANY, &[2; DATAGRAM_MAX_LEN]).unwrap();
        assert_eq!(batch.push(peer, LocalAddr::ANY, b"three"), Err(PushError::Full));

        let lengths: Vec<_> = batch.iter().map(|datagram| datagram.payload.len()).collect();
        assert_eq!(lengths, [3, DATAGRAM_MAX_LEN]);
        batch.clear();
        assert_eq!(batch.iter().len(), 0);
    }

    #[test]
    fn capacity_is_held_to_its_range() {
        assert_eq!(DatagramBatch::with_capacity(0).capacity(), 1);
        assert_eq!(DatagramBatch::with_capacity(1000).capacity(), BATCH_MAX);
    }
}
