//! Real sockets: those that are dead, TLS that cannot be trusted, and a daemon that is started anew.

use std::fs;
use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream, UnixListener};

use super::*;
use crate::config::TailscaledSettings;

fn metrics() -> BackendMetrics {
    BackendMetrics::register(&Registry::new()).expect("new names")
}

/// The policy of a URL with the certificates in `ca_file`, as the relay sets it up.
fn policy(url: &str, ca_file: Option<PathBuf>) -> VerifyUrl {
    let settings = VerifySettings { ca_file, ..settings(url) };
    let (mut warnings, mut faults) = (Vec::new(), Vec::new());
    let setup = VerifySetup::read(&settings, &|_| true, &mut warnings, &mut faults);
    assert!(faults.is_empty() && warnings.is_empty(), "{faults:?} {warnings:?}");
    VerifyUrl::new(setup.expect("a setup"), &metrics())
}

/// Serves each connection by `serve` on a port of loopback, and returns the port.
async fn listen<F, Fut>(serve: F) -> u16
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket));
        }
    });
    port
}

async fn answer_all(mut stream: impl AsyncRead + tokio::io::AsyncWrite + Unpin) {
    while read_request(&mut stream).await.is_some() {
        let _ = stream.write_all(http("200 OK", ALLOW).as_bytes()).await;
        let _ = stream.flush().await;
    }
}

/// A backend over TLS for `name`: its port, and the file of its certificate.
async fn listen_with_tls(name: &str, dir: &TempDir) -> (u16, PathBuf) {
    let key = KeyPair::generate().expect("a key");
    let certificate =
        CertificateParams::new([name.to_owned()]).expect("a name").self_signed(&key).expect("it is signed");
    let file = dir.path().join(format!("{name}.pem"));
    fs::write(&file, certificate.pem()).expect("a file");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        )
        .expect("a pair");
    let config = Arc::new(config);
    let port = listen(move |socket| {
        let config = config.clone();
        async move {
            if let Ok(stream) = towpath_tls::Stream::<_, towpath_tls::Server>::accept(socket, config).await {
                answer_all(stream).await;
            }
        }
    });
    (port.await, file)
}

#[tokio::test]
async fn a_backend_is_asked_over_tcp_by_address_and_by_name() {
    let port = listen(answer_all).await;
    for host in ["127.0.0.1", "localhost"] {
        let policy = policy(&format!("http://{host}:{port}/verify"), None);
        assert_eq!(policy.told(question(1)).await, Told::Allow, "{host}");
    }
}

#[tokio::test]
async fn a_dead_port_and_a_reset_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let dead = policy(&format!("http://127.0.0.1:{port}/"), None);
    assert_eq!(dead.told(question(1)).await, Told::CannotTell(BackendFailure::Connect));

    let port = listen(|mut socket| async move {
        read_request(&mut socket).await;
        // Closes without the usual exchange.
        let _ = socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO));
    })
    .await;
    let resetting = policy(&format!("http://127.0.0.1:{port}/"), None);
    assert_eq!(resetting.told(question(1)).await, Told::CannotTell(BackendFailure::Broken));
}

#[tokio::test]
async fn a_certificate_counts_for_its_name_and_its_roots() {
    let dir = tempfile::tempdir().expect("a directory");
    let (port, roots) = listen_with_tls("localhost", &dir).await;
    let (other_port, other_roots) = listen_with_tls("other.example", &dir).await;
    let tls = Told::CannotTell(BackendFailure::Tls);
    for (what, port, roots, expected) in [
        ("its root", port, &roots, Told::Allow),
        ("another root", port, &other_roots, tls),
        ("another name", other_port, &other_roots, tls),
    ] {
        let policy = policy(&format!("https://localhost:{port}/verify"), Some(roots.clone()));
        for number in 0..2 {
            assert_eq!(policy.told(question(number)).await, expected, "{what}");
        }
    }
    let plain = listen(|mut socket| async move {
        let _ = socket.read(&mut [0; 512]).await;
        let _ = socket.write_all(http("400 Bad Request", "").as_bytes()).await;
    })
    .await;
    let policy = policy(&format!("https://localhost:{plain}/verify"), Some(roots));
    assert_eq!(policy.told(question(1)).await, tls, "HTTP without TLS");
}

#[tokio::test]
async fn the_socket_of_a_daemon_may_go_and_come_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("tailscaled.sock");
    let policy = Tailscaled::new(&TailscaledSettings { socket: socket.clone() }, &metrics());
    assert_eq!(
        policy.told(question(1)).await,
        Told::CannotTell(BackendFailure::Connect),
        "it has not started"
    );
    for start in 0..3 {
        let listener = UnixListener::bind(&socket).expect("a socket");
        let daemon = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    while read_request(&mut stream).await.is_some() {
                        let answer = "HTTP/1.1 200 OK\r\nTailscale-Version: 1\r\nContent-Length: 2\r\n\r\n{}";
                        let _ = stream.write_all(answer.as_bytes()).await;
                    }
                });
            }
        });
        for number in 0..3 {
            assert_eq!(policy.told(question(number)).await, Told::Allow, "start {start}");
        }
        daemon.abort();
        let _ = daemon.await;
        fs::remove_file(&socket).expect("a socket");
    }
}
