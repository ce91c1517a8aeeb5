//! The request that turns an HTTP connection into a DERP connection.
//!
//! Clients in the field differ in what they send, so the relay requires as little as possible:
//!
//! | `Upgrade` | | what follows |
//! |---|---|---|
//! | `DERP`, any case | method and `Connection` are not looked at | DERP |
//! | `websocket`, no subprotocols | old clients that do so to pass proxies | DERP |
//! | `websocket` with subprotocols | a handshake by RFC 6455; without `derp` among them it is closed with 1008 | DERP in binary messages |
//! | anything else | | 426 |
//!
//! Any `Origin` is accepted: a login proves a key, and no header that a browser adds proves anything to a relay.

use hyper::header::{
    ALLOW, CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{HeaderMap, Method, Request, StatusCode, Version};
use towpath_websocket::accept_key;
use towpath_wire::key::NodePublic;

use super::response::{Page, text};

/// The protocol that the client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UpgradeProtocol {
    /// DERP frames.
    Derp {
        /// The client knows the node key from the meta certificate and does not wait for an HTTP response.
        fast_start: bool,
    },
    /// DERP frames in binary messages.
    WebSocket {
        /// The proof for the client that its handshake was understood.
        accept: String,
        /// `derp` is among the client's subprotocols.
        agreed: bool,
    },
}

/// The contents of an upgrade request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upgrade {
    pub(crate) protocol: UpgradeProtocol,
    /// The client said that another relay of the region would be nearer.
    pub(crate) not_ideal: bool,
}

const DERP_FAST_START: HeaderName = HeaderName::from_static("derp-fast-start");
const IDEAL_NODE: HeaderName = HeaderName::from_static("ideal-node");
const SUBPROTOCOL: &str = "derp";

impl Upgrade {
    /// Reads the request.
    ///
    /// # Errors
    ///
    /// The answer to a request that is not an upgrade.
    pub(crate) fn of<B>(request: &Request<B>) -> Result<Self, Box<Page>> {
        let headers = request.headers();
        let upgrade = headers.get(UPGRADE).map(HeaderValue::as_bytes).unwrap_or_default();
        let websocket = upgrade.eq_ignore_ascii_case(b"websocket");
        if websocket && headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
            let accept = handshake(request)?;
            let agreed = has_token(headers, &SEC_WEBSOCKET_PROTOCOL, |token| token == SUBPROTOCOL);
            return Ok(Self { protocol: UpgradeProtocol::WebSocket { accept, agreed }, not_ideal: false });
        }
        if !websocket && !upgrade.eq_ignore_ascii_case(b"derp") {
            return Err(Box::new(text(StatusCode::UPGRADE_REQUIRED, "DERP requires connection upgrade\n")));
        }
        let fast_start = headers.get(DERP_FAST_START).is_some_and(|value| value == "1");
        Ok(Self {
            protocol: UpgradeProtocol::Derp { fast_start },
            not_ideal: headers.contains_key(IDEAL_NODE),
        })
    }

    /// Returns the response after which the connection carries DERP; empty if the client does not wait for one.
    pub(crate) fn response(&self, relay: &NodePublic) -> String {
        const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n";
        match &self.protocol {
            UpgradeProtocol::Derp { fast_start: true } => String::new(),
            UpgradeProtocol::Derp { fast_start: false } => format!(
                "{SWITCHING}Upgrade: DERP\r\nDerp-Version: 2\r\nDerp-Public-Key: {}\r\n\r\n",
                relay.to_hex()
            ),
            UpgradeProtocol::WebSocket { accept, agreed } => {
                let subprotocol = if *agreed { "Sec-WebSocket-Protocol: derp\r\n" } else { "" };
                format!(
                    "{SWITCHING}Upgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n{subprotocol}\r\n"
                )
            }
        }
    }
}

