//! Packets that are dropped: why, on the way to where, and the trait that counts them.

use towpath_wire::derp::HEADER_LEN;
use towpath_wire::derp::frame::{ClientFrame, FrameType, Header, ServerFrame};
use towpath_wire::labels;

use crate::session::PacketKind;

labels! {
    /// Why a packet was dropped. The label is upstream's where upstream has the reason.
    pub enum DropReason {
        /// No connection has the destination's key.
        UnknownDestination = "unknown_dest",
        /// No connection has the destination's key, of a packet that another relay of the region sent.
        UnknownOnForward = "unknown_dest_on_fwd",
        /// The destination left while the packet was on its way.
        Gone = "gone_disconnected",
        /// The outbox of the destination was full, and this was its oldest packet.
        QueueFull = "queue_head",
        /// The memory for packets that wait was used up (`memory.max`), and this was the oldest of its sender in an outbox
        /// that cannot be sent.
        Memory = "memory",
        /// The packet waited longer than `outbox.age`.
        QueueAge = "queue_age",
        /// The write that carried the packet failed.
        WriteError = "write_error",
    }
}

/// Whom a packet was to be sent to next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hop {
    /// Its destination, as a RecvPacket.
    Client,
    /// Another relay, as a ForwardPacket.
    Relay,
}

impl Hop {
    /// The hop of a packet in a frame with this header, and the packet's length.
    pub(super) fn of(header: Header) -> (Self, usize) {
        let (hop, overhead) = if header.kind == FrameType::ForwardPacket as u8 {
            (Self::Relay, ClientFrame::forward_packet_len(0))
        } else {
            (Self::Client, ServerFrame::recv_packet_len(0))
        };
        (hop, (HEADER_LEN + header.len as usize).saturating_sub(overhead))
    }
}

/// Told of each packet that is dropped.
pub trait DropSink {
    /// A packet of `bytes` (keys and headers not counted) was dropped.
    fn dropped(&mut self, hop: Hop, reason: DropReason, kind: PacketKind, bytes: usize);
}

/// Packets that one outbox has dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropCounts([u64; DropReason::ALL.len()]);

impl DropCounts {
    /// Adds `packets` that were dropped for a reason.
    pub const fn add(&mut self, reason: DropReason, packets: u64) {
        self.0[reason.index()] += packets;
    }

    /// Packets that were dropped for a reason.
    #[must_use]
    pub const fn of(&self, reason: DropReason) -> u64 {
        self.0[reason.index()]
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, part)| *sum += part);
    }
}

/// Counts what one outbox drops, and passes it on.
pub(super) struct Noting<'a, D> {
    pub(super) counts: &'a mut Option<Box<DropCounts>>,
    pub(super) sink: &'a mut D,
}

impl<D: DropSink> DropSink for Noting<'_, D> {
    fn dropped(&mut self, hop: Hop, reason: DropReason, kind: PacketKind, bytes: usize) {
        self.counts.get_or_insert_default().add(reason, 1);
        self.sink.dropped(hop, reason, kind, bytes);
    }
}
