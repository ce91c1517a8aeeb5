//! The process that sends: an open loop by a schedule, as much as the relay takes, or within a window.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use mio::{Events, Poll, Token};
use serde::{Deserialize, Serialize};
use towpath_wire::derp::frame::{ClientFrame, ServerFrame};
use towpath_wire::key::NodePublic;

use super::ack::AckReceiver;
use super::packet::{PacketBuilder, PacketHeader, PacketSizes};
use super::schedule::{FlowRoutes, Schedule, Timeline};
use crate::clock;
use crate::histogram::DurationHistogram;
use crate::host::open_files;
use crate::host::usage::{ThreadUsage, UsageMeter};
use crate::net::connect::{self, KeySeed, LoginOrder};
use crate::net::link::{LinkBuffers, LinkRead, RelayLink};
use crate::target::LoadTarget;
use crate::worker::Parent;
use crate::workers::{WorkerMessage, WorkerProgress};

/// Roles that keys are made for.
pub(crate) const SENDER: &str = "sender";
pub(crate) const RECEIVER: &str = "receiver";

/// What is sealed and written together at most.
const RUN_LEN: usize = 64 * 1024;
/// How often the poll is asked while packets are due, and how soon it is asked when a socket is full.
const POLL_EVERY: u64 = 1_000_000;
const POLL_BLOCKED: u64 = 100_000;
/// How late what was due just before the end is still sent. It would look as if the relay had not taken it.
const GRACE: u64 = 2_000_000;
/// How long a process goes on trying to send what was due when nothing more is.
const LAST_WORDS: u64 = clock::SECOND;
/// A window that stays full for so long has lost packets in it; it starts anew.
const WINDOW_STALL: u64 = clock::SECOND / 5;

const ACKNOWLEDGEMENTS: Token = Token(usize::MAX);

/// How fast packets are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pace {
    /// So many a second of all flows together, whatever the relay does.
    Rate(u64),
    /// As many as the sockets take.
    FlatOut,
    /// So many of each flow on their way at a time.
    Window(u32),
}

/// What a sending process shall do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SendJob {
    pub(crate) seed: KeySeed,
    /// The flows of this process, in order.
    pub(crate) flows: Vec<u32>,
    pub(crate) routes: FlowRoutes,
    pub(crate) sizes: PacketSizes,
    pub(crate) batch: u32,
    pub(crate) pace: Pace,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    pub(crate) logins: LoginOrder,
    /// Where acknowledgements come.
    pub(crate) ack_socket: Option<PathBuf>,
}

/// What it did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SendOutcome {
    /// Packets that were due in the measured time.
    pub(crate) offered: u64,
    /// Those of them that were written to a socket.
    pub(crate) sent: u64,
    /// Windows that had to be started anew.
    pub(crate) stalls: u64,
    /// PeerGone frames.
    pub(crate) peers_gone: u64,
    /// How much later than due packets were written though their socket was free.
    pub(crate) late: DurationHistogram,
    pub(crate) usage: ThreadUsage,
}

struct OutgoingFlow {
    id: u32,
    to: NodePublic,
    link: RelayLink,
    /// The next packet.
    number: u64,
    /// The next batch by the schedule.
    next_batch: u64,
    /// Batches that have become due.
    batches_due: u64,
    acknowledged: u64,
    acknowledged_at: u64,
}

/// Whose turn it is: the flows of a process have one batch each in a round.
#[derive(Clone, Copy, Default)]
struct FlowCursor {
    round: u64,
    turn: usize,
}

impl FlowCursor {
    const fn advance(&mut self, flows: usize) {
        self.turn += 1;
        if self.turn == flows {
            (self.round, self.turn) = (self.round + 1, 0);
        }
    }
}

struct FlowSender<'a> {
    job: &'a SendJob,
    timeline: Timeline,
    flows: Vec<OutgoingFlow>,
    ack_socket: Option<AckReceiver>,
    buffers: LinkBuffers,
    builder: PacketBuilder,
    all_sent: u64,
    did: SendOutcome,
}

