//! The account of an outbox: what has gone through it and what waits in it.
//!
//! Packets are counted as they leave, a batch at a time, so that a packet costs no more than the count of the lane that it waits
//! in.

use super::drops::DropCounts;
use super::lane::Lane;

/// What has gone through an outbox and what waits in it. Bytes are those of frames, with headers and keys; control frames are
/// not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxAccount {
    /// Packets that were sent, or handed to the transport for that.
    pub sent_packets: u64,
    /// The bytes of their frames.
    pub sent_bytes: u64,
    /// Packets that wait.
    pub waiting_packets: usize,
    /// The bytes of their frames.
    pub waiting_bytes: usize,
    /// Most bytes that wait, disco apart: [`Limits::bytes`](super::Limits::bytes).
    pub bound: usize,
    /// Packets that were dropped here, and packets of the other end that were dropped because their destination is unknown.
    pub dropped: DropCounts,
}

/// Packets that were handed out to be sent.
#[derive(Debug, Default)]
pub(super) struct Handed {
    pub(super) packets: u64,
    /// The bytes of their frames.
    pub(super) bytes: u64,
}

impl Handed {
    #[inline]
    pub(super) fn add(&mut self, lane: &Lane) {
        self.packets += u64::from(lane.frames());
        self.bytes += lane.len() as u64;
    }

    /// Takes back what was handed out and is not sent.
    pub(super) fn take_back(&mut self, unsent: &Lane) {
        self.packets -= u64::from(unsent.frames());
        self.bytes -= unsent.len() as u64;
    }
}
