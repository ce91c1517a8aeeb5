//! The two halves of a connection after its handshake, for threads that do their own reading and writing.
//!
//! TLS 1.3 goes to records of our own ([`crate::own`]) where that is asked for, and each half has its direction to
//! itself. Otherwise rustls keeps one state for both directions, so the halves share it behind a mutex. Records that
//! the reading half owes the peer (an answer to a key update, an alert) are left in the shared state, sealed; the
//! writing half sends them before anything that it seals later, which is the order of their numbers.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard};

use rustls::ProtocolVersion;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, ReadTraffic, UnbufferedStatus,
};

use crate::error::TlsError;
use crate::layer::{Opened, RecordLayer};
use crate::limits::RECORD_HEADER;
use crate::own::{self, Opener, Sealer};
use crate::seal::SealBuffer;
use crate::side::Side;

/// The state of a connection and the records that its reading side owes the peer.
pub(crate) struct Records<S: Side> {
    pub(crate) connection: S::Connection,
    pub(crate) owed: Vec<u8>,
    /// The reading side has failed. rustls may then have kept a place in a buffer that the writing side does not have.
    broken: bool,
    /// The peer has said that it sends no more. rustls says so once.
    closed: bool,
}

/// Where the state machine stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The handshake needs more bytes.
    Handshaking,
    /// The connection is open; all whole records are used up.
    Open,
    /// The peer has closed.
    Closed,
    /// The receiver of plaintext broke off.
    Broken,
}

impl<S: Side> Records<S> {
    pub(crate) const fn new(connection: S::Connection) -> Self {
        Self { connection, owed: Vec::new(), broken: false, closed: false }
    }

    /// Whether the peer has said that it sends no more.
    pub(crate) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Runs the state machine over `incoming` until it needs more. Returns how many bytes are used up.
    ///
    /// After an error the alert that tells the peer of it is owed, and nothing else can be sealed any more.
    pub(crate) fn advance(
        &mut self,
        incoming: &mut [u8],
        plaintext: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(usize, Stopped), TlsError> {
        if self.broken {
            return Err(TlsError::Unusable);
        }
        if self.closed {
            // RFC 8446 section 6.1: what comes behind is ignored.
            return Ok((incoming.len(), Stopped::Closed));
        }
        let advanced = self.run(incoming, plaintext);
        self.broken |= advanced.is_err();
        if let Err(TlsError::Rustls(_)) = &advanced {
            self.owe_alert(incoming);
        }
        advanced
    }

    /// Moves the records that rustls still has to send to `owed`, up to its final alert. Asking rustls for more after
    /// that would make it process `incoming` again, and fail again.
    fn owe_alert(&mut self, incoming: &mut [u8]) {
        while let Ok(ConnectionState::EncodeTlsData(mut data)) =
            S::process(&mut self.connection, incoming).state
        {
            let start = self.owed.len();
            encode(&mut data, &mut self.owed);
            if is_alert(&self.owed[start..]) {
                return;
            }
        }
    }

    fn run(
        &mut self,
        incoming: &mut [u8],
        mut plaintext: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(usize, Stopped), TlsError> {
        let mut consumed = 0;
        let stopped = loop {
            let UnbufferedStatus { mut discard, state, .. } =
                S::process(&mut self.connection, &mut incoming[consumed..]);
            let stop = match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    let (used, flow) = read(&mut traffic, &mut plaintext)?;
                    discard += used;
                    flow.is_break().then_some(Stopped::Broken)
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    encode(&mut data, &mut self.owed);
                    None
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    None
                }
                ConnectionState::PeerClosed => {
                    self.closed = true;
                    None
                }
                ConnectionState::BlockedHandshake => Some(Stopped::Handshaking),
                ConnectionState::WriteTraffic(_) => Some(Stopped::Open),
                ConnectionState::Closed => Some(Stopped::Closed),
                // Early data is never offered, and the enum may grow.
                _ => return Err(TlsError::Rustls(rustls::Error::General("unexpected TLS state".into()))),
            };
            consumed += discard;
            if let Some(stop) = stop {
                break stop;
            }
        };
        let stopped = if self.closed && stopped == Stopped::Open { Stopped::Closed } else { stopped };
        if stopped == Stopped::Open && starts_with_record(&incoming[consumed..]) {
            return Err(TlsError::HandshakeInPieces);
        }
        Ok((consumed, stopped))
    }

