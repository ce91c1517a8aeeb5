//! The worker process that receives flows, and counts and checks what arrives.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mio::{Events, Poll, Token};
use serde::{Deserialize, Serialize};
use towpath_wire::derp::frame::ServerFrame;
use towpath_wire::key::NodePublic;

use crate::clock::{self, SECOND};
use crate::flow::ack::AckSender;
use crate::flow::packet;
use crate::flow::schedule::{FlowRoutes, Timeline};
use crate::flow::sequence::{PacketDamage, PacketOrder, PacketSequence};
use crate::histogram::DurationHistogram;
use crate::host::open_files;
use crate::host::usage::{ThreadUsage, UsageMeter};
use crate::net::connect::{self, KeySeed, LoginOrder, RECEIVER, SENDER};
use crate::net::link::{LinkBuffers, LinkRead, RelayLink};
use crate::net::poll;
use crate::process::{Parent, WorkerProgress};
use crate::target::LoadTarget;

/// After the measured time, a process receives until nothing has arrived for this long …
pub(crate) const QUIET: u64 = 3 * SECOND / 2;
/// … or until this time has passed.
const MAX_DRAIN: u64 = 10 * SECOND;
/// How long to wait for packets before the time is checked.
const POLL_TIMEOUT: Duration = Duration::from_millis(50);

/// The job of a receiving process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ReceiveJob {
    pub(crate) seed: KeySeed,
    /// The receivers in this process, in ascending order.
    pub(crate) receivers: Vec<u32>,
    pub(crate) routes: FlowRoutes,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    pub(crate) logins: LoginOrder,
    /// The acknowledgement sockets of the sending processes: flow `f` belongs to the one at `f` modulo their number.
    /// Empty if the senders need no acknowledgements.
    pub(crate) ack_sockets: Vec<PathBuf>,
}

/// The outcome of a [`ReceiveJob`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ReceiverOutcome {
    /// Packets that were due in the measured time and arrived at any time, without duplicates.
    pub(crate) received: u64,
    /// Packets that arrived in the measured time, whenever they were due.
    pub(crate) delivered: u64,
    /// The bytes of `delivered`.
    pub(crate) delivered_bytes: u64,
    /// `delivered`, by receiver.
    pub(crate) delivered_to: BTreeMap<u32, u64>,
    /// Damage over the whole run.
    pub(crate) damage: PacketDamage,
    /// The time from when a packet was due until it arrived, of `received`.
    pub(crate) latency: DurationHistogram,
    pub(crate) usage: ThreadUsage,
}

impl ReceiverOutcome {
    /// Adds the counts of another process, without those of each receiver and without its usage.
    pub(crate) fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.delivered += other.delivered;
        self.delivered_bytes += other.delivered_bytes;
        self.damage.add(&other.damage);
        self.latency.add(&other.latency);
    }
}

/// A receiver: its connection, and the flows that it receives.
pub(crate) struct ReceivingClient {
    id: u32,
    pub(crate) link: RelayLink,
    routes: FlowRoutes,
    flows: Vec<IncomingFlow>,
    delivered: u64,
}

struct IncomingFlow {
    from: NodePublic,
    sequence: PacketSequence,
}

/// Counts and checks the packets of all receivers in a process.
#[derive(Debug)]
pub(crate) struct ReceiveRecorder {
    timeline: Timeline,
    now: u64,
    pub(crate) all_received: u64,
    outcome: ReceiverOutcome,
}

/// Does a [`ReceiveJob`].
pub(crate) fn run(target: &LoadTarget, job: ReceiveJob, parent: &mut Parent) -> Result<ReceiverOutcome> {
    let poll = Poll::new()?;
    let mut clients = ReceivingClient::connect(target, &job.seed, job.routes, &job.receivers, job.logins)?;
    for (index, client) in clients.iter_mut().enumerate() {
        client.link.register(poll.registry(), Token(index))?;
    }
    parent.ready()?;
    let timeline = Timeline::new(parent.wait_to_proceed()?, job.warm_up, job.duration);
    let acks = (!job.ack_sockets.is_empty()).then(|| AckSender::new(job.ack_sockets)).transpose()?;
    receive(clients, timeline, poll, acks, parent)
}

