//! The frontend: the stages of a new connection in their order, and what they share.

use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use towpath_relay_forward::DataPlane;
use towpath_relay_proto::admission::{Admission, PolicyName};
use towpath_relay_proto::rights::Claim;
use towpath_service::ErrorChain;
use towpath_tls::RecordLayer;
use towpath_wire::host::Host;
use towpath_wire::key::NodePublic;
use towpath_wire::sync::read;
use tracing::debug;

use super::accounts::{Accounts, Standing};
use super::attach::{Attachment, attach};
use super::http::{Http, UpgradeProtocol, UpgradeRequest, read_request};
use super::listener::{Accepted, ListenerKind};
use super::login::{Introduced, NodeKeys, introduce};
use super::metrics::ControlMetrics;
use super::neighbour::{Neighbour, NeighbourLog, START};
use super::proxy_protocol::ProxyProtocol;
use super::refusal::{Refusal, RefusalReason};
use super::stream::ClientStream;
use super::tls::secure;
use crate::admission::{Engine, Rejection};
use crate::config::LoginLimits;
use crate::mesh::MeshMetrics;

/// The state that all new connections share.
#[derive(Debug)]
pub(crate) struct Frontend {
    /// `None` if there is no listener for TLS.
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    pub(crate) records: RecordLayer,
    pub(crate) keys: NodeKeys,
    /// May be replaced: a connection has those that were there when it came.
    pub(crate) limits: RwLock<Arc<LoginLimits>>,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) keepalive: Duration,
    pub(crate) http: Http,
    pub(crate) admission: Admission,
    pub(crate) engine: Arc<Engine>,
    pub(crate) metrics: ControlMetrics,
    pub(crate) neighbours: NeighbourLog,
    pub(crate) proxy_protocol: ProxyProtocol,
    pub(crate) mesh_metrics: MeshMetrics,
    pub(crate) plane: Arc<DataPlane>,
}

impl Frontend {
    /// Serves one accepted connection until it is a client of the data plane or closed, or until `displaced` completes.
    pub(super) async fn serve(
        &self,
        socket: TcpStream,
        mut accepted: Accepted,
        standing: Standing,
        displaced: oneshot::Receiver<()>,
    ) {
        let ended = tokio::select! {
            biased;
            Ok(()) = displaced => Err(Refusal::Displaced),
            ended = self.establish(socket, &mut accepted, standing) => ended,
        };
        if let Err(refusal) = ended {
            self.refuse(accepted, &refusal);
        }
    }

    /// Counts a connection that did not become a client.
    pub(super) fn refuse(&self, Accepted { id, address, .. }: Accepted, refusal: &Refusal) {
        let reason = refusal.reason();
        self.metrics.refused(reason);
        debug!(connection = id, %address, reason = reason.label(), "connection refused: {}", ErrorChain(refusal));
    }

    /// Takes the connection through its stages. `accepted` becomes what a header of the PROXY protocol says of it.
    async fn establish(
        &self,
        mut socket: TcpStream,
        accepted: &mut Accepted,
        mut standing: Standing,
    ) -> Result<(), Refusal> {
        let limits = read(&self.limits).clone();
        if self.proxy_protocol.expects_header(accepted.address.ip()) {
            let client;
            (socket, client) =
                self.proxy_protocol.receive(socket, *accepted, limits.first_byte_timeout).await?;
            if let Some(client) = client {
                *accepted = accepted.named_by_header(client);
                standing.charge_to(accepted.origin).map_err(Refusal::Exceeded)?;
            }
        }
        let accepted = *accepted;
        // A look at the first bytes, because `readable` may complete when there is none.
        let mut start = [0; START];
        let heard = timeout(limits.first_byte_timeout, socket.peek(&mut start))
            .await
            .map_err(|_: Elapsed| Refusal::FirstByteTimeout)?
            .map_err(Refusal::Broken)?;
        standing.hear();
        if let Some(neighbour) = Neighbour::of(accepted.kind, &start[..heard]) {
            self.neighbours.note(accepted, neighbour);
            ClientStream::Plain(socket).say_goodbye(&neighbour.answer(accepted.kind)).await;
            return Err(Refusal::Neighbour(neighbour));
        }
        let stream = match accepted.kind {
            // Nothing that is heard is the end of the connection.
            ListenerKind::Tls if heard > 0 && !self.admit_handshake(accepted) => {
                return Err(Refusal::HandshakeRate);
            }
            ListenerKind::Tls => {
                let config = self.tls.clone().expect("a listener for TLS has its configuration");
                let stream = secure(socket, config, limits.handshake_timeout).await?;
                self.metrics.tls_version(stream.protocol_version());
                ClientStream::Tls(Box::new(stream))
            }
            ListenerKind::Plain | ListenerKind::Redirect => ClientStream::Plain(socket),
        };
        let Some(request) =
            read_request(stream, &self.http, limits.idle_http_timeout, accepted, &mut standing).await?
        else {
            return Ok(());
        };
        self.metrics.accepted(matches!(request.upgrade.protocol, UpgradeProtocol::WebSocket { .. }));
        timeout(limits.login_timeout, self.log_in(request, accepted.id, standing))
            .await
            .map_err(|_: Elapsed| Refusal::LoginTimeout)?
    }

