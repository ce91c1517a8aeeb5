//! One socket and the state of its service.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use towpath_stun_proto::{ANSWER_MAX_LEN, Answer, AnswerKind, Change, Dialect, Origins, Request, Site};
use towpath_udp::{BATCH_MAX, Batch, BatchSocket, LocalAddr, Sent};

use crate::counters::{Counters, Silence, Unanswered};
use crate::limiter::Limiter;
use crate::settings::{Clients, Policy};

/// Most batches that a socket is served before the others get their turn. Two full ones make the poll in
/// between cheap and keep the others waiting for less than a tenth of a millisecond.
const BATCHES_PER_TURN: usize = 2;

/// How long a socket rests after a failed read. Such errors (no memory, no such device) do not pass within
/// microseconds, and the socket's buffer holds what arrives in the meantime.
const READ_ERROR_REST: Duration = Duration::from_millis(100);

/// What all sockets share: whom to answer, and memory of the datagrams in work.
pub(crate) struct Service {
    rules: Rules,
    requests: Batch,
    responses: Batch,
    /// An answer that does not leave from the socket that was asked.
    detour: Batch,
}

impl Service {
    pub(crate) fn new(policy: &Policy, start: Instant, does_discovery: bool) -> Self {
        Self {
            rules: Rules {
                clients: policy.clients,
                start,
                answers: policy.rate.map(Limiter::new),
                discoveries: does_discovery.then(|| Limiter::new(policy.discovery_rate)),
                answer: [0; ANSWER_MAX_LEN],
            },
            requests: Batch::with_capacity(BATCH_MAX),
            responses: Batch::with_capacity(BATCH_MAX),
            detour: Batch::with_capacity(1),
        }
    }
}

/// Whom to answer, and the answer that was written last.
struct Rules {
    clients: Clients,
    start: Instant,
    answers: Option<Limiter>,
    discoveries: Option<Limiter>,
    answer: [u8; ANSWER_MAX_LEN],
}

impl Rules {
    /// Writes the answer to a datagram, unless the right one is silence.
    fn answer(
        &mut self,
        datagram: &[u8],
        client: SocketAddr,
        site: Option<Site<'_>>,
        now: Instant,
    ) -> Result<Answer, Silence> {
        let now = now.saturating_duration_since(self.start);
        let admits = |limiter: &mut Option<Limiter>| {
            limiter.as_mut().is_none_or(|limiter| limiter.admits(client.ip(), now))
        };
        let request = Request::parse(datagram).map_err(Silence::NotStun)?;
        if self.clients == Clients::Tailscale && request.dialect() != Dialect::Tailscale {
            return Err(Silence::Unanswered(Unanswered::ForeignClient));
        }
        if !admits(&mut self.answers) {
            return Err(Silence::Unanswered(Unanswered::RateLimit));
        }
        let answer = request
            .answer(&mut self.answer, client, site)
            .map_err(|_| Silence::Unanswered(Unanswered::Amplification))?;
        if answer.kind == AnswerKind::Discovery && !admits(&mut self.discoveries) {
            return Err(Silence::Unanswered(Unanswered::DiscoveryRateLimit));
        }
        Ok(answer)
    }
}

/// The sockets of a server with four origins, as one of them sees it.
#[derive(Clone, Debug)]
pub(crate) struct Quartet {
    pub(crate) origins: Origins,
    /// By the numbers of their origins.
    pub(crate) sockets: [Arc<BatchSocket>; 4],
    /// The number of the one that sees it so.
    pub(crate) own: usize,
}

/// A socket of the server.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: Arc<BatchSocket>,
    quartet: Option<Quartet>,
    /// Not to be read before this moment, after a failed read.
    rests_until: Option<Instant>,
}

impl Listener {
    pub(crate) fn new(socket: Arc<BatchSocket>) -> Self {
        Self { socket, quartet: None, rests_until: None }
    }

