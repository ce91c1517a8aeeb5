//! Every damage to a login, against the real server: through TLS, without, and in WebSocket. The relay closes, forgets
//! and goes on.
//!
//! Every truncation, and of every byte each other value. Through TLS it is each value that differs in one bit: all 255
//! would be handshakes for minutes.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use common::heap::Heap;
use common::login::{GREETING, UPGRADE, client_info, response, secured, upgraded};
use common::sweep::{Changes, sweep, turn};
use common::websocket::{HANDSHAKE, PLAIN};
use common::{Relay, trusting_anyone};

#[global_allocator]
static ALLOCATOR: Heap = Heap;

const FAST_START: &[u8] =
    b"GET /derp HTTP/1.1\r\nHost: localhost\r\nDerp-Fast-Start: 1\r\nUpgrade: DERP\r\n\r\n";
/// Bytes of a message's header in front of the greeting.
const MESSAGE_HEADER: usize = 2;

/// Where a client connects.
#[derive(Clone)]
enum Listener {
    Tls(SocketAddr, Arc<ClientConfig>),
    Plain(SocketAddr),
}

/// A login as its client sends it.
#[derive(Clone)]
struct Login {
    listener: Listener,
    request: &'static [u8],
    /// For how many bytes behind the head of the response the client waits before it goes on; `None` where it does not.
    awaited: Option<usize>,
    /// The ClientInfo, in a message or not.
    frame: Vec<u8>,
    /// How many changes leave what the frame says as it is.
    harmless: usize,
}

impl Login {
    /// Plays `bytes`, which are those of this login with some damage, through a connection of their own.
    async fn play(self, bytes: Vec<u8>) {
        match &self.listener {
            Listener::Tls(address, config) => {
                self.play_through(secured(*address, config).await, &bytes).await;
            }
            Listener::Plain(address) => {
                let stream = TcpStream::connect(address).await.expect("the relay accepts");
                self.play_through(stream, &bytes).await;
            }
        }
    }

    /// Sends `bytes`, ends the sending direction, and reads until the relay has closed. Ignores errors of sending,
    /// because the relay may have closed before.
    async fn play_through(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin, mut bytes: &[u8]) {
        // To another request there may be no such response.
        if let (Some(awaited), Some(rest)) = (self.awaited, bytes.strip_prefix(self.request)) {
            stream
                .write_all(self.request)
                .await
                .and(stream.flush().await)
                .expect("the relay takes a request");
            response(&mut stream, awaited).await.expect("a response");
            bytes = rest;
        }
        if stream.write_all(bytes).await.and(stream.flush().await).is_err() {
            return;
        }
        let _ = stream.shutdown().await;
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    }
}

/// A relay, and the login of a client that connects to its listener with TLS and waits for the response.
async fn rig() -> (Relay, Login) {
    let (relay, config) = (Relay::start(PLAIN), Arc::new(trusting_anyone()));
    let (_, key) = upgraded(relay.tls(), &config).await;
    let login = Login {
        listener: Listener::Tls(relay.tls(), config),
        request: UPGRADE,
        awaited: Some(GREETING),
        frame: client_info(&key),
        harmless: 0,
    };
    (relay, login)
}

/// The plain listener of a relay.
fn plain(relay: &Relay) -> Listener {
    Listener::Plain(relay.addresses.http.expect("a plain listener"))
}

/// Sweeps over a login. A client with a damaged frame is refused, for that or for leaving before it was complete.
async fn survive(relay: &Relay, login: Login, changes: Changes) {
    let recording = [login.request, &login.frame].concat();
    let (all, request) = (recording.len(), login.request.len());
    let attempt = |bytes| login.clone().play(bytes);
    sweep(relay, &recording, 0..request, changes, attempt).await;
    let before = relay.metric("towpath_refused_total");
    let rounds = sweep(relay, &recording, request..all, changes, attempt).await;
    let refused = relay.metric("towpath_refused_total") - before;
    // A client that leaves between request and frame may leave during HTTP.
    let damaged = login.frame.len() * changes.damages_of_a_byte() - login.harmless;
    let expected = (rounds * (damaged - 1)) as u64..=(rounds * damaged) as u64;
    assert!(expected.contains(&refused), "{refused} and not {expected:?}\n{}", relay.get("/metrics"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_to_a_fast_start_is_survived() {
    let _turn = turn().await;
    let (relay, login) = rig().await;
    survive(&relay, Login { request: FAST_START, awaited: None, ..login }, Changes::EachBit).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_to_a_login_that_waits_for_its_response_is_survived() {
    let _turn = turn().await;
    let (relay, login) = rig().await;
    survive(&relay, login, Changes::EachBit).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_to_a_fast_start_without_tls_is_survived() {
    let _turn = turn().await;
    let (relay, login) = rig().await;
    let login = Login { listener: plain(&relay), request: FAST_START, awaited: None, ..login };
    survive(&relay, login, Changes::EachValue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_to_a_login_without_tls_is_survived() {
    let _turn = turn().await;
    let (relay, login) = rig().await;
    survive(&relay, Login { listener: plain(&relay), ..login }, Changes::EachValue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_to_a_login_in_websocket_is_survived() {
    let _turn = turn().await;
    let (relay, login) = rig().await;
    // A message that is not the last of its fragments, and each of more bytes that needs no longer header.
    let harmless = 1 + (125 - login.frame.len());
    let frame = masked(&login.frame);
    let awaited = Some(MESSAGE_HEADER + GREETING);
    let login = Login { listener: plain(&relay), request: HANDSHAKE, awaited, frame, harmless };
    survive(&relay, login, Changes::EachValue).await;
}

/// One binary message, with a mask that changes every byte.
fn masked(payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() <= 125, "a length in one byte");
    let mask = [0x12, 0x34, 0x56, 0x78];
    let bytes = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [0x82, 0x80 | payload.len() as u8].into_iter().chain(mask).chain(bytes).collect()
}
