//! The worker process that makes round trips.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use mio::{Events, Poll, Token};
use serde::{Deserialize, Serialize};
use towpath_wire::derp::frame::{ClientFrame, ServerFrame};
use towpath_wire::key::NodePublic;

use crate::clock::{self, SECOND};
use crate::flow::packet::{self, PacketBuilder, PacketHeader};
use crate::flow::schedule::{Schedule, Timeline};
use crate::flow::sequence::{PacketDamage, PacketOrder, PacketSequence};
use crate::histogram::DurationHistogram;
use crate::host::usage::{ThreadUsage, UsageMeter};
use crate::net::alarm::Alarm;
use crate::net::connect::{self, KeySeed, LoginOrder};
use crate::net::link::{LinkBuffers, LinkRead, RelayLink};
use crate::net::poll;
use crate::process::{Parent, WorkerProgress};
use crate::protocol::ClientKey;
use crate::target::LoadTarget;

const ROLE: &str = "probe";
const PROBER: usize = 0;
const PEER: usize = 1;
const ALARM: Token = Token(2);
/// How long to wait for the last round trips after the measured time.
const MAX_DRAIN: u64 = 3 * SECOND / 2;
/// How long to wait for events before the time is checked.
const POLL_TIMEOUT: Duration = Duration::from_millis(50);

/// How a round trip is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum RoundTripKind {
    /// With a ping, which the relay answers.
    Ping,
    /// With a packet of this many bytes to a peer, which sends it back.
    Peer(usize),
}

/// The job of the process that makes round trips.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ProbeJob {
    pub(super) seed: KeySeed,
    pub(super) kind: RoundTripKind,
    /// Round trips a second.
    pub(super) rate: u64,
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
}

/// The outcome of a [`ProbeJob`].
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct ProbeOutcome {
    pub(super) offered: u64,
    pub(super) completed: u64,
    pub(super) damage: PacketDamage,
    pub(super) round_trip: DurationHistogram,
    pub(super) late: DurationHistogram,
    pub(super) usage: ThreadUsage,
}

struct Prober<'a> {
    kind: RoundTripKind,
    schedule: Schedule,
    timeline: Timeline,
    /// The client that makes round trips, and its peer if there is one.
    links: Vec<RelayLink>,
    peers: [NodePublic; 2],
    /// Encoded frames that the peer is about to send back.
    answers: Vec<u8>,
    buffers: LinkBuffers,
    builder: PacketBuilder,
    /// The number of the next round trip.
    next: u64,
    sequence: PacketSequence,
    outcome: ProbeOutcome,
    parent: &'a mut Parent,
}

/// Does a [`ProbeJob`].
pub(super) fn run(target: &LoadTarget, job: &ProbeJob, parent: &mut Parent) -> Result<ProbeOutcome> {
    let keys = [0, 1].map(|index| job.seed.key(ROLE, index));
    let peers = keys.each_ref().map(ClientKey::public);
    let count = if job.kind == RoundTripKind::Ping { 1 } else { 2 };
    let mut poll = Poll::new()?;
    let keys = keys.into_iter().take(count).collect();
    let mut links = connect::connect_all(target, keys, LoginOrder::Together)?;
    for (index, link) in links.iter_mut().enumerate() {
        link.register(poll.registry(), Token(index))?;
    }
    let alarm = Alarm::new(poll.registry(), ALARM)?;
    parent.ready()?;
    let begin = parent.wait_to_proceed()?;
    let mut prober = Prober {
        kind: job.kind,
        schedule: Schedule { begin, rate: job.rate, batch: 1, flows: 1 },
        timeline: Timeline::new(begin, job.warm_up, job.duration),
        links,
        peers,
        answers: Vec::new(),
        buffers: LinkBuffers::new(),
        builder: PacketBuilder::new(),
        next: 0,
        sequence: PacketSequence::default(),
        outcome: ProbeOutcome::default(),
        parent,
    };
    prober.run(&mut poll, &alarm)?;
    Ok(prober.outcome)
}

