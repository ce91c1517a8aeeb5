//! The peer: records by RFC 8446 section 5, key updates by section 7.2.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use aws_lc_rs::hkdf::{self, HKDF_SHA256, HKDF_SHA384, KeyType, Prk};
use rustls::CipherSuite;

pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const APPLICATION_DATA: u8 = 23;
pub(super) const KEY_UPDATE: u8 = 24;

const HEADER_LEN: usize = 5;
pub(super) const TAG_LEN: usize = 16;

/// The other side of a connection.
pub(super) struct Peer {
    pub(super) tx: Direction,
    pub(super) rx: Direction,
}

/// One direction: the traffic secret, the key and IV of it, and the number of the next record.
pub(super) struct Direction {
    suite: Suite,
    secret: Vec<u8>,
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
}

#[derive(Clone, Copy)]
struct Suite {
    aead: &'static Algorithm,
    hash: hkdf::Algorithm,
    hash_len: usize,
}

impl Suite {
    fn of(suite: CipherSuite) -> Self {
        match suite {
            CipherSuite::TLS13_AES_128_GCM_SHA256 => {
                Self { aead: &AES_128_GCM, hash: HKDF_SHA256, hash_len: 32 }
            }
            CipherSuite::TLS13_AES_256_GCM_SHA384 => {
                Self { aead: &AES_256_GCM, hash: HKDF_SHA384, hash_len: 48 }
            }
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => {
                Self { aead: &CHACHA20_POLY1305, hash: HKDF_SHA256, hash_len: 32 }
            }
            other => panic!("{other:?} was not offered"),
        }
    }

    /// HKDF-Expand-Label with an empty context (section 7.1).
    fn expand(self, secret: &[u8], label: &str, len: usize) -> Vec<u8> {
        struct Len(usize);
        impl KeyType for Len {
            fn len(&self) -> usize {
                self.0
            }
        }
        let length = u16::try_from(len).expect("a short key").to_be_bytes();
        let label = [b"tls13 ", label.as_bytes()].concat();
        let label_len = [u8::try_from(label.len()).expect("a short label")];
        let info = [&length[..], &label_len, &label, &[0]];
        let mut out = vec![0; len];
        Prk::new_less_safe(self.hash, secret)
            .expand(&info, Len(len))
            .and_then(|expanded| expanded.fill(&mut out))
            .expect("less than 255 blocks");
        out
    }
}

impl Direction {
    pub(super) fn new(suite: CipherSuite, secret: &[u8]) -> Self {
        Self::derive(Suite::of(suite), secret.to_vec())
    }

    fn derive(suite: Suite, secret: Vec<u8>) -> Self {
        let key = suite.expand(&secret, "key", suite.aead.key_len());
        let key = UnboundKey::new(suite.aead, &key).expect("a key of this length");
        let iv = suite.expand(&secret, "iv", NONCE_LEN).try_into().expect("an IV of this length");
        Self { suite, secret, key: LessSafeKey::new(key), iv, sequence: 0 }
    }

    /// Changes to the next generation of keys.
    pub(super) fn update(&mut self) {
        let next = self.suite.expand(&self.secret, "traffic upd", self.suite.hash_len);
        *self = Self::derive(self.suite, next);
    }

    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, number) in nonce[NONCE_LEN - 8..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    /// A record with any content type, any content, and padding.
    pub(super) fn seal(&mut self, kind: u8, content: &[u8], padding: usize) -> Vec<u8> {
        let mut body = [content, &[kind], &vec![0; padding]].concat();
        let [high, low] = ((body.len() + TAG_LEN) as u16).to_be_bytes();
        let header = [APPLICATION_DATA, 3, 3, high, low];
        let nonce = self.next_nonce();
        self.key.seal_in_place_append_tag(nonce, Aad::from(header), &mut body).expect("a record");
        [&header[..], &body].concat()
    }

    /// Opens the first record of `records` and takes it off: content type and content.
    pub(super) fn open(&mut self, records: &mut &[u8]) -> (u8, Vec<u8>) {
        let (header, rest) = records.split_first_chunk::<HEADER_LEN>().expect("a header");
        let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let (body, rest) = rest.split_at(len);
        *records = rest;
        let mut body = body.to_vec();
        let nonce = self.next_nonce();
        let inner = self.key.open_in_place(nonce, Aad::from(*header), &mut body).expect("a record of ours");
        let end = inner.iter().rposition(|&byte| byte != 0).expect("a content type");
        (inner[end], inner[..end].to_vec())
    }
}
