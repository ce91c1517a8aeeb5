//! Logins that are bound to their connection, and what a relay says of those that it refuses.

use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use towpath_relay_client::{DialError, Dialer, LoginError, TlsVersions};
use towpath_relay_proto::login::{BINDING_LABEL, BOUND_ELSEWHERE, refusal_text};
use towpath_wire::derp::binding::Binding;
use towpath_wire::derp::frame::ServerFrame;
use towpath_wire::derp::info::ClientInfo;

use crate::support::{
    Identity, Introduced, RATE, TlsStream, client_key, dialer, introduced, relay_key, tcp_relay, tls_relay,
    write,
};

const BOTH: TlsVersions = TlsVersions::Both;

fn meta() -> Identity {
    Identity::for_test().with_meta(relay_key().public())
}

/// What a client says of itself, and the keying material of the relay's end of its connection.
async fn said(
    identity: &Identity,
    versions: TlsVersions,
    change: fn(Dialer) -> Dialer,
) -> (ClientInfo, Option<[u8; 32]>) {
    let (told, heard) = oneshot::channel();
    let address = tls_relay(identity, async move |mut stream: TlsStream| {
        let Introduced { introduction, .. } = introduced(&mut stream).await;
        told.send((introduction.info, stream.exporter(BINDING_LABEL))).expect("it is heard");
    })
    .await;
    let dialler = change(dialer(address, &identity.pin(), versions));
    let error = dialler.connect(&client_key()).await.expect_err("no answer");
    assert!(matches!(error, DialError::Login(_)), "{error}");
    heard.await.expect("a login")
}

#[tokio::test]
async fn a_login_states_the_keying_material_of_its_own_connection() {
    // In a fast start the login goes out before the relay has said a word.
    for identity in [meta(), Identity::for_test()] {
        let (info, material) = said(&identity, BOTH, |dialer| dialer).await;
        let material = material.expect("TLS 1.3");
        assert_eq!(info.binding, Some(Binding::from_bytes(material)));
        let (again, other) = said(&identity, BOTH, |dialer| dialer).await;
        assert!(!again.binding.expect("a binding").is_to(&material) && other != Some(material));
    }
}

#[tokio::test]
async fn a_login_is_unbound_where_the_dialer_says_so() {
    let identity = meta();
    let (info, _) = said(&identity, BOTH, Dialer::proxied).await;
    assert_eq!(info.binding, None);
    let (info, _) = said(&identity, TlsVersions::Only12, |dialer| dialer).await;
    assert_eq!(info.binding, None, "TLS 1.2 alone was asked for");
    let (told, heard) = oneshot::channel();
    let address = tcp_relay(async |mut socket| {
        told.send(introduced(&mut socket).await.introduction.info.binding).expect("it is heard");
    })
    .await;
    let plain = Dialer::plain(&address.ip().to_string(), address.port());
    plain.connect(&client_key()).await.expect_err("no answer");
    assert_eq!(heard.await, Ok(None));
}

/// Whatever has agreed to TLS 1.2 with a client that offers 1.3 is not the relay.
#[tokio::test]
async fn a_login_over_tls_1_2_that_was_not_asked_for_is_bound_to_nowhere() {
    let identity = Identity::for_test().with_only_tls_1_2();
    let (info, material) = said(&identity, BOTH, |dialer| dialer).await;
    assert_eq!((info.binding, material), (Some(Binding::NOWHERE), None));
}

#[tokio::test]
async fn a_token_goes_with_the_login() {
    let with_token = |dialer: Dialer| dialer.with_token("v4.public.x".parse().expect("a token"));
    let (info, _) = said(&meta(), BOTH, with_token).await;
    assert_eq!(info.token.expect("a token").as_str(), "v4.public.x");
}

/// What comes of a login that a relay answers with `frames`, and then closes, in order or not.
async fn answered(frames: Vec<ServerFrame<'static>>, in_order: bool) -> Result<(), DialError> {
    let identity = meta();
    let address = tls_relay(&identity, async move |mut stream: TlsStream| {
        let Introduced { introduction, owed: mut answer, .. } = introduced(&mut stream).await;
        let sealed = RATE.seal(&introduction.shared, &[9; 24]);
        for frame in frames {
            match frame {
                ServerFrame::ServerInfo { .. } => {
                    ServerFrame::ServerInfo { nonce: &[9; 24], sealed: &sealed }.encode(&mut answer);
                }
                frame => frame.encode(&mut answer),
            }
        }
        write(&mut stream, &answer).await;
        if in_order {
            stream.shutdown().await.expect("closed");
        }
    })
    .await;
    dialer(address, &identity.pin(), BOTH).connect(&client_key()).await.map(|client| {
        assert_eq!(client.server_info(), RATE);
    })
}

#[tokio::test]
async fn the_reason_of_a_refusal_is_told_however_the_relay_closes() {
    let bound: &str = refusal_text(BOUND_ELSEWHERE, "go away").leak();
    let other: &str = refusal_text("not_admitted", "no policy admits this key").leak();
    let long: &str = "\u{202e}x".repeat(200).leak();
    let info = || ServerFrame::ServerInfo { nonce: &[0; 24], sealed: &[] };
    for in_order in [true, false] {
        let health = |text| answered(vec![ServerFrame::Health(text)], in_order);
        let error = health(bound).await.expect_err("refused");
        assert!(matches!(error, DialError::Login(LoginError::TlsEnded)), "{error:?}");
        let told = async |text| match health(text).await {
            Err(DialError::Login(error @ LoginError::RefusedBecause(_))) => error.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            told(other).await,
            "the relay refuses this client: no policy admits this key (not_admitted)"
        );
        assert_eq!(told("a word").await, "the relay refuses this client: a word");
        let shown = told(long).await;
        assert!(!shown.contains('\u{202e}') && shown.len() < 2_000, "{shown}");
    }
    // Nothing is wrong, and nothing was said.
    let error = answered(vec![ServerFrame::Health("")], true).await.expect_err("closed");
    assert!(matches!(error, DialError::Login(LoginError::Refused)), "{error:?}");
    // A word before the answer is no refusal.
    answered(vec![ServerFrame::Health("a word"), info()], true).await.expect("a login");
    let keep_alive = vec![ServerFrame::Health("a word"), ServerFrame::KeepAlive];
    let error = answered(keep_alive, true).await.expect_err("no answer");
    assert!(matches!(error, DialError::Login(LoginError::OutOfOrder)), "{error:?}");
}
