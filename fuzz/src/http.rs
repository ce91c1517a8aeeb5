//! The response to an upgrade, as the client reads it.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, ReadBuf};
use towpath_relay_client::{UpgradeError, read_response};

use crate::bytes::CutStream;

/// A stream that is there already, in pieces.
struct Pieces<'a>(std::vec::IntoIter<&'a [u8]>);

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // An empty piece would be the end.
        if let Some(piece) = self.0.by_ref().find(|piece| !piece.is_empty()) {
            let (now, later) = piece.split_at(piece.len().min(buf.remaining()));
            buf.put_slice(now);
            if !later.is_empty() {
                let rest: Vec<_> = std::iter::once(later).chain(self.0.by_ref()).collect();
                self.0 = rest.into_iter();
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[derive(Debug, PartialEq)]
enum ResponseReading {
    /// With what follows the header.
    Upgraded(Vec<u8>),
    Status(u16),
    Closed,
    NotHttp,
}

/// A response means the same however it arrives, and what follows it is kept.
pub(crate) fn response(input: &[u8]) {
    let stream = CutStream::of(input);
    let outcome = read(&stream.pieces());
    assert_eq!(outcome, read(&[stream.whole]));
    let head = stream.whole.windows(4).position(|window| window == b"\r\n\r\n");
    match (head, outcome) {
        (None, outcome) => assert_eq!(outcome, ResponseReading::Closed),
        (Some(end), ResponseReading::Upgraded(rest)) => {
            assert_eq!(rest, stream.whole[end + 4..]);
            assert!(matches!(&stream.whole[..12], b"HTTP/1.0 101" | b"HTTP/1.1 101"));
        }
        (Some(_), ResponseReading::Status(status)) => {
            assert!(status < 1000 && status != 101 && stream.whole.starts_with(b"HTTP/1."));
        }
        (Some(_), outcome) => assert_eq!(outcome, ResponseReading::NotHttp),
    }
}

fn read(pieces: &[&[u8]]) -> ResponseReading {
    let mut stream = Pieces(Vec::from(pieces).into_iter());
    let mut received = Vec::new();
    let outcome = {
        let reading = pin!(read_response(&mut stream, &mut received));
        reading.poll(&mut Context::from_waker(Waker::noop()))
    };
    match outcome {
        Poll::Ready(Ok(())) => {
            received.extend(stream.0.flatten());
            ResponseReading::Upgraded(received)
        }
        Poll::Ready(Err(UpgradeError::Status(status))) => ResponseReading::Status(status),
        Poll::Ready(Err(UpgradeError::Closed)) => ResponseReading::Closed,
        Poll::Ready(Err(UpgradeError::NotHttp)) => ResponseReading::NotHttp,
        Poll::Ready(Err(error)) => panic!("no piece fails: {error}"),
        Poll::Pending => panic!("every piece is there already"),
    }
}