    /// A listener on one of four origins.
    pub(crate) fn one_of(quartet: Quartet) -> Self {
        let socket = Arc::clone(&quartet.sockets[quartet.own]);
        Self { socket, quartet: Some(quartet), rests_until: None }
    }

    /// For how long the socket is not to be read, after a failed read.
    pub(crate) fn rest(&self, now: Instant) -> Option<Duration> {
        self.rests_until.and_then(|until| until.checked_duration_since(now)).filter(|rest| !rest.is_zero())
    }

    /// Serves the socket for a bounded time. Returns how many datagrams it held.
    pub(crate) fn take_turn(&mut self, now: Instant, service: &mut Service, counters: &Counters) -> usize {
        let has_rested = self.rests_until.take().is_some();
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
                    if !has_rested {
                        let address = self.socket.local_addr();
                        tracing::warn!(%address, %error, "cannot read from a STUN socket; it is tried again");
                    }
                    self.rests_until = Some(now + READ_ERROR_REST);
                    break;
                }
            }
        }
        found
    }

    /// Reads one batch and answers its requests. Returns its length; an error is one of reading.
    fn serve_batch(&self, now: Instant, service: &mut Service, counters: &Counters) -> io::Result<usize> {
        let Service { rules, requests, responses, detour } = service;
        let site =
            self.quartet.as_ref().map(|quartet| Site { origins: &quartet.origins, asked: quartet.own });
        self.socket.recv(requests)?;
        for datagram in requests.iter() {
            let client = datagram.peer;
            let answer = match rules.answer(datagram.payload, client, site, now) {
                Ok(answer) => answer,
                Err(silence) => {
                    counters.count_silence(silence);
                    continue;
                }
            };
            counters.count_answer(answer.kind, client.ip().to_canonical().is_ipv4());
            let bytes = &rules.answer[..answer.len];
            let mut to = client;
            if let Some(port) = answer.port {
                to.set_port(port.get());
            }
            match &self.quartet {
                Some(quartet) if answer.change != Change::NONE => {
                    detour.push(to, LocalAddr::ANY, bytes).expect("there is room for one answer");
                    let outcome = quartet.sockets[answer.change.of(quartet.own)].send(detour);
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

fn count(outcome: &Sent, counters: &Counters) {
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
        let (now, counters) = (Instant::now(), Counters::default());
        let mut service = Service::new(&Policy::default(), now, false);
        let turn = BATCHES_PER_TURN * BATCH_MAX;
        for _ in 0..turn + 1 {
            client.send_to(b"garbage", listener.socket.local_addr()).unwrap();
        }

        for expected in [turn, 1, 0] {
            assert_eq!(listener.take_turn(now, &mut service, &counters), expected);
        }
        assert_eq!(counters.snapshot().not_stun_total(), turn as u64 + 1);
        assert_eq!(listener.rest(now), None, "an empty socket is no error");
    }

    #[test]
    fn a_failed_read_earns_a_rest() {
        let closed = UdpSocket::bind("127.0.0.5:0").unwrap().local_addr().unwrap();
        let socket = towpath_udp::bind(LOOPBACK).unwrap();
        socket.connect(closed).unwrap();
        socket.send(b"refused").unwrap();
        let mut listener = Listener::new(Arc::new(BatchSocket::new(socket).unwrap()));
        let (now, counters) = (Instant::now(), Counters::default());
        let mut service = Service::new(&Policy::default(), now, false);

        assert_eq!(listener.take_turn(now, &mut service, &counters), 0);
        assert_eq!(counters.snapshot().read_error, 1);
        assert_eq!(listener.rest(now), Some(READ_ERROR_REST));
        let later = now + READ_ERROR_REST;
        assert_eq!(listener.rest(later), None, "the rest is over");
        listener.take_turn(later, &mut service, &counters);
        assert_eq!(listener.rest(later), None, "the error is over");
        assert_eq!(counters.snapshot().read_error, 1);
    }

    const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
}
