//! The process that receives, and takes stock.

use std::collections::HashMap;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mio::{Events, Poll, Token};
use serde::{Deserialize, Serialize};
use wire::derp::frame::ServerFrame;
use wire::key::NodePublic;

use super::packet;
use super::schedule::Timeline;
use super::sender::{RECEIVER, SENDER};
use super::tally::{Damage, Place, Sequence};
use crate::clock::{self, SECOND};
use crate::connect::{self, Seed};
use crate::crew::{Message, Progress};
use crate::histogram::Durations;
use crate::link::{Link, ReadOutcome, Scratch};
use crate::machine::{self, Stopwatch, Usage};
use crate::target::Target;
use crate::worker::Desk;

/// After the end, a process receives until nothing has come for so long …
const QUIET: u64 = 3 * SECOND / 2;
/// … or until this is over.
const MAX_DRAIN: u64 = 10 * SECOND;
/// How often the time is looked at while nothing comes.
const PATIENCE: Duration = Duration::from_millis(50);

/// What a receiving process shall do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ReceiveJob {
    pub(crate) seed: Seed,
    /// The flows of this process.
    pub(crate) flows: Vec<u32>,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
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
    /// Over the whole run.
    pub(crate) damage: Damage,
    /// From due to here, for `received`.
    pub(crate) latency: Durations,
    pub(crate) usage: Usage,
}

struct Flow {
    from: NodePublic,
    link: Link,
    sequence: Sequence,
}

/// What the packets of one connection are entered into.
struct Ledger<'a> {
    timeline: Timeline,
    now: u64,
    id: u32,
    from: NodePublic,
    sequence: &'a mut Sequence,
    all_received: &'a mut u64,
    receipts: &'a mut Receipts,
}

/// Does `job`.
pub(crate) fn run(target: &Target, job: ReceiveJob, desk: &mut Desk) -> Result<Receipts> {
    machine::allow_connections(job.flows.len() as u64)?;
    let keys = job.flows.iter().map(|flow| connect::key(&job.seed, RECEIVER, *flow)).collect();
    let poll = Poll::new()?;
    let mut flows = Vec::with_capacity(job.flows.len());
    for (mut link, id) in connect::connect_all(target, keys)?.into_iter().zip(&job.flows) {
        link.register(poll.registry(), Token(flows.len()))?;
        let from = connect::key(&job.seed, SENDER, *id).public();
        flows.push(Flow { from, link, sequence: Sequence::default() });
    }
    desk.say(&Message::Ready)?;
    let begin = desk.wait_for_go()?;
    let measure = begin + clock::nanos(job.warm_up);
    let timeline = Timeline { begin, measure, end: measure + clock::nanos(job.duration) };
    let post = (!job.mailboxes.is_empty()).then(|| Post::new(&job)).transpose()?;
    receive(flows, &job, timeline, poll, post, desk)
}

fn receive(
    mut flows: Vec<Flow>,
    job: &ReceiveJob,
    timeline: Timeline,
    mut poll: Poll,
    mut post: Option<Post>,
    desk: &mut Desk,
) -> Result<Receipts> {
    let mut scratch = Scratch::new();
    let mut receipts = Receipts::default();
    let mut events = Events::with_capacity(1024);
    let mut stopwatch = Stopwatch::new(timeline.measure, timeline.end);
    let (mut all_received, mut last_came) = (0, 0);
    loop {
        match poll.poll(&mut events, Some(PATIENCE)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        let mut now = clock::now();
        stopwatch.pass(now)?;
        for event in events.iter().filter(|event| event.is_readable()) {
            let (index, before) = (event.token().0, all_received);
            let (flow, id) = (&mut flows[index], job.flows[index]);
            loop {
                now = clock::now();
                let mut ledger = Ledger {
                    timeline,
                    now,
                    id,
                    from: flow.from,
                    sequence: &mut flow.sequence,
                    all_received: &mut all_received,
                    receipts: &mut receipts,
                };
                let outcome = flow.link.read(&mut scratch, |frame| ledger.enter(frame));
                match outcome.with_context(|| format!("the receiver of flow {id}"))? {
                    ReadOutcome::More => {}
                    ReadOutcome::Drained => break,
                    ReadOutcome::Closed => bail!("the relay has closed on the receiver of flow {id}"),
                }
            }
            if all_received > before {
                last_came = now;
                if let Some(post) = &mut post {
                    post.note(id, flow.sequence.next());
                }
            }
        }
        if let Some(post) = &mut post {
            post.send();
        }
        desk.report(now, || Progress {
            connections: flows.len() as u64,
            received: all_received,
            damaged: receipts.damage.total(),
            ..Default::default()
        })?;
        if now >= timeline.end + MAX_DRAIN || (now >= timeline.end + QUIET && now >= last_came + QUIET) {
            receipts.usage = stopwatch.usage();
            return Ok(receipts);
        }
    }
}

impl Ledger<'_> {
    fn enter(&mut self, frame: ServerFrame<'_>) {
        let ServerFrame::RecvPacket { from, packet } = frame else { return };
        *self.all_received += 1;
        let damage = &mut self.receipts.damage;
        let Some(label) = packet::read(packet) else {
            damage.corrupted += 1;
            return;
        };
        if label.flow != self.id || from != self.from {
            damage.misrouted += 1;
            return;
        }
        match self.sequence.note(label.number) {
            Place::Next => {}
            Place::Reordered => damage.reordered += 1,
            Place::Duplicate => {
                damage.duplicated += 1;
                return;
            }
        }
        if self.timeline.measures(self.now) {
            self.receipts.delivered += 1;
            self.receipts.delivered_bytes += packet.len() as u64;
        }
        if self.timeline.measures(label.due) {
            self.receipts.received += 1;
            self.receipts.latency.record(self.now.saturating_sub(label.due));
        }
    }
}

/// Acknowledgements on their way to the senders, past the relay.
struct Post {
    socket: UnixDatagram,
    mailboxes: Vec<PathBuf>,
    letters: HashMap<usize, Vec<u8>>,
}

impl Post {
    fn new(job: &ReceiveJob) -> Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, mailboxes: job.mailboxes.clone(), letters: HashMap::new() })
    }

    fn note(&mut self, flow: u32, next: u64) {
        let letter = self.letters.entry(flow as usize % self.mailboxes.len()).or_default();
        letter.extend_from_slice(&flow.to_be_bytes());
        letter.extend_from_slice(&next.to_be_bytes());
    }

    fn send(&mut self) {
        for (mailbox, letter) in &mut self.letters {
            if !letter.is_empty() {
                // A letter that finds a mailbox full is made good by the next; one that is the last, by the sender.
                let _ = self.socket.send_to(letter, &self.mailboxes[*mailbox]);
                letter.clear();
            }
        }
    }
}
