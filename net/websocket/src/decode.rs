//! The decoder: turns the frames of a peer into a stream of bytes.

use std::marker::PhantomData;

use crate::control::{CloseCode, MAX_CONTROL, PingPayload};
use crate::frame::{FINAL, LENGTH_16, LENGTH_64, MASK, MASKED, mask};
use crate::opcode;
use crate::role::{Role, Server};

/// Most bytes of a message that a [`Decoder`] takes. A stock client writes up to 61 KiB at once; since nothing is held,
/// the bound is only there to refuse nonsense.
pub const MAX_RECEIVED: u64 = 1024 * 1024;

/// The longest header of a masked frame: two bytes, eight of length, four of mask.
const MAX_HEADER: usize = 14;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const LENGTH: u8 = 0x7f;

/// The ways in which a peer can break the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Violation {
    /// A reserved bit is set, though no extension was negotiated.
    #[error("a reserved bit is set")]
    Reserved,
    /// An opcode that RFC 6455 does not have.
    #[error("an unknown opcode, {0}")]
    Opcode(u8),
    /// A client's frame must be masked.
    #[error("a frame without a mask")]
    Unmasked,
    /// A server's frame must not be masked.
    #[error("a frame with a mask")]
    Masked,
    /// A text message. Only binary messages are allowed.
    #[error("a text message")]
    Text,
    /// A control frame that is fragmented or longer than 125 bytes.
    #[error("a control frame that is fragmented or too long")]
    Control,
    /// A continuation of nothing, or a new message inside a fragmented one.
    #[error("fragments out of order")]
    Fragments,
    /// A length in more bytes than it needs, or above 2^63.
    #[error("a length that is not written in the shortest way")]
    Length,
    /// A message of more than [`MAX_RECEIVED`] bytes.
    #[error("a message of more than {MAX_RECEIVED} bytes")]
    TooBig,
    /// A close frame with half a status code, or one that must not be sent.
    #[error("a close frame without a proper status code")]
    CloseCode,
    /// A close frame whose reason is not UTF-8.
    #[error("a close frame whose reason is not UTF-8")]
    CloseReason,
}

impl Violation {
    /// Returns the code to close with.
    #[must_use]
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::Text => CloseCode::Unsupported,
            Self::TooBig => CloseCode::TooBig,
            Self::CloseReason => CloseCode::InvalidText,
            _ => CloseCode::Protocol,
        }
    }
}

/// A piece of the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'i> {
    /// Bytes of a binary message, unmasked.
    Data(&'i mut [u8]),
    /// A ping, to be answered with a pong of the same payload.
    Ping(PingPayload),
    /// The peer closes, to be answered with a close. Nothing comes after it.
    Close,
}

/// What kind of payload the rest of the current frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PayloadKind {
    Data,
    Ping,
    Pong,
    Close,
}

/// A frame whose header has been read.
#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: PayloadKind,
    left: u64,
    /// The mask, turned so that it starts with the byte for what comes next. Of no meaning where frames have none.
    mask: [u8; MASK],
}

/// The state between two slices of a peer's stream. `R` is the side that receives it.
#[derive(Debug)]
pub struct Decoder<R: Role = Server> {
    /// The start of a header.
    header: [u8; MAX_HEADER],
    have: u8,
    frame: Option<Frame>,
    /// Payload of a control frame so far.
    control: PingPayload,
    /// A fragmented message is not at its end.
    fragmented: bool,
    /// Bytes that the current message has announced so far.
    message: u64,
    closed: bool,
    role: PhantomData<R>,
}

impl<R: Role> Default for Decoder<R> {
    fn default() -> Self {
        Self {
            header: [0; MAX_HEADER],
            have: 0,
            frame: None,
            control: PingPayload::EMPTY,
            fragmented: false,
            message: 0,
            closed: false,
            role: PhantomData,
        }
    }
}

impl<R: Role> Decoder<R> {
    /// Bytes of the mask in a header.
    const MASK: usize = if R::RECEIVES_MASKED { MASK } else { 0 };

