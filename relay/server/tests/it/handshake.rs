//! What the relay offers in a TLS handshake, to rustls' own client.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::{AlertDescription, ClientConnection, Error, ProtocolVersion};

use crate::common::{Relay, trusting_anyone};

/// Connects with these ALPN protocols and asks for a page.
fn connect(relay: &Relay, alpn: &[&str]) -> Result<ClientConnection, Error> {
    let mut config = trusting_anyone();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = "localhost".try_into().expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut socket = TcpStream::connect(relay.tls()).expect("the relay accepts");
    let mut stream = rustls::Stream::new(&mut client, &mut socket);
    let request = b"GET /derp/probe HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut answer = Vec::new();
    if let Err(error) = stream.write_all(request).and_then(|()| stream.read_to_end(&mut answer)) {
        let error = error.into_inner().expect("an error of TLS");
        return Err(*error.downcast::<Error>().expect("an error of TLS"));
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    Ok(client)
}

#[test]
fn http_1_1_is_spoken_and_nothing_else() {
    let relay = Relay::start("");
    for (offered, agreed) in
        [(&[][..], None), (&["http/1.1"], Some(&b"http/1.1"[..])), (&["h2", "http/1.1"], Some(b"http/1.1"))]
    {
        let client = connect(&relay, offered).expect("an agreement");
        assert_eq!(client.alpn_protocol(), agreed, "{offered:?}");
    }
    let refused = connect(&relay, &["h2"]).expect_err("no agreement");
    assert_eq!(refused, Error::AlertReceived(AlertDescription::NoApplicationProtocol));
}

#[test]
fn no_tickets_are_sent_because_no_client_of_derp_resumes() {
    let relay = Relay::start("");
    let client = connect(&relay, &[]).expect("an agreement");
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(client.tls13_tickets_received(), 0);
}
