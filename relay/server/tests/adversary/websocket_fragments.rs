//! WebSocket messages in the smallest fragments, and control frames between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tungstenite::Message;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

use crate::alone;
use crate::common::Relay;
use crate::common::websocket::{Client, PLAIN};
use crate::honest::Pair;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_of_a_byte_and_pings_between_them_disturb_no_pair() {
    let _alone = alone().await;
    let relay = Relay::start(PLAIN);
    let mut pair = Pair::new(&relay).await;
    let (_, mut attacker) = Client::log_in(&relay, 1);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let flood = std::thread::spawn(move || {
        let fragment = |opcode, is_final| {
            let header = FrameHeader {
                is_final,
                opcode: OpCode::Data(opcode),
                mask: Some([1, 2, 3, 4]),
                ..FrameHeader::default()
            };
            Message::Frame(Frame::from_payload(header, vec![6].into()))
        };
        // KeepAlive frames of a byte each, which the relay skips as unknown, byte by byte.
        while !stopped.load(Ordering::Relaxed) {
            let sent = attacker
                .socket
                .send(fragment(Data::Binary, false))
                .and_then(|()| attacker.socket.send(Message::Ping(vec![0; 125].into())))
                .and_then(|()| attacker.socket.send(fragment(Data::Continue, true)));
            if sent.is_err() {
                return;
            }
        }
    });
    for _ in 0..50 {
        pair.exchange(10).await;
    }
    pair.assert_undelayed(&relay, 3_000);
    stop.store(true, Ordering::Relaxed);
    drop(relay);
    flood.join().expect("the attacker ends");
}
