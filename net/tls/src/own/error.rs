//! Breaks of the record layer, and the alerts that tell a peer of them.

/// How a peer breaks the record layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The record was not sealed by the peer, or was changed.
    #[error("a record does not open")]
    BadRecordMac,
    /// The record, or what it holds, is longer than TLS allows.
    #[error("a record is too long")]
    Overflow,
    /// A record or a message of a kind that has no place here.
    #[error("an unexpected message")]
    Unexpected,
    /// A message that has not its form.
    #[error("a malformed message")]
    Decode,
    /// Too many records without data in a row.
    #[error("too many records without data")]
    Idle,
    /// More changes of keys than the records between them justify.
    #[error("too many key updates")]
    KeyUpdates,
    /// The peer ends the connection for this reason (appendix B.2).
    #[error("the peer reports an error (alert {0})")]
    Alert(u8),
}

impl RecordError {
    /// The alert that tells the peer of it; none where the peer told us.
    pub(super) const fn alert(self) -> Option<u8> {
        match self {
            Self::Unexpected | Self::Idle | Self::KeyUpdates => Some(10),
            Self::BadRecordMac => Some(20),
            Self::Overflow => Some(22),
            Self::Decode => Some(50),
            Self::Alert(_) => None,
        }
    }
}
