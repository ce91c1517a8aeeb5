//! WebSocket through real sockets: what comes in at one end comes out at the other, and what breaks the protocol is
//! closed with its code, counted, and does no harm.

use std::io::{Read, Write};
use std::net::TcpStream;

use towpath_relay_client::{Event, RecvError};
use towpath_wire::key::NodePrivate;
use tungstenite::Message;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::common::websocket::{Client, PLAIN, send_packet};
use crate::common::{PATIENCE, Relay, packet};

async fn expect_service(relay: &Relay) {
    let (_, mut sender) = relay.client(101).await;
    let (to, mut receiver) = Client::log_in(relay, 102);
    sender.send(to, b"still here").await.expect("a packet goes out");
    assert_eq!(receiver.packet().1, b"still here");
}

#[tokio::test]
async fn packets_pass_between_websocket_and_tls_however_messages_are_cut() {
    let relay = Relay::start(PLAIN);
    let (browser_key, mut browser) = Client::log_in(&relay, 1);
    let (native_key, mut native) = relay.client(2).await;
    let packets: Vec<Vec<u8>> = [0, 1, 85, 86, 1400, 32_722, 32_723, 40_000, 65_536]
        .into_iter()
        .map(|len| vec![len as u8; len])
        .collect();
    for sent in &packets {
        // One message, a frame cut between two, fragments, and a ping in the middle.
        let frame = send_packet(native_key, sent);
        browser.send(Message::binary(frame.clone()));
        let (first, second) = frame.split_at(3);
        browser.send(Message::binary(first.to_vec()));
        browser.send(Message::binary(second.to_vec()));
        let fragment = |bytes: &[u8], code, last| {
            Message::Frame(Frame::message(bytes.to_vec(), OpCode::Data(code), last))
        };
        browser.send(fragment(first, Data::Binary, false));
        browser.send(Message::Ping(b"in between".to_vec().into()));
        browser.send(fragment(second, Data::Continue, true));
        // Two frames in one message.
        browser.send(Message::binary([&frame[..], &frame].concat()));
        for _ in 0..5 {
            assert_eq!(packet(&mut native).await, (browser_key, sent.clone()));
        }
        native.send(browser_key, sent).await.expect("a packet goes out");
        assert_eq!(browser.packet(), (native_key, sent.clone()));
    }
    assert!(browser.messages.iter().all(|len| len + 4 <= 32 * 1024), "{:?}", browser.messages);
    assert_eq!(relay.metric("derp_websocket_accepts"), 1);
}

/// Its login is bound to the connection, and no message of either side is above what a stock peer takes.
#[tokio::test]
async fn our_own_client_speaks_websocket_over_tls_and_over_the_plain_listener() {
    let relay = Relay::start(PLAIN);
    let http = relay.addresses.http.expect("a plain listener");
    let plain = towpath_relay_client::Dialer::plain("localhost", http.port()).at(http).websocket();
    let (native_key, mut native) = relay.client(1).await;
    for (seed, dialer) in (2..).zip([relay.dialer().websocket(), plain]) {
        let key = NodePrivate::from_random([seed; 32]);
        let (sender, mut receiver) = dialer.connect(&key).await.expect("a login").split();
        for len in [0, 1, 85, 86, 1400, 32_722, 32_723, 40_000, 65_536] {
            let sent = vec![len as u8; len];
            sender.send_batch([(native_key, &sent[..]); 3]).await.expect("a batch goes out");
            for _ in 0..3 {
                assert_eq!(packet(&mut native).await, (key.public(), sent.clone()));
            }
            native.send(key.public(), &sent).await.expect("a packet goes out");
            let event = receiver.recv().await.expect("an event");
            assert_eq!(event, Event::Packet { from: native_key, packet: sent });
        }
        sender.close().await.expect("a close goes out");
        let closed = receiver.recv().await.expect_err("the relay closes in turn");
        assert!(matches!(closed, RecvError::Closed), "{closed}");
    }
    assert_eq!(relay.metric("derp_websocket_accepts"), 2);
    relay.wait("both are counted", |relay| relay.metric("towpath_closed_total{reason=\"peer_closed\"}") == 2);
}

