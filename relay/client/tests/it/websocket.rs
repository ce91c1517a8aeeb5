//! DERP in WebSocket messages, against a relay that takes messages apart byte by byte.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use towpath_relay_client::{
    Client, DialError, Dialer, Event, LoginError, RecvError, TlsVersions, UpgradeError,
};
use towpath_relay_proto::login::{BINDING_LABEL, Login, greet};
use towpath_websocket::{MAX_SENT, Violation, accept_key};
use towpath_wire::derp::frame::{ClientFrame, ServerFrame};
use towpath_wire::derp::info::Introduction;
use towpath_wire::key::NodePublic;
use towpath_wire::pool::BufferPool;

use crate::support::{
    Identity, NAME, RATE, TlsStream, client_key, dialer, read_request, relay_key, tcp_relay, tls_relay, write,
};

const PEER: NodePublic = NodePublic::from_bytes([7; 32]);
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A frame of a client.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    opcode: u8,
    mask: [u8; 4],
    payload: Vec<u8>,
}

/// The relay's end of a WebSocket.
struct Relay<S> {
    stream: S,
    /// What the client has sent in messages and was not used.
    content: Vec<u8>,
    frames: Vec<Frame>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Relay<S> {
    /// Answers the request for a WebSocket; `early` goes out in the same write.
    async fn upgrade(mut stream: S, early: &[u8]) -> Self {
        let (request, rest) = read_request(&mut stream).await;
        assert!(rest.is_empty(), "a client waits for the answer");
        assert!(request.contains("\r\nSec-WebSocket-Protocol: derp\r\n"), "{request}");
        assert!(!request.contains("Fast-Start"), "{request}");
        let (_, key) = request.split_once("Sec-WebSocket-Key: ").unwrap();
        let accept = accept_key(key.lines().next().unwrap().as_bytes()).unwrap();
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: derp\r\n\r\n"
        );
        write(&mut stream, &[answer.as_bytes(), early].concat()).await;
        Self { stream, content: Vec::new(), frames: Vec::new() }
    }

    /// The next frame.
    async fn frame(&mut self) -> io::Result<Frame> {
        let [first, second] = self.read().await?;
        assert_eq!((first & 0xf0, second & 0x80), (0x80, 0x80), "whole and masked");
        let len = match second & 0x7f {
            126 => u16::from_be_bytes(self.read().await?).into(),
            127 => panic!("a message above 32 KiB"),
            short => usize::from(short),
        };
        let mask: [u8; 4] = self.read().await?;
        let mut payload = vec![0; len];
        self.stream.read_exact(&mut payload).await?;
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        Ok(Frame { opcode: first & 0x0f, mask, payload })
    }