fn receive(
    mut clients: Vec<ReceivingClient>,
    timeline: Timeline,
    mut poll: Poll,
    mut acks: Option<AckSender>,
    parent: &mut Parent,
) -> Result<ReceiverOutcome> {
    let mut buffers = LinkBuffers::new();
    let mut recorder = ReceiveRecorder::new(timeline);
    let mut events = Events::with_capacity(1024);
    let mut meter = UsageMeter::new(timeline.measure, timeline.end);
    let mut last_arrival = 0;
    loop {
        poll::wait(&mut poll, &mut events, POLL_TIMEOUT)?;
        let now = clock::now();
        meter.update(now)?;
        for event in events.iter().filter(|event| event.is_readable()) {
            let (client, before) = (&mut clients[event.token().0], recorder.all_received);
            client.drain(&mut buffers, &mut recorder)?;
            if recorder.all_received > before {
                last_arrival = recorder.now;
                if let Some(acks) = &mut acks {
                    client.acknowledge(acks);
                }
            }
        }
        if let Some(acks) = &mut acks {
            acks.flush();
        }
        parent.report(now, || recorder.progress(clients.len()))?;
        if now >= timeline.end + MAX_DRAIN || (now >= timeline.end + QUIET && now >= last_arrival + QUIET) {
            return Ok(recorder.finish(&clients, meter.usage()));
        }
    }
}

impl ReceivingClient {
    /// Logs in the receivers with these numbers.
    pub(crate) fn connect(
        target: &LoadTarget,
        seed: &KeySeed,
        routes: FlowRoutes,
        receivers: &[u32],
        logins: LoginOrder,
    ) -> Result<Vec<Self>> {
        open_files::allow_connections(receivers.len() as u64)?;
        let keys = receivers.iter().map(|id| seed.key(RECEIVER, *id)).collect();
        let links = connect::connect_all(target, keys, logins)?.into_iter().zip(receivers);
        let clients = links.map(|(link, &id)| {
            let from = routes.flows_to(id).map(|flow| seed.key(SENDER, flow).public());
            let flows = from.map(|from| IncomingFlow { from, sequence: PacketSequence::default() }).collect();
            Self { id, link, routes, flows, delivered: 0 }
        });
        Ok(clients.collect())
    }

    /// Reads until the socket is empty.
    pub(crate) fn drain(&mut self, buffers: &mut LinkBuffers, recorder: &mut ReceiveRecorder) -> Result<()> {
        let Self { id, link, routes, flows, delivered } = self;
        loop {
            recorder.now = clock::now();
            let read = link.read(buffers, |frame| {
                if let ServerFrame::RecvPacket { from, packet } = frame {
                    *delivered += u64::from(recorder.record(*routes, *id, flows, from, packet));
                }
            });
            match read.with_context(|| format!("receiver {id}"))? {
                LinkRead::More => {}
                LinkRead::Drained => return Ok(()),
                LinkRead::Closed => bail!("the relay closed the connection of receiver {id}"),
            }
        }
    }

    fn acknowledge(&self, acks: &mut AckSender) {
        for (id, flow) in self.routes.flows_to(self.id).zip(&self.flows) {
            acks.push(id, flow.sequence.next());
        }
    }
}

impl ReceiveRecorder {
    pub(crate) fn new(timeline: Timeline) -> Self {
        Self { timeline, now: 0, all_received: 0, outcome: ReceiverOutcome::default() }
    }

    /// Records a packet that `receiver` received. Returns whether it counts as delivered in the measured time.
    fn record(
        &mut self,
        routes: FlowRoutes,
        receiver: u32,
        flows: &mut [IncomingFlow],
        from: NodePublic,
        packet: &[u8],
    ) -> bool {
        self.all_received += 1;
        let ReceiverOutcome { received, delivered, delivered_bytes, damage, latency, .. } = &mut self.outcome;
        let Some(header) = packet::read(packet) else {
            damage.corrupted += 1;
            return false;
        };
        let flow = flows.get_mut(routes.index(header.flow));
        let Some(flow) = flow.filter(|flow| routes.receiver_of(header.flow) == receiver && flow.from == from)
        else {
            damage.misrouted += 1;
            return false;
        };
        let order = flow.sequence.record(header.number);
        damage.count(order);
        if order == PacketOrder::Duplicate {
            return false;
        }
        if self.timeline.measures(header.due) {
            *received += 1;
            latency.record(self.now.saturating_sub(header.due));
        }
        let in_time = self.timeline.measures(self.now);
        if in_time {
            *delivered += 1;
            *delivered_bytes += packet.len() as u64;
        }
        in_time
    }

    pub(crate) fn progress(&self, connections: usize) -> WorkerProgress {
        WorkerProgress {
            connections: connections as u64,
            received: self.all_received,
            damaged: self.outcome.damage.total(),
            ..Default::default()
        }
    }

    pub(crate) fn finish(mut self, clients: &[ReceivingClient], usage: ThreadUsage) -> ReceiverOutcome {
        self.outcome.usage = usage;
        self.outcome.delivered_to = clients.iter().map(|client| (client.id, client.delivered)).collect();
        self.outcome
    }
}
