//! Neighbouring protocols: connections of clients, proxies and health checks that are set up for another listener.
//!
//! The first bytes tell them apart. Each gets an answer from which the other end can tell what is wrong, and a line in the
//! log tells the operator, once a minute for each protocol at most.

use std::sync::Mutex;

use towpath_relay_proto::proxy_header::{PROXY_SIGNATURE, PROXY_TEXT};
use towpath_service::repeated::Repeated;
use towpath_wire::sync::lock;
use tracing::{info, warn};

use super::listener::{Accepted, ListenerKind};

/// The bytes that a protocol is known by, at most.
pub(super) const START: usize = 16;

/// The methods of HTTP that clients, proxies and health checks use.
const METHODS: [&[u8]; 9] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"OPTIONS ", b"DELETE ", b"PATCH ", b"CONNECT ", b"TRACE "];
/// The bytes of the signature that no other protocol begins with.
const PROXY_SIGNATURE_LEAST: usize = 5;
/// The start of HTTP/2 by a client that has not asked whether the server speaks it (RFC 9113 section 3.4).
const HTTP2: &[u8] = b"PRI * HTTP/2.0";
/// The first two bytes of a TLS handshake.
const TLS: &[u8] = &[22, 3];

/// A fatal alert in clear, `unexpected_message`.
pub(super) const ALERT: &[u8] = &[21, 3, 3, 0, 2, 2, 10];

/// The protocol of a connection, which its listener does not speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Neighbour {
    #[error("HTTP without TLS came to a listener for TLS")]
    HttpOnTls,
    #[error("a header of the PROXY protocol came from an address that is not in proxy_protocol.sources")]
    ProxyHeader,
    #[error("TLS came to a listener without TLS")]
    TlsOnPlain,
    #[error("HTTP/2 came without TLS, and the relay speaks HTTP/1.1")]
    Http2,
}

impl Neighbour {
    /// Returns the protocol that begins with `start`, if the listener does not speak it and it is known.
    pub(super) fn of(kind: ListenerKind, start: &[u8]) -> Option<Self> {
        let is_binary = start.len() >= PROXY_SIGNATURE_LEAST
            && (start.starts_with(PROXY_SIGNATURE) || PROXY_SIGNATURE.starts_with(start));
        if is_binary || start.starts_with(PROXY_TEXT) {
            return Some(Self::ProxyHeader);
        }
        if start.starts_with(HTTP2) {
            return Some(Self::Http2);
        }
        match kind {
            ListenerKind::Tls => {
                METHODS.iter().any(|method| start.starts_with(method)).then_some(Self::HttpOnTls)
            }
            ListenerKind::Plain | ListenerKind::Redirect => {
                start.starts_with(TLS).then_some(Self::TlsOnPlain)
            }
        }
    }

    /// Returns the bytes that tell the other end what is wrong, in the protocol that it speaks or reports.
    pub(super) fn answer(self, kind: ListenerKind) -> Vec<u8> {
        match self {
            // Go's sentence, word for word.
            Self::HttpOnTls => bad_request("Client sent an HTTP request to an HTTPS server."),
            // Behind the header the client speaks what the listener does.
            Self::ProxyHeader if kind == ListenerKind::Tls => ALERT.into(),
            Self::ProxyHeader => bad_request("This relay reads no PROXY protocol header from this address."),
            // TLS libraries have a message of their own for what is no TLS at all, which leads to the mistake; an alert
            // leads to versions and ciphers.
            Self::TlsOnPlain => bad_request("Client sent a TLS handshake to a listener without TLS."),
            Self::Http2 => go_away(b"this relay speaks HTTP/1.1"),
        }
    }

    /// Returns what the log says: what came, and what to do about it.
    const fn advice(self, kind: ListenerKind) -> &'static str {
        match (self, kind) {
            (Self::HttpOnTls, _) => {
                "HTTP without TLS came to listen, which speaks TLS, and was answered with 400: use https:// there, or let a \
                 proxy that ends TLS connect to http.listen"
            }
            (Self::ProxyHeader, _) => {
                "a header of the PROXY protocol came from an address that is not in proxy_protocol.sources: add the address if \
                 it is a proxy's, or turn the header off at the proxy (send-proxy in HAProxy, proxy_protocol in nginx)"
            }
            (Self::TlsOnPlain, ListenerKind::Redirect) => {
                "TLS came to http.redirect_listen, which is without TLS: listen speaks TLS"
            }
            (Self::TlsOnPlain, _) => {
                "TLS came to http.listen, which is without TLS: let the proxy connect by http://, or to listen"
            }
            (Self::Http2, _) => {
                "HTTP/2 came without TLS, and the relay speaks HTTP/1.1: set the proxy to HTTP/1.1, which the upgrade to DERP \
                 needs"
            }
        }
    }
}

/// The log lines about neighbours, which any host may cause.
#[derive(Debug, Default)]
pub(crate) struct NeighbourLog([Mutex<Repeated>; 4]);

