//! The messages of disco, as they are in the box: `type, version, payload`.
//!
//! Reading is liberal, as upstream's is: bytes behind the known fields are padding or of a later version. Writing is strict.
//! The messages of Tailscale's UDP relays (types 4 to 9) are checked for their form and not taken apart, because no peer here
//! has such a relay.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::key::{KEY_LEN, NodePublic};
use crate::labels;

/// Bytes of a transaction id.
pub const TX_ID_LEN: usize = 12;
/// Bytes of an address and port: an IPv6 address, mapped for IPv4, and a port in network order.
pub const ADDRESS_LEN: usize = 18;
/// Most endpoints that are read of a CallMeMaybe. Upstream has no bound; each of them costs its receiver a ping to wherever the
/// sender says.
pub const MAX_ENDPOINTS: usize = 64;

/// A transaction id: it ties a Pong to its Ping, and is the only proof that the Pong is fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxId(pub [u8; TX_ID_LEN]);

labels! {
    /// The type of a message, 1 to 9 on the wire in this order.
    pub enum MessageType {
        /// A probe of a path.
        Ping = "ping",
        /// The answer to a Ping, with the address that the Ping came from.
        Pong = "pong",
        /// The addresses of a peer, and the wish to be pinged there.
        CallMeMaybe = "call_me_maybe",
        /// A binding to a UDP relay.
        BindUdpRelayEndpoint = "bind_udp_relay_endpoint",
        /// The relay's challenge to it.
        BindUdpRelayEndpointChallenge = "bind_udp_relay_endpoint_challenge",
        /// The answer to that.
        BindUdpRelayEndpointAnswer = "bind_udp_relay_endpoint_answer",
        /// The wish to be called through a UDP relay.
        CallMeMaybeVia = "call_me_maybe_via",
        /// A request to a UDP relay.
        AllocateUdpRelayEndpointRequest = "allocate_udp_relay_endpoint_request",
        /// Its answer.
        AllocateUdpRelayEndpointResponse = "allocate_udp_relay_endpoint_response",
    }
}

impl MessageType {
    /// The type that this byte stands for.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte).checked_sub(1)?).copied()
    }

    /// The byte that stands for the type.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        self.index() as u8 + 1
    }

    /// Whether a message of this type counts only if it came through a DERP relay, which has authenticated its sender.
    #[must_use]
    pub const fn is_for_relays_only(self) -> bool {
        matches!(
            self,
            Self::CallMeMaybe
                | Self::CallMeMaybeVia
                | Self::AllocateUdpRelayEndpointRequest
                | Self::AllocateUdpRelayEndpointResponse
        )
    }

    /// The fewest bytes of a payload, below which the message is malformed, or where upstream says so, empty.
    const fn least(self) -> usize {
        match self {
            Self::Ping => TX_ID_LEN,
            Self::Pong => TX_ID_LEN + ADDRESS_LEN,
            Self::BindUdpRelayEndpoint
            | Self::BindUdpRelayEndpointChallenge
            | Self::BindUdpRelayEndpointAnswer => 72,
            Self::CallMeMaybe
            | Self::CallMeMaybeVia
            | Self::AllocateUdpRelayEndpointRequest
            | Self::AllocateUdpRelayEndpointResponse => 0,
        }
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A probe of a path. Its answer goes back where it came from.
    Ping(Ping),
    /// The answer to a probe.
    Pong {
        /// The id of the Ping that is answered.
        tx: TxId,
        /// The address that the Ping seemed to come from.
        source: SocketAddr,
    },
    /// The sender has pinged what it knows of the receiver, and can be pinged at these addresses. [`MAX_ENDPOINTS`] at most; a
    /// message of another version, or of a length that does not fit, has none.
    CallMeMaybe(Vec<SocketAddr>),
    /// A message for Tailscale's UDP relays.
    UdpRelay(MessageType),
}

