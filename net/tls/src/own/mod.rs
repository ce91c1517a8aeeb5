//! TLS 1.3 records of our own, for connections whose handshake rustls has finished.
//!
//! rustls opens and seals with state for both directions in one place, and puts each record into a vector of its own.
//! Here each direction has its state to itself, records are opened where they lie and sealed where they are sent from:
//! no allocation, no lock, and a third less memory. Everything up to the first byte of application data, and every
//! derivation of keys, stays with rustls; this module is RFC 8446 section 5 (records), section 4.6.3 (key updates) and
//! section 6 (alerts), and nothing else. TLS 1.2 stays with rustls as a whole.
//!
//! What it must never get wrong:
//! - a nonce is used once: the sequence number only grows, and a key is replaced long before it could end;
//! - [`Opener::open`] hands out no plaintext whose tag did not verify (aws-lc and ring compare in constant time);
//! - after an error nothing is opened and nothing but the alert is sealed;
//! - a peer cannot cause work without sending data: records without data are limited in a row, and changes of keys by the
//!   records that come between them.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustls::kernel::KernelConnection;
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets};
use zeroize::Zeroizing;

mod aead;
mod error;
mod updates;

pub use self::error::RecordError;
use crate::error::TlsError;
use crate::layer::Opened;
use crate::limits::{MAX_PLAINTEXT, RECORD_HEADER};
use crate::seal::SealBuffer;
use aead::suite::{NONCE_LEN, Suite, TAG_LEN};
use aead::{Aead, Nonce};
use updates::UpdateBucket;

/// Records sealed under one key before it is replaced. RFC 8446 section 5.5 allows 2^24.5 of full size for AES-GCM, and
/// more for ChaCha20-Poly1305; one bound for all is one thing less to get wrong.
const REKEY_AFTER: u64 = if cfg!(test) { 8 } else { 1 << 23 };
/// Records without application data that may come in a row. Honest peers send two or three: tickets, a key update.
const MAX_IDLE_RECORDS: u8 = 32;

/// The most that a record's body may have (section 5.2).
const MAX_BODY: usize = MAX_PLAINTEXT + 256;
/// The version that every record states (section 5.1).
const LEGACY_VERSION: [u8; 2] = [3, 3];

/// Content types (appendix B.1).
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// Handshake messages that may come after the handshake (appendix B.3).
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
/// The rest of a KeyUpdate message that requests no answer: its length and its one byte.
const NOT_REQUESTED: [u8; 4] = [0, 0, 1, 0];

/// Alerts (appendix B.2).
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;
const LEVEL_WARNING: u8 = 1;
const LEVEL_FATAL: u8 = 2;

/// What the directions have to tell each other.
struct Shared<Data> {
    /// Derives the keys that replace others.
    kernel: Mutex<KernelConnection<Data>>,
    /// The peer has asked this side to change its keys.
    update_owed: AtomicBool,
    /// The fatal alert that the peer must be told, or zero.
    alert_owed: AtomicU8,
    /// Records that were sealed under keys which have been replaced since the peer's last KeyUpdate.
    sealed: AtomicU64,
}

impl<Data> Shared<Data> {
    fn kernel(&self) -> std::sync::MutexGuard<'_, KernelConnection<Data>> {
        self.kernel.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Creates the two directions of a connection after its handshake. `client`: this side is the client. `closed`: the peer has
/// said already that it sends no more.
pub(crate) fn split<Data>(
    secrets: ExtractedSecrets,
    kernel: KernelConnection<Data>,
    client: bool,
    closed: bool,
) -> Result<(Opener<Data>, Sealer<Data>), TlsError> {
    let (update_owed, alert_owed) = (AtomicBool::new(false), AtomicU8::new(0));
    let (kernel, sealed) = (Mutex::new(kernel), AtomicU64::new(0));
    let shared = Arc::new(Shared { kernel, update_owed, alert_owed, sealed });
    let (key, updates) = (Key::new(secrets.rx)?, UpdateBucket::default());
    let opener = Opener { key, shared: shared.clone(), client, idle: 0, updates, failed: false, closed };
    Ok((opener, Sealer { key: Key::new(secrets.tx)?, shared }))
}

/// A key, and where its nonces stand.
struct Key {
    aead: Aead,
    iv: Zeroizing<[u8; NONCE_LEN]>,
    sequence: u64,
}

impl Key {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, TlsError> {
        let (suite, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Suite::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Suite::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (Suite::Chacha20Poly1305, key, iv),
            _ => return Err(TlsError::Unusable),
        };
        let iv = iv.as_ref().try_into().map_err(|_| TlsError::Unusable)?;
        Ok(Self { aead: Aead::new(suite, key.as_ref())?, iv: Zeroizing::new(iv), sequence })
    }

