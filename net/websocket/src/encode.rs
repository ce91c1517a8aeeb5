//! The encoders: unmasked binary messages of a server and control frames between them, and masked frames of a client.

use crate::control::{CloseCode, MAX_CONTROL, PingPayload};
use crate::frame::{FINAL, LENGTH_16, LENGTH_64, MASK, MASKED, mask};
use crate::opcode;

/// Most bytes of a message that [`Messages`] writes, header included. Go's library, which the stock client reads with,
/// takes no more in one message; and it is two full TLS records.
pub const MAX_SENT: usize = 32 * 1024;

/// The header of a message above [`MAX_CONTROL`] bytes; shorter ones have two bytes of it.
const HEADER: usize = 4;
const SHORT_HEADER: usize = 2;
const MAX_PAYLOAD: usize = MAX_SENT - HEADER;
/// The longest payload of a [`MaskedFrame`] that is within [`MAX_SENT`].
pub const MAX_MASKED_PAYLOAD: usize = MAX_PAYLOAD - MASK;

/// Messages of a server on their way to a socket. What is pushed is cut into messages of [`MAX_SENT`] bytes, the last one shorter.
#[derive(Debug, Default)]
pub struct Messages {
    buffer: Vec<u8>,
    /// Where the message that is still open starts, with room for its header.
    open: Option<usize>,
}

impl Messages {
    /// Appends `bytes` to the open message, and opens the next ones as that fills up.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let start = *self.open.get_or_insert_with(|| {
                let start = self.buffer.len();
                self.buffer.extend_from_slice(&[0; HEADER]);
                start
            });
            let room = MAX_PAYLOAD - (self.buffer.len() - start - HEADER);
            let (taken, rest) = bytes.split_at(bytes.len().min(room));
            self.buffer.extend_from_slice(taken);
            if taken.len() == room {
                self.finish();
            }
            bytes = rest;
        }
    }

    /// Ends the open message, if there is one.
    pub fn finish(&mut self) {
        let Some(start) = self.open.take() else { return };
        let payload = start + HEADER;
        let len = self.buffer.len() - payload;
        let mut header = [FINAL | opcode::BINARY, LENGTH_16, 0, 0];
        header[2..].copy_from_slice(&(len as u16).to_be_bytes());
        if len <= MAX_CONTROL {
            header[1] = len as u8;
            self.buffer.copy_within(payload.., start + SHORT_HEADER);
            self.buffer.truncate(start + SHORT_HEADER + len);
            self.buffer[start..start + SHORT_HEADER].copy_from_slice(&header[..SHORT_HEADER]);
        } else {
            self.buffer[start..payload].copy_from_slice(&header);
        }
    }

    /// Ends the open message and appends the answer to a ping.
    pub fn pong(&mut self, payload: &PingPayload) {
        self.control(opcode::PONG, payload.as_slice());
    }

    /// Ends the open message and appends the last frame of the connection. `reason` is cut at 123 bytes.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        self.control(opcode::CLOSE, &close_payload(code, reason));
    }

    fn control(&mut self, opcode: u8, payload: &[u8]) {
        self.finish();
        self.buffer.extend_from_slice(&[FINAL | opcode, payload.len() as u8]);
        self.buffer.extend_from_slice(payload);
    }

    /// The frames so far. Whole once [`finish`](Self::finish) was called.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.buffer
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Forgets what is in the buffer and keeps the buffer.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.open = None;
    }
}

/// A frame of a client. Each is masked with four bytes of its own that no server and no page can foretell (RFC 6455 section
/// 10.3): random bytes of the system.
#[derive(Clone, Copy, Debug)]
pub enum MaskedFrame<'a> {
    /// A whole binary message. A stock server takes no more than [`MAX_MASKED_PAYLOAD`] bytes.
    Binary(&'a [u8]),
    /// The answer to a ping.
    Pong(&'a PingPayload),
    /// The last frame of the connection.
    Close(CloseCode),
}

impl MaskedFrame<'_> {
    /// Appends the frame with this mask.
    pub fn append(self, mask_key: [u8; MASK], out: &mut Vec<u8>) {
        match self {
            Self::Binary(payload) => append_masked(opcode::BINARY, payload, mask_key, out),
            Self::Pong(payload) => append_masked(opcode::PONG, payload.as_slice(), mask_key, out),
            Self::Close(code) => append_masked(opcode::CLOSE, &close_payload(code, ""), mask_key, out),
        }
    }
}

fn append_masked(opcode: u8, payload: &[u8], mask_key: [u8; MASK], out: &mut Vec<u8>) {
    out.push(FINAL | opcode);
    let len = payload.len();
    if len <= MAX_CONTROL {
        out.push(MASKED | len as u8);
    } else if let Ok(len) = u16::try_from(len) {
        out.push(MASKED | LENGTH_16);
        out.extend_from_slice(&len.to_be_bytes());
    } else {
        out.push(MASKED | LENGTH_64);
        out.extend_from_slice(&(len as u64).to_be_bytes());
    }
    out.extend_from_slice(&mask_key);
    let start = out.len();
    out.extend_from_slice(payload);
    mask(&mut out[start..], mask_key);
}

/// The payload of a close frame. `reason` is cut so that it fits.
fn close_payload(code: CloseCode, reason: &str) -> Vec<u8> {
    let reason = &reason[..reason.floor_char_boundary(MAX_CONTROL - 2)];
    [&(code as u16).to_be_bytes()[..], reason.as_bytes()].concat()
}