    fn admit_handshake(&self, Accepted { address, .. }: Accepted) -> bool {
        self.accounts.admit_handshake(Host::of(address.ip()), Instant::now())
    }

    async fn log_in(&self, request: UpgradeRequest, id: u64, standing: Standing) -> Result<(), Refusal> {
        let UpgradeRequest { stream, received, upgrade, client } = request;
        let refused_before = |key: &NodePublic| self.engine.refused_before(key, client.ip());
        let introduced = introduce(stream, received, &upgrade, &self.keys, refused_before).await?;
        if introduced.is_bound_elsewhere() {
            let (key, reason) = (introduced.introduction.client, RefusalReason::BoundElsewhere);
            self.engine.note_refusal(key, client.ip(), reason, Duration::ZERO, false);
            return Err(introduced.turn_away(Refusal::BoundElsewhere).await);
        }
        let introduction = &introduced.introduction;
        let (peer, prober) = (introduction.client, introduction.info.is_prober);
        let claim = self.admission.claim(introduction, client);
        if let Some(claim) = claim {
            self.mesh_metrics.claimed(claim);
            debug!(connection = id, ?peer, address = %client, claim = claim.label(), "client sent a mesh key");
        }
        let policy = match self.admit(&introduced, claim, client).await {
            Ok(policy) => policy,
            Err(refusal) => return Err(introduced.turn_away(refusal).await),
        };
        self.engine.metrics.admitted(policy, !introduced.introduction.info.app_name.is_empty());
        let grant = self.admission.grant(claim, policy);
        let attachment = Attachment {
            id,
            client,
            not_ideal: upgrade.not_ideal,
            keepalive: self.keepalive,
            records: self.records,
            seat: standing.admit(&peer),
        };
        // Before the data plane has the client: whatever it does is logged later.
        let protocol = &upgrade.protocol;
        let policy = policy.label();
        debug!(connection = id, ?peer, address = %client, prober, ?protocol, policy, "client logged in");
        attach(&self.plane, introduced, grant, attachment)
    }

    /// Decides on the login of a client that has proved its key.
    async fn admit(
        &self,
        introduced: &Introduced,
        claim: Option<Claim>,
        client: SocketAddr,
    ) -> Result<PolicyName, Refusal> {
        if let Some(policy) = claim.and_then(Claim::policy) {
            return Ok(policy);
        }
        let (key, app_name) = (introduced.introduction.client, introduced.introduction.info.app_name);
        if read(&self.limits).refuse_app_names.iter().any(|name| name == app_name.as_str()) {
            self.engine.note_refusal(key, client.ip(), RefusalReason::AppName, Duration::ZERO, false);
            return Err(Refusal::AppName);
        }
        let token = self.engine.judge_token(&introduced.introduction, &self.keys.public);
        self.engine.admit(key, client.ip(), token).await.map_err(|rejection| match rejection {
            Rejection::Asked(why) => Refusal::NotAdmitted(why),
            Rejection::Token(fault) => Refusal::Token(fault),
            Rejection::Rate => Refusal::KeyRate,
        })
    }
}
