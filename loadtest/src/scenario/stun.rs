//! STUN: Binding requests from many sockets, so many of each on their way at a time.
//!
//! The loop is closed: what is measured is how many a server answers and what that costs it, not how it behaves when it
//! is asked for more. An answer counts when it is for a request that waits and names the address that asked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use serde::{Deserialize, Serialize};
use stun_proto::{REQUEST_LEN, Response, TransactionId, write_request};
use udp::{Batch, BatchSocket, LocalAddr};

use crate::clock::{self, SECOND};
use crate::connect::Seed;
use crate::crew::{Crew, Message, Progress, Setup};
use crate::flow::schedule::Timeline;
use crate::histogram::{Durations, Quantiles};
use crate::machine::{self, Stopwatch, Usage};
use crate::plot::{self, Plot};
use crate::report::{Report, Row, Unit};
use crate::scenario::pairs::MAX_OCCUPANCY;
use crate::server::ServerUsage;
use crate::target::Target;
use crate::worker::{self, Desk, Outcome};

/// A request without an answer for so long is lost.
const PATIENCE: u64 = SECOND / 2;
/// How often lost requests are looked for.
const SWEEP: u64 = SECOND / 20;
/// Addresses of 127.0.0.0/16 that sockets are spread over, where the server is on loopback.
const LOOPBACK_ADDRESSES: u32 = 250;

/// What load to make.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Sockets that ask.
    pub sockets: u32,
    /// Requests of each on their way at a time, 1 to 64.
    pub window: u32,
    /// Processes that ask, the sockets divided among them.
    pub processes: u32,
    /// Before figures count.
    pub warm_up: Duration,
    /// While figures count.
    pub duration: Duration,
}

/// What came of it, in the measured time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StunReport {
    /// The length of the measured time in nanoseconds.
    pub measured: u64,
    /// Right answers.
    pub answers: u64,
    /// Datagrams that are no answer to any request, or name another address than that which asked.
    pub wrong: u64,
    /// Right answers to requests that were answered before, or given up.
    pub stale: u64,
    /// Requests without an answer in half a second.
    pub lost: u64,
    /// From request to answer.
    pub latency: Quantiles,
    /// Of each process.
    pub usage: Vec<Usage>,
    /// Of the server.
    pub server: Option<ServerUsage>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    seed: Seed,
    /// The first socket's number, and how many there are.
    first: u32,
    sockets: u32,
    window: u32,
    warm_up: Duration,
    duration: Duration,
}

/// What a process did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Asked {
    answers: u64,
    wrong: u64,
    stale: u64,
    lost: u64,
    latency: Durations,
    usage: Usage,
}

/// Makes the load and says what came of it.
///
/// # Errors
///
/// If a process cannot be started or a socket not be bound.
pub fn run(setup: &Setup, plan: &Plan) -> Result<StunReport> {
    if plan.processes == 0 || plan.sockets < plan.processes || plan.duration.is_zero() {
        bail!("there must be a process, a socket for each, and a duration");
    }
    if !(1..=udp::BATCH_MAX as u32).contains(&plan.window) {
        bail!("a window is of 1 to {} requests", udp::BATCH_MAX);
    }
    let seed = Seed::new(&setup.target)?;
    let at = |process: u32| (u64::from(plan.sockets) * u64::from(process) / u64::from(plan.processes)) as u32;
    let jobs = (0..plan.processes).map(|process| {
        worker::Job::Stun(Job {
            seed,
            first: at(process),
            sockets: at(process + 1) - at(process),
            window: plan.window,
            warm_up: plan.warm_up,
            duration: plan.duration,
        })
    });
    let mut crew = Crew::start(setup, jobs.collect())?;
    let server = crew.measure(setup.server()?, plan.warm_up, plan.duration)?;
    let (mut all, mut usage) = (Asked::default(), Vec::new());
    for outcome in crew.outcomes()? {
        let Outcome::Asked(did) = outcome else { continue };
        all.answers += did.answers;
        all.wrong += did.wrong;
        all.stale += did.stale;
        all.lost += did.lost;
        all.latency.add(&did.latency);
        usage.push(did.usage);
    }
    let Asked { answers, wrong, stale, lost, latency, .. } = all;
    let measured = clock::nanos(plan.duration);
    Ok(StunReport { measured, answers, wrong, stale, lost, latency: latency.quantiles(), usage, server })
}

