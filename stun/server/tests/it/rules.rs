//! Tests of the clients that a server answers, of its rates, and of the source of its answers.

use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU32;

use towpath_stun::{
    AnswerKind, BindError, BoundServer, ClientFilter, Policy, Snapshot, StunSettings, Withheld,
};
use towpath_stun_proto::Response;

use crate::common::*;

/// A request of RFC 8489 with these attributes, or of RFC 3489 without the cookie.
fn binding(cookie: bool, attributes: &[u8]) -> Vec<u8> {
    let header = if cookie { [0x21, 0x12, 0xa4, 0x42] } else { [1, 2, 3, 4] };
    [&[0, 1, 0, attributes.len() as u8][..], &header, &transaction(7).0, attributes].concat()
}

const BARE: &[u8] = &[];
const SOFTWARE: &[u8] = &[0x80, 0x22, 0, 4, b't', b'e', b's', b't'];
const UNKNOWN: &[u8] = &[0x7f, 1, 0, 4, 0, 0, 0, 1];

#[test]
fn every_dialect_is_answered_and_counted() {
    let (server, addresses) = serve(&["127.0.0.1:0", "[::1]:0"]);
    for address in addresses {
        let client = client(address);
        let mapped = client.local_addr().unwrap();
        assert_answers(&client, 1);
        for attributes in [BARE, SOFTWARE] {
            client.send(&binding(true, attributes)).unwrap();
            assert_eq!(response(&client), Response { transaction: transaction(7), mapped, other: None });
        }
        let mut buffer = [0; 128];
        client.send(&binding(false, BARE)).unwrap();
        client.recv(&mut buffer).unwrap();
        assert_eq!(
            (&buffer[..2], &buffer[4..8], &buffer[20..22]),
            (&[1, 1][..], &[1, 2, 3, 4][..], &[0, 1][..])
        );
        assert_eq!(buffer[26..28], mapped.port().to_be_bytes());
        client.send(&binding(true, UNKNOWN)).unwrap();
        let len = client.recv(&mut buffer).unwrap();
        assert_eq!((&buffer[..2], &buffer[24..28]), (&[1, 0x11][..], &[0, 0, 4, 20][..]));
        assert_eq!(buffer[28..len], [0, 0x0a, 0, 2, 0x7f, 1, 0, 0]);
    }
    let mut expected = Snapshot { success: 10, ipv4: 5, ipv6: 5, ..Snapshot::default() };
    for (kind, count) in [
        (AnswerKind::Tailscale, 2),
        (AnswerKind::Standard, 4),
        (AnswerKind::Classic, 2),
        (AnswerKind::Refusal, 2),
    ] {
        expected.answers[kind.index()] = count;
    }
    assert_counts(&server.counters(), expected);
}

#[test]
fn a_server_for_tailscale_answers_no_other_client() {
    let policy = Policy { clients: ClientFilter::Tailscale, ..unlimited() };
    let (server, addresses) = serve_with(&["127.0.0.1:0"], &[], policy);
    let client = client(addresses[0]);
    for datagram in
        [binding(true, BARE), binding(true, SOFTWARE), binding(false, BARE), binding(true, UNKNOWN)]
    {
        client.send(&datagram).unwrap();
    }
    // The answer that comes is the one to this.
    assert_answers(&client, 1);
    let mut expected = answered(1, 0);
    expected.withheld[Withheld::ForeignClient.index()] = 4;
    assert_counts(&server.counters(), expected);
}

#[test]
fn a_source_that_asks_beyond_its_rate_is_not_answered_and_others_are() {
    let policy = Policy { rate: NonZeroU32::new(2), ..Policy::default() };
    let (server, addresses) = serve_with(&["127.0.0.1:0"], &[], policy);
    let greedy = client(addresses[0]);
    for number in 0..50 {
        greedy.send(&request(number)).unwrap();
    }
    // Two at once, and one for each half a second that this test takes.
    assert_eq!(
        [response(&greedy), response(&greedy)].map(|response| response.transaction),
        [0, 1].map(transaction)
    );
    let other = UdpSocket::bind("127.0.0.77:0").unwrap();
    other.connect(addresses[0]).unwrap();
    other.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_answers(&other, 99);
    let limited = server.counters().snapshot().withheld[Withheld::RateLimit.index()];
    assert!((40..=48).contains(&limited), "{limited} of 50");
}