    async fn read<const LEN: usize>(&mut self) -> io::Result<[u8; LEN]> {
        let mut bytes = [0; LEN];
        self.stream.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    /// Sends bytes of DERP in messages of `cut` bytes.
    async fn send(&mut self, bytes: &[u8], cut: usize) {
        let messages: Vec<u8> = bytes.chunks(cut).flat_map(|chunk| frame(BINARY, chunk)).collect();
        write(&mut self.stream, &messages).await;
    }

    /// Reads messages until there are `len` bytes in them; keeps the frames.
    async fn content(&mut self, len: usize) -> Vec<u8> {
        while self.content.len() < len {
            let frame = self.frame().await.unwrap();
            assert_eq!(frame.opcode, BINARY);
            self.content.extend_from_slice(&frame.payload);
            self.frames.push(frame);
        }
        self.content.drain(..len).collect()
    }

    /// The login of the client; `and_then` goes out together with the ServerInfo.
    async fn log_in(&mut self, and_then: &[u8]) -> Introduction {
        let mut greeting = Vec::new();
        greet(&relay_key().public(), &mut greeting);
        // A byte a message.
        self.send(&greeting, 1).await;
        let (mut login, mut pool) = (Login::default(), BufferPool::default());
        let introduction = loop {
            let bytes = self.content(1).await;
            if let Some(introduction) = login.next(&mut &bytes[..], &relay_key(), &mut pool).unwrap() {
                break introduction;
            }
        };
        let nonce = [9; 24];
        let sealed = RATE.seal(&introduction.shared, &nonce);
        let mut answer = Vec::new();
        ServerFrame::ServerInfo { nonce: &nonce, sealed: &sealed }.encode(&mut answer);
        let messages = [frame(BINARY, &answer), and_then.to_vec()].concat();
        write(&mut self.stream, &messages).await;
        introduction
    }
}

/// A frame of a server.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        short @ 0..126 => frame.push(short as u8),
        len => {
            frame.push(126);
            frame.extend_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

fn plain(address: SocketAddr) -> Dialer {
    Dialer::plain(NAME, 80).at(address).websocket()
}

async fn connect(address: SocketAddr) -> Client {
    plain(address).connect(&client_key()).await.unwrap()
}

fn packet(packet: &[u8]) -> Event {
    Event::Packet { from: PEER, packet: packet.to_vec() }
}

fn packet_frame(packet: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    ServerFrame::RecvPacket { from: PEER, packet }.encode(&mut frame);
    frame
}

/// Takes a batch of 100 packets and a packet, and sends two packets in messages that end anywhere.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut relay: Relay<S>, expected: Vec<u8>) {
    assert!(relay.content(expected.len()).await == expected);
    assert!(relay.frames.iter().all(|frame| frame.payload.len() + 8 <= MAX_SENT));
    let masks: BTreeSet<_> = relay.frames.iter().map(|frame| frame.mask).collect();
    assert_eq!(masks.len(), relay.frames.len(), "each frame has a mask of its own");
    assert!(relay.frames.len() > 3, "more than one message");
    relay.send(&[packet_frame(&[1; 1400]), packet_frame(&[2; 65_000])].concat(), 1399).await;
    let _ = relay.stream.read_to_end(&mut Vec::new()).await;
}

fn batch() -> (Vec<Vec<u8>>, Vec<u8>) {
    let packets: Vec<Vec<u8>> = (0..100usize).map(|index| vec![index as u8; index * 14]).collect();
    let mut frames = Vec::new();
    for packet in packets.iter().chain(&packets[1..2]) {
        ClientFrame::SendPacket { to: PEER, packet }.encode(&mut frames);
    }
    (packets, frames)
}

async fn exchange(mut client: Client) {
    assert_eq!((client.relay(), client.server_info()), (relay_key().public(), RATE));
    assert!(!client.fast_start());
    let (packets, _) = batch();
    client.send_batch(packets.iter().map(|packet| (PEER, &packet[..]))).await.unwrap();
    client.send(PEER, &packets[1]).await.unwrap();
    assert_eq!(client.recv().await.unwrap(), packet(&[1; 1400]));
    assert_eq!(client.recv().await.unwrap(), packet(&[2; 65_000]));
}

#[tokio::test]
async fn packets_pass_in_masked_messages_with_tls_and_without() {
    let address = tcp_relay(async |stream| {
        let mut relay = Relay::upgrade(stream, b"").await;
        relay.log_in(b"").await;
        serve(relay, batch().1).await;
    })
    .await;
    exchange(connect(address).await).await;

    // A meta certificate makes no fast start here, and the login is bound to its connection.
    let identity = Identity::for_test().with_meta(relay_key().public());
    let (told, heard) = oneshot::channel();
    let address = tls_relay(&identity, async |stream: TlsStream| {
        let mut relay = Relay::upgrade(stream, b"").await;
        let introduction = relay.log_in(b"").await;
        told.send(introduction.info.binding.unwrap().is_to(&relay.stream.exporter(BINDING_LABEL).unwrap()))
            .unwrap();
        serve(relay, batch().1).await;
    })
    .await;
    let dialer = dialer(address, &identity.pin(), TlsVersions::Both).websocket();
    let client = dialer.connect(&client_key()).await.unwrap();
    assert!(client.tls_version().is_some());
    exchange(client).await;
    assert!(heard.await.unwrap());
}

#[tokio::test]
async fn what_comes_with_the_answer_and_behind_the_login_is_kept() {
    let address = tcp_relay(async |stream| {
        // The beginning of an empty message that the login goes on in.
        let mut relay = Relay::upgrade(stream, &[0x02, 0]).await;
        write(&mut relay.stream, &[0x80, 0]).await;
        relay.log_in(&frame(BINARY, &packet_frame(b"early"))).await;
        let _ = relay.stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    assert_eq!(connect(address).await.recv().await.unwrap(), packet(b"early"));
}

#[tokio::test]
async fn pings_are_answered_before_during_and_after_the_login() {
    let (told, heard) = oneshot::channel();
    let address = tcp_relay(async |stream| {
        let mut relay = Relay::upgrade(stream, &frame(PING, b"before")).await;
        let mut pongs = vec![relay.frame().await.unwrap()];
        relay.log_in(&frame(PING, b"behind")).await;
        pongs.push(relay.frame().await.unwrap());
        write(&mut relay.stream, &[frame(PING, b"first"), frame(PING, b"last")].concat()).await;
        // Of pings that come together the last is answered at least.
        while pongs.last().unwrap().payload != b"last" {
            pongs.push(relay.frame().await.unwrap());
        }
        write(&mut relay.stream, &frame(BINARY, &packet_frame(b"done"))).await;
        told.send(pongs).unwrap();
        let _ = relay.stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let (_sender, mut receiver) = connect(address).await.split();
    assert_eq!(receiver.recv().await.unwrap(), packet(b"done"));
    let pongs = heard.await.unwrap();
    assert!(pongs.iter().all(|frame| frame.opcode == PONG), "{pongs:?}");
    assert_eq!([&pongs[0].payload[..], &pongs[1].payload], [&b"before"[..], b"behind"]);
}

/// The frames of a client from here on, until it closes.
async fn rest(mut relay: Relay<TcpStream>) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Ok(frame) = relay.frame().await {
        frames.push((frame.opcode, frame.payload));
    }
    frames
}

#[tokio::test]
async fn a_close_of_the_relay_is_answered_and_ends_the_stream() {
    // In a message of its own, and in one segment with the login.
    for behind in [frame(CLOSE, &1001u16.to_be_bytes()), frame(CLOSE, b"")] {
        let (told, heard) = oneshot::channel();
        let address = tcp_relay(async move |stream| {
            let mut relay = Relay::upgrade(stream, b"").await;
            relay.log_in(&behind).await;
            told.send(rest(relay).await).unwrap();
        })
        .await;
        let (_sender, mut receiver) = connect(address).await.split();
        assert!(matches!(receiver.recv().await, Err(RecvError::Closed)));
        assert_eq!(heard.await.unwrap(), [(CLOSE, 1000u16.to_be_bytes().to_vec())]);
    }
}

#[tokio::test]
async fn a_client_that_closes_says_so() {
    let (told, heard) = oneshot::channel();
    let address = tcp_relay(async |stream| {
        let mut relay = Relay::upgrade(stream, b"").await;
        relay.log_in(b"").await;
        told.send(rest(relay).await).unwrap();
    })
    .await;
    connect(address).await.close().await.unwrap();
    assert_eq!(heard.await.unwrap(), [(CLOSE, 1000u16.to_be_bytes().to_vec())]);
}

const MASKED: &[u8] = &[0x82, 0x81, 0, 0, 0, 0, 0];

#[tokio::test]
async fn a_relay_that_masks_breaks_the_protocol() {
    let mut expected = Vec::new();
    ClientFrame::SendPacket { to: PEER, packet: b"now" }.encode(&mut expected);
    let address = tcp_relay(async move |stream| {
        let mut relay = Relay::upgrade(stream, b"").await;
        relay.log_in(b"").await;
        assert_eq!(relay.content(expected.len()).await, expected);
        write(&mut relay.stream, MASKED).await;
        let _ = relay.stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mut client = connect(address).await;
    client.send(PEER, b"now").await.unwrap();
    let error = client.recv().await.unwrap_err();
    assert!(matches!(error, RecvError::WebSocket(Violation::Masked)), "{error}");
    assert_eq!(error.to_string(), "the relay breaks WebSocket by a frame with a mask");
}

#[tokio::test]
async fn a_relay_that_masks_is_not_logged_in_at() {
    for early in [MASKED, &[]] {
        let address = tcp_relay(async move |stream| {
            let mut relay = Relay::upgrade(stream, early).await;
            // The client may have closed.
            let _ = relay.stream.write_all(MASKED).await;
            let _ = relay.stream.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let error = plain(address).connect(&client_key()).await.unwrap_err();
        assert!(matches!(error, DialError::Login(LoginError::WebSocket(Violation::Masked))), "{error}");
    }
}

#[tokio::test]
async fn a_relay_that_does_not_speak_websocket_is_told_by_its_answer() {
    for (answer, expected) in [
        ("HTTP/1.1 426 Upgrade Required\r\n\r\n", "the relay answered with status 426 instead of 101"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\n\r\n",
            "the answer is no WebSocket for DERP: it switches to another protocol",
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: derp\r\n\r\n",
            "the answer is no WebSocket for DERP: it does not answer the key",
        ),
    ] {
        let address = tcp_relay(async move |mut stream| {
            read_request(&mut stream).await;
            write(&mut stream, answer.as_bytes()).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let error = plain(address).connect(&client_key()).await.unwrap_err();
        let DialError::Upgrade(error) = error else { panic!("{error}") };
        assert!(matches!(error, UpgradeError::Status(426) | UpgradeError::NotWebSocket(_)));
        assert_eq!(error.to_string(), expected);
    }
}

#[tokio::test]
async fn a_relay_states_its_key_in_messages_and_a_websocket_is_not_taken_apart() {
    let greeted = tcp_relay(async |stream| {
        let mut relay = Relay::upgrade(stream, b"").await;
        let mut greeting = Vec::new();
        greet(&relay_key().public(), &mut greeting);
        relay.send(&greeting, 5).await;
        let _ = relay.stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    assert_eq!(plain(greeted).greet().await.unwrap().relay, relay_key().public());

    let address = tcp_relay(async |stream| {
        let mut relay = Relay::upgrade(stream, b"").await;
        relay.log_in(b"").await;
        let _ = relay.stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let error = connect(address).await.into_raw().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
}