    /// The nonce of the next record (section 5.3), once.
    fn next_nonce(&mut self) -> Option<Nonce> {
        let mut nonce = *self.iv;
        for (byte, number) in nonce[NONCE_LEN - 8..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        self.sequence = self.sequence.checked_add(1)?;
        Some(Nonce::new(nonce))
    }
}

/// The direction from the peer.
pub(crate) struct Opener<Data> {
    key: Key,
    shared: Arc<Shared<Data>>,
    client: bool,
    /// Records without data since the last with data.
    idle: u8,
    updates: UpdateBucket,
    failed: bool,
    /// The peer has said that it sends no more.
    closed: bool,
}

/// What a record held.
enum Content<'a> {
    Data(&'a [u8]),
    Message,
    Closed,
}

impl<Data> Opener<Data> {
    /// See [`crate::Reader::open`].
    pub(crate) fn open(
        &mut self,
        ciphertext: &mut [u8],
        plaintext: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Opened, TlsError> {
        if self.failed {
            return Err(TlsError::Unusable);
        }
        if self.closed {
            // Section 6.1: what comes behind is ignored.
            return Ok(Opened { consumed: ciphertext.len(), closed: true });
        }
        let opened = self.open_records(ciphertext, plaintext);
        if let Err(error) = &opened {
            self.failed = true;
            let alert = match error {
                TlsError::Record(record) => record.alert(),
                TlsError::HandshakeInPieces => RecordError::Unexpected.alert(),
                TlsError::Rustls(_) | TlsError::Unusable => None,
            };
            if let Some(alert) = alert {
                self.shared.alert_owed.store(alert, Ordering::Release);
            }
        }
        opened
    }

    fn open_records(
        &mut self,
        ciphertext: &mut [u8],
        mut plaintext: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Opened, TlsError> {
        let mut consumed = 0;
        while let Some(len) = record_len(&ciphertext[consumed..])? {
            let record = &mut ciphertext[consumed..consumed + len];
            consumed += len;
            match self.open_record(record)? {
                Content::Data(data) if !data.is_empty() => {
                    self.idle = 0;
                    if plaintext(data).is_break() {
                        break;
                    }
                }
                Content::Data(_) | Content::Message => {
                    self.idle += 1;
                    if self.idle > MAX_IDLE_RECORDS {
                        return Err(RecordError::Idle.into());
                    }
                }
                Content::Closed => {
                    self.closed = true;
                    return Ok(Opened { consumed, closed: true });
                }
            }
        }
        Ok(Opened { consumed, closed: false })
    }

    /// Opens one whole record where it lies.
    fn open_record<'a>(&mut self, record: &'a mut [u8]) -> Result<Content<'a>, TlsError> {
        let (header, body) = record.split_first_chunk_mut::<RECORD_HEADER>().ok_or(RecordError::Decode)?;
        let nonce = self.key.next_nonce().ok_or(TlsError::Unusable)?;
        let inner = self.key.aead.open(nonce, header, body)?;
        // The content type is the last byte that is not padding.
        let end = inner.iter().rposition(|&byte| byte != 0).ok_or(RecordError::Unexpected)?;
        let kind = inner[end];
        if end > MAX_PLAINTEXT {
            return Err(RecordError::Overflow.into());
        }
        let content = &inner[..end];
        match kind {
            APPLICATION_DATA => Ok(Content::Data(content)),
            ALERT => self.handle_alert(content),
            HANDSHAKE => self.handle_messages(content).map(|()| Content::Message),
            _ => Err(RecordError::Unexpected.into()),
        }
    }

    fn handle_alert(&self, content: &[u8]) -> Result<Content<'static>, TlsError> {
        match *content {
            [_, CLOSE_NOTIFY] => Ok(Content::Closed),
            [_, USER_CANCELED] => Ok(Content::Message),
            [_, other] => Err(RecordError::Alert(other).into()),
            _ => Err(RecordError::Decode.into()),
        }
    }

    /// Handles the handshake messages of one record, each of which must be whole.
    fn handle_messages(&mut self, mut content: &[u8]) -> Result<(), TlsError> {
        // Section 5.1: a record of this type is never empty.
        if content.is_empty() {
            return Err(RecordError::Unexpected.into());
        }
        while let Some((&[kind, a, b, c], rest)) = content.split_first_chunk() {
            let len = u32::from_be_bytes([0, a, b, c]) as usize;
            let (message, rest) = rest.split_at_checked(len).ok_or(TlsError::HandshakeInPieces)?;
            match (kind, message) {
                // Section 5.1: what follows a change of keys must be in a record of its own.
                (KEY_UPDATE, &[request @ (0 | 1)]) if rest.is_empty() => self.update_key(request == 1)?,
                (KEY_UPDATE, [0 | 1]) => return Err(RecordError::Unexpected.into()),
                (KEY_UPDATE, _) => return Err(RecordError::Decode.into()),
                // Sessions are never resumed.
                (NEW_SESSION_TICKET, _) if self.client => {}
                _ => return Err(RecordError::Unexpected.into()),
            }
            content = rest;
        }
        if content.is_empty() { Ok(()) } else { Err(TlsError::HandshakeInPieces) }
    }

