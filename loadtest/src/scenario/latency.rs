//! Latency: round trips, each due by a schedule, while the relay is at rest or forwards a load of [`pairs`].
//!
//! A round trip is a DERP ping, which the relay answers itself, or a packet to a peer that sends it back. It counts from
//! when it was due, so a relay that stops for a while is seen by all that would have travelled in the meantime.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use mio::{Events, Poll, Token};
use serde::{Deserialize, Serialize};
use towpath_wire::derp::frame::{ClientFrame, ServerFrame};
use towpath_wire::key::NodePublic;

use crate::clock::{self, SECOND};
use crate::flow::packet::{self, PacketBuilder, PacketHeader};
use crate::flow::schedule::{Schedule, Timeline};
use crate::flow::sequence::{PacketOrder, PacketSequence};
use crate::histogram::{DurationHistogram, Quantiles};
use crate::host::server::ServerUsage;
use crate::host::usage::{ThreadUsage, UsageMeter};
use crate::net::alarm::Alarm;
use crate::net::connect::{self, KeySeed, LoginOrder};
use crate::net::link::{LinkBuffers, LinkRead, RelayLink};
use crate::protocol::ClientKey;
use crate::report::svg::{self, Plot};
use crate::report::unit::Unit;
use crate::report::{Row, ScenarioReport};
use crate::scenario::pairs::{self, MAX_OCCUPANCY, PacketDamage, PairsReport};
use crate::target::LoadTarget;
use crate::worker::{self, Parent, WorkerOutcome};
use crate::workers::{RunConfig, WorkerGroup, WorkerMessage, WorkerProgress};

const ROLE: &str = "probe";
const PROBER: usize = 0;
const PEER: usize = 1;
const ALARM: Token = Token(2);
/// How long answers are waited for when nothing more is due.
const LAST_ANSWERS: u64 = 3 * SECOND / 2;
/// How often the time is looked at while nothing happens.
const PATIENCE: Duration = Duration::from_millis(50);

/// How a round trip is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RoundTripKind {
    /// A ping, and the relay's pong.
    Ping,
    /// A packet of so many bytes to a peer that sends it back.
    Peer(usize),
}

/// What load to make.
#[derive(Clone, Debug)]
pub struct LatencyPlan {
    /// How a round trip is made.
    pub via: RoundTripKind,
    /// Round trips a second.
    pub rate: u64,
    /// What else the relay has to do; for as long.
    pub background: Option<pairs::PairsPlan>,
    /// Before figures count.
    pub warm_up: Duration,
    /// While figures count.
    pub duration: Duration,
    /// The load generator is too slow when 1 % of its round trips begin later than this.
    pub max_late: Duration,
}

/// What came of it. Round trips are those that were due in the measured time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LatencyReport {
    /// Round trips that were due.
    pub offered: u64,
    /// Round trips that were completed, at whatever time.
    pub completed: u64,
    /// Over the whole run.
    pub damage: PacketDamage,
    /// From when a round trip was due until it was completed.
    pub round_trip: Quantiles,
    /// From when a round trip was due until it began.
    pub late: Quantiles,
    /// Of the process that makes round trips.
    pub usage: ThreadUsage,
    /// Of the relay.
    pub server: Option<ServerUsage>,
    /// What came of the load in the background.
    pub background: Option<PairsReport>,
    /// Why the load generator was the limit, and the figures mean nothing.
    pub too_slow: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ProbeJob {
    seed: KeySeed,
    via: RoundTripKind,
    rate: u64,
    warm_up: Duration,
    duration: Duration,
}

/// What the process did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ProbeOutcome {
    offered: u64,
    completed: u64,
    damage: PacketDamage,
    round_trip: DurationHistogram,
    late: DurationHistogram,
    usage: ThreadUsage,
}