const ANYWHERE: &[u8] = &[0, 3, 0, 4, 0, 0, 0, 0];
const OTHER_PORT: &[u8] = &[0, 3, 0, 4, 0, 0, 0, 2];
const OTHER_ADDRESS: &[u8] = &[0, 3, 0, 4, 0, 0, 0, 4];
const OTHER_BOTH: &[u8] = &[0, 3, 0, 4, 0, 0, 0, 6];

/// Asks each of four sockets for an answer from each of the four, and checks where the answer comes from.
#[test]
fn a_second_address_makes_four_origins() {
    let policy = Policy { discovery_rate: NonZeroU32::new(1000).unwrap(), ..unlimited() };
    let (server, addresses) = serve_with(&["127.0.0.1:0"], &["127.0.0.2:0"], policy);
    let [first, second] = [addresses[0], addresses[3]];
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    let other = |this: SocketAddr, address: bool, port: bool| {
        let ip = if (this.ip() == first.ip()) == address { second.ip() } else { first.ip() };
        let port = if (this.port() == first.port()) == port { second.port() } else { first.port() };
        SocketAddr::new(ip, port)
    };
    let mut buffer = [0; 128];
    for asked in &addresses {
        let wishes = [
            (ANYWHERE, false, false),
            (OTHER_PORT, false, true),
            (OTHER_ADDRESS, true, false),
            (OTHER_BOTH, true, true),
        ];
        for (wish, address, port) in wishes {
            client.send_to(&binding(true, wish), asked).unwrap();
            let (len, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!(from, other(*asked, address, port), "{asked} was asked with {wish:?}");
            let mapped = Response::parse(&buffer[..len]).unwrap().mapped;
            assert_eq!(mapped, client.local_addr().unwrap());
        }
    }
    let answers = server.counters().snapshot().answers;
    assert_eq!(answers[AnswerKind::Discovery.index()], 16);
}

#[test]
fn a_response_port_gets_the_answer() {
    let (_server, addresses) = serve_with(&["127.0.0.1:0"], &["127.0.0.2:0"], unlimited());
    let (asking, listening) = (client(addresses[0]), client(addresses[0]));
    let port = listening.local_addr().unwrap().port().to_be_bytes();
    asking.send(&binding(true, &[0, 0x27, 0, 2, port[0], port[1], 0, 0])).unwrap();
    assert_eq!(response(&listening).mapped, asking.local_addr().unwrap());
}

/// What RFC 5780 adds has a rate of its own; what it does not is answered all the same.
#[test]
fn discovery_has_a_rate_of_its_own() {
    let policy = Policy { discovery_rate: NonZeroU32::MIN, ..unlimited() };
    let (server, addresses) = serve_with(&["127.0.0.1:0"], &["127.0.0.2:0"], policy);
    let client = client(addresses[0]);
    for _ in 0..10 {
        client.send(&binding(true, ANYWHERE)).unwrap();
    }
    assert_eq!(response(&client).transaction, transaction(7));
    assert_answers(&client, 1);
    let limited = server.counters().snapshot().withheld[Withheld::DiscoveryRateLimit.index()];
    assert!((5..=9).contains(&limited), "{limited} of 10");
}

#[test]
fn without_a_second_address_discovery_is_refused() {
    let (_server, addresses) = serve(&["127.0.0.1:0"]);
    let client = client(addresses[0]);
    client.send(&binding(true, OTHER_BOTH)).unwrap();
    let mut buffer = [0; 128];
    let len = client.recv(&mut buffer).unwrap();
    assert_eq!(buffer[24..len], [0, 0, 4, 20, 0, 0x0a, 0, 2, 0, 3, 0, 0]);
}

#[test]
fn a_second_address_differs_in_address_and_port() {
    let error = |listen: &[&str], alternate: &str| {
        let listen = listen.iter().map(|address| address.parse().unwrap()).collect();
        let alternates = vec![alternate.parse().unwrap()];
        BoundServer::bind(&StunSettings { listen, alternates, policy: unlimited() }).unwrap_err()
    };
    for (listen, alternate) in [
        (&["127.0.0.1:0"][..], "127.0.0.1:0"),
        (&["0.0.0.0:0"], "127.0.0.1:0"),
        (&["127.0.0.1:0"], "0.0.0.0:0"),
        (&["127.0.0.1:0"], "[::1]:0"),
        (&["127.0.0.1:0", "127.0.0.3:0"], "127.0.0.2:0"),
    ] {
        let error = error(listen, alternate);
        assert!(matches!(error, BindError::Alternate { .. }), "{listen:?} and {alternate}: {error}");
    }
}
