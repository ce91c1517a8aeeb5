//! The DERP login, from the client's side.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use towpath_relay_proto::login::{BOUND_ELSEWHERE, read_refusal};
use towpath_relay_proto::session::{ClientSession, StreamError};
use towpath_websocket::Violation;
use towpath_wire::derp::frame::{FrameType, ServerFrame};
use towpath_wire::derp::info::{ClientInfo, ClientInfoError, ServerInfo};
use towpath_wire::key::{NodePrivate, NodePublic};
use towpath_wire::pool::BufferPool;

use crate::tls_failure::TlsFailure;

/// Why the login failed.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The socket failed.
    #[error(transparent)]
    Io(io::Error),
    /// TLS failed after its handshake.
    #[error(transparent)]
    Tls(TlsFailure),
    /// The relay breaks WebSocket.
    #[error("the relay breaks WebSocket by {0}")]
    WebSocket(#[from] Violation),
    /// The relay closed, which is all that most relays do to a client that they refuse.
    #[error("the relay closed during the login: it refuses this client")]
    Refused,
    /// The relay refuses this client, and says why.
    #[error("the relay refuses this client: {0}")]
    RefusedBecause(String),
    /// The relay was sent the login on another TLS connection than this client has.
    #[error(
        "something between this client and the relay ends TLS: the login is bound to the TLS connection of this client, and came \
         to the relay on another one"
    )]
    TlsEnded,
    /// The bytes are not DERP.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The relay starts with another frame than ServerKey, or goes on with another than ServerInfo.
    #[error("the server does not speak DERP: it sent a frame out of order")]
    OutOfOrder,
    /// The relay's key is of small order or not canonical.
    #[error("the relay's key {0:?} is of small order or not canonical")]
    RelayKey(NodePublic),
    /// The relay has another key than its meta certificate says.
    #[error("the relay says that its key is {said:?}; its certificate says {certified:?}")]
    OtherKey {
        /// In the ServerKey frame.
        said: NodePublic,
        /// In the meta certificate.
        certified: NodePublic,
    },
    /// It is not the relay that it should be.
    #[error("the relay's key is {said} instead of {expected:?}: no login was sent")]
    OtherRelay {
        /// What it says, in its certificate or its ServerKey frame.
        said: NodePublic,
        /// What was asked for.
        expected: NodePublic,
    },
    /// The relay's answer does not open, or holds something else than it should.
    #[error("the relay's ServerInfo is malformed")]
    ServerInfo(#[source] ClientInfoError),
    /// No nonce.
    #[error("cannot get random bytes from the system")]
    Random(#[from] getrandom::Error),
}

impl From<io::Error> for LoginError {
    fn from(error: io::Error) -> Self {
        if let Some(violation) = error.get_ref().and_then(|inner| inner.downcast_ref::<Violation>()) {
            return Self::WebSocket(*violation);
        }
        TlsFailure::of_stream(error).map_or_else(Self::Io, Self::Tls)
    }
}

/// A login that is done.
#[derive(Debug)]
pub(crate) struct LoggedIn {
    pub(crate) relay: NodePublic,
    pub(crate) info: ServerInfo,
    pub(crate) session: ClientSession,
    /// What came behind the ServerInfo.
    pub(crate) rest: Vec<u8>,
}

/// Appends the ClientInfo frame that logs `key` in at `relay`.
pub(crate) fn introduce(
    key: &NodePrivate,
    relay: &NodePublic,
    info: &ClientInfo,
    out: &mut Vec<u8>,
) -> Result<(), LoginError> {
    if !relay.is_contributory() {
        return Err(LoginError::RelayKey(*relay));
    }
    let mut nonce = [0; 24];
    getrandom::fill(&mut nonce)?;
    info.seal(key, relay, &nonce, out);
    Ok(())
}

/// A relay that has stated its key.
#[derive(Debug)]
pub(crate) struct Greeted {
    relay: NodePublic,
    frames: LoginFrames,
}

impl Greeted {
    pub(crate) const fn relay(&self) -> NodePublic {
        self.relay
    }
}

/// Waits for the relay to state its key. `received` is what was read before.
pub(crate) async fn greeting(
    stream: &mut (impl AsyncRead + Unpin),
    received: Vec<u8>,
) -> Result<Greeted, LoginError> {
    let mut frames = LoginFrames { session: ClientSession::default(), received, taken: 0, refusal: None };
    if frames.first_byte(stream).await? != FrameType::ServerKey as u8 {
        // What is no DERP at all would else be skipped as one long frame of an unknown type.
        return Err(LoginError::OutOfOrder);
    }
    let relay = frames
        .next(stream, |frame| match frame {
            ServerFrame::ServerKey(key) => Ok(key),
            _ => Err(LoginError::OutOfOrder),
        })
        .await?;
    Ok(Greeted { relay, frames })
}

/// Logs in. `introduced_to` is the relay's key where the ClientInfo is already sent.
pub(crate) async fn log_in(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    key: &NodePrivate,
    info: &ClientInfo,
    introduced_to: Option<NodePublic>,
    Greeted { relay, mut frames }: Greeted,
) -> Result<LoggedIn, LoginError> {
    match introduced_to {
        Some(certified) if certified == relay => {}
        Some(certified) => return Err(LoginError::OtherKey { said: relay, certified }),
        None => {
            let mut introduction = Vec::with_capacity(256);
            introduce(key, &relay, info, &mut introduction)?;
            stream.write_all(&introduction).await?;
            stream.flush().await?;
        }
    }
    let answered = frames
        .next(stream, |frame| match frame {
            ServerFrame::ServerInfo { nonce, sealed } => {
                ServerInfo::open(key, &relay, nonce, sealed).map_err(LoginError::ServerInfo)
            }
            _ => Err(LoginError::OutOfOrder),
        })
        .await;
    let info = match (answered, frames.refusal.take()) {
        // However the connection has ended then.
        (Err(LoginError::Refused | LoginError::Io(_) | LoginError::Tls(_)), Some(refusal)) => {
            return Err(refusal);
        }
        (answered, _) => answered?,
    };
    let LoginFrames { session, mut received, taken, .. } = frames;
    received.drain(..taken);
    Ok(LoggedIn { relay, info, session, rest: received })
}

/// The relay's frames during the login.
#[derive(Debug)]
struct LoginFrames {
    session: ClientSession,
    received: Vec<u8>,
    taken: usize,
    /// What the last Health frame says, should the connection end behind it.
    refusal: Option<LoginError>,
}

/// Most characters that are kept of what a relay says.
const MAX_SAID: usize = 200;

/// What the text of a Health frame says of a login that then fails; `None` if it says that nothing is wrong.
fn refusal(text: &str) -> Option<LoginError> {
    if text.is_empty() {
        return None;
    }
    let said = match read_refusal(text) {
        Some((BOUND_ELSEWHERE, _)) => return Some(LoginError::TlsEnded),
        Some((reason, words)) => format!("{words} ({reason})"),
        None => text.to_owned(),
    };
    // What cannot be seen is spelt out, because the text is a stranger's.
    Some(LoginError::RefusedBecause(said.chars().take(MAX_SAID).flat_map(char::escape_debug).collect()))
}

impl LoginFrames {
    async fn first_byte(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<u8, LoginError> {
        if self.received.is_empty() && stream.read_buf(&mut self.received).await? == 0 {
            return Err(LoginError::Refused);
        }
        Ok(self.received[0])
    }

    /// What `read` makes of the next frame that is no Health frame.
    async fn next<R>(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        read: impl FnOnce(ServerFrame<'_>) -> Result<R, LoginError>,
    ) -> Result<R, LoginError> {
        let mut pool = BufferPool::default();
        loop {
            let mut input = &self.received[self.taken..];
            let before = input.len();
            let frame = self.session.next(&mut input, &mut pool)?;
            self.taken += before - input.len();
            match frame {
                Some(ServerFrame::Health(text)) => {
                    self.refusal = refusal(text);
                    continue;
                }
                Some(frame) => return read(frame),
                None => {}
            }
            self.received.clear();
            self.taken = 0;
            if stream.read_buf(&mut self.received).await? == 0 {
                return Err(LoginError::Refused);
            }
        }
    }
}
