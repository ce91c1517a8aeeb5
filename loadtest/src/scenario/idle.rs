//! Idle connections: after a little traffic both ways they rest, and the relay's memory is weighed.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mio::{Events, Poll, Token};
use serde::{Deserialize, Serialize};
use towpath_wire::derp::frame::{ClientFrame, ServerFrame};
use towpath_wire::key::NodePublic;

use crate::clock::{self, SECOND};
use crate::flow::packet::{self, PacketBuilder, PacketHeader};
use crate::flow::sequence::{PacketDamage, PacketOrder, PacketSequence};
use crate::host::open_files;
use crate::net::connect::{self, KeySeed, LoginOrder};
use crate::net::link::{LinkBuffers, LinkRead, RelayLink};
use crate::report::unit::Unit;
use crate::report::{Row, ScenarioReport};
use crate::target::LoadTarget;
use crate::worker::{self, Parent, WorkerOutcome};
use crate::workers::{RunConfig, WorkerCommand, WorkerGroup, WorkerMessage, WorkerProgress};

/// What each client sends to its partner before they rest.
const PACKETS: u64 = 4;
const PACKET_LEN: usize = 1_000;
/// So many connect at a time, an even number: those that are there must answer the relay's pings in between, and
/// iroh-relay gives them 5 s.
const LOT: u32 = 500;
/// How long the traffic of a lot may take.
const TRAFFIC_TIMEOUT: u64 = 60 * SECOND;
/// How often the time is looked at while nothing comes.
const PATIENCE: Duration = Duration::from_millis(50);

/// What load to make.
#[derive(Clone, Debug)]
pub struct IdlePlan {
    /// How many connections there are, step by step; each even and more than the one before.
    pub steps: Vec<u32>,
    /// How long they rest before the relay's memory is weighed.
    pub rest: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IdleReport {
    /// Connections and the relay's resident memory in bytes: before the first connection, and at the end of each rest.
    pub weighed: Vec<(u32, u64)>,
    /// Packets that came, of all that were sent.
    pub received: u64,
    /// What was wrong with them.
    pub damage: PacketDamage,
}

impl IdleReport {
    /// Bytes for each connection more, between the first step and the last; `None` where there is only one.
    #[must_use]
    pub fn slope(&self) -> Option<f64> {
        match self.weighed.get(1..)? {
            [first, .., last] => Some((last.1 as f64 - first.1 as f64) / f64::from(last.0 - first.0)),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct IdleJob {
    seed: KeySeed,
    steps: Vec<u32>,
    rest: Duration,
}

/// What the process did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct IdleOutcome {
    received: u64,
    damage: PacketDamage,
}

/// Makes the load and says what came of it.
///
/// # Errors
///
/// If the relay's process is not known, a connection cannot be made or breaks, or a packet is lost.
pub fn run(config: &RunConfig, plan: &IdlePlan) -> Result<IdleReport> {
    let in_order = plan.steps.is_sorted_by(|a, b| a < b);
    if plan.steps.is_empty() || !in_order || plan.steps.iter().any(|step| step % 2 != 0 || *step == 0) {
        bail!("the steps must be even numbers of connections, each more than the one before");
    }
    let Some(server) = config.server()? else { bail!("the memory of which process? (--server-pid)") };
    let job = IdleJob { seed: KeySeed::new(&config.target)?, steps: plan.steps.clone(), rest: plan.rest };
    let mut workers = WorkerGroup::start(config, vec![worker::WorkerJob::Idle(job)])?;
    workers.wait_ready()?;
    let mut weighed = vec![(0, server.resident()?)];
    workers.tell(WorkerCommand::Proceed(0))?;
    for (step, &connections) in (1..).zip(&plan.steps) {
        workers.wait_reached(step)?;
        weighed.push((connections, server.resident()?));
        workers.tell(WorkerCommand::Proceed(0))?;
    }
    let mut all = IdleOutcome::default();
    for outcome in workers.outcomes()? {
        let WorkerOutcome::Idled(did) = outcome else { continue };
        all.received += did.received;
        all.damage.add(&did.damage);
    }
    Ok(IdleReport { weighed, received: all.received, damage: all.damage })
}

/// A connection whose partner is its neighbour: 0 and 1, 2 and 3, …
struct IdleClient {
    link: RelayLink,
    partner: NodePublic,
    sequence: PacketSequence,
    received: u64,
}

struct IdleClients<'a> {
    poll: Poll,
    events: Events,
    buffers: LinkBuffers,
    clients: Vec<IdleClient>,
    did: IdleOutcome,
    parent: &'a mut Parent,
}

/// The part of the process.
pub(crate) fn work(target: &LoadTarget, job: &IdleJob, parent: &mut Parent) -> Result<IdleOutcome> {
    open_files::allow_connections(job.steps.last().copied().unwrap_or_default().into())?;
    parent.send(&WorkerMessage::Ready)?;
    parent.wait_to_proceed()?;
    let mut clients = IdleClients {
        poll: Poll::new()?,
        events: Events::with_capacity(1024),
        buffers: LinkBuffers::new(),
        clients: Vec::new(),
        did: IdleOutcome::default(),
        parent,
    };
    for (step, &connections) in (1..).zip(&job.steps) {
        clients.grow(target, &job.seed, connections)?;
        clients.rest(job.rest)?;
        clients.parent.send(&WorkerMessage::Reached(step))?;
        clients.parent.wait_to_proceed()?;
    }
    Ok(clients.did)
}

impl IdleClients<'_> {
    /// Connects until there are so many, lot by lot.
    fn grow(&mut self, target: &LoadTarget, seed: &KeySeed, connections: u32) -> Result<()> {
        let mut there = u32::try_from(self.clients.len())?;
        while there < connections {
            let all = connections.min(there + LOT);
            self.add(target, seed, there..all)?;
            there = all;
        }
        Ok(())
    }

