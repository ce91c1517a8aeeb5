//! The worker process that sends STUN requests and checks the responses.
//!
//! It reads its sockets in turn, and waits for them only if none had a datagram. The kernel would tell an epoll about
//! each response while the server sends it, in the server's CPU time if both run on one machine: 5 to 7 % of the cost
//! of an answer.

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
use crate::process::{Parent, WorkerProgress};
use crate::target::LoadTarget;

/// A request without an answer after this time is lost.
const ANSWER_TIMEOUT: u64 = SECOND / 2;
/// How often lost requests are looked for, at least.
const SWEEP_INTERVAL: u64 = SECOND / 20;
/// The number of addresses in 127.0.0.0/8 that sockets are spread over if the server is on loopback.
const LOOPBACK_ADDRESSES: u32 = 250;

/// The job of one process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StunJob {
    pub(super) seed: KeySeed,
    /// The numbers of the sockets of this process.
    pub(super) sockets: Range<u32>,
    pub(super) window: u32,
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
}

/// The outcome of a [`StunJob`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct StunOutcome {
    pub(super) answers: u64,
    pub(super) wrong: u64,
    pub(super) stale: u64,
    pub(super) lost: u64,
    pub(super) latency: DurationHistogram,
    pub(super) usage: ThreadUsage,
}

impl StunOutcome {
    /// Adds the counts of another process, without its usage.
    pub(super) fn add(&mut self, other: &Self) {
        self.answers += other.answers;
        self.wrong += other.wrong;
        self.stale += other.stale;
        self.lost += other.lost;
        self.latency.add(&other.latency);
    }

    /// Counts a datagram that arrived in the measured time.
    fn count(&mut self, verdict: StunVerdict, now: u64) {
        match verdict {
            StunVerdict::Right { sent_at } => {
                self.answers += 1;
                self.latency.record(now - sent_at);
            }
            StunVerdict::Stale => self.stale += 1,
            StunVerdict::Wrong => self.wrong += 1,
        }
    }
}

/// The judgement on a received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StunVerdict {
    /// The answer to an outstanding request, which was sent at this time.
    Right { sent_at: u64 },
    /// The answer to a request that was answered before or given up.
    Stale,
    /// Any other datagram.
    Wrong,
}

/// A socket and its outstanding requests.
struct StunSocket {
    socket: BatchSocket,
    /// For each slot of the window, the number of the outstanding request and when it was sent.
    outstanding: Vec<Option<(u64, u64)>>,
    /// The number of the next request.
    number: u64,
}

/// Does a [`StunJob`].
pub(super) fn run(target: &LoadTarget, job: &StunJob, parent: &mut Parent) -> Result<StunOutcome> {
    open_files::allow_connections(job.sockets.len() as u64)?;
    let local = local_address(target.address)?;
    let mut sockets = Vec::with_capacity(job.sockets.len());
    for number in job.sockets.clone() {
        let address = SocketAddr::new(spread(local, number), 0);
        let socket =
            BatchSocket::new(towpath_udp::bind(address).with_context(|| format!("binding {address}"))?)?;
        sockets.push(StunSocket { socket, outstanding: vec![None; job.window as usize], number: 0 });
    }
    parent.ready()?;
    let timeline = Timeline::new(parent.wait_to_proceed()?, job.warm_up, job.duration);
    let [a, b, c, d, ..] = job.seed.secret;
    let requests = StunRequests {
        server: target.address,
        prefix: [a, b, c, d],
        batch: DatagramBatch::with_capacity(towpath_udp::BATCH_MAX),
    };
    clock::sleep_until(timeline.begin);
    exchange(sockets, requests, timeline, parent)
}

