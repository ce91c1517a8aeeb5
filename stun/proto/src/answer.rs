//! The answer to a request, in its own dialect and within the bound on amplification.

use std::net::SocketAddr;
use std::num::NonZeroU16;

use towpath_wire::labels;

use crate::attribute::{
    CHANGED_ADDRESS, ERROR_CODE, HEADER_LEN as ATTRIBUTE_HEADER_LEN, MAPPED_ADDRESS, OTHER_ADDRESS,
    RESPONSE_ORIGIN, SOURCE_ADDRESS, UNKNOWN_ATTRIBUTES, XOR_MAPPED_ADDRESS,
};
use crate::discovery::{AskedOrigin, ChangeRequest};
use crate::header::{BINDING_ERROR, BINDING_SUCCESS, HEADER_LEN};
use crate::message::{FINGERPRINT_LEN, Mask, MessageWriter};
use crate::request::{Dialect, REQUEST_MAX_LEN, Request};
use crate::response::write_response;

/// Length in bytes of the longest answer: the refusal of a request that is full of unknown attributes.
pub const ANSWER_MAX_LEN: usize = HEADER_LEN
    + (ATTRIBUTE_HEADER_LEN + ERROR_VALUE_LEN)
    + (ATTRIBUTE_HEADER_LEN + (2 * UNKNOWN_MAX).next_multiple_of(4))
    + FINGERPRINT_LEN;

/// Most attributes that a request has room for.
const UNKNOWN_MAX: usize = (REQUEST_MAX_LEN - HEADER_LEN) / ATTRIBUTE_HEADER_LEN;

/// An ERROR-CODE without a reason phrase: clients know the code, and a phrase would break the bound.
const ERROR_VALUE_LEN: usize = 4;
/// 420, "Unknown Attribute": hundreds and the rest, each in a byte (RFC 8489 section 14.8).
const UNKNOWN_ATTRIBUTE: [u8; ERROR_VALUE_LEN] = [0, 0, 4, 20];

/// An answer that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its length in bytes.
    pub len: usize,
    /// What it says.
    pub kind: AnswerKind,
    /// From which origin it must be sent; [`ChangeRequest::NONE`] unless there are several.
    pub change: ChangeRequest,
    /// The client's port that it must be sent to instead of the one that asked.
    pub port: Option<NonZeroU16>,
}

impl Answer {
    /// An answer from where the request went to where it came from.
    const fn plain(kind: AnswerKind, len: usize) -> Self {
        Self { len, kind, change: ChangeRequest::NONE, port: None }
    }
}

labels! {
    /// What an answer says.
    pub enum AnswerKind {
        /// The client's address, to a client of Tailscale.
        Tailscale = "tailscale",
        /// The client's address, by RFC 8489.
        Standard = "standard",
        /// The client's address, by RFC 3489.
        Classic = "classic",
        /// The client's address and the server's own, by RFC 5780 or RFC 3489.
        Discovery = "discovery",
        /// A refusal: the request has attributes that must be understood, and the server does not know them.
        Refusal = "refusal",
    }
}

impl AnswerKind {
    /// How much longer than its question an answer may be on the wire, in tenths.
    ///
    /// A bare request is 48 bytes with IPv4 and UDP headers and 68 with IPv6. One address makes its answer 1.25 and
    /// 1.35 times as long; the three that RFC 5780 cannot do without over IPv6 make it 2.06 times.
    const fn bound(self) -> usize {
        match self {
            Self::Discovery => 21,
            _ => 15,
        }
    }

    /// Whether an answer of this length to a request of that length is within the bound, IP and UDP headers included.
    fn allows(self, answer: usize, request: usize, client: SocketAddr) -> bool {
        let headers = if client.ip().to_canonical().is_ipv4() { 28 } else { 48 };
        10 * (headers + answer) <= self.bound() * (headers + request)
    }
}

/// The answer would be too much longer than its question. The right answer is silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer would be too much longer than its question")]
pub struct Amplifies;

