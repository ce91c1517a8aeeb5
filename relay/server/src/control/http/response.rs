//! Short HTTP responses whose bodies are known in full.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use hyper::{Response, StatusCode};

/// An HTTP response of the relay.
pub(super) type Page = Response<Full<Bytes>>;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// Creates a response with plain text.
pub(super) fn text(status: StatusCode, body: &'static str) -> Page {
    let mut page = Page::new(body.into());
    *page.status_mut() = status;
    page.headers_mut().insert(CONTENT_TYPE, TEXT);
    page.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    page
}

/// Adds the headers by which browsers restrict `page`.
pub(super) fn with_browser_headers(mut page: Page) -> Page {
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
