//! The process that asks, and judges the answers.
//!
//! It looks at its sockets in turn, and waits for them only when none had anything. An epoll would be told of each answer
//! while the server sends it, in the server's time where both are one machine: that would be 5 to 7 % of what an answer
//! seems to cost.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use towpath_stun_proto::{REQUEST_LEN, Response, TransactionId, write_request};
use towpath_udp::{BatchSocket, DatagramBatch, LocalAddr};

use crate::clock::{self, SECOND};
use crate::flow::schedule::Timeline;
use crate::histogram::DurationHistogram;
use crate::host::open_files;
use crate::host::usage::{ThreadUsage, UsageMeter};
use crate::net::connect::KeySeed;
use crate::target::LoadTarget;
use crate::worker::Parent;
use crate::workers::{WorkerMessage, WorkerProgress};

/// A request without an answer for so long is lost.
const PATIENCE: u64 = SECOND / 2;
/// How often lost requests are looked for, at least.
const SWEEP: u64 = SECOND / 20;
/// Addresses of 127.0.0.0/16 that sockets are spread over, where the server is on loopback.
const LOOPBACK_ADDRESSES: u32 = 250;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StunJob {
    pub(super) seed: KeySeed,
    /// The numbers of its sockets.
    pub(super) sockets: Range<u32>,
    pub(super) window: u32,
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
}

/// What a process did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct StunOutcome {
    pub(super) answers: u64,
    pub(super) wrong: u64,
    pub(super) stale: u64,
    pub(super) lost: u64,
    pub(super) latency: DurationHistogram,
    pub(super) usage: ThreadUsage,
}

/// What a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StunVerdict {
    /// The answer to a request that waits, made then.
    Right(u64),
    /// To one that was answered before, or given up.
    Stale,
    /// Anything else.
    Wrong,
}

/// A socket, and its requests that wait.
struct StunSocket {
    socket: BatchSocket,
    /// Of each place in the window, the number of the request and when it was made.
    waiting: Vec<Option<(u64, u64)>>,
    /// The next request.
    number: u64,
}

/// The part of one process.
pub(crate) fn work(target: &LoadTarget, job: &StunJob, parent: &mut Parent) -> Result<StunOutcome> {
    open_files::allow_connections(job.sockets.len() as u64)?;
    let local = local_address(target.address)?;
    let mut askers = Vec::with_capacity(job.sockets.len());
    for number in job.sockets.clone() {
        let address = SocketAddr::new(spread(local, number), 0);
        let socket =
            BatchSocket::new(towpath_udp::bind(address).with_context(|| format!("binding {address}"))?)?;
        askers.push(StunSocket { socket, waiting: vec![None; job.window as usize], number: 0 });
    }
    parent.send(&WorkerMessage::Ready)?;
    let timeline = Timeline::new(parent.wait_to_proceed()?, job.warm_up, job.duration);
    let [a, b, c, d, ..] = job.seed.secret;
    let questions = StunRequests {
        server: target.address,
        prefix: [a, b, c, d],
        batch: DatagramBatch::with_capacity(towpath_udp::BATCH_MAX),
    };
    clock::sleep_until(timeline.begin);
    ask(askers, questions, timeline, parent)
}