/// Sends requests and receives responses until the measured time is over.
fn exchange(
    mut sockets: Vec<StunSocket>,
    mut requests: StunRequests,
    timeline: Timeline,
    parent: &mut Parent,
) -> Result<StunOutcome> {
    let mut outcome = StunOutcome::default();
    let mut meter = UsageMeter::new(timeline.measure, timeline.end);
    let mut incoming = DatagramBatch::with_capacity(towpath_udp::BATCH_MAX);
    let (mut sweep_at, mut all_answers) = (0, 0);
    loop {
        let now = clock::now();
        meter.update(now)?;
        if now >= timeline.end {
            outcome.usage = meter.usage();
            return Ok(outcome);
        }
        if now >= sweep_at {
            sweep_at = now + SWEEP_INTERVAL;
            for socket in &mut sockets {
                let lost = socket.give_up(now);
                outcome.lost += if timeline.measures(now) { lost } else { 0 };
                socket.send_requests(&mut requests)?;
            }
        }
        let mut received = 0;
        for socket in &mut sockets {
            let datagrams = socket.receive(&mut incoming)?;
            if datagrams == 0 {
                continue;
            }
            received += datagrams;
            let now = clock::now();
            for datagram in incoming.iter() {
                let verdict = socket.judge(&requests, datagram.peer, datagram.payload);
                all_answers += u64::from(matches!(verdict, StunVerdict::Right { .. }));
                if timeline.measures(now) {
                    outcome.count(verdict, now);
                }
            }
            socket.send_requests(&mut requests)?;
        }
        if received == 0 {
            wait(&sockets)?;
        }
        let connections = sockets.len() as u64;
        parent.report(now, || WorkerProgress { connections, received: all_answers, ..Default::default() })?;
    }
}

/// Waits until a socket has a datagram, or lost requests are to be looked for.
fn wait(sockets: &[StunSocket]) -> Result<()> {
    let mut fds: Vec<_> = sockets.iter().map(|socket| PollFd::new(&socket.socket, PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: 0, tv_nsec: SWEEP_INTERVAL as i64 };
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error).context("waiting for STUN responses"),
    }
}

/// The parts that requests have in common.
struct StunRequests {
    server: SocketAddr,
    /// The first bytes of every transaction id. The request's number is the rest.
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
    /// Receives a batch of the datagrams that have arrived, and returns how many there are.
    fn receive(&self, batch: &mut DatagramBatch) -> Result<usize> {
        match self.socket.recv(batch) {
            Ok(()) => Ok(batch.len()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error).context("receiving a STUN response"),
        }
    }

    /// Judges a datagram from `peer`. The request that it answers is no longer outstanding.
    fn judge(&mut self, requests: &StunRequests, peer: SocketAddr, payload: &[u8]) -> StunVerdict {
        if peer != requests.server {
            return StunVerdict::Wrong;
        }
        let Ok(response) = Response::parse(payload) else { return StunVerdict::Wrong };
        let number = requests.number(response.transaction).filter(|number| *number < self.number);
        let Some(number) = number else { return StunVerdict::Wrong };
        let window = self.outstanding.len() as u64;
        let slot = &mut self.outstanding[(number % window) as usize];
        let request = slot.take_if(|(outstanding, _)| *outstanding == number);
        match request {
            _ if response.mapped != self.socket.local_addr() => StunVerdict::Wrong,
            Some((_, sent_at)) => StunVerdict::Right { sent_at },
            None => StunVerdict::Stale,
        }
    }

    /// Gives up the requests that have waited too long, and returns how many there are.
    fn give_up(&mut self, now: u64) -> u64 {
        let mut lost = 0;
        for slot in &mut self.outstanding {
            if slot.is_some_and(|(_, sent_at)| now >= sent_at + ANSWER_TIMEOUT) {
                *slot = None;
                lost += 1;
            }
        }
        lost
    }

