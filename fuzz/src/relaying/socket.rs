//! The way out to a client, and the client at its end.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use towpath_relay_proto::egress::{Egress, FlushContext, Flushed, Pushed, Sent, Transmit};
use towpath_relay_proto::outbox::{Batch, DropReason, DropSink, Hop};
use towpath_relay_proto::session::{ClientSession, PacketKind};
use towpath_wire::derp::HEADER_LEN;
use towpath_wire::derp::frame::Header;
use towpath_wire::pool::BufferPool;
use towpath_wire::time::Instant;

use super::model::{ModelOutbox, Packet};

/// How much is taken from an outbox for one write.
const MAX_WRITE: usize = 1000;

/// What others do while a write goes on.
#[derive(Debug)]
pub(super) struct Meanwhile {
    pub(super) packets: Vec<Packet>,
    pub(super) writable: bool,
}

/// A client's socket, and what the client makes of what it takes.
#[derive(Debug, Default)]
pub(super) struct Socket {
    /// Bytes that it takes until it is full; `None` for any number.
    pub(super) room: Option<usize>,
    pub(super) broken: bool,
    pub(super) meanwhile: Option<Meanwhile>,
    /// What was taken from the outbox and not by the socket.
    unsent: Vec<u8>,
    client: ClientSession,
}

impl Socket {
    pub(super) const fn is_full(&self) -> bool {
        matches!(self.room, Some(0))
    }

    pub(super) const fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Writes unsent bytes as far as the socket takes them. The client reads them.
    fn write(&mut self, owed: &RefCell<ModelOutbox>) -> Sent {
        if self.broken {
            return Sent::Failed;
        }
        let taken = self.unsent.len().min(self.room.unwrap_or(usize::MAX));
        if let Some(room) = &mut self.room {
            *room -= taken;
        }
        let (mut input, mut pool) = (&self.unsent[..taken], BufferPool::default());
        while let Some(frame) =
            self.client.next(&mut input, &mut pool).expect("a relay sends what a client reads")
        {
            owed.borrow_mut().receive(&frame);
        }
        self.unsent.drain(..taken);
        if self.unsent.is_empty() { Sent::All } else { Sent::Blocked }
    }
}

/// Tells a connection's model of what is dropped.
#[derive(Debug)]
pub(super) struct Drops<'a> {
    pub(super) now: Instant,
    pub(super) owed: &'a RefCell<ModelOutbox>,
}

impl DropSink for Drops<'_> {
    fn dropped(&mut self, hop: Hop, reason: DropReason, kind: PacketKind, bytes: usize) {
        assert_eq!(hop, Hop::Client);
        self.owed.borrow_mut().drop_packet(self.now, reason, kind, bytes);
    }
}

/// What an egress writes to.
#[derive(Debug)]
pub(super) struct SocketTransmit {
    pub(super) socket: Rc<RefCell<Socket>>,
    pub(super) owed: Rc<RefCell<ModelOutbox>>,
    /// The egress that this is the way out of, for what others do meanwhile.
    pub(super) egress: Weak<Egress<Self>>,
}

impl SocketTransmit {
    fn write(&self, batch: Option<&mut Batch>, now: Instant) -> Sent {
        let mut socket = self.socket.borrow_mut();
        let resumed = socket.write(&self.owed);
        let Some(batch) = batch else { return resumed };
        if resumed != Sent::All {
            return resumed;
        }
        while let Some(chunk) = batch.chunk(MAX_WRITE) {
            let (len, mut rest) = (chunk.len(), chunk);
            socket.unsent.extend_from_slice(chunk);
            while let Some(header) = Header::decode(rest) {
                let (frame, later) = rest.split_at(HEADER_LEN + header.len as usize);
                self.owed.borrow_mut().take_frame(now, frame);
                rest = later;
            }
            assert!(rest.is_empty(), "a chunk is whole frames");
            batch.advance(len);
            match socket.write(&self.owed) {
                Sent::All => {}
                other => return other,
            }
        }
        Sent::All
    }

    /// Lets other clients push, and epoll report, during this write.
    fn let_others_at_it(&self, now: Instant) {
        let Some(Meanwhile { packets, writable }) = self.socket.borrow_mut().meanwhile.take() else { return };
        let egress = self.egress.upgrade().expect("whose write this is");
        for packet in packets {
            let pushed = push_packet(&egress, &self.owed, Packet { at: now, ..packet });
            assert_eq!(pushed, Pushed::Queued, "the writing thread looks again");
        }
        if writable {
            self.socket.borrow_mut().room = None;
            let flushed = with_context(now, &self.owed, |context| egress.flush_writable(context));
            assert_eq!(flushed, Flushed::Done, "one write at a time");
        }
    }
}

impl Transmit for SocketTransmit {
    type Scratch = ();

    fn send(&mut self, batch: Option<&mut Batch>, now: Instant, _: &mut BufferPool, (): &mut ()) -> Sent {
        self.owed.borrow_mut().begin_write();
        let sent = self.write(batch, now);
        self.let_others_at_it(now);
        self.owed.borrow_mut().end_write(sent == Sent::Failed);
        sent
    }
}

/// Calls `with` with the context of a flush.
pub(super) fn with_context<R>(
    now: Instant,
    owed: &RefCell<ModelOutbox>,
    with: impl FnOnce(&mut FlushContext<'_, (), Drops<'_>>) -> R,
) -> R {
    let (mut drops, mut pool) = (Drops { now, owed }, BufferPool::default());
    with(&mut FlushContext { now, pool: &mut pool, drops: &mut drops, scratch: &mut () })
}

/// Pushes a packet, here and in the model.
pub(super) fn push_packet(
    egress: &Egress<SocketTransmit>,
    owed: &RefCell<ModelOutbox>,
    packet: Packet,
) -> Pushed {
    owed.borrow_mut().begin_push(&packet);
    let (mut drops, mut pool) = (Drops { now: packet.at, owed }, BufferPool::default());
    let pushed = egress.push(|outbox| {
        outbox.push_packet(packet.at, &packet.from, &packet.bytes, &mut pool, &mut drops);
        true
    });
    owed.borrow_mut().end_push(packet);
    pushed
}
