//! Keying material of a connection (RFC 8446 section 7.5): bytes that both ends derive from the handshake, and no third party.
//!
//! rustls has exporters, and none for connections without buffers. It hands the secret that they start from to the key log of
//! its configuration, in the call in which it derives that secret. [`ExporterLog`] is a key log that keeps this one secret, for
//! the connection that runs on its thread at that moment, and asks for no other. What follows is two expansions by the hash of
//! the cipher suite, with rustls' own HKDF.
//!
//! TLS 1.2 has no such secret. Its exporter (RFC 5705) needs the master secret and both randoms, which rustls does not give.

use std::cell::Cell;

use rustls::crypto::tls13::OkmBlock;
use rustls::{CommonState, KeyLog, SupportedCipherSuite, Tls13CipherSuite};

/// The name of the secret in the format of key logs.
const EXPORTER_SECRET: &str = "EXPORTER_SECRET";
/// The longest label: its length is a byte, and counts the prefix.
const MAX_LABEL: usize = 255 - PREFIX.len();
const PREFIX: &[u8] = b"tls13 ";

thread_local! {
    /// The secret that rustls has logged on this thread and no connection has taken.
    static LOGGED: Cell<Option<Box<OkmBlock>>> = const { Cell::new(None) };
}

/// The key log by which a connection has an exporter: the `key_log` of a configuration. Nothing is written anywhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExporterLog;

impl KeyLog for ExporterLog {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        if label == EXPORTER_SECRET {
            LOGGED.set(Some(Box::new(OkmBlock::new(secret))));
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == EXPORTER_SECRET
    }
}

/// The secret from which the keying material of a connection is derived. Wiped when it is dropped.
pub(crate) struct ExporterSecret(Box<OkmBlock>);

impl ExporterSecret {
    /// Runs `step` of a handshake, and returns besides the secret that it derived, if it did and the configuration has an
    /// [`ExporterLog`].
    pub(crate) fn of<T>(step: impl FnOnce() -> T) -> (T, Option<Self>) {
        // One that was left by a connection elsewhere on this thread.
        LOGGED.take();
        (step(), LOGGED.take().map(Self))
    }

    /// Fills `out` with the keying material for `label` and no context. Returns `None` unless `state` is of TLS 1.3, and
    /// for a label or a length that HKDF does not have.
    pub(crate) fn export(&self, state: &CommonState, label: &[u8], out: &mut [u8]) -> Option<()> {
        let Some(SupportedCipherSuite::Tls13(suite)) = state.negotiated_cipher_suite() else { return None };
        let nothing = suite.common.hash_provider.hash(&[]);
        let mut derived = [0; OkmBlock::MAX_LEN];
        let derived = derived.get_mut(..suite.common.hash_provider.output_len())?;
        expand(suite, &self.0, label, nothing.as_ref(), derived)?;
        // The copy in `derived` is of this label alone, and says nothing of the secret.
        expand(suite, &OkmBlock::new(derived), b"exporter", nothing.as_ref(), out)
    }
}

/// HKDF-Expand-Label of RFC 8446 section 7.1.
fn expand(
    suite: &Tls13CipherSuite,
    secret: &OkmBlock,
    label: &[u8],
    context: &[u8],
    out: &mut [u8],
) -> Option<()> {
    if label.len() > MAX_LABEL {
        return None;
    }
    let len = u16::try_from(out.len()).ok()?.to_be_bytes();
    let label_len = [(PREFIX.len() + label.len()) as u8];
    let context_len = [u8::try_from(context.len()).ok()?];
    let info = [&len[..], &label_len, PREFIX, label, &context_len, context];
    suite.hkdf_provider.expander_for_okm(secret).expand_slice(&info, out).ok()
}
