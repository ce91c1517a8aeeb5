//! What an operator can do about a link that cannot be dialled.

use towpath_relay_client::{
    DialError, DialStep, LoginError, NotTrusted, TlsFailure, TlsFailureKind, UpgradeError,
};
use towpath_wire::host::bracketed;

use crate::config::MeshPeer;

/// Returns what to do about a failure to dial `peer`, if there is something besides waiting for the peer.
pub(super) fn remedy(error: &DialError, peer: &MeshPeer) -> Option<String> {
    match error {
        DialError::Tls(failure)
        | DialError::Upgrade(UpgradeError::Tls(failure))
        | DialError::Login(LoginError::Tls(failure)) => of_tls(failure, peer),
        DialError::Upgrade(UpgradeError::Status(_) | UpgradeError::NotHttp)
        | DialError::Login(LoginError::OutOfOrder | LoginError::Stream(_)) => {
            Some("check host and port in mesh.peers: what answers there is no relay".into())
        }
        DialError::Login(LoginError::OtherRelay { .. } | LoginError::OtherKey { .. }) => Some(
            "if that relay has a new node key, put the key into mesh.peers; else another host answers in its place".into(),
        ),
        DialError::Login(LoginError::TlsEnded) => Some(
            "if a proxy of yours in front of that relay ends TLS, add the word proxied to that relay in mesh.peers; else something \
             on the way reads along, and the link stays down"
                .into(),
        ),
        DialError::Login(LoginError::RefusedBecause(_)) => {
            Some("look at the log of that relay, which must admit this one".into())
        }
        DialError::Resolve { .. } => {
            Some("check the host's name in mesh.peers, or add an IP address and port to dial instead".into())
        }
        DialError::Timeout(DialStep::Tls) => Some(
            "check the port in mesh.peers, and whether something on the way lets connections begin and no TLS pass".into(),
        ),
        // No link goes through a proxy.
        DialError::Tcp { .. }
        | DialError::Proxy { .. }
        | DialError::Upgrade(_)
        | DialError::Login(_)
        | DialError::Timeout(_) => None,
    }
}

fn of_tls(failure: &TlsFailure, peer: &MeshPeer) -> Option<String> {
    let host = format!("{}:{}", bracketed(&peer.host), peer.port);
    let pin = format!(
        "sha256-raw:…, as `towpath-relay key {host}` prints it (compare it with the certificate of that relay)"
    );
    Some(match failure.kind() {
        TlsFailureKind::AuthorityAsServer => {
            format!("pin it in mesh.peers with {pin}, or make one without CA:TRUE for that relay")
        }
        TlsFailureKind::UnknownIssuer => {
            format!("name a file with its root in mesh.ca_file, or pin a self-signed one in mesh.peers with {pin}")
        }
        TlsFailureKind::Expired => "renew it on that relay, and check this host's clock".into(),
        TlsFailureKind::NotYetValid => "check the clocks of both hosts".into(),
        TlsFailureKind::OtherName(_) | TlsFailureKind::NoName => format!(
            "name that relay in mesh.peers by a name of its certificate, with an IP address and port to dial if need be, or \
             give it a certificate for {}",
            peer.host
        ),
        TlsFailureKind::NotPinned(NotTrusted::OtherCertificate(_)) => {
            "if that relay has a new certificate, put its pin into mesh.peers; else something on the way answers in its place"
                .into()
        }
        TlsFailureKind::NotPinned(NotTrusted::MoreThanOne(_)) => {
            "take the pin out of mesh.peers, since that certificate has an issuer: name its root in mesh.ca_file unless it is \
             one of the system's"
                .into()
        }
        TlsFailureKind::Purpose | TlsFailureKind::Signature | TlsFailureKind::Certificate(_) => {
            format!("give that relay another certificate, or pin this one in mesh.peers with {pin}")
        }
        TlsFailureKind::UnknownName(_) => format!(
            "name that relay in mesh.peers by the name of its certificate (derper: its -hostname), which {} is not, with an IP \
             address and port to dial if need be",
            peer.host
        ),
        TlsFailureKind::PlainHttp => {
            "links need TLS: name the port of its TLS listener in mesh.peers (derper speaks plain HTTP on ports other than 443, \
             unless it has -certmode manual)"
                .into()
        }
        TlsFailureKind::NotTls
        | TlsFailureKind::NoCertificate
        | TlsFailureKind::ClientCertificate(_)
        | TlsFailureKind::NothingInCommon => "check host and port in mesh.peers: what answers there is no relay".into(),
        TlsFailureKind::Closed => {
            "check host and port in mesh.peers, and whether a firewall or proxy in front of that relay refuses this host".into()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use towpath_tls::HandshakeError;
    use towpath_wire::key::NodePrivate;
    use towpath_wire::pin::CertificatePin;

    use super::*;

    fn peer() -> MeshPeer {
        MeshPeer {
            host: "2001:db8::1".into(),
            port: 8443,
            public_key: NodePrivate::from_random([1; 32]).public(),
            pin: None,
            address: None,
            proxied: false,
        }
    }

    fn certificate(error: rustls::CertificateError) -> DialError {
        DialError::Tls(HandshakeError::Tls(rustls::Error::from(error).into()).into())
    }

    #[test]
    fn a_link_that_fails_says_what_to_do_in_settings_of_this_relay() {
        let other = NotTrusted::OtherCertificate(CertificatePin::from_sha256([0; 32]));
        let other = rustls::CertificateError::Other(rustls::OtherError(std::sync::Arc::new(other)));
        let authority = webpki::Error::CaUsedAsEndEntity;
        let authority = rustls::CertificateError::Other(rustls::OtherError(std::sync::Arc::new(authority)));
        for (error, expected) in [
            (certificate(authority), "sha256-raw:…, as `towpath-relay key [2001:db8::1]:8443` prints it"),
            (certificate(rustls::CertificateError::UnknownIssuer), "mesh.ca_file"),
            (certificate(other), "put its pin into mesh.peers"),
            (certificate(rustls::CertificateError::Expired), "renew it on that relay"),
            (DialError::Tls(HandshakeError::PlainHttp.into()), "links need TLS"),
            (DialError::Tls(HandshakeError::NotTls.into()), "no relay"),
            (DialError::Tls(HandshakeError::Io(io::ErrorKind::UnexpectedEof.into()).into()), "firewall"),
            (DialError::Upgrade(UpgradeError::Status(404)), "no relay"),
            (DialError::Timeout(DialStep::Tls), "check the port"),
            (DialError::Login(LoginError::TlsEnded), "add the word proxied"),
            (DialError::Login(LoginError::RefusedBecause("x".into())), "log of that relay"),
        ] {
            let told = remedy(&error, &peer()).unwrap_or_default();
            assert!(told.contains(expected), "{error:?}: {told}");
        }
        assert_eq!(remedy(&DialError::Timeout(DialStep::Tcp), &peer()), None);
    }
}
