//! The worker process that sends flows: at a rate in an open loop, as fast as the relay takes packets, or within a
//! window.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mio::{Events, Poll, Token};
use serde::{Deserialize, Serialize};
use towpath_wire::derp::frame::{ClientFrame, ServerFrame};
use towpath_wire::key::NodePublic;

use crate::clock;
use crate::flow::ack::AckReceiver;
use crate::flow::arrivals::{Arrivals, DueBatches, FlowArrivals};
use crate::flow::packet::{PacketBuilder, PacketHeader, PacketSizes};
use crate::flow::schedule::{FlowRoutes, Schedule, Timeline};
use crate::histogram::DurationHistogram;
use crate::host::open_files;
use crate::host::usage::{ThreadUsage, UsageMeter};
use crate::net::connect::{self, KeySeed, LoginOrder, RECEIVER, SENDER};
use crate::net::link::{LinkBuffers, LinkRead, RelayLink};
use crate::net::poll;
use crate::process::{Parent, WorkerProgress};
use crate::target::LoadTarget;

/// The bytes of frames that are sealed and written together at most.
const RUN_LEN: usize = 64 * 1024;
/// How often sockets are polled while packets are due …
const POLL_INTERVAL: u64 = 1_000_000;
/// … and while a socket is full.
const POLL_INTERVAL_BLOCKED: u64 = 100_000;
/// How long after the measured time its last packets are still sent. Dropping them would look as if the relay had not
/// taken them.
const GRACE: u64 = 2_000_000;
/// How long after the measured time a full socket is still written to.
const MAX_FLUSH: u64 = clock::SECOND;
/// A window that stays full for this long has lost packets, and is reset.
const WINDOW_STALL: u64 = clock::SECOND / 5;
/// How long a sender without a schedule waits for room.
const POLL_TIMEOUT: Duration = Duration::from_millis(10);

const ACKNOWLEDGEMENTS: Token = Token(usize::MAX);

/// How fast packets are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Pace {
    /// This many packets a second, of all flows together, whatever the relay does.
    Rate { rate: u64, arrivals: Arrivals },
    /// As many packets as the sockets take.
    FlatOut,
    /// At most this many unacknowledged packets of each flow.
    Window(u32),
}

/// The job of a sending process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SendJob {
    pub(crate) seed: KeySeed,
    /// The flows of this process, in ascending order.
    pub(crate) flows: Vec<u32>,
    pub(crate) routes: FlowRoutes,
    pub(crate) sizes: PacketSizes,
    /// Packets that are due, sealed and written together.
    pub(crate) batch: u32,
    pub(crate) pace: Pace,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    pub(crate) logins: LoginOrder,
    /// The path of this process's acknowledgement socket, if it needs acknowledgements.
    pub(crate) ack_socket: Option<PathBuf>,
}

/// The outcome of a [`SendJob`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SenderOutcome {
    /// Packets that were due in the measured time.
    pub(crate) offered: u64,
    /// Packets of `offered` that were written to a socket.
    pub(crate) sent: u64,
    /// Windows that were reset.
    pub(crate) stalls: u64,
    /// PeerGone frames.
    pub(crate) peers_gone: u64,
    /// The time from when packets were due until they were written, if their socket had room.
    pub(crate) late: DurationHistogram,
    pub(crate) usage: ThreadUsage,
}

impl SenderOutcome {
    /// Adds the counts of another process, without its usage.
    pub(crate) fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.sent += other.sent;
        self.stalls += other.stalls;
        self.peers_gone += other.peers_gone;
        self.late.add(&other.late);
    }
}

struct OutgoingFlow {
    id: u32,
    to: NodePublic,
    link: RelayLink,
    /// The number of the next packet.
    number: u64,
    /// How many batches are due and not sent, in an open loop.
    batches_due: u64,
    /// How many packets the receiver has acknowledged, and when.
    acknowledged: u64,
    acknowledged_at: u64,
}

struct FlowSender<'a> {
    job: &'a SendJob,
    timeline: Timeline,
    flows: Vec<OutgoingFlow>,
    /// For each flow, when the batches are due that are not sent. Empty in a closed loop.
    unsent: Vec<FlowArrivals>,
    ack_socket: Option<AckReceiver>,
    buffers: LinkBuffers,
    builder: PacketBuilder,
    /// All packets of the run.
    all_sent: u64,
    outcome: SenderOutcome,
}

