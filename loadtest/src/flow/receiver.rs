//! The process that receives, and takes stock.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mio::{Events, Poll, Token};
use serde::{Deserialize, Serialize};
use towpath_wire::derp::frame::ServerFrame;
use towpath_wire::key::NodePublic;

use super::ack::Post;
use super::packet;
use super::schedule::{Routes, Timeline};
use super::sender::{RECEIVER, SENDER};
use super::tally::{Damage, Place, Sequence};
use crate::clock::{self, SECOND};
use crate::histogram::Durations;
use crate::host::open_files;
use crate::host::usage::{Stopwatch, Usage};
use crate::net::connect::{self, Logins, Seed};
use crate::net::link::{Link, ReadOutcome, Scratch};
use crate::target::Target;
use crate::worker::Desk;
use crate::workers::{Message, Progress};

/// After the end, a process receives until nothing has come for so long …
pub(crate) const QUIET: u64 = 3 * SECOND / 2;
/// … or until this is over.
const MAX_DRAIN: u64 = 10 * SECOND;
/// How often the time is looked at while nothing comes.
const PATIENCE: Duration = Duration::from_millis(50);

/// What a receiving process shall do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ReceiveJob {
    pub(crate) seed: Seed,
    /// The receivers of this process, in order.
    pub(crate) receivers: Vec<u32>,
    pub(crate) routes: Routes,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    pub(crate) logins: Logins,
    /// Where the senders want acknowledgements: that of flow `f` at place `f` modulo their number.
    pub(crate) mailboxes: Vec<PathBuf>,
}

/// What it received.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Receipts {
    /// Packets that were due in the measured time and have come, at whatever time, each counted once.
    pub(crate) received: u64,
    /// Packets that came in the measured time, whenever they were due.
    pub(crate) delivered: u64,
    /// Their bytes.
    pub(crate) delivered_bytes: u64,
    /// Of `delivered`, those of each receiver.
    pub(crate) delivered_to: BTreeMap<u32, u64>,
    /// Over the whole run.
    pub(crate) damage: Damage,
    /// From due to here, for `received`.
    pub(crate) latency: Durations,
    pub(crate) usage: Usage,
}

/// A connection that receives, with what has come of each of its flows.
pub(crate) struct Inbox {
    id: u32,
    pub(crate) link: Link,
    routes: Routes,
    flows: Vec<Flow>,
    delivered: u64,
}

struct Flow {
    from: NodePublic,
    sequence: Sequence,
}

/// What the packets of a process are entered into.
#[derive(Debug)]
pub(crate) struct Ledger {
    timeline: Timeline,
    now: u64,
    pub(crate) all_received: u64,
    pub(crate) receipts: Receipts,
}

/// Does `job`.
pub(crate) fn run(target: &Target, job: ReceiveJob, desk: &mut Desk) -> Result<Receipts> {
    let poll = Poll::new()?;
    let mut inboxes = Inbox::connect(target, &job.seed, job.routes, &job.receivers, job.logins)?;
    for (index, inbox) in inboxes.iter_mut().enumerate() {
        inbox.link.register(poll.registry(), Token(index))?;
    }
    desk.say(&Message::Ready)?;
    let timeline = Timeline::new(desk.wait_for_go()?, job.warm_up, job.duration);
    let post = (!job.mailboxes.is_empty()).then(|| Post::new(job.mailboxes)).transpose()?;
    receive(inboxes, timeline, poll, post, desk)
}

