//! One socket and the state of its service.

use std::collections::hash_map::RandomState;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use towpath_stun_proto::{
    ANSWER_MAX_LEN, Answer, AnswerKind, AskedOrigin, ChangeRequest, Dialect, Origins, Request,
};
use towpath_udp::{BATCH_MAX, BatchSocket, DatagramBatch, LocalAddr, SendOutcome};
use towpath_wire::host::Host;
use towpath_wire::rate::Limiter;

use crate::counters::{StunCounters, Unanswered, Withheld};
use crate::settings::{ClientFilter, Policy};

/// Most batches that a socket is served before the others get their turn. Two full ones make the poll in
/// between cheap and keep the others waiting for less than a tenth of a millisecond.
const BATCHES_PER_TURN: usize = 2;

/// For how long a socket is not read after a failed read. Such errors (no memory, no such device) do not pass within
/// microseconds, and the socket's buffer holds what arrives in the meantime.
const READ_ERROR_BACKOFF: Duration = Duration::from_millis(100);

/// The shortest time between two log lines about a socket that cannot be read.
const READ_ERROR_QUIET: Duration = Duration::from_secs(60);

/// The state that all sockets share: the policy, and the memory of the datagrams in work.
pub(crate) struct Service {
    answerer: Answerer,
    requests: DatagramBatch,
    responses: DatagramBatch,
    /// An answer that leaves from another socket than the one that was asked.
    redirected: DatagramBatch,
}

impl Service {
    pub(crate) fn new(policy: &Policy, start: Instant, does_discovery: bool) -> Self {
        Self {
            answerer: Answerer {
                clients: policy.clients,
                start,
                answers: policy.rate.map(limiter),
                discoveries: does_discovery.then(|| limiter(policy.discovery_rate)),
                answer: [0; ANSWER_MAX_LEN],
            },
            requests: DatagramBatch::with_capacity(BATCH_MAX),
            responses: DatagramBatch::with_capacity(BATCH_MAX),
            redirected: DatagramBatch::with_capacity(1),
        }
    }
}

/// A limit on answers for each [`Host`]: what one client can have, and what WireGuard limits by. A wider IPv4 prefix, as
/// resolvers of the DNS take, would put tens of thousands behind a carrier's NAT into one bucket.
type HostLimiter = Limiter<RandomState>;

fn limiter(rate: NonZeroU32) -> HostLimiter {
    Limiter::new(rate, RandomState::new())
}

/// The policy on clients to answer, and the answer that was written last.
struct Answerer {
    clients: ClientFilter,
    start: Instant,
    answers: Option<HostLimiter>,
    discoveries: Option<HostLimiter>,
    answer: [u8; ANSWER_MAX_LEN],
}

impl Answerer {
    /// Writes the answer to a datagram, unless the right one is silence.
    fn answer(
        &mut self,
        datagram: &[u8],
        client: SocketAddr,
        asked: Option<AskedOrigin<'_>>,
        now: Instant,
    ) -> Result<Answer, Unanswered> {
        let now = now.saturating_duration_since(self.start);
        let admits = |limiter: &mut Option<HostLimiter>| {
            limiter.as_mut().is_none_or(|limiter| limiter.admits(Host::of(client.ip()), now))
        };
        let request = Request::parse(datagram).map_err(Unanswered::NotStun)?;
        if self.clients == ClientFilter::Tailscale && request.dialect() != Dialect::Tailscale {
            return Err(Unanswered::Withheld(Withheld::ForeignClient));
        }
        if !admits(&mut self.answers) {
            return Err(Unanswered::Withheld(Withheld::RateLimit));
        }
        let answer = request
            .answer(&mut self.answer, client, asked)
            .map_err(|_| Unanswered::Withheld(Withheld::Amplification))?;
        if answer.kind == AnswerKind::Discovery && !admits(&mut self.discoveries) {
            return Err(Unanswered::Withheld(Withheld::DiscoveryRateLimit));
        }
        Ok(answer)
    }
}

/// The sockets of a server with four origins, as one of them sees it.
#[derive(Clone, Debug)]
pub(crate) struct OriginSockets {
    pub(crate) origins: Origins,
    /// By the numbers of their origins.
    pub(crate) sockets: [Arc<BatchSocket>; 4],
    /// The number of the one that sees it so.
    pub(crate) own: usize,
}

impl OriginSockets {
    /// The origin of the requests that arrive at this one.
    fn asked(&self) -> AskedOrigin<'_> {
        AskedOrigin { origins: &self.origins, number: self.own }
    }
}

/// A socket of the server.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: Arc<BatchSocket>,
    /// What NAT behaviour discovery needs, on a server that does it.
    discovery: Option<OriginSockets>,
    /// Not to be read before this moment, after a failed read.
    backs_off_until: Option<Instant>,
    /// When a failed read was logged last.
    logged: Option<Instant>,
}

impl Listener {
    pub(crate) fn new(socket: Arc<BatchSocket>) -> Self {
        Self { socket, discovery: None, backs_off_until: None, logged: None }
    }

