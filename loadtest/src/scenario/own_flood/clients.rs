//! The client that floods, and the sink that it sends to: a worker process each.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use mio::{Events, Poll, Token};
use serde::{Deserialize, Serialize};
use towpath_wire::derp::frame::{ClientFrame, ServerFrame};
use towpath_wire::key::NodePublic;

use crate::clock;
use crate::flow::packet::{self, PacketBuilder, PacketHeader, PacketSizes};
use crate::flow::receiver::{QUIET, ReceiveRecorder, ReceiverOutcome, ReceivingClient};
use crate::flow::schedule::{FlowRoutes, Timeline};
use crate::flow::sequence::PacketSequence;
use crate::host::affinity;
use crate::host::usage::UsageMeter;
use crate::net::connect::{self, KeySeed, LoginOrder, RECEIVER};
use crate::net::link::{LinkBuffers, LinkRead, RelayLink};
use crate::net::poll;
use crate::process::{Parent, WorkerProgress};
use crate::target::LoadTarget;

/// The receiver that floods.
pub(super) const FLOODER: u32 = 0;
/// The role of the client that the flood is sent to.
const SINK: &str = "sink";
/// The bytes of frames that the flooder seals and writes together at most, beyond the first packet. It must have time
/// to read between writes.
const RUN_LEN: usize = 16 * 1024;
/// How long to wait for events before the time is checked.
const POLL_TIMEOUT: Duration = Duration::from_millis(50);

/// The job of the flooder, and of the sink.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FloodJob {
    pub(super) seed: KeySeed,
    pub(super) routes: FlowRoutes,
    pub(super) sizes: PacketSizes,
    /// Whether the flooder floods.
    pub(super) flood: bool,
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
}

/// The packets of the flood.
struct FloodSource<'a> {
    sink: NodePublic,
    sizes: &'a PacketSizes,
    builder: PacketBuilder,
    /// The number of the next packet.
    number: u64,
}

impl FloodSource<'_> {
    /// Sends the next packets of the flood.
    fn send(&mut self, link: &mut RelayLink, buffers: &mut LinkBuffers, now: u64) -> Result<()> {
        while buffers.frames.len() < RUN_LEN {
            let header = PacketHeader { flow: FLOODER, number: self.number, due: now };
            let packet = self.builder.build(&header, self.sizes.of(self.number));
            let frame = ClientFrame::SendPacket { to: self.sink, packet };
            link.protocol().encode(&frame, &mut buffers.frames);
            self.number += 1;
        }
        link.send(buffers)
    }
}

/// Does a [`FloodJob`] as the flooder, which also receives the packets of strangers.
pub(super) fn flood(target: &LoadTarget, job: &FloodJob, parent: &mut Parent) -> Result<ReceiverOutcome> {
    // The flood must not decide when the other processes send and receive.
    affinity::lower_priority()?;
    let mut poll = Poll::new()?;
    let mut clients =
        ReceivingClient::connect(target, &job.seed, job.routes, &[FLOODER], LoginOrder::Together)?;
    for client in &mut clients {
        client.link.register(poll.registry(), Token(0))?;
    }
    let sink = job.seed.key(SINK, 0).public();
    let mut source = FloodSource { sink, sizes: &job.sizes, builder: PacketBuilder::new(), number: 0 };
    parent.ready()?;
    let timeline = Timeline::new(parent.wait_to_proceed()?, job.warm_up, job.duration);
    let mut meter = UsageMeter::new(timeline.measure, timeline.end);
    let mut buffers = LinkBuffers::new();
    let mut recorder = ReceiveRecorder::new(timeline);
    let mut events = Events::with_capacity(8);
    let mut last_arrival = 0;
    clock::sleep_until(timeline.begin);
    loop {
        let now = clock::now();
        meter.update(now)?;
        let flooding = job.flood && now < timeline.end && !clients[0].link.is_blocked();
        poll::wait(&mut poll, &mut events, if flooding { Duration::ZERO } else { POLL_TIMEOUT })?;
        let before = recorder.all_received;
        for event in &events {
            if event.is_writable() && clients[0].link.is_blocked() {
                clients[0].link.flush()?;
            }
            clients[0].drain(&mut buffers, &mut recorder)?;
        }
        if recorder.all_received > before {
            last_arrival = now;
        }
        if flooding && !clients[0].link.is_blocked() {
            source.send(&mut clients[0].link, &mut buffers, now)?;
        }
        parent.report(now, || WorkerProgress { sent: source.number, ..recorder.progress(1) })?;
        if now >= timeline.end + QUIET && now >= last_arrival + QUIET {
            return Ok(recorder.finish(&clients, meter.usage()));
        }
    }
}

/// Does a [`FloodJob`] as the sink.
pub(super) fn sink(target: &LoadTarget, job: &FloodJob, parent: &mut Parent) -> Result<ReceiverOutcome> {
    // The flood must not decide when the other processes send and receive.
    affinity::lower_priority()?;
    let mut poll = Poll::new()?;
    let mut links = connect::connect_all(target, vec![job.seed.key(SINK, 0)], LoginOrder::Together)?;
    for link in &mut links {
        link.register(poll.registry(), Token(0))?;
    }
    let flooder = job.seed.key(RECEIVER, FLOODER).public();
    parent.ready()?;
    let timeline = Timeline::new(parent.wait_to_proceed()?, job.warm_up, job.duration);
    let mut meter = UsageMeter::new(timeline.measure, timeline.end);
    let mut buffers = LinkBuffers::new();
    let mut events = Events::with_capacity(8);
    let (mut outcome, mut sequence) = (ReceiverOutcome::default(), PacketSequence::default());
    while clock::now() < timeline.end + QUIET {
        poll::wait(&mut poll, &mut events, POLL_TIMEOUT)?;
        meter.update(clock::now())?;
        while !events.is_empty() {
            let in_time = timeline.measures(clock::now());
            let read = links[0].read(&mut buffers, |frame| {
                if let ServerFrame::RecvPacket { from, packet } = frame {
                    record(&mut outcome, &mut sequence, flooder, from, packet, in_time);
                }
            });
            match read.context("reading the flood")? {
                LinkRead::More => {}
                LinkRead::Drained => break,
                LinkRead::Closed => bail!("the relay closed the connection of the sink"),
            }
        }
        parent.report(clock::now(), || WorkerProgress {
            connections: 1,
            received: sequence.next(),
            damaged: outcome.damage.total(),
            ..Default::default()
        })?;
    }
    outcome.usage = meter.usage();
    Ok(outcome)
}

/// Records a packet of the flood.
fn record(
    outcome: &mut ReceiverOutcome,
    sequence: &mut PacketSequence,
    flooder: NodePublic,
    from: NodePublic,
    packet: &[u8],
    in_time: bool,
) {
    match packet::read(packet) {
        None => outcome.damage.corrupted += 1,
        Some(_) if from != flooder => outcome.damage.misrouted += 1,
        Some(header) => outcome.damage.count(sequence.record(header.number)),
    }
    if in_time {
        outcome.delivered += 1;
        outcome.delivered_bytes += packet.len() as u64;
    }
}
