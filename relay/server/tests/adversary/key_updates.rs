//! A client that changes its TLS keys again and again. Each change costs the relay as much as some 35 records.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use towpath_wire::derp::HEADER_LEN;
use towpath_wire::derp::frame::{ClientFrame, ServerFrame};
use towpath_wire::key::NodePublic;

use crate::alone;
use crate::common::login::{GREETING, UPGRADE, client_info};
use crate::common::{PATIENCE, Relay, trusting_anyone};
use crate::honest::Pair;
use crate::memory::resident;

/// Attackers, one after the other.
const ATTACKERS: u64 = 50;
/// More than the refused attackers may leave behind together: what the allocator and rustls keep for later.
const LEFT: usize = 4 * 1024 * 1024;

/// A client with rustls' own record layer, which changes its keys when it is told to.
struct Rekeying {
    tls: ClientConnection,
    socket: TcpStream,
}

impl Rekeying {
    fn log_in(relay: &Relay) -> Self {
        let name = ServerName::try_from("localhost").unwrap();
        let socket = TcpStream::connect(relay.tls()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        let tls = ClientConnection::new(Arc::new(trusting_anyone()), name).unwrap();
        let mut client = Self { tls, socket };
        client.send(UPGRADE).unwrap();
        let mut answer = Vec::new();
        let greeting = loop {
            answer.push(client.read_array::<1>()[0]);
            if answer.ends_with(b"\r\n\r\n") {
                break client.read_array::<GREETING>();
            }
        };
        let (key, _) = NodePublic::split_from(&greeting[HEADER_LEN + 8..]).unwrap();
        client.send(&client_info(&key)).unwrap();
        let [_, length @ ..] = client.read_array::<HEADER_LEN>();
        for _ in 0..u32::from_be_bytes(length) {
            client.read_array::<1>();
        }
        client
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut stream = rustls::Stream::new(&mut self.tls, &mut self.socket);
        stream.write_all(bytes)?;
        stream.flush()
    }

    fn read_array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        rustls::Stream::new(&mut self.tls, &mut self.socket).read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Changes keys so many times in one write, and asks the relay for as many changes.
    fn update(&mut self, times: u32) -> io::Result<()> {
        let mut bytes = Vec::new();
        for _ in 0..times {
            self.tls.refresh_traffic_keys().unwrap();
        }
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes)?;
        }
        self.socket.write_all(&bytes)
    }

    /// Whether the relay serves this client.
    fn ping(&mut self) {
        let mut ping = Vec::new();
        ClientFrame::Ping([7; 8]).encode(&mut ping);
        self.send(&ping).unwrap();
        let mut pong = Vec::new();
        ServerFrame::Pong([7; 8]).encode(&mut pong);
        assert_eq!(self.read_array::<{ HEADER_LEN + 8 }>()[..], pong);
    }
}

fn refused(relay: &Relay) -> u64 {
    relay.metric("towpath_closed_total{reason=\"key_updates\"}")
}

#[tokio::test]
async fn thirty_two_key_updates_with_every_data_record_are_refused_within_sixty_four() {
    let _alone = alone().await;
    let relay = Relay::start("");
    let mut pair = Pair::new(&relay).await;
    pair.exchange(10).await;
    let mut before = resident();
    for attacker in 1..=ATTACKERS {
        let mut client = Rekeying::log_in(&relay);
        for _ in 0..2 {
            // A frame of a type that the relay does not know, which it skips. The second may find the connection closed.
            let _ = client.send(&[0x7f, 0, 0, 0, 0]).and(client.update(32));
        }
        pair.exchange(4).await;
        relay.wait("the attacker is refused", |relay| refused(relay) == attacker);
        if attacker == 1 {
            before = resident();
        }
    }
    pair.exchange(10).await;
    let left = resident().saturating_sub(before);
    assert!(left <= LEFT, "{ATTACKERS} refused attackers leave {left} bytes behind");
}

#[tokio::test]
async fn a_client_may_change_keys_thirty_two_times_and_is_told_why_once_more_is_refused() {
    let _alone = alone().await;
    // rustls counts those in a row, and begins anew at each record with data.
    for settings in ["", "tls.records = \"rustls\""] {
        let relay = Relay::start(settings);
        let mut pair = Pair::new(&relay).await;
        let mut client = Rekeying::log_in(&relay);
        let in_a_row = if settings.is_empty() { 1 } else { 33 };
        for _ in 0..8 {
            client.update(4).unwrap();
            client.ping();
        }
        assert_eq!(refused(&relay), 0, "32 are allowed");
        client.update(in_a_row).unwrap();
        let told = rustls::Stream::new(&mut client.tls, &mut client.socket).read(&mut [0; 64]).unwrap_err();
        let told = told.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        let unexpected = rustls::Error::AlertReceived(rustls::AlertDescription::UnexpectedMessage);
        if settings.is_empty() {
            assert_eq!(told, Some(&unexpected));
        }
        relay.wait("the client is refused", |relay| refused(relay) == 1);
        pair.exchange(10).await;
    }
}