    /// A listener on one of four origins.
    pub(crate) fn one_of(sockets: OriginSockets) -> Self {
        let socket = Arc::clone(&sockets.sockets[sockets.own]);
        Self { socket, discovery: Some(sockets), backs_off_until: None, logged: None }
    }

    /// For how long the socket is not to be read, after a failed read.
    pub(crate) fn backoff(&self, now: Instant) -> Option<Duration> {
        self.backs_off_until
            .and_then(|until| until.checked_duration_since(now))
            .filter(|backoff| !backoff.is_zero())
    }

    /// Serves the socket for a bounded time. Returns how many datagrams it held.
    pub(crate) fn take_turn(
        &mut self,
        now: Instant,
        service: &mut Service,
        counters: &StunCounters,
    ) -> usize {
        self.backs_off_until = None;
        let mut found = 0;
        for _ in 0..BATCHES_PER_TURN {
            match self.serve_batch(now, service, counters) {
                Ok(datagrams) => {
                    found += datagrams;
                    if datagrams < BATCH_MAX {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    counters.count_read_error();
                    if self.logged.is_none_or(|logged| now.duration_since(logged) >= READ_ERROR_QUIET) {
                        self.logged = Some(now);
                        let address = self.socket.local_addr();
                        tracing::warn!(%address, %error, "cannot read from a STUN socket; retrying ten times a second");
                    }
                    self.backs_off_until = Some(now + READ_ERROR_BACKOFF);
                    break;
                }
            }
        }
        found
    }

    /// Reads one batch and answers its requests. Returns its length; an error is one of reading.
    fn serve_batch(&self, now: Instant, service: &mut Service, counters: &StunCounters) -> io::Result<usize> {
        let Service { answerer, requests, responses, redirected } = service;
        let asked = self.discovery.as_ref().map(OriginSockets::asked);
        self.socket.recv(requests)?;
        for datagram in requests.iter() {
            let client = datagram.peer;
            let answer = match answerer.answer(datagram.payload, client, asked, now) {
                Ok(answer) => answer,
                Err(unanswered) => {
                    counters.count_unanswered(unanswered);
                    continue;
                }
            };
            counters.count_answer(answer.kind, client.ip().to_canonical().is_ipv4());
            let bytes = &answerer.answer[..answer.len];
            let mut to = client;
            if let Some(port) = answer.port {
                to.set_port(port.get());
            }
            match &self.discovery {
                Some(discovery) if answer.change != ChangeRequest::NONE => {
                    redirected.push(to, LocalAddr::ANY, bytes).expect("there is room for one answer");
                    let outcome = discovery.sockets[answer.change.of(discovery.own)].send(redirected);
                    count(&outcome, counters);
                }
                _ => responses
                    .push(to, datagram.local, bytes)
                    .expect("there is room for a response to each request of a batch"),
            }
        }
        count(&self.socket.send(responses), counters);
        Ok(requests.len())
    }
}

fn count(outcome: &SendOutcome, counters: &StunCounters) {
    counters.count_responses(outcome.sent, outcome.failed + outcome.dropped);
    if let Some(error) = &outcome.error {
        tracing::trace!(%error, failed = outcome.failed, "cannot send STUN responses");
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

    use super::*;

    #[test]
    fn a_turn_is_bounded() {
        let mut listener =
            Listener::new(Arc::new(BatchSocket::new(towpath_udp::bind(LOOPBACK).unwrap()).unwrap()));
        let client = UdpSocket::bind(LOOPBACK).unwrap();
        let (now, counters) = (Instant::now(), StunCounters::default());
        let mut service = Service::new(&Policy::default(), now, false);
        let turn = BATCHES_PER_TURN * BATCH_MAX;
        for _ in 0..turn + 1 {
            client.send_to(b"garbage", listener.socket.local_addr()).unwrap();
        }

        for expected in [turn, 1, 0] {
            assert_eq!(listener.take_turn(now, &mut service, &counters), expected);
        }
        assert_eq!(counters.snapshot().not_stun_total(), turn as u64 + 1);
        assert_eq!(listener.backoff(now), None, "an empty socket is no error");
    }

    #[test]
    fn after_a_failed_read_a_socket_backs_off() {
        let closed = UdpSocket::bind("127.0.0.5:0").unwrap().local_addr().unwrap();
        let socket = towpath_udp::bind(LOOPBACK).unwrap();
        socket.connect(closed).unwrap();
        socket.send(b"refused").unwrap();
        let mut listener = Listener::new(Arc::new(BatchSocket::new(socket).unwrap()));
        let (now, counters) = (Instant::now(), StunCounters::default());
        let mut service = Service::new(&Policy::default(), now, false);

        assert_eq!(listener.take_turn(now, &mut service, &counters), 0);
        assert_eq!(counters.snapshot().read_error, 1);
        assert_eq!(listener.backoff(now), Some(READ_ERROR_BACKOFF));
        let later = now + READ_ERROR_BACKOFF;
        assert_eq!(listener.backoff(later), None, "the time is over");
        listener.take_turn(later, &mut service, &counters);
        assert_eq!(listener.backoff(later), None, "the error is over");
        assert_eq!(counters.snapshot().read_error, 1);
    }

    const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
}
