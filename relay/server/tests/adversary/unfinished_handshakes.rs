//! TLS handshakes that never end.

use tokio::io::AsyncWriteExt;

use crate::alone;
use crate::attacker::{PATIENT, connect, is_closed, refused};
use crate::common::Relay;
use crate::honest::Pair;
use crate::memory::resident;

const ATTACKERS: usize = 200;
/// What a connection may hold of a message that is not whole: 16 KiB and a read of 4 KiB; and a socket, a task, rustls.
const HELD: usize = 48 * 1024;

/// The first `len` bytes of a ClientHello that says it has 65,535.
fn hello(len: usize) -> Vec<u8> {
    let mut message = vec![1, 0, 0xff, 0xff, 3, 3];
    message.resize(len, 0);
    let records = message.chunks(4096).map(|chunk| {
        let length = u16::try_from(chunk.len()).expect("a record").to_be_bytes();
        [&[22, 3, 1, length[0], length[1]][..], chunk].concat()
    });
    records.flatten().collect()
}

#[tokio::test]
async fn an_unfinished_handshake_holds_16_kib_at_most() {
    let _alone = alone().await;
    let relay = Relay::start(PATIENT);
    let mut pair = Pair::new(&relay).await;
    pair.exchange(10).await;
    let before = resident();
    let mut held = Vec::new();
    for _ in 0..ATTACKERS {
        let mut socket = connect(9, relay.tls()).await;
        socket.write_all(&hello(15_000)).await.expect("the kernel takes the bytes");
        held.push(socket);
    }
    relay.wait("all are read", |relay| relay.metric("towpath_pending_connections") == ATTACKERS as u64);
    pair.exchange(100).await;
    let cost = resident().saturating_sub(before);
    assert!(cost <= ATTACKERS * HELD, "{ATTACKERS} unfinished handshakes cost {cost} bytes");
    for socket in &mut held {
        // Those that go on are closed before their message is whole.
        socket.write_all(&hello(4_096)).await.expect("the kernel takes the bytes");
        assert!(is_closed(socket).await);
    }
    relay.wait("they are counted", |relay| refused(relay, "handshake") == ATTACKERS as u64);
    pair.exchange(100).await;
}
