//! Logins that are bound to their TLS connection, and come on another one: read and repeated, or through a proxy that ends TLS.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use towpath_relay_client::{Client, DialError, Dialer, LoginError, TlsVersions, Trust};
use towpath_relay_proto::login::BINDING_LABEL;
use towpath_tls::ExporterLog;
use towpath_wire::derp::binding::Binding;
use towpath_wire::derp::info::ClientInfo;
use towpath_wire::key::{NodePrivate, NodePublic};
use tungstenite::Message;

use crate::common::login::{GREETING, UPGRADE, response, upgraded};
use crate::common::tls_proxy::{Behind, TlsProxy};
use crate::common::websocket::{self, PLAIN};
use crate::common::{MeshFiles, Relay, trusting_anyone};

const TOLD: &str = "login refused: bound_elsewhere: the login is bound to another TLS connection than it came on: something \
                    between client and relay ends TLS, or the login is repeated";
const SERVER_INFO: u8 = 3;
const HEALTH: u8 = 0x14;

/// The login of a client with a key made from `seed`, bound to the connection with this keying material.
fn login(relay: &NodePublic, material: [u8; 32], seed: u8) -> Vec<u8> {
    let info =
        ClientInfo { version: 2, binding: Some(Binding::from_bytes(material)), ..ClientInfo::default() };
    let mut frame = Vec::new();
    info.seal(&NodePrivate::from_random([seed; 32]), relay, &[3; 24], &mut frame);
    frame
}

/// The type and the payload of the next frame.
async fn frame(stream: &mut (impl AsyncRead + Unpin)) -> (u8, Vec<u8>) {
    let kind = stream.read_u8().await.expect("a frame");
    let len = stream.read_u32().await.expect("a frame");
    let mut payload = vec![0; len as usize];
    stream.read_exact(&mut payload).await.expect("a frame");
    (kind, payload)
}

/// The client is told why, and the connection ends in order.
async fn expect_refusal(mut stream: impl AsyncRead + Unpin) {
    assert_eq!(frame(&mut stream).await, (HEALTH, TOLD.as_bytes().to_vec()));
    assert_eq!(stream.read(&mut [0; 1]).await.expect("an end in order"), 0);
}

fn refused(relay: &Relay) -> u64 {
    relay.metric("towpath_refused_total{reason=\"bound_elsewhere\"}")
}

#[tokio::test]
async fn a_login_that_is_read_and_repeated_on_another_connection_is_refused() {
    let relay = Relay::start("");
    let mut config = trusting_anyone();
    config.key_log = Arc::new(ExporterLog);
    let config = Arc::new(config);
    let (mut honest, key) = upgraded(relay.tls(), &config).await;
    let material = honest.exporter(BINDING_LABEL).expect("TLS 1.3");
    let login = login(&key, material, 9);

    let (mut attacker, _) = upgraded(relay.tls(), &config).await;
    attacker.write_all(&login).await.expect("a login");
    attacker.flush().await.expect("a login");
    expect_refusal(attacker).await;
    relay.wait("it is counted", |relay| refused(relay) == 1);
    assert_eq!(relay.metric("derp_current_connections"), 0);

    honest.write_all(&login).await.expect("a login");
    honest.flush().await.expect("a login");
    assert_eq!(frame(&mut honest).await.0, SERVER_INFO, "the login itself is good");
    assert_eq!(refused(&relay), 1);
}

/// In TLS 1.2 there is nothing to be bound to.
#[tokio::test]
async fn a_bound_login_is_refused_in_tls_1_2_and_without_tls() {
    let relay = Relay::start(PLAIN);
    let config = Arc::new(crate::common::trusting_anyone_over(&[&rustls::version::TLS12]));
    let (mut old, key) = upgraded(relay.tls(), &config).await;
    for material in [[7; 32], [0; 32]] {
        let address = relay.addresses.http.expect("a plain listener");
        let mut plain = tokio::net::TcpStream::connect(address).await.expect("the relay accepts");
        plain.write_all(UPGRADE).await.expect("a request");
        response(&mut plain, GREETING).await.expect("an answer");
        plain.write_all(&login(&key, material, 9)).await.expect("a login");
        expect_refusal(plain).await;
    }
    old.write_all(&login(&key, [7; 32], 9)).await.expect("a login");
    old.flush().await.expect("a login");
    expect_refusal(old).await;
    relay.wait("each is counted", |relay| refused(relay) == 3);
}

#[tokio::test]
async fn a_refusal_in_websocket_is_told_and_closes_with_its_reason() {
    let relay = Relay::start(PLAIN);
    let mut client = websocket::Client::connect(&relay);
    let login = login(&client.relay, [7; 32], 9);
    client.send(Message::binary(login));
    assert_eq!(client.frame(), (HEALTH, TOLD.as_bytes().to_vec()));
    let Ok(Message::Close(Some(close))) = client.socket.read() else { panic!("a close") };
    assert_eq!((u16::from(close.code), close.reason.as_str()), (1008, "bound_elsewhere"));
    drop(client);
    relay.wait("it is counted", |relay| refused(relay) == 1);
}

async fn connect(
    proxy: TlsProxy,
    versions: TlsVersions,
    change: fn(Dialer) -> Dialer,
) -> Result<Client, DialError> {
    let dialer = Dialer::tls("localhost", proxy.address.port(), &Trust::Pin(proxy.pin), versions);
    let dialer = change(dialer.expect("a dialer").at(proxy.address));
    dialer.connect(&NodePrivate::from_random([9; 32])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_says_that_tls_ends_before_the_relay_and_logs_in_where_it_is_told_so() {
    let relay = Relay::start(PLAIN);
    let plain = relay.addresses.http.expect("a plain listener");
    let mut told = 0;
    for (to, behind) in [(plain, Behind::Plain), (relay.tls(), Behind::Tls)] {
        for versions in [rustls::ALL_VERSIONS, &[&rustls::version::TLS12]] {
            let proxy = TlsProxy::start(to, behind, versions).await;
            let error = connect(proxy, TlsVersions::Both, |dialer| dialer).await.expect_err("refused");
            assert!(matches!(error, DialError::Login(LoginError::TlsEnded)), "{behind:?}: {error:?}");
            told += 1;
            relay.wait("it is counted", |relay| refused(relay) == told);
            let client = connect(proxy, TlsVersions::Both, Dialer::proxied).await.expect("a login");
            client.close().await.expect("closed");
        }
    }
    assert_eq!(refused(&relay), told);
}

#[test]
fn a_link_through_a_proxy_that_ends_tls_needs_the_word_for_it() {
    let (own, files) = (MeshFiles::new(1), MeshFiles::new(2));
    let relay = Relay::start(&format!("{}\n{PLAIN}", files.settings(&[])));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let plain = relay.addresses.http.expect("a plain listener");
    let proxy = runtime.block_on(TlsProxy::start(plain, Behind::Plain, rustls::ALL_VERSIONS));
    let (address, key) = (proxy.address, files.node_key().public());
    let entry = format!("localhost:{} {key} {} {address}", address.port(), proxy.pin);
    let dialling = Relay::start(&own.settings(std::slice::from_ref(&entry)));
    dialling
        .wait("dialling fails", |relay| relay.metric("towpath_mesh_dial_failures_total{step=\"login\"}") > 0);
    assert_eq!(dialling.metric("towpath_mesh_links"), 0);
    relay.wait("it is counted", |relay| refused(relay) > 0);
    drop(dialling);
    let dialling = Relay::start(&own.settings(&[format!("{entry} proxied")]));
    dialling.wait("the link is up", |relay| relay.metric("towpath_mesh_links") == 1);
}