/// A probe of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Chosen at random for each Ping.
    pub tx: TxId,
    /// The node key of the sender. Clients before Tailscale 1.16 do not state it.
    pub node_key: Option<NodePublic>,
    /// Bytes of zero behind it, by which the size of packets that pass is found out. Without a node key there are none.
    pub padding: usize,
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Type, version or a field of the type is cut off.
    #[error("the message is too short")]
    Short,
    /// The type is of a later version of disco. Such a message is passed over.
    #[error("the message has the unknown type {0}")]
    Unknown(u8),
}

impl Message {
    /// Reads what a box holds.
    ///
    /// # Errors
    ///
    /// See [`MessageError`].
    pub fn decode(plaintext: &[u8]) -> Result<Self, MessageError> {
        let [kind, version, payload @ ..] = plaintext else { return Err(MessageError::Short) };
        let kind = MessageType::from_byte(*kind).ok_or(MessageError::Unknown(*kind))?;
        if payload.len() < kind.least() {
            return Err(MessageError::Short);
        }
        Ok(match kind {
            MessageType::Ping => Self::Ping(Ping::decode(payload)?),
            MessageType::Pong => {
                let (tx, rest) = payload.split_first_chunk().ok_or(MessageError::Short)?;
                let address = rest.first_chunk().ok_or(MessageError::Short)?;
                Self::Pong { tx: TxId(*tx), source: read_address(address) }
            }
            MessageType::CallMeMaybe if *version == 0 => Self::CallMeMaybe(read_endpoints(payload)),
            MessageType::CallMeMaybe => Self::CallMeMaybe(Vec::new()),
            other => Self::UdpRelay(other),
        })
    }

    /// The type of the message.
    #[must_use]
    pub const fn kind(&self) -> MessageType {
        match self {
            Self::Ping(_) => MessageType::Ping,
            Self::Pong { .. } => MessageType::Pong,
            Self::CallMeMaybe(_) => MessageType::CallMeMaybe,
            Self::UdpRelay(kind) => *kind,
        }
    }

    /// Appends what the box of this message holds. A message for a UDP relay is written without its fields, which no peer here
    /// sends.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.kind().to_byte(), 0]);
        match self {
            Self::Ping(Ping { tx, node_key, padding }) => {
                out.extend_from_slice(&tx.0);
                if let Some(key) = node_key {
                    out.extend_from_slice(key.as_bytes());
                    out.resize(out.len() + padding, 0);
                }
            }
            Self::Pong { tx, source } => {
                out.extend_from_slice(&tx.0);
                write_address(*source, out);
            }
            Self::CallMeMaybe(endpoints) => {
                endpoints.iter().take(MAX_ENDPOINTS).for_each(|endpoint| write_address(*endpoint, out));
            }
            Self::UdpRelay(_) => {}
        }
    }
}

impl Ping {
    fn decode(payload: &[u8]) -> Result<Self, MessageError> {
        let (tx, rest) = payload.split_first_chunk().ok_or(MessageError::Short)?;
        let key = rest.split_first_chunk::<KEY_LEN>();
        let (node_key, padding) = match key {
            // Upstream's padding of a Ping without a key: all zero, which is no key of anybody.
            Some((key, behind)) if *key != [0; KEY_LEN] => (Some(NodePublic::from_bytes(*key)), behind.len()),
            _ => (None, rest.len()),
        };
        Ok(Self { tx: TxId(*tx), node_key, padding })
    }
}

/// The endpoints of a CallMeMaybe; none where the length is not one of whole endpoints.
fn read_endpoints(payload: &[u8]) -> Vec<SocketAddr> {
    let (endpoints, rest) = payload.as_chunks::<ADDRESS_LEN>();
    if rest.is_empty() {
        endpoints.iter().take(MAX_ENDPOINTS).map(read_address).collect()
    } else {
        Vec::new()
    }
}

/// Reads an address and port. An IPv4 address in its IPv6 form is read as IPv4.
#[must_use]
pub fn read_address(bytes: &[u8; ADDRESS_LEN]) -> SocketAddr {
    let [ip @ .., high, low] = bytes;
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(*ip)).to_canonical(), u16::from_be_bytes([*high, *low]))
}

