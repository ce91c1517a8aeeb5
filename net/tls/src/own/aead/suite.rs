//! The AEADs of TLS 1.3, and what they have in common.

/// The length of a nonce in every suite.
pub(in crate::own) const NONCE_LEN: usize = 12;
/// The length of a tag in every suite.
pub(in crate::own) const TAG_LEN: usize = 16;

/// The AEADs of TLS 1.3 (appendix B.4) that rustls negotiates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::own) enum Suite {
    Aes128Gcm,
    Aes256Gcm,
    Chacha20Poly1305,
}