fn ask(
    mut askers: Vec<StunSocket>,
    mut questions: StunRequests,
    timeline: Timeline,
    parent: &mut Parent,
) -> Result<StunOutcome> {
    let mut did = StunOutcome::default();
    let mut meter = UsageMeter::new(timeline.measure, timeline.end);
    let mut incoming = DatagramBatch::with_capacity(towpath_udp::BATCH_MAX);
    let (mut sweep_at, mut all_answers) = (0, 0);
    loop {
        let now = clock::now();
        meter.pass(now)?;
        if now >= timeline.end {
            did.usage = meter.usage();
            return Ok(did);
        }
        if now >= sweep_at {
            sweep_at = now + SWEEP;
            for asker in &mut askers {
                let lost = asker.forget(now);
                did.lost += if timeline.measures(now) { lost } else { 0 };
                asker.fill(&mut questions)?;
            }
        }
        let mut found = 0;
        for asker in &mut askers {
            let came = asker.receive(&mut incoming)?;
            if came == 0 {
                continue;
            }
            found += came;
            let now = clock::now();
            let counts = timeline.measures(now);
            for datagram in incoming.iter() {
                let answer = match datagram.peer == questions.server {
                    true => asker.judge(&questions, datagram.payload),
                    false => StunVerdict::Wrong,
                };
                all_answers += u64::from(matches!(answer, StunVerdict::Right(_)));
                match answer {
                    _ if !counts => {}
                    StunVerdict::Right(asked) => {
                        did.answers += 1;
                        did.latency.record(now - asked);
                    }
                    StunVerdict::Stale => did.stale += 1,
                    StunVerdict::Wrong => did.wrong += 1,
                }
            }
            asker.fill(&mut questions)?;
        }
        if found == 0 {
            wait(&askers)?;
        }
        let connections = askers.len() as u64;
        parent.report(now, || WorkerProgress { connections, received: all_answers, ..Default::default() })?;
    }
}

/// Waits until a socket has something, or lost requests are to be looked for.
fn wait(askers: &[StunSocket]) -> Result<()> {
    let mut fds: Vec<_> = askers.iter().map(|asker| PollFd::new(&asker.socket, PollFlags::IN)).collect();
    let at_most = Timespec { tv_sec: 0, tv_nsec: SWEEP as i64 };
    match poll(&mut fds, Some(&at_most)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error).context("waiting for answers"),
    }
}

/// What requests have in common.
struct StunRequests {
    server: SocketAddr,
    /// The first bytes of every transaction id; the rest is the request's number.
    prefix: [u8; 4],
    batch: DatagramBatch,
}

impl StunRequests {
    fn transaction(&self, number: u64) -> TransactionId {
        let mut id = [0; 12];
        id[..4].copy_from_slice(&self.prefix);
        id[4..].copy_from_slice(&number.to_be_bytes());
        TransactionId(id)
    }

    fn number(&self, TransactionId(id): TransactionId) -> Option<u64> {
        let number = id.strip_prefix(&self.prefix)?;
        Some(u64::from_be_bytes(number.try_into().ok()?))
    }
}

impl StunSocket {
    /// Takes what has come, up to a batch; how many datagrams.
    fn receive(&self, batch: &mut DatagramBatch) -> Result<usize> {
        match self.socket.recv(batch) {
            Ok(()) => Ok(batch.len()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error).context("receiving an answer"),
        }
    }

    /// What a datagram of the server is. The request that it answers waits no longer.
    fn judge(&mut self, questions: &StunRequests, payload: &[u8]) -> StunVerdict {
        let Ok(response) = Response::parse(payload) else { return StunVerdict::Wrong };
        let number = questions.number(response.transaction).filter(|number| *number < self.number);
        let Some(number) = number else { return StunVerdict::Wrong };
        let window = self.waiting.len() as u64;
        let place = &mut self.waiting[(number % window) as usize];
        let asked = place.take_if(|(waiting, _)| *waiting == number);
        match asked {
            _ if response.mapped != self.socket.local_addr() => StunVerdict::Wrong,
            Some((_, at)) => StunVerdict::Right(at),
            None => StunVerdict::Stale,
        }
    }

    /// Gives up on requests that have waited too long; how many.
    fn forget(&mut self, now: u64) -> u64 {
        let mut lost = 0;
        for place in &mut self.waiting {
            if place.is_some_and(|(_, at)| now >= at + PATIENCE) {
                *place = None;
                lost += 1;
            }
        }
        lost
    }