impl Prober<'_> {
    fn run(&mut self, poll: &mut Poll, alarm: &Alarm) -> Result<()> {
        let mut events = Events::with_capacity(64);
        let mut meter = UsageMeter::new(self.timeline.measure, self.timeline.end);
        alarm.set(self.timeline.begin)?;
        loop {
            poll::wait(poll, &mut events, POLL_TIMEOUT)?;
            for event in events.iter().filter(|event| event.token() != ALARM) {
                let index = event.token().0;
                if event.is_writable() && self.links[index].is_blocked() {
                    self.links[index].flush()?;
                }
                self.read(index)?;
            }
            self.send_answers()?;
            let now = clock::now();
            meter.update(now)?;
            let due = self.send_due(now)?;
            if due < self.timeline.end {
                alarm.set(due)?;
            } else if self.outcome.completed == self.outcome.offered && now >= self.timeline.end
                || now >= self.timeline.end + MAX_DRAIN
            {
                self.outcome.usage = meter.usage();
                return Ok(());
            }
            self.report(now)?;
        }
    }

    /// Begins the round trips that are due, and returns when the next one is. While the socket is full, they wait.
    fn send_due(&mut self, now: u64) -> Result<u64> {
        loop {
            let due = self.schedule.due(0, self.next);
            if due > now || due >= self.timeline.end {
                return Ok(due);
            }
            if self.links[PROBER].is_blocked() {
                // The poll reports when the socket has room. The alarm keeps the loop from sleeping through the end.
                return Ok(now + clock::nanos(POLL_TIMEOUT));
            }
            let frame = match self.kind {
                RoundTripKind::Ping => ClientFrame::Ping(self.next.to_be_bytes()),
                RoundTripKind::Peer(len) => {
                    let packet = self.builder.build(&PacketHeader { flow: 0, number: self.next, due }, len);
                    ClientFrame::SendPacket { to: self.peers[PEER], packet }
                }
            };
            self.links[PROBER].protocol().encode(&frame, &mut self.buffers.frames);
            self.links[PROBER].send(&mut self.buffers)?;
            self.next += 1;
            if self.timeline.measures(due) {
                self.outcome.offered += 1;
                self.outcome.late.record(clock::now().saturating_sub(due));
            }
        }
    }

    fn read(&mut self, index: usize) -> Result<()> {
        let Self {
            links, buffers, answers, peers, kind, schedule, timeline, next, sequence, outcome, ..
        } = self;
        let protocol = links[index].protocol();
        loop {
            let read = links[index].read(buffers, |frame| {
                let number = match frame {
                    ServerFrame::RecvPacket { from, packet } if index == PEER => {
                        protocol.encode(&ClientFrame::SendPacket { to: from, packet }, answers);
                        return;
                    }
                    ServerFrame::Pong(number) if *kind == RoundTripKind::Ping => {
                        Some(u64::from_be_bytes(number))
                    }
                    ServerFrame::RecvPacket { from, .. } if from != peers[PEER] => {
                        outcome.damage.misrouted += 1;
                        return;
                    }
                    ServerFrame::RecvPacket { packet, .. } => {
                        packet::read(packet).map(|header| header.number)
                    }
                    _ => return,
                };
                let Some(number) = number.filter(|number| number < next) else {
                    outcome.damage.corrupted += 1;
                    return;
                };
                let order = sequence.record(number);
                outcome.damage.count(order);
                let due = schedule.due(0, number);
                if order != PacketOrder::Duplicate && timeline.measures(due) {
                    outcome.completed += 1;
                    outcome.round_trip.record(clock::now().saturating_sub(due));
                }
            });
            match read.context("reading answers")? {
                LinkRead::More => {}
                LinkRead::Drained => return Ok(()),
                LinkRead::Closed => bail!("the relay closed the connection that makes round trips"),
            }
        }
    }

    /// Sends back what the peer received.
    fn send_answers(&mut self) -> Result<()> {
        match self.links.get_mut(PEER) {
            Some(peer) if !self.answers.is_empty() && !peer.is_blocked() => {
                self.buffers.frames.append(&mut self.answers);
                peer.send(&mut self.buffers)
            }
            _ => Ok(()),
        }
    }

    fn report(&mut self, now: u64) -> Result<()> {
        let (connections, sent, received) = (self.links.len() as u64, self.next, self.sequence.next());
        self.parent.report(now, || WorkerProgress { connections, sent, received, ..Default::default() })
    }
}
