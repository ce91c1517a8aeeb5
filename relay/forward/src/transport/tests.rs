//! What is left of a transport after its end.

use std::net::TcpListener;

use super::stream::{CannotEncode, Encode};
use super::*;

/// An encoder that shows whether it is still there.
struct Shown {
    _alive: Arc<()>,
}

impl Encode for Shown {
    fn push(&mut self, frames: &[u8], scratch: &mut WriteScratch) -> Result<(), CannotEncode> {
        scratch.seal.append(frames);
        Ok(())
    }

    fn close(&mut self, _: Close, scratch: &mut WriteScratch) {
        scratch.seal.append(b"goodbye");
    }
}

fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    (listener.accept().expect("a connection").0, client)
}

/// A peer outlives its connection for as long as a sender remembers it. The keys must not.
#[test]
fn the_encoder_is_dropped_at_the_end_and_not_with_the_peer() {
    let ((socket, mut client), shown) = (sockets(), Arc::new(()));
    let mut outbound = StreamOutbound::new(Arc::new(socket), Shown { _alive: shown.clone() });
    let (mut pool, mut scratch) = (BufferPool::default(), WriteScratch::new());
    assert_eq!(Arc::strong_count(&shown), 2);
    outbound.end(Close::Shutdown, &mut pool, &mut scratch);
    assert_eq!(Arc::strong_count(&shown), 1, "the encoder is gone");
    let mut last = String::new();
    io::Read::read_to_string(&mut client, &mut last).expect("an end");
    assert_eq!(last, "goodbye", "its closing messages came before");
    // Late calls find nothing.
    outbound.end(Close::Shutdown, &mut pool, &mut scratch);
    assert!(outbound.encoder_mut().is_none());
    assert_eq!(outbound.send(None, Instant::ZERO, &mut pool, &mut scratch), Sent::Failed);
}
