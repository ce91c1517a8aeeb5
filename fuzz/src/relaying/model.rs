//! What a relay owes: to each connection its frames in order, to each key its active connection.

use std::collections::VecDeque;
use std::time::Duration;

use towpath_relay_proto::outbox::{DropReason, Limits, MAX_CONTROL};
use towpath_relay_proto::presence::Departure;
use towpath_relay_proto::session::PacketKind;
use towpath_wire::derp::HEADER_LEN;
use towpath_wire::derp::frame::ServerFrame;
use towpath_wire::key::{KEY_LEN, NodePublic};
use towpath_wire::time::Instant;

pub(super) const LIMITS: Limits =
    Limits { bytes: 3000, packets: 0, disco_bytes: 600, age: Duration::from_millis(160), hold_above: 1500 };

/// A packet that waits.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Packet {
    pub(super) from: NodePublic,
    pub(super) bytes: Vec<u8>,
    pub(super) at: Instant,
}

impl Packet {
    fn frame(&self) -> usize {
        HEADER_LEN + KEY_LEN + self.bytes.len()
    }
}

/// The packets of one kind: sent in the order of their senders, each once, or dropped and reported.
#[derive(Debug, Default)]
struct ModelLane {
    /// What was pushed and not sent, dropped packets included, in the order of arrival.
    waiting: Vec<Packet>,
    /// The lengths of dropped packets that are not found yet: a report names neither sender nor content.
    dropped: Vec<usize>,
    /// Bytes of frames that wait.
    bytes: usize,
}

impl ModelLane {
    /// How many packets wait.
    fn len(&self) -> usize {
        self.waiting.len() - self.dropped.len()
    }

    /// Finds the report of the drop of `packet`.
    fn account_for(&mut self, packet: &Packet) {
        let report = self.dropped.iter().position(|&len| len == packet.bytes.len());
        self.dropped.swap_remove(report.expect("a packet is neither here nor there"));
    }

    /// A frame with this packet leaves. What its sender pushed before has left or was dropped.
    fn take(&mut self, from: &NodePublic, packet: &[u8], now: Instant) {
        let mut at = 0;
        loop {
            let next = self.waiting[at..].iter().position(|waiting| waiting.from == *from);
            at += next.expect("what is sent was here, is not too old, and leaves in the order of its sender");
            let older = self.waiting.remove(at);
            if older.bytes == packet && now.since(older.at) <= LIMITS.age {
                self.bytes -= older.frame();
                return;
            }
            self.account_for(&older);
        }
    }
}

/// What waits for one connection and what is on its way.
#[derive(Debug, Default)]
pub(super) struct ModelOutbox {
    control: VecDeque<Vec<u8>>,
    disco: ModelLane,
    data: ModelLane,
    /// A write is going on.
    writing: bool,
    /// Frames that the way out has taken and the client has not.
    flying: VecDeque<Vec<u8>>,
    /// Bytes of a frame that is being pushed.
    pushing: usize,
}

impl ModelOutbox {
    fn lane(&mut self, kind: PacketKind) -> (&mut ModelLane, usize) {
        match kind {
            PacketKind::Disco => (&mut self.disco, LIMITS.disco_bytes),
            PacketKind::Other => (&mut self.data, LIMITS.bytes),
        }
    }

    /// A packet is about to be pushed: what it drives out may be reported now.
    pub(super) fn begin_push(&mut self, packet: &Packet) {
        self.pushing = packet.frame();
    }

    /// The packet is in.
    pub(super) fn end_push(&mut self, packet: Packet) {
        self.pushing = 0;
        let writing = self.writing;
        let (lane, bound) = self.lane(PacketKind::of(&packet.bytes));
        lane.bytes += packet.frame();
        lane.waiting.push(packet);
        assert!(writing || lane.bytes <= bound || lane.len() == 1, "packets of a kind keep to their bound");
    }

    /// Whether there is room for another control frame.
    pub(super) fn push_control(&mut self, frame: &ServerFrame<'_>) -> bool {
        if self.control_bytes() >= MAX_CONTROL {
            return false;
        }
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.control.push_back(bytes);
        true
    }

    fn control_bytes(&self) -> usize {
        self.control.iter().map(Vec::len).sum()
    }