/// Returns the value of `Sec-WebSocket-Accept` for a handshake that RFC 6455 section 4.2.1 allows, or else the refusal.
fn handshake<B>(request: &Request<B>) -> Result<String, Box<Page>> {
    let headers = request.headers();
    let refuse = |status, why| Box::new(text(status, why));
    if request.version() < Version::HTTP_11
        || !has_token(headers, &CONNECTION, |token| token.eq_ignore_ascii_case("upgrade"))
    {
        let mut page =
            refuse(StatusCode::UPGRADE_REQUIRED, "WebSocket requires HTTP/1.1 and Connection: Upgrade\n");
        page.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        return Err(page);
    }
    if request.method() != Method::GET {
        let mut page = refuse(StatusCode::METHOD_NOT_ALLOWED, "WebSocket requires GET\n");
        page.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return Err(page);
    }
    const VERSION: &str = "13";
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
        let mut page = refuse(StatusCode::BAD_REQUEST, "WebSocket requires version 13\n");
        page.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
        return Err(page);
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let accept = match (keys.next(), keys.next()) {
        (Some(key), None) => accept_key(key.as_bytes()),
        _ => None,
    };
    accept.ok_or_else(|| refuse(StatusCode::BAD_REQUEST, "WebSocket requires one key of 16 bytes\n"))
}

/// Whether `is` holds for one of the tokens in a list header, which may come in several lines.
fn has_token(headers: &HeaderMap, name: &HeaderName, is: impl Fn(&str) -> bool) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|token| is(token.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANDSHAKE: [(&str, &str); 5] = [
        ("upgrade", "WebSocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "chat, derp"),
    ];

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::get("/derp");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request")
    }

    /// Returns the handshake with one header changed, or without that header if `value` is empty.
    fn changed(name: &str, value: &str) -> Request<()> {
        let mut headers: Vec<_> = HANDSHAKE.into_iter().filter(|(each, _)| *each != name).collect();
        if !value.is_empty() {
            headers.push((name, value));
        }
        request(&headers)
    }

    fn status(request: &Request<()>) -> u16 {
        Upgrade::of(request).map_or_else(|page| page.status().as_u16(), |_| 101)
    }

    #[test]
    fn a_handshake_is_answered_as_the_rfc_has_it() {
        let key = NodePublic::from_bytes([1; 32]);
        let upgrade = Upgrade::of(&request(&HANDSHAKE)).expect("an upgrade");
        assert_eq!(
            upgrade.response(&key),
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: derp\r\n\r\n"
        );
        for protocol in ["chat", "DERP", "notderp", "derp2, chat"] {
            let upgrade = Upgrade::of(&changed("sec-websocket-protocol", protocol)).expect("an upgrade");
            assert!(
                matches!(upgrade.protocol, UpgradeProtocol::WebSocket { agreed: false, .. }),
                "{protocol}"
            );
            assert!(!upgrade.response(&key).contains("Protocol:"));
        }
    }

    #[test]
    fn what_a_handshake_lacks_decides_the_answer() {
        for (name, value, expected) in [
            ("connection", "keep-alive", 426),
            ("connection", "", 426),
            ("sec-websocket-version", "8", 400),
            ("sec-websocket-version", "", 400),
            ("sec-websocket-key", "dGhlIHNhbXBsZQ==", 400),
            ("sec-websocket-key", "", 400),
            ("upgrade", "h2c", 426),
            ("upgrade", "derp, websocket", 426),
            ("upgrade", "", 426),
        ] {
            assert_eq!(status(&changed(name, value)), expected, "{name}: {value}");
        }
        let mut twice = request(&HANDSHAKE);
        twice.headers_mut().append(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(status(&twice), 400);
        let mut post = request(&HANDSHAKE);
        *post.method_mut() = Method::POST;
        assert_eq!(status(&post), 405);
        let mut old = request(&HANDSHAKE);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(status(&old), 426);
    }

    /// A client in a browser needs the response.
    #[test]
    fn what_derp_asks_for_in_headers_means_nothing_in_websocket() {
        let headers = [("derp-fast-start", "1"), ("ideal-node", "a.example")];
        let upgrade = Upgrade::of(&request(&[&HANDSHAKE[..], &headers].concat())).expect("an upgrade");
        assert_eq!(upgrade, Upgrade::of(&request(&HANDSHAKE)).expect("an upgrade"));
    }

    #[test]
    fn websocket_without_subprotocols_is_derp() {
        let upgrade = Upgrade::of(&changed("sec-websocket-protocol", "")).expect("an upgrade");
        assert_eq!(upgrade.protocol, UpgradeProtocol::Derp { fast_start: false });
    }
}
