//! The encoder: unmasked binary messages of a server, and control frames between them.

use crate::control::{CloseCode, MAX_CONTROL, PingPayload};
use crate::opcode;

/// Most bytes of a message that [`Messages`] writes, header included. Go's library, which the stock client reads with,
/// takes no more in one message; and it is two full TLS records.
pub const MAX_SENT: usize = 32 * 1024;

/// The header of a message above [`MAX_CONTROL`] bytes; shorter ones have two bytes of it.
const HEADER: usize = 4;
const SHORT_HEADER: usize = 2;
const MAX_PAYLOAD: usize = MAX_SENT - HEADER;
const FINAL: u8 = 0x80;
/// The length that says that two bytes of length follow.
const EXTENDED: u8 = 126;

/// Messages on their way to a socket. What is pushed is cut into messages of [`MAX_SENT`] bytes, the last one shorter.
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
        let mut header = [FINAL | opcode::BINARY, EXTENDED, 0, 0];
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
        let reason = &reason[..reason.floor_char_boundary(MAX_CONTROL - 2)];
        self.control(opcode::CLOSE, &[&(code as u16).to_be_bytes()[..], reason.as_bytes()].concat());
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
