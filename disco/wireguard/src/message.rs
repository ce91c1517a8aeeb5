//! The messages of WireGuard, as far as they can be told from outside (the WireGuard paper, section 5.4).

/// The kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// The first message of a handshake: type 1, 148 bytes.
    Initiation,
    /// The answer to one: type 2, 92 bytes.
    Response,
    /// A cookie, which a host under load answers with instead: type 3, 64 bytes.
    Cookie,
    /// An encrypted packet: type 4, at least 32 bytes.
    Data,
}

impl MessageKind {
    /// The kind of a packet; `None` for one that is none of WireGuard's.
    #[must_use]
    pub const fn of(packet: &[u8]) -> Option<Self> {
        // Data first: it is nearly all there is.
        match (packet, packet.len()) {
            ([4, 0, 0, 0, ..], 32..) => Some(Self::Data),
            ([1, 0, 0, 0, ..], 148) => Some(Self::Initiation),
            ([2, 0, 0, 0, ..], 92) => Some(Self::Response),
            ([3, 0, 0, 0, ..], 64) => Some(Self::Cookie),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_type_and_its_length() {
        let kind = |first: [u8; 4], len: usize| {
            let mut packet = first.to_vec();
            packet.resize(len, 7);
            MessageKind::of(&packet)
        };
        assert_eq!(kind([1, 0, 0, 0], 148), Some(MessageKind::Initiation));
        assert_eq!(kind([2, 0, 0, 0], 92), Some(MessageKind::Response));
        assert_eq!(kind([3, 0, 0, 0], 64), Some(MessageKind::Cookie));
        assert_eq!(kind([4, 0, 0, 0], 32), Some(MessageKind::Data));
        for (first, len) in [
            ([1, 0, 0, 0], 147),
            ([1, 0, 0, 0], 149),
            ([4, 0, 0, 0], 31),
            ([4, 1, 0, 0], 32),
            ([5, 0, 0, 0], 64),
        ] {
            assert_eq!(kind(first, len), None, "{first:?} {len}");
        }
        assert_eq!(MessageKind::of(&[]), None);
    }
}