fn receive(
    mut inboxes: Vec<Inbox>,
    timeline: Timeline,
    mut poll: Poll,
    mut post: Option<Post>,
    desk: &mut Desk,
) -> Result<Receipts> {
    let mut scratch = Scratch::new();
    let mut ledger = Ledger::new(timeline);
    let mut events = Events::with_capacity(1024);
    let mut stopwatch = Stopwatch::new(timeline.measure, timeline.end);
    let mut last_came = 0;
    loop {
        match poll.poll(&mut events, Some(PATIENCE)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        let now = clock::now();
        stopwatch.pass(now)?;
        for event in events.iter().filter(|event| event.is_readable()) {
            let (inbox, before) = (&mut inboxes[event.token().0], ledger.all_received);
            inbox.drain(&mut scratch, &mut ledger)?;
            if ledger.all_received > before {
                last_came = ledger.now;
                if let Some(post) = &mut post {
                    inbox.next_numbers(|flow, next| post.note(flow, next));
                }
            }
        }
        if let Some(post) = &mut post {
            post.send();
        }
        desk.report(now, || ledger.progress(inboxes.len()))?;
        if now >= timeline.end + MAX_DRAIN || (now >= timeline.end + QUIET && now >= last_came + QUIET) {
            return Ok(ledger.close(&inboxes, stopwatch.usage()));
        }
    }
}

impl Inbox {
    /// Logs in the receivers of these numbers.
    pub(crate) fn connect(
        target: &Target,
        seed: &Seed,
        routes: Routes,
        receivers: &[u32],
        logins: Logins,
    ) -> Result<Vec<Self>> {
        open_files::allow_connections(receivers.len() as u64)?;
        let keys = receivers.iter().map(|id| seed.key(RECEIVER, *id)).collect();
        let links = connect::connect_all(target, keys, logins)?.into_iter().zip(receivers);
        let inboxes = links.map(|(link, &id)| {
            let from = routes.to(id).map(|flow| seed.key(SENDER, flow).public());
            let flows = from.map(|from| Flow { from, sequence: Sequence::default() }).collect();
            Self { id, link, routes, flows, delivered: 0 }
        });
        Ok(inboxes.collect())
    }

    /// Reads all there is.
    pub(crate) fn drain(&mut self, scratch: &mut Scratch, ledger: &mut Ledger) -> Result<()> {
        let Self { id, link, routes, flows, delivered } = self;
        loop {
            ledger.now = clock::now();
            let outcome = link.read(scratch, |frame| {
                if let ServerFrame::RecvPacket { from, packet } = frame {
                    *delivered += u64::from(ledger.enter(*routes, *id, flows, from, packet));
                }
            });
            match outcome.with_context(|| format!("the receiver {id}"))? {
                ReadOutcome::More => {}
                ReadOutcome::Drained => return Ok(()),
                ReadOutcome::Closed => bail!("the relay has closed on the receiver {id}"),
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

impl Ledger {
    pub(crate) fn new(timeline: Timeline) -> Self {
        Self { timeline, now: 0, all_received: 0, receipts: Receipts::default() }
    }

    /// Enters a packet that came to `receiver`; whether it was delivered in the measured time.
    fn enter(
        &mut self,
        routes: Routes,
        receiver: u32,
        flows: &mut [Flow],
        from: NodePublic,
        packet: &[u8],
    ) -> bool {
        self.all_received += 1;
        let Receipts { received, delivered, delivered_bytes, damage, latency, .. } = &mut self.receipts;
        let Some(label) = packet::read(packet) else {
            damage.corrupted += 1;
            return false;
        };
        let flow = flows.get_mut(routes.place(label.flow));
        let Some(flow) = flow.filter(|flow| routes.receiver_of(label.flow) == receiver && flow.from == from)
        else {
            damage.misrouted += 1;
            return false;
        };
        match flow.sequence.note(label.number) {
            Place::Next => {}
            Place::Reordered => damage.reordered += 1,
            Place::Duplicate => {
                damage.duplicated += 1;
                return false;
            }
        }
        if self.timeline.measures(label.due) {
            *received += 1;
            latency.record(self.now.saturating_sub(label.due));
        }
        let in_time = self.timeline.measures(self.now);
        if in_time {
            *delivered += 1;
            *delivered_bytes += packet.len() as u64;
        }
        in_time
    }

    pub(crate) fn progress(&self, connections: usize) -> Progress {
        Progress {
            connections: connections as u64,
            received: self.all_received,
            damaged: self.receipts.damage.total(),
            ..Default::default()
        }
    }

    pub(crate) fn close(mut self, inboxes: &[Inbox], usage: Usage) -> Receipts {
        self.receipts.usage = usage;
        self.receipts.delivered_to = inboxes.iter().map(|inbox| (inbox.id, inbox.delivered)).collect();
        self.receipts
    }
}