#[tokio::test]
async fn what_goes_out_in_one_turn_goes_out_in_one_message_and_one_write() {
    let relay = Relay::start(PLAIN);
    let (to, mut browser) = Client::log_in(&relay, 1);
    let (_, mut native) = relay.client(2).await;
    relay.wait("the logins are over", |relay| relay.metric("derp_current_connections") == 2);
    let counts = || ["towpath_reads_total", "towpath_writes_total"].map(|name| relay.metric(name));
    let (messages_before, [reads_before, writes_before]) = (browser.messages.len(), counts());
    let packets = [[7; 1400]; 8];
    native.send_batch(packets.iter().map(|packet| (to, &packet[..]))).await.expect("a batch goes out");
    for _ in 0..8 {
        assert_eq!(browser.packet().1, packets[0]);
    }
    relay.wait("the turn is published", |relay| relay.metric("derp_packets_received") == 8);
    let (messages, [reads, writes]) = (browser.messages.len() - messages_before, counts());
    // Whether the batch comes in one read is the kernel's to say; each read has a turn of its own.
    assert!(reads - reads_before < 8, "{} reads", reads - reads_before);
    assert!(messages as u64 <= reads - reads_before, "{messages} messages");
    assert_eq!(writes - writes_before, messages as u64);
}

#[tokio::test]
async fn a_ping_is_answered_with_its_payload_before_and_after_the_login() {
    let relay = Relay::start(PLAIN);
    let expect_pong = |client: &mut Client, payload: &[u8]| {
        client.send(Message::Ping(payload.to_vec().into()));
        assert_eq!(client.socket.read().expect("a pong"), Message::Pong(payload.to_vec().into()));
    };
    let mut client = Client::connect(&relay);
    expect_pong(&mut client, b"before");
    client.send(Message::binary(client.login_frame(&NodePrivate::from_random([5; 32]))));
    assert_eq!(client.frame().0, 3);
    expect_pong(&mut client, b"");
    expect_pong(&mut client, &[9; 125]);
    client.send(Message::Pong(b"unasked".to_vec().into()));
    expect_pong(&mut client, b"still here");
}

#[tokio::test]
async fn a_close_is_answered_and_a_stop_is_told() {
    let mut relay = Relay::start(PLAIN);
    let (_, mut client) = Client::log_in(&relay, 1);
    client.send(Message::Close(None));
    assert_eq!(client.close_code(), Some(1000));
    relay.wait("it is counted", |relay| relay.metric("towpath_closed_total{reason=\"peer_closed\"}") == 1);
    let (_, client) = Client::log_in(&relay, 1);
    relay.stop();
    assert_eq!(client.close_code(), Some(1001));
}

/// Pongs do not pile up for a client that does not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_pings_that_find_the_socket_full_the_last_is_answered() {
    let relay = Relay::start(&format!("{PLAIN}\noutbox.write_timeout = \"60s\""));
    let (to, mut browser) = Client::log_in(&relay, 1);
    let (heard, mut hearing) = relay.client(2).await;
    relay.fill(to, &[0; 1400], 3).await;
    for number in 0..100 {
        browser.send(Message::Ping(vec![number].into()));
    }
    browser.send(Message::binary(send_packet(heard, b"behind the pings")));
    assert_eq!(packet(&mut hearing).await.1, b"behind the pings");
    let mut pongs = Vec::new();
    let mut read_pong = |browser: &mut Client| loop {
        if let Message::Pong(payload) = browser.socket.read().expect("a message") {
            return pongs.push(payload.to_vec());
        }
    };
    read_pong(&mut browser);
    browser.send(Message::Ping(b"any other?".to_vec().into()));
    read_pong(&mut browser);
    assert_eq!(pongs, [&[99][..], b"any other?"]);
}

