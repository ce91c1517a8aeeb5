//! AES-GCM of ring, which uses VAES with AVX2.

use std::mem;

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroize;

use super::suite::{NONCE_LEN, Suite, TAG_LEN};
use crate::error::TlsError;
use crate::limits::RECORD_HEADER;
use crate::own::error::RecordError;

/// What a CPU has of that which ring's and aws-lc's fastest code needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cpu {
    /// VAES and VPCLMULQDQ.
    pub(super) vaes: bool,
    pub(super) avx2: bool,
    /// All of AVX-512 that aws-lc asks for.
    pub(super) avx512: bool,
}

impl Cpu {
    /// This CPU. The standard library asks it once for the process.
    pub(super) fn detected() -> Self {
        Self {
            vaes: is_x86_feature_detected!("vaes") && is_x86_feature_detected!("vpclmulqdq"),
            avx2: is_x86_feature_detected!("avx2"),
            avx512: is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl"),
        }
    }
}

/// Whether a CPU has what ring's code for VAES needs, and lacks what aws-lc's needs.
pub(super) const fn is_faster(cpu: Cpu) -> bool {
    cpu.vaes && cpu.avx2 && !cpu.avx512
}

/// The algorithm of ring for a suite that is faster with VAES.
pub(super) const fn algorithm(suite: Suite) -> Option<&'static Algorithm> {
    match suite {
        Suite::Aes128Gcm => Some(&AES_128_GCM),
        Suite::Aes256Gcm => Some(&AES_256_GCM),
        Suite::Chacha20Poly1305 => None,
    }
}

/// A key of ring that is wiped when it is dropped, which ring's own type does not do. It is one key at one place on the
/// heap, because moving it would leave copies, and smaller there than the key of aws-lc.
pub(in crate::own) struct WipedKey(Box<[LessSafeKey]>);

impl WipedKey {
    pub(super) fn new(algorithm: &'static Algorithm, key: &[u8]) -> Result<Self, TlsError> {
        let key = UnboundKey::new(algorithm, key).map_err(|_| TlsError::Unusable)?;
        Ok(Self(Box::new([LessSafeKey::new(key)])))
    }

    fn key(&self) -> Option<&LessSafeKey> {
        self.0.first()
    }

    /// Seals `inner` where it lies.
    pub(super) fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        header: &[u8; RECORD_HEADER],
        inner: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), TlsError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let key = self.key().ok_or(TlsError::Unusable)?;
        let made = key.seal_in_place_separate_tag(nonce, Aad::from(header), inner);
        tag.copy_from_slice(made.map_err(|_| TlsError::Unusable)?.as_ref());
        Ok(())
    }

    /// Opens `body` where it lies, and returns it without its tag.
    pub(super) fn open<'a>(
        &self,
        nonce: [u8; NONCE_LEN],
        header: &[u8; RECORD_HEADER],
        body: &'a mut [u8],
    ) -> Result<&'a [u8], RecordError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let key = self.key().ok_or(RecordError::BadRecordMac)?;
        let inner = key.open_in_place(nonce, Aad::from(header), body);
        inner.map(|inner| &*inner).map_err(|_| RecordError::BadRecordMac)
    }
}

impl Drop for WipedKey {
    /// Wipes the memory of the key as that of a vector which holds nothing any more: ring gives no access to the bytes of a
    /// key. Assigning another key would not do, because what lies between its fields comes from the stack, where parts of
    /// this key may still be.
    fn drop(&mut self) {
        let mut emptied = mem::take(&mut self.0).into_vec();
        emptied.clear();
        emptied.spare_capacity_mut().zeroize();
    }
}

#[cfg(test)]
impl WipedKey {
    /// Where in memory the key is, and how long it is.
    pub(super) fn place(&self) -> (u64, usize) {
        (self.0.as_ptr().addr() as u64, size_of_val(&*self.0))
    }
}