/// Does `job`.
pub(crate) fn run(target: &LoadTarget, job: SendJob, parent: &mut Parent) -> Result<SendOutcome> {
    open_files::allow_connections(job.flows.len() as u64)?;
    let mut poll = Poll::new()?;
    let ack_socket = match &job.ack_socket {
        Some(path) => Some(AckReceiver::open(path, poll.registry(), ACKNOWLEDGEMENTS)?),
        None => None,
    };
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
            next_batch: 0,
            batches_due: 0,
            acknowledged: 0,
            acknowledged_at: 0,
        });
    }
    parent.send(&WorkerMessage::Ready)?;
    let begin = parent.wait_to_proceed()?;
    let timeline = Timeline::new(begin, job.warm_up, job.duration);
    for flow in &mut flows {
        flow.acknowledged_at = begin;
    }
    let mut sender = FlowSender {
        job: &job,
        timeline,
        flows,
        ack_socket,
        buffers: LinkBuffers::new(),
        builder: PacketBuilder::new(),
        all_sent: 0,
        did: SendOutcome::default(),
    };
    clock::sleep_until(begin);
    match job.pace {
        Pace::Rate(rate) => sender.run_by_schedule(rate, &mut poll, parent)?,
        Pace::FlatOut => sender.run_as_it_fits(u64::MAX, &mut poll, parent)?,
        Pace::Window(window) => sender.run_as_it_fits(window.into(), &mut poll, parent)?,
    }
    Ok(sender.did)
}

