//! HTTP/1.1 as far as a DERP client needs it: requests for an upgrade and for a tunnel, and the heads of responses.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use towpath_websocket::{accept_key, handshake_key};
use towpath_wire::host::{bracketed, https_authority};

use crate::tls_failure::TlsFailure;

/// More header than this is neither from a relay nor from a proxy.
const MAX_HEADER: usize = 16 * 1024;

/// DERP in WebSocket.
const SUBPROTOCOL: &str = "derp";

/// Why the upgrade failed.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The socket failed.
    #[error(transparent)]
    Io(io::Error),
    /// TLS failed after its handshake, as when the relay does not like the client's last flight.
    #[error(transparent)]
    Tls(TlsFailure),
    /// The relay closed before its response was whole.
    #[error("the relay closed without a response")]
    Closed,
    /// A response with another status than 101.
    #[error("the relay answered with status {0} instead of 101")]
    Status(u16),
    /// No HTTP/1 response, or one with an endless header.
    #[error("the answer is not an HTTP/1 response")]
    NotHttp,
    /// A 101 that is not the answer to a request for WebSocket with DERP in it.
    #[error("the answer is no WebSocket for DERP: {0}")]
    NotWebSocket(&'static str),
    /// No key for WebSocket.
    #[error("cannot get random bytes from the system")]
    Random(#[from] getrandom::Error),
}

impl From<io::Error> for UpgradeError {
    fn from(error: io::Error) -> Self {
        TlsFailure::of_stream(error).map_or_else(Self::Io, Self::Tls)
    }
}

/// The request. A port of 443 is left out of the Host header, as the Go client does it.
pub(crate) fn request(host: &str, port: u16, fast_start: bool) -> String {
    let authority = https_authority(host, port);
    let version = env!("CARGO_PKG_VERSION");
    let fast_start = if fast_start { "Derp-Fast-Start: 1\r\n" } else { "" };
    format!(
        "GET /derp HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: towpath/{version}\r\nConnection: Upgrade\r\n\
         {fast_start}Upgrade: DERP\r\n\r\n"
    )
}

/// The request for a tunnel through a proxy. The port is always named, as RFC 9110 section 9.3.6 asks for.
pub(crate) fn tunnel_request(host: &str, port: u16, authorization: Option<&str>) -> String {
    let host = bracketed(host);
    let version = env!("CARGO_PKG_VERSION");
    let authorization =
        authorization.map_or_else(String::new, |value| format!("Proxy-Authorization: {value}\r\n"));
    format!(
        "CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: towpath/{version}\r\n{authorization}\r\n"
    )
}

/// Reads a response that must be a 101. `received` holds what was read before; what follows the header stays there.
///
/// # Errors
///
/// See [`UpgradeError`]. No more than 16 KiB and one read are held.
pub async fn read_response(
    stream: &mut (impl AsyncRead + Unpin),
    received: &mut Vec<u8>,
) -> Result<(), UpgradeError> {
    read_head(stream, received).await?.expect_upgrade()
}

/// Asks for DERP in WebSocket messages; what was read behind the response.
pub(crate) async fn upgrade_to_websocket(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    host: &str,
    port: u16,
) -> Result<Vec<u8>, UpgradeError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)?;
    let key = handshake_key(random);
    stream.write_all(websocket_request(host, port, &key).as_bytes()).await?;
    stream.flush().await?;
    let mut received = Vec::with_capacity(1024);
    read_head(stream, &mut received).await?.expect_websocket(&key)?;
    Ok(received)
}

/// The request for a WebSocket (RFC 6455 section 4.1).
fn websocket_request(host: &str, port: u16, key: &str) -> String {
    let authority = https_authority(host, port);
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "GET /derp HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: towpath/{version}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\
         Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
    )
}

/// The header of a response.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    bytes: Vec<u8>,
}