/// Appends an address and port.
pub fn write_address(address: SocketAddr, out: &mut Vec<u8>) {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    out.extend_from_slice(&ip.octets());
    out.extend_from_slice(&address.port().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Message, MessageError> {
        Message::decode(bytes)
    }

    fn written(message: &Message) -> Vec<u8> {
        let mut out = Vec::new();
        message.encode(&mut out);
        out
    }

    #[test]
    fn messages_are_read_as_they_are_written() {
        let tx = TxId([9; TX_ID_LEN]);
        let key = NodePublic::from_bytes([3; KEY_LEN]);
        let [v4, v6] = ["192.0.2.1:5", "[2001:db8::1]:65535"].map(|text| text.parse().expect("an address"));
        for message in [
            Message::Ping(Ping { tx, node_key: None, padding: 0 }),
            Message::Ping(Ping { tx, node_key: Some(key), padding: 0 }),
            Message::Ping(Ping { tx, node_key: Some(key), padding: 1000 }),
            Message::Pong { tx, source: v4 },
            Message::Pong { tx, source: v6 },
            Message::CallMeMaybe(vec![]),
            Message::CallMeMaybe(vec![v4, v6]),
        ] {
            assert_eq!(read(&written(&message)), Ok(message));
        }
    }

    #[test]
    fn what_is_cut_is_refused_and_what_is_longer_is_read() {
        let tx = TxId([9; TX_ID_LEN]);
        let source = "192.0.2.1:5".parse().expect("an address");
        for message in [Message::Ping(Ping { tx, node_key: None, padding: 0 }), Message::Pong { tx, source }]
        {
            let whole = written(&message);
            for cut in 0..whole.len() {
                assert_eq!(read(&whole[..cut]), Err(MessageError::Short), "{cut} bytes");
            }
        }
        let longer = [written(&Message::Pong { tx, source }), vec![1; 40]].concat();
        assert_eq!(read(&longer), Ok(Message::Pong { tx, source }));
        assert_eq!(read(&[0, 0]), Err(MessageError::Unknown(0)));
        assert_eq!(read(&[10, 0, 1, 2]), Err(MessageError::Unknown(10)));
    }

    #[test]
    fn a_ping_without_a_key_may_be_padded() {
        let tx = [9; TX_ID_LEN];
        let padded = [&[1, 0][..], &tx, &[0; 100]].concat();
        assert_eq!(read(&padded), Ok(Message::Ping(Ping { tx: TxId(tx), node_key: None, padding: 100 })));
        let short = [&[1, 0][..], &tx, &[7; 31]].concat();
        assert_eq!(read(&short), Ok(Message::Ping(Ping { tx: TxId(tx), node_key: None, padding: 31 })));
    }

    #[test]
    fn a_call_me_maybe_of_another_version_or_length_is_empty_and_a_long_one_is_cut() {
        let endpoint = [0; ADDRESS_LEN];
        let empty = Ok(Message::CallMeMaybe(vec![]));
        assert_eq!(read(&[&[3, 1][..], &endpoint].concat()), empty);
        assert_eq!(read(&[&[3, 0][..], &endpoint, &[0]].concat()), empty);
        let many = [vec![3, 0], endpoint.repeat(MAX_ENDPOINTS + 1)].concat();
        let Ok(Message::CallMeMaybe(read)) = read(&many) else { panic!("a CallMeMaybe") };
        assert_eq!(read.len(), MAX_ENDPOINTS);
    }

    #[test]
    fn messages_of_udp_relays_are_known_and_not_taken_apart() {
        for kind in MessageType::ALL.into_iter().skip(3) {
            let whole = [vec![kind.to_byte(), 0], vec![0; kind.least()]].concat();
            assert_eq!(read(&whole), Ok(Message::UdpRelay(kind)));
            if kind.least() > 0 {
                assert_eq!(read(&whole[..whole.len() - 1]), Err(MessageError::Short));
            }
        }
        let by_relay: Vec<_> = MessageType::ALL
            .into_iter()
            .filter(|kind| kind.is_for_relays_only())
            .map(MessageType::to_byte)
            .collect();
        assert_eq!(by_relay, [3, 7, 8, 9]);
    }
}