    /// Sends requests until the window is full.
    fn send_requests(&mut self, requests: &mut StunRequests) -> Result<()> {
        let now = clock::now();
        let window = self.outstanding.len() as u64;
        let mut request = [0; REQUEST_LEN];
        for slot in 0..window {
            if self.outstanding[slot as usize].is_some() {
                continue;
            }
            // The next number that belongs in this slot.
            let number = self.number + (slot + window - self.number % window) % window;
            self.number = number + 1;
            self.outstanding[slot as usize] = Some((number, now));
            write_request(&mut request, requests.transaction(number));
            requests.batch.push(requests.server, LocalAddr::ANY, &request)?;
        }
        if requests.batch.is_empty() {
            return Ok(());
        }
        // A request that the kernel has no room for is lost like any other.
        match self.socket.send(&mut requests.batch).error {
            Some(error) => Err(error).context("sending a STUN request"),
            None => Ok(()),
        }
    }
}

/// The local address of the route to the server.
fn local_address(server: SocketAddr) -> Result<IpAddr> {
    let any: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { "[::]:0".parse()? };
    let probe = UdpSocket::bind(any)?;
    probe.connect(server).with_context(|| format!("no route to {server}"))?;
    Ok(probe.local_addr()?.ip())
}

/// The address of the socket `index`: on loopback, one of many, for all of 127.0.0.0/8 is local.
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
    use towpath_stun_proto::{RESPONSE_MAX_LEN, write_response};

    use super::*;

    fn socket(window: usize) -> StunSocket {
        let socket = BatchSocket::new(towpath_udp::bind("127.0.0.1:0".parse().unwrap()).unwrap()).unwrap();
        StunSocket { socket, outstanding: vec![None; window], number: 0 }
    }

    fn requests() -> (UdpSocket, StunRequests) {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let requests = StunRequests {
            server: server.local_addr().unwrap(),
            prefix: *b"seed",
            batch: DatagramBatch::with_capacity(64),
        };
        (server, requests)
    }

    fn response(transaction: TransactionId, client: SocketAddr) -> Vec<u8> {
        let mut out = [0; RESPONSE_MAX_LEN];
        let len = write_response(&mut out, transaction, client);
        out[..len].to_vec()
    }

    #[test]
    fn a_response_counts_once_and_only_if_it_is_right() {
        let (_server, mut requests) = requests();
        let mut socket = socket(3);
        socket.send_requests(&mut requests).unwrap();
        assert_eq!(socket.number, 3);
        let server = requests.server;
        let own = socket.socket.local_addr();
        let right = response(requests.transaction(1), own);
        assert!(matches!(socket.judge(&requests, server, &right), StunVerdict::Right { .. }));
        assert_eq!(socket.judge(&requests, server, &right), StunVerdict::Stale);
        let foreign = SocketAddr::new(own.ip(), own.port() ^ 1);
        for wrong in [
            response(requests.transaction(0), foreign),
            response(requests.transaction(5), own),
            response(TransactionId([9; 12]), own),
            b"nonsense".to_vec(),
        ] {
            assert_eq!(socket.judge(&requests, server, &wrong), StunVerdict::Wrong);
        }
        // Two slots are free: that of request 1, and that of request 0, which was answered wrongly.
        socket.send_requests(&mut requests).unwrap();
        let numbers: Vec<_> = socket.outstanding.iter().map(|slot| slot.unwrap().0).collect();
        assert_eq!(numbers, [3, 4, 2]);
        assert_eq!((socket.give_up(clock::now()), socket.give_up(clock::now() + ANSWER_TIMEOUT)), (0, 3));
    }

    #[test]
    fn a_datagram_from_another_peer_is_wrong() {
        let (_server, mut requests) = requests();
        let mut socket = socket(1);
        socket.send_requests(&mut requests).unwrap();
        let right = response(requests.transaction(0), socket.socket.local_addr());
        let stranger = SocketAddr::new(requests.server.ip(), requests.server.port() ^ 1);
        assert_eq!(socket.judge(&requests, stranger, &right), StunVerdict::Wrong);
        assert!(matches!(socket.judge(&requests, requests.server, &right), StunVerdict::Right { .. }));
    }

    #[test]
    fn only_loopback_sockets_are_spread_over_addresses() {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(spread(loopback, 250), loopback);
        assert_eq!(spread(loopback, 249), IpAddr::from([127, 0, 0, 250]));
        let other = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(spread(other, 7), other);
    }
}