impl NeighbourLog {
    /// Notes a connection that speaks `neighbour`, and logs it if a line is due.
    pub(super) fn note(&self, accepted: Accepted, neighbour: Neighbour) {
        let Accepted { id, address, kind, .. } = accepted;
        let Some(times) = self.due(neighbour) else { return };
        let advice = neighbour.advice(kind);
        // Scanners try every protocol on a public listener. What a proxy of the operator's sends is a mistake to repair.
        if kind == ListenerKind::Plain || neighbour == Neighbour::ProxyHeader {
            warn!(connection = id, %address, times, "{advice}");
        } else {
            info!(connection = id, %address, times, "{advice}");
        }
    }

    /// Returns how often `neighbour` has come since the last line about it, if a line is due.
    fn due(&self, neighbour: Neighbour) -> Option<u64> {
        lock(&self.0[neighbour as usize]).note()
    }
}

/// An answer of HTTP that says what is wrong with the connection.
pub(super) fn bad_request(sentence: &str) -> Vec<u8> {
    let length = sentence.len() + 1;
    format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{sentence}\n"
    )
    .into()
}

/// The frames of HTTP/2 by which a server says that it has nothing to say in HTTP/2 (RFC 9113 sections 6.5 and 6.8).
fn go_away(why: &[u8]) -> Vec<u8> {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const HTTP_1_1_REQUIRED: [u8; 4] = [0, 0, 0, 13];
    let length = u8::try_from(4 + HTTP_1_1_REQUIRED.len() + why.len()).expect("a short sentence");
    let header = [0, 0, length, 7, 0, 0, 0, 0, 0];
    [&SETTINGS[..], &header, &[0; 4], &HTTP_1_1_REQUIRED, why].concat()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ALL: [ListenerKind; 3] = [ListenerKind::Tls, ListenerKind::Plain, ListenerKind::Redirect];

    fn of(start: &[u8]) -> [Option<Neighbour>; 3] {
        ALL.map(|kind| Neighbour::of(kind, &start[..start.len().min(START)]))
    }

    #[test]
    fn the_first_bytes_tell_protocols_apart() {
        let (http, tls) = (Some(Neighbour::HttpOnTls), Some(Neighbour::TlsOnPlain));
        for request in ["GET / HTTP/1.1\r\n", "OPTIONS / HTTP/1.0\r\n", "POST /derp HTTP/1.1", "CONNECT a:1 "]
        {
            assert_eq!(of(request.as_bytes()), [http, None, None], "{request}");
        }
        for hello in [&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[22, 3]] {
            assert_eq!(of(hello), [None, tls, tls]);
        }
        let text = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\n";
        let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c";
        for header in [&text[..], b"PROXY UNKNOWN\r\n", binary, &binary[..12], &binary[..5]] {
            assert_eq!(of(header), [Some(Neighbour::ProxyHeader); 3], "{header:?}");
        }
        assert_eq!(of(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), [Some(Neighbour::Http2); 3]);
        for other in [
            &b""[..],
            b"G",
            b"GETTING",
            b"get / HTTP/1.1",
            b"PROXYING",
            b"PRI * HTTP/1.1",
            b"SSH-2.0-x",
            b"\r\n\r\n",
            b"\r\n\r\nGET / HTTP/1.1",
            &[22],
            &[23, 3, 3],
            &[0; 16],
        ] {
            assert_eq!(of(other), [None; 3], "{other:?}");
        }
    }

    #[test]
    fn answers_are_in_the_protocol_of_the_other_end() {
        for (neighbour, kind) in [
            (Neighbour::HttpOnTls, ListenerKind::Tls),
            (Neighbour::ProxyHeader, ListenerKind::Plain),
            (Neighbour::ProxyHeader, ListenerKind::Redirect),
            (Neighbour::TlsOnPlain, ListenerKind::Plain),
        ] {
            let answer = String::from_utf8(neighbour.answer(kind)).expect("text");
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
            assert!(head.ends_with("\r\nConnection: close"), "{head}");
        }
        assert_eq!(Neighbour::ProxyHeader.answer(ListenerKind::Tls), [21, 3, 3, 0, 2, 2, 10]);
        let frames = Neighbour::Http2.answer(ListenerKind::Plain);
        let (settings, go_away) = frames.split_at(9);
        assert_eq!(settings, [0, 0, 0, 4, 0, 0, 0, 0, 0]);
        assert_eq!(usize::from(go_away[2]), go_away.len() - 9);
        assert_eq!((go_away[3], &go_away[9..17]), (7, &[0, 0, 0, 0, 0, 0, 0, 13][..]));
    }

    /// The log must not be a stranger's to fill.
    #[tokio::test(start_paused = true)]
    async fn each_protocol_is_told_once_a_minute() {
        const SECOND: Duration = Duration::from_secs(1);
        let log = NeighbourLog::default();
        assert_eq!(log.due(Neighbour::HttpOnTls), Some(1));
        for _ in 1..60 {
            tokio::time::advance(SECOND).await;
            assert_eq!(log.due(Neighbour::HttpOnTls), None);
        }
        for other in [Neighbour::ProxyHeader, Neighbour::TlsOnPlain, Neighbour::Http2] {
            assert_eq!(log.due(other), Some(1), "{other}");
        }
        tokio::time::advance(SECOND).await;
        assert_eq!(log.due(Neighbour::HttpOnTls), Some(60));
    }
}
