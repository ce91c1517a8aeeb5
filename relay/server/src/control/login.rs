//! The stage introduce: the DERP login, in which the relay states its key and the client proves its own.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use towpath_relay_forward::Unwrapper;
use towpath_relay_proto::login::{BINDING_LABEL, Login, greet};
use towpath_relay_proto::session::Close;
use towpath_websocket::{CloseCode, Messages};
use towpath_wire::derp::frame::ServerFrame;
use towpath_wire::derp::info::Introduction;
use towpath_wire::key::{NodePrivate, NodePublic};
use towpath_wire::pool::BufferPool;

use super::http::{Upgrade, UpgradeProtocol};
use super::refusal::Refusal;
use super::stream::ClientStream;

/// A client that has proved its key.
#[derive(Debug)]
pub(super) struct Introduced {
    pub(super) stream: ClientStream,
    /// The place in the stream of messages, if the client speaks WebSocket.
    pub(super) unwrapper: Option<Unwrapper>,
    pub(super) introduction: Introduction,
    /// Bytes of DERP that came behind the login.
    pub(super) frames: Vec<u8>,
}

/// The relay's node key, both halves.
#[derive(Clone, Debug)]
pub(crate) struct NodeKeys {
    pub(crate) private: NodePrivate,
    pub(crate) public: NodePublic,
}

impl Introduced {
    /// Whether the login is bound to another TLS connection than it came on.
    pub(super) fn is_bound_elsewhere(&self) -> bool {
        self.introduction.info.binding.is_some_and(|binding| {
            !self.stream.exporter(BINDING_LABEL).is_some_and(|connection| binding.is_to(&connection))
        })
    }

    /// Tells a client that is refused why, by a Health frame, and closes its connection. Stock clients show the text. Returns the
    /// refusal. A client that was told a moment ago is only closed.
    pub(super) async fn turn_away(self, refusal: Refusal) -> Refusal {
        let Some(text) = refusal.health() else { return refusal };
        let mut frame = Vec::new();
        ServerFrame::Health(&text).encode(&mut frame);
        if self.unwrapper.is_some() {
            let mut messages = Messages::default();
            messages.push(&frame);
            messages.close(CloseCode::Policy, refusal.reason().label());
            frame = messages.as_slice().to_vec();
        }
        self.stream.say_goodbye(&frame).await;
        refusal
    }
}

/// Answers the upgrade and does the login. `received`: bytes that came behind the request. `refused_before`: whether a client
/// that states this key is refused without a look at its proof.
pub(super) async fn introduce(
    mut stream: ClientStream,
    received: Bytes,
    upgrade: &Upgrade,
    keys: &NodeKeys,
    refused_before: impl Fn(&NodePublic) -> bool,
) -> Result<Introduced, Refusal> {
    let response = upgrade.response(&keys.public);
    let mut unwrapper = match upgrade.protocol {
        UpgradeProtocol::Derp { .. } => None,
        UpgradeProtocol::WebSocket { agreed: true, .. } => Some(Unwrapper::default()),
        UpgradeProtocol::WebSocket { agreed: false, .. } => {
            let mut messages = Messages::default();
            messages.close(CloseCode::Policy, "client must speak the derp subprotocol");
            stream.say_goodbye(&[response.as_bytes(), messages.as_slice()].concat()).await;
            return Err(Refusal::Subprotocol);
        }
    };
    match log_in(&mut stream, &response, received, unwrapper.as_mut(), keys, refused_before).await {
        Ok((introduction, frames)) => Ok(Introduced { stream, unwrapper, introduction, frames }),
        Err(refusal) => {
            let code = match &refusal {
                Refusal::WebSocket(end) => Some(end.close_code()),
                Refusal::Login(_) => Some(CloseCode::Policy),
                _ => None,
            };
            if let (Some(_), Some(code)) = (unwrapper, code) {
                let mut messages = Messages::default();
                messages.close(code, Close::BadFrame.label());
                stream.say_goodbye(messages.as_slice()).await;
            }
            Err(refusal)
        }
    }
}

/// Sends the relay's key and reads until the client has proved its own. Returns the bytes behind the login, unwrapped.
async fn log_in(
    stream: &mut ClientStream,
    response: &str,
    received: Bytes,
    mut unwrapper: Option<&mut Unwrapper>,
    keys: &NodeKeys,
    refused_before: impl Fn(&NodePublic) -> bool,
) -> Result<(Introduction, Vec<u8>), Refusal> {
    let mut greeting = Vec::with_capacity(64);
    greet(&keys.public, &mut greeting);
    let mut messages = Messages::default();
    if unwrapper.is_some() {
        messages.push(&greeting);
        messages.finish();
        greeting.clear();
    }
    write(stream, &[response.as_bytes(), messages.as_slice(), &greeting].concat()).await?;

    let (mut login, mut pool) = (Login::default(), BufferPool::default());
    let (mut received, mut buffer) = (Vec::from(received), [0; 4096]);
    loop {
        let frames = match &mut unwrapper {
            None => std::mem::take(&mut received),
            Some(unwrapper) => {
                let frames = unwrapper.unwrap_all(&mut received).map_err(Refusal::WebSocket)?;
                if let Some(payload) = unwrapper.take_reply().pong {
                    messages.clear();
                    messages.pong(&payload);
                    write(stream, messages.as_slice()).await?;
                }
                frames
            }
        };
        let mut input = &frames[..];
        if let Some(claimed) = login.claim(&mut input, &mut pool).map_err(Refusal::Login)? {
            if claimed.key().is_some_and(|key| refused_before(&key)) {
                return Err(Refusal::RefusedBefore);
            }
            let introduction = claimed.open(&keys.private).map_err(Refusal::Login)?;
            return Ok((introduction, input.to_vec()));
        }
        let read = stream.read(&mut buffer).await.map_err(Refusal::Broken)?;
        if read == 0 {
            return Err(Refusal::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        received.clear();
        received.extend_from_slice(&buffer[..read]);
    }
}

async fn write(stream: &mut ClientStream, bytes: &[u8]) -> Result<(), Refusal> {
    stream.write_all(bytes).await.map_err(Refusal::Broken)?;
    stream.flush().await.map_err(Refusal::Broken)
}