    /// A packet was dropped, for a reason.
    pub(super) fn drop_packet(&mut self, now: Instant, reason: DropReason, kind: PacketKind, len: usize) {
        let pushing = self.pushing;
        let (lane, bound) = self.lane(kind);
        match reason {
            DropReason::QueueFull => {
                assert!(lane.bytes + pushing > bound, "{} + {pushing} bytes are not too many", lane.bytes);
            }
            DropReason::QueueAge => {
                // An outbox measures age in sixteen steps.
                let old = |packet: &Packet| now.since(packet.at) > LIMITS.age * 15 / 16;
                let found = lane.waiting.iter().any(|packet| packet.bytes.len() == len && old(packet));
                assert!(found, "no packet of {len} bytes is old");
            }
            DropReason::WriteError | DropReason::Gone => {}
            DropReason::Memory => panic!("the pools have no bound"),
            DropReason::UnknownDestination | DropReason::UnknownOnForward => {
                panic!("an outbox knows no destinations")
            }
        }
        lane.bytes -= HEADER_LEN + KEY_LEN + len;
        lane.dropped.push(len);
    }

    pub(super) fn begin_write(&mut self) {
        self.writing = true;
    }

    /// The way out takes the first frame of what waits: control first, then packets.
    pub(super) fn take_frame(&mut self, now: Instant, frame: &[u8]) {
        self.flying.push_back(frame.to_vec());
        if let Some(control) = self.control.pop_front() {
            assert_eq!(control, frame, "control frames go first");
            return;
        }
        let Ok(Some(ServerFrame::RecvPacket { from, packet })) =
            ServerFrame::decode(frame[0], &frame[HEADER_LEN..])
        else {
            panic!("what is sent besides control frames is packets")
        };
        self.lane(PacketKind::of(packet)).0.take(&from, packet, now);
    }

    /// The write is over. Where it failed, the control frames are lost; the packets are reported.
    pub(super) fn end_write(&mut self, failed: bool) {
        self.writing = false;
        if failed {
            self.control.clear();
        }
    }

    /// The client has a frame.
    pub(super) fn receive(&mut self, frame: &ServerFrame<'_>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        assert!(self.flying.pop_front() == Some(bytes), "frames arrive as they were sent");
    }

    /// Bytes that wait.
    pub(super) fn waiting(&self) -> usize {
        self.control_bytes() + self.disco.bytes + self.data.bytes
    }

    /// The connection is closed. Control frames are not counted; every packet is accounted for.
    pub(super) fn assert_closed(&mut self) {
        for lane in [&mut self.disco, &mut self.data] {
            for packet in std::mem::take(&mut lane.waiting) {
                lane.account_for(&packet);
            }
            assert!(lane.dropped.is_empty() && lane.bytes == 0, "a packet was dropped twice");
        }
    }

    pub(super) fn assert_bounds(&self) {
        for (lane, bound) in [(&self.disco, LIMITS.disco_bytes), (&self.data, LIMITS.bytes)] {
            assert!(lane.bytes <= bound || lane.len() == 1);
        }
    }
}

/// A connection of a key.
#[derive(Debug)]
struct ModelClone {
    id: u64,
    last_sent: u64,
    /// How often it has become the active one by sending.
    took_over: u32,
}

/// The connections of one key by upstream's rules, and whether they contest it by ours.
#[derive(Debug, Default)]
pub(super) struct ModelClones {
    members: Vec<ModelClone>,
    active: Option<u64>,
    clock: u64,
    contested: bool,
}

impl ModelClones {
    pub(super) fn join(&mut self, id: u64) {
        if let [alone] = &mut self.members[..] {
            // A connection that is alone counts as having sent.
            self.clock = 1;
            *alone = ModelClone { id: alone.id, last_sent: 1, took_over: 0 };
        }
        self.members.push(ModelClone { id, last_sent: 0, took_over: 0 });
        self.active = Some(id);
    }

    /// Returns whether this shows that the key is contested: a connection has taken the place a second time.
    pub(super) fn note_sent(&mut self, id: u64) -> bool {
        self.clock += 1;
        let member = self.members.iter_mut().find(|member| member.id == id).expect("who sends is here");
        member.last_sent = self.clock;
        if self.active.replace(id) != Some(id) {
            member.took_over += 1;
        }
        member.took_over >= 2 && !std::mem::replace(&mut self.contested, true)
    }

    /// What the departure of a connection leaves behind.
    pub(super) fn leave(&mut self, id: u64) -> Departure {
        self.members.retain(|member| member.id != id);
        if self.active == Some(id) {
            let latest = self.members.iter().map(|member| member.last_sent).max();
            let successor = self.members.iter().find(|member| Some(member.last_sent) == latest);
            self.active = successor.map(|member| member.id);
        }
        match self.members.len() {
            0 => Departure::KeyGone,
            1 => Departure::OthersRemain { resolved: std::mem::take(&mut self.contested) },
            _ => Departure::OthersRemain { resolved: false },
        }
    }

    pub(super) const fn active(&self) -> Option<u64> {
        self.active
    }

    pub(super) const fn is_contested(&self) -> bool {
        self.contested
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = u64> {
        self.members.iter().map(|member| member.id)
    }
}
