//! The relay's answers over HTTP, except the upgrade to DERP.
//!
//! | path | answer |
//! |---|---|
//! | `/` | a page that says what this is, nothing, or another page, as configured |
//! | `/derp` without an upgrade | 426 |
//! | `/derp/probe`, `/derp/latency-check` | GET and HEAD: 200, empty, any origin; netcheck and browsers time it |
//! | `/generate_204` | 204 and the answer to the captive-portal challenge |
//! | `/bootstrap-dns` | addresses of configured names, as JSON |
//! | `/robots.txt` | nothing for robots |
//! | anything else | 404 |
//! | any, by OPTIONS, but for an upgrade of `/derp` | 204 and the methods: the health check of HAProxy, unless told otherwise |
//!
//! The redirecting listener also answers `/generate_204` and OPTIONS, and answers everything else with a redirect to HTTPS.

use std::sync::Arc;

use hyper::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, HeaderName,
    HeaderValue, LOCATION, UPGRADE,
};
use hyper::http::uri::PathAndQuery;
use hyper::{HeaderMap, Method, Request, StatusCode, Version};
use towpath_wire::host::https_authority;

use super::bootstrap::Bootstrap;
use super::response::{Page, text, with_browser_headers};
use super::upgrade::Upgrade;
use crate::config::Home;

/// The kind of a request.
#[derive(Debug)]
pub(crate) enum Routed {
    /// A request with this answer, after which the connection goes on.
    Page(Page),
    /// An upgrade, after which the connection carries DERP.
    Derp(Upgrade),
}

const CHALLENGE: HeaderName = HeaderName::from_static("x-tailscale-challenge");
const CHALLENGE_RESPONSE: HeaderName = HeaderName::from_static("x-tailscale-response");
const MAX_CHALLENGE: usize = 64;

/// The methods of every page.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

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

/// The pages, and the settings that they depend on.
#[derive(Debug)]
pub(crate) struct Site {
    /// The host and port of the TLS listener, as in a URL.
    authority: String,
    home: Home,
    bootstrap: Arc<Bootstrap>,
}

impl Site {
    /// Creates the pages of the relay with the name `hostname` and TLS on `port`.
    pub(crate) fn new(hostname: &str, port: u16, home: Home, bootstrap: Arc<Bootstrap>) -> Self {
        Self { authority: https_authority(hostname, port), home, bootstrap }
    }

    /// Decides what a request is. Bodies are ignored.
    pub(crate) fn route<B>(&self, request: &Request<B>) -> Routed {
        if let Some(page) = without_host(request) {
            return Routed::Page(page);
        }
        let asks_for_options = request.method() == Method::OPTIONS;
        Routed::Page(match request.uri().path() {
            "/derp" if !asks_for_options || request.headers().contains_key(UPGRADE) => {
                return Upgrade::of(request).map_or_else(|page| Routed::Page(*page), Routed::Derp);
            }
            _ if asks_for_options => options(),
            "/derp/probe" | "/derp/latency-check" => probe(request.method()),
            "/generate_204" => generate_204(request.headers()),
            "/bootstrap-dns" => self.bootstrap_dns(request.uri().query()),
            "/robots.txt" => with_browser_headers(text(StatusCode::OK, "User-agent: *\nDisallow: /\n")),
            "/" if is_get(request.method()) => with_browser_headers(self.home()),
            "/" => not_allowed("only GET and HEAD here\n"),
            _ => with_browser_headers(text(StatusCode::NOT_FOUND, "no such page\n")),
        })
    }

    /// Returns the answer of the listener that redirects to HTTPS.
    pub(crate) fn redirect<B>(&self, request: &Request<B>) -> Page {
        if let Some(page) = without_host(request) {
            return page;
        }
        if request.method() == Method::OPTIONS {
            return options();
        }
        if request.uri().path() == "/generate_204" {
            return generate_204(request.headers());
        }
        let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        if !is_get(request.method()) || !target.starts_with('/') {
            return text(StatusCode::BAD_REQUEST, "Use HTTPS\n");
        }
        match HeaderValue::try_from(format!("https://{}{target}", self.authority)) {
            Ok(location) => found(location),
            Err(_) => text(StatusCode::BAD_REQUEST, "Use HTTPS\n"),
        }
    }

    fn home(&self) -> Page {
        match &self.home {
            Home::Page => {
                let mut page = Page::new(HOME.into());
                page.headers_mut().insert(CONTENT_TYPE, HTML);
                page
            }
            Home::Blank => Page::default(),
            Home::Redirect(location) => found(location.clone()),
        }
    }

    fn bootstrap_dns(&self, query: Option<&str>) -> Page {
        let mut page = with_browser_headers(Page::new(self.bootstrap.answer(query).into()));
        page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // A client asks this once, and clients come from anywhere.
        page.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        page
    }
}

/// The refusal of a request without a `Host`, which HTTP/1.1 asks for (RFC 9112 section 3.2).
fn without_host<B>(request: &Request<B>) -> Option<Page> {
    let missing = request.version() == Version::HTTP_11 && !request.headers().contains_key(HOST);
    missing.then(|| text(StatusCode::BAD_REQUEST, "missing required Host header\n"))
}

fn is_get(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn options() -> Page {
    let mut page = Page::default();
    *page.status_mut() = StatusCode::NO_CONTENT;
    page.headers_mut().insert(ALLOW, METHODS);
    page
}

fn not_allowed(why: &'static str) -> Page {
    let mut page = text(StatusCode::METHOD_NOT_ALLOWED, why);
    page.headers_mut().insert(ALLOW, METHODS);
    page
}

fn found(location: HeaderValue) -> Page {
    let mut page = text(StatusCode::FOUND, "elsewhere\n");
    page.headers_mut().insert(LOCATION, location);
    page
}

fn probe(method: &Method) -> Page {
    if !is_get(method) {
        return not_allowed("bogus probe method\n");
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

/// Returns the response to a captive-portal challenge, if the challenge is safe to echo.
fn challenge_response(challenge: &[u8]) -> Option<HeaderValue> {
    let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"._:-".contains(byte);
    if challenge.is_empty() || challenge.len() > MAX_CHALLENGE || !challenge.iter().all(harmless) {
        return None;
    }
    HeaderValue::from_bytes(&[b"response ", challenge].concat()).ok()
}
