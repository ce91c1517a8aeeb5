//! Admission by what backends say: a verify URL, and the socket of tailscaled.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use crate::common::{Relay, private};

/// The answer to a request, head and body.
type Answer = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// Answers the requests of one connection until its end.
fn serve(mut stream: impl Read + Write, answer: &Answer) {
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut chunk) {
        received.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&received).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() < length.map_or(0, |length| length.parse().expect("a length")) {
            continue;
        }
        received.clear();
        if stream.write_all(answer(&text).as_bytes()).is_err() {
            return;
        }
    }
}

/// A verify URL that answers so, for the life of the process.
fn verify_url(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let answer: Answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || serve(stream, &answer));
        }
    });
    address
}

/// A tailscaled that knows the key of this seed, for the life of the process.
fn tailscaled(socket: &Path, known: u8) {
    let listener = UnixListener::bind(socket).expect("a socket");
    let known = private(known).public().to_hex();
    let answer: Answer = Arc::new(move |request| {
        let (status, body) = if request.contains("/status") {
            ("200 OK", r#"{"BackendState":"Running","CurrentTailnet":{}}"#)
        } else if request.contains(&known) {
            ("200 OK", "{}")
        } else {
            ("404 Not Found", "no match for IP:port\n")
        };
        http(status, body).replacen("\r\n", "\r\nTailscale-Cap: 148\r\n", 1)
    });
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || serve(stream, &answer));
        }
    });
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Allows the keys of these seeds.
fn allowing(seeds: &'static [u8]) -> impl Fn(&str) -> String + Send + Sync + 'static {
    move |request| {
        let allow = seeds.iter().any(|&seed| request.contains(&private(seed).public().to_string()));
        http("200 OK", &format!(r#"{{"Allow":{allow}}}"#))
    }
}

fn outcome(relay: &Relay, policy: &str, outcome: &str) -> u64 {
    relay.metric(&format!("towpath_admission_questions_total{{outcome=\"{outcome}\",policy=\"{policy}\"}}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_verify_url_allows_logs_in_and_another_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    fs::write(&token, "s3cret\n").expect("a file");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("permissions");
    let allow = allowing(&[1]);
    let address = verify_url(move |request| {
        if request.contains("\r\nauthorization: Bearer s3cret\r\n") {
            allow(request)
        } else {
            http("401 Unauthorized", "")
        }
    });
    let url = format!("verify.url = 'http://{address}/verify'");
    let relay = Relay::start(&format!("{url}\nverify.token_file = '{}'", token.display()));
    let (_, _client) = relay.client(1).await;
    assert!(relay.refuses(2).await);
    assert_eq!(relay.metric("towpath_admitted_total{policy=\"verify_url\"}"), 1);
    assert_eq!((outcome(&relay, "verify_url", "allow"), outcome(&relay, "verify_url", "refuse")), (1, 1));

    let relay = Relay::start(&url);
    assert!(relay.refuses(1).await, "without the token the backend says nothing");
    assert_eq!(outcome(&relay, "verify_url", "client_error"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_local_tailscaled_knows_logs_in_and_another_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("tailscaled.sock");
    tailscaled(&socket, 1);
    let relay = Relay::start(&format!("tailscaled.socket = '{}'", socket.display()));
    let (_, _client) = relay.client(1).await;
    assert!(relay.refuses(2).await);
    assert_eq!(relay.metric("towpath_admitted_total{policy=\"tailscaled\"}"), 1);
    assert_eq!((outcome(&relay, "tailscaled", "allow"), outcome(&relay, "tailscaled", "refuse")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn both_backends_must_allow_where_both_are_required_as_in_derper() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("tailscaled.sock");
    tailscaled(&socket, 1);
    let address = verify_url(allowing(&[1, 2]));
    let both = format!(
        "tailscaled.socket = '{}'\nverify.url = 'http://{address}/'\nrequire = ['tailscaled', 'verify_url']",
        socket.display()
    );
    let relay = Relay::start(&both);
    let (_, _client) = relay.client(1).await;
    assert!(relay.refuses(2).await, "tailscaled does not know it");
    assert_eq!(relay.metric("towpath_admitted_total{policy=\"require\"}"), 1);
    let either = both.lines().take(2).collect::<Vec<_>>().join("\n");
    let relay = Relay::start(&either);
    let (_, _client) = relay.client(2).await;
    assert_eq!(relay.metric("towpath_admitted_total{policy=\"verify_url\"}"), 1);
}