    /// Seals `plaintext` into `out`, behind what is owed. `incoming` is what of the peer's bytes is not used up, where
    /// the caller has it.
    pub(crate) fn seal(
        &mut self,
        incoming: &mut [u8],
        plaintext: &[u8],
        out: &mut SealBuffer,
    ) -> Result<(), TlsError> {
        self.write(incoming, out, |traffic, out| {
            if plaintext.is_empty() {
                return Ok(());
            }
            let sealed = match traffic.encrypt(plaintext, out.room_for(plaintext.len())) {
                Err(EncryptError::InsufficientSize(needed)) => {
                    traffic.encrypt(plaintext, out.room(needed.required_size))
                }
                sealed => sealed,
            };
            out.filled(sealed.map_err(|_| TlsError::Unusable)?);
            Ok(())
        })
    }

    /// Tells the peer that nothing more will be sent.
    pub(crate) fn close(&mut self, incoming: &mut [u8], out: &mut SealBuffer) -> Result<(), TlsError> {
        self.write(incoming, out, |traffic, out| {
            let sealed = match traffic.queue_close_notify(out.room_for(2)) {
                Err(EncryptError::InsufficientSize(needed)) => {
                    traffic.queue_close_notify(out.room(needed.required_size))
                }
                sealed => sealed,
            };
            out.filled(sealed.map_err(|_| TlsError::Unusable)?);
            Ok(())
        })
    }

    fn write(
        &mut self,
        incoming: &mut [u8],
        out: &mut SealBuffer,
        write: impl FnOnce(
            &mut rustls::unbuffered::WriteTraffic<'_, S::Data>,
            &mut SealBuffer,
        ) -> Result<(), TlsError>,
    ) -> Result<(), TlsError> {
        if !self.owed.is_empty() {
            out.append(&self.owed);
            self.owed = Vec::new();
        }
        if self.broken {
            return Err(TlsError::Unusable);
        }
        loop {
            let UnbufferedStatus { state, .. } = S::process(&mut self.connection, incoming);
            match state? {
                ConnectionState::WriteTraffic(mut traffic) => return write(&mut traffic, out),
                ConnectionState::EncodeTlsData(mut data) => {
                    let mut record = Vec::new();
                    encode(&mut data, &mut record);
                    out.append(&record);
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => {}
                _ => return Err(TlsError::Unusable),
            }
        }
    }
}

/// Hands on the plaintext of whole records until none is left or its receiver wants no more. Returns how many bytes the
/// records had.
fn read<Data>(
    traffic: &mut ReadTraffic<'_, '_, Data>,
    plaintext: &mut impl FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<(usize, ControlFlow<()>), TlsError> {
    let mut used = 0;
    while let Some(record) = traffic.next_record() {
        let record = record?;
        used += record.discard;
        let flow = plaintext(record.payload);
        if flow.is_break() {
            return Ok((used, flow));
        }
    }
    Ok((used, ControlFlow::Continue(())))
}

fn encode<Data>(data: &mut EncodeTlsData<'_, Data>, out: &mut Vec<u8>) {
    let start = out.len();
    // Encoding into nothing is how the size is asked for.
    if let Err(EncodeError::InsufficientSize(needed)) = data.encode(&mut []) {
        out.resize(start + needed.required_size, 0);
        let written = data.encode(&mut out[start..]).expect("the size is the one asked for");
        out.truncate(start + written);
    }
}

/// Whether a record is an alert: by its type, or by its length where TLS 1.3 has sealed the type.
fn is_alert(record: &[u8]) -> bool {
    const ALERT: u8 = 21;
    const APPLICATION_DATA: u8 = 23;
    /// Two bytes, the content type, a tag.
    const SEALED_ALERT: usize = RECORD_HEADER + 2 + 1 + 16;
    match record.first() {
        Some(&ALERT) => true,
        Some(&APPLICATION_DATA) => record.len() == SEALED_ALERT,
        _ => false,
    }
}

/// Whether a whole record stands at the front of `bytes`.
fn starts_with_record(bytes: &[u8]) -> bool {
    match bytes.first_chunk::<RECORD_HEADER>() {
        Some(&[_, _, _, high, low]) => {
            bytes.len() >= RECORD_HEADER + usize::from(u16::from_be_bytes([high, low]))
        }
        None => false,
    }
}

/// The reading half.
pub struct Reader<S: Side>(ReadHalf<S>);

enum ReadHalf<S: Side> {
    Rustls(Arc<Mutex<Records<S>>>),
    Own(Opener<S::Data>),
}

/// The writing half.
pub struct Writer<S: Side>(WriteHalf<S>);

enum WriteHalf<S: Side> {
    Rustls(Arc<Mutex<Records<S>>>),
    Own(Sealer<S::Data>),
}

impl<S: Side> fmt::Debug for Reader<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reader(..)")
    }
}

impl<S: Side> fmt::Debug for Writer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer(..)")
    }
}