/// What a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// The answer to a request that waits, made then.
    Right(u64),
    /// To one that was answered before, or given up.
    Stale,
    /// Anything else.
    Wrong,
}

/// A socket, and its requests that wait.
struct Asker {
    socket: BatchSocket,
    /// Of each place in the window, the number of the request and when it was made.
    waiting: Vec<Option<(u64, u64)>>,
    /// The next request.
    number: u64,
}

/// The part of one process.
pub(crate) fn work(target: &Target, job: &Job, desk: &mut Desk) -> Result<Asked> {
    machine::allow_connections(job.sockets.into())?;
    let poll = Poll::new()?;
    let local = local_address(target.address)?;
    let mut askers = Vec::with_capacity(job.sockets as usize);
    for index in 0..job.sockets {
        let address = SocketAddr::new(spread(local, job.first + index), 0);
        let socket = BatchSocket::new(udp::bind(address).with_context(|| format!("binding {address}"))?)?;
        SourceFd(&socket.as_raw_fd()).register(poll.registry(), Token(index as usize), Interest::READABLE)?;
        askers.push(Asker { socket, waiting: vec![None; job.window as usize], number: 0 });
    }
    desk.say(&Message::Ready)?;
    let timeline = Timeline::new(desk.wait_for_go()?, job.warm_up, job.duration);
    let [a, b, c, d, ..] = job.seed.secret;
    let questions = Questions {
        server: target.address,
        prefix: [a, b, c, d],
        batch: Batch::with_capacity(udp::BATCH_MAX),
    };
    clock::sleep_until(timeline.begin);
    ask(askers, questions, timeline, poll, desk)
}

fn ask(
    mut askers: Vec<Asker>,
    mut questions: Questions,
    timeline: Timeline,
    mut poll: Poll,
    desk: &mut Desk,
) -> Result<Asked> {
    let mut did = Asked::default();
    let mut stopwatch = Stopwatch::new(timeline.measure, timeline.end);
    let mut events = Events::with_capacity(1024);
    let mut incoming = Batch::with_capacity(udp::BATCH_MAX);
    let (mut sweep_at, mut all_answers) = (0, 0);
    loop {
        let now = clock::now();
        stopwatch.pass(now)?;
        if now >= timeline.end {
            did.usage = stopwatch.usage();
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
        match poll.poll(&mut events, Some(Duration::from_nanos(SWEEP))) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            let asker = &mut askers[event.token().0];
            while asker.receive(&mut incoming)? {
                let now = clock::now();
                let counts = timeline.measures(now);
                for datagram in incoming.iter() {
                    let answer = match datagram.peer == questions.server {
                        true => asker.judge(&questions, datagram.payload),
                        false => Answer::Wrong,
                    };
                    all_answers += u64::from(matches!(answer, Answer::Right(_)));
                    match answer {
                        _ if !counts => {}
                        Answer::Right(asked) => {
                            did.answers += 1;
                            did.latency.record(now - asked);
                        }
                        Answer::Stale => did.stale += 1,
                        Answer::Wrong => did.wrong += 1,
                    }
                }
            }
            asker.fill(&mut questions)?;
        }
        let connections = askers.len() as u64;
        desk.report(now, || Progress { connections, received: all_answers, ..Default::default() })?;
    }
}

/// What requests have in common.
struct Questions {
    server: SocketAddr,
    /// The first bytes of every transaction id; the rest is the request's number.
    prefix: [u8; 4],
    batch: Batch,
}