impl FlowSender<'_> {
    fn run_by_schedule(&mut self, rate: u64, poll: &mut Poll, parent: &mut Parent) -> Result<()> {
        let schedule = Schedule {
            begin: self.timeline.begin,
            rate,
            batch: self.job.batch,
            flows: self.job.routes.flows,
        };
        let mut meter = UsageMeter::new(self.timeline.measure, self.timeline.end);
        let mut events = Events::with_capacity(1024);
        let mut cursor = FlowCursor::default();
        let mut poll_at = 0;
        loop {
            let now = clock::now();
            meter.pass(now)?;
            let due = schedule.due(self.flows[cursor.turn].id, cursor.round);
            if now >= self.timeline.end && (due >= self.timeline.end || now >= self.timeline.end + GRACE) {
                break;
            }
            if now >= poll_at {
                self.poll(poll, &mut events, Duration::ZERO, Some(&schedule))?;
                self.report(now, parent)?;
                poll_at = now + if self.any_blocked() { POLL_BLOCKED } else { POLL_EVERY };
            }
            if due > now {
                clock::sleep_until(due.min(poll_at).min(self.timeline.end));
                continue;
            }
            self.take_turn(cursor.turn, due, &schedule)?;
            if self.flows[cursor.turn].link.is_blocked() {
                poll_at = poll_at.min(now + POLL_BLOCKED);
            }
            cursor.advance(self.flows.len());
        }
        self.count_missed(cursor, &schedule);
        self.did.usage = meter.usage();
        let give_up = self.timeline.end + LAST_WORDS;
        while clock::now() < give_up && self.any_blocked() {
            self.poll(poll, &mut events, Duration::from_millis(10), Some(&schedule))?;
        }
        Ok(())
    }

    /// What was due and had no turn, because this process is too slow.
    fn count_missed(&mut self, mut cursor: FlowCursor, schedule: &Schedule) {
        loop {
            let due = schedule.due(self.flows[cursor.turn].id, cursor.round);
            if due >= self.timeline.end {
                return;
            }
            if self.timeline.measures(due) {
                self.did.offered += u64::from(self.job.batch);
                self.did.late.record(self.timeline.end - due);
            }
            cursor.advance(self.flows.len());
        }
    }

    fn any_blocked(&self) -> bool {
        self.flows.iter().any(|flow| flow.link.is_blocked())
    }

    /// A batch of this flow has become due.
    fn take_turn(&mut self, turn: usize, due: u64, schedule: &Schedule) -> Result<()> {
        let flow = &mut self.flows[turn];
        flow.batches_due += 1;
        if self.timeline.measures(due) {
            self.did.offered += u64::from(self.job.batch);
        }
        if flow.link.is_blocked() {
            return Ok(());
        }
        if self.timeline.measures(due) {
            self.did.late.record(clock::now().saturating_sub(due));
        }
        self.catch_up(turn, schedule)
    }

    /// Sends what is due of a flow, as far as its socket takes it.
    fn catch_up(&mut self, turn: usize, schedule: &Schedule) -> Result<()> {
        loop {
            let flow = &self.flows[turn];
            if flow.link.is_blocked() || flow.next_batch == flow.batches_due {
                return Ok(());
            }
            while self.flows[turn].next_batch < self.flows[turn].batches_due
                && self.buffers.frames.len() < RUN_LEN
            {
                let flow = &mut self.flows[turn];
                let due = schedule.due(flow.id, flow.next_batch);
                flow.next_batch += 1;
                self.build_batch(turn, due, self.job.batch.into());
            }
            self.flows[turn].link.send(&mut self.buffers)?;
        }
    }

    /// Sends batches to each flow in turn, as long as its socket takes them and its window has room.
    fn run_as_it_fits(&mut self, window: u64, poll: &mut Poll, parent: &mut Parent) -> Result<()> {
        let mut meter = UsageMeter::new(self.timeline.measure, self.timeline.end);
        let mut events = Events::with_capacity(1024);
        loop {
            let now = clock::now();
            meter.pass(now)?;
            if now >= self.timeline.end {
                break;
            }
            let mut sent = false;
            for turn in 0..self.flows.len() {
                let flow = &mut self.flows[turn];
                if flow.number - flow.acknowledged >= window && now >= flow.acknowledged_at + WINDOW_STALL {
                    self.did.stalls += 1;
                    (flow.acknowledged, flow.acknowledged_at) = (flow.number, now);
                }
                let room = window - (flow.number - flow.acknowledged).min(window);
                let packets = room.min(self.job.batch.into());
                if packets == 0 || flow.link.is_blocked() {
                    continue;
                }
                let now = clock::now();
                if self.timeline.measures(now) {
                    self.did.offered += packets;
                }
                self.build_batch(turn, now, packets);
                self.flows[turn].link.send(&mut self.buffers)?;
                sent = true;
            }
            let patience = if sent { Duration::ZERO } else { Duration::from_millis(10) };
            self.poll(poll, &mut events, patience, None)?;
            self.report(now, parent)?;
        }
        self.did.usage = meter.usage();
        let give_up = self.timeline.end + LAST_WORDS;
        while clock::now() < give_up && self.any_blocked() {
            self.poll(poll, &mut events, Duration::from_millis(10), None)?;
        }
        Ok(())
    }

    fn build_batch(&mut self, turn: usize, due: u64, packets: u64) {
        let flow = &mut self.flows[turn];
        for number in flow.number..flow.number + packets {
            let header = PacketHeader { flow: flow.id, number, due };
            let packet = self.builder.build(&header, self.job.sizes.of(number));
            let frame = ClientFrame::SendPacket { to: flow.to, packet };
            flow.link.protocol().encode(&frame, &mut self.buffers.frames);
        }
        flow.number += packets;
        self.all_sent += packets;
        if self.timeline.measures(due) {
            self.did.sent += packets;
        }
    }

    fn poll(
        &mut self,
        poll: &mut Poll,
        events: &mut Events,
        patience: Duration,
        schedule: Option<&Schedule>,
    ) -> Result<()> {
        match poll.poll(events, Some(patience)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in events.iter() {
            if event.token() == ACKNOWLEDGEMENTS {
                self.take_acknowledgements()?;
                continue;
            }
            let turn = event.token().0;
            if event.is_readable() {
                self.read(turn)?;
            }
            if event.is_writable() && self.flows[turn].link.is_blocked() {
                self.flows[turn].link.flush()?;
                if let Some(schedule) = schedule {
                    self.catch_up(turn, schedule)?;
                }
            }
        }
        Ok(())
    }

    /// Nothing is sent to senders but what the relay says itself.
    fn read(&mut self, turn: usize) -> Result<()> {
        let flow = &mut self.flows[turn];
        let gone = &mut self.did.peers_gone;
        loop {
            let outcome = flow.link.read(&mut self.buffers, |frame| {
                *gone += u64::from(matches!(frame, ServerFrame::PeerGone { .. }));
            });
            match outcome.with_context(|| format!("the sender of flow {}", flow.id))? {
                LinkRead::More => {}
                LinkRead::Drained => return Ok(()),
                LinkRead::Closed => {
                    anyhow::bail!("the relay has closed on the sender of flow {}", flow.id)
                }
            }
        }
    }

    fn take_acknowledgements(&mut self) -> Result<()> {
        let (Some(ack_socket), now) = (&self.ack_socket, clock::now()) else { return Ok(()) };
        let flows = &mut self.flows;
        ack_socket.take(|id, next| {
            if let Ok(turn) = flows.binary_search_by_key(&id, |flow| flow.id) {
                flows[turn].acknowledged = flows[turn].acknowledged.max(next);
                flows[turn].acknowledged_at = now;
            }
        })
    }

    fn report(&self, now: u64, parent: &mut Parent) -> Result<()> {
        let connections = self.flows.len() as u64;
        parent.report(now, || WorkerProgress { connections, sent: self.all_sent, ..Default::default() })
    }
}