/// Makes the load and says what came of it.
///
/// # Errors
///
/// If a connection cannot be made or breaks, or a process cannot be started.
pub fn run(config: &RunConfig, plan: &LatencyPlan) -> Result<LatencyReport> {
    if plan.rate == 0 || plan.duration.is_zero() {
        bail!("rate and duration must not be zero");
    }
    if let RoundTripKind::Peer(len) = plan.via {
        pairs::PacketSizes::new(&[(len, 1)])?;
    }
    let LatencyPlan { via, rate, warm_up, duration, .. } = *plan;
    let ack_sockets = tempfile::Builder::new().prefix("towpath-loadtest-").tempdir()?;
    let mut jobs = vec![worker::WorkerJob::Probe(ProbeJob {
        seed: KeySeed::new(&config.target)?,
        via,
        rate,
        warm_up,
        duration,
    })];
    if let Some(background) = &plan.background {
        pairs::check(background)?;
        jobs.extend(pairs::jobs(config, background, ack_sockets.path().into())?);
    }
    let server = config.server()?;
    let mut workers = WorkerGroup::start(config, jobs)?;
    let usage = workers.measure(server, warm_up, duration)?;
    let mut outcomes = workers.outcomes()?;
    let WorkerOutcome::Probed(did) = outcomes.remove(0) else { bail!("round trips have no outcome") };
    let background = plan.background.as_ref().map(|plan| pairs::report(plan, outcomes, usage));
    let late = Duration::from_nanos(did.late.quantiles().p99);
    let too_slow = if did.usage.occupancy() > MAX_OCCUPANCY {
        Some(format!("the process was busy for {:.0} %", did.usage.occupancy() * 100.0))
    } else {
        (late > plan.max_late).then(|| format!("1 % of the round trips began {late:?} late or more"))
    };
    Ok(LatencyReport {
        offered: did.offered,
        completed: did.completed,
        damage: did.damage,
        round_trip: did.round_trip.quantiles(),
        late: did.late.quantiles(),
        usage: did.usage,
        server: usage,
        background,
        too_slow,
    })
}

struct Prober<'a> {
    via: RoundTripKind,
    schedule: Schedule,
    timeline: Timeline,
    /// The one that makes round trips, and its peer where there is one.
    links: Vec<RelayLink>,
    peers: [NodePublic; 2],
    /// Frames that the peer sends back.
    answers: Vec<u8>,
    buffers: LinkBuffers,
    builder: PacketBuilder,
    /// The next round trip.
    next: u64,
    sequence: PacketSequence,
    did: ProbeOutcome,
    parent: &'a mut Parent,
}

/// The part of the process.
pub(crate) fn work(target: &LoadTarget, job: &ProbeJob, parent: &mut Parent) -> Result<ProbeOutcome> {
    let keys = [0, 1].map(|index| job.seed.key(ROLE, index));
    let peers = keys.each_ref().map(ClientKey::public);
    let count = if job.via == RoundTripKind::Ping { 1 } else { 2 };
    let mut poll = Poll::new()?;
    let mut links =
        connect::connect_all(target, keys.into_iter().take(count).collect(), LoginOrder::Together)?;
    for (index, link) in links.iter_mut().enumerate() {
        link.register(poll.registry(), Token(index))?;
    }
    let alarm = Alarm::new(poll.registry(), ALARM)?;
    parent.send(&WorkerMessage::Ready)?;
    let begin = parent.wait_to_proceed()?;
    let mut probe = Prober {
        via: job.via,
        schedule: Schedule { begin, rate: job.rate, batch: 1, flows: 1 },
        timeline: Timeline::new(begin, job.warm_up, job.duration),
        links,
        peers,
        answers: Vec::new(),
        buffers: LinkBuffers::new(),
        builder: PacketBuilder::new(),
        next: 0,
        sequence: PacketSequence::default(),
        did: ProbeOutcome::default(),
        parent,
    };
    probe.run(&mut poll, &alarm)?;
    Ok(probe.did)
}

