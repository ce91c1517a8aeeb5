//! What the relay answers over HTTP, apart from the upgrade to DERP.
//!
//! | path | answer |
//! |---|---|
//! | `/` | a page that says what this is |
//! | `/derp` without an upgrade | 426 |
//! | `/derp/probe`, `/derp/latency-check` | GET and HEAD: 200, empty, any origin; netcheck and browsers time it |
//! | `/generate_204` | 204 and the answer to the captive-portal challenge |
//! | `/robots.txt` | nothing for robots |
//! | anything else | 404 |

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST,
    HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL, STRICT_TRANSPORT_SECURITY, UPGRADE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Version};

/// An answer of the relay: short and known in full.
pub(crate) type Page = Response<Full<Bytes>>;

/// What a request is.
#[derive(Debug)]
pub(crate) enum Routed {
    /// A request that is answered, and the connection goes on.
    Page(Page),
    /// An upgrade: what follows on the connection is DERP.
    Derp(Upgrade),
}

/// What the headers of an upgrade say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Upgrade {
    /// The client knows the node key from the meta certificate and does not wait for an HTTP response.
    pub(crate) fast_start: bool,
    /// The client would rather be at another relay of the region.
    pub(crate) not_ideal: bool,
}

const DERP_FAST_START: HeaderName = HeaderName::from_static("derp-fast-start");
const IDEAL_NODE: HeaderName = HeaderName::from_static("ideal-node");
const CHALLENGE: HeaderName = HeaderName::from_static("x-tailscale-challenge");
const CHALLENGE_RESPONSE: HeaderName = HeaderName::from_static("x-tailscale-response");
const MAX_CHALLENGE: usize = 64;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

const HOME: &str = concat!(
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>DERP relay</title>\n</head>\n<body>\n",
    "<h1>DERP relay</h1>\n",
    "<p>This is a <a href=\"https://tailscale.com/kb/1232/derp-servers\">DERP</a> relay: it forwards packets between ",
    "devices of WireGuard networks that have no direct path to each other yet.</p>\n",
    "<p>The packets are encrypted from device to device. The relay sees which keys talk, how much and when; it cannot ",
    "read what they say.</p>\n",
    "<p>Towpath ",
    env!("CARGO_PKG_VERSION"),
    "</p>\n</body>\n</html>\n"
);

/// Decides what a request is. Bodies are not looked at.
pub(crate) fn route<B>(request: &Request<B>) -> Routed {
    let headers = request.headers();
    if request.version() == Version::HTTP_11 && !headers.contains_key(HOST) {
        return Routed::Page(text(StatusCode::BAD_REQUEST, "missing required Host header\n"));
    }
    Routed::Page(match request.uri().path() {
        "/derp" => return derp(headers),
        "/derp/probe" | "/derp/latency-check" => probe(request.method()),
        "/generate_204" => generate_204(headers),
        "/robots.txt" => with_browser_headers(text(StatusCode::OK, "User-agent: *\nDisallow: /\n")),
        "/" if matches!(*request.method(), Method::GET | Method::HEAD) => {
            let mut page = with_browser_headers(Page::new(HOME.into()));
            page.headers_mut().insert(CONTENT_TYPE, HTML);
            page
        }
        "/" => {
            let mut page = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD here\n");
            page.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            page
        }
        _ => with_browser_headers(text(StatusCode::NOT_FOUND, "no such page\n")),
    })
}

/// The method and the `Connection` header are not looked at: clients differ in both.
fn derp(headers: &HeaderMap) -> Routed {
    let upgrade = headers.get(UPGRADE).map(HeaderValue::as_bytes).unwrap_or_default();
    let websocket = upgrade.eq_ignore_ascii_case(b"websocket");
    if !websocket && !upgrade.eq_ignore_ascii_case(b"derp") {
        return Routed::Page(text(StatusCode::UPGRADE_REQUIRED, "DERP requires connection upgrade\n"));
    }
    // Old clients call plain DERP "websocket" for the sake of proxies; the subprotocol tells them from browsers.
    let subprotocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL);
    let in_messages = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).contains("derp");
    if websocket && subprotocols.iter().any(in_messages) {
        return Routed::Page(text(StatusCode::NOT_IMPLEMENTED, "this relay does not serve WebSocket\n"));
    }
    Routed::Derp(Upgrade {
        fast_start: headers.get(DERP_FAST_START).is_some_and(|value| value == "1"),
        not_ideal: headers.contains_key(IDEAL_NODE),
    })
}

fn probe(method: &Method) -> Page {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "bogus probe method\n");
    }
    let mut page = Page::default();
    page.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    page
}

fn generate_204(headers: &HeaderMap) -> Page {
    let mut page = Page::default();
    *page.status_mut() = StatusCode::NO_CONTENT;
    const NO_CACHE: &str = "no-cache, no-store, must-revalidate, no-transform, max-age=0";
    page.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(NO_CACHE));
    if let Some(response) = headers.get(CHALLENGE).and_then(|value| challenge_response(value.as_bytes())) {
        page.headers_mut().insert(CHALLENGE_RESPONSE, response);
    }
    page
}

/// Only what cannot be misused when it is echoed.
fn challenge_response(challenge: &[u8]) -> Option<HeaderValue> {
    let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"._:-".contains(byte);
    if challenge.is_empty() || challenge.len() > MAX_CHALLENGE || !challenge.iter().all(harmless) {
        return None;
    }
    HeaderValue::from_bytes(&[b"response ", challenge].concat()).ok()
}

fn text(status: StatusCode, body: &'static str) -> Page {
    let mut page = Page::new(body.into());
    *page.status_mut() = status;
    page.headers_mut().insert(CONTENT_TYPE, TEXT);
    page.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    page
}

fn with_browser_headers(mut page: Page) -> Page {
    const POLICY: &str = "default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'self'; \
                          block-all-mixed-content; object-src 'none'";
    for (name, value) in [
        (STRICT_TRANSPORT_SECURITY, "max-age=63072000; includeSubDomains"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_FRAME_OPTIONS, "DENY"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        page.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    page
}