    /// Asks until the window is full.
    fn fill(&mut self, questions: &mut StunRequests) -> Result<()> {
        let now = clock::now();
        let window = self.waiting.len() as u64;
        let mut request = [0; REQUEST_LEN];
        for place in 0..window {
            if self.waiting[place as usize].is_some() {
                continue;
            }
            // The next number that belongs to this place.
            let number = self.number + (place + window - self.number % window) % window;
            self.number = number + 1;
            self.waiting[place as usize] = Some((number, now));
            write_request(&mut request, questions.transaction(number));
            questions.batch.push(questions.server, LocalAddr::ANY, &request)?;
        }
        if questions.batch.is_empty() {
            return Ok(());
        }
        // What the kernel has no room for is lost like any other request.
        match self.socket.send(&mut questions.batch).error {
            Some(error) => Err(error).context("sending a request"),
            None => Ok(()),
        }
    }
}

/// Our address on the way to the server.
fn local_address(server: SocketAddr) -> Result<IpAddr> {
    let any: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { "[::]:0".parse()? };
    let probe = UdpSocket::bind(any)?;
    probe.connect(server).with_context(|| format!("there is no way to {server}"))?;
    Ok(probe.local_addr()?.ip())
}

/// The address of a socket: all of 127.0.0.0/8 is ours.
fn spread(local: IpAddr, index: u32) -> IpAddr {
    match local {
        IpAddr::V4(address) if address.is_loopback() => {
            let last = (index % LOOPBACK_ADDRESSES + 1) as u8;
            Ipv4Addr::new(127, 0, 0, last).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use towpath_stun_proto::{RESPONSE_MAX_LEN, write_response};

    fn asker(window: usize) -> StunSocket {
        let socket = BatchSocket::new(towpath_udp::bind("127.0.0.1:0".parse().unwrap()).unwrap()).unwrap();
        StunSocket { socket, waiting: vec![None; window], number: 0 }
    }

    fn questions() -> (UdpSocket, StunRequests) {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let questions = StunRequests {
            server: server.local_addr().unwrap(),
            prefix: *b"seed",
            batch: DatagramBatch::with_capacity(64),
        };
        (server, questions)
    }

    fn response(transaction: TransactionId, client: SocketAddr) -> Vec<u8> {
        let mut out = [0; RESPONSE_MAX_LEN];
        let len = write_response(&mut out, transaction, client);
        out[..len].to_vec()
    }

    #[test]
    fn an_answer_counts_once_and_only_when_it_is_right() {
        let (_server, mut questions) = questions();
        let mut asker = asker(3);
        asker.fill(&mut questions).unwrap();
        assert_eq!(asker.number, 3);
        let own = asker.socket.local_addr();
        let right = response(questions.transaction(1), own);
        assert!(matches!(asker.judge(&questions, &right), StunVerdict::Right(_)));
        assert_eq!(asker.judge(&questions, &right), StunVerdict::Stale);
        let foreign = SocketAddr::new(own.ip(), own.port() ^ 1);
        assert_eq!(asker.judge(&questions, &response(questions.transaction(0), foreign)), StunVerdict::Wrong);
        assert_eq!(asker.judge(&questions, &response(questions.transaction(5), own)), StunVerdict::Wrong);
        assert_eq!(asker.judge(&questions, &response(TransactionId([9; 12]), own)), StunVerdict::Wrong);
        assert_eq!(asker.judge(&questions, b"nonsense"), StunVerdict::Wrong);
        // Two places are free: that of 1, and that of 0 which was answered wrongly.
        asker.fill(&mut questions).unwrap();
        let numbers: Vec<_> = asker.waiting.iter().map(|place| place.unwrap().0).collect();
        assert_eq!(numbers, [3, 4, 2]);
        assert_eq!((asker.forget(clock::now()), asker.forget(clock::now() + PATIENCE)), (0, 3));
    }

    #[test]
    fn sockets_are_spread_over_loopback_only() {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(spread(loopback, 250), loopback);
        assert_eq!(spread(loopback, 249), IpAddr::from([127, 0, 0, 250]));
        let other = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(spread(other, 7), other);
    }
}