impl Prober<'_> {
    fn run(&mut self, poll: &mut Poll, alarm: &Alarm) -> Result<()> {
        let mut events = Events::with_capacity(64);
        let mut meter = UsageMeter::new(self.timeline.measure, self.timeline.end);
        alarm.set(self.timeline.begin)?;
        loop {
            match poll.poll(&mut events, Some(PATIENCE)) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in events.iter().filter(|event| event.token() != ALARM) {
                let index = event.token().0;
                if event.is_writable() && self.links[index].is_blocked() {
                    self.links[index].flush()?;
                }
                self.read(index)?;
            }
            self.answer()?;
            let now = clock::now();
            meter.pass(now)?;
            let due = self.send_due(now)?;
            if due < self.timeline.end {
                alarm.set(due)?;
            } else if self.did.completed == self.did.offered && now >= self.timeline.end
                || now >= self.timeline.end + LAST_ANSWERS
            {
                self.did.usage = meter.usage();
                return Ok(());
            }
            let progress =
                WorkerProgress { sent: self.next, received: self.sequence.next(), ..Default::default() };
            self.parent
                .report(now, || WorkerProgress { connections: self.links.len() as u64, ..progress })?;
        }
    }

    /// Begins what is due, and says when the next is. While the socket is full, what is due waits.
    fn send_due(&mut self, now: u64) -> Result<u64> {
        loop {
            let due = self.schedule.due(0, self.next);
            if due > now || due >= self.timeline.end {
                return Ok(due);
            }
            if self.links[PROBER].is_blocked() {
                // Its poll tells when it is not; the end must not be slept through.
                return Ok(now + clock::nanos(PATIENCE));
            }
            let frame = match self.via {
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
                self.did.offered += 1;
                self.did.late.record(clock::now().saturating_sub(due));
            }
        }
    }

    fn read(&mut self, index: usize) -> Result<()> {
        let Self { links, buffers, answers, peers, via, schedule, timeline, next, sequence, did, .. } = self;
        let protocol = links[index].protocol();
        loop {
            let outcome = links[index].read(buffers, |frame| {
                let number = match frame {
                    ServerFrame::RecvPacket { from, packet } if index == PEER => {
                        protocol.encode(&ClientFrame::SendPacket { to: from, packet }, answers);
                        return;
                    }
                    ServerFrame::Pong(number) if *via == RoundTripKind::Ping => {
                        Some(u64::from_be_bytes(number))
                    }
                    ServerFrame::RecvPacket { from, .. } if from != peers[PEER] => {
                        did.damage.misrouted += 1;
                        return;
                    }
                    ServerFrame::RecvPacket { packet, .. } => {
                        packet::read(packet).map(|header| header.number)
                    }
                    _ => return,
                };
                match number.filter(|number| number < next).map(|number| (number, sequence.note(number))) {
                    None => did.damage.corrupted += 1,
                    Some((_, PacketOrder::Duplicate)) => did.damage.duplicated += 1,
                    Some((number, place)) => {
                        did.damage.reordered += u64::from(place == PacketOrder::Reordered);
                        let due = schedule.due(0, number);
                        if timeline.measures(due) {
                            did.completed += 1;
                            did.round_trip.record(clock::now().saturating_sub(due));
                        }
                    }
                }
            });
            match outcome.context("round trips")? {
                LinkRead::More => {}
                LinkRead::Drained => return Ok(()),
                LinkRead::Closed => bail!("the relay has closed on the one that makes round trips"),
            }
        }
    }

    /// What came to the peer goes back.
    fn answer(&mut self) -> Result<()> {
        match self.links.get_mut(PEER) {
            Some(peer) if !self.answers.is_empty() && !peer.is_blocked() => {
                self.buffers.frames.append(&mut self.answers);
                peer.send(&mut self.buffers)
            }
            _ => Ok(()),
        }
    }
}

impl ScenarioReport for LatencyReport {
    fn scenario(&self) -> &'static str {
        "latency"
    }

    fn rows(&self) -> Vec<Row> {
        let figure = |value: u64| self.too_slow.is_none().then_some(value as f64);
        let time = |name, nanos| Row::new(name, Unit::Time, figure(nanos));
        let count = |name, count: u64| Row::new(name, Unit::Count, Some(count as f64));
        let server = |value: fn(&ServerUsage) -> f64| self.server.as_ref().map(value);
        let mut rows = vec![
            time("round trip p50", self.round_trip.p50),
            time("round trip p99", self.round_trip.p99),
            time("round trip p99.9", self.round_trip.p999),
            time("round trip max", self.round_trip.max),
            count("round trips", self.offered),
            count("round trips lost", self.offered - self.completed),
            count("answers damaged", self.damage.total()),
        ];
        if let Some(pairs) = &self.background {
            let rate = pairs.delivered as f64 * SECOND as f64 / pairs.measured as f64;
            rows.push(Row::new("background delivered", Unit::PacketsPerSecond, Some(rate)));
            rows.push(count("background packets lost", pairs.offered.saturating_sub(pairs.received)));
        }
        rows.extend([
            Row::new(
                "relay busiest thread",
                Unit::Percent,
                server(|server| server.busiest as f64 / server.wall as f64 * 100.0),
            ),
            Row::new("begun late p99", Unit::Time, Some(self.late.p99 as f64)),
            Row::new("busy making round trips", Unit::Percent, Some(self.usage.occupancy() * 100.0)),
        ]);
        rows
    }

    fn remarks(&self) -> Vec<String> {
        let limited = self
            .too_slow
            .iter()
            .map(|reason| format!("THE LOAD GENERATOR WAS THE LIMIT, so there are no figures: {reason}"));
        let background = self.background.iter().filter_map(|pairs| pairs.too_slow.as_ref());
        limited.chain(background.map(|reason| format!("in the background: {reason}"))).collect()
    }

    fn plots(&self) -> Vec<Plot> {
        let shown = self.too_slow.is_none().then_some(("round trip", self.round_trip));
        svg::of_quantiles("From when a round trip was due until it was completed", shown.as_slice())
            .into_iter()
            .collect()
    }

    fn is_limited(&self) -> bool {
        self.too_slow.is_some()
    }

    fn is_damaged(&self) -> bool {
        self.damage.any() || self.background.as_ref().is_some_and(|pairs| pairs.damage.any())
    }
}
