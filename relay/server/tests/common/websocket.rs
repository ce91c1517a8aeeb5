//! A WebSocket client by tungstenite, for the plain listener.

use std::io::{Read, Write};
use std::net::TcpStream;

use towpath_wire::derp::HEADER_LEN;
use towpath_wire::derp::frame::{ClientFrame, Header};
use towpath_wire::derp::info::ClientInfo;
use towpath_wire::key::{NodePrivate, NodePublic};
use tungstenite::protocol::{Role, WebSocket};
use tungstenite::{Error, Message};

use super::{PATIENCE, Relay};

/// The setting by which a relay has a plain listener.
pub(crate) const PLAIN: &str = "http.listen = \"127.0.0.1:0\"";
/// The request of a page of another origin.
pub(crate) const HANDSHAKE: &[u8] =
    b"GET /derp HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
      Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
      Sec-WebSocket-Protocol: derp\r\nOrigin: https://elsewhere.example\r\n\r\n";
const RECV_PACKET: u8 = 5;

/// A connection in WebSocket.
pub(crate) struct Client {
    pub(crate) socket: WebSocket<TcpStream>,
    pub(crate) relay: NodePublic,
    /// Bytes of DERP that are not a whole frame yet.
    bytes: Vec<u8>,
    /// Payload of each message so far.
    pub(crate) messages: Vec<usize>,
}

impl Client {
    /// A connection on which the relay has sent its key.
    pub(crate) fn connect(relay: &Relay) -> Self {
        let mut stream =
            TcpStream::connect(relay.addresses.http.expect("a plain listener")).expect("the relay accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(HANDSHAKE).expect("a request");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a response");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("text");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
        assert!(head.contains("\r\nSec-WebSocket-Protocol: derp\r\n"), "{head}");
        let mut client = Self {
            socket: WebSocket::from_raw_socket(stream, Role::Client, None),
            relay: NodePublic::from_bytes([1; 32]),
            bytes: Vec::new(),
            messages: Vec::new(),
        };
        let (kind, greeting) = client.frame();
        assert_eq!((kind, greeting.len()), (1, 40));
        client.relay = NodePublic::split_from(&greeting[8..]).expect("a key").0;
        client
    }

    pub(crate) fn login_frame(&self, key: &NodePrivate) -> Vec<u8> {
        let mut frame = Vec::new();
        ClientInfo { version: 2, ..ClientInfo::default() }.seal(key, &self.relay, &[3; 24], &mut frame);
        frame
    }

    pub(crate) fn log_in(relay: &Relay, seed: u8) -> (NodePublic, Self) {
        let mut client = Self::connect(relay);
        let key = NodePrivate::from_random([seed; 32]);
        client.send(Message::binary(client.login_frame(&key)));
        assert_eq!(client.frame().0, 3, "ServerInfo");
        (key.public(), client)
    }

    pub(crate) fn send(&mut self, message: Message) {
        self.socket.send(message).expect("a message goes out");
    }

    /// The next frame, out of as many messages as it takes.
    pub(crate) fn frame(&mut self) -> (u8, Vec<u8>) {
        loop {
            if let Some(header) = Header::decode(&self.bytes) {
                let end = HEADER_LEN + header.len as usize;
                if self.bytes.len() >= end {
                    let frame = self.bytes.drain(..end).skip(HEADER_LEN).collect();
                    return (header.kind, frame);
                }
            }
            match self.socket.read().expect("a message") {
                Message::Binary(bytes) => {
                    self.messages.push(bytes.len());
                    self.bytes.extend_from_slice(&bytes);
                }
                Message::Pong(_) => {}
                other => panic!("got {other:?}"),
            }
        }
    }

    pub(crate) fn packet(&mut self) -> (NodePublic, Vec<u8>) {
        let (kind, payload) = self.frame();
        assert_eq!(kind, RECV_PACKET);
        let (from, packet) = NodePublic::split_from(&payload).expect("a source");
        (from, packet.to_vec())
    }

    /// The code with which the relay closes; `None` where it closes without.
    pub(crate) fn close_code(mut self) -> Option<u16> {
        loop {
            match self.socket.read() {
                Ok(Message::Close(close)) => return close.map(|close| close.code.into()),
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("not closed")
                }
                Err(_) => return None,
            }
        }
    }
}

/// A SendPacket frame.
pub(crate) fn send_packet(to: NodePublic, packet: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    ClientFrame::SendPacket { to, packet }.encode(&mut frame);
    frame
}