impl Request<'_> {
    /// Writes the answer for `client`, whose address the request came from.
    ///
    /// `asked` is where the request arrived if the server does NAT behaviour discovery; without it, the attributes that ask
    /// for that are unknown ones. Unknown attributes that must be understood are refused with 420 and listed, except to
    /// Tailscale's clients, whose server looks for none.
    ///
    /// # Errors
    /// See [`Amplifies`]. The content of `out` means nothing then.
    pub fn answer(
        &self,
        out: &mut [u8; ANSWER_MAX_LEN],
        client: SocketAddr,
        asked: Option<AskedOrigin<'_>>,
    ) -> Result<Answer, Amplifies> {
        let answer = match self.dialect() {
            Dialect::Tailscale => {
                let out = out.first_chunk_mut().expect("an answer has room for a response");
                Answer::plain(AnswerKind::Tailscale, write_response(out, self.transaction(), client))
            }
            Dialect::Standard | Dialect::Classic => self.answer_other(out, client, asked),
        };
        if answer.kind.allows(answer.len, self.len, client) { Ok(answer) } else { Err(Amplifies) }
    }

    fn answer_other(
        &self,
        out: &mut [u8; ANSWER_MAX_LEN],
        client: SocketAddr,
        asked: Option<AskedOrigin<'_>>,
    ) -> Answer {
        if let Some(refusal) = self.refuse(out, asked.is_some()) {
            return refusal;
        }
        if let Some(asked) = asked {
            let len = self.write_discovery(out, client, asked);
            return Answer {
                len,
                kind: AnswerKind::Discovery,
                change: self.change,
                port: self.response_port,
            };
        }
        if self.dialect() == Dialect::Classic {
            let len =
                self.write_success(out, |message, _| message.address(MAPPED_ADDRESS, client, Mask::NONE));
            return Answer::plain(AnswerKind::Classic, len);
        }
        let len = self.write_success(out, |message, mask| message.address(XOR_MAPPED_ADDRESS, client, mask));
        Answer::plain(AnswerKind::Standard, len)
    }

    fn write_success(
        &self,
        out: &mut [u8; ANSWER_MAX_LEN],
        attributes: impl FnOnce(&mut MessageWriter<'_>, Mask),
    ) -> usize {
        let mut message = MessageWriter::begin(out, BINDING_SUCCESS, &self.id);
        attributes(&mut message, Mask::of(self.id));
        message.finish(self.fingerprint)
    }

    /// In RFC 5780, MAPPED-ADDRESS tells a client of NATs that rewrite addresses in payloads. Section 6.1 asks for it; where
    /// it would break the bound, the client does without.
    fn write_discovery(
        &self,
        out: &mut [u8; ANSWER_MAX_LEN],
        client: SocketAddr,
        asked: AskedOrigin<'_>,
    ) -> usize {
        if self.dialect() == Dialect::Classic {
            return self.write_success(out, |message, _| {
                message.address(MAPPED_ADDRESS, client, Mask::NONE);
                message.address(SOURCE_ADDRESS, asked.origin(self.change), Mask::NONE);
                message.address(CHANGED_ADDRESS, asked.other(), Mask::NONE);
            });
        }
        let mut write = |with_mapped: bool| {
            self.write_success(out, |message, mask| {
                message.address(XOR_MAPPED_ADDRESS, client, mask);
                message.address(RESPONSE_ORIGIN, asked.origin(self.change), Mask::NONE);
                message.address(OTHER_ADDRESS, asked.other(), Mask::NONE);
                if with_mapped {
                    message.address(MAPPED_ADDRESS, client, Mask::NONE);
                }
            })
        };
        let len = write(true);
        if AnswerKind::Discovery.allows(len, self.len, client) { len } else { write(false) }
    }

    /// Writes the refusal of a request with unknown attributes; `None` if it has none.
    fn refuse(&self, out: &mut [u8; ANSWER_MAX_LEN], discovery: bool) -> Option<Answer> {
        let unknown = self.unknown(discovery);
        let count = unknown.clone().count();
        if count == 0 {
            return None;
        }
        let mut message = MessageWriter::begin(out, BINDING_ERROR, &self.id);
        message.attribute(ERROR_CODE, ERROR_VALUE_LEN).copy_from_slice(&UNKNOWN_ATTRIBUTE);
        // RFC 3489 has no padding: an odd list repeats one of its attributes (section 11.2.10).
        let repeated = unknown.clone().take(if self.dialect() == Dialect::Classic { count % 2 } else { 0 });
        let list = message.attribute(UNKNOWN_ATTRIBUTES, 2 * (count + repeated.clone().count()));
        for (slot, kind) in list.chunks_exact_mut(2).zip(unknown.chain(repeated)) {
            slot.copy_from_slice(&kind.to_be_bytes());
        }
        Some(Answer::plain(AnswerKind::Refusal, message.finish(self.fingerprint)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_of_whole_packets() {
        let ipv4 = "192.0.2.1:1".parse().unwrap();
        let ipv6 = "[2001:db8::1]:1".parse().unwrap();
        let mapped = "[::ffff:192.0.2.1]:1".parse().unwrap();
        // 1.5 × 48 = 72 and 1.5 × 68 = 102; 2.1 × 68 = 142.8.
        assert!(AnswerKind::Standard.allows(72 - 28, 20, ipv4));
        assert!(!AnswerKind::Standard.allows(73 - 28, 20, ipv4));
        assert!(!AnswerKind::Standard.allows(73 - 28, 20, mapped));
        assert!(AnswerKind::Classic.allows(102 - 48, 20, ipv6));
        assert!(!AnswerKind::Refusal.allows(103 - 48, 20, ipv6));
        assert!(AnswerKind::Discovery.allows(142 - 48, 20, ipv6));
        assert!(!AnswerKind::Discovery.allows(143 - 48, 20, ipv6));
    }

    #[test]
    fn kinds_have_distinct_labels_and_indices() {
        for (index, kind) in AnswerKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), index);
            assert_eq!(AnswerKind::ALL.iter().filter(|other| other.label() == kind.label()).count(), 1);
        }
    }
}
