//! What a client sends in one flight with its login. The control plane has read it, and the data plane has to act on it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConnection, SupportedProtocolVersion};
use towpath_wire::derp::HEADER_LEN;
use towpath_wire::derp::frame::{ClientFrame, FrameType, ServerFrame};
use towpath_wire::key::NodePublic;

use crate::common::login::{GREETING, UPGRADE, client_info};
use crate::common::websocket::HANDSHAKE;
use crate::common::{PATIENCE, Relay, trusting_anyone_over};

/// A client in TLS that decides what goes out in one write.
struct Client {
    tls: ClientConnection,
    socket: TcpStream,
}

impl Client {
    fn connect(relay: &Relay, version: &'static SupportedProtocolVersion) -> Self {
        let socket = TcpStream::connect(relay.tls()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let config = Arc::new(trusting_anyone_over(&[version]));
        Self { tls: ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap(), socket }
    }

    /// Asks for DERP. Returns the relay's key, which comes behind `header` bytes.
    fn upgrade(&mut self, request: &[u8], header: usize) -> NodePublic {
        let mut stream = rustls::Stream::new(&mut self.tls, &mut self.socket);
        stream.write_all(request).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.extend_from_slice(&byte);
        }
        let mut greeting = vec![0; header + GREETING];
        stream.read_exact(&mut greeting).unwrap();
        NodePublic::split_from(&greeting[header + HEADER_LEN + 8..]).unwrap().0
    }

    /// Sends in one write what TLS has to send.
    fn flush(&mut self) {
        let mut flight = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut flight).unwrap();
        }
        self.socket.write_all(&flight).unwrap();
    }

    fn read_array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        rustls::Stream::new(&mut self.tls, &mut self.socket).read_exact(&mut bytes).unwrap();
        bytes
    }

    /// What the relay sends until it closes.
    fn read_to_end(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        rustls::Stream::new(&mut self.tls, &mut self.socket).read_to_end(&mut rest).unwrap();
        rest
    }
}

fn expect_closed(relay: &Relay, closed: u64) {
    relay.wait("it is closed by its own wish", |relay| {
        relay.metric("towpath_closed_total{reason=\"peer_closed\"}") == closed
    });
    assert_eq!(relay.metric("towpath_closed_total"), closed);
}

#[test]
fn a_client_that_closes_behind_its_login_is_closed_at_once() {
    for settings in ["", "tls.records = 'rustls'"] {
        let relay = Relay::start(settings);
        let mut closed = 0;
        for version in [&TLS12, &TLS13] {
            // A record may come behind the close, whole or not.
            for behind in [&b""[..], &[23, 3, 3, 0, 1, 0], &[23, 3, 3]] {
                let mut client = Client::connect(&relay, version);
                let key = client.upgrade(UPGRADE, 0);
                client.tls.writer().write_all(&client_info(&key)).unwrap();
                client.tls.send_close_notify();
                let mut flight = Vec::new();
                while client.tls.wants_write() {
                    client.tls.write_tls(&mut flight).unwrap();
                }
                flight.extend_from_slice(behind);
                client.socket.write_all(&flight).unwrap();
                // The client keeps TCP open, and is told all that it was owed.
                let told = client.read_to_end();
                assert_eq!(told.first(), Some(&(FrameType::ServerInfo as u8)), "{version:?}, {behind:?}");
                closed += 1;
                expect_closed(&relay, closed);
            }
        }
    }
}

/// One short binary message with a mask of zeros.
fn message(content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap();
    assert!(length < 126);
    [&[0x82, 0x80 | length][..], &[0; 4], content].concat()
}

#[test]
fn so_is_one_in_websocket() {
    let relay = Relay::start("");
    for (closed, version) in [&TLS12, &TLS13].into_iter().enumerate() {
        let mut client = Client::connect(&relay, version);
        let key = client.upgrade(HANDSHAKE, 2);
        client.tls.writer().write_all(&message(&client_info(&key))).unwrap();
        client.tls.send_close_notify();
        client.flush();
        client.read_to_end();
        expect_closed(&relay, closed as u64 + 1);
    }
}

#[test]
fn so_is_one_without_tls() {
    let relay = Relay::start("http.listen = '127.0.0.1:0'");
    let mut socket = TcpStream::connect(relay.addresses.http.unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(UPGRADE).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        answer.extend_from_slice(&byte);
    }
    let mut greeting = [0; GREETING];
    socket.read_exact(&mut greeting).unwrap();
    let (key, _) = NodePublic::split_from(&greeting[HEADER_LEN + 8..]).unwrap();
    socket.write_all(&client_info(&key)).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    socket.read_to_end(&mut Vec::new()).unwrap();
    expect_closed(&relay, 1);
}

#[test]
fn a_client_that_changes_its_keys_with_its_login_is_served() {
    for settings in ["", "tls.records = 'rustls'"] {
        let relay = Relay::start(settings);
        let mut client = Client::connect(&relay, &TLS13);
        let key = client.upgrade(UPGRADE, 0);
        client.tls.refresh_traffic_keys().unwrap();
        client.tls.writer().write_all(&client_info(&key)).unwrap();
        client.flush();
        let [kind, length @ ..] = client.read_array::<HEADER_LEN>();
        assert_eq!(kind, FrameType::ServerInfo as u8);
        for _ in 0..u32::from_be_bytes(length) {
            client.read_array::<1>();
        }
        let (mut ping, mut pong) = (Vec::new(), Vec::new());
        ClientFrame::Ping([7; 8]).encode(&mut ping);
        ServerFrame::Pong([7; 8]).encode(&mut pong);
        client.tls.writer().write_all(&ping).unwrap();
        client.flush();
        assert_eq!(client.read_array::<{ HEADER_LEN + 8 }>()[..], pong);
    }
}
