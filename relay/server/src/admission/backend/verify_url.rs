//! The verify URL: derper's contract, which Headscale serves at `/verify`.
//!
//! The relay posts the key and the address of a client, and the backend answers 200 with `{"Allow":true}` or
//! `{"Allow":false}`. derper takes any other status and any other body for a refusal. Here only a well-formed answer decides,
//! because a proxy in front of a backend that is down answers as well. `docs/protocol/verify.md` has every case.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Request, StatusCode};
use rustls::pki_types::ServerName;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use towpath_relay_proto::admission::PolicyName;
use towpath_service::Visible;

use super::connect::{Connector, Web};
use super::desk::{Ask, Desk};
use super::failure::{AskError, Step};
use super::metrics::BackendMetrics;
use super::notices::Notices;
use super::pool::{HttpAnswer, HttpQuestion, Pool};
use super::setup::VerifySetup;
use super::{Question, Told};

/// The name of the policy.
const POLICY: &str = PolicyName::VerifyUrl.label();

/// The longest body of an answer, as in derper.
pub(super) const MAX_BODY: usize = 4 * 1024;
/// Characters of a redirect's target that a message repeats.
const MAX_LOCATION: usize = 200;

/// The policy that asks a URL.
#[derive(Debug)]
pub(crate) struct VerifyUrl(Desk<VerifyBackend>);

/// The backend behind a URL.
#[derive(Debug)]
pub(super) struct VerifyBackend {
    pool: Pool,
    /// The request without a body.
    head: Request<()>,
}

impl VerifyUrl {
    /// A policy that connects when it is first asked.
    pub(crate) fn new(setup: VerifySetup, metrics: &BackendMetrics) -> Self {
        let url = &setup.settings.url;
        let tls = setup.tls.clone().map(|config| {
            let name = ServerName::try_from(url.host().to_owned());
            (config, name.expect("the host of a URL is a DNS name or an address"))
        });
        let connector = Connector::Web(Web { host: url.host().into(), port: url.port(), tls });
        Self::over(connector, &setup, metrics)
    }

    pub(super) fn over(connector: Connector, setup: &VerifySetup, metrics: &BackendMetrics) -> Self {
        let settings = &setup.settings;
        let backend = VerifyBackend { pool: Pool::new(connector), head: head(setup) };
        let notices = Notices::new(POLICY, settings.url.without_query());
        Self(Desk::new(backend, settings.timeout, notices, metrics.of(POLICY)))
    }

    /// Asks the backend about a client.
    pub(super) async fn told(&self, question: Question) -> Told {
        self.0.ask(question).await
    }
}

/// The request line and the headers of every question.
fn head(setup: &VerifySetup) -> Request<()> {
    let url = &setup.settings.url;
    let mut head = Request::post(url.path_and_query())
        .header(HOST, url.authority())
        .header(USER_AGENT, concat!("towpath-relay/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json")
        .body(())
        .expect("a URL gives a request line and a host");
    if let Some(authorization) = &setup.authorization {
        head.headers_mut().insert(AUTHORIZATION, authorization.clone());
    }
    head
}

impl Ask for VerifyBackend {
    async fn ask(&self, question: Question, deadline: Instant, step: &mut Step) -> Result<bool, AskError> {
        let answer = self.pool.ask(&self.request(question), MAX_BODY, deadline, step).await?;
        judge(&answer)
    }
}

impl VerifyBackend {
    fn request(&self, Question { key, source, .. }: Question) -> HttpQuestion {
        let source = source.map_or_else(String::new, |source| source.to_canonical().to_string());
        let body = json!({ "NodePublic": key.to_string(), "Source": source }).to_string();
        self.head.clone().map(|()| Full::new(Bytes::from(body)))
    }
}

/// Whether an answer allows the client.
fn judge(answer: &HttpAnswer) -> Result<bool, AskError> {
    let status = answer.status;
    if status.is_redirection() {
        return Err(AskError::Redirect { status, to: location(answer.headers.get(LOCATION)) });
    }
    if status != StatusCode::OK {
        return Err(AskError::Status(status));
    }
    let body = answer.body.as_ref().ok_or(AskError::TooLong(MAX_BODY))?;
    allowed(body).ok_or(AskError::NotJson("a JSON object in which Allow is true or false"))
}

/// Where a redirect leads, as a line of the log may have it.
fn location(to: Option<&HeaderValue>) -> String {
    let to = to.map_or_else(|| "nowhere".into(), |to| String::from_utf8_lossy(to.as_bytes()).into_owned());
    // A query may hold a secret.
    let to: String = to.split('?').next().unwrap_or_default().chars().take(MAX_LOCATION).collect();
    Visible(&to).to_string()
}

/// Reads the answer as Go would: names in any case, others ignored, `null` for nothing, and `false` where nothing is.
/// `None` if it is no answer.
fn allowed(body: &[u8]) -> Option<bool> {
    let members: Map<String, Value> = serde_json::from_slice(body).ok()?;
    let mut said = members.iter().filter(|(name, _)| name.eq_ignore_ascii_case("Allow"));
    said.try_fold(None, |known, (_, value)| match (known, value) {
        (_, Value::Null) => Some(known),
        (None, Value::Bool(allow)) => Some(Some(*allow)),
        // In which order names of different case stand is not known here, so they must agree.
        (Some(known), Value::Bool(allow)) if known == *allow => Some(Some(known)),
        _ => None,
    })
    .map(|known| known.unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_object_with_a_truth_value_is_an_answer() {
        for (body, expected) in [
            (&br#"{"Allow":true}"#[..], Some(true)),
            (b" {\"Allow\":true}\n", Some(true)),
            (br#"{"allow":true}"#, Some(true)),
            (br#"{"Allow":true,"Reason":{"a":[1]}}"#, Some(true)),
            (br#"{"Allow":false}"#, Some(false)),
            (b"{}", Some(false)),
            (br#"{"error":"internal"}"#, Some(false)),
            (br#"{"Allow":null}"#, Some(false)),
            (br#"{"Allow":false,"Allow":true}"#, Some(true)),
            (br#"{"Allow":true,"ALLOW":true}"#, Some(true)),
            (br#"{"Allow":true,"ALLOW":false}"#, None),
            (br#"{"Allow":"true"}"#, None),
            (br#"{"Allow":1}"#, None),
            (br#"{"Allow":true} and more"#, None),
            (br#"{"Allow":true"#, None),
            (br#"[{"Allow":true}]"#, None),
            (b"null", None),
            (b"true", None),
            (b"", None),
            (b"<html>It works!</html>", None),
            (b"\xff", None),
        ] {
            assert_eq!(allowed(body), expected, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn a_redirect_is_named_without_its_query_and_without_what_cannot_be_seen() {
        let told = |value: &[u8]| location(HeaderValue::from_bytes(value).ok().as_ref());
        assert_eq!(told(b"https://login.example.com/start?token=1"), "https://login.example.com/start");
        assert_eq!(location(None), "nowhere");
        assert_eq!(told(&[b'a'; 1000]).len(), MAX_LOCATION);
    }
}
