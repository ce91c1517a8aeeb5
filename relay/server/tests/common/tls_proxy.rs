//! A proxy that ends TLS in front of a relay, as operators have them, and as an attacker with a trusted certificate is one.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use towpath_relay_client::certificate_pin;
use towpath_wire::pin::CertificatePin;

use super::trusting_anyone;

/// What the proxy speaks to the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behind {
    Plain,
    Tls,
}

/// A running proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TlsProxy {
    pub(crate) address: SocketAddr,
    /// The pin of its certificate, which is for `localhost`.
    pub(crate) pin: CertificatePin,
}

impl TlsProxy {
    /// Starts a proxy for the relay at `relay`, which speaks these versions of TLS to its clients. It ends with the runtime.
    pub(crate) async fn start(
        relay: SocketAddr,
        behind: Behind,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        let pin = certificate_pin(&certificate);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("TLS versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key.serialize_der().into()));
        let config = Arc::new(config.expect("a certificate and its key"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, config.clone(), relay, behind));
            }
        });
        Self { address, pin }
    }
}

async fn serve(client: TcpStream, config: Arc<rustls::ServerConfig>, relay: SocketAddr, behind: Behind) {
    let Ok(client) = towpath_tls::Stream::<_, towpath_tls::Server>::accept(client, config).await else {
        return;
    };
    let relay = TcpStream::connect(relay).await.expect("the relay accepts");
    match behind {
        Behind::Plain => pass(client, relay).await,
        Behind::Tls => {
            let name = ServerName::try_from("localhost").expect("a name");
            let relay = towpath_tls::Stream::<_, towpath_tls::Client>::connect(
                relay,
                Arc::new(trusting_anyone()),
                name,
            );
            pass(client, relay.await.expect("a handshake")).await;
        }
    }
}

async fn pass(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    mut relay: impl AsyncRead + AsyncWrite + Unpin,
) {
    // However either ends: what was copied has arrived.
    let _ = copy_bidirectional(&mut client, &mut relay).await;
}
