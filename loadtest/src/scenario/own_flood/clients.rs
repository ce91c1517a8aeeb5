//! The client that floods, and the sink that it sends to: a process each.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use mio::{Events, Poll, Token};
use serde::{Deserialize, Serialize};
use towpath_wire::derp::frame::{ClientFrame, ServerFrame};

use super::FLOODER;
use crate::clock;
use crate::flow::packet::{self, PacketBuilder, PacketHeader};
use crate::flow::receiver::{QUIET, ReceiveOutcome, ReceiveRecorder, ReceivingClient};
use crate::flow::schedule::{FlowRoutes, Timeline};
use crate::flow::sender::RECEIVER;
use crate::flow::sequence::{PacketOrder, PacketSequence};
use crate::host::usage::UsageMeter;
use crate::net::connect::{self, KeySeed, LoginOrder};
use crate::net::link::{LinkBuffers, LinkRead};
use crate::scenario::pairs::PacketSizes;
use crate::target::LoadTarget;
use crate::worker::Parent;
use crate::workers::{WorkerMessage, WorkerProgress};

/// The role of whoever gets the flood.
const SINK: &str = "sink";
/// What the flooder seals and writes together at most, and at least one packet: it must come to reading, too.
const RUN_LEN: usize = 16 * 1024;
/// How often the time is looked at while nothing happens.
const PATIENCE: Duration = Duration::from_millis(50);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FloodJob {
    pub(super) seed: KeySeed,
    pub(super) routes: FlowRoutes,
    pub(super) sizes: PacketSizes,
    pub(super) flood: bool,
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
}

/// The part of the client that floods.
pub(crate) fn flood(target: &LoadTarget, job: &FloodJob, parent: &mut Parent) -> Result<ReceiveOutcome> {
    let mut poll = Poll::new()?;
    let mut clients =
        ReceivingClient::connect(target, &job.seed, job.routes, &[FLOODER], LoginOrder::Together)?;
    for client in &mut clients {
        client.link.register(poll.registry(), Token(0))?;
    }
    let to = job.seed.key(SINK, 0).public();
    parent.send(&WorkerMessage::Ready)?;
    let timeline = Timeline::new(parent.wait_to_proceed()?, job.warm_up, job.duration);
    let mut meter = UsageMeter::new(timeline.measure, timeline.end);
    let (mut buffers, mut builder) = (LinkBuffers::new(), PacketBuilder::new());
    let mut recorder = ReceiveRecorder::new(timeline);
    let mut events = Events::with_capacity(8);
    let (mut number, mut last_came) = (0, 0);
    clock::sleep_until(timeline.begin);
    loop {
        let now = clock::now();
        meter.pass(now)?;
        let flooding = job.flood && now < timeline.end && !clients[0].link.is_blocked();
        match poll.poll(&mut events, Some(if flooding { Duration::ZERO } else { PATIENCE })) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        let before = recorder.all_received;
        for event in &events {
            if event.is_writable() && clients[0].link.is_blocked() {
                clients[0].link.flush()?;
            }
            clients[0].drain(&mut buffers, &mut recorder)?;
        }
        if recorder.all_received > before {
            last_came = now;
        }
        if flooding && !clients[0].link.is_blocked() {
            while buffers.frames.len() < RUN_LEN {
                let packet =
                    builder.build(&PacketHeader { flow: FLOODER, number, due: now }, job.sizes.of(number));
                let frame = ClientFrame::SendPacket { to, packet };
                clients[0].link.protocol().encode(&frame, &mut buffers.frames);
                number += 1;
            }
            clients[0].link.send(&mut buffers)?;
        }
        parent.report(now, || WorkerProgress { sent: number, ..recorder.progress(1) })?;
        if now >= timeline.end + QUIET && now >= last_came + QUIET {
            return Ok(recorder.close(&clients, meter.usage()));
        }
    }
}

/// The part of the client that gets the flood.
pub(crate) fn sink(target: &LoadTarget, job: &FloodJob, parent: &mut Parent) -> Result<ReceiveOutcome> {
    let mut poll = Poll::new()?;
    let mut links = connect::connect_all(target, vec![job.seed.key(SINK, 0)], LoginOrder::Together)?;
    for link in &mut links {
        link.register(poll.registry(), Token(0))?;
    }
    let flooder = job.seed.key(RECEIVER, FLOODER).public();
    parent.send(&WorkerMessage::Ready)?;
    let timeline = Timeline::new(parent.wait_to_proceed()?, job.warm_up, job.duration);
    let mut meter = UsageMeter::new(timeline.measure, timeline.end);
    let mut buffers = LinkBuffers::new();
    let mut events = Events::with_capacity(8);
    let (mut receipts, mut sequence) = (ReceiveOutcome::default(), PacketSequence::default());
    while clock::now() < timeline.end + QUIET {
        match poll.poll(&mut events, Some(PATIENCE)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        meter.pass(clock::now())?;
        while !events.is_empty() {
            let in_time = timeline.measures(clock::now());
            let outcome = links[0].read(&mut buffers, |frame| {
                let ServerFrame::RecvPacket { from, packet } = frame else { return };
                let damage = &mut receipts.damage;
                match packet::read(packet) {
                    None => damage.corrupted += 1,
                    Some(_) if from != flooder => damage.misrouted += 1,
                    Some(header) => match sequence.note(header.number) {
                        PacketOrder::Next => {}
                        PacketOrder::Reordered => damage.reordered += 1,
                        PacketOrder::Duplicate => damage.duplicated += 1,
                    },
                }
                if in_time {
                    receipts.delivered += 1;
                    receipts.delivered_bytes += packet.len() as u64;
                }
            });
            match outcome.context("the sink")? {
                LinkRead::More => {}
                LinkRead::Drained => break,
                LinkRead::Closed => bail!("the relay has closed on the sink"),
            }
        }
        parent.report(clock::now(), || WorkerProgress {
            connections: 1,
            received: sequence.next(),
            damaged: receipts.damage.total(),
            ..Default::default()
        })?;
    }
    receipts.usage = meter.usage();
    Ok(receipts)
}
