//! The relay's key in a chain of certificates, which a client reads before the peer is authenticated.

use rustls::pki_types::CertificateDer;
use towpath_relay_client::relay_key;

/// A key that is found stands in the certificate as a meta certificate has it.
pub(crate) fn relay_key_of(input: &[u8]) {
    let certificate = CertificateDer::from(input);
    let Some(key) = relay_key(std::slice::from_ref(&certificate)) else { return };
    let name = format!("derpkey{}", key.to_hex());
    let is_there =
        |window: &[u8]| window[..7] == name.as_bytes()[..7] && window.eq_ignore_ascii_case(name.as_bytes());
    assert!(input.windows(name.len()).any(is_there));
    // The first good one counts.
    let (none, other) = (CertificateDer::from(&[][..]), CertificateDer::from(&input[..input.len() / 2]));
    assert_eq!(relay_key(&[none, certificate.clone(), other]), Some(key));
}
