//! The client that floods, and the sink that it sends to: a process each.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use mio::{Events, Poll, Token};
use serde::{Deserialize, Serialize};
use towpath_wire::derp::frame::{ClientFrame, ServerFrame};

use super::FLOODER;
use crate::clock;
use crate::flow::packet::{self, Composer, Label};
use crate::flow::receiver::{Inbox, Ledger, QUIET, Receipts};
use crate::flow::schedule::{Routes, Timeline};
use crate::flow::sender::RECEIVER;
use crate::flow::tally::{Place, Sequence};
use crate::host::usage::Stopwatch;
use crate::net::connect::{self, Logins, Seed};
use crate::net::link::{ReadOutcome, Scratch};
use crate::scenario::pairs::Sizes;
use crate::target::Target;
use crate::worker::Desk;
use crate::workers::{Message, Progress};

/// The role of whoever gets the flood.
const SINK: &str = "sink";
/// What the flooder seals and writes together at most, and at least one packet: it must come to reading, too.
const RUN_LEN: usize = 16 * 1024;
/// How often the time is looked at while nothing happens.
const PATIENCE: Duration = Duration::from_millis(50);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(super) seed: Seed,
    pub(super) routes: Routes,
    pub(super) sizes: Sizes,
    pub(super) flood: bool,
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
}

/// The part of the client that floods.
pub(crate) fn flood(target: &Target, job: &Job, desk: &mut Desk) -> Result<Receipts> {
    let mut poll = Poll::new()?;
    let mut inboxes = Inbox::connect(target, &job.seed, job.routes, &[FLOODER], Logins::Together)?;
    for inbox in &mut inboxes {
        inbox.link.register(poll.registry(), Token(0))?;
    }
    let to = job.seed.key(SINK, 0).public();
    desk.say(&Message::Ready)?;
    let timeline = Timeline::new(desk.wait_for_go()?, job.warm_up, job.duration);
    let mut stopwatch = Stopwatch::new(timeline.measure, timeline.end);
    let (mut scratch, mut composer) = (Scratch::new(), Composer::new());
    let mut ledger = Ledger::new(timeline);
    let mut events = Events::with_capacity(8);
    let (mut number, mut last_came) = (0, 0);
    clock::sleep_until(timeline.begin);
    loop {
        let now = clock::now();
        stopwatch.pass(now)?;
        let flooding = job.flood && now < timeline.end && !inboxes[0].link.is_blocked();
        match poll.poll(&mut events, Some(if flooding { Duration::ZERO } else { PATIENCE })) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        let before = ledger.all_received;
        for event in &events {
            if event.is_writable() && inboxes[0].link.is_blocked() {
                inboxes[0].link.flush()?;
            }
            inboxes[0].drain(&mut scratch, &mut ledger)?;
        }
        if ledger.all_received > before {
            last_came = now;
        }
        if flooding && !inboxes[0].link.is_blocked() {
            while scratch.frames.len() < RUN_LEN {
                let packet =
                    composer.compose(&Label { flow: FLOODER, number, due: now }, job.sizes.of(number));
                let frame = ClientFrame::SendPacket { to, packet };
                inboxes[0].link.protocol().encode(&frame, &mut scratch.frames);
                number += 1;
            }
            inboxes[0].link.send(&mut scratch)?;
        }
        desk.report(now, || Progress { sent: number, ..ledger.progress(1) })?;
        if now >= timeline.end + QUIET && now >= last_came + QUIET {
            return Ok(ledger.close(&inboxes, stopwatch.usage()));
        }
    }
}

/// The part of the client that gets the flood.
pub(crate) fn sink(target: &Target, job: &Job, desk: &mut Desk) -> Result<Receipts> {
    let mut poll = Poll::new()?;
    let mut links = connect::connect_all(target, vec![job.seed.key(SINK, 0)], Logins::Together)?;
    for link in &mut links {
        link.register(poll.registry(), Token(0))?;
    }
    let flooder = job.seed.key(RECEIVER, FLOODER).public();
    desk.say(&Message::Ready)?;
    let timeline = Timeline::new(desk.wait_for_go()?, job.warm_up, job.duration);
    let mut stopwatch = Stopwatch::new(timeline.measure, timeline.end);
    let mut scratch = Scratch::new();
    let mut events = Events::with_capacity(8);
    let (mut receipts, mut sequence) = (Receipts::default(), Sequence::default());
    while clock::now() < timeline.end + QUIET {
        match poll.poll(&mut events, Some(PATIENCE)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        stopwatch.pass(clock::now())?;
        while !events.is_empty() {
            let in_time = timeline.measures(clock::now());
            let outcome = links[0].read(&mut scratch, |frame| {
                let ServerFrame::RecvPacket { from, packet } = frame else { return };
                let damage = &mut receipts.damage;
                match packet::read(packet) {
                    None => damage.corrupted += 1,
                    Some(_) if from != flooder => damage.misrouted += 1,
                    Some(label) => match sequence.note(label.number) {
                        Place::Next => {}
                        Place::Reordered => damage.reordered += 1,
                        Place::Duplicate => damage.duplicated += 1,
                    },
                }
                if in_time {
                    receipts.delivered += 1;
                    receipts.delivered_bytes += packet.len() as u64;
                }
            });
            match outcome.context("the sink")? {
                ReadOutcome::More => {}
                ReadOutcome::Drained => break,
                ReadOutcome::Closed => bail!("the relay has closed on the sink"),
            }
        }
        desk.report(clock::now(), || Progress {
            connections: 1,
            received: sequence.next(),
            damaged: receipts.damage.total(),
            ..Default::default()
        })?;
    }
    receipts.usage = stopwatch.usage();
    Ok(receipts)
}
