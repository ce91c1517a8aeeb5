//! The pages that every service has, and which requests may read them.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode, Version};
use prometheus::{Encoder, Registry, TextEncoder};
use tracing::warn;

use super::Readiness;
use super::door::DoorKind;
use super::operations::{Call, OperationAnswer, Operations, PageBody};
use crate::repeated::Repeated;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What is answered.
#[derive(Debug)]
pub(super) struct Pages {
    registry: Registry,
    readiness: Readiness,
    hosts: Vec<String>,
    operations: Option<Arc<dyn Operations>>,
    encode_failures: Mutex<Repeated>,
}

impl Pages {
    pub(super) fn new(
        registry: Registry,
        readiness: Readiness,
        hosts: Vec<String>,
        operations: Option<Arc<dyn Operations>>,
    ) -> Self {
        Self { registry, readiness, hosts, operations, encode_failures: Mutex::default() }
    }

    pub(super) async fn answer<B>(&self, request: &Request<B>, door: DoorKind) -> Response<PageBody> {
        match door {
            DoorKind::Network => self.refusal(request).unwrap_or_else(|| self.page(request)),
            DoorKind::Socket => match self.operation(request).await {
                Some(answer) => page_of(answer),
                None => self.page(request),
            },
        }
    }

    /// The answer to a request that may have been made by a page of another site.
    fn refusal<B>(&self, request: &Request<B>) -> Option<Response<PageBody>> {
        if !self.is_named(request) {
            const WHY: &str =
                "Host is neither an IP address nor localhost nor one of the names in admin.hosts\n";
            return Some(page(StatusCode::MISDIRECTED_REQUEST, TEXT, WHY));
        }
        is_cross_origin(request).then(|| page(StatusCode::FORBIDDEN, TEXT, "not for pages of other sites\n"))
    }

    async fn operation<B>(&self, request: &Request<B>) -> Option<OperationAnswer> {
        let (method, uri) = (request.method().clone(), request.uri());
        let (path, query) = (uri.path().to_owned(), uri.query().unwrap_or_default().to_owned());
        self.operations.as_ref()?.answer(&Call { method, path, query }).await
    }

    fn page<B>(&self, request: &Request<B>) -> Response<PageBody> {
        match *request.method() {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS => return self.options(request.uri().path()),
            _ => return with_methods(page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n")),
        }
        match request.uri().path() {
            "/healthz" => page(StatusCode::OK, TEXT, "ok\n"),
            "/readyz" => {
                let (status, reason) = self.readiness.answer();
                page(status, TEXT, reason)
            }
            "/metrics" => self.metrics(),
            _ => page(StatusCode::NOT_FOUND, TEXT, "not found; there are /metrics, /healthz and /readyz\n"),
        }
    }

    /// Returns the answer to OPTIONS. It must not make a relay that is not ready look healthy.
    fn options(&self, path: &str) -> Response<PageBody> {
        with_methods(match self.readiness.answer() {
            (status, reason) if path == "/readyz" && !status.is_success() => page(status, TEXT, reason),
            _ => {
                let mut page = Response::new(PageBody::Whole(Full::default()));
                *page.status_mut() = StatusCode::NO_CONTENT;
                page
            }
        })
    }

    /// Whether `request` names this listener in a way that no page of another site can.
    fn is_named<B>(&self, request: &Request<B>) -> bool {
        let mut hosts = request.headers().get_all(HOST).iter();
        let authority = match (request.uri().authority(), hosts.next(), hosts.next()) {
            (_, _, Some(_)) => return false,
            (Some(authority), ..) => authority.clone(),
            (None, Some(host), None) => {
                let Ok(authority) = Authority::try_from(host.as_bytes()) else { return false };
                authority
            }
            // Browsers speak no version without `Host`.
            (None, None, None) => return request.version() < Version::HTTP_11,
        };
        let name = authority.host();
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let is = |host: &str| name.trim_end_matches('.').eq_ignore_ascii_case(host);
        address.parse::<IpAddr>().is_ok() || is("localhost") || self.hosts.iter().any(|host| is(host))
    }

    fn metrics(&self) -> Response<PageBody> {
        let encoder = TextEncoder::new();
        let mut text = Vec::new();
        match encoder.encode(&self.registry.gather(), &mut text) {
            Ok(()) => {
                let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                page(StatusCode::OK, format, text)
            }
            Err(error) => {
                if let Some(times) =
                    self.encode_failures.lock().unwrap_or_else(PoisonError::into_inner).note()
                {
                    warn!(times, %error, "metrics cannot be encoded");
                }
                page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "metrics cannot be encoded\n")
            }
        }
    }
}

/// Whether a browser says that a page of another site has made the request.
fn is_cross_origin<B>(request: &Request<B>) -> bool {
    let Some(origin) = request.headers().get(ORIGIN) else { return false };
    let own = request.headers().get(HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    let of_scheme = |scheme: &[u8]| origin.as_bytes().strip_prefix(scheme);
    of_scheme(b"http://")
        .or_else(|| of_scheme(b"https://"))
        .is_none_or(|origin| !origin.eq_ignore_ascii_case(own))
}

fn page_of(answer: OperationAnswer) -> Response<PageBody> {
    let mut response = response(answer.status, JSON, answer.parts.into());
    if let Some(methods) = answer.allow {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    }
    response
}

fn with_methods(mut page: Response<PageBody>) -> Response<PageBody> {
    page.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    page
}

fn page(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Response<PageBody> {
    response(status, content_type, PageBody::Whole(Full::new(body.into())))
}

fn response(status: StatusCode, content_type: HeaderValue, body: PageBody) -> Response<PageBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
