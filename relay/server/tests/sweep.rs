//! Every damage to a login through TLS, against the real server: the relay closes, forgets and goes on.
//!
//! Every truncation, and of every byte each value that differs from it in one bit: all 255 would be handshakes for minutes.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use common::heap::Heap;
use common::login::{Stream, UPGRADE, client_info, greeting, secured, upgraded};
use common::sweep::{Changes, sweep, turn};
use common::{Relay, trusting_anyone};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[global_allocator]
static ALLOCATOR: Heap = Heap;

const FAST_START: &[u8] =
    b"GET /derp HTTP/1.1\r\nHost: localhost\r\nDerp-Fast-Start: 1\r\nUpgrade: DERP\r\n\r\n";

/// Says that nothing more comes, and reads until the relay has closed.
async fn leave(mut stream: Stream) {
    // Where the relay has closed already, there is nobody to tell.
    let _ = stream.shutdown().await;
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
}

/// Whoever damages the frame is refused for it, or has left before it was whole.
fn assert_refused(relay: &Relay, recording: &[u8], frame: &[u8], count: usize) {
    let reasons = ["bad_frame", "bad_key", "bad_info", "broken"];
    let refused = |reason| relay.metric(&format!("towpath_refused_total{{reason=\"{reason}\"}}"));
    // Of each byte a truncation and eight changes; but who leaves between request and frame leaves HTTP.
    let rounds = count / (9 * recording.len());
    let damaged = rounds * (9 * frame.len() - 1);
    assert!(reasons.into_iter().map(refused).sum::<u64>() >= damaged as u64, "{}", relay.get("/metrics"));
}

/// A relay, how to dial it, and a ClientInfo frame for it.
async fn rig() -> (Relay, SocketAddr, Arc<ClientConfig>, Vec<u8>) {
    let relay = Relay::start("");
    let (address, config) = (relay.addresses.tls, Arc::new(trusting_anyone()));
    let (stream, key) = upgraded(address, &config).await;
    leave(stream).await;
    (relay, address, config, client_info(&key))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_to_a_fast_start_is_survived() {
    let _turn = turn().await;
    let (relay, address, config, frame) = rig().await;
    let attempt = |bytes: Vec<u8>| {
        let config = config.clone();
        async move {
            let mut stream = secured(address, &config).await;
            if stream.write_all(&bytes).await.and(stream.flush().await).is_ok() {
                leave(stream).await;
            }
        }
    };
    let recording = [FAST_START, &frame].concat();
    let count = sweep(&relay, &recording, Changes::EachBit, attempt).await;
    assert_refused(&relay, &recording, &frame, count);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_to_a_login_that_waits_for_its_response_is_survived() {
    let _turn = turn().await;
    let (relay, address, config, frame) = rig().await;
    let attempt = |bytes: Vec<u8>| {
        let config = config.clone();
        async move {
            let mut stream = secured(address, &config).await;
            let (request, frame) = bytes.split_at(bytes.len().min(UPGRADE.len()));
            // To another request there may be no such response.
            let (now, later) = if request == UPGRADE { (request, frame) } else { (&bytes[..], &[][..]) };
            if stream.write_all(now).await.and(stream.flush().await).is_err() {
                return;
            }
            if request == UPGRADE {
                greeting(&mut stream).await.expect("a response");
                if stream.write_all(later).await.and(stream.flush().await).is_err() {
                    return;
                }
            }
            leave(stream).await;
        }
    };
    let recording = [UPGRADE, &frame].concat();
    let count = sweep(&relay, &recording, Changes::EachBit, attempt).await;
    assert_refused(&relay, &recording, &frame, count);
}
