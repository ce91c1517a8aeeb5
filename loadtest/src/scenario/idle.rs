//! Idle connections: after a little traffic both ways they send nothing, and the relay's memory is measured.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use mio::{Events, Poll, Token};
use serde::{Deserialize, Serialize};
use towpath_wire::derp::frame::{ClientFrame, ServerFrame};
use towpath_wire::key::NodePublic;

use crate::clock::{self, SECOND};
use crate::flow::packet::{self, PacketBuilder, PacketHeader};
use crate::flow::sequence::{PacketDamage, PacketSequence};
use crate::host::open_files;
use crate::net::connect::{self, KeySeed, LoginOrder};
use crate::net::link::{LinkBuffers, LinkRead, RelayLink};
use crate::net::poll;
use crate::process::{Parent, WorkerProgress};
use crate::report::unit::Unit;
use crate::report::{Row, ScenarioReport};
use crate::scenario::args::{RelayArgs, parse_duration};
use crate::scenario::config::RunConfig;
use crate::scenario::interface::Scenario;
use crate::target::LoadTarget;
use crate::workers::WorkerGroup;

const ROLE: &str = "idle";
/// How many packets each client sends to its partner.
const PACKETS: u64 = 4;
const PACKET_LEN: usize = 1_000;
/// How many clients connect between two rounds of answering pings, an even number. iroh-relay closes a connection that
/// does not answer a ping within 5 s.
const CONNECT_BATCH: u32 = 500;
/// How long the packets of a batch of clients may take.
const TRAFFIC_TIMEOUT: u64 = 60 * SECOND;
/// How long to wait for events before the time is checked.
const POLL_TIMEOUT: Duration = Duration::from_millis(50);

/// The options of a load of idle connections.
#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    /// Number of connections at each step, even and ascending
    #[arg(long, value_delimiter = ',', default_value = "1000,4000")]
    steps: Vec<u32>,
    /// How long connections are idle before the relay's memory is measured
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    rest: Duration,
}

/// The report on idle connections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IdleReport {
    /// The relay's resident memory in bytes at each number of connections: before the first, and at the end of each
    /// step.
    pub weighed: Vec<(u32, u64)>,
    /// Packets that arrived. All that are sent must arrive.
    pub received: u64,
    /// Damage over the whole run.
    pub damage: PacketDamage,
}

/// The job of the process that connects.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IdleJob {
    seed: KeySeed,
    steps: Vec<u32>,
    rest: Duration,
}

/// The outcome of an [`IdleJob`].
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct IdleOutcome {
    received: u64,
    damage: PacketDamage,
}

/// The scenario `idle`.
pub(crate) struct IdleScenario;

impl Scenario for IdleScenario {
    const NAME: &'static str = "idle";
    const ABOUT: &'static str = "Measures the relay's memory for each idle connection";
    type Target = RelayArgs;
    type Args = IdleArgs;
    type Job = IdleJob;
    type Outcome = IdleOutcome;
    type Report = IdleReport;

    fn run(args: &IdleArgs, config: &RunConfig) -> Result<IdleReport> {
        let steps = &args.steps;
        let are_even = steps.iter().all(|step| step % 2 == 0 && *step > 0);
        if steps.is_empty() || !are_even || !steps.is_sorted_by(|a, b| a < b) {
            bail!("--steps must be even numbers of connections, each more than the one before");
        }
        let Some(server) = config.server()? else {
            bail!("--server-pid is required: this scenario measures the relay's memory")
        };
        let job = IdleJob { seed: KeySeed::new(&config.target)?, steps: steps.clone(), rest: args.rest };
        let mut workers = WorkerGroup::<Self>::start(config, vec![job])?;
        workers.wait_ready()?;
        let mut weighed = vec![(0, server.resident()?)];
        workers.proceed(0)?;
        for (step, &connections) in (1..).zip(steps) {
            workers.wait_reached(step)?;
            weighed.push((connections, server.resident()?));
            workers.proceed(0)?;
        }
        let outcome = workers.outcomes()?.pop().context("the process that connects has no outcome")?;
        Ok(IdleReport { weighed, received: outcome.received, damage: outcome.damage })
    }

    fn work(target: &LoadTarget, job: IdleJob, parent: &mut Parent) -> Result<IdleOutcome> {
        open_files::allow_connections(job.steps.last().copied().unwrap_or_default().into())?;
        parent.ready()?;
        parent.wait_to_proceed()?;
        let mut clients = IdleClients {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            buffers: LinkBuffers::new(),
            clients: Vec::new(),
            damage: PacketDamage::default(),
            parent,
        };
        for (step, &connections) in (1..).zip(&job.steps) {
            clients.grow(target, &job.seed, connections)?;
            clients.stay_idle(job.rest)?;
            clients.parent.reached(step)?;
            clients.parent.wait_to_proceed()?;
        }
        Ok(IdleOutcome { received: clients.received(), damage: clients.damage })
    }
}

