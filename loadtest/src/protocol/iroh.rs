//! The protocol of iroh-relay 1.4.1 (`iroh-relay/src/protos`): WebSocket over TLS, with a binary message for each
//! frame, which begins with a byte for its type.
//!
//! A client logs in by signing the server's challenge. Stock clients may sign exported TLS keying material instead,
//! which saves a round trip, and may put several datagrams of one size into a frame. Neither is done here. Masks are
//! zero, which saves work here and none at the relay.

use anyhow::{Context, Result, bail};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use towpath_wire::derp::frame::{ClientFrame, GoneReason, ServerFrame};
use towpath_wire::key::NodePublic;

/// The context in which the challenge is hashed before it is signed.
const CHALLENGE_CONTEXT: &str = "iroh-relay handshake v1 challenge signature";

const SERVER_CHALLENGE: u8 = 0;
const CLIENT_AUTH: u8 = 1;
const SERVER_CONFIRMS_AUTH: u8 = 2;
const SERVER_DENIES_AUTH: u8 = 3;
const CLIENT_TO_RELAY_DATAGRAM: u8 = 4;
const RELAY_TO_CLIENT_DATAGRAM: u8 = 6;
const ENDPOINT_GONE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The first byte of a binary message in one fragment (RFC 6455, section 5.2).
const BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;
/// More bytes than any message of a relay has.
const MAX_MESSAGE: usize = 1 << 20;
/// More bytes than the head of an HTTP response has.
const MAX_HEADER: usize = 16 * 1024;

/// Appends a message with a frame's type and the parts of its payload.
fn put(kind: u8, parts: &[&[u8]], out: &mut Vec<u8>) {
    let len = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    out.push(BINARY);
    if len < 126 {
        out.push(MASKED | len as u8);
    } else if let Ok(len) = u16::try_from(len) {
        out.push(MASKED | 126);
        out.extend_from_slice(&len.to_be_bytes());
    } else {
        out.push(MASKED | 127);
        out.extend_from_slice(&(len as u64).to_be_bytes());
    }
    out.extend_from_slice(&[0; 4]);
    out.push(kind);
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// Appends `frame` in iroh-relay's encoding, or nothing if iroh-relay has no such frame.
pub(crate) fn encode(frame: &ClientFrame<'_>, out: &mut Vec<u8>) {
    match frame {
        ClientFrame::SendPacket { to, packet } => {
            const NO_ECN: &[u8] = &[0];
            put(CLIENT_TO_RELAY_DATAGRAM, &[to.as_bytes(), NO_ECN, packet], out);
        }
        ClientFrame::Ping(data) => put(PING, &[data], out),
        ClientFrame::Pong(data) => put(PONG, &[data], out),
        _ => {}
    }
}

/// The lengths of a message's header and payload; `None` if `bytes` end before them.
fn measure(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let Some((&[kind, len], rest)) = bytes.split_first_chunk() else { return Ok(None) };
    let (header, len) = match len {
        len @ 0..126 => (2, usize::from(len)),
        126 => match rest.first_chunk() {
            Some(len) => (4, usize::from(u16::from_be_bytes(*len))),
            None => return Ok(None),
        },
        127 => match rest.first_chunk() {
            Some(len) => (10, usize::try_from(u64::from_be_bytes(*len)).unwrap_or(usize::MAX)),
            None => return Ok(None),
        },
        _ => bail!("the relay sent a masked WebSocket message"),
    };
    if kind != BINARY {
        bail!("the relay sent a WebSocket message that is not binary or not in one fragment: {kind:#04x}");
    }
    if len > MAX_MESSAGE {
        bail!("the relay sent a WebSocket message of {len} bytes, more than {MAX_MESSAGE}");
    }
    Ok(Some((header, len)))
}

/// The state of a connection: the message that has arrived in part.
#[derive(Debug, Default)]
pub(crate) struct IrohSession {
    /// The beginning of a message, or all of it.
    held: Vec<u8>,
    /// Whether `held` was returned as a whole message.
    done: bool,
}

impl IrohSession {
    /// Decodes the next frame; `None` when `input` is used up.
    pub(crate) fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<ServerFrame<'s>>> {
        Ok(match self.message(input)? {
            Some(message) => Some(decode(message)?),
            None => None,
        })
    }

    fn message<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<&'s [u8]>> {
        if std::mem::take(&mut self.done) {
            self.held.clear();
        }
        if self.held.is_empty() {
            if let Some((header, len)) = measure(input)?
                && let Some((message, rest)) = input.split_at_checked(header + len)
            {
                *input = rest;
                return Ok(Some(&message[header..]));
            }
            self.held.extend_from_slice(input);
            *input = &[];
            return Ok(None);
        }
        loop {
            // The header is completed byte by byte, the payload at once.
            let missing = match measure(&self.held)? {
                Some((header, len)) if self.held.len() == header + len => {
                    self.done = true;
                    return Ok(Some(&self.held[header..]));
                }
                Some((header, len)) => header + len - self.held.len(),
                None => 1,
            };
            let (more, rest) = input.split_at(missing.min(input.len()));
            if more.is_empty() {
                return Ok(None);
            }
            self.held.extend_from_slice(more);
            *input = rest;
        }
    }
}

