//! The cipher of records: aws-lc's, but ring's AES-GCM on CPUs where that is faster.
//!
//! aws-lc uses VAES together with AVX-512 only, and without AVX-512 falls back to AES-NI. ring uses VAES with AVX2, which
//! takes about half the time with AES-128. So AES-GCM is ring's on a CPU that has VAES and not AVX-512, such as Zen 3 and
//! Intel's client CPUs since the 12th generation. ChaCha20-Poly1305 is always aws-lc's. Both seal to the same bytes.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, UnboundKey};

use super::error::RecordError;
use crate::error::TlsError;
use crate::limits::RECORD_HEADER;
use suite::{NONCE_LEN, Suite, TAG_LEN};

pub(super) mod suite;
#[cfg(target_arch = "x86_64")]
mod vaes;

/// A nonce, which is used once: sealing and opening consume it.
pub(super) struct Nonce([u8; NONCE_LEN]);

impl Nonce {
    /// A nonce of these bytes, which no other record under the same key has.
    pub(super) const fn new(bytes: [u8; NONCE_LEN]) -> Self {
        Self(bytes)
    }
}

/// A key of one direction, wiped when it is dropped.
pub(super) enum Aead {
    AwsLc(LessSafeKey),
    #[cfg(target_arch = "x86_64")]
    Ring(vaes::WipedKey),
}

impl Aead {
    /// A key for the library that is faster on this CPU.
    pub(super) fn new(suite: Suite, key: &[u8]) -> Result<Self, TlsError> {
        #[cfg(target_arch = "x86_64")]
        if let Some(algorithm) = vaes::algorithm(suite)
            && vaes::is_faster(vaes::Cpu::detected())
        {
            return Ok(Self::Ring(vaes::WipedKey::new(algorithm, key)?));
        }
        Self::aws_lc(suite, key)
    }

    fn aws_lc(suite: Suite, key: &[u8]) -> Result<Self, TlsError> {
        let algorithm = match suite {
            Suite::Aes128Gcm => &AES_128_GCM,
            Suite::Aes256Gcm => &AES_256_GCM,
            Suite::Chacha20Poly1305 => &CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, key).map_err(|_| TlsError::Unusable)?;
        Ok(Self::AwsLc(LessSafeKey::new(key)))
    }

    /// Seals the body of a record where it lies. Its last [`TAG_LEN`] bytes take the tag.
    pub(super) fn seal(
        &self,
        Nonce(nonce): Nonce,
        header: &[u8; RECORD_HEADER],
        body: &mut [u8],
    ) -> Result<(), TlsError> {
        let (inner, tag) = body.split_last_chunk_mut::<TAG_LEN>().ok_or(TlsError::Unusable)?;
        match self {
            Self::AwsLc(key) => {
                let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(nonce);
                let made = key.seal_in_place_separate_tag(nonce, Aad::from(header), inner);
                tag.copy_from_slice(made.map_err(|_| TlsError::Unusable)?.as_ref());
                Ok(())
            }
            #[cfg(target_arch = "x86_64")]
            Self::Ring(key) => key.seal(nonce, header, inner, tag),
        }
    }

    /// Opens the body of a record where it lies, and returns it without its tag.
    pub(super) fn open<'a>(
        &self,
        Nonce(nonce): Nonce,
        header: &[u8; RECORD_HEADER],
        body: &'a mut [u8],
    ) -> Result<&'a [u8], RecordError> {
        match self {
            Self::AwsLc(key) => {
                let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(nonce);
                let inner = key.open_in_place(nonce, Aad::from(header), body);
                inner.map(|inner| &*inner).map_err(|_| RecordError::BadRecordMac)
            }
            #[cfg(target_arch = "x86_64")]
            Self::Ring(key) => key.open(nonce, header, body),
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
