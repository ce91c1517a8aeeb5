//! Questions to STUN servers from one socket.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until, timeout_at};
use towpath_stun_proto::{
    ChangeRequest, DISCOVERY_REQUEST_LEN, REQUEST_LEN, Response, TransactionId, write_discovery_request,
    write_request,
};

/// When a server is asked, since the begin. The last answer is waited for until [`END`].
const ROUNDS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(150), Duration::from_millis(450)];
/// When the answers are looked at.
const END: Duration = Duration::from_millis(1200);
/// No answer of a STUN server is longer.
const LONGEST_DATAGRAM: usize = 1500;

/// What a server has said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// The address by which it sees the socket.
    pub(super) mapped: SocketAddr,
    /// Its other address, where it has one.
    pub(super) other: Option<SocketAddr>,
    /// The shortest round trip.
    pub(super) rtt: Duration,
}

/// A socket that asks.
#[derive(Debug)]
pub(super) struct Asker {
    socket: UdpSocket,
    port: u16,
}

impl Asker {
    pub(super) async fn bind(any: IpAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
        let port = socket.local_addr()?.port();
        Ok(Self { socket, port })
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// Asks servers in their order, three times each, in both dialects: Tailscale's servers answer their own, and others name their
    /// other address in answer to that of RFC 5780.
    pub(super) async fn ask(&self, servers: &[SocketAddr]) -> BTreeMap<SocketAddr, Seen> {
        let (begin, mut asked, mut seen) = (Instant::now(), Vec::new(), BTreeMap::new());
        for round in 0..ROUNDS.len() {
            let until = ROUNDS.get(round + 1).map_or(END, |next| *next);
            for server in servers.iter().filter(|server| !seen.contains_key(*server)) {
                self.send(*server, &mut asked).await;
            }
            self.hear(begin + until, servers.len(), &asked, &mut seen).await;
            if seen.len() == servers.len() {
                break;
            }
        }
        seen
    }

    async fn send(&self, server: SocketAddr, asked: &mut Vec<(TransactionId, SocketAddr, Instant)>) {
        let (tailscale, discovery) = (transaction(), transaction());
        let mut request = [0; REQUEST_LEN];
        write_request(&mut request, tailscale);
        let mut behaviour = [0; DISCOVERY_REQUEST_LEN];
        write_discovery_request(&mut behaviour, discovery, ChangeRequest::NONE);
        for (transaction, request) in [(tailscale, &request[..]), (discovery, &behaviour)] {
            asked.push((transaction, server, Instant::now()));
            // What cannot be sent is not answered.
            let _ = self.socket.send_to(request, server).await;
        }
    }

    /// Takes answers until a time, or until a moment after each server has answered.
    async fn hear(
        &self,
        until: Instant,
        servers: usize,
        asked: &[(TransactionId, SocketAddr, Instant)],
        seen: &mut BTreeMap<SocketAddr, Seen>,
    ) {
        let mut buffer = [0; LONGEST_DATAGRAM];
        let mut until = until;
        while let Ok(received) = timeout_at(until, self.socket.recv_from(&mut buffer)).await {
            let Ok((len, from)) = received else { continue };
            let Ok(response) = Response::parse(&buffer[..len]) else { continue };
            let is_answered = |(transaction, server, _): &&(TransactionId, SocketAddr, Instant)| {
                *transaction == response.transaction && *server == from
            };
            let Some((_, server, sent)) = asked.iter().find(is_answered) else { continue };
            let rtt = sent.elapsed();
            let known = seen.entry(*server).or_insert(Seen { mapped: response.mapped, other: None, rtt });
            known.rtt = known.rtt.min(rtt);
            known.other = known.other.or(response.other);
            if seen.len() == servers {
                // The answer in the other dialect is as far away.
                until = until.min(Instant::now() + rtt / 2 + Duration::from_millis(20));
            }
        }
    }

    /// Whether an answer comes that the server is asked to send from its other address, port, or both.
    pub(super) async fn hears_changed(&self, server: SocketAddr, (address, port): (bool, bool)) -> bool {
        let (begin, transaction) = (Instant::now(), transaction());
        let mut request = [0; DISCOVERY_REQUEST_LEN];
        write_discovery_request(&mut request, transaction, ChangeRequest { address, port });
        let mut buffer = [0; LONGEST_DATAGRAM];
        for (round, at) in ROUNDS.iter().enumerate() {
            sleep_until(begin + *at).await;
            let _ = self.socket.send_to(&request, server).await;
            let until = begin + ROUNDS.get(round + 1).map_or(END, |next| *next);
            while let Ok(received) = timeout_at(until, self.socket.recv_from(&mut buffer)).await {
                let Ok((len, from)) = received else { continue };
                let is_answer =
                    Response::parse(&buffer[..len]).is_ok_and(|response| response.transaction == transaction);
                if is_answer && from != server {
                    return true;
                }
            }
        }
        false
    }
}

fn transaction() -> TransactionId {
    let mut bytes = [0; 12];
    // An endpoint cannot be made without randomness, either.
    let _ = getrandom::fill(&mut bytes);
    TransactionId(bytes)
}