    /// Follows a KeyUpdate of the peer. One bucket bounds both directions, because each KeyUpdate changes the peer's key
    /// and asks for a change of ours at most once. Records of both directions count: a peer may change keys for the sake
    /// of what it receives. Those that were sealed are known once the sealing side has answered, an update later.
    fn update_key(&mut self, requested: bool) -> Result<(), TlsError> {
        let records = self.key.sequence.saturating_add(self.shared.sealed.swap(0, Ordering::Relaxed));
        if !self.updates.take(records) {
            return Err(RecordError::KeyUpdates.into());
        }
        self.key = Key::new(self.shared.kernel().update_rx_secret()?)?;
        if requested {
            self.shared.update_owed.store(true, Ordering::Release);
        }
        Ok(())
    }
}

/// The length of the record at the front of `bytes`, header included; `None` while it is not whole.
fn record_len(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some(&[kind, _, _, high, low]) = bytes.first_chunk::<RECORD_HEADER>() else { return Ok(None) };
    let body = usize::from(u16::from_be_bytes([high, low]));
    // After the handshake the peer must not send records in clear.
    if kind != APPLICATION_DATA {
        return Err(RecordError::Unexpected);
    }
    if body > MAX_BODY {
        return Err(RecordError::Overflow);
    }
    let len = RECORD_HEADER + body;
    Ok((bytes.len() >= len).then_some(len))
}

/// The direction to the peer.
pub(crate) struct Sealer<Data> {
    key: Key,
    shared: Arc<Shared<Data>>,
}

impl<Data> Sealer<Data> {
    /// See [`crate::Writer::seal`].
    pub(crate) fn seal(&mut self, plaintext: &[u8], out: &mut SealBuffer) -> Result<(), TlsError> {
        if self.shared.alert_owed.load(Ordering::Acquire) != 0 {
            return Err(TlsError::Unusable);
        }
        if self.shared.update_owed.load(Ordering::Acquire)
            && self.shared.update_owed.swap(false, Ordering::AcqRel)
        {
            self.update_key(out)?;
        }
        for fragment in plaintext.chunks(MAX_PLAINTEXT) {
            if self.key.sequence >= REKEY_AFTER {
                self.update_key(out)?;
            }
            self.seal_record(APPLICATION_DATA, fragment, out)?;
        }
        Ok(())
    }

    /// See [`crate::Writer::close`].
    pub(crate) fn close(&mut self, out: &mut SealBuffer) -> Result<(), TlsError> {
        let alert = match self.shared.alert_owed.load(Ordering::Acquire) {
            0 => [LEVEL_WARNING, CLOSE_NOTIFY],
            fatal => [LEVEL_FATAL, fatal],
        };
        self.seal_record(ALERT, &alert, out)
    }

    /// Tells the peer of a new key, under the old one, and changes to it.
    fn update_key(&mut self, out: &mut SealBuffer) -> Result<(), TlsError> {
        let [a, b, c, d] = NOT_REQUESTED;
        self.seal_record(HANDSHAKE, &[KEY_UPDATE, a, b, c, d], out)?;
        self.shared.sealed.fetch_add(self.key.sequence, Ordering::Relaxed);
        self.key = Key::new(self.shared.kernel().update_tx_secret()?)?;
        Ok(())
    }

    fn seal_record(&mut self, kind: u8, content: &[u8], out: &mut SealBuffer) -> Result<(), TlsError> {
        let body = content.len() + 1 + TAG_LEN;
        let [high, low] = u16::try_from(body).map_err(|_| TlsError::Unusable)?.to_be_bytes();
        let [major, minor] = LEGACY_VERSION;
        let header = [APPLICATION_DATA, major, minor, high, low];
        let nonce = self.key.next_nonce().ok_or(TlsError::Unusable)?;

        let record = &mut out.room(RECORD_HEADER + body)[..RECORD_HEADER + body];
        let (start, sealed) = record.split_at_mut(RECORD_HEADER);
        start.copy_from_slice(&header);
        sealed[..content.len()].copy_from_slice(content);
        sealed[content.len()] = kind;
        self.key.aead.seal(nonce, &header, sealed)?;
        out.filled(RECORD_HEADER + body);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
