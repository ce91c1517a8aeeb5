//! Handshakes of WireGuard that cross, and those that nothing could carry.
//!
//! When both sides begin a handshake within one trip of a packet, their initiations cross: each side answers the other's, which voids its
//! own, so that neither answer is worth anything. Both begin again after the same 5 s (`REKEY_TIMEOUT`), and may cross again. The proxies
//! of both sides break the tie without changing a byte: the initiation of the side with the smaller key counts, and its proxy keeps the
//! other one back until the answer is there.

use std::time::Duration;

use towpath::NodePublic;
use towpath_wire::time::Instant;

use crate::message::MessageKind;

/// How long an initiation of the peer is kept back for the answer to one of ours: longer than a round trip over relays. If ours is lost,
/// the peer's counts then.
const ANSWER: Duration = Duration::from_secs(1);
/// How long WireGuard may take to answer an initiation that it was given.
const RESPONSE: Duration = Duration::from_millis(50);
/// After this long WireGuard has given an initiation up and sends another (`REKEY_TIMEOUT`).
const REKEY_TIMEOUT: Duration = Duration::from_secs(5);

/// What is to be done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes on.
    Pass,
    /// It is kept back; see [`Handshakes::take_due`].
    Keep,
}

/// Which initiation is kept back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// One of the peer, for this side's WireGuard.
    Incoming,
    /// One of this side's WireGuard, for the peer.
    Outgoing,
}

/// The handshakes of this side's WireGuard with a peer.
#[derive(Debug)]
pub(crate) struct Handshakes {
    /// Whether the initiation of this side counts where two cross.
    counts: bool,
    /// An initiation of this side without an answer, and when it went.
    sent: Option<(Instant, Box<[u8]>)>,
    /// When WireGuard was given an initiation that it has not answered.
    given: Option<Instant>,
    /// Until when which initiation is kept back.
    kept: Option<(Instant, Kept, Box<[u8]>)>,
    /// How often two have crossed, and one of them was taken out.
    pub(crate) crossed: u64,
}

impl Handshakes {
    pub(crate) fn new(own: &NodePublic, peer: &NodePublic) -> Self {
        Self { counts: own < peer, sent: None, given: None, kept: None, crossed: 0 }
    }

    /// Looks at a message of this side's WireGuard.
    pub(crate) fn outgoing(&mut self, kind: MessageKind, message: &[u8], now: Instant) -> Verdict {
        match kind {
            MessageKind::Initiation => {
                if let Some(given) = self.given.filter(|given| now < *given + RESPONSE) {
                    // WireGuard made it before it saw the peer's, whose answer will void it.
                    self.kept = Some((given + RESPONSE, Kept::Outgoing, message.into()));
                    return Verdict::Keep;
                }
                self.sent = Some((now, message.into()));
            }
            MessageKind::Response => {
                self.given = None;
                self.sent = None;
                if matches!(self.kept, Some((_, Kept::Outgoing, _))) {
                    self.kept = None;
                    self.crossed += 1;
                }
            }
            MessageKind::Cookie | MessageKind::Data => {}
        }
        Verdict::Pass
    }

    /// Looks at a message of the peer.
    pub(crate) fn incoming(&mut self, kind: MessageKind, message: &[u8], now: Instant) -> Verdict {
        match kind {
            MessageKind::Initiation => {
                let waits = self.sent.as_ref().map(|(sent, _)| *sent + ANSWER).filter(|until| now < *until);
                if let Some(until) = waits.filter(|_| self.counts) {
                    self.kept = Some((until, Kept::Incoming, message.into()));
                    return Verdict::Keep;
                }
                self.given = Some(now);
            }
            MessageKind::Response => {
                self.sent = None;
                if matches!(self.kept, Some((_, Kept::Incoming, _))) {
                    self.kept = None;
                    self.crossed += 1;
                }
            }
            MessageKind::Cookie | MessageKind::Data => {}
        }
        Verdict::Pass
    }

    /// When the message that is kept back goes on after all.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.kept.as_ref().map(|(due, ..)| *due)
    }

    /// The initiation of this kind that was kept back long enough.
    pub(crate) fn take_due(&mut self, kind: Kept, now: Instant) -> Option<Box<[u8]>> {
        let (.., message) = self.kept.take_if(|(due, kept, _)| *kept == kind && *due <= now)?;
        match kind {
            Kept::Incoming => self.given = Some(now),
            Kept::Outgoing => self.sent = Some((now, message.clone())),
        }
        Some(message)
    }

    /// The initiation of this side that has no answer, to be sent once more because the peer was not there to take it. WireGuard sends
    /// none until 5 s are over, and takes none twice.
    pub(crate) fn again(&mut self, now: Instant) -> Option<Box<[u8]>> {
        let (sent, message) = self.sent.as_mut()?;
        if now >= *sent + REKEY_TIMEOUT {
            return None;
        }
        *sent = now;
        Some(message.clone())
    }
}

#[cfg(test)]
mod tests;