/// A client. Neighbours are partners: 0 and 1, 2 and 3, …
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
    damage: PacketDamage,
    parent: &'a mut Parent,
}

impl IdleClients<'_> {
    /// Connects further clients until there are `connections`, batch by batch.
    fn grow(&mut self, target: &LoadTarget, seed: &KeySeed, connections: u32) -> Result<()> {
        let mut connected = u32::try_from(self.clients.len())?;
        while connected < connections {
            let first = self.clients.len();
            let until = connections.min(connected + CONNECT_BATCH);
            self.connect(target, seed, connected..until)?;
            self.send_packets(first)?;
            self.receive_packets(first)?;
            connected = until;
        }
        Ok(())
    }

    fn connect(&mut self, target: &LoadTarget, seed: &KeySeed, new: Range<u32>) -> Result<()> {
        let keys = new.clone().map(|index| seed.key(ROLE, index)).collect();
        let links = connect::connect_all(target, keys, LoginOrder::Together)?;
        for (mut link, index) in links.into_iter().zip(new) {
            link.register(self.poll.registry(), Token(self.clients.len()))?;
            let partner = seed.key(ROLE, index ^ 1).public();
            self.clients.push(IdleClient { link, partner, sequence: PacketSequence::default(), received: 0 });
        }
        Ok(())
    }

    /// Sends the packets of the clients from `first` on.
    fn send_packets(&mut self, first: usize) -> Result<()> {
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
        Ok(())
    }

    /// Waits until the clients from `first` on have received all their packets.
    fn receive_packets(&mut self, first: usize) -> Result<()> {
        let give_up = clock::now() + TRAFFIC_TIMEOUT;
        loop {
            let missing = self.clients[first..].iter().filter(|client| client.received < PACKETS).count();
            if missing == 0 {
                return Ok(());
            }
            if clock::now() > give_up {
                let new = self.clients.len() - first;
                let seconds = TRAFFIC_TIMEOUT / SECOND;
                bail!("{missing} of {new} new connections did not receive all packets within {seconds} s");
            }
            self.turn()?;
        }
    }

    /// Answers the relay's pings for a time.
    fn stay_idle(&mut self, rest: Duration) -> Result<()> {
        let until = clock::now() + clock::nanos(rest);
        while clock::now() < until {
            self.turn()?;
        }
        Ok(())
    }

    fn received(&self) -> u64 {
        self.clients.iter().map(|client| client.received).sum()
    }

    /// Waits for the sockets for a moment, and reads and writes those that are ready.
    fn turn(&mut self) -> Result<()> {
        poll::wait(&mut self.poll, &mut self.events, POLL_TIMEOUT)?;
        for event in &self.events {
            let index = event.token().0;
            let client = &mut self.clients[index];
            if event.is_writable() && client.link.is_blocked() {
                client.link.flush()?;
            }
            client.drain(index, &mut self.buffers, &mut self.damage)?;
        }
        let (connections, received) = (self.clients.len() as u64, self.received());
        let (sent, damaged) = (connections * PACKETS, self.damage.total());
        self.parent.report(clock::now(), || WorkerProgress { connections, sent, received, damaged })
    }
}

impl IdleClient {
    /// Reads until the socket is empty.
    fn drain(&mut self, index: usize, buffers: &mut LinkBuffers, damage: &mut PacketDamage) -> Result<()> {
        let Self { link, partner, sequence, received } = self;
        loop {
            let read = link.read(buffers, |frame| {
                let ServerFrame::RecvPacket { from, packet } = frame else { return };
                *received += 1;
                match packet::read(packet) {
                    None => damage.corrupted += 1,
                    Some(header) if from != *partner || header.flow as usize != index ^ 1 => {
                        damage.misrouted += 1;
                    }
                    Some(header) => damage.count(sequence.record(header.number)),
                }
            });
            match read.with_context(|| format!("connection {index}"))? {
                LinkRead::More => {}
                LinkRead::Drained => return Ok(()),
                LinkRead::Closed => bail!("the relay closed the connection {index}"),
            }
        }
    }
}

impl IdleReport {
    /// The relay's memory in bytes for each further connection between the first step and the last; `None` if there is
    /// only one step.
    #[must_use]
    pub fn slope(&self) -> Option<f64> {
        match self.weighed.get(1..)? {
            [first, .., last] => Some((last.1 as f64 - first.1 as f64) / f64::from(last.0 - first.0)),
            _ => None,
        }
    }
}

impl ScenarioReport for IdleReport {
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
        rows.push(Row::count("packets received", self.received));
        rows.push(Row::count("packets damaged", self.damage.total()));
        rows
    }

    fn remarks(&self) -> Vec<String> {
        Vec::new()
    }

    fn is_damaged(&self) -> bool {
        self.damage.any()
    }
}