impl Head {
    fn expect_upgrade(&self) -> Result<(), UpgradeError> {
        if self.status == 101 { Ok(()) } else { Err(UpgradeError::Status(self.status)) }
    }

    /// Checks what RFC 6455 section 4.1 asks a client to check, and that the subprotocol is DERP.
    fn expect_websocket(&self, key: &str) -> Result<(), UpgradeError> {
        self.expect_upgrade()?;
        let value = |name| self.values(name).next().unwrap_or_default();
        let wrong = if !value("Upgrade").eq_ignore_ascii_case("websocket") {
            "it switches to another protocol"
        } else if Some(value("Sec-WebSocket-Accept")) != accept_key(key.as_bytes()).as_deref() {
            "it does not answer the key"
        } else if value("Sec-WebSocket-Protocol") != SUBPROTOCOL {
            "it does not agree to the subprotocol derp"
        } else if self.values("Sec-WebSocket-Extensions").next().is_some() {
            "it has extensions that it was not offered"
        } else {
            return Ok(());
        };
        Err(UpgradeError::NotWebSocket(wrong))
    }

    /// The values of the fields with this name. What is not text does not count.
    fn values<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h str> {
        let lines = self.bytes.split(|&byte| byte == b'\n').skip(1);
        lines.filter_map(move |line| {
            let (field, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Why no response could be read.
#[derive(Debug)]
pub(crate) enum NoResponse {
    Io(io::Error),
    Closed,
    NotHttp,
}

impl From<NoResponse> for UpgradeError {
    fn from(error: NoResponse) -> Self {
        match error {
            NoResponse::Io(error) => error.into(),
            NoResponse::Closed => Self::Closed,
            NoResponse::NotHttp => Self::NotHttp,
        }
    }
}

/// Reads the header of a response. `received` holds what was read before; what follows the header stays there.
/// No more than [`MAX_HEADER`] and one read are held.
pub(crate) async fn read_head(
    stream: &mut (impl AsyncRead + Unpin),
    received: &mut Vec<u8>,
) -> Result<Head, NoResponse> {
    const END: &[u8] = b"\r\n\r\n";
    loop {
        if let Some(end) = received.windows(END.len()).position(|bytes| bytes == END) {
            let status = status(received).ok_or(NoResponse::NotHttp)?;
            let behind = received.split_off(end + END.len());
            return Ok(Head { status, bytes: std::mem::replace(received, behind) });
        }
        if received.len() > MAX_HEADER {
            return Err(NoResponse::NotHttp);
        }
        if stream.read_buf(received).await.map_err(NoResponse::Io)? == 0 {
            return Err(NoResponse::Closed);
        }
    }
}

/// The status code of a response.
fn status(header: &[u8]) -> Option<u16> {
    let (version, rest) = header.split_at_checked(9)?;
    let (digits, rest) = rest.split_at_checked(3)?;
    let is_http =
        matches!(version, b"HTTP/1.0 " | b"HTTP/1.1 ") && matches!(rest.first(), Some(b' ' | b'\r'));
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_http)?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_the_go_clients() {
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            request("derp.example.com", 443, true),
            format!(
                "GET /derp HTTP/1.1\r\nHost: derp.example.com\r\nUser-Agent: towpath/{version}\r\n\
                 Connection: Upgrade\r\nDerp-Fast-Start: 1\r\nUpgrade: DERP\r\n\r\n"
            )
        );
        assert!(request("::1", 3340, false).contains("\r\nHost: [::1]:3340\r\n"));
        assert!(!request("::1", 3340, false).contains("Fast-Start"));
    }

    #[test]
    fn a_tunnel_is_asked_for_by_host_and_port() {
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            tunnel_request("derp.example.com", 443, None),
            format!(
                "CONNECT derp.example.com:443 HTTP/1.1\r\nHost: derp.example.com:443\r\nUser-Agent: towpath/{version}\r\n\r\n"
            )
        );
        let request = tunnel_request("::1", 8443, Some("Basic dTpw"));
        assert!(request.starts_with("CONNECT [::1]:8443 HTTP/1.1\r\nHost: [::1]:8443\r\n"), "{request}");
        assert!(request.ends_with("\r\nProxy-Authorization: Basic dTpw\r\n\r\n"), "{request}");
    }

    #[test]
    fn a_websocket_is_asked_for_as_the_rfc_has_it() {
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            websocket_request("derp.example.com", 443, "dGhlIHNhbXBsZSBub25jZQ=="),
            format!(
                "GET /derp HTTP/1.1\r\nHost: derp.example.com\r\nUser-Agent: towpath/{version}\r\nConnection: Upgrade\r\n\
                 Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                 Sec-WebSocket-Protocol: derp\r\n\r\n"
            )
        );
    }

    #[test]
    fn each_part_of_an_answer_to_websocket_counts() {
        const FIELDS: [(&str, &str); 4] = [
            ("Connection", "Upgrade"),
            ("upgrade", "WebSocket"),
            ("Sec-Websocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            ("Sec-WebSocket-Protocol", "derp"),
        ];
        let outcome = |name: &str, value: &str| {
            let mut bytes = b"HTTP/1.1 101 Switching Protocols\r\n".to_vec();
            for (each, usual) in FIELDS.iter().chain(&[(name, value)]) {
                if *each != name || *usual == value {
                    bytes.extend_from_slice(format!("{each}: {usual}\r\n").as_bytes());
                }
            }
            bytes.extend_from_slice(b"\r\n");
            let outcome = Head { status: 101, bytes }.expect_websocket("dGhlIHNhbXBsZSBub25jZQ==");
            outcome.map_err(|error| error.to_string())
        };
        assert_eq!(outcome("Server", "derper"), Ok(()));
        for (name, value, wrong) in [
            ("upgrade", "DERP", "it switches to another protocol"),
            ("Sec-Websocket-Accept", "", "it does not answer the key"),
            ("Sec-Websocket-Accept", "S3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "it does not answer the key"),
            ("Sec-WebSocket-Protocol", "", "it does not agree to the subprotocol derp"),
            ("Sec-WebSocket-Protocol", "chat", "it does not agree to the subprotocol derp"),
            ("Sec-WebSocket-Extensions", "x", "it has extensions that it was not offered"),
        ] {
            assert_eq!(
                outcome(name, value),
                Err(format!("the answer is no WebSocket for DERP: {wrong}")),
                "{name}"
            );
        }
        let refused = Head { status: 426, bytes: Vec::new() }.expect_websocket("");
        assert!(matches!(refused, Err(UpgradeError::Status(426))));
    }

    async fn read(mut response: &[u8], before: &[u8]) -> (Result<(), String>, Vec<u8>) {
        let mut received = before.to_vec();
        let read = read_response(&mut response, &mut received).await;
        (read.map_err(|error| error.to_string()), received)
    }

    #[tokio::test]
    async fn what_follows_the_header_is_kept() {
        assert_eq!(read(b"itching\r\nA: b\r\n\r\n\x01\0", b"HTTP/1.1 101 Sw").await, (Ok(()), vec![1, 0]));
    }

    #[tokio::test]
    async fn other_answers_are_errors() {
        let error = async |response: &[u8]| read(response, b"").await.0.unwrap_err();
        assert_eq!(
            error(b"HTTP/1.1 426 Upgrade Required\r\n\r\nDERP requires").await,
            "the relay answered with status 426 instead of 101"
        );
        assert_eq!(error(b"HTTP/1.1 101 Switching").await, "the relay closed without a response");
        for answer in
            [&b"SSH-2.0-OpenSSH\r\n\r\n"[..], b"\r\n\r\n", b"HTTP/1.1 1x1 A\r\n\r\n", &[b'a'; 20_000]]
        {
            assert_eq!(error(answer).await, "the answer is not an HTTP/1 response");
        }
    }
}
