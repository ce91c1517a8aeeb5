//! disco: the messages by which two peers find a direct path, in Tailscale's wire format.
//!
//! A disco packet is the magic, the sender's disco key in clear, a nonce and a sealed box. What is in the box is a
//! [`message`]. A relay needs no more than [`looks_like_disco`]; a peer tells disco from the other packets of its socket by
//! [`datagram`], and opens it with the shared key of the two ([`packet`]). `disco/disco.go` of Tailscale is the source.

pub mod datagram;
pub mod key;
pub mod message;
pub mod packet;

/// First bytes of a disco packet: "TS" and U+1F4AC.
pub const MAGIC: [u8; 6] = [0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac];

/// Magic, sender's disco key and nonce: no disco packet is shorter.
pub const MIN_LEN: usize = MAGIC.len() + 32 + 24;

/// Whether `packet` passes upstream's test for a disco packet (`disco.LooksLikeDiscoWrapper`).
#[must_use]
pub fn looks_like_disco(packet: &[u8]) -> bool {
    packet.len() >= MIN_LEN && packet.starts_with(&MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disco_packet_has_the_magic_and_room_for_key_and_nonce() {
        let shortest = [&MAGIC[..], &[0; 32 + 24]].concat();
        assert!(looks_like_disco(&shortest));
        assert!(!looks_like_disco(&shortest[..shortest.len() - 1]), "cut");
        assert!(!looks_like_disco(&shortest[1..]), "without the start of the magic");
        assert!(!looks_like_disco(&[0; 100]));
    }
}
