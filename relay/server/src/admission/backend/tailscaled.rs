//! The local tailscaled: it knows the keys of its tailnet, and is asked over its socket as derper's `-verify-clients` does.
//!
//! tailscaled answers 404 for a key that it does not know. It knows none for some time after its start, and while it is
//! logged out or stopped it may not know all. So a 404 refuses only if tailscaled has the list of its tailnet, and says so
//! before it is asked again.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::HOST;
use hyper::{HeaderMap, Request, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::Instant;
use towpath_relay_proto::admission::PolicyName;
use towpath_service::visible_path;
use towpath_wire::key::NodePublic;

use super::connect::Connector;
use super::desk::{Ask, Desk};
use super::failure::{AskError, Step};
use super::metrics::BackendMetrics;
use super::notices::Notices;
use super::pool::{HttpAnswer, Pool};
use super::{Question, Told};
use crate::config::TailscaledSettings;

/// The name of the policy.
const POLICY: &str = PolicyName::Tailscaled.label();

/// How long a question may take. The socket is one of this machine.
pub(super) const LIMIT: Duration = Duration::from_secs(5);
/// The longest body of an answer: the description of a node, or the state of tailscaled.
pub(super) const MAX_BODY: usize = 256 * 1024;

/// The host that tailscaled wants to be asked by, so that no page in a browser can ask it.
const SOCKET_HOST: &str = "local-tailscaled.sock";
/// The capability version of the client library 1.104.6, whose requests these are.
const CAPABILITIES: (&str, &str) = ("tailscale-cap", "148");
/// A header of every answer of tailscaled.
const VERSION: &str = "tailscale-version";

/// The policy that asks the local tailscaled.
#[derive(Debug)]
pub(crate) struct Tailscaled(Desk<LocalApi>);

/// The API of tailscaled on its socket.
#[derive(Debug)]
pub(super) struct LocalApi {
    pool: Pool,
}

impl Tailscaled {
    /// A policy that connects when it is first asked.
    pub(crate) fn new(settings: &TailscaledSettings, metrics: &BackendMetrics) -> Self {
        Self::over(Connector::Unix(settings.socket.clone()), &settings.socket, metrics)
    }

    pub(super) fn over(connector: Connector, socket: &Path, metrics: &BackendMetrics) -> Self {
        let notices = Notices::new(POLICY, visible_path(socket).to_string());
        Self(Desk::new(LocalApi { pool: Pool::new(connector) }, LIMIT, notices, metrics.of(POLICY)))
    }

    /// Asks tailscaled about a client.
    pub(super) async fn told(&self, question: Question) -> Told {
        self.0.ask(question).await
    }
}

impl Ask for LocalApi {
    async fn ask(&self, question: Question, deadline: Instant, step: &mut Step) -> Result<bool, AskError> {
        if self.knows(&question.key, deadline, step).await? {
            return Ok(true);
        }
        let answer = self.get("/localapi/v0/status?peers=false", deadline, step).await?;
        let status = answer.body.as_deref().and_then(|body| serde_json::from_slice::<Status>(body).ok());
        let status = status.ok_or(AskError::NotJson("the state of tailscaled in JSON"))?;
        if !status.has_nodes() {
            return Err(AskError::NotReady(status.state));
        }
        self.knows(&question.key, deadline, step).await
    }
}

impl LocalApi {
    /// Whether tailscaled knows a node with this key.
    async fn knows(&self, key: &NodePublic, deadline: Instant, step: &mut Step) -> Result<bool, AskError> {
        let key = key.to_string().replace(':', "%3A");
        match self.get(&format!("/localapi/v0/whois?addr={key}"), deadline, step).await {
            Ok(_described) => Ok(true),
            Err(AskError::Status(StatusCode::NOT_FOUND)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The answer to a request with the status 200.
    async fn get(&self, path: &str, deadline: Instant, step: &mut Step) -> Result<HttpAnswer, AskError> {
        let request = Request::get(path)
            .header(HOST, SOCKET_HOST)
            .header(CAPABILITIES.0, CAPABILITIES.1)
            .body(Full::new(Bytes::new()))
            .expect("the path of a request");
        let answer = self.pool.ask(&request, MAX_BODY, deadline, step).await?;
        judge(answer.status, &answer.headers, answer.body.as_deref().unwrap_or_default())?;
        Ok(answer)
    }
}

/// Takes an answer that tailscaled has given to a request that it knows, with the status 200 or 404.
fn judge(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Result<(), AskError> {
    if !headers.contains_key(CAPABILITIES.0) && !headers.contains_key(VERSION) {
        return Err(AskError::NotTailscaled);
    }
    match status {
        StatusCode::OK => Ok(()),
        // Go's answer to a path that no handler has.
        StatusCode::NOT_FOUND if body.starts_with(b"404 page not found") => Err(AskError::NotTailscaled),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(AskError::Forbidden(status)),
        StatusCode::BAD_REQUEST if has(body, b"invalid 'addr' parameter") => Err(AskError::TooOld),
        status => Err(AskError::Status(status)),
    }
}

fn has(body: &[u8], words: &[u8]) -> bool {
    body.windows(words.len()).any(|part| part == words)
}

/// What tailscaled says of itself, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Status {
    #[serde(rename = "BackendState", default)]
    state: String,
    /// There while tailscaled has the list of its tailnet.
    #[serde(rename = "CurrentTailnet")]
    tailnet: Option<IgnoredAny>,
}

impl Status {
    /// Whether tailscaled knows every node of its tailnet. It is `Starting` until it has reached a relay, which may be this
    /// one.
    fn has_nodes(&self) -> bool {
        self.tailnet.is_some() && matches!(&*self.state, "Running" | "Starting")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_nodes_is_there_with_a_tailnet_and_a_state_that_is_up() {
        for (status, expected) in [
            (r#"{"BackendState":"Running","CurrentTailnet":{"Name":"a"},"Self":{}}"#, true),
            (r#"{"BackendState":"Starting","CurrentTailnet":{"Name":"a"}}"#, true),
            (r#"{"BackendState":"Running"}"#, false),
            (r#"{"BackendState":"Starting","CurrentTailnet":null}"#, false),
            (r#"{"BackendState":"Stopped","CurrentTailnet":{}}"#, false),
            (r#"{"BackendState":"NeedsLogin","CurrentTailnet":{}}"#, false),
            (r#"{"BackendState":"NoState"}"#, false),
            ("{}", false),
        ] {
            let status: Status = serde_json::from_str(status).expect(status);
            assert_eq!(status.has_nodes(), expected, "{status:?}");
        }
    }
}
