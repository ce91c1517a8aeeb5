//! Connecting to the first of several addresses that accepts (RFC 8305, "Happy Eyeballs").

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;

/// How long an attempt has for itself before the next one begins beside it: the recommended Connection Attempt Delay of
/// RFC 8305 section 5.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// A failure to connect to an address.
#[derive(Debug)]
pub(crate) struct ConnectFailure {
    pub(crate) address: SocketAddr,
    pub(crate) source: io::Error,
}

/// The addresses of a host: at least one.
pub(crate) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let addresses: Vec<_> = lookup_host((host, port)).await?.collect();
    if addresses.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(addresses) }
}

/// Connects to the first of `addresses` that accepts; there is at least one. The failure is the last of all. Packets carry `mark`
/// (`SO_MARK`) if there is one.
pub(crate) async fn connect(
    addresses: &[SocketAddr],
    mark: Option<u32>,
) -> Result<TcpStream, ConnectFailure> {
    race(interleaved(addresses), |address| attempt(address, mark)).await
}

async fn attempt(address: SocketAddr, mark: Option<u32>) -> Result<TcpStream, ConnectFailure> {
    let connected = async {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if let Some(mark) = mark {
            SockRef::from(&socket).set_mark(mark)?;
        }
        let socket = socket.connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(socket)
    };
    connected.await.map_err(|source| ConnectFailure { address, source })
}

/// Both families by turns, the one of the first address first, each in its own order (RFC 8305 section 4): whichever
/// family does not work delays the other by one attempt.
fn interleaved(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.iter().copied().partition(|address| address.is_ipv6() == first_is_v6);
    let longer = first.len().max(second.len());
    (0..longer).flat_map(|index| [first.get(index), second.get(index)]).flatten().copied().collect()
}

/// The first success of `attempt`. Attempts begin one after the other, each as soon as the one before it has failed or
/// has had [`ATTEMPT_DELAY`]; those that lose are dropped.
async fn race<T, F: Future<Output = Result<T, ConnectFailure>>>(
    addresses: Vec<SocketAddr>,
    attempt: impl Fn(SocketAddr) -> F,
) -> Result<T, ConnectFailure> {
    let mut waiting = addresses.into_iter();
    let mut attempts = Vec::with_capacity(waiting.len());
    let mut failed = None;
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(Box::pin(attempt(address)));
        } else if attempts.is_empty() {
            return Err(failed.expect("there is at least one address"));
        }
        let ended = if waiting.len() == 0 {
            first_ended(&mut attempts).await
        } else {
            match timeout(ATTEMPT_DELAY, first_ended(&mut attempts)).await {
                Ok(ended) => ended,
                Err(_elapsed) => continue,
            }
        };
        match ended {
            Ok(connected) => return Ok(connected),
            Err(failure) => failed = Some(failure),
        }
    }
}

/// The outcome of the first of `attempts` that ends. It is then no longer among them.
async fn first_ended<F: Future>(attempts: &mut Vec<Pin<Box<F>>>) -> F::Output {
    poll_fn(|cx| {
        for index in 0..attempts.len() {
            if let Poll::Ready(ended) = attempts[index].as_mut().poll(cx) {
                drop(attempts.remove(index));
                return Poll::Ready(ended);
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::{Instant, sleep};

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    /// An address of IPv4 with this number as its last byte.
    fn numbered(number: u8) -> SocketAddr {
        ([192, 0, 2, number], 443).into()
    }

    fn refused(address: SocketAddr) -> ConnectFailure {
        ConnectFailure { address, source: io::ErrorKind::ConnectionRefused.into() }
    }

    /// Races attempts that take so many milliseconds and succeed or not. The number of the winner, or of the failure that
    /// is reported; when it was there; and when each attempt began.
    async fn raced(outcomes: &[(u64, bool)]) -> (Result<u8, u8>, u128, Vec<u128>) {
        let start = Instant::now();
        let began = RefCell::new(Vec::new());
        let addresses = (0..outcomes.len()).map(|number| numbered(number as u8)).collect();
        let attempt = async |address: SocketAddr| {
            began.borrow_mut().push(start.elapsed().as_millis());
            let std::net::IpAddr::V4(ip) = address.ip() else { unreachable!("numbered addresses") };
            let number = ip.octets()[3];
            let (millis, succeeds) = outcomes[usize::from(number)];
            sleep(Duration::from_millis(millis)).await;
            if succeeds { Ok(number) } else { Err(refused(address)) }
        };
        let winner = race(addresses, attempt).await.map_err(|failure| {
            let std::net::IpAddr::V4(ip) = failure.address.ip() else { unreachable!("numbered addresses") };
            ip.octets()[3]
        });
        (winner, start.elapsed().as_millis(), began.into_inner())
    }

    const NEVER: u64 = 1_000_000;

    #[tokio::test(start_paused = true)]
    async fn an_address_that_does_not_answer_costs_250_ms() {
        assert_eq!(raced(&[(NEVER, true), (10, true)]).await, (Ok(1), 260, vec![0, 250]));
        assert_eq!(
            raced(&[(NEVER, true), (NEVER, true), (10, true), (10, true)]).await,
            (Ok(2), 510, vec![0, 250, 500])
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_starts_the_next_attempt_at_once() {
        assert_eq!(raced(&[(5, false), (5, false), (5, true), (1, true)]).await, (Ok(2), 15, vec![0, 5, 10]));
        // Also while an earlier one goes on.
        assert_eq!(raced(&[(NEVER, true), (20, false), (5, true)]).await, (Ok(2), 275, vec![0, 250, 270]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_attempt_can_still_win() {
        assert_eq!(raced(&[(300, true), (200, true)]).await, (Ok(0), 300, vec![0, 250]));
    }

    #[tokio::test(start_paused = true)]
    async fn all_attempts_have_failed_before_the_last_failure_is_reported() {
        assert_eq!(raced(&[(600, false), (5, false), (5, false)]).await, (Err(0), 600, vec![0, 250, 255]));
        assert_eq!(raced(&[(1, false)]).await, (Err(0), 1, vec![0]));
    }

    #[test]
    fn families_take_turns_and_keep_their_order() {
        let [a, b, c] = ["[2001:db8::1]:443", "[2001:db8::2]:443", "[2001:db8::3]:443"].map(address);
        let [x, y] = [numbered(1), numbered(2)];
        assert_eq!(interleaved(&[a, b, c, x, y]), [a, x, b, y, c]);
        assert_eq!(interleaved(&[x, a, b]), [x, a, b]);
        assert_eq!(interleaved(&[x, y, a]), [x, a, y]);
        assert_eq!(interleaved(&[y, x]), [y, x]);
    }
}