impl Questions {
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

impl Asker {
    /// Takes what has come; whether there was anything.
    fn receive(&self, batch: &mut Batch) -> Result<bool> {
        match self.socket.recv(batch) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error).context("receiving an answer"),
        }
    }

    /// What a datagram of the server is. The request that it answers waits no longer.
    fn judge(&mut self, questions: &Questions, payload: &[u8]) -> Answer {
        let Ok(response) = Response::parse(payload) else { return Answer::Wrong };
        let number = questions.number(response.transaction).filter(|number| *number < self.number);
        let Some(number) = number else { return Answer::Wrong };
        let window = self.waiting.len() as u64;
        let place = &mut self.waiting[(number % window) as usize];
        let asked = place.take_if(|(waiting, _)| *waiting == number);
        match asked {
            _ if response.mapped != self.socket.local_addr() => Answer::Wrong,
            Some((_, at)) => Answer::Right(at),
            None => Answer::Stale,
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
    fn fill(&mut self, questions: &mut Questions) -> Result<()> {
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

impl Report for StunReport {
    fn scenario(&self) -> &'static str {
        "stun"
    }

    fn rows(&self) -> Vec<Row> {
        let limited = self.is_too_slow();
        let figure = |value: f64| (!limited).then_some(value);
        let rate = self.answers as f64 * SECOND as f64 / self.measured as f64;
        let server = |value: &dyn Fn(&ServerUsage) -> f64| self.server.as_ref().map(value);
        vec![
            // Not subject to who was the limit: CPU time is spent for an answer, however long it waits.
            Row::new(
                "answers for the server's CPU",
                Unit::AnswersPerCpuSecond,
                server(&|server| self.answers as f64 * SECOND as f64 / server.cpu.max(1) as f64),
            ),
            Row::new("answers", Unit::AnswersPerSecond, figure(rate)),
            Row::new("time to answer p50", Unit::Time, figure(self.latency.p50 as f64)),
            Row::new("time to answer p99", Unit::Time, figure(self.latency.p99 as f64)),
            Row::new("right answers", Unit::Count, Some(self.answers as f64)),
            Row::new("wrong answers", Unit::Count, Some(self.wrong as f64)),
            Row::new("answers too late, or again", Unit::Count, Some(self.stale as f64)),
            Row::new("requests lost", Unit::Count, Some(self.lost as f64)),
            Row::new(
                "server CPUs busy",
                Unit::Percent,
                server(&|server| server.cpu as f64 / server.wall.max(1) as f64 * 100.0),
            ),
            Row::new("busiest process", Unit::Percent, Some(self.occupancy() * 100.0)),
        ]
    }

    fn remarks(&self) -> Vec<String> {
        let rate = self.answers as f64 * SECOND as f64 / self.measured as f64;
        let limited = self.is_too_slow().then(|| {
            format!("THE LOAD GENERATOR WAS THE LIMIT, so there is no rate: the server can do more than {rate:.0} a second")
        });
        limited.into_iter().collect()
    }

    fn plots(&self) -> Vec<Plot> {
        let shown = (!self.is_too_slow()).then_some(("time to answer", self.latency));
        plot::of_quantiles("From request to answer", shown.as_slice()).into_iter().collect()
    }

    fn is_damaged(&self) -> bool {
        self.wrong > 0
    }
}

impl StunReport {
    fn occupancy(&self) -> f64 {
        self.usage.iter().map(Usage::occupancy).fold(0.0, f64::max)
    }

    fn is_too_slow(&self) -> bool {
        self.occupancy() > MAX_OCCUPANCY
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stun_proto::{RESPONSE_MAX_LEN, write_response};

    fn asker(window: usize) -> Asker {
        let socket = BatchSocket::new(udp::bind("127.0.0.1:0".parse().unwrap()).unwrap()).unwrap();
        Asker { socket, waiting: vec![None; window], number: 0 }
    }

    fn questions() -> (UdpSocket, Questions) {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let questions = Questions {
            server: server.local_addr().unwrap(),
            prefix: *b"seed",
            batch: Batch::with_capacity(64),
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
        assert!(matches!(asker.judge(&questions, &right), Answer::Right(_)));
        assert_eq!(asker.judge(&questions, &right), Answer::Stale);
        let foreign = SocketAddr::new(own.ip(), own.port() ^ 1);
        assert_eq!(asker.judge(&questions, &response(questions.transaction(0), foreign)), Answer::Wrong);
        assert_eq!(asker.judge(&questions, &response(questions.transaction(5), own)), Answer::Wrong);
        assert_eq!(asker.judge(&questions, &response(TransactionId([9; 12]), own)), Answer::Wrong);
        assert_eq!(asker.judge(&questions, b"nonsense"), Answer::Wrong);
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
