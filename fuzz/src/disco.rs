//! disco: messages, packets, and the kinds of datagrams.

use towpath_wire::disco::datagram::DatagramKind;
use towpath_wire::disco::message::{MAX_ENDPOINTS, Message};
use towpath_wire::disco::packet::DiscoPacket;

/// What is read is written and read again as the same, a message has the type of its first byte and no more endpoints than
/// there may be, and a datagram that can be taken apart is taken for disco.
pub(crate) fn read(input: &[u8]) {
    if DiscoPacket::split(input).is_some() {
        assert_eq!(DatagramKind::of(input), DatagramKind::Disco);
    }
    let Ok(message) = Message::decode(input) else { return };
    assert_eq!(message.kind().to_byte(), input[0]);
    let mut written = Vec::new();
    message.encode(&mut written);
    match &message {
        Message::UdpRelay(_) => return,
        Message::CallMeMaybe(endpoints) => assert!(endpoints.len() <= MAX_ENDPOINTS),
        // Padding without a key is read and not written.
        Message::Ping(ping) if ping.node_key.is_none() => {
            assert_eq!(written.len() + ping.padding, input.len());
            return;
        }
        Message::Ping(_) => assert_eq!(written.len(), input.len()),
        Message::Pong { .. } => assert!(written.len() <= input.len()),
    }
    assert_eq!(Message::decode(&written), Ok(message));
}