#[cfg(test)]
impl<S: Side> Reader<S> {
    pub(crate) fn opener(&mut self) -> Option<&mut Opener<S::Data>> {
        match &mut self.0 {
            ReadHalf::Own(opener) => Some(opener),
            ReadHalf::Rustls(_) => None,
        }
    }
}

#[cfg(test)]
impl<S: Side> Writer<S> {
    pub(crate) fn sealer(&self) -> Option<&Sealer<S::Data>> {
        match &self.0 {
            WriteHalf::Own(sealer) => Some(sealer),
            WriteHalf::Rustls(_) => None,
        }
    }
}

impl<S: Side> Records<S> {
    /// The halves of the connection, with `layer` opening and sealing. A connection that owes its peer records stays with
    /// rustls, which has sealed them.
    pub(crate) fn into_halves(mut self, layer: RecordLayer) -> Result<(Reader<S>, Writer<S>), TlsError> {
        let version = S::state(&self.connection).protocol_version();
        if layer == RecordLayer::Own && version == Some(ProtocolVersion::TLSv1_3) {
            self.owe_key_update();
            if self.owed.is_empty() {
                let (secrets, kernel) = S::into_kernel(self.connection)?;
                let (opener, sealer) = own::split(secrets, kernel, S::CLIENT, self.closed)?;
                return Ok((Reader(ReadHalf::Own(opener)), Writer(WriteHalf::Own(sealer))));
            }
        }
        let records = Arc::new(Mutex::new(self));
        Ok((Reader(ReadHalf::Rustls(records.clone())), Writer(WriteHalf::Rustls(records))))
    }

    /// Moves the answer to a KeyUpdate to `owed`. rustls has changed its key by then, keeps the answer until it seals data,
    /// and loses it when the connection is taken apart, after which the peer could open nothing any more.
    fn owe_key_update(&mut self) {
        let mut asked = false;
        loop {
            match S::process(&mut self.connection, &mut []).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) if !asked => {
                    // There is no room for the byte. What must be in front of it is queued before that is found.
                    let _ = traffic.encrypt(&[0], &mut []);
                    asked = true;
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, &mut self.owed),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.closed = true,
                _ => return,
            }
        }
    }
}

/// A poisoned state is locked as well: rustls has marked it as broken or it is whole.
fn lock<S: Side>(records: &Mutex<Records<S>>) -> MutexGuard<'_, Records<S>> {
    records.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl<S: Side> Reader<S> {
    /// Opens the whole records in `ciphertext` and hands their plaintext on, a record at a time, in order.
    ///
    /// Bytes of a record that is not whole are left; the caller brings them again, in front of what it reads next.
    /// `plaintext` must not write to this connection, because records of rustls may be waiting for the writing half.
    /// When it breaks off, the rest is lost and the connection is no longer usable. Once the peer has closed, also before
    /// the [`Stream`](crate::Stream) was taken apart, each call says so and uses up whatever it is given.
    ///
    /// # Errors
    ///
    /// See [`TlsError`]. An alert for the peer may then be owed; [`Writer::close`] has it.
    pub fn open(
        &mut self,
        ciphertext: &mut [u8],
        plaintext: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Opened, TlsError> {
        match &mut self.0 {
            ReadHalf::Rustls(records) => {
                let (consumed, stopped) = lock(records).advance(ciphertext, plaintext)?;
                Ok(Opened { consumed, closed: stopped == Stopped::Closed })
            }
            ReadHalf::Own(opener) => opener.open(ciphertext, plaintext),
        }
    }
}

impl<S: Side> Writer<S> {
    /// Seals `plaintext` into records of up to 16 KiB at the end of `out`, behind what the reading half owes.
    ///
    /// # Errors
    ///
    /// [`TlsError::Unusable`], or that of the reading half when that has failed.
    pub fn seal(&mut self, plaintext: &[u8], out: &mut SealBuffer) -> Result<(), TlsError> {
        match &mut self.0 {
            WriteHalf::Rustls(records) => lock(records).seal(&mut [], plaintext, out),
            WriteHalf::Own(sealer) => sealer.seal(plaintext, out),
        }
    }

    /// Appends the alert that tells the peer that the end is not an attack (RFC 8446 section 6.1), or which of its
    /// errors is the reason.
    ///
    /// # Errors
    ///
    /// The errors of [`seal`](Self::seal). Records that are owed are appended all the same.
    pub fn close(&mut self, out: &mut SealBuffer) -> Result<(), TlsError> {
        match &mut self.0 {
            WriteHalf::Rustls(records) => lock(records).close(&mut [], out),
            WriteHalf::Own(sealer) => sealer.close(out),
        }
    }
}