/// A close would be in the middle of the message that the socket did not take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_is_closed_without_a_code() {
    let relay = Relay::start(&format!("{PLAIN}\noutbox.write_timeout = \"2s\""));
    let (to, browser) = Client::log_in(&relay, 1);
    relay.fill(to, &[0; 1400], 2).await;
    let reason = "towpath_closed_total{reason=\"write_timeout\"}";
    relay.wait("it is closed", |relay| relay.metric(reason) == 1);
    relay.wait("it has left", |relay| relay.metric("derp_current_connections") == 0);
    assert_eq!(browser.close_code(), None);
}

#[tokio::test]
async fn each_breach_is_closed_with_its_code_before_and_after_the_login() {
    let relay = Relay::start(PLAIN);
    let too_big = [&[0x82, 0xff][..], &(1u64 << 20 | 1).to_be_bytes(), &[0; 4]].concat();
    let cases: [(&str, &[u8], u16); 8] = [
        ("text", &[0x81, 0x80, 0, 0, 0, 0], 1003),
        ("a reserved bit", &[0xc2, 0x80, 0, 0, 0, 0], 1002),
        ("no mask", &[0x82, 0x01, 0x00], 1002),
        ("an unknown opcode", &[0x83, 0x80, 0, 0, 0, 0], 1002),
        ("a long ping", &[0x89, 0xfe, 0, 126, 0, 0, 0, 0], 1002),
        ("a continuation of nothing", &[0x80, 0x80, 0, 0, 0, 0], 1002),
        ("too large", &too_big, 1009),
        ("half a close code", &[0x88, 0x81, 0, 0, 0, 0, 0x03], 1002),
    ];
    for (at, (what, bytes, code)) in cases.into_iter().enumerate() {
        let mut client = Client::connect(&relay);
        client.socket.get_mut().write_all(bytes).expect("the relay takes the bytes");
        assert_eq!(client.close_code(), Some(code), "{what}, before the login");
        let (_, mut client) = Client::log_in(&relay, 1);
        client.socket.get_mut().write_all(bytes).expect("the relay takes the bytes");
        assert_eq!(client.close_code(), Some(code), "{what}");
        for name in ["towpath_refused_total", "towpath_closed_total"] {
            let name = format!("{name}{{reason=\"websocket\"}}");
            relay.wait(what, |relay| relay.metric(&name) == at as u64 + 1);
        }
    }
    // What is in the messages may be as wrong as anywhere else.
    let (_, mut client) = Client::log_in(&relay, 1);
    client.send(Message::binary(vec![4, 0, 0, 0, 31]));
    assert_eq!(client.close_code(), Some(1008));
    let mut client = Client::connect(&relay);
    client.send(Message::binary(vec![4, 0, 0, 0, 31]));
    assert_eq!(client.close_code(), Some(1008));
    expect_service(&relay).await;
}

#[tokio::test]
async fn the_plain_listener_speaks_derp_without_messages_and_only_to_proxies() {
    let relay = Relay::start(PLAIN);
    let address = relay.addresses.http.expect("a plain listener");
    let dialer = towpath_relay_client::Dialer::plain("localhost", address.port()).at(address);
    let key = NodePrivate::from_random([1; 32]);
    let mut plain = dialer.connect(&key).await.expect("a login");
    let (native_key, mut native) = relay.client(2).await;
    let large = vec![3; 65_536];
    plain.send(native_key, &large).await.expect("a packet goes out");
    assert_eq!(packet(&mut native).await, (key.public(), large.clone()));
    native.send(key.public(), &large).await.expect("a packet goes out");
    assert_eq!(packet(&mut plain).await, (native_key, large));

    let relay = Relay::start(&format!("{PLAIN}\nhttp.proxies = [\"192.0.2.7\"]"));
    let mut stream =
        TcpStream::connect(relay.addresses.http.expect("a plain listener")).expect("the kernel accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut answer = Vec::new();
    // The relay may reset the connection as well as end it.
    let _ = stream.write_all(b"GET /derp/probe HTTP/1.1\r\nHost: x\r\n\r\n");
    let _ = stream.read_to_end(&mut answer);
    assert_eq!(answer, b"");
    relay.wait("it is counted", |relay| relay.metric("towpath_refused_total{reason=\"not_a_proxy\"}") == 1);
}