    /// The next piece of the stream, of which `input` is the next slice; `None` when `input` is used up.
    ///
    /// # Errors
    ///
    /// See [`Violation`]; a frame that is wrong is refused by its header. The stream is then no longer usable.
    #[inline]
    pub fn next<'i>(&mut self, input: &mut &'i mut [u8]) -> Result<Option<Piece<'i>>, Violation> {
        loop {
            if self.closed {
                *input = &mut [];
                return Ok(None);
            }
            let Some(frame) = &mut self.frame else {
                if self.read_header(input)? {
                    continue;
                }
                return Ok(None);
            };
            if frame.left > 0 {
                if input.is_empty() {
                    return Ok(None);
                }
                let taken = usize::try_from(frame.left).unwrap_or(usize::MAX).min(input.len());
                let (piece, rest) = std::mem::take(input).split_at_mut(taken);
                *input = rest;
                if R::RECEIVES_MASKED {
                    mask(piece, frame.mask);
                    frame.mask.rotate_left(taken % MASK);
                }
                frame.left -= taken as u64;
                if frame.kind == PayloadKind::Data {
                    if frame.left == 0 {
                        self.frame = None;
                    }
                    return Ok(Some(Piece::Data(piece)));
                }
                self.control.push(piece);
            }
            if frame.left == 0 {
                let kind = frame.kind;
                self.frame = None;
                let control = std::mem::replace(&mut self.control, PingPayload::EMPTY);
                match kind {
                    PayloadKind::Data | PayloadKind::Pong => {}
                    PayloadKind::Ping => return Ok(Some(Piece::Ping(control))),
                    PayloadKind::Close => {
                        check_close(control.as_slice())?;
                        self.closed = true;
                        return Ok(Some(Piece::Close));
                    }
                }
            }
        }
    }

    /// Reads on in the header of a frame. Returns whether it is whole, and then a frame has begun.
    fn read_header(&mut self, input: &mut &mut [u8]) -> Result<bool, Violation> {
        if !self.draw(input, 2) {
            return Ok(false);
        }
        let [first, second, ..] = self.header;
        let kind = self.check(first, second)?;
        let extended = match second & LENGTH {
            LENGTH_16 => 2,
            LENGTH_64 => 8,
            _ => 0,
        };
        let end = 2 + extended + Self::MASK;
        if !self.draw(input, end) {
            return Ok(false);
        }
        let left = match second & LENGTH {
            LENGTH_16 => u64::from(u16::from_be_bytes([self.header[2], self.header[3]])),
            LENGTH_64 => self.header[2..10].iter().fold(0, |length, &byte| length << 8 | u64::from(byte)),
            short => u64::from(short),
        };
        let shortest = match extended {
            2 => u64::from(LENGTH_16),
            8 => 1 << 16,
            _ => 0,
        };
        if left < shortest || left >= 1 << 63 {
            return Err(Violation::Length);
        }
        if kind == PayloadKind::Data {
            self.message = if first & OPCODE == opcode::CONTINUATION { self.message + left } else { left };
            if self.message > MAX_RECEIVED {
                return Err(Violation::TooBig);
            }
            self.fragmented = first & FINAL == 0;
        }
        let mut mask = [0; MASK];
        mask[..Self::MASK].copy_from_slice(&self.header[end - Self::MASK..end]);
        self.have = 0;
        self.frame = Some(Frame { kind, left, mask });
        Ok(true)
    }

    /// Moves bytes from `input` until `until` of the header are here; returns whether they are.
    fn draw(&mut self, input: &mut &mut [u8], until: usize) -> bool {
        let have = usize::from(self.have);
        let wanted = until.saturating_sub(have).min(input.len());
        let (taken, rest) = std::mem::take(input).split_at_mut(wanted);
        *input = rest;
        self.header[have..have + taken.len()].copy_from_slice(taken);
        self.have += taken.len() as u8;
        usize::from(self.have) >= until
    }

    /// Decodes the first two bytes of a header, and checks that they are allowed here.
    fn check(&self, first: u8, second: u8) -> Result<PayloadKind, Violation> {
        if first & RESERVED != 0 {
            return Err(Violation::Reserved);
        }
        let kind = match first & OPCODE {
            opcode::TEXT => return Err(Violation::Text),
            opcode::CONTINUATION | opcode::BINARY => PayloadKind::Data,
            opcode::PING => PayloadKind::Ping,
            opcode::PONG => PayloadKind::Pong,
            opcode::CLOSE => PayloadKind::Close,
            unknown => return Err(Violation::Opcode(unknown)),
        };
        if (second & MASKED != 0) != R::RECEIVES_MASKED {
            return Err(if R::RECEIVES_MASKED { Violation::Unmasked } else { Violation::Masked });
        }
        if kind == PayloadKind::Data {
            let continues = first & OPCODE == opcode::CONTINUATION;
            return if continues == self.fragmented { Ok(kind) } else { Err(Violation::Fragments) };
        }
        let short = usize::from(second & LENGTH) <= MAX_CONTROL;
        if first & FINAL != 0 && short { Ok(kind) } else { Err(Violation::Control) }
    }
}

/// Whether the payload of a close frame is one (RFC 6455 section 5.5.1 and 7.4).
fn check_close(payload: &[u8]) -> Result<(), Violation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(()) } else { Err(Violation::CloseCode) };
    };
    // 1004 to 1006 and 1015 are for programs to tell each other and never on the wire.
    match u16::from_be_bytes(*code) {
        1000..=1003 | 1007..=1014 | 3000..=4999 => {}
        _ => return Err(Violation::CloseCode),
    }
    std::str::from_utf8(reason).map(|_| ()).map_err(|_| Violation::CloseReason)
}