    /// Connects new ones, which follow those that are there, and has them exchange packets.
    fn add(&mut self, target: &LoadTarget, seed: &KeySeed, new: Range<u32>) -> Result<()> {
        const ROLE: &str = "idle";
        let first = self.clients.len();
        let keys = new.clone().map(|index| seed.key(ROLE, index)).collect();
        for (mut link, index) in
            connect::connect_all(target, keys, LoginOrder::Together)?.into_iter().zip(new)
        {
            link.register(self.poll.registry(), Token(self.clients.len()))?;
            let partner = seed.key(ROLE, index ^ 1).public();
            self.clients.push(IdleClient { link, partner, sequence: PacketSequence::default(), received: 0 });
        }
        let mut builder = PacketBuilder::new();
        for (client, index) in self.clients[first..].iter_mut().zip(first..) {
            for number in 0..PACKETS {
                let header = PacketHeader { flow: u32::try_from(index)?, number, due: clock::now() };
                let packet = builder.build(&header, PACKET_LEN);
                let frame = ClientFrame::SendPacket { to: client.partner, packet };
                client.link.protocol().encode(&frame, &mut self.buffers.frames);
            }
            client.link.send(&mut self.buffers)?;
        }
        let give_up = clock::now() + TRAFFIC_TIMEOUT;
        while self.clients[first..].iter().any(|client| client.received < PACKETS) {
            if clock::now() > give_up {
                let silent = self.clients[first..].iter().filter(|client| client.received < PACKETS).count();
                bail!(
                    "{silent} of {} new connections have not received all packets",
                    self.clients.len() - first
                );
            }
            self.turn()?;
        }
        Ok(())
    }

    fn rest(&mut self, rest: Duration) -> Result<()> {
        let until = clock::now() + clock::nanos(rest);
        while clock::now() < until {
            self.turn()?;
        }
        Ok(())
    }

    /// Reads what there is, or waits a moment for something.
    fn turn(&mut self) -> Result<()> {
        match self.poll.poll(&mut self.events, Some(PATIENCE)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &self.events {
            let index = event.token().0;
            let client = &mut self.clients[index];
            if event.is_writable() && client.link.is_blocked() {
                client.link.flush()?;
            }
            loop {
                let IdleClient { link, partner, sequence, received } = client;
                let damage = &mut self.did.damage;
                let outcome = link.read(&mut self.buffers, |frame| {
                    let ServerFrame::RecvPacket { from, packet } = frame else { return };
                    *received += 1;
                    match packet::read(packet) {
                        None => damage.corrupted += 1,
                        Some(header) if from != *partner || header.flow as usize != index ^ 1 => {
                            damage.misrouted += 1;
                        }
                        Some(header) => match sequence.note(header.number) {
                            PacketOrder::Next => {}
                            PacketOrder::Reordered => damage.reordered += 1,
                            PacketOrder::Duplicate => damage.duplicated += 1,
                        },
                    }
                });
                match outcome.with_context(|| format!("the connection {index}"))? {
                    LinkRead::More => {}
                    LinkRead::Drained => break,
                    LinkRead::Closed => bail!("the relay has closed the connection {index}"),
                }
            }
        }
        self.did.received = self.clients.iter().map(|client| client.received).sum();
        let (connections, received) = (self.clients.len() as u64, self.did.received);
        let damaged = self.did.damage.total();
        self.parent.report(clock::now(), || WorkerProgress {
            connections,
            sent: connections * PACKETS,
            received,
            damaged,
        })
    }
}

impl ScenarioReport for IdleReport {
    fn scenario(&self) -> &'static str {
        "idle"
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        if let [_, first, .., last] = &self.weighed[..]
            && first != last
        {
            let name = format!("relay memory from {} to {}", first.0, last.0);
            rows.push(Row::new(name, Unit::BytesPerConnection, self.slope()));
        }
        rows.extend(self.weighed.iter().map(|(connections, bytes)| {
            Row::new(format!("relay memory at {connections}"), Unit::Bytes, Some(*bytes as f64))
        }));
        rows.push(Row::new("packets received", Unit::Count, Some(self.received as f64)));
        rows.push(Row::new("packets damaged", Unit::Count, Some(self.damage.total() as f64)));
        rows
    }

    fn remarks(&self) -> Vec<String> {
        Vec::new()
    }

    fn is_damaged(&self) -> bool {
        self.damage.any()
    }
}
