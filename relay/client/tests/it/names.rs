//! Certificates for another name than the one that is dialled.

use std::sync::Arc;

use rustls::RootCertStore;
use towpath_relay_client::{DialError, SetupError, TlsFailureKind, TlsVersions, Trust};

use crate::support::{Identity, NAME, TlsStream, client_key, dialer, echo, log_in, relay_key, tls_relay};

const OTHER: &str = "other.test";
const BOTH: TlsVersions = TlsVersions::Both;

async fn serve(mut stream: TlsStream) {
    let request = log_in(&mut stream, &[]).await;
    assert!(request.contains(&format!("\r\nHost: {NAME}\r\n")), "{request}");
    echo(&mut stream).await;
}

/// The two ways of trust that look at names.
fn trusts(identity: &Identity) -> [Trust; 2] {
    let mut roots = RootCertStore::empty();
    roots.add(identity.chain[0].clone()).unwrap();
    [identity.pin(), Trust::Roots(Arc::new(roots))]
}

#[tokio::test]
async fn a_certificate_for_the_expected_name_is_accepted_while_tls_asks_for_the_host() {
    let identity = Identity::new(OTHER, |_| {}).with_meta(relay_key().public());
    for trust in trusts(&identity) {
        // The relay shows its certificate to clients that ask for `NAME`.
        let address = tls_relay(&identity, serve).await;
        let dialer = dialer(address, &trust, BOTH).with_certificate_name(OTHER).unwrap();
        let client = dialer.connect(&client_key()).await.unwrap();
        assert!(client.fast_start());
    }
}

#[tokio::test]
async fn a_certificate_for_the_host_is_refused_where_another_name_is_expected() {
    let identity = Identity::for_test();
    for trust in trusts(&identity) {
        let address = tls_relay(&identity, serve).await;
        let dialer = dialer(address, &trust, BOTH).with_certificate_name(OTHER).unwrap();
        let error = dialer.connect(&client_key()).await.unwrap_err();
        let DialError::Tls(failure) = &error else { panic!("{error}") };
        assert_eq!(failure.kind(), &TlsFailureKind::OtherName(NAME.into()));
    }
}

#[tokio::test]
async fn what_is_no_name_is_refused() {
    let address = ([127, 0, 0, 1], 1).into();
    let error = dialer(address, &Trust::Anyone, BOTH).with_certificate_name("not a name").unwrap_err();
    assert!(matches!(error, SetupError::ServerName(name) if name == "not a name"));
}
