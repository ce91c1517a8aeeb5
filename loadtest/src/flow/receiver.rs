//! The process that receives, and takes stock.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mio::{Events, Poll, Token};
use serde::{Deserialize, Serialize};
use towpath_wire::derp::frame::ServerFrame;
use towpath_wire::key::NodePublic;

use super::ack::AckSender;
use super::packet;
use super::schedule::{FlowRoutes, Timeline};
use super::sender::{RECEIVER, SENDER};
use super::sequence::{PacketDamage, PacketOrder, PacketSequence};
use crate::clock::{self, SECOND};
use crate::histogram::DurationHistogram;
use crate::host::open_files;
use crate::host::usage::{ThreadUsage, UsageMeter};
use crate::net::connect::{self, KeySeed, LoginOrder};
use crate::net::link::{LinkBuffers, LinkRead, RelayLink};
use crate::target::LoadTarget;
use crate::worker::Parent;
use crate::workers::{WorkerMessage, WorkerProgress};

/// After the end, a process receives until nothing has come for so long …
pub(crate) const QUIET: u64 = 3 * SECOND / 2;
/// … or until this is over.
const MAX_DRAIN: u64 = 10 * SECOND;
/// How often the time is looked at while nothing comes.
const PATIENCE: Duration = Duration::from_millis(50);

/// What a receiving process shall do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ReceiveJob {
    pub(crate) seed: KeySeed,
    /// The receivers of this process, in order.
    pub(crate) receivers: Vec<u32>,
    pub(crate) routes: FlowRoutes,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    pub(crate) logins: LoginOrder,
    /// Where the senders want acknowledgements: that of flow `f` at place `f` modulo their number.
    pub(crate) ack_sockets: Vec<PathBuf>,
}

/// What it received.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ReceiveOutcome {
    /// Packets that were due in the measured time and have come, at whatever time, each counted once.
    pub(crate) received: u64,
    /// Packets that came in the measured time, whenever they were due.
    pub(crate) delivered: u64,
    /// Their bytes.
    pub(crate) delivered_bytes: u64,
    /// Of `delivered`, those of each receiver.
    pub(crate) delivered_to: BTreeMap<u32, u64>,
    /// Over the whole run.
    pub(crate) damage: PacketDamage,
    /// From due to here, for `received`.
    pub(crate) latency: DurationHistogram,
    pub(crate) usage: ThreadUsage,
}

/// A connection that receives, with what has come of each of its flows.
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

/// What the packets of a process are entered into.
#[derive(Debug)]
pub(crate) struct ReceiveRecorder {
    timeline: Timeline,
    now: u64,
    pub(crate) all_received: u64,
    pub(crate) receipts: ReceiveOutcome,
}

/// Does `job`.
pub(crate) fn run(target: &LoadTarget, job: ReceiveJob, parent: &mut Parent) -> Result<ReceiveOutcome> {
    let poll = Poll::new()?;
    let mut clients = ReceivingClient::connect(target, &job.seed, job.routes, &job.receivers, job.logins)?;
    for (index, client) in clients.iter_mut().enumerate() {
        client.link.register(poll.registry(), Token(index))?;
    }
    parent.send(&WorkerMessage::Ready)?;
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
) -> Result<ReceiveOutcome> {
    let mut buffers = LinkBuffers::new();
    let mut recorder = ReceiveRecorder::new(timeline);
    let mut events = Events::with_capacity(1024);
    let mut meter = UsageMeter::new(timeline.measure, timeline.end);
    let mut last_came = 0;
    loop {
        match poll.poll(&mut events, Some(PATIENCE)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        let now = clock::now();
        meter.pass(now)?;
        for event in events.iter().filter(|event| event.is_readable()) {
            let (client, before) = (&mut clients[event.token().0], recorder.all_received);
            client.drain(&mut buffers, &mut recorder)?;
            if recorder.all_received > before {
                last_came = recorder.now;
                if let Some(acks) = &mut acks {
                    client.next_numbers(|flow, next| acks.note(flow, next));
                }
            }
        }
        if let Some(acks) = &mut acks {
            acks.send();
        }
        parent.report(now, || recorder.progress(clients.len()))?;
        if now >= timeline.end + MAX_DRAIN || (now >= timeline.end + QUIET && now >= last_came + QUIET) {
            return Ok(recorder.close(&clients, meter.usage()));
        }
    }
}

impl ReceivingClient {
    /// Logs in the receivers of these numbers.
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
            let from = routes.to(id).map(|flow| seed.key(SENDER, flow).public());
            let flows = from.map(|from| IncomingFlow { from, sequence: PacketSequence::default() }).collect();
            Self { id, link, routes, flows, delivered: 0 }
        });
        Ok(clients.collect())
    }

    /// Reads all there is.
    pub(crate) fn drain(&mut self, buffers: &mut LinkBuffers, recorder: &mut ReceiveRecorder) -> Result<()> {
        let Self { id, link, routes, flows, delivered } = self;
        loop {
            recorder.now = clock::now();
            let outcome = link.read(buffers, |frame| {
                if let ServerFrame::RecvPacket { from, packet } = frame {
                    *delivered += u64::from(recorder.enter(*routes, *id, flows, from, packet));
                }
            });
            match outcome.with_context(|| format!("the receiver {id}"))? {
                LinkRead::More => {}
                LinkRead::Drained => return Ok(()),
                LinkRead::Closed => bail!("the relay has closed on the receiver {id}"),
            }
        }
    }

    /// Each flow, and one more than the highest number that has come of it.
    fn next_numbers(&self, mut tell: impl FnMut(u32, u64)) {
        for (id, flow) in self.routes.to(self.id).zip(&self.flows) {
            tell(id, flow.sequence.next());
        }
    }
}

impl ReceiveRecorder {
    pub(crate) fn new(timeline: Timeline) -> Self {
        Self { timeline, now: 0, all_received: 0, receipts: ReceiveOutcome::default() }
    }

    /// Enters a packet that came to `receiver`; whether it was delivered in the measured time.
    fn enter(
        &mut self,
        routes: FlowRoutes,
        receiver: u32,
        flows: &mut [IncomingFlow],
        from: NodePublic,
        packet: &[u8],
    ) -> bool {
        self.all_received += 1;
        let ReceiveOutcome { received, delivered, delivered_bytes, damage, latency, .. } = &mut self.receipts;
        let Some(header) = packet::read(packet) else {
            damage.corrupted += 1;
            return false;
        };
        let flow = flows.get_mut(routes.place(header.flow));
        let Some(flow) = flow.filter(|flow| routes.receiver_of(header.flow) == receiver && flow.from == from)
        else {
            damage.misrouted += 1;
            return false;
        };
        match flow.sequence.note(header.number) {
            PacketOrder::Next => {}
            PacketOrder::Reordered => damage.reordered += 1,
            PacketOrder::Duplicate => {
                damage.duplicated += 1;
                return false;
            }
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
            damaged: self.receipts.damage.total(),
            ..Default::default()
        }
    }

    pub(crate) fn close(mut self, clients: &[ReceivingClient], usage: ThreadUsage) -> ReceiveOutcome {
        self.receipts.usage = usage;
        self.receipts.delivered_to = clients.iter().map(|client| (client.id, client.delivered)).collect();
        self.receipts
    }
}
