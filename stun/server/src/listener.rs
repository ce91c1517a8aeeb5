//! One socket and the state of its service.

use std::io;
use std::time::{Duration, Instant};

use stun_proto::{RESPONSE_MAX_LEN, Request, write_response};
use udp::{BATCH_MAX, Batch, BatchSocket};

use crate::counters::Counters;

/// Most batches that a socket is served before the others get their turn. Two full ones make the poll in
/// between cheap and keep the others waiting for less than a tenth of a millisecond.
const BATCHES_PER_TURN: usize = 2;

/// How long a socket rests after a failed read. Such errors (no memory, no such device) do not pass within
/// microseconds, and the socket's buffer holds what arrives in the meantime.
const READ_ERROR_REST: Duration = Duration::from_millis(100);

/// Memory of the datagrams in work, shared by all sockets.
pub(crate) struct Buffers {
    requests: Batch,
    responses: Batch,
}

impl Buffers {
    pub(crate) fn new() -> Self {
        Self { requests: Batch::with_capacity(BATCH_MAX), responses: Batch::with_capacity(BATCH_MAX) }
    }
}

/// A socket of the server.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: BatchSocket,
    state: State,
}

/// Readiness is edge-triggered: a socket stays ready until it has said that it is empty.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Empty when last read; the poll will tell.
    Idle,
    /// May hold datagrams.
    Ready,
    /// Not to be read before this moment, after a failed read.
    Resting(Instant),
}

impl Listener {
    /// A listener that waits for the poll, which also reports what arrived before it was told of the socket.
    pub(crate) fn new(socket: BatchSocket) -> Self {
        Self { socket, state: State::Idle }
    }

    /// The poll has reported the socket.
    pub(crate) fn wake(&mut self) {
        if matches!(self.state, State::Idle) {
            self.state = State::Ready;
        }
    }

    /// How long the poll may wait on behalf of this socket; `None` until the socket is reported.
    pub(crate) fn patience(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Idle => None,
            State::Ready => Some(Duration::ZERO),
            State::Resting(until) => Some(until.saturating_duration_since(now)),
        }
    }

    /// Serves the socket for a bounded time.
    pub(crate) fn take_turn(&mut self, now: Instant, buffers: &mut Buffers, counters: &Counters) {
        let was_resting = match self.state {
            State::Idle => return,
            State::Resting(until) if now < until => return,
            State::Resting(_) => true,
            State::Ready => false,
        };
        self.state = State::Ready;
        for _ in 0..BATCHES_PER_TURN {
            match self.serve_batch(buffers, counters) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.state = State::Idle;
                    break;
                }
                Err(error) => {
                    counters.count_read_error();
                    if !was_resting {
                        let address = self.socket.local_addr();
                        tracing::warn!(%address, %error, "cannot read from a STUN socket; it is tried again");
                    }
                    self.state = State::Resting(now + READ_ERROR_REST);
                    break;
                }
            }
        }
    }

    /// Reads one batch and answers its requests. An error is one of reading.
    fn serve_batch(&self, buffers: &mut Buffers, counters: &Counters) -> io::Result<()> {
        let Buffers { requests, responses } = buffers;
        self.socket.recv(requests)?;
        for datagram in requests.iter() {
            match Request::parse(datagram.payload) {
                Ok(Request { transaction }) => {
                    counters.count_request(datagram.peer.ip().to_canonical().is_ipv4());
                    let mut response = [0; RESPONSE_MAX_LEN];
                    let len = write_response(&mut response, transaction, datagram.peer);
                    responses
                        .push(datagram.peer, datagram.local, &response[..len])
                        .expect("there is room for a response to each request of a batch");
                }
                Err(reason) => counters.count_not_stun(reason),
            }
        }
        let outcome = self.socket.send(responses);
        counters.count_responses(outcome.sent, outcome.failed + outcome.dropped);
        if let Some(error) = outcome.error {
            tracing::trace!(%error, failed = outcome.failed, "cannot send STUN responses");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

    use super::*;

    #[test]
    fn a_turn_is_bounded_and_an_empty_socket_waits_for_the_poll() {
        let mut listener = Listener::new(BatchSocket::new(udp::bind(LOOPBACK).unwrap()).unwrap());
        let client = UdpSocket::bind(LOOPBACK).unwrap();
        let (now, mut buffers, counters) = (Instant::now(), Buffers::new(), Counters::default());
        let turn = (BATCHES_PER_TURN * BATCH_MAX) as u64;
        for _ in 0..turn + 1 {
            client.send_to(b"garbage", listener.socket.local_addr()).unwrap();
        }

        listener.take_turn(now, &mut buffers, &counters);
        assert_eq!(counters.snapshot().not_stun_total(), 0, "nobody has reported the socket");
        listener.wake();
        assert_eq!(listener.patience(now), Some(Duration::ZERO));
        listener.take_turn(now, &mut buffers, &counters);
        assert_eq!(counters.snapshot().not_stun_total(), turn);
        assert_eq!(listener.patience(now), Some(Duration::ZERO));
        listener.take_turn(now, &mut buffers, &counters);
        assert_eq!(counters.snapshot().not_stun_total(), turn + 1);
        assert_eq!(listener.patience(now), None);
    }

    #[test]
    fn a_failed_read_earns_a_rest_that_no_report_ends() {
        let closed = UdpSocket::bind("127.0.0.5:0").unwrap().local_addr().unwrap();
        let socket = udp::bind(LOOPBACK).unwrap();
        socket.connect(closed).unwrap();
        socket.send(b"refused").unwrap();
        let mut listener = Listener::new(BatchSocket::new(socket).unwrap());
        let (now, mut buffers, counters) = (Instant::now(), Buffers::new(), Counters::default());

        listener.wake();
        listener.take_turn(now, &mut buffers, &counters);
        assert_eq!(counters.snapshot().read_error, 1);
        listener.wake();
        assert_eq!(listener.patience(now), Some(READ_ERROR_REST));
        listener.take_turn(now + READ_ERROR_REST, &mut buffers, &counters);
        assert_eq!(listener.patience(now), None, "the error is over");
        assert_eq!(counters.snapshot().read_error, 1);
    }

    const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
}