/// Does a [`SendJob`].
pub(crate) fn run(target: &LoadTarget, job: SendJob, parent: &mut Parent) -> Result<SenderOutcome> {
    open_files::allow_connections(job.flows.len() as u64)?;
    let mut poll = Poll::new()?;
    let ack_socket = match &job.ack_socket {
        Some(path) => Some(AckReceiver::bind(path, poll.registry(), ACKNOWLEDGEMENTS)?),
        None => None,
    };
    let mut flows = connect(target, &job, &poll)?;
    parent.ready()?;
    let begin = parent.wait_to_proceed()?;
    for flow in &mut flows {
        flow.acknowledged_at = begin;
    }
    let mut sender = FlowSender {
        job: &job,
        timeline: Timeline::new(begin, job.warm_up, job.duration),
        flows,
        unsent: Vec::new(),
        ack_socket,
        buffers: LinkBuffers::new(),
        builder: PacketBuilder::new(),
        all_sent: 0,
        outcome: SenderOutcome::default(),
    };
    clock::sleep_until(begin);
    match job.pace {
        Pace::Rate { rate, arrivals } => sender.run_open_loop(rate, arrivals, &mut poll, parent)?,
        Pace::FlatOut => sender.run_closed_loop(u64::MAX, &mut poll, parent)?,
        Pace::Window(window) => sender.run_closed_loop(window.into(), &mut poll, parent)?,
    }
    Ok(sender.outcome)
}

/// Logs in the senders of the job's flows.
fn connect(target: &LoadTarget, job: &SendJob, poll: &Poll) -> Result<Vec<OutgoingFlow>> {
    let keys = job.flows.iter().map(|flow| job.seed.key(SENDER, *flow)).collect();
    let mut flows = Vec::with_capacity(job.flows.len());
    for (mut link, &id) in connect::connect_all(target, keys, job.logins)?.into_iter().zip(&job.flows) {
        link.register(poll.registry(), Token(flows.len()))?;
        let to = job.seed.key(RECEIVER, job.routes.receiver_of(id)).public();
        flows.push(OutgoingFlow {
            id,
            to,
            link,
            number: 0,
            batches_due: 0,
            acknowledged: 0,
            acknowledged_at: 0,
        });
    }
    Ok(flows)
}