fn decode(message: &[u8]) -> Result<ServerFrame<'_>> {
    let (&kind, payload) = message.split_first().context("the relay sent an empty message")?;
    let data = || payload.try_into().context("the relay sent a ping or pong that is not 8 bytes long");
    Ok(match kind {
        RELAY_TO_CLIENT_DATAGRAM => {
            let (from, rest) =
                NodePublic::split_from(payload).context("the relay sent a datagram without a sender")?;
            let (_ecn, packet) = rest.split_first().context("the relay sent a datagram without ECN")?;
            ServerFrame::RecvPacket { from, packet }
        }
        ENDPOINT_GONE => {
            let (peer, _) =
                NodePublic::split_from(payload).context("the relay sent EndpointGone without a key")?;
            ServerFrame::PeerGone { peer, reason: GoneReason::Disconnected }
        }
        PING => ServerFrame::Ping(data()?),
        PONG => ServerFrame::Pong(data()?),
        // Health and restart notices, which a load ignores.
        _ => ServerFrame::KeepAlive,
    })
}

/// Upgrades a connection to WebSocket and logs in with `key`. Returns the session, and the bytes that arrived after the
/// login.
pub(crate) async fn log_in(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    host: &str,
    key: &Ed25519KeyPair,
) -> Result<(IrohSession, Vec<u8>)> {
    // The server only hashes Sec-WebSocket-Key for its response, so that it may be constant.
    let request = format!(
        "GET /relay HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dG93cGF0aC1sb2FkdGVzdA==\r\n\
         Sec-WebSocket-Protocol: iroh-relay-v2\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut received = Vec::with_capacity(1024);
    let end = loop {
        if let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
        if received.len() > MAX_HEADER || stream.read_buf(&mut received).await? == 0 {
            bail!("the relay sent no HTTP response");
        }
    };
    if !received.starts_with(b"HTTP/1.1 101 ") {
        let status = String::from_utf8_lossy(&received);
        bail!("the relay refused the WebSocket upgrade: {}", status.lines().next().unwrap_or_default());
    }
    received.drain(..end);
    let challenge = read_message(stream, &mut received).await?;
    if let Some(challenge) = challenge.strip_prefix(&[SERVER_CHALLENGE]) {
        let mut answer = Vec::new();
        put(CLIENT_AUTH, &[&authentication(key, challenge)], &mut answer);
        stream.write_all(&answer).await?;
        stream.flush().await?;
    } else {
        bail!("the relay sent another message than a challenge");
    }
    match read_message(stream, &mut received).await?.split_first() {
        Some((&SERVER_CONFIRMS_AUTH, _)) => Ok((IrohSession::default(), received)),
        Some((&SERVER_DENIES_AUTH, reason)) => {
            bail!("the relay refused the login: {}", String::from_utf8_lossy(reason))
        }
        _ => bail!("the relay neither confirmed nor refused the login"),
    }
}

/// The public key and the signature of the challenge, encoded with postcard.
fn authentication(key: &Ed25519KeyPair, challenge: &[u8]) -> Vec<u8> {
    let signature = key.sign(&blake3::derive_key(CHALLENGE_CONTEXT, challenge));
    [key.public_key().as_ref(), &[signature.as_ref().len() as u8], signature.as_ref()].concat()
}

/// Reads until `received` begins with a whole message, and takes its payload out.
async fn read_message(stream: &mut (impl AsyncRead + Unpin), received: &mut Vec<u8>) -> Result<Vec<u8>> {
    loop {
        if let Some((header, len)) = measure(received)?
            && received.len() >= header + len
        {
            return Ok(received.drain(..header + len).skip(header).collect());
        }
        if stream.read_buf(received).await? == 0 {
            bail!("the relay closed the connection during the login");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of iroh's own snapshots (`test_client_relay_frames_snapshot`, `test_server_client_frames_snapshot`).
    fn key() -> NodePublic {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[42; 32]).unwrap();
        let public = NodePublic::from_bytes(pair.public_key().as_ref().try_into().unwrap());
        assert_eq!(public.to_hex(), "197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61");
        public
    }

    /// Builds a message as a server sends it, without a mask.
    fn message(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
        let mut masked = Vec::new();
        put(kind, parts, &mut masked);
        masked[1] &= !MASKED;
        let header = match masked[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        masked.drain(header..header + 4);
        masked
    }

    #[test]
    fn frames_are_encoded_as_by_iroh() {
        let mut out = Vec::new();
        encode(&ClientFrame::Ping([42; 8]), &mut out);
        assert_eq!(out, [&[0x82, 0x89, 0, 0, 0, 0, 9][..], &[42; 8]].concat());
        out.clear();
        encode(&ClientFrame::SendPacket { to: key(), packet: b"Hello World!" }, &mut out);
        let head = [0x82, 0x80 | 46, 0, 0, 0, 0, 4];
        assert_eq!(out, [&head[..], key().as_bytes(), &[0], b"Hello World!"].concat());
    }

    #[test]
    fn frames_are_decoded_from_pieces_of_any_length() {
        let long = vec![7; 70_000];
        let stream = [
            message(RELAY_TO_CLIENT_DATAGRAM, &[key().as_bytes(), &[3], b"Hello World!"]),
            message(13, &[&[2]]),
            message(PONG, &[&[42; 8]]),
            message(RELAY_TO_CLIENT_DATAGRAM, &[key().as_bytes(), &[0], &long[..1400]]),
            message(RELAY_TO_CLIENT_DATAGRAM, &[key().as_bytes(), &[0], &long]),
            message(ENDPOINT_GONE, &[key().as_bytes()]),
        ]
        .concat();
        for piece in [1, 2, 3, 7, 1000, stream.len()] {
            let mut session = IrohSession::default();
            let mut seen = Vec::new();
            for mut input in stream.chunks(piece) {
                while let Some(frame) = session.next(&mut input).unwrap() {
                    seen.push(match frame {
                        ServerFrame::RecvPacket { from, packet } if from == key() => packet.len(),
                        ServerFrame::Pong(data) if data == [42; 8] => 1,
                        ServerFrame::PeerGone { peer, .. } if peer == key() => 2,
                        ServerFrame::KeepAlive => 3,
                        other => panic!("{other:?}"),
                    });
                }
            }
            assert_eq!(seen, [12, 3, 1, 1400, 70_000, 2], "in pieces of {piece}");
        }
    }

    #[test]
    fn malformed_messages_are_errors() {
        for bytes in [&[0x82, 0x80 | 3][..], &[0x02, 3], &[0x88, 0], &[0x82, 0], &[0x82, 2, 6, 0]] {
            let mut session = IrohSession::default();
            assert!(session.next(&mut &*bytes).is_err(), "{bytes:?}");
        }
        let huge = [&[0x82, 127][..], &u64::MAX.to_be_bytes()].concat();
        assert!(IrohSession::default().next(&mut &*huge).is_err());
    }

    #[test]
    fn the_signature_of_a_challenge_verifies() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
        let answer = authentication(&pair, &[9; 16]);
        let (public, signature) = answer.split_at(32);
        assert_eq!((public, signature[0], signature.len()), (pair.public_key().as_ref(), 64, 65));
        let signed = blake3::derive_key(CHALLENGE_CONTEXT, &[9; 16]);
        let public = aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, public);
        public.verify(&signed, &signature[1..]).unwrap();
    }
}