impl FlowSender<'_> {
    fn run_open_loop(
        &mut self,
        rate: u64,
        arrivals: Arrivals,
        poll: &mut Poll,
        parent: &mut Parent,
    ) -> Result<()> {
        let SendJob { batch, routes, flows, .. } = self.job;
        let schedule = Schedule { begin: self.timeline.begin, rate, batch: *batch, flows: routes.flows };
        self.unsent = flows.iter().map(|flow| FlowArrivals::new(arrivals, schedule, *flow)).collect();
        let mut batches = DueBatches::new(arrivals, schedule, flows);
        let mut meter = UsageMeter::new(self.timeline.measure, self.timeline.end);
        let mut events = Events::with_capacity(1024);
        let mut poll_at = 0;
        loop {
            let now = clock::now();
            meter.update(now)?;
            let (due, index) = batches.next();
            if now >= self.timeline.end && (due >= self.timeline.end || now >= self.timeline.end + GRACE) {
                break;
            }
            if now >= poll_at {
                self.poll(poll, &mut events, Duration::ZERO)?;
                self.report(now, parent)?;
                poll_at = now + if self.any_blocked() { POLL_INTERVAL_BLOCKED } else { POLL_INTERVAL };
            }
            if due > now {
                clock::sleep_until(due.min(poll_at).min(self.timeline.end));
                continue;
            }
            self.offer_batch(index, due)?;
            if self.flows[index].link.is_blocked() {
                poll_at = poll_at.min(now + POLL_INTERVAL_BLOCKED);
            }
            batches.advance();
        }
        self.count_missed(batches);
        self.outcome.usage = meter.usage();
        self.flush(poll, &mut events)
    }

    /// Counts the batches that were due and had no turn because this process is too slow.
    fn count_missed(&mut self, mut batches: DueBatches) {
        loop {
            let (due, _) = batches.next();
            if due >= self.timeline.end {
                return;
            }
            if self.timeline.measures(due) {
                self.outcome.offered += u64::from(self.job.batch);
                self.outcome.late.record(self.timeline.end - due);
            }
            batches.advance();
        }
    }

    /// Offers the batch of a flow that has become due, and sends it if the socket has room.
    fn offer_batch(&mut self, index: usize, due: u64) -> Result<()> {
        let flow = &mut self.flows[index];
        flow.batches_due += 1;
        if self.timeline.measures(due) {
            self.outcome.offered += u64::from(self.job.batch);
        }
        if flow.link.is_blocked() {
            return Ok(());
        }
        if self.timeline.measures(due) {
            self.outcome.late.record(clock::now().saturating_sub(due));
        }
        self.send_due(index)
    }

    /// Sends the batches of a flow that are due, as far as its socket has room.
    fn send_due(&mut self, index: usize) -> Result<()> {
        loop {
            let flow = &self.flows[index];
            if flow.link.is_blocked() || flow.batches_due == 0 {
                return Ok(());
            }
            while self.flows[index].batches_due > 0 && self.buffers.frames.len() < RUN_LEN {
                self.flows[index].batches_due -= 1;
                let due = self.unsent[index].next();
                self.build_batch(index, due, self.job.batch.into());
            }
            self.flows[index].link.send(&mut self.buffers)?;
        }
    }

    /// Sends batches of each flow in turn, as long as its socket and its window have room.
    fn run_closed_loop(&mut self, window: u64, poll: &mut Poll, parent: &mut Parent) -> Result<()> {
        let mut meter = UsageMeter::new(self.timeline.measure, self.timeline.end);
        let mut events = Events::with_capacity(1024);
        loop {
            let now = clock::now();
            meter.update(now)?;
            if now >= self.timeline.end {
                break;
            }
            let mut sent = false;
            for index in 0..self.flows.len() {
                sent |= self.send_within(window, index, now)?;
            }
            let timeout = if sent { Duration::ZERO } else { POLL_TIMEOUT };
            self.poll(poll, &mut events, timeout)?;
            self.report(now, parent)?;
        }
        self.outcome.usage = meter.usage();
        self.flush(poll, &mut events)
    }

    /// Sends a batch of a flow, or as much of it as the window has room for. Returns whether it sent anything.
    fn send_within(&mut self, window: u64, index: usize, now: u64) -> Result<bool> {
        let flow = &mut self.flows[index];
        if flow.number - flow.acknowledged >= window && now >= flow.acknowledged_at + WINDOW_STALL {
            self.outcome.stalls += 1;
            (flow.acknowledged, flow.acknowledged_at) = (flow.number, now);
        }
        let room = window - (flow.number - flow.acknowledged).min(window);
        let packets = room.min(self.job.batch.into());
        if packets == 0 || flow.link.is_blocked() {
            return Ok(false);
        }
        let now = clock::now();
        if self.timeline.measures(now) {
            self.outcome.offered += packets;
        }
        self.build_batch(index, now, packets);
        self.flows[index].link.send(&mut self.buffers)?;
        Ok(true)
    }

    fn build_batch(&mut self, index: usize, due: u64, packets: u64) {
        let flow = &mut self.flows[index];
        for number in flow.number..flow.number + packets {
            let header = PacketHeader { flow: flow.id, number, due };
            let packet = self.builder.build(&header, self.job.sizes.of(number));
            let frame = ClientFrame::SendPacket { to: flow.to, packet };
            flow.link.protocol().encode(&frame, &mut self.buffers.frames);
        }
        flow.number += packets;
        self.all_sent += packets;
        if self.timeline.measures(due) {
            self.outcome.sent += packets;
        }
    }

    /// After the measured time, writes what full sockets have not taken.
    fn flush(&mut self, poll: &mut Poll, events: &mut Events) -> Result<()> {
        let give_up = self.timeline.end + MAX_FLUSH;
        while clock::now() < give_up && self.any_blocked() {
            self.poll(poll, events, POLL_TIMEOUT)?;
        }
        Ok(())
    }

    fn any_blocked(&self) -> bool {
        self.flows.iter().any(|flow| flow.link.is_blocked())
    }

    /// Waits for the sockets, and reads and writes those that are ready.
    fn poll(&mut self, poll: &mut Poll, events: &mut Events, timeout: Duration) -> Result<()> {
        poll::wait(poll, events, timeout)?;
        for event in events.iter() {
            if event.token() == ACKNOWLEDGEMENTS {
                self.read_acknowledgements()?;
                continue;
            }
            let index = event.token().0;
            if event.is_readable() {
                self.read(index)?;
            }
            if event.is_writable() && self.flows[index].link.is_blocked() {
                self.flows[index].link.flush()?;
                self.send_due(index)?;
            }
        }
        Ok(())
    }

    /// Reads the frames of the relay itself. No client sends packets to a sender.
    fn read(&mut self, index: usize) -> Result<()> {
        let flow = &mut self.flows[index];
        let gone = &mut self.outcome.peers_gone;
        loop {
            let read = flow.link.read(&mut self.buffers, |frame| {
                *gone += u64::from(matches!(frame, ServerFrame::PeerGone { .. }));
            });
            match read.with_context(|| format!("sender of flow {}", flow.id))? {
                LinkRead::More => {}
                LinkRead::Drained => return Ok(()),
                LinkRead::Closed => {
                    bail!("the relay closed the connection of the sender of flow {}", flow.id)
                }
            }
        }
    }

    fn read_acknowledgements(&mut self) -> Result<()> {
        let (Some(ack_socket), now) = (&self.ack_socket, clock::now()) else { return Ok(()) };
        let flows = &mut self.flows;
        ack_socket.drain(|id, next| {
            if let Ok(index) = flows.binary_search_by_key(&id, |flow| flow.id) {
                flows[index].acknowledged = flows[index].acknowledged.max(next);
                flows[index].acknowledged_at = now;
            }
        })
    }

    fn report(&self, now: u64, parent: &mut Parent) -> Result<()> {
        let connections = self.flows.len() as u64;
        parent.report(now, || WorkerProgress { connections, sent: self.all_sent, ..Default::default() })
    }
}
